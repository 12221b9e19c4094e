"""What grows by merging: revocations, fences, tickets, the address book. Order and repetition never matter."""

from __future__ import annotations

import itertools

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import InvalidObject, Reason
from protocols.identity.announce import AddressBook, CheckedAnnouncement, check_announcement, sign_announcement
from protocols.identity.attested import Attested, KnownFence
from protocols.identity.certificates import CertifiedPath, verify_chain, verify_issuer_chain
from protocols.identity.fences import FenceSet, check_fence, fence_secret_hash, founding_fence
from protocols.identity.networks import fence_preshared_key, join_preshared_key, network_id, security_id
from protocols.identity.revocation import RevocationKind, RevocationSet, check_revocation, members_out
from protocols.identity.tickets import (
    ROLE_MEMBER,
    ROLE_NODE,
    CheckedTicketEvent,
    TicketBook,
    TicketState,
    TicketStatus,
    TicketTerms,
    check_ticket_event,
    ticket_cancelled,
    ticket_opened,
    ticket_used,
)
from protocols.limits import FENCE_LIFETIME_S, FENCES_KEPT_MAX, TICKET_MEMORY_S, TICKETS_OPEN_MAX, TICKETS_PER_MEMBER_MAX
from protocols.types import NetworkId
from tests.protocols.identity.people import ACME, CUSTOMS, NETWORK, NOW, YEAR, Issuer, Member, Node, found, seed

ROOTS = ACME.roots | CUSTOMS.roots
FIRST, SECOND = ACME.issuer(1), ACME.issuer(2)
ALICE = ACME.member("Alice", issuer=FIRST)
BOB = ACME.member("Bob", issuer=SECOND)
PI = ALICE.node("pi")


def checked(*entries: Attested) -> RevocationSet:
    return RevocationSet(check_revocation(entry, NETWORK, ROOTS) for entry in entries)


def path(node: Node) -> CertifiedPath:
    return verify_chain(node.chain, ROOTS, now=NOW, revocations=None).path


# --- revocations --------------------------------------------------------------------------------------------------

ENTRIES = [
    check_revocation(entry, NETWORK, ROOTS)
    for entry in (
        ACME.revoke(RevocationKind.MEMBER, ALICE.id, by=FIRST),
        ACME.revoke(RevocationKind.MEMBER, ALICE.id, by=SECOND, time=NOW + 5),
        ACME.revoke(RevocationKind.CERTIFICATE, PI.serial, by=ALICE),
        ACME.revoke(RevocationKind.ISSUER, FIRST.serial, cutoff=NOW - 10),
        ACME.revoke(RevocationKind.ISSUER, FIRST.serial, cutoff=NOW - 20),
        CUSTOMS.revoke(RevocationKind.MEMBER, ALICE.id),
    )
]
sets = st.lists(st.sampled_from(ENTRIES)).map(RevocationSet)


@given(sets, sets, sets)
def test_merging_revocations_is_a_union(a: RevocationSet, b: RevocationSet, c: RevocationSet) -> None:
    """Goal: all nodes end with the same set. Method: laws of a union, and that equal sets have equal digests and verdicts."""
    assert a.merge(b) == b.merge(a)
    assert a.merge(b).merge(c) == a.merge(b.merge(c))
    assert a.merge(a) == a
    assert (a.digest() == b.digest()) is (a == b)
    assert a.merge(b).is_revoked(path(PI)) is b.merge(a).is_revoked(path(PI))
    assert a.with_checked(check_revocation(e, NETWORK, ROOTS) for e in b.missing(a.hashes)) == a.merge(b)


