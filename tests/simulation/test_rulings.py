"""What the chain says is heeded on every node, though no fact of it arrives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest
import trio

from node.actors.anchoring import Anchoring
from node.actors.facts import FactsHandle
from node.actors.holdings import Holdings
from node.actors.puts import PutOptions
from protocols.codec import Record, decode, encode
from protocols.codec import replace as replace_fields
from protocols.crypto import SigningKey, sha256
from protocols.errors import LadingError, Reason
from protocols.files.hashid import c_value, hash_id
from protocols.files.objects import sign_statement
from protocols.files.precedence import Next
from protocols.gossip.facts import FactKind
from protocols.identity.certificates import make_node, verify_chain
from protocols.ledger.context import ACCOUNT, Account
from protocols.ledger.transactions import cert_status, erase
from protocols.limits import RECEIPTS_PAUSE_S
from protocols.types import PeerId, RecordKey, UnixMillis, UnixSeconds
from storage import chain as store
from storage.engine import Delete, Env
from storage.tables import FACTS, tables_of
from tests.protocols.files import records as files

from .anchor_world import AnchorWorld
from .scheduler import run_world
from .test_anchors import FOUR, WORLD_S_MAX, life
from .test_shared import node_of
from .trace import Trace
from .world import EPOCH, Machine, Options, tell


def deaf_to(monkeypatch: pytest.MonkeyPatch, *kinds: FactKind) -> None:
    """From here on no node takes facts of these kinds from another."""
    submit = FactsHandle.submit

    async def some(self: FactsHandle, items: list[tuple[int, bytes]], source: PeerId) -> None:
        await submit(self, [item for item in items if item[0] not in kinds], source)

    monkeypatch.setattr(FactsHandle, "submit", some)


async def held(machine: Machine, key: RecordKey) -> int:
    """Sequences of a record on a machine's disk, trash included."""
    holdings: Holdings = (await node_of(machine)).holdings
    return len(await holdings.all_held([key]))


async def until(condition: Callable[[], bool], what: str, seconds: float = 120.0) -> None:
    end = trio.current_time() + seconds
    while not condition():
        assert trio.current_time() < end, what
        await trio.sleep(0.5)


def account(machine: Machine) -> Account:
    with machine.disk(Env.LEDGER).snapshot() as snapshot:
        data = store.ChainState(snapshot).get(ACCOUNT, machine.own.member_id)
    assert data is not None
    return decode(data, Account)


async def council_says(world: AnchorWorld, kind: str, body: Record) -> None:
    """The council does something by a transaction alone."""
    node = await node_of(world.machines[0])
    assert node.chain is not None
    now = UnixMillis(node.chain.now_ms())
    await node.chain.submit(world.template.by_council(kind, body, ts_ms=now, until_ms=UnixMillis(now + 3_600_000)))


def test_member_that_the_chain_suspends_is_refused_everywhere_and_comes_back_when_it_is_resumed() -> None:
    """Goal: a revocation works though its fact never comes. Method: the council suspends a member on chain; nobody made a fact; the others
    drop it, refuse its connections, take no new statement of it and share nothing with it; resumed, it is heard and connected again."""

    async def story(world: AnchorWorld) -> None:
        one, out, *_ = world.machines
        data = await world.put(one)
        await world.until_final()
        statement = statement_of(out)
        heard_by = (await node_of(one)).knowledge
        heard_by.check(FactKind.STATEMENT, statement, now=int(EPOCH))
        await council_says(world, "CertStatus", cert_status.Body(account(out).serial, "suspend", "because"))

        others = [machine for machine in world.machines if machine is not out]

        def is_connected() -> bool:
            return any(machine.node is not None and out.peer in machine.node.peers.sessions for machine in others)

        await until(lambda: not is_connected(), "its connections end")
        node = await node_of(one)
        for _ in range(20):
            await trio.sleep(1)
            assert not is_connected()
        assert out.own.member_id not in node.knowledge.members()
        with pytest.raises(LadingError) as unheard:
            heard_by.check(FactKind.STATEMENT, statement, now=int(EPOCH))
        assert unheard.value.reason is Reason.REVOKED
        assert data is not None
        with pytest.raises(LadingError) as refused:
            await node.files.share(str(data["record"]), out.own.member_id)
        assert refused.value.reason is Reason.NOT_FOUND
        await council_says(world, "CertStatus", cert_status.Body(account(out).serial, "resume", ""))
        await until(is_connected, "it comes back")
        heard_by.check(FactKind.STATEMENT, statement, now=int(EPOCH))

    life(21, story)


def statement_of(machine: Machine) -> bytes:
    """A fact that nobody knows yet: a record that a machine's member says exists."""
    owner, c = machine.own.owner, c_value(bytes(32), sha256(b"new"))
    found = replace_fields(
        files.statement(Next(1, b"", ()), "new", owner),
        c=c,
        hash_id=hash_id(owner, c),
        network=machine.own.network_id,
        domain=machine.own.domain_id,
        time_s=UnixSeconds(int(EPOCH)),
    )
    assert machine.own.member is not None
    return encode(sign_statement(found, machine.own.member.signing))


