"""The same certificate with a later end: what is kept, what is refused, and why a late issuer undoes no revocation."""

from __future__ import annotations

import msgspec
import pytest

from protocols.crypto import Label, SigningKey
from protocols.errors import InvalidObject, Reason
from protocols.identity.certificates import MEMBER, chain_validity, make_member, verify_chain, verify_member_chain
from protocols.identity.revocation import RevocationKind, RevocationSet, check_revocation
from protocols.join.decision import Desk
from protocols.join.messages import JoinRefusal, Renewal, RenewAnswer, RenewRequest
from protocols.join.renewal import check_renewed_member, check_renewed_node, decide_renewal, renewal_due_at, sign_renewal
from protocols.registry import decode_message, encode_message
from protocols.signed import sign_object
from tests.protocols.identity.people import ACME, CUSTOMS, NETWORK, NOW, YEAR, Issuer, seed

ISSUER, SECOND = ACME.issuer(1), ACME.issuer(2)
ALICE = ACME.member("Alice", issuer=ISSUER, ends=NOW + 100)
BOB = ACME.member("Bob", issuer=ISSUER)
CARD = BOB.node("card", weight=7, holder_only=True)
NOBODY = RevocationSet()


def desk_of(issuer: Issuer = ISSUER, *, lifetime_s: int = YEAR) -> Desk:
    return Desk(issuer.key, issuer.hpke, issuer.chain, NETWORK, ACME.id, ACME.root, lifetime_s)


BOBS_DESK = Desk(BOB.key, BOB.hpke, BOB.chain, NETWORK, ACME.id, ACME.root, YEAR)
ALICES_DESK = Desk(ALICE.key, ALICE.hpke, ALICE.chain, NETWORK, ACME.id, ACME.root, YEAR)


def ask(key: SigningKey = ALICE.key, chain: tuple[bytes, ...] = ALICE.chain) -> RenewRequest:
    request = sign_renewal(key, chain, NETWORK, domain_id=ACME.id, relay=False)
    sent = decode_message("join", encode_message("join", request))
    assert isinstance(sent, RenewRequest)
    return sent


def decide(
    request: RenewRequest, desk: Desk | None = None, *, revocations: RevocationSet = NOBODY, now: int = NOW
) -> RenewAnswer | JoinRefusal:
    return decide_renewal(request, desk=desk or desk_of(), revocations=revocations, now=now, serial=seed("serial")[:16])


def given(answer: RenewAnswer | JoinRefusal) -> tuple[bytes, ...]:
    assert isinstance(answer, RenewAnswer), answer
    return answer.chain


def reason(answer: RenewAnswer | JoinRefusal) -> str:
    assert isinstance(answer, JoinRefusal), answer
    return answer.reason


def out(time: int = NOW) -> RevocationSet:
    return RevocationSet([check_revocation(ACME.revoke(RevocationKind.MEMBER, ALICE.id, time=time), NETWORK, ACME.roots)])


def test_renewed_member_is_the_same_but_for_its_end() -> None:
    """Goal: same id, keys, bounds, admission; a later end. Method: ask the issuer that certified, then another one of the domain."""
    before = verify_member_chain(ALICE.chain, ACME.roots, now=NOW, revocations=None)
    for issuer in (ISSUER, SECOND):
        chain = given(decide(ask(), desk_of(issuer)))
        after = check_renewed_member(chain, ALICE.chain, ACME.roots, now=NOW, revocations=NOBODY)
        assert (after.member_id, after.owner, after.hpke, after.name) == (before.member_id, before.owner, before.hpke, before.name)
        assert (after.nodes_max, after.weight_total_max) == (before.nodes_max, before.weight_total_max)
        assert (after.path.issued[0], after.not_after) == (before.path.issued[0], NOW + YEAR)


def test_issuer_that_has_not_heard_of_a_revocation_gives_nothing_that_it_does_not_reach() -> None:
    """Goal: a partition undoes no revocation. Method: Alice is put out; an issuer that does not know it renews her 1,000 s later."""
    chain = given(decide(ask(), revocations=NOBODY))
    with pytest.raises(InvalidObject) as refused:
        verify_member_chain(chain, ACME.roots, now=NOW + 10, revocations=out(NOW - 1000))
    assert refused.value.reason is Reason.REVOKED


def test_revoked_and_expired_members_are_refused() -> None:
    """Goal: only who belongs is renewed. Method: an issuer that knows of the revocation; a request after the end; a revoked issuer."""
    assert reason(decide(ask(), revocations=out())) == "E-REVOKED"
    assert reason(decide(ask(), now=NOW + 101)) == "E-CERTIFICATE-EXPIRED"
    gone = check_revocation(ACME.revoke(RevocationKind.ISSUER, ISSUER.serial, time=NOW, cutoff=NOW - 1), NETWORK, ACME.roots)
    assert reason(decide(ask(), revocations=RevocationSet([gone]))) == "E-REVOKED"
    assert given(decide(ask(), desk_of(SECOND), revocations=RevocationSet([gone])))


