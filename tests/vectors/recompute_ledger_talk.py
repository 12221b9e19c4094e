"""Second implementation of protocols/ledger/SPEC.md §Talk from its text: msgpack, hashlib and Ed25519, nothing of this project.

``python -m tests.vectors.recompute_ledger_talk`` compares with ledger_talk.json and fails on a difference; ``--write`` writes it anew,
which is a change of format.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import msgpack

from tests.vectors.recompute_ledger import pack, public, sign
from tests.vectors.recompute_ledger import recompute as recompute_chain

VECTORS = Path(__file__).with_name("ledger_talk.json")


def frame(number: int, *fields: object) -> str:
    return (bytes([number]) + pack(list(fields))).hex()


def recompute() -> dict[str, Any]:
    chain_vectors = recompute_chain()
    chain = bytes.fromhex(chain_vectors["first_block"]["chain"])
    blocks = [msgpack.unpackb(bytes.fromhex(chain_vectors[name]["block"]), raw=False) for name in ("first_block", "second_block")]
    names = [hashlib.sha256(block[0]).digest() for block in blocks]
    challenge, account = b"\x07" * 32, b"\x0a" * 32
    vote = [chain, [0, names[0]], [1, names[1]], account, b"\x0b" * 64]
    told = [1_800_000_000_123, True, 2, 1500]
    witness = [account, public("ann"), sign("ann", "alive", chain, pack([challenge, 3, account, told]))]
    header = blocks[0][0]
    leaves = len(blocks[0][2]) + 1
    assert leaves == 2
    transaction = blocks[0][2][0]
    leaf_path = [
        hashlib.sha256(
            b"lading/transaction-leaf/1\0"
            + b"".join(
                len(part).to_bytes(8, "big") + part
                for part in (hashlib.sha256(pack(transaction[0])).digest(), hashlib.sha256(pack(transaction[1])).digest())
            )
        ).digest()
    ]
    row = [header, blocks[0][1], leaf_path]
    value_hash = hashlib.sha256(b"value").digest()
    there = [b"value", [[names[0], b""], names[1], value_hash]]
    absent = [None, [[], b"", b""]]
    place = hashlib.sha256(b"\x06folder" + b"key").digest()
    leaf = b"\0" + place + hashlib.sha256(b"value").digest()
    return {
        "vote_id": hashlib.sha256(pack(vote)).hexdigest(),
        "frames": {
            "hello": frame(1, chain, challenge),
            "tip": frame(2, [1, names[1]], [0, names[0]]),
            "alive": frame(3, 3, told, [witness]),
            "announce": frame(4, [names[0]], [names[1]]),
            "want": frame(5, [names[0]], []),
            "bodies": frame(6, [transaction], [vote]),
            "ask_headers": frame(7, names[::-1]),
            "headers": frame(8, [[header, blocks[0][1], leaf_path]]),
            "ask_blocks": frame(9, names),
            "give_block": frame(10, blocks[1]),
            "given": frame(11, names[:1]),
            "new_block": frame(12, blocks[1]),
            "pruned": frame(13, 1000),
            "ask_state": frame(26, [2, names[1]], [[b"\0\0", names[0]], [b"\0\x09\xa5\x80", names[1]]]),
            "give_state": frame(15, [[leaf, "folder", b"key", b"value"], [b"\x01" + leaf[1:], "", b"", b""]], names[:1]),
            "ask_history": frame(16, names[1]),
            "history": frame(17, [[header, blocks[0][1], leaf_path]]),
            "ask_final": frame(18, 1000, 2),
            "final": frame(19, [[row, [vote], [there, absent], there, [transaction]]], [[row, row, [vote], there, absent]]),
            "final_nothing": frame(19, [], []),
            "ask_bundles": frame(20, names[0], True),
            "bundles": frame(21, [[header, b"", blocks[0][1], leaf_path, [vote]]]),
            "ask_proofs": frame(22, names[1], [["folder", b"key"], ["chain", b"council"]]),
            "proofs": frame(23, [there, absent]),
            "ask_inclusion": frame(24, 77, names[0]),
            "included": frame(25, [[row, [1, [names[0]]], transaction]]),
        },
    }


if __name__ == "__main__":
    if "--write" in sys.argv:
        VECTORS.write_text(json.dumps(recompute(), indent=1) + "\n", encoding="utf-8")
    elif json.loads(VECTORS.read_text(encoding="utf-8")) != recompute():
        sys.exit("ledger_talk.json differs from what the SPEC gives")
