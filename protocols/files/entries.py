"""What a record consists of: entries with digests, the sorted list in pages, the proof of one entry. Source: SPEC.md §Entries."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from ..codec import Record, decode, encode
from ..crypto import FORMAT, SUITE, Label, hash_labelled, sha256
from ..errors import InvalidObject, Reason
from ..limits import (
    BLOCK_BYTES,
    ENTRIES_MAX,
    ENTRIES_PER_PAGE,
    ENTRY_PAGE_BYTES_MAX,
    MEDIA_TYPE_BYTES_MAX,
    NOTES_BYTES_MAX,
    PATH_BYTES_MAX,
)
from ..merkle import EMPTY_ROOT, check_merkle_path, merkle_path, merkle_root
from ..types import Digest

Kind = Literal["file", "folder", "symlink"]

PAGES_MAX = -(-ENTRIES_MAX // ENTRIES_PER_PAGE)
ENTRY_BYTES_MAX = 1 << 48  # sums of a whole record stay far below what 64 bits hold


class Entry(Record, frozen=True):
    """One line of the entry list.

    path: relative, as given. size: content bytes, 0 unless a file. digest: Merkle root over the SHA-256 of each 256 KiB
    block, EMPTY_ROOT where there is no content. target: of a symlink, else empty.
    """

    path: str
    kind: Kind
    executable: bool
    size: int
    digest: bytes
    target: str


class EntryPage(Record, frozen=True):
    """Up to ENTRIES_PER_PAGE entries in path-bytes order."""

    format: int
    suite: int
    entries: tuple[Entry, ...]


class Attributes(Record, frozen=True):
    """What is kept of an entry outside the HashID. modified_ns: since 1970-01-01 UTC, None when unknown."""

    modified_ns: int | None = None
    media_type: str = ""
    notes: str = ""


class AttributesPage(Record, frozen=True):
    """Attributes of the entries of one page, in the same order."""

    format: int
    suite: int
    attributes: tuple[Attributes, ...]


class EntryProof(Record, frozen=True):
    """One page and its way to the list root: enough to prove any entry of that page."""

    format: int
    suite: int
    page: bytes
    page_index: int
    page_count: int
    path: tuple[bytes, ...]


def _bad_path(message: str) -> InvalidObject:
    return InvalidObject(Reason.BAD_PATH, message)


def path_bytes(path: str) -> bytes:
    """UTF-8 of a path: what entries are sorted by. Raises InvalidObject(BAD_PATH) for text that has none."""
    try:
        return path.encode("utf-8")
    except UnicodeEncodeError as error:
        raise _bad_path(f"path is not Unicode text: {path!r}") from error


def check_path(path: str) -> None:
    """Raises InvalidObject(BAD_PATH) unless the path is relative, without empty, `.` or `..` part, NUL, and not too long."""
    size = len(path_bytes(path))
    if not 0 < size <= PATH_BYTES_MAX:
        raise _bad_path(f"path of {size} bytes, 1 to {PATH_BYTES_MAX} wanted")
    if "\0" in path:
        raise _bad_path(f"path with a NUL: {path!r}")
    for part in path.split("/"):
        if part in ("", ".", ".."):
            raise _bad_path(f"path with an empty, '.' or '..' part: {path!r}")


def check_symlink_target(path: str, target: str) -> None:
    """Raises InvalidObject(BAD_PATH) unless the target of the link at ``path`` stays inside the record.

    `..` is allowed at the beginning only: after a part that may itself be a link it would mean another folder than it
    seems to. Links whose every step goes down or begins at a real folder cannot lead out, however they are chained.
    """
    if not 0 < len(path_bytes(target)) <= PATH_BYTES_MAX or "\0" in target:
        raise _bad_path(f"link target of no usable length: {target[:80]!r}")
    if target.startswith("/"):
        raise _bad_path(f"link target is absolute: {target!r}")
    depth = path.count("/")
    downward = False
    for part in target.split("/"):
        if part == "..":
            depth -= 1
            if downward or depth < 0:
                raise _bad_path(f"link target leaves the record: {path!r} -> {target!r}")
        elif part not in ("", "."):
            downward = True


def check_entry(entry: Entry) -> None:
    """Raises InvalidObject(BAD_PATH | INTEGRITY) unless the entry is possible taken alone."""
    check_path(entry.path)
    if entry.kind == "symlink":
        check_symlink_target(entry.path, entry.target)
    elif entry.target:
        raise InvalidObject(Reason.INTEGRITY, f"{entry.kind} with a link target: {entry.path!r}")
    if not 0 <= entry.size <= ENTRY_BYTES_MAX or len(entry.digest) != 32:
        raise InvalidObject(Reason.INTEGRITY, f"entry with impossible size or digest: {entry.path!r}")
    if entry.kind != "file" and (entry.size or entry.executable):
        raise InvalidObject(Reason.INTEGRITY, f"{entry.kind} with content or executable bit: {entry.path!r}")
    if (entry.size == 0) != (entry.digest == EMPTY_ROOT):
        raise InvalidObject(Reason.INTEGRITY, f"size and digest disagree on being empty: {entry.path!r}")


def check_attributes(attributes: Attributes) -> None:
    """Raises InvalidObject(INTEGRITY) for texts beyond their bounds."""
    if len(attributes.media_type.encode("utf-8", "surrogatepass")) > MEDIA_TYPE_BYTES_MAX:
        raise InvalidObject(Reason.INTEGRITY, f"media type above {MEDIA_TYPE_BYTES_MAX} bytes")
    if len(attributes.notes.encode("utf-8", "surrogatepass")) > NOTES_BYTES_MAX:
        raise InvalidObject(Reason.INTEGRITY, f"notes above {NOTES_BYTES_MAX} bytes")


class ListOrder:
    """Checks entries as they come: path-bytes order, no path twice, nothing below a file or link. Memory: the depth of a path."""

    def __init__(self) -> None:
        self._last = b""
        self._leaves: list[bytes] = []  # files and links that the last path begins with: only they can still be above a next one
        self.count = 0

    def check(self, path: str, kind: Kind) -> None:
        """Raises InvalidObject(BAD_PATH)."""
        raw = path_bytes(path)
        if raw <= self._last:
            raise _bad_path(f"path out of order or twice: {path!r}")
        while self._leaves and not raw.startswith(self._leaves[-1]):
            self._leaves.pop()
        if any(raw.startswith(leaf + b"/") for leaf in self._leaves):
            raise _bad_path(f"path below a file or link: {path!r}")
        if self.count >= ENTRIES_MAX:
            raise _bad_path(f"more than {ENTRIES_MAX} entries")
        if kind != "folder":
            self._leaves.append(raw)
        self._last = raw
        self.count += 1


def colliding_paths(paths: Iterable[str]) -> tuple[tuple[str, str], ...]:
    """Pairs of paths that differ only by case or Unicode form: some file systems take them for one. For a warning."""
    seen: dict[str, str] = {}
    pairs: list[tuple[str, str]] = []
    for path in paths:
        folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
        other = seen.setdefault(folded, path)
        if other != path:
            pairs.append((other, path))
    return tuple(pairs)


class DigestBuilder:
    """Merkle root of leaves that come one by one. Memory: one hash per level."""

    def __init__(self) -> None:
        self._stack: list[tuple[int, bytes]] = []  # (height, node), heights falling

    def add(self, leaf: bytes) -> None:
        height = 0
        while self._stack and self._stack[-1][0] == height:
            leaf = sha256(b"\x01", self._stack.pop()[1], leaf)
            height += 1
        self._stack.append((height, leaf))

    def root(self) -> Digest:
        """Same as merkle_root over all leaves: what is left over on the right is promoted."""
        if not self._stack:
            return EMPTY_ROOT
        node = self._stack[-1][1]
        for _, left in reversed(self._stack[:-1]):
            node = sha256(b"\x01", left, node)
        return Digest(node)


def digest_of(content: bytes | memoryview) -> Digest:
    """Entry digest of content at hand."""
    view = memoryview(content)
    return merkle_root([sha256(view[start : start + BLOCK_BYTES]) for start in range(0, len(view), BLOCK_BYTES)])


class EntryVerifier:
    """Checks the content of one entry in pieces, in any order. Memory: 32 bytes per 256 KiB."""

    def __init__(self, entry: Entry) -> None:
        self._entry = entry
        self._block_count = -(-entry.size // BLOCK_BYTES)
        self._digests: dict[int, bytes] = {}

    def add(self, offset: int, data: bytes | memoryview) -> tuple[tuple[int, Digest], ...]:
        """Hashes whole blocks (the last may be shorter) that begin at ``offset``, as the plan's slices do.

        Result: (block index, digest), for a resume map. Raises InvalidObject(INTEGRITY) for bytes that are no whole blocks.
        """
        view = memoryview(data)
        end = offset + len(view)
        if offset < 0 or offset % BLOCK_BYTES or end > self._entry.size or (end % BLOCK_BYTES and end != self._entry.size):
            raise InvalidObject(Reason.INTEGRITY, f"bytes {offset} to {end} are no whole blocks of {self._entry.path!r}")
        found = []
        for start in range(0, len(view), BLOCK_BYTES):
            block_index = (offset + start) // BLOCK_BYTES
            digest = sha256(view[start : start + BLOCK_BYTES])
            self._digests[block_index] = digest
            found.append((block_index, digest))
        return tuple(found)

    def add_digest(self, block_index: int, digest: bytes) -> None:
        """A block that was hashed before (a resume map)."""
        if not 0 <= block_index < self._block_count or len(digest) != 32:
            raise InvalidObject(Reason.INTEGRITY, f"no block {block_index} in {self._entry.path!r}")
        self._digests[block_index] = digest

    def finish(self) -> None:
        """Raises InvalidObject(INTEGRITY) when blocks are missing or the digest is not the entry's."""
        if len(self._digests) != self._block_count:
            raise InvalidObject(Reason.INTEGRITY, f"{len(self._digests)} of {self._block_count} blocks of {self._entry.path!r}")
        if merkle_root([self._digests[index] for index in range(self._block_count)]) != self._entry.digest:
            raise InvalidObject(Reason.INTEGRITY, f"content of {self._entry.path!r} does not have its digest")


