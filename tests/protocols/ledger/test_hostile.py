"""What a hostile miner, sender or relay may try on the rules, one story each. Lies about single transactions: test_lies.py."""

from __future__ import annotations

import pytest

from protocols.codec import decode, encode, replace
from protocols.crypto import Label, sha256
from protocols.errors import DecodeError, InvalidBlock, InvalidTransaction, LadingError, Reason, Undecided
from protocols.ledger import conditions
from protocols.ledger.block import Block, BlockInfo, Header, block_merkle_root, decode_block, decode_header, sign_seal
from protocols.ledger.carried import committee_at
from protocols.ledger.envelope import Transaction, sign_transaction
from protocols.ledger.finality import BlockPoint, ForkTree
from protocols.ledger.sealing import is_timely
from protocols.ledger.terms import load_tip, slot_leader
from protocols.ledger.transactions import approve, cert_issue, equivocation, folder_update
from protocols.ledger.transition import carriable_votes, check_transaction, draft_block, next_term
from protocols.ledger.votes import Vote, breaks_promise, sign_vote, votes_root
from protocols.limits import BLOCK_BYTES_MAX, BLOCK_TRANSACTIONS_MAX, BLOCK_VOTES_MAX, TX_BYTES_MAX
from protocols.types import AccountId, BlockHash, NetworkId, UnixMillis

from .chains import START_MS, Chain, account_of, certificate, key_of, owned, start

DAY_MS = 86_400_000


def sealed_as(chain: Chain, block: Block, *, signer: str | None = None, header: Header | None = None, **changes: object) -> Block:
    """The block with other info or body, root and seal made to fit, so that what is changed is all that is wrong."""
    info_names = set(BlockInfo.__struct_fields__)
    info: BlockInfo = replace(block.info, **{name: value for name, value in changes.items() if name in info_names})
    body: Block = replace(block, info=info, **{name: value for name, value in changes.items() if name not in info_names})
    old = decode_header(block.header)
    found = Header(old.t_stamp_ms, block_merkle_root(info, body.transactions), old.version, old.parent, old.nonce)
    name = chain.names[block.info.miner] if signer is None else signer
    return replace(body, header=found.encoded, seal=sign_seal(key_of(name, "seal"), chain.chain, info.slot, found.hash))


def refusal(chain: Chain, block: Block) -> Reason:
    root = chain.view.root
    with pytest.raises(LadingError) as caught:
        chain.judge(block)
    assert chain.view.root == root
    return caught.value.reason


def why(chain: Chain, transaction: Transaction) -> Reason | None:
    try:
        check_transaction(chain.view, chain.header, transaction, slot=chain.slot + 1, chain=chain.chain)
    except InvalidTransaction as error:
        return error.reason
    return None


def folder(chain: Chain, name: str, person: str = "ann", **changes: object) -> Transaction:
    return chain.by(person, "FolderUpdate", folder_update.Body(name, bytes(32), bytes(32), 1), **changes)


# --- miners -------------------------------------------------------------------------------------------------------


def test_block_of_an_unknown_miner_is_refused() -> None:
    """Goal: only who is on the list seals. Method: an account that is no miner, and an id that is nobody's; seal and root fit."""
    chain = start()
    chain.run(2)
    good = chain.make()
    for name, miner in (("eve", account_of("eve")), ("eve", AccountId(sha256(b"nobody")))):
        assert refusal(chain, sealed_as(chain, good, signer=name, miner=miner)) is Reason.NOT_LEADER
    chain.take(good)


def test_leader_is_judged_for_every_slot_of_the_term() -> None:
    """Goal: nobody seals in another's slot. Method: 40 slots; of four miners that sign what they can, the leader's block is taken."""
    chain = start()
    for _ in range(40):
        slot = chain.slot + 1
        leader = chain.names[slot_leader(chain.state, next_term(chain.view, slot), slot)]
        good = chain.make(slot=slot)
        others = [name for name in chain.miners if name != leader]
        for name in others:
            assert refusal(chain, sealed_as(chain, good, signer=name, miner=account_of(name))) is Reason.NOT_LEADER
            assert refusal(chain, sealed_as(chain, good, signer=name)) is Reason.BAD_SEAL
        chain.take(good)


