"""The one file that imports lmdb: an environment on disk, durable at every commit (docs/decisions/0002). Bodies of full chunks lie beside
it in extents (body_file), and pointers in it: they are written and synced before the commit that speaks of them.

LMDB never meets a full disk here: the space that a batch may need is taken from the file system before the batch begins, so
``StoreFull`` is said with nothing written, and the headroom taken earlier lets deletes through when nothing else is left.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import lmdb

from protocols.errors import LadingError, LocalError, Reason, StoreDamaged, StoreFull

from .body_file import (
    BLOCK_BYTES,
    EXTENT_BODY_BYTES_MIN,
    EXTENT_BYTES,
    NEVER_APART,
    POINTER_BYTES,
    BodyFile,
    goes_apart,
    pointed_at,
    pointer,
)
from .engine import Appetite, Env, Put, Reader, Snapshot, Table, Usage, Write, appetite, delete_headroom
from .tables import FREE_EXTENTS, tables_of

DATA_FILE = "data.mdb"
LOCK_FILE = "lock.mdb"
MAP_BYTES_START = 4 * 1024 * 1024
READERS_MAX = 254
# The lock file is memory-mapped: a hole in it on a full disk would be a SIGBUS instead of an error. 64 bytes a reader.
LOCK_FILE_BYTES = 32 * 1024
assert READERS_MAX * 64 < LOCK_FILE_BYTES
# The data file is lengthened in steps, so that the file system lays it out in long runs; 64 MiB was the fastest step.
GROW_STEP_BYTES_MAX = 64 * 1024 * 1024
# A batch copies about one page a key in each tree that it touches, plus the list of free pages.
PAGES_PER_BATCH = 16
# Beyond the last page, ready to be written: what a busy second brings.
PREPARED_BYTES = {Env.CHUNKS: 32 * 1024 * 1024, Env.LEDGER: 4 * 1024 * 1024}
PREPARED_OF_FREE = 16  # a sixteenth of the free disk at most
PREPARE_STEP_BYTES = 1024 * 1024
FULL_ERRNOS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
READ_ONLY_ERRNOS = (errno.EROFS, errno.EACCES, errno.EPERM)

_EXTENT = struct.Struct(">Q")
_EXTENT_COUNT_KEY = b"\xff" * 8
# Looked up at once of the extents that are free.
EXTENTS_LOOKED_UP = 1024

_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
_MALLOC_KEEP_BYTES = 32 * 1024 * 1024


def keep_malloc_pages() -> None:
    """Tells glibc to keep freed memory up to 32 MiB. Where there is no mallopt, nothing happens.

    LMDB mallocs each dirty 256 KiB value; glibc would map, fault and unmap it anew for each one, which doubles or trebles
    the CPU of a commit (docs/decisions/0002). Costs at most what one batch needs.
    """
    if sys.platform != "linux":
        return
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, _MALLOC_KEEP_BYTES)
        mallopt(_M_TRIM_THRESHOLD, _MALLOC_KEEP_BYTES)


def _errno_of(error: BaseException) -> int | None:
    code = getattr(error, "code", None)
    return code if isinstance(code, int) else getattr(error, "errno", None)


class _Gate:
    """Many readers, or one who changes the map. A waiting changer goes before new readers. It also knows which commits readers may not have
    seen: each counts as of the commit that had ended when he came."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._readers = 0
        self._changing = False
        self._mine = threading.local()
        self._commits = 0
        self._since: Counter[int] = Counter()

    def commit_ended(self) -> int:
        """Its number: whoever comes from now on sees it."""
        with self._condition:
            self._commits += 1
            return self._commits

    def seen_by_all(self) -> int:
        """The last commit that every reader sees who is reading now."""
        with self._condition:
            return min(self._since, default=self._commits)

    def is_reading_here(self) -> bool:
        return bool(getattr(self._mine, "depth", 0))

    @contextmanager
    def reading(self) -> Iterator[None]:
        depth = getattr(self._mine, "depth", 0)
        with self._condition:
            # A thread that reads already must not wait for a changer that waits for it.
            while self._changing and depth == 0:
                self._condition.wait()
            self._readers += 1
            since = self._commits
            self._since[since] += 1
        self._mine.depth = depth + 1
        try:
            yield
        finally:
            self._mine.depth = depth
            with self._condition:
                self._readers -= 1
                self._since[since] -= 1
                if not self._since[since]:
                    del self._since[since]
                self._condition.notify_all()

    @contextmanager
    def changing(self) -> Iterator[None]:
        with self._condition:
            while self._changing:
                self._condition.wait()
            self._changing = True
            while self._readers:
                self._condition.wait()
        try:
            yield
        finally:
            with self._condition:
                self._changing = False
                self._condition.notify_all()


