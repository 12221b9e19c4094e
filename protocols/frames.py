"""Bytes to frames and back: 4-byte big-endian length, then the body. Sans-IO."""

from __future__ import annotations

from .errors import DecodeError, Reason
from .limits import FRAME_BYTES_MAX, FRAME_HEADER_BYTES


def frame_header(body_bytes: int) -> bytes:
    """Header of a body of that many bytes."""
    assert body_bytes <= FRAME_BYTES_MAX
    return body_bytes.to_bytes(FRAME_HEADER_BYTES, "big")


class FrameReader:
    """Feed bytes as they come, take whole frames. Holds at most one unfinished frame and what was fed."""

    def __init__(self, bytes_max: int = FRAME_BYTES_MAX) -> None:
        """bytes_max: of a frame's body; may be changed between two frames, when the peer has become another one to us."""
        self.bytes_max = bytes_max
        self._buffer = bytearray()

    def feed(self, data: bytes | memoryview) -> None:
        self._buffer += data

    def take(self) -> bytes | None:
        """Next whole frame, or None. Raises DecodeError(TOO_LONG) from the header alone, before the body is awaited."""
        if len(self._buffer) < FRAME_HEADER_BYTES:
            return None
        size = int.from_bytes(self._buffer[:FRAME_HEADER_BYTES], "big")
        if size > self.bytes_max:
            raise DecodeError(Reason.TOO_LONG, f"frame of {size} bytes, at most {self.bytes_max} wanted")
        end = FRAME_HEADER_BYTES + size
        if len(self._buffer) < end:
            return None
        with memoryview(self._buffer) as view:
            frame = bytes(view[FRAME_HEADER_BYTES:end])
        del self._buffer[:end]
        return frame

    def check_finished(self) -> None:
        """Raises DecodeError(TRUNCATED) if the end came in the middle of a frame."""
        if self._buffer:
            raise DecodeError(Reason.TRUNCATED, f"stream ended {len(self._buffer)} bytes into a frame")
