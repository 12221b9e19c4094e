"""Records of several owners, among whole nodes: asked once, carried out by the last yes, ended by a no or by time, whatever happens."""

from __future__ import annotations

import contextlib
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import cast

import pytest
import trio

from node.actors import anchoring
from node.actors.anchoring import Anchoring
from node.http.contract import iso
from node.record_api import RecordApi
from node.wiring import Node
from protocols.errors import LadingError, Refused
from protocols.ledger.filing import Intent
from protocols.ledger.transactions.records import Parent
from protocols.types import AccountId, RecordKey

from .anchor_world import AnchorWorld
from .scheduler import chance, seeds
from .test_anchors import life
from .world import Machine

Row = Mapping[str, object]


def account(machine: Machine) -> AccountId:
    return AccountId(machine.own.member_id)


def shared(*machines: Machine, deadline_s: int = 0, change: str = "create", parents: Sequence[Parent] = ()) -> Intent:
    """What a put asks for that these own too."""
    owners = tuple(sorted({account(machine) for machine in machines}))
    return Intent(change, tuple(parents), (), owners=owners, approve_ms=deadline_s * 1000)  # type: ignore[arg-type]  # one of them


async def node_of(machine: Machine) -> Node:
    node = await machine.wait_up()
    assert node.anchoring is not None
    return node


async def ask(machine: Machine, operation: str, **args: object) -> Row:
    answer = await RecordApi(await node_of(machine)).operations[operation](args)
    return cast(Row, answer.data)


async def inbox(machine: Machine) -> list[Row]:
    return cast(list[Row], (await ask(machine, "inbox"))["waiting"])


async def report(machine: Machine, key: RecordKey) -> Row:
    return await cast(Anchoring, (await node_of(machine)).anchoring).report(key)


async def alert(machine: Machine) -> str | None:
    return cast(Anchoring, (await node_of(machine)).anchoring).alerts.get("anchoring")


async def until(condition: Callable[[], Awaitable[object]], what: str, seconds: float = 60.0, *, pause: float = 0.5) -> None:
    end = trio.current_time() + seconds
    while not await condition():
        assert trio.current_time() < end, what
        await trio.sleep(pause)


def names(row: Row, key: str) -> set[str]:
    return {str(one["member"]) for one in cast(Sequence[Row], row[key])}


async def restart(machine: Machine) -> None:
    machine.kill()
    await machine.wait_down()
    machine.switch_on()
    await machine.wait_up()


def test_record_of_three_owners_is_there_when_the_last_has_approved_though_all_were_killed_meanwhile() -> None:
    """Goal: asked once, answered once, carried out once. Method: a put of three owners; each node is killed right after its word; what is
    seen on all nodes in between; no second anchor."""

    async def story(world: AnchorWorld) -> None:
        one, two, three, four = world.machines
        key = world.key_of(one, await world.put(one, intent=shared(two, three)))
        world.published.clear()
        await restart(one)

        async def asked() -> object:
            return [row for row in await inbox(two) if row["state"] == "final"]

        await until(asked, "nobody was asked")
        (row,) = await inbox(two)
        assert "inbox" in (await node_of(two)).rulings.alerts
        assert "inbox" not in (await node_of(one)).rulings.alerts
        assert (row["kind"], row["record"], row["change"], row["needed"]) == ("RecordAnchor", key[1].hex(), "create", 2)
        assert names(row, "lacking") == {account(two).hex(), account(three).hex()}
        for machine in (one, two, three, four):
            said = await report(machine, key)
            assert (said["validity"], said["waiting_for"]) == ("waiting", "the approval of others")
        assert (await report(one, key))["state"] == "pending"
        assert await inbox(one) == []
        await restart(one)
        await ask(two, "approve", id=key[1].hex()[:12])
        await restart(two)

        async def lacks_three() -> bool:
            (pending,) = cast(Sequence[Row], (await report(one, key))["pending"])
            return names(pending, "approved") == {account(two).hex()} and names(pending, "lacking") == {account(three).hex()}

        await until(lacks_three, "the first approval")
        assert await inbox(two) == []
        (row,) = await inbox(four)  # another node of the third member
        first = await ask(three, "approve", id=row["id"])
        again = await ask(three, "approve", id=row["id"])
        assert (first["state"], again["state"]) == ("pooled", "pooled")
        await restart(three)
        world.published[key] = one.name
        await world.until_final()
        for machine in world.machines:
            said = await report(machine, key)
            assert (said["validity"], said["status"], "pending" in said) == ("valid", "active", False)
            assert names(said, "owners") == {account(machine).hex() for machine in world.machines}
        await trio.sleep(300)
        assert world.anchors()[key] == 1

    life(11, story)


