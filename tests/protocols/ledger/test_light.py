"""What a light node believes: final blocks by quorums, committees one after the other, proofs; and every lie about them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from protocols.codec import decode, encode, replace
from protocols.crypto import SigningKey, sha256
from protocols.errors import InvalidObject, LadingError, Reason, RemoteError, Undecided
from protocols.ledger.block import (
    Block,
    LeafProof,
    LightHeader,
    block_merkle_root,
    decode_header,
    light_header,
    prove_leaf,
    sign_seal,
)
from protocols.ledger.carried import COMMITTEE, HASH, committee_at, committee_of
from protocols.ledger.checks import u64
from protocols.ledger.committee import Committee
from protocols.ledger.context import Genesis
from protocols.ledger.envelope import Transaction, sign_transaction
from protocols.ledger.light import (
    COUNCIL_KEY,
    HeadBlock,
    Inclusion,
    Link,
    Proven,
    Sealers,
    Succession,
    Trust,
    advance,
    check_anchor,
    check_inclusion,
    check_values,
    first_committee,
    follow,
    is_on_chain,
    sealer_keys,
)
from protocols.ledger.profile import Council
from protocols.ledger.seals.table import SEALS
from protocols.ledger.state import Key, MemoryState, Overlay, prove_value
from protocols.ledger.sync import header_row
from protocols.ledger.terms import MINER, TERM, TIP, Miner, Term, Tip
from protocols.ledger.transactions import council_recover, key_rotate
from protocols.ledger.transactions.chain_genesis import WORK
from protocols.ledger.transactions.key_rotate import replace_member
from protocols.ledger.transactions.records import RECORD, record_key
from protocols.ledger.votes import Checkpoint, Vote, sign_vote
from protocols.ledger.work import WorkState
from tests.protocols.ledger.chains import Chain, account_of, key_of, record_id, start

NOW_MS = 1_900_000_000_000


def proven(view: MemoryState, key: Key) -> Proven:
    return Proven(view.get(*key), prove_value(view, *key))


def trust_at_start(chain: Chain) -> Trust:
    return Trust(header_row(chain.blocks[0]), committee_at(chain.state, 0))


def link(chain: Chain, votes: Sequence[Vote], generation: int = 0) -> Link:
    """From the block below the tip to the tip."""
    keys: list[Key] = [(COMMITTEE, u64(generation)), (COMMITTEE, u64(generation + 1))]
    committee, following = (proven(chain.view, key) for key in keys)
    return Link(header_row(chain.blocks[-2]), header_row(chain.blocks[-1]), tuple(votes), committee, following)


def succession(chain: Chain, votes: Sequence[Vote], rotations: Sequence[Transaction] = (), *, after: int = 0) -> Succession:
    """To the committee in force at the tip."""
    last = committee_at(chain.state, chain.height).generation + 1
    committees = tuple(proven(chain.view, (COMMITTEE, u64(number))) for number in range(after + 1, last + 1))
    return Succession(header_row(chain.blocks[-1]), tuple(votes), committees, proven(chain.view, COUNCIL_KEY), tuple(rotations))


def council_of(chain: Chain) -> Council:
    council = chain.state.load(*COUNCIL_KEY, Council)
    assert council is not None
    return council


def led(chain: Chain, trust: Trust, *links: Link, successions: Sequence[Succession] = (), council: Council | None = None) -> Trust:
    return advance(trust, successions, links, chain.chain, SEALS[chain.profile.seal], council)


def refused(act: Callable[[], object]) -> Reason:
    with pytest.raises(RemoteError) as error:
        act()
    return error.value.reason


# --- final blocks -----------------------------------------------------------------------------------------------------


def test_block_that_a_quorum_voted_from_to_its_child_is_final() -> None:
    """Goal: finality from two headers and votes. Method: every number of votes; the quorum of four is three."""
    chain = start()
    trust = trust_at_start(chain)
    chain.run(5, voting=True)
    votes = chain.votes()
    for count in range(5):
        shown = link(chain, votes[:count])
        if count < 3:
            assert refused(lambda shown=shown: led(chain, trust, shown)) is Reason.BAD_VOTE  # type: ignore[misc]
        else:
            assert led(chain, trust, shown).checkpoint == chain.checkpoint(4)
    assert len(encode(link(chain, votes))) < 4096


def test_votes_that_say_something_else_do_not_count() -> None:
    """Goal: a quorum is of different members, for exactly this link. Method: one vote too few of the right ones, and a false one of each
    kind."""
    chain = start()
    trust = trust_at_start(chain)
    chain.run(4, voting=True)
    good = chain.votes()
    (other,) = chain.votes(["d"], source=1)
    stranger = sign_vote(key_of("eve", "vote"), chain.chain, good[0].source, good[0].target, account_of("d"))
    unseated = sign_vote(key_of("eve", "vote"), chain.chain, good[0].source, good[0].target, account_of("eve"))
    elsewhere = sign_vote(key_of("d", "vote"), sha256(b"other"), good[0].source, good[0].target, account_of("d"))  # type: ignore[arg-type]
    for false in (other, stranger, unseated, elsewhere, good[0], replace(good[2], signature=bytes(64)), replace(good[2], signature=b"")):
        shown = link(chain, [*good[:2], false])
        assert refused(lambda shown=shown: led(chain, trust, shown)) is Reason.BAD_VOTE  # type: ignore[misc]
    flood = link(chain, good * 65)
    assert refused(lambda: led(chain, trust, flood)) is Reason.FLOOD


def test_headers_that_do_not_belong_together_are_no_link() -> None:
    """Goal: child is the direct child, proofs are of its state. Method: parts of other links put together."""
    chain = start()
    trust = trust_at_start(chain)
    chain.run(3, voting=True)
    early = link(chain, chain.votes())
    chain.run(2, voting=True)
    late = link(chain, chain.votes())
    lies = [
        replace(late, row=early.row),
        replace(late, child=early.child),
        replace(late, committee=early.committee),
        replace(late, committee=late.following),
        replace(late, following=late.committee),
        replace(late, child=replace(late.child, info=replace(late.child.info, state_root=early.child.info.state_root))),
        replace(late, child=replace(late.child, info=replace(late.child.info, height=9))),
        replace(late, row=replace(late.row, header=late.row.header[:-1])),
    ]
    for lie in lies:
        assert refused(lambda lie=lie: led(chain, trust, lie)) in (Reason.INTEGRITY, Reason.TRUNCATED)  # type: ignore[misc]
    assert led(chain, trust, late).checkpoint.height == 4
    assert refused(lambda: led(chain, trust, late, late)) is Reason.FLOOD


def test_older_final_blocks_change_nothing_and_two_at_one_height_are_noticed() -> None:
    """Goal: a stale peer does not lead back, and broken finality is not followed. Method: links out of order; a second chain by the same
    members, all of whom lie."""
    chain = start()
    trust = trust_at_start(chain)
    chain.run(3, voting=True)
    early = link(chain, chain.votes())
    chain.run(2, voting=True)
    stood = led(chain, trust, link(chain, chain.votes()))
    assert led(chain, stood, early) == stood
    other = start()
    other.run(4, voting=True)
    other.add(other.by("ann", "RecordAnchor", other.anchor("ann", "other")))
    other.pop()
    other.pop()
    other.add(other.by("ann", "RecordAnchor", other.anchor("ann", "other")))
    other.run(1)
    with pytest.raises(InvalidObject) as error:
        led(chain, stood, link(other, other.votes()))
    assert error.value.reason is Reason.CONFLICT


# --- committees -------------------------------------------------------------------------------------------------------


@dataclass
class Rotated:
    """A chain whose member ``d`` votes with another key from some height on; three blocks under the new committee."""

    chain: Chain
    trust: Trust
    council: Council
    rotation: Transaction
    new: SigningKey

    def votes(self, names: Sequence[str] = "abcd") -> list[Vote]:
        """From the parent to the tip, by the keys that are in force."""
        chain = self.chain
        source, target = chain.checkpoint(chain.height - 1), chain.checkpoint(chain.height)
        keys = {name: self.new if name == "d" else key_of(name, "vote") for name in names}
        return [sign_vote(key, chain.chain, source, target, account_of(name)) for name, key in keys.items()]


def rotate(chain: Chain, name: str, new: SigningKey, old: SigningKey) -> Transaction:
    body = key_rotate.Body("vote", account_of(name), old.public, new.public, b"")
    return by_keys(chain, "KeyRotate", body, name, [key_of(name, "council"), new])


def by_keys(chain: Chain, kind: str, body: object, name: str, keys: Sequence[SigningKey]) -> Transaction:
    return sign_transaction(chain.content(kind, body, account_of(name), b""), keys)  # type: ignore[arg-type]


def rotated() -> Rotated:
    chain = start()
    trust, council = trust_at_start(chain), council_of(chain)
    chain.run(2, voting=True)
    new = key_of("d", "vote again")
    rotation = rotate(chain, "d", new, key_of("d", "vote"))
    chain.add(rotation)
    chain.run(2)
    return Rotated(chain, trust, council, rotation, new)


def test_committee_that_a_quorum_of_the_one_before_voted_under_is_trusted() -> None:
    """Goal: finality goes on across a change. Method: succession and link; the trust that results takes the next link alone."""
    one = rotated()
    chain, votes = one.chain, one.votes()
    step, shown = succession(chain, votes, [one.rotation]), link(chain, votes, 1)
    stood = led(chain, one.trust, shown, successions=[step], council=one.council)
    assert stood.checkpoint == chain.checkpoint(4)
    assert stood.committee == committee_of(chain.state, 1)
    chain.run(1)
    assert led(chain, stood, link(chain, one.votes(), 1)).checkpoint == chain.checkpoint(5)
    assert led(chain, one.trust, successions=[step], council=one.council).checkpoint == one.trust.checkpoint


def test_retired_committee_calls_nothing_final() -> None:
    """Goal: keys that a committee left behind are worth nothing, before and after the light node knows. Method: all four old keys vote for
    blocks of the chain that has the change."""
    one = rotated()
    chain = one.chain
    old = chain.votes()
    assert refused(lambda: led(chain, one.trust, link(chain, old))) is Reason.INTEGRITY
    stood = led(
        chain, one.trust, link(chain, one.votes(), 1), successions=[succession(chain, one.votes(), [one.rotation])], council=one.council
    )
    chain.run(1)
    only_retired = chain.votes(["c", "d"])
    assert refused(lambda: led(chain, stood, link(chain, only_retired, 1))) is Reason.BAD_VOTE
    assert refused(lambda: led(chain, stood, link(chain, chain.votes(), 0))) is Reason.INTEGRITY


def test_committee_of_another_branch_calls_nothing_final() -> None:
    """Goal: it is the very committee that is trusted, not one of its number. Method: a chain whose first committee differs in one key;
    three trusted members vote on it."""
    chain = start()
    chain.run(3, voting=True)
    committee = committee_at(chain.state, 0)
    seats = tuple(replace(seat, vote_key=key_of("eve").public) if seat.member == account_of("d") else seat for seat in committee.seats)
    shown = link(chain, chain.votes(["a", "b", "c"]))
    assert led(chain, trust_at_start(chain), shown).checkpoint.height == 2
    other = Trust(header_row(chain.blocks[0]), replace(committee, seats=seats))
    assert refused(lambda: led(chain, other, shown)) is Reason.INTEGRITY


def test_committee_that_seats_itself_is_not_trusted() -> None:
    """Goal: another committee needs a quorum of keys trusted already. Method: a state that a liar makes seats its keys under all names; its
    votes, with a rotation that no council key signed, with two old members' and with none."""
    one = rotated()
    chain = start()
    trust, council = one.trust, one.council
    liars = {name: SigningKey(sha256(b"liar", name.encode())) for name in "abcd"}
    view = MemoryState()
    view.commit(chain.applied[0].change)
    committee = committee_at(chain.state, 0)
    seats = tuple(replace(seat, vote_key=liars[chain.names[seat.member]].public) for seat in committee.seats)
    forged = replace(committee, generation=1, from_height=1, seats=seats)
    overlay = Overlay(view)
    overlay.save(COMMITTEE, u64(1), forged)
    view.commit(overlay.change())
    chain.add()
    block = chain.blocks[-1]
    info = replace(block.info, state_root=view.root)
    header = chain.header
    fake = replace(block, info=info, header=replace_root(header.encoded, block_merkle_root(info, ())))
    chain.blocks[-1] = fake
    chain.view.root = view.root
    source, target = chain.checkpoint(0), chain.checkpoint(1)
    by_liars = [sign_vote(key, chain.chain, source, target, account_of(name)) for name, key in liars.items()]
    by_two = [sign_vote(key_of(name, "vote"), chain.chain, source, target, account_of(name)) for name in "ab"]
    unsigned = [by_keys(chain, "KeyRotate", rotation_to(liars[name], name), name, [liars[name]]) for name in "abcd"]
    proofs = tuple(Proven(view.get(COMMITTEE, u64(number)), prove_value(view, COMMITTEE, u64(number))) for number in (1, 2))
    council_proof = Proven(view.get(*COUNCIL_KEY), prove_value(view, *COUNCIL_KEY))
    for votes in (by_liars, [*by_liars, *by_two]):
        for rotations in ((), tuple(unsigned)):
            step = Succession(header_row(fake), tuple(votes), proofs, council_proof, rotations)
            assert refused(lambda step=step: led(chain, trust, successions=[step], council=council)) is Reason.BAD_VOTE  # type: ignore[misc]
    # The same with the council keys of three members, which is what a rotation needs: the method would notice.
    signed = [by_keys(chain, "KeyRotate", rotation_to(liars[n], n), n, [key_of(n, "council"), liars[n]]) for n in "abcd"]
    step = Succession(header_row(fake), tuple(by_liars), proofs, council_proof, tuple(signed))
    assert led(chain, trust, successions=[step], council=council).committee == forged


