"""Who says two things is named on the ledger once, and nobody else ever is."""

from __future__ import annotations

import pytest
import trio

from protocols import codec
from protocols.crypto import sha256
from protocols.errors import LadingError, Reason, RemoteError, Undecided
from protocols.ledger.block import Block, Header, block_merkle_root, decode_header, sign_seal
from protocols.ledger.context import ACCOUNT, Account
from protocols.ledger.transactions.equivocation import EVIDENCE
from protocols.ledger.votes import Checkpoint, sign_vote
from protocols.types import BlockHash, UnixMillis
from storage import chain as store
from tests.protocols.ledger import chains

from .chain_world import ChainWorld, Seat
from .scheduler import chance, seeds
from .test_chain import first_final, life


def suspensions(seat: Seat, name: str) -> int:
    """Of the account, in the state where the node stands."""
    return codec.decode(seat.read(ACCOUNT)[chains.account_of(name)], Account).suspensions


def second_seal(world: ChainWorld, block: Block, name: str) -> Block:
    """Another block of the same miner in the same slot: a millisecond later, without transactions of its own choosing."""
    header = decode_header(block.header)
    root = block_merkle_root(block.info, block.transactions)
    later = Header(UnixMillis(header.t_stamp_ms + 1), root, header.version, header.parent, header.nonce)
    seal = sign_seal(chains.key_of(name, "seal"), world.chain_id, block.info.slot, later.hash)
    return codec.replace(block, header=later.encoded, seal=seal)


async def block_of(world: ChainWorld, name: str) -> Block:
    """The head, sealed just now by this miner."""
    seat = world.seats[name]
    while True:
        height = seat.chain.checkpoints()[0].height
        await world.submit("a")
        await world.until(lambda height=height: seat.chain.checkpoints()[0].height > height, within_s=60, what="a block")  # type: ignore[misc]
        with seat.engine.snapshot() as snapshot:
            head = store.body(snapshot, seat.chain.checkpoints()[0].hash)
        if head.info.miner == chains.account_of(name):
            return head


def test_two_seals_in_one_slot_are_evidence_once_and_cost_the_liar_its_standing() -> None:
    """Goal: a liar is named by nodes alone. Method: d seals its block twice and shows each half of the others another one."""

    async def story(world: ChainWorld) -> None:
        world.liars.add("d")
        await first_final(world)
        block = await block_of(world, "d")
        twin = second_seal(world, block, "d")
        for name in ("a", "b"):
            await world.seats[name].chain.take_block(twin, world.seats["d"].peer, eager=True)
        await world.until(lambda: all(suspensions(seat, "d") for seat in world.live()), within_s=60, what="the penalty everywhere")
        await trio.sleep(60)
        await world.agree()
        for seat in world.live():
            assert suspensions(seat, "d") == 1
            assert len(seat.read(EVIDENCE)) == 1
            assert not any(suspensions(seat, honest) for honest in "abc")
        assert not any(seat.chain.watch.suspicions for seat in world.live()), "what is final on the ledger is forgotten"

    life(31, story)


def test_seal_of_a_bad_block_is_evidence_too() -> None:
    """Goal: a second block need not be valid to be one. Method: d seals rubbish beside its block; the block is refused, d is named."""

    async def story(world: ChainWorld) -> None:
        world.liars.add("d")
        await first_final(world)
        block = await block_of(world, "d")
        bad = codec.replace(block, info=codec.replace(block.info, state_root=sha256(b"rubbish")))
        header = decode_header(block.header)
        root = block_merkle_root(bad.info, bad.transactions)
        wrong = Header(header.t_stamp_ms, root, header.version, header.parent, header.nonce)
        seal = sign_seal(chains.key_of("d", "seal"), world.chain_id, block.info.slot, wrong.hash)
        with pytest.raises((RemoteError, Undecided)) as refused:  # by its root, or because what it stands on lies below the final block
            await world.seats["a"].chain.take_block(codec.replace(bad, header=wrong.encoded, seal=seal), world.seats["d"].peer, eager=True)
        assert refused.value.reason in (Reason.STATE_ROOT, Reason.UNKNOWN_PARENT)
        await world.until(lambda: all(suspensions(seat, "d") for seat in world.live()), within_s=60, what="the penalty everywhere")

    life(32, story)


