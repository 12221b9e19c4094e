"""A record on its way in: read, sealed, kept here and offered to its holders while it is read; published once all of it is on this disk.

Steps overlap. A pool thread seals the next piece while the last one is committed, and a sequence leaves for its holders as soon as it is
full, from memory, under an offer. The statement is signed when everything is on this disk; holders that have the sequences already
then only turn their holds into receipts. A record of at most SMALL_BYTES_MAX, of MEDIUM_BYTES_MAX when many come, skips all that: it is
sealed, kept and published in one go together with others that come at the same time (groups), and travels in a bundle.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import trio

from protocols.crypto import FORMAT, SUITE
from protocols.errors import LadingError
from protocols.exchange.machine import MEDIUM_BYTES_MAX, SMALL_BYTES_MAX
from protocols.files.builder import FinishedRecord, RecordBuilder, SealedChunk
from protocols.files.entries import Attributes, colliding_paths
from protocols.files.keys import RecordClass
from protocols.files.objects import Offer, Statement, sign_offer, sign_statement
from protocols.files.precedence import Next, next_after
from protocols.files.sequences import MANIFEST_SEQUENCE, SequenceDescriptor, sequence_paths, sequence_root
from protocols.gossip.facts import FactKind
from protocols.ledger.filing import Intent
from protocols.limits import CHUNKS_PER_SEQUENCE, OFFER_LIFETIME_S, RECEIPT_ITEMS_MAX
from protocols.signed import Signed
from protocols.types import ChunkName, Digest, HashId, OwnerKey, PeerId, SequenceRoot, UnixSeconds

from ..clock import Clock
from ..entropy import Entropy
from ..offload import Offload, SharedTrips
from ..own import MemberKeys, OwnKeys
from ..sources import READ_BYTES, FileReader, SourceItem, scan, scan_few
from .groups import Groups, Member
from .holdings import SEQUENCES_PER_ADOPTION, HeldSequence, Holdings, TakenRecord, TakenResult
from .knowledge import Knowledge, RecordFacts
from .replication import Replication, Shipment, SmallRecord
from .storage import RECORDS_COMMIT_BYTES

EPOCH = 0  # rotated with grants, in a later version; derivations carry it from the first record on
STEP_BYTES = 4 * 1024 * 1024  # read, hashed and sealed in one turn of a pool thread, and committed together
STEPS_PER_TRIP_MAX = 8
SEALING_TRIPS_MAX = 2
# Large ones, each with its pieces in memory; more wait.
PUTS_AT_ONCE_MAX = 64
# Sealed, kept and sent from memory, which groups bound. More wait, and have read nothing yet.
SMALL_AT_ONCE_MAX = 96
# A record of more entries takes its time, however small they are, and goes alone.
SMALL_ENTRIES_MAX = 64
# Of one put: the next is sealed while one waits for the disk.
COMMITS_AT_ONCE_MAX = 2
# With more puts than that at once the processor is the limit, not the wait: the end of a record then goes by its statement, which costs
# its holder one commit and one signature less than an offer that is confirmed.
OVERLAPPING_PUTS_MAX = 4
# Of all puts together, each in memory: 32 MiB.
SEQUENCES_SHIPPING_MAX = 8

Progress = Callable[[Mapping[str, object]], None]


@dataclass
class PutOptions:
    """What `put` was asked for. replicas: copies wanted, 0 = as the profile says. valid_until_s: 0 = without end. intent: what its anchor
    shall say, None for a new record of its own. wait_final: the answer waits until it is final on the ledger."""

    replicas: int = 0
    ack: str = "quorum"
    record_class: RecordClass = RecordClass.DEDUP
    tags: tuple[tuple[str, str], ...] = ()
    valid_until_s: int = 0
    intent: Intent | None = None
    wait_final: bool = False


@dataclass(frozen=True)
class Put:
    """A record that exists. sealed_bytes: of its content, without the manifest. chunks_new, bytes_new: of that, what was not on this disk
    before. local_at: when it was published here, monotonic seconds."""

    facts: RecordFacts
    statement: Statement
    entry_count: int
    content_bytes: int
    sealed_bytes: int
    already_stored: bool
    chunks_new: int
    bytes_new: int
    local_at: float
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Step:
    """What one turn brought: sealed chunks, plain bytes read, and with the last turn the record."""

    sealed: list[SealedChunk] = field(default_factory=list)
    taken: int = 0
    record: FinishedRecord | None = None


@dataclass(frozen=True, slots=True, eq=False)
class _Small:
    """A small record that is sealed and stated, and not published yet."""

    one: _OnePut
    pump: _Pump
    record: FinishedRecord
    signed: Signed
    statement: Statement
    taken: TakenRecord
    shipped: SmallRecord

    @property
    def key(self) -> tuple[OwnerKey, HashId]:
        return self.statement.owner, self.statement.hash_id


_Kept = tuple[Put, Sequence[Shipment]]
"""A small record that is published, and what of it is on its way."""


class _Pump:
    """Reads sources and feeds the builder, a step at a time, in a pool thread: the first step looks for them, the last one finishes
    the record, so that a small one takes one trip."""

    def __init__(self, builder: RecordBuilder, paths: Sequence[Path]) -> None:
        self._builder = builder
        self._paths = paths
        self._items: Iterator[SourceItem] | None = None
        self._reader: FileReader | None = None
        self.colliding: list[tuple[str, str]] = []
        self.bytes_total = 0

    def looks_small(self, bytes_max: int) -> bool:
        """By the number of its sources and what they say of their sizes. Looks at no more of them than a small record has."""
        if self._items is None:
            items = scan_few(self._paths, SMALL_ENTRIES_MAX)
            if items is None:
                return False
            self._begin(items)
        return self.bytes_total <= bytes_max

    def _begin(self, items: Sequence[SourceItem]) -> Iterator[SourceItem]:
        self.colliding = list(colliding_paths(item.path for item in items))
        self.bytes_total = sum(item.size for item in items)
        self._items = iter(items)
        return self._items

    def step(self, bytes_max: int = STEP_BYTES) -> _Step:
        """bytes_max: after so many plain bytes it is over, more or less."""
        items = self._items
        if items is None:
            items = self._begin(scan(self._paths))
        sealed, taken, is_read = self._read(items, bytes_max)
        if not is_read:
            return _Step(sealed, taken)
        record = self._builder.finish()
        return _Step([*sealed, *record.last_chunks], taken, record)

    def _read(self, items: Iterator[SourceItem], bytes_max: int) -> tuple[list[SealedChunk], int, bool]:
        sealed: list[SealedChunk] = []
        taken = 0
        while taken < bytes_max:
            if self._reader is None:
                item = next(items, None)
                if item is None:
                    return sealed, taken, True
                attributes = Attributes(modified_ns=item.mtime_s * 1_000_000_000)
                self._builder.begin_entry(item.path, item.kind, item.executable, item.target, attributes)  # type: ignore[arg-type]
                if item.location is None:
                    sealed += self._builder.end_entry()
                    continue
                self._reader = FileReader(item.location)
            data = self._reader.read(READ_BYTES)
            if data:
                taken += len(data)
                sealed += self._builder.feed(data)
            else:
                self._reader.close()
                self._reader = None
                sealed += self._builder.end_entry()
        return sealed, taken, False

    def close(self) -> None:
        if self._reader is not None:
            self._reader.close()
            self._reader = None


class Puts:
    """What all puts of a node share."""

    def __init__(
        self,
        own: OwnKeys,
        knowledge: Callable[[], Knowledge],
        holdings: Holdings,
        replication: Replication,
        clock: Clock,
        entropy: Entropy,
        offload: Offload,
        *,
        note_entries: Callable[[Digest, int], None],
    ) -> None:
        """note_entries: told how many entries the record of a statement has, before that is kept."""
        self.note_entries = note_entries
        self.own = own
        self.knowledge = knowledge
        self.holdings = holdings
        self.replication = replication
        self.clock = clock
        self.entropy = entropy
        self.offload = offload
        self.sealing = SharedTrips(offload, calls_max=STEPS_PER_TRIP_MAX, trips_max=SEALING_TRIPS_MAX, given=lambda: nullcontext(()))
        self.shipping = trio.CapacityLimiter(SEQUENCES_SHIPPING_MAX)
        self.under_way = 0
        self.groups: Groups[_Small, _Kept] = Groups(offload, self._keep_together, size=lambda small: small.taken.body_bytes)
        self.small = trio.CapacityLimiter(SMALL_AT_ONCE_MAX)
        self.large = trio.CapacityLimiter(PUTS_AT_ONCE_MAX)
        self._publishing: dict[HashId, trio.Lock] = {}
        self.intend: Callable[[Sequence[tuple[HashId, Intent]]], Awaitable[None]] | None = None
        """Keeps what a record's anchor shall say, in nodes that follow a chain."""

    async def put(
        self,
        member: MemberKeys,
        paths: Sequence[Path],
        body: AsyncIterator[bytes] | None,
        name: str,
        options: PutOptions,
        progress: Progress,
    ) -> Put:
        """Publishes a record and has its copies made, as far as holders answer. What fails before it is published leaves nothing
        visible. body: the one entry ``name``; else the files under ``paths``."""
        self.under_way += 1
        try:
            return await _OnePut(self, member, options, progress).run(paths, body, name)
        except BaseExceptionGroup as group:
            # Steps that run side by side fail side by side, of one cause more often than not: the first one tells it.
            raise first_of(group) from group
        finally:
            self.under_way -= 1

    def now(self) -> UnixSeconds:
        return UnixSeconds(int(self.clock.now()))

    @asynccontextmanager
    async def publishing(self, hash_id: HashId) -> AsyncIterator[None]:
        """One publication of a record at a time: two would each bring a manifest for the same place."""
        lock = self._publishing.setdefault(hash_id, trio.Lock())
        try:
            async with lock:
                yield
        finally:
            if not lock.locked():
                self._publishing.pop(hash_id, None)

    async def _keep_together(self, sealed: Sequence[tuple[Member[_Small, _Kept], _Small]]) -> None:
        """Records that are new here are kept in as few commits as they fit in, and leave together; the others have to go alone."""
        locks: dict[HashId, trio.Lock] = {}
        todo: list[tuple[Member[_Small, _Kept], _Small]] = []
        try:
            for member, small in sealed:
                hash_id = small.statement.hash_id
                if small.key in self.knowledge().records or hash_id in self._publishing:
                    member.give(None)
                    continue
                self._publishing[hash_id] = locks[hash_id] = trio.Lock()
                locks[hash_id].acquire_nowait()
                todo.append((member, small))
                self.replication.learn_roots(small.statement, small.record.sequence_roots)
                self.note_entries(small.signed.object_hash, small.record.entry_count)
            for part in _parts(todo):
                kept: Sequence[TakenResult | LadingError]
                try:
                    await self.keep_intents([(small.statement.hash_id, small.one.intent) for _, small in part])
                    kept = await self.holdings.adopt_new(tuple(small.taken for _, small in part))
                except LadingError as error:
                    kept = [error] * len(part)
                for (member, small), result in zip(part, kept, strict=True):
                    if isinstance(result, LadingError):
                        member.fail(result)
                    else:
                        member.give((small.one.published(small, result), self._leave(member, small)))
        finally:
            for hash_id, lock in locks.items():
                lock.release()
                if not lock.locked():
                    self._publishing.pop(hash_id, None)

    async def keep_intents(self, intents: Iterable[tuple[HashId, Intent | None]]) -> None:
        """What anchors shall say besides statements is durable before the records exist."""
        wanted = [(hash_id, intent) for hash_id, intent in intents if intent is not None]
        if wanted and self.intend is not None:
            await self.intend(wanted)

    def _leave(self, member: Member[_Small, _Kept], small: _Small) -> Sequence[Shipment]:
        """Nobody waits for the copies of who has gone: repair makes them."""
        return self.replication.give_bundled(small.shipped) if small.one.leaves and member.is_wanted else ()

    def in_force(self, hash_id: HashId) -> Digest | None:
        """Our statement of a record, if one is in force."""
        facts = self.knowledge().records.get((self.own.owner, hash_id))
        return self.knowledge().verdict(facts).statement if facts is not None else None


