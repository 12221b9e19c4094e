"""What nodes do with the ledger beside following it: they tell the trail of an id, keep history, and tell people what it says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
import trio

from node.actors import archives
from node.actors.archives import Archives
from node.actors.chain import ChainSetup
from node.actors.puts import PutOptions
from node.api import NodeApi
from node.wiring import Node
from protocols.codec import Record, decode
from protocols.codec import replace as replace_fields
from protocols.errors import LadingError, Reason, Refused, StoreDamaged
from protocols.ledger.checks import u64
from protocols.ledger.filing import Intent
from protocols.ledger.profile import DEFAULT_POLICY, Cluster, CountryRule
from protocols.ledger.seals.table import SEALS
from protocols.ledger.trail import TrailHead, TrailStep, check_trail_head, check_trail_step
from protocols.ledger.transactions import cert_status, cluster_define, penalty, penalty_lift, policy_list_update
from protocols.ledger.transactions.folder_update import FOLDER
from protocols.ledger.votes import Checkpoint
from protocols.limits import RECEIPTS_PAUSE_S
from protocols.types import AccountId, BlockHash, TxId, UnixMillis
from storage import chain as store
from storage.engine import Delete, Env, Put, Write
from storage.tables import CHAIN_HEIGHTS
from tests.protocols.ledger import chains

from .anchor_world import AnchorWorld
from .chain_world import ChainWorld, Seat
from .scheduler import seeds
from .test_anchors import life
from .test_chain import first_final
from .test_chain import life as chain_life
from .test_chain_snapshot import NEW, grow, kept
from .test_rulings import account, council_says, until
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
    on another, also while that is cut off; the proofs checked with the chain's id and a final block that a third one has alone; a node
    that keeps four heights says what it has not. An index that shows another block is noticed by both."""

    async def story(world: AnchorWorld) -> None:
        one, two, three, _ = world.machines
        key = world.key_of(one, await world.put(one, ack="full"))
        await world.until_final()
        about = AccountId(two.own.member_id)
        await council_says(world, "Penalty", penalty.Body(about, "warn", "late", (), UnixMillis(0)))
        await world.put(one)
        await world.until_final()
        node = await node_of(two)
        (warned,) = [row for row in (await asked(node, "ledger.history", what=about.hex()))["transactions"] if row["kind"] == "Penalty"]
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
        of_member = await asked(node, "ledger.history", what=about.hex(), proofs=True)
        assert rows_of(of_member)[0][0] == "ChainGenesis"
        assert {"Penalty", "PenaltyLift"} <= {kind for kind, _ in rows_of(of_member)}
        check_told(of_member, blocks_of(three), world)
        first = await asked(node, "ledger.history", what=about.hex(), limit=1)
        assert [kind for kind, _ in rows_of(first)] == ["ChainGenesis"]
        rest = await asked(node, "ledger.history", what=about.hex(), after=0)
        assert rest["transactions"] == [{k: v for k, v in row.items() if k != "proof"} for row in of_member["transactions"][1:]]
        world.network.partition([two.peer], [machine.peer for machine in world.machines if machine is not two])
        for height, name in enumerate(blocks_of(two)):
            assert (await asked(node, "ledger.show", what=str(height)))["block"] == name.hex()
        assert (await asked(node, "ledger.history", what=key[1].hex(), proofs=True))["transactions"] == told["transactions"]
        world.network.heal_all()
        with pytest.raises(LadingError) as nobody:
            await asked(node, "ledger.history", what="00" * 32)
        assert nobody.value.reason is Reason.NOT_FOUND

        three.kill()
        await three.wait_down()
        assert isinstance(three.chain, ChainSetup)
        three.chain = replace(three.chain, heights_kept=4)
        three.switch_on()
        await three.wait_up()
        await world.put(one)
        await world.until_final()
        pruned = await node_of(three)
        assert pruned.chain is not None
        anchor = told["transactions"][0]
        await until(lambda: pruned_to(three) > anchor["height"], "it prunes")
        for args in ({"what": anchor["transaction"]}, {"what": about.hex(), "proofs": True}):
            with pytest.raises(LadingError) as gone:
                await asked(pruned, "ledger.history", **args)
            assert gone.value.reason is Reason.PRUNED
        for what in ("0", anchor["transaction"]):
            with pytest.raises(LadingError) as gone:
                await asked(pruned, "ledger.show", what=what)
            assert gone.value.reason is Reason.PRUNED
            assert (await asked(node, "ledger.show", what=what))["height"] in (0, anchor["height"])
        newest = world.key_of(one, await world.put(one))
        await world.until_final()
        part = await asked(pruned, "ledger.history", what=newest[1].hex()[:12])
        assert rows_of(part)[0] == ("RecordAnchor", "final")
        for machine, asker in ((two, node), (three, pruned)):
            height = pruned_to(machine) + 1
            away, back = other_block_at(machine, height)
            machine.disk(Env.LEDGER).write(away)
            with pytest.raises(StoreDamaged):
                await asked(asker, "ledger.history", what=newest[1].hex())
            machine.disk(Env.LEDGER).write(back)
            await asked(asker, "ledger.history", what=newest[1].hex())
        assert part["from_height"] == pruned_to(three)
        assert all(row["proven"] is (row["state"] == "final") for row in part["transactions"])

    life(31, story)


