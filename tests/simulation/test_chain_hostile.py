"""The chain among nodes of which one lies, is doubled, has a wrong clock, or has lost what it promised; mutated nodes are noticed."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Awaitable, Callable

import pytest
import trio

from node.actors import chain as actor
from node.promises import fresh
from protocols.codec import encode
from protocols.errors import LadingError, Reason, Undecided
from protocols.ledger.alive import Told
from protocols.ledger.block import Block, Header, block_merkle_root, decode_header, sign_seal
from protocols.ledger.envelope import sign_transaction
from protocols.ledger.network_time import TimeState
from protocols.ledger.transition import Draft, finish_block, sealed_header
from protocols.ledger.votes import Checkpoint, sign_vote
from protocols.types import BlockHash, UnixMillis
from tests.protocols.ledger import chains

from .chain_world import ChainWorld, Seat, SimulatedPromises
from .checkers import Violation
from .scheduler import SimulationFailed, first_cause, run_world
from .test_chain import WORLD_S_MAX, everybody_loses_the_database, first_final
from .trace import Trace


class HostileWorld(ChainWorld):
    """A world whose liars are nodes of their own making."""


def life(
    seed: int,
    story: Callable[[HostileWorld], Awaitable[None]],
    *,
    before: Callable[[HostileWorld], None] = lambda _: None,
    **options: object,
) -> None:
    async def world(number: int, trace: Trace) -> None:
        there = HostileWorld(number, trace, **options)
        before(there)
        async with trio.open_nursery() as nursery:
            there.nursery = nursery
            for seat in there.seats.values():
                await seat.start()
            await story(there)
            nursery.cancel_scope.cancel()

    run_world(world, seed, virtual_seconds_max=WORLD_S_MAX)


async def finality_goes_on(world: HostileWorld, names: str, *, times: int = 3, within_s: float = 120) -> None:
    """Transactions of these seats become final at all of them."""
    seats = [world.seats[name] for name in names]
    for _ in range(times):
        height = max(seat.chain.checkpoints()[1].height for seat in seats)
        await seats[0].chain.submit(world.folder())

        def is_final(height: int = height) -> bool:
            return min(seat.chain.checkpoints()[1].height for seat in seats) > height

        await world.until(is_final, within_s=within_s, what="finality among the honest")


# --- liars --------------------------------------------------------------------------------------------------------


class TwinMaker:
    """Makes a seat's node seal two blocks in each of its slots, the second for half of the others, and vote for both."""

    def __init__(self, world: HostileWorld, liar: str, half: str, *, more: int = 1) -> None:
        self.made: list[tuple[Block, Block]] = []
        self._world = world
        self._seat = world.seats[liar]
        self._half = [world.seats[name] for name in half]
        self._more = more
        assert self._seat.node is not None
        self._seat.node.sealer._sealed = self._sealed  # type: ignore[method-assign]

    def _sealed(self, draft: Draft, nonce: int, key: object) -> Block:
        keys = self._seat.keys
        assert keys.seal is not None

        def of(later_ms: int) -> Block:
            old = draft.header
            moved = Header(UnixMillis(old.t_stamp_ms + later_ms), old.merkle_root, old.version, old.parent, 0)
            other = dataclasses.replace(draft, header=moved)
            name = sealed_header(other, nonce).hash
            assert keys.seal is not None
            return finish_block(other, nonce, sign_seal(keys.seal, self._world.chain_id, draft.info.slot, name))

        first, second = of(0), of(1)
        self.made.append((first, second))
        for seat in self._half:
            for number in range(1, self._more + 1):
                self._world.nursery.start_soon(self._give, seat, of(number))
        self._world.nursery.start_soon(self._vote_for_both, first, second)
        return first

    async def _give(self, seat: Seat, block: Block) -> None:
        if seat.node is not None:
            try:
                await seat.chain.take_block(block, self._seat.peer, eager=True)
            except LadingError as error:
                self._world.trace.note("twin refused", why=error.reason)

    async def _vote_for_both(self, first: Block, second: Block) -> None:
        """Each vote first to those that have the other block."""
        keys = self._seat.keys
        assert keys.vote is not None
        await trio.sleep(0.05)
        height, parent = first.info.height, decode_header(first.header).parent
        for block, seats in ((first, self._half), (second, [one for one in self._world.live() if one not in self._half])):
            target = Checkpoint(height, BlockHash(block.hash))
            vote = sign_vote(keys.vote, self._world.chain_id, Checkpoint(height - 1, parent), target, keys.account)
            for seat in seats:
                if seat is not self._seat and seat.node is not None:
                    try:
                        await seat.chain.take_items((), (vote,), self._seat.peer)
                    except LadingError as error:
                        self._world.trace.note("vote refused", why=error.reason)


