"""A domain that comes into a network: the way with nothing wrong, the rules of every ticket, and who may take whom in."""

from __future__ import annotations

import msgspec
import pytest

from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.errors import Reason
from protocols.identity.attested import Attested
from protocols.identity.certificates import fingerprint, make_root
from protocols.identity.domains import CheckedDomain, check_domain, sign_domain
from protocols.identity.fences import FenceSet, check_fence
from protocols.identity.revocation import RevocationSet
from protocols.identity.tickets import (
    ROLE_DOMAIN,
    ROLE_MEMBER,
    Ticket,
    TicketState,
    TicketTerms,
    check_ticket_event,
    ticket_cancelled,
    ticket_opened,
    ticket_used,
    token_hash,
)
from protocols.join.decision import Admitted, Declined, Desk, Dowry, decide_join
from protocols.join.machine import Joined, JoinFailed, NewcomerMachine
from protocols.join.messages import JoinRequest
from protocols.join.sealing import open_admission, seal_admission
from protocols.limits import DOMAINS_MAX, JOIN_ATTEMPTS_MAX
from protocols.types import UnixSeconds
from tests.protocols.identity.people import ACME, CUSTOMS, NETWORK, NOW, YEAR, Domain, found, seed

from .test_join import FENCES, HERE, ISSUER, SECOND, converse, desk_of, only, relay

DOWRY = Dowry(fences=FENCES, revocations=RevocationSet(), founder=ACME.root, domains=(), address_book=(HERE,))
TICKET = Ticket(
    format=1,
    suite=1,
    network_id=NETWORK,
    addresses=(),
    domain_id=ACME.id,
    issuer_chain=ISSUER.chain,
    ticket_id=seed("domain ticket")[:16],
    join_secret=seed("domain secret"),
    token=seed("domain token")[:16],
    expires=NOW + 100,
    role=ROLE_DOMAIN,
    holder_only=True,
)


def opened(of: Ticket = TICKET) -> Attested:
    terms = TicketTerms(
        token_hash=token_hash(of.token),
        join_secret=of.join_secret,
        expires=of.expires,
        role=of.role,
        holder_only=True,
        member_id=b"",
        nodes_max=0,
        weight_total_max=0,
        weight=0,
    )
    return ticket_opened(ISSUER.key, ISSUER.chain, NETWORK, domain_id=ACME.id, time=NOW - 10, ticket_id=of.ticket_id, terms=terms)


def state_of(*events: Attested) -> TicketState:
    return TicketState(check_ticket_event(event, NETWORK, ACME.roots) for event in events)


def founder_of(domain: Domain, *, of: Ticket = TICKET, name: str = "", root: bytes = b"", key: SigningKey | None = None) -> NewcomerMachine:
    return NewcomerMachine(
        ticket=of,
        key=key or domain.key,
        hpke=HpkePrivateKey(seed(domain.name, "answer")),
        member_id=None,
        label=name or domain.name,
        ephemeral_seeds=[seed(domain.name, "ephemeral", i) for i in range(JOIN_ATTEMPTS_MAX)],
        now=NOW,
        root=root or domain.root,
    )


class Office:
    """An issuer that keeps what it decides, and remembers its answers."""

    def __init__(self, *events: Attested, desk: Desk | None = None, dowry: Dowry = DOWRY, now: int = NOW) -> None:
        self.events = [opened(), *events]
        self.desk = desk or desk_of()
        self.dowry = dowry
        self.now = now
        self.decisions: list[Admitted | Declined] = []

    def answer(self, request: JoinRequest) -> object:
        decided = decide_join(
            state_of(*self.events),
            request,
            desk=self.desk,
            dowry=self.dowry,
            now=self.now,
            serial=seed("serial")[:16],
            ephemeral_seed=seed("answer", len(self.decisions)),
        )
        self.decisions.append(decided)
        if isinstance(decided, Declined):
            return decided.refusal
        if decided.event is not None:
            self.events.append(decided.event)
        if decided.domain is not None:
            known = check_domain(decided.domain, NETWORK, founder=ACME.root)
            self.dowry = with_domains(self.dowry, (*self.dowry.domains, known))
        return decided.answer


