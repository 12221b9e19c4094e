"""Penalties in force, read from a state for those whom they concern: who is meant, and who owns what their evidence names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from protocols.codec import decode
from protocols.ledger.context import ACCOUNT, Account, genesis_time_ms, load_profile
from protocols.ledger.envelope import Transaction, decode_body
from protocols.ledger.state import Overlay
from protocols.ledger.transactions import penalty
from protocols.ledger.transactions.penalty import PENALTY, Level, PenaltyState
from protocols.ledger.transactions.records import RECORD, RecordState
from protocols.types import AccountId, HashId, TxId, UnixMillis
from storage import chain
from storage.chain_proofs import height_of_slot
from storage.engine import Snapshot

from .pendings import scan_space


@dataclass(frozen=True, slots=True)
class Notice:
    """A penalty in force. until_ms: 0 for no end. evidence: ids that it names, none where its block is not kept here.

    is_ours: this member is meant. records: of those that the evidence names, the ones that this member owns, alone or with others.
    """

    id: TxId
    target: AccountId
    level: Level
    reason: str
    from_ms: UnixMillis
    until_ms: UnixMillis
    evidence: tuple[bytes, ...]
    is_ours: bool
    records: tuple[HashId, ...]


@dataclass(frozen=True, slots=True)
class Penalties:
    """notices: by the transaction that brought each. status: of this member's certificate on the chain; empty without an account."""

    notices: Mapping[TxId, Notice]
    status: str


def read_penalties(snapshot: Snapshot, known: Mapping[TxId, Notice], member: AccountId) -> Penalties:
    """In a pool thread. known: read before, whose evidence is not looked for again. member: to whom it is told."""
    view = chain.ChainState(snapshot)
    found: dict[TxId, Notice] = {}
    for key, value in scan_space(view, PENALTY):
        state, name = decode(value, PenaltyState), TxId(key)
        if state.is_active:
            before = known.get(name)
            is_known = before is not None and before.from_ms == state.from_ms
            found[name] = before if is_known and before is not None else _notice(snapshot, name, state, member)
    new = [one for name, one in found.items() if one is not known.get(name)]
    # One look through the records for all of them: after a start every penalty is new.
    owned = _owned(view, frozenset(name for one in new for name in one.evidence), member)
    for one in new:
        records = {record for name in one.evidence for record in owned.get(name, ())}
        found[one.id] = replace(one, records=tuple(sorted(records)))
    data = view.get(ACCOUNT, member)
    return Penalties(found, "" if data is None else decode(data, Account).status)


def _notice(snapshot: Snapshot, name: TxId, state: PenaltyState, member: AccountId) -> Notice:
    """Without its records."""
    transaction = _transaction(snapshot, name, state.from_ms)
    is_said = transaction is not None and transaction.content.kind == penalty.KIND.number  # else it came by itself, from two seals or votes
    evidence = decode_body(transaction, penalty.Body).evidence if is_said and transaction is not None else ()
    return Notice(name, state.target, state.level, state.reason, state.from_ms, state.until_ms, evidence, state.target == member, ())


def _transaction(snapshot: Snapshot, name: TxId, block_ms: int) -> Transaction | None:
    """Of the block of a time on the branch at which the state stands; None where it is not kept."""
    state = Overlay(chain.ChainState(snapshot))
    height = height_of_slot(snapshot, (block_ms - genesis_time_ms(state)) // load_profile(state).slot_ms)
    at, final = chain.state_at(snapshot), chain.final_block(snapshot)
    low = None if final is None else chain.row(snapshot, final)
    if height is None or low is None:
        return None
    if height <= low.height:
        at = next(iter(chain.blocks_at(snapshot, height)), None)
    while at is not None and (row := chain.row(snapshot, at)) is not None and row.height > height:
        at = row.parent
    block = None if at is None else chain.block(snapshot, at)
    return next((one for one in block.transactions if one.id == name), None) if block is not None else None


def _owned(view: chain.ChainState, names: frozenset[bytes], member: AccountId) -> dict[bytes, list[HashId]]:
    """Records of this member that go by these names: their HashIDs, or their anchors."""
    found: dict[bytes, list[HashId]] = {}
    if not names:
        return found
    for key, value in scan_space(view, RECORD):
        if key[32:] in names or any(name in value for name in names):
            record = decode(value, RecordState)
            if member in record.owners.owners:
                for name in {key[32:], record.anchor} & names:
                    found.setdefault(name, []).append(HashId(key[32:]))
    return found
