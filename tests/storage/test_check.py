"""What start-up, scrub, backup and migrations promise."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from protocols.crypto import sha256
from protocols.errors import Reason, Refused, StoreDamaged
from protocols.signed import Signed
from protocols.types import ChunkName, Digest, HashId, OwnerKey, PeerId, SequenceRoot, StoreId, UnixSeconds
from storage import backup, check, chunks, keys, migrations, receipts, records
from storage.engine import Delete, Env, Put
from storage.faulty import Faults, FaultyEngine
from storage.memory import MemoryEngine
from storage.records import ObjectKind
from storage.tables import BODIES, CHUNKS, OWNERS

OWNER = OwnerKey(b"o" * 32)
HOLDER = PeerId(b"me")
NOW = UnixSeconds(1_000)
BODY = [bytes([index]) * 500 for index in range(10)]
NAMES = [ChunkName(sha256(body)) for body in BODY]
ROOT = SequenceRoot(bytes(32))
STATEMENT = Signed(body=b"statement", signer=OWNER, signature=bytes(64))


def hash_id(index: int) -> HashId:
    return HashId(bytes([index]) * 32)


def store(engine: MemoryEngine | FaultyEngine, index: int, names: list[ChunkName]) -> None:
    """A record of one sequence with its bodies."""
    with engine.snapshot() as snapshot:
        writes = chunks.reference(snapshot, OWNER, hash_id(index), ROOT, names, object_hash=STATEMENT.object_hash)
    engine.write(writes)
    with engine.snapshot() as snapshot:
        writes = chunks.keep(snapshot, [(name, BODY[NAMES.index(name)]) for name in names], None, now=NOW)
    engine.write(writes)


def promise(ledger: MemoryEngine, index: int, *, until: int = NOW) -> None:
    """Our own receipt for the record's sequence."""
    envelope = Signed(body=bytes([index]), signer=OWNER, signature=bytes(64))
    claim = receipts.Claim(envelope.object_hash, HOLDER, StoreId(bytes(16)), 1, index + 1, False, UnixSeconds(0), UnixSeconds(until))
    with ledger.snapshot() as snapshot:
        writes = receipts.put(snapshot, envelope, claim, [receipts.Item(OWNER, hash_id(index), ROOT, 1, Digest(bytes(32)))])
    ledger.write([*writes, *records.put_object(ObjectKind.STATEMENT, OWNER, hash_id(index), STATEMENT, order=1)])


def test_reconcile_finds_broken_promises_missing_bodies_and_what_nobody_speaks_of() -> None:
    """Goal: after any crash between the environments, start-up knows what to settle.

    Method: a sound record; one with a receipt and no reference; one with a body gone; one with references and no statement;
    one whose receipt is over.
    """
    ledger, store_engine = MemoryEngine(Env.LEDGER, 1 << 20), MemoryEngine(Env.CHUNKS, 1 << 20)
    for index in (0, 1, 2):
        promise(ledger, index)
    promise(ledger, 4, until=NOW - 1)
    store(store_engine, 0, NAMES[:2])
    store(store_engine, 2, NAMES[2:4])
    store(store_engine, 3, NAMES[4:6])
    with store_engine.snapshot() as snapshot:
        writes = chunks.quarantine(snapshot, NAMES[3], found_hash=Digest(bytes(32)), now=NOW)
    store_engine.write(writes)
    with ledger.snapshot() as below, store_engine.snapshot() as above:
        found = check.reconcile(below, above, holder=HOLDER, now=NOW)
        assert {(broken.hash_id, broken.missing) for broken in found.promises} == {(hash_id(1), ()), (hash_id(2), (NAMES[3],))}
        assert [(held.hash_id, lacking) for held, lacking in found.missing] == [(hash_id(2), (NAMES[3],))]
        assert found.unspoken == ((OWNER, hash_id(3)),)
        writes = check.settle(above, found, trash_until=UnixSeconds(NOW + 10))
    store_engine.write(writes)
    with ledger.snapshot() as below, store_engine.snapshot() as above:
        assert check.settle(above, check.reconcile(below, above, holder=HOLDER, now=NOW), trash_until=NOW) == []
        assert chunks.is_only_in_trash(above, NAMES[4])


def test_scrub_finds_rot_read_errors_and_bodies_that_vanished() -> None:
    """Goal: every kind of damage is found and named. Method: flip a bit, delete a body behind the store's back, fail reads."""
    faults = Faults()
    engine = FaultyEngine(MemoryEngine(Env.CHUNKS, 1 << 20), faults, random.Random(3))
    store(engine, 0, NAMES)
    with engine.snapshot() as snapshot:
        assert check.scrub(snapshot, limit=100) == check.ScrubStep(len(NAMES), (), None)
    engine.flip_bit(BODIES, NAMES[2])
    engine.write([Delete(BODIES, NAMES[5])])
    with engine.snapshot() as snapshot:
        damaged = {damage.name: damage.found_hash for damage in check.scrub(snapshot, limit=100).damaged}
        assert set(damaged) == {NAMES[2], NAMES[5]}
        assert damaged[NAMES[5]] == check.NO_HASH
        held = chunks.sequence(snapshot, OWNER, hash_id(0), ROOT)
        assert held is not None
        assert set(check.check_sequence(snapshot, held)) == {NAMES[2], NAMES[5]}
        assert check.scrub(snapshot, limit=100, every=3).checked == 4
        faults.read_error_chance = 1.0
        assert check.check_chunk(snapshot, NAMES[0]) == check.Damage(NAMES[0], check.NO_HASH)


