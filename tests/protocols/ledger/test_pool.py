"""The pool and local policy: two kinds, quotas, eviction by a shared order; when a leader seals and a member votes."""

from __future__ import annotations

import random
from contextlib import suppress

import pytest

from protocols.codec import encode, replace
from protocols.crypto import sha256
from protocols.errors import InvalidTransaction, Reason, Refused
from protocols.ledger.committee import Committee, Seat, dead_survived, faults_of, quorum_of
from protocols.ledger.envelope import Transaction
from protocols.ledger.pool import Limits, Origin, Pool, SizeClass
from protocols.ledger.sealing import (
    SealReason,
    Situation,
    finality_wait_ms,
    has_quorum,
    is_held_back,
    is_lonely,
    is_timely,
    seal_reason,
)
from protocols.ledger.transactions import folder_update
from protocols.types import UnixMillis

from .chains import Chain, account_of, start

CHAIN = start()


def transaction(chain: Chain, name: str, number: int, *, filler: int = 0) -> Transaction:
    body = folder_update.Body(f"{number}", sha256(b"root"), bytes(32), 1)
    one = chain.by(name, "FolderUpdate", body, ts_ms=chain.now_ms + number)
    return replace(one, content=replace(one.content, body=one.content.body + bytes(filler)))


def test_two_kinds_are_listed_apart_and_leave_on_inclusion() -> None:
    """Goal: inbound and outbound. Method: one of each; heard and then made here; included; returned as what it was; over."""
    pool = Pool()
    heard, made = transaction(CHAIN, "ann", 1), transaction(CHAIN, "bob", 2)
    pool.offer(heard, Origin.INBOUND, b"peer")
    pool.offer(made, Origin.OUTBOUND)
    pool.offer(made, Origin.INBOUND, b"peer")
    assert pool.counts() == {Origin.INBOUND: 1, Origin.OUTBOUND: 1}
    assert [one.id for one in pool.list(Origin.OUTBOUND)] == [made.id]
    pool.offer(heard, Origin.OUTBOUND)
    assert pool.counts() == {Origin.INBOUND: 0, Origin.OUTBOUND: 2}
    assert {one.id for one in pool.included([heard.id, made.id])} == {heard.id, made.id}
    assert (len(pool), pool.size) == (0, 0)
    pool.returned([heard, made], frozenset({made.id}))
    assert pool.counts() == {Origin.INBOUND: 1, Origin.OUTBOUND: 1}
    assert not pool.expire(UnixMillis(heard.content.until_ms))
    assert len(pool.expire(UnixMillis(heard.content.until_ms + 1))) == 2


def test_quotas_bind_senders_and_peers() -> None:
    """Goal: nobody floods. Method: one more than each quota."""
    pool = Pool(Limits(per_sender_max=3, per_peer_max=4))
    for number in range(3):
        pool.offer(transaction(CHAIN, "ann", number), Origin.INBOUND, b"p")
    with pytest.raises(Refused) as caught:
        pool.offer(transaction(CHAIN, "ann", 3), Origin.INBOUND, b"q")
    assert caught.value.reason is Reason.QUOTA
    pool.offer(transaction(CHAIN, "bob", 1), Origin.INBOUND, b"p")
    with pytest.raises(Refused):
        pool.offer(transaction(CHAIN, "cid", 1), Origin.INBOUND, b"p")
    pool.included([transaction(CHAIN, "ann", 0).id])
    pool.offer(transaction(CHAIN, "ann", 4), Origin.INBOUND, b"p")


def test_full_pool_evicts_by_a_shared_order_and_never_what_is_made_here_first() -> None:
    """Goal: deterministic eviction. Method: a heavy sender, large ones, in two orders of arrival; bytes are kept count of."""
    items = [transaction(CHAIN, "ann", number) for number in range(6)]
    items += [transaction(CHAIN, "bob", 9, filler=9000), transaction(CHAIN, "cid", 9)]
    left = []
    for seed in range(5):
        order = list(items)
        random.Random(seed).shuffle(order)
        pool = Pool(Limits(transactions_max=4))
        pool.offer(transaction(CHAIN, "dan", 1), Origin.OUTBOUND)
        for one in order:
            with suppress(Refused):
                pool.offer(one, Origin.INBOUND, b"p")
        assert len(pool) == 4
        assert pool.size == sum(len(encode(one.transaction)) for origin in Origin for one in pool.list(origin))
        assert pool.counts()[Origin.OUTBOUND] == 1
        left.append({one.sender for one in pool.list(Origin.INBOUND)})
    assert all(account_of("cid") in senders for senders in left)
    pool = Pool(Limits(bytes_max=2000))
    pool.offer(transaction(CHAIN, "ann", 1), Origin.INBOUND)
    with pytest.raises(Refused):
        pool.offer(transaction(CHAIN, "bob", 1, filler=3000), Origin.INBOUND)
    assert len(pool) == 1


