"""Golden vectors: this implementation, the second one in tests/vectors, and the file agree."""

from __future__ import annotations

import json
from typing import Any

from protocols.codec import encode
from protocols.crypto import HpkePrivateKey, SigningKey
from protocols.identity.announce import sign_announcement
from protocols.identity.certificates import fingerprint, make_issuer, make_member, make_node, make_root, verify_chain
from protocols.identity.domains import sign_domain
from protocols.identity.fences import founding_fence, sign_fence
from protocols.identity.keyfiles import NodeKey, key_file, open_key_file, seal_key_file
from protocols.identity.members import member_id
from protocols.identity.networks import fence_preshared_key, join_preshared_key, network_id
from protocols.identity.peers import peer_id_of, peer_id_text
from protocols.identity.revocation import RevocationKind, RevocationSet, sign_revocation
from protocols.identity.tickets import Address, Ticket, TicketTerms, decode_ticket, encode_ticket, ticket_opened, token_hash
from protocols.signed import Signed
from protocols.types import UnixSeconds
from tests.vectors import recompute_identity as second

VECTORS: dict[str, Any] = json.loads(second.VECTORS.read_text(encoding="utf-8"))
ROOT, ISSUER, MEMBER, NODE = (SigningKey(second.SEEDS[name]) for name in ("root", "issuer", "member", "node"))
PEER_ID = peer_id_of(NODE.public)
MEMBER_ID = member_id(b"A-17", second.MEMBER_SALT)
SPAN = {"not_before": second.NOW - second.YEAR, "not_after": second.NOW + second.YEAR}


def chain() -> tuple[bytes, ...]:
    """Node, member, issuer, root."""
    root = make_root(ROOT, "ACME", serial=bytes(16), **SPAN)
    hpke, issuer_hpke = (HpkePrivateKey(second.SEEDS[name]).public for name in ("hpke", "issuer hpke"))
    issuer = make_issuer(ROOT, root, issuer_public=ISSUER.public, hpke_public=issuer_hpke, serial=b"\1" * 16, **SPAN)
    member = make_member(
        ISSUER,
        issuer,
        member_id=MEMBER_ID,
        signing_public=MEMBER.public,
        hpke_public=hpke,
        name="Alice",
        nodes_max=4,
        weight_total_max=100,
        serial=b"\2" * 16,
        **SPAN,
    )
    node = make_node(
        MEMBER,
        member,
        peer_id=PEER_ID,
        node_public=NODE.public,
        host_label="pi3",
        weight=7,
        holder_only=True,
        serial=b"\3" * 16,
        **SPAN,
    )
    return node, member, issuer, root


def parts(signed: Signed) -> list[str]:
    return [signed.body.hex(), signed.signer.hex(), signed.signature.hex()]


def test_second_implementation_gives_the_file() -> None:
    """Goal: the vectors follow from SPEC.md alone. Method: recompute them without this project's code."""
    assert json.loads(json.dumps(second.recompute())) == VECTORS


def test_ids_and_certificates_are_the_vectors() -> None:
    """Goal: byte for byte. Method: make all four certificates; walk the file's chain."""
    node, member, issuer, root = chain()
    assert [der.hex() for der in (node, member, issuer, root)] == VECTORS["chain"]
    assert (PEER_ID.hex(), peer_id_text(PEER_ID)) == (VECTORS["peer_id"], VECTORS["peer_id_text"])
    assert MEMBER_ID.hex() == VECTORS["member_id"]
    identity = verify_chain((node, member, issuer), {fingerprint(root): root}, now=second.NOW, revocations=RevocationSet())
    assert (identity.member_id, identity.weight) == (MEMBER_ID, 7)


def test_signed_objects_and_texts_are_the_vectors() -> None:
    """Goal: byte for byte. Method: make each object of the file."""
    node, member, issuer, root = chain()
    domain = fingerprint(root)
    network = network_id(domain, second.NETWORK_SALT)
    assert network.hex() == VECTORS["network_id"]
    fence = sign_fence(ISSUER, (issuer,), network, domain_id=domain, number=1, time=second.NOW, secret=b"\7" * 32)
    assert parts(fence.attested.envelope) == VECTORS["fence"]
    founding = founding_fence(second.SEEDS["root"], root, network)
    assert [*parts(founding.attested.envelope), founding.secret.hex()] == VECTORS["founding_fence"]
    assert fence_preshared_key(fence.secret, network).hex() == VECTORS["fence_psk"]
    assert join_preshared_key(b"j" * 32, network).hex() == VECTORS["join_psk"]
    revocation = sign_revocation(
        ISSUER, (issuer,), network, domain_id=domain, kind=RevocationKind.MEMBER, subject=MEMBER_ID, time=second.NOW, reason="left"
    )
    assert parts(revocation.envelope) == VECTORS["revocation"]
    assert revocation.object_hash.hex() == VECTORS["revocation_hash"]
    terms = TicketTerms(token_hash(b"t" * 16), b"j" * 32, second.NOW + 60, "member", False, b"", 4, 100, 1)
    opened = ticket_opened(ISSUER, (issuer,), network, domain_id=domain, time=second.NOW, ticket_id=b"i" * 16, terms=terms)
    assert parts(opened.envelope) == VECTORS["ticket_opened"]
    word = sign_domain(ISSUER, (issuer,), network, founder=domain, time=UnixSeconds(second.NOW), root=b"DER of another root")
    assert parts(word.envelope) == VECTORS["domain"]
    address = "/ip4/10.0.0.1/tcp/4001"
    announcement = sign_announcement(
        NODE,
        network,
        peer_id=PEER_ID,
        addresses=(address,),
        chain=(node, member, issuer),
        counter=5,
        store_id=bytes(16),
        store_generation=2,
        free_bytes=1000,
        refuses=False,
        version=1,
    )
    assert parts(announcement) == VECTORS["announcement"]
    where = (Address(PEER_ID, address),)
    ticket = Ticket(1, 1, network, where, domain, (issuer,), b"i" * 16, b"j" * 32, b"t" * 16, second.NOW + 60, "member", False)
    assert encode_ticket(ticket) == VECTORS["ticket"]
    assert decode_ticket(VECTORS["ticket"]) == ticket


def test_key_file_is_the_vector() -> None:
    """Goal: files written today open for ever. Method: seal with the vector's salt and nonce; open the file's bytes."""
    content = key_file(NodeKey(seed=NODE.seed, chain=chain()[:3]))
    sealed = seal_key_file(content, b"correct horse", salt=b"\x09" * 16, nonce=b"\x09" * 12, cost=16)
    assert sealed.hex() == VECTORS["key_file"]
    assert encode(open_key_file(bytes.fromhex(VECTORS["key_file"]), b"correct horse")) == encode(content)