# --- the list -----------------------------------------------------------------------------------------------------


def encode_page(entries: Sequence[Entry]) -> bytes:
    """Bytes of one page."""
    assert 0 < len(entries) <= ENTRIES_PER_PAGE
    return encode(EntryPage(format=FORMAT, suite=SUITE, entries=tuple(entries)))


def page_hash(page: bytes) -> Digest:
    """Leaf of the list root."""
    return hash_labelled(Label.ENTRY_PAGE, page)


def decode_page(page: bytes | memoryview) -> tuple[Entry, ...]:
    """Entries of one page, each checked alone and in order. Raises DecodeError, InvalidObject."""
    value = decode(page, EntryPage, bytes_max=ENTRY_PAGE_BYTES_MAX)
    if value.format != FORMAT or value.suite != SUITE:
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"entry page of format {value.format}, suite {value.suite}")
    if not 0 < len(value.entries) <= ENTRIES_PER_PAGE:
        raise InvalidObject(Reason.INTEGRITY, f"page of {len(value.entries)} entries, 1 to {ENTRIES_PER_PAGE} wanted")
    order = ListOrder()
    for entry in value.entries:
        check_entry(entry)
        order.check(entry.path, entry.kind)
    return value.entries


def list_pages(entries: Sequence[Entry]) -> tuple[bytes, ...]:
    """Pages of a whole list, already in order."""
    return tuple(encode_page(entries[start : start + ENTRIES_PER_PAGE]) for start in range(0, len(entries), ENTRIES_PER_PAGE))


