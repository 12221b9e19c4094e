"""The simulated world: whole nodes in one process over a memory network, disks that fail, one virtual clock, one seed.

A machine is what outlives its node: keys, disks, a clock and an address. Nodes come and go on it. The story of a world: everybody
starts; people put, get, share, delete while faults strike; the faults cease, and the machines must agree within AGREE_S_MAX; then
all are switched off and on again, and must agree once more.
"""

from __future__ import annotations

import functools
import logging
import random
import tempfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import trio

import node.actors.puts as puts_actor
from node import home
from node.actor import Actor, Mailbox
from node.actors.chain import ChainSetup
from node.clock import SimulatedClock
from node.config import Config
from node.entropy import SeededEntropy
from node.offload import SimulatedOffload
from node.own import IssuerKeys, MemberKeys, OwnKeys
from node.supervisor import run_caught
from node.transport.memory import Link, MemoryNetwork, MemoryTransport
from node.wiring import Node
from node.wiring import World as NodeWorld
from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.errors import LadingError, LocalError
from protocols.files.builder import RecordBuilder
from protocols.files.keys import OwnerSecrets
from protocols.identity.certificates import fingerprint, verify_chain
from protocols.identity.networks import Network
from protocols.identity.peers import peer_id_text
from protocols.types import DomainId, PeerId
from storage.engine import Env, Put, Write
from storage.faulty import Crashed, FaultyEngine
from storage.faulty import Faults as DiskFaults
from storage.memory import MemoryEngine
from storage.tables import BODIES

from .checkers import Checkers, Violation
from .faults import FAULTS, Disturbance, LyingHost, lie_when_sending
from .scheduler import chance, run_world
from .trace import Trace
from .workload import Workload

T = TypeVar("T")

EPOCH = 1_800_000_000.0
DISK_BYTES = 256 * 1024 * 1024
LOOK_S = 2.0
START_S_MAX = 60.0
# Repair grace, one scrub period, the longest pause between two dials, a time-out of each kind, and some of it twice.
AGREE_S_MAX = 900.0
WORLD_S_MAX = 3 * 3600.0
FOUNDER = 0


@dataclass(frozen=True, slots=True)
class Options:
    """What a world is like; drawn from the seed. liar: the last machine lies about what it holds, and leaves at the end.
    faults: kinds that strike, a few only, since many at once would hide what each does; pause_s: between two, on average."""

    machines: int
    copies_all: bool
    chunks_per_sequence: int
    repair_grace_s: float
    scrub_period_s: float
    trash_window_s: float
    latency_s: float
    jitter_s: float
    bandwidth_bytes_s: float | None
    disk_delay_s: float
    clock_error_s: float
    story_s: float
    wait_connected: bool
    liar: bool
    faults: tuple[str, ...]
    pause_s: float


def draw_options(seed: int) -> Options:
    """The options of a seed."""
    mind = chance(seed, "options")
    machines = mind.choice((3, 3, 3, 3, 4, 4, 4, 5, 5, 6))
    return Options(
        machines=machines,
        copies_all=mind.random() < 0.5,
        chunks_per_sequence=mind.choice((1, 2, 3)),
        repair_grace_s=mind.choice((4.0, 10.0, 30.0)),
        scrub_period_s=mind.choice((60.0, 120.0)),
        trash_window_s=mind.choice((5.0, 60.0, 3600.0)),
        latency_s=mind.choice((0.0005, 0.01, 0.1)),
        jitter_s=mind.choice((0.0, 0.005, 0.05)),
        bandwidth_bytes_s=mind.choice((None, None, 2e6, 20e6)),
        disk_delay_s=mind.choice((0.0005, 0.005, 0.05)),
        clock_error_s=mind.choice((0.0, 2.0, 60.0)),
        story_s=mind.uniform(90.0, 180.0) / machines,  # work grows with the square of machines
        wait_connected=mind.random() < 0.6,
        liar=machines > 3 and mind.random() < 0.2,
        faults=tuple(mind.sample(FAULTS, mind.randrange(0, 6))),
        pause_s=mind.choice((4.0, 12.0)),
    )


