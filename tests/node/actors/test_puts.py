"""Puts that meet: what is answered is there afterwards."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
import trio

from node.actors.puts import SMALL_ENTRIES_MAX, PutOptions
from node.sources import scan, scan_few
from node.wiring import Node
from protocols.errors import LadingError, Reason
from protocols.exchange.machine import SMALL_BYTES_MAX
from tests.node.hostile.scene import play, scene

FULL = PutOptions(ack="full")
LOCAL = PutOptions(ack="local")
STEP_S = 0.0005


async def read(node: Node, record: str, target: Path) -> bytes:
    await node.files.get(record, output=target, directory=None, entry=None, keep=False, inline=None)
    return await trio.Path(target).read_bytes()


def source_of(folder: Path, number: int, size: int) -> Path:
    folder.mkdir()
    source = folder / f"{number}.bin"
    source.write_bytes((number.to_bytes(4, "big") * (size // 4 + 1))[:size])
    return source


async def put_both(first: Node, second: Node, source: Path, later_s: float) -> list[dict[str, object]]:
    """The same source put by both, one a little later. Result: what was answered."""
    answers: list[dict[str, object]] = []

    async def put(node: Node, pause_s: float) -> None:
        await trio.sleep(pause_s)
        answers.append((await node.files.put([source], FULL))[0])

    async with trio.open_nursery() as nursery:
        nursery.start_soon(put, first, 0.0)
        nursery.start_soon(put, second, later_s)
    return answers


async def check_whole(nodes: list[Node], answer: dict[str, object], source: Path) -> None:
    """Every node has every sequence in its place, and reads the record from its own disk."""
    for number, node in enumerate(nodes):
        facts = node.files.find(str(answer["record"]))
        held = await node.holdings.sequences_of(facts.key)
        assert [sequence.index for sequence in held] == list(range(int(str(answer["sequences"]))))
        if node.own.owner == facts.key[0]:
            got = await read(node, str(answer["record"]), source.with_name(f"read-{number}"))
            assert got == await trio.Path(source).read_bytes()


@pytest.mark.parametrize("size", [0, 20_000, SMALL_BYTES_MAX, 1_500_000], ids=["empty", "small", "edge", "large"])
@pytest.mark.parametrize("count", [1, 2])
def test_same_content_put_twice_at_once_is_published_once_and_read(tmp_path: Path, size: int, count: int) -> None:
    """Goal: an impatient second `put` of the same files does the first no harm. Method: the same file twice at once, the second a little
    later each time; both are answered, one of them publishes; the record has its manifest on every node and is read."""

    async def story() -> None:
        async with scene() as stage:
            nodes = [await stage.start(f"n{number}", issues=number == 0) for number in range(count)]
            await trio.sleep(5)
            for step in range(6):
                source = source_of(tmp_path / f"{step}", step, size)
                first, second = await put_both(nodes[0], nodes[0], source, step * STEP_S)
                assert first["record"] == second["record"]
                assert sorted([first["already_stored"], second["already_stored"]]) == [False, True]  # type: ignore[type-var]  # booleans
                await trio.sleep(30)
                await check_whole(nodes, first, source)

    play(story)


def test_same_content_put_by_two_nodes_of_one_member_at_once_is_read_by_both(tmp_path: Path) -> None:
    """Goal: two publications that no node could tell from each other in time leave a record that can be read. Method: two nodes with one
    member's key put the same file, each before it hears of the other's; each brings a manifest for the same place of the same record."""

    async def story() -> None:
        async with scene() as stage:
            member = stage.member("clinic")
            owns = [stage.own(f"n{number}", member=member, issues=number == 0) for number in range(2)]
            nodes = [await stage.start(f"n{number}", own=own) for number, own in enumerate(owns)]
            nodes.append(await stage.start("n2", issues=False))
            await trio.sleep(5)
            for step in range(6):
                source = source_of(tmp_path / f"{step}", step, 20_000)
                first, _ = await put_both(nodes[0], nodes[1], source, step * STEP_S)
                await trio.sleep(30)
                await check_whole(nodes, first, source)

    play(story)


@pytest.mark.parametrize("size", [0, 20_000, 1_500_000], ids=["empty", "small", "large"])
def test_put_says_what_is_new_and_what_was_saved(tmp_path: Path, size: int) -> None:
    """Goal: the figures of a put are true. Method: bytes that were never seen: nothing is saved; the same once more: nothing is
    new, and all of it is saved."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            source = tmp_path / "x.bin"
            source.write_bytes(random.Random(1).randbytes(size))
            first, _ = await node.files.put([source], LOCAL)
            assert (first["bytes_saved"], first["already_stored"]) == (0, False)
            again, _ = await node.files.put([source], LOCAL)
            assert (again["chunks_new"], again["bytes_new"], again["already_stored"]) == (0, 0, True)
            assert again["bytes_saved"] == first["bytes_new"]

    play(story)


