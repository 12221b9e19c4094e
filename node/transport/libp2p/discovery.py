"""Other nodes of our network on the local network, by multicast DNS.

zeroconf runs in threads of its own; starting and stopping it blocks for up to seconds, so that happens in a worker thread, and
what it hears is handed over to trio. What is heard is a hint from anybody on the cable: only a dial proves it.
"""

from __future__ import annotations

import logging
import socket
from dataclasses import dataclass

import trio
from zeroconf import Error as ZeroconfError
from zeroconf import ServiceBrowser, ServiceInfo, ServiceStateChange, Zeroconf

from protocols.crypto import Label, hash_labelled
from protocols.limits import ADDRESSES_PER_NODE_MAX
from protocols.types import NetworkId, PeerId

from .addresses import interface_hosts, multiaddr_of
from .noise import is_peer_id

log = logging.getLogger(__name__)

SERVICE_TYPE = "_lading._udp.local."
TAG_BYTES = 8
# Cables are plugged in, leases end, Wi-Fi roams: how often the interfaces are looked at again.
INTERFACES_CHECK_S = 10.0
LOOKUP_TIMEOUT_MS = 3000


@dataclass(frozen=True, slots=True)
class Sighting:
    """A node that says it is of our network, and multiaddrs where it says it listens."""

    peer: PeerId
    addresses: tuple[str, ...]


def network_tag(network: NetworkId) -> str:
    """What is shouted instead of the network id: 16 hex digits that only those recognise who know the id."""
    return hash_labelled(Label.DISCOVERY, network)[:TAG_BYTES].hex()


def service_of(network: NetworkId, peer: PeerId, port: int, hosts: tuple[str, ...]) -> ServiceInfo:
    """What one node announces. hosts: numeric addresses."""
    instance = f"lading-{hash_labelled(Label.DISCOVERY, network, peer)[:TAG_BYTES].hex()}"
    families = [(socket.AF_INET6 if ":" in host else socket.AF_INET, host) for host in hosts]
    return ServiceInfo(
        SERVICE_TYPE,
        f"{instance}.{SERVICE_TYPE}",
        addresses=[socket.inet_pton(family, host) for family, host in families],
        port=port,
        properties={"network": network_tag(network), "peer": peer.hex()},
        server=f"{instance}.local.",
    )


def read_service_untrusted(service: ServiceInfo, network: NetworkId, own: PeerId) -> Sighting | None:
    """What an announcement says, or None if it is not for us: another network, ourselves, nonsense."""
    properties = service.properties
    try:
        peer = PeerId(bytes.fromhex((properties.get(b"peer") or b"").decode()))
        tag = (properties.get(b"network") or b"").decode()
    except ValueError:
        return None
    if tag != network_tag(network) or peer == own or not is_peer_id(peer) or not service.port:
        return None
    hosts = service.parsed_addresses()[:ADDRESSES_PER_NODE_MAX]
    return Sighting(peer, tuple(multiaddr_of(host, service.port) for host in hosts))


class _Radio:
    """zeroconf on a fixed set of interfaces. Both methods block; the rest happens in zeroconf's threads."""

    def __init__(self, network: NetworkId, peer: PeerId, port: int, found: trio.MemorySendChannel[Sighting]) -> None:
        self._network = network
        self._peer = peer
        self._port = port
        self._found = found
        self._token = trio.lowlevel.current_trio_token()
        self._zeroconf: Zeroconf | None = None

    def start(self, hosts: tuple[str, ...]) -> None:
        """Announces and listens on the interfaces with these addresses. Raises OSError, ZeroconfError."""
        self._zeroconf = Zeroconf(interfaces=list(hosts))
        self._zeroconf.register_service(service_of(self._network, self._peer, self._port, hosts), cooperating_responders=True)
        ServiceBrowser(self._zeroconf, SERVICE_TYPE, handlers=[self._heard])

    def stop(self) -> None:
        if self._zeroconf is not None:
            self._zeroconf.close()
            self._zeroconf = None

    def _heard(self, zeroconf: Zeroconf, service_type: str, name: str, state_change: ServiceStateChange) -> None:
        """In zeroconf's browser thread."""
        if state_change is ServiceStateChange.Removed:
            return
        service = zeroconf.get_service_info(service_type, name, timeout=LOOKUP_TIMEOUT_MS)
        sighting = service and read_service_untrusted(service, self._network, self._peer)
        if sighting:
            try:
                self._token.run_sync_soon(self._hand_over, sighting)
            except trio.RunFinishedError:
                log.debug("heard of a node after the end")

    def _hand_over(self, sighting: Sighting) -> None:
        """In trio's thread."""
        try:
            self._found.send_nowait(sighting)
        except (trio.WouldBlock, trio.BrokenResourceError, trio.ClosedResourceError):
            log.debug("nobody has time for a sighting; it will be announced again")


async def discover(network: NetworkId, peer: PeerId, port: int, found: trio.MemorySendChannel[Sighting]) -> None:
    """Announces this node and sends what it hears into ``found`` (dropped when full), until cancelled; then says goodbye.

    Starts anew whenever the machine's addresses change, so nodes may be seen again. Never raises but Cancelled.
    """
    radio = _Radio(network, peer, port, found)
    tuned: tuple[str, ...] = ()
    try:
        while True:
            hosts = (*interface_hosts(4), *interface_hosts(6))
            if hosts != tuned:
                try:
                    await trio.to_thread.run_sync(radio.stop)
                    await trio.to_thread.run_sync(radio.start, hosts)
                    tuned = hosts
                    log.info("looking for nodes on %s", ", ".join(hosts))
                except (OSError, ZeroconfError, RuntimeError) as error:
                    tuned = ()
                    log.warning("cannot look for nodes on the local network, trying again in %.0f s: %s", INTERFACES_CHECK_S, error)
            await trio.sleep(INTERFACES_CHECK_S)
    finally:
        with trio.CancelScope(shield=True):
            await trio.to_thread.run_sync(radio.stop)