class _OnePut:
    """One record under way."""

    def __init__(self, puts: Puts, member: MemberKeys, options: PutOptions, progress: Progress) -> None:
        self._puts = puts
        self._member = member
        self._options = options
        self._progress = progress
        entropy = puts.entropy
        self._builder = RecordBuilder(puts.own.owner, member.secrets, options.record_class, EPOCH, entropy.token(64), tags=options.tags)
        self._put_id = entropy.token(16)
        self._open: list[SealedChunk] = []
        """Chunks of the sequence that is being filled."""
        self._filled = 0
        self._shipped: dict[int, set[PeerId]] = {}
        self._committing = trio.CapacityLimiter(COMMITS_AT_ONCE_MAX)
        self._chunks_new = 0
        self._bytes_new = 0
        self._bytes_read = 0
        self._warnings: list[str] = []
        self._first: _Step | None = None
        """What a thread made of a record that looked small."""

    @property
    def intent(self) -> Intent | None:
        """What its anchor shall say."""
        return self._options.intent

    @property
    def leaves(self) -> bool:
        """Whether its copies are made before it is answered."""
        return self._options.ack != "local"

    async def run(self, paths: Sequence[Path], body: AsyncIterator[bytes] | None, name: str) -> Put:
        pump = _Pump(self._builder, paths)
        try:
            if body is not None:  # it takes as long as its sender likes, and keeps nobody waiting meanwhile
                return await self._run_alone(pump, body, name)
            async with self._puts.small:
                now, knowledge = self._puts.now(), self._puts.knowledge()
                bytes_max = self._bundled_bytes_max
                kept = await self._puts.groups.join(lambda: self._seal_small(pump, knowledge, now, bytes_max), self._see_off)
                if kept is not None:
                    return kept[0]
            async with self._puts.large:
                return await self._run_alone(pump, None, name)
        finally:
            pump.close()

    async def _see_off(self, kept: _Kept) -> None:
        await self._puts.replication.see_off(kept[1])

    @property
    def _bundled_bytes_max(self) -> int:
        """A medium one that comes alone is quicker when it is sent while it is committed here."""
        return MEDIUM_BYTES_MAX if self._puts.under_way > OVERLAPPING_PUTS_MAX else SMALL_BYTES_MAX

    def _seal_small(self, pump: _Pump, knowledge: Knowledge, now: UnixSeconds, bytes_max: int) -> _Small | None:
        """In a thread. None: it has more than ``bytes_max`` bytes sealed, or this node knows it already."""
        if not pump.looks_small(bytes_max):
            return None
        step = self._first = pump.step(bytes_max + 1)
        self._bytes_read += step.taken
        record = step.record
        if record is None or record.sealed_bytes > bytes_max:
            return None
        if (self._puts.own.owner, record.hash_id) in knowledge.records:
            return None
        signed, statement, sequences = self._state(record, next_after(()), now)
        bodies = _bodies(record, step.sealed)
        fact = knowledge.made_here(FactKind.STATEMENT, signed, statement)
        taken = TakenRecord(statement, signed.object_hash, tuple(sequences), tuple(bodies.items()), fact)
        return _Small(self, pump, record, signed, statement, taken, SmallRecord(signed, statement, sequences, bodies))

    def published(self, small: _Small, kept: TakenResult) -> Put:
        """What is said of a small record that was kept just now."""
        self._warn_of(small.pump)
        self._count((kept.chunks_new, kept.bytes_new))
        self._count((-len(small.record.manifest_chunks), -_manifest_bytes(small.record)))
        return self._result(small.record, small.statement)

    async def _run_alone(self, pump: _Pump, body: AsyncIterator[bytes] | None, name: str) -> Put:
        step = self._first or (await self._step(pump) if body is None else None)
        if step is not None and step.record is not None and step.record.sealed_bytes <= self._bundled_bytes_max:
            self._warn_of(pump)
            return await self._put_small(step.record, step.sealed)
        async with trio.open_nursery() as self._ways:
            async with trio.open_nursery() as self._commits:
                record, last = await (self._receive(body, name) if body is not None else self._read(pump, step or _Step()))
            # All but ``last`` is on this disk.
            async with self._puts.publishing(record.hash_id):
                if (known := self._known(record)) is not None:
                    await self._puts.holdings.release_put(self._put_id)
                    return known
                signed, statement, sequences = self._state_now(record)
                bodies = _bodies(record, last)
                if self.leaves and self._puts.under_way <= OVERLAPPING_PUTS_MAX:
                    await self._ship_last(last, sequences, bodies)
                await self._adopt(signed, statement, sequences, bodies, record)
                result = self._result(record, statement)
            self._progress({"phase": "waiting for holders", "waiting_for": "sequences under way"})
        if self.leaves:
            await self._puts.replication.ship_by_statement(signed, statement, sequences, self._shipped, bodies)
        return result

    async def _put_small(self, record: FinishedRecord, last: Sequence[SealedChunk]) -> Put:
        async with self._puts.publishing(record.hash_id):
            if (known := self._known(record)) is not None:
                return known
            signed, statement, sequences = self._state_now(record)
            bodies = _bodies(record, last)
            await self._adopt(signed, statement, sequences, bodies, record)
            result = self._result(record, statement)
        if self.leaves:
            replication = self._puts.replication
            await replication.see_off(replication.give_bundled(SmallRecord(signed, statement, sequences, bodies)))
        return result

    def _known(self, record: FinishedRecord) -> Put | None:
        """The record when it is published already."""
        existing = self._puts.in_force(record.hash_id)
        if existing is None:
            return None
        self._warnings.append("already stored: nothing was sent")
        facts = self._puts.knowledge().records[(self._puts.own.owner, record.hash_id)]
        return self._result(record, facts.statement(existing)[1], already_stored=True)

    def _result(self, record: FinishedRecord, statement: Statement, *, already_stored: bool = False) -> Put:
        return Put(
            facts=self._puts.knowledge().records[(statement.owner, statement.hash_id)],
            statement=statement,
            entry_count=record.entry_count,
            content_bytes=record.content_bytes,
            sealed_bytes=record.sealed_bytes - _manifest_bytes(record),
            already_stored=already_stored,
            chunks_new=self._chunks_new,
            bytes_new=self._bytes_new,
            local_at=self._puts.clock.monotonic(),
            warnings=tuple(self._warnings),
        )

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _step(self, pump: _Pump) -> _Step:
        step = await self._puts.sealing.run(pump.step)
        self._bytes_read += step.taken
        return step

    async def _read(self, pump: _Pump, step: _Step) -> tuple[FinishedRecord, list[SealedChunk]]:
        """The record, and those of its data chunks that were not given to the disk yet. step: the first."""
        while step.record is None:
            await self._keep(step.sealed)
            self._tell(pump.bytes_total)
            step = await self._step(pump)
        self._warn_of(pump)
        return step.record, step.sealed

    def _warn_of(self, pump: _Pump) -> None:
        """Once, before the record is published."""
        for first, second in pump.colliding:
            self._warnings.append(f"{first!r} and {second!r} differ only by case or Unicode form: some systems cannot keep both")

    async def _receive(self, body: AsyncIterator[bytes], name: str) -> tuple[FinishedRecord, list[SealedChunk]]:
        self._builder.begin_entry(name, "file")
        async for piece in body:
            self._bytes_read += len(piece)
            await self._keep(await self._puts.offload.run(self._builder.feed, piece))
            self._tell()
        sealed = self._builder.end_entry()
        record = await self._puts.offload.run(self._builder.finish)
        return record, [*sealed, *record.last_chunks]

    def _tell(self, bytes_total: int | None = None) -> None:
        total = {} if bytes_total is None else {"bytes_total": bytes_total}
        self._progress({"phase": "sealing", "bytes": self._bytes_read, "sequences": self._filled, **total})

    # --- keeping ----------------------------------------------------------------------------------------------------

    async def _keep(self, sealed: Sequence[SealedChunk]) -> None:
        """Gives chunks to the disk and full sequences to their holders; waits while enough of both is on its way."""
        if not sealed:
            return
        self._open += sealed
        while len(self._open) >= CHUNKS_PER_SEQUENCE:
            full, self._open = self._open[:CHUNKS_PER_SEQUENCE], self._open[CHUNKS_PER_SEQUENCE:]
            self._filled += 1
            if self.leaves:
                names = tuple(chunk.name for chunk in full)
                sequence = HeldSequence(self._filled, sequence_root(names), names, tuple(len(chunk.sealed) for chunk in full), ())
                await self._send(sequence, {chunk.name: chunk.sealed for chunk in full})
        turn = object()
        await self._committing.acquire_on_behalf_of(turn)
        self._commits.start_soon(self._commit, [(chunk.name, chunk.sealed) for chunk in sealed], turn)

    async def _commit(self, bodies: Sequence[tuple[ChunkName, bytes]], turn: object) -> None:
        try:
            self._count(await self._puts.holdings.keep_chunks(self._put_id, self._puts.now() + OFFER_LIFETIME_S, bodies))
        finally:
            self._committing.release_on_behalf_of(turn)

    def _count(self, new: tuple[int, int]) -> None:
        self._chunks_new += new[0]
        self._bytes_new += new[1]

    async def _adopt(
        self,
        signed: Signed,
        statement: Statement,
        sequences: Sequence[HeldSequence],
        bodies: Mapping[ChunkName, bytes],
        record: FinishedRecord,
    ) -> None:
        """From here on the record exists."""
        holdings = self._puts.holdings
        await self._puts.keep_intents([(statement.hash_id, self._options.intent)])
        self._puts.note_entries(signed.object_hash, record.entry_count)
        if len(sequences) > SEQUENCES_PER_ADOPTION:
            self._count(await holdings.keep_chunks(self._put_id, self._puts.now() + OFFER_LIFETIME_S, tuple(bodies.items())))
            await holdings.adopt(signed, statement, sequences, put_id=self._put_id)
        else:
            self._count(await holdings.adopt(signed, statement, sequences, put_id=self._put_id, bodies=bodies))
        # A manifest is new each time; what is counted is the content.
        self._count((-len(record.manifest_chunks), -_manifest_bytes(record)))

    def _state_now(self, record: FinishedRecord) -> tuple[Signed, Statement, list[HeldSequence]]:
        """The statement that follows what is known of the record here."""
        knowledge = self._puts.knowledge()
        stated = self._state(record, knowledge.next_after(knowledge.records.get((self._puts.own.owner, record.hash_id))), self._puts.now())
        self._puts.replication.learn_roots(stated[1], record.sequence_roots)
        return stated

    def _state(self, record: FinishedRecord, following: Next, now: UnixSeconds) -> tuple[Signed, Statement, list[HeldSequence]]:
        """The statement of a record that is sealed, signed, and where its sequences stand under it. Looks at nothing that changes."""
        own = self._puts.own
        statement = record.statement(
            network=own.network_id,
            domain=own.domain_id,
            seq=following.seq,
            follows=following.follows,
            time_s=now,
            copies_wanted=self._options.replicas,
            valid_until_s=UnixSeconds(self._options.valid_until_s),
        )
        signed = sign_statement(statement, self._member.signing)
        paths = sequence_paths(record.sequence_roots)
        descriptors = (record.manifest_sequence, *record.sequences)
        return signed, statement, [_sequence(index, sequence, paths[index]) for index, sequence in enumerate(descriptors)]

    # --- sending ----------------------------------------------------------------------------------------------------

    async def _ship_last(self, last: Sequence[SealedChunk], sequences: Sequence[HeldSequence], bodies: Mapping[ChunkName, bytes]) -> None:
        """What is not on its way yet: full sequences of the last step, the last one, the manifest."""
        self._open += last
        there = {**bodies, **{chunk.name: chunk.sealed for chunk in self._open}}
        for sequence in (*sequences[self._filled + 1 :], sequences[MANIFEST_SEQUENCE]):
            await self._send(sequence, {name: there[name] for name in sequence.names})

    async def _send(self, sequence: HeldSequence, bodies: Mapping[ChunkName, bytes]) -> None:
        """Waiting here, not in a queue, is the back-pressure that keeps memory bounded."""
        turn = object()
        await self._puts.shipping.acquire_on_behalf_of(turn)
        self._ways.start_soon(self._ship, sequence, bodies, turn)

    async def _ship(self, sequence: HeldSequence, bodies: Mapping[ChunkName, bytes], turn: object) -> None:
        try:
            offer = self._offer(sequence)
            copies = self._options.replicas
            self._shipped[sequence.index] = await self._puts.replication.ship_by_offer(offer, sequence, bodies, copies=copies)
        finally:
            self._puts.shipping.release_on_behalf_of(turn)

    def _offer(self, sequence: HeldSequence) -> Signed:
        own, now = self._puts.own, self._puts.now()
        offer = Offer(
            format=FORMAT,
            suite=SUITE,
            network=own.network_id,
            domain=own.domain_id,
            owner=own.owner,
            put_id=self._put_id,
            sequence_root=SequenceRoot(sequence.root),
            chunk_names=sequence.names,
            sealed_bytes=sum(sequence.sizes),
            time_s=now,
            expires_s=UnixSeconds(now + OFFER_LIFETIME_S),
        )
        return sign_offer(offer, self._member.signing)


