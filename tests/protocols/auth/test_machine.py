"""Stories of two nodes that meet: what they learn, what they refuse, and that nothing is shown before its time."""

from __future__ import annotations

import msgspec
import pytest

from protocols.auth.machine import AuthMachine, AuthState, Ended, Failed, LearnedFences, LearnedRevocations, Proven, Tick, ToldTime
from protocols.auth.messages import Difference, Fences, Hello, Known, Proof, Refusal
from protocols.effects import Close, Send
from protocols.errors import Reason, RemoteError
from protocols.identity.attested import KnownFence
from protocols.identity.fences import FenceSet, check_fence
from protocols.identity.revocation import RevocationKind, RevocationSet, check_revocation
from protocols.limits import AUTH_TIMEOUT_S, FENCE_LIFETIME_S, FENCES_KEPT_MAX
from protocols.registry import encode_message
from tests.protocols.auth.pairs import (
    ALICE,
    BOB,
    FIRST_FENCE,
    NAS,
    PI,
    ROOTS,
    answerer,
    converse,
    dialler,
    fence_id,
    only,
    outcome,
    revoked,
    sent,
)
from tests.protocols.identity.people import ACME, CUSTOMS, NETWORK, NOW, YEAR, found, seed

GONE = ACME.member("Gone")
SERVER = ACME.member("Carol").node("server")


def with_fences(*fences: KnownFence) -> FenceSet:
    return FIRST_FENCE.with_checked(check_fence(known, NETWORK, ROOTS) for known in fences)


def test_two_honest_nodes_prove_each_other_in_two_messages() -> None:
    """Goal: the plain case. Method: two domains of one network, equal sets; each learns the other's identity, version, features."""
    left, right = converse(dialler(features=("relay", "http")), answerer(versions=(2, 5), features=("relay", "gossip")))
    for effects, peer in ((left, NAS), (right, PI)):
        proven = only(effects, Proven)
        assert proven.identity.peer_id == peer.peer_id
        assert (proven.version, proven.features, proven.current, proven.peer_fence_number) == (3, ("relay",), True, 1)
        assert [type(effect.message) for effect in effects if isinstance(effect, Send)] == [Hello, Proof]


def test_versions_without_overlap_are_refused_naming_both_ranges() -> None:
    """Goal: E-VERSION tells people which side is old. Method: 1..3 meets 4..5."""
    left, right = converse(dialler(), answerer(versions=(4, 5)))
    for effects in (left, right):
        failed = outcome(effects)
        assert isinstance(failed, Failed)
        assert failed.reason is Reason.VERSION
        assert all(number in failed.text for number in "1345")


def failure_of(left: AuthMachine, right: AuthMachine) -> tuple[Reason, Reason]:
    """Reasons that the dialler and the answerer end with."""
    ends = [outcome(effects) for effects in converse(left, right)]
    assert all(isinstance(end, Failed) for end in ends)
    return ends[0].reason, ends[1].reason  # type: ignore[union-attr]


def test_bad_identities_are_refused_and_the_reason_reaches_the_peer() -> None:
    """Goal: every check of the chain counts. Method: one answerer for each thing that may be wrong with it."""
    expired = CUSTOMS.member("Bob", ends=NOW - 1).node("nas")
    future = CUSTOMS.member("Bob", issued=NOW + 10).node("nas")
    stranger = found("STRANGERS").member("Eve").node("eve")
    cases = [
        (answerer(expired), Reason.CERTIFICATE_EXPIRED),
        (answerer(future), Reason.CERTIFICATE_NOT_YET_VALID),
        (answerer(chain=NAS.chain[1:]), Reason.BAD_CERTIFICATE),
        (answerer(chain=(SERVER.certificate, *NAS.chain[1:])), Reason.BAD_CERTIFICATE),
        (answerer(SERVER, key=NAS.key), Reason.WRONG_PEER),
        (answerer(stranger), Reason.WRONG_DOMAIN),
    ]
    for right, reason in cases:
        assert failure_of(dialler(), right)[0] is reason


