"""Entries: paths, links, digests, pages, proofs."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import DecodeError, InvalidObject, Reason
from protocols.files.entries import (
    DigestBuilder,
    Entry,
    EntryProof,
    EntryVerifier,
    ListOrder,
    check_entry_proof,
    check_path,
    check_symlink_target,
    colliding_paths,
    decode_page,
    digest_of,
    list_pages,
    list_root,
    prove_entry,
)
from protocols.files.hashid import chunk_name_of_cid, cid_text
from protocols.limits import BLOCK_BYTES, PATH_BYTES_MAX
from protocols.merkle import EMPTY_ROOT, merkle_root
from protocols.types import ChunkName
from tests.protocols.files.records import content


def an_entry(path: str, size: int = 0) -> Entry:
    return Entry(path, "file", False, size, digest_of(content(path, size)), "")


@pytest.mark.parametrize("path", ["", "/a", "a/", "a//b", ".", "..", "a/../b", "./a", "a\0b", "\ud800", "x" * (PATH_BYTES_MAX + 1)])
def test_path_that_leads_elsewhere_is_refused(path: str) -> None:
    """Goal: no path leaves the record or means two things. Method: one of each kind."""
    with pytest.raises(InvalidObject) as error:
        check_path(path)
    assert error.value.reason is Reason.BAD_PATH


@pytest.mark.parametrize("path", ["a", "a/b", "...", "a.b/..c", "naïve/é", " ", "a\\b"])
def test_ordinary_path_is_taken(path: str) -> None:
    """Goal: odd but harmless names work. Method: some."""
    check_path(path)


@pytest.mark.parametrize(
    ("path", "target"),
    [("l", "/etc"), ("l", ".."), ("a/l", "../.."), ("a/l", "../../x"), ("l", "a/.."), ("l", "a/../../x"), ("l", ""), ("l", "x\0")],
)
def test_link_that_could_leave_the_record_is_refused(path: str, target: str) -> None:
    """Goal: no link leads out, also not through another link (`a/..` where `a` is one). Method: each kind."""
    with pytest.raises(InvalidObject) as error:
        check_symlink_target(path, target)
    assert error.value.reason is Reason.BAD_PATH


@pytest.mark.parametrize(("path", "target"), [("l", "a"), ("a/l", "../b"), ("a/b/l", "../../c/d"), ("l", "./a"), ("a/l", "..")])
def test_link_inside_the_record_is_taken(path: str, target: str) -> None:
    """Goal: ordinary links work. Method: some."""
    check_symlink_target(path, target)


@pytest.mark.parametrize(
    "paths",
    [["b", "a"], ["a", "a"], ["l", "l/x"], ["l", "l-1", "l/x"], ["a/l", "a/l-", "a/l/x/y"]],
)
def test_list_with_disorder_or_something_below_a_file_is_refused(paths: list[str]) -> None:
    """Goal: no content is written through a file or link. Method: lists where other names stand between."""
    order = ListOrder()
    for path in paths[:-1]:
        order.check(path, "symlink")
    with pytest.raises(InvalidObject) as error:
        order.check(paths[-1], "symlink")
    assert error.value.reason is Reason.BAD_PATH


@given(st.lists(st.text(alphabet="ab/-.", min_size=1, max_size=8), max_size=12), st.data())
def test_order_finds_every_entry_below_a_file(paths: list[str], data: st.DataObject) -> None:
    """Goal: the short memory of ListOrder misses nothing. Method: against a set of all paths."""
    kinds = {path: data.draw(st.sampled_from(["file", "folder"])) for path in sorted(set(paths))}
    files = {path for path, kind in kinds.items() if kind == "file"}
    broken = any(path.startswith(other + "/") for path in kinds for other in files)
    order = ListOrder()
    found = False
    for path, kind in kinds.items():
        try:
            order.check(path, "file" if kind == "file" else "folder")
        except InvalidObject:
            found = True
            break
    assert found == broken


def test_paths_alike_but_for_case_or_unicode_form_are_found() -> None:
    """Goal: a warning where a file system would merge names. Method: case, composed and decomposed letters, and others."""
    assert colliding_paths(["A", "a", "b", "caf\u00e9", "cafe\u0301", "c"]) == (("A", "a"), ("caf\u00e9", "cafe\u0301"))


@given(st.lists(st.binary(min_size=32, max_size=32), max_size=40))
def test_digest_leaf_by_leaf_is_the_root(leaves: list[bytes]) -> None:
    """Goal: streaming gives the same root. Method: against merkle_root."""
    builder = DigestBuilder()
    for leaf in leaves:
        builder.add(leaf)
    assert builder.root() == merkle_root(leaves)


def test_digest_of_small_file_is_its_sha256() -> None:
    """Goal: `sha256sum` prints the same. Method: sizes up to one block, and one byte more."""
    for size in (0, 1, 1000, BLOCK_BYTES):
        assert digest_of(content("x", size)) == hashlib.sha256(content("x", size)).digest()
    assert digest_of(content("x", BLOCK_BYTES + 1)) != hashlib.sha256(content("x", BLOCK_BYTES + 1)).digest()
    assert digest_of(b"") == EMPTY_ROOT


def test_chunk_name_prints_as_cid() -> None:
    """Goal: any IPFS tool names a chunk alike. Method: the CID of the empty block, as the IPFS documentation prints it."""
    name = ChunkName(hashlib.sha256(b"").digest())
    assert cid_text(name) == "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku"
    assert chunk_name_of_cid(cid_text(name)) == name
    for wrong in (
        "",
        "Qm",
        "bafybeihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        cid_text(name).upper(),
        cid_text(name) + "a",
        "b1",
    ):
        with pytest.raises(InvalidObject):
            chunk_name_of_cid(wrong)


def test_one_entry_is_proved_by_its_page() -> None:
    """Goal: page and path prove an entry, and nothing else does. Method: 2,500 entries, each page, then spoilt proofs."""
    entries = [an_entry(f"{number:05}") for number in range(2500)]
    pages = list_pages(entries)
    root = list_root(pages)
    assert len(pages) == 3
    for number in (0, 999, 1000, 2499):
        proof = prove_entry(pages, number // 1000)
        assert check_entry_proof(proof, root, f"{number:05}") == entries[number]
    proof = prove_entry(pages, 1)
    spoilt = [
        (EntryProof(1, 1, proof.page, 0, 3, proof.path), root, "01000"),
        (EntryProof(1, 1, proof.page, 1, 2, proof.path), root, "01000"),
        (EntryProof(1, 1, pages[0], 1, 3, proof.path), root, "00000"),
        (EntryProof(1, 1, proof.page, 1, 10**9, proof.path), root, "01000"),
        (EntryProof(2, 1, proof.page, 1, 3, proof.path), root, "01000"),
        (proof, bytes(32), "01000"),
        (proof, root, "00000"),
    ]
    for bad, bad_root, path in spoilt:
        with pytest.raises((InvalidObject, DecodeError)):
            check_entry_proof(bad, bad_root, path)


def test_page_with_impossible_entry_is_refused() -> None:
    """Goal: what a page says can be written to disk. Method: pages with one bad entry each."""
    empty = EMPTY_ROOT
    bad = [
        Entry("../a", "file", False, 0, empty, ""),
        Entry("a", "symlink", False, 0, empty, "/etc/passwd"),
        Entry("a", "file", False, 0, empty, "target"),
        Entry("a", "folder", False, 5, bytes(32), ""),
        Entry("a", "folder", True, 0, empty, ""),
        Entry("a", "file", False, -1, bytes(32), ""),
        Entry("a", "file", False, 5, b"short", ""),
        Entry("a", "file", False, 0, bytes(32), ""),
        Entry("a", "file", False, 5, empty, ""),
    ]
    for entry in bad:
        (page,) = list_pages([entry])
        with pytest.raises(InvalidObject):
            decode_page(page)


def test_verifier_takes_blocks_in_any_order_and_nothing_else() -> None:
    """Goal: content arrives from several holders at once. Method: blocks backwards, one from a resume map, then wrong ones."""
    data = content("x", 3 * BLOCK_BYTES + 10)
    entry = an_entry("x", len(data))
    verifier = EntryVerifier(entry)
    ((index, digest),) = verifier.add(3 * BLOCK_BYTES, data[3 * BLOCK_BYTES :])
    assert (index, digest) == (3, hashlib.sha256(data[3 * BLOCK_BYTES :]).digest())
    verifier.add(BLOCK_BYTES, memoryview(data)[BLOCK_BYTES : 3 * BLOCK_BYTES])
    with pytest.raises(InvalidObject):
        verifier.finish()
    verifier.add_digest(0, hashlib.sha256(data[:BLOCK_BYTES]).digest())
    verifier.finish()
    for offset, piece in ((1, data[1:]), (0, data[:100]), (3 * BLOCK_BYTES, data[:11]), (-BLOCK_BYTES, data[:BLOCK_BYTES])):
        with pytest.raises(InvalidObject):
            verifier.add(offset, piece)
    verifier.add(0, bytes(BLOCK_BYTES))
    with pytest.raises(InvalidObject) as error:
        verifier.finish()
    assert error.value.reason is Reason.INTEGRITY
