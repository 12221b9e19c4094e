"""Light nodes beside full ones: under cuts and kills, among liars, across changes of the committee."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from contextlib import suppress

import pytest
import trio

from node.actors import talk
from node.actors.showing import show
from protocols.codec import decode, replace
from protocols.crypto import SigningKey, sha256
from protocols.errors import Refused
from protocols.ledger.context import CHAIN
from protocols.ledger.envelope import NO_SERIAL, Transaction, sign_transaction
from protocols.ledger.light import Link, Proven
from protocols.ledger.machine import LightAnswer, LightQuestion
from protocols.ledger.messages import AskFinal, Bundles, Final, Included, Proofs
from protocols.ledger.transactions import folder_update, key_rotate
from protocols.ledger.transactions.folder_update import FOLDER
from storage import light as kept
from storage.tables import CHAIN_BLOCKS, CHAIN_ROWS, CHAIN_TREE
from tests.protocols.ledger import chains

from .light_world import LightSeat, LightWorld
from .scheduler import chance, run_world, seeds
from .test_chain import WORLD_S_MAX, first_final
from .test_chain_snapshot import grow
from .trace import Trace

Answer = Callable[[LightQuestion, LightAnswer], LightAnswer]


def life(seed: int, story: Callable[[LightWorld], Awaitable[None]], **options: object) -> str:
    """The trace's hash of a world with this story."""

    async def world(number: int, trace: Trace) -> None:
        there = LightWorld(number, trace, **options)  # type: ignore[arg-type]
        async with trio.open_nursery() as nursery:
            there.nursery = nursery
            for seat in there.seats.values():
                await seat.start()
            await story(there)
            nursery.cancel_scope.cancel()

    return run_world(world, seed, virtual_seconds_max=WORLD_S_MAX)[1]


async def light_at(world: LightWorld, name: str = "L1") -> LightSeat:
    """A light node that stands where the others do."""
    seat = world.add_light(name)
    await seat.start()
    await world.lights_agree()
    return seat


async def submit_through(world: LightWorld, seat: LightSeat) -> Transaction:
    made = world.folder()
    await seat.chain.submit(made)
    return made


def folder_key(transaction: Transaction) -> tuple[str, bytes]:
    body = decode(transaction.content.body, folder_update.Body)
    return (FOLDER, transaction.content.sender + body.name.encode())


def test_light_node_follows_finality_submits_and_keeps_no_chain() -> None:
    """Goal: the thinnest complete path. Method: four members and a light node that knows the first block's hash; its transaction
    becomes final everywhere; the value is proven to it; its disk has no block, no row and no node of a tree; a quiet minute costs
    nothing."""

    async def story(world: LightWorld) -> None:
        await first_final(world)
        seat = await light_at(world)
        made = await submit_through(world, seat)
        await world.until(lambda: not len(seat.chain.pool), within_s=60, what="the light node's transaction is final")
        await world.agree()
        await world.lights_agree()
        await seat.chain.bring([folder_key(made)])
        assert seat.node is not None
        value = seat.node.handle.peek(lambda snapshot: kept.value(snapshot, folder_key(made)))
        assert value is not None
        with seat.engine.snapshot() as snapshot:
            assert [snapshot.count(table) for table in (CHAIN_BLOCKS, CHAIN_ROWS, CHAIN_TREE)] == [0, 0, 0]
        before = seat.chain.checkpoints()
        await trio.sleep(60)
        assert seat.chain.checkpoints() == before
        assert seat.chain.headers <= 3
        assert not seat.chain.alerts

    life(61, story)


@pytest.mark.parametrize("seed", seeds((62, 63, 64)))
def test_light_nodes_agree_after_cuts_and_kills(seed: int) -> None:
    """Goal: nothing of the world leads a light node astray. Method: two light nodes, two minutes of faults for them and a minute for
    all, terms of eight blocks, transactions all the while; then peace."""

    async def story(world: LightWorld) -> None:
        await first_final(world)
        for name in ("L1", "L2"):
            await light_at(world, name)
        rng = chance(seed, "light faults")
        await world.disturb_lights(120, rng=rng)
        await world.disturb(60, rng=rng)
        for seat in world.lights.values():
            if seat.node is None:
                await seat.start()
        await trio.sleep(15)
        await world.submit("b")
        await world.agree(within_s=600)
        await world.lights_agree(within_s=120)

    life(seed, story)


