"""The chain walk: what it accepts, what it refuses with which reason, and that `openssl` never refuses what it accepts."""

from __future__ import annotations

import datetime
import itertools
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from hypothesis import given
from hypothesis import strategies as st

from protocols.codec import encode
from protocols.crypto import SigningKey
from protocols.errors import InvalidObject, Reason, UsageError
from protocols.identity.certificates import (
    OID_ARC,
    NodeFields,
    is_name,
    make_issuer,
    make_member,
    make_node,
    make_root,
    read_root,
    verify_chain,
    verify_issuer_chain,
    verify_member_chain,
)
from protocols.identity.peers import peer_id_of
from protocols.identity.revocation import RevocationSet
from tests.protocols.identity.people import ACME, CUSTOMS, NOW, YEAR, found, seed

ALICE = ACME.member()
PI = ALICE.node("pi3", weight=7, holder_only=True)
NOBODY_OUT = RevocationSet()
OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="no openssl binary on this machine")


def reason_of(chain: Sequence[bytes], *, now: int = NOW, clock_unsafe: bool = False) -> Reason | None:
    """Our verdict; None: accepted."""
    try:
        verify_chain(chain, ACME.roots, now=now, revocations=NOBODY_OUT, clock_unsafe=clock_unsafe)
    except InvalidObject as error:
        return error.reason
    return None


def pem(der: bytes) -> str:
    return x509.load_der_x509_certificate(der).public_bytes(Encoding.PEM).decode()


def openssl_accepts(folder: Path, chain: Sequence[bytes], *, root: bytes = ACME.root, now: int = NOW) -> bool:
    """Verdict of `openssl verify -x509_strict`."""
    try:
        texts = [pem(der) for der in (root, *chain)]
    except ValueError:  # cannot be read as a certificate at all
        return False
    names = ("root.pem", "node.pem", "middle.pem")
    for name, text in zip(names, (texts[0], texts[1], "".join(texts[2:])), strict=True):
        (folder / name).write_text(text)
    assert OPENSSL is not None
    files = ["-CAfile", "root.pem", "-untrusted", "middle.pem", "node.pem"]
    command = [OPENSSL, "verify", "-x509_strict", "-check_ss_sig", "-no-CApath", "-no-CAstore", "-attime", str(now), *files]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


def test_node_chain_gives_all_that_the_certificates_say() -> None:
    """Goal: nothing is lost on the way. Method: one chain, with and without the root at its end."""
    for chain in (PI.chain, (*PI.chain, ACME.root)):
        node = verify_chain(chain, ACME.roots | CUSTOMS.roots, now=NOW, revocations=NOBODY_OUT)
        assert (node.peer_id, node.node_public, node.host, node.weight) == (PI.peer_id, PI.key.public, "pi3", 7)
        assert node.holder_only
        assert (node.member_id, node.member, node.owner, node.hpke) == (ALICE.id, "Alice", ALICE.key.public, ALICE.hpke.public)
        assert (node.domain_id, node.domain, node.nodes_max, node.weight_total_max) == (ACME.id, "ACME", 4, 100)
        assert (node.not_before, node.not_after) == (NOW - YEAR, NOW + YEAR)
        assert node.serials == (PI.serial, ALICE.serial, ALICE.issuer.serial)


def test_member_and_issuer_chains_are_walked_alike() -> None:
    """Goal: shorter chains prove members and issuers. Method: verify them, then one level too long and too short."""
    member = verify_member_chain(ALICE.chain, ACME.roots, now=NOW, revocations=NOBODY_OUT)
    issuer = verify_issuer_chain(ALICE.issuer.chain, ACME.roots, now=NOW, revocations=NOBODY_OUT)
    assert (member.owner, issuer.public, issuer.hpke) == (ALICE.key.public, ALICE.issuer.key.public, ALICE.issuer.hpke.public)
    for chain, verify in ((PI.chain, verify_member_chain), (ALICE.chain, verify_issuer_chain), ((), verify_issuer_chain)):
        with pytest.raises(InvalidObject) as caught:
            verify(chain, ACME.roots, now=NOW, revocations=NOBODY_OUT)  # type: ignore[operator]
        assert caught.value.reason is Reason.BAD_CERTIFICATE


