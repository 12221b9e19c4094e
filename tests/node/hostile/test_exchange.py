"""What a certified member's node can do on `/lading/exchange/1`."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import trio

from node.transport.port import StreamBroken
from node.wiring import Node
from protocols.codec import encode
from protocols.crypto import FORMAT, SUITE, sha256
from protocols.exchange import messages as m
from protocols.files.holdings import open_receipt
from protocols.files.objects import Offer, open_statement, sign_offer
from protocols.files.sequences import sequence_root
from protocols.gossip.facts import FactKind
from protocols.registry import decode_message, encode_message
from protocols.signed import Signed
from protocols.types import SequenceRoot, UnixSeconds
from storage import chunks, places
from storage.engine import Put
from storage.tables import BODIES

from .scene import EPOCH, QUOTA_BYTES, Enemy, Scene, play, scene


def body(number: int, size: int = 1024) -> bytes:
    return number.to_bytes(4, "big") * (size // 4)


def offer_for(enemy: Enemy, bodies: Sequence[bytes]) -> tuple[Signed, tuple[bytes, ...]]:
    """The enemy's offer of these chunks, and their names."""
    assert enemy.own.member is not None
    names = tuple(sha256(one) for one in bodies)
    offer = Offer(
        format=FORMAT,
        suite=SUITE,
        network=enemy.own.network_id,
        domain=enemy.own.domain_id,
        owner=enemy.own.owner,
        put_id=b"p" * 16,
        sequence_root=SequenceRoot(sequence_root(names)),
        chunk_names=names,
        sealed_bytes=sum(map(len, bodies)),
        time_s=UnixSeconds(EPOCH),
        expires_s=UnixSeconds(EPOCH + 3600),
    )
    return sign_offer(offer, enemy.own.member.signing), names


def frame(message: object) -> bytes:
    return encode_message("exchange", message)


def place_of(enemy: Enemy, number: int, bodies: Sequence[bytes], *, sizes: tuple[int, ...] = ()) -> m.Place:
    offer, names = offer_for(enemy, bodies)
    return m.Place(number, sequence_root(names), names, sizes or tuple(map(len, bodies)), m.ByOffer(offer))


async def entered(stage: Scene, name: str = "enemy", node: Node | None = None) -> tuple[Node, Enemy]:
    """A node and an enemy that it has proven."""
    node = node or await stage.start()
    enemy = Enemy(stage, stage.own(name))
    await enemy.enter(node)
    assert stage.nursery is not None
    stage.nursery.start_soon(enemy.keep_alive)
    return node, enemy


def test_record_with_more_sequences_than_an_index_counts_when_placed_then_the_node_stands() -> None:
    """Goal: no number in a statement may break the store's writer. Method: a lawful statement with 2^32 + 1 sequences, of which the
    last one, whose path has one step, is placed."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            chunk = body(1)
            name = sha256(chunk)
            other = b"o" * 32
            signed = enemy.statement([name], chunks_root=sha256(b"\x01", other, name), data_chunks=2**32, sealed_bytes=1024)
            stream = await enemy.open_exchange()
            authority = m.ByStatement(signed, 2**32, 2**32 + 1, (other,))
            place = m.Place(1, sequence_root([name]), (name,), (len(chunk),), authority)
            answer = await enemy.ask(stream, place)
            if isinstance(answer, m.Need):
                answer = await enemy.ask(stream, m.Chunk(1, 0, chunk))
            assert isinstance(answer, m.Refused)
            assert node.peers.is_connected(enemy.own.peer_id)

    play(story)


def test_describe_with_an_index_that_no_store_has_when_asked_then_it_is_refused() -> None:
    """Goal: a question's numbers are bounded. Method: indexes around 2^32."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            stream = await enemy.open_exchange()
            assert isinstance(await enemy.ask(stream, m.Describe(1, enemy.own.owner, b"h" * 32, 2**32 - 1)), m.Refused)
            with pytest.raises(StreamBroken):
                await enemy.ask(stream, m.Describe(2, enemy.own.owner, b"h" * 32, 2**32))
            await trio.sleep(1)
            assert not node.peers.is_connected(enemy.own.peer_id)

    play(story)


