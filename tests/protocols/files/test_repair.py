"""The repair plan and the machine that drops a surplus copy."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from protocols.errors import RemoteError
from protocols.files.placement import duty_order
from protocols.files.repair import (
    AskReceipts,
    DropCopy,
    DropState,
    ReceiptAnswered,
    RepairView,
    SequenceView,
    SignReceipt,
    SignWithdrawal,
    SurplusDrop,
    Tick,
    Weighed,
    plan,
    plan_wakes_at,
)
from tests.protocols.files.records import HASH_ID, OWNER, peer, root

A, B, C, D = (peer(name) for name in "abcd")
ALL = frozenset({A, B, C, D})


def lacking(name: str = "s", *, size: int = 100) -> SequenceView:
    """Held by a and b, wanted at c and d too, since second 0."""
    return SequenceView(OWNER.public, HASH_ID, root(name), size, (A, B, C, D), frozenset({A, B}), ALL, missing_since_s=0.0)


def view_of(*sequences: SequenceView, us: str = "", now: float = 5.0, budget_bytes: int = 10**9, copies: int = 100) -> RepairView:
    first = duty_order(OWNER.public, sequences[0].sequence_root, sequences[0].counting)[0]
    return RepairView(peer(us) if us else first, now, sequences, budget_bytes, copies, hysteresis_s=2.0, takeover_s=20.0)


def test_first_in_duty_copies_at_once_and_the_next_after_its_time() -> None:
    """Goal: one copies, another when it does not. Method: both holders, before and after each time."""
    first, second = duty_order(OWNER.public, root("s"), {A, B})
    for us, starts in ((first, 2.0), (second, 22.0)):
        early = replace(view_of(lacking()), us=us, now_s=starts - 0.1)
        assert plan(early) == ()
        assert plan_wakes_at(early) == starts
        late = replace(early, now_s=starts)
        assert [copy.target for copy in plan(late)] == [C, D]
        assert plan_wakes_at(late) is None
    assert plan(view_of(lacking(), us="c", now=1e9)) == ()


def test_newcomer_comes_last_in_duty() -> None:
    """Goal: a copy that arrives does not make its holder begin what is under way. Method: the first in duty is a newcomer."""
    first, second = duty_order(OWNER.public, root("s"), {A, B})
    sequence = replace(lacking(), newcomers=frozenset({first}))
    assert len(plan(replace(view_of(sequence), us=second, now_s=2.0))) == 2
    assert plan(replace(view_of(sequence), us=first, now_s=21.9)) == ()
    assert len(plan(replace(view_of(sequence), us=first, now_s=22.0))) == 2


def test_dead_holder_is_passed_over_in_duty() -> None:
    """Goal: no waiting for a node known to be away. Method: the first in duty is not live."""
    first, second = duty_order(OWNER.public, root("s"), {A, B})
    sequence = replace(lacking(), live=ALL - {first})
    assert len(plan(replace(view_of(sequence), us=second, now_s=2.0))) == 2


def test_nothing_is_copied_twice_or_to_the_dead() -> None:
    """Goal: level-triggered, without doubling. Method: a copy on its way, a target away, nothing missing."""
    assert [copy.target for copy in plan(view_of(replace(lacking(), copying=frozenset({C}))))] == [D]
    assert [copy.target for copy in plan(view_of(replace(lacking(), live=ALL - {D})))] == [C]
    assert plan(view_of(replace(lacking(), counting=ALL, missing_since_s=None))) == ()
    assert plan(view_of(lacking())) == plan(view_of(lacking()))


def test_most_endangered_goes_first_within_the_budget() -> None:
    """Goal: the last copy is saved before comfort. Method: one sequence with one holder among others; small budgets."""
    endangered = replace(lacking("e"), counting=frozenset({A}))
    others = [replace(lacking(name), counting=frozenset({A, B}), live=ALL) for name in "xyz"]
    view = replace(view_of(*others, endangered, now=1e6), us=A)
    copies = plan(view)
    assert (copies[0].sequence_root, len(copies)) == (root("e"), 9)
    assert plan(replace(view, budget_copies=1)) == copies[:1]
    assert sum(copy.sealed_bytes for copy in plan(replace(view, budget_bytes=250))) == 200
    large = replace(endangered, sealed_bytes=10**6)
    assert {copy.sequence_root for copy in plan(replace(view, sequences=(*others, large), budget_bytes=500))} == {root(n) for n in "xyz"}


# --- dropping -----------------------------------------------------------------------------------------------------

SURPLUS = Weighed(wanted=frozenset({B, C}), counting=frozenset({A, B, C}))


def machine() -> SurplusDrop:
    return SurplusDrop(A, answer_timeout_s=30.0, retry_after_s=300.0)


def test_surplus_copy_goes_after_all_wanted_answered() -> None:
    """Goal: withdraw, wait, drop. Method: the whole way."""
    drop = machine()
    assert drop.step(SURPLUS, 0.0) == (SignWithdrawal(), AskReceipts(tuple(sorted((B, C))), 1))
    assert not drop.may_sign_receipt
    assert drop.wake_at() == 30.0
    assert drop.step(ReceiptAnswered(B, 1), 1.0) == ()
    assert drop.step(ReceiptAnswered(B, 1), 2.0) == ()
    assert drop.step(ReceiptAnswered(D, 1), 2.0) == ()
    assert drop.step(ReceiptAnswered(C, 1), 3.0) == (DropCopy(),)
    assert drop.state is DropState.DROPPED
    assert not drop.may_sign_receipt


def test_copy_is_kept_when_answers_do_not_come() -> None:
    """Goal: nothing stays uncounted. Method: time-out, then no new try for a while, then a second round where old answers fail."""
    drop = machine()
    drop.step(SURPLUS, 0.0)
    drop.step(ReceiptAnswered(B, 1), 1.0)
    assert drop.step(Tick(), 29.0) == ()
    assert drop.step(Tick(), 30.0) == (SignReceipt(),)
    assert drop.wake_at() is None
    assert drop.step(SURPLUS, 31.0) == ()
    assert drop.step(SURPLUS, 330.0)[1] == AskReceipts(tuple(sorted((B, C))), 2)
    drop.step(ReceiptAnswered(B, 1), 331.0)
    drop.step(ReceiptAnswered(C, 1), 331.0)
    assert drop.state is DropState.WITHDRAWN


def test_answer_from_before_a_restart_is_none() -> None:
    """Goal: rounds of one store never repeat. Method: a machine begun anew above the store's counter gets an answer to round 1."""
    before = machine()
    before.step(SURPLUS, 0.0)
    after = SurplusDrop(A, first_round=7, answer_timeout_s=30.0)
    assert after.step(SURPLUS, 1.0)[1] == AskReceipts(tuple(sorted((B, C))), 8)
    after.step(ReceiptAnswered(B, 1), 2.0)
    after.step(ReceiptAnswered(C, 1), 2.0)
    assert after.state is DropState.WITHDRAWN