def test_back_dated_block_of_the_right_leader_wins_nothing_against_votes() -> None:
    """Goal: an earlier slot of one's own, used afterwards, does not displace what was voted for. Method: after 60 idle slots a block of
    now and one of each earlier leader's slot; without votes the earlier slot would win; with one vote it does not, and none is timely."""
    chain = start()
    chain.run(1)
    parent, now_slot = chain.blocks[-1], chain.slot + 60
    honest = chain.make([folder(chain, "f")], slot=now_slot)
    committee = committee_at(chain.state, chain.height)

    def point(block: Block) -> BlockPoint:
        return BlockPoint(BlockHash(block.hash), BlockHash(parent.hash), block.info.height, block.info.slot, 2, committee)

    root = BlockPoint(BlockHash(parent.hash), BlockHash(bytes(32)), 1, parent.info.slot, 1, committee)
    tree = ForkTree(root)
    tree.add_block(point(honest))
    vote = sign_vote(key_of("a", "vote"), chain.chain, root.checkpoint, point(honest).checkpoint, account_of("a"))
    for slot in range(chain.slot + 1, now_slot, 7):
        late = chain.make(slot=slot)
        chain.judge(late)  # valid: only fork choice and votes tell
        without = ForkTree(root)
        without.add_block(point(honest))
        without.add_block(point(late))
        assert without.head().hash == late.hash
        tree.add_block(point(late))
        received = chain.time_ms(now_slot) + 100
        assert not is_timely(received_ms=received, slot_start_ms=chain.time_ms(slot), late_ms=1000, slot_ms=1000) or slot >= now_slot - 1
    tree.add_vote(vote)
    assert tree.head().hash == honest.hash


def test_miner_and_voter_on_two_chains_in_one_second_makes_no_evidence() -> None:
    """Goal: serving two chains is no crime. Method: seals of one key for one slot, votes for one height, on two chains; each way round."""
    here, there = start(), start(term_blocks=9)
    assert here.chain != there.chain
    here.run(3, voting=True)
    there.run(3, voting=True)
    key, slot = key_of("a", "seal"), 2
    blocks = sorted([BlockHash(sha256(b"here")), BlockHash(sha256(b"there"))])
    chains = {blocks[0]: here.chain, blocks[1]: there.chain}
    seals = tuple(
        equivocation.Sealed(name, key.sign(Label.SEAL, NetworkId(chains[name]), slot.to_bytes(8, "big") + name)) for name in blocks
    )
    body = equivocation.Body("seals", account_of("a"), key.public, slot, seals, ())
    votes = tuple(chain.votes(("a",), source=0)[0] for chain in (here, there))
    assert not breaks_promise(*votes)
    said = equivocation.Body("votes", account_of("a"), key_of("a", "vote").public, 0, (), votes)
    for chain in (here, there):
        assert why(chain, chain.by("ann", "Equivocation", body)) is Reason.BAD_SIGNATURE
        assert why(chain, chain.by("ann", "Equivocation", said)) is Reason.WRONG_CHAIN


# --- bodies under a hash ------------------------------------------------------------------------------------------


