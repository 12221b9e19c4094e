"""The clock of a node: the only caller of the wall clock.

Two times that are never mixed: ``now`` is what stands in signed objects and certificates (unix seconds, may be set wrong by
its owner), ``monotonic`` is what time-outs and pacing use (trio's own clock, so virtual in simulation).
"""

from __future__ import annotations

import ctypes
import datetime
import time
from typing import Protocol

import trio

from protocols.identity.clockfloor import ClockFloor, ClockReports, ClockSource, Comparison, Reading, compare
from protocols.limits import CLOCK_SKEW_MAX_S
from protocols.types import MemberId, UnixSeconds

# Linux counts a suspended machine's time on this one alone.
_STEADY = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
# ntp_gettime(3) fills a struct of 72 bytes on Linux, fewer elsewhere, and says how the clock stands: 5 (TIME_ERROR) is not synchronised.
_NTP_GETTIME = getattr(ctypes.CDLL(None), "ntp_gettime", None)
_NTP_TIME_BYTES_MAX = 256
_NTP_UNSYNCHRONISED = 5
CLOCK_HINT = "set it: timedatectl set-ntp true   or   date -u -s TIME"


class Clock(Protocol):
    """Where a node's times come from."""

    def now(self) -> float:
        """Unix seconds, UTC."""

    def monotonic(self) -> float:
        """Seconds of trio's clock: never goes back, starts anywhere."""

    def steady(self) -> float:
        """The same of a clock that, unlike trio's, can be asked in any thread: what times are counted on by. Nobody can set it."""

    @property
    def is_unsafe(self) -> bool:
        """``now`` is only what time it is at least."""

    @property
    def is_synchronised(self) -> bool:
        """A time server keeps ``now`` right."""

    @property
    def floor_s(self) -> int:
        """Unix seconds: it is not earlier than this. 0 where nothing is known."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Unix seconds, UTC, as the machine believes."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of trio's clock."""
        return trio.current_time()

    def steady(self) -> float:
        """Seconds since the machine was switched on, those that it slept included: whoever counts on it has not slept in vain."""
        return time.clock_gettime(_STEADY)

    @property
    def is_unsafe(self) -> bool:
        """Nothing is known against it here."""
        return False

    @property
    def is_synchronised(self) -> bool:
        """The kernel says so: what chrony, ntpd or systemd-timesyncd told it. A machine that cannot be asked is not."""
        if _NTP_GETTIME is None:
            return False
        return 0 <= int(_NTP_GETTIME(ctypes.create_string_buffer(_NTP_TIME_BYTES_MAX))) < _NTP_UNSYNCHRONISED

    @property
    def floor_s(self) -> int:
        """Nothing is known."""
        return 0


class SimulatedClock:
    """A wall clock that follows trio's (virtual) clock, and may be wrong by an offset and run fast or slow.

    epoch: unix seconds at trio time zero, the same for every node of a world.
    offset: seconds this node's clock is ahead of the truth. Drift is set later with ``set_drift``.
    """

    def __init__(self, epoch: float, offset: float = 0.0, *, is_synchronised: bool = False) -> None:
        self.is_unsafe = False
        self.is_synchronised = is_synchronised
        self.floor_s = 0
        self._anchor_trio = 0.0
        self._anchor_unix = epoch + offset
        self._anchor_steady = 0.0
        self._rate = 1.0

    def now(self) -> float:
        """Unix seconds as this node believes."""
        return self._anchor_unix + (trio.current_time() - self._anchor_trio) * self._rate

    def monotonic(self) -> float:
        """Seconds of trio's clock, which nobody can set."""
        return trio.current_time()

    def steady(self) -> float:
        """The same by this machine's quartz, and what was let pass: in simulation there are no threads."""
        return self._anchor_steady + (trio.current_time() - self._anchor_trio) * self._rate

    def let_pass(self, seconds: float) -> None:
        """So much time goes by for this machine without anything happening: years in minutes."""
        self._anchor_unix += seconds
        self._anchor_steady += seconds

    def step(self, seconds: float) -> None:
        """Somebody sets the clock: forward when positive, back when negative."""
        self._anchor_unix += seconds

    def set_drift(self, drift: float) -> None:
        """From now on the machine's quartz gains ``drift`` seconds per second (0.0: runs true; 1e-4: a bad one; -0.999: the machine
        stands still, and its clocks know nothing of it, like a paused virtual one's)."""
        assert drift > -1.0, "a clock that runs backwards is a step, not a drift"
        believed, steady = self.now(), self.steady()
        self._anchor_trio = trio.current_time()
        self._anchor_unix, self._anchor_steady = believed, steady
        self._rate = 1.0 + drift


