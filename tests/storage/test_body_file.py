"""Bodies beside the database: extents that are used again when nobody reads them, what refusals and damage leave, where bytes go."""

from __future__ import annotations

import errno
import os
import random
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from protocols.crypto import sha256
from protocols.errors import StoreDamaged, StoreFull
from protocols.types import UnixSeconds
from storage import backup, lmdb_engine
from storage.body_file import BLOCK_BYTES, BODIES_FILE, EXTENT_BODY_BYTES_MIN, EXTENT_BYTES, POINTER_BYTES
from storage.engine import Delete, Env, Put, Snapshot, Write
from storage.lmdb_engine import LmdbEngine
from storage.tables import BODIES, OWNERS

from .contract import BODY, fill, fill_rows, name
from .test_disk import MIB, bytes_on_disk, open_engine, resident_bytes

SIZES = (0, 1, POINTER_BYTES, POINTER_BYTES + 1, 5000, EXTENT_BODY_BYTES_MIN - 1, EXTENT_BODY_BYTES_MIN, len(BODY), EXTENT_BYTES)


def body(index: int, size: int = len(BODY)) -> bytes:
    return (name(index) * (size // 32 + 1))[:size]


def extents_in_file(engine: LmdbEngine) -> int:
    return engine._extents.there


class Reader:
    """A thread with a snapshot open until it is told to look."""

    def __init__(self, engine: LmdbEngine, look: Callable[[Snapshot], None]) -> None:
        self._engine = engine
        self._look = look
        self._is_open, self._go = threading.Event(), threading.Event()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run)
        self._thread.start()
        assert self._is_open.wait(10)

    def _run(self) -> None:
        try:
            with self._engine.snapshot() as snapshot:
                self._is_open.set()
                self._go.wait()
                self._look(snapshot)
        except BaseException as error:
            self._error = error
            self._is_open.set()

    def finish(self) -> None:
        self._go.set()
        self._thread.join()
        if self._error is not None:
            raise self._error


def compared(model: dict[bytes, bytes]) -> Callable[[Snapshot], None]:
    wanted = sorted(model.items())

    def look(snapshot: Snapshot) -> None:
        assert list(snapshot.scan(BODIES)) == wanted
        assert snapshot.count(BODIES) == len(wanted)
        for key, value in wanted:
            assert snapshot.get(BODIES, key) == value

    return look


@pytest.mark.parametrize("seed", range(6))
def test_random_batches_match_a_dict_also_for_those_who_began_to_read_long_ago(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Goal: whatever is written, replaced and deleted, every snapshot shows its own moment, and after all is deleted all extents are free.
    Method: batches of bodies of all sizes, readers that begin and end in between, the store closed and opened again at times."""
    chance = random.Random(seed)
    monkeypatch.setattr(lmdb_engine, "MAP_BYTES_START", 128 * MIB)  # to make it larger, the engine waits for readers, who here wait for us
    engine = open_engine(tmp_path / "e", budget_bytes=256 * MIB)
    model: dict[bytes, bytes] = {}
    readers: list[Reader] = []
    for step in range(60):
        batch: list[Write] = []
        for _ in range(chance.randrange(1, 8)):
            key = name(chance.randrange(12))
            if chance.random() < 0.6:
                value = body(chance.getrandbits(60), chance.choice(SIZES))
                batch.append(Put(BODIES, key, memoryview(value) if chance.random() < 0.5 else value))
                model[key] = value
            else:
                batch.append(Delete(BODIES, key))
                model.pop(key, None)
        engine.write(batch)
        match chance.randrange(4):
            case 0 if len(readers) < 4:
                readers.append(Reader(engine, compared(model)))
            case 1 if readers:
                readers.pop(chance.randrange(len(readers))).finish()
            case 2 if not readers and step % 3 == 0:
                engine.close()
                engine = open_engine(tmp_path / "e", budget_bytes=256 * MIB)
        with engine.snapshot() as snapshot:
            compared(model)(snapshot)
    for reader in readers:
        reader.finish()
    engine.write([Delete(BODIES, key) for key in model])
    assert engine._extents.free == engine._extents.there > 0
    before = extents_in_file(engine)
    fill(engine, before)
    assert extents_in_file(engine) == before
    engine.close()


def test_extent_that_somebody_reads_is_not_written_again_until_he_ends(tmp_path: Path) -> None:
    """Method: one reads a body that is deleted; another is put, which takes a new extent; he ends; the next one takes his."""
    engine = open_engine(tmp_path / "e")
    engine.write([Put(BODIES, name(1), body(1))])
    reader = Reader(engine, compared({name(1): body(1)}))
    engine.write([Delete(BODIES, name(1))])
    engine.write([Put(BODIES, name(2), body(2))])
    assert extents_in_file(engine) == 2
    late = Reader(engine, compared({name(2): body(2)}))  # does not see what was freed, and keeps nobody from it
    reader.finish()
    engine.write([Put(BODIES, name(3), body(3))])
    assert extents_in_file(engine) == 2
    late.finish()
    engine.close()


def test_extents_are_free_again_in_the_next_process(tmp_path: Path) -> None:
    engine = open_engine(tmp_path / "e")
    fill(engine, 20)
    engine.write([Delete(BODIES, name(index)) for index in range(5, 15)])
    engine.close()
    engine = open_engine(tmp_path / "e")
    engine.write([Put(BODIES, name(index), body(index)) for index in range(100, 110)])
    assert extents_in_file(engine) == 20
    with engine.snapshot() as snapshot:
        assert [snapshot.get(BODIES, name(index)) for index in range(100, 110)] == [body(index) for index in range(100, 110)]
        assert snapshot.get(BODIES, name(4)) == snapshot.get(BODIES, name(15)) == BODY
    assert engine.usage().bytes_used >= 20 * EXTENT_BYTES
    engine.close()


@pytest.mark.parametrize("where", ["pwrite", "fdatasync"])
def test_write_that_fails_leaves_nothing_and_gives_its_extents_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    """Goal: all or nothing, whatever the disk says. Method: an I/O error, then a full disk, in the middle; then the same once more."""
    engine = open_engine(tmp_path / "e")
    fill(engine, 4)
    engine.write([Delete(BODIES, name(1))])
    batch = [Put(OWNERS, b"row", b"1"), *(Put(BODIES, name(index), body(index)) for index in (10, 11, 12))]
    for code, kind in ((errno.EIO, StoreDamaged), (errno.ENOSPC, StoreFull)):

        def fail(*_: object, code: int = code) -> int:
            raise OSError(code, os.strerror(code))

        with monkeypatch.context() as patch:
            patch.setattr(os, where, fail)
            with pytest.raises(kind):
                engine.write(batch)
        with engine.snapshot() as snapshot:
            assert (snapshot.count(BODIES), snapshot.count(OWNERS)) == (3, 0)
    engine.write(batch)
    assert extents_in_file(engine) == 6
    with engine.snapshot() as snapshot:
        assert [snapshot.get(BODIES, name(index)) for index in (10, 11, 12)] == [body(index) for index in (10, 11, 12)]
    engine.close()


def test_map_that_grows_in_the_middle_of_a_batch_takes_no_extent_twice(tmp_path: Path) -> None:
    """Method: rows that outgrow the map of 4 MiB together with bodies, some of them in extents that were free."""
    engine = open_engine(tmp_path / "e")
    fill(engine, 3)
    engine.write([Delete(BODIES, name(0)), Delete(BODIES, name(2))])
    rows = [Put(OWNERS, name(index), bytes(1000)) for index in range(6000)]
    engine.write([*(Put(BODIES, name(index), body(index)) for index in (10, 11, 12)), *rows])
    assert extents_in_file(engine) == 4
    with engine.snapshot() as snapshot:
        assert [snapshot.get(BODIES, name(index)) for index in (1, 10, 11, 12)] == [BODY, *(body(index) for index in (10, 11, 12))]
        assert snapshot.count(OWNERS) == 6000
    engine.close()


@contextmanager
def without_o_direct(patch: pytest.MonkeyPatch, *, since: str) -> Iterator[list[str]]:
    """A file system that refuses O_DIRECT when a file is opened, or first when it is written or read. What it refused."""
    refused: list[str] = []
    real: dict[str, Any] = {call: getattr(os, call) for call in ("open", "pwrite", "preadv")}
    direct: set[int] = set()

    def opened(path: object, flags: int, *rest: Any, **others: Any) -> int:
        file = int(real["open"](path, flags & ~os.O_DIRECT, *rest, **others))
        if flags & os.O_DIRECT:
            if since == "open":
                os.close(file)
                refused.append("open")
                raise OSError(errno.EINVAL, "no O_DIRECT here")
            direct.add(file)
        else:
            direct.discard(file)
        return file

    def refusing(call: str) -> Callable[..., int]:
        def used(file: int, *rest: Any) -> int:
            if file in direct and since == call:
                refused.append(call)
                raise OSError(errno.EINVAL, "no O_DIRECT here")
            return int(real[call](file, *rest))

        return used

    with patch.context() as context:
        context.setattr(os, "open", opened)
        context.setattr(os, "pwrite", refusing("pwrite"))
        context.setattr(os, "preadv", refusing("preadv"))
        yield refused


@pytest.mark.parametrize("since", ["open", "pwrite", "preadv"])
def test_file_system_that_refuses_to_go_past_the_page_cache_keeps_bodies_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, since: str
) -> None:
    with without_o_direct(monkeypatch, since=since) as refused:
        engine = open_engine(tmp_path / "e")
        engine.write([Put(BODIES, name(index), body(index)) for index in range(20)])
        with engine.snapshot() as snapshot:
            assert [snapshot.get(BODIES, name(index)) for index in range(20)] == [body(index) for index in range(20)]
        engine.close()
    assert refused == [since]


def test_bodies_pass_the_page_cache_until_they_are_read_again(tmp_path: Path) -> None:
    """Goal: what is read once takes no memory of the system, what is read often is not read from the disk each time."""
    engine = open_engine(tmp_path / "e")
    if engine._bodies is None or engine._bodies._direct < 0:
        pytest.skip("the file system here does not know O_DIRECT")
    engine.write([Put(BODIES, name(index), body(index)) for index in range(4)])
    path = tmp_path / "e" / BODIES_FILE

    def in_memory() -> list[bool]:
        """Of the extents, by their middles."""
        middles = [index * EXTENT_BYTES + 16 * BLOCK_BYTES for index in range(4)]
        return [bool(resident_bytes(path, middle, middle + BLOCK_BYTES)) for middle in middles]

    with engine.snapshot() as snapshot:
        assert [snapshot.get(BODIES, name(index)) for index in range(4)] == [body(index) for index in range(4)]
        assert in_memory() == [False] * 4
        # At the first attempt, unless the system has taken the page back before it is looked at.
        assert any(snapshot.get(BODIES, name(2)) == body(2) and in_memory()[2] for _ in range(10))
    engine.write([Delete(BODIES, name(2))])
    engine.write([Put(BODIES, name(7), body(7))])  # in the same extent: the system's memory of it is no longer true
    assert extents_in_file(engine) == 4
    with engine.snapshot() as snapshot:
        assert [snapshot.get(BODIES, name(7)) for _ in range(3)] == [body(7)] * 3
    engine.close()


def test_bodies_that_lie_in_the_database_stay_there_and_their_pages_are_used_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a store of an older version goes on as it is, within its budget. Method: bodies as that version wrote them; read, replaced,
    deleted; new ones when the budget has no room for another file."""
    with monkeypatch.context() as patch:
        patch.setattr(lmdb_engine, "goes_apart", lambda *_: False)
        engine = open_engine(tmp_path / "e", budget_bytes=16 * MIB)
        fill(engine, 50)
        engine.close()
    engine = open_engine(tmp_path / "e", budget_bytes=16 * MIB)
    with engine.snapshot() as snapshot:
        assert all(snapshot.get(BODIES, name(index)) == BODY for index in range(50))
    engine.write([Delete(BODIES, name(index)) for index in range(30)])
    engine.write([Put(BODIES, name(40), body(40))])
    with pytest.raises(StoreFull):
        fill(engine, 100, start=100)
    with engine.snapshot() as snapshot:
        kept = snapshot.count(BODIES)
        assert kept > 40
        assert [snapshot.get(BODIES, name(index)) for index in (40, 49, 100)] == [body(40), BODY, BODY]
    assert bytes_on_disk(tmp_path / "e") <= 16 * MIB
    engine.close()


def test_rows_find_room_when_bodies_have_used_their_share(tmp_path: Path) -> None:
    """Goal: the reserve is there for rows, as bytes of the disk. Method: bodies until refused, rows of half the reserve."""
    engine = open_engine(tmp_path / "e", budget_bytes=24 * MIB, reserve_bytes=8 * MIB)
    with pytest.raises(StoreFull):
        fill(engine, 200)
    fill_rows(engine, 2000, bytes(1000))
    assert bytes_on_disk(tmp_path / "e") <= 24 * MIB
    engine.close()


@pytest.mark.parametrize("blocks_left", [None, 0, 65 * 7 + 1])
def test_body_file_that_is_cut_off_or_gone_is_damage_with_its_name(tmp_path: Path, blocks_left: int | None) -> None:
    engine = open_engine(tmp_path / "e")
    fill(engine, 8)
    engine.close()
    path = tmp_path / "e" / BODIES_FILE
    if blocks_left is None:
        path.unlink()
    else:
        os.truncate(path, blocks_left * BLOCK_BYTES)
    with pytest.raises(StoreDamaged, match=BODIES_FILE):
        open_engine(tmp_path / "e")


def test_copy_of_a_store_has_its_bodies_and_its_own_extents(tmp_path: Path) -> None:
    """Method: a store with gaps is copied while it is open; the copy has no gap, and takes bodies."""
    engine = open_engine(tmp_path / "e")
    fill(engine, 12)
    engine.write([Delete(BODIES, name(index)) for index in (0, 3, 7)])
    real = [Put(BODIES, sha256(body(index)), body(index)) for index in range(4)]
    engine.write(real)
    other = LmdbEngine(tmp_path / "copy", Env.CHUNKS, budget_bytes=64 * MIB, reserve_bytes=0)
    with engine.snapshot() as snapshot:
        assert snapshot.count(BODIES) == 13
    copied = backup.copy(engine, other, now=UnixSeconds(1))
    assert len(copied.damaged) == 9  # named by number here, not by what they hold
    with other.snapshot() as snapshot:
        assert [snapshot.get(BODIES, put.key) for put in real] == [put.value for put in real]
    assert (extents_in_file(other), other._extents.free) == (4, 0)
    fill(other, 3)
    engine.close()
    other.close()
