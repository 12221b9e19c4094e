"""Both sides of an exchange stream: bulk both ways, cancelling, slow, lying, greedy and silent peers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

import pytest
import trio

from node.actors.exchange import (
    DELIVERED_CHUNKS_MAX,
    EXCHANGE_PROTOCOL,
    HELD_BYTES_MAX,
    INBOX_BYTES_MAX,
    SEND_PATIENCE_S,
    Chunks,
    ExchangeClient,
    Loader,
    serve_exchange,
)
from node.clock import SystemClock
from node.transport.memory import Link
from node.transport.port import Stream, StreamBroken
from protocols.errors import DecodeError, LadingError, LocalError, Reason, RemoteError, StoreFull, Verdict
from protocols.exchange import machine as x
from protocols.exchange import messages as m
from protocols.limits import SEALED_CHUNK_BYTES_MAX
from protocols.registry import decode_message, encode_message

from .hosts import ANSWER, REFUSED, Host, bodies_of, place_of
from .streams import ALICE, BOB, Pair, connected, live

CLOCK = SystemClock()
HASH = bytes(32)
Found = Sequence[tuple[int, bytes]]


def loader(bodies: tuple[bytes, ...]) -> Loader:
    async def load(root: bytes, indexes: tuple[int, ...]) -> Chunks:
        await trio.lowlevel.checkpoint()
        return tuple((index, bodies[index]) for index in indexes)

    return load


async def client_of(pair: Pair, host: Host) -> ExchangeClient:
    """Alice asks, ``host`` at bob's serves."""
    ours, theirs = await pair.stream(EXCHANGE_PROTOCOL)
    client = ExchangeClient(ours, BOB, CLOCK)
    pair.nursery.start_soon(client.run)
    pair.nursery.start_soon(serve_exchange, theirs, ALICE, host, CLOCK)
    return client


async def violation_of(serve: Callable[[], Awaitable[None]], into: list[RemoteError]) -> None:
    try:
        await serve()
    except RemoteError as error:
        into.append(error)


async def raw_asker(pair: Pair, host: Host) -> tuple[Stream, list[RemoteError]]:
    """A stream whose asking side the test plays; what the serving side finds the peer at fault for."""
    ours, theirs = await pair.stream(EXCHANGE_PROTOCOL)
    found: list[RemoteError] = []
    pair.nursery.start_soon(violation_of, lambda: serve_exchange(theirs, ALICE, host, CLOCK), found)
    return ours, found


async def raw_holder(pair: Pair) -> tuple[ExchangeClient, Stream, list[RemoteError]]:
    """A stream whose serving side the test plays."""
    ours, theirs = await pair.stream(EXCHANGE_PROTOCOL)
    client = ExchangeClient(ours, BOB, CLOCK)
    found: list[RemoteError] = []
    pair.nursery.start_soon(violation_of, client.run, found)
    return client, theirs, found


async def say(stream: Stream, *messages: object) -> None:
    for message in messages:
        await stream.send(encode_message("exchange", message))


async def hear(stream: Stream) -> object:
    return decode_message("exchange", await stream.receive())


async def until_broken(stream: Stream) -> None:
    """Whatever the other side still says, until it gives the stream up."""
    try:
        while True:
            await stream.receive()
    except StreamBroken:
        return