def rotation_to(key: SigningKey, name: str) -> key_rotate.Body:
    return key_rotate.Body("vote", account_of(name), key_of(name, "vote").public, key.public, b"")


def replace_root(header: bytes, root: bytes) -> bytes:
    return header[:8] + root + header[40:]


def test_succession_with_a_committee_left_out_is_refused() -> None:
    """Goal: nobody chooses which committees are shown. Method: without the newest, without the proof that none follows, of others."""
    one = rotated()
    chain, votes = one.chain, one.votes()
    step = succession(chain, votes, [one.rotation])
    lies = [
        replace(step, committees=step.committees[:-1]),
        replace(step, committees=step.committees[1:]),
        replace(step, committees=()),
        replace(step, committees=(*step.committees, step.committees[-1])),
        replace(step, council=step.committees[0]),
        replace(step, row=header_row(chain.blocks[-2])),
        replace(step, rotations=(one.rotation,) * 300),
        replace(step, rotations=(replace(one.rotation, signatures=one.rotation.signatures[:0]),)),
    ]
    for lie in lies:
        reason = refused(lambda lie=lie: led(chain, one.trust, successions=[lie], council=one.council))  # type: ignore[misc]
        assert reason in (Reason.INTEGRITY, Reason.BAD_VOTE, Reason.FLOOD)
    assert refused(lambda: led(chain, one.trust, successions=[step] * 17, council=one.council)) is Reason.FLOOD


