"""What the state keeps of a record, and the rules that several kinds share: change kinds, owners, approvals. Source: SPEC.md §Records."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from ...codec import Record, replace
from ...errors import InvalidTransaction, Reason
from ...limits import OWNERS_MAX
from ...types import AccountId, ChunksRoot, Digest, HashId, OwnerKey, TxId, UnixMillis
from ..checks import check_lengths, check_numbers, check_that, is_rising
from ..context import Action, Context, fire_at_time
from ..envelope import Transaction

RECORD = "record"
PENDING = "pending"
Change = Literal[
    "create", "modify", "append", "annotate", "correct", "merge", "split", "convert", "redact", "copy", "aggregate", "transfer",
    "supersede", "restore",
]  # fmt: skip
Status = Literal["active", "superseded", "expired", "disputed", "invalid", "erased"]


@dataclass(frozen=True, slots=True)
class ChangeRule:
    """parents_min, parents_max: how many a change of this kind has. needs: "modify" all owners of each parent, "derive" the right to
    read them, "" nothing. may_drop_level: the level may be below a parent's. supersedes: the parents are no longer the newest."""

    parents_min: int
    parents_max: int
    needs: Literal["", "derive", "modify"]
    may_drop_level: bool
    supersedes: bool


_MANY = 64
CHANGES: Mapping[Change, ChangeRule] = {
    "create": ChangeRule(0, 0, "", False, False),
    "modify": ChangeRule(1, 1, "modify", False, True),
    "append": ChangeRule(1, 1, "modify", False, True),
    "annotate": ChangeRule(1, 1, "derive", False, False),
    "correct": ChangeRule(1, 1, "modify", False, True),
    "merge": ChangeRule(2, _MANY, "modify", False, True),
    "split": ChangeRule(1, 1, "modify", False, False),
    "convert": ChangeRule(1, 1, "derive", False, False),
    "redact": ChangeRule(1, 1, "derive", True, False),
    "copy": ChangeRule(1, 1, "derive", False, False),
    "aggregate": ChangeRule(2, _MANY, "derive", True, False),
    "transfer": ChangeRule(1, 1, "modify", False, True),
    "supersede": ChangeRule(1, 1, "modify", False, True),
    "restore": ChangeRule(0, 1, "modify", False, False),
}


class Owners(Record, frozen=True):
    """The owners descriptor, fixed when the record is made. change: all owners. access: ``access_threshold`` of ``approvers``.

    Both by rising id. deadline_ms: how long approvals may take.
    """

    owners: tuple[AccountId, ...]
    approvers: tuple[AccountId, ...]
    access_threshold: int
    deadline_ms: int


def check_owners(owners: Owners) -> None:
    """Raises InvalidTransaction(BAD_BODY)."""
    for group in (owners.owners, owners.approvers):
        check_that(1 <= len(group) <= OWNERS_MAX and is_rising(group), "owners or approvers: none, too many, or not by rising id")
        for name in group:
            check_lengths(32, account=name)
    if not 1 <= owners.access_threshold <= len(owners.approvers):
        raise InvalidTransaction(Reason.BAD_BODY, f"access threshold {owners.access_threshold}")
    check_that(0 < owners.deadline_ms <= 1 << 40, "deadline")


class Parent(Record, frozen=True):
    """A record by owner's key and HashID."""

    owner: OwnerKey
    hash_id: HashId


def record_key(owner: bytes, hash_id: bytes) -> bytes:
    """All state is keyed by (owner, HashID)."""
    return owner + hash_id


