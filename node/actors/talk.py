"""Ends of `/lading/ledger/1`: one for each peer that follows our chain, and who opens them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

import trio

from protocols.effects import Effect
from protocols.errors import ActorGone, DecodeError, LadingError, Reason, Refused, RemoteError, StoreFull, Undecided, Verdict
from protocols.gossip.spread import told_by
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
from .showing import show

log = logging.getLogger(__name__)

LEDGER_PROTOCOL = protocol_id("ledger")
EVENTS_MAX = 256
# Unhandled frames of the peer: a page of the largest blocks. Beyond it the reader waits.
EVENTS_BYTES_MAX = 8 * 1024 * 1024
SENDS_MAX = 64
# Hints for a peer that takes nothing; what is dropped comes again with the next beat or reconciliation.
HINTS_MAX = 128
REOPEN_S = 3.0
# What was made here is told at once. What others made most peers hear from there; the rest hear of it after this pause, all together:
# five nodes at 200 transactions a second said the same things four times before.
PASS_ON_PAUSE_S = 0.2
PASSED_ON_MAX = 16384
# A peer that was asked for a transaction or vote gives it within a round trip and what it has waiting; then another is asked.
ITEM_PATIENCE_S = 2.0
ITEM_OTHERS_MAX = 4
ITEMS_CLAIMED_MAX = 16384
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


class ItemClaims:
    """Which peer was asked for which transaction, or which vote: of several that announce one at the same time one gives it, and when
    it does not, the next."""

    def __init__(self) -> None:
        self._asked: dict[bytes, tuple[PeerId, float]] = {}
        self._others: dict[bytes, list[PeerId]] = {}

    def take(self, names: Sequence[bytes], peer: PeerId, now_s: float) -> tuple[bytes, ...]:
        """Those to ask this peer for now; for the rest it is the next to be asked."""
        found: list[bytes] = []
        for name in names:
            claim = self._asked.get(name)
            if claim is not None and claim[0] != peer:
                others = self._others.setdefault(name, [])
                if peer not in others and len(others) < ITEM_OTHERS_MAX:
                    others.append(peer)
                continue
            if claim is not None or len(self._asked) < ITEMS_CLAIMED_MAX:
                self._asked[name] = (peer, now_s + ITEM_PATIENCE_S)
            found.append(name)
        return tuple(found)

    def done(self, names: Iterable[bytes]) -> None:
        """These are here."""
        for name in names:
            self._asked.pop(name, None)
            self._others.pop(name, None)

    def overdue(self, now_s: float, gone: PeerId | None = None) -> dict[PeerId, tuple[bytes, ...]]:
        """What did not come in time, or was asked of a peer that is gone: by who is asked next. What nobody else announced is let go; it
        is asked for when it is announced again."""
        late = [name for name, (peer, until) in self._asked.items() if until <= now_s or peer == gone]
        again: dict[PeerId, list[bytes]] = {}
        for name in late:
            del self._asked[name]
            others = [peer for peer in self._others.pop(name, ()) if peer != gone]
            if others:
                self._asked[name] = (others[0], now_s + ITEM_PATIENCE_S)
                self._others[name] = others[1:]
                again.setdefault(others[0], []).append(name)
        return {peer: tuple(names) for peer, names in again.items()}


class Questions:
    """What this end asks of its peer with proofs: one question at a time."""

    def __init__(self, hint: Callable[[object], None]) -> None:
        """hint: gives the machine an event."""
        self._hint = hint
        self._turn = trio.Lock()
        self._asked: tuple[list[m.LightAnswer], trio.Event] | None = None
        self._is_over = False

    async def ask(self, question: m.LightQuestion, *, patience_s: float) -> m.LightAnswer:
        """In its turn. Raises Refused(UNREACHABLE)."""
        async with self._turn:
            if self._is_over or self._asked is not None:
                raise Refused(Reason.UNREACHABLE, "the peer does not answer")
            found: list[m.LightAnswer] = []
            done = trio.Event()
            self._asked = found, done
            self._hint(m.WantLight(question))
            with trio.move_on_after(patience_s):
                await done.wait()
            if not found:
                # Its answer may still come; until then, or until its stream ends for its silence, nothing else is asked of it.
                raise Refused(Reason.UNREACHABLE, "the peer does not answer")
            return found[0]

    def settle(self, answer: m.LightAnswer | None) -> None:
        """The answer to what was asked; None: there will be none."""
        if self._asked is not None:
            (found, done), self._asked = self._asked, None
            found += () if answer is None else (answer,)
            done.set()

    def end(self) -> None:
        """The stream is over."""
        self._is_over = True
        self.settle(None)


class TalkEnd:
    """Runs one stream."""

    def __init__(
        self,
        stream: Stream,
        peer: PeerId,
        chain: ChainActor,
        claims: Claims,
        items: tuple[ItemClaims, ItemClaims],
        fetches: StateFetch,
        clock: Clock,
        challenge: bytes,
        may_read: Callable[[PeerId], bool],
    ) -> None:
        """may_read: asked before every answer, since the state may say otherwise than when the stream began."""
        self.peer = peer
        self.is_open = False
        self._stream = stream
        self._may_read = may_read
        self.speaks_for: frozenset[AccountId] = frozenset()
        self._chain = chain
        self._claims = claims
        self._items = items
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
        self._passed_on: dict[bytes, None] = {}
        self._passed_votes: dict[bytes, None] = {}
        self._passed_block: Block | None = None
        self._head_moved = False
        self._some_passed_on = trio.Event()
        self.questions = Questions(self.hint)

    def may_go_on(self) -> bool:
        """False, and the stream is reset, where the peer may not read this chain, or no more."""
        if self._may_read(self.peer):
            return True
        log.info("conversation ended, the peer may not read this chain peer=%s", self.peer.hex()[-8:])
        self._stream.reset()
        return False

    def hint(self, event: object) -> None:
        """Something to tell the peer; the oldest are dropped for one that takes nothing."""
        if not self.may_go_on():
            return
        self._hints.append(event)
        self._some_hints.set()

    def pass_on(self, transactions: Iterable[bytes], votes: Iterable[bytes]) -> None:
        """Ids of what others brought: told together after a pause, in which most peers hear of them from where they were made."""
        for kept, names in ((self._passed_on, transactions), (self._passed_votes, votes)):
            kept.update(dict.fromkeys(names))
            while len(kept) > PASSED_ON_MAX:  # what is dropped is found by reconciling
                del kept[next(iter(kept))]
        self._some_passed_on.set()

    def pass_block_on(self, block: Block) -> None:
        """A block that another brought: after the pause, if this peer has not got there meanwhile."""
        self._passed_block = block
        self._some_passed_on.set()

    def head_moved(self) -> None:
        """Our head, or what is final: told once a pause."""
        self._head_moved = True
        self._some_passed_on.set()

    async def run(self) -> None:
        """Until the stream ends or the peer falls silent. Raises RemoteError, DecodeError when the peer breaks a rule."""
        try:
            await self._end.run(m.Opened(self._chain.chain, self._challenge), self._pass_hints, self._pass_on, self._beat_meanwhile)
        finally:
            self.questions.end()
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

    async def _pass_on(self) -> None:
        while True:
            await self._some_passed_on.wait()
            await trio.sleep(PASS_ON_PAUSE_S)
            if not self.may_go_on():
                return
            self._some_passed_on = trio.Event()
            if self._head_moved:
                self._head_moved = False
                await self._end.put(m.HeadMoved(*self._chain.checkpoints()))
            block, self._passed_block = self._passed_block, None
            theirs = self._machine.their_head
            if block is not None and (theirs is None or theirs.height < block.info.height):
                await self._end.put(m.Push(block))
            if self._passed_on or self._passed_votes:
                told = m.HaveItems(tuple(self._passed_on), tuple(self._passed_votes))
                self._passed_on, self._passed_votes = {}, {}
                await self._end.put(told)

    async def _perform(self, effect: Effect) -> object | None:
        if not self.may_go_on():
            return None
        chain = self._chain
        match effect:
            case m.DescribeHead():
                return m.HeadMoved(*chain.checkpoints())
            case m.DescribeItems():
                return m.HaveItems(*chain.item_ids())
            case m.FilterUnknown(transactions, votes):
                lacking, now = chain.lacking(transactions, votes), self._clock.monotonic()
                return m.Unknown(*(claims.take(names, self.peer, now) for claims, names in zip(self._items, lacking, strict=True)))
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
            case m.LoadState(at, nodes_at):
                return m.StateLoaded(*await chain.state_nodes(at, nodes_at))
            case m.DeliverState(nodes, lacking):
                await self._fetches.deliver(self.peer, nodes, lacking)
            case m.LoadLight(question):
                return m.LightLoaded(await show(chain, question))
            case m.DeliverLight(_, answer):
                self.questions.settle(answer)
            case m.DeliverItems(transactions, votes):
                self._items[0].done(one.id for one in transactions)
                self._items[1].done(m.vote_id(one) for one in votes)
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
        """Connected peers with which conversations about this chain are opened."""

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        """Raises StreamBroken."""

    async def drop(self, peer: PeerId, why: str, *, ban: bool = False) -> None: ...


class End(Protocol):
    """One stream's life."""

    is_open: bool

    async def run(self) -> None:
        """Raises RemoteError, DecodeError when the peer breaks a rule."""


