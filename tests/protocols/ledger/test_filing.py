"""What a node does next for its records, its receipts and its folder; and that the chain takes what it makes."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from protocols.codec import encode, replace
from protocols.crypto import sha256
from protocols.errors import InvalidTransaction, Reason
from protocols.files.holdings import Receipt, ReceiptItem, node_peer, sign_receipt
from protocols.files.objects import Statement, open_statement
from protocols.ledger import filing
from protocols.ledger.context import ACCOUNT, Account
from protocols.ledger.envelope import sign_transaction
from protocols.ledger.filing import (
    CREATE,
    Asked,
    Fate,
    Filed,
    Intent,
    Next,
    Waiting,
    choose_receipts,
    fate_of,
    find_folder,
    folder_root,
    next_of,
)
from protocols.ledger.transactions import approve, erase, folder_update, record_anchor, storage_receipt
from protocols.ledger.transactions.records import CHANGES, PENDING, RECORD, Owners, Parent, RecordState, record_key
from protocols.ledger.transactions.storage_receipt import HOLDING, Holding
from protocols.limits import OWNERS_MAX, RECEIPT_LIFETIME_S, RECEIPTS_BYTES_PER_BATCH_MAX
from protocols.signed import Signed
from protocols.types import AccountId, Digest, HashId, OwnerKey, RecordKey, SequenceRoot, StoreId, TxId, UnixMillis, UnixSeconds
from tests.protocols.ledger import chains

START_S = chains.START_MS // 1000
HOLDER = chains.key_of("holder", "node")
HALF_MS = RECEIPT_LIFETIME_S * 1000 // 2


def state(chain: chains.Chain, name: str, record: str) -> RecordState:
    parent = chains.record_id(name, record)
    found = chain.state.load(RECORD, record_key(parent.owner, parent.hash_id), RecordState)
    assert found is not None
    return found


def account(chain: chains.Chain, name: str) -> Account:
    found = chain.state.load(ACCOUNT, chains.account_of(name), Account)
    assert found is not None
    return found


def stated(chain: chains.Chain, name: str, record: str, seq: int = 1) -> tuple[Signed, Statement]:
    signed = chain.anchor(name, record, seq=seq).statement
    return signed, open_statement(signed, chain.profile.network)


def submit(
    chain: chains.Chain, name: str, record: str, intent: Intent = CREATE, *, seq: int = 1, before: RecordState | None = None
) -> None:
    """What a node would submit, carried by the next block."""
    signed, statement = stated(chain, name, record, seq)
    parents = [chain.state.load(RECORD, record_key(one.owner, one.hash_id), RecordState) for one in intent.parents]
    body = filing.anchor_body(
        signed,
        statement,
        intent,
        chains.account_of(name),
        before=before,
        parents=[one for one in parents if one is not None],
        approve_ms=10_000,
        log_head=Digest(bytes(32)),
    )
    kind = record_anchor.KIND
    content = filing.content_of(kind, body, account(chain, name), chain=chain.chain, ts_ms=chain.now_ms, life_ms=1000)
    chain.add(sign_transaction(content, [chains.key_of(name)]))


# --- records ------------------------------------------------------------------------------------------------------


def next_now(record: RecordState | None, waiting: Waiting | None, seq: int = 1, **facts: object) -> Next:
    wanted = {
        "statement": Digest(b"s" * 32),
        "valid_until_ms": 0,
        "is_final": False,
        "is_elsewhere": False,
        "asked": Asked.NOT,
        "now_ms": 100,
    } | facts
    return next_of(record, waiting, seq=seq, **wanted)  # type: ignore[arg-type]  # each of its own type


def test_next_step_for_every_standing() -> None:
    """Goal: the whole table of SPEC.md §Filing. Method: a record not there, older, as new, newer; a transaction in each of its states."""
    chain = chains.start()
    submit(chain, "ann", "r")
    there = state(chain, "ann", "r")
    assert next_now(there, None) is Next.WAIT
    assert next_now(there, None, is_final=True) is Next.NOTHING
    assert next_now(replace(there, seq=5), None, is_final=True) is Next.NOTHING
    pooled = Waiting(TxId(bytes(32)), Digest(b"s" * 32), UnixMillis(100), True, False)
    lost = Waiting(pooled.id, pooled.statement, pooled.until_ms, False, False)
    refused = Waiting(pooled.id, pooled.statement, pooled.until_ms, False, True)
    other = Waiting(pooled.id, Digest(b"o" * 32), pooled.until_ms, True, False)
    for record, seq in ((None, 1), (there, 2)):
        assert next_now(record, None, seq) is Next.SUBMIT
        assert next_now(record, pooled, seq) is Next.WAIT
        assert next_now(record, lost, seq) is Next.REPEAT
        for waiting in (None, pooled, lost, refused):
            assert next_now(record, waiting, seq, asked=Asked.PENDING) is Next.WAIT
            assert next_now(record, waiting, seq, asked=Asked.ENDED) is Next.HELD
        assert next_now(record, lost, seq, now_ms=101) is Next.SUBMIT
        assert next_now(record, refused, seq) is Next.SUBMIT
        assert next_now(record, other, seq) is Next.SUBMIT
        assert next_now(record, None, seq, valid_until_ms=100) is Next.HELD
        assert next_now(record, None, seq, valid_until_ms=101) is Next.SUBMIT
        for waiting in (None, refused, other):  # only who published it knows what a first anchor shall say
            assert next_now(record, waiting, seq, is_elsewhere=True) is (Next.HELD if record is None else Next.SUBMIT)
        assert next_now(record, pooled, seq, is_elsewhere=True) is Next.WAIT
        assert next_now(record, lost, seq, is_elsewhere=True) is Next.REPEAT
        assert next_now(record, None, seq, is_elsewhere=True, asked=Asked.PENDING) is Next.WAIT
    for status in ("disputed", "invalid"):
        assert next_now(replace(there, status=status), None, 2) is Next.HELD
    assert next_now(replace(there, status="erased"), None, 2) is Next.SUBMIT


def test_next_step_for_an_erased_record() -> None:
    """Goal: nothing erased stays, nothing is erased twice. Method: not on the chain, with and without an anchor that may come; there;
    erased; an Erase in each of its states."""
    chain = chains.start()
    submit(chain, "ann", "r")
    there = state(chain, "ann", "r")
    erased = replace(there, status="erased")
    pooled = Waiting(TxId(bytes(32)), Digest(bytes(32)), UnixMillis(100), True, False)
    lost = dataclasses.replace(pooled, is_pooled=False)
    refused = dataclasses.replace(lost, is_refused=True)

    def now(
        record: RecordState | None,
        anchor: Waiting | None,
        waiting: Waiting | None,
        *,
        final: bool = False,
        at: int = 100,
        asked: Asked = Asked.NOT,
    ) -> Next:
        return filing.next_of_erased(record, anchor, waiting, is_final=final, asked=asked, now_ms=at)

    assert now(None, None, None) is Next.NOTHING
    assert now(None, pooled, None) is now(None, lost, None) is Next.WAIT
    assert now(None, refused, None) is now(None, lost, None, at=101) is Next.NOTHING
    assert now(there, None, None) is now(there, None, refused) is now(there, None, lost, at=101) is Next.SUBMIT
    assert now(there, None, pooled) is Next.WAIT
    assert now(there, None, lost) is Next.REPEAT
    assert now(erased, None, pooled) is Next.WAIT
    assert now(erased, None, None, final=True) is Next.NOTHING
    for waiting in (None, pooled, lost, refused):
        assert now(there, None, waiting, asked=Asked.PENDING) is Next.WAIT
        assert now(there, None, waiting, asked=Asked.ENDED) is Next.HELD
        assert now(erased, None, waiting, asked=Asked.ENDED) is Next.WAIT


def test_who_was_asked_and_did_not_say_yes_is_not_asked_again() -> None:
    """Goal: neither a block that is taken back nor what the chain has forgotten makes a node ask twice. Method: every combination."""
    name = TxId(bytes(32))
    for pending, seen, was, over in itertools.product((False, True), repeat=4):
        facts = {"is_pending": pending, "is_seen": seen, "was_pending": was, "is_over": over}
        assert filing.asked_of(None, **facts) is Asked.NOT
        found = filing.asked_of(name, **facts)
        if pending:
            assert found is Asked.PENDING
        elif seen or (was and over):
            assert found is Asked.ENDED
        else:  # its block was taken back, or never came
            assert found is Asked.NOT


def test_versions_of_what_several_own_are_owned_by_the_same_unless_they_name_others() -> None:
    """Goal: no co-owner loses a say by what another one publishes. Method: each kind of change of a record of two, with another reader."""
    ann, bob, cid, dan = (chains.account_of(name) for name in ("ann", "bob", "cid", "dan"))
    together, readers = tuple(sorted((ann, bob))), tuple(sorted((bob, cid)))
    chain = chains.start()
    submit(chain, "ann", "one")
    single = state(chain, "ann", "one")
    shared = replace(single, owners=Owners(together, readers, 2, 5000))
    for change, rule in CHANGES.items():
        found = filing.owners_of(Intent(change, (), ()), ann, [shared, single], 10_000)
        if rule.needs == "modify" and change != "transfer":
            assert found == Owners(together, tuple(sorted({ann, bob, cid})), 2, 10_000)
        else:
            assert found == Owners((ann,), (ann,), 1, 10_000)
    named = Intent("modify", (), (), owners=(dan,), approvers=readers, threshold=1, approve_ms=7)
    assert filing.owners_of(named, ann, [shared], 10_000) == Owners(tuple(sorted((ann, dan))), readers, 1, 7)
    assert filing.owners_of(replace(named, threshold=0), ann, [shared], 10_000).access_threshold == 2


def test_what_an_intent_says_of_owners_level_and_schema_is_in_the_record() -> None:
    """Goal: what people ask for is what the chain has; a restore changes none of it. Method: a record of two owners; again as restore."""
    chain = chains.start()
    bob = chains.account_of("bob")
    intent = Intent("create", (), (), owners=(bob,), approvers=(bob,), level=4, schema="invoice", approve_ms=5000)
    submit(chain, "ann", "r", intent)
    assert chain.state.load(RECORD, record_key(*_key(chain, "r")), RecordState) is None
    (name,) = [name for name, _ in chain.state.iterate(PENDING)]
    chain.add(chain.by("bob", "Approve", approve.Body(name, True, "")))
    there = state(chain, "ann", "r")
    assert (there.level, there.schema) == (4, "invoice")
    assert there.owners == Owners(tuple(sorted((chains.account_of("ann"), bob))), (bob,), 1, 5000)
    submit(chain, "ann", "r", CREATE, seq=2, before=there)
    (name,) = [name for name, _ in chain.state.iterate(PENDING)]
    chain.add(chain.by("bob", "Approve", approve.Body(name, True, "")))
    again = state(chain, "ann", "r")
    assert (again.change, again.level, again.schema, again.owners) == ("restore", 4, "invoice", there.owners)


def _key(chain: chains.Chain, record: str) -> RecordKey:
    parent = chains.record_id("ann", record)
    return parent.owner, parent.hash_id


def test_validity_is_computed_from_the_chain_alone() -> None:
    """Goal: everybody says the same of a record at the same block. Method: each status, and times around both ends."""
    chain = chains.start()
    submit(chain, "ann", "r")
    there = replace(state(chain, "ann", "r"), valid_from_ms=UnixMillis(10), valid_until_ms=UnixMillis(20))

    def at(record: RecordState | None, time_ms: int, *, ended: bool = False) -> str:
        return filing.validity_of(record, is_ended=ended, time_ms=time_ms).value

    assert (at(None, 5), at(None, 5, ended=True)) == ("waiting", "invalid")
    assert [at(there, time) for time in (9, 10, 19, 20)] == ["waiting", "valid", "valid", "expired"]
    assert at(replace(there, valid_until_ms=UnixMillis(0)), 1 << 60) == "valid"
    assert at(replace(there, status="superseded"), 15) == "valid"
    assert at(replace(there, status="expired"), 15) == "expired"
    for status in ("disputed", "invalid", "erased"):
        assert at(replace(there, status=status), 15) == "invalid"


def test_chain_takes_what_is_made_for_create_change_and_restore() -> None:
    """Goal: rule and chain agree. Method: a record, one at a higher level, a merge of both, and the first again with a greater number."""
    chain = chains.start()
    submit(chain, "ann", "one")
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "two", level=3)))
    parents = tuple(sorted((chains.record_id("ann", "one"), chains.record_id("ann", "two")), key=lambda one: one.hash_id))
    submit(chain, "ann", "three", Intent("merge", parents, (("reason", "both"),)))
    merged = state(chain, "ann", "three")
    assert (merged.change, merged.parents, merged.level, merged.tags) == ("merge", parents, 3, (("reason", "both"),))
    assert state(chain, "ann", "one").status == state(chain, "ann", "two").status == "superseded"
    submit(chain, "ann", "one", Intent("correct", parents[:1], ()), seq=2, before=state(chain, "ann", "one"))
    again = state(chain, "ann", "one")
    assert (again.change, again.seq, again.status, again.parents) == ("restore", 2, "active", ())


def test_size_class_is_the_least_that_the_chain_takes() -> None:
    """Goal: an anchor says no more of a size than needed. Method: around powers of two."""
    for bits in (0, 1, 10, 40):
        assert filing.size_class(1 << bits) == bits
        assert filing.size_class((1 << bits) + 1) == bits + 1


def test_intents_that_no_anchor_can_carry_out_are_refused() -> None:
    """Goal: what is wrong is said before anything is published. Method: every kind with too few and too many; one twice; restore."""
    parents = tuple(Parent(OwnerKey(bytes(32)), HashId(sha256(b"%d" % number))) for number in range(66))
    rising = tuple(sorted(parents, key=lambda one: one.hash_id))
    for change, rule in CHANGES.items():
        for count in {rule.parents_min - 1, min(rule.parents_max, 64) + 1} - {-1}:
            with pytest.raises(InvalidTransaction):
                filing.check_intent(Intent(change, rising[:count], ()))
        if change != "restore":
            filing.check_intent(Intent(change, rising[: rule.parents_min], ()))
    two = tuple(AccountId(bytes([number]) * 32) for number in (2, 1))
    many = tuple(AccountId(bytes([number]) * 32) for number in range(OWNERS_MAX))
    for broken in (
        Intent("restore", (), ()),
        Intent("merge", (rising[0], rising[0]), ()),
        Intent("create", (), (), owners=two),
        Intent("create", (), (), owners=many),
        Intent("create", (), (), approvers=two),
        Intent("create", (), (), approvers=two[:1], threshold=2),
        Intent("create", (), (), approve_ms=(1 << 40) + 1),
        Intent("create", (), (), schema="s" * 10_000),
    ):
        with pytest.raises(InvalidTransaction) as found:
            filing.check_intent(broken)
        assert found.value.reason is Reason.BAD_BODY


# --- receipts -----------------------------------------------------------------------------------------------------


def receipt(records: list[str], counter: int, *, roots: int = 1, generation: int = 1, until_s: int = 0) -> tuple[Signed, Receipt]:
    items = []
    for record in records:
        parent = chains.record_id("ann", record)
        names = tuple(sorted(SequenceRoot(sha256(f"{record} {number}".encode())) for number in range(roots)))
        items.append(ReceiptItem(parent.owner, parent.hash_id, 1, Digest(bytes(32)), Digest(bytes(32)), names))
    until = UnixSeconds(until_s or START_S + RECEIPT_LIFETIME_S)
    value = Receipt(
        1, 1, chains.files.NETWORK, node_peer(HOLDER), StoreId(bytes(16)), generation, counter, UnixSeconds(START_S), until, tuple(items)
    )
    return sign_receipt(value, HOLDER), value


def views(
    chain: chains.Chain, value: Receipt, *, final: bool = True
) -> tuple[dict[RecordKey, tuple[RecordState, bool]], dict[RecordKey, Holding]]:
    records: dict[RecordKey, tuple[RecordState, bool]] = {}
    holdings: dict[RecordKey, Holding] = {}
    for item in value.items:
        key = (item.owner, item.hash_id)
        found = chain.state.load(RECORD, record_key(*key), RecordState)
        if found is not None:
            records[key] = (found, final)
        held = chain.state.load(HOLDING, record_key(*key) + value.holder, Holding)
        if held is not None:
            holdings[key] = held
    return records, holdings


def fate(chain: chains.Chain, value: Receipt, *, now_ms: int = chains.START_MS, final: bool = True) -> Fate:
    records, holdings = views(chain, value, final=final)
    return fate_of(value, now_ms=now_ms, records=records, holdings=holdings)


def record_receipts(chain: chains.Chain, *receipts: tuple[Signed, Receipt]) -> int:
    """What a node would record of these; how many."""
    chosen = choose_receipts(receipts)
    body = filing.receipts_body(chosen)
    kind = storage_receipt.KIND
    content = filing.content_of(kind, body, account(chain, "ann"), chain=chain.chain, ts_ms=chain.now_ms, life_ms=1000)
    chain.add(sign_transaction(content, [chains.key_of("ann")]))
    return len(chosen)


def test_receipt_is_recorded_once_and_again_when_it_says_something_new() -> None:
    """Goal: who holds what is known, and renewals stay rare. Method: not there yet, not final, recorded, renewed too soon, in time, with
    more sequences, from another generation, overtaken, erased, ended."""
    chain = chains.start()
    first = receipt(["r"], 1)
    assert fate(chain, first[1]) is Fate.WAIT
    submit(chain, "ann", "r")
    assert fate(chain, first[1], final=False) is Fate.WAIT
    assert fate(chain, first[1]) is Fate.RECORD
    assert record_receipts(chain, first) == 1
    assert fate(chain, first[1]) is Fate.DROP
    later = receipt(["r"], 2, until_s=START_S + 2 * RECEIPT_LIFETIME_S - RECEIPT_LIFETIME_S)[1]
    assert fate(chain, later) is Fate.DROP
    assert fate(chain, later, now_ms=chains.START_MS + HALF_MS + 1) is Fate.RECORD
    assert fate(chain, receipt(["r"], 2, roots=2)[1]) is Fate.RECORD
    assert fate(chain, receipt(["r"], 1, generation=2)[1]) is Fate.RECORD
    assert fate(chain, receipt(["r"], 0)[1]) is Fate.DROP
    assert fate(chain, receipt(["r", "unknown"], 2)[1]) is Fate.WAIT
    assert fate(chain, receipt(["r"], 3, roots=2)[1], now_ms=(START_S + RECEIPT_LIFETIME_S) * 1000) is Fate.DROP
    owner = chains.record_id("ann", "r")
    chain.add(chain.by("ann", "Erase", erase.Body(owner.owner, owner.hash_id, "keys", "")))
    assert fate(chain, receipt(["r"], 4, roots=2)[1]) is Fate.DROP


def test_batches_are_bounded_and_never_overtake_an_older_word() -> None:
    """Goal: a batch that the chain takes whole, whatever is in it. Method: words about the same records, out of order; more bytes and more
    receipts than a batch may have; what is left goes next."""
    chain = chains.start()
    for name in ("a", "b", "c"):
        submit(chain, "ann", name)
    words = [receipt(["a", "b"], 1), receipt(["b", "c"], 2), receipt(["c"], 3), receipt(["a"], 4)]
    for order in itertools.permutations(words):
        assert choose_receipts(order) == (words[0][0],)
    left = list(words)
    while left:
        assert record_receipts(chain, *left)
        left = [one for one in left if fate(chain, one[1]) is Fate.RECORD]
    records, holdings = views(chain, receipt(["a", "b", "c"], 9)[1])
    assert [holding.counter for holding in holdings.values()] == [1, 2, 2]
    assert len(records) == 3
    many = [receipt([f"x{number}"], number) for number in range(80)]
    assert len(choose_receipts(many)) == storage_receipt.RECEIPTS_MAX
    large = [receipt([f"y{number}"], number, roots=300) for number in range(8)]
    chosen = choose_receipts(large)
    assert 1 < len(chosen) < 8
    assert sum(len(encode(one)) for one in chosen) <= RECEIPTS_BYTES_PER_BATCH_MAX
    assert list(chosen) == sorted(chosen, key=lambda one: one.object_hash)


# --- folders ------------------------------------------------------------------------------------------------------


def test_folder_is_found_by_its_root_at_every_age() -> None:
    """Goal: old versions stay resolvable by their hash. Method: a folder that grows to twenty; one record restored; an unknown root."""
    owner = chains.key_of("ann").public
    filed = [Filed(owner, HashId(sha256(b"%d" % at)), Digest(sha256(b"s%d" % at)), UnixMillis(at // 3)) for at in range(20)]
    filed.sort(key=lambda one: one.order)
    roots = [folder_root(filed[:count]) for count in range(21)]
    assert len(set(roots)) == 21
    for count in range(21):
        assert find_folder(reversed(filed), roots[count]) == tuple(filed[:count])
    restored = Filed(owner, filed[5].hash_id, Digest(sha256(b"new")), UnixMillis(99))
    now = [*filed[:5], *filed[6:], restored]
    assert find_folder(now, roots[5]) == tuple(filed[:5])
    assert find_folder(now, roots[6]) is None
    assert find_folder(now, folder_root(now)) == tuple(now)


def test_folder_update_of_a_folder_is_taken() -> None:
    """Goal: name and root on the chain. Method: a folder of one record, moved once."""
    chain = chains.start()
    submit(chain, "ann", "r")
    parent = chains.record_id("ann", "r")
    record = state(chain, "ann", "r")
    root = folder_root([Filed(parent.owner, parent.hash_id, record.statement, record.block_ms)])
    body = folder_update.Body(filing.FOLDER, root, bytes(32), 1)
    content = filing.content_of(folder_update.KIND, body, account(chain, "ann"), chain=chain.chain, ts_ms=chain.now_ms, life_ms=1000)
    chain.add(sign_transaction(content, [chains.key_of("ann")]))
    found = chain.state.load("folder", chains.account_of("ann") + filing.FOLDER.encode(), folder_update.FolderState)
    assert found is not None
    assert (found.root, found.sequence) == (root, 1)