def test_revoked_member_is_out_until_it_gets_a_later_certificate() -> None:
    """Goal: re-admission is a new certificate. Method: certificates issued before, at and after the revocation."""
    out = checked(ACME.revoke(RevocationKind.MEMBER, ALICE.id, by=SECOND, time=NOW - 100))
    for issued, revoked in ((NOW - 200, True), (NOW - 100, True), (NOW - 99, False)):
        node = ACME.member("Alice", issuer=FIRST, issued=issued).node(issued=NOW - 50)
        assert out.is_revoked(path(node)) is revoked
    assert not out.is_revoked(path(BOB.node()))
    assert out.member_revoked_at(ACME.id, ALICE.id) == NOW - 100
    assert out.member_revoked_at(CUSTOMS.id, ALICE.id) is None
    assert members_out(RevocationSet(), out) == ((ACME.id, ALICE.id),)
    assert members_out(out, out) == ()


def test_single_certificates_are_revoked_and_a_member_reaches_only_its_own_nodes() -> None:
    """Goal: a lost card is put out alone. Method: by issuer, by its member, by another member; the member's own certificate too."""
    other = ALICE.node("other")
    for by, node, revoked in ((SECOND, PI, True), (ALICE, PI, True), (BOB, PI, False), (SECOND, other, False)):
        assert checked(ACME.revoke(RevocationKind.CERTIFICATE, PI.serial, by=by)).is_revoked(path(node)) is revoked
    assert checked(ACME.revoke(RevocationKind.CERTIFICATE, ALICE.serial, by=SECOND)).is_revoked(path(other))
    assert not checked(ACME.revoke(RevocationKind.CERTIFICATE, ALICE.serial, by=ALICE)).is_revoked(path(other))
    assert not checked(ACME.revoke(RevocationKind.CERTIFICATE, FIRST.serial, by=SECOND)).is_revoked(path(PI))


def test_revoked_issuer_keeps_what_it_signed_before_the_cutoff() -> None:
    """Goal: one bad day of an issuer does not put everybody out. Method: members and revocations around the cut-off."""
    cut = ACME.revoke(RevocationKind.ISSUER, FIRST.serial, cutoff=NOW - 100)
    out = checked(cut)
    for issued, revoked in ((NOW - 101, False), (NOW - 100, False), (NOW - 99, True)):
        assert out.is_revoked(path(ACME.member("Dora", issuer=FIRST, issued=issued).node())) is revoked
    assert out.is_revoked(verify_issuer_chain(FIRST.chain, ROOTS, now=NOW, revocations=None).path)
    for time, revoked in ((NOW - 100, True), (NOW - 99, False)):
        by_issuer = ACME.revoke(RevocationKind.MEMBER, BOB.id, by=FIRST, time=time)
        assert checked(cut, by_issuer).is_revoked(path(BOB.node())) is revoked
        assert checked(by_issuer).is_revoked(path(BOB.node()))


@pytest.mark.parametrize(
    ("kind", "subject", "by", "cutoff", "reason"),
    [
        (RevocationKind.ISSUER, FIRST.serial, SECOND, 0, Reason.REFUSED),
        (RevocationKind.ISSUER, FIRST.serial, ALICE, 0, Reason.REFUSED),
        (RevocationKind.MEMBER, BOB.id, ALICE, 0, Reason.REFUSED),
        (RevocationKind.MEMBER, BOB.id[1:], SECOND, 0, Reason.MALFORMED),
        (RevocationKind.MEMBER, BOB.id, SECOND, 1, Reason.MALFORMED),
        (RevocationKind.ISSUER, FIRST.serial, None, NOW + 1, Reason.MALFORMED),
        (4, BOB.id, SECOND, 0, Reason.MALFORMED),
    ],
)
def test_revocation_beyond_the_signers_right_or_shape_is_refused(
    kind: RevocationKind, subject: bytes, by: Issuer | Member | None, cutoff: int, reason: Reason
) -> None:
    """Goal: only the root revokes an issuer, only root and issuers a member. Method: one overreach at a time."""
    with pytest.raises(InvalidObject) as caught:
        checked(ACME.revoke(kind, subject, by=by, cutoff=cutoff))
    assert caught.value.reason is reason


