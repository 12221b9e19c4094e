"""Nodes that begin at an anchor, nodes that keep part of the history, and what liars may do to them."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from protocols.crypto import sha256
from protocols.ledger.block import Block
from protocols.ledger.checks import u64
from protocols.ledger.snapshot import NodeAt, StateNode
from protocols.ledger.sync import HeaderRow
from protocols.ledger.votes import Checkpoint
from protocols.types import BlockHash
from storage import chain as store
from storage.tables import CHAIN_BLOCKS, CHAIN_CROSSINGS, CHAIN_TREES
from tests.protocols.ledger import chains

from .chain_world import ChainWorld, Seat
from .scheduler import chance, seeds
from .test_chain import first_final, life

NEW = "0new"  # smaller than every other name: it dials


async def grow(world: ChainWorld, blocks: int) -> None:
    """So many more blocks at least, the last of them final."""
    height = min(world.final_heights()) + blocks
    while min(world.final_heights()) < height:
        at = min(world.final_heights())
        await world.submit("a")
        await world.until(lambda at=at: min(world.final_heights()) > at, within_s=120, what="another final block")  # type: ignore[misc]


def kept(seat: Seat) -> tuple[int, int]:
    """Lowest height whose body is here, and how many bodies are."""
    with seat.engine.snapshot() as snapshot:
        return store.lowest_height(snapshot), snapshot.count(CHAIN_BLOCKS)


@pytest.mark.parametrize("seed", seeds((41, 42, 43)))
def test_newcomer_begins_at_its_anchor_with_that_blocks_state_and_follows(seed: int) -> None:
    """Goal: nobody fetches history to take part. Method: a chain of some terms, an anchor a little behind its head, cuts meanwhile."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await grow(world, 12)
        anchor = world.seats["a"].chain.checkpoints()[1]
        await grow(world, 3)
        new = world.newcomer(NEW, anchor)
        new.heights_kept = 100  # no archive: history is not wanted
        rng = chance(seed, "cuts")
        await new.start()
        for _ in range(6):
            await trio.sleep(rng.random())
            world.network.reset(new.peer, world.seats[rng.choice("abcd")].peer)
        if rng.random() < 0.5:
            await new.kill()
            await new.start()
        await world.until(lambda: new.chain.checkpoints()[1].height >= anchor.height + 3, within_s=120, what="the newcomer follows")
        lowest, bodies = kept(new)
        assert lowest == anchor.height
        assert bodies <= 8, "no history came with it"
        await world.submit(NEW)
        await world.agree()

    life(seed, story)


def test_archive_that_began_at_an_anchor_fetches_its_history_afterwards() -> None:
    """Goal: history comes in the background, authentic by its hashes. Method: a newcomer begins at an anchor; in the end it has every
    block, byte for byte, and gives them to the next one, which is connected to it alone."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await grow(world, 25)
        new = world.newcomer(NEW, world.seats["a"].chain.checkpoints()[1])
        await new.start()
        await world.until(lambda: new.chain.tree is not None and new.chain.lowest_height == 0, within_s=200, what="all history")
        assert kept(new)[0] == 0
        await world.agree()
        for seat in (new, world.seats["a"]):
            await seat.kill()
            seat.engine.restart()
        with new.engine.snapshot() as ours, world.seats["a"].engine.snapshot() as theirs:
            for height in range(25):
                name = store.blocks_at(ours, height)
                assert name == store.blocks_at(theirs, height)
                assert store.body(ours, name[0]) == store.body(theirs, name[0])
                mine, other = store.row(ours, name[0]), store.row(theirs, name[0])
                assert mine is not None
                assert other is not None
                assert (mine.work, mine.committee, mine.parent) == (other.work, other.committee, other.parent)
        await new.start()
        await world.seats["a"].start()
        next_one = world.newcomer("00next", None)
        world.network.partition([next_one.peer, new.peer], [world.seats[name].peer for name in "abcd"])
        await next_one.start()
        await world.until(lambda: next_one.chain.checkpoints()[0].height >= 25, within_s=60, what="history out of the newcomer")
        world.network.heal_all()
        await trio.sleep(15)
        await world.submit("a")
        await world.agree()

    life(47, story)


def test_snapshot_with_a_lie_in_it_costs_its_sender_and_the_others_give_the_rest() -> None:
    """Goal: a state needs nobody's trust. Method: one of four answers every question with another value in a leaf."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await grow(world, 5)
        liar = world.seats["b"]
        honest = liar.chain.state_nodes

        async def lie(at: Checkpoint, wanted: Sequence[NodeAt]) -> tuple[tuple[StateNode, ...], tuple[bytes, ...]]:
            nodes, lacking = await honest(at, wanted)
            return tuple(StateNode(one.node, one.space, one.key, one.value + b"!") if one.is_leaf else one for one in nodes), lacking

        liar.chain.state_nodes = lie  # type: ignore[method-assign]
        new = world.newcomer(NEW, world.seats["a"].chain.checkpoints()[1])
        await new.start()
        await world.until(lambda: new.chain.checkpoints()[1].height > 5, within_s=120, what="the newcomer follows")
        assert new.node is not None
        await world.agree()
        assert any(peer == liar.peer and "another key or value" in why for peer, why in new.node.connections.dropped)

    life(44, story)


