"""The engine in a dict: the reference that the others are measured against, and the simulation's disk."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from protocols.errors import LocalError, Reason, StoreFull

from .engine import Appetite, Env, Put, Reader, Snapshot, Table, Usage, Write, appetite, delete_headroom
from .tables import tables_of

# What an LMDB leaf needs around a small value, roughly; so that budgets in simulation mean what they mean on a disk.
ROW_OVERHEAD_BYTES = 16


class MemorySnapshot:
    """A view of tables that nobody changes any more: every write replaces the tables that it touches."""

    def __init__(self, tables: dict[str, dict[bytes, bytes]]) -> None:
        self._tables = tables
        self._sorted: dict[str, list[bytes]] = {}

    def get(self, table: Table, key: bytes) -> bytes | None:
        return self._tables[table.name].get(key)

    def reader(self, table: Table) -> Reader:
        return self._tables[table.name].get

    def has(self, table: Table, key: bytes) -> bool:
        return key in self._tables[table.name]

    def scan(self, table: Table, *, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        values = self._tables[table.name]
        keys = self._sorted.get(table.name)
        if keys is None:
            keys = self._sorted[table.name] = sorted(values)
        for index in range(bisect_left(keys, max(prefix, start)), len(keys)):
            key = keys[index]
            if not key.startswith(prefix):
                return
            yield key, values[key]

    def count(self, table: Table) -> int:
        return len(self._tables[table.name])


class MemoryEngine:
    """One environment in memory. Copies a table when it writes to it, so that open snapshots stay as they were."""

    def __init__(self, env: Env, budget_bytes: int, *, reserve_bytes: int = 0) -> None:
        """budget_bytes: hard limit; reserve_bytes: the part of it that bodies may not take."""
        self.env = env
        self._budget_bytes = budget_bytes
        self._reserve_bytes = reserve_bytes
        self._tables: dict[str, dict[bytes, bytes]] = {table.name: {} for table in tables_of(env)}
        self._view: MemorySnapshot = MemorySnapshot(self._tables)
        self._bytes_used = 0
        self._reading = threading.local()
        self._closed = False

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        if self._closed:
            raise LocalError(Reason.FAILED, f"the {self.env.value} engine is closed")
        self._reading.depth = getattr(self._reading, "depth", 0) + 1
        try:
            yield self._view
        finally:
            self._reading.depth -= 1

    def write(self, batch: Sequence[Write]) -> None:
        if self._closed:
            raise LocalError(Reason.FAILED, f"the {self.env.value} engine is closed")
        assert getattr(self._reading, "depth", 0) == 0, "a thread that has a snapshot open must not write"
        added = sum(len(w.key) + len(w.value) + ROW_OVERHEAD_BYTES for w in batch if isinstance(w, Put))
        left = self._budget_bytes - self._bytes_used - added
        match appetite(batch):
            case Appetite.BODIES:
                wanted = max(self._reserve_bytes, delete_headroom(self._budget_bytes))
            case Appetite.ROWS:
                wanted = delete_headroom(self._budget_bytes)
            case Appetite.DELETES:
                wanted = left
        if left < wanted:
            raise StoreFull(
                f"{added} bytes more would leave {left} of {self._budget_bytes} of the {self.env.value} budget, {wanted} must remain",
                resource="budget",
                env=self.env.value,
            )
        tables = dict(self._tables)
        fresh: set[str] = set()
        for write in batch:
            assert write.table.env is self.env, write.table
            name = write.table.name
            if name not in fresh:
                tables[name] = dict(tables[name])
                fresh.add(name)
            old = tables[name].pop(write.key, None)
            if old is not None:
                self._bytes_used -= len(write.key) + len(old) + ROW_OVERHEAD_BYTES
            if isinstance(write, Put):
                tables[name][write.key] = bytes(write.value)
                self._bytes_used += len(write.key) + len(write.value) + ROW_OVERHEAD_BYTES
        self._tables = tables
        self._view = MemorySnapshot(tables)

    def usage(self) -> Usage:
        return Usage(self._bytes_used, self._budget_bytes, max(0, self._budget_bytes - self._bytes_used))

    prepares = False

    def prepare(self) -> bool:
        return False

    def close(self) -> None:
        self._closed = True
