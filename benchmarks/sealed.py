"""A test network's chain, sealed and voted for with its nodes' own keys while they stand still, by the rules' own functions.

It is the chain that they would have made themselves, without the time that they would have waited for its slots.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from node.chain_home import PROMISES_FILE, chain_folder, first_block, read_chain_file, read_chain_key
from node.chain_keys import reveal_secret
from node.home import LEDGER_BUDGET_BYTES, LEDGER_FOLDER, LEDGER_RESERVE_BYTES, open_home
from node.promises import PromiseFile, fresh
from protocols.codec import replace
from protocols.crypto import SigningKey
from protocols.identity.keyfiles import ChainKey
from protocols.ledger.block import Block, sign_seal
from protocols.ledger.context import genesis_time_ms, load_profile
from protocols.ledger.draw import reveal_tip
from protocols.ledger.envelope import Transaction
from protocols.ledger.profile import Profile
from protocols.ledger.seals.port import Found
from protocols.ledger.seals.table import SEALS
from protocols.ledger.state import Overlay as StateOverlay
from protocols.ledger.terms import MINER, Miner, load_tip, slot_leader
from protocols.ledger.transition import carriable_votes, draft_block, finish_block, next_term, sealed_header, slot_start_ms
from protocols.ledger.votes import Checkpoint, Promises, Vote, sign_vote
from protocols.types import AccountId, BlockHash, ChainId, UnixMillis
from storage import chain as store
from storage.engine import Env
from storage.lmdb_engine import LmdbEngine
from storage.overlay import Overlay

# Where in its slot a block is found: the target then stays as it is (ledger/SPEC.md, "Work").
FOUND_AT = 13
NONCES_MAX = 1 << 24


@dataclass(frozen=True, slots=True)
class _Seat:
    """Of one home."""

    account: AccountId
    keys: ChainKey


@dataclass(slots=True)
class _Made:
    """Where it stands: votes for the tip, and the slot that each miner sealed last."""

    votes: tuple[Vote, ...]
    target: Checkpoint
    sealed: dict[AccountId, int]


def seal_chain(homes: Sequence[Path], count: int, transactions: Callable[[int, UnixMillis], Sequence[Transaction]]) -> int:
    """Seals ``count`` blocks into the ledger of the first home, one a slot, each with the votes for the one before.

    homes: of all the chain's miners and voters, none of which has run. transactions: those of the block with that index, signed at that
    time. Result: how many stand in the blocks. Returns when the last block's slot is over; what the keys have said stands in their
    homes' promises.
    """
    kept = read_chain_file(homes[0])
    assert kept is not None
    first = first_block(kept)
    assert first is not None
    seats = tuple(_seat(home) for home in homes)
    engine = LmdbEngine(homes[0] / LEDGER_FOLDER, Env.LEDGER, budget_bytes=LEDGER_BUDGET_BYTES, reserve_bytes=LEDGER_RESERVE_BYTES)
    try:
        with engine.snapshot() as snapshot:
            overlay = Overlay(snapshot)
            store.begin(overlay, first, chain=kept.chain)
            state = StateOverlay(store.ChainState(overlay))
            profile, genesis_ms = load_profile(state), genesis_time_ms(state)
        engine.write(overlay.writes)
        made = _Made((), Checkpoint(0, BlockHash(first.hash)), {})
        done = 0
        for index in range(count):
            at_ms = slot_start_ms(index + 1, genesis_ms=genesis_ms, slot_ms=profile.slot_ms)
            block = _seal_next(engine, seats, profile, made, at_ms, transactions(index, at_ms))
            done += len(block.transactions)
    finally:
        engine.close()
    for home, seat in zip(homes, seats, strict=True):
        said = Promises(max(0, count - 1), count, made.sealed.get(seat.account, 0))
        PromiseFile(chain_folder(home) / PROMISES_FILE).save(replace(fresh(kept.chain), promises=said))
    over_ms = slot_start_ms(count + 1, genesis_ms=genesis_ms, slot_ms=profile.slot_ms)
    time.sleep(max(0.0, over_ms / 1000 - time.time()))
    return done


def _seat(home: Path) -> _Seat:
    def none() -> bytes:
        raise AssertionError("homes of a test network have no passphrase")

    keys = read_chain_key(home, none)
    assert keys is not None
    return _Seat(AccountId(open_home(home, None).member_id), keys)


def _seal_next(
    engine: LmdbEngine, seats: Sequence[_Seat], profile: Profile, made: _Made, at_ms: UnixMillis, transactions: Sequence[Transaction]
) -> Block:
    """One block by whoever leads the slot, judged and made durable as every node does it; then everybody votes for it.

    Raises the first refusal, ValueError when not all fit.
    """
    with engine.snapshot() as snapshot:
        overlay = Overlay(snapshot)
        view = store.ChainState(overlay)
        state = StateOverlay(view)
        parent = store.header(overlay, made.target.hash)
        chain = ChainId(seats[0].keys.chain)
        slot = load_tip(state).slot + 1
        leader = slot_leader(state, next_term(view, slot), slot)
        seat = next(one for one in seats if one.account == leader)
        miner = state.load(MINER, leader, Miner)
        assert miner is not None
        draft = draft_block(
            view,
            parent,
            chain=chain,
            t_stamp_ms=UnixMillis(at_ms + profile.slot_ms // FOUND_AT),
            miner=leader,
            reveal=reveal_tip(reveal_secret(seat.keys.reveal, 0), miner.left - 1),
            transactions=transactions,
            votes=carriable_votes(view, parent, made.votes, chain=chain),
        )
        if draft.refused:
            raise draft.refused[0][1]
        if len(draft.transactions) < len(transactions):
            raise ValueError(f"{len(transactions)} transactions do not fit one block, {len(draft.transactions)} do")
        found = SEALS[profile.seal].search(draft.header, int.from_bytes(draft.info.target, "big"), first=0, count=NONCES_MAX)
        assert isinstance(found, Found)
        seal = sign_seal(SigningKey(seat.keys.seal), chain, slot, sealed_header(draft, found.nonce).hash)
        block = finish_block(draft, found.nonce, seal)
        store.execute(overlay, block, chain=chain)
    engine.write(overlay.writes)
    target = Checkpoint(block.info.height, BlockHash(block.hash))
    made.votes = tuple(sign_vote(SigningKey(one.keys.vote), chain, made.target, target, one.account) for one in seats)
    made.target = target
    made.sealed[leader] = slot
    return block
