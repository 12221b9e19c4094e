"""P20: what a light node's disk holds of a chain, against a full node's, after 10,000 records, 10 a block.

Both are the node's own actors over LMDB in the temporary folder: the full one judges and keeps every block, the light one asks it after
each by the same questions that would cross a network. Blocks, anchors and votes are made and signed before.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import trio

from node.actors.chain import ChainActor, ChainKeys
from node.actors.light import LightChain
from node.actors.showing import show
from node.actors.storage import StorageActor, StorageHandle
from node.bus import Bus
from node.offload import ThreadOffload
from node.promises import Kept
from protocols.ledger.block import Block
from protocols.ledger.machine import LightAnswer, LightQuestion
from protocols.ledger.votes import Checkpoint, Vote
from protocols.types import BlockHash, PeerId
from storage.engine import Env
from storage.lmdb_engine import LmdbEngine
from tests.protocols.ledger.chains import START_MS, Chain, account_of, start

from .harness import Row

BLOCKS = 1000
RECORDS_PER_BLOCK = 10
POINTS = 10
BUDGET_BYTES = 16 * 1024**3
PEER = PeerId(b"full")


class _AfterAll:
    """A time at which every block of the chain has come."""

    is_unsafe = False
    is_synchronised = False
    floor_s = 0

    def now(self) -> float:
        return START_MS / 1000 + 10 * BLOCKS

    def monotonic(self) -> float:
        return time.monotonic()

    def steady(self) -> float:
        return time.monotonic()


class _NoPromises:
    """Neither node votes here."""

    def load(self) -> Kept | None:
        return None

    def save(self, kept: Kept) -> None:
        raise AssertionError(kept)


class _Asked:
    """The light node's one peer: its answers, without the wire between."""

    def __init__(self, full: ChainActor) -> None:
        self._full = full

    def heads(self) -> Mapping[PeerId, tuple[Checkpoint, Checkpoint]]:
        return {PEER: self._full.checkpoints()}

    async def ask(self, peer: PeerId, question: LightQuestion, *, patience_s: float) -> LightAnswer:
        return await show(self._full, question)

    def want_block(self, peer: PeerId, name: BlockHash) -> None:
        raise AssertionError("the first block is given")

    async def drop(self, peer: PeerId, why: str, *, ban: bool) -> None:
        raise AssertionError(why)


def _made() -> list[Block]:
    """The chain, each block with the votes for the one before."""
    chain: Chain = start(term_blocks=100)
    votes: list[Vote] = []
    for height in range(BLOCKS):
        names = [f"{height}/{number}" for number in range(RECORDS_PER_BLOCK)]
        chain.add(*(chain.by("ann", "RecordAnchor", chain.anchor("ann", name)) for name in names), votes=votes)
        votes = chain.votes()
    chain.add(votes=votes)
    return chain.blocks


def _disk_bytes(folder: Path) -> int:
    """What the file system has given it."""
    return sum(os.stat(path).st_blocks * 512 for path in folder.rglob("*") if path.is_file())


async def _followed(blocks: list[Block], folder: Path) -> tuple[list[tuple[int, int, int]], list[int]]:
    """(records, disk bytes of the full node, of the light one), some times on the way; and at the end the bytes of both that hold
    something."""
    points: list[tuple[int, int, int]] = []
    clock = _AfterAll()
    engines = [LmdbEngine(folder / name, Env.LEDGER, budget_bytes=BUDGET_BYTES, reserve_bytes=0) for name in ("full", "light")]
    with ThreadOffload() as offload:
        actors = [StorageActor(engine, offload) for engine in engines]
        handles = [StorageHandle(actor, offload) for actor in actors]
        keys = ChainKeys(account_of("eve"))
        full = ChainActor(blocks[0].info.chain, blocks[0], keys, handles[0], _NoPromises(), clock, Bus(), offload)
        light = LightChain(full.chain, None, blocks[0], keys, handles[1], clock, Bus())
        light.ends = _Asked(full)
        async with trio.open_nursery() as nursery:
            for task in (*(actor.run for actor in actors), full.run, light.run):
                nursery.start_soon(task)
            for height, block in enumerate(blocks[1:], 1):
                await full.take_block(block, None, eager=False)
                while light.checkpoints()[1] != full.checkpoints()[1]:
                    light.wake()
                    await trio.sleep(0.001)
                if height % (BLOCKS // POINTS) == 0:
                    sizes = [_disk_bytes(folder / name) for name in ("full", "light")]
                    points.append((height * RECORDS_PER_BLOCK, sizes[0], sizes[1]))
            assert full.checkpoints()[1].height >= BLOCKS - 1
            nursery.cancel_scope.cancel()
    live = [engine.usage().bytes_used for engine in engines]
    for engine in engines:
        engine.close()
    return points, live


def light_rows() -> list[Row]:
    """One chain, followed by both."""
    share = Row("light_disk", "P20: a light node's disk after 10,000 records, 10 a block, share of a full node's", "%", "5", "1")
    live = Row("light_live", "the same by pages that hold something: a ledger's file has room made ready for what comes", "%", "5", "1")
    light_mb = Row("light_disk_mb", "the same, the light node's ledger", "MB", "", "")
    full_mb = Row("full_disk_mb", "the same, the full node's ledger", "MB", "", "")
    with tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        points, (full_live, light_live) = trio.run(_followed, _made(), Path(folder))
    _, full, light = points[-1]
    share.add(100 * light / full)
    live.add(100 * light_live / full_live, None, full_bytes=full_live, light_bytes=light_live)
    light_mb.add(light / 1e6)
    full_mb.add(full / 1e6)
    share.notes.append(json.dumps({"records_full_light_bytes": points}))
    return [share, live, light_mb, full_mb]