@pytest.mark.parametrize(
    ("now", "clock_unsafe", "reason"),
    [
        (NOW - YEAR - 1, False, Reason.CERTIFICATE_NOT_YET_VALID),
        (NOW - YEAR - 1, True, None),
        (NOW - YEAR, False, None),
        (NOW + YEAR - 1, False, None),
        (NOW + YEAR, False, Reason.CERTIFICATE_EXPIRED),
        (NOW + YEAR, True, Reason.CERTIFICATE_EXPIRED),
    ],
)
def test_validity_is_half_open_and_an_unsafe_clock_forgives_only_the_future(now: int, clock_unsafe: bool, reason: Reason | None) -> None:
    """Goal: the time rule. Method: one second around each end."""
    assert reason_of(PI.chain, now=now, clock_unsafe=clock_unsafe) is reason


def test_chain_of_an_unknown_domain_or_with_another_root_is_refused() -> None:
    """Goal: only known roots count. Method: a domain we do not know; our chain with a foreign or namesake root at the end."""
    stranger = CUSTOMS.member("Bob").node()
    assert reason_of(stranger.chain) is Reason.WRONG_DOMAIN
    assert reason_of((*PI.chain, CUSTOMS.root)) is Reason.WRONG_DOMAIN
    namesake = make_root(ACME.key, "ACME", serial=bytes(16), not_before=NOW - YEAR, not_after=NOW + YEAR)
    assert reason_of((*PI.chain, namesake)) is Reason.WRONG_DOMAIN


def test_levels_in_another_order_or_number_are_refused() -> None:
    """Goal: each certificate stands on its own level only. Method: every arrangement of up to four of the four."""
    pool = (*PI.chain, ACME.root)
    lawful = {PI.chain, pool}
    for length in range(5):
        for chain in itertools.product(pool, repeat=length):
            assert (reason_of(chain) is None) is (chain in lawful), [pool.index(der) for der in chain]


@pytest.mark.parametrize("name", ["", " x", "x ", "a\nb", "a\0b", "x" * 65, "é" * 33, "\u202ex"])
def test_name_that_cannot_be_shown_is_refused(name: str) -> None:
    """Goal: no empty, long or invisible names. Method: make a root of each."""
    assert not is_name(name)
    with pytest.raises(UsageError):
        make_root(ACME.key, name, serial=bytes(16), not_before=NOW, not_after=NOW + 1)


def test_makers_refuse_what_the_walk_would_refuse() -> None:
    """Goal: we never write a bad certificate. Method: wrong key, reversed times, foreign peer id, negative weight."""
    key = PI.key
    good = {"serial": bytes(16), "not_before": NOW, "not_after": NOW + 1}
    with pytest.raises(UsageError):
        make_issuer(CUSTOMS.key, ACME.root, issuer_public=key.public, hpke_public=bytes(32), **good)  # type: ignore[arg-type]
    with pytest.raises(UsageError):
        make_root(key, "X", serial=bytes(16), not_before=NOW, not_after=NOW)
    for peer_id, weight in ((peer_id_of(ALICE.key.public), 1), (PI.peer_id, -1)):
        with pytest.raises(UsageError):
            make_node(
                ALICE.key,
                ALICE.certificate,
                peer_id=peer_id,
                node_public=key.public,
                host_label="x",
                weight=weight,
                holder_only=False,
                **good,  # type: ignore[arg-type]
            )
    with pytest.raises(UsageError):
        make_member(
            ALICE.issuer.key,
            ALICE.issuer.certificate,
            member_id=bytes(32),
            signing_public=key.public,
            hpke_public=bytes(32),
            name="x",
            nodes_max=0,
            weight_total_max=1,
            **good,  # type: ignore[arg-type]
        )


