"""How records, holders' receipts and folders come onto the chain: what a node does next, from what stands. Source: SPEC.md §Filing.

Nothing here waits or remembers: each function looks at the state of the chain, at what is kept here and at what waits, and says what
follows. So a crash between any two steps, a block that is taken back, or a second node of the same owner changes nothing: the next look
says the same again, or something better.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..codec import Record, encode
from ..crypto import Label, hash_labelled, sha256
from ..errors import InvalidTransaction, Reason
from ..files.holdings import Receipt
from ..files.objects import Statement
from ..limits import OWNERS_MAX, PARENTS_MAX, RECEIPT_LIFETIME_S, RECEIPTS_BYTES_PER_BATCH_MAX
from ..merkle import EMPTY_ROOT
from ..signed import Signed
from ..types import AccountId, ChainId, Digest, HashId, OwnerKey, RecordKey, TxId, UnixMillis
from .checks import check_texts, check_that, is_rising
from .context import Account, KindPort, check_standing
from .envelope import ENVELOPE_VERSION, Content
from .history import NO_PEAKS, Peaks
from .history import append as append_peak
from .profile import Policy, is_recordable
from .transactions import record_anchor, storage_receipt
from .transactions.records import CHANGES, Change, Owners, Parent, RecordState, record_key
from .transactions.storage_receipt import RECEIPTS_MAX, Holding

FOLDER = "records"
"""Name of the folder that every owner has: all records of its own that are final."""
SUPERSEDING = frozenset(change for change, rule in CHANGES.items() if rule.supersedes)
"""Changes after which another record is the newest."""


# --- records ----------------------------------------------------------------------------------------------------------


class Intent(Record, frozen=True):
    """What an anchor says that no statement does. parents: by rising (owner, HashID). tags: public ones, by rising name.

    owners: those besides the sender, none: as ``owners_of`` says. approvers: who may let it be read, threshold of them (0: all); none: any
    owner. level: None for the highest of the parents'. approve_ms: how long other owners have, 0: as the policy list says.
    """

    change: Change
    parents: tuple[Parent, ...]
    tags: tuple[tuple[str, str], ...]
    owners: tuple[AccountId, ...] = ()
    approvers: tuple[AccountId, ...] = ()
    threshold: int = 0
    level: int | None = None
    schema: str = ""
    approve_ms: int = 0


CREATE = Intent("create", (), ())
APPROVE_MS_MAX = 1 << 40


def check_intent(intent: Intent) -> None:
    """Raises InvalidTransaction(BAD_BODY) for one that no anchor can carry out."""
    rule = CHANGES[intent.change]
    count = len(intent.parents)
    most = min(rule.parents_max, PARENTS_MAX)
    wanted = f"{rule.parents_min}" if rule.parents_min == most else f"{rule.parents_min} to {most}"
    check_that(rule.parents_min <= count <= most, f"{count} parents of a {intent.change}, {wanted} wanted")
    check_that(intent.change != "restore", "a record is restored by putting it again")
    check_that(is_rising([record_key(one.owner, one.hash_id) for one in intent.parents]), "one parent twice")
    for group, what in ((intent.owners, "owners"), (intent.approvers, "approvers")):
        check_that(len(group) < OWNERS_MAX and is_rising(group), f"{len(group)} {what}, each once and fewer than {OWNERS_MAX} wanted")
    check_that(intent.threshold <= len(intent.approvers), f"{intent.threshold} of {len(intent.approvers)} approvers")
    check_that(intent.approve_ms <= APPROVE_MS_MAX, "more time for the other owners than a record can give")
    check_texts(schema=intent.schema)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An anchor of a record that was made here and is not final. is_pooled: it waits in the pool here.

    is_refused: the chain said no to it, and no waiting cures that.
    """

    id: TxId
    statement: Digest
    until_ms: UnixMillis
    is_pooled: bool
    is_refused: bool


class Asked(enum.Enum):
    """How a transaction that needs the word of others stands with them."""

    NOT = "not"  # it needs nobody's, or is in no block
    PENDING = "pending"  # it waits for approvals on the chain
    ENDED = "ended"  # it was in a block, waits no more, and was not carried out