def test_not_yet_valid_certificate_passes_while_our_clock_is_unsafe() -> None:
    """Goal: a board that boots in the past gets in. Method: both certificates of the future, the dialler's clock unsafe."""
    left, _ = converse(dialler(now=NOW - 2 * YEAR, clock_unsafe=True), answerer())
    assert isinstance(outcome(left), Proven)
    assert failure_of(dialler(now=NOW - 2 * YEAR), answerer())[0] is Reason.CERTIFICATE_NOT_YET_VALID


def test_time_of_a_proven_peer_is_told_when_it_calls_its_clock_safe() -> None:
    """Goal: only a machine's own time counts, not the floor's and not what others agreed on. Method: each kind of clock."""
    left, _ = converse(dialler(), answerer(now=NOW + 7))
    assert only(left, ToldTime) == ToldTime(BOB.id, NOW + 7, CUSTOMS.id)
    for clock in ({"clock_unsafe": True}, {"clock_agreed": True}):
        left, right = converse(dialler(), answerer(now=NOW + 7, **clock))
        assert isinstance(outcome(left), Proven)
        assert not any(isinstance(effect, ToldTime) for effect in left)
        assert only(right, ToldTime).member == ALICE.id


def test_time_at_which_the_peers_own_certificates_do_not_hold_is_not_told() -> None:
    """Goal: nobody says a time that no issuer has vouched for. Method: a liar far ahead and far back, its certificates those of today."""
    for lie in (NOW + 30 * YEAR, NOW - 30 * YEAR):
        left = dialler()
        right = answerer()
        right._hello = msgspec.structs.replace(right._hello, time=lie)
        left_effects, _ = converse(left, right)
        assert isinstance(outcome(left_effects), Proven)
        assert not any(isinstance(effect, ToldTime) for effect in left_effects)


def test_peer_out_of_time_by_our_clock_tells_its_own_before_it_is_refused() -> None:
    """Goal: a clock set years ahead hears that it is. Method: the dialler's is; the answerer's certificates have ended by it. The time
    is told only behind the peer's proof, and not at all by one whose certificates hold at neither time."""
    left, _ = converse(dialler(now=NOW + 14 * YEAR), answerer())
    kinds = [type(effect) for effect in left if not isinstance(effect, Send)]
    assert kinds == [ToldTime, Failed, Close]
    assert only(left, ToldTime) == ToldTime(BOB.id, NOW, CUSTOMS.id)
    assert only(left, Failed).reason is Reason.CERTIFICATE_EXPIRED
    forged, _ = converse(dialler(now=NOW + 14 * YEAR), answerer(key=SERVER.key))
    assert only(forged, Failed).reason is Reason.BAD_SIGNATURE
    assert not any(isinstance(effect, ToldTime) for effect in forged)
    ended = CUSTOMS.member("Bob", ends=NOW - 1).node("nas")
    at_once, _ = converse(dialler(), answerer(ended))
    assert not any(isinstance(effect, Send) and isinstance(effect.message, Proof) for effect in at_once)


def test_proof_without_the_node_key_is_refused() -> None:
    """Goal: a chain alone opens nothing. Method: the right chain, another key behind it."""
    left, _ = converse(dialler(), answerer(key=SERVER.key))
    assert outcome(left) == Failed(Reason.BAD_SIGNATURE, "signature does not match")


def test_proof_is_bound_to_the_connection() -> None:
    """Goal: nobody in the middle can pass proofs between two connections. Method: two handshake hashes."""
    assert failure_of(dialler(), answerer(handshake_hash=seed("another"))) == (Reason.BAD_SIGNATURE, Reason.BAD_SIGNATURE)