def test_node_heavier_than_its_member_is_refused() -> None:
    """Goal: the member's bound holds for each node. Method: a weight of one too much."""
    assert reason_of(ALICE.node("a", weight=100).chain) is None
    assert reason_of(ALICE.node("a", weight=101).chain) is Reason.BAD_CERTIFICATE


def test_root_is_made_again_from_what_it_says() -> None:
    """Goal: the recovery kit can rebuild the root. Method: read, make, compare bytes."""
    facts = read_root(ACME.root)
    again = make_root(ACME.key, facts.name, serial=facts.serial, not_before=facts.not_before, not_after=facts.not_after)
    assert again == ACME.root


@given(st.integers(0, 3), st.integers(0, 600), st.integers(1, 255))
def test_flipped_bits_never_pass_and_nothing_but_invalid_object_comes_out(which: int, place: int, mask: int) -> None:
    """Goal: the walk withstands any bytes. Method: flip bits of one byte of one certificate."""
    chain = [*PI.chain, ACME.root]
    der = bytearray(chain[which])
    der[place % len(der)] ^= mask
    chain[which] = bytes(der)
    assert reason_of(chain) in (Reason.BAD_CERTIFICATE, Reason.WRONG_DOMAIN)


@given(st.lists(st.binary(max_size=100), max_size=5))
def test_noise_is_refused_as_bad_certificate(chain: list[bytes]) -> None:
    """Goal: as above. Method: arbitrary bytes, empty ones among them."""
    assert reason_of(chain) is Reason.BAD_CERTIFICATE


# --- against openssl ----------------------------------------------------------------------------------------------

_DAY = datetime.timedelta(days=1)
_AT = datetime.datetime.fromtimestamp(NOW, datetime.UTC)


class Mutant:
    """A certificate written with `cryptography` alone, right unless told otherwise."""

    def __init__(self, level: int, subject_key: bytes, issuer_key: bytes, issuer: bytes | None) -> None:
        self.template = x509.load_der_x509_certificate((*PI.chain, ACME.root)[level])
        self.subject = self.template.subject
        self.issuer = self.template.issuer if issuer is None else x509.load_der_x509_certificate(issuer).subject
        self.key = Ed25519PrivateKey.from_private_bytes(issuer_key)
        self.public: Ed25519PublicKey = Ed25519PrivateKey.from_private_bytes(subject_key).public_key()
        self.extensions = [(extension.value, extension.critical) for extension in self.template.extensions]
        self.begins, self.ends = _AT - _DAY, _AT + _DAY
        self.serial = self.template.serial_number

    def put(self, value: x509.ExtensionType, critical: bool) -> None:
        self.extensions = [(value, critical) if old.oid == value.oid else (old, was) for old, was in self.extensions]

    def drop(self, oid: x509.ObjectIdentifier) -> None:
        self.extensions = [(value, critical) for value, critical in self.extensions if value.oid != oid]

    def der(self) -> bytes:
        builder = x509.CertificateBuilder(self.issuer, self.subject, self.public, self.serial, self.begins, self.ends)
        for value, critical in self.extensions:
            builder = builder.add_extension(value, critical)
        return builder.sign(self.key, None).public_bytes(Encoding.DER)


SEEDS = (PI.key.seed, ALICE.key.seed, ALICE.issuer.key.seed, ACME.key.seed)


def _constraints(ca: bool, length: int | None, critical: bool = True) -> tuple[x509.ExtensionType, bool]:
    return x509.BasicConstraints(ca, length), critical


def _usage(sign: bool, digital: bool, critical: bool = True) -> tuple[x509.ExtensionType, bool]:
    return x509.KeyUsage(digital, not (sign or digital), False, False, False, sign, False, False, False), critical


def _name(*pairs: tuple[x509.ObjectIdentifier, str]) -> x509.Name:
    return x509.Name([x509.NameAttribute(oid, value) for oid, value in pairs])


