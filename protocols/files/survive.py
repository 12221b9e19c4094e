"""How many losses a record survives, counted over all its sequences with the manifest."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

from ..types import PeerId, SequenceRoot

Holders = Mapping[SequenceRoot, Collection[PeerId]]


@dataclass(frozen=True, slots=True)
class Outcome:
    """After some nodes are lost. lost: sequences with no copy left, sorted. survives: as ``survives`` says of what is left."""

    lost: tuple[SequenceRoot, ...]
    survives: int


def survives(holders_by_sequence: Holders) -> int:
    """Largest k such that after losing any k nodes every sequence still has a copy; -1 when one has none now (or there is none)."""
    return min((len(set(holders)) for holders in holders_by_sequence.values()), default=0) - 1


def smallest_kill_set(holders_by_sequence: Holders) -> tuple[PeerId, ...]:
    """Fewest nodes whose loss destroys a sequence, sorted; empty when one is already lost. One of possibly several."""
    return min((tuple(sorted(set(holders))) for holders in holders_by_sequence.values()), key=lambda nodes: (len(nodes), nodes), default=())


def what_if(holders_by_sequence: Holders, killed: Collection[PeerId]) -> Outcome:
    """What would be left after losing these nodes."""
    left = {root: set(holders) - set(killed) for root, holders in holders_by_sequence.items()}
    return Outcome(lost=tuple(sorted(root for root, holders in left.items() if not holders)), survives=survives(left))
