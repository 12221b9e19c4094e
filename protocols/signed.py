"""The one envelope of every signed object: the exact bytes that were signed, who signed them, the signature."""

from __future__ import annotations

from typing import TypeVar

from .codec import Record, decode, encode
from .crypto import Label, SigningKey, hash_labelled, verify
from .types import Digest, NetworkId, OwnerKey, Signature

T = TypeVar("T")


class Signed(Record, frozen=True):
    """body: canonical encoding of the object; signer: Ed25519 public key, 32 bytes; signature: 64 bytes."""

    body: bytes
    signer: bytes
    signature: bytes

    @property
    def object_hash(self) -> Digest:
        """Hash that names this object (its body and signer, not the signature). 32 bytes."""
        return hash_labelled(Label.OBJECT, self.body, self.signer)


def sign_object(value: object, key: SigningKey, label: Label, network: NetworkId) -> Signed:
    """Envelope of ``value`` signed under ``label``."""
    body = encode(value)
    return Signed(body=body, signer=key.public, signature=key.sign(label, network, body))


def open_signed(envelope: Signed, kind: type[T], label: Label, network: NetworkId) -> tuple[T, OwnerKey]:
    """Value and signer after checking the signature. Raises InvalidObject(BAD_SIGNATURE), DecodeError."""
    verify(envelope.signer, Signature(envelope.signature), label, network, envelope.body)
    return decode(envelope.body, kind), OwnerKey(envelope.signer)
