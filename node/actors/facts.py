"""The facts actor: every signed fact this node knows. Checked, committed, then indexed, spoken of and passed on.

A fact is (kind, body) (`protocols/gossip/facts`); what it means is `knowledge`. Checking signatures is pure and runs in a pool thread for
batches; the actor itself only compares, commits and indexes.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass

import trio

from protocols.codec import decode, encode
from protocols.errors import DecodeError, InvalidObject, LadingError, LocalError, Reason, StoreFull
from protocols.files.objects import Reaffirm, Statement
from protocols.gossip.facts import FactKind, fact_id
from protocols.limits import CLOCK_SKEW_MAX_S
from protocols.types import Digest, HashId, OwnerKey, PeerId, RecordKey
from storage import anchors
from storage.engine import Delete, Put, Write
from storage.tables import ENTRY_COUNTS, FACTS, HELD_FACTS

from ..actor import Actor, Reply
from ..bus import Bus
from ..clock import Clock
from ..offload import Offload
from .knowledge import Checked, Knowledge, records_of
from .storage import StorageHandle

log = logging.getLogger(__name__)

# A signature takes 60-100 us to check; this many stay well below the 50 ms that the loop may be held.
CHECK_INLINE_MAX = 64
# Facts read back at once: a few milliseconds of a pool thread's time.
ROWS_PER_CHECK_MAX = 256
# Ids that were refused or replaced are remembered, so that reconciling does not fetch them again and again.
FORGOTTEN_IDS_MAX = 65536


@dataclass(frozen=True, slots=True)
class FactsAccepted:
    """New facts were committed and indexed. kinds: what was among them; source: the peer they came from, None for our own;
    records: those they speak of."""

    ids: tuple[bytes, ...]
    kinds: frozenset[int]
    source: PeerId | None
    records: frozenset[RecordKey] = frozenset()


@dataclass(frozen=True, slots=True)
class Submit:
    """Keep these in one commit. items: with the peer that each came from, None for our own. are_found: those without a peer were not made
    here, but found in what is kept here. Answer: how many were new."""

    items: tuple[tuple[Checked, PeerId | None], ...]
    reply: Reply[int]
    are_found: bool = False


@dataclass(frozen=True, slots=True)
class CheckAgain:
    """Another time is used than before: what was refused by the old one is judged anew. Answer: how many more hold."""

    reply: Reply[int]


class FactsActor(Actor[Submit | CheckAgain]):
    """Owns the table of facts and their index."""

    def __init__(
        self,
        knowledge: Knowledge,
        store: StorageHandle,
        offload: Offload,
        clock: Clock,
        bus: Bus,
        announce: Callable[[tuple[bytes, ...], PeerId | None], None],
        *,
        owner: OwnerKey | None = None,
    ) -> None:
        """owner: of whose records it is noted which ones other nodes published; None for a node that publishes nothing."""
        super().__init__("facts")
        self._owner = owner
        self.knowledge = knowledge
        self._store = store
        self._offload = offload
        self._clock = clock
        self._bus = bus
        self._announce = announce
        self._forgotten: OrderedDict[bytes, None] = OrderedDict()
        self._writes: list[Write] = []
        self._batch: dict[bytes, tuple[Checked, PeerId | None]] = {}
        self._found: set[bytes] = set()
        """Of the batch, what nobody brought and nobody made here."""
        self._stale: list[bytes] = []
        self._check_again: list[Reply[int]] = []
        self.entry_counts: dict[Digest, int] = {}
        """Of each statement whose manifest was ever open here, how many entries that lists."""
        self._freed: list[bytes] = []

    # --- beats ------------------------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Reads all facts back. What no longer passes its check (expired, damaged) is dropped with a line in the log."""
        rows, held = await self._store.read(lambda snapshot: (list(snapshot.scan(FACTS)), [key for key, _ in snapshot.scan(HELD_FACTS)]))
        self.knowledge.clear()
        self.knowledge.held.update(held)
        self._writes, self._batch, self._stale, self._check_again, self._freed = [], {}, [], [], []
        self._found = set()
        checked: list[Checked] = []
        # One kind after the other: who may speak must be indexed before what they said is checked.
        rows.sort(key=lambda row: row[1][:1])
        start = 0
        while start < len(rows):
            end = start
            while end < len(rows) and rows[end][1][:1] == rows[start][1][:1] and end - start < ROWS_PER_CHECK_MAX:
                end += 1
            found = await self._offload.run(self._check_rows, rows[start:end], int(self._clock.now()))
            for item in found:
                self._stale.extend(self.knowledge.apply(item))
            checked.extend(found)
            start = end
        known = {object_hash for facts in self.knowledge.records.values() for object_hash in facts.objects}
        counted = await self._store.read(lambda snapshot: list(snapshot.scan(ENTRY_COUNTS)))
        self.entry_counts = {Digest(key): decode(value, int) for key, value in counted if key in known}
        self._writes.extend(Delete(ENTRY_COUNTS, key) for key, _ in counted if key not in known)
        if len(checked) < len(rows):
            log.info("facts dropped at start kept=%d dropped=%d", len(checked), len(rows) - len(checked))

    def _check_rows(self, rows: Sequence[tuple[bytes, bytes]], now: int) -> list[Checked]:
        # In a thread, where the clock cannot be asked.
        found: list[Checked] = []
        for key, value in rows:
            try:
                found.append(self.knowledge.check(value[0], value[1:], now=now, trusted=True))
            except (InvalidObject, DecodeError) as error:
                log.debug("fact dropped id=%s error=%s", key.hex()[:8], error)
        return found

    def handle(self, message: Submit | CheckAgain) -> None:
        if isinstance(message, CheckAgain):
            self._check_again.append(message.reply)
            return
        if message.are_found:
            self._found.update(item.id for item, source in message.items if source is None)
        self.answer(message.reply, sum(self._take(item, source) for item, source in message.items))

    def _take(self, item: Checked, source: PeerId | None) -> bool:
        if item.id in self.knowledge.sketch or item.id in self._batch:
            return False
        if source is not None and not self.knowledge.has_room(item):
            log.warning("fact refused, its author has said too much kind=%d from=%s", item.kind, source.hex()[-8:])
            self.forget(item.id)
            return False
        self._batch[item.id] = (item, source)
        self._writes.append(Put(FACTS, item.id, bytes([item.kind]) + item.body))
        # Another knows it too, or its owner means it as it stands: the quarantine is over.
        free = self.knowledge.reaffirmed(item.value) if isinstance(item.value, Reaffirm) else (item.id,)
        for one in self.knowledge.held.intersection(free):
            self._writes.append(Delete(HELD_FACTS, one))
            self._freed.append(one)
        return True

    async def keep(self) -> None:
        await self._keep_new()
        replies, self._check_again = self._check_again, []
        if not replies:
            return
        try:
            more = await self._apply_timely()
        except LocalError:
            raise
        except LadingError as error:  # what was submitted beside it is kept all the same
            for reply in replies:
                self.refuse(reply, error)
            return
        for reply in replies:
            self.answer(reply, more)

    async def _apply_timely(self) -> int:
        """Indexes announcements that are kept, and were not held for valid by an earlier time; lets refused ones be asked for again."""
        self._forgotten.clear()
        kind = bytes([FactKind.ANNOUNCEMENT])
        rows = await self._store.read(
            lambda snapshot: [row for row in snapshot.scan(FACTS) if row[1][:1] == kind and row[0] not in self.knowledge.sketch]
        )
        found = await self._offload.run(self._check_rows, rows, int(self._clock.now()))
        for item in found:
            self._stale.extend(self.knowledge.apply(item))
        if found:
            fact = FactsAccepted(tuple(item.id for item in found), frozenset((int(FactKind.ANNOUNCEMENT),)), None)
            self.after_keep(lambda: self._bus.publish(fact))
        return len(found)

    async def _keep_new(self) -> None:
        writes, self._writes = self._writes, []
        batch, self._batch = self._batch, {}
        freed, self._freed = self._freed, []
        found, self._found = self._found, set()
        if writes:
            writes += self._note_publishers(batch, found)
            deletes = [Delete(FACTS, one) for one in self._stale]
            try:
                await self._store.write([*writes, *deletes])
            except StoreFull:
                if deletes:
                    await self._store.write(deletes)
                    self._stale.clear()
                raise
            self._stale.clear()
        if freed:
            self.knowledge.let_go(freed)
        by_source: dict[PeerId | None, list[Checked]] = {}
        for item, source in batch.values():
            by_source.setdefault(source, []).append(item)
            for gone in self.knowledge.apply(item):
                self.forget(gone)
                self._stale.append(gone)
        # Indexed before anybody is told, so that whoever wakes up finds what he was woken for.
        for source, accepted in by_source.items():
            items = [item for item in accepted if item.id in self.knowledge.sketch]  # the others are void already: nobody needs them
            if not items:
                continue
            ids = tuple(item.id for item in items)
            self.after_keep(lambda source=source, ids=ids: self._announce(ids, source))  # type: ignore[misc]  # bound now
            kinds = frozenset(item.kind for item in items)
            fact = FactsAccepted(ids, kinds, source, frozenset(key for item in items for key in records_of(item.value)))
            self.after_keep(lambda fact=fact: self._bus.publish(fact))  # type: ignore[misc]  # bound now

    def _note_publishers(self, batch: Mapping[bytes, tuple[Checked, PeerId | None]], found: Container[bytes]) -> Sequence[Write]:
        """In one commit with a statement of ours that makes a record be in force: whether another node published that.

        found: as ``_found``. What its anchor shall say is known to the node that published it alone. A statement of what is in force
        already says nothing new about that: another number of copies, or the same that was put by two nodes at once.
        """
        elsewhere: dict[HashId, bool] = {}
        for item, source in batch.values():
            if not isinstance(item.value, Statement) or item.value.owner != self._owner:
                continue
            hash_id = item.value.hash_id
            facts = self.knowledge.records.get((item.value.owner, hash_id))
            if facts is None or self.knowledge.verdict(facts).statement is None:
                is_made = source is None and item.id not in found
                elsewhere[hash_id] = elsewhere.get(hash_id, True) and not is_made
        return [anchors.put_elsewhere(name) if is_so else anchors.drop_elsewhere(name) for name, is_so in elsewhere.items()]

    def keep_failed(self, error: LadingError) -> None:
        """Nothing was indexed yet: the batch is answered with the error and forgotten."""
        self._check_again.clear()
        log.error("facts not kept error=%s", error)

    def note_entries(self, statement: Digest, count: int) -> None:
        """Kept with the next facts: it is worth no commit of its own."""
        if self.entry_counts.get(statement) != count:
            self.entry_counts[statement] = count
            self._writes.append(Put(ENTRY_COUNTS, statement, encode(count)))

    def forget(self, one: bytes) -> None:
        self._forgotten[one] = None
        if len(self._forgotten) > FORGOTTEN_IDS_MAX:
            self._forgotten.popitem(last=False)

    def is_unwanted(self, one: bytes) -> bool:
        """Known here, or refused or replaced not long ago."""
        return one in self.knowledge.sketch or one in self._forgotten


