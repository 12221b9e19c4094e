"""The chain among nodes: agreement under loss, partitions and crashes; dead miners; lost and damaged databases; broken promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from node.actors.chain import AHEAD_TRANSACTIONS_MIN
from protocols import codec
from protocols.crypto import sha256
from protocols.errors import LadingError, Reason, RemoteError, Undecided, Verdict
from protocols.ledger.envelope import Transaction
from protocols.ledger.network_time import TimeState
from protocols.ledger.transactions import folder_update
from protocols.types import UnixMillis
from storage import chain as store
from storage.tables import CHAIN_STATE
from tests.protocols.ledger import chains

from .chain_world import ChainedWorld, ChainWorld, ForgetfulPromises
from .checkers import Violation
from .scheduler import SimulationFailed, chance, first_cause, run_world, seeds
from .test_world import CALM
from .trace import Trace
from .world import tell

WORLD_S_MAX = 3600.0


def life(seed: int, story: Callable[[ChainWorld], Awaitable[None]], **options: object) -> str:
    """The trace's hash of a world with this story."""

    async def world(number: int, trace: Trace) -> None:
        there = ChainWorld(number, trace, **options)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            there.nursery = nursery
            for seat in there.seats.values():
                await seat.start()
            await story(there)
            there.check_accusations()
            nursery.cancel_scope.cancel()

    return run_world(world, seed, virtual_seconds_max=WORLD_S_MAX)[1]


async def first_final(world: ChainWorld) -> None:
    await trio.sleep(15)
    await world.submit("a")
    await world.until(lambda: min(world.final_heights()) >= 1, within_s=60, what="a first final block")


def test_a_transaction_becomes_final_everywhere_and_then_all_is_quiet() -> None:
    """Goal: the thinnest complete path. Method: four members, a watcher without genesis; a transaction; a quiet minute."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.agree()
        heights = {seat.chain.checkpoints()[0].height for seat in world.live()}
        await trio.sleep(60)
        assert {seat.chain.checkpoints()[0].height for seat in world.live()} == heights
        assert len(world.live()) == 5

    life(1, story, watchers=("w",))


def test_proof_of_work_is_searched_in_steps() -> None:
    """Goal: the same by work. Method: three members, the seal of twelve bits."""
    life(2, first_final, members=("a", "b", "c"), seal="pow")


# 504: a hand-over that came too late lay in the pool of a node without a seat for good.
@pytest.mark.parametrize("seed", seeds((0, 1, 2, 3, 4, 5, 504)))
def test_all_agree_on_final_blocks_and_states_after_faults(seed: int) -> None:
    """Goal: nothing of the world splits the chain for long. Method: two minutes of cuts, partitions, resets and kills, then peace."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.disturb(120, rng=chance(seed, "faults"))
        await trio.sleep(15)
        await world.submit("b")
        await world.agree(within_s=600)

    life(seed, story)


def test_chain_goes_on_when_a_miner_is_killed() -> None:
    """Goal: a dead leader costs its slots and nothing else. Method: one of four is killed; two more transactions; it comes back."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.seats["d"].kill()
        for name in ("a", "b"):
            height = min(world.final_heights())
            await world.submit(name)
            await world.until(lambda height=height: min(world.final_heights()) > height, within_s=120, what="finality without one")  # type: ignore[misc]
        await world.seats["d"].start()
        await trio.sleep(5)
        await world.agree()

    life(6, story)


def test_node_that_was_away_learns_from_the_blocks_what_became_final() -> None:
    """Goal: finality comes with the chain. Method: one is cut off until the others have forgotten votes that it lacks, and comes back."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.agree()
        away, others = world.seats["d"], [world.seats[name] for name in "abc"]
        world.network.partition([away.peer], [seat.peer for seat in others])
        lacks = away.chain.checkpoints()[0].height + 1

        def final() -> int:
            return min(seat.chain.checkpoints()[1].height for seat in others)

        for _ in range(8):
            height = final()
            await world.submit("a")
            await world.until(lambda height=height: final() > height, within_s=120, what="finality without it")  # type: ignore[misc]
        assert not any(vote.target.height == lacks for seat in others for vote in seat.chain.votes.values())
        height = final()
        world.network.heal_all()
        await world.until(lambda: away.chain.checkpoints()[1].height >= height, within_s=60, what="finality of the one that was away")
        await world.agree()

    life(11, story)


