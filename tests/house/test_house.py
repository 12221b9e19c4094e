"""The house as it stands keeps every rule (rules.py), and its SPECs say what its machines do (spec_tables.py)."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.house.rules import RULES
from tests.house.sources import FLOORS, House
from tests.house.spec_tables import disagreements_of_all_rooms

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    gc.disable()  # the trees are millions of objects, none of which any collection could free
    yield House.read(ROOT)
    gc.enable()


def test_every_floor_is_read(house: House) -> None:
    """Goal: the rules below look at something. Method: each floor has modules, and a known import is seen."""
    assert {name.split(".")[0] for name in house.modules} == set(FLOORS)
    assert "protocols.errors" in {target for target, _ in house.targets(house.modules["protocols.codec"])}


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_house_keeps(rule: Callable[[House], Iterator[str]], house: House) -> None:
    """Goal: no rule is broken. Method: syntax trees of all sources."""
    broken = list(rule(house))
    assert not broken, "\n" + (rule.__doc__ or "") + "\n" + "\n".join(broken)


def test_specs_agree_with_tables() -> None:
    """Goal: people and machines read the same table. Method: parse each SPEC.md, compare with TABLE of the classes beside it."""
    broken = list(disagreements_of_all_rooms(ROOT))
    assert not broken, "\n" + "\n".join(broken)
