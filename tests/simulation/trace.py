"""What happened, in order, as one rolling hash and a short tail for people."""

from __future__ import annotations

import hashlib
from collections import deque
from enum import Enum

import trio

# What a person reads after a failure; the hash covers everything.
TAIL_EVENTS = 200


def _plain(value: object) -> str:
    """Text of a fact that is the same in every process. Only kinds whose text says what they are and not where they lie in memory."""
    match value:
        case bytes():
            return value.hex()
        case Enum():
            return value.name
        case None | bool() | int() | float() | str():
            return repr(value)
        case tuple() | list():
            return f"[{','.join(_plain(item) for item in value)}]"
        case _:
            raise TypeError(f"a fact is bytes, a number, a text, an enum or a sequence of these; got {type(value).__name__}")


class Trace:
    """Rolling SHA-256 over every noted event, its facts and its virtual time."""

    def __init__(self) -> None:
        self.count = 0
        self._hash = bytes(32)
        self._tail: deque[str] = deque(maxlen=TAIL_EVENTS)

    def note(self, event: str, **facts: object) -> None:
        """One thing happened now. Facts are hashed by name, so their order at the call does not matter."""
        line = f"{trio.current_time():.9f} {event} " + " ".join(f"{name}={_plain(facts[name])}" for name in sorted(facts))
        self._hash = hashlib.sha256(self._hash + line.encode()).digest()
        self._tail.append(line)
        self.count += 1

    @property
    def digest(self) -> str:
        """64 hex digits over everything so far."""
        return self._hash.hex()

    def tail(self) -> tuple[str, ...]:
        """The last TAIL_EVENTS events, oldest first."""
        return tuple(self._tail)
