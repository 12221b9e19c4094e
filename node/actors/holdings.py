"""What this node holds: chunks under offers, sequences of records, and what it signs for them.

The actor takes sequences in batches: one commit of references, one signature for all receipts of the batch, one fact. It is the
serving side of the exchange conversation too.
"""

from __future__ import annotations

import contextlib
import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import trio

from protocols.codec import decode, encode
from protocols.crypto import FORMAT, SUITE, sha256
from protocols.errors import InvalidObject, LadingError, LocalError, Reason, StoreFull
from protocols.exchange import messages as m
from protocols.files.audit import Range, check_challenge
from protocols.files.audit import answer as audit_answer
from protocols.files.holdings import (
    ErasureReceipt,
    Hold,
    Receipt,
    ReceiptItem,
    Withdrawal,
    WithdrawnItem,
    sign_erasure,
    sign_hold,
    sign_receipt,
    sign_withdrawal,
)
from protocols.files.objects import Offer, Statement, Tombstone, check_offer_time, open_offer, open_statement, wraps_digest
from protocols.files.sequences import MANIFEST_SEQUENCE, check_sequence, sequence_count, sequence_root
from protocols.gossip.facts import FactKind
from protocols.limits import RECEIPT_BYTES_MAX, RECEIPT_ITEMS_MAX, RECEIPT_LIFETIME_S
from protocols.merkle import check_merkle_path
from protocols.signed import Signed
from protocols.types import ChunkName, Digest, HashId, OwnerKey, PeerId, RecordKey, SequenceRoot, StoreId, UnixSeconds
from storage import chunks, places
from storage.engine import Snapshot, Write
from storage.overlay import Overlay

from ..actor import Actor, Reply
from ..clock import Clock
from ..own import OwnKeys
from .exchange import Chunks
from .facts import FactsHandle
from .knowledge import Checked
from .storage import COMMIT_BYTES, StorageHandle

log = logging.getLogger(__name__)

TAKES_PER_BATCH_MAX = 256
# Of an encoded receipt, at most: all but its items, one item without its roots, one root.
RECEIPT_HEAD_BYTES, RECEIPT_ITEM_BYTES, RECEIPT_ROOT_BYTES = 256, 160, 34
COLLECT_STEP = 256
COLLECT_PAUSE_S = 0.05
COLLECT_INTERVAL_S = 30.0
SEQUENCES_PER_ADOPTION = 64
CONFIRM_WRAPS_MAX = 64
OPENED_STATEMENTS_MAX = 256
# A full question of 128 sequences of 16 chunks has 2,048; sequences may be longer, but claiming more than this would hold the writer.
CONFIRM_CHUNKS_MAX = 32 * 1024


@dataclass(frozen=True, slots=True)
class HeldSequence:
    """One sequence with where it stands. path: under the statement's chunks root, empty while there is no statement."""

    index: int
    root: bytes
    names: tuple[ChunkName, ...]
    sizes: tuple[int, ...]
    path: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class TakenRecord:
    """Sequences of one record that are to be kept. bodies: chunks that come with it; all others are on disk."""

    statement: Statement
    object_hash: Digest
    sequences: tuple[HeldSequence, ...]
    bodies: tuple[tuple[ChunkName, bytes], ...] = ()
    fact: Checked | None = None
    """The statement, made a fact together with the receipt; None: it is one already."""
    release: tuple[bytes, ...] = ()
    """Protections of ours that end with this."""

    @property
    def key(self) -> RecordKey:
        return self.statement.owner, self.statement.hash_id

    @property
    def body_bytes(self) -> int:
        return sum(len(body) for _, body in self.bodies)


@dataclass(frozen=True, slots=True)
class TakenResult:
    """What became of one record. receipt: covers all its sequences. chunks_new, bytes_new: of its bodies, what was not here before."""

    receipt: Signed
    chunks_new: int = 0
    bytes_new: int = 0


@dataclass(frozen=True, slots=True)
class Take:
    """Keep these records; answer for each. source: who brought their statements, None: we made them."""

    records: tuple[TakenRecord, ...]
    reply: Reply[list[TakenResult | LadingError]]
    source: PeerId | None = None


