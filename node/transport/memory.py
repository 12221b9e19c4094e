"""The transport port without a wire: a network in one process, with knobs for everything that goes wrong in a real one.

Same manners as the libp2p twin (port.py; tests/node/transport/manners.py drives both). What is modelled: a link per pair of peers
with latency, jitter and bandwidth in each direction; a link that is cut, both ways or one way; a peer that is frozen with its sockets
open; a reader that is slow; a connection that is reset. Frames of a connection share its direction of the link, take turns by stream, and
wait for the reader's window. A cut link holds what is under way, as TCP would; after KEEPALIVE_TIMEOUT_S of silence the connection breaks.

What is not modelled: bytes (frames travel whole), encryption, and the time the handshake's arithmetic takes.

Chance is given from outside and drawn in the order of events, so one seed makes one history.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import trio
import trio.lowlevel

from protocols.crypto import equal
from protocols.errors import DecodeError, LadingError, Reason
from protocols.limits import (
    FENCES_KEPT_MAX,
    FRAME_BYTES_MAX,
    FRAME_BYTES_MAX_UNPROVEN,
    FRAME_HEADER_BYTES,
    TICKETS_OPEN_MAX,
    UNREAD_BYTES_MAX_UNPROVEN,
)
from protocols.types import PeerId

from .port import DialFailed, PathKind, PresharedKey, StreamBroken, StreamEnded

if TYPE_CHECKING:
    # A dependency of libp2p brings old stubs of trio that shadow trio's own types; theirs has this name elsewhere.
    from trio_typing import TaskStatus

# Two chunks may wait while a third is being written: enough to keep the link busy, little enough to be worth nothing to a flooder.
SEND_QUEUE_FRAMES_MAX = 4
# What a reader may leave unread per stream before the writer is held: two of the largest frames.
WINDOW_BYTES = 2 * FRAME_BYTES_MAX
# Inbound streams and connections that nobody has accepted yet; more are refused.
STREAMS_UNACCEPTED_MAX = 64
# A conversation is one stream, a node holds a few dozen with one peer at the very most.
STREAMS_MAX = 256
CONNECTIONS_UNACCEPTED_MAX = 64
PRESHARED_KEYS_MAX = FENCES_KEPT_MAX + TICKETS_OPEN_MAX
KEEPALIVE_TIMEOUT_S = 15.0
CLOSE_TIMEOUT_S = 5.0
HANDSHAKE_HASH_BYTES = 32
CONTROL_BYTES = 12  # a Yamux header: opening, closing, resetting


class Chance(Protocol):
    """The part of ``random.Random`` that the network draws from."""

    def random(self) -> float:
        """A number in [0, 1)."""

    def randbytes(self, n: int, /) -> bytes:
        """``n`` bytes."""


@dataclass(frozen=True, slots=True)
class Link:
    """One direction between two peers.

    latency_s: one way. jitter_s: up to this much more, drawn per frame; frames keep their order.
    bandwidth_bytes_s: bytes per second of one connection, None for no limit. cut: nothing arrives, nothing is lost.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bandwidth_bytes_s: float | None = None
    cut: bool = False


class _Pair:
    """What two peers have between them: a link each way, and who waits for it to change."""

    __slots__ = ("changed", "links")

    def __init__(self, links: dict[tuple[PeerId, PeerId], Link]) -> None:
        self.links = links
        self.changed = trio.lowlevel.ParkingLot()


