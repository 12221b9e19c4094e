"""The one function that judges and applies a block, on every path: sealed here, received, synced, replayed. Source: SPEC.md §Transition.

A state and a block in; a change, an undo record and what happened out; or a verdict. Nothing here knows this node's clock: what depends
on it (``check_arrival``) is asked apart and is never remembered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..codec import encode, replace
from ..crypto import FORMAT
from ..errors import InvalidBlock, InvalidTransaction, Reason, Undecided
from ..limits import BLOCK_VOTES_MAX, RECENT_BLOCKS, RETARGET_BLOCKS
from ..types import AccountId, ChainId, UnixMillis
from .block import NO_FILTER, Block, BlockInfo, Header, block_merkle_root, check_block_form, check_seal
from .carried import HASH, carry, committee_at, final_height, is_carriable
from .checks import u64
from .committee import Committee
from .conditions import fire, note_ends
from .context import Context, Event, check_common, genesis_time_ms, load_profile, remember
from .draw import miner_list_hash
from .envelope import Transaction, check_form
from .history import Peaks, append
from .schedule import SCHEDULE, RuleSet
from .seals.table import SEALS
from .state import Overlay, StateChange, StateView
from .terms import Serving, Tip, check_leader, count_missed, enter, load_tip, sealing_key, serving
from .transactions import council_update
from .transactions.chain_genesis import WORK
from .transactions.rule_activation import version_at
from .transactions.term_handover import HISTORY
from .votes import Vote, carried_order, votes_root
from .work import SearchTime, WorkState, next_target, work_of

Schedule = Mapping[int, RuleSet]


@dataclass(frozen=True, slots=True)
class Applied:
    """What a valid block does. work: cumulative. final: height that carried votes made final. committee: in force at this block."""

    change: StateChange
    events: tuple[Event, ...]
    work: int
    final: int
    committee: Committee


@dataclass(frozen=True, slots=True)
class Draft:
    """A block that only lacks nonce and seal; its header's T_stamp may be refreshed within the slot while a nonce is searched."""

    header: Header
    info: BlockInfo
    transactions: tuple[Transaction, ...]
    votes: tuple[Vote, ...]
    refused: tuple[tuple[Transaction, InvalidTransaction], ...]


# --- what a slot means --------------------------------------------------------------------------------------------


def slot_of(time_ms: int, *, genesis_ms: int, slot_ms: int) -> int:
    """The slot that a time lies in; negative before genesis."""
    return (time_ms - genesis_ms) // slot_ms


def slot_start_ms(slot: int, *, genesis_ms: int, slot_ms: int) -> UnixMillis:
    """Block time of the blocks of a slot."""
    return UnixMillis(genesis_ms + slot * slot_ms)


def check_arrival(header: Header, *, network_now_ms: int, drift_ms_max: int) -> None:
    """This node's clock: raises Undecided(TOO_EARLY) for a block that is further ahead than drift; it is held and judged again."""
    ahead = header.t_stamp_ms - network_now_ms
    if ahead > drift_ms_max:
        raise Undecided(Reason.TOO_EARLY, f"block is {ahead} ms ahead of network time, at most {drift_ms_max} wanted")


def next_term(view: StateView, slot: int) -> Serving:
    """The term that a block in ``slot`` on this state would belong to: whose list its leader comes from."""
    state = Overlay(view)
    return _serving(_context(state, load_tip(state).height + 1, slot, ChainId(bytes(32))), load_tip(state))


def _context(state: Overlay, height: int, slot: int, chain: ChainId) -> Context:
    profile = load_profile(state)
    time_ms = slot_start_ms(slot, genesis_ms=genesis_time_ms(state), slot_ms=profile.slot_ms)
    return Context(state, chain, profile, height, slot, time_ms, load_tip(state).term, version_at(state, height))


def _parent_time_ms(context: Context, tip: Tip) -> UnixMillis:
    return UnixMillis(context.time_ms - (context.slot - tip.slot) * context.profile.slot_ms)


def _serving(context: Context, tip: Tip) -> Serving:
    return serving(
        context.state,
        context.profile,
        context.slot,
        parent_time_ms=_parent_time_ms(context, tip),
        miners_max=context.policy.miners_max,
    )


# --- judging and applying -----------------------------------------------------------------------------------------


def apply_block(view: StateView, parent: Header, block: Block, *, chain: ChainId, schedule: Schedule = SCHEDULE) -> Applied:
    """Judges a block on top of ``parent``, whose state ``view`` is, and says what it changes.

    Raises InvalidBlock for what every node finds, Undecided(UNKNOWN_PARENT | RULE_SET) for what this one cannot judge, DecodeError.
    """
    applied = result_of(view, parent, block, chain=chain, schedule=schedule)
    if applied.change.root != block.info.state_root:
        text = f"state root {applied.change.root.hex()[:16]}…, block says {block.info.state_root.hex()[:16]}…"
        raise InvalidBlock(Reason.STATE_ROOT, text)
    return applied


