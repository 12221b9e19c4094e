"""What the chain says of members and records that this node must heed, whether or not a fact of it arrived.

Looks at the state, at the deny set and at final blocks, and never remembers what a look would not find again: whom the ledger has put out,
which records it has erased for good, and the statements that final anchors carry, which become facts here as if a peer had brought
them. So a node that has the chain alone knows what it should hold, and what an owner asks for is acted on. What takes something away
works from when it is first seen; only erasing, which nobody takes back, waits until it is final.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass

import trio

from protocols.codec import decode, encode
from protocols.errors import DecodeError, InvalidObject, LadingError, LocalError
from protocols.files.objects import Statement
from protocols.gossip.facts import FactKind
from protocols.ledger.context import ACCOUNT, CERTIFICATE, Account, genesis_time_ms, load_profile
from protocols.ledger.deny import Denial
from protocols.ledger.envelope import Transaction
from protocols.ledger.state import Overlay
from protocols.ledger.transactions import approve, erase, record_anchor
from protocols.ledger.transactions.records import RECORD, RecordState
from protocols.signed import Signed
from protocols.types import AccountId, BlockHash, Digest, HashId, MemberId, OwnerKey, RecordKey, TxId
from storage import chain as store
from storage.chain_proofs import height_of_slot
from storage.engine import Snapshot

from ..bus import Bus
from ..ledger_rows import iso_ms
from ..penalties import Notice, Penalties, read_penalties
from ..pendings import find_waits, scan_space
from .chain import BlockFinal, ChainActor, ChainItems, HeadMovedTo
from .facts import FactsHandle
from .knowledge import RecordFacts

log = logging.getLogger(__name__)

PAUSE_S = 0.1  # what comes together is looked at together
# A look at every record: after the start, when news were lost, and from time to time, since members and bodies come late.
LOOK_AT_ALL_S = 600.0
# An anchor that waited for approvals is in an earlier block than the record's; so many blocks back it is looked for.
BLOCKS_BACK_MAX = 4096
STATEMENTS_PER_TURN = 256
BLOCKS_PER_TURN = 4
_DID = {"warn": "warned", "suspend": "suspended", "revoke": "revoked"}
ERASING = frozenset({erase.KIND.number, approve.KIND.number})


@dataclass(frozen=True, slots=True)
class PenaltyTold:
    """A penalty is in force in the state at the head, or is no more."""

    notice: Notice
    has_ended: bool


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A record of the state whose statement is no fact here: its anchor, and when that took effect."""

    anchor: TxId
    block_ms: int


@dataclass(frozen=True, slots=True)
class _Glance:
    """statements: of anchors in blocks that became final. may_have_erased: so may a transaction in them. waiting: how many transactions
    lack our member's word. penalties: in force."""

    statements: tuple[Signed, ...]
    may_have_erased: bool
    denied: frozenset[MemberId]
    waiting: int
    penalties: Penalties


@dataclass(frozen=True, slots=True)
class _Seen:
    """erased: number of the statement up to which each is. is_final: no block above the final one can have erased any of them. wanted:
    records whose statement is not known, the oldest first."""

    erased: dict[RecordKey, int]
    is_final: bool
    wanted: tuple[_Wanted, ...]


