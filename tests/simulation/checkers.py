"""What must hold in every world, looked at from outside: on each commit, on each frame, every few seconds, and at the end.

Checkers read disks and wires and believe no node. A violation is noted once and ends the world at its next look.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import trio

from node.bus import SUBSCRIPTION_FACTS_MAX
from protocols.codec import decode, encode
from protocols.crypto import sha256
from protocols.errors import InvalidObject
from protocols.exchange import messages as x
from protocols.files.holdings import open_hold, open_receipt
from protocols.files.sequences import sequence_count
from protocols.gossip import messages as g
from protocols.gossip.facts import FactKind, fact_id
from protocols.registry import decode_message, protocol_id
from protocols.signed import Signed
from protocols.types import ChunkName, PeerId, RecordKey, SequenceRoot
from storage import chunks, places
from storage.engine import Env, Put, Write
from storage.tables import BODIES, FACTS, OFFERED, ROOTS

if TYPE_CHECKING:
    from .workload import Published
    from .world import Machine, World

EXCHANGE = protocol_id("exchange")
GOSSIP = protocol_id("gossip")


class Violation(AssertionError):
    """A checker saw what must never be."""


class Checkers:
    """All of them, over one world."""

    def __init__(self, world: World, marker: bytes) -> None:
        """marker: bytes that stand in every plain file and name, and nowhere else."""
        self.world = world
        self.marker = marker
        self.noticed = trio.Event()
        self.first = ""
        self.commits = 0
        self.frames = 0
        self.looks = 0
        self._offered: set[bytes] = set()
        """Chunk names of sequences that were offered, which may leave before they are on a disk."""
        self._buried: dict[tuple[int, RecordKey], int] = {}
        """(machine, record) -> greatest number of a tombstone that was ever in force there."""

    def violate(self, text: str) -> None:
        """Notes a violation; the first one is what the world fails with."""
        if not self.first:
            self.first = text
            self.world.trace.note("violation", text=text)
            self.noticed.set()

    # --- disks ------------------------------------------------------------------------------------------------------

    def committed(self, machine: Machine, env: Env, batch: Sequence[Write]) -> None:
        """A batch is on the disk of ``machine``."""
        self.commits += 1
        for write in batch:
            if not isinstance(write, Put):
                continue
            if self.marker in write.value or self.marker in write.key:
                self.violate(f"{machine.name}: plain bytes in table {write.table.name}")
            if write.table is BODIES and not machine.is_rotting and not machine.lies:
                machine.rotten.discard(write.key)
                if sha256(write.value) != write.key:
                    self.violate(f"{machine.name}: bytes that are not what their name says, stored as {write.key.hex()[:8]}")
            elif write.table in (OFFERED, ROOTS):
                machine.roots_ever.add(write.key[:32])
            elif write.table is FACTS:
                # One that was kept before comes back from others when its end was not told before a kill: it is void at once.
                is_new = write.key not in machine.facts_ever
                machine.facts_ever.add(write.key)
                if write.value[0] == FactKind.RECEIPT and is_new and not machine.lies:
                    self._check_receipt(machine, bytes(write.value[1:]))

    def _check_receipt(self, machine: Machine, body: bytes) -> None:
        """A receipt of our own is true at the moment of its commit."""
        receipt = open_receipt(decode(body, Signed), machine.own.network_id)
        if receipt.holder != machine.own.peer_id:
            return
        for item in receipt.items:
            key = (item.owner, item.hash_id)
            for root in item.sequence_roots:
                if not self._is_held(machine, key, root) and not self._is_deleted_at(machine, key):
                    self.violate(f"{machine.name}: a receipt for sequence {root.hex()[:8]} that is not on its disk")

    def _is_held(self, machine: Machine, key: RecordKey, root: SequenceRoot) -> bool:
        """All chunks of a sequence are there and referenced, in trash or not."""
        with machine.disk(Env.CHUNKS).snapshot() as snapshot:
            held = chunks.sequence(snapshot, *key, root)
            return held is not None and all(snapshot.has(BODIES, name) for name in held.names)

    @staticmethod
    def _is_deleted_at(machine: Machine, key: RecordKey) -> bool:
        node = machine.node
        facts = node.knowledge.records.get(key) if node is not None else None
        return facts is not None and node is not None and node.knowledge.verdict(facts).tombstone is not None

    def copies_on_disk(self, key: RecordKey) -> dict[SequenceRoot, list[Machine]]:
        """Honest machines that have a sequence whole and not in trash, whether they run or not. Rotten chunks do not count."""
        found: dict[SequenceRoot, list[Machine]] = {}
        for machine in self.world.machines:
            if machine.lies:
                continue
            with machine.disk(Env.CHUNKS).snapshot() as snapshot:
                for held in chunks.sequences(snapshot, owner=key[0], hash_id=key[1]):
                    names = held.names
                    is_whole = held.trash_until is None and all(n not in machine.rotten and snapshot.has(BODIES, n) for n in names)
                    if is_whole:
                        found.setdefault(held.sequence_root, []).append(machine)
        return found

    def _readable(self, key: RecordKey) -> set[SequenceRoot]:
        """Sequences of which every chunk is whole on some honest disk, be it another for each."""
        names: dict[SequenceRoot, tuple[ChunkName, ...]] = {}
        whole: dict[SequenceRoot, set[bytes]] = {}
        for machine in self.world.machines:
            if machine.lies:
                continue
            with machine.disk(Env.CHUNKS).snapshot() as snapshot:
                for held in chunks.sequences(snapshot, owner=key[0], hash_id=key[1]):
                    if held.trash_until is None:
                        names[held.sequence_root] = held.names
                        here = (name for name in held.names if name not in machine.rotten and snapshot.has(BODIES, name))
                        whole.setdefault(held.sequence_root, set()).update(here)
        return {root for root, wanted in names.items() if whole[root] >= set(wanted)}

    # --- the wire ---------------------------------------------------------------------------------------------------

    def sent(self, source: PeerId, target: PeerId, protocol: str, frame: bytes) -> None:
        """A frame leaves ``source``. What it claims must be on that machine's disk already."""
        self.frames += 1
        machine = self.world.by_peer[source]
        self.world.trace.note("frame", at=machine.name, to=self.world.by_peer[target].name, size=len(frame), hash=sha256(frame)[:8])
        if self.marker in frame:
            self.violate(f"{machine.name}: plain bytes on the wire in {protocol}")
        if machine.lies or protocol not in (EXCHANGE, GOSSIP):
            return
        message = decode_message("exchange" if protocol == EXCHANGE else "gossip", frame)
        for one in self._claimed_facts(message):
            if one not in machine.facts_ever:
                self.violate(f"{machine.name}: {type(message).__name__} speaks of fact {one.hex()[:8]} before its commit")
        match message:
            case x.Placed(_, answer) if fact_id(FactKind.RECEIPT, encode(answer)) not in machine.facts_ever:
                self._check_hold(machine, answer)
            case x.Place():
                self._offered.update(message.names)
            case x.Chunk(_, _, data) if (name := sha256(data)) not in self.world.names_ever and name not in self._offered:
                self.violate(f"{machine.name}: sends an altered chunk")

    @staticmethod
    def _claimed_facts(message: object) -> Iterator[bytes]:
        match message:
            case g.Announce(ids):
                yield from ids
            case g.BucketIds(_, ids, _):
                yield from ids
            case g.Bodies(items):
                yield from (fact_id(kind, body) for kind, body in items)
            case x.Confirmed(_, receipt, _) if receipt is not None:
                yield fact_id(FactKind.RECEIPT, encode(receipt))

    def _check_hold(self, machine: Machine, answer: Signed) -> None:
        """Not a receipt that is on disk: then it must be a hold for a sequence that is."""
        try:
            hold = open_hold(answer, machine.own.network_id)
        except InvalidObject:
            self.violate(f"{machine.name}: a receipt is sent before its commit")
            return
        if hold.sequence_root not in machine.roots_ever:
            self.violate(f"{machine.name}: a hold is sent before its commit")

    # --- acknowledged -----------------------------------------------------------------------------------------------

    def acknowledged(self, record: Published, copies: int) -> None:
        """`put` has just answered: what it promised is on that many honest disks now."""
        found = self.copies_on_disk(record.key)
        node = record.owner.node
        assert node is not None
        facts = node.knowledge.records[record.key]
        statement = node.knowledge.verdict(facts).statement
        if statement is None:
            self.violate(f"record {record.name}: acknowledged, and no statement is in force at its owner")
            return
        record.roots = tuple(root for _, root in self._roots(record.key, statement))
        if len(record.roots) < record.sequences:
            self.violate(f"record {record.name}: acknowledged with {len(record.roots)} of {record.sequences} sequences on any disk")
        for root in record.roots:
            machines = found.get(root, [])
            if len(machines) < copies:
                self.violate(f"record {record.name}: acknowledged with {len(machines)} copies of {root.hex()[:8]}, {copies} promised")

    def look(self) -> None:
        """From time to time, and at the end."""
        self.looks += 1
        self._look_at_queues()
        self._look_at_deleted()
        for record in self.world.workload.records.values():
            if record.is_acknowledged:
                lost = len(set(record.roots) - self._readable(record.key))
                if lost:
                    self.violate(f"record {record.name}: acknowledged, and {lost} of its sequences are on no disk")

    def _look_at_queues(self) -> None:
        for machine in self.world.machines:
            node = machine.node
            if node is None:
                continue
            for mailbox in machine.mailboxes():
                if mailbox.queued_max > mailbox.capacity:
                    self.violate(f"{machine.name}: {mailbox.queued_max} messages before {mailbox.name}, at most {mailbox.capacity}")
            for name, longest in node.bus.queued_max().items():
                if longest > SUBSCRIPTION_FACTS_MAX:
                    self.violate(f"{machine.name}: {longest} facts wait for {name}, at most {SUBSCRIPTION_FACTS_MAX}")

    def _look_at_deleted(self) -> None:
        """Where a tombstone was in force once, the record is gone until its owner publishes it again."""
        for machine in self.world.machines:
            node = machine.node
            if node is None or not node.ready.is_set():
                continue
            for record in self.world.workload.records.values():
                facts = node.knowledge.records.get(record.key)
                if facts is None:
                    continue
                mark = (machine.number, record.key)
                verdict = node.knowledge.verdict(facts)
                if verdict.statement is not None:
                    _, statement = facts.statement(verdict.statement)
                    if statement.seq < self._buried.get(mark, 0):
                        self.violate(f"{machine.name}: deleted record {record.name} is in force again, and nobody published it anew")
                elif verdict.tombstone is not None:
                    self._buried[mark] = max(self._buried.get(mark, 0), verdict.tombstone.value.seq)

    # --- the end ----------------------------------------------------------------------------------------------------

    def disagreement(self) -> str:
        """What the honest machines do not agree about yet; empty when the world is as it should be."""
        nodes = [(machine, machine.node) for machine in self.world.machines if not machine.lies]
        digests = set()
        for machine, node in nodes:
            if node is None or not node.ready.is_set():
                return f"{machine.name} is not up"
            digests.add(node.knowledge.sketch.digest())
        if len(digests) > 1:
            counts = [node.knowledge.sketch.count for _, node in nodes if node is not None]
            return f"the machines know different facts: {counts}"
        for machine, node in nodes:
            assert node is not None
            now = int(machine.clock.now())
            for key, facts in sorted(node.knowledge.records.items()):
                verdict = node.knowledge.verdict(facts)
                name = f"record {key[1].hex()[:8]}"
                if verdict.statement is None:
                    if self._is_referenced(machine, key):
                        return f"{machine.name}: deleted {name} is still held"
                    continue
                _, statement = facts.statement(verdict.statement)
                counted = node.knowledge.counting(facts, now=now)
                if len(counted) < sequence_count(statement):
                    return f"{machine.name}: {name} has receipts for {len(counted)} of {sequence_count(statement)} sequences"
                on_disk = self.copies_on_disk(key)
                for index, root in self._roots(key, verdict.statement):
                    for peer in node.replication.wanted(facts, statement, index, root):
                        other = self.world.by_peer[peer]
                        if peer not in counted.get(root, ()):
                            return f"{machine.name}: {name} sequence {index} lacks a receipt of {other.name}"
                        if not other.lies and other not in on_disk.get(root, ()):
                            return f"{machine.name}: {name} sequence {index} is not whole on {other.name}"
        return ""

    def _is_referenced(self, machine: Machine, key: RecordKey) -> bool:
        with machine.disk(Env.CHUNKS).snapshot() as snapshot:
            return any(held.trash_until is None for held in chunks.sequences(snapshot, owner=key[0], hash_id=key[1]))

    def _roots(self, key: RecordKey, object_hash: bytes) -> list[tuple[int, SequenceRoot]]:
        """(index, root) of the sequences of one statement, as all honest disks together know them."""
        found: dict[int, SequenceRoot] = {}
        for machine in self.world.machines:
            if machine.lies:
                continue
            with machine.disk(Env.CHUNKS).snapshot() as snapshot:
                for index, place in places.places(snapshot, *key):
                    held = chunks.sequence(snapshot, *key, SequenceRoot(place.root))
                    if held is not None and held.object_hash == object_hash:
                        found[index] = held.sequence_root
        return sorted(found.items())

    def check_bodies(self) -> None:
        """Every chunk on every honest disk is what its name says, those that rot was planted in excepted."""
        for machine in self.world.machines:
            with machine.disk(Env.CHUNKS).snapshot() as snapshot:
                for name, body in snapshot.scan(BODIES):
                    if not machine.lies and name not in machine.rotten and sha256(body) != name:
                        self.violate(f"{machine.name}: chunk {name.hex()[:8]} is not what its name says")
