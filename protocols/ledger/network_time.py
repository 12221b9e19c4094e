"""Network time: what the members of a chain agree that it is, for slots, time stamps and lateness. Source: SPEC.md §Network time.

A node's steady clock, which nobody can set, plus an offset: set once after ten seconds of listening, slewed afterwards, so that it
never goes back. Times and clocks are arguments. Offsets here are differences to this node's steady clock, in milliseconds.
"""

from __future__ import annotations

import enum
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from ..limits import (
    CLOCK_REPORTS_MAX,
    LISTEN_FIRST_MS,
    TIME_IGNORED_MS,
    TIME_JUMP_MS_MAX,
    TIME_REPORT_AGE_MS_MAX,
    TIME_REPORTS_KEPT,
    TIME_ROUND_TRIP_MS_MAX,
    TIME_SETTLED_MS,
    TIME_SLEW_MS_PER_S,
    TIME_STEP_MS,
)
from ..types import AccountId, UnixMillis


class TimeState(enum.Enum):
    """Whether the time may be acted on, and why not."""

    LISTENING = "listening"  # ten seconds after a start, and again when the others are far away: hears, neither seals nor votes
    ALONE = "alone"  # nobody was ever heard: the node's own clock
    SET = "set"  # learned with others, slewed
    UNKNOWN = "unknown"  # the own clock is unsafe, and too few others say what time it is
    ASTRAY = "astray"  # what the others say, or alone the own clock, is more than an hour away


@dataclass(frozen=True, slots=True)
class OwnClock:
    """What the machine says.

    wall_ms: its clock; None where that is behind what is known to have happened, and nobody confirmed another.
    is_synchronised: a time server keeps it right. floor_ms: it is not earlier than this.
    """

    wall_ms: int | None
    is_synchronised: bool
    floor_ms: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """How network time stands, for people.

    members: whose values count, this node's own included. spread_ms: between the least and the greatest of them. gap_ms: from this node's
    time to the estimate. ahead_ms: of the machine's own clock, 0 where that is unsafe.
    """

    state: TimeState
    members: int
    spread_ms: int
    gap_ms: int
    ahead_ms: int