class FlooredClock:
    """A clock that is never behind what is known to have happened (IDENTITY, Time): below the floor it says what two members agree
    on, and until they do, the floor."""

    def __init__(self, inner: Clock, floor: ClockFloor) -> None:
        self._inner = inner
        self.floor = floor
        self._reports = ClockReports()
        self._counting_from: tuple[float, UnixSeconds] | None = None
        self._used = self.source, self._epoch

    def now(self) -> float:
        """Unix seconds, at least the floor."""
        wall = self._inner.now()
        if wall >= self.floor.floor:
            return wall
        if self.floor.agreed_epoch is None:
            return float(self.floor.floor)
        return max(self.floor.agreed_epoch + self.steady(), float(self.floor.floor))

    def monotonic(self) -> float:
        return self._inner.monotonic()

    def steady(self) -> float:
        return self._inner.steady()

    @property
    def source(self) -> ClockSource:
        """Whose time ``now`` is."""
        return self._reading.source

    @property
    def is_unsafe(self) -> bool:
        """The machine's clock is behind the floor (it boots in the past, or somebody set it back), and no two members agree yet."""
        return self._reading.unsafe

    @property
    def is_synchronised(self) -> bool:
        """A time server keeps the machine's clock right, and that is the one that is used."""
        return self.source is ClockSource.MACHINE and self._inner.is_synchronised

    @property
    def floor_s(self) -> int:
        """Unix seconds: it is not earlier than this."""
        return self.floor.floor

    @property
    def _reading(self) -> Reading:
        return self.floor.read(int(self._inner.now()), int(self.steady()))

    @property
    def machine_s(self) -> int:
        """What the machine's own clock says, unix seconds."""
        return int(self._inner.now())

    def hear(self, member: MemberId, time: int) -> None:
        """A proven node of the member, which calls its clock safe, says that it is ``time``."""
        self._reports.hear(member, time, int(self.steady()))

    def compare(self) -> Comparison:
        """Our time beside what members say."""
        return compare(self._reports.times(int(self.steady())), int(self.now()))

    @property
    def is_backed(self) -> bool:
        """The time may be built on without asking anybody: members back it, or it was counted here from a time that stands."""
        if self.is_unsafe:
            return False
        return self.source is ClockSource.AGREED or self.compare().is_backed or self.now() <= self.floor.floor + CLOCK_SKEW_MAX_S

    @property
    def judges(self) -> bool:
        """Others' times may be held against ours: ours is not the floor, and most members do not say otherwise."""
        return not self.is_unsafe and not self.compare().is_contradicted

    @property
    def _epoch(self) -> float:
        """What time it was, by the time that is used, when the steady clock stood at zero. The floor alone does not run."""
        return 0.0 if self.is_unsafe else self.now() - self.steady()

    def look(self) -> bool:
        """Takes what two members agree on, when the machine's clock is below the floor.
        Result: another time is used than at the last look, so that what was judged by it must be judged again."""
        steady = int(self.steady())
        self.floor = self.floor.agreed_by(self._reports.times(steady), clock=self.machine_s, steady=steady)
        used = self.source, self._epoch
        is_other = used[0] is not self._used[0] or abs(used[1] - self._used[1]) > CLOCK_SKEW_MAX_S
        if is_other:
            self._used = used
        return is_other

    def raise_to(self, floor: ClockFloor) -> None:
        """A later floor was learnt."""
        if floor.floor > self.floor.floor:
            self.floor = floor

    def raise_by_own(self) -> UnixSeconds:
        """Raises the floor with the machine's own clock, as far as that is believed. Result: the floor, to be written down."""
        if self._counting_from is None:
            self._counting_from = self.steady(), self.floor.floor
        began, floor = self._counting_from
        steady = int(self.steady())
        counted = floor + int(steady - began)
        self.raise_to(self.floor.raised_by_own(self.machine_s, counted=counted, times=self._reports.times(steady)))
        return self.floor.floor


def clock_trouble(clock: FlooredClock) -> str:
    """What is wrong with the machine's clock, what is done about it, and what to do; empty when nothing is."""
    said, used = compared_text(clock), clock_text(clock.now())
    behind = f"this machine's clock says {clock_text(clock.machine_s)}, which is before what is known to have happened"
    match clock.source:
        case ClockSource.FLOOR:
            return f"{behind}; counting from {used} until two members agree on the time{said}; {CLOCK_HINT}"
        case ClockSource.AGREED:
            return f"{behind}; using {used}, on which two members agree{said}; {CLOCK_HINT}"
        case ClockSource.MACHINE:
            if not clock.compare().is_contradicted:
                return ""
            return f"this machine's clock says {used}{said}; others refuse what it signs, and it refuses them; {CLOCK_HINT}"


def compared_text(clock: FlooredClock) -> str:
    """How our time lies to that of members; empty when none says otherwise."""
    found = clock.compare()
    if not found.differing:
        return ""
    side = "ahead of" if found.ahead_s > 0 else "behind"
    members = found.agreeing + found.differing
    return f" and is {duration_text(abs(found.ahead_s))} {side} {found.differing} of {members} members"


def clock_text(seconds: float) -> str:
    """ISO-8601 UTC."""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def duration_text(seconds: int) -> str:
    """In the largest unit that leaves a whole number above 1."""
    for unit, length in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length} {unit}"
    return f"{seconds} seconds"