class FactsHandle:
    """What others hold: submit facts, read the index."""

    def __init__(self, actor: FactsActor, store: StorageHandle, offload: Offload, clock: Clock) -> None:
        self._actor = actor
        self._store = store
        self._offload = offload
        self._clock = clock
        self._checking: dict[bytes, trio.Event] = {}
        """Ids of facts from peers that are being checked and kept."""
        self.clock_judges: Callable[[], bool] = lambda: True
        """Whether what peers say may be held against our time; see ``FlooredClock.judges``."""
        self.knowledge = actor.knowledge

    async def submit_own(self, *facts: tuple[FactKind, bytes]) -> None:
        """Keeps facts that this node made. Durable when this returns. Raises InvalidObject for one that breaks a rule."""
        now = int(self._clock.now())
        await self.keep_checked_of({None: [self.knowledge.check(kind, body, now=now) for kind, body in facts]})

    async def submit_found(self, kind: FactKind, body: bytes) -> None:
        """Keeps a fact that nobody brought and that was not made here: a statement in a block. As ``submit_own`` otherwise."""
        item = self.knowledge.check(kind, body, now=int(self._clock.now()))
        await self._actor.mailbox.ask(lambda reply: Submit(((item, None),), reply, are_found=True))

    async def loaded(self) -> None:
        """When this returns, everything that was kept before the start is indexed."""
        await self.keep_checked_of({})

    async def keep_checked_of(self, brought: Mapping[PeerId | None, Sequence[Checked]], own: Sequence[Checked] = ()) -> None:
        """Keeps facts that were checked, by who brought them, and own ones in the same commit. Durable when this returns."""
        items = tuple((item, source) for source, its in brought.items() for item in its)
        await self._actor.mailbox.ask(lambda reply: Submit((*items, *((item, None) for item in own)), reply))

    def time_max(self) -> int | None:
        """No owner may have said anything later than this; None when our own clock is no measure."""
        return int(self._clock.now()) + CLOCK_SKEW_MAX_S if self.clock_judges() else None

    def why_refused(self, kind: FactKind, body: bytes) -> InvalidObject:
        """Why a peer's fact was not kept, judged once more."""
        found = self._check_one(kind, body, int(self._clock.now()), self.time_max())
        return found if isinstance(found, InvalidObject) else InvalidObject(Reason.REFUSED, f"the {kind.name.lower()} was not taken")

    def note_entries(self, statement: Digest, count: int) -> None:
        """The manifest of this statement is open here, and lists so many entries. Lost in a crash it is found out with the next opening."""
        self._actor.note_entries(statement, count)

    def entries_of(self, statement: Digest) -> int | None:
        """Number of entries, if the manifest was ever open here."""
        return self._actor.entry_counts.get(statement)

    async def check_again(self) -> int:
        """Judges again, by the time that is used now, what was refused by another. Result: how many more announcements hold."""
        return await self._actor.mailbox.ask(lambda reply: CheckAgain(reply))

    async def submit(self, items_untrusted: Sequence[tuple[int, bytes]], source: PeerId) -> None:
        """Facts from a peer: those that break a rule are refused and remembered, the others kept and passed on."""
        items: dict[bytes, tuple[int, bytes]] = {fact_id(kind, body): (kind, body) for kind, body in items_untrusted}
        # The receipt of a batch comes back with the answer to each request of the batch: checked once, awaited by all. Nobody waits
        # while others wait for him: peers choose what comes together and in which order.
        while running := [self._checking[one] for one in items if one in self._checking]:
            await running[0].wait()
        taken = [one for one in items if not self._actor.is_unwanted(one)]
        for one in taken:
            self._checking[one] = trio.Event()
        try:
            await self._submit_new([items[one] for one in taken], source)
        finally:
            for one in taken:
                self._checking.pop(one).set()

    async def _submit_new(self, wanted: list[tuple[int, bytes]], source: PeerId) -> None:
        wanted.sort(key=lambda item: item[0])
        start = 0
        while start < len(wanted):
            # One kind after the other: what a later one is judged by (who is certified, who is out) must be indexed first.
            end = start
            while end < len(wanted) and wanted[end][0] == wanted[start][0] and end - start < 512:
                end += 1
            part = wanted[start:end]
            start = end
            now, time_max = int(self._clock.now()), self.time_max()
            if len(part) > CHECK_INLINE_MAX:
                checked = await self._offload.run(self._check_all, part, now, time_max)
            else:
                checked = self._check_all(part, now, time_max)
            kept = tuple(item for item in checked if isinstance(item, Checked))
            for item in checked:
                if isinstance(item, bytes):
                    self._actor.forget(item)
            if kept:
                await self.keep_checked_of({source: kept})

    def _check_all(self, items: Sequence[tuple[int, bytes]], now: int, time_max: int | None) -> list[Checked | bytes]:
        checked: list[Checked | bytes] = []
        for kind, body in items:
            found = self._check_one(kind, body, now, time_max)
            if isinstance(found, Checked):
                checked.append(found)
                continue
            log.info("fact refused kind=%d error=%s", kind, found)
            if found.reason.stable_name not in TRANSIENT:
                checked.append(fact_id(kind, body))
        return checked

    def _check_one(self, kind: int, body: bytes, now: int, time_max: int | None) -> Checked | InvalidObject | DecodeError:
        try:
            return self.knowledge.check(kind, body, now=now, time_max=time_max)
        except (InvalidObject, DecodeError) as error:
            return error

    def filter_unknown(self, ids: Sequence[bytes]) -> tuple[bytes, ...]:
        return tuple(one for one in ids if not self._actor.is_unwanted(one))

    async def load_bodies(self, ids: Sequence[bytes]) -> tuple[tuple[int, bytes], ...]:
        """Facts by id, as far as they are here."""

        def read(snapshot: object) -> tuple[tuple[int, bytes], ...]:
            values = (snapshot.get(FACTS, one) for one in ids)  # type: ignore[attr-defined]  # a Snapshot
            return tuple((value[0], value[1:]) for value in values if value)

        if len(ids) <= CHECK_INLINE_MAX:
            return self._store.peek(read)
        return await self._store.read(read)


# Refusals that a later fact may cure: fetched again at the next reconciliation.
TRANSIENT = frozenset({"E-NOT-MEMBER", "E-CERTIFICATE-NOT-YET-VALID", "E-CLOCK-UNSAFE", "E-WRONG-DOMAIN"})