def with_domains(dowry: Dowry, domains: tuple[CheckedDomain, ...]) -> Dowry:
    return Dowry(
        fences=dowry.fences, revocations=dowry.revocations, founder=dowry.founder, domains=domains, address_book=dowry.address_book
    )


def come(office: Office, machine: NewcomerMachine) -> list[object]:
    return converse(machine, relay(TICKET), office.answer)


def test_new_domain_gets_the_network_and_the_network_gets_its_root() -> None:
    """Goal: the plain way. Method: newcomer, relay and issuer over real frames; the domain's word is checked as any node would."""
    office = Office()
    joined = only(come(office, founder_of(CUSTOMS)), Joined)
    assert (joined.founder, joined.domain_root, joined.domain_id, joined.chain) == (ACME.root, CUSTOMS.root, CUSTOMS.id, (CUSTOMS.root,))
    assert [entry.value.root for entry in joined.domains] == [CUSTOMS.root]
    assert joined.fences == FENCES
    assert [entry.signed for entry in joined.address_book.entries] == [HERE]
    assert joined.member_keys == b""
    (decided,) = office.decisions
    assert isinstance(decided, Admitted)
    assert decided.domain is not None
    assert check_domain(decided.domain, NETWORK, founder=ACME.root).id == CUSTOMS.id


def test_lost_answer_is_given_again_to_the_same_root_also_by_another_issuer() -> None:
    """Goal: a lost answer does no harm. Method: the same root asks again after expiry; then at an issuer that has not heard the word."""
    office = Office()
    come(office, founder_of(CUSTOMS))
    office.now = TICKET.expires + 1
    again = only(come(office, founder_of(CUSTOMS)), Joined)
    assert again.domain_root == CUSTOMS.root
    second = office.decisions[1]
    assert isinstance(second, Admitted)
    assert (second.event, second.domain) == (None, None)
    elsewhere = Office(*office.events[1:], desk=desk_of(SECOND))
    machine = founder_of(CUSTOMS, of=msgspec.structs.replace(TICKET, issuer_chain=SECOND.chain))
    only(converse(machine, relay(TICKET, (SECOND.chain,)), elsewhere.answer), Joined)
    third = elsewhere.decisions[0]
    assert isinstance(third, Admitted)
    assert third.event is None
    assert third.domain is not None


def test_ticket_used_for_another_root_is_refused() -> None:
    """Goal: one ticket, one domain. Method: a thief with his own root; then the same key under another certificate."""
    office = Office()
    come(office, founder_of(CUSTOMS))
    thief = only(come(office, founder_of(found("THIEVES"))), JoinFailed)
    assert (thief.reason, thief.by_peer) == (Reason.TICKET_USED, True)
    stolen = office.decisions[-1]
    assert isinstance(stolen, Declined)
    assert stolen.alert
    other = make_root(CUSTOMS.key, "CUSTOMS", serial=bytes(16), not_before=NOW - YEAR, not_after=NOW + YEAR)
    assert only(come(office, founder_of(CUSTOMS, root=other)), JoinFailed).reason is Reason.TICKET_USED


def test_bad_tickets_are_refused_by_reason() -> None:
    """Goal: the rules of every ticket. Method: expired, cancelled, another token, and a member's ticket shown as a domain's."""
    cancel = ticket_cancelled(SECOND.key, SECOND.chain, NETWORK, domain_id=ACME.id, time=NOW, ticket_id=TICKET.ticket_id)
    assert only(come(Office(now=TICKET.expires + 1), founder_of(CUSTOMS)), JoinFailed).reason is Reason.TICKET_EXPIRED
    assert only(come(Office(cancel), founder_of(CUSTOMS)), JoinFailed).reason is Reason.TICKET_CANCELLED
    altered = msgspec.structs.replace(TICKET, token=bytes(16))
    assert only(come(Office(), founder_of(CUSTOMS, of=altered)), JoinFailed).reason is Reason.TICKET_ALTERED
    office = Office()
    office.events = [opened(msgspec.structs.replace(TICKET, role=ROLE_MEMBER))]
    assert only(come(office, founder_of(CUSTOMS)), JoinFailed).reason is Reason.TICKET_ALTERED
    assert all(isinstance(decided, Declined) and not decided.alert for decided in office.decisions)


