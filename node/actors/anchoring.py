"""This member's records on their way onto the chain, and what people ask about that.

One task owns the question "what of ours is not anchored yet". Its answer comes from what is durable: statements in force that are facts
here, intents and logs in their tables, transactions made here in the chain's own table, and the state of the chain. It looks again
whenever a fact of ours, a head or a final block comes, and now and then by itself; nothing is remembered that a look would not find again.
The rules are `protocols/ledger/filing.py`. An ack never waits for it.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Callable, Collection, Container, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TypeVar

import trio

from protocols.codec import decode
from protocols.crypto import SigningKey
from protocols.errors import DecodeError, InvalidObject, InvalidTransaction, LadingError, LocalError, Partial, Reason, Refused
from protocols.files import journal
from protocols.files.holdings import Receipt
from protocols.files.journal import Step
from protocols.files.objects import Statement, Tombstone
from protocols.gossip.facts import FactKind
from protocols.identity.certificates import NodeIdentity
from protocols.ledger import filing
from protocols.ledger.context import ACCOUNT, CHAIN, KEY, Account, KeyUse
from protocols.ledger.envelope import Content, Transaction, sign_transaction
from protocols.ledger.filing import Asked, Fate, Filed, Intent, Next, Waiting
from protocols.ledger.profile import Policy
from protocols.ledger.state import Key
from protocols.ledger.transactions import erase, expiry_extend, folder_update, record_anchor, storage_receipt
from protocols.ledger.transactions.folder_update import FOLDER, FolderState
from protocols.ledger.transactions.records import PENDING, RECORD, Owners, Parent, RecordState, record_key
from protocols.ledger.transactions.storage_receipt import HOLDING, Holding
from protocols.ledger.transition import slot_start_ms
from protocols.limits import (
    ANCHOR_LIFE_MS,
    ANCHORS_WAITING_MAX,
    FOLDER_LIFE_MS,
    FOLDER_PAUSE_S,
    RECEIPT_BYTES_MAX,
    RECEIPTS_PAUSE_S,
)
from protocols.merkle import merkle_root
from protocols.signed import Signed
from protocols.types import AccountId, BlockHash, Digest, HashId, MemberId, OwnerKey, PeerId, RecordKey, TxId, UnixMillis
from storage import anchors, chain
from storage.chain_proofs import height_of_slot
from storage.engine import Snapshot, Write
from storage.tables import FACTS

from ..bus import Bus
from ..clock import Clock
from ..own import OwnKeys
from ..pendings import NO_STATEMENT, Waits, find_waits, is_seen, scan_space
from .chain import BlockFinal, HeadMovedTo
from .chain_port import ChainPort
from .facts import FactsAccepted, FactsHandle
from .storage import StorageHandle

log = logging.getLogger(__name__)
T = TypeVar("T")

LOOK_S = 5.0
# Who is taking records has no time for those that came just now: a look waits until none has come for so long, at most PUT_OFF_S. A stream
# of puts pays few commits for it, and no ack waits.
PAUSE_S = 0.25
PUT_OFF_S = 3.0
# What another node of this member said anew of a record on the chain is that node's to anchor; it may have died since. A record that is
# not there is that node's alone: nobody else knows what was asked for.
OTHERS_S = 20.0
# What was refused is tried again after so long, twice as long each time, however many blocks come.
RETRY_S_MIN, RETRY_S_MAX = 1.0, 60.0
ALERT_AFTER_S = 60.0
BY_ITSELF = "it is tried again by itself"
AUDIT_AFTER_S = 60
# Of a put that waits for the ledger, since the record last came further: a heartbeat is longer, a chain that moves much quicker.
FINAL_PATIENCE_S = 60.0
# A put does not wait longer for what a light node has to have proven before its member's first record.
FIRST_USE_PATIENCE_S = 3.0
# Read, judged and signed in one turn of a pool thread.
RECORDS_PER_LOOK_MAX = 256
# Own receipts that the chain may still have to hear of. Those of a store that is refilled at once come back with their renewal.
RECEIPTS_UNRECORDED_MAX = 4096
RECEIPT_WAITS_S = 3600.0
RECEIPTS_PER_LOOK_MAX = 256
RECORDS_PER_SLICE = 512


class Anew(enum.Enum):
    """What a put of a record that exists changes about its anchor."""

    NOTHING = "nothing"
    ASKED = "asked"  # its other owners, who refused or did not answer, are asked once more
    HERE = "here"  # another node published it, and now this one anchors it too


@dataclass(frozen=True, slots=True)
class _Own:
    """A statement of ours in force."""

    hash_id: HashId
    signed: Signed
    statement: Statement


@dataclass(slots=True)
class _Made:
    """An anchor, or an Erase, that was made here and is not final. object_hash: of the statement."""

    transaction: Transaction
    object_hash: Digest
    is_refused: bool = False

    def waiting(self, pool: Container[object]) -> Waiting:
        """As the rules see it."""
        name = self.transaction.id
        return Waiting(name, self.object_hash, self.transaction.content.until_ms, name in pool, self.is_refused)


@dataclass(slots=True)
class _Trouble:
    """Why a record cannot be anchored now. is_answer: others were asked and did not say yes, so nothing is tried again.

    cure: what follows, for the operator.
    """

    text: str
    since: float
    again_at: float
    pause_s: float
    is_answer: bool = False
    cure: str = BY_ITSELF


@dataclass(slots=True)
class _Plan:
    """What one look found. moves: per record; writes: logs, intents, whom was asked; submits, erases: transactions made or made again, by
    record; erased: those that the chain has as erased; unanswered: those whose other owners did not say yes; elsewhere: those that another
    node of this member published."""

    moves: dict[HashId, Next] = field(default_factory=dict)
    writes: list[Write] = field(default_factory=list)
    submits: dict[HashId, _Made] = field(default_factory=dict)
    erases: dict[HashId, _Made] = field(default_factory=dict)
    erased: set[HashId] = field(default_factory=set)
    unanswered: set[HashId] = field(default_factory=set)
    elsewhere: set[HashId] = field(default_factory=set)
    folder: Transaction | None = None
    has_account: bool = True


class Anchoring:
    """See the module."""

    def __init__(self, own: OwnKeys, chain: ChainPort, facts: FactsHandle, ledger: StorageHandle, clock: Clock, bus: Bus) -> None:
        self.alerts: dict[str, str] = {}
        self._own = own
        self._chain = chain
        self._facts = facts
        self._ledger = ledger
        self._clock = clock
        self._bus = bus
        self._open: dict[HashId, None] = {}
        """Own records that are not known to be final; in the order in which they came."""
        self._made: dict[HashId, _Made] = {}
        self._troubles: dict[HashId, _Trouble] = {}
        self._erasing: dict[HashId, _Made] = {}
        self._erased_ms: dict[HashId, int] = {}
        """Block time of the head at which a record was first seen erased: final when that is."""
        self._later: dict[HashId, float] = {}
        """When to look at records of which another node of this member said something."""
        self._others: set[HashId] = set()
        """Open records that other nodes of this member may have asked others about."""
        self._is_in_use = False  # there was a record of this member once
        self._folder: TxId | None = None
        self._is_folder_due = True
        self._receipts: dict[bytes, float] = {}
        """Fact ids of own receipts that may have to be recorded, and since when."""

    # --- verbs --------------------------------------------------------------------------------------------------------

    async def intend(self, intents: Sequence[tuple[HashId, Intent]]) -> None:
        """What the anchors of records that are about to exist shall say. Durable when this returns."""
        await self._ledger.write([anchors.put_intent(hash_id, intent) for hash_id, intent in intents])

    async def check_first_use(self, schema: str) -> None:
        """Before this member's first record, which makes its profile and its folder: whether it may act. Raises Refused with the reason;
        passes where there are records of it, or no chain to ask."""
        self._is_in_use = self._is_in_use or any(owner == self._own.owner for owner, _ in self._facts.knowledge.records)
        if self._chain.facts is None or self._is_in_use:
            return
        member = self._own.member_id
        if self._facts.knowledge.revocations.is_revoked(self._own.identity.path):
            raise _unusable(Reason.REVOKED, "its certificate is revoked")
        if not self._chain.keeps_state:
            with trio.move_on_after(FIRST_USE_PATIENCE_S), suppress(Refused):  # as far as it can be proven now
                await self._chain.bring([*self._account_keys(), (FOLDER, member + filing.FOLDER.encode())])
        time_ms = self._head_ms()

        def check(snapshot: Snapshot) -> None:
            policy = _load(snapshot, CHAIN, b"policy", Policy)
            if policy is not None and _load(snapshot, FOLDER, member + filing.FOLDER.encode(), FolderState) is None:
                filing.check_first_use(_load(snapshot, ACCOUNT, member, Account), policy, schema, time_ms)

        try:
            await self._ledger.read(check)
        except InvalidTransaction as error:
            raise _unusable(error.reason, error.message) from error
        if member in self._facts.knowledge.denied:
            raise _unusable(Reason.SUSPENDED, "the ledger is about to suspend or revoke it")

    async def put_again(self, key: RecordKey, intent: Intent | None) -> Anew:
        """A person puts a record that exists and is not on the chain. intent: what its anchor shall say, None for a plain one, by which
        nobody is asked again."""
        own = self._own_statement(key[1]) if key[0] == self._own.owner else None
        if own is None:
            return Anew.NOTHING
        kind, statement = record_anchor.KIND.number, own.signed.object_hash

        def look(snapshot: Snapshot) -> Anew:
            is_waiting = any(one.statement == statement for one in find_waits(snapshot, key[1]))
            if is_waiting or read_record(snapshot, key) is not None:
                return Anew.NOTHING
            if anchors.ask(snapshot, kind, key[1], statement) is not None:
                return Anew.NOTHING if intent is None else Anew.ASKED
            return Anew.HERE if anchors.is_elsewhere(snapshot, key[1]) else Anew.NOTHING

        anew = await self._ledger.read(look)
        if anew is Anew.NOTHING:
            return anew
        wish = anchors.drop_intent(key[1]) if intent is None else anchors.put_intent(key[1], intent)
        await self._ledger.write([wish, anchors.drop_ask(kind, key[1]), anchors.drop_elsewhere(key[1])])
        self._made.pop(key[1], None)
        self._troubles.pop(key[1], None)
        self._later.pop(key[1], None)
        self._others.discard(key[1])
        self._open[key[1]] = None
        self._bus.publish(FactsAccepted((), frozenset({int(FactKind.STATEMENT)}), None, frozenset({key})))
        return anew

    async def wait_final(self, key: RecordKey, progress: Callable[[Mapping[str, object]], None]) -> None:
        """Until a record is final. Raises Partial(NOT_FINAL) when others have to approve it, or nothing moves for FINAL_PATIENCE_S."""
        with self._bus.subscribe(HeadMovedTo, BlockFinal, FactsAccepted, name="final") as news:
            patience_at, before = self._clock.monotonic() + FINAL_PATIENCE_S, ""
            while (state := str(self.standing(key)["state"])) != "final":
                if state != before:
                    before, patience_at = state, self._clock.monotonic() + FINAL_PATIENCE_S
                    progress({"phase": "waiting for the ledger", "waiting_for": [f"the record is {state}"]})
                trouble = self._troubles.get(key[1])
                left = patience_at - self._clock.monotonic()
                if left <= 0 or state == "pending" or (trouble is not None and trouble.is_answer):
                    why = trouble.text if trouble is not None else f"it is {state}"
                    raise Partial(
                        Reason.NOT_FINAL,
                        f"record {key[1].hex()[:16]} is stored as asked, and not final on the ledger: {why}",
                        hint=f"lading file status {key[1].hex()[:16]} shows what it waits for",
                        record=key[1].hex(),
                        state=state,
                    )
                with trio.move_on_after(min(left, LOOK_S)):
                    await news.__anext__()
                    news.take_nowait()

    def standing(self, key: RecordKey) -> dict[str, object]:
        """`tx`, `state` and `validity` of a record, here and now: a few small reads."""
        made = self._made_for(key)
        return self._standing(key, self._ledger.peek(lambda snapshot: _stand(snapshot, key, *made)))

    def standing_of_new(self, key: RecordKey) -> dict[str, object]:
        """The same of a record of ours that was published here just now: as long as no anchor was made for it, nobody was asked."""
        if key[1] in self._made:
            return self.standing(key)
        record = self._ledger.peek(lambda snapshot: read_record(snapshot, key))
        return self._standing(key, _Stand(record, None, is_pending=False, is_ended=False))

    def _made_for(self, key: RecordKey) -> tuple[Digest | None, TxId | None]:
        """The statement in force of a record of ours, and the newest anchor of it that is known."""
        own = self._own_statement(key[1]) if key[0] == self._own.owner else None
        if own is None:
            return None, None
        made = self._made.get(key[1])
        return own.signed.object_hash, None if made is None else made.transaction.id

    def _standing(self, key: RecordKey, stand: _Stand) -> dict[str, object]:
        record = stand.record
        validity = filing.validity_of(record, is_ended=stand.is_ended, time_ms=self._head_ms()).value
        if record is not None and record.seq >= self._seq(key):
            state = "final" if record.block_ms <= self._final_ms() else "in_block"
            return {"tx": record.anchor.hex(), "state": state, "validity": validity}
        if stand.transaction is None:
            return {"tx": None, "state": "local", "validity": validity}
        pooled = "pooled" if stand.transaction in self._chain.pool else "local"
        return {"tx": stand.transaction.hex(), "state": "pending" if stand.is_pending else pooled, "validity": validity}

    def _seq(self, key: RecordKey) -> int:
        """Number of the statement in force; 0 for none."""
        knowledge = self._facts.knowledge
        facts = knowledge.records.get(key)
        found = knowledge.verdict(facts).statement if facts is not None else None
        return 0 if facts is None or found is None else facts.statement(found)[1].seq

    async def standings(self, keys: Sequence[RecordKey]) -> list[dict[str, object]]:
        """The same of many. What a light node cannot have proven now is as it was."""
        with suppress(Refused):
            await self._chain.bring([(RECORD, record_key(*key)) for key in keys])
        made = [self._made_for(key) for key in keys]
        found = await self._ledger.read(lambda snapshot: [_stand(snapshot, key, *one) for key, one in zip(keys, made, strict=True)])
        return [self._standing(key, stand) for key, stand in zip(keys, found, strict=True)]

    async def report(self, key: RecordKey) -> dict[str, object]:
        """All that the chain says of a record, for `file status`. Times in Unix seconds, 0 for no end."""
        unproven = await self._bring_report(key)
        final_ms, facts = self._final_ms(), self._chain.facts
        found = await self._ledger.read(lambda snapshot: _read_report(snapshot, key))
        data = self.standing(key)
        if unproven:
            data["unproven"] = unproven
        if (trouble := self._troubles.get(key[1])) is not None and key[0] == self._own.owner:
            data["waiting_for"] = trouble.text
        if found.journal:
            data["log"] = [_step_row(step) for step in found.journal]
        if found.waits:
            data["waiting_for"] = "the approval of others"
            data["pending"] = [self.wait_row(one) for one in found.waits]
        if found.record is None or facts is None:
            return data
        record = found.record
        steps = 0
        if found.journal:
            try:
                steps = journal.check_journal(found.journal, key[1], record.log_head)
            except InvalidObject as error:
                log.error("a record's log is not what was anchored record=%s error=%s", key[1].hex()[:16], error)
        slot = (record.block_ms - facts.genesis_ms) // facts.profile.slot_ms
        height = await self._ledger.read(lambda snapshot: height_of_slot(snapshot, slot))
        if not self._chain.keeps_state:
            where = await self._chain.where(record.anchor, record.block_ms) if record.block_ms <= final_ms else None
            height = None if where is None else where.row.info.height
            data["proof"] = "record only" if where is None else "record and place"
        return data | {
            "height": height,
            "status": record.status,
            "change": record.change,
            "parents": [parent.hash_id.hex() for parent in record.parents],
            "tags": dict(record.tags),
            "block_time": record.block_ms / 1000,
            "sender_time": record.sender_ms / 1000,
            "upload_time": record.upload_ms / 1000,
            "valid_from": record.valid_from_ms / 1000,
            "valid_until": record.valid_until_ms / 1000,
            "level": record.level,
            "schema": record.schema,
            **self._owners_row(record.owners),
            "is_this_statement": self._is_in_force(key, record.statement),
            "changes": [
                {
                    "record": other.hash_id.hex(),
                    "change": state.change,
                    "status": state.status,
                    "state": "final" if state.block_ms <= final_ms else "in_block",
                }
                for other, state in found.children
            ],
            "newest": [other.hex() for other in found.newest],
            "recorded_holders": len(found.holdings),
            "log_steps_anchored": steps,
        }

    def wait_row(self, waits: Waits) -> dict[str, object]:
        """A transaction that waits for approvals, for people: who has said what, who lacks, until when. Times in Unix seconds."""
        pending, body = waits.pending, waits.body
        row: dict[str, object] = {
            "id": waits.id.hex(),
            "kind": waits.kind_name,
            "record": waits.key[1].hex(),
            "asked_by": self._member_row(pending.sender),
            "approved": [self._member_row(name) for name in pending.yes],
            "refused": [self._member_row(name) for name in pending.no],
            "lacking": [self._member_row(name) for name in waits.lacking],
            "needed": pending.needed,
            "deadline": pending.deadline_ms / 1000,
            "state": "final" if waits.since_ms is not None and waits.since_ms <= self._final_ms() else "in_block",
        }
        match body:
            case record_anchor.Body():
                row |= {
                    "change": body.change,
                    "parents": [parent.hash_id.hex() for parent in body.parents],
                    "tags": dict(body.tags),
                    "level": body.level,
                    "schema": body.schema,
                    **self._owners_row(body.owners),
                }
            case expiry_extend.Body():
                row["valid_until"] = body.valid_until_ms / 1000
            case erase.Body():
                row["scope"] = body.scope
        return row

    def _owners_row(self, owners: Owners) -> dict[str, object]:
        return {
            "owners": [self._member_row(name) for name in owners.owners],
            "approvers": [self._member_row(name) for name in owners.approvers],
            "approvers_needed": owners.access_threshold,
        }

    def _member_row(self, account: AccountId) -> dict[str, object]:
        identity = self._facts.knowledge.members().get(MemberId(account))
        return {"name": identity.member if identity is not None else account.hex()[:8], "member": account.hex()}

    def _is_in_force(self, key: RecordKey, statement: Digest) -> bool:
        facts = self._facts.knowledge.records.get(key)
        return facts is not None and self._facts.knowledge.verdict(facts).statement == statement

    async def folder(self, owner: OwnerKey, root: bytes | None = None) -> dict[str, object]:
        """An owner's folder: what its name points to, and the records that this is, recomputed. root: an earlier version's.

        Raises LadingError(NOT_FOUND).
        """
        await self._bring_folder(owner)
        final_ms = self._final_ms()
        found = await self._ledger.read(lambda snapshot: _read_folder(snapshot, owner, root))
        if found is None:
            raise LadingError(Reason.NOT_FOUND, "this owner has no folder on the chain", hint="lading ledger status")
        account, state, filed = found
        wanted = state.root if root is None else root
        return {
            "owner": owner.hex(),
            "account": account.hex(),
            "name": filing.FOLDER,
            "root": wanted.hex(),
            "sequence": state.sequence,
            "is_newest": wanted == state.root,
            "verified": filed is not None,
            "records": [
                {
                    "record": one.hash_id.hex(),
                    "statement": one.statement.hex(),
                    "state": "final" if one.block_ms <= final_ms else "in_block",
                }
                for one in filed or ()
            ],
        }

    async def newest(self, key: RecordKey) -> tuple[HashId, ...]:
        """Where changes of a record have led; empty while it is the newest itself. A light node knows of its own changes alone."""
        return (await self._ledger.read(lambda snapshot: _read_report(snapshot, key))).newest

    async def audit(self) -> dict[str, object]:
        """Whether each record on the chain has its statement here, and each statement of this domain its anchor: both directions.

        Statements younger than AUDIT_AFTER_S are passed over. A light node has no list of what is on the chain.
        """
        if not self._chain.keeps_state:
            return {"not_kept": "a light node keeps no list of records: ask a full node"}
        final_ms, knowledge = self._final_ms(), self._facts.knowledge
        anchored = await self._ledger.read(lambda snapshot: _anchored(snapshot, final_ms))
        unknown: list[str] = []
        other: list[str] = []
        for key, statement in anchored.items():
            facts = knowledge.records.get(key)
            if facts is None or not facts.objects:
                unknown.append(key[1].hex())
            elif statement not in facts.objects:
                other.append(key[1].hex())
        old_s = int(self._clock.now()) - AUDIT_AFTER_S
        bare: list[str] = []
        for key, facts in tuple(knowledge.records.items()):
            found = knowledge.verdict(facts).statement
            if found is not None and key not in anchored:
                statement_of = facts.statement(found)[1]
                if statement_of.domain == self._own.domain_id and statement_of.time_s < old_s:
                    bare.append(key[1].hex())
        return {"anchored": len(anchored), "not_known_here": unknown, "other_statement": other, "not_anchored": bare}

    # --- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled. A node without its member's keys, a holder, has no records; it anchors nothing."""
        if self._own.member is None:
            await trio.sleep_forever()
        await self._facts.loaded()
        await self._find_made()
        self._find_open()
        await self._find_receipts()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._anchor_always)
            nursery.start_soon(self._record_receipts_always)
            nursery.start_soon(self._update_folder_always)

    async def _anchor_always(self) -> None:
        def wanted(fact: object) -> bool:
            if not isinstance(fact, FactsAccepted):
                return True
            if FactKind.RECEIPT in fact.kinds and (fact.source is None or len(self._recorded_for()) > 1):
                return True
            return any(owner == self._own.owner for owner, _ in fact.records)

        with self._bus.subscribe(FactsAccepted, HeadMovedTo, BlockFinal, name="anchoring", wanted=wanted) as news:
            lost = 0
            await self._look(tuple(self._open))
            while True:
                facts: list[object] = []
                with trio.move_on_after(LOOK_S if self._open else float("inf")):
                    facts.append(await news.__anext__())
                put_off_until, is_coming = trio.current_time() + PUT_OFF_S, bool(facts)
                while is_coming and trio.current_time() < put_off_until:
                    await trio.sleep(PAUSE_S)
                    more = news.take_nowait()
                    is_coming = any(isinstance(one, FactsAccepted) for one in more)
                    facts += more
                has_moved = not all(isinstance(one, FactsAccepted) for one in facts) or not facts
                fresh: dict[HashId, None] = {}
                for one in facts:
                    if isinstance(one, FactsAccepted):
                        self._hear(one, fresh)
                if news.lost > lost:
                    lost = news.lost
                    self._find_open()
                    await self._find_receipts()
                    has_moved = True
                self._open.update(fresh)
                if self._open.keys() & self._others:
                    await self._note_asks([one.hash for one in facts if isinstance(one, BlockFinal)])
                await self._look(tuple(self._open if has_moved else fresh))

    def _hear(self, fact: FactsAccepted, fresh: dict[HashId, None]) -> None:
        if FactKind.STATEMENT in fact.kinds or FactKind.TOMBSTONE in fact.kinds:
            mine = [hash_id for owner, hash_id in sorted(fact.records) if owner == self._own.owner]
            fresh.update(dict.fromkeys(mine))
            if fact.source is not None:
                now = self._clock.monotonic()
                others = [hash_id for hash_id in mine if hash_id not in self._open]
                self._later.update((hash_id, now + OTHERS_S) for hash_id in others)
                self._others.update(others)
        if FactKind.RECEIPT not in fact.kinds:
            return
        if fact.source is None:
            self._note_receipts(fact.ids)
        elif len(holders := self._recorded_for()) > 1:
            ids = frozenset(fact.ids)
            for key in sorted(fact.records):
                facts = self._facts.knowledge.records.get(key)
                if facts is not None:
                    self._note_receipts(one for one in ids & facts.receipts.keys() if facts.receipts[one].holder in holders)

    def _recorded_for(self) -> frozenset[PeerId]:
        """Whose receipts this node brings onto the chain: its own, and those of its member's nodes that have no keys to do so."""
        mine = self._own_nodes()
        return frozenset({self._own.peer_id, *(PeerId(one.peer_id) for one in mine if one.holder_only)})

    def _own_nodes(self) -> list[NodeIdentity]:
        """Those of our member that hold a certificate now, by rising peer id."""
        certified = self._facts.knowledge.certified(int(self._clock.now()))
        mine = [entry.identity for entry in certified.values() if entry.identity.member_id == self._own.member_id]
        return sorted(mine, key=lambda one: one.peer_id)

    def _turn_s(self) -> float:
        """How long this node leaves the receipts of others to the full nodes of its member before it: one of them does, the rest find
        them on the chain."""
        full = [PeerId(one.peer_id) for one in self._own_nodes() if not one.holder_only]
        return 2 * RECEIPTS_PAUSE_S * (full.index(self._own.peer_id) if self._own.peer_id in full else len(full))

    def _final_ms(self) -> int:
        """Block time of the latest final block; -1 before there is a chain."""
        slot, facts = self._chain.final_slot(), self._chain.facts
        if slot is None or facts is None:
            return -1
        return slot_start_ms(slot, genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms)

    def _head_ms(self) -> int:
        """Block time of the head; -1 before there is a chain."""
        facts = self._chain.facts
        return -1 if facts is None else slot_start_ms(facts.slot, genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms)

    def _signing(self) -> SigningKey:
        assert self._own.member is not None
        return self._own.member.signing

    # --- what there is ------------------------------------------------------------------------------------------------

    def _find_open(self) -> None:
        """All our records in force, oldest first: a look finds out which are final."""
        names = self._own_records()
        found = [own for hash_id in names if (own := self._own_statement(hash_id)) is not None]
        found.sort(key=lambda own: (own.statement.time_s, own.hash_id))
        self._open = {own.hash_id: None for own in found}
        self._open.update((hash_id, None) for hash_id in names if self._erasure(hash_id) is not None)

    def _own_records(self) -> list[HashId]:
        return [hash_id for owner, hash_id in self._facts.knowledge.records if owner == self._own.owner]

    def _own_statement(self, hash_id: HashId) -> _Own | None:
        knowledge = self._facts.knowledge
        facts = knowledge.records.get((self._own.owner, hash_id))
        found = knowledge.verdict(facts).statement if facts is not None else None
        if facts is None or found is None:
            return None
        signed, statement = facts.statement(found)
        if statement.domain != self._own.domain_id:
            return None  # a member of several domains has this record in another one
        return _Own(hash_id, signed, statement)

    def _erasure(self, hash_id: HashId) -> Digest | None:
        """The tombstone in force of a record of ours that is erased, and not only deleted: by its hash."""
        knowledge = self._facts.knowledge
        facts = knowledge.records.get((self._own.owner, hash_id))
        verdict = knowledge.verdict(facts) if facts is not None else None
        if verdict is None or verdict.statement is not None or verdict.tombstone is None:
            return None
        tombstone = verdict.tombstone.value
        assert isinstance(tombstone, Tombstone)
        is_ours = tombstone.act == "erase" and tombstone.domain == self._own.domain_id
        return verdict.tombstone.object_hash if is_ours else None

    async def _find_made(self) -> None:
        """Anchors and erasures of ours that were submitted and are not final, from the chain's own table."""
        kept = await self._ledger.read(chain.own_transactions)
        self._made, self._erasing = {}, {}
        for transaction in sorted(kept, key=lambda one: one.content.ts_ms):
            if transaction.content.kind == record_anchor.KIND.number:
                body = decode(transaction.content.body, record_anchor.Body)
                statement = decode(body.statement.body, Statement)
                if statement.owner == self._own.owner:
                    self._made[statement.hash_id] = _Made(transaction, body.statement.object_hash)
            elif transaction.content.kind == erase.KIND.number:
                order = decode(transaction.content.body, erase.Body)
                if order.owner == self._own.owner:
                    self._erasing[order.hash_id] = _Made(transaction, Digest(bytes(32)))

    # --- what a light node has to ask for first ------------------------------------------------------------------------

    def _account_keys(self) -> list[Key]:
        return [(KEY, self._own.owner), (ACCOUNT, self._own.member_id), (CHAIN, b"policy")]

    async def _bring_own(self, names: Collection[HashId]) -> None:
        """What a look reads of these records of ours. Raises Refused(UNREACHABLE)."""
        if self._chain.keeps_state:
            return
        intents = await self._ledger.read(lambda snapshot: [anchors.intent(snapshot, hash_id) for hash_id in names])
        made = [self._made[hash_id].transaction.id for hash_id in names if hash_id in self._made]
        records = [(self._own.owner, hash_id) for hash_id in names]
        records += [(parent.owner, parent.hash_id) for intent in intents for parent in intent.parents]
        keys: list[Key] = [*self._account_keys(), *((RECORD, record_key(*key)) for key in records), *((PENDING, name) for name in made)]
        await self._chain.bring(keys)

    async def _bring_folder(self, owner: OwnerKey) -> None:
        """An owner's folder, and every record of the owner that is known here by its facts."""
        if self._chain.keeps_state:
            return
        await self._chain.bring([(KEY, owner)])
        use = await self._ledger.read(lambda snapshot: _load(snapshot, KEY, owner, KeyUse))
        if use is None:
            return
        await self._chain.bring([(ACCOUNT, use.account), (FOLDER, use.account + filing.FOLDER.encode())])
        known = [key for key in tuple(self._facts.knowledge.records) if key[0] == owner]
        await self._chain.bring([(RECORD, record_key(*key)) for key in known], is_fresh=owner != self._own.owner)

    async def _bring_report(self, key: RecordKey) -> str:
        """A record and what its known holders have recorded. Result: why it could not be proven now; empty when it was."""
        if self._chain.keeps_state:
            return ""
        facts = self._facts.knowledge.records.get(key)
        holders = sorted({receipt.holder for receipt in facts.receipts.values()}) if facts is not None else []
        place = record_key(*key)
        try:
            await self._chain.bring([(RECORD, place), *((HOLDING, place + holder) for holder in holders)])
        except Refused as error:
            return error.message
        return ""

    async def _bring_receipts(self, names: Collection[bytes]) -> None:
        """What is read of the records that own receipts speak of."""
        if self._chain.keeps_state:
            return

        def read(snapshot: Snapshot) -> list[Key]:
            keys: list[Key] = []
            for one in names:
                signed = _receipt_fact(snapshot, one)
                if signed is None:
                    continue
                receipt = decode(signed.body, Receipt)
                for item in receipt.items:
                    place = record_key(item.owner, item.hash_id)
                    keys += [(RECORD, place), (HOLDING, place + receipt.holder)]
            return keys

        await self._chain.bring([*self._account_keys(), *await self._ledger.read(read)])

    # --- one look -----------------------------------------------------------------------------------------------------

    async def _look(self, names: Sequence[HashId]) -> None:
        """Sees where these records stand and does what is to be done. What fails is seen again by the next look."""
        if self._chain.facts is None:
            return
        for start in range(0, len(names), RECORDS_PER_LOOK_MAX):
            try:
                await self._look_at(names[start : start + RECORDS_PER_LOOK_MAX])
            except LocalError:
                raise
            except LadingError as error:
                log.warning("records not anchored now, again later error=%s", error)
                return
        self._tell_alerts()

    async def _look_at(self, names: Sequence[HashId]) -> None:
        wanted: list[_Own] = []
        erased: list[HashId] = []
        gone: list[HashId] = []
        now = self._clock.monotonic()
        for hash_id in names:
            trouble = self._troubles.get(hash_id)
            is_due = self._later.get(hash_id, 0.0) <= now and (trouble is None or trouble.again_at <= now)
            if (own := self._own_statement(hash_id)) is not None:
                wanted += [own] if is_due else []
            elif self._erasure(hash_id) is not None:
                erased += [hash_id] if is_due else []
            else:
                gone.append(hash_id)
        if gone:  # what was asked for then is not meant for what may be put again
            await self._ledger.write([anchors.drop_intent(hash_id) for hash_id in gone])
            for hash_id in gone:
                self._forget(hash_id)
        if not wanted and not erased:
            return
        await self._bring_own([*(own.hash_id for own in wanted), *erased])
        room = ANCHORS_WAITING_MAX - sum(made.transaction.id in self._chain.pool for made in self._made.values())
        replicated = {one.hash_id: self._replicated(one.hash_id) for one in wanted}
        now_ms, final_ms = self._chain.now_ms(), self._final_ms()
        waiting = {hash_id: made.waiting(self._chain.pool) for hash_id, made in self._made.items()}
        erasing = {hash_id: made.waiting(self._chain.pool) for hash_id, made in self._erasing.items()}
        has_others = any(one.peer_id != self._own.peer_id and not one.holder_only for one in self._own_nodes())

        def read(snapshot: Snapshot) -> _Plan:
            plan = self._plan(snapshot, wanted, waiting, replicated, now_ms, final_ms, room, has_others=has_others)
            self._plan_erased(snapshot, plan, erased, waiting, erasing, now_ms, final_ms)
            return plan

        plan = await self._ledger.read(read)
        if plan.writes:
            await self._ledger.write(plan.writes)
        self._others |= plan.elsewhere
        for own in wanted:
            self._later.pop(own.hash_id, None)
            if not plan.has_account:
                self._note_trouble(own.hash_id, "this member has no account on the chain yet")
        self._note_erased(erased, plan.erased)
        for hash_id, move in plan.moves.items():
            if move is Next.NOTHING:
                self._forget(hash_id)
                self._is_folder_due = True
            elif move is Next.HELD and hash_id in plan.unanswered:
                text = "its other owners did not all say yes in time, or it is not valid any more; put it again to ask again"
                self._note_trouble(hash_id, text, is_answer=True)
            elif move is Next.HELD and hash_id in plan.elsewhere:
                text = "another node of this member published it and alone knows what its anchor shall say"
                self._note_trouble(hash_id, text, cure="start that node, or put the record again here, with all that was asked for there")
            elif move is Next.HELD:
                self._note_trouble(hash_id, "the chain would not take it: disputed, invalid, or past its validity")
            elif move is Next.WAIT:
                self._troubles.pop(hash_id, None)
        await self._submit_all(plan)

    def _note_erased(self, looked_at: Iterable[HashId], erased: Collection[HashId]) -> None:
        """When the chain was first seen to have them erased; a block that is taken back takes that back too."""
        head_ms = self._head_ms()
        for hash_id in looked_at:
            if hash_id in erased:
                self._erased_ms.setdefault(hash_id, head_ms)
            else:
                self._erased_ms.pop(hash_id, None)

    def _replicated(self, hash_id: HashId) -> int:
        """Nodes besides ours that have promised something of the record."""
        facts = self._facts.knowledge.records[self._own.owner, hash_id]
        return len({receipt.holder for receipt in facts.receipts.values()} - {self._own.peer_id})

    def _plan(
        self,
        snapshot: Snapshot,
        wanted: Sequence[_Own],
        waiting: Mapping[HashId, Waiting],
        replicated: Mapping[HashId, int],
        now_ms: int,
        final_ms: int,
        room: int,
        *,
        has_others: bool,
    ) -> _Plan:
        """In a pool thread: what is to be done about each record, and the transactions for it, signed. has_others: whether another node
        could have published in this member's name. Where none could, this one has, and lost the database that knew so."""
        plan = _Plan()
        account = _account(snapshot, self._own.owner)
        waits = [] if account is None else find_waits(snapshot, account.id)
        for own in wanted:
            record = read_record(snapshot, (self._own.owner, own.hash_id))
            made = waiting.get(own.hash_id)
            is_final = record is not None and record.block_ms <= final_ms
            is_noted = anchors.is_elsewhere(snapshot, own.hash_id)
            is_elsewhere = is_noted and has_others
            if is_elsewhere:
                plan.elsewhere.add(own.hash_id)
            asked = self._asked(
                snapshot, plan, own.hash_id, own.signed.object_hash, record_anchor.KIND.number, waits, made, now_ms, final_ms
            )
            move = filing.next_of(
                record,
                made,
                statement=own.signed.object_hash,
                seq=own.statement.seq,
                valid_until_ms=own.statement.valid_until_s * 1000,
                is_final=is_final,
                is_elsewhere=is_elsewhere,
                asked=asked,
                now_ms=now_ms,
            )
            if move is Next.SUBMIT and room <= 0:
                continue  # looked at again when others of ours have left the pool
            steps = anchors.journal(snapshot, own.hash_id)
            told = self._told(steps, own, record, is_final=is_final, replicated=replicated[own.hash_id], now_ms=now_ms)
            if move is Next.SUBMIT:
                if account is None:
                    plan.has_account = False
                    return plan
                told = _told_before(told, own, now_ms)
                content = self._content(snapshot, own, account, record, journal.head_of(told), now_ms)
                plan.submits[own.hash_id] = _Made(sign_transaction(content, [self._signing()]), own.signed.object_hash)
                room -= 1
            elif move is Next.REPEAT:
                plan.submits[own.hash_id] = self._made[own.hash_id]
            elif move is Next.NOTHING:
                plan.writes.append(anchors.drop_intent(own.hash_id))
                if is_noted:
                    plan.writes.append(anchors.drop_elsewhere(own.hash_id))
                if asked is not Asked.NOT:
                    plan.writes.append(anchors.drop_ask(record_anchor.KIND.number, own.hash_id))
            if told != steps:
                plan.writes.append(anchors.put_journal(own.hash_id, told))
            plan.moves[own.hash_id] = move
        return plan

    def _asked(
        self,
        snapshot: Snapshot,
        plan: _Plan,
        hash_id: HashId,
        statement: Digest,
        kind: int,
        waits: Iterable[Waits],
        made: Waiting | None,
        now_ms: int,
        final_ms: int,
    ) -> Asked:
        """How our newest transaction of a kind about a record stands with others; what the chain will not say again is written down."""
        wait = next((one for one in waits if (one.kind, one.key[1], one.statement) == (kind, hash_id, statement)), None)
        kept = anchors.ask(snapshot, kind, hash_id, statement)
        if wait is not None:
            is_final = wait.since_ms is not None and wait.since_ms <= final_ms
            if is_final and (kept is None or kept.transaction != wait.id):
                # Its until is not in the state, and of no use while it waits.
                until_ms = made.until_ms if made is not None and made.id == wait.id else UnixMillis(now_ms + self._life_ms(ANCHOR_LIFE_MS))
                plan.writes.append(anchors.put_ask(hash_id, anchors.make_ask(kind, wait.id, statement, until_ms)))
            return Asked.PENDING
        name, until_ms = None, UnixMillis(0)
        if kept is not None:
            name, until_ms = kept.transaction, kept.until_ms
        elif made is not None and made.statement == statement:
            name, until_ms = made.id, made.until_ms
        asked = filing.asked_of(
            name,
            is_pending=False,
            is_seen=name is not None and is_seen(snapshot, name),
            was_pending=kept is not None,
            is_over=until_ms < now_ms,
        )
        if asked is Asked.ENDED:
            plan.unanswered.add(hash_id)
            if kept is None and name is not None:
                plan.writes.append(anchors.put_ask(hash_id, anchors.make_ask(kind, name, statement, until_ms)))
        return asked

    async def _note_asks(self, blocks: Sequence[BlockHash]) -> None:
        """Writes down which anchors in blocks that became final asked others about records that other nodes of ours published: a quick
        no leaves nothing in the state by which those would be told from records that nobody has anchored yet."""
        writes = await self._ledger.read(lambda snapshot: _asks_in(snapshot, blocks, self._own.owner)) if blocks else ()
        if writes:
            await self._ledger.write(writes)

    def _plan_erased(
        self,
        snapshot: Snapshot,
        plan: _Plan,
        erased: Sequence[HashId],
        waiting: Mapping[HashId, Waiting],
        erasing: Mapping[HashId, Waiting],
        now_ms: int,
        final_ms: int,
    ) -> None:
        """In a pool thread: what is to be done about records of ours that were erased."""
        account = _account(snapshot, self._own.owner) if erased else None
        waits = [] if account is None else find_waits(snapshot, account.id)
        for hash_id in erased:
            record = read_record(snapshot, (self._own.owner, hash_id))
            if record is not None and record.status == "erased":
                plan.erased.add(hash_id)
            since_ms = self._erased_ms.get(hash_id)
            is_final = since_ms is not None and since_ms <= final_ms
            made, kind = erasing.get(hash_id), erase.KIND.number
            asked = Asked.NOT
            if record is not None and record.status != "erased" and len(record.owners.owners) > 1:
                asked = self._asked(snapshot, plan, hash_id, NO_STATEMENT, kind, waits, made, now_ms, final_ms)
            move = filing.next_of_erased(record, waiting.get(hash_id), made, is_final=is_final, asked=asked, now_ms=now_ms)
            plan.moves[hash_id] = move
            if move is Next.NOTHING:
                plan.writes += [anchors.drop_intent(hash_id), anchors.drop_ask(kind, hash_id)]
            elif move is Next.REPEAT:
                plan.erases[hash_id] = self._erasing[hash_id]
            elif move is Next.SUBMIT and account is not None:
                body = erase.Body(self._own.owner, hash_id, "chunks", "")
                life_ms = self._life_ms(ANCHOR_LIFE_MS)
                content = filing.content_of(erase.KIND, body, account, chain=self._chain.chain, ts_ms=now_ms, life_ms=life_ms)
                plan.erases[hash_id] = _Made(sign_transaction(content, [self._signing()]), Digest(bytes(32)))

    @staticmethod
    def _told(
        steps: tuple[Step, ...], own: _Own, record: RecordState | None, *, is_final: bool, replicated: int, now_ms: int
    ) -> tuple[Step, ...]:
        """The log of a record that is final; until then it is as it was, which costs no commits. A node that did not anchor it has none."""
        if not steps or not is_final or record is None or record.statement != own.signed.object_hash:
            return steps
        if replicated and all(step.step != "replicated" for step in steps):
            steps = journal.append(steps, "replicated", own.hash_id, UnixMillis(now_ms), holders=replicated)
        steps = journal.append(steps, "anchored", own.hash_id, record.block_ms, tx=record.anchor)
        return journal.append(steps, "confirmed", own.hash_id, UnixMillis(now_ms), tx=record.anchor)

    def _content(
        self, snapshot: Snapshot, own: _Own, account: Account, before: RecordState | None, log_head: Digest, now_ms: int
    ) -> Content:
        intent = anchors.intent(snapshot, own.hash_id)
        parents = [found for one in intent.parents if (found := read_record(snapshot, (one.owner, one.hash_id))) is not None]
        policy = _load(snapshot, CHAIN, b"policy", Policy)
        assert policy is not None
        body = filing.anchor_body(
            own.signed,
            own.statement,
            intent,
            account.id,
            before=before,
            parents=parents,
            approve_ms=policy.approve_ms,
            log_head=log_head,
        )
        life_ms = self._life_ms(ANCHOR_LIFE_MS)
        return filing.content_of(record_anchor.KIND, body, account, chain=self._chain.chain, ts_ms=now_ms, life_ms=life_ms)

    def _life_ms(self, wanted: int) -> int:
        facts = self._chain.facts
        return wanted if facts is None else min(wanted, facts.profile.tx_life_ms)

    async def _submit_all(self, plan: _Plan) -> None:
        """All at once, so that the chain's actor takes them in one batch."""
        async with trio.open_nursery() as nursery:
            for hash_id, made in plan.submits.items():
                nursery.start_soon(self._submit, hash_id, made, self._made)
            for hash_id, made in plan.erases.items():
                nursery.start_soon(self._submit, hash_id, made, self._erasing)

    async def _submit(self, hash_id: HashId, made: _Made, kept: dict[HashId, _Made]) -> None:
        try:
            await self._chain.submit(made.transaction)
        except InvalidTransaction as error:
            if error.reason is Reason.SEEN:
                return
            if not filing.may_cure(error):
                made.is_refused = True
            self._note_trouble(hash_id, error.message)
        except Refused as error:
            self._note_trouble(hash_id, error.message)
        except LocalError:
            raise
        except LadingError as error:
            log.debug("anchor not submitted record=%s error=%s", hash_id.hex()[:16], error)
        else:
            kept[hash_id] = made
            self._troubles.pop(hash_id, None)

    def _note_trouble(self, hash_id: HashId, text: str, *, is_answer: bool = False, cure: str = BY_ITSELF) -> None:
        now = self._clock.monotonic()
        before = self._troubles.get(hash_id)
        pause = RETRY_S_MIN if before is None else min(RETRY_S_MAX, 2 * before.pause_s)
        self._troubles[hash_id] = _Trouble(text, now if before is None else before.since, now + pause, pause, is_answer, cure)
        if before is None:
            log.info("record waits for the chain record=%s why=%s", hash_id.hex()[:16], text)

    def _forget(self, hash_id: HashId) -> None:
        """It is final, or in force no more."""
        self._erasing.pop(hash_id, None)
        self._erased_ms.pop(hash_id, None)
        self._open.pop(hash_id, None)
        self._made.pop(hash_id, None)
        self._troubles.pop(hash_id, None)
        self._later.pop(hash_id, None)
        self._others.discard(hash_id)

    def _tell_alerts(self) -> None:
        now = self._clock.monotonic()
        old = [trouble for trouble in self._troubles.values() if now - trouble.since > ALERT_AFTER_S and not trouble.is_answer]
        if old:
            self.alerts["anchoring"] = f"{len(old)} records are not on the ledger yet: {old[0].text}; {old[0].cure}"
        else:
            self.alerts.pop("anchoring", None)

    # --- the folder ---------------------------------------------------------------------------------------------------

    async def _update_folder_always(self) -> None:
        while True:
            if self._is_folder_due:
                self._is_folder_due = False
                try:
                    await self._update_folder()
                except LocalError:
                    raise
                except LadingError as error:
                    self._is_folder_due = True
                    log.debug("folder not updated now error=%s", error)
            await trio.sleep(FOLDER_PAUSE_S)

    async def _update_folder(self) -> None:
        """The folder's name moves to what is final of ours now, unless it says that already; with the first record it is made."""
        if not self._own_records():
            self._is_folder_due = True
            return
        if self._folder is not None and self._folder in self._chain.pool:
            self._is_folder_due = True
            return
        await self._bring_folder(self._own.owner)
        now_ms, final_ms = self._chain.now_ms(), self._final_ms()
        made = await self._ledger.read(lambda snapshot: self._plan_folder(snapshot, now_ms, final_ms))
        if made is not None:
            self._is_folder_due = True  # until a look finds that it says what it should
            self._folder = await self._chain.submit(made)

    def _plan_folder(self, snapshot: Snapshot, now_ms: int, final_ms: int) -> Transaction | None:
        """In a pool thread."""
        account = _account(snapshot, self._own.owner)
        if account is None:
            return None
        filed = _filed(snapshot, self._own.owner, until_ms=final_ms)
        state = _load(snapshot, FOLDER, account.id + filing.FOLDER.encode(), FolderState)
        root = filing.folder_root(one for one, _ in filed)
        if state is not None and state.root == root:
            return None
        heads = merkle_root([head for _, head in filed])
        body = folder_update.Body(filing.FOLDER, root, heads, 1 if state is None else state.sequence + 1)
        life_ms = self._life_ms(FOLDER_LIFE_MS)
        content = filing.content_of(folder_update.KIND, body, account, chain=self._chain.chain, ts_ms=now_ms, life_ms=life_ms)
        return sign_transaction(content, [self._signing()])

    # --- receipts -----------------------------------------------------------------------------------------------------

    def _note_receipts(self, ids: Iterable[bytes]) -> None:
        now = self._clock.monotonic()
        for one in ids:
            self._receipts.setdefault(one, now)
            if len(self._receipts) > RECEIPTS_UNRECORDED_MAX:
                del self._receipts[next(iter(self._receipts))]

    async def _find_receipts(self) -> None:
        """Those of our own store, and of nodes that this one speaks for, among all facts."""
        holders = self._recorded_for()
        for number, facts in enumerate(tuple(self._facts.knowledge.records.values())):
            self._note_receipts(one for one, receipt in facts.receipts.items() if receipt.holder in holders)
            if number % RECORDS_PER_SLICE == 0:
                await trio.lowlevel.checkpoint()

    async def _record_receipts_always(self) -> None:
        while True:
            await trio.sleep(RECEIPTS_PAUSE_S)
            if not self._receipts or self._chain.facts is None:
                continue
            try:
                await self._record_receipts()
            except LocalError:
                raise
            except LadingError as error:
                log.debug("receipts not recorded now error=%s", error)

    async def _record_receipts(self) -> None:
        """One transaction for what a store promised and the chain does not know yet: ours, or one that we speak for."""
        names = tuple(self._receipts)[:RECEIPTS_PER_LOOK_MAX]
        await self._bring_receipts(names)
        now_ms, final_ms, holders = self._chain.now_ms(), self._final_ms(), self._recorded_for()
        before = self._clock.monotonic() - self._turn_s()
        ripe = frozenset(one for one in names if self._receipts[one] <= before)
        dropped, made = await self._ledger.read(lambda snapshot: self._plan_receipts(snapshot, names, ripe, holders, now_ms, final_ms))
        now = self._clock.monotonic()
        for one in names:
            since = self._receipts.get(one)
            if one in dropped or (since is not None and now - since > RECEIPT_WAITS_S):
                self._receipts.pop(one, None)
            elif since is not None:  # whoever waits does not keep others from being looked at
                del self._receipts[one]
                self._receipts[one] = since
        if made is not None:
            await self._chain.submit(made)

    def _plan_receipts(
        self,
        snapshot: Snapshot,
        names: Collection[bytes],
        ripe: Container[bytes],
        holders: Container[PeerId],
        now_ms: int,
        final_ms: int,
    ) -> tuple[frozenset[bytes], Transaction | None]:
        """In a pool thread. ripe: of those the ones that others of our member have had their turn with.

        Result: facts that need no looking at any more, and a transaction, if there is something to record.
        """
        account = _account(snapshot, self._own.owner)
        if account is None:
            return frozenset(), None
        dropped: set[bytes] = set()
        chosen: dict[PeerId, list[tuple[Signed, Receipt]]] = {}
        for one in names:
            signed = _receipt_fact(snapshot, one)
            receipt = None if signed is None else decode(signed.body, Receipt)
            if signed is None or receipt is None or receipt.holder not in holders:
                dropped.add(one)
                continue
            if len(signed.body) > RECEIPT_BYTES_MAX:
                log.warning("a receipt is larger than any transaction: not recorded receipt=%s bytes=%d", one.hex()[:8], len(signed.body))
                dropped.add(one)
                continue
            if receipt.holder != self._own.peer_id and one not in ripe:
                continue
            records: dict[RecordKey, tuple[RecordState, bool]] = {}
            holdings: dict[RecordKey, Holding] = {}
            for item in receipt.items:
                key = (item.owner, item.hash_id)
                if (record := read_record(snapshot, key)) is not None:
                    records[key] = (record, record.block_ms <= final_ms)
                holding = _load(snapshot, HOLDING, record_key(*key) + receipt.holder, Holding)
                if holding is not None:
                    holdings[key] = holding
            match filing.fate_of(receipt, now_ms=now_ms, records=records, holdings=holdings):
                case Fate.RECORD:
                    chosen.setdefault(receipt.holder, []).append((signed, receipt))
                case Fate.DROP:
                    dropped.add(one)
                case Fate.WAIT:
                    pass
        # One store at a time: of what is noted first, the rest with the next transaction.
        picked = filing.choose_receipts(next(iter(chosen.values()), ()))
        if not picked:
            return frozenset(dropped), None
        life_ms = self._life_ms(ANCHOR_LIFE_MS)
        body = filing.receipts_body(picked)
        content = filing.content_of(storage_receipt.KIND, body, account, chain=self._chain.chain, ts_ms=now_ms, life_ms=life_ms)
        return frozenset(dropped), sign_transaction(content, [self._signing()])


