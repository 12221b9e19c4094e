"""One end of a ledger stream: heads and ids announced, bodies pulled, headers first, then blocks in bounded pages.

The machine knows no chain: it asks its surroundings and hands up what arrives, unchecked but for form, order and number. Nothing that
was not asked for is taken, but ids, heads, signs of life and one new block at a time. Source: SPEC.md §Talk.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..codec import encode
from ..crypto import sha256
from ..effects import Close, Effect, Send
from ..errors import InvalidObject, Reason, RemoteError
from ..limits import (
    BLOCKS_PER_PAGE_MAX,
    CHALLENGE_BYTES,
    HEADERS_PER_PAGE_MAX,
    LEDGER_BEAT_S,
    LEDGER_BODIES_BYTES_MAX,
    LEDGER_IDS_PER_MESSAGE_MAX,
    LEDGER_PATIENCE_S,
    LEDGER_RECONCILE_S,
    LEDGER_SILENCE_MAX_S,
    LEDGER_WANTED_MAX,
    LIGHT_BUNDLES_PER_MESSAGE_MAX,
    LIGHT_KEY_BYTES_MAX,
    LIGHT_KEYS_PER_MESSAGE_MAX,
    LIGHT_SUCCESSIONS_MAX,
    LOCATOR_HASHES_MAX,
    NUMBER_MAX,
    STATE_NODES_PER_MESSAGE_MAX,
    TIME_MS_MAX,
    TIME_REPORTS_KEPT,
    WITNESSES_MAX,
)
from ..machine import Machine, Outcome, Row
from ..types import BlockHash, ChainId
from .alive import Told, Witness
from .block import Block
from .envelope import Transaction
from .messages import (
    Alive,
    Announce,
    AskBlocks,
    AskBundles,
    AskFinal,
    AskHeaders,
    AskHistory,
    AskInclusion,
    AskProofs,
    AskState,
    Bodies,
    Bundles,
    Final,
    GiveBlock,
    Given,
    GiveState,
    Headers,
    Hello,
    History,
    Included,
    NewBlock,
    Proofs,
    Pruned,
    Tip,
    Want,
)
from .snapshot import NodeAt, StateNode, check_place
from .sync import HeaderRow
from .votes import Checkpoint, Vote


class TalkState(enum.Enum):
    IDLE = "idle"
    GREETED = "greeted"
    OPEN = "open"
    CLOSED = "closed"


# --- what happens -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Opened:
    """The stream stands. challenge: drawn for it, 32 bytes."""

    chain: ChainId
    challenge: bytes


@dataclass(frozen=True, slots=True)
class HeadMoved:
    """Where this node stands now; also the answer to DescribeHead."""

    head: Checkpoint
    final: Checkpoint


@dataclass(frozen=True, slots=True)
class HaveItems:
    """Ids of what was taken here, not from this peer; also the answer to DescribeItems."""

    transactions: tuple[bytes, ...]
    votes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Push:
    """This block is new here, and the peer seals or votes."""

    block: Block


@dataclass(frozen=True, slots=True)
class Unknown:
    """Answer to FilterUnknown: those that we lack and want."""

    transactions: tuple[bytes, ...]
    votes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ItemsLoaded:
    """Answer to LoadItems: what was found."""

    transactions: tuple[Transaction, ...]
    votes: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class Located:
    """Answer to Locate. locator: None when the peer's head is known here."""

    locator: tuple[BlockHash, ...] | None


@dataclass(frozen=True, slots=True)
class HeadersLoaded:
    """Answer to LoadHeaders. pruned: 0, or the lowest height kept here, which is above what was asked for; then there are no rows."""

    rows: tuple[HeaderRow, ...]
    pruned: int = 0


@dataclass(frozen=True, slots=True)
class Missing:
    """Answer to CheckHeaders: those of the page's blocks to ask for, oldest first."""

    hashes: tuple[BlockHash, ...]


@dataclass(frozen=True, slots=True)
class BlocksLoaded:
    """Answer to LoadBlocks."""

    blocks: tuple[Block, ...]
    lacking: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class HistoryWanted:
    """Answer to PlanHistory: the lowest block that is here; its ancestors are wanted."""

    before: BlockHash


@dataclass(frozen=True, slots=True)
class HistoryLoaded:
    """Answer to LoadHistory, and oldest first as there."""

    rows: tuple[HeaderRow, ...]


@dataclass(frozen=True, slots=True)
class WantBlock:
    """This one block, of a peer that gives nothing else just now."""

    hash: BlockHash


