"""X.509 certificates: root, issuer, member, node, and the chain walk. The second door to `cryptography`.

All keys are Ed25519. What Lading adds stands in one non-critical extension per certificate: a DER OCTET STRING holding a
canonical Record. `cryptography`'s own path verifier refuses Ed25519, so the walk is here: one table row per level says what
a certificate of that level must be, exactly; what the table does not name is refused. Source: RFC 5280, RFC 8410, RFC 7093 §2.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID, SignatureAlgorithmOID

from ..codec import Record, decode, encode
from ..crypto import FORMAT, SUITE, SigningKey, sha256
from ..errors import InvalidObject, Reason, UsageError
from ..limits import CERTIFICATE_BYTES_MAX, CHAIN_LENGTH_MAX, NAME_BYTES_MAX
from ..types import DomainId, HpkeKey, MemberId, OwnerKey, PeerId, UnixSeconds
from .peers import peer_id_of

# A UUID arc (ITU-T X.667) needs no registration and collides with nobody's.
OID_ARC = "2.25.144062312934134456343711701472180597761"
SERIAL_BYTES = 16
# Standing in front of the 16 bytes it makes every serial number positive and the map to 16 bytes one to one.
_SERIAL_PREFIX = b"\x01"
# X.520 bounds a common name to 64 characters; ours is bounded in bytes, which is stricter.
assert NAME_BYTES_MAX <= 64
TIME_MAX = UnixSeconds(253402300799)  # 9999-12-31T23:59:59Z, the last second of X.509


class RootFields(Record, frozen=True):
    """What a root says in its extension."""

    format: int
    suite: int


class IssuerFields(Record, frozen=True):
    """domain_id: fingerprint of the root above, 32 bytes. hpke: the key that applications to join are sealed to, 32 bytes."""

    format: int
    suite: int
    domain_id: bytes
    hpke: bytes


class MemberFields(Record, frozen=True):
    """member_id: pseudonym, 32 bytes. hpke: the member's HPKE key, 32 bytes. Bounds: how many nodes, and of which total weight."""

    format: int
    suite: int
    member_id: bytes
    hpke: bytes
    nodes_max: int
    weight_total_max: int


class NodeFields(Record, frozen=True):
    """peer_id: of the certified key. weight: share of the member's holdings. holder_only: keeps sequences, signs for no member."""

    format: int
    suite: int
    peer_id: bytes
    weight: int
    holder_only: bool


class CertifiedPath(Record, frozen=True):
    """What revocations are looked up by. serials, issued: of the certificates below the root, lowest first; issued = not-before."""

    domain_id: DomainId
    member_id: MemberId
    serials: tuple[bytes, ...]
    issued: tuple[UnixSeconds, ...]


class Revocations(Protocol):
    """The question that the chain walk asks of a revocation set."""

    def is_revoked(self, path: CertifiedPath) -> bool:
        """True when any certificate of the path is revoked."""


class IssuerIdentity(Record, frozen=True):
    """An issuer, as its chain proves it."""

    public: bytes
    hpke: HpkeKey
    domain_id: DomainId
    domain: str
    not_before: UnixSeconds
    not_after: UnixSeconds
    path: CertifiedPath


class MemberIdentity(Record, frozen=True):
    """A member, as its chain proves it. not_before, not_after: when the whole chain is valid."""

    member_id: MemberId
    name: str
    owner: OwnerKey
    hpke: HpkeKey
    nodes_max: int
    weight_total_max: int
    domain_id: DomainId
    domain: str
    not_before: UnixSeconds
    not_after: UnixSeconds
    path: CertifiedPath


class NodeIdentity(Record, frozen=True):
    """A node and the member behind it, as the chain proves them. not_before, not_after: when the whole chain is valid."""

    peer_id: PeerId
    node_public: bytes
    host: str
    weight: int
    holder_only: bool
    member_id: MemberId
    member: str
    owner: OwnerKey
    hpke: HpkeKey
    nodes_max: int
    weight_total_max: int
    domain_id: DomainId
    domain: str
    not_before: UnixSeconds
    not_after: UnixSeconds
    path: CertifiedPath

    @property
    def serials(self) -> tuple[bytes, ...]:
        """Serial numbers of node, member and issuer certificate, 16 bytes each."""
        return self.path.serials


