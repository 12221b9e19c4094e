"""The list of messages: numbers, frames, and that decoding answers any bytes with a message or DecodeError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.auth.messages import Proof, Refusal
from protocols.errors import DecodeError, Reason
from protocols.limits import FRAME_BYTES_MAX
from protocols.registry import CONVERSATIONS, decode_message, encode_message, protocol_id

names = st.sampled_from(sorted(CONVERSATIONS))


@given(names, st.binary(max_size=80), st.integers(1, 20))
def test_any_bytes_give_a_message_that_encodes_to_them_or_decode_error(name: str, data: bytes, number: int) -> None:
    """Goal: nothing else comes out of the door. Method: noise behind every message number of every conversation."""
    frame = bytes([number]) + data
    try:
        message = decode_message(name, frame)
    except DecodeError:
        return
    assert encode_message(name, message) == frame


def test_frames_that_are_no_message_are_told_apart() -> None:
    """Goal: reasons people can use. Method: empty, unknown number, wrong record, too long."""
    good = encode_message("auth", Proof(signature=bytes(64)))
    assert decode_message("auth", memoryview(good)) == Proof(signature=bytes(64))
    cases = [
        (b"", Reason.TRUNCATED),
        (b"\xff" + good[1:], Reason.UNKNOWN_MESSAGE),
        (b"\x06" + good[1:], Reason.MALFORMED),
        (good + b"\0", Reason.MALFORMED),
        (bytes([1]) + bytes(FRAME_BYTES_MAX), Reason.TOO_LONG),
    ]
    for frame, reason in cases:
        with pytest.raises(DecodeError) as caught:
            decode_message("auth", frame)
        assert caught.value.reason is reason


def test_message_of_another_conversation_is_our_own_mistake() -> None:
    """Goal: a machine cannot speak on the wrong stream. Method: an auth message on join."""
    with pytest.raises(AssertionError):
        encode_message("join", Refusal(reason="", text=""))
    assert [protocol_id(name) for name in ("auth", "join")] == ["/lading/auth/1", "/lading/join/1"]
