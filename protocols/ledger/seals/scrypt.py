"""Scrypt work: memory-hard, for an open race among the term's list; the block hash stays SHA-256. Source: SPEC.md §Seals."""

from __future__ import annotations

from ...crypto import scrypt
from ..block import Header
from .port import NONCE_MAX, Found, NotYet, check_nonce, check_work

COST = 1024
"""n = 1024, r = 8, p = 1: 1 MiB a try, about 3 ms on a laptop."""


def scrypt_work(header: Header) -> bytes:
    """32 bytes: scrypt with the header as passphrase and its Merkle root as salt."""
    return scrypt(header.encoded, header.merkle_root, cost=COST)


class ScryptWork:
    """Whoever of the list finds a nonce first."""

    name = "scrypt"
    has_leader = False
    has_work = True

    def check(self, header: Header, target: int) -> None:
        """Raises InvalidBlock(NONCE | WORK)."""
        check_nonce(header.nonce, NONCE_MAX)
        check_work(scrypt_work(header), target)

    def search(self, header: Header, target: int, *, first: int, count: int) -> Found | NotYet:
        """One step."""
        for nonce in range(first, first + count):
            attempt = Header(header.t_stamp_ms, header.merkle_root, header.version, header.parent, nonce)
            if int.from_bytes(scrypt_work(attempt), "big") <= target:
                return Found(nonce)
        return NotYet(first + count)
