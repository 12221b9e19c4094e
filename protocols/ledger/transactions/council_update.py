"""CouncilUpdate: another council, at the second term boundary after this is final by carried votes. By m of the present council."""

from __future__ import annotations

from ...codec import Record
from ...errors import Reason
from ..carried import newest_committee, seat_committee
from ..checks import check_that
from ..context import Context, Kind, need_council
from ..envelope import Transaction
from ..profile import Council, check_council, committee_from

PLANNED = "council-planned"


class Body(Record, frozen=True):
    """council.sequence: that of the present one + 1."""

    council: Council


class PlannedCouncil(Record, frozen=True):
    """height: of the block that carries the update. final_in: term in which it became final; None: not yet."""

    council: Council
    height: int
    final_in: int | None


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(SEQUENCE | CONFLICT | BAD_BODY | NOT_SIGNED | …). One change at a time."""
    need_council(context, transaction)
    check_council(body.council)
    check_sequence(context, body.council)
    check_that(context.state.get(PLANNED, b"") is None, "a change of the council is under way", Reason.CONFLICT)
    context.state.save(PLANNED, b"", PlannedCouncil(body.council, context.height, None))
    context.emit("council-planned", transaction.id)


def check_sequence(context: Context, council: Council) -> None:
    """Raises InvalidTransaction(SEQUENCE)."""
    wanted = context.council.sequence + 1
    check_that(council.sequence == wanted, f"sequence {council.sequence}, {wanted} wanted", Reason.SEQUENCE)


def note_final(context: Context, final: int) -> None:
    """Called when carried votes made a block final: a planned change at or below it waits for its second boundary."""
    planned = context.state.load(PLANNED, b"", PlannedCouncil)
    if planned is not None and planned.final_in is None and planned.height <= final:
        context.state.save(PLANNED, b"", PlannedCouncil(planned.council, planned.height, context.term))


def at_boundary(context: Context) -> None:
    """Called by the block that opens a term: a change whose second boundary this is takes effect in this block."""
    planned = context.state.load(PLANNED, b"", PlannedCouncil)
    if planned is None or planned.final_in is None or context.term < planned.final_in + 2:
        return
    context.state.delete(PLANNED, b"")
    context.seat_council(planned.council)
    generation = newest_committee(context.state).generation + 1
    seat_committee(context.state, committee_from(planned.council, context.profile, generation=generation, from_height=context.height))
    context.emit("council")


KIND = Kind(6, "CouncilUpdate", Body, execute)
