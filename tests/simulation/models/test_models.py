"""Each model over many seeds, and each with a planted bug that its checker must catch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from protocols.ledger import network_time as rules
from tests.simulation.models import anchoring, clocks, deleting, dropping, duty, finalising, network_time, spreading
from tests.simulation.models.chaos import ModelBroken


def is_caught(run: Callable[[int], object], seeds: int) -> bool:
    for seed in range(seeds):
        try:
            run(seed)
        except ModelBroken:
            return True
    return False


def test_surplus_holders_never_rely_on_each_other() -> None:
    """Goal: as many copies as anybody wanted, whatever is lost, doubled, crashed or cut. Method: 150 seeds; copies do get dropped."""
    assert sum(dropping.run(seed) for seed in range(150)) > 50


@pytest.mark.parametrize("bug", ["signs_always", "takes_old"])
def test_checker_of_dropping_catches(bug: str) -> None:
    """Goal: the checker can fail. Method: receipts signed after one's own withdrawal; old receipts taken for answers."""
    assert is_caught(lambda seed: dropping.run(seed, signs_always=bug == "signs_always", takes_old=bug == "takes_old"), 500)


def test_puts_and_deletes_merge_alike_everywhere() -> None:
    """Goal: one verdict, nothing deleted comes back, nothing else is lost. Method: 150 seeds."""
    puts, deletes = (sum(column) for column in zip(*(deleting.run(seed) for seed in range(150)), strict=True))
    assert puts > 300
    assert deletes > 50


@pytest.mark.parametrize("judge", [deleting.judge_by_number_alone, deleting.judge_by_follows_alone, deleting.judge_by_arrival])
def test_checker_of_deleting_catches(judge: deleting.Judge) -> None:
    """Goal: the checker can fail. Method: three ways of judging that look right."""
    assert is_caught(lambda seed: deleting.run(seed, judge=judge), 300)


def test_somebody_always_copies() -> None:
    """Goal: whoever is dead or frozen, the next takes over; nothing is sent twice without need. Method: 25 seeds each."""
    for seed in range(25):
        duty.run(seed)
        duty.run(seed, quiet=True)


def test_checker_of_duty_catches() -> None:
    """Goal: the checker can fail. Method: nobody ever takes over; everybody copies at once."""
    assert is_caught(lambda seed: duty.run(seed, takeover_s=1e9), 25)
    assert is_caught(lambda seed: duty.run(seed, takeover_s=0.0, quiet=True), 25)


def test_one_lying_member_moves_no_clock_and_nobody_raises_a_floor() -> None:
    """Goal: one member, with however many nodes, sets nobody's time; no floor stands in the future because of what members say; who hears
    two honest ones has the time. Method: 150 seeds with no liar and with one; two boards without battery, one set years ahead."""
    for seed in range(150):
        assert clocks.run(seed, liars=0) == 2
        assert clocks.run(seed, liars=1) == 2


def test_two_lying_members_move_a_clock_below_its_floor_but_no_floor() -> None:
    """Goal: the stated limit, and no more than it. Method: 150 seeds with two that agree on one lie; no floor of an honest clock follows,
    though the time that is used somewhere does."""
    for seed in range(150):
        clocks.run(seed, liars=2)


@pytest.mark.parametrize("bug", ["anybody", "whatever"])
def test_checker_of_clocks_catches_wrong_agreement(bug: str) -> None:
    """Goal: the checker can fail. Method: one member's word is enough; what is agreed on becomes the floor."""
    agree = clocks.agree_with_anybody if bug == "anybody" else clocks.agree_whatever_the_clock
    assert is_caught(lambda seed: clocks.run(seed, liars=1 if bug == "anybody" else 2, agree=agree), 100)


def test_checker_of_clocks_catches_a_floor_that_follows_any_clock() -> None:
    """Goal: the checker can fail. Method: our own clock is written down unasked, and one of them is far ahead."""
    assert is_caught(lambda seed: clocks.run(seed, liars=0, write=clocks.write_the_clock), 5)


@pytest.mark.parametrize(("members", "liars"), [(2, 0), (3, 0), (4, 1), (5, 1), (7, 2)])
def test_final_blocks_never_conflict_and_finality_goes_on_after_healing(members: int, liars: int) -> None:
    """Goal: safety with the stated liars under loss, crash, lost databases, partition; liveness soon after. Method: 4 seeds."""
    for seed in range(4):
        assert finalising.run(seed, members=members, liars=liars) > 3


@pytest.mark.parametrize("liars", [0, 1])
def test_committee_is_replaced_whole_and_finality_goes_on(liars: int) -> None:
    """Goal: the links across a change hold both committees. Method: four members are replaced by four others, 4 seeds."""
    for seed in range(4):
        assert finalising.run(seed, members=4, liars=liars, change=True) > 10