def test_lost_or_damaged_database_is_fetched_again_to_the_same_state() -> None:
    """Goal: the chain is on the others too. Method: one node's database is lost, in another's a bit of the state is flipped."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.agree()
        before = world.seats["a"].state()
        await world.seats["b"].kill()
        world.seats["b"].lose_database()
        await world.seats["b"].start()
        await world.seats["c"].kill()
        world.seats["c"].engine.restart()
        with world.seats["c"].engine.snapshot() as snapshot:
            key = next(key for key, value in snapshot.scan(CHAIN_STATE) if value)
        world.seats["c"].engine.flip_bit(CHAIN_STATE, key)
        await world.seats["c"].start()
        await world.until(lambda: len({seat.chain.checkpoints()[0] for seat in world.live()}) == 1, within_s=60, what="the same head")
        assert "chain" in world.seats["c"].chain.alerts
        assert world.seats["b"].state() == before == world.seats["c"].state()
        await trio.sleep(15)
        await world.submit("b")
        await world.agree()

    life(7, story)


def test_old_copy_of_promises_is_noticed_and_ends_the_vote() -> None:
    """Goal: a home restored from a backup never contradicts itself. Method: a seat's promises are copied, it votes on, then it comes back
    with the copy and without its database; others show its later votes; it says so, votes no more, also after a restart; others go on."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        restored = world.seats["d"]
        copy = restored.promises.data
        await world.submit("a")
        await world.agree()
        before = set(world.said[restored.keys.account])
        await restored.kill()
        restored.lose_database()
        restored.promises.data = copy
        for _ in range(2):
            await restored.start()
            await trio.sleep(15)
            await world.submit("b")
            await world.agree()
            assert "promises" in restored.chain.alerts
            assert set(world.said[restored.keys.account]) == before
            await restored.kill()
        await restored.start()

    life(9, story)


async def everybody_loses_the_database(world: ChainWorld) -> None:
    await first_final(world)
    world.final.clear()  # what is lost everywhere contradicts nobody; what was said stays said
    for seat in world.seats.values():
        await seat.kill()
        seat.lose_database()
    for seat in world.seats.values():
        await seat.start()
    await trio.sleep(20)
    try:
        await world.submit("a")
    except LadingError:
        return
    await trio.sleep(60)


def test_promises_outlive_databases() -> None:
    """Goal: a deleted database never makes a node vote twice. Method: all four lose theirs and begin anew at genesis."""
    life(8, everybody_loses_the_database)


def test_promise_that_is_not_on_the_disk_before_the_vote_leaves_is_noticed() -> None:
    """Goal: the checker can fail. Method: the same story with promises that are never written."""
    with pytest.raises(SimulationFailed) as failure:
        life(8, everybody_loses_the_database, promises=ForgetfulPromises)
    cause = first_cause(failure.value)
    assert isinstance(cause, Violation)
    assert "said two things" in str(cause)


