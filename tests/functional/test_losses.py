"""Any two holders die without warning, and no byte is lost."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

from tests.functional.conftest import BULK_BYTES
from tests.functional.nodes import Processes, start_all, wait_until
from tests.functional.sources import assert_same, random_folder


def test_record_with_three_copies_survives_the_death_of_any_two_of_five_nodes(processes: Processes, tmp_path: Path) -> None:
    """Goal: whichever two holders die, a third member reads every byte. Method: five nodes, three copies, all acknowledged; for each of
    the ten pairs kill -9 both, read on a survivor that is not the owner, start the dead again. Nothing is repaired in between: the
    grace time is ten minutes."""
    nodes = processes.testnet(5)
    owner, others = nodes[0], nodes[1:]
    source = random_folder(tmp_path / "source", seed=1, size=BULK_BYTES)
    put = owner.put(source, replicas=3, ack="full")
    record = put["record"]
    assert put["survives"] == 2
    assert put["sequences"] >= 2
    for node in others:
        owner.call("share", {"record": record, "to": node.member})
    for node in others:
        wait_until(lambda node=node: node.call("ls")["records"], "the wrap to arrive")  # type: ignore[misc]
    for number, pair in enumerate(combinations(nodes, 2)):
        for node in pair:
            node.kill()
        reader = next(node for node in others[number % 4 :] + others if node not in pair)
        target = tmp_path / f"read-{number}"
        got = reader.get(record, target)
        assert got["bytes"] == BULK_BYTES
        assert_same(source, target)
        start_all(pair, among=nodes)
    assert owner.call("file.status", {"record": record})["survives"] == 2
