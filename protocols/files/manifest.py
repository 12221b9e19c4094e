"""Sequence 0, read: whole, or as much as one entry needs. Nothing is given out before it was checked against the statement."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from ..crypto import aead_open, sha256
from ..errors import InvalidObject, Reason
from ..limits import BLOCK_BYTES, ENTRIES_PER_PAGE, INLINE_CONTENT_BYTES_MAX
from ..types import ChunkName
from .entries import Attributes, Entry, ListOrder, decode_page, page_hash, path_bytes
from .keys import ChunkKey, manifest_key
from .layout import START, Place, Position, closed, is_packed, place_entry
from .manifest_format import (
    PREFIX_BYTES,
    ManifestHead,
    Outline,
    Span,
    TableRow,
    chunks_of_span,
    decode_attributes_page,
    decode_head,
    decode_rows,
    head_bytes_untrusted,
)
from .objects import Statement, check_commitment, check_statement, check_that
from .padding import padded_bytes, sealed_bytes
from .seal import check_chunk_name, has_name, open_chunk, open_full_chunk_into
from .sequences import MANIFEST_SEQUENCE, check_sequence, chunks_root, sequence_root


@dataclass(frozen=True, slots=True)
class Part:
    """Some of an entry's content: ``length`` bytes from ``offset`` of the content of one chunk. sequence_index: from 1."""

    sequence_index: int
    chunk_index: int
    offset: int
    length: int


@dataclass(frozen=True, slots=True)
class Slice:
    """Some of a chunk's content and where it belongs."""

    entry_index: int
    entry_offset: int
    chunk_offset: int
    length: int


@dataclass(frozen=True, slots=True)
class PlannedChunk:
    """One chunk to fetch and open. sealed_bytes: its size as stored. slices: whom it serves, in order of offsets."""

    sequence_index: int
    chunk_index: int
    name: ChunkName
    key: ChunkKey
    content_bytes: int
    slices: tuple[Slice, ...]

    @property
    def sealed_bytes(self) -> int:
        return sealed_bytes(self.content_bytes)

    def open(self, sealed: bytes | memoryview, *, hashed: bool = False) -> bytes | memoryview:
        """Content without padding. hashed: the name was just compared. Raises InvalidObject(WRONG_NAME | BAD_TAG | INTEGRITY)."""
        return open_chunk(self.name, self.key, sealed, self.content_bytes, hashed=hashed)

    def is_content(self, content: bytes | bytearray) -> bool:
        """Whether this is the whole content: sealed again it has the chunk's name."""
        return len(content) == self.content_bytes and has_name(self.name, self.key, content)

    def open_into(self, sealed: bytes | memoryview, out: memoryview) -> None:
        """Content of a full chunk, whose name was just compared, into ``out`` of BLOCK_BYTES. Raises InvalidObject(BAD_TAG | INTEGRITY);
        ``out`` has nothing to be used then."""
        assert self.content_bytes == BLOCK_BYTES == len(out)
        open_full_chunk_into(self.key, sealed, out)

    def __repr__(self) -> str:
        return f"PlannedChunk({self.sequence_index}/{self.chunk_index}, {self.name.hex()[:8]}, {len(self.slices)} slices)"


@dataclass(frozen=True, slots=True)
class ManifestSequence:
    """One data sequence as the manifest lists it. sizes: sealed bytes of each chunk."""

    root: bytes
    names: tuple[bytes, ...]
    keys: tuple[bytes, ...]
    sizes: tuple[int, ...]

    def __repr__(self) -> str:
        return f"ManifestSequence({self.root.hex()[:8]}, {len(self.names)} chunks)"


def _parts(place: Place, size: int, chunks_per_sequence: int) -> tuple[Part, ...]:
    parts = []
    for number, start in enumerate(range(0, size, BLOCK_BYTES), start=place.chunk):
        sequence_index, chunk_index = divmod(number, chunks_per_sequence)
        parts.append(Part(1 + sequence_index, chunk_index, place.offset, min(BLOCK_BYTES, size - start)))
    return tuple(parts)


