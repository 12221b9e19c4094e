"""The port's Stream: whole frames over one Yamux stream.

Each direction is frames, each 4-byte length and body, then the end marker, a length that no frame has, and only then Yamux' own
FIN. Whatever ends a stream without the marker, be it a killed process or an intermediary, has broken it.
"""

from __future__ import annotations

from typing import Protocol

from protocols.errors import DecodeError, LocalError, Reason
from protocols.frames import frame_header
from protocols.limits import FRAME_BYTES_MAX, FRAME_BYTES_MAX_UNPROVEN, FRAME_HEADER_BYTES
from protocols.yamux.pieces import Piece, Pieces, joined

from ..port import StreamBroken, StreamEnded

END_MARKER = b"\xff" * FRAME_HEADER_BYTES
# Asked of the muxer at once; what it gives beyond a frame waits here, on our account instead of the window's.
READ_BYTES_MIN = 256 * 1024


class ByteLane(Protocol):
    """One stream of bytes of whichever muxer: what frames need of it."""

    @property
    def is_trusted(self) -> bool:
        """Whether the connection's peer is."""

    @property
    def is_finishing(self) -> bool:
        """Whether ``finish`` was called."""

    async def receive_pieces(self, size_max: int) -> list[Piece]:
        """Some of the bytes that are there; [] once the peer has finished. Raises StreamBroken."""

    async def wait_room(self) -> None:
        """Returns when a frame may be queued. Raises StreamBroken."""

    def check_sendable(self) -> None:
        """Raises StreamBroken."""

    def put(self, *pieces: bytes) -> None:
        """Queues bytes; never waits."""

    async def flush(self) -> None:
        """Returns when all that was put has been written to the connection. Raises StreamBroken."""

    def finish(self) -> None:
        """Half-closes behind everything queued."""

    def reset(self, reason: str = "this side reset the stream") -> None:
        """Tells the peer and forgets the stream, with all that is queued."""


class FramedStream:
    """One conversation's stream. Any task may send; one at a time receives."""

    def __init__(self, stream: ByteLane, protocol: str) -> None:
        self.protocol = protocol
        self._stream = stream
        self._arrived = Pieces()

    async def send(self, *parts: bytes) -> None:
        """Queues one frame body, at most FRAME_BYTES_MAX bytes; waits for room (at most 1 MiB is queued). Raises StreamBroken."""
        size = sum(map(len, parts))
        if size > FRAME_BYTES_MAX:
            raise LocalError(Reason.TOO_LONG, f"frame of {size} bytes, at most {FRAME_BYTES_MAX} wanted")
        await self._stream.wait_room()
        self._stream.put(frame_header(size), *parts)

    async def flush(self) -> None:
        """Returns when everything queued so far has been handed to the connection. Raises StreamBroken."""
        await self._stream.flush()

    async def receive(self) -> bytes:
        """Next frame body. Raises StreamEnded, StreamBroken, DecodeError(TOO_LONG) (the stream is reset then)."""
        while True:
            wanted = self._wanted()
            if self._arrived.byte_count >= wanted:
                self._arrived.take(FRAME_HEADER_BYTES)
                return joined(self._arrived.take(wanted - FRAME_HEADER_BYTES))
            pieces = await self._stream.receive_pieces(
                max(wanted - self._arrived.byte_count, READ_BYTES_MIN if self._stream.is_trusted else 0)
            )
            if not pieces:
                raise StreamBroken("the stream ended without its end marker")
            for piece in pieces:
                self._arrived.put(piece)

    def _wanted(self) -> int:
        """Bytes of the frame in front, with its header. Raises StreamEnded, DecodeError."""
        header = self._arrived.peek(FRAME_HEADER_BYTES)
        if len(header) < FRAME_HEADER_BYTES:
            return FRAME_HEADER_BYTES
        if header == END_MARKER:
            raise StreamEnded
        size = int.from_bytes(header, "big")
        bytes_max = FRAME_BYTES_MAX if self._stream.is_trusted else FRAME_BYTES_MAX_UNPROVEN
        if size > bytes_max:
            self.reset()
            raise DecodeError(Reason.TOO_LONG, f"frame of {size} bytes, at most {bytes_max} wanted")
        return FRAME_HEADER_BYTES + size

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
