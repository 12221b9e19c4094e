"""Honest whole nodes and hostile peers in one process, over a virtual clock and seeded chance.

A hostile peer has keys and certificates like anybody's, but no node behind them: the test says frame by frame what it says. While it
does, the honest nodes must stand: nothing falls, nothing unplanned is logged, and no step of the loop takes long.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager

import trio
from trio.testing import MockClock

from node import home
from node.clock import SimulatedClock
from node.config import Config
from node.entropy import SeededEntropy
from node.offload import SimulatedOffload
from node.own import IssuerKeys, MemberKeys, OwnKeys
from node.services import AUTH, EXCHANGE, GOSSIP
from node.transport.memory import Link, MemoryConnection, MemoryNetwork, MemoryStream, MemoryTransport
from node.transport.port import PresharedKey, StreamBroken, StreamEnded
from node.wiring import Node, World
from protocols.auth import machine as a
from protocols.codec import decode, encode
from protocols.crypto import FORMAT, SUITE, HpkePrivateKey, Label, SigningKey, sha256
from protocols.effects import Send
from protocols.errors import LadingError, LocalError
from protocols.files.hashid import hash_id as hash_id_of
from protocols.files.keys import OwnerSecrets, RecordClass, record_key_commitment
from protocols.files.objects import Statement, Tombstone, sign_tombstone
from protocols.gossip import messages as g
from protocols.gossip.facts import FactKind, fact_id
from protocols.identity.announce import sign_announcement
from protocols.identity.certificates import fingerprint, verify_chain
from protocols.identity.fences import FenceSet, check_fence
from protocols.identity.keyfiles import MemberKey
from protocols.identity.networks import Network
from protocols.identity.peers import peer_id_text
from protocols.identity.revocation import RevocationSet
from protocols.merkle import merkle_root
from protocols.registry import decode_message, encode_message
from protocols.signed import Signed, sign_object
from protocols.types import ChunksRoot, Digest, UnixSeconds
from storage.engine import Env
from storage.memory import MemoryEngine
from tests.simulation.scheduler import seeded_scheduler

EPOCH = 1_800_000_000
DISK_BYTES = 256 * 1024 * 1024
QUOTA_BYTES = 4 * 1024 * 1024


class _Listener(logging.Handler):
    """Errors that are in nobody's plan."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__(logging.INFO)
        self._problems = problems

    def emit(self, record: logging.LogRecord) -> None:
        arguments = record.args if isinstance(record.args, tuple) else ()
        errors: list[object] = [item for item in arguments if isinstance(item, BaseException)]
        if record.exc_info is not None:
            errors.append(record.exc_info[1])
        for error in errors:
            if isinstance(error, LocalError) or not isinstance(error, LadingError | OSError | trio.Cancelled):
                self._problems.append(f"{record.name}: {record.getMessage()}: {error!r}")
        if "child fell" in record.getMessage():
            self._problems.append(record.getMessage())


