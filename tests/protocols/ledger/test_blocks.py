"""Blocks: the literal hash rule, the Merkle tree, the acceptance list, each condition alone."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codec import encode, replace
from protocols.crypto import Label, SigningKey, sha256
from protocols.errors import DecodeError, InvalidBlock, InvalidObject, LadingError, Reason, Undecided
from protocols.ledger.block import (
    Block,
    Header,
    LeafProof,
    block_merkle_root,
    check_leaf,
    decode_block,
    decode_header,
    light_header,
    prove_leaf,
    sign_seal,
)
from protocols.ledger.draw import miner_list_hash
from protocols.ledger.envelope import transaction_leaf
from protocols.ledger.seals.port import NONCE_MAX
from protocols.ledger.transition import apply_block, check_arrival
from protocols.ledger.votes import sign_vote, votes_root
from protocols.types import BlockHash, ChainId, NetworkId, UnixMillis

from .chains import Chain, account_of, key_of, owned, start

FIELDS = ("t_stamp_ms", "merkle_root", "version", "parent", "nonce")


def header_of(**changes: object) -> Header:
    fields: dict[str, object] = {
        "t_stamp_ms": UnixMillis(1),
        "merkle_root": bytes(32),
        "version": 1,
        "parent": BlockHash(bytes(32)),
        "nonce": 5,
    }
    return Header(**{**fields, **changes})  # type: ignore[arg-type]


def test_block_hash_is_over_the_five_fields_in_the_order_of_the_design() -> None:
    """Goal: H(T_stamp, MR, V, PBH, nonce), literally. Method: SHA-256 of the fields put together; each field alone changes it."""
    header = header_of()
    literal = (1).to_bytes(8, "big") + bytes(32) + (1).to_bytes(4, "big") + bytes(32) + (5).to_bytes(8, "big")
    assert len(literal) == 84
    assert header.hash == hashlib.sha256(literal).digest()
    assert decode_header(literal) == header
    others = [
        header_of(t_stamp_ms=UnixMillis(2)),
        header_of(merkle_root=b"\1" * 32),
        header_of(version=2),
        header_of(parent=BlockHash(b"\1" * 32)),
        header_of(nonce=6),
    ]
    assert len({header.hash, *(other.hash for other in others)}) == len(FIELDS) + 1
    with pytest.raises(DecodeError):
        decode_header(literal + b"\0")


def anchored(chain: Chain, count: int) -> Block:
    return chain.make([chain.by("ann", "RecordAnchor", chain.anchor("ann", f"r{number}")) for number in range(count)])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 6])
def test_every_leaf_is_proved_and_no_other(count: int) -> None:
    """Goal: inclusion proofs for 1..n leaves, odd counts included; leaf, node and place cannot be confused. Method: as the line says."""
    block = anchored(start(), count)
    header, light = decode_header(block.header), light_header(block)
    leaves = [block.info.leaf, *(transaction_leaf(one) for one in block.transactions)]
    for index, leaf in enumerate(leaves):
        proof = prove_leaf(block, index)
        check_leaf(header, block.info, light.path, leaf, proof)
        wrong = [
            (sha256(leaf), proof),
            (leaf, LeafProof(index + 1, proof.path)),
            (leaf, LeafProof(index, (*proof.path, leaf))),
            (leaf, LeafProof(len(leaves), proof.path)),
        ]
        if proof.path:  # an inner node is no leaf
            wrong.append(
                (sha256(b"\1", *((leaf, proof.path[0]) if index % 2 == 0 else (proof.path[0], leaf))), LeafProof(0, proof.path[1:]))
            )
        for other, lie in wrong:
            with pytest.raises(InvalidObject):
                check_leaf(header, block.info, light.path, other, lie)


def test_duplicated_last_leaf_gives_another_root() -> None:
    """Goal: an odd node is promoted, never doubled. Method: three leaves, and the last one twice."""
    block = anchored(start(), 2)
    twice = (*block.transactions, block.transactions[-1])
    assert block_merkle_root(block.info, block.transactions) != block_merkle_root(block.info, twice)


def resealed(chain: Chain, block: Block, header: Header, **changes: object) -> Block:
    """The block under another header, sealed by its miner, so that one thing alone is wrong."""
    name = chain.names[block.info.miner]
    seal = sign_seal(key_of(name, "seal"), chain.chain, block.info.slot, header.hash)
    return replace(block, header=header.encoded, seal=seal, **changes)


def with_info(world: Chain, block: Block, **changes: object) -> Block:
    """The block with another info, its root and seal made to fit."""
    info = replace(block.info, **changes)
    old = decode_header(block.header)
    header = Header(old.t_stamp_ms, block_merkle_root(info, block.transactions), old.version, old.parent, old.nonce)
    return resealed(world, replace(block, info=info), header)


def refusal(chain: Chain, block: Block) -> tuple[type[LadingError], Reason]:
    root = chain.view.root
    with pytest.raises(LadingError) as caught:
        chain.judge(block)
    assert chain.view.root == root
    return type(caught.value), caught.value.reason


def test_acceptance_list_each_condition_fails_alone_and_has_its_name() -> None:
    """Goal: miner, signature, work, nonce, time stamp, parent. Method: one good block, six bad ones; the good one is accepted after all."""
    chain = start(seal="pow")
    chain.run(3)
    block = chain.make()
    old = decode_header(block.header)
    cases: dict[Reason, Block] = {}
    cases[Reason.BAD_SEAL] = replace(block, seal=sign_seal(key_of("eve"), chain.chain, block.info.slot, block.hash))
    easy = next(
        header
        for nonce in range(1 << 20)
        if int.from_bytes((header := Header(old.t_stamp_ms, old.merkle_root, old.version, old.parent, nonce)).hash, "big")
        > int.from_bytes(block.info.target, "big")
    )
    cases[Reason.WORK] = resealed(chain, block, easy)
    cases[Reason.NONCE] = resealed(chain, block, Header(old.t_stamp_ms, old.merkle_root, old.version, old.parent, NONCE_MAX + 1))
    late = Header(UnixMillis(old.t_stamp_ms + 1000), old.merkle_root, old.version, old.parent, old.nonce)
    cases[Reason.BAD_TIME] = resealed(chain, block, late)
    cases[Reason.NOT_LEADER] = foreign_miner(chain, block)
    for reason, bad in cases.items():
        assert refusal(chain, bad) == (InvalidBlock, reason)
    orphan = Header(old.t_stamp_ms, old.merkle_root, old.version, BlockHash(bytes(32)), old.nonce)
    assert refusal(chain, resealed(chain, block, orphan)) == (Undecided, Reason.UNKNOWN_PARENT)
    chain.take(block)
    assert chain.height == 4


def foreign_miner(chain: Chain, block: Block) -> Block:
    """A miner of the list out of its turn, with work and seal of its own."""
    other = next(name for name in chain.miners if account_of(name) != block.info.miner)
    info = replace(block.info, miner=account_of(other))
    old = decode_header(block.header)
    target = int.from_bytes(info.target, "big")
    root = block_merkle_root(info, block.transactions)
    header = next(
        found
        for nonce in range(1 << 22)
        if int.from_bytes((found := Header(old.t_stamp_ms, root, old.version, old.parent, nonce)).hash, "big") <= target
    )
    seal = sign_seal(key_of(other, "seal"), chain.chain, info.slot, header.hash)
    return replace(block, header=header.encoded, info=info, seal=seal)


def test_every_other_lie_of_a_block_has_its_name() -> None:
    """Goal: no field of the info can be wrong. Method: each alone, root and seal made to fit, under a seal without work."""
    chain = start()
    chain.run(3, voting=True)
    block = chain.make([chain.by("ann", "RecordAnchor", chain.anchor("ann", "r"))], votes=chain.votes())
    cases: list[tuple[dict[str, object], Reason]] = [
        ({"height": 9}, Reason.BAD_INFO),
        ({"slot": block.info.slot + 1}, Reason.BAD_TIME),
        ({"term": 1}, Reason.BAD_INFO),
        ({"miner_list": miner_list_hash([account_of("a")])}, Reason.BAD_INFO),
        ({"target": bytes(31) + b"\1"}, Reason.TARGET),
        ({"state_root": bytes(32)}, Reason.STATE_ROOT),
        ({"reveal": b"\1" * 32}, Reason.BAD_REVEAL),
        ({"reveal": bytes(32)}, Reason.BAD_REVEAL),
        ({"new_tip": b"\1" * 32, "new_tip_count": 5}, Reason.STATE_ROOT),
        ({"new_tip_count": 5}, Reason.BAD_INFO),
        ({"votes_root": bytes(32)}, Reason.MERKLE_ROOT),
        ({"filter": b"\1" * 32}, Reason.BAD_INFO),
        ({"transaction_count": 2}, Reason.BAD_INFO),
        ({"chain": ChainId(b"\1" * 32)}, Reason.WRONG_CHAIN),
        ({"format": 2}, Reason.UNKNOWN_FORMAT),
    ]
    for changes, reason in cases:
        assert refusal(chain, with_info(chain, block, **changes)) == (InvalidBlock, reason), changes
    old = decode_header(block.header)
    version = Header(old.t_stamp_ms, old.merkle_root, 2, old.parent, 0)
    assert refusal(chain, resealed(chain, block, version)) == (InvalidBlock, Reason.RULE_SET)
    assert refusal(chain, replace(block, transactions=())) == (InvalidBlock, Reason.BAD_INFO)
    chain.take(block)


def test_signature_of_a_transaction_cannot_be_changed_under_a_blocks_hash() -> None:
    """Goal: nobody spoils a block by another signature. Method: the same content signed by one more owner; the root differs."""
    chain = start()
    body = chain.anchor("ann", "r", owners=owned("ann", "bob"))
    block = chain.make([chain.by("ann", "RecordAnchor", body, "bob")])
    alone = chain.by("ann", "RecordAnchor", body)
    assert alone.id == block.transactions[0].id
    assert refusal(chain, replace(block, transactions=(alone,))) == (InvalidBlock, Reason.MERKLE_ROOT)


def test_block_ahead_of_this_nodes_time_is_nobodys_fault() -> None:
    """Goal: a verdict that depends on this node is never one about the block. Method: the arrival check, both sides of the drift."""
    header = header_of(t_stamp_ms=UnixMillis(1_000_250))
    check_arrival(header, network_now_ms=1_000_000, drift_ms_max=250)
    with pytest.raises(Undecided) as caught:
        check_arrival(header, network_now_ms=999_999, drift_ms_max=250)
    assert caught.value.reason is Reason.TOO_EARLY


def test_unknown_rule_set_stops_this_node_and_blames_nobody() -> None:
    """Goal: a node that lacks the rules says so. Method: the same block under a schedule without its version."""
    chain = start()
    block = chain.make()
    with pytest.raises(Undecided) as caught:
        apply_block(chain.view, chain.header, block, chain=chain.chain, schedule={})
    assert caught.value.reason is Reason.RULE_SET


def test_bad_carried_votes_are_refused() -> None:
    """Goal: what state counts was said by a member of this branch. Method: forged, foreign, doubled, out of order, too old."""
    chain = start()
    chain.run(4, voting=True)
    good = chain.votes()
    block = chain.make(votes=good)
    forged = replace(good[0], signature=bytes(64))
    stranger = sign_vote(SigningKey(bytes(32)), chain.chain, good[0].source, good[0].target, account_of("eve"))
    elsewhere = replace(good[0], source=replace(good[0].source, hash=BlockHash(b"\1" * 32)))
    below = replace(good[0], source=replace(good[0].source, height=-1))
    with pytest.raises(InvalidBlock) as caught:
        chain.judge(replace(block, votes=(below,)))
    assert caught.value.reason is Reason.BAD_VOTE
    for votes in ([forged], [stranger], [elsewhere], [good[0], good[0]], good[::-1], list(chain.blocks[3].votes)):
        bad = replace(block, votes=tuple(sorted(votes, key=lambda one: one.member) if len(votes) == 1 else votes))
        assert refusal(chain, with_info(chain, bad, votes_root=votes_root(bad.votes))) == (InvalidBlock, Reason.BAD_VOTE)
    chain.take(block)


@given(st.integers(0, 3000), st.binary(max_size=4), st.integers(0, 4))
@settings(max_examples=300)
def test_mutated_block_is_refused_or_decodes_to_itself(at: int, put: bytes, cut: int) -> None:
    """Goal: any byte changed is noticed, nothing but our errors comes out. Method: bytes of a real block replaced."""
    chain, block = _SAMPLE
    data = bytearray(encode(block))
    data[at % len(data) : at % len(data) + cut] = put
    if bytes(data) == encode(block):
        return
    with pytest.raises(LadingError):
        chain.judge(decode_block(bytes(data)))


def sample() -> tuple[Chain, Block]:
    chain = start()
    chain.run(2, voting=True)
    return chain, chain.make([chain.by("ann", "RecordAnchor", chain.anchor("ann", "r"))], votes=chain.votes())


_SAMPLE = sample()


def test_seal_is_bound_to_chain_and_slot() -> None:
    """Goal: a seal says nothing elsewhere. Method: the same key and hash under another chain, slot, label."""
    chain, block = _SAMPLE
    key = key_of(chain.names[block.info.miner], "seal")
    elsewhere = [
        sign_seal(key, ChainId(b"\1" * 32), block.info.slot, block.hash),
        sign_seal(key, chain.chain, block.info.slot + 1, block.hash),
        key.sign(Label.VOTE, NetworkId(chain.chain), block.info.slot.to_bytes(8, "big") + block.hash),
    ]
    for seal in elsewhere:
        assert refusal(chain, replace(block, seal=seal)) == (InvalidBlock, Reason.BAD_SEAL)
