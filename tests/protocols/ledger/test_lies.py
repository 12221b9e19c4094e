"""P18: bad transactions without end, each beside a good one that differs in one field; none is ever taken, each for its own reason."""

from __future__ import annotations

import os
import random
from collections import Counter

import pytest

from protocols.errors import InvalidTransaction, Reason
from protocols.ledger.envelope import Transaction, sign_transaction
from protocols.ledger.schedule import RULES_1
from protocols.ledger.transition import check_transaction

from .lies import RECIPES, LiesWorld, Recipe, lies_about

# A few thousand in every run; `make test-long` asks for 300,000, of which none accepted says: below 0.001 % with 95 % confidence.
LIES = int(os.environ.get("LADING_LIES", "4000"))
WORLD = LiesWorld()


def verdict(transaction: Transaction) -> Reason | None:
    """By the one function of pool, sealers, blocks and replay."""
    try:
        check_transaction(WORLD.chain.view, WORLD.chain.header, transaction, slot=WORLD.slot, chain=WORLD.chain.chain)
    except InvalidTransaction as error:
        return error.reason
    return None


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_no_lie_is_accepted_and_each_has_its_reason(recipe: Recipe) -> None:
    """Goal: malicious transactions are never accepted (P18). Method: twins drawn at random are accepted, every neighbour is refused."""
    rng = random.Random(recipe.__name__)
    root, wanted = WORLD.chain.view.root, -(-LIES // len(RECIPES))
    names: Counter[str] = Counter()
    while names.total() < wanted:
        twin = recipe(WORLD, rng)
        content = WORLD.content(twin, rng)
        assert verdict(sign_transaction(content, twin.signers)) is None, twin
        for lie in lies_about(WORLD, twin, content, rng):
            assert verdict(lie.transaction) is lie.reason, (lie.name, twin)
            names[lie.name] += 1
    assert len(names) >= 35, "every kind of lie about a transaction, and those about this body"
    assert WORLD.chain.view.root == root


def test_lies_are_about_every_kind_and_of_many_kinds() -> None:
    """Goal: the generator covers what it says. Method: kinds of the twins; names of the lies of one draw each."""
    rng = random.Random(1)
    twins = [recipe(WORLD, rng) for recipe in RECIPES]
    assert {twin.kind for twin in twins} == {kind.name for kind in RULES_1.kinds.values()} - {"ChainGenesis"}
    names = {lie.name for twin in twins for lie in lies_about(WORLD, twin, WORLD.content(twin, rng), rng)}
    assert len(names) >= 100


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.__name__)
def test_every_kind_is_undone_and_done_again_to_the_last_byte(recipe: Recipe) -> None:
    """Goal: state before, after, undo is the identity, for every kind. Method: a drawn twin in a block; values, nodes and root of the
    state before it, after it, taken back, done again; what it changes is more than an empty block does."""
    chain = WORLD.chain

    def everything() -> tuple[object, ...]:
        return chain.view.root, chain.view.items(), dict(chain.view.nodes)

    before = everything()
    empty = chain.make()
    chain.take(empty)
    plain = everything()
    chain.pop()
    rng = random.Random(f"undo {recipe.__name__}")
    for _ in range(3):
        twin = recipe(WORLD, rng)
        block = chain.make([sign_transaction(WORLD.content(twin, rng), twin.signers)])
        chain.take(block)
        after = everything()
        assert after not in (before, plain)
        chain.pop()
        assert everything() == before
        chain.take(block)
        assert everything() == after
        chain.pop()
    assert everything() == before