class MemoryNetwork:
    """The world between the transports: who listens where, what the links are like, who is frozen or slow.

    chance: the seed's generator. link: what every direction is like until ``set_link``. tap: called with (source, target, protocol,
    frame) for every frame as it leaves, for checkers that look at the wire.
    """

    def __init__(
        self, chance: Chance, *, link: Link | None = None, tap: Callable[[PeerId, PeerId, str, bytes], None] | None = None
    ) -> None:
        self.chance = chance
        self.tap = tap
        self._link = link or Link()
        self._pairs: dict[tuple[PeerId, PeerId], _Pair] = {}
        self._listeners: dict[str, MemoryTransport] = {}
        self._transports: dict[MemoryTransport, None] = {}
        self._frozen: dict[PeerId, None] = {}
        self._read_pauses_s: dict[PeerId, float] = {}

    # --- knobs -----------------------------------------------------------------------------------------------------

    def set_link(self, a: PeerId, b: PeerId, link: Link, *, one_way: bool = False) -> None:
        """Makes the link from ``a`` to ``b`` (and back, unless ``one_way``) like this. What is already under way keeps its time."""
        pair = self._pair(a, b)
        pair.links[a, b] = link
        if not one_way:
            pair.links[b, a] = link
        pair.changed.unpark_all()

    def cut(self, a: PeerId, b: PeerId, *, one_way: bool = False) -> None:
        """Nothing arrives any more from ``a`` at ``b`` (and back, unless ``one_way``)."""
        self._set_cut(a, b, cut=True, one_way=one_way)

    def heal(self, a: PeerId, b: PeerId, *, one_way: bool = False) -> None:
        """What was held arrives, if the connection is still there."""
        self._set_cut(a, b, cut=False, one_way=one_way)

    def partition(self, *groups: Sequence[PeerId]) -> None:
        """Cuts every link between different groups."""
        for index, group in enumerate(groups):
            for other in groups[index + 1 :]:
                for a in group:
                    for b in other:
                        self.cut(a, b)

    def heal_all(self) -> None:
        """No link is cut, nobody is frozen, nobody reads slowly."""
        for a, b in tuple(self._pairs):
            self.heal(a, b)
        self._read_pauses_s.clear()
        for peer in tuple(self._frozen):
            self.thaw(peer)

    def freeze(self, peer: PeerId) -> None:
        """The peer hangs with its sockets open: it neither sends nor hears, and notices nothing itself."""
        self._frozen[peer] = None
        self._notify(peer)

    def thaw(self, peer: PeerId) -> None:
        """The peer goes on, and finds out who has given it up meanwhile."""
        self._frozen.pop(peer, None)
        self._notify(peer)

    def set_slow_reader(self, peer: PeerId, pause_s: float) -> None:
        """Every ``receive`` at this peer takes ``pause_s`` longer; 0.0 ends it."""
        self._read_pauses_s[peer] = pause_s

    def reset(self, a: PeerId, b: PeerId) -> None:
        """Breaks every connection between the two at once, as a middlebox that forgot them would."""
        for transport in tuple(self._transports):
            for connection in transport.connections():
                if (transport.peer_id, connection.remote) in ((a, b), (b, a)):
                    connection.vanish("reset by the network")

    # --- what transports ask ---------------------------------------------------------------------------------------

    def link(self, source: PeerId, target: PeerId) -> Link:
        """The direction as it is now."""
        return self._pair(source, target).links[source, target]

    def is_frozen(self, peer: PeerId) -> bool:
        """Hangs at the moment."""
        return peer in self._frozen

    def is_blocked(self, source: PeerId, target: PeerId) -> bool:
        """Nothing gets from ``source`` to ``target`` at the moment."""
        return self.link(source, target).cut or source in self._frozen or target in self._frozen

    def read_pause_s(self, peer: PeerId) -> float:
        """Extra seconds of every ``receive``."""
        return self._read_pauses_s.get(peer, 0.0)

    def delay_s(self, source: PeerId, target: PeerId) -> float:
        """Seconds the next thing takes from ``source`` to ``target``; draws the jitter."""
        link = self.link(source, target)
        return link.latency_s + (link.jitter_s * self.chance.random() if link.jitter_s else 0.0)

    async def travel(self, source: PeerId, target: PeerId) -> None:
        """One small message's way; as long as the link is blocked it does not arrive."""
        await trio.sleep(self.delay_s(source, target))
        await self.wait_pair(source, target, lambda: not self.is_blocked(source, target))

    async def wait_pair(self, a: PeerId, b: PeerId, holds: Callable[[], bool]) -> None:
        """Until ``holds``; looked at whenever something between the two changes."""
        pair = self._pair(a, b)
        while not holds():
            await pair.changed.park()

    def notify_pair(self, a: PeerId, b: PeerId) -> None:
        """Something between the two changed."""
        self._pair(a, b).changed.unpark_all()

    def listener(self, address: str) -> MemoryTransport | None:
        """Who listens there."""
        return self._listeners.get(address)

    def join(self, transport: MemoryTransport, addresses: Sequence[str]) -> None:
        """The transport runs and listens there. Raises LadingError(FAILED) when an address is taken; then it listens nowhere."""
        for address in addresses:
            if address in self._listeners:
                raise LadingError(Reason.FAILED, f"cannot listen on {address}: somebody does already")
        self._transports[transport] = None
        self._listeners.update((address, transport) for address in addresses)

    def leave(self, transport: MemoryTransport) -> None:
        """The transport does not run any more."""
        self._transports.pop(transport, None)
        self._listeners = {address: other for address, other in self._listeners.items() if other is not transport}

    def _pair(self, a: PeerId, b: PeerId) -> _Pair:
        key = (a, b) if a <= b else (b, a)
        pair = self._pairs.get(key)
        if pair is None:
            pair = self._pairs[key] = _Pair({(a, b): self._link, (b, a): self._link})
        return pair

    def _set_cut(self, a: PeerId, b: PeerId, *, cut: bool, one_way: bool) -> None:
        pair = self._pair(a, b)
        pair.links[a, b] = replace(pair.links[a, b], cut=cut)
        if not one_way:
            pair.links[b, a] = replace(pair.links[b, a], cut=cut)
        pair.changed.unpark_all()

    def _notify(self, peer: PeerId) -> None:
        for ends, pair in tuple(self._pairs.items()):
            if peer in ends:
                pair.changed.unpark_all()


