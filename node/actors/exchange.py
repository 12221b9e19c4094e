"""Both sides of `/lading/exchange/1` over one stream: a reader that never waits for a writer, and one task per request.

Requests share the stream: each task sends its own frames, so a slow disk or a used-up credit holds up that request alone. A request's
inbox is bounded by the credit it gave; a peer that sends more than it was allowed loses the connection. What all requests of a served
stream hold together is bounded too: beyond it the reader waits, and so, through the stream's window, does the peer.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Protocol, TypeVar

import trio

from protocols.effects import Effect, Send
from protocols.errors import DecodeError, LadingError, LocalError, Reason, RemoteError, Verdict
from protocols.exchange import machine as x
from protocols.exchange import messages as m
from protocols.limits import FRAME_BYTES_MAX, SEALED_CHUNK_BYTES_MAX
from protocols.registry import decode_message, encode_message, encode_parts
from protocols.signed import Signed
from protocols.types import PeerId

from ..clock import Clock
from ..transport.port import Stream, StreamBroken, StreamEnded

EXCHANGE_PROTOCOL = "/lading/exchange/1"
# The smallest sealed chunk is 1 KiB and a credit is 4 MiB, so an honest peer never has more than this many messages on the way.
INBOX_MESSAGES_MAX = x.CREDIT_BYTES // 1024 + 16
# A credit of chunks with their headers, and one frame of other things.
INBOX_BYTES_MAX = x.CREDIT_BYTES + FRAME_BYTES_MAX
# What follows a bundle, which nobody gives credit for.
BUNDLE_INBOX_BYTES_MAX = x.BEHIND_BYTES_MAX + FRAME_BYTES_MAX
# Of one served stream, unread or on the way to the disk: eight requests at full credit keep any disk busy.
HELD_BYTES_MAX = 8 * x.CREDIT_BYTES
# Of one served stream, read for the peer: 128 requests at once would hold 128 MiB for a peer that takes nothing.
LENT_BYTES_MAX = 16 * 1024 * 1024
# Fetched chunks handed on together: opened and written in one trip to a thread. With more, a slow reader would give no credit for so
# long that the holder gives it up.
DELIVERED_CHUNKS_MAX = 4
CANCEL_PATIENCE_S = 2.0
# A stream on which no frame at all leaves for so long belongs to a peer that does not read.
SEND_PATIENCE_S = 30.0
ANSWER_PATIENCE_S = 30.0

Chunks = tuple[tuple[int, bytes | None], ...]
Deliver = Callable[[Sequence[tuple[int, bytes]]], Awaitable[None]]
"""Takes chunks of a sequence, by index, each hashed before; as many as have come meanwhile, at most DELIVERED_CHUNKS_MAX."""
_Asker = x.PlaceAsker | x.FetchAsker | x.BundleAsker
_RequestMachine = _Asker | x.PlaceServer | x.FetchServer | x.BundleServer


class Loader(Protocol):
    """Reads chunks of a sequence from this disk; None where there is none."""

    async def __call__(self, root: bytes, indexes: tuple[int, ...]) -> Chunks: ...


class _Held:
    """Bytes that the requests of one stream hold in memory. moved_at: when a chunk of any last arrived or left, monotonic."""

    def __init__(self) -> None:
        self.bytes = 0
        self.moved_at = -math.inf
        self._sank = trio.lowlevel.ParkingLot()

    def rise(self, count: int) -> None:
        self.bytes += count

    def sink(self, count: int) -> None:
        self.bytes -= count
        self._sank.unpark_all()

    async def wait_below(self, bytes_max: int) -> None:
        while self.bytes >= bytes_max:
            await self._sank.park()


class _Inbox:
    """What arrived for one request and was not taken yet; bounded in messages and in bytes. held: of the whole stream."""

    def __init__(self, held: _Held, messages_max: int = INBOX_MESSAGES_MAX, bytes_max: int = INBOX_BYTES_MAX) -> None:
        self._sender, self._receiver = trio.open_memory_channel[tuple[object, int]](messages_max)
        self.held = held
        self._bytes_max = bytes_max
        self._bytes = 0
        self._count = 0

    def put(self, message: object, frame_bytes: int, now_s: float) -> None:
        """From the peer. Raises RemoteError(FLOOD) beyond the bounds."""
        if self._bytes + frame_bytes > self._bytes_max:
            raise RemoteError(Reason.FLOOD, "more bytes than the credit allows")
        try:
            self._sender.send_nowait((message, frame_bytes))
        except trio.WouldBlock:
            raise RemoteError(Reason.FLOOD, "more messages than the credit allows") from None
        self._bytes += frame_bytes
        self._count += 1
        self.held.rise(frame_bytes)
        if isinstance(message, m.Chunk):
            self.held.moved_at = now_s

    async def put_own(self, event: object) -> None:
        """From our own side; waits for room."""
        await self._sender.send((event, 0))
        self._count += 1

    async def take(self) -> object:
        """Raises trio.EndOfChannel when the stream is over."""
        message, frame_bytes = await self._receiver.receive()
        self._count -= 1
        self._bytes -= frame_bytes
        self.held.sink(frame_bytes)
        return message

    @property
    def has_some(self) -> bool:
        """Something is here already."""
        return self._count > 0

    def end(self) -> None:
        """No more will come; what is here can still be taken."""
        self._sender.close()

    def close(self) -> None:
        """The request is over: what was not taken is let go."""
        self._sender.close()
        self._receiver.close()
        self.held.sink(self._bytes)
        self._bytes = 0


class _Writer:
    """The sending side of a stream that many requests share."""

    def __init__(self, stream: Stream, held: _Held, clock: Clock) -> None:
        self._stream = stream
        self._held = held
        self._clock = clock
        self._frames = 0

    async def send(self, message: object) -> None:
        """Queues a message. Raises StreamBroken, also when no frame of any request has left for SEND_PATIENCE_S."""
        frame = encode_parts("exchange", message)
        while True:
            frames_before = self._frames
            with trio.move_on_after(SEND_PATIENCE_S) as patience:
                await self._stream.send(*frame)
                self._frames += 1
            if not patience.cancelled_caught:
                if isinstance(message, m.Chunk):
                    self._held.moved_at = self._clock.monotonic()
                return
            if self._frames == frames_before:
                self._stream.reset()
                raise StreamBroken(f"the peer takes nothing for {SEND_PATIENCE_S:.0f} s")


def _refusal(error: LadingError) -> x.Rejected:
    """The host's error as an answer; a fault of our own is none."""
    if isinstance(error, LocalError):
        raise error
    return x.Rejected(error.reason.stable_name, error.message)


