"""Ends of `/lading/ledger/1`: one for each peer that follows our chain, and who opens them.

Reader, writer and stepper are tasks of their own; the stepper performs what the machine asks for, one thing at a time, so what a peer
sends is taken as fast as it can be judged and no faster.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence
from typing import Protocol

import trio

from protocols.effects import Close, Effect, Send
from protocols.errors import ActorGone, DecodeError, LadingError, Reason, RemoteError, StoreFull, Undecided, Verdict
from protocols.ledger import machine as m
from protocols.ledger.block import Block
from protocols.ledger.seals.table import SEALS
from protocols.ledger.sync import check_rows
from protocols.limits import CHALLENGE_BYTES, LEDGER_PATIENCE_S, LEDGER_SILENCE_MAX_S
from protocols.registry import decode_message, encode_message, protocol_id
from protocols.types import AccountId, BlockHash, PeerId

from ..bus import Bus
from ..clock import Clock
from ..entropy import Entropy
from ..supervisor import run_contained
from ..transport.port import Stream, StreamBroken, StreamEnded
from .chain import BlockFinal, BlockTaken, ChainActor, ChainItems, HeadMovedTo

log = logging.getLogger(__name__)

LEDGER_PROTOCOL = protocol_id("ledger")
EVENTS_MAX = 256
# Unhandled frames of the peer: a page of the largest blocks. Beyond it the reader waits.
EVENTS_BYTES_MAX = 8 * 1024 * 1024
SENDS_MAX = 64
# Hints for a peer that takes nothing; what is dropped comes again with the next beat or reconciliation.
HINTS_MAX = 128
REOPEN_S = 3.0


class Claims:
    """Which peer was asked for which body: two peers are not asked for one at the same time."""

    def __init__(self) -> None:
        self._asked: dict[BlockHash, tuple[PeerId, float]] = {}

    def take(self, hashes: Sequence[BlockHash], peer: PeerId, now_s: float) -> tuple[BlockHash, ...]:
        """Those that nobody else was asked for lately; they are this peer's now."""
        self._asked = {name: claim for name, claim in self._asked.items() if claim[1] > now_s}
        free = tuple(name for name in hashes if self._asked.get(name, (peer, 0.0))[0] == peer)
        self._asked.update(dict.fromkeys(free, (peer, now_s + LEDGER_PATIENCE_S)))
        return free

    def drop(self, peer: PeerId) -> None:
        """The peer is gone."""
        self._asked = {name: claim for name, claim in self._asked.items() if claim[0] != peer}