def asked_of(name: TxId | None, *, is_pending: bool, is_seen: bool, was_pending: bool, is_over: bool) -> Asked:
    """How a transaction stands with those whose word it needs, if the record is not there as it wants.

    name: the newest one for this statement that is known, None for none. is_seen: the chain remembers its id. was_pending: it waited in a
    final block once. is_over: its until, so that the chain need not remember it any more.
    """
    if name is None:
        return Asked.NOT
    if is_pending:
        return Asked.PENDING
    return Asked.ENDED if is_seen or (was_pending and is_over) else Asked.NOT


class Next(enum.Enum):
    """What to do about one record."""

    NOTHING = "nothing"  # it is final
    WAIT = "wait"  # in a block, in the pool, or pending until others approve
    REPEAT = "repeat"  # submit the same transaction again
    SUBMIT = "submit"  # make a transaction
    HELD = "held"  # nothing would be taken as things stand


def next_of(
    record: RecordState | None,
    waiting: Waiting | None,
    *,
    statement: Digest,
    seq: int,
    valid_until_ms: int,
    is_final: bool,
    is_elsewhere: bool,
    asked: Asked,
    now_ms: int,
) -> Next:
    """What to do about a record of ours whose statement in force has this hash and number.

    record: as the state at the head has it. is_final: that lies in a final block. is_elsewhere: another node of ours published it, and
    knows what its anchor shall say. asked: how an anchor of this statement stands with those whose word it needs.
    """
    if record is not None and record.seq >= seq:
        return Next.NOTHING if is_final else Next.WAIT
    if asked is Asked.PENDING:
        return Next.WAIT
    if asked is Asked.ENDED:
        return Next.HELD  # they said no, or nothing in time: it is not for us to ask until they are weary
    if waiting is not None and waiting.statement == statement:
        if waiting.is_pooled:
            return Next.WAIT
        if not waiting.is_refused and now_ms <= waiting.until_ms:
            # Neither waiting nor included: evicted, or its block was taken back a moment ago. The same again can only count once.
            return Next.REPEAT
    if record is None and is_elsewhere:
        # A guess would be a plain `create`: the record of several would be this member's alone, also after they said no, and a version
        # would have no parents. An anchor of what is on the chain guesses nothing: owners, level and schema are fixed there.
        return Next.HELD
    if record is not None and record.status in ("disputed", "invalid"):
        return Next.HELD
    if valid_until_ms and valid_until_ms <= now_ms:
        return Next.HELD
    return Next.SUBMIT


def next_of_erased(
    record: RecordState | None, anchor: Waiting | None, waiting: Waiting | None, *, is_final: bool, asked: Asked, now_ms: int
) -> Next:
    """What to do about a record of ours that its owner has erased. anchor: one that may still come into a block. waiting: our Erase.

    is_final: that the record is erased lies in a final block. asked: how our Erase stands with other owners.
    """
    if record is not None and record.status == "erased":
        return Next.NOTHING if is_final else Next.WAIT
    if record is None:
        may_come = anchor is not None and not anchor.is_refused and now_ms <= anchor.until_ms
        return Next.WAIT if may_come else Next.NOTHING
    if asked is not Asked.NOT:
        return Next.WAIT if asked is Asked.PENDING else Next.HELD
    if waiting is not None and waiting.is_pooled:
        return Next.WAIT
    if waiting is not None and not waiting.is_refused and now_ms <= waiting.until_ms:
        return Next.REPEAT
    return Next.SUBMIT


def check_first_use(account: Account | None, policy: Policy, schema: str, time_ms: int) -> None:
    """The conditions of use, before an owner's first record makes its profile and folder. account: as the state has it; None while the
    domain's certificate has not come there yet, which stops nobody.

    Raises InvalidTransaction(CERTIFICATE_EXPIRED | CERTIFICATE_NOT_YET_VALID | REVOKED | SUSPENDED | POLICY).
    """
    if account is None:
        return
    check_standing(account, policy, time_ms)
    if not is_recordable(policy, account.country, schema):
        raise InvalidTransaction(Reason.POLICY, f"policy list {policy.version}: {account.country!r} may not record {schema!r}")


def size_class(sealed_bytes: int) -> int:
    """The smallest n with sealed_bytes ≤ 2^n: all that an anchor says of a record's size."""
    return max(0, (sealed_bytes - 1).bit_length())


