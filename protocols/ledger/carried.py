"""Finality inside the state: only votes that blocks of this very branch carry count here. Source: SPEC.md §Carried votes.

Spaces: ``hash`` height → block hash (the last RECENT_BLOCKS, and all above the final height); ``committee`` generation → Committee;
``vote`` target height | member | source height → empty; ``justified`` height → empty; ``finality`` "final" → height. On one branch a
height is a block.

Whatever made a node call a block justified can be carried, two votes of a liar for one block included; so a sealer that carries every
vote that it has for blocks above this final height (not above its own) lets the state follow what nodes know.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..codec import Record
from ..errors import InvalidBlock, InvalidObject, Reason
from ..types import AccountId
from .checks import u64
from .committee import Committee, is_enough
from .state import Overlay
from .votes import Vote, check_vote

HASH = "hash"
COMMITTEE = "committee"
VOTE = "vote"
JUSTIFIED = "justified"
FINALITY = "finality"
_FINAL = b"final"


class Height(Record, frozen=True):
    """A height as a value."""

    height: int


def final_height(state: Overlay) -> int:
    """Height of the last block that carried votes made final; genesis is final."""
    found = state.load(FINALITY, _FINAL, Height)
    return 0 if found is None else found.height


def committee_at(state: Overlay, height: int) -> Committee:
    """Committee in force at a height of this branch, not later than the next block's."""
    found: Committee | None = None
    for key, _ in state.iterate(COMMITTEE):
        committee = state.load(COMMITTEE, key, Committee)
        assert committee is not None
        if committee.from_height <= height:
            found = committee
    assert found is not None, "the genesis committee is in force from height 0"
    return found


def newest_committee(state: Overlay) -> Committee:
    """The committee of the highest generation, in force now or from the next block on."""
    found = [state.load(COMMITTEE, key, Committee) for key, _ in list(state.iterate(COMMITTEE))]
    newest = found[-1]
    assert newest is not None
    return newest


def vote_key_of(state: Overlay, member: AccountId, target: int) -> bytes | None:
    """Key with which a member votes for a block of this branch, None for somebody without a seat.

    Seats of every committee from the one in force at the final height to the one at the target count: until a change is behind
    the final block, the quorum of the old committee is needed beside that of the new.
    """
    newest, oldest = committee_at(state, target).generation, committee_at(state, final_height(state)).generation
    for generation in range(newest, oldest - 1, -1):
        committee = committee_of(state, generation)
        key = None if committee is None else committee.key_of(member)
        if key is not None:
            return key
    return None


def committee_of(state: Overlay, generation: int) -> Committee | None:
    """Committee of a generation."""
    return state.load(COMMITTEE, u64(generation), Committee)


def seat_committee(state: Overlay, committee: Committee) -> None:
    """Writes a committee that is in force from ``committee.from_height`` on."""
    state.save(COMMITTEE, u64(committee.generation), committee)


def carry(state: Overlay, height: int, votes: Iterable[Vote], *, verified: bool = False) -> int:
    """Counts the votes carried by the block at ``height``; result: the final height after it.

    verified: the caller has checked the signatures of exactly these votes already. Raises InvalidBlock(BAD_VOTE).
    """
    touched: list[int] = []
    for vote in votes:
        _check_carried(state, height, vote, verified=verified)
        state.put(VOTE, _vote_key(vote), b"")
        touched.append(vote.target.height)
    final = final_height(state)
    if touched:
        final = _judge(state, min(touched), final)
    return final


def _vote_key(vote: Vote) -> bytes:
    return u64(vote.target.height) + vote.member + u64(vote.source.height)


def is_carriable(state: Overlay, height: int, vote: Vote) -> bool:
    """True when the block at ``height`` on top of this state may carry the (verified) vote."""
    try:
        _check_carried(state, height, vote, verified=True)
    except InvalidBlock:
        return False
    return True


def _check_carried(state: Overlay, height: int, vote: Vote, *, verified: bool) -> None:
    source, target = vote.source, vote.target
    if not final_height(state) < target.height < height:
        raise InvalidBlock(Reason.BAD_VOTE, f"carried vote for height {target.height} in block {height}")
    if state.get(HASH, u64(target.height)) != target.hash or state.get(HASH, u64(source.height)) != source.hash:
        raise InvalidBlock(Reason.BAD_VOTE, "carried vote names a block that is no recent ancestor")
    key = vote_key_of(state, vote.member, target.height)
    if key is None:
        raise InvalidBlock(Reason.BAD_VOTE, "carried vote of somebody without a seat")
    if state.get(VOTE, _vote_key(vote)) is not None:
        raise InvalidBlock(Reason.BAD_VOTE, "carried vote that was counted before")
    if not verified:
        try:
            check_vote(vote, key)
        except InvalidObject as error:
            raise InvalidBlock(Reason.BAD_VOTE, f"carried vote: {error.message}") from error


def _judge(state: Overlay, lowest: int, final: int) -> int:
    """Judges every block with votes from ``lowest`` up; sources lie below targets, so one pass is enough."""
    by_target: dict[int, list[tuple[AccountId, int]]] = {}
    for key, _ in state.iterate(VOTE, u64(lowest)):
        target, source = int.from_bytes(key[:8], "big"), int.from_bytes(key[40:], "big")
        by_target.setdefault(target, []).append((AccountId(key[8:40]), source))
    newest = final
    for target, votes in by_target.items():
        if not is_justified(state, target, newest) and _reaches(state, target, votes, newest):
            state.put(JUSTIFIED, u64(target), b"")
        both = target - 1 > newest and is_justified(state, target, newest) and is_justified(state, target - 1, newest)
        if both and _reaches(state, target, [one for one in votes if one[1] == target - 1], newest):
            newest = target - 1
    if newest > final:
        state.save(FINALITY, _FINAL, Height(newest))
        _forget(state, newest)
    return newest


def is_justified(state: Overlay, height: int, final: int) -> bool:
    """True for the final block and its ancestors, and for what a quorum reached from justified ancestors."""
    return height <= final or state.get(JUSTIFIED, u64(height)) is not None


def _reaches(state: Overlay, target: int, votes: list[tuple[AccountId, int]], final: int) -> bool:
    counted = [(member, committee_at(state, height), height) for member, height in votes if is_justified(state, height, final)]
    return is_enough(committee_at(state, target), counted, lambda generation: committee_of(state, generation))


def _forget(state: Overlay, final: int) -> None:
    """What lies at or below the final height is settled."""
    for space in (VOTE, JUSTIFIED):
        gone = []
        for key, _ in state.iterate(space):
            if int.from_bytes(key[:8], "big") > final:
                break
            gone.append(key)
        for key in gone:
            state.delete(space, key)
