"""Votes: what a committee member says, what it promised, what breaks a promise. Source: SPEC.md §Votes."""

from __future__ import annotations

from collections.abc import Iterable

from ..codec import Record, encode
from ..crypto import Label, SigningKey, hash_labelled, verify
from ..errors import InvalidObject, Reason, Refused
from ..merkle import merkle_root
from ..types import AccountId, BlockHash, ChainId, Digest, NetworkId, Signature
from .checks import u64


class Checkpoint(Record, frozen=True):
    """A block by height and hash (32 bytes)."""

    height: int
    hash: BlockHash


class Vote(Record, frozen=True):
    """A member's vote: from a justified ancestor (source) to the tip of its fork choice (target)."""

    chain: ChainId
    source: Checkpoint
    target: Checkpoint
    member: AccountId
    signature: bytes


def vote_body(source: Checkpoint, target: Checkpoint, member: AccountId) -> bytes:
    """What is signed, after label | 0x00 | chain: [source height, source hash, target height, target hash, member]."""
    return encode((source.height, source.hash, target.height, target.hash, member))


def sign_vote(key: SigningKey, chain: ChainId, source: Checkpoint, target: Checkpoint, member: AccountId) -> Vote:
    """The vote, signed by the member's voting key. Whether it may be signed is asked of ``Promises`` first."""
    return Vote(chain, source, target, member, key.sign(Label.VOTE, NetworkId(chain), vote_body(source, target, member)))


def check_vote(vote: Vote, key: bytes) -> None:
    """Form and signature. Raises InvalidObject(BAD_VOTE | BAD_SIGNATURE)."""
    check_vote_form(vote)
    body = vote_body(vote.source, vote.target, vote.member)
    verify(key, Signature(vote.signature), Label.VOTE, NetworkId(vote.chain), body)


def check_vote_form(vote: Vote) -> None:
    """Lengths and heights. Raises InvalidObject(BAD_VOTE)."""
    lengths = (vote.chain, vote.source.hash, vote.target.hash, vote.member)
    if any(len(value) != 32 for value in lengths) or len(vote.signature) != 64:
        raise InvalidObject(Reason.BAD_VOTE, "a field of another length than 32 bytes, or the signature than 64")
    if not 0 <= vote.source.height < vote.target.height < 1 << 63:
        raise InvalidObject(Reason.BAD_VOTE, f"source at {vote.source.height}, target at {vote.target.height}")


def carried_order(vote: Vote) -> bytes:
    """The order of carried votes: target height, target hash, member, source height, source hash."""
    return u64(vote.target.height) + vote.target.hash + vote.member + u64(vote.source.height) + vote.source.hash


def votes_root(votes: Iterable[Vote]) -> Digest:
    """Merkle root over H(label, vote) in carried order; of none SHA-256 of nothing."""
    return merkle_root([hash_labelled(Label.CARRIED_VOTE, encode(vote)) for vote in votes])


class Promises(Record, frozen=True):
    """What a member has bound itself to: highest source, highest target, last slot sealed. Kept outside databases and backups."""

    source_height: int
    target_height: int
    sealed_slot: int


NO_PROMISES = Promises(0, 0, 0)


def promise_vote(promises: Promises, source: Checkpoint, target: Checkpoint) -> Promises:
    """The promises to make durable before the vote leaves.

    Raises Refused(PROMISED) unless the target is above and the source not below every promise.
    """
    if target.height <= promises.target_height or source.height < promises.source_height or source.height >= target.height:
        raise Refused(
            Reason.PROMISED,
            f"vote {source.height} → {target.height}, promised {promises.source_height} → {promises.target_height}",
        )
    return Promises(source.height, target.height, promises.sealed_slot)


def promise_seal(promises: Promises, slot: int) -> Promises:
    """The promises to make durable before a seal leaves. Raises Refused(PROMISED) for a slot not above the last one sealed."""
    if slot <= promises.sealed_slot:
        raise Refused(Reason.PROMISED, f"slot {slot}, promised {promises.sealed_slot}")
    return Promises(promises.source_height, promises.target_height, slot)


def breaks_promise(one: Vote, other: Vote) -> bool:
    """True when one member signed both and no keeper of promises can have: two targets at one height, or a surrounded vote.

    (Of two votes the one with the higher target came later, and its source may not be lower.)
    """
    if one.member != other.member or one.chain != other.chain or (one.source, one.target) == (other.source, other.target):
        return False
    first, second = (one, other) if one.target.height < other.target.height else (other, one)
    return first.target.height == second.target.height or second.source.height < first.source.height