def test_many_offers_at_once_when_each_alone_fits_then_the_quota_still_holds() -> None:
    """Goal: a member's quota is one. Method: offers in parallel, each just below it."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            stream = await enemy.open_exchange()
            count, size = 16, 256 * 1024
            sets = [[body(100 * number + i, size) for i in range(12)] for number in range(1, 5)]
            for number, bodies in enumerate(sets, start=1):
                assert isinstance(await enemy.ask(stream, place_of(enemy, number, bodies)), m.Need)
            assert sum(size * len(bodies) for bodies in sets) > QUOTA_BYTES + count * size
            with trio.move_on_after(20):
                for index in range(12):
                    for number, bodies in enumerate(sets, start=1):
                        await stream.send(frame(m.Chunk(number, index, bodies[index])))
                        await trio.sleep(0.01)
            held = node.chunk_store.peek(lambda snapshot: chunks.owner_bytes(snapshot, enemy.own.owner))
            assert 0 < held <= QUOTA_BYTES

    play(story)


def test_wrong_sizes_when_the_chunks_are_here_already_then_they_are_refused() -> None:
    """Goal: nobody can poison what a holder says of another's sequence. Method: chunks are placed as they are, then again under a
    statement with sizes that lie; a holder that copied them on would be thrown out by its peers."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            stream = await enemy.open_exchange()
            chunk = body(7)
            name = sha256(chunk)
            root = sequence_root([name])
            signed = enemy.statement([root])
            honest = m.Place(1, root, (name,), (len(chunk),), m.ByStatement(signed, 0, 1, ()))
            assert isinstance(await enemy.ask(stream, honest), m.Need)
            assert isinstance(await enemy.ask(stream, m.Chunk(1, 0, chunk)), m.Placed)
            second = Enemy(stage, stage.own("poisoner"))
            await second.enter(node)
            lie = m.Place(1, root, (name,), (2048,), m.ByStatement(signed, 0, 1, ()))
            assert isinstance(await second.ask(await second.open_exchange(), lie), m.Refused)
            statement = open_statement(signed, enemy.own.network_id)
            place = node.chunk_store.peek(lambda snapshot: places.get_place(snapshot, statement.owner, statement.hash_id, 0))
            assert place is not None
            assert place.sizes == (len(chunk),)

    play(story)


def test_confirm_of_one_sequence_a_thousand_times_then_it_is_refused() -> None:
    """Goal: a frame makes no more work than it has sequences. Method: one index again and again."""

    async def story() -> None:
        async with scene() as stage:
            _, enemy = await entered(stage)
            stream = await enemy.open_exchange()
            chunk = body(9)
            place = place_of(enemy, 1, [chunk])
            assert isinstance(await enemy.ask(stream, place), m.Need)
            assert isinstance(await enemy.ask(stream, m.Chunk(1, 0, chunk)), m.Placed)
            signed = enemy.statement([place.root])
            items = tuple((0, place.root, ()) for _ in range(1000))
            assert isinstance(await enemy.ask(stream, m.Confirm(2, signed, 1, items)), m.Refused)
            confirmed = await enemy.ask(stream, m.Confirm(3, signed, 1, items[:1]))
            assert isinstance(confirmed, m.Confirmed)
            assert confirmed.receipt is not None
            assert open_receipt(confirmed.receipt, enemy.own.network_id).items[0].sequence_roots == (place.root,)

    play(story)


