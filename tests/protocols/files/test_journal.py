"""The log of a record: linked, checked against the anchored head, never longer than its bound."""

from __future__ import annotations

import pytest

from protocols.codec import replace
from protocols.crypto import sha256
from protocols.errors import InvalidObject, Reason
from protocols.files.journal import NO_HEAD, STEPS_MAX, Step, append, check_journal, head_of
from protocols.types import HashId, UnixMillis

RECORD = HashId(sha256(b"record"))


def log(count: int) -> tuple[Step, ...]:
    steps: tuple[Step, ...] = ()
    for number in range(count):
        steps = append(steps, "received", RECORD, UnixMillis(number), seq=number)
    return steps


def test_anchored_head_says_how_much_of_a_log_was_anchored() -> None:
    """Goal: later steps follow the anchored ones. Method: every beginning of a log of five, and none."""
    steps = log(5)
    assert [check_journal(steps, RECORD, head_of(steps[:count])) for count in range(6)] == [0, 1, 2, 3, 4, 5]
    assert head_of(()) == NO_HEAD


def test_changed_log_is_noticed() -> None:
    """Goal: no step can be changed, left out or moved under an anchored head. Method: each of these, and another record."""
    steps = log(4)
    head = head_of(steps)
    changed = (steps[0], replace(steps[1], facts=(("seq", 9),)), *steps[2:])
    for broken, record in ((changed, RECORD), (steps[1:], RECORD), (steps[:3], RECORD), (steps, HashId(bytes(32)))):
        with pytest.raises(InvalidObject) as found:
            check_journal(broken, record, head)
        assert found.value.reason is Reason.INTEGRITY


def test_same_step_is_said_once_and_a_log_ends_somewhere() -> None:
    """Goal: looking again adds nothing. Method: the same step twice; more steps than there is room for."""
    steps = append((), "anchored", RECORD, UnixMillis(1), tx=b"a")
    assert append(steps, "anchored", RECORD, UnixMillis(2), tx=b"a") == steps
    assert len(append(steps, "anchored", RECORD, UnixMillis(2), tx=b"b")) == 2
    assert len(log(STEPS_MAX + 5)) == STEPS_MAX
