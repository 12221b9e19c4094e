"""The domains of a network: who says which there are, what merging makes of it, and that no domain crowds another's fences out."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.crypto import Label
from protocols.errors import InvalidObject, Reason
from protocols.identity.attested import Attested
from protocols.identity.domains import CheckedDomain, Domain, DomainSet, check_domain, sign_domain
from protocols.identity.fences import CheckedFence, FenceSet, check_fence, founding_fence
from protocols.identity.revocation import RevocationKind, RevocationSet, check_revocation
from protocols.limits import DOMAINS_MAX, FENCES_KEPT_MAX
from protocols.signed import sign_object
from protocols.types import UnixSeconds
from tests.protocols.identity.people import ACME, CUSTOMS, NETWORK, NOW, Issuer, Member, found

FIRST, SECOND = ACME.issuer(1), ACME.issuer(2)
PORT, BANK = found("PORT"), found("BANK")


def word(root: bytes = CUSTOMS.root, *, by: Issuer | Member | None = FIRST, time: int = NOW) -> Attested:
    """by: None means the root."""
    key, chain = (ACME.key, ()) if by is None else (by.key, by.chain)
    return sign_domain(key, chain, NETWORK, founder=ACME.id, time=UnixSeconds(time), root=root)


def checked(attested: Attested) -> CheckedDomain:
    return check_domain(attested, NETWORK, founder=ACME.root)


WORDS = [
    checked(one)
    for one in (
        word(),
        word(time=NOW + 5),
        word(by=SECOND, time=NOW + 1),
        word(by=None, time=NOW + 9),
        word(PORT.root),
        word(BANK.root, by=SECOND, time=NOW - 7),
    )
]
some = st.lists(st.sampled_from(WORDS)).map(DomainSet)


@given(some, some, some)
def test_merging_domains_is_a_union_in_any_order(a: DomainSet, b: DomainSet, c: DomainSet) -> None:
    """Goal: all nodes know the same domains. Method: laws of a union; what one had is not lost."""
    assert a.merge(b).merge(c) == c.merge(b.merge(a))
    assert a.merge(a) == a
    nobody = RevocationSet()
    assert a.roots(nobody).keys() | b.roots(nobody).keys() == a.merge(b).roots(nobody).keys()


def test_first_word_of_each_signer_stays_and_more_of_one_signer_than_a_network_has_domains_does_not() -> None:
    """Goal: bounded. Method: two words of one signer about one domain; one more domain than there may be, the latest word last."""
    assert DomainSet(WORDS[:2]).entries == (WORDS[0],)
    many = [checked(word(found(f"D{number}").root, time=NOW + number)) for number in range(DOMAINS_MAX)]
    kept = DomainSet(reversed(many))
    assert kept.entries == tuple(many[: DOMAINS_MAX - 1])
    assert kept.with_checked([many[-1]]) == kept
    assert len(kept.roots(RevocationSet())) == DOMAINS_MAX - 1


def test_domain_that_a_revoked_issuer_took_in_beyond_its_cutoff_is_out_unless_another_took_it_in_too() -> None:
    """Goal: a stolen issuing key brings no domains in. Method: revoke the first issuer with a cut-off before, and after, its word."""

    def out(cutoff: int) -> RevocationSet:
        entry = ACME.revoke(RevocationKind.ISSUER, FIRST.serial, cutoff=cutoff)
        return RevocationSet([check_revocation(entry, NETWORK, ACME.roots)])

    alone = DomainSet([checked(word(time=NOW - 5))])
    assert CUSTOMS.id not in alone.roots(out(NOW - 6))
    assert alone.roots(out(NOW - 5)) == {CUSTOMS.id: CUSTOMS.root}
    both = alone.with_checked([checked(word(by=SECOND))])
    assert both.roots(out(0)) == {CUSTOMS.id: CUSTOMS.root}


def test_word_that_is_not_the_founding_domains_is_refused() -> None:
    """Goal: nobody else says what belongs to the network. Method: one wrong thing at a time."""
    other = CUSTOMS.issuer()
    foreign = sign_domain(other.key, other.chain, NETWORK, founder=CUSTOMS.id, time=UnixSeconds(NOW), root=PORT.root)
    borrowed = sign_domain(other.key, other.chain, NETWORK, founder=ACME.id, time=UnixSeconds(NOW), root=PORT.root)
    good = word()
    form = Domain(format=2, suite=1, domain_id=ACME.id, time=NOW, root=CUSTOMS.root)
    cases = [
        (foreign, Reason.WRONG_DOMAIN),
        (borrowed, Reason.WRONG_DOMAIN),
        (word(by=ACME.member("Alice", issuer=FIRST)), Reason.REFUSED),
        (word(ACME.root), Reason.MALFORMED),
        (word(b"no certificate"), Reason.BAD_CERTIFICATE),
        (word(FIRST.certificate), Reason.BAD_CERTIFICATE),
        (Attested(envelope=msgspec.structs.replace(good.envelope, signature=bytes(64)), chain=good.chain), Reason.BAD_SIGNATURE),
        (Attested(envelope=sign_object(form, FIRST.key, Label.DOMAIN, NETWORK), chain=FIRST.chain), Reason.UNKNOWN_FORMAT),
    ]
    for bad, reason in cases:
        with pytest.raises(InvalidObject) as caught:
            checked(bad)
        assert caught.value.reason is reason
    assert checked(good).id == CUSTOMS.id


# --- fences of several domains ------------------------------------------------------------------------------------

ROOTS = ACME.roots | CUSTOMS.roots | PORT.roots
OWN = [check_fence(ACME.fence(number), NETWORK, ROOTS) for number in range(1, 6)]
FLOOD = [check_fence(CUSTOMS.fence(number, name="customs"), NETWORK, ROOTS) for number in range(100, 171)]
LAST = [check_fence(PORT.fence(number, name="port"), NETWORK, ROOTS) for number in range(50, 90)]


def test_domain_that_rotates_without_end_then_anothers_fences_stay() -> None:
    """Goal: a member of ACME that was away comes home however often CUSTOMS rotated. Method: 71 greater fences of another domain."""
    kept = FenceSet([*FLOOD, *OWN])
    assert {fence.hash for fence in OWN} <= set(kept.hashes)
    assert len(kept) == FENCES_KEPT_MAX // 2 + len(OWN)
    assert kept.greatest() == FLOOD[-1]
    assert len(FenceSet(FLOOD)) == FENCES_KEPT_MAX


FOUNDING = [
    check_fence(known, NETWORK, ROOTS)
    for known in (*(ACME.fence(1, name=str(number)) for number in range(2)), founding_fence(CUSTOMS.key.seed, CUSTOMS.root, NETWORK))
]
fence_sets = st.lists(st.sampled_from([*OWN, *FLOOD, *LAST, *FOUNDING]), max_size=150).map(FenceSet)


@given(fence_sets, fence_sets, fence_sets)
def test_merging_fences_of_several_domains_gives_the_same_in_any_order(a: FenceSet, b: FenceSet, c: FenceSet) -> None:
    """Goal: shares do not depend on who met whom first. Method: laws of a union over sets beyond the bound."""
    assert a.merge(b).merge(c) == c.merge(b.merge(a)) == c.merge(a).merge(b)
    assert len(a.merge(b)) <= FENCES_KEPT_MAX


def test_each_domain_keeps_its_founding_fence_within_its_share() -> None:
    """Goal: the kits of all domains open the network, and no domain's takes another's place. Method: two domains that rotated without end;
    then as many domains as there may be, of which one has sought the least hashes."""
    later = [check_fence(ACME.fence(number, by=ACME.issuer()), NETWORK, ROOTS) for number in range(2, 80)]
    founding = [check_fence(founding_fence(one.key.seed, one.root, NETWORK), NETWORK, ROOTS) for one in (ACME, CUSTOMS)]
    kept = FenceSet([*later, *FLOOD, *founding])
    assert {fence.hash for fence in founding} <= set(kept.hashes)
    assert len(kept) == FENCES_KEPT_MAX
    assert sum(fence.value.domain_id == ACME.id for fence in (*later, *founding) if fence.hash in kept.hashes) == FENCES_KEPT_MAX // 2
    many = [found(f"domain {number}") for number in range(DOMAINS_MAX)]
    roots = {one.id: one.root for one in many}
    theirs = [check_fence(founding_fence(one.key.seed, one.root, NETWORK), NETWORK, roots) for one in many]
    in_use = [check_fence(one.fence(number), NETWORK, roots) for one in many for number in (2, 3)]
    full = FenceSet([*theirs, *in_use])
    assert len(full) == FENCES_KEPT_MAX
    assert {fence.hash for fence in (*theirs, *in_use[1::2])} == set(full.hashes)


def test_no_domain_makes_a_fence_of_another_forgotten_or_young_again() -> None:
    """Goal: how long our members may be away is our domain's to say. Method: ACME rotated 500 and 100 days ago; CUSTOMS comes in with the
    first number and today's date, and then says of a far greater number that it is of long ago."""
    times = (NOW - 900 * 86400, NOW - 500 * 86400, NOW - 100 * 86400)
    first, second, third = (check_fence(ACME.fence(number, time=time), NETWORK, ROOTS) for number, time in enumerate(times, 1))
    for name in range(8):
        # Of the same number: by its hash it may come before or after ACME's first.
        late = check_fence(CUSTOMS.fence(1, time=NOW, name=str(name)), NETWORK, ROOTS)
        backdated = check_fence(CUSTOMS.fence(99, time=0), NETWORK, ROOTS)
        for theirs in ([], [late], [backdated], [late, backdated]):
            known = FenceSet([first, second, third, *theirs])
            forgotten = [known.is_forgotten(fence.value.secret_hash, NOW, RevocationSet()) for fence in (first, second, third)]
            assert forgotten == [True, False, False]
            assert {first.hash, second.hash, third.hash} <= set(known.kept(NOW, RevocationSet()).hashes)


def test_fences_of_a_domain_that_left_are_told_apart() -> None:
    """Goal: what a domain that is out made is not used. Method: two domains' fences, one domain's left."""
    kept: list[CheckedFence] = [*OWN, *FLOOD[:3]]
    assert FenceSet(kept).of_domains({ACME.id}) == FenceSet(OWN)
