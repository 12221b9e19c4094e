"""A snapshot with writes laid over it: several functions can share one batch, each seeing what those before it will write."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from .engine import Delete, Put, Snapshot, Table, Write


class Overlay:
    """Reads through the pending writes to the snapshot below. Implements Snapshot; may lie over another overlay."""

    def __init__(self, below: Snapshot) -> None:
        self._below = below
        self._pending: dict[Table, dict[bytes, bytes | memoryview | None]] = {}
        self._keys: dict[Table, list[bytes]] = {}
        self.writes: list[Write] = []

    def add(self, writes: Sequence[Write]) -> None:
        """Lays more writes over what is there, in order."""
        for write in writes:
            values = self._pending.get(write.table)
            if values is None:
                values = self._pending[write.table] = {}
                self._keys[write.table] = []
            if write.key not in values:
                insort(self._keys[write.table], write.key)
            values[write.key] = write.value if isinstance(write, Put) else None
            self.writes.append(write)

    def put(self, table: Table, key: bytes, value: bytes | memoryview) -> None:
        self.add((Put(table, key, value),))

    def delete(self, table: Table, key: bytes) -> None:
        self.add((Delete(table, key),))

    def get(self, table: Table, key: bytes) -> bytes | None:
        values = self._pending.get(table)
        if values is not None and key in values:
            value = values[key]
            return None if value is None else bytes(value)
        return self._below.get(table, key)

    def has(self, table: Table, key: bytes) -> bool:
        values = self._pending.get(table)
        if values is not None and key in values:
            return values[key] is not None
        return self._below.has(table, key)

    def scan(self, table: Table, *, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Pairs in key order. What is added while the scan runs may or may not be seen."""
        ours = self._pending_from(table, prefix, max(prefix, start))
        if not ours:
            yield from self._below.scan(table, prefix=prefix, start=start)
            return
        values = self._pending[table]
        position = 0
        for key, value in self._below.scan(table, prefix=prefix, start=start):
            while position < len(ours) and ours[position] < key:
                own = values[ours[position]]
                if own is not None:
                    yield ours[position], bytes(own)
                position += 1
            if position < len(ours) and ours[position] == key:
                own = values[key]
                position += 1
                if own is not None:
                    yield key, bytes(own)
                continue
            yield key, value
        for key in ours[position:]:
            own = values[key]
            if own is not None:
                yield key, bytes(own)

    def _pending_from(self, table: Table, prefix: bytes, lowest: bytes) -> list[bytes]:
        keys = self._keys.get(table)
        if not keys:
            return []
        first = last = bisect_left(keys, lowest)
        while last < len(keys) and keys[last].startswith(prefix):
            last += 1
        return keys[first:last]

    def count(self, table: Table) -> int:
        total = self._below.count(table)
        for key, value in self._pending.get(table, {}).items():
            total += (value is not None) - self._below.has(table, key)
        return total