def test_corrupted_co_signature_under_an_unchanged_hash_says_nothing_of_the_block() -> None:
    """Goal: whoever relays cannot spoil a block. Method: each bit of a few of one co-signature, a dropped one, two swapped, another
    key's; each is refused for its root alone, and the block itself is taken after all of them."""
    chain = start()
    block = chain.make([chain.by("ann", "RecordAnchor", chain.anchor("ann", "r", owners=owned("ann", "bob")), "bob")])
    (good,) = block.transactions
    last = good.signatures[-1]
    spoiled = [
        replace(good, signatures=(good.signatures[0], replace(last, signature=bytes([last.signature[0] ^ 1 << bit]) + last.signature[1:])))
        for bit in range(8)
    ]
    spoiled += [replace(good, signatures=good.signatures[:1]), replace(good, signatures=good.signatures[::-1])]
    spoiled.append(sign_transaction(good.content, [key_of("ann"), key_of("eve")]))
    for lie in spoiled:
        bad = replace(block, transactions=(lie,))
        assert bad.hash == block.hash
        assert lie.id == good.id
        assert refusal(chain, bad) is Reason.MERKLE_ROOT
    chain.take(block)


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 5])
def test_body_with_leaves_doubled_joined_or_moved_is_refused(count: int) -> None:
    """Goal: one root is one body. Method: under the true header: the last transaction twice with either count, one dropped, two swapped,
    a whole subtree in the place of a leaf (an id that is an inner node)."""
    chain = start()
    block = chain.make([folder(chain, f"f{number}") for number in range(count)])
    tricks: list[tuple[Transaction, ...]] = [(*block.transactions, *block.transactions[-1:])] if count else [(folder(chain, "x"),)]
    if count:
        tricks.append(block.transactions[:-1])
    if count > 1:
        tricks += [block.transactions[::-1], (*block.transactions[:-2], block.transactions[-1])]
    for body in tricks:
        assert refusal(chain, replace(block, transactions=body)) is Reason.BAD_INFO or len(body) == count
        with_count = replace(block, transactions=body, info=replace(block.info, transaction_count=len(body)))
        assert refusal(chain, with_count) is Reason.MERKLE_ROOT
    chain.take(block)


def test_transactions_replayed_or_reordered_inside_blocks_are_refused() -> None:
    """Goal: order and once. Method: two that need their order, swapped and sealed anew; one twice in a block; one of an old block."""
    chain = start()
    one, two = (chain.by("ann", "FolderUpdate", folder_update.Body("f", bytes(32), bytes(32), number)) for number in (1, 2))
    good = chain.make([one, two])
    assert refusal(chain, replace(good, transactions=(two, one))) is Reason.MERKLE_ROOT
    assert refusal(chain, sealed_as(chain, good, transactions=(two, one))) is Reason.SEQUENCE
    assert refusal(chain, sealed_as(chain, good, transactions=(one, two, two), transaction_count=3)) is Reason.SEEN
    chain.take(good)
    empty = chain.make()
    assert refusal(chain, sealed_as(chain, empty, transactions=(one,), transaction_count=1)) is Reason.SEEN
    assert refusal(chain, sealed_as(chain, chain.make([folder(chain, "g")]), state_root=bytes(32))) is Reason.STATE_ROOT


def test_same_content_in_two_encodings_is_one_transaction_at_most() -> None:
    """Goal: one content, one id, one encoding. Method: heads of arrays and numbers in longer forms, of envelope and block."""
    chain = start()
    good = folder(chain, "f")
    plain = encode(good)
    assert plain[0] == 0x92
    longer = b"\xdc\x00\x02" + plain[1:]
    with pytest.raises(DecodeError) as caught:
        decode(longer, Transaction)
    assert caught.value.reason is Reason.NOT_CANONICAL
    kind = plain.index(bytes([good.content.kind]), 36)
    wide = plain[:kind] + b"\xcc" + plain[kind:]
    with pytest.raises(DecodeError):
        decode(wide, Transaction)
    block = encode(chain.make([good]))
    with pytest.raises(DecodeError) as caught:
        decode_block(b"\xdc\x00\x05" + block[1:])
    assert caught.value.reason is Reason.NOT_CANONICAL


# --- sizes --------------------------------------------------------------------------------------------------------


