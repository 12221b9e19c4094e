"""The chain's one owner: judges and keeps blocks, follows the head, keeps the pool, votes.

What comes from peers, from this node's sealer and from its people passes the same mailbox. One batch: blocks are judged in a pool thread
on a snapshot and committed, then fork choice follows, finality is written down, the state is taken to the head, and last a vote is made:
its promise on the disk first. Only then are answers given and others told.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeVar

from protocols.codec import replace as replace_record
from protocols.crypto import FORMAT, SigningKey
from protocols.errors import (
    DecodeError,
    InvalidBlock,
    InvalidObject,
    InvalidTransaction,
    LadingError,
    LocalError,
    Reason,
    Refused,
    RemoteError,
    StoreDamaged,
    StoreFull,
    Undecided,
    Verdict,
)
from protocols.ledger.ahead import verify_ahead
from protocols.ledger.alive import Told, Witness, check_alive, sign_alive
from protocols.ledger.block import Block, check_block_form, check_seal, decode_header
from protocols.ledger.carried import HASH, committee_at
from protocols.ledger.checks import u64
from protocols.ledger.committee import Committee
from protocols.ledger.conditions import next_due_ms
from protocols.ledger.context import genesis_time_ms, load_profile
from protocols.ledger.deny import DenySet, denial_of
from protocols.ledger.envelope import Transaction
from protocols.ledger.evidence import Watch
from protocols.ledger.faults import Faults
from protocols.ledger.finality import BlockPoint, ForkTree
from protocols.ledger.light import Inclusion
from protocols.ledger.machine import vote_id
from protocols.ledger.network_time import NetworkTime, OwnClock, TimeState
from protocols.ledger.pool import MAY_BECOME_VALID, Limits, Origin, Pool
from protocols.ledger.profile import Profile
from protocols.ledger.schedule import SCHEDULE
from protocols.ledger.sealing import has_quorum, is_timely
from protocols.ledger.snapshot import NodeAt, StateNode
from protocols.ledger.state import Key, Overlay
from protocols.ledger.sync import HeaderRow, header_row, locator_heights
from protocols.ledger.terms import MINER, Miner
from protocols.ledger.transactions.equivocation import Sealed
from protocols.ledger.transition import Schedule, check_arrival, check_transactions, next_term, slot_of, slot_start_ms
from protocols.ledger.votes import Checkpoint, Promises, Vote, check_vote, promise_seal, sign_vote
from protocols.limits import (
    BLOCKS_PER_PAGE_MAX,
    BLOCKS_PER_SLOT_ASKED_MAX,
    BLOCKS_PER_SLOT_MAX,
    EARLY_BLOCKS_MAX,
    HEADERS_PER_PAGE_MAX,
    HEARD_WITHIN_MS,
    LEDGER_SILENCE_MAX_S,
    ROTATIONS_MAX,
    SLOTS_WITHOUT_PROMISE,
    STATE_BYTES_PER_MESSAGE_MAX,
    VOTE_AHEAD_MAX,
    VOTES_PER_MEMBER_MAX,
)
from protocols.types import AccountId, BlockHash, ChainId, PeerId, TxId, UnixMillis
from storage import chain as store
from storage import chain_proofs, light, refused
from storage.chain_state import StateDifference, compare, find_node, missing_nodes, put_nodes
from storage.engine import Snapshot, Write
from storage.overlay import Overlay as StorageOverlay
from storage.values import SUITE

from ..actor import Actor, Reply
from ..bus import Bus
from ..clock import Clock
from ..offload import Offload, run_beside
from ..promises import Kept, KeyRing, PromiseStore, Rotated, lost
from .storage import StorageHandle

log = logging.getLogger(__name__)
T = TypeVar("T")

# A transaction that was refused is not fetched again from the next who announces it.
REFUSED_KEPT_MAX = 4096
# What signatures are to blame for says nothing of the id, which another set of them may carry rightly: a relay could spoil it else.
OF_SIGNATURES = frozenset({Reason.NOT_SIGNED, Reason.UNEXPECTED_SIGNER, Reason.BAD_BODY})
# Fewer are judged before a second thread has begun: the trip takes as long as verifying three signatures or four.
AHEAD_TRANSACTIONS_MIN = 16
# Blocks that are wrong by their state root alone, and blocks on top of them, that are remembered for the votes behind them.
WRONG_BLOCKS_MAX = 16
BEYOND_BLOCKS_MAX = 1024
# Blocks whose parents another peer gives: so many, so long. Shorter than the silence after which the peer would go.
WAITING_BLOCKS_MAX = 16
PARENT_WAIT_MS = 6_000
assert PARENT_WAIT_MS < LEDGER_SILENCE_MAX_S * 1000
# A block that comes so many slots late may carry what expired meanwhile; the pool keeps it that long.
EXPIRED_SLOTS = 2
# Votes kept with the promises, each below 300 bytes: what justifies the source of the last vote, back to the final block.
PROMISED_VOTES_MAX = 512
_FIRST_NODE = "run it on the first node of the member: lading miner status says has_keys"
BAN_REASONS = frozenset({Reason.BAD_SEAL, Reason.WORK, Reason.NONCE, Reason.MERKLE_ROOT, Reason.BAD_SIGNATURE})


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
    """Answer: None when it is kept, was known, or is held until its time. Raises Undecided, RemoteError.

    eager: it was made just now. at_ms: when it came, steady clock. waits: its parent is on its way from another peer, so the answer may
    take as long as it does.
    """

    block: Block
    source: PeerId | None
    eager: bool
    reply: Reply[None] | None
    at_ms: int
    waits: bool = False


@dataclass(frozen=True, slots=True)
class TakeItems:
    """From a peer, unchecked. Answer: None; raises RemoteError for what no honest peer sends."""

    transactions: tuple[Transaction, ...]
    votes: tuple[Vote, ...]
    source: PeerId
    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class Submit:
    """Transactions made here. Answer: of each None when it was taken and is durable, or why not."""

    transactions: tuple[Transaction, ...]
    reply: Reply[tuple[LadingError | None, ...]]


@dataclass(frozen=True, slots=True)
class SlotBegan:
    """Time went on: what was early is judged again, and a vote may be due."""

    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class PromiseSeal:
    """Binds this node to seal nothing else in this slot. Answer: durable. Raises Refused(PROMISED)."""

    slot: int
    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class TakeState:
    """Checked nodes of the state that is being fetched. Answer: durable."""

    nodes: tuple[StateNode, ...]
    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class EndJoin:
    """The state is whole; or, not is_whole, nobody has it, and the whole history is fetched instead."""

    is_whole: bool
    reply: Reply[None]


@dataclass(frozen=True, slots=True)
class MakeKey:
    """Another key to vote or to seal with, when the chain names it. Answer: the key, durable; raises Refused."""

    what: Literal["vote", "seal"]
    salt: bytes
    reply: Reply[SigningKey]


ChainMessage = TakeBlock | TakeItems | Submit | SlotBegan | PromiseSeal | TakeState | EndJoin | MakeKey


@dataclass(frozen=True, slots=True)
class ChainKeys:
    """What this node seals and votes with, as one account. reveal: secret of its chains of reveals, 32 bytes."""

    account: AccountId
    seal: SigningKey | None = None
    vote: SigningKey | None = None
    reveal: bytes = b""


@dataclass(frozen=True, slots=True)
class ChainSetup:
    """What a node needs to follow a chain. genesis: None fetches the first block from peers, which the chain's id is enough to check.

    anchor, heights_kept, ring: as of ``ChainActor``. told: the final block that others told of, however near its beginning; where a light
    node begins.
    """

    chain: ChainId
    genesis: Block | None
    keys: ChainKeys
    promises: PromiseStore
    anchor: Checkpoint | None = None
    heights_kept: int | None = None
    told: Checkpoint | None = None
    ring: KeyRing | None = None


@dataclass(frozen=True, slots=True)
class HeadFacts:
    """What the state at the head says, for the loop: read once for each head.

    maintainers: seats of the committee and certified miners.
    """

    profile: Profile
    genesis_ms: int
    slot: int
    miners: frozenset[AccountId]
    keys: Mapping[AccountId, frozenset[bytes]]
    due_ms: int | None
    maintainers: frozenset[AccountId]


@dataclass(frozen=True, slots=True)
class _KeptChain:
    """What the tables hold.

    blocks: the final one, then all above it, lowest first; none before genesis is known. seals, denying: of those above it.
    """

    blocks: tuple[tuple[BlockHash, store.BlockRow], ...]
    seals: tuple[tuple[AccountId, int, Sealed], ...]
    denying: tuple[Transaction, ...]
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
    seals = tuple((AccountId(row.miner), row.slot, store.sealed(snapshot, name)) for name, row in blocks[1:])
    denying = tuple(one for name, _ in blocks[1:] for one in _transactions_of(snapshot, name) if denial_of(one) is not None)
    return _KeptChain(tuple(blocks), seals, denying, store.votes(snapshot), store.own_transactions(snapshot), store.state_at(snapshot))


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
        *,
        ring: KeyRing | None = None,
        anchor: Checkpoint | None = None,
        heights_kept: int | None = None,
        schedule: Schedule = SCHEDULE,
        pool_limits: Limits = Limits(),
    ) -> None:
        """ring: keys that came after those of ``keys``; None where none can be made.

        anchor: a final block that this node was told of; without a chain of its own it begins there, with that block's state.

        heights_kept: blocks below the final one whose bodies stay; None keeps all (an archive). The first of them goes when ``may_let_go``
        says so (archives.py). schedule: the rule sets that
        this program has. pool_limits: bounds of what waits.
        """
        super().__init__("chain")
        self.anchor = anchor
        self.heights_kept = heights_kept
        self.schedule = schedule
        self._pool_limits = pool_limits
        self.chain = chain
        self.keys = keys
        self.tree: ForkTree | None = None
        self.facts: HeadFacts | None = None
        self.pool = Pool(pool_limits)
        self.watch = Watch()
        self.denied = DenySet()
        self.votes: dict[bytes, Vote] = {}
        self.alerts: dict[str, str] = {}
        self.refused: dict[refused.Key, refused.RefusedRow] = {}  # durable, but for what a full disk could not take
        self.faults = Faults()
        self.quorum_since_height = 0
        self.lowest_height = 0  # of the blocks that are kept; at most this where a node prunes
        self.may_let_go = False  # a part of the history, which was all here so far
        self.is_leaving = False  # it shows the first block to nobody, so that nobody relies on it
        self.sealed_ms: int | None = None
        self._genesis = genesis
        self._storage = storage
        self._promise_store = promises
        self._ring = ring
        self._made: tuple[tuple[Rotated, SigningKey], ...] = ()  # of the ring, in the order in which they were made
        self._first_keys = keys
        self._clock = clock
        self._bus = bus
        self._offload = offload
        self._kept: Kept = lost(chain)
        self._lost_promises = True
        self._kept_is_news = False
        self._rows: dict[BlockHash, store.BlockRow] = {}  # of the blocks in the tree
        self._unsettled: list[BlockPoint] = []
        self._at: BlockHash | None = None
        self._head: BlockHash | None = None
        self._received_ms: dict[BlockHash, int] = {}  # by the steady clock, like what follows
        self._heard_ms: dict[AccountId, int] = {}
        self._heard_quorum = False
        self._own: dict[TxId, UnixMillis] = {}  # until when each may be included
        self._refused: dict[bytes, None] = {}
        self._early: dict[BlockHash, TakeBlock] = {}
        self._waiting: dict[BlockHash, tuple[TakeBlock, int]] = {}  # for their parents, and since when, by parent
        self.time = NetworkTime(self._steady_ms())
        self._started_ms = self._steady_ms()
        self._blocks: list[TakeBlock] = []
        self._items: list[TakeItems] = []
        self._submits: list[Submit] = []
        self._seals: list[PromiseSeal] = []
        self._states: list[TakeState] = []
        self._ends: list[EndJoin] = []
        self._makes: list[MakeKey] = []
        self.stopped: store.Stopped | None = None
        self._refused_news: dict[refused.Key, None] = {}  # not written down yet
        self._wrong: dict[BlockHash, Block] = {}  # by their state root alone
        self._wrong_votes: dict[BlockHash, dict[AccountId, Vote]] = {}
        self._beyond: dict[BlockHash, None] = {}  # blocks on top of wrong ones
        self._join: Block | None = None
        self._is_joining = False
        self._shown_generation = 0  # of the committees, what light nodes need of it is kept

    # --- what others may look at (the loop's own thread, between two awaits) ------------------------------------------

    def now_ms(self) -> UnixMillis:
        """Network time."""
        return self.time.now_ms(self._steady_ms())

    def _steady_ms(self) -> int:
        return int(self._clock.steady() * 1000)

    def _network_ms(self, steady_ms: int) -> int:
        """What network time, as it runs now, was when the steady clock stood so."""
        return self.now_ms() - (self._steady_ms() - steady_ms)

    def _look_at_time(self) -> None:
        clock = self._clock
        floor_ms = clock.floor_s * 1000
        if self.tree is not None and self.facts is not None:
            profile = self.facts.profile
            floor_ms = max(floor_ms, slot_start_ms(self.tree.final.slot, genesis_ms=self.facts.genesis_ms, slot_ms=profile.slot_ms))
        wall_ms = None if clock.is_unsafe else int(clock.now() * 1000)
        before = self.time.state
        self.time.look(OwnClock(wall_ms, clock.is_synchronised, floor_ms), self._steady_ms())
        if self.time.state is not before:
            log.info("network time state=%s now=%d members=%d", self.time.state.value, self.now_ms(), self.time.agreement().members)
        if text := time_trouble(self.time):
            self.alerts["time"] = text
        else:
            self.alerts.pop("time", None)

    @property
    def is_joining(self) -> bool:
        """The state of the anchor's block is being fetched; until it is here nothing else is asked for."""
        return self._is_joining

    @property
    def joining_block(self) -> Block | None:
        """The anchor's block, once it is here."""
        return self._join

    def may_act(self) -> bool:
        """Network time was set after the start and still is good to seal and vote by, and the node has not stopped."""
        return self.stopped is None and self.time.may_act

    def may_seal(self, slot: int) -> bool:
        """A node that lost its promises waits until what it may have sealed lies behind."""
        if not self._lost_promises or self.facts is None:
            return True
        started_ms = self._network_ms(self._started_ms)
        return slot >= slot_of(started_ms, genesis_ms=self.facts.genesis_ms, slot_ms=self.facts.profile.slot_ms) + SLOTS_WITHOUT_PROMISE

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
        now = self._steady_ms()
        alive = {account for account, at in self._heard_ms.items() if now - at < HEARD_WITHIN_MS}
        return frozenset(alive | {self.keys.account})

    def hear(
        self, witnesses: Iterable[Witness], *, challenge: bytes, counter: int, told: Told, round_trip_ms: int | None
    ) -> tuple[AccountId, ...]:
        """Signs of life from a peer, and what time it is there; whose key does not fit is passed over.

        round_trip_ms: as of ``HeardAlive``. Raises RemoteError(BAD_SIGNATURE | INTEGRITY).
        """
        found: list[AccountId] = []
        for witness in witnesses:
            known = frozenset() if self.facts is None else self.facts.keys.get(witness.account, frozenset())
            if witness.key not in known:
                continue
            try:
                check_alive(witness, self.chain, challenge=challenge, counter=counter, told=told)
            except InvalidObject as error:
                raise RemoteError(error.reason, f"sign of life: {error.message}") from error
            now = self._heard_ms[witness.account] = self._steady_ms()
            if round_trip_ms is not None and witness.account != self.keys.account and witness.account not in found:
                self.time.hear(witness.account, told.time, is_set=told.is_set, round_trip_ms=round_trip_ms, steady_ms=now)
            found.append(witness.account)
        self._look_at_time()
        return tuple(found)

    def tell_time(self, *, echo: int, held_ms: int) -> Told:
        """What a peer is told beside a sign of life."""
        time_ms, is_set = self.time.told(self._steady_ms())
        return Told(time_ms, is_set, echo, held_ms)

    def drop_refused(self, refused: Iterable[tuple[Transaction, InvalidTransaction]]) -> None:
        """What a draft on the head refused leaves the pool, but what waiting may cure."""
        reasons = {one.id: error.reason for one, error in refused}
        for waiting in self.pool.drop([(one.id, error) for one, error in refused]):
            if reasons[waiting.id] not in OF_SIGNATURES:
                self._refuse_again(waiting.id)

    def scores(self) -> tuple[tuple[PeerId, float], ...]:
        """Of peers that brought what no honest node sends: faults, less what time has taken off them, the worst first."""
        return self.faults.scores(self._steady_ms() / 1000)

    def witnesses(self, *, challenge: bytes, counter: int, told: Told) -> tuple[Witness, ...]:
        """What this node answers to a challenge."""
        keys = [key for key in (self.keys.seal, self.keys.vote) if key is not None]
        account = self.keys.account
        return tuple(sign_alive(key, self.chain, challenge=challenge, counter=counter, account=account, told=told) for key in keys)

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

    async def headers_after(self, locator: Sequence[bytes]) -> tuple[tuple[HeaderRow, ...], int]:
        """A page of this node's branch, from the first hash of the locator that is on it, and 0; or none, and the lowest height kept."""
        tree = self.tree
        if tree is None:
            return (), 0
        path = {point.height: point.hash for point in tree.ancestors(tree.head().hash)}
        final, head = tree.final.height, tree.head().height

        def name_at(snapshot: Snapshot, height: int) -> BlockHash | None:
            return path.get(height) if height >= final else next(iter(store.blocks_at(snapshot, height)), None)

        def read(snapshot: Snapshot) -> tuple[tuple[HeaderRow, ...], int]:
            first, lowest = 0, store.lowest_height(snapshot)
            for known in locator:
                row = store.row(snapshot, BlockHash(known))
                if row is not None and name_at(snapshot, row.height) == known:
                    first = row.height + 1
                    break
            if first < lowest:
                return (), lowest
            found: list[HeaderRow] = []
            for height in range(first, min(head, first + HEADERS_PER_PAGE_MAX - 1) + 1):
                name = name_at(snapshot, height)
                body = None if name is None else store.block(snapshot, name)
                if body is None:
                    break
                found.append(header_row(body))
            return tuple(found), 0

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

    async def history_wanted(self) -> BlockHash | None:
        """The lowest block that is here, where an archive lacks what lies below it."""
        if self.tree is None or self.heights_kept is not None or not self.lowest_height:
            return None

        def read(snapshot: Snapshot) -> BlockHash | None:
            lowest = store.lowest_height(snapshot)
            return store.blocks_at(snapshot, lowest)[0] if lowest else None

        return await self._storage.read(read)

    async def parent_of(self, name: BlockHash) -> BlockHash | None:
        """Of a known block."""
        row = await self._storage.read(lambda snapshot: store.row(snapshot, name))
        return None if row is None else row.parent

    async def history_before(self, before: bytes) -> tuple[HeaderRow, ...]:
        """A page of ancestors of a block, oldest first; none where they are not kept."""

        def read(snapshot: Snapshot) -> tuple[HeaderRow, ...]:
            found: list[HeaderRow] = []
            row = store.row(snapshot, BlockHash(before))
            while row is not None and row.height and len(found) < BLOCKS_PER_PAGE_MAX:
                body = store.block(snapshot, row.parent)
                if body is None:
                    break
                found.append(header_row(body))
                row = store.row(snapshot, row.parent)
            return tuple(reversed(found))

        return await self._storage.read(read)

    async def state_nodes(self, at: Checkpoint, nodes: Sequence[NodeAt]) -> tuple[tuple[StateNode, ...], tuple[bytes, ...]]:
        """Those of the state after a block that are here and fit one message, and names of those that are not here."""

        def read(snapshot: Snapshot) -> tuple[tuple[StateNode, ...], tuple[bytes, ...]]:
            found: list[StateNode] = []
            lacking: list[bytes] = []
            size = 0
            for wanted in nodes:
                one = find_node(snapshot, (at.height, at.hash), wanted)
                if one is None:
                    lacking.append(wanted[1])
                    continue
                size += len(one.node) + len(one.key) + len(one.value) + 32
                if found and size > STATE_BYTES_PER_MESSAGE_MAX:
                    break
                found.append(one)
            return tuple(found), tuple(lacking)

        return await self._storage.read(read)

    async def missing_state(self) -> tuple[NodeAt, ...]:
        """The nodes to begin with, of the state that is being fetched."""
        first = self._join
        assert first is not None
        return await self._storage.read(lambda snapshot: missing_nodes(snapshot, first.info.state_root))

    def final_slot(self) -> int | None:
        """Slot of the latest final block; None before there is a chain."""
        return None if self.tree is None or self.facts is None else self.tree.final.slot

    @property
    def keeps_state(self) -> bool:
        """It does."""
        return True

    async def bring(self, keys: Collection[Key], *, is_fresh: bool = True) -> None:
        """All of the state is here."""

    async def where(self, transaction: bytes, block_ms: int) -> Inclusion | None:
        """Blocks are here themselves."""
        return None

    async def plan(self, draft: Callable[[Snapshot], T]) -> T:
        """What the sealer makes of the state, in a pool thread."""
        return await self._storage.read(draft)

    # --- verbs --------------------------------------------------------------------------------------------------------

    async def take_block(self, block: Block, source: PeerId | None, *, eager: bool, waits: bool = False) -> None:
        """Durable when this returns. Raises Undecided, RemoteError, StoreFull, ActorGone."""
        at_ms = self._steady_ms()
        await self.mailbox.ask(lambda reply: TakeBlock(block, source, eager, reply, at_ms, waits))

    async def take_items(self, transactions: tuple[Transaction, ...], votes: tuple[Vote, ...], source: PeerId) -> None:
        await self.mailbox.ask(lambda reply: TakeItems(transactions, votes, source, reply))

    async def submit(self, transaction: Transaction) -> TxId:
        """A transaction made here: durable, and told until it is final. Raises InvalidTransaction, Refused(QUOTA)."""
        (error,) = await self.submit_all((transaction,))
        if error is not None:
            raise error
        return transaction.id

    async def submit_all(self, transactions: tuple[Transaction, ...]) -> tuple[LadingError | None, ...]:
        """As ``submit``, all in one commit: why each was not taken, or None."""
        return await self.mailbox.ask(lambda reply: Submit(transactions, reply))

    async def slot_began(self) -> None:
        await self.mailbox.ask(SlotBegan)

    async def make_key(self, what: Literal["vote", "seal"], salt: bytes) -> SigningKey:
        """For a KeyRotate: a key that this node uses as soon as the chain names it, and until then the one before.

        Where it is not known what that one has said, the new one votes when the change is final: the only way back to voting for a node
        that lost its promises. Raises Refused.
        """
        return await self.mailbox.ask(lambda reply: MakeKey(what, salt, reply))

    async def promise_seal(self, slot: int) -> None:
        """Raises Refused(PROMISED)."""
        await self.mailbox.ask(lambda reply: PromiseSeal(slot, reply))

    async def take_state(self, nodes: tuple[StateNode, ...]) -> None:
        """Of the state that is being fetched, checked. Durable when this returns."""
        await self.mailbox.ask(lambda reply: TakeState(nodes, reply))

    async def end_join(self, *, is_whole: bool) -> None:
        """The chain begins at the anchor; or the join is given up. Raises StoreDamaged."""
        await self.mailbox.ask(lambda reply: EndJoin(is_whole, reply))

    # --- life ---------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        self._blocks, self._items, self._submits, self._seals, self._states, self._ends, self._makes = [], [], [], [], [], [], []
        self._waiting = {}
        self._started_ms = self._steady_ms()
        self.time = NetworkTime(self._started_ms)
        self._look_at_time()
        await self._load_promises()
        await self._load_refused()
        left = await self._storage.transact(light.leave)
        if left is not None:
            log.info("this node was light and fetches the chain height=%d", left.checkpoint.height)
            if self.anchor is not None and left.checkpoint.height > self.anchor.height:
                self.anchor = left.checkpoint
        try:
            await self._storage.transact(lambda snapshot: (store.rebuild_tree(snapshot), None))
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
        if self._ring is not None:
            ring = self._ring
            self._made = tuple((one, ring.key(one)) for one in await self._offload.run(ring.load))
        self.keys = self._first_keys
        self._kept, self._kept_is_news = kept, False
        self._lost_promises = not kept.may_vote

    async def _load_refused(self) -> None:
        try:
            self.refused = await self._storage.read(refused.rows)
        except StoreDamaged as error:
            log.warning("what was refused so far cannot be read, counting begins anew error=%s", error)
            self.refused = {}

    async def _start_over(self, error: StoreDamaged) -> None:
        """A damaged chain is thrown away and fetched from peers; what was made here stays, what was promised too."""
        log.error("the chain's tables are damaged, it is fetched again error=%s", error)
        self.alerts["chain"] = f"the chain was damaged and is fetched again: {error.message}"
        await self._storage.transact(lambda snapshot: (store.wipe(snapshot), None))
        await self._load_chain()

    async def _load_chain(self) -> None:
        self.tree, self.facts, self._at, self._head, self.stopped = None, None, None, None, None
        self._wrong, self._wrong_votes, self._beyond = {}, {}, {}
        is_new = self._storage.peek(store.state_at) is None
        self._is_joining = is_new and self.anchor is not None and self.anchor.height > 0 and "anchor" not in self.alerts
        self._join = self._storage.peek(store.joining) if self._is_joining else None
        if self._join is not None and self.anchor is not None and self._join.hash != self.anchor.hash:
            self._join = None
        if self._genesis is not None and not self._is_joining and self._storage.peek(store.state_at) is None:
            (outcome,) = await self._judge_and_keep([self._genesis])
            if not isinstance(outcome, store.Executed):
                raise LocalError(Reason.FAILED, f"this chain's first block does not hold: {outcome}")
        self.votes, self._rows, self._unsettled, self.pool, self.watch = {}, {}, [], Pool(self._pool_limits), Watch()
        self.denied = DenySet()
        kept = await self._storage.read(_read_chain)
        self._own = {one.id: one.content.until_ms for one in kept.own}
        self.lowest_height = self._storage.peek(store.lowest_height)
        if kept.blocks:
            self._plant(*kept.blocks[0])
            self._grow(kept)
        if self.head() is None:
            return
        await self._follow_head()
        await self._settle()
        await self._load_stopped()
        errors = await self._storage.read(lambda snapshot: self.judge_all(snapshot, kept.own))
        for one, error in zip(kept.own, errors, strict=True):
            if error is None or error.reason in MAY_BECOME_VALID:
                with suppress(Refused):  # more wait than one account may have here: the rest comes as these are included
                    self.pool.offer(one, Origin.OUTBOUND)

    def _grow(self, kept: _KeptChain) -> None:
        """Fork tree and votes from what is on the disk; what was final before is found again."""
        assert self.tree is not None
        for name, row in kept.blocks[1:]:
            if row.parent in self.tree:
                self._rows[name] = row
                self._unsettled += self.tree.add_block(store.point_of(name, row))
        self.denied.note(kept.denying)
        for miner, slot, sealed in kept.seals:
            self.watch.note_seal(miner, slot, sealed)
        self._count((*kept.votes, *self._kept.votes))
        self._at = kept.at

    def _plant(self, name: BlockHash, row: store.BlockRow) -> None:
        self._rows = {name: row}
        self.tree = ForkTree(store.point_of(name, row), self._below)

    def _below(self, point: Checkpoint) -> Committee | None:
        """Committee in force at an ancestor of the final block: below it only its own chain has rows, and where these are not kept
        the state knows the last ones."""

        def read(snapshot: Snapshot) -> Committee | None:
            row = store.row(snapshot, point.hash)
            if row is not None:
                return row.committee if row.height == point.height else None
            state = Overlay(store.ChainState(snapshot))
            return committee_at(state, point.height) if state.get(HASH, u64(point.height)) == point.hash else None

        return self._storage.peek(read)

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
            case TakeState():
                self._states.append(message)
            case EndJoin():
                self._ends.append(message)
            case MakeKey():
                self._makes.append(message)
            case SlotBegan(reply):
                self._look_at_time()
                self._blocks += [replace(one, reply=None) for one in self._early.values()]
                self._early = {}
                self._give_up_waiting()
                if self.facts is not None:  # in a quiet chain too; what a late block may still carry stays
                    self.pool.expire(UnixMillis(self.now_ms() - EXPIRED_SLOTS * self.facts.profile.slot_ms))
                self.answer(reply, None)

    async def keep(self) -> None:
        try:
            await self._keep_batch()
        except StoreDamaged as error:
            await self._start_over(error)
            raise

    def keep_failed(self, error: LadingError) -> None:
        """What is in memory is never ahead of the disk but in finality, which is found again from the same votes."""
        for message, _ in self._waiting.values():  # those of earlier batches, which are not failed with this one
            if message.reply is not None and message.reply.is_open:
                message.reply.fail(error)
        self._waiting = {}
        self._blocks, self._items, self._submits, self._seals, self._states, self._ends, self._makes = [], [], [], [], [], [], []

    async def _keep_batch(self) -> None:
        blocks, self._blocks = self._blocks, []
        items, self._items = self._items, []
        submits, self._submits = self._submits, []
        seals, self._seals = self._seals, []
        await self._keep_joining(blocks)
        if self.heights_kept is None and self.tree is not None:
            await self._keep_history(blocks)
        makes, self._makes = self._makes, []
        for make in makes:
            await self._make_key(make)
        if blocks:
            await self._take_blocks(self._with_waiting(blocks))
        if items:
            await self._take_items(items)
        if submits:
            await self._submit(submits)
        for seal in seals:
            await self._promise_seal(seal)
        if self._refused_news:
            await self._keep_refused()
        if self._kept_is_news and await self._try_made():
            await self._try_promises(self._kept)
        if self.tree is not None:
            await self._stop_if_outvoted()
            await self._follow_head()
            await self._settle()
            await self._use_keys()
            await self._vote()

    # --- a chain that begins at an anchor --------------------------------------------------------------------------------

    async def _keep_joining(self, blocks: list[TakeBlock]) -> None:
        """The anchor's block is taken out of ``blocks``; nodes of its state are kept; at the end the chain begins there."""
        states, self._states = self._states, []
        ends, self._ends = self._ends, []
        if self._is_joining:
            for one in [one for one in blocks if self.anchor is not None and one.block.hash == self.anchor.hash]:
                blocks.remove(one)
                await self._begin_join(one)
        for state in states:
            if self._is_joining:
                await self._storage.transact(partial(_with_nodes, state.nodes))
            self.answer(state.reply, None)
        for end in ends:
            if self._is_joining:
                await self._end_join(end)
            self.answer(end.reply, None)

    async def _keep_history(self, blocks: list[TakeBlock]) -> None:
        """Parents of the lowest block are taken out of ``blocks``, as many as follow one another downwards."""
        for message in list(blocks):
            block = message.block
            if block.info.height >= self.lowest_height:
                continue

            def add(snapshot: Snapshot, block: Block = block) -> tuple[Sequence[Write], bool]:
                lowest = store.lowest_height(snapshot)
                (child,) = store.blocks_at(snapshot, lowest)
                row = store.row(snapshot, child)
                if row is None or block.hash != row.parent or block.info.height != lowest - 1:
                    return (), False
                return store.add_history(snapshot, block), True

            try:
                check_block_form(block)
                is_taken = await self._storage.transact(add)
            except (InvalidBlock, DecodeError) as error:
                blocks.remove(message)
                self._answer_block(message, error)
                continue
            if is_taken:
                self.lowest_height = block.info.height
                blocks.remove(message)
                self._answer_block(message, None)

    async def _begin_join(self, message: TakeBlock) -> None:
        """Its hash is the anchor's, so it is checked by it."""
        first = message.block
        try:
            check_block_form(first)
            if first.info.chain != self.chain or self.anchor is None or first.info.height != self.anchor.height:
                raise InvalidBlock(Reason.WRONG_CHAIN, "the anchor names a block of another chain or height")
        except (InvalidBlock, DecodeError) as error:
            self._answer_block(message, error)
            return
        await self._storage.transact(lambda snapshot: (store.begin_join(snapshot, first), None))
        self._join = first
        self._answer_block(message, None)

    async def _end_join(self, message: EndJoin) -> None:
        def finish(snapshot: Snapshot) -> tuple[Sequence[Write], None]:
            overlay = StorageOverlay(snapshot)
            store.finish_join(overlay)
            return overlay.writes, None

        if message.is_whole:
            await self._storage.transact(finish)
            log.info("chain begins at its anchor height=%d", -1 if self.anchor is None else self.anchor.height)
        else:
            log.warning("nobody has the state of the anchor, the whole history is fetched instead")
            self.alerts["anchor"] = "no peer has the state of this node's anchor: the history is fetched; a fresh anchor would be faster"
            await self._storage.transact(lambda snapshot: (store.wipe(snapshot), None))
        await self._load_chain()

    # --- a wrong root with a quorum behind it -----------------------------------------------------------------------------

    async def _load_stopped(self) -> None:
        """Stopped before: still so unless this program, another one perhaps, finds the block right."""
        self.stopped = await self._storage.read(store.stopped)
        if self.stopped is None:
            return
        block = self.stopped.block
        try:
            change = await self._storage.read(lambda snapshot: store.our_result(snapshot, block, chain=self.chain, schedule=self.schedule))
        except (InvalidBlock, Undecided) as error:
            log.error("stopped at a block that this node finds wrong error=%s", error)
        else:
            if change.root == block.info.state_root:
                await self._storage.write([store.drop_stopped()])
                self.stopped = None
                return
        self._alert_stopped()

    def _alert_stopped(self) -> None:
        assert self.stopped is not None
        self.alerts["roots"] = (
            f"stopped at height {self.stopped.block.info.height}: a quorum voted for a block whose state this node computes otherwise; "
            "compare with `lading ledger diff PEER`, install the version that the others run"
        )

    def _note_wrong(self, block: Block) -> None:
        """Everything about it holds but the state root: others may have voted for it."""
        if len(self._wrong) >= WRONG_BLOCKS_MAX:
            oldest = next(iter(self._wrong))
            self._wrong_votes.pop(oldest, None)
            del self._wrong[oldest]
        self._wrong[block.hash] = block
        self._weigh_wrong(self.votes.values())

    def _note_beyond(self, block: Block) -> None:
        """A block on top of a wrong one may carry votes for it: those who settled long ago have no others."""
        parent = decode_header(block.header).parent
        if (parent in self._wrong or parent in self._beyond) and len(self._beyond) < BEYOND_BLOCKS_MAX:
            self._beyond[block.hash] = None
            self._weigh_wrong(block.votes)

    def _weigh_wrong(self, votes: Iterable[Vote]) -> None:
        """Votes for wrong blocks by members of the committee at their parents, signatures checked."""
        for vote in votes:
            block = self._wrong.get(vote.target.hash)
            parent = None if block is None else decode_header(block.header).parent
            if self.tree is None or parent is None or parent not in self.tree:
                continue
            key = self.tree.point(parent).committee.key_of(vote.member)
            if key is not None and vote.chain == self.chain and _is_signed_by(vote, key):
                self._wrong_votes.setdefault(vote.target.hash, {})[vote.member] = vote

    async def _stop_if_outvoted(self) -> None:
        """A quorum behind a block that we find wrong: one of us is mistaken, and nobody here can say who. Follow nothing, say so."""
        for name, votes in self._wrong_votes.items():
            block = self._wrong[name]
            parent = decode_header(block.header).parent
            if self.stopped is not None or self.tree is None or parent not in self.tree:
                continue
            if len(votes) >= self.tree.point(parent).committee.quorum:
                shown = tuple(votes[member] for member in sorted(votes))
                await self._storage.write([store.put_stopped(block, shown)])
                self.stopped = store.Stopped(format=FORMAT, suite=SUITE, block=block, votes=shown)
                log.error("a quorum voted for a block whose state is another here height=%d", block.info.height)
                self._alert_stopped()

    async def difference(
        self, fetch: Callable[[Checkpoint, Sequence[NodeAt]], Awaitable[Mapping[bytes, StateNode]]]
    ) -> StateDifference | None:
        """The first key at which this node's state after the block that it stopped at differs from what a peer has; None where it has not
        stopped. fetch: checked nodes of that peer's state, by name; those that it lacks left out. Raises Refused(NOT_FOUND).
        """
        at = self.stopped
        if at is None:
            return None
        change = await self._storage.read(lambda snapshot: store.our_result(snapshot, at.block, chain=self.chain, schedule=self.schedule))
        theirs: dict[bytes, StateNode] = {}
        while True:
            found = await self._storage.read(lambda snapshot: compare(snapshot, change, at.block.info.state_root, theirs))
            if not isinstance(found, tuple):
                return found
            nodes = await fetch(Checkpoint(at.block.info.height, at.block.hash), (found,))
            if found[1] not in nodes:
                raise Refused(Reason.NOT_FOUND, "the peer has that state no more")
            theirs.update(nodes)

    # --- blocks -------------------------------------------------------------------------------------------------------

    def _give_up_waiting(self) -> None:
        """Blocks whose parents did not come in time are judged as they stand."""
        for parent, (message, since_ms) in list(self._waiting.items()):
            if self._steady_ms() - since_ms > PARENT_WAIT_MS:
                del self._waiting[parent]
                self._blocks.append(replace(message, waits=False))

    def _with_waiting(self, messages: list[TakeBlock]) -> list[TakeBlock]:
        """Each followed by the one that waited for it; those that wait themselves left out."""
        ordered: list[TakeBlock] = []
        here = {message.block.hash for message in messages}
        for message in messages:
            if message.waits and self._is_to_wait(message, here):
                continue
            ordered.append(message)
            while (entry := self._waiting.pop(ordered[-1].block.hash, None)) is not None:
                ordered.append(entry[0])
        return ordered

    def _is_to_wait(self, message: TakeBlock, here: set[BlockHash]) -> bool:
        parent = decode_header(message.block.header).parent  # who asked has decoded it before
        if parent in here or parent in self._waiting or len(self._waiting) >= WAITING_BLOCKS_MAX:
            return False
        if self._storage.peek(lambda snapshot: store.row(snapshot, parent)) is not None:
            return False
        self._waiting[parent] = (message, self._steady_ms())
        return True

    async def _take_blocks(self, messages: Sequence[TakeBlock]) -> None:
        asked = frozenset(one.block.hash for one in messages if not one.eager)
        outcomes = await self._judge_and_keep([one.block for one in messages], asked)
        for message, outcome in zip(messages, outcomes, strict=True):
            if isinstance(outcome, store.Executed):
                self._add(outcome)
                self._note_seal(message.block)
                self.denied.note(message.block.transactions)
                self._received_ms[outcome.point.hash] = message.at_ms
                if message.eager:
                    self._tell(BlockTaken(message.block, message.source))
                log.debug("block taken height=%d block=%s", outcome.point.height, outcome.point.hash.hex()[:8])
            elif outcome is not None:
                self._note_refused(message.block)
                if isinstance(outcome, InvalidBlock) and outcome.reason is Reason.STATE_ROOT:
                    self._note_wrong(message.block)
                elif isinstance(outcome, Undecided):
                    self._note_beyond(message.block)
            self._answer_block(message, outcome)

    def _note_seal(self, block: Block) -> None:
        if block.info.height:
            self.watch.note_seal(block.info.miner, block.info.slot, Sealed(block.hash, block.seal))

    def _note_refused(self, block: Block) -> None:
        """A block that is not kept was sealed all the same: beside another of its slot it says something of its miner."""
        miner, slot = block.info.miner, block.info.slot
        if self.facts is None:
            return
        for key in self.facts.keys.get(miner, frozenset()):
            try:
                check_seal(key, self.chain, slot, block.hash, block.seal)
            except InvalidBlock:
                continue
            self._note_seal(block)

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
        votes = tuple(votes)
        if self._wrong:
            self._weigh_wrong(votes)
        for vote in votes:
            if vote_id(vote) not in self.votes:
                self.watch.note_vote(vote)
                self.votes[vote_id(vote)] = vote
                self._unsettled += self.tree.add_vote(vote)
                self._notice_own(vote)

    def _notice_own(self, vote: Vote) -> None:
        """A vote of our own key above every promise: the file is older than what was said, which is no better than none."""
        kept = self._kept
        if not kept.may_vote or vote.member != self.keys.account or vote.target.height <= kept.promises.target_height:
            return
        if any(_is_signed_by(vote, key) for key in self._vote_keys()):
            log.error("promises of this node are older than its votes: it votes no more; its voting key needs to be rotated")
            self._kept = Kept(kept.format, kept.chain, kept.promises, False, kept.votes)
            self._lost_promises = True
            self._kept_is_news = True
            if (waiting := self._waiting_key()) is not None:  # somebody else speaks with it: it is not ours alone to begin
                self._made = self._begun(waiting)

    def _answer_block(self, message: TakeBlock, outcome: store.Executed | LadingError | None) -> None:
        if isinstance(outcome, Undecided) and outcome.reason is Reason.TOO_EARLY and self._hold(message):
            outcome = None
        if isinstance(outcome, InvalidObject | DecodeError):
            block = message.block
            verdict = self._note_fault("block", outcome.reason, message.source, block.hash, height=block.info.height)
            if message.source is not None:
                verdict = Verdict.BAN if outcome.reason in BAN_REASONS else verdict
                outcome = RemoteError(outcome.reason, f"block: {outcome.message}", verdict=verdict)
        if message.reply is None:
            return
        if isinstance(outcome, LadingError):
            self.refuse(message.reply, outcome)
        else:
            self.answer(message.reply, None)

    def _note_fault(self, item: refused.Item, reason: Reason, source: PeerId | None, name: bytes, *, height: int = 0) -> Verdict:
        """Counts what was refused, and against whom; what becomes of the peer. On disk before anybody is answered."""
        key = (item, reason)
        peer = PeerId(b"") if source is None else source
        self.refused[key] = refused.add(self.refused.get(key), now_ms=self.now_ms(), name=name, height=height, peer=peer)
        self._refused_news[key] = None
        log.warning("%s refused reason=%s name=%s peer=%s", item, reason.stable_name, name.hex()[:8], peer.hex()[-8:] or "none, made here")
        return Verdict.DROP if source is None else self.faults.note(source, self._steady_ms() / 1000)

    async def _keep_refused(self) -> None:
        """A disk that is full keeps the count waiting and nobody else."""
        try:
            await self._storage.write([refused.put(key, self.refused[key]) for key in self._refused_news])
        except StoreFull as error:
            log.warning("what was refused is not written down error=%s", error)
        else:
            self._refused_news = {}

    def _hold(self, message: TakeBlock) -> bool:
        """Holds a block until its time; of too many those whose time comes first. False when it is not held."""
        self._early[message.block.hash] = message
        if len(self._early) > EARLY_BLOCKS_MAX:
            last = max(self._early.values(), key=lambda one: (decode_header(one.block.header).t_stamp_ms, one.block.hash))
            del self._early[last.block.hash]
        return message.block.hash in self._early

    async def _judge_and_keep(
        self, blocks: Sequence[Block], asked: frozenset[BlockHash] = frozenset()
    ) -> list[store.Executed | LadingError | None]:
        """Outcome of each, in order: kept; known already (None); or why not. What was kept is durable. asked: those that we asked for."""
        now_ms = self.now_ms()
        made = [one for block in blocks for one in reversed(block.transactions)]  # each block from its end: see ``verify_ahead``
        writes, outcomes, at = await self._read_beside(made, lambda snapshot: self._judge(snapshot, blocks, now_ms, asked))
        if writes:
            await self._storage.write(writes)
            self._at = at
        return outcomes

    async def _read_beside(self, transactions: Sequence[Transaction], judge: Callable[[Snapshot], T]) -> T:
        """``judge`` over a snapshot in a pool thread; where there is much to verify, a second one verifies ahead of it meanwhile.

        transactions: those last that are judged first. The pool's were verified when they came into it.
        """
        if len(transactions) < AHEAD_TRANSACTIONS_MIN or self.facts is None:
            return await self._storage.read(judge)
        network, kinds = self.facts.profile.network, self.schedule[max(self.schedule)].kinds

        def ahead(is_over: Callable[[], bool]) -> int:
            fresh = (one for one in transactions if one.id not in self.pool)
            return verify_ahead(fresh, network, kinds, is_over=is_over)

        return await run_beside(self._offload, ahead, lambda: self._storage.read(judge))

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
            if self._is_joining:
                outcomes.append(Undecided(Reason.UNKNOWN_PARENT, "this node begins at its anchor, whose state is not here yet"))
                continue
            if self.stopped is not None or block.hash in self._wrong:
                outcomes.append(Undecided(Reason.STATE_ROOT, "this node finds another state than the block says, and waits for votes"))
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
        if self.anchor is not None and block.info.height == self.anchor.height and block.hash != self.anchor.hash:
            raise InvalidBlock(Reason.WRONG_CHAIN, "not the block that this node's anchor names")
        if header.parent not in fresh and (self.tree is None or header.parent not in self.tree):
            raise Undecided(Reason.UNKNOWN_PARENT, "the parent is not here, or not above the final block")
        profile = load_profile(Overlay(store.ChainState(overlay)))
        check_arrival(header, network_now_ms=now_ms, drift_ms_max=profile.drift_ms_max)
        same = [name for name in store.blocks_at(overlay, block.info.height) if self._is_twin(overlay, name, block)]
        twins_max = BLOCKS_PER_SLOT_ASKED_MAX if block.hash in asked else BLOCKS_PER_SLOT_MAX
        if len(same) >= twins_max and not self._is_backed(block.hash):
            raise RemoteError(Reason.FLOOD, "a miner sealed more than twice in one slot", verdict=Verdict.IGNORE)
        return store.execute(overlay, block, chain=self.chain, schedule=self.schedule)

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

    async def _take_items(self, messages: Sequence[TakeItems]) -> None:
        """What waits is judged in one turn of a pool thread, and votes are kept in one commit; each message has its own answer."""
        if self.tree is None:
            for message in messages:
                self.answer(message.reply, None)
            return
        wanted = [[one for one in message.transactions if one.id not in self.pool and self.stopped is None] for message in messages]
        made = tuple(one for some in wanted for one in some)
        judged_all = await self._read_beside(made[::-1], lambda snapshot: self.judge_all(snapshot, made)) if made else []
        errors = iter(judged_all)
        for message, some in zip(messages, wanted, strict=True):
            judged = [(one, next(errors)) for one in some]
            try:
                votes = await self._checked_votes(message.source, message.votes)
                taken = self._checked_transactions(message.source, judged)
            except RemoteError as error:
                self.refuse(message.reply, error)
                continue
            await self._keep_votes(votes)
            if taken or votes:
                self._tell(ChainItems(taken, tuple(vote_id(one) for one in votes), message.source))
            self.answer(message.reply, None)

    async def _checked_votes(self, source: PeerId, votes: Iterable[Vote]) -> list[Vote]:
        """Those to keep. Raises RemoteError for one that carries no member's signature.

        The committees at our head, at the final block and at the vote's target are asked. Where the target is not here, the member's key
        may have changed on the way to it: such a vote is passed over, and comes again when its block is here.
        """
        assert self.tree is not None
        head, final = self.tree.head(), self.tree.final
        settled = self._rows[final.hash].carried
        of_member: dict[AccountId, int] = {}
        for one in self.votes.values():
            of_member[one.member] = of_member.get(one.member, 0) + 1
        asked: list[tuple[Vote, frozenset[bytes]]] = []
        for vote in votes:
            points = [head, final, *([self.tree.point(vote.target.hash)] if vote.target.hash in self.tree else [])]
            keys = frozenset(key for key in (point.committee.key_of(vote.member) for point in points) if key is not None)
            if vote.chain != self.chain or (not keys and vote.target.hash in self.tree):
                self._refuse_again(vote_id(vote))
            elif keys and settled < vote.target.height <= head.height + VOTE_AHEAD_MAX:
                of_member[vote.member] = of_member.get(vote.member, 0) + 1
                if of_member[vote.member] <= VOTES_PER_MEMBER_MAX:
                    asked.append((vote, keys))
        if not asked:
            return []
        # Off the event loop: a full message of votes takes a tenth of a second to verify on a laptop.
        signed = await self._offload.run(lambda: [any(_is_signed_by(vote, key) for key in keys) for vote, keys in asked])
        for (vote, _), is_signed in zip(asked, signed, strict=True):
            if not is_signed and vote.target.hash in self.tree:
                self._note_fault("vote", Reason.BAD_SIGNATURE, source, vote_id(vote), height=vote.target.height)
                raise RemoteError(Reason.BAD_SIGNATURE, "a vote that its member did not sign", verdict=Verdict.BAN)
        return [vote for (vote, _), is_signed in zip(asked, signed, strict=True) if is_signed]

    async def _keep_votes(self, votes: Sequence[Vote]) -> None:
        """Durable, then counted."""
        fresh = {vote_id(one): one for one in votes if vote_id(one) not in self.votes}
        if not fresh:
            return
        await self._storage.write([store.put_vote(one) for one in fresh.values()])
        self._count(fresh.values())

    def _checked_transactions(
        self, source: PeerId, judged: Iterable[tuple[Transaction, InvalidTransaction | Undecided | None]]
    ) -> tuple[bytes, ...]:
        """Pools those that hold. Raises RemoteError for a transaction that is wrong in itself."""
        taken: list[bytes] = []
        for transaction, error in judged:
            name = transaction.id
            if name in self.pool or isinstance(error, Undecided):  # another message of the batch brought it too; or who can say
                continue
            if error is not None and error.reason in (Reason.BAD_SIGNATURE, Reason.UNKNOWN_FORMAT, Reason.TOO_LONG, Reason.WRONG_CHAIN):
                self._note_fault("transaction", error.reason, source, name)
                raise RemoteError(error.reason, f"transaction: {error.message}", verdict=Verdict.BAN)
            if error is not None and error.reason not in MAY_BECOME_VALID:
                if error.reason not in OF_SIGNATURES:
                    self._refuse_again(name)
                continue
            try:
                self.pool.offer(transaction, Origin.INBOUND, source)
            except Refused:
                continue
            self.denied.note((transaction,))
            taken.append(name)
        return tuple(taken)

    def _refuse_again(self, name: bytes) -> None:
        if len(self._refused) >= REFUSED_KEPT_MAX:
            del self._refused[next(iter(self._refused))]
        self._refused[name] = None

    def judge_all(self, snapshot: Snapshot, transactions: Sequence[Transaction]) -> list[InvalidTransaction | Undecided | None]:
        """In a pool thread: each alone, in the next block, now. Undecided(RULE_SET): this program lacks the next block's rules."""
        view, at = store.ChainState(snapshot), store.state_at(snapshot)
        assert at is not None
        parent = store.header(snapshot, at)
        state = Overlay(view)
        slot = slot_of(self.now_ms(), genesis_ms=genesis_time_ms(state), slot_ms=load_profile(state).slot_ms)
        try:
            return [*check_transactions(view, parent, transactions, slot=slot, chain=self.chain, schedule=self.schedule)]
        except Undecided as error:  # of the next block's rules, which are the same for all
            return [error for _ in transactions]

    async def _submit(self, messages: Sequence[Submit]) -> None:
        """All judged in one turn of a pool thread, and kept in one commit."""
        if self.stopped is not None:
            for message in messages:
                self.refuse(message.reply, Refused(Reason.STATE_ROOT, "this node has stopped: a quorum finds another state than it does"))
            return
        if self.tree is None:
            for message in messages:
                self.refuse(message.reply, Refused(Reason.NOT_FOUND, "the chain's first block is not here yet"))
            return
        made = [one for message in messages for one in message.transactions]
        found = iter(await self._read_beside(made[::-1], lambda snapshot: self.judge_all(snapshot, made)))
        taken: list[Transaction] = []
        for message in messages:
            errors: list[LadingError | None] = [self._offer(one, next(found)) for one in message.transactions]
            taken += [one for one, error in zip(message.transactions, errors, strict=True) if error is None]
            self.answer(message.reply, tuple(errors))
        if not taken:
            return
        await self._storage.write([store.put_own(one) for one in taken])
        self._own.update({one.id: one.content.until_ms for one in taken})
        self.denied.note(tuple(taken))
        self._tell(ChainItems(tuple(one.id for one in taken), (), None))

    def _offer(self, transaction: Transaction, error: InvalidTransaction | Undecided | None) -> LadingError | None:
        """Into the pool, made here; why not."""
        if error is not None:
            return error
        try:
            self.pool.offer(transaction, Origin.OUTBOUND)
        except Refused as refused:
            return refused
        return None

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
        assert self.facts is not None
        final_ms = slot_start_ms(final.slot, genesis_ms=self.facts.genesis_ms, slot_ms=self.facts.profile.slot_ms)

        own, may_let_go = dict(self._own), self.may_let_go

        def write(snapshot: Snapshot) -> tuple[list[Write], tuple[set[TxId], set[TxId]]]:
            included = {one for point in newly for one in _ids_of(snapshot, point.hash)}
            # What no block after the final one can carry goes too: refused for good, or never included.
            done = {name for name, until_ms in own.items() if name in included or until_ms < final_ms}
            settled = store.settle(snapshot, final.hash, dead, counted)
            kept = self.heights_kept if may_let_go or store.lowest_height(snapshot) else None
            forgotten = store.forget(snapshot, final=final.height, heights_kept=kept)
            return [*settled, *forgotten, *(store.drop_own(name) for name in sorted(done))], (done, included)

        try:
            done, included = await self._storage.transact(write)
        except LadingError:
            self._unsettled = [*newly, *self._unsettled]
            raise
        self._own = {name: until_ms for name, until_ms in self._own.items() if name not in done}
        self.denied.settle(included, final_ms)
        self._rows = kept
        for vote in counted:
            del self.votes[vote_id(vote)]
        for name in [name for name, block in self._wrong.items() if block.info.height <= final.height]:
            del self._wrong[name]
            self._wrong_votes.pop(name, None)
        self._received_ms = {name: at_ms for name, at_ms in self._received_ms.items() if name in kept}
        for point in newly:
            self._tell(BlockFinal(point.height, point.hash))
        await self._keep_successions()

    async def _keep_successions(self) -> None:
        """What shows light nodes that another committee followed; votes and states that it is made of will not stay."""
        tree = self.tree
        assert tree is not None
        final, head = tree.final, tree.head()
        if final.committee.generation == self._shown_generation:
            return
        path = {point.height: point.hash for point in tree.ancestors(head.hash)}
        loose = tuple(self.votes.values())

        def write(snapshot: Snapshot) -> tuple[list[Write], bool]:
            def name_at(height: int) -> BlockHash | None:
                return path.get(height) if height >= final.height else next(iter(store.blocks_at(snapshot, height)), None)

            writes = chain_proofs.keep_successions(snapshot, name_at, head.height, final.height, loose)
            return writes, bool(writes)

        if await self._storage.transact(write):
            self._shown_generation = final.committee.generation

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
        if left:  # what another branch refused, this one may want
            self._refused = {}
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
        maintainers = set(row.committee.members)
        for name, _ in state.iterate(MINER):
            miner = state.load(MINER, name, Miner)
            assert miner is not None
            keys[miner.account] = keys.get(miner.account, frozenset()) | {miner.key}
            maintainers |= {miner.account} if miner.is_certified else set()
        miners = frozenset(next_term(view, row.slot + 1).miners)
        due_ms = next_due_ms(state)
        return HeadFacts(load_profile(state), genesis_time_ms(state), row.slot, miners, keys, due_ms, frozenset(maintainers))

    # --- promises, votes ----------------------------------------------------------------------------------------------

    async def _keep_promises(self, kept: Kept) -> None:
        """On the disk when this returns: nothing that it is about may leave before."""
        try:
            await self._offload.run(self._promise_store.save, kept)
        except OSError as error:
            raise LadingError(Reason.FAILED, f"promises cannot be written: {error}") from error
        self._kept, self._kept_is_news = kept, False

    async def _try_promises(self, kept: Kept) -> bool:
        """False when they cannot be written: then nothing is said, and all else goes on."""
        try:
            await self._keep_promises(kept)
        except LadingError as error:
            self.alerts["promises-file"] = f"{error.message}: this node neither votes nor seals until they can be"
            return False
        self.alerts.pop("promises-file", None)
        return True

    async def _try_made(self) -> bool:
        """The same for which keys are in use."""
        try:
            if self._ring is not None:
                await self._save_made(self._made)
        except LadingError as error:
            self.alerts["promises-file"] = f"{error.message}: this node neither votes nor seals until they can be"
            return False
        return True

    # --- keys that are rotated ----------------------------------------------------------------------------------------

    def _seal_keys(self) -> dict[bytes, SigningKey]:
        """All that this node ever had, by public key."""
        first = [] if self._first_keys.seal is None else [self._first_keys.seal]
        return {key.public: key for key in (*first, *(key for one, key in self._made if one.what == "seal"))}

    def _vote_keys(self) -> dict[bytes, tuple[SigningKey, Rotated | None]]:
        """Those whose words the promises cover, and what waits to begin; the entry of each, None of the first one."""
        found: dict[bytes, tuple[SigningKey, Rotated | None]] = {}
        if self._first_keys.vote is not None:
            found[self._first_keys.vote.public] = (self._first_keys.vote, None)
        for one, key in self._made:
            if one.begins == "began":
                found = {}
            if one.what == "vote":
                found[key.public] = (key, one)
        return found

    def _waiting_key(self) -> Rotated | None:
        """The entry of the voting key in use, where it has not begun yet."""
        key = self.keys.vote
        entry = None if key is None else self._vote_keys().get(key.public, (key, None))[1]
        return entry if entry is not None and entry.begins == "waits" else None

    async def _make_key(self, message: MakeKey) -> None:
        """Durable before anybody hears of the key."""
        ring = self._ring
        if ring is None or self._first_keys.vote is None or self.tree is None:
            self.refuse(message.reply, Refused(Reason.REFUSED, "this node has no keys to vote or seal with", hint=_FIRST_NODE))
            return
        if len(self._made) >= ROTATIONS_MAX:
            self.refuse(message.reply, Refused(Reason.FULL, f"{ROTATIONS_MAX} keys were made here already"))
            return
        named = self.tree.head().committee.key_of(self.keys.account)
        knows = self._kept.may_vote and named in self._vote_keys() and self._waiting_key() is None
        made = Rotated(what=message.what, salt=message.salt, begins="follows" if knows or message.what == "seal" else "waits")
        key = ring.key(made)
        try:
            await self._save_made((*self._made, (made, key)))
        except LadingError as error:
            self.refuse(message.reply, error)
            return
        self.answer(message.reply, key)

    async def _save_made(self, made: tuple[tuple[Rotated, SigningKey], ...]) -> None:
        assert self._ring is not None
        try:
            await self._offload.run(self._ring.save, tuple(one for one, _ in made))
        except OSError as error:
            raise LadingError(
                Reason.FAILED, f"which keys are in use cannot be written: {error}", hint="make room or make identity/ writable, then again"
            ) from error
        self._made = made

    def _begun(self, waiting: Rotated) -> tuple[tuple[Rotated, SigningKey], ...]:
        """With this entry begun, and no other ever to begin before it."""
        return tuple((replace_record(one, begins="began") if one == waiting else one, key) for one, key in self._made)

    async def _use_keys(self) -> None:
        """Those that the chain names at the head; and a voting key that waited begins when its change is final."""
        if self.facts is None or self.tree is None:
            return
        account = self.keys.account
        committee, final = self.tree.head().committee, self.tree.final
        named = committee.key_of(account)
        votes, seals = self._vote_keys(), self._seal_keys()
        if named is not None and named in votes:
            self.keys = replace(self.keys, vote=votes[named][0])
        for key in self.facts.keys.get(account, frozenset()) & seals.keys():
            self.keys = replace(self.keys, seal=seals[key])
        waiting = self._waiting_key()
        # A committee is in force from the block after the one that made it.
        if (
            waiting is not None
            and self.keys.vote is not None
            and named == self.keys.vote.public
            and committee.from_height <= final.height + 1
        ):
            # First that it has begun, then what it promises: a crash between the two leaves a silent node, not one that begins again.
            promises = Promises(0, 0, self._kept.promises.sealed_slot)
            before, self._made = self._made, self._begun(waiting)
            if not await self._try_made():
                self._made = before
            elif await self._try_promises(Kept(self._kept.format, self.chain, promises, True, ())):
                log.warning("another voting key is in force, what was promised begins with it")
        self._alert_keys(named)

    def _alert_keys(self, named: bytes | None) -> None:
        """Why this member's seat is silent, and the command that mends it."""
        assert self.tree is not None
        is_here = named in self._vote_keys()
        if self._first_keys.vote is None or named is None or (self._kept.may_vote and is_here and self._waiting_key() is None):
            self.alerts.pop("promises", None)
            return
        committee = self.tree.head().committee
        lost = "what this node promised is lost, or older than what it said"
        why = lost if is_here else "the key of this member's seat is not on this node, or what it promised is lost"
        if self._waiting_key() is not None:
            how = "another key was made and votes when its change is final"
        elif len(committee.seats) - 1 >= committee.quorum:
            how = "lading council rotate makes another key, which votes when the change is final"
        else:  # without this member there is no quorum that could make the change final
            how = "lading stop, then lading council recover KIT: without this member no change becomes final"
        self.alerts["promises"] = f"{why}: it does not vote; {how}"

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
        if self._waiting_key() is not None:
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
        shown = tree.votes_behind(source.hash, most=PROMISED_VOTES_MAX)
        if not await self._try_promises(Kept(self._kept.format, self.chain, promises, True, shown)):
            return
        vote = sign_vote(key, self.chain, source, target, self.keys.account)
        await self._keep_votes([vote])
        self._tell(ChainItems((), (vote_id(vote), *(vote_id(one) for one in shown if vote_id(one) in self.votes)), None))
        await self._follow_head()
        await self._settle()

    def _is_timely(self, head: BlockPoint, facts: HeadFacts) -> bool:
        received = self._received_ms.get(head.hash)
        start = slot_start_ms(head.slot, genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms)
        late, slot = facts.profile.late_ms, facts.profile.slot_ms
        if received is None:
            return False
        return is_timely(received_ms=self._network_ms(received), slot_start_ms=start, late_ms=late, slot_ms=slot)

    def _tell(self, fact: object) -> None:
        self.after_keep(lambda: self._bus.publish(fact))


def _with_nodes(nodes: Sequence[StateNode], snapshot: Snapshot) -> tuple[list[Write], None]:
    return put_nodes(snapshot, nodes), None


def time_trouble(time: NetworkTime) -> str:
    """Why this node neither seals nor votes, and what to do; empty where its time is good, or will be in a moment."""
    match time.state:
        case TimeState.UNKNOWN:
            return (
                "network time is not known: this machine's clock is behind what is known to have happened, and too few members say what "
                "time it is; this node neither seals nor votes until it is set"
            )
        case TimeState.ASTRAY:
            minutes = round(abs(time.agreement().gap_ms) / 60_000)
            return (
                f"network time is {minutes} minutes from what this node counted: it neither seals nor votes; look which clock is wrong, "
                "set it, and start the node again"
            )
        case _:
            return ""


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
