"""The facts actor: what is durable, indexed, remembered as refused and passed on, and in which order."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import trio

from node.actors.facts import FactsAccepted, FactsActor, FactsHandle
from node.actors.knowledge import Checked, Knowledge
from node.actors.storage import StorageActor, StorageHandle
from node.bus import Bus
from node.clock import SimulatedClock
from node.offload import SimulatedOffload
from protocols.codec import encode, replace
from protocols.crypto import FORMAT, SUITE
from protocols.errors import InvalidObject, StoreFull
from protocols.files.holdings import Receipt, ReceiptItem, sign_receipt
from protocols.files.objects import Statement, sign_statement, sign_tombstone
from protocols.files.precedence import Next, next_after
from protocols.gossip.facts import FactKind, fact_id
from protocols.identity.announce import sign_announcement
from protocols.identity.revocation import RevocationKind
from protocols.types import Digest, HashId, OwnerKey, PeerId, SequenceRoot, StoreId, UnixSeconds
from storage import anchors
from storage.engine import Env
from storage.faulty import Faults, FaultyEngine
from storage.memory import MemoryEngine
from storage.tables import FACTS
from tests.protocols.files import records
from tests.protocols.identity.people import ACME, NETWORK, NOW, Member, Node

from .streams import live

BOB = ACME.member("Bob")
NODE = BOB.node()
SOURCE = PeerId(b"source")
Fact = tuple[FactKind, bytes]


def announcement(node: Node, counter: int = 1) -> Fact:
    signed = sign_announcement(
        node.key,
        NETWORK,
        peer_id=node.peer_id,
        addresses=("/ip4/127.0.0.1/tcp/1",),
        chain=node.chain,
        counter=counter,
        store_id=b"s" * 16,
        store_generation=1,
        free_bytes=0,
        refuses=False,
        version=1,
    )
    return FactKind.ANNOUNCEMENT, encode(signed)


def receipt(node: Node, counter: int = 1) -> Fact:
    item = ReceiptItem(
        owner=OwnerKey(b"o" * 32),
        hash_id=HashId(b"h" * 32),
        seq=1,
        object_hash=Digest(b"x" * 32),
        wraps=Digest(b"w" * 32),
        sequence_roots=(SequenceRoot(b"r" * 32),),
    )
    value = Receipt(
        format=FORMAT,
        suite=SUITE,
        network=NETWORK,
        holder=node.peer_id,
        store_id=StoreId(b"s" * 16),
        generation=1,
        counter=counter,
        from_s=UnixSeconds(NOW),
        until_s=UnixSeconds(NOW + 1000),
        items=(item,),
    )
    return FactKind.RECEIPT, encode(sign_receipt(value, node.key))


def said(after: Next, name: str = "", *, by: Member = BOB) -> tuple[Statement, Fact]:
    """A statement about the one record of a member; ``name`` makes it another one."""
    value = replace(records.statement(after, name, by.key.public), network=NETWORK, domain=ACME.id, time_s=UnixSeconds(NOW))
    return value, (FactKind.STATEMENT, encode(sign_statement(value, by.key)))


def deleted(after: Next, value: Statement) -> Fact:
    """The owner's word that the record of a statement is deleted."""
    fields = {"network": NETWORK, "domain": ACME.id, "owner": value.owner, "hash_id": value.hash_id, "time_s": value.time_s}
    return FactKind.TOMBSTONE, encode(sign_tombstone(replace(records.tombstone(after), **fields), BOB.key))  # type: ignore[arg-type]  # of each its own


@dataclass
class Home:
    """A facts actor with its storage. told: what was announced, with what was durable and indexed at that moment."""

    engine: FaultyEngine
    facts: FactsHandle
    actor: FactsActor
    bus: Bus
    told: list[tuple[tuple[bytes, ...], PeerId | None]] = field(default_factory=list)

    def rows(self) -> set[bytes]:
        with self.engine.snapshot() as snapshot:
            return {key for key, _ in snapshot.scan(FACTS)}

    def knows(self, fact: Fact) -> bool:
        return fact_id(*fact) in self.facts.knowledge.sketch


@asynccontextmanager
async def home(engine: FaultyEngine | None = None) -> AsyncIterator[Home]:
    """Running actors over an engine in a dict, whose every commit takes 10 ms."""
    engine = engine or FaultyEngine(MemoryEngine(Env.LEDGER, 10**9), Faults(), random.Random(1))
    offload, clock, bus = SimulatedOffload(lambda: 0.01), SimulatedClock(NOW), Bus()
    storage = StorageActor(engine, offload)
    store = StorageHandle(storage, offload)
    world: list[Home] = []

    def announce(ids: tuple[bytes, ...], source: PeerId | None) -> None:
        # In every test: nothing is spoken of that is not durable and indexed.
        assert set(ids) <= world[0].rows()
        assert all(one in world[0].facts.knowledge.sketch for one in ids)
        world[0].told.append((ids, source))

    actor = FactsActor(Knowledge(NETWORK, ACME.id, ACME.roots), store, offload, clock, bus, announce, owner=BOB.key.public)
    world.append(Home(engine, FactsHandle(actor, store, offload, clock), actor, bus))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(storage.run)
        nursery.start_soon(actor.run)
        yield world[0]
        nursery.cancel_scope.cancel()