def test_bad_blocks_cost_their_sender_and_early_ones_wait() -> None:
    """Goal: verdicts fall on the right one. Method: a node alone is fed blocks with a wrong seal, out of order, too early
    by its own clock, which counts when nobody was heard since the start."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.agree()
        alone, others = world.seats["d"], [world.seats[name] for name in "abc"]
        world.network.partition([alone.peer], [seat.peer for seat in others])
        height = alone.chain.checkpoints()[0].height
        await trio.sleep(1)
        await world.submit("a")
        await world.until(lambda: others[0].chain.checkpoints()[1].height > height, within_s=60, what="blocks without it")
        with others[0].engine.snapshot() as snapshot:
            names = [store.blocks_at(snapshot, height + 1 + step)[0] for step in range(2)]
            first, second = (store.block(snapshot, name) for name in names)
        assert first is not None
        assert second is not None
        peer = others[0].peer
        with pytest.raises(RemoteError) as remote:
            await alone.chain.take_block(codec.replace(first, seal=bytes(64)), peer, eager=True)
        assert (remote.value.reason, remote.value.verdict) == (Reason.BAD_SEAL, Verdict.BAN)
        with pytest.raises(Undecided) as undecided:
            await alone.chain.take_block(second, peer, eager=True)
        assert undecided.value.reason is Reason.UNKNOWN_PARENT
        await alone.kill()
        alone.clock.step(-30)
        await alone.start()
        await world.until(
            lambda: alone.chain.facts is not None and alone.chain.time.state is TimeState.ALONE, within_s=15, what="its own time"
        )
        await alone.chain.take_block(first, peer, eager=True)
        assert alone.chain.checkpoints()[0].height == height
        alone.clock.step(30)
        await world.until(lambda: alone.chain.checkpoints()[0].height > height, within_s=5, what="the early block in its time")

    life(10, story)


def test_many_submitted_at_once_are_judged_and_kept_together_and_what_ends_is_forgotten() -> None:
    """Goal: many puts cost few commits; nothing made here stays for ever. Method: sixty transactions at once, of which each ten want the
    same name: nine of those are never included, and are gone when their time is over and a later block is final."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.agree()
        seat = world.seats["a"]
        assert seat.node is not None
        commits = seat.node.storage.commits
        now = UnixMillis(chains.START_MS + int(trio.current_time() * 1000))
        done: list[bytes] = []

        async def submit(number: int) -> None:
            body = folder_update.Body(f"name {number % 6}", sha256(b"%d" % number), bytes(32), 1)
            made = world.template.by("ann", "FolderUpdate", body, ts_ms=now, until_ms=UnixMillis(now + 20_000))
            done.append(await seat.chain.submit(made))

        async with trio.open_nursery() as nursery:
            for number in range(60):
                nursery.start_soon(submit, number)
        assert len(done) == 60
        assert seat.node.storage.commits - commits <= 4
        handle = seat.node.handle
        await world.until(lambda: len(handle.peek(store.own_transactions)) <= 54, within_s=60, what="the first of each name")
        assert len(handle.peek(store.own_transactions)) == 54
        await trio.sleep(25)
        await world.submit("b")
        await world.agree()
        assert handle.peek(store.own_transactions) == ()

    life(12, story)


def test_bad_signature_among_many_verified_ahead_is_the_bad_ones_alone() -> None:
    """Goal: what a second thread verifies meanwhile changes nothing of who is refused, who is kept and who is banned. Method: so many at
    once that there is one: a bad signature among the node's own people's, then among a peer's; then the good ones."""

    def spoiled(one: Transaction) -> Transaction:
        (signature,) = one.signatures
        return Transaction(one.content, (codec.replace(signature, signature=bytes(64)),))

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.agree()
        seat, peer = world.seats["a"], world.seats["b"].peer
        own = [world.folder() for _ in range(AHEAD_TRANSACTIONS_MIN + 4)]
        own[5] = spoiled(own[5])
        errors = await seat.chain.submit_all(tuple(own))
        assert [number for number, error in enumerate(errors) if error is not None] == [5]
        assert errors[5] is not None
        assert errors[5].reason is Reason.BAD_SIGNATURE
        brought = [world.folder("bob") for _ in range(AHEAD_TRANSACTIONS_MIN + 4)]
        with pytest.raises(RemoteError) as caught:
            await seat.chain.take_items((*brought[:9], spoiled(brought[9]), *brought[10:]), (), peer)
        assert (caught.value.reason, caught.value.verdict) == (Reason.BAD_SIGNATURE, Verdict.BAN)
        assert spoiled(brought[9]).id not in seat.chain.pool
        await seat.chain.take_items(tuple(brought), (), peer)
        assert all(one.id in seat.chain.pool for one in brought)
        await world.until(lambda: not any(one.id in seat.chain.pool for one in (*own, *brought)), within_s=60, what="all in blocks")
        await world.agree()

    life(13, story)


def test_whole_nodes_follow_a_chain_and_one_without_stays_connected() -> None:
    """Goal: wired into nodes, beside everything else, and off unless given. Method: four nodes, three with a chain, one without."""

    async def world(seed: int, trace: Trace) -> None:
        await tell(seed, trace, replace(CALM, machines=4), ChainedWorld)

    run_world(world, 9, virtual_seconds_max=WORLD_S_MAX)
