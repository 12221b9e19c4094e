"""Leaders and terms: shares, dead miners, the draw two ahead, hand-over, rescue, retarget."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise, product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.codec import encode, replace
from protocols.crypto import sha256
from protocols.errors import InvalidTransaction, Reason
from protocols.ledger.block import decode_header
from protocols.ledger.checks import u64
from protocols.ledger.draw import draw_order, leader, next_seed
from protocols.ledger.envelope import Transaction
from protocols.ledger.handover import answer_challenges
from protocols.ledger.history import Peaks
from protocols.ledger.pool import MAY_BECOME_VALID
from protocols.ledger.profile import DEFAULT_POLICY, Cluster, Policy, check_clusters
from protocols.ledger.state import MemoryState
from protocols.ledger.terms import MINER, ORDER, Miner, Order, load_term, load_tip, seats_of, seats_trouble, slot_leader
from protocols.ledger.transactions import miner_certify, policy_list_update, term_handover
from protocols.ledger.transactions.cluster_define import Body as ClusterBody
from protocols.ledger.transition import next_term
from protocols.ledger.work import SearchTime, easiest_target, next_target, slowest_search_ms, work_of
from protocols.types import AccountId, BlockHash

from .chains import MEMBERS, Chain, account_of, certify, genesis_body, profile_of, start

IDS = [account_of(name) for name in "abcdefg"]


def test_equal_miners_get_equal_shares() -> None:
    """Goal: a random recorder per block. Method: 1,000 blocks of five live miners, chi-square at 1 % (13.28 for 4 degrees)."""
    counts: Counter[bytes] = Counter()
    parent = IDS[0]
    for slot in range(1, 1001):
        parent = leader(IDS[:5], sha256(b"seed"), slot=slot, parent_slot=slot - 1, parent_miner=parent)
        counts[parent] += 1
    assert sum((counts[miner] - 200) ** 2 / 200 for miner in IDS[:5]) < 13.28


@given(st.integers(1, 7), st.integers(0, 6), st.integers(0, 1 << 40), st.binary(max_size=4))
def test_one_live_miner_leads_at_least_every_time_it_may(miners: int, alive: int, parent_slot: int, seed: bytes) -> None:
    """Goal: a dead leader costs its slot, nothing else. Method: the one live miner leads one of the next slots, after its own block too."""
    line, us = IDS[:miners], IDS[alive % miners]
    wait = next(
        slot
        for slot in range(parent_slot + 1, parent_slot + 200)
        if leader(line, seed, slot=slot, parent_slot=parent_slot, parent_miner=us) == us
    )
    assert wait - parent_slot >= miners if miners > 1 else wait == parent_slot + 1
    for slot in range(parent_slot + 1, parent_slot + miners):
        assert miners == 1 or leader(line, seed, slot=slot, parent_slot=parent_slot, parent_miner=us) != us


def test_draw_prefers_the_rested_then_the_recommended_then_chance() -> None:
    """Goal: rotation first. Method: one draw; another seed orders otherwise; withheld reveals change the seed, zero ones do not."""
    people = [(name, index % 2 == 0) for index, name in enumerate(IDS)]
    order = draw_order(people, b"seed", IDS[:3])
    assert set(order[4:]) == set(IDS[:3])
    assert [dict(people)[name] for name in order[:4]] == sorted((dict(people)[name] for name in order[:4]), reverse=True)
    assert len({draw_order(people, bytes([number]), ()) for number in range(10)}) > 1
    assert next_seed(b"seed", [b"\1" * 32, bytes(32)]) == next_seed(b"seed", [b"\1" * 32]) != next_seed(b"seed", [])


def test_even_number_of_seats_is_warned_of_and_never_forced() -> None:
    """Goal: odd seats where nothing forces otherwise. Method: a state with each number of seats, limited by the policy list too; of every
    allowed division of an even number among up to five clusters one seat can be taken."""
    for seats, most, wanted in ((1, 9, ""), (2, 9, "2 seats"), (5, 9, ""), (6, 9, "6 seats"), (6, 5, ""), (7, 4, "4 seats")):
        body = genesis_body(profile=profile_of(), seats=seats, policy=replace(DEFAULT_POLICY, miners_max=most))
        found = seats_trouble(seats_of(start(body).state))
        assert found.startswith(wanted)
        assert bool(found) is bool(wanted)
    judged = 0
    for parts in product(range(6), repeat=5):
        if sum(parts) % 2 or not sum(parts) or not _is_allowed(parts):
            continue
        judged += 1
        fewer = list(parts)
        fewer[parts.index(max(parts))] -= 1
        assert _is_allowed(fewer)
    assert judged > 1000


def _is_allowed(parts: Sequence[int]) -> bool:
    try:
        check_clusters(tuple(Cluster(str(number), (), seats) for number, seats in enumerate(parts)))
    except InvalidTransaction:
        return False
    return True


# --- a chain that hands over --------------------------------------------------------------------------------------


def handover_body(chain: Chain, states: Sequence[MemoryState], name: str) -> term_handover.Body:
    """What a candidate that holds everything answers, shown on the tip."""
    term = load_tip(chain.state).term + 1
    line = [BlockHash(one.hash) for one in chain.blocks[:-1]]
    return answer_challenges(states[-1], chain.blocks[-1], account_of(name), term=term, hashes=line, block_at=chain.blocks.__getitem__)


class Rotating:
    """A chain of so many seats with the state of every height, whose drawn candidates hand over."""

    def __init__(self, miners: Sequence[str], seats: int, policy: Policy = DEFAULT_POLICY) -> None:
        self.chain = start(genesis_body(profile=profile_of(), miners=miners, seats=seats, policy=policy))
        self.states = [copy_of(self.chain.view)]
        self.handed: set[tuple[int, str]] = set()

    def step(self, *transactions: Transaction, handing: Sequence[str] = ()) -> None:
        chain = self.chain
        term = load_tip(chain.state).term + 1
        order = chain.state.load(ORDER, u64(term), Order)
        drawn = [] if order is None else [chain.names[name] for _, line in order.clusters for name in line]
        more = []
        for name in drawn:
            if name in handing and (term, name) not in self.handed and chain.state.get("handover", u64(term) + account_of(name)) is None:
                more.append(chain.by_key(name, "seal", "TermHandover", handover_body(chain, self.states, name)))
                self.handed.add((term, name))
        opens = next_term(chain.view, chain.slot + 1).opens
        chain.add(*transactions, *(() if opens else more))
        self.handed = self.handed if not opens else {one for one in self.handed if one[0] > term}
        self.states.append(copy_of(chain.view))


def copy_of(view: MemoryState) -> MemoryState:
    other = MemoryState()
    other.root, other.nodes = view.root, dict(view.nodes)
    other._values = {space: dict(values) for space, values in view._values.items()}
    other._order = {space: list(order) for space, order in view._order.items()}
    return other


def test_four_candidates_for_two_seats_never_serve_twice_in_a_row_over_20_terms() -> None:
    """Goal: periodic alternation without an operator; predecessors rest. Method: everybody hands over; lists of 20 terms."""
    world = Rotating(MEMBERS, seats=2)
    lists = []
    while load_tip(world.chain.state).term < 21:
        world.step(handing=MEMBERS)
        tip = load_tip(world.chain.state)
        if tip.blocks == 1 and tip.term >= 2:
            lists.append(set(load_term(world.chain.state, tip.term).miners))
    assert len(lists) == 20
    assert all(len(one) == 2 for one in lists)
    assert all(not one & other for one, other in pairwise(lists))
    assert len({frozenset(one) for one in lists}) > 1


@pytest.mark.parametrize("block_of_term", [3, 8])
def test_limit_of_the_policy_list_holds_from_the_next_term_on(block_of_term: int) -> None:
    """Goal: the council raises and lowers how many miners there are, and nobody else moves. Method: six candidates for five seats that all
    hand over, one allowed; 4, then 2 allowed, in force at the third block of a term, or its last: that term keeps its list, the next one
    has so many."""
    names = (*MEMBERS, "ann", "bob")
    world = Rotating(names, seats=5, policy=replace(DEFAULT_POLICY, miners_max=1))
    chain, found = world.chain, []

    def tip() -> tuple[int, int]:
        tip = load_tip(chain.state)
        return tip.term, tip.blocks

    def step_to(term: int, blocks: int) -> None:
        while tip() != (term, blocks):
            world.step(handing=names)

    def serving() -> int:
        return len(load_term(chain.state, load_tip(chain.state).term).miners)

    for number, allowed in enumerate((4, 2)):
        term = 3 + 2 * number
        step_to(term, 1)
        before, height = serving(), chain.height - 1 + block_of_term
        policy = replace(DEFAULT_POLICY, version=2 + number, miners_max=allowed)
        world.step(chain.by_council("PolicyListUpdate", policy_list_update.Body(height, policy)), handing=names)
        step_to(term, 8)
        assert policy_in_force(chain).miners_max == allowed
        assert serving() == before, "a list is never touched while it serves"
        step_to(term + 1, 1)
        found.append((before, serving()))
    assert found == [(1, 4), (4, 2)]


def policy_in_force(chain: Chain) -> Policy:
    found = chain.state.load("chain", b"policy", Policy)
    assert found is not None
    return found


def test_without_hand_overs_the_list_serves_on_under_the_next_seed() -> None:
    """Goal: a chain never stops for want of candidates. Method: nobody hands over; lists stay, seeds differ."""
    world = Rotating(MEMBERS, seats=2)
    seen = {}
    for _ in range(40):
        world.step()
        tip = load_tip(world.chain.state)
        seen[tip.term] = load_term(world.chain.state, tip.term)
    assert len(seen) >= 4
    assert len({term.miners for term in seen.values()}) == 1
    assert len({term.seed for term in seen.values()}) == len(seen)


def test_hand_over_with_any_wrong_answer_is_refused() -> None:
    """Goal: only who holds the chain may take over. Method: each answer altered, another's answers, not drawn, twice, another term."""
    world = Rotating((*MEMBERS, "ann"), seats=2)
    while world.chain.state.load(ORDER, u64(load_tip(world.chain.state).term + 1), Order) is None:
        world.step()
    world.step()
    world.step()
    chain = world.chain
    body = handover_body(chain, world.states, "a")
    other = handover_body(chain, world.states, "b")
    leaf = body.leaves[0]
    wrong = [
        replace(body, leaves=other.leaves),
        replace(body, leaves=body.leaves[:-1]),
        replace(body, keys=other.keys[::-1]),
        replace(body, keys=body.keys[:-1]),
        replace(body, peaks=encode(Peaks(0, ()))),
        replace(body, info=replace(body.info, state_root=bytes(32))),
        replace(body, leaves=(replace(leaf, history=leaf.history[1:]), *body.leaves[1:])),
        replace(body, leaves=(replace(leaf, header=chain.blocks[-1].header), *body.leaves[1:])),
        replace(body, height=-1),
        replace(body, info=replace(body.info, transaction_count=-1)),
        replace(body, leaves=(replace(leaf, info=replace(leaf.info, transaction_count=-1)), *body.leaves[1:])),
    ]
    for lie in wrong:
        with pytest.raises(InvalidTransaction) as caught:
            chain.make([chain.by_key("a", "seal", "TermHandover", lie)])
        assert caught.value.reason is Reason.INTEGRITY
    with pytest.raises(InvalidTransaction) as caught:
        chain.make([chain.by_key("a", "seal", "TermHandover", replace(body, height=chain.height + 1))])
    assert caught.value.reason in MAY_BECOME_VALID, "who judges may lack the block that who sends it has"
    with pytest.raises(InvalidTransaction) as caught:
        chain.make([chain.by_key("a", "seal", "TermHandover", replace(body, header=chain.blocks[1].header))])
    assert caught.value.reason is Reason.CONFLICT
    reasons = {
        Reason.NOT_ELIGIBLE: chain.by_key("a", "seal", "TermHandover", replace(body, term=body.term + 1)),
        Reason.UNEXPECTED_SIGNER: chain.by_key("a", "vote", "TermHandover", body),
    }
    for reason, transaction in reasons.items():
        with pytest.raises(InvalidTransaction) as caught:
            chain.make([transaction])
        assert caught.value.reason in (reason, Reason.NOT_SIGNED)
    chain.add(chain.by_key("a", "seal", "TermHandover", body))
    with pytest.raises(InvalidTransaction) as caught:
        chain.make([chain.by_key("a", "seal", "TermHandover", body, until_ms=chain.now_ms + 1000)])
    assert caught.value.reason is Reason.CONFLICT


