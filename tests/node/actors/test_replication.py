"""Replication between whole nodes: holders that say they keep and do not."""

from __future__ import annotations

from pathlib import Path

import pytest
import trio

from node.actors.puts import PutOptions
from node.wiring import Node
from protocols.types import SequenceRoot
from storage.engine import Delete, Put
from storage.tables import BODIES
from tests.node.hostile.scene import play, scene


@pytest.mark.parametrize("what", ["gone", "changed"])
def test_holder_that_acknowledged_and_does_not_keep_is_found_by_audits_and_replaced(tmp_path: Path, what: str) -> None:
    """Goal: a receipt alone is not believed for ever. Method: four nodes, two copies; the other holder passes an audit; then its bodies
    vanish, or change, below it and it says nothing; the next audit finds it, an alert names it, and a node that has the bytes takes its
    place."""

    async def story() -> None:
        async with scene() as stage:
            nodes = [await stage.start(f"n{number}", issues=number == 0, copies_all=False) for number in range(4)]
            owner = nodes[0]
            await trio.sleep(5)
            source = tmp_path / "deed.bin"
            source.write_bytes(b"deed" * 50_000)
            put, _ = await owner.files.put([source], PutOptions(ack="full", replicas=2))
            facts = owner.files.find(str(put["record"]))
            (data,) = [held for held in await owner.holdings.sequences_of(facts.key) if held.index == 1]
            root = SequenceRoot(data.root)
            liar = next(node for node in nodes[1:] if node.own.peer_id in owner.replication.holders(facts)[root])
            assert await owner.replication.audit(facts.key, root, liar.own.peer_id)
            for name in data.names:
                liar.world.chunks.write([Delete(BODIES, name) if what == "gone" else Put(BODIES, name, bytes(1024))])
            assert not await owner.replication.audit(facts.key, root, liar.own.peer_id)
            assert liar.own.identity.host in " ".join(owner.replication.alerts.values())
            await trio.sleep(20)
            assert any([await has(node, facts.key, data.names) for node in nodes[1:] if node is not liar])

    play(story)


async def has(node: Node, key: object, names: tuple[bytes, ...]) -> bool:
    """Whether a node has all of these chunks, whole."""
    return None not in await node.holdings.bodies(names)  # type: ignore[arg-type]  # chunk names
