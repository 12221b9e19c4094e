"""Small records share the way to a node."""

from __future__ import annotations

from collections.abc import Sequence

import trio
import trio.testing

from node.actors.bundles import BUNDLES_AT_ONCE, LARGE_AT_ONCE, Bundles, Given
from node.transport.port import StreamBroken
from protocols.errors import LadingError, Reason, RemoteError
from protocols.exchange import messages as m
from protocols.exchange.machine import BEHIND_BYTES_MAX, BUNDLE_BYTES_MAX, behind_bytes, bundled_bytes
from protocols.limits import RECEIPT_ITEMS_MAX
from protocols.signed import Signed
from protocols.types import PeerId

NODE, OTHER = PeerId(b"node"), PeerId(b"other")


def record_of(number: int, *, size: int = 1024, sequences: int = 1) -> m.BundledRecord:
    chunk = number.to_bytes(4, "big") * (size // 4)
    return m.BundledRecord(Signed(b"body", b"s" * 32, b"g" * 64), tuple(m.BundledSequence(n, (), (chunk,)) for n in range(sequences)))


class Way:
    """Where bundles go: what was sent, how many at once, and what came of it. gate: closed, nothing arrives."""

    def __init__(self) -> None:
        self.sent: list[tuple[PeerId, tuple[m.BundledRecord, ...]]] = []
        self.at_once = self.at_once_max = 0
        self.gate = trio.Event()
        self.gate.set()
        self.error: LadingError | None = None
        self.refused: list[m.BundledRecord] = []

    async def send(self, peer: PeerId, records: tuple[m.BundledRecord, ...]) -> Sequence[LadingError | None]:
        self.sent.append((peer, records))
        self.at_once += 1
        self.at_once_max = max(self.at_once_max, self.at_once)
        try:
            await self.gate.wait()
            await trio.lowlevel.checkpoint()
            if self.error is not None:
                raise self.error
            return [RemoteError(Reason.QUOTA, "full") if record in self.refused else None for record in records]
        finally:
            self.at_once -= 1


async def run_bundles(bundles: Bundles, nursery: trio.Nursery) -> None:
    nursery.start_soon(bundles.run)
    await trio.testing.wait_all_tasks_blocked()


async def test_what_comes_while_bundles_are_under_way_goes_together_in_order() -> None:
    """Goal: the first waits for nobody, the rest share. Method: 300 records for one node, 5 for another, while nothing arrives yet."""
    way = Way()
    way.gate = trio.Event()
    bundles = Bundles(way.send)
    async with trio.open_nursery() as nursery:
        await run_bundles(bundles, nursery)
        records = [record_of(number) for number in range(300)]
        given: list[Given] = []
        for record in records:
            given.append(bundles.give(NODE, record))
            if len(given) <= BUNDLES_AT_ONCE:
                await trio.testing.wait_all_tasks_blocked()
        elsewhere = [bundles.give(OTHER, record_of(1000 + number)) for number in range(5)]
        await trio.testing.wait_all_tasks_blocked()
        to_node = [bundle for peer, bundle in way.sent if peer == NODE]
        assert len(to_node) == BUNDLES_AT_ONCE
        assert len(to_node[0]) == 1
        assert any(peer == OTHER for peer, _ in way.sent)
        way.gate.set()
        assert [await one.outcome() for one in (*given, *elsewhere)] == [None] * 305
        to_node = [bundle for peer, bundle in way.sent if peer == NODE]
        assert [record for bundle in to_node for record in bundle] == records
        assert len(to_node) < 300 / 20
        assert way.at_once_max <= 2 * BUNDLES_AT_ONCE
        nursery.cancel_scope.cancel()


async def test_bundle_never_outgrows_a_frame_or_a_receipt() -> None:
    """Goal: what is sent is lawful. Method: large records, and records of many sequences; one that fills a bundle alone still goes."""
    way = Way()
    bundles = Bundles(way.send)
    async with trio.open_nursery() as nursery:
        await run_bundles(bundles, nursery)
        records = [record_of(number, size=1000 * 1024) for number in range(5)]
        records += [record_of(10 + number, size=30 * 1024, sequences=9) for number in range(4)]
        records += [record_of(100 + number, size=20, sequences=400) for number in range(9)]
        given = [bundles.give(NODE, record) for record in records]
        assert [await one.outcome() for one in given] == [None] * 18
        assert sum(len(bundle) for _, bundle in way.sent) == 18
        for _, bundle in way.sent:
            assert sum(map(bundled_bytes, bundle)) <= BUNDLE_BYTES_MAX
            assert sum(map(behind_bytes, bundle)) <= BEHIND_BYTES_MAX
            assert sum(len(record.sequences) for record in bundle) <= RECEIPT_ITEMS_MAX
        nursery.cancel_scope.cancel()


async def test_bundles_with_chunks_behind_never_fill_what_a_holder_reads() -> None:
    """Goal: chunks of bundles come in turns, and one bundle is whole before a holder stops reading. Method: large and small records mixed,
    while nothing arrives; then all go. Expected: never more than two large bundles at once, one beside them; all arrive, in order."""
    way = Way()
    way.gate = trio.Event()
    large_at_once: list[int] = []
    on_way: list[tuple[m.BundledRecord, ...]] = []

    async def send(peer: PeerId, records: tuple[m.BundledRecord, ...]) -> Sequence[LadingError | None]:
        on_way.append(records)
        large_at_once.append(sum(any(map(behind_bytes, bundle)) for bundle in on_way))
        try:
            return await way.send(peer, records)
        finally:
            on_way.remove(records)

    bundles = Bundles(send)
    async with trio.open_nursery() as nursery:
        await run_bundles(bundles, nursery)
        records = [record_of(number, size=256 * 1024 if number % 3 else 1024, sequences=8 if number % 3 else 1) for number in range(90)]
        given = [bundles.give(NODE, records[0])]
        await trio.testing.wait_all_tasks_blocked()
        for record in records[1:]:
            given.append(bundles.give(NODE, record))
            await trio.testing.wait_all_tasks_blocked()
        assert len(on_way) == BUNDLES_AT_ONCE
        way.gate.set()
        assert [await one.outcome() for one in given] == [None] * 90
        assert max(large_at_once) == LARGE_AT_ONCE
        assert [record for _, bundle in way.sent for record in bundle] == records
        assert any(any(map(behind_bytes, bundle)) and sum(map(behind_bytes, bundle)) > BEHIND_BYTES_MAX / 2 for _, bundle in way.sent)
        nursery.cancel_scope.cancel()


async def test_each_record_hears_its_own_outcome() -> None:
    """Goal: one refusal is one record's. Method: a holder that refuses one of three, then one that breaks off."""
    way = Way()
    bundles = Bundles(way.send)
    async with trio.open_nursery() as nursery:
        await run_bundles(bundles, nursery)
        records = [record_of(number) for number in range(3)]
        way.refused = [records[1]]
        outcomes = [await one.outcome() for one in [bundles.give(NODE, record) for record in records]]
        assert [error is None for error in outcomes] == [True, False, True]
        way.error = StreamBroken("gone")
        outcomes = [await one.outcome() for one in [bundles.give(NODE, record) for record in records]]
        assert outcomes == [way.error] * 3
        nursery.cancel_scope.cancel()


async def test_who_leaves_takes_his_record_back_and_who_stays_is_served() -> None:
    """Goal: a cancelled put sends nothing more and holds up nobody. Method: of ten that wait, five give up."""
    way = Way()
    way.gate = trio.Event()
    bundles = Bundles(way.send)
    async with trio.open_nursery() as nursery:
        await run_bundles(bundles, nursery)
        for number in range(BUNDLES_AT_ONCE):
            bundles.give(NODE, record_of(500 + number))
            await trio.testing.wait_all_tasks_blocked()
        given = [bundles.give(NODE, record_of(number)) for number in range(10)]
        with trio.move_on_after(0):
            async with trio.open_nursery() as leaving:
                for one in given[::2]:
                    leaving.start_soon(one.outcome)
        way.gate.set()
        assert [await one.outcome() for one in given[1::2]] == [None] * 5
        sent = [record for _, bundle in way.sent for record in bundle]
        assert sent[BUNDLES_AT_ONCE:] == [one.record for one in given[1::2]]
        nursery.cancel_scope.cancel()


async def test_when_replication_stops_everybody_is_told() -> None:
    """Goal: nobody waits for ever. Method: stopped with one bundle under way and records that wait; then a record for nobody."""
    way = Way()
    way.gate = trio.Event()
    bundles = Bundles(way.send)
    given: list[Given] = []
    async with trio.open_nursery() as nursery:
        await run_bundles(bundles, nursery)
        given += [bundles.give(NODE, record_of(number)) for number in range(20)]
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
    given.append(bundles.give(NODE, record_of(99)))
    assert all([isinstance(await one.outcome(), StreamBroken) for one in given])
    assert way.at_once == 0