class Holdings(Actor[Take]):
    """See the module. Also implements the exchange's ExchangeHost."""

    def __init__(
        self,
        own: OwnKeys,
        facts: FactsHandle,
        store: StorageHandle,
        clock: Clock,
        *,
        store_id: StoreId,
        generation: int,
        quota_bytes: int,
        trash_window_s: float,
    ) -> None:
        super().__init__("holdings", capacity=1024, batch_max=TAKES_PER_BATCH_MAX)
        self.store_id = store_id
        self.generation = generation
        self.read_only: str = ""
        """Why nothing new is taken; empty: there is room."""
        self.is_frozen = False
        """The disk takes no write at all: nothing can be let go of either."""
        self._own = own
        self._facts = facts
        self._store = store
        self._clock = clock
        self._quota_bytes = quota_bytes
        self._trash_window_s = trash_window_s
        self._batch: list[Take] = []
        self._counter = 0
        self._signing = trio.Lock()
        self._is_reconciled = False
        self._protections: dict[bytes, list[bytes]] = {}
        self._opened: OrderedDict[Signed, Statement] = OrderedDict()
        """Statements whose signature was checked: a request shows the same one at every step, and each sequence again."""
        self._withheld: set[tuple[RecordKey, bytes]] = set()
        """Sequences for which no receipt may be signed: a surplus copy is about to be dropped."""
        self.taken_at = float("-inf")
        """When sequences were last taken, monotonic seconds."""
        self._arriving: set[Digest] = set()
        """Statements that sequences refer to already, or will in a moment, and that are no facts yet."""

    def _now(self) -> UnixSeconds:
        return UnixSeconds(int(self._clock.now()))

    async def load(self) -> None:
        await self._facts.loaded()
        self._counter = max(self._counter, self._facts.knowledge.last_counter(self._own.peer_id))
        if not self._is_reconciled:
            await self._reconcile()
            self._is_reconciled = True

    async def _reconcile(self) -> None:
        """References without a statement go: a kill came between the commits of the two environments. Only when the node starts, before
        anything is taken: later on a reference may wait for its statement."""
        for key, root, object_hash, in_trash in await self.all_held():
            facts = self._facts.knowledge.records.get(key)
            if not in_trash and (facts is None or not facts.objects):
                log.info("sequence without a statement dropped root=%s statement=%s", root.hex()[:8], object_hash.hex()[:8])
                try:
                    await self.drop(key, root)
                except StoreFull as error:  # it harms nobody until the next start
                    log.warning("not dropped root=%s error=%s", root.hex()[:8], error)

    @property
    def counter(self) -> int:
        """The last counter given; rises over restarts."""
        return max(self._counter, int(self._clock.now() * 1000))

    def _next_counter(self) -> int:
        # Above whatever others remember of this store, also when our own database was restored from an old copy: milliseconds
        # of the clock never come again, and a clock that stands still is helped by the + 1.
        self._counter = max(self._counter + 1, int(self._clock.now() * 1000))
        return self._counter

    # --- taking -----------------------------------------------------------------------------------------------------

    def handle(self, message: Take) -> None:
        self._batch.append(message)

    async def keep(self) -> None:
        batch, self._batch = self._batch, []
        start = 0
        while start < len(batch):
            size, end = 0, start
            while end < len(batch) and (end == start or size + _body_bytes(batch[end]) <= COMMIT_BYTES):
                size += _body_bytes(batch[end])
                end += 1
            await self._keep_group(batch[start:end])
            start = end

    async def _keep_group(self, takes: Sequence[Take]) -> None:
        """Each group is answered for itself: the ones before it are durable, whatever becomes of this one."""
        try:
            await self._keep_some(takes)
        except LocalError:
            raise
        except LadingError as error:
            log.error("sequences not taken error=%s", error)
            for take in takes:
                self.refuse(take.reply, error)

    async def _keep_some(self, takes: Sequence[Take]) -> None:
        """One commit of chunks and references, then one of facts."""
        self.taken_at = self._clock.monotonic()
        records = [record for take in takes for record in take.records]
        sources = [take.source for take in takes for _ in take.records]

        def commit(snapshot: Snapshot) -> tuple[Sequence[Write], list[tuple[int, int] | LadingError]]:
            overlay = Overlay(snapshot)
            found: list[tuple[int, int] | LadingError] = []
            for record in records:
                try:
                    found.append(self._keep_one(overlay, record))
                except LadingError as error:
                    found.append(error)
            return overlay.writes, found

        arriving = {record.object_hash for record in records if record.fact is not None}
        self._arriving |= arriving
        try:
            found = await self._store.transact(commit)
            receipts = await self._receipts_for(records, sources, found)
        finally:
            self._arriving -= arriving
        results = [one if isinstance(one, LadingError) else TakenResult(receipts[number], *one) for number, one in enumerate(found)]
        for take in takes:
            self.answer(take.reply, results[: len(take.records)])
            del results[: len(take.records)]

    async def _receipts_for(
        self,
        records: Sequence[TakenRecord],
        sources: Sequence[PeerId | None],
        found: Sequence[tuple[int, int] | LadingError],
    ) -> dict[int, Signed]:
        """Receipts for those that were kept, by their number."""
        kept = [number for number, one in enumerate(found) if not isinstance(one, LadingError)]
        receipts: dict[int, Signed] = {}
        for group in _groups([len(records[number].sequences) for number in kept]):
            numbers = [kept[at] for at in group]
            receipt = await self._receipt_for([(records[number], sources[number]) for number in numbers])
            receipts.update(dict.fromkeys(numbers, receipt))
        return receipts

    def _keep_one(self, overlay: Overlay, record: TakenRecord) -> tuple[int, int]:
        """All of one record into the batch, or nothing: (chunks, bytes) that were not here. Raises LadingError(QUOTA | INTEGRITY)."""
        owner = record.statement.owner
        coming = {name: len(body) for name, body in record.bodies}
        overlay.add(_put_aside_changed(overlay, record.bodies, self._now()))
        new = chunks.missing(overlay, tuple(coming))
        for sequence in record.sequences:
            if any(name not in coming for name in chunks.missing(overlay, sequence.names)):
                raise InvalidObject(Reason.INTEGRITY, f"chunks of sequence {sequence.index} are missing")
        if owner != self._own.owner:
            self._check_quota(chunks.owner_bytes(overlay, owner), record.body_bytes)
        for sequence in record.sequences:
            overlay.add(_reference_writes(overlay, record.statement, record.object_hash, sequence))
            # A new promise ends the dropping of a surplus copy, which looks at this in the same thread (``drop_withheld``).
            self._withheld.discard((record.key, sequence.root))
        if new:  # after the references, which claim them
            overlay.add(chunks.keep(overlay, record.bodies, None, now=self._now()))
        for one in record.release:
            overlay.add(chunks.unprotect(overlay, owner, one))
        return len(new), sum(coming[name] for name in new)

    async def _take(self, record: TakenRecord, source: PeerId | None = None) -> TakenResult:
        """Raises LadingError."""
        (result,) = await self.take_all((record,), source)
        if isinstance(result, LadingError):
            raise result
        return result

    async def take_all(self, records: tuple[TakenRecord, ...], source: PeerId | None = None) -> list[TakenResult | LadingError]:
        """Keeps sequences of records and answers for each. At most RECORDS_COMMIT_BYTES of bodies, RECEIPT_ITEMS_MAX sequences."""
        return await self.mailbox.ask(lambda reply: Take(records, reply, source))

    async def _receipt_for(self, taken: Sequence[tuple[TakenRecord, PeerId | None]]) -> Signed:
        """One receipt for sequences that were committed just now, kept as a fact, with the statements that become facts by this.
        taken: with who brought each."""
        roots: dict[RecordKey, set[bytes]] = {}
        learned: dict[PeerId | None, list[Checked]] = {}
        for record, source in taken:
            roots.setdefault(record.key, set()).update(sequence.root for sequence in record.sequences)
            if record.fact is not None:
                learned.setdefault(source, []).append(record.fact)
        items = self._items(roots, {record.key: record for record, _ in taken})
        async with self._signing:
            return await self._sign(items, learned)

    def _items(self, roots: Mapping[RecordKey, set[bytes]], takes: Mapping[RecordKey, TakenRecord]) -> list[ReceiptItem]:
        """What a receipt says of these sequences. takes: of records that are not known as facts yet."""
        knowledge = self._facts.knowledge
        items: list[ReceiptItem] = []
        for (owner, hash_id), its_roots in sorted(roots.items()):
            facts = knowledge.records.get((owner, hash_id))
            newest = knowledge.verdict(facts).newest if facts is not None else None
            take = takes.get((owner, hash_id))
            if newest is None or (take is not None and take.fact is not None):
                assert take is not None
                seq, object_hash = take.statement.seq, take.object_hash
            else:
                seq, object_hash = newest.value.seq, newest.object_hash
            wraps = facts.wraps_digest() if facts is not None else _no_wraps()
            items.append(
                ReceiptItem(
                    owner=owner,
                    hash_id=hash_id,
                    seq=seq,
                    object_hash=object_hash,
                    wraps=wraps,
                    sequence_roots=tuple(sorted(SequenceRoot(root) for root in its_roots)),
                )
            )
        return items

    async def sign_again(self, key: RecordKey, roots: Collection[bytes]) -> None:
        """Renews our receipt for those of the sequences that are still held, and not on their way out: who asks may have looked
        a while ago. Withdrawals take the same lock before anything is dropped."""
        async with self._signing:
            facts = self._facts.knowledge.records.get(key)
            if facts is None or self._facts.knowledge.verdict(facts).statement is None:
                return

            def look(snapshot: Snapshot) -> set[bytes]:
                return {root for root in roots if _is_whole(chunks.sequence(snapshot, *key, SequenceRoot(root)), snapshot)}

            held = {root for root in await self._store.read(look) if (key, root) not in self._withheld}
            if held:
                await self._sign(self._items({key: held}, {}))

    async def _sign(self, items: Sequence[ReceiptItem], learned: Mapping[PeerId | None, Sequence[Checked]] | None = None) -> Signed:
        """With the lock held. learned: by who brought them, statements that become facts in the same commit."""
        now = self._now()
        receipt = Receipt(
            format=FORMAT,
            suite=SUITE,
            network=self._own.network_id,
            holder=self._own.peer_id,
            store_id=self.store_id,
            generation=self.generation,
            counter=self._next_counter(),
            from_s=now,
            until_s=UnixSeconds(now + RECEIPT_LIFETIME_S),
            items=tuple(items),
        )
        signed = sign_receipt(receipt, self._own.node)
        fact = self._facts.knowledge.made_here(FactKind.RECEIPT, signed, receipt)
        await self._facts.keep_checked_of(learned or {}, own=(fact,))
        return signed

    async def withdraw(self, key: RecordKey, roots: Sequence[bytes], *, still: Callable[[], bool] = lambda: True) -> None:
        """Says that these sequences are not, or soon not, held here any more. still: asked when nobody else signs, whether that is so."""
        if not roots:
            return
        async with self._signing:
            if not still():
                return
            withdrawal = Withdrawal(
                format=FORMAT,
                suite=SUITE,
                network=self._own.network_id,
                holder=self._own.peer_id,
                store_id=self.store_id,
                generation=self.generation,
                counter=self._next_counter(),
                time_s=self._now(),
                items=(WithdrawnItem(owner=key[0], hash_id=key[1], sequence_roots=tuple(sorted(SequenceRoot(r) for r in set(roots)))),),
            )
            await self._facts.submit_own((FactKind.WITHDRAWAL, encode(sign_withdrawal(withdrawal, self._own.node))))

    # --- our own records --------------------------------------------------------------------------------------------

    async def keep_chunks(self, put_id: bytes, expires: int, bodies: Sequence[tuple[ChunkName, bytes]]) -> tuple[int, int]:
        """Chunks of a put on this disk, protected until it is published. Result: how many were new, and their bytes."""
        if not bodies:
            return 0, 0
        batches = self._protections.setdefault(put_id, [])
        protection_id = put_id + len(batches).to_bytes(4, "big")
        batches.append(protection_id)
        protection = chunks.Protection(self._own.owner, protection_id, UnixSeconds(expires))
        now = self._now()

        def fn(snapshot: Snapshot) -> tuple[Sequence[Write], tuple[int, int]]:
            overlay = Overlay(snapshot)
            by_name = dict(bodies)
            overlay.add(_put_aside_changed(overlay, bodies, now))
            new = chunks.missing(overlay, tuple(by_name))
            overlay.add(chunks.keep(overlay, bodies, protection, now=now))
            return overlay.writes, (len(new), sum(len(by_name[name]) for name in new))

        return await self._store.transact(fn)

    async def adopt(
        self,
        signed: Signed,
        statement: Statement,
        sequences: Sequence[HeldSequence],
        *,
        put_id: bytes,
        bodies: Mapping[ChunkName, bytes] | None = None,
    ) -> tuple[int, int]:
        """The record exists: its sequences are referenced, then the statement and our receipt become facts, of many small records
        in one commit. bodies: of a small record, all its chunks. Result: (chunks, bytes) of the bodies that were not here before."""
        self._arriving.add(signed.object_hash)
        try:
            return await self._adopt(signed, statement, sequences, put_id, bodies or {})
        finally:
            self._arriving.discard(signed.object_hash)

    async def adopt_new(self, records: tuple[TakenRecord, ...]) -> list[TakenResult | LadingError]:
        """Small records of ours that are new, each with all its chunks and its fact: they exist when this returns, or the error of each
        says why not. At most RECORDS_COMMIT_BYTES of bodies, RECEIPT_ITEMS_MAX sequences. Raises LadingError when none was kept."""
        hashes = {record.object_hash for record in records}
        self._arriving |= hashes
        try:
            return await self.take_all(records)
        finally:
            self._arriving -= hashes

    async def _adopt(
        self,
        signed: Signed,
        statement: Statement,
        sequences: Sequence[HeldSequence],
        put_id: bytes,
        bodies: Mapping[ChunkName, bytes],
    ) -> tuple[int, int]:
        if len(sequences) <= SEQUENCES_PER_ADOPTION:
            ids = tuple(self._protections.pop(put_id, ()))
            fact = self._facts.knowledge.made_here(FactKind.STATEMENT, signed, statement)
            brought = tuple(bodies.items())
            taken = await self._take(TakenRecord(statement, signed.object_hash, tuple(sequences), brought, fact, ids))
            return taken.chunks_new, taken.bytes_new
        for start in range(0, len(sequences), SEQUENCES_PER_ADOPTION):
            part = sequences[start : start + SEQUENCES_PER_ADOPTION]

            def fn(snapshot: Snapshot, part: Sequence[HeldSequence] = part) -> tuple[Sequence[Write], None]:
                overlay = Overlay(snapshot)
                for sequence in part:
                    overlay.add(_reference_writes(overlay, statement, signed.object_hash, sequence))
                return overlay.writes, None

            await self._store.transact(fn)
        await self._facts.submit_own((FactKind.STATEMENT, encode(signed)))
        for start in range(0, len(sequences), RECEIPT_ITEMS_MAX):
            part = sequences[start : start + RECEIPT_ITEMS_MAX]
            await self._take(TakenRecord(statement, signed.object_hash, tuple(part)))
        await self.release_put(put_id)
        return 0, 0

    async def release_put(self, put_id: bytes) -> None:
        """The put is over: its protections go; what is referenced stays."""
        ids = self._protections.pop(put_id, [])

        def fn(snapshot: Snapshot) -> tuple[Sequence[Write], None]:
            overlay = Overlay(snapshot)
            for one in ids:
                overlay.add(chunks.unprotect(overlay, self._own.owner, one))
            return overlay.writes, None

        if ids:
            await self._store.transact(fn)

    async def bodies(self, names: Sequence[ChunkName]) -> list[bytes | None]:
        """Sealed bytes of chunks by name, hashed just now; None where there are none, or not what the name says."""
        return await self._store.read(lambda snapshot: [_sound(snapshot, name) for name in names])

    async def sequence_of(self, key: RecordKey, index: int) -> HeldSequence | None:
        """One sequence of a record as this node has kept it."""
        return await self._store.read(lambda snapshot: _held(snapshot, key, index))

    async def sequences_of(self, key: RecordKey) -> list[HeldSequence]:
        """All sequences of a record that this node keeps, by index."""

        return await self._store.read(lambda snapshot: _all_held(snapshot, key))

    async def sequences_of_many(self, keys: Sequence[RecordKey]) -> dict[RecordKey, list[HeldSequence]]:
        """All sequences of some records that this node keeps, by index."""

        def fn(snapshot: Snapshot) -> dict[RecordKey, list[HeldSequence]]:
            return {key: _all_held(snapshot, key) for key in keys}

        return await self._store.read(fn)

    async def all_held(self, only: Collection[RecordKey] | None = None) -> list[tuple[RecordKey, bytes, Digest, bool]]:
        """(record, sequence root, statement, in trash) of everything that this node refers to. only: of these records."""

        def fn(snapshot: Snapshot) -> list[tuple[RecordKey, bytes, Digest, bool]]:
            return [
                ((held.owner, held.hash_id), held.sequence_root, held.object_hash, held.trash_until is not None)
                for held in (
                    chunks.sequences(snapshot)
                    if only is None
                    else (one for owner, hash_id in sorted(only) for one in chunks.sequences(snapshot, owner=owner, hash_id=hash_id))
                )
            ]

        return await self._store.read(fn)

    # --- serving the exchange ---------------------------------------------------------------------------------------

    async def check_place(self, peer: PeerId, place: m.Place) -> tuple[int, ...]:
        """Indexes of the chunks that are missing here. Raises LadingError with the reason of a refusal."""
        if self.read_only:
            raise LadingError(Reason.FULL, self.read_only)
        names = tuple(ChunkName(name) for name in place.names)
        if sequence_root(names) != place.root:
            raise InvalidObject(Reason.INTEGRITY, "the chunk names are not those of the sequence root")
        owner = await self._authority(peer, place, names)
        size = sum(place.sizes)

        def fn(snapshot: Snapshot) -> tuple[list[int | None], int, dict[ChunkName, Digest]]:
            present = [chunks.sealed_bytes(snapshot, name) for name in names]
            return present, chunks.owner_bytes(snapshot, owner), _damaged(snapshot, names)

        present, held_bytes, damaged = await self._store.read(fn)
        # Those that come are measured when they come. What is passed on with a wrong size is refused by every honest holder.
        if any(here is not None and here != said for here, said in zip(present, place.sizes, strict=True)):
            raise InvalidObject(Reason.INTEGRITY, "a size is not that of the chunk")
        self._check_quota(held_bytes, size)
        # The answer to this will be signed: what is here counts when it was read back, and what has changed is asked for anew.
        if damaged:
            await self._put_aside(damaged)
        return tuple(index for index, here in enumerate(present) if here is None or names[index] in damaged)

    async def _put_aside(self, names: Collection[ChunkName]) -> None:
        now = self._now()
        await self._store.transact(lambda snapshot: (_put_aside(snapshot, names, now), None))

    def _check_quota(self, held_bytes: int, wanted_bytes: int) -> None:
        if held_bytes + wanted_bytes > self._quota_bytes:
            left = max(0, self._quota_bytes - held_bytes)
            raise LadingError(Reason.QUOTA, f"quota of this owner: {left} bytes left, {wanted_bytes} wanted")

    async def _authority(self, peer: PeerId, place: m.Place, names: tuple[ChunkName, ...]) -> OwnerKey:
        knowledge = self._facts.knowledge
        if isinstance(place.authority, m.ByOffer):
            offer = open_offer(place.authority.offer, self._own.network_id)
            check_offer_time(offer, self._now())
            if offer.sequence_root != place.root or offer.chunk_names != names:
                raise InvalidObject(Reason.INTEGRITY, "the offer is for another sequence")
            if not knowledge.is_known_owner(offer.owner):
                raise InvalidObject(Reason.NOT_MEMBER, "the offer's owner is no member that is known here")
            return offer.owner
        statement = self._open_statement(place.authority.statement)
        if place.authority.count != sequence_count(statement):
            raise InvalidObject(Reason.INTEGRITY, f"{place.authority.count} sequences, the statement says {sequence_count(statement)}")
        check_sequence(statement, place.authority.index, names, place.authority.path)
        await self._learn(peer, place.authority.statement, statement)
        return statement.owner

    def _open_statement(self, signed: Signed) -> Statement:
        """Raises InvalidObject, DecodeError."""
        statement = self._opened.get(signed)
        if statement is None:
            statement = self._opened[signed] = open_statement(signed, self._own.network_id)
            if len(self._opened) > OPENED_STATEMENTS_MAX:
                self._opened.popitem(last=False)
        return statement

    async def _learn(self, peer: PeerId, signed: Signed, statement: Statement) -> None:
        """Keeps the statement as a fact, and refuses what is deleted or out of force."""
        knowledge = self._facts.knowledge
        if not knowledge.is_known_owner(statement.owner):
            raise InvalidObject(Reason.NOT_MEMBER, "the statement's owner is no member that is known here")
        await self._facts.submit([(FactKind.STATEMENT, encode(signed))], peer)
        facts = knowledge.records.get((statement.owner, statement.hash_id))
        if facts is None or signed.object_hash not in facts.objects:
            raise self._facts.why_refused(FactKind.STATEMENT, encode(signed))
        self._check_in_force((statement.owner, statement.hash_id), signed.object_hash)

    def _check_in_force(self, key: RecordKey, object_hash: Digest) -> None:
        """Raises InvalidObject when the statement is no fact, out of force, or the record is not to be here."""
        knowledge = self._facts.knowledge
        facts = knowledge.records.get(key)
        if facts is None or object_hash not in facts.objects:
            raise InvalidObject(Reason.REFUSED, "the statement was not taken")
        verdict = knowledge.verdict(facts)
        if object_hash not in verdict.readable:
            if verdict.tombstone is not None:
                raise InvalidObject(Reason.DELETED, "its owner has deleted this record")
            raise InvalidObject(Reason.STALE, "a newer statement is in force")
        if self._own.peer_id in facts.pinned("out"):
            raise InvalidObject(Reason.PINNED_OUT, "the operator wants this record not to be held here")

    def _protection(self, place: m.Place) -> chunks.Protection:
        """Of a place that ``check_place`` has let in."""
        # Its bytes were checked then: decoding them again for every chunk costs less than a signature and a Merkle tree.
        if isinstance(place.authority, m.ByOffer):
            offer = decode(place.authority.offer.body, Offer)
            return chunks.Protection(offer.owner, b"offer" + place.root, offer.expires_s)
        statement = decode(place.authority.statement.body, Statement)
        return chunks.Protection(statement.owner, b"place" + place.root, UnixSeconds(self._now() + 3600))

    async def store(self, peer: PeerId, place: m.Place, index: int, name: bytes, data: bytes) -> None:
        """One chunk that hashes to its name. Durable when this returns."""
        protection = self._protection(place)
        names = tuple(ChunkName(one) for one in place.names)
        now = self._now()

        def fn(snapshot: Snapshot) -> tuple[Sequence[Write], None]:
            overlay = Overlay(snapshot)
            # The whole sequence at once: one protection value is written once, not once for each chunk.
            overlay.add(chunks.protect(overlay, protection, names))
            overlay.add(chunks.keep(overlay, [(ChunkName(name), data)], None, now=now))
            # Again, and here, since each of many places at once would have fitted alone.
            self._check_quota(chunks.owner_bytes(overlay, protection.owner), 0)
            return overlay.writes, None

        await self._store.transact(fn)

    async def commit(self, peer: PeerId, place: m.Place) -> Signed:
        """The whole sequence is on disk: a hold for an offer, a receipt for a statement."""
        names = tuple(ChunkName(name) for name in place.names)
        if isinstance(place.authority, m.ByOffer):
            offer = open_offer(place.authority.offer, self._own.network_id)
            protection = self._protection(place)

            def fn(snapshot: Snapshot) -> tuple[Sequence[Write], None]:
                overlay = Overlay(snapshot)
                overlay.add(chunks.protect(overlay, protection, names))
                overlay.add(places.put_offered(offer.owner, SequenceRoot(place.root), names, place.sizes, offer.expires_s))
                return overlay.writes, None

            await self._store.transact(fn)
            hold = Hold(
                format=FORMAT,
                suite=SUITE,
                network=self._own.network_id,
                offer=place.authority.offer.object_hash,
                sequence_root=SequenceRoot(place.root),
                holder=self._own.peer_id,
                store_id=self.store_id,
                generation=self.generation,
                until_s=offer.expires_s,
            )
            return sign_hold(hold, self._own.node)
        statement = self._open_statement(place.authority.statement)
        sequence = HeldSequence(place.authority.index, place.root, names, place.sizes, place.authority.path)
        object_hash = place.authority.statement.object_hash
        return (await self._take(TakenRecord(statement, object_hash, (sequence,)))).receipt

    async def load_chunks(self, root: bytes, indexes: tuple[int, ...]) -> Chunks:
        """Chunks of a sequence by root; None where there are none, or not what their names say: who sent those would be banned."""

        def fn(snapshot: Snapshot) -> Chunks:
            for owner, hash_id, _ in places.records_of_root(snapshot, SequenceRoot(root)):
                held = chunks.sequence(snapshot, owner, hash_id, SequenceRoot(root))
                if held is not None and held.trash_until is None:
                    return tuple((index, _sound(snapshot, held.names[index]) if index < len(held.names) else None) for index in indexes)
            return tuple((index, None) for index in indexes)

        return await self._store.read(fn)

    def withhold(self, key: RecordKey, root: bytes, *, on: bool) -> None:
        """While on, no receipt is signed for this sequence: its copy is about to be dropped (repair.SurplusDrop)."""
        if on:
            self._withheld.add((key, root))
        else:
            self._withheld.discard((key, root))

    async def confirm(self, peer: PeerId, message: m.Confirm) -> m.Confirmed:
        """Turns holds into receipts, as far as the chunks are here; for what is held already a receipt signed now."""
        statement = self._open_statement(message.statement)
        if message.count != sequence_count(statement) or len(message.items) > RECEIPT_ITEMS_MAX:
            raise InvalidObject(Reason.INTEGRITY, "another number of sequences than the statement says")
        if len({index for index, _, _ in message.items}) != len(message.items):
            raise InvalidObject(Reason.MALFORMED, "one sequence twice in a question")
        if len(message.wraps) > CONFIRM_WRAPS_MAX:
            raise InvalidObject(Reason.FLOOD, f"{len(message.wraps)} wraps at once, at most {CONFIRM_WRAPS_MAX} wanted")
        await self._learn(peer, message.statement, statement)
        if message.wraps:
            await self._facts.submit([(FactKind.WRAP, encode(wrap)) for wrap in message.wraps], peer)
        for index, root, path in message.items:
            check_merkle_path(statement.chunks_root, root, index=index, leaf_count=message.count, path=path)

        def fn(snapshot: Snapshot) -> tuple[list[HeldSequence], list[int]]:
            found: list[HeldSequence] = []
            missing: list[int] = []
            for index, root, path in message.items:
                offered = places.get_offered(snapshot, statement.owner, SequenceRoot(root))
                held = chunks.sequence(snapshot, statement.owner, statement.hash_id, SequenceRoot(root))
                if ((statement.owner, statement.hash_id), root) in self._withheld:
                    missing.append(index)
                elif offered is None and held is not None and held.trash_until is None:
                    # Read back and hashed: whoever asks may be about to drop his own copy, relying on ours.
                    if any(_sound(snapshot, name) is None for name in held.names):
                        missing.append(index)
                        continue
                    place = places.get_place(snapshot, statement.owner, statement.hash_id, index)
                    sizes = place.sizes if place is not None else ()
                    found.append(HeldSequence(index, root, held.names, sizes, path))
                elif offered is None or chunks.missing(snapshot, offered[0]):
                    missing.append(index)
                else:
                    found.append(HeldSequence(index, root, offered[0], offered[1], path))
            return found, missing

        found, missing = await self._store.read(fn)
        if sum(len(sequence.names) for sequence in found) > CONFIRM_CHUNKS_MAX:
            raise InvalidObject(Reason.FLOOD, f"more than {CONFIRM_CHUNKS_MAX} chunks in one question")
        receipt: Signed | None = None
        if found:
            object_hash = message.statement.object_hash
            receipt = (await self._take(TakenRecord(statement, object_hash, tuple(found)))).receipt
        return m.Confirmed(message.request, receipt, tuple(missing))

    async def bundle(self, peer: PeerId, message: m.Bundle) -> m.Bundled:
        """Small records, each with its statement and all chunks of some of its sequences."""
        if self.read_only:
            raise LadingError(Reason.FULL, self.read_only)
        now, time_max = self._now(), self._facts.time_max()
        # In a pool thread: signatures, hashes and trees of up to half a MiB of small records take some ten milliseconds.
        checked = await self._store.read(lambda _: [self._check_bundled(record, now, time_max) for record in message.records])
        refused: dict[int, LadingError] = {}
        taken: dict[int, TakenRecord] = {}
        for number, found in enumerate(checked):
            try:
                if isinstance(found, LadingError):
                    raise found
                taken[number] = await self._allowed(peer, found)
            except LadingError as error:
                refused[number] = error
        receipts: dict[Signed, None] = {}
        if taken:
            results = await self.take_all(tuple(taken.values()), peer)
            for number, result in zip(taken, results, strict=True):
                if isinstance(result, LadingError):
                    refused[number] = result
                else:
                    receipts[result.receipt] = None
        noes = tuple((number, error.reason.stable_name, error.message) for number, error in sorted(refused.items()))
        return m.Bundled(message.request, tuple(receipts), noes)

    def _check_bundled(self, record: m.BundledRecord, now: UnixSeconds, time_max: int | None) -> TakenRecord | LadingError:
        """In a thread: whether statement and chunks are what they say. The fact is set where the statement was not known."""
        knowledge = self._facts.knowledge
        try:
            statement = decode(record.statement.body, Statement)
            object_hash = record.statement.object_hash
            facts = knowledge.records.get((statement.owner, statement.hash_id))
            fact: Checked | None = None
            if facts is None or facts.objects.get(object_hash, (None,))[0] != record.statement:
                fact = knowledge.check(FactKind.STATEMENT, encode(record.statement), now=now, time_max=time_max)
            sequences: list[HeldSequence] = []
            bodies: dict[ChunkName, bytes] = {}
            for sequence in record.sequences:
                names = tuple(ChunkName(sha256(chunk)) for chunk in sequence.chunks)
                root = check_sequence(statement, sequence.index, names, sequence.path)
                sequences.append(HeldSequence(sequence.index, root, names, tuple(len(chunk) for chunk in sequence.chunks), sequence.path))
                bodies.update(zip(names, sequence.chunks, strict=True))
            return TakenRecord(statement, object_hash, tuple(sequences), tuple(bodies.items()), fact)
        except LadingError as error:
            return error

    async def _allowed(self, peer: PeerId, record: TakenRecord) -> TakenRecord:
        """The record if it may be kept. Its statement stays to become a fact with the receipt where nothing else is known of the
        record; else it becomes one now, so that it is judged with the rest. Raises LadingError."""
        knowledge = self._facts.knowledge
        facts = knowledge.records.get(record.key)
        if record.fact is not None:
            if not knowledge.has_room(record.fact):
                raise InvalidObject(Reason.REFUSED, "the statement was not taken")
            if facts is None or not (facts.objects or facts.pins):
                return record
            await self._facts.keep_checked_of({peer: (record.fact,)})
        self._check_in_force(record.key, record.object_hash)
        return replace(record, fact=None)

    async def describe(self, peer: PeerId, message: m.Describe) -> m.Described:
        """Names, sizes and place of one sequence. Raises LadingError(NOT_FOUND | DELETED)."""
        key = (OwnerKey(message.owner), HashId(message.hash_id))
        facts = self._facts.knowledge.records.get(key)
        if facts is not None and self._facts.knowledge.verdict(facts).tombstone is not None:
            raise LadingError(Reason.DELETED, "its owner has deleted this record")

        def look(snapshot: Snapshot) -> m.Described | None:
            held, place = _held(snapshot, key, message.index), places.get_place(snapshot, *key, message.index)
            if held is None or place is None:
                return None
            return m.Described(message.request, held.names, held.sizes, message.index, place.count, held.path)

        described = await self._store.read(look)
        if described is None:
            raise LadingError(Reason.NOT_FOUND, "this node does not hold that sequence")
        return described

    async def audit(self, peer: PeerId, message: m.Audit) -> bytes:
        """SHA-256(nonce | ranges) over chunks on this disk. Raises LadingError(NOT_FOUND | INTEGRITY)."""
        ranges = tuple(Range(name=name, offset=offset, length=length) for name, offset, length in message.ranges)
        check_challenge(message.nonce, ranges)

        def read_all(snapshot: Snapshot) -> bytes:
            def read(name: bytes, offset: int, length: int) -> bytes:
                body = chunks.get(snapshot, ChunkName(name))
                if body is None:
                    raise LadingError(Reason.NOT_FOUND, "this node does not hold that chunk")
                return body[offset : offset + length]

            return audit_answer(message.nonce, ranges, read)

        return await self._store.read(read_all)

    # --- letting go -------------------------------------------------------------------------------------------------

    async def drop(self, key: RecordKey, root: bytes) -> None:
        """Our copy of one sequence goes; the receipt was withdrawn before."""
        await self._store.transact(lambda snapshot: (chunks.release(snapshot, *key, SequenceRoot(root)), None))

    async def drop_withheld(self, key: RecordKey, root: bytes) -> bool:
        """Lets a surplus copy go, unless it was promised anew since no receipt may be signed for it. True: it went."""

        def fn(snapshot: Snapshot) -> tuple[Sequence[Write], bool]:
            if (key, root) not in self._withheld:
                return [], False
            return chunks.release(snapshot, *key, SequenceRoot(root)), True

        return await self._store.transact(fn)

    async def drop_replaced(self, key: RecordKey) -> bool:
        """Lets go of what a statement out of force has left behind where the one in force has something else: above all its manifest,
        whose root is another one at every publication. True when there was something.

        Other sequences of an old statement stay: they may be those of the new one, which this node has not been told."""
        is_placed = await self._place_manifest(key)
        held = await self._store.read(lambda snapshot: _replaced(snapshot, key))
        facts = self._facts.knowledge.records.get(key)
        if facts is None or not held:
            return is_placed
        # From here to the transaction nothing may wait: this is what the transaction compares with.
        verdict = self._facts.knowledge.verdict(facts)
        if verdict.statement is None:
            return is_placed
        _, statement = facts.statement(verdict.statement)
        alive = {*verdict.readable, *self._arriving}
        dead = [one for one, place in held if one.object_hash not in alive and not (place and _stands_under(statement, one, place))]
        if not dead:
            return is_placed
        counted = self._facts.knowledge.counting(facts, now=self._now())
        came_with = {one.object_hash for one in dead}
        for one in dead:
            await self._store.transact(
                lambda snapshot, root=one.sequence_root: (chunks.release(snapshot, *key, root, came_with=came_with), None)  # type: ignore[misc]
            )
        await self.withdraw(key, [one.sequence_root for one in dead if self._own.peer_id in counted.get(one.sequence_root, ())])
        log.info("sequences of an earlier publication dropped record=%s count=%d", key[1].hex()[:8], len(dead))
        return True

    async def _place_manifest(self, key: RecordKey) -> bool:
        """Two nodes of one owner may publish the same at once, each with its own manifest: that of the statement in force gets the place
        back which the other one has taken. True when it was so."""
        held = await self._store.read(lambda snapshot: _replaced(snapshot, key))
        facts = self._facts.knowledge.records.get(key)
        in_force = self._facts.knowledge.verdict(facts).statement if facts is not None else None
        standing = next(((one, place) for one, place in held if place is not None), None)
        if facts is None or in_force is None or standing is None:
            return False
        _, statement = facts.statement(in_force)
        one, place = standing
        if _stands_under(statement, one, place):
            return False
        # The path of a manifest is made of the other sequences, which are the same ones.
        ours = next((other for other, at in held if at is None and _stands_under(statement, other, place)), None)
        if ours is None:
            return False

        def fn(snapshot: Snapshot) -> tuple[Sequence[Write], bool]:
            sizes = [size for name in ours.names if (size := chunks.sealed_bytes(snapshot, name)) is not None]
            if places.get_place(snapshot, *key, MANIFEST_SEQUENCE) != place or len(sizes) < len(ours.names):
                return [], False
            return places.put_place(*key, MANIFEST_SEQUENCE, ours.sequence_root, tuple(sizes), place.count, place.path), True

        return await self._store.transact(fn)

    def _is_buried(self, key: RecordKey, object_hash: Digest) -> bool:
        """Whether this tombstone is in force still."""
        facts = self._facts.knowledge.records.get(key)
        tombstone = self._facts.knowledge.verdict(facts).tombstone if facts is not None else None
        return tombstone is not None and tombstone.object_hash == object_hash

    async def bury(self, key: RecordKey, tombstone: Tombstone, object_hash: Digest) -> None:
        """A tombstone is in force: withdraw, then move to trash (delete) or erase at once with an erasure receipt (erase).

        The record may be published anew while this waits: only what came with statements that the tombstone ended is touched."""
        held = await self._store.read(lambda snapshot: list(chunks.sequences(snapshot, owner=key[0], hash_id=key[1])))
        is_erase = tombstone.act == "erase"
        dead = [one for one in held if one.object_hash not in self._arriving and (is_erase or one.trash_until is None)]
        if not dead or not self._is_buried(key, object_hash):
            return
        came_with = {one.object_hash for one in dead}
        live = [one.sequence_root for one in dead if one.trash_until is None]
        await self.withdraw(key, live, still=lambda: self._is_buried(key, object_hash))
        if is_erase:
            await self._erase(key, object_hash, came_with)
            return
        until = UnixSeconds(int(self._now() + self._trash_window_s))
        while await self._store.transact(lambda snapshot: _counted(chunks.trash(snapshot, *key, until=until, came_with=came_with))):
            pass

    async def _erase(self, key: RecordKey, object_hash: Digest, came_with: Collection[Digest]) -> None:
        names, kept = await self._store.read(
            lambda snapshot: (
                {
                    name
                    for held in chunks.sequences(snapshot, owner=key[0], hash_id=key[1])
                    if held.object_hash in came_with
                    for name in held.names
                },
                chunks.shared_names(snapshot, *key),
            )
        )
        while await self._store.transact(lambda snapshot: _counted(chunks.erase(snapshot, *key, came_with=came_with))):
            pass
        if not self._is_buried(key, object_hash):
            return  # published anew: what is left is that, and nobody waits for a word about what went
        erasure = ErasureReceipt(
            format=FORMAT,
            suite=SUITE,
            network=self._own.network_id,
            holder=self._own.peer_id,
            store_id=self.store_id,
            owner=key[0],
            hash_id=key[1],
            tombstone=object_hash,
            chunks_erased=len(names) - len(set(kept) & names),
            chunks_kept=tuple(sorted(kept)),
            time_s=self._now(),
        )
        await self._facts.submit_own((FactKind.ERASURE, encode(sign_erasure(erasure, self._own.node))))

    async def bury_by_ledger(self, key: RecordKey) -> bool:
        """The ledger has erased a record: withdraw, then erase, what came with statements up to the erased one. True when there was any.

        Without the owner's tombstone, which an erasure receipt would name, the withdrawal is all that is signed."""
        knowledge = self._facts.knowledge
        held = await self._store.read(lambda snapshot: list(chunks.sequences(snapshot, owner=key[0], hash_id=key[1])))
        dead = [one for one in held if one.object_hash not in self._arriving and knowledge.is_erased(key, one.object_hash)]
        if not dead:
            return False
        came_with = {one.object_hash for one in dead}
        live = [one.sequence_root for one in dead if one.trash_until is None]
        await self.withdraw(key, live, still=lambda: all(knowledge.is_erased(key, one) for one in came_with))
        if all(knowledge.is_erased(key, one) for one in came_with):
            while await self._store.transact(lambda snapshot: _counted(chunks.erase(snapshot, *key, came_with=came_with))):
                pass
        return True

    async def restore(self, key: RecordKey) -> bool:
        """Takes a record's sequences out of trash. True when there were any."""
        some = False
        while await self._store.transact(lambda snapshot: _counted(chunks.restore_from_trash(snapshot, *key))):
            some = True
        return some

    async def collect_loop(self) -> None:
        """Takes away what nobody wants any more, in small steps with pauses between."""
        while True:
            now = self._now()
            try:
                more = 1
                while more:
                    more = await self._store.transact(lambda snapshot, now=now: _counted(chunks.collect(snapshot, now, COLLECT_STEP)))  # type: ignore[misc]
                    await trio.sleep(COLLECT_PAUSE_S)  # let others commit between two steps
                await self._store.transact(
                    lambda snapshot, now=now: (places.expired_offers(snapshot, now, limit=COLLECT_STEP), None)  # type: ignore[misc]
                )
            except LadingError as error:
                log.error("collection failed error=%s", error)
            await trio.sleep(COLLECT_INTERVAL_S)

    # --- checking ---------------------------------------------------------------------------------------------------

    async def verify_sequence(self, key: RecordKey, root: bytes) -> tuple[int, ...]:
        """Reads a sequence back and hashes it. Result: indexes of chunks that are missing or not what their names say; damaged ones
        are put aside, so that repair fetches them anew."""
        now = self._now()

        def look(snapshot: Snapshot) -> tuple[list[int], list[tuple[ChunkName, Digest]]]:
            held = chunks.sequence(snapshot, *key, SequenceRoot(root))
            bad: list[int] = []
            damaged: list[tuple[ChunkName, Digest]] = []
            for index, name in enumerate(held.names if held is not None else ()):
                body = chunks.get(snapshot, name)
                if body is None:
                    bad.append(index)
                elif bytes(found := sha256(body)) != bytes(name):
                    bad.append(index)
                    damaged.append((name, found))
            return bad, damaged

        bad, damaged = await self._store.read(look)
        # A disk that takes nothing keeps it as it is: it is found, and counts as missing, all the same.
        with contextlib.suppress(StoreFull):
            for name, found in damaged:
                await self._store.transact(
                    lambda snapshot, name=name, found=found: (chunks.quarantine(snapshot, name, found_hash=found, now=now), None)  # type: ignore[misc]
                )
        return tuple(bad)

    async def put_back(self, bodies: Sequence[tuple[ChunkName, bytes]]) -> None:
        """Chunks that a reference here wants and that were fetched anew."""
        now = self._now()
        await self._store.transact(lambda snapshot: (chunks.keep(snapshot, bodies, None, now=now), None))

    # The exchange asks for ``load``, which an actor needs for its own start.
    def as_host(self) -> HostView:
        return HostView(self)