# --- reading the state: in a pool thread, or a few values on the loop -----------------------------------------------------


def _unusable(reason: Reason, why: str) -> Refused:
    return Refused(
        reason,
        f"first use by this member: {why}; nothing was stored, and no profile or folder was made",
        hint="its certificate manager or the council can change that: lading ledger history MEMBER",
    )


def _load(snapshot: Snapshot, space: str, key: bytes, kind: type[T]) -> T | None:
    data = chain.ChainState(snapshot).get(space, key)
    return None if data is None else decode(data, kind)


def read_record(snapshot: Snapshot, key: RecordKey) -> RecordState | None:
    """A record as the state at the head has it."""
    return _load(snapshot, RECORD, record_key(*key), RecordState)


def _account(snapshot: Snapshot, owner: OwnerKey) -> Account | None:
    """The account that an owner's key belongs to."""
    use = _load(snapshot, KEY, owner, KeyUse)
    return None if use is None else _load(snapshot, ACCOUNT, use.account, Account)


def _asks_in(snapshot: Snapshot, blocks: Iterable[BlockHash], owner: OwnerKey) -> list[Write]:
    """Anchors in final blocks of an owner's records that were published elsewhere; those that the state has not as carried out."""
    found: list[Write] = []
    for name in blocks:
        block = chain.block(snapshot, name)
        for transaction in () if block is None else block.transactions:
            if transaction.content.kind != record_anchor.KIND.number:
                continue
            signed = decode(transaction.content.body, record_anchor.Body).statement
            statement = decode(signed.body, Statement)
            if statement.owner != owner or not anchors.is_elsewhere(snapshot, statement.hash_id):
                continue
            record = read_record(snapshot, (owner, statement.hash_id))
            if record is None or record.seq < statement.seq:
                ask = anchors.make_ask(transaction.content.kind, transaction.id, signed.object_hash, transaction.content.until_ms)
                found.append(anchors.put_ask(statement.hash_id, ask))
    return found


