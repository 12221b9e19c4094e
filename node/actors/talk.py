"""Ends of `/lading/ledger/1`: one for each peer that follows our chain, and who opens them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Protocol

import trio

from protocols.effects import Effect
from protocols.errors import ActorGone, DecodeError, LadingError, Reason, RemoteError, StoreFull, Undecided, Verdict
from protocols.ledger import machine as m
from protocols.ledger.block import Block, decode_header
from protocols.ledger.seals.table import SEALS
from protocols.ledger.sync import check_rows
from protocols.ledger.votes import Checkpoint
from protocols.limits import BLOCKS_PER_PAGE_MAX, CHALLENGE_BYTES, HEADERS_PER_PAGE_MAX, LEDGER_PATIENCE_S, LEDGER_SILENCE_MAX_S
from protocols.registry import protocol_id
from protocols.types import AccountId, BlockHash, PeerId
from storage.chain_state import StateDifference

from ..bus import Bus
from ..clock import Clock
from ..entropy import Entropy
from ..supervisor import run_contained
from ..transport.port import Stream
from .chain import BlockFinal, BlockTaken, ChainActor, ChainItems, HeadMovedTo
from .end import MachineEnd
from .joining import StateFetch

log = logging.getLogger(__name__)

LEDGER_PROTOCOL = protocol_id("ledger")
EVENTS_MAX = 256
# Unhandled frames of the peer: a page of the largest blocks. Beyond it the reader waits.
EVENTS_BYTES_MAX = 8 * 1024 * 1024
SENDS_MAX = 64
# Hints for a peer that takes nothing; what is dropped comes again with the next beat or reconciliation.
HINTS_MAX = 128
REOPEN_S = 3.0
# A peer that did not give a body that it had shown the header of is not asked for it again for so long, while others may be.
WITHHELD_S = 60.0
WITHHELD_MAX = 4096


class Claims:
    """Which peer was asked for which body: several peers give one page together, no two the same body at one time."""

    def __init__(self) -> None:
        self._asked: dict[BlockHash, tuple[PeerId, float]] = {}
        self._withheld: dict[tuple[PeerId, bytes], float] = {}

    def take(self, hashes: Sequence[BlockHash], peer: PeerId, now_s: float, *, most: int) -> tuple[BlockHash, ...]:
        """The first of those that nobody else was asked for lately, and that this peer did not withhold; they are this peer's now."""
        self._asked = {name: claim for name, claim in self._asked.items() if claim[1] > now_s}
        self._withheld = {key: until for key, until in self._withheld.items() if until > now_s}
        free = [name for name in hashes if self._asked.get(name, (peer, 0.0))[0] == peer and (peer, name) not in self._withheld]
        self._asked.update(dict.fromkeys(free[:most], (peer, now_s + LEDGER_PATIENCE_S)))
        return tuple(free[:most])

    def is_taken(self, name: BlockHash) -> bool:
        """Somebody was asked for this body."""
        return name in self._asked

    def drop(self, peer: PeerId, now_s: float, hashes: Iterable[bytes] = ()) -> None:
        """The peer is gone, or has not these: what it was asked for and did not give is asked of others first."""
        left = [name for name, claim in self._asked.items() if claim[0] == peer]
        for name in left:
            del self._asked[name]
        for withheld in (*left, *hashes):
            if len(self._withheld) < WITHHELD_MAX:
                self._withheld[peer, withheld] = now_s + WITHHELD_S

    def done(self, name: BlockHash) -> None:
        """The body is here."""
        self._asked.pop(name, None)


