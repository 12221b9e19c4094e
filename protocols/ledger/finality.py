"""Fork choice and finality over everything that a node knows: blocks that were executed, votes that were verified.

On data, never on arrival: two nodes with the same blocks and votes above the same final block have the same head. Source: SPEC.md
§Votes and finality, §Fork choice. Nothing here knows the time; the tree begins at the node's latest final block.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from ..types import AccountId, BlockHash
from .committee import Committee, is_enough
from .votes import Checkpoint, Promises, Vote, promise_vote


@dataclass(frozen=True, slots=True)
class BlockPoint:
    """A block as fork choice sees it. work: cumulative from genesis. committee: in force at this block, by the state after it."""

    hash: BlockHash
    parent: BlockHash
    height: int
    slot: int
    work: int
    committee: Committee

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.height, self.hash)


def tip_order(point: BlockPoint) -> tuple[int, int, bytes]:
    """Least is best: most cumulative work, lower slot, lowest hash."""
    return (-point.work, point.slot, point.hash)


CommitteeBelow = Callable[[Checkpoint], Committee | None]
"""Committee in force at an ancestor of the tree's root, None for a checkpoint that is none."""


class ForkTree:
    """Blocks from the latest final one on, votes about them, and what follows: justified, final, head."""

    def __init__(self, root: BlockPoint, below: CommitteeBelow = lambda _: None) -> None:
        """root: the latest final block. below: knows the root's ancestors, which all count as justified sources."""
        self.final = root
        self._below = below
        self._points: dict[BlockHash, BlockPoint] = {root.hash: root}  # parents before children
        self._children: dict[BlockHash, list[BlockHash]] = {root.hash: []}
        self._justified: set[BlockHash] = {root.hash}
        self._votes: dict[BlockHash, dict[tuple[AccountId, int, bytes, int], Vote]] = {}
        self._targets_of: dict[BlockHash, set[BlockHash]] = {}
        self._latest: dict[AccountId, tuple[int, frozenset[BlockHash]]] = {}
        self._head: BlockHash | None = root.hash

    def __contains__(self, block: object) -> bool:
        return block in self._points

    def __len__(self) -> int:
        return len(self._points)

    def point(self, block: BlockHash) -> BlockPoint:
        """A known block. Raises KeyError."""
        return self._points[block]

    def is_justified(self, block: BlockHash) -> bool:
        """True for the root, and for blocks that q members' votes from justified ancestors reached."""
        return block in self._justified

    def votes_for(self, block: BlockHash) -> tuple[Vote, ...]:
        """Every vote with this target, in a fixed order."""
        found = self._votes.get(block, {})
        return tuple(found[key] for key in sorted(found))

    def votes_behind(self, source: BlockHash, *, most: int) -> tuple[Vote, ...]:
        """Votes that justify a block, those that justify their sources, and so on down to the root; the nearest ``most`` of them."""
        found: dict[Vote, None] = {}
        open_, seen = [source], {source, self.final.hash}
        while open_ and len(found) < most:
            votes = self.votes_for(open_.pop(0))
            found.update(dict.fromkeys(votes))
            for vote in votes:
                if vote.source.hash in self._justified and vote.source.hash not in seen:
                    seen.add(vote.source.hash)
                    open_.append(vote.source.hash)
        return tuple(found)[:most]

    def children_of(self, block: BlockHash) -> tuple[BlockPoint, ...]:
        """Blocks directly on top of a known one."""
        return tuple(self._points[name] for name in self._children[block])

    def add_block(self, point: BlockPoint) -> tuple[BlockPoint, ...]:
        """Takes an executed block whose parent is known. Result: blocks that became final by it, oldest first."""
        assert point.parent in self._points, "parent first"
        if point.hash in self._points:
            return ()
        self._points[point.hash] = point
        self._children[point.hash] = []
        self._children[point.parent].append(point.hash)
        if self._head != point.parent or point.hash in self._votes:
            self._head = None
        else:
            self._head = point.hash
        return self._judge(point.hash) if point.hash in self._votes else ()

    def add_vote(self, vote: Vote) -> tuple[BlockPoint, ...]:
        """Takes a verified vote, also for a block that is not known yet. Result: blocks that became final by it, oldest first."""
        of_target = self._votes.setdefault(vote.target.hash, {})
        # All of it: of a liar that names a wrong height in one of two votes, who heard which first must make no difference.
        key = (vote.member, vote.source.height, vote.source.hash, vote.target.height)
        if key in of_target:
            return ()
        of_target[key] = vote
        self._targets_of.setdefault(vote.source.hash, set()).add(vote.target.hash)
        height, targets = self._latest.get(vote.member, (0, frozenset()))
        if vote.target.height > height:
            self._latest[vote.member] = (vote.target.height, frozenset({vote.target.hash}))
        elif vote.target.height == height:
            self._latest[vote.member] = (height, targets | {vote.target.hash})
        self._head = None
        return self._judge(vote.target.hash) if vote.target.hash in self._points else ()

    def _judge(self, block: BlockHash) -> tuple[BlockPoint, ...]:
        newly: list[BlockPoint] = []
        open_ = [block]
        while open_:
            before = self.final
            self._judge_from(open_)
            if self.final is before:
                break
            # Every ancestor of the final block is a justified source from now on: whatever has votes is judged again.
            newly += reversed([point for point in self.ancestors(self.final.hash) if point.height > before.height])
            self._prune()
            open_ = [name for name in self._points if name in self._votes]
        self._head = None if newly else self._head
        return tuple(newly)

    def _judge_from(self, open_: list[BlockHash]) -> None:
        while open_:
            name = open_.pop()
            if name not in self._points or name == self.final.hash:
                continue
            if name not in self._justified and self._reaches(name):
                self._justified.add(name)
                self._head = None
                open_ += sorted(self._targets_of.get(name, ()))
                open_ += self._children[name]
            parent = self._points[name].parent
            both = name in self._justified and parent in self._justified
            if both and self._points[parent].height > self.final.height and self._reaches(name, source=parent):
                self.final = self._points[parent]

    def _reaches(self, block: BlockHash, *, source: BlockHash | None = None) -> bool:
        """True when votes for the block suffice: from any justified ancestors, or from ``source`` alone."""
        target = self._points[block]
        counted: list[tuple[AccountId, Committee, int]] = []
        for vote in self.votes_for(block):
            if vote.target.height != target.height or (source is not None and vote.source.hash != source):
                continue
            committee = self._source_committee(vote.source, block)
            if committee is not None:
                counted.append((vote.member, committee, vote.source.height))
        generations = {committee.generation: committee for _, committee, _ in counted}
        for point in self.ancestors(block):
            generations.setdefault(point.committee.generation, point.committee)
        return is_enough(target.committee, counted, generations.get)

    def _source_committee(self, source: Checkpoint, block: BlockHash) -> Committee | None:
        """Committee in force at a source, None unless it is a justified ancestor of the block."""
        point = self._points.get(source.hash)
        if point is None:
            return self._below(source) if source.height < self.final.height else None
        if point.height != source.height or source.hash not in self._justified or not self.is_ancestor(source.hash, block):
            return None
        return point.committee

    def ancestors(self, block: BlockHash) -> Iterator[BlockPoint]:
        """The block and its ancestors down to the root of the tree."""
        name = block
        while name in self._points:
            point = self._points[name]
            yield point
            name = point.parent

    def is_ancestor(self, old: BlockHash, block: BlockHash) -> bool:
        """True when ``old`` is the block or one of its ancestors in the tree."""
        height = self._points[old].height
        for point in self.ancestors(block):
            if point.height <= height:
                return point.hash == old
        return False

    def _prune(self) -> None:
        """Forgets what does not descend from the final block."""
        kept: set[BlockHash] = {self.final.hash}
        for name, point in self._points.items():
            if point.parent in kept:
                kept.add(name)
        self._points = {name: point for name, point in self._points.items() if name in kept}
        self._children = {name: [child for child in self._children[name] if child in kept] for name in self._points}
        self._justified &= kept
        height = self.final.height
        for target in [name for name, votes in self._votes.items() if all(vote.target.height < height for vote in votes.values())]:
            for vote in self._votes.pop(target).values():
                self._targets_of.get(vote.source.hash, set()).discard(target)
        self._targets_of = {source: targets for source, targets in self._targets_of.items() if targets}

    def highest_justified(self) -> BlockPoint:
        """The justified block of greatest height (of several, which takes more liars than finality bears, the best tip)."""
        return min((self._points[name] for name in self._justified), key=lambda point: (-point.height, *tip_order(point)))

    def latest_vote(self, member: AccountId) -> BlockHash | None:
        """Target of the member's vote of greatest target height; None without one, or with two at that height."""
        _, targets = self._latest.get(member, (0, frozenset()))
        return next(iter(targets)) if len(targets) == 1 else None

    def head(self) -> BlockPoint:
        """The tip to build on and to vote for."""
        if self._head is None:
            self._head = self._walk()
        return self._points[self._head]

    def _walk(self) -> BlockHash:
        start = self.highest_justified()
        count: dict[BlockHash, int] = {}
        for member in start.committee.members:
            target = self.latest_vote(member)
            if target is not None:
                count[target] = count.get(target, 0) + 1
        best: dict[BlockHash, BlockPoint] = {}
        for name, point in reversed(self._points.items()):
            best[name] = min([point, *(best[child] for child in self._children[name])], key=tip_order) if self._children[name] else point
            if name in count:
                count[point.parent] = count.get(point.parent, 0) + count[name]
        name = start.hash
        while self._children[name]:
            name = min(self._children[name], key=lambda child: (-count.get(child, 0), *tip_order(best[child])))
        return name

    def source_for(self, target: BlockHash) -> Checkpoint:
        """Highest justified ancestor of a block, the root at least."""
        for point in self.ancestors(target):
            if point.hash in self._justified and point.hash != target:
                return point.checkpoint
        return self.final.checkpoint

    def next_vote(self, promises: Promises) -> tuple[Checkpoint, Checkpoint, Promises]:
        """Source, target and the promises to make durable first, of a vote for the head. Raises Refused(PROMISED)."""
        target = self.head().checkpoint
        source = self.source_for(target.hash)
        return source, target, promise_vote(promises, source, target)
