"""The library's own host, as a user of it would start one: what each regression test shows to fail."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import trio
from libp2p import new_host
from libp2p.crypto.ed25519 import create_new_key_pair
from libp2p.network.config import ConnectionConfig
from libp2p.peer.peerinfo import PeerInfo
from multiaddr import Multiaddr

ANY_PORT = Multiaddr("/ip4/127.0.0.1/tcp/0")
PROTOCOL = "/stock/1"


def few_connections(count: int) -> ConnectionConfig:
    """A host that takes this many inbound connections: the defect of the default, 250, in seconds."""
    return ConnectionConfig(
        max_connections=count + 1, min_connections=1, low_watermark=1, high_watermark=count + 1, max_connections_per_peer=1
    )


def one_address(host: Any) -> Multiaddr:
    """Where it listens, without /p2p part."""
    return host.get_transport_addrs()[0]


@asynccontextmanager
async def stock_host(seed: bytes, *, listen: Multiaddr | None = ANY_PORT, **settings: Any) -> AsyncIterator[Any]:
    """A running host with default security and muxer."""
    addresses = [] if listen is None else [listen]
    host = new_host(key_pair=create_new_key_pair(seed.ljust(32, b".")), listen_addrs=addresses or [ANY_PORT], **settings)
    try:
        async with host.run(listen_addrs=addresses):
            yield host
    finally:
        with trio.CancelScope(shield=True), trio.move_on_after(3):
            await host.close()


async def stock_connect(client: Any, server: Any) -> Any:
    """One connection; the muxed connection of the client."""
    await client.connect(PeerInfo(server.get_id(), [one_address(server)]))
    (connection,) = client.get_network().connections[server.get_id()]
    return connection.muxed_conn