@dataclass(frozen=True)
class Manifest:
    """A whole manifest, checked. places: where each entry's content begins (in the inline content where there is any)."""

    statement: Statement
    head: ManifestHead
    entries: tuple[Entry, ...]
    attributes: tuple[Attributes, ...]
    places: tuple[Place, ...]
    rows: tuple[TableRow, ...]
    inline: bytes

    def __repr__(self) -> str:
        return f"Manifest({self.statement.hash_id.hex()[:8]}, {len(self.entries)} entries, {len(self.rows)} chunks)"

    @property
    def tags(self) -> tuple[tuple[str, str], ...]:
        return self.head.tags

    @property
    def is_inline(self) -> bool:
        """Whether all content is in the manifest and there is no other chunk."""
        return self.head.content_bytes <= INLINE_CONTENT_BYTES_MAX

    @cached_property
    def sequences(self) -> tuple[ManifestSequence, ...]:
        """The data sequences, number 1 first."""
        size = self.head.chunks_per_sequence
        runs = (self.rows[start : start + size] for start in range(0, len(self.rows), size))
        return tuple(
            ManifestSequence(
                root=sequence_root([row.name for row in run]),
                names=tuple(row.name for row in run),
                keys=tuple(row.key for row in run),
                sizes=tuple(sealed_bytes(row.content_bytes) for row in run),
            )
            for run in runs
        )

    def index_of(self, path: str) -> int:
        """Index of the entry at ``path``. Raises InvalidObject(NOT_FOUND)."""
        wanted = path_bytes(path)
        low, high = 0, len(self.entries)
        while low < high:
            middle = (low + high) // 2
            if path_bytes(self.entries[middle].path) < wanted:
                low = middle + 1
            else:
                high = middle
        if low == len(self.entries) or self.entries[low].path != path:
            raise InvalidObject(Reason.NOT_FOUND, f"no entry {path!r}")
        return low

    def inline_of(self, entry_index: int) -> bytes | None:
        """Content of an entry when it rides inline, else None."""
        if not self.is_inline:
            return None
        start = self.places[entry_index].offset
        return self.inline[start : start + self.entries[entry_index].size]

    def parts_of(self, entry_index: int) -> tuple[Part, ...]:
        """Where the content of an entry stands, in order; nothing when it is empty or inline."""
        if self.is_inline:
            return ()
        return _parts(self.places[entry_index], self.entries[entry_index].size, self.head.chunks_per_sequence)

    def plan(self) -> Iterator[PlannedChunk]:
        """Every data chunk in order, with the slices that it serves."""
        if self.is_inline:
            return
        slices: list[Slice] = []
        number = 0
        for entry_index, (entry, place) in enumerate(zip(self.entries, self.places, strict=True)):
            if entry.size == 0:
                continue
            if place.chunk != number:
                yield self._planned(number, slices)
                slices, number = [], place.chunk
            if is_packed(entry.size):
                slices.append(Slice(entry_index, 0, place.offset, entry.size))
                continue
            for start in range(0, entry.size, BLOCK_BYTES):
                if slices:
                    yield self._planned(number, slices)
                    number += 1
                slices = [Slice(entry_index, start, 0, min(BLOCK_BYTES, entry.size - start))]
        if slices:
            yield self._planned(number, slices)

    def _planned(self, number: int, slices: Sequence[Slice]) -> PlannedChunk:
        return _planned(self.rows[number], number, self.head.chunks_per_sequence, slices)


def _planned(row: TableRow, number: int, chunks_per_sequence: int, slices: Sequence[Slice]) -> PlannedChunk:
    sequence_index, chunk_index = divmod(number, chunks_per_sequence)
    return PlannedChunk(
        sequence_index=1 + sequence_index,
        chunk_index=chunk_index,
        name=ChunkName(row.name),
        key=ChunkKey(row.key),
        content_bytes=row.content_bytes,
        slices=tuple(slices),
    )


