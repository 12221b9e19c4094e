"""Where opened chunks go: through the page cache and past it, and what is left when a chunk does not open."""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import trio

from node import sinks
from node.offload import SimulatedOffload
from node.sinks import DIRECT_BYTES_MIN, FileSink, Taken
from protocols.errors import InvalidObject, Reason
from protocols.files.manifest import Manifest, PlannedChunk, open_manifest
from protocols.limits import BLOCK_BYTES
from tests.protocols.files.records import Built, build

CHUNKS_AT_ONCE = 7


@cache
def built() -> Built:
    """A file large enough for the direct way, with an end that is no whole block, and two that are not."""
    chance = random.Random(3)
    sizes = {"large": DIRECT_BYTES_MIN + 3 * BLOCK_BYTES + 100, "medium": 3 * BLOCK_BYTES, "small": 5000}
    return build({name: chance.randbytes(size) for name, size in sizes.items()}, chunks_per_sequence=16)


def manifest() -> Manifest:
    return open_manifest(built().statement(), built().record.record_key, built().manifest)


def parts(order: Callable[[list[Any]], None] = lambda _: None) -> list[tuple[Taken, bool]]:
    """What comes, some chunks of one sequence at a time, and whether it is the last of it."""
    sequences: dict[int, list[tuple[PlannedChunk, bytes]]] = {}
    for chunk in manifest().plan():
        sealed = built().chunks[chunk.sequence_index, chunk.chunk_index].sealed
        sequences.setdefault(chunk.sequence_index, []).append((chunk, sealed))
    found: list[tuple[Taken, bool]] = []
    for chunks in sequences.values():
        order(chunks)
        for start in range(0, len(chunks), CHUNKS_AT_ONCE):
            found.append((chunks[start : start + CHUNKS_AT_ONCE], start + CHUNKS_AT_ONCE >= len(chunks)))
    return found


def sink_for(target: Path) -> FileSink:
    whole = manifest()
    return FileSink(whole, range(len(whole.entries)), target, SimulatedOffload(lambda: 0.0))


def written(target: Path, brought: list[tuple[Taken, bool]], sink: FileSink | None = None) -> int:
    """Bytes that the sink says it took."""
    sink = sink or sink_for(target)

    async def story() -> int:
        await sink.open()
        count = 0
        for chunks, is_last in brought:
            count += await sink.take(chunks, is_last=is_last)
        await sink.finish()
        return count

    return trio.run(story)


def assert_right(target: Path) -> None:
    for name, data in built().files.items():
        assert (target / name).read_bytes() == data
    assert sorted(path.name for path in target.parent.iterdir()) == [target.name]


@pytest.mark.parametrize("seed", [None, 5])
def test_chunks_in_any_order_make_the_files(tmp_path: Path, seed: int | None) -> None:
    """Goal: what is written is what was sealed, wherever runs of blocks begin and end. Method: chunks in order and shuffled, seven at a
    time, so that rooms and runs are cut unevenly; every byte is compared."""
    order = (lambda _: None) if seed is None else random.Random(seed).shuffle
    assert written(tmp_path / "out", parts(order)) == sum(map(len, built().files.values()))
    assert_right(tmp_path / "out")


def test_large_file_goes_past_the_page_cache_and_nothing_else_does(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: only whole blocks of a large file need a page's alignment. Method: what is asked of the file system is listed."""
    ways: set[tuple[str, bool, bool]] = set()
    write_to = sinks._write_to

    def listed(place: Path, flags: int, data: memoryview, offset: int) -> None:
        ways.add((place.name, bool(flags & os.O_DIRECT), len(data) % BLOCK_BYTES == 0))
        write_to(place, flags & ~os.O_DIRECT, data, offset)

    monkeypatch.setattr(sinks, "_write_to", listed)
    written(tmp_path / "out", parts())
    assert ways == {("large", True, True), ("large", False, False), ("medium", False, True), ("small", False, False)}
    assert_right(tmp_path / "out")


def test_file_system_without_direct_writing_is_written_as_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no file system is refused. Method: one that answers EINVAL; it is asked once."""
    asked = 0
    write_to = sinks._write_to

    def refusing(place: Path, flags: int, data: memoryview, offset: int) -> None:
        nonlocal asked
        if flags & os.O_DIRECT:
            asked += 1
            raise OSError(errno.EINVAL, "Invalid argument")
        write_to(place, flags, data, offset)

    monkeypatch.setattr(sinks, "_write_to", refusing)
    written(tmp_path / "out", parts())
    assert asked == 1
    assert_right(tmp_path / "out")


@pytest.mark.parametrize("number", [0, 3], ids=["first", "among others"])
def test_chunk_that_does_not_open_writes_nothing_of_its_trip(tmp_path: Path, number: int) -> None:
    """Goal: no byte is written before its tag was checked. Method: one chunk of several is altered; the file stays a hole there."""
    chunks, is_last = parts()[0]
    altered = list(chunks)
    chunk, sealed = altered[number]
    altered[number] = (chunk, sealed[:-1] + bytes([sealed[-1] ^ 1]))
    with pytest.raises(InvalidObject) as caught:
        written(tmp_path / "out", [(altered, is_last)])
    assert caught.value.reason is Reason.BAD_TAG
    assert not any((tmp_path / "out.part" / "large").read_bytes())
    assert not (tmp_path / "out").exists()


def test_get_that_was_cut_goes_on_and_a_line_that_was_cut_does_no_harm(tmp_path: Path) -> None:
    """Goal: what was written is not fetched again, and what was not is not believed. Method: one sequence is written, then the list of
    what is whole claims another one that is not; the second get has the first sequence only."""
    target = tmp_path / "out"
    brought = parts()
    first = brought[0][0][0][0].sequence_index
    only = [part for part in brought if part[0][0][0].sequence_index == first]

    async def begin() -> None:
        sink = sink_for(target)
        await sink.open()
        for chunks, is_last in only:
            await sink.take(chunks, is_last=is_last)

    trio.run(begin)
    resume = tmp_path / "out.resume"
    assert resume.read_text().split()[1:] == [str(first)]
    resume.write_text(resume.read_text() + str(first + 1))
    again = sink_for(target)
    trio.run(again.open)
    assert [again.has(index) for index in (first, first + 1)] == [True, False]
    written(target, [part for part in brought if not again.has(part[0][0][0].sequence_index)], again)
    assert_right(target)
