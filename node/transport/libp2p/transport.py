"""The port's Transport over TCP: listens, dials, upgrades, and takes everything down within a second."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import trio

from protocols.crypto import SessionCipher
from protocols.errors import LadingError, LocalError, Reason, RemoteError, UsageError
from protocols.limits import FENCES_KEPT_MAX, TICKETS_OPEN_MAX
from protocols.types import NetworkId, PeerId

from ..port import DialFailed, PresharedKey, StreamBroken
from .addresses import concrete, multiaddr_of, parse
from .budget import RateBudget
from .ciphers import ciphers_of_this_machine
from .connection import Libp2pConnection
from .doorkeeper import HANDSHAKE_TIMEOUT_S, Doorkeeper
from .lane import LANES, OWN, LaneSession
from .mux import MUXER_PROTOCOL
from .negotiate import propose, respond
from .noise import Identity, secure_inbound, secure_outbound, security_protocol
from .wire import Wire

if TYPE_CHECKING:
    from trio_typing import TaskStatus

log = logging.getLogger(__name__)

CONNECTIONS_INBOUND_MAX = 256
# One is enough; a second is a dial from both sides at once, more are leftovers of a peer that lost them without our noticing.
CONNECTIONS_INBOUND_PER_PEER_MAX = 4
PRESHARED_KEYS_MAX = FENCES_KEPT_MAX + TICKETS_OPEN_MAX
LISTEN_BACKLOG = 128
# All connections are closed side by side; what has not left by then is lost, as it would be in a power cut.
STOP_FLUSH_S = 0.5


class Libp2pTransport:
    """One node's network. ``run`` once; dial and accept while it runs."""

    def __init__(
        self,
        key_seed: bytes,
        network: NetworkId,
        listen: Sequence[str],
        *,
        keys: Sequence[PresharedKey] = (),
        lane: str = OWN.name,
        ciphers: Sequence[SessionCipher] | None = None,
    ) -> None:
        """key_seed: 32 bytes of the node's Ed25519 key. listen: multiaddrs, port 0 for any; none: dial only.

        keys: as for ``set_preshared_keys``. lane: one of LANES. ciphers: spoken here, the best first; by default what this machine
        is quick at. Raises UsageError for a bad address.
        """
        self.identity = Identity.from_seed(key_seed, network)
        self.peer_id: PeerId = self.identity.peer
        self._listen_addresses = tuple(parse(address) for address in listen)
        self._lane = LANES[lane]
        self._ciphers = {security_protocol(network, cipher): cipher for cipher in ciphers or ciphers_of_this_machine()}
        self._keys: tuple[PresharedKey, ...] = ()
        self.set_preshared_keys(keys)
        self._doorkeeper = Doorkeeper()
        self._connections: dict[Libp2pConnection, None] = {}  # oldest first
        self._listeners: tuple[trio.SocketListener, ...] = ()
        self._nursery: trio.Nursery | None = None
        self._stopping = trio.Event()
        self._budgets: dict[PeerId, RateBudget] = {}
        self._accepted_put, self._accepted_take = trio.open_memory_channel[Libp2pConnection](CONNECTIONS_INBOUND_MAX)

    # --- settings -------------------------------------------------------------------------------------------------
    def set_preshared_keys(self, keys: Sequence[PresharedKey]) -> None:
        """The keys a responder tries on the first handshake message, in this order (at most 64 fences + 64 tickets)."""
        if len(keys) > PRESHARED_KEYS_MAX:
            raise LocalError(Reason.FAILED, f"{len(keys)} keys, at most {PRESHARED_KEYS_MAX} wanted")
        self._keys = tuple(keys)

    def set_rate(self, peer: PeerId, bytes_per_s: float) -> None:
        """Bounds what is sent to one peer over all its connections, now and later; math.inf lifts the bound."""
        budget = self._budgets[peer] = self._budget(peer)
        budget.set_rate(bytes_per_s)
        if math.isinf(bytes_per_s):
            del self._budgets[peer]

    def _budget(self, peer: PeerId) -> RateBudget:
        """The one that was set, or that of its living connections, or a new one: peers that come and go leave nothing behind."""
        living = (connection.muxer.budget for connection in self._connections if connection.remote == peer)
        return self._budgets.get(peer) or next(living, None) or RateBudget()

    @property
    def connections(self) -> tuple[Libp2pConnection, ...]:
        """Those that live now, both ways."""
        return tuple(self._connections)

    @property
    def addresses(self) -> tuple[str, ...]:
        """Multiaddrs listened on, as of now: a wildcard's change with the machine's interfaces. () while not running."""
        found: dict[str, None] = {}
        for listener in self._listeners:
            host, port, *_ = listener.socket.getsockname()
            found.update(dict.fromkeys(concrete(host, port)))
        return tuple(found)

    # --- life -----------------------------------------------------------------------------------------------------
    async def run(self, *, task_status: TaskStatus[Sequence[str]] = trio.TASK_STATUS_IGNORED) -> None:
        """Listens until cancelled. Started value: addresses listened on, as multiaddrs without /p2p part.
        Raises LadingError(FAILED) naming the address when none could be bound."""
        listeners = await self._bind()
        self._listeners = tuple(listeners)
        self._stopping = trio.Event()
        try:
            async with trio.open_nursery() as nursery:
                self._nursery = await nursery.start(self._keep_connections)
                try:
                    if listeners:
                        nursery.start_soon(self._serve, listeners, self._nursery)
                    task_status.started(self.addresses)
                    await trio.sleep_forever()
                finally:
                    self._nursery = None
                    self._stopping.set()
        finally:
            self._listeners = ()
            for listener in listeners:
                listener.socket.close()

    async def _keep_connections(self, *, task_status: TaskStatus[trio.Nursery]) -> None:
        """Holds the tasks of all connections, out of reach of the cancellation that stops ``run``, and closes them when it comes."""
        async with trio.open_nursery() as nursery:
            nursery.cancel_scope.shield = True
            task_status.started(nursery)
            await self._stopping.wait()
            async with trio.open_nursery() as closing:
                for connection in self.connections:
                    closing.start_soon(connection.close_within, STOP_FLUSH_S, "this node stops")
            nursery.cancel_scope.cancel()

    async def _bind(self) -> list[trio.SocketListener]:
        """One listener per address that can be had. SO_REUSEPORT stays off: with it two nodes would share a port in silence."""
        listeners: list[trio.SocketListener] = []
        failures: list[str] = []
        for address in self._listen_addresses:
            try:
                listeners += await trio.open_tcp_listeners(address.port, host=address.host, backlog=LISTEN_BACKLOG)
            except OSError as error:
                failures.append(f"{address}: {error.strerror or error}")
                log.warning("cannot listen on %s: %s", address, error)
        if failures and not listeners:
            raise LadingError(
                Reason.FAILED, "cannot listen on " + "; ".join(failures), hint="is another node running, or the address another machine's?"
            )
        return listeners

    async def _serve(self, listeners: list[trio.SocketListener], nursery: trio.Nursery) -> None:
        await trio.serve_listeners(self._welcome, listeners, handler_nursery=nursery)

    # --- inbound --------------------------------------------------------------------------------------------------
    async def accept(self) -> Libp2pConnection:
        """Next inbound connection that passed the fence and still lives."""
        while True:
            connection = await self._accepted_take.receive()
            if not connection.closed.is_set():
                return connection

    async def _welcome(self, stream: trio.SocketStream) -> None:
        """One inbound caller, from the first byte to the end of its connection. Whatever it does, only this ends."""
        wire = None
        try:
            host, port, *_ = stream.socket.getpeername()
            wire = Wire(stream)
            session = None
            with self._doorkeeper.admitted(host):
                session = await self._upgrade_inbound(wire)
            if session is not None and self._has_room(session.remote):
                connection = self._connection(wire, session, outbound=False, remote_address=multiaddr_of(host, port))
                self._accepted_put.send_nowait(connection)
                await self._live(connection)
        except (LadingError, OSError, trio.WouldBlock) as error:
            log.debug("caller refused: %s", error)
        finally:
            await trio.aclose_forcefully(stream)

    def _has_room(self, peer: PeerId) -> bool:
        """Whether one more inbound connection may live. A peer's oldest gives way to its newest."""
        inbound = [connection for connection in self._connections if not connection.outbound]
        same = [connection for connection in inbound if connection.remote == peer]
        if len(same) >= CONNECTIONS_INBOUND_PER_PEER_MAX:
            same[0].drop("the peer has newer connections")
            return True
        return len(inbound) < CONNECTIONS_INBOUND_MAX

    async def _upgrade_inbound(self, wire: Wire) -> LaneSession:
        security = await respond(wire, lambda proposed: proposed in self._ciphers)
        session = await secure_inbound(wire, self.identity, self._keys, self._ciphers[security], self._lane.session)
        await respond(session, lambda proposed: proposed == MUXER_PROTOCOL)
        return session

    # --- outbound -------------------------------------------------------------------------------------------------
    async def dial(self, address: str, peer: PeerId | None, preshared_key: PresharedKey) -> Libp2pConnection:
        """Connects to one multiaddr, expecting ``peer`` (else the address' /p2p part) if given. Bounded by HANDSHAKE_TIMEOUT_S
        after TCP has connected, and as long before. Raises DialFailed(FENCE, WRONG_PEER, UNREACHABLE, TIMEOUT)."""
        if self._nursery is None:
            raise DialFailed(Reason.UNREACHABLE, "this transport is not running")
        try:
            target = parse(address)
        except UsageError as error:
            raise DialFailed(Reason.UNREACHABLE, error.message) from error
        if peer is not None and target.peer not in (None, peer):
            raise DialFailed(Reason.WRONG_PEER, f"{address} names another node than the one wanted")
        try:
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                stream = await trio.open_tcp_stream(target.host, target.port)
            with trio.fail_after(HANDSHAKE_TIMEOUT_S):
                return await self._upgrade_outbound(stream, str(target), peer or target.peer, preshared_key)
        except trio.TooSlowError as error:
            raise DialFailed(Reason.TIMEOUT, f"{address} did not answer within {HANDSHAKE_TIMEOUT_S:.0f} s") from error
        except OSError as error:
            raise DialFailed(Reason.UNREACHABLE, f"nobody answers at {address}: {error.strerror or error}") from error

    async def _upgrade_outbound(
        self, stream: trio.SocketStream, address: str, peer: PeerId | None, preshared_key: PresharedKey
    ) -> Libp2pConnection:
        try:
            wire = Wire(stream)
            security = await propose(wire, *self._ciphers)
            if security is None:
                raise DialFailed(Reason.UNREACHABLE, f"no node of this network at {address}")
            session = await secure_outbound(wire, self.identity, peer, preshared_key, self._ciphers[security], self._lane.session)
            if session.remote == self.peer_id:
                raise DialFailed(Reason.WRONG_PEER, f"{address} is this node itself")
            if not await propose(session, MUXER_PROTOCOL):
                raise DialFailed(Reason.UNREACHABLE, f"the node at {address} does not speak {MUXER_PROTOCOL}")
            if self._nursery is None:
                raise DialFailed(Reason.UNREACHABLE, "this node stops")
        except BaseException as error:
            await trio.aclose_forcefully(stream)
            if isinstance(error, StreamBroken | RemoteError):
                raise DialFailed(Reason.UNREACHABLE, f"{address}: {error.message}") from error
            raise
        connection = self._connection(wire, session, outbound=True, remote_address=address)
        self._nursery.start_soon(self._live, connection)
        return connection

    # --- both -----------------------------------------------------------------------------------------------------
    def _connection(self, wire: Wire, session: LaneSession, *, outbound: bool, remote_address: str) -> Libp2pConnection:
        budget = self._budget(session.remote)
        return Libp2pConnection(wire, session, self._lane, outbound=outbound, remote_address=remote_address, budget=budget)

    async def _live(self, connection: Libp2pConnection) -> None:
        self._connections[connection] = None
        try:
            await connection.run()
        finally:
            del self._connections[connection]
