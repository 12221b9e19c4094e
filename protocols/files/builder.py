"""Content in, sealed chunks and a finished record out, in one read: sans-IO, each plain byte hashed once, each sealed byte once.

Memory: one pack, one block, what was fed, 68 bytes per chunk and the pages of the entry list.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..crypto import FORMAT, SUITE, aead_seal, sha256
from ..errors import InvalidObject, Reason
from ..limits import (
    BLOCK_BYTES,
    CHUNKS_PER_SEQUENCE,
    CHUNKS_PER_SEQUENCE_MAX,
    ENTRIES_PER_PAGE,
    INLINE_CONTENT_BYTES_MAX,
    MANIFEST_CHUNKS_MAX,
)
from ..merkle import EMPTY_ROOT, merkle_root
from ..types import ChunkName, ChunksRoot, Digest, DomainId, HashId, NetworkId, OwnerKey, SequenceRoot, UnixSeconds
from .entries import (
    Attributes,
    DigestBuilder,
    Entry,
    Kind,
    ListOrder,
    check_attributes,
    check_entry,
    check_path,
    decode_page,
    encode_page,
    page_hash,
)
from .hashid import c_value, hash_id
from .keys import CODEC_NONE, ChunkKey, ManifestSalt, OwnerSecrets, RecordClass, fresh_secret, manifest_key, record_key_commitment
from .layout import START, Position, is_packed, place_entry
from .manifest_format import ManifestHead, PageReference, TableRow, encode_attributes_page, encode_manifest
from .objects import REDUNDANCY_COPIES, Statement
from .padding import sealed_bytes
from .seal import pad, seal_piece
from .sequences import MANIFEST_SEQUENCE, SequenceDescriptor, chunks_root, sequence_root


@dataclass(frozen=True, slots=True)
class SealedChunk:
    """One chunk ready to be stored. sequence_index: 0 for the manifest. index: within its sequence."""

    sequence_index: int
    index: int
    name: ChunkName
    key: ChunkKey
    sealed: bytes

    def __repr__(self) -> str:
        return f"SealedChunk({self.sequence_index}/{self.index}, {self.name.hex()[:8]}, {len(self.sealed)} bytes)"


@dataclass(frozen=True)
class FinishedRecord:
    """All that is known of a record when its last byte is sealed. sequences: of the data, number 1 first.

    last_chunks: data chunks that were still open when ``finish`` was called; they are not handed out anywhere else.
    content_bytes: plain bytes of all entries. sealed_bytes: of all chunks, the manifest's too.
    """

    owner: OwnerKey
    record_class: RecordClass
    epoch: int
    hash_id: HashId
    c: Digest
    salt: bytes
    list_root: Digest
    pages: tuple[bytes, ...]
    entry_count: int
    sequences: tuple[SequenceDescriptor, ...]
    chunks_per_sequence: int
    last_chunks: tuple[SealedChunk, ...]
    manifest_chunks: tuple[SealedChunk, ...]
    manifest_root: SequenceRoot
    chunks_root: ChunksRoot
    record_key: bytes
    commitment: Digest
    manifest_salt: bytes
    content_bytes: int
    sealed_bytes: int

    def __repr__(self) -> str:
        return f"FinishedRecord({self.hash_id.hex()[:8]}, {self.entry_count} entries, {len(self.sequences)} sequences)"

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """The entry list."""
        return tuple(entry for page in self.pages for entry in decode_page(page))

    @cached_property
    def manifest_sequence(self) -> SequenceDescriptor:
        """Sequence 0."""
        return SequenceDescriptor(
            root=self.manifest_root,
            names=tuple(chunk.name for chunk in self.manifest_chunks),
            sizes=tuple(len(chunk.sealed) for chunk in self.manifest_chunks),
        )

    @cached_property
    def sequence_roots(self) -> tuple[SequenceRoot, ...]:
        """Leaves of chunks_root: the manifest's root first."""
        return (self.manifest_root, *(SequenceRoot(sequence.root) for sequence in self.sequences))

    @property
    def data_chunks(self) -> int:
        """Number of chunks outside the manifest."""
        return sum(len(sequence.names) for sequence in self.sequences)

    def statement(
        self,
        *,
        network: NetworkId,
        domain: DomainId,
        seq: int,
        follows: bytes,
        time_s: UnixSeconds,
        copies_wanted: int = 0,
        valid_until_s: UnixSeconds = UnixSeconds(0),
    ) -> Statement:
        """What the owner signs. seq and follows: of ``precedence.next_after`` what is known of this record."""
        return Statement(
            format=FORMAT,
            suite=SUITE,
            network=network,
            domain=domain,
            owner=self.owner,
            hash_id=self.hash_id,
            c=self.c,
            record_class=self.record_class,
            epoch=self.epoch,
            seq=seq,
            follows=follows,
            chunks_root=self.chunks_root,
            manifest_chunks=len(self.manifest_chunks),
            data_chunks=self.data_chunks,
            chunks_per_sequence=self.chunks_per_sequence,
            sealed_bytes=self.sealed_bytes,
            commitment=self.commitment,
            manifest_salt=self.manifest_salt,
            copies_wanted=copies_wanted,
            redundancy=REDUNDANCY_COPIES,
            codec=CODEC_NONE,
            valid_until_s=valid_until_s,
            time_s=time_s,
        )


