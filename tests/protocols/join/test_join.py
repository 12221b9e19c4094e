"""Coming in: the way with nothing wrong, a lost answer, and everything that is refused with its reason."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import TypeVar

import msgspec
import pytest

from protocols.codec import encode
from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.effects import Close, Send
from protocols.errors import Reason, RemoteError
from protocols.identity.announce import sign_announcement
from protocols.identity.attested import Attested
from protocols.identity.certificates import make_issuer, verify_chain, verify_member_chain
from protocols.identity.domains import check_domain, sign_domain
from protocols.identity.fences import FenceSet, check_fence
from protocols.identity.keyfiles import MemberKey, decode_key_file, encode_key_file, key_file
from protocols.identity.members import member_id
from protocols.identity.revocation import RevocationKind, RevocationSet, check_revocation
from protocols.identity.tickets import (
    ROLE_MEMBER,
    ROLE_NODE,
    Ticket,
    TicketState,
    TicketTerms,
    check_ticket_event,
    ticket_cancelled,
    ticket_opened,
    token_hash,
)
from protocols.join.decision import Admitted, Declined, Desk, Dowry, decide_join
from protocols.join.machine import (
    AskIssuer,
    Ended,
    IssuerAnswered,
    Joined,
    JoinFailed,
    NewcomerMachine,
    NewcomerState,
    RelayMachine,
    RelayState,
    Start,
    Tick,
)
from protocols.join.messages import ChainAnchor, JoinAnswer, JoinHello, JoinIssuers, JoinRefusal, JoinRequest
from protocols.limits import JOIN_ATTEMPTS_MAX, JOIN_TIMEOUT_S
from protocols.registry import decode_message, encode_message
from protocols.types import UnixSeconds
from tests.protocols.identity.people import ACME, CUSTOMS, NETWORK, NOW, YEAR, Issuer, found, seed

T = TypeVar("T")
ISSUER = ACME.issuer(1)
SECOND = ACME.issuer(2)
ALICE = ACME.member("Alice", issuer=ISSUER)
PI = ALICE.node("pi")
ROOTS = ACME.roots | CUSTOMS.roots
FENCES = FenceSet([check_fence(ACME.fence(1, by=ISSUER), NETWORK, ROOTS)])
GONE = check_revocation(ACME.revoke(RevocationKind.MEMBER, seed("gone")), NETWORK, ROOTS)
HERE = sign_announcement(
    PI.key,
    NETWORK,
    peer_id=PI.peer_id,
    addresses=("/ip4/10.0.0.1/tcp/4001",),
    chain=PI.chain,
    counter=1,
    store_id=bytes(16),
    store_generation=1,
    free_bytes=1,
    refuses=False,
    version=1,
)
MEMBER_KEYS = encode_key_file(
    key_file(MemberKey(seed=ALICE.key.seed, hpke_seed=ALICE.hpke.seed, root_secret=bytes(32), real_id=b"", salt=bytes(32), chain=()))
)
OTHER = check_domain(
    sign_domain(ISSUER.key, ISSUER.chain, NETWORK, founder=ACME.id, time=UnixSeconds(NOW - 9), root=CUSTOMS.root),
    NETWORK,
    founder=ACME.root,
)
DOWRY = Dowry(
    fences=FENCES,
    revocations=RevocationSet([GONE]),
    founder=ACME.root,
    domains=(OTHER,),
    address_book=(HERE,),
    member_keys=MEMBER_KEYS,
)
EVE = SigningKey(seed("eve"))


def desk_of(issuer: Issuer = ISSUER) -> Desk:
    return Desk(issuer.key, issuer.hpke, issuer.chain, NETWORK, ACME.id, ACME.root, YEAR)


MEMBER_DESK = Desk(ALICE.key, ALICE.hpke, ALICE.chain, NETWORK, ACME.id, ACME.root, YEAR)


def ticket(role: str = ROLE_MEMBER, **changes: object) -> Ticket:
    made = Ticket(
        format=1,
        suite=1,
        network_id=NETWORK,
        addresses=(),
        domain_id=ACME.id,
        issuer_chain=ISSUER.chain if role == ROLE_MEMBER else ALICE.chain,
        ticket_id=seed("ticket", role)[:16],
        join_secret=seed("secret"),
        token=seed("token", role)[:16],
        expires=NOW + 100,
        role=role,
        holder_only=True,
    )
    return msgspec.structs.replace(made, **changes)


def opened(of: Ticket) -> Attested:
    node = of.role == ROLE_NODE
    terms = TicketTerms(
        token_hash=token_hash(of.token),
        join_secret=of.join_secret,
        expires=of.expires,
        role=of.role,
        holder_only=of.holder_only,
        member_id=ALICE.id if node else b"",
        nodes_max=3,
        weight_total_max=50,
        weight=5,
    )
    key, chain = (ALICE.key, ALICE.chain) if node else (ISSUER.key, ISSUER.chain)
    return ticket_opened(key, chain, NETWORK, domain_id=ACME.id, time=NOW - 10, ticket_id=of.ticket_id, terms=terms)


def state_of(*events: Attested) -> TicketState:
    return TicketState(check_ticket_event(event, NETWORK, ROOTS) for event in events)


def newcomer(of: Ticket, name: str = "Dora", *, now: int = NOW, label: str | None = None, key: SigningKey | None = None) -> NewcomerMachine:
    return NewcomerMachine(
        ticket=of,
        key=key or SigningKey(seed(name, "signing")),
        hpke=HpkePrivateKey(seed(name, "hpke")),
        member_id=member_id(name.encode(), seed(name, "salt")) if of.role == ROLE_MEMBER else None,
        label=name if label is None else label,
        ephemeral_seeds=[seed(name, "ephemeral", i) for i in range(JOIN_ATTEMPTS_MAX)],
        now=now,
    )


def relay(of: Ticket, chains: Sequence[tuple[bytes, ...]] | None = None, root: bytes = ACME.root) -> RelayMachine:
    return RelayMachine(ticket_id=of.ticket_id, root=root, chains=(of.issuer_chain,) if chains is None else chains, now_s=0.0)


def only(effects: Sequence[object], kind: type[T]) -> T:
    found_effects = [effect for effect in effects if isinstance(effect, kind)]
    assert len(found_effects) == 1, effects
    return found_effects[0]


def decide(state: TicketState | None, request: JoinRequest, desk: Desk | None = None, **changes: object) -> Admitted | Declined:
    settings = {"now": NOW, "serial": seed("serial")[:16], "ephemeral_seed": seed("answer"), "dowry": DOWRY} | changes
    return decide_join(state, request, desk=desk or desk_of(), **settings)  # type: ignore[arg-type]


def converse(client: NewcomerMachine, server: RelayMachine, answer: Callable[[JoinRequest], object]) -> list[object]:
    """Runs both over real frames until nothing is on the wire; ``answer`` is the issuer. All effects of the newcomer."""
    log: list[object] = []
    to_server = list(client.start(0.0))
    while to_server:
        log += to_server
        to_client: list[object] = []
        for effect in to_server:
            if isinstance(effect, Send):
                to_client += server.step(decode_message("join", encode_message("join", effect.message)), 0.0)
        for ask in [effect for effect in to_client if isinstance(effect, AskIssuer)]:
            to_client += server.step(IssuerAnswered(answer(ask.request)), 0.0)  # type: ignore[arg-type]
        to_server = []
        for effect in to_client:
            if isinstance(effect, Send):
                to_server += client.step(decode_message("join", encode_message("join", effect.message)), 0.0)
    return log


def issuer(state: TicketState | None, desk: Desk | None = None, **changes: object) -> Callable[[JoinRequest], object]:
    def answer(request: JoinRequest) -> object:
        decision = decide(state, request, desk, **changes)
        return decision.answer if isinstance(decision, Admitted) else decision.refusal

    return answer


def test_new_member_comes_in_through_any_node_and_gets_all_it_needs() -> None:
    """Goal: the plain way. Method: newcomer, relay and issuer over real frames; then use what was given."""
    of = ticket()
    joined = only(converse(newcomer(of), relay(of), issuer(state_of(opened(of)))), Joined)
    member = verify_member_chain(joined.chain, ACME.roots, now=NOW, revocations=joined.revocations)
    assert (member.name, member.owner) == ("Dora", SigningKey(seed("Dora", "signing")).public)
    assert (member.nodes_max, member.weight_total_max, member.not_after) == (3, 50, NOW + YEAR)
    assert joined.fences == FENCES
    assert joined.revocations.hashes == (GONE.hash,)
    assert [entry.signed for entry in joined.address_book.entries] == [HERE]
    assert (joined.founder, joined.domain_root) == (ACME.root, ACME.root)
    assert [entry.hash for entry in joined.domains] == [OTHER.hash]
    assert joined.member_keys == b""


@pytest.mark.parametrize("holder_only", [True, False])
def test_members_further_node_is_certified_by_the_member(holder_only: bool) -> None:
    """Goal: `invite --node`. Method: the member's own desk decides; its keys go only to a node that may have them."""
    of = ticket(ROLE_NODE, holder_only=holder_only)
    joined = only(converse(newcomer(of, "pi9"), relay(of), issuer(state_of(opened(of)), MEMBER_DESK)), Joined)
    node = verify_chain(joined.chain, ACME.roots, now=NOW, revocations=joined.revocations)
    assert (node.host, node.weight, node.holder_only, node.owner) == ("pi9", 5, holder_only, ALICE.key.public)
    assert joined.member_keys == (b"" if holder_only else MEMBER_KEYS)
    if not holder_only:
        assert isinstance(decode_key_file(joined.member_keys).content, MemberKey)