Fields = RootFields | IssuerFields | MemberFields | NodeFields


@dataclass(frozen=True, slots=True)
class _Level:
    """One row of the table: what a certificate of this level must be."""

    role: str
    oid: x509.ObjectIdentifier
    kind: type[Fields]
    path_length: int | None
    """How many issuing certificates may follow below; None: it may not issue at all."""


NODE, MEMBER, ISSUER, ROOT = range(CHAIN_LENGTH_MAX)
LEVELS: tuple[_Level, ...] = (
    _Level("node", x509.ObjectIdentifier(f"{OID_ARC}.4"), NodeFields, None),
    _Level("member", x509.ObjectIdentifier(f"{OID_ARC}.3"), MemberFields, 0),
    _Level("issuer", x509.ObjectIdentifier(f"{OID_ARC}.2"), IssuerFields, 1),
    _Level("root", x509.ObjectIdentifier(f"{OID_ARC}.1"), RootFields, 2),
)


@dataclass(frozen=True, slots=True)
class _Certificate:
    """A certificate that fits its row; its signature is not yet checked."""

    x509: x509.Certificate
    der: bytes
    public: bytes
    name: str
    fields: Fields
    serial: bytes
    not_before: UnixSeconds
    not_after: UnixSeconds


# --- writing ------------------------------------------------------------------------------------------------------


def fingerprint(root: bytes) -> DomainId:
    """Domain id: SHA-256 of the root certificate's DER. 32 bytes."""
    return DomainId(sha256(root))


def make_root(key: SigningKey, domain_name: str, *, serial: bytes, not_before: int, not_after: int) -> bytes:
    """Self-signed root of a new domain, DER. serial: 16 random bytes; times: whole seconds. Raises UsageError for a bad name."""
    fields = RootFields(format=FORMAT, suite=SUITE)
    return _make(ROOT, key, None, key.public, domain_name, fields, serial=serial, not_before=not_before, not_after=not_after)


def make_issuer(
    root_key: SigningKey,
    root_cert: bytes,
    *,
    issuer_public: bytes,
    hpke_public: bytes,
    serial: bytes,
    not_before: int,
    not_after: int,
) -> bytes:
    """Certificate of an issuing key, DER, named as its domain is. Raises InvalidObject(BAD_CERTIFICATE) for a bad root."""
    root = _parse(root_cert, ROOT)
    fields = IssuerFields(format=FORMAT, suite=SUITE, domain_id=fingerprint(root_cert), hpke=hpke_public)
    return _make(ISSUER, root_key, root, issuer_public, root.name, fields, serial=serial, not_before=not_before, not_after=not_after)


def make_member(
    issuer_key: SigningKey,
    issuer_cert: bytes,
    *,
    member_id: bytes,
    signing_public: bytes,
    hpke_public: bytes,
    name: str,
    nodes_max: int,
    weight_total_max: int,
    serial: bytes,
    not_before: int,
    not_after: int,
) -> bytes:
    """Certificate that binds a member's id, signing key and HPKE key, DER. Raises UsageError for a bad name or bound.

    Re-admission after a revocation is a new certificate with ``not_before`` above the revocation's time.
    """
    fields = MemberFields(
        format=FORMAT, suite=SUITE, member_id=member_id, hpke=hpke_public, nodes_max=nodes_max, weight_total_max=weight_total_max
    )
    issuer = _parse(issuer_cert, ISSUER)
    return _make(MEMBER, issuer_key, issuer, signing_public, name, fields, serial=serial, not_before=not_before, not_after=not_after)


def make_node(
    member_key: SigningKey,
    member_cert: bytes,
    *,
    peer_id: bytes,
    node_public: bytes,
    host_label: str,
    weight: int,
    holder_only: bool,
    serial: bytes,
    not_before: int,
    not_after: int,
) -> bytes:
    """Certificate of one of the member's nodes, DER. Raises UsageError for a bad label, weight, or a peer id of another key."""
    fields = NodeFields(format=FORMAT, suite=SUITE, peer_id=peer_id, weight=weight, holder_only=holder_only)
    member = _parse(member_cert, MEMBER)
    return _make(NODE, member_key, member, node_public, host_label, fields, serial=serial, not_before=not_before, not_after=not_after)


