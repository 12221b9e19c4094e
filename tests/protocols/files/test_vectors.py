"""Golden vectors: this implementation, the second one in tests/vectors, and the file agree."""

from __future__ import annotations

import json
from typing import Any

import pytest

from protocols.codec import encode
from protocols.crypto import FORMAT, SUITE, Label, SigningKey, sha256
from protocols.files.audit import answer, challenge, check_answer
from protocols.files.builder import RecordBuilder
from protocols.files.hashid import cid_text, hash_id
from protocols.files.holdings import Receipt, ReceiptItem, node_peer, open_receipt, sign_receipt
from protocols.files.journal import append, head_of
from protocols.files.keys import RecordClass
from protocols.files.objects import Tombstone, open_statement, sign_statement, sign_tombstone, wraps_digest
from protocols.files.padding import padme
from protocols.files.placement import Candidate, minus_log2, rendezvous_order
from protocols.files.precedence import Next, next_after
from protocols.files.sequences import SequenceDescriptor, sequence_root
from protocols.signed import Signed
from protocols.types import HashId, MemberId, PeerId, SequenceRoot, Signature, StoreId, UnixMillis, UnixSeconds
from tests.protocols.files.records import DOMAIN, FRESH, NETWORK, NOW, OWNER, SECRETS, content, statement
from tests.vectors import recompute_files

VECTORS: dict[str, Any] = json.loads(recompute_files.VECTORS.read_text(encoding="utf-8"))
HOLDER = SigningKey(bytes(range(64, 96)))


def test_second_implementation_gives_the_file() -> None:
    """Goal: the vectors follow from SPEC.md alone. Method: recompute them without this project's code."""
    assert json.loads(json.dumps(recompute_files.recompute())) == VECTORS


@pytest.mark.parametrize("name", sorted(VECTORS["records"]))
def test_record_is_built_as_the_vector_says(name: str) -> None:
    """Goal: names, keys, roots and signature byte for byte. Method: build each case of the file."""
    case, gives = VECTORS["records"][name]["case"], VECTORS["records"][name]["gives"]
    record_class = RecordClass(case["class"])
    builder = RecordBuilder(OWNER.public, SECRETS, record_class, case["epoch"], FRESH, case["chunks_per_sequence"])
    chunks = []
    for path, kind, executable, size, target in case["entries"]:
        builder.begin_entry(path, kind, executable, target)
        if size:
            chunks += builder.feed(content(path, size))
        chunks += builder.end_entry()
    record = builder.finish()
    chunks += record.last_chunks
    assert [entry.digest.hex() for entry in record.entries] == gives["digests"]
    assert [(chunk.name.hex(), chunk.key.hex(), len(chunk.sealed)) for chunk in chunks] == [
        (chunk["name"], chunk["key"], chunk["sealed"]) for chunk in gives["chunks"]
    ]
    for field in ("list_root", "salt", "c", "hash_id", "record_key", "commitment", "manifest_salt", "chunks_root"):
        assert getattr(record, field).hex() == gives[field], field
    assert [chunk.name.hex() for chunk in record.manifest_chunks] == gives["manifest_names"]
    assert record.manifest_chunks[0].sealed[:64].hex() == gives["manifest_first_bytes"]
    assert [root.hex() for root in record.sequence_roots] == gives["sequence_roots"]
    assert record.sealed_bytes == gives["sealed_bytes"]
    assert cid_text(record.manifest_chunks[0].name) == gives["cid"]
    stated = record.statement(network=NETWORK, domain=DOMAIN, seq=1, follows=b"", time_s=NOW)
    signed = sign_statement(stated, OWNER)
    assert (signed.body.hex(), signed.signature.hex()) == (gives["statement"], gives["statement_signature"])
    assert signed.object_hash.hex() == gives["statement_hash"]
    assert open_statement(signed, NETWORK) == stated


