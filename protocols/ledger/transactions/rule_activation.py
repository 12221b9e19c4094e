"""RuleActivation: another rule set from a height on, at least two terms ahead. By m of the council."""

from __future__ import annotations

from ...codec import Record
from ...errors import Reason
from ..block import VERSION_MAX
from ..checks import check_that, u64
from ..context import Context, Kind, need_council
from ..envelope import Transaction
from ..state import Overlay

RULES = "rules"
TERMS_AHEAD = 2


class Body(Record, frozen=True):
    """version: of the rule set, above every planned one. height: the first block under it."""

    version: int
    height: int


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(BAD_BODY | SEQUENCE | NOT_SIGNED | …)."""
    need_council(context, transaction)
    planned = [(int.from_bytes(key, "big"), int.from_bytes(value, "big")) for key, value in context.state.iterate(RULES)]
    height, version = planned[-1]
    check_that(version < body.version <= VERSION_MAX, f"version {body.version}, more than {version} wanted", Reason.SEQUENCE)
    least = max(height + 1, context.height + TERMS_AHEAD * context.profile.term_blocks)
    check_that(least <= body.height < 1 << 63, f"height {body.height}, at least {least} wanted")
    activate(context.state, body.version, body.height)
    context.emit("rules-planned", u64(body.version), u64(body.height))


def activate(state: Overlay, version: int, height: int) -> None:
    """The rule set holds from that height on."""
    state.put(RULES, u64(height), u64(version))


def version_at(state: Overlay, height: int) -> int:
    """Rule set in force at a height."""
    found = 0
    for key, value in state.iterate(RULES):
        if int.from_bytes(key, "big") <= height:
            found = int.from_bytes(value, "big")
    return found


KIND = Kind(8, "RuleActivation", Body, execute)