def taken_in(root: bytes) -> CheckedDomain:
    word = sign_domain(ISSUER.key, ISSUER.chain, NETWORK, founder=ACME.id, time=UnixSeconds(NOW - 5), root=root)
    return check_domain(word, NETWORK, founder=ACME.root)


def test_what_is_no_new_domain_is_refused_and_uses_nothing() -> None:
    """Goal: the issuer's conditions. Method: a foreign key, another name, no root, the founder itself, a name or root that is known,
    a full network."""
    twin = make_root(SigningKey(seed("twin")), "CUSTOMS", serial=bytes(16), not_before=NOW - YEAR, not_after=NOW + YEAR)
    many = tuple(taken_in(found(f"D{number}").root) for number in range(DOMAINS_MAX - 1))
    cases = [
        (DOWRY, founder_of(CUSTOMS, key=SigningKey(seed("other"))), Reason.MALFORMED),
        (DOWRY, founder_of(CUSTOMS, name="ACME"), Reason.MALFORMED),
        (DOWRY, founder_of(CUSTOMS, root=b"no root"), Reason.BAD_CERTIFICATE),
        (DOWRY, founder_of(ACME), Reason.CONFLICT),
        (with_domains(DOWRY, (taken_in(CUSTOMS.root),)), founder_of(CUSTOMS), Reason.CONFLICT),
        (with_domains(DOWRY, (taken_in(twin),)), founder_of(CUSTOMS), Reason.CONFLICT),
        (with_domains(DOWRY, many), founder_of(CUSTOMS), Reason.FULL),
    ]
    for dowry, machine, reason in cases:
        office = Office(dowry=dowry)
        assert only(come(office, machine), JoinFailed).reason is reason
        assert len(office.events) == 1


def test_only_the_founding_domain_takes_others_in() -> None:
    """Goal: one domain's word counts. Method: the desk of a domain that did not found the network."""
    office = Office(dowry=Dowry(fences=FENCES, revocations=RevocationSet(), founder=CUSTOMS.root, domains=(), address_book=()))
    assert only(come(office, founder_of(found("PORT"))), JoinFailed).reason is Reason.REFUSED


@pytest.mark.parametrize("lie", ["founder", "silence", "other root"])
def test_founder_believes_no_answer_that_leaves_its_domain_out(lie: str) -> None:
    """Goal: a domain that thinks it is in and is not would be cut off. Method: a desk that names another founder, no word, another root."""
    office = Office()
    machine = founder_of(CUSTOMS)
    if lie == "founder":
        state = state_of(*office.events, used_by(CUSTOMS, CUSTOMS.root))
        by_port = sign_domain(PORT_ISSUER.key, PORT_ISSUER.chain, NETWORK, founder=PORT.id, time=UnixSeconds(NOW), root=CUSTOMS.root)
        office.dowry = Dowry(
            fences=FENCES,
            revocations=RevocationSet(),
            founder=PORT.root,
            domains=(check_domain(by_port, NETWORK, founder=PORT.root),),
            address_book=(),
        )
    elif lie == "silence":
        state = state_of(*office.events, used_by(CUSTOMS, CUSTOMS.root))
        dumb = taken_in(CUSTOMS.root)
        broken = Attested(envelope=msgspec.structs.replace(dumb.attested.envelope, signature=bytes(64)), chain=dumb.attested.chain)
        office.dowry = with_domains(DOWRY, (CheckedDomain(broken, dumb.value, dumb.authority, dumb.id, dumb.name),))
    else:
        state = state_of(*office.events)
        office.dowry = DOWRY

    def answer(request: JoinRequest) -> object:
        decided = decide_join(state, request, desk=office.desk, dowry=office.dowry, now=NOW, serial=bytes(16), ephemeral_seed=seed("a"))
        assert isinstance(decided, Admitted)
        if lie != "other root":
            return decided.answer
        return resealed(decided, request)

    reason = Reason.BAD_CERTIFICATE if lie == "other root" else Reason.WRONG_DOMAIN
    failed = only(converse(machine, relay(TICKET), answer), JoinFailed)
    assert (failed.reason, failed.by_peer) == (reason, False)


