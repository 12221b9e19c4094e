"""Sequence 0: whole and for one entry; honest and hostile."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codec import decode, encode
from protocols.crypto import aead_open, aead_seal, sha256
from protocols.errors import DecodeError, InvalidObject, Reason
from protocols.files.entries import Attributes, EntryPage, page_hash
from protocols.files.hashid import c_value, hash_id
from protocols.files.keys import RecordClass, manifest_key
from protocols.files.manifest import ManifestReader, OpenedEntry, manifest_chunks_for, open_manifest
from protocols.files.manifest_format import PREFIX_BYTES, ManifestHead, PageReference
from protocols.files.objects import Statement
from protocols.files.padding import padded_bytes
from protocols.files.sequences import check_sequence, chunks_root, sequence_path, sequence_root
from protocols.limits import BLOCK_BYTES
from protocols.merkle import merkle_root
from tests.protocols.files.records import Built, build, content


def replaced(value: Statement, **changes: object) -> Statement:
    fields = {name: getattr(value, name) for name in value.__struct_fields__} | changes
    return Statement(**fields)


def read_entry(built: Built, path: str) -> tuple[OpenedEntry, int]:
    """One entry by as few manifest chunks as it takes, and how many that were."""
    record = built.record
    reader = ManifestReader(built.statement(), record.record_key, record.manifest_sequence.names, sequence_path(record.sequence_roots, 0))
    fetched = 0
    while wanted := reader.wants(path):
        for index in wanted:
            reader.add(index, built.manifest[index])
            fetched += 1
    return reader.take(path), fetched


def content_of(built: Built, opened: OpenedEntry) -> bytes:
    if opened.inline is not None:
        return opened.inline
    pieces = []
    for chunk in opened.chunks:
        plain = chunk.open(built.chunks[chunk.sequence_index, chunk.chunk_index].sealed)
        pieces += [bytes(plain[piece.chunk_offset : piece.chunk_offset + piece.length]) for piece in chunk.slices]
    return b"".join(pieces)


@pytest.mark.parametrize("record_class", RecordClass)
def test_one_entry_is_read_alone(record_class: RecordClass) -> None:
    """Goal: `--entry` gives what reading all gives. Method: every entry of an inline and of a cut record."""
    for sizes in ([10, 0, 20], [200_000, 62_144, 1, 600_000, 0, 262_144, 262_143, 7]):
        files = {f"f{number}": content(f"f{number}", size) for number, size in enumerate(sizes)}
        built = build(files, record_class=record_class, attributes=Attributes(modified_ns=7, media_type="text/plain"))
        for path in files:
            opened, _ = read_entry(built, path)
            assert content_of(built, opened) == files[path]
            assert opened.attributes == Attributes(7, "text/plain")
            assert opened.entry.size == len(files[path])


def test_one_entry_of_many_needs_few_manifest_chunks() -> None:
    """Goal: fetch what is needed. Method: 9,000 entries with long names; the last needs head, table and one page."""
    name = "x" * 180
    files = {f"{number:05}{name}": b"%d" % number * 5 for number in range(9_000)}
    built = build(files)
    last = f"{8_999:05}{name}"
    opened, fetched = read_entry(built, last)
    assert content_of(built, opened) == files[last]
    assert len(built.manifest) >= 9
    assert fetched <= 5


def test_unknown_entry_is_not_found() -> None:
    """Goal: an honest no. Method: before the first, between, after the last."""
    built = build({"b": b"1", "d": b"2"})
    for path in ("a", "c", "e"):
        with pytest.raises(InvalidObject) as error:
            read_entry(built, path)
        assert error.value.reason is Reason.NOT_FOUND
        with pytest.raises(InvalidObject) as error:
            open_manifest(built.statement(), built.record.record_key, built.manifest).index_of(path)
        assert error.value.reason is Reason.NOT_FOUND


def test_reader_refuses_wrong_names_and_chunks() -> None:
    """Goal: nothing is opened before its name was checked against chunks_root. Method: other names, path, chunk, key."""
    built = build({"a": content("a", 300_000)})
    record = built.record
    names, path = record.manifest_sequence.names, sequence_path(record.sequence_roots, 0)
    for bad_names, bad_path in (((bytes(32),), path), (names, ()), ((*names, bytes(32)), path), ((b"short",), path)):
        with pytest.raises(InvalidObject):
            ManifestReader(built.statement(), record.record_key, bad_names, bad_path)
    with pytest.raises(InvalidObject) as error:
        ManifestReader(built.statement(), bytes(32), names, path)
    assert error.value.reason is Reason.NO_KEY
    reader = ManifestReader(built.statement(), record.record_key, names, path)
    with pytest.raises(InvalidObject) as error:
        reader.add(0, built.chunks[1, 0].sealed)
    assert error.value.reason is Reason.WRONG_NAME
    with pytest.raises(InvalidObject):
        reader.add(1, built.manifest[0])
    reader.add(0, built.manifest[0])
    assert reader.outline is not None
    assert manifest_chunks_for(reader.outline, "a") == (0,)


def test_every_sequence_stands_under_chunks_root() -> None:
    """Goal: a holder checks a sequence without the rest. Method: all sequences, then wrong index, count, order, path."""
    built = build({"a": content("a", 2_500_000)}, chunks_per_sequence=4)
    record, statement = built.record, built.statement()
    assert len(record.sequences) == 3
    for index, sequence in enumerate((record.manifest_sequence, *record.sequences)):
        assert check_sequence(statement, index, sequence.names, sequence_path(record.sequence_roots, index)) == sequence.root
    second = record.sequences[1]
    path = sequence_path(record.sequence_roots, 2)
    for index, names, bad_path in (
        (1, second.names, path),
        (2, second.names[:-1], path),
        (2, second.names[::-1], path),
        (2, second.names, path[:-1]),
        (9, second.names, path),
        (-1, second.names, path),
    ):
        with pytest.raises(InvalidObject):
            check_sequence(statement, index, names, bad_path)


# --- hostile manifests --------------------------------------------------------------------------------------------


def forge(built: Built, plain: bytes, *, c: bytes | None = None, names: Sequence[bytes] | None = None) -> tuple[Statement, list[bytes]]:
    """Statement and manifest chunks that an owner could sign over any manifest bytes, correctly sealed under the true key.

    c: another C, for a list that the owner made up. The record key stays, since only its commitment is compared.
    """
    true = built.statement()
    sealed = []
    for index, start in enumerate(range(0, len(plain), BLOCK_BYTES)):
        piece = plain[start : start + BLOCK_BYTES]
        piece += bytes(padded_bytes(len(piece)) - len(piece))
        sealed.append(aead_seal(manifest_key(built.record.record_key, true.manifest_salt, index), piece))
    roots = [sequence_root([sha256(chunk) for chunk in sealed]), *(sequence.root for sequence in built.record.sequences)]
    total = sum(len(chunk) for chunk in sealed) + sum(sum(sequence.sizes) for sequence in built.record.sequences)
    changes: dict[str, object] = {"chunks_root": chunks_root(roots), "manifest_chunks": len(sealed), "sealed_bytes": total}
    if c is not None:
        changes |= {"c": c, "hash_id": hash_id(true.owner, c)}
    return replaced(true, **changes), sealed


def plain_of(built: Built) -> tuple[ManifestHead, bytes]:
    """Head and body of a record's manifest (the body with its padding)."""
    plain = b"".join(
        aead_open(manifest_key(built.record.record_key, built.record.manifest_salt, index), sealed)
        for index, sealed in enumerate(built.manifest)
    )
    size = int.from_bytes(plain[:PREFIX_BYTES], "big")
    return decode(plain[PREFIX_BYTES : PREFIX_BYTES + size], ManifestHead), plain[PREFIX_BYTES + size :]


