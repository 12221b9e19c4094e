"""Every world of four voters, one of them a liar, two branches and four heights; and mutated rules, which must be noticed.

A state is what each honest voter has said; the liar has said everything that can be said, which is the most that it can do for anybody.
An honest voter may know any part of what was said (messages are lost, late, out of order; a database is gone), so its next vote goes to
any block from any ancestor that what was said justifies, as far as its promises allow. Votes only add up: what can be reached does not
depend on the order in which messages arrive, so every interleaving is among these states.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from protocols.errors import InvalidObject, Refused
from protocols.ledger import transition
from protocols.ledger.committee import faults_of, quorum_of
from protocols.ledger.finality import BlockPoint, ForkTree
from protocols.ledger.state import Overlay, UndoRecord
from protocols.ledger.state import undo as undo_change
from protocols.ledger.votes import Checkpoint, Promises, Vote, promise_vote
from protocols.types import BlockHash

from . import test_edges, test_finality, test_hostile
from .chains import certificate, start
from .test_finality import CHAIN, NAMES, ROOT, point

HEIGHTS = 4
BRANCHES = "ab"


State = tuple[tuple[int, int, int], ...]
"""Of each honest voter: bits of the votes that it said, source and target height promised."""


class Small:
    """Two branches over the root; blocks by number: 0 the root, then one branch from below, then the other."""

    def __init__(self, heights: int) -> None:
        self.heights = heights
        self.blocks = range(1, 2 * heights + 1)
        self.votes = [(source, target) for target in self.blocks for source in self.below(target)]
        self.bit = {pair: 1 << index for index, pair in enumerate(self.votes)}
        self.to = {
            target: [(source, self.bit[source, target]) for source in self.below(target)]  # the parent first
            for target in self.blocks
        }
        promised = range(heights + 1)
        self.allowed = {(source, target): list(self._allowed(source, target)) for source in promised for target in promised}

    def height(self, block: int) -> int:
        return block if block <= self.heights else block - self.heights

    def below(self, block: int) -> list[int]:
        """Ancestors, the parent first."""
        first = 1 if block <= self.heights else self.heights + 1
        return [*range(block - 1, first - 1, -1), 0]

    def _allowed(self, source: int, target: int) -> Iterator[tuple[int, int, int, int]]:
        """(source block, bit, promises afterwards) of every vote that ``promise_vote`` lets through after these promises."""
        for pair in self.votes:
            low, high = (Checkpoint(self.height(block), BlockHash(bytes(32))) for block in pair)
            try:
                after = promise_vote(Promises(source, target, 0), low, high)
            except Refused:
                continue
            yield pair[0], self.bit[pair], after.source_height, after.target_height

    def justified(self, said: list[int], liars: int, quorum: int) -> int:
        """Blocks, as bits, that a quorum reached from justified ancestors."""
        found = 1
        for target in self.blocks:
            reach = 0
            for source, bit in self.to[target]:
                if found >> source & 1:
                    reach |= bit
            if liars + sum(1 for one in said if one & reach) >= quorum:
                found |= 1 << target
        return found

    def final(self, said: list[int], justified: int, liars: int, quorum: int) -> list[int]:
        """Blocks above the root that a quorum links to their justified child."""
        found = []
        for target in self.blocks:
            parent, bit = self.to[target][0]
            if parent and justified >> parent & justified >> target & 1 and liars + sum(1 for one in said if one & bit) >= quorum:
                found.append(parent)
        return found


@dataclass
class Explored:
    """states: how many there are. final: of these, with a final block above the root. conflict: one with two that exclude each other."""

    states: int
    final: list[State]
    conflict: State | None


def explore(heights: int, *, members: int = 4, liars: int = 1, quorum: int | None = None, forgetful: bool = False) -> Explored:
    """All states; ends at the first conflict. forgetful: one honest voter may lose its promises, at any time."""
    world = Small(heights)
    quorum = quorum_of(members, faults_of(members)) if quorum is None else quorum
    first: State = ((0, 0, 0),) * (members - liars)
    seen, open_, final = {first}, [first], []
    while open_:
        state = open_.pop()
        said = [one[0] for one in state]
        justified = world.justified(said, liars, quorum)
        done = world.final(said, justified, liars, quorum)
        if done:
            final.append(state)
            if min(done) <= world.heights < max(done):
                return Explored(len(seen), final, state)
        for index, (votes, source, target) in enumerate(state):
            if index and state[index - 1] == state[index]:
                continue
            promises = [(source, target), (0, 0)] if forgetful else [(source, target)]
            for kept in promises:
                for block, bit, low, high in world.allowed[kept]:
                    if justified >> block & 1 and not votes & bit:
                        changed = (*state[:index], (votes | bit, low, high), *state[index + 1 :])
                        after = tuple(sorted(changed))
                        if after not in seen:
                            seen.add(after)
                            open_.append(after)
    return Explored(len(seen), final, None)


def test_four_voters_with_a_liar_over_four_heights_never_finalise_two_branches() -> None:
    """Goal: safety, completely. Method: every state of the small world, more than a million; finality is reached in many."""
    found = explore(HEIGHTS)
    assert found.conflict is None
    assert found.states > 1_000_000
    assert len(found.final) > 100_000


@pytest.mark.parametrize(
    ("changes", "why"),
    [({"quorum": 2}, "half is a quorum"), ({"liars": 2}, "more liars than f"), ({"forgetful": True}, "promises are kept in the database")],
    ids=lambda one: one.replace(" ", "-") if isinstance(one, str) else "",
)
def test_checker_of_the_small_world_catches(changes: dict[str, int], why: str) -> None:
    """Goal: the checker can fail, and f, q and promises are all needed. Method: each taken away; a conflict is found."""
    assert explore(3, **changes).conflict is not None, why  # type: ignore[arg-type]


def test_amnesiac_whose_promises_survive_does_no_harm_and_is_never_stuck() -> None:
    """Goal: a lost database is no lie. Method: knowing nothing is one way of knowing a part, so its states are among all of them; and
    whatever it has promised, the next height is open to it, from its promised source or above, while nothing at or below is."""
    world = Small(HEIGHTS)
    reachable = [(source, target) for source, target in world.allowed if source < target or (source, target) == (0, 0)]
    assert len(reachable) > 10
    for source, target in reachable:
        votes = world.allowed[source, target]
        assert all(high > target and low >= source for _, _, low, high in votes)
        assert target == HEIGHTS or any((low, high) == (source, target + 1) for _, _, low, high in votes)
    assert explore(3).conflict is None


def test_small_world_counts_as_the_fork_tree_does() -> None:
    """Goal: the small world is the real one. Method: votes of its states, in a random order, into the tree of nodes; the same is final."""
    heights = 3
    world = Small(heights)
    points: dict[int, BlockPoint] = {0: ROOT}
    for block in world.blocks:
        branch = BRANCHES[block > heights]
        parent = world.below(block)[0]
        name = "root" if parent == 0 else f"{branch}{world.height(parent)}"
        points[block] = point(f"{branch}{world.height(block)}", name, world.height(block))
    rng = random.Random(4)
    states = explore(heights).final
    finals = set()
    for state in rng.sample(states, 300):
        said = [one[0] for one in state]
        votes = [(3, pair) for pair in world.votes]
        votes += [(member, pair) for member, bits in enumerate(said) for pair in world.votes if bits & world.bit[pair]]
        rng.shuffle(votes)
        tree = ForkTree(ROOT)
        for block in world.blocks:
            tree.add_block(points[block])
        for member, (source, target) in votes:
            tree.add_vote(Vote(CHAIN, points[source].checkpoint, points[target].checkpoint, NAMES[member], b""))
        wanted = max(world.final(said, world.justified(said, 1, 3), 1, 3), key=world.height)
        assert tree.final == points[wanted]
        finals.add(wanted)
    assert len(finals) > 2


# --- planted bugs -------------------------------------------------------------------------------------------------

CRIES = (AssertionError, pytest.fail.Exception)


def test_fork_choice_by_arrival_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the checker of fork choice can fail. Method: at each fork the child that came first."""

    def walk(tree: ForkTree) -> BlockHash:
        name = tree.highest_justified().hash
        while tree._children[name]:
            name = tree._children[name][0]
        return name

    monkeypatch.setattr(ForkTree, "_walk", walk)
    with pytest.raises(CRIES):
        test_finality.test_head_does_not_depend_on_the_order_of_arrival()


