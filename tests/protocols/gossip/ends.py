"""One end of a gossip stream whose surroundings are a dictionary of facts."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable

from protocols.effects import Close, Send
from protocols.gossip import machine as g
from protocols.gossip.facts import fact_id
from protocols.gossip.sketch import Sketch
from protocols.registry import decode_message, encode_message

Fact = tuple[int, bytes]


class End:
    """A machine that has everything it asks for at once. said: frames that the other end has not taken yet."""

    def __init__(self, facts: Iterable[Fact] = ()) -> None:
        self.machine = g.GossipMachine()
        self.facts: dict[bytes, Fact] = {fact_id(*fact): fact for fact in facts}
        self.said: deque[bytes] = deque()
        self.delivered: list[Fact] = []
        self.heard: list[g.HeardOf] = []
        self.closed = False
        self.loads_max = 0

    def sketch(self) -> Sketch:
        return Sketch(self.facts)

    def open(self, now_s: float = 0.0) -> None:
        sketch = self.sketch()
        self.step(g.Opened(sketch.count, sketch.digest()), now_s)

    def hear(self, frame: bytes, now_s: float = 0.0) -> None:
        self.step(decode_message("gossip", frame), now_s)

    def step(self, first: object, now_s: float = 0.0) -> None:
        events = deque([first])
        while events:
            for effect in self.machine.step(events.popleft(), now_s):
                answer = self._perform(effect)
                if answer is not None:
                    events.append(answer)

    def _perform(self, effect: object) -> object | None:
        match effect:
            case Send(message):
                self.said.append(encode_message("gossip", message))
            case Close():
                self.closed = True
            case g.FilterUnknown(ids):
                return g.Unknown(tuple(one for one in ids if one not in self.facts))
            case g.LoadBodies(ids):
                self.loads_max = max(self.loads_max, len(ids))
                return g.Loaded(tuple(self.facts[one] for one in ids if one in self.facts))
            case g.LoadBucket(bucket):
                return g.BucketLoaded(bucket, self.sketch().ids_of(bucket))
            case g.DescribeSet():
                sketch = self.sketch()
                return g.OurSet(sketch.count, sketch.digest())
            case g.CollectLife():
                return g.LifeSigns(())
            case g.Deliver(items):
                for fact in items:
                    self.delivered.append(fact)
                    self.facts[fact_id(*fact)] = fact
            case g.HeardOf():
                self.heard.append(effect)
            case _:
                raise AssertionError(effect)
        return None


def settle(a: End, b: End, now_s: float = 0.0) -> int:
    """Carries frames both ways until nobody says anything. Result: how many."""
    count = 0
    while a.said or b.said:
        for end, other in ((a, b), (b, a)):
            while other.said:
                end.hear(other.said.popleft(), now_s)
                count += 1
        assert count < 10_000
    return count
