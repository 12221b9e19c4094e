"""Second implementation of protocols/identity/SPEC.md from its text: hashlib, msgpack and cryptography alone, nothing of this project.

``python tests/vectors/recompute_identity.py`` compares with identity.json and fails on a difference; ``--write`` writes it anew,
which is a change of format.
"""

from __future__ import annotations

import base64
import datetime
import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

import msgpack
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.serialization import Encoding

VECTORS = Path(__file__).with_name("identity.json")
ARC = "2.25.144062312934134456343711701472180597761"
NOW, YEAR = 1_800_000_000, 365 * 86400
SEEDS = {name: bytes([number]) * 32 for number, name in enumerate(("root", "issuer", "member", "node", "hpke", "issuer hpke"), 1)}
NETWORK_SALT = bytes(range(32))
MEMBER_SALT = bytes(range(32, 64))


def framed(label: str, *parts: bytes) -> bytes:
    return b"lading/" + label.encode() + b"/1\0" + b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def labelled(label: str, *parts: bytes) -> bytes:
    return hashlib.sha256(framed(label, *parts)).digest()


def derive(secret: bytes, label: str, *context: bytes) -> bytes:
    prk = hmac.digest(bytes(32), secret, "sha256")
    return hmac.digest(prk, framed(label, *context) + b"\1", "sha256")


def pack(value: object) -> bytes:
    return msgpack.packb(value, use_bin_type=True)


def key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(SEEDS[name])


def public(name: str) -> bytes:
    if "hpke" in name:
        return X25519PrivateKey.from_private_bytes(SEEDS[name]).public_key().public_bytes_raw()
    return key(name).public_key().public_bytes_raw()


def signed(value: object, signer: str, label: str, network: bytes) -> list[bytes]:
    """[body, signer, signature]."""
    body = pack(value)
    return [body, public(signer), key(signer).sign(b"lading/" + label.encode() + b"/1\0" + network + body)]


def base58(data: bytes) -> str:
    alphabet = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
    number, text = int.from_bytes(data, "big"), ""
    while number:
        number, digit = divmod(number, 58)
        text = alphabet[digit] + text
    return "1" * (len(data) - len(data.lstrip(b"\0"))) + text


def certificate(
    role: str, number: int, name: str, issuer_role: str, issuer_name: str, fields: object, length: int | None, serial: bytes
) -> bytes:
    """DER of one level; the keys are named as the roles are."""

    def subject(level: str, common: str) -> x509.Name:
        unit = x509.NameAttribute(x509.NameOID.ORGANIZATIONAL_UNIT_NAME, f"lading {level}")
        return x509.Name([unit, x509.NameAttribute(x509.NameOID.COMMON_NAME, common)])

    def key_id(of: str) -> bytes:
        return hashlib.sha256(public(of)).digest()[:20]

    data = pack(fields)
    issues = length is not None
    start = datetime.datetime.fromtimestamp(NOW - YEAR, datetime.UTC)
    builder = x509.CertificateBuilder(
        subject(issuer_role, issuer_name),
        subject(role, name),
        key(role).public_key(),
        int.from_bytes(b"\1" + serial, "big"),
        start,
        start + datetime.timedelta(seconds=2 * YEAR),
    )
    extensions: list[tuple[x509.ExtensionType, bool]] = [
        (x509.BasicConstraints(issues, length), True),
        (x509.KeyUsage(True, False, False, False, False, issues, False, False, False), True),
        (x509.SubjectKeyIdentifier(key_id(role)), False),
        (x509.AuthorityKeyIdentifier(key_id(issuer_role), None, None), False),
        (x509.UnrecognizedExtension(x509.ObjectIdentifier(f"{ARC}.{number}"), b"\4" + der_length(len(data)) + data), False),
    ]
    for extension, critical in extensions:
        builder = builder.add_extension(extension, critical)
    return builder.sign(key(issuer_role), None).public_bytes(Encoding.DER)


def der_length(size: int) -> bytes:
    return bytes([size]) if size < 128 else bytes([0x81, size])


