"""Erase: a record's keys are void, by all its owners or by order of the council; hashes and history stay."""

from __future__ import annotations

from typing import Literal

from ...codec import Record, decode, replace
from ...errors import Reason
from ...types import HashId, OwnerKey
from ..checks import check_texts, check_that
from ..context import Context, Group, Kind, need_council, need_signatures, sender_account
from ..envelope import NO_SERIAL, Transaction
from .records import RECORD, Pending, keys_of, load_record, record_key, signed_by, wait_for


class Body(Record, frozen=True):
    """scope: "keys" wraps are void, "chunks" holders erase the chunks too and sign receipts. reason: of a legal order."""

    owner: OwnerKey
    hash_id: HashId
    scope: Literal["keys", "chunks"]
    reason: str


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(NOT_FOUND | CONFLICT | WRONG_OWNER | NOT_SIGNED | …)."""
    check_texts(reason=body.reason)
    _check(context, body)
    if transaction.content.serial == NO_SERIAL:
        need_council(context, transaction)
        check_that(bool(body.reason), "a legal order gives its reason")
        _write(context, body)
        return
    account = sender_account(context, transaction)
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
    check_that(load_record(context, body.owner, body.hash_id).status != "erased", "erased already", Reason.CONFLICT)


def complete(context: Context, name: bytes, pending: Pending) -> None:
    """All have approved. Raises InvalidTransaction."""
    body = decode(pending.body, Body)
    _check(context, body)
    _write(context, body)


def _write(context: Context, body: Body) -> None:
    record = load_record(context, body.owner, body.hash_id)
    context.state.save(RECORD, record_key(body.owner, body.hash_id), replace(record, status="erased"))
    context.emit("erased", body.owner, body.hash_id, body.scope.encode())


KIND = Kind(20, "Erase", Body, execute)