def test_many_requests_and_bulk_share_streams_in_both_directions() -> None:
    """Goal: nothing waits for something else. Method: from both sides at once 12 small and 3 full sequences placed, fetched back, and
    questions between them; all at the same time over one connection."""

    async def story() -> None:
        hosts = {"alice": Host(), "bob": Host()}
        fetched: list[bytes] = []

        async def use(client: ExchangeClient, number: int, bodies: tuple[bytes, ...]) -> None:
            place = place_of(bodies)
            answer, sent = await client.place(place, loader(bodies))
            assert (answer, sent) == (ANSWER, sum(place.sizes))
            got: dict[int, bytes] = {}

            async def take(found: Found) -> None:
                got.update(found)

            assert await client.fetch(place.root, dict(enumerate(place.names)), take) == ()
            assert tuple(got[index] for index in range(len(bodies))) == bodies
            fetched.append(place.root)

        async with connected(EXCHANGE_PROTOCOL) as pair:
            forth = await client_of(pair, hosts["bob"])
            ours, theirs = await pair.stream_back(EXCHANGE_PROTOCOL)
            back = ExchangeClient(theirs, ALICE, CLOCK)
            pair.nursery.start_soon(back.run)
            pair.nursery.start_soon(serve_exchange, ours, BOB, hosts["alice"], CLOCK)
            async with trio.open_nursery() as nursery:
                for client, salt in ((forth, 0), (back, 100)):
                    for number in range(12):
                        nursery.start_soon(use, client, number, bodies_of(16, 2048, salt=salt + number))
                        nursery.start_soon(client.describe, HASH, HASH, number)
                        nursery.start_soon(client.audit, HASH, ())
                    for number in range(12, 15):
                        nursery.start_soon(use, client, number, bodies_of(20, SEALED_CHUNK_BYTES_MAX, salt=salt + number))
        assert len(fetched) == 30
        assert len(set(hosts["bob"].committed)) == len(set(hosts["alice"].committed)) == 15

    live(story)


def test_second_place_sends_nothing_and_a_bundle_takes_one_question() -> None:
    """Goal: what is there is not sent again; small records share a question. Method: the same sequence twice; two records in a bundle, of
    which the holder refuses one."""

    async def story() -> None:
        async with connected(EXCHANGE_PROTOCOL) as pair:
            client = await client_of(pair, Host())
            bodies = bodies_of(4, 2048)
            assert (await client.place(place_of(bodies), loader(bodies)))[1] == 4 * 2048
            assert (await client.place(place_of(bodies), loader(bodies)))[1] == 0
            small = bodies_of(3, 2048, salt=9)
            parts = (m.BundledSequence(0, (), small),)
            answer = await client.bundle((m.BundledRecord(ANSWER, parts), m.BundledRecord(REFUSED, parts)))
            assert answer.receipts == (ANSWER,)
            assert answer.refused == ((1, "E-QUOTA", "full"),)

    live(story)


