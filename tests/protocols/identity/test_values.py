"""Peer ids, member ids, ticket texts, key files, the recovery kit."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import DecodeError, InvalidObject, Reason, UsageError
from protocols.identity.keyfiles import (
    IssuerKey,
    MemberKey,
    NetworkKey,
    NodeKey,
    RootKey,
    is_protected,
    key_file,
    open_key_file,
    seal_key_file,
)
from protocols.identity.kit import domain_root, kit_text, parse_kit, recovery_kit, root_certificate
from protocols.identity.members import member_id
from protocols.identity.peers import peer_id_from_text, peer_id_of, peer_id_text, public_of
from protocols.identity.tickets import Address, Ticket, decode_ticket, encode_ticket, ticket_preshared_key
from tests.protocols.identity.people import ACME, NETWORK, NOW, seed

# --- peer ids -----------------------------------------------------------------------------------------------------


@given(st.binary(min_size=32, max_size=32))
def test_peer_id_goes_to_text_and_back(public: bytes) -> None:
    """Goal: one text per key. Method: there and back."""
    peer_id = peer_id_of(public)
    assert public_of(peer_id) == public
    assert peer_id_from_text(peer_id_text(peer_id)) == peer_id
    assert peer_id_text(peer_id).startswith("12D3Koo")


@pytest.mark.parametrize("text", ["", "1", "0", "12D3KooW", "l" * 52, "Qm" * 23, "1" + peer_id_text(peer_id_of(bytes(32))), "é"])
def test_text_that_is_no_ed25519_peer_id_is_refused(text: str) -> None:
    """Goal: nothing but DecodeError. Method: other lengths, characters, kinds of peer ids."""
    with pytest.raises(DecodeError):
        peer_id_from_text(text)


def test_member_id_depends_on_both_parts_and_hides_the_person() -> None:
    """Goal: IDN-03. Method: other id, other salt, and the same person in another domain with another salt."""
    ids = {member_id(real, salt) for real in (b"alice", b"bob") for salt in (bytes(32), seed("salt"))}
    assert len(ids) == 4
    assert all(len(one) == 32 and b"alice" not in one for one in ids)


# --- tickets ------------------------------------------------------------------------------------------------------

TICKET = Ticket(
    format=1,
    suite=1,
    network_id=NETWORK,
    addresses=(Address(peer_id=ACME.member().node().peer_id, multiaddr="/ip4/192.168.1.7/tcp/4001"),),
    domain_id=ACME.id,
    issuer_chain=ACME.issuer().chain,
    ticket_id=seed("id")[:16],
    join_secret=seed("join"),
    token=seed("token")[:16],
    expires=NOW,
    role="member",
    holder_only=False,
)


def test_ticket_goes_to_text_and_back_also_when_wrapped_by_a_mail_program() -> None:
    """Goal: what people do to a text does no harm. Method: line breaks and blanks around and inside."""
    text = encode_ticket(TICKET)
    assert text.startswith("lading1")
    wrapped = "\n  " + "\r\n ".join(text[i : i + 60] for i in range(0, len(text), 60)) + "\n"
    assert decode_ticket(text) == decode_ticket(wrapped) == TICKET
    assert len(ticket_preshared_key(TICKET)) == 32
    assert TICKET.join_secret.hex() not in repr(TICKET)
    assert repr(TICKET.token) not in repr(TICKET)


@given(st.data())
def test_altered_ticket_is_refused_as_altered(data: st.DataObject) -> None:
    """Goal: every slip is found. Method: change, drop or double one character."""
    text = encode_ticket(TICKET)
    place = data.draw(st.integers(0, len(text) - 1))
    char = data.draw(st.sampled_from("ABCxyz019-_=+/é ").filter(lambda char: char not in (text[place], " ")))
    before, after = text[:place], text[place + 1 :]
    changed, dropped, doubled = before + char + after, before + after, before + text[place] * 2 + after
    altered = data.draw(st.sampled_from([changed, dropped, doubled]))
    with pytest.raises(DecodeError) as caught:
        decode_ticket(altered)
    assert caught.value.reason is Reason.TICKET_ALTERED


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"format": 2}, Reason.UNKNOWN_FORMAT),
        ({"role": "boss"}, Reason.TICKET_ALTERED),
        ({"join_secret": b"short"}, Reason.TICKET_ALTERED),
        ({"expires": -1}, Reason.TICKET_ALTERED),
        ({"addresses": (Address(peer_id=b"", multiaddr="tcp"),)}, Reason.TICKET_ALTERED),
        ({"issuer_chain": (b"",) * 4}, Reason.TICKET_ALTERED),
    ],
)
def test_ticket_out_of_range_is_refused(change: dict[str, object], reason: Reason) -> None:
    """Goal: a right checksum is not enough. Method: one part out of range at a time."""
    with pytest.raises(DecodeError) as caught:
        decode_ticket(encode_ticket(msgspec.structs.replace(TICKET, **change)))
    assert caught.value.reason is reason


@given(st.text(max_size=60) | st.binary(max_size=60).map(lambda data: "lading1" + data.hex()))
def test_noise_is_no_ticket(text: str) -> None:
    """Goal: nothing but DecodeError(TICKET_ALTERED). Method: any text."""
    with pytest.raises(DecodeError) as caught:
        decode_ticket(text)
    assert caught.value.reason is Reason.TICKET_ALTERED


# --- key files ----------------------------------------------------------------------------------------------------

CONTENTS = [
    RootKey(seed=seed("r"), certificate=ACME.root),
    IssuerKey(seed=seed("i"), hpke_seed=seed("ih"), chain=ACME.issuer().chain),
    MemberKey(seed=seed("m"), hpke_seed=seed("mh"), root_secret=seed("rs"), real_id=b"A-17", salt=seed("s"), chain=()),
    NodeKey(seed=seed("n"), chain=ACME.member().node().chain),
    NetworkKey(id=NETWORK, name="port", roots=(ACME.root,), fences=(ACME.fence(1),)),
]
SALT, NONCE = bytes(16), bytes(12)
COST = 16


@pytest.mark.parametrize("content", CONTENTS, ids=lambda content: type(content).__name__)
@pytest.mark.parametrize("passphrase", [b"correct horse", None])
def test_key_file_opens_to_what_was_sealed(content: RootKey, passphrase: bytes | None) -> None:
    """Goal: every kind, protected or not. Method: there and back; the secret is not in a protected file, nor in any repr."""
    data = seal_key_file(key_file(content), passphrase, salt=SALT, nonce=NONCE, cost=COST)
    assert open_key_file(data, passphrase).content == content
    assert is_protected(data) is (passphrase is not None)
    secrets = [value for value in msgspec.structs.astuple(content) if isinstance(value, bytes) and len(value) == 32 and value != NETWORK]
    for secret in secrets:
        assert (secret in data) is (passphrase is None)
        assert repr(secret) not in repr(key_file(content))


def test_wrong_or_missing_passphrase_is_told_from_damage() -> None:
    """Goal: people know what to do. Method: wrong, missing, empty passphrase; one flipped byte anywhere."""
    data = seal_key_file(key_file(CONTENTS[0]), b"right", salt=SALT, nonce=NONCE, cost=COST)
    for passphrase in (b"wrong", None, b""):
        with pytest.raises(InvalidObject) as caught:
            open_key_file(data, passphrase)
        assert caught.value.reason is Reason.WRONG_PASSPHRASE
    for place in range(0, len(data), 7):
        with pytest.raises(InvalidObject) as caught:
            open_key_file(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :], b"right")
        assert caught.value.reason is Reason.INTEGRITY
    with pytest.raises(UsageError):
        seal_key_file(key_file(CONTENTS[0]), b"", salt=SALT, nonce=NONCE, cost=COST)


@given(st.binary(max_size=200))
def test_noise_is_no_key_file(data: bytes) -> None:
    """Goal: nothing but InvalidObject(INTEGRITY), and no great memory. Method: any bytes."""
    with pytest.raises(InvalidObject) as caught:
        open_key_file(data, b"x")
    assert caught.value.reason is Reason.INTEGRITY


# --- recovery kit -------------------------------------------------------------------------------------------------

KIT = recovery_kit(
    network_id=NETWORK,
    domain=domain_root(ACME.key.seed, ACME.root),
    member_name="Zoë",
    member_seed=seed("m"),
    hpke_seed=seed("h"),
    root_secret=seed("r"),
    real_id=b"A-17",
    salt=seed("s"),
)


def code_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line[:2].isdigit()]


def test_kit_goes_to_paper_and_back_and_rebuilds_the_root() -> None:
    """Goal: all disks gone, domain refounded. Method: print, parse, make the root certificate again."""
    for kit in (KIT, msgspec.structs.replace(KIT, domain=None)):
        assert parse_kit(kit_text(kit)) == kit
    assert KIT.domain is not None
    assert root_certificate(KIT.domain) == ACME.root
    with pytest.raises(InvalidObject) as caught:
        root_certificate(msgspec.structs.replace(KIT.domain, seed=seed("other")))
    assert caught.value.reason is Reason.INTEGRITY


def test_kit_typed_in_by_hand_is_read() -> None:
    """Goal: forgiving where nothing is lost. Method: lower case, no blanks, lines shuffled, 0 for O, 1 for I, 8 for B."""
    lines = code_lines(kit_text(KIT))
    typed = []
    for line in reversed(lines):
        number, rest = line.split(":")
        typed.append(number + ": " + rest.replace(" ", "").translate(str.maketrans("OIB", "018")).lower())
    assert parse_kit("\n".join(typed)) == KIT


def test_slip_of_the_hand_is_named_by_its_line() -> None:
    """Goal: find the line, not the page. Method: one character wrong; a line missing; two lines changed over; nothing at all."""
    text = kit_text(KIT)
    lines = code_lines(text)
    wrong = "B" if lines[4][5] == "A" else "A"
    slips = {
        "line 05": text.replace(lines[4], lines[4][:5] + wrong + lines[4][6:]),
        "line 03": text.replace(lines[2], ""),
        "line 01": "",
        "line 02": text.replace(lines[1], "02" + lines[2][2:]),
    }
    for name, slip in slips.items():
        with pytest.raises(DecodeError) as caught:
            parse_kit(slip)
        assert caught.value.reason is Reason.MALFORMED
        assert name in caught.value.message
    with pytest.raises(DecodeError) as caught:
        parse_kit(text.replace(lines[-1], ""))
    assert caught.value.reason is Reason.INTEGRITY
