"""Cutting and sealing: same content, same chunks; and never one key over two inputs."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.crypto import aead_open
from protocols.errors import InvalidObject, Reason
from protocols.files.builder import RecordBuilder
from protocols.files.entries import Attributes
from protocols.files.keys import RecordClass
from protocols.files.manifest import open_manifest
from protocols.files.padding import padded_bytes, padme
from protocols.files.seal import open_chunk
from protocols.limits import BLOCK_BYTES, INLINE_CONTENT_BYTES_MAX, PAD_BYTES_MIN, SEALED_CHUNK_BYTES_MAX
from tests.protocols.files.records import FRESH, OWNER, SECRETS, Built, build, content

SIZES = st.sampled_from([0, 1, 31, 1000, 60_000, 65_536, 65_537, 100_000, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 600_000])
FEEDS = st.lists(st.sampled_from([1_000, 4_096, 65_537, 262_143, 262_144, 300_000, 1 << 22]), min_size=1, max_size=3)


def names(built: Built) -> set[bytes]:
    return {chunk.name for chunk in built.chunks.values()}


@settings(max_examples=25, deadline=None)
@given(st.lists(SIZES, max_size=5), FEEDS, st.sampled_from(RecordClass))
def test_record_does_not_depend_on_how_it_is_fed(sizes: list[int], feeds: list[int], record_class: RecordClass) -> None:
    """Goal: pipes, files and resumed puts give one record. Method: any feeds against one large feed."""
    files = {f"f{number}": content(f"f{number}", size) for number, size in enumerate(sizes)}
    one, other = build(files, record_class=record_class), build(files, record_class=record_class, feeds=feeds)
    assert one.record == other.record
    assert one.chunks == other.chunks


@settings(max_examples=25, deadline=None)
@given(st.lists(SIZES, max_size=5), st.sampled_from(RecordClass))
def test_what_went_in_comes_out(sizes: list[int], record_class: RecordClass) -> None:
    """Goal: the whole way. Method: build, open the manifest, open every chunk by the plan and by the parts of each entry."""
    files = {f"f{number}": content(f"f{number}", size) for number, size in enumerate(sizes)}
    built = build(files, record_class=record_class)
    manifest = open_manifest(built.statement(), built.record.record_key, built.manifest)
    assert manifest.entries == built.record.entries
    found = [bytearray(entry.size) for entry in manifest.entries]
    planned = set()
    for chunk in manifest.plan():
        place = (chunk.sequence_index, chunk.chunk_index)
        plain = chunk.open(built.chunks[place].sealed)
        assert len(plain) == chunk.content_bytes
        assert len(built.chunks[place].sealed) == chunk.sealed_bytes
        planned.add(place)
        for piece in chunk.slices:
            found[piece.entry_index][piece.entry_offset : piece.entry_offset + piece.length] = plain[
                piece.chunk_offset : piece.chunk_offset + piece.length
            ]
    assert planned == set(built.chunks)
    for index, path in enumerate(files):
        assert manifest.index_of(path) == index
        inline = manifest.inline_of(index)
        assert (found[index] if inline is None else inline) == files[path]
        parts = b""
        for part in manifest.parts_of(index):
            chunk_of_part = built.chunks[part.sequence_index, part.chunk_index]
            key = manifest.sequences[part.sequence_index - 1].keys[part.chunk_index]
            parts += open_chunk(chunk_of_part.name, key, chunk_of_part.sealed)[part.offset : part.offset + part.length]
        assert parts == (files[path] if inline is None else b"")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.tuples(SIZES, st.integers(0, 2)), min_size=1, max_size=4), st.data())
def test_no_key_seals_two_inputs(shape: list[tuple[int, int]], data: st.DataObject) -> None:
    """Goal: constant nonce, so each key has one plain text, also with the same fresh bytes used again after content, cuts, order,
    attributes or epoch changed. Method: many records of one owner; map every key to the sealed bytes under it."""
    sealed_by_key: dict[bytes, bytes] = {}
    for _ in range(3):
        changed = {
            f"f{number}": content(f"c{data.draw(st.integers(0, 1)) if number == 0 else which}", size)
            for number, (size, which) in enumerate(shape)
        }
        built = build(
            changed,
            record_class=data.draw(st.sampled_from(RecordClass)),
            epoch=data.draw(st.integers(0, 1)),
            chunks_per_sequence=data.draw(st.sampled_from([2, 4])),
            attributes=Attributes(modified_ns=data.draw(st.sampled_from([None, 1, 2]))),
        )
        for chunk in (*built.chunks.values(), *built.record.manifest_chunks):
            assert sealed_by_key.setdefault(chunk.key, chunk.sealed) == chunk.sealed


def test_equal_blocks_are_equal_chunks_only_in_class_dedup() -> None:
    """Goal: deduplication for one owner, none where it would tell. Method: one content at two places, in two records, two epochs."""
    files = {"a": content("x", 2 * BLOCK_BYTES), "b": content("x", 2 * BLOCK_BYTES)}
    dedup = build(files)
    confidential = build(files, record_class=RecordClass.CONFIDENTIAL)
    assert (len(names(dedup)), len(dedup.chunks)) == (2, 4)
    assert len(names(confidential)) == 4
    assert not names(dedup) & names(build(files, epoch=1))
    assert not names(confidential) & names(build(files, record_class=RecordClass.CONFIDENTIAL, fresh=bytes(64)))
    assert len({chunk.key for chunk in confidential.chunks.values()}) == 4


def test_hash_id_of_dedup_record_is_that_of_its_content() -> None:
    """Goal: the same content has one name in every epoch, with other times and cuts. Method: change what must not matter."""
    files = {"a": content("a", 70_000)}
    one = build(files).record
    for other in (build(files, epoch=9), build(files, chunks_per_sequence=1, fresh=bytes(64), attributes=Attributes(modified_ns=5))):
        assert other.record.hash_id == one.hash_id
        assert other.record.manifest_salt != one.manifest_salt
    assert build({"b": files["a"]}).record.hash_id != one.hash_id
    assert build(files, record_class=RecordClass.CONFIDENTIAL).record.hash_id != one.hash_id


def test_growth_of_one_entry_moves_that_entry_and_its_pack_only() -> None:
    """Goal: a new version costs what changed. Method: large, small, small, large; grow the first small one."""
    files = {"a": content("a", 600_000), "b": content("b", 50_000), "c": content("c", 90_000), "d": content("d", 300_000)}
    before, after = build(files), build({**files, "b": content("b", 50_001)})
    assert len(before.chunks) == 6
    assert len(names(before) & names(after)) == 5


def test_small_content_rides_inline() -> None:
    """Goal: one chunk for up to 64 KiB in all. Method: at the bound and one byte above."""
    half = INLINE_CONTENT_BYTES_MAX // 2
    inline = build({"a": content("a", half), "b": content("b", half)})
    assert not inline.chunks
    assert len(inline.record.manifest_chunks) == 1
    above = build({"a": content("a", half), "b": content("b", half + 1)})
    assert len(above.chunks) == 1


def test_sizes_are_padded() -> None:
    """Goal: sizes say little. Method: every padded size is a Padmé size, never shrinks, wastes at most 12 % above the minimum."""
    for size in [*range(1, 3000), *range(65_000, 66_000), BLOCK_BYTES - 1, BLOCK_BYTES]:
        padded = padded_bytes(size)
        assert padme(padded) == padded >= size
        assert padded == PAD_BYTES_MIN or padded <= size * 1.12
    built = build({"a": content("a", 2 * BLOCK_BYTES), "b": content("b", 70_001)})
    assert [len(chunk.sealed) for chunk in built.chunks.values()] == [SEALED_CHUNK_BYTES_MAX] * 2 + [padme(70_001) + 16]


def test_chunk_is_opened_only_under_its_name_and_key() -> None:
    """Goal: hashed before it is opened, released only with a right tag, padding checked. Method: spoil each."""
    chunk = build({"a": content("a", 70_001)}).chunks[1, 0]
    assert open_chunk(chunk.name, chunk.key, chunk.sealed, 70_001) == content("a", 70_001)
    spoilt = bytes([chunk.sealed[0] ^ 1]) + chunk.sealed[1:]
    tries = [
        (Reason.WRONG_NAME, chunk.name, chunk.key, spoilt, 70_001),
        (Reason.WRONG_NAME, chunk.name, chunk.key, chunk.sealed * 5, 70_001),
        (Reason.BAD_TAG, chunk.name, bytes(32), chunk.sealed, 70_001),
        (Reason.INTEGRITY, chunk.name, chunk.key, chunk.sealed, 69_999),
        (Reason.INTEGRITY, chunk.name, chunk.key, chunk.sealed, 60_000),
    ]
    for reason, name, key, sealed, size in tries:
        with pytest.raises(InvalidObject) as error:
            open_chunk(name, key, sealed, size)
        assert error.value.reason is reason
    assert aead_open(chunk.key, chunk.sealed)[70_001:].strip(b"\0") == b""


def test_sealed_bytes_hold_nothing_plain() -> None:
    """Goal: a holder sees no name, type or content. Method: search every sealed byte of a record for them."""
    path = "secret-name-of-a-patient"
    built = build({path: b"plain text of a patient" * 10_000})
    sealed = b"".join([*built.manifest, *(chunk.sealed for chunk in built.chunks.values())])
    assert path.encode() not in sealed
    assert b"plain text of a patient" not in sealed
    assert SECRETS.record_key(built.record.hash_id, 0) == built.record.record_key
    assert "record_key" not in repr(built.record)


def test_builder_refuses_bad_paths_as_they_come() -> None:
    """Goal: a record that could not be read is not made. Method: disorder, a path below a file, a link that leads out."""
    builder = RecordBuilder(OWNER.public, SECRETS, RecordClass.DEDUP, 0, FRESH)
    builder.begin_entry("b", "file")
    builder.end_entry()
    for path, target in (("a", ""), ("b/c", ""), ("c", "../x")):
        with pytest.raises(InvalidObject) as error:
            builder.begin_entry(path, "symlink" if target else "file", target=target)
        assert error.value.reason is Reason.BAD_PATH
    builder.begin_entry("b2", "folder")
    builder.end_entry()
    assert [entry.path for entry in builder.finish().entries] == ["b", "b2"]


def test_builder_keeps_little() -> None:
    """Goal: bounded memory. Method: after 16 MiB fed nothing of it is held but one partial block."""
    builder = RecordBuilder(OWNER.public, SECRETS, RecordClass.DEDUP, 0, FRESH)
    builder.begin_entry("a", "file")
    block = content("a", (1 << 22) + 5)
    handed = sum(len(builder.feed(block)) for _ in range(4))
    assert handed == 64
    assert len(builder._partial) + len(builder._pack) == 20
