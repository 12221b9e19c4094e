"""The composition root: the one file that knows everybody. A Node is the same in life and in simulation; only what is handed in differs."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import trio

from protocols.errors import StoreDamaged
from protocols.gossip.facts import FactKind
from protocols.identity.certificates import NodeIdentity, chain_validity, read_root
from protocols.identity.clockfloor import ClockFloor
from protocols.identity.peers import peer_id_from_text
from protocols.join.messages import ChainAnchor
from protocols.ledger.pool import Limits
from protocols.limits import (
    CHAINS_PER_NODE_MAX,
    FURTHER_AGAIN_S,
    FURTHER_POOL_BYTES_MAX,
    FURTHER_POOL_PER_PEER_MAX,
    FURTHER_POOL_TRANSACTIONS_MAX,
    STATES_KEPT,
)
from protocols.types import AccountId, ChainId, PeerId, StoreId, UnixSeconds
from storage import keys
from storage.engine import Engine, Env
from storage.keys import clock_floor, identify_store, raise_clock_floor

from .actors.anchoring import Anchoring
from .actors.chain import BlockFinal, ChainActor, ChainSetup, HeadMovedTo
from .actors.chain_port import ChainPort
from .actors.facts import FactsAccepted, FactsActor, FactsHandle
from .actors.files import Files
from .actors.following import Followed, Server, Topics
from .actors.holdings import Holdings
from .actors.knowledge import Knowledge
from .actors.light import LightChain
from .actors.light_talk import LightTalks
from .actors.membership import Membership
from .actors.peers import Peers
from .actors.registrar import Registrar
from .actors.replication import Replication
from .actors.rulings import Rulings
from .actors.scope import GossipScope
from .actors.storage import StorageActor, StorageHandle
from .actors.talk import Talks
from .bus import Bus
from .chain_acts import Acts
from .clock import Clock, FlooredClock, clock_trouble
from .config import Config
from .entropy import Entropy
from .offload import Offload
from .own import OwnKeys
from .services import Standing, standing_of
from .supervisor import Child, OnFall, Supervisor
from .transport.port import Connection, PresharedKey, Stream, Transport

log = logging.getLogger(__name__)

ROOM_LOOK_S = 2.0
LIFE_SIGN_AGE_MAX_S = 3600.0
CLOCK_WRITE_S = 60.0
FURTHER_POOL = Limits(
    transactions_max=FURTHER_POOL_TRANSACTIONS_MAX, bytes_max=FURTHER_POOL_BYTES_MAX, per_peer_max=FURTHER_POOL_PER_PEER_MAX
)


@dataclass(frozen=True, slots=True)
class Further:
    """A chain beside the domain's first one. engine: a database of its own. lane: of its writes (``Offload``)."""

    setup: ChainSetup
    engine: Engine
    lane: str


@dataclass(frozen=True, slots=True)
class OfChain:
    """What a further chain told, passed on for those who watch the node."""

    chain: ChainId
    fact: HeadMovedTo | BlockFinal


@dataclass(frozen=True, slots=True)
class World:
    """What a node needs from outside: the real thing, or the simulation's twin of it."""

    transport: Transport
    ledger: Engine
    chunks: Engine
    clock: Clock
    entropy: Entropy
    offload: Offload


