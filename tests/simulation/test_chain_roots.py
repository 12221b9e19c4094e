"""A node whose state is not the others': with a quorum against it it stops and says where; without one the sender pays and life goes on."""

from __future__ import annotations

import pytest
import trio

from protocols import codec
from protocols.errors import Reason, Refused, RemoteError, StoreDamaged, Verdict
from protocols.ledger.block import Header, block_merkle_root, decode_header, sign_seal
from protocols.ledger.context import Context, Kind
from protocols.ledger.envelope import Transaction
from protocols.ledger.schedule import RULES_1, SCHEDULE, RuleSet
from protocols.ledger.transactions import folder_update
from protocols.ledger.votes import Checkpoint, sign_vote
from protocols.types import BlockHash
from storage import chain as store
from storage.chain_state import StateDifference
from storage.tables import CHAIN_STATE
from tests.protocols.ledger import chains

from .chain_world import ChainWorld
from .test_chain import first_final, life


def other_rules() -> dict[int, RuleSet]:
    """A program with a mistake: it notes a penalty for everybody who moves a folder."""

    def execute(context: Context, transaction: Transaction, body: folder_update.Body) -> None:
        folder_update.execute(context, transaction, body)
        context.state.put("penalty", b"k" * 32, b"of no transaction")

    kind = Kind(folder_update.KIND.number, "FolderUpdate", folder_update.Body, execute)
    return {1: RuleSet(1, {**RULES_1.kinds, kind.number: kind})}


def test_wrong_root_with_a_quorum_behind_it_stops_the_node_which_says_the_first_key() -> None:
    """Goal: never guess. Method: d's program has a mistake; the others go on; d stops, also after a restart, seals and votes no more,
    takes no transaction, and finds the key at a peer. With the program of the others it goes on where it stood."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.agree()
        odd = world.seats["d"]
        await odd.kill()
        odd.schedule = other_rules()
        await odd.start()
        await world.submit("a")
        await world.until(lambda: odd.chain.stopped is not None, within_s=120, what="the stop")
        height = odd.chain.checkpoints()[0].height
        assert "roots" in odd.chain.alerts
        for _ in range(2):
            final = world.seats["a"].chain.checkpoints()[1].height
            await world.submit("a")
            await world.until(lambda final=final: world.seats["a"].chain.checkpoints()[1].height > final, within_s=120, what="the others")  # type: ignore[misc]
            assert odd.chain.checkpoints()[0].height == height
            with pytest.raises(Refused) as refused:
                await world.submit("d")
            assert refused.value.reason is Reason.STATE_ROOT
            assert odd.node is not None
            await world.until(lambda: world.seats["a"].peer in odd.talking(), within_s=60, what="a conversation")
            found = await odd.node.talks.difference(world.seats["a"].peer)
            assert found == StateDifference("penalty", b"k" * 32, b"of no transaction", None)
            await odd.kill()
            await odd.start()
            await trio.sleep(5)
            assert odd.chain.stopped is not None, "a restart is no answer"
        assert not any(seat.chain.stopped for seat in world.live() if seat is not odd)
        await odd.kill()
        odd.schedule = SCHEDULE
        await odd.start()
        await world.agree()

    life(51, story)


def test_stopped_node_whose_tables_are_damaged_fetches_the_chain_again() -> None:
    """Goal: two misfortunes are no dead end. Method: d stopped; its program is mended, and before the start a value of its state is lost:
    it throws the tables away and comes up to the others. The same while it runs, with the mistake: it stops again at the first block that
    it finds wrong."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.agree()
        odd = world.seats["d"]
        await odd.kill()
        odd.schedule = other_rules()
        await odd.start()
        await world.submit("a")
        await world.until(lambda: odd.chain.stopped is not None, within_s=120, what="the stop")
        await trio.sleep(1)
        actor = odd.chain
        await actor._start_over(StoreDamaged("a value is gone"))
        assert actor.head() is not None
        assert actor.stopped is None
        await world.until(lambda: actor.stopped is not None, within_s=120, what="the stop again")
        await odd.kill()
        odd.engine.restart()
        odd.forget(CHAIN_STATE, [b"\x05chaincouncil"])
        odd.schedule = SCHEDULE
        await odd.start()
        await world.agree()
        assert "chain" in odd.chain.alerts

    life(53, story)


def test_wrong_root_without_a_quorum_costs_its_sender_and_stops_nobody() -> None:
    """Goal: one liar stops nobody. Method: a rightful leader's block with another root, shown to all, and its own vote for it."""

    async def story(world: ChainWorld) -> None:
        world.liars.add("d")
        await first_final(world)
        await world.agree()
        seat = world.seats["a"]
        with seat.engine.snapshot() as snapshot:
            head = store.body(snapshot, seat.chain.checkpoints()[0].hash)
        name = next(one for one in "abcd" if chains.account_of(one) == head.info.miner)
        world.liars.add(name)
        info = codec.replace(head.info, state_root=bytes(31) + b"!")
        header = decode_header(head.header)
        other = Header(header.t_stamp_ms, block_merkle_root(info, head.transactions), header.version, header.parent, header.nonce)
        seal = sign_seal(chains.key_of(name, "seal"), world.chain_id, info.slot, other.hash)
        lie = codec.replace(head, header=other.encoded, info=info, seal=seal)
        with pytest.raises(RemoteError) as refused:
            await seat.chain.take_block(lie, world.seats["d"].peer, eager=True)
        assert (refused.value.reason, refused.value.verdict) == (Reason.STATE_ROOT, Verdict.DROP)
        point = Checkpoint(info.height, BlockHash(other.hash))
        vote = sign_vote(chains.key_of(name, "vote"), world.chain_id, seat.chain.checkpoints()[1], point, chains.account_of(name))
        await seat.chain.take_items((), (vote,), world.seats["d"].peer)
        await world.submit("a")
        await world.agree()
        assert not any(one.chain.stopped for one in world.live())

    life(52, story)
