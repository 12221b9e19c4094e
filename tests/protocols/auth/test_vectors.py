"""Golden vectors: this implementation, the second one in tests/vectors, and the file agree."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocols.auth.machine import AuthMachine, AuthRole
from protocols.auth.messages import Known, Proof, Refusal
from protocols.codec import encode
from protocols.crypto import Label, SigningKey
from protocols.effects import Send
from protocols.identity.fences import FenceSet
from protocols.identity.peers import peer_id_of
from protocols.identity.revocation import RevocationSet
from protocols.registry import decode_message, encode_message
from protocols.types import NetworkId
from tests.vectors import recompute_auth as second

VECTORS: dict[str, Any] = json.loads(second.VECTORS.read_text(encoding="utf-8"))
IDENTITY: dict[str, Any] = json.loads(second.IDENTITY.read_text(encoding="utf-8"))
KEY = SigningKey(second.SEED)


def test_second_implementation_gives_the_file() -> None:
    """Goal: the vectors follow from SPEC.md alone. Method: recompute them without this project's code."""
    assert json.loads(json.dumps(second.recompute())) == VECTORS


@pytest.mark.parametrize("role", AuthRole)
def test_hello_and_what_is_signed_are_the_vectors(role: AuthRole) -> None:
    """Goal: byte for byte. Method: the machine's first word, and its signature over the vector's transcript."""
    network = NetworkId(bytes.fromhex(IDENTITY["network_id"]))
    machine = AuthMachine(
        role=role,
        network=network,
        chain=[bytes.fromhex(der) for der in IDENTITY["chain"][:3]],
        key=KEY,
        roots={},
        revocations=RevocationSet(),
        fences=FenceSet(),
        connection_fence=b"",
        version_min=1,
        version_max=2,
        features=("relay", "http"),
        nonce=bytes([role]) * 32,
        handshake_hash=second.HANDSHAKE_HASH,
        peer_id=peer_id_of(KEY.public),
        now=second.TIME,
        clock_agreed=role is AuthRole.RESPONDER,
    )
    (effect,) = machine.start(0.0)
    assert isinstance(effect, Send)
    frames = [bytes.fromhex(frame) for frame in VECTORS["hello_frames"]]
    assert encode_message("auth", effect.message) == frames[role - 1]
    machine._peer_hello = decode_message("auth", frames[role.other - 1])  # type: ignore[assignment]
    for signer, wanted in zip(AuthRole, VECTORS["proof_frames"], strict=True):
        signature = KEY.sign(Label.AUTH, network, machine._transcript(signer))
        assert encode_message("auth", Proof(signature=signature)).hex() == wanted


def test_other_messages_are_the_vectors() -> None:
    """Goal: byte for byte, both directions. Method: encode and decode."""
    for message, name in ((Refusal("E-VERSION", "1 to 2 here"), "refusal_frame"), (Known((b"\1" * 32, b"\2" * 32), True), "known_frame")):
        assert encode_message("auth", message).hex() == VECTORS[name]
        assert encode(decode_message("auth", bytes.fromhex(VECTORS[name]))) == encode(message)