def mutations(level: int) -> Iterator[tuple[str, Mutant]]:
    """Every change that a certified party could sign itself, one at a time."""

    def fresh() -> Mutant:
        return Mutant(level, SEEDS[level], SEEDS[level + 1], None)

    yield "none", fresh()
    for ca, length in ((False, None), (True, None), (True, 0), (True, 1), (True, 2), (True, 7)):
        for critical in (True, False):
            mutant = fresh()
            mutant.put(*_constraints(ca, length, critical))
            yield f"constraints {ca} {length} {critical}", mutant
    for sign in (False, True):
        for digital in (False, True):
            for critical in (True, False):
                mutant = fresh()
                mutant.put(*_usage(sign, digital, critical))
                yield f"usage {sign} {digital} {critical}", mutant
    for index, (value, critical) in enumerate(fresh().extensions):
        mutant = fresh()
        mutant.drop(value.oid)
        yield f"without extension {index}", mutant
        mutant = fresh()
        mutant.put(value, not critical)
        yield f"extension {index} critical {not critical}", mutant
    strangers: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CODE_SIGNING]), True),
        (x509.NameConstraints([x509.DNSName("x.example")], None), True),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{OID_ARC}.99"), b"\x05\x00"), True),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{OID_ARC}.99"), b"\x05\x00"), False),
        (x509.SubjectAlternativeName([x509.DNSName("x.example")]), False),
    )
    for value, critical in strangers:
        mutant = fresh()
        mutant.extensions.append((value, critical))
        yield f"also {value.oid.dotted_string} {critical}", mutant
    for begins, ends in ((-2, -1), (1, 2), (-1, 1), (1, 1)):
        mutant = fresh()
        mutant.begins, mutant.ends = _AT + begins * _DAY, _AT + ends * _DAY
        yield f"validity {begins} {ends}", mutant
    for signer in range(4):
        mutant = fresh()
        mutant.key = Ed25519PrivateKey.from_private_bytes(SEEDS[signer])
        yield f"signed by level {signer}", mutant
    for other in (level + 1, 3, 0):
        mutant = fresh()
        mutant.public = Ed25519PrivateKey.from_private_bytes(SEEDS[other]).public_key()
        yield f"key of level {other}", mutant
        mutant = fresh()
        mutant.issuer = x509.load_der_x509_certificate((*PI.chain, ACME.root)[other]).subject
        yield f"issuer named as level {other}", mutant
        mutant = fresh()
        mutant.subject = x509.load_der_x509_certificate((*PI.chain, ACME.root)[other]).subject
        yield f"subject named as level {other}", mutant
    for name in (_name(), _name((NameOID.COMMON_NAME, "x")), _name((NameOID.COMMON_NAME, "x"), (NameOID.COMMON_NAME, "y"))):
        mutant = fresh()
        mutant.subject = name
        yield f"subject {name.rfc4514_string()}", mutant
    for serial in (1, 1 << 120, (1 << 159) - 1):
        mutant = fresh()
        mutant.serial = serial
        yield f"serial {serial}", mutant
    for index in (b"\0" * 20, seed("another")[:20]):
        mutant = fresh()
        mutant.put(x509.AuthorityKeyIdentifier(index, None, None), False)
        yield f"authority key id {index.hex()}", mutant
        mutant = fresh()
        mutant.put(x509.SubjectKeyIdentifier(index), False)
        yield f"subject key id {index.hex()}", mutant