def with_head(head: ManifestHead, body: bytes) -> bytes:
    encoded = encode(head)
    total = sum(page.page_bytes + page.attribute_bytes for page in head.pages) + head.inline_bytes + 68 * head.chunk_count
    return len(encoded).to_bytes(PREFIX_BYTES, "big") + encoded + body[:total]


def changed_head(head: ManifestHead, **changes: object) -> ManifestHead:
    return ManifestHead(**{name: getattr(head, name) for name in head.__struct_fields__} | changes)


def check_refused(built: Built, statement: Statement, sealed: list[bytes]) -> None:
    with pytest.raises((InvalidObject, DecodeError)):
        open_manifest(statement, built.record.record_key, sealed)


def test_forge_of_the_true_manifest_opens() -> None:
    """Goal: the tests below refuse for the reason they mean. Method: the same forging, nothing changed."""
    built = build({"a": content("a", 300_000), "b": content("b", 70_000)})
    statement, sealed = forge(built, with_head(*plain_of(built)))
    assert open_manifest(statement, built.record.record_key, sealed).entries == built.record.entries


@pytest.mark.parametrize(
    "changes",
    [
        {"format": 2},
        {"suite": 9},
        {"record_class": RecordClass.CONFIDENTIAL},
        {"epoch": 1},
        {"salt": bytes(32)},
        {"salt": b"short"},
        {"entry_count": 1},
        {"entry_count": 3},
        {"entry_count": 10**15},
        {"content_bytes": 0},
        {"content_bytes": 370_001},
        {"content_bytes": -1},
        {"chunk_count": 2},
        {"chunk_count": 4},
        {"chunk_count": 2**40},
        {"chunks_per_sequence": 0},
        {"chunks_per_sequence": 5},
        {"inline_bytes": 5},
        {"inline_bytes": -5},
        {"pages": ()},
        {"tags": (("a", "x" * 5000),)},
        {"tags": tuple((str(number), "") for number in range(100))},
    ],
)
def test_manifest_with_lying_head_is_refused(changes: dict[str, object]) -> None:
    """Goal: what a head says agrees with statement, table and pages. Method: one lie at a time, all else sealed correctly."""
    built = build({"a": content("a", 300_000), "b": content("b", 70_000)})
    head, body = plain_of(built)
    lying = changed_head(head, **changes)
    encoded = encode(lying)
    check_refused(built, *forge(built, len(encoded).to_bytes(PREFIX_BYTES, "big") + encoded + body))
    check_refused(built, *forge(built, len(encoded).to_bytes(PREFIX_BYTES, "big") + encoded + body.rstrip(b"\0")))


