"""Whom a node tells: all in a small network, few in a large one, and nobody is left out."""

from __future__ import annotations

import pytest

from protocols.gossip.spread import FULL_MESH_MAX, TOLD_MAX, told_by
from protocols.types import PeerId


def peers(count: int) -> list[PeerId]:
    return [PeerId(number.to_bytes(38, "big")) for number in range(count)]


@pytest.mark.parametrize("count", [1, 2, 5, FULL_MESH_MAX, FULL_MESH_MAX + 1])
def test_small_network_tells_everybody(count: int) -> None:
    """Goal: no hop more than needed up to FULL_MESH_MAX others."""
    all_of_them = peers(count)
    for own in all_of_them:
        assert told_by(own, all_of_them) == set(all_of_them) - {own}


@pytest.mark.parametrize("count", [FULL_MESH_MAX + 2, 100, 500, 1024])
def test_large_network_tells_few_and_reaches_all(count: int) -> None:
    """Goal: bounded work for one node, few hops. Method: who tells whom as a graph; from one node all are reached in eight steps; telling
    goes both ways."""
    all_of_them = peers(count)
    told = {own: told_by(own, all_of_them) for own in all_of_them}
    assert all(0 < len(some) <= TOLD_MAX and own not in some for own, some in told.items())
    assert all(own in told[other] for own, some in told.items() for other in some)
    reached = {all_of_them[0]}
    for _ in range(8):
        reached |= {other for one in reached for other in told[one]}
    assert len(reached) == count


def test_different_views_still_reach_all() -> None:
    """Goal: nodes that know different peers leave nobody out. Method: each of 60 does not see five others."""
    all_of_them = peers(60)
    told = {
        own: told_by(own, [one for at, one in enumerate(all_of_them) if at % 12 != number % 12]) for number, own in enumerate(all_of_them)
    }
    reached = {all_of_them[0]}
    for _ in range(12):
        reached |= {other for one in reached for other in told[one]}
    assert len(reached) == 60