def test_other_objects_stand_as_the_vector_says() -> None:
    """Goal: order of fields of receipt and tombstone. Method: rebuild both."""
    wanted = VECTORS["objects"]
    c = sha256(b"c")
    name = hash_id(OWNER.public, c)
    roots = tuple(sorted(SequenceRoot(sha256(b"sequence %d" % number)) for number in range(2)))
    item = ReceiptItem(OWNER.public, name, 4, sha256(b"statement"), wraps_digest(()), roots)
    until_s = UnixSeconds(NOW + 86400)
    value = Receipt(FORMAT, SUITE, NETWORK, node_peer(HOLDER), StoreId(b"\x33" * 16), 2, 77, NOW, until_s, (item,))
    signed = sign_receipt(value, HOLDER)
    assert (signed.body.hex(), signed.signature.hex()) == (wanted["receipt"], wanted["receipt_signature"])
    assert open_receipt(signed, NETWORK) == value
    after = Next(seq=5, follows=sha256(b"statement"), covers=(sha256(b"statement"),))
    grave = Tombstone(FORMAT, SUITE, NETWORK, DOMAIN, OWNER.public, name, c, 5, after.follows, after.covers, "delete", NOW)
    buried = sign_tombstone(grave, OWNER)
    assert (buried.body.hex(), buried.object_hash.hex()) == (wanted["tombstone"], wanted["tombstone_hash"])
    assert wraps_digest(()).hex() == wanted["wraps_of_none"]


def test_numbers_are_those_of_the_vector() -> None:
    """Goal: padding, logarithm and placement alike everywhere. Method: compare with the file."""
    assert {size: padme(int(size)) for size in VECTORS["padme"]} == VECTORS["padme"]
    assert {draw: minus_log2(int(draw)) for draw in VECTORS["placement"]["minus_log2"]} == VECTORS["placement"]["minus_log2"]
    assert SECRETS.epoch_secret(3).hex() == VECTORS["epoch_secret_3"] == VECTORS["hkdf_is_hmac"]
    nodes = [Candidate(PeerId(b"node %d" % weight), MemberId(bytes(32)), "", weight, False) for weight in range(1, 8)]
    order = rendezvous_order(OWNER.public, SequenceRoot(sha256(b"sequence")), nodes)
    assert [node.peer.decode() for node in order] == VECTORS["placement"]["order"]


def test_audit_is_that_of_the_vector() -> None:
    """Goal: both sides read the same ranges. Method: three chunks, the file's ranges and answer."""
    chunks = [content("x", 1040), content("y", 262160), content("z", 9232)]
    names = tuple(bytes(sha256(chunk)) for chunk in chunks)
    by_name = dict(zip(names, chunks, strict=True))
    sequence = SequenceDescriptor(root=sequence_root(names), names=names, sizes=tuple(len(chunk) for chunk in chunks))
    nonce = sha256(b"nonce")
    ranges = challenge(nonce, sequence)
    assert [[names.index(asked.name), asked.offset, asked.length] for asked in ranges] == VECTORS["audit"]["ranges"]
    found = answer(nonce, ranges, lambda name, offset, length: by_name[name][offset : offset + length])
    assert found.hex() == VECTORS["audit"]["answer"]
    check_answer(nonce, ranges, lambda name, offset, length: by_name[name][offset : offset + length], found)


def test_log_heads_are_those_of_the_vector() -> None:
    """Goal: one head for one log. Method: a log of two steps."""
    record = HashId(sha256(b"record"))
    first = append((), "received", record, UnixMillis(1_800_000_000_000), seq=1)
    second = append(first, "anchored", record, UnixMillis(1_800_000_001_000), tx=sha256(b"tx"))
    assert [head_of(first).hex(), head_of(second).hex()] == VECTORS["journal"]


def test_object_hash_is_of_body_and_signer() -> None:
    """Goal: a second valid signature is no second object. Method: another signature, same hash; another signer, another hash."""
    body = encode(statement(next_after(())))
    first = Signed(body, OWNER.public, OWNER.sign(Label.STATEMENT, NETWORK, body))
    assert first.object_hash == Signed(body, OWNER.public, Signature(bytes(64))).object_hash
    assert first.object_hash != Signed(body, HOLDER.public, first.signature).object_hash