def _make(
    level: int,
    key: SigningKey,
    issuer: _Certificate | None,
    public: bytes,
    name: str,
    fields: Fields,
    *,
    serial: bytes,
    not_before: int,
    not_after: int,
) -> bytes:
    assert len(serial) == SERIAL_BYTES
    if issuer is not None and issuer.public != key.public:
        raise UsageError("the signing key is not the one that its certificate names")
    if not 0 <= not_before < not_after <= TIME_MAX:
        raise UsageError(f"validity from {not_before} to {not_after}")
    if not is_name(name):
        raise UsageError(f"name {name!r}, 1 to {NAME_BYTES_MAX} bytes of printable text wanted")
    if problem := _problem_of_fields(fields, public):
        raise UsageError(problem)
    subject = _subject(level, name)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject if issuer is None else issuer.x509.subject)
        .public_key(Ed25519PublicKey.from_public_bytes(public))
        .serial_number(int.from_bytes(_SERIAL_PREFIX + serial, "big"))
        .not_valid_before(_date(not_before))
        .not_valid_after(_date(not_after))
    )
    for extension in _extensions(level, public, key.public, encode(fields)):
        builder = builder.add_extension(extension.value, extension.critical)
    der = builder.sign(Ed25519PrivateKey.from_private_bytes(key.seed), None).public_bytes(Encoding.DER)
    assert len(der) <= CERTIFICATE_BYTES_MAX
    return der


def is_name(name: str) -> bool:
    """Fit to be a domain's, member's or host's name: 1 to NAME_BYTES_MAX bytes, printable, no blank at either end."""
    return 0 < len(name.encode("utf-8", "replace")) <= NAME_BYTES_MAX and name.isprintable() and name == name.strip()


def _subject(level: int, name: str) -> x509.Name:
    # The role stands in the name, so that no certificate can have its issuer's name (X.509 would call it self-issued and
    # not count it against the path length).
    unit = x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, f"lading {LEVELS[level].role}")
    return x509.Name([unit, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _date(seconds: int) -> datetime.datetime:
    return datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC) + datetime.timedelta(seconds=seconds)


def _key_id(public: bytes) -> bytes:
    """RFC 7093 §2, method 1: leftmost 160 bits of SHA-256 of the key."""
    return sha256(public)[:20]


def _octet_string(data: bytes) -> bytes:
    size = len(data)
    if size < 0x80:
        return bytes([0x04, size]) + data
    length = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes([0x04, 0x80 | len(length)]) + length + data


def _extensions(level: int, public: bytes, issuer_public: bytes, fields: bytes) -> tuple[x509.Extension[x509.ExtensionType], ...]:
    """All extensions of a certificate of this level, in their order; writer and reader use the same list."""
    row = LEVELS[level]
    issues = row.path_length is not None
    usage = x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=issues,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )
    values: tuple[tuple[x509.ExtensionType, bool], ...] = (
        (x509.BasicConstraints(ca=issues, path_length=row.path_length), True),
        (usage, True),
        (x509.SubjectKeyIdentifier(_key_id(public)), False),
        (x509.AuthorityKeyIdentifier(_key_id(issuer_public), None, None), False),
        (x509.UnrecognizedExtension(row.oid, _octet_string(fields)), False),
    )
    return tuple(x509.Extension(value.oid, critical, value) for value, critical in values)


# --- reading ------------------------------------------------------------------------------------------------------


def _bad(level: int, text: str) -> InvalidObject:
    return InvalidObject(Reason.BAD_CERTIFICATE, f"{LEVELS[level].role} certificate: {text}")


def _problem_of_fields(fields: Fields, public: bytes) -> str:
    """What is wrong with the fields of a certificate for this key; empty: nothing."""
    if (fields.format, fields.suite) != (FORMAT, SUITE):
        return f"format {fields.format} suite {fields.suite}, {FORMAT} and {SUITE} wanted"
    match fields:
        case IssuerFields():
            wrong = len(fields.domain_id) != 32 or len(fields.hpke) != 32
        case MemberFields():
            wrong = len(fields.member_id) != 32 or len(fields.hpke) != 32 or fields.nodes_max < 1 or fields.weight_total_max < 0
        case NodeFields():
            wrong = fields.peer_id != peer_id_of(public) or fields.weight < 0
        case RootFields():
            wrong = False
    return f"fields out of range: {fields}" if wrong else ""


