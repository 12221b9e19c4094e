"""Renewal: a member asks an issuer, a holder-only node asks its member, for the same certificate with a later end.

Pure: who asks signs with the key that is certified; what is given is judged by the asker as any chain is. The answer says nothing that
an announcement would not say, so it is not sealed.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..crypto import FORMAT, SUITE, Label, SigningKey
from ..errors import InvalidObject, LadingError, Reason, Refused
from ..identity.certificates import (
    ISSUER,
    MEMBER,
    NODE,
    MemberIdentity,
    NodeIdentity,
    Revocations,
    chain_validity,
    make_member,
    make_node,
    verify_chain,
    verify_issuer_chain,
    verify_member_chain,
)
from ..limits import CLOCK_SKEW_MAX_S
from ..signed import open_signed, sign_object
from ..types import DomainId, NetworkId, UnixSeconds
from .decision import Desk
from .messages import JoinRefusal, Renewal, RenewAnswer, RenewRequest

MEMBER_CHAIN_LENGTH = 2
NODE_CHAIN_LENGTH = 3


def renewal_due_at(not_before: int, not_after: int, *, lifetime_s: int) -> UnixSeconds:
    """From when on a certificate is renewed: two thirds of its time are over.

    lifetime_s: what certificates of this kind are given. A member's not-before never moves (see ``decide_renewal``), so for one that has
    been renewed not the span counts but the lifetime that it was given last.
    """
    return UnixSeconds(not_after - min(lifetime_s, not_after - not_before) // 3)


def sign_renewal(key: SigningKey, chain: tuple[bytes, ...], network: NetworkId, *, domain_id: DomainId, relay: bool) -> RenewRequest:
    """A request. key: the one that the first certificate of ``chain`` is for; chain: member or node first, root left out."""
    value = Renewal(format=FORMAT, suite=SUITE, domain_id=domain_id, chain=chain)
    return RenewRequest(renewal=sign_object(value, key, Label.RENEWAL, network), relay=relay)


def decide_renewal(request: RenewRequest, *, desk: Desk, revocations: Revocations, now: int, serial: bytes) -> RenewAnswer | JoinRefusal:
    """What a desk answers; UNREACHABLE when it is for another desk. serial: 16 fresh random bytes. Never raises because of the request.

    A member's not-before stays what it was. Revocation judges by it: an issuer that has not yet heard that a member is out can give it a
    later end, but nothing that the revocation does not reach. Only a ticket re-admits.
    """
    try:
        return RenewAnswer(chain=_renewed(request, desk, revocations, now=now, serial=serial))
    except LadingError as error:
        return JoinRefusal(reason=error.reason.stable_name, text=error.message)


def _renewed(request: RenewRequest, desk: Desk, revocations: Revocations, *, now: int, serial: bytes) -> tuple[bytes, ...]:
    value, signer = _opened(request, desk.network)
    roots = {desk.domain_id: desk.domain_root}
    is_member = len(value.chain) == MEMBER_CHAIN_LENGTH
    if value.domain_id != desk.domain_id or is_member != (len(desk.chain) == 1):
        raise Refused(Reason.UNREACHABLE, "a request for another desk")
    ends = chain_validity(value.chain, MEMBER if is_member else NODE)[1]
    not_after = min(now + desk.lifetime_s, chain_validity(desk.chain, ISSUER if is_member else MEMBER)[1])
    if is_member:
        verify_issuer_chain(desk.chain, roots, now=now, revocations=revocations)
        member = verify_member_chain(value.chain, roots, now=now, revocations=revocations)
        _check_signer(member.owner, signer)
        _check_later(not_after, ends)
        certificate = make_member(
            desk.key,
            desk.chain[0],
            member_id=member.member_id,
            signing_public=member.owner,
            hpke_public=member.hpke,
            name=member.name,
            nodes_max=member.nodes_max,
            weight_total_max=member.weight_total_max,
            serial=serial,
            not_before=member.path.issued[0],
            not_after=not_after,
        )
        return (certificate, *desk.chain)
    node = verify_chain(value.chain, roots, now=now, revocations=revocations)
    _check_signer(node.node_public, signer)
    if node.owner != desk.key.public:
        raise Refused(Reason.UNREACHABLE, "the node of another member")
    _check_later(not_after, ends)
    certificate = make_node(
        desk.key,
        desk.chain[0],
        peer_id=node.peer_id,
        node_public=node.node_public,
        host_label=node.host,
        weight=node.weight,
        holder_only=node.holder_only,
        serial=serial,
        not_before=max(now - CLOCK_SKEW_MAX_S, 0),
        not_after=not_after,
    )
    return (certificate, *desk.chain)


def _opened(request: RenewRequest, network: NetworkId) -> tuple[Renewal, bytes]:
    """Raises InvalidObject(BAD_SIGNATURE | UNKNOWN_FORMAT | MALFORMED), DecodeError."""
    value, signer = open_signed(request.renewal, Renewal, Label.RENEWAL, network)
    if (value.format, value.suite) != (FORMAT, SUITE):
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"format {value.format} suite {value.suite}, {FORMAT} and {SUITE} wanted")
    if len(value.chain) not in (MEMBER_CHAIN_LENGTH, NODE_CHAIN_LENGTH):
        raise InvalidObject(Reason.MALFORMED, f"a chain of {len(value.chain)}, {MEMBER_CHAIN_LENGTH} or {NODE_CHAIN_LENGTH} wanted")
    return value, signer


def _check_signer(certified: bytes, signer: bytes) -> None:
    if certified != signer:
        raise InvalidObject(Reason.BAD_CERTIFICATE, "the chain is not the signer's")


def _check_later(not_after: int, ends: int) -> None:
    if not_after <= ends:
        raise Refused(Reason.REFUSED, f"a new certificate would end at {not_after}, the old one ends at {ends}")


def check_renewed_member(
    chain: tuple[bytes, ...], old: tuple[bytes, ...], roots: Mapping[DomainId, bytes], *, now: int, revocations: Revocations
) -> MemberIdentity:
    """The same member with a later end. Raises InvalidObject(BAD_CERTIFICATE) for anything else, and all of ``verify_member_chain``."""
    new = verify_member_chain(chain, roots, now=now, revocations=revocations)
    before = verify_member_chain(old, roots, now=max(chain_validity(old, MEMBER)[0], 0), revocations=None)
    if _bound(new) != _bound(before) or new.not_after <= before.not_after:
        raise InvalidObject(Reason.BAD_CERTIFICATE, "not the same member's certificate with a later end")
    return new


def _bound(member: MemberIdentity) -> tuple[object, ...]:
    return (member.member_id, member.owner, member.hpke, member.name, member.nodes_max, member.weight_total_max, member.domain_id)


def check_renewed_node(
    chain: tuple[bytes, ...], old: NodeIdentity, roots: Mapping[DomainId, bytes], *, now: int, revocations: Revocations
) -> NodeIdentity:
    """The same node of the same member with a later end. Raises InvalidObject(BAD_CERTIFICATE), and all of ``verify_chain``."""
    new = verify_chain(chain, roots, now=now, revocations=revocations)
    same = (new.peer_id, new.host, new.weight, new.holder_only, new.member_id, new.owner, new.domain_id)
    if same != (old.peer_id, old.host, old.weight, old.holder_only, old.member_id, old.owner, old.domain_id):
        raise InvalidObject(Reason.BAD_CERTIFICATE, "the certificate of another node")
    if new.not_after <= old.not_after:
        raise InvalidObject(Reason.BAD_CERTIFICATE, "a certificate that does not last longer")
    return new
