"""The chain's one owner: judges and keeps blocks, follows the head, keeps the pool, votes.

What comes from peers, from this node's sealer and from its people passes the same mailbox. One batch: blocks are judged in a pool thread
on a snapshot and committed, then fork choice follows, finality is written down, the state is taken to the head, and last a vote is made:
its promise on the disk first. Only then are answers given and others told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

from protocols.crypto import SigningKey
from protocols.errors import (
    InvalidBlock,
    InvalidObject,
    InvalidTransaction,
    LadingError,
    LocalError,
    Reason,
    Refused,
    RemoteError,
    StoreDamaged,
    Undecided,
    Verdict,
)
from protocols.ledger.alive import Witness, check_alive, sign_alive
from protocols.ledger.block import Block, check_block_form
from protocols.ledger.committee import Committee
from protocols.ledger.conditions import next_due_ms
from protocols.ledger.context import genesis_time_ms, load_profile
from protocols.ledger.envelope import Transaction
from protocols.ledger.finality import BlockPoint, ForkTree
from protocols.ledger.machine import vote_id
from protocols.ledger.pool import MAY_BECOME_VALID, Origin, Pool
from protocols.ledger.profile import Profile
from protocols.ledger.sealing import has_quorum, is_timely
from protocols.ledger.state import Overlay
from protocols.ledger.sync import HeaderRow, header_row, locator_heights
from protocols.ledger.terms import MINER, Miner
from protocols.ledger.transition import check_arrival, check_transaction, next_term, slot_of, slot_start_ms
from protocols.ledger.votes import Checkpoint, Vote, check_vote, promise_seal, sign_vote
from protocols.limits import (
    BLOCKS_PER_SLOT_ASKED_MAX,
    BLOCKS_PER_SLOT_MAX,
    EARLY_BLOCKS_MAX,
    HEADERS_PER_PAGE_MAX,
    HEARD_WITHIN_MS,
    LISTEN_FIRST_MS,
    SLOTS_WITHOUT_PROMISE,
    VOTE_AHEAD_MAX,
    VOTES_PER_MEMBER_MAX,
)
from protocols.types import AccountId, BlockHash, ChainId, PeerId, TxId
from storage import chain as store
from storage.engine import Snapshot, Write
from storage.overlay import Overlay as StorageOverlay

from ..actor import Actor, Reply
from ..bus import Bus
from ..clock import Clock
from ..offload import Offload
from ..promises import Kept, PromiseStore, lost
from .storage import StorageHandle

log = logging.getLogger(__name__)
T = TypeVar("T")

# A transaction that was refused is not fetched again from the next who announces it.
REFUSED_KEPT_MAX = 4096
# What signatures are to blame for says nothing of the id, which another set of them may carry rightly: a relay could spoil it else.
OF_SIGNATURES = frozenset({Reason.NOT_SIGNED, Reason.UNEXPECTED_SIGNER, Reason.BAD_BODY})
BAN_REASONS = frozenset({Reason.BAD_SEAL, Reason.WORK, Reason.NONCE, Reason.STATE_ROOT, Reason.MERKLE_ROOT, Reason.BAD_SIGNATURE})


# --- what is told upward ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeadMovedTo:
    """The head is another block; durable."""

    head: Checkpoint
    final: Checkpoint


@dataclass(frozen=True, slots=True)
class BlockFinal:
    """A block became final; durable."""

    height: int
    hash: BlockHash


@dataclass(frozen=True, slots=True)
class ChainItems:
    """Transactions and votes that were taken: what others are told. source: who brought them, None for our own."""

    transactions: tuple[bytes, ...]
    votes: tuple[bytes, ...]
    source: PeerId | None


@dataclass(frozen=True, slots=True)
class BlockTaken:
    """A new block that came just now, for those who seal and vote. source: who brought it, None for our own."""

    block: Block
    source: PeerId | None


# --- what is asked ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TakeBlock:
    """Answer: None when it is kept, was known, or is held until its time. Raises Undecided, RemoteError. eager: it was made just now."""

    block: Block
    source: PeerId | None
    eager: bool
    reply: Reply[None] | None


@dataclass(frozen=True, slots=True)
class TakeItems:
    """From a peer, unchecked. Answer: None; raises RemoteError for what no honest peer sends."""

    transactions: tuple[Transaction, ...]
    votes: tuple[Vote, ...]
    source: PeerId
    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class Submit:
    """A transaction made here. Raises InvalidTransaction, Refused(QUOTA)."""

    transaction: Transaction
    reply: Reply[TxId]


@dataclass(frozen=True, slots=True)
class SlotBegan:
    """Time went on: what was early is judged again, and a vote may be due."""

    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class PromiseSeal:
    """Binds this node to seal nothing else in this slot. Answer: durable. Raises Refused(PROMISED)."""

    slot: int
    reply: Reply[None]


ChainMessage = TakeBlock | TakeItems | Submit | SlotBegan | PromiseSeal


@dataclass(frozen=True, slots=True)
class ChainKeys:
    """What this node seals and votes with, as one account. reveal: secret of its chains of reveals, 32 bytes."""

    account: AccountId
    seal: SigningKey | None = None
    vote: SigningKey | None = None
    reveal: bytes = b""


@dataclass(frozen=True, slots=True)
class ChainSetup:
    """What a node needs to follow a chain. genesis: None fetches the first block from peers, which the chain's id is enough to check."""

    chain: ChainId
    genesis: Block | None
    keys: ChainKeys
    promises: PromiseStore


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """What the state at the head says, for the loop: read once for each head."""

    profile: Profile
    genesis_ms: int
    slot: int
    miners: frozenset[AccountId]
    keys: Mapping[AccountId, frozenset[bytes]]
    due_ms: int | None