def test_bundles_with_large_chunks_share_a_stream_and_what_is_cancelled_holds_nothing() -> None:
    """Goal: the holder gets each bundle whole, and memory is counted. Method: ten bundles of 1 MiB at once beside questions while the
    disk stands still; some are given up, then all the others are kept as they were sent; 40 more; one asker sends half and no
    more, then begins another with the wrong chunk."""

    async def story() -> None:
        host = Host()
        host.gate = trio.Event()
        sets = [bodies_of(4, SEALED_CHUNK_BYTES_MAX, salt=number) for number in range(10)]
        records = [m.BundledRecord(ANSWER, (m.BundledSequence(0, (), (b"s" * 100, *bodies)),)) for bodies in sets]
        kept: list[int] = []
        async with connected(EXCHANGE_PROTOCOL) as pair:
            client = await client_of(pair, host)

            async def put(number: int, patience_s: float) -> None:
                with trio.move_on_after(patience_s):
                    assert (await client.bundle((records[number],))).receipts == (ANSWER,)
                    kept.append(number)

            async with trio.open_nursery() as nursery:
                for number in range(10):
                    nursery.start_soon(put, number, 2.0 if number % 3 == 0 else 100.0)
                await client.audit(HASH, ())
                await trio.sleep(20.0)
                host.gate.set()
            assert sorted(kept) == [number for number in range(10) if number % 3]
            assert [one for one in host.bundled if one not in records] == []
            assert len(host.bundled) == 10
            kept.clear()
            for _ in range(HELD_BYTES_MAX // (10 * 1024 * 1024) + 1):  # more than may be held, if none of it were let go
                async with trio.open_nursery() as nursery:
                    for number in range(10):
                        nursery.start_soon(put, number, 100.0)
            assert sorted(kept) == sorted([*range(10)] * 4)
            stream, found = await raw_asker(pair, host)
            await say(stream, m.Bundle(1, x.parted(records[:1])[0]), m.Chunk(1, 0, sets[0][0]))
            refused = await hear(stream)
            assert isinstance(refused, m.Refused)
            assert refused.reason == Reason.STALLED.stable_name
            await say(stream, m.Bundle(2, x.parted(records[:1])[0]), m.Chunk(2, 1, sets[0][1]))
            await until_broken(stream)
            assert [error.reason for error in found] == [Reason.MALFORMED]
        assert host.storing_bytes == 0

    live(story)


def test_cancelled_request_ends_at_the_holder_and_the_stream_lives_on() -> None:
    """Goal: cancelling costs nobody anything. Method: place and fetch cancelled while the holder's disk stands still; then both again."""

    async def story() -> None:
        host = Host()
        bodies = bodies_of(40, SEALED_CHUNK_BYTES_MAX)
        place = place_of(bodies)

        async def never(found: Found) -> None:
            raise AssertionError("delivered")

        async with connected(EXCHANGE_PROTOCOL) as pair:
            client = await client_of(pair, host)
            host.gate = trio.Event()
            for request in (
                lambda: client.place(place, loader(bodies)),
                lambda: client.fetch(place.root, dict(enumerate(place.names)), never),
                lambda: client.describe(HASH, HASH, 0),
            ):
                with trio.move_on_after(1.0) as patience:
                    await request()
                assert patience.cancelled_caught
            host.gate.set()
            await client.describe(HASH, HASH, 0)
            assert host.committed == []
            assert host.storing_bytes == 0
            assert len(host.disk[place.root]) <= x.CREDIT_BYTES // SEALED_CHUNK_BYTES_MAX + 1
            assert (await client.place(place, loader(bodies)))[0] == ANSWER

    live(story)


def test_holder_is_told_that_a_request_is_cancelled() -> None:
    """Goal: the holder stops at once, not after its patience. Method: a fetch cancelled at once, a place after Need; Cancel comes next."""

    async def story() -> None:
        bodies = bodies_of(40, SEALED_CHUNK_BYTES_MAX)
        place = place_of(bodies)

        async def take(found: Found) -> None:
            raise AssertionError("delivered")

        async def hang(root: bytes, indexes: tuple[int, ...]) -> Chunks:
            await trio.sleep_forever()
            raise AssertionError

        async with connected(EXCHANGE_PROTOCOL) as pair:
            client, theirs, _ = await raw_holder(pair)
            with trio.move_on_after(1.0):
                await client.fetch(place.root, {0: place.names[0]}, take)
            assert isinstance(await hear(theirs), m.Fetch)
            assert await hear(theirs) == m.Cancel(1)
            with trio.move_on_after(1.0):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(client.place, place, hang)
                    assert isinstance(await hear(theirs), m.Place)
                    await say(theirs, m.Need(2, (0,), x.CREDIT_BYTES))
            assert await hear(theirs) == m.Cancel(2)

    live(story)


def test_slow_disk_holds_the_peer_back() -> None:
    """Goal: memory is bounded by HELD_BYTES_MAX, whatever credit was given. Method: 12 sequences of 4 MiB arrive while nothing can be
    written for 20 s; then all are."""

    async def story() -> None:
        host = Host()
        host.gate = trio.Event()
        done = 0
        bodies = bodies_of(16, 256 * 1024)
        async with connected(EXCHANGE_PROTOCOL) as pair:
            client = await client_of(pair, host)

            async def put(number: int) -> None:
                nonlocal done
                mine = (*bodies[:15], number.to_bytes(4, "big") * (64 * 1024))
                await client.place(place_of(mine), loader(mine))
                done += 1

            async with trio.open_nursery() as nursery:
                for number in range(12):
                    nursery.start_soon(put, number)
                await trio.sleep(20.0)
                assert done == 0
                assert 0.9 * HELD_BYTES_MAX < host.storing_bytes_max < 1.1 * HELD_BYTES_MAX
                host.gate.set()
        assert done == len(host.committed) == 12

    live(story)


def test_slow_reader_holds_the_holder_back_and_is_not_blamed() -> None:
    """Goal: a paused download goes on. Method: each chunk takes 5 s to be used up, 20 chunks, several at once as they come."""

    async def story() -> None:
        host = Host()
        bodies = bodies_of(20, SEALED_CHUNK_BYTES_MAX)
        place = place_of(bodies)
        host.disk[place.root] = dict(enumerate(bodies))
        got: list[int] = []

        async def take(found: Found) -> None:
            await trio.sleep(5.0 * len(found))
            assert len(found) <= DELIVERED_CHUNKS_MAX
            got.extend(index for index, _ in found)

        async with connected(EXCHANGE_PROTOCOL) as pair:
            client = await client_of(pair, host)
            await client.fetch(place.root, dict(enumerate(place.names)), take)
        assert got == list(range(20))

    live(story)


def test_liar_is_banned_and_its_bytes_go_nowhere() -> None:
    """Goal: wrong bytes are neither delivered nor stored. Method: a holder and an asker that send other bytes of the right length."""

    async def story() -> None:
        bodies = bodies_of(2, 2048)
        place = place_of(bodies)
        host, liar = Host(), Host()
        liar.disk[place.root] = {0: bodies[1], 1: bodies[0]}
        got: list[int] = []

        async def take(found: Found) -> None:
            got.extend(index for index, _ in found)

        async with connected(EXCHANGE_PROTOCOL) as pair:
            client = await client_of(pair, liar)
            with pytest.raises(RemoteError) as caught:
                await client.fetch(place.root, dict(enumerate(place.names)), take)
            assert (caught.value.reason, caught.value.verdict) == (Reason.WRONG_NAME, Verdict.BAN)
            assert got == []
            stream, found = await raw_asker(pair, host)
            await say(stream, place_of(bodies, request=1))
            assert isinstance(await hear(stream), m.Need)
            await say(stream, m.Chunk(1, 0, bodies[1]))
            await until_broken(stream)
            assert [(error.reason, error.verdict) for error in found] == [(Reason.WRONG_NAME, Verdict.BAN)]
            assert not host.disk[place.root]

    live(story)


def test_more_bytes_than_the_credit_are_a_flood_on_both_sides() -> None:
    """Goal: nobody fills our memory. Method: an asker that ignores its credit while the disk stands still; a holder that sends on while
    our reader stands still."""

    async def story() -> None:
        bodies = bodies_of(40, SEALED_CHUNK_BYTES_MAX)
        host = Host()
        host.gate = trio.Event()
        async with connected(EXCHANGE_PROTOCOL) as pair:
            stream, found = await raw_asker(pair, host)
            await say(stream, place_of(bodies, request=1))
            assert isinstance(await hear(stream), m.Need)
            with pytest.raises(StreamBroken):
                await say(stream, *(m.Chunk(1, index, body) for index, body in enumerate(bodies)))
            assert [error.reason for error in found] == [Reason.FLOOD]
            assert host.storing_bytes_max <= x.CREDIT_BYTES

            client, theirs, found = await raw_holder(pair)
            place = place_of(bodies)

            async def stand_still(found: Found) -> None:
                await trio.sleep_forever()

            async def ask() -> None:
                with pytest.raises(LadingError):
                    await client.fetch(place.root, dict(enumerate(place.names)), stand_still)

            pair.nursery.start_soon(ask)
            fetch = await hear(theirs)
            assert isinstance(fetch, m.Fetch)
            with pytest.raises(StreamBroken):
                await say(theirs, *(m.Chunk(fetch.request, index, body) for index, body in enumerate(bodies)))
            assert [error.reason for error in found] == [Reason.FLOOD]
            assert len(bodies) * SEALED_CHUNK_BYTES_MAX > 2 * INBOX_BYTES_MAX

    live(story)


def test_requests_beyond_the_limit_are_a_flood_and_numbers_never_come_back() -> None:
    """Goal: the bound on requests. Method: 129 questions while none is answered; the number 5 after 5; a frame of noise."""

    async def story() -> None:
        async with connected(EXCHANGE_PROTOCOL) as pair:
            for said, reason in (
                ([m.Describe(number, HASH, HASH, 0) for number in range(1, 2 * x.REQUESTS_OPEN_MAX + 2)], Reason.FLOOD),
                ([m.Describe(5, HASH, HASH, 0), m.Describe(5, HASH, HASH, 0)], Reason.OUT_OF_ORDER),
                ([m.Describe(0, HASH, HASH, 0)], Reason.OUT_OF_ORDER),
                ([m.Describe(1, b"short", HASH, 0)], Reason.MALFORMED),
                ([m.Fetch(1, HASH, (0, 0), 1)], Reason.MALFORMED),
            ):
                host = Host()
                host.gate = trio.Event()
                stream, found = await raw_asker(pair, host)
                await say(stream, *said)
                await until_broken(stream)
                assert [error.reason for error in found] == [reason]
            stream, found = await raw_asker(pair, Host())
            await stream.send(b"\x01noise")
            await until_broken(stream)
            assert isinstance(found[0], DecodeError)

    live(story)


def test_many_callers_share_the_slots() -> None:
    """Goal: our own side keeps the bound it expects of others. Method: 200 questions at once; the holder counts."""

    async def story() -> None:
        host = Host()
        host.gate = trio.Event()
        async with connected(EXCHANGE_PROTOCOL) as pair:
            client = await client_of(pair, host)
            async with trio.open_nursery() as nursery:
                for number in range(200):
                    nursery.start_soon(client.describe, HASH, HASH, number)
                await trio.sleep(1.0)
                assert host.at_once == x.REQUESTS_OPEN_MAX
                host.gate.set()
        assert host.at_once_max == x.REQUESTS_OPEN_MAX

    live(story)


def test_stalling_holder_is_given_up_and_another_one_asked() -> None:
    """Goal: a holder that stands still is replaced. Method: fetch from one whose disk never answers, then from one that has it."""

    async def story() -> None:
        bodies = bodies_of(3, 2048)
        place = place_of(bodies)
        silent, good = Host(), Host()
        silent.gate = trio.Event()
        good.disk[place.root] = dict(enumerate(bodies))
        got: dict[int, bytes] = {}

        async def take(found: Found) -> None:
            got.update(found)

        async with connected(EXCHANGE_PROTOCOL) as pair:
            clients = [await client_of(pair, host) for host in (silent, good)]
            before = trio.current_time()
            with pytest.raises(RemoteError) as caught:
                await clients[0].fetch(place.root, dict(enumerate(place.names)), take)
            assert (caught.value.reason, caught.value.verdict) == (Reason.STALLED, Verdict.IGNORE)
            assert trio.current_time() - before == pytest.approx(x.FETCH_PATIENCE_S)
            await clients[1].fetch(place.root, dict(enumerate(place.names)), take)
            with pytest.raises(RemoteError) as caught:
                await clients[0].describe(HASH, HASH, 0)
            assert caught.value.reason is Reason.STALLED
        assert tuple(got[index] for index in range(3)) == bodies

    live(story)


def test_slow_link_that_many_requests_share_is_not_taken_for_a_stalling_peer() -> None:
    """Goal: a satellite link works. Method: 12 sequences placed at once, then fetched at once, at 100 kB/s: each gets a chunk every half
    minute, beyond the patience for one alone."""

    async def story() -> None:
        host = Host()
        sequences = [bodies_of(3, SEALED_CHUNK_BYTES_MAX, salt=number) for number in range(12)]
        got = 0

        async def take(found: Found) -> None:
            nonlocal got
            got += len(found)

        async with connected(EXCHANGE_PROTOCOL) as pair:
            pair.network.set_link(ALICE, BOB, Link(bandwidth_bytes_s=1e5))
            client = await client_of(pair, host)
            async with trio.open_nursery() as nursery:
                for bodies in sequences:
                    nursery.start_soon(client.place, place_of(bodies), loader(bodies))
            assert len(host.committed) == 12
            async with trio.open_nursery() as nursery:
                for bodies in sequences:
                    place = place_of(bodies)
                    nursery.start_soon(client.fetch, place.root, dict(enumerate(place.names)), take)
        assert got == 36

    live(story)


def test_peer_that_reads_nothing_is_given_up() -> None:
    """Goal: no request hangs in a send. Method: bulk to a peer that never receives."""

    async def story() -> None:
        bodies = bodies_of(20, SEALED_CHUNK_BYTES_MAX)
        async with connected(EXCHANGE_PROTOCOL) as pair:
            client, theirs, _ = await raw_holder(pair)
            before = trio.current_time()

            async def put() -> None:
                with pytest.raises(StreamBroken):
                    await client.place(place_of(bodies), loader(bodies))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(put)
                place = await hear(theirs)
                assert isinstance(place, m.Place)
                await say(theirs, m.Need(place.request, tuple(range(20)), 2**40))
            assert trio.current_time() - before == pytest.approx(SEND_PATIENCE_S)

    live(story)


def test_refusal_of_the_host_is_told_with_its_reason() -> None:
    """Goal: the asker learns why. Method: each kind of request at a host that refuses."""

    async def story() -> None:
        host = Host()
        host.refuse = StoreFull("no room")
        bodies = bodies_of(1, 2048)
        place = place_of(bodies)

        async def take(found: Found) -> None:
            raise AssertionError

        async with connected(EXCHANGE_PROTOCOL) as pair:
            client = await client_of(pair, host)
            for request in (
                lambda: client.place(place, loader(bodies)),
                lambda: client.fetch(place.root, {0: place.names[0]}, take),
                lambda: client.confirm(ANSWER, 1, ()),
                lambda: client.describe(HASH, HASH, 0),
                lambda: client.audit(HASH, ()),
            ):
                with pytest.raises(RemoteError) as caught:
                    await request()
                assert (caught.value.reason, caught.value.verdict) == (Reason.STORE_FULL, Verdict.IGNORE)

    live(story)


def test_our_own_fault_is_not_told_to_the_peer() -> None:
    """Goal: a broken rule of ours stops the node instead of becoming a refusal. Method: a host that raises LocalError."""

    async def story() -> None:
        host = Host()
        host.refuse = LocalError(Reason.FAILED, "a bug")
        async with connected(EXCHANGE_PROTOCOL) as pair:
            ours, theirs = await pair.stream(EXCHANGE_PROTOCOL)
            await say(ours, m.Audit(1, HASH, ()))
            with pytest.RaisesGroup(LocalError, flatten_subgroups=True):
                await serve_exchange(theirs, ALICE, host, CLOCK)

    live(story)


def test_broken_stream_fails_every_open_request_and_ends_the_serving_quietly() -> None:
    """Goal: nobody waits for a stream that is gone, and a lost peer is no violation. Method: a reset while a place, a fetch and a question
    are open; the next request fails at once."""

    async def story() -> None:
        host = Host()
        host.gate = trio.Event()
        bodies = bodies_of(20, SEALED_CHUNK_BYTES_MAX)
        place = place_of(bodies)
        failed = 0

        async def expect_broken(request: Callable[[], Awaitable[object]]) -> None:
            nonlocal failed
            with pytest.raises(StreamBroken):
                await request()
            failed += 1

        async def take(found: Found) -> None:
            raise AssertionError

        async with connected(EXCHANGE_PROTOCOL) as pair:
            ours, theirs = await pair.stream(EXCHANGE_PROTOCOL)
            client = ExchangeClient(ours, BOB, CLOCK)
            served = trio.Event()

            async def serve() -> None:
                await serve_exchange(theirs, ALICE, host, CLOCK)
                served.set()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(client.run)
                nursery.start_soon(serve)
                nursery.start_soon(expect_broken, lambda: client.place(place, loader(bodies)))
                nursery.start_soon(expect_broken, lambda: client.fetch(place.root, {0: place.names[0]}, take))
                nursery.start_soon(expect_broken, lambda: client.describe(HASH, HASH, 0))
                await trio.sleep(1.0)
                ours.reset()
            await served.wait()
            await expect_broken(lambda: client.audit(HASH, ()))
        assert failed == 4
        assert host.storing_bytes == 0

    live(story)


def test_answers_nobody_waits_for_are_passed_over_and_wrong_ones_are_not_believed() -> None:
    """Goal: late and mixed-up answers. Method: an answer to a request that never was; a Done as the answer to a question; two answers."""

    async def story() -> None:
        async with connected(EXCHANGE_PROTOCOL) as pair:
            client, theirs, found = await raw_holder(pair)

            async def answer(*messages: Callable[[int], object]) -> None:
                asked = await hear(theirs)
                assert isinstance(asked, m.Audit)
                await say(theirs, *(make(asked.request) for make in messages))

            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, lambda _: m.Done(77), lambda number: m.AuditAnswer(number, HASH))
                assert await client.audit(HASH, ()) == HASH
            async with trio.open_nursery() as nursery:
                nursery.start_soon(answer, lambda number: m.Done(number))
                with pytest.raises(RemoteError) as caught:
                    await client.audit(HASH, ())
            assert caught.value.reason is Reason.OUT_OF_ORDER
            assert found == []

    live(story)


