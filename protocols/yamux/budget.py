"""How much may be promised to peers (windows beyond the first) and held for readers: by a connection, by the process around it."""

from __future__ import annotations

from ..limits import (
    STREAMS_HELD_ALWAYS_BYTES,
    STREAMS_HELD_BYTES_MAX,
    STREAMS_HELD_PROCESS_BYTES_MAX,
    WINDOWS_GROWN_BYTES_MAX,
    WINDOWS_GROWN_PROCESS_BYTES_MAX,
)


class Budget:
    """Two counters with bounds; what is counted here is counted in ``around`` too."""

    __slots__ = ("around", "grown_bytes", "grown_bytes_max", "held_bytes", "held_bytes_max")

    def __init__(self, *, grown_bytes_max: int, held_bytes_max: int, around: Budget | None = None) -> None:
        self.grown_bytes = 0
        self.grown_bytes_max = grown_bytes_max
        self.held_bytes = 0
        self.held_bytes_max = held_bytes_max
        self.around = around

    def grow(self, wanted: int) -> int:
        """How much of ``wanted`` may be promised; counted already."""
        growth = max(0, min(wanted, self.grown_bytes_max - self.grown_bytes))
        if self.around is not None:
            growth = self.around.grow(growth)
        self.grown_bytes += growth
        return growth

    def shrink(self, size: int) -> None:
        """A promise has ended."""
        self.grown_bytes -= size
        assert self.grown_bytes >= 0
        if self.around is not None:
            self.around.shrink(size)

    def hold(self, size: int) -> None:
        """Counts bytes that have arrived, a negative size when they are taken. ``is_full`` says when it is too much."""
        self.held_bytes += size
        assert self.held_bytes >= 0
        if self.around is not None:
            self.around.hold(size)

    @property
    def is_full(self) -> bool:
        """Whether more is held than may be, here or around; who holds little is not asked to make room for others."""
        if self.held_bytes > self.held_bytes_max:
            return True
        return self.around is not None and self.held_bytes > STREAMS_HELD_ALWAYS_BYTES and self.around.is_full


def process_budget() -> Budget:
    """For all connections of a process."""
    return Budget(grown_bytes_max=WINDOWS_GROWN_PROCESS_BYTES_MAX, held_bytes_max=STREAMS_HELD_PROCESS_BYTES_MAX)


def connection_budget(process: Budget | None = None) -> Budget:
    """For one connection."""
    return Budget(grown_bytes_max=WINDOWS_GROWN_BYTES_MAX, held_bytes_max=STREAMS_HELD_BYTES_MAX, around=process)
