"""What a full node shows light ones of its chain: values, final blocks, changes of the committee, transactions; each with its proof.

A state can be proved as long as its tree and values are kept. What shows that one committee followed another is made when it becomes
final, while the state of that time is here, and kept for good.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from protocols.codec import encode
from protocols.ledger.block import Block, LightHeader, light_header, prove_leaf
from protocols.ledger.carried import COMMITTEE, committee_of, newest_committee
from protocols.ledger.checks import u64
from protocols.ledger.committee import Committee
from protocols.ledger.envelope import Transaction, decode_body
from protocols.ledger.light import COUNCIL_KEY, Inclusion, Link, Proven, Succession, enough
from protocols.ledger.state import Key
from protocols.ledger.state import Overlay as StateOverlay
from protocols.ledger.sync import header_row
from protocols.ledger.trail import TrailHead
from protocols.ledger.transactions import council_recover, key_rotate
from protocols.ledger.transactions.term_handover import HISTORY
from protocols.ledger.votes import Checkpoint, Vote
from protocols.limits import LIGHT_ANSWER_BYTES_MAX, LIGHT_SUCCESSIONS_MAX, LIGHT_VOTES_MAX, NUMBER_MAX
from protocols.types import BlockHash

from .chain import block, blocks_at, body, final_block, row, state_at
from .chain_state import ChainState, prove_after
from .engine import Put, Snapshot, Write
from .tables import CHAIN_SUCCESSIONS
from .values import load

SUCCESSION_BYTES_MAX = 1024 * 1024
# Blocks on top of a change of committee that are looked through for the votes that prove it.
BLOCKS_LOOKED_THROUGH_MAX = 128
NameAt = Callable[[int], BlockHash | None]
"""The block of a height on this node's branch."""


class _NotKept(Exception):
    """That state is not here, or no more."""


def proofs(snapshot: Snapshot, name: BlockHash, keys: Iterable[Key]) -> tuple[Proven, ...]:
    """What stands at these keys after a block: of the first of them, as many as fit one message; none where that state is not kept."""
    shown = block(snapshot, name)
    found: list[Proven] = []
    size = 0
    for key in keys if shown is not None else ():
        assert shown is not None
        try:
            one = prove_at(snapshot, Checkpoint(shown.info.height, name), key)
        except _NotKept:
            return ()
        size += len(encode(one))
        if found and size > LIGHT_ANSWER_BYTES_MAX:
            break
        found.append(one)
    return tuple(found)


def prove_at(snapshot: Snapshot, at: Checkpoint, key: Key) -> Proven:
    """What stands at one key of the state after a block that is kept here. Raises _NotKept, StoreDamaged."""
    found = prove_after(snapshot, (at.height, at.hash), *key)
    if found is None:
        raise _NotKept
    return Proven(*found)


def bundles(snapshot: Snapshot, names: Iterable[BlockHash]) -> tuple[LightHeader, ...]:
    """Header bundles of these blocks, as far as they are kept and fit one message."""
    found: list[LightHeader] = []
    size = 0
    for name in names:
        shown = block(snapshot, name)
        if shown is None:
            break
        one = light_header(shown)
        size += len(encode(one))
        if found and size > LIGHT_ANSWER_BYTES_MAX:
            break
        found.append(one)
    return tuple(found)


def inclusion(snapshot: Snapshot, name: BlockHash, transaction: bytes) -> Inclusion | None:
    """A transaction of a block; None where either is not here."""
    shown = block(snapshot, name)
    for index, one in enumerate(() if shown is None else shown.transactions, 1):
        if one.id == transaction:
            assert shown is not None
            return Inclusion(header_row(shown), prove_leaf(shown, index), one)
    return None


def trail_head(snapshot: Snapshot, at: Checkpoint) -> TrailHead | None:
    """A block with the history tree before it; None where its state is not kept."""
    shown = block(snapshot, at.hash)
    try:
        return None if shown is None else TrailHead(header_row(shown), prove_at(snapshot, at, (HISTORY, b"")))
    except _NotKept:
        return None


def link(snapshot: Snapshot, final: BlockHash, child: BlockHash, votes: Iterable[Vote], generation: int) -> Link | None:
    """Why a block is final, for who trusts the committee of a generation; None while its child's committee has not called it so."""
    shown, above = block(snapshot, final), block(snapshot, child)
    if shown is None or above is None:
        return None
    points = Checkpoint(shown.info.height, final), Checkpoint(above.info.height, child)
    try:
        committee, following = (prove_at(snapshot, points[1], (COMMITTEE, u64(one))) for one in (generation, generation + 1))
    except _NotKept:
        return None
    fitting = [vote for vote in votes if (vote.source, vote.target) == points]
    return Link(header_row(shown), header_row(above), tuple(fitting[:LIGHT_VOTES_MAX]), committee, following)


# --- from committee to committee --------------------------------------------------------------------------------------


