"""Two gossip ends over a stream: sets become one, the silent are left, a full disk and a deaf peer hold up nothing else."""

from __future__ import annotations

import pytest
import trio

from node.actors.gossip import GOSSIP_PROTOCOL, GossipEnd
from node.clock import SystemClock
from node.transport.port import Stream, StreamBroken
from protocols.errors import Reason, RemoteError, StoreFull
from protocols.gossip import machine as g
from protocols.gossip import messages as m
from protocols.gossip.facts import fact_id
from protocols.gossip.sketch import SKETCH_BYTES, Sketch
from protocols.registry import encode_message
from protocols.types import PeerId

from .streams import ALICE, BOB, connected, live

CLOCK = SystemClock()
Fact = tuple[int, bytes]


class Facts:
    """A gossip host whose facts are a dictionary."""

    def __init__(self, *facts: Fact) -> None:
        self.facts = {bytes(fact_id(*fact)): fact for fact in facts}
        self.changed = trio.Event()
        self.full = False
        self.rtts: list[float] = []
        self.loaded = 0
        self.loading_max = 0

    def our_set(self) -> tuple[int, bytes]:
        sketch = Sketch(self.facts)
        return sketch.count, sketch.digest()

    def filter_shared(self, ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return ids

    def filter_unknown(self, ids: tuple[bytes, ...]) -> tuple[bytes, ...]:
        return tuple(one for one in ids if one not in self.facts)

    def bucket_ids(self, bucket: int) -> tuple[bytes, ...]:
        return Sketch(self.facts).ids_of(bucket)

    async def load_bodies(self, ids: tuple[bytes, ...]) -> tuple[Fact, ...]:
        self.loaded += len(ids)
        self.loading_max = max(self.loading_max, len(ids))
        await trio.lowlevel.checkpoint()
        return tuple(self.facts[one] for one in ids if one in self.facts)

    async def deliver(self, peer: PeerId, items_untrusted: tuple[Fact, ...]) -> None:
        await trio.lowlevel.checkpoint()
        if self.full:
            raise StoreFull("no room")
        for fact in items_untrusted:
            self.facts[bytes(fact_id(*fact))] = fact
        self.changed.set()
        self.changed = trio.Event()

    def life_signs(self) -> tuple[tuple[bytes, int], ...]:
        return ()

    def heard_of(self, peer: PeerId, entries: tuple[tuple[bytes, int], ...], rtt_s: float | None) -> None:
        if rtt_s is not None:
            self.rtts.append(rtt_s)

    async def wait_count(self, count: int) -> None:
        while len(self.facts) < count:
            await self.changed.wait()


def many(kind: int, count: int, size: int = 8) -> list[Fact]:
    return [(kind, number.to_bytes(8, "big") * (size // 8)) for number in range(count)]


async def fails_with(end: GossipEnd, into: list[BaseException]) -> None:
    try:
        await end.run()
    except* (RemoteError, StreamBroken) as group:
        into.extend(group.exceptions)


def test_two_nodes_that_were_apart_know_the_same_and_news_travels() -> None:
    """Goal: reconciliation both ways at once, then announcements. Method: 700 and 500 facts, 100 of them common; then one more."""

    async def story() -> None:
        a, b = Facts(*many(16, 700)), Facts(*many(16, 100), *many(17, 400))
        async with connected(GOSSIP_PROTOCOL) as pair:
            ours, theirs = await pair.stream(GOSSIP_PROTOCOL)
            ends = GossipEnd(ours, BOB, a, CLOCK), GossipEnd(theirs, ALICE, b, CLOCK)
            for end in ends:
                pair.nursery.start_soon(end.run)
            await a.wait_count(1100)
            await b.wait_count(1100)
            assert a.facts == b.facts
            news = (20, b"news")
            a.facts[bytes(fact_id(*news))] = news
            before = trio.current_time()
            ends[0].have_facts((fact_id(*news),))
            await b.wait_count(1101)
            assert trio.current_time() - before < 1.0  # by announcement, not by the next reconciliation
            assert a.rtts
            assert max(a.loading_max, b.loading_max) <= g.LOAD_IDS_MAX

    live(story)


def test_two_ends_with_much_to_say_do_not_wait_for_each_other() -> None:
    """Goal: bulk both ways never stands still. Method: 60 MB of bodies on each side, far more than queues and windows hold."""

    async def story() -> None:
        a, b = Facts(*many(16, 300, 200_000)), Facts(*many(17, 300, 200_000))
        async with connected(GOSSIP_PROTOCOL) as pair:
            ours, theirs = await pair.stream(GOSSIP_PROTOCOL)
            pair.nursery.start_soon(GossipEnd(ours, BOB, a, CLOCK).run)
            pair.nursery.start_soon(GossipEnd(theirs, ALICE, b, CLOCK).run)
            with trio.fail_after(g.SILENCE_MAX_S):
                await a.wait_count(600)
                await b.wait_count(600)

    live(story)


def test_full_disk_keeps_the_stream_and_the_facts_come_later() -> None:
    """Goal: a node without room still serves. Method: deliveries fail for 50 s; after that reconciliation brings everything."""

    async def story() -> None:
        a, b = Facts(*many(16, 50)), Facts()
        b.full = True
        async with connected(GOSSIP_PROTOCOL) as pair:
            ours, theirs = await pair.stream(GOSSIP_PROTOCOL)
            pair.nursery.start_soon(GossipEnd(ours, BOB, a, CLOCK).run)
            pair.nursery.start_soon(GossipEnd(theirs, ALICE, b, CLOCK).run)
            await trio.sleep(50.0)
            assert not b.facts
            b.full = False
            with trio.fail_after(2 * g.RECONCILE_INTERVAL_S):
                await b.wait_count(50)

    live(story)


def test_frozen_peer_is_left_within_twenty_seconds() -> None:
    """Goal: an unplugged peer is noticed. Method: the other end reads and says nothing; the run ends."""

    async def story() -> None:
        async with connected(GOSSIP_PROTOCOL) as pair:
            ours, _ = await pair.stream(GOSSIP_PROTOCOL)
            before = trio.current_time()
            await GossipEnd(ours, BOB, Facts(), CLOCK).run()
            assert trio.current_time() - before == pytest.approx(g.SILENCE_MAX_S)

    live(story)


async def flood(stream: Stream, frame: bytes, count: int) -> None:
    for _ in range(count):
        await stream.send(frame)


def test_peer_that_wants_everything_and_reads_nothing_is_left_with_little_in_memory() -> None:
    """Goal: memory and time are bounded. Method: Want for 1,024 large facts again and again, with signs of life, never a receive."""

    async def story() -> None:
        a = Facts(*many(16, 1024, 20_000))
        want = encode_message("gossip", m.Want(tuple(a.facts)))
        found: list[BaseException] = []
        async with connected(GOSSIP_PROTOCOL) as pair:
            ours, theirs = await pair.stream(GOSSIP_PROTOCOL)
            end = GossipEnd(ours, BOB, a, CLOCK)

            async def insist() -> None:
                try:
                    while True:
                        await flood(theirs, want, 1)
                        await flood(theirs, encode_message("gossip", m.Seen((), 1, 0)), 20)
                        await trio.sleep(1.0)
                except StreamBroken:
                    return

            pair.nursery.start_soon(insist)
            before = trio.current_time()
            await fails_with(end, found)
            ours.reset()
            assert trio.current_time() - before < 60.0
        assert [type(error) for error in found] == [StreamBroken]
        # Loaded only when what was sent before has left: the stream's window and one load more.
        assert a.loaded <= 3 * g.LOAD_IDS_MAX

    live(story)


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (b"\x01noise", Reason.MALFORMED),
        (b"\xffx", Reason.UNKNOWN_MESSAGE),
        (b"", Reason.TRUNCATED),
        (encode_message("gossip", m.Announce((b"short",))), Reason.MALFORMED),
        (encode_message("gossip", m.Announce((bytes(32),) * 1025)), Reason.FLOOD),
        (encode_message("gossip", m.Summary(0, bytes(SKETCH_BYTES - 1))), Reason.MALFORMED),
        (encode_message("gossip", m.Bodies(((272, b"x"),))), Reason.MALFORMED),
    ],
)
def test_peer_that_breaks_a_rule_ends_the_stream_with_its_reason(frame: bytes, reason: Reason) -> None:
    """Goal: nothing but RemoteError comes out. Method: one frame that breaks a rule."""

    async def story() -> None:
        found: list[BaseException] = []
        async with connected(GOSSIP_PROTOCOL) as pair:
            ours, theirs = await pair.stream(GOSSIP_PROTOCOL)
            await theirs.send(frame)
            await fails_with(GossipEnd(ours, BOB, Facts(), CLOCK), found)
        assert [error.reason for error in found if isinstance(error, RemoteError)] == [reason]

    live(story)
