"""Our own few lines against the standard library's; signatures that are remembered."""

from __future__ import annotations

import hmac

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.crypto import VERIFIED_BYTES_MAX, SigningKey, hmac_sha256, verify_raw
from protocols.errors import InvalidObject, Reason


@given(key=st.binary(max_size=64), data=st.binary(max_size=300))
def test_hmac_is_that_of_the_library(key: bytes, data: bytes) -> None:
    assert hmac_sha256(key, data) == hmac.digest(key, data, "sha256")


@pytest.mark.parametrize("size", [10, VERIFIED_BYTES_MAX + 1])
def test_signature_that_held_says_nothing_for_another_message_key_or_signature(size: int) -> None:
    """Goal: what is remembered is the whole of it. Method: after the true one, each part changed alone is refused, twice."""
    key, other, message = SigningKey(b"k" * 32), SigningKey(b"o" * 32), b"m" * size
    signature = key.sign_raw(message)
    wrong = bytes([signature[0] ^ 1]) + signature[1:]
    for _ in range(2):
        verify_raw(key.public, signature, message)
        for public, mark, said in (
            (other.public, signature, message),
            (key.public, wrong, message),
            (key.public, signature, message + b"!"),
        ):
            with pytest.raises(InvalidObject) as caught:
                verify_raw(public, mark, said)
            assert caught.value.reason is Reason.BAD_SIGNATURE
