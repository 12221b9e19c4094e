"""Proof of work: SHA-256 of the 84 bytes, as a big-endian integer, is at most the target. Source: SPEC.md §Seals."""

from __future__ import annotations

import hashlib

from ..block import Header
from .port import NONCE_MAX, Found, NotYet, check_nonce, check_work


class ProofOfWork:
    """Paces the one leader of a slot and makes rewriting cost something."""

    name = "pow"
    has_leader = True
    has_work = True

    def check(self, header: Header, target: int) -> None:
        """Raises InvalidBlock(NONCE | WORK)."""
        check_nonce(header.nonce, NONCE_MAX)
        check_work(header.hash, target)

    def search(self, header: Header, target: int, *, first: int, count: int) -> Found | NotYet:
        """One step. The state of SHA-256 after the constant first block of 64 bytes is computed once."""
        wanted = target.to_bytes(32, "big")
        prefix = hashlib.sha256(header.without_nonce)
        for nonce in range(first, first + count):
            attempt = prefix.copy()
            attempt.update(nonce.to_bytes(8, "big"))
            if attempt.digest() <= wanted:
                return Found(nonce)
        return NotYet(first + count)
