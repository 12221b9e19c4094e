"""A world of chain nodes alone: real actors, machines and tables over the memory network, disks that crash, one virtual clock, one seed.

A seat is what outlives its node: keys, disk, promises, clock. Checked throughout: nobody's final blocks contradict another's; no member
says two things that break a promise. At the end of a story: all agree on head, final block and every byte of the state.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path

import trio

from node.actors.archives import Archives
from node.actors.chain import BlockFinal, ChainActor, ChainItems, ChainKeys, ChainSetup
from node.actors.following import Partners
from node.actors.sealer import Sealer
from node.actors.storage import StorageActor, StorageHandle
from node.actors.talk import Talks
from node.bus import Bus
from node.clock import SimulatedClock
from node.entropy import SeededEntropy
from node.offload import SimulatedOffload
from node.promises import Kept, Rotated, fresh
from node.services import Standing, may_read
from node.supervisor import run_contained
from node.transport.memory import Link, MemoryNetwork, MemoryTransport
from node.transport.port import Connection, DialFailed, PresharedKey, Stream, StreamBroken
from protocols.codec import Record, decode, encode
from protocols.crypto import SigningKey, sha256
from protocols.errors import LadingError, RemoteError, Verdict
from protocols.ledger.envelope import Transaction
from protocols.ledger.profile import Access
from protocols.ledger.schedule import SCHEDULE
from protocols.ledger.state import Overlay
from protocols.ledger.transactions import folder_update
from protocols.ledger.transactions.equivocation import EVIDENCE
from protocols.ledger.votes import Checkpoint, Vote, breaks_promise
from protocols.types import AccountId, PeerId, TxId, UnixMillis
from storage import chain as store
from storage.engine import Delete, Env, Table
from storage.faulty import Faults, FaultyEngine
from storage.memory import MemoryEngine
from tests.protocols.ledger import chains

from .checkers import Violation
from .scheduler import chance
from .trace import Trace
from .world import START_S_MAX, Options, World

FENCE = PresharedKey("fence", b"F" * 32, b"f" * 32)
DISK_BYTES = 256 * 1024 * 1024
DIAL_S = 1.0


class SimulatedPromises:
    """The promise file of one seat: what was saved outlives every crash."""

    def __init__(self, first: Kept | None) -> None:
        self.data = None if first is None else encode(first)

    def load(self) -> Kept | None:
        return None if self.data is None else decode(self.data, Kept)

    def save(self, kept: Kept) -> None:
        self.data = encode(kept)


class SimulatedRing:
    """The file of rotated keys of one seat."""

    def __init__(self) -> None:
        self.rotated: tuple[Rotated, ...] = ()

    def load(self) -> tuple[Rotated, ...]:
        return self.rotated

    def save(self, rotated: tuple[Rotated, ...]) -> None:
        self.rotated = rotated

    def key(self, rotated: Rotated) -> SigningKey:
        return SigningKey(sha256(b"rotated", rotated.what.encode(), rotated.salt))


class ForgetfulPromises(SimulatedPromises):
    """The planted bug: the vote leaves, the promise never reaches the disk."""

    def save(self, kept: Kept) -> None:
        """Says that it is durable."""


class Connections:
    """One node's connections: the smaller peer id dials, again and again. Implements ``ChainPeers``.

    standings, accounts: what a node would know of its peers from their certificates; by default all are of its domain.
    """

    def __init__(
        self,
        transport: MemoryTransport,
        others: Iterable[PeerId],
        *,
        standings: Mapping[PeerId, Standing] | None = None,
        accounts: Mapping[PeerId, AccountId] | None = None,
    ) -> None:
        self.transport = transport
        self._standings = standings or {}
        self._accounts = accounts or {}
        self.sessions: dict[PeerId, Connection] = {}
        self.dropped: list[tuple[PeerId, str]] = []
        self.banned: list[PeerId] = []  # noted, and let in again all the same
        self.serve: Callable[[Stream, PeerId], object] | None = None
        self._others = tuple(others)

    def partners(self) -> list[PeerId]:
        return [peer for peer in self.network() if self._standing(peer) is Standing.DOMAIN]

    def network(self) -> list[PeerId]:
        return sorted(self.sessions)

    def may_read(self, peer: PeerId, read: Access | None, maintainers: Collection[AccountId]) -> bool:
        return may_read(read, self._standing(peer), maintains=self._accounts.get(peer) in maintainers)

    def _standing(self, peer: PeerId) -> Standing:
        return self._standings.get(peer, Standing.DOMAIN)

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        connection = self.sessions.get(peer)
        if connection is None:
            raise StreamBroken("not connected")
        return await connection.open_stream(protocol)

    async def drop(self, peer: PeerId, why: str, *, ban: bool = False) -> None:
        self.dropped.append((peer, why))
        self.banned += [peer] if ban else []
        connection = self.sessions.get(peer)
        if connection is not None:
            await connection.close(why)

    async def run(self, talks: Talks) -> None:
        async with trio.open_nursery() as nursery:
            for peer in self._others:
                if self.transport.peer_id < peer:
                    nursery.start_soon(self._dial, peer)
            while True:
                nursery.start_soon(self._live, await self.transport.accept(), talks)

    async def _dial(self, peer: PeerId) -> None:
        while True:
            try:
                with trio.move_on_after(5.0):
                    connection = await self.transport.dial(f"/memory/{peer.decode()}", peer, FENCE)
                    connection.trust()
                    self.sessions[peer] = connection
            except DialFailed:
                pass
            if peer in self.sessions:
                await self.sessions[peer].closed.wait()
                del self.sessions[peer]
            await trio.sleep(DIAL_S)

    async def _live(self, connection: Connection, talks: Talks) -> None:
        """The accepting side: serves what the dialling side opens."""
        connection.trust()
        self.sessions[connection.remote] = connection
        try:
            while True:
                stream = await connection.accept_stream()
                for error in await run_contained(lambda stream=stream: talks.serve(stream, connection.remote)):  # type: ignore[misc]
                    self.dropped.append((connection.remote, str(error)))
                    self.banned += [connection.remote] if isinstance(error, RemoteError) and error.verdict is Verdict.BAN else []
                    if not isinstance(error, LadingError):
                        raise error
        except StreamBroken:
            pass
        finally:
            if self.sessions.get(connection.remote) is connection:
                del self.sessions[connection.remote]
            with trio.CancelScope(shield=True):
                await connection.close("over")


class ChainNode:
    """One running node of a seat."""

    def __init__(self, seat: Seat) -> None:
        world = seat.world
        self.seat = seat
        self.bus = Bus()
        self.storage = StorageActor(seat.engine, seat.offload)
        handle = StorageHandle(self.storage, seat.offload)
        self.handle = handle
        genesis = world.genesis if seat.knows_genesis else None
        self.chain = ChainActor(
            world.chain_id,
            genesis,
            seat.keys,
            handle,
            seat.promises,
            seat.clock,
            self.bus,
            seat.offload,
            ring=seat.ring,
            anchor=seat.anchor,
            heights_kept=seat.heights_kept,
            schedule=seat.schedule,
        )
        self.sealer = Sealer(self.chain, seat.offload)
        self.transport = MemoryTransport(world.network, seat.peer, (f"/memory/{seat.peer.decode()}",))
        self.transport.set_preshared_keys((FENCE,))
        others = {other.peer: other for other in world.seats.values() if other is not seat}
        strange = {seat.name} & world.strangers
        self.connections = Connections(
            self.transport,
            others,
            standings={peer: Standing.NETWORK for peer, other in others.items() if strange != {other.name} & world.strangers},
            accounts={peer: other.keys.account for peer, other in others.items()},
        )
        partners = Partners(self.connections, self.chain, is_domains=False)
        self.talks = Talks(seat.peer, self.chain, partners, seat.clock, seat.entropy, self.bus, may_read=partners.may_read)
        self.archives = Archives(self.chain, self.talks, seat.peer, seat.clock)

    async def run(self) -> None:
        with self.bus.subscribe(BlockFinal, ChainItems, capacity=4096, name="checker") as news:
            async with trio.open_nursery() as nursery:
                await nursery.start(self.transport.run)
                nursery.start_soon(self.storage.run)
                nursery.start_soon(self._check, news)
                nursery.start_soon(self.chain.run)
                nursery.start_soon(self.sealer.run)
                nursery.start_soon(self.connections.run, self.talks)
                nursery.start_soon(self.talks.run)
                nursery.start_soon(self.archives.run)

    async def _check(self, news: object) -> None:
        async for fact in news:  # type: ignore[attr-defined]  # a subscription
            match fact:
                case BlockFinal(height, name):
                    self.seat.world.note_final(self.seat, height, name)
                case ChainItems(_, votes, _):
                    for one in votes:
                        if one in self.chain.votes:
                            self.seat.world.note_vote(self.chain.votes[one])


class Seat:
    """What outlives a node."""

    def __init__(self, world: ChainWorld, name: str, *, seals: bool, votes: bool, promises: SimulatedPromises, knows_genesis: bool) -> None:
        self.world = world
        self.name = name
        self.peer = PeerId(f"peer-{name}".encode())
        self.keys = ChainKeys(
            chains.account_of(name),
            chains.key_of(name, "seal") if seals else None,
            chains.key_of(name, "vote") if votes else None,
            sha256(b"reveal", name.encode()),
        )
        self.promises = promises
        self.ring = SimulatedRing()
        self.knows_genesis = knows_genesis
        self.anchor: Checkpoint | None = None
        self.heights_kept: int | None = None
        self.schedule = SCHEDULE
        self.clock = SimulatedClock(chains.START_MS / 1000)
        self.entropy = SeededEntropy(sha256(b"entropy", name.encode(), str(world.seed).encode()))
        self.faults = Faults()
        self.engine = FaultyEngine(MemoryEngine(Env.LEDGER, DISK_BYTES), self.faults, chance(world.seed, f"disk {name}"))
        self.offload = world.offload
        self.node: ChainNode | None = None
        self._scope: trio.CancelScope | None = None

    @property
    def chain(self) -> ChainActor:
        assert self.node is not None
        return self.node.chain

    def talking(self) -> list[PeerId]:
        """Peers with which a conversation about the chain is open."""
        return [] if self.node is None else [peer for peer, end in self.node.talks.ends.items() if end.is_open]

    async def start(self) -> None:
        """A node begins on this seat."""
        assert self.node is None
        self.engine.restart()
        self.node = ChainNode(self)
        self.world.nursery.start_soon(self._live, self.node)

    async def _live(self, node: ChainNode) -> None:
        with trio.CancelScope() as self._scope:
            await node.run()

    async def kill(self) -> None:
        """Without warning: nothing more is written."""
        assert self._scope is not None
        self.engine.crashed = True
        self._scope.cancel()
        self.node = None
        await trio.sleep(0.001)

    def lose_database(self) -> None:
        self.engine = FaultyEngine(MemoryEngine(Env.LEDGER, DISK_BYTES), self.faults, chance(self.world.seed, f"new disk {self.name}"))

    def forget(self, table: Table, keys: Iterable[bytes]) -> None:
        """These keys are gone from the disk."""
        self.engine.write([Delete(table, key) for key in keys])

    def state(self) -> tuple[tuple[bytes, bytes], ...]:
        with self.engine.snapshot() as snapshot:
            return tuple(store.state_items(snapshot))

    def read(self, space: str) -> dict[bytes, bytes]:
        """One space of the state where this node stands."""
        with self.engine.snapshot() as snapshot:
            return dict(Overlay(store.ChainState(snapshot)).iterate(space))

    def accusations(self) -> list[bytes]:
        self.engine.restart()
        return list(self.read(EVIDENCE))

    def root(self) -> bytes:
        with self.engine.snapshot() as snapshot:
            return store.ChainState(snapshot).root


class ChainWorld:
    """Seats, network, clock, checkers; everything from one seed."""

    def __init__(
        self,
        seed: int,
        trace: Trace,
        *,
        members: tuple[str, ...] = chains.MEMBERS,
        miners: tuple[str, ...] | None = None,
        seats: int = 3,
        watchers: tuple[str, ...] = (),
        strangers: Collection[str] = (),
        promises: type[SimulatedPromises] = SimulatedPromises,
        **profile: object,
    ) -> None:
        """miners: certified in genesis, the members without it; a name that is both is one node. strangers: of another domain.

        profile: changes of its fields.
        """
        miners = members if miners is None else miners
        self.seed = seed
        self.trace = trace
        self.mind = chance(seed, "story")
        self.network = MemoryNetwork(chance(seed, "network"), link=Link(latency_s=0.01, jitter_s=0.03))
        disk = chance(seed, "delays")
        self.offload = SimulatedOffload(lambda: disk.random() * 0.004)
        body = chains.genesis_body(
            profile=chains.profile_of(**profile),  # type: ignore[arg-type]
            members=members,
            miners=miners,
            threshold=min(3, len(members)),
            seats=seats,
        )
        self.template = chains.start(body, members=members, miners=miners)
        self.genesis = self.template.blocks[0]
        self.chain_id = self.template.chain
        self.final: dict[int, bytes] = {}
        self.said: dict[bytes, dict[tuple[Checkpoint, Checkpoint], Vote]] = {}
        self.seats: dict[str, Seat] = {}
        self.strangers = frozenset(strangers)
        self.liars: set[str] = set()  # what they say twice is noted, not held against the world
        self.lies = 0
        for name in dict.fromkeys((*members, *miners)):
            kept = promises(fresh(self.chain_id))
            self.seats[name] = Seat(self, name, seals=name in miners, votes=name in members, promises=kept, knows_genesis=True)
        for name in watchers:
            self.seats[name] = Seat(self, name, seals=False, votes=False, promises=promises(None), knows_genesis=False)
        self.folders = 0
        self.nursery: trio.Nursery

    # --- checkers -----------------------------------------------------------------------------------------------------

    def note_final(self, seat: Seat, height: int, name: bytes) -> None:
        self.trace.note("final", seat=seat.name, height=height, name=name)
        if self.final.setdefault(height, name) != name:
            raise Violation(f"two final blocks at height {height}")

    def note_vote(self, vote: Vote) -> None:
        of_member = self.said.setdefault(vote.member, {})
        if any(breaks_promise(vote, other) for other in of_member.values()):
            if vote.member not in {chains.account_of(name) for name in self.liars}:
                raise Violation(f"a member said two things about height {vote.target.height}")
            self.lies += 1
        of_member[vote.source, vote.target] = vote

    def check_accusations(self) -> None:
        """Nobody honest stands accused, on any node's state."""
        keys = {chains.key_of(name, purpose).public for name in self.liars for purpose in ("seal", "vote")}
        for seat in self.seats.values():
            for name in seat.accusations():
                if name.split(b"\0", 1)[1][:32] not in keys:
                    raise Violation(f"an honest key stands accused on {seat.name}")

    # --- the story ----------------------------------------------------------------------------------------------------

    def times(self) -> dict[str, UnixMillis]:
        """Of a transaction that is made now."""
        now = UnixMillis(chains.START_MS + int(trio.current_time() * 1000))
        return {"ts_ms": now, "until_ms": UnixMillis(now + 3_600_000)}

    async def act(self, kind: str, body: Record) -> TxId:
        """An act of the council, given to a live node."""
        return await self.live()[0].chain.submit(self.template.by_council(kind, body, **self.times()))

    def folder(self, person: str = "ann") -> Transaction:
        """A transaction of a person, the next folder of hers."""
        self.folders += 1
        body = folder_update.Body(f"folder-{self.folders}", sha256(b"root"), bytes(32), 1)
        return self.template.by(person, "FolderUpdate", body, **self.times())

    def newcomer(self, name: str, anchor: Checkpoint | None) -> Seat:
        """A seat that was told of a final block alone. Its name begins low, so that it dials everybody."""
        seat = Seat(self, name, seals=False, votes=False, promises=SimulatedPromises(None), knows_genesis=False)
        seat.anchor = anchor
        self.seats[name] = seat
        return seat

    async def submit(self, name: str) -> TxId:
        return await self.seats[name].chain.submit(self.folder())

    def live(self) -> list[Seat]:
        return [seat for seat in self.seats.values() if seat.node is not None]

    def final_heights(self) -> list[int]:
        return [seat.chain.checkpoints()[1].height for seat in self.live()]

    async def until(self, holds: Callable[[], bool], *, within_s: float, what: str) -> None:
        """Virtual time goes on until it holds. Raises Violation."""
        end = trio.current_time() + within_s
        while not holds():
            if trio.current_time() > end:
                heads = {seat.name: (*(point.height for point in seat.chain.checkpoints()), len(seat.chain.pool)) for seat in self.live()}
                raise Violation(f"not within {within_s} s: {what}; heads, final heights, waiting {heads}")
            await trio.sleep(0.25)

    async def agree(self, *, within_s: float = 120.0) -> None:
        """All live nodes: one head, one final block right below or at it, no transaction waiting, one state."""

        def holds() -> bool:
            points = {seat.chain.checkpoints() for seat in self.live()}
            return len(points) == 1 and not any(len(seat.chain.pool) for seat in self.live()) and self._all_final()

        await self.until(holds, within_s=within_s, what="all agree")
        states = {seat.state() for seat in self.live()}
        roots = {seat.root() for seat in self.live()}
        if len(states) != 1 or len(roots) != 1:
            raise Violation("one head, but not one state")
        if not next(iter(states)):
            raise Violation("agreement about nothing")

    def _all_final(self) -> bool:
        for seat in self.live():
            chain = seat.chain
            if chain.tree is None:
                return False
            for point in chain.tree.ancestors(chain.tree.head().hash):
                if point.hash != chain.tree.final.hash and chain.row(point.hash).transactions:
                    return False
        return True

    async def disturb(self, seconds: float, *, rng: random.Random) -> None:
        """Cuts, partitions, resets and kills for so long; then everything heals and everybody is up."""
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            await trio.sleep(rng.uniform(0.5, 5.0))
            seats = list(self.seats.values())
            a, b = rng.sample(seats, 2)
            match rng.randrange(6):
                case 0:
                    self.network.cut(a.peer, b.peer, one_way=rng.random() < 0.3)
                case 1:
                    self.network.reset(a.peer, b.peer)
                case 2:
                    cut = rng.randrange(1, len(seats))
                    rng.shuffle(seats)
                    self.network.partition([one.peer for one in seats[:cut]], [one.peer for one in seats[cut:]])
                case 3:
                    if a.node is not None:
                        await a.kill()
                case 4:
                    if a.node is None:
                        await a.start()
                case _:
                    self.network.heal_all()
            if rng.random() < 0.5 and (up := self.live()):
                try:
                    await self.submit(rng.choice(up).name)
                except LadingError as error:
                    self.trace.note("refused", error=error.reason)
        self.network.heal_all()
        for seat in self.seats.values():
            if seat.node is None:
                await seat.start()


