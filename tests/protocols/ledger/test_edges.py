"""Corners that a careless change would round off: one short story each."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from protocols.codec import replace
from protocols.crypto import sha256
from protocols.errors import InvalidBlock, InvalidTransaction, LadingError, Reason
from protocols.files.holdings import node_peer, sign_receipt
from protocols.ledger.block import Header, block_merkle_root, decode_header, sign_seal
from protocols.ledger.carried import committee_at, final_height, is_justified
from protocols.ledger.finality import ForkTree
from protocols.ledger.genesis import apply_genesis
from protocols.ledger.profile import DEFAULT_POLICY, Cluster
from protocols.ledger.terms import MINER, Miner, load_term, load_tip
from protocols.ledger.transactions import (
    approve,
    cluster_define,
    council_update,
    erase,
    expiry_extend,
    miner_nominate,
    policy_list_update,
    storage_receipt,
)
from protocols.ledger.transactions.chain_genesis import WORK
from protocols.ledger.transactions.records import PENDING, RECORD, record_key
from protocols.ledger.transition import carriable_votes, check_transaction, draft_block
from protocols.ledger.votes import votes_root
from protocols.ledger.work import WorkState
from protocols.types import UnixMillis, UnixSeconds
from tests.protocols.files import records as files

from .chains import (
    MEMBERS,
    START_MS,
    Chain,
    account_of,
    certificate,
    certify,
    council_of,
    genesis_body,
    key_of,
    owned,
    profile_of,
    record_id,
    reveals_of,
    start,
)
from .test_finality import A1, A2, A3, FOUR, ROOT, point, vote
from .test_terms import Rotating


def reason_of(chain: Chain, transaction: object) -> Reason:
    with pytest.raises(InvalidTransaction) as caught:
        check_transaction(chain.view, chain.header, transaction, slot=chain.slot + 1, chain=chain.chain)  # type: ignore[arg-type]
    return caught.value.reason


def test_signatures_in_another_order_are_another_encoding_and_refused() -> None:
    """Goal: one content and one set of signers have one encoding. Method: two signatures swapped; one twice."""
    chain = start()
    one = chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", owners=owned("ann", "bob")), "bob")
    for signatures in (one.signatures[::-1], (one.signatures[0], one.signatures[0], one.signatures[1])):
        assert reason_of(chain, replace(one, signatures=signatures)) is Reason.BAD_BODY


def test_too_few_hand_overs_keep_the_list_and_half_are_enough() -> None:
    """Goal: the half rule. Method: of four seats and four candidates one hands over, then two."""
    for handing, sizes in ((("a",), {4}), (("a", "b"), {4, 2})):
        world = Rotating(MEMBERS, seats=4)
        seen = set()
        while load_tip(world.chain.state).term < 4:
            world.step(handing=handing)
            seen.add(len(load_term(world.chain.state, load_tip(world.chain.state).term).miners))
        assert seen == sizes


def test_exhausted_miner_reveals_zero_alone_and_may_commit_a_new_tip() -> None:
    """Goal: nobody chooses between a reveal and nothing. Method: a chain of one reveal; after it zero, not anything; a new tip restarts."""
    body = genesis_body(profile=profile_of(), miners=("a",), seats=1)
    only = replace(body.miners[0], tip=sha256(sha256(b"last")), tip_count=1)
    chain = start(replace(body, miners=(only,)), miners=("a",))

    def sealed(reveal: bytes, new_tip: tuple[bytes, int] = (b"", 0)) -> None:
        draft = draft_block(
            chain.view,
            chain.header,
            chain=chain.chain,
            t_stamp_ms=chain.time_ms(chain.slot + 1),
            miner=account_of("a"),
            reveal=reveal,
            new_tip=new_tip,
        )
        chain.take(chain.finish(draft, "a"))

    def refuses(reveal: bytes) -> None:
        with pytest.raises(InvalidBlock) as caught:
            sealed(reveal)
        assert caught.value.reason is Reason.BAD_REVEAL

    refuses(bytes(32))
    sealed(sha256(b"last"))
    refuses(sha256(b"else"))
    sealed(bytes(32), (reveals_of("a")[0], 5))
    refuses(bytes(32))
    sealed(reveals_of("a")[1])
    miner = chain.state.load(MINER, account_of("a"), Miner)
    assert miner is not None
    assert (miner.left, miner.sealed) == (4, 3)


def test_counters_are_halved_at_each_boundary() -> None:
    """Goal: what was long ago fades. Method: one miner, 8 blocks a term."""
    chain = start(genesis_body(profile=profile_of(), miners=("a",), seats=1), miners=("a",))
    chain.run(8)
    before = chain.state.load(MINER, account_of("a"), Miner)
    chain.run(1)
    after = chain.state.load(MINER, account_of("a"), Miner)
    assert before is not None
    assert after is not None
    assert (before.sealed, after.sealed) == (8, 5)


def test_vote_is_carried_once_on_a_branch() -> None:
    """Goal: no block is filled with what was said. Method: the same votes in two blocks running, while nothing becomes final."""
    chain = start()
    chain.run(1)
    votes = chain.votes(("a", "b"))
    chain.add(votes=votes)
    assert not carriable_votes(chain.view, chain.header, votes, chain=chain.chain)
    draft, name = chain.draft()
    info = replace(draft.info, votes_root=votes_root(chain.blocks[-1].votes))
    header = Header(draft.header.t_stamp_ms, block_merkle_root(info, ()), 1, draft.header.parent, 0)
    seal = sign_seal(chain.sealer(name), chain.chain, info.slot, header.hash)
    with pytest.raises(InvalidBlock) as caught:
        chain.judge(replace(chain.finish(draft, name), header=header.encoded, info=info, votes=chain.blocks[-1].votes, seal=seal))
    assert caught.value.reason is Reason.BAD_VOTE


def test_two_votes_of_one_member_for_one_block_from_two_sources_are_both_carried() -> None:
    """Goal: a liar cannot show the chain one vote and nodes another. Method: both are carried; together they count for one member."""
    chain = start()
    chain.run(2, voting=True)
    both = [*chain.votes(("a",), source=0), *chain.votes(("a",), source=1)]
    assert len(carriable_votes(chain.view, chain.header, both, chain=chain.chain)) == 2
    target = chain.height
    chain.add(votes=[*both, *chain.votes(("b",))])
    assert len(chain.blocks[-1].votes) == 3
    assert not is_justified(chain.state, target, final_height(chain.state))


def test_members_of_the_old_committee_are_carried_until_a_block_under_the_new_one_is_final() -> None:
    """Goal: links across a change can be completed on chain. Method: d leaves; its votes just after the change, and once that is final."""
    chain = start()
    chain.add(chain.by_council("CouncilUpdate", council_update.Body(council_of(("a", "b", "c", "e"), 3, sequence=1))))
    votes: Sequence[object] = chain.votes()
    while not committee_at(chain.state, chain.height).generation:
        chain.add(votes=votes)  # type: ignore[arg-type]
        votes = chain.votes()
    chain.add(votes=votes)  # type: ignore[arg-type]
    old = chain.votes(("d",))
    assert carriable_votes(chain.view, chain.header, old, chain=chain.chain) == tuple(old)
    for _ in range(4):
        chain.add(votes=chain.votes(("a", "b", "c", "d", "e")))
    assert committee_at(chain.state, final_height(chain.state)).generation == 1
    assert not carriable_votes(chain.view, chain.header, chain.votes(("d",)), chain=chain.chain)


def test_votes_from_an_ancestor_that_finality_makes_a_source_are_counted_then() -> None:
    """Goal: every ancestor of a final block is a justified source. Method: votes from A1, which no quorum ever reached, to A4."""
    a4 = point("a4", "a3", 4)
    found = ForkTree(ROOT, lambda checkpoint: FOUR if checkpoint == A1.checkpoint else None)
    for one in (A1, A2, A3, a4):
        found.add_block(one)
    for member in range(3):
        found.add_vote(vote(member, ROOT, A2))
        found.add_vote(vote(member, A1, a4))
    assert not found.is_justified(a4.hash)
    for member in range(3):
        found.add_vote(vote(member, A2, A3))
    assert found.final == A2
    assert found.is_justified(a4.hash)


def test_search_times_are_of_the_blocks_since_the_last_retarget() -> None:
    """Goal: a window begins anew. Method: its length before, at and after the 64th block."""
    chain = start(term_blocks=100)
    lengths = []
    for _ in range(66):
        chain.run(1)
        work = chain.state.load(WORK, b"", WorkState)
        assert work is not None
        lengths.append(len(work.window))
    assert lengths[:3] == [0, 1, 2]
    assert lengths[62:] == [62, 0, 1, 2]


def test_transaction_refused_half_way_leaves_no_trace() -> None:
    """Goal: all or nothing. Method: a batch whose second receipt is stale; state root and events of the block are an empty one's."""
    chain = start()
    key = record_id("ann", "r")
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "r")))
    holders = [key_of(name, "node") for name in ("h1", "h2")]

    def receipt(holder: int, counter: int) -> object:
        value = files.receipt("h", ["s"], counter=counter)
        item = replace(value.items[0], owner=key.owner, hash_id=key.hash_id)
        seconds = START_MS // 1000
        value = replace(
            value,
            network=chain.profile.network,
            holder=node_peer(holders[holder]),
            from_s=UnixSeconds(seconds),
            until_s=UnixSeconds(seconds + 999),
            items=(item,),
        )
        return sign_receipt(value, holders[holder])

    def batch(*signed: object) -> object:
        body = storage_receipt.Body(tuple(sorted(signed, key=lambda one: one.object_hash)))  # type: ignore[attr-defined, arg-type]
        return chain.by("bob", "StorageReceipt", body)

    chain.add(batch(receipt(0, 5), receipt(1, 5)))  # type: ignore[arg-type]
    for stale, fresh in ((0, 1), (1, 0)):
        draft, name = chain.draft([batch(receipt(stale, 4), receipt(fresh, 6))])  # type: ignore[list-item]
        empty, _ = chain.draft()
        assert draft.refused[0][1].reason is Reason.STALE
        assert draft.info == empty.info
        assert "holding" not in {event.name for event in chain.judge(chain.finish(draft, name)).events}


