"""What a whole node keeps and lets go of: published anew, taken back meanwhile, damaged before it is promised."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import trio

from node.actors.holdings import TakenRecord, _groups
from node.actors.puts import PutOptions
from node.actors.replication import LOOK_PAUSE_S
from node.wiring import Node
from protocols.codec import encode
from protocols.crypto import sha256
from protocols.errors import StoreFull
from protocols.exchange import messages as m
from protocols.exchange.machine import CREDIT_BYTES
from protocols.files.holdings import Receipt, ReceiptItem
from protocols.files.repair import ReceiptAnswered, SurplusDrop, Weighed
from protocols.files.sequences import sequence_root
from protocols.limits import RECEIPT_BYTES_MAX
from protocols.registry import decode_message, encode_message
from protocols.signed import Signed
from protocols.types import Digest, HashId, NetworkId, OwnerKey, PeerId, SequenceRoot, StoreId, UnixSeconds
from storage import chunks
from storage.engine import Put
from storage.tables import BODIES, PLACES, REFERENCES, ROOTS
from tests.node.hostile.scene import Enemy, Scene, play, scene

LOCAL = PutOptions(ack="local")
# The look that follows a tombstone begins LOOK_PAUSE_S after it; a put takes some milliseconds, a commit half a one.
FIRST_S = LOOK_PAUSE_S - 0.006
STEP_S = 0.00025
STEPS = 48
PUTS = 6


def file_of(folder: Path, name: str, seed: int, size: int = 200_000) -> Path:
    path = folder / name
    path.write_bytes(seed.to_bytes(4, "big") * (size // 4))
    return path


def rows(node: Node) -> tuple[int, int, int, int]:
    """(bodies, references, places, roots) in a node's store."""
    return node.chunk_store.peek(
        lambda snapshot: (snapshot.count(BODIES), snapshot.count(REFERENCES), snapshot.count(PLACES), snapshot.count(ROOTS))
    )


def held_names(node: Node) -> list[bytes]:
    return node.chunk_store.peek(lambda snapshot: [name for held in chunks.sequences(snapshot) for name in held.names])


async def read(node: Node, record: str, target: Path) -> bytes:
    await node.files.get(record, output=target, directory=None, entry=None, keep=False, inline=None)
    return await trio.Path(target).read_bytes()


@pytest.mark.parametrize("act", ["delete", "erase"])
def test_same_files_deleted_and_put_again_five_times_then_the_store_is_as_after_the_first(tmp_path: Path, act: str) -> None:
    """Goal: publishing anew leaves nothing behind. Method: two nodes with a copy each; put, take back, put, five times; when the collector
    has been there, both stores hold as many bodies, references and places as after the first put."""

    async def story() -> None:
        async with scene() as stage:
            owner, holder = await stage.start("n0"), await stage.start("n1", issues=False)
            await trio.sleep(5)
            source = file_of(tmp_path, "deed.bin", 1)
            put, _ = await owner.files.put([source], PutOptions(ack="full"))
            record = str(put["record"])
            await trio.sleep(60)
            first = rows(owner), rows(holder)
            assert first[0] == first[1]
            for _ in range(5):
                await owner.files.remove(record, act, dry_run=False)
                await trio.sleep(10)
                await owner.files.put([source], PutOptions(ack="full"))
                await trio.sleep(10)
            await trio.sleep(60)
            assert (rows(owner), rows(holder)) == first
            assert await read(owner, record, tmp_path / "read") == source.read_bytes()

    play(story)


