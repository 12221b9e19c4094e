"""Want against have: ships sequences, repairs, buries, audits, drops surplus. Level-triggered: looks at what is, not at what happened.

Receipts are the fact, placement is the wish (RECORDS, Places). Each node looks only at sequences that it holds itself; the first live
holder in rendezvous order has the duty to copy.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import trio

from protocols.codec import encode
from protocols.errors import DecodeError, InvalidObject, LadingError, Reason, RemoteError, StoreFull
from protocols.errors import Verdict as PeerVerdict
from protocols.exchange import messages as m
from protocols.exchange.machine import SMALL_BYTES_MAX, reason_named
from protocols.files.audit import challenge, check_answer
from protocols.files.holdings import Receipt, open_receipt
from protocols.files.objects import Statement, Tombstone
from protocols.files.placement import ALL_NODES_MAX, COPIES_DEFAULT, Candidate, copies_of_sequence, copies_wanted, wanted_holders
from protocols.files.receipts import quorum
from protocols.files.repair import (
    AskReceipts,
    Copy,
    DropCopy,
    DropState,
    ReceiptAnswered,
    RepairView,
    SequenceView,
    SignReceipt,
    SignWithdrawal,
    SurplusDrop,
    Tick,
    Weighed,
    plan,
)
from protocols.files.sequences import MANIFEST_SEQUENCE, SequenceDescriptor, sequence_count
from protocols.files.survive import survives as survives_of
from protocols.gossip.facts import FactKind
from protocols.signed import Signed
from protocols.types import ChunkName, Digest, PeerId, RecordKey, SequenceRoot

from ..bus import Bus
from ..clock import Clock
from ..entropy import Entropy
from ..own import OwnKeys
from ..transport.port import StreamBroken
from .bundles import Bundles, Given
from .exchange import Chunks, Deliver, Loader
from .facts import FactsAccepted, FactsHandle
from .holdings import HeldSequence, Holdings
from .knowledge import Knowledge, RecordFacts, Verdict
from .peers import PeerConnected, PeerLost, Peers

log = logging.getLogger(__name__)

LOOK_INTERVAL_S = 5.0  # at what lacks something, and whether anything about nodes is other than it was
LOOK_AT_ALL_INTERVAL_S = 600.0
LOOK_PAUSE_S = 0.2  # hints about nodes that come together are looked at together
LOOK_PAUSES_RECORDS = 5  # and hints about records
# Who is taking records has no time for a look at those that came just now; it is put off for so long at most.
LOOK_PUT_OFF_S = 5.0
TAKING_S = 0.5
COPIES_AT_ONCE_MAX = 4
COPY_RETRY_S = 5.0
AUDIT_INTERVAL_S = 120.0
DISTRUST_S = 86400.0
SURPLUS_WAIT_S = 20.0
CONFIRM_ITEMS_MAX = 128  # a path of eleven hashes to check for each, on the holder's loop
RECORDS_PER_READ = 32
SEQUENCES_PER_TURN = 64  # looked at before others have a turn of the loop
KINDS_ABOUT_NODES = frozenset({FactKind.ANNOUNCEMENT, FactKind.REVOCATION, FactKind.FENCE})

Progress = Callable[[Mapping[str, object]], None]


FetchSequence = Callable[[RecordFacts, SequenceRoot, Mapping[int, bytes], Deliver, set[PeerId]], Awaitable[None]]


Holders = Mapping[SequenceRoot, frozenset[PeerId]]
"""Whose receipts count for each sequence of a record."""


def mark_of(key: RecordKey, sequence: HeldSequence) -> tuple[RecordKey, bytes]:
    """What a sequence of a record is remembered by here."""
    return key, sequence.root


@dataclass(frozen=True, slots=True)
class SmallRecord:
    """A record of ours that goes in bundles. bodies: all its chunks."""

    signed: Signed
    statement: Statement
    sequences: Sequence[HeldSequence]
    bodies: Mapping[ChunkName, bytes]


Shipment = tuple[PeerId, Sequence[HeldSequence], Given]
"""What of a record is on its way to a node."""


class Replication:
    """See the module."""

    def __init__(
        self,
        own: OwnKeys,
        facts: FactsHandle,
        holdings: Holdings,
        peers: Peers,
        clock: Clock,
        entropy: Entropy,
        bus: Bus,
        *,
        repair_grace_s: float,
        repair_bytes_per_s: float,
        copies_all: bool,
        scrub_period_s: float,
    ) -> None:
        self._own = own
        self._facts = facts
        self._holdings = holdings
        self._peers = peers
        self._clock = clock
        self._entropy = entropy
        self._bus = bus
        self._grace_s = repair_grace_s
        self._rate = repair_bytes_per_s
        self._copies_all = copies_all
        self._scrub_period_s = scrub_period_s
        self._started_at = clock.monotonic()
        self._look = trio.Event()
        self._look_at_all = True
        self._hurry = False
        """Something was heard of nodes: the next look need not wait for more hints about records."""
        self._looked_at = 0.0
        self._looked_at_all_at = 0.0
        self._looked_under: object = None
        self._open: set[RecordKey] = set()
        """Records that lacked something when they were last looked at."""
        self._changed: set[RecordKey] = set()
        """Records of which something was heard since the last look."""
        self._copying: dict[tuple[bytes, PeerId], float] = {}
        """(sequence root, target) -> not before when the next attempt may begin; infinite while one runs."""
        self._missing_since: dict[tuple[RecordKey, bytes], tuple[float, frozenset[PeerId]]] = {}
        """Since when a sequence lacks a wanted copy, and whose receipts counted then."""
        self._budget_bytes = 0.0
        self._budget_at = clock.monotonic()
        self._refused: dict[tuple[bytes, PeerId], float] = {}
        self._dropping: dict[tuple[RecordKey, bytes], SurplusDrop] = {}
        self._fetch: FetchSequence | None = None
        self._bundles = Bundles(self._send_bundle)
        self._roots: dict[bytes, frozenset[bytes]] = {}
        """Chunks root of a statement -> its sequences' roots, where they are known."""
        self.alerts: dict[str, str] = {}
        self.copied_bytes = 0

    @property
    def knowledge(self) -> Knowledge:
        return self._facts.knowledge

    # --- views ------------------------------------------------------------------------------------------------------

    def _now(self) -> int:
        return int(self._clock.now())

    def gone(self) -> frozenset[PeerId]:
        """Certified nodes of which nobody has had a sign of life for the grace time."""
        since_start = self._clock.monotonic() - self._started_at
        return frozenset(
            peer
            for peer in self.knowledge.certified(self._now())
            if min(self._peers.silence_s(peer), since_start) >= self._grace_s
            and not self._peers.is_connected(peer)
            and peer != self._own.peer_id
        )

    def holders(self, facts: RecordFacts) -> Holders:
        """Counting receipts of a record, nodes that are gone left out. What no sequence of the record in force is does not count, where
        its sequences are known: a holder may sign for roots that nobody has."""
        counted = self.knowledge.counting(facts, now=self._now(), gone=self.gone())
        verdict = self.knowledge.verdict(facts)
        if verdict.statement is None:
            return counted
        roots = self._roots.get(facts.statement(verdict.statement)[1].chunks_root)
        return counted if roots is None else {root: nodes for root, nodes in counted.items() if root in roots}

    def copies(self, statement: Statement) -> int:
        nodes = sum(not c.refuses and c.weight > 0 for c in self.knowledge.candidates(self._now()))
        return copies_wanted(statement, nodes, self._copies_all)

    def learn_roots(self, statement: Statement, roots: Collection[bytes]) -> None:
        """The roots of all sequences of a record, manifest included, as its maker or reader knows them."""
        if len(roots) == sequence_count(statement):
            self._roots[statement.chunks_root] = frozenset(roots)

    def root_count(self, statement: Statement) -> int:
        """Different sequences of a record: receipts name roots, and long runs of equal blocks (a sparse file) make equal sequences.
        Whoever knows only the statement takes them all for different."""
        roots = self._roots.get(statement.chunks_root)
        return len(roots) if roots is not None else sequence_count(statement)

    def wanted(
        self, facts: RecordFacts, statement: Statement, index: int, root: SequenceRoot, *, reachable: bool = False
    ) -> tuple[PeerId, ...]:
        """Who should hold a sequence now: nodes that are gone, refuse or are pinned out are skipped.

        reachable: those that cannot be asked this moment too: a put goes to the next in order, and placement is set right later.
        """
        candidates: Sequence[Candidate] = self.knowledge.candidates(self._now())
        if reachable:
            candidates = [c for c in candidates if c.peer in self._peers.sessions or c.peer == self._own.peer_id]
        elif gone := self.gone():
            candidates = [c for c in candidates if c.peer not in gone]
        if self._refused:
            now = self._clock.monotonic()
            candidates = [c for c in candidates if self._refused.get((root, c.peer), float("-inf")) < now]
        return wanted_holders(
            statement.owner,
            root,
            candidates,
            copies=copies_of_sequence(index, self.copies(statement)),
            pins_in=facts.pinned("in"),
            pins_out=facts.pinned("out"),
        )

    def lacking(self, facts: RecordFacts, statement: Statement, ack: str, holders: Holders) -> str:
        """What receipts still lack of an ack level, in words; empty when it is reached. holders: as ``holders`` gives them."""
        count = self.root_count(statement)
        if len(holders) < count:
            return f"{count - len(holders)} of {count} sequences have no receipt"
        own = self._own.peer_id
        if ack == "quorum":
            others = [c for c in self.knowledge.candidates(self._now()) if c.peer != own and c.weight > 0]
            needed = quorum(copies_wanted=self.copies(statement), other_holder_nodes=len(others))
            short = sum(len(nodes - {own}) < needed for nodes in holders.values())
            return f"{short} of {count} sequences on fewer than {needed} other nodes" if short else ""
        copies = self.copies(statement)
        if not statement.copies_wanted:  # the profile's number bows to pins, the owner's own does not
            pinned_out = facts.pinned("out")
            able = [c for c in self.knowledge.candidates(self._now()) if c.weight > 0 and not c.refuses and c.peer not in pinned_out]
            copies = min(copies, len(able))
        short = sum(len(nodes) < copies for nodes in holders.values())
        return f"{short} of {count} sequences on fewer than {copies} nodes" if short else ""

    def survives(self, facts: RecordFacts, statement: Statement) -> int:
        """Number of arbitrary losses that the record survives now; -1 when a sequence has no copy that is known."""
        return self.survives_with(statement, self.holders(facts))

    def survives_with(self, statement: Statement, holders: Holders) -> int:
        """The same, from what ``holders`` gave."""
        return -1 if len(holders) < self.root_count(statement) else survives_of(holders)

    def likely_holders(self, facts: RecordFacts, root: SequenceRoot | None, *, spread: int = 0) -> list[PeerId]:
        """Connected nodes that may have a sequence, those with receipts first, in an order that differs from call to call."""
        counted = self.knowledge.counting(facts, now=self._now())
        have = counted.get(root, frozenset()) if root is not None else frozenset(p for nodes in counted.values() for p in nodes)
        connected = self._peers.partners()
        first = [peer for peer in connected if peer in have]
        rest = [peer for peer in connected if peer not in have]
        if first:
            turn = (int.from_bytes(root[:2], "big") if root is not None else 0) + spread
            first = first[turn % len(first) :] + first[: turn % len(first)]
        return first + rest

    def report(self, facts: RecordFacts, statement: Statement) -> dict[str, object]:
        """Want, have and verified, for `file status`."""
        counted = self.holders(facts)
        gone = self.gone()
        count = sequence_count(statement)
        copies = self.copies(statement)
        sequences: list[dict[str, object]] = []
        for root, nodes in sorted(counted.items()):
            sequences.append(
                {
                    "root": root.hex(),
                    "have": len(nodes),
                    "holders": [self.knowledge.peer_name(peer) for peer in sorted(nodes, key=self.knowledge.peer_name)],
                }
            )
        live = min((len(nodes) for nodes in counted.values()), default=0) if len(counted) >= self.root_count(statement) else 0
        own = self._own.peer_id
        reachable = min((sum(p == own or self._peers.is_connected(p) for p in nodes) for nodes in counted.values()), default=0)
        per_node: dict[PeerId, int] = {}
        verified: dict[PeerId, int] = {}
        for receipt in facts.receipts.values():
            verified[receipt.holder] = max(verified.get(receipt.holder, 0), receipt.from_s)
        for nodes in self.knowledge.counting(facts, now=self._now()).values():
            for peer in nodes:
                per_node[peer] = per_node.get(peer, 0) + 1
        return {
            "sequences": count,
            "want": copies,
            "copies_live": live,
            "copies_reachable": reachable if len(counted) >= count else 0,
            "survives": self.survives(facts, statement),
            "holders": [
                {
                    "node": self.knowledge.peer_text(peer),
                    "name": self.knowledge.peer_name(peer),
                    "have": number,
                    "verified": verified.get(peer, 0),
                    "gone": peer in gone,
                    "connected": self._peers.is_connected(peer) or peer == self._own.peer_id,
                }
                for peer, number in sorted(per_node.items(), key=lambda item: self.knowledge.peer_name(item[0]))
            ],
            "sequence_list": sequences,
            "pinned_in": [self.knowledge.peer_name(peer) for peer in facts.pinned("in")],
            "pinned_out": [self.knowledge.peer_name(peer) for peer in facts.pinned("out")],
        }

    # --- shipping ---------------------------------------------------------------------------------------------------

    def _loader(self, sequence: HeldSequence, bodies: Mapping[ChunkName, bytes]) -> Loader:
        """bodies: chunks that are in memory; the others are read from disk."""

        async def load(root: bytes, indexes: tuple[int, ...]) -> Chunks:
            names = [sequence.names[index] for index in indexes]
            absent = [name for name in names if name not in bodies]
            read = dict(zip(absent, await self._holdings.bodies(absent), strict=True)) if absent else {}
            return tuple((index, bodies.get(name) or read.get(name)) for index, name in zip(indexes, names, strict=True))

        return load

    async def _place(
        self, peer: PeerId, place: m.Place, sequence: HeldSequence, bodies: Mapping[ChunkName, bytes] | None = None
    ) -> Signed | None:
        """Has a sequence kept by one node. None when it did not work out; a refusal is remembered for a while."""
        try:
            client = await self._peers.exchange(peer)
            answer, sent = await client.place(place, self._loader(sequence, bodies or {}))
            self.copied_bytes += sent
            return answer
        except (RemoteError, StreamBroken) as error:
            await self._not_placed(peer, [sequence.root], error)
        return None

    async def _not_placed(self, peer: PeerId, roots: Sequence[bytes], error: LadingError) -> None:
        """A refusal is remembered for a while; who breaks a rule is dropped."""
        if isinstance(error, RemoteError):
            if error.reason in (Reason.FULL, Reason.QUOTA, Reason.PINNED_OUT):
                self._refused.update(dict.fromkeys(((root, peer) for root in roots), self._clock.monotonic() + 60.0))
                self.alerts[f"refused-{peer.hex()[-8:]}"] = f"{self.knowledge.peer_name(peer)} refuses: {error.message}"
            if error.verdict is PeerVerdict.BAN:
                await self._peers.drop(peer, str(error), ban=True)
        log.info("not placed peer=%s roots=%s error=%s", self.knowledge.peer_name(peer), ",".join(r.hex()[:8] for r in roots), error)

    async def ship_by_offer(self, offer: Signed, sequence: HeldSequence, bodies: Mapping[ChunkName, bytes], *, copies: int) -> set[PeerId]:
        """Sends a sequence of a running put to those who should hold it. bodies: its chunks, which need not be on this disk yet.
        copies: as asked for, 0 = as the profile says. Result: who took it."""
        candidates = [c for c in self.knowledge.candidates(self._now()) if self._peers.is_connected(c.peer) or c.peer == self._own.peer_id]
        everywhere = self._copies_all and len(candidates) <= ALL_NODES_MAX
        copies = copies or (len(candidates) if everywhere else COPIES_DEFAULT)
        targets = wanted_holders(self._own.owner, SequenceRoot(sequence.root), candidates, copies=copies)
        took: set[PeerId] = set()
        place = m.Place(0, sequence.root, sequence.names, sequence.sizes, m.ByOffer(offer))

        async def send(peer: PeerId) -> None:
            if await self._place(peer, place, sequence, bodies) is not None:
                took.add(peer)

        async with trio.open_nursery() as nursery:
            for peer in targets:
                if peer != self._own.peer_id:
                    nursery.start_soon(send, peer)
        return took

    async def ship_by_statement(
        self,
        signed: Signed,
        statement: Statement,
        sequences: Sequence[HeldSequence],
        shipped: Mapping[int, set[PeerId]],
        bodies: Mapping[ChunkName, bytes],
    ) -> None:
        """The statement is made: confirms what was offered and places the rest, at every wanted holder at once. shipped: by index, who
        took a sequence. bodies: chunks that are in memory still."""
        facts = self.knowledge.records[(statement.owner, statement.hash_id)]
        count = sequence_count(statement)
        confirm: dict[PeerId, list[HeldSequence]] = {}
        place: dict[PeerId, list[HeldSequence]] = {}
        for sequence in sequences:
            took = shipped.get(sequence.index, set())
            for peer in took:
                confirm.setdefault(peer, []).append(sequence)
            for peer in self.wanted(facts, statement, sequence.index, SequenceRoot(sequence.root), reachable=True):
                if peer != self._own.peer_id and peer not in took and self._peers.is_connected(peer):
                    place.setdefault(peer, []).append(sequence)

        async def at(peer: PeerId) -> None:
            again = place.get(peer, [])
            todo = confirm.get(peer, [])
            for start in range(0, len(todo), CONFIRM_ITEMS_MAX):
                part = todo[start : start + CONFIRM_ITEMS_MAX]
                try:
                    client = await self._peers.exchange(peer)
                    answer = await client.confirm(signed, count, tuple((s.index, s.root, s.path) for s in part))
                except (RemoteError, StreamBroken) as error:
                    log.info("holds not confirmed peer=%s error=%s", self.knowledge.peer_name(peer), error)
                    again = [*again, *part]
                    continue
                if answer.receipt is not None:
                    await self._facts.submit([(FactKind.RECEIPT, encode(answer.receipt))], peer)
                again = [*again, *(sequence for sequence in part if sequence.index in answer.missing)]
            async with trio.open_nursery() as nursery:
                for sequence in again:
                    nursery.start_soon(self._place_stated, peer, signed, count, sequence, bodies)

        async with trio.open_nursery() as nursery:
            for peer in sorted({*confirm, *place}):
                nursery.start_soon(at, peer)

    def give_bundled(self, record: SmallRecord) -> list[Shipment]:
        """A small record that was made just now: every wanted holder gets what it should hold, with others that wait for the same.
        Result: what ``see_off`` waits for."""
        statement = record.statement
        facts = self.knowledge.records.get((statement.owner, statement.hash_id))
        if facts is None:  # nothing of it counts any more
            return []
        shares: dict[PeerId, list[HeldSequence]] = {}
        for sequence in record.sequences:
            for peer in self.wanted(facts, statement, sequence.index, SequenceRoot(sequence.root), reachable=True):
                if peer != self._own.peer_id and self._peers.is_connected(peer):
                    shares.setdefault(peer, []).append(sequence)
        return [(peer, share, self._give(peer, record.signed, share, record.bodies)) for peer, share in sorted(shares.items())]

    async def see_off(self, shipments: Sequence[Shipment]) -> None:
        """Until all of them have arrived or failed."""
        for peer, share, given in shipments:
            await self._is_kept(peer, share, given)

    def _give(self, peer: PeerId, signed: Signed, share: Sequence[HeldSequence], bodies: Mapping[ChunkName, bytes]) -> Given:
        parts = tuple(m.BundledSequence(one.index, one.path, tuple(bodies[name] for name in one.names)) for one in share)
        return self._bundles.give(peer, m.BundledRecord(signed, parts))

    async def _is_kept(self, peer: PeerId, share: Sequence[HeldSequence], given: Given) -> bool:
        error = await given.outcome()
        if error is not None:
            await self._not_placed(peer, [sequence.root for sequence in share], error)
            return False
        self.copied_bytes += sum(sum(sequence.sizes) for sequence in share)
        return True

    async def _send_bundle(self, peer: PeerId, records: tuple[m.BundledRecord, ...]) -> list[LadingError | None]:
        client = await self._peers.exchange(peer)
        answer = await client.bundle(records)
        outcomes: list[LadingError | None] = [None] * len(records)
        for number, reason, text in answer.refused:
            if not 0 <= number < len(records):
                raise RemoteError(Reason.MALFORMED, f"record {number} of {len(records)} refused", verdict=PeerVerdict.DROP)
            outcomes[number] = RemoteError(reason_named(reason), text, verdict=PeerVerdict.IGNORE)
        await self._facts.submit([(FactKind.RECEIPT, encode(receipt)) for receipt in answer.receipts], peer)
        return outcomes

    async def spread_wrap(self, facts: RecordFacts, wrap: Signed) -> set[PeerId]:
        """Gives a new wrap to the connected holders of the manifest. Result: those whose fresh receipt shows that they keep it."""
        signed, statement = self._in_force(facts)
        manifest = next((s for s in await self._holdings.sequences_of(facts.key) if s.index == MANIFEST_SEQUENCE), None)
        if manifest is None:
            return set()
        item = (manifest.index, manifest.root, manifest.path)
        digest = facts.wraps_digest()
        kept: set[PeerId] = set()

        async def give(peer: PeerId) -> None:
            try:
                client = await self._peers.exchange(peer)
                answer = await client.confirm(signed, sequence_count(statement), (item,), (wrap,))
            except (RemoteError, StreamBroken) as error:
                log.info("wrap not given peer=%s error=%s", self.knowledge.peer_name(peer), error)
                return
            if answer.receipt is None:
                return
            await self._facts.submit([(FactKind.RECEIPT, encode(answer.receipt))], peer)
            receipt = self._opened(answer.receipt, peer)
            if receipt is not None and any(item.wraps == digest for item in receipt.items):
                kept.add(peer)

        async with trio.open_nursery() as nursery:
            for peer in self.holders(facts).get(SequenceRoot(manifest.root), frozenset()):
                if peer != self._own.peer_id and self._peers.is_connected(peer):
                    nursery.start_soon(give, peer)
        return kept

    def _opened(self, signed_untrusted: Signed, peer: PeerId) -> Receipt | None:
        """A receipt that a peer gave for itself; None for what is none."""
        try:
            receipt = open_receipt(signed_untrusted, self._own.network_id)
        except (InvalidObject, DecodeError) as error:
            log.info("no receipt, but something else from=%s error=%s", self.knowledge.peer_name(peer), error)
            return None
        return receipt if receipt.holder == peer else None

    def _in_force(self, facts: RecordFacts) -> tuple[Signed, Statement]:
        verdict = self.knowledge.verdict(facts)
        if verdict.statement is None:
            raise LadingError(Reason.DELETED, "nothing of this record is in force")
        return facts.statement(verdict.statement)

    async def _place_stated(
        self, peer: PeerId, signed: Signed, count: int, sequence: HeldSequence, in_memory: Mapping[ChunkName, bytes]
    ) -> bool:
        if sum(sequence.sizes) <= SMALL_BYTES_MAX:
            absent = [name for name in sequence.names if name not in in_memory]
            read = dict(zip(absent, await self._holdings.bodies(absent), strict=True)) if absent else {}
            whole = {name: body for name in sequence.names if (body := in_memory.get(name) or read.get(name)) is not None}
            if any(name not in whole for name in sequence.names):
                return False
            return await self._is_kept(peer, [sequence], self._give(peer, signed, [sequence], whole))
        authority = m.ByStatement(signed, sequence.index, count, sequence.path)
        place = m.Place(0, sequence.root, sequence.names, sequence.sizes, authority)
        answer = await self._place(peer, place, sequence, in_memory)
        if answer is None:
            return False
        await self._facts.submit([(FactKind.RECEIPT, encode(answer))], peer)
        return True

    # --- life -------------------------------------------------------------------------------------------------------

    def look_again(self, key: RecordKey | None = None) -> None:
        """Something may have changed: look soon, at one record or at everything."""
        if key is None:
            self._look_at_all = True
        else:
            self._open.add(key)
        self._hurry = True
        self._look.set()

    async def run(self) -> None:
        """Looks whenever something is heard, and from time to time."""
        self._look_at_all = True
        with self._bus.subscribe(FactsAccepted, PeerConnected, PeerLost, name="replication") as news:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._bundles.run)
                nursery.start_soon(self._holdings.collect_loop)
                nursery.start_soon(self._scrub_loop)
                nursery.start_soon(self._audit_loop)

                async def listen() -> None:
                    lost = 0
                    async for fact in news:
                        if news.lost > lost:  # nobody knows which records those were about
                            lost, self._look_at_all = news.lost, True
                        if isinstance(fact, FactsAccepted):
                            self._changed |= fact.records
                            self._look_at_all |= FactKind.REVOCATION in fact.kinds  # whose tombstones count, for one
                        self._hurry |= not isinstance(fact, FactsAccepted) or bool(fact.kinds & KINDS_ABOUT_NODES)
                        self._look.set()

                nursery.start_soon(listen)
                while True:
                    await self._look_at_some(nursery)
                    with trio.move_on_at(self._looked_at + min(LOOK_INTERVAL_S, max(0.5, self._grace_s / 2))):
                        await self._look.wait()
                    await self._pause()
                    self._look = trio.Event()

    async def _look_at_some(self, nursery: trio.Nursery) -> None:
        """What is heard of a few records costs a look at those and at what lacks something, however many there are. All are looked at
        when a node comes, goes for good or changes in what decides about copies, and from time to time."""
        only = self._changed | self._open
        self._changed, self._open = set(), set()  # what is heard from here on is for the next look
        look_at_all, self._look_at_all = self._look_at_all, False
        self._hurry = False
        now_s = self._looked_at = trio.current_time()
        under = self._circumstances()
        if look_at_all or under != self._looked_under or now_s - self._looked_at_all_at >= LOOK_AT_ALL_INTERVAL_S:
            self._looked_under, self._looked_at_all_at = under, now_s
            await self._look_once(nursery)
        elif only:
            await self._look_once(nursery, only)

    def _circumstances(self) -> object:
        """All that decides about the copies of every record alike: while it is the same, a record that lacked nothing lacks nothing."""
        now_s = self._clock.monotonic()
        self._refused = {mark: until for mark, until in self._refused.items() if until > now_s}
        return (
            self.gone(),
            frozenset(self.knowledge.certified(self._now())),
            self.knowledge.candidates(self._now()),
            tuple(sorted(self.knowledge.generations.items())),
            self._is_settled(now_s),
            frozenset(self._refused),
            self._holdings.is_frozen,
        )

    def _is_settled(self, now_s: float) -> bool:
        """A node that has just come back presents what it has before it decides that anything is too much."""
        return now_s - self._started_at > max(self._grace_s, SURPLUS_WAIT_S)

    async def _pause(self) -> None:
        """Hints that come together are looked at together: those about records wait longer, since a put sees to its own copies."""
        pauses, put_off_until = 0, self._clock.monotonic() + LOOK_PUT_OFF_S
        while pauses < LOOK_PAUSES_RECORDS or self._holdings.taken_at + TAKING_S > self._clock.monotonic() < put_off_until:
            await trio.sleep(LOOK_PAUSE_S)
            pauses += 1
            if self._look_at_all or self._hurry:
                return

    async def _follow(self, key: RecordKey, verdict: Verdict, came_with: Collection[tuple[Digest, bool]]) -> bool:
        """Does with a record's sequences as its verdict says: bury, bring back, drop what was replaced. came_with: (statement, in trash)
        of each. True when what is held may be something else now."""
        if self._holdings.is_frozen:
            return False
        try:
            if verdict.statement is None:
                if verdict.tombstone is not None and isinstance(verdict.tombstone.value, Tombstone):
                    await self._holdings.bury(key, verdict.tombstone.value, verdict.tombstone.object_hash)
                elif key in self.knowledge.erased:
                    await self._holdings.bury_by_ledger(key)
                return False
            is_left_over = any(object_hash != verdict.statement for object_hash, _ in came_with)
            changed = is_left_over and await self._holdings.drop_replaced(key)
            if any(in_trash for _, in_trash in came_with) and await self._holdings.restore(key):
                log.warning("record restored from trash record=%s", key[1].hex()[:8])
                changed = True
            return changed
        except StoreFull as error:  # everything else goes on; the next look tries again
            log.warning("verdict not followed record=%s error=%s", key[1].hex()[:8], error)
            return False

    async def _look_once(self, nursery: trio.Nursery, only: set[RecordKey] | None = None) -> None:
        """only: the records to look at; None: all."""
        held = await self._holdings.all_held(only)
        by_record: dict[RecordKey, list[tuple[Digest, bool]]] = {}
        for key, _, object_hash, in_trash in held:
            by_record.setdefault(key, []).append((object_hash, in_trash))
        now_s = self._clock.monotonic()
        views: list[SequenceView] = []
        sequences: dict[tuple[RecordKey, bytes], tuple[RecordFacts, HeldSequence]] = {}
        gone = self.gone()
        live = frozenset({*self._peers.sessions, self._own.peer_id})
        own = self._own.peer_id
        unreceipted: dict[RecordKey, set[bytes]] = {}
        settled = self._is_settled(now_s)
        lacking: set[RecordKey] = set()
        kept: dict[RecordKey, list[HeldSequence]] = {}
        order = sorted(by_record.items())
        for number, (key, came_with) in enumerate(order):
            if number % RECORDS_PER_READ == 0:
                kept = await self._holdings.sequences_of_many([other for other, _ in order[number : number + RECORDS_PER_READ]])
            facts = self.knowledge.records.get(key)
            if facts is None:
                continue
            verdict = self.knowledge.verdict(facts)
            if await self._follow(key, verdict, came_with):
                kept[key] = await self._holdings.sequences_of(key)
                lacking.add(key)
            if verdict.statement is None:
                if not all(in_trash for _, in_trash in came_with):
                    lacking.add(key)  # until it is seen to be gone
                continue
            _, statement = facts.statement(verdict.statement)
            counted = self.knowledge.counting(facts, now=self._now(), gone=gone)
            held_here = kept[key]
            self.learn_roots(statement, [sequence.root for sequence in held_here])
            for position, sequence in enumerate(held_here):
                if position % SEQUENCES_PER_TURN == SEQUENCES_PER_TURN - 1:
                    await trio.lowlevel.checkpoint()  # a record of 5 GiB has 1,281
                root = SequenceRoot(sequence.root)
                wanted = self.wanted(facts, statement, sequence.index, root)
                counting = counted.get(root, frozenset())
                if own not in counting and not self._is_leaving(mark_of(key, sequence)):
                    unreceipted.setdefault(key, set()).add(root)
                missing = [peer for peer in wanted if peer not in counting]
                mark = (key, sequence.root)
                if missing:
                    self._missing_since.setdefault(mark, (now_s, counting))
                else:
                    self._missing_since.pop(mark, None)
                since = self._missing_since.get(mark)
                sequences[mark] = (facts, sequence)
                if settled:
                    await self._weigh(facts, sequence, wanted, counting, nursery)
                if not missing:
                    continue  # nothing to plan
                views.append(
                    SequenceView(
                        owner=statement.owner,
                        hash_id=statement.hash_id,
                        sequence_root=root,
                        sealed_bytes=sum(sequence.sizes),
                        wanted=wanted,
                        counting=counting,
                        live=live,
                        copying=frozenset(p for (r, p), until in self._copying.items() if r == root and until > now_s),
                        missing_since_s=since[0] if since is not None else None,
                        newcomers=counting - since[1] if since is not None else frozenset(),
                    )
                )
        for key, its_roots in sorted(unreceipted.items()):
            await self._receipt_again(key, its_roots)
        lacking |= unreceipted.keys() | {(view.owner, view.hash_id) for view in views} | {key for key, _ in self._dropping}
        self._open |= lacking
        self._missing_since = {
            mark: at for mark, at in self._missing_since.items() if mark in sequences or (only is not None and mark[0] not in only)
        }
        budget = self._refill(now_s)
        running = sum(until == float("inf") for until in self._copying.values())
        view = RepairView(
            us=own,
            now_s=now_s,
            sequences=tuple(views),
            budget_bytes=int(budget),
            budget_copies=max(0, COPIES_AT_ONCE_MAX - running),
            hysteresis_s=min(2.0, self._grace_s),
        )
        for copy in plan(view):
            facts, sequence = sequences[((copy.owner, copy.hash_id), copy.sequence_root)]
            self._copying[(copy.sequence_root, copy.target)] = float("inf")
            self._budget_bytes -= copy.sealed_bytes
            nursery.start_soon(self._copy, copy, facts, sequence)
        self._copying = {mark: until for mark, until in self._copying.items() if until > now_s}

    def _refill(self, now_s: float) -> float:
        """Repair budget: a bucket of two seconds, but never below one sequence, so that a low cap only slows repair down."""
        burst = max(2 * self._rate, 64 * 1024 * 1024)
        self._budget_bytes = min(burst, self._budget_bytes + (now_s - self._budget_at) * self._rate)
        if self._budget_at == self._started_at:
            self._budget_bytes = burst
        self._budget_at = now_s
        return max(0.0, self._budget_bytes)

    async def _receipt_again(self, key: RecordKey, roots: set[bytes]) -> None:
        """We hold these, but nothing of ours counts for them: read back, heal what is damaged, then sign anew."""
        good = set()
        for root in sorted(roots):
            if not await self._holdings.verify_sequence(key, root) or await self.heal(key, root):
                good.add(root)
        if good:
            await self._holdings.sign_again(key, good)

    # --- checking ---------------------------------------------------------------------------------------------------

    def attach(self, fetch: FetchSequence) -> None:
        """How chunks are fetched from other holders."""
        self._fetch = fetch

    async def heal(self, key: RecordKey, root: bytes) -> bool:
        """Fetches what is missing or damaged of one of our sequences from other holders. True when it is whole again."""
        facts = self.knowledge.records.get(key)
        assert self._fetch is not None
        if facts is None:
            return False
        name = root.hex()[:8]
        for sequence in await self._holdings.sequences_of(key):
            if sequence.root != root:
                continue
            bodies = await self._holdings.bodies(sequence.names)
            wanted = {index: sequence.names[index] for index, body in enumerate(bodies) if body is None}

            async def deliver(found: Sequence[tuple[int, bytes]], names: Mapping[int, ChunkName] = wanted) -> None:
                await self._holdings.put_back([(names[index], data) for index, data in found])

            try:
                await self._fetch(facts, SequenceRoot(root), wanted, deliver, set())
            except LadingError as error:
                self.alerts[f"damaged-{name}"] = f"sequence {name} is damaged here and no other holder has it: {error.message}"
                log.error("sequence damaged and not healed root=%s error=%s", name, error)
                return False
            whole = not await self._holdings.verify_sequence(key, root)
            if whole:
                self.alerts.pop(f"damaged-{name}", None)
                log.warning("sequence healed root=%s chunks=%d", name, len(wanted))
            return whole
        return False

    async def check(self, *, sample: float, repair: bool, progress: Progress) -> dict[str, object]:
        """Reads back a share of what is held here and hashes it; damaged sequences are withdrawn at once, and healed if asked."""
        held = [(key, root) for key, root, _, in_trash in await self._holdings.all_held() if not in_trash]
        chosen = [item for item in held if sample >= 1 or self._entropy.uniform() < sample]
        damaged: list[str] = []
        healed = 0
        for number, (key, root) in enumerate(chosen):
            progress({"phase": "reading back", "sequences": number, "sequences_total": len(chosen)})
            if await self._holdings.verify_sequence(key, root):
                damaged.append(root.hex())
                await self._holdings.withdraw(key, [root])
                if repair and await self.heal(key, root):
                    healed += 1
                    await self._holdings.sign_again(key, {root})
        return {"checked": len(chosen), "held": len(held), "damaged": len(damaged), "healed": healed, "sequences": damaged}

    async def _scrub_loop(self) -> None:
        """Reads everything back once in a scrub period, and renews the receipts of what was whole."""
        while True:
            held = [(key, root) for key, root, _, in_trash in await self._holdings.all_held() if not in_trash]
            pause = self._scrub_period_s / max(1, len(held))
            await trio.sleep(min(pause, self._scrub_period_s))
            for key, root in held:
                if await self._holdings.verify_sequence(key, root):
                    await self._holdings.withdraw(key, [root])
                    if not await self.heal(key, root):
                        continue
                if not self._is_leaving((key, root)):
                    await self._holdings.sign_again(key, {root})
                await trio.sleep(pause)

    async def _audit_loop(self) -> None:
        """Asks a holder now and then to prove a sequence that we hold too. A wrong answer takes it out of our placement for a day."""
        while True:
            await trio.sleep(AUDIT_INTERVAL_S * (0.5 + self._entropy.uniform()))
            held = [(key, root) for key, root, _, in_trash in await self._holdings.all_held() if not in_trash]
            if not held:
                continue
            key, root = held[int(self._entropy.uniform() * len(held)) % len(held)]
            facts = self.knowledge.records.get(key)
            if facts is None:
                continue
            others = [p for p in sorted(self.holders(facts).get(SequenceRoot(root), ())) if self._peers.is_connected(p)]
            if others:
                await self.audit(key, root, others[int(self._entropy.uniform() * len(others)) % len(others)])

    async def audit(self, key: RecordKey, root: bytes, peer: PeerId) -> bool:
        """Whether a holder proved that it has a sequence. Late or missing answers count as no proof of guilt: True."""
        sequence = next((s for s in await self._holdings.sequences_of(key) if s.root == root), None)
        if sequence is None:
            return True
        bodies = dict(zip(sequence.names, await self._holdings.bodies(sequence.names), strict=True))
        if any(body is None for body in bodies.values()):
            return True
        nonce = self._entropy.token(32)
        ranges = challenge(nonce, SequenceDescriptor(root=sequence.root, names=sequence.names, sizes=sequence.sizes))

        def read(name: bytes, offset: int, length: int) -> bytes:
            return (bodies[ChunkName(name)] or b"")[offset : offset + length]

        name = self.knowledge.peer_name(peer)
        try:
            client = await self._peers.exchange(peer)
            answered = await client.audit(nonce, tuple((one.name, one.offset, one.length) for one in ranges))
            check_answer(nonce, ranges, read, answered)
        except StreamBroken:
            return True
        except RemoteError as error:
            if error.reason not in (Reason.NOT_FOUND, Reason.INTEGRITY):
                return True
            self._distrust(root, peer, f"{name} says it holds a sequence and cannot show it: {error.message}")
            return False
        except InvalidObject:
            self._distrust(root, peer, f"{name} answered an audit with something else than the bytes")
            return False
        return True

    def _distrust(self, root: bytes, peer: PeerId, text: str) -> None:
        self._refused[(root, peer)] = self._clock.monotonic() + DISTRUST_S
        self.alerts[f"audit-{peer.hex()[-8:]}"] = text
        log.warning("audit failed peer=%s root=%s", self.knowledge.peer_name(peer), root.hex()[:8])
        self.look_again()

    # --- surplus ----------------------------------------------------------------------------------------------------

    def _is_leaving(self, mark: tuple[RecordKey, bytes]) -> bool:
        """Whether our copy of a sequence is withdrawn, so that no receipt may be signed for it."""
        machine = self._dropping.get(mark)
        return machine is not None and not machine.may_sign_receipt

    async def _weigh(
        self, facts: RecordFacts, sequence: HeldSequence, wanted: tuple[PeerId, ...], counting: frozenset[PeerId], nursery: trio.Nursery
    ) -> None:
        """Our copy of one sequence, held against placement: a surplus one goes by the careful way of repair.SurplusDrop."""
        mark = (facts.key, sequence.root)
        machine = self._dropping.get(mark)
        if machine is None:
            if self._own.peer_id in wanted or not wanted:
                return
            machine = self._dropping[mark] = SurplusDrop(self._own.peer_id, first_round=self._holdings.counter)
        await self._drop_step(machine, Weighed(frozenset(wanted), counting - {self._own.peer_id}), facts, sequence, nursery)
        if machine.state is DropState.WITHDRAWN:
            await self._drop_step(machine, Tick(), facts, sequence, nursery)

    async def _drop_step(
        self, machine: SurplusDrop, event: object, facts: RecordFacts, sequence: HeldSequence, nursery: trio.Nursery
    ) -> None:
        mark = (facts.key, sequence.root)
        for effect in machine.step(event, self._clock.monotonic()):
            match effect:
                case SignWithdrawal():
                    self._holdings.withhold(*mark, on=True)
                    await self._holdings.withdraw(facts.key, [sequence.root])
                case AskReceipts(holders, number):
                    for holder in holders:
                        nursery.start_soon(self._ask_receipt, machine, holder, number, facts, sequence, nursery)
                case SignReceipt():
                    self._holdings.withhold(*mark, on=False)
                    await self._holdings.sign_again(facts.key, {sequence.root})
                case DropCopy():
                    is_dropped = await self._holdings.drop_withheld(facts.key, sequence.root)
                    self._holdings.withhold(*mark, on=False)
                    self._dropping.pop(mark, None)
                    if is_dropped:
                        log.info("surplus copy dropped root=%s", sequence.root.hex()[:8])
                case _:
                    raise AssertionError(effect)

    async def _ask_receipt(
        self, machine: SurplusDrop, holder: PeerId, number: int, facts: RecordFacts, sequence: HeldSequence, nursery: trio.Nursery
    ) -> None:
        verdict = self.knowledge.verdict(facts)
        if verdict.statement is None:
            return
        signed, statement = facts.statement(verdict.statement)
        try:
            client = await self._peers.exchange(holder)
            answer = await client.confirm(signed, sequence_count(statement), ((sequence.index, sequence.root, sequence.path),))
        except (RemoteError, StreamBroken) as error:
            log.debug("no fresh receipt from=%s error=%s", self.knowledge.peer_name(holder), error)
            return
        if answer.receipt is None or answer.missing:
            return
        await self._facts.submit([(FactKind.RECEIPT, encode(answer.receipt))], holder)
        receipt = self._opened(answer.receipt, holder)
        if receipt is not None and any(sequence.root in item.sequence_roots for item in receipt.items):
            await self._drop_step(machine, ReceiptAnswered(holder, number), facts, sequence, nursery)

    async def _copy(self, copy: Copy, facts: RecordFacts, sequence: HeldSequence) -> None:
        mark = (bytes(copy.sequence_root), copy.target)
        ok = False
        try:
            verdict = self.knowledge.verdict(facts)
            if verdict.statement is None:
                return  # gone on purpose meanwhile
            signed, statement = facts.statement(verdict.statement)
            is_answered = await self._place_stated(copy.target, signed, sequence_count(statement), sequence, {})
            # Whoever says yes and signs for nothing is not sent the same again at once.
            ok = is_answered and copy.target in self.knowledge.counting(facts, now=self._now()).get(copy.sequence_root, ())
            if ok:
                log.info(
                    "sequence copied record=%s index=%d to=%s",
                    copy.hash_id.hex()[:8],
                    sequence.index,
                    self.knowledge.peer_name(copy.target),
                )
        except LadingError as error:
            log.info("copy failed to=%s error=%s", self.knowledge.peer_name(copy.target), error)
        finally:
            self._copying[mark] = self._clock.monotonic() + (0.0 if ok else COPY_RETRY_S)
            self.look_again(facts.key)
