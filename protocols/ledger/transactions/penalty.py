"""Penalty: warn, suspend or revoke an account, with reason, evidence and end. By m of the council, or from evidence alone."""

from __future__ import annotations

from typing import Literal

from ...codec import Record, replace
from ...errors import Reason
from ...limits import LINKS_MAX
from ...types import AccountId, UnixMillis
from ..checks import check_lengths, check_numbers, check_texts, check_that
from ..context import ACCOUNT, Account, Action, Context, Kind, fire_at_time, need_council
from ..envelope import Transaction

PENALTY = "penalty"
Level = Literal["warn", "suspend", "revoke"]
_COUNTER = {"warn": "warnings", "suspend": "suspensions", "revoke": "revocations"}


class Body(Record, frozen=True):
    """evidence: ids of transactions or records. until_ms: 0 for no end."""

    target: AccountId
    level: Level
    reason: str
    evidence: tuple[bytes, ...]
    until_ms: UnixMillis


class PenaltyState(Record, frozen=True):
    """What the state keeps of a penalty, named by the transaction that brought it; it stays after its end."""

    target: AccountId
    level: Level
    reason: str
    from_ms: UnixMillis
    until_ms: UnixMillis
    is_active: bool


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(NOT_FOUND | BAD_BODY | NOT_SIGNED | …)."""
    need_council(context, transaction)
    check_lengths(32, target=body.target)
    check_texts(reason=body.reason)
    check_numbers(until_ms=body.until_ms)
    check_that(len(body.evidence) <= LINKS_MAX and all(len(one) == 32 for one in body.evidence), "evidence")
    check_that(body.until_ms == 0 or body.until_ms > context.time_ms, "a penalty that has ended")
    impose(context, transaction.id, body)


def impose(context: Context, name: bytes, body: Body) -> None:
    """The penalty holds from this block on. Raises InvalidTransaction(NOT_FOUND)."""
    account = context.load(ACCOUNT, body.target, Account, "account")
    context.state.save(PENALTY, name, PenaltyState(body.target, body.level, body.reason, context.time_ms, body.until_ms, True))
    _count(context, account, body.level, 1)
    if body.until_ms:
        fire_at_time(context, body.until_ms, Action.END_PENALTY, name)
    context.emit("penalty", name, body.target)


def end(context: Context, name: bytes) -> None:
    """The penalty ends: by time or by a lift. One that has ended stays so."""
    penalty = context.state.load(PENALTY, name, PenaltyState)
    assert penalty is not None
    if not penalty.is_active:
        return
    context.state.save(PENALTY, name, replace(penalty, is_active=False))
    account = context.load(ACCOUNT, penalty.target, Account, "account")
    _count(context, account, penalty.level, -1)
    context.emit("penalty-ended", name, penalty.target)


def _count(context: Context, account: Account, level: Level, step: int) -> None:
    counter = _COUNTER[level]
    value: int = getattr(account, counter)
    assert value + step >= 0
    context.state.save(ACCOUNT, account.id, replace(account, **{counter: value + step}))


def check_active(context: Context, name: bytes) -> None:
    """Raises InvalidTransaction(NOT_FOUND | CONFLICT)."""
    check_that(context.load(PENALTY, name, PenaltyState, "penalty").is_active, "the penalty has ended", Reason.CONFLICT)


KIND = Kind(9, "Penalty", Body, execute)