@pytest.mark.parametrize(
    "event",
    [
        Weighed(wanted=frozenset({A, B}), counting=ALL),
        Weighed(wanted=frozenset({B, C}), counting=frozenset({B})),
        Weighed(wanted=frozenset({B, C, D}), counting=ALL),
        Weighed(wanted=frozenset(), counting=ALL),
    ],
)
def test_copy_is_kept_when_it_is_needed_after_all(event: Weighed) -> None:
    """Goal: a change while waiting is heeded. Method: wanted here, a holder lost, a holder more, nobody wanted."""
    drop = machine()
    drop.step(SURPLUS, 0.0)
    assert drop.step(event, 1.0) == (SignReceipt(),)


def test_nothing_begins_without_receipts_of_all_wanted() -> None:
    """Goal: no withdrawal on a wish. Method: states of the world in which it must not begin."""
    for wanted, counting in (({A, B}, ALL), ({B, C}, {B}), (set(), ALL)):
        drop = machine()
        assert drop.step(Weighed(frozenset(wanted), frozenset(counting)), 0.0) == ()
        assert drop.may_sign_receipt


def test_every_short_history_keeps_the_rules() -> None:
    """Goal: complete test of a small machine. Method: all sequences of five events; a drop only after both answers of its round,
    each withdrawal before its question, a receipt signed whenever the copy is kept after a withdrawal."""
    events = [SURPLUS, Weighed(frozenset({A, B}), ALL), ReceiptAnswered(B, 1), ReceiptAnswered(C, 1), ReceiptAnswered(C, 2), Tick()]
    drops = 0
    for history in itertools.product(events, repeat=5):
        drop = SurplusDrop(A, answer_timeout_s=1.5, retry_after_s=0.0)
        answered: set[bytes] = set()
        asked_round = 0
        withdrawn = False
        for second, event in enumerate(history):
            effects = drop.step(event, float(second))
            if isinstance(event, ReceiptAnswered) and withdrawn and event.round == asked_round:
                answered.add(event.holder)
            for effect in effects:
                if isinstance(effect, SignWithdrawal):
                    assert not withdrawn
                    withdrawn, answered = True, set()
                elif isinstance(effect, AskReceipts):
                    assert withdrawn
                    asked_round = effect.round
                elif isinstance(effect, SignReceipt):
                    assert withdrawn
                    withdrawn = False
                else:
                    assert isinstance(effect, DropCopy)
                    assert answered == {B, C}
                    drops += 1
            assert drop.may_sign_receipt != withdrawn
    assert drops > 0
    with pytest.raises(RemoteError):
        machine().step("something else", 0.0)