def test_facts_of_one_delivery_are_judged_by_kind_not_by_order() -> None:
    """Goal: who may speak is known before what he said is judged. Method: a receipt before the announcement of its holder."""

    async def story() -> None:
        async with home() as here:
            with here.bus.subscribe(FactsAccepted) as heard:
                await here.facts.submit([receipt(NODE), announcement(NODE)], SOURCE)
                assert here.knows(receipt(NODE))
                assert here.knows(announcement(NODE))
                kinds = [fact.kinds for fact in heard.take_nowait()]
                assert kinds == [frozenset({FactKind.ANNOUNCEMENT}), frozenset({FactKind.RECEIPT})]
            assert here.told == [((fact_id(*fact),), SOURCE) for fact in (announcement(NODE), receipt(NODE))]

    live(story)


def test_fact_that_came_too_early_is_taken_later_and_a_wrong_one_never() -> None:
    """Goal: refused facts are remembered, except those that a later fact may cure. Method: a receipt of a stranger who then becomes known;
    the same receipt with another signature; noise of every kind; a member who is out."""

    async def story() -> None:
        async with home() as here:
            early = receipt(NODE)
            await here.facts.submit([early], SOURCE)
            assert not here.knows(early)
            assert here.facts.filter_unknown([fact_id(*early)]) == (fact_id(*early),)
            await here.facts.submit([announcement(NODE)], SOURCE)
            await here.facts.submit([early], SOURCE)
            assert here.knows(early)

            forged = (FactKind.RECEIPT, early[1][:-1] + bytes([early[1][-1] ^ 1]))
            noise = [(kind, b"\x93noise") for kind in range(1, 40)]
            await here.facts.submit([forged, *noise], SOURCE)
            for fact in (forged, *noise):
                assert fact_id(*fact) not in here.facts.knowledge.sketch
                assert here.facts.filter_unknown([fact_id(*fact)]) == ()

            eve = ACME.member("Eve").node()
            out = (FactKind.REVOCATION, encode(ACME.revoke(RevocationKind.MEMBER, eve.member.id)))
            await here.facts.submit([announcement(eve), out], SOURCE)
            assert here.knows(out)
            assert here.rows() == {one for ids, _ in here.told for one in ids}

    live(story)


def test_nothing_is_said_before_the_commit() -> None:
    """Goal: durable, then indexed, then told. Method: a commit that takes 10 ms; the moment before it ends nothing is known or told."""

    async def story() -> None:
        async with home() as here:
            before = trio.current_time()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(here.facts.submit_own, announcement(NODE))
                await trio.sleep(0.005)
                assert not here.told
                assert not here.knows(announcement(NODE))
                assert not here.rows()
            assert trio.current_time() - before >= 0.01
            assert here.told == [((fact_id(*announcement(NODE)),), None)]

    live(story)


def test_full_disk_refuses_the_batch_and_leaves_the_index_as_it_was() -> None:
    """Goal: what could not be kept is neither known nor told nor remembered as refused; deleting goes on. Method: the disk is full for a
    while, with a replaced announcement waiting to be deleted."""

    async def story() -> None:
        async with home() as here:
            await here.facts.submit([announcement(NODE, 1)], SOURCE)
            await here.facts.submit([announcement(NODE, 2)], SOURCE)
            old, new = fact_id(*announcement(NODE, 1)), fact_id(*announcement(NODE, 2))
            assert here.rows() == {old, new}  # deleted with the next commit
            assert not here.knows(announcement(NODE, 1))
            sketch, told = here.facts.knowledge.sketch.digest(), list(here.told)

            here.engine.faults.full = True
            with pytest.raises(StoreFull):
                await here.facts.submit([receipt(NODE)], SOURCE)
            assert here.facts.knowledge.sketch.digest() == sketch
            assert here.told == told
            assert here.rows() == {new}
            assert here.facts.filter_unknown([fact_id(*receipt(NODE))]) == (fact_id(*receipt(NODE)),)

            here.engine.faults.full = False
            await here.facts.submit([receipt(NODE)], SOURCE)
            assert here.knows(receipt(NODE))
            assert here.rows() == {new, fact_id(*receipt(NODE))}

    live(story)