def test_only_members_of_a_cluster_recommend_its_candidates() -> None:
    """Goal: clusters speak for themselves. Method: a candidate of DE, a voter of CN and one of DE."""
    chain = start()
    chain.add(chain.by_council("ClusterDefine", cluster_define.Body(Cluster("de", (("country", "DE"),), 1))))
    german = [certificate(name, country="DE") for name in ("new", "fritz")]
    chain.add(*(chain.by("manager", "CertIssue", one) for one in german))
    chain.add(chain.by_council("MinerCertify", certify("new", "de")))
    body = miner_nominate.Body(account_of("new"), True)
    assert reason_of(chain, chain.by("ann", "MinerNominate", body)) is Reason.NOT_ELIGIBLE
    chain.add(chain.by("fritz", "MinerNominate", body))


def test_policy_versions_come_into_force_in_their_order() -> None:
    """Goal: version 3 is never before version 2. Method: 2 planned far ahead, 3 before it, 3 with it."""
    chain = start()
    chain.add(chain.by_council("PolicyListUpdate", policy_list_update.Body(10, replace(DEFAULT_POLICY, version=2))))
    third = replace(DEFAULT_POLICY, version=3, levels_max=1)
    assert reason_of(chain, chain.by_council("PolicyListUpdate", policy_list_update.Body(9, third))) is Reason.BAD_BODY
    chain.add(chain.by_council("PolicyListUpdate", policy_list_update.Body(10, third)))
    chain.run(8)
    assert chain.height == 10
    assert reason_of(chain, chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", level=2))) is Reason.POLICY


def test_everybody_falls_in_at_least_one_cluster() -> None:
    """Goal: one cluster has no predicate. Method: the only one gets one; it gets one once another has none."""
    chain = start()
    narrow = cluster_define.Body(Cluster("all", (("country", "CN"),), 3))
    assert reason_of(chain, chain.by_council("ClusterDefine", narrow)) is Reason.BAD_BODY
    chain.add(chain.by_council("ClusterDefine", cluster_define.Body(Cluster("rest", (), 0))))
    chain.add(chain.by_council("ClusterDefine", narrow))


def test_what_is_no_longer_valid_when_all_have_approved_is_rejected() -> None:
    """Goal: rules are asked again when a threshold fires. Method: the parent of a pending change is erased before the last yes."""
    chain = start()
    parent = record_id("ann", "r")
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "r")))
    change = chain.anchor("ann", "r2", change="modify", parents=[parent], owners=owned("ann", "bob"))
    waiting = chain.by("ann", "RecordAnchor", change)
    chain.add(waiting)
    chain.add(chain.by("ann", "Erase", erase.Body(parent.owner, parent.hash_id, "keys", "")))
    events = {event.name for event in chain.add(chain.by("bob", "Approve", approve.Body(waiting.id, True, ""))).events}
    assert {"approved", "rejected"} <= events
    assert "record" not in events
    made = record_id("ann", "r2")
    assert chain.state.get(RECORD, record_key(made.owner, made.hash_id)) is None
    assert not list(chain.state.iterate(PENDING))


