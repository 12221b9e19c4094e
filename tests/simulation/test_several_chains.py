"""Several chains in one node: a follows one, b and c two, d the other; nothing of one chain is heard, kept or stopped by the other."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

import pytest
import trio

from node.actors.chain import BlockFinal, ChainKeys, ChainSetup
from node.actors.following import Followed, Topics
from node.actors.storage import StorageActor, StorageHandle
from node.actors.talk import Talks
from node.bus import Bus
from node.clock import SimulatedClock
from node.entropy import SeededEntropy
from node.offload import SimulatedOffload
from node.promises import fresh
from node.supervisor import run_contained
from node.transport.memory import Link, MemoryNetwork, MemoryTransport
from node.transport.port import Connection, Stream, StreamBroken
from protocols.crypto import sha256
from protocols.errors import LadingError, StoreFull
from protocols.ledger.messages import Hello
from protocols.ledger.state import Overlay
from protocols.ledger.transactions import folder_update
from protocols.ledger.transactions.equivocation import EVIDENCE
from protocols.limits import FURTHER_AGAIN_S
from protocols.registry import decode_message
from protocols.types import ChainId, PeerId, TxId, UnixMillis
from storage import chain as store
from storage.engine import Delete, Env
from storage.faulty import Faults, FaultyEngine
from storage.memory import MemoryEngine
from storage.tables import CHAIN_BLOCKS
from tests.protocols.ledger import chains

from .chain_world import DISK_BYTES, FENCE, Connections, SimulatedPromises
from .checkers import Violation
from .scheduler import chance, run_world
from .trace import Trace

FOLLOWS = {"a": "A", "b": "AB", "c": "AB", "d": "B"}
"""Node to its chains; each votes and seals on all of them, with one account and the same keys."""


class Heard:
    """A stream that notes what leaves on it. Implements ``Stream``."""

    def __init__(self, stream: Stream, sent: list[bytes]) -> None:
        self.protocol = stream.protocol
        self._stream = stream
        self._sent = sent
        self.flush, self.receive, self.finish, self.reset = stream.flush, stream.receive, stream.finish, stream.reset

    async def send(self, *parts: bytes) -> None:
        self._sent.append(b"".join(parts))
        await self._stream.send(*parts)


class HeardConnections(Connections):
    """Connections whose streams are noted by peer."""

    sent: dict[PeerId, list[bytes]]

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        return Heard(await super().open_stream(peer, protocol), self.sent.setdefault(peer, []))  # type: ignore[return-value]

    async def _live(self, connection: Connection, talks: Talks) -> None:
        """The accepting side: several streams at once."""
        connection.trust()
        self.sessions[connection.remote] = connection
        try:
            async with trio.open_nursery() as nursery:
                while not connection.closed.is_set():
                    try:
                        stream = await connection.accept_stream()
                    except StreamBroken:
                        break
                    nursery.start_soon(self._serve, stream, connection, talks)
                nursery.cancel_scope.cancel()
        finally:
            if self.sessions.get(connection.remote) is connection:
                del self.sessions[connection.remote]
            with trio.CancelScope(shield=True):
                await connection.close("over")

    async def _serve(self, stream: Stream, connection: Connection, talks: Talks) -> None:
        for error in await run_contained(lambda: talks.serve(stream, connection.remote)):
            self.dropped.append((connection.remote, str(error)))
            if not isinstance(error, LadingError):
                raise error


class HeardTopics(Topics):
    """Topics whose streams are noted by peer."""

    sent: dict[PeerId, list[bytes]]

    async def serve(self, stream: Stream, peer: PeerId) -> None:
        await super().serve(Heard(stream, self.sent.setdefault(peer, [])), peer)  # type: ignore[arg-type]


class Machine:
    """One node: its disks and promises outlive it."""

    def __init__(self, world: TwoChains, name: str) -> None:
        self.world = world
        self.name = name
        self.peer = PeerId(f"peer-{name}".encode())
        self.clock = SimulatedClock(chains.START_MS / 1000)
        self.faults = {letter: Faults() for letter in FOLLOWS[name]}
        self.engines = {
            letter: FaultyEngine(MemoryEngine(Env.LEDGER, DISK_BYTES), self.faults[letter], chance(world.seed, f"disk {name} {letter}"))
            for letter in FOLLOWS[name]
        }
        self.promises = {letter: SimulatedPromises(fresh(world.chain_of[letter])) for letter in FOLLOWS[name]}
        self.sent: dict[PeerId, list[bytes]] = {}
        self.followed: dict[str, Followed] = {}
        self._scope = trio.CancelScope()

    async def live(self) -> None:
        world = self.world
        transport = MemoryTransport(world.network, self.peer, (f"/memory/{self.peer.decode()}",))
        transport.set_preshared_keys((FENCE,))
        connections = HeardConnections(transport, [PeerId(f"peer-{name}".encode()) for name in FOLLOWS if name != self.name])
        connections.sent = self.sent
        entropy = SeededEntropy(sha256(b"entropy", self.name.encode(), str(world.seed).encode()))
        keys = ChainKeys(
            chains.account_of(self.name),
            chains.key_of(self.name, "seal"),
            chains.key_of(self.name, "vote"),
            sha256(b"reveal", self.name.encode()),
        )
        storages = {letter: StorageActor(engine, world.offload, lane=letter) for letter, engine in self.engines.items()}
        for letter, engine in self.engines.items():
            engine.restart()
            setup = ChainSetup(world.chain_of[letter], world.templates[letter].blocks[0], keys, self.promises[letter])
            handle = StorageHandle(storages[letter], world.offload)
            self.followed[letter] = Followed(
                setup, handle, self.peer, connections, self.clock, entropy, Bus(), world.offload, again_s=FURTHER_AGAIN_S
            )
        topics = HeardTopics({one.id: one.talks for one in self.followed.values()})
        topics.sent = self.sent
        with trio.CancelScope() as self._scope:
            async with trio.open_nursery() as nursery:
                await nursery.start(transport.run)
                for letter, one in self.followed.items():
                    nursery.start_soon(storages[letter].run)
                    nursery.start_soon(self._check, letter, one)
                    nursery.start_soon(one.chain.run)
                    nursery.start_soon(one.sealer.run)
                    nursery.start_soon(one.talks.run)
                nursery.start_soon(connections.run, topics)

    async def _check(self, letter: str, one: Followed) -> None:
        with one.bus.subscribe(BlockFinal, capacity=4096, name="checker") as news:
            async for fact in news:
                assert isinstance(fact, BlockFinal)
                self.world.note_final(self.name, letter, fact.height, fact.hash)

    async def kill(self) -> None:
        for engine in self.engines.values():
            engine.crashed = True
        self._scope.cancel()
        self.followed = {}
        await trio.sleep(0.001)

    def final(self, letter: str) -> int:
        return self.followed[letter].chain.checkpoints()[1].height


class TwoChains:
    """The four nodes and both chains."""

    def __init__(self, seed: int, trace: Trace) -> None:
        self.seed, self.trace = seed, trace
        self.network = MemoryNetwork(chance(seed, "network"), link=Link(latency_s=0.01, jitter_s=0.03))
        disk = chance(seed, "delays")
        self.offload = SimulatedOffload(lambda: disk.random() * 0.004)
        self.templates = {letter: self._template(letter) for letter in "AB"}
        self.chain_of: Mapping[str, ChainId] = {letter: template.chain for letter, template in self.templates.items()}
        self.finals: dict[tuple[str, int], bytes] = {}
        self.folders = 0
        self.machines = {name: Machine(self, name) for name in FOLLOWS}
        self.nursery: trio.Nursery

    @staticmethod
    def _template(letter: str) -> chains.Chain:
        members = tuple(name for name, follows in FOLLOWS.items() if letter in follows)
        profile = chains.profile_of(name=letter, faults=0)
        return chains.start(
            chains.genesis_body(profile=profile, members=members, miners=members, threshold=2), members=members, miners=members
        )

    def start(self, name: str) -> None:
        self.nursery.start_soon(self.machines[name].live)

    def note_final(self, name: str, letter: str, height: int, block: bytes) -> None:
        self.trace.note("final", node=name, chain=letter, height=height, block=block)
        if self.finals.setdefault((letter, height), block) != block:
            raise Violation(f"two final blocks of {letter} at height {height}")

    async def submit(self, name: str, letter: str) -> TxId:
        self.folders += 1
        now = UnixMillis(chains.START_MS + int(trio.current_time() * 1000))
        body = folder_update.Body(f"folder-{self.folders}", sha256(b"root"), bytes(32), 1)
        act = self.templates[letter].by("ann", "FolderUpdate", body, ts_ms=now, until_ms=UnixMillis(now + 3_600_000))
        return await self.machines[name].followed[letter].chain.submit(act)

    def followers(self, letter: str) -> list[Machine]:
        return [machine for machine in self.machines.values() if letter in machine.followed]

    async def final_everywhere(self, letter: str, *, from_node: str, within_s: float = 60.0) -> None:
        """A transaction given to one node becomes final on all that follow the chain."""
        name = await self.submit(from_node, letter)
        await self.until(
            lambda: all(self._is_final(machine, letter, name) for machine in self.followers(letter)),
            within_s=within_s,
            what=f"final on {letter}",
        )

    @staticmethod
    def _is_final(machine: Machine, letter: str, name: TxId) -> bool:
        chain = machine.followed[letter].chain
        with machine.engines[letter].snapshot() as snapshot:
            final = chain.checkpoints()[1].height
            return any(
                one.id == name
                for height in range(final + 1)
                for block in store.blocks_at(snapshot, height)
                for one in store.body(snapshot, block).transactions
            )

    async def until(self, holds: Callable[[], bool], *, within_s: float, what: str) -> None:
        end = trio.current_time() + within_s
        while not holds():
            if trio.current_time() > end:
                raise Violation(f"not within {within_s} s: {what}")
            await trio.sleep(0.25)

    def check_apart(self) -> None:
        """Whoever follows one chain alone was told of the other no more than its name, and keeps nothing of it; nobody stands accused."""
        assert self.machines["a"].sent[self.machines["d"].peer], "it was asked"
        for machine in self.machines.values():
            for peer, frames in machine.sent.items():
                theirs = {self.chain_of[letter] for letter in FOLLOWS[peer.decode()[-1]]}
                about = {self.chain_of[letter] for letter in FOLLOWS[machine.name]}
                if not theirs & about:
                    assert all(isinstance(decode_message("ledger", frame), Hello) for frame in frames)
            for letter, engine in machine.engines.items():
                engine.restart()
                with engine.snapshot() as snapshot:
                    names = [name for name, _ in store.blocks_from(snapshot, 0)]
                    assert {store.body(snapshot, name).info.chain for name in names} == {self.chain_of[letter]}
                    assert not list(Overlay(store.ChainState(snapshot)).iterate(EVIDENCE))


def life(seed: int, story: Callable[[TwoChains], Awaitable[None]]) -> str:
    """The trace's hash of a world with this story."""

    async def world(number: int, trace: Trace) -> None:
        there = TwoChains(number, trace)
        async with trio.open_nursery() as nursery:
            there.nursery = nursery
            for name in FOLLOWS:
                there.start(name)
            await trio.sleep(15)
            await story(there)
            there.check_apart()
            nursery.cancel_scope.cancel()

    return run_world(world, seed, virtual_seconds_max=3600.0)[1]