@dataclass(frozen=True, slots=True)
class WantState:
    """These nodes of the state after a block, at most STATE_NODES_PER_MESSAGE_MAX; one such question at a time."""

    at: Checkpoint
    nodes: tuple[NodeAt, ...]


@dataclass(frozen=True, slots=True)
class StateLoaded:
    """Answer to LoadState."""

    nodes: tuple[StateNode, ...]
    lacking: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Witnessed:
    """Answer to MakeWitnesses."""

    told: Told
    witnesses: tuple[Witness, ...]


LightQuestion = AskFinal | AskBundles | AskProofs | AskInclusion
LightAnswer = Final | Bundles | Proofs | Included
ANSWER_TO: Mapping[type, type] = {AskFinal: Final, AskBundles: Bundles, AskProofs: Proofs, AskInclusion: Included}
"""Which answer a light node's question has."""


@dataclass(frozen=True, slots=True)
class WantLight:
    """A light node asks this; one such question at a time."""

    question: LightQuestion


@dataclass(frozen=True, slots=True)
class LightLoaded:
    """Answer to LoadLight."""

    answer: LightAnswer


@dataclass(frozen=True, slots=True)
class Busy:
    """What was asked for last takes its time: the peer is told that we live."""


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has come (see wake_at)."""


# --- what to do ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DescribeHead:
    """Answer: HeadMoved."""


@dataclass(frozen=True, slots=True)
class DescribeItems:
    """Ids of everything that waits here and of every loose vote. Answer: HaveItems."""


@dataclass(frozen=True, slots=True)
class FilterUnknown:
    """Answer: Unknown."""

    transactions: tuple[bytes, ...]
    votes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LoadItems:
    """Answer: ItemsLoaded."""

    transactions: tuple[bytes, ...]
    votes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Locate:
    """Is this head known, and if not, from where on do we ask? Answer: Located.

    lowest: height of the first block that the peer keeps; below it there is nothing to ask for. final: what the peer calls final.
    """

    head: Checkpoint
    lowest: int = 0
    final: Checkpoint | None = None


@dataclass(frozen=True, slots=True)
class LoadHeaders:
    """Answer: HeadersLoaded."""

    locator: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class CheckHeaders:
    """A page from this peer. Answer: Missing, or a RemoteError."""

    rows_untrusted: tuple[HeaderRow, ...]


@dataclass(frozen=True, slots=True)
class LoadBlocks:
    """Answer: BlocksLoaded."""

    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class DeliverBlock:
    """A block from this peer, unchecked. asked: we asked for it, so its parent should be known."""

    block_untrusted: Block
    asked: bool


@dataclass(frozen=True, slots=True)
class NotGiven:
    """The peer has shown headers of these blocks and has not their bodies: others are asked."""

    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class PlanHistory:
    """The peer has nothing new: is anything old wanted of it? Answer: HistoryWanted, or nothing."""


@dataclass(frozen=True, slots=True)
class LoadHistory:
    """Answer: HistoryLoaded."""

    before: bytes


@dataclass(frozen=True, slots=True)
class CheckHistory:
    """A page of ancestors of ``before``. Answer: Missing, newest first, or a RemoteError."""

    before: BlockHash
    rows_untrusted: tuple[HeaderRow, ...]


@dataclass(frozen=True, slots=True)
class LoadState:
    """Answer: StateLoaded."""

    at: Checkpoint
    nodes: tuple[NodeAt, ...]


@dataclass(frozen=True, slots=True)
class DeliverState:
    """Nodes that we asked this peer for, unchecked, and those that it says it has not."""

    nodes_untrusted: tuple[StateNode, ...]
    lacking: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class LoadLight:
    """A light node's question. Answer: LightLoaded, with what fits one message."""

    question: LightQuestion


@dataclass(frozen=True, slots=True)
class DeliverLight:
    """The answer to our question, unchecked but for its kind and number."""

    question: LightQuestion
    answer_untrusted: LightAnswer


@dataclass(frozen=True, slots=True)
class DeliverItems:
    """Transactions and votes that we asked this peer for, unchecked but for their ids."""

    transactions_untrusted: tuple[Transaction, ...]
    votes_untrusted: tuple[Vote, ...]


@dataclass(frozen=True, slots=True)
class MakeWitnesses:
    """Answer the peer's challenge and tell the time. echo, held_ms: as of ``Told``. Answer: Witnessed."""

    challenge: bytes
    counter: int
    echo: int
    held_ms: int