def test_revocation_with_a_foreign_chain_or_out_of_its_signers_time_is_refused() -> None:
    """Goal: the chain is the signer's, as of the entry's time. Method: another's chain, an unknown domain, before and after validity."""
    entry = ACME.revoke(RevocationKind.MEMBER, BOB.id, by=FIRST)
    cases = [
        (msgspec.structs.replace(entry, chain=SECOND.chain), Reason.BAD_CERTIFICATE),
        (msgspec.structs.replace(entry, chain=()), Reason.BAD_CERTIFICATE),
        (found("THIRD").revoke(RevocationKind.MEMBER, BOB.id), Reason.WRONG_DOMAIN),
        (ACME.revoke(RevocationKind.MEMBER, BOB.id, by=FIRST, time=NOW + 2 * YEAR), Reason.CERTIFICATE_EXPIRED),
        (ACME.revoke(RevocationKind.MEMBER, BOB.id, by=FIRST, time=NOW - 2 * YEAR - 1), Reason.CERTIFICATE_NOT_YET_VALID),
    ]
    for bad, reason in cases:
        with pytest.raises(InvalidObject) as caught:
            checked(bad)
        assert caught.value.reason is reason


# --- fences -------------------------------------------------------------------------------------------------------


def fences(*known: KnownFence) -> FenceSet:
    return FenceSet(check_fence(one, NETWORK, ROOTS) for one in known)


ALL_FENCES = [check_fence(ACME.fence(number, name=name), NETWORK, ROOTS) for number in (1, 2, 3) for name in "ab"]
fence_sets = st.lists(st.sampled_from(ALL_FENCES)).map(FenceSet)


@given(fence_sets, fence_sets, fence_sets)
def test_merging_fences_gives_the_greatest_in_any_order(a: FenceSet, b: FenceSet, c: FenceSet) -> None:
    """Goal: halves that rotated apart agree. Method: laws of a union; the greatest is the greatest of all."""
    assert a.merge(b).merge(c) == c.merge(b.merge(a))
    assert (a.digest() == b.digest()) is (a == b)
    ranks = sorted({(f.value.number, f.value.secret_hash) for f in ALL_FENCES if f.hash in a.merge(b).hashes})
    greatest = a.merge(b).greatest()
    assert (greatest.rank if greatest else None) == (ranks[-1] if ranks else None)
    assert [(key.number, key.id) for key in a.merge(b).psk(NETWORK)] == ranks[::-1]


def test_fences_are_bounded_in_number_and_age_but_the_last_one_stays() -> None:
    """Goal: 64, and 400 days after they were replaced. Method: 70 fences; three that were replaced one second apart; one old one alone."""
    many = fences(*(ACME.fence(number, by=FIRST) for number in range(1, 71)))
    assert [key.number for key in many.psk(NETWORK)] == list(range(70, 70 - FENCES_KEPT_MAX, -1))
    assert many.next_number() == 71
    old = NOW - FENCE_LIFETIME_S
    ages = fences(ACME.fence(1, by=FIRST, time=old - 99), ACME.fence(2, by=FIRST, time=old), ACME.fence(3, by=FIRST, time=old + 1))
    for now, numbers in ((NOW, [3, 2, 1]), (NOW + 1, [3, 2]), (NOW + 2, [3])):
        assert [key.number for key in ages.kept(now, RevocationSet()).psk(NETWORK)] == numbers
    lonely = fences(ACME.fence(5, time=NOW - 2 * FENCE_LIFETIME_S))
    assert lonely.kept(NOW, RevocationSet()) == lonely
    assert FenceSet().next_number() == 1


