"""Records, receipts, peers, keys, jobs and the event log over the engine in a dict."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from protocols.crypto import sha256
from protocols.errors import Reason, StoreDamaged
from protocols.files import journal
from protocols.ledger.filing import CREATE, Intent
from protocols.ledger.transactions.records import Parent
from protocols.signed import Signed
from protocols.types import Digest, HashId, NetworkId, OwnerKey, PeerId, SequenceRoot, StoreId, UnixMillis, UnixSeconds
from storage import anchors, jobs, keys, log, peers, receipts, records, refused
from storage.engine import Engine, Env, Put
from storage.jobs import Job, JobKind
from storage.keys import Key
from storage.memory import MemoryEngine
from storage.records import ObjectKind
from storage.tables import CHAIN_REFUSED, JOBS_DUE, KEYS, RECEIPT_USES, RECEIPTS, RECEIPTS_BY_HOLDER, STORE

OWNER, OTHER = OwnerKey(b"o" * 32), OwnerKey(b"p" * 32)
HASH_ID, OTHER_ID = HashId(b"\x10" + b"h" * 31), HashId(b"\x11" + b"h" * 31)
HOLDER, SHORT_HOLDER = PeerId(b"holder-of-things"), PeerId(b"holder")
STORE_ID = StoreId(b"s" * 16)
NOW = UnixSeconds(1_000)


def ledger() -> Engine:
    return MemoryEngine(Env.LEDGER, 1 << 22)


def envelope(text: str) -> Signed:
    return Signed(body=text.encode(), signer=b"k" * 32, signature=b"s" * 64)


def item(index: int, owner: OwnerKey = OWNER, hash_id: HashId = HASH_ID) -> receipts.Item:
    return receipts.Item(owner, hash_id, SequenceRoot(sha256(bytes([index]))), 1, Digest(bytes(32)))


def claim(signed: Signed, counter: int, *, generation: int = 1, withdrawn: bool = False, holder: PeerId = HOLDER) -> receipts.Claim:
    return receipts.Claim(signed.object_hash, holder, STORE_ID, generation, counter, withdrawn, NOW, UnixSeconds(NOW + 100))


def put_receipt(engine: Engine, text: str, counter: int, items: Sequence[receipts.Item], **more: object) -> Signed:
    signed = envelope(text)
    with engine.snapshot() as snapshot:
        writes = receipts.put(snapshot, signed, claim(signed, counter, **more), items)  # type: ignore[arg-type]
    engine.write(writes)
    return signed


def test_newest_object_is_the_greatest_order_of_its_kind_and_subject() -> None:
    """Goal: newest by (order, hash), kinds and subjects apart. Method: statements out of order, wraps for two grantees."""
    engine = ledger()
    for order in (1, 300, 2):
        engine.write(records.put_object(ObjectKind.STATEMENT, OWNER, HASH_ID, envelope(f"s{order}"), order=order))
    engine.write(records.put_object(ObjectKind.TOMBSTONE, OWNER, HASH_ID, envelope("t"), order=900))
    for grantee in (b"a" * 32, b"b" * 32):
        engine.write(records.put_object(ObjectKind.WRAP, OWNER, HASH_ID, envelope(f"w{grantee[:1]!r}"), order=1, subject=grantee))
    with engine.snapshot() as snapshot:
        newest = records.newest(snapshot, OWNER, HASH_ID, ObjectKind.STATEMENT)
        assert newest is not None
        assert (newest.order, newest.envelope, newest.object_hash) == (300, envelope("s300"), envelope("s300").object_hash)
        assert records.newest(snapshot, OTHER, HASH_ID, ObjectKind.STATEMENT) is None
        assert len(records.objects(snapshot, OWNER, HASH_ID)) == 6
        wraps = records.objects(snapshot, OWNER, HASH_ID, kind=ObjectKind.WRAP, subject=b"b" * 32)
        assert [stored.subject for stored in wraps] == [b"b" * 32]
        assert records.has_object(snapshot, newest)
        assert not records.has_object(snapshot, replace(newest, order=301))


def test_records_are_listed_in_pages_and_found_by_prefix_until_their_last_object_goes() -> None:
    """Goal: the index follows the objects. Method: three records, pages, prefixes; drop objects one by one, then a record whole."""
    engine = ledger()
    for owner, hash_id in [(OWNER, HASH_ID), (OTHER, HASH_ID), (OWNER, OTHER_ID)]:
        for order in (1, 2):
            engine.write(records.put_object(ObjectKind.STATEMENT, owner, hash_id, envelope(str(order)), order=order))
    with engine.snapshot() as snapshot:
        everything = list(records.records(snapshot))
        assert everything == [(OWNER, HASH_ID), (OTHER, HASH_ID), (OWNER, OTHER_ID)]
        assert list(records.records(snapshot, after=everything[0])) == everything[1:]
        assert records.find(snapshot, b"\x10", limit=10) == ((OWNER, HASH_ID), (OTHER, HASH_ID))
        assert records.find(snapshot, b"", limit=1) == ((OWNER, HASH_ID),)
    for left in (3, 2):
        with engine.snapshot() as snapshot:
            writes = records.drop_object(snapshot, records.objects(snapshot, OWNER, HASH_ID)[0])
            assert records.record_count(snapshot) == 3
        engine.write(writes)
        with engine.snapshot() as snapshot:
            assert records.record_count(snapshot) == left
    engine.write(records.hold_back(OTHER, HASH_ID, reason="unknown to all peers", now=NOW))
    with engine.snapshot() as snapshot:
        assert records.held_back(snapshot, OTHER, HASH_ID) == "unknown to all peers"
        assert list(records.held_back_records(snapshot)) == [(OTHER, HASH_ID)]
        writes = records.drop_record(snapshot, OTHER, HASH_ID)
    engine.write(writes)
    with engine.snapshot() as snapshot:
        assert list(records.records(snapshot)) == [(OWNER, OTHER_ID)]
        assert records.held_back(snapshot, OTHER, HASH_ID) is None


def test_greatest_counter_wins_whatever_comes_last() -> None:
    """Goal: receipts and withdrawals share one order. Method: withdrawal 5, then the receipt 4 that it withdrew, then receipt 6."""
    engine = ledger()
    put_receipt(engine, "withdrawal", 5, [item(1)], withdrawn=True)
    put_receipt(engine, "late receipt", 4, [item(1)])
    with engine.snapshot() as snapshot:
        (row,) = receipts.rows(snapshot, owner=OWNER, hash_id=HASH_ID)
        assert row.claim.withdrawn
        assert not receipts.counts(snapshot, row, NOW)
    put_receipt(engine, "new receipt", 6, [item(1)])
    with engine.snapshot() as snapshot:
        (row,) = receipts.rows(snapshot, owner=OWNER, hash_id=HASH_ID, sequence_root=item(1).sequence_root)
        assert [receipts.counts(snapshot, row, UnixSeconds(at)) for at in (NOW - 1, NOW, NOW + 100, NOW + 101)] == [
            False,
            True,
            True,
            False,
        ]


def test_signed_bytes_stay_while_any_sequence_stands_on_them() -> None:
    """Goal: one signature for many sequences, stored once, dropped with its last use. Method: a batch of two, superseded one by one."""
    engine = ledger()
    first = put_receipt(engine, "both", 1, [item(1), item(2)])
    put_receipt(engine, "one", 2, [item(1)])
    with engine.snapshot() as snapshot:
        assert receipts.signed(snapshot, first.object_hash) == first
        assert snapshot.count(RECEIPTS) == 2
    put_receipt(engine, "two", 3, [item(2)])
    with engine.snapshot() as snapshot:
        assert receipts.signed(snapshot, first.object_hash) is None
        assert snapshot.count(RECEIPTS) == snapshot.count(RECEIPT_USES) == snapshot.count(RECEIPTS_BY_HOLDER) == 2
        writes = receipts.drop_record(snapshot, OWNER, HASH_ID)
    engine.write(writes)
    with engine.snapshot() as snapshot:
        assert [snapshot.count(table) for table in (RECEIPTS, RECEIPT_USES, RECEIPTS_BY_HOLDER)] == [0, 0, 0]


def test_later_generation_ends_what_the_store_promised_before() -> None:
    """Goal: a store made anew has not what the old one had. Method: receipts of generation 1, then one other of generation 2."""
    engine = ledger()
    put_receipt(engine, "old", 50, [item(1)])
    put_receipt(engine, "new", 1, [item(2)], generation=2)
    put_receipt(engine, "old and late", 60, [item(2)])
    with engine.snapshot() as snapshot:
        counting = {row.item.sequence_root: receipts.counts(snapshot, row, NOW) for row in receipts.rows(snapshot)}
        assert counting == {item(1).sequence_root: False, item(2).sequence_root: True}
        assert receipts.newest_generation(snapshot, STORE_ID, HOLDER) == 2


def test_what_a_holder_holds_is_found_by_his_name_alone() -> None:
    """Goal: when a holder goes, his sequences are known. Method: two holders, one's name the beginning of the other's."""
    engine = ledger()
    put_receipt(engine, "long", 1, [item(1), item(2, OTHER, OTHER_ID)])
    put_receipt(engine, "short", 1, [item(1)], holder=SHORT_HOLDER)
    with engine.snapshot() as snapshot:
        assert {row.item.key for row in receipts.of_holder(snapshot, HOLDER)} == {item(1).key, item(2, OTHER, OTHER_ID).key}
        assert [row.claim.holder for row in receipts.of_holder(snapshot, SHORT_HOLDER)] == [SHORT_HOLDER]
        writes, after = receipts.drop_ended(snapshot, UnixSeconds(NOW + 101), limit=2)
        assert after is not None
        rest, end = receipts.drop_ended(snapshot, UnixSeconds(NOW + 101), limit=2, start=after)
        assert end is None
    engine.write([*writes, *rest])
    with engine.snapshot() as snapshot:
        assert list(receipts.rows(snapshot)) == []


def test_erasure_receipts_outlive_the_receipts() -> None:
    """Goal: evidence of erasure stays. Method: put one, drop the record's receipts, read it."""
    engine = ledger()
    engine.write(receipts.put_erasure(OWNER, HASH_ID, HOLDER, envelope("gone")))
    with engine.snapshot() as snapshot:
        engine_writes = receipts.drop_record(snapshot, OWNER, HASH_ID)
    engine.write(engine_writes)
    with engine.snapshot() as snapshot:
        assert list(receipts.erasures(snapshot, OWNER, HASH_ID)) == [(HOLDER, envelope("gone"))]