def test_change_by_recovery_keys_is_followed_with_them_alone() -> None:
    """Goal: lost voting keys do not strand light nodes. Method: all four keys replaced by CouncilRecover; without it, and with one recovery
    key too few, nobody is believed."""
    chain = start()
    trust, council = trust_at_start(chain), council_of(chain)
    chain.run(2, voting=True)
    new = {name: key_of(name, "vote again") for name in "abcd"}
    recovered = council
    for name, key in new.items():
        member = council.member(account_of(name))
        assert member is not None
        recovered = replace_member(recovered, replace(member, vote_key=key.public))
    body = council_recover.Body(2, chain.checkpoint(2).hash, replace(recovered, sequence=council.sequence + 1))
    recovery = by_keys(chain, "CouncilRecover", body, "a", [key_of(name, "recovery") for name in "abc"])
    few = by_keys(chain, "CouncilRecover", body, "a", [key_of(name, "recovery") for name in "ab"])
    chain.add(recovery)
    chain.run(1)
    source, target = chain.checkpoint(3), chain.checkpoint(4)
    votes = [sign_vote(key, chain.chain, source, target, account_of(name)) for name, key in new.items()]
    shown = link(chain, votes, 1)
    for rotations in ([], [few]):
        step = succession(chain, votes, rotations)
        assert refused(lambda step=step: led(chain, trust, shown, successions=[step], council=council)) is Reason.BAD_VOTE  # type: ignore[misc]
    stood = led(chain, trust, shown, successions=[succession(chain, votes, [recovery])], council=council)
    assert stood.checkpoint == chain.checkpoint(3)


