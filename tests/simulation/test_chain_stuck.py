"""What may not stop a node or a chain: a slow disk, a transaction that waits, a vote by a key that is not known yet, promises that cannot
be written, rules that are lacking, blocks of a far future."""

from __future__ import annotations

from dataclasses import replace

import pytest
import trio

from node.offload import SimulatedOffload
from protocols import codec
from protocols.crypto import sha256
from protocols.errors import Reason, Undecided
from protocols.ledger.block import Header, decode_header
from protocols.ledger.envelope import NO_SERIAL, sign_transaction
from protocols.ledger.pool import Origin
from protocols.ledger.schedule import RULES_1
from protocols.ledger.transactions import folder_update, key_rotate, rule_activation
from protocols.limits import EARLY_BLOCKS_MAX, LEDGER_SILENCE_MAX_S
from protocols.types import UnixMillis
from storage import chain as store
from tests.protocols.ledger import chains

from .chain_world import ChainWorld
from .test_chain import first_final, life


class SlowDisk(SimulatedOffload):
    """Commits take so many seconds; reads are quick."""

    def __init__(self, commit_s: float) -> None:
        super().__init__(lambda: 0.001)
        self._commits = SimulatedOffload(lambda: commit_s)

    async def run(self, fn, *args, lane="default"):  # type: ignore[no-untyped-def]  # as the base class
        chosen = super() if lane == "default" else self._commits
        return await chosen.run(fn, *args, lane=lane)


def test_member_whose_commits_are_slow_is_heard_and_finality_goes_on() -> None:
    """Goal: slow is not dead. Method: three members, all needed, d's every commit takes longer than the silence after which a peer is
    given up; it stays in every conversation, is heard all the time, and what is said becomes final."""

    async def story(world: ChainWorld) -> None:
        slow = world.seats["c"]
        await trio.sleep(0.1)
        await slow.kill()
        slow.offload = SlowDisk(LEDGER_SILENCE_MAX_S + 2)
        await slow.start()
        await trio.sleep(90)
        talking = {peer: slow.node.talks.ends[peer] for peer in slow.talking()}  # type: ignore[union-attr]
        assert len(talking) == 2
        await world.submit("a")
        deaf = 0
        for _ in range(240):
            await trio.sleep(0.5)
            deaf += chains.account_of("c") not in world.seats["a"].chain.heard()
        assert not deaf
        assert dict(slow.node.talks.ends) == talking  # type: ignore[union-attr]
        await world.until(lambda: min(world.final_heights()) >= 1, within_s=120, what="finality that needs the slow one")

    life(71, story, members=("a", "b", "c"), faults=0)


def test_transaction_that_waits_keeps_nobody_from_sealing_for_other_reasons() -> None:
    """Goal: one account's unfinished business stops no chain. Method: a transaction whose link is not there yet waits everywhere; what went
    before it becomes final all the same."""

    async def story(world: ChainWorld) -> None:
        await trio.sleep(15)
        body = folder_update.Body("early", sha256(b"root"), bytes(32), 1)
        waits = world.template.by("bob", "FolderUpdate", body, links=(sha256(b"not here"),), **world.times())
        for seat in world.live():
            seat.chain.pool.offer(waits, Origin.INBOUND, b"peer")
        await world.submit("a")
        await world.until(lambda: min(world.final_heights()) >= 1, within_s=60, what="finality beside what waits")
        assert all(waits.id in seat.chain.pool for seat in world.live())

    life(72, story)


