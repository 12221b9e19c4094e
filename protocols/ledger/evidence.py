"""What a node notices of those who say two things: contradicting seals and votes, and the accusation made of them.

Everything noted here was verified before, or is verified when the accusation is made: only what one key signed twice accuses anybody,
so neither a member whose key was rotated nor a miner that seals on two chains is ever named. Source: SPEC.md §Promises, kind Equivocation.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..crypto import Label, hash_labelled
from ..errors import InvalidBlock, InvalidObject
from ..limits import SEALS_WATCHED_MAX, SUSPICIONS_MAX, VOTES_WATCHED_MAX
from ..types import AccountId, BlockHash, ChainId
from .block import check_seal
from .carried import COMMITTEE
from .checks import u64
from .committee import Committee
from .state import Overlay
from .terms import SEALER
from .transactions.equivocation import EVIDENCE, Body, Sealed
from .votes import Vote, breaks_promise, check_vote


@dataclass(frozen=True, slots=True)
class TwoSeals:
    """Two blocks of one miner in one slot, by rising hash."""

    miner: AccountId
    slot: int
    seals: tuple[Sealed, Sealed]


@dataclass(frozen=True, slots=True)
class TwoVotes:
    """Two votes of one member that no keeper of promises casts."""

    member: AccountId
    votes: tuple[Vote, Vote]


Suspicion = TwoSeals | TwoVotes


class Watch:
    """Seals and votes of late, and what contradicts among them: one suspicion of each kind about one account at a time."""

    def __init__(self) -> None:
        self.suspicions: dict[tuple[str, AccountId], Suspicion] = {}
        self._seals: dict[tuple[AccountId, int], Sealed] = {}
        self._votes: dict[AccountId, dict[bytes, Vote]] = {}

    def note_seal(self, miner: AccountId, slot: int, sealed: Sealed) -> None:
        """A seal that is its miner's."""
        known = self._seals.setdefault((miner, slot), sealed)
        if len(self._seals) > SEALS_WATCHED_MAX:
            del self._seals[next(iter(self._seals))]
        if known.hash != sealed.hash:
            first, second = sorted((known, sealed), key=lambda one: one.hash)
            self._suspect(("seals", miner), TwoSeals(miner, slot, (first, second)))

    def note_vote(self, vote: Vote) -> None:
        """A vote that its member signed."""
        known = self._votes.setdefault(vote.member, {})
        for other in known.values():
            if breaks_promise(vote, other):
                first, second = sorted((vote, other), key=lambda one: one.target.height)
                self._suspect(("votes", vote.member), TwoVotes(vote.member, (first, second)))
                break
        known[vote.signature] = vote
        if len(known) > VOTES_WATCHED_MAX:
            del known[next(iter(known))]

    def _suspect(self, about: tuple[str, AccountId], suspicion: Suspicion) -> None:
        if about in self.suspicions or len(self.suspicions) < SUSPICIONS_MAX:
            self.suspicions.setdefault(about, suspicion)


def accusation(state: Overlay, chain: ChainId, suspicion: Suspicion) -> Body | None:
    """The evidence, None unless one key of the accused signed both. state: of the head."""
    if isinstance(suspicion, TwoSeals):
        own = [key for key, owner in state.iterate(SEALER) if owner == suspicion.miner]
        signed = [key for key in own if all(_has_sealed(key, chain, suspicion.slot, one) for one in suspicion.seals)]
        return Body("seals", suspicion.miner, signed[0], suspicion.slot, suspicion.seals, ()) if signed else None
    loaded = [state.load(COMMITTEE, name, Committee) for name, _ in list(state.iterate(COMMITTEE))]
    keys = {key for one in loaded if one is not None and (key := one.key_of(suspicion.member)) is not None}
    both = [key for key in sorted(keys) if all(_has_voted(key, one) for one in suspicion.votes)]
    return Body("votes", suspicion.member, both[0], 0, (), suspicion.votes) if both else None


def evidence_name(body: Body) -> bytes:
    """Where the state keeps it."""
    at = body.slot if body.what == "seals" else max(vote.target.height for vote in body.votes)
    return body.what.encode() + b"\0" + body.key + u64(at)


def is_known(state: Overlay, body: Body) -> bool:
    """The ledger has it already."""
    return state.get(EVIDENCE, evidence_name(body)) is not None


def turn_of(me: AccountId, watchers: Iterable[AccountId], name: bytes) -> int:
    """After how many slots this node speaks, 0 first: others need not say the same. name: of the evidence."""
    order = sorted({*watchers, me}, key=lambda one: hash_labelled(Label.DRAW, name, one))
    return order.index(me)


def _has_sealed(key: bytes, chain: ChainId, slot: int, one: Sealed) -> bool:
    try:
        check_seal(key, chain, slot, BlockHash(one.hash), one.seal)
    except InvalidBlock:
        return False
    return True


def _has_voted(key: bytes, vote: Vote) -> bool:
    try:
        check_vote(vote, key)
    except InvalidObject:
        return False
    return True
