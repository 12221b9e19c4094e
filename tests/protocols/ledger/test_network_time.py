"""Network time as a value: what is set when, from whom, how fast, and when it may not be acted on."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from protocols.ledger.network_time import NetworkTime, OwnClock, TimeState, estimate
from protocols.limits import (
    CLOCK_REPORTS_MAX,
    LISTEN_FIRST_MS,
    TIME_IGNORED_MS,
    TIME_JUMP_MS_MAX,
    TIME_REPORT_AGE_MS_MAX,
    TIME_ROUND_TRIP_MS_MAX,
    TIME_STEP_MS,
)
from protocols.types import AccountId

NOW = 1_800_000_000_000  # what time it is when the steady clock stands at zero
HOUR = TIME_JUMP_MS_MAX
RIGHT = 0


def account(number: int) -> AccountId:
    return AccountId(number.to_bytes(32, "big"))


class Node:
    """One node's time. wall: how far its own clock is off; None: unsafe."""

    def __init__(self, wall: int | None = RIGHT, *, synchronised: bool = False, floor: int = 0) -> None:
        self.wall, self.synchronised, self.floor = wall, synchronised, floor
        self.at = 0
        self.time = NetworkTime(0)

    def own(self) -> OwnClock:
        return OwnClock(None if self.wall is None else NOW + self.at + self.wall, self.synchronised, self.floor)

    def go(self, seconds: int, *others: int, is_set: bool = True) -> Node:
        """So many seconds; each second others tell how far off they are, and a look."""
        for _ in range(seconds):
            self.at += 1000
            for number, off in enumerate(others):
                self.time.hear(account(number), NOW + self.at + off, is_set=is_set, round_trip_ms=0, steady_ms=self.at)
            self.time.look(self.own(), self.at)
        return self

    @property
    def error(self) -> int:
        return self.time.now_ms(self.at) - NOW - self.at


LISTENING_S = LISTEN_FIRST_MS // 1000


def test_estimate_is_the_middle_of_what_is_left_without_the_ends() -> None:
    """Goal: LEDGER's numbers. Method: one to seven values, liars at the ends."""
    assert estimate([5]) == 5
    assert estimate([0, 10]) == 5
    assert estimate([0, 10, 10**9]) == 10
    assert estimate([-(10**9), 0, 10, 20]) == 5
    assert estimate([-(10**9), 0, 10, 20, 30]) == 10
    assert estimate([-(10**9), -(10**9), 0, 10, 20, 30, 40]) == 10


