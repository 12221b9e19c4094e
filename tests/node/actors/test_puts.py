"""Puts that meet: what is answered is there afterwards."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
import trio

from node.actors.puts import PutOptions
from node.wiring import Node
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
