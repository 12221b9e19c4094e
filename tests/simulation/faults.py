"""What goes wrong in a simulated world, and when: drawn from the seed. Every fault ends by itself or with ``Disturbance.cease``."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING

import trio

from node.actors.exchange import Chunks
from node.actors.holdings import HostView
from node.transport.memory import Link
from protocols.exchange import messages as m
from protocols.types import ChunkName, PeerId
from storage.engine import Env
from storage.tables import BODIES

from .scheduler import chance

if TYPE_CHECKING:
    from node.wiring import Node

    from .world import Machine, World

FAULTS = (
    "cut",
    "cut_one_way",
    "partition",
    "reset",
    "freeze",
    "slow_reader",
    "slow_link",
    "kill",
    "crash_at_write",
    "stop",
    "fill",
    "rot",
    "step_clock",
)
"""All kinds there are; each is a method of Disturbance."""

LENGTH_S_MAX = 40.0
# One may be dropped as surplus the moment after another rots; what is left must be enough for everybody.
WHOLE_COPIES_LEFT_MIN = 2


def _changed(body: bytes) -> bytes:
    return bytes((body[0] ^ 1,)) + body[1:]


class LyingHost(HostView):
    """Serves the exchange and lies: half of what comes is changed before it is kept, half of what goes before it is sent.
    Its receipts say that all is well."""

    def __init__(self, honest: HostView, mind: random.Random) -> None:
        self.__dict__.update(honest.__dict__)
        self._honest_store = honest.store
        self._honest_load = honest.load
        self._mind = mind
        self.store = self._store_something
        self.load = self._load_something

    async def _store_something(self, peer: PeerId, place: m.Place, index: int, name: bytes, data: bytes) -> None:
        await self._honest_store(peer, place, index, name, _changed(data) if self._mind.random() < 0.5 else data)

    async def _load_something(self, root: bytes, indexes: tuple[int, ...]) -> Chunks:
        loaded = await self._honest_load(root, indexes)
        return tuple((index, _changed(body) if body is not None and self._mind.random() < 0.5 else body) for index, body in loaded)


def lie_when_sending(node: Node, mind: random.Random) -> None:
    """Half of the chunks with which this node repairs the copies of others are changed."""
    honest = node.holdings.bodies

    async def bodies(names: Sequence[ChunkName]) -> list[bytes | None]:
        return [_changed(body) if body is not None and mind.random() < 0.5 else body for body in await honest(names)]

    node.holdings.bodies = bodies  # type: ignore[method-assign]


class Disturbance:
    """Faults one after the other, several at a time."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.done: Counter[str] = Counter()
        self.full_ever = 0
        """Machines that were ever told that their disk is full."""
        self._mind = chance(world.seed, "faults")
        self._kinds: tuple[Callable[[], Awaitable[None]], ...] = tuple(getattr(self, f"_{name}") for name in world.options.faults)

    def _machine(self) -> Machine:
        return self._mind.choice(self.world.machines)

    def _two(self) -> tuple[Machine, Machine]:
        a, b = self._mind.sample(self.world.machines, 2)
        return a, b

    def _length_s(self) -> float:
        return self._mind.uniform(0.5, LENGTH_S_MAX)

    def _note(self, fault: str, **facts: object) -> None:
        self.done[fault] += 1
        self.world.trace.note(fault, **facts)

    async def run(self) -> None:
        """Until cancelled."""
        if not self._kinds:
            return
        async with trio.open_nursery() as nursery:
            while True:
                await trio.sleep(self._mind.expovariate(1 / self.world.options.pause_s))
                nursery.start_soon(self._mind.choice(self._kinds))

    async def cease(self) -> None:
        """No fault any more; everybody honest is switched on, a liar leaves for good."""
        world = self.world
        world.network.heal_all()
        link = Link(world.options.latency_s, world.options.jitter_s, world.options.bandwidth_bytes_s)
        for a in world.machines:
            for b in world.machines:
                if a.number < b.number:
                    world.network.set_link(a.peer, b.peer, link)
        for machine in world.machines:
            for engine in machine.engines.values():
                engine.faults.full = False
                engine.faults.crash_after_writes = None
            if machine.lies:
                machine.switch_off()
            else:
                machine.switch_on()
        await trio.lowlevel.checkpoint()

    # --- the network ------------------------------------------------------------------------------------------------

    async def _cut(self) -> None:
        a, b = self._two()
        self._note("cut", a=a.name, b=b.name)
        self.world.network.cut(a.peer, b.peer)
        await trio.sleep(self._length_s())
        self.world.network.heal(a.peer, b.peer)

    async def _cut_one_way(self) -> None:
        a, b = self._two()
        self._note("one-way cut", a=a.name, b=b.name)
        self.world.network.cut(a.peer, b.peer, one_way=True)
        await trio.sleep(self._length_s())
        self.world.network.heal(a.peer, b.peer)

    async def _partition(self) -> None:
        machines = list(self.world.machines)
        self._mind.shuffle(machines)
        at = self._mind.randrange(1, len(machines))
        left, right = machines[:at], machines[at:]
        self._note("partition", left=[one.name for one in left], right=[one.name for one in right])
        self.world.network.partition([one.peer for one in left], [one.peer for one in right])
        await trio.sleep(self._length_s())
        for a in left:
            for b in right:
                self.world.network.heal(a.peer, b.peer)

    async def _reset(self) -> None:
        a, b = self._two()
        self._note("reset", a=a.name, b=b.name)
        self.world.network.reset(a.peer, b.peer)
        await trio.lowlevel.checkpoint()

    async def _freeze(self) -> None:
        machine = self._machine()
        self._note("freeze", at=machine.name)
        self.world.network.freeze(machine.peer)
        await trio.sleep(self._length_s())
        self.world.network.thaw(machine.peer)

    async def _slow_reader(self) -> None:
        machine = self._machine()
        self._note("slow reader", at=machine.name)
        self.world.network.set_slow_reader(machine.peer, self._mind.uniform(0.05, 1.0))
        await trio.sleep(self._length_s())
        self.world.network.set_slow_reader(machine.peer, 0.0)

    async def _slow_link(self) -> None:
        a, b = self._two()
        self._note("slow link", a=a.name, b=b.name)
        before = self.world.network.link(a.peer, b.peer)
        slow = Link(self._mind.uniform(0.2, 2.0), self._mind.uniform(0.0, 1.0), self._mind.choice((1e4, 1e5, 1e6)))
        self.world.network.set_link(a.peer, b.peer, slow)
        await trio.sleep(self._length_s())
        self.world.network.set_link(a.peer, b.peer, before)

    # --- machines ---------------------------------------------------------------------------------------------------

    async def _kill(self) -> None:
        machine = self._machine()
        if machine.node is None:
            return
        self._note("kill", at=machine.name)
        machine.kill()
        await self._back(machine)

    async def _crash_at_write(self) -> None:
        machine = self._machine()
        if machine.node is None:
            return
        env = self._mind.choice(tuple(Env))
        writes = self._mind.randrange(1, 12)
        self._note("crash at write", at=machine.name, env=env, writes=writes)
        machine.engines[env].faults.crash_after_writes = writes
        await self._back(machine)

    async def _stop(self) -> None:
        machine = self._machine()
        if machine.node is None:
            return
        self._note("stop", at=machine.name)
        machine.switch_off()
        await self._back(machine)

    async def _back(self, machine: Machine) -> None:
        """Somebody switches it on again."""
        length_s = self._length_s()
        await machine.wait_down()
        await trio.sleep(length_s)
        machine.switch_on()

    async def _fill(self) -> None:
        machine = self._machine()
        env = self._mind.choice((Env.CHUNKS, Env.CHUNKS, Env.LEDGER))
        self._note("disk full", at=machine.name, env=env)
        self.full_ever += 1
        machine.engines[env].faults.full = True
        await trio.sleep(self._length_s())
        machine.engines[env].faults.full = False

    async def _rot(self) -> None:
        """One bit of one chunk changes, where WHOLE_COPIES_LEFT_MIN other honest disks have the chunk whole."""
        machine = self._machine()
        with machine.disk(Env.CHUNKS).snapshot() as snapshot:
            names = [ChunkName(name) for name, _ in snapshot.scan(BODIES)]
        self._mind.shuffle(names)
        for name in names:
            others = sum(self._has_whole(other, name) for other in self.world.machines if other is not machine and not other.lies)
            if others >= WHOLE_COPIES_LEFT_MIN:
                self._note("rot", at=machine.name, chunk=name)
                machine.rotten.add(name)
                machine.is_rotting = True
                machine.engines[Env.CHUNKS].flip_bit(BODIES, name)
                machine.is_rotting = False
                break
        await trio.lowlevel.checkpoint()

    @staticmethod
    def _has_whole(machine: Machine, name: ChunkName) -> bool:
        with machine.disk(Env.CHUNKS).snapshot() as snapshot:
            return name not in machine.rotten and snapshot.has(BODIES, name)

    async def _step_clock(self) -> None:
        machine = self._machine()
        seconds = self._mind.uniform(-60.0, 60.0)
        self._note("clock set", at=machine.name, seconds=seconds)
        machine.clock.step(seconds)
        await trio.sleep(self._length_s())
        machine.clock.step(-seconds)