def test_founding_fence_is_made_again_from_the_kit_and_always_answered() -> None:
    """Goal: a founder finds back after years. Method: make it twice; 70 later fences; years; a second one by the same root, an issuer's
    number 1; whatever joins in whatever order, the least of the root's stays, and it alone of the forgotten."""
    made = founding_fence(ACME.key.seed, ACME.root, NETWORK)
    assert made == founding_fence(ACME.key.seed, ACME.root, NETWORK)
    assert made.secret != founding_fence(ACME.key.seed, ACME.root, NetworkId(bytes(32))).secret
    first = fences(made)
    assert first.greatest() is not None
    later = fences(*(ACME.fence(number, by=FIRST, time=NOW - 2 * YEAR + number) for number in range(1, 71)))
    both = first.merge(later)
    assert both == later.merge(first)
    assert len(both) == FENCES_KEPT_MAX
    now = NOW + FENCE_LIFETIME_S
    assert [key.number for key in both.kept(now, RevocationSet()).psk(NETWORK)] == [70, 1]
    assert both.kept(now, RevocationSet()).hashes[-1] == made.attested.object_hash
    secrets = {known.secret: fence_secret_hash(known.secret) for known in both.fences}
    assert both.is_forgotten(secrets[made.secret], now, RevocationSet())
    assert not both.is_forgotten(both.psk(NETWORK)[0].id, now, RevocationSet())
    assert not first.is_forgotten(secrets[made.secret], now, RevocationSet())
    assert not both.is_forgotten(bytes(32), now, RevocationSet())
    twins = [ACME.fence(1, name=str(name)) for name in range(3)]
    kept = {fences(*order, *later.fences).kept(now, RevocationSet()).hashes[-1] for order in itertools.permutations(twins)}
    assert len(kept) == 1


def test_fences_of_a_revoked_issuer_beyond_its_cutoff_are_ignored() -> None:
    """Goal: a stolen issuing key cannot fence the others out. Method: fences around the cut-off, the later one greatest."""
    known = fences(ACME.fence(1, time=NOW - 500), ACME.fence(2, by=FIRST, time=NOW - 100), ACME.fence(9, by=FIRST, time=NOW - 99))
    out = checked(ACME.revoke(RevocationKind.ISSUER, FIRST.serial, cutoff=NOW - 100))
    assert [key.number for key in known.kept(NOW, out).psk(NETWORK)] == [2, 1]


def test_fence_that_is_not_what_it_says_is_refused() -> None:
    """Goal: nothing but root and issuers, number in range, secret fitting. Method: one wrong thing at a time."""
    good = ACME.fence(1, by=FIRST)
    cases = [
        (ACME.fence(1, by=ALICE), Reason.REFUSED),
        (ACME.fence(0), Reason.MALFORMED),
        (ACME.fence(2**53 + 1), Reason.MALFORMED),
        (KnownFence(attested=good.attested, secret=bytes(32)), Reason.INTEGRITY),
        (KnownFence(attested=good.attested, secret=b""), Reason.MALFORMED),
    ]
    for bad, reason in cases:
        with pytest.raises(InvalidObject) as caught:
            fences(bad)
        assert caught.value.reason is reason
    assert len(fences(good)) == 1


def test_preshared_keys_differ_by_network_and_use() -> None:
    """Goal: one secret, many keys. Method: the same 32 bytes as fence and as join secret in two networks."""
    other = network_id(ACME.id, seed("other"))
    keys = {derive(seed("s"), network) for derive in (fence_preshared_key, join_preshared_key) for network in (NETWORK, other)}
    assert len(keys) == 4
    assert security_id(NETWORK) == f"/lading/noise/1/{NETWORK.hex()}"


# --- tickets ------------------------------------------------------------------------------------------------------

TICKET = seed("ticket")[:16]


def terms(role: str = ROLE_MEMBER, *, member: bytes = b"", expires: int = NOW + 100) -> TicketTerms:
    return TicketTerms(
        token_hash=seed("token"),
        join_secret=seed("join"),
        expires=expires,
        role=role,
        holder_only=False,
        member_id=member,
        nodes_max=1,
        weight_total_max=1,
        weight=1,
    )


def event(attested: Attested) -> CheckedTicketEvent:
    return check_ticket_event(attested, NETWORK, ROOTS)


def opened(by: Issuer | Member = FIRST, *, ticket: bytes = TICKET, of: TicketTerms | None = None, time: int = NOW) -> CheckedTicketEvent:
    return event(ticket_opened(by.key, by.chain, NETWORK, domain_id=ACME.id, time=time, ticket_id=ticket, terms=of or terms()))