@pytest.mark.parametrize(
    "changes",
    [
        {"first_path": "0"},
        {"first_path": "b"},
        {"chunk": 1},
        {"fill": 7},
        {"page_bytes": 1},
        {"page_bytes": 2**60},
        {"page_hash": bytes(32)},
    ],
)
def test_manifest_with_lying_page_reference_is_refused(changes: dict[str, object]) -> None:
    """Goal: a page stands and begins where the head says. Method: one lie at a time."""
    built = build({"a": content("a", 300_000), "b": content("b", 70_000)})
    head, body = plain_of(built)
    fields = {name: getattr(head.pages[0], name) for name in head.pages[0].__struct_fields__} | changes
    lying = changed_head(head, pages=(PageReference(**fields),))
    encoded = encode(lying)
    check_refused(built, *forge(built, len(encoded).to_bytes(PREFIX_BYTES, "big") + encoded + body))


@pytest.mark.parametrize("size", [0, 1, 262_143, 262_144, 300_001, 10**12, 2**48, 2**62])
def test_manifest_whose_sizes_do_not_give_its_cuts_is_refused(size: int) -> None:
    """Goal: sizes, cuts and table agree, whatever an owner claims, without work beyond what was received. Method: one entry
    claims another size, with page hash, list root, C and HashID all recomputed to match."""
    built = build({"a": content("a", 300_000), "b": content("b", 70_000)})
    head, body = plain_of(built)
    first, second = built.record.entries
    liar = type(first)(first.path, first.kind, first.executable, size, first.digest, "")
    page = encode(EntryPage(1, 1, (liar, second)))
    reference = head.pages[0]
    spans = head.chunk_count * 68
    attributes = body[spans + reference.page_bytes : spans + reference.page_bytes + reference.attribute_bytes]
    lying = PageReference("a", page_hash(page), len(page), reference.attribute_bytes, 0, 0)
    c = c_value(head.salt, merkle_root([page_hash(page)]))
    for content_bytes in (head.content_bytes, size + 70_000):
        if content_bytes < 2**63:
            new_head = changed_head(head, pages=(lying,), content_bytes=content_bytes)
            check_refused(built, *forge(built, with_head(new_head, body[:spans] + page + attributes), c=c))


