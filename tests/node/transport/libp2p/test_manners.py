"""The libp2p twin keeps the manners of every transport, over real sockets on loopback."""

from __future__ import annotations

import socket

import pytest

from node.transport.libp2p.transport import Libp2pTransport
from protocols.types import NetworkId

from ..manners import Manners

NETWORK = NetworkId(b"n" * 32)


class LoopbackWorld:
    """Transports on loopback, each with a key made of its name."""

    def transport(self, name: str) -> Libp2pTransport:
        return self.transport_at(name, "/ip4/127.0.0.1/tcp/0")

    def transport_at(self, name: str, address: str) -> Libp2pTransport:
        return Libp2pTransport(name.encode().ljust(32, b"."), NETWORK, [address])

    def nowhere(self) -> str:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}"


@pytest.fixture
def world() -> LoopbackWorld:
    return LoopbackWorld()


@pytest.fixture
def clock() -> None:
    """The real one."""


class TestLibp2p(Manners):
    """The contract over TCP."""
