"""The name of a record, and the printed name of a chunk."""

from __future__ import annotations

import base64

from ..crypto import Label, hash_labelled
from ..errors import InvalidObject, Reason
from ..types import ChunkName, Digest, HashId, OwnerKey

# CIDv1: version 1, codec raw (0x55), multihash sha2-256 (0x12) of 32 bytes (0x20). Source: the CID and multicodec tables.
_CID_PREFIX = bytes((0x01, 0x55, 0x12, 0x20))


def c_value(salt: bytes, list_root: bytes) -> Digest:
    """C: public, says nothing of the content to whoever lacks the salt. salt: 32 bytes."""
    return hash_labelled(Label.HASH_ID_C, salt, list_root)


def hash_id(owner: OwnerKey, c: bytes) -> HashId:
    """HashID: everybody who has C recomputes it and sees whose record it is."""
    return HashId(hash_labelled(Label.HASH_ID, owner, c))


def check_hash_id(wanted: bytes, owner: bytes, c: bytes) -> None:
    """Raises InvalidObject(WRONG_HASHID) unless the HashID is this owner's with this C."""
    if len(c) != 32 or hash_id(OwnerKey(owner), c) != wanted:
        raise InvalidObject(Reason.WRONG_HASHID, "HashID is not that of this owner and C")


def cid_text(name: ChunkName) -> str:
    """CIDv1 of a chunk as any IPFS tool prints it: raw, sha2-256, base32 ("bafkrei…")."""
    return "b" + base64.b32encode(_CID_PREFIX + name).decode("ascii").rstrip("=").lower()


def chunk_name_of_cid(text: str) -> ChunkName:
    """Chunk name that ``cid_text`` printed. Raises InvalidObject(WRONG_NAME)."""
    try:
        raw = base64.b32decode(text[1:].upper() + "=" * (-len(text[1:]) % 8)) if text[:1] == "b" else b""
    except ValueError as error:
        raise InvalidObject(Reason.WRONG_NAME, f"not a CID: {text[:80]}") from error
    if raw[:4] != _CID_PREFIX or len(raw) != 36 or cid_text(ChunkName(raw[4:])) != text:
        raise InvalidObject(Reason.WRONG_NAME, f"not the CID of a chunk: {text[:80]}")
    return ChunkName(raw[4:])
