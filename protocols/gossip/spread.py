"""Whom a node tells of what is new: everybody in a small network, few in a large one. Pure; the same rule for facts and for the ledger.

All nodes lie on one ring, by the hash of their ids. Up to FULL_MESH_MAX others all are told; above that those 1, 3, 9, 27 … places away
to either side: at most 2·log₃ of the ring, and whoever is told by nobody else hears of it in as many steps from the neighbours. Nodes that
see different rings still tell their next ones, and what is lost on the way is found by reconciling.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from ..types import PeerId

FULL_MESH_MAX = 20
STEP = 3
# 3^6 is more than half of the 1,024 nodes that a domain may have.
TOLD_MAX = 12
assert FULL_MESH_MAX > TOLD_MAX


def told_by(own: PeerId, others: Iterable[PeerId]) -> frozenset[PeerId]:
    """Those of the connected peers that this node tells at once: all, or at most TOLD_MAX."""
    connected = frozenset(others) - {own}
    if len(connected) <= FULL_MESH_MAX:
        return connected
    ring = sorted((*connected, own), key=_place)
    at, found = ring.index(own), dict[PeerId, None]()
    distance = 1
    while distance <= len(ring) // 2 and len(found) + 2 <= TOLD_MAX:
        found[ring[(at + distance) % len(ring)]] = None
        found[ring[at - distance]] = None
        distance *= STEP
    return frozenset(found)


def _place(peer: PeerId) -> bytes:
    return hashlib.sha256(peer).digest()