def test_seed_of_a_light_world_repeats() -> None:
    """Goal: a failure can be run again. Method: one world twice."""

    async def story(world: LightWorld) -> None:
        await first_final(world)
        seat = await light_at(world)
        await submit_through(world, seat)
        await world.disturb_lights(20, rng=chance(65, "light faults"))
        await world.lights_agree(within_s=120)

    assert life(65, story) == life(65, story)


# --- liars ------------------------------------------------------------------------------------------------------------


def lie_at(monkeypatch: pytest.MonkeyPatch, world: LightWorld, names: str, answer: Answer) -> None:
    """These full nodes alter what they show; everybody else is honest."""

    async def altered(chain: object, question: LightQuestion) -> LightAnswer:
        honest = await show(chain, question)  # type: ignore[arg-type]
        liars = [world.seats[name].node for name in names]
        return answer(question, honest) if any(one is not None and one.chain is chain for one in liars) else honest

    monkeypatch.setattr(talk, "show", altered)


def withhold(question: LightQuestion, honest: LightAnswer) -> LightAnswer:
    match honest:
        case Final():
            return Final((), ())
        case Proofs():
            return Proofs(())
        case Bundles():
            return Bundles(())
        case Included():
            return Included(())


def forge(question: LightQuestion, honest: LightAnswer) -> LightAnswer:
    """Another value, votes that were never cast, a header without its seal."""
    match honest:
        case Proofs(values):
            return Proofs(tuple(Proven(b"forged", one.proof) for one in values))
        case Final(successions, (link,)):
            return Final(successions, (replace(link, votes=tuple(replace(vote, signature=bytes(64)) for vote in link.votes)),))
        case Bundles(bundles):
            return Bundles(tuple(replace(one, seal=b"") for one in bundles))
        case _:
            return honest


def other_key(question: LightQuestion, honest: LightAnswer) -> LightAnswer:
    """A true proof of something else."""
    match honest:
        case Proofs(values) if len(values) > 1:
            return Proofs((*values[1:], values[0]))
        case _:
            return honest


class Stale:
    """Says what was true once, for ever."""

    def __init__(self) -> None:
        self.first: dict[type, LightAnswer] = {}

    def __call__(self, question: LightQuestion, honest: LightAnswer) -> LightAnswer:
        if isinstance(question, AskFinal) and isinstance(honest, Final) and honest.link:
            return self.first.setdefault(AskFinal, honest)
        return honest


class Random:
    """Alters a byte of something here and there."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng

    def __call__(self, question: LightQuestion, honest: LightAnswer) -> LightAnswer:
        lie = self.rng.choice([withhold, forge, other_key, lambda _, answer: answer, self._swap])
        return lie(question, honest)

    def _swap(self, question: LightQuestion, honest: LightAnswer) -> LightAnswer:
        match honest:
            case Final(_, (Link(row, child, votes, committee, following),)):
                return Final((), (Link(child, row, votes[::-1], following, committee),))
            case _:
                return honest


LIES: dict[str, Callable[[], Answer]] = {
    "withheld": lambda: withhold,
    "forged": lambda: forge,
    "of another key": lambda: other_key,
    "stale": Stale,
    "random": lambda: Random(chance(66, "lies")),
}


@pytest.mark.parametrize("lie", sorted(LIES))
def test_lies_of_three_of_four_peers_neither_mislead_nor_stop_a_light_node(lie: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: one honest peer is enough. Method: three full nodes lie to the light one, in one way; transactions through it become final, and
    at the end it stands where everybody does."""

    async def story(world: LightWorld) -> None:
        lie_at(monkeypatch, world, "abc", LIES[lie]())
        await first_final(world)
        seat = world.add_light()
        await seat.start()
        await world.lights_agree(within_s=180)
        for _ in range(3):
            made = await submit_through(world, seat)
            await world.until(lambda: not len(seat.chain.pool), within_s=180, what="final for the light node")
            for _ in range(8):
                with suppress(Refused):
                    await seat.chain.bring([folder_key(made), (CHAIN, b"policy")])
                    break
                await trio.sleep(5)
            else:
                raise AssertionError("nobody proves a value for 40 s")
            assert seat.node is not None
            value = seat.node.handle.peek(lambda snapshot: kept.value(snapshot, folder_key(made)))  # noqa: B023
            assert value not in (None, b"forged")
        await world.agree(within_s=180)
        await world.lights_agree(within_s=180)

    life(66, story)


