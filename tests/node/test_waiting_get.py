"""`get` while the holders are away: it waits, says for whom, ends with its time, and goes on where it ended."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import trio

from node.actors.exchange import ExchangeClient
from node.actors.files import GET_PATIENCE_S
from node.actors.puts import PutOptions
from node.api import NodeApi
from node.sinks import RESUME_SUFFIX
from node.supervisor import run_contained
from node.transport.memory import Link
from node.transport.port import StreamBroken
from node.wiring import Node
from protocols.errors import LadingError, Reason
from protocols.types import PeerId

from .hostile.scene import Scene, play, scene

SIZE = 9 * 1024 * 1024


async def until(holds: Callable[[], object]) -> None:
    while not holds():  # noqa: ASYNC110  # nothing tells of all that is looked at here, and the clock is virtual
        await trio.sleep(0.5)


async def shared(stage: Scene, tmp_path: Path) -> tuple[Node, Node, str]:
    """(its only holder, a reader who has nothing of it, the record)."""
    holder, reader = await stage.start("holder"), await stage.start("reader")
    reader.holdings.read_only = "this reader keeps nothing"
    reader.look_at_room = lambda: None  # type: ignore[method-assign]  # nor does it find room again
    source = tmp_path / "source"
    source.write_bytes(random.Random(7).randbytes(SIZE))
    with trio.fail_after(60):
        await until(lambda: holder.peers.sessions and reader.knowledge.book.get(holder.own.peer_id))
        data, _ = await holder.files.put([source], PutOptions(replicas=1, ack="local"))
        record = str(data["record"])
        await holder.files.share(record, reader.own.member_id)
        await until(
            lambda: any(key[1].hex() == record and facts.wraps and facts.receipts for key, facts in reader.knowledge.records.items())
        )
    return holder, reader, record


def cut_off(stage: Scene, holder: Node, reader: Node) -> None:
    stage.network.cut(holder.own.peer_id, reader.own.peer_id)
    stage.network.reset(holder.own.peer_id, reader.own.peer_id)


async def get(node: Node, record: str, target: Path, told: list[Mapping[str, object]], **args: object) -> Mapping[str, object]:
    asked = {"record": record, "output": str(target), **args}
    answer = await NodeApi(node).call("get", asked, body=None, progress=lambda facts: told.append(dict(facts)), output=None)
    return answer.data


def test_get_waits_for_a_holder_that_is_away_and_says_so(tmp_path: Path) -> None:
    """Goal: a reader need not sit there and try again. Method: the only holder is cut off for 20 minutes; get with an hour's time."""

    async def story() -> None:
        async with scene() as stage:
            holder, reader, record = await shared(stage, tmp_path)
            cut_off(stage, holder, reader)
            told: list[Mapping[str, object]] = []
            async with trio.open_nursery() as nursery:

                async def come_back() -> None:
                    await trio.sleep(1200)
                    stage.network.heal_all()

                nursery.start_soon(come_back)
                began = trio.current_time()
                await get(reader, record, tmp_path / "got", told, wait_s=3600.0)
                assert trio.current_time() - began > 1200
            assert (tmp_path / "got").read_bytes() == (tmp_path / "source").read_bytes()
            assert {"waiting_for": ["holder holder/holder, offline"]} in told
            assert told.index({"waiting_for": []}) > told.index({"waiting_for": ["holder holder/holder, offline"]})

    play(story)


@pytest.mark.parametrize(("args", "waited_s"), [({}, GET_PATIENCE_S), ({"wait_s": 100.0}, 100.0)])
def test_get_ends_with_its_time_naming_who_is_away(tmp_path: Path, args: Mapping[str, object], waited_s: float) -> None:
    """Goal: no endless wait that nobody asked for. Method: the holder stays away, without --timeout and with one."""

    async def story() -> None:
        async with scene() as stage:
            holder, reader, record = await shared(stage, tmp_path)
            cut_off(stage, holder, reader)
            began = trio.current_time()
            with pytest.raises(LadingError) as caught:
                await get(reader, record, tmp_path / "got", [], **args)
            assert caught.value.reason is Reason.UNREACHABLE
            assert caught.value.details["waiting_for"] == ["holder/holder"]
            assert "--timeout" in caught.value.hint
            assert waited_s <= trio.current_time() - began < waited_s + 10

    play(story)


def test_get_that_ended_for_want_of_a_holder_goes_on_where_it_ended(tmp_path: Path) -> None:
    """Goal: resumable. Method: the holder leaves after the first sequence is written; a second get brings only what is missing."""

    async def story() -> None:
        async with scene() as stage:
            holder, reader, record = await shared(stage, tmp_path)
            # Slow enough that it is under way when the holder leaves.
            stage.network.set_link(holder.own.peer_id, reader.own.peer_id, _slow())
            told: list[Mapping[str, object]] = []

            def leave(facts: Mapping[str, object]) -> None:
                told.append(facts)
                # Sequences come side by side, and how far each of them is at a given sum of bytes is the scheduler's affair.
                notes = tmp_path / ("got" + RESUME_SUFFIX)
                if notes.exists() and len(notes.read_text().split()) > 1:
                    cut_off(stage, holder, reader)

            asked = {"record": record, "output": str(tmp_path / "got")}
            errors = await run_contained(lambda: NodeApi(reader).call("get", asked, body=None, progress=leave, output=None))
            assert [error.reason for error in errors if isinstance(error, LadingError)] == [Reason.UNREACHABLE]
            stage.network.heal_all()
            stage.network.set_link(holder.own.peer_id, reader.own.peer_id, _slow())
            again: list[Mapping[str, object]] = []
            await get(reader, record, tmp_path / "got", again, wait_s=600.0)
            assert (tmp_path / "got").read_bytes() == (tmp_path / "source").read_bytes()
            assert max(int(str(facts.get("bytes", 0))) for facts in again) < SIZE

    play(story)


def test_get_asks_again_where_a_stream_broke_under_it(tmp_path: Path) -> None:
    """Goal: a connection that gives way to the other one of its pair costs no get. Method: the only holder's stream breaks under the first
    question though the holder stays connected, and a third node, which has nothing, answers so."""

    async def story() -> None:
        async with scene() as stage:
            holder, reader, record = await shared(stage, tmp_path)
            third = await stage.start("third")
            await until(lambda: third.own.peer_id in reader.peers.sessions)
            exchange, broken = reader.peers.exchange, [holder.own.peer_id]

            async def breaking(peer: PeerId) -> ExchangeClient:
                if peer in broken:
                    broken.remove(peer)
                    raise StreamBroken("another connection of this pair stays")
                return await exchange(peer)

            reader.peers.exchange = breaking  # type: ignore[method-assign]
            await get(reader, record, tmp_path / "got", [])
            assert not broken
            assert (tmp_path / "got").read_bytes() == (tmp_path / "source").read_bytes()

    play(story)


def _slow() -> Link:
    return Link(latency_s=0.001, bandwidth_bytes_s=1e6)