def test_what_the_chain_has_erased_goes_everywhere_without_a_tombstone_and_may_be_put_again() -> None:
    """Goal: an erasure by order of the council, of which there is no fact, is carried out. Method: a record on all nodes; an Erase; nobody
    holds it then, also who was down; its status says so; the owner puts it again."""

    async def story(world: AnchorWorld) -> None:
        one, _, three, _ = world.machines
        content = b"by order" * 50
        key = world.key_of(one, await world.put(one, content, ack="full"))
        await world.until_final()
        assert [await held(machine, key) for machine in world.machines] == [1, 1, 1, 1]
        three.kill()
        await three.wait_down()
        await council_says(world, "Erase", erase.Body(*key, "chunks", "legal order 17"))
        await trio.sleep(20)
        three.switch_on()
        await three.wait_up()
        await trio.sleep(20)
        assert [await held(machine, key) for machine in world.machines] == [0, 0, 0, 0]
        for machine in world.machines:
            node = await node_of(machine)
            said = await node.files.status(key[1].hex())
            assert (said["validity"], said["ledger"]["status"]) == ("invalid", "erased")  # type: ignore[index]  # a mapping
            with pytest.raises(LadingError) as gone:
                await node.files.get(key[1].hex(), output=None, directory=world.folder, entry=None, keep=False, inline=None)
            assert gone.value.reason is Reason.DELETED
        await world.put(one, content)
        await world._wait(world.not_final, 60, "not final")
        await trio.sleep(30)
        assert [await held(machine, key) for machine in world.machines] == [1, 1, 1, 1]

    life(22, story)


def test_nodes_that_hear_of_no_statement_learn_from_the_chain_what_to_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: the wish for copies is read from the ledger. Method: four nodes, two copies; the owner asks for four while nobody takes
    statements from another: all hold it. Then a node loses its facts and chunks and keeps its chain: it holds the record again."""

    async def story(world: AnchorWorld) -> None:
        one = world.machines[0]
        node = await node_of(one)
        content = b"".join(sha256(b"%d" % number) for number in range(4096))  # a sequence of its own beside the manifest
        data, _ = await node.files.put([world.file(content)], PutOptions(ack="full", replicas=2))
        key = world.key_of(one, data)
        world.published[key] = one.name
        await world.until_final()
        await trio.sleep(60)  # nodes that came back have settled, surplus copies are gone
        assert sum([await held(machine, key) for machine in world.machines]) == 4 + 2
        deaf_to(monkeypatch, FactKind.STATEMENT)
        assert (await node.files.restate(key[1].hex(), 4, dry_run=False))["changed"]
        for _ in range(120):
            if [await held(machine, key) for machine in world.machines] == [2, 2, 2, 2]:
                break
            await trio.sleep(1)
        assert [await held(machine, key) for machine in world.machines] == [2, 2, 2, 2]
        two = world.machines[1]
        two.kill()
        await two.wait_down()
        for env, tables in ((Env.LEDGER, (FACTS,)), (Env.CHUNKS, tables_of(Env.CHUNKS))):
            disk = two.disk(env)
            with disk.snapshot() as snapshot:
                gone = [Delete(table, name) for table in tables for name, _ in snapshot.scan(table)]
            disk.write(gone)
        two.switch_on()
        again = await two.wait_up()
        await trio.sleep(60)
        assert again.knowledge.records[key].objects
        assert await held(two, key) == 2

    life(23, story)


class HolderWorld(AnchorWorld):
    """The last machine is holder-only: a further node of its member, without the member's keys."""

    def __init__(self, seed: int, trace: Trace, folder: Path, options: Options) -> None:
        super().__init__(seed, trace, folder, options)
        last, member = self.machines[-1], self._last
        card = make_node(
            SigningKey(member.seed),
            member.chain[0],
            peer_id=last.own.peer_id,
            node_public=last.own.node.public,
            host_label=last.own.identity.host,
            weight=last.own.identity.weight,
            holder_only=True,
            serial=bytes(16),
            not_before=last.own.identity.not_before,
            not_after=last.own.identity.not_after,
        )
        chain = (card, *member.chain)
        identity = verify_chain(chain, last.own.roots, now=int(EPOCH), revocations=None)
        last.own = replace(last.own, node_chain=chain, identity=identity, member=None)

    async def story(self) -> None:
        one, two = self.machines[:2]
        keys = [self.key_of(machine, await self.put(machine, ack="full")) for machine in (one, two, one)]
        await self.until_final()
        await trio.sleep(5 * RECEIPTS_PAUSE_S)
        for key in keys:
            assert (await cast(Anchoring, (await node_of(one)).anchoring).report(key))["recorded_holders"] == len(self.machines)
        assert len(self.receipts_recorded()) <= 3 * len(self.machines)


def test_receipts_of_a_holder_only_node_are_recorded_by_its_member() -> None:
    """Goal: the ledger knows every holder. Method: four nodes, the last one holder-only; three records on all; each has four holders."""

    async def world(number: int, trace: Trace) -> None:
        await tell(number, trace, FOUR, HolderWorld)

    run_world(world, 24, virtual_seconds_max=WORLD_S_MAX)
