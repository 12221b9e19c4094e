"""RecordAnchor: a record exists. Carries the owner's statement as holders know it, parents, owners, validity."""

from __future__ import annotations

from ...codec import Record, decode, replace
from ...crypto import Label
from ...errors import DecodeError, InvalidObject, InvalidTransaction, Reason
from ...files.objects import Statement, open_statement
from ...limits import PARENTS_MAX, TAGS_MAX
from ...signed import Signed
from ...types import AccountId, TxId, UnixMillis
from ..checks import check_lengths, check_numbers, check_texts, check_that, is_rising
from ..context import Account, Context, Group, Kind, need_signatures, sender_account
from ..envelope import Transaction
from ..profile import is_recordable
from .records import (
    CHANGES,
    RECORD,
    Change,
    Owners,
    Parent,
    Pending,
    RecordState,
    check_owners,
    check_validity,
    keys_of,
    load_record,
    record_key,
    signed_by,
    wait_for,
    watch_expiry,
)

PARENT_STATUSES = ("active", "superseded", "expired")


class Body(Record, frozen=True):
    """statement: signed by the sender's key. parents: exact versions, by rising (owner, HashID). size_class: as padded, 2^n bytes.

    schema: name of the record's schema, "" for none. tags: the owner's public ones, by rising name. log_head: of the record's log,
    32 bytes. The end of validity is the statement's.
    """

    statement: Signed
    change: Change
    parents: tuple[Parent, ...]
    owners: Owners
    valid_from_ms: UnixMillis
    level: int
    schema: str
    size_class: int
    tags: tuple[tuple[str, str], ...]
    log_head: bytes


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """ACTIVE at once when everybody whose word is needed signed, else PENDING until they approve. Raises InvalidTransaction."""
    account = sender_account(context, transaction)
    _check_body(body)
    statement = _open_statement(context, account, body)
    _check_rules(context, account, statement, body, transaction.content.ts_ms)
    needed = needed_owners(context, account.id, body)
    need_signatures(transaction, Group(frozenset({account.key}), 1), Group(keys_of(context, needed), 0))
    missing = needed - signed_by(context, transaction, needed)
    if missing:
        wait_for(context, transaction, missing, time_ms=body.owners.deadline_ms)
    else:
        _write(context, account.id, statement, body, transaction.id, transaction.content.ts_ms)


def _check_body(body: Body) -> None:
    check_owners(body.owners)
    rule = CHANGES[body.change]
    count = len(body.parents)
    if not rule.parents_min <= count <= min(rule.parents_max, PARENTS_MAX):
        raise InvalidTransaction(Reason.BAD_BODY, f"{count} parents of a {body.change}")
    check_that(is_rising([record_key(parent.owner, parent.hash_id) for parent in body.parents]), "parents are not in order")
    check_numbers(level=body.level, size_class=body.size_class, valid_from_ms=body.valid_from_ms)
    check_texts(schema=body.schema)
    if body.tags:
        check_texts(**{f"tag {name}": value for name, value in body.tags})
        check_texts(**{f"tag name {index}": name for index, (name, _) in enumerate(body.tags)})
        check_that(len(body.tags) <= TAGS_MAX and is_rising([name for name, _ in body.tags]), "tags are not in order")
    check_lengths(32, log_head=body.log_head)


def _open_statement(context: Context, account: Account, body: Body) -> Statement:
    """The statement, of this network and domain, by a key of the sender. Raises InvalidTransaction."""
    try:
        statement = open_statement(body.statement, context.profile.network)
    except (InvalidObject, DecodeError) as error:
        raise InvalidTransaction(error.reason, f"statement: {error.message}") from error
    check_that(statement.domain == context.profile.domain, "statement of another domain", Reason.WRONG_DOMAIN)
    check_that(context.owner_of_key(statement.owner) == account.id, "statement of another owner", Reason.WRONG_OWNER)
    if statement.sealed_bytes > 1 << min(body.size_class, 63):
        raise InvalidTransaction(Reason.BAD_BODY, f"size class {body.size_class}")
    return statement