def test_checker_of_finalising_catches() -> None:
    """Goal: the checker can fail. Method: half of the members are a quorum; members forget their promises with their database;
    sealers carry votes above their own final block only, so that the state falls behind for ever."""
    small = finalising.Bugs(small_quorum=True)
    assert is_caught(lambda seed: finalising.run(seed, members=4, bugs=small), 20)
    forgetful = finalising.Bugs(forgets_promises=True)
    assert is_caught(lambda seed: finalising.run(70 + seed, members=4, liars=1, bugs=forgetful), 10)
    short = finalising.Bugs(carries_its_own_only=True)
    assert is_caught(lambda seed: finalising.run(15 + seed, members=4, liars=1, bugs=short), 3)


def test_one_live_miner_carries_the_chain_on() -> None:
    """Goal: dead miners slow a chain, they never stop it. Method: all but one of four are dead; a block for each lonely period
    and twice as many slots as there are miners, since it leads one slot of four once its own are over."""
    for seed in range(4):
        assert finalising.run_alone(seed, members=4, slots=120) >= 120 // (finalising.LONELY_SLOTS + 8)


def test_every_published_record_is_anchored_once_and_then_nobody_speaks() -> None:
    """Goal: nothing published is lost to the chain, nothing is there twice or says what nobody asked for, a quiet day is quiet. Method:
    two nodes of one owner, blocks taken back, crashes, cuts, evictions, ended transactions; 100 seeds."""
    assert sum(anchoring.run(seed) for seed in range(100)) > 1000


@pytest.mark.parametrize("rule", [anchoring.block_is_enough, anchoring.once_made_is_made, anchoring.always_anew, anchoring.anybody_may])
def test_checker_of_anchoring_catches(rule: anchoring.Rule) -> None:
    """Goal: the checker can fail. Method: a block is taken for final; what was evicted is waited for; a new one is made at every look;
    what another node published is anchored by a guess."""
    assert is_caught(lambda seed: anchoring.run(seed, rule=rule), 100)


def test_checker_of_anchoring_catches_what_is_only_remembered() -> None:
    """Goal: the checker can fail. Method: after a crash a node looks at what comes new alone."""
    assert is_caught(lambda seed: anchoring.run(seed, forgets=True), 100)


@pytest.mark.parametrize("count", [5, 20, 60])
def test_every_fact_reaches_every_node_though_lines_break(count: int) -> None:
    """Goal: delivered means all, in a full mesh and where few are told. Method: 40 facts, a fifth of the lines breaks meanwhile; without
    reconciling after they are back some would miss."""
    for seed in range(3):
        world = spreading.Spreading(count, seed)
        world.publish(40, 20)
        world.break_lines(0.2, 2.0)
        outcome = world.run(40)
        assert outcome.delivered == outcome.wanted
        assert outcome.degree_max <= 20


def test_checker_of_spreading_catches() -> None:
    """Goal: the count can fail. Method: the run ends before the last facts were told."""
    world = spreading.Spreading(20, 1)
    world.publish(40, 20)
    outcome = world.run(2.5)
    assert outcome.delivered < outcome.wanted


@pytest.mark.parametrize("members", [4, 5])
@pytest.mark.parametrize("lie", [None, *network_time.LIES])
def test_members_without_time_servers_stay_within_a_fifth_of_a_second(members: int, lie: network_time.Lie | None) -> None:
    """Goal: the plan's bound: four or five members, quartzes of ±50 ppm, one liar: at most 204 ms. Method: two hours, in which alone they
    would part by 720 ms; each way of lying."""
    assert network_time.steady_members(1, members, lie=lie, hours=2) <= network_time.SPREAD_MS_MAX


def test_liar_among_three_keeps_the_others_apart_by_their_quartz_alone() -> None:
    """Goal: the stated limit: not cured, and not worse than no agreement. Method: each is told that it is right: 360 ms an hour; any other
    lie does less."""
    apart = network_time.steady_members(1, 3, lie=network_time.keeps_apart, hours=3)
    assert network_time.SPREAD_MS_MAX < apart <= 1_200
    for lie in (network_time.pulls_apart, network_time.is_far, network_time.is_anything):
        assert network_time.steady_members(1, 3, lie=lie, hours=1) <= network_time.SPREAD_MS_MAX


def test_members_find_one_time_again_after_every_fault() -> None:
    """Goal: cuts, standstills, starts with any clock, clocks that are set, one liar: all act again and near each other, unattended.
    Method: 4 seeds each."""
    for seed in range(4):
        network_time.disturbed(seed, members=4, lie=None)
        network_time.disturbed(seed, members=4)
        network_time.disturbed(seed, members=5, lie=network_time.pulls_apart)


def test_checker_of_network_time_catches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the checker can fail. Method: no end is dropped, so that one liar moves all; nobody ever listens again."""
    with monkeypatch.context() as patch:
        patch.setattr(rules, "estimate", lambda values: (min(values) + max(values)) // 2)
        assert network_time.steady_members(1, 4, lie=network_time.pulls_apart, hours=0.5) > network_time.SPREAD_MS_MAX
    with monkeypatch.context() as patch:
        patch.setattr(rules, "TIME_STEP_MS", rules.TIME_JUMP_MS_MAX)
        assert is_caught(lambda seed: network_time.disturbed(seed, members=4, lie=None), 6)
