"""Light nodes beside full ones: one chain, one seed. Checked throughout: what a light node calls final is what full ones call final."""

from __future__ import annotations

import random

import trio

from node.actors.chain import BlockFinal, ChainKeys
from node.actors.light import LightChain
from node.actors.light_talk import LightTalks
from node.actors.storage import StorageActor, StorageHandle
from node.bus import Bus
from node.clock import SimulatedClock
from node.entropy import SeededEntropy
from node.transport.memory import MemoryTransport
from protocols.crypto import sha256
from protocols.ledger.block import Block
from protocols.ledger.votes import Checkpoint
from protocols.types import BlockHash, PeerId
from storage.engine import Env
from storage.faulty import Faults, FaultyEngine
from storage.memory import MemoryEngine
from tests.protocols.ledger import chains

from .chain_world import DISK_BYTES, FENCE, ChainWorld, Connections
from .scheduler import chance


class LightNode:
    """One running light node of a seat."""

    def __init__(self, seat: LightSeat) -> None:
        world = seat.world
        self.seat = seat
        self.bus = Bus()
        self.storage = StorageActor(seat.engine, world.offload)
        self.handle = StorageHandle(self.storage, world.offload)
        keys = ChainKeys(chains.account_of(seat.name))
        self.chain = LightChain(world.chain_id, seat.anchor, seat.first, keys, self.handle, seat.clock, self.bus)
        self.transport = MemoryTransport(world.network, seat.peer, (f"/memory/{seat.peer.decode()}",))
        self.transport.set_preshared_keys((FENCE,))
        self.connections = Connections(self.transport, [other.peer for other in world.seats.values()])
        self.talks = LightTalks(seat.peer, self.chain, self.connections, seat.clock, seat.entropy, self.bus)

    async def run(self) -> None:
        with self.bus.subscribe(BlockFinal, capacity=4096, name="checker") as news:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.transport.run)
                nursery.start_soon(self.storage.run)
                nursery.start_soon(self._check, news)
                nursery.start_soon(self.chain.run)
                nursery.start_soon(self.connections.run, self.talks)
                nursery.start_soon(self.talks.run)

    async def _check(self, news: object) -> None:
        async for fact in news:  # type: ignore[attr-defined]  # a subscription
            self.seat.world.note_light_final(self.seat, fact.height, fact.hash)


class LightSeat:
    """What outlives a light node. Its name begins low, so that it dials everybody."""

    def __init__(self, world: LightWorld, name: str) -> None:
        self.world = world
        self.name = name
        self.peer = PeerId(f"peer-{name}".encode())
        self.anchor: Checkpoint | None = Checkpoint(0, BlockHash(world.genesis.hash))
        self.first: Block | None = None
        self.clock = SimulatedClock(chains.START_MS / 1000)
        self.entropy = SeededEntropy(sha256(b"entropy", name.encode(), str(world.seed).encode()))
        self.faults = Faults()
        self.engine = FaultyEngine(MemoryEngine(Env.LEDGER, DISK_BYTES), self.faults, chance(world.seed, f"disk {name}"))
        self.node: LightNode | None = None
        self._scope: trio.CancelScope | None = None

    @property
    def chain(self) -> LightChain:
        assert self.node is not None
        return self.node.chain

    async def start(self) -> None:
        assert self.node is None
        self.engine.restart()
        self.node = LightNode(self)
        self.world.nursery.start_soon(self._live, self.node)

    async def _live(self, node: LightNode) -> None:
        with trio.CancelScope() as self._scope:
            await node.run()

    async def kill(self) -> None:
        """Without warning: nothing more is written."""
        assert self._scope is not None
        self.engine.crashed = True
        self._scope.cancel()
        self.node = None
        await trio.sleep(0.001)


class LightWorld(ChainWorld):
    """A world of chain nodes, and light ones beside them."""

    lights: dict[str, LightSeat]

    def add_light(self, name: str = "L1") -> LightSeat:
        if not hasattr(self, "lights"):
            self.lights = {}
            self.claimed: dict[int, bytes] = {}
        self.lights[name] = LightSeat(self, name)
        return self.lights[name]

    def note_light_final(self, seat: LightSeat, height: int, name: bytes) -> None:
        """A light node may be the first to call a block final; nobody may call another one so, before or after."""
        self.trace.note("light final", seat=seat.name, height=height, name=name)
        self.note_final(seat, height, name)  # type: ignore[arg-type]  # of a seat the name alone is noted

    async def lights_agree(self, *, within_s: float = 60.0) -> None:
        """All light nodes stand at the final block of the full ones and wait for nothing."""

        def holds() -> bool:
            finals = {seat.chain.checkpoints()[1] for seat in self.live()}
            lights = [seat.chain for seat in self.lights.values() if seat.node is not None]
            return finals == {one.checkpoints()[1] for one in lights} and not any(len(one.pool) for one in lights)

        await self.until(holds, within_s=within_s, what="light nodes stand where full ones do")

    async def disturb_lights(self, seconds: float, *, rng: random.Random) -> None:
        """Light nodes are cut off, reset and killed, and submit what they can."""
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            await trio.sleep(rng.uniform(0.5, 4.0))
            light, full = rng.choice(list(self.lights.values())), rng.choice(list(self.seats.values()))
            match rng.randrange(6):
                case 0:
                    self.network.cut(light.peer, full.peer, one_way=rng.random() < 0.3)
                case 1:
                    self.network.reset(light.peer, full.peer)
                case 2:
                    if light.node is not None:
                        await light.kill()
                case 3:
                    if light.node is None:
                        await light.start()
                case 4:
                    self.network.heal_all()
                case _:
                    if light.node is not None and light.chain.facts is not None:
                        await light.chain.submit(self.folder())
        self.network.heal_all()
        for seat in self.lights.values():
            if seat.node is None:
                await seat.start()
