"""StorageReceipt: holders' signed receipts for anchored records, many at once; the facts that serving is credited for."""

from __future__ import annotations

from ...codec import Record
from ...crypto import Label
from ...errors import DecodeError, InvalidObject, InvalidTransaction, Reason
from ...files.holdings import Receipt, open_receipt
from ...signed import Signed
from ...types import Digest, UnixMillis
from ..checks import check_numbers, check_that
from ..context import Context, Kind, need_sender
from ..envelope import Transaction
from .records import load_record, record_key

HOLDING = "holding"
RECEIPTS_MAX = 64


class Body(Record, frozen=True):
    """receipts: as holders signed them, by rising object hash."""

    receipts: tuple[Signed, ...]


class Holding(Record, frozen=True):
    """The newest receipt of a holder's store for a record. sequences: how many it holds whole."""

    receipt: Digest
    generation: int
    counter: int
    until_ms: UnixMillis
    sequences: int


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(BAD_BODY | NOT_FOUND | STALE | EXPIRED | …). Sent by any account: the holder's signature counts."""
    need_sender(context, transaction)
    check_that(1 <= len(body.receipts) <= RECEIPTS_MAX, f"{len(body.receipts)} receipts, 1 to {RECEIPTS_MAX} wanted")
    names = [signed.object_hash for signed in body.receipts]
    check_that(names == sorted(set(names)), "receipts are not by rising hash")
    for signed in body.receipts:
        try:
            receipt = open_receipt(signed, context.profile.network)
        except (InvalidObject, DecodeError) as error:
            raise InvalidTransaction(error.reason, f"receipt: {error.message}") from error
        check_numbers(until_ms=receipt.until_s * 1000)
        check_that(receipt.until_s * 1000 > context.time_ms, "a receipt that has ended", Reason.EXPIRED)
        _take(context, signed.object_hash, receipt)


def _take(context: Context, name: Digest, receipt: Receipt) -> None:
    rank = (receipt.generation, receipt.counter)
    for item in receipt.items:
        record = load_record(context, item.owner, item.hash_id)
        check_that(record.status != "erased", "a receipt for an erased record", Reason.DELETED)
        at = record_key(item.owner, item.hash_id) + receipt.holder
        before = context.state.load(HOLDING, at, Holding)
        fresh = before is None or (before.generation, before.counter) < rank
        check_that(fresh, "a newer receipt of this store is known", Reason.STALE)
        until = UnixMillis(receipt.until_s * 1000)
        context.state.save(HOLDING, at, Holding(name, receipt.generation, receipt.counter, until, len(item.sequence_roots)))
        context.emit("holding", item.owner, item.hash_id, receipt.holder)


KIND = Kind(18, "StorageReceipt", Body, execute, lambda body: tuple((Label.RECEIPT, signed) for signed in body.receipts))
