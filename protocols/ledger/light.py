"""What a light node believes, and why: final blocks by votes, committees one after the other, values and transactions by proofs.

It holds a committee that it trusts and takes a block as final when a quorum of that committee voted from it to its direct child: at least
one honest member then knew it to be justified, so all these votes count for everybody. Another committee is trusted when a quorum of each
one before it, by keys trusted already, voted for a block whose state seats it. Below a final block's state root nothing needs trust.
Blocks above the final one are followed as far as that state says who may seal them; what they say is *in a block*, not final.
Source: SPEC.md §Light nodes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..codec import Record, decode, replace
from ..errors import DecodeError, InvalidBlock, InvalidObject, Reason, RemoteError, Undecided, Verdict
from ..limits import LIGHT_SUCCESSIONS_MAX, LIGHT_VOTES_MAX, RETARGET_BLOCKS, RETARGET_STEP_MAX
from ..types import AccountId, BlockHash, ChainId
from .block import BlockInfo, Header, LeafProof, LightHeader, check_leaf, check_seal, decode_header
from .carried import COMMITTEE, HASH
from .checks import u64
from .committee import Committee
from .context import CHAIN
from .draw import leader, miner_list_hash
from .envelope import Transaction, check_form, decode_body, transaction_leaf
from .profile import Council, Profile
from .seals.port import SealRule
from .seals.table import SEALS
from .state import Key, check_value
from .sync import HeaderRow, check_rows
from .terms import TERM, TIP, Term, Tip
from .transactions import council_recover, key_rotate
from .transactions.chain_genesis import WORK
from .tree import TreeProof
from .votes import Checkpoint, Vote, check_vote, votes_root
from .work import work_of

COUNCIL_KEY: Key = (CHAIN, b"council")


class Proven(Record, frozen=True):
    """What stands at one key of a state: value, None for nothing, with its proof."""

    value: bytes | None
    proof: TreeProof


class Link(Record, frozen=True):
    """Why a block is final. row: the block. child: its direct child. votes: a quorum's, from the block to the child.

    committee, following: of the generation in force and of the next one, under the child's state root.
    """

    row: HeaderRow
    child: HeaderRow
    votes: tuple[Vote, ...]
    committee: Proven
    following: Proven


class Succession(Record, frozen=True):
    """Why another committee is to be trusted. row: a block under it. votes: for this block, of a quorum of every committee since.

    committees: of the generations after the trusted one up to the one in force, and the next, under the block's state root. council:
    under the same root. rotations: transactions by which members of the trusted committee vote with other keys (KeyRotate,
    CouncilRecover), oldest first.
    """

    row: HeaderRow
    votes: tuple[Vote, ...]
    committees: tuple[Proven, ...]
    council: Proven
    rotations: tuple[Transaction, ...]


class Inclusion(Record, frozen=True):
    """A transaction and the block that carries it. leaf: its place under the block's Merkle root."""

    row: HeaderRow
    leaf: LeafProof
    transaction: Transaction


class Trust(Record, frozen=True):
    """What a light node stands on. row: the newest block that it knows to be final. committee: of the newest generation known then."""

    row: HeaderRow
    committee: Committee

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.row.info.height, decode_header(self.row.header).hash)

    @property
    def root(self) -> bytes:
        """Root of the state after the final block."""
        return self.row.info.state_root


# --- single blocks ----------------------------------------------------------------------------------------------------


def name_of(row: HeaderRow, chain: ChainId, seal: SealRule | None) -> BlockHash:
    """The block's hash. Raises RemoteError unless it is a header of the chain with its leaf 0 and the work that leaf 0 claims."""
    return check_rows((row,), chain, seal)[0]


def check_anchor(row: HeaderRow, anchor: Checkpoint, chain: ChainId) -> None:
    """Raises RemoteError(INTEGRITY | …) unless the row is of exactly the block that this node was told to trust."""
    if name_of(row, chain, None) != anchor.hash or row.info.height != anchor.height:
        raise _lie("another block than the anchor's")


def check_values(root: bytes, keys: Sequence[Key], values: Sequence[Proven]) -> dict[Key, bytes | None]:
    """What stands at the first of these keys, as many as there are values. Raises RemoteError(INTEGRITY)."""
    if len(values) > len(keys):
        raise _lie(f"{len(values)} values for {len(keys)} keys")
    found: dict[Key, bytes | None] = {}
    for key, one in zip(keys, values, strict=False):
        _check_proven(root, key, one)
        found[key] = one.value
    return found


def _check_proven(root: bytes, key: Key, one: Proven) -> None:
    try:
        check_value(root, *key, one.value, one.proof)
    except InvalidObject as error:
        raise _lie(error.message) from error


