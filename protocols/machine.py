"""How a table is stepped: event and time in, tuple of effects out.

``TABLE`` maps (state, event type) to (name of the move, states it may end in). A pair that is not in the table is a
protocol violation by the peer. A move returns (next state, effects); the step checks it against the table.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from typing import ClassVar

from .effects import Effect
from .errors import Reason, RemoteError

Row = tuple[str, frozenset[enum.Enum]]
TableType = Mapping[tuple[enum.Enum, type], Row]
Outcome = tuple[enum.Enum, tuple[Effect, ...]]


class Machine:
    """Base of every conversation's machine. Subclasses set TABLE and write the moves."""

    TABLE: ClassVar[TableType]
    state: enum.Enum

    def __init__(self, state: enum.Enum) -> None:
        self.state = state

    def step(self, event: object, now_s: float) -> tuple[Effect, ...]:
        """Effects of one event. Raises RemoteError(OUT_OF_ORDER) when the table has no such pair."""
        row = self.TABLE.get((self.state, type(event)))
        if row is None:
            raise RemoteError(Reason.OUT_OF_ORDER, f"{type(event).__name__} in state {self.state.name}")
        move, allowed = row
        next_state, effects = getattr(self, move)(event, now_s)
        assert next_state in allowed, (self.state, event, next_state)
        self.state = next_state
        return effects  # type: ignore[no-any-return]  # moves are looked up by the name in the table

    def wake_at(self) -> float | None:
        """When the machine wants a Tick, in the same clock as ``now_s``; None: never."""
        return None
