"""One suite for every engine: a test file subclasses ``EngineContract`` and says how its engine is made."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.errors import LocalError, StoreFull
from storage.engine import Delete, Engine, Env, Put, Snapshot, Table, Write
from storage.overlay import Overlay
from storage.tables import BODIES, CHUNKS, OWNERS

BUDGET_BYTES = 24 * 1024 * 1024
RESERVE_BYTES = 4 * 1024 * 1024
BODY = bytes(256 * 1024 + 16)

_keys = st.binary(min_size=1, max_size=3) | st.sampled_from([b"\xff", b"\xff\xff", b"a", b"ab", b"b" * 200])
_values = st.binary(max_size=40) | st.sampled_from([b"", bytes(3000), bytes(9000)])
_tables = st.sampled_from([CHUNKS, OWNERS])
_writes = st.builds(Put, _tables, _keys, _values) | st.builds(Delete, _tables, _keys)


def name(index: int) -> bytes:
    return index.to_bytes(32, "big")


def fill(engine: Engine, count: int, *, start: int = 0) -> None:
    """Bodies one to a batch, until ``count`` are there or the engine refuses."""
    for index in range(start, start + count):
        engine.write([Put(BODIES, name(index), BODY)])


def fill_rows(engine: Engine, count: int, row: bytes) -> None:
    """Small rows, 50 to a batch, until ``count`` are there or the engine refuses."""
    for start in range(0, count, 50):
        engine.write([Put(OWNERS, name(index), row) for index in range(start, start + 50)])


class EngineContract(ABC):
    """What every engine promises (storage/engine.py)."""

    @abstractmethod
    def make(self, path: Path, env: Env, *, budget_bytes: int, reserve_bytes: int) -> Engine:
        """A new, empty engine."""

    @contextmanager
    def open(self, path: Path) -> Iterator[Engine]:
        engine = self.make(path, Env.CHUNKS, budget_bytes=BUDGET_BYTES, reserve_bytes=RESERVE_BYTES)
        try:
            yield engine
        finally:
            engine.close()

    @pytest.fixture
    def engine(self, tmp_path: Path) -> Iterator[Engine]:
        with self.open(tmp_path / "engine") as engine:
            yield engine

    def test_empty_engine_answers_nothing(self, engine: Engine) -> None:
        """Goal: absence is not an error. Method: every read of a new engine."""
        with engine.snapshot() as snapshot:
            assert snapshot.get(CHUNKS, b"k") is None
            assert snapshot.reader(CHUNKS)(b"k") is None
            assert not snapshot.has(CHUNKS, b"k")
            assert list(snapshot.scan(CHUNKS)) == []
            assert list(snapshot.scan(CHUNKS, prefix=b"k", start=b"kk")) == []
            assert snapshot.count(CHUNKS) == 0

    def test_reader_gives_what_get_gives_also_of_what_is_laid_over(self, engine: Engine) -> None:
        """Goal: reading many keys of one table is reading each. Method: a reader of the engine's snapshot, and one taken from an overlay
        before anything was laid over it: what is put, put again and deleted afterwards is seen."""
        engine.write([Put(CHUNKS, b"a", b"1"), Put(CHUNKS, b"b", b"2"), Put(OWNERS, b"c", b"3")])
        with engine.snapshot() as snapshot:
            read = snapshot.reader(CHUNKS)
            assert [read(key) for key in (b"a", b"b", b"c")] == [b"1", b"2", None]
            overlay = Overlay(snapshot)
            over = overlay.reader(CHUNKS)
            assert over(b"a") == b"1"
            assert overlay.writes == []
            overlay.add([Put(CHUNKS, b"a", memoryview(b"9")), Delete(CHUNKS, b"b"), Put(CHUNKS, b"c", b"8")])
            assert [over(key) for key in (b"a", b"b", b"c")] == [b"9", None, b"8"]
            assert [overlay.get(CHUNKS, key) for key in (b"a", b"b", b"c")] == [b"9", None, b"8"]
            assert [read(key) for key in (b"a", b"b", b"c")] == [b"1", b"2", None]

    def test_batch_is_applied_in_order(self, engine: Engine) -> None:
        """Goal: the last write of a key wins. Method: put, delete and put again in one batch, over views of a buffer."""
        value = memoryview(b"xone")[1:]
        engine.write([Put(CHUNKS, b"a", value), Put(CHUNKS, b"b", b"1"), Delete(CHUNKS, b"b"), Delete(CHUNKS, b"c")])
        engine.write([Delete(OWNERS, b"a"), Put(OWNERS, b"a", b""), Put(CHUNKS, b"c", b"2"), Put(CHUNKS, b"c", b"3")])
        with engine.snapshot() as snapshot:
            assert list(snapshot.scan(CHUNKS)) == [(b"a", b"one"), (b"c", b"3")]
            assert snapshot.get(OWNERS, b"a") == b""
            assert type(snapshot.get(CHUNKS, b"a")) is bytes

    def test_empty_batch_is_fine(self, engine: Engine) -> None:
        """Goal: nothing to write is no error. Method: write nothing."""
        engine.write([])
        with engine.snapshot() as snapshot:
            assert snapshot.count(CHUNKS) == 0

    def test_scan_keeps_to_prefix_start_and_order(self, engine: Engine) -> None:
        """Goal: ranges are exact at their edges. Method: keys around a prefix that ends in 0xff."""
        keys = [b"a", b"a\xff", b"a\xff\x00", b"a\xff\xff", b"b", b"\xff", b"\xff\xff"]
        engine.write([Put(CHUNKS, key, key) for key in reversed(keys)])
        with engine.snapshot() as snapshot:
            assert [key for key, _ in snapshot.scan(CHUNKS)] == keys
            assert [key for key, _ in snapshot.scan(CHUNKS, prefix=b"a\xff")] == keys[1:4]
            assert [key for key, _ in snapshot.scan(CHUNKS, prefix=b"a\xff", start=b"a\xff\x01")] == [b"a\xff\xff"]
            assert [key for key, _ in snapshot.scan(CHUNKS, prefix=b"a\xff", start=b"b")] == []
            assert [key for key, _ in snapshot.scan(CHUNKS, start=b"b")] == keys[4:]

    def test_snapshot_does_not_see_later_writes(self, engine: Engine) -> None:
        """Goal: a view is of one moment. Method: another thread writes while a snapshot is open, also in the middle of a scan."""
        engine.write([Put(CHUNKS, b"a", b"1"), Put(CHUNKS, b"c", b"1")])
        with engine.snapshot() as snapshot:
            pairs = snapshot.scan(CHUNKS)
            assert next(pairs) == (b"a", b"1")
            writer = threading.Thread(target=engine.write, args=([Put(CHUNKS, b"b", b"2"), Delete(CHUNKS, b"c")],))
            writer.start()
            writer.join()
            assert list(pairs) == [(b"c", b"1")]
            assert snapshot.get(CHUNKS, b"b") is None
            assert snapshot.count(CHUNKS) == 2
        with engine.snapshot() as snapshot:
            assert [key for key, _ in snapshot.scan(CHUNKS)] == [b"a", b"b"]

    def test_writing_inside_ones_own_snapshot_is_a_bug(self, engine: Engine) -> None:
        """Goal: what could wait for itself fails at once. Method: write with a snapshot open in the same thread."""
        with engine.snapshot(), pytest.raises(AssertionError):
            engine.write([Put(CHUNKS, b"a", b"1")])

    def test_bodies_are_refused_first_then_rows_never_deletes(self, engine: Engine) -> None:
        """Goal: a store that fills up stays readable and can be emptied.

        Method: fill with bodies until refused, then with rows until refused; read, delete, and write again.
        """
        with pytest.raises(StoreFull):
            fill(engine, BUDGET_BYTES // len(BODY) + 1)
        with engine.snapshot() as snapshot:
            kept = snapshot.count(BODIES)
        assert kept >= (BUDGET_BYTES - RESERVE_BYTES) // len(BODY) - 8
        row = bytes(1000)
        engine.write([Put(OWNERS, name(0), row)])
        with pytest.raises(StoreFull):
            fill_rows(engine, BUDGET_BYTES // len(row), row)
        with engine.snapshot() as snapshot:
            assert snapshot.count(BODIES) == kept
            assert snapshot.get(BODIES, name(kept - 1)) == BODY
        usage = engine.usage()
        assert usage.bytes_used <= usage.bytes_budget == BUDGET_BYTES
        for index in range(kept):
            engine.write([Delete(BODIES, name(index))])
        with engine.snapshot() as snapshot:
            assert snapshot.count(BODIES) == 0
        fill(engine, kept // 2, start=1000)
        assert engine.usage().bytes_used < BUDGET_BYTES

    def test_refused_batch_leaves_nothing_behind(self, engine: Engine) -> None:
        """Goal: all or nothing. Method: one batch larger than the whole budget, with a small row first."""
        too_much = BUDGET_BYTES // len(BODY) + 1
        with pytest.raises(StoreFull):
            engine.write([Put(OWNERS, b"first", b"1"), *(Put(BODIES, name(index), BODY) for index in range(too_much))])
        with engine.snapshot() as snapshot:
            assert snapshot.count(OWNERS) == 0
            assert snapshot.count(BODIES) == 0

    def test_closed_engine_says_so(self, engine: Engine) -> None:
        """Goal: use after close is our bug and named so. Method: close twice, then use."""
        engine.close()
        engine.close()
        with pytest.raises(LocalError):
            engine.write([Delete(CHUNKS, b"a")])
        with pytest.raises(LocalError), engine.snapshot():
            pass

    def test_random_batches_match_a_dict(self, tmp_path: Path) -> None:
        """Goal: the engine is a sorted dict per table. Method: Hypothesis draws batches; contents, ranges and counts are compared."""
        with self.open(tmp_path / "random") as engine:

            @settings(max_examples=40)
            @given(batches=st.lists(st.lists(_writes, max_size=12), max_size=6), prefix=_keys, start=_keys)
            def check(batches: list[list[Write]], prefix: bytes, start: bytes) -> None:
                model: dict[Table, dict[bytes, bytes]] = {CHUNKS: {}, OWNERS: {}}
                with engine.snapshot() as snapshot:
                    leftovers: list[Write] = [Delete(table, key) for table in model for key, _ in snapshot.scan(table)]
                engine.write(leftovers)
                for batch in batches:
                    engine.write(batch)
                    for write in batch:
                        if isinstance(write, Put):
                            model[write.table][write.key] = bytes(write.value)
                        else:
                            model[write.table].pop(write.key, None)
                with engine.snapshot() as snapshot:
                    for table, values in model.items():
                        compare(snapshot, table, values, prefix, start)

            check()


def compare(snapshot: Snapshot, table: Table, values: dict[bytes, bytes], prefix: bytes, start: bytes) -> None:
    """Every kind of read against a dict."""
    pairs = sorted(values.items())
    assert list(snapshot.scan(table)) == pairs
    assert list(snapshot.scan(table, prefix=prefix)) == [pair for pair in pairs if pair[0].startswith(prefix)]
    assert list(snapshot.scan(table, start=start)) == [pair for pair in pairs if pair[0] >= start]
    assert snapshot.count(table) == len(values)
    for key in (prefix, start, *values):
        assert snapshot.get(table, key) == values.get(key)
        assert snapshot.has(table, key) == (key in values)