@dataclass(frozen=True, slots=True)
class HeardAlive:
    """The peer answers our challenge, unchecked.

    round_trip_ms: from what it answers to now, less what it says that it waited; of a liar any number. None: that was too long ago.
    """

    challenge: bytes
    counter: int
    told: Told
    round_trip_ms: int | None
    witnesses_untrusted: tuple[Witness, ...]


def vote_id(vote: Vote) -> bytes:
    """SHA-256 of the vote's encoding. 32 bytes."""
    return sha256(encode(vote))


_OPEN = frozenset({TalkState.OPEN})
_GREETED = frozenset({TalkState.GREETED})
_CLOSED = frozenset({TalkState.CLOSED})


class TalkMachine(Machine):
    """See the module. ``now_s`` is a monotonic clock in seconds."""

    TABLE: ClassVar[Mapping[tuple[enum.Enum, type], Row]] = {
        (TalkState.IDLE, Opened): ("opened", _GREETED),
        (TalkState.GREETED, Hello): ("greeted", _OPEN),
        (TalkState.GREETED, HeadMoved): ("too_soon", _GREETED),
        (TalkState.GREETED, HaveItems): ("too_soon", _GREETED),
        (TalkState.GREETED, Push): ("too_soon", _GREETED),
        (TalkState.GREETED, Busy): ("too_soon", _GREETED),
        (TalkState.GREETED, Tick): ("tick_greeted", frozenset({TalkState.GREETED, TalkState.CLOSED})),
        (TalkState.OPEN, HeadMoved): ("head_moved", _OPEN),
        (TalkState.OPEN, Tip): ("tip", _OPEN),
        (TalkState.OPEN, Located): ("located", _OPEN),
        (TalkState.OPEN, AskHeaders): ("ask_headers", _OPEN),
        (TalkState.OPEN, HeadersLoaded): ("headers_loaded", _OPEN),
        (TalkState.OPEN, Headers): ("headers", _OPEN),
        (TalkState.OPEN, Pruned): ("pruned", _OPEN),
        (TalkState.OPEN, Missing): ("missing", _OPEN),
        (TalkState.OPEN, AskBlocks): ("ask_blocks", _OPEN),
        (TalkState.OPEN, BlocksLoaded): ("blocks_loaded", _OPEN),
        (TalkState.OPEN, GiveBlock): ("give_block", _OPEN),
        (TalkState.OPEN, Given): ("given", _OPEN),
        (TalkState.OPEN, Push): ("push", _OPEN),
        (TalkState.OPEN, NewBlock): ("new_block", _OPEN),
        (TalkState.OPEN, HistoryWanted): ("history_wanted", _OPEN),
        (TalkState.OPEN, AskHistory): ("ask_history", _OPEN),
        (TalkState.OPEN, HistoryLoaded): ("history_loaded", _OPEN),
        (TalkState.OPEN, History): ("history", _OPEN),
        (TalkState.OPEN, WantBlock): ("want_block", _OPEN),
        (TalkState.OPEN, WantState): ("want_state", _OPEN),
        (TalkState.OPEN, AskState): ("ask_state", _OPEN),
        (TalkState.OPEN, StateLoaded): ("state_loaded", _OPEN),
        (TalkState.OPEN, GiveState): ("give_state", _OPEN),
        (TalkState.OPEN, WantLight): ("want_light", _OPEN),
        (TalkState.OPEN, AskFinal): ("ask_light", _OPEN),
        (TalkState.OPEN, AskBundles): ("ask_light", _OPEN),
        (TalkState.OPEN, AskProofs): ("ask_light", _OPEN),
        (TalkState.OPEN, AskInclusion): ("ask_light", _OPEN),
        (TalkState.OPEN, LightLoaded): ("light_loaded", _OPEN),
        (TalkState.OPEN, Final): ("light", _OPEN),
        (TalkState.OPEN, Bundles): ("light", _OPEN),
        (TalkState.OPEN, Proofs): ("light", _OPEN),
        (TalkState.OPEN, Included): ("light", _OPEN),
        (TalkState.OPEN, HaveItems): ("have_items", _OPEN),
        (TalkState.OPEN, Announce): ("announce", _OPEN),
        (TalkState.OPEN, Unknown): ("unknown", _OPEN),
        (TalkState.OPEN, Want): ("want", _OPEN),
        (TalkState.OPEN, ItemsLoaded): ("items_loaded", _OPEN),
        (TalkState.OPEN, Bodies): ("bodies", _OPEN),
        (TalkState.OPEN, Witnessed): ("witnessed", _OPEN),
        (TalkState.OPEN, Alive): ("alive", _OPEN),
        (TalkState.OPEN, Busy): ("busy", _OPEN),
        (TalkState.OPEN, Tick): ("tick", frozenset({TalkState.OPEN, TalkState.CLOSED})),
        (TalkState.CLOSED, Busy): ("after_close", _CLOSED),
        (TalkState.CLOSED, Tick): ("after_close", _CLOSED),
    }

    def __init__(self) -> None:
        super().__init__(TalkState.IDLE)
        self._chain = ChainId(b"")
        self._challenge = b""
        self._their_challenge = b""
        self._counter = 0
        self._their_counter = 0
        self._their_counter_at = 0.0
        self._sent_at: dict[int, float] = {}  # when our last counters left; 0: the greeting
        self._heard_at = 0.0
        self.beat_at = 0.0  # when the peer is next told that we live
        self._reconcile_at = 0.0
        self._wanted: OrderedDict[bytes, float] = OrderedDict()  # id -> when asked
        self._their_head: Checkpoint | None = None
        self._their_final: Checkpoint | None = None
        self._asks_headers = False
        self._is_locating = False
        self._asked: deque[BlockHash] = deque()  # bodies asked for and not here yet, in order
        self._passed_over: set[BlockHash] = set()  # of these, left out so far: named at the end as lacking
        self._queue: deque[BlockHash] = deque()  # the rest of the page
        self._progress_at = 0.0
        self._their_lowest = 0
        self._asks_state = False
        self._asks_history: BlockHash | None = None
        self._asks_light: LightQuestion | None = None

    @property
    def their_head(self) -> Checkpoint | None:
        """Where the peer last said it stands."""
        return self._their_head

    @property
    def is_syncing(self) -> bool:
        """Asked for headers or bodies and not answered yet."""
        return self._asks_headers or bool(self._asked) or self._asks_history is not None

    @property
    def is_waiting(self) -> bool:
        """Asked for anything that has to come within LEDGER_PATIENCE_S."""
        return self.is_syncing or self._asks_state or self._asks_light is not None

    def wake_at(self) -> float | None:
        if self.state is TalkState.GREETED:
            return self._heard_at + LEDGER_SILENCE_MAX_S
        if self.state is not TalkState.OPEN:
            return None
        times = [self.beat_at, self._heard_at + LEDGER_SILENCE_MAX_S, self._reconcile_at]
        return min([*times, self._progress_at + LEDGER_PATIENCE_S] if self.is_waiting else times)

    # --- opening ----------------------------------------------------------------------------------------------------

    def opened(self, event: Opened, now_s: float) -> Outcome:
        self._heard_at = now_s
        self._chain, self._challenge = event.chain, event.challenge
        self._sent_at[0] = now_s
        return TalkState.GREETED, (Send(Hello(event.chain, event.challenge)),)

    def too_soon(self, event: object, now_s: float) -> Outcome:
        """The peer is told where we stand as soon as it has greeted."""
        return TalkState.GREETED, ()

    def greeted(self, event: Hello, now_s: float) -> Outcome:
        if event.chain != self._chain:
            raise RemoteError(Reason.WRONG_CHAIN, "the peer follows another chain")
        if len(event.challenge) != CHALLENGE_BYTES or event.challenge == self._challenge:
            raise RemoteError(Reason.MALFORMED, "a challenge of another length, or our own")
        self._their_challenge = event.challenge
        self._heard_at = self._their_counter_at = now_s
        self.beat_at = now_s + LEDGER_BEAT_S
        self._reconcile_at = now_s + LEDGER_RECONCILE_S
        return TalkState.OPEN, (*self._beat(now_s), DescribeItems())

    def _beat(self, now_s: float) -> tuple[Effect, ...]:
        self._counter += 1
        self._sent_at[self._counter] = now_s
        if len(self._sent_at) > TIME_REPORTS_KEPT:
            del self._sent_at[next(iter(self._sent_at))]
        held_ms = int((now_s - self._their_counter_at) * 1000)
        return (MakeWitnesses(self._their_challenge, self._counter, self._their_counter, held_ms), DescribeHead())

    # --- heads, headers, blocks -------------------------------------------------------------------------------------

    def head_moved(self, event: HeadMoved, now_s: float) -> Outcome:
        return TalkState.OPEN, (Send(Tip(event.head, event.final)),)

    def tip(self, event: Tip, now_s: float) -> Outcome:
        self._heard_at = now_s
        for point in (event.head, event.final):
            if len(point.hash) != 32 or point.height < 0:
                raise RemoteError(Reason.MALFORMED, "a head that is no block")
        self._their_head, self._their_final = event.head, event.final
        return TalkState.OPEN, self._locate()

    def _locate(self) -> tuple[Effect, ...]:
        if self.is_syncing or self._is_locating or self._their_head is None:
            return ()
        self._is_locating = True
        return (Locate(self._their_head, self._their_lowest, self._their_final),)

    def located(self, event: Located, now_s: float) -> Outcome:
        self._is_locating = False
        if event.locator is None:
            return TalkState.OPEN, (PlanHistory(),)
        assert len(event.locator) <= LOCATOR_HASHES_MAX
        self._asks_headers = True
        self._progress_at = now_s
        return TalkState.OPEN, (Send(AskHeaders(event.locator)),)

    def ask_headers(self, event: AskHeaders, now_s: float) -> Outcome:
        self._heard_at = now_s
        _check_ids(event.locator, LOCATOR_HASHES_MAX)
        return TalkState.OPEN, (LoadHeaders(event.locator),)

    def headers_loaded(self, event: HeadersLoaded, now_s: float) -> Outcome:
        assert len(event.rows) <= HEADERS_PER_PAGE_MAX
        return TalkState.OPEN, (Send(Pruned(event.pruned) if event.pruned else Headers(event.rows)),)

    def pruned(self, event: Pruned, now_s: float) -> Outcome:
        self._heard_at = now_s
        if not self._asks_headers:
            raise RemoteError(Reason.OUT_OF_ORDER, "pruned, but nobody asked")
        if event.lowest < 1:
            raise RemoteError(Reason.MALFORMED, "pruned below the first block")
        self._asks_headers = False
        self._their_lowest = event.lowest
        return TalkState.OPEN, ()

    def headers(self, event: Headers, now_s: float) -> Outcome:
        self._heard_at = now_s
        if not self._asks_headers:
            raise RemoteError(Reason.OUT_OF_ORDER, "headers that nobody asked for")
        if len(event.rows) > HEADERS_PER_PAGE_MAX:
            raise RemoteError(Reason.FLOOD, f"{len(event.rows)} headers in one page, at most {HEADERS_PER_PAGE_MAX} wanted")
        self._asks_headers = False
        return TalkState.OPEN, (CheckHeaders(event.rows),) if event.rows else ()

    def missing(self, event: Missing, now_s: float) -> Outcome:
        self._queue = deque(event.hashes)
        return TalkState.OPEN, self._ask_more(now_s)

    def _ask_more(self, now_s: float) -> tuple[Effect, ...]:
        if not self._queue:
            return ()
        self._asked = deque(self._queue.popleft() for _ in range(min(BLOCKS_PER_PAGE_MAX, len(self._queue))))
        self._progress_at = now_s
        return (Send(AskBlocks(tuple(self._asked))),)

    def ask_blocks(self, event: AskBlocks, now_s: float) -> Outcome:
        self._heard_at = now_s
        _check_ids(event.hashes, BLOCKS_PER_PAGE_MAX)
        return TalkState.OPEN, (LoadBlocks(event.hashes),)

    def blocks_loaded(self, event: BlocksLoaded, now_s: float) -> Outcome:
        return TalkState.OPEN, (*(Send(GiveBlock(block)) for block in event.blocks), Send(Given(event.lacking)))

    def give_block(self, event: GiveBlock, now_s: float) -> Outcome:
        """In the order asked for; those that the peer lacks are left out and named at the end."""
        self._heard_at = self._progress_at = now_s
        name = event.block.hash
        if name not in self._asked:
            raise RemoteError(Reason.OUT_OF_ORDER, "a block that nobody asked for, or out of its order")
        while (passed_over := self._asked.popleft()) != name:
            self._passed_over.add(passed_over)
        return TalkState.OPEN, (DeliverBlock(event.block, asked=True),)

    def given(self, event: Given, now_s: float) -> Outcome:
        self._heard_at = now_s
        _check_ids(event.lacking, BLOCKS_PER_PAGE_MAX)
        if not {*self._passed_over, *self._asked} <= set(event.lacking):  # else it could be asked for the same for ever
            raise RemoteError(Reason.OUT_OF_ORDER, "blocks that were asked for were neither given nor named as lacking")
        self._asked.clear()
        self._passed_over.clear()
        if event.lacking:  # its branch moved away under us; its next head says where to
            left = (*event.lacking, *self._queue)
            self._queue.clear()
            return TalkState.OPEN, (NotGiven(left),)
        return TalkState.OPEN, self._ask_more(now_s) or self._locate()

    def push(self, event: Push, now_s: float) -> Outcome:
        return TalkState.OPEN, (Send(NewBlock(event.block)),)

    def new_block(self, event: NewBlock, now_s: float) -> Outcome:
        self._heard_at = now_s
        return TalkState.OPEN, (DeliverBlock(event.block, asked=False),)

    # --- history, backwards -----------------------------------------------------------------------------------------

    def history_wanted(self, event: HistoryWanted, now_s: float) -> Outcome:
        if self.is_syncing:
            return TalkState.OPEN, ()
        self._asks_history = event.before
        self._progress_at = now_s
        return TalkState.OPEN, (Send(AskHistory(event.before)),)

    def ask_history(self, event: AskHistory, now_s: float) -> Outcome:
        self._heard_at = now_s
        _check_ids((event.before,), 1)
        return TalkState.OPEN, (LoadHistory(event.before),)

    def history_loaded(self, event: HistoryLoaded, now_s: float) -> Outcome:
        assert len(event.rows) <= BLOCKS_PER_PAGE_MAX
        return TalkState.OPEN, (Send(History(event.rows)),)

    def history(self, event: History, now_s: float) -> Outcome:
        self._heard_at = now_s
        if self._asks_history is None:
            raise RemoteError(Reason.OUT_OF_ORDER, "history that nobody asked for")
        if len(event.rows) > BLOCKS_PER_PAGE_MAX:
            raise RemoteError(Reason.FLOOD, f"{len(event.rows)} headers of history, at most {BLOCKS_PER_PAGE_MAX} wanted")
        before, self._asks_history = self._asks_history, None
        return TalkState.OPEN, (CheckHistory(before, event.rows),) if event.rows else ()

    # --- a state, node by node ----------------------------------------------------------------------------------------

    def want_block(self, event: WantBlock, now_s: float) -> Outcome:
        if self.is_syncing:
            return TalkState.OPEN, ()
        self._queue = deque((event.hash,))
        return TalkState.OPEN, self._ask_more(now_s)

    def want_state(self, event: WantState, now_s: float) -> Outcome:
        if self._asks_state:
            return TalkState.OPEN, ()
        assert 0 < len(event.nodes) <= STATE_NODES_PER_MESSAGE_MAX
        self._asks_state = True
        self._progress_at = now_s
        return TalkState.OPEN, (Send(AskState(event.at, event.nodes)),)

    def ask_state(self, event: AskState, now_s: float) -> Outcome:
        self._heard_at = now_s
        _check_ids((event.at.hash,), 1)
        _check_ids([name for _, name in event.nodes], STATE_NODES_PER_MESSAGE_MAX)
        try:
            for place, _ in event.nodes:
                check_place(place)
        except InvalidObject as error:
            raise RemoteError(error.reason, f"state: {error.message}") from error
        return TalkState.OPEN, (LoadState(event.at, event.nodes),)

    def state_loaded(self, event: StateLoaded, now_s: float) -> Outcome:
        return TalkState.OPEN, (Send(GiveState(event.nodes, event.lacking)),)

    def give_state(self, event: GiveState, now_s: float) -> Outcome:
        self._heard_at = now_s
        if not self._asks_state:
            raise RemoteError(Reason.OUT_OF_ORDER, "a state that nobody asked for")
        _check_ids(event.lacking, STATE_NODES_PER_MESSAGE_MAX)
        if len(event.nodes) > STATE_NODES_PER_MESSAGE_MAX:
            raise RemoteError(Reason.FLOOD, f"{len(event.nodes)} nodes at once, at most {STATE_NODES_PER_MESSAGE_MAX} wanted")
        self._asks_state = False
        return TalkState.OPEN, (DeliverState(event.nodes, event.lacking),)

    # --- light nodes --------------------------------------------------------------------------------------------------

    def want_light(self, event: WantLight, now_s: float) -> Outcome:
        if self._asks_light is not None:
            return TalkState.OPEN, ()
        self._asks_light = event.question
        self._progress_at = now_s
        return TalkState.OPEN, (Send(event.question),)

    def ask_light(self, event: LightQuestion, now_s: float) -> Outcome:
        self._heard_at = now_s
        match event:
            case AskBundles(block, _):
                _check_ids((block,), 1)
            case AskProofs(block, keys):
                _check_ids((block,), 1)
                _check_keys(keys)
            case AskInclusion(slot, transaction):
                _check_ids((transaction,), 1)
                _check_numbers(slot)
            case AskFinal(height, generation):
                _check_numbers(height, generation)
        return TalkState.OPEN, (LoadLight(event),)

    def light_loaded(self, event: LightLoaded, now_s: float) -> Outcome:
        return TalkState.OPEN, (Send(event.answer),)

    def light(self, event: LightAnswer, now_s: float) -> Outcome:
        self._heard_at = now_s
        question, self._asks_light = self._asks_light, None
        if question is None or not isinstance(event, ANSWER_TO[type(question)]):
            raise RemoteError(Reason.OUT_OF_ORDER, "an answer to what nobody asked")
        match event:
            case Final(successions, link):
                is_more = len(successions) > LIGHT_SUCCESSIONS_MAX or len(link) > 1
            case Bundles(bundles):
                assert isinstance(question, AskBundles)
                is_more = len(bundles) > (LIGHT_BUNDLES_PER_MESSAGE_MAX if question.after else 1)
            case Proofs(values):
                assert isinstance(question, AskProofs)
                is_more = len(values) > len(question.keys)
            case Included(found):
                is_more = len(found) > 1
        if is_more:
            raise RemoteError(Reason.FLOOD, "more than was asked for")
        return TalkState.OPEN, (DeliverLight(question, event),)

    # --- transactions and votes -------------------------------------------------------------------------------------

    def have_items(self, event: HaveItems, now_s: float) -> Outcome:
        return TalkState.OPEN, tuple(Send(Announce(*part)) for part in _parts(event.transactions, event.votes))

    def announce(self, event: Announce, now_s: float) -> Outcome:
        self._heard_at = now_s
        _check_ids((*event.transactions, *event.votes), LEDGER_IDS_PER_MESSAGE_MAX)
        return TalkState.OPEN, (FilterUnknown(event.transactions, event.votes),)

    def unknown(self, event: Unknown, now_s: float) -> Outcome:
        transactions = self._want(event.transactions, now_s)
        votes = self._want(event.votes, now_s)
        return TalkState.OPEN, tuple(Send(Want(*part)) for part in _parts(transactions, votes))

    def _want(self, ids: Iterable[bytes], now_s: float) -> tuple[bytes, ...]:
        fresh: list[bytes] = []
        for one in ids:
            asked_at = self._wanted.get(one)
            if asked_at is not None and now_s - asked_at < LEDGER_PATIENCE_S:
                continue
            if asked_at is None and len(self._wanted) >= LEDGER_WANTED_MAX:
                break
            self._wanted[one] = now_s
            self._wanted.move_to_end(one)
            fresh.append(one)
        return tuple(fresh)

    def want(self, event: Want, now_s: float) -> Outcome:
        self._heard_at = now_s
        _check_ids((*event.transactions, *event.votes), LEDGER_IDS_PER_MESSAGE_MAX)
        return TalkState.OPEN, (LoadItems(event.transactions, event.votes),)

    def items_loaded(self, event: ItemsLoaded, now_s: float) -> Outcome:
        effects: list[Effect] = []
        transactions: list[Transaction] = []
        size = 0
        for transaction in event.transactions:
            length = len(encode(transaction))
            if transactions and size + length > LEDGER_BODIES_BYTES_MAX:
                effects.append(Send(Bodies(tuple(transactions), ())))
                transactions, size = [], 0
            transactions.append(transaction)
            size += length
        if transactions:
            effects.append(Send(Bodies(tuple(transactions), ())))
        if event.votes:  # about 250 bytes each
            effects.append(Send(Bodies((), event.votes)))
        return TalkState.OPEN, tuple(effects)

    def bodies(self, event: Bodies, now_s: float) -> Outcome:
        """What was never asked for, or is answered twice, is ignored: nobody fills our memory unasked."""
        self._heard_at = now_s
        count = len(event.transactions) + len(event.votes)
        if count > LEDGER_IDS_PER_MESSAGE_MAX:
            raise RemoteError(Reason.FLOOD, f"{count} bodies at once, at most {LEDGER_IDS_PER_MESSAGE_MAX} wanted")
        transactions = tuple(one for one in event.transactions if self._wanted.pop(one.id, None) is not None)
        votes = tuple(one for one in event.votes if self._wanted.pop(vote_id(one), None) is not None)
        return TalkState.OPEN, (DeliverItems(transactions, votes),) if transactions or votes else ()

    # --- signs of life ----------------------------------------------------------------------------------------------

    def witnessed(self, event: Witnessed, now_s: float) -> Outcome:
        assert len(event.witnesses) <= WITNESSES_MAX
        return TalkState.OPEN, (Send(Alive(self._counter, event.told, event.witnesses)),)

    def alive(self, event: Alive, now_s: float) -> Outcome:
        self._heard_at = now_s
        if len(event.witnesses) > WITNESSES_MAX:
            raise RemoteError(Reason.FLOOD, f"{len(event.witnesses)} witnesses, at most {WITNESSES_MAX} wanted")
        if not self._their_counter < event.counter < 1 << 63:
            raise RemoteError(Reason.OUT_OF_ORDER, f"sign of life {event.counter} after {self._their_counter}")
        told = event.told
        if not (0 <= told.time <= TIME_MS_MAX and 0 <= told.echo <= self._counter and 0 <= told.held_ms < 1 << 63):
            raise RemoteError(Reason.MALFORMED, "a time that is none, or the answer to what was never said")
        self._their_counter, self._their_counter_at = event.counter, now_s
        sent_at = self._sent_at.get(told.echo)
        way_ms = None if sent_at is None else int((now_s - sent_at) * 1000) - told.held_ms
        return TalkState.OPEN, (HeardAlive(self._challenge, event.counter, told, way_ms, event.witnesses),) if event.witnesses else ()

    # --- time -------------------------------------------------------------------------------------------------------

    def tick_greeted(self, event: Tick, now_s: float) -> Outcome:
        if now_s >= self._heard_at + LEDGER_SILENCE_MAX_S:
            return TalkState.CLOSED, (Close("the peer does not greet"),)
        return TalkState.GREETED, ()

    def tick(self, event: Tick, now_s: float) -> Outcome:
        if now_s >= self._heard_at + LEDGER_SILENCE_MAX_S:
            return TalkState.CLOSED, (Close(f"no sign of life for {LEDGER_SILENCE_MAX_S:.0f} s"),)
        if self.is_waiting and now_s >= self._progress_at + LEDGER_PATIENCE_S:
            return TalkState.CLOSED, (Close(f"asked for blocks or a state, nothing came for {LEDGER_PATIENCE_S:.0f} s"),)
        effects: list[Effect] = []
        if now_s >= self.beat_at:
            self.beat_at = now_s + LEDGER_BEAT_S
            effects += self._beat(now_s)
        if now_s >= self._reconcile_at:
            self._reconcile_at = now_s + LEDGER_RECONCILE_S
            while self._wanted:
                oldest, asked_at = next(iter(self._wanted.items()))
                if now_s - asked_at < LEDGER_PATIENCE_S:
                    break
                del self._wanted[oldest]
            effects.append(DescribeItems())
        return TalkState.OPEN, tuple(effects)

    def busy(self, event: Busy, now_s: float) -> Outcome:
        self.beat_at = now_s + LEDGER_BEAT_S
        self._progress_at = now_s  # what was asked for may have come meanwhile: it is not read yet
        return TalkState.OPEN, self._beat(now_s)

    def after_close(self, event: Tick | Busy, now_s: float) -> Outcome:
        return TalkState.CLOSED, ()