def _parse(der: bytes, level: int) -> _Certificate:
    """Reads one certificate and holds it against its row of the table. Raises InvalidObject(BAD_CERTIFICATE)."""
    if len(der) > CERTIFICATE_BYTES_MAX:
        raise _bad(level, f"{len(der)} bytes, at most {CERTIFICATE_BYTES_MAX} wanted")
    try:
        return _parse_untrusted(der, level)
    except InvalidObject:
        raise
    except Exception as error:
        # A door: `cryptography` raises a dozen unrelated types for bad certificates, some only when a part is looked at.
        raise _bad(level, f"not readable: {error}") from error


def _parse_untrusted(der: bytes, level: int) -> _Certificate:
    row = LEVELS[level]
    certificate = x509.load_der_x509_certificate(der)
    key = certificate.public_key()
    if not isinstance(key, Ed25519PublicKey) or certificate.signature_algorithm_oid != SignatureAlgorithmOID.ED25519:
        raise _bad(level, "not Ed25519")
    public = key.public_bytes_raw()
    names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    name = str(names[0].value) if names else ""
    if certificate.version is not x509.Version.v3 or not is_name(name) or certificate.subject != _subject(level, name):
        raise _bad(level, "version or subject is not of this level")
    serial = certificate.serial_number.to_bytes(len(_SERIAL_PREFIX) + SERIAL_BYTES, "big")
    if not serial.startswith(_SERIAL_PREFIX):
        raise _bad(level, f"serial number {serial.hex()}")
    fields, data = _fields_of(certificate, row)
    issuer_key_id = certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    wanted = _extensions(level, public, b"", data)
    for got, want in zip(certificate.extensions, wanted, strict=True):
        value = want.value
        if isinstance(value, x509.AuthorityKeyIdentifier):
            # The issuer's key is only known one step up; there ``_check_issued`` compares its id.
            value = x509.AuthorityKeyIdentifier(issuer_key_id, None, None)
        if got.critical is not want.critical or got.value != value:
            raise _bad(level, f"extension {got.oid.dotted_string} is {got.value}, {value} wanted")
    if problem := _problem_of_fields(fields, public):
        raise _bad(level, problem)
    return _Certificate(
        x509=certificate,
        der=der,
        public=public,
        name=name,
        fields=fields,
        serial=serial[len(_SERIAL_PREFIX) :],
        not_before=UnixSeconds(int(certificate.not_valid_before_utc.timestamp())),
        not_after=UnixSeconds(int(certificate.not_valid_after_utc.timestamp())),
    )


def _fields_of(certificate: x509.Certificate, row: _Level) -> tuple[Fields, bytes]:
    for extension in certificate.extensions:
        if extension.oid == row.oid and isinstance(extension.value, x509.UnrecognizedExtension):
            wrapped = extension.value.value
            # The tag and length bytes are found by the only length that re-encodes to the same bytes.
            for header in (2, 3, 4):
                data = wrapped[header:]
                if _octet_string(data) == wrapped:
                    return decode(data, row.kind), data
    raise ValueError("Lading's fields are missing")


def _check_issued(child: _Certificate, parent: _Certificate, level: int) -> None:
    """Raises InvalidObject(BAD_CERTIFICATE) unless ``parent`` signed ``child``."""
    key_id = child.x509.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier
    if key_id != _key_id(parent.public):
        raise _bad(level, "names another issuer's key")
    try:
        child.x509.verify_directly_issued_by(parent.x509)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise _bad(level, f"not signed by the {LEVELS[level + 1].role} above it") from error


