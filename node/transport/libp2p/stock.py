"""The library's own session and muxer behind our fence, our ids and our streams: a fallback to be chosen, and the reference in tests.

What is wrong with them is kept from applications as far as it can be from outside: every read and write of a stream is done by tasks
of the muxer's, which no conversation can cancel, through bounded queues. What stays: its writer gives a stream up when its window was
shut for 5 s, its read loop writes and so can lock up under bulk both ways, only the kernel notices a silent peer, and it is slow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import trio

from protocols.limits import STREAMS_INBOUND_MAX, STREAMS_OUTBOUND_MAX, UNREAD_BYTES_MAX_UNPROVEN
from protocols.types import PeerId
from protocols.yamux.frames import HEADER_BYTES, Kind
from protocols.yamux.pieces import Piece, Pieces, joined

from ..port import PresharedKey, StreamBroken
from .budget import RateBudget
from .library import ID, ConnectionClosedError, MuxedStreamEOF, Yamux
from .noise import remote_of
from .wire import Wire

# Read ahead for the application, which may be cancelled; the library's window comes on top of it.
AHEAD_BYTES_MAX = 256 * 1024
READ_BYTES = 64 * 1024
WINDOW_BYTES_MAX = 1024 * 1024
# How long the peer's end waits for our applications to read what came before it.
UNREAD_PATIENCE_S = 1.0
# As of our own muxer: queued by the application and not yet taken by the writer.
QUEUE_BYTES_MAX = 1024 * 1024


class _StockWire:
    """Our socket with the errors that the library's session understands, and with the peer's budget of bytes a second."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self.budget = RateBudget()

    async def read(self, n: int) -> bytes:
        # The library's read loop would otherwise run through everything that is there before any reader does, and throw away
        # what they have not read when it meets the farewell.
        await trio.lowlevel.checkpoint()
        try:
            return await self._wire.read(n)
        except StreamBroken as error:
            raise ConnectionClosedError(error.message) from error

    async def write(self, data: bytes) -> None:
        try:
            await self.budget.take(len(data))
            await self._wire.write(data)
        except StreamBroken as error:
            raise ConnectionClosedError(error.message) from error

    async def close(self) -> None:
        """The connection closes its socket itself."""

    def get_remote_address(self) -> tuple[str, int] | None:
        return self._wire.get_remote_address()


class _PatientSession:
    """The library's session for the library's muxer, which throws away all that is unread when it meets the peer's farewell or end:
    so these are kept from it until its readers have had what came before."""

    def __init__(self, secured: Any, wait_room: Callable[[], Awaitable[None]], wait_read: Callable[[], Awaitable[None]]) -> None:
        self._wait_room = wait_room
        self._secured = secured
        self._wait_read = wait_read
        self.is_initiator = secured.is_initiator
        self.write = secured.write
        self.close = secured.close
        self.get_remote_address = secured.get_remote_address

    async def read(self, n: int) -> bytes:
        await self._wait_room()
        try:
            data: bytes = await self._secured.read(n)
        except ConnectionClosedError:
            await self._wait_read()
            raise
        if len(data) == HEADER_BYTES and data[1] == Kind.GO_AWAY:
            await self._wait_read()
        return data


class StockSession:
    """The session that the library's handshake gave."""

    def __init__(self, wire: Wire, secured: Any, preshared_key: PresharedKey) -> None:
        self.remote: PeerId = remote_of(secured)
        self.preshared_key = preshared_key
        self.handshake_hash = bytes(secured.conn.noise_state.get_handshake_hash())
        self.secured = secured
        self.wire = _StockWire(wire)
        secured.conn.read_writer.read_write_closer = self.wire

    async def read(self, n: int) -> bytes:
        """Exactly n bytes: for negotiation."""
        try:
            data: bytes = await self.secured.read(n)
        except Exception as error:  # a door: whichever of its classes it is today
            raise StreamBroken(f"connection lost: {error}") from error
        if len(data) < n:
            raise StreamBroken("the peer closed the connection")
        return data

    async def write(self, data: bytes) -> None:
        """All of it: for negotiation."""
        try:
            await self.secured.write(data)
        except Exception as error:  # a door: whichever of its classes it is today
            raise StreamBroken(f"connection lost: {error}") from error


