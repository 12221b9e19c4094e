"""Puts and deletes of one record by several nodes of its owner, each knowing what has reached it; graves let bodies be forgotten.

Checked when all is delivered: every node comes to the same verdict; what a delete followed is dead; what none followed is alive.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from protocols.files.objects import Tombstone
from protocols.files.precedence import Known, Next, RecordVerdict, followed_by, next_after, verdict
from tests.protocols.files.records import known, statement, tombstone
from tests.simulation.models.chaos import Chaos, ModelBroken

Judge = Callable[[Iterable[Known]], RecordVerdict]


def judge_rightly(objects: Iterable[Known]) -> RecordVerdict:
    return verdict(objects)


def judge_by_number_alone(objects: Iterable[Known]) -> RecordVerdict:
    """Planted bug: the greatest object wins, whatever it followed."""
    found = list(objects)
    newest = max(found, key=lambda item: item.order, default=None)
    return verdict([newest]) if newest is not None and isinstance(newest.value, Tombstone) else verdict(found)


def judge_by_follows_alone(objects: Iterable[Known]) -> RecordVerdict:
    """Planted bug: the list of what a tombstone covers is not looked at, only the one object that it follows."""
    bare = []
    for item in objects:
        value = item.value
        if isinstance(value, Tombstone):
            value = tombstone(Next(value.seq, value.follows, ()))
        bare.append(Known(item.object_hash, value))
    return verdict(bare)


def judge_by_arrival(objects: Iterable[Known]) -> RecordVerdict:
    """Planted bug: among objects with one number the one that came last wins."""
    found = list(objects)
    best = max((item.value.seq for item in found), default=0)
    return verdict([item for item in found if item.value.seq == best][-1:])


class OwnerNode:
    """A node of the owner that also holds. Objects are durable; bodies of dead statements are forgotten at times."""

    def __init__(self, world: Chaos, name: str, judge: Judge, history: list[Known]) -> None:
        self._world = world
        self._name = name
        self._judge = judge
        self._history = history
        self.objects: dict[bytes, Known] = {}

    def restart(self) -> None:
        """Objects are durable; a node that comes back announces what it has."""
        self.announce()

    def announce(self) -> None:
        for item in self.objects.values():
            self._world.broadcast(self._name, item)

    def receive(self, sender: str, message: object) -> None:
        assert isinstance(message, Known)
        self.objects.setdefault(message.object_hash, message)

    def verdict(self) -> RecordVerdict:
        return self._judge(self.objects.values())

    def tick(self) -> None:
        draw = self._world.rng.random()
        if len(self._history) < 12 and draw < 0.3:
            self._act(is_delete=draw < 0.12)
        elif draw < 0.5:
            self._forget()
        elif draw < 0.6:
            self.announce()

    def _act(self, *, is_delete: bool) -> None:
        after = next_after(self.objects.values())
        if is_delete and not after.covers:
            return
        name = f"{len(self._history)}"
        item = known(tombstone(after, "x" * len(self._history)) if is_delete else statement(after, name))
        self._history.append(item)
        self.objects[item.object_hash] = item
        self._world.broadcast(self._name, item)

    def _forget(self) -> None:
        """What a tombstone in force covers is collected here, and heard of again perhaps."""
        grave = self.verdict().tombstone
        if grave is not None and isinstance(grave.value, Tombstone):
            for name in grave.value.covers:
                self.objects.pop(name, None)


def run(seed: int, *, judge: Judge = judge_rightly, steps: int = 250) -> tuple[int, int]:
    """Number of puts and deletes. Raises ModelBroken."""
    world = Chaos(seed)
    history: list[Known] = []
    nodes = {name: OwnerNode(world, name, judge, history) for name in "abcd"}
    world.nodes.update(nodes)
    for _ in range(steps):
        world.step()
    for node in nodes.values():
        node.announce()
    world.calm()
    verdicts = {name: node.verdict() for name, node in nodes.items()}
    alive = {name: frozenset(item.object_hash for item in found.readable) for name, found in verdicts.items()}
    if len(set(alive.values())) > 1:
        raise ModelBroken(f"seed {seed}: nodes disagree on what is alive")
    readable = alive["a"]
    graves = [item for item in history if isinstance(item.value, Tombstone)]
    for item in history:
        covered = any(isinstance(grave.value, Tombstone) and item.object_hash in followed_by(grave.value) for grave in graves)
        if item not in graves and covered and item.object_hash in readable:
            raise ModelBroken(f"seed {seed}: what was deleted came back")
        if item not in graves and not covered and item.object_hash not in readable:
            raise ModelBroken(f"seed {seed}: what nobody deleted is gone")
    return len(history) - len(graves), len(graves)