@pytest.mark.parametrize("seed", [21, 22])
def test_leader_and_voter_that_equivocates_splits_nobody_for_long(seed: int) -> None:
    """Goal: one liar of four neither splits nor stops. Method: one node seals two blocks in each slot, one for each half, and votes for
    both; the others go on, agree on every final block, and both seals are there for everybody to see."""

    async def story(world: HostileWorld) -> None:
        world.liars.add("d")
        twins = TwinMaker(world, "d", "ab")
        await first_final(world)
        for _ in range(6):
            await finality_goes_on(world, "abc", times=1)
        await world.until(lambda: len(twins.made) >= 2, within_s=120, what="twins")
        await world.submit("a")
        await world.agree(within_s=300)
        assert world.lies

    life(seed, story)


@pytest.mark.parametrize(("more", "asked_max"), [(2, 64), (6, 64), (6, 2)])
def test_leader_that_seals_many_blocks_in_one_slot_shuts_nobody_out(more: int, asked_max: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: keeping two blocks of a slot for evidence never means missing the one that counts. Method: a node gets two or six other
    blocks of each of d's slots before the one that all others get; it asks for that one, or takes it because they voted for it."""
    monkeypatch.setattr(actor, "BLOCKS_PER_SLOT_ASKED_MAX", asked_max)

    async def story(world: HostileWorld) -> None:
        world.liars.add("d")
        twins = TwinMaker(world, "d", "a", more=more)
        await first_final(world)
        for _ in range(6):
            await finality_goes_on(world, "bca", times=1)
        await world.until(lambda: len(twins.made) >= 2, within_s=200, what="twins")
        await world.submit("b")
        await world.agree(within_s=300)

    life(31, story)


def test_two_nodes_with_one_identity_harm_nobody_else() -> None:
    """Goal: a copied home is a liar at most. Method: a second node with the keys of d and promises of its own; the others go on; the copy
    goes away and all agree."""

    def copied(world: HostileWorld) -> None:
        world.liars.add("d")
        copy = Seat(world, "d2", seals=True, votes=True, promises=SimulatedPromises(fresh(world.chain_id)), knows_genesis=True)
        copy.keys = world.seats["d"].keys
        world.seats["d2"] = copy

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        await finality_goes_on(world, "abc", times=6)
        await world.seats.pop("d2").kill()
        await world.submit("b")
        await world.agree(within_s=300)

    life(23, story, before=copied)


def test_block_below_the_final_one_is_never_taken() -> None:
    """Goal: a fork that undoes a final block is never followed. Method: a true leader's block on genesis, when height 3 is final."""

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        await finality_goes_on(world, "abcd", times=3)
        await world.agree()
        seat = world.seats["a"]
        slot = (seat.chain.now_ms() - chains.START_MS) // 1000
        rival = world.template.make(slot=slot)
        before = (seat.chain.checkpoints(), seat.state())
        with pytest.raises(Undecided) as caught:
            await seat.chain.take_block(rival, world.seats["b"].peer, eager=True)
        assert caught.value.reason is Reason.UNKNOWN_PARENT
        assert (seat.chain.checkpoints(), seat.state()) == before

    life(24, story)


def test_a_thousand_blocks_of_unknown_parents_fill_nothing() -> None:
    """Goal: what cannot be judged takes no room. Method: blocks on a thousand other parents; what the node keeps is the same."""

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        await world.agree()
        chain = world.seats["a"].chain
        block = world.template.make()
        old = decode_header(block.header)

        def kept() -> tuple[int, ...]:
            return (len(chain._rows), len(chain._early), len(chain._received_ms), len(chain.votes), len(world.seats["a"].state()))

        before = kept()
        for number in range(1000):
            header = Header(old.t_stamp_ms, block_merkle_root(block.info, ()), old.version, BlockHash(number.to_bytes(32, "big")), 0)
            with pytest.raises(Undecided):
                await chain.take_block(Block(header.encoded, block.info, (), (), block.seal), world.seats["b"].peer, eager=True)
        assert kept() == before

    life(25, story)


def test_transaction_spoiled_by_a_relay_is_taken_from_the_next_one() -> None:
    """Goal: an id says nothing of signatures, so a bad set of them shuts no transaction out. Method: a peer sends a transaction with a
    signature of its own besides, another one without any that counts; the true one is still wanted, and taken."""

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        chain, peer = world.seats["a"].chain, world.seats["b"].peer
        for signers in (("ann", "eve"), ("eve",)):
            good = world.folder()
            spoiled = sign_transaction(good.content, [chains.key_of(name) for name in signers])
            assert spoiled.id == good.id
            await chain.take_items((spoiled,), (), peer)
            assert good.id not in chain.pool
            assert chain.lacking((good.id,), ()) == ((good.id,), ())
            await chain.take_items((good,), (), peer)
            await world.until(lambda: good.id not in chain.pool, within_s=60, what="the true one in a block")  # noqa: B023
        await world.agree()
        folders = {key for key, _ in world.seats["a"].state() if key[1:7] == b"folder"}
        assert len(folders) == 3

    life(32, story)


# --- clocks -------------------------------------------------------------------------------------------------------


WRONG = pytest.mark.parametrize("ahead_s", [3600.0, -3600.0, -1.7e9], ids=["an-hour-ahead", "an-hour-behind", "1970"])


def apart_ms(world: HostileWorld) -> int:
    """Between the network times of those that run."""
    times = [seat.chain.now_ms() for seat in world.live()]
    return max(times) - min(times)


def sealed_by(world: HostileWorld, name: str) -> int:
    node = world.seats[name].node
    assert node is not None
    return node.sealer.sealed


@WRONG
def test_node_that_starts_with_a_wrong_clock_takes_the_members_time_and_seals_and_votes(ahead_s: float) -> None:
    """Goal: no member's own clock matters while the others agree. Method: d starts with a wrong clock; it neither seals nor
    votes before ten seconds are over; then its time is theirs, it votes for what they seal, and seals."""

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        late = world.seats["d"]
        await late.kill()
        late.clock.step(ahead_s)
        said = said_by(world, "d")
        await late.start()
        await trio.sleep(9)
        assert late.chain.time.state is TimeState.LISTENING
        assert (said_by(world, "d"), sealed_by(world, "d")) == (said, 0)
        await world.until(lambda: late.chain.may_act(), within_s=10, what="the time is set")
        assert apart_ms(world) < 250
        for name in "abcdabcd":
            await finality_goes_on(world, name, times=1)
        assert said_by(world, "d") > said
        assert sealed_by(world, "d") > 0
        await world.agree()

    life(26, story)


@WRONG
def test_clock_that_is_set_while_the_node_runs_moves_nothing(ahead_s: float) -> None:
    """Goal: network time runs on the steady clock. Method: d's clock is set wrong; it goes on sealing and voting; no time moves."""

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        world.seats["d"].clock.step(ahead_s)
        said = said_by(world, "d")
        for _ in range(6):
            await finality_goes_on(world, "abcd", times=1)
            assert apart_ms(world) < 250
        assert said_by(world, "d") > said
        assert world.seats["d"].chain.may_act()
        await world.agree()

    life(29, story)


@pytest.mark.parametrize("drift", [5e-5, 2e-3])
def test_clocks_that_drift_do_no_harm(drift: float) -> None:
    """Goal: ordinary quartz is enough for ever, and a far worse one too. Method: four quartzes up to 50 ppm off, then up to 2,000 ppm,
    which alone would part by four seconds in twenty minutes; nobody's time leaves the others', finality all the while."""

    async def story(world: HostileWorld) -> None:
        for seat, share in zip(world.seats.values(), (1.0, -1.0, 0.4, 0.0), strict=True):
            seat.clock.set_drift(drift * share)
        await first_final(world)
        for _ in range(4):
            await trio.sleep(300)
            assert apart_ms(world) < 250
            await finality_goes_on(world, "abcd", times=1)
        await world.agree()

    life(27, story)


def test_clock_that_jumps_about_does_no_harm() -> None:
    """Goal: a bad time source harms nobody. Method: d's clock jumps by up to an hour every four seconds; d acts all the while."""

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        clock = world.seats["d"].clock
        jumps = itertools.cycle((5.0, -3.0, -3600.0, 0.5, 4000.0, -400.0))
        for _ in range(12):
            clock.step(next(jumps))
            await trio.sleep(4)
            await finality_goes_on(world, "abcd", times=1)
            assert world.seats["d"].chain.may_act()
            assert apart_ms(world) < 250
        await world.agree(within_s=300)

    life(28, story)


def test_machine_that_stood_still_for_a_minute_rests_listens_and_has_the_time_again() -> None:
    """Goal: a paused virtual machine, whose clocks know nothing of it, is back in half a minute, where slewing would take three hours.
    Method: d's clocks stand still for a minute; it notices, neither seals nor votes for ten seconds, sets its time, votes again."""

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        still = world.seats["d"]
        still.clock.set_drift(-0.999)
        await trio.sleep(60)
        still.clock.set_drift(0.0)
        assert apart_ms(world) > 50_000
        await world.until(lambda: still.chain.time.state is TimeState.LISTENING, within_s=10, what="it notices")
        said = said_by(world, "d")
        await world.until(lambda: still.chain.may_act(), within_s=40, what="the time again")
        assert said_by(world, "d") == said
        assert apart_ms(world) < 500
        for _ in range(3):
            await finality_goes_on(world, "abcd", times=1)
        assert said_by(world, "d") > said
        await world.agree()

    life(31, story)


@pytest.mark.parametrize("far_ms", [-400, 3_600_000, 10**13])
def test_member_that_lies_about_the_time_moves_nobody_far(far_ms: int) -> None:
    """Goal: one liar of four. Method: d tells each listener a time so far from its own, at the start and for five minutes."""

    async def story(world: HostileWorld) -> None:
        world.liars.add("d")
        liar = world.seats["d"].chain
        honest = liar.tell_time

        def lie(*, echo: int, held_ms: int) -> Told:
            told = honest(echo=echo, held_ms=held_ms)
            return Told(max(1, told.time + far_ms), True, told.echo, told.held_ms)

        liar.tell_time = lie  # type: ignore[method-assign]
        await first_final(world)
        for _ in range(3):
            await trio.sleep(100)
            times = [world.seats[name].chain.now_ms() for name in "abc"]
            truth = chains.START_MS + trio.current_time() * 1000
            assert max(times) - min(times) < 250
            assert max(abs(one - truth) for one in times) < 500
            await finality_goes_on(world, "abc", times=1)

    life(34, story)


def test_member_more_than_an_hour_off_after_its_start_acts_no_more_and_says_so() -> None:
    """Goal: what nobody can explain is for people. Method: d's machine counts two hours at once, and sets its clock by
    it; d neither seals nor votes, and says why; a start makes it good."""

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        d = world.seats["d"]
        d.clock.let_pass(7200)
        await world.until(lambda: d.chain.time.state is TimeState.ASTRAY, within_s=30, what="it notices")
        said, sealed = said_by(world, "d"), sealed_by(world, "d")
        assert "120 minutes" in d.chain.alerts["time"]
        await finality_goes_on(world, "abc", times=3)
        assert (said_by(world, "d"), sealed_by(world, "d")) == (said, sealed)
        await d.kill()
        await d.start()
        await world.until(lambda: d.chain.may_act(), within_s=40, what="the time after a start")
        assert "time" not in d.chain.alerts
        await finality_goes_on(world, "abcd", times=1)
        await world.agree()

    life(33, story)


# --- promises -----------------------------------------------------------------------------------------------------


def said_by(world: HostileWorld, name: str) -> int:
    return len(world.said.get(chains.account_of(name), {}))


def test_voter_whose_promises_were_deleted_never_votes_again_and_the_others_go_on() -> None:
    """Goal: nobody guesses what a key has said. Method: d's promise file is deleted while it is down; it comes back and says nothing."""

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        await finality_goes_on(world, "abcd")
        seat = world.seats["d"]
        await seat.kill()
        seat.promises.data = None
        said = said_by(world, "d")
        assert said
        await seat.start()
        await trio.sleep(15)
        await finality_goes_on(world, "abc", times=3)
        assert said_by(world, "d") == said
        assert "promises" in seat.chain.alerts
        await world.agree()

    life(29, story)


@pytest.mark.parametrize("keeps_database", [True, False])
def test_voter_whose_promises_come_from_an_old_backup_notices_and_votes_no_more(keeps_database: bool) -> None:
    """Goal: promises older than what was said are lost promises. Method: d's file of long ago is put back while nothing above is final;
    with and without its database; what it said meanwhile it hears from its own disk or from the others."""

    async def story(world: HostileWorld) -> None:
        await first_final(world)
        seat = world.seats["d"]
        old = seat.promises.data
        await finality_goes_on(world, "abcd")
        await world.agree()
        for name in "bc":  # two of four are down: blocks come, d votes for them, nothing becomes final
            await world.seats[name].kill()
        await trio.sleep(12)
        await world.seats["b"].start()
        await trio.sleep(12)
        world.network.partition([world.seats["b"].peer], [world.seats["a"].peer, seat.peer])
        await world.submit("a")
        await trio.sleep(9)
        await seat.kill()
        world.network.heal_all()
        seat.promises.data = old
        if not keeps_database:
            seat.lose_database()
        said = said_by(world, "d")
        await world.seats["c"].start()
        await seat.start()
        await world.until(lambda: "promises" in seat.chain.alerts, within_s=30, what="it notices")
        await trio.sleep(15)
        await finality_goes_on(world, "abc", times=2)
        assert said_by(world, "d") == said
        kept = seat.promises.load()
        assert kept is not None
        assert not kept.may_vote

    life(30, story)


def test_promises_kept_in_the_database_are_noticed() -> None:
    """Goal: the checker can fail. Method: the story in which all lose their databases, where promises are lost with them and made anew."""

    async def story(world: HostileWorld) -> None:
        for seat in world.seats.values():

            def lose(seat: Seat = seat, before: Callable[[], None] = seat.lose_database) -> None:
                before()
                seat.promises.data = encode(fresh(world.chain_id))

            seat.lose_database = lose  # type: ignore[method-assign]
        await everybody_loses_the_database(world)

    with pytest.raises(SimulationFailed) as failure:
        life(8, story)
    cause = first_cause(failure.value)
    assert isinstance(cause, Violation)
    assert "said two things" in str(cause)
