"""The port of every engine: a snapshot to read, one atomic durable batch to write. A store never writes, it returns what to write."""

from __future__ import annotations

import enum
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol


class Env(enum.Enum):
    """The two environments (ARCHITECTURE, Storage): no transaction spans both. Bodies first, then what speaks of them."""

    LEDGER = "ledger"  # small: ledger, keys, jobs, record objects, receipts, peers
    CHUNKS = "chunks"  # large: sealed chunks with presence, references, protections, trash


@dataclass(frozen=True, slots=True)
class Table:
    """name: with its version, e.g. "receipts/1". bodies: values are sealed chunks of up to 256 KiB + 16."""

    name: str
    env: Env
    bodies: bool = False


@dataclass(frozen=True, slots=True)
class Put:
    table: Table
    key: bytes
    value: bytes | memoryview


@dataclass(frozen=True, slots=True)
class Delete:
    """Deleting what is not there is fine."""

    table: Table
    key: bytes


Write = Put | Delete


class Snapshot(Protocol):
    """One consistent view of one environment. Lives inside one synchronous function, never across an await."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def has(self, table: Table, key: bytes) -> bool: ...

    def scan(self, table: Table, *, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Pairs in key order, keys beginning with ``prefix`` and not below ``start``."""

    def count(self, table: Table) -> int: ...


@dataclass(frozen=True, slots=True)
class Usage:
    """bytes_used: live data and what the engine needs around it; bytes_budget: hard limit; bytes_disk_free: of the file system."""

    bytes_used: int
    bytes_budget: int
    bytes_disk_free: int


class Engine(Protocol):
    """One environment. ``write`` belongs to one thread at a time; snapshots may be taken from any thread."""

    env: Env

    def snapshot(self) -> AbstractContextManager[Snapshot]: ...

    def write(self, batch: Sequence[Write]) -> None:
        """All of the batch, durable when this returns, or none of it. Raises StoreFull, StoreDamaged.
        Deletes-only batches are always taken, also over budget and on a full disk where the engine can."""

    def usage(self) -> Usage: ...

    def close(self) -> None: ...