def result_of(view: StateView, parent: Header, block: Block, *, chain: ChainId, schedule: Schedule = SCHEDULE) -> Applied:
    """``apply_block`` without its last step: what this program makes of the block, whatever state root the block names."""
    header = check_block_form(block)
    if header.parent != parent.hash:
        raise Undecided(Reason.UNKNOWN_PARENT, "this state is not the parent's")
    state = Overlay(view)
    tip = load_tip(state)
    info = block.info
    context = _begin(state, header, info, tip, chain)
    rules = _rules(context, header, schedule)
    size = len(encode(block))
    if size > context.profile.block_bytes_max or len(block.transactions) > context.profile.block_transactions_max:
        raise InvalidBlock(Reason.TOO_LONG, f"block of {size} bytes, {len(block.transactions)} transactions")
    _note_parent(context, parent, tip)
    term = _serving(context, tip)
    _check_header(context, term, header, info, block.seal)
    work = _add_work(context, info)
    final = _open_block(context, term, info, tip, block.votes)
    _run_all(context, rules, block.transactions)
    _close_block(context, term, tip, block.transactions)
    return Applied(state.change(), tuple(context.events), work, final, committee_at(state, context.height))


def _begin(state: Overlay, header: Header, info: BlockInfo, tip: Tip, chain: ChainId) -> Context:
    """Time and place. Raises InvalidBlock(WRONG_CHAIN | BAD_INFO | BAD_TIME)."""
    if info.chain != chain:
        raise InvalidBlock(Reason.WRONG_CHAIN, "block of another chain")
    if info.height != tip.height + 1:
        raise InvalidBlock(Reason.BAD_INFO, f"height {info.height}, {tip.height + 1} wanted")
    profile = load_profile(state)
    slot = slot_of(header.t_stamp_ms, genesis_ms=genesis_time_ms(state), slot_ms=profile.slot_ms)
    if slot != info.slot or slot <= tip.slot:
        raise InvalidBlock(Reason.BAD_TIME, f"T_stamp lies in slot {slot}, info says {info.slot}, parent's is {tip.slot}")
    return _context(state, info.height, slot, chain)


def _rules(context: Context, header: Header, schedule: Schedule) -> RuleSet:
    """Raises Undecided(RULE_SET) when this program lacks the rule set in force, InvalidBlock(RULE_SET) when the header names another."""
    rules = schedule.get(context.version)
    if rules is None:
        raise Undecided(Reason.RULE_SET, f"height {context.height} needs rule set {context.version}", hint="install a version that has it")
    if header.version != context.version:
        raise InvalidBlock(Reason.RULE_SET, f"V is {header.version}, rule set {context.version} is in force")
    return rules


def _check_header(context: Context, term: Serving, header: Header, info: BlockInfo, seal: bytes) -> None:
    """The acceptance list of the design: miner selected, target, nonce and work, signature. Raises InvalidBlock."""
    if info.term != term.number or info.miner_list != miner_list_hash(term.miners):
        raise InvalidBlock(Reason.BAD_INFO, f"term {info.term} or its list, {term.number} wanted")
    rule = SEALS[context.profile.seal]
    check_leader(context.state, term, context.slot, info.miner, has_leader=rule.has_leader)
    target = _target(context)
    if int.from_bytes(info.target, "big") != target:
        raise InvalidBlock(Reason.TARGET, f"target {info.target.hex()[:16]}…, {target:064x} wanted")
    rule.check(header, target)
    check_seal(sealing_key(context.state, info.miner), context.chain, context.slot, header.hash, seal)


def _load_work(context: Context) -> WorkState:
    found = context.state.load(WORK, b"", WorkState)
    assert found is not None, "every state begins with a genesis"
    return found


def _target(context: Context) -> int:
    work = _load_work(context)
    profile = context.profile
    target = int.from_bytes(work.target, "big")
    if not SEALS[profile.seal].has_work:
        return target
    return next_target(target, work.window, height=context.height, slot_ms=profile.slot_ms, work_bits_min=profile.work_bits_min)


def _note_parent(context: Context, parent: Header, tip: Tip) -> None:
    """What a block cannot say of itself its child writes: hash, place in the history tree, search time."""
    state, height = context.state, context.height - 1
    state.put(HASH, u64(height), parent.hash)
    peaks = state.load(HISTORY, b"", Peaks)
    assert peaks is not None
    assert peaks.count == height
    state.save(HISTORY, b"", append(peaks, parent.hash))
    if height:
        work = _load_work(context)
        delay = parent.t_stamp_ms - _parent_time_ms(context, tip)
        state.save(WORK, b"", replace(work, window=(*work.window, SearchTime(tip.miner, delay))))


