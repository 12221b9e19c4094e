"""Our own few lines against the standard library's."""

from __future__ import annotations

import hmac

from hypothesis import given
from hypothesis import strategies as st

from protocols.crypto import hmac_sha256


@given(key=st.binary(max_size=64), data=st.binary(max_size=300))
def test_hmac_is_that_of_the_library(key: bytes, data: bytes) -> None:
    assert hmac_sha256(key, data) == hmac.digest(key, data, "sha256")
