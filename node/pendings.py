"""What waits on the chain for the word of several: read from a state, in a pool thread; nothing is kept of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from protocols.codec import decode
from protocols.files.objects import Statement
from protocols.ledger.context import SEEN
from protocols.ledger.transactions import erase, expiry_extend, record_anchor
from protocols.ledger.transactions.records import PENDING, RECORD, Owners, Pending, RecordState, record_key
from protocols.types import AccountId, Digest, RecordKey, TxId, UnixMillis
from storage import chain
from storage.engine import Snapshot

RECORDS_PER_SLICE = 512
NO_STATEMENT = Digest(bytes(32))
Body = record_anchor.Body | expiry_extend.Body | erase.Body
KINDS: Mapping[int, tuple[str, type[Body]]] = {
    kind.number: (kind.name, body)
    for kind, body in (
        (record_anchor.KIND, record_anchor.Body),
        (expiry_extend.KIND, expiry_extend.Body),
        (erase.KIND, erase.Body),
    )
}
"""Kinds of transactions that may wait, and their bodies."""


@dataclass(frozen=True, slots=True)
class Waits:
    """A transaction that is in a block and waits for approvals. statement: the one that an anchor is of, else zeros.

    since_ms: time of the block that took it; None when the record whose owners it asks is no longer there.
    """

    id: TxId
    kind: int
    key: RecordKey
    statement: Digest
    body: Body
    pending: Pending
    since_ms: UnixMillis | None

    @property
    def kind_name(self) -> str:
        return KINDS[self.kind][0]

    @property
    def lacking(self) -> tuple[AccountId, ...]:
        """Those who have not said anything yet."""
        said = {*self.pending.yes, *self.pending.no}
        return tuple(name for name in self.pending.approvers if name not in said)


def find_waits(snapshot: Snapshot, mention: bytes) -> list[Waits]:
    """Those that name an account, a HashID or a key, by rising id. What does not contain it is not decoded."""
    view = chain.ChainState(snapshot)
    found = [read_waits(view, TxId(name), value) for name, value in scan_space(view, PENDING) if mention in value]
    return [one for one in found if one is not None]


def read_waits(view: chain.ChainState, name: TxId, value: bytes) -> Waits | None:
    """None for a kind that this version does not know."""
    pending = decode(value, Pending)
    if pending.kind not in KINDS:
        return None
    body = decode(pending.body, KINDS[pending.kind][1])
    owners: Owners | None
    if isinstance(body, record_anchor.Body):
        statement = decode(body.statement.body, Statement)
        key, of, owners = (statement.owner, statement.hash_id), body.statement.object_hash, body.owners
    else:
        key, of = (body.owner, body.hash_id), NO_STATEMENT
        record = view.get(RECORD, record_key(*key))
        owners = None if record is None else decode(record, RecordState).owners
    since = None if owners is None else UnixMillis(pending.deadline_ms - owners.deadline_ms)
    return Waits(name, pending.kind, key, of, body, pending, since)


def is_seen(snapshot: Snapshot, name: TxId) -> bool:
    """Whether the chain remembers a transaction's id: it is in a block, and its until is not over."""
    return chain.ChainState(snapshot).get(SEEN, name) is not None


def scan_space(view: chain.ChainState, space: str, prefix: bytes = b"") -> Iterator[tuple[bytes, bytes]]:
    """Keys and values of a space of the state, by rising key, in slices."""
    start = prefix
    while True:
        page = view.scan(space, start, RECORDS_PER_SLICE)
        for key, value in page:
            if not key.startswith(prefix):
                return
            yield key, value
        if len(page) < RECORDS_PER_SLICE:
            return
        start = page[-1][0] + b"\0"