def cancelled(by: Issuer | Member = SECOND, *, ticket: bytes = TICKET) -> CheckedTicketEvent:
    return event(ticket_cancelled(by.key, by.chain, NETWORK, domain_id=ACME.id, time=NOW + 9, ticket_id=ticket))


def used(by: Issuer | Member = FIRST, *, key: bytes = seed("key"), time: int = NOW + 1, ticket: bytes = TICKET) -> CheckedTicketEvent:
    return event(ticket_used(by.key, by.chain, NETWORK, domain_id=ACME.id, time=time, ticket_id=ticket, request_key=key, given=ALICE.chain))


EVENTS = [opened(), cancelled(), used(), used(SECOND, key=seed("rival"), time=NOW + 2)]


@given(st.permutations(EVENTS), st.integers(1, 4), st.integers(0, 4))
def test_ticket_events_fold_to_the_same_state_in_any_order(order: list[CheckedTicketEvent], first: int, split: int) -> None:
    """Goal: cancel and use win, whoever heard of them first. Method: fold at once, one by one, and in two merged halves."""
    some = order[:first]
    whole = TicketBook(some)
    one_by_one = TicketBook()
    for one in some:
        one_by_one = one_by_one.with_checked([one])
    assert whole == one_by_one == TicketBook(some[:split]).merge(TicketBook(some[split:]))
    state = whole.get(TICKET)
    assert state is not None
    kinds = {one.value.kind for one in some}
    expected = TicketStatus.CANCELLED if 2 in kinds else TicketStatus.USED if 3 in kinds else TicketStatus.OPEN
    assert state.status is expected


def test_ticket_used_twice_while_the_domain_was_torn_names_the_rival() -> None:
    """Goal: an alert, and one answer for all. Method: two issuers, two keys; the earlier use wins."""
    state = TicketState(EVENTS)
    assert (state.request_key, state.rivals, state.given) == (seed("key"), (seed("rival"),), ALICE.chain)


def test_members_speak_only_about_tickets_for_their_own_nodes() -> None:
    """Goal: no member opens, cancels or uses another's ticket. Method: Bob tries each with Alice's and with an issuer's."""
    own = opened(ALICE, of=terms(ROLE_NODE, member=ALICE.id))
    assert TicketState([own, cancelled(ALICE)]).status is TicketStatus.CANCELLED
    assert TicketState([own, cancelled(BOB)]).status is TicketStatus.OPEN
    assert TicketState([opened(), cancelled(BOB)]).status is TicketStatus.OPEN
    assert TicketState([opened(), used(BOB)]).status is TicketStatus.OPEN
    for by, what in ((ALICE, terms()), (BOB, terms(ROLE_NODE, member=ALICE.id))):
        with pytest.raises(InvalidObject) as caught:
            opened(by, of=what)
        assert caught.value.reason is Reason.REFUSED
    # an issuer's ticket is not taken over by a member who heard of its id, however early it dates its own
    hijack = opened(BOB, of=terms(ROLE_NODE, member=BOB.id), time=NOW - 50)
    assert TicketState([hijack, opened()]).terms == terms()


def test_responder_tries_at_most_64_secrets_and_no_member_crowds_the_others_out() -> None:
    """Goal: the bound on the first handshake message. Method: 60 issuers' tickets, 20 of one member, one expired, one cancelled."""
    book = TicketBook(opened(ticket=seed("i", i)[:16]) for i in range(60))
    book = book.with_checked(opened(ALICE, ticket=seed("a", i)[:16], of=terms(ROLE_NODE, member=ALICE.id)) for i in range(20))
    gone = (opened(ticket=seed("old")[:16], of=terms(expires=NOW - 1)), opened(), cancelled())
    book = book.with_checked(gone)
    tried = book.answered(NOW)
    assert len(tried) == TICKETS_OPEN_MAX
    assert sum(state.opened_by_member == b"" for state in tried) == 60
    assert len(TicketBook(states={s.ticket_id: s for s in book.states if s.opened_by_member}).answered(NOW)) == TICKETS_PER_MEMBER_MAX
    assert not {seed("old")[:16], TICKET} & {state.ticket_id for state in tried}
    # Where there is room, the cancelled one too, until it would have ended: after the used ones, so that nobody is crowded out.
    few = TicketBook([*gone, opened(ticket=seed("used")[:16]), opened(ticket=seed("open")[:16]), used(ticket=seed("used")[:16])])
    assert [state.ticket_id for state in few.answered(NOW)] == [seed("open")[:16], seed("used")[:16], TICKET]
    assert few.answered(terms().expires + 1) == ()