def anchor_body(
    signed: Signed,
    statement: Statement,
    intent: Intent,
    account: AccountId,
    *,
    before: RecordState | None,
    parents: Sequence[RecordState],
    approve_ms: int,
    log_head: Digest,
) -> record_anchor.Body:
    """The anchor of a statement. before: the record, when it is on the chain with an older statement. parents: as they stand.

    approve_ms: how long other owners have, where the intent does not say. A record that is there keeps owners, level and schema.
    """
    if before is not None:
        intent = Intent("restore", (), intent.tags, level=before.level, schema=before.schema)
    level = max((one.level for one in parents), default=0) if intent.level is None else intent.level
    owners = owners_of(intent, account, parents, approve_ms) if before is None else before.owners
    return record_anchor.Body(
        statement=signed,
        change=intent.change,
        parents=intent.parents,
        owners=owners,
        valid_from_ms=UnixMillis(0),
        level=level,
        schema=intent.schema,
        size_class=size_class(statement.sealed_bytes),
        tags=intent.tags,
        log_head=log_head,
    )


def owners_of(intent: Intent, account: AccountId, parents: Sequence[RecordState], approve_ms: int) -> Owners:
    """The owners descriptor of a new record.

    A version of what several own is owned by the same, whoever of them makes it, unless it names owners itself; a *transfer* is owned by
    who makes it, and by nobody else that it does not name.
    """
    inherited: Sequence[RecordState] = ()
    if CHANGES[intent.change].needs == "modify" and intent.change != "transfer" and not intent.owners:
        inherited = parents
    owners = {account, *intent.owners, *(name for one in inherited for name in one.owners.owners)}
    approvers, threshold = set(intent.approvers), intent.threshold or len(intent.approvers)
    if not approvers and inherited:
        approvers = {name for one in inherited for name in one.owners.approvers}
        threshold = max(one.owners.access_threshold for one in inherited)
    if not approvers:
        approvers, threshold = owners, 1
    return Owners(tuple(sorted(owners)), tuple(sorted(approvers)), threshold, intent.approve_ms or approve_ms)


class Validity(enum.Enum):
    """Whether a record is in effect, as everybody computes it from the chain. Source: SPEC.md §Validity."""

    WAITING = "waiting"  # not on the chain yet, or its time has not begun
    VALID = "valid"
    EXPIRED = "expired"
    INVALID = "invalid"  # disputed, invalidated, erased, or never approved


def validity_of(record: RecordState | None, *, is_ended: bool, time_ms: int) -> Validity:
    """record: as a state has it. is_ended: its anchor was not approved. time_ms: block time of that state."""
    if record is None:
        return Validity.INVALID if is_ended else Validity.WAITING
    if record.status in ("disputed", "invalid", "erased"):
        return Validity.INVALID
    if record.status == "expired" or 0 < record.valid_until_ms <= time_ms:
        return Validity.EXPIRED
    return Validity.VALID if record.valid_from_ms <= time_ms else Validity.WAITING


def content_of(kind: KindPort, body: Record, account: Account, *, chain: ChainId, ts_ms: int, life_ms: int) -> Content:
    """A transaction of an account under its current certificate, unsigned."""
    ts = UnixMillis(ts_ms)
    return Content(ENVELOPE_VERSION, chain, kind.number, account.id, account.serial, ts, UnixMillis(ts + life_ms), (), encode(body))


def may_cure(error: InvalidTransaction) -> bool:
    """Whether a refused anchor of ours may be taken later as it is: its parent comes, its certificate begins, a suspension ends."""
    return error.reason in (
        Reason.NOT_FOUND,
        Reason.CERTIFICATE_NOT_YET_VALID,
        Reason.SUSPENDED,
        Reason.BAD_TIME,
        Reason.SEEN,
    )


# --- receipts ---------------------------------------------------------------------------------------------------------


class Fate(enum.Enum):
    """What becomes of a holder's receipt."""

    RECORD = "record"
    WAIT = "wait"  # a record of it is not final yet
    DROP = "drop"  # it says nothing that the chain has to know, or will never take


