"""PenaltyLift: the council ends a penalty."""

from __future__ import annotations

from ...codec import Record
from ..checks import check_lengths, check_texts
from ..context import Context, Kind, need_council
from ..envelope import Transaction
from .penalty import check_active, end


class Body(Record, frozen=True):
    """penalty: the id of the transaction that brought it."""

    penalty: bytes
    reason: str


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(NOT_FOUND | CONFLICT | NOT_SIGNED | …)."""
    need_council(context, transaction)
    check_lengths(32, penalty=body.penalty)
    check_texts(reason=body.reason)
    check_active(context, body.penalty)
    end(context, body.penalty)


KIND = Kind(10, "PenaltyLift", Body, execute)