class RecordingEngine(MemoryEngine):
    """The reference engine, which tells the checkers of every batch that is on the disk."""

    def __init__(self, env: Env, told: Callable[[Env, Sequence[Write]], None]) -> None:
        super().__init__(env, DISK_BYTES)
        self._told = told

    def write(self, batch: Sequence[Write]) -> None:
        super().write(batch)
        self._told(self.env, batch)


class CrashingEngine(FaultyEngine):
    """A faulty engine whose crash is at once the whole machine's."""

    def __init__(self, inner: MemoryEngine, chance: random.Random, crash: Callable[[], None]) -> None:
        super().__init__(inner, DiskFaults(), chance)
        self._crash = crash

    def write(self, batch: Sequence[Write]) -> None:
        try:
            super().write(batch)
        except Crashed:
            self._crash()
            raise


class Machine:
    """Keys, disks, clock and address: what stays when a node stops. ``live`` runs one node after another on it."""

    def __init__(self, world: World, number: int, own: OwnKeys, clock: SimulatedClock, entropy: SeededEntropy, *, lies: bool) -> None:
        self.world = world
        self.number = number
        self.name = f"n{number}"
        self.own = own
        self.clock = clock
        self.lies = lies
        self.address = f"/memory/{self.name}"
        self.node: Node | None = None
        self.chain: ChainSetup | None = None
        """The chain that its nodes follow, if the world has one."""
        self.ledger = "full"
        self.lives = 0
        self.facts_ever: set[bytes] = set()
        """Ids of all facts that were ever committed here."""
        self.roots_ever: set[bytes] = set()
        """Roots of all sequences that were ever offered to or held by this machine, as committed."""
        self.rotten: set[bytes] = set()
        """Names of chunks that a fault has changed on this disk."""
        self.is_rotting = False
        self._entropy = entropy
        self._wanted_up = False
        self._changed = trio.Event()
        self._ended = trio.Event()
        self._is_killed = False
        self._calls: dict[trio.CancelScope, None] = {}
        told = functools.partial(world.committed, self)
        self._disks = {env: RecordingEngine(env, told) for env in Env}
        self.engines = {
            env: CrashingEngine(disk, chance(world.seed, f"disk {number} {env.value}"), self.kill) for env, disk in self._disks.items()
        }

    @property
    def peer(self) -> PeerId:
        return self.own.peer_id

    @property
    def is_up(self) -> bool:
        """A node runs here and answers."""
        return self.node is not None and self.node.ready.is_set()

    def disk(self, env: Env) -> MemoryEngine:
        """What is really there, whatever the faults say."""
        return self._disks[env]

    def mailboxes(self) -> tuple[Mailbox[object], ...]:
        """Those of the actors of the node that runs now."""
        node = self.node
        if node is None:
            return ()
        actors: list[Actor[object]] = [node.holdings, node._facts_actor, *node._storage.values()]  # type: ignore[list-item]
        return tuple(actor.mailbox for actor in actors)

    # --- on and off -------------------------------------------------------------------------------------------------

    def switch_on(self) -> None:
        """A node starts here, with what the disks hold."""
        self._wanted_up = True
        self._change()

    def switch_off(self) -> None:
        """The node is asked to stop, in order."""
        self._wanted_up = False
        self._cancel_calls()
        if self.node is not None:
            self.node.stop("switched off")
        self._change()

    def kill(self) -> None:
        """Power is cut: nothing is written or sent any more."""
        if self._is_killed:
            return
        self.world.trace.note("killed", at=self.name)
        self._wanted_up = False
        self._is_killed = True
        for engine in self.engines.values():
            engine.crashed = True
        self.world.network.freeze(self.peer)
        self._cancel_calls()
        if self.node is not None:
            self.node.stop("killed")
        self._change()

    async def wait_down(self) -> None:
        """Until no node runs here."""
        while self.node is not None:
            await self._ended.wait()

    async def wait_up(self) -> Node:
        """The node that runs here, once it answers."""
        while True:
            node = self.node
            if node is None:
                await self._changed.wait()
            else:
                await node.ready.wait()
                if self.node is node:
                    return node

    async def call(self, run: Callable[[Node], Awaitable[T]], *, timeout_s: float) -> T | None:
        """What a person asks of the node here. None: it was cut short, by its end or the patience of the person.

        Raises LadingError with the node's own answer.
        """
        node = self.node
        if node is None:
            return None
        result: list[T] = []

        async def ask() -> None:
            result.append(await run(node))

        with trio.move_on_after(timeout_s) as scope:
            self._calls[scope] = None
            try:
                errors = await run_caught(ask)
            finally:
                self._calls.pop(scope, None)
            for error in errors:
                if isinstance(error, LocalError) or not isinstance(error, LadingError):
                    raise error
            if errors:
                raise errors[0]
        return result[0] if result else None

    def _cancel_calls(self) -> None:
        for scope in tuple(self._calls):
            scope.cancel()

    def _change(self) -> None:
        changed, self._changed = self._changed, trio.Event()
        changed.set()

    async def live(self) -> None:
        """One life after the other, as it is switched on, off or killed."""
        while True:
            while not self._wanted_up:
                await self._changed.wait()
            await self._live_once()
            if self._wanted_up and not self._is_killed:
                self.world.checkers.violate(f"{self.name}: the node stopped by itself")
                self._wanted_up = False

    async def _live_once(self) -> None:
        self.lives += 1
        self._ended = trio.Event()
        world = self.world
        self.world.trace.note("start", at=self.name, life=self.lives)
        node = self._build()
        if self.lies:
            node.peers._exchange_host = LyingHost(node.holdings.as_host(), world.liar_mind)
            lie_when_sending(node, world.liar_mind)
        self.node = node
        self._change()

        errors = await run_caught(node.run)
        if errors and not self._is_killed:
            world.checkers.violate(f"{self.name}: the node fell: {errors[0].__cause__ or errors[0]!r}")
        self.node = None
        if self._is_killed:
            self._is_killed = False
            self._wanted_up = False
            world.network.thaw(self.peer)
            for engine in self.engines.values():
                engine.faults.crash_after_writes = None
                engine.restart()
        world.trace.note("stop", at=self.name, life=self.lives)
        self._cancel_calls()
        self._ended.set()
        self._change()

    def _build(self) -> Node:
        world, options = self.world, self.world.options
        entropy = self._entropy.fork(f"life {self.lives}")
        founder = world.founder_address
        config = Config(
            static_peers=(founder,) if self.number != FOUNDER else (),
            store_budget_bytes=DISK_BYTES,
            store_reserve_bytes=DISK_BYTES // 64,
            member_quota_bytes=DISK_BYTES,
            copies_all=options.copies_all,
            repair_grace_s=options.repair_grace_s,
            scrub_period_s=options.scrub_period_s,
            trash_window_s=options.trash_window_s,
            mdns=False,
            ledger=self.ledger,
        )
        disk_mind = chance(world.seed, f"offload {self.number} {self.lives}")
        parts = NodeWorld(
            transport=MemoryTransport(world.network, self.peer, (self.address,)),
            ledger=self.engines[Env.LEDGER],
            chunks=self.engines[Env.CHUNKS],
            clock=self.clock,
            entropy=entropy,
            offload=SimulatedOffload(lambda: disk_mind.random() * options.disk_delay_s),
        )
        return Node(self.own, config, parts, home.first_facts(self.own), self.chain)


