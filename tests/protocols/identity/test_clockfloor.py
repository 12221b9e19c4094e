"""The clock floor: what time it is at least, whose word is taken for more, and what is written down."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocols.identity.authority import authority_of
from protocols.identity.clockfloor import ClockFloor, ClockReports, ClockSource, Comparison, compare
from protocols.limits import CLOCK_REPORTS_MAX, CLOCK_SKEW_MAX_S
from protocols.types import MemberId, UnixSeconds
from tests.protocols.identity.people import ACME, NOW

FLOOR = ClockFloor(floor=UnixSeconds(1000))
TIMES = st.lists(st.integers(0, 5000), max_size=5)


def told(*times: int) -> dict[MemberId, int]:
    """Times by so many members."""
    return {MemberId(bytes([index]) * 32): time for index, time in enumerate(times)}


def test_clock_below_the_floor_is_unsafe_and_the_floor_is_used() -> None:
    """Goal: a board that boots in the past. Method: readings around the floor."""
    assert (FLOOR.read(999, 0).now, FLOOR.read(999, 0).unsafe) == (1000, True)
    assert (FLOOR.read(1000, 0).now, FLOOR.read(1000, 0).unsafe) == (1000, False)
    assert (FLOOR.read(5000, 0).now, FLOOR.read(5000, 0).source) == (5000, ClockSource.MACHINE)


def test_nothing_that_a_mere_member_signs_raises_the_floor() -> None:
    """Goal: the rule of Time. Method: the same time signed by root, issuer, member."""
    issuer, member = ACME.issuer(), ACME.member()
    for chain, floor in (((), 2000), (issuer.chain, 2000), (member.chain, 1000)):
        authority = authority_of(chain, ACME.id, ACME.roots, at=UnixSeconds(NOW))
        assert FLOOR.raised_by_signed(authority, 2000).floor == floor
    assert FLOOR.raised_by_persisted(3000).floor == FLOOR.raised_by_final_block(3000).floor == 3000
    assert FLOOR.raised_by_certificate(3000).raised_by_persisted(10).floor == 3000


@given(TIMES)
def test_unsafe_clock_is_set_only_when_two_members_agree(times: list[int]) -> None:
    """Goal: no single liar sets the clock. Method: any reports; compare with all pairs."""
    set_to = FLOOR.agreed_by(told(*times), clock=10, steady=7)
    pairs = [a for i, a in enumerate(times) for j, b in enumerate(times) if i != j and a >= 1000 and 0 <= b - a <= CLOCK_SKEW_MAX_S]
    assert set_to.floor == FLOOR.floor
    assert set_to.read(10, 7).source is (ClockSource.AGREED if pairs else ClockSource.FLOOR)
    if pairs:
        assert set_to.read(10, 7).now == min(pairs)
        assert set_to.read(20, 107).now == min(pairs) + 100
    assert FLOOR.agreed_by(told(*times), clock=1000, steady=7) == FLOOR


def test_clock_that_is_set_right_is_used_again() -> None:
    """Goal: what members agreed on ends with the need for it. Method: agreed, then the machine's own clock passes the floor."""
    agreed = FLOOR.agreed_by(told(2000, 2001), clock=10, steady=0)
    assert agreed.read(3000, 5).now == 3000
    assert agreed.read(3000, 5).source is ClockSource.MACHINE


def test_agreed_time_stays_while_members_agree_on_it_and_is_healed_when_they_do_not() -> None:
    """Goal: no jitter, and two liars who came first do not keep the clock when the honest have come. Method: both."""
    lied = FLOOR.agreed_by(told(9000, 9001), clock=10, steady=0)
    assert lied.agreed_by(told(9000, 8990), clock=10, steady=0) == lied
    assert lied.agreed_by(told(9000, 9001, 2000, 2005), clock=10, steady=0).read(10, 0).now == 2000


@given(st.integers(1000, 9000), st.integers(1000, 9000), TIMES)
def test_floor_is_never_raised_above_our_own_clock_and_never_far_ahead_unbacked(clock: int, counted: int, times: list[int]) -> None:
    """Goal: members hold the floor back or let stand what our own clock says, nothing else. Method: any clock and any words."""
    raised = FLOOR.raised_by_own(clock, counted=counted, times=told(*times)).floor
    assert raised <= clock
    if not compare(told(*times), clock).is_backed:
        assert raised == min(clock, counted)
    assert FLOOR.raised_by_own(clock, counted=counted, times={}).floor == min(clock, counted)


def test_clock_below_the_floor_writes_nothing_whatever_members_agree_on() -> None:
    """Goal: an agreed time is not persisted. Method: agreed far ahead, then asked what to write down."""
    agreed = FLOOR.agreed_by(told(9000, 9001), clock=10, steady=0)
    assert agreed.raised_by_own(10, counted=9000, times=told(9000, 9001)).floor == 1000


def test_one_member_counts_once_however_many_nodes_it_has() -> None:
    """Goal: by member, not by node. Method: one member's nodes agree with one another; then another member."""
    reports = ClockReports()
    for time in (2000, 2001, 2002):
        reports.hear(MemberId(b"m"), time, 0)
    assert FLOOR.agreed_by(reports.times(0), clock=10, steady=0) == FLOOR
    reports.hear(MemberId(b"n"), 2101, 100)
    assert FLOOR.agreed_by(reports.times(100), clock=110, steady=100).read(110, 100).now == 2101


def test_reports_are_bounded_and_the_oldest_goes_first() -> None:
    """Goal: members do not fill our memory. Method: one more than the bound."""
    reports = ClockReports()
    for number in range(CLOCK_REPORTS_MAX + 1):
        reports.hear(MemberId(number.to_bytes(32, "big")), number, 0)
    assert len(reports.times(0)) == CLOCK_REPORTS_MAX
    assert MemberId(bytes(32)) not in reports.times(0)


def test_comparison_counts_members_and_takes_the_middle_difference() -> None:
    """Goal: the alert names who differs and by how much. Method: two near, three an hour behind us, one of them wildly."""
    assert compare(told(5000, 5300, 1400, 1400, 0), 5000) == Comparison(agreeing=2, differing=3, ahead_s=3600)
    assert compare(told(5000, 1400), 5000).is_backed
    assert not compare(told(1400), 5000).is_backed
    assert compare(told(1400), 5000).is_contradicted
    assert not compare({}, 5000).is_backed
    assert not compare({}, 5000).is_contradicted