def first_use(of: Ticket, name: str = "Dora") -> tuple[JoinRequest, Admitted, TicketState]:
    client = newcomer(of, name)
    client.start(0.0)
    issuers = JoinIssuers(version=1, root=ACME.root, chains=(of.issuer_chain,))
    request = only(client.step(issuers, 0.0), Send).message
    assert isinstance(request, JoinRequest)
    admitted = decide(state_of(opened(of)), request)
    assert isinstance(admitted, Admitted)
    assert admitted.event is not None
    return request, admitted, state_of(opened(of), admitted.event)


def test_lost_answer_is_given_again_to_the_same_key_even_after_expiry() -> None:
    """Goal: a lost answer does no harm. Method: use the ticket; the same newcomer comes again, later, with other randomness."""
    of = ticket()
    request, admitted, used = first_use(of)
    for later in (NOW, of.expires + 1):
        again = decide(used, request, now=later, serial=seed("other")[:16], ephemeral_seed=seed("new"))
        assert isinstance(again, Admitted)
        assert (again.chain, again.event) == (admitted.chain, None)
        assert again.answer != admitted.answer
    joined = only(converse(newcomer(of), relay(of), issuer(used, serial=seed("third")[:16])), Joined)
    assert joined.chain == admitted.chain


def test_ticket_used_by_another_key_is_refused_with_an_alert() -> None:
    """Goal: single use. Method: somebody who saw the ticket comes second."""
    of = ticket()
    _, _, used = first_use(of)
    client = newcomer(of, "Eve")
    log = converse(client, relay(of), issuer(used))
    assert only(log, JoinFailed) == JoinFailed(Reason.TICKET_USED, "the ticket was used by another key", by_peer=True)
    request, _, _ = first_use(of, "Eve")
    declined = decide(used, request)
    assert isinstance(declined, Declined)
    assert declined.alert