def test_only_the_key_that_is_certified_may_ask() -> None:
    """Goal: nobody asks for somebody else. Method: Bob signs for Alice's chain; another signature, length, label, format."""
    assert reason(decide(ask(BOB.key))) == "E-BAD-CERTIFICATE"
    good = ask()
    altered = msgspec.structs.replace(good, renewal=msgspec.structs.replace(good.renewal, signature=bytes(64)))
    assert reason(decide(altered)) == "E-BAD-SIGNATURE"
    assert reason(decide(ask(chain=ALICE.chain[:1]))) == "E-MALFORMED"
    value = Renewal(format=1, suite=1, domain_id=ACME.id, chain=ALICE.chain)
    assert reason(decide(RenewRequest(sign_object(value, ALICE.key, Label.PIN, NETWORK), relay=False))) == "E-BAD-SIGNATURE"
    unknown = RenewRequest(sign_object(msgspec.structs.replace(value, format=2), ALICE.key, Label.RENEWAL, NETWORK), relay=False)
    assert reason(decide(unknown)) == "E-UNKNOWN-FORMAT"


def test_requests_for_other_desks_are_unreachable_here() -> None:
    """Goal: the asker goes on to the next node. Method: another domain; a member at a member's desk; a node at others' desks."""
    elsewhere = sign_renewal(ALICE.key, ALICE.chain, NETWORK, domain_id=CUSTOMS.id, relay=False)
    for request, desk in (
        (elsewhere, desk_of()),
        (ask(), BOBS_DESK),
        (ask(CARD.key, CARD.chain), desk_of()),
        (ask(CARD.key, CARD.chain), ALICES_DESK),
    ):
        assert reason(decide(request, desk)) == "E-UNREACHABLE"


def test_holder_only_node_is_renewed_by_its_member_under_the_members_newest_certificate() -> None:
    """Goal: a node without its member's key stays certified. Method: Bob is renewed; his desk renews the card under his new chain."""
    chain = given(decide(ask(BOB.key, BOB.chain), desk_of(lifetime_s=2 * YEAR - 1)))
    renewed = Desk(BOB.key, BOB.hpke, chain, NETWORK, ACME.id, ACME.root, YEAR + 50)
    old = verify_chain(CARD.chain, ACME.roots, now=NOW, revocations=None)
    new = check_renewed_node(given(decide(ask(CARD.key, CARD.chain), renewed)), old, ACME.roots, now=NOW, revocations=NOBODY)
    assert (new.peer_id, new.host, new.weight, new.holder_only) == (old.peer_id, "card", 7, True)
    assert new.not_after == NOW + YEAR + 50
    assert new.serials[1:] != old.serials[1:]


def test_nothing_is_given_that_does_not_last_longer() -> None:
    """Goal: no certificate for nothing. Method: a desk with a short lifetime; one whose issuer ends as soon as the member does."""
    assert reason(decide(ask(), desk_of(lifetime_s=100))) == "E-REFUSED"
    late = ACME.member("Late", issuer=ISSUER, ends=NOW + 2 * YEAR)
    assert reason(decide(ask(late.key, late.chain), desk_of(lifetime_s=9 * YEAR))) == "E-REFUSED"
    assert chain_validity(given(decide(ask(), desk_of(lifetime_s=9 * YEAR))), MEMBER)[1] == NOW + 2 * YEAR


def test_answer_that_is_about_somebody_else_is_not_taken() -> None:
    """Goal: a lying node gains nothing. Method: Bob's chain; Alice's old one; other bounds; a bad signature."""
    wider = make_member(
        ISSUER.key,
        ISSUER.certificate,
        member_id=ALICE.id,
        signing_public=ALICE.key.public,
        hpke_public=ALICE.hpke.public,
        name="Alice",
        nodes_max=400,
        weight_total_max=100,
        serial=bytes(16),
        not_before=NOW - YEAR,
        not_after=NOW + YEAR,
    )
    good = given(decide(ask()))
    for chain in (BOB.chain, ALICE.chain, (wider, *ISSUER.chain), (good[0][:-1] + bytes([good[0][-1] ^ 1]), *good[1:])):
        with pytest.raises(InvalidObject) as refused:
            check_renewed_member(chain, ALICE.chain, ACME.roots, now=NOW, revocations=NOBODY)
        assert refused.value.reason is Reason.BAD_CERTIFICATE


@pytest.mark.parametrize(
    ("not_before", "not_after", "lifetime_s", "due"),
    [(0, 90, 90, 60), (0, 30, 90, 20), (0, 900, 90, 870)],
    ids=["fresh", "short-by-its-issuer's-end", "renewed-many-times"],
)
def test_renewal_is_due_at_two_thirds_of_what_was_given_last(not_before: int, not_after: int, lifetime_s: int, due: int) -> None:
    """Goal: the admission's time, which never moves, does not make renewal due for ever. Method: first, shortened, often renewed."""
    assert renewal_due_at(not_before, not_after, lifetime_s=lifetime_s) == due