def _too_long(chunk_count: int) -> str:
    return f"not done within {x.request_life_s(chunk_count):.0f} s"


async def _next_event(machine: _RequestMachine, inbox: _Inbox, clock: Clock) -> object:
    """What arrives next, or a Tick when the machine's patience ends. Raises trio.EndOfChannel."""
    while True:
        wake_at = machine.wake_at()
        if wake_at is None or inbox.has_some:
            return await inbox.take()
        # Chunks of other requests are a sign that a slow link is shared, not that the peer stalls. Each was asked for, so they end.
        wake_at = max(wake_at, min(inbox.held.moved_at + machine.patience_s, wake_at + x.SHARED_PATIENCE_S))
        if clock.monotonic() >= wake_at:
            return x.Tick()
        with trio.move_on_after(wake_at - clock.monotonic()):
            return await inbox.take()


async def _drive(
    machine: _RequestMachine,
    effects: tuple[Effect, ...],
    inbox: _Inbox,
    perform: Callable[[Effect], Awaitable[object | None]],
    clock: Clock,
    settle: Callable[[], Awaitable[object | None]] | None = None,
) -> None:
    """Steps a request's machine until it has ended, performing its effects in order. effects: those of its first step.
    settle: called when nothing more is here, for effects whose work ``perform`` gathers; its result is an event, None: nothing was."""
    events: deque[object] = deque()
    while True:
        for effect in effects:
            answer = await perform(effect)
            if answer is not None:
                events.append(answer)
        if settle is not None and (machine.ended or not (events or inbox.has_some)):
            settled = await settle()
            if settled is not None:
                events.append(settled)
        if machine.ended:
            return
        if not events:
            events.append(await _next_event(machine, inbox, clock))
        effects = machine.step(events.popleft(), clock.monotonic())