def check_inclusion(one: Inclusion, chain: ChainId, seal: SealRule | None, wanted: bytes) -> BlockHash:
    """The block that carries the transaction ``wanted`` (its id). Whether that block is on the chain is asked apart. Raises RemoteError."""
    name = name_of(one.row, chain, seal)
    if one.transaction.id != wanted or not one.leaf.index:
        raise _lie("another transaction than the one asked for")
    try:
        check_leaf(decode_header(one.row.header), one.row.info, one.row.path, transaction_leaf(one.transaction), one.leaf)
    except InvalidObject as error:
        raise _lie(error.message) from error
    return name


# --- final blocks and committees --------------------------------------------------------------------------------------


def seated(generation: int, height: int, proven: Sequence[Proven], root: bytes) -> tuple[Committee, ...]:
    """Committees from ``generation`` on that are in force at ``height`` or before, by the state there. proven: of these generations in
    order, the last one of a committee that is not. Raises RemoteError when they are not, or leave out one that is."""
    found: list[Committee] = []
    for number, one in enumerate(proven, generation):
        _check_proven(root, (COMMITTEE, u64(number)), one)
        try:
            committee = None if one.value is None else decode(one.value, Committee)
        except DecodeError as error:
            raise _lie(f"committee: {error.message}") from error
        if committee is None or committee.from_height > height:
            if number != generation + len(proven) - 1:
                raise _lie("more committees than are in force")
            return tuple(found)
        if committee.generation != number or not 0 <= committee.faults < max(1, len(committee.seats)):
            raise _lie("a committee that is none")
        found.append(committee)
    raise _lie("committees in force are left out")


Keys = Mapping[AccountId, frozenset[bytes]]


def _own_keys(committee: Committee) -> Keys:
    return {seat.member: frozenset({seat.vote_key}) for seat in committee.seats}


def check_link(
    link: Link, chain: ChainId, seal: SealRule | None, committee: Committee, before: Sequence[tuple[Committee, Keys]] = ()
) -> Checkpoint:
    """The block that the link shows to be final. committee: the one trusted. before: those before it that this answer led away from, with
    the keys that count for them: their quorums are needed too where the block is older than the committee. Raises RemoteError.

    A block that a former committee called final does not pass: the child's own state says which committee is in force.
    """
    name, child = check_rows((link.row, link.child), chain, seal)
    source, target = Checkpoint(link.row.info.height, name), Checkpoint(link.child.info.height, child)
    found = seated(committee.generation, target.height, (link.committee, link.following), link.child.info.state_root)
    if found != (committee,):
        raise _lie("a final block under another committee than the trusted one")
    needed = [(committee, _own_keys(committee))]
    if source.height < committee.from_height:
        if not before:
            raise _lie("a final block from before the committee that calls it so")
        needed += before
    for one, keys in needed:
        members = _voters(link.votes, chain, keys, lambda vote: (vote.source, vote.target) == (source, target))
        if len(members) < one.quorum:
            raise _lie(f"{len(members)} of {one.quorum} members voted for it", Reason.BAD_VOTE)
    return source


def check_succession(
    one: Succession, chain: ChainId, seal: SealRule | None, committee: Committee, council: Council | None
) -> tuple[Committee, tuple[tuple[Committee, Keys], ...]]:
    """The committee to trust after ``committee``, and those before it with the keys that count for them. council: in force at the trusted
    final block. Raises RemoteError.

    A key counts for a committee when it is that committee's, or, for those before the newest, when a rotation says so that the member's
    council key or enough recovery keys signed: members vote with their newest keys, of which the committees before know nothing.
    """
    name = name_of(one.row, chain, seal)
    target = Checkpoint(one.row.info.height, name)
    after = seated(committee.generation + 1, target.height, one.committees, one.row.info.state_root)
    if not after:
        raise _lie("no other committee")
    if len(one.rotations) > LIGHT_VOTES_MAX:
        raise _lie(f"{len(one.rotations)} rotations, at most {LIGHT_VOTES_MAX} wanted", Reason.FLOOD)
    rotated: dict[AccountId, frozenset[bytes]] = {}
    for rotation in one.rotations:
        rotated = _rotated(rotated, rotation, chain, council)
    before = tuple((old, _with(_own_keys(old), rotated)) for old in (committee, *after[:-1]))
    for between, keys in (*before, (after[-1], _own_keys(after[-1]))):
        members = _voters(one.votes, chain, keys, lambda vote: vote.target == target)
        if len(members) < between.quorum:
            raise _lie(f"{len(members)} of {between.quorum} members of committee {between.generation} voted for it", Reason.BAD_VOTE)
    return after[-1], before


def _with(keys: Keys, rotated: Keys) -> Keys:
    return {member: own | rotated.get(member, frozenset()) for member, own in keys.items()}