class HostView:
    """The exchange's view of the holdings."""

    def __init__(self, holdings: Holdings) -> None:
        self.check_place = holdings.check_place
        self.store = holdings.store
        self.commit = holdings.commit
        self.load = holdings.load_chunks
        self.confirm = holdings.confirm
        self.bundle = holdings.bundle
        self.describe = holdings.describe
        self.audit = holdings.audit


def _counted(writes: Sequence[Write]) -> tuple[Sequence[Write], int]:
    return writes, len(writes)


def _sound(snapshot: Snapshot, name: ChunkName) -> bytes | None:
    """A body that was hashed just now; None when it is not here or has changed, which the scrub finds and repair heals."""
    body = chunks.get(snapshot, name)
    if body is not None and bytes(sha256(body)) != name:
        log.error("chunk damaged on this disk name=%s", name.hex()[:8])
        return None
    return body


def _body_bytes(take: Take) -> int:
    return sum(record.body_bytes for record in take.records)


def _damaged(snapshot: Snapshot, names: Sequence[ChunkName]) -> dict[ChunkName, Digest]:
    """Those of the chunks here that are not what their names say, with what they are."""
    found: dict[ChunkName, Digest] = {}
    for name in dict.fromkeys(names):
        body = chunks.get(snapshot, name)
        if body is not None and bytes(digest := sha256(body)) != bytes(name):
            found[name] = digest
    return found