class Scene:
    """One domain, some honest nodes, and keys for as many enemies as the test wants."""

    def __init__(self, seed: int = 1) -> None:
        self.entropy = SeededEntropy(f"hostile {seed}".encode())
        self.network = MemoryNetwork(random.Random(seed), link=Link(latency_s=0.001))
        self.founding = home.found_domain("honest", self.entropy.fork("domain"), EPOCH)
        self.roots = {fingerprint(root): root for root in self.founding.network.roots}
        self.problems: list[str] = []
        self.nodes: list[Node] = []
        self.nursery: trio.Nursery | None = None
        self.clock = SimulatedClock(EPOCH, 0.0)
        self._ended: dict[Node, trio.Event] = {}
        self.disks: dict[str, dict[Env, MemoryEngine]] = {}

    def foreign_domain(self) -> home.Founding:
        """A second domain of the network, known to all whose keys are made after this."""
        founding = home.found_domain("foreign", self.entropy.fork("foreign"), EPOCH)
        self.roots = {**self.roots, **{fingerprint(root): root for root in founding.network.roots}}
        return founding

    def member(self, name: str, *, nodes_max: int = 4) -> MemberKey:
        """A certified member."""
        return home.certify_member(self.founding, name, self.entropy.fork(f"member {name}"), EPOCH, nodes_max=nodes_max, weight_max=400)

    def own(self, name: str, *, member: MemberKey | None = None, issues: bool = False, now: int = EPOCH) -> OwnKeys:
        """Keys of one node. member: whose; a member of its own if none is given."""
        member = member or self.member(name)
        keys = home.certify_node(member, name, self.entropy.fork(f"node {name}"), now)
        identity = verify_chain(keys.chain, self.roots, now=max(now, EPOCH), revocations=None)
        issuer = self.founding.issuer
        return OwnKeys(
            network=Network(format=1, suite=1, id=self.founding.network.id, name=self.founding.network.name),
            domain_id=identity.domain_id,
            roots=self.roots,
            node=SigningKey(keys.seed),
            node_chain=keys.chain,
            identity=identity,
            member=MemberKeys(SigningKey(member.seed), HpkePrivateKey(member.hpke_seed), OwnerSecrets(member.root_secret), member.chain),
            issuer=IssuerKeys(SigningKey(issuer.seed), HpkePrivateKey(issuer.hpke_seed), issuer.chain) if issues else None,
            fences=self.founding.network.fences,
        )

    async def start(
        self,
        name: str = "n0",
        *,
        own: OwnKeys | None = None,
        issues: bool = True,
        clock: SimulatedClock | None = None,
        disk: Mapping[Env, MemoryEngine] | None = None,
        **settings: object,
    ) -> Node:
        """An honest node that knows the others before it. clock: its machine's, the common one if none is given. disk: that of
        an earlier life. settings: of its Config."""
        assert self.nursery is not None
        own = own or self.own(name, issues=issues)
        peers = tuple(f"/memory/{node.own.identity.host}/p2p/{peer_id_text(node.own.peer_id)}" for node in self.nodes)
        told: dict[str, object] = {
            "static_peers": peers,
            "store_budget_bytes": DISK_BYTES,
            "store_reserve_bytes": DISK_BYTES // 64,
            "member_quota_bytes": QUOTA_BYTES,
            "mdns": False,
            **settings,
        }
        # A name that comes back finds its disks.
        disks = self.disks.setdefault(name, {env: MemoryEngine(env, DISK_BYTES) for env in Env})
        parts = World(
            transport=MemoryTransport(self.network, own.peer_id, (f"/memory/{own.identity.host}",)),
            ledger=(disk or disks)[Env.LEDGER],
            chunks=(disk or disks)[Env.CHUNKS],
            clock=clock or self.clock,
            entropy=self.entropy.fork(f"life of {name}"),
            offload=SimulatedOffload(lambda: 0.0005),
        )
        node = Node(own, Config(**told), parts, home.first_facts(own))  # type: ignore[arg-type]  # as the test wrote them
        self.nodes.append(node)
        self._ended[node] = trio.Event()
        self.nursery.start_soon(self._live, node, name)
        await node.ready.wait()
        return node

    async def stop(self, node: Node) -> None:
        """Switches a node off; ``start`` with its name and keys switches it on again."""
        self.nodes.remove(node)
        node.stop("switched off")
        await self._ended[node].wait()

    async def _live(self, node: Node, name: str) -> None:
        try:
            await node.run()
        except Exception as error:
            self.problems.append(f"{name} stopped: {error.__cause__ or error!r}")
        finally:
            self._ended[node].set()

    def check_standing(self) -> None:
        """Nobody fell, and nothing unplanned was logged."""
        assert self.problems == []


@asynccontextmanager
async def scene(seed: int = 1) -> AsyncIterator[Scene]:
    """A scene that is checked when the story is over."""
    stage = Scene(seed)
    log = logging.getLogger("node")
    listener, level = _Listener(stage.problems), log.level
    log.addHandler(listener)
    log.setLevel(logging.INFO)
    try:
        async with trio.open_nursery() as nursery:
            stage.nursery = nursery
            yield stage
            await trio.sleep(1)
            stage.check_standing()
            nursery.cancel_scope.cancel()
    finally:
        log.removeHandler(listener)
        log.setLevel(level)


