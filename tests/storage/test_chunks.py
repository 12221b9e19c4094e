"""The chunk store against a model, and its promises one by one."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from protocols.crypto import sha256
from protocols.types import ChunkName, Digest, HashId, OwnerKey, SequenceRoot, UnixSeconds
from storage import check, chunks
from storage.engine import Delete, Env, Snapshot, Write
from storage.faulty import Crashed, Faults, FaultyEngine
from storage.memory import MemoryEngine
from storage.overlay import Overlay
from storage.tables import CHUNKS, PROTECTIONS, SUSPECTS

OWNERS = [OwnerKey(bytes([1]) * 32), OwnerKey(bytes([2]) * 32)]
HASH_IDS = [HashId(bytes([3]) * 32), HashId(bytes([4]) * 32)]
ROOTS = [SequenceRoot(bytes([5]) * 32), SequenceRoot(bytes([6]) * 32)]
OBJECT = Digest(bytes([7]) * 32)
BODIES = [bytes([index]) * (100 + index) for index in range(6)]
NAMES = [ChunkName(sha256(body)) for body in BODIES]
BODY_OF = dict(zip(NAMES, BODIES, strict=True))
NOW = UnixSeconds(1000)
LATER = UnixSeconds(2000)

_owner = st.sampled_from(OWNERS)
_hash_id = st.sampled_from(HASH_IDS)
_root = st.sampled_from(ROOTS)
_id = st.sampled_from([b"put-1", b"put-2"])
_names = st.lists(st.sampled_from(NAMES), min_size=1, max_size=4).map(tuple)
_wait = st.integers(0, 30)
_crash = st.sampled_from([None, None, None, True, False])


def new_engine() -> MemoryEngine:
    return MemoryEngine(Env.CHUNKS, 1 << 24)


def commit(engine: MemoryEngine, *fns: Callable[[Snapshot], Sequence[Write]]) -> None:
    """The functions in one batch."""
    with engine.snapshot() as snapshot:
        overlay = Overlay(snapshot)
        for fn in fns:
            overlay.add(fn(overlay))
    engine.write(overlay.writes)


def collect_all(engine: MemoryEngine, now: int, limit: int = 8) -> int:
    """Steps until nothing is left to do. Result: how many."""
    steps = 0
    while True:
        with engine.snapshot() as snapshot:
            writes = chunks.collect(snapshot, UnixSeconds(now), limit)
        if not writes:
            return steps
        engine.write(writes)
        steps += 1


def bodies_of(names: Sequence[ChunkName]) -> list[tuple[ChunkName, bytes]]:
    return [(name, BODY_OF[name]) for name in names]


class ChunkStore(RuleBasedStateMachine):
    """Everything that can happen to chunks, crashes included, against plain dicts of who wants what until when."""

    @initialize(seed=st.integers(0, 1000))
    def start(self, seed: int) -> None:
        self.faults = Faults()
        self.engine = FaultyEngine(new_engine(), self.faults, random.Random(seed))
        self.now = 100
        self.kept: set[ChunkName] = set()
        self.protections: dict[tuple[OwnerKey, bytes], tuple[set[ChunkName], int]] = {}
        self.references: dict[tuple[OwnerKey, HashId, SequenceRoot], tuple[tuple[ChunkName, ...], int | None]] = {}

    def commit(self, crash: bool | None, *fns: Callable[[Snapshot], Sequence[Write]]) -> bool:
        """One batch. False: it was lost in a crash, and the model must not change."""
        if crash is not None:
            self.faults.crash_after_writes = 1
            self.faults.crash_keeps = crash
        try:
            with self.engine.snapshot() as snapshot:
                overlay = Overlay(snapshot)
                for fn in fns:
                    overlay.add(fn(overlay))
            self.engine.write(overlay.writes)
        except Crashed:
            self.engine.restart()
            return bool(crash)
        return True

    def wanted(self) -> set[ChunkName]:
        names = {name for claimed, _ in self.protections.values() for name in claimed}
        return names.union(*(claimed for claimed, _ in self.references.values()))

    def model_protect(self, owner: OwnerKey, claim_id: bytes, names: Sequence[ChunkName], expires_at: int) -> None:
        old_names, old_expiry = self.protections.get((owner, claim_id), (set(), 0))
        self.protections[owner, claim_id] = (old_names | set(names), max(old_expiry, expires_at))

    @rule(owner=_owner, claim_id=_id, names=_names, wait=_wait, crash=_crash)
    def protect(self, owner: OwnerKey, claim_id: bytes, names: tuple[ChunkName, ...], wait: int, crash: bool | None) -> None:
        protection = chunks.Protection(owner, claim_id, UnixSeconds(self.now + wait))
        if self.commit(crash, lambda s: chunks.protect(s, protection, names)):
            self.model_protect(owner, claim_id, names, self.now + wait)

    @rule(owner=_owner, claim_id=_id, names=_names, wait=_wait, crash=_crash)
    def keep(self, owner: OwnerKey, claim_id: bytes, names: tuple[ChunkName, ...], wait: int, crash: bool | None) -> None:
        protection = chunks.Protection(owner, claim_id, UnixSeconds(self.now + wait))
        if self.commit(crash, lambda s: chunks.keep(s, bodies_of(names), protection, now=UnixSeconds(self.now))):
            self.model_protect(owner, claim_id, names, self.now + wait)
            self.kept |= set(names)

    @rule(names=_names, crash=_crash)
    def keep_what_is_claimed(self, names: tuple[ChunkName, ...], crash: bool | None) -> None:
        if self.commit(crash, lambda s: chunks.keep(s, bodies_of(names), None, now=UnixSeconds(self.now))):
            self.kept |= set(names) & self.wanted()

    @rule(owner=_owner, hash_id=_hash_id, root=_root, names=_names, crash=_crash)
    def reference(self, owner: OwnerKey, hash_id: HashId, root: SequenceRoot, names: tuple[ChunkName, ...], crash: bool | None) -> None:
        if self.commit(crash, lambda s: chunks.reference(s, owner, hash_id, root, names, object_hash=OBJECT)):
            self.references[owner, hash_id, root] = (names, None)

    @rule(owner=_owner, hash_id=_hash_id, root=_root, claim_id=_id, names=_names, crash=_crash)
    def reference_ends_protection_in_one_batch(
        self, owner: OwnerKey, hash_id: HashId, root: SequenceRoot, claim_id: bytes, names: tuple[ChunkName, ...], crash: bool | None
    ) -> None:
        done = self.commit(
            crash,
            lambda s: chunks.unprotect(s, owner, claim_id),
            lambda s: chunks.reference(s, owner, hash_id, root, names, object_hash=OBJECT),
        )
        if done:
            self.protections.pop((owner, claim_id), None)
            self.references[owner, hash_id, root] = (names, None)

    @rule(owner=_owner, claim_id=_id, crash=_crash)
    def unprotect(self, owner: OwnerKey, claim_id: bytes, crash: bool | None) -> None:
        if self.commit(crash, lambda s: chunks.unprotect(s, owner, claim_id)):
            self.protections.pop((owner, claim_id), None)

    @rule(owner=_owner, hash_id=_hash_id, root=st.none() | _root, crash=_crash)
    def release(self, owner: OwnerKey, hash_id: HashId, root: SequenceRoot | None, crash: bool | None) -> None:
        if self.commit(crash, lambda s: chunks.release(s, owner, hash_id, root)):
            for key in [key for key in self.references if key[:2] == (owner, hash_id) and root in (None, key[2])]:
                del self.references[key]

    @rule(owner=_owner, hash_id=_hash_id, crash=_crash)
    def erase(self, owner: OwnerKey, hash_id: HashId, crash: bool | None) -> None:
        with self.engine.snapshot() as snapshot:
            shared = set(chunks.shared_names(snapshot, owner, hash_id))
        gone = {name for key, (names, _) in self.references.items() if key[:2] == (owner, hash_id) for name in names}
        if self.commit(crash, lambda s: chunks.erase(s, owner, hash_id)):
            for key in [key for key in self.references if key[:2] == (owner, hash_id)]:
                del self.references[key]
            assert shared == gone & self.wanted()
            with self.engine.snapshot() as snapshot:
                assert not any(chunks.has_many(snapshot, sorted(gone - shared)))
            self.kept -= gone - shared

    @rule(owner=_owner, hash_id=_hash_id, wait=_wait, crash=_crash)
    def trash(self, owner: OwnerKey, hash_id: HashId, wait: int, crash: bool | None) -> None:
        until = UnixSeconds(self.now + wait)
        if self.commit(crash, lambda s: chunks.trash(s, owner, hash_id, until=until)):
            for key, (names, trash_until) in self.references.items():
                if key[:2] == (owner, hash_id) and trash_until is None:
                    self.references[key] = (names, until)

    @rule(owner=_owner, hash_id=_hash_id, crash=_crash)
    def restore(self, owner: OwnerKey, hash_id: HashId, crash: bool | None) -> None:
        if self.commit(crash, lambda s: chunks.restore_from_trash(s, owner, hash_id)):
            for key, (names, _) in self.references.items():
                if key[:2] == (owner, hash_id):
                    self.references[key] = (names, None)

    @rule(name=st.sampled_from(NAMES), crash=_crash)
    def quarantine(self, name: ChunkName, crash: bool | None) -> None:
        if self.commit(crash, lambda s: chunks.quarantine(s, name, found_hash=OBJECT, now=UnixSeconds(self.now))):
            self.kept.discard(name)

    @rule(seconds=st.integers(1, 20))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule(limit=st.integers(1, 6), crash=_crash)
    def collect_a_step(self, limit: int, crash: bool | None) -> None:
        self.commit(crash, lambda s: chunks.collect(s, UnixSeconds(self.now), limit))
        self.sync_what_is_over()

    def sync_what_is_over(self) -> None:
        """What is due may be gone, nothing else."""
        with self.engine.snapshot() as snapshot:
            for claim, (_, expires_at) in list(self.protections.items()):
                if not snapshot.has(PROTECTIONS, claim[0] + claim[1]):
                    assert expires_at <= self.now
                    del self.protections[claim]
            for key, (_, trash_until) in list(self.references.items()):
                if chunks.sequence(snapshot, *key) is None:
                    assert trash_until is not None
                    assert trash_until <= self.now
                    del self.references[key]
            wanted = self.wanted()
            self.kept = {name for name in self.kept if name in wanted or chunks.has_many(snapshot, [name]) == (True,)}

    @rule()
    def collect_to_the_end(self) -> None:
        while True:
            with self.engine.snapshot() as snapshot:
                writes = chunks.collect(snapshot, UnixSeconds(self.now), 3)
            if not writes:
                break
            self.engine.write(writes)
        self.sync_what_is_over()
        assert all(expires_at > self.now for _, expires_at in self.protections.values())
        assert all(until is None or until > self.now for _, until in self.references.values())
        self.kept &= self.wanted()
        with self.engine.snapshot() as snapshot:
            assert set(chunks.names_from(snapshot)) == self.kept
            assert {name for name, _ in chunks.quarantined(snapshot)} <= self.wanted()

    @precondition(lambda self: hasattr(self, "engine"))
    @invariant()
    def nothing_wanted_is_lost_and_rows_agree(self) -> None:
        with self.engine.snapshot() as snapshot:
            for name in self.wanted() & self.kept:
                assert chunks.get(snapshot, name) == BODY_OF[name]
            for (owner, hash_id, root), (names, trash_until) in self.references.items():
                held = chunks.sequence(snapshot, owner, hash_id, root)
                assert held is not None
                assert (held.names, held.trash_until) == (names, trash_until)
            for name in NAMES:
                live = any(name in names for names, _ in self.protections.values()) or any(
                    name in names and until is None for names, until in self.references.values()
                )
                assert chunks.is_only_in_trash(snapshot, name) == (name in self.wanted() and not live)
            assert check.check_rows(snapshot) == ()


TestChunkStore = ChunkStore.TestCase
TestChunkStore.settings = settings(settings(), stateful_step_count=40)


def test_protection_and_bodies_are_one_batch_and_expiry_frees_them() -> None:
    """Goal: bytes of an abandoned offer go when it expires, not before. Method: keep, collect before and after the expiry."""
    engine = new_engine()
    protection = chunks.Protection(OWNERS[0], b"put", LATER)
    commit(engine, lambda s: chunks.keep(s, bodies_of(NAMES), protection, now=NOW))
    assert collect_all(engine, LATER - 1) == 0
    with engine.snapshot() as snapshot:
        assert chunks.owner_bytes(snapshot, OWNERS[0]) == sum(map(len, BODIES))
        assert chunks.has_many(snapshot, [*NAMES, ChunkName(bytes(32))]) == (True,) * len(NAMES) + (False,)
    collect_all(engine, LATER)
    with engine.snapshot() as snapshot:
        assert chunks.chunk_count(snapshot) == 0
        assert list(chunks.owners(snapshot)) == []


def test_shared_chunk_is_charged_once_to_each_owner_and_lives_while_any_record_needs_it() -> None:
    """Goal: deduplication neither loses nor double-charges. Method: two records of one owner, one of another, released one by one."""
    engine = new_engine()
    for owner, hash_id in [(OWNERS[0], HASH_IDS[0]), (OWNERS[0], HASH_IDS[1]), (OWNERS[1], HASH_IDS[0])]:
        commit(engine, lambda s, o=owner, h=hash_id: chunks.reference(s, o, h, ROOTS[0], NAMES[:1], object_hash=OBJECT))  # type: ignore[misc]
    commit(engine, lambda s: chunks.keep(s, bodies_of(NAMES[:2]), None, now=NOW))
    size = len(BODIES[0])
    with engine.snapshot() as snapshot:
        assert chunks.has_many(snapshot, NAMES[:2]) == (True, False)  # nobody claims the second
        assert dict(chunks.owners(snapshot)) == {OWNERS[0]: size, OWNERS[1]: size}
    commit(engine, lambda s: chunks.release(s, OWNERS[0], HASH_IDS[0]))
    collect_all(engine, NOW)
    with engine.snapshot() as snapshot:
        assert dict(chunks.owners(snapshot)) == {OWNERS[0]: size, OWNERS[1]: size}
    commit(engine, lambda s: chunks.release(s, OWNERS[0], HASH_IDS[1]))
    collect_all(engine, NOW)
    with engine.snapshot() as snapshot:
        assert dict(chunks.owners(snapshot)) == {OWNERS[1]: size}
        assert chunks.get(snapshot, NAMES[0]) == BODIES[0]
    commit(engine, lambda s: chunks.release(s, OWNERS[1], HASH_IDS[0]))
    collect_all(engine, NOW)
    with engine.snapshot() as snapshot:
        assert chunks.chunk_count(snapshot) == 0
        assert snapshot.count(CHUNKS) == snapshot.count(SUSPECTS) == 0


def test_two_releases_in_one_batch_without_overlay_still_free_the_chunk() -> None:
    """Goal: a batch made from one plain snapshot leaks nothing. Method: both references of a chunk go, each seeing the other."""
    engine = new_engine()
    for root in ROOTS:
        commit(engine, lambda s, r=root: chunks.reference(s, OWNERS[0], HASH_IDS[0], r, NAMES[:1], object_hash=OBJECT))  # type: ignore[misc]
    commit(engine, lambda s: chunks.keep(s, bodies_of(NAMES[:1]), None, now=NOW))
    with engine.snapshot() as snapshot:
        writes = [write for root in ROOTS for write in chunks.release(snapshot, OWNERS[0], HASH_IDS[0], root)]
    engine.write(writes)
    collect_all(engine, NOW)
    with engine.snapshot() as snapshot:
        assert chunks.chunk_count(snapshot) == 0


def test_trash_is_read_restored_and_collected_after_its_window() -> None:
    """Goal: delete can be undone within the window. Method: trash, read, restore, trash again, let the window pass."""
    engine = new_engine()
    commit(
        engine,
        lambda s: chunks.reference(s, OWNERS[0], HASH_IDS[0], ROOTS[0], NAMES[:2], object_hash=OBJECT),
        lambda s: chunks.keep(s, bodies_of(NAMES[:2]), None, now=NOW),
        lambda s: chunks.trash(s, OWNERS[0], HASH_IDS[0], until=LATER),
    )
    with engine.snapshot() as snapshot:
        assert chunks.get(snapshot, NAMES[0]) == BODIES[0]
        assert chunks.is_only_in_trash(snapshot, NAMES[0])
        assert chunks.trash(snapshot, OWNERS[0], HASH_IDS[0], until=LATER) == []
    commit(engine, lambda s: chunks.restore_from_trash(s, OWNERS[0], HASH_IDS[0]))
    assert collect_all(engine, LATER + 1) == 0
    commit(engine, lambda s: chunks.trash(s, OWNERS[0], HASH_IDS[0], until=LATER))
    collect_all(engine, LATER)
    with engine.snapshot() as snapshot:
        assert chunks.chunk_count(snapshot) == 0
        assert list(chunks.sequences(snapshot)) == []


def test_steps_are_bounded_and_resume() -> None:
    """Goal: no act on a large record is one large batch. Method: ten sequences, two to a step, until nothing is returned."""
    engine = new_engine()
    roots = [SequenceRoot(sha256(bytes([index]))) for index in range(10)]
    for root in roots:
        commit(engine, lambda s, r=root: chunks.reference(s, OWNERS[0], HASH_IDS[0], r, NAMES, object_hash=OBJECT))  # type: ignore[misc]
    commit(engine, lambda s: chunks.keep(s, bodies_of(NAMES), None, now=NOW))
    acts: list[Callable[[Snapshot], list[Write]]] = [
        lambda s: chunks.trash(s, OWNERS[0], HASH_IDS[0], until=LATER, limit=2),
        lambda s: chunks.restore_from_trash(s, OWNERS[0], HASH_IDS[0], limit=2),
        lambda s: chunks.release(s, OWNERS[0], HASH_IDS[0], limit=2),
    ]
    for act in acts:
        steps = 0
        while True:
            with engine.snapshot() as snapshot:
                writes = act(snapshot)
            if not writes:
                break
            engine.write(writes)
            steps += 1
        assert steps == 5
    assert collect_all(engine, NOW, limit=2) == 3
    with engine.snapshot() as snapshot:
        assert chunks.chunk_count(snapshot) == 0


def test_one_collection_step_frees_at_most_its_limit_of_bodies() -> None:
    """Goal: collecting never holds the writer long. Method: one expired protection of six chunks, limit two; deletes of bodies counted."""
    engine = new_engine()
    for index, name in enumerate(NAMES):
        protection = chunks.Protection(OWNERS[0], bytes([index + 1]), LATER)
        commit(engine, lambda s, n=name, p=protection: chunks.keep(s, bodies_of([n]), p, now=NOW))  # type: ignore[misc]
    while True:
        with engine.snapshot() as snapshot:
            writes = chunks.collect(snapshot, LATER, 2)
        if not writes:
            break
        assert sum(isinstance(write, Delete) and write.table.bodies for write in writes) <= 2
        engine.write(writes)
    with engine.snapshot() as snapshot:
        assert chunks.chunk_count(snapshot) == 0


def test_damaged_chunk_counts_as_missing_until_it_comes_back() -> None:
    """Goal: damage is repaired like absence. Method: quarantine a claimed chunk, ask what is missing, keep it again."""
    engine = new_engine()
    commit(
        engine,
        lambda s: chunks.reference(s, OWNERS[0], HASH_IDS[0], ROOTS[0], NAMES[:2], object_hash=OBJECT),
        lambda s: chunks.keep(s, bodies_of(NAMES[:2]), None, now=NOW),
    )
    commit(engine, lambda s: chunks.quarantine(s, NAMES[0], found_hash=OBJECT, now=NOW))
    with engine.snapshot() as snapshot:
        assert chunks.missing(snapshot, NAMES[:2]) == (NAMES[0],)
        assert list(chunks.quarantined(snapshot)) == [(NAMES[0], NOW)]
        assert chunks.owner_bytes(snapshot, OWNERS[0]) == len(BODIES[1])
    commit(engine, lambda s: chunks.keep(s, bodies_of(NAMES[:1]), None, now=NOW))
    with engine.snapshot() as snapshot:
        assert chunks.missing(snapshot, NAMES[:2]) == ()
        assert list(chunks.quarantined(snapshot)) == []
        assert chunks.owner_bytes(snapshot, OWNERS[0]) == len(BODIES[0]) + len(BODIES[1])