def list_root(pages: Sequence[bytes]) -> Digest:
    """Root of the entry list: what HashID is computed over."""
    return merkle_root([page_hash(page) for page in pages])


def prove_entry(pages: Sequence[bytes], page_index: int) -> EntryProof:
    """Proof for the entries of one page."""
    path = merkle_path([page_hash(page) for page in pages], page_index)
    return EntryProof(FORMAT, SUITE, page=pages[page_index], page_index=page_index, page_count=len(pages), path=path)


def check_entry_proof(proof: EntryProof, root: bytes, path: str) -> Entry:
    """The entry at ``path`` of the list with that root. Raises InvalidObject(INTEGRITY | NOT_FOUND), DecodeError."""
    if proof.format != FORMAT or proof.suite != SUITE:
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"entry proof of format {proof.format}, suite {proof.suite}")
    if not 0 < proof.page_count <= PAGES_MAX:
        raise InvalidObject(Reason.INTEGRITY, f"list of {proof.page_count} pages, 1 to {PAGES_MAX} wanted")
    check_merkle_path(root, page_hash(proof.page), index=proof.page_index, leaf_count=proof.page_count, path=proof.path)
    for entry in decode_page(proof.page):
        if entry.path == path:
            return entry
    raise InvalidObject(Reason.NOT_FOUND, f"no entry {path!r} in this page")