def test_oversize_everything_is_refused() -> None:
    """Goal: every size has its bound. Method: one above each: a transaction, a block of bytes, of transactions, of votes, a frame; and a
    sealer leaves out what does not fit."""
    large = start(tx_bytes_max=1024, block_bytes_max=4096, block_transactions_max=8)
    small = [folder(large, f"{number}") for number in range(9)]
    long_name = folder(large, "x" * 256, links=())
    fat = replace(long_name, content=replace(long_name.content, body=long_name.content.body + bytes(1200)))
    assert why(large, sign_transaction(fat.content, [key_of("ann")])) is Reason.TOO_LONG
    huge = sign_transaction(replace(fat.content, body=bytes(TX_BYTES_MAX)), [key_of("ann")])
    assert why(large, huge) is Reason.TOO_LONG
    draft, name = large.draft(small)
    assert len(draft.transactions) == 8
    block = large.finish(draft, name)
    full = sealed_as(large, block, transactions=tuple(small), transaction_count=9)
    assert refusal(large, full) is Reason.TOO_LONG
    wide = start(tx_bytes_max=1024, block_bytes_max=2048)
    several = [folder(wide, f"{number}") for number in range(9)]
    some = wide.make(several[:1])
    assert refusal(wide, sealed_as(wide, some, transactions=tuple(several), transaction_count=9)) is Reason.TOO_LONG
    votes = tuple(
        Vote(wide.chain, wide.checkpoint(0), replace(wide.checkpoint(0), height=1 + at), account_of("a"), bytes(64))
        for at in range(BLOCK_VOTES_MAX + 1)
    )
    assert refusal(wide, replace(some, votes=votes)) is Reason.BAD_VOTE
    many = replace(some, transactions=several[:1] * (BLOCK_TRANSACTIONS_MAX + 1))
    many = replace(many, info=replace(many.info, transaction_count=BLOCK_TRANSACTIONS_MAX + 1))
    assert refusal(wide, many) is Reason.BAD_INFO
    with pytest.raises(DecodeError) as caught:
        decode_block(bytes(BLOCK_BYTES_MAX + 1))
    assert caught.value.reason is Reason.TOO_LONG


# --- time ---------------------------------------------------------------------------------------------------------


def test_certificate_is_judged_at_inclusion_and_not_when_a_transaction_was_made() -> None:
    """Goal: block time at inclusion decides. Method: made in time, included the second before the end, and at the end."""
    for late in (False, True):
        chain = start()
        body = certificate("new", to_ms=UnixMillis(START_MS + 20_000))
        chain.add(chain.by("manager", "CertIssue", body))
        waiting = folder(chain, "f", "new")
        assert why(chain, waiting) is None
        block = chain.make(slot=20 if late else 19)
        draft, _ = chain.draft([waiting], slot=block.info.slot)
        reasons = [error.reason for _, error in draft.refused]
        assert reasons == ([Reason.CERTIFICATE_EXPIRED] if late else [])
        bad = sealed_as(chain, block, transactions=(waiting,), transaction_count=1)
        assert refusal(chain, bad) is (Reason.CERTIFICATE_EXPIRED if late else Reason.STATE_ROOT)