E = TypeVar("E", bound=End)


class Ends(Generic[E]):
    """All streams. Of a pair the node with the smaller peer id opens the stream, and opens it again."""

    def __init__(self, own: PeerId, peers: TalkPeers, clock: Clock, entropy: Entropy, *, again_s: float = 0.0) -> None:
        """again_s: how long a peer with which no conversation came about is left alone."""
        self.ends: dict[PeerId, E] = {}
        self._own = own
        self._peers = peers
        self._entropy = entropy
        self._clock = clock
        self._opening: set[PeerId] = set()
        self._again_s = again_s
        self._left_alone: dict[PeerId, float] = {}  # until when

    def make(self, stream: Stream, peer: PeerId, challenge: bytes) -> E:
        """This node's end of a stream."""
        raise NotImplementedError

    async def tell(self) -> None:
        """Passes on what this node publishes, for ever."""
        raise NotImplementedError

    async def beat(self) -> None:
        """Every REOPEN_S."""

    async def keep_asking(self) -> None:
        """For what somebody announced and did not give, for ever."""

    def ask_others(self, gone: PeerId | None = None) -> None:
        """For what a peer that is gone, or that takes too long, was asked for."""

    def may_talk(self, peer: PeerId) -> bool:
        """Whether a conversation about the chain may begin with this peer."""
        return True

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self.tell)
            nursery.start_soon(self.keep_asking)
            while True:
                now = self._clock.monotonic()
                self._left_alone = {peer: until for peer, until in self._left_alone.items() if until > now}
                for peer in self._peers.partners():
                    if self._own < peer and self.may_talk(peer) and not {peer} & {*self.ends, *self._opening, *self._left_alone}:
                        self._opening.add(peer)
                        nursery.start_soon(self._open, peer)
                await trio.sleep(REOPEN_S)
                await self.beat()

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
        """One stream's life; one of a peer that may not read this chain is reset. Raises RemoteError, DecodeError."""
        if not self.may_talk(peer):
            stream.reset()
            return
        end = self.make(stream, peer, self._entropy.token(CHALLENGE_BYTES))
        self.ends[peer] = end
        try:
            await end.run()
        finally:
            if not end.is_open:
                self._left_alone[peer] = self._clock.monotonic() + self._again_s
            if self.ends.get(peer) is end:
                del self.ends[peer]
                self.ask_others(gone=peer)
            stream.reset()


