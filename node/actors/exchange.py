"""Both sides of `/lading/exchange/1` over one stream: a reader that never waits for a writer, and one task per request.

Requests share the stream: each task sends its own frames, so a slow disk or a used-up credit holds up that request alone. A request's
inbox is bounded by the credit it gave; a peer that sends more than it was allowed loses the connection.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

import trio

from protocols.effects import Effect, Send
from protocols.errors import DecodeError, LadingError, Reason, RemoteError, Verdict
from protocols.exchange import machine as x
from protocols.exchange import messages as m
from protocols.registry import decode_message, encode_message
from protocols.signed import Signed
from protocols.types import PeerId

from ..clock import Clock
from ..transport.port import Stream, StreamBroken, StreamEnded

EXCHANGE_PROTOCOL = "/lading/exchange/1"
# The smallest sealed chunk is 1 KiB and a credit is 4 MiB, so an honest peer never has more than this many messages on the way.
INBOX_MESSAGES_MAX = x.CREDIT_BYTES // 1024 + 16
CANCEL_PATIENCE_S = 2.0
ANSWER_PATIENCE_S = 30.0

Chunks = tuple[tuple[int, bytes | None], ...]


class Loader(Protocol):
    """Reads chunks of a sequence from this disk; None where there is none."""

    async def __call__(self, root: bytes, indexes: tuple[int, ...]) -> Chunks: ...


async def _drive(
    machine: x.PlaceAsker | x.FetchAsker | x.PlaceServer | x.FetchServer,
    first: object,
    inbox: trio.MemoryReceiveChannel[object],
    perform: Callable[[Effect], Awaitable[object | None]],
    clock: Clock,
) -> None:
    """Steps a request's machine until it has ended, performing its effects in order."""
    events: deque[object] = deque([first])
    while not machine.ended:
        if not events:
            wake_at = machine.wake_at()
            event: object = x.Tick()
            with trio.move_on_after(math.inf if wake_at is None else max(0.0, wake_at - clock.monotonic())):
                event = await inbox.receive()
            events.append(event)
        for effect in machine.step(events.popleft(), clock.monotonic()):
            answer = await perform(effect)
            if answer is not None:
                events.append(answer)