def test_transaction_that_waits_six_days_is_taken_and_after_its_week_never_again() -> None:
    """Goal: waiting kills nothing before its end, and nothing lives for ever. Method: until a week ahead; included after six days; a
    second one after seven days and a second; the first one again once it is forgotten."""
    chain = start()
    week = chain.profile.tx_life_ms
    first, second = (folder(chain, name, until_ms=UnixMillis(START_MS + week)) for name in ("f", "g"))
    chain.add(first, slot=6 * DAY_MS // 1000)
    chain.add(slot=week // 1000)
    assert why(chain, second) is Reason.EXPIRED
    chain.add(slot=week // 1000 + 60)
    assert chain.state.get("seen", first.id) is None
    assert why(chain, first) is Reason.EXPIRED


def test_certificates_of_council_members_may_expire_and_the_council_still_acts() -> None:
    """Goal: no clock locks a domain out. Method: every account's certificate is over; the council issues a new one, and it acts."""
    chain = start()
    slot = 365 * DAY_MS // 1000 + 5
    chain.add(slot=slot)
    assert why(chain, folder(chain, "f")) is Reason.CERTIFICATE_EXPIRED
    assert why(chain, chain.by("manager", "CertIssue", certificate("new"))) is Reason.CERTIFICATE_EXPIRED
    ends = UnixMillis(chain.now_ms + DAY_MS)
    renewed: cert_issue.Body = replace(certificate("ann", to_ms=ends), serial=sha256(b"again")[:16])
    chain.add(chain.by_council("CertIssue", renewed))
    assert why(chain, folder(chain, "f", serial=renewed.serial)) is None
    chain.run(3)


# --- forks --------------------------------------------------------------------------------------------------------


def test_fork_that_undoes_a_certificate_undoes_what_stood_on_it() -> None:
    """Goal: nothing outlives the branch that carried its right. Method: a certificate and an act under it on one branch; the other
    branch refuses the act until it has carried the certificate itself; both orders of both in one block."""
    chain = start()
    chain.run(2)
    issue = chain.by("manager", "CertIssue", certificate("new"))
    act = folder(chain, "f", "new")
    chain.add(issue)
    chain.add(act)
    left = chain.view.root
    chain.pop()
    chain.pop()
    chain.add(slot=chain.slot + 4)
    assert why(chain, act) is Reason.NOT_MEMBER
    other = chain.make()
    assert refusal(chain, sealed_as(chain, other, transactions=(act,), transaction_count=1)) is Reason.NOT_MEMBER
    assert refusal(chain, sealed_as(chain, other, transactions=(act, issue), transaction_count=2)) is Reason.NOT_MEMBER
    chain.add(issue, act)
    assert chain.view.root != left
    assert why(chain, act) is Reason.SEEN


def test_fork_below_the_final_block_is_never_followed() -> None:
    """Goal: what is final stays, whatever work and votes say. Method: three of four make a block final; then a branch below it with ten
    times the work and all votes of everybody; the tree neither takes its first block nor moves."""
    chain = start()
    chain.run(1)
    committee = committee_at(chain.state, 0)

    def point(name: bytes, parent: BlockHash, height: int, work: int) -> BlockPoint:
        return BlockPoint(BlockHash(sha256(name)), parent, height, height, work, committee)

    root = point(b"root", BlockHash(bytes(32)), 0, 0)
    tree = ForkTree(root)
    line = [root]
    for height in range(1, 6):
        line.append(point(b"a%d" % height, line[-1].hash, height, height))
        tree.add_block(line[-1])
        for name in ("a", "b", "c"):
            source, target = line[-2].checkpoint, line[-1].checkpoint
            tree.add_vote(sign_vote(key_of(name, "vote"), chain.chain, source, target, account_of(name)))
    assert tree.final == line[4]
    rival = point(b"b1", root.hash, 1, 10)
    assert rival.parent not in tree
    with pytest.raises(AssertionError):
        tree.add_block(rival)
    for height in range(1, 9):
        target = replace(line[1].checkpoint, height=height, hash=BlockHash(sha256(b"b%d" % height)))
        for name in ("a", "b", "c", "d"):
            tree.add_vote(sign_vote(key_of(name, "vote"), chain.chain, root.checkpoint, target, account_of(name)))
    assert (tree.final, tree.head()) == (line[4], line[5])


def test_long_fork_is_followed_and_left_again_to_the_last_byte() -> None:
    """Goal: depth is no hindrance. Method: 120 blocks with transactions are undone, 130 others done, those undone, the first done again."""
    chain = start(term_blocks=30)
    chain.run(2)
    base, items = chain.height, chain.view.items()

    def grow(count: int, salt: str, gap: int) -> list[Block]:
        made = []
        for number in range(count):
            block = chain.make([folder(chain, f"{salt}{number}", "bob")], slot=chain.slot + gap)
            chain.take(block)
            made.append(block)
        return made

    def back() -> None:
        while chain.height > base:
            chain.pop()
        assert chain.view.items() == items

    first = grow(120, "x", 1)
    left, terms = chain.view.items(), load_tip(chain.state).term
    assert terms >= 4
    back()
    grow(130, "y", 2)
    assert chain.view.items() != left
    back()
    for block in first:
        chain.take(block)
    assert chain.view.items() == left


def test_draft_of_somebody_out_of_turn_is_not_even_made() -> None:
    """Goal: our own sealer obeys the rules that it judges others by. Method: every other miner's draft for a slot."""
    chain = start()
    chain.run(1)
    slot = chain.slot + 1
    leader = slot_leader(chain.state, next_term(chain.view, slot), slot)
    for name in chain.miners:
        if account_of(name) == leader:
            continue
        with pytest.raises(InvalidBlock) as caught:
            draft_block(
                chain.view,
                chain.header,
                chain=chain.chain,
                t_stamp_ms=chain.time_ms(slot),
                miner=account_of(name),
                reveal=chain.reveal(name),
            )
        assert caught.value.reason is Reason.NOT_LEADER


def test_ten_thousand_blocks_without_a_parent_are_undecided_and_blame_nobody() -> None:
    """Goal: what cannot be judged is no verdict, and cheap. Method: headers with 10,000 other parents, each sealed by the right miner."""
    chain = start()
    chain.run(1)
    block = chain.make()
    old = decode_header(block.header)
    root = chain.view.root
    for number in range(10_000):
        parent = BlockHash(sha256(number.to_bytes(4, "big")))
        header = Header(old.t_stamp_ms, old.merkle_root, old.version, parent, old.nonce)
        with pytest.raises(Undecided) as caught:
            chain.judge(replace(block, header=header.encoded))
        assert caught.value.reason is Reason.UNKNOWN_PARENT
    assert chain.view.root == root
    chain.take(block)


def test_vote_signed_for_another_chain_is_not_carried_by_a_block() -> None:
    """Goal: a liar cannot say one thing here under a foreign chain's name, where no evidence would count. Method: a member's true
    signature under another chain's id, over blocks of this one, carried under that id and under this one's."""
    here, there = start(), start(term_blocks=9)
    here.run(2)
    source, target = here.checkpoint(0), here.checkpoint(1)
    foreign = sign_vote(key_of("a", "vote"), there.chain, source, target, account_of("a"))
    good = here.make()
    for vote in (foreign, replace(foreign, chain=here.chain)):
        block = sealed_as(here, good, votes=(vote,), votes_root=votes_root((vote,)))
        assert refusal(here, block) is Reason.BAD_VOTE
    assert not carriable_votes(here.view, here.header, [foreign], chain=here.chain)
    true = sign_vote(key_of("a", "vote"), here.chain, source, target, account_of("a"))
    assert carriable_votes(here.view, here.header, [true], chain=here.chain) == (true,)


def test_approval_after_the_deadline_is_refused_also_when_many_deadlines_are_due(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a deadline is a deadline, however many conditions wait for their turn. Method: three pending records of one deadline where a
    block fires one condition; the approvals of those that have not lapsed yet come too late all the same."""
    monkeypatch.setattr(conditions, "CONDITIONS_PER_BLOCK_MAX", 1)
    chain = start()
    owners = owned("ann", "bob", deadline_ms=5000)
    waiting = [chain.by("ann", "RecordAnchor", chain.anchor("ann", f"r{number}", owners=owners)) for number in range(3)]
    chain.add(*waiting)
    chain.add(slot=4)
    assert {why(chain, chain.by("bob", "Approve", approve.Body(one.id, True, ""))) for one in waiting} == {None}
    chain.add(slot=6)
    late = [chain.by("bob", "Approve", approve.Body(one.id, True, "")) for one in waiting]
    assert {why(chain, one) for one in late} == {Reason.EXPIRED, Reason.NOT_FOUND}
    while chain.slot < 10:
        chain.add()
    assert not list(chain.state.iterate("pending"))
