"""The dialler: who was away is found again soon."""

from __future__ import annotations

import pytest
import trio

from node.actors.peers import PeerConnected
from tests.node.hostile.scene import play, scene


@pytest.mark.parametrize("seed", range(4))
def test_network_that_heals_is_whole_again_soon_after_its_first_pair(seed: int) -> None:
    """Goal: a switch that comes back costs seconds. Method: three nodes are cut from two for so long that every pause of a dialler has its
    full length; joined again, all six pairs are there soon after the first one."""

    async def story() -> None:
        async with scene(seed) as stage:
            nodes = [await stage.start(f"n{number}", issues=number == 0) for number in range(5)]
            await trio.sleep(10)
            assert all(len(node.peers.sessions) == 4 for node in nodes)
            ids = [node.own.peer_id for node in nodes]
            stage.network.partition(ids[:3], ids[3:])
            await trio.sleep(200)
            assert [len(node.peers.sessions) for node in nodes] == [2, 2, 2, 1, 1]
            connected_at: list[float] = []

            async def hear(number: int) -> None:
                with nodes[number].bus.subscribe(PeerConnected, name="test") as news:
                    async for _ in news:
                        connected_at.append(trio.current_time())

            async with trio.open_nursery() as nursery:
                for number in range(3):
                    nursery.start_soon(hear, number)
                await trio.sleep(0.1)
                stage.network.heal_all()
                healed_at = trio.current_time()
                await trio.sleep(60)
                nursery.cancel_scope.cancel()
            assert len(connected_at) == 6
            assert connected_at[0] - healed_at < 23
            assert connected_at[-1] - connected_at[0] < 3

    play(story)
