"""What a seal answers. A quorum seal (an elected group signing each block) fits the same port. Source: SPEC.md §Seals."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ...errors import InvalidBlock, Reason
from ..block import Header

TARGET_MAX = (1 << 256) - 1
NONCE_MAX = (1 << 63) - 1


@dataclass(frozen=True, slots=True)
class Found:
    """A nonce that meets the target."""

    nonce: int


@dataclass(frozen=True, slots=True)
class NotYet:
    """Nothing in the range; the next nonce to try."""

    next_nonce: int


class SealRule(Protocol):
    """name: in a profile. has_leader: one leader a slot; else an open race among the term's list. has_work: targets mean something."""

    name: str
    has_leader: bool
    has_work: bool

    def check(self, header: Header, target: int) -> None:
        """Raises InvalidBlock(NONCE | WORK)."""
        ...

    def search(self, header: Header, target: int, *, first: int, count: int) -> Found | NotYet:
        """One step of a search: tries ``count`` nonces from ``first`` on. Pure; the caller may stop between steps."""
        ...


def check_nonce(nonce: int, nonce_max: int) -> None:
    """Raises InvalidBlock(NONCE): a nonce that this seal never uses."""
    if nonce > nonce_max:
        raise InvalidBlock(Reason.NONCE, f"nonce {nonce}, at most {nonce_max} wanted")


def check_work(found: bytes, target: int) -> None:
    """Raises InvalidBlock(WORK) unless the 32 bytes, as a big-endian integer, are at most the target."""
    if int.from_bytes(found, "big") > target:
        raise InvalidBlock(Reason.WORK, f"work {found.hex()[:16]}…, at most {target:064x} wanted")
