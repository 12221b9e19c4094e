"""Seals when it is this node's slot: the reason first, then a draft on the head, the search in steps, the promise, the seal.

The search runs off the event loop and looks after every step whether the head has moved or the slot is over.
"""

from __future__ import annotations

import dataclasses
import functools
import logging
from collections.abc import Sequence
from contextlib import suppress

import trio

from protocols.crypto import SigningKey
from protocols.errors import InvalidBlock, LadingError, Reason, Refused, Undecided
from protocols.ledger.block import ZERO_REVEAL, Block, Header, sign_seal
from protocols.ledger.draw import reveal_tip
from protocols.ledger.envelope import Transaction
from protocols.ledger.finality import BlockPoint
from protocols.ledger.sealing import Situation, is_held_back, seal_reason
from protocols.ledger.seals.port import Found, NotYet
from protocols.ledger.seals.table import SEALS
from protocols.ledger.state import Overlay
from protocols.ledger.terms import MINER, Miner, slot_leader
from protocols.ledger.transition import (
    BLOCK_OVERHEAD_BYTES,
    Draft,
    carriable_votes,
    draft_block,
    finish_block,
    next_term,
    sealed_header,
    slot_of,
    slot_start_ms,
)
from protocols.ledger.votes import Vote
from protocols.limits import SEARCH_STEP_NONCES
from protocols.types import AccountId, UnixMillis
from storage import chain as store
from storage.engine import Snapshot

from ..chain_keys import REVEAL_CHAINS_MAX, REVEALS_PER_CHAIN, reveal_secret
from ..offload import Offload
from .chain import ChainActor, HeadFacts
from .duties import Duties

log = logging.getLogger(__name__)


# The leader judges its own block once more and so does everybody else, a little slower at some: all that has to fit into the slot.
DRAFT_SLOT_SHARE = 0.2
# Fewer tell more of what a draft costs anyway than of what a transaction does.
DRAFT_TELLING = 32


def drafted_max(slot_ms: int, ms_per_transaction: float) -> int:
    """How many transactions a draft may take up on this machine, as busy as it was at the last one: blocks that take longer to judge than
    a slot lasts make their followers miss it, and what was committed a second falls. 0 ms: not known yet."""
    if ms_per_transaction <= 0:
        return DRAFT_TELLING * 8
    return max(DRAFT_TELLING, int(slot_ms * DRAFT_SLOT_SHARE / ms_per_transaction))