def _check_rules(context: Context, account: Account, statement: Statement, body: Body, ts_ms: int) -> None:
    policy = context.policy
    if body.level > policy.levels_max:
        raise InvalidTransaction(Reason.POLICY, f"level {body.level}, at most {policy.levels_max}")
    if not is_recordable(policy, account.country, body.schema):
        text = f"policy list {policy.version}: {account.country!r} may not record {body.schema!r}"
        raise InvalidTransaction(Reason.POLICY, text)
    check_validity(context, body.valid_from_ms, statement.valid_until_s * 1000)
    ahead = context.profile.tx_ahead_ms
    check_that(statement.time_s * 1000 <= ts_ms + ahead, "statement is newer than the transaction", Reason.BAD_TIME)
    check_that(account.id in body.owners.owners, "sender is not among the owners", Reason.WRONG_OWNER)
    before = context.state.load(RECORD, record_key(statement.owner, statement.hash_id), RecordState)
    if before is None:
        check_that(statement.owner == account.key, "a new record is the current key's", Reason.WRONG_OWNER)
        check_that(body.change != "restore", "nothing to restore", Reason.NOT_FOUND)
    else:
        check_that(body.change == "restore", "the record is on the chain already", Reason.CONFLICT)
        check_that(before.status not in ("disputed", "invalid"), f"the record is {before.status}", Reason.CONFLICT)
        check_that(statement.seq > before.seq, f"seq {statement.seq}, more than {before.seq} wanted", Reason.STALE)
        check_that(body.owners == before.owners, "owners are fixed when a record is made", Reason.CONFLICT)
    _check_parents(context, account, body)


def _check_parents(context: Context, account: Account, body: Body) -> None:
    rule = CHANGES[body.change]
    for parent in body.parents:
        found = load_record(context, parent.owner, parent.hash_id)
        check_that(found.status in PARENT_STATUSES, f"a parent is {found.status}", Reason.CONFLICT)
        check_that(rule.may_drop_level or body.level >= found.level, "the level is below a parent's", Reason.POLICY)
        may_read = account.id in found.owners.owners or account.id in found.owners.approvers
        check_that(may_read, "sender may not read a parent", Reason.NOT_ELIGIBLE)


def needed_owners(context: Context, sender: AccountId, body: Body) -> frozenset[AccountId]:
    """Whose word a record needs: all its owners; for a change of what exists all owners of the parents."""
    needed = set(body.owners.owners)
    if CHANGES[body.change].needs == "modify":
        for parent in body.parents:
            needed |= set(load_record(context, parent.owner, parent.hash_id).owners.owners)
    return frozenset(needed - {sender})


def complete(context: Context, name: bytes, pending: Pending) -> None:
    """All have approved: the rules are asked again, for what they say now. Raises InvalidTransaction."""
    body = decode(pending.body, Body)
    account = context.account(pending.sender)
    statement = _open_statement(context, account, body)
    _check_rules(context, account, statement, body, pending.ts_ms)
    _write(context, account.id, statement, body, TxId(name), pending.ts_ms)


def _write(context: Context, account: AccountId, statement: Statement, body: Body, name: TxId, ts_ms: int) -> None:
    state, key = context.state, record_key(statement.owner, statement.hash_id)
    until = UnixMillis(statement.valid_until_s * 1000)
    record = RecordState(
        status="active",
        account=account,
        statement=body.statement.object_hash,
        seq=statement.seq,
        chunks_root=statement.chunks_root,
        change=body.change,
        parents=body.parents,
        owners=body.owners,
        level=body.level,
        schema=body.schema,
        size_class=body.size_class,
        tags=body.tags,
        log_head=body.log_head,
        sender_ms=UnixMillis(ts_ms),
        block_ms=context.time_ms,
        upload_ms=UnixMillis(statement.time_s * 1000),
        valid_from_ms=body.valid_from_ms,
        valid_until_ms=until,
        policy=context.policy.version,
        rules=context.version,
        anchor=name,
    )
    if CHANGES[body.change].supersedes:
        for parent in body.parents:
            found = load_record(context, parent.owner, parent.hash_id)
            if found.status == "active":
                state.save(RECORD, record_key(parent.owner, parent.hash_id), replace(found, status="superseded"))
    state.save(RECORD, key, record)
    watch_expiry(context, statement.owner, statement.hash_id, until)
    context.emit("record", statement.owner, statement.hash_id)
    for parent in body.parents:
        context.emit("derived", parent.owner, parent.hash_id, statement.owner, statement.hash_id)


KIND = Kind(16, "RecordAnchor", Body, execute, lambda body: ((Label.STATEMENT, body.statement),))