def test_vote_by_a_key_that_is_not_known_yet_costs_its_bearer_nothing() -> None:
    """Goal: who is behind blames nobody. Method: d's voting key is rotated while w is away; the vote by the new key reaches w before the
    block that says so; w keeps its conversations, and takes the vote when it knows the key."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        behind = world.seats["w"]
        await world.agree()
        await behind.kill()
        member = world.seats["d"]
        new = await member.chain.make_key("vote", bytes(32))
        body = key_rotate.Body("vote", chains.account_of("d"), chains.key_of("d", "vote").public, new.public, b"")
        content = world.template.content("KeyRotate", body, chains.account_of("d"), NO_SERIAL, **world.times())
        await member.chain.submit(sign_transaction(content, [chains.key_of("d", "council"), new]))
        await world.agree()
        height = world.seats["a"].chain.checkpoints()[1].height
        await world.submit("a")
        await world.until(lambda: world.seats["a"].chain.checkpoints()[1].height > height, within_s=60, what="votes by the new key")
        votes = [one for one in member.chain.votes.values() if one.member == chains.account_of("d")]
        assert votes
        world.network.partition([behind.peer], [seat.peer for seat in world.seats.values() if seat is not behind])
        await behind.start()
        await trio.sleep(5)
        await behind.chain.take_items((), tuple(votes), world.seats["a"].peer)
        world.network.heal_all()
        await world.agree()

    life(73, story, watchers=("w",))


def test_promises_that_cannot_be_written_end_the_votes_and_nothing_else() -> None:
    """Goal: a full disk under the keys makes a node silent, not deaf. Method: d's promise file takes nothing for a while; it follows the
    head within its conversations and says what is wrong; afterwards it votes again."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.agree()
        full = world.seats["d"]
        full.keys = replace(full.keys, seal=None)
        await full.kill()
        await full.start()
        await trio.sleep(15)
        save, full.promises.save = full.promises.save, refuse  # type: ignore[method-assign]
        ends = dict(full.node.talks.ends)  # type: ignore[union-attr]
        for _ in range(3):
            height = min(world.final_heights())
            await world.submit("a")
            await world.until(lambda height=height: min(world.final_heights()) > height, within_s=120, what="finality without it")  # type: ignore[misc]
        assert full.node.talks.ends == ends  # type: ignore[union-attr]
        assert "cannot be written" in full.chain.alerts["promises-file"]
        said = len(world.said[chains.account_of("d")])
        full.promises.save = save  # type: ignore[method-assign]
        await world.submit("a")
        await world.until(lambda: len(world.said[chains.account_of("d")]) > said, within_s=120, what="its vote")
        assert "promises-file" not in full.chain.alerts

    life(74, story)


def refuse(kept: object) -> None:
    raise OSError(28, "No space left on device")


def test_node_that_lacks_the_next_rule_set_starts_and_serves_with_transactions_of_its_own() -> None:
    """Goal: an old program stops before the height and says so. Method: rule set 2 is activated; a node that has only 1, with a
    transaction of its own that waits, is started at the height before: it is up, answers, refuses what it cannot judge, and its
    conversations go on."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        for seat in world.seats.values():
            await seat.kill()
            if seat.name != "w":
                seat.schedule = {1: RULES_1, 2: replace(RULES_1, version=2)}
            await seat.start()
        await trio.sleep(15)
        old = world.seats["w"]
        tip = world.seats["a"].chain.checkpoints()[0].height
        await world.act("RuleActivation", rule_activation.Body(2, tip + 8))
        await world.agree()
        while old.chain.checkpoints()[0].height < tip + 7:
            height = old.chain.checkpoints()[0].height
            await world.submit("a")
            await world.until(lambda height=height: old.chain.checkpoints()[0].height > height, within_s=60, what="a block")  # type: ignore[misc]
            await trio.sleep(1)
        await world.submit("a")
        await world.until(lambda: "rules" in old.chain.alerts, within_s=60, what="the alert")
        await old.chain.take_items((world.folder("bob"),), (), world.seats["a"].peer)
        with pytest.raises(Undecided) as undecided:
            await world.submit("w")
        assert undecided.value.reason is Reason.RULE_SET
        await old.kill()
        old.engine.restart()
        old.engine.write([store.put_own(world.folder("cid"))])
        await old.start()
        await trio.sleep(5)
        assert old.chain.head() is not None
        await world.until(lambda: len(old.talking()) == 4, within_s=30, what="its conversations")
        await old.kill()
        old.schedule = world.seats["a"].schedule
        await old.start()
        await world.agree()

    life(75, story, watchers=("w",), term_blocks=3)


def test_blocks_of_a_far_future_keep_none_from_waiting_whose_time_comes_soon() -> None:
    """Goal: a place where blocks wait cannot be filled for ever. Method: a peer gives sixteen blocks dated a year ahead; then one comes
    to a node whose clock is half a minute behind: it is taken in its time."""

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        await world.agree()
        alone, other = world.seats["d"], world.seats["a"]
        world.network.partition([alone.peer], [world.seats[name].peer for name in "abc"])
        height = alone.chain.checkpoints()[0].height
        await trio.sleep(1)
        await world.submit("a")
        await world.until(lambda: other.chain.checkpoints()[0].height > height, within_s=60, what="a block without it")
        with other.engine.snapshot() as snapshot:
            block = store.body(snapshot, store.blocks_at(snapshot, height + 1)[0])
        header = decode_header(block.header)
        for nonce in range(EARLY_BLOCKS_MAX):
            far = Header(UnixMillis(header.t_stamp_ms + 31_536_000_000), header.merkle_root, header.version, header.parent, nonce)
            await alone.chain.take_block(codec.replace(block, header=far.encoded), other.peer, eager=True)
        alone.clock.step(-30)
        await alone.chain.take_block(block, other.peer, eager=True)
        alone.clock.step(30)
        await world.until(lambda: alone.chain.checkpoints()[0].height > height, within_s=5, what="the early block in its time")

    life(76, story)
