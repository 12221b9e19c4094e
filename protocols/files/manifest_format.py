"""Bytes of a manifest before it is cut and sealed (SPEC.md §Manifest).

4-byte big-endian length of the head | head | inline content | chunk table | for each page: entries | attributes.
The table has rows of one size and the head says where each page begins, so that one entry needs only a few manifest chunks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from ..codec import Record, decode, encode
from ..crypto import FORMAT, SUITE
from ..errors import InvalidObject, Reason
from ..limits import (
    BLOCK_BYTES,
    CHUNKS_PER_SEQUENCE_MAX,
    ENTRIES_MAX,
    ENTRIES_PER_PAGE,
    ENTRY_PAGE_BYTES_MAX,
    INLINE_CONTENT_BYTES_MAX,
    MANIFEST_CHUNKS_MAX,
    MANIFEST_HEAD_BYTES_MAX,
    PATH_BYTES_MAX,
    TAGS_MAX,
)
from ..merkle import merkle_root
from .entries import Attributes, AttributesPage, check_attributes, path_bytes
from .hashid import c_value
from .keys import RecordClass
from .objects import DATA_CHUNKS_MAX, Statement, check_lengths, check_numbers, check_that

PREFIX_BYTES = 4
ROW_BYTES = 32 + 32 + 4
MANIFEST_BYTES_MAX = MANIFEST_CHUNKS_MAX * BLOCK_BYTES
TAG_BYTES_MAX = 1024


class PageReference(Record, frozen=True):
    """Where one page stands and where its content begins.

    page_bytes, attribute_bytes: sizes in the manifest; pages stand one after the other. chunk, fill: layout position of
    the page's first entry.
    """

    first_path: str
    page_hash: bytes
    page_bytes: int
    attribute_bytes: int
    chunk: int
    fill: int


class ManifestHead(Record, frozen=True):
    """What has to be known of a record before any of its pages. tags: owner's own, (name, value)."""

    format: int
    suite: int
    record_class: RecordClass
    epoch: int
    salt: bytes
    entry_count: int
    content_bytes: int
    chunk_count: int
    chunks_per_sequence: int
    inline_bytes: int
    tags: tuple[tuple[str, str], ...]
    pages: tuple[PageReference, ...]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One data chunk. content_bytes: without padding."""

    name: bytes
    key: bytes
    content_bytes: int

    def __repr__(self) -> str:
        return f"TableRow({self.name.hex()[:8]}, {self.content_bytes} bytes)"


@dataclass(frozen=True, slots=True)
class Span:
    """Bytes start..end of the manifest."""

    start: int
    end: int


@dataclass(frozen=True, slots=True)
class PageSpans:
    """Where one page's entries and attributes stand."""

    entries: Span
    attributes: Span


class Outline:
    """Where everything of one manifest stands, from its head. head_bytes: without the prefix."""

    def __init__(self, head: ManifestHead, head_bytes: int) -> None:
        self.head = head
        self.inline = Span(PREFIX_BYTES + head_bytes, PREFIX_BYTES + head_bytes + head.inline_bytes)
        self.table = Span(self.inline.end, self.inline.end + head.chunk_count * ROW_BYTES)
        pages = []
        start = self.table.end
        for page in head.pages:
            middle = start + page.page_bytes
            end = middle + page.attribute_bytes
            pages.append(PageSpans(Span(start, middle), Span(middle, end)))
            start = end
        self.pages = tuple(pages)
        self.total_bytes = start

    def rows(self, first: int, end: int) -> Span:
        """Where rows first..end of the chunk table stand."""
        return Span(self.table.start + first * ROW_BYTES, self.table.start + end * ROW_BYTES)


def chunks_of_span(span: Span) -> range:
    """Indexes of the manifest chunks that hold these bytes."""
    return range(span.start // BLOCK_BYTES, -(-span.end // BLOCK_BYTES)) if span.end > span.start else range(0)


def encode_attributes_page(attributes: Sequence[Attributes]) -> bytes:
    """Bytes of one page's attributes."""
    return encode(AttributesPage(format=FORMAT, suite=SUITE, attributes=tuple(attributes)))


def decode_attributes_page(data: bytes | memoryview, count: int) -> tuple[Attributes, ...]:
    """Attributes of the ``count`` entries of one page. Raises DecodeError, InvalidObject."""
    value = decode(data, AttributesPage, bytes_max=ENTRY_PAGE_BYTES_MAX)
    if value.format != FORMAT or value.suite != SUITE:
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"attributes of format {value.format}, suite {value.suite}")
    check_that(len(value.attributes) == count, f"attributes of {len(value.attributes)} entries, {count} wanted")
    for attributes in value.attributes:
        check_attributes(attributes)
    return value.attributes


