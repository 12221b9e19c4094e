"""Small records, objects and nodes for tests: everything from a name, nothing from chance."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from protocols.crypto import FORMAT, SUITE, SigningKey, sha256
from protocols.files.builder import FinishedRecord, RecordBuilder, SealedChunk
from protocols.files.entries import Attributes
from protocols.files.hashid import c_value, hash_id
from protocols.files.holdings import Receipt, ReceiptItem, Withdrawal, WithdrawnItem
from protocols.files.keys import OwnerSecrets, RecordClass
from protocols.files.objects import Statement, Tombstone, wraps_digest
from protocols.files.precedence import Known, Next, Order
from protocols.types import (
    ChunksRoot,
    Digest,
    DomainId,
    NetworkId,
    OwnerKey,
    PeerId,
    SequenceRoot,
    StoreId,
    UnixSeconds,
)

NETWORK = NetworkId(b"\x11" * 32)
DOMAIN = DomainId(b"\x22" * 32)
OWNER = SigningKey(bytes(range(32, 64)))
SECRETS = OwnerSecrets(bytes(range(32)))
FRESH = bytes(range(128, 192))
NOW = UnixSeconds(1_800_000_000)


def content(name: str, size: int) -> bytes:
    """Bytes that belong to a name."""
    return hashlib.shake_128(name.encode()).digest(size)


@dataclass(frozen=True)
class Built:
    """A record, its data chunks by (sequence, index), and the content that it was made of."""

    record: FinishedRecord
    chunks: Mapping[tuple[int, int], SealedChunk]
    files: Mapping[str, bytes]

    def statement(self, seq: int = 1, follows: bytes = b"") -> Statement:
        return self.record.statement(network=NETWORK, domain=DOMAIN, seq=seq, follows=follows, time_s=NOW)

    @property
    def manifest(self) -> list[bytes]:
        return [chunk.sealed for chunk in self.record.manifest_chunks]


def build(
    files: Mapping[str, bytes],
    *,
    record_class: RecordClass = RecordClass.DEDUP,
    epoch: int = 0,
    fresh: bytes = FRESH,
    chunks_per_sequence: int = 4,
    feeds: Sequence[int] = (1 << 22,),
    attributes: Attributes = Attributes(),
) -> Built:
    """A record of plain files. feeds: sizes of what is fed, over and over."""
    builder = RecordBuilder(OWNER.public, SECRETS, record_class, epoch, fresh, chunks_per_sequence)
    sealed: list[SealedChunk] = []
    for path in sorted(files, key=lambda path: path.encode()):
        builder.begin_entry(path, "file", attributes=attributes)
        start = 0
        turn = 0
        while start < len(files[path]):
            size = feeds[turn % len(feeds)]
            sealed += builder.feed(memoryview(files[path])[start : start + size])
            start += size
            turn += 1
        sealed += builder.end_entry()
    record = builder.finish()
    sealed += record.last_chunks
    return Built(record, {(chunk.sequence_index, chunk.index): chunk for chunk in sealed}, files)


# --- objects of one record ----------------------------------------------------------------------------------------

C = c_value(b"\x44" * 32, sha256(b"list root"))
HASH_ID = hash_id(OWNER.public, C)
RECORD = (OWNER.public, HASH_ID)


def statement(after: Next, name: str = "", owner: OwnerKey = OWNER.public) -> Statement:
    """A possible statement; ``name`` makes it another one."""
    return Statement(
        format=FORMAT,
        suite=SUITE,
        network=NETWORK,
        domain=DOMAIN,
        owner=owner,
        hash_id=hash_id(owner, C),
        c=C,
        record_class=RecordClass.DEDUP,
        epoch=0,
        seq=after.seq,
        follows=after.follows,
        chunks_root=ChunksRoot(sha256(name.encode())),
        manifest_chunks=1,
        data_chunks=0,
        chunks_per_sequence=16,
        sealed_bytes=1040,
        commitment=sha256(b"commitment"),
        manifest_salt=bytes(32),
        copies_wanted=0,
        redundancy=0,
        codec=0,
        valid_until_s=UnixSeconds(0),
        time_s=NOW,
    )


def tombstone(after: Next, name: str = "") -> Tombstone:
    """A possible tombstone; ``name`` makes it another one."""
    return Tombstone(
        format=FORMAT,
        suite=SUITE,
        network=NETWORK,
        domain=DOMAIN,
        owner=OWNER.public,
        hash_id=HASH_ID,
        c=C,
        seq=after.seq,
        follows=after.follows,
        covers=after.covers,
        act="delete",
        time_s=UnixSeconds(NOW + len(name)),
    )


def known(value: Statement | Tombstone) -> Known:
    """The object under a hash of its own, without a signature."""
    return Known(sha256(repr(value).encode()), value)


def peer(name: str) -> PeerId:
    """A node's id; nothing is signed by it."""
    return PeerId(bytes.fromhex("002408011220") + sha256(name.encode()))


def root(name: str) -> SequenceRoot:
    return SequenceRoot(sha256(name.encode()))


def receipt(
    holder: str, roots: Sequence[str], *, counter: int = 1, generation: int = 1, names: Order = (1, bytes(32)), days: int = 1
) -> Receipt:
    """A receipt of a holder for sequences of RECORD, from NOW."""
    item = ReceiptItem(
        owner=OWNER.public,
        hash_id=HASH_ID,
        seq=names[0],
        object_hash=Digest(names[1]),
        wraps=wraps_digest(()),
        sequence_roots=tuple(sorted(root(name) for name in roots)),
    )
    return Receipt(
        format=FORMAT,
        suite=SUITE,
        network=NETWORK,
        holder=peer(holder),
        store_id=StoreId(b"\x33" * 16),
        generation=generation,
        counter=counter,
        from_s=NOW,
        until_s=UnixSeconds(NOW + days * 86400),
        items=(item,),
    )


def withdrawal(holder: str, roots: Sequence[str], *, counter: int, generation: int = 1) -> Withdrawal:
    """A withdrawal of a holder for sequences of RECORD."""
    item = WithdrawnItem(OWNER.public, HASH_ID, tuple(sorted(root(name) for name in roots)))
    return Withdrawal(FORMAT, SUITE, NETWORK, peer(holder), StoreId(b"\x33" * 16), generation, counter, NOW, (item,))
