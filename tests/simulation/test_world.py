"""Whole nodes in simulated worlds: many seeds, the same seed twice, and planted bugs that the checkers must catch."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import trio

import protocols.exchange.machine as exchange
from node.actors.facts import FactsActor, Submit
from node.actors.holdings import Holdings
from node.actors.storage import StorageActor
from protocols.files.objects import Tombstone
from protocols.gossip.facts import FactKind
from protocols.types import Digest, RecordKey
from storage.overlay import Overlay

from . import world as simulated
from .scheduler import SimulationFailed, first_cause, seeds
from .world import Options, replay

CALM = Options(
    machines=3,
    copies_all=True,
    chunks_per_sequence=2,
    repair_grace_s=4.0,
    scrub_period_s=60.0,
    trash_window_s=3600.0,
    latency_s=0.01,
    jitter_s=0.005,
    bandwidth_bytes_s=None,
    disk_delay_s=0.005,
    clock_error_s=0.0,
    story_s=30.0,
    wait_connected=True,
    liar=False,
    faults=(),
    pause_s=6.0,
)
LYING = replace(CALM, machines=4, liar=True, scrub_period_s=8.0, faults=("rot",), pause_s=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", seeds(tuple(range(50))))
def test_world_keeps_its_promises(seed: int) -> None:
    """Goal: whatever strikes, no checker sees a broken promise, and when it ends all agree, also after a cold restart.
    Method: nodes, options, work and faults from one seed; LADING_SEED=n for one, LADING_SEEDS=n for the first n."""
    replay(seed)


def test_same_seed_is_same_world_in_two_processes() -> None:
    """Goal: a failure is a seed. Method: two processes with different hashing of Python's own give one hash of the trace."""
    root = Path(__file__).parents[2]
    hashes = set()
    for hash_seed in ("1", "2"):
        run = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "0"],
            cwd=root,
            env=os.environ | {"PYTHONHASHSEED": hash_seed},
            capture_output=True,
            text=True,
            check=True,
            timeout=120,
        )
        hashes.add(run.stdout.splitlines()[-1].split()[0])
    assert len(hashes) == 1
    assert len(hashes.pop()) == 64


def _violation_of(seed: int, options: Options) -> str:
    """What the checkers say of a world with a planted bug; empty when they are content."""
    try:
        replay(seed, options)
    except SimulationFailed as failure:
        return str(first_cause(failure))
    return ""


def test_worlds_of_the_planted_bugs_are_sound() -> None:
    """Goal: the planted bugs below are caught for what they are. Method: their worlds without any."""
    assert _violation_of(1, CALM) == ""
    assert _violation_of(1, LYING) == ""


def test_acknowledging_before_the_commit_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: "durable, then say it" is checked. Method: the writer answers first and commits a moment later."""

    async def keep(self: StorageActor) -> None:
        batch, self._batch = self._batch, []
        with self.engine.snapshot() as snapshot:
            overlay = Overlay(snapshot)
            for message in batch:
                writes, result = message.fn(overlay)
                overlay.add(writes)
                message.reply.answer(result)
        await trio.sleep(0.05)
        self.engine.write(overlay.writes)

    monkeypatch.setattr(StorageActor, "keep", keep)
    assert re.search("before its commit|not on its disk", _violation_of(1, CALM))


class _EqualToAll(bytes):
    """A digest that is always the wanted one."""

    def __eq__(self, _: object) -> bool:
        return True

    def __ne__(self, _: object) -> bool:
        return False

    __hash__ = bytes.__hash__


def test_skipping_the_hash_check_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: no altered chunk is stored under its name. Method: one machine alters what it sends, rot makes others ask it,
    nobody compares hashes."""
    monkeypatch.setattr(exchange, "sha256", lambda data: _EqualToAll())
    assert "not what their name says" in _violation_of(1, LYING)


def test_forgetting_receipts_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: what others have signed is kept. Method: receipts of others are answered as kept, and are not."""
    handle = FactsActor.handle

    def forgetful(self: FactsActor, message: Submit) -> None:
        kept = tuple((item, source) for item, source in message.items if item.kind != FactKind.RECEIPT or source is None)
        handle(self, Submit(kept, message.reply))

    monkeypatch.setattr(FactsActor, "handle", forgetful)
    monkeypatch.setattr(simulated, "AGREE_S_MAX", 8.0)
    assert "no agreement" in _violation_of(1, replace(CALM, story_s=5.0))


def test_resurrecting_a_deleted_record_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: deleted stays deleted. Method: where a tombstone is in force, copies are taken out of trash again."""
    bury = Holdings.bury
    seen: set[tuple[bytes, RecordKey]] = set()

    async def resurrect(self: Holdings, key: RecordKey, tombstone: Tombstone, object_hash: Digest) -> None:
        if (self.store_id, key) not in seen:
            seen.add((self.store_id, key))
            await bury(self, key, tombstone, object_hash)
        await self.restore(key)

    monkeypatch.setattr(Holdings, "bury", resurrect)
    monkeypatch.setattr(simulated, "AGREE_S_MAX", 60.0)
    assert "is still held" in _violation_of(1, CALM)


def test_forgetting_tombstones_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: nothing but a new statement ends a tombstone. Method: what a node reads back at its start is all but the tombstones."""
    load = FactsActor.load

    async def forgetful(self: FactsActor) -> None:
        await load(self)
        for facts in self.knowledge.records.values():
            facts.objects = {name: pair for name, pair in facts.objects.items() if not isinstance(pair[1].value, Tombstone)}
            facts.verdict = None

    monkeypatch.setattr(FactsActor, "load", forgetful)
    monkeypatch.setattr(simulated, "AGREE_S_MAX", 60.0)
    assert "in force again" in _violation_of(1, CALM)