PORT = found("PORT")
PORT_ISSUER = PORT.issuer()


def used_by(domain: Domain, root: bytes) -> Attested:
    return ticket_used(
        ISSUER.key,
        ISSUER.chain,
        NETWORK,
        domain_id=ACME.id,
        time=NOW,
        ticket_id=TICKET.ticket_id,
        request_key=domain.key.public,
        given=(root,),
    )


def resealed(decided: Admitted, request: JoinRequest) -> object:
    """The same answer, but for the root that it says was taken in."""
    private = HpkePrivateKey(seed("CUSTOMS", "answer"))
    admission = open_admission(decided.answer, private, NETWORK, request=request, signer=ISSUER.key.public)
    changed = msgspec.structs.replace(admission, chain=(PORT.root,))
    return seal_admission(changed, ISSUER.key, NETWORK, ticket_id=TICKET.ticket_id, recipient=private.public, ephemeral_seed=seed("again"))


def test_member_of_the_new_domain_learns_founder_and_domains_from_its_own_issuer() -> None:
    """Goal: joins into the second domain. Method: a member's desk of CUSTOMS; without the founder's word about CUSTOMS the newcomer
    takes nothing."""
    issuer = CUSTOMS.issuer()
    of = msgspec.structs.replace(TICKET, domain_id=CUSTOMS.id, issuer_chain=issuer.chain, role=ROLE_MEMBER)
    terms = TicketTerms(token_hash(of.token), of.join_secret, of.expires, ROLE_MEMBER, True, b"", 3, 50, 5)
    event = ticket_opened(issuer.key, issuer.chain, NETWORK, domain_id=CUSTOMS.id, time=NOW - 1, ticket_id=of.ticket_id, terms=terms)
    state = TicketState([check_ticket_event(event, NETWORK, CUSTOMS.roots)])
    desk = Desk(issuer.key, issuer.hpke, issuer.chain, NETWORK, CUSTOMS.id, CUSTOMS.root, YEAR)

    def joined_with(domains: tuple[CheckedDomain, ...]) -> list[object]:
        dowry = with_domains(DOWRY, domains)

        def answer(request: JoinRequest) -> object:
            decided = decide_join(state, request, desk=desk, dowry=dowry, now=NOW, serial=bytes(16), ephemeral_seed=seed("a"))
            return decided.answer if isinstance(decided, Admitted) else decided.refusal

        machine = NewcomerMachine(
            ticket=of,
            key=SigningKey(seed("Dora")),
            hpke=HpkePrivateKey(seed("Dora hpke")),
            member_id=seed("Dora id"),  # type: ignore[arg-type]  # any 32 bytes
            label="Dora",
            ephemeral_seeds=[seed("Dora", i) for i in range(JOIN_ATTEMPTS_MAX)],
            now=NOW,
        )
        return converse(machine, relay(of, root=CUSTOMS.root), answer)

    joined = only(joined_with((taken_in(PORT.root), taken_in(CUSTOMS.root))), Joined)
    assert (joined.founder, joined.domain_root) == (ACME.root, CUSTOMS.root)
    assert {entry.id for entry in joined.domains} == {CUSTOMS.id, PORT.id}
    assert joined.fences == FenceSet([check_fence(ACME.fence(1, by=ISSUER), NETWORK, ACME.roots)])
    assert only(joined_with((taken_in(PORT.root),)), JoinFailed).reason is Reason.WRONG_DOMAIN


def test_root_in_the_word_is_named_by_its_fingerprint() -> None:
    """Goal: nobody chooses a domain's id. Method: the id of a word is that of the root in it."""
    assert taken_in(CUSTOMS.root).id == fingerprint(CUSTOMS.root)
    assert taken_in(CUSTOMS.root).name == "CUSTOMS"