def _walk(chain: Sequence[bytes], lowest: int, roots: Mapping[DomainId, bytes]) -> tuple[_Certificate, ...]:
    """Certificates from ``lowest`` up to the root, every signature checked; validity and revocation are not.

    Raises InvalidObject(BAD_CERTIFICATE | WRONG_DOMAIN).
    """
    below_root = ROOT - lowest
    if not below_root <= len(chain) <= below_root + 1:
        raise InvalidObject(Reason.BAD_CERTIFICATE, f"chain of {len(chain)} certificates, {below_root} or {below_root + 1} wanted")
    walked = [_parse(der, lowest + index) for index, der in enumerate(chain[:below_root])]
    issuer = walked[-1].fields
    assert isinstance(issuer, IssuerFields)
    domain_id = DomainId(issuer.domain_id)
    root = roots.get(domain_id)
    if root is None:
        raise InvalidObject(Reason.WRONG_DOMAIN, f"domain {domain_id.hex()[:8]} is not known here")
    if len(chain) > below_root and chain[below_root] != root:
        raise InvalidObject(Reason.WRONG_DOMAIN, f"another root than that of domain {domain_id.hex()[:8]}")
    walked.append(_root(root, domain_id))
    for index in range(below_root):
        _check_issued(walked[index], walked[index + 1], lowest + index)
    return tuple(walked)


def _root(root: bytes, domain_id: DomainId) -> _Certificate:
    if fingerprint(root) != domain_id:
        raise InvalidObject(Reason.WRONG_DOMAIN, f"root is of domain {fingerprint(root).hex()[:8]}, {domain_id.hex()[:8]} wanted")
    parsed = _parse(root, ROOT)
    _check_self_signed(parsed)
    return parsed


def _check_self_signed(root: _Certificate) -> None:
    try:
        root.x509.verify_directly_issued_by(root.x509)
    except (InvalidSignature, ValueError, TypeError) as error:
        raise _bad(ROOT, "not signed by itself") from error
    if root.x509.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier != _key_id(root.public):
        raise _bad(ROOT, "names another issuer's key")


def _check_valid(walked: Sequence[_Certificate], lowest: int, *, now: int, clock_unsafe: bool) -> None:
    """Raises InvalidObject(CERTIFICATE_EXPIRED | CERTIFICATE_NOT_YET_VALID).

    RFC 5280 §4.1.2.5 counts the last second in, `openssl` does not; the stricter one is ours."""
    for index, certificate in enumerate(walked):
        role = LEVELS[lowest + index].role
        if now >= certificate.not_after:
            raise InvalidObject(Reason.CERTIFICATE_EXPIRED, f"{role} certificate ended at {certificate.not_after}, now is {now}")
        if now < certificate.not_before and not clock_unsafe:
            raise InvalidObject(Reason.CERTIFICATE_NOT_YET_VALID, f"{role} certificate begins at {certificate.not_before}, now is {now}")


def _path(walked: Sequence[_Certificate]) -> CertifiedPath:
    below = walked[:-1]
    member_id = next((c.fields.member_id for c in below if isinstance(c.fields, MemberFields)), b"")
    return CertifiedPath(
        domain_id=fingerprint(walked[-1].der),
        member_id=MemberId(member_id),
        serials=tuple(certificate.serial for certificate in below),
        issued=tuple(certificate.not_before for certificate in below),
    )


def _verified(
    chain: Sequence[bytes],
    lowest: int,
    roots: Mapping[DomainId, bytes],
    *,
    now: int,
    revocations: Revocations | None,
    clock_unsafe: bool,
) -> tuple[tuple[_Certificate, ...], CertifiedPath]:
    walked = _walk(chain, lowest, roots)
    _check_valid(walked, lowest, now=now, clock_unsafe=clock_unsafe)
    path = _path(walked)
    if revocations is not None and revocations.is_revoked(path):
        raise InvalidObject(Reason.REVOKED, f"a certificate of {walked[0].name} is revoked")
    return walked, path


F = TypeVar("F", bound=Fields)


def _fields(certificate: _Certificate, kind: type[F]) -> F:
    assert isinstance(certificate.fields, kind)
    return certificate.fields


def _span(walked: Sequence[_Certificate]) -> tuple[UnixSeconds, UnixSeconds]:
    return max(c.not_before for c in walked), min(c.not_after for c in walked)


def chain_validity(chain: Sequence[bytes], lowest: int = NODE) -> tuple[UnixSeconds, UnixSeconds]:
    """(not_before, not_after) of a whole chain, its first certificate of level ``lowest``, signatures unchecked.

    Raises InvalidObject(BAD_CERTIFICATE).
    """
    parsed = [_parse(der, lowest + index) for index, der in enumerate(chain[: CHAIN_LENGTH_MAX - lowest])]
    return UnixSeconds(max(c.not_before for c in parsed)), UnixSeconds(min(c.not_after for c in parsed))