@pytest.mark.parametrize(
    "change",
    [
        {"features": ()},
        {"version_min": 3},
        {"nonce": bytes(32)},
        {"revocations": bytes(32)},
        {"fences": bytes(32)},
        {"fence_number": 9},
        {"time": NOW + 60},
        {"clock_safe": False},
    ],
)
def test_hello_altered_on_the_way_breaks_the_proof(change: dict[str, object]) -> None:
    """Goal: everything said so far is signed. Method: change one field of the answerer's Hello in transit."""
    left, right = dialler(), answerer()
    hello, theirs = sent(left.start(0.0), Hello), sent(right.start(0.0), Hello)
    left.step(msgspec.structs.replace(theirs, **change), 0.0)
    proof = sent(right.step(hello, 0.0), Proof)
    assert only(left.step(proof, 0.0), Failed).reason is Reason.BAD_SIGNATURE


def test_our_own_words_are_not_taken_for_the_peers() -> None:
    """Goal: no reflection. Method: our Hello back; our Hello with the other role; our Proof back after an honest Hello."""
    left = dialler()
    hello = sent(left.start(0.0), Hello)
    assert only(left.step(hello, 0.0), Failed).reason is Reason.REFLECTED
    left = dialler()
    left.start(0.0)
    assert only(left.step(msgspec.structs.replace(hello, role=2), 0.0), Failed).reason is Reason.REFLECTED
    left, right = dialler(), answerer()
    left.start(0.0)
    proof = sent(left.step(sent(right.start(0.0), Hello), 0.0), Proof)
    assert only(left.step(proof, 0.0), Failed).reason is Reason.BAD_SIGNATURE


def test_replayed_conversation_is_worth_nothing() -> None:
    """Goal: a proof serves once. Method: record the answerer's words, play them to the same dialler under a new nonce."""
    left, right = dialler(), answerer()
    hello, theirs = sent(left.start(0.0), Hello), sent(right.start(0.0), Hello)
    proof = sent(right.step(hello, 0.0), Proof)
    again = dialler(nonce=seed("new nonce"))
    again.start(0.0)
    again.step(theirs, 0.0)
    assert only(again.step(proof, 0.0), Failed).reason is Reason.BAD_SIGNATURE


def test_revocations_that_differ_are_exchanged_both_ways_before_anyone_is_proven() -> None:
    """Goal: both know the union afterwards. Method: one entry on each side, one on both."""
    shared = ACME.revoke(RevocationKind.MEMBER, GONE.id)
    mine = ACME.revoke(RevocationKind.MEMBER, seed("mine"), by=ACME.issuer())
    yours = CUSTOMS.revoke(RevocationKind.CERTIFICATE, seed("yours")[:16])
    left, right = converse(dialler(revocations=revoked(shared, mine)), answerer(revocations=revoked(shared, yours)))
    for effects, new in ((left, yours), (right, mine)):
        assert [entry.attested for entry in only(effects, LearnedRevocations).revocations] == [new]
        kinds = [type(effect) for effect in effects if not isinstance(effect, Send)]
        assert kinds == [LearnedRevocations, ToldTime, Proven]


def test_many_revocations_travel_in_frames_that_an_unproven_peer_may_send() -> None:
    """Goal: paging. Method: 1200 known here and 60 there; ``converse`` checks each frame's size."""
    issuer = CUSTOMS.issuer()
    here = revoked(*(CUSTOMS.revoke(RevocationKind.MEMBER, seed("x", i), by=issuer) for i in range(600)))
    there = revoked(*(ACME.revoke(RevocationKind.CERTIFICATE, seed("y", i)[:16]) for i in range(60)))
    left, right = converse(dialler(revocations=here), answerer(revocations=there))
    assert sum(len(effect.revocations) for effect in left if isinstance(effect, LearnedRevocations)) == 60
    assert sum(len(effect.revocations) for effect in right if isinstance(effect, LearnedRevocations)) == 600
    assert len([e for e in left if isinstance(e, Send) and isinstance(e.message, Known)]) == 2
    assert len([e for e in left if isinstance(e, Send) and isinstance(e.message, Difference)]) > 10
    assert isinstance(outcome(left), Proven)