def test_silence_opens_the_next_term_with_every_certified_candidate() -> None:
    """Goal: no set of dead miners stops a chain for ever. Method: a new candidate is certified, then nobody seals for rescue_slots."""
    chain = start(genesis_body(profile=profile_of(), miners=MEMBERS[:2], seats=2))
    chain.add(chain.by_council("MinerCertify", certify("ann")))
    just = chain.slot + chain.profile.rescue_slots
    assert not next_term(chain.view, just).is_rescue
    term = next_term(chain.view, just + 1)
    assert term.is_rescue
    assert set(term.miners) == {account_of(name) for name in ("a", "b", "ann")}
    for slot in range(just + 1, just + 20):
        if chain.names[leader_at(chain, slot)] == "ann":
            chain.add(slot=slot, miner="ann")
            break
    assert load_tip(chain.state).term == 1
    chain.run(20)
    assert set(load_term(chain.state, 1).miners) == set(term.miners)


def leader_at(chain: Chain, slot: int) -> AccountId:
    return slot_leader(chain.state, next_term(chain.view, slot), slot)


def test_dead_miners_are_counted_and_the_living_go_on() -> None:
    """Goal: a dead leader costs its slot and is known for it. Method: two of four are dead for a while, blocks carry transactions."""
    chain = start(term_blocks=50)
    dead = ("a", "b")
    for number in range(20):
        waiting = chain.by("ann", "RecordAnchor", chain.anchor("ann", f"r{number}"))
        slot = chain.slot + 1
        while chain.names[leader_at(chain, slot)] in dead:
            slot += 1
        chain.add(waiting, slot=slot)
    counters = {name: chain.state.load(MINER, account_of(name), Miner) for name in MEMBERS}
    assert all(miner is not None for miner in counters.values())
    missed = {name: miner.missed for name, miner in counters.items() if miner is not None}
    sealed = {name: miner.sealed for name, miner in counters.items() if miner is not None}
    assert min(missed[name] for name in dead) > 3
    assert missed["c"] == missed["d"] == 0
    assert sealed["a"] == sealed["b"] == 0
    assert sealed["c"] + sealed["d"] == 20


