"""Votes, promises, justification across a change of committee, fork choice on data."""

from __future__ import annotations

import itertools
import random

import pytest

from protocols.crypto import sha256
from protocols.errors import InvalidObject, Reason, Refused
from protocols.ledger.committee import Committee, Seat, is_enough
from protocols.ledger.finality import BlockPoint, ForkTree
from protocols.ledger.votes import (
    NO_PROMISES,
    Checkpoint,
    Promises,
    Vote,
    breaks_promise,
    check_vote,
    promise_seal,
    promise_vote,
    sign_vote,
)
from protocols.types import AccountId, BlockHash, ChainId

from .chains import account_of, key_of

CHAIN = ChainId(bytes(32))
NAMES = [account_of(name) for name in "abcdefgh"]


def seats(names: list[AccountId], generation: int = 0, from_height: int = 0, recovered: int | None = None) -> Committee:
    return Committee(generation, from_height, tuple(Seat(name, bytes(32)) for name in sorted(names)), (len(names) - 1) // 3, recovered)


FOUR = seats(NAMES[:4])
NEXT = seats(NAMES[4:8], 1, 5)


def point(name: str, parent: str, height: int, *, slot: int | None = None) -> BlockPoint:
    hashes = [BlockHash(sha256(one.encode())) for one in (name, parent)]
    return BlockPoint(hashes[0], hashes[1], height, height if slot is None else slot, height, FOUR)


def vote(member: int, source: BlockPoint, target: BlockPoint) -> Vote:
    return Vote(CHAIN, source.checkpoint, target.checkpoint, NAMES[member], b"")


ROOT = point("root", "", 0)
A1, A2, A3 = point("a1", "root", 1), point("a2", "a1", 2), point("a3", "a2", 3)
B1, B2 = point("b1", "root", 1, slot=2), point("b2", "b1", 2, slot=4)


def tree(*points: BlockPoint) -> ForkTree:
    found = ForkTree(ROOT)
    for one in points:
        found.add_block(one)
    return found


def test_block_is_final_when_a_quorum_links_it_to_its_justified_child() -> None:
    """Goal: the two steps, and the ancestors with it. Method: votes one by one; the third and the sixth change something."""
    found = tree(A1, A2, A3)
    assert [found.add_vote(vote(member, ROOT, A2)) for member in range(3)] == [(), (), ()]
    assert found.is_justified(A2.hash)
    assert not found.is_justified(A1.hash)
    assert [found.add_vote(vote(member, A2, A3)) for member in range(2)] == [(), ()]
    assert found.add_vote(vote(3, A2, A3)) == (A1, A2)
    assert found.final == A2
    assert len(found) == 2


def test_votes_count_from_different_justified_sources_but_finality_needs_the_parent() -> None:
    """Goal: any justified ancestor is a source; the link to the child is from the parent alone. Method: mixed sources."""
    found = tree(A1, A2, A3)
    for member in range(3):
        found.add_vote(vote(member, ROOT, A1))
    for member, source in enumerate([ROOT, A1, A1]):
        found.add_vote(vote(member, source, A2))
    assert found.is_justified(A2.hash)
    assert found.final == ROOT
    assert found.add_vote(vote(3, A1, A2)) == (A1,)


def test_vote_from_a_source_that_is_not_justified_or_no_ancestor_counts_nothing() -> None:
    """Goal: chains of trust alone. Method: three votes from an unjustified block and three from another branch; then the source is."""
    found = tree(A1, A2, B1, B2)
    for member in range(3):
        found.add_vote(vote(member, A1, A2))
    assert not found.is_justified(A2.hash)
    for member in range(1, 4):
        found.add_vote(vote(member, ROOT, B1))
    late = tree(A1, A2)
    for member in range(3):
        late.add_vote(vote(member, A1, A2))
    for member in range(3):
        late.add_vote(vote(member, ROOT, A1))
    assert late.is_justified(A2.hash)
    assert late.final == A1


def test_ancestors_of_the_final_block_are_sources_also_after_pruning() -> None:
    """Goal: votes from before count. Method: a tree that begins at A2 and knows what lies below."""
    found = ForkTree(A2, lambda checkpoint: FOUR if checkpoint in (ROOT.checkpoint, A1.checkpoint) else None)
    found.add_block(A3)
    for member, source in enumerate([ROOT, A1, A1]):
        found.add_vote(vote(member, source, A3))
    assert found.is_justified(A3.hash)
    other = ForkTree(A2)
    other.add_block(A3)
    for member, source in enumerate([ROOT, A1, A1]):
        other.add_vote(vote(member, source, A3))
    assert not other.is_justified(A3.hash)


def test_head_follows_votes_then_work_then_slot_then_hash() -> None:
    """Goal: the order of the walk. Method: each step with all before it equal."""
    found = tree(A1, A2, B1, B2)
    assert found.head() == A2  # equal work, lower slot
    found.add_vote(vote(0, ROOT, B1))
    assert found.head() == B2
    found.add_vote(vote(1, ROOT, A1))
    assert found.head() == A2
    heavy = point("b3", "b2", 3, slot=9)
    found.add_block(heavy)
    assert found.head() == heavy
    twins = [point(name, "root", 1) for name in ("x", "y")]
    assert tree(*twins).head() == min(twins, key=lambda one: one.hash)


def test_member_with_two_votes_at_one_height_counts_on_no_side() -> None:
    """Goal: an equivocator does not tip the scale by arrival. Method: both orders; a higher vote counts again."""
    for order in ((A1, B1), (B1, A1)):
        found = tree(A1, A2, B1, B2)
        for target in order:
            found.add_vote(vote(0, ROOT, target))
        assert found.latest_vote(NAMES[0]) is None
        assert found.head() == A2
        found.add_vote(vote(0, ROOT, B2))
        assert found.head() == B2


def test_head_does_not_depend_on_the_order_of_arrival() -> None:
    """Goal: on data, never on arrival. Method: the same blocks and votes in 60 orders, parents before children."""
    blocks = [A1, A2, A3, B1, B2, point("c2", "b1", 2, slot=7), point("c3", "c2", 3, slot=8)]
    votes = [vote(0, ROOT, B1), vote(1, ROOT, A2), vote(2, ROOT, blocks[5]), vote(3, ROOT, A1), vote(3, ROOT, B1)]
    heads = set()
    for seed in range(60):
        rng = random.Random(seed)
        found, waiting = ForkTree(ROOT), [*blocks, *votes]
        rng.shuffle(waiting)
        while waiting:
            one = waiting.pop(0)
            if isinstance(one, Vote):
                found.add_vote(one)
            elif one.parent in found:
                found.add_block(one)
            else:
                waiting.append(one)
        heads.add(found.head().hash)
    assert len(heads) == 1


@pytest.mark.parametrize("lie", [Checkpoint(5, A1.hash), Checkpoint(1, B1.hash)])
def test_vote_with_a_height_that_is_a_lie_hides_no_true_one(lie: Checkpoint) -> None:
    """Goal: on data, never on arrival. Method: one member signs two votes for a block from one source, in one of them the height is
    wrong; in both orders the block is justified by it and two others."""
    false = Vote(CHAIN, ROOT.checkpoint, lie, NAMES[2], b"")
    for order in itertools.permutations((false, vote(2, ROOT, A1), vote(0, ROOT, A1), vote(1, ROOT, A1))):
        found = tree(A1, B1)
        for one in order:
            found.add_vote(one)
        assert found.is_justified(A1.hash)


def test_votes_behind_a_source_go_back_to_the_final_block() -> None:
    """Goal: what a member keeps beside its promises shows its source to a node that has nothing but the blocks. Method: justified at 2
    and at 4, nothing final; a fresh tree with these votes alone knows the same; with less room the nearest remain."""
    blocks = [A1, A2, A3, point("a4", "a3", 4)]
    found, fresh = tree(*blocks), tree(*blocks)
    for source, target in ((ROOT, A2), (A2, blocks[3])):
        for member in range(3):
            found.add_vote(vote(member, source, target))
    assert (found.final, found.source_for(point("a5", "a4", 5).parent)) == (ROOT, A2.checkpoint)
    behind = found.votes_behind(blocks[3].hash, most=100)
    assert len(behind) == 6
    for one in behind:
        fresh.add_vote(one)
    assert fresh.is_justified(blocks[3].hash)
    assert {one.target for one in found.votes_behind(blocks[3].hash, most=3)} == {blocks[3].checkpoint}
    assert found.votes_behind(ROOT.hash, most=100) == ()


def test_links_across_a_change_need_both_quorums() -> None:
    """Goal: no branch escapes the old committee. Method: every pair of vote counts, sources before and after the change."""
    generations = {0: FOUR, 1: NEXT}
    for old, new in itertools.product(range(5), range(5)):
        votes = [(NAMES[index], FOUR, 4) for index in range(old)] + [(NAMES[4 + index], FOUR, 4) for index in range(new)]
        assert is_enough(NEXT, votes, generations.get) == (old >= 3 and new >= 3)
        after = [(name, NEXT, 6) for name, _, _ in votes]
        assert is_enough(NEXT, after, generations.get) == (new >= 3)
    mixed = [(NAMES[4], NEXT, 6), (NAMES[5], NEXT, 6), (NAMES[6], FOUR, 4), *((NAMES[index], FOUR, 4) for index in range(2))]
    assert not is_enough(NEXT, mixed, generations.get)
    assert is_enough(NEXT, [*mixed, (NAMES[2], NEXT, 6)], generations.get)
    assert not is_enough(NEXT, [(NAMES[4 + index], FOUR, 4) for index in range(4)], {1: NEXT}.get)


def test_recovered_committee_starts_from_the_named_block() -> None:
    """Goal: the named block counts as justified for the new committee, without the old one's votes. Method: that height and another."""
    recovered = seats(NAMES[4:8], 1, 9, recovered=7)
    votes = [(NAMES[4 + index], FOUR, 7) for index in range(3)]
    assert is_enough(recovered, votes, {0: FOUR}.get)
    assert not is_enough(recovered, [(name, one, 6) for name, one, _ in votes], {0: FOUR}.get)


def test_promises_rise_and_what_breaks_them_is_evidence() -> None:
    """Goal: a keeper of promises never makes evidence against itself. Method: every pair of small votes, in both orders."""
    spans = [(source, target) for source in range(4) for target in range(source + 1, 6)]
    for first, second in itertools.permutations(spans, 2):
        votes = [
            Vote(CHAIN, Checkpoint(source, BlockHash(bytes(32))), Checkpoint(target, BlockHash(bytes(32))), NAMES[0], b"")
            for source, target in (first, second)
        ]
        kept = promise_vote(NO_PROMISES, votes[0].source, votes[0].target)
        try:
            promise_vote(kept, votes[1].source, votes[1].target)
        except Refused as error:
            assert error.reason is Reason.PROMISED  # noqa: PT017
        else:
            assert not breaks_promise(votes[0], votes[1])
            assert not breaks_promise(votes[1], votes[0])
    one, other = Vote(CHAIN, ROOT.checkpoint, A1.checkpoint, NAMES[0], b""), Vote(CHAIN, ROOT.checkpoint, B1.checkpoint, NAMES[0], b"")
    assert breaks_promise(one, other)
    assert not breaks_promise(one, one)
    assert promise_seal(Promises(1, 2, 5), 6) == Promises(1, 2, 6)
    with pytest.raises(Refused):
        promise_seal(Promises(1, 2, 5), 5)


def test_next_vote_is_for_the_head_from_its_highest_justified_ancestor() -> None:
    """Goal: what a member signs. Method: the pair and the promises; a second vote for the same head is refused."""
    found = tree(A1, A2, A3)
    for member in range(3):
        found.add_vote(vote(member, ROOT, A1))
    source, target, promises = found.next_vote(NO_PROMISES)
    assert (source, target) == (A1.checkpoint, A3.checkpoint)
    assert promises == Promises(1, 3, 0)
    with pytest.raises(Refused):
        found.next_vote(promises)


def test_vote_is_bound_to_chain_member_and_both_blocks() -> None:
    """Goal: no vote says anything else. Method: each field changed."""
    key = key_of("a", "vote")
    good = sign_vote(key, CHAIN, ROOT.checkpoint, A1.checkpoint, NAMES[0])
    check_vote(good, key.public)
    lies = [
        Vote(ChainId(b"\1" * 32), good.source, good.target, good.member, good.signature),
        Vote(CHAIN, Checkpoint(0, B1.hash), good.target, good.member, good.signature),
        Vote(CHAIN, good.source, B1.checkpoint, good.member, good.signature),
        Vote(CHAIN, good.source, good.target, NAMES[1], good.signature),
        Vote(CHAIN, good.target, good.source, good.member, good.signature),
        Vote(CHAIN, good.source, good.target, good.member, b""),
    ]
    for lie in lies:
        with pytest.raises(InvalidObject):
            check_vote(lie, key.public)