def test_peer_that_is_revoked_is_refused_and_hears_why() -> None:
    """Goal: who is out is out, on both sides. Method: the dialler knows Bob's revocation."""
    left, right = converse(dialler(revocations=revoked(CUSTOMS.revoke(RevocationKind.MEMBER, BOB.id))), answerer())
    refused, told = outcome(left), outcome(right)
    assert isinstance(refused, Failed)
    assert isinstance(told, Failed)
    assert (refused.reason, refused.by_peer, told.reason, told.by_peer) == (Reason.REVOKED, False, Reason.REVOKED, True)


def test_peer_that_brings_its_own_revocation_is_refused_and_the_entry_is_kept() -> None:
    """Goal: what is learnt is not lost with the peer. Method: the answerer itself knows that Bob is out, the dialler does not."""
    entry = CUSTOMS.revoke(RevocationKind.MEMBER, BOB.id)
    left, _ = converse(dialler(), answerer(revocations=revoked(entry)))
    assert [learned.attested for learned in only(left, LearnedRevocations).revocations] == [entry]
    end = outcome(left)
    assert isinstance(end, Failed)
    assert end.reason is Reason.REVOKED


def test_fences_reach_a_peer_that_was_away_and_the_connection_is_not_current() -> None:
    """Goal: a member away for a year comes home. Method: connected under fence 1, the answerer knows fence 2 too."""
    newer = ACME.fence(2, by=ACME.issuer())
    left, right = converse(dialler(), answerer(fences=with_fences(newer)))
    assert [fence.known for fence in only(left, LearnedFences).fences] == [newer]
    assert not any(isinstance(effect, LearnedFences) for effect in right)
    assert [only(effects, Proven).current for effects in (left, right)] == [False, False]
    assert [only(effects, Proven).peer_fence_number for effects in (left, right)] == [2, 1]
    assert fence_id(with_fences(newer)) != fence_id(FIRST_FENCE)


def test_halves_that_rotated_apart_agree_on_the_greatest_fence() -> None:
    """Goal: both accept both, and dial with the same. Method: two fences of one number; then the connection under the greater."""
    a, b = with_fences(ACME.fence(2, name="a")), with_fences(ACME.fence(2, name="b"))
    both = a.merge(b)
    for connection, current in ((fence_id(a), fence_id(both) == fence_id(a)), (fence_id(b), fence_id(both) == fence_id(b))):
        left, right = converse(dialler(fences=a, connection_fence=connection), answerer(fences=b, connection_fence=connection))
        assert [only(effects, Proven).current for effects in (left, right)] == [current, current]


def test_member_that_knows_only_forgotten_fences_is_told_to_take_a_new_ticket_but_a_restored_founder_is_let_in() -> None:
    """Goal: 400 days bound what an old secret opens; the root's own, recent signature opens it all the same. Method: the connection stands
    under the founding fence, replaced 401 days ago; first a member of an old issuer dials, then one whose issuer the root has just made."""
    rotated = NOW - FENCE_LIFETIME_S - 86400
    known = with_fences(ACME.fence(1, time=NOW - 2 * YEAR), ACME.fence(2, by=ACME.issuer(), time=rotated))
    founding = with_fences(ACME.fence(1, time=NOW - 2 * YEAR))
    under = {"connection_fence": fence_id(founding)}
    left, _ = converse(dialler(fences=founding, **under), answerer(fences=known, **under))
    failed = only(left, Failed)
    assert (failed.reason, failed.by_peer) == (Reason.AWAY_TOO_LONG, True)
    assert "new ticket" in failed.text
    assert not any(isinstance(effect, LearnedFences) for effect in left)
    # The same when those who stayed dial the one who was away.
    left, right = converse(dialler(fences=known, **under), answerer(fences=founding, **under))
    assert not only(left, Failed).by_peer
    assert (only(right, Failed).reason, only(right, Failed).by_peer) == (Reason.AWAY_TOO_LONG, True)
    founder = ACME.member("Founder", issuer=ACME.issuer(3, issued=NOW - 100), issued=NOW - 100).node("again", issued=NOW - 100)
    left, right = converse(dialler(founder, fences=founding, **under), answerer(peer=founder, fences=known, **under))
    assert [only(effects, Proven).current for effects in (left, right)] == [False, False]
    assert [fence.value.number for fence in only(left, LearnedFences).fences] == [2]