def test_last_block_before_a_change_is_final_by_both_committees() -> None:
    """Goal: a chain that falls silent after a rotation is final there for light nodes too. Method: the block with the rotation and its
    child; the old keys or the new one alone are not enough."""
    chain = start()
    trust, council = trust_at_start(chain), council_of(chain)
    chain.run(2, voting=True)
    new = key_of("d", "vote again")
    rotation = rotate(chain, "d", new, key_of("d", "vote"))
    chain.add(rotation)
    chain.run(1)
    votes = Rotated(chain, trust, council, rotation, new).votes()
    step, shown = succession(chain, votes, [rotation]), link(chain, votes, 1)
    assert led(chain, trust, shown, successions=[step], council=council).checkpoint == chain.checkpoint(3)
    with_old_d = replace(shown, votes=tuple(chain.votes(["b", "c"])))
    assert refused(lambda: led(chain, trust, with_old_d, successions=[step], council=council)) is Reason.BAD_VOTE
    bare = replace(step, rotations=())  # enough for the succession: three of the old keys voted for the child
    without_c = replace(shown, votes=tuple(vote for vote in shown.votes if vote.member != account_of("c")))
    assert led(chain, trust, without_c, successions=[step], council=council).checkpoint == chain.checkpoint(3)
    assert refused(lambda: led(chain, trust, without_c, successions=[bare], council=council)) is Reason.BAD_VOTE
    known = Trust(trust.row, step_committee(step))
    assert refused(lambda: led(chain, known, shown)) is Reason.INTEGRITY