class Rulings:
    """See the module."""

    def __init__(self, chain: ChainActor, facts: FactsHandle, bus: Bus, *, member: AccountId, may_answer: bool) -> None:
        """member: whose node this is. may_answer: it has that member's keys."""
        self.alerts: dict[str, str] = {}
        self.on_denied: Callable[[], Awaitable[None]] | None = None
        """Told when other members are out than before."""
        self.on_erased: Callable[[RecordKey], None] | None = None
        """Told of each record of which something else holds than before."""
        self._chain = chain
        self._facts = facts
        self._bus = bus
        self._member = member
        self._may_answer = may_answer
        self._penalties: Penalties | None = None
        self._erased: dict[RecordKey, int] = {}
        """Erased for good, and up to which number."""
        self._is_all_due = True

    async def run(self) -> None:
        """Until cancelled."""
        await self._facts.loaded()
        with self._bus.subscribe(HeadMovedTo, BlockFinal, ChainItems, name="rulings") as news:
            lost, looked_at = 0, float("-inf")
            final: list[BlockHash] = []
            while True:
                self._is_all_due |= news.lost > lost or trio.current_time() - looked_at >= LOOK_AT_ALL_S
                lost = news.lost
                if self._is_all_due and self._chain.facts is not None:
                    looked_at = trio.current_time()
                try:
                    await self._look(final)
                except LocalError:
                    raise
                except LadingError as error:
                    self._is_all_due = True
                    log.warning("the chain's rulings are not followed now, again later error=%s", error)
                final = []
                with trio.move_on_after(LOOK_AT_ALL_S):
                    facts = [await news.__anext__()]
                    await trio.sleep(PAUSE_S)
                    facts += news.take_nowait()
                    final = [one.hash for one in facts if isinstance(one, BlockFinal)]

    async def _look(self, final: Sequence[BlockHash]) -> None:
        """final: blocks that became so since the last look."""
        if self._chain.facts is None:
            return
        is_all_due, self._is_all_due = self._is_all_due, False
        denials = self._chain.denied.denials()
        may_have_erased = False
        # After an import or a long absence many become final at once: their statements are not held together.
        for start in range(0, max(1, len(final)), BLOCKS_PER_TURN):
            part = final[start : start + BLOCKS_PER_TURN]
            glance = await self._chain.plan(lambda snapshot, part=part: self._glance(snapshot, part, denials))  # type: ignore[misc]
            may_have_erased |= glance.may_have_erased
            await self._learn(glance.statements)
        self.alerts = {}
        if glance.waiting:
            self.alerts["inbox"] = f"{glance.waiting} wait for this member's yes or no: lading inbox"
        self._tell_penalties(glance.penalties, is_denied=MemberId(self._member) in glance.denied)
        if is_all_due or may_have_erased:
            known = self._known() if is_all_due else None
            seen = await self._chain.plan(lambda snapshot: _see(snapshot, known))
            # While a block that is not final may have erased something, what was not erased before waits: its turn is when that is final.
            self._erased = {key: seq for key, seq in seen.erased.items() if seen.is_final or key in self._erased}
            for start in range(0, len(seen.wanted), STATEMENTS_PER_TURN):
                some = seen.wanted[start : start + STATEMENTS_PER_TURN]
                await self._learn(await self._chain.plan(lambda snapshot, some=some: _statements(snapshot, some)))  # type: ignore[misc]
        await self._rule(glance.denied, frozenset(_key(one.name) for one in denials if one.what == "record"))

    def notices(self) -> tuple[Notice, ...]:
        """Penalties in force that concern this member: it is meant, or owns a record that their evidence names. The newest first."""
        found = () if self._penalties is None else self._penalties.notices.values()
        return tuple(sorted((one for one in found if one.is_ours or one.records), key=lambda one: (-one.from_ms, one.id)))

    def _tell_penalties(self, now: Penalties, *, is_denied: bool) -> None:
        """What was in force when this node began is no news; it stands in the alerts."""
        before, self._penalties = self._penalties, now
        if before is not None:
            for name in sorted(now.notices.keys() - before.notices.keys()):
                self._bus.publish(PenaltyTold(now.notices[name], has_ended=False))
            for name in sorted(before.notices.keys() - now.notices.keys()):
                self._bus.publish(PenaltyTold(before.notices[name], has_ended=True))
        for one in self.notices():
            self.alerts[f"penalty-{one.id.hex()[:8]}"] = self._text(one)
        if now.status in ("suspended", "revoked"):
            self.alerts["certificate"] = f"this member's certificate is {now.status} on the ledger: what it signs is refused everywhere"
        elif is_denied and not any(one.is_ours and one.level != "warn" for one in now.notices.values()):
            self.alerts["certificate"] = "a transaction that is about to come onto the ledger puts this member out"

    def _text(self, one: Notice) -> str:
        who = "this member" if one.is_ours else f"member {self._facts.knowledge.member_name(MemberId(one.target))}"
        until = f" until {iso_ms(one.until_ms)}" if one.until_ms else ""
        about = f", about this member's record {', '.join(name.hex()[:16] for name in one.records)}" if one.records else ""
        why = one.reason or "no reason given"
        return f"the ledger {_DID[one.level]} {who}{until}: {why}{about}; lading ledger history {one.id.hex()[:16]}"

    def _known(self) -> dict[RecordKey, frozenset[Digest]]:
        """Statements and tombstones that are facts here."""
        return {key: frozenset(facts.objects) for key, facts in self._facts.knowledge.records.items()}

    async def _rule(self, denied: frozenset[MemberId], withheld: frozenset[RecordKey]) -> None:
        knowledge = self._facts.knowledge
        before = knowledge.denied
        for key in sorted(knowledge.rule(denied, self._erased, withheld)):
            if self.on_erased is not None:
                self.on_erased(key)
        if denied != before:
            log.warning("members put out by the ledger now=%d before=%d", len(denied), len(before))
            if before - denied:  # what was refused of them may be asked for again
                await self._facts.check_again()
            if self.on_denied is not None:
                await self.on_denied()

    async def _learn(self, statements: Iterable[Signed]) -> None:
        """Statements of final anchors become facts, as far as their owners are known here and nobody has put them out."""
        refused, why = 0, ""
        for signed in statements:
            statement = decode(signed.body, Statement)
            facts = self._facts.knowledge.records.get((statement.owner, statement.hash_id))
            if facts is not None and (signed.object_hash in facts.objects or self._is_past(facts, statement)):
                continue
            try:
                await self._facts.submit_found(FactKind.STATEMENT, encode(signed))
            except (InvalidObject, DecodeError) as error:
                refused, why = refused + 1, why or str(error)
            else:
                log.info("record learned from the ledger record=%s", statement.hash_id.hex()[:8])
        if refused:
            log.info("statements of anchors not taken count=%d first=%s", refused, why)

    def _is_past(self, facts: RecordFacts, statement: Statement) -> bool:
        """Whether the owner's tombstone, which is known here, ended it."""
        tombstone = self._facts.knowledge.verdict(facts).tombstone
        return tombstone is not None and tombstone.value.seq > statement.seq

    def _glance(self, snapshot: Snapshot, blocks: Iterable[BlockHash], denials: Iterable[Denial]) -> _Glance:
        """In a pool thread."""
        known = {} if self._penalties is None else self._penalties.notices
        penalties = read_penalties(snapshot, known, self._member)
        return _glance(snapshot, blocks, denials, self._member if self._may_answer else None, penalties)