def test_old_word_is_kept_from_the_others() -> None:
    """Goal: what is void when it comes is not passed on, and not fetched again. Method: announcement 1 after announcement 2."""

    async def story() -> None:
        async with home() as here:
            await here.facts.submit([announcement(NODE, 2)], SOURCE)
            told = list(here.told)
            await here.facts.submit([announcement(NODE, 1)], SOURCE)
            assert here.told == told
            assert here.facts.filter_unknown([fact_id(*announcement(NODE, 1))]) == ()
            assert here.facts.knowledge.book.get(NODE.peer_id) is not None

    live(story)


def test_restart_brings_the_same_index_and_sweeps_what_is_void() -> None:
    """Goal: the table and the index agree after any stop. Method: stop when one word has replaced another, before the next commit."""

    async def story() -> None:
        async with home() as here:
            await here.facts.submit([announcement(NODE, 1), receipt(NODE, 1)], SOURCE)
            await here.facts.submit([announcement(NODE, 2), receipt(NODE, 2)], SOURCE)
            engine, sketch = here.engine, here.facts.knowledge.sketch.digest()
            count = here.facts.knowledge.sketch.count
        async with home(engine) as again:
            other = ACME.member("Carol").node()
            await again.facts.submit([announcement(other)], SOURCE)
            again.facts.knowledge.sketch.remove(fact_id(*announcement(other)))
            assert again.facts.knowledge.sketch.digest() == sketch
            assert len(again.rows()) == count + 1

    live(story)


def test_our_own_unlawful_fact_is_our_error() -> None:
    """Goal: a node does not spread what it would refuse. Method: a receipt of a node that is unknown here."""

    async def story() -> None:
        async with home() as here:
            with pytest.raises(InvalidObject):
                await here.facts.submit_own(receipt(NODE))
            assert not here.rows()

    live(story)


def test_bodies_are_given_as_far_as_they_are_here() -> None:
    """Goal: what is announced can be had. Method: known and unknown ids, few and many."""

    async def story() -> None:
        async with home() as here:
            await here.facts.submit([announcement(NODE)], SOURCE)
            known = fact_id(*announcement(NODE))
            for count in (1, 500):
                unknown = [number.to_bytes(32, "big") for number in range(count)]
                found = await here.facts.load_bodies([known, *unknown])
                assert found == (announcement(NODE),)

    live(story)


def test_it_is_kept_with_a_statement_of_ours_whether_another_node_published_it() -> None:
    """Goal: which node knows what was asked for is known of each record, whatever comes first. Method: made here, brought, found in a
    block; more statements of the same; both in one commit; deleted and published again by the other side; a record of another member."""

    async def story() -> None:
        first = next_after(())
        value, fact = said(first)
        other = said(first, "other")[1]

        def noted(here: Home, value: Statement = value) -> bool:
            with here.engine.snapshot() as snapshot:
                return anchors.is_elsewhere(snapshot, value.hash_id)

        async def begin(here: Home) -> None:
            await here.facts.submit([announcement(NODE)], SOURCE)

        def next_of(here: Home) -> Next:
            return here.facts.knowledge.next_after(here.facts.knowledge.records[value.owner, value.hash_id])

        async with home() as here:
            await begin(here)
            await here.facts.submit_own(fact)
            await here.facts.submit([other], SOURCE)
            assert not noted(here)
            await here.facts.submit([deleted(next_of(here), value)], SOURCE)
            await here.facts.submit([said(next_of(here))[1]], SOURCE)
            assert noted(here)
        async with home() as here:
            await begin(here)
            await here.facts.submit([fact], SOURCE)
            await here.facts.submit_own(said(next_of(here))[1])  # another number of copies
            assert noted(here)
            await here.facts.submit_own(deleted(next_of(here), value))
            await here.facts.submit_own(said(next_of(here))[1])
            assert not noted(here)
        async with home() as here:
            await begin(here)
            await here.facts.submit_found(*fact)
            assert noted(here)
        for is_first in (True, False):
            async with home() as here:
                await begin(here)
                own, brought = (here.facts.knowledge.check(*one, now=NOW) for one in (fact, other))
                batch: list[tuple[PeerId | None, tuple[Checked]]] = [(None, (own,)), (SOURCE, (brought,))]
                await here.facts.keep_checked_of(dict(batch if is_first else batch[::-1]))
                assert not noted(here)
        async with home() as here:
            eve = ACME.member("Eve")
            await here.facts.submit([announcement(eve.node())], SOURCE)
            of_eve, foreign = said(first, by=eve)
            await here.facts.submit([foreign], SOURCE)
            assert here.knows(foreign)
            assert not noted(here, of_eve)

    live(story)
