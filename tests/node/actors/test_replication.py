"""Replication between whole nodes: holders that say they keep and do not, receipts that come back, hints that get lost."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from node.actors.facts import FactsAccepted
from node.actors.holdings import Holdings, HostView
from node.actors.puts import PutOptions
from node.actors.replication import COPY_RETRY_S
from node.bus import SUBSCRIPTION_FACTS_MAX
from node.wiring import Node
from protocols.exchange import messages as m
from protocols.files.repair import SurplusDrop
from protocols.gossip.facts import FactKind
from protocols.types import HashId, OwnerKey, PeerId, SequenceRoot
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


def test_copy_that_was_weighed_once_and_kept_gets_its_receipt_again(tmp_path: Path) -> None:
    """Goal: a copy that was found to be surplus for a while is not left without a receipt for ever. Method: the machine of its drop is
    there and keeps; the receipt is withdrawn; the next look signs anew."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            source = tmp_path / "deed.bin"
            source.write_bytes(b"deed" * 50_000)
            put, _ = await node.files.put([source], PutOptions(ack="local"))
            facts = node.files.find(str(put["record"]))
            root = (await node.holdings.sequences_of(facts.key))[1].root
            node.replication._dropping[(facts.key, root)] = SurplusDrop(node.own.peer_id)
            await node.holdings.withdraw(facts.key, [root])
            assert SequenceRoot(root) not in node.replication.holders(facts)
            await trio.sleep(10)
            assert SequenceRoot(root) in node.replication.holders(facts)

    play(story)


def test_hints_that_were_lost_are_made_up_for_by_a_look_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a record is looked at soon after it was heard of, also when the hint was pushed out by others. Method: more hints at once than
    the subscription keeps, the record's first."""
    looks: list[set[object] | None] = []

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            await trio.sleep(30)
            look_once = node.replication._look_once

            async def noted(nursery: trio.Nursery, only: set[Any] | None = None) -> None:
                looks.append(only)
                await look_once(nursery, only)

            monkeypatch.setattr(node.replication, "_look_once", noted)
            first, other = (OwnerKey(b"o" * 32), HashId(b"1" * 32)), (OwnerKey(b"o" * 32), HashId(b"2" * 32))
            for key in (first, *[other] * SUBSCRIPTION_FACTS_MAX):
                node.replication._bus.publish(FactsAccepted((), frozenset({int(FactKind.PIN)}), None, frozenset({key})))
            await trio.sleep(3)
            assert any(only is None or first in only for only in looks)

    play(story)


def test_holder_that_says_yes_and_signs_nothing_is_not_sent_the_same_again_and_again(tmp_path: Path) -> None:
    """Goal: whoever lies costs us a bundle now and then, not all of our line. Method: the only other node answers every bundle with yes and
    no receipt; it is asked no more often than a refused copy is tried again."""

    async def story() -> None:
        async with scene() as stage:
            owner, liar = await stage.start("n0"), await stage.start("n1", issues=False)
            asked: list[float] = []

            class YesMan(HostView):
                def __init__(self, holdings: Holdings) -> None:
                    super().__init__(holdings)
                    self.bundle = self.say_yes  # type: ignore[method-assign,assignment]  # takes the honest one's place

                async def say_yes(self, peer: PeerId, message: m.Bundle) -> m.Bundled:
                    asked.append(trio.current_time())
                    return m.Bundled(message.request, ())

            liar.peers._exchange_host = YesMan(liar.holdings)
            await trio.sleep(5)
            source = tmp_path / "deed.bin"
            source.write_bytes(b"deed" * 5_000)
            await owner.files.put([source], PutOptions(ack="local"))
            await trio.sleep(10)
            asked.clear()
            await trio.sleep(60)
            assert 0 < len(asked) <= 2 * 60 / COPY_RETRY_S  # two sequences

    play(story)


async def has(node: Node, key: object, names: tuple[bytes, ...]) -> bool:
    """Whether a node has all of these chunks, whole."""
    return None not in await node.holdings.bodies(names)  # type: ignore[arg-type]  # chunk names