# --- what travels ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Open:
    stream: MemoryStream


@dataclass(frozen=True, slots=True)
class _Accepted:
    stream: MemoryStream  # the opener's end


@dataclass(frozen=True, slots=True)
class _Frame:
    stream: MemoryStream  # the sender's end
    body: bytes


@dataclass(frozen=True, slots=True)
class _Finish:
    stream: MemoryStream  # the sender's end


@dataclass(frozen=True, slots=True)
class _Reset:
    stream: MemoryStream  # the end that is to break


@dataclass(frozen=True, slots=True)
class _Close:
    reason: str


_Item = _Open | _Accepted | _Frame | _Finish | _Reset | _Close


def _item_bytes(item: _Item) -> int:
    return FRAME_HEADER_BYTES + len(item.body) if isinstance(item, _Frame) else CONTROL_BYTES


class MemoryStream:
    """One end of a stream (port.Stream)."""

    def __init__(self, connection: MemoryConnection, protocol: str) -> None:
        self.protocol = protocol
        self.twin: MemoryStream | None = None
        self.accepted = False
        self.queue: deque[_Item] = deque()
        self._connection = connection
        self._changed = trio.lowlevel.ParkingLot()
        self._inbox: deque[bytes] = deque()
        self._credit_bytes = WINDOW_BYTES
        self._queued_count = 0
        self._handed_count = 0
        self._finishing = False
        self._ended = False
        self._broken = ""
        self._too_long = 0
        """Bytes of a frame that was too long to be taken; 0: none was."""
        self.is_read = True
        """The application has it; what the peer opened waits to be accepted first."""

    # --- port ------------------------------------------------------------------------------------------------------

    async def send(self, *parts: bytes) -> None:
        """See port. Atomic: between finding room and queueing nothing waits."""
        frame = b"".join(parts)
        assert len(frame) <= FRAME_BYTES_MAX, f"frame of {len(frame)} bytes, at most {FRAME_BYTES_MAX} wanted"
        await self.send_unchecked(frame)

    async def send_unchecked(self, frame: bytes) -> None:
        """``send`` for tests that play a peer who ignores the limit of a frame."""
        await trio.lowlevel.checkpoint()
        while True:
            self._check_writable()
            if len(self.queue) < SEND_QUEUE_FRAMES_MAX:
                break
            await self._changed.park()
        self._queue(_Frame(self, bytes(frame)))

    async def flush(self) -> None:
        """See port."""
        await trio.lowlevel.checkpoint()
        wanted = self._queued_count
        while self._handed_count < wanted:
            self._check_unbroken()
            await self._changed.park()

    async def receive(self) -> bytes:
        """See port. Cancelling it loses nothing."""
        await trio.sleep(self._connection.network.read_pause_s(self._connection.local))
        while not self._inbox:
            if self._too_long and not self._broken:
                self.reset()
                raise DecodeError(Reason.TOO_LONG, f"frame of {self._too_long} bytes, at most {self._connection.frame_bytes_max} wanted")
            if self._ended:
                raise StreamEnded
            self._check_unbroken()
            await self._changed.park()
        frame = self._inbox.popleft()
        self._connection.note_unread(-len(frame))
        if self.twin is not None:
            self.twin.give_credit(len(frame))
        return frame

    async def finish(self) -> None:
        """See port. Finishing twice is finishing once."""
        if not self._finishing:
            self._check_unbroken()
            self._finishing = True
            self._queue(_Finish(self))
            self._changed.unpark_all()
        await self.flush()

    def reset(self) -> None:
        """See port."""
        if self._broken:
            return
        self.break_now("this side reset the stream")
        self._connection.send_reset(self)

    # --- connection ------------------------------------------------------------------------------------------------

    def queue_open(self) -> None:
        """The first thing that a stream sends."""
        self._queue(_Open(self))

    async def wait_accepted(self) -> None:
        """Until the peer has the stream. Raises StreamBroken."""
        await trio.lowlevel.checkpoint()
        while not self.accepted:
            self._check_unbroken()
            await self._changed.park()

    def note_closing(self) -> None:
        """The connection takes no more frames: whoever waits for room need not."""
        self._changed.unpark_all()

    def note_accepted(self) -> None:
        """The peer has the stream."""
        self.accepted = True
        self._changed.unpark_all()

    def take_sendable(self) -> _Item | None:
        """Next item that the reader's window has room for."""
        if not self.queue:
            return None
        head = self.queue[0]
        if isinstance(head, _Frame):
            # A window that is not yet used up admits a whole frame, so that no frame can be too large for it.
            if self._credit_bytes <= 0:
                return None
            self._credit_bytes -= len(head.body)
        return self.queue.popleft()

    def note_handed(self) -> None:
        """The item taken last is on its way."""
        self._handed_count += 1
        self._forget_if_done()
        self._changed.unpark_all()

    def give_credit(self, count: int) -> None:
        """The reader has made room for ``count`` bytes."""
        self._credit_bytes += count
        self._connection.wake()

    def arrive(self, frame: bytes) -> None:
        """A frame from the peer. What is too long is known from its header and not kept."""
        if self._broken or self._too_long:
            return
        if len(frame) > self._connection.frame_bytes_max:
            self._too_long = len(frame)
        else:
            self._inbox.append(frame)
            self._connection.note_unread(len(frame))
        self._changed.unpark_all()

    def arrive_end(self) -> None:
        """The peer finished."""
        if self._broken:
            return
        self._ended = True
        self._forget_if_done()
        self._changed.unpark_all()

    def break_now(self, message: str, *, keep_unread: bool = False) -> None:
        """No more of this stream; what has arrived can still be read when ``keep_unread``."""
        if not self._broken:
            self._broken = message
        self.queue.clear()
        if not keep_unread:
            self._connection.note_unread(-sum(map(len, self._inbox)))
            self._inbox.clear()
            self._ended = False
        self._changed.unpark_all()
        self._connection.forget(self)

    def _forget_if_done(self) -> None:
        """Finished both ways: the connection need not know it any more; what has arrived can still be read."""
        if self._ended and self._finishing and self._handed_count == self._queued_count:
            self._connection.forget(self)

    def _queue(self, item: _Item) -> None:
        self.queue.append(item)
        self._queued_count += 1
        self._connection.make_ready(self)

    def _check_unbroken(self) -> None:
        if self._broken:
            raise StreamBroken(self._broken)

    def _check_writable(self) -> None:
        self._check_unbroken()
        if self._finishing:
            raise StreamBroken("this side has finished the stream")
        if self._connection.is_closing:
            raise StreamBroken("this side is closing the connection")


