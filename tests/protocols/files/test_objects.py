"""Signed objects: what is refused and why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codec import Record, encode
from protocols.crypto import FORMAT, SUITE, HpkePrivateKey, Label, SigningKey, sha256
from protocols.errors import DecodeError, InvalidObject, Reason
from protocols.files.holdings import (
    ErasureReceipt,
    Hold,
    Refusal,
    node_key,
    node_peer,
    open_erasure,
    open_hold,
    open_receipt,
    open_refusal,
    open_withdrawal,
    sign_erasure,
    sign_hold,
    sign_receipt,
    sign_refusal,
    sign_withdrawal,
)
from protocols.files.objects import (
    Offer,
    Pin,
    Reaffirm,
    Wrap,
    check_offer_time,
    make_wrap,
    open_offer,
    open_pin,
    open_reaffirm,
    open_statement,
    open_tombstone,
    open_wrap,
    sign_offer,
    sign_pin,
    sign_reaffirm,
    sign_statement,
    sign_tombstone,
    sign_wrap,
    unwrap_key,
    wraps_digest,
)
from protocols.files.precedence import Next
from protocols.files.sequences import sequence_root
from protocols.signed import Signed, sign_object
from protocols.types import Digest, MemberId, NetworkId, PeerId, SequenceRoot, StoreId, UnixSeconds
from tests.protocols.files.records import DOMAIN, HASH_ID, NETWORK, NOW, OWNER, C, build, receipt, root, statement, tombstone, withdrawal

NODE = SigningKey(b"\x07" * 32)
STRANGER = SigningKey(b"\x08" * 32)
STORE = StoreId(b"\x33" * 16)
FIRST = Next(1, b"", ())
SECOND = Next(2, bytes(32), (bytes(32),))


def replaced(value: Record, **changes: object) -> Record:
    return type(value)(**({name: getattr(value, name) for name in value.__struct_fields__} | changes))


def an_offer() -> Offer:
    names = (bytes(sha256(b"1")), bytes(sha256(b"2")))
    return Offer(FORMAT, SUITE, NETWORK, DOMAIN, OWNER.public, bytes(16), sequence_root(names), names, 5000, NOW, UnixSeconds(NOW + 3600))


def a_wrap() -> Wrap:
    built = build({"a": b"x"})
    return make_wrap(
        built.statement(),
        built.record.record_key,
        grantee=MemberId(b"\x55" * 32),
        recipient=HpkePrivateKey(b"\x66" * 32).public,
        ephemeral_seed=b"\x77" * 32,
        time_s=NOW,
    )


def by_node(value: Record) -> Record:
    return replaced(value, holder=node_peer(NODE))


OBJECTS: dict[str, tuple[Record, SigningKey, Label, Callable[[Signed, NetworkId], Record]]] = {
    "statement": (statement(FIRST), OWNER, Label.STATEMENT, open_statement),
    "offer": (an_offer(), OWNER, Label.OFFER, open_offer),
    "wrap": (a_wrap(), OWNER, Label.WRAP, open_wrap),
    "tombstone": (tombstone(SECOND), OWNER, Label.TOMBSTONE, open_tombstone),
    "reaffirm": (
        Reaffirm(FORMAT, SUITE, NETWORK, DOMAIN, OWNER.public, HASH_ID, C, Digest(bytes(32)), STRANGER.public, NOW),
        STRANGER,
        Label.REAFFIRM,
        open_reaffirm,
    ),
    "pin": (
        Pin(FORMAT, SUITE, NETWORK, DOMAIN, STRANGER.public, node_peer(NODE), OWNER.public, HASH_ID, "in", 1, NOW),
        STRANGER,
        Label.PIN,
        open_pin,
    ),
    "hold": (
        Hold(FORMAT, SUITE, NETWORK, Digest(bytes(32)), root("s"), node_peer(NODE), STORE, 1, NOW),
        NODE,
        Label.HOLD,
        open_hold,
    ),
    "receipt": (by_node(receipt("n", ["s", "t"])), NODE, Label.RECEIPT, open_receipt),
    "withdrawal": (by_node(withdrawal("n", ["s"], counter=2)), NODE, Label.WITHDRAWAL, open_withdrawal),
    "erasure": (
        ErasureReceipt(FORMAT, SUITE, NETWORK, node_peer(NODE), STORE, OWNER.public, HASH_ID, Digest(bytes(32)), 5, (bytes(32),), NOW),
        NODE,
        Label.ERASURE,
        open_erasure,
    ),
    "refusal": (
        Refusal(FORMAT, SUITE, NETWORK, node_peer(NODE), Digest(bytes(32)), Reason.FULL.stable_name, NOW, UnixSeconds(NOW + 60)),
        NODE,
        Label.REFUSAL,
        open_refusal,
    ),
}


@pytest.mark.parametrize("name", OBJECTS)
def test_object_is_opened_as_it_was_signed_and_not_otherwise(name: str) -> None:
    """Goal: right signer, label, network, format. Method: the true envelope, then each thing changed."""
    value, key, label, opening = OBJECTS[name]
    signed = sign_object(value, key, label, NETWORK)
    assert opening(signed, NETWORK) == value
    other_label = Label.FENCE
    tries = [
        (Reason.BAD_SIGNATURE, signed, NetworkId(bytes(32))),
        (Reason.BAD_SIGNATURE, Signed(signed.body, signed.signer, bytes(64)), NETWORK),
        (Reason.BAD_SIGNATURE, Signed(signed.body, STRANGER.public if key is not STRANGER else OWNER.public, signed.signature), NETWORK),
        (Reason.BAD_SIGNATURE, sign_object(value, key, other_label, NETWORK), NETWORK),
        (Reason.WRONG_NETWORK, sign_object(replaced(value, network=bytes(32)), key, label, NETWORK), NETWORK),
        (Reason.UNKNOWN_FORMAT, sign_object(replaced(value, format=2), key, label, NETWORK), NETWORK),
        (Reason.UNKNOWN_FORMAT, sign_object(replaced(value, suite=2), key, label, NETWORK), NETWORK),
        (Reason.WRONG_OWNER, sign_object(value, SigningKey(b"\x09" * 32), label, NETWORK), NETWORK),
    ]
    for reason, envelope, network in tries:
        with pytest.raises((InvalidObject, DecodeError)) as error:
            opening(envelope, network)
        assert error.value.reason is reason


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("statement", {"hash_id": bytes(32)}),
        ("statement", {"c": bytes(32)}),
        ("statement", {"seq": 0}),
        ("statement", {"seq": 2}),
        ("statement", {"follows": bytes(32)}),
        ("statement", {"manifest_chunks": 0}),
        ("statement", {"manifest_chunks": 5000}),
        ("statement", {"data_chunks": -1}),
        ("statement", {"chunks_per_sequence": 0}),
        ("statement", {"sealed_bytes": 0}),
        ("statement", {"sealed_bytes": 2**40}),
        ("statement", {"copies_wanted": -1}),
        ("statement", {"redundancy": 1}),
        ("statement", {"codec": 1}),
        ("statement", {"commitment": b"short"}),
        ("statement", {"epoch": 2**63}),
        ("tombstone", {"hash_id": bytes(32)}),
        ("tombstone", {"seq": 1, "follows": b""}),
        ("tombstone", {"follows": b""}),
        ("tombstone", {"covers": (b"\1" * 32, b"\0" * 32)}),
        ("tombstone", {"covers": (b"\0" * 32, b"\0" * 32)}),
        ("tombstone", {"covers": (b"short",)}),
        ("wrap", {"hash_id": bytes(32)}),
        ("wrap", {"sealed_key": b""}),
        ("reaffirm", {"c": bytes(32)}),
        ("offer", {"sequence_root": bytes(32)}),
        ("offer", {"chunk_names": ()}),
        ("offer", {"chunk_names": (b"short",)}),
        ("offer", {"expires_s": NOW + 25 * 3600}),
        ("offer", {"expires_s": NOW - 1}),
        ("offer", {"sealed_bytes": 2**40}),
        ("offer", {"put_id": b""}),
        ("receipt", {"until_s": NOW + 400 * 86400}),
        ("receipt", {"until_s": NOW - 1}),
        ("receipt", {"items": ()}),
        ("receipt", {"items": receipt("n", ["s"]).items * 2}),
        ("receipt", {"items": (replaced(receipt("n", ["s"]).items[0], sequence_roots=(root("s"), root("s"))),)}),
        ("receipt", {"store_id": b""}),
        ("receipt", {"holder": b"\x00" * 38}),
        ("withdrawal", {"items": ()}),
        ("erasure", {"chunks_kept": (b"short",)}),
        ("refusal", {"reason": ""}),
        ("refusal", {"until_s": NOW + 10**7}),
        ("pin", {"node": b""}),
    ],
)
def test_impossible_object_is_refused(name: str, changes: dict[str, object]) -> None:
    """Goal: well signed nonsense changes nothing. Method: one impossible field at a time, correctly signed."""
    value, key, label, opening = OBJECTS[name]
    with pytest.raises((InvalidObject, DecodeError)):
        opening(sign_object(replaced(value, **changes), key, label, NETWORK), NETWORK)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from(sorted(OBJECTS)), st.binary(max_size=300), st.integers(0, 10**6))
def test_any_signed_bytes_give_errors_of_ours_only(name: str, patch: bytes, at: int) -> None:
    """Goal: every decoder is closed. Method: a correctly signed body with a patch somewhere."""
    value, key, label, opening = OBJECTS[name]
    body = encode(value)
    position = at % (len(body) + 1)
    patched = body[:position] + patch + body[position + len(patch) :]
    try:
        opened = opening(Signed(patched, key.public, key.sign(label, NETWORK, patched)), NETWORK)
        assert encode(opened) == patched
    except (InvalidObject, DecodeError):
        pass


def test_signing_helpers_agree_with_opening() -> None:
    """Goal: what the node signs, others open. Method: each helper once, against the envelope made by hand."""
    signers: dict[str, Callable[..., Signed]] = {
        "statement": sign_statement,
        "offer": sign_offer,
        "wrap": sign_wrap,
        "tombstone": sign_tombstone,
        "reaffirm": sign_reaffirm,
        "pin": sign_pin,
        "hold": sign_hold,
        "receipt": sign_receipt,
        "withdrawal": sign_withdrawal,
        "erasure": sign_erasure,
        "refusal": sign_refusal,
    }
    assert signers.keys() == OBJECTS.keys()
    for name, signing in signers.items():
        value, key, label, _ = OBJECTS[name]
        assert signing(value, key) == sign_object(value, key, label, NETWORK)


def test_wrap_opens_for_its_grantee_and_statement_only() -> None:
    """Goal: the record key reaches one grantee, bound to record and epoch. Method: right key, then others and changed wraps."""
    built = build({"a": b"x"})
    wrap = a_wrap()
    private = HpkePrivateKey(b"\x66" * 32)
    assert unwrap_key(wrap, private, built.record.commitment) == built.record.record_key
    for bad in (
        replaced(wrap, epoch=1),
        replaced(wrap, grantee=bytes(32)),
        replaced(wrap, network=bytes(32)),
        replaced(wrap, sealed_key=b"x"),
    ):
        assert isinstance(bad, Wrap)
        with pytest.raises(InvalidObject) as error:
            unwrap_key(bad, private, built.record.commitment)
        assert error.value.reason is Reason.BAD_TAG
    with pytest.raises(InvalidObject) as error:
        unwrap_key(wrap, HpkePrivateKey(bytes(32)), built.record.commitment)
    assert error.value.reason is Reason.BAD_TAG
    with pytest.raises(InvalidObject) as error:
        unwrap_key(wrap, private, bytes(32))
    assert error.value.reason is Reason.NO_KEY


def test_wraps_digest_does_not_depend_on_order() -> None:
    """Goal: two holders with the same wraps say the same. Method: both orders, one twice, one missing."""
    one, two = sign_wrap(a_wrap(), OWNER), Signed(b"x", OWNER.public, bytes(64))
    assert wraps_digest([one, two]) == wraps_digest([two, one, one]) != wraps_digest([one])


def test_offer_has_its_time() -> None:
    """Goal: an old offer authorises nothing, nor one from the far future; one of an owner whose clock is ahead does. Method: around
    its end."""
    offer = an_offer()
    day_s, skew_s = 24 * 3600, 300
    check_offer_time(offer, NOW + 3600 - day_s - skew_s)
    check_offer_time(offer, NOW)
    check_offer_time(offer, NOW + 3600)
    for now, reason in ((NOW + 3601, Reason.EXPIRED), (NOW + 3600 - day_s - skew_s - 1, Reason.CLOCK_UNSAFE)):
        with pytest.raises(InvalidObject) as error:
            check_offer_time(offer, now)
        assert error.value.reason is reason


def test_node_key_is_in_the_peer_id() -> None:
    """Goal: a holder cannot speak for another. Method: there and back, and other kinds of peer ids."""
    assert node_key(node_peer(NODE)) == NODE.public
    for wrong in (b"", bytes(38), node_peer(NODE) + b"x"):
        with pytest.raises(InvalidObject):
            node_key(PeerId(wrong))
    assert SequenceRoot(root("s"))
