"""Which object is in force: the rules, and that order of arrival never matters."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.crypto import SigningKey
from protocols.files.objects import Tombstone
from protocols.files.precedence import Known, Next, next_after, verdict
from tests.protocols.files.records import known, statement, tombstone


def put(*seen: Known, name: str = "") -> Known:
    return known(statement(next_after(seen), name))


def delete(*seen: Known, name: str = "") -> Known:
    return known(tombstone(next_after(seen), name))


def test_greatest_statement_is_in_force_when_it_is_settled() -> None:
    """Goal: a new statement takes over with its receipts only. Method: two statements, settled one after the other."""
    first = put()
    second = put(first)
    assert verdict([first]).in_force == first
    before = verdict([first, second], settled=[first.object_hash])
    assert (before.in_force, before.readable) == (first, (first, second))
    after = verdict([first, second], settled=[first.object_hash, second.object_hash])
    assert (after.in_force, after.readable) == (second, (second,))
    neither = verdict([first, second])
    assert (neither.in_force, neither.readable) == (second, (second, first))


def test_tombstone_acts_at_once_and_a_statement_above_it_revives() -> None:
    """Goal: put, delete, put again. Method: each step."""
    first = put()
    grave = delete(first)
    deleted = verdict([first, grave], settled=[first.object_hash])
    assert (deleted.in_force, deleted.readable, deleted.tombstone) == (None, (), grave)
    again = put(first, grave)
    revived = verdict([first, grave, again])
    assert (revived.in_force, revived.readable, revived.tombstone, revived.conflicts) == (again, (again,), None, ())


def test_tombstone_does_not_beat_a_statement_that_it_did_not_follow() -> None:
    """Goal: acknowledged data stays when two nodes of an owner act apart. Method: both sides of a partition, merged; then the
    owner deletes again, knowing all."""
    first = put()
    here = put(first, name="here")
    there = put(first, name="there")
    grave = delete(first, there)
    merged = verdict([first, here, there, grave], settled=[here.object_hash])
    assert (merged.in_force, merged.tombstone, merged.conflicts) == (here, None, (grave.object_hash,))
    last = delete(first, here, there, grave)
    assert verdict([first, here, there, grave, last]).tombstone == last


def test_deleted_stays_deleted_when_objects_between_are_forgotten() -> None:
    """Goal: a node that comes back with an old statement does not resurrect it. Method: the tombstone and the oldest only."""
    first = put()
    second = put(first)
    third = put(first, second)
    grave = delete(first, second, third)
    for left in ([first, grave], [second, grave], [first, third, grave]):
        assert verdict(left).tombstone == grave
        assert verdict(left).in_force is None


def test_tombstone_covers_what_known_objects_followed() -> None:
    """Goal: a forgotten predecessor stays deleted when a node comes back with it. Method: the signer knew the second put only."""
    first = put()
    second = put(first)
    grave = delete(second)
    assert verdict([first, second, grave]).tombstone == grave
    assert verdict([first, grave]).tombstone == grave


def test_quarantined_objects_count_for_nothing() -> None:
    """Goal: a revoked member's tombstone waits. Method: with and without quarantine."""
    first = put()
    grave = delete(first)
    assert verdict([first, grave], quarantined=[grave.object_hash]).in_force == first
    assert verdict([], quarantined=[grave.object_hash]).newest is None


def test_objects_of_two_records_are_a_mistake() -> None:
    """Goal: callers key everything by record. Method: another owner's object among ours."""
    other = known(statement(Next(1, b"", ()), owner=SigningKey(bytes(32)).public))
    with pytest.raises(AssertionError):
        verdict([put(), other])


@settings(max_examples=120, deadline=None)
@given(st.data())
def test_order_and_copies_of_what_arrives_do_not_matter(data: st.DataObject) -> None:
    """Goal: every node comes to one verdict. Method: a history where each object saw a part of those before; any order, any
    duplication; and what is acknowledged and not followed by a tombstone stays readable."""
    history: list[Known] = []
    for step in range(data.draw(st.integers(1, 7))):
        seen = [item for item in history if data.draw(st.booleans())]
        graves = [item for item in seen if isinstance(item.value, Tombstone)]
        is_grave = bool(seen) and len(graves) < 3 and data.draw(st.booleans())
        history.append(delete(*seen, name="x" * step) if is_grave else put(*seen, name=str(step)))
    settled = [item.object_hash for item in history if data.draw(st.booleans())]
    wanted = verdict(history, settled=settled)
    shuffled = data.draw(st.permutations(history))
    copies = data.draw(st.lists(st.sampled_from(history), max_size=5))
    assert verdict([*copies, *shuffled], settled=settled) == wanted
    assert (wanted.tombstone is None) or not wanted.readable
    assert wanted.newest == max(history, key=lambda item: item.order)
    followed = {name for item in history if isinstance(item.value, Tombstone) for name in (*item.value.covers, item.value.follows)}
    if any(item.object_hash not in followed for item in history if not isinstance(item.value, Tombstone)):
        assert wanted.in_force is not None