def small_files(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    files = [folder / f"{number}.bin" for number in range(count)]
    for number, file in enumerate(files):
        file.write_bytes(f"file {number} ".encode() * 50)
    return files


def test_path_that_cannot_be_looked_at_fails_its_own_put_alone(tmp_path: Path) -> None:
    """Goal: what one caller asks for harms no other. Method: paths that the system refuses in ways of their own, among good ones; each is
    named in its own error, the others are published, and nothing falls."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            good = small_files(tmp_path / "good", 20)
            odd = [tmp_path / ("x" * 300), tmp_path / "zero\0byte", tmp_path / "absent"]
            told: dict[Path, Reason | None] = {}

            async def put(path: Path) -> None:
                try:
                    await node.files.put([path], LOCAL)
                    told[path] = None
                except LadingError as error:
                    told[path] = error.reason

            async with trio.open_nursery() as nursery:
                for path in [*good[:10], *odd, *good[10:]]:
                    nursery.start_soon(put, path)
            assert [told[path] for path in odd] == [Reason.SOURCE_UNREADABLE, Reason.BAD_PATH, Reason.NOT_FOUND]
            assert all(told[path] is None for path in good)

    play(story)


def test_copies_that_do_not_get_there_hold_up_no_record_that_needs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a node that hangs costs those their time who wait for it, and nobody else. Method: nothing comes back from the other node;
    many puts wait for it, one after the other; one for this disk only is answered."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start("n0")
            await stage.start("n1", issues=False)
            await trio.sleep(5)

            async def hang(*_: object) -> None:
                await trio.sleep_forever()

            monkeypatch.setattr(type(node.files._replication._bundles), "_send_all", hang)
            files = small_files(tmp_path / "files", 41)
            async with trio.open_nursery() as nursery:
                for file in files[:40]:
                    nursery.start_soon(node.files.put, [file], FULL)
                    await trio.sleep(0.1)
                with trio.fail_after(5):
                    answer, _ = await node.files.put([files[40]], LOCAL)
                assert not answer["already_stored"]
                nursery.cancel_scope.cancel()

    play(story)


def test_folder_of_many_small_files_goes_alone_after_a_look_at_a_few(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: others wait for no walk through a large folder. Method: one of many empty files, looked at for a group and then put."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for number in range(5 * SMALL_ENTRIES_MAX):
        (folder / str(number)).touch()
    looked: list[object] = []
    lstat = os.lstat
    monkeypatch.setattr("node.sources.os.lstat", lambda path: looked.append(path) or lstat(path))  # type: ignore[func-returns-value]
    assert scan_few([folder], SMALL_ENTRIES_MAX) is None
    assert len(looked) <= SMALL_ENTRIES_MAX + 3
    assert scan_few([folder], 5 * SMALL_ENTRIES_MAX) == scan([folder])

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            answer, _ = await node.files.put([folder], LOCAL)
            assert answer["entries"] == 5 * SMALL_ENTRIES_MAX

    play(story)


@pytest.mark.parametrize("steps", range(16))
def test_put_that_is_cancelled_at_any_step_leaves_nothing_locked(tmp_path: Path, steps: int) -> None:
    """Goal: whoever leaves leaves no lock behind. Method: a put and another of the same content; the first is cancelled a moment later
    each time; the second is answered, and so is a third."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            (source,) = small_files(tmp_path / "files", 1)
            scope = trio.CancelScope()

            async def leaves() -> None:
                with scope:
                    await node.files.put([source], LOCAL)

            with trio.fail_after(60):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(leaves)
                    await trio.sleep(STEP_S)
                    nursery.start_soon(node.files.put, [source], LOCAL)
                    for _ in range(steps):
                        await trio.sleep(STEP_S / 4)
                    scope.cancel()
                answer, _ = await node.files.put([source], LOCAL)
            assert answer["already_stored"]
            assert node.files._puts._publishing == {}
            assert node.files._puts.small.borrowed_tokens == node.files._puts.large.borrowed_tokens == node.files._puts.under_way == 0
            await check_whole([node], answer, source)

    play(story)
