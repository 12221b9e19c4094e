"""Second implementation of protocols/ledger/SPEC.md from its text: hashlib, msgpack and cryptography, nothing of this project.

``python tests/vectors/recompute_ledger.py`` compares with ledger.json and fails on a difference; ``--write`` writes it anew, which is
a change of format.
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import msgpack
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

VECTORS = Path(__file__).with_name("ledger.json")
ZERO = bytes(32)


def h(*parts: bytes) -> bytes:
    return hashlib.sha256(b"".join(parts)).digest()


def u64(number: int) -> bytes:
    return number.to_bytes(8, "big")


def labelled(label: str, *parts: bytes) -> bytes:
    return h(f"lading/{label}/1".encode() + b"\0", *(u64(len(part)) + part for part in parts))


def pack(value: object) -> bytes:
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def key(name: str) -> Ed25519PrivateKey:
    return Ed25519PrivateKey.from_private_bytes(h(name.encode()))


def public(name: str) -> bytes:
    return key(name).public_key().public_bytes_raw()


def sign(name: str, label: str, chain: bytes, body: bytes) -> bytes:
    return key(name).sign(f"lading/{label}/1".encode() + b"\0" + chain + body)


# --- trees --------------------------------------------------------------------------------------------------------


def merkle(leaves: list[bytes]) -> bytes:
    if not leaves:
        return h()
    while len(leaves) > 1:
        above = [h(b"\1", leaves[at], leaves[at + 1]) for at in range(0, len(leaves) - 1, 2)]
        leaves = above + leaves[len(leaves) - len(leaves) % 2 :]
    return leaves[0]


def state_key(space: str, name: bytes) -> bytes:
    return h(bytes([len(space)]), space.encode(), name)


def tree(items: dict[bytes, bytes], depth: int = 0) -> bytes:
    if not items:
        return ZERO
    if len(items) == 1:
        ((place, value),) = items.items()
        return h(b"\0", place, value)
    halves: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
    for place, value in items.items():
        halves[place[depth // 8] >> (7 - depth % 8) & 1][place] = value
    return h(b"\1", tree(halves[0], depth + 1), tree(halves[1], depth + 1))


def state_root(values: dict[tuple[str, bytes], bytes]) -> bytes:
    return tree({state_key(space, name): h(value) for (space, name), value in values.items()})


def state_proof(values: dict[tuple[str, bytes], bytes], space: str, name: bytes) -> list[Any]:
    items = {state_key(*at): h(value) for at, value in values.items()}
    wanted, siblings, depth = state_key(space, name), [], 0
    while len(items) > 1:
        halves: tuple[dict[bytes, bytes], dict[bytes, bytes]] = ({}, {})
        for place, value in items.items():
            halves[place[depth // 8] >> (7 - depth % 8) & 1][place] = value
        side = wanted[depth // 8] >> (7 - depth % 8) & 1
        other = tree(halves[1 - side], depth + 1)
        siblings.append(b"" if other == ZERO else other)
        items = halves[side]
        depth += 1
    place, value = next(iter(items.items()), (b"", b""))
    return [siblings, place, value]


def peaks(leaves: list[bytes]) -> list[bytes]:
    found: list[tuple[int, bytes]] = []
    for leaf in leaves:
        found.append((1, leaf))
        while len(found) > 1 and found[-1][0] == found[-2][0]:
            right, left = found.pop(), found.pop()
            found.append((2 * left[0], h(b"\1", left[1], right[1])))
    return [one for _, one in found]


# --- the pieces ---------------------------------------------------------------------------------------------------


def transaction(content: list[Any], signers: list[str]) -> dict[str, Any]:
    name = h(pack(content))
    signatures = [[public(one), sign(one, "transaction", content[1], name)] for one in sorted(signers, key=public)]
    return {
        "value": [content, signatures],
        "id": name,
        "bytes": pack([content, signatures]),
        "leaf": labelled("transaction-leaf", name, h(pack(signatures))),
    }


def header(t_stamp: int, root: bytes, version: int, parent: bytes, nonce: int) -> bytes:
    return u64(t_stamp) + root + version.to_bytes(4, "big") + parent + u64(nonce)


def vote(member: bytes, signer: str, chain: bytes, source: tuple[int, bytes], target: tuple[int, bytes]) -> list[Any]:
    return [chain, list(source), list(target), member, sign(signer, "vote", chain, pack([*source, *target, member]))]


def leader(miners: list[bytes], seed: bytes, slot: int, parent_slot: int, parent_miner: bytes) -> bytes:
    rest = [one for one in miners if one != parent_miner]
    if slot - parent_slot > len(miners) - 1 or not rest:
        rest = miners
    return min(rest, key=lambda one: labelled("leader", seed, u64(slot), one))


def draw(candidates: list[tuple[bytes, bool]], seed: bytes, sitting: list[bytes]) -> list[bytes]:
    return [one for one, _ in sorted(candidates, key=lambda one: (one[0] in sitting, not one[1], labelled("draw", seed, one[0])))]


def easiest(bits: int) -> int:
    return (1 << (256 - bits)) - 1


def retarget(target: int, delays: list[list[int]], bits: int) -> int:
    medians = [sorted(own)[(len(own) - 1) // 2] for own in delays if len(own) >= 2]
    if not medians:
        return target
    wanted = target * 13 * max(medians) // 1000
    return max(1, min(max(wanted, target // 2), 2 * target, easiest(bits)))


# --- a chain ------------------------------------------------------------------------------------------------------

TIME = 1_800_000_000_000
YEAR = 365 * 86_400_000
MEMBER, MINER = h(b"account a"), h(b"account a")
SERIAL = bytes(range(16))
TIP = h(h(h(b"reveal a")))


def genesis_body() -> list[Any]:
    profile = [
        *(h(b"network"), h(b"domain"), "example", "consortium", "consortium", "authority"),
        *(1000, 250, 1000, 100, 3600, 1200, 0, 0, 393216, 4096, 65536, 604800000, 120000, None),
    ]
    council = [0, [[MEMBER, public("a council"), public("a vote")]], 1, [], 0]
    policy = [1, [], [], [], 256, 1, 1, 0, 2, 100, 7, 604800000]
    clusters = [["all", [], 1]]
    certificate = [SERIAL, MEMBER, public("a"), h(b"enc"), "institution", "", 3, "CN", "", [["port", "Shanghai"]], TIME, TIME + YEAR]
    miner = ["certify", MINER, "all", public("a seal"), TIP, 2]
    return [profile, council, policy, clusters, [certificate], [miner], TIME, 1, ZERO]


def genesis_state(chain: bytes, body: list[Any]) -> dict[tuple[str, bytes], bytes]:
    profile, council, policy, clusters, (certificate,), *_ = body
    seeds = [labelled("term-seed", chain, u64(term)) for term in (0, 1)]
    return {
        ("chain", b"profile"): pack(profile),
        ("chain", b"genesis"): pack([TIME]),
        ("chain", b"council"): pack(council),
        ("chain", b"policy"): pack(policy),
        ("rules", u64(0)): u64(1),
        ("cluster", b"all"): pack(clusters[0]),
        ("certificate", SERIAL): MEMBER,
        ("key", public("a")): pack([MEMBER, TIME, 0]),
        ("account", MEMBER): pack(
            [MEMBER, SERIAL, *certificate[2:10], certificate[10], certificate[11], "active", 0, 0, 0],
        ),
        ("miner", MINER): pack([MINER, "all", public("a seal"), TIP, 2, True, [], 0, 0]),
        ("sealer", public("a seal")): MINER,
        ("seed", u64(0)): seeds[0],
        ("seed", u64(1)): seeds[1],
        ("term", u64(0)): pack([0, seeds[0], [MINER], 0]),
        ("tip", b""): pack([0, 0, ZERO, 0, 0]),
        ("committee", u64(0)): pack([0, 0, [[MEMBER, public("a vote")]], 0, None]),
        ("work", b""): pack([easiest(0).to_bytes(32, "big"), ZERO, []]),
        ("history", b""): pack([0, []]),
    }


def info(chain: bytes, height: int, slot: int, miner: bytes, root: bytes, reveal: bytes, votes: bytes, count: int) -> list[Any]:
    target, line = easiest(0).to_bytes(32, "big"), labelled("miner-list", MINER)
    return [1, chain, height, slot, miner, 0, target, root, line, reveal, b"", 0, votes, ZERO, count]


def first_block() -> tuple[dict[str, Any], bytes, bytes, dict[tuple[str, bytes], bytes]]:
    body = genesis_body()
    founding = transaction([1, ZERO, 1, MEMBER, b"", TIME, TIME, [], pack(body)], ["a council"])
    chain = founding["id"]
    state = genesis_state(chain, body)
    leaf0 = info(chain, 0, 0, ZERO, state_root(state), ZERO, h(), 1)
    root = merkle([labelled("block-info", pack(leaf0)), founding["leaf"]])
    head = header(TIME, root, 1, ZERO, 0)
    block = pack([head, leaf0, [founding["value"]], [], b""])
    return {"chain": chain, "state_root": leaf0[7], "block": block, "hash": h(head)}, chain, head, state


def second_block(chain: bytes, parent: bytes, state: dict[tuple[str, bytes], bytes]) -> dict[str, Any]:
    """Slot 3; one FolderUpdate by the one account."""
    slot, reveal = 3, h(h(b"reveal a"))
    body = ["trade", h(b"folder"), h(b"log"), 1]
    until = TIME + 3000 + 60_000
    folder = transaction([1, chain, 15, MEMBER, SERIAL, TIME + 3000, until, [], pack(body)], ["a"])
    after = {
        **state,
        ("hash", u64(0)): h(parent),
        ("history", b""): pack([1, [h(parent)]]),
        ("work", b""): pack([easiest(0).to_bytes(32, "big"), u64(1).rjust(32, b"\0"), []]),
        ("term", u64(0)): pack([0, labelled("term-seed", chain, u64(0)), [MINER], slot]),
        ("reveal", u64(0) + u64(1)): reveal,
        ("miner", MINER): pack([MINER, "all", public("a seal"), reveal, 1, True, [], 1, 0]),
        ("tip", b""): pack([1, slot, MINER, 0, 1]),
        ("folder", MEMBER + b"trade"): pack([public("a"), h(b"folder"), h(b"log"), 1]),
        ("seen", folder["id"]): u64(until),
        ("forget", u64(until - until % 60_000) + u64(1) + bytes(2)): folder["id"],
    }
    leaf0 = info(chain, 1, slot, MINER, state_root(after), reveal, h(), 1)
    root = merkle([labelled("block-info", pack(leaf0)), folder["leaf"]])
    head = header(TIME + 3000 + 7, root, 1, h(parent), 0)
    seal = sign("a seal", "seal", chain, u64(slot) + h(head))
    return {"state_root": leaf0[7], "block": pack([head, leaf0, [folder["value"]], [], seal]), "hash": h(head), "transaction": folder["id"]}


def folder(count: int) -> bytes:
    """Root of a folder with so many records."""
    return merkle([labelled("folder-entry", public("ann"), h(b"record %d" % at), h(b"statement %d" % at)) for at in range(count)])


def recompute() -> dict[str, Any]:
    first, chain, parent, state = first_block()
    values = {("space", bytes([number])): b"value %d" % number for number in range(20)}
    smaller = {at: value for at, value in values.items() if at[1][0] % 3}
    miners = sorted(h(name.encode()) for name in "abcde")
    blocks = [h(b"block", bytes([number])) for number in range(11)]
    votes = [vote(MEMBER, "a vote", chain, (at, blocks[at]), (at + 1, blocks[at + 1])) for at in range(3)]
    leaders, miner, last = [], miners[0], 0
    for slot in (1, 2, 3, 4, 9, 10, 11, 30):
        miner = leader(miners, h(b"seed"), slot, last, miner)
        leaders.append([slot, miner])
        last = slot
    head = header(TIME, h(b"root"), 1, h(b"parent"), 12345)
    work = hashlib.scrypt(head, salt=h(b"root"), n=1024, r=8, p=1, dklen=32)
    delays = [[10, 70, 90], [60, 80], [5000]]
    found: dict[str, Any] = {
        "header": {"bytes": head, "hash": h(head), "scrypt_work": work},
        "first_block": first,
        "second_block": second_block(chain, parent, state),
        "tree": {
            "keys": [state_key("space", bytes([number])) for number in range(3)],
            "root": state_root(values),
            "root_after_removal": state_root(smaller),
            "member": pack(state_proof(values, "space", bytes([7]))),
            "other_leaf": pack(state_proof(values, "space", b"nothing")),
            "nothing": pack(state_proof({("space", b"a"): b"1"}, "space", b"b")),
            "empty": pack(state_proof({}, "space", b"b")),
        },
        "history": [peaks(blocks[:count]) for count in (1, 2, 3, 7, 8, 11)],
        "votes": {"values": pack(votes), "root": merkle([labelled("carried-vote", pack(one)) for one in votes])},
        "draw": {
            "seeds": [labelled("term-seed", chain, u64(term)) for term in (0, 1)],
            "next_seed": labelled("term-seed", h(b"seed"), h(b"r1"), h(b"r3")),
            "leaders": leaders,
            "order": draw([(one, at % 2 == 0) for at, one in enumerate(miners)], h(b"seed"), miners[:2]),
            "tip": TIP,
            "miner_list": labelled("miner-list", *miners),
            "challenge": labelled("handover", h(b"seed"), miners[0], u64(4)),
        },
        "retarget": {
            "followed": retarget(easiest(16), delays, 12).to_bytes(32, "big"),
            "easier": retarget(easiest(16), [[900, 900]], 12).to_bytes(32, "big"),
            "harder": retarget(easiest(16), [[1, 1]], 12).to_bytes(32, "big"),
            "floor": retarget(easiest(12), [[900, 900]], 12).to_bytes(32, "big"),
            "alone": retarget(easiest(16), [[900]], 12).to_bytes(32, "big"),
        },
        "folder": [folder(count) for count in range(8)],
        "quorums": [[n, (n - 1) // 3, (n + (n - 1) // 3) // 2 + 1] for n in range(1, 32)],
    }
    return readable(found)  # type: ignore[no-any-return]


def readable(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {name: readable(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [readable(one) for one in value]
    return value


if __name__ == "__main__":
    if "--write" in sys.argv:
        VECTORS.write_text(json.dumps(recompute(), indent=1) + "\n", encoding="utf-8")
    elif json.loads(VECTORS.read_text(encoding="utf-8")) != recompute():
        sys.exit("ledger.json differs from what its SPEC gives")
