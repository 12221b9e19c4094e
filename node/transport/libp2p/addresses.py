"""Multiaddrs to host and port and back, and the addresses of this machine.

Spoken: /ip4|ip6|dns|dns4|dns6/<host>/tcp/<port>, with or without /p2p/<peer id> behind.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass

import ifaddr

from protocols.errors import UsageError
from protocols.types import PeerId

from .library import ID, Multiaddr

HOST_PROTOCOLS = ("ip4", "ip6", "dns", "dns4", "dns6")


@dataclass(frozen=True, slots=True)
class TcpAddress:
    """Where to dial or listen. peer: the /p2p part, if any."""

    host: str
    port: int
    peer: PeerId | None = None

    def __str__(self) -> str:
        return multiaddr_of(self.host, self.port)


def parse(address: str) -> TcpAddress:
    """Raises UsageError when it is not a TCP multiaddr."""
    try:
        parts = [(protocol.name, value) for protocol, value in Multiaddr(address).items()]
        (kind, host), (transport, port) = parts[:2]
        peer = None
        if len(parts) == 3 and parts[2][0] == "p2p":
            peer = PeerId(ID.from_base58(str(parts[2][1])).to_bytes())
        elif len(parts) != 2:
            raise ValueError("more parts than host, port and peer")
        if kind not in HOST_PROTOCOLS or transport != "tcp":
            raise ValueError(f"{kind} and {transport}")
        return TcpAddress(str(host), int(str(port)), peer)
    except Exception as error:  # a door: the library raises a dozen classes for a bad address
        raise UsageError(
            f"{address!r} is no address that can be used", hint="write it like /ip4/192.0.2.1/tcp/4001 or /dns4/name.example/tcp/4001"
        ) from error


def multiaddr_of(host: str, port: int) -> str:
    """host: numeric address (an IPv6 scope is dropped) or name."""
    host = host.partition("%")[0]
    try:
        version = ipaddress.ip_address(host).version
    except ValueError:
        return f"/dns/{host}/tcp/{port}"
    return f"/ip{version}/{host}/tcp/{port}"


def interface_hosts(version: int) -> tuple[str, ...]:
    """Addresses of this machine's interfaces, sorted: what others can reach; loopback only if there is nothing else.

    version: 4 or 6. Link-local IPv6 is left out, it means nothing without its interface.
    """
    found = set()
    for adapter in ifaddr.get_adapters():
        for ip in adapter.ips:
            host = ip.ip if isinstance(ip.ip, str) else ip.ip[0]
            address = ipaddress.ip_address(host.partition("%")[0])
            if address.version == version and not (version == 6 and address.is_link_local):
                found.add(address)
    reachable = {address for address in found if not address.is_loopback} or found
    return tuple(str(address) for address in sorted(reachable, key=int))


def concrete(host: str, port: int) -> Sequence[str]:
    """Multiaddrs under which a listener bound to that host is reached: all interfaces for a wildcard."""
    address = ipaddress.ip_address(host.partition("%")[0])
    if not address.is_unspecified:
        return (multiaddr_of(host, port),)
    return tuple(multiaddr_of(each, port) for each in interface_hosts(address.version))
