"""Approve: a named approver says yes or no, once. The threshold carries the target out in the same block; an impossible one ends it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ...codec import Record, replace
from ...errors import InvalidTransaction, Reason
from ..checks import check_lengths, check_texts, check_that
from ..context import Context, Kind, need_sender
from ..envelope import Transaction
from . import erase, expiry_extend, record_anchor
from .records import PENDING, Pending

COMPLETIONS: Mapping[int, Callable[[Context, bytes, Pending], None]] = {
    record_anchor.KIND.number: record_anchor.complete,
    expiry_extend.KIND.number: expiry_extend.complete,
    erase.KIND.number: erase.complete,
}
"""What carries a pending transaction out, by kind."""


class Body(Record, frozen=True):
    """target: id of a pending transaction."""

    target: bytes
    yes: bool
    note: str


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(NOT_FOUND | EXPIRED | NOT_ELIGIBLE | CONFLICT | …)."""
    account = need_sender(context, transaction)
    check_lengths(32, target=body.target)
    check_texts(note=body.note)
    pending = context.load(PENDING, body.target, Pending, "pending transaction")
    # It lapses by itself, unless so much is due that its turn comes later.
    check_that(context.time_ms < pending.deadline_ms, "the deadline is over", Reason.EXPIRED)
    check_that(account.id in pending.approvers, "sender is not a named approver", Reason.NOT_ELIGIBLE)
    check_that(account.id not in pending.yes and account.id not in pending.no, "said already", Reason.CONFLICT)
    if body.yes:
        pending = replace(pending, yes=tuple(sorted((*pending.yes, account.id))))
    else:
        pending = replace(pending, no=tuple(sorted((*pending.no, account.id))))
    context.emit("approved" if body.yes else "refused", body.target, account.id)
    if len(pending.yes) >= pending.needed:
        context.state.delete(PENDING, body.target)
        _complete(context, body.target, pending)
    elif len(pending.approvers) - len(pending.no) < pending.needed:
        context.state.delete(PENDING, body.target)
        context.emit("rejected", body.target)
    else:
        context.state.save(PENDING, body.target, pending)


def _complete(context: Context, target: bytes, pending: Pending) -> None:
    """Carries the target out; one that is no longer valid is rejected, and the approval stays."""
    mark, events = context.state.mark(), len(context.events)
    try:
        COMPLETIONS[pending.kind](context, target, pending)
    except InvalidTransaction:
        context.state.rollback(mark)
        del context.events[events:]
        context.emit("rejected", target)


KIND = Kind(17, "Approve", Body, execute)