class TalkEnd:
    """Runs one stream."""

    def __init__(self, stream: Stream, peer: PeerId, chain: ChainActor, claims: Claims, clock: Clock, challenge: bytes) -> None:
        self.peer = peer
        self.speaks_for: frozenset[AccountId] = frozenset()
        self._stream = stream
        self._chain = chain
        self._claims = claims
        self._clock = clock
        self._challenge = challenge
        self._machine = m.TalkMachine()
        self._inbox_send, self._inbox = trio.open_memory_channel[tuple[object, int]](EVENTS_MAX)
        self._inbox_bytes = 0
        self._inbox_sank = trio.lowlevel.ParkingLot()
        self._out_send, self._out = trio.open_memory_channel[bytes](SENDS_MAX)
        self._hints: deque[object] = deque(maxlen=HINTS_MAX)
        self._some_hints = trio.Event()

    def hint(self, event: object) -> None:
        """Something to tell the peer; the oldest are dropped for one that takes nothing."""
        self._hints.append(event)
        self._some_hints.set()

    async def run(self) -> None:
        """Until the stream ends or the peer falls silent. Raises RemoteError, DecodeError when the peer breaks a rule."""
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._read, nursery.cancel_scope)
                nursery.start_soon(self._write, nursery.cancel_scope)
                nursery.start_soon(self._pass_hints)
                await self._step_all(m.Opened(self._chain.chain, self._challenge))
                while await self._step_next():
                    pass
                nursery.cancel_scope.cancel()
        finally:
            self._claims.drop(self.peer)

    async def _step_next(self) -> bool:
        wake_at = self._machine.wake_at()
        event: object = m.Tick()
        frame_bytes = 0
        with trio.move_on_after(math.inf if wake_at is None else max(0.0, wake_at - self._clock.monotonic())):
            event, frame_bytes = await self._inbox.receive()
        self._inbox_bytes -= frame_bytes
        self._inbox_sank.unpark_all()
        return await self._step_all(event)

    async def _pass_hints(self) -> None:
        while True:
            await self._some_hints.wait()
            self._some_hints = trio.Event()
            while self._hints:
                await self._inbox_send.send((self._hints.popleft(), 0))

    async def _read(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                while self._inbox_bytes >= EVENTS_BYTES_MAX:
                    await self._inbox_sank.park()
                frame = await self._stream.receive()
                message = decode_message("ledger", frame)
                self._inbox_bytes += len(frame)
                await self._inbox_send.send((message, len(frame)))
        except (StreamEnded, StreamBroken):
            scope.cancel()

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            async for frame in self._out:
                await self._stream.send(frame)
        except StreamBroken:
            scope.cancel()

    async def _step_all(self, first: object) -> bool:
        """False when the machine has closed the conversation."""
        events = deque([first])
        while events:
            for effect in self._machine.step(events.popleft(), self._clock.monotonic()):
                if isinstance(effect, Close):
                    return False
                answer = await self._perform(effect)
                if answer is not None:
                    events.append(answer)
        return True

    async def _perform(self, effect: Effect) -> object | None:
        chain = self._chain
        match effect:
            case Send(message):
                with trio.move_on_after(LEDGER_SILENCE_MAX_S) as patience:
                    await self._out_send.send(encode_message("ledger", message))
                if patience.cancelled_caught:
                    raise StreamBroken(f"the peer takes nothing for {LEDGER_SILENCE_MAX_S:.0f} s")
            case m.DescribeHead():
                return m.HeadMoved(*chain.checkpoints())
            case m.DescribeItems():
                return m.HaveItems(*chain.item_ids())
            case m.FilterUnknown(transactions, votes):
                return m.Unknown(*chain.lacking(transactions, votes))
            case m.LoadItems(transactions, votes):
                return m.ItemsLoaded(*chain.items(transactions, votes))
            case m.Locate(head):
                known = any(head.hash) and not await chain.missing((head.hash,))
                return m.Located(None if known or not any(head.hash) else await chain.locator())
            case m.LoadHeaders(locator):
                return m.HeadersLoaded(await chain.headers_after(locator))
            case m.CheckHeaders(rows):
                seal = None if chain.facts is None else SEALS[chain.facts.profile.seal]
                hashes = check_rows(rows, chain.chain, seal)
                return m.Missing(self._claims.take(await chain.missing(hashes), self.peer, self._clock.monotonic()))
            case m.LoadBlocks(hashes):
                blocks = await chain.blocks(hashes)
                found = {block.hash for block in blocks}
                return m.BlocksLoaded(blocks, tuple(name for name in hashes if name not in found))
            case m.DeliverBlock(block, asked):
                await self._deliver(block, asked)
            case m.DeliverItems(transactions, votes):
                try:
                    await chain.take_items(transactions, votes, self.peer)
                except (StoreFull, ActorGone) as error:
                    log.warning("ledger items not taken peer=%s error=%s", self.peer.hex()[-8:], error)
            case m.MakeWitnesses(challenge, counter):
                return m.Witnessed(chain.witnesses(challenge=challenge, counter=counter))
            case m.HeardAlive(challenge, counter, witnesses):
                self.speaks_for = frozenset(chain.hear(witnesses, challenge=challenge, counter=counter))
            case _:
                raise AssertionError(effect)
        return None

    async def _deliver(self, block: Block, asked: bool) -> None:
        try:
            await self._chain.take_block(block, self.peer, eager=not asked)
        except Undecided as error:
            if error.reason is Reason.RULE_SET:
                self._chain.alerts["rules"] = error.message
        except (StoreFull, ActorGone) as error:
            log.warning("block not taken peer=%s error=%s", self.peer.hex()[-8:], error)


class TalkPeers(Protocol):
    """What the ends need of the connections."""

    def partners(self) -> list[PeerId]:
        """Connected peers of our own domain."""

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        """Raises StreamBroken."""

    async def drop(self, peer: PeerId, why: str, *, ban: bool = False) -> None: ...


class Talks:
    """All ends. Of a pair the one with the smaller peer id opens the stream, and opens it again."""

    def __init__(self, own: PeerId, chain: ChainActor, peers: TalkPeers, clock: Clock, entropy: Entropy, bus: Bus) -> None:
        self.ends: dict[PeerId, TalkEnd] = {}
        self._own = own
        self._chain = chain
        self._peers = peers
        self._clock = clock
        self._entropy = entropy
        self._bus = bus
        self._claims = Claims()
        self._opening: set[PeerId] = set()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._tell)
            while True:
                for peer in self._peers.partners():
                    if self._own < peer and peer not in self.ends and peer not in self._opening:
                        self._opening.add(peer)
                        nursery.start_soon(self._open, peer)
                await trio.sleep(REOPEN_S)

    async def _open(self, peer: PeerId) -> None:
        """A peer that follows no chain refuses the stream, and is asked again later."""
        try:
            for error in await run_contained(lambda: self._open_one(peer)):
                if isinstance(error, RemoteError | DecodeError):
                    log.warning("ledger peer dropped peer=%s why=%s", peer.hex()[-8:], error)
                    await self._peers.drop(peer, str(error), ban=error.verdict is Verdict.BAN)
                elif not isinstance(error, LadingError | trio.Cancelled):
                    raise error
        finally:
            self._opening.discard(peer)

    async def _open_one(self, peer: PeerId) -> None:
        stream = await self._peers.open_stream(peer, LEDGER_PROTOCOL)
        await self.serve(stream, peer)

    async def serve(self, stream: Stream, peer: PeerId) -> None:
        """One stream's life. Raises RemoteError, DecodeError."""
        end = TalkEnd(stream, peer, self._chain, self._claims, self._clock, self._entropy.token(CHALLENGE_BYTES))
        self.ends[peer] = end
        try:
            await end.run()
        finally:
            if self.ends.get(peer) is end:
                del self.ends[peer]
            stream.reset()

    async def _tell(self) -> None:
        """Passes on what the chain publishes."""
        with self._bus.subscribe(HeadMovedTo, BlockFinal, ChainItems, BlockTaken, name="talks") as news:
            async for fact in news:
                for end in list(self.ends.values()):
                    self._tell_one(end, fact)

    def _tell_one(self, end: TalkEnd, fact: object) -> None:
        match fact:
            case BlockTaken(block, source):
                if end.peer != source and end.speaks_for:
                    end.hint(m.Push(block))
            case ChainItems(transactions, votes, source):
                if end.peer != source:
                    end.hint(m.HaveItems(transactions, votes))
            case _:
                end.hint(m.HeadMoved(*self._chain.checkpoints()))
