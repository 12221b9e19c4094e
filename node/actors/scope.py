"""What one peer's gossip stream tells and takes: the facts that its standing and ours have in common (`node/services`), and no others."""

from __future__ import annotations

from typing import Protocol

from protocols.errors import Reason, RemoteError
from protocols.types import PeerId

from ..services import LIFE_SIGNS, Standing, may_share
from .facts import FactsHandle


class LifeHost(Protocol):
    """Who keeps the signs of life."""

    def life_signs(self) -> tuple[tuple[bytes, int], ...]: ...

    def heard_of(self, peer: PeerId, entries: tuple[tuple[bytes, int], ...], rtt_s: float | None) -> None: ...


class GossipScope:
    """A GossipHost for one peer."""

    def __init__(self, standing: Standing, facts: FactsHandle, life: LifeHost) -> None:
        self._standing = standing
        self._facts = facts
        self._life = life

    def our_set(self) -> tuple[int, bytes]:
        """Number and sketch of the facts that both should have, so that two domains come to an end of reconciling."""
        sketch = self._facts.knowledge.sketch_for(self._standing)
        return sketch.count, sketch.digest()

    def filter_shared(self, ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
        sketch = self._facts.knowledge.sketch_for(self._standing)
        return tuple(one for one in ids if one in sketch)

    def filter_unknown(self, ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return self._facts.filter_unknown(ids)

    def bucket_ids(self, bucket: int) -> tuple[bytes, ...]:
        return self._facts.knowledge.sketch_for(self._standing).ids_of(bucket)

    async def load_bodies(self, ids: tuple[bytes, ...]) -> tuple[tuple[int, bytes], ...]:
        """Also for a peer that names the id of a fact which it was not told of."""
        return await self._facts.load_bodies(self.filter_shared(ids))

    async def deliver(self, peer: PeerId, items_untrusted: tuple[tuple[int, bytes], ...]) -> None:
        """Raises RemoteError(REFUSED) when one of them is none that this peer may bring: an honest one does not have it to give."""
        for kind, _ in items_untrusted:
            if not may_share(kind, self._standing):
                raise RemoteError(Reason.REFUSED, f"a fact of kind {kind} from a peer of standing {self._standing.value}")
        await self._facts.submit(items_untrusted, peer)

    def life_signs(self) -> tuple[tuple[bytes, int], ...]:
        return self._life.life_signs() if self._standing in LIFE_SIGNS else ()

    def heard_of(self, peer: PeerId, entries: tuple[tuple[bytes, int], ...], rtt_s: float | None) -> None:
        self._life.heard_of(peer, entries if self._standing in LIFE_SIGNS else (), rtt_s)
