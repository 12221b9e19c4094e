"""Chance: the only caller of the machine's randomness. Logic receives drawn values, or this port, never a generator of its own."""

from __future__ import annotations

import os
from typing import Protocol

from protocols.crypto import sha256

_UNIFORM_BITS = 53  # what a float holds exactly


def _unit_interval(drawn: bytes) -> float:
    """8 random bytes as a number in [0, 1)."""
    return float(int.from_bytes(drawn, "big") >> (64 - _UNIFORM_BITS)) / float(1 << _UNIFORM_BITS)


class Entropy(Protocol):
    """Where a node's randomness comes from."""

    def token(self, n: int) -> bytes:
        """``n`` fresh random bytes, fit for keys."""

    def uniform(self) -> float:
        """A number in [0, 1), for jitter and choices."""


class SystemEntropy:
    """The operating system's generator."""

    def token(self, n: int) -> bytes:
        """``n`` fresh random bytes, fit for keys."""
        return os.urandom(n)

    def uniform(self) -> float:
        """A number in [0, 1)."""
        return _unit_interval(os.urandom(8))


class SeededEntropy:
    """The same bytes from the same seed, for simulation: SHA-256(label | seed | counter), block after block.

    seed: any bytes. ``fork`` gives each node, disk and link a stream of its own, so that one more draw here moves nothing there.
    """

    def __init__(self, seed: bytes) -> None:
        self._seed = sha256(b"lading/simulated-entropy/1\0", seed)
        self._counter = 0
        self._rest = b""

    def token(self, n: int) -> bytes:
        """Next ``n`` bytes of the stream."""
        pieces = [self._rest]
        available = len(self._rest)
        while available < n:
            block = sha256(self._seed, self._counter.to_bytes(8, "big"))
            self._counter += 1
            pieces.append(block)
            available += len(block)
        drawn = b"".join(pieces)
        self._rest = drawn[n:]
        return drawn[:n]

    def uniform(self) -> float:
        """Next number in [0, 1)."""
        return _unit_interval(self.token(8))

    def fork(self, label: str) -> SeededEntropy:
        """An independent stream named by ``label``; the same whatever was drawn from this one before."""
        return SeededEntropy(self._seed + label.encode())
