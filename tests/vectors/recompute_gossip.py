"""Second implementation of protocols/gossip/SPEC.md from its text: hashlib and msgpack alone, nothing of this project.

``python tests/vectors/recompute_gossip.py`` compares with gossip.json and fails on a difference; ``--write`` writes it anew,
which is a change of format.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import msgpack

VECTORS = Path(__file__).with_name("gossip.json")


def frame(number: int, *fields: object) -> str:
    body: bytes = msgpack.packb(list(fields), use_bin_type=True)
    return (bytes([number]) + body).hex()


def sketch(ids: list[bytes]) -> bytes:
    digests = [0] * 256
    for one in ids:
        digests[one[0]] ^= int.from_bytes(hashlib.sha256(one).digest()[:8], "big")
    return b"".join(digest.to_bytes(8, "big") for digest in digests)


def recompute() -> dict[str, Any]:
    facts = [(16, b"statement %d" % number) for number in range(300)] + [(20, b"receipt")]
    ids = [hashlib.sha256(bytes([kind]) + body).digest() for kind, body in facts]
    peer = b"\x00\x24\x08\x01\x12\x20" + b"\x09" * 32
    return {
        "ids": [one.hex() for one in ids],
        "sketch": sketch(ids).hex(),
        "frames": {
            "announce": frame(1, ids[:2]),
            "want": frame(2, ids[:1]),
            "bodies": frame(3, [list(facts[0]), list(facts[300])]),
            "summary": frame(4, len(ids), sketch(ids)),
            "bucket_ids": frame(5, ids[0][0], sorted(one for one in ids if one[0] == ids[0][0]), True),
            "seen": frame(6, [[peer, 7]], 3, 0),
        },
    }


if __name__ == "__main__":
    if "--write" in sys.argv:
        VECTORS.write_text(json.dumps(recompute(), indent=1) + "\n", encoding="utf-8")
    elif json.loads(VECTORS.read_text(encoding="utf-8")) != recompute():
        sys.exit("gossip.json differs from what its SPEC gives")
