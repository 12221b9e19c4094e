"""KeyRotate: another signing, voting or sealing key, proved by the new key and by whoever may say so."""

from __future__ import annotations

from typing import Literal

from ...codec import Record, replace
from ...errors import Reason
from ...types import AccountId, OwnerKey, UnixMillis
from ..carried import newest_committee, seat_committee
from ..checks import check_lengths, check_that
from ..committee import Seat
from ..context import ACCOUNT, KEY, Account, Context, Group, KeyUse, Kind, check_council_sender, council_group, need_any, need_signatures
from ..envelope import Transaction
from ..profile import Council, CouncilMember
from ..terms import MINER, SEALER, Miner


class Body(Record, frozen=True):
    """what: "sign" an account's key, "vote" a council member's voting key, "seal" a miner's key.

    enc_key: the new HPKE key, for "sign" alone, else empty.
    """

    what: Literal["sign", "vote", "seal"]
    subject: AccountId
    old: bytes
    new: bytes
    enc_key: bytes


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(CONFLICT | NOT_FOUND | NOT_SIGNED | …)."""
    check_lengths(32, subject=body.subject, old=body.old, new=body.new)
    check_lengths(32 if body.what == "sign" else 0, enc_key=body.enc_key)
    check_that(body.old != body.new, "the new key is the old one", Reason.CONFLICT)
    new = Group(frozenset({body.new}), 1)
    if body.what == "sign":
        _sign(context, transaction, body, new)
    elif body.what == "vote":
        _vote(context, transaction, body, new)
    else:
        _seal(context, transaction, body, new)
    context.emit("key", body.subject, body.new)


def _sign(context: Context, transaction: Transaction, body: Body, new: Group) -> None:
    """By the old and the new key; where the old one is lost, by the council and the new one."""
    account = context.load(ACCOUNT, body.subject, Account, "account")
    check_that(account.key == body.old, "not the account's current key", Reason.CONFLICT)
    check_that(context.owner_of_key(body.new) is None, "key belongs to an account already", Reason.CONFLICT)
    if transaction.content.sender == body.subject:
        context.account(body.subject)
        check_that(transaction.content.serial == account.serial, "not the sender's current certificate", Reason.BAD_CERTIFICATE)
        need_signatures(transaction, Group(frozenset({body.old}), 1), new)
    else:
        check_council_sender(context, transaction)
        need_signatures(transaction, council_group(context), new)
    now = context.time_ms
    use = context.load(KEY, body.old, KeyUse, "key")
    context.state.save(KEY, body.old, replace(use, to_ms=now))
    context.state.save(KEY, body.new, KeyUse(body.subject, now, UnixMillis(0)))
    context.state.save(ACCOUNT, body.subject, replace(account, key=OwnerKey(body.new), enc_key=body.enc_key))


def _vote(context: Context, transaction: Transaction, body: Body, new: Group) -> None:
    """By the member's council key and the new key; the committee votes with it from the next block on."""
    council = context.council
    member = council.member(body.subject)
    check_that(member is not None, "no seat on the council", Reason.NOT_FOUND)
    assert member is not None
    check_that(member.vote_key == body.old, "not the member's current voting key", Reason.CONFLICT)
    used = {key for one in council.members for key in (one.key, one.vote_key)}
    check_that(body.new not in used, "a key of the council stands twice", Reason.CONFLICT)
    check_council_sender(context, transaction)
    need_signatures(transaction, Group(frozenset({member.key}), 1), new)
    rotated = CouncilMember(member.id, member.key, body.new)
    context.seat_council(replace_member(council, rotated))
    committee = newest_committee(context.state)
    seats = tuple(Seat(seat.member, body.new) if seat.member == body.subject else seat for seat in committee.seats)
    seat_committee(
        context.state,
        replace(committee, generation=committee.generation + 1, from_height=context.height + 1, seats=seats, recovered_from=None),
    )


def replace_member(council: Council, member: CouncilMember) -> Council:
    """The council with one member's keys changed."""
    return replace(council, members=tuple(member if one.id == member.id else one for one in council.members))


def _seal(context: Context, transaction: Transaction, body: Body, new: Group) -> None:
    """By the miner's account and the new key."""
    miner = context.load(MINER, body.subject, Miner, "miner")
    check_that(miner.key == body.old, "not the miner's current key", Reason.CONFLICT)
    check_that(transaction.content.sender == body.subject, "sealing keys are changed by their account", Reason.WRONG_OWNER)
    account = context.account(body.subject)
    check_that(transaction.content.serial == account.serial, "not the sender's current certificate", Reason.BAD_CERTIFICATE)
    need_any(transaction, (Group(frozenset({account.key}), 1), new))
    check_that(body.new != account.key, "a sealing key of its own, so that a stolen miner opens nothing", Reason.CONFLICT)
    check_that(context.state.get(SEALER, body.new) in (None, body.subject), "sealing key of another miner", Reason.CONFLICT)
    context.state.put(SEALER, body.new, body.subject)
    context.state.save(MINER, body.subject, replace(miner, key=body.new))


KIND = Kind(4, "KeyRotate", Body, execute)