def test_fences_are_not_shown_to_a_peer_that_turns_out_to_be_revoked() -> None:
    """Goal: secrets leave only after the revocations are settled. Method: the answerer brings its own revocation and an old fence."""
    left, _ = converse(
        dialler(fences=with_fences(ACME.fence(2))), answerer(revocations=revoked(CUSTOMS.revoke(RevocationKind.MEMBER, BOB.id)))
    )
    assert not any(isinstance(effect, Send) and isinstance(effect.message, Fences) for effect in left)


def test_fence_of_a_revoked_issuer_beyond_its_cutoff_is_not_learnt() -> None:
    """Goal: a stolen issuing key cannot fence the network in. Method: the same exchange cuts the issuer off and brings its fence."""
    issuer = ACME.issuer()
    cut = revoked(ACME.revoke(RevocationKind.ISSUER, issuer.serial, cutoff=NOW - 50))
    fences = with_fences(ACME.fence(7, by=issuer, time=NOW - 10), ACME.fence(6, by=issuer, time=NOW - 90))
    left, _ = converse(dialler(SERVER, revocations=cut), answerer(peer=SERVER, fences=fences))
    assert [fence.value.number for fence in only(left, LearnedFences).fences] == [6]


def test_entries_of_domains_that_we_do_not_know_are_passed_over() -> None:
    """Goal: other people's domains do no harm. Method: the answerer knows a third domain's revocation and fence."""
    third = found("THIRD")
    theirs = ROOTS | third.roots
    entries = RevocationSet([check_revocation(third.revoke(RevocationKind.MEMBER, bytes(32)), NETWORK, theirs)])
    fences = FIRST_FENCE.with_checked([check_fence(third.fence(9), NETWORK, theirs)])
    left, right = converse(dialler(), answerer(revocations=entries, fences=fences, roots=theirs))
    assert isinstance(outcome(left), Proven)
    assert isinstance(outcome(right), Proven)
    assert not any(isinstance(effect, LearnedRevocations | LearnedFences) for effect in left)
    # What would tell of that domain is said on a proven connection only: its fence must not keep the two apart.
    assert [only(effects, Proven).current for effects in (left, right)] == [True, True]
    left, right = converse(dialler(roots=theirs), answerer(fences=fences, roots=theirs))
    assert [fence.value.number for fence in only(left, LearnedFences).fences] == [9]
    assert [only(effects, Proven).current for effects in (left, right)] == [False, True]
    both = [dialler(roots=theirs, fences=fences), answerer(roots=theirs, fences=fences)]
    assert [only(effects, Proven).current for effects in converse(*both)] == [False, False]


def exchanging(**ours: object) -> AuthMachine:
    """A dialler that has proven its peer and is about to take Known parts."""
    left = dialler(**ours)
    right = answerer(revocations=revoked(ACME.revoke(RevocationKind.MEMBER, GONE.id)), fences=with_fences(ACME.fence(3)))
    hello = sent(left.start(0.0), Hello)
    left.step(sent(right.start(0.0), Hello), 0.0)
    left.step(sent(right.step(hello, 0.0), Proof), 1.0)
    assert left.state is AuthState.SAID_KNOWN
    return left