def test_bad_tickets_are_refused_by_reason() -> None:
    """Goal: expired, cancelled, altered, unknown are told apart. Method: one request, one state each; none of them alerts."""
    of = ticket()
    request, _, used = first_use(of)
    cancel = ticket_cancelled(SECOND.key, SECOND.chain, NETWORK, domain_id=ACME.id, time=NOW, ticket_id=of.ticket_id)
    other_token = msgspec.structs.replace(of, token=bytes(16))
    other_role = msgspec.structs.replace(ticket(ROLE_NODE), ticket_id=of.ticket_id, token=of.token)
    cases: list[tuple[TicketState | None, int, Reason]] = [
        (None, NOW, Reason.TICKET_UNKNOWN),
        (state_of(opened(ticket(ROLE_NODE))), NOW, Reason.TICKET_UNKNOWN),
        (state_of(cancel), NOW, Reason.TICKET_UNKNOWN),
        (state_of(opened(of)), of.expires + 1, Reason.TICKET_EXPIRED),
        (state_of(opened(of), cancel), NOW, Reason.TICKET_CANCELLED),
        (used.merge(state_of(cancel)), NOW, Reason.TICKET_CANCELLED),
        (state_of(opened(other_token)), NOW, Reason.TICKET_ALTERED),
        (state_of(opened(other_role)), NOW, Reason.TICKET_ALTERED),
    ]
    for state, now, reason in cases:
        declined = decide(state, request, now=now)
        assert isinstance(declined, Declined)
        assert (declined.reason, declined.alert, declined.refusal.reason) == (reason, False, reason.stable_name)


