"""A chain of five processes under load, two of which are killed: what was acknowledged and what was final is there when all are back."""

from __future__ import annotations

import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from protocols.errors import LadingError, Reason
from storage.engine import Env, Put
from storage.lmdb_engine import LmdbEngine
from storage.tables import CHAIN_STATE
from tests.functional.nodes import HomeNode, Processes, start_all, wait_until
from tests.functional.test_ledger import FINAL_S, chain_of, nominate, state_of, wait_final, wait_one_place

LOAD_S = float(os.environ.get("FUNCTIONAL_LOAD_S", "8"))
"""How long records and transactions come in; the project's own figure is 60."""
PAUSE_S = 0.2


@dataclass(eq=False)
class Load:
    """Small records and transactions from several nodes, one after the other, until it is told to end. Every record is shared with the
    member of the next node.

    records: what was acknowledged, by its id: who reads it, its text. transactions: those that each node took. killed: nodes that need
    answer nothing; failed: what the others answered instead.
    """

    nodes: Sequence[HomeNode]
    folder: Path
    records: dict[str, tuple[HomeNode, str]] = field(default_factory=dict)
    transactions: dict[HomeNode, list[str]] = field(default_factory=dict)
    killed: set[HomeNode] = field(default_factory=set)
    failed: list[LadingError] = field(default_factory=list)
    ends: threading.Event = field(default_factory=threading.Event)

    def run(self) -> None:
        turn = 0
        while not self.ends.wait(PAUSE_S):
            turn += 1
            node = self.nodes[turn % len(self.nodes)]
            if node in self.killed:
                continue
            try:
                self._one(node, turn)
            except LadingError as error:
                if node not in self.killed:
                    self.failed.append(error)

    def _one(self, node: HomeNode, turn: int) -> None:
        reader = self.nodes[(turn + 1) % len(self.nodes)]
        path = self.folder / f"letter-{turn}.txt"
        path.write_text(f"letter {turn}\n")
        record = str(node.put(path)["record"])
        node.call("share", {"record": record, "to": reader.member})
        self.records[record] = (reader, path.read_text())
        taken = self.transactions.setdefault(node, [])
        if not taken or state_of(node, taken[-1]) in ("in_block", "final"):
            # Yes and no in turn to the node before, of whom nobody says anything else here: the same said twice is refused.
            taken.append(nominate(node, f"n{(turn - 1) % len(self.nodes) + 1}", withdraw=len(taken) % 2 == 1))


@contextmanager
def loaded(nodes: Sequence[HomeNode], folder: Path) -> Iterator[Load]:
    """The load goes on for at least LOAD_S, and as long as the block takes."""
    load = Load(nodes, folder)
    ends_at = time.monotonic() + LOAD_S
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(load.run)
        try:
            yield load
            time.sleep(max(0.0, ends_at - time.monotonic()))
        finally:
            load.ends.set()
        running.result()


def final_at(node: HomeNode) -> set[str]:
    """Blocks that a node calls final, of the last thousand."""
    return {str(row["block"]) for row in node.call("ledger.history", {"limit": 1000})["blocks"] if row["state"] == "final"}


def change_a_byte(home: Path) -> None:
    """Of the state, in the database of a node that stands still."""
    engine = LmdbEngine(home / "ledger.lmdb", Env.LEDGER, budget_bytes=2**34, reserve_bytes=2**20)
    try:
        with engine.snapshot() as snapshot:
            key, value = next((key, value) for key, value in snapshot.scan(CHAIN_STATE) if value)
        engine.write([Put(CHAIN_STATE, key, bytes([value[0] ^ 1]) + value[1:])])
    finally:
        engine.close()


def anchor_of(node: HomeNode, record: str) -> str:
    """What a node says of a record's anchor; empty while it does not know the record."""
    try:
        return str(node.call("file.status", {"record": record})["ledger"]["state"])
    except LadingError as error:
        if error.reason is not Reason.NOT_FOUND:
            raise
        return ""