class TalkEnd:
    """Runs one stream."""

    def __init__(
        self, stream: Stream, peer: PeerId, chain: ChainActor, claims: Claims, fetches: StateFetch, clock: Clock, challenge: bytes
    ) -> None:
        self.peer = peer
        self.is_open = False
        self.speaks_for: frozenset[AccountId] = frozenset()
        self._chain = chain
        self._claims = claims
        self._fetches = fetches
        self._clock = clock
        self._challenge = challenge
        self._machine = m.TalkMachine()
        self._end = MachineEnd(
            "ledger",
            self._machine,
            stream,
            clock,
            self._perform,
            tick=m.Tick(),
            events_max=EVENTS_MAX,
            events_bytes_max=EVENTS_BYTES_MAX,
            sends_max=SENDS_MAX,
            patience_s=LEDGER_SILENCE_MAX_S,
        )
        self._hints: deque[object] = deque(maxlen=HINTS_MAX)
        self._some_hints = trio.Event()

    def hint(self, event: object) -> None:
        """Something to tell the peer; the oldest are dropped for one that takes nothing."""
        self._hints.append(event)
        self._some_hints.set()

    async def run(self) -> None:
        """Until the stream ends or the peer falls silent. Raises RemoteError, DecodeError when the peer breaks a rule."""
        try:
            await self._end.run(m.Opened(self._chain.chain, self._challenge), self._pass_hints, self._beat_meanwhile)
        finally:
            self._claims.drop(self.peer, self._clock.monotonic())
            self._fetches.drop(self.peer)

    async def _beat_meanwhile(self) -> None:
        await self._end.say_meanwhile(m.Busy(), lambda: self._machine.beat_at)

    async def _pass_hints(self) -> None:
        while True:
            await self._some_hints.wait()
            self._some_hints = trio.Event()
            while self._hints:
                await self._end.put(self._hints.popleft())

    async def _perform(self, effect: Effect) -> object | None:
        chain = self._chain
        match effect:
            case m.DescribeHead():
                return m.HeadMoved(*chain.checkpoints())
            case m.DescribeItems():
                return m.HaveItems(*chain.item_ids())
            case m.FilterUnknown(transactions, votes):
                return m.Unknown(*chain.lacking(transactions, votes))
            case m.LoadItems(transactions, votes):
                return m.ItemsLoaded(*chain.items(transactions, votes))
            case m.Locate(head, lowest):
                return m.Located(await chain.locator() if await self._is_worth_asking(head, lowest) else None)
            case m.LoadHeaders(locator):
                return m.HeadersLoaded(*await chain.headers_after(locator))
            case m.CheckHeaders(rows):
                seal = None if chain.facts is None else SEALS[chain.facts.profile.seal]
                hashes = check_rows(rows, chain.chain, seal)
                missing = await chain.missing(hashes)
                return m.Missing(self._claims.take(missing, self.peer, self._clock.monotonic(), most=self._share()))
            case m.NotGiven(hashes):
                self._claims.drop(self.peer, self._clock.monotonic(), hashes)
            case m.LoadBlocks(hashes):
                blocks = await chain.blocks(hashes)
                found = {block.hash for block in blocks}
                return m.BlocksLoaded(blocks, tuple(name for name in hashes if name not in found))
            case m.DeliverBlock(block, asked):
                await self._deliver(block, asked)
            case m.PlanHistory():
                before = await chain.history_wanted()
                if before is not None and self._claims.take((before,), self.peer, self._clock.monotonic(), most=1):
                    return m.HistoryWanted(before)
            case m.LoadHistory(before):
                return m.HistoryLoaded(await chain.history_before(before))
            case m.CheckHistory(before, rows):
                hashes = check_rows(rows, chain.chain, None if chain.facts is None else SEALS[chain.facts.profile.seal])
                if await chain.parent_of(before) != hashes[-1]:
                    raise RemoteError(Reason.INTEGRITY, "history of another block")
                return m.Missing(tuple(reversed(hashes)))
            case m.LoadState(names):
                return m.StateLoaded(*await chain.state_nodes(names))
            case m.DeliverState(nodes, lacking):
                await self._fetches.deliver(self.peer, nodes, lacking)
            case m.DeliverItems(transactions, votes):
                try:
                    await chain.take_items(transactions, votes, self.peer)
                except (StoreFull, ActorGone) as error:
                    log.warning("ledger items not taken peer=%s error=%s", self.peer.hex()[-8:], error)
            case m.MakeWitnesses(challenge, counter, echo, held_ms):
                if not self.is_open:
                    self.is_open = True
                    await self._fetches.advance()
                told = chain.tell_time(echo=echo, held_ms=held_ms)
                return m.Witnessed(told, chain.witnesses(challenge=challenge, counter=counter, told=told))
            case m.HeardAlive(challenge, counter, told, round_trip_ms, witnesses):
                heard = chain.hear(witnesses, challenge=challenge, counter=counter, told=told, round_trip_ms=round_trip_ms)
                self.speaks_for = frozenset(heard)
            case _:
                raise AssertionError(effect)
        return None

    async def _is_worth_asking(self, head: Checkpoint, lowest: int) -> bool:
        """The peer's head is unknown here, and it keeps what comes after ours."""
        chain = self._chain
        if chain.is_joining or not any(head.hash) or chain.checkpoints()[0].height + 1 < lowest:
            return False
        return bool(await chain.missing((head.hash,)))

    def _share(self) -> int:
        """How many bodies of a page are asked of one peer: all of them where there is no other."""
        return HEADERS_PER_PAGE_MAX if self._fetches.is_alone else BLOCKS_PER_PAGE_MAX

    async def _deliver(self, block: Block, asked: bool) -> None:
        try:
            # What another peer was asked for comes first: until then this peer waits with us.
            waits = asked and self._claims.is_taken(decode_header(block.header).parent)
            try:
                await self._chain.take_block(block, self.peer, eager=not asked, waits=waits)
            finally:
                self._claims.done(block.hash)
            if self._chain.is_joining:
                await self._fetches.advance()
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
        self._fetches = StateFetch(chain, clock, self.ends)
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
                await self._fetches.advance()

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

    async def difference(self, peer: PeerId) -> StateDifference | None:
        """The first key at which this node's state and a peer's differ after the block at which this node stopped; None when it has not.

        Raises Refused(UNREACHABLE | NOT_FOUND | CONFLICT).
        """
        return await self._chain.difference(lambda names: self._fetches.ask(peer, names))

    async def serve(self, stream: Stream, peer: PeerId) -> None:
        """One stream's life. Raises RemoteError, DecodeError."""
        end = TalkEnd(stream, peer, self._chain, self._claims, self._fetches, self._clock, self._entropy.token(CHALLENGE_BYTES))
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