def test_relay_tells_the_holder_of_a_cancelled_ticket_without_asking_anybody() -> None:
    """Goal: the reason also when no issuer can be reached. Method: a relay that knows the cancellation."""
    of = ticket()
    server = RelayMachine(ticket_id=of.ticket_id, root=ACME.root, chains=(), now_s=0.0, is_cancelled=True)
    failed = only(converse(newcomer(of), server, issuer(None)), JoinFailed)
    assert (failed.reason, failed.by_peer) == (Reason.TICKET_CANCELLED, True)
    assert server.state is RelayState.DONE


def test_request_that_was_tampered_with_is_refused() -> None:
    """Goal: the request is bound to ticket, network and issuer. Method: flip bits, move it to another ticket, issuer, network."""
    of = ticket()
    request, _, _ = first_use(of)
    state = state_of(opened(of))
    flipped = [
        msgspec.structs.replace(request, sealed=request.sealed[:i] + bytes([request.sealed[i] ^ 1]) + request.sealed[i + 1 :])
        for i in (0, 31, 32, 100, len(request.sealed) - 1)
    ]
    moved = msgspec.structs.replace(request, ticket_id=bytes(16))
    for altered in (*flipped, moved, msgspec.structs.replace(request, sealed=b"")):
        declined = decide(state, altered)
        assert isinstance(declined, Declined)
        assert declined.reason is Reason.BAD_TAG
    elsewhere = decide(state, request, desk_of(SECOND))
    assert isinstance(elsewhere, Declined)
    assert elsewhere.reason is Reason.BAD_TAG


def test_name_that_cannot_stand_in_a_certificate_is_refused_and_uses_nothing() -> None:
    """Goal: no crash, no spent ticket. Method: an empty and an invisible name."""
    of = ticket()
    for label in ("", "a\u202eb"):
        failed = only(converse(newcomer(of, label=label), relay(of), issuer(state_of(opened(of)))), JoinFailed)
        assert (failed.reason, failed.by_peer) == (Reason.USAGE, True)


def test_readmitted_member_gets_a_certificate_that_its_revocation_does_not_reach() -> None:
    """Goal: re-admission is a new certificate. Method: revoke Dora's id now, then let her join."""
    of = ticket()
    dora = member_id(b"Dora", seed("Dora", "salt"))
    out = RevocationSet([check_revocation(ACME.revoke(RevocationKind.MEMBER, dora, time=NOW - 5), NETWORK, ROOTS)])
    dowry = Dowry(fences=FENCES, revocations=out, founder=ACME.root, domains=(), address_book=())
    joined = only(converse(newcomer(of), relay(of), issuer(state_of(opened(of)), dowry=dowry)), Joined)
    assert verify_member_chain(joined.chain, ACME.roots, now=NOW, revocations=out).not_before == NOW - 4


# --- hostile relays -----------------------------------------------------------------------------------------------


def choose(of: Ticket, message: JoinIssuers) -> tuple[NewcomerMachine, tuple[object, ...]]:
    client = newcomer(of)
    client.start(0.0)
    return client, client.step(message, 0.0)


