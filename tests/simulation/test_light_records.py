"""Records of a light node among whole nodes: published, final, proven; across kills, also beside a full node of the same member."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
import trio

from node.actors import anchoring
from node.wiring import Node
from protocols.errors import LadingError, Reason
from protocols.limits import FOLDER_PAUSE_S
from protocols.types import HashId, RecordKey
from storage import anchors
from storage import light as kept
from storage.engine import Env
from storage.tables import CHAIN_BLOCKS

from .anchor_world import FINAL_S_MAX, AnchorWorld
from .scheduler import chance, run_world, seeds
from .test_anchors import FOUR, WORLD_S_MAX
from .trace import Trace
from .world import Machine, tell

LIGHT = 1
"""Which machine is light; the founder's is 0, the last two belong to one member."""


def life(seed: int, story: Callable[[AnchorWorld], Awaitable[None]], light: int = LIGHT) -> str:
    """The trace's hash of a world with this story."""

    class Told(AnchorWorld):
        async def _tell(self) -> None:
            machine = self.machines[light]
            machine.ledger = "light"
            await machine.wait_up()
            machine.kill()
            await machine.wait_down()
            machine.switch_on()
            await super()._tell()

    kind = type("Story", (Told,), {"story": story})

    async def world(number: int, trace: Trace) -> None:
        await tell(number, trace, FOUR, kind)

    return run_world(world, seed, virtual_seconds_max=WORLD_S_MAX)[1]


async def ask(machine: Machine, key: RecordKey) -> dict[str, object]:
    """What the machine's node says of a record; empty while it cannot be asked."""

    async def run(node: Node) -> dict[str, object]:
        assert node.anchoring is not None
        return await node.anchoring.report(key)

    return await machine.call(run, timeout_s=120.0) or {}


async def until_final(world: AnchorWorld, machine: Machine, key: RecordKey) -> dict[str, object]:
    end = trio.current_time() + FINAL_S_MAX
    while (said := await ask(machine, key)).get("state") != "final":
        assert trio.current_time() < end, said
        await trio.sleep(1)
    return said


def test_record_of_a_light_node_goes_its_way_and_others_records_are_proven_to_it() -> None:
    """Goal: the same states as on a full node. Method: a put on the light machine, seen going up, never back; one on a full machine,
    asked for at the light one; places, folders of both, what is not kept; no block on the light disk."""

    async def story(world: AnchorWorld) -> None:
        light, full = world.machines[LIGHT], world.machines[0]
        mine = world.key_of(light, await world.put(light, ack="quorum"))
        order, seen = ["local", "pooled", "in_block", "final"], ["local"]
        while seen[-1] != "final":
            await trio.sleep(0.1)
            state = str((await ask(light, mine))["state"])
            assert order.index(state) >= order.index(seen[-1])
            seen.append(state)
        assert "in_block" in seen
        theirs = world.key_of(full, await world.put(full, ack="quorum"))
        said = await until_final(world, light, theirs)
        assert (said["status"], said["proof"]) == ("active", "record and place")
        height = (await ask(full, theirs))["height"]
        assert said["height"] == height
        await trio.sleep(3 * FOLDER_PAUSE_S)
        node = light.node
        assert node is not None
        assert node.anchoring is not None
        assert node.light is not None
        for owner, key in ((light, mine), (full, theirs)):
            folder = await node.anchoring.folder(owner.own.owner)
            assert folder["verified"]
            assert [one["record"] for one in folder["records"]] == [key[1].hex()]  # type: ignore[attr-defined]
        assert [row["state"] for row in await node.anchoring.standings([mine, theirs])] == ["final", "final"]
        assert "not_kept" in await node.anchoring.audit()
        assert not node.light.alerts
        assert not node.anchoring.alerts
        assert await node.anchoring.newest(mine) == ()
        tx = bytes.fromhex(str((await ask(light, mine))["tx"]))
        with light.disk(Env.LEDGER).snapshot() as snapshot:
            assert snapshot.count(CHAIN_BLOCKS) == 0
            assert kept.inclusion(snapshot, tx) is not None

    life(1, story)


def test_light_node_files_its_records_without_being_asked_and_not_again_after_a_kill(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: filing looks at what is proven, not at what somebody happened to ask for. Method: two puts that nobody asks the light node
    about, a kill between, and neither folder nor receipts, which would ask; the log of each says that it was anchored, the chain has each
    once."""
    for pause in ("FOLDER_PAUSE_S", "RECEIPTS_PAUSE_S"):
        monkeypatch.setattr(anchoring, pause, 1e6)

    async def story(world: AnchorWorld) -> None:
        light = world.machines[LIGHT]
        keys = [world.key_of(light, await world.put(light, ack="quorum"))]
        await until_final(world, world.machines[0], keys[0])
        light.kill()
        await light.wait_down()
        light.switch_on()
        await light.wait_up()
        await trio.sleep(30)
        keys.append(world.key_of(light, await world.put(light, ack="quorum")))
        await until_final(world, world.machines[0], keys[1])
        await trio.sleep(30)
        with light.disk(Env.LEDGER).snapshot() as snapshot:
            logs = [[step.step for step in anchors.journal(snapshot, key[1])] for key in keys]
        assert all(log[-2:] == ["anchored", "confirmed"] for log in logs), logs
        assert {key: world.anchors()[key] for key in keys} == dict.fromkeys(keys, 1)

    life(5, story)


def test_record_that_nobody_anchored_is_proven_to_be_absent() -> None:
    """Goal: "not there" is shown, not assumed. Method: a record that does not exist; then the light node alone in the world."""

    async def story(world: AnchorWorld) -> None:
        light = world.machines[LIGHT]
        strange = (light.own.owner, HashId(bytes(32)))
        assert (await ask(light, strange))["state"] == "local"
        assert "unproven" not in await ask(light, strange)
        world.network.partition([light.peer], [one.peer for one in world.machines if one is not light])
        await trio.sleep(60)
        node = light.node
        assert node is not None
        assert node.light is not None
        with pytest.raises(LadingError) as error:
            await node.light.bring([("record", b"another")])
        assert error.value.reason is Reason.UNREACHABLE

    life(2, story)


@pytest.mark.parametrize(("seed", "light"), [(seed, 1 if seed % 2 else 3) for seed in seeds((3, 4))])
def test_everything_published_is_final_once_with_a_light_node_among_the_others(seed: int, light: int) -> None:
    """Goal: kills and partitions lose no record of a light node and anchor none twice. Method: two minutes of puts and faults; in odd
    seeds the light machine is a member's only one, in even ones a full machine belongs to the same member."""

    async def story(world: AnchorWorld) -> None:
        await world.disturb(60, chance(seed, "light anchors"))
        for key in world.published:
            for machine in (world.machines[0], world.machines[light]):
                await until_final(world, machine, key)
        found = world.anchors()
        assert {key: found[key] for key in world.published} == dict.fromkeys(world.published, 1)

    life(seed, story, light)