@pytest.mark.parametrize("act", ["delete", "erase"])
def test_record_published_anew_while_it_is_being_taken_away_is_kept(tmp_path: Path, act: str) -> None:
    """Goal: a put that is answered is never undone by the delete before it. Method: put, take back, and put again a little later each
    time, so that the new sequences arrive at every step of the burying; whatever `put` has answered is read back and held for good."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            answered: dict[str, tuple[Path, object]] = {}
            for step in range(STEPS):
                source = file_of(tmp_path, f"{step}.bin", 1000 + step, 20_000)
                put, _ = await node.files.put([source], LOCAL)
                record = str(put["record"])
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(remove, node, record, act)
                    await trio.sleep(FIRST_S + step * STEP_S)
                    put, _ = await node.files.put([source], LOCAL)
                if put["already_stored"]:
                    continue  # answered with what was there before the delete
                answered[record] = source, put["sequences"]
            await trio.sleep(20)  # some looks later, and after the collector
            for record, (source, count) in answered.items():
                facts = node.files.find(record)
                assert node.files.knowledge.verdict(facts).statement is not None
                assert len(await node.holdings.sequences_of(facts.key)) == count, source.name
                assert await read(node, record, tmp_path / f"read-{record}") == source.read_bytes()
            assert len(answered) > STEPS // 2

    play(story)


async def remove(node: Node, record: str, act: str) -> None:
    await node.files.remove(record, act, dry_run=False)


# --- damaged before it is promised ------------------------------------------------------------------------------------


def rot(node: Node, name: bytes) -> None:
    """A byte changes on the disk below the node."""
    body = node.chunk_store.peek(lambda snapshot: snapshot.get(BODIES, name))
    assert body is not None
    node.world.chunks.write([Put(BODIES, name, bytes([body[0] ^ 1]) + body[1:])])


def is_sound(node: Node, name: bytes) -> bool:
    body = node.chunk_store.peek(lambda snapshot: snapshot.get(BODIES, name))
    return body is not None and sha256(body) == name


def test_damaged_chunk_that_is_here_already_is_asked_for_before_a_receipt_counts_it(tmp_path: Path) -> None:
    """Goal: a receipt never speaks of bytes that were damaged when it was asked for. Method: a peer places a sequence, one of its two
    chunks rots, and it places the sequence for another statement: exactly the damaged one is wanted again, and is whole afterwards."""

    async def story() -> None:
        async with scene() as stage:
            node, enemy = await entered(stage)
            stream = await enemy.open_exchange()
            bodies = [bytes([number]) * 1024 for number in (1, 2)]
            names = tuple(map(sha256, bodies))
            root = sequence_root(names)

            def place(number: int) -> m.Place:
                signed = enemy.statement([root], manifest_chunks=2, c=sha256(b"%d" % number))
                return m.Place(number, root, names, (1024, 1024), m.ByStatement(signed, 0, 1, ()))

            assert await enemy.ask(stream, place(1)) == m.Need(1, (0, 1), CREDIT_BYTES)
            await stream.send(encode_message("exchange", m.Chunk(1, 0, bodies[0])))
            answer = await enemy.ask(stream, m.Chunk(1, 1, bodies[1]))
            while not isinstance(answer, m.Placed):
                answer = decode_message("exchange", await stream.receive())
            assert isinstance(await enemy.ask(stream, place(2)), m.Placed)
            rot(node, names[1])
            assert await enemy.ask(stream, place(3)) == m.Need(3, (1,), CREDIT_BYTES)
            answer = await enemy.ask(stream, m.Chunk(3, 1, bodies[1]))
            while not isinstance(answer, m.Placed):
                answer = decode_message("exchange", await stream.receive())
            assert all(is_sound(node, name) for name in names)

    play(story)


@pytest.mark.parametrize("size", [200_000, 1_500_000], ids=["small record", "large record"])
def test_put_of_what_is_here_already_replaces_chunks_that_have_rotted(tmp_path: Path, size: int) -> None:
    """Goal: the owner's own receipt never counts a damaged copy. Method: one file in two records; its chunk rots between the two puts;
    after the second every chunk is what its name says, and both records are read."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            (tmp_path / "second").mkdir()
            source = file_of(tmp_path, "photo.raw", 7, size)
            same = file_of(tmp_path / "second", "photo.raw", 7, size)
            first, _ = await node.files.put([source], LOCAL)
            shared = max(held_names(node), key=lambda name: len(node.chunk_store.peek(lambda s: s.get(BODIES, name)) or b""))
            rot(node, shared)
            second, _ = await node.files.put([same, file_of(tmp_path / "second", "more.raw", 8)], LOCAL)
            assert second["record"] != first["record"]
            assert all(is_sound(node, name) for name in held_names(node))
            assert await read(node, str(first["record"]), tmp_path / "read") == source.read_bytes()

    play(story)


async def entered(stage: Scene) -> tuple[Node, Enemy]:
    node = await stage.start()
    enemy = Enemy(stage, stage.own("enemy"))
    await enemy.enter(node)
    assert stage.nursery is not None
    stage.nursery.start_soon(enemy.keep_alive)
    return node, enemy


# --- promised ---------------------------------------------------------------------------------------------------------