@pytest.mark.parametrize("seed", seeds((5, 13, 15)))
def test_each_shared_record_is_carried_out_once_or_ended_after_faults(seed: int) -> None:
    """Goal: the same whatever strikes. Method: two minutes of shared puts, of yes and no, of kills and cuts from one seed, then peace; what
    nobody refused is final by one anchor on every node, what somebody refused is on none, and nobody is asked any more."""

    async def story(world: AnchorWorld) -> None:
        rng = chance(seed, "people")
        refused: set[str] = set()
        end = trio.current_time() + 120

        async def answer(machine: Machine, *, yes: bool) -> None:
            if not machine.is_up or machine.node is None or not machine.node.ready.is_set():
                return
            with contextlib.suppress(LadingError):  # killed meanwhile, or said already
                rows = await inbox(machine)
                if rows:
                    row = rng.choice(rows)
                    await ask(machine, "approve", id=row["id"], refuse=not yes)
                    if not yes:
                        refused.add(str(row["record"]))

        while trio.current_time() < end:
            await trio.sleep(rng.uniform(0.2, 3.0))
            machine = rng.choice(world.machines[:3])
            match rng.randrange(8):
                case 0 if machine.node is not None:
                    machine.kill()
                    await machine.wait_down()
                case 1:
                    machine.switch_on()
                case 2:
                    world.network.partition([machine.peer], [one.peer for one in world.machines if one is not machine])
                case 3:
                    world.network.heal_all()
                case 4 | 5 if machine.is_up:
                    others = [one for one in world.machines[:3] if one is not machine]
                    await world.put(machine, intent=shared(*rng.sample(others, rng.randrange(1, 3))))
                case _:
                    await answer(machine, yes=rng.random() < 0.8)
        await world.everybody_up()
        for _ in range(120):
            await trio.sleep(1)
            for machine in world.machines[:3]:
                await answer(machine, yes=True)
        await trio.sleep(60)
        assert [await inbox(machine) for machine in world.machines] == [[]] * 4
        assert world.published  # before those that were refused leave the list: in a short story that may be all
        for key in list(world.published):
            found = {str((await report(machine, key))["validity"]) for machine in world.machines if machine.name == world.published[key]}
            record = world.record(key)
            if record is None:
                assert key[1].hex() in refused
                assert found == {"invalid"}
                del world.published[key]
            assert world.anchors()[key] == 1
        await world.until_final()

    life(seed, story)


def test_record_is_anchored_as_it_was_asked_for_though_another_node_of_its_member_knows_it_alone() -> None:
    """Goal: no node guesses what another one was asked for. Method: a node is cut off when another one of its member has heard of its
    record, longer than anybody waits; the other one anchors nothing, says why, also after a restart; then all goes as it was asked."""

    async def story(world: AnchorWorld) -> None:
        one, _, three, four = world.machines
        key = world.key_of(three, await world.put(three, intent=shared(one)))
        knowledge = (await node_of(four)).facts.knowledge

        async def is_heard_of() -> bool:
            return key in knowledge.records

        await until(is_heard_of, "not heard of", pause=0.01)
        world.network.partition([three.peer], [machine.peer for machine in world.machines if machine is not three])
        world.published.clear()
        await trio.sleep(90)
        assert "start that node" in str(await alert(four))
        await restart(four)
        await trio.sleep(90)
        assert "another node of this member" in str((await report(four, key))["waiting_for"])
        assert (await report(four, key))["state"] == "local"
        assert world.anchors()[key] == 0
        world.network.heal_all()

        async def asked() -> object:
            return await inbox(one)

        await until(asked, "nobody was asked")
        await ask(one, "approve", id=key[1].hex())
        world.published[key] = three.name
        await world.until_final()
        assert names(await report(four, key), "owners") == {account(one).hex(), account(three).hex()}

        async def silent() -> bool:
            return await alert(four) is None

        await until(silent, "it is on the ledger", 120)

    life(14, story)


