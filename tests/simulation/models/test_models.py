"""Each model over many seeds, and each with a planted bug that its checker must catch."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.simulation.models import deleting, dropping, duty
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
