"""Lists of miners, term after term: boundaries, draw two ahead, hand-over, reveals, participation. Source: SPEC.md §Terms and leaders.

Spaces: ``tip`` → Tip; ``term`` number → Term; ``seed`` number → 32 bytes; ``order`` number → Order; ``handover`` number | miner → empty;
``reveal`` term | height → 32 bytes; ``miner`` account → Miner; ``cluster`` name → Cluster;
``sealer`` sealing key → account, also of keys that were rotated.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..codec import Record
from ..crypto import Label, hash_labelled, sha256
from ..errors import InvalidBlock, Reason
from ..limits import EVIDENCE_TERMS, MISSED_GRACE
from ..types import AccountId, ChainId, Digest, UnixMillis
from .block import NO_MINER, ZERO_REVEAL, BlockInfo
from .checks import u64
from .context import ACCOUNT, CHAIN, Account, Context
from .draw import draw_order, genesis_seed, leader, next_seed
from .profile import Cluster, Policy, Profile
from .state import Overlay

TIP = "tip"
TERM = "term"
SEED = "seed"
ORDER = "order"
HANDOVER = "handover"
REVEAL = "reveal"
MINER = "miner"
CLUSTER = "cluster"
SEALER = "sealer"


class Tip(Record, frozen=True):
    """The block that this state is after. blocks: of its term, up to and including it. Genesis: height 0, slot 0, no miner."""

    height: int
    slot: int
    miner: AccountId
    term: int
    blocks: int


class Term(Record, frozen=True):
    """miners: by rising id. first_slot: of its first block."""

    number: int
    seed: bytes
    miners: tuple[AccountId, ...]
    first_slot: int


class Order(Record, frozen=True):
    """The order of a draw, per cluster: (seats, candidates in order). candidates: how many were certified in all."""

    clusters: tuple[tuple[int, tuple[AccountId, ...]], ...]
    candidates: int


class Miner(Record, frozen=True):
    """A candidate. key: seals, Ed25519, held by one node. tip, left: its chain of reveals and how many are left.

    nominated: members of its cluster that recommend it. sealed, missed: halved at each boundary.
    """

    account: AccountId
    cluster: str
    key: bytes
    tip: bytes
    left: int
    is_certified: bool
    nominated: tuple[AccountId, ...]
    sealed: int
    missed: int


@dataclass(frozen=True, slots=True)
class Serving:
    """The term that a block of a given slot would belong to. opens: the block opens it. is_rescue: by silence."""

    number: int
    seed: bytes
    miners: tuple[AccountId, ...]
    opens: bool
    is_rescue: bool


def load_tip(state: Overlay) -> Tip:
    """The tip of this state."""
    found = state.load(TIP, b"", Tip)
    assert found is not None, "every state begins with a genesis"
    return found


def load_term(state: Overlay, number: int) -> Term:
    """A term that has begun (genesis also stores term 1's list)."""
    found = state.load(TERM, u64(number), Term)
    assert found is not None, number
    return found


def start_terms(state: Overlay, chain: ChainId, miners: Sequence[AccountId]) -> None:
    """What genesis writes: the list of terms 0 and 1 and their seeds."""
    for number in (0, 1):
        state.put(SEED, u64(number), genesis_seed(chain, number))
    state.save(TERM, u64(0), Term(0, genesis_seed(chain, 0), tuple(sorted(miners)), 0))
    state.save(TIP, b"", Tip(0, 0, NO_MINER, 0, 0))


def is_candidate(state: Overlay, miner: Miner, time_ms: UnixMillis) -> bool:
    """Certified at ``time_ms``: by the council, with a valid certificate, in standing, in a cluster with seats."""
    account = state.load(ACCOUNT, miner.account, Account)
    cluster = state.load(CLUSTER, miner.cluster.encode(), Cluster)
    if account is None or cluster is None or not miner.is_certified or not cluster.seats:
        return False
    in_standing = account.status == "active" and not account.suspensions and not account.revocations
    return in_standing and account.from_ms <= time_ms < account.to_ms and is_in_cluster(account, cluster)


def is_in_cluster(account: Account, cluster: Cluster) -> bool:
    """Every pair of the predicate is an attribute of the account."""
    return all(account.attribute(name) == value for name, value in cluster.predicate)


def seats_of(state: Overlay) -> int:
    """How many miners a list has when there are candidates enough: the seats of all clusters, as far as the policy list lets them be."""
    loaded = [state.load(CLUSTER, key, Cluster) for key, _ in list(state.iterate(CLUSTER))]
    policy = state.load(CHAIN, b"policy", Policy)
    assert policy is not None
    return min(sum(cluster.seats for cluster in loaded if cluster is not None), policy.miners_max)


def seats_trouble(seats: int) -> str:
    """What is to be said against so many seats; empty for nothing.

    An odd number is always allowed: one seat fewer in the largest cluster never gives another one a majority.
    """
    if seats % 2:
        return ""
    return f"{seats} seats of miners, an even number: half of them has no majority; the council makes it odd with a ClusterDefine"


def candidates(state: Overlay, time_ms: UnixMillis) -> tuple[Miner, ...]:
    """All certified candidates, by rising id."""
    found = []
    for name, _ in state.iterate(MINER):
        miner = state.load(MINER, name, Miner)
        assert miner is not None
        if is_candidate(state, miner, time_ms):
            found.append(miner)
    return tuple(found)


def serving(state: Overlay, profile: Profile, slot: int, *, parent_time_ms: UnixMillis, miners_max: int) -> Serving:
    """The term that a block in ``slot`` on top of this state belongs to.

    parent_time_ms: the tip's block time, at which certification is judged.
    """
    tip = load_tip(state)
    term = load_term(state, tip.term)
    is_rescue = slot - tip.slot > profile.rescue_slots
    is_over = tip.blocks >= profile.term_blocks or (tip.blocks > 0 and slot - term.first_slot >= profile.term_slots)
    if not is_rescue and not is_over:
        return Serving(term.number, term.seed, term.miners, False, False)
    number = tip.term + 1
    seed = state.get(SEED, u64(number))
    assert seed is not None, number
    if is_rescue:
        miners = tuple(miner.account for miner in candidates(state, parent_time_ms)) or term.miners
    else:
        miners = _formed(state, number, term, miners_max)
    return Serving(number, seed, miners, True, is_rescue)


def _formed(state: Overlay, number: int, before: Term, miners_max: int) -> tuple[AccountId, ...]:
    """The list of a term: of each cluster's order the first that handed over, as many as it has seats."""
    order = state.load(ORDER, u64(number), Order)
    if order is None:  # term 1, whose list genesis gave
        return before.miners
    taken: list[AccountId] = []
    for seats, line in order.clusters:
        ready = [miner for miner in line if state.get(HANDOVER, u64(number) + miner) is not None]
        taken += ready[:seats]
    seats = min(sum(seats for seats, _ in order.clusters), miners_max)
    if not taken or 2 * len(taken) < min(seats, order.candidates):
        return before.miners
    return tuple(sorted(taken[:miners_max]))


def check_leader(state: Overlay, term: Serving, slot: int, miner: AccountId, *, has_leader: bool) -> None:
    """Raises InvalidBlock(NOT_LEADER) unless this miner may seal in this slot."""
    if miner not in term.miners:
        raise InvalidBlock(Reason.NOT_LEADER, f"miner {miner.hex()[:8]}… is not on the list of term {term.number}")
    if has_leader and slot_leader(state, term, slot) != miner:
        raise InvalidBlock(Reason.NOT_LEADER, f"slot {slot} has another leader than {miner.hex()[:8]}…")


def slot_leader(state: Overlay, term: Serving, slot: int) -> AccountId:
    """The leader of a slot after the tip's."""
    tip = load_tip(state)
    return leader(term.miners, term.seed, slot=slot, parent_slot=tip.slot, parent_miner=tip.miner)


def sealing_key(state: Overlay, miner: AccountId) -> bytes:
    """The key that a miner of a list seals with."""
    found = state.load(MINER, miner, Miner)
    assert found is not None, "lists are made of miners"
    return found.key


def enter(context: Context, term: Serving, info: BlockInfo, *, parent_time_ms: UnixMillis) -> None:
    """Terms, reveals and the tip for a block that ``check_leader`` let through. Raises InvalidBlock(BAD_REVEAL)."""
    state = context.state
    tip = load_tip(state)
    if term.opens:
        _open(context, term, tip, info.slot, parent_time_ms)
    elif tip.blocks == 0:
        state.save(TERM, u64(term.number), Term(term.number, term.seed, term.miners, info.slot))
    _reveal(context, info)
    blocks = 1 if term.opens else tip.blocks + 1
    state.save(TIP, b"", Tip(context.height, info.slot, info.miner, term.number, blocks))


def _open(context: Context, term: Serving, tip: Tip, slot: int, parent_time_ms: UnixMillis) -> None:
    """The boundary: the seed and the order of the term after this one are fixed, as of the parent."""
    state, number = context.state, term.number
    ended = load_term(state, tip.term)
    reveals = []
    for key, value in list(state.iterate(REVEAL, u64(ended.number))):
        reveals.append(value)
        state.delete(REVEAL, key)
    seed = next_seed(ended.seed, reveals)
    state.put(SEED, u64(number + 1), seed)
    state.delete(SEED, u64(number - 1))
    state.save(TERM, u64(number), Term(number, term.seed, term.miners, slot))
    if number > EVIDENCE_TERMS:
        state.delete(TERM, u64(number - EVIDENCE_TERMS - 1))
    state.delete(ORDER, u64(number))
    for key, _ in list(state.iterate(HANDOVER)):
        if key[:8] <= u64(number):
            state.delete(HANDOVER, key)
    certified = candidates(state, parent_time_ms)
    state.save(ORDER, u64(number + 1), _draw(context, certified, seed, term.miners))
    for key, _ in list(state.iterate(MINER)):
        miner = state.load(MINER, key, Miner)
        assert miner is not None
        if miner.sealed or miner.missed:
            state.save(MINER, key, _counted(miner, miner.sealed // 2, miner.missed // 2))
    context.emit("term", u64(number))


def _draw(context: Context, certified: Sequence[Miner], seed: bytes, sitting: Sequence[AccountId]) -> Order:
    needed = context.policy.nominations_min
    lines = []
    for key, _ in context.state.iterate(CLUSTER):
        cluster = context.state.load(CLUSTER, key, Cluster)
        assert cluster is not None
        own = [(miner.account, is_recommended(miner, needed)) for miner in certified if miner.cluster == cluster.name]
        if own and cluster.seats:
            lines.append((cluster.seats, draw_order(own, seed, sitting)))
    return Order(tuple(lines), len(certified))


def is_recommended(miner: Miner, nominations_min: int) -> bool:
    """Nominated by enough of its cluster, and not known for missing its slots."""
    return len(miner.nominated) >= nominations_min and miner.missed <= miner.sealed + MISSED_GRACE


def _counted(miner: Miner, sealed: int, missed: int) -> Miner:
    return Miner(miner.account, miner.cluster, miner.key, miner.tip, miner.left, miner.is_certified, miner.nominated, sealed, missed)


def count_missed(context: Context, term: Serving, tip: Tip, oldest_ts_ms: int | None) -> None:
    """Counts those who let slots between the parent's (``tip``) and this block's go by. oldest_ts_ms: the smallest ts of the block's
    transactions, None without any.

    Leaders of the skipped slots in which there was something to seal: at most as many slots as the list is long, none that began
    before the oldest transaction of this block was made. Without transactions silence is no fault."""
    if oldest_ts_ms is None:
        return
    state, slot_ms = context.state, context.profile.slot_ms
    genesis_ms = context.time_ms - context.slot * slot_ms
    for slot in range(max(tip.slot + 1, context.slot - len(term.miners)), context.slot):
        if genesis_ms + slot * slot_ms >= oldest_ts_ms:
            name = leader(term.miners, term.seed, slot=slot, parent_slot=tip.slot, parent_miner=tip.miner)
            miner = state.load(MINER, name, Miner)
            assert miner is not None
            state.save(MINER, name, _counted(miner, miner.sealed, miner.missed + 1))


def _reveal(context: Context, info: BlockInfo) -> None:
    state = context.state
    miner = state.load(MINER, info.miner, Miner)
    assert miner is not None
    left, tip = miner.left, miner.tip
    if left:
        if sha256(info.reveal) != tip:
            raise InvalidBlock(Reason.BAD_REVEAL, "reveal is not the one that the miner committed to")
        left, tip = left - 1, info.reveal
        state.put(REVEAL, u64(info.term) + u64(info.height), info.reveal)
    elif info.reveal != ZERO_REVEAL:
        raise InvalidBlock(Reason.BAD_REVEAL, "a miner whose chain is exhausted reveals 32 zero bytes")
    if info.new_tip:
        left, tip = info.new_tip_count, info.new_tip
    state.save(
        MINER,
        info.miner,
        Miner(miner.account, miner.cluster, miner.key, tip, left, miner.is_certified, miner.nominated, miner.sealed + 1, miner.missed),
    )


def handover_challenge(seed: bytes, miner: AccountId, index: int) -> Digest:
    """What a candidate for a term must answer; seed: of that term. 32 bytes."""
    return hash_labelled(Label.HANDOVER, seed, miner, u64(index))
