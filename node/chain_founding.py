"""The first block of a domain's chain, from the members that found it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from protocols.codec import replace
from protocols.crypto import SigningKey
from protocols.identity.certificates import MEMBER, MemberIdentity, chain_validity, verify_member_chain
from protocols.identity.keyfiles import ChainKey, MemberKey
from protocols.ledger.block import Block
from protocols.ledger.genesis import Body, genesis_block, sign_genesis
from protocols.ledger.profile import DEFAULT_POLICY, Cluster, Council, CouncilMember, check_profile, default_profile
from protocols.ledger.transactions.cert_issue import Body as Certificate
from protocols.ledger.transactions.miner_certify import Body as Certification
from protocols.types import AccountId, DomainId, NetworkId, UnixMillis

from .chain_keys import REVEALS_PER_CHAIN, act_key, first_tip

MEMBERS = "members"
"""The one cluster of a new chain: every account of the domain."""
MANAGER = "manager"
# Seats of that cluster. Five survive one liar, or with no liar two deaths; the council makes more with ClusterDefine.
SEATS = 5


@dataclass(frozen=True, slots=True)
class Founder:
    """A member that founds. seat: keys of its node, for one that seals and votes; None: an account alone."""

    member: MemberKey
    seat: ChainKey | None


def majority_of(count: int) -> int:
    """How many of so many council members act together."""
    return count // 2 + 1


def certificate_of(identity: MemberIdentity, chain: Sequence[bytes], *, country: str, role: str) -> Certificate:
    """The account that a member has on its domain's chain: under the same id, key, serial number and times as in its certificate."""
    begins, ends = chain_validity(chain, MEMBER)
    return Certificate(
        serial=identity.path.serials[0],
        subject=AccountId(identity.member_id),
        key=identity.owner,
        enc_key=identity.hpke,
        type="institution",
        role=role,
        level=0,
        country=country,
        institution=identity.domain,
        attributes=(),
        from_ms=UnixMillis(begins * 1000),
        to_ms=UnixMillis(ends * 1000),
    )


def certification_of(account: AccountId, seat: ChainKey) -> Certification:
    """What the council says to make a node of this account a candidate."""
    return Certification("certify", account, MEMBERS, SigningKey(seat.seal).public, first_tip(seat.reveal), REVEALS_PER_CHAIN)


def found_chain(
    founders: Sequence[Founder],
    *,
    network: NetworkId,
    domain: DomainId,
    root: bytes,
    name: str,
    country: str,
    managers: Collection[AccountId],
    recovery: Sequence[bytes],
    now: int,
    salt: bytes,
    seal: str = "pow",
    profile: Mapping[str, int | str] | None = None,
) -> Block:
    """The first block. Founders with a seat are its miners, its council and its committee; acts need a majority of them.

    root: DER of the domain's root, under which the founders are certified. managers: accounts that let others in. recovery: public
    keys of which each may replace lost voting keys. now: whole seconds, the time of slot 0. salt: 32 fresh random bytes.
    profile: fields of it that differ from the default one; raises InvalidTransaction for what no chain can have.
    """
    identities = [verify_member_chain(one.member.chain, {domain: root}, now=now, revocations=None) for one in founders]
    accounts = [AccountId(one.member_id) for one in identities]
    certificates = [
        certificate_of(identity, founder.member.chain, country=country, role=MANAGER if account in managers else "")
        for founder, identity, account in zip(founders, identities, accounts, strict=True)
    ]
    seated = sorted((account, one) for account, one in zip(accounts, founders, strict=True) if one.seat is not None)
    acting: list[SigningKey] = []
    council: list[CouncilMember] = []
    miners: list[Certification] = []
    for account, founder in seated:
        assert founder.seat is not None
        act = act_key(founder.member.seed, domain)
        acting.append(act)
        council.append(CouncilMember(account, act.public, SigningKey(founder.seat.vote).public))
        miners.append(certification_of(account, founder.seat))
    whole = replace(default_profile(network, domain, name, seal=seal), **(profile or {}))
    check_profile(whole)
    body = Body(
        profile=whole,
        council=Council(0, tuple(council), majority_of(len(council)), tuple(sorted(recovery)), 1 if recovery else 0),
        policy=DEFAULT_POLICY,
        clusters=(Cluster(MEMBERS, (), SEATS),),
        certificates=tuple(certificates),
        miners=tuple(miners),
        time_ms=UnixMillis(now * 1000),
        version=1,
        salt=salt,
    )
    return genesis_block(sign_genesis(body, sender=council[0].id, keys=acting))