def _told_before(steps: tuple[Step, ...], own: _Own, now_ms: int) -> tuple[Step, ...]:
    """The steps up to the anchor, once for each statement."""
    now, statement = UnixMillis(now_ms), own.statement
    at = UnixMillis(statement.time_s * 1000)
    steps = journal.append(steps, "received", own.hash_id, at, seq=statement.seq)
    steps = journal.append(steps, "hashed", own.hash_id, at, c=statement.c)
    steps = journal.append(steps, "encrypted", own.hash_id, at, bytes=statement.sealed_bytes, root=statement.chunks_root)
    steps = journal.append(steps, "chunked", own.hash_id, at, chunks=statement.data_chunks + statement.manifest_chunks)
    return journal.append(steps, "deduplicated", own.hash_id, now, statement=own.signed.object_hash)


def _receipt_fact(snapshot: Snapshot, one: bytes) -> Signed | None:
    """A receipt as its holder signed it, from the facts; None for what is gone, or another kind."""
    row = snapshot.get(FACTS, one)
    if row is None or row[0] != FactKind.RECEIPT:
        return None
    try:
        return decode(row[1:], Signed)
    except DecodeError:
        return None


@dataclass(frozen=True, slots=True)
class _Stand:
    """A record as the state has it; the transaction of ours that would bring it, and how that stands with those whose word it needs."""

    record: RecordState | None
    transaction: TxId | None
    is_pending: bool
    is_ended: bool