def test_anchor_that_nobody_has_a_state_for_falls_back_to_history_and_a_wrong_one_never_ends() -> None:
    """Goal: an old anchor is slower, a false one is noticed. Method: the others forget old states; an anchor at height 1; one of
    another hash at a height that the chain has."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await grow(world, 4)
        with world.seats["a"].engine.snapshot() as snapshot:
            old = Checkpoint(1, store.blocks_at(snapshot, 1)[0])
        for seat in world.live():
            with seat.engine.snapshot() as snapshot:
                key = u64(old.height) + old.hash
                assert snapshot.has(CHAIN_TREES, key)
            seat.forget(CHAIN_TREES, [key])
        late = world.newcomer(NEW, old)
        wrong = world.newcomer("0wrong", Checkpoint(3, BlockHash(sha256(b"invented"))))
        await late.start()
        await wrong.start()
        await world.until(lambda: late.chain.checkpoints()[1].height >= 4, within_s=300, what="history instead of a snapshot")
        assert "anchor" in late.chain.alerts
        assert kept(late)[0] == 0
        await trio.sleep(120)
        assert wrong.chain.checkpoints()[0].height == 2, "the block at the anchor's height is another: nothing above it is followed"
        await wrong.kill()
        del world.seats["0wrong"]
        await world.agree()

    life(45, story)


def test_node_that_prunes_keeps_its_part_and_says_what_it_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a bounded disk. Method: b keeps four heights, and everybody three states; a newcomer without an anchor, connected to b alone,
    gets nothing and is told so; connected to all it gets everything."""

    monkeypatch.setattr(store, "STATES_KEPT", 3)

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.seats["b"].kill()
        world.seats["b"].heights_kept = 4
        await world.seats["b"].start()
        await grow(world, 12)
        await world.agree()
        final = world.seats["b"].chain.checkpoints()[1].height
        lowest, bodies = kept(world.seats["b"])
        assert lowest == final - 4
        assert bodies == 5 + world.seats["b"].chain.checkpoints()[0].height - final
        with world.seats["b"].engine.snapshot() as snapshot:
            crossings = snapshot.count(CHAIN_CROSSINGS)
            assert crossings == 2 + world.seats["b"].chain.checkpoints()[0].height - final + 1, "of kept states alone"
            oldest = next(key for key, _ in snapshot.scan(CHAIN_TREES))
            assert int.from_bytes(oldest[:8], "big") == final - 3, "what the third state needs, and no more"
        new = world.newcomer(NEW, None)
        others = [world.seats[name].peer for name in "acd"]
        world.network.partition([new.peer], others)
        await new.start()
        await trio.sleep(60)
        assert new.node is not None
        assert new.chain.tree is None
        assert not new.node.connections.dropped, "pruned is an answer, no fault"
        world.network.heal_all()
        await world.until(lambda: new.chain.checkpoints()[1].height >= final, within_s=120, what="history from the others")
        assert kept(new)[0] == 0
        await world.agree()

    life(46, story)


def test_bodies_of_one_page_come_from_several_peers() -> None:
    """Goal: no peer carries a sync alone. Method: a newcomer without an anchor and four peers; who gave how many bodies."""
    given: dict[str, int] = {}

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await grow(world, 60)
        for seat in world.live():
            watch_bodies(seat, given)
        new = world.newcomer(NEW, None)
        await new.start()
        height = min(seat.chain.checkpoints()[1].height for seat in world.live() if seat is not new)
        await world.until(lambda: new.chain.checkpoints()[1].height >= height, within_s=60, what="all blocks")
        assert sum(given.values()) <= height + 20, "hardly a body twice"
        assert sum(count >= 10 for count in given.values()) >= 2
        await world.agree()

    life(48, story)