def _sequence(index: int, sequence: SequenceDescriptor, path: tuple[bytes, ...]) -> HeldSequence:
    return HeldSequence(index, sequence.root, tuple(ChunkName(name) for name in sequence.names), sequence.sizes, path)


def _parts(todo: Sequence[tuple[Member[_Small, _Kept], _Small]]) -> Iterable[list[tuple[Member[_Small, _Kept], _Small]]]:
    """In stretches that one commit and one receipt hold."""
    part: list[tuple[Member[_Small, _Kept], _Small]] = []
    size = sequences = 0
    for one in todo:
        taken = one[1].taken
        size += taken.body_bytes
        sequences += len(taken.sequences)
        if part and (size > RECORDS_COMMIT_BYTES or sequences > RECEIPT_ITEMS_MAX):
            yield part
            part, size, sequences = [], taken.body_bytes, len(taken.sequences)
        part.append(one)
    if part:
        yield part


def first_of(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first error of a group that has LadingErrors only, else the group."""
    error: BaseException = group
    if group.split(LadingError)[1] is None:
        while isinstance(error, BaseExceptionGroup):
            error = error.exceptions[0]
    return error


def _manifest_bytes(record: FinishedRecord) -> int:
    """Sealed."""
    return sum(len(chunk.sealed) for chunk in record.manifest_chunks)


def _bodies(record: FinishedRecord, last: Sequence[SealedChunk]) -> dict[ChunkName, bytes]:
    """Chunks that were not given to the disk yet, and the manifest's."""
    return {chunk.name: chunk.sealed for chunk in (*last, *record.manifest_chunks)}
