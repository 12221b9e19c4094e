"""The port's Stream: whole frames over one Yamux stream.

Each direction is frames, each 4-byte length and body, then the end marker, a length that no frame has, and only then Yamux' own
FIN. Whatever ends a stream without the marker, be it a killed process or an intermediary, has broken it.
"""

from __future__ import annotations

from protocols.errors import DecodeError, LocalError, Reason
from protocols.frames import FrameReader, frame_header
from protocols.limits import FRAME_BYTES_MAX, FRAME_BYTES_MAX_UNPROVEN, FRAME_HEADER_BYTES

from ..port import StreamBroken, StreamEnded
from .mux import MuxStream

# Below this, joining costs less than a piece of its own.
SEPARATE_BYTES_MIN = 16 * 1024
END_MARKER = b"\xff" * FRAME_HEADER_BYTES


class _FramesAndEnd(FrameReader):
    """Frames, and whether the end marker stands where the next one would begin."""

    @property
    def has_ended(self) -> bool:
        return self._buffer.startswith(END_MARKER)


class FramedStream:
    """One conversation's stream. Any task may send; one at a time receives."""

    def __init__(self, stream: MuxStream, protocol: str) -> None:
        self.protocol = protocol
        self._stream = stream
        self._reader = _FramesAndEnd()

    async def send(self, *parts: bytes) -> None:
        """Queues one frame body, at most FRAME_BYTES_MAX bytes; waits for room (at most 1 MiB is queued). Raises StreamBroken."""
        size = sum(map(len, parts))
        if size > FRAME_BYTES_MAX:
            raise LocalError(Reason.TOO_LONG, f"frame of {size} bytes, at most {FRAME_BYTES_MAX} wanted")
        await self._stream.wait_room()
        *small, last = (frame_header(size), *parts)
        if len(last) < SEPARATE_BYTES_MIN:
            self._stream.put(b"".join((*small, last)))
        else:  # nothing comes between the two: no other task runs meanwhile
            self._stream.put(b"".join(small))
            self._stream.put(last)

    async def flush(self) -> None:
        """Returns when everything queued so far has been handed to the connection. Raises StreamBroken."""
        await self._stream.flush()

    async def receive(self) -> bytes:
        """Next frame body. Raises StreamEnded, StreamBroken, DecodeError(TOO_LONG) (the stream is reset then)."""
        while not self._reader.has_ended:
            self._reader.bytes_max = FRAME_BYTES_MAX if self._stream.is_trusted else FRAME_BYTES_MAX_UNPROVEN
            try:
                frame = self._reader.take()
            except DecodeError:
                self.reset()
                raise
            if frame is not None:
                return frame
            data = await self._stream.receive_some()
            if not data:
                raise StreamBroken("the stream ended without its end marker")
            self._reader.feed(data)
        raise StreamEnded

    async def finish(self) -> None:
        """Half-closes behind everything queued, and returns when all of it has left; receiving goes on. Raises StreamBroken.

        Cancelling it cancels the waiting only, the end is queued; finishing twice is finishing once.
        """
        if not self._stream.is_finishing:
            self._stream.check_sendable()
            self._stream.put(END_MARKER)
            self._stream.finish()
        await self._stream.flush()

    def reset(self) -> None:
        """Throws the stream away, both directions, at once."""
        self._stream.reset()