class MemoryConnection:
    """One end of a connection (port.Connection)."""

    def __init__(
        self,
        network: MemoryNetwork,
        *,
        local: PeerId,
        remote: PeerId,
        outbound: bool,
        handshake_hash: bytes,
        preshared_key: PresharedKey,
        remote_address: str,
        protocols: Sequence[str] | None,
    ) -> None:
        self.network = network
        self.local = local
        self.remote = remote
        self.outbound = outbound
        self.path = PathKind.RELAYED if "/p2p-circuit" in remote_address else PathKind.DIRECT
        self.handshake_hash = handshake_hash
        self.preshared_key = preshared_key
        self.remote_address = remote_address
        self.closed = trio.Event()
        self.is_closing = False
        self._protocols = protocols
        self._twin: MemoryConnection | None = None
        self._vanished = False
        self._broken = ""
        self.frame_bytes_max = FRAME_BYTES_MAX_UNPROVEN
        self._unread_bytes = 0
        self._streams: dict[MemoryStream, None] = {}
        self._ready: deque[MemoryStream] = deque()
        self._control: deque[_Item] = deque()
        self._unaccepted: deque[MemoryStream] = deque()
        self._in_flight: deque[tuple[float, _Item]] = deque()
        self._is_handing = False
        self._sendable = trio.lowlevel.ParkingLot()
        self._landing = trio.lowlevel.ParkingLot()
        self._changed = trio.lowlevel.ParkingLot()

    # --- port ------------------------------------------------------------------------------------------------------

    async def open_stream(self, protocol: str) -> MemoryStream:
        """See port. Takes one round trip, as the negotiation does."""
        self._check_open()
        stream = MemoryStream(self, protocol)
        self._streams[stream] = None
        stream.queue_open()
        try:
            await stream.wait_accepted()
        except BaseException:  # also when cancelled: the peer must not keep a stream that nobody here knows
            stream.reset()
            raise
        return stream

    async def accept_stream(self) -> MemoryStream:
        """See port."""
        await trio.lowlevel.checkpoint()
        while not self._unaccepted:
            self._check_open()
            await self._changed.park()
        stream = self._unaccepted.popleft()
        stream.is_read = True
        self._changed.unpark_all()
        return stream

    def trust(self) -> None:
        """See port."""
        self.frame_bytes_max = FRAME_BYTES_MAX
        self._changed.unpark_all()

    @property
    def unread_bytes(self) -> int:
        """See port."""
        return self._unread_bytes

    @property
    def is_trusted(self) -> bool:
        return self.frame_bytes_max == FRAME_BYTES_MAX

    def note_unread(self, change: int) -> None:
        """A stream has so many more bytes, or fewer, that the application has not taken."""
        self._unread_bytes += change
        if change < 0:
            self._changed.unpark_all()

    async def close(self, reason: str = "") -> None:
        """See port. At most CLOSE_TIMEOUT_S; when cancelled the connection is cut off at once."""
        if self.is_closing or self._broken:
            await self.closed.wait()
            return
        self.is_closing = True
        for stream in tuple(self._streams):
            stream.note_closing()
        is_drained = False
        try:
            with trio.move_on_after(CLOSE_TIMEOUT_S):
                while self._has_queued():
                    await self._changed.park()
                is_drained = True
        finally:
            if is_drained and not self._broken:
                self._put_in_flight(_Close(reason))
                self._break("this side closed the connection")
            else:
                self.vanish("this side closed the connection before everything had left")

    # --- streams ---------------------------------------------------------------------------------------------------

    def make_ready(self, stream: MemoryStream) -> None:
        """The stream has something to send."""
        if stream not in self._ready:
            self._ready.append(stream)
        self.wake()

    def wake(self) -> None:
        """Something may be sendable now."""
        self._sendable.unpark_all()

    def send_reset(self, stream: MemoryStream) -> None:
        """Tells the other end of the stream; goes ahead of frames."""
        if not self._broken:
            self._control.append(_Reset(stream))
            self.wake()

    def forget(self, stream: MemoryStream) -> None:
        """The stream is over."""
        self._streams.pop(stream, None)
        if stream in self._ready:
            self._ready.remove(stream)
        self._changed.unpark_all()

    # --- life ------------------------------------------------------------------------------------------------------

    def join(self, twin: MemoryConnection) -> None:
        """The two ends of one connection find each other."""
        self._twin = twin
        twin._twin = self

    async def serve(self) -> None:
        """Moves what travels, until the connection is gone. Run by the transport of this end."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._hand_over)
            nursery.start_soon(self._land)
            nursery.start_soon(self._watch)
            await self.closed.wait()
            nursery.cancel_scope.cancel()

    def vanish(self, message: str) -> None:
        """Gone without a word; the other end finds out by itself."""
        if not self._broken:
            self._vanished = True
            self._break(message)

    def _break(self, message: str, *, keep_unread: bool = False) -> None:
        if self._broken:
            return
        self._broken = message
        for stream in tuple(self._streams):
            stream.break_now(message, keep_unread=keep_unread)
        self._unaccepted.clear()
        self._control.clear()
        self.closed.set()
        self._changed.unpark_all()
        self.network.notify_pair(self.local, self.remote)

    def _check_open(self) -> None:
        if self._broken:
            raise StreamBroken(self._broken)
        if self.is_closing:
            raise StreamBroken("this side is closing the connection")

    # --- out -------------------------------------------------------------------------------------------------------

    def _has_queued(self) -> bool:
        return not self._broken and (self._is_handing or any(stream.queue for stream in self._streams))

    def _next_item(self) -> tuple[_Item, MemoryStream | None] | None:
        """Control goes first; streams take turns, one item each."""
        if self._control:
            return self._control.popleft(), None
        for _ in range(len(self._ready)):
            stream = self._ready.popleft()
            item = stream.take_sendable()
            if stream.queue:
                self._ready.append(stream)
            if item is not None:
                return item, stream
        return None

    async def _hand_over(self) -> None:
        while True:
            found = self._next_item()
            if found is None:
                await self._sendable.park()
                continue
            item, stream = found
            bandwidth_bytes_s = self.network.link(self.local, self.remote).bandwidth_bytes_s
            self._is_handing = True
            await trio.sleep(_item_bytes(item) / bandwidth_bytes_s if bandwidth_bytes_s else 0.0)
            self._is_handing = False
            self._put_in_flight(item)
            if stream is not None:
                stream.note_handed()
            self._changed.unpark_all()

    def _put_in_flight(self, item: _Item) -> None:
        assert self._twin is not None
        if isinstance(item, _Frame) and self.network.tap is not None:
            self.network.tap(self.local, self.remote, item.stream.protocol, item.body)
        self._twin.put_in_flight(trio.current_time() + self.network.delay_s(self.local, self.remote), item)

    def put_in_flight(self, arrives_at: float, item: _Item) -> None:
        """On its way to this end, behind whatever is; it lands no earlier than that. Bounded by the windows of the streams."""
        self._in_flight.append((arrives_at, item))
        self._landing.unpark_all()

    # --- in --------------------------------------------------------------------------------------------------------

    async def _land(self) -> None:
        while True:
            while not self._in_flight:
                await self._landing.park()
            arrives_at, item = self._in_flight[0]
            await trio.sleep_until(arrives_at)
            await self.network.wait_pair(self.local, self.remote, lambda: not self.network.is_blocked(self.remote, self.local))
            while isinstance(item, _Frame) and not self._has_room(item):
                await self._changed.park()
            self._in_flight.popleft()
            self._take_in(item)

    def _has_room(self, frame: _Frame) -> bool:
        """Whether a frame may land. An untrusted peer's waits on the wire while much is unread; one that is too long is refused by whoever
        reads the stream, and waits while nobody does."""
        stream = frame.stream.twin
        if self.is_trusted or stream is None:
            return True
        if len(frame.body) > self.frame_bytes_max:
            return stream.is_read
        return self._unread_bytes + len(frame.body) <= UNREAD_BYTES_MAX_UNPROVEN

    def _take_in(self, item: _Item) -> None:
        match item:
            case _Open(stream):
                self._take_in_open(stream)
            case _Accepted(stream):
                stream.note_accepted()
            case _Frame(stream, body):
                if stream.twin is not None:
                    stream.twin.arrive(body)
            case _Finish(stream):
                if stream.twin is not None:
                    stream.twin.arrive_end()
            case _Reset(stream):
                if stream.twin is not None:
                    stream.twin.break_now("the peer reset the stream")
            case _Close(reason):
                self._break(f"the peer closed the connection{': ' if reason else ''}{reason}", keep_unread=True)

    def _take_in_open(self, opener: MemoryStream) -> None:
        stream = MemoryStream(self, opener.protocol)
        stream.twin, opener.twin = opener, stream
        stream.is_read = False
        is_spoken = self._protocols is None or opener.protocol in self._protocols
        is_full = len(self._unaccepted) >= STREAMS_UNACCEPTED_MAX or len(self._streams) >= STREAMS_MAX
        if not is_spoken or is_full or self.is_closing:
            stream.reset()
            return
        self._streams[stream] = None
        self._unaccepted.append(stream)
        self._control.append(_Accepted(opener))
        self.wake()
        self._changed.unpark_all()

    # --- liveness --------------------------------------------------------------------------------------------------

    def _is_silent(self) -> bool:
        """Neither our probes nor their answers get through; a frozen process notices nothing."""
        network = self.network
        blocked = network.is_blocked(self.local, self.remote) or network.is_blocked(self.remote, self.local)
        return blocked and not network.is_frozen(self.local)

    def _is_refused(self) -> bool:
        """The other end has forgotten this connection, and can tell us so."""
        assert self._twin is not None
        return self._twin._vanished and not self._is_silent() and not self.network.is_frozen(self.local)

    async def _watch(self) -> None:
        network = self.network
        while True:
            await network.wait_pair(self.local, self.remote, lambda: self._is_silent() or self._is_refused())
            if self._is_refused():
                await network.travel(self.remote, self.local)
                self._break("the connection was reset", keep_unread=True)
                return
            with trio.move_on_after(KEEPALIVE_TIMEOUT_S) as silence:
                await network.wait_pair(self.local, self.remote, lambda: not self._is_silent())
            if not silence.cancelled_caught:
                continue
            self._vanished = True
            self._break(f"nothing heard for {KEEPALIVE_TIMEOUT_S:g} s", keep_unread=True)
            return


class MemoryTransport:
    """One node's end of a MemoryNetwork (port.Transport).

    addresses: what it listens on, multiaddrs as any other; none for a node that cannot be dialled.
    protocols: stream protocols it speaks; None: every one, and whoever accepts the stream decides.
    """

    def __init__(
        self, network: MemoryNetwork, peer_id: PeerId, addresses: Sequence[str], *, protocols: Sequence[str] | None = None
    ) -> None:
        self.peer_id = peer_id
        self._network = network
        self._addresses = tuple(addresses)
        self._protocols = None if protocols is None else tuple(protocols)
        self._keys: tuple[PresharedKey, ...] = ()
        self._connections: dict[MemoryConnection, None] = {}
        self._unaccepted: deque[MemoryConnection] = deque()
        self._arrived = trio.lowlevel.ParkingLot()
        self._nursery: trio.Nursery | None = None

    # --- port ------------------------------------------------------------------------------------------------------

    async def run(self, *, task_status: TaskStatus[Sequence[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """See port. Cancelled: connections vanish without a word, as those of a killed process do."""
        assert self._nursery is None, "already running"
        self._network.join(self, self._addresses)
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = nursery
                task_status.started(self._addresses)
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._network.leave(self)
            for connection in tuple(self._connections):
                connection.vanish("this transport has stopped")
            self._connections.clear()
            self._unaccepted.clear()

    async def accept(self) -> MemoryConnection:
        """See port."""
        await trio.lowlevel.checkpoint()
        while not self._unaccepted:
            await self._arrived.park()
        return self._unaccepted.popleft()

    async def dial(self, address: str, peer: PeerId | None, preshared_key: PresharedKey) -> MemoryConnection:
        """See port. Two round trips: one to connect, one for the handshake."""
        target = await self._connect(address)
        await self._network.travel(self.peer_id, target.peer_id)
        matched = target.match_key(preshared_key)
        await self._network.travel(target.peer_id, self.peer_id)
        if matched is None:
            raise DialFailed(Reason.FENCE, f"{address} refused our key {preshared_key.id.hex()[:8]}")
        if peer is not None and peer != target.peer_id:
            raise DialFailed(Reason.WRONG_PEER, f"{address} is {target.peer_id.hex()[-8:]}, {peer.hex()[-8:]} wanted")
        return self._join(target, address, preshared_key, matched)

    def set_preshared_keys(self, keys: Sequence[PresharedKey]) -> None:
        """See port. Connections that stand already are not touched."""
        assert len(keys) <= PRESHARED_KEYS_MAX, f"{len(keys)} keys, at most {PRESHARED_KEYS_MAX} wanted"
        self._keys = tuple(keys)

    # --- network ---------------------------------------------------------------------------------------------------

    def connections(self) -> tuple[MemoryConnection, ...]:
        """Those that stand, oldest first."""
        return tuple(self._connections)

    def match_key(self, offered: PresharedKey) -> PresharedKey | None:
        """Our own key with the secret of the first handshake message, in our order."""
        return next((key for key in self._keys if equal(key.secret, offered.secret)), None)

    async def _connect(self, address: str) -> MemoryTransport:
        """The transport behind the address, after a round trip. A cut link or a frozen peer never answers."""
        if self._nursery is None:
            raise DialFailed(Reason.UNREACHABLE, "this transport is not running")
        target = self._network.listener(address)
        if target is None:
            await trio.lowlevel.checkpoint()
            raise DialFailed(Reason.UNREACHABLE, f"nobody listens on {address}")
        if target is self:
            await trio.lowlevel.checkpoint()
            raise DialFailed(Reason.UNREACHABLE, f"{address} is our own")
        await self._network.travel(self.peer_id, target.peer_id)
        await self._network.travel(target.peer_id, self.peer_id)
        return target

    def _join(self, target: MemoryTransport, address: str, offered: PresharedKey, matched: PresharedKey) -> MemoryConnection:
        if self._nursery is None or target._nursery is None:
            raise DialFailed(Reason.UNREACHABLE, f"{address} has stopped")
        handshake_hash = self._network.chance.randbytes(HANDSHAKE_HASH_BYTES)
        own_address = self._addresses[0] if self._addresses else f"/memory/{self.peer_id.hex()[-8:]}"
        ours = MemoryConnection(
            self._network,
            local=self.peer_id,
            remote=target.peer_id,
            outbound=True,
            handshake_hash=handshake_hash,
            preshared_key=offered,
            remote_address=address,
            protocols=self._protocols,
        )
        theirs = MemoryConnection(
            self._network,
            local=target.peer_id,
            remote=self.peer_id,
            outbound=False,
            handshake_hash=handshake_hash,
            preshared_key=matched,
            remote_address=own_address,
            protocols=target._protocols,
        )
        ours.join(theirs)
        self._adopt(ours)
        target._adopt(theirs)
        return ours

    def _adopt(self, connection: MemoryConnection) -> None:
        assert self._nursery is not None
        self._connections[connection] = None
        self._nursery.start_soon(self._serve, connection)

    async def _serve(self, connection: MemoryConnection) -> None:
        """One connection's life."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(connection.serve)
                if not connection.outbound:
                    nursery.start_soon(self._show, connection)
                await connection.closed.wait()
                nursery.cancel_scope.cancel()
        finally:
            connection.vanish("this transport has stopped")
            self._connections.pop(connection, None)

    async def _show(self, connection: MemoryConnection) -> None:
        """Gives an inbound connection to ``accept`` when the last handshake message has arrived."""
        await self._network.travel(connection.remote, self.peer_id)
        if len(self._unaccepted) >= CONNECTIONS_UNACCEPTED_MAX:
            connection.vanish("too many connections wait to be accepted")
            return
        self._unaccepted.append(connection)
        self._arrived.unpark_all()
