"""The owner's secrets and every key that is derived from them. Source: SPEC.md §Keys.

What must not change with epochs comes from the root, what is sealed comes from the epoch's secret.
"""

from __future__ import annotations

import enum
from typing import NewType

from ..codec import encode
from ..crypto import Label, hash_labelled, hkdf
from ..types import Digest, HashId

ChunkKey = NewType("ChunkKey", bytes)
"""32 bytes: seals one piece of content, and nothing else ever."""
ManifestSalt = NewType("ManifestSalt", bytes)
"""32 bytes, public, new for every manifest."""

CODEC_NONE = 0


class RecordClass(enum.Enum):
    """How the keys of the content are made: equal pieces of one owner give equal chunks, or never do."""

    DEDUP = "dedup"
    CONFIDENTIAL = "confidential"


def _number(value: int) -> bytes:
    return value.to_bytes(8, "big")


class OwnerSecrets:
    """One owner's root secret and what comes from it. With a HashID it opens everything that the owner has. Never printed."""

    __slots__ = ("_epochs", "_root")

    def __init__(self, root: bytes) -> None:
        """root: 32 random bytes."""
        assert len(root) == 32
        self._root = root
        self._epochs: dict[int, bytes] = {}
        """Secrets of epochs that were asked for: every put asks for the same."""

    def epoch_secret(self, epoch: int) -> bytes:
        """32 bytes: what seals the content of class `dedup` in that epoch."""
        secret = self._epochs.get(epoch)
        if secret is None:
            secret = self._epochs[epoch] = hkdf(self._root, Label.EPOCH, _number(epoch))
        return secret

    def dedup_salt(self, list_root: Digest) -> bytes:
        """32 bytes: salt of a record of class `dedup`; the same content has one HashID in every epoch."""
        return hkdf(self._root, Label.SALT, list_root)

    def record_key(self, hash_id: HashId, epoch: int) -> bytes:
        """32 bytes: opens the manifest of that record, and nothing else."""
        return hkdf(self._root, Label.RECORD, hash_id, _number(epoch))

    def __repr__(self) -> str:
        return "OwnerSecrets(…)"


def fresh_secret(fresh: bytes, purpose: bytes, *context: bytes) -> bytes:
    """32 bytes for one purpose out of the random bytes that a put was given. fresh: 64 bytes."""
    assert len(fresh) == 64
    return hkdf(fresh, Label.FRESH, purpose, *context)


def manifest_key(record_key: bytes, manifest_salt: bytes, index: int) -> ChunkKey:
    """Key of manifest chunk ``index``."""
    return ChunkKey(hkdf(record_key, Label.MANIFEST, manifest_salt, _number(index)))


def chunk_key(
    secret: bytes,
    blocks: tuple[tuple[bytes, int], ...],
    *,
    suite: int,
    codec: int,
    pad_bytes: int,
    place: tuple[int, int] | None,
) -> ChunkKey:
    """Key of one piece of content: everything that decides the sealed bytes is in it.

    secret: 32 bytes, the epoch's (class `dedup`) or the record's own (class `confidential`).
    blocks: (SHA-256, length) of every block of the piece, in order. pad_bytes: zero bytes after them.
    place: (sequence, index) for class `confidential`, else None.
    """
    facts = (suite, codec, pad_bytes, blocks, place)
    return ChunkKey(hkdf(secret, Label.CHUNK, hash_labelled(Label.CHUNK_KEY, encode(facts))))


def record_key_commitment(record_key: bytes) -> Digest:
    """32 bytes, public: what a statement says of the record key without giving it away."""
    return hash_labelled(Label.RECORD_KEY_COMMITMENT, record_key)
