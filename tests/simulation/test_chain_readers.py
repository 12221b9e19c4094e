"""Who may read a chain: its profile says it in the first block, and every node that has the chain heeds it."""

from __future__ import annotations

import pytest
import trio

from protocols.ledger.profile import Access
from protocols.ledger.transactions import miner_certify
from tests.protocols.ledger import chains

from .chain_world import ChainWorld
from .test_chain import life
from .test_chain_hostile import finality_goes_on

READERS = ("ann", "bob")
"""ann: of the members' domain, with an account and no seat. bob: of another domain."""


async def begun(world: ChainWorld) -> None:
    """Finality among the members, long enough for everybody else to ask."""
    await trio.sleep(15)
    await finality_goes_on(world, "abcd", times=2)
    await trio.sleep(15)


def has(world: ChainWorld, name: str) -> bool:
    """Whether this node has anything of the chain."""
    return world.seats[name].chain.head() is not None


def talks(world: ChainWorld, name: str) -> bool:
    """Whether a member of the council has a conversation about the chain with this node."""
    nodes = [world.seats[member].node for member in "abcd"]
    return any(world.seats[name].peer in node.talks.ends for node in nodes if node is not None)


@pytest.mark.parametrize(("read", "readers"), [("public", "ann bob"), ("consortium", "ann"), ("private", "")])
def test_chain_is_read_by_whom_its_profile_names(read: Access, readers: str) -> None:
    """Goal: three classes of chains. Method: four members, a node of their domain and one of another, both asking; who may has the members'
    head and state, who may not has no block and no conversation. The members' finality is the same."""

    async def story(world: ChainWorld) -> None:
        await begun(world)
        found = [name for name in READERS if has(world, name)]
        assert found == readers.split()
        assert [name for name in READERS if talks(world, name)] == found
        await world.submit("a")
        members = [world.seats[name] for name in (*"abcd", *found)]
        await world.until(lambda: len({seat.chain.checkpoints() for seat in members}) == 1, within_s=60, what="one head")
        assert len({seat.root() for seat in members}) == 1

    life(71, story, watchers=READERS, strangers={"bob"}, read=read)


def test_private_chain_is_read_by_whoever_maintains_it_and_no_longer() -> None:
    """Goal: who reads follows from the state. Method: the council certifies ann as a miner: ann comes to have the chain and is a part of
    it; it withdraws that: the conversations end, and of later blocks ann hears nothing. bob, of another domain, is certified too, and hears
    nothing."""

    async def story(world: ChainWorld) -> None:
        await begun(world)
        ann = world.seats["ann"]
        for name in READERS:
            await world.act("MinerCertify", chains.certify(name))
        await world.until(lambda: has(world, "ann"), within_s=60, what="ann has the chain")
        await finality_goes_on(world, "abcd")
        await world.until(lambda: ann.chain.checkpoints() == world.seats["a"].chain.checkpoints(), within_s=60, what="ann is with them")
        assert talks(world, "ann")
        await world.act("MinerCertify", miner_certify.Body("withdraw", chains.account_of("ann"), "", b"", b"", 0))
        await world.until(lambda: not talks(world, "ann"), within_s=60, what="the end of ann's conversations")
        await trio.sleep(5)
        height = ann.chain.checkpoints()[0].height
        await finality_goes_on(world, "abcd")
        await trio.sleep(30)
        assert world.seats["a"].chain.checkpoints()[0].height > height
        assert ann.chain.checkpoints()[0].height == height
        assert not has(world, "bob")

    life(72, story, watchers=READERS, strangers={"bob"}, read="private")