def test_withdrawn_and_revoked_candidates_are_out_at_the_next_draw() -> None:
    """Goal: certification is judged at the draw, never while a list serves. Method: withdraw one, watch list and order."""
    chain = start(genesis_body(profile=profile_of(), miners=MEMBERS, seats=4))
    withdrawal = miner_certify.Body("withdraw", account_of("a"), "", b"", b"", 0)
    chain.add(chain.by_council("MinerCertify", withdrawal))
    assert account_of("a") in next_term(chain.view, chain.slot + 1).miners
    chain.run(8)
    order = chain.state.load(ORDER, u64(2), Order)
    assert order is not None
    assert all(account_of("a") not in line for _, line in order.clusters)
    assert order.candidates == 3


def test_seats_follow_the_clusters_and_no_cluster_of_three_has_a_majority() -> None:
    """Goal: seats per cluster. Method: two more clusters; the third may not hold more than half."""
    chain = start(genesis_body(profile=profile_of(), miners=MEMBERS, seats=2))
    chain.add(chain.by_council("ClusterDefine", ClusterBody(Cluster("cn", (("country", "CN"),), 1))))
    with pytest.raises(InvalidTransaction) as caught:
        chain.add(chain.by_council("ClusterDefine", ClusterBody(Cluster("de", (("country", "DE"),), 5))))
    assert caught.value.reason is Reason.BAD_BODY
    chain.add(chain.by_council("ClusterDefine", ClusterBody(Cluster("de", (("country", "DE"),), 1))))
    with pytest.raises(InvalidTransaction) as caught:
        chain.add(chain.by_council("MinerCertify", certify("ann", "de")))
    assert caught.value.reason is Reason.NOT_ELIGIBLE