def test_validity_only_grows() -> None:
    """Goal: an extension extends. Method: the same end, an earlier one, a record without end."""
    chain = start()
    key, other = record_id("ann", "r"), record_id("ann", "s")
    end = START_MS + 50_000
    chain.add(
        chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", valid_until_s=end // 1000)),
        chain.by("ann", "RecordAnchor", chain.anchor("ann", "s")),
    )
    for name, until in ((key, end), (key, end - 5000), (other, end)):
        body = expiry_extend.Body(name.owner, name.hash_id, UnixMillis(until))
        assert reason_of(chain, chain.by("ann", "ExpiryExtend", body)) is Reason.CONFLICT
    chain.add(chain.by("ann", "ExpiryExtend", expiry_extend.Body(key.owner, key.hash_id, UnixMillis(0))))


def test_first_block_is_the_one_that_its_genesis_gives() -> None:
    """Goal: nothing of a first block is free. Method: fields of info and header changed, roots made to fit; votes, seal, two of them."""
    chain = start()
    block = chain.blocks[0]
    old = decode_header(block.header)
    for changes in ({"term": 1}, {"slot": 5}, {"reveal": b"\1" * 32}, {"state_root": bytes(32)}, {"miner": account_of("a")}):
        info = replace(block.info, **changes)
        header = Header(old.t_stamp_ms, block_merkle_root(info, block.transactions), old.version, old.parent, 0)
        with pytest.raises(InvalidBlock):
            apply_genesis(replace(block, header=header.encoded, info=info))
    for header in (
        Header(UnixMillis(old.t_stamp_ms + 1), old.merkle_root, old.version, old.parent, 0),
        Header(old.t_stamp_ms, old.merkle_root, old.version, old.parent, 1),
        Header(old.t_stamp_ms, old.merkle_root, old.version, block.hash, 0),
    ):
        with pytest.raises(InvalidBlock):
            apply_genesis(replace(block, header=header.encoded))
    with pytest.raises(LadingError):
        apply_genesis(replace(block, seal=bytes(64)))
    with pytest.raises(LadingError):
        apply_genesis(chain.make())