@dataclass(slots=True)
class _OpenEntry:
    path: str
    kind: Kind
    executable: bool
    target: str
    attributes: Attributes
    size: int
    digest: DigestBuilder


class RecordBuilder:
    """Cuts and seals one record. Entries come in path-bytes order; the same content, cut how ever it is fed, gives the same chunks."""

    def __init__(
        self,
        owner: OwnerKey,
        secrets: OwnerSecrets,
        record_class: RecordClass,
        epoch: int,
        fresh: bytes,
        chunks_per_sequence: int = CHUNKS_PER_SEQUENCE,
        tags: Sequence[tuple[str, str]] = (),
    ) -> None:
        """fresh: 64 random bytes; a put that is resumed may use them again. tags: owner's own, kept in the manifest."""
        assert len(fresh) == 64
        assert 1 <= chunks_per_sequence <= CHUNKS_PER_SEQUENCE_MAX
        self._owner = owner
        self._secrets = secrets
        self._class = record_class
        self._epoch = epoch
        self._fresh = fresh
        self._chunks_per_sequence = chunks_per_sequence
        self._tags = tuple(tags)
        self._confidential = record_class is RecordClass.CONFIDENTIAL
        self._secret = fresh_secret(fresh, b"content") if self._confidential else secrets.epoch_secret(epoch)
        self._pack = bytearray()  # whole small entries, never above BLOCK_BYTES
        self._pack_blocks: list[tuple[bytes, int]] = []
        self._partial = bytearray()  # of the open entry: less than one block
        self._entry: _OpenEntry | None = None
        self._order = ListOrder()
        self._position: Position = START
        self._page_start: Position = START
        self._page_entries: list[Entry] = []
        self._page_attributes: list[Attributes] = []
        self._pages: list[bytes] = []
        self._attribute_pages: list[bytes] = []
        self._references: list[PageReference] = []
        self._rows: list[TableRow] = []
        self._content_bytes = 0
        self._finished = False

    # --- entries ---------------------------------------------------------------------------------------------------

    def begin_entry(
        self,
        path: str,
        kind: Kind,
        executable: bool = False,
        target: str = "",
        attributes: Attributes = Attributes(),
    ) -> None:
        """Opens the next entry. Raises InvalidObject(BAD_PATH | INTEGRITY)."""
        assert self._entry is None, "end_entry is missing"
        assert not self._finished
        check_path(path)
        check_attributes(attributes)
        check_entry(Entry(path, kind, executable, 0, EMPTY_ROOT, target))
        self._order.check(path, kind)
        self._entry = _OpenEntry(path, kind, executable, target, attributes, 0, DigestBuilder())

    def feed(self, data: bytes | bytearray | memoryview) -> list[SealedChunk]:
        """Next content of the open entry, any number of bytes; not kept. Result: chunks that became full."""
        entry = self._entry
        assert entry is not None, "begin_entry is missing"
        assert entry.kind == "file"
        sealed: list[SealedChunk] = []
        with memoryview(data) as given, given.cast("B") as view:
            start = 0
            if self._partial:
                start = min(BLOCK_BYTES - len(self._partial), len(view))
                self._partial += view[:start]
                if len(self._partial) == BLOCK_BYTES:
                    with memoryview(self._partial) as block:
                        self._seal_block(entry, block, sealed)
                    self._partial = bytearray()
            while len(view) - start >= BLOCK_BYTES:
                with view[start : start + BLOCK_BYTES] as block:
                    self._seal_block(entry, block, sealed)
                start += BLOCK_BYTES
            if start < len(view):
                self._partial += view[start:]
        return sealed

    def end_entry(self) -> list[SealedChunk]:
        """Closes the open entry. Result: chunks that became full."""
        entry = self._entry
        assert entry is not None, "begin_entry is missing"
        sealed: list[SealedChunk] = []
        size = entry.size + len(self._partial)
        if self._partial:
            with memoryview(self._partial) as rest:
                digest = sha256(rest)
            entry.digest.add(digest)
            block = (digest, len(self._partial))
            if is_packed(size):
                if len(self._pack) + size > BLOCK_BYTES:
                    self._close_pack(sealed)
                self._pack += self._partial
                self._pack_blocks.append(block)
            else:
                sealed.append(self._seal(self._partial, (block,)))
            self._partial = bytearray()
        self._content_bytes += size
        self._position = place_entry(self._position, size)[1]
        self._page_entries.append(Entry(entry.path, entry.kind, entry.executable, size, entry.digest.root(), entry.target))
        self._page_attributes.append(entry.attributes)
        self._entry = None
        if len(self._page_entries) == ENTRIES_PER_PAGE:
            self._close_page()
        return sealed

    def _seal_block(self, entry: _OpenEntry, block: memoryview, sealed: list[SealedChunk]) -> None:
        if entry.size == 0:
            self._close_pack(sealed)
        digest = sha256(block)
        entry.digest.add(digest)
        entry.size += BLOCK_BYTES
        sealed.append(self._seal(block, ((digest, BLOCK_BYTES),)))

    def _close_pack(self, sealed: list[SealedChunk]) -> None:
        if self._pack:
            sealed.append(self._seal(self._pack, tuple(self._pack_blocks)))
            self._pack = bytearray()
            self._pack_blocks = []

    def _seal(self, content: bytearray | memoryview, blocks: tuple[tuple[bytes, int], ...]) -> SealedChunk:
        sequence_index = 1 + len(self._rows) // self._chunks_per_sequence
        index = len(self._rows) % self._chunks_per_sequence
        with memoryview(content) as view:
            place = (sequence_index, index) if self._confidential else None
            name, key, sealed = seal_piece(self._secret, view, blocks, place=place)
            self._rows.append(TableRow(name, key, len(view)))
        return SealedChunk(sequence_index, index, name, key, sealed)

    def _close_page(self) -> None:
        if not self._page_entries:
            return
        page = encode_page(self._page_entries)
        attributes = encode_attributes_page(self._page_attributes)
        self._pages.append(page)
        self._attribute_pages.append(attributes)
        self._references.append(
            PageReference(
                first_path=self._page_entries[0].path,
                page_hash=page_hash(page),
                page_bytes=len(page),
                attribute_bytes=len(attributes),
                chunk=self._page_start.chunk,
                fill=self._page_start.fill,
            )
        )
        self._page_entries = []
        self._page_attributes = []
        self._page_start = self._position

    # --- the end ---------------------------------------------------------------------------------------------------

    def finish(self) -> FinishedRecord:
        """The record, with the data chunks that were still open and the manifest's chunks.

        Raises InvalidObject(TOO_LONG) for a manifest above MANIFEST_CHUNKS_MAX chunks.
        """
        assert self._entry is None, "end_entry is missing"
        assert not self._finished
        self._finished = True
        self._close_page()
        sealed: list[SealedChunk] = []
        inline = b""
        if self._content_bytes <= INLINE_CONTENT_BYTES_MAX:
            inline = bytes(self._pack)  # the one pack: 64 KiB never fill it
        else:
            self._close_pack(sealed)
        list_root = merkle_root([reference.page_hash for reference in self._references])
        salt = fresh_secret(self._fresh, b"salt") if self._confidential else self._secrets.dedup_salt(list_root)
        c = c_value(salt, list_root)
        name = hash_id(self._owner, c)
        record_key = self._secrets.record_key(name, self._epoch)
        head = ManifestHead(
            format=FORMAT,
            suite=SUITE,
            record_class=self._class,
            epoch=self._epoch,
            salt=salt,
            entry_count=self._order.count,
            content_bytes=self._content_bytes,
            chunk_count=len(self._rows),
            chunks_per_sequence=self._chunks_per_sequence,
            inline_bytes=len(inline),
            tags=self._tags,
            pages=tuple(self._references),
        )
        plain = encode_manifest(head, inline, self._rows, self._pages, self._attribute_pages)
        manifest_salt, manifest = _seal_manifest(plain, record_key, self._fresh)
        sequences = tuple(_descriptors(self._rows, self._chunks_per_sequence))
        manifest_root = sequence_root([chunk.name for chunk in manifest])
        return FinishedRecord(
            owner=self._owner,
            record_class=self._class,
            epoch=self._epoch,
            hash_id=name,
            c=c,
            salt=salt,
            list_root=list_root,
            pages=tuple(self._pages),
            entry_count=self._order.count,
            sequences=sequences,
            chunks_per_sequence=self._chunks_per_sequence,
            last_chunks=tuple(sealed),
            manifest_chunks=manifest,
            manifest_root=manifest_root,
            chunks_root=chunks_root([manifest_root, *(sequence.root for sequence in sequences)]),
            record_key=record_key,
            commitment=record_key_commitment(record_key),
            manifest_salt=manifest_salt,
            content_bytes=self._content_bytes,
            sealed_bytes=sum(len(chunk.sealed) for chunk in manifest) + sum(sum(sequence.sizes) for sequence in sequences),
        )