def successions(snapshot: Snapshot, generation: int) -> tuple[Succession, ...]:
    """From the committee of a generation on, one after the other, as many as fit one message."""
    found: list[Succession] = []
    size = 0
    while len(found) < LIGHT_SUCCESSIONS_MAX:
        data = snapshot.get(CHAIN_SUCCESSIONS, u64(min(generation, NUMBER_MAX)))
        size += 0 if data is None else len(data)
        if data is None or (found and size > LIGHT_ANSWER_BYTES_MAX):
            break
        one = load(CHAIN_SUCCESSIONS, data, Succession, bytes_max=SUCCESSION_BYTES_MAX)
        found.append(one)
        generation += sum(proven.value is not None for proven in one.committees[:-1])
    return tuple(found)


def keep_successions(snapshot: Snapshot, name_at: NameAt, head: int, final: int, loose: Iterable[Vote]) -> list[Write]:
    """What shows, for each committee up to the one in force at the final height, that another one followed it; what is kept already stays.

    name_at, head: this node's branch and its height. loose: votes that no block carries yet. Looks at nothing where nothing is missing.
    """
    state = StateOverlay(ChainState(snapshot))
    writes: list[Write] = []
    generation = newest_committee(state).generation
    while generation and not snapshot.has(CHAIN_SUCCESSIONS, u64(generation - 1)):
        generation -= 1
        after = committee_of(state, generation + 1)
        assert after is not None, "committees stay in the state"
        if not final - BLOCKS_LOOKED_THROUGH_MAX <= after.from_height <= final:
            continue
        found = _succession(snapshot, state, generation, name_at, head, loose)
        if found is not None:
            writes.append(Put(CHAIN_SUCCESSIONS, u64(generation), encode(found)))
    return writes


def _succession(
    snapshot: Snapshot, state: StateOverlay, generation: int, name_at: NameAt, head: int, loose: Iterable[Vote]
) -> Succession | None:
    """The lowest block under a later committee for which quorums of that one and of all before it, back to ``generation``, have voted."""
    after = committee_of(state, generation + 1)
    assert after is not None
    votes = {vote for vote in loose if vote.target.height >= after.from_height}
    for height in range(after.from_height + 1, min(head, after.from_height + BLOCKS_LOOKED_THROUGH_MAX) + 1):
        name = name_at(height)
        shown = None if name is None else block(snapshot, name)
        votes |= set() if shown is None else set(shown.votes)
    for target in sorted({vote.target for vote in votes}, key=lambda one: (one.height, one.hash)):
        if name_at(target.height) != target.hash or target.height < after.from_height:
            continue
        needed = _committees(state, generation, target.height)
        if enough(target, votes, needed):
            return _shown(snapshot, state, needed, body(snapshot, target.hash), sorted(votes, key=lambda one: one.signature), name_at)
    return None


def _committees(state: StateOverlay, generation: int, height: int) -> list[Committee]:
    """Those from a generation on that are in force at a height or before."""
    found: list[Committee] = []
    while (one := committee_of(state, generation)) is not None and one.from_height <= height:
        found.append(one)
        generation += 1
    return found


def _shown(
    snapshot: Snapshot, state: StateOverlay, needed: Sequence[Committee], target: Block, votes: Sequence[Vote], name_at: NameAt
) -> Succession | None:
    at = Checkpoint(target.info.height, target.hash)
    first, last = needed[0].generation + 1, needed[-1].generation + 1
    try:
        committees = tuple(prove_at(snapshot, at, (COMMITTEE, u64(generation))) for generation in range(first, last + 1))
        council = prove_at(snapshot, at, COUNCIL_KEY)
    except _NotKept:
        return None
    rotations: list[Transaction] = []
    for one in needed[1:]:
        for height in (one.from_height - 1, one.from_height):
            name = name_at(height)
            shown = None if name is None else block(snapshot, name)
            rotations += [] if shown is None else [found for found in shown.transactions if _is_rotation(found) and found not in rotations]
    fitting = tuple(vote for vote in votes if vote.target.hash == target.hash)[:LIGHT_VOTES_MAX]
    return Succession(header_row(target), fitting, committees, council, tuple(rotations))


def _is_rotation(transaction: Transaction) -> bool:
    kind = transaction.content.kind
    return kind == council_recover.KIND.number or (
        kind == key_rotate.KIND.number and decode_body(transaction, key_rotate.Body).what == "vote"
    )


# --- places -----------------------------------------------------------------------------------------------------------


def height_of_slot(snapshot: Snapshot, slot: int) -> int | None:
    """Height of the block of a slot, on the branch at which the state stands; None when the state has moved away from it."""
    at, final = state_at(snapshot), final_block(snapshot)
    here = None if at is None else row(snapshot, at)
    low = None if final is None else row(snapshot, final)
    if here is None or low is None:
        return None
    while here.height > low.height:
        if here.slot == slot:
            return here.height
        parent = row(snapshot, here.parent)
        if parent is None:
            return None
        here = parent
    first, last = 0, here.height
    while first <= last:  # at and below the final height there is one block a height
        middle = (first + last) // 2
        names = blocks_at(snapshot, middle)
        found = row(snapshot, names[0]) if names else None
        if found is None:  # below what is kept
            first = middle + 1
        elif found.slot == slot:
            return middle
        else:
            first, last = (middle + 1, last) if found.slot < slot else (first, middle - 1)
    return None