def test_address_book_keeps_the_latest_word_and_the_last_sign_of_life() -> None:
    """Goal: old gossip changes nothing. Method: counters and times out of order."""
    engine = ledger()
    with engine.snapshot() as snapshot:
        first = [*peers.put_announcement(snapshot, HOLDER, counter=5, data=b"five", now=NOW), *peers.saw(snapshot, HOLDER, NOW)]
    engine.write(first)
    with engine.snapshot() as snapshot:
        assert peers.put_announcement(snapshot, HOLDER, counter=5, data=b"other", now=NOW) == []
        assert peers.put_announcement(snapshot, HOLDER, counter=4, data=b"four", now=NOW) == []
        assert peers.saw(snapshot, HOLDER, UnixSeconds(NOW - 1)) == []
        assert peers.get(snapshot, HOLDER) == peers.KnownPeer(HOLDER, 5, NOW, b"five", NOW)
        news = peers.put_announcement(snapshot, HOLDER, counter=6, data=b"six", now=NOW)
    engine.write(news)
    with engine.snapshot() as snapshot:
        assert [known.data for known in peers.all_known(snapshot)] == [b"six"]
    engine.write(peers.forget(HOLDER))
    with engine.snapshot() as snapshot:
        assert peers.get(snapshot, HOLDER) is None
        assert peers.last_seen(snapshot, HOLDER) is None


