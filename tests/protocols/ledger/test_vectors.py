"""The ledger against tests/vectors/ledger.json, which a second implementation writes from SPEC.md alone."""

from __future__ import annotations

import json
from typing import Any

from protocols.codec import encode
from protocols.crypto import SigningKey, sha256
from protocols.ledger.block import decode_block, decode_header
from protocols.ledger.committee import faults_of, quorum_of
from protocols.ledger.draw import draw_order, genesis_seed, leader, miner_list_hash, next_seed, reveal_tip
from protocols.ledger.filing import Filed, folder_root
from protocols.ledger.genesis import apply_genesis, genesis_block
from protocols.ledger.history import NO_PEAKS, append
from protocols.ledger.seals.scrypt import scrypt_work
from protocols.ledger.state import MemoryState, Overlay, prove_value
from protocols.ledger.terms import handover_challenge
from protocols.ledger.transition import apply_block
from protocols.ledger.tree import state_key
from protocols.ledger.votes import Checkpoint, Vote, check_vote, sign_vote, votes_root
from protocols.ledger.work import SearchTime, easiest_target, next_target
from protocols.types import AccountId, BlockHash, ChainId, HashId, UnixMillis
from tests.vectors import recompute_ledger as second

V: dict[str, Any] = json.loads(second.VECTORS.read_text(encoding="utf-8"))
CHAIN = ChainId(bytes.fromhex(V["first_block"]["chain"]))


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def test_second_implementation_gives_the_file() -> None:
    """Goal: the vectors follow from SPEC.md alone. Method: recompute them without this project's code."""
    assert second.recompute() == V


def test_header_hash_and_scrypt_work() -> None:
    """Goal: the literal hash rule. Method: the vector's 84 bytes."""
    header = decode_header(raw(V["header"]["bytes"]))
    assert header.encoded.hex() == V["header"]["bytes"]
    assert header.hash.hex() == V["header"]["hash"]
    assert scrypt_work(header).hex() == V["header"]["scrypt_work"]


def test_first_and_second_block_byte_for_byte_with_their_states() -> None:
    """Goal: envelope, leaves, seal, state layout, root. Method: blocks of the second implementation are valid here and give its roots."""
    first, then = (decode_block(raw(V[name]["block"])) for name in ("first_block", "second_block"))
    assert genesis_block(first.transactions[0]) == first
    assert first.info.chain == CHAIN
    view = MemoryState()
    applied = apply_genesis(first)
    assert applied.change.root.hex() == V["first_block"]["state_root"]
    view.commit(applied.change)
    applied = apply_block(view, decode_header(first.header), then, chain=CHAIN)
    assert applied.change.root.hex() == V["second_block"]["state_root"]
    assert (first.hash.hex(), then.hash.hex()) == (V["first_block"]["hash"], V["second_block"]["hash"])
    assert then.transactions[0].id.hex() == V["second_block"]["transaction"]


def test_state_tree_roots_and_proofs() -> None:
    """Goal: tree and proofs byte for byte. Method: twenty values, a removal, proofs of all four shapes."""
    tree = V["tree"]
    assert [state_key("space", bytes([number])).hex() for number in range(3)] == tree["keys"]
    view = MemoryState()
    overlay = Overlay(view)
    for number in range(20):
        overlay.put("space", bytes([number]), b"value %d" % number)
    view.commit(overlay.change())
    assert view.root.hex() == tree["root"]
    assert encode(prove_value(view, "space", bytes([7]))).hex() == tree["member"]
    assert encode(prove_value(view, "space", b"nothing")).hex() == tree["other_leaf"]
    overlay = Overlay(view)
    for number in range(0, 20, 3):
        overlay.delete("space", bytes([number]))
    view.commit(overlay.change())
    assert view.root.hex() == tree["root_after_removal"]
    assert encode(prove_value(MemoryState(), "space", b"b")).hex() == tree["empty"]
    one = MemoryState()
    overlay = Overlay(one)
    overlay.put("space", b"a", b"1")
    one.commit(overlay.change())
    assert encode(prove_value(one, "space", b"b")).hex() == tree["nothing"]


def test_history_votes_and_quorums() -> None:
    """Goal: peaks, votes, sizes. Method: as the vectors."""
    blocks = [sha256(b"block", bytes([number])) for number in range(11)]
    found, peaks = {}, NO_PEAKS
    for count, block in enumerate(blocks, 1):
        peaks = append(peaks, block)
        found[count] = [one.hex() for one in peaks.hashes]
    assert [found[count] for count in (1, 2, 3, 7, 8, 11)] == V["history"]
    key = SigningKey(sha256(b"a vote"))
    member = AccountId(sha256(b"account a"))
    votes: list[Vote] = []
    for at in range(3):
        source, target = (Checkpoint(height, BlockHash(blocks[height])) for height in (at, at + 1))
        votes.append(sign_vote(key, CHAIN, source, target, member))
        check_vote(votes[-1], key.public)
    assert encode(tuple(votes)).hex() == V["votes"]["values"]
    assert votes_root(votes).hex() == V["votes"]["root"]
    assert [[n, faults_of(n), quorum_of(n, faults_of(n))] for n in range(1, 32)] == V["quorums"]


def test_draw_leaders_and_retarget() -> None:
    """Goal: who seals, and how hard it is. Method: as the vectors."""
    draw, seed = V["draw"], sha256(b"seed")
    miners = sorted(AccountId(sha256(name.encode())) for name in "abcde")
    assert [genesis_seed(CHAIN, term).hex() for term in (0, 1)] == draw["seeds"]
    assert next_seed(seed, [sha256(b"r1"), bytes(32), sha256(b"r3")]).hex() == draw["next_seed"]
    miner, last, found = miners[0], 0, []
    for slot, _ in draw["leaders"]:
        miner = leader(miners, seed, slot=slot, parent_slot=last, parent_miner=miner)
        found.append([slot, miner.hex()])
        last = slot
    assert found == draw["leaders"]
    candidates = [(one, at % 2 == 0) for at, one in enumerate(miners)]
    assert [one.hex() for one in draw_order(candidates, seed, miners[:2])] == draw["order"]
    assert reveal_tip(sha256(b"reveal a"), 2).hex() == draw["tip"]
    assert miner_list_hash(miners).hex() == draw["miner_list"]
    assert handover_challenge(seed, miners[0], 4).hex() == draw["challenge"]
    cases: dict[str, tuple[int, list[list[int]]]] = {
        "followed": (16, [[10, 70, 90], [60, 80], [5000]]),
        "easier": (16, [[900, 900]]),
        "harder": (16, [[1, 1]]),
        "floor": (12, [[900, 900]]),
        "alone": (16, [[900]]),
    }
    for name, (bits, delays) in cases.items():
        window = [SearchTime(miners[at], delay) for at, own in enumerate(delays) for delay in own]
        target = next_target(easiest_target(bits), window, height=64, slot_ms=1000, work_bits_min=12)
        assert target.to_bytes(32, "big").hex() == V["retarget"][name]


def test_folder_roots() -> None:
    """Goal: one root for one list of records. Method: folders of none to seven, given in any order."""
    owner = SigningKey(sha256(b"ann")).public
    filed = [Filed(owner, HashId(sha256(b"record %d" % at)), sha256(b"statement %d" % at), UnixMillis(at)) for at in range(7)]
    assert [folder_root(reversed(filed[:count])).hex() for count in range(8)] == V["folder"]