# --- reading all --------------------------------------------------------------------------------------------------


def open_manifest(statement: Statement, record_key: bytes, sealed_chunks: Sequence[bytes]) -> Manifest:
    """The manifest with everything checked: commitment, tags, list root, C, HashID, cuts, and all names against chunks_root.

    sealed_chunks: all of sequence 0, in order. Raises InvalidObject, DecodeError.
    """
    check_statement(statement)
    check_commitment(record_key, statement.commitment)
    check_that(len(sealed_chunks) == statement.manifest_chunks, f"{len(sealed_chunks)} manifest chunks")
    plain = b"".join(
        aead_open(manifest_key(record_key, statement.manifest_salt, index), sealed) for index, sealed in enumerate(sealed_chunks)
    )
    size = head_bytes_untrusted(plain)
    outline = decode_head(plain[PREFIX_BYTES : PREFIX_BYTES + size], statement)
    head = outline.head
    check_that(len(plain) == _padded_stream_bytes(outline.total_bytes), "manifest of another size than its head says")
    check_that(plain.count(0, outline.total_bytes) == len(plain) - outline.total_bytes, "padding is not zero")
    view = memoryview(plain)
    rows = tuple(decode_rows(view[outline.table.start : outline.table.end]))
    entries, attributes = _read_pages(outline, view)
    places = _place_all(head, entries, rows)
    names = [sha256(sealed) for sealed in sealed_chunks]
    manifest = Manifest(
        statement=statement,
        head=head,
        entries=entries,
        attributes=attributes,
        places=places,
        rows=rows,
        inline=plain[outline.inline.start : outline.inline.end],
    )
    if chunks_root([sequence_root(names), *(sequence.root for sequence in manifest.sequences)]) != statement.chunks_root:
        raise InvalidObject(Reason.WRONG_NAME, "chunk names are not those of the statement")
    _check_sealed_bytes(statement, sum(len(sealed) for sealed in sealed_chunks), rows)
    return manifest


def _padded_stream_bytes(total_bytes: int) -> int:
    full, rest = divmod(total_bytes, BLOCK_BYTES)
    return full * BLOCK_BYTES + (padded_bytes(rest) if rest else 0)


def _check_sealed_bytes(statement: Statement, manifest_bytes: int, rows: Sequence[TableRow]) -> None:
    total = manifest_bytes + sum(sealed_bytes(row.content_bytes) for row in rows)
    check_that(total == statement.sealed_bytes, f"{total} sealed bytes, {statement.sealed_bytes} stated")


def _read_page(page: memoryview, wanted_hash: bytes, first_path: str) -> tuple[Entry, ...]:
    raw = bytes(page)
    if page_hash(raw) != wanted_hash:
        raise InvalidObject(Reason.INTEGRITY, "page of the entry list does not have its hash")
    entries = decode_page(raw)
    check_that(entries[0].path == first_path, "page begins with another entry than its head says")
    return entries


def _read_pages(outline: Outline, view: memoryview) -> tuple[tuple[Entry, ...], tuple[Attributes, ...]]:
    entries: list[Entry] = []
    attributes: list[Attributes] = []
    for reference, spans in zip(outline.head.pages, outline.pages, strict=True):
        page = _read_page(view[spans.entries.start : spans.entries.end], reference.page_hash, reference.first_path)
        attributes += decode_attributes_page(view[spans.attributes.start : spans.attributes.end], len(page))
        entries += page
        wanted = min(outline.head.entry_count, len(entries) - len(page) + ENTRIES_PER_PAGE)
        check_that(len(entries) == wanted, "page that is not full before the last")
    order = ListOrder()
    for entry in entries:
        order.check(entry.path, entry.kind)
    return tuple(entries), tuple(attributes)


