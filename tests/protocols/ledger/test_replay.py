"""Whole chains: replay gives the same roots, undo takes them back, mutated ones are refused; a light node's proofs."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocols.codec import decode, encode, replace
from protocols.errors import InvalidTransaction, LadingError
from protocols.ledger.block import Block, check_leaf, check_seal, decode_block, decode_header, light_header, prove_leaf
from protocols.ledger.carried import committee_at, final_height
from protocols.ledger.envelope import Transaction, transaction_leaf
from protocols.ledger.genesis import apply_genesis
from protocols.ledger.profile import DEFAULT_POLICY
from protocols.ledger.state import MemoryState, check_value, prove_value
from protocols.ledger.terms import MINER, Miner
from protocols.ledger.transactions import approve, erase, folder_update, miner_nominate, penalty, policy_list_update
from protocols.ledger.transactions.records import RECORD, RecordState, record_key
from protocols.ledger.transition import apply_block
from protocols.ledger.votes import Vote
from protocols.types import UnixMillis

from .chains import MEMBERS, PEOPLE, Chain, account_of, certificate, owned, record_id, start

Maker = Callable[[Chain, random.Random], Transaction]


def random_anchor(chain: Chain, rng: random.Random) -> Transaction:
    name, other = rng.sample(PEOPLE, 2)
    record = f"r{rng.randrange(12)}"
    change, parents = rng.choice([("create", []), ("create", []), ("modify", [record_id(name, f"r{rng.randrange(12)}")])])
    owners = owned(name, other, deadline_ms=3000) if rng.random() < 0.4 else owned(name)
    until = 0 if rng.random() < 0.5 else chain.now_ms // 1000 + rng.randrange(1, 20)
    body = chain.anchor(name, record, change=change, parents=parents, owners=owners, valid_until_s=until)  # type: ignore[arg-type]
    return chain.by(name, "RecordAnchor", body, *rng.choice([(), (other,)]))


def random_approval(chain: Chain, rng: random.Random) -> Transaction:
    pending = [key for key, _ in chain.state.iterate("pending")] or [bytes(32)]
    return chain.by(rng.choice(PEOPLE), "Approve", approve.Body(rng.choice(pending), rng.random() < 0.8, ""))


def random_folder(chain: Chain, rng: random.Random) -> Transaction:
    return chain.by(rng.choice(PEOPLE), "FolderUpdate", folder_update.Body("f", rng.randbytes(32), bytes(32), rng.randrange(1, 4)))


def random_penalty(chain: Chain, rng: random.Random) -> Transaction:
    until = UnixMillis(chain.now_ms + rng.randrange(-1000, 9000))
    body = penalty.Body(account_of(rng.choice(PEOPLE)), rng.choice(["warn", "suspend"]), "", (), until)
    return chain.by_council("Penalty", body, signers=rng.sample(MEMBERS, rng.choice([2, 3, 4])))


def random_erase(chain: Chain, rng: random.Random) -> Transaction:
    name = rng.choice(PEOPLE)
    key = record_id(name, f"r{rng.randrange(12)}")
    return chain.by(name, "Erase", erase.Body(key.owner, key.hash_id, "keys", ""))


def random_policy(chain: Chain, rng: random.Random) -> Transaction:
    policy = replace(DEFAULT_POLICY, version=rng.randrange(2, 5), levels_max=rng.randrange(1, 9))
    return chain.by_council("PolicyListUpdate", policy_list_update.Body(chain.height + rng.randrange(1, 8), policy))


def random_nomination(chain: Chain, rng: random.Random) -> Transaction:
    return chain.by(rng.choice(PEOPLE), "MinerNominate", miner_nominate.Body(account_of(rng.choice(MEMBERS)), rng.random() < 0.7))


def random_certificate(chain: Chain, rng: random.Random) -> Transaction:
    return chain.by(rng.choice(["manager", "ann"]), "CertIssue", certificate(f"new{rng.randrange(5)}"))


MAKERS: tuple[Maker, ...] = (
    random_anchor,
    random_approval,
    random_folder,
    random_penalty,
    random_erase,
    random_policy,
    random_nomination,
    random_certificate,
)


def random_chain(seed: int, blocks: int) -> tuple[Chain, int, int]:
    """A chain of random blocks, some slots skipped; how many transactions were taken and how many refused."""
    rng = random.Random(seed)
    chain = start(term_blocks=6)
    votes: list[Vote] = []
    taken = refused = 0
    for _ in range(blocks):
        wanted = [rng.choice(MAKERS)(chain, rng) for _ in range(rng.randrange(6))]
        draft, name = chain.draft(wanted, slot=chain.slot + rng.choice([1, 1, 1, 2, 5]), votes=votes)
        taken, refused = taken + len(draft.transactions), refused + len(draft.refused)
        chain.take(chain.finish(draft, name))
        votes = chain.votes(rng.sample(MEMBERS, rng.choice([3, 4])), source=final_or_parent(chain))
    return chain, taken, refused


def final_or_parent(chain: Chain) -> int:
    return max(0, chain.height - 1)


@given(st.integers(0, 1 << 32))
@settings(max_examples=12)
def test_replay_from_genesis_gives_the_same_roots_and_undo_takes_it_all_back(seed: int) -> None:
    """Goal: same rules in all nodes, state root equality. Method: random chains through bytes into an empty state, then undone."""
    chain, taken, _ = random_chain(seed, 15)
    assert taken
    view = MemoryState()
    blocks = [decode_block(encode(block)) for block in chain.blocks]
    view.commit(apply_genesis(blocks[0]).change)
    for parent, block in pairwise(blocks):
        applied = apply_block(view, decode_header(parent.header), block, chain=chain.chain)
        assert applied.change.root == block.info.state_root
        view.commit(applied.change)
    assert view.items() == chain.view.items()
    assert view.nodes == chain.view.nodes
    while chain.height:
        chain.pop()
        assert chain.view.root == chain.blocks[-1].info.state_root


def test_random_chains_have_what_rules_refuse() -> None:
    """Goal: the random chains are worth replaying. Method: many taken, many refused, finality moved, over a few seeds."""
    for seed in range(3):
        chain, taken, refused = random_chain(seed, 25)
        assert taken > 8
        assert refused > 5
        assert final_height(chain.state) > 0


def mutated(block: Block, rng: random.Random) -> Block:
    """The block with a few bytes changed, that still decodes."""
    for _ in range(200):
        data = bytearray(encode(block))
        for _ in range(rng.randrange(1, 3)):
            data[rng.randrange(len(data))] = rng.randrange(256)
        if bytes(data) == encode(block):
            continue
        try:
            return decode_block(bytes(data))
        except LadingError:
            continue
    raise AssertionError("nothing decodes")


@given(st.integers(0, 1 << 32))
@settings(max_examples=40)
def test_chain_with_a_changed_block_is_refused_at_that_block_or_its_first_link(seed: int) -> None:
    """Goal: nothing old can be altered. Method: one block of a chain changed; replay stops there and names a reason."""
    rng = random.Random(seed)
    chain = CHAIN
    at = rng.randrange(1, chain.height + 1)
    bad = mutated(chain.blocks[at], rng)
    view = MemoryState()
    view.commit(apply_genesis(chain.blocks[0]).change)
    for height in range(1, at):
        view.commit(chain.changes[height])
    parent = decode_header(chain.blocks[at - 1].header)
    root = view.root
    with pytest.raises(LadingError):
        apply_block(view, parent, bad, chain=chain.chain)
    assert view.root == root


def test_bad_transactions_are_never_accepted_and_leave_no_trace() -> None:
    """Goal: malicious transactions are refused. Method: fields of real transactions of every maker changed without signing anew."""
    rng = random.Random(5)
    chain, _, _ = random_chain(5, 6)
    root, tried = chain.view.root, 0
    while tried < 600:
        one = rng.choice(MAKERS)(chain, rng)
        data = bytearray(encode(one))
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        try:
            lie = decode(bytes(data), Transaction)
        except LadingError:
            continue
        tried += 1
        draft, _ = chain.draft([lie])
        assert not draft.transactions
        assert isinstance(draft.refused[0][1], InvalidTransaction)
        if tried % 100 == 0:
            empty, _ = chain.draft()
            assert draft.info.state_root == empty.info.state_root
    assert chain.view.root == root


def test_light_node_checks_a_record_with_headers_and_proofs_alone() -> None:
    """Goal: headers first, data on demand. Method: header bundles with seals and votes; a transaction and a state value proved."""
    chain = start()
    chain.run(2, voting=True)
    anchor = chain.by("ann", "RecordAnchor", chain.anchor("ann", "r"))
    chain.add(anchor, votes=chain.votes())
    block = chain.blocks[-1]
    bundle = light_header(block)
    header = decode_header(bundle.header)
    miner = chain.state.load(MINER, bundle.info.miner, Miner)
    assert miner is not None
    check_seal(miner.key, chain.chain, bundle.info.slot, header.hash, bundle.seal)
    assert header.parent == chain.blocks[-2].hash
    check_leaf(header, bundle.info, bundle.path, transaction_leaf(anchor), prove_leaf(block, 1))
    owner = record_id("ann", "r")
    key = record_key(owner.owner, owner.hash_id)
    value = chain.view.get(RECORD, key)
    assert value is not None
    check_value(bundle.info.state_root, RECORD, key, value, prove_value(chain.view, RECORD, key))
    assert decode(value, RecordState).anchor == anchor.id
    assert len(encode(bundle)) < 2500
    quorum = committee_at(chain.state, chain.height).quorum
    assert len({vote.member for vote in bundle.votes}) >= quorum


CHAIN, _, _ = random_chain(1, 12)