class Talks(Ends[TalkEnd]):
    """Those of a node that has the chain."""

    def __init__(
        self,
        own: PeerId,
        chain: ChainActor,
        peers: TalkPeers,
        clock: Clock,
        entropy: Entropy,
        bus: Bus,
        *,
        again_s: float = 0.0,
        may_read: Callable[[PeerId], bool] = lambda _: True,
    ) -> None:
        """again_s: as of ``Ends``. may_read: whether a peer may, by the chain's profile."""
        super().__init__(own, peers, clock, entropy, again_s=again_s)
        self._chain = chain
        self._may_read = may_read
        self._bus = bus
        self._claims = Claims()
        self._items = (ItemClaims(), ItemClaims())  # of transactions, of votes
        self._fetches = StateFetch(chain, clock, self.ends)

    def make(self, stream: Stream, peer: PeerId, challenge: bytes) -> TalkEnd:
        return TalkEnd(stream, peer, self._chain, self._claims, self._items, self._fetches, self._clock, challenge, self._may_read)

    def may_talk(self, peer: PeerId) -> bool:
        return self._may_read(peer)

    async def beat(self) -> None:
        for end in list(self.ends.values()):
            end.may_go_on()
        await self._fetches.advance()

    async def difference(self, peer: PeerId) -> StateDifference | None:
        """The first key at which this node's state and a peer's differ after the block at which this node stopped; None when it has not.

        Raises Refused(UNREACHABLE | NOT_FOUND | CONFLICT).
        """
        return await self._chain.difference(lambda at, nodes: self._fetches.ask(peer, at, nodes))

    async def question(self, peer: PeerId, question: m.LightQuestion, *, patience_s: float) -> m.LightAnswer:
        """What a light node may ask, asked by a node that keeps the chain. Raises Refused(UNREACHABLE)."""
        end = self.ends.get(peer)
        if end is None:
            raise Refused(Reason.UNREACHABLE, "the peer is gone")
        return await end.questions.ask(question, patience_s=patience_s)

    async def drop(self, peer: PeerId, error: RemoteError) -> None:
        """The peer showed what no honest one shows."""
        log.warning("ledger peer dropped peer=%s why=%s", peer.hex()[-8:], error)
        await self._peers.drop(peer, str(error), ban=error.verdict is Verdict.BAN)

    async def keep_asking(self) -> None:
        while True:
            await trio.sleep(ITEM_PATIENCE_S / 2)
            self.ask_others()

    def ask_others(self, gone: PeerId | None = None) -> None:
        transactions, votes = (claims.overdue(self._clock.monotonic(), gone) for claims in self._items)
        for peer in transactions.keys() | votes.keys():
            end = self.ends.get(peer)
            if end is not None:  # what an end that is gone was to give it has let go itself
                end.hint(m.Unknown(*self._chain.lacking(transactions.get(peer, ()), votes.get(peer, ()))))

    async def tell(self) -> None:
        """What the chain publishes."""
        with self._bus.subscribe(HeadMovedTo, BlockFinal, ChainItems, BlockTaken, name="talks") as news:
            async for fact in news:
                near = told_by(self._own, self.ends)
                for end in list(self.ends.values()):
                    self._tell_one(end, fact, is_near=end.peer in near)

    def _tell_one(self, end: TalkEnd, fact: object, *, is_near: bool) -> None:
        match fact:
            case BlockTaken(block, None):
                if end.speaks_for:
                    end.hint(m.Push(block))
            case BlockTaken(block, source):
                if end.peer != source and end.speaks_for:
                    end.pass_block_on(block)
            case ChainItems(transactions, votes, None):
                if is_near or end.speaks_for:  # who seals or votes needs it most
                    end.hint(m.HaveItems(transactions, votes))
            case ChainItems(transactions, votes, source):
                if is_near and end.peer != source:
                    end.pass_on(transactions, votes)
            case _:
                end.head_moved()