def test_book_forgets_ended_tickets_and_what_revoked_signers_said() -> None:
    """Goal: bounded memory, no word of those who are out. Method: look after TICKET_MEMORY_S; revoke the issuer before it opened one."""
    book = TicketBook([opened()])
    assert len(book.kept(NOW + 100 + TICKET_MEMORY_S, RevocationSet())) == 1
    assert len(book.kept(NOW + 101 + TICKET_MEMORY_S, RevocationSet())) == 0
    assert len(book.kept(NOW, checked(ACME.revoke(RevocationKind.ISSUER, FIRST.serial, cutoff=NOW - 1)))) == 0


# --- address book -------------------------------------------------------------------------------------------------


def announcement(node: Node = PI, *, counter: int = 1, address: str = "/ip4/10.0.0.1/tcp/1", **changes: object) -> CheckedAnnouncement:
    settings = {
        "peer_id": node.peer_id,
        "addresses": (address,),
        "chain": node.chain,
        "counter": counter,
        "store_id": bytes(16),
        "store_generation": 1,
        "free_bytes": 5,
        "refuses": False,
        "version": 1,
    } | changes
    signed = sign_announcement(node.key, NETWORK, **settings)  # type: ignore[arg-type]
    return check_announcement(signed, NETWORK, ROOTS, now=NOW, revocations=RevocationSet())


WORDS = [announcement(counter=1), announcement(counter=2), announcement(counter=2, address="/ip4/10.0.0.2/tcp/1"), announcement(BOB.node())]


@given(st.permutations(WORDS))
def test_latest_announcement_of_each_node_wins_in_any_order(order: list[CheckedAnnouncement]) -> None:
    """Goal: one book everywhere. Method: all orders; equal counters are decided by the hash."""
    book = AddressBook(order)
    assert book == AddressBook(WORDS)
    assert len(book) == 2
    kept = book.get(PI.peer_id)
    assert kept is not None
    assert kept.rank == max(word.rank for word in WORDS[:3])


def test_announcement_is_refused_unless_the_node_itself_signed_sound_things() -> None:
    """Goal: nobody speaks for another. Method: another's peer id or chain, bad addresses, negative numbers, a revoked node."""
    cases: list[tuple[dict[str, object], Reason]] = [
        ({"peer_id": BOB.node().peer_id}, Reason.WRONG_PEER),
        ({"chain": BOB.node().chain}, Reason.WRONG_PEER),
        ({"addresses": ("/x",) * 17}, Reason.MALFORMED),
        ({"addresses": ("x",)}, Reason.MALFORMED),
        ({"addresses": ("/" + "x" * 256,)}, Reason.MALFORMED),
        ({"addresses": ("/\n",)}, Reason.MALFORMED),
        ({"store_id": b""}, Reason.MALFORMED),
        ({"free_bytes": -1}, Reason.MALFORMED),
        ({"chain": ()}, Reason.BAD_CERTIFICATE),
    ]
    for change, reason in cases:
        with pytest.raises(InvalidObject) as caught:
            announcement(**change)  # type: ignore[arg-type]
        assert caught.value.reason is reason
    out = checked(ACME.revoke(RevocationKind.MEMBER, ALICE.id))
    assert [entry.value.peer_id for entry in AddressBook(WORDS).without_revoked(out).entries] == [BOB.node().peer_id]
