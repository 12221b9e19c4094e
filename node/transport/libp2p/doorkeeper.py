"""Who may be in the middle of a handshake. Pure bookkeeping over cancel scopes.

Refusing newcomers would let silent callers hold every place for the whole time-out; so the oldest gives way. An honest
handshake takes milliseconds and is far from being the oldest.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

HANDSHAKE_TIMEOUT_S = 10.0
HANDSHAKES_MAX = 64
HANDSHAKES_PER_ADDRESS_MAX = 16


@dataclass(eq=False, slots=True)
class _Visitor:
    address: str
    scope: trio.CancelScope


class Doorkeeper:
    """At most HANDSHAKES_MAX handshakes at once, HANDSHAKES_PER_ADDRESS_MAX from one address, each HANDSHAKE_TIMEOUT_S long."""

    def __init__(self, *, total_max: int = HANDSHAKES_MAX, per_address_max: int = HANDSHAKES_PER_ADDRESS_MAX) -> None:
        self.total_max = total_max
        self.per_address_max = per_address_max
        self._visitors: list[_Visitor] = []  # oldest first

    @property
    def visitor_count(self) -> int:
        return len(self._visitors)

    @contextmanager
    def admitted(self, address: str) -> Iterator[trio.CancelScope]:
        """A place for the time of the block; its scope is cancelled after the time-out or when the place is needed."""
        self._make_room(address)
        visitor = _Visitor(address, trio.CancelScope(deadline=trio.current_time() + HANDSHAKE_TIMEOUT_S))
        self._visitors.append(visitor)
        try:
            with visitor.scope:
                yield visitor.scope
        finally:
            if visitor in self._visitors:
                self._visitors.remove(visitor)

    def _make_room(self, address: str) -> None:
        same = [visitor for visitor in self._visitors if visitor.address == address]
        if len(same) >= self.per_address_max:
            self._put_out(same[0])
        elif len(self._visitors) >= self.total_max:
            self._put_out(self._visitors[0])

    def _put_out(self, visitor: _Visitor) -> None:
        visitor.scope.cancel()
        self._visitors.remove(visitor)