def _rotated(keys: Keys, rotation: Transaction, chain: ChainId, council: Council | None) -> dict[AccountId, frozenset[bytes]]:
    """Voting keys of members after a rotation that was rightly signed. Raises RemoteError."""
    found = dict(keys)
    try:
        check_form(rotation)
        if rotation.content.chain != chain or council is None:
            raise _lie("a rotation on another chain, or of no council")
        if rotation.content.kind == key_rotate.KIND.number:
            body = decode_body(rotation, key_rotate.Body)
            member = council.member(body.subject)
            if body.what == "vote" and member is not None and member.key in rotation.keys:
                found[body.subject] = found.get(body.subject, frozenset()) | {body.new}
        elif rotation.content.kind == council_recover.KIND.number:
            recovered = decode_body(rotation, council_recover.Body).council
            enough = 0 < council.recovery_threshold <= len(rotation.keys & frozenset(council.recovery))
            for one in recovered.members if enough else ():
                found[one.id] = found.get(one.id, frozenset()) | {one.vote_key}
    except (InvalidObject, DecodeError) as error:
        raise _lie(f"rotation: {error.message}") from error
    return found


def _voters(votes: Sequence[Vote], chain: ChainId, keys: Keys, wanted: Callable[[Vote], bool]) -> frozenset[AccountId]:
    """Members whose vote is such a one, by one of their keys."""
    if len(votes) > LIGHT_VOTES_MAX:
        raise _lie(f"{len(votes)} votes, at most {LIGHT_VOTES_MAX} wanted", Reason.FLOOD)
    return frozenset(
        vote.member
        for vote in votes
        if vote.chain == chain and wanted(vote) and any(_is_signed(vote, key) for key in sorted(keys.get(vote.member, frozenset())))
    )


def _is_signed(vote: Vote, key: bytes) -> bool:
    try:
        check_vote(vote, key)
    except InvalidObject:
        return False
    return True


def _lie(what: str, reason: Reason = Reason.INTEGRITY) -> RemoteError:
    return RemoteError(reason, f"light: {what}", verdict=Verdict.BAN)


def advance(
    trust: Trust, successions: Sequence[Succession], links: Sequence[Link], chain: ChainId, seal: SealRule | None, council: Council | None
) -> Trust:
    """What a peer's answer leads to. Without a link the final block stays, and such trust is nothing to write down: the block under the
    new committee is not known to be final yet. Raises RemoteError.
    """
    if len(successions) > LIGHT_SUCCESSIONS_MAX or len(links) > 1:
        raise _lie("more committees or links than were asked for", Reason.FLOOD)
    committee = trust.committee
    before: list[tuple[Committee, Keys]] = []
    for one in successions:
        committee, left = check_succession(one, chain, seal, committee, council)
        council = _council(one)
        before += left
    row = trust.row
    for link in links:
        final = check_link(link, chain, seal, committee, before)
        if final.height == trust.checkpoint.height and final.hash != trust.checkpoint.hash:
            raise InvalidObject(Reason.CONFLICT, f"two blocks at height {final.height} have a quorum behind them")
        if final.height > trust.checkpoint.height:
            row = link.row
    return Trust(row, committee)


def _council(one: Succession) -> Council:
    """The council by the state under a succession that was checked. Raises RemoteError."""
    _check_proven(one.row.info.state_root, COUNCIL_KEY, one.council)
    try:
        return decode(one.council.value or b"", Council)
    except DecodeError as error:
        raise _lie(f"council: {error.message}") from error


def first_committee(values: Mapping[Key, bytes | None]) -> Committee | None:
    """The newest committee among proven values of a trusted state; None when they do not reach the first generation that is absent."""
    newest: Committee | None = None
    for generation in range(len(values)):
        key = (COMMITTEE, u64(generation))
        if key not in values:
            return None
        value = values[key]
        if value is None:
            return newest
        newest = decode(value, Committee)
    return None


def is_on_chain(values: Mapping[Key, bytes | None], point: Checkpoint) -> bool | None:
    """Whether a block is an ancestor, by the hashes that a final state knows; None where it does not know that height any more."""
    value = values.get((HASH, u64(point.height)))
    return None if value is None else value == point.hash


# --- blocks above the final one ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sealers:
    """What the state of a block says of who may seal on top of it. keys: sealing keys of the term's miners.

    target: of the block. Any later block of the same term is judged by it.
    """

    profile: Profile
    genesis_ms: int
    tip: Tip
    term: Term
    keys: Mapping[AccountId, bytes]
    target: int

    @property
    def seal(self) -> SealRule:
        return SEALS[self.profile.seal]


@dataclass(frozen=True, slots=True)
class HeadBlock:
    """A block above the final one, as far as it could be judged. work: its own and that of those between."""

    row: HeaderRow
    hash: BlockHash
    work: int

    @property
    def checkpoint(self) -> Checkpoint:
        return Checkpoint(self.row.info.height, self.hash)

    @property
    def order(self) -> tuple[int, int, bytes]:
        """Least is best, as in fork choice."""
        return (-self.work, self.row.info.slot, self.hash)


