"""Records on the ledger with real processes: from `lading put` on one node to `final` on another, also after a kill."""

from __future__ import annotations

import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.functional.nodes import HomeNode, Processes, wait_until

# A node listens for ten seconds before its first seal or vote; then a block comes every second, and final a moment later.
FINAL_S = 60.0
FOLDER_S = 120.0


def file_of(folder: Path, text: str) -> Path:
    path = folder / f"{text}.txt"
    path.write_text(text * 100)
    return path


def ledger_of(node: HomeNode, record: str) -> Mapping[str, Any]:
    """What `file status` says of the ledger."""
    found = node.run("file", "status", record).data["ledger"]
    assert isinstance(found, Mapping)
    return found


def wait_final(nodes: Sequence[HomeNode], record: str) -> None:
    for node in nodes:
        wait_until(lambda node=node: ledger_of(node, record)["state"] == "final", "final", timeout_s=FINAL_S, poll_s=0.5)  # type: ignore[misc]


def test_record_put_on_one_node_is_final_on_the_others_and_its_versions_are_seen(processes: Processes, tmp_path: Path) -> None:
    """Goal: the whole way through the command line. Method: three nodes; a put; its correction; status, lists, folder, audit elsewhere."""
    nodes = processes.testnet(3)
    put = nodes[0].run("put", str(file_of(tmp_path, "first"))).data
    assert put["state"] in ("local", "pooled", "in_block")
    first = str(put["record"])
    wait_final(nodes, first)
    said = ledger_of(nodes[2], first)
    assert (said["status"], said["change"], said["is_this_statement"]) == ("active", "create", True)
    assert said["height"] >= 1
    flags = ("--parent", first, "--change", "correct", "--reason", "wrong date")
    second = str(nodes[0].run("put", str(file_of(tmp_path, "second")), *flags).data["record"])
    wait_final(nodes, second)
    assert ledger_of(nodes[1], first)["newest"] == [second]
    assert ledger_of(nodes[1], second)["tags"] == {"reason": "wrong date"}
    assert {row["record"]: row["state"] for row in nodes[0].run("ls").data["records"]} == {first: "final", second: "final"}
    old = nodes[0].run("get", first, "-o", str(tmp_path / "out"))
    assert old.code == 0
    assert any(second[:16] in warning for warning in old.json["warnings"])
    member = nodes[0].status()["member"]

    def filed() -> list[str]:
        folder = nodes[2].run("folder", member)
        return [row["record"] for row in folder.data["records"]] if folder.code == 0 else []

    wait_until(lambda: filed() == [first, second], "the folder elsewhere", timeout_s=FOLDER_S, poll_s=1.0)
    assert nodes[2].run("check").data["ledger"] == {"anchored": 2, "not_known_here": [], "other_statement": [], "not_anchored": []}
    assert nodes[0].run("put", str(file_of(tmp_path, "third")), "--change", "merge", "--parent", first).error == "E-USAGE"


def test_record_of_a_node_that_was_killed_right_after_its_put_becomes_final(processes: Processes, tmp_path: Path) -> None:
    """Goal: nothing that was published is lost to the ledger. Method: twice a put that waits for nobody, and at once SIGKILL; a restart."""
    nodes = processes.testnet(3)
    for name in ("one", "two"):
        record = str(nodes[0].run("put", str(file_of(tmp_path, name)), "--ack", "local").data["record"])
        nodes[0].signal(signal.SIGKILL)
        assert nodes[0].wait_ended() == -signal.SIGKILL
        nodes[0].start()
        wait_final(nodes, record)


def test_record_of_two_owners_waits_for_the_other_one_and_is_refused_or_extended_by_both(processes: Processes, tmp_path: Path) -> None:
    """Goal: approvals through the command line. Method: two nodes; a put that both own; yes at the other node; a later end; another put,
    refused."""
    nodes = processes.testnet(2)
    one, two = nodes
    flags = ("--owner", two.member, "--level", "2", "--schema", "invoice", "--valid-until", "2100-01-01")
    record = str(one.run("put", str(file_of(tmp_path, "contract")), *flags).data["record"])

    def inbox(node: HomeNode) -> Sequence[Mapping[str, Any]]:
        found = node.run("inbox").data["waiting"]
        assert isinstance(found, list)
        return found

    (row,) = wait_until(lambda: inbox(two), "the question", timeout_s=FINAL_S, poll_s=0.3)
    assert (row["record"], row["level"], row["schema"]) == (record, 2, "invoice")
    assert [one["member"] for one in row["lacking"]] == [two.member]
    assert one.run("ls").data["records"][0]["validity"] == "waiting"
    assert one.run("put", str(file_of(tmp_path, "contract")), "--wait", "final").error == "E-NOT-FINAL"
    assert two.run("approve", row["id"][:12]).data["state"] == "pooled"
    wait_final(nodes, record)
    said = ledger_of(one, record)
    assert (said["validity"], said["level"], {owner["member"] for owner in said["owners"]}) == ("valid", 2, {one.member, two.member})
    assert one.run("approve", row["id"]).error == "E-NOT-FOUND"
    trail = two.run("ledger", "history", record[:16], "--proofs").data
    assert [(step["kind"], step["actor"], step["proven"]) for step in trail["transactions"][:2]] == [
        ("RecordAnchor", one.member, True),
        ("Approve", two.member, True),
    ]
    assert all(step["proof"] for step in trail["transactions"][:2])
    assert two.run("file", "extend", record, "--until", "2200-01-01").data["needs"]
    (row,) = wait_until(lambda: inbox(one), "the other question", timeout_s=FINAL_S, poll_s=0.3)
    assert one.run("approve", record[:12]).code == 0
    wait_until(lambda: ledger_of(two, record)["valid_until"].startswith("2200"), "its later end", timeout_s=FINAL_S, poll_s=0.3)
    assert one.run("file", "delete", record).error == "E-REFUSED"
    other = str(one.run("put", str(file_of(tmp_path, "other")), "--owner", two.member).data["record"])
    wait_until(lambda: inbox(two), "a third question", timeout_s=FINAL_S, poll_s=0.3)
    assert two.run("approve", other[:12], "--refuse", "--note", "wrong weight").code == 0
    wait_until(lambda: ledger_of(one, other)["validity"] == "invalid", "the no", timeout_s=FINAL_S, poll_s=0.3)
    assert {row["record"]: row["validity"] for row in one.run("ls").data["records"]} == {record: "valid", other: "invalid"}
