"""A small world for the harness itself: peers on the memory transport send each other frames while links fail at random.

Run as a program it prints the hash of its trace: ``python -m tests.simulation.small_world SEED``.
"""

from __future__ import annotations

import random
import sys

import trio

from node.offload import SimulatedOffload
from node.transport.memory import Link, MemoryConnection, MemoryNetwork, MemoryStream, MemoryTransport
from node.transport.port import DialFailed, PresharedKey, StreamBroken, StreamEnded
from protocols.types import PeerId

from .scheduler import chance, run_world
from .trace import Trace

PEERS = 5
LIFE_S = 60.0
FENCE = PresharedKey("fence", b"F" * 32, b"f" * 32)
PROTOCOL = "/lading/small-world/1"


class SmallWorld:
    """PEERS peers that dial each other again and again, talk, and are disturbed."""

    def __init__(self, seed: int, trace: Trace) -> None:
        self.trace = trace
        self.network = MemoryNetwork(chance(seed, "network"), link=Link(latency_s=0.02, jitter_s=0.03, bandwidth_bytes_s=1e6))
        self.peers = [PeerId(b"peer%d" % number) for number in range(PEERS)]
        self.transports = [MemoryTransport(self.network, peer, (f"/memory/{peer.decode()}",)) for peer in self.peers]
        disk = chance(seed, "disk")
        self.offload = SimulatedOffload(lambda: disk.random() * 0.01)
        self.faults = chance(seed, "faults")
        self.sent = 0
        self.arrived = 0
        self.broken = 0

    async def live(self) -> None:
        """LIFE_S virtual seconds of it."""
        with trio.move_on_after(LIFE_S):
            async with trio.open_nursery() as nursery:
                for transport in self.transports:
                    transport.set_preshared_keys((FENCE,))
                    await nursery.start(transport.run)
                    nursery.start_soon(self._accept, transport, nursery)
                for number, transport in enumerate(self.transports):
                    nursery.start_soon(self._talk, transport, random.Random(self.faults.random() + number))
                nursery.start_soon(self._disturb)

    async def _accept(self, transport: MemoryTransport, nursery: trio.Nursery) -> None:
        while True:
            nursery.start_soon(self._serve, await transport.accept())

    async def _serve(self, connection: MemoryConnection) -> None:
        connection.trust()
        try:
            stream = await connection.accept_stream()
            while True:
                frame = await stream.receive()
                await self.offload.run(self._keep, connection, frame, lane="chunks")
                await stream.send(frame[:8])
        except StreamEnded:
            await connection.close("thank you")
        except StreamBroken:
            self.broken += 1
            self.trace.note("broke", at=connection.local, remote=connection.remote)

    def _keep(self, connection: MemoryConnection, frame: bytes) -> None:
        self.arrived += 1
        self.trace.note("arrived", at=connection.local, remote=connection.remote, frame=frame[:8], size=len(frame))

    async def _talk(self, transport: MemoryTransport, mind: random.Random) -> None:
        while True:
            await trio.sleep(mind.random())
            peer = mind.choice([peer for peer in self.peers if peer != transport.peer_id])
            try:
                with trio.move_on_after(30):
                    connection = await transport.dial(f"/memory/{peer.decode()}", peer, FENCE)
                    connection.trust()
                    await self._converse(connection, await connection.open_stream(PROTOCOL), mind)
            except (DialFailed, StreamBroken, StreamEnded) as error:
                self.broken += 1
                self.trace.note("failed", at=transport.peer_id, remote=peer, error=type(error).__name__)

    async def _converse(self, connection: MemoryConnection, stream: MemoryStream, mind: random.Random) -> None:
        for _ in range(mind.randrange(1, 5)):
            frame = mind.randbytes(8) + bytes(mind.randrange(100_000))
            await stream.send(frame)
            self.sent += 1
            assert await stream.receive() == frame[:8], "an answer to another question"
        await stream.finish()
        await connection.closed.wait()
        self.trace.note("said", at=connection.local, remote=connection.remote, handshake=connection.handshake_hash)

    async def _disturb(self) -> None:
        while True:
            await trio.sleep(self.faults.random() * 6)
            a, b = self.faults.sample(self.peers, 2)
            match self.faults.randrange(6):
                case 0 | 1:
                    self.network.cut(a, b, one_way=self.faults.random() < 0.3)
                case 2 | 3:
                    self.network.reset(a, b)
                case 4:
                    self.network.freeze(a)
                case _:
                    self.network.heal_all()


async def tell(seed: int, trace: Trace) -> tuple[int, int, int]:
    """One life of a small world. Result: frames sent, frames arrived, dials and conversations that failed."""
    world = SmallWorld(seed, trace)
    await world.live()
    return world.sent, world.arrived, world.broken


if __name__ == "__main__":
    counts, digest = run_world(tell, int(sys.argv[1]))
    print(digest, *counts)
