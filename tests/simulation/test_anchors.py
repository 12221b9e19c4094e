"""Records on the ledger, among whole nodes: each that was published becomes final everywhere, once, whatever happens in between."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace

import pytest
import trio

from node.actors import anchoring
from node.actors.anchoring import Anchoring
from protocols.codec import decode, encode
from protocols.files.holdings import Receipt
from protocols.files.objects import Statement
from protocols.ledger.filing import Intent
from protocols.ledger.transactions import record_anchor, storage_receipt
from protocols.ledger.transactions.records import Parent, RecordState
from protocols.limits import FOLDER_PAUSE_S, RECEIPTS_PAUSE_S
from protocols.types import Digest, HashId, RecordKey
from storage import chain as store
from storage import check, chunks
from storage.engine import Env

from .anchor_world import AnchorWorld
from .checkers import Violation
from .scheduler import SimulationFailed, chance, first_cause, run_world, seeds
from .test_world import CALM
from .trace import Trace
from .world import tell

WORLD_S_MAX = 3600.0
FOUR = replace(CALM, machines=4, scrub_period_s=3600.0)


def life(seed: int, story: Callable[[AnchorWorld], Awaitable[None]]) -> str:
    """The trace's hash of a world with this story."""
    kind = type("Told", (AnchorWorld,), {"story": story})

    async def world(number: int, trace: Trace) -> None:
        await tell(number, trace, FOUR, kind)

    return run_world(world, seed, virtual_seconds_max=WORLD_S_MAX)[1]


def test_record_becomes_final_on_every_node_and_then_all_is_quiet() -> None:
    """Goal: the thinnest complete path, and a quiet network stays quiet. Method: two puts; the state goes up, never back; then ten minutes
    in which no block comes but heartbeats."""

    async def story(world: AnchorWorld) -> None:
        first, second = world.machines[0], world.machines[1]
        data = await world.put(first, ack="quorum")
        assert data is not None
        assert data["state"] in ("local", "pooled", "in_block")
        await world.put(second)
        key = world.key_of(first, data)
        order = ["local", "pooled", "in_block", "final"]
        seen = ["local"]
        while seen[-1] != "final":
            await trio.sleep(0.05)
            state = str(world.anchorings()[0].standing(key)["state"])
            assert order.index(state) >= order.index(seen[-1])
            seen.append(state)
        assert {"pooled", "in_block"} <= set(seen)
        await world.until_final()
        await trio.sleep(2)  # the log is written after the block is final
        report = await world.anchorings()[2].report(key)
        assert (report["status"], report["change"], report["state"]) == ("active", "create", "final")
        assert isinstance(report["height"], int)
        assert world.blocks()[report["height"]].info.height == report["height"]
        assert report["is_this_statement"]
        log = (await world.anchorings()[0].report(key))["log"]
        steps = [step["step"] for step in log]  # type: ignore[attr-defined]
        assert {"received", "hashed", "encrypted", "chunked", "deduplicated", "replicated", "anchored", "confirmed"} <= set(steps)
        await trio.sleep(2 * RECEIPTS_PAUSE_S + 2 * FOLDER_PAUSE_S)
        carried = sum(len(block.transactions) for block in world.blocks())
        await trio.sleep(600)
        assert sum(len(block.transactions) for block in world.blocks()) == carried

    life(1, story)


def test_puts_before_a_kill_across_a_partition_and_twice_at_once_are_anchored_once() -> None:
    """Goal: nothing that was published is lost to the chain, nothing is there twice. Method: a node is killed right after the local
    acceptance; both halves of a partition put; two nodes of one member put the same at once."""

    async def story(world: AnchorWorld) -> None:
        one, two, three, four = world.machines
        await world.put(one)
        one.kill()
        await one.wait_down()
        await trio.sleep(5)
        one.switch_on()
        await one.wait_up()
        world.network.partition([one.peer, two.peer], [three.peer, four.peer])
        for machine in world.machines:
            await world.put(machine)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.put, three, b"the same" * 100)
            nursery.start_soon(world.put, four, b"the same" * 100)
        await trio.sleep(40)
        await world.everybody_up()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.put, three, b"another" * 100)
            nursery.start_soon(world.put, four, b"another" * 100)
        await world.until_final()
        assert len(world.published) == 7

    life(2, story)


