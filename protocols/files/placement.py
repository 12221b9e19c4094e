"""Who should hold a sequence: weighted rendezvous hashing in integers, so that every node computes the same (SPEC.md §Placement)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from ..crypto import Label, hash_labelled, sha256
from ..types import MemberId, OwnerKey, PeerId, SequenceRoot
from .objects import Statement
from .sequences import MANIFEST_SEQUENCE

COPIES_DEFAULT = 3
ALL_NODES_MAX = 5  # up to that many nodes the profile `all` puts a copy on each
MANIFEST_EXTRA_COPIES = 2
WEIGHT_MAX = 1 << 16
_HASH_BITS = 64
_FRACTION_BITS = 32


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node that could hold. member: whose it is. host: machine or site, as its member says. weight: 0 takes nothing unless pinned."""

    peer: PeerId
    member: MemberId
    host: str
    weight: int
    refuses: bool


def _draw(key: bytes, peer: PeerId) -> int:
    return int.from_bytes(hash_labelled(Label.PLACEMENT, key, peer)[: _HASH_BITS // 8], "big")


def minus_log2(draw: int) -> int:
    """-log2((draw + 1) / 2^64) in units of 2^-32, rounded up; draw: 0..2^64-1. Integers only: the same on every machine.

    Bit by bit: the square of a number in [1, 2) is at least 2 exactly when the next bit of its logarithm is 1.
    """
    value = draw + 1
    whole = value.bit_length() - 1
    mantissa = (value << _HASH_BITS) >> whole  # [1, 2) with 64 bits of fraction
    fraction = 0
    for _ in range(_FRACTION_BITS):
        mantissa = (mantissa * mantissa) >> _HASH_BITS
        fraction <<= 1
        if mantissa >> (_HASH_BITS + 1):
            mantissa >>= 1
            fraction |= 1
    return ((_HASH_BITS - whole) << _FRACTION_BITS) - fraction


def placement_key(owner: OwnerKey, sequence_root: SequenceRoot) -> bytes:
    """What places of one sequence are drawn with."""
    return sha256(owner, sequence_root)


def rendezvous_order(owner: OwnerKey, sequence_root: SequenceRoot, candidates: Iterable[Candidate]) -> tuple[Candidate, ...]:
    """All candidates, the most wanted first. Each is first with a chance proportional to its weight; weight 0 comes last.

    Score = weight / -log2(draw); compared without rounding, equal ones by draw, then by peer id.
    """
    key = placement_key(owner, sequence_root)
    pool = [(candidate, _draw(key, candidate.peer)) for candidate in candidates]
    weights = {candidate.weight for candidate, _ in pool}
    if len(weights) <= 1:  # then the draw alone decides, and no logarithm is needed
        pool.sort(key=lambda item: (-item[1], item[0].peer))
    else:
        scaled = 1 << (2 * (_HASH_BITS + _FRACTION_BITS))
        pool.sort(key=lambda item: (-(item[0].weight * scaled // max(1, minus_log2(item[1]))), -item[1], item[0].peer))
    return tuple(candidate for candidate, _ in pool)


def wanted_holders(
    owner: OwnerKey,
    sequence_root: SequenceRoot,
    candidates: Collection[Candidate],
    *,
    copies: int,
    pins_in: Collection[PeerId] = (),
    pins_out: Collection[PeerId] = (),
) -> tuple[PeerId, ...]:
    """Who should hold one sequence, the pinned ones first, then by rendezvous order: different members first, then different hosts.

    Nodes that refuse or are pinned out are skipped. Fewer than ``copies`` when there are not enough; more only by pins.
    """
    assert copies >= 0
    pool = [candidate for candidate in candidates if not candidate.refuses and candidate.peer not in pins_out]
    ordered = list(rendezvous_order(owner, sequence_root, pool))
    chosen = [candidate for candidate in ordered if candidate.peer in pins_in]
    rest = [candidate for candidate in ordered if candidate.peer not in pins_in and candidate.weight > 0]
    members = {candidate.member for candidate in chosen}
    hosts = {candidate.host for candidate in chosen}
    while rest and len(chosen) < copies:
        best = min(range(len(rest)), key=lambda index: (rest[index].member in members, rest[index].host in hosts, index))
        candidate = rest.pop(best)
        chosen.append(candidate)
        members.add(candidate.member)
        hosts.add(candidate.host)
    return tuple(candidate.peer for candidate in chosen)


def copies_wanted(statement: Statement, node_count: int, profile_all: bool) -> int:
    """Copies of each data sequence. node_count: nodes of valid members. The statement's own number wins over the profile."""
    if statement.copies_wanted:
        return statement.copies_wanted
    if profile_all and node_count <= ALL_NODES_MAX:
        return node_count
    return min(COPIES_DEFAULT, node_count)


def copies_of_sequence(sequence_index: int, copies: int) -> int:
    """Copies of one sequence: the manifest gets two more."""
    return copies + (MANIFEST_EXTRA_COPIES if sequence_index == MANIFEST_SEQUENCE else 0)


def duty_order(owner: OwnerKey, sequence_root: SequenceRoot, holders: Iterable[PeerId]) -> tuple[PeerId, ...]:
    """Live holders of a sequence in the order in which they are to copy it; weights do not matter here."""
    key = placement_key(owner, sequence_root)
    return tuple(sorted(set(holders), key=lambda peer: (-_draw(key, peer), peer)))


def spread(holders: Sequence[Candidate]) -> tuple[int, int]:
    """Number of different members and of different hosts among holders: for people to see."""
    return len({holder.member for holder in holders}), len({holder.host for holder in holders})