def test_selection_is_fair_keeps_a_senders_order_and_fits() -> None:
    """Goal: one of each sender a round. Method: a sender with many, one with few, a large one; bounds of bytes and count."""
    pool = Pool()
    many = [transaction(CHAIN, "ann", number) for number in range(5)]
    few = [transaction(CHAIN, "bob", 50)]
    large = transaction(CHAIN, "cid", 0, filler=9000)
    for one in [*many[::-1], *few, large]:
        pool.offer(one, Origin.INBOUND)
    chosen = pool.select(1 << 20, 100)
    assert [one for one in chosen if one.content.sender == account_of("ann")] == many
    assert set(chosen[:3]) == {many[0], few[0], large}
    assert chosen[2] == large
    assert large not in pool.select(4000, 100)
    assert len(pool.select(1 << 20, 2)) == 2
    assert {one.size_class for one in pool.list(Origin.INBOUND)} == {SizeClass.SMALL, SizeClass.LARGE}


def test_what_waiting_may_cure_stays() -> None:
    """Goal: a gap in numbers is no death. Method: a draft refuses two, one for its number and one for its signature."""
    pool = Pool()
    gap, bad = transaction(CHAIN, "ann", 1), transaction(CHAIN, "bob", 1)
    pool.offer(gap, Origin.INBOUND)
    pool.offer(bad, Origin.INBOUND)
    errors = [(gap.id, InvalidTransaction(Reason.SEQUENCE)), (bad.id, InvalidTransaction(Reason.NOT_SIGNED))]
    assert [one.id for one in pool.drop(errors)] == [bad.id]
    assert gap.id in pool


# --- local policy -------------------------------------------------------------------------------------------------

NAMES = [account_of(name) for name in "abcde"]


def committee(members: int) -> Committee:
    return Committee(0, 0, tuple(Seat(name, bytes(32)) for name in sorted(NAMES[:members])), faults_of(members), None)


def situation(**changes: object) -> Situation:
    base: dict[str, object] = {
        "now_ms": 1_000_000,
        "slot_ms": 1000,
        "tip_ms": 999_000,
        "pool_count": 0,
        "due_ms": None,
        "unfinal": False,
        "quiet_blocks": 0,
        "handover_due": False,
        "heard": frozenset(NAMES),
        "sealed_ms": 999_000,
    }
    return Situation(**{**base, **changes})  # type: ignore[arg-type]


def test_quiet_chain_seals_with_a_reason_alone() -> None:
    """Goal: no block without need. Method: each reason alone; back-off for finality doubles up to the heartbeat."""
    assert seal_reason(situation()) is None
    assert seal_reason(situation(pool_count=1)) is SealReason.POOL
    assert seal_reason(situation(due_ms=1_000_000)) is SealReason.CONDITION
    assert seal_reason(situation(due_ms=1_000_001)) is None
    assert seal_reason(situation(handover_due=True)) is SealReason.HANDOVER
    assert seal_reason(situation(unfinal=True)) is SealReason.NOT_FINAL
    assert seal_reason(situation(unfinal=True, quiet_blocks=1)) is None
    assert seal_reason(situation(unfinal=True, quiet_blocks=1, tip_ms=998_000)) is SealReason.NOT_FINAL
    assert seal_reason(situation(tip_ms=400_000)) is SealReason.HEARTBEAT
    assert [finality_wait_ms(number, slot_ms=1000) for number in (0, 1, 3, 9, 10, 99)] == [1000, 2000, 8000, 512_000, 600_000, 600_000]


def test_lonely_leader_is_slowed_and_never_stopped() -> None:
    """Goal: dead miners slow a chain. Method: heard a minority of list and committee; once, then after the period; majority of either."""
    us = frozenset(NAMES[:1])
    line, seats = frozenset(NAMES), committee(5)
    assert is_lonely(us, line, seats)
    assert not is_lonely(frozenset(NAMES[:3]), line, seats)
    assert is_lonely(frozenset(NAMES[:2]), frozenset(NAMES[:4]), seats)
    assert not is_held_back(situation(heard=us, sealed_ms=None), line, seats)
    assert is_held_back(situation(heard=us, sealed_ms=980_000), line, seats)
    assert not is_held_back(situation(heard=us, sealed_ms=970_000), line, seats)
    assert not is_held_back(situation(sealed_ms=999_999), line, seats)


def test_quorums_are_those_of_the_plan() -> None:
    """Goal: how many liars and dead members. Method: the table, and two quorums always share more than f members."""
    table = {n: (faults_of(n), dead_survived(n, faults_of(n))) for n in (3, 4, 5, 6, 7)}
    assert table == {3: (0, 1), 4: (1, 1), 5: (1, 1), 6: (1, 2), 7: (2, 2)}
    assert dead_survived(5, 0) == 2
    for members in range(1, 32):
        for faults in range(faults_of(members) + 1):
            assert 2 * quorum_of(members, faults) - members > faults
            assert quorum_of(members, faults) <= members - faults
    assert has_quorum(frozenset(NAMES[:3]), committee(4))
    assert not has_quorum(frozenset(NAMES[:2]), committee(4))


def test_late_target_is_not_voted_for() -> None:
    """Goal: back-dated blocks win no votes. Method: both sides of one slot after its slot."""
    late = {"slot_start_ms": 5000, "late_ms": 1000, "slot_ms": 1000}
    assert is_timely(received_ms=7000, **late)
    assert not is_timely(received_ms=7001, **late)