def test_leader_check_that_is_skipped_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the checker of leaders can fail. Method: the check does nothing when blocks are judged, as a hasty sync would have it."""
    monkeypatch.setattr(transition, "check_leader", lambda *_, **__: None)
    with pytest.raises(CRIES):
        test_hostile.test_leader_is_judged_for_every_slot_of_the_term()


def test_undo_that_forgets_any_one_space_is_caught() -> None:
    """Goal: no block is half taken back. Method: a block that writes many spaces; its undo record without each of them in turn."""
    chain = start()
    chain.run(6, voting=True)
    chain.add(
        chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", valid_until_s=chain.now_ms // 1000 + 99)),
        chain.by("manager", "CertIssue", certificate("new")),
        votes=chain.votes(),
    )
    record = chain.changes[-1].undo
    spaces = {space for space, _, _ in record.before}
    assert len(spaces) >= 12
    for forgotten in spaces:
        short = UndoRecord(record.root, tuple(one for one in record.before if one[0] != forgotten))
        with pytest.raises(InvalidObject):
            undo_change(chain.view, short)
    chain.pop()
    assert chain.view.root == chain.blocks[-1].info.state_root


def test_overlay_that_does_not_roll_back_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a trace of a refused transaction is noticed. Method: rollback does nothing."""
    monkeypatch.setattr(Overlay, "rollback", lambda *_: None)
    with pytest.raises(CRIES):
        test_edges.test_transaction_refused_half_way_leaves_no_trace()