@pytest.mark.parametrize("seed", [1, 2])
def test_chains_of_one_node_live_apart_and_the_same_seed_tells_the_same_story(seed: int) -> None:
    """Goal: independent states, pools and topics; who seals and votes on two chains in one second, with the same keys, is no liar. Method:
    transactions on both at the same time, another each; twice with one seed."""

    async def story(world: TwoChains) -> None:
        for _ in range(3):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(lambda: world.final_everywhere("A", from_node="a"))
                nursery.start_soon(lambda: world.final_everywhere("B", from_node="d"))
        heights = {letter: {machine.final(letter) for machine in world.followers(letter)} for letter in "AB"}
        assert all(min(found) >= 3 for found in heights.values())
        both = world.machines["b"].followed
        assert both["A"].chain.pool is not both["B"].chain.pool
        waits = await world.submit("b", "A")
        assert waits in both["A"].chain.pool
        assert waits not in both["B"].chain.pool
        with world.machines["b"].engines["A"].snapshot() as one, world.machines["b"].engines["B"].snapshot() as other:
            assert store.ChainState(one).root != store.ChainState(other).root
        for letter in "AB":
            talking = {peer for peer, end in both[letter].talks.ends.items() if end.is_open}
            assert talking == {machine.peer for machine in world.followers(letter) if machine.name != "b"}
        assert world.machines["d"].peer not in world.machines["a"].followed["A"].talks.ends
        sealed = [both[letter].sealer.sealed for letter in "AB"]
        assert all(sealed)

    assert life(seed, story) == life(seed, story)


