"""What an operator does from one node for others, and what a watcher hears."""

from __future__ import annotations

import json
from pathlib import Path

from tests.functional.conftest import MIB
from tests.functional.nodes import Processes, wait_until
from tests.functional.sources import random_folder


def holders(node: object, record: str) -> set[str]:
    """Names of the nodes whose receipts count, as this node sees it."""
    rows = node.call("file.status", {"record": record})["holders"]  # type: ignore[attr-defined]  # a HomeNode
    return {str(row["name"]).split("/")[1] for row in rows if row["have"]}


def test_operator_pins_a_record_on_a_node_and_takes_it_off_again(processes: Processes, tmp_path: Path) -> None:
    """Goal: one command on the control node moves copies between others (NET-04), and nobody else's does. Method: four nodes, one copy
    asked for; the founder pins it onto a node that has none and unpins it from there; another member's attempt is refused."""
    nodes = processes.testnet(4, repair_grace_s=2)
    founder, owner, _, stranger = nodes
    source = random_folder(tmp_path / "source", seed=61, size=2 * MIB)
    record = owner.put(source, replicas=1, ack="local")["record"]
    wait_until(lambda: founder.copies_live(record) and stranger.copies_live(record), "both to hear of the record")
    refused = stranger.run("file", "pin", record, "--on", "n3")
    assert (refused.code, refused.error) == (5, "E-REFUSED")
    assert founder.run("file", "pin", record, "--on", "n3").data["wish"] == "in"
    wait_until(lambda: "n3" in holders(founder, record), "the pinned node to hold the record")
    assert founder.run("file", "unpin", record, "--on", "n3", "--yes").data["wish"] == "out"
    wait_until(lambda: "n3" not in holders(founder, record), "the unpinned node to let go", timeout_s=60)
    owner.get(record, tmp_path / "target")


def test_watcher_on_another_node_hears_of_a_record_as_it_appears(processes: Processes, tmp_path: Path) -> None:
    """Goal: uploads become visible to others at once, and blocks as they come (NET-13). Method: `watch` on one node; when it
    says that it listens, another puts. Expected: the record, then a block that is its head, then the same one as final."""
    nodes = processes.testnet(2)
    watcher = nodes[1].launch_command("watch", "--timeout", "60s")
    assert watcher.stdout is not None
    try:
        assert b'"watching"' in watcher.stdout.readline()
        record = str(nodes[0].put(random_folder(tmp_path / "one", seed=62, size=1000))["record"])
        heard = b""
        while record.encode() not in heard:
            heard = watcher.stdout.readline()
            assert heard, "the watch ended without a word about the record"
        assert b'"record"' in heard
        blocks: dict[str, dict[int, str]] = {"head": {}, "final": {}}
        while not blocks["head"].keys() & blocks["final"].keys():
            heard = watcher.stdout.readline()
            assert heard, f"the watch ended before a block was final, having told of {blocks}"
            event = json.loads(heard)["data"]
            if event["event"] in blocks and event["height"]:
                blocks[event["event"]][event["height"]] = event["block"]
        (height,) = blocks["head"].keys() & blocks["final"].keys()
        assert blocks["head"][height] == blocks["final"][height]
    finally:
        watcher.kill()
