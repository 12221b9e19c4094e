"""What time it is at least, and whose word is taken for more. A board without clock battery boots in the past.

The floor is the newest of: the last persisted time, times signed by root or issuers, the last final block. Nothing that a
mere member signs raises it. A machine's clock at or above the floor is believed, whatever members say: they are only compared
with it. Below the floor a node uses the floor and calls its clock unsafe, until two members agree on a time: that one is used
then, in memory only, and runs on the steady clock, which nobody can set.
"""

from __future__ import annotations

import enum
import statistics
from collections.abc import Mapping

from ..codec import Record
from ..limits import CLOCK_REPORTS_MAX, CLOCK_SKEW_MAX_S
from ..types import MemberId, UnixSeconds
from .authority import Authority, Role

AGREEING_MEMBERS_WANTED = 2


class ClockSource(enum.Enum):
    """Whose time is used."""

    MACHINE = "machine"  # the machine's own clock, at or above the floor
    AGREED = "agreed"  # the machine's is below the floor; two members agree on this one
    FLOOR = "floor"  # the machine's is below the floor, and nobody has confirmed a time: unsafe


class Reading(Record, frozen=True):
    """What to take for the time, and from where."""

    now: UnixSeconds
    source: ClockSource

    @property
    def unsafe(self) -> bool:
        """The clock is behind the floor and nobody has confirmed a time yet."""
        return self.source is ClockSource.FLOOR


class Comparison(Record, frozen=True):
    """Our time beside the members'. agreeing, differing: members within CLOCK_SKEW_MAX_S of us, and the others.
    ahead_s: seconds that we are ahead of the middle one of those that differ; 0 when none does."""

    agreeing: int
    differing: int
    ahead_s: int

    @property
    def is_backed(self) -> bool:
        """Somebody says the same, and no more say otherwise."""
        return self.agreeing > 0 and self.agreeing >= self.differing

    @property
    def is_contradicted(self) -> bool:
        """More say otherwise than say the same."""
        return self.differing > self.agreeing


def compare(times: Mapping[MemberId, int], now: int) -> Comparison:
    """times: what members say that it is now."""
    ahead = [now - time for time in times.values() if abs(now - time) > CLOCK_SKEW_MAX_S]
    return Comparison(agreeing=len(times) - len(ahead), differing=len(ahead), ahead_s=statistics.median_low(ahead) if ahead else 0)


class ClockReports:
    """The last time that each member told, whichever of its nodes did. Of at most CLOCK_REPORTS_MAX members, the latest heard."""

    def __init__(self) -> None:
        self._epochs: dict[MemberId, int] = {}

    def hear(self, member: MemberId, time: int, steady: int) -> None:
        """A proven node of the member, with a safe clock, said so. steady: seconds of the steady clock at that moment."""
        self._epochs.pop(member, None)
        self._epochs[member] = time - steady
        if len(self._epochs) > CLOCK_REPORTS_MAX:
            del self._epochs[next(iter(self._epochs))]

    def times(self, steady: int) -> dict[MemberId, int]:
        """What these members would say at ``steady``."""
        return {member: epoch + steady for member, epoch in self._epochs.items()}


class ClockFloor(Record, frozen=True):
    """The rule as a value. floor: whole seconds, never falls. agreed_epoch: what two members agree that it was when the steady
    clock stood at zero; None until they do. It is never written down."""

    floor: UnixSeconds
    agreed_epoch: int | None = None

    def raised_by_persisted(self, time: int) -> ClockFloor:
        """With a time that this node itself wrote down earlier."""
        return self._raised(time)

    def raised_by_signed(self, authority: Authority, time: int) -> ClockFloor:
        """With the time of an object that was checked. A member's does nothing."""
        return self if authority.role is Role.MEMBER else self._raised(time)

    def raised_by_certificate(self, not_before: int) -> ClockFloor:
        """With the not-before of a checked member or issuer certificate: root or issuer signed it. Not of a node certificate."""
        return self._raised(not_before)

    def raised_by_final_block(self, time: int) -> ClockFloor:
        """With the time of the last final block."""
        return self._raised(time)

    def raised_by_own(self, clock: int, *, counted: int, times: Mapping[MemberId, int]) -> ClockFloor:
        """With our own machine's clock, when it is the one that is used.

        counted: the floor at the start of this run and the seconds counted since. Beyond it the clock may have been set wrong, and
        a floor in the future would outlive the mistake: it is believed so far only while members back it. They can only hold
        the floor back, or let stand what our own clock says.
        """
        if clock < self.floor:
            return self
        return self._raised(clock if compare(times, clock).is_backed else min(clock, counted))

    def _raised(self, time: int) -> ClockFloor:
        if time <= self.floor:
            return self
        return ClockFloor(floor=UnixSeconds(time), agreed_epoch=self.agreed_epoch)

    def read(self, clock: int, steady: int) -> Reading:
        """clock: the machine's wall clock; steady: its steady clock. Whole seconds."""
        if clock >= self.floor:
            return Reading(now=UnixSeconds(clock), source=ClockSource.MACHINE)
        if self.agreed_epoch is not None:
            return Reading(now=UnixSeconds(max(self.agreed_epoch + steady, self.floor)), source=ClockSource.AGREED)
        return Reading(now=self.floor, source=ClockSource.FLOOR)

    def agreed_by(self, times: Mapping[MemberId, int], *, clock: int, steady: int) -> ClockFloor:
        """With what proven members say that it is now; it changes something only while the machine's clock is below the floor.

        Two members within CLOCK_SKEW_MAX_S of each other, both at or above the floor, agree: the earlier is taken (of many
        agreeing pairs the earliest, so that a pair of liars cannot push the time further than an honest pair allows). What was
        agreed before stays while it is within CLOCK_SKEW_MAX_S of that.
        """
        if clock >= self.floor:
            return self
        agreed = self._agreed(times)
        if agreed is None:
            return self
        if self.agreed_epoch is not None and abs(self.agreed_epoch + steady - agreed) <= CLOCK_SKEW_MAX_S:
            return self
        return ClockFloor(floor=self.floor, agreed_epoch=agreed - steady)

    def _agreed(self, times: Mapping[MemberId, int]) -> int | None:
        found = sorted(time for time in times.values() if time >= self.floor)
        wanted = AGREEING_MEMBERS_WANTED
        for index in range(len(found) - wanted + 1):
            if found[index + wanted - 1] - found[index] <= CLOCK_SKEW_MAX_S:
                return found[index]
        return None