def _add_work(context: Context, info: BlockInfo) -> int:
    """The block's target and work; at a retarget the window begins anew. Result: cumulative work."""
    work = _load_work(context)
    target = _target(context)
    total = int.from_bytes(work.work, "big") + (work_of(target) if SEALS[context.profile.seal].has_work else 1)
    window = () if context.height % RETARGET_BLOCKS == 0 else work.window
    context.state.save(WORK, b"", WorkState(target.to_bytes(32, "big"), total.to_bytes(32, "big"), window))
    return total


def _open_block(context: Context, term: Serving, info: BlockInfo, tip: Tip, votes: Sequence[Vote]) -> int:
    """Everything before the first transaction, in this order: term, carried votes, council, conditions. Result: final height."""
    state = context.state
    enter(context, term, info, parent_time_ms=_parent_time_ms(context, tip))
    context.term = term.number
    before = final_height(state)
    # Under another chain's id the same member could say something else here, and no evidence would ever hold against it.
    if any(vote.chain != context.chain for vote in votes):
        raise InvalidBlock(Reason.BAD_VOTE, "carried vote of another chain")
    final = carry(state, context.height, votes)
    if final > before:
        council_update.note_final(context, final)
        context.emit("final", u64(final))
    if term.opens:
        council_update.at_boundary(context)
    fire(context)
    return final


def _close_block(context: Context, term: Serving, tip: Tip, transactions: Sequence[Transaction]) -> None:
    oldest = min((one.content.ts_ms for one in transactions), default=None)
    count_missed(context, term, tip, oldest)
    note_ends(context)
    lowest = min(context.height - RECENT_BLOCKS, final_height(context.state))
    stale = []
    for key, _ in context.state.iterate(HASH):
        if key >= u64(max(0, lowest)):
            break
        stale.append(key)
    for key in stale:
        context.state.delete(HASH, key)


def _run_all(context: Context, rules: RuleSet, transactions: Iterable[Transaction]) -> None:
    for index, transaction in enumerate(transactions, 1):
        try:
            apply_transaction(context, rules, transaction)
        except InvalidTransaction as error:
            raise InvalidBlock(error.reason, f"transaction {index}: {error.message}") from error


def apply_transaction(context: Context, rules: RuleSet, transaction: Transaction) -> None:
    """Judges one transaction and writes what it does; one that is refused leaves no trace. Raises InvalidTransaction."""
    mark, events = context.state.mark(), len(context.events)
    try:
        check_form(transaction)
        size = transaction.size
        if size > context.profile.tx_bytes_max:
            raise InvalidTransaction(Reason.TOO_LONG, f"{size} bytes, at most {context.profile.tx_bytes_max}")
        kind = rules.kinds.get(transaction.content.kind)
        if kind is None:
            raise InvalidTransaction(Reason.UNKNOWN_KIND, f"kind {transaction.content.kind} under rule set {rules.version}")
        check_common(context, transaction)
        kind.run(context, transaction)
        remember(context, transaction)
    except InvalidTransaction:
        context.state.rollback(mark)
        del context.events[events:]
        raise


# --- for the pool and for sealers ---------------------------------------------------------------------------------


def check_transaction(
    view: StateView, parent: Header, transaction: Transaction, *, slot: int, chain: ChainId, schedule: Schedule = SCHEDULE
) -> None:
    """Would the transaction be valid alone in the next block, in this slot? The function of the blocks, its writes thrown away.

    parent: the tip's header. Raises InvalidTransaction, Undecided(RULE_SET).
    """
    (error,) = check_transactions(view, parent, (transaction,), slot=slot, chain=chain, schedule=schedule)
    if error is not None:
        raise error


def check_transactions(
    view: StateView, parent: Header, transactions: Sequence[Transaction], *, slot: int, chain: ChainId, schedule: Schedule = SCHEDULE
) -> list[InvalidTransaction | None]:
    """``check_transaction`` of each by itself: why not, or None. What the next block does before its first transaction is done once.

    Raises Undecided(RULE_SET).
    """
    state = Overlay(view)
    tip = load_tip(state)
    context = _context(state, tip.height + 1, max(slot, tip.slot + 1), chain)
    rules = schedule.get(context.version)
    if rules is None:
        raise Undecided(Reason.RULE_SET, f"height {context.height} needs rule set {context.version}")
    _note_parent(context, parent, tip)
    fire(context)
    mark, events = state.mark(), len(context.events)
    found: list[InvalidTransaction | None] = []
    for transaction in transactions:
        try:
            apply_transaction(context, rules, transaction)
        except InvalidTransaction as error:
            found.append(error)
        else:
            found.append(None)
            state.rollback(mark)
            del context.events[events:], context.said[:]
    return found