def fate_of(
    receipt: Receipt, *, now_ms: int, records: Mapping[RecordKey, tuple[RecordState, bool]], holdings: Mapping[RecordKey, Holding]
) -> Fate:
    """Whether a receipt of our store goes onto the chain. records: state and whether that is final; holdings: what the chain has of us.

    A renewal is recorded only when what the chain has would end within half a lifetime, so that a quiet network stays quiet.
    """
    rank = (receipt.generation, receipt.counter)
    is_due, must_wait = False, False
    for item in receipt.items:
        key = (item.owner, item.hash_id)
        found, holding = records.get(key), holdings.get(key)
        if found is None or not found[1]:
            must_wait = True
        elif found[0].status == "erased":
            return Fate.DROP
        if holding is None:
            is_due = True
        elif (holding.generation, holding.counter) >= rank:
            return Fate.DROP
        else:
            is_other = holding.generation < receipt.generation or holding.sequences != len(item.sequence_roots)
            is_due |= is_other or holding.until_ms - now_ms < RECEIPT_LIFETIME_S * 1000 // 2
    if not is_due or receipt.until_s * 1000 <= now_ms:
        return Fate.DROP
    return Fate.WAIT if must_wait else Fate.RECORD


def choose_receipts(receipts: Iterable[tuple[Signed, Receipt]]) -> tuple[Signed, ...]:
    """Those of one holder that go into one transaction: oldest words first, of one record one only, by rising object hash.

    At most RECEIPTS_MAX, of RECEIPTS_BYTES_PER_BATCH_MAX bytes together; one that is larger alone goes alone.
    """
    chosen: list[Signed] = []
    taken: set[RecordKey] = set()
    size = 0
    for signed, receipt in sorted(receipts, key=lambda one: (one[1].generation, one[1].counter)):
        keys = {(item.owner, item.hash_id) for item in receipt.items}
        more = len(encode(signed))
        is_full = len(chosen) >= RECEIPTS_MAX or (chosen and size + more > RECEIPTS_BYTES_PER_BATCH_MAX)
        if is_full:
            break
        if keys & taken:
            taken |= keys  # what comes after it must not overtake it
            continue
        chosen.append(signed)
        taken |= keys
        size += more
    return tuple(sorted(chosen, key=lambda one: one.object_hash))


def receipts_body(chosen: Sequence[Signed]) -> storage_receipt.Body:
    """Body of the transaction that records them."""
    return storage_receipt.Body(tuple(chosen))


# --- folders ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Filed:
    """A record in a folder. statement: hash of the one that is anchored. block_ms: when."""

    owner: OwnerKey
    hash_id: HashId
    statement: Digest
    block_ms: UnixMillis

    @property
    def order(self) -> tuple[int, bytes, bytes]:
        return (self.block_ms, self.owner, self.hash_id)

    @property
    def leaf(self) -> Digest:
        return hash_labelled(Label.FOLDER_ENTRY, self.owner, self.hash_id, self.statement)


def folder_root(filed: Iterable[Filed]) -> Digest:
    """Root of a folder: the Merkle root of its records, in the order in which blocks took them."""
    peaks = NO_PEAKS
    for one in sorted(filed, key=lambda one: one.order):
        peaks = append_peak(peaks, one.leaf)
    return _bag(peaks)


def find_folder(filed: Iterable[Filed], root: bytes) -> tuple[Filed, ...] | None:
    """The records of the folder with this root, now or at an earlier time; None when they are not among these any more.

    A folder only grows at its end, so each of its versions is a beginning of the list; a record that was put again after a delete has
    moved to the end, and versions from before that are found by nobody who did not keep them.
    """
    listed = sorted(filed, key=lambda one: one.order)
    peaks, found = NO_PEAKS, 0 if root == EMPTY_ROOT else None
    for number, one in enumerate(listed, start=1):
        peaks = append_peak(peaks, one.leaf)
        if _bag(peaks) == root:
            found = number
    return None if found is None else tuple(listed[:found])


def _bag(peaks: Peaks) -> Digest:
    """The Merkle root over the leaves of a range (`protocols.merkle`): its trees from the smallest up."""
    if not peaks.hashes:
        return EMPTY_ROOT
    node = peaks.hashes[-1]
    for peak in reversed(peaks.hashes[:-1]):
        node = sha256(b"\x01", peak, node)
    return Digest(node)
