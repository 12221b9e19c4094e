"""Worlds of two domains in one network: nothing of a domain leaves it, and both agree about what they share."""

from __future__ import annotations

from dataclasses import replace

import pytest

from node.actors import scope
from node.actors.knowledge import Knowledge
from protocols.gossip.sketch import Sketch
from protocols.types import PeerId

from . import world as simulated
from .scheduler import SimulationFailed, first_cause, run_world, seeds
from .test_world import CALM
from .trace import Trace
from .two_domains import TwoDomains
from .world import WORLD_S_MAX, Options, draw_options, tell

FOUR = replace(CALM, machines=4)


def life(seed: int, options: Options | None = None) -> str:
    """The summary of a world of two domains, with the faults that its seed draws. Raises SimulationFailed."""
    chosen = options or replace(draw_options(seed), machines=4 + seed % 3)

    async def world(number: int, trace: Trace) -> str:
        return await tell(number, trace, chosen, TwoDomains)

    return run_world(world, seed, virtual_seconds_max=WORLD_S_MAX)[0]


def violation_of(seed: int, options: Options) -> str:
    try:
        life(seed, options)
    except SimulationFailed as failure:
        return str(first_cause(failure))
    return ""


def test_two_domains_without_faults_keep_apart_and_agree() -> None:
    """Goal: the plain way, and the soundness of the planted bugs below. Method: two domains of two machines; each puts, reads, deletes and
    rotates the fence."""
    told = life(1, FOUR)
    assert "fences" in told
    assert " 0 facts crossed" not in told


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(tuple(range(10))))
def test_two_domains_keep_apart_and_agree_whatever_strikes(seed: int) -> None:
    """Goal: cuts, kills and full disks move nothing between domains, and all see one another in the end. Method: faults from the seed."""
    life(seed)


def test_gossip_that_does_not_ask_the_table_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the checker would see a leak. Method: every peer is told what a peer of our domain is told."""
    monkeypatch.setattr(scope, "may_share", lambda kind, standing: True)
    monkeypatch.setattr(Knowledge, "sketch_for", lambda self, standing: self.sketch)
    assert "of the other domain" in violation_of(1, FOUR)


def test_sets_that_never_become_equal_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: two domains come to an end of reconciling. Method: what is compared between domains is the whole set, what is told the shared
    facts only."""

    def our_set(self: scope.GossipScope) -> tuple[int, bytes]:
        sketch: Sketch = self._facts.knowledge.sketch
        return sketch.count, sketch.digest()

    monkeypatch.setattr(scope.GossipScope, "our_set", our_set)
    assert "buckets since" in violation_of(1, FOUR)


def test_copies_at_another_domains_nodes_are_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the checker would see an exchange with the other domain. Method: every certified node may hold, and may be asked."""
    monkeypatch.setattr(Knowledge, "_find_certified", lambda self, now: {PeerId(one.value.peer_id): one for one in self.book.entries})
    monkeypatch.setattr("node.actors.peers.may_open", lambda protocol, standing: True)
    monkeypatch.setattr(simulated, "AGREE_S_MAX", 60.0)
    assert "of the other domain" in violation_of(1, FOUR)
