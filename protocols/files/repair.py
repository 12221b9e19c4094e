"""What to copy and who does it; how a surplus copy is dropped. Level-triggered: the same view gives the same plan (SPEC.md §Repair)."""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from ..effects import Effect
from ..machine import Machine, Outcome, Row
from ..types import HashId, OwnerKey, PeerId, SequenceRoot
from .placement import duty_order

# --- copying ------------------------------------------------------------------------------------------------------

HYSTERESIS_S = 2.0  # a copy must have been missing that long: a receipt on its way is no loss
TAKEOVER_S = 20.0  # per place in the duty order: longer than it takes to notice a frozen holder (RECORDS, Places)


@dataclass(frozen=True, slots=True)
class SequenceView:
    """What a node knows of one sequence.

    wanted: by placement, refusing nodes left out. counting: holders whose receipts count. live: nodes heard of lately.
    copying: targets that somebody is known to be sending it to. missing_since_s: since when wanted holders are without a
    counting receipt, None when they all have one. newcomers: holders whose receipts began to count after that; they come last
    in duty, else each copy that arrives would make another node begin what is under way. sealed_bytes: of the whole sequence.
    """

    owner: OwnerKey
    hash_id: HashId
    sequence_root: SequenceRoot
    sealed_bytes: int
    wanted: tuple[PeerId, ...]
    counting: frozenset[PeerId]
    live: frozenset[PeerId]
    copying: frozenset[PeerId] = frozenset()
    missing_since_s: float | None = None
    newcomers: frozenset[PeerId] = frozenset()


@dataclass(frozen=True, slots=True)
class RepairView:
    """What a node knows when it plans. budget_bytes, budget_copies: what it may still start now under the rate cap."""

    us: PeerId
    now_s: float
    sequences: tuple[SequenceView, ...]
    budget_bytes: int
    budget_copies: int
    hysteresis_s: float = HYSTERESIS_S
    takeover_s: float = TAKEOVER_S


@dataclass(frozen=True, slots=True)
class Copy:
    """Send one sequence to one node."""

    owner: OwnerKey
    hash_id: HashId
    sequence_root: SequenceRoot
    target: PeerId
    sealed_bytes: int


def missing_holders(sequence: SequenceView) -> tuple[PeerId, ...]:
    """Wanted holders without a counting receipt, in the order of placement."""
    return tuple(peer for peer in sequence.wanted if peer not in sequence.counting)


def duty_starts_s(sequence: SequenceView, us: PeerId, *, hysteresis_s: float, takeover_s: float) -> float | None:
    """When it is ours to copy this sequence: at once for the first live holder, a time-out later for each next. None: never.

    Only a holder whose receipt counts has the duty; one that withdrew is about to drop.
    """
    if sequence.missing_since_s is None:
        return None
    drawn = duty_order(sequence.owner, sequence.sequence_root, sequence.counting & (sequence.live | {us}))
    order = sorted(drawn, key=lambda peer: peer in sequence.newcomers)  # stable: the draw decides within each half
    if us not in order:
        return None
    return sequence.missing_since_s + hysteresis_s + order.index(us) * takeover_s


def plan(view: RepairView) -> tuple[Copy, ...]:
    """Copies that this node should start now: the most endangered sequences first, within the budget.

    A copy larger than the whole budget that is left waits; smaller ones behind it may go.
    """
    urgent: list[tuple[tuple[int, int, bytes, bytes, int], Copy]] = []
    for sequence in view.sequences:
        starts_s = duty_starts_s(sequence, view.us, hysteresis_s=view.hysteresis_s, takeover_s=view.takeover_s)
        if starts_s is None or view.now_s < starts_s:
            continue
        targets = [peer for peer in missing_holders(sequence) if peer in sequence.live and peer not in sequence.copying]
        copies_now = len(sequence.counting & (sequence.live | {view.us}))
        for number, target in enumerate(targets):
            # Of two equally endangered sequences the one that lacks more goes first; the second copy of one waits for the first of all.
            rank = (copies_now + number, -len(targets), bytes(sequence.owner), bytes(sequence.sequence_root), number)
            copy = Copy(sequence.owner, sequence.hash_id, sequence.sequence_root, target, sequence.sealed_bytes)
            urgent.append((rank, copy))
    urgent.sort(key=lambda item: (item[0], item[1].hash_id))
    chosen: list[Copy] = []
    bytes_left = view.budget_bytes
    for _, copy in urgent:
        if len(chosen) >= view.budget_copies:
            break
        if copy.sealed_bytes <= bytes_left:
            chosen.append(copy)
            bytes_left -= copy.sealed_bytes
    return tuple(chosen)


def plan_wakes_at(view: RepairView) -> float | None:
    """When ``plan`` may give more though nothing is heard; None: never."""
    starts = [
        starts_s
        for sequence in view.sequences
        if (starts_s := duty_starts_s(sequence, view.us, hysteresis_s=view.hysteresis_s, takeover_s=view.takeover_s)) is not None
        and starts_s > view.now_s
    ]
    return min(starts, default=None)


# --- dropping -----------------------------------------------------------------------------------------------------

ANSWER_TIMEOUT_S = 30.0
RETRY_AFTER_S = 300.0


class DropState(enum.Enum):
    """KEEPING: our receipt counts. WITHDRAWN: it does not, the copy is still here, and no receipt is signed. DROPPED: it is gone."""

    KEEPING = "keeping"
    WITHDRAWN = "withdrawn"
    DROPPED = "dropped"


