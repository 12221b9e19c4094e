"""ExpiryExtend: another end of a record's validity, by all its owners as for a change."""

from __future__ import annotations

from ...codec import Record, decode, replace
from ...errors import Reason
from ...types import HashId, OwnerKey, UnixMillis
from ..checks import check_that
from ..context import Context, Group, Kind, need_signatures, sender_account
from ..envelope import Transaction
from .records import RECORD, Pending, check_validity, keys_of, load_record, record_key, signed_by, wait_for, watch_expiry


class Body(Record, frozen=True):
    """valid_until_ms: later than now and than before; 0: without end."""

    owner: OwnerKey
    hash_id: HashId
    valid_until_ms: UnixMillis


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """At once when all owners signed, else pending. Raises InvalidTransaction(NOT_FOUND | CONFLICT | WRONG_OWNER | …)."""
    account = sender_account(context, transaction)
    _check(context, body)
    owners = load_record(context, body.owner, body.hash_id).owners
    check_that(account.id in owners.owners, "sender is not an owner", Reason.WRONG_OWNER)
    others = frozenset(owners.owners) - {account.id}
    need_signatures(transaction, Group(frozenset({account.key}), 1), Group(keys_of(context, others), 0))
    missing = others - signed_by(context, transaction, others)
    if missing:
        wait_for(context, transaction, missing, time_ms=owners.deadline_ms)
    else:
        _write(context, body)


def _check(context: Context, body: Body) -> None:
    record = load_record(context, body.owner, body.hash_id)
    check_that(record.status in ("active", "superseded", "expired"), f"the record is {record.status}", Reason.CONFLICT)
    check_validity(context, record.valid_from_ms, body.valid_until_ms)
    later = record.valid_until_ms != 0 and (body.valid_until_ms == 0 or body.valid_until_ms > record.valid_until_ms)
    check_that(later, "not later than it is", Reason.CONFLICT)


def complete(context: Context, name: bytes, pending: Pending) -> None:
    """All have approved. Raises InvalidTransaction."""
    body = decode(pending.body, Body)
    _check(context, body)
    _write(context, body)


def _write(context: Context, body: Body) -> None:
    record = load_record(context, body.owner, body.hash_id)
    status = "active" if record.status == "expired" else record.status
    context.state.save(RECORD, record_key(body.owner, body.hash_id), replace(record, status=status, valid_until_ms=body.valid_until_ms))
    watch_expiry(context, body.owner, body.hash_id, body.valid_until_ms)
    context.emit("extended", body.owner, body.hash_id)


KIND = Kind(19, "ExpiryExtend", Body, execute)
