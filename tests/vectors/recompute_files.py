"""Second implementation of protocols/files/SPEC.md from its text: hashlib, msgpack and cryptography alone, nothing of this project.

``python tests/vectors/recompute_files.py`` compares with files.json and fails on a difference; ``--write`` writes it anew, which
is a change of format.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
from pathlib import Path
from typing import Any

import msgpack  # type: ignore[import-untyped]
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

VECTORS = Path(__file__).with_name("files.json")
BLOCK = 262144

ROOT_SECRET = bytes(range(32))
OWNER_SEED = bytes(range(32, 64))
HOLDER_SEED = bytes(range(64, 96))
FRESH = bytes(range(128, 192))
NETWORK = b"\x11" * 32
DOMAIN = b"\x22" * 32
TIME = 1_800_000_000


def sha(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def framed(label: str, *parts: bytes) -> bytes:
    return b"lading/" + label.encode() + b"/1\0" + b"".join(len(part).to_bytes(8, "big") + part for part in parts)


def labelled(label: str, *parts: bytes) -> bytes:
    return sha(framed(label, *parts))


def derive(secret: bytes, label: str, *context: bytes) -> bytes:
    return HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=framed(label, *context)).derive(secret)


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def merkle(leaves: list[bytes]) -> bytes:
    """Top down: the left part is the greatest power of two below the number of leaves."""
    if not leaves:
        return sha()
    if len(leaves) == 1:
        return leaves[0]
    split = 1 << ((len(leaves) - 1).bit_length() - 1)
    return sha(b"\x01", merkle(leaves[:split]), merkle(leaves[split:]))


def content(path: str, size: int) -> bytes:
    return hashlib.shake_128(path.encode()).digest(size)


def padme(size: int) -> int:
    exponent = size.bit_length() - 1
    low_bits = exponent - exponent.bit_length()
    return -(-size >> low_bits) << low_bits


def padded(size: int) -> int:
    return max(1024, padme(size))


def seal(key: bytes, plain: bytes) -> bytes:
    return ChaCha20Poly1305(key).encrypt(bytes(12), plain, b"")


def build(case: dict[str, Any]) -> dict[str, Any]:
    """case: class, epoch, chunks_per_sequence, entries as [path, kind, executable, size, target]."""
    confidential = case["class"] == "confidential"
    secret = derive(FRESH, "fresh", b"content") if confidential else derive(ROOT_SECRET, "epoch", u64(case["epoch"]))
    entries = []
    pieces: list[list[tuple[bytes, int]]] = []
    plains: list[bytes] = []
    fill = BLOCK + 1  # no pack is open
    position = [0, 0]
    for path, kind, executable, size, target in case["entries"]:
        data = content(path, size)
        blocks = [data[start : start + BLOCK] for start in range(0, size, BLOCK)]
        entries.append([path, kind, executable, size, merkle([sha(block) for block in blocks]), target])
        if size >= BLOCK:
            pieces += [[(sha(block), len(block))] for block in blocks]
            plains += blocks
            fill = BLOCK + 1
        elif size:
            if fill + size > BLOCK:
                pieces.append([])
                plains.append(b"")
                fill = 0
            pieces[-1].append((sha(data), size))
            plains[-1] += data
            fill += size
        position = [len(pieces) - 1, fill] if fill <= BLOCK else [len(pieces), 0]
    total = sum(entry[3] for entry in entries)
    inline = b""
    if total <= 65536:
        inline = b"".join(plains)
        pieces, plains = [], []
    rows = []
    for number, (blocks_of_piece, plain) in enumerate(zip(pieces, plains, strict=True)):
        sequence, index = divmod(number, case["chunks_per_sequence"])
        pad = padded(len(plain)) - len(plain)
        facts = pack([1, 0, pad, blocks_of_piece, [1 + sequence, index] if confidential else None])
        key = derive(secret, "chunk", labelled("chunk-key", facts))
        sealed = seal(key, plain + bytes(pad))
        rows.append((sha(sealed), key, len(plain), len(sealed)))
    page = pack([1, 1, entries])
    attributes = pack([1, 1, [[None, "", ""]] * len(entries)])
    page_hash = labelled("entry-page", page)
    list_root = merkle([page_hash])
    salt = derive(FRESH, "fresh", b"salt") if confidential else derive(ROOT_SECRET, "salt", list_root)
    c = labelled("hash-id-c", salt, list_root)
    owner_key = Ed25519PrivateKey.from_private_bytes(OWNER_SEED)
    owner = owner_key.public_key().public_bytes_raw()
    hash_id = labelled("hash-id", owner, c)
    record_key = derive(ROOT_SECRET, "record", hash_id, u64(case["epoch"]))
    commitment = labelled("record-key-commitment", record_key)
    head = pack(
        [1, 1, case["class"], case["epoch"], salt, len(entries), total, len(rows), case["chunks_per_sequence"], len(inline), []]
        + [[[entries[0][0], page_hash, len(page), len(attributes), 0, 0]]]
    )
    table = b"".join(name + key + size.to_bytes(4, "big") for name, key, size, _ in rows)
    manifest = len(head).to_bytes(4, "big") + head + inline + table + page + attributes
    manifest_salt = derive(FRESH, "fresh", b"manifest-salt", sha(manifest))
    manifest_sealed = []
    for index, start in enumerate(range(0, len(manifest), BLOCK)):
        plain = manifest[start : start + BLOCK]
        key = derive(record_key, "manifest", manifest_salt, u64(index))
        manifest_sealed.append(seal(key, plain + bytes(padded(len(plain)) - len(plain))))
    size = case["chunks_per_sequence"]
    roots = [merkle([row[0] for row in rows[start : start + size]]) for start in range(0, len(rows), size)]
    manifest_root = merkle([sha(sealed) for sealed in manifest_sealed])
    chunks_root = merkle([manifest_root, *roots])
    sealed_bytes = sum(len(sealed) for sealed in manifest_sealed) + sum(row[3] for row in rows)
    statement = pack(
        [1, 1, NETWORK, DOMAIN, owner, hash_id, c, case["class"], case["epoch"], 1, b"", chunks_root, len(manifest_sealed), len(rows)]
        + [size, sealed_bytes, commitment, manifest_salt, 0, 0, 0, 0, TIME]
    )
    return {
        "digests": [entry[4].hex() for entry in entries],
        "page_hash": page_hash.hex(),
        "list_root": list_root.hex(),
        "salt": salt.hex(),
        "c": c.hex(),
        "hash_id": hash_id.hex(),
        "record_key": record_key.hex(),
        "commitment": commitment.hex(),
        "chunks": [{"name": name.hex(), "key": key.hex(), "content": size, "sealed": sealed} for name, key, size, sealed in rows],
        "position": position,
        "manifest_salt": manifest_salt.hex(),
        "manifest_names": [sha(sealed).hex() for sealed in manifest_sealed],
        "manifest_first_bytes": manifest_sealed[0][:64].hex(),
        "sequence_roots": [manifest_root.hex(), *(root.hex() for root in roots)],
        "chunks_root": chunks_root.hex(),
        "sealed_bytes": sealed_bytes,
        "cid": "b" + base64.b32encode(b"\x01\x55\x12\x20" + sha(manifest_sealed[0])).decode().rstrip("=").lower(),
        "statement": statement.hex(),
        "statement_hash": labelled("object", statement, owner).hex(),
        "statement_signature": owner_key.sign(b"lading/statement/1\0" + NETWORK + statement).hex(),
    }


CASES: dict[str, dict[str, Any]] = {
    "inline": {
        "class": "dedup",
        "epoch": 0,
        "chunks_per_sequence": 16,
        "entries": [
            ["docs", "folder", False, 0, ""],
            ["docs/empty", "file", False, 0, ""],
            ["docs/latest", "symlink", False, 0, "../run"],
            ["docs/naïve.txt", "file", False, 5, ""],
            ["run", "file", True, 1000, ""],
        ],
    },
    "cuts": {
        "class": "dedup",
        "epoch": 3,
        "chunks_per_sequence": 2,
        "entries": [
            ["a", "file", False, 200000, ""],
            ["b", "file", False, 62144, ""],
            ["c", "file", False, 1, ""],
            ["d", "file", False, 600000, ""],
            ["e", "file", False, 262144, ""],
            ["f", "file", False, 262143, ""],
            ["g", "file", False, 7, ""],
        ],
    },
}
CASES["confidential"] = {**CASES["cuts"], "class": "confidential"}


def holder_objects() -> dict[str, str]:
    """A receipt and a tombstone, to fix the order of fields, and the digest of no wraps."""
    owner = Ed25519PrivateKey.from_private_bytes(OWNER_SEED).public_key().public_bytes_raw()
    holder_key = Ed25519PrivateKey.from_private_bytes(HOLDER_SEED)
    holder = bytes.fromhex("002408011220") + holder_key.public_key().public_bytes_raw()
    c = sha(b"c")
    hash_id = labelled("hash-id", owner, c)
    wraps = labelled("wraps")
    item = [owner, hash_id, 4, sha(b"statement"), wraps, sorted([sha(b"sequence 0"), sha(b"sequence 1")])]
    receipt = pack([1, 1, NETWORK, holder, b"\x33" * 16, 2, 77, TIME, TIME + 86400, [item]])
    tombstone = pack([1, 1, NETWORK, DOMAIN, owner, hash_id, c, 5, sha(b"statement"), [sha(b"statement")], "delete", TIME])
    return {
        "receipt": receipt.hex(),
        "receipt_signature": holder_key.sign(b"lading/receipt/1\0" + NETWORK + receipt).hex(),
        "tombstone": tombstone.hex(),
        "tombstone_hash": labelled("object", tombstone, owner).hex(),
        "wraps_of_none": wraps.hex(),
    }


def minus_log2(draw: int) -> int:
    value = draw + 1
    whole = value.bit_length() - 1
    mantissa = value << 64 >> whole
    fraction = 0
    for _ in range(32):
        mantissa = mantissa * mantissa >> 64
        bit = mantissa >> 65
        mantissa >>= bit
        fraction = 2 * fraction + bit
    return (64 - whole) * 2**32 - fraction


def placement() -> dict[str, Any]:
    """Rendezvous order of seven nodes with weights 1 to 7."""
    owner = Ed25519PrivateKey.from_private_bytes(OWNER_SEED).public_key().public_bytes_raw()
    key = sha(owner, sha(b"sequence"))
    scored = []
    for weight in range(1, 8):
        peer = b"node %d" % weight
        draw = int.from_bytes(labelled("placement", key, peer)[:8], "big")
        scored.append((-(weight * 2**192 // max(1, minus_log2(draw))), -draw, peer))
    return {
        "order": [peer.decode() for _, _, peer in sorted(scored)],
        "minus_log2": {str(draw): minus_log2(draw) for draw in (0, 1, 2**32, 2**63 - 1, 2**63, 2**64 - 2, 2**64 - 1)},
    }


def audit() -> dict[str, Any]:
    """Eight ranges of 4,096 bytes over three chunks, and the answer."""
    nonce = sha(b"nonce")
    chunks = [content("x", 1040), content("y", 262160), content("z", 9232)]
    names = [sha(chunk) for chunk in chunks]
    ranges = []
    answer = nonce
    for number in range(8):
        draw = labelled("audit", nonce, merkle(names), u64(number))
        index = int.from_bytes(draw[:16], "big") % 3
        length = min(4096, len(chunks[index]))
        offset = int.from_bytes(draw[16:], "big") % (len(chunks[index]) - length + 1)
        ranges.append([index, offset, length])
        answer += chunks[index][offset : offset + length]
    return {"ranges": ranges, "answer": sha(answer).hex()}


def journal() -> list[str]:
    """Heads of a log of two steps."""
    record = sha(b"record")
    first = pack([1, bytes(32), record, "received", 1_800_000_000_000, [["seq", 1]]])
    second = pack([1, labelled("journal", first), record, "anchored", 1_800_000_001_000, [["tx", sha(b"tx")]]])
    return [labelled("journal", first).hex(), labelled("journal", second).hex()]


def recompute() -> dict[str, Any]:
    """Everything that stands in files.json."""
    return {
        "padme": {str(size): padme(size) for size in (2, 9, 100, 1000, 1025, 65537, 131073, 258049, 262143, 262144)},
        "hkdf_is_hmac": hmac.digest(hmac.digest(bytes(32), ROOT_SECRET, "sha256"), framed("epoch", u64(3)) + b"\x01", "sha256").hex(),
        "epoch_secret_3": derive(ROOT_SECRET, "epoch", u64(3)).hex(),
        "records": {name: {"case": case, "gives": build(case)} for name, case in CASES.items()},
        "objects": holder_objects(),
        "placement": placement(),
        "audit": audit(),
        "journal": journal(),
    }


if __name__ == "__main__":
    found = json.dumps(recompute(), indent=1, ensure_ascii=False) + "\n"
    if "--write" in sys.argv:
        VECTORS.write_text(found, encoding="utf-8")
    elif VECTORS.read_text(encoding="utf-8") != found:
        sys.exit("files.json is not what SPEC.md says")