def test_swapped_issuer_keys_are_refused() -> None:
    """Goal: the fingerprint authenticates whom we seal to. Method: another root; a certificate by Eve; an issuer of another domain."""
    of = ticket()
    eve_hpke = HpkePrivateKey(seed("eve hpke"))
    fake_root = found("ACME2")
    forged = make_issuer(
        fake_root.key,
        fake_root.root,
        issuer_public=EVE.public,
        hpke_public=eve_hpke.public,
        serial=bytes(16),
        not_before=0,
        not_after=NOW * 2,
    )
    place = ISSUER.certificate.index(ISSUER.hpke.public)
    swapped = ISSUER.certificate[:place] + eve_hpke.public + ISSUER.certificate[place + 32 :]
    cases = [
        (of, JoinIssuers(version=1, root=fake_root.root, chains=((forged,),)), Reason.WRONG_DOMAIN),
        (of, JoinIssuers(version=1, root=ACME.root, chains=((forged,),)), Reason.WRONG_DOMAIN),
        (of, JoinIssuers(version=1, root=ACME.root, chains=((swapped,),)), Reason.BAD_CERTIFICATE),
        (of, JoinIssuers(version=1, root=ACME.root, chains=(PI.chain,)), Reason.BAD_CERTIFICATE),
        (of, JoinIssuers(version=2, root=ACME.root, chains=()), Reason.VERSION),
        (of, JoinIssuers(version=1, root=ACME.root, chains=(ISSUER.chain,) * 9), Reason.FLOOD),
        (msgspec.structs.replace(of, issuer_chain=(swapped,)), JoinIssuers(version=1, root=ACME.root, chains=()), Reason.BAD_CERTIFICATE),
    ]
    for case, message, reason in cases:
        client, effects = choose(case, message)
        assert only(effects, JoinFailed).reason is reason
        assert not any(isinstance(effect, Send) for effect in effects)
        assert client.wake_at() is None


def admitted_answer(of: Ticket, **changes: object) -> tuple[NewcomerMachine, JoinAnswer, JoinRequest]:
    client, effects = choose(of, JoinIssuers(version=1, root=ACME.root, chains=(of.issuer_chain,)))
    request = only(effects, Send).message
    assert isinstance(request, JoinRequest)
    decision = decide(state_of(opened(of)), request, **changes)
    assert isinstance(decision, Admitted)
    return client, decision.answer, request


def test_answers_that_are_not_the_issuers_to_this_request_are_refused() -> None:
    """Goal: nothing forged, replayed or reflected gets in. Method: one bad answer each to a waiting newcomer."""
    of = ticket()
    client, answer, request = admitted_answer(of)
    flipped = msgspec.structs.replace(answer, sealed=answer.sealed[:-1] + bytes([answer.sealed[-1] ^ 1]))
    reflected = JoinAnswer(ticket_id=of.ticket_id, sealed=request.sealed)
    for bad in (flipped, reflected, JoinAnswer(ticket_id=of.ticket_id, sealed=b"")):
        client, _, _ = admitted_answer(of)
        assert only(client.step(bad, 0.0), JoinFailed).reason is Reason.BAD_TAG
    # an answer to the same newcomer's earlier request
    second = newcomer(of)
    second._seeds[0] = seed("another attempt")
    second.start(0.0)
    second.step(JoinIssuers(version=1, root=ACME.root, chains=(of.issuer_chain,)), 0.0)
    assert only(second.step(answer, 0.0), JoinFailed).reason is Reason.REFLECTED


def test_answer_signed_by_another_desk_is_refused() -> None:
    """Goal: who was asked must answer. Method: the right HPKE key in hands of another signing key."""
    of = ticket()
    client, _, request = admitted_answer(of)
    mixed = Desk(SECOND.key, ISSUER.hpke, SECOND.chain, NETWORK, ACME.id, ACME.root, YEAR)
    decision = decide(state_of(opened(of)), request, mixed)
    assert isinstance(decision, Admitted)
    assert only(client.step(decision.answer, 0.0), JoinFailed).reason is Reason.BAD_CERTIFICATE


def test_admission_that_does_not_hold_is_refused() -> None:
    """Goal: the newcomer builds on nothing unchecked. Method: no fence; a certificate for somebody else; other root."""
    of = ticket()
    empty = Dowry(fences=FenceSet(), revocations=RevocationSet(), founder=ACME.root, domains=(), address_book=())
    client, answer, _ = admitted_answer(of, dowry=empty)
    assert only(client.step(answer, 0.0), JoinFailed).reason is Reason.FENCE
    client, _, request = admitted_answer(of)
    _, other, _ = first_use(of, "Eve")
    stolen = TicketState([check_ticket_event(event, NETWORK, ROOTS) for event in (opened(of), other.event) if event is not None])
    stolen.request_key = SigningKey(seed("Dora", "signing")).public
    decision = decide(stolen, request)
    assert isinstance(decision, Admitted)
    assert only(client.step(decision.answer, 0.0), JoinFailed).reason is Reason.BAD_CERTIFICATE
    client, _, request = admitted_answer(of)
    wrong_root = Desk(ISSUER.key, ISSUER.hpke, ISSUER.chain, NETWORK, ACME.id, CUSTOMS.root, YEAR)
    decision = decide(state_of(opened(of)), request, wrong_root)
    assert isinstance(decision, Admitted)
    assert only(client.step(decision.answer, 0.0), JoinFailed).reason is Reason.WRONG_DOMAIN


