"""What breaks a rule is refused by every node, under its reason, which is counted and kept; who brings it again and again is banned."""

from __future__ import annotations

import pytest

from protocols import codec
from protocols.codec import replace
from protocols.crypto import sha256
from protocols.errors import Reason, RemoteError, StoreDamaged, Verdict
from protocols.ledger.block import Block, Header, block_merkle_root, decode_header, sign_seal
from protocols.ledger.context import Context, Kind
from protocols.ledger.envelope import Transaction
from protocols.ledger.profile import DEFAULT_POLICY, CountryRule, Policy
from protocols.ledger.schedule import RULES_1, SCHEDULE, RuleSet
from protocols.ledger.transactions import policy_list_update, record_anchor
from protocols.types import BlockHash, PeerId, UnixMillis
from storage import chain as store
from storage import refused
from tests.protocols.ledger import chains

from .chain_world import ChainWorld, Seat
from .test_chain import first_final, life
from .test_chain_liars import block_of

MEAT_FROM_NOBODY = replace(DEFAULT_POLICY, version=2, country_rules=(CountryRule("CN", "meat", False),))


def without_country_rules() -> dict[int, RuleSet]:
    """A program that lets every country record everything, and keeps all other rules."""

    def execute(context: Context, transaction: Transaction, body: record_anchor.Body) -> None:
        policy = context.policy
        context.enact_policy(replace(policy, country_rules=()))
        try:
            record_anchor.execute(context, transaction, body)
        finally:
            context.enact_policy(policy)

    kind = Kind(record_anchor.KIND.number, "RecordAnchor", record_anchor.Body, execute)
    return {1: RuleSet(1, {**RULES_1.kinds, kind.number: kind})}


async def in_force(world: ChainWorld, policy: Policy) -> None:
    """The council's policy list, from a height a little ahead on; returns when it is final everywhere that it is in force."""
    height = world.seats["a"].chain.checkpoints()[0].height + 2
    await world.act("PolicyListUpdate", policy_list_update.Body(height, policy))
    while min(world.final_heights()) < height:
        await becomes_final(world, world.live())
    for seat in world.live():
        assert codec.decode(seat.read("chain")[b"policy"], Policy) == policy


async def becomes_final(world: ChainWorld, seats: list[Seat]) -> None:
    """One transaction more, at all of these."""
    final = min(seat.chain.checkpoints()[1].height for seat in seats)
    await world.submit("a")
    await world.until(lambda: min(seat.chain.checkpoints()[1].height for seat in seats) > final, within_s=120, what="finality")


def banned_by(seat: Seat) -> list[PeerId]:
    return [] if seat.node is None else seat.node.connections.banned


def of(seat: Seat, item: refused.Item, reason: Reason) -> refused.RefusedRow:
    return seat.chain.refused[item, reason]


def test_mined_block_against_a_country_rule_is_refused_by_every_honest_node_and_the_chain_goes_on() -> None:
    """Goal: the policy list decides what a block may carry, at every node alike. Method: d's program forgets the country rules and keeps
    all others: it seals, in its own turns, blocks with a record that its country may not make. Three members and a watcher refuse each,
    say why, end the conversation, ban at last; what they make themselves becomes final. With the right program d is with them again."""

    async def story(world: ChainWorld) -> None:
        world.liars.add("d")
        await first_final(world)
        await in_force(world, MEAT_FROM_NOBODY)
        await world.agree()
        liar = world.seats["d"]
        await liar.kill()
        liar.schedule = without_country_rules()
        await liar.start()
        await world.until(lambda: liar.chain.may_act() and len(liar.talking()) == 4, within_s=60, what="d talks with all")
        times = world.times()
        body = world.template.anchor("ann", "steak", schema="meat")
        meat = world.template.by("ann", "RecordAnchor", body, **times)
        await liar.chain.submit(meat)
        honest = [world.seats[name] for name in ("a", "b", "c", "w")]
        await world.until(
            lambda: all(("block", Reason.POLICY) in seat.chain.refused for seat in honest), within_s=120, what="refused by all"
        )
        for seat in honest:
            assert set(seat.chain.refused) == {("block", Reason.POLICY)}
            row = of(seat, "block", Reason.POLICY)
            assert row.peer == liar.peer
            with liar.engine.snapshot() as snapshot:
                block = store.block(snapshot, BlockHash(row.name))
            if block is not None:  # it may have given it up by now
                assert meat.id in {one.id for one in block.transactions}
            assert seat.node is not None
            assert any(peer == liar.peer and "may not record 'meat'" in why for peer, why in seat.node.connections.dropped)
            assert {peer for peer, _ in seat.node.connections.dropped} == {liar.peer}
        for _ in range(4):
            await becomes_final(world, honest)
        await world.until(lambda: all(liar.peer in banned_by(seat) for seat in honest), within_s=300, what="the ban")
        assert not any(seat.read("record") for seat in honest)
        await liar.kill()
        liar.schedule = SCHEDULE
        await liar.start()
        await world.submit("a")
        await world.agree()
        assert not any(seat.read("record") for seat in world.live())
        steel = world.template.by("ann", "RecordAnchor", replace(body, schema="steel"), **world.times())
        await world.seats["d"].chain.submit(steel)
        await world.until(
            lambda: all(len(seat.read("record")) == 1 for seat in world.live()), within_s=60, what="what is allowed is recorded"
        )

    life(61, story, watchers=("w",))