class ExchangeClient:
    """The asking side of one exchange stream. Its methods may be called by many tasks at once."""

    def __init__(self, stream: Stream, peer: PeerId, clock: Clock) -> None:
        self.peer = peer
        self._stream = stream
        self._clock = clock
        self._held = _Held()
        self._writer = _Writer(stream, self._held, clock)
        self._inboxes: dict[int, _Inbox] = {}
        # Numbers must leave in the order they were given: who gives one sends its first message before the next is given.
        self._numbering = trio.Lock()
        self._next = 1
        self._slots = trio.CapacityLimiter(x.REQUESTS_OPEN_MAX)
        self.broken: LadingError | None = None

    async def run(self) -> None:
        """Reads answers until the stream ends; then every open request fails."""
        try:
            while True:
                frame = await self._stream.receive()
                message = decode_message("exchange", frame)
                inbox = self._inboxes.get(getattr(message, "request", 0))
                if inbox is not None:  # else an answer to a request that has ended
                    inbox.put(message, len(frame), self._clock.monotonic())
        except (StreamEnded, StreamBroken) as error:
            self.broken = error
        except (DecodeError, RemoteError) as error:
            self.broken = error
            self._stream.reset()
            raise
        finally:
            if self.broken is None:
                self.broken = StreamBroken("the exchange was stopped")
            for inbox in self._inboxes.values():
                inbox.end()

    async def _request(
        self,
        make: Callable[[int], _Asker],
        perform_local: Callable[[Effect], Awaitable[object | None]],
        chunk_count: int,
        settle_local: Callable[[], Awaitable[object | None]] | None = None,
    ) -> x.Finished:
        async with self._slots:
            outcome: list[x.Finished | x.Failed] = []
            own_error: LadingError | None = None

            async def perform(effect: Effect) -> object | None:
                match effect:
                    case Send(message):
                        await self._writer.send(message)
                    case x.Finished() | x.Failed():
                        outcome.append(effect)
                    case _:
                        return await on_our_side(perform_local(effect))
                return None

            async def on_our_side(work: Awaitable[object | None]) -> object | None:
                nonlocal own_error
                try:
                    return await work
                except LadingError as error:
                    own_error = error
                    raise

            async def settle() -> object | None:
                return None if settle_local is None else await on_our_side(settle_local())

            number, inbox = 0, _Inbox(self._held)
            life = trio.move_on_after(x.request_life_s(chunk_count))
            machine: _Asker | None = None
            try:
                async with self._numbering:
                    number = self._open(inbox)
                    machine = make(number)
                    first, *rest = machine.step(x.Start(), self._clock.monotonic())
                    await perform(first)
                with life:
                    await _drive(machine, tuple(rest), inbox, perform, self._clock, settle)
            except trio.EndOfChannel:
                raise StreamBroken(f"exchange with this peer broke: {self.broken}") from None
            except RemoteError as error:
                if error is not own_error:
                    self._stream.reset()
                raise
            finally:
                self._inboxes.pop(number, None)
                inbox.close()
                if machine is not None and not machine.ended and self.broken is None:
                    await self._abandon(machine)
            if life.cancelled_caught:
                raise RemoteError(Reason.STALLED, _too_long(chunk_count), verdict=Verdict.IGNORE)
            end = outcome[-1]
            if isinstance(end, x.Failed):
                raise RemoteError(end.reason, end.text, verdict=Verdict.IGNORE)
            return end

    def _open(self, inbox: _Inbox) -> int:
        """A number for a new request, whose answers go to ``inbox``. Raises StreamBroken."""
        if self.broken is not None:
            raise StreamBroken(f"exchange with this peer is over: {self.broken}")
        number, self._next = self._next, self._next + 1
        self._inboxes[number] = inbox
        return number

    async def _abandon(self, machine: _Asker) -> None:
        """Tells the peer that a request is not wanted any more; a peer that takes nothing is not told."""
        with trio.CancelScope(deadline=trio.current_time() + CANCEL_PATIENCE_S, shield=True):
            for effect in machine.step(x.Abandon(), self._clock.monotonic()):
                assert isinstance(effect, Send)
                try:
                    await self._stream.send(encode_message("exchange", effect.message))
                except StreamBroken:
                    return

    async def place(self, place: m.Place, load: Loader) -> tuple[Signed, int]:
        """Has a sequence kept. Result: the holder's signed answer (hold or receipt) and the sealed bytes that were sent.
        Raises RemoteError with the holder's reason, StreamBroken."""

        async def local(effect: Effect) -> object | None:
            if isinstance(effect, x.Load):
                return x.Loaded(await load(effect.root, effect.indexes))
            return None

        def make(number: int) -> x.PlaceAsker:
            return x.PlaceAsker(m.Place(number, place.root, place.names, place.sizes, place.authority))

        end = await self._request(make, local, len(place.names))
        assert end.answer is not None
        return end.answer, end.sent_bytes

    async def fetch(self, root: bytes, names: Mapping[int, bytes], deliver: Deliver) -> tuple[int, ...]:
        """Brings chunks of a sequence; each has been hashed. Result: indexes that the holder does not have."""
        gathered: list[tuple[int, bytes]] = []

        async def settle() -> object | None:
            if not gathered:
                return None
            chunks = tuple(gathered)
            gathered.clear()
            await deliver(chunks)
            return x.Consumed(sum(len(data) for _, data in chunks), len(chunks))

        async def local(effect: Effect) -> object | None:
            if isinstance(effect, x.Deliver):
                gathered.append((effect.index, effect.data))
                return await settle() if len(gathered) >= DELIVERED_CHUNKS_MAX else None
            return None

        return (await self._request(lambda number: x.FetchAsker(number, root, names), local, len(names), settle)).missing

    async def _ask(self, make: Callable[[int], object]) -> object:
        """One question, one answer."""
        async with self._slots:
            number, inbox = 0, _Inbox(self._held, messages_max=1)
            try:
                async with self._numbering:
                    number = self._open(inbox)
                    await self._writer.send(make(number))
                with trio.fail_after(ANSWER_PATIENCE_S):
                    answer = await inbox.take()
            except trio.EndOfChannel:
                raise StreamBroken(f"exchange with this peer broke: {self.broken}") from None
            except trio.TooSlowError:
                raise RemoteError(Reason.STALLED, f"no answer for {ANSWER_PATIENCE_S:.0f} s", verdict=Verdict.IGNORE) from None
            finally:
                self._inboxes.pop(number, None)
                inbox.close()
        if isinstance(answer, m.Refused):
            raise RemoteError(x.reason_named(answer.reason), answer.text, verdict=Verdict.IGNORE)
        return answer

    async def confirm(
        self,
        statement: Signed,
        count: int,
        items: tuple[tuple[int, bytes, tuple[bytes, ...]], ...],
        wraps: tuple[Signed, ...] = (),
    ) -> m.Confirmed:
        """Turns holds into receipts, after the wraps are kept. Raises RemoteError, StreamBroken."""
        answer = await self._ask(lambda number: m.Confirm(number, statement, count, items, wraps))
        return _expect(answer, m.Confirmed)

    async def bundle(self, records: tuple[m.BundledRecord, ...]) -> m.Bundled:
        """Has small and medium records kept, as many as a bundle carries. Raises RemoteError, StreamBroken."""

        async def nothing(effect: Effect) -> object | None:
            raise AssertionError(effect)

        chunk_count = sum(len(one.chunks) for record in records for one in record.sequences)
        end = await self._request(lambda number: x.BundleAsker(number, records), nothing, chunk_count)
        assert end.bundled is not None
        return end.bundled

    async def describe(self, owner: bytes, hash_id: bytes, index: int) -> m.Described:
        """Names and sizes of a sequence's chunks, unchecked against the statement."""
        return _expect(await self._ask(lambda number: m.Describe(number, owner, hash_id, index)), m.Described)

    async def audit(self, nonce: bytes, ranges: tuple[tuple[bytes, int, int], ...]) -> bytes:
        """The holder's digest over the ranges."""
        return _expect(await self._ask(lambda number: m.Audit(number, nonce, ranges)), m.AuditAnswer).digest