class StockStream:
    """One stream of the library's, read and written by two tasks of the muxer's. Made by StockMuxer only."""

    def __init__(self, muxer: StockMuxer, raw: Any, *, outbound: bool) -> None:
        self.outbound = outbound
        self.lost: str | None = None
        self.is_finishing = False
        self.has_left = True
        self._muxer = muxer
        self._raw = raw
        self._incoming = Pieces()
        self._outgoing = Pieces()
        self._has_ended = False
        self._has_finished = False
        self._put_count = 0
        self._left_count = 0
        self._change = trio.lowlevel.ParkingLot()

    @property
    def is_trusted(self) -> bool:
        """Whether the connection's peer is."""
        return self._muxer.is_trusted

    @property
    def raw_id(self) -> int:
        return int(self._raw.stream_id)

    @property
    def unread_bytes(self) -> int:
        return self._incoming.byte_count

    # --- what the application calls -------------------------------------------------------------------------------
    async def receive_pieces(self, size_max: int) -> list[Piece]:
        """Some of the bytes that are there; [] once the peer has finished. Raises StreamBroken."""
        while not self._incoming.byte_count:
            if self._has_ended:
                return []
            if self.lost is not None:
                raise StreamBroken(self.lost)
            await self._change.park()
        pieces = self._incoming.take(size_max)
        self._change.unpark_all()
        self._muxer.look_again()
        return pieces

    async def read(self, n: int) -> bytes:
        """Exactly n bytes: for negotiation."""
        data = b""
        while len(data) < n:
            piece = joined(await self.receive_pieces(n - len(data)))
            if not piece:
                raise StreamBroken("the stream ended early")
            data += piece
        return data

    async def write(self, data: bytes) -> None:
        """Queues bytes after waiting for room: for negotiation."""
        await self.wait_room()
        self.put(data)

    async def wait_room(self) -> None:
        """Returns when a frame may be queued. Raises StreamBroken."""
        self.check_sendable()
        while self._put_count - self._left_count >= QUEUE_BYTES_MAX:
            await self._change.park()
            self.check_sendable()

    def check_sendable(self) -> None:
        """Raises StreamBroken."""
        if self.lost is not None:
            raise StreamBroken(self.lost)
        if self.is_finishing:
            raise StreamBroken("this side has finished the stream")

    def put(self, *pieces: bytes) -> None:
        """Queues bytes; never waits."""
        for piece in pieces:
            self._outgoing.put(piece)
            self._put_count += len(piece)
        self.has_left = False
        self._change.unpark_all()

    async def flush(self) -> None:
        """Returns when all that was put has been written to the connection. Raises StreamBroken."""
        target = self._put_count
        while self._left_count < target:
            if self.lost is not None:
                raise StreamBroken(self.lost)
            await self._change.park()

    def finish(self) -> None:
        """Half-closes behind everything queued."""
        if not self.is_finishing and self.lost is None:
            self.is_finishing, self.has_left = True, False
            self._change.unpark_all()

    def reset(self, reason: str = "this side reset the stream") -> None:
        """Tells the peer and forgets the stream, with all that is queued."""
        if self.lost is None:
            self._incoming.clear()
            self.lose(reason)
            self._muxer.start(self._raw.reset)

    # --- what the muxer calls -------------------------------------------------------------------------------------
    def lose(self, reason: str) -> None:
        """The stream is gone; what had arrived can still be read."""
        if self.lost is None and not (self._has_ended and self._has_finished):
            self.lost = reason
            self._outgoing.clear()
            self.has_left = True
        self._muxer.forget(self)
        self._change.unpark_all()

    async def read_on(self) -> None:
        """The reading task."""
        try:
            while self.lost is None:
                self._incoming.put(await self._raw.read(READ_BYTES))
                self._change.unpark_all()
                self._muxer.look_again()
                while self._incoming.byte_count >= AHEAD_BYTES_MAX and self.lost is None:
                    await self._change.park()
        except MuxedStreamEOF:
            self._has_ended = True
            self._forget_if_over()
        except Exception as error:  # a door: whichever of its classes it is today
            self.lose(f"the stream broke: {error}")

    async def write_on(self) -> None:
        """The writing task."""
        try:
            while self.lost is None and not self._has_finished:
                data = joined(self._outgoing.take(QUEUE_BYTES_MAX))
                if data:
                    await self._raw.write(data)
                    self._left_count += len(data)
                elif self.is_finishing:
                    await self._raw.close()
                    self._has_finished = True
                    self._forget_if_over()
                else:
                    await self._change.park()
                self.has_left = not self._outgoing.byte_count and self.is_finishing == self._has_finished
                self._change.unpark_all()
                self._muxer.look_again()
        except Exception as error:  # a door: whichever of its classes it is today
            self.lose(f"the stream broke: {error}")

    def _forget_if_over(self) -> None:
        if self._has_ended and self._has_finished:
            self._muxer.forget(self)
        self._change.unpark_all()


def _cap_window(raw: Any) -> None:
    """The library doubles a window up to 16 MiB, also for a reader that only negotiates byte by byte."""
    grow = raw._apply_autotune_epoch

    def grow_within(buffered: int) -> int:
        return 0 if raw.target_recv_window >= WINDOW_BYTES_MAX else int(grow(buffered))

    raw._apply_autotune_epoch = grow_within


