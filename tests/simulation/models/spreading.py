"""Facts spread through many nodes: the real gossip machines and the real rule of whom to tell, under a scheduler of events.

A node is a set of facts and one machine for each line to a node that it tells or is told by; a line delays, may break and comes back. What
nodes do around their machines is short here: facts are kept at once, told after the pause of `node/actors/gossip`. Lines on which nobody
tells anything new are left out, so nothing is healed by them; a real node has more.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from node.actors.gossip import TELL_PAUSE_S
from protocols.effects import Close, Effect, Send
from protocols.gossip import machine as g
from protocols.gossip.facts import FactKind, fact_id
from protocols.gossip.messages import Bodies
from protocols.gossip.sketch import Sketch
from protocols.gossip.spread import told_by
from protocols.registry import encode_message
from protocols.types import PeerId

Fact = tuple[int, bytes]
DELAY_S = (0.002, 0.03)
BODY_BYTES = 600
BROKEN_S = 4.0


@dataclass
class Outcome:
    """What a run came to. delivered: facts at nodes, of all that should be. latencies: seconds, of each that was delivered."""

    wanted: int
    delivered: int = 0
    bodies: int = 0
    messages: int = 0
    message_bytes: int = 0
    degree_max: int = 0
    latencies: list[float] = field(default_factory=list)

    @property
    def duplicates(self) -> float:
        """Bodies that came to a node which had them, for each that it had not."""
        return self.bodies / self.delivered - 1 if self.delivered else 0.0


class _Line:
    """One end of a line: this node's machine for a peer."""

    def __init__(self, node: _Node, peer: _Node) -> None:
        self.node, self.peer = node, peer
        self.machine = g.GossipMachine()
        self.is_up = True
        self.to_tell: list[bytes] = []
        self.other: _Line | None = None
        self.last_at = 0.0  # frames do not overtake one another


class _Node:
    def __init__(self, peer: PeerId) -> None:
        self.peer = peer
        self.facts: dict[bytes, Fact] = {}
        self.sketch = Sketch()
        self.lines: dict[PeerId, _Line] = {}
        self.told: frozenset[PeerId] = frozenset()