T = TypeVar("T")


def _expect(answer: object, kind: type[T]) -> T:
    if not isinstance(answer, kind):
        raise RemoteError(Reason.OUT_OF_ORDER, f"{type(answer).__name__} where {kind.__name__} was due")
    return answer


class ExchangeHost(Protocol):
    """What the serving side needs of the node. Every method may refuse by raising LadingError with the reason."""

    async def check_place(self, peer: PeerId, place: m.Place) -> tuple[int, ...]: ...

    async def store(self, peer: PeerId, place: m.Place, index: int, name: bytes, data: bytes) -> None: ...

    async def commit(self, peer: PeerId, place: m.Place) -> Signed: ...

    async def load(self, root: bytes, indexes: tuple[int, ...]) -> Chunks: ...

    async def confirm(self, peer: PeerId, message: m.Confirm) -> m.Confirmed: ...

    async def bundle(self, peer: PeerId, message: m.Bundle) -> m.Bundled: ...

    async def describe(self, peer: PeerId, message: m.Describe) -> m.Described: ...

    async def audit(self, peer: PeerId, message: m.Audit) -> bytes: ...


async def serve_exchange(stream: Stream, peer: PeerId, host: ExchangeHost, clock: Clock) -> None:
    """Serves one exchange stream that the peer opened, until it ends. Raises RemoteError, DecodeError when the peer breaks a rule."""
    await _Server(stream, peer, host, clock).run()


