"""Who is connected. Dials everybody in the address book, keeps one connection per pair, notices who is gone.

The one dialler of the node: all addresses of a peer in turn, each with its own time-out; back-off with jitter; every fence it knows, newest
first. Of two connections between one pair both ends keep the one that the smaller peer id dialled.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import trio

from protocols.errors import DecodeError, LadingError, Reason, RemoteError, Verdict
from protocols.gossip.spread import told_by
from protocols.identity.certificates import NodeIdentity
from protocols.ledger.profile import Access
from protocols.limits import AUTH_TIMEOUT_S
from protocols.types import AccountId, PeerId

from ..bus import Bus
from ..clock import Clock
from ..entropy import Entropy
from ..services import BY_PROTOCOL, EXCHANGE, GOSSIP, JOIN, LEDGER, Standing, may_open, may_read
from ..supervisor import run_contained
from ..transport.port import Connection, DialFailed, PresharedKey, Stream, StreamBroken, Transport
from .exchange import ExchangeClient, ExchangeHost, serve_exchange
from .gossip import GossipEnd, GossipHost

log = logging.getLogger(__name__)

DIAL_TIMEOUT_S = 5.0  # one address: connect and handshake; a LAN answers in milliseconds, a satellite link in under two seconds
DIALS_AT_ONCE_MAX = 16
BACKOFF_S_MIN = 0.5
BACKOFF_S_MAX = 15.0
# One who comes back makes the others be dialled at once, so often at most: in a network of coming and going it costs a dial more.
HOPE_INTERVAL_S = 5.0
# The side with the larger peer id waits this long before it dials, so that pairs rarely dial each other at the same moment.
POLITENESS_S = 1.0
DIAL_SCAN_S = 0.5
SESSIONS_UNPROVEN_MAX = 128
BAN_S = 600.0
STREAM_OPEN_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class PeerConnected:
    """A proven peer has a session now."""

    peer: PeerId


@dataclass(frozen=True, slots=True)
class PeerLost:
    """Its last session ended."""

    peer: PeerId
    why: str


@dataclass(eq=False)
class Session:
    """One proven connection and its long-lived streams."""

    connection: Connection
    identity: NodeIdentity
    since: float
    gossip: GossipEnd | None = None
    exchange: ExchangeClient | None = None
    exchange_lock: trio.Lock = field(default_factory=trio.Lock)
    nursery: trio.Nursery | None = None
    rtt_s: float | None = None

    @property
    def peer(self) -> PeerId:
        return self.identity.peer_id


@dataclass
class _Dialling:
    attempts: int = 0
    next_at: float = 0.0
    under_way: bool = False
    last_error: str = ""


class PeersHost(Protocol):
    """What the peers actor needs of the node around it."""

    async def prove(self, connection: Connection, expected: PeerId | None) -> NodeIdentity:
        """Runs `auth`. Raises LadingError."""

    async def serve_join(self, connection: Connection) -> None: ...

    async def serve_relayed(self, stream: Stream, peer: PeerId) -> None:
        """A newcomer's request that a proven peer passes on, or its own to have a certificate renewed."""

    async def serve_ledger(self, stream: Stream, peer: PeerId) -> None:
        """One end of a ledger stream; refused where no chain is followed."""

    def standing(self, identity: NodeIdentity) -> Standing:
        """What a proven peer's domain allows it here."""

    def dial_keys(self) -> Sequence[PresharedKey]:
        """Fences to try when dialling, newest first."""

    def address_book(self) -> Mapping[PeerId, tuple[str, ...]]:
        """Certified nodes and where they say they are; revoked ones left out."""