@dataclass(slots=True)
class _Extents:
    """What the writing thread knows of the extents. there: how many there are. free: how many of them the database calls free. resting: of
    those, the ones that somebody may still be reading; left: the same by the commit that freed them. ready: some others, the first last."""

    there: int = 0
    free: int = 0
    resting: set[int] = field(default_factory=set)
    left: deque[tuple[int, Sequence[int]]] = field(default_factory=deque)
    ready: list[int] = field(default_factory=list)

    @property
    def usable(self) -> int:
        return self.free - len(self.resting)

    @property
    def used_bytes(self) -> int:
        return (self.there - self.free) * EXTENT_BYTES

    def wake(self, seen_by_all: int) -> None:
        while self.left and self.left[0][0] <= seen_by_all:
            self.resting.difference_update(self.left.popleft()[1])


@dataclass(slots=True)
class _Taken:
    """By one batch. again: extents that were free. there: how many there will be. freed: by it."""

    there: int
    again: list[int] = field(default_factory=list)
    freed: list[int] = field(default_factory=list)


class LmdbSnapshot:
    """A read transaction."""

    def __init__(self, transaction: lmdb.Transaction, tables: dict[str, Any], bodies: BodyFile | None) -> None:
        self._transaction = transaction
        self._tables = tables
        self._bodies = bodies

    def _value(self, table: Table, value: bytes | memoryview) -> bytes:
        if not table.bodies or len(value) != POINTER_BYTES or self._bodies is None:
            return bytes(value)  # bytes already: no copy, the transaction hands out no views
        try:
            return self._bodies.read(*pointed_at(value))
        except OSError as error:
            raise _translated(error, f"reading {self._bodies.path}") from error

    def get(self, table: Table, key: bytes) -> bytes | None:
        try:
            value: bytes | None = self._transaction.get(key, None, self._tables[table.name])  # type: ignore[assignment]  # it hands out no views
        except lmdb.Error as error:
            raise _translated(error, f"reading {table.name}") from error
        return self._value(table, value) if table.bodies and value is not None else value

    def reader(self, table: Table) -> Reader:
        if table.bodies:
            return partial(self.get, table)
        get, handle = self._transaction.get, self._tables[table.name]

        def read(key: bytes) -> bytes | None:
            try:
                return get(key, None, handle)  # type: ignore[return-value]  # as above
            except lmdb.Error as error:
                raise _translated(error, f"reading {table.name}") from error

        return read

    def has(self, table: Table, key: bytes) -> bool:
        try:
            with self._transaction.cursor(db=self._tables[table.name]) as cursor:
                return bool(cursor.set_key(key))
        except lmdb.Error as error:
            raise _translated(error, f"reading {table.name}") from error

    def scan(self, table: Table, *, prefix: bytes = b"", start: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
        try:
            with self._transaction.cursor(db=self._tables[table.name]) as cursor:
                first = max(prefix, start)
                found = cursor.set_range(first) if first else cursor.first()
                while found:
                    key = bytes(cursor.key())
                    if not key.startswith(prefix):
                        return
                    yield key, self._value(table, cursor.value())
                    found = cursor.next()
        except lmdb.Error as error:
            raise _translated(error, f"reading {table.name}") from error

    def count(self, table: Table) -> int:
        try:
            return int(self._transaction.stat(self._tables[table.name])["entries"])
        except lmdb.Error as error:
            raise _translated(error, f"reading {table.name}") from error


def _comes_behind(cursor: lmdb.Cursor, pairs: Sequence[tuple[bytes, bytes | memoryview]]) -> bool:
    """Whether the pairs rise and come behind all that is in the table. LMDB then fills page after page; else it leaves each half empty."""
    if cursor.last() and bytes(cursor.key()) >= pairs[0][0]:
        return False
    return all(one[0] < other[0] for one, other in pairwise(pairs))


def _run_of(write: Write) -> tuple[Table, bool]:
    """What neighbours in a batch share that LMDB takes in one call."""
    return write.table, isinstance(write, Put)


def _translated(error: lmdb.Error | OSError, doing: str) -> LadingError:
    if isinstance(error, lmdb.MapFullError):
        return StoreFull(f"{doing}: the budget is used up", resource="budget")
    code = _errno_of(error)
    if code in FULL_ERRNOS:
        return StoreFull(f"{doing}: no space left on the disk", resource="disk")
    if code in READ_ONLY_ERRNOS:
        return StoreFull(f"{doing}: the disk is read-only", resource="read-only")
    return StoreDamaged(f"{doing}: {error}")


# Meta page of format 1: page header (16), magic, version, address, map size, two 48-byte trees, last page, transaction id.
_META = struct.Struct("=16xIIQQI44x48xQQ")
_META_MAGIC = 0xBEEFC0DE


def check_file_length(path: Path) -> None:
    """Refuses a data file that ends before its last page: LMDB would map it and die of SIGBUS when it reads there.

    Raises StoreDamaged. A file that is not there, or whose meta pages LMDB itself refuses, is none of this function's business.
    """
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return
    if size == 0:
        return
    newest: tuple[int, int] | None = None
    try:
        with path.open("rb") as file:
            head = file.read(_META.size)
            if len(head) < _META.size:
                raise StoreDamaged(f"{path} is cut off after {size} bytes", path=str(path))
            page_bytes = _META.unpack(head)[4]
            for offset in (0, page_bytes):
                file.seek(offset)
                meta = file.read(_META.size)
                if len(meta) < _META.size:
                    raise StoreDamaged(f"{path} is cut off after {size} bytes", path=str(path))
                magic, _version, _address, _map, _page, last_page, transaction = _META.unpack(meta)
                if magic == _META_MAGIC and (newest is None or transaction > newest[0]):
                    newest = (transaction, (last_page + 1) * page_bytes)
    except OSError as error:
        raise StoreDamaged(f"{path} cannot be read: {error}", path=str(path)) from error
    if newest is not None and size < newest[1]:
        raise StoreDamaged(f"{path} is cut off: {size} bytes, {newest[1]} wanted", path=str(path))


class LmdbEngine:
    """One environment in a folder of its own. The home lock (storage/lock.py) keeps other processes out."""

    def __init__(self, path: Path | str, env: Env, *, budget_bytes: int, reserve_bytes: int) -> None:
        """budget_bytes: the data file and the body file together never grow beyond it. reserve_bytes: what bodies leave free, of budget and
        of disk.

        A read-only disk opens and reads; its writes are refused with StoreFull. Raises StoreFull when not even an empty
        store fits, StoreDamaged.
        """
        if sys.maxsize < 2**32:
            raise LocalError(Reason.FAILED, "the store needs a 64-bit system: it maps its file into memory")
        keep_malloc_pages()
        self.env = env
        self.path = Path(path)
        self.read_only = False
        self._budget_bytes = budget_bytes
        self._reserve_bytes = reserve_bytes
        self._gate = _Gate()
        self._closed = False
        self._file = -1
        self._bodies: BodyFile | None = None
        self._extents = _Extents()
        self._allocated_bytes = 0
        self.prepares = True
        self._prepared_to = 0
        self._is_preparing = False
        self._scrap = bytearray(PREPARE_STEP_BYTES // 8)
        check_file_length(self.path / DATA_FILE)
        try:
            self._open()
        except BaseException:
            self._close_all()
            raise

    # --- opening --------------------------------------------------------------------------------------------------

    def _open(self) -> None:
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._allocate_lock_file()
        except OSError as error:
            if _errno_of(error) not in READ_ONLY_ERRNOS:
                raise _translated(error, f"opening {self.path}") from error
            self.read_only = True
        data = self.path / DATA_FILE
        if not self.read_only and data.exists() and not os.access(data, os.W_OK):
            self.read_only = True
        try:
            self._map_bytes = min(self._budget_bytes, max(MAP_BYTES_START, data.stat().st_size if data.exists() else 0))
            self._lmdb = lmdb.open(
                str(self.path),
                map_size=self._map_bytes,
                max_dbs=len(tables_of(self.env)) + 16,  # and what a newer version may have left
                max_readers=READERS_MAX,
                readonly=self.read_only,
                lock=not self.read_only,
                metasync=True,
                sync=True,
                mode=0o600,
            )
            self._map_bytes = int(self._lmdb.info()["map_size"])
            self._page_bytes = int(self._lmdb.stat()["psize"])
            if not self.read_only:
                self._file = os.open(data, os.O_RDWR | os.O_CLOEXEC)
                self._allocated_bytes = os.fstat(self._file).st_size
            self._tables = self._open_tables()
            if any(table.bodies for table in tables_of(self.env)):
                self._open_bodies()
        except (lmdb.Error, OSError) as error:
            raise _translated(error, f"opening {self.path}") from error

    def _allocate_lock_file(self) -> None:
        file = os.open(self.path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if os.fstat(file).st_blocks * 512 < LOCK_FILE_BYTES:
                os.posix_fallocate(file, 0, LOCK_FILE_BYTES)
        finally:
            os.close(file)

    def _open_tables(self) -> dict[str, Any]:
        wanted = [table.name for table in tables_of(self.env)]
        with self._lmdb.begin() as transaction:
            there = {bytes(key) for key in transaction.cursor().iternext(values=False)}
        missing = [name for name in wanted if name.encode() not in there]
        if self.read_only and missing == [FREE_EXTENTS.name]:  # of a version that kept all bodies inside
            wanted.remove(FREE_EXTENTS.name)
            missing = []
        if missing:
            if self.read_only:
                raise StoreDamaged(f"{self.path} lacks {', '.join(missing)} and the disk is read-only", path=str(self.path))
            needed = self._page_bytes * (PAGES_PER_BATCH + len(missing)) + delete_headroom(self._budget_bytes)
            if not self._allocate(needed):
                raise StoreFull(f"no {needed} bytes left for a new store in {self.path}", resource="disk")
        if missing:
            with self._lmdb.begin(write=True) as transaction:
                for name in missing:
                    self._lmdb.open_db(name.encode(), txn=transaction, create=True)
        # Each in a transaction of its own that commits: handles opened in a read transaction are lost when py-lmdb recycles it.
        return {name: self._lmdb.open_db(name.encode(), create=False) for name in wanted}

    def _open_bodies(self) -> None:
        self._bodies = BodyFile(self.path, read_only=self.read_only)
        table = self._tables.get(FREE_EXTENTS.name)
        with self._lmdb.begin() as transaction:
            count = None if table is None else transaction.get(_EXTENT_COUNT_KEY, db=table)
            if count is not None:
                self._extents.there = int(_EXTENT.unpack(count)[0])
                self._extents.free = int(transaction.stat(table)["entries"]) - 1
        wanted = self._extents.there * EXTENT_BYTES
        if self._bodies.allocated_bytes < wanted:
            path = self._bodies.path
            raise StoreDamaged(f"{path} is cut off: {self._bodies.allocated_bytes} bytes, {wanted} wanted", path=str(path))

    # --- reading --------------------------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[Snapshot]:
        with self._gate.reading():
            self._check_open()
            try:
                transaction = self._lmdb.begin(buffers=False)
            except lmdb.Error as error:
                raise _translated(error, f"reading {self.path}") from error
            try:
                yield LmdbSnapshot(transaction, self._tables, self._bodies)
            finally:
                transaction.abort()

    # --- writing --------------------------------------------------------------------------------------------------

    def write(self, batch: Sequence[Write]) -> None:
        self._check_open()
        assert not self._gate.is_reading_here(), "a thread that has a snapshot open must not write"
        if self.read_only:
            raise StoreFull(f"{self.path} is on a read-only disk", resource="read-only")
        if not batch:
            return
        apart_from = self._make_room(batch)
        while True:
            taken = _Taken(self._extents.there)
            try:
                self._commit(batch, taken, apart_from)
            except lmdb.MapFullError as error:
                if not self._grow_map():
                    raise _translated(error, f"writing {self.path}") from error
            except lmdb.Error as error:
                raise self._commit_error(error) from error
            except OSError as error:
                raise _translated(error, f"writing {self.path}") from error
            else:
                self._note(taken)
                return

    def _make_room(self, batch: Sequence[Write]) -> int:
        """Sees to it that there is room for a batch. From how many bytes on its bodies go apart. Raises StoreFull."""
        wants = appetite(batch)
        if wants is Appetite.DELETES:
            return NEVER_APART
        refusal: StoreFull | None = None
        # Small ones go apart too when the database has no room for them: extents may be free that were taken from the disk long ago.
        for apart_from in (EXTENT_BODY_BYTES_MIN, BLOCK_BYTES) if wants is Appetite.BODIES else (NEVER_APART,):
            try:
                return self._make_room_so(batch, wants, apart_from)
            except StoreFull as error:
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    def _make_room_so(self, batch: Sequence[Write], wants: Appetite, apart_from: int) -> int:
        needed, extents, is_small = self._needed(batch, apart_from)
        live = self._live_bytes()
        self._check_budget(wants, needed=needed + extents * EXTENT_BYTES, live=live + self._extents.used_bytes)
        if extents and not self._reach(extents):
            if any(isinstance(write, Put) and write.table.bodies and len(write.value) == POINTER_BYTES for write in batch):
                raise StoreFull(f"a body of {POINTER_BYTES} bytes has no extent", resource="disk", env=self.env.value)
            self._check_disk(wants, needed=needed + extents * EXTENT_BYTES, live=live, grows=False)
            return NEVER_APART
        if extents and is_small and self._extents.usable >= extents:
            wants = Appetite.ROWS  # of the disk it asks for no more than they do
        self._check_disk(wants, needed=needed, live=live, grows=True)
        return apart_from

    def _commit(self, batch: Sequence[Write], taken: _Taken, apart_from: int) -> None:
        with self._lmdb.begin(write=True, buffers=True) as transaction:
            if apart_from != NEVER_APART:
                batch = self._write_apart(transaction, batch, taken, apart_from)
            for (table, is_put), writes in groupby(batch, key=_run_of):
                assert table.env is self.env, table
                handle = self._tables[table.name]
                if table.bodies:
                    self._write_bodies(transaction, handle, writes, taken)
                elif is_put:
                    pairs = [(write.key, write.value) for write in writes if isinstance(write, Put)]
                    with transaction.cursor(db=handle) as cursor:  # one call for all of a run: half the time of one for each
                        cursor.putmulti(pairs, append=table.rising and _comes_behind(cursor, pairs))
                else:
                    for write in writes:
                        transaction.delete(write.key, db=handle)
            self._write_extents(transaction, taken)

    # --- bodies apart -----------------------------------------------------------------------------------------------

    def _reach(self, extents: int) -> bool:
        """Whether so many can be written: free ones that nobody reads any more, or new ones within budget and disk."""
        assert self._bodies is not None
        self._extents.wake(self._gate.seen_by_all())
        there = self._extents.there + max(0, extents - self._extents.usable)
        growth = there * EXTENT_BYTES - self._bodies.allocated_bytes
        if growth > 0 and self._disk_free_bytes() - growth < self._reserve_bytes:
            return False
        kept = max(self._reserve_bytes, delete_headroom(self._budget_bytes))
        bytes_max = self._budget_bytes - max(self._allocated_bytes, self._end_bytes() + kept)
        try:
            return self._bodies.reach(there, bytes_max=bytes_max)
        except OSError as error:
            raise _translated(error, f"growing {self._bodies.path}") from error

    def _write_apart(self, transaction: lmdb.Transaction, batch: Sequence[Write], taken: _Taken, apart_from: int) -> list[Write]:
        """Writes the bodies that go apart. The batch with pointers in their places."""
        assert self._bodies is not None
        pointing = list(batch)
        extents: list[int] = []
        bodies: list[bytes | memoryview] = []
        for index, write in enumerate(batch):
            if not (isinstance(write, Put) and write.table.bodies and goes_apart(len(write.value), apart_from)):
                continue
            if not self._extents.ready and self._extents.usable > len(taken.again):
                self._look_up(transaction, taken.again)
            if self._extents.ready:
                extents.append(self._extents.ready.pop())
                taken.again.append(extents[-1])
            else:
                extents.append(taken.there)
                taken.there += 1
            bodies.append(write.value)
            pointing[index] = Put(write.table, write.key, pointer(extents[-1], len(write.value)))
        if bodies:
            self._bodies.write(extents, bodies)
        return pointing

    def _write_bodies(self, transaction: lmdb.Transaction, handle: Any, writes: Iterable[Write], taken: _Taken) -> None:
        """One by one, since what a later one replaces may be of an earlier one."""
        for write in writes:
            old = transaction.get(write.key, db=handle)
            if old is not None and len(old) == POINTER_BYTES:
                taken.freed.append(pointed_at(old)[0])
            if isinstance(write, Put):
                transaction.put(write.key, write.value, db=handle)
            else:
                transaction.delete(write.key, db=handle)

    def _look_up(self, transaction: lmdb.Transaction, taken: Sequence[int]) -> None:
        """Makes some free extents ready that nobody reads any more, also those of batches that failed. taken: by this batch, free in the
        database still."""
        found: list[int] = []
        with transaction.cursor(db=self._tables[FREE_EXTENTS.name]) as cursor:
            is_there = cursor.first()
            while is_there and len(found) < EXTENTS_LOOKED_UP and (key := bytes(cursor.key())) != _EXTENT_COUNT_KEY:
                extent = int(_EXTENT.unpack(key)[0])
                if extent not in self._extents.resting and extent not in taken:
                    found.append(extent)
                is_there = cursor.next()
        self._extents.ready = found[::-1]

    def _write_extents(self, transaction: lmdb.Transaction, taken: _Taken) -> None:
        table = self._tables.get(FREE_EXTENTS.name)
        for extent in taken.again:
            transaction.delete(_EXTENT.pack(extent), db=table)
        for extent in taken.freed:
            transaction.put(_EXTENT.pack(extent), b"", db=table)
        if taken.there != self._extents.there:
            transaction.put(_EXTENT_COUNT_KEY, _EXTENT.pack(taken.there), db=table)

    def _note(self, taken: _Taken) -> None:
        """A batch has come about."""
        extents = self._extents
        commit = self._gate.commit_ended()
        extents.there = taken.there
        extents.free += len(taken.freed) - len(taken.again)
        if taken.freed:
            extents.resting.update(taken.freed)
            extents.left.append((commit, taken.freed))

    def _commit_error(self, error: lmdb.Error) -> LadingError:
        # A write cut short by a full disk comes out of LMDB as an I/O error.
        if _errno_of(error) == errno.EIO and self._disk_free_bytes() < 2 * self._page_bytes:
            return StoreFull(f"writing {self.path}: no space left on the disk", resource="disk")
        return _translated(error, f"writing {self.path}")

    def _needed(self, batch: Sequence[Write], apart_from: int) -> tuple[int, int, bool]:
        """Bytes in pages that the puts will take, more or less: whole pages for large values, rows with overhead else; and extents.
        Whether no value is large that does not go apart."""
        page = self._page_bytes
        rows = pages = extents = 0
        for write in batch:
            if isinstance(write, Put):
                value_bytes = len(write.value)
                if write.table.bodies and goes_apart(value_bytes, apart_from):
                    extents += 1
                    value_bytes = POINTER_BYTES
                size = len(write.key) + value_bytes + 16
                if size > page // 2:
                    pages += (value_bytes + 16 + page - 1) // page
                else:
                    rows += size
        return (pages + rows * 3 // 2 // page + 1) * page, extents, not pages

    def _live_bytes(self) -> int:
        """Of the data file."""
        with self.snapshot() as snapshot:
            assert isinstance(snapshot, LmdbSnapshot)
            try:
                stats = [snapshot._transaction.stat(table) for table in self._tables.values()]
            except lmdb.Error as error:
                raise _translated(error, f"reading {self.path}") from error
        pages = sum(stat["leaf_pages"] + stat["branch_pages"] + stat["overflow_pages"] for stat in stats)
        return (int(pages) + 3) * self._page_bytes  # two meta pages and the tree of trees

    def _check_budget(self, wants: Appetite, *, needed: int, live: int) -> None:
        headroom = delete_headroom(self._budget_bytes)
        keep_free = max(self._reserve_bytes, headroom) if wants is Appetite.BODIES else headroom
        left = self._budget_bytes - live - needed
        if left < keep_free:
            raise StoreFull(
                f"{needed} bytes more would leave {left} of {self._budget_bytes} of the {self.env.value} budget, {keep_free} must remain",
                resource="budget",
                env=self.env.value,
            )

    def _check_disk(self, wants: Appetite, *, needed: int, live: int, grows: bool) -> None:
        """Takes the space from the file system before LMDB needs it, unless enough of the file is free to be used again. grows: not for
        bodies that should have gone apart."""
        headroom = delete_headroom(self._budget_bytes)
        fits_inside = self._end_bytes() - live >= needed + headroom
        is_taken = self._allocated_bytes - self._end_bytes() >= needed + headroom
        if not grows and not fits_inside:
            lacks = "disk" if self._disk_free_bytes() - needed < self._reserve_bytes else "budget"
            raise StoreFull(
                f"{needed} bytes more have no place in {self.path}: the {lacks} gives no more", resource=lacks, env=self.env.value
            )
        if wants is Appetite.BODIES and not (fits_inside or is_taken) and self._disk_free_bytes() - needed < self._reserve_bytes:
            raise StoreFull(
                f"{needed} bytes more would leave less than {self._reserve_bytes} free on the disk of {self.path}",
                resource="disk",
                env=self.env.value,
            )
        if self._allocate(headroom if fits_inside else needed + headroom) or fits_inside:
            return
        # Rows may take from the headroom that lies in the file already, but leave half of it to deletes.
        if wants is Appetite.ROWS and self._allocated_bytes - self._end_bytes() >= needed + headroom // 2:
            return
        raise StoreFull(f"no {needed} bytes left on the disk of {self.path}", resource="disk", env=self.env.value)

    def _end_bytes(self) -> int:
        return (int(self._lmdb.info()["last_pgno"]) + 1) * self._page_bytes

    def _allocate(self, room_bytes: int, *, exactly: bool = False) -> bool:
        """Whether the file holds ``room_bytes`` beyond its last page, on blocks of the disk that are ours. Within the budget.
        exactly: else it takes more at once, where there is more, so that it need not soon again."""
        bytes_max = self._budget_bytes - (self._bodies.allocated_bytes if self._bodies is not None else 0)
        wanted = min(self._end_bytes() + room_bytes, bytes_max)
        if wanted <= self._allocated_bytes:
            return True
        step = 0 if exactly else min(max(self._allocated_bytes // 8, room_bytes), GROW_STEP_BYTES_MAX)
        for target in (min(wanted + step, bytes_max), wanted):
            try:
                os.posix_fallocate(self._file, self._allocated_bytes, target - self._allocated_bytes)
            except OSError as error:
                if _errno_of(error) not in FULL_ERRNOS:
                    raise _translated(error, f"growing {self.path}") from error
                self._allocated_bytes = os.fstat(self._file).st_size  # some file systems keep what they found
            else:
                self._allocated_bytes = target
                return True
        return False

    def prepare(self) -> bool:
        """Reads a stretch of the file beyond its last page, where nothing was ever written: costs no disk access, but then the system has
        memory for those pages, which it otherwise finds, page by page, while a commit waits (measured: docs/decisions/0016)."""
        if self.read_only or self._closed:
            return False
        end = self._end_bytes()
        wanted = min(PREPARED_BYTES[self.env], self._budget_bytes // 8)
        start = max(self._prepared_to, end)
        # Not after each small commit: when an eighth of it is used, and then all of it.
        if start - end >= (wanted if self._is_preparing else wanted // 8 * 7):
            self._is_preparing = False
            return False
        # Never the last of the disk: space that lies ready here is missing elsewhere.
        spare = self._disk_free_bytes() - self._reserve_bytes >= PREPARED_OF_FREE * wanted
        if self._allocated_bytes < end + wanted and not (spare and self._allocate(wanted, exactly=True)):
            return False
        stop = min(start + PREPARE_STEP_BYTES, end + wanted)
        try:
            for at in range(start, stop, len(self._scrap)):
                os.preadv(self._file, [memoryview(self._scrap)[: stop - at]], at)
        except OSError as error:
            raise _translated(error, f"reading {self.path}") from error
        self._prepared_to = stop
        self._is_preparing = True
        return True

    def _grow_map(self) -> bool:
        """Doubles the map, up to the budget; waits for open snapshots to end. False at the budget."""
        target = min(self._map_bytes * 2, self._budget_bytes // self._page_bytes * self._page_bytes)
        if target <= self._map_bytes:
            return False
        with self._gate.changing():
            self._lmdb.set_mapsize(target)
        self._map_bytes = target
        return True

    # --- the rest -------------------------------------------------------------------------------------------------

    def _disk_free_bytes(self) -> int:
        disk = os.statvfs(self.path)
        return disk.f_bavail * disk.f_frsize

    def usage(self) -> Usage:
        return Usage(self._live_bytes() + self._extents.used_bytes, self._budget_bytes, self._disk_free_bytes(), self.read_only)

    def _check_open(self) -> None:
        if self._closed:
            raise LocalError(Reason.FAILED, f"the {self.env.value} engine is closed")

    def _close_all(self) -> None:
        self._closed = True
        if hasattr(self, "_lmdb"):
            self._lmdb.close()
        if self._file >= 0:
            os.close(self._file)
            self._file = -1
        if self._bodies is not None:
            self._bodies.close()

    def close(self) -> None:
        """Waits for open snapshots; closing twice is fine."""
        with self._gate.changing():
            if not self._closed:
                self._close_all()