def step_committee(step: Succession) -> Committee:
    return decode(step.committees[0].value or b"", Committee)


# --- anchors, values, transactions --------------------------------------------------------------------------------------


def test_values_are_of_the_key_and_the_state_that_were_asked_for() -> None:
    """Goal: a proof of something else proves nothing. Method: another key's, another height's, an altered value, a hidden one; fewer than
    asked are fine."""
    chain = start()
    chain.add(chain.by("ann", "RecordAnchor", chain.anchor("ann", "r")))
    owner = record_id("ann", "r")
    there: Key = (RECORD, record_key(owner.owner, owner.hash_id))
    absent: Key = (RECORD, record_key(owner.owner, owner.hash_id[::-1]))  # type: ignore[arg-type]
    keys, values = [there, absent], [proven(chain.view, there), proven(chain.view, absent)]
    root = chain.blocks[-1].info.state_root
    assert check_values(root, keys, values) == {there: values[0].value, absent: None}
    assert check_values(root, keys, values[:1]) == {there: values[0].value}
    hidden, altered = (Proven(value, values[0].proof) for value in (None, b"x"))
    lies = [values[::-1], [hidden], [altered], [values[1]], [*values, values[1]]]
    for lie in lies:
        assert refused(lambda lie=lie: check_values(root, keys, lie)) is Reason.INTEGRITY  # type: ignore[misc]
    assert refused(lambda: check_values(chain.blocks[0].info.state_root, keys, values)) is Reason.INTEGRITY


def test_transaction_is_shown_with_its_place_in_a_block() -> None:
    """Goal: inclusion. Method: each transaction of a block; another's place, another id, leaf 0, an altered signature."""
    chain = start()
    made = [chain.by("ann", "RecordAnchor", chain.anchor("ann", f"r{number}")) for number in range(3)]
    chain.add(*made)
    block, seal = chain.blocks[-1], SEALS["authority"]
    for index, one in enumerate(block.transactions, 1):
        shown = Inclusion(header_row(block), prove_leaf(block, index), one)
        assert check_inclusion(shown, chain.chain, seal, one.id) == block.hash
        other = prove_leaf(block, index % 3 + 1)
        spoiled = replace(one, signatures=tuple(replace(sign, signature=bytes(64)) for sign in one.signatures))
        lies = [replace(shown, leaf=other), replace(shown, leaf=LeafProof(0, other.path)), replace(shown, transaction=spoiled)]
        for lie in lies:
            assert refused(lambda lie=lie, one=one: check_inclusion(lie, chain.chain, seal, one.id)) is Reason.INTEGRITY  # type: ignore[misc]
        assert refused(lambda shown=shown: check_inclusion(shown, chain.chain, seal, bytes(32))) is Reason.INTEGRITY  # type: ignore[misc]


