"""The kinds of facts that gossip carries, and the rule of their ids. What a body means is checked where it is kept."""

from __future__ import annotations

import enum

from ..crypto import sha256
from ..types import Digest


class FactKind(enum.IntEnum):
    """First byte of what is hashed to the id. Numbers are never used again."""

    # The least of all: whose facts the others are is judged by it, and facts are checked one kind after the other.
    DOMAIN = 0
    ANNOUNCEMENT = 1
    REVOCATION = 2
    FENCE = 3
    TICKET_STATE = 4
    STATEMENT = 16
    TOMBSTONE = 17
    WRAP = 18
    PIN = 19
    RECEIPT = 20
    WITHDRAWAL = 21
    ERASURE = 22
    REAFFIRM = 23


def fact_id(kind: int, body: bytes) -> Digest:
    """SHA-256(kind byte | body). 32 bytes."""
    return sha256(bytes([kind & 0xFF]), body)