def _check_ids(ids: Sequence[bytes], count_max: int) -> None:
    if len(ids) > count_max:
        raise RemoteError(Reason.FLOOD, f"{len(ids)} ids at once, at most {count_max} wanted")
    if any(len(one) != 32 for one in ids):
        raise RemoteError(Reason.MALFORMED, "an id that is not 32 bytes")


def _check_keys(keys: Sequence[tuple[str, bytes]]) -> None:
    if not 0 < len(keys) <= LIGHT_KEYS_PER_MESSAGE_MAX:
        raise RemoteError(Reason.FLOOD, f"{len(keys)} keys at once, 1 to {LIGHT_KEYS_PER_MESSAGE_MAX} wanted")
    for space, key in keys:
        if not space.isascii() or not 0 < len(space) < 256 or len(key) > LIGHT_KEY_BYTES_MAX:
            raise RemoteError(Reason.MALFORMED, "a key that no state has")


def _check_numbers(*numbers: int) -> None:
    if any(not 0 <= number <= NUMBER_MAX for number in numbers):
        raise RemoteError(Reason.MALFORMED, "a number outside the 63-bit range")


def _parts(transactions: Sequence[bytes], votes: Sequence[bytes]) -> list[tuple[tuple[bytes, ...], tuple[bytes, ...]]]:
    """Both lists in pieces that fit one message each."""
    size = LEDGER_IDS_PER_MESSAGE_MAX
    found = [((), tuple(votes[at : at + size])) for at in range(0, len(votes), size)]
    return [*found, *((tuple(transactions[at : at + size]), ()) for at in range(0, len(transactions), size))]