def play(story: Callable[[], Awaitable[None]]) -> None:
    """Runs a story on a clock of its own, each time with another order of tasks; a failure says how to see it again."""
    seed = int(os.environ.get("LADING_SEED") or random.SystemRandom().randrange(1 << 32))
    try:
        with seeded_scheduler(seed):
            trio.run(story, clock=MockClock(autojump_threshold=0))
    except BaseException as error:
        error.add_note(f"the same order of tasks: LADING_SEED={seed}")
        raise


class Enemy:
    """A peer that says what the test tells it to."""

    def __init__(self, stage: Scene, own: OwnKeys) -> None:
        self.stage = stage
        self.own = own
        self.transport = MemoryTransport(stage.network, own.peer_id, (f"/memory/{own.identity.host}",))
        self.connection: MemoryConnection | None = None
        self.gossip: MemoryStream | None = None

    @property
    def fence(self) -> PresharedKey:
        fences = FenceSet([check_fence(known, self.own.network_id, self.own.roots) for known in self.own.fences])
        key = fences.psk(self.own.network_id)[0]
        return PresharedKey("fence", key.id, key.psk)

    async def dial(self, node: Node) -> MemoryConnection:
        """A fenced connection, nothing proven."""
        if self.connection is None:
            assert self.stage.nursery is not None
            await self.stage.nursery.start(self.transport.run)
            self.transport.set_preshared_keys((self.fence,))
        self.connection = await self.transport.dial(f"/memory/{node.own.identity.host}", node.own.peer_id, self.fence)
        self.connection.trust()
        return self.connection

    def prover(self, connection: MemoryConnection) -> a.AuthMachine:
        """The asking side of `auth` as an honest node would run it."""
        return a.AuthMachine(
            role=a.AuthRole.INITIATOR,
            network=self.own.network_id,
            chain=self.own.node_chain,
            key=self.own.node,
            roots=self.own.roots,
            revocations=RevocationSet(),
            fences=FenceSet([check_fence(known, self.own.network_id, self.own.roots) for known in self.own.fences]),
            connection_fence=connection.preshared_key.id,
            version_min=1,
            version_max=1,
            features=(),
            nonce=self.stage.entropy.token(32),
            handshake_hash=connection.handshake_hash,
            peer_id=connection.remote,
            now=UnixSeconds(EPOCH),
            clock_unsafe=False,
        )

    async def prove(self, connection: MemoryConnection, *, before: Callable[[object], Awaitable[None]] | None = None) -> None:
        """Proves itself. before: called with each message before it is sent."""
        stream = await connection.open_stream(AUTH)
        machine = self.prover(connection)
        effects = machine.start(trio.current_time())
        while True:
            for effect in effects:
                match effect:
                    case Send(message):
                        if before is not None:
                            await before(message)
                        await stream.send(encode_message("auth", message))
                    case a.Proven():
                        await stream.finish()
                        return
                    case a.Failed():
                        raise StreamBroken(effect.text)
                    case _:
                        pass
            effects = machine.step(decode_message("auth", await stream.receive()), trio.current_time())

    async def enter(self, node: Node) -> None:
        """Connects, proves itself, opens gossip and says where it is, so that it is a known node."""
        await self.prove(await self.dial(node))
        assert self.connection is not None
        self.gossip = await self.connection.open_stream(GOSSIP)
        await self.tell((FactKind.ANNOUNCEMENT, encode(self.announcement())))

    def announcement(self, counter: int = EPOCH * 1000, **said: object) -> Signed:
        """What it says of itself."""
        fields: dict[str, object] = {
            "peer_id": self.own.peer_id,
            "addresses": (f"/memory/{self.own.identity.host}",),
            "chain": self.own.node_chain,
            "counter": counter,
            "store_id": b"s" * 16,
            "store_generation": 1,
            "free_bytes": 1 << 40,
            "refuses": False,
            "version": 1,
            **said,
        }
        return sign_announcement(self.own.node, self.own.network_id, **fields)  # type: ignore[arg-type]  # as the test wrote them

    async def say(self, message: object) -> None:
        """One gossip message."""
        assert self.gossip is not None
        await self.gossip.send(encode_message("gossip", message))

    async def tell(self, *facts: tuple[int, bytes]) -> None:
        """Announces facts and sends those that are wanted; returns when the node had time to take them."""
        assert self.gossip is not None
        bodies: dict[bytes, tuple[int, bytes]] = {fact_id(kind, body): (kind, body) for kind, body in facts}
        ids = tuple(bodies)
        for start in range(0, len(ids), 1024):
            await self.say(g.Announce(ids[start : start + 1024]))
        with trio.move_on_after(2):
            while bodies:
                message = decode_message("gossip", await self.gossip.receive())
                if isinstance(message, g.Want):
                    await self._send_bodies([bodies.pop(one) for one in message.ids if one in bodies])
        await trio.sleep(0.5)

    async def _send_bodies(self, items: Sequence[tuple[int, bytes]]) -> None:
        batch: list[tuple[int, bytes]] = []
        for item in items:
            batch.append(item)
            if len(batch) == 64 or sum(len(body) for _, body in batch) > 200_000:
                await self.say(g.Bodies(tuple(batch)))
                batch = []
        if batch:
            await self.say(g.Bodies(tuple(batch)))

    async def keep_alive(self) -> None:
        """Reads gossip, gives signs of life. Until cancelled or thrown out."""
        assert self.gossip is not None
        try:
            while True:
                with trio.move_on_after(3):
                    await self.gossip.receive()
                await self.say(g.Seen((), 0, 0))
        except (StreamBroken, StreamEnded):
            return

    async def open_exchange(self) -> MemoryStream:
        assert self.connection is not None
        return await self.connection.open_stream(EXCHANGE)

    async def ask(self, stream: MemoryStream, message: object) -> object:
        """One question on an exchange stream, and the first answer. Raises StreamBroken when it was hung up."""
        await stream.send(encode_message("exchange", message))
        return decode_message("exchange", await stream.receive())

    # --- what it signs ----------------------------------------------------------------------------------------------

    def statement(self, roots: Sequence[bytes], **said: object) -> Signed:
        """A statement of the enemy's own over sequences of one chunk each, or as ``said``."""
        assert self.own.member is not None
        c = Digest(said.pop("c", sha256(b"c", *roots)))  # type: ignore[arg-type]  # bytes
        owner = self.own.owner
        fields: dict[str, object] = {
            "format": FORMAT,
            "suite": SUITE,
            "network": self.own.network_id,
            "domain": self.own.domain_id,
            "owner": owner,
            "hash_id": hash_id_of(owner, c),
            "c": c,
            "record_class": RecordClass.DEDUP,
            "epoch": 0,
            "seq": 1,
            "follows": b"",
            "chunks_root": ChunksRoot(merkle_root(roots)),
            "manifest_chunks": 1,
            "data_chunks": len(roots) - 1,
            "chunks_per_sequence": 1,
            "sealed_bytes": 1024,
            "commitment": record_key_commitment(b"k" * 32),
            "manifest_salt": b"m" * 32,
            "copies_wanted": 0,
            "redundancy": 0,
            "codec": 0,
            "valid_until_s": UnixSeconds(0),
            "time_s": UnixSeconds(EPOCH),
            **said,
        }
        # Not ``sign_statement``, which would refuse to sign what breaks a rule.
        return sign_object(Statement(**fields), self.own.member.signing, Label.STATEMENT, self.own.network_id)  # type: ignore[arg-type]  # as the test wrote them

    def tombstone(self, signed: Signed, time_s: int) -> Signed:
        """The enemy's deletion of a record of its own."""
        assert self.own.member is not None
        statement = decode(signed.body, Statement)
        tombstone = Tombstone(
            format=FORMAT,
            suite=SUITE,
            network=statement.network,
            domain=statement.domain,
            owner=statement.owner,
            hash_id=statement.hash_id,
            c=statement.c,
            seq=2,
            follows=signed.object_hash,
            covers=(signed.object_hash,),
            act="delete",
            time_s=UnixSeconds(time_s),
        )
        return sign_tombstone(tombstone, self.own.member.signing)
