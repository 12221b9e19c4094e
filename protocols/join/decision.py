"""The issuer's answer to a request to join: a pure function of the ticket's state, the request and the time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

from ..codec import Record, encode
from ..crypto import FORMAT, SUITE, HpkePrivateKey, SigningKey, equal
from ..errors import LadingError, Reason, Refused
from ..identity.attested import Attested
from ..identity.certificates import make_member, make_node, read_root
from ..identity.domains import CheckedDomain, sign_domain
from ..identity.fences import FenceSet
from ..identity.peers import peer_id_of
from ..identity.revocation import RevocationSet
from ..identity.tickets import ROLE_DOMAIN, ROLE_MEMBER, ROLE_NODE, TicketState, TicketStatus, TicketTerms, ticket_used, token_hash
from ..limits import (
    CLOCK_SKEW_MAX_S,
    DOMAINS_MAX,
    JOIN_ADDRESS_BOOK_BYTES,
    JOIN_DOMAINS_BYTES,
    JOIN_FENCES_BYTES,
    JOIN_REVOCATIONS_BYTES,
)
from ..signed import Signed
from ..types import DomainId, HpkeKey, NetworkId, UnixSeconds
from .messages import Admission, Application, ChainAnchor, JoinAnswer, JoinRefusal, JoinRequest
from .sealing import open_application, request_hash, seal_admission

T = TypeVar("T", bound=Record | bytes)


@dataclass(frozen=True, slots=True)
class Desk:
    """Who decides: for members and domains an issuer, for a member's further node that member.

    chain: certificates of ``key`` from its own up, root left out. hpke: private half of the key in the first of them.
    domain_root: DER. lifetime_s: how long the certificates that it gives are valid, whole seconds.
    """

    key: SigningKey
    hpke: HpkePrivateKey
    chain: tuple[bytes, ...]
    network: NetworkId
    domain_id: DomainId
    domain_root: bytes
    lifetime_s: int


@dataclass(frozen=True, slots=True)
class Dowry:
    """What every newcomer gets beside its certificate. founder: DER root of the domain that founded the network; domains: the others
    of it; member_keys: encoded key file content, given to a member's further full node only; anchor: of the desk's domain's chain, for
    all but a new domain."""

    fences: FenceSet
    revocations: RevocationSet
    founder: bytes
    domains: tuple[CheckedDomain, ...]
    address_book: tuple[Signed, ...]
    member_keys: bytes = b""
    anchor: ChainAnchor | None = None


@dataclass(frozen=True, slots=True)
class Admitted:
    """Yes. event, domain: to be kept and shared *before* the answer leaves; None when the same key asked again. domain: the word that
    a new domain belongs to the network, None for anybody else."""

    answer: JoinAnswer
    chain: tuple[bytes, ...]
    event: Attested | None
    domain: Attested | None = None


@dataclass(frozen=True, slots=True)
class Declined:
    """No. alert: somebody holds a ticket that another one has used; an operator must hear of it."""

    refusal: JoinRefusal
    reason: Reason
    alert: bool


def decide_join(
    state: TicketState | None,
    request: JoinRequest,
    *,
    desk: Desk,
    dowry: Dowry,
    now: int,
    serial: bytes,
    ephemeral_seed: bytes,
) -> Admitted | Declined:
    """The answer to a request. serial: 16 fresh random bytes; ephemeral_seed: 32; neither is kept if not needed.

    The same ticket with the same key gets the same certificates again, also after the ticket's expiry. Never raises because of
    what the request holds.
    """
    try:
        application = open_application(request, desk.hpke, desk.network)
        terms = _terms_for(state, application)
        assert state is not None
        chain: tuple[bytes, ...]
        if state.status is TicketStatus.USED:
            chain, event = state.given, None
        else:
            _check_open(state, now)
            if terms.role == ROLE_DOMAIN:
                _check_new_domain(application, desk, dowry)
                chain = (application.root,)
            else:
                chain = _certified(application, terms, desk, dowry.revocations, now=now, serial=serial)
            event = ticket_used(
                desk.key,
                desk.chain,
                desk.network,
                domain_id=desk.domain_id,
                time=now,
                ticket_id=application.ticket_id,
                request_key=application.public,
                given=chain,
            )
        domains, domain = _domains(application, desk, dowry, chain, now=now)
    except LadingError as error:
        refusal = JoinRefusal(reason=error.reason.stable_name, text=error.message)
        return Declined(refusal, error.reason, alert=error.reason is Reason.TICKET_USED)
    admission = Admission(
        format=FORMAT,
        suite=SUITE,
        request=request_hash(request),
        network_id=desk.network,
        domain_root=desk.domain_root,
        founder=dowry.founder,
        domains=_within(domains, JOIN_DOMAINS_BYTES),
        chain=chain,
        fences=_within(dowry.fences.fences, JOIN_FENCES_BYTES),
        revocations=_within(dowry.revocations.entries, JOIN_REVOCATIONS_BYTES),
        address_book=_within(dowry.address_book, JOIN_ADDRESS_BOOK_BYTES),
        member_keys=dowry.member_keys if terms.role == ROLE_NODE and not terms.holder_only else b"",
        anchor=dowry.anchor if terms.role != ROLE_DOMAIN else None,
    )
    recipient = HpkeKey(application.hpke_public)
    answer = seal_admission(
        admission, desk.key, desk.network, ticket_id=request.ticket_id, recipient=recipient, ephemeral_seed=ephemeral_seed
    )
    return Admitted(answer=answer, chain=chain, event=event, domain=domain)


def _terms_for(state: TicketState | None, application: Application) -> TicketTerms:
    """Terms of a ticket that this applicant may use or has used. Raises Refused(TICKET_…)."""
    if state is None or state.terms is None or state.ticket_id != application.ticket_id:
        raise Refused(Reason.TICKET_UNKNOWN, "no such ticket is known here")
    terms = state.terms
    if not equal(token_hash(application.token), terms.token_hash) or application.role != terms.role:
        raise Refused(Reason.TICKET_ALTERED, "the ticket's token or role is not what was given out")
    if state.status is TicketStatus.CANCELLED:
        raise Refused(Reason.TICKET_CANCELLED, "the ticket was cancelled")
    if state.status is TicketStatus.USED and not equal(state.request_key, application.public):
        raise Refused(Reason.TICKET_USED, "the ticket was used by another key")
    return terms


def _check_open(state: TicketState, now: int) -> None:
    if not state.is_open(now):
        raise Refused(Reason.TICKET_EXPIRED, f"the ticket ended, now is {now}")


def _check_new_domain(application: Application, desk: Desk, dowry: Dowry) -> None:
    """Raises InvalidObject(BAD_CERTIFICATE) for no sound root, Refused(REFUSED | MALFORMED | CONFLICT | FULL)."""
    if desk.domain_root != dowry.founder or len(desk.chain) != 1:
        raise Refused(Reason.REFUSED, "only an issuer of the domain that founded the network takes in another")
    root = read_root(application.root)
    if (root.public, root.name) != (application.public, application.label):
        raise Refused(Reason.MALFORMED, "the application is not by the key of its root, or names another domain")
    if application.root == dowry.founder or any(other.value.root == application.root for other in dowry.domains):
        raise Refused(Reason.CONFLICT, "this domain belongs to the network already")
    if root.name in (read_root(dowry.founder).name, *(other.name for other in dowry.domains)):
        raise Refused(Reason.CONFLICT, f"a domain of this network is called {root.name!r} already; choose another name")
    if len(dowry.domains) + 1 >= DOMAINS_MAX:
        raise Refused(Reason.FULL, f"{len(dowry.domains) + 1} domains, at most {DOMAINS_MAX} in one network")


def _domains(
    application: Application, desk: Desk, dowry: Dowry, chain: tuple[bytes, ...], *, now: int
) -> tuple[tuple[Attested, ...], Attested | None]:
    """Words about the network's other domains, the newcomer's own first, and the new one of them where there is one."""
    own = application.root if application.role == ROLE_DOMAIN else desk.domain_root
    if application.role == ROLE_DOMAIN and chain != (own,):
        raise Refused(Reason.TICKET_USED, "the ticket was used for another root")
    known = tuple(domain.attested for domain in sorted(dowry.domains, key=lambda domain: domain.value.root != own))
    if application.role != ROLE_DOMAIN or any(domain.value.root == own for domain in dowry.domains):
        return known, None
    # Also when the ticket is used already: another issuer's word may not have come here yet, and two of them do no harm.
    word = sign_domain(desk.key, desk.chain, desk.network, founder=desk.domain_id, time=UnixSeconds(now), root=own)
    return (word, *known), word


def _certified(
    application: Application, terms: TicketTerms, desk: Desk, revocations: RevocationSet, *, now: int, serial: bytes
) -> tuple[bytes, ...]:
    """The new certificate and those above it. Raises UsageError for a name that cannot stand in a certificate, Refused."""
    not_after = now + desk.lifetime_s
    # Some peers' clocks are behind ours; without the margin they would not yet know the newcomer.
    not_before = max(now - CLOCK_SKEW_MAX_S, 0)
    if terms.role == ROLE_MEMBER:
        revoked_at = revocations.member_revoked_at(desk.domain_id, application.member_id)
        if revoked_at is not None:
            not_before = max(not_before, revoked_at + 1)
        if len(application.member_id) != 32 or len(desk.chain) != 1:
            raise Refused(Reason.MALFORMED, "a member needs a member id and an issuer's desk")
        certificate = make_member(
            desk.key,
            desk.chain[0],
            member_id=application.member_id,
            signing_public=application.public,
            hpke_public=application.hpke_public,
            name=application.label,
            nodes_max=terms.nodes_max,
            weight_total_max=terms.weight_total_max,
            serial=serial,
            not_before=UnixSeconds(not_before),
            not_after=not_after,
        )
        return (certificate, *desk.chain)
    if len(desk.chain) != 2:
        raise Refused(Reason.MALFORMED, "a node needs its member's desk")
    certificate = make_node(
        desk.key,
        desk.chain[0],
        peer_id=peer_id_of(application.public),
        node_public=application.public,
        host_label=application.label,
        weight=terms.weight,
        holder_only=terms.holder_only,
        serial=serial,
        not_before=not_before,
        not_after=not_after,
    )
    return (certificate, *desk.chain)


def _within(values: Sequence[T], bytes_max: int) -> tuple[T, ...]:
    """As many from the front as fit into ``bytes_max`` encoded bytes."""
    taken: list[T] = []
    size = 0
    for value in values:
        size += len(encode(value))
        if size > bytes_max:
            break
        taken.append(value)
    return tuple(taken)
