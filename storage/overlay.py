"""A snapshot with writes laid over it: several functions can share one batch, each seeing what those before it will write."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Sequence

from .engine import Delete, Put, Reader, Snapshot, Table, Write

# Keys that came since the last scan are put in their places one by one, or, from so many on, sorted in.
FEW_KEYS = 16


class Overlay:
    """Reads through the pending writes to the snapshot below. Implements Snapshot; may lie over another overlay."""

    def __init__(self, below: Snapshot) -> None:
        self._below = below
        self._pending: dict[Table, dict[bytes, Write]] = {}
        self._keys: dict[Table, list[bytes]] = {}
        self._fresh: dict[Table, list[bytes]] = {}

    @property
    def writes(self) -> list[Write]:
        """The last word on every key, by table and key: neighbours are written together."""
        return [values[key] for table, values in self._pending.items() for key in self._sorted(table)]

    def add(self, writes: Sequence[Write]) -> None:
        """Lays more writes over what is there, in order."""
        for write in writes:
            table, key = write.table, write.key
            values = self._pending.get(table)
            if values is None:
                values = self._begun(table)
            if key not in values:
                self._fresh[table].append(key)
            values[key] = write

    def _begun(self, table: Table) -> dict[bytes, Write]:
        values = self._pending.get(table)
        if values is None:
            values = self._pending[table] = {}
            self._keys[table], self._fresh[table] = [], []
        return values

    def _sorted(self, table: Table) -> list[bytes]:
        keys, fresh = self._keys[table], self._fresh[table]
        if len(fresh) <= FEW_KEYS:
            for key in fresh:
                insort(keys, key)
        else:
            keys += fresh
            keys.sort()
        fresh.clear()
        return keys

    def put(self, table: Table, key: bytes, value: bytes | memoryview) -> None:
        self.add((Put(table, key, value),))

    def delete(self, table: Table, key: bytes) -> None:
        self.add((Delete(table, key),))

    def get(self, table: Table, key: bytes) -> bytes | None:
        values = self._pending.get(table)
        if values is not None:
            write = values.get(key)
            if write is not None:
                return bytes(write.value) if isinstance(write, Put) else None
        return self._below.get(table, key)

    def reader(self, table: Table) -> Reader:
        values, below = self._begun(table), self._below.reader(table)

        def read(key: bytes) -> bytes | None:
            write = values.get(key)
            if write is None:
                return below(key)
            return bytes(write.value) if isinstance(write, Put) else None

        return read

    def has(self, table: Table, key: bytes) -> bool:
        values = self._pending.get(table)
        if values is not None and key in values:
            return isinstance(values[key], Put)
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
                if isinstance(own, Put):
                    yield ours[position], bytes(own.value)
                position += 1
            if position < len(ours) and ours[position] == key:
                own = values[key]
                position += 1
                if isinstance(own, Put):
                    yield key, bytes(own.value)
                continue
            yield key, value
        for key in ours[position:]:
            own = values[key]
            if isinstance(own, Put):
                yield key, bytes(own.value)

    def _pending_from(self, table: Table, prefix: bytes, lowest: bytes) -> list[bytes]:
        if table not in self._pending:
            return []
        keys = self._sorted(table)
        first = last = bisect_left(keys, lowest)
        while last < len(keys) and keys[last].startswith(prefix):
            last += 1
        return keys[first:last]

    def count(self, table: Table) -> int:
        total = self._below.count(table)
        for key, write in self._pending.get(table, {}).items():
            total += isinstance(write, Put) - self._below.has(table, key)
        return total