def _put_aside_changed(snapshot: Snapshot, bodies: Sequence[tuple[ChunkName, bytes]], now: UnixSeconds) -> list[Write]:
    """A receipt will count what is here already: it is compared with the true bodies, and makes room for them where it has changed."""
    there = {name: chunks.get(snapshot, name) for name, _ in bodies}
    return _put_aside(snapshot, [name for name, body in dict(bodies).items() if there[name] not in (None, body)], now)


def _put_aside(snapshot: Snapshot, names: Collection[ChunkName], now: UnixSeconds) -> list[Write]:
    """Puts those in quarantine that are damaged in this snapshot too: another may have come meanwhile."""
    overlay = Overlay(snapshot)
    for name, found in _damaged(snapshot, tuple(names)).items():
        log.error("chunk damaged on this disk, asked for anew name=%s", name.hex()[:8])
        overlay.add(chunks.quarantine(overlay, name, found_hash=found, now=now))
    return overlay.writes


def _replaced(snapshot: Snapshot, key: RecordKey) -> list[tuple[chunks.HeldSequence, places.Place | None]]:
    """Sequences of a record that may be left over from an earlier publication: those in whose place another one stands (None), and
    the manifest that stands."""
    found: list[tuple[chunks.HeldSequence, places.Place | None]] = []
    manifest = places.get_place(snapshot, *key, MANIFEST_SEQUENCE)
    for held in chunks.sequences(snapshot, owner=key[0], hash_id=key[1]):
        if places.is_replaced(snapshot, *key, held.sequence_root):
            found.append((held, None))
        elif manifest is not None and manifest.root == held.sequence_root:
            found.append((held, manifest))
    return found