def has_read(node: HomeNode, record: str, target: Path) -> bool:
    """Whether a node could read a record; not as long as it has no key of it."""
    try:
        node.get(record, target)
    except LadingError as error:
        if error.reason is not Reason.NO_KEY:
            raise
        return False
    return True


@pytest.mark.slow
def test_two_of_five_die_under_load_lose_their_databases_and_all_come_to_one_place(processes: Processes, tmp_path: Path) -> None:
    """Goal: the dead never stop the chain, nothing is called final without a quorum, no database is missed, nothing acknowledged is lost.
    Method: five seats; records and transactions for LOAD_S and more; one is killed, then another; with three, a transaction comes into a
    block and stays there, not final, while blocks follow; one of the two loses its database whole, the other has one byte of its state
    changed, which `ledger verify` finds; both start while the load goes on. Then all call everything final and stand at one place, what
    was final before is final at all, every acknowledged record is read, and every chain is verified."""
    nodes = processes.testnet(5)
    live, dead = nodes[:3], nodes[3:]
    wait_final(nodes, nominate(nodes[0], "n2"))
    assert chain_of(nodes[0])["committee"] == {
        "members": sorted(chain_of(nodes[0])["committee"]["members"]),
        "quorum": 4,
        "heard": 5,
        "finality_goes_on": True,
        "liars_survived": 1,
        "dead_survived": 1,
    }
    final_before = set.union(*(final_at(node) for node in nodes))
    assert final_before
    with loaded(nodes, tmp_path) as load:
        for node in dead:
            time.sleep(LOAD_S / 4)
            load.killed.add(node)
            node.kill()
        wait_until(lambda: not chain_of(nodes[0])["committee"]["finality_goes_on"], "the dead to be missed", poll_s=0.5)
        final_before.update(*(final_at(node) for node in live))
        height = chain_of(nodes[0])["height"]
        stays = nominate(nodes[1], "n3")
        for node in live:
            wait_until(lambda node=node: state_of(node, stays) == "in_block", "in a block", timeout_s=FINAL_S, poll_s=0.5)  # type: ignore[misc]
        follows = nominate(nodes[2], "n1")
        wait_until(lambda: state_of(nodes[0], follows) == "in_block", "the next one in a block", timeout_s=FINAL_S, poll_s=0.5)
        assert chain_of(nodes[0])["height"] >= height + 2
        assert state_of(nodes[0], stays) == "in_block"
        shutil.rmtree(dead[0].home / "ledger.lmdb")
        change_a_byte(dead[1].home)
        assert dead[1].run("ledger", "verify").error == "E-INTEGRITY"
        start_all(dead, among=nodes)
        load.killed.clear()
        back_at = time.monotonic()
        wait_final(nodes, follows)
        print(f"\nfinal again {time.monotonic() - back_at:.1f} s after both were back")
    assert not load.failed
    taken = [transaction for several in load.transactions.values() for transaction in several]
    assert len(taken) > len(nodes)
    for transaction in taken:
        wait_final(nodes, transaction)
    for record, (reader, text) in load.records.items():
        wait_until(lambda record=record, reader=reader: anchor_of(reader, record) == "final", "the anchor, final", timeout_s=FINAL_S)  # type: ignore[misc]
        # What a reader was given while it was dead, or has lost with its database, it hears of again by reconciling, in its time.
        wait_until(lambda record=record, reader=reader: has_read(reader, record, tmp_path / record), "the key", timeout_s=FINAL_S)  # type: ignore[misc]
        assert (tmp_path / record).read_text() == text
    for node in nodes:
        assert state_of(node, stays) == "final"
        assert final_before <= final_at(node)
        assert not any("promises" in alert for alert in node.status()["alerts"])
    wait_one_place(nodes)
    height = chain_of(nodes[0])["height"]
    print(f"{len(load.records)} records, {len(taken)} transactions, {height} blocks")
    for node in nodes:
        assert node.stop() in (0, 143)
    for node in nodes:
        verified = node.run("ledger", "verify").data
        assert verified["verified"] is True
        assert verified["height"] >= height