def test_entries_of_an_admission_that_do_not_hold_are_left_out() -> None:
    """Goal: one stale announcement does not keep a newcomer out. Method: a forged one beside a good one."""
    of = ticket()
    forged = msgspec.structs.replace(HERE, signature=bytes(64))
    dowry = Dowry(fences=FENCES, revocations=RevocationSet(), founder=ACME.root, domains=(OTHER,), address_book=(forged, HERE))
    client, answer, _ = admitted_answer(of, dowry=dowry)
    assert [entry.signed for entry in only(client.step(answer, 0.0), Joined).address_book.entries] == [HERE]


def test_unreachable_issuer_makes_the_newcomer_try_the_next_one() -> None:
    """Goal: no one node's death stops joining. Method: the inviting issuer is away, the second one answers; then none does."""
    of = ticket()
    state = state_of(opened(of))
    away = JoinRefusal(reason=Reason.UNREACHABLE.stable_name, text="")
    asked: list[bytes] = []

    def answer(request: JoinRequest) -> object:
        asked.append(request.issuer_key)
        return away if request.issuer_key == ISSUER.hpke.public else issuer(state, desk_of(SECOND))(request)

    joined = only(converse(newcomer(of), relay(of, (SECOND.chain, ISSUER.chain)), answer), Joined)
    assert asked == [ISSUER.hpke.public, SECOND.hpke.public]
    assert joined.chain[1:] == SECOND.chain
    failed = only(converse(newcomer(of), relay(of, (SECOND.chain, ISSUER.chain)), lambda _: away), JoinFailed)
    assert failed.reason is Reason.UNREACHABLE
    # the inviting issuer is not even offered: the other one is asked at once
    asked.clear()
    only(converse(newcomer(of), relay(of, (SECOND.chain,)), answer), Joined)
    assert asked == [SECOND.hpke.public]


def test_relay_refuses_what_does_not_belong_to_its_ticket() -> None:
    """Goal: a join connection serves its own ticket only. Method: other ids, other versions, long requests, too many."""
    of = ticket()
    hello = JoinHello(format=1, suite=1, version_min=1, version_max=1, ticket_id=of.ticket_id)
    request = JoinRequest(ticket_id=of.ticket_id, issuer_key=bytes(32), sealed=b"x")
    change = msgspec.structs.replace
    cases: list[tuple[tuple[object, ...], Reason]] = [
        ((change(hello, ticket_id=bytes(16)),), Reason.TICKET_ALTERED),
        ((change(hello, version_min=2, version_max=3),), Reason.VERSION),
        ((change(hello, format=2),), Reason.UNKNOWN_FORMAT),
        ((hello, change(request, ticket_id=bytes(16))), Reason.TICKET_ALTERED),
        ((hello, change(request, sealed=bytes(5000))), Reason.TOO_LONG),
        ((hello, *(request, IssuerAnswered(JoinRefusal("E-UNREACHABLE", ""))) * JOIN_ATTEMPTS_MAX, request), Reason.FLOOD),
    ]
    for events, reason in cases:
        server = relay(of)
        for event in events:
            effects = server.step(event, 0.0)
        refusal = only(effects, Send).message
        assert isinstance(refusal, JoinRefusal)
        assert refusal.reason == reason.stable_name
        assert server.state is RelayState.DONE
        assert any(isinstance(effect, Close) for effect in effects)


def test_silence_ends_at_the_time_limit_on_both_sides() -> None:
    """Goal: nobody waits for ever. Method: a Tick before and at the limit."""
    of = ticket()
    client, server = newcomer(of), relay(of)
    client.start(1.0)
    assert client.wake_at() == 1.0 + JOIN_TIMEOUT_S
    assert client.step(Tick(), JOIN_TIMEOUT_S) == ()
    assert only(client.step(Tick(), 1.0 + JOIN_TIMEOUT_S), JoinFailed).reason is Reason.TIMEOUT
    assert server.step(Tick(), JOIN_TIMEOUT_S - 1) == ()
    assert isinstance(only(server.step(Tick(), JOIN_TIMEOUT_S), Send).message, JoinRefusal)
    assert server.wake_at() is None