def _stands_under(statement: Statement, held: chunks.HeldSequence, place: places.Place) -> bool:
    """Whether a manifest is that of the statement."""
    try:
        check_merkle_path(statement.chunks_root, held.sequence_root, index=MANIFEST_SEQUENCE, leaf_count=place.count, path=place.path)
    except InvalidObject:
        return False
    return True


def _is_whole(held: chunks.HeldSequence | None, snapshot: Snapshot) -> bool:
    """Referenced, not in trash, every chunk there."""
    return held is not None and held.trash_until is None and not chunks.missing(snapshot, held.names)


def _no_wraps() -> Digest:
    return wraps_digest(())


def _reference_writes(snapshot: Snapshot, statement: Statement, object_hash: Digest, sequence: HeldSequence) -> list[Write]:
    overlay = Overlay(snapshot)
    owner, hash_id, root = statement.owner, statement.hash_id, SequenceRoot(sequence.root)
    overlay.add(chunks.reference(overlay, owner, hash_id, root, sequence.names, object_hash=object_hash))
    count = sequence_count(statement)
    overlay.add(places.put_place(owner, hash_id, sequence.index, root, sequence.sizes, count, sequence.path))
    overlay.add(places.drop_offered(owner, root))
    overlay.add(chunks.unprotect(overlay, owner, b"offer" + root))
    overlay.add(chunks.unprotect(overlay, owner, b"place" + root))
    return overlay.writes


