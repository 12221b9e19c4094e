"""An engine that tears, loses and refuses on command. With no faults turned on its contract is that of the engine inside."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from protocols.errors import LadingError, Reason, StoreDamaged, StoreFull

from .engine import Engine, Put, Reader, Snapshot, Table, Usage, Write


class Crashed(LadingError):
    """The machine went away in the middle of a write. Nothing answers until ``FaultyEngine.restart``."""

    def __init__(self) -> None:
        super().__init__(Reason.FAILED, "the machine went down")


@dataclass(slots=True)
class Faults:
    """Knobs; change them while the engine runs. Chances are 0..1, drawn for each operation.

    crash_after_writes: the n-th write from now crashes (1: the next one). crash_keeps: whether its batch is on the disk
    afterwards; None lets chance say. A batch is never torn: that is the engines' promise.
    """

    crash_after_writes: int | None = None
    crash_keeps: bool | None = None
    full: bool = False
    full_chance: float = 0.0
    read_error_chance: float = 0.0
    flip_chance: float = 0.0


class FaultySnapshot:
    """Reads that fail when chance says so."""

    def __init__(self, inner: Snapshot, check_read: Callable[[], None]) -> None:
        self._inner = inner
        self._check_read = check_read

    def get(self, table: Table, key: bytes) -> bytes | None:
        self._check_read()
        return self._inner.get(table, key)

    def reader(self, table: Table) -> Reader:
        read = self._inner.reader(table)

        def checked(key: bytes) -> bytes | None:
            self._check_read()
            return read(key)

        return checked

    def has(self, table: Table, key: bytes) -> bool:
        self._check_read()
        return self._inner.has(table, key)

    def scan(self, table: Table, *, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        self._check_read()
        return self._inner.scan(table, prefix=prefix, start=start)

    def count(self, table: Table) -> int:
        self._check_read()
        return self._inner.count(table)


class FaultyEngine:
    """``inner`` with ``faults``; ``chance`` comes from outside, so that one seed gives one history."""

    def __init__(self, inner: Engine, faults: Faults, chance: random.Random) -> None:
        self.env = inner.env
        self.prepares = inner.prepares
        self.faults = faults
        self.crashed = False
        self._inner = inner
        self._chance = chance

    def _happens(self, probability: float) -> bool:
        return probability > 0 and self._chance.random() < probability

    def _check_alive(self) -> None:
        if self.crashed:
            raise Crashed

    def _check_read(self) -> None:
        self._check_alive()
        if self._happens(self.faults.read_error_chance):
            raise StoreDamaged("read error", env=self.env.value)

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        self._check_alive()
        with self._inner.snapshot() as snapshot:
            yield FaultySnapshot(snapshot, self._check_read)

    def write(self, batch: Sequence[Write]) -> None:
        self._check_alive()
        if any(isinstance(write, Put) for write in batch) and (self.faults.full or self._happens(self.faults.full_chance)):
            raise StoreFull("no space left", resource="disk", env=self.env.value)
        if self.faults.crash_after_writes is not None:
            self.faults.crash_after_writes -= 1
            if self.faults.crash_after_writes <= 0:
                self.faults.crash_after_writes = None
                self.crashed = True
                keeps = self.faults.crash_keeps if self.faults.crash_keeps is not None else self._chance.random() < 0.5
                if keeps:
                    self._inner.write(batch)
                raise Crashed
        self._inner.write(batch)
        for write in batch:
            if isinstance(write, Put) and write.table.bodies and self._happens(self.faults.flip_chance):
                self.flip_bit(write.table, write.key)

    def flip_bit(self, table: Table, key: bytes) -> None:
        """Bit rot: changes one bit of a stored value. KeyError when there is no such value or it is empty."""
        with self._inner.snapshot() as snapshot:
            value = snapshot.get(table, key)
        if not value:
            raise KeyError(key)
        rotten = bytearray(value)
        bit = self._chance.randrange(len(rotten) * 8)
        rotten[bit // 8] ^= 1 << bit % 8
        self._inner.write([Put(table, key, bytes(rotten))])

    def restart(self) -> None:
        """The machine comes back with what its disk holds."""
        self.crashed = False

    def usage(self) -> Usage:
        self._check_alive()
        return self._inner.usage()

    def prepare(self) -> bool:
        self._check_alive()
        return self._inner.prepare()

    def close(self) -> None:
        self._inner.close()