def test_lost_or_full_database_of_one_chain_leaves_the_other() -> None:
    """Goal: chains fall alone. Method: b is down, so c is needed on both; its disk of B is full for a minute: A goes on, B waits and goes
    on afterwards. Then all blocks of B are lost on c while it runs and its promises stay: B is fetched again, A goes on meanwhile."""

    async def story(world: TwoChains) -> None:
        for letter in "AB":
            await world.final_everywhere(letter, from_node="c")
        await world.machines["b"].kill()
        torn = world.machines["c"]
        torn.faults["B"].full = True
        before = torn.final("B")
        with pytest.raises(StoreFull):
            await world.submit("c", "B")
        await world.submit("d", "B")
        for _ in range(3):
            await world.final_everywhere("A", from_node="a")
        assert torn.final("B") == before
        torn.faults["B"].full = False
        await world.until(lambda: torn.final("B") > before, within_s=120, what="B goes on")
        chain = torn.followed["B"].chain
        with torn.engines["B"].snapshot() as snapshot:
            gone = [Delete(CHAIN_BLOCKS, key) for key, _ in snapshot.scan(CHAIN_BLOCKS)]
        torn.engines["B"].write(gone)
        try:
            await world.submit("c", "B")
        except LadingError as error:
            world.trace.note("refused", reason=error.reason)
        await world.final_everywhere("A", from_node="a")
        await world.until(lambda: "chain" in chain.alerts, within_s=60, what="the damage is noticed")
        assert not torn.followed["A"].chain.alerts
        world.start("b")
        await world.until(lambda: bool(world.machines["b"].followed), within_s=5, what="b")
        for letter in "AB":
            await world.final_everywhere(letter, from_node="c", within_s=120)

    life(3, story)
