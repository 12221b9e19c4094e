"""Equivocation: evidence that a miner sealed two blocks in one slot, or a member cast two votes that no keeper of promises casts.

Once per key and slot or height, within EVIDENCE_TERMS; it brings a penalty by itself.
"""

from __future__ import annotations

from typing import Literal

from ...codec import Record
from ...crypto import Label, verify
from ...errors import InvalidObject, InvalidTransaction, Reason
from ...limits import EVIDENCE_TERMS
from ...types import AccountId, BlockHash, NetworkId, Signature, UnixMillis
from ..carried import COMMITTEE
from ..checks import check_lengths, check_that, u64
from ..committee import Committee
from ..context import ACCOUNT, Context, Group, Kind, need_signatures, sender_account
from ..envelope import NO_SERIAL, Transaction
from ..terms import MINER, SEALER, TERM, Miner, Term
from ..votes import Vote, breaks_promise, check_vote
from . import penalty

EVIDENCE = "evidence"
SUSPENSION_MS = 30 * 86_400_000


class Sealed(Record, frozen=True):
    """A seal as it was made: for this block hash, in the slot that the evidence names."""

    hash: BlockHash
    seal: bytes


class Body(Record, frozen=True):
    """what: "seals" (slot, seals) or "votes" (votes); the other fields are empty or 0. key: the key that signed both."""

    what: Literal["seals", "votes"]
    culprit: AccountId
    key: bytes
    slot: int
    seals: tuple[Sealed, ...]
    votes: tuple[Vote, ...]


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(BAD_BODY | BAD_SIGNATURE | CONFLICT | EXPIRED | NOT_ELIGIBLE | …)."""
    _check_reporter(context, transaction)
    check_lengths(32, culprit=body.culprit, key=body.key)
    try:
        at = _check_seals(context, body) if body.what == "seals" else _check_votes(context, body)
    except InvalidObject as error:
        raise InvalidTransaction(error.reason, f"evidence: {error.message}") from error
    name = body.what.encode() + b"\0" + body.key + u64(at)
    check_that(context.state.get(EVIDENCE, name) is None, "known already", Reason.CONFLICT)
    context.state.put(EVIDENCE, name, transaction.id)
    context.emit("equivocation", transaction.id, body.culprit)
    if context.state.get(ACCOUNT, body.culprit) is not None:
        until = UnixMillis(context.time_ms + SUSPENSION_MS)
        penalty.impose(context, transaction.id, penalty.Body(body.culprit, "suspend", f"two {body.what}", (transaction.id,), until))


def _check_reporter(context: Context, transaction: Transaction) -> None:
    """Any account in standing, or a council member or miner by its own key: nodes report without an account's key."""
    content = transaction.content
    if content.serial != NO_SERIAL:
        account = sender_account(context, transaction)
        need_signatures(transaction, Group(frozenset({account.key}), 1))
        return
    member = context.council.member(content.sender)
    miner = context.state.load(MINER, content.sender, Miner)
    keys = {key for key in (None if member is None else member.vote_key, None if miner is None else miner.key) if key is not None}
    check_that(bool(keys), "sender is neither member nor miner", Reason.NOT_MEMBER)
    need_signatures(transaction, Group(frozenset(keys), 1))


def _oldest_slot(context: Context) -> int:
    """First slot of the oldest term that evidence may speak of."""
    term = context.state.load(TERM, u64(max(0, context.term - EVIDENCE_TERMS)), Term)
    return 0 if term is None else term.first_slot


def _check_seals(context: Context, body: Body) -> int:
    check_that(len(body.seals) == 2 and not body.votes, "two seals and no vote are wanted")
    # Rotating the key afterwards does not help.
    check_that(context.state.get(SEALER, body.key) == body.culprit, "not a key of that miner", Reason.NOT_FOUND)
    first, second = body.seals
    check_that(first.hash < second.hash, "two blocks, by rising hash, are wanted")
    check_that(0 <= body.slot <= context.slot, f"slot {body.slot}")
    check_that(body.slot >= _oldest_slot(context), "evidence is too old", Reason.EXPIRED)
    for one in body.seals:
        check_lengths(32, hash=one.hash)
        check_lengths(64, seal=one.seal)
        verify(body.key, Signature(one.seal), Label.SEAL, NetworkId(context.chain), u64(body.slot) + one.hash)
    return body.slot


def _check_votes(context: Context, body: Body) -> int:
    check_that(len(body.votes) == 2 and not body.seals and body.slot == 0, "two votes and no seal are wanted")
    first, second = body.votes
    check_that(first.member == second.member == body.culprit, "votes of another member")
    check_that(first.chain == second.chain == context.chain, "votes of another chain", Reason.WRONG_CHAIN)
    check_that(_has_voted_with(context, body.culprit, body.key), "not a voting key of that member", Reason.NOT_FOUND)
    for vote in body.votes:
        check_vote(vote, body.key)
    check_that(breaks_promise(first, second), "the votes break no promise")
    height = max(first.target.height, second.target.height)
    least = context.height - EVIDENCE_TERMS * context.profile.term_blocks
    check_that(height >= least, "evidence is too old", Reason.EXPIRED)
    return height


def _has_voted_with(context: Context, member: AccountId, key: bytes) -> bool:
    committees = (context.state.load(COMMITTEE, name, Committee) for name, _ in list(context.state.iterate(COMMITTEE)))
    return any(committee is not None and committee.key_of(member) == key for committee in committees)


KIND = Kind(21, "Equivocation", Body, execute)