class Node:
    """All actors of one node, wired. ``run`` lives until stopped; ``ready`` is set when everything answers."""

    def __init__(
        self,
        own: OwnKeys,
        config: Config,
        world: World,
        first_facts: Sequence[tuple[FactKind, bytes]] = (),
        chain: ChainSetup | None = None,
        further: Sequence[Further] = (),
    ) -> None:
        """chain: the one that this node anchors records on; None follows none and refuses its streams. further: chains beside it."""
        self.own = own
        self.config = config
        self.world = world
        self.bus = Bus()
        self.ready = trio.Event()
        self._listening = trio.Event()
        self.listen: tuple[str, ...] = ()
        self._first_facts = tuple(first_facts)
        # The floor: what we wrote down, and when issuers signed the certificates above ours.
        floor = ClockFloor(floor=UnixSeconds(0)).raised_by_certificate(chain_validity(own.node_chain[1:], lowest=1)[0])
        with world.ledger.snapshot() as ledger:
            floor = floor.raised_by_persisted(clock_floor(ledger))
        self.clock = FlooredClock(world.clock, floor)
        self.started_at = self.clock.now()
        clock, entropy, offload = self.clock, world.entropy, world.offload
        with world.ledger.snapshot() as ledger, world.chunks.snapshot() as chunks:
            now = UnixSeconds(int(clock.now()))
            identity, ledger_writes, chunk_writes = identify_store(ledger, chunks, fresh_id=StoreId(entropy.token(16)), now=now)
        # The ledger's side first: a crash between the two makes a newer generation at the next start, never an older one.
        if ledger_writes:
            world.ledger.write(ledger_writes)
        if chunk_writes:
            world.chunks.write(chunk_writes)
        self._storage = {Env.LEDGER: StorageActor(world.ledger, offload), Env.CHUNKS: StorageActor(world.chunks, offload)}
        self.ledger_store = StorageHandle(self._storage[Env.LEDGER], offload)
        self.chunk_store = StorageHandle(self._storage[Env.CHUNKS], offload)
        self.knowledge = Knowledge(own.network_id, own.domain_id, own.roots)
        publisher = None if own.member is None else own.owner
        self._facts_actor = FactsActor(self.knowledge, self.ledger_store, offload, clock, self.bus, self._announce, owner=publisher)
        self.facts = FactsHandle(self._facts_actor, self.ledger_store, offload, clock)
        self.holdings = Holdings(
            own,
            self.facts,
            self.chunk_store,
            clock,
            store_id=identity.store_id,
            generation=identity.generation,
            quota_bytes=config.member_quota_bytes,
            trash_window_s=config.trash_window_s,
        )
        self.membership = Membership(
            own,
            self.facts,
            world.transport,
            clock,
            entropy,
            self.bus,
            store=self._store_facts,
            keep_chain=self._keep_chain,
            kept_chain=self._kept_chain,
            member_lifetime_s=int(config.member_lifetime_s),
            node_lifetime_s=int(config.node_lifetime_s),
        )
        self.peers = Peers(world.transport, clock, entropy, self.bus, self, self.holdings.as_host(), self._gossip_scope)
        self.replication = Replication(
            own,
            self.facts,
            self.holdings,
            self.peers,
            clock,
            entropy,
            self.bus,
            repair_grace_s=config.repair_grace_s,
            repair_bytes_per_s=config.repair_bytes_per_s,
            copies_all=config.copies_all,
            scrub_period_s=config.scrub_period_s,
        )
        self.files = Files(own, self.facts, self.holdings, self.replication, self.peers, clock, entropy, offload, self.bus)
        self.chain: ChainActor | None = None
        self.light: LightChain | None = None
        self.anchoring: Anchoring | None = None
        self.port: ChainPort | None = None
        """The domain's chain, kept or followed by proofs."""
        self.main: Followed | None = None
        """The domain's chain, where it is kept."""
        self.beside: tuple[Followed, ...] = ()
        """Chains beside the domain's, which are kept in any case."""
        self.rulings: Rulings | None = None
        self._registrars: dict[ChainId, Registrar] = {}
        self._further = tuple(further)
        self._further_storage: tuple[StorageActor, ...] = ()
        assert chain is not None or not further
        assert len(further) < CHAINS_PER_NODE_MAX
        if chain is not None:
            # Who searches for work on several chains takes no more of the processor than who does on one.
            is_light = config.ledger == "light"
            kept = [*(() if is_light else (chain,)), *(one.setup for one in further)]
            share = config.miner_cpu_share / max(1, sum(one.keys.seal is not None for one in kept))

            def follow(setup: ChainSetup, storage: StorageHandle, bus: Bus, *, pool: Limits, again_s: float) -> Followed:
                if config.ledger_blocks_kept:
                    setup = replace(setup, heights_kept=max(config.ledger_blocks_kept, STATES_KEPT))
                return Followed(
                    setup, storage, own.peer_id, self.peers, clock, entropy, bus, offload, cpu_share=share, pool=pool, again_s=again_s
                )

            servers: dict[ChainId, Server] = {}
            port: ChainPort
            if is_light:
                port = self.light = LightChain(chain.chain, chain.told, chain.genesis, chain.keys, self.ledger_store, clock, self.bus)
                self.light_talks = LightTalks(own.peer_id, self.light, self.peers, clock, entropy, self.bus)
                servers[chain.chain] = self.light_talks
            else:
                self.main = follow(chain, self.ledger_store, self.bus, pool=Limits(), again_s=0.0)
                port = self.chain = self.main.chain
                member = AccountId(own.member_id)
                self.rulings = Rulings(self.chain, self.facts, self.bus, member=member, may_answer=own.member is not None)
                self.rulings.on_denied = self._follow_denied
                self.rulings.on_erased = self.replication.look_again
            self.port = port
            self._further_storage = tuple(StorageActor(one.engine, offload, lane=one.lane) for one in further)
            self.beside = tuple(
                follow(one.setup, StorageHandle(storage, offload), Bus(), pool=FURTHER_POOL, again_s=FURTHER_AGAIN_S)
                for one, storage in zip(further, self._further_storage, strict=True)
            )
            whole = (*(() if self.main is None else (self.main,)), *self.beside)
            self._topics = Topics(servers | {one.id: one.talks for one in whole})
            self.anchoring = Anchoring(own, port, self.facts, self.ledger_store, clock, self.bus)
            self.files.attach(self.anchoring)
            ports: tuple[ChainPort, ...] = (port, *(one.chain for one in self.beside))
            self.acts = {one.chain: Acts(one, lambda: self.own, entropy) for one in ports}
            self._registrars = {
                one.id: Registrar(
                    self.acts[one.id],
                    self.knowledge,
                    lambda: self.own,
                    config.country,
                    one.bus,
                    put_out=self.membership.put_out if one is self.main else None,
                )
                for one in whole
            }
        self.anchor: ChainAnchor | None = None
        self.membership.chain_anchor = self._chain_anchor
        self.membership.attach(self.peers)
        self.membership.on_new_chain = self._use_chain
        self.membership.adopt_chain(self._kept_chain())
        self.facts.clock_judges = lambda: self.clock.judges
        self.membership.clock_source = lambda: self.clock.source
        self.membership.clock_backed = lambda: self.clock.is_backed
        self.membership.clock_judges = lambda: self.clock.judges
        self.membership.hear_time = self.clock.hear
        self.supervisor = Supervisor(self._children(), entropy=entropy)

    # --- the supervision table --------------------------------------------------------------------------------------

    def _children(self) -> tuple[Child, ...]:
        stop, again = OnFall.STOP_NODE, OnFall.RESTART
        return (
            Child("storage-ledger", self._storage[Env.LEDGER].run, stop, owns="the ledger environment's writer"),
            Child("storage-chunks", self._storage[Env.CHUNKS].run, stop, owns="the chunk environment's writer"),
            *(
                Child(f"space-{env.value}", storage.prepare, again, owns="space for coming writes", asks=(storage.name,))
                for env, storage in self._storage.items()
                if storage.engine.prepares
            ),
            Child("facts", self._facts_actor.run, again, owns="facts and their index", asks=("storage-ledger",), tells=("FactsAccepted",)),
            Child("holdings", self.holdings.run, again, owns="references and receipts", asks=("facts", "storage-chunks")),
            Child("transport", self._run_transport, stop, owns="sockets"),
            Child(
                "peers",
                self.peers.run,
                again,
                owns="connections",
                asks=("transport", "facts", "holdings"),
                tells=("PeerConnected", "PeerLost"),
            ),
            Child("membership", self._run_membership, again, owns="announcements", asks=("facts", "transport", "peers")),
            Child("puts", self.files.run_puts, again, owns="small records on their way in", asks=("holdings", "replication")),
            Child("replication", self._run_replication, again, owns="repair", asks=("facts", "holdings", "peers")),
            Child("room", self._watch_room, again, owns="whether new sequences are taken", asks=("membership",)),
            *self._chain_children(),
        )

    def _chain_children(self) -> tuple[Child, ...]:
        again = OnFall.RESTART
        if self.port is None:
            return ()
        told = ("HeadMovedTo", "BlockFinal", "ChainItems", "BlockTaken")
        owner = "chain" if self.light is None else "light"
        return (
            *(self._light_children() if self.main is None else self._main_children(self.main, told)),
            Child("anchoring", self._run_anchoring, again, owns="what of ours is to be anchored", asks=(owner, "facts")),
            *(child for index in range(len(self.beside)) for child in self._further_children(index, told)),
        )

    def _main_children(self, main: Followed, told: tuple[str, ...]) -> tuple[Child, ...]:
        again = OnFall.RESTART
        registrar = self._registrars[main.id]
        return (
            Child("chain", main.chain.run, again, owns="blocks, state, pool, promises", asks=("storage-ledger",), tells=told),
            Child("sealer", main.sealer.run, again, owns="this node's slots", asks=("chain",)),
            Child("talks", partial(self._run_talks, main.talks), again, owns="ledger streams", asks=("chain", "peers")),
            Child("archives", main.archives.run, again, owns="who holds all of the chain", asks=("chain", "talks")),
            Child("registrar", registrar.run, again, owns="accounts of those who were let in", asks=("chain", "facts", "membership")),
            Child(
                "rulings",
                self._run_rulings,
                again,
                owns="what the chain denies, has erased and punishes",
                asks=("chain", "facts", "membership"),
                tells=("PenaltyTold",),
            ),
        )

    def _light_children(self) -> tuple[Child, ...]:
        assert self.light is not None
        again, told = OnFall.RESTART, ("HeadMovedTo", "BlockFinal", "ChainItems")
        owns = "proven values and what waits of ours"
        return (
            Child("light", self.light.run, again, owns=owns, asks=("storage-ledger", "peers"), tells=told),
            Child("talks", partial(self._run_talks, self.light_talks), again, owns="ledger streams", asks=("light", "peers")),
        )

    def _further_children(self, index: int, told: tuple[str, ...]) -> tuple[Child, ...]:
        """A chain beside the domain's; its database may fall without the node."""
        again = OnFall.RESTART
        one, storage, lane = self.beside[index], self._further_storage[index], self._further[index].lane
        chain = f"chain-{lane}"
        return (
            Child(storage.name, storage.run, again, owns="a further chain's writer"),
            Child(chain, one.chain.run, again, owns="a further chain", asks=(storage.name,), tells=told),
            Child(f"sealer-{lane}", one.sealer.run, again, owns="this node's slots there", asks=(chain,)),
            Child(f"talks-{lane}", partial(self._run_talks, one.talks), again, owns="its streams", asks=(chain, "peers")),
            Child(f"archives-{lane}", one.archives.run, again, owns="who holds all of it", asks=(chain, f"talks-{lane}")),
            Child(f"registrar-{lane}", self._registrars[one.id].run, again, owns="accounts there", asks=(chain, "facts")),
            Child(f"news-{lane}", partial(self._pass_news, one), again, owns="what is told across", tells=("OfChain",)),
        )

    async def _pass_news(self, one: Followed) -> None:
        """What a further chain tells goes up to those who watch; what the domain's facts tell comes down to its registrar."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._pass_facts, one)
            with one.bus.subscribe(HeadMovedTo, BlockFinal, name="news") as news:
                async for fact in news:
                    assert isinstance(fact, HeadMovedTo | BlockFinal)
                    self.bus.publish(OfChain(one.id, fact))

    async def _pass_facts(self, one: Followed) -> None:
        with self.bus.subscribe(FactsAccepted, name="news") as news:
            async for fact in news:
                one.bus.publish(fact)

    async def run(self) -> None:
        """Until ``stop`` or cancellation. Raises LocalError when a fall stopped the node."""
        await self.supervisor.run()

    def stop(self, reason: str = "asked to stop") -> None:
        self.supervisor.stop(reason)

    async def _run_transport(self) -> None:
        self.membership.refresh_keys()
        async with trio.open_nursery() as nursery:
            addresses = await nursery.start(self.world.transport.run)
            self.listen = tuple(addresses)
            self.membership.addresses = self.config.announce or self.listen
            self._listening.set()

    async def _run_membership(self) -> None:
        # The first facts are those of the key file: without a fence nobody can be dialled.
        if self._first_facts:
            await self.facts.submit_own(*self._first_facts)
        await self._listening.wait()
        for text in self.config.static_peers:
            self._add_static(text)
        self.ready.set()
        await self.membership.run()

    async def _run_talks(self, talks: Talks | LightTalks) -> None:
        await self.ready.wait()
        await talks.run()

    async def _run_rulings(self) -> None:
        assert self.rulings is not None
        await self.ready.wait()
        await self.rulings.run()

    async def _follow_denied(self) -> None:
        """Whom the chain has put out loses its connections; who is back is dialled again."""
        await self.membership.drop_revoked()
        self.peers.wake()

    async def _run_anchoring(self) -> None:
        assert self.anchoring is not None
        await self.ready.wait()
        await self.anchoring.run()

    async def _run_replication(self) -> None:
        await self.ready.wait()
        await self.replication.run()

    def _add_static(self, text: str) -> None:
        address, mark, peer = text.rpartition("/p2p/")
        if mark:
            self.peers.hints[peer_id_from_text(peer)] = (address,)

    async def _watch_room(self) -> None:
        """Tells others in time when this node takes nothing new, and looks at the clock."""
        await self.ready.wait()
        written_at = float("-inf")
        while True:
            self.look_at_room()
            await self._look_at_clock()
            if self.clock.monotonic() - written_at > CLOCK_WRITE_S:
                written_at = self.clock.monotonic()
                await self._write_clock()
            await trio.sleep(ROOM_LOOK_S)

    async def _look_at_clock(self) -> None:
        """Takes what members agree on, if it is needed; when the time becomes another one, everything is checked again by it."""
        if self.clock.look():
            log.warning("another time is used now=%d source=%s", int(self.clock.now()), self.clock.source.value)
            await self.membership.check_again()
            await self.facts.check_again()
        alerts = self.membership.alerts
        alerts.pop("clock", None)
        if text := clock_trouble(self.clock):
            alerts["clock"] = text

    async def _write_clock(self) -> None:
        """Writes down what time it is at least, for a start without a clock battery."""
        floor = self.clock.raise_by_own()
        await self.ledger_store.transact(lambda snapshot: (raise_clock_floor(snapshot, floor), None))

    def look_at_room(self) -> None:
        """Whether there is room: of the budget and of the disk, less the reserve."""
        usage = self.world.chunks.usage()
        left = min(usage.bytes_budget - usage.bytes_used, usage.bytes_disk_free)
        self.holdings.is_frozen = usage.is_read_only
        if usage.is_read_only:
            self.holdings.read_only = "this node's store is on a read-only disk"
            self.replication.alerts["store-full"] = "the store is on a read-only disk: it is served, nothing is taken, moved or deleted"
        elif left < self.config.store_reserve_bytes // 8:
            self.holdings.read_only = f"this node's store is full: {max(0, left)} bytes left"
            self.replication.alerts["store-full"] = f"the store is full ({max(0, left)} bytes left); it still serves and deletes"
        else:
            self.holdings.read_only = ""
            self.replication.alerts.pop("store-full", None)
        self.membership.announce_soon()

    def _kept_chain(self) -> bytes | None:
        return self.ledger_store.peek(lambda snapshot: keys.get(snapshot, keys.Key.IDENTITY))

    def _chain_anchor(self) -> ChainAnchor | None:
        """What a newcomer is told of the domain's chain: its newest final block, else what the home knows of it."""
        if self.light is not None and self.light.trust is not None:
            shown = self.light.checkpoints()[1]
            return ChainAnchor(self.light.chain, shown.height, shown.hash)
        if self.chain is None or self.chain.tree is None:
            return self.anchor
        final = self.chain.checkpoints()[1]
        return ChainAnchor(self.chain.chain, final.height, final.hash)

    def _use_chain(self, own: OwnKeys) -> None:
        self.own = own
        self.files.use_keys(own)

    async def _keep_chain(self, encoded: bytes) -> None:
        await self.ledger_store.write(keys.put(keys.Key.IDENTITY, encoded))

    def _store_facts(self) -> tuple[bytes, int, int, bool]:
        try:
            usage = self.world.chunks.usage()
            free = max(0, min(usage.bytes_budget - usage.bytes_used, usage.bytes_disk_free))
        except StoreDamaged:
            free = 0
        return self.holdings.store_id, self.holdings.generation, free, bool(self.holdings.read_only)

    def domains(self) -> list[str]:
        """Names of the network's domains that are known here, the one that founded it first."""
        known = self.knowledge.roots
        founder = self.own.founder
        return [read_root(known[founder]).name, *sorted(read_root(root).name for domain, root in known.items() if domain != founder)]

    # --- PeersHost --------------------------------------------------------------------------------------------------

    async def prove(self, connection: Connection, expected: PeerId | None) -> NodeIdentity:
        return await self.membership.prove(connection, expected)

    async def serve_join(self, connection: Connection) -> None:
        await self.membership.serve_join(connection)

    async def serve_relayed(self, stream: Stream, peer: PeerId) -> None:
        await self.membership.serve_relayed(stream, peer)

    async def serve_ledger(self, stream: Stream, peer: PeerId) -> None:
        if self.port is None:
            stream.reset()
        else:
            await self._topics.serve(stream, peer)

    def standing(self, identity: NodeIdentity) -> Standing:
        return standing_of(identity.domain_id, self.own.domain_id)

    def dial_keys(self) -> Sequence[PresharedKey]:
        return self.membership.dial_keys()

    def address_book(self) -> Mapping[PeerId, tuple[str, ...]]:
        return self.knowledge.addresses()

    # --- gossip -----------------------------------------------------------------------------------------------------

    def _announce(self, ids: tuple[bytes, ...], source: PeerId | None) -> None:
        self.peers.announce(ids, but=source)

    def _gossip_scope(self, identity: NodeIdentity) -> GossipScope:
        return GossipScope(self.standing(identity), self.facts, self)

    def life_signs(self) -> tuple[tuple[bytes, int], ...]:
        now = self.clock.monotonic()
        signs: list[tuple[bytes, int]] = [(peer, 0) for peer in sorted(self.peers.sessions)]
        for peer, at in sorted(self.peers.last_sign.items()):
            if peer not in self.peers.sessions and now - at < LIFE_SIGN_AGE_MAX_S:
                signs.append((peer, int(now - at) + 1))
        return tuple(signs)

    def heard_of(self, peer: PeerId, entries: tuple[tuple[bytes, int], ...], rtt_s: float | None) -> None:
        self.peers.note_sign(peer)
        session = self.peers.sessions.get(peer)
        if session is not None and rtt_s is not None:
            session.rtt_s = rtt_s
        for other, age_s in entries:
            if other != self.own.peer_id and self.knowledge.book.get(other) is not None:
                self.peers.note_sign(PeerId(other), float(max(0, age_s)))
