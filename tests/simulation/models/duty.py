"""Copies are missing; nodes die, freeze (they are heard of and do nothing) and come back. Everybody plans from its own view.

Checked at the end: a bounded time after faults ceased every sequence is everywhere it is wanted; and on a quiet day nothing is sent twice.
"""

from __future__ import annotations

import random

from protocols.files.repair import RepairView, SequenceView, plan
from protocols.types import PeerId, SequenceRoot
from tests.protocols.files.records import HASH_ID, OWNER, peer, root
from tests.simulation.models.chaos import ModelBroken

HYSTERESIS_S = 2.0
TAKEOVER_S = 20.0
SEND_S = 3
QUIET_S = 5 * 20 + 60


class Cluster:
    """Five nodes, some sequences, a clock in whole seconds."""

    def __init__(self, seed: int, *, takeover_s: float, quiet: bool) -> None:
        self.rng = random.Random(seed)
        self.takeover_s = takeover_s
        self.quiet = quiet
        self.nodes = [peer(name) for name in "abcde"]
        self.dead: set[PeerId] = set()
        self.frozen: set[PeerId] = set()
        self.sequences = [root(str(number)) for number in range(6)]
        self.held: dict[SequenceRoot, set[PeerId]] = {name: set(self.rng.sample(self.nodes, 2)) for name in self.sequences}
        self.wanted = {name: tuple(self.rng.sample(self.nodes, 4)) for name in self.sequences}
        self.sending: dict[tuple[PeerId, SequenceRoot, PeerId], int] = {}
        self.missing_since: dict[SequenceRoot, float] = {}
        self.old_holders: dict[SequenceRoot, frozenset[PeerId]] = {}  # when the loss was seen
        self.sent_twice = 0

    def view(self, us: PeerId, now: int) -> RepairView:
        """A node knows its own sendings only: others' are seen by their receipts."""
        live = frozenset(self.nodes) - self.dead
        found = []
        for name in self.sequences:
            counting = frozenset(self.held[name] - self.dead)
            lacks = set(self.wanted[name]) - counting
            if lacks:
                if name not in self.missing_since:
                    self.missing_since[name], self.old_holders[name] = float(now), counting
            else:
                self.missing_since.pop(name, None)
            copying = frozenset(target for sender, sequence, target in self.sending if sender == us and sequence == name)
            since = self.missing_since.get(name)
            newcomers = counting - self.old_holders.get(name, counting)
            found.append(SequenceView(OWNER.public, HASH_ID, name, 100, self.wanted[name], counting, live, copying, since, newcomers))
        return RepairView(us, float(now), tuple(found), 1000, 4, HYSTERESIS_S, self.takeover_s)

    def second(self, now: int, *, faults: bool) -> None:
        if faults and self.rng.random() < 0.1:
            self._fault()
        for key, done in sorted(self.sending.items()):
            sender, name, target = key
            if sender in self.dead or target in self.dead:
                del self.sending[key]
            elif done <= now and sender not in self.frozen:
                del self.sending[key]
                if target in self.held[name]:
                    self.sent_twice += 1
                elif not faults or self.quiet or self.rng.random() > 0.2:
                    self.held[name].add(target)
        for us in self.nodes:
            if us not in self.dead and us not in self.frozen:
                for copy in plan(self.view(us, now)):
                    self.sending[us, copy.sequence_root, copy.target] = now + SEND_S

    def _fault(self) -> None:
        node = self.rng.choice(self.nodes)
        if node in self.dead:
            self.dead.discard(node)
        elif node in self.frozen:
            self.frozen.discard(node)
        elif len(self.dead) + len(self.frozen) < 1:
            (self.dead if self.rng.random() < 0.5 else self.frozen).add(node)


def run(seed: int, *, takeover_s: float = TAKEOVER_S, quiet: bool = False) -> None:
    """Raises ModelBroken. quiet: no fault at all. One frozen node stays frozen for ever: the others must do without it."""
    cluster = Cluster(seed, takeover_s=takeover_s, quiet=quiet)
    if not quiet:
        for now in range(150):
            cluster.second(now, faults=True)
        cluster.dead.clear()
        cluster.frozen = {cluster.rng.choice(cluster.nodes)}
        for name in cluster.sequences:  # one more holder each is lost as faults end, so that there is something to do
            cluster.held[name] = set(sorted(cluster.held[name] - cluster.frozen)[:1]) | (cluster.held[name] & cluster.frozen)
    for now in range(150, 150 + QUIET_S):
        cluster.second(now, faults=False)
    for name in cluster.sequences:
        missing = set(cluster.wanted[name]) - cluster.held[name]
        if missing and cluster.held[name] - cluster.frozen:
            raise ModelBroken(f"seed {seed}: {len(missing)} copies still missing after {QUIET_S} s")
    if quiet and cluster.sent_twice:
        raise ModelBroken(f"seed {seed}: {cluster.sent_twice} copies were sent twice on a quiet day")
