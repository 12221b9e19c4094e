"""Yamux over one session: the trio around protocols/yamux. One reader, one writer, one clock; everything else is synchronous.

The library's muxer answers from its read loop and can lock up two-way, drops data when a read is cancelled, polls, keeps more
than it granted, and gives a stream up after 5 s. Here nothing that reads ever waits for something that writes, and what is
written leaves from one task that no conversation can cancel.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol

import trio

from protocols.errors import LadingError
from protocols.limits import UNREAD_BYTES_MAX_UNPROVEN
from protocols.yamux.budget import Budget, connection_budget, process_budget
from protocols.yamux.pieces import Piece, joined
from protocols.yamux.session import Changed, Failed, Leave, Limits, Lose, Open, Opened, Refused, Tick, YamuxSession
from protocols.yamux.stream import YamuxStream

from ..port import StreamBroken
from .budget import RateBudget

MUXER_PROTOCOL = "/lading/yamux/1"

# Queued by the application and not yet taken by the writer; a frame is queued whole, so one frame more is possible.
QUEUE_BYTES_MAX = 1024 * 1024
# Every connection of the process counts here.
PROCESS_BUDGET = process_budget()


class PlainSession(Protocol):
    """The session underneath, as far as a muxer uses it."""

    async def receive(self) -> Sequence[bytes]:
        """Everything plain that is there, at least one byte. Raises LadingError."""

    async def send(self, pieces: Sequence[Piece]) -> None:
        """All of it. Raises LadingError."""

    def tick(self, now_s: float) -> None:
        """Time has passed. Raises LadingError."""

    def trust(self) -> None:
        """The peer is proven."""

    @property
    def batch_bytes(self) -> int:
        """What is best sent at once, about."""


class MuxStream:
    """One stream of bytes in both directions, without frames. Made by Muxer only."""

    def __init__(self, muxer: Muxer, core: YamuxStream) -> None:
        self._muxer = muxer
        self.core = core
        self._arrival = trio.lowlevel.ParkingLot()
        self._departure = trio.lowlevel.ParkingLot()

    @property
    def stream_id(self) -> int:
        return self.core.stream_id

    @property
    def is_trusted(self) -> bool:
        """Whether the connection's peer is."""
        return self._muxer.is_trusted

    @property
    def is_finishing(self) -> bool:
        return self.core.is_finishing

    async def receive_pieces(self, size_max: int) -> list[Piece]:
        """Some of the bytes that are there; [] once the peer has finished. Raises StreamBroken."""
        core = self.core
        while not core.incoming.byte_count:
            if core.has_ended:
                return []
            if core.lost is not None:
                raise StreamBroken(core.lost)
            await self._arrival.park()
        return self._muxer.take(core, size_max)

    async def receive_some(self) -> bytes:
        """All bytes that are there; b"" once the peer has finished. Raises StreamBroken."""
        return joined(await self.receive_pieces(self.core.window_bytes))

    async def read(self, n: int) -> bytes:
        """Exactly n bytes: for negotiation."""
        data = b""
        while len(data) < n:
            piece = joined(await self.receive_pieces(n - len(data)))
            if not piece:
                raise StreamBroken("the stream ended early")
            data += piece
        return data

    async def wait_room(self) -> None:
        """Returns when a frame may be queued. Raises StreamBroken."""
        self.check_sendable()
        while self.core.outgoing.byte_count >= QUEUE_BYTES_MAX:
            await self._departure.park()
            self.check_sendable()

    def check_sendable(self) -> None:
        """Raises StreamBroken."""
        if self.core.lost is not None:
            raise StreamBroken(self.core.lost)
        if self.core.is_finishing:
            raise StreamBroken("this side has finished the stream")

    def put(self, *pieces: bytes) -> None:
        """Queues bytes; never waits."""
        self._muxer.put(self.core, *pieces)

    async def write(self, data: bytes) -> None:
        """Queues bytes after waiting for room: for negotiation."""
        await self.wait_room()
        self.put(data)

    async def flush(self) -> None:
        """Returns when all that was put has been written to the connection. Raises StreamBroken."""
        target = self.core.put_count
        while self.core.left_count < target:
            if self.core.lost is not None:
                raise StreamBroken(self.core.lost)
            await self._departure.park()

    def finish(self) -> None:
        """Half-closes behind everything queued."""
        self._muxer.finish(self.core)

    def reset(self, reason: str = "this side reset the stream") -> None:
        """Tells the peer and forgets the stream, with all that is queued."""
        self._muxer.reset(self.core, reason)

    def look_again(self) -> None:
        """Wakes whoever waits for it."""
        self._arrival.unpark_all()
        self._departure.unpark_all()