class StockMuxer:
    """The library's muxer with the face of ours."""

    def __init__(self, session: StockSession, *, initiator: bool, opened: Callable[[StockStream], None], budget: RateBudget) -> None:
        self.budget = session.wire.budget = budget
        self.raw = Yamux(_PatientSession(session.secured, self._wait_room, self._wait_read), ID(session.remote), is_initiator=initiator)
        self.is_trusted = False
        self._opened = opened
        self._streams: dict[StockStream, None] = {}
        self._nursery: trio.Nursery | None = None
        self._started = trio.Event()
        self._change = trio.lowlevel.ParkingLot()

    @property
    def stream_count(self) -> int:
        return len(self._streams)

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What must run for it, until the connection is lost, which it says by raising StreamBroken."""
        return (self._run,)

    async def _run(self) -> None:
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            nursery.start_soon(self._accept)
            self._started.set()
            try:
                await self.raw.start()
            finally:
                self._nursery = None
                nursery.cancel_scope.cancel()
        raise StreamBroken("the peer closed the connection")

    async def _accept(self) -> None:
        await self.raw.event_started.wait()
        while True:
            try:
                raw = await self.raw.accept_stream()
            except Exception:  # a door: whichever of its classes it is today, the connection has ended
                return
            if sum(not stream.outbound for stream in self._streams) >= STREAMS_INBOUND_MAX:
                self.start(raw.reset)
            else:
                self._opened(self._stream(raw, outbound=False))

    async def open_stream(self) -> StockStream:
        """New outbound stream. Raises StreamBroken when there are too many, or the connection is gone."""
        if sum(stream.outbound for stream in self._streams) >= STREAMS_OUTBOUND_MAX:
            raise StreamBroken(f"{STREAMS_OUTBOUND_MAX} streams are open on this connection, no more are allowed")
        await self._started.wait()
        if self._nursery is None:
            raise StreamBroken("the connection has ended")
        found: list[StockStream] = []
        opened = trio.Event()
        is_wanted = True

        async def open_raw() -> None:
            """Out of the application's reach: cancelled in the middle, it would cut the session."""
            try:
                await self.raw.event_started.wait()
                stream = self._stream(await self.raw.open_stream(), outbound=True)
                if is_wanted:
                    found.append(stream)
                else:
                    stream.reset()
            except Exception:  # a door: whichever of its classes it is today, the connection has ended
                found.clear()
            finally:
                opened.set()

        self.start(open_raw)
        try:
            await opened.wait()
        except trio.Cancelled:
            is_wanted = False
            for stream in found:
                stream.reset()
            raise
        if not found:
            raise StreamBroken("the connection has ended")
        return found[0]

    def _stream(self, raw: Any, *, outbound: bool) -> StockStream:
        _cap_window(raw)
        stream = StockStream(self, raw, outbound=outbound)
        self._streams[stream] = None
        self.start(stream.read_on)
        self.start(stream.write_on)
        return stream

    def trust(self) -> None:
        """See port.Connection."""
        self.is_trusted = True
        self.look_again()

    @property
    def unread_bytes(self) -> int:
        """Arrived and not taken by the application, of all streams that are not gone."""
        buffers = self.raw.stream_buffers
        return sum(stream.unread_bytes + len(buffers.get(stream.raw_id, b"")) for stream in self._streams)

    async def _wait_room(self) -> None:
        while not self.is_trusted and self.unread_bytes >= UNREAD_BYTES_MAX_UNPROVEN:
            await self._change.park()

    async def _wait_read(self) -> None:
        with trio.move_on_after(UNREAD_PATIENCE_S):
            while any(self.raw.stream_buffers.values()):
                await self._change.park()

    def start(self, task: Callable[[], Awaitable[object]]) -> None:
        """Runs it beside the muxer, whatever becomes of it."""
        if self._nursery is not None:
            self._nursery.start_soon(self._let_fail, task)

    async def _let_fail(self, task: Callable[[], Awaitable[object]]) -> None:
        try:
            await task()
        except Exception as error:  # a door: whichever of its classes it is today
            self.lose(f"the connection broke: {error}")

    def forget(self, stream: StockStream) -> None:
        """Nobody reads it any more. Of a stream that was thrown away the library keeps what is unread for minutes."""
        self._streams.pop(stream, None)
        if stream.lost is not None:
            # Emptied, not removed: the library's reader may be between two looks at it.
            self.raw.stream_buffers.get(stream.raw_id, bytearray()).clear()
        self.look_again()

    def look_again(self) -> None:
        """Wakes who waits for everything to leave."""
        self._change.unpark_all()

    def lose(self, reason: str) -> None:
        """The connection is gone: so are its streams, and whoever waits for one."""
        self._started.set()
        for stream in tuple(self._streams):
            stream.lose(reason)
        self.look_again()

    has_last_word = False
    """The library says none."""

    async def say_last_word(self) -> None:
        """Nothing."""

    async def say_goodbye(self) -> None:
        """Lets everything queued leave, then the farewell."""
        while not all(stream.has_left for stream in self._streams):
            await self._change.park()
        left = trio.Event()

        async def close_raw() -> None:
            try:
                await self.raw.close()
            finally:
                left.set()

        self.start(close_raw)
        await left.wait()