# --- work ---------------------------------------------------------------------------------------------------------


def test_target_follows_the_slowest_miner_within_its_clamp() -> None:
    """Goal: retarget formula in integers. Method: the numbers of the formula; one block of a miner says nothing; the clamp; the floor."""
    target = easiest_target(16)
    window = tuple(SearchTime(IDS[0], delay) for delay in (10, 70, 90)) + tuple(SearchTime(IDS[1], delay) for delay in (60, 80))
    assert slowest_search_ms(window) == 70
    assert slowest_search_ms((*window, SearchTime(IDS[2], 5000))) == 70
    assert slowest_search_ms(()) is None

    def after(delays: Sequence[SearchTime], height: int = 64) -> int:
        return next_target(target, delays, height=height, slot_ms=1000, work_bits_min=12)

    assert after(window) == target * 13 * 70 // 1000
    assert after(window, height=65) == target == after(())
    assert after([SearchTime(IDS[0], 900)] * 2) == 2 * target
    assert after([SearchTime(IDS[0], 1)] * 2) == target // 2
    floor = easiest_target(12)
    assert next_target(floor, [SearchTime(IDS[0], 900)] * 2, height=64, slot_ms=1000, work_bits_min=12) == floor
    assert work_of(easiest_target(12)) == 4096


def test_chain_retargets_at_its_64th_block() -> None:
    """Goal: the rule is applied where it is said to be. Method: 64 blocks whose T_stamps are 50 ms into their slots."""
    chain = start(seal="pow", work_bits_min=1, work_bits_first=2, term_blocks=100)
    chain.run(63)
    before = int.from_bytes(chain.blocks[-1].info.target, "big")
    chain.run(1)
    assert int.from_bytes(chain.blocks[-1].info.target, "big") == before * 13 * 50 // 1000
    assert decode_header(chain.blocks[-1].header).hash <= chain.blocks[-1].info.target