def sealer_keys(height_row: HeaderRow) -> tuple[Key, ...]:
    """Where the state says what ``Sealers`` needs, but for the miners' keys."""
    return ((TIP, b""), (TERM, u64(height_row.info.term)), (WORK, b""))


def follow(bundles: Iterable[LightHeader], root: Trust, sealers: Sealers, chain: ChainId, *, now_ms: int) -> tuple[HeadBlock, ...]:
    """Blocks on top of the final one, oldest first, up to the first whose sealer that state cannot know: one that opens a term.

    Each follows the one before, has the work and the slot that it claims, and the seal of the slot's leader.
    Raises RemoteError(INTEGRITY | NOT_LEADER | BAD_SEAL | TARGET | WORK | …), Undecided(TOO_EARLY).
    """
    found: list[HeadBlock] = []
    parent, work = root.checkpoint, 0
    now = sealers
    for bundle in bundles:
        row = HeaderRow(bundle.header, bundle.info, bundle.path)
        name = name_of(row, chain, sealers.seal)
        header, info = decode_header(row.header), row.info
        if header.parent != parent.hash or info.height != parent.height + 1 or info.slot <= now.tip.slot:
            raise _lie(f"block {info.height} does not follow the one before it")
        if votes_root(bundle.votes) != info.votes_root:
            raise _lie("votes that are not those of leaf 0")
        if _opens_term(now, info.slot):
            break
        _check_sealer(now, header, info, bundle.seal, name, chain, now_ms=now_ms)
        target = int.from_bytes(info.target, "big")
        work += work_of(target) if sealers.seal.has_work else 1
        found.append(HeadBlock(row, name, work))
        parent = Checkpoint(info.height, name)
        first_slot = now.term.first_slot if now.tip.blocks else info.slot
        tip = Tip(info.height, info.slot, info.miner, info.term, now.tip.blocks + 1)
        now = Sealers(now.profile, now.genesis_ms, tip, replace(now.term, first_slot=first_slot), now.keys, target)
    return tuple(found)


def _opens_term(now: Sealers, slot: int) -> bool:
    """The block in this slot would belong to another term (or be a rescue): who may seal it is not said by this state."""
    profile, tip = now.profile, now.tip
    is_over = tip.blocks >= profile.term_blocks or (tip.blocks > 0 and slot - now.term.first_slot >= profile.term_slots)
    return is_over or slot - tip.slot > profile.rescue_slots


def _check_sealer(now: Sealers, header: Header, info: BlockInfo, seal: bytes, name: BlockHash, chain: ChainId, *, now_ms: int) -> None:
    profile, term = now.profile, now.term
    slot = (header.t_stamp_ms - now.genesis_ms) // profile.slot_ms
    if slot != info.slot:
        raise _lie(f"slot {info.slot}, but sealed in slot {slot}")
    if header.t_stamp_ms - now_ms > profile.drift_ms_max:
        raise Undecided(Reason.TOO_EARLY, f"block is {header.t_stamp_ms - now_ms} ms ahead of this node's clock")
    if info.term != term.number or info.miner_list != miner_list_hash(list(term.miners)) or info.miner not in term.miners:
        raise _lie("a block by somebody who is not on the term's list", Reason.NOT_LEADER)
    wanted = leader(term.miners, term.seed, slot=slot, parent_slot=now.tip.slot, parent_miner=now.tip.miner)
    if now.seal.has_leader and wanted != info.miner:
        raise _lie(f"slot {slot} has another leader", Reason.NOT_LEADER)
    target = int.from_bytes(info.target, "big")
    # The window of a retarget is not known here; its bounds are.
    step = 1 if info.height % RETARGET_BLOCKS else RETARGET_STEP_MAX
    if not now.target // step <= target <= now.target * step:
        raise _lie("a target that the chain does not have", Reason.TARGET)
    key = now.keys.get(info.miner)
    if key is None:
        raise Undecided(Reason.NOT_LEADER, "the sealer's key is not known here")
    try:
        check_seal(key, chain, info.slot, name, seal)
    except InvalidBlock as error:
        # A miner may have rotated its key since the final block: nothing to build on, and nobody to blame.
        if len(seal) == 64:
            raise Undecided(error.reason, error.message) from error
        raise _lie(error.message, error.reason) from error


# --- who has proofs: what a full node makes of its blocks and votes ----------------------------------------------------


def enough(target: Checkpoint, votes: Iterable[Vote], committees: Sequence[Committee]) -> bool:
    """Whether a quorum of each of these committees voted for a block."""
    members = {vote.member for vote in votes if vote.target == target}
    return all(len(members & one.members) >= one.quorum for one in committees)