def estimate(values: Sequence[int]) -> int:
    """Of k ≥ 3 values max(1, ⌊(k − 1)/3⌋) are dropped at each end; the middle between the extremes of the rest.

    values: at least one.
    """
    ordered = sorted(values)
    dropped = max(1, (len(ordered) - 1) // 3) if len(ordered) >= 3 else 0
    kept = ordered[dropped : len(ordered) - dropped]
    return (kept[0] + kept[-1]) // 2


@dataclass(frozen=True, slots=True)
class _Report:
    """What a member said. offset_ms: right to half of round_trip_ms. heard_ms: steady clock."""

    offset_ms: int
    round_trip_ms: int
    is_set: bool
    heard_ms: int

    def doubt_ms(self, steady_ms: int) -> int:
        """How far off it may be by now: half of the way, and what the member may have slewed since."""
        return self.round_trip_ms // 2 + (steady_ms - self.heard_ms) * TIME_SLEW_MS_PER_S // 1000

    def contradicts(self, other: _Report) -> bool:
        """No one time fits both: the member's clock was set between them."""
        now = max(self.heard_ms, other.heard_ms)
        return abs(self.offset_ms - other.offset_ms) > self.doubt_ms(now) + other.doubt_ms(now) + TIME_IGNORED_MS


class NetworkTime:
    """One node's. ``steady_ms`` is its steady clock everywhere."""

    def __init__(self, steady_ms: int) -> None:
        self.state = TimeState.LISTENING
        self._since_ms = steady_ms  # when listening began
        self._is_learned = False  # together with others, once since the start
        self._was_set = False  # and then found near what they say
        self._offset_us = 0
        self._goal_us = 0
        self._at_ms = steady_ms
        self._is_known = False  # from a clock or from others, not from the floor alone
        self._values: tuple[int, ...] = ()
        self._gap_ms = 0
        self._ahead_ms = 0
        self._reports: OrderedDict[AccountId, deque[_Report]] = OrderedDict()

    @property
    def may_act(self) -> bool:
        """The time is good enough to seal and vote by."""
        return self.state in (TimeState.SET, TimeState.ALONE)

    def told(self, steady_ms: int) -> tuple[int, bool]:
        """What others are told: network time, 0 where it is not known; and whether it was set since the start."""
        is_set = self.state is not TimeState.ASTRAY and (self._was_set or self.state is TimeState.ALONE)
        return (int(self.now_ms(steady_ms)) if self._is_known else 0), is_set

    def agreement(self) -> Agreement:
        """As of the last look."""
        spread = max(self._values) - min(self._values) if self._values else 0
        return Agreement(self.state, len(self._values), spread, self._gap_ms, self._ahead_ms)

    def now_ms(self, steady_ms: int) -> UnixMillis:
        """Network time. Never goes back between two times that it was set."""
        return UnixMillis(steady_ms + self._offset_at(steady_ms) // 1000)

    def hear(self, account: AccountId, time_ms: int, *, is_set: bool, round_trip_ms: int, steady_ms: int) -> None:
        """A member's word, its key checked. time_ms: its network time when it answered. round_trip_ms: from our question to now, less what
        the member says that it waited; of a liar any number. is_set: it has set its time since its start."""
        if not 0 <= round_trip_ms <= TIME_ROUND_TRIP_MS_MAX or not time_ms:
            return
        report = _Report(time_ms + round_trip_ms // 2 - steady_ms, round_trip_ms, is_set, steady_ms)
        known = self._reports.pop(account, None)
        if known is None or known[-1].contradicts(report):
            known = deque(maxlen=TIME_REPORTS_KEPT)
        known.append(report)
        self._reports[account] = known
        if len(self._reports) > CLOCK_REPORTS_MAX:
            self._reports.popitem(last=False)

    def look(self, own: OwnClock, steady_ms: int) -> None:
        """Takes what was heard: to be called every second or so. May set the time, and may end that it is acted on."""
        self._offset_us, self._at_ms = self._offset_at(steady_ms), steady_ms
        wall = None if own.wall_ms is None else own.wall_ms - steady_ms
        if self._is_learned:
            self._follow(wall if own.is_synchronised else None, own.floor_ms - steady_ms, steady_ms)
        else:
            self._learn(wall, own, steady_ms)
        self._ahead_ms = 0 if wall is None else self._offset_at(steady_ms) // 1000 - wall

    # --- before others were heard -------------------------------------------------------------------------------------

    def _learn(self, wall: int | None, own: OwnClock, steady_ms: int) -> None:
        floor = own.floor_ms - steady_ms
        if self.state in (TimeState.ALONE, TimeState.ASTRAY):
            found = [one.offset_ms for one in self._heard(steady_ms) if one.is_set]
            if len(found) < 2 and all(abs(one - self._offset_us // 1000) > TIME_JUMP_MS_MAX for one in found):
                self._follow_own(wall, floor)
                return
            self._listen(steady_ms)
        goal = self._first_estimate(wall, own.is_synchronised, steady_ms)
        # Until then others are told what our own clock says: an estimate from the first word heard, a liar's perhaps, would be its echo.
        self._is_known = wall is not None
        self._step(floor if wall is None else wall, floor)
        if goal is None:
            if steady_ms - self._since_ms >= LISTEN_FIRST_MS:
                self.state = TimeState.UNKNOWN
            return
        if self.state is TimeState.UNKNOWN:
            self._listen(steady_ms)
        if steady_ms - self._since_ms < LISTEN_FIRST_MS:
            return
        self._step(goal, floor)
        self._is_known = True
        self._is_learned = len(self._values) > 1 or wall is None
        # Set, and acted on when the next look finds it near what the others say: beside a liar a wrong clock of our own counts too.
        self._listen(steady_ms)
        if not self._is_learned:
            self.state = TimeState.ALONE

    def _first_estimate(self, wall: int | None, is_synchronised: bool, steady_ms: int) -> int | None:
        """None where nothing can be built on."""
        heard = self._heard(steady_ms)
        others = [one.offset_ms for one in heard]
        if wall is None:
            self._values = tuple(others)
            return estimate(others) if len(others) >= 3 else None
        if len(others) == 1 and abs(others[0] - wall) > TIME_JUMP_MS_MAX:
            others = []  # one word against another: neither is taken
        self._values = (*others, wall)
        if len(others) == 1 and heard[0].is_set and not is_synchronised:
            return others[0]  # it has been running, and we know no better
        return estimate(self._values)

    def _follow_own(self, wall: int | None, floor: int) -> None:
        """Alone, the time is that of the own clock, which somebody may set; but not by more than an hour."""
        self._values = () if wall is None else (wall,)
        if wall is None:
            return
        self._gap_ms = wall - self._offset_us // 1000
        if abs(self._gap_ms) > TIME_JUMP_MS_MAX:
            self.state = TimeState.ASTRAY
        else:
            self.state = TimeState.ALONE
            self._step(wall, floor)

    # --- afterwards -----------------------------------------------------------------------------------------------------

    def _follow(self, synchronised: int | None, floor: int, steady_ms: int) -> None:
        """synchronised: of an own clock that a time server keeps right; None: the own value is network time as it runs here."""
        offset = self._offset_us // 1000
        own = offset if synchronised is None else synchronised
        others = [one.offset_ms for one in self._heard(steady_ms) if one.is_set or not self._was_set]
        if len(others) == 1 and abs(others[0] - own) > TIME_JUMP_MS_MAX:
            others = []
        self._values = (*others, own)
        if self.state is TimeState.ASTRAY and not others:
            return
        goal = estimate(self._values)
        self._gap_ms = goal - offset
        self._goal_us = self._offset_us
        if abs(self._gap_ms) > TIME_JUMP_MS_MAX and len(others) != 1 and self._was_set:
            self.state = TimeState.ASTRAY
        elif len(others) >= 2 and abs(self._gap_ms) > (TIME_SETTLED_MS if self.state is TimeState.LISTENING else TIME_STEP_MS):
            if self.state is not TimeState.LISTENING:
                self._listen(steady_ms)
            elif steady_ms - self._since_ms >= LISTEN_FIRST_MS:
                self._step(goal, floor)
                self._listen(steady_ms)
        else:
            self.state, self._was_set = TimeState.SET, True
            if abs(self._gap_ms) >= TIME_IGNORED_MS:
                self._goal_us = goal * 1000

    # --- both -----------------------------------------------------------------------------------------------------------

    def _heard(self, steady_ms: int) -> list[_Report]:
        """Of each member heard lately, the report that says most exactly what it says now."""
        oldest = steady_ms - TIME_REPORT_AGE_MS_MAX
        found: list[_Report] = []
        for account, reports in list(self._reports.items()):
            while reports and reports[0].heard_ms < oldest:
                reports.popleft()
            if reports:
                best = min(reports, key=lambda one: one.doubt_ms(steady_ms))
                found.append(_Report(best.offset_ms, best.round_trip_ms, reports[-1].is_set, best.heard_ms))
            else:
                del self._reports[account]
        return found

    def _listen(self, steady_ms: int) -> None:
        self.state, self._since_ms = TimeState.LISTENING, steady_ms

    def _step(self, offset: int, floor: int) -> None:
        self._offset_us = self._goal_us = max(offset, floor) * 1000
        self._gap_ms = 0

    def _offset_at(self, steady_ms: int) -> int:
        """Microseconds."""
        moved = (steady_ms - self._at_ms) * TIME_SLEW_MS_PER_S
        return self._offset_us + max(-moved, min(moved, self._goal_us - self._offset_us))