@dataclass(frozen=True, slots=True)
class Weighed:
    """Placement was compared with receipts. wanted: without us when our copy is surplus. counting: holders whose receipts count."""

    wanted: frozenset[PeerId]
    counting: frozenset[PeerId]


@dataclass(frozen=True, slots=True)
class ReceiptAnswered:
    """A holder signed a receipt for this sequence in answer to our AskReceipts of that number: after our withdrawal."""

    holder: PeerId
    round: int


@dataclass(frozen=True, slots=True)
class Tick:
    """Time has come (see wake_at)."""


@dataclass(frozen=True, slots=True)
class SignWithdrawal:
    """Sign, commit and announce a withdrawal of our receipt, before anything after it in the effects."""


@dataclass(frozen=True, slots=True)
class AskReceipts:
    """Ask each of them for a receipt signed now. round: goes back with the answer, so that an older receipt never passes for one."""

    holders: tuple[PeerId, ...]
    round: int


@dataclass(frozen=True, slots=True)
class SignReceipt:
    """Sign, commit and announce a new receipt: we keep the copy."""


@dataclass(frozen=True, slots=True)
class DropCopy:
    """The copy may go."""


class SurplusDrop(Machine):
    """One surplus copy of one sequence at one holder: withdraw, wait for newer receipts of all wanted, then drop or sign again.

    Whoever is WITHDRAWN or DROPPED signs no receipt, so of two holders that take each other for the wanted one neither gets an
    answer, and both keep. Begins anew with each start of the node: a copy that is still there is kept, under a new receipt.
    first_round: the store's persisted counter, so that an answer from before a restart never passes for one of a later round.
    """

    TABLE: ClassVar[dict[tuple[enum.Enum, type], Row]] = {
        (DropState.KEEPING, Weighed): ("_consider", frozenset({DropState.KEEPING, DropState.WITHDRAWN})),
        (DropState.KEEPING, ReceiptAnswered): ("_stay", frozenset({DropState.KEEPING})),
        (DropState.KEEPING, Tick): ("_stay", frozenset({DropState.KEEPING})),
        (DropState.WITHDRAWN, Weighed): ("_reconsider", frozenset({DropState.KEEPING, DropState.WITHDRAWN})),
        (DropState.WITHDRAWN, ReceiptAnswered): ("_collect", frozenset({DropState.WITHDRAWN, DropState.DROPPED})),
        (DropState.WITHDRAWN, Tick): ("_look_at_clock", frozenset({DropState.KEEPING, DropState.WITHDRAWN})),
        (DropState.DROPPED, Weighed): ("_stay", frozenset({DropState.DROPPED})),
        (DropState.DROPPED, ReceiptAnswered): ("_stay", frozenset({DropState.DROPPED})),
        (DropState.DROPPED, Tick): ("_stay", frozenset({DropState.DROPPED})),
    }

    def __init__(
        self,
        us: PeerId,
        *,
        first_round: int = 0,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        retry_after_s: float = RETRY_AFTER_S,
    ) -> None:
        super().__init__(DropState.KEEPING)
        self._us = us
        self._answer_timeout_s = answer_timeout_s
        self._retry_after_s = retry_after_s
        self._round = first_round
        self._asked: frozenset[PeerId] = frozenset()
        self._answered: set[PeerId] = set()
        self._gives_up_at_s = 0.0
        self._not_before_s = float("-inf")

    @property
    def may_sign_receipt(self) -> bool:
        """Whether a receipt for this sequence may be signed when somebody asks for one, or after a scrub."""
        return self.state is DropState.KEEPING

    def wake_at(self) -> float | None:
        return self._gives_up_at_s if self.state is DropState.WITHDRAWN else None

    def _is_surplus(self, event: Weighed) -> bool:
        return bool(event.wanted) and self._us not in event.wanted and event.wanted <= event.counting

    def _consider(self, event: Weighed, now_s: float) -> Outcome:
        if not self._is_surplus(event) or now_s < self._not_before_s:
            return DropState.KEEPING, ()
        self._round += 1
        self._asked = event.wanted
        self._answered = set()
        self._gives_up_at_s = now_s + self._answer_timeout_s
        return DropState.WITHDRAWN, (SignWithdrawal(), AskReceipts(tuple(sorted(event.wanted)), self._round))

    def _reconsider(self, event: Weighed, now_s: float) -> Outcome:
        if self._is_surplus(event) and event.wanted <= self._asked:
            return DropState.WITHDRAWN, ()
        return self._keep(now_s)

    def _collect(self, event: ReceiptAnswered, now_s: float) -> Outcome:
        if event.round == self._round and event.holder in self._asked:
            self._answered.add(event.holder)
        if self._answered != self._asked:
            return DropState.WITHDRAWN, ()
        effects: tuple[Effect, ...] = (DropCopy(),)
        return DropState.DROPPED, effects

    def _look_at_clock(self, event: Tick, now_s: float) -> Outcome:
        return self._keep(now_s) if now_s >= self._gives_up_at_s else (DropState.WITHDRAWN, ())

    def _keep(self, now_s: float) -> Outcome:
        self._not_before_s = now_s + self._retry_after_s
        return DropState.KEEPING, (SignReceipt(),)

    def _stay(self, event: object, now_s: float) -> Outcome:
        return self.state, ()


def under_pressure(sequences: Sequence[SequenceView]) -> int:
    """Number of sequences that lack a wanted copy: for people and for choosing what to do first."""
    return sum(1 for sequence in sequences if missing_holders(sequence))
