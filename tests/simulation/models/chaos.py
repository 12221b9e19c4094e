"""The seeded scheduler of the models: everything that a network and its nodes may do to a message, drawn from one seed."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Protocol

IN_FLIGHT_MANY = 12  # above that only deliveries happen: a network that is always behind shows nothing


class ModelBroken(AssertionError):
    """A checker found a state that must not be."""


class ModelNode(Protocol):
    """One node of a model. What must survive a crash, the model keeps itself."""

    def receive(self, sender: str, message: object) -> None: ...

    def tick(self) -> None: ...

    def restart(self) -> None: ...


@dataclass(frozen=True, slots=True)
class InFlight:
    sender: str
    target: str
    message: object


class Chaos:
    """Nodes, messages in flight, a clock; one step is one thing that happens."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.nodes: dict[str, ModelNode] = {}
        self.now_s = 0.0
        self.faults = True
        self._in_flight: list[InFlight] = []
        self._side: dict[str, int] = {}

    def send(self, sender: str, target: str, message: object) -> None:
        self._in_flight.append(InFlight(sender, target, message))

    def broadcast(self, sender: str, message: object) -> None:
        for target in sorted(self.nodes):
            if target != sender:
                self.send(sender, target, message)

    def is_cut(self, one: str, other: str) -> bool:
        return self.faults and self._side.get(one, 0) != self._side.get(other, 0)

    def step(self) -> None:
        draw = self.rng.random()
        name = self.rng.choice(sorted(self.nodes))
        if self._in_flight and (draw < 0.60 or len(self._in_flight) > IN_FLIGHT_MANY):
            self._deliver()
        elif draw < 0.80 or not self.faults:
            self.now_s += self.rng.choice((0.1, 1.0, 5.0))
            self.nodes[name].tick()
        elif draw < 0.84:
            self.nodes[name].restart()
        elif draw < 0.88:
            self._side = {node: self.rng.randrange(2) for node in sorted(self.nodes)}
        elif draw < 0.92:
            self._side = {}
        else:
            self.nodes[name].tick()

    def _deliver(self) -> None:
        letter = self._in_flight.pop(self.rng.randrange(len(self._in_flight)))
        if self.is_cut(letter.sender, letter.target) or (self.faults and self.rng.random() < 0.1):
            return
        if self.faults and self.rng.random() < 0.1:
            self._in_flight.append(letter)
        self.nodes[letter.target].receive(letter.sender, letter.message)

    def calm(self) -> None:
        """Faults cease: what is in flight arrives, nothing is lost any more."""
        self.faults = False
        while self._in_flight:
            self._deliver()
