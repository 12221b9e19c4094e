"""The standard stack, `/noise` and `/yamux/1.0.0`, made of the classes that run under a node: no fence, no prologue, no frames of ours."""

from __future__ import annotations

from collections.abc import Callable

import trio
from libp2p.peer.id import ID
from libp2p.security.noise.patterns import PatternXX

from node.transport.libp2p.budget import RateBudget
from node.transport.libp2p.mux import Muxer, MuxStream
from node.transport.libp2p.negotiate import propose, respond
from node.transport.libp2p.noise import Identity, Session, session_of
from node.transport.libp2p.wire import Wire
from node.transport.port import PresharedKey
from protocols.types import NetworkId
from protocols.yamux.session import Limits

NOISE, YAMUX = "/noise", "/yamux/1.0.0"
NO_FENCE = PresharedKey("fence", bytes(32), bytes(32))


class StandardConnection:
    """One connection; ``run`` serves it until it is lost."""

    def __init__(self, session: Session, *, initiator: bool, limits: Limits | None = None) -> None:
        self.session = session
        self._put, self.accepted = trio.open_memory_channel[MuxStream](2000)
        self.muxer = Muxer(session, initiator=initiator, opened=self._put.send_nowait, budget=RateBudget(), limits=limits)
        self.muxer.trust()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for loop in self.muxer.loops:
                nursery.start_soon(loop)

    async def open(self, protocol: str) -> MuxStream:
        """A new stream on which ``protocol`` is spoken."""
        stream = self.muxer.open()
        assert await propose(stream, protocol)
        return stream

    async def accept(self, speaks: Callable[[str], bool]) -> tuple[str, MuxStream]:
        """The next stream of the peer's, and what it wants to speak on it."""
        stream = await self.accepted.receive()
        return await respond(stream, speaks), stream


def _pattern(seed: bytes) -> PatternXX:
    identity = Identity.from_seed(seed.ljust(32, b"."), NetworkId(bytes(32)))
    return PatternXX(ID(identity.peer), identity.signing_key, identity.static_key)


async def dial(host: str, port: int, peer: ID) -> StandardConnection:
    """Connects and negotiates; ``run`` is the caller's to start."""
    wire = Wire(await trio.open_tcp_stream(host, port))
    assert await propose(wire, NOISE)
    session = session_of(wire, await _pattern(b"dialler").handshake_outbound(wire, peer), NO_FENCE)
    assert await propose(session, YAMUX)
    return StandardConnection(session, initiator=True)


async def welcome(stream: trio.SocketStream) -> StandardConnection:
    """The answering side of ``dial``."""
    wire = Wire(stream)
    await respond(wire, lambda proposed: proposed == NOISE)
    session = session_of(wire, await _pattern(b"answerer").handshake_inbound(wire), NO_FENCE)
    await respond(session, lambda proposed: proposed == YAMUX)
    return StandardConnection(session, initiator=False)


def answerer_id() -> ID:
    """Peer id of whoever ``welcome``s."""
    peer: ID = _pattern(b"answerer").local_peer
    return peer