def test_manifest_with_other_names_or_padding_is_refused() -> None:
    """Goal: the table is the one that chunks_root commits to. Method: a name, a key's length, a content size, padding, a tail."""
    built = build({"a": content("a", 300_000), "b": content("b", 70_000)})
    head, body = plain_of(built)
    for position, value in ((0, body[0] ^ 1), (64, 0xFF), (67, body[67] ^ 1)):
        spoilt = bytearray(body)
        spoilt[position] = value
        check_refused(built, *forge(built, with_head(head, bytes(spoilt))))
    check_refused(built, *forge(built, with_head(head, body) + b"\x01"))
    check_refused(built, *forge(built, with_head(head, body)[:-1]))
    check_refused(built, *forge(built, (9).to_bytes(4, "big")))
    check_refused(built, *forge(built, (2**31).to_bytes(4, "big") + bytes(2000)))
    check_refused(built, *forge(built, b"\0"))


def test_chunk_key_is_not_committed_but_content_is() -> None:
    """Goal: a wrong key in the table cannot give wrong content. Method: change a key; the manifest opens, the chunk does not."""
    built = build({"a": content("a", 300_000), "b": content("b", 70_000)})
    head, body = plain_of(built)
    spoilt = bytearray(body)
    spoilt[40] ^= 1
    statement, sealed = forge(built, with_head(head, bytes(spoilt)))
    manifest = open_manifest(statement, built.record.record_key, sealed)
    with pytest.raises(InvalidObject) as error:
        next(manifest.plan()).open(built.chunks[1, 0].sealed)
    assert error.value.reason is Reason.BAD_TAG


def test_manifest_of_another_statement_is_refused() -> None:
    """Goal: no grantee makes a manifest that others accept. Method: another record's chunks, key, salt, too few, too many."""
    one, other = build({"a": b"1"}), build({"a": b"2"})
    statement, key = one.statement(), one.record.record_key
    for record_key, sealed in ((key, other.manifest), (other.record.record_key, one.manifest), (key, []), (key, one.manifest * 2)):
        with pytest.raises((InvalidObject, DecodeError)):
            open_manifest(statement, record_key, sealed)
    for changes in ({"chunks_root": bytes(32)}, {"manifest_salt": bytes(32)}, {"sealed_bytes": 1039}, {"c": bytes(32)}):
        with pytest.raises((InvalidObject, DecodeError)):
            open_manifest(replaced(statement, **changes), key, one.manifest)


@settings(max_examples=150, deadline=None)
@given(st.binary(min_size=1, max_size=400), st.integers(0, 10**6), st.booleans())
def test_any_bytes_as_manifest_give_errors_of_ours_only(data: bytes, at: int, whole: bool) -> None:
    """Goal: hostile bytes under a true key raise InvalidObject or DecodeError. Method: garbage, and a true manifest with a patch."""
    built = build({"a": b"1", "b": b"22"})
    head, body = plain_of(built)
    true = with_head(head, body)
    position = at % len(true)
    plain = data if whole else (true[:position] + data + true[position + len(data) :])
    statement, sealed = forge(built, plain)
    try:
        manifest = open_manifest(statement, built.record.record_key, sealed)
        assert manifest.entries == built.record.entries
    except (InvalidObject, DecodeError):
        pass
    record = built.record
    reader = ManifestReader(
        statement, record.record_key, [sha256(chunk) for chunk in sealed], sequence_path([sequence_root([sha256(c) for c in sealed])], 0)
    )
    try:
        while wanted := reader.wants("b"):
            for index in wanted:
                reader.add(index, sealed[index])
        assert reader.take("b").entry == record.entries[1]
    except (InvalidObject, DecodeError):
        pass
