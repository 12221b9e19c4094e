"""A signed object together with the certificates that say who its signer is, so that it can be judged wherever it arrives."""

from __future__ import annotations

from ..codec import Record
from ..signed import Signed
from ..types import Digest


class Attested(Record, frozen=True):
    """envelope: the signed object. chain: DER certificates from the signer's up, root left out; empty when the root signed."""

    envelope: Signed
    chain: tuple[bytes, ...]

    @property
    def object_hash(self) -> Digest:
        """Hash that names the object, whatever certificates came with it. 32 bytes."""
        return self.envelope.object_hash


class KnownFence(Record, frozen=True):
    """A signed fence and the 32-byte secret whose hash it names. Only ever inside a proven connection or a sealed answer."""

    attested: Attested
    secret: bytes
