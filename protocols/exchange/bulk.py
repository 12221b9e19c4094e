"""Chunk frames without the detour over the general codec: the same bytes, and each sealed byte copied once.

A Chunk is nearly all of what moves. The general codec copies its bytes four times (decode, encode again to see that the form is the
canonical one, compare, join with the message number); here the few bytes before them are written and read by hand.
"""

from __future__ import annotations

from ..errors import DecodeError, Reason
from .messages import Chunk

CHUNK_NUMBER = 3
_ARRAY_OF_THREE = 0x93
# Message number, array, two integers of at most 9 bytes, header of the bytes.
HEADER_BYTES_MAX = 1 + 1 + 9 + 9 + 5


def chunk_header(request: int, index: int, data_bytes: int) -> bytes:
    """What stands before the bytes of a Chunk in its frame."""
    return bytes((CHUNK_NUMBER, _ARRAY_OF_THREE)) + _unsigned(request) + _unsigned(index) + _bytes_header(data_bytes)


def chunk_of(frame: bytes) -> Chunk:
    """The Chunk of a frame that begins with its number. Raises DecodeError(MALFORMED | NOT_CANONICAL), as the general codec does."""
    if len(frame) < 2 or frame[1] != _ARRAY_OF_THREE:
        raise DecodeError(Reason.MALFORMED, "not a Chunk: another number of fields")
    request, at = _take_unsigned(frame, 2)
    index, at = _take_unsigned(frame, at)
    size, at = _take_bytes_header(frame, at)
    if len(frame) != at + size:
        raise DecodeError(Reason.MALFORMED, f"not a Chunk: {len(frame) - at} bytes where {size} are announced")
    if chunk_header(request, index, size) != frame[:at]:
        raise DecodeError(Reason.NOT_CANONICAL, "a Chunk in a form that we never write")
    return Chunk(request, index, frame[at:])


def _unsigned(value: int) -> bytes:
    assert 0 <= value < 1 << 64
    if value < 0x80:
        return bytes((value,))
    for marker, size in ((0xCC, 1), (0xCD, 2), (0xCE, 4)):
        if value < 1 << (8 * size):
            return bytes((marker,)) + value.to_bytes(size, "big")
    return b"\xcf" + value.to_bytes(8, "big")


def _bytes_header(size: int) -> bytes:
    for marker, width in ((0xC4, 1), (0xC5, 2)):
        if size < 1 << (8 * width):
            return bytes((marker,)) + size.to_bytes(width, "big")
    return b"\xc6" + size.to_bytes(4, "big")


def _take_unsigned(frame: bytes, at: int) -> tuple[int, int]:
    """Value and the place behind it. Negative numbers are no numbers of ours."""
    marker = frame[at] if at < len(frame) else 0xC0
    if marker < 0x80:
        return marker, at + 1
    if not 0xCC <= marker <= 0xCF:
        raise DecodeError(Reason.MALFORMED, "not a Chunk: no number where one is due")
    end = at + 1 + (1 << (marker - 0xCC))
    return int.from_bytes(frame[at + 1 : end], "big"), end


def _take_bytes_header(frame: bytes, at: int) -> tuple[int, int]:
    marker = frame[at] if at < len(frame) else 0xC0
    if not 0xC4 <= marker <= 0xC6:
        raise DecodeError(Reason.MALFORMED, "not a Chunk: no bytes where they are due")
    end = at + 1 + (1 << (marker - 0xC4))
    return int.from_bytes(frame[at + 1 : end], "big"), end
