"""What nodes do with the ledger beside following it: they tell the trail of an id, keep history, and tell people what it says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest

from node.actors.chain import ChainSetup
from node.api import NodeApi
from node.wiring import Node
from protocols.codec import decode
from protocols.errors import LadingError, Reason
from protocols.ledger.seals.table import SEALS
from protocols.ledger.trail import TrailHead, TrailStep, check_trail_head, check_trail_step
from protocols.ledger.transactions import penalty, penalty_lift
from protocols.ledger.votes import Checkpoint
from protocols.limits import RECEIPTS_PAUSE_S
from protocols.types import AccountId, BlockHash, TxId, UnixMillis
from storage import chain as store
from storage.engine import Env

from .anchor_world import AnchorWorld
from .test_anchors import life
from .test_rulings import council_says, until
from .test_shared import node_of
from .world import Machine


async def asked(node: Node, operation: str, **args: object) -> Mapping[str, Any]:
    """What a program is answered."""
    return (await NodeApi(node).call(operation, args, body=None, progress=lambda facts: None, output=None)).data


def rows_of(data: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(row["kind"], row["state"]) for row in data["transactions"]]


def blocks_of(machine: Machine) -> Sequence[bytes]:
    """Hashes of a machine's final blocks by height."""
    with machine.disk(Env.LEDGER).snapshot() as snapshot:
        final = store.final_block(snapshot)
        assert final is not None
        found = store.branch(snapshot, final)
        assert found is not None
        return (*found, final)


def test_trail_of_a_record_and_of_a_member_is_listed_with_proofs_that_another_node_can_check() -> None:
    """Goal: every transaction that touches an id, each with what shows it. Method: a record put on one node, a penalty and its lift; asked
    on another; the proofs checked with nothing but the first block's id and a final block that a third one has; a node that keeps two
    heights alone says what it has not."""

    async def story(world: AnchorWorld) -> None:
        one, two, three, _ = world.machines
        key = world.key_of(one, await world.put(one, ack="full"))
        await world.until_final()
        account = AccountId(two.own.member_id)
        await council_says(world, "Penalty", penalty.Body(account, "warn", "late", (), UnixMillis(0)))
        await world.put(one)
        await world.until_final()
        node = await node_of(two)
        (warned,) = [row for row in (await asked(node, "ledger.history", what=account.hex()))["transactions"] if row["kind"] == "Penalty"]
        await council_says(world, "PenaltyLift", penalty_lift.Body(bytes.fromhex(warned["transaction"]), "paid"))
        await world.put(one)
        await world.until_final()
        await until(lambda: bool(world.receipts_recorded()), "receipts on the chain", 5 * RECEIPTS_PAUSE_S)

        told = await asked(node, "ledger.history", what=key[1].hex()[:16], proofs=True)
        assert told["id"] == key[1].hex()
        kinds = [kind for kind, _ in rows_of(told)]
        assert kinds[0] == "RecordAnchor"
        assert "StorageReceipt" in kinds[1:]
        assert told["transactions"][0]["actor"] == one.own.member_id.hex()
        check_told(told, blocks_of(three), world)
        of_member = await asked(node, "ledger.history", what=account.hex(), proofs=True)
        assert rows_of(of_member)[0][0] == "ChainGenesis"
        assert {"Penalty", "PenaltyLift"} <= {kind for kind, _ in rows_of(of_member)}
        check_told(of_member, blocks_of(three), world)
        first = await asked(node, "ledger.history", what=account.hex(), limit=1)
        assert [kind for kind, _ in rows_of(first)] == ["ChainGenesis"]
        rest = await asked(node, "ledger.history", what=account.hex(), after=0)
        assert rest["transactions"] == [{k: v for k, v in row.items() if k != "proof"} for row in of_member["transactions"][1:]]
        with pytest.raises(LadingError) as nobody:
            await asked(node, "ledger.history", what="00" * 32)
        assert nobody.value.reason is Reason.NOT_FOUND

        three.kill()
        await three.wait_down()
        assert isinstance(three.chain, ChainSetup)
        three.chain = replace(three.chain, heights_kept=2)
        three.switch_on()
        await three.wait_up()
        await world.put(one)
        await world.until_final()
        pruned = await node_of(three)
        assert pruned.chain is not None
        anchor = told["transactions"][0]
        await until(lambda: pruned_to(three) > anchor["height"], "it prunes")
        for args in ({"what": anchor["transaction"]}, {"what": account.hex(), "proofs": True}):
            with pytest.raises(LadingError) as gone:
                await asked(pruned, "ledger.history", **args)
            assert gone.value.reason is Reason.PRUNED
        for what in ("0", anchor["transaction"]):
            with pytest.raises(LadingError) as gone:
                await asked(pruned, "ledger.show", what=what)
            assert gone.value.reason is Reason.PRUNED
            assert (await asked(node, "ledger.show", what=what))["height"] in (0, anchor["height"])
        part = await asked(pruned, "ledger.history", what=account.hex()[:12])
        assert part["from_height"] == pruned_to(three)
        assert all(row["proven"] is (row["state"] == "final") for row in part["transactions"])

    life(31, story)


def pruned_to(machine: Machine) -> int:
    with machine.disk(Env.LEDGER).snapshot() as snapshot:
        return store.lowest_height(snapshot)


def check_told(told: Mapping[str, Any], blocks: Sequence[bytes], world: AnchorWorld) -> None:
    """As somebody else would, who has these final blocks."""
    chain, seal = world.template.chain, SEALS[world.template.profile.seal]
    height = int(told["anchor"].split(":")[1])
    trusted = Checkpoint(height, BlockHash(blocks[height]))
    peaks = check_trail_head(decode(bytes.fromhex(told["head"]), TrailHead), chain, seal, trusted)
    proven = 0
    for row in told["transactions"]:
        assert row["proven"] is (row["state"] == "final") is bool(row["proof"])
        if row["proof"]:
            step = decode(bytes.fromhex(row["proof"]), TrailStep)
            name = TxId(bytes.fromhex(row["transaction"]))
            found = check_trail_step(step, chain, seal, head=trusted, peaks=peaks, wanted=name)
            assert (found.height, found.hash.hex()) == (row["height"], row["block"])
            proven += 1
    assert proven