def test_check_rows_reports_what_does_not_add_up_and_mends_leaks() -> None:
    """Goal: a store repaired by hand, or a bug, does not leak silently. Method: each kind of wrong row put by hand."""
    engine = MemoryEngine(Env.CHUNKS, 1 << 20)
    store(engine, 0, NAMES[:3])
    with engine.snapshot() as snapshot:
        assert check.check_rows(snapshot) == ()
    engine.write([Put(OWNERS, OWNER, b"\x07"), Delete(CHUNKS, NAMES[0] + OWNER + b"\x02" + hash_id(0) + ROOT), Delete(BODIES, NAMES[1])])
    with engine.snapshot() as snapshot:
        problems = "\n".join(check.check_rows(snapshot))
        for wanted in ("has a row and no body", "claimed by nobody", "without a claim", "are charged", "bodies and"):
            assert wanted in problems
        writes = check.mend_rows(snapshot)
    engine.write(writes)
    with engine.snapshot() as snapshot:
        engine_writes = chunks.collect(snapshot, NOW, 10)
    engine.write(engine_writes)
    with engine.snapshot() as snapshot:
        assert chunks.has_many(snapshot, NAMES[:3]) == (False, True, True)


def test_hot_copy_is_whole_leaves_damage_behind_and_starts_a_new_generation() -> None:
    """Goal: a backup can be trusted and cannot pass for the running store. Method: copy both environments, one chunk rotten."""
    ledger, engine = MemoryEngine(Env.LEDGER, 1 << 20), FaultyEngine(MemoryEngine(Env.CHUNKS, 1 << 20), Faults(), random.Random(1))
    with ledger.snapshot() as below, engine.snapshot() as above:
        identity, first, second = keys.identify_store(below, above, fresh_id=StoreId(b"i" * 16), now=NOW)
    ledger.write(first)
    engine.write(second)
    promise(ledger, 0)
    store(engine, 0, NAMES)
    engine.flip_bit(BODIES, NAMES[4])
    ledger_copy, chunk_copy = MemoryEngine(Env.LEDGER, 1 << 20), MemoryEngine(Env.CHUNKS, 1 << 20)
    assert backup.copy(ledger, ledger_copy, now=NOW).damaged == ()
    assert backup.copy(engine, chunk_copy, now=NOW).damaged == (NAMES[4],)
    with ledger_copy.snapshot() as below, chunk_copy.snapshot() as above:
        assert check.scrub(above, limit=100) == check.ScrubStep(len(NAMES) - 1, (), None)
        assert check.check_rows(above) == ()
        assert [name for name, _ in chunks.quarantined(above)] == [NAMES[4]]
        assert list(records.records(below)) == [(OWNER, hash_id(0))]
        restored, _, _ = keys.identify_store(below, above, fresh_id=StoreId(b"j" * 16), now=NOW)
        assert restored.store_id == identity.store_id
        assert restored.generation > identity.generation


def test_home_of_a_newer_program_is_refused_with_its_name(tmp_path: Path) -> None:
    """Goal: no downgrade in the dark. Method: a home written by a later version."""
    assert migrations.migrate(tmp_path, written_by="lading 9.9", version=9) == 0
    with pytest.raises(Refused) as refusal:
        migrations.migrate(tmp_path, written_by="lading 0.1", version=8)
    assert refusal.value.reason is Reason.VERSION_TOO_NEW
    assert refusal.value.details["written_by"] == "lading 9.9"
    assert migrations.read_version(tmp_path) == (9, "lading 9.9")


def test_steps_run_in_order_and_go_on_after_a_crash(tmp_path: Path) -> None:
    """Goal: an interrupted migration resumes where it was. Method: the second of three steps fails once."""
    migrations.migrate(tmp_path, written_by="old", version=1)
    ran: list[int] = []

    def step(number: int) -> migrations.Step:
        def run(home: Path) -> None:
            ran.append(number)
            if ran == [1, 2]:
                raise StoreDamaged("the power went")

        return run

    steps = {number: step(number) for number in (1, 2, 3)}
    with pytest.raises(StoreDamaged):
        migrations.migrate(tmp_path, written_by="new", version=4, steps=steps)
    assert migrations.read_version(tmp_path) == (2, "new")
    assert migrations.migrate(tmp_path, written_by="new", version=4, steps=steps) == 2
    assert ran == [1, 2, 2, 3]
    assert migrations.migrate(tmp_path, written_by="new", version=4, steps=steps) == 0


def test_version_that_cannot_be_read_is_damage(tmp_path: Path) -> None:
    """Goal: no guessing. Method: noise and half a text in VERSION."""
    for text in (b"\xff\xfe", b"{}", b'{"version": "one"}', b'{"version": 1'):
        (tmp_path / migrations.VERSION_FILE).write_bytes(text)
        with pytest.raises(StoreDamaged):
            migrations.migrate(tmp_path, written_by="us")