class RecordState(Record, frozen=True):
    """A record as it stands. statement, seq: the owner's object that is anchored. sender_ms, block_ms, upload_ms: three times.

    policy, rules: versions under which it was taken. valid_until_ms: 0 for no end. anchor: id of the transaction.
    """

    status: Status
    account: AccountId
    statement: Digest
    seq: int
    chunks_root: ChunksRoot
    change: Change
    parents: tuple[Parent, ...]
    owners: Owners
    level: int
    schema: str
    size_class: int
    tags: tuple[tuple[str, str], ...]
    log_head: bytes
    sender_ms: UnixMillis
    block_ms: UnixMillis
    upload_ms: UnixMillis
    valid_from_ms: UnixMillis
    valid_until_ms: UnixMillis
    policy: int
    rules: int
    anchor: TxId


def load_record(context: Context, owner: bytes, hash_id: bytes) -> RecordState:
    """Raises InvalidTransaction(NOT_FOUND | BAD_BODY)."""
    check_lengths(32, owner=owner, hash_id=hash_id)
    return context.load(RECORD, record_key(owner, hash_id), RecordState, "record")


def check_validity(context: Context, valid_from_ms: int, valid_until_ms: int) -> None:
    """Raises InvalidTransaction(BAD_BODY) for a span that is empty or over."""
    check_numbers(valid_from_ms=valid_from_ms, valid_until_ms=valid_until_ms)
    over = valid_until_ms != 0 and (valid_until_ms <= valid_from_ms or valid_until_ms <= context.time_ms)
    check_that(not over, "validity is empty or over")


def watch_expiry(context: Context, owner: bytes, hash_id: bytes, valid_until_ms: int) -> None:
    """The record expires by itself."""
    if valid_until_ms:
        fire_at_time(context, valid_until_ms, Action.EXPIRE, record_key(owner, hash_id))


def signed_by(context: Context, transaction: Transaction, accounts: Iterable[AccountId]) -> frozenset[AccountId]:
    """Those of the accounts, in standing, whose current key signed."""
    return frozenset(name for name in accounts if context.is_in_standing(name) and context.account(name).key in transaction.keys)


def keys_of(context: Context, accounts: Iterable[AccountId]) -> frozenset[bytes]:
    """Current keys of those of the accounts that are in standing."""
    return frozenset(bytes(context.account(name).key) for name in accounts if context.is_in_standing(name))


class Pending(Record, frozen=True):
    """A transaction that waits for approvals. approvers: whose yes is wanted; needed: how many; yes, no: who said what.

    It is carried out in the block in which ``needed`` is reached, rejected as soon as that is impossible, and lapses at the deadline.
    """

    kind: int
    sender: AccountId
    ts_ms: UnixMillis
    body: bytes
    approvers: tuple[AccountId, ...]
    needed: int
    yes: tuple[AccountId, ...]
    no: tuple[AccountId, ...]
    deadline_ms: UnixMillis


def wait_for(context: Context, transaction: Transaction, approvers: Iterable[AccountId], *, time_ms: int) -> None:
    """The transaction waits for all the approvers, at most ``time_ms``."""
    names = tuple(sorted(approvers))
    check_that(all(context.is_in_standing(name) for name in names), "an owner whose approval is needed cannot act", Reason.NOT_ELIGIBLE)
    deadline = UnixMillis(context.time_ms + time_ms)
    content = transaction.content
    pending = Pending(content.kind, content.sender, content.ts_ms, content.body, names, len(names), (), (), deadline)
    context.state.save(PENDING, transaction.id, pending)
    fire_at_time(context, deadline, Action.LAPSE, transaction.id)
    context.emit("pending", transaction.id)


def lapse(context: Context, name: bytes) -> None:
    """The deadline of a pending transaction, if it still is."""
    if context.state.get(PENDING, name) is not None:
        context.state.delete(PENDING, name)
        context.emit("lapsed", name)


def expire(context: Context, name: bytes) -> None:
    """The end of a record's validity, unless it was moved meanwhile."""
    record = context.state.load(RECORD, name, RecordState)
    if record is None or record.status not in ("active", "superseded") or not 0 < record.valid_until_ms <= context.time_ms:
        return
    context.state.save(RECORD, name, replace(record, status="expired"))
    context.emit("expired", name[:32], name[32:])
