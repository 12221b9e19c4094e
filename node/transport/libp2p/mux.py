"""Yamux: many streams over one session, written by one task.

The library's muxer answers from its read loop and can lock up two-way, drops data when a read is cancelled, polls, keeps more
than it granted, and gives a stream up after 5 s; so frames are handled here, by the same wire format.
Here nothing that reads ever waits for something that writes: what the read loop has to say goes into a bounded queue.
Source of the format: https://github.com/hashicorp/yamux/blob/master/spec.md
"""

from __future__ import annotations

import struct
from collections import deque
from collections.abc import Callable

import trio

from protocols.errors import Reason, RemoteError
from protocols.limits import UNREAD_BYTES_MAX_UNPROVEN

from ..port import StreamBroken
from .budget import RateBudget
from .noise import Session

MUXER_PROTOCOL = "/lading/yamux/1"

HEADER = struct.Struct("!BBHII")  # version, type, flags, stream id, length
DATA, WINDOW_UPDATE, PING, GO_AWAY = 0, 1, 2, 3
SYN, ACK, FIN, RST = 1, 2, 4, 8

WINDOW_BYTES = 256 * 1024  # of a new stream, by the format
# A window is a promise to buffer. Only streams that the application empties get the larger one, while the sum allows.
WINDOW_BYTES_MAX = 1024 * 1024
WINDOWS_GROWN_BYTES_MAX = 16 * 1024 * 1024
DATA_BYTES_MAX = 256 * 1024
BATCH_BYTES_MAX = 512 * 1024
# Queued by the application and not yet taken by the writer; a frame is queued whole, so one frame more is possible.
QUEUE_BYTES_MAX = 1024 * 1024
PIECE_OVERHEAD_BYTES = 64
STREAMS_INBOUND_MAX = 128
STREAMS_OUTBOUND_MAX = 128
# A peer that makes us answer (ping, open, over and over) and never reads the answers is put out.
CONTROL_FRAMES_MAX = 4096
# How long a peer may keep a stream's window shut: a slow card takes seconds, a stuck reader never ends.
WINDOW_PATIENCE_S = 60.0
# A stopped process still has a kernel that answers keepalives; so the muxer asks too, and wants to hear anything at all.
PING_INTERVAL_S = 15.0
SILENCE_MAX_S = 45.0


