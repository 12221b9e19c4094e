"""The contract over every engine, and what is particular to the engine in memory, the faulty one, and overlays."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import StoreDamaged, StoreFull
from storage.engine import Appetite, Delete, Engine, Env, Put, Write, appetite
from storage.faulty import Crashed, Faults, FaultyEngine
from storage.lmdb_engine import LmdbEngine, LmdbSnapshot
from storage.memory import MemoryEngine
from storage.overlay import Overlay
from storage.tables import ALL, BODIES, CHAIN_TREE, CHUNKS, OWNERS

from .contract import EngineContract, _writes, compare, name


class TestMemoryEngine(EngineContract):
    def make(self, path: Path, env: Env, *, budget_bytes: int, reserve_bytes: int) -> Engine:
        return MemoryEngine(env, budget_bytes, reserve_bytes=reserve_bytes)


class TestFaultyEngineWithoutFaults(EngineContract):
    def make(self, path: Path, env: Env, *, budget_bytes: int, reserve_bytes: int) -> Engine:
        inner = MemoryEngine(env, budget_bytes, reserve_bytes=reserve_bytes)
        return FaultyEngine(inner, Faults(), random.Random(0))


class TestLmdbEngine(EngineContract):
    def make(self, path: Path, env: Env, *, budget_bytes: int, reserve_bytes: int) -> Engine:
        return LmdbEngine(path, env, budget_bytes=budget_bytes, reserve_bytes=reserve_bytes)


def test_appetite_is_that_of_the_greediest_write() -> None:
    """Goal: one body makes a batch a body batch. Method: the three kinds and nothing."""
    assert appetite([]) is Appetite.DELETES
    assert appetite([Delete(BODIES, b"a")]) is Appetite.DELETES
    assert appetite([Delete(BODIES, b"a"), Put(CHUNKS, b"a", b"")]) is Appetite.ROWS
    assert appetite([Put(CHUNKS, b"a", b""), Put(BODIES, b"a", b"")]) is Appetite.BODIES


def test_tables_have_versions_and_key_forms() -> None:
    """Goal: no table without its version and its key form. Method: the list of all."""
    for table in ALL:
        base, _, version = table.name.partition("/")
        assert base
        assert version.isdigit()
        assert table.key_form


def test_rows_behind_all_others_fill_their_pages_and_any_order_is_kept(tmp_path: Path) -> None:
    """Goal: rows of the state tree leave no page half empty. Method: batches of rows of which three fill a page, behind what is there;
    then in front, between and again. Expected: three rows a page; what was written last is read, in key order."""
    engine = LmdbEngine(tmp_path, Env.LEDGER, budget_bytes=1 << 30, reserve_bytes=0)
    rows: dict[bytes, bytes] = {}

    def write(numbers: Iterable[int], fill: int) -> None:
        batch = {number.to_bytes(8, "big"): bytes([fill]) * 1220 for number in numbers}
        rows.update(batch)
        engine.write([Put(CHAIN_TREE, key, row) for key, row in batch.items()])

    for first in range(1000, 4000, 300):
        write(range(first, first + 300), 1)
    with engine.snapshot() as snapshot:
        assert isinstance(snapshot, LmdbSnapshot)
        assert snapshot._transaction.stat(engine._tables[CHAIN_TREE.name])["leaf_pages"] == 1000
    write(range(500, 600), 2)
    write(range(3500, 4500), 3)
    write([5002, 5001, 5003], 4)
    engine.write([Put(CHAIN_TREE, b"z", b"first"), Put(CHAIN_TREE, b"z", b"last")])
    with engine.snapshot() as snapshot:
        assert dict(snapshot.scan(CHAIN_TREE)) == rows | {b"z": b"last"}
        assert [key for key, _ in snapshot.scan(CHAIN_TREE)] == sorted(rows) + [b"z"]
    engine.close()


@settings(max_examples=150)
@given(
    below=st.lists(_writes, max_size=10),
    middle=st.lists(_writes, max_size=10),
    above=st.lists(_writes, max_size=10),
    prefix=st.binary(max_size=2),
    start=st.binary(max_size=2),
)
def test_overlay_reads_as_if_its_writes_were_made(
    below: list[Write], middle: list[Write], above: list[Write], prefix: bytes, start: bytes
) -> None:
    """Goal: transactions that share a batch see each other. Method: two overlays on a snapshot against an engine that wrote it all."""
    engine = MemoryEngine(Env.CHUNKS, 1 << 20)
    engine.write(below)
    wanted = MemoryEngine(Env.CHUNKS, 1 << 20)
    wanted.write([*below, *middle, *above])
    with engine.snapshot() as snapshot:
        lower = Overlay(snapshot)
        lower.add(middle)
        upper = Overlay(lower)
        upper.add(above)
        with wanted.snapshot() as truth:
            for table in (CHUNKS, OWNERS):
                compare(upper, table, dict(truth.scan(table)), prefix, start)
    engine.write([*lower.writes, *upper.writes])
    with engine.snapshot() as snapshot, wanted.snapshot() as truth:
        for table in (CHUNKS, OWNERS):
            assert list(snapshot.scan(table)) == list(truth.scan(table))


@pytest.mark.parametrize("keeps", [True, False])
def test_crash_keeps_or_loses_its_batch_and_nothing_answers_until_restart(keeps: bool) -> None:
    """Goal: a crash is all or nothing, and final. Method: the second write crashes; reads and writes fail; restart shows the disk."""
    engine = FaultyEngine(MemoryEngine(Env.CHUNKS, 1 << 20), Faults(crash_after_writes=2, crash_keeps=keeps), random.Random(1))
    engine.write([Put(CHUNKS, b"a", b"1")])
    with pytest.raises(Crashed):
        engine.write([Put(CHUNKS, b"b", b"2"), Put(CHUNKS, b"c", b"3")])
    with pytest.raises(Crashed):
        engine.write([Delete(CHUNKS, b"a")])
    with pytest.raises(Crashed), engine.snapshot():
        pass
    engine.restart()
    with engine.snapshot() as snapshot:
        assert [key for key, _ in snapshot.scan(CHUNKS)] == ([b"a", b"b", b"c"] if keeps else [b"a"])
    engine.write([Delete(CHUNKS, b"a")])


def test_faults_come_from_the_seed() -> None:
    """Goal: one seed, one history. Method: the same writes under the same seed twice, and under another."""

    def history(seed: int) -> list[bool]:
        engine = FaultyEngine(MemoryEngine(Env.CHUNKS, 1 << 20), Faults(full_chance=0.5), random.Random(seed))
        taken = []
        for index in range(40):
            try:
                engine.write([Put(CHUNKS, name(index), b"")])
                taken.append(True)
            except StoreFull:
                taken.append(False)
        return taken

    assert history(1) == history(1)
    assert history(1) != history(2)


def test_full_disk_refuses_puts_and_takes_deletes() -> None:
    """Goal: the knob behaves as a full disk does. Method: put, delete and read with it on."""
    faults = Faults()
    engine = FaultyEngine(MemoryEngine(Env.CHUNKS, 1 << 20), faults, random.Random(1))
    engine.write([Put(CHUNKS, b"a", b"1")])
    faults.full = True
    with pytest.raises(StoreFull):
        engine.write([Put(CHUNKS, b"b", b"1"), Delete(CHUNKS, b"a")])
    engine.write([Delete(CHUNKS, b"a")])
    with engine.snapshot() as snapshot:
        assert snapshot.count(CHUNKS) == 0


def test_read_errors_and_rot_are_what_they_say() -> None:
    """Goal: the knobs do something. Method: certain read errors; a certain flip changes exactly one bit of a body."""
    faults = Faults(read_error_chance=1.0)
    engine = FaultyEngine(MemoryEngine(Env.CHUNKS, 1 << 20), faults, random.Random(1))
    with engine.snapshot() as snapshot, pytest.raises(StoreDamaged):
        snapshot.get(CHUNKS, b"a")
    faults.read_error_chance = 0.0
    faults.flip_chance = 1.0
    engine.write([Put(BODIES, b"a", bytes(100)), Put(CHUNKS, b"a", bytes(100))])
    with engine.snapshot() as snapshot:
        body = snapshot.get(BODIES, b"a")
        assert body is not None
        assert sum(byte.bit_count() for byte in body) == 1
        assert snapshot.get(CHUNKS, b"a") == bytes(100)