def _stand(snapshot: Snapshot, key: RecordKey, statement: Digest | None, made: TxId | None) -> _Stand:
    """statement, made: as of ``Anchoring._made_for``."""
    asked = None if statement is None else anchors.ask(snapshot, record_anchor.KIND.number, key[1], statement)
    name = made if asked is None else asked.transaction
    is_pending = name is not None and chain.ChainState(snapshot).get(PENDING, name) is not None
    return _Stand(read_record(snapshot, key), name, is_pending, asked is not None and not is_pending)


@dataclass(frozen=True, slots=True)
class _Report:
    record: RecordState | None
    waits: tuple[Waits, ...]
    children: tuple[tuple[Parent, RecordState], ...]
    newest: tuple[HashId, ...]
    holdings: tuple[bytes, ...]
    journal: tuple[Step, ...]


def _read_report(snapshot: Snapshot, key: RecordKey) -> _Report:
    view = chain.ChainState(snapshot)
    record = read_record(snapshot, key)
    children = _children(view, key)
    newest: tuple[HashId, ...] = ()
    if record is not None and record.status == "superseded":
        newest = tuple(one.hash_id for one in _newest(view, key))
    held = tuple(name for name, _ in scan_space(view, HOLDING, record_key(*key)))
    steps = anchors.journal(snapshot, key[1])
    waits = tuple(one for one in find_waits(snapshot, key[1]) if one.key == key)
    return _Report(record, waits, children, newest, held, steps)