def test_surplus_copy_that_is_promised_anew_while_it_is_being_dropped_stays(tmp_path: Path) -> None:
    """Goal: no receipt counts for a copy that is gone. Method: a copy is withdrawn and about to be dropped; before the last answer comes,
    another node has the sequence placed here again and gets a receipt; then the last answer comes."""

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            put, _ = await node.files.put([file_of(tmp_path, "deed.bin", 5)], LOCAL)
            facts = node.files.find(str(put["record"]))
            signed, statement = node.files.statement_of(facts)
            sequence = (await node.holdings.sequences_of(facts.key))[1]
            root, other = SequenceRoot(sequence.root), PeerId(b"other")
            machine = SurplusDrop(node.own.peer_id)
            node.replication._dropping[(facts.key, root)] = machine
            async with trio.open_nursery() as nursery:

                async def step(event: object) -> None:
                    await node.replication._drop_step(machine, event, facts, sequence, nursery)

                def counts() -> bool:
                    counted = node.files.knowledge.counting(facts, now=int(node.world.clock.now()))
                    return node.own.peer_id in counted.get(root, ())

                await step(Weighed(frozenset({other}), frozenset({other})))
                assert not counts()
                await node.holdings.take_all((TakenRecord(statement, signed.object_hash, (sequence,)),), other)
                assert counts()
                await step(ReceiptAnswered(other, 1))
                assert counts()
                assert sequence in await node.holdings.sequences_of(facts.key)

    play(story)


def test_put_that_is_durable_is_answered_so_whatever_becomes_of_the_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: `put` tells the truth. Method: puts wait while the actor signs for the first, and are taken in one group, each with a
    commit of its own; the last commit meets a full disk: only that put fails."""
    monkeypatch.setattr("node.actors.holdings.COMMIT_BYTES", 1)
    monkeypatch.setattr("node.actors.puts.RECORDS_COMMIT_BYTES", 1)

    async def story() -> None:
        async with scene() as stage:
            node = await stage.start()
            receipts_for, calls = node.holdings._receipts_for, 0

            async def fails_at_the_last(*arguments: Any) -> dict[int, Signed]:
                nonlocal calls
                calls += 1
                if calls == PUTS:
                    raise StoreFull("no room")
                return await receipts_for(*arguments)

            monkeypatch.setattr(node.holdings, "_receipts_for", fails_at_the_last)
            outcomes: list[bool] = []

            async def put(number: int) -> None:
                try:
                    await node.files.put([file_of(tmp_path, f"{number}.bin", number, 20_000)], LOCAL)
                    outcomes.append(True)
                except StoreFull:
                    outcomes.append(False)

            async with trio.open_nursery() as nursery, node.holdings._signing:
                for number in range(PUTS):
                    nursery.start_soon(put, number)
                await trio.sleep(1)
            published = sum(bool(facts.objects) for facts in node.files.knowledge.records.values())
            assert (outcomes.count(False), len(outcomes), published) == (1, PUTS, PUTS - 1)

    play(story)


@pytest.mark.parametrize("sequences", [1, 2, 1024])
def test_receipt_never_gets_larger_than_a_transaction_holds(sequences: int) -> None:
    """Goal: what a holder signs can go onto the ledger. Method: more records than one receipt takes, with the largest numbers; every group
    is encoded; none is cut smaller than it has to be."""
    groups = _groups([sequences] * 2000)
    assert [position for group in groups for position in group] == list(range(2000))
    big = (1 << 63) - 1
    item = ReceiptItem(
        owner=OwnerKey(bytes(32)),
        hash_id=HashId(bytes(32)),
        seq=big,
        object_hash=Digest(bytes(32)),
        wraps=Digest(bytes(32)),
        sequence_roots=(SequenceRoot(bytes(32)),) * sequences,
    )
    sizes = [len(_receipt((item,) * len(group), big)) for group in groups]
    assert max(sizes) <= RECEIPT_BYTES_MAX
    assert min(sizes[:-1]) >= RECEIPT_BYTES_MAX * 0.7


def _receipt(items: tuple[ReceiptItem, ...], big: int) -> bytes:
    return encode(
        Receipt(
            format=1,
            suite=1,
            network=NetworkId(bytes(32)),
            holder=PeerId(bytes(64)),
            store_id=StoreId(bytes(16)),
            generation=big,
            counter=big,
            from_s=UnixSeconds(big),
            until_s=UnixSeconds(big),
            items=items,
        )
    )