def test_every_sequence_of_events_ends_well() -> None:
    """Goal: no sequence breaks a machine; Joined only after the lawful way. Method: all sequences of four events, both machines."""
    of = ticket()
    client, answer, request = admitted_answer(of)
    issuers = JoinIssuers(version=1, root=ACME.root, chains=(of.issuer_chain,))
    unreachable = JoinRefusal(reason="E-UNREACHABLE", text="")
    for events in itertools.product((Start(), issuers, answer, unreachable, Tick(), Ended()), repeat=4):
        client = newcomer(of)
        effects = run(client, events)
        joined = any(isinstance(effect, Joined) for effect in effects)
        heard = [event for event in events if not isinstance(event, Tick)]
        assert joined is (client.state is NewcomerState.JOINED)
        assert (client.wake_at() is None) is (client.state not in (NewcomerState.SAID_HELLO, NewcomerState.SAID_REQUEST))
        if joined:
            rest = iter(heard)
            assert all(any(event == step for event in rest) for step in (Start(), issuers, answer))
    hello = JoinHello(format=1, suite=1, version_min=1, version_max=1, ticket_id=of.ticket_id)
    for events in itertools.product((hello, request, IssuerAnswered(answer), IssuerAnswered(unreachable), Tick(), Ended()), repeat=4):
        server = relay(of)
        run(server, events)
        assert (server.wake_at() is None) is (server.state is RelayState.DONE)


def run(machine: NewcomerMachine | RelayMachine, events: Sequence[object]) -> list[object]:
    effects: list[object] = []
    for event in events:
        if (machine.state, type(event)) in machine.TABLE:
            effects += machine.step(event, 1.0)
        else:
            with pytest.raises(RemoteError):
                machine.step(event, 1.0)
    return effects


def test_application_fits_and_says_nothing_in_the_clear() -> None:
    """Goal: a relay reads nothing. Method: look for token, name and keys in the encoded request and answer."""
    of = ticket()
    _, answer, request = admitted_answer(of)
    secrets = (of.token, b"Dora", SigningKey(seed("Dora", "signing")).public, FENCES.fences[0].secret)
    for data in (encode(request), encode(answer)):
        assert not any(secret in data for secret in secrets)


def joined_with(anchor: ChainAnchor | None, role: str = ROLE_MEMBER) -> Joined | JoinFailed:
    """What a newcomer makes of an answer that names this chain."""
    of = ticket(role)
    client = newcomer(of)
    desk = desk_of() if role == ROLE_MEMBER else MEMBER_DESK
    state = state_of(opened(of))

    def answer(request: JoinRequest) -> object:
        decided = decide(state, request, desk, dowry=dataclasses.replace(DOWRY, anchor=anchor))
        assert isinstance(decided, Admitted)
        return decided.answer

    log = converse(client, relay(of), answer)
    return next(effect for effect in log if isinstance(effect, Joined | JoinFailed))


def test_newcomer_learns_the_chain_of_its_domain_and_refuses_one_that_cannot_be() -> None:
    """Goal: who joins knows which chain to follow, sealed and signed with the rest. Method: no chain; a chain, for a member and for a node;
    anchors with a short id, a short hash and a height below zero."""
    anchor = ChainAnchor(seed("chain"), 812, seed("block"))
    for role in (ROLE_MEMBER, ROLE_NODE):
        joined = joined_with(anchor, role)
        assert isinstance(joined, Joined)
        assert joined.anchor == anchor
    nothing = joined_with(None)
    assert isinstance(nothing, Joined)
    assert nothing.anchor is None
    for bad in (ChainAnchor(b"short", 0, anchor.hash), ChainAnchor(anchor.chain, 0, b""), ChainAnchor(anchor.chain, -1, anchor.hash)):
        failed = joined_with(bad)
        assert isinstance(failed, JoinFailed)
        assert failed.reason is Reason.MALFORMED