class Sealer:
    """One miner's seat at the chain. ``run`` also tells the chain of every slot, on nodes that only vote or follow."""

    def __init__(self, chain: ChainActor, offload: Offload, *, cpu_share: float = 1.0) -> None:
        """cpu_share: of one core that the search may take, above 0 and at most 1."""
        assert 0 < cpu_share <= 1
        self.sealed = 0
        self._rest = 1 / cpu_share - 1
        self._chain = chain
        self._offload = offload
        self._duties = Duties(chain)
        self._reveal_chain = 0
        self._ms_per_transaction = 0.0

    async def run(self) -> None:
        while True:
            facts = self._chain.facts
            if facts is None:  # the first block is on its way; what waits for it does not wait for ever
                await trio.sleep(1.0)
                with suppress(LadingError):
                    await self._chain.slot_began()
                continue
            slot_ms = facts.profile.slot_ms
            now = self._chain.now_ms()
            slot = slot_of(now, genesis_ms=facts.genesis_ms, slot_ms=slot_ms) + 1
            start = slot_start_ms(slot, genesis_ms=facts.genesis_ms, slot_ms=slot_ms)
            await trio.sleep(max(0.0, (start - now) / 1000))
            try:
                await self._chain.slot_began()
                await self._duties.perform(slot)
                await self._seal(slot)
            except (LadingError, OSError) as error:
                log.warning("slot without a seal slot=%d error=%s", slot, error)

    async def _seal(self, slot: int) -> None:
        chain, key = self._chain, self._chain.keys.seal
        head, facts = chain.head(), chain.facts
        if key is None or head is None or facts is None or slot <= head.slot or not chain.may_act() or not chain.may_seal(slot):
            return
        situation = self._situation(slot, head, facts)
        reason = seal_reason(situation)
        if reason is None or is_held_back(situation, facts.miners, head.committee):
            return
        # Taken here: pool and votes belong to the loop, the draft is made in a thread.
        count_max = min(facts.profile.block_transactions_max, drafted_max(facts.profile.slot_ms, self._ms_per_transaction))
        waiting = chain.pool.select(facts.profile.block_bytes_max - BLOCK_OVERHEAD_BYTES, count_max)
        votes = tuple(chain.votes.values())
        began = trio.current_time()
        draft = await chain.plan(lambda snapshot: self._draft(snapshot, slot, head, facts, waiting, votes))
        if draft is not None:
            if len(draft.transactions) >= DRAFT_TELLING:
                self._ms_per_transaction = (trio.current_time() - began) * 1000 / len(draft.transactions)
            chain.drop_refused(draft.refused)
        if draft is None:
            return
        # What waits for something else is no reason, and keeps no other from being one.
        if not draft.transactions and seal_reason(dataclasses.replace(situation, pool_count=0)) is None:
            return
        found = await self._search(draft, slot, head, facts)
        if found is None:
            return
        draft, nonce = found
        try:
            await chain.promise_seal(slot)
        except Refused as error:
            log.info("not sealed slot=%d why=%s", slot, error)
            return
        await chain.take_block(self._sealed(draft, nonce, key), None, eager=True)
        self.sealed += 1

    def _sealed(self, draft: Draft, nonce: int, key: SigningKey) -> Block:
        name = sealed_header(draft, nonce).hash
        return finish_block(draft, nonce, sign_seal(key, self._chain.chain, draft.info.slot, name))

    def _situation(self, slot: int, head: BlockPoint, facts: HeadFacts) -> Situation:
        chain = self._chain
        tree = chain.tree
        assert tree is not None
        unfinal = False
        quiet = 0
        for point in tree.ancestors(head.hash):
            if point.hash == tree.final.hash:
                break
            is_loud = chain.row(point.hash).transactions > 0 or tree.is_justified(point.hash) or point.height <= chain.quorum_since_height
            if chain.row(point.hash).transactions:
                unfinal = True
                break
            quiet += 0 if is_loud else 1
        now = slot_start_ms(slot, genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms)
        return Situation(
            now_ms=now,
            slot_ms=facts.profile.slot_ms,
            tip_ms=slot_start_ms(head.slot, genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms),
            pool_count=len(chain.pool),
            due_ms=facts.due_ms,
            unfinal=unfinal,
            quiet_blocks=quiet,
            handover_due=False,
            heard=chain.heard(),
            sealed_ms=chain.sealed_ms,
        )

    def _draft(
        self,
        snapshot: Snapshot,
        slot: int,
        head: BlockPoint,
        facts: HeadFacts,
        waiting: Sequence[Transaction],
        votes: Sequence[Vote],
    ) -> Draft | None:
        """In a pool thread. None when this is not our slot, or the state has moved on."""
        chain = self._chain
        if store.state_at(snapshot) != head.hash:
            return None
        view = store.ChainState(snapshot)
        state = Overlay(view)
        me = chain.keys.account
        term = next_term(view, slot)
        has_leader = SEALS[facts.profile.seal].has_leader
        if me not in term.miners or (has_leader and slot_leader(state, term, slot) != me):
            return None
        miner = state.load(MINER, me, Miner)
        if miner is None or chain.keys.seal is None or miner.key != chain.keys.seal.public:
            return None
        reveal, new_tip = self._reveal(miner, me)
        parent = store.header(snapshot, head.hash)
        try:
            return draft_block(
                view,
                parent,
                chain=chain.chain,
                t_stamp_ms=slot_start_ms(slot, genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms),
                miner=me,
                reveal=reveal,
                new_tip=new_tip,
                transactions=waiting,
                votes=carriable_votes(view, parent, votes, chain=chain.chain),
                schedule=chain.schedule,
            )
        except (InvalidBlock, Undecided) as error:
            log.warning("no draft slot=%d error=%s", slot, error)
            return None

    def _reveal(self, miner: Miner, me: AccountId) -> tuple[bytes, tuple[bytes, int]]:
        """The next reveal, and with the last one the tip of the next chain."""
        number = self._chain_number(miner)
        last = miner.left <= 1
        secret = reveal_secret(self._chain.keys.reveal, number)
        reveal = reveal_tip(secret, miner.left - 1) if miner.left else ZERO_REVEAL
        if not last:
            return reveal, (b"", 0)
        return reveal, (reveal_tip(reveal_secret(self._chain.keys.reveal, number + 1), REVEALS_PER_CHAIN), REVEALS_PER_CHAIN)

    def _chain_number(self, miner: Miner) -> int:
        numbers: list[int] = [self._reveal_chain, self._reveal_chain + 1, *range(REVEAL_CHAINS_MAX)]
        for number in numbers:
            if reveal_tip(reveal_secret(self._chain.keys.reveal, number), miner.left) == miner.tip:
                self._reveal_chain = number
                return number
        raise InvalidBlock(Reason.BAD_REVEAL, "the state's reveal is none of ours")

    async def _search(self, draft: Draft, slot: int, head: BlockPoint, facts: HeadFacts) -> tuple[Draft, int] | None:
        """Draft (its T_stamp refreshed) and nonce, or None when the head moved or the slot is over."""
        rule = SEALS[facts.profile.seal]
        target = int.from_bytes(draft.info.target, "big")
        start = slot_start_ms(slot, genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms)
        nonce = 0
        while True:
            now = self._chain.now_ms()
            tip = self._chain.head()
            if now >= start + facts.profile.slot_ms or tip is None or tip.hash != head.hash:
                return None
            draft = dataclasses.replace(draft, header=_stamped(draft.header, UnixMillis(max(start, now))))
            began = trio.current_time()
            step: Found | NotYet = await self._offload.run(
                functools.partial(rule.search, draft.header, target, first=nonce, count=SEARCH_STEP_NONCES)
            )
            if isinstance(step, Found):
                return draft, step.nonce
            if self._rest:
                await trio.sleep((trio.current_time() - began) * self._rest)
            nonce = step.next_nonce


def _stamped(header: Header, t_stamp_ms: UnixMillis) -> Header:
    return Header(t_stamp_ms, header.merkle_root, header.version, header.parent, header.nonce)