def recompute() -> dict[str, Any]:
    peer_id = bytes.fromhex("002408011220") + public("node")
    member_id = labelled("member-id", b"A-17", MEMBER_SALT)
    root = certificate("root", 1, "ACME", "root", "ACME", [1, 1], 2, bytes(16))
    domain = hashlib.sha256(root).digest()
    issuer = certificate("issuer", 2, "ACME", "root", "ACME", [1, 1, domain, public("issuer hpke")], 1, b"\1" * 16)
    fields = [1, 1, member_id, public("hpke"), 4, 100]
    member = certificate("member", 3, "Alice", "issuer", "ACME", fields, 0, b"\2" * 16)
    node = certificate("node", 4, "pi3", "member", "Alice", [1, 1, peer_id, 7, True], None, b"\3" * 16)
    network = labelled("network-id", domain, NETWORK_SALT)
    secret = b"\7" * 32
    secret_hash = labelled("fence-secret", secret)
    fence = signed([1, 1, domain, 1, NOW, secret_hash], "issuer", "fence", network)
    founding_secret = derive(SEEDS["root"], "founding-fence", network)
    founding = signed([1, 1, domain, 1, NOW - YEAR, labelled("fence-secret", founding_secret)], "root", "fence", network)
    revocation = signed([1, 1, domain, 1, member_id, 0, NOW, "left"], "issuer", "revocation", network)
    terms = [labelled("ticket-token", b"t" * 16), b"j" * 32, NOW + 60, "member", False, b"", 4, 100, 1]
    event = signed([1, 1, domain, NOW, b"i" * 16, 1, terms, b"", []], "issuer", "ticket-state", network)
    domain_word = signed([1, 1, domain, NOW, b"DER of another root"], "issuer", "domain", network)
    address = "/ip4/10.0.0.1/tcp/4001"
    chain = [node, member, issuer]
    said = [1, 1, peer_id, [address], chain, 5, bytes(16), 2, 1000, False, 1]
    announcement = signed(said, "node", "announcement", network)
    ticket = pack([1, 1, network, [[peer_id, address]], domain, [issuer], b"i" * 16, b"j" * 32, b"t" * 16, NOW + 60, "member", False])
    ticket_text = "lading1" + base64.urlsafe_b64encode(ticket + labelled("checksum", b"ticket", ticket)[:8]).rstrip(b"=").decode()
    return {
        "peer_id": peer_id.hex(),
        "peer_id_text": base58(peer_id),
        "member_id": member_id.hex(),
        "network_id": network.hex(),
        "chain": [der.hex() for der in (*chain, root)],
        "fence": [part.hex() for part in fence],
        "founding_fence": [*(part.hex() for part in founding), founding_secret.hex()],
        "fence_psk": derive(secret, "fence-psk", network).hex(),
        "join_psk": derive(b"j" * 32, "join-psk", network).hex(),
        "revocation": [part.hex() for part in revocation],
        "revocation_hash": labelled("object", revocation[0], revocation[1]).hex(),
        "ticket_opened": [part.hex() for part in event],
        "domain": [part.hex() for part in domain_word],
        "announcement": [part.hex() for part in announcement],
        "ticket": ticket_text,
        "key_file": key_file(pack([1, 1, ["node", SEEDS["node"], chain]])).hex(),
    }


def key_file(content: bytes) -> bytes:
    """Under the passphrase `correct horse`, scrypt n = 16, salt 16 and nonce 12 bytes of 9."""
    salt, nonce = b"\x09" * 16, b"\x09" * 12
    stretched = hashlib.scrypt(b"correct horse", salt=salt, n=16, r=8, p=1, dklen=32)
    header = ["lading-key-file", 1, 1, 16, salt]
    body = ChaCha20Poly1305(derive(stretched, "key-file")).encrypt(nonce, content, pack(header))
    file = pack([*header, nonce, body])
    return file + labelled("checksum", b"key file", file)[:8]


if __name__ == "__main__":
    if "--write" in sys.argv:
        VECTORS.write_text(json.dumps(recompute(), indent=1) + "\n", encoding="utf-8")
    elif json.loads(VECTORS.read_text(encoding="utf-8")) != recompute():
        sys.exit("identity.json differs from what its SPEC gives")