@needs_openssl
@pytest.mark.parametrize("level", [0, 1, 2])
def test_openssl_never_refuses_what_we_accept(level: int, tmp_path: Path) -> None:
    """Goal: our verdict is at least as strict, and the two agree often enough for the comparison to mean something.

    Method: every mutation of one certificate, signed by the right key unless the signer is the mutation; both verdicts.
    """
    both = ours_only = theirs_only = neither = 0
    for what, mutant in mutations(level):
        chain = list(PI.chain)
        chain[level] = mutant.der()
        ours, theirs = reason_of(chain) is None, openssl_accepts(tmp_path, chain)
        assert theirs or not ours, what
        both, neither = both + (ours and theirs), neither + (not ours and not theirs)
        theirs_only, ours_only = theirs_only + (theirs and not ours), ours_only + (ours and not theirs)
    assert ours_only == 0
    assert both >= 2
    assert neither >= 15
    assert theirs_only >= 5


@needs_openssl
def test_openssl_refuses_flipped_bits_as_we_do(tmp_path: Path) -> None:
    """Goal: the signature covers what we think it covers. Method: every 5th byte of the node certificate flipped, one call."""
    leaf = PI.certificate
    (tmp_path / "root.pem").write_text(pem(ACME.root))
    (tmp_path / "middle.pem").write_text("".join(pem(der) for der in ALICE.chain))
    names = []
    for place in range(0, len(leaf), 5):
        flipped = bytearray(leaf)
        flipped[place] ^= 1 << (place % 8)
        assert reason_of((bytes(flipped), *ALICE.chain)) is Reason.BAD_CERTIFICATE
        names.append(f"{place}.der")
        (tmp_path / names[-1]).write_bytes(bytes(flipped))
    (tmp_path / "good.der").write_bytes(leaf)
    assert OPENSSL is not None
    files = ["-CAfile", "root.pem", "-untrusted", "middle.pem", *names, "good.der"]
    done = subprocess.run([OPENSSL, "verify", "-x509_strict", "-attime", str(NOW), *files], cwd=tmp_path, capture_output=True, check=False)
    assert done.stdout.decode().splitlines()[-1:] == ["good.der: OK"]
    assert done.stdout.decode().count(": OK") == 1


@needs_openssl
@pytest.mark.parametrize(("now", "accepted"), [(NOW - YEAR - 1, False), (NOW - YEAR, True), (NOW + YEAR - 1, True), (NOW + YEAR, False)])
def test_openssl_sees_the_same_ends_of_validity(now: int, accepted: bool, tmp_path: Path) -> None:
    """Goal: the first second is in, the last is out. Method: the same seconds as ours."""
    assert openssl_accepts(tmp_path, PI.chain, now=now) is accepted


@pytest.mark.parametrize("change", ["peer id", "format", "not canonical", "other record"])
def test_fields_that_the_member_signed_wrongly_are_refused(change: str) -> None:
    """Goal: the extension is held to its Record. Method: a lawful certificate with other bytes in it, signed by the right key."""
    fields = NodeFields(format=1, suite=1, peer_id=PI.peer_id, weight=1, holder_only=False)
    datas = {
        "peer id": encode(NodeFields(format=1, suite=1, peer_id=peer_id_of(ALICE.key.public), weight=1, holder_only=False)),
        "format": encode(NodeFields(format=2, suite=1, peer_id=PI.peer_id, weight=1, holder_only=False)),
        "not canonical": encode(fields).replace(b"\x01\x01\xc4", b"\x01\xcc\x01\xc4", 1),
        "other record": encode((1, 1)),
    }
    for data, reason in ((encode(fields), None), (datas[change], Reason.BAD_CERTIFICATE)):
        mutant = Mutant(0, SEEDS[0], SEEDS[1], None)
        value = x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{OID_ARC}.4"), bytes([4, len(data)]) + data)
        mutant.put(value, False)
        assert reason_of((mutant.der(), *ALICE.chain)) is reason


def test_two_domains_of_one_name_are_told_apart() -> None:
    """Goal: a name proves nothing. Method: a second ACME under another key."""
    other = make_root(SigningKey(seed("impostor")), "ACME", serial=bytes(16), not_before=NOW - YEAR, not_after=NOW + YEAR)
    assert read_root(other).name == found("ACME").name
    assert reason_of((*PI.chain, other)) is Reason.WRONG_DOMAIN
