"""What this node knows of its member's records on their way to the chain: what their anchors shall say, whether another node knows that
instead, whom they asked, and their logs.

What was already submitted stands in the chain's own table of transactions that were made here.
"""

from __future__ import annotations

from protocols.codec import encode
from protocols.files.journal import Step
from protocols.ledger.filing import CREATE, Intent
from protocols.types import Digest, HashId, TxId, UnixMillis

from .engine import Delete, Put, Snapshot, Write
from .tables import ANCHOR_ASKS, ANCHOR_ELSEWHERE, ANCHOR_INTENTS, JOURNALS
from .values import FORMAT, SUITE, Stored, load


class _Kept(Stored, frozen=True):
    intent: Intent


class Ask(Stored, frozen=True):
    """A transaction about a record of ours that waited for the word of others in a final block, or is over. statement: the one that an
    anchor is of, zeros for other kinds. until_ms: of the transaction; so long the chain remembers its id."""

    kind: int
    transaction: TxId
    statement: Digest
    until_ms: UnixMillis


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


def put_elsewhere(hash_id: HashId) -> Write:
    """With the statement that another node of this member published: what its anchor shall say is known there."""
    return Put(ANCHOR_ELSEWHERE, hash_id, encode(Stored(FORMAT, SUITE)))


def drop_elsewhere(hash_id: HashId) -> Write:
    """It is final, or a person put it here."""
    return Delete(ANCHOR_ELSEWHERE, hash_id)


def is_elsewhere(snapshot: Snapshot, hash_id: HashId) -> bool:
    """Whether a record of ours was published by another node, and not put here since."""
    return snapshot.get(ANCHOR_ELSEWHERE, hash_id) is not None


def put_ask(hash_id: HashId, ask: Ask) -> Write:
    """The chain forgets what was refused or lapsed; who asked remembers it, so as not to ask again by itself."""
    return Put(ANCHOR_ASKS, bytes([ask.kind]) + hash_id, encode(ask))


def make_ask(kind: int, transaction: TxId, statement: Digest, until_ms: UnixMillis) -> Ask:
    """In the form that is stored."""
    return Ask(FORMAT, SUITE, kind, transaction, statement, until_ms)


def drop_ask(kind: int, hash_id: HashId) -> Write:
    """It was carried out, or a person asks once more."""
    return Delete(ANCHOR_ASKS, bytes([kind]) + hash_id)


def ask(snapshot: Snapshot, kind: int, hash_id: HashId, statement: Digest) -> Ask | None:
    """What was asked about this statement, None for nothing."""
    data = snapshot.get(ANCHOR_ASKS, bytes([kind]) + hash_id)
    found = None if data is None else load(ANCHOR_ASKS, data, Ask)
    return found if found is not None and found.statement == statement else None


def put_journal(hash_id: HashId, steps: tuple[Step, ...]) -> Write:
    """The record's log as it is now."""
    return Put(JOURNALS, hash_id, encode(_Journal(FORMAT, SUITE, steps)))


def journal(snapshot: Snapshot, hash_id: HashId) -> tuple[Step, ...]:
    """The record's log; empty where another node of the owner anchored it."""
    data = snapshot.get(JOURNALS, hash_id)
    return () if data is None else load(JOURNALS, data, _Journal).steps