@given(st.lists(st.integers(-(10**6), 10**6), min_size=3, max_size=12), st.lists(st.integers(-(10**15), 10**15), max_size=3))
def test_fewer_than_a_third_who_lie_never_move_it_beyond_the_honest(honest: list[int], liars: list[int]) -> None:
    """Goal: a liar's number is bounded by honest ones. Method: any values, at most ⌊(k − 1)/3⌋ of them lies."""
    values = [*honest, *liars[: (len(honest) - 1) // 2]]
    assert min(honest) <= estimate(values) <= max(honest)


def test_node_listens_for_ten_seconds_and_then_sets_its_time() -> None:
    """Goal: the start. Method: three others, right; our clock an hour ahead, an hour behind, and in 1970; nothing is acted on before."""
    for wall in (HOUR, -HOUR, -NOW):
        node = Node(wall).go(LISTENING_S - 1, 0, 10, 20)
        assert node.time.state is TimeState.LISTENING
        assert not node.time.may_act
        assert node.time.told(node.at) == (max(NOW + node.at + wall, 0), False)
        node.go(2, 0, 10, 20)
        assert node.time.may_act
        assert 0 <= node.error <= 20
        assert node.time.told(node.at)[1]


def test_nobody_heard_and_the_own_clock_counts_and_may_be_set_by_less_than_an_hour() -> None:
    """Goal: k = 1. Method: alone; the clock is set by ten minutes, by two hours, and back."""
    node = Node(RIGHT).go(LISTENING_S)
    assert node.time.state is TimeState.ALONE
    node.wall = 600_000
    assert node.go(1).error == 600_000
    node.wall = -HOUR
    node.go(1)
    assert node.time.state is TimeState.ASTRAY
    assert node.error == 600_000
    assert node.time.told(node.at)[1] is False
    node.wall = 0
    node.go(1)
    assert node.time.may_act


def test_one_other_is_met_in_the_middle_and_one_more_than_an_hour_away_is_not_followed() -> None:
    """Goal: k = 2 stops nobody. Method: both start; one is running already and our clock is nobody's; one is far away; then it lies."""
    assert Node(600).go(LISTENING_S + 1, 0, is_set=False).error == 300
    assert Node(600).go(LISTENING_S + 1, 0).error == 0
    assert Node(600, synchronised=True).go(LISTENING_S + 1, 0).error == 300
    far = Node(0).go(LISTENING_S + 1, 2 * HOUR)
    assert far.time.state is TimeState.ALONE
    assert far.go(60, 2 * HOUR).time.may_act
    node = Node(0).go(LISTENING_S + 1, 0)
    assert node.go(100, HOUR // 2).time.may_act
    assert 0 < node.error <= 100 * 5, "pulled no faster than it slews"


def test_unsafe_clock_waits_for_three_others_and_says_so() -> None:
    """Goal: no clock at all. Method: 1970 below the floor with nobody, with two, with three others; the floor holds."""
    node = Node(None, floor=NOW - 5000).go(LISTENING_S + 1)
    assert node.time.state is TimeState.UNKNOWN
    assert node.time.told(node.at) == (0, False)
    assert node.time.now_ms(node.at) == NOW - 5000
    assert node.go(20, 0, 0).time.state is TimeState.UNKNOWN
    assert node.go(LISTENING_S + 2, 0, 5, 10).time.state is TimeState.SET
    assert node.error == 5
    low = Node(None, floor=NOW + HOUR).go(LISTENING_S + 2, 0, 0, 0)
    assert low.time.now_ms(low.at) >= NOW + HOUR


def test_small_differences_are_left_alone_and_greater_ones_slewed() -> None:
    """Goal: 60 ms, and 5 ms a second. Method: three others move together; our time never goes back."""
    node = Node(0).go(LISTENING_S + 1, 0, 0, 0)
    assert node.go(60, TIME_IGNORED_MS - 1, TIME_IGNORED_MS - 1, TIME_IGNORED_MS - 1).error == 0
    before = node.time.now_ms(node.at)
    for _ in range(40):
        node.go(1, -500, -500, -500)
        assert node.time.now_ms(node.at) > before
        before = node.time.now_ms(node.at)
    assert -205 <= node.error <= -195
    assert node.time.state is TimeState.SET


def test_far_from_the_others_it_rests_listens_and_sets_its_time_again() -> None:
    """Goal: a machine that stood still. Method: three others ten seconds ahead; then more than an hour: that is for people."""
    node = Node(0).go(LISTENING_S + 1, 0, 0, 0)
    off = 5 * TIME_STEP_MS
    assert node.go(1, off, off, off).time.state is TimeState.LISTENING
    assert node.time.told(node.at)[1], "it stays one of those that count"
    assert not node.go(LISTENING_S - 1, off, off, off).time.may_act
    node.go(2, off, off, off)
    assert (node.time.state, node.error) == (TimeState.SET, off)
    far = off + 2 * HOUR
    assert node.go(LISTENING_S + 5, far, far, far).time.state is TimeState.ASTRAY
    assert abs(node.time.agreement().gap_ms - 2 * HOUR) < 100
    assert node.go(1).time.state is TimeState.ASTRAY, "nobody to be heard is no proof"
    assert node.go(LISTENING_S + 5, off, off, off).time.state is TimeState.SET


def test_clock_that_a_time_server_keeps_weighs_as_itself() -> None:
    """Goal: one synchronised clock is one value. Method: alone with one other it leads; against three it is dropped."""
    node = Node(0, synchronised=True).go(LISTENING_S + 1, 1000, 1000, 1000)
    assert node.error == 1000
    assert node.go(120, 1000, 1000, 1000).error == 1000
    node.go(TIME_REPORT_AGE_MS_MAX // 1000 + 300)
    assert abs(node.error) < TIME_IGNORED_MS, "and with nobody left it is the time"


def test_report_counts_by_its_way_and_its_age_and_only_of_so_many() -> None:
    """Goal: late words are worth little. Method: a slow, an impossible and an exact report; silence; a crowd."""
    node = Node(0).go(LISTENING_S + 1, 0, 0, 0)
    for way in (TIME_ROUND_TRIP_MS_MAX + 1, -1):
        node.time.hear(account(9), NOW, is_set=True, round_trip_ms=way, steady_ms=node.at)
    node.go(1, 0, 0, 0)
    assert node.time.agreement().members == 4
    node.time.hear(account(9), NOW + node.at - 200, is_set=True, round_trip_ms=400, steady_ms=node.at)
    node.time.look(node.own(), node.at)
    assert (node.time.agreement().members, node.time.agreement().spread_ms) == (5, 0)
    node.go(TIME_REPORT_AGE_MS_MAX // 1000 + 1, 0, 0, 0)
    assert node.time.agreement().members == 4
    for number in range(2 * CLOCK_REPORTS_MAX):
        node.time.hear(account(100 + number), NOW + node.at, is_set=True, round_trip_ms=0, steady_ms=node.at)
    node.time.look(node.own(), node.at)
    assert node.time.agreement().members == CLOCK_REPORTS_MAX + 1


def test_those_who_only_start_are_not_counted_by_those_who_run() -> None:
    """Goal: whoever starts with a wrong clock moves nobody. Method: a running node hears three whose time is not set."""
    node = Node(0).go(LISTENING_S + 1, 0, 0, 0)
    assert node.go(TIME_REPORT_AGE_MS_MAX // 1000, HOUR // 2, HOUR // 2, HOUR // 2, is_set=False).error == 0
