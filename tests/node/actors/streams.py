"""Two connected peers in one process, and a run in virtual time."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass

import trio
from trio.testing import MockClock

from node.transport.memory import MemoryConnection, MemoryNetwork, MemoryTransport
from node.transport.port import Connection, PresharedKey, Stream
from protocols.types import PeerId

FENCE = PresharedKey("fence", b"F" * 32, b"f" * 32)
ALICE, BOB = PeerId(b"alice"), PeerId(b"bob")
# Virtual seconds: longer than any patience that is tested.
LIFE_S = 600.0


@dataclass
class Pair:
    """alice, bob: the two ends of one connection."""

    network: MemoryNetwork
    alice: Connection
    bob: Connection
    nursery: trio.Nursery

    async def stream(self, protocol: str) -> tuple[Stream, Stream]:
        """A stream that alice opened: (her end, bob's end)."""
        ends: list[Stream] = []

        async def accept() -> None:
            ends.append(await self.bob.accept_stream())

        async with trio.open_nursery() as nursery:
            nursery.start_soon(accept)
            opened = await self.alice.open_stream(protocol)
        return opened, ends[0]

    async def stream_back(self, protocol: str) -> tuple[Stream, Stream]:
        """A stream that bob opened: (alice's end, his end)."""
        theirs, ours = await Pair(self.network, self.bob, self.alice, self.nursery).stream(protocol)
        return ours, theirs


@asynccontextmanager
async def connected(*protocols: str) -> AsyncIterator[Pair]:
    """Two peers that speak these protocols. Everything started in ``nursery`` ends with the block."""
    network = MemoryNetwork(random.Random(1))
    transports = [MemoryTransport(network, peer, (f"/memory/{peer.decode()}",), protocols=protocols) for peer in (ALICE, BOB)]
    async with trio.open_nursery() as nursery:
        for transport in transports:
            transport.set_preshared_keys((FENCE,))
            await nursery.start(transport.run)
        dialled = await transports[0].dial("/memory/bob", BOB, FENCE)
        accepted = await transports[1].accept()
        assert isinstance(dialled, MemoryConnection)
        dialled.trust()
        accepted.trust()
        yield Pair(network, dialled, accepted, nursery)
        nursery.cancel_scope.cancel()


def live(story: Callable[[], Awaitable[None]], life_s: float = LIFE_S) -> None:
    """Runs ``story`` in virtual time, at most ``life_s`` seconds of it."""

    async def bounded() -> None:
        with trio.fail_after(life_s):
            await story()

    trio.run(bounded, clock=MockClock(autojump_threshold=0), strict_exception_groups=True)
