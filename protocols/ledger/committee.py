"""Committees: sizes, quorums, and when votes from several sources are enough, also across a change of committee.

Source: SPEC.md §Votes and finality.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from ..codec import Record
from ..types import AccountId


def faults_of(members: int) -> int:
    """f: liars that finality is safe against unless the profile names fewer. ⌊(n − 1) / 3⌋."""
    return (members - 1) // 3


def quorum_of(members: int, faults: int) -> int:
    """q = ⌊(n + f) / 2⌋ + 1: two quorums share more than f members."""
    return (members + faults) // 2 + 1


def dead_survived(members: int, faults: int) -> int:
    """How many members may be dead while finality goes on."""
    return members - quorum_of(members, faults)


class Seat(Record, frozen=True):
    """A council member's voting key, 32 bytes, held by one node."""

    member: AccountId
    vote_key: bytes


class Committee(Record, frozen=True):
    """Who votes from a height on.

    generation: 0 for the genesis committee, one more with every change. seats: by rising member. faults: f.
    recovered_from: of a committee made by CouncilRecover the height of the named final block, which counts as its own; else None.
    """

    generation: int
    from_height: int
    seats: tuple[Seat, ...]
    faults: int
    recovered_from: int | None

    @property
    def quorum(self) -> int:
        return quorum_of(len(self.seats), self.faults)

    @property
    def members(self) -> frozenset[AccountId]:
        return frozenset(seat.member for seat in self.seats)

    def key_of(self, member: bytes) -> bytes | None:
        """The member's voting key, None when it has no seat."""
        return next((seat.vote_key for seat in self.seats if seat.member == member), None)


CommitteeOf = Callable[[int], Committee | None]
"""The committee of a generation on the branch in question; None when it is older than what is known."""


def is_enough(target: Committee, votes: Iterable[tuple[AccountId, Committee, int]], committee_of: CommitteeOf) -> bool:
    """True when votes for one block suffice to justify it.

    target: the committee in force at that block. votes: (member, committee in force at its source, height of its source), of justified
    sources only. Votes whose source lies under the target's committee need its quorum; as soon as sources under earlier
    committees are counted, every committee back to the earliest counted one must reach its own quorum.
    """
    found = [(member, _generation(target, source, height)) for member, source, height in votes]
    needed: list[Committee] = [target]
    while True:
        oldest = needed[-1]
        counted = {member for member, generation in found if generation >= oldest.generation}
        if all(len(counted & one.members) >= one.quorum for one in needed):
            return True
        before = None if oldest.recovered_from is not None or oldest.generation == 0 else committee_of(oldest.generation - 1)
        if before is None:
            return False
        needed.append(before)


def _generation(target: Committee, source: Committee, height: int) -> int:
    if target.recovered_from is not None and height == target.recovered_from:
        return target.generation
    return source.generation
