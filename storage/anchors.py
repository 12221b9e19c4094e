"""What this node knows of its member's records on their way to the chain: what their anchors shall say, and their logs.

What was already submitted stands in the chain's own table of transactions that were made here.
"""

from __future__ import annotations

from protocols.codec import encode
from protocols.files.journal import Step
from protocols.ledger.filing import CREATE, Intent
from protocols.types import HashId

from .engine import Delete, Put, Snapshot, Write
from .tables import ANCHOR_INTENTS, JOURNALS
from .values import FORMAT, SUITE, Stored, load


class _Kept(Stored, frozen=True):
    intent: Intent


class _Journal(Stored, frozen=True):
    steps: tuple[Step, ...]


def put_intent(hash_id: HashId, intent: Intent) -> Write:
    """Before the record's statement is kept, so that whoever finds the one finds the other."""
    return Put(ANCHOR_INTENTS, hash_id, encode(_Kept(FORMAT, SUITE, intent)))


def drop_intent(hash_id: HashId) -> Write:
    """The anchor is final."""
    return Delete(ANCHOR_INTENTS, hash_id)


def intent(snapshot: Snapshot, hash_id: HashId) -> Intent:
    """What was asked for, a plain create if nothing."""
    data = snapshot.get(ANCHOR_INTENTS, hash_id)
    return CREATE if data is None else load(ANCHOR_INTENTS, data, _Kept).intent


def put_journal(hash_id: HashId, steps: tuple[Step, ...]) -> Write:
    """The record's log as it is now."""
    return Put(JOURNALS, hash_id, encode(_Journal(FORMAT, SUITE, steps)))


def journal(snapshot: Snapshot, hash_id: HashId) -> tuple[Step, ...]:
    """The record's log; empty where another node of the owner anchored it."""
    data = snapshot.get(JOURNALS, hash_id)
    return () if data is None else load(JOURNALS, data, _Journal).steps