def verify_chain(
    chain: Sequence[bytes],
    roots: Mapping[DomainId, bytes],
    *,
    now: int,
    revocations: Revocations | None,
    clock_unsafe: bool = False,
) -> NodeIdentity:
    """The node that a chain proves. chain: DER, node first, root last or left out. roots: domain id to root DER.

    revocations: None only where revocation is judged later. clock_unsafe: let not-yet-valid certificates pass.
    Raises InvalidObject(BAD_CERTIFICATE | WRONG_DOMAIN | CERTIFICATE_EXPIRED | CERTIFICATE_NOT_YET_VALID | REVOKED) and
    nothing else, whatever the bytes are.
    """
    walked, path = _verified(chain, NODE, roots, now=now, revocations=revocations, clock_unsafe=clock_unsafe)
    node, member, _, root = walked
    node_fields, member_fields = _fields(node, NodeFields), _fields(member, MemberFields)
    if node_fields.weight > member_fields.weight_total_max:
        raise _bad(NODE, f"weight {node_fields.weight}, the member's total is {member_fields.weight_total_max}")
    not_before, not_after = _span(walked)
    return NodeIdentity(
        peer_id=PeerId(node_fields.peer_id),
        node_public=node.public,
        host=node.name,
        weight=node_fields.weight,
        holder_only=node_fields.holder_only,
        member_id=path.member_id,
        member=member.name,
        owner=OwnerKey(member.public),
        hpke=HpkeKey(member_fields.hpke),
        nodes_max=member_fields.nodes_max,
        weight_total_max=member_fields.weight_total_max,
        domain_id=path.domain_id,
        domain=root.name,
        not_before=not_before,
        not_after=not_after,
        path=path,
    )


def verify_member_chain(
    chain: Sequence[bytes],
    roots: Mapping[DomainId, bytes],
    *,
    now: int,
    revocations: Revocations | None,
    clock_unsafe: bool = False,
) -> MemberIdentity:
    """As ``verify_chain``, of a chain that begins with a member's certificate."""
    walked, path = _verified(chain, MEMBER, roots, now=now, revocations=revocations, clock_unsafe=clock_unsafe)
    member, _, root = walked
    fields = _fields(member, MemberFields)
    not_before, not_after = _span(walked)
    return MemberIdentity(
        member_id=path.member_id,
        name=member.name,
        owner=OwnerKey(member.public),
        hpke=HpkeKey(fields.hpke),
        nodes_max=fields.nodes_max,
        weight_total_max=fields.weight_total_max,
        domain_id=path.domain_id,
        domain=root.name,
        not_before=not_before,
        not_after=not_after,
        path=path,
    )


def verify_issuer_chain(
    chain: Sequence[bytes],
    roots: Mapping[DomainId, bytes],
    *,
    now: int,
    revocations: Revocations | None,
    clock_unsafe: bool = False,
) -> IssuerIdentity:
    """As ``verify_chain``, of a chain that begins with an issuer's certificate."""
    walked, path = _verified(chain, ISSUER, roots, now=now, revocations=revocations, clock_unsafe=clock_unsafe)
    issuer, root = walked
    not_before, not_after = _span(walked)
    return IssuerIdentity(
        public=issuer.public,
        hpke=HpkeKey(_fields(issuer, IssuerFields).hpke),
        domain_id=path.domain_id,
        domain=root.name,
        not_before=not_before,
        not_after=not_after,
        path=path,
    )


class RootFacts(Record, frozen=True):
    """All that a root certificate says; with the seed of its key ``make_root`` writes the same bytes again."""

    name: str
    public: bytes
    serial: bytes
    not_before: UnixSeconds
    not_after: UnixSeconds


def read_root(root: bytes) -> RootFacts:
    """What a root certificate says. Raises InvalidObject(BAD_CERTIFICATE) for anything but a self-signed root."""
    parsed = _parse(root, ROOT)
    _check_self_signed(parsed)
    return RootFacts(name=parsed.name, public=parsed.public, serial=parsed.serial, not_before=parsed.not_before, not_after=parsed.not_after)