# --- reading, in a pool thread ------------------------------------------------------------------------------------------


def _glance(
    snapshot: Snapshot, blocks: Iterable[BlockHash], denials: Iterable[Denial], member: AccountId | None, penalties: Penalties
) -> _Glance:
    """blocks: that became final. denials: of transactions that are not final. member: whose word may be lacking."""
    statements: list[Signed] = []
    may_have_erased = False
    for name in blocks:
        block = store.block(snapshot, name)
        for transaction in () if block is None else block.transactions:
            kind = transaction.content.kind
            may_have_erased |= kind in ERASING
            if kind == record_anchor.KIND.number:
                statements.append(decode(transaction.content.body, record_anchor.Body).statement)
    waiting = 0 if member is None else sum(member in one.lacking for one in find_waits(snapshot, member))
    return _Glance(tuple(statements), may_have_erased, _denied(snapshot, denials), waiting, penalties)


def _denied(snapshot: Snapshot, denials: Iterable[Denial]) -> frozenset[MemberId]:
    """Members whose account the state has suspended or revoked, and those whom a transaction that is not final is about to."""
    view = store.ChainState(snapshot)
    found: set[bytes] = set()
    for name, value in scan_space(view, ACCOUNT):
        account = decode(value, Account)
        if account.status != "active" or account.suspensions or account.revocations:
            found.add(name)
    for denial in denials:
        if denial.what == "account":
            found.add(denial.name)
        elif denial.what == "certificate" and (subject := view.get(CERTIFICATE, denial.name)) is not None:
            found.add(subject)
    return frozenset(MemberId(name) for name in found)