def _children(view: chain.ChainState, key: RecordKey) -> tuple[tuple[Parent, RecordState], ...]:
    """Records that name this one as a parent, oldest first. What does not contain its id is not decoded."""
    found: list[tuple[Parent, RecordState]] = []
    name = bytes(key[1])
    for at, value in scan_space(view, RECORD):
        if name in value:
            state = decode(value, RecordState)
            if Parent(*key) in state.parents:
                found.append((Parent(OwnerKey(at[:32]), HashId(at[32:])), state))
    return tuple(sorted(found, key=lambda one: (one[1].block_ms, one[0].hash_id)))


def _newest(view: chain.ChainState, key: RecordKey) -> list[Parent]:
    """Where the changes of a superseded record lead: those that are active now."""
    found: list[Parent] = []
    seen = {key}
    ahead = [key]
    while ahead:
        for one, state in _children(view, ahead.pop(0)):
            name = (one.owner, one.hash_id)
            if name in seen or state.change not in filing.SUPERSEDING:
                continue
            seen.add(name)
            if state.status == "active":
                found.append(one)
            elif state.status == "superseded":
                ahead.append(name)
    return found


def _anchored(snapshot: Snapshot, until_ms: int) -> dict[RecordKey, Digest]:
    """Every final record that is not erased, and the statement that is anchored."""
    found: dict[RecordKey, Digest] = {}
    for at, value in scan_space(chain.ChainState(snapshot), RECORD):
        state = decode(value, RecordState)
        if state.block_ms <= until_ms and state.status != "erased":
            found[OwnerKey(at[:32]), HashId(at[32:])] = state.statement
    return found


