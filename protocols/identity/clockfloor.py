"""What time it is at least. A board without clock battery boots in the past; certificates and fences tell it better.

The floor is the newest of: the last persisted time, times signed by root or issuers, the last final block. Nothing that a
mere member signs raises it. Below the floor a node uses the floor and calls its clock unsafe, until two members agree.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..codec import Record
from ..limits import CLOCK_SKEW_MAX_S
from ..types import MemberId, UnixSeconds
from .authority import Authority, Role

AGREEING_MEMBERS_WANTED = 2


class Reading(Record, frozen=True):
    """What to take for the time. unsafe: the clock is behind the floor and nobody has confirmed a time yet."""

    now: UnixSeconds
    unsafe: bool


class ClockFloor(Record, frozen=True):
    """The rule as a value. floor: whole seconds, never falls. offset: added to the clock once two members agreed; 0 before."""

    floor: UnixSeconds
    offset: int = 0
    agreed: bool = False

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

    def _raised(self, time: int) -> ClockFloor:
        if time <= self.floor:
            return self
        return ClockFloor(floor=UnixSeconds(time), offset=self.offset, agreed=self.agreed)

    def read(self, clock: int) -> Reading:
        """clock: the machine's wall clock, whole seconds."""
        now = clock + self.offset
        return Reading(now=UnixSeconds(max(now, self.floor)), unsafe=now < self.floor)

    def agreed_by(self, reports: Mapping[MemberId, int], *, clock: int) -> ClockFloor:
        """With the times that proven members reported at the moment ``clock``; they change something only while it is unsafe.

        Two members within CLOCK_SKEW_MAX_S of each other, both at or above the floor, agree: the earlier is taken (of many
        agreeing pairs the earliest, so that a pair of liars cannot push the time further than an honest pair allows).
        """
        if not self.read(clock).unsafe:
            return self
        times = sorted(time for time in reports.values() if time >= self.floor)
        wanted = AGREEING_MEMBERS_WANTED
        for index in range(len(times) - wanted + 1):
            if times[index + wanted - 1] - times[index] <= CLOCK_SKEW_MAX_S:
                return ClockFloor(floor=self.floor, offset=times[index] - clock, agreed=True)
        return self