def test_chunk_that_rots_on_a_holders_disk_when_fetched_then_it_is_not_sent() -> None:
    """Goal: an altered byte is detected before it is served: a holder that sent it would be banned by its reader. Method: a byte
    is changed in the engine below the node."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            stream = await enemy.open_exchange()
            bodies = [body(1), body(2)]
            names = tuple(map(sha256, bodies))
            root = sequence_root(names)
            signed = enemy.statement([root], manifest_chunks=2)
            place = m.Place(1, root, names, (1024, 1024), m.ByStatement(signed, 0, 1, ()))
            assert isinstance(await enemy.ask(stream, place), m.Need)
            await stream.send(frame(m.Chunk(1, 0, bodies[0])))
            answer = await enemy.ask(stream, m.Chunk(1, 1, bodies[1]))
            while not isinstance(answer, m.Placed):
                answer = decode_message("exchange", await stream.receive())
            node.world.chunks.write([Put(BODIES, names[1], b"x" * 1024)])
            answer = await enemy.ask(stream, m.Fetch(2, root, (0, 1), 4 * 1024 * 1024))
            assert isinstance(answer, m.Chunk)
            assert answer.index == 0
            assert decode_message("exchange", await stream.receive()) == m.Done(2, (1,))

    play(story)


def test_bundle_of_good_and_bad_records_when_asked_then_the_good_ones_are_kept_and_each_bad_one_is_refused_for_its_reason() -> None:
    """Goal: what one record does wrong costs the others nothing, and nothing wrong is kept. Method: one bundle of a sound record, one whose
    chunk is another, one with a sequence no index counts, one by a stranger, one with a broken signature and one beyond the quota."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            stream = await enemy.open_exchange()

            def record(signed: Signed, chunk: bytes, index: int = 0, path: tuple[bytes, ...] = ()) -> m.BundledRecord:
                return m.BundledRecord(signed, (m.BundledSequence(index, path, (chunk,)),))

            def root_of(chunk: bytes) -> bytes:
                return sequence_root([sha256(chunk)])

            good, swapped, far = body(1), body(2), body(3)
            other = b"o" * 32
            beyond = enemy.statement([b"x"], chunks_root=sha256(b"\x01", other, root_of(far)), data_chunks=2**32, sealed_bytes=1024)
            stranger = Enemy(stage, stage.own("stranger"))  # certified, but the node has never heard of it
            honest = enemy.statement([root_of(body(5))])
            records = (
                record(enemy.statement([root_of(good)]), good),
                record(enemy.statement([root_of(swapped)]), body(99)),
                record(beyond, far, 2**32, (other,)),
                record(stranger.statement([root_of(body(4))]), body(4)),
                record(Signed(honest.body, honest.signer, bytes(64)), body(5)),
            )
            answer = await enemy.ask(stream, m.Bundle(1, records))
            assert isinstance(answer, m.Bundled)
            assert {number: reason for number, reason, _ in answer.refused} == {
                1: "E-INTEGRITY",
                2: "E-INTEGRITY",
                3: "E-NOT-MEMBER",
                4: "E-BAD-SIGNATURE",
            }
            (receipt,) = answer.receipts
            (item,) = open_receipt(receipt, enemy.own.network_id).items
            assert item.sequence_roots == (root_of(good),)
            held = node.chunk_store.peek(lambda snapshot: list(chunks.sequences(snapshot)))
            assert [one.sequence_root for one in held] == [root_of(good)]
            # The same again is no second copy; what a member may keep here is bounded whatever way it comes.
            assert await enemy.ask(stream, m.Bundle(2, records[:1])) != answer
            number = 3
            while True:
                part = [body(1000 * number + n, 256 * 1024) for n in range(1)]
                last = await enemy.ask(stream, m.Bundle(number, tuple(record(enemy.statement([root_of(one)]), one) for one in part)))
                assert isinstance(last, m.Bundled)
                number += 1
                if last.refused:
                    break
            assert last.refused[0][1] == "E-QUOTA"
            owned = node.chunk_store.peek(lambda snapshot: chunks.owner_bytes(snapshot, enemy.own.owner))
            assert QUOTA_BYTES - 256 * 1024 <= owned <= QUOTA_BYTES
            assert node.peers.is_connected(enemy.own.peer_id)

    play(story)


def test_deleted_record_when_bundled_again_then_it_is_refused() -> None:
    """Goal: no way to keep leads around a tombstone. Method: a record by bundle, its tombstone, the same bundle."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            enemy = Enemy(stage, stage.own("enemy"))
            await enemy.enter(node)  # without keep_alive, which would read what tell waits for
            stream = await enemy.open_exchange()
            chunk = body(1)
            signed = enemy.statement([sequence_root([sha256(chunk)])])
            bundle = (m.BundledRecord(signed, (m.BundledSequence(0, (), (chunk,)),)),)
            assert isinstance(await enemy.ask(stream, m.Bundle(1, bundle)), m.Bundled)
            await enemy.tell((FactKind.TOMBSTONE, encode(enemy.tombstone(signed, EPOCH + 1))))
            answer = await enemy.ask(stream, m.Bundle(2, bundle))
            assert isinstance(answer, m.Bundled)
            assert [(number, reason) for number, reason, _ in answer.refused] == [(0, "E-DELETED")]
            assert answer.receipts == ()

    play(story)
