"""Bytes a second for one peer: a token bucket that every connection to it shares."""

from __future__ import annotations

import math

import trio

# A limited writer hands over this much time's worth of bytes at once, so that small control frames never wait long.
SLICE_S = 0.05
SLICE_BYTES_MIN = 4 * 1024


class RateBudget:
    """At most ``bytes_per_s`` over time, one second's worth at once after a rest. Unlimited by default."""

    def __init__(self, bytes_per_s: float = math.inf) -> None:
        assert bytes_per_s > 0
        self.bytes_per_s = bytes_per_s
        self._tokens = bytes_per_s
        self._counted_at = -math.inf

    @property
    def slice_bytes(self) -> float:
        """How much should be taken at once."""
        return max(SLICE_BYTES_MIN, self.bytes_per_s * SLICE_S)

    def set_rate(self, bytes_per_s: float) -> None:
        assert bytes_per_s > 0
        self.bytes_per_s = bytes_per_s
        self._tokens = min(self._tokens, bytes_per_s)

    async def take(self, byte_count: int) -> None:
        """Waits until the bucket is not in debt, then takes; one take may leave it in debt."""
        if math.isinf(self.bytes_per_s):
            return
        self._count()
        while self._tokens < 0:
            await trio.sleep(-self._tokens / self.bytes_per_s)
            self._count()
        self._tokens -= byte_count

    def _count(self) -> None:
        now = trio.current_time()
        if math.isinf(self.bytes_per_s) or math.isinf(self._counted_at):
            self._tokens = self.bytes_per_s
        else:
            self._tokens = min(self.bytes_per_s, self._tokens + (now - self._counted_at) * self.bytes_per_s)
        self._counted_at = now