@pytest.mark.parametrize("seed", seeds((0, 1, 2, 3)))
def test_every_published_record_becomes_final_once_after_faults(seed: int) -> None:
    """Goal: the same whatever strikes. Method: two minutes of puts, kills and cuts from one seed, then peace."""

    async def story(world: AnchorWorld) -> None:
        await world.disturb(120, chance(seed, "faults"))
        await world.until_final()
        assert world.published

    life(seed, story)


def test_checker_catches_what_is_remembered_and_not_found_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the checker can fail. Method: after a start only what comes new is looked at, and a node is killed between put and submit."""
    monkeypatch.setattr(Anchoring, "_find_open", lambda self: None)
    monkeypatch.setattr("tests.simulation.anchor_world.FINAL_S_MAX", 60.0)

    async def story(world: AnchorWorld) -> None:
        one = world.machines[0]
        await world.put(one)
        one.kill()
        await one.wait_down()
        one.switch_on()
        await one.wait_up()
        await world.until_final()

    with pytest.raises(SimulationFailed) as failure:
        life(3, story)
    cause = first_cause(failure.value)
    assert isinstance(cause, Violation)
    assert "not final" in str(cause)


def test_versions_and_merges_are_seen_from_both_ends() -> None:
    """Goal: a correction is another record that names what it corrects. Method: a record, its correction before it is anchored itself,
    a merge of the correction with another; every node says which is the newest."""

    async def story(world: AnchorWorld) -> None:
        one = world.machines[0]
        first = world.key_of(one, await world.put(one))
        other = world.key_of(one, await world.put(one))
        why = (("reason", "wrong date"),)
        second = world.key_of(one, await world.put(one, intent=Intent("correct", (Parent(*first),), why)))
        both = tuple(sorted((Parent(*second), Parent(*other)), key=lambda parent: parent.hash_id))
        third = world.key_of(one, await world.put(one, intent=Intent("merge", both, ())))
        await world.until_final()
        for there in world.anchorings():
            report = await there.report(first)
            assert (report["status"], report["newest"]) == ("superseded", [third[1].hex()])
            assert [row["record"] for row in report["changes"]] == [second[1].hex()]  # type: ignore[attr-defined]
            report = await there.report(second)
            assert (report["change"], report["parents"], report["tags"]) == ("correct", [first[1].hex()], dict(why))
            report = await there.report(third)
            assert (report["status"], report["change"], sorted(report["parents"])) == (  # type: ignore[call-overload]
                "active",
                "merge",
                sorted([second[1].hex(), other[1].hex()]),
            )

    life(4, story)


def test_deleted_and_put_again_is_restored() -> None:
    """Goal: one (owner, HashID) has one line of anchors. Method: put, final, delete, put the same: a restore with a greater number."""

    async def story(world: AnchorWorld) -> None:
        one = world.machines[0]
        key = world.key_of(one, await world.put(one, b"again" * 50))
        await world.until_final()
        node = await one.wait_up()
        await node.files.remove(key[1].hex(), "delete", dry_run=False)
        await world.put(one, b"again" * 50)

        await world._wait(world.not_final, 60, "final")
        record = world.record(key)
        assert record is not None
        assert record.seq == 3
        assert world.anchors()[key] == 2

    life(5, story)


def test_erased_record_is_erased_on_the_ledger_also_when_its_owner_was_killed_meanwhile() -> None:
    """Goal: an erasure reaches the chain as surely as an anchor. Method: two records; one is erased when it is final, one right after its
    put, while the anchor waits; the owner's node is killed at once; then both are put again."""

    async def story(world: AnchorWorld) -> None:
        one = world.machines[0]
        contents = (b"final" * 50, b"waiting" * 50)
        first = world.key_of(one, await world.put(one, contents[0]))
        await world.until_final()
        second = world.key_of(one, await world.put(one, contents[1]))
        world.published.clear()
        for key in (first, second):
            await one.call(lambda node, key=key: node.files.remove(key[1].hex(), "erase", dry_run=False), timeout_s=1.0)  # type: ignore[misc]
        one.kill()
        await one.wait_down()
        one.switch_on()
        await one.wait_up()

        def left() -> str:
            records = {key[1].hex()[:8]: world.record(key) for key in (first, second)}
            return " ".join(name for name, record in records.items() if record is not None and record.status != "erased")

        await trio.sleep(15)
        await world._wait(left, 60, "not erased")
        await world._wait(world._unequal, 60, "states")
        assert world.record(first) is not None
        for content in contents:
            await world.put(one, content)
        await world._wait(world.not_final, 60, "not final")
        assert [world.record(key).status for key in (first, second)] == ["active", "active"]  # type: ignore[union-attr]

    life(7, story)