def test_counters_rise_and_the_clock_floor_never_falls() -> None:
    """Goal: no number twice, no time before the floor. Method: count, raise, try to lower."""
    engine = ledger()
    for wanted in (1, 2, 3):
        with engine.snapshot() as snapshot:
            writes, value = keys.next_counter(snapshot, Key.RECEIPT_COUNTER)
        engine.write(writes)
        assert value == wanted
    with engine.snapshot() as snapshot:
        writes = keys.raise_clock_floor(snapshot, NOW)
    engine.write(writes)
    with engine.snapshot() as snapshot:
        assert keys.raise_clock_floor(snapshot, UnixSeconds(NOW - 1)) == []
        assert keys.clock_floor(snapshot) == NOW
        assert keys.counter(snapshot, Key.RECEIPT_COUNTER) == 3


def test_store_made_anew_goes_on_under_a_later_generation() -> None:
    """Goal: a lost, exchanged or restored chunk store cannot pass for the old one.

    Method: first start, restart, chunk environment lost, ledger environment lost, chunk environment of another node.
    """

    def identify(ledger_env: Engine, chunk_env: Engine, now: int, fresh: bytes = b"f" * 16) -> keys.StoreIdentity:
        with ledger_env.snapshot() as below, chunk_env.snapshot() as above:
            identity, first, second = keys.identify_store(below, above, fresh_id=StoreId(fresh), now=UnixSeconds(now))
        ledger_env.write(first)
        chunk_env.write(second)
        return identity

    def new_chunks() -> Engine:
        return MemoryEngine(Env.CHUNKS, 1 << 20)

    ours, theirs = ledger(), new_chunks()
    first = identify(ours, theirs, 100)
    assert first == keys.StoreIdentity(StoreId(b"f" * 16), 100)
    assert identify(ours, theirs, 200, b"g" * 16) == first
    lost = identify(ours, new_chunks(), 50, b"g" * 16)
    assert lost == keys.StoreIdentity(first.store_id, 101)
    other_ledger = ledger()
    assert identify(other_ledger, theirs, 300) == keys.StoreIdentity(first.store_id, 300)
    stranger = new_chunks()
    identify(ledger(), stranger, 500, b"x" * 16)
    assert identify(ours, stranger, 400) == keys.StoreIdentity(first.store_id, 501)
    with stranger.snapshot() as snapshot:
        assert snapshot.count(STORE) == 1