def test_lies_are_noticed_and_cost_the_liar_its_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the worlds of liars show something. Method: one forging peer among four; it is dropped, nobody else is."""

    async def story(world: LightWorld) -> None:
        lie_at(monkeypatch, world, "a", forge)
        await first_final(world)
        seat = world.add_light()
        await seat.start()
        await world.lights_agree(within_s=120)
        await world.until(lambda: bool(seat.node and seat.node.connections.dropped), within_s=120, what="the liar is dropped")
        assert seat.node is not None
        assert {peer for peer, _ in seat.node.connections.dropped} == {world.seats["a"].peer}

    life(67, story)


def test_light_node_whose_only_peer_is_cut_off_stands_still_and_goes_on_with_the_others() -> None:
    """Goal: a peer that knows nothing new keeps nobody behind for long. Method: a full node is cut off with the light one alone; then
    one more link is mended."""

    async def story(world: LightWorld) -> None:
        await first_final(world)
        seat = await light_at(world)
        others = [world.seats[name].peer for name in "bcd"]
        world.network.partition([seat.peer, world.seats["a"].peer], others)
        at = seat.chain.checkpoints()[1]
        await world.seats["b"].chain.submit(world.folder())
        await world.until(lambda: world.seats["b"].chain.checkpoints()[1].height > at.height, within_s=120, what="the others go on")
        assert seat.chain.checkpoints()[1] == at
        world.network.heal_all()
        await world.agree(within_s=300)
        await world.lights_agree(within_s=60)

    life(68, story)


# --- committees ---------------------------------------------------------------------------------------------------------


def rotate_vote(world: LightWorld, name: str, old: SigningKey, new: SigningKey) -> Transaction:
    body = key_rotate.Body("vote", chains.account_of(name), old.public, new.public, b"")
    content = world.template.content("KeyRotate", body, chains.account_of(name), NO_SERIAL, **world.times())
    return sign_transaction(content, [chains.key_of(name, "council"), new])


async def rotate(world: LightWorld, name: str, old: SigningKey, number: int) -> SigningKey:
    """A member votes with another key as soon as the chain names it."""
    new = await world.seats[name].chain.make_key("vote", sha256(name.encode(), bytes([number])))
    await world.seats[name].chain.submit(rotate_vote(world, name, old, new))
    height = world.seats[name].chain.checkpoints()[0].height
    await world.until(lambda: min(seat.chain.checkpoints()[0].height for seat in world.live()) > height, within_s=60, what="a block")
    await world.agree(within_s=300)
    return new


def test_light_node_goes_from_committee_to_committee_also_after_a_long_absence() -> None:
    """Goal: the anchor of long ago is enough. Method: one light node follows while two members rotate their voting keys, one after the
    other; another is away meanwhile; a third begins at the first block afterwards."""

    async def story(world: LightWorld) -> None:
        await first_final(world)
        await light_at(world, "L1")
        away = await light_at(world, "L2")
        await away.kill()
        generation = world.seats["b"].chain.head().committee.generation  # type: ignore[union-attr]
        assert generation == 0
        keys = {name: chains.key_of(name, "vote") for name in "ab"}
        for number in range(2):
            for name in "ab":
                keys[name] = await rotate(world, name, keys[name], number)
                await grow(world, 2)
        await away.start()
        await light_at(world, "L3")
        await world.lights_agree(within_s=120)
        for seat in world.lights.values():
            assert seat.chain.trust is not None
            assert seat.chain.trust.committee.generation == 4
            assert {chains.account_of(name) for name in "abcd"} == set(seat.chain.trust.committee.members)

    life(69, story)


def test_light_node_with_an_anchor_begins_there() -> None:
    """Goal: a newcomer trusts what it was told of, and nothing below. Method: an anchor of the present final block; and one that no block
    has, at which it never begins."""

    async def story(world: LightWorld) -> None:
        await first_final(world)
        await grow(world, 5)
        anchored = world.add_light("L1")
        anchored.anchor = world.seats["a"].chain.checkpoints()[1]
        await anchored.start()
        await world.lights_agree()
        wrong = world.add_light("L2")
        wrong.anchor = replace(anchored.anchor, hash=anchored.anchor.hash[::-1])
        await wrong.start()
        await trio.sleep(70)
        assert wrong.chain.trust is None
        assert "begin" in wrong.chain.alerts

    life(70, story)


def test_full_node_that_loses_the_votes_still_shows_what_is_final() -> None:
    """Goal: who was just started serves. Method: all full nodes are killed and start again; a light node that knows the first block
    comes."""

    async def story(world: LightWorld) -> None:
        await first_final(world)
        await grow(world, 3)
        for seat in world.seats.values():
            await seat.kill()
        for seat in world.seats.values():
            await seat.start()
        await trio.sleep(15)
        await grow(world, 1)
        await light_at(world)

    life(71, story)