def test_receipts_are_recorded_in_batches_and_folder_names_resolve_everywhere() -> None:
    """Goal: who holds what is on the chain, in few transactions; a folder's name leads to its newest version on every node, older
    versions are found by their hash. Method: twelve puts on four machines, some minutes; another put; the folder before and after."""

    async def story(world: AnchorWorld) -> None:
        for _ in range(3):
            for machine in world.machines:
                await world.put(machine, ack="quorum")
        await world.until_final()
        await trio.sleep(3 * RECEIPTS_PAUSE_S)
        counts = world.receipts_recorded()
        assert counts
        assert len(counts) <= 3 * len(world.machines)
        one = world.machines[0]
        mine = [key for key in world.published if key[0] == one.own.owner]
        reports = [await world.anchorings()[3].report(key) for key in mine]
        assert all(report["recorded_holders"] == len(world.machines) for report in reports)
        for there in world.anchorings():
            found = {"anchored": 12, "not_known_here": [], "other_statement": [], "not_anchored": []}
            assert await there.audit() == found
        before = [await there.folder(one.own.owner) for there in world.anchorings()]
        assert all(folder == before[0] for folder in before)
        assert before[0]["verified"]
        assert {row["record"] for row in before[0]["records"]} == {key[1].hex() for key in mine}  # type: ignore[attr-defined]
        await world.put(one)
        await world.until_final()
        await trio.sleep(3 * FOLDER_PAUSE_S)
        for there in world.anchorings():
            after = await there.folder(one.own.owner)
            assert after["sequence"] == before[0]["sequence"] + 1  # type: ignore[operator]
            assert len(after["records"]) == len(mine) + 1  # type: ignore[arg-type]
            old = await there.folder(one.own.owner, bytes.fromhex(str(before[0]["root"])))
            assert not old["is_newest"]
            assert old["records"] == before[0]["records"]

    life(6, story)