def _filed(snapshot: Snapshot, owner: OwnerKey, *, until_ms: int | None = None) -> list[tuple[Filed, Digest]]:
    """An owner's records on the chain, with the heads of their logs, in a folder's order."""
    found: list[tuple[Filed, Digest]] = []
    for at, value in scan_space(chain.ChainState(snapshot), RECORD, owner):
        state = decode(value, RecordState)
        if until_ms is None or state.block_ms <= until_ms:
            found.append((Filed(owner, HashId(at[32:]), state.statement, state.block_ms), Digest(state.log_head)))
    return sorted(found, key=lambda one: one[0].order)


def _read_folder(snapshot: Snapshot, owner: OwnerKey, root: bytes | None) -> tuple[AccountId, FolderState, tuple[Filed, ...] | None] | None:
    account = _account(snapshot, owner)
    if account is None:
        return None
    state = _load(snapshot, FOLDER, account.id + filing.FOLDER.encode(), FolderState)
    if state is None:
        return None
    filed = [one for one, _ in _filed(snapshot, owner)]
    return account.id, state, filing.find_folder(filed, state.root if root is None else root)


def _step_row(step: Step) -> dict[str, object]:
    facts = {name: value.hex() if isinstance(value, bytes) else value for name, value in step.facts}
    return {"step": step.step, "time": step.time_ms / 1000, "hash": journal.head_of((step,)).hex(), **facts}
