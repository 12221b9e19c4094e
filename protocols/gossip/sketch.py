"""The summary of a set of 32-byte ids: 256 buckets by first byte, each the exclusive-or of the ids' first 8 bytes after hashing.

Two sets with equal sketches are equal except with probability 2^-64 per bucket; reconciliation runs again from time to time, and
an adversary who makes sketches collide only hides his own facts from a peer that has other neighbours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

BUCKET_COUNT = 256
BUCKET_BYTES = 8
SKETCH_BYTES = BUCKET_COUNT * BUCKET_BYTES


def _mark(fact_id: bytes) -> int:
    return int.from_bytes(hashlib.sha256(fact_id).digest()[:BUCKET_BYTES], "big")


class Sketch:
    """A set of ids and its 256 bucket digests, kept as facts come and go."""

    def __init__(self, ids: Iterable[bytes] = ()) -> None:
        self._ids: list[dict[bytes, None]] = [{} for _ in range(BUCKET_COUNT)]
        self._digests = [0] * BUCKET_COUNT
        self.count = 0
        for fact_id in ids:
            self.add(fact_id)

    def __contains__(self, fact_id: bytes) -> bool:
        return fact_id in self._ids[fact_id[0]]

    def add(self, fact_id: bytes) -> None:
        bucket = fact_id[0]
        if fact_id not in self._ids[bucket]:
            self._ids[bucket][fact_id] = None
            self._digests[bucket] ^= _mark(fact_id)
            self.count += 1

    def remove(self, fact_id: bytes) -> None:
        bucket = fact_id[0]
        if fact_id in self._ids[bucket]:
            del self._ids[bucket][fact_id]
            self._digests[bucket] ^= _mark(fact_id)
            self.count -= 1

    def digest(self) -> bytes:
        """SKETCH_BYTES bytes: the bucket digests in order."""
        return b"".join(digest.to_bytes(BUCKET_BYTES, "big") for digest in self._digests)

    def ids_of(self, bucket: int) -> tuple[bytes, ...]:
        """Ids of one bucket in ascending order."""
        return tuple(sorted(self._ids[bucket]))


def differing_buckets(ours: bytes, theirs: bytes) -> tuple[int, ...]:
    """Buckets whose digests differ. Both arguments are SKETCH_BYTES long."""
    if ours == theirs:
        return ()
    step = BUCKET_BYTES
    return tuple(b for b in range(BUCKET_COUNT) if ours[b * step : b * step + step] != theirs[b * step : b * step + step])