def watch_bodies(seat: Seat, given: dict[str, int]) -> None:
    """Counts bodies that this node gives."""
    honest = seat.chain.blocks

    async def blocks(hashes: Sequence[bytes]) -> tuple[Block, ...]:
        found = await honest(hashes)
        given[seat.name] = given.get(seat.name, 0) + len(found)
        return found

    seat.chain.blocks = blocks  # type: ignore[method-assign]


@pytest.mark.parametrize("says_so", [True, False])
def test_withheld_bodies_stop_nobody(says_so: bool) -> None:
    """Goal: who shows headers and keeps the bodies costs little time. Method: three of four peers show all headers; one says that it has no
    body, another too, or both never answer."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await grow(world, 40)

        async def withhold(hashes: Sequence[bytes]) -> tuple[Block, ...]:
            if not says_so:
                await trio.sleep_forever()
            return ()

        for name in "ab":
            world.seats[name].chain.blocks = withhold  # type: ignore[method-assign]
        new = world.newcomer(NEW, None)
        await new.start()
        height = world.seats["c"].chain.checkpoints()[1].height
        await world.until(lambda: new.chain.checkpoints()[1].height >= height, within_s=90, what="all blocks")

    life(49, story)


def test_fork_that_a_retired_committee_made_final_is_not_followed_from_an_anchor_after_it() -> None:
    """Goal: keys that have no say any more cannot make history for those who were told of it. Method: with all keys of the first
    committee and its miners, stolen after they were retired, a longer chain from genesis is made and finalised; of two newcomers that talk
    to the forger alone one without an anchor takes it all, one with an anchor nothing from there on; with honest peers it begins there."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await grow(world, 6)
        anchor = world.seats["a"].chain.checkpoints()[1]
        forged = forge(world, 40)
        forger = world.newcomer("1forger", None)
        forger.knows_genesis = True
        fooled, told = world.newcomer("00fooled", None), world.newcomer(NEW, anchor)
        honest = [world.seats[name].peer for name in "abcd"]
        world.network.partition([forger.peer, fooled.peer, told.peer], honest)
        world.note_final = lambda *_: None  # type: ignore[method-assign]  # there are two truths now, which is the point
        forger.clock.step(100)
        await forger.start()
        await trio.sleep(1)
        for block in forged.blocks[1:]:
            await forger.chain.take_block(block, None, eager=False)
        assert forger.chain.checkpoints()[1].height > 30
        fooled.clock.step(100)
        told.clock.step(100)
        await fooled.start()
        await told.start()
        await world.until(lambda: fooled.chain.checkpoints()[1].height > 30, within_s=60, what="without an anchor one believes it")
        await trio.sleep(200)
        assert told.chain.checkpoints()[0].height < anchor.height, "at the anchor's height it stops"
        for seat in (forger, fooled):
            await seat.kill()
            del world.seats[seat.name]
        await told.kill()
        told.lose_database()
        world.network.heal_all()
        await told.start()
        await world.until(lambda: told.chain.checkpoints()[1].height >= anchor.height, within_s=60, what="the chain it was told of")
        await world.agree()

    life(50, story)


def forge(world: ChainWorld, blocks: int) -> chains.Chain:
    """Another chain on the same genesis, by all the keys of its first committee and miners."""
    chain = chains.start(chains.genesis_body(profile=world.template.profile), members=world.template.members, miners=world.template.miners)
    assert chain.chain == world.chain_id
    chain.run(blocks, voting=True)
    return chain


def test_peers_that_feed_headers_slowly_delay_nobody() -> None:
    """Goal: a slow page costs its own stream alone. Method: two of four peers answer for headers after 15 s, within patience; a newcomer
    without an anchor has the chain long before that."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await grow(world, 40)
        for name in "ab":
            slow_headers(world.seats[name])
        new = world.newcomer(NEW, None)
        await new.start()
        height = world.seats["c"].chain.checkpoints()[1].height
        await world.until(lambda: new.chain.checkpoints()[1].height >= height, within_s=12, what="all blocks")
        await trio.sleep(30)
        await world.submit("c")
        await world.agree()

    life(70, story)


def slow_headers(seat: Seat) -> None:
    honest = seat.chain.headers_after

    async def slowly(locator: Sequence[bytes]) -> tuple[tuple[HeaderRow, ...], int]:
        await trio.sleep(15)
        return await honest(locator)

    seat.chain.headers_after = slowly  # type: ignore[method-assign]