def _seal_manifest(plain: bytes, record_key: bytes, fresh: bytes) -> tuple[ManifestSalt, tuple[SealedChunk, ...]]:
    """Salt and chunks. The salt comes from the manifest's own bytes too: fresh bytes used again never seal two manifests alike."""
    salt = ManifestSalt(fresh_secret(fresh, b"manifest-salt", sha256(plain)))
    count = -(-len(plain) // BLOCK_BYTES)
    if count > MANIFEST_CHUNKS_MAX:
        raise InvalidObject(Reason.TOO_LONG, f"manifest of {count} chunks, at most {MANIFEST_CHUNKS_MAX} wanted")
    chunks = []
    with memoryview(plain) as view:
        for index in range(count):
            key = manifest_key(record_key, salt, index)
            sealed = aead_seal(key, pad(view[index * BLOCK_BYTES : (index + 1) * BLOCK_BYTES]))
            chunks.append(SealedChunk(MANIFEST_SEQUENCE, index, ChunkName(sha256(sealed)), key, sealed))
    return salt, tuple(chunks)


def _descriptors(rows: Sequence[TableRow], chunks_per_sequence: int) -> Iterator[SequenceDescriptor]:
    for start in range(0, len(rows), chunks_per_sequence):
        run = rows[start : start + chunks_per_sequence]
        names = tuple(row.name for row in run)
        yield SequenceDescriptor(root=sequence_root(names), names=names, sizes=tuple(sealed_bytes(row.content_bytes) for row in run))
