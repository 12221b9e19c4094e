"""A chain followed without keeping it: its newest final block, headers above that, and the values that this node asked for, each proven.

One task follows: it asks the peer that says most, checks by `protocols/ledger/light.py`, writes down, tells. Whoever needs a value asks
``bring`` first and reads it afterwards as on a full node. A peer that lies is dropped, one that has no answer is passed over for a while;
nothing is believed for having been said. The node's own transactions wait here and are announced until the state says that they are in.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol, TypeVar

import trio

from protocols.codec import decode
from protocols.crypto import SigningKey
from protocols.errors import (
    ActorGone,
    DecodeError,
    InvalidBlock,
    InvalidObject,
    Reason,
    Refused,
    RemoteError,
    StoreFull,
    Undecided,
    Verdict,
)
from protocols.ledger import light as rules
from protocols.ledger.block import Block, LightHeader
from protocols.ledger.carried import COMMITTEE, HASH
from protocols.ledger.checks import u64
from protocols.ledger.context import CHAIN, SEEN, Genesis
from protocols.ledger.envelope import Transaction, check_form
from protocols.ledger.genesis import apply_genesis
from protocols.ledger.light import COUNCIL_KEY, HeadBlock, Inclusion, Sealers, Trust
from protocols.ledger.machine import LightAnswer, LightQuestion
from protocols.ledger.messages import AskBundles, AskFinal, AskInclusion, AskProofs, Bundles, Final, Included, Proofs
from protocols.ledger.pool import Origin, Pool
from protocols.ledger.profile import Council, Profile
from protocols.ledger.seals.port import SealRule
from protocols.ledger.seals.table import SEALS
from protocols.ledger.state import Key
from protocols.ledger.sync import HeaderRow, header_row
from protocols.ledger.terms import MINER, TERM, TIP, Miner, Term, Tip
from protocols.ledger.transactions.chain_genesis import WORK
from protocols.ledger.transactions.records import RECORD, RecordState
from protocols.ledger.transition import slot_of, slot_start_ms
from protocols.ledger.votes import Checkpoint
from protocols.ledger.work import WorkState
from protocols.limits import HEARTBEAT_MS, LIGHT_KEYS_PER_MESSAGE_MAX
from protocols.types import BlockHash, ChainId, PeerId, TxId
from storage import chain as store
from storage import light as kept
from storage.engine import Snapshot, Write

from ..bus import Bus
from ..clock import Clock
from .chain import BlockFinal, ChainItems, ChainKeys, HeadFacts, HeadMovedTo
from .storage import StorageHandle

log = logging.getLogger(__name__)
T = TypeVar("T")

# A look without news, for what failed.
LOOK_S = 3.0
# A peer that answers nothing for so long is passed over; below the patience after which its conversation ends.
PATIENCE_S = 6.0
# Whoever had no answer, or a final block that it could not show, is asked again after so long, or when nobody else is there.
PASSED_OVER_S = 30.0
# Questions in a row to come up to the newest committee: so many times LIGHT_SUCCESSIONS_MAX changes.
ROUNDS_MAX = 64
# Generations of committees that are asked for at the anchor.
GENERATIONS_MAX = 64 * LIGHT_KEYS_PER_MESSAGE_MAX
# Blocks above the final one that are followed. Where finality stands still what comes is in a block no longer seen.
HEAD_BLOCKS_MAX = 256
# A chain says something every heartbeat; after three of them without a final block somebody should look.
STALE_MS = 3 * HEARTBEAT_MS
BEGIN_PATIENCE_S = 60.0
KEYS_REMEMBERED_MAX = 65536
_CHAIN_KEYS: tuple[Key, ...] = ((CHAIN, b"profile"), (CHAIN, b"genesis"), COUNCIL_KEY, (CHAIN, b"policy"))


class LightEnds(Protocol):
    """What the follower needs of the conversations."""

    def heads(self) -> Mapping[PeerId, tuple[Checkpoint, Checkpoint]]:
        """Head and final block that each peer says it has."""

    async def ask(self, peer: PeerId, question: LightQuestion, *, patience_s: float) -> LightAnswer:
        """In its turn. Raises Refused(UNREACHABLE): gone or silent."""

    def want_block(self, peer: PeerId, name: BlockHash) -> None:
        """Asks for a whole block, which comes to ``LightChain.take_first``."""

    async def drop(self, peer: PeerId, why: str, *, ban: bool) -> None: ...


@dataclass(frozen=True, slots=True)
class _Base:
    """What the state after the final block says that is needed to follow its chain."""

    profile: Profile
    genesis_ms: int
    council: Council
    sealers: Sealers


class LightChain:
    """See the module."""

    def __init__(
        self,
        chain: ChainId,
        anchor: Checkpoint | None,
        genesis: Block | None,
        keys: ChainKeys,
        ledger: StorageHandle,
        clock: Clock,
        bus: Bus,
    ) -> None:
        """anchor: a final block that this node was told of; at height 0 the chain's id alone says which is the first block."""
        self.chain = chain
        self.keys = keys
        self.trust: Trust | None = None
        self.head: tuple[HeadBlock, ...] = ()
        self.facts: HeadFacts | None = None
        self.pool = Pool()
        self.alerts: dict[str, str] = {}
        self.stopped = False
        self.ends: LightEnds
        self._anchor = anchor
        self._first = genesis
        self._ledger = ledger
        self._clock = clock
        self._bus = bus
        self._base: _Base | None = None
        self._proven: dict[Key, int] = {}
        """Height of the final block at which a key was last proven."""
        self._at_head: dict[Key, BlockHash] = {}
        """Records that stand here as a head has them, and which."""
        self._seen_at_head: dict[Key, BlockHash] = {}
        """Head at which a record was last looked at."""
        self._passed_over: dict[PeerId, float] = {}
        self._some_news = trio.Event()
        self._lock = trio.Lock()
        self._since = 0.0
        self._loaded = trio.Event()

    # --- what others may look at --------------------------------------------------------------------------------------

    def now_ms(self) -> int:
        """The time of this machine: a light node has no word in network time."""
        return int(self._clock.now() * 1000)

    def checkpoints(self) -> tuple[Checkpoint, Checkpoint]:
        """Head and latest final block, as far as they were proven; height 0 and zeros before anything was."""
        if self.trust is None:
            nothing = Checkpoint(0, BlockHash(bytes(32)))
            return nothing, nothing
        final = self.trust.checkpoint
        return (self.head[-1].checkpoint if self.head else final), final

    def final_slot(self) -> int | None:
        """Slot of the latest final block; None before there is one."""
        return None if self.trust is None else self.trust.row.info.slot

    @property
    def keeps_state(self) -> bool:
        """It keeps what was asked for."""
        return False

    @property
    def headers(self) -> int:
        """Headers that are here: the final block's and those above it."""
        return 0 if self.trust is None else 1 + len(self.head)

    def row_of(self, name: bytes) -> HeaderRow | None:
        """Header of the final block or one above it."""
        if self.trust is not None and self.trust.checkpoint.hash == name:
            return self.trust.row
        return next((one.row for one in self.head if one.hash == name), None)

    def rows(self) -> tuple[HeaderRow, ...]:
        """All headers that are here, oldest first."""
        return () if self.trust is None else (self.trust.row, *(one.row for one in self.head))

    def waiting(self) -> tuple[bytes, ...]:
        """Ids of own transactions that are not known to be final."""
        return tuple(one.id for one in self.pool.list(Origin.OUTBOUND))

    def items(self, names: Collection[bytes]) -> tuple[Transaction, ...]:
        """Own transactions of these ids that still wait."""
        return tuple(one for one in (self.pool.get(TxId(name)) for name in names) if one is not None)

    async def plan(self, read: Callable[[Snapshot], T]) -> T:
        """What somebody makes of the proven values, in a pool thread."""
        return await self._ledger.read(read)

    def wake(self) -> None:
        """There may be something to ask."""
        self._some_news.set()

    # --- verbs --------------------------------------------------------------------------------------------------------

    async def loaded(self) -> None:
        """What was kept has been read."""
        await self._loaded.wait()

    async def submit(self, transaction: Transaction) -> TxId:
        """A transaction made here: durable, and told until it is final. Raises InvalidTransaction, Refused(QUOTA | WRONG_CHAIN)."""
        check_form(transaction)
        if transaction.content.chain != self.chain:
            raise Refused(Reason.WRONG_CHAIN, "a transaction of another chain")
        self.pool.offer(transaction, Origin.OUTBOUND)
        await self._ledger.write([store.put_own(transaction)])
        self._bus.publish(ChainItems((transaction.id,), (), None))
        return transaction.id

    async def make_key(self, what: Literal["vote", "seal"], salt: bytes) -> SigningKey:
        """Raises Refused(NOT_KEPT)."""
        raise Refused(Reason.NOT_KEPT, "this node is light: it neither votes nor seals", hint="do it at the member's full node")

    async def bring(self, keys: Collection[Key], *, is_fresh: bool = True) -> None:
        """Makes sure that these keys stand here as the state after the final block has them; records also as the head has them, as long as
        they are not final. is_fresh: by the newest final block that is known here, else by any.

        Raises Refused(UNREACHABLE) when nobody proves them now.
        """
        trust = self.trust
        if trust is None:
            raise Refused(
                Reason.UNREACHABLE, "no final block of the chain is known here yet", hint="it is asked of the others: lading peers"
            )
        since = trust.checkpoint.height if is_fresh else 0
        wanted = [key for key in dict.fromkeys(keys) if self._proven.get(key, -1) < since]
        for start in range(0, len(wanted), LIGHT_KEYS_PER_MESSAGE_MAX):
            await self._bring_final(trust, wanted[start : start + LIGHT_KEYS_PER_MESSAGE_MAX])
        records = [key for key in dict.fromkeys(keys) if key[0] == RECORD] if is_fresh else []
        await self._bring_head(trust, records)

    async def where(self, transaction: bytes, block_ms: int) -> Inclusion | None:
        """The block that carries an anchor, and its place there: kept here, or asked for; None while nobody shows it.

        block_ms: the block's time, as the record says. Kept only of blocks that the final state names.
        """
        facts, trust = self.facts, self.trust
        found = self._ledger.peek(lambda snapshot: kept.inclusion(snapshot, transaction))
        if found is not None or facts is None or trust is None:
            return found
        slot = slot_of(block_ms, genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms)
        for peer in self._peers():
            answer = await self._ask(peer, AskInclusion(max(0, slot), transaction))
            if not isinstance(answer, Included) or not answer.found:
                continue
            try:
                one = answer.found[0]
                name = rules.check_inclusion(one, self.chain, self._seal(), transaction)
                place = Checkpoint(one.row.info.height, name)
                if place != trust.checkpoint:  # whose own hash its state does not know
                    values = await self._prove(trust.row, [(HASH, u64(place.height))])
                    if not rules.is_on_chain(values, place):
                        continue
            except RemoteError as error:
                await self._drop(peer, error)
                continue
            await self._ledger.write([kept.put_inclusion(one)])
            return one
        return None

    def take_first(self, peer: PeerId, block: Block) -> None:
        """The chain's first block, unchecked. Raises RemoteError."""
        if self.trust is None and self._first is None and block.info.height == 0:
            if block.info.chain != self.chain:
                raise RemoteError(Reason.WRONG_CHAIN, "the first block of another chain")
            try:
                apply_genesis(block)
            except (InvalidBlock, DecodeError) as error:
                raise RemoteError(error.reason, f"first block: {error.message}", verdict=Verdict.BAN) from error
            except Undecided as error:
                self.alerts["rules"] = error.message
                return
            self._first = block
            self.wake()

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled."""
        await self._load()
        while True:
            self._some_news = trio.Event()
            try:
                async with self._lock:
                    await self._look()
            except (StoreFull, ActorGone, Refused) as error:
                log.debug("chain not followed now error=%s", error)
            with trio.move_on_after(LOOK_S):
                await self._some_news.wait()

    async def _load(self) -> None:
        def read(snapshot: Snapshot) -> tuple[list[Write], tuple[Trust | None, tuple[Transaction, ...]]]:
            writes, trust = kept.enter(snapshot)
            return writes, (trust, store.own_transactions(snapshot))

        self.trust, own = await self._ledger.transact(read)
        self.pool, self.head, self._base, self.facts = Pool(), (), None, None
        self._proven, self._at_head, self._seen_at_head, self._passed_over = {}, {}, {}, {}
        for transaction in own:
            try:
                self.pool.offer(transaction, Origin.OUTBOUND)
            except Refused:  # the rest is offered when these are in
                break
        self._since = self._clock.monotonic()
        self._read_base()
        await self._sweep()
        self._loaded.set()

    async def _sweep(self) -> None:
        """Records as a head had them that may be no more: they are proven anew."""
        final_ms = self._final_ms()

        def write(snapshot: Snapshot) -> tuple[list[Write], None]:
            view = store.ChainState(snapshot)
            gone: dict[Key, bytes | None] = {}
            start, page = b"", view.scan(RECORD, b"", 512)
            while page:
                for key, value in page:
                    if decode(value, RecordState).block_ms > final_ms:
                        gone[RECORD, key] = None
                start = page[-1][0] + b"\0"
                page = view.scan(RECORD, start, 512)
            return kept.put_values(gone), None

        await self._ledger.transact(write)

    def _final_ms(self) -> int:
        if self.trust is None or self.facts is None:
            return -1
        return slot_start_ms(self.trust.row.info.slot, genesis_ms=self.facts.genesis_ms, slot_ms=self.facts.profile.slot_ms)

    def _seal(self) -> SealRule | None:
        """None until the profile is known: work is then left to those who voted."""
        return None if self.facts is None else SEALS[self.facts.profile.seal]

    # --- following ----------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        if self.stopped:
            return
        if self.trust is None:
            await self._begin()
        if self.trust is not None:
            await self._follow_final()
            if self._base is None:
                await self._bring_base(self.trust)
            await self._follow_head()
        self._tell_alerts()

    def _peers(self, *, least_final: int = 0) -> list[PeerId]:
        """Whom to ask, who says most first; those that failed us lately last."""
        now = self._clock.monotonic()
        self._passed_over = {peer: until for peer, until in self._passed_over.items() if until > now}
        heads = {peer: said for peer, said in self.ends.heads().items() if any(said[0].hash) and said[1].height >= least_final}
        return sorted(heads, key=lambda peer: (peer in self._passed_over, -heads[peer][1].height, peer))

    async def _ask(self, peer: PeerId, question: LightQuestion) -> LightAnswer | None:
        """None for a peer that does not answer, which is passed over then."""
        try:
            return await self.ends.ask(peer, question, patience_s=PATIENCE_S)
        except Refused:
            self._pass_over(peer)
            return None

    def _pass_over(self, peer: PeerId) -> None:
        self._passed_over[peer] = self._clock.monotonic() + PASSED_OVER_S

    async def _drop(self, peer: PeerId, error: RemoteError) -> None:
        log.warning("a peer lied to a light node peer=%s why=%s", peer.hex()[-8:], error)
        self._pass_over(peer)
        await self.ends.drop(peer, str(error), ban=error.verdict is Verdict.BAN)

    async def _begin(self) -> None:
        """At the first block, or at the anchor, with what its state says."""
        anchor = self._anchor
        if self._first is not None or anchor is None or anchor.height == 0:
            if self._first is None:
                for peer in self._peers():
                    if anchor is not None and any(anchor.hash):
                        self.ends.want_block(peer, anchor.hash)
                return
            applied = apply_genesis(self._first)
            values: dict[Key, bytes | None] = {key: value for key, value in applied.change.values.items() if key[0] in _OF_FIRST}
            await self._stand_on(Trust(header_row(self._first), applied.committee), values)
            return
        for peer in self._peers():
            answer = await self._ask(peer, AskBundles(anchor.hash, after=False))
            if not isinstance(answer, Bundles) or not answer.bundles:
                self._pass_over(peer)
                continue
            bundle = answer.bundles[0]
            row = HeaderRow(bundle.header, bundle.info, bundle.path)
            try:
                rules.check_anchor(row, anchor, self.chain)
            except RemoteError as error:
                await self._drop(peer, error)
                continue
            values = await self._prove(row, _CHAIN_KEYS)
            committees: dict[Key, bytes | None] = {}
            for start in range(0, GENERATIONS_MAX, LIGHT_KEYS_PER_MESSAGE_MAX):
                committees |= await self._prove(row, [(COMMITTEE, u64(start + at)) for at in range(LIGHT_KEYS_PER_MESSAGE_MAX)])
                committee = rules.first_committee(committees)
                if committee is not None:
                    await self._stand_on(Trust(row, committee), values)
                    return

    async def _stand_on(self, trust: Trust, values: Mapping[Key, bytes | None], more: Sequence[Write] = ()) -> None:
        """The final block that this node goes by from now on: durable, then told."""
        await self._ledger.write([*kept.put_values(values), kept.put_trust(trust), *more])
        self.trust, self._base = trust, None
        self._at_head, self._seen_at_head = {}, {}
        self._proven.update(dict.fromkeys(values, trust.checkpoint.height))
        self.head = tuple(one for one in self.head if one.row.info.height > trust.checkpoint.height)
        self._since = self._clock.monotonic()
        self._read_base()
        self._bus.publish(BlockFinal(*_both(trust.checkpoint)))
        self._tell_head()

    def _tell_head(self) -> None:
        head, final = self.checkpoints()
        if self.facts is not None and self.trust is not None:
            slot = self.head[-1].row.info.slot if self.head else self.trust.row.info.slot
            self.facts = HeadFacts(self.facts.profile, self.facts.genesis_ms, slot, frozenset(), {}, None, frozenset())
        self._bus.publish(HeadMovedTo(head, final))

    async def _follow_final(self) -> None:
        """The newest final block that somebody can show. A peer that says more than it shows is passed over, whatever it says."""
        for peer in self._peers(least_final=1):
            trust = self.trust
            assert trust is not None
            heads = self.ends.heads()
            if peer not in heads or heads[peer][1].height <= trust.checkpoint.height:
                continue
            try:
                found = await self._ask_final(peer, trust)
            except RemoteError as error:
                await self._drop(peer, error)
            except InvalidObject as error:
                self.stopped = True
                self.alerts["conflict"] = f"{error.message}: this node follows no more; the committee is broken"
                log.error("finality is broken error=%s", error)
                return
            else:
                if found is None:
                    self._pass_over(peer)
                else:
                    await self._adopt(trust, found)

    async def _ask_final(self, peer: PeerId, trust: Trust) -> Trust | None:
        """What the peer shows above our final block. Raises RemoteError, InvalidObject(CONFLICT)."""
        council = self._council()
        found, at = None, trust
        for _ in range(ROUNDS_MAX):
            answer = await self._ask(peer, AskFinal(trust.checkpoint.height, at.committee.generation))
            if not isinstance(answer, Final) or not (answer.successions or answer.link):
                return None
            at = rules.advance(at, answer.successions, answer.link, self.chain, self._seal(), council)
            if answer.successions:
                council = decode(answer.successions[-1].council.value or b"", Council)
            if answer.link:
                found = at if at.checkpoint.height > trust.checkpoint.height else None
                break
        return found

    def _council(self) -> Council | None:
        value = self._ledger.peek(lambda snapshot: kept.value(snapshot, COUNCIL_KEY))
        return None if value is None else decode(value, Council)

    async def _adopt(self, before: Trust, trust: Trust) -> None:
        """A later final block: what its state says of the chain and of our own transactions comes with it, in one commit."""
        own = [one.id for one in self.pool.list(Origin.OUTBOUND)]
        seen: list[Key] = [(SEEN, name) for name in own]
        behind: Key = (HASH, u64(before.checkpoint.height))
        keys = [*_CHAIN_KEYS, *rules.sealer_keys(trust.row), behind]
        values = await self._prove(trust.row, keys)
        if rules.is_on_chain(values, before.checkpoint) is False:
            self.stopped = True
            self.alerts["conflict"] = (
                f"the final block at height {before.checkpoint.height} is on no chain any more: this node follows no more"
            )
            log.error("two final blocks that exclude each other height=%d", before.checkpoint.height)
            return
        del values[behind]
        for start in range(0, len(seen), LIGHT_KEYS_PER_MESSAGE_MAX):
            values |= await self._prove(trust.row, seen[start : start + LIGHT_KEYS_PER_MESSAGE_MAX])
        genesis = decode(values[CHAIN, b"genesis"] or b"", Genesis)
        profile = decode(values[CHAIN, b"profile"] or b"", Profile)
        final_ms = slot_start_ms(trust.row.info.slot, genesis_ms=genesis.time_ms, slot_ms=profile.slot_ms)
        done = {TxId(key[1]) for key in seen if values.pop(key) is not None}
        done |= {one.id for one in self.pool.list(Origin.OUTBOUND) if one.transaction.content.until_ms < final_ms}
        gone: dict[Key, bytes | None] = dict.fromkeys(self._at_head)
        if before.row.info.term != trust.row.info.term:
            gone[TERM, u64(before.row.info.term)] = None
        await self._stand_on(trust, gone | values, [store.drop_own(name) for name in sorted(done)])
        for key in gone:
            self._proven.pop(key, None)
        self.pool.included(done)
        await self._bring_base(trust)

    async def _bring_base(self, trust: Trust) -> None:
        """Who may seal on top of the final block, by its state; without it the head is not followed, and finality goes on."""
        keys = [*_CHAIN_KEYS, *rules.sealer_keys(trust.row)]
        missing = [key for key in keys if self._proven.get(key, -1) < trust.checkpoint.height]
        if missing:
            values = await self._prove(trust.row, missing)
            await self._keep(trust, values)
        value = self._ledger.peek(lambda snapshot: kept.value(snapshot, (TERM, u64(trust.row.info.term))))
        if value is not None:
            miners: list[Key] = [(MINER, name) for name in decode(value, Term).miners]
            for start in range(0, len(miners), LIGHT_KEYS_PER_MESSAGE_MAX):
                part = [key for key in miners[start : start + LIGHT_KEYS_PER_MESSAGE_MAX] if self._proven.get(key, -1) < 0]
                if part:
                    await self._keep(trust, await self._prove(trust.row, part))
        self._read_base()

    async def _keep(self, trust: Trust, values: Mapping[Key, bytes | None]) -> None:
        await self._ledger.write(kept.put_values(values))
        if len(self._proven) > KEYS_REMEMBERED_MAX:
            self._proven = {}
        self._proven.update(dict.fromkeys(values, trust.checkpoint.height))

    def _read_base(self) -> None:
        """From what is kept; facts stand as soon as the profile is known."""
        trust = self.trust
        if trust is None:
            return
        term_key: Key = (TERM, u64(trust.row.info.term))

        def read(snapshot: Snapshot) -> dict[Key, bytes | None]:
            found = {key: kept.value(snapshot, key) for key in (*_CHAIN_KEYS, (TIP, b""), (WORK, b""), term_key)}
            term = found[term_key]
            names = () if term is None else decode(term, Term).miners
            return found | {(MINER, name): kept.value(snapshot, (MINER, name)) for name in names}

        values = self._ledger.peek(read)
        profile, genesis = values[CHAIN, b"profile"], values[CHAIN, b"genesis"]
        if profile is None or genesis is None:
            return
        known, start = decode(profile, Profile), decode(genesis, Genesis)
        if self.facts is None:
            self.facts = HeadFacts(known, start.time_ms, trust.row.info.slot, frozenset(), {}, None, frozenset())
        tip, work, term, council = values[TIP, b""], values[WORK, b""], values[term_key], values[COUNCIL_KEY]
        if tip is None or work is None or term is None or council is None or decode(tip, Tip).height != trust.row.info.height:
            return
        miners = [decode(value, Miner) for (space, _), value in values.items() if space == MINER and value is not None]
        sealers = Sealers(
            known,
            start.time_ms,
            decode(tip, Tip),
            decode(term, Term),
            {miner.account: miner.key for miner in miners},
            int.from_bytes(decode(work, WorkState).target, "big"),
        )
        self._base = _Base(known, start.time_ms, decode(council, Council), sealers)

    async def _follow_head(self) -> None:
        """Headers on top of the final block, of the peer whose chain of them is best. A head that cannot be judged is nobody's fault."""
        trust, base = self.trust, self._base
        if trust is None or base is None:
            return
        known = {self.checkpoints()[0].hash}
        for peer in self._peers():
            said = self.ends.heads().get(peer)
            if said is None or said[0].hash in known or said[0].height <= trust.checkpoint.height:
                continue
            known.add(said[0].hash)
            try:
                found = await self._ask_head(peer, trust, base)
            except RemoteError as error:
                await self._drop(peer, error)
                continue
            if found and (
                not self.head or self.head[0].row.info.height <= trust.checkpoint.height or found[-1].order < self.head[-1].order
            ):
                self.head = found
                self._tell_head()

    async def _ask_head(self, peer: PeerId, trust: Trust, base: _Base) -> tuple[HeadBlock, ...]:
        bundles: list[LightHeader] = []
        found: tuple[HeadBlock, ...] = ()
        at = trust.checkpoint.hash
        while len(bundles) < HEAD_BLOCKS_MAX:
            answer = await self._ask(peer, AskBundles(at, after=True))
            if not isinstance(answer, Bundles) or not answer.bundles:
                break
            bundles += answer.bundles
            try:
                found = rules.follow(bundles, trust, base.sealers, self.chain, now_ms=self.now_ms())
            except Undecided as error:
                if error.reason is not Reason.TOO_EARLY:  # a key that was rotated meanwhile: it is asked for again
                    self._proven = {key: height for key, height in self._proven.items() if key[0] != MINER}
                break
            if len(found) < len(bundles):
                break
            at = found[-1].hash
        return found

    # --- values -------------------------------------------------------------------------------------------------------

    async def _prove(self, row: HeaderRow, keys: Sequence[Key]) -> dict[Key, bytes | None]:
        """What stands at all of these keys after a block, by whoever proves it. Raises Refused(UNREACHABLE)."""
        name = rules.name_of(row, self.chain, None)
        found: dict[Key, bytes | None] = {}
        for peer in self._peers():
            while missing := [key for key in keys if key not in found]:
                answer = await self._ask(peer, AskProofs(name, tuple(missing[:LIGHT_KEYS_PER_MESSAGE_MAX])))
                if not isinstance(answer, Proofs) or not answer.values:
                    if answer is not None:
                        self._pass_over(peer)
                    break
                try:
                    found |= rules.check_values(row.info.state_root, missing, answer.values)
                except RemoteError as error:
                    await self._drop(peer, error)
                    break
            if len(found) == len(set(keys)):
                return found
        raise Refused(
            Reason.UNREACHABLE,
            "no node that keeps the chain proves this now",
            hint="a full node of the domain must be connected: lading peers",
        )

    async def _bring_final(self, trust: Trust, keys: Sequence[Key]) -> None:
        values = await self._prove(trust.row, keys)
        if self.trust is trust:
            await self._keep(trust, values)
            return
        # A later block became final meanwhile: what is older is not written over what came with it.
        fresh = {key: value for key, value in values.items() if self._proven.get(key, -1) < trust.checkpoint.height}
        await self._keep(trust, fresh)

    async def _bring_head(self, trust: Trust, records: Sequence[Key]) -> None:
        """Records that are newer at the head than at the final block. A sealer may lie about them: they are *in a block*, no more, and what
        looks older than it can be is not taken."""
        head = self.head[-1] if self.head else None
        if head is None or head.row.info.height <= trust.checkpoint.height:
            return
        wanted = [key for key in records if self._seen_at_head.get(key) != head.hash]
        final_ms = self._final_ms()
        for start in range(0, len(wanted), LIGHT_KEYS_PER_MESSAGE_MAX):
            part = wanted[start : start + LIGHT_KEYS_PER_MESSAGE_MAX]
            try:
                values = await self._prove(head.row, part)
            except Refused:  # the head has moved on
                return
            if self.trust is not trust or not self.head or self.head[-1].hash != head.hash:
                return
            newer = {key: value for key, value in values.items() if value is not None and _is_newer(value, final_ms)}
            await self._ledger.write(kept.put_values(newer))
            self._at_head.update(dict.fromkeys(newer, head.hash))
            self._seen_at_head.update(dict.fromkeys(part, head.hash))

    # --- for people ---------------------------------------------------------------------------------------------------

    def _tell_alerts(self) -> None:
        for name in ("begin", "stale"):
            self.alerts.pop(name, None)
        waited_s = self._clock.monotonic() - self._since
        if self.trust is None and waited_s > BEGIN_PATIENCE_S:
            self.alerts["begin"] = (
                "no node shows the state of the final block that this one was told of; a start with ledger = full fetches the chain once"
            )
        elif self.trust is not None and self.now_ms() - self._final_ms() > STALE_MS and waited_s * 1000 > STALE_MS:
            self.alerts["stale"] = "nobody has shown a new final block for long: the chain stands still, or this node is cut off from it"


_OF_FIRST = frozenset({CHAIN, TIP, TERM, WORK, MINER})


def _is_newer(value: bytes, final_ms: int) -> bool:
    try:
        return decode(value, RecordState).block_ms > final_ms
    except DecodeError:
        return False


def _both(point: Checkpoint) -> tuple[int, BlockHash]:
    return point.height, point.hash