def test_anchor_is_a_height_and_a_hash() -> None:
    """Goal: a light node begins at exactly the block it was told of. Method: that one, its neighbour, another chain's."""
    chain = start()
    chain.run(2)
    check_anchor(header_row(chain.blocks[1]), chain.checkpoint(1), chain.chain)
    assert refused(lambda: check_anchor(header_row(chain.blocks[2]), chain.checkpoint(1), chain.chain)) is Reason.INTEGRITY
    wrong = Checkpoint(2, chain.checkpoint(1).hash)
    assert refused(lambda: check_anchor(header_row(chain.blocks[1]), wrong, chain.chain)) is Reason.INTEGRITY
    assert refused(lambda: check_anchor(header_row(chain.blocks[1]), chain.checkpoint(1), sha256(b"x"))) is Reason.WRONG_CHAIN  # type: ignore[arg-type]


def test_first_committee_is_the_newest_that_a_trusted_state_seats() -> None:
    """Goal: nobody chooses the committee to begin with. Method: all generations, without the first absent one, with a gap."""
    one = rotated()
    keys: list[Key] = [(COMMITTEE, u64(number)) for number in range(3)]
    values = {key: one.chain.view.get(*key) for key in keys}
    assert first_committee(values) == committee_of(one.chain.state, 1)
    assert first_committee(dict(list(values.items())[:2])) is None
    assert first_committee({keys[0]: values[keys[0]], keys[2]: None}) is None
    assert first_committee({}) is None


def test_final_state_says_which_blocks_are_behind_it() -> None:
    """Goal: another branch is noticed. Method: heights that the state knows, and one that it does not."""
    chain = start()
    chain.run(3)
    points = [chain.checkpoint(1), Checkpoint(1, chain.checkpoint(2).hash), chain.checkpoint(3)]
    values: dict[Key, bytes | None] = {(HASH, u64(height)): chain.view.get(HASH, u64(height)) for height in range(4)}
    assert [is_on_chain(values, point) for point in points] == [True, False, None]


# --- above the final block ----------------------------------------------------------------------------------------------


def sealers(chain: Chain) -> Sealers:
    state = chain.state
    tip, work = state.load(TIP, b"", Tip), state.load(WORK, b"", WorkState)
    genesis = state.load("chain", b"genesis", Genesis)
    assert tip is not None
    assert work is not None
    assert genesis is not None
    term = state.load(TERM, u64(tip.term), Term)
    assert term is not None
    miners = {name: state.load(MINER, name, Miner) for name in term.miners}
    keys = {name: miner.key for name, miner in miners.items() if miner is not None}
    assert sealer_keys(header_row(chain.blocks[-1])) == ((TIP, b""), (TERM, u64(tip.term)), (WORK, b""))
    return Sealers(chain.profile, genesis.time_ms, tip, term, keys, int.from_bytes(work.target, "big"))


def followed(chain: Chain, trust: Trust, known: Sealers, bundles: Sequence[LightHeader], now_ms: int = NOW_MS) -> tuple[HeadBlock, ...]:
    return follow(bundles, trust, known, chain.chain, now_ms=now_ms)


@pytest.mark.parametrize("seal", ["authority", "pow"])
def test_head_is_followed_up_to_the_end_of_the_term(seal: str) -> None:
    """Goal: what is sealed by the right leaders is seen, and nothing that cannot be known is. Method: a term of eight blocks and more."""
    chain = start(seal=seal)
    chain.run(2)
    trust, known = Trust(header_row(chain.blocks[-1]), committee_at(chain.state, 0)), sealers(chain)
    chain.run(9)
    bundles = [light_header(block) for block in chain.blocks[3:]]
    found = followed(chain, trust, known, bundles)
    assert [one.hash for one in found] == [block.hash for block in chain.blocks[3:9]]
    assert found[-1].checkpoint == chain.checkpoint(8)
    assert [one.work for one in found] == sorted({one.work for one in found})
    assert found[-1].order < found[-2].order
    assert followed(chain, trust, known, []) == ()


