"""Second implementation of protocols/auth/SPEC.md from its text: hashlib, msgpack and cryptography alone, nothing of this project.

``python tests/vectors/recompute_auth.py`` compares with auth.json and fails on a difference; ``--write`` writes it anew, which is
a change of format. Chains come from identity.json.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VECTORS = Path(__file__).with_name("auth.json")
IDENTITY = Path(__file__).with_name("identity.json")
SEED = b"\4" * 32
HANDSHAKE_HASH = b"\x55" * 32
TIME = 1_790_000_000


def pack(value: object) -> bytes:
    return msgpack.packb(value, use_bin_type=True)


def recompute() -> dict[str, Any]:
    identity = json.loads(IDENTITY.read_text(encoding="utf-8"))
    chain = [bytes.fromhex(der) for der in identity["chain"][:3]]
    network = bytes.fromhex(identity["network_id"])
    empty = hashlib.sha256(b"").digest()
    # The same node stands on both ends here, which a real connection never has: enough to pin the bytes.
    hellos = [pack([1, 1, role, 1, 2, ["http", "relay"], chain, empty, empty, 0, bytes([role]) * 32, TIME, role == 1]) for role in (1, 2)]
    key = Ed25519PrivateKey.from_private_bytes(SEED)
    signatures = [key.sign(b"lading/auth/1\0" + network + pack([role, HANDSHAKE_HASH, *hellos])) for role in (1, 2)]
    return {
        "hello_frames": [(b"\1" + hello).hex() for hello in hellos],
        "proof_frames": [(b"\2" + pack([signature])).hex() for signature in signatures],
        "refusal_frame": (b"\6" + pack(["E-VERSION", "1 to 2 here"])).hex(),
        "known_frame": (b"\3" + pack([[b"\1" * 32, b"\2" * 32], True])).hex(),
    }


if __name__ == "__main__":
    if "--write" in sys.argv:
        VECTORS.write_text(json.dumps(recompute(), indent=1) + "\n", encoding="utf-8")
    elif json.loads(VECTORS.read_text(encoding="utf-8")) != recompute():
        sys.exit("auth.json differs from what its SPEC gives")