# --- how long at most -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("chunk_every_s", "given_up_after_s"), [(None, x.FETCH_PATIENCE_S + x.SHARED_PATIENCE_S), (300.0, x.request_life_s(16))]
)
def test_fetch_that_gets_little_while_others_are_served_is_given_up(chunk_every_s: float | None, given_up_after_s: float) -> None:
    """Goal: a holder cannot keep one request open for ever by serving others well. Method: it answers a stream of small fetches at once,
    and one of 16 chunks not at all, or with a chunk every five minutes."""

    async def story() -> None:
        async with connected(EXCHANGE_PROTOCOL) as pair, trio.open_nursery() as around:
            client, holder, _ = await raw_holder(pair)
            bodies = bodies_of(16, 1024)
            names = dict(enumerate(place_of(bodies).names))

            async def nothing(found: Found) -> None:
                await trio.lowlevel.checkpoint()

            async def trickle(request: int) -> None:
                for index in range(16):
                    if chunk_every_s is None:
                        return
                    await trio.sleep(chunk_every_s)
                    await say(holder, m.Chunk(request, index, bodies[index]))

            async def serve() -> None:
                while True:
                    message = decode_message("exchange", await holder.receive())
                    if isinstance(message, m.Fetch) and len(message.indexes) == 16:
                        around.start_soon(trickle, message.request)
                    elif isinstance(message, m.Fetch):
                        await say(holder, m.Chunk(message.request, 0, bodies[0]), m.Done(message.request, ()))

            async def others() -> None:
                while True:
                    await client.fetch(HASH, {0: names[0]}, nothing)
                    await trio.sleep(2)

            around.start_soon(serve)
            around.start_soon(others)
            before = trio.current_time()
            with pytest.raises(RemoteError) as caught:
                await client.fetch(HASH, names, nothing)
            assert (caught.value.reason, caught.value.verdict) == (Reason.STALLED, Verdict.IGNORE)
            assert trio.current_time() - before == pytest.approx(given_up_after_s, abs=5)
            assert client.broken is None
            around.cancel_scope.cancel()

    live(story, life_s=2 * given_up_after_s)


def test_asker_that_gives_a_byte_of_credit_now_and_then_is_refused_in_the_end() -> None:
    """Goal: nobody keeps what was read for him in our memory for ever. Method: a fetch of one chunk with one byte of credit, and one more
    every twenty seconds."""

    async def story() -> None:
        bodies = bodies_of(1, SEALED_CHUNK_BYTES_MAX - 16)
        place = place_of(bodies)
        host = Host()
        host.disk[place.root] = dict(enumerate(bodies))
        async with connected(EXCHANGE_PROTOCOL) as pair:
            asker, found = await raw_asker(pair, host)

            async def dribble() -> None:
                while True:
                    await trio.sleep(20)
                    await say(asker, m.Credit(1, 1))

            before = trio.current_time()
            await say(asker, m.Fetch(1, place.root, (0,), 1))
            pair.nursery.start_soon(dribble)
            answer = decode_message("exchange", await asker.receive())
            assert isinstance(answer, m.Refused)
            assert answer.reason == Reason.STALLED.stable_name
            assert trio.current_time() - before == pytest.approx(x.request_life_s(1), abs=1)
            assert found == []

    live(story, life_s=2 * x.request_life_s(1))