def test_fences_revocations_and_tickets_are_kept_apart() -> None:
    """Goal: small opaque things by their keys. Method: two networks' fences in number order; a ticket replaced and dropped."""
    engine = ledger()
    one, two = NetworkId(b"1" * 32), NetworkId(b"2" * 32)
    engine.write([*keys.put_fence(one, 300, b"c"), *keys.put_fence(one, 2, b"b"), *keys.put_fence(two, 1, b"x")])
    engine.write([*keys.put_revocation(Digest(b"r" * 32), b"revoked"), *keys.put_ticket(b"t", b"open"), *keys.put_ticket(b"t", b"used")])
    engine.write(keys.put(Key.IDENTITY, b"sealed"))
    with engine.snapshot() as snapshot:
        assert list(keys.fences(snapshot, one)) == [(2, b"b"), (300, b"c")]
        assert list(keys.revocations(snapshot)) == [(b"r" * 32, b"revoked")]
        assert keys.ticket(snapshot, b"t") == b"used"
        assert keys.get(snapshot, Key.IDENTITY) == b"sealed"
    engine.write([*keys.drop_fence(one, 2), *keys.drop_ticket(b"t"), *keys.drop(Key.IDENTITY)])
    with engine.snapshot() as snapshot:
        assert list(keys.fences(snapshot, one)) == [(300, b"c")]
        assert list(keys.tickets(snapshot)) == []
        assert keys.get(snapshot, Key.IDENTITY) is None


def test_jobs_come_when_due_survive_replacement_and_end() -> None:
    """Goal: interrupted work is found again, oldest first. Method: three jobs, one postponed after a failure, one done."""
    engine = ledger()

    def put(job: Job) -> None:
        with engine.snapshot() as snapshot:
            writes = jobs.put(snapshot, job)
        engine.write(writes)

    base = Job(JobKind.PUT, b"a", OWNER, b"state", 0, NOW, NOW)
    put(base)
    put(replace(base, id=b"b", retry_at=UnixSeconds(NOW - 10)))
    put(replace(base, id=b"c", kind=JobKind.REPAIR, retry_at=UnixSeconds(NOW + 10)))
    with engine.snapshot() as snapshot:
        assert [job.id for job in jobs.due(snapshot, NOW, limit=10)] == [b"b", b"a"]
        assert [job.id for job in jobs.due(snapshot, NOW, limit=1)] == [b"b"]
        assert jobs.next_due_at(snapshot) == NOW - 10
        assert [job.id for job in jobs.all_of(snapshot, JobKind.REPAIR)] == [b"c"]
    failed = replace(base, id=b"b", attempt=1, retry_at=UnixSeconds(NOW + 60), last_error="x" * 1000)
    put(failed)
    with engine.snapshot() as snapshot:
        assert [job.id for job in jobs.due(snapshot, NOW, limit=10)] == [b"a"]
        assert jobs.get(snapshot, JobKind.PUT, b"b") == replace(failed, last_error="x" * jobs.LAST_ERROR_CHARACTERS_MAX)
        writes = [*jobs.done(snapshot, JobKind.PUT, b"a"), *jobs.done(snapshot, JobKind.PUT, b"b"), *jobs.done(snapshot, JobKind.GET, b"z")]
    engine.write(writes)
    with engine.snapshot() as snapshot:
        assert [job.id for job in jobs.all_of(snapshot)] == [b"c"]
        assert snapshot.count(JOBS_DUE) == 1


