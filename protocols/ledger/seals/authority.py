"""Authority: the slot's leader signs, nobody works. Source: SPEC.md §Seals."""

from __future__ import annotations

from ..block import Header
from .port import Found, NotYet, check_nonce


class Authority:
    """The nonce is 0 and the target stays the easiest."""

    name = "authority"
    has_leader = True
    has_work = False

    def check(self, header: Header, target: int) -> None:
        """Raises InvalidBlock(NONCE)."""
        check_nonce(header.nonce, 0)

    def search(self, header: Header, target: int, *, first: int, count: int) -> Found | NotYet:
        """Found at once."""
        return Found(0)