class MuxStream:
    """One stream of bytes in both directions, without frames. Made by Muxer only."""

    def __init__(self, muxer: Muxer, stream_id: int, *, outbound: bool) -> None:
        self._muxer = muxer
        self.stream_id = stream_id
        self.outbound = outbound
        self.lost: str | None = None
        # incoming
        self._incoming = bytearray()  # one buffer: a peer that sends single bytes makes us hold no more than it was granted
        self._granted_bytes = WINDOW_BYTES
        self._window_bytes = WINDOW_BYTES
        self._taken_bytes = 0
        self._ended = False
        self._arrival = trio.Event()
        # outgoing
        self._outgoing: deque[bytes] = deque()
        self._outgoing_bytes = 0
        self.is_finishing = False
        self._finished = False
        self._send_window_bytes = WINDOW_BYTES
        self._put_count = 0
        self._left_count = 0
        self._departure = trio.Event()
        self.is_ready = False

    # --- what the application calls -------------------------------------------------------------------------------
    async def receive_some(self) -> bytes:
        """All bytes that are there; b"" once the peer has finished. Raises StreamBroken."""
        while not self._incoming:
            if self.lost is not None:
                raise StreamBroken(self.lost)
            if self._ended:
                return b""
            await self._arrival.wait()
        data = bytes(self._incoming)
        self._incoming.clear()
        self._muxer.note_unread(-len(data))
        self._return_credit(len(data))
        return data

    async def read(self, n: int) -> bytes:
        """Exactly n bytes: for negotiation."""
        data = b""
        while len(data) < n:
            piece = await self.receive_some()
            if not piece:
                raise StreamBroken("the stream ended early")
            data += piece
        if len(data) > n:
            self._incoming[:0] = data[n:]
            self._muxer.note_unread(len(data) - n)
            self._taken_bytes -= len(data) - n
        return data[:n]

    async def wait_room(self) -> None:
        """Returns when a frame may be queued. Raises StreamBroken."""
        self.check_sendable()
        while self._outgoing_bytes >= QUEUE_BYTES_MAX:
            await self._departure.wait()
            self.check_sendable()

    def check_sendable(self) -> None:
        """Raises StreamBroken."""
        if self.lost is not None:
            raise StreamBroken(self.lost)
        if self.is_finishing:
            raise StreamBroken("this side has finished the stream")

    def put(self, data: bytes) -> None:
        """Queues bytes; never waits."""
        self._outgoing.append(data)
        self._outgoing_bytes += len(data) + PIECE_OVERHEAD_BYTES
        self._put_count += len(data)
        self._muxer.schedule(self)

    async def write(self, data: bytes) -> None:
        """Queues bytes after waiting for room: for negotiation."""
        await self.wait_room()
        self.put(data)

    async def flush(self) -> None:
        """Returns when all that was put has been written to the connection. Raises StreamBroken."""
        target = self._put_count
        while self._left_count < target:
            if self.lost is not None:
                raise StreamBroken(self.lost)
            await self._departure.wait()

    def finish(self) -> None:
        """Half-closes behind everything queued."""
        if not self.is_finishing and self.lost is None:
            self.is_finishing = True
            self._muxer.schedule(self)

    def reset(self, reason: str = "this side reset the stream") -> None:
        """Tells the peer and forgets the stream, with all that is queued."""
        if self.lost is None:
            self._muxer.queue_control(WINDOW_UPDATE, RST, self.stream_id)
            self._muxer.note_unread(-len(self._incoming))
            self._incoming.clear()
            self.lose(reason)

    # --- what the muxer calls -------------------------------------------------------------------------------------
    def lose(self, reason: str) -> None:
        """The stream is gone; what had arrived can still be read."""
        if self.lost is None and not (self._ended and self.has_left and self._finished):
            self.lost = reason
            self._outgoing.clear()
            self._outgoing_bytes = 0
        self._notify_arrival()
        self._notify_departure()
        self._muxer.forget(self)

    def grant_check(self, size: int) -> None:
        """Raises RemoteError(FLOOD) when the peer announces more than it was granted."""
        if size > self._granted_bytes:
            raise RemoteError(Reason.FLOOD, f"{size} bytes sent, at most {self._granted_bytes} granted")
        self._granted_bytes -= size

    def arrived(self, data: memoryview) -> None:
        if not self._ended and self.lost is None:
            self._incoming += data
            self._muxer.note_unread(len(data))
            self._notify_arrival()

    def ended(self) -> None:
        self._ended = True
        self._notify_arrival()
        if self._finished:
            self._muxer.forget(self)

    def window_opened(self, size: int) -> None:
        self._send_window_bytes += size
        self._muxer.schedule(self)

    @property
    def can_leave(self) -> bool:
        """Whether the writer has something to take."""
        if self._outgoing:
            return self._send_window_bytes > 0
        return self.is_finishing and not self._finished and self.lost is None

    @property
    def is_stalled(self) -> bool:
        """Whether it waits for the peer to open its window."""
        return bool(self._outgoing) and not self._send_window_bytes

    @property
    def has_left(self) -> bool:
        return not self._outgoing and self._left_count == self._put_count and self.is_finishing == self._finished

    def take_frame(self, size_max: int) -> tuple[int, bytes]:
        """(flags, data) of the next DATA frame."""
        room = min(size_max, self._send_window_bytes)
        pieces: list[bytes] = []
        while self._outgoing and room:
            piece = self._outgoing.popleft()
            if len(piece) > room:
                self._outgoing.appendleft(piece[room:])
                piece = piece[:room]
            else:
                self._outgoing_bytes -= PIECE_OVERHEAD_BYTES
            room -= len(piece)
            pieces.append(piece)
        data = b"".join(pieces)
        self._outgoing_bytes -= len(data)
        self._send_window_bytes -= len(data)
        self._finished = self.is_finishing and not self._outgoing
        return (FIN if self._finished else 0), data

    def left(self, size: int) -> None:
        """The writer has handed over that many bytes."""
        self._left_count += size
        self._notify_departure()
        if self._finished and self._ended:
            self._muxer.forget(self)

    def _return_credit(self, taken: int) -> None:
        self._taken_bytes += taken
        if self._taken_bytes * 2 < self._window_bytes or self._ended or self.lost is not None:
            return
        grown = self._muxer.grow_window(self._window_bytes)
        credit = self._taken_bytes + grown
        self._taken_bytes = 0
        self._window_bytes += grown
        self._granted_bytes += credit
        self._muxer.queue_control(WINDOW_UPDATE, 0, self.stream_id, credit)

    @property
    def is_trusted(self) -> bool:
        """Whether the connection's peer is."""
        return self._muxer.is_trusted

    @property
    def grown_bytes(self) -> int:
        return self._window_bytes - WINDOW_BYTES

    def _notify_arrival(self) -> None:
        self._arrival.set()
        self._arrival = trio.Event()

    def _notify_departure(self) -> None:
        self._departure.set()
        self._departure = trio.Event()


