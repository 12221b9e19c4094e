"""Names for bytes and numbers. A bare ``bytes`` never crosses a function boundary when it has a meaning."""

from typing import NewType

Digest = NewType("Digest", bytes)
"""32 bytes, SHA-256."""
NetworkId = NewType("NetworkId", bytes)
"""32 bytes."""
DomainId = NewType("DomainId", bytes)
"""32 bytes: fingerprint (SHA-256 of the DER) of the domain's root certificate."""
MemberId = NewType("MemberId", bytes)
"""32 bytes: pseudonymous id of a member, SHA-256(label, real id, secret salt)."""
PeerId = NewType("PeerId", bytes)
"""libp2p peer id as bytes (identity multihash of the protobuf-wrapped Ed25519 key, 38 bytes)."""
OwnerKey = NewType("OwnerKey", bytes)
"""32 bytes: a member's Ed25519 public key in its role as owner of records."""
HpkeKey = NewType("HpkeKey", bytes)
"""32 bytes: X25519 public key."""
HashId = NewType("HashId", bytes)
"""32 bytes: name of a record."""
ChunkName = NewType("ChunkName", bytes)
"""32 bytes: SHA-256 of the sealed bytes of a chunk."""
SequenceRoot = NewType("SequenceRoot", bytes)
"""32 bytes: Merkle root of a sequence's chunk names."""
ChunksRoot = NewType("ChunksRoot", bytes)
"""32 bytes: Merkle root of a record's sequence roots, the manifest's first."""
Signature = NewType("Signature", bytes)
"""64 bytes, Ed25519."""
StoreId = NewType("StoreId", bytes)
"""16 bytes: random id of one chunk store."""
ChainId = NewType("ChainId", bytes)
"""32 bytes: id of a chain's genesis transaction; 32 zero bytes inside that transaction."""
TxId = NewType("TxId", bytes)
"""32 bytes: SHA-256 of a transaction's canonical content."""
BlockHash = NewType("BlockHash", bytes)
"""32 bytes: SHA-256 of a header."""
AccountId = NewType("AccountId", bytes)
"""32 bytes: pseudonym under which a chain knows a member (its MemberId in that domain)."""
UnixMillis = NewType("UnixMillis", int)
"""Whole milliseconds since 1970-01-01 UTC."""
UnixSeconds = NewType("UnixSeconds", int)
"""Whole seconds since 1970-01-01 UTC."""
RecordKey = tuple[OwnerKey, HashId]
"""All state, everywhere, is keyed by (owner, HashID)."""
