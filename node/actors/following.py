"""The chains of one node: each with an actor, pool, seat, bus and conversations over a database of its own; streams find theirs by Hello.

Nothing passes between two chains: what a chain tells stays on its own bus, and a peer is told of a chain only in a stream that named it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Protocol

import trio

from protocols.errors import Reason, RemoteError
from protocols.ledger.messages import Hello
from protocols.ledger.pool import Limits
from protocols.ledger.profile import Access
from protocols.limits import LEDGER_SILENCE_MAX_S, LEDGER_STREAMS_PER_CHAIN_MAX
from protocols.registry import decode_message
from protocols.types import AccountId, ChainId, PeerId

from ..bus import Bus
from ..clock import Clock
from ..entropy import Entropy
from ..offload import Offload
from ..transport.port import Stream, StreamBroken, StreamEnded
from .archives import Archives
from .chain import ChainActor, ChainSetup
from .sealer import Sealer
from .storage import StorageHandle
from .talk import Talks


class ChainPeers(Protocol):
    """What chains need of the connections."""

    def partners(self) -> list[PeerId]:
        """Connected peers of our own domain."""

    def network(self) -> list[PeerId]:
        """Connected peers of all domains."""

    def may_read(self, peer: PeerId, read: Access | None, maintainers: Collection[AccountId]) -> bool:
        """Whether a peer may hear of a chain with this profile, by the table (``node/services``)."""

    async def open_stream(self, peer: PeerId, protocol: str) -> Stream:
        """Raises StreamBroken."""

    async def drop(self, peer: PeerId, why: str, *, ban: bool = False) -> None: ...


class Partners:
    """Those with whom one chain is talked about. Implements ``TalkPeers``."""

    def __init__(self, peers: ChainPeers, chain: ChainActor, *, is_domains: bool) -> None:
        """is_domains: nobody of another domain has it."""
        self._peers = peers
        self._is_domains = is_domains
        self._chain = chain
        self.open_stream, self.drop = peers.open_stream, peers.drop

    def partners(self) -> list[PeerId]:
        """Of our own domain; of all domains where anybody may read, or nothing is here that says who may."""
        read = self._read()
        is_for_all = read == "public" or (read is None and not self._is_domains)
        return self._peers.network() if is_for_all else self._peers.partners()

    def may_read(self, peer: PeerId) -> bool:
        """Whether this one may."""
        facts = self._chain.facts
        return self._peers.may_read(peer, self._read(), frozenset() if facts is None else facts.maintainers)

    def _read(self) -> Access | None:
        return None if self._chain.facts is None else self._chain.facts.profile.read


class Followed:
    """One chain of a node."""

    def __init__(
        self,
        setup: ChainSetup,
        storage: StorageHandle,
        own: PeerId,
        peers: ChainPeers,
        clock: Clock,
        entropy: Entropy,
        bus: Bus,
        offload: Offload,
        *,
        cpu_share: float = 1.0,
        pool: Limits = Limits(),
        again_s: float = 0.0,
    ) -> None:
        """storage: of this chain alone. bus: where it tells what moves, another one for each chain. cpu_share: as of ``Sealer``.

        again_s: how long a peer that refused a stream about this chain is left alone; 0 for the domain's own, which all its nodes have.
        """
        self.bus = bus
        self.storage = storage
        self.chain = ChainActor(
            setup.chain,
            setup.genesis,
            setup.keys,
            storage,
            setup.promises,
            clock,
            bus,
            offload,
            ring=setup.ring,
            anchor=setup.anchor,
            heights_kept=setup.heights_kept,
            pool_limits=pool,
        )
        self.sealer = Sealer(self.chain, offload, cpu_share=cpu_share)
        partners = Partners(peers, self.chain, is_domains=not again_s)
        self.talks = Talks(own, self.chain, partners, clock, entropy, bus, again_s=again_s, may_read=partners.may_read)
        self.archives = Archives(self.chain, self.talks, own, clock)

    @property
    def id(self) -> ChainId:
        """Which chain."""
        return self.chain.chain

    @property
    def name(self) -> str:
        """What the chain is called; its id while nothing of it is here."""
        return self.chain.chain.hex() if self.chain.facts is None else self.chain.facts.profile.name


class Server(Protocol):
    """What serves streams about one chain."""

    async def serve(self, stream: Stream, peer: PeerId) -> None:
        """Raises RemoteError, DecodeError."""


class Topics:
    """Gives each stream that a peer opens to the chain which its first message names; one about a chain that is not followed here is reset,
    and nobody is to blame."""

    def __init__(self, servers: Mapping[ChainId, Server]) -> None:
        self._servers = dict(servers)
        self._streams: dict[tuple[PeerId, ChainId], int] = {}

    async def serve(self, stream: Stream, peer: PeerId) -> None:
        """One stream's life. Raises RemoteError, DecodeError."""
        frame = b""
        try:
            with trio.move_on_after(LEDGER_SILENCE_MAX_S):
                frame = await stream.receive()
        except (StreamEnded, StreamBroken):
            pass
        if not frame:
            stream.reset()
            return
        hello = decode_message("ledger", frame)
        if not isinstance(hello, Hello):
            raise RemoteError(Reason.OUT_OF_ORDER, f"{type(hello).__name__} before Hello")
        server, place = self._servers.get(hello.chain), (peer, hello.chain)
        if server is None or self._streams.get(place, 0) >= LEDGER_STREAMS_PER_CHAIN_MAX:
            stream.reset()
            return
        self._streams[place] = self._streams.get(place, 0) + 1
        try:
            await server.serve(Begun(stream, frame), peer)
        finally:
            self._streams[place] -= 1
            if not self._streams[place]:
                del self._streams[place]


class Begun:
    """A stream whose first frame was read already: it comes once more. Implements ``Stream``."""

    def __init__(self, stream: Stream, first: bytes) -> None:
        self.protocol = stream.protocol
        self._stream = stream
        self._first: bytes | None = first

    async def send(self, *parts: bytes) -> None:
        await self._stream.send(*parts)

    async def flush(self) -> None:
        await self._stream.flush()

    async def receive(self) -> bytes:
        await trio.lowlevel.checkpoint_if_cancelled()
        if self._first is not None:
            first, self._first = self._first, None
            return first
        return await self._stream.receive()

    async def finish(self) -> None:
        await self._stream.finish()

    def reset(self) -> None:
        self._stream.reset()