def test_quick_no_is_heeded_by_all_nodes_of_the_member_and_a_person_may_put_it_at_another() -> None:
    """Goal: no is no for all nodes of a member. Method: a no before another node has had its turn; much later, after a restart, that one
    has asked nobody, and says how it ended; a put there asks once more."""

    async def story(world: AnchorWorld) -> None:
        one, _, three, four = world.machines
        content = b"refused" * 50
        key = world.key_of(three, await world.put(three, content, intent=shared(one)))
        world.published.clear()

        async def asked() -> object:
            return await inbox(one)

        await until(asked, "nobody was asked", 15)
        await ask(one, "approve", id=key[1].hex(), refuse=True)

        async def ended() -> bool:
            return [(await report(machine, key))["validity"] for machine in (three, four)] == ["invalid", "invalid"]

        await until(ended, "the two nodes differ")
        await restart(four)
        await trio.sleep(120)
        assert await ended()
        assert await alert(four) is None
        assert world.anchors()[key] == 1
        assert world.key_of(four, await world.put(four, content)) == key  # plain: nobody is asked again
        await trio.sleep(30)
        assert world.anchors()[key] == 1
        await world.put(four, content, intent=shared(one))
        await until(asked, "nobody was asked again")
        await ask(one, "approve", id=key[1].hex())
        await world._wait(world.not_final, 60, "not final")
        assert world.anchors()[key] == 2
        assert names(await report(three, key), "owners") == {account(one).hex(), account(three).hex()}

    life(15, story)


def test_record_of_a_node_that_died_is_anchored_where_a_person_puts_it_again() -> None:
    """Goal: what one node alone knows may be said again. Method: the publisher dies before its anchor is heard of; another node of its
    member is given the same to put; the first comes back, and the one anchor stays."""

    async def story(world: AnchorWorld) -> None:
        _, _, three, four = world.machines
        content = b"died" * 50
        key = world.key_of(three, await world.put(three, content))
        knowledge = (await node_of(four)).facts.knowledge

        async def is_heard_of() -> bool:
            return key in knowledge.records

        await until(is_heard_of, "not heard of", pause=0.01)
        three.kill()
        await three.wait_down()
        await trio.sleep(60)
        assert world.anchors()[key] == 0
        assert world.key_of(four, await world.put(four, content)) == key

        async def is_final() -> bool:
            return (await report(four, key))["state"] == "final"

        await until(is_final, "not anchored")
        three.switch_on()
        await three.wait_up()
        await trio.sleep(60)
        await world.until_final()

    life(16, story)


