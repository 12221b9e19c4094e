"""The port of every engine: a snapshot to read, one atomic durable batch to write. A store never writes, it returns what to write."""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol


class Env(enum.Enum):
    """The two environments (ARCHITECTURE, Storage): no transaction spans both. Bodies first, then what speaks of them."""

    LEDGER = "ledger"  # small: ledger, keys, jobs, record objects, receipts, peers
    CHUNKS = "chunks"  # large: sealed chunks with presence, references, protections, trash


@dataclass(frozen=True, slots=True, eq=False)
class Table:
    """name: with its version, e.g. "receipts/1". bodies: values are sealed chunks of up to 256 KiB + 16. key_form: for people.
    rising: most writes come behind all keys that are there; an engine may then fill its pages.

    There is one of each (tables.py), so it is itself alone: every read and write looks one up.
    """

    name: str
    env: Env
    bodies: bool = False
    key_form: str = ""
    rising: bool = False


class Put(NamedTuple):
    """A tuple, since one block makes tens of thousands of them."""

    table: Table
    key: bytes
    value: bytes | memoryview


class Delete(NamedTuple):
    """Deleting what is not there is fine."""

    table: Table
    key: bytes


Write = Put | Delete
Reader = Callable[[bytes], bytes | None]
"""The value of a key of one table, or None. Raises StoreDamaged."""


class Appetite(enum.IntEnum):
    """What a batch asks of a store that fills up: bodies are refused first, then rows, deletes as the very last."""

    DELETES = 0
    ROWS = 1
    BODIES = 2


def appetite(batch: Sequence[Write]) -> Appetite:
    """The greediest write of the batch decides."""
    greediest = Appetite.DELETES
    for write in batch:
        if isinstance(write, Put):
            if write.table.bodies:
                return Appetite.BODIES
            greediest = Appetite.ROWS
    return greediest


# Kept of every budget for deletes alone: a batch of them copies a few pages for each key before it frees any.
DELETE_HEADROOM_BYTES = 1024 * 1024


def delete_headroom(bytes_budget: int) -> int:
    """Bytes of a budget that only deletes may touch; an eighth of very small budgets (tests)."""
    return min(DELETE_HEADROOM_BYTES, bytes_budget // 8)


class Snapshot(Protocol):
    """One consistent view of one environment. Lives inside one synchronous function, never across an await.

    Every method raises StoreDamaged when what it meets is not what was written."""

    def get(self, table: Table, key: bytes) -> bytes | None: ...

    def reader(self, table: Table) -> Reader:
        """``get`` of one table, for those who ask a thousand times. Lives no longer than the snapshot."""

    def has(self, table: Table, key: bytes) -> bool: ...

    def scan(self, table: Table, *, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        """Pairs in key order, keys beginning with ``prefix`` and not below ``start``."""

    def count(self, table: Table) -> int: ...


@dataclass(frozen=True, slots=True)
class Usage:
    """bytes_used: live data and what the engine needs around it; bytes_budget: hard limit; bytes_disk_free: of the file system.
    is_read_only: the disk takes no write at all, deletes included."""

    bytes_used: int
    bytes_budget: int
    bytes_disk_free: int
    is_read_only: bool = False


class Engine(Protocol):
    """One environment. ``write`` belongs to one thread at a time, and never to one that has a snapshot open;
    snapshots may be taken from any thread."""

    env: Env
    prepares: bool
    """Whether ``prepare`` does anything."""

    def snapshot(self) -> AbstractContextManager[Snapshot]: ...

    def write(self, batch: Sequence[Write]) -> None:
        """All of the batch, durable when this returns, or none of it. Raises StoreFull, StoreDamaged.
        Bodies are refused while a reserve is left, other puts while the headroom for deletes is left; deletes-only batches
        are always taken, also over budget and on a full disk where the engine can."""

    def usage(self) -> Usage: ...

    def prepare(self) -> bool:
        """Makes ready a stretch of the space that coming writes will take, as far as that makes them faster and nothing else suffers.
        A few milliseconds at most, of the writing thread. True when there is more to make ready."""

    def close(self) -> None: ...
