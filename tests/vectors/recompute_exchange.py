"""Second implementation of protocols/exchange/SPEC.md from its text: hashlib and msgpack alone, nothing of this project.

``python tests/vectors/recompute_exchange.py`` compares with exchange.json and fails on a difference; ``--write`` writes it anew,
which is a change of format.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import msgpack

VECTORS = Path(__file__).with_name("exchange.json")


def frame(number: int, *fields: object) -> str:
    body: bytes = msgpack.packb(list(fields), use_bin_type=True)
    return (bytes([number]) + body).hex()


def recompute() -> dict[str, Any]:
    chunks = [b"\x00" * 1040, b"\x01" * 1040]
    names = [hashlib.sha256(chunk).digest() for chunk in chunks]
    sizes = [len(chunk) for chunk in chunks]
    root = hashlib.sha256(b"\x01" + names[0] + names[1]).digest()
    signed = [b"\x01\x02", b"\x03" * 32, b"\x04" * 64]
    path = [b"\x05" * 32]
    nonce = b"\x08" * 32
    digest = hashlib.sha256(nonce + chunks[0][:16]).digest()
    return {
        "names": [name.hex() for name in names],
        "root": root.hex(),
        "audit_digest": digest.hex(),
        "frames": {
            "place_by_offer": frame(1, 1, root, names, sizes, ["offer", signed]),
            "place_by_statement": frame(1, 2, root, names, sizes, ["statement", signed, 1, 2, path]),
            "need": frame(2, 1, [0, 1], 4194304),
            "chunk": frame(3, 1, 0, chunks[0]),
            "credit": frame(4, 1, 1040),
            "placed": frame(5, 1, signed),
            "refused": frame(6, 1, "E-QUOTA", "full", signed),
            "confirm": frame(7, 3, signed, 2, [[1, root, path]], [signed]),
            "confirmed": frame(8, 3, signed, [0]),
            "fetch": frame(9, 4, root, [0, 1], 4194304),
            "done": frame(10, 4, [1]),
            "describe": frame(11, 5, b"\x06" * 32, b"\x07" * 32, 1),
            "described": frame(12, 5, names, sizes, 1, 2, path),
            "audit": frame(13, 6, nonce, [[names[0], 0, 16]]),
            "audit_answer": frame(14, 6, digest),
            "cancel": frame(15, 7),
            "bundle": frame(16, 8, [[signed, [[0, path, [chunks[0]]], [1, path, chunks]]]]),
            "bundle_before_chunks": frame(16, 9, [[signed, [[0, path, [chunks[0]]], [1, path, [b"", b""]]]]]),
            "bundled": frame(17, 8, [signed], [[0, "E-QUOTA", "full"]]),
        },
    }


if __name__ == "__main__":
    if "--write" in sys.argv:
        VECTORS.write_text(json.dumps(recompute(), indent=1) + "\n", encoding="utf-8")
    elif json.loads(VECTORS.read_text(encoding="utf-8")) != recompute():
        sys.exit("exchange.json differs from what its SPEC gives")