class ChainedWorld(World):
    """Whole nodes: all machines but the last follow one chain, the last but one begins without its genesis."""

    def __init__(self, seed: int, trace: Trace, folder: Path, options: Options) -> None:
        super().__init__(seed, trace, folder, options)
        self.template = chains.start()
        followers = self.machines[:-1]
        for machine, name in zip(followers, self.template.members, strict=False):
            keys = ChainKeys(
                chains.account_of(name), chains.key_of(name, "seal"), chains.key_of(name, "vote"), sha256(b"reveal", name.encode())
            )
            genesis = None if machine is followers[-1] else self.template.blocks[0]
            machine.chain = ChainSetup(self.template.chain, genesis, keys, SimulatedPromises(fresh(self.template.chain)))

    async def _tell(self) -> None:
        for machine in self.machines:
            await machine.wait_up()
        await self._wait(self._unconnected, START_S_MAX, "the machines do not find each other")
        await trio.sleep(15)
        chain = self._chains()[0]
        now = UnixMillis(chains.START_MS + int(trio.current_time() * 1000))
        body = folder_update.Body("folder", sha256(b"root"), bytes(32), 1)
        await chain.submit(self.template.by("ann", "FolderUpdate", body, ts_ms=now, until_ms=UnixMillis(now + 3_600_000)))
        await self._wait(self._not_final, 60.0, "no final block")
        await trio.sleep(30)
        await self._wait(self._unconnected, 1.0, "the one without a chain is dropped")

    def _chains(self) -> list[ChainActor]:
        return [machine.node.chain for machine in self.machines if machine.node is not None and machine.node.chain is not None]

    def _not_final(self) -> str:
        heights = [chain.checkpoints()[1].height for chain in self._chains()]
        return "" if len(heights) == len(self.machines) - 1 and min(heights) >= 1 else f"final heights {heights}"