def encode_manifest(
    head: ManifestHead,
    inline: bytes,
    rows: Sequence[TableRow],
    pages: Sequence[bytes],
    attribute_pages: Sequence[bytes],
) -> bytes:
    """The whole manifest. Raises InvalidObject(TOO_LONG) for a head above its bound."""
    encoded = encode(head)
    if len(encoded) > MANIFEST_HEAD_BYTES_MAX:
        raise InvalidObject(Reason.TOO_LONG, f"manifest head of {len(encoded)} bytes, at most {MANIFEST_HEAD_BYTES_MAX} wanted")
    parts = [len(encoded).to_bytes(PREFIX_BYTES, "big"), encoded, inline]
    parts += [row.name + row.key + row.content_bytes.to_bytes(4, "big") for row in rows]
    for page, attributes in zip(pages, attribute_pages, strict=True):
        parts += [page, attributes]
    return b"".join(parts)


def head_bytes_untrusted(first_chunk: bytes | memoryview) -> int:
    """Length of the head, from the beginning of the manifest. Raises InvalidObject(TOO_LONG | TRUNCATED)."""
    if len(first_chunk) < PREFIX_BYTES:
        raise InvalidObject(Reason.TRUNCATED, "manifest without a head")
    size = int.from_bytes(first_chunk[:PREFIX_BYTES], "big")
    if size > MANIFEST_HEAD_BYTES_MAX:
        raise InvalidObject(Reason.TOO_LONG, f"manifest head of {size} bytes, at most {MANIFEST_HEAD_BYTES_MAX} wanted")
    return size


def decode_head(data: bytes | memoryview, statement: Statement) -> Outline:
    """Head of the manifest that ``statement`` speaks of. Raises DecodeError, InvalidObject.

    Checked here: bounds, agreement with the statement, and, since the head has the hashes of all pages, list root, C and so
    HashID. What a page says is checked against its hash when it is read.
    """
    head = decode(data, ManifestHead, bytes_max=MANIFEST_HEAD_BYTES_MAX)
    if head.format != FORMAT or head.suite != SUITE:
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"manifest of format {head.format}, suite {head.suite}")
    check_lengths(32, salt=head.salt)
    check_numbers(epoch=head.epoch, content_bytes=head.content_bytes)
    check_that(head.record_class is statement.record_class and head.epoch == statement.epoch, "manifest of another class or epoch")
    check_that(head.chunk_count == statement.data_chunks <= DATA_CHUNKS_MAX, "manifest with another number of chunks")
    check_that(1 <= head.chunks_per_sequence <= CHUNKS_PER_SEQUENCE_MAX, "impossible number of chunks per sequence")
    check_that(head.chunks_per_sequence == statement.chunks_per_sequence, "manifest with other sequences than the statement")
    is_inline = head.content_bytes <= INLINE_CONTENT_BYTES_MAX
    check_that(head.inline_bytes == (head.content_bytes if is_inline else 0), "inline content that is not all or nothing")
    check_that(not is_inline or head.chunk_count == 0, "data chunks beside inline content")
    check_that(0 <= head.entry_count <= ENTRIES_MAX, f"{head.entry_count} entries, at most {ENTRIES_MAX} wanted")
    check_that(len(head.pages) == -(-head.entry_count // ENTRIES_PER_PAGE), "number of pages is not that of the entries")
    check_that(len(head.tags) <= TAGS_MAX, f"{len(head.tags)} tags, at most {TAGS_MAX} wanted")
    for name, value in head.tags:
        check_that(len(path_bytes(name)) + len(path_bytes(value)) <= TAG_BYTES_MAX, f"tag above {TAG_BYTES_MAX} bytes")
    for page in head.pages:
        check_lengths(32, page_hash=page.page_hash)
        check_that(len(path_bytes(page.first_path)) <= PATH_BYTES_MAX, "path of a page is too long")
        check_that(0 < page.page_bytes <= ENTRY_PAGE_BYTES_MAX, "page of an impossible size")
        check_that(0 < page.attribute_bytes <= ENTRY_PAGE_BYTES_MAX, "attributes of an impossible size")
        check_that(0 <= page.chunk <= head.chunk_count and 0 <= page.fill <= BLOCK_BYTES, "page that begins nowhere")
    for before, after in pairwise(head.pages):
        check_that(path_bytes(before.first_path) < path_bytes(after.first_path), "pages out of order")
        check_that((before.chunk, before.fill) <= (after.chunk, after.fill), "pages out of order")
    if c_value(head.salt, merkle_root([page.page_hash for page in head.pages])) != statement.c:
        raise InvalidObject(Reason.WRONG_HASHID, "entry list is not the one of this HashID")
    outline = Outline(head, len(data))
    check_that(-(-outline.total_bytes // BLOCK_BYTES) == statement.manifest_chunks, "manifest of another size than the statement says")
    return outline


def decode_rows(data: memoryview) -> Iterator[TableRow]:
    """Rows of the chunk table. Raises InvalidObject(INTEGRITY)."""
    for start in range(0, len(data), ROW_BYTES):
        row = bytes(data[start : start + ROW_BYTES])
        content_bytes = int.from_bytes(row[64:], "big")
        check_that(0 < content_bytes <= BLOCK_BYTES, f"chunk with content of {content_bytes} bytes")
        yield TableRow(name=row[:32], key=row[32:64], content_bytes=content_bytes)