class Muxer:
    """All streams of one session. ``read_loop``, ``write_loop`` and ``ping_loop`` are its tasks; everything else is synchronous."""

    def __init__(self, session: Session, *, initiator: bool, opened: Callable[[MuxStream], None], budget: RateBudget) -> None:
        """opened: told of every stream that the peer opens."""
        self._session = session
        self._opened = opened
        self.budget = budget
        self._streams: dict[int, MuxStream] = {}
        self._next_id = 1 if initiator else 2
        self._control: deque[bytes] = deque()
        self._ready: deque[MuxStream] = deque()
        self._stalled: dict[int, float] = {}
        self._wake = trio.Event()
        self._idle = trio.Event()
        self._idle.set()
        self._grown_bytes = 0
        self.is_trusted = False
        self.unread_bytes = 0
        """Arrived and not taken by the application, of all streams."""
        self._room = trio.Event()
        self._heard_at = trio.current_time()
        # parser
        self._header = bytearray()
        self._body_left = 0
        self._body_stream: MuxStream | None = None
        self._body_flags = 0

    @property
    def stream_count(self) -> int:
        return len(self._streams)

    def open(self) -> MuxStream:
        """New outbound stream. Raises StreamBroken when there are too many."""
        if sum(stream.outbound for stream in self._streams.values()) >= STREAMS_OUTBOUND_MAX:
            raise StreamBroken(f"{STREAMS_OUTBOUND_MAX} streams are open on this connection, no more are allowed")
        stream = MuxStream(self, self._next_id, outbound=True)
        self._next_id += 2
        self._streams[stream.stream_id] = stream
        self.queue_control(WINDOW_UPDATE, SYN, stream.stream_id)
        return stream

    def trust(self) -> None:
        """See port.Connection."""
        self.is_trusted = True
        self._room.set()

    def note_unread(self, change: int) -> None:
        """A stream has so many more bytes, or fewer, that the application has not taken."""
        self.unread_bytes += change
        if change < 0:
            self._room.set()
            self._room = trio.Event()

    def lose(self, reason: str) -> None:
        """The connection is gone: so are its streams."""
        for stream in tuple(self._streams.values()):
            stream.lose(reason)
        self._control.clear()
        self._idle.set()

    async def wait_left(self) -> None:
        """Returns when nothing is queued any more."""
        while not self._idle.is_set():
            await self._idle.wait()

    # --- called by streams ----------------------------------------------------------------------------------------
    def schedule(self, stream: MuxStream) -> None:
        """Notes that a stream may have something to write."""
        if stream.can_leave:
            self._stalled.pop(stream.stream_id, None)
            if not stream.is_ready:
                stream.is_ready = True
                self._ready.append(stream)
            self._wake_writer()
        elif stream.is_stalled and stream.stream_id not in self._stalled:
            self._stalled[stream.stream_id] = trio.current_time() + WINDOW_PATIENCE_S
            self._wake_writer()

    def queue_control(self, kind: int, flags: int, stream_id: int, value: int = 0) -> None:
        self._control.append(HEADER.pack(0, kind, flags, stream_id, value))
        self._wake_writer()

    def grow_window(self, window_bytes: int) -> int:
        """By how much a window of that size may grow now."""
        if not self.is_trusted:
            return 0
        growth = min(WINDOW_BYTES_MAX - window_bytes, WINDOWS_GROWN_BYTES_MAX - self._grown_bytes)
        self._grown_bytes += growth
        return growth

    def forget(self, stream: MuxStream) -> None:
        if self._streams.pop(stream.stream_id, None) is not None:
            self._grown_bytes -= stream.grown_bytes
            if self._stalled.pop(stream.stream_id, None) is not None:
                self._wake_writer()

    def _wake_writer(self) -> None:
        if self._idle.is_set():
            self._idle = trio.Event()
        self._wake.set()

    # --- the writer -----------------------------------------------------------------------------------------------
    async def write_loop(self) -> None:
        """Writes batches until the connection is lost: control frames first, then one frame of each ready stream in turn."""
        while True:
            batch, taken = self._collect(int(min(BATCH_BYTES_MAX, self.budget.slice_bytes)))
            if not batch:
                await self._wait_for_work()
                continue
            await self.budget.take(len(batch))
            await self._session.send(batch)
            for stream, size in taken:
                stream.left(size)

    async def _wait_for_work(self) -> None:
        if not self._stalled:
            self._idle.set()
        self._wake = trio.Event()
        deadline = min(self._stalled.values(), default=float("inf"))
        with trio.move_on_at(deadline):
            await self._wake.wait()
        now = trio.current_time()
        for stream_id in [stream_id for stream_id, at in self._stalled.items() if at <= now]:
            self._streams[stream_id].reset(f"the peer has read nothing for {WINDOW_PATIENCE_S:.0f} s")

    def _collect(self, size_max: int) -> tuple[bytes, list[tuple[MuxStream, int]]]:
        pieces = list(self._control)
        self._control.clear()
        size = sum(map(len, pieces))
        taken: list[tuple[MuxStream, int]] = []
        while self._ready and size < size_max:
            stream = self._ready.popleft()
            stream.is_ready = False
            if not stream.can_leave:
                continue
            flags, data = stream.take_frame(min(DATA_BYTES_MAX, size_max - size))
            pieces += (HEADER.pack(0, DATA, flags, stream.stream_id, len(data)), data)
            size += HEADER.size + len(data)
            taken.append((stream, len(data)))
            self.schedule(stream)
        return b"".join(pieces), taken

    # --- the reader -----------------------------------------------------------------------------------------------
    async def read_loop(self) -> None:
        """Handles frames until the connection is lost. Raises StreamBroken at the peer's farewell, RemoteError for a violation."""
        while True:
            while not self.is_trusted and self.unread_bytes >= UNREAD_BYTES_MAX_UNPROVEN:
                await self._room.wait()
            self.feed_untrusted(await self._session.receive())
            self._heard_at = trio.current_time()

    async def ping_loop(self) -> None:
        """Asks for a sign of life now and then. Raises StreamBroken when none came for SILENCE_MAX_S."""
        while True:
            await trio.sleep(PING_INTERVAL_S)
            if trio.current_time() - self._heard_at > SILENCE_MAX_S:
                raise StreamBroken(f"the peer has said nothing for {SILENCE_MAX_S:.0f} s")
            self.queue_control(PING, SYN, 0)

    def feed_untrusted(self, data: bytes) -> None:
        """Any number of frames, cut anywhere."""
        view = memoryview(data)
        while view:
            if self._body_left:
                piece = view[: self._body_left]
                self._body_left -= len(piece)
                if self._body_stream is not None:
                    self._body_stream.arrived(piece)
            else:
                piece = view[: HEADER.size - len(self._header)]
                self._header += piece
                if len(self._header) < HEADER.size:
                    return
                self._handle_header(*HEADER.unpack(self._header))
                self._header.clear()
            view = view[len(piece) :]
            if not self._body_left:
                self._handle_end()

    def _handle_header(self, version: int, kind: int, flags: int, stream_id: int, value: int) -> None:
        if version != 0 or kind > GO_AWAY:
            raise RemoteError(Reason.MALFORMED, f"muxer frame of version {version}, type {kind}")
        if kind == GO_AWAY:
            raise StreamBroken("the peer closed the connection")
        if kind == PING:
            if flags & SYN:
                self._answer(PING, ACK, 0, value)
            return
        if flags & SYN:
            self._handle_syn(stream_id)
        stream = self._streams.get(stream_id)
        self._body_flags = flags
        self._body_stream = stream
        if kind == DATA:
            if stream is not None:
                stream.grant_check(value)
            elif value > WINDOW_BYTES_MAX:
                raise RemoteError(Reason.FLOOD, f"{value} bytes for a stream that is gone, at most {WINDOW_BYTES_MAX} can be on their way")
            self._body_left = value
        elif stream is not None and value:
            stream.window_opened(value)

    def _handle_syn(self, stream_id: int) -> None:
        if stream_id == 0 or stream_id % 2 == self._next_id % 2 or stream_id in self._streams:
            raise RemoteError(Reason.MALFORMED, f"the peer may not open a stream {stream_id}")
        if sum(not stream.outbound for stream in self._streams.values()) >= STREAMS_INBOUND_MAX:
            self._answer(WINDOW_UPDATE, RST, stream_id)
            return
        stream = MuxStream(self, stream_id, outbound=False)
        self._streams[stream_id] = stream
        self._answer(WINDOW_UPDATE, ACK, stream_id)
        self._opened(stream)

    def _answer(self, kind: int, flags: int, stream_id: int, value: int = 0) -> None:
        if len(self._control) >= CONTROL_FRAMES_MAX:
            raise RemoteError(Reason.FLOOD, f"{len(self._control)} answers wait for a peer that does not read them")
        self.queue_control(kind, flags, stream_id, value)

    def _handle_end(self) -> None:
        """After a frame's last byte."""
        stream, flags = self._body_stream, self._body_flags
        self._body_stream, self._body_flags = None, 0
        if stream is not None:
            if flags & RST:
                stream.lose("the peer reset the stream")
            elif flags & FIN:
                stream.ended()

    async def say_goodbye(self) -> None:
        """Lets everything queued leave, then the farewell."""
        await self.wait_left()
        self.queue_control(GO_AWAY, 0, 0)
        await self.wait_left()
