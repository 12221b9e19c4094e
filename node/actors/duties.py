"""What a node owes the chain besides seals and votes: the hand-over for a term it was drawn for, and evidence of those who say two things.

Asked at the start of every slot; what it posts is an ordinary transaction made here, kept and told until it is final.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass

from protocols.codec import Record, encode
from protocols.crypto import SigningKey, sha256
from protocols.errors import InvalidTransaction, Refused
from protocols.ledger.carried import HASH
from protocols.ledger.checks import u64
from protocols.ledger.envelope import ENVELOPE_VERSION, NO_SERIAL, Content, Transaction, decode_body, sign_transaction
from protocols.ledger.evidence import Suspicion, accusation, evidence_name, is_known, turn_of
from protocols.ledger.handover import answer_challenges, wanted_term
from protocols.ledger.pool import Origin
from protocols.ledger.state import Overlay
from protocols.ledger.terms import MINER, Miner
from protocols.ledger.transactions import equivocation, term_handover
from protocols.ledger.transition import slot_start_ms
from protocols.ledger.votes import Checkpoint
from protocols.limits import HEARTBEAT_MS, OWN_ACT_LIFE_MS
from protocols.types import AccountId, BlockHash, TxId, UnixMillis
from storage import chain as store
from storage.engine import Snapshot

from .chain import ChainActor

log = logging.getLogger(__name__)

# What was made here and waits is looked at so often, and so many of it in one slot: a burst that waits for blocks costs next to nothing.
OWN_LOOK_SLOTS = 10
OWN_LOOKS_MAX = 64


@dataclass(frozen=True, slots=True)
class _Posted:
    """The hand-over that waits: for which term, showing which block."""

    term: int
    shown: Checkpoint
    name: TxId


@dataclass(slots=True)
class _Case:
    """A suspicion on its way. since: slot in which it was first looked at. known_at: height of the first head that had it."""

    since: int
    known_at: int | None = None


class Duties:
    """One node's."""

    def __init__(self, chain: ChainActor) -> None:
        self._chain = chain
        self._posted: _Posted | None = None
        self._cases: dict[tuple[str, AccountId], _Case] = {}
        self._looked_at: dict[TxId, int] = {}
        """Slots in which what was made here and waits was last looked at, or came."""

    async def perform(self, slot: int) -> None:
        """What is due in this slot. Raises StoreFull, StoreDamaged, ActorGone."""
        facts = self._chain.facts
        if facts is None or not self._chain.may_act():
            return
        seen_ms = slot_start_ms(self._seen_slot(), genesis_ms=facts.genesis_ms, slot_ms=facts.profile.slot_ms)
        if self._chain.now_ms() - seen_ms > 2 * HEARTBEAT_MS:
            return  # a live chain has younger blocks: this clock may be far ahead, and what it dates would wait everywhere for its time
        await self._look_over_own(slot)
        await self._hand_over(slot)
        for about, suspicion in list(self._chain.watch.suspicions.items()):
            await self._accuse(about, suspicion, slot)

    def _seen_slot(self) -> int:
        """Of the newest block above the final one that somebody else sealed, else of the final one."""
        chain, slot = self._chain, 0
        assert chain.tree is not None
        for point in chain.tree.ancestors(chain.tree.head().hash):
            slot = point.slot
            if chain.row(point.hash).miner != chain.keys.account:
                break
        return slot

    # --- what was made here -----------------------------------------------------------------------------------------

    async def _look_over_own(self, slot: int) -> None:
        """What the state refuses by now leaves the pool. A node that seals finds it out with a draft; this one may have no seat, and the
        others have dropped it and will not take it again."""
        pool = self._chain.pool
        self._looked_at = {name: self._looked_at.get(name, slot) for name in pool.made_here()}
        late = [name for name, looked in self._looked_at.items() if slot - looked >= OWN_LOOK_SLOTS][:OWN_LOOKS_MAX]
        made = [one for one in (pool.get(name) for name in late) if one is not None]
        if not made:
            return
        chain = self._chain
        # No state is there while damaged tables are fetched again.
        errors = await chain.plan(lambda snapshot: chain.judge_all(snapshot, made) if store.state_at(snapshot) is not None else None)
        if errors is None:
            return
        self._looked_at.update(dict.fromkeys(late, slot))
        refused = [(one, error) for one, error in zip(made, errors, strict=True) if isinstance(error, InvalidTransaction)]
        chain.drop_refused(refused)

    # --- hand-over --------------------------------------------------------------------------------------------------

    async def _hand_over(self, slot: int) -> None:
        key = self._chain.keys.seal
        if key is None:
            return
        waiting = self._posted if self._posted is not None and self._posted.name in self._chain.pool else None
        body = await self._chain.plan(lambda snapshot: self._answers(snapshot, slot, key.public, waiting))
        if body is None:
            return
        name = await self._submit(term_handover.KIND.number, body, key)
        if name is not None:
            self._posted = _Posted(body.term, Checkpoint(body.height, BlockHash(sha256(body.header))), name)
            log.info("hand-over posted term=%d height=%d", body.term, body.height)

    def _answers(self, snapshot: Snapshot, slot: int, key: bytes, waiting: _Posted | None) -> term_handover.Body | None:
        """In a pool thread. None when nothing is wanted, or what waits is still good, or history is not all here."""
        at, facts, me = store.state_at(snapshot), self._chain.facts, self._chain.keys.account
        if at is None or facts is None:
            return None
        view = store.ChainState(snapshot)
        state = Overlay(view)
        miner = state.load(MINER, me, Miner)
        if miner is None or miner.key != key:
            return None
        term = wanted_term(state, facts.profile, me, slot)
        if term is None:
            return None
        if waiting is not None and waiting.term == term:
            shown = waiting.shown
            if shown.hash == at or state.get(HASH, u64(shown.height)) == shown.hash:
                return None
        head = store.block(snapshot, at)
        line = store.branch(snapshot, at)
        if head is None or line is None:
            return None
        return answer_challenges(view, head, me, term=term, hashes=line, block_at=lambda height: store.body(snapshot, line[height]))

    # --- evidence ---------------------------------------------------------------------------------------------------

    async def _accuse(self, about: tuple[str, AccountId], suspicion: Suspicion, slot: int) -> None:
        chain = self._chain
        case = self._cases.setdefault(about, _Case(slot))
        head, final = chain.checkpoints()
        if case.known_at is not None and final.height >= case.known_at:
            self._close(about)
            return
        body, known, watchers = await chain.plan(lambda snapshot: self._accusation(snapshot, suspicion))
        if body is None:
            self._close(about)
            return
        if known:
            case.known_at = head.height if case.known_at is None else case.known_at
            return
        case.known_at = None
        key = self._reporting_key(watchers)
        late = slot - case.since >= turn_of(chain.keys.account, watchers, evidence_name(body))
        if key is None or not late or self._is_told(body):
            return
        if await self._submit(equivocation.KIND.number, body, key) is None:
            self._close(about)
        else:
            log.warning("evidence posted against=%s what=%s", body.culprit.hex()[:8], body.what)

    def _close(self, about: tuple[str, AccountId]) -> None:
        self._chain.watch.suspicions.pop(about, None)
        self._cases.pop(about, None)

    def _accusation(self, snapshot: Snapshot, suspicion: Suspicion) -> tuple[equivocation.Body | None, bool, frozenset[AccountId]]:
        """In a pool thread: evidence, whether the ledger has it, and who may report."""
        state = Overlay(store.ChainState(snapshot))
        body = accusation(state, self._chain.chain, suspicion)
        if body is None:
            return None, False, frozenset()
        facts, head = self._chain.facts, self._chain.head()
        assert facts is not None
        assert head is not None
        return body, is_known(state, body), head.committee.members | facts.miners

    def _reporting_key(self, watchers: frozenset[AccountId]) -> SigningKey | None:
        """A member speaks with its voting key, a miner with its sealing key, if the chain knows them."""
        keys = self._chain.keys
        facts = self._chain.facts
        known = frozenset() if facts is None else facts.keys.get(keys.account, frozenset())
        found = [key for key in (keys.vote, keys.seal) if key is not None and key.public in known]
        return found[0] if found and keys.account in watchers else None

    def _is_told(self, body: equivocation.Body) -> bool:
        """Somebody's report of the same waits in the pool."""
        wanted = evidence_name(body)
        for origin in Origin:
            for one in self._chain.pool.list(origin):
                if one.transaction.content.kind == equivocation.KIND.number and _name_of(one.transaction) == wanted:
                    return True
        return False

    # --- both -------------------------------------------------------------------------------------------------------

    async def _submit(self, kind: int, body: Record, key: SigningKey) -> TxId | None:
        """Its id; None when the chain does not want it."""
        chain = self._chain
        now = UnixMillis(chain.now_ms())
        assert chain.facts is not None
        life = min(OWN_ACT_LIFE_MS, chain.facts.profile.tx_life_ms)
        content = Content(ENVELOPE_VERSION, chain.chain, kind, chain.keys.account, NO_SERIAL, now, UnixMillis(now + life), (), encode(body))
        try:
            return await chain.submit(sign_transaction(content, [key]))
        except (InvalidTransaction, Refused) as error:
            log.info("not posted kind=%d why=%s", kind, error)
            return None


def _name_of(transaction: Transaction) -> bytes | None:
    try:
        return evidence_name(decode_body(transaction, equivocation.Body))
    except (InvalidTransaction, ValueError, OverflowError):  # of a body that was never judged to its end
        return None
