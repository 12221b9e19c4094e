"""A snapshot with writes laid over it: several functions can share one batch, each seeing what those before it will write."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .engine import Put, Snapshot, Table, Write


class Overlay:
    """Reads through the pending writes to the snapshot below. Implements Snapshot."""

    def __init__(self, below: Snapshot) -> None:
        self._below = below
        self._pending: dict[Table, dict[bytes, bytes | memoryview | None]] = {}
        self.writes: list[Write] = []

    def add(self, writes: Sequence[Write]) -> None:
        """Lays more writes over what is there, in order."""
        for write in writes:
            values = self._pending.setdefault(write.table, {})
            values[write.key] = write.value if isinstance(write, Put) else None
            self.writes.append(write)

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
        values = self._pending.get(table)
        if not values:
            yield from self._below.scan(table, prefix=prefix, start=start)
            return
        lowest = max(prefix, start)
        ours = sorted(key for key in values if key.startswith(prefix) and key >= lowest)
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

    def count(self, table: Table) -> int:
        total = self._below.count(table)
        for key, value in self._pending.get(table, {}).items():
            there = self._below.has(table, key)
            total += (value is not None) - there
        return total
