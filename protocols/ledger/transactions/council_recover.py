"""CouncilRecover: lost voting keys are replaced by m of the offline recovery keys, in the block that carries it. Shown for ever."""

from __future__ import annotations

from ...codec import Record
from ...errors import Reason
from ...types import BlockHash
from ..carried import HASH, final_height, newest_committee, seat_committee
from ..checks import check_lengths, check_that, u64
from ..context import Context, Group, Kind, need_signatures
from ..envelope import NO_SERIAL, Transaction
from ..profile import Council, check_council, committee_from
from .council_update import PLANNED, check_sequence

RECOVERED = "recovered"


class Body(Record, frozen=True):
    """height, hash: a final block of this branch, which counts as justified for the new committee.

    council: as before but for voting keys and the sequence, which is one more.
    """

    height: int
    hash: BlockHash
    council: Council


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(CONFLICT | SEQUENCE | NOT_SIGNED | …)."""
    council = context.council
    check_lengths(32, hash=body.hash)
    check_that(council.recovery_threshold > 0, "this chain has no recovery keys", Reason.NOT_ELIGIBLE)
    check_that(transaction.content.serial == NO_SERIAL, "a recovery names no certificate", Reason.BAD_CERTIFICATE)
    need_signatures(transaction, Group(frozenset(council.recovery), council.recovery_threshold))
    check_council(body.council)
    check_sequence(context, body.council)
    same = [(member.id, member.key) for member in body.council.members] == [(member.id, member.key) for member in council.members]
    kept = (body.council.recovery, body.council.recovery_threshold, body.council.threshold)
    check_that(
        same and kept == (council.recovery, council.recovery_threshold, council.threshold),
        "a recovery changes voting keys alone",
        Reason.CONFLICT,
    )
    # What nodes know to be final may be ahead of what blocks carry, and the lost keys are why: any ancestor above it may be named.
    known = context.state.get(HASH, u64(body.height)) if 0 <= body.height < context.height else None
    check_that(known == body.hash, "the named block is no recent ancestor", Reason.CONFLICT)
    check_that(body.height >= final_height(context.state), "the named block is older than the final one", Reason.CONFLICT)
    context.seat_council(body.council)
    context.state.delete(PLANNED, b"")
    generation = newest_committee(context.state).generation + 1
    committee = committee_from(body.council, context.profile, generation=generation, from_height=context.height, recovered_from=body.height)
    seat_committee(context.state, committee)
    context.state.put(RECOVERED, u64(context.height), transaction.id)
    context.emit("recovered", transaction.id, body.hash)


KIND = Kind(7, "CouncilRecover", Body, execute)