def refused_with(machine: AuthMachine, *messages: object) -> Reason:
    """Reason that the last of the messages is refused with."""
    *before, last = messages
    for message in before:
        assert not any(isinstance(effect, Failed) for effect in machine.step(message, 2.0))
    effects = machine.step(last, 2.0)
    failed = only(effects, Failed)
    assert sent(effects, Refusal).reason == failed.reason.stable_name
    assert isinstance(effects[-1], Close)
    assert machine.wake_at() is None
    return failed.reason


def test_parts_that_make_no_progress_or_no_sense_are_refused() -> None:
    """Goal: nobody can keep us busy. Method: empty, falling, repeated, short hashes; empty differences; too many fences."""
    one, two = b"\1" * 32, b"\2" * 32
    assert refused_with(exchanging(), Known(revocations=(), final=False)) is Reason.MALFORMED
    assert refused_with(exchanging(), Known(revocations=(two, one), final=True)) is Reason.MALFORMED
    assert refused_with(exchanging(), Known(revocations=(one,), final=False), Known(revocations=(one,), final=True)) is Reason.MALFORMED
    assert refused_with(exchanging(), Known(revocations=(one[1:],), final=True)) is Reason.MALFORMED
    known = Known(revocations=(), final=True)
    assert refused_with(exchanging(), known, Difference(revocations=(), final=False)) is Reason.MALFORMED
    done = Difference(revocations=(), final=True)
    flood = Fences(fences=(ACME.fence(1),) * (FENCES_KEPT_MAX + 1), final=True)
    assert refused_with(exchanging(), known, done, flood) is Reason.FLOOD


def test_too_many_hashes_are_a_flood() -> None:
    """Goal: the bound on sets holds for what a peer claims. Method: parts until the bound is passed."""
    machine = exchanging()
    number = 0
    reason = None
    while reason is None:
        part = tuple((number + i).to_bytes(32, "big") for i in range(900))
        number += len(part)
        failed = [e for e in machine.step(Known(revocations=part, final=False), 2.0) if isinstance(e, Failed)]
        reason = failed[0].reason if failed else None
    assert reason is Reason.FLOOD
    assert 16384 < number <= 16384 + 900


def test_forged_entries_are_refused_with_their_reason() -> None:
    """Goal: nothing unsigned is merged. Method: a member revoking a member; a fence with another secret; a foreign signature."""
    known, done = Known(revocations=(), final=True), Difference(revocations=(), final=True)
    overreach = ACME.revoke(RevocationKind.MEMBER, GONE.id, by=ALICE)
    assert refused_with(exchanging(), known, Difference(revocations=(overreach,), final=True)) is Reason.REFUSED
    entry = ACME.revoke(RevocationKind.MEMBER, GONE.id)
    forged = msgspec.structs.replace(entry, envelope=msgspec.structs.replace(entry.envelope, signature=bytes(64)))
    assert refused_with(exchanging(), known, Difference(revocations=(forged,), final=True)) is Reason.BAD_SIGNATURE
    other_secret = KnownFence(attested=ACME.fence(4).attested, secret=bytes(32))
    assert refused_with(exchanging(), known, done, Fences(fences=(other_secret,), final=True)) is Reason.INTEGRITY


@pytest.mark.parametrize("silent_after", [0, 1])
def test_silent_peer_is_dropped_at_the_time_limit(silent_after: int) -> None:
    """Goal: the limit is asked for and kept. Method: a Tick just before and at ``wake_at``, with and without the peer's Hello."""
    left, right = dialler(), answerer()
    left.start(5.0)
    if silent_after:
        left.step(sent(right.start(0.0), Hello), 9.0)
    assert left.wake_at() == 5.0 + AUTH_TIMEOUT_S
    assert left.step(Tick(), 5.0 + AUTH_TIMEOUT_S - 0.001) == ()
    assert refused_with_tick(left, 5.0 + AUTH_TIMEOUT_S) is Reason.TIMEOUT