class Spreading:
    """``count`` nodes. ``publish`` and ``break_lines`` plan; ``run`` plays it. All chance comes from the seed."""

    def __init__(self, count: int, seed: int) -> None:
        self.now = 0.0
        self._chance = random.Random(f"spreading {count} {seed}")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._nodes = [_Node(PeerId(self._chance.randbytes(38))) for _ in range(count)]
        self._of = {node.peer: node for node in self._nodes}
        self._published: dict[bytes, float] = {}
        self.outcome = Outcome(0)
        peers = list(self._of)
        for node in self._nodes:
            node.told = told_by(node.peer, peers)
        self.outcome.degree_max = max(len(node.told) for node in self._nodes)
        for node in self._nodes:
            for peer in node.told:
                if peer not in node.lines:
                    self._connect(node, self._of[peer])

    def _at(self, when: float, act: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._order), act))

    def _connect(self, one: _Node, other: _Node) -> None:
        ends = _Line(one, other), _Line(other, one)
        ends[0].other, ends[1].other = ends[1], ends[0]
        for end in ends:
            end.node.lines[end.peer.peer] = end
            self._at(self.now, lambda end=end: self._open(end))  # type: ignore[misc]

    def _open(self, end: _Line) -> None:
        self._step(end, g.Opened(end.node.sketch.count, end.node.sketch.digest()))
        self._wake(end)

    def _wake(self, end: _Line) -> None:
        """Beats and reconciliations."""
        wake_at = end.machine.wake_at()
        if end.is_up and wake_at is not None:
            self._at(max(self.now, wake_at), lambda: self._tick(end))

    def _tick(self, end: _Line) -> None:
        if end.is_up:
            self._step(end, g.Tick())
            self._wake(end)

    def publish(self, facts: int, per_s: float) -> None:
        """So many facts, each by a node of chance."""
        for number in range(facts):
            fact = (int(FactKind.STATEMENT), number.to_bytes(8, "big") + self._chance.randbytes(BODY_BYTES - 8))
            node = self._chance.choice(self._nodes)
            self._at(1.0 + number / per_s, lambda node=node, fact=fact: self._accept(node, [fact], None))  # type: ignore[misc]
        self.outcome.wanted += facts * (len(self._nodes) - 1)

    def break_lines(self, share: float, at: float) -> None:
        """That share of all lines breaks at that time, and comes back later."""
        lines = [line for node in self._nodes for line in node.lines.values() if line.node.peer < line.peer.peer]
        for line in self._chance.sample(lines, int(len(lines) * share)):
            self._at(at, lambda line=line: self._break(line))  # type: ignore[misc]

    def _break(self, line: _Line) -> None:
        assert line.other is not None
        for end in (line, line.other):
            end.is_up = False
            end.node.lines.pop(end.peer.peer, None)
        self._at(self.now + BROKEN_S, lambda: self._connect(line.node, line.peer))

    def run(self, until_s: float) -> Outcome:
        """Plays until that time."""
        while self._events and self._events[0][0] <= until_s:
            self.now, _, act = heapq.heappop(self._events)
            act()
        return self.outcome

    # --- a node ---------------------------------------------------------------------------------------------------------

    def _accept(self, node: _Node, facts: list[Fact], source: PeerId | None) -> None:
        fresh = {fact_id(*fact): fact for fact in facts if fact_id(*fact) not in node.facts}
        node.facts.update(fresh)
        for name in fresh:
            node.sketch.add(name)
            if source is None:
                self._published[name] = self.now
            else:
                self.outcome.delivered += 1
                self.outcome.latencies.append(self.now - self._published[name])
        for peer in node.told:
            line = node.lines.get(peer)
            if line is not None and fresh and peer != source:
                if not line.to_tell:
                    self._at(self.now + TELL_PAUSE_S, lambda line=line: self._tell(line))  # type: ignore[misc]
                line.to_tell += fresh

    def _tell(self, line: _Line) -> None:
        told, line.to_tell = tuple(line.to_tell), []
        if line.is_up:
            self._step(line, g.HaveFacts(told))

    def _step(self, line: _Line, first: object) -> None:
        events = [first]
        while events and line.is_up:
            for effect in line.machine.step(events.pop(0), self.now):
                answer = self._perform(line, effect)
                if answer is not None:
                    events.append(answer)

    def _perform(self, line: _Line, effect: Effect) -> object | None:
        node = line.node
        match effect:
            case Send(message):
                self._send(line, message)
            case g.FilterUnknown(ids):
                return g.Unknown(tuple(one for one in ids if one not in node.facts))
            case g.LoadBodies(ids):
                return g.Loaded(tuple(node.facts[one] for one in ids if one in node.facts))
            case g.LoadBucket(bucket):
                return g.BucketLoaded(bucket, node.sketch.ids_of(bucket))
            case g.DescribeSet():
                return g.OurSet(node.sketch.count, node.sketch.digest())
            case g.CollectLife():
                return g.LifeSigns(())
            case g.Deliver(items):
                self.outcome.bodies += len(items)
                self._accept(node, list(items), line.peer.peer)
            case g.HeardOf():
                return None
            case Close():
                line.is_up = False
            case _:
                raise AssertionError(effect)
        return None

    def _send(self, line: _Line, message: object) -> None:
        """Arrives in order, after its delay, unless the line broke before."""
        other = line.other
        assert other is not None
        if not isinstance(message, Bodies) or message.items:
            self.outcome.messages += 1
            self.outcome.message_bytes += len(encode_message("gossip", message))
        line.last_at = max(line.last_at, self.now + self._chance.uniform(*DELAY_S))

        def arrive() -> None:
            if other.is_up:
                self._step(other, message)

        self._at(line.last_at, arrive)
