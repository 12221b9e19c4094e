"""The clock of a node: the only caller of the wall clock.

Two times that are never mixed: ``now`` is what stands in signed objects and certificates (unix seconds, may be set wrong by
its owner), ``monotonic`` is what time-outs and pacing use (trio's own clock, so virtual in simulation).
"""

from __future__ import annotations

import time
from typing import Protocol

import trio

from protocols.identity.clockfloor import ClockFloor


class Clock(Protocol):
    """Where a node's times come from."""

    def now(self) -> float:
        """Unix seconds, UTC."""

    def monotonic(self) -> float:
        """Seconds of trio's clock: never goes back, starts anywhere."""


class SystemClock:
    """The machine's clock."""

    def now(self) -> float:
        """Unix seconds, UTC, as the machine believes."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of trio's clock."""
        return trio.current_time()


class SimulatedClock:
    """A wall clock that follows trio's (virtual) clock, and may be wrong by an offset and run fast or slow.

    epoch: unix seconds at trio time zero, the same for every node of a world.
    offset: seconds this node's clock is ahead of the truth. Drift is set later with ``set_drift``.
    """

    def __init__(self, epoch: float, offset: float = 0.0) -> None:
        self._anchor_trio = 0.0
        self._anchor_unix = epoch + offset
        self._rate = 1.0

    def now(self) -> float:
        """Unix seconds as this node believes."""
        return self._anchor_unix + (trio.current_time() - self._anchor_trio) * self._rate

    def monotonic(self) -> float:
        """Seconds of trio's clock, which nobody can set."""
        return trio.current_time()

    def step(self, seconds: float) -> None:
        """Somebody sets the clock: forward when positive, back when negative."""
        self._anchor_unix += seconds

    def set_drift(self, drift: float) -> None:
        """From now on the clock gains ``drift`` seconds per second (0.0: runs true; 1e-4: a bad quartz)."""
        assert drift > -1.0, "a clock that runs backwards is a step, not a drift"
        believed = self.now()
        self._anchor_trio = trio.current_time()
        self._anchor_unix = believed
        self._rate = 1.0 + drift


class FlooredClock:
    """A clock that is never behind what is known to have happened (IDENTITY, Time): below the floor it says the floor, and is unsafe."""

    def __init__(self, inner: Clock, floor: ClockFloor) -> None:
        self._inner = inner
        self.floor = floor

    def now(self) -> float:
        """Unix seconds, at least the floor."""
        wall = self._inner.now()
        return max(wall + self.floor.offset, float(self.floor.floor))

    def monotonic(self) -> float:
        return self._inner.monotonic()

    @property
    def is_unsafe(self) -> bool:
        """The machine's clock is behind the floor: it boots in the past, or somebody set it back."""
        return self.floor.read(int(self._inner.now())).unsafe

    def raise_to(self, floor: ClockFloor) -> None:
        """A later floor was learnt."""
        if floor.floor > self.floor.floor:
            self.floor = floor