class ExchangeClient:
    """The asking side of one exchange stream. Its methods may be called by many tasks at once."""

    def __init__(self, stream: Stream, peer: PeerId, clock: Clock) -> None:
        self.peer = peer
        self._stream = stream
        self._clock = clock
        self._inboxes: dict[int, trio.MemorySendChannel[object]] = {}
        self._next = 1
        self._slots = trio.CapacityLimiter(x.REQUESTS_OPEN_MAX)
        self.broken: LadingError | None = None

    async def run(self) -> None:
        """Reads answers until the stream ends; then every open request fails."""
        try:
            while True:
                message = decode_message("exchange", await self._stream.receive())
                request = getattr(message, "request", None)
                inbox = self._inboxes.get(request) if isinstance(request, int) else None
                if inbox is None:
                    continue  # an answer to a request that has ended
                try:
                    inbox.send_nowait(message)
                except trio.WouldBlock:
                    raise RemoteError(Reason.FLOOD, "more answers than were asked for") from None
        except (StreamEnded, StreamBroken) as error:
            self.broken = error
        except (DecodeError, RemoteError) as error:
            self.broken = error
            self._stream.reset()
            raise
        finally:
            if self.broken is None:
                self.broken = StreamBroken("the exchange was stopped")
            for inbox in list(self._inboxes.values()):
                inbox.close()

    async def _request(
        self,
        make: Callable[[int], x.PlaceAsker | x.FetchAsker],
        perform_local: Callable[[Effect], Awaitable[object | None]],
    ) -> x.Finished:
        async with self._slots:
            if self.broken is not None:
                raise StreamBroken(f"exchange with this peer is over: {self.broken}")
            number, self._next = self._next, self._next + 1
            sender, inbox = trio.open_memory_channel[object](INBOX_MESSAGES_MAX)
            self._inboxes[number] = sender
            machine = make(number)
            outcome: list[x.Finished | x.Failed] = []

            async def perform(effect: Effect) -> object | None:
                match effect:
                    case Send(message):
                        await self._stream.send(encode_message("exchange", message))
                    case x.Finished() | x.Failed():
                        outcome.append(effect)
                    case _:
                        return await perform_local(effect)
                return None

            try:
                await _drive(machine, x.Start(), inbox, perform, self._clock)
            except trio.EndOfChannel:
                raise StreamBroken(f"exchange with this peer broke: {self.broken}") from None
            except RemoteError:
                self._stream.reset()
                raise
            finally:
                del self._inboxes[number]
                sender.close()
                if not machine.ended and self.broken is None:
                    with trio.CancelScope(deadline=trio.current_time() + CANCEL_PATIENCE_S, shield=True):
                        for effect in machine.step(x.Abandon(), self._clock.monotonic()):
                            if isinstance(effect, Send):
                                try:
                                    await self._stream.send(encode_message("exchange", effect.message))
                                except StreamBroken:
                                    break
            end = outcome[-1]
            if isinstance(end, x.Failed):
                raise RemoteError(end.reason, end.text, verdict=Verdict.IGNORE)
            return end

    async def place(self, place: m.Place, load: Loader, eager_chunks: tuple[bytes, ...] = ()) -> tuple[Signed, int]:
        """Has a sequence kept. Result: the holder's signed answer (hold or receipt) and the sealed bytes that were sent.
        Raises RemoteError with the holder's reason, StreamBroken."""

        async def local(effect: Effect) -> object | None:
            if isinstance(effect, x.Load):
                return x.Loaded(await load(effect.root, effect.indexes))
            return None

        def make(number: int) -> x.PlaceAsker:
            numbered = m.Place(number, place.root, place.names, place.sizes, place.authority, place.eager)
            return x.PlaceAsker(numbered, eager_chunks)

        end = await self._request(make, local)
        assert end.answer is not None
        return end.answer, end.sent_bytes

    async def fetch(self, root: bytes, names: Mapping[int, bytes], deliver: Callable[[int, bytes], Awaitable[None]]) -> tuple[int, ...]:
        """Brings chunks of a sequence; each has been hashed. Result: indexes that the holder does not have."""

        async def local(effect: Effect) -> object | None:
            if isinstance(effect, x.Deliver):
                await deliver(effect.index, effect.data)
                return x.Consumed(len(effect.data))
            return None

        return (await self._request(lambda number: x.FetchAsker(number, root, names), local)).missing

    async def _ask(self, make: Callable[[int], object]) -> object:
        """One question, one answer."""
        async with self._slots:
            if self.broken is not None:
                raise StreamBroken(f"exchange with this peer is over: {self.broken}")
            number, self._next = self._next, self._next + 1
            sender, inbox = trio.open_memory_channel[object](4)
            self._inboxes[number] = sender
            try:
                await self._stream.send(encode_message("exchange", make(number)))
                with trio.fail_after(ANSWER_PATIENCE_S):
                    answer = await inbox.receive()
            except trio.EndOfChannel:
                raise StreamBroken(f"exchange with this peer broke: {self.broken}") from None
            except trio.TooSlowError:
                raise RemoteError(Reason.STALLED, f"no answer for {ANSWER_PATIENCE_S:.0f} s", verdict=Verdict.IGNORE) from None
            finally:
                del self._inboxes[number]
                sender.close()
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

    async def describe(self, peer: PeerId, message: m.Describe) -> m.Described: ...

    async def audit(self, peer: PeerId, message: m.Audit) -> bytes: ...