def test_refused_and_lapsed_are_not_asked_again_before_a_person_puts_it_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no is no. Method: one record is refused, one lapses; neither restarts nor time beyond the life of the transactions, here a
    minute, bring another anchor; a put of the same asks again, and is approved."""
    monkeypatch.setattr(anchoring, "ANCHOR_LIFE_MS", 60_000)

    async def story(world: AnchorWorld) -> None:
        one, two = world.machines[:2]
        contents = (b"refused" * 50, b"lapsed" * 50)
        keys = [
            world.key_of(one, await world.put(one, content, intent=shared(two, deadline_s=seconds)))
            for content, seconds in zip(contents, (0, 40), strict=True)
        ]
        world.published.clear()

        async def asked() -> bool:
            return len(await inbox(two)) == 2

        await until(asked, "nobody was asked")
        await ask(two, "approve", id=keys[0][1].hex(), refuse=True, note="wrong weight")

        async def ended() -> bool:
            return [(await report(one, key))["validity"] for key in keys] == ["invalid", "invalid"]

        await until(ended, "neither refused nor lapsed")
        assert "put it again" in str((await report(one, keys[0]))["waiting_for"])
        await restart(one)
        await trio.sleep(700)  # a heartbeat later the chain has forgotten the transactions
        await restart(one)
        await trio.sleep(120)
        assert [world.anchors()[key] for key in keys] == [1, 1]
        assert await inbox(two) == []
        for key, content in zip(keys, contents, strict=True):
            assert world.key_of(one, await world.put(one, content, intent=shared(two))) == key
        await until(asked, "nobody was asked again")
        for key in keys:
            await ask(two, "approve", id=key[1].hex())
        await world._wait(world.not_final, 60, "not final")
        assert [world.anchors()[key] for key in keys] == [2, 2]

    life(12, story)


def test_change_needs_all_owners_extends_erases_and_moves_to_another_owner() -> None:
    """Goal: what several own is changed by all of them alone. Method: a record of two; a modification by either has both as owners; a
    later end, a transfer to the other one, an erasure, each pending until the other approves."""

    async def story(world: AnchorWorld) -> None:
        one, two, three, _ = world.machines
        first = world.key_of(one, await world.put(one, intent=shared(two)))

        async def approve(machine: Machine) -> Row:
            async def waits() -> object:
                return await inbox(machine)

            await until(waits, "nothing to approve")
            (row,) = await inbox(machine)
            await ask(machine, "approve", id=row["id"])
            return row

        await approve(two)
        await world.until_final()
        second = world.key_of(two, await world.put(two, intent=Intent("modify", (Parent(*first),), ())))
        assert (await approve(one))["parents"] == [first[1].hex()]
        await world.until_final()
        assert (await report(three, first))["status"] == "superseded"
        assert names(await report(three, second), "owners") == {account(one).hex(), account(two).hex()}

        ends_s = world.chains()[0].now_ms() // 1000 + 60
        short = world.key_of(one, await world.put(one, intent=shared(two), valid_until_s=ends_s))
        await approve(two)
        await world.until_final()
        assert (await report(three, short))["validity"] == "valid"

        async def is_now(validity: str) -> bool:
            return (await report(three, short))["validity"] == validity

        await until(lambda: is_now("expired"), "it expires by itself", 120)
        later = iso(ends_s + 3600)
        asked = await ask(two, "file.extend", record=short[1].hex(), until=later)
        assert (await ask(two, "file.extend", record=short[1].hex(), until=later))["transaction"] == asked["transaction"]
        assert (await approve(one))["valid_until"] == later
        await until(lambda: is_now("valid"), "it is in effect again")
        third = world.key_of(one, await world.put(one, intent=Intent("transfer", (Parent(*second),), ())))
        assert (await approve(two))["change"] == "transfer"
        await world.until_final()
        said = await report(three, third)
        assert (said["change"], names(said, "owners")) == ("transfer", {account(one).hex()})

        api = RecordApi(await node_of(two))
        with pytest.raises(Refused):
            await api.erase_shared(first[1].hex(), "delete", dry_run=False)
        proposed = [await api.erase_shared(first[1].hex(), "erase", dry_run=False) for _ in range(2)]
        assert proposed[0] is not None
        assert proposed[1] is not None
        assert proposed[0].data["transaction"] == proposed[1].data["transaction"]
        assert (await approve(one))["kind"] == "Erase"

        async def erased() -> bool:
            return (await report(three, first))["status"] == "erased"

        await until(erased, "not erased")
        assert (await report(three, first))["validity"] == "invalid"

    life(13, story)