def test_event_log_forgets_its_oldest_and_never_reuses_a_number() -> None:
    """Goal: bounded, in order. Method: seven events into a log of three, one with too many facts."""
    engine = ledger()
    for index in range(7):
        with engine.snapshot() as snapshot:
            facts: dict[str, object] = {"index": index, "text": "x" * (5000 if index == 6 else 1)}
            writes = log.append(snapshot, [("happened", facts)], now=UnixSeconds(NOW + index), events_max=3)
        engine.write(writes)
    with engine.snapshot() as snapshot:
        events = log.newest(snapshot, limit=10)
        assert [(event.number, event.at) for event in events] == [(4, NOW + 4), (5, NOW + 5), (6, NOW + 6)]
        assert events[0].facts == {"index": 4, "text": "x"}
        assert set(events[2].facts) == {"left_out_bytes"}
        assert [event.number for event in log.since(snapshot, 6)] == [6]
        assert [event.number for event in log.newest(snapshot, limit=1)] == [6]


def test_value_that_is_not_what_was_written_is_damage() -> None:
    """Goal: rot in a row is told as damage of the store, never as a peer's fault. Method: noise where a number belongs."""
    engine = ledger()
    engine.write([Put(KEYS, Key.RECEIPT_COUNTER.value, b"\xc1noise")])
    with engine.snapshot() as snapshot, pytest.raises(StoreDamaged):
        keys.next_counter(snapshot, Key.RECEIPT_COUNTER)


def test_what_an_anchor_shall_say_and_its_log_are_kept() -> None:
    """Goal: nothing that only the person said is lost before the record is on the chain. Method: written, read, dropped."""
    engine = ledger()
    intent = Intent("correct", (Parent(OWNER, OTHER_ID),), (("reason", "why"),))
    steps = journal.append((), "received", HASH_ID, UnixMillis(1), seq=1)
    engine.write([anchors.put_intent(HASH_ID, intent), anchors.put_journal(HASH_ID, steps)])
    with engine.snapshot() as snapshot:
        assert anchors.intent(snapshot, HASH_ID) == intent
        assert anchors.journal(snapshot, HASH_ID) == steps
        assert (anchors.intent(snapshot, OTHER_ID), anchors.journal(snapshot, OTHER_ID)) == (CREATE, ())
        assert not anchors.is_elsewhere(snapshot, HASH_ID)
    engine.write([anchors.drop_intent(HASH_ID), anchors.put_elsewhere(OTHER_ID)])
    with engine.snapshot() as snapshot:
        assert anchors.intent(snapshot, HASH_ID) == CREATE
        assert [anchors.is_elsewhere(snapshot, one) for one in (HASH_ID, OTHER_ID)] == [False, True]
    engine.write([anchors.drop_elsewhere(OTHER_ID)])
    with engine.snapshot() as snapshot:
        assert not anchors.is_elsewhere(snapshot, OTHER_ID)


def test_refusals_are_one_row_for_each_kind_and_reason_and_say_the_last() -> None:
    """Goal: as much room as there are reasons, however much is refused. Method: a thousand of two reasons; a reason of a newer program is
    passed over; a damaged row is told as damage."""
    engine = ledger()
    keys_of: tuple[refused.Key, ...] = (("block", Reason.POLICY), ("vote", Reason.POLICY))
    for number in range(1000):
        key = keys_of[number % 2]
        with engine.snapshot() as snapshot:
            before = refused.rows(snapshot).get(key)
        row = refused.add(before, now_ms=UnixMillis(number), name=sha256(bytes([number % 256])), height=number, peer=HOLDER)
        engine.write([refused.put(key, row)])
    engine.write([Put(CHAIN_REFUSED, b"bE-OF-TOMORROW", b"")])
    with engine.snapshot() as snapshot:
        found = refused.rows(snapshot)
        assert snapshot.count(CHAIN_REFUSED) == 3
    assert set(found) == set(keys_of)
    last = found["vote", Reason.POLICY]
    assert (last.count, last.first_ms, last.last_ms, last.height, last.peer) == (500, 1, 999, 999, HOLDER)
    engine.write([Put(CHAIN_REFUSED, b"bE-POLICY", b"rot")])
    with engine.snapshot() as snapshot, pytest.raises(StoreDamaged):
        refused.rows(snapshot)