class _Server:
    """The serving side of one stream."""

    def __init__(self, stream: Stream, peer: PeerId, host: ExchangeHost, clock: Clock) -> None:
        self._stream = stream
        self._peer = peer
        self._host = host
        self._clock = clock
        self._held = _Held()
        self._writer = _Writer(stream, self._held, clock)
        self._inboxes: dict[int, _Inbox] = {}
        # Chunks read for the peer and not yet taken by it, and those that are being read.
        self._lent = _Held()
        self._highest = 0
        self._violation: RemoteError | None = None

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            try:
                while True:
                    await self._held.wait_below(HELD_BYTES_MAX)
                    frame = await self._stream.receive()
                    self._take(decode_message("exchange", frame), len(frame), nursery)
            except (StreamEnded, StreamBroken):
                pass
            except RemoteError as error:
                self._violation = self._violation or error
            nursery.cancel_scope.cancel()
        if self._violation is not None:
            self._stream.reset()
            raise self._violation

    def _take(self, message: object, frame_bytes: int, nursery: trio.Nursery) -> None:
        number = getattr(message, "request", 0)
        if not isinstance(message, m.Place | m.Fetch | m.Confirm | m.Bundle | m.Describe | m.Audit):
            inbox = self._inboxes.get(number)
            if inbox is not None:  # else the request has ended, and this was on the way
                inbox.put(message, frame_bytes, self._clock.monotonic())
            return
        if number <= self._highest:
            raise RemoteError(Reason.OUT_OF_ORDER, f"request {number} after {self._highest}")
        self._highest = number
        # Twice what an asker has open: a cancelled request's place is taken by the next before we have heard of it.
        if len(self._inboxes) >= x.REQUESTS_OPEN_MAX * 2:
            raise RemoteError(Reason.FLOOD, "too many requests at once")
        is_bundle = isinstance(message, m.Bundle)
        inbox = self._inboxes[number] = _Inbox(self._held, bytes_max=BUNDLE_INBOX_BYTES_MAX if is_bundle else INBOX_BYTES_MAX)
        # A bundle is chunks on the way to the disk: these, and what follows it.
        carried = frame_bytes if is_bundle else 0
        self._held.rise(carried)
        nursery.start_soon(self._serve, message, inbox, nursery.cancel_scope, carried)

    async def _serve(
        self, message: m.Place | m.Fetch | m.Confirm | m.Bundle | m.Describe | m.Audit, inbox: _Inbox, all_: trio.CancelScope, carried: int
    ) -> None:
        names = message.names if isinstance(message, m.Place) else message.indexes if isinstance(message, m.Fetch) else ()
        try:
            with trio.move_on_after(x.request_life_s(len(names))) as life:
                match message:
                    case m.Place():
                        await self._serve_place(message, inbox)
                    case m.Fetch():
                        await self._serve_fetch(message, inbox)
                    case m.Bundle():
                        await self._serve_bundle(message, inbox)
                    case _:
                        await self._answer(message)
            if life.cancelled_caught:
                await self._writer.send(m.Refused(message.request, Reason.STALLED.stable_name, _too_long(len(names))))
        except StreamBroken:
            all_.cancel()
        except RemoteError as error:
            self._violation = self._violation or error
            all_.cancel()
        finally:
            self._inboxes.pop(message.request, None)
            inbox.close()
            self._held.sink(carried)

    async def _serve_place(self, place: m.Place, inbox: _Inbox) -> None:
        machine = x.PlaceServer(place.request)
        failure: RemoteError | StreamBroken | None = None
        async with trio.open_nursery() as stores:

            async def store(effect: x.Store) -> None:
                try:
                    await self._host.store(self._peer, place, effect.index, effect.name, effect.data)
                    event: object = x.Stored((effect.index,))
                except LadingError as error:
                    event = _refusal(error)
                finally:
                    self._held.sink(len(effect.data))
                await inbox.put_own(event)

            async def perform(effect: Effect) -> object | None:
                match effect:
                    case Send(answer):
                        await self._writer.send(answer)
                    case x.Store():
                        self._held.rise(len(effect.data))
                        stores.start_soon(store, effect)
                    case x.CheckPlace() | x.Commit():
                        return await self._decide(effect)
                    case _:
                        pass
                return None

            try:
                await _drive(machine, machine.step(place, self._clock.monotonic()), inbox, perform, self._clock)
            except (RemoteError, StreamBroken) as error:
                failure = error
            stores.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def _decide(self, effect: x.CheckPlace | x.Commit) -> object:
        try:
            if isinstance(effect, x.CheckPlace):
                return x.Checked(await self._host.check_place(self._peer, effect.place))
            return x.Committed(await self._host.commit(self._peer, effect.place))
        except LadingError as error:
            return _refusal(error)

    async def _serve_fetch(self, fetch: m.Fetch, inbox: _Inbox) -> None:
        machine = x.FetchServer(fetch.request)
        lent = 0

        async def perform(effect: Effect) -> object | None:
            nonlocal lent
            match effect:
                case Send(m.Chunk() as chunk):
                    await self._writer.send(chunk)
                    lent -= SEALED_CHUNK_BYTES_MAX
                    self._lent.sink(SEALED_CHUNK_BYTES_MAX)
                case Send(answer):
                    await self._writer.send(answer)
                case x.Load(root, indexes):
                    await self._lent.wait_below(LENT_BYTES_MAX)
                    # Taken before reading: sizes are known only after it, and others read at the same time.
                    lent += len(indexes) * SEALED_CHUNK_BYTES_MAX
                    self._lent.rise(len(indexes) * SEALED_CHUNK_BYTES_MAX)
                    try:
                        loaded = await self._host.load(root, indexes)
                    except LadingError as error:
                        return _refusal(error)
                    absent = sum(data is None for _, data in loaded) * SEALED_CHUNK_BYTES_MAX
                    lent -= absent
                    self._lent.sink(absent)
                    return x.Loaded(loaded)
                case _:
                    pass
            return None

        try:
            await _drive(machine, machine.step(fetch, self._clock.monotonic()), inbox, perform, self._clock)
        finally:
            self._lent.sink(lent)

    async def _serve_bundle(self, bundle: m.Bundle, inbox: _Inbox) -> None:
        machine = x.BundleServer(bundle.request)
        gathered = 0

        async def perform(effect: Effect) -> object | None:
            nonlocal gathered
            match effect:
                case Send(answer):
                    await self._writer.send(answer)
                case x.Gathered(count):
                    gathered += count
                    self._held.rise(count)
                case x.Keep(whole):
                    try:
                        return x.Kept(await self._host.bundle(self._peer, whole))
                    except LadingError as error:
                        return _refusal(error)
                case _:
                    pass
            return None

        try:
            await _drive(machine, machine.step(bundle, self._clock.monotonic()), inbox, perform, self._clock)
        finally:
            self._held.sink(gathered)

    async def _answer(self, message: m.Confirm | m.Describe | m.Audit) -> None:
        x.check_question(message)
        answer: object
        try:
            match message:
                case m.Confirm():
                    answer = await self._host.confirm(self._peer, message)
                case m.Describe():
                    answer = await self._host.describe(self._peer, message)
                case m.Audit():
                    answer = m.AuditAnswer(message.request, await self._host.audit(self._peer, message))
        except LadingError as error:
            no = _refusal(error)
            answer = m.Refused(message.request, no.reason, no.text)
        await self._writer.send(answer)