def _place_all(head: ManifestHead, entries: Sequence[Entry], rows: Sequence[TableRow]) -> tuple[Place, ...]:
    """Places of all entries, after checking that the cuts are those of the sizes."""
    check_that(sum(entry.size for entry in entries) == head.content_bytes, "sizes of the entries are not that of the record")
    position = START
    places: list[Place] = []
    contents: list[int] = []  # of the chunks closed so far
    for index, entry in enumerate(entries):
        if index % ENTRIES_PER_PAGE == 0:
            reference = head.pages[index // ENTRIES_PER_PAGE]
            check_that((reference.chunk, reference.fill) == (position.chunk, position.fill), "page that begins elsewhere")
        place, after = place_entry(position, entry.size)
        if after.chunk > position.chunk:
            check_that(after.chunk <= head.chunk_count, "content beyond the last chunk")
            if position.fill:
                contents.append(position.fill)
            if not is_packed(entry.size):
                contents += [BLOCK_BYTES] * (entry.size // BLOCK_BYTES)
                contents += [entry.size % BLOCK_BYTES] if entry.size % BLOCK_BYTES else []
        places.append(place)
        position = after
    if head.inline_bytes == 0 and position.fill:
        contents.append(position.fill)
    if head.content_bytes > INLINE_CONTENT_BYTES_MAX:
        check_that(closed(position) == head.chunk_count, "number of chunks is not that of the sizes")
    check_that(contents == [row.content_bytes for row in rows], "cuts are not those of the sizes")
    return tuple(places)


# --- reading one entry --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class OpenedEntry:
    """One entry, its content inline or in chunks. entry_index in the slices is 0: there is one entry."""

    entry: Entry
    attributes: Attributes
    inline: bytes | None
    chunks: tuple[PlannedChunk, ...]


def page_of(head: ManifestHead, path: str) -> int:
    """Index of the page that would list ``path``. Raises InvalidObject(NOT_FOUND)."""
    page_index = bisect_right([path_bytes(page.first_path) for page in head.pages], path_bytes(path)) - 1
    if page_index < 0:
        raise InvalidObject(Reason.NOT_FOUND, f"no entry {path!r}")
    return page_index


def manifest_chunks_for(outline: Outline, path: str) -> tuple[int, ...]:
    """Manifest chunks that hold the page of ``path`` with its attributes, and the inline content: the second thing to fetch."""
    spans = outline.pages[page_of(outline.head, path)]
    found = {*chunks_of_span(outline.inline), *chunks_of_span(spans.entries), *chunks_of_span(spans.attributes)}
    return tuple(sorted(found))


class ManifestReader:
    """Opens one entry with as few manifest chunks as it needs: ask ``wants``, ``add`` what it names, until it wants nothing.

    Each manifest chunk is checked against its name before it is opened, its name against chunks_root, the page against the list
    root and so against HashID.
    """

    def __init__(self, statement: Statement, record_key: bytes, names: Sequence[bytes], path: Sequence[bytes]) -> None:
        """names: of sequence 0, with their path to chunks_root, as any holder gives them. Raises InvalidObject."""
        check_statement(statement)
        check_commitment(record_key, statement.commitment)
        check_sequence(statement, MANIFEST_SEQUENCE, names, path)
        self._statement = statement
        self._record_key = record_key
        self._names = tuple(names)
        self._plain: dict[int, bytes] = {}
        self._outline: Outline | None = None

    @property
    def outline(self) -> Outline | None:
        """Where everything stands, as soon as the head is there."""
        return self._outline

    def add(self, index: int, sealed: bytes) -> None:
        """One manifest chunk. Raises InvalidObject, DecodeError; with a name that fits, the whole manifest is bad then."""
        if not 0 <= index < len(self._names):
            raise InvalidObject(Reason.INTEGRITY, f"manifest chunk {index} of {len(self._names)}")
        check_chunk_name(self._names[index], sealed)
        plain = aead_open(manifest_key(self._record_key, self._statement.manifest_salt, index), sealed)
        check_that(len(plain) == BLOCK_BYTES or index == len(self._names) - 1, "manifest chunk that is not full before the last")
        self._plain[index] = plain
        if self._outline is None and not self._wants_of_head():
            size = head_bytes_untrusted(self._plain[0])
            self._outline = decode_head(self._read(Span(PREFIX_BYTES, PREFIX_BYTES + size)), self._statement)

    def _wants_of_head(self) -> tuple[int, ...]:
        if 0 not in self._plain:
            return (0,)
        return self._missing(Span(0, PREFIX_BYTES + head_bytes_untrusted(self._plain[0])))

    def _missing(self, *spans: Span) -> tuple[int, ...]:
        wanted = {index for span in spans for index in chunks_of_span(span)}
        if wanted and max(wanted) >= len(self._names):
            raise InvalidObject(Reason.INTEGRITY, "manifest ends before what its head says")
        return tuple(sorted(wanted - self._plain.keys()))

    def _read(self, span: Span) -> bytes:
        indexes = chunks_of_span(span)
        joined = b"".join(self._plain[index] for index in indexes)
        start = span.start - indexes.start * BLOCK_BYTES
        data = joined[start : start + span.end - span.start]
        check_that(len(data) == span.end - span.start, "manifest ends before what its head says")
        return data

    def _find(self, outline: Outline, path: str) -> tuple[Entry, Attributes, Place]:
        page_index = page_of(outline.head, path)
        reference, spans = outline.head.pages[page_index], outline.pages[page_index]
        entries = _read_page(memoryview(self._read(spans.entries)), reference.page_hash, reference.first_path)
        attributes = decode_attributes_page(self._read(spans.attributes), len(entries))
        position = Position(reference.chunk, reference.fill)
        for entry, its_attributes in zip(entries, attributes, strict=True):
            place, position = place_entry(position, entry.size)
            if entry.path == path:
                end = outline.head.inline_bytes if outline.head.inline_bytes else outline.head.chunk_count
                reach = place.offset + entry.size if outline.head.inline_bytes else closed(position)
                check_that(entry.size == 0 or reach <= end, "content beyond the last chunk")
                return entry, its_attributes, place
        raise InvalidObject(Reason.NOT_FOUND, f"no entry {path!r}")

    def _rows_of(self, outline: Outline, entry: Entry, place: Place) -> Span:
        count = 0 if outline.head.inline_bytes else -(-entry.size // BLOCK_BYTES)
        return outline.rows(place.chunk, place.chunk + count)

    def wants(self, path: str) -> tuple[int, ...]:
        """Manifest chunks still needed for the entry at ``path``; empty: ``take`` it. Raises InvalidObject(NOT_FOUND), DecodeError."""
        if self._outline is None:
            return self._wants_of_head()
        outline = self._outline
        spans = outline.pages[page_of(outline.head, path)]
        missing = self._missing(outline.inline, spans.entries, spans.attributes)
        if missing:
            return missing
        entry, _, place = self._find(outline, path)
        return self._missing(self._rows_of(outline, entry, place))

    def take(self, path: str) -> OpenedEntry:
        """The entry, when ``wants`` is empty. Raises InvalidObject, DecodeError."""
        assert self._outline is not None
        assert not self.wants(path)
        outline = self._outline
        entry, attributes, place = self._find(outline, path)
        if outline.head.content_bytes <= INLINE_CONTENT_BYTES_MAX:
            start = outline.inline.start + place.offset
            content = self._read(Span(start, start + entry.size)) if entry.size else b""
            return OpenedEntry(entry, attributes, inline=content, chunks=())
        chunks = []
        rows = decode_rows(memoryview(self._read(self._rows_of(outline, entry, place)))) if entry.size else iter(())
        for offset, row in enumerate(rows):
            start = offset * BLOCK_BYTES
            length = min(BLOCK_BYTES, entry.size - start)
            check_that(place.offset + length <= row.content_bytes, "chunk shorter than what it serves")
            piece = Slice(0, start, place.offset, length)
            chunks.append(_planned(row, place.chunk + offset, outline.head.chunks_per_sequence, (piece,)))
        return OpenedEntry(entry, attributes, inline=None, chunks=tuple(chunks))