def other_block_at(machine: Machine, height: int) -> tuple[list[Write], list[Write]]:
    """Makes a machine's index show the block above at a height, and takes that back."""
    with machine.disk(Env.LEDGER).snapshot() as snapshot:
        ((here,), (above,)) = (store.blocks_at(snapshot, at) for at in (height, height + 1))
    ours, other = u64(height) + here, u64(height) + above
    return [Delete(CHAIN_HEIGHTS, ours), Put(CHAIN_HEIGHTS, other, b"\x01")], [
        Delete(CHAIN_HEIGHTS, other),
        Put(CHAIN_HEIGHTS, ours, b"\x01"),
    ]


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


def archive(seat: Seat) -> Archives:
    assert seat.node is not None
    return seat.node.archives


def holds_all(seat: Seat) -> bool:
    return kept(seat)[0] == 0


@pytest.mark.parametrize("seed", seeds((61,)))
def test_last_archives_refuse_to_prune_and_say_so_and_go_when_others_hold_all(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: history is never lost because everybody prunes. Method: four nodes that are to keep four heights, of a chain whose policy list
    wants two archives: two prune, two refuse and say why. One of these dies: the other says that one is left. A newcomer that keeps all
    fetches the history from it, the dead one comes back: one more may prune now, and no second one."""
    monkeypatch.setattr(store, "STATES_KEPT", 3)
    for name, seconds in (("TICK_S", 1.0), ("LOOK_S", 20.0), ("DUE_S_MIN", 2.0), ("DUE_S_MAX", 6.0)):
        monkeypatch.setattr(archives, name, seconds)

    async def story(world: ChainWorld) -> None:
        await first_final(world)
        for seat in world.live():
            await seat.kill()
            seat.heights_kept = 4
        for seat in world.seats.values():
            await seat.start()
        await world.until(lambda: min(world.final_heights()) > 0, within_s=120, what="final blocks again")

        async def settled(wanted: int) -> None:
            """No fewer hold all at any time, and in the end so many."""
            for _ in range(8):
                await grow(world, 1)
                await trio.sleep(4)
                assert sum(map(holds_all, world.live())) >= wanted
            assert sum(map(holds_all, world.live())) == wanted

        await settled(2)
        last = [seat for seat in world.live() if holds_all(seat)]
        for seat in world.live():
            warnings = " ".join(archive(seat).warnings())
            assert ("as long as too few others do" in warnings) is (seat in last)
            assert "connected nodes hold all" not in warnings
        await last[0].kill()
        await trio.sleep(25)
        for seat in world.live():
            found = archive(seat).found
            assert found is not None
            assert (found.count, found.wanted) == (1, 2)
            assert "1 connected nodes hold all of the ledger, the policy list wants 2" in archive(seat).warnings()[0]
        new = world.newcomer(NEW, None)
        await new.start()
        await world.until(lambda: new.chain.checkpoints()[1].height > 4 and holds_all(new), within_s=300, what="all history")
        await trio.sleep(25)
        assert holds_all(last[1])
        await last[0].start()
        await settled(2)
        assert holds_all(new)
        await world.agree()

    chain_life(seed, story)


async def warned(node: Node, operation: str) -> str:
    """What this operation warns of; of `doctor` its checks that are not well."""
    answer = await NodeApi(node).call(operation, {}, body=None, progress=lambda facts: None, output=None)
    if operation == "doctor":
        return " ".join(check["message"] for check in answer.data["checks"] if check["level"] != "ok")  # type: ignore[attr-defined]  # a list
    return " ".join(answer.warnings)


def test_even_seats_and_missing_archives_are_told_wherever_people_look(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: what the policy list wants, and odd seats, are seen in status. Method: four nodes, three seats: nothing; a cluster with one
    seat more and a list that wants five archives: both are told, with the numbers; enough archives and odd seats again: nothing."""
    monkeypatch.setattr(archives, "LOOK_S", 10.0)
    words = ("4 connected nodes hold all of the ledger, the policy list wants 5", "4 seats of miners, an even number")

    async def story(world: AnchorWorld) -> None:
        node = await node_of(world.machines[1])
        assert node.chain is not None
        await until(
            lambda: node.main is not None and node.main.archives.found is not None and node.main.archives.found.count == 4, "archives"
        )

        async def said() -> dict[str, str]:
            return {operation: await warned(node, operation) for operation in ("status", "ledger.status", "miner.status", "doctor")}

        async def enacted(seats: int, wanted: int, version: int) -> None:
            await council_says(world, "ClusterDefine", cluster_define.Body(Cluster("all", (), seats)))
            policy = replace_fields(DEFAULT_POLICY, version=version, archives_min=wanted)
            assert node.chain is not None
            height = node.chain.checkpoints()[0].height + 3
            await council_says(world, "PolicyListUpdate", policy_list_update.Body(height, policy))
            while node.chain.checkpoints()[1].height < height:
                await world.put(world.machines[0])
                await trio.sleep(3)
            await trio.sleep(2 * archives.LOOK_S)

        assert not any(word in text for text in (await said()).values() for word in words)
        await enacted(4, 5, 2)
        told = await said()
        for operation in ("status", "ledger.status", "doctor"):
            assert all(word in told[operation] for word in words), operation
        assert words[1] in told["miner.status"]
        (row,) = (await asked(node, "ledger.status"))["chains"]
        assert (row["seats"], row["archives"]) == (4, {"connected": 4, "wanted": 5})
        assert (await asked(node, "status"))["alerts"] == []
        await enacted(5, 4, 3)
        assert not any(word in text for text in (await said()).values() for word in ("seats of miners", "hold all"))

    life(32, story)


def folder_of(world: AnchorWorld, machine: Machine) -> bytes | None:
    """The folder of a machine's member as the first machine's state has it."""
    with world.machines[0].disk(Env.LEDGER).snapshot() as snapshot:
        return store.ChainState(snapshot).get(FOLDER, machine.own.member_id + b"records")


def test_first_put_of_a_member_is_stopped_with_a_reason_while_it_does_not_meet_the_conditions() -> None:
    """Goal: no profile and no folder for who may not act. Method: members that have put nothing yet: one suspended, one whose country may
    not record a schema, or is not admitted at all, one revoked: each first put is refused with its reason, nothing of it is stored or
    told, and there is no folder. A member in use goes on. When the conditions hold again, the first put makes record and folder."""

    async def story(world: AnchorWorld) -> None:
        one, two, three, _ = world.machines
        await world.put(one)
        await until(lambda: folder_of(world, one) is not None, "the folder of who is in use")
        node = await node_of(two)

        async def refused(machine: Machine, schema: str = "") -> Reason:
            node = await node_of(machine)
            intent = Intent("create", (), (), schema=schema)
            before = node.world.chunks.usage().bytes_used
            with pytest.raises(Refused) as error:
                await node.files.put([world.file()], PutOptions(ack="local", intent=intent))
            assert "first use" in error.value.message
            assert not any(owner == machine.own.owner for owner, _ in node.knowledge.records)
            assert node.world.chunks.usage().bytes_used == before
            return error.value.reason

        def is_settled() -> bool:
            out = world.nodes()[0].knowledge.denied
            there = [one.chain for one in world.nodes() if one.own.member_id not in out and one.chain is not None]
            return not any(len(chain.pool) for chain in there) and len({chain.checkpoints()[0] for chain in there}) == 1

        async def in_block(kind: str, body: Record) -> None:
            await council_says(world, kind, body)
            await until(is_settled, kind)

        async def enact(version: int, **changes: object) -> None:
            assert node.chain is not None
            height = node.chain.checkpoints()[0].height + 2
            policy = replace_fields(DEFAULT_POLICY, version=version, **changes)
            await in_block("PolicyListUpdate", policy_list_update.Body(height, policy))
            await in_block("Penalty", penalty.Body(chains.account_of("dan"), "warn", "one block more", (), UnixMillis(0)))

        await in_block("CertStatus", cert_status.Body(account(two).serial, "suspend", "why"))
        assert await refused(two) is Reason.SUSPENDED
        await in_block("CertStatus", cert_status.Body(account(two).serial, "resume", ""))
        await enact(2, country_rules=(CountryRule("CN", "scan", False),))
        assert await refused(two, "scan") is Reason.POLICY
        await enact(3, denied=("CN",))
        assert await refused(two) is Reason.POLICY
        await world.put(one)  # which is not stopped, and waits for the chain as others do
        await enact(4)
        await in_block("CertStatus", cert_status.Body(account(three).serial, "revoke", "why"))
        assert await refused(three) is Reason.REVOKED
        assert [folder_of(world, machine) is None for machine in (one, two, three)] == [False, True, True]
        assert await world.put(two) is not None
        await until(lambda: folder_of(world, two) is not None, "its folder")

    life(33, story)


def test_member_that_is_punished_and_owners_of_the_records_concerned_are_told() -> None:
    """Goal: a penalty is noticed by whom it concerns. Method: three nodes watch; a warning to one member whose evidence is the second one's
    record and the anchor of another of its records; then a suspension with an end. `watch` tells it on every node that hears the chain,
    alerts and inbox tell the member and the owner alone, the latter with the records; lifted, or over, they say it no more. A node that
    starts afterwards says what is in force."""
    heard: dict[str, list[Mapping[str, object]]] = {}

    async def story(world: AnchorWorld) -> None:
        one, two, three, _ = world.machines
        keys = [world.key_of(one, await world.put(one)) for _ in range(3)]
        await world.until_final()
        nodes = {machine.name: await node_of(machine) for machine in (one, two, three)}
        anchor = world.record(keys[1])
        assert anchor is not None

        def told(machine: Machine) -> list[tuple[object, ...]]:
            return [(event["event"], event["level"], event["is_this_member"], event["own_records"]) for event in heard[machine.name]]

        def alerts(machine: Machine) -> str:
            assert machine.node is not None
            assert machine.node.rulings is not None
            return " ".join(machine.node.rulings.alerts.values())

        async with trio.open_nursery() as nursery:
            for name, node in nodes.items():
                nursery.start_soon(watch, node, heard.setdefault(name, []))
            await trio.sleep(1)
            target = AccountId(two.own.member_id)
            evidence = tuple(sorted((keys[0][1], anchor.anchor)))
            await council_says(world, "Penalty", penalty.Body(target, "warn", "read too much", evidence, UnixMillis(0)))
            await until(lambda: all(heard.values()), "the warning is heard")
            records = [key[1].hex() for key in sorted(keys[:2], key=lambda key: key[1])]
            assert told(one) == [("penalty", "warn", False, records)]
            assert told(two) == [("penalty", "warn", True, [])]
            assert told(three) == [("penalty", "warn", False, [])]
            assert heard["n0"][0]["evidence"] == [name.hex() for name in evidence]
            assert "warned this member: read too much" in alerts(two)
            assert "warned member" in alerts(one)
            assert all(record[:16] in alerts(one) for record in records)
            assert not alerts(three)
            boxes = [(await asked(nodes[machine.name], "inbox"))["notices"] for machine in (one, two, three)]
            assert [[row["level"] for row in box] for box in boxes] == [["warn"], ["warn"], []]
            warning = bytes.fromhex(boxes[0][0]["transaction"])

            one.kill()
            await one.wait_down()
            one.switch_on()
            again = await one.wait_up()
            await until(lambda: "warned member" in alerts(one), "what is in force after a start")
            await council_says(world, "PenaltyLift", penalty_lift.Body(warning, "paid"))
            await until(lambda: len(heard[two.name]) > 1 and not alerts(one), "the lift")
            assert told(two)[1][:3] == ("penalty ended", "warn", True)
            assert not alerts(two)
            assert (await asked(again, "inbox"))["notices"] == []

            assert again.chain is not None
            end = UnixMillis(again.chain.now_ms() + 20_000)
            await council_says(world, "Penalty", penalty.Body(target, "suspend", "again", (), end))
            await until(lambda: "suspended this member until" in alerts(two), "the suspension, at the member itself")
            await trio.sleep(25)
            await world.put(three)
            await until(lambda: told(three)[-1][:2] == ("penalty ended", "suspend"), "its end")
            await until(lambda: not alerts(two), "the member hears of its end")
            nursery.cancel_scope.cancel()

    life(34, story)


async def watch(node: Node, heard: list[Mapping[str, object]]) -> None:
    """What `lading watch` tells of penalties, until the node ends."""

    def tell(facts: Mapping[str, object]) -> None:
        if str(facts["event"]).startswith("penalty"):
            heard.append(facts)

    await NodeApi(node).call("watch", {}, body=None, progress=tell, output=None)