class Muxer:
    """All streams of one session. ``loops`` are its tasks."""

    def __init__(
        self,
        session: PlainSession,
        *,
        initiator: bool,
        opened: Callable[[MuxStream], None],
        budget: RateBudget,
        windows: Budget | None = None,
        limits: Limits | None = None,
    ) -> None:
        """opened: told of every stream that the peer opens. budget: bytes a second. windows: what may be promised and held."""
        self._session = session
        self._opened = opened
        self.budget = budget
        windows = windows or connection_budget(PROCESS_BUDGET)
        self.core = YamuxSession(initiator=initiator, now_s=trio.current_time(), budget=windows, limits=limits, is_trusted=False)
        self._room = trio.lowlevel.ParkingLot()
        self._work = trio.lowlevel.ParkingLot()
        self._pause = trio.lowlevel.ParkingLot()
        self._is_writing = False

    @property
    def stream_count(self) -> int:
        return len(self.core.streams)

    @property
    def loops(self) -> tuple[Callable[[], Awaitable[None]], ...]:
        """What must run for it, each until the connection is lost, which it says by raising a LadingError."""
        return self.read_loop, self.write_loop, self.clock_loop

    @property
    def is_trusted(self) -> bool:
        return self.core.is_trusted

    def trust(self) -> None:
        """See port.Connection."""
        self.core.is_trusted = True
        self._session.trust()
        self._room.unpark_all()

    @property
    def unread_bytes(self) -> int:
        """Arrived and not taken by the application, of all streams."""
        return self.core.budget.held_bytes

    def open(self) -> MuxStream:
        """New outbound stream. Raises StreamBroken when there are too many, or the connection is going."""
        (effect,) = self.core.step(Open(), trio.current_time())
        if isinstance(effect, Refused):
            raise StreamBroken(effect.reason)
        assert isinstance(effect, Opened)
        self._work.unpark_all()
        return self._handle_of(effect.stream)

    async def open_stream(self) -> MuxStream:
        """As ``open``, for whom it does not matter which muxer it is."""
        return self.open()

    def lose(self, reason: str) -> None:
        """The connection is gone: so are its streams."""
        self._carry_out(self.core.step(Lose(reason), trio.current_time()))
        self._pause.unpark_all()

    async def say_goodbye(self) -> None:
        """Lets everything queued leave, then the farewell."""
        await self._wait_left()
        self._carry_out(self.core.step(Leave(), trio.current_time()))
        await self._wait_left()

    @property
    def has_last_word(self) -> bool:
        """Whether the connection is lost by the peer's fault, of which it is told."""
        return self.core.last_word is not None

    async def say_last_word(self) -> None:
        """Lets it leave. May wait for as long as the peer likes."""
        await self._wait_left()

    async def _wait_left(self) -> None:
        while not self.core.is_idle or self._is_writing:
            await self._pause.park()

    # --- called by streams ----------------------------------------------------------------------------------------
    def take(self, stream: YamuxStream, size_max: int) -> list[Piece]:
        pieces = self.core.take(stream, size_max)
        self._room.unpark_all()
        self._wake_writer()
        return pieces

    def put(self, stream: YamuxStream, *pieces: bytes) -> None:
        self.core.put(stream, *pieces)
        self._wake_writer()

    def finish(self, stream: YamuxStream) -> None:
        self.core.finish(stream)
        self._wake_writer()

    def reset(self, stream: YamuxStream, reason: str) -> None:
        self._carry_out(self.core.reset(stream, reason))
        self._room.unpark_all()

    # --- tasks ----------------------------------------------------------------------------------------------------
    async def read_loop(self) -> None:
        """Raises LadingError: the session's end, or a violation."""
        while True:
            messages = await self._session.receive()
            if self.is_trusted:
                self._carry_out(self.core.feed(messages, trio.current_time()))
            else:
                await self._feed_untrusted(messages)

    async def _feed_untrusted(self, messages: Sequence[bytes]) -> None:
        """One message at a time, the next when there is room: what an unproven peer makes us hold is bounded over all streams."""
        for message in messages:
            while not self.is_trusted and self.unread_bytes >= UNREAD_BYTES_MAX_UNPROVEN:
                await self._room.park()
            self._carry_out(self.core.feed((message,), trio.current_time()))

    async def write_loop(self) -> None:
        """Writes batches until the connection is lost."""
        while True:
            while not self.core.has_work:
                self._pause.unpark_all()
                await self._work.park()
            batch = self.core.collect(int(min(self._session.batch_bytes, self.budget.slice_bytes)))
            self._is_writing = True
            await self.budget.take(batch.byte_count)
            await self._session.send(batch.pieces)
            self._is_writing = False
            self._carry_out(self.core.left(batch))

    async def clock_loop(self) -> None:
        """Asks for signs of life. Raises LadingError when there is none, or when something stays half received."""
        while True:
            wake_at = self.core.wake_at()
            await trio.sleep_until(math.inf if wake_at is None else wake_at)
            now_s = trio.current_time()
            self._session.tick(now_s)
            self._carry_out(self.core.step(Tick(), now_s))

    # --- effects --------------------------------------------------------------------------------------------------
    def _carry_out(self, effects: Iterable[object]) -> None:
        failure: LadingError | None = None
        for effect in effects:
            if isinstance(effect, Changed):
                self._handle_of(effect.stream).look_again()
            elif isinstance(effect, Opened):
                self._opened(self._handle_of(effect.stream))
            elif isinstance(effect, Failed):
                failure = effect.error
        self._wake_writer()
        if failure is not None:
            raise failure

    def _handle_of(self, stream: YamuxStream) -> MuxStream:
        if stream.handle is None:
            stream.handle = MuxStream(self, stream)
        assert isinstance(stream.handle, MuxStream)
        return stream.handle

    def _wake_writer(self) -> None:
        if self.core.has_work:
            self._work.unpark_all()