@dataclass(frozen=True, slots=True)
class _KeptChain:
    """What the tables hold. blocks: the final one, then all above it, lowest first; none before genesis is known."""

    blocks: tuple[tuple[BlockHash, store.BlockRow], ...]
    votes: tuple[Vote, ...]
    own: tuple[Transaction, ...]
    at: BlockHash | None


def _read_chain(snapshot: Snapshot) -> _KeptChain:
    """In a pool thread."""
    final = store.final_block(snapshot)
    blocks: list[tuple[BlockHash, store.BlockRow]] = []
    if final is not None:
        row = store.row(snapshot, final)
        if row is None:
            raise StoreDamaged("the final block has no row")
        blocks = [(final, row), *store.blocks_from(snapshot, row.height + 1)]
    return _KeptChain(tuple(blocks), store.votes(snapshot), store.own_transactions(snapshot), store.state_at(snapshot))


class ChainActor(Actor[ChainMessage]):
    """Owns the chain tables of the ledger environment, the fork tree, the pool and the promises."""

    def __init__(
        self,
        chain: ChainId,
        genesis: Block | None,
        keys: ChainKeys,
        storage: StorageHandle,
        promises: PromiseStore,
        clock: Clock,
        bus: Bus,
        offload: Offload,
    ) -> None:
        super().__init__("chain")
        self.chain = chain
        self.keys = keys
        self.tree: ForkTree | None = None
        self.facts: HeadFacts | None = None
        self.pool = Pool()
        self.votes: dict[bytes, Vote] = {}
        self.alerts: dict[str, str] = {}
        self.quorum_since_height = 0
        self.sealed_ms: int | None = None
        self._genesis = genesis
        self._storage = storage
        self._promise_store = promises
        self._clock = clock
        self._bus = bus
        self._offload = offload
        self._kept: Kept = lost(chain)
        self._kept_is_news = False
        self._rows: dict[BlockHash, store.BlockRow] = {}  # of the blocks in the tree
        self._unsettled: list[BlockPoint] = []
        self._at: BlockHash | None = None
        self._head: BlockHash | None = None
        self._received_ms: dict[BlockHash, int] = {}
        self._heard_ms: dict[AccountId, int] = {}
        self._heard_quorum = False
        self._own: set[TxId] = set()
        self._refused: dict[bytes, None] = {}
        self._early: dict[BlockHash, TakeBlock] = {}
        self._started_ms = 0
        self._blocks: list[TakeBlock] = []
        self._items: list[TakeItems] = []
        self._submits: list[Submit] = []
        self._seals: list[PromiseSeal] = []

    # --- what others may look at (the loop's own thread, between two awaits) ------------------------------------------

    def now_ms(self) -> int:
        """Network time."""
        return int(self._clock.now() * 1000)

    def may_act(self) -> bool:
        """Listened long enough after the start to seal or vote."""
        return self.now_ms() - self._started_ms >= LISTEN_FIRST_MS

    def may_seal(self, slot: int) -> bool:
        """A node that lost its promises waits until what it may have sealed lies behind."""
        if self._kept.may_vote or self.facts is None:
            return True
        return (
            slot >= slot_of(self._started_ms, genesis_ms=self.facts.genesis_ms, slot_ms=self.facts.profile.slot_ms) + SLOTS_WITHOUT_PROMISE
        )

    def head(self) -> BlockPoint | None:
        return None if self.tree is None else self.tree.head()

    def checkpoints(self) -> tuple[Checkpoint, Checkpoint]:
        """Head and latest final block, height 0 and zeros before genesis is known."""
        if self.tree is None:
            nothing = Checkpoint(0, BlockHash(bytes(32)))
            return nothing, nothing
        return self.tree.head().checkpoint, self.tree.final.checkpoint

    def row(self, name: BlockHash) -> store.BlockRow:
        """Of a block in the tree."""
        return self._rows[name]

    def heard(self) -> frozenset[AccountId]:
        """Members and miners heard authenticated within HEARD_WITHIN_MS, ourselves included."""
        now = self.now_ms()
        alive = {account for account, at in self._heard_ms.items() if now - at < HEARD_WITHIN_MS}
        return frozenset(alive | {self.keys.account})

    def hear(self, witnesses: Iterable[Witness], *, challenge: bytes, counter: int) -> tuple[AccountId, ...]:
        """Signs of life from a peer; whose key does not fit is passed over. Raises RemoteError(BAD_SIGNATURE | INTEGRITY)."""
        found: list[AccountId] = []
        for witness in witnesses:
            known = frozenset() if self.facts is None else self.facts.keys.get(witness.account, frozenset())
            if witness.key not in known:
                continue
            try:
                check_alive(witness, self.chain, challenge=challenge, counter=counter)
            except InvalidObject as error:
                raise RemoteError(error.reason, f"sign of life: {error.message}") from error
            self._heard_ms[witness.account] = self.now_ms()
            found.append(witness.account)
        return tuple(found)

    def drop_refused(self, refused: Iterable[tuple[Transaction, InvalidTransaction]]) -> None:
        """What a draft on the head refused leaves the pool, but what waiting may cure."""
        reasons = {one.id: error.reason for one, error in refused}
        for waiting in self.pool.drop([(one.id, error) for one, error in refused]):
            if reasons[waiting.id] not in OF_SIGNATURES:
                self._refuse_again(waiting.id)

    def witnesses(self, *, challenge: bytes, counter: int) -> tuple[Witness, ...]:
        """What this node answers to a challenge."""
        keys = [key for key in (self.keys.seal, self.keys.vote) if key is not None]
        return tuple(sign_alive(key, self.chain, challenge=challenge, counter=counter, account=self.keys.account) for key in keys)

    def lacking(self, transactions: Iterable[bytes], votes: Iterable[bytes]) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Those of announced ids that are worth asking for."""
        if self.tree is None:
            return (), ()
        wanted = tuple(one for one in transactions if one not in self.pool and one not in self._refused)
        return wanted, tuple(one for one in votes if one not in self.votes and one not in self._refused)

    def item_ids(self) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
        """Everything that waits here, and every loose vote."""
        return tuple(one.id for origin in Origin for one in self.pool.list(origin)), tuple(self.votes)

    def items(self, transactions: Iterable[bytes], votes: Iterable[bytes]) -> tuple[tuple[Transaction, ...], tuple[Vote, ...]]:
        """Bodies of those that are here."""
        found = tuple(one for one in (self.pool.get(TxId(name)) for name in transactions) if one is not None)
        return found, tuple(self.votes[name] for name in votes if name in self.votes)

    async def locator(self) -> tuple[BlockHash, ...]:
        """Where this node's branch runs, newest first; empty before genesis is known."""
        tree = self.tree
        if tree is None:
            return ()
        heights = locator_heights(tree.head().height, tree.final.height)
        path = {point.height: point.hash for point in tree.ancestors(tree.head().hash)}
        final = tree.final.height

        def read(snapshot: Snapshot) -> tuple[BlockHash, ...]:
            found = [path.get(height) if height >= final else next(iter(store.blocks_at(snapshot, height)), None) for height in heights]
            return tuple(name for name in found if name is not None)

        return await self._storage.read(read)

    async def headers_after(self, locator: Sequence[bytes]) -> tuple[HeaderRow, ...]:
        """A page of this node's branch, from the first hash of the locator that is on it."""
        tree = self.tree
        if tree is None:
            return ()
        path = {point.height: point.hash for point in tree.ancestors(tree.head().hash)}
        final, head = tree.final.height, tree.head().height

        def name_at(snapshot: Snapshot, height: int) -> BlockHash | None:
            return path.get(height) if height >= final else next(iter(store.blocks_at(snapshot, height)), None)

        def read(snapshot: Snapshot) -> tuple[HeaderRow, ...]:
            first = 0
            for known in locator:
                row = store.row(snapshot, BlockHash(known))
                if row is not None and name_at(snapshot, row.height) == known:
                    first = row.height + 1
                    break
            found: list[HeaderRow] = []
            for height in range(first, min(head, first + HEADERS_PER_PAGE_MAX - 1) + 1):
                name = name_at(snapshot, height)
                body = None if name is None else store.block(snapshot, name)
                if body is None:
                    break
                found.append(header_row(body))
            return tuple(found)

        return await self._storage.read(read)

    async def missing(self, hashes: Sequence[BlockHash]) -> tuple[BlockHash, ...]:
        """Those that are not here."""
        return await self._storage.read(lambda snapshot: tuple(name for name in hashes if store.row(snapshot, name) is None))

    async def blocks(self, hashes: Sequence[bytes]) -> tuple[Block, ...]:
        """Those that are here, in this order."""

        def read(snapshot: Snapshot) -> tuple[Block, ...]:
            found = [store.block(snapshot, BlockHash(name)) for name in hashes]
            return tuple(one for one in found if one is not None)

        return await self._storage.read(read)

    async def plan(self, draft: Callable[[Snapshot], T]) -> T:
        """What the sealer makes of the state, in a pool thread."""
        return await self._storage.read(draft)

    # --- verbs --------------------------------------------------------------------------------------------------------

    async def take_block(self, block: Block, source: PeerId | None, *, eager: bool) -> None:
        """Durable when this returns. Raises Undecided, RemoteError, StoreFull, ActorGone."""
        await self.mailbox.ask(lambda reply: TakeBlock(block, source, eager, reply))

    async def take_items(self, transactions: tuple[Transaction, ...], votes: tuple[Vote, ...], source: PeerId) -> None:
        await self.mailbox.ask(lambda reply: TakeItems(transactions, votes, source, reply))

    async def submit(self, transaction: Transaction) -> TxId:
        """A transaction made here: durable, and told until it is final."""
        return await self.mailbox.ask(lambda reply: Submit(transaction, reply))

    async def slot_began(self) -> None:
        await self.mailbox.ask(SlotBegan)

    async def promise_seal(self, slot: int) -> None:
        """Raises Refused(PROMISED)."""
        await self.mailbox.ask(lambda reply: PromiseSeal(slot, reply))

    # --- life ---------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        self._blocks, self._items, self._submits, self._seals = [], [], [], []
        self._started_ms = self.now_ms()
        await self._load_promises()
        try:
            await self._storage.read(store.check)
            await self._load_chain()
        except StoreDamaged as error:
            await self._start_over(error)

    async def _load_promises(self) -> None:
        kept = await self._offload.run(self._promise_store.load)
        if kept is None or kept.chain != self.chain:
            kept = lost(self.chain)
            if self.keys.vote is not None:
                log.error("promises of this node are lost: it votes no more; its voting key needs to be rotated")
        if not kept.may_vote and self.keys.vote is not None:
            self.alerts["promises"] = "promises were lost: this node votes no more until its voting key is rotated"
        self._kept, self._kept_is_news = kept, False

    async def _start_over(self, error: StoreDamaged) -> None:
        """A damaged chain is thrown away and fetched from peers; what was made here stays, what was promised too."""
        log.error("the chain's tables are damaged, it is fetched again error=%s", error)
        self.alerts["chain"] = f"the chain was damaged and is fetched again: {error.message}"
        await self._storage.transact(lambda snapshot: (store.wipe(snapshot), None))
        await self._load_chain()

    async def _load_chain(self) -> None:
        if self._genesis is not None and self._storage.peek(store.state_at) is None:
            (outcome,) = await self._judge_and_keep([self._genesis])
            if not isinstance(outcome, store.Executed):
                raise LocalError(Reason.FAILED, f"this chain's first block does not hold: {outcome}")
        self.tree, self.facts, self._at, self._head = None, None, None, None
        self.votes, self._rows, self._unsettled, self.pool = {}, {}, [], Pool()
        kept = await self._storage.read(_read_chain)
        self._own = {one.id for one in kept.own}
        if kept.blocks:
            self._plant(*kept.blocks[0])
            self._grow(kept)
        if self.head() is None:
            return
        await self._follow_head()
        await self._settle()
        errors = await self._storage.read(lambda snapshot: self._judge_all(snapshot, kept.own))
        for one, error in zip(kept.own, errors, strict=True):
            if error is None or error.reason in MAY_BECOME_VALID:
                self.pool.offer(one, Origin.OUTBOUND)

    def _grow(self, kept: _KeptChain) -> None:
        """Fork tree and votes from what is on the disk; what was final before is found again."""
        assert self.tree is not None
        for name, row in kept.blocks[1:]:
            if row.parent in self.tree:
                self._rows[name] = row
                self._unsettled += self.tree.add_block(store.point_of(name, row))
        self._count((*kept.votes, *self._kept.votes))
        self._at = kept.at

    def _plant(self, name: BlockHash, row: store.BlockRow) -> None:
        self._rows = {name: row}
        self.tree = ForkTree(store.point_of(name, row), self._below)

    def _below(self, point: Checkpoint) -> Committee | None:
        """Committee in force at an ancestor of the final block: below it only its own chain has rows."""
        row = self._storage.peek(lambda snapshot: store.row(snapshot, point.hash))
        return row.committee if row is not None and row.height == point.height else None

    def handle(self, message: ChainMessage) -> None:
        match message:
            case TakeBlock():
                self._blocks.append(message)
            case TakeItems():
                self._items.append(message)
            case Submit():
                self._submits.append(message)
            case PromiseSeal():
                self._seals.append(message)
            case SlotBegan(reply):
                self._blocks += [replace(one, reply=None) for one in self._early.values()]
                self._early = {}
                self.answer(reply, None)

    async def keep(self) -> None:
        try:
            await self._keep_batch()
        except StoreDamaged as error:
            await self._start_over(error)
            raise

    def keep_failed(self, error: LadingError) -> None:
        """What is in memory is never ahead of the disk but in finality, which is found again from the same votes."""
        self._blocks, self._items, self._submits, self._seals = [], [], [], []

    async def _keep_batch(self) -> None:
        blocks, self._blocks = self._blocks, []
        items, self._items = self._items, []
        submits, self._submits = self._submits, []
        seals, self._seals = self._seals, []
        if blocks:
            await self._take_blocks(blocks)
        for message in items:
            await self._take_items(message)
        for one in submits:
            await self._submit(one)
        for seal in seals:
            await self._promise_seal(seal)
        if self._kept_is_news:
            await self._keep_promises(self._kept)
        if self.tree is not None:
            await self._follow_head()
            await self._settle()
            await self._vote()

    # --- blocks -------------------------------------------------------------------------------------------------------

    async def _take_blocks(self, messages: Sequence[TakeBlock]) -> None:
        asked = frozenset(one.block.hash for one in messages if not one.eager)
        outcomes = await self._judge_and_keep([one.block for one in messages], asked)
        for message, outcome in zip(messages, outcomes, strict=True):
            if isinstance(outcome, store.Executed):
                self._add(outcome)
                self._received_ms[outcome.point.hash] = self.now_ms()
                if message.eager:
                    self._tell(BlockTaken(message.block, message.source))
                log.debug("block taken height=%d block=%s", outcome.point.height, outcome.point.hash.hex()[:8])
            self._answer_block(message, outcome)

    def _add(self, executed: store.Executed) -> None:
        """A kept block and the votes that it carries: a node that was away learns only from them what became final meanwhile."""
        self._rows[executed.point.hash] = executed.row
        if self.tree is None:
            self._plant(executed.point.hash, executed.row)
        elif executed.point.parent in self.tree:
            self._unsettled += self.tree.add_block(executed.point)
        # Otherwise a block of the same batch made another branch final: settling takes this one away.
        self._count(executed.votes)

    def _count(self, votes: Iterable[Vote]) -> None:
        """Verified and durable votes enter the tree."""
        assert self.tree is not None
        for vote in votes:
            if vote_id(vote) not in self.votes:
                self.votes[vote_id(vote)] = vote
                self._unsettled += self.tree.add_vote(vote)
                self._notice_own(vote)

    def _notice_own(self, vote: Vote) -> None:
        """A vote of our own key above every promise: the file is older than what was said, which is no better than none."""
        key, kept = self.keys.vote, self._kept
        if key is None or not kept.may_vote or vote.member != self.keys.account or vote.target.height <= kept.promises.target_height:
            return
        if _is_signed_by(vote, key.public):
            log.error("promises of this node are older than its votes: it votes no more; its voting key needs to be rotated")
            self.alerts["promises"] = "promises are older than what was said: this node votes no more until its voting key is rotated"
            self._kept = Kept(kept.format, kept.chain, kept.promises, False, kept.votes)
            self._kept_is_news = True

    def _answer_block(self, message: TakeBlock, outcome: store.Executed | LadingError | None) -> None:
        if isinstance(outcome, Undecided) and outcome.reason is Reason.TOO_EARLY and len(self._early) < EARLY_BLOCKS_MAX:
            self._early[message.block.hash] = message
            outcome = None
        if message.reply is None:
            return
        if isinstance(outcome, InvalidBlock | InvalidObject) and message.source is not None:
            verdict = Verdict.BAN if outcome.reason in BAN_REASONS else Verdict.DROP
            outcome = RemoteError(outcome.reason, f"block: {outcome.message}", verdict=verdict)
        if isinstance(outcome, LadingError):
            self.refuse(message.reply, outcome)
        else:
            self.answer(message.reply, None)

    async def _judge_and_keep(
        self, blocks: Sequence[Block], asked: frozenset[BlockHash] = frozenset()
    ) -> list[store.Executed | LadingError | None]:
        """Outcome of each, in order: kept; known already (None); or why not. What was kept is durable. asked: those that we asked for."""
        now_ms = self.now_ms()
        writes, outcomes, at = await self._storage.read(lambda snapshot: self._judge(snapshot, blocks, now_ms, asked))
        if writes:
            await self._storage.write(writes)
            self._at = at
        return outcomes

    def _judge(
        self, snapshot: Snapshot, blocks: Sequence[Block], now_ms: int, asked: frozenset[BlockHash]
    ) -> tuple[list[Write], list[store.Executed | LadingError | None], BlockHash | None]:
        """In a pool thread, while the actor waits. Result: what to write, outcomes, where the state stands then."""
        overlay = StorageOverlay(snapshot)
        fresh: set[BlockHash] = set()
        outcomes: list[store.Executed | LadingError | None] = []
        for block in blocks:
            if store.row(overlay, block.hash) is not None:
                outcomes.append(None)
                continue
            try:
                executed = self._judge_one(overlay, block, fresh, now_ms, asked)
            except StoreDamaged:
                raise
            except (InvalidObject, Undecided, RemoteError) as error:
                outcomes.append(error)
                continue
            fresh.add(block.hash)
            outcomes.append(executed)
        return (overlay.writes if fresh else []), outcomes, store.state_at(overlay)

    def _judge_one(
        self, overlay: StorageOverlay, block: Block, fresh: set[BlockHash], now_ms: int, asked: frozenset[BlockHash]
    ) -> store.Executed:
        header = check_block_form(block)
        if store.state_at(overlay) is None:
            if block.info.height:
                raise Undecided(Reason.UNKNOWN_PARENT, "the first block is not here")
            return store.begin(overlay, block, chain=self.chain)
        if header.parent not in fresh and (self.tree is None or header.parent not in self.tree):
            raise Undecided(Reason.UNKNOWN_PARENT, "the parent is not here, or not above the final block")
        profile = load_profile(Overlay(store.ChainState(overlay)))
        check_arrival(header, network_now_ms=now_ms, drift_ms_max=profile.drift_ms_max)
        same = [name for name in store.blocks_at(overlay, block.info.height) if self._is_twin(overlay, name, block)]
        twins_max = BLOCKS_PER_SLOT_ASKED_MAX if block.hash in asked else BLOCKS_PER_SLOT_MAX
        if len(same) >= twins_max and not self._is_backed(block.hash):
            raise RemoteError(Reason.FLOOD, "a miner sealed more than twice in one slot", verdict=Verdict.IGNORE)
        return store.execute(overlay, block, chain=self.chain)

    def _is_backed(self, name: BlockHash) -> bool:
        """More than f members voted for it, so one who keeps its promises did: that many twins there cannot be."""
        assert self.tree is not None
        voters = {vote.member for vote in self.tree.votes_for(name)}
        return len(voters & self.tree.final.committee.members) > self.tree.final.committee.faults

    @staticmethod
    def _is_twin(overlay: StorageOverlay, name: BlockHash, block: Block) -> bool:
        row = store.row(overlay, name)
        return row is not None and (row.miner, row.slot) == (block.info.miner, block.info.slot)

    # --- transactions and votes ---------------------------------------------------------------------------------------

    async def _take_items(self, message: TakeItems) -> None:
        if self.tree is None:
            self.answer(message.reply, None)
            return
        try:
            votes = self._checked_votes(message.votes)
            taken = await self._checked_transactions(message)
        except RemoteError as error:
            self.refuse(message.reply, error)
            return
        await self._keep_votes(votes)
        if taken or votes:
            self._tell(ChainItems(taken, tuple(vote_id(one) for one in votes), message.source))
        self.answer(message.reply, None)

    def _checked_votes(self, votes: Iterable[Vote]) -> list[Vote]:
        """Those to keep. Raises RemoteError for one that carries no member's signature."""
        assert self.tree is not None
        head, final = self.tree.head(), self.tree.final
        found: list[Vote] = []
        for vote in votes:
            found_keys = (committee.key_of(vote.member) for committee in (head.committee, final.committee))
            keys = {key for key in found_keys if key is not None}
            if vote.chain != self.chain or not keys:
                self._refuse_again(vote_id(vote))
                continue
            if not any(_is_signed_by(vote, key) for key in keys):
                if len(keys) > 1:
                    continue
                raise RemoteError(Reason.BAD_SIGNATURE, "a vote that its member did not sign", verdict=Verdict.BAN)
            settled = self._rows[final.hash].carried
            of_member = sum(one.member == vote.member for one in self.votes.values())
            if not settled < vote.target.height <= head.height + VOTE_AHEAD_MAX or of_member >= VOTES_PER_MEMBER_MAX:
                continue
            found.append(vote)
        return found

    async def _keep_votes(self, votes: Sequence[Vote]) -> None:
        """Durable, then counted."""
        fresh = {vote_id(one): one for one in votes if vote_id(one) not in self.votes}
        if not fresh:
            return
        await self._storage.write([store.put_vote(one) for one in fresh.values()])
        self._count(fresh.values())

    async def _checked_transactions(self, message: TakeItems) -> tuple[bytes, ...]:
        """Judges and pools. Raises RemoteError for a transaction that is wrong in itself."""
        wanted = [one for one in message.transactions if one.id not in self.pool]
        if not wanted:
            return ()
        taken: list[bytes] = []
        for transaction, error in zip(wanted, await self._storage.read(lambda snapshot: self._judge_all(snapshot, wanted)), strict=True):
            if error is not None and error.reason in (Reason.BAD_SIGNATURE, Reason.UNKNOWN_FORMAT, Reason.TOO_LONG, Reason.WRONG_CHAIN):
                raise RemoteError(error.reason, f"transaction: {error.message}", verdict=Verdict.BAN)
            if error is not None and error.reason not in MAY_BECOME_VALID:
                if error.reason not in OF_SIGNATURES:
                    self._refuse_again(transaction.id)
                continue
            try:
                self.pool.offer(transaction, Origin.INBOUND, message.source)
            except Refused:
                continue
            taken.append(transaction.id)
        return tuple(taken)

    def _refuse_again(self, name: bytes) -> None:
        if len(self._refused) >= REFUSED_KEPT_MAX:
            del self._refused[next(iter(self._refused))]
        self._refused[name] = None

    def _judge_all(self, snapshot: Snapshot, transactions: Sequence[Transaction]) -> list[InvalidTransaction | None]:
        """In a pool thread: each alone, in the next block, now."""
        view, at = store.ChainState(snapshot), store.state_at(snapshot)
        assert at is not None
        parent = store.header(snapshot, at)
        state = Overlay(view)
        slot = slot_of(self.now_ms(), genesis_ms=genesis_time_ms(state), slot_ms=load_profile(state).slot_ms)
        found: list[InvalidTransaction | None] = []
        for one in transactions:
            try:
                check_transaction(view, parent, one, slot=slot, chain=self.chain)
            except InvalidTransaction as error:
                found.append(error)
            else:
                found.append(None)
        return found

    async def _submit(self, message: Submit) -> None:
        transaction = message.transaction
        if self.tree is None:
            self.refuse(message.reply, Refused(Reason.NOT_FOUND, "the chain's first block is not here yet"))
            return
        (error,) = await self._storage.read(lambda snapshot: self._judge_all(snapshot, [transaction]))
        try:
            if error is not None:
                raise error
            self.pool.offer(transaction, Origin.OUTBOUND)
        except (InvalidTransaction, Refused) as refused:
            self.refuse(message.reply, refused)
            return
        await self._storage.write([store.put_own(transaction)])
        self._own.add(transaction.id)
        self._tell(ChainItems((transaction.id,), (), None))
        self.answer(message.reply, transaction.id)

    # --- finality, head -----------------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Writes down what became final; takes away what can no longer be."""
        newly, self._unsettled = self._unsettled, []
        if not newly:
            return
        assert self.tree is not None
        tree = self.tree
        final = tree.final
        row = self._rows[final.hash]
        kept = {name: one for name, one in self._rows.items() if name in tree}
        main = {point.hash for point in newly}
        dead = [(name, one.height) for name, one in self._rows.items() if name not in kept and name not in main and one.height > 0]
        dead = [(name, height) for name, height in dead if height > newly[0].height - 1]
        gone = [name for name, _ in dead]
        counted = [vote for vote in self.votes.values() if vote.target.height <= row.carried]
        assert self._at not in gone, "the state stands at the head, which descends from the final block"

        def write(snapshot: Snapshot) -> tuple[list[Write], set[TxId]]:
            included = {one for point in newly for one in _ids_of(snapshot, point.hash)} & self._own
            return [*store.settle(final.hash, dead, counted), *(store.drop_own(name) for name in sorted(included))], included

        try:
            done = await self._storage.transact(write)
        except LadingError:
            self._unsettled = [*newly, *self._unsettled]
            raise
        self._own -= done
        self._rows = kept
        for vote in counted:
            del self.votes[vote_id(vote)]
        self._received_ms = {name: at_ms for name, at_ms in self._received_ms.items() if name in kept}
        for point in newly:
            self._tell(BlockFinal(point.height, point.hash))

    async def _follow_head(self) -> None:
        """Takes the state to the head, and the pool with it."""
        assert self.tree is not None
        head = self.tree.head()
        if self._at != head.hash:

            def move(snapshot: Snapshot) -> tuple[Sequence[Write], None]:
                overlay = StorageOverlay(snapshot)
                store.go_to(overlay, head.hash)
                return overlay.writes, None

            await self._storage.transact(move)
            self._at = head.hash
        if self._head == head.hash:
            return
        before = self._head
        left, reached, facts = await self._storage.read(lambda snapshot: self._read_head(snapshot, before, head.hash))
        self.facts = facts
        self._head = head.hash
        carried = {one.id for one in reached}
        self.pool.returned([one for one in left if one.id not in carried], frozenset(self._own))
        self.pool.included(carried)
        self.pool.expire(slot_start_ms(head.slot, genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms))
        self._tell(HeadMovedTo(head.checkpoint, self.tree.final.checkpoint))

    def _read_head(
        self, snapshot: Snapshot, before: BlockHash | None, head: BlockHash
    ) -> tuple[list[Transaction], list[Transaction], HeadFacts]:
        """In a pool thread: transactions of blocks left and of blocks reached, and what the state says."""
        left: list[Transaction] = []
        reached: list[Transaction] = []
        below = before if before is not None and store.row(snapshot, before) is not None else head
        above = head
        while below != above:
            here, there = store.row(snapshot, below), store.row(snapshot, above)
            assert here is not None
            assert there is not None
            if here.height >= there.height:
                left += _transactions_of(snapshot, below)
                below = here.parent
            else:
                reached += _transactions_of(snapshot, above)
                above = there.parent
        return left, reached, self._head_facts(store.ChainState(snapshot), store.row(snapshot, head))

    @staticmethod
    def _head_facts(view: store.ChainState, row: store.BlockRow | None) -> HeadFacts:
        assert row is not None
        state = Overlay(view)
        keys: dict[AccountId, frozenset[bytes]] = {seat.member: frozenset({seat.vote_key}) for seat in row.committee.seats}
        for name, _ in state.iterate(MINER):
            miner = state.load(MINER, name, Miner)
            assert miner is not None
            keys[miner.account] = keys.get(miner.account, frozenset()) | {miner.key}
        miners = frozenset(next_term(view, row.slot + 1).miners)
        return HeadFacts(load_profile(state), genesis_time_ms(state), row.slot, miners, keys, next_due_ms(state))

    # --- promises, votes ----------------------------------------------------------------------------------------------

    async def _keep_promises(self, kept: Kept) -> None:
        """On the disk when this returns: nothing that it is about may leave before."""
        try:
            await self._offload.run(self._promise_store.save, kept)
        except OSError as error:
            raise LadingError(Reason.FAILED, f"promises cannot be written: {error}") from error
        self._kept, self._kept_is_news = kept, False

    async def _promise_seal(self, message: PromiseSeal) -> None:
        try:
            promises = promise_seal(self._kept.promises, message.slot)
            await self._keep_promises(Kept(self._kept.format, self.chain, promises, self._kept.may_vote, self._kept.votes))
        except LadingError as error:
            self.refuse(message.reply, error)
            return
        self.sealed_ms = self.now_ms()
        self.answer(message.reply, None)

    async def _vote(self) -> None:
        """A vote for the head where rules, promises and policy allow one: blocks first, then the promise, then the vote."""
        tree, facts, key = self.tree, self.facts, self.keys.vote
        assert tree is not None
        if facts is None or key is None or not self._kept.may_vote or not self.may_act():
            return
        head = tree.head()
        has_heard = has_quorum(self.heard(), head.committee)
        if has_heard and not self._heard_quorum:
            self.quorum_since_height = head.height
        self._heard_quorum = has_heard
        if not has_heard or head.committee.key_of(self.keys.account) != key.public or not self._is_timely(head, facts):
            return
        try:
            source, target, promises = tree.next_vote(self._kept.promises)
        except Refused:
            return
        shown = tree.votes_for(source.hash)
        await self._keep_promises(Kept(self._kept.format, self.chain, promises, True, shown))
        vote = sign_vote(key, self.chain, source, target, self.keys.account)
        await self._keep_votes([vote])
        self._tell(ChainItems((), (vote_id(vote), *(vote_id(one) for one in shown if vote_id(one) in self.votes)), None))
        await self._follow_head()
        await self._settle()

    def _is_timely(self, head: BlockPoint, facts: HeadFacts) -> bool:
        received = self._received_ms.get(head.hash)
        start = slot_start_ms(head.slot, genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms)
        late, slot = facts.profile.late_ms, facts.profile.slot_ms
        return received is not None and is_timely(received_ms=received, slot_start_ms=start, late_ms=late, slot_ms=slot)

    def _tell(self, fact: object) -> None:
        self.after_keep(lambda: self._bus.publish(fact))


def _is_signed_by(vote: Vote, key: bytes) -> bool:
    try:
        check_vote(vote, key)
    except InvalidObject:
        return False
    return True


def _transactions_of(snapshot: Snapshot, name: BlockHash) -> tuple[Transaction, ...]:
    body = store.block(snapshot, name)
    if body is None:
        raise StoreDamaged("a known block has no body")
    return body.transactions


def _ids_of(snapshot: Snapshot, name: BlockHash) -> tuple[TxId, ...]:
    return tuple(one.id for one in _transactions_of(snapshot, name))