def test_two_votes_that_break_promises_are_evidence_once() -> None:
    """Goal: the same of votes. Method: d votes for a block of its own invention at a height that it votes for anyway; one node hears it."""

    async def story(world: ChainWorld) -> None:
        world.liars.add("d")
        await first_final(world)
        await world.seats["d"].kill()
        liar = chains.key_of("d", "vote")
        seat = world.seats["a"]
        head, final = seat.chain.checkpoints()
        for invented in (b"one", b"two"):
            target = Checkpoint(head.height + 1, BlockHash(sha256(invented)))
            vote = sign_vote(liar, world.chain_id, final, target, chains.account_of("d"))
            await seat.chain.take_items((), (vote,), world.seats["d"].peer)
        await world.until(lambda: all(suspensions(one, "d") for one in world.live()), within_s=60, what="the penalty everywhere")
        await trio.sleep(60)
        assert {len(one.read(EVIDENCE)) for one in world.live()} == {1}
        await world.seats["d"].start()
        await world.agree()

    life(33, story)


def test_key_that_seals_and_votes_on_two_chains_is_not_accused() -> None:
    """Goal: two chains are no lie. Method: seals and votes of another chain by the same keys, for the same slots and heights, are shown
    to a node, whole, and with this chain's id written into them."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        block = await block_of(world, "d")
        other = chains.start(seal="authority", name="other")
        assert other.chain != world.chain_id
        seat = world.seats["a"]
        height = block.info.height
        target = Checkpoint(height, BlockHash(sha256(b"there")))
        vote = sign_vote(
            chains.key_of("d", "vote"), other.chain, Checkpoint(0, BlockHash(other.blocks[0].hash)), target, chains.account_of("d")
        )
        await seat.chain.take_items((), (vote,), world.seats["b"].peer)
        for forged in (vote, codec.replace(vote, chain=world.chain_id)):
            seat.chain.watch.note_vote(forged)
        twin = second_seal(world, block, "d")
        foreign = sign_seal(chains.key_of("d", "seal"), other.chain, block.info.slot, twin.hash)
        with pytest.raises((RemoteError, Undecided)) as refused:
            await seat.chain.take_block(codec.replace(twin, seal=foreign), world.seats["b"].peer, eager=True)
        assert refused.value.reason in (Reason.BAD_SEAL, Reason.UNKNOWN_PARENT)
        await trio.sleep(60)
        assert not any(one.read(EVIDENCE) for one in world.live())

    life(34, story)


@pytest.mark.parametrize("seed", seeds((35, 36, 37)))
def test_liar_is_named_and_nobody_else_whatever_happens(seed: int) -> None:
    """Goal: faults never look like lies. Method: two minutes of cuts, partitions, resets and kills, while d's blocks are doubled and the
    twins are shown to whoever is up; then peace: d stands accused, on every node, and d alone."""

    async def story(world: ChainWorld) -> None:
        world.liars.add("d")
        await first_final(world)
        rng = chance(seed, "lies")

        async def lie() -> None:
            doubled: set[bytes] = set()
            while True:
                await trio.sleep(rng.uniform(0.2, 1.0))
                for seat in world.live():
                    if seat.chain.tree is None:
                        continue
                    with seat.engine.snapshot() as snapshot:
                        head = store.body(snapshot, seat.chain.checkpoints()[0].hash)
                    if head.info.miner == chains.account_of("d") and head.hash not in doubled:
                        doubled.add(head.hash)
                        target = rng.choice(world.live())
                        try:
                            await target.chain.take_block(second_seal(world, head, "d"), world.seats["d"].peer, eager=True)
                        except LadingError as error:
                            world.trace.note("lie refused", error=error.reason)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(lie)
            await world.disturb(120, rng=chance(seed, "faults"))
            nursery.cancel_scope.cancel()
        await trio.sleep(15)
        await world.submit("b")
        await world.until(lambda: all(seat.read(EVIDENCE) for seat in world.live()), within_s=300, what="d named everywhere")
        await world.agree(within_s=600)
        world.check_accusations()

    life(seed, story)