def spoiled(world: ChainWorld, block: Block, name: str, number: int) -> Block:
    """The miner's rightly sealed block with another state root."""
    info = codec.replace(block.info, state_root=sha256(b"rubbish", bytes([number])))
    old = decode_header(block.header)
    header = Header(old.t_stamp_ms, block_merkle_root(info, block.transactions), old.version, old.parent, old.nonce)
    seal = sign_seal(chains.key_of(name, "seal"), world.chain_id, info.slot, header.hash)
    return codec.replace(block, header=header.encoded, info=info, seal=seal)


def test_refusals_are_counted_by_reason_outlive_the_node_and_the_third_within_half_an_hour_bans() -> None:
    """Goal: who brings what no honest node makes is found out, in bounded room. Method: a peer brings blocks with wrong roots, each ends
    the connection and the third one bans; another peer's one does not; a bad seal bans at once and is counted apart; a block that comes too
    early is no fault; all counts are there after a kill, and when the chain's tables are thrown away."""

    async def story(world: ChainWorld) -> None:
        world.liars.add("d")
        await first_final(world)
        head = await block_of(world, "d")
        seat, d, other = world.seats["a"], world.seats["d"].peer, PeerId(b"peer-other")

        async def bring(block: Block, peer: PeerId) -> tuple[Reason, Verdict]:
            with pytest.raises(RemoteError) as caught:
                await seat.chain.take_block(block, peer, eager=True)
            return caught.value.reason, caught.value.verdict

        bad = [spoiled(world, head, "d", number) for number in range(9)]
        rooted = Reason.STATE_ROOT
        assert [await bring(bad[number], d) for number in range(2)] == [(rooted, Verdict.DROP)] * 2
        assert await bring(bad[2], other) == (rooted, Verdict.DROP)
        assert await bring(bad[3], d) == (rooted, Verdict.BAN)
        row = of(seat, "block", rooted)
        assert (row.count, row.peer, row.name, row.height) == (4, d, bad[3].hash, head.info.height)
        assert row.first_ms <= row.last_ms <= seat.chain.now_ms()
        assert [peer for peer, _ in seat.chain.scores()] == [d, other]
        unsealed = codec.replace(bad[4], seal=bytes(64))
        assert await bring(unsealed, other) == (Reason.BAD_SEAL, Verdict.BAN)
        early = decode_header(head.header)
        ahead = Header(UnixMillis(early.t_stamp_ms + 3_600_000), early.merkle_root, early.version, early.parent, early.nonce)
        await seat.chain.take_block(codec.replace(head, header=ahead.encoded), other, eager=True)
        counts = {key: row.count for key, row in seat.chain.refused.items()}
        assert counts == {("block", rooted): 4, ("block", Reason.BAD_SEAL): 1}
        kept = seat.chain.refused
        await seat.kill()
        await seat.start()
        await world.until(lambda: seat.chain.head() is not None, within_s=30, what="the chain")
        assert seat.chain.refused == kept
        await seat.chain._start_over(StoreDamaged("thrown away"))
        with seat.engine.snapshot() as snapshot:
            assert refused.rows(snapshot) == kept
        await world.agree()

    life(62, story)