class Peers:
    """See the module."""

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        entropy: Entropy,
        bus: Bus,
        host: PeersHost,
        exchange_host: ExchangeHost,
        gossip_host: Callable[[NodeIdentity], GossipHost],
    ) -> None:
        self.transport = transport
        self.sessions: dict[PeerId, Session] = {}
        self.hints: dict[PeerId, tuple[str, ...]] = {}
        """Addresses from discovery and static configuration; they add to the address book."""
        self.last_sign: dict[PeerId, float] = {}
        """When a sign of life of a node was last had, directly or by gossip; monotonic seconds."""
        self._clock = clock
        self._entropy = entropy
        self._bus = bus
        self._host = host
        self._exchange_host = exchange_host
        self._gossip_host = gossip_host
        self._dialling: dict[PeerId, _Dialling] = {}
        self._banned: dict[PeerId, float] = {}
        self._wake = trio.Event()
        self._dial_slots = trio.CapacityLimiter(DIALS_AT_ONCE_MAX)
        self._unproven = 0
        self._hoped_at = float("-inf")
        self._told_of: tuple[frozenset[PeerId], frozenset[PeerId]] = (frozenset(), frozenset())  # who was connected, whom we tell

    # --- what others ask --------------------------------------------------------------------------------------------

    def is_connected(self, peer: PeerId) -> bool:
        return peer in self.sessions

    def note_sign(self, peer: PeerId, age_s: float = 0.0) -> None:
        """A sign of life of ``peer``, so old."""
        at = self._clock.monotonic() - age_s
        if at > self.last_sign.get(peer, float("-inf")):
            self.last_sign[peer] = at

    def silence_s(self, peer: PeerId) -> float:
        """Seconds since the last sign of life; infinite if there never was one."""
        if peer in self.sessions or peer == self.transport.peer_id:
            return 0.0
        return self._clock.monotonic() - self.last_sign.get(peer, float("-inf"))

    def wake(self) -> None:
        """Something about addresses or fences changed: look again now."""
        for dialling in self._dialling.values():
            dialling.next_at = min(dialling.next_at, self._clock.monotonic() + BACKOFF_S_MIN)
        self._wake.set()

    def announce(self, ids: tuple[bytes, ...], *, but: PeerId | None = None) -> None:
        """Tells peers, but not ``but``, of facts accepted here: all, in a large network some (`gossip/spread`)."""
        for peer in self._told():
            session = self.sessions[peer]
            if session.gossip is not None and peer != but:
                session.gossip.have_facts(ids)

    def _told(self) -> frozenset[PeerId]:
        """On the ring of all and on that of our domain, whose facts do not pass through other domains."""
        connected = frozenset(self.sessions)
        if self._told_of[0] != connected:
            own = self.transport.peer_id
            self._told_of = (connected, told_by(own, connected) | told_by(own, self.partners()))
        return self._told_of[1]

    async def exchange(self, peer: PeerId) -> ExchangeClient:
        """The asking side of an exchange stream to a connected peer, opened on first use. Raises StreamBroken."""
        session = self.sessions.get(peer)
        if session is None or session.nursery is None:
            raise StreamBroken("not connected to this peer")
        if not may_open(EXCHANGE, self._host.standing(session.identity)):
            raise StreamBroken("this peer belongs to another domain")
        async with session.exchange_lock:
            client = session.exchange
            if client is None or client.broken is not None:
                stream = await self.open_stream(peer, EXCHANGE)
                if session.nursery is None:
                    raise StreamBroken("the connection to this peer has ended")
                client = session.exchange = ExchangeClient(stream, peer, self._clock)
                session.nursery.start_soon(self._contain, session, client.run)
            return client

    def partners(self) -> list[PeerId]:
        """Connected peers that exchange sequences with us: those of our domain, by rising id."""
        return [peer for peer, session in sorted(self.sessions.items()) if may_open(EXCHANGE, self._host.standing(session.identity))]

    def network(self) -> list[PeerId]:
        """Connected peers of all domains, by rising id."""
        return sorted(self.sessions)

    def may_read(self, peer: PeerId, read: Access | None, maintainers: Collection[AccountId]) -> bool:
        """Whether a connected peer may hear of a chain whose profile says ``read``. maintainers: accounts that maintain it."""
        session = self.sessions.get(peer)
        if session is None:
            return False
        identity = session.identity
        return may_read(read, self._host.standing(identity), maintains=AccountId(identity.member_id) in maintainers)

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        """A new stream to a connected peer. Raises StreamBroken."""
        session = self.sessions.get(peer)
        if session is None:
            raise StreamBroken("not connected to this peer")
        with trio.move_on_after(STREAM_OPEN_TIMEOUT_S) as patience:
            stream = await session.connection.open_stream(protocol)
        if patience.cancelled_caught:
            raise StreamBroken("the peer did not take a new stream in time")
        return stream

    async def drop(self, peer: PeerId, why: str, *, ban: bool = False) -> None:
        """Ends the peer's session; banned ones are not dialled or let in for BAN_S."""
        if ban:
            self._ban(peer)
        session = self.sessions.get(peer)
        if session is not None:
            await session.connection.close(why)

    # --- life -------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._dial_loop, nursery)
            while True:
                connection = await self.transport.accept()
                if self._unproven >= SESSIONS_UNPROVEN_MAX:
                    nursery.start_soon(connection.close, "too many unproven connections")
                    continue
                nursery.start_soon(self._run_connection, connection, None)

    async def _dial_loop(self, nursery: trio.Nursery) -> None:
        while True:
            now = self._clock.monotonic()
            for peer, addresses in self._targets().items():
                if peer in self.sessions or self._banned.get(peer, 0.0) > now:
                    continue
                dialling = self._dialling.get(peer)
                if dialling is None:
                    polite = POLITENESS_S if self.transport.peer_id > peer else 0.0
                    dialling = self._dialling[peer] = _Dialling(next_at=now + polite * (0.5 + self._entropy.uniform()))
                if not dialling.under_way and dialling.next_at <= now:
                    dialling.under_way = True
                    nursery.start_soon(self._dial, peer, addresses, dialling)
            self._wake = trio.Event()
            with trio.move_on_after(DIAL_SCAN_S):
                await self._wake.wait()

    def _targets(self) -> dict[PeerId, tuple[str, ...]]:
        targets = dict(self._host.address_book())
        for peer, addresses in self.hints.items():
            targets[peer] = tuple(dict.fromkeys((*addresses, *targets.get(peer, ()))))
        targets.pop(self.transport.peer_id, None)
        return targets

    async def _dial(self, peer: PeerId, addresses: Sequence[str], dialling: _Dialling) -> None:
        try:
            async with self._dial_slots:
                connection = await self._dial_any(peer, addresses, dialling)
            if connection is not None:
                await self._run_connection(connection, peer)
        finally:
            dialling.under_way = False
            if peer in self.sessions:
                dialling.attempts = 0
            pause = min(BACKOFF_S_MAX, BACKOFF_S_MIN * 2 ** min(dialling.attempts, 10))
            dialling.attempts += 1
            dialling.next_at = self._clock.monotonic() + pause * (0.5 + self._entropy.uniform())

    async def _dial_any(self, peer: PeerId, addresses: Sequence[str], dialling: _Dialling) -> Connection | None:
        for address in addresses:
            for key in self._host.dial_keys():
                if peer in self.sessions:
                    return None
                try:
                    with trio.fail_after(DIAL_TIMEOUT_S):
                        return await self.transport.dial(address, peer, key)
                except trio.TooSlowError:
                    dialling.last_error = f"{address}: no answer for {DIAL_TIMEOUT_S:.0f} s"
                    break
                except DialFailed as error:
                    dialling.last_error = f"{address}: {error.message}"
                    if error.reason is not Reason.FENCE:
                        break
        log.debug("dial failed peer=%s error=%s", peer.hex()[-8:], dialling.last_error)
        return None

    def dial_error(self, peer: PeerId) -> str:
        """Why the last dial failed, for `peers` and `doctor`."""
        dialling = self._dialling.get(peer)
        return dialling.last_error if dialling is not None else ""

    async def _run_connection(self, connection: Connection, expected: PeerId | None) -> None:
        """One connection's whole life. Errors of the peer end it; broken invariants of ours go up."""
        why = "closed"
        errors = await run_contained(lambda: self._prove_and_serve(connection, expected))
        for error in errors:
            why = str(error)
            if isinstance(error, RemoteError) and error.verdict is Verdict.BAN:
                self._ban(connection.remote)
                log.warning("peer banned peer=%s why=%s", connection.remote.hex()[-8:], why)
            elif not isinstance(error, LadingError | trio.Cancelled):
                log.error("session failed peer=%s", connection.remote.hex()[-8:], exc_info=error)
        with trio.CancelScope(shield=True):
            await connection.close(why)

    def _ban(self, peer: PeerId) -> None:
        now = self._clock.monotonic()
        self._banned = {one: until for one, until in self._banned.items() if until > now} | {peer: now + BAN_S}

    async def _prove_and_serve(self, connection: Connection, expected: PeerId | None) -> None:
        if self._banned.get(connection.remote, 0.0) > self._clock.monotonic():
            return
        self._unproven += 1
        try:
            if connection.preshared_key.kind == "join":
                with trio.move_on_after(AUTH_TIMEOUT_S * 3):
                    await self._host.serve_join(connection)
                return
            with trio.move_on_after(AUTH_TIMEOUT_S) as patience:
                identity = await self._host.prove(connection, expected)
            if patience.cancelled_caught:
                raise RemoteError(Reason.TIMEOUT, f"not proven within {AUTH_TIMEOUT_S:.0f} s")
        finally:
            self._unproven -= 1
        connection.trust()
        session = Session(connection, identity, self._clock.monotonic())
        if not await self._register(session):
            return
        why = "closed"
        try:
            await self._serve(session)
        except BaseException as error:
            why = str(error)
            raise
        finally:
            self.note_sign(session.peer)
            if self.sessions.get(session.peer) is session:
                del self.sessions[session.peer]
                self._bus.publish(PeerLost(session.peer, why))
                self._wake.set()

    async def _register(self, session: Session) -> bool:
        """False: the other connection of this pair stays. Both ends come to the same answer."""
        old = self.sessions.get(session.peer)
        if old is not None and not old.connection.closed.is_set():
            small_dialled = (self.transport.peer_id < session.peer) == session.connection.outbound
            old_small_dialled = (self.transport.peer_id < session.peer) == old.connection.outbound
            if old_small_dialled and not small_dialled:
                return False
        self.sessions[session.peer] = session
        self.note_sign(session.peer)
        if old is not None:
            await old.connection.close("another connection of this pair stays")
        else:
            self._bus.publish(PeerConnected(session.peer))
            self._hope()
        return True

    def _hope(self) -> None:
        """Somebody is there who was not: a line that was down may be up for the others too, who need not wait out their pauses."""
        now = self._clock.monotonic()
        if now < self._hoped_at + HOPE_INTERVAL_S:
            return
        self._hoped_at = now
        for peer, dialling in self._dialling.items():
            if peer not in self.sessions:
                dialling.next_at = min(dialling.next_at, now + BACKOFF_S_MIN * (0.5 + self._entropy.uniform()))
        self._wake.set()

    async def _serve(self, session: Session) -> None:
        """Its streams until the connection ends. Whatever ends badly on one stream ends the connection: it would not heal."""
        async with trio.open_nursery() as nursery:
            session.nursery = nursery
            try:
                await self._accept_streams(session, nursery)
            finally:
                session.nursery = None  # nobody may start anything in it any more

    async def _accept_streams(self, session: Session, nursery: trio.Nursery) -> None:
        counts: dict[str, int] = {}
        if session.connection.outbound:
            stream = await session.connection.open_stream(GOSSIP)
            nursery.start_soon(self._run_gossip, session, stream)
        while True:
            try:
                stream = await session.connection.accept_stream()
            except StreamBroken:
                nursery.cancel_scope.cancel()
                return
            service = BY_PROTOCOL.get(stream.protocol)
            if service is None or counts.get(stream.protocol, 0) >= service.streams_max:
                stream.reset()
                continue
            if not may_open(stream.protocol, self._host.standing(session.identity)):
                log.info("stream refused peer=%s protocol=%s", session.peer.hex()[-8:], stream.protocol)
                stream.reset()
                continue
            counts[stream.protocol] = counts.get(stream.protocol, 0) + 1
            nursery.start_soon(self._serve_stream, session, stream, counts)

    async def _serve_stream(self, session: Session, stream: Stream, counts: dict[str, int]) -> None:
        try:
            if stream.protocol == GOSSIP:
                await self._run_gossip(session, stream)
            elif stream.protocol == EXCHANGE:
                await serve_exchange(stream, session.peer, self._exchange_host, self._clock)
            elif stream.protocol == JOIN:
                await self._host.serve_relayed(stream, session.peer)
            elif stream.protocol == LEDGER:
                await self._host.serve_ledger(stream, session.peer)
            else:
                stream.reset()
        except (DecodeError, RemoteError):
            stream.reset()
            raise
        finally:
            counts[stream.protocol] -= 1

    async def _run_gossip(self, session: Session, stream: Stream) -> None:
        """The gossip stream is the connection's pulse: when it ends, so does the connection."""
        session.gossip = GossipEnd(stream, session.peer, self._gossip_host(session.identity), self._clock)
        try:
            await session.gossip.run()
        finally:
            session.gossip = None
        raise StreamBroken("the gossip stream ended")

    async def _contain(self, session: Session, run: Callable[[], Awaitable[None]]) -> None:
        await run()