def test_head_without_seals_by_others_or_out_of_line_is_refused() -> None:
    """Goal: no head without its leader's seal and work. Method: every part of the first or second bundle altered."""
    chain = start()
    chain.run(2)
    trust, known = Trust(header_row(chain.blocks[-1]), committee_at(chain.state, 0)), sealers(chain)
    chain.run(2, voting=True)
    first, second = (light_header(block) for block in chain.blocks[3:])
    assert len(followed(chain, trust, known, [first, second])) == 2
    lies: list[tuple[list[LightHeader], Reason]] = [
        ([replace(first, seal=b"")], Reason.BAD_SEAL),
        ([second], Reason.INTEGRITY),
        ([first, first], Reason.INTEGRITY),
        ([first, replace(second, votes=())], Reason.INTEGRITY),
        ([replace(first, info=replace(first.info, slot=first.info.slot + 1))], Reason.INTEGRITY),
        ([replace(first, path=(bytes(32),))], Reason.INTEGRITY),
    ]
    for bundles, reason in lies:
        assert refused(lambda bundles=bundles: followed(chain, trust, known, bundles)) is reason  # type: ignore[misc]
    with pytest.raises(Undecided) as undecided:
        followed(chain, trust, known, [replace(first, seal=second.seal)])
    assert undecided.value.reason is Reason.BAD_SEAL
    with pytest.raises(Undecided) as early:
        followed(chain, trust, known, [first], now_ms=0)
    assert early.value.reason is Reason.TOO_EARLY


def test_head_by_a_miner_whose_slot_it_is_not_is_refused() -> None:
    """Goal: the leader of a slot alone. Method: each other miner of the list, and somebody who is not on it, seals a block that is right
    otherwise; another target."""
    chain = start()
    chain.run(2)
    trust, known = Trust(header_row(chain.blocks[-1]), committee_at(chain.state, 0)), sealers(chain)
    right = chain.make()
    for name in (*chain.miners, "eve"):
        if account_of(name) != right.info.miner:
            assert refused(lambda name=name: followed(chain, trust, known, [sealed(chain, right, name)])) is Reason.NOT_LEADER  # type: ignore[misc]
    other = sealed(chain, right, chain.names[right.info.miner], target=bytes(31) + b"\x01")
    assert refused(lambda: followed(chain, trust, known, [other])) is Reason.TARGET
    assert followed(chain, trust, known, [light_header(right)])
    unknown = replace_sealers(known, {})
    with pytest.raises(Undecided):
        followed(chain, trust, unknown, [light_header(right)])


def replace_sealers(known: Sealers, keys: dict[object, bytes]) -> Sealers:
    return Sealers(known.profile, known.genesis_ms, known.tip, known.term, keys, known.target)  # type: ignore[arg-type]


def sealed(chain: Chain, block: Block, name: str, **changes: object) -> LightHeader:
    """The block as that miner would have sealed it."""
    info = replace(block.info, miner=account_of(name), **changes)
    header = replace_root(block.header, block_merkle_root(info, block.transactions))
    made = replace(block, info=info, header=header)
    seal = sign_seal(key_of(name, "seal"), chain.chain, info.slot, decode_header(header).hash)
    return light_header(replace(made, seal=seal))


def test_nothing_a_peer_says_raises_anything_else() -> None:
    """Goal: no answer makes a light node fall. Method: values of the right types and of any content, against the checks."""
    one = rotated()
    chain, votes = one.chain, one.votes()
    step, shown = succession(chain, votes, [one.rotation]), link(chain, votes, 1)
    junk = Proven(b"\xff", shown.committee.proof)
    seed = 0
    for field in ("row", "child"):
        for part in ("height", "slot", "transaction_count", "term"):
            for value in (0, 1, (1 << 63) - 1):
                seed += 1
                row = getattr(shown, field)
                lie = replace(shown, **{field: replace(row, info=replace(row.info, **{part: value}))})
                try:
                    led(chain, one.trust, lie, successions=[step], council=one.council)
                except (RemoteError, LadingError):
                    continue
    for lie in (replace(shown, committee=junk), replace(shown, following=junk)):
        assert refused(lambda lie=lie: led(chain, one.trust, lie, successions=[step], council=one.council)) is Reason.INTEGRITY  # type: ignore[misc]
    assert seed == 24