class _Listener(logging.Handler):
    """Hears what nodes log of errors that are not in anybody's plan."""

    def __init__(self, told: Callable[[str], None]) -> None:
        super().__init__(logging.INFO)
        self._told = told

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        errors: list[object] = [item for item in arguments if isinstance(item, BaseException)]
        if record.exc_info is not None:
            errors.append(record.exc_info[1])
        for error in errors:
            if isinstance(error, LocalError) or not isinstance(error, LadingError | OSError | trio.Cancelled):
                self._told(f"unplanned error in {record.name}: {record.getMessage()}: {error!r}")


class World:
    """See the module."""

    def __init__(self, seed: int, trace: Trace, folder: Path, options: Options) -> None:
        self.seed = seed
        self.trace = trace
        self.folder = folder
        self.options = options
        self.names_ever: set[bytes] = set()
        """Names of all chunks that were ever committed anywhere, as bytes that hash to them."""
        link = Link(latency_s=options.latency_s, jitter_s=options.jitter_s, bandwidth_bytes_s=options.bandwidth_bytes_s)
        self.network = MemoryNetwork(chance(seed, "network"), link=link, tap=self._tap)
        self.liar_mind = chance(seed, "liar")
        self.machines: list[Machine] = []
        entropy = SeededEntropy(f"world {seed}".encode())
        marker = b"plain-" + entropy.fork("marker").token(9).hex().encode()
        self.checkers = Checkers(self, marker)
        self._found(entropy, chance(seed, "clocks").uniform)
        self.by_peer = {machine.peer: machine for machine in self.machines}
        self.workload = Workload(self)
        self.disturbance = Disturbance(self)

    @property
    def founder_address(self) -> str:
        founder = self.machines[FOUNDER]
        return f"{founder.address}/p2p/{peer_id_text(founder.peer)}"

    def _found(self, entropy: SeededEntropy, uniform: Callable[[float, float], float]) -> None:
        """One domain, one member with one node per machine."""
        now = int(EPOCH)
        founding = home.found_domain("simulated", entropy.fork("domain"), now)
        roots = {fingerprint(root): root for root in founding.network.roots}
        for number in range(self.options.machines):
            self._settle(number, founding, roots, entropy, uniform, issues=number == FOUNDER)

    def _settle(
        self,
        number: int,
        founding: home.Founding,
        roots: Mapping[DomainId, bytes],
        entropy: SeededEntropy,
        uniform: Callable[[float, float], float],
        *,
        issues: bool,
    ) -> None:
        """The next machine, of a member of its own. roots: as in OwnKeys; issues: it has the issuing key."""
        now = int(EPOCH)
        keys = entropy.fork(f"keys {number}")
        member = self._member(number, founding, keys)
        node = home.certify_node(member, f"n{number}", keys, now)
        identity = verify_chain(node.chain, roots, now=now, revocations=None)
        issuer = founding.issuer
        own = OwnKeys(
            network=Network(format=1, suite=1, id=founding.network.id, name=founding.network.name),
            domain_id=identity.domain_id,
            roots=roots,
            node=SigningKey(node.seed),
            node_chain=node.chain,
            identity=identity,
            member=MemberKeys(SigningKey(member.seed), HpkePrivateKey(member.hpke_seed), OwnerSecrets(member.root_secret), member.chain),
            issuer=IssuerKeys(SigningKey(issuer.seed), HpkePrivateKey(issuer.hpke_seed), issuer.chain) if issues else None,
            fences=founding.network.fences,
        )
        error_s = self.options.clock_error_s
        clock = SimulatedClock(EPOCH, uniform(-error_s, error_s))
        lies = self.options.liar and number == self.options.machines - 1
        self.machines.append(Machine(self, number, own, clock, entropy.fork(f"machine {number}"), lies=lies))

    def _member(self, number: int, founding: home.Founding, keys: SeededEntropy) -> home.MemberKey:
        """Whose machine this is."""
        return home.certify_member(founding, f"m{number}", keys, int(EPOCH), nodes_max=4, weight_max=400)

    # --- what checkers hear -----------------------------------------------------------------------------------------

    def committed(self, machine: Machine, env: Env, batch: Sequence[Write]) -> None:
        """A batch is on a disk."""
        if not machine.is_rotting and not machine.lies:
            self.names_ever.update(write.key for write in batch if isinstance(write, Put) and write.table is BODIES)
        self.trace.note("commit", at=machine.name, env=env, rows=len(batch))
        self.checkers.committed(machine, env, batch)

    def _tap(self, source: PeerId, target: PeerId, protocol: str, frame: bytes) -> None:
        self.checkers.sent(source, target, protocol, frame)

    # --- the story --------------------------------------------------------------------------------------------------

    async def live(self) -> None:
        """The whole story. Raises Violation."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._watch)
            for machine in self.machines:
                nursery.start_soon(machine.live)
                machine.switch_on()
            await self._tell()
            nursery.cancel_scope.cancel()

    async def _watch(self) -> None:
        """Looks from time to time; the first violation ends the world."""
        while not self.checkers.noticed.is_set():
            with trio.move_on_after(LOOK_S):
                await self.checkers.noticed.wait()
            self.checkers.look()
        raise Violation(self.checkers.first)

    async def _tell(self) -> None:
        options = self.options
        for machine in self.machines:
            await machine.wait_up()
        if options.wait_connected:
            await self._wait(self._unconnected, START_S_MAX, "the machines do not find each other")
        self.trace.note("story")
        async with trio.open_nursery() as nursery:
            with trio.move_on_after(options.story_s):
                async with trio.open_nursery() as story:
                    self.workload.start(story)
                    story.start_soon(self.disturbance.run)
            nursery.cancel_scope.cancel()
        self.trace.note("faults cease")
        await self.disturbance.cease()
        await self._wait_agreement("after the faults")
        await self.workload.read_everything()
        for machine in self.machines:
            machine.switch_off()
        for machine in self.machines:
            await machine.wait_down()
        self.trace.note("cold restart")
        for machine in self.machines:
            if not machine.lies:
                machine.switch_on()
        await self._wait_agreement("after a cold restart")
        await self.workload.read_everything()
        self.checkers.look()
        self.checkers.check_bodies()
        if self.checkers.first:
            raise Violation(self.checkers.first)

    async def _wait_agreement(self, when: str) -> None:
        began = trio.current_time()
        await self._wait(self.checkers.disagreement, AGREE_S_MAX, f"no agreement {when}")
        self.trace.note("agreement", when=when, took=trio.current_time() - began)

    async def _wait(self, problem: Callable[[], str], seconds_max: float, text: str) -> None:
        deadline = trio.current_time() + seconds_max
        while found := problem():
            if trio.current_time() >= deadline:
                raise Violation(f"{text} within {seconds_max:g} s: {found}")
            await trio.sleep(LOOK_S)

    def _unconnected(self) -> str:
        for machine in self.machines:
            if machine.node is not None and len(machine.node.peers.sessions) < len(self.machines) - 1:
                return f"{machine.name} has {len(machine.node.peers.sessions)} of {len(self.machines) - 1} peers"
        return ""

    def summary(self) -> str:
        """One line for people."""
        work, checked = self.workload, self.checkers
        done = " ".join(f"{name}={count}" for name, count in sorted(work.done.items()))
        faults = " ".join(f"{name}={count}" for name, count in sorted(self.disturbance.done.items()))
        return (
            f"{len(self.machines)} machines, {trio.current_time():.0f} virtual seconds, {checked.frames} frames, "
            f"{checked.commits} commits; {done}; faults: {faults or 'none'}"
        )


@contextmanager
def _short_sequences(chunks_per_sequence: int) -> Iterator[None]:
    """Records of a few chunks have several sequences."""
    short = {
        "CHUNKS_PER_SEQUENCE": chunks_per_sequence,
        "RecordBuilder": functools.partial(RecordBuilder, chunks_per_sequence=chunks_per_sequence),
    }
    before = {name: getattr(puts_actor, name) for name in short}
    for name, value in short.items():
        setattr(puts_actor, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(puts_actor, name, value)


@contextmanager
def _listening(told: Callable[[str], None]) -> Iterator[None]:
    log = logging.getLogger("node")
    listener, level = _Listener(told), log.level
    log.addHandler(listener)
    if log.getEffectiveLevel() > logging.INFO:
        log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(listener)
        log.setLevel(level)


async def tell(seed: int, trace: Trace, options: Options | None = None, kind: type[World] = World) -> str:
    """One world's life; its summary. options: instead of those that the seed draws. Raises Violation."""
    options = options or draw_options(seed)
    with tempfile.TemporaryDirectory() as folder, _short_sequences(options.chunks_per_sequence):
        world = kind(seed, trace, Path(folder), options)
        with _listening(world.checkers.violate):
            await world.live()
        return world.summary()


def replay(seed: int, options: Options | None = None) -> tuple[str, str]:
    """Summary and trace hash of a seed. Raises SimulationFailed with the line to paste."""

    async def world(number: int, trace: Trace) -> str:
        return await tell(number, trace, options)

    return run_world(world, seed, virtual_seconds_max=WORLD_S_MAX, paste=f"python -m tests.simulation {seed}")