def test_exchange_after_the_proof_has_its_own_limit() -> None:
    """Goal: long differences are given time, once. Method: the proof came at 1 s."""
    machine = exchanging()
    assert machine.wake_at() == 1.0 + AUTH_TIMEOUT_S
    machine.step(Known(revocations=(), final=True), 8.0)
    assert machine.wake_at() == 1.0 + AUTH_TIMEOUT_S
    assert refused_with_tick(machine, 12.0) is Reason.TIMEOUT


def refused_with_tick(machine: AuthMachine, now_s: float) -> Reason:
    return only(machine.step(Tick(), now_s), Failed).reason


def test_end_of_the_stream_before_the_proof_is_a_failure_and_after_it_is_not() -> None:
    """Goal: a vanished peer is told from a finished one. Method: Ended in the middle and at the end."""
    left = dialler()
    left.start(0.0)
    assert only(left.step(Ended(), 0.0), Failed).reason is Reason.TRUNCATED
    left, right = dialler(), answerer()
    converse(left, right)
    assert left.step(Ended(), 0.0) == ()
    assert left.state is AuthState.PROVEN


def test_unknown_reason_and_endless_text_of_a_refusal_are_tamed() -> None:
    """Goal: the peer's words do not become ours. Method: a reason that we do not have and a long text."""
    left = dialler()
    left.start(0.0)
    failed = only(left.step(Refusal(reason="E-NONSENSE", text="x" * 10_000), 0.0), Failed)
    assert (failed.reason, failed.by_peer, len(failed.text)) == (Reason.REFUSED, True, 500)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, Reason.UNKNOWN_FORMAT),
        ({"suite": 2}, Reason.UNKNOWN_FORMAT),
        ({"role": 1}, Reason.REFLECTED),
        ({"role": 3}, Reason.REFLECTED),
        ({"nonce": b""}, Reason.MALFORMED),
        ({"version_min": 0}, Reason.MALFORMED),
        ({"version_min": 4}, Reason.MALFORMED),
        ({"fence_number": -1}, Reason.MALFORMED),
        ({"time": -1}, Reason.MALFORMED),
        ({"revocations": b""}, Reason.MALFORMED),
        ({"features": ("b", "a")}, Reason.MALFORMED),
        ({"features": ("a" * 33,)}, Reason.MALFORMED),
        ({"features": tuple(f"f{i:02d}" for i in range(33))}, Reason.MALFORMED),
        ({"chain": ()}, Reason.BAD_CERTIFICATE),
    ],
)
def test_hello_out_of_range_is_refused(change: dict[str, object], reason: Reason) -> None:
    """Goal: each field has its range. Method: one field wrong at a time."""
    left = dialler()
    left.start(0.0)
    hello = sent(answerer().start(0.0), Hello)
    assert only(left.step(msgspec.structs.replace(hello, **change), 0.0), Failed).reason is reason


def test_secrets_do_not_stand_in_the_machines_words() -> None:
    """Goal: no private key leaves. Method: look for the seed in every frame of a long conversation."""
    left, right = converse(dialler(fences=with_fences(ACME.fence(2))), answerer())
    frames = b"".join(encode_message("auth", e.message) for e in (*left, *right) if isinstance(e, Send))
    assert PI.key.seed not in frames
    assert NAS.key.seed not in frames
    assert ACME.fence(2).secret in frames  # the check would see a secret if there was one


def test_message_out_of_order_is_the_peers_violation() -> None:
    """Goal: what the table does not name is refused. Method: a Proof before the Hello; anything after Proven."""
    left = dialler()
    left.start(0.0)
    with pytest.raises(RemoteError) as caught:
        left.step(Proof(signature=bytes(64)), 0.0)
    assert caught.value.reason is Reason.OUT_OF_ORDER
    left, right = dialler(), answerer()
    converse(left, right)
    with pytest.raises(RemoteError) as caught:
        left.step(Known(revocations=(), final=True), 0.0)
    assert caught.value.reason is Reason.OUT_OF_ORDER