async def serve_exchange(stream: Stream, peer: PeerId, host: ExchangeHost, clock: Clock) -> None:
    """Serves one exchange stream that the peer opened, until it ends. Raises RemoteError when the peer breaks a rule."""
    inboxes: dict[int, trio.MemorySendChannel[object]] = {}
    highest = 0
    try:
        async with trio.open_nursery() as nursery:
            while True:
                try:
                    message = decode_message("exchange", await stream.receive())
                except (StreamEnded, StreamBroken):
                    break
                number = getattr(message, "request", 0)
                if not isinstance(message, m.Place | m.Fetch | m.Confirm | m.Describe | m.Audit):
                    inbox = inboxes.get(number)
                    if inbox is not None:
                        try:
                            inbox.send_nowait(message)
                        except trio.WouldBlock:
                            raise RemoteError(Reason.FLOOD, "more than the credit allows") from None
                    continue
                if number <= highest:
                    raise RemoteError(Reason.OUT_OF_ORDER, f"request {number} after {highest}")
                highest = number
                if len(inboxes) >= x.REQUESTS_OPEN_MAX * 2:
                    raise RemoteError(Reason.FLOOD, "too many requests at once")
                sender, receiver = trio.open_memory_channel[object](INBOX_MESSAGES_MAX)
                inboxes[number] = sender
                nursery.start_soon(_serve_request, stream, peer, host, clock, message, sender, receiver, inboxes)
            nursery.cancel_scope.cancel()
    finally:
        for inbox in inboxes.values():
            inbox.close()


async def _serve_request(
    stream: Stream,
    peer: PeerId,
    host: ExchangeHost,
    clock: Clock,
    message: m.Place | m.Fetch | m.Confirm | m.Describe | m.Audit,
    own_inbox: trio.MemorySendChannel[object],
    inbox: trio.MemoryReceiveChannel[object],
    inboxes: dict[int, trio.MemorySendChannel[object]],
) -> None:
    try:
        match message:
            case m.Place():
                await _serve_place(stream, peer, host, clock, message, own_inbox, inbox)
            case m.Fetch():
                await _serve_fetch(stream, host, clock, message, inbox)
            case _:
                await _serve_question(stream, peer, host, message)
    except (StreamBroken, trio.EndOfChannel):
        pass  # the reader notices too, and ends the rest
    finally:
        inboxes.pop(message.request, None)
        own_inbox.close()


async def _serve_place(
    stream: Stream,
    peer: PeerId,
    host: ExchangeHost,
    clock: Clock,
    place: m.Place,
    own_inbox: trio.MemorySendChannel[object],
    inbox: trio.MemoryReceiveChannel[object],
) -> None:
    machine = x.PlaceServer(place.request)
    async with trio.open_nursery() as nursery:

        async def store(effect: x.Store) -> None:
            try:
                await host.store(peer, place, effect.index, effect.name, effect.data)
                event: object = x.Stored((effect.index,))
            except LadingError as error:
                event = x.Rejected(error.reason.stable_name, error.message)
            await own_inbox.send(event)

        async def perform(effect: Effect) -> object | None:
            try:
                match effect:
                    case Send(answer):
                        await stream.send(encode_message("exchange", answer))
                    case x.CheckPlace():
                        return x.Checked(await host.check_place(peer, place))
                    case x.Store():
                        nursery.start_soon(store, effect)
                    case x.Commit():
                        return x.Committed(await host.commit(peer, place))
                    case _:
                        pass
            except StreamBroken:
                raise
            except LadingError as error:
                return x.Rejected(error.reason.stable_name, error.message)
            return None

        await _drive(machine, place, inbox, perform, clock)
        nursery.cancel_scope.cancel()


async def _serve_fetch(stream: Stream, host: ExchangeHost, clock: Clock, fetch: m.Fetch, inbox: trio.MemoryReceiveChannel[object]) -> None:
    async def perform(effect: Effect) -> object | None:
        match effect:
            case Send(answer):
                await stream.send(encode_message("exchange", answer))
            case x.Load(root, indexes):
                try:
                    return x.Loaded(await host.load(root, indexes))
                except LadingError as error:
                    return x.Rejected(error.reason.stable_name, error.message)
            case _:
                pass
        return None

    await _drive(x.FetchServer(fetch.request), fetch, inbox, perform, clock)


async def _serve_question(stream: Stream, peer: PeerId, host: ExchangeHost, message: m.Confirm | m.Describe | m.Audit) -> None:
    answer: object
    try:
        match message:
            case m.Confirm():
                answer = await host.confirm(peer, message)
            case m.Describe():
                answer = await host.describe(peer, message)
            case m.Audit():
                answer = m.AuditAnswer(message.request, await host.audit(peer, message))
    except StreamBroken:
        raise
    except LadingError as error:
        answer = m.Refused(message.request, error.reason.stable_name, error.message)
    await stream.send(encode_message("exchange", answer))