def carriable_votes(view: StateView, parent: Header, votes: Iterable[Vote], *, chain: ChainId) -> tuple[Vote, ...]:
    """Those of the verified votes that the next block may carry, in carried order: the lowest targets first, where there are too many."""
    state = Overlay(view)
    tip = load_tip(state)
    context = _context(state, tip.height + 1, tip.slot + 1, chain)
    _note_parent(context, parent, tip)
    found = {carried_order(vote): vote for vote in votes if vote.chain == chain and is_carriable(state, context.height, vote)}
    return tuple(found[order] for order in sorted(found)[:BLOCK_VOTES_MAX])


def draft_block(
    view: StateView,
    parent: Header,
    *,
    chain: ChainId,
    t_stamp_ms: UnixMillis,
    miner: AccountId,
    reveal: bytes,
    new_tip: tuple[bytes, int] = (b"", 0),
    transactions: Sequence[Transaction] = (),
    votes: Sequence[Vote] = (),
    schedule: Schedule = SCHEDULE,
) -> Draft:
    """The block that this miner may seal in the slot of ``t_stamp_ms``: transactions in order, as far as they are valid and fit.

    votes: of ``carriable_votes``. Raises InvalidBlock (not the leader, a wrong reveal, …).
    """
    state = Overlay(view)
    tip = load_tip(state)
    profile = load_profile(state)
    slot = slot_of(t_stamp_ms, genesis_ms=genesis_time_ms(state), slot_ms=profile.slot_ms)
    if slot <= tip.slot:
        raise InvalidBlock(Reason.BAD_TIME, f"slot {slot}, parent's is {tip.slot}")
    context = _context(state, tip.height + 1, slot, chain)
    rules = schedule.get(context.version)
    if rules is None:
        raise Undecided(Reason.RULE_SET, f"height {context.height} needs rule set {context.version}")
    _note_parent(context, parent, tip)
    term = _serving(context, tip)
    check_leader(state, term, slot, miner, has_leader=SEALS[profile.seal].has_leader)
    info = BlockInfo(
        format=FORMAT,
        chain=chain,
        height=context.height,
        slot=slot,
        miner=miner,
        term=term.number,
        target=_target(context).to_bytes(32, "big"),
        state_root=bytes(32),
        miner_list=miner_list_hash(term.miners),
        reveal=reveal,
        new_tip=new_tip[0],
        new_tip_count=new_tip[1],
        votes_root=votes_root(votes),
        filter=NO_FILTER,
        transaction_count=0,
    )
    _add_work(context, info)
    _open_block(context, term, info, tip, votes)
    taken, refused = _take(context, rules, transactions, room=profile.block_bytes_max - BLOCK_OVERHEAD_BYTES - len(encode(tuple(votes))))
    _close_block(context, term, tip, taken)
    info = replace(info, state_root=state.change().root, transaction_count=len(taken))
    header = Header(t_stamp_ms, block_merkle_root(info, taken), context.version, parent.hash, 0)
    return Draft(header, info, taken, tuple(votes), refused)


BLOCK_OVERHEAD_BYTES = 1024
"""Header, info, seal and array heads of a block, generously."""


def _take(
    context: Context, rules: RuleSet, transactions: Sequence[Transaction], *, room: int
) -> tuple[tuple[Transaction, ...], tuple[tuple[Transaction, InvalidTransaction], ...]]:
    taken: list[Transaction] = []
    refused: list[tuple[Transaction, InvalidTransaction]] = []
    for transaction in transactions:
        size = transaction.size
        if size > room or len(taken) == context.profile.block_transactions_max:
            continue
        try:
            apply_transaction(context, rules, transaction)
        except InvalidTransaction as error:
            refused.append((transaction, error))
        else:
            taken.append(transaction)
            room -= size
    return tuple(taken), tuple(refused)


def finish_block(draft: Draft, nonce: int, seal: bytes) -> Block:
    """The sealed block. seal: over the hash of the header with this nonce."""
    header = sealed_header(draft, nonce)
    return Block(header.encoded, draft.info, draft.transactions, draft.votes, seal)


def sealed_header(draft: Draft, nonce: int) -> Header:
    """The draft's header with its nonce."""
    header = draft.header
    return Header(header.t_stamp_ms, header.merkle_root, header.version, header.parent, nonce)