def _held(snapshot: Snapshot, key: RecordKey, index: int) -> HeldSequence | None:
    place = places.get_place(snapshot, *key, index)
    if place is None:
        return None
    held = chunks.sequence(snapshot, *key, SequenceRoot(place.root))
    if held is None or held.trash_until is not None:
        return None
    return HeldSequence(index, place.root, held.names, place.sizes, place.path)


def _all_held(snapshot: Snapshot, key: RecordKey) -> list[HeldSequence]:
    found = (_held(snapshot, key, index) for index, _ in places.places(snapshot, *key))
    return [sequence for sequence in found if sequence is not None]


def _groups(sizes: Sequence[int]) -> list[list[int]]:
    """Positions of records with so many sequences, in groups that one receipt holds: RECEIPT_ITEMS_MAX sequences, RECEIPT_BYTES_MAX."""
    groups: list[list[int]] = []
    room = bytes_left = 0
    for position, size in enumerate(sizes):
        cost = RECEIPT_ITEM_BYTES + size * RECEIPT_ROOT_BYTES
        if not groups or size > room or cost > bytes_left:
            groups.append([])
            room, bytes_left = RECEIPT_ITEMS_MAX, RECEIPT_BYTES_MAX - RECEIPT_HEAD_BYTES
        groups[-1].append(position)
        room -= size
        bytes_left -= cost
    return groups