def test_audit_names_what_is_on_one_side_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: chain and store are compared in both directions. Method: three final records; the chain read as if one had another statement
    and there were a fourth; a record that is not anchored yet."""
    monkeypatch.setattr(anchoring, "AUDIT_AFTER_S", -10)

    async def story(world: AnchorWorld) -> None:
        one, two = world.machines[0], world.machines[1]
        keys = [world.key_of(one, await world.put(one)) for _ in range(3)]
        await world.until_final()
        node = await two.wait_up()
        assert node.anchoring is not None
        assert await node.anchoring.audit() == {"anchored": 3, "not_known_here": [], "other_statement": [], "not_anchored": []}
        read = anchoring._anchored
        strange = (keys[0][0], HashId(bytes(32)))
        changed = {keys[1]: Digest(bytes(32)), strange: Digest(bytes(32))}
        monkeypatch.setattr(anchoring, "_anchored", lambda snapshot, until_ms: read(snapshot, until_ms) | changed)
        fresh = world.key_of(two, await world.put(two))
        assert await node.anchoring.audit() == {
            "anchored": 4,
            "not_known_here": [strange[1].hex()],
            "other_statement": [keys[1][1].hex()],
            "not_anchored": [fresh[1].hex()],
        }

    life(8, story)


def test_bytes_on_the_ledger_do_not_depend_on_the_size_of_a_record_and_each_anchor_has_one_object() -> None:
    """Goal: data live outside, one hash inside, one to one. Method: records of 1 KiB, 300 KiB and 2 MiB on four nodes. The bytes
    of their anchors in the blocks, and of all that the state says of them, are the same but for the lengths of numbers; receipts in the
    blocks grow by one root for each sequence and by nothing else. On each node every anchor names one statement, which is that of one
    record, and every sequence that it stands for is there and whole."""

    async def story(world: AnchorWorld) -> None:
        one = world.machines[0]
        sizes = (1 << 10, 300 << 10, 2 << 20)
        keys = [world.key_of(one, await world.put(one, world.mind.randbytes(size), ack="full")) for size in sizes]
        await world.until_final()
        await trio.sleep(3 * RECEIPTS_PAUSE_S)
        await world.until_final()
        anchors: dict[RecordKey, int] = {}
        receipts: dict[RecordKey, dict[bytes, int]] = {key: {} for key in keys}
        sequences: dict[RecordKey, int] = {}
        for transaction in (one for block in world.blocks() for one in block.transactions):
            if transaction.content.kind == record_anchor.KIND.number:
                statement = decode(decode(transaction.content.body, record_anchor.Body).statement.body, Statement)
                anchors[statement.owner, statement.hash_id] = len(encode(transaction))
            elif transaction.content.kind == storage_receipt.KIND.number:
                for signed in decode(transaction.content.body, storage_receipt.Body).receipts:
                    receipt = decode(signed.body, Receipt)
                    for item in receipt.items:
                        receipts[item.owner, item.hash_id][receipt.holder] = len(encode(item))
                        sequences[item.owner, item.hash_id] = len(item.sequence_roots)
        small, _, large = keys
        assert max(anchors.values()) - min(anchors.values()) <= 8
        with one.disk(Env.LEDGER).snapshot() as snapshot:
            state = {key: [(name, len(value)) for name, value in store.state_items(snapshot) if key[0] + key[1] in name] for key in keys}
        assert len({len(rows) for rows in state.values()}) == 1
        assert len(state[small]) > len(world.machines)
        counts = [sum(size for _, size in rows) for rows in state.values()]
        assert max(counts) - min(counts) <= 8
        assert sequences[large] - sequences[small] >= 4
        for holder, size in receipts[small].items():
            assert 0 <= receipts[large][holder] - size - 34 * (sequences[large] - sequences[small]) <= 4
        for machine, node in zip(world.machines, world.nodes(), strict=True):
            with machine.disk(Env.LEDGER).snapshot() as snapshot:
                view = store.ChainState(snapshot)
                named = {key: decode(view.get("record", key[0] + key[1]) or b"", RecordState) for key in keys}
            assert len({row.statement for row in named.values()}) == len({row.anchor for row in named.values()}) == len(keys)
            for key, row in named.items():
                assert [other for other, facts in node.knowledge.records.items() if row.statement in facts.objects] == [key]
                statement = node.knowledge.records[key].statement(row.statement)[1]
                assert (statement.owner, statement.hash_id, statement.chunks_root) == (*key, row.chunks_root)
                with machine.disk(Env.CHUNKS).snapshot() as kept:
                    held = [found for found in chunks.sequences(kept) if (found.owner, found.hash_id) == key]
                    assert not any(check.check_sequence(kept, found) for found in held)
                assert len(held) == sequences[key]

    life(15, story)