def _key(at: bytes) -> RecordKey:
    """Of a record, by its key in the state."""
    return OwnerKey(at[:32]), HashId(at[32:])


def _see(snapshot: Snapshot, known: Mapping[RecordKey, Container[Digest]] | None) -> _Seen:
    """known: what is a fact here, by record; None looks for erased ones alone."""
    erased: dict[RecordKey, int] = {}
    wanted: list[_Wanted] = []
    for at, value in scan_space(store.ChainState(snapshot), RECORD):
        record = decode(value, RecordState)
        key = _key(at)
        if record.status == "erased":
            erased[key] = record.seq
        elif known is not None and record.statement not in known.get(key, ()):
            wanted.append(_Wanted(record.anchor, record.block_ms))
    return _Seen(erased, is_all_final(snapshot, ERASING), tuple(sorted(wanted, key=lambda one: (one.block_ms, one.anchor))))


def is_all_final(snapshot: Snapshot, kinds: Container[int]) -> bool:
    """Whether what transactions of these kinds have made of the state is final: no block between the state's and the final one has one."""
    at, final = store.state_at(snapshot), store.final_block(snapshot)
    row = None if at is None else store.row(snapshot, at)
    low = None if final is None else store.row(snapshot, final)
    while at is not None and row is not None and low is not None and row.height > low.height:
        block = store.block(snapshot, at)
        if block is None or any(one.content.kind in kinds for one in block.transactions):
            return False
        at = row.parent
        row = store.row(snapshot, at)
    return row is not None and low is not None


def _statements(snapshot: Snapshot, wanted: Iterable[_Wanted]) -> tuple[Signed, ...]:
    """Of anchors, from the bodies of final blocks; those whose body is not kept here are left out. Of one block together is cheapest."""
    final = store.final_block(snapshot)
    row = None if final is None else store.row(snapshot, final)
    if row is None:
        return ()
    state = Overlay(store.ChainState(snapshot))
    genesis_ms, slot_ms = genesis_time_ms(state), load_profile(state).slot_ms
    found: list[Signed] = []
    lowest = store.lowest_height(snapshot)
    bodies = _Bodies(snapshot)
    for one in wanted:
        height = height_of_slot(snapshot, (one.block_ms - genesis_ms) // slot_ms)
        if height is None or height > row.height:
            continue  # final later, and looked at then
        for below in range(height, max(lowest, height - BLOCKS_BACK_MAX) - 1, -1):
            block = bodies.at(below)
            body = None if block is None else block.get(one.anchor)
            if body is not None:
                found.append(decode(body.content.body, record_anchor.Body).statement)
            if body is not None or block is None:
                break
    return tuple(found)


class _Bodies:
    """Transactions of final blocks by id. Remembers one block: a block of hundreds is decoded once and not for each of them."""

    def __init__(self, snapshot: Snapshot) -> None:
        self._snapshot = snapshot
        self._height = -1
        self._last: Mapping[TxId, Transaction] | None = None

    def at(self, height: int) -> Mapping[TxId, Transaction] | None:
        """None where the body is not kept. Raises StoreDamaged."""
        if height != self._height:
            block = store.block(self._snapshot, store.blocks_at(self._snapshot, height)[0])
            self._height, self._last = height, None if block is None else {one.id: one for one in block.transactions}
        return self._last
