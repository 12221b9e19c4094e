"""Holders die without warning, also while copies are made anew, and no byte is lost."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from storage.tables import BODIES, REFERENCES
from tests.functional.conftest import BULK_BYTES, MIB
from tests.functional.disks import commits_of, read_store
from tests.functional.nodes import HomeNode, Processes, start_all, wait_until
from tests.functional.sources import assert_same, random_folder

# Many times what it takes: 330 chunks go in a few commits of 256 each.
CUTS_MAX = 30


def test_record_with_three_copies_survives_the_death_of_any_two_of_five_nodes(processes: Processes, tmp_path: Path) -> None:
    """Goal: whichever two holders die, a third member reads every byte. Method: five nodes, three copies, all acknowledged; for each of
    the ten pairs kill -9 both, read on a survivor that is not the owner, start again who is not of the next pair. Nothing is repaired in
    between: the grace time is ten minutes."""
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
    for number, pair in enumerate(pairs_of(nodes)):
        back = [node for node in nodes if not node.is_up and node not in pair]
        start_all(back, among=[node for node in nodes if node.is_up or node in back])
        for node in pair:
            if node.is_up:
                node.kill()
        reader = next(node for node in others[number % 4 :] + others if node not in pair)
        target = tmp_path / f"read-{number}"
        got = reader.get(record, target)
        assert got["bytes"] == BULK_BYTES
        assert_same(source, target)
    start_all([node for node in nodes if not node.is_up], among=nodes)
    assert owner.call("file.status", {"record": record})["survives"] == 2


def pairs_of(nodes: Sequence[HomeNode]) -> list[tuple[HomeNode, HomeNode]]:
    """All pairs; each has one in common with the next, so that one node starts in between."""
    return [(nodes[one], nodes[other]) for other in range(1, len(nodes)) for one in reversed(range(other))]


def test_nodes_killed_in_the_middle_of_repair_finish_it_when_they_are_back(processes: Processes, tmp_path: Path) -> None:
    """Goal: repair may be cut anywhere. Method: four nodes, three copies; one dies for good; as soon as the others have begun to copy,
    kill -9 two of the three, both givers and takers; they come back, every sequence reaches three copies, every copy is sound, and one
    of the two alone gives every byte."""
    nodes = processes.testnet(4, repair_grace_s=2, copies_all="false")
    owner, dead, *cut = nodes
    source = random_folder(tmp_path / "source", seed=2, size=40 * MIB)
    record = owner.put(source, replicas=3, ack="full")["record"]
    reader = cut[1]
    owner.call("share", {"record": record, "to": reader.member})
    wait_until(lambda: reader.call("ls")["records"], "the wrap to arrive")
    held_by = {node.home: held(node) for node in cut}
    wanted = int(owner.call("file.status", {"record": record})["sequences"])
    assert all(count < wanted for count in held_by.values())
    dead.kill()
    before = {node.home: commits_of(node.home) for node in cut}
    # Three commits into the first copies: chunks are there, their sequence is not or only just.
    wait_for_commits(cut[0], before[cut[0].home] + 3)
    for node in cut:
        node.kill()
    kept = [read_store(node.home, lambda snapshot: snapshot.count(REFERENCES)) for node in cut]
    assert sum(kept) < 2 * wanted, "repair was over before the kill"
    assert all(count >= held_by[node.home] for node, count in zip(cut, kept, strict=True))
    start_all(cut, among=[owner, *cut])
    wait_until(lambda: owner.copies_live(record) == 3, "three copies of everything", timeout_s=60)
    for node in (owner, *cut):
        checked = node.call("check", {"all": True})
        assert (checked["held"], checked["damaged"]) == (wanted, 0)
    owner.kill()
    cut[0].kill()
    reader.get(record, tmp_path / "target")
    assert_same(source, tmp_path / "target")


def held(node: HomeNode) -> int:
    """Sequences that a node holds."""
    return int(node.call("check", {"all": True})["held"])


def wait_for_commits(node: HomeNode, count: int) -> None:
    """Until a node's chunk store has seen so many commits. Looks often: what is waited for may be over in a tenth of a second."""
    wait_until(lambda: commits_of(node.home) >= count, f"{count} commits", poll_s=0.001)


def test_collection_cut_by_kill_at_every_commit_frees_all_and_harms_nothing(processes: Processes, tmp_path: Path) -> None:
    """Goal: collecting may be cut anywhere. Method: two records that share chunks; one is deleted and leaves the trash at once; the node
    is started and killed after its next commit, again and again, until everything is collected; then what is left is exactly the other
    record's, and it is read."""
    (node,) = processes.testnet(1, trash_window_s=0)
    keep = random_folder(tmp_path / "keep", seed=3, size=8 * MIB)
    record = node.put(keep, ack="local")["record"]
    node.stop()
    bodies_kept = bodies_of(node)
    node.start()
    going_source = random_folder(tmp_path / "both", seed=4, size=80 * MIB)
    os.link(keep / "ledger.tar", going_source / "the same.tar")
    going = node.put(going_source, ack="local")["record"]
    node.call("file.delete", {"record": going})
    node.kill()
    left = [bodies_of(node)]
    while left[-1] > bodies_kept and len(left) < CUTS_MAX:
        node.launch()
        wait_for_commits(node, commits_of(node.home) + 1)
        node.kill()
        left.append(bodies_of(node))
    assert left[-1] == bodies_kept
    assert left == sorted(left, reverse=True)
    assert any(bodies_kept < count < left[0] for count in left), "collected in one go: nothing was cut"
    node.start()
    assert node.run("check", "--all").data["damaged"] == 0
    node.get(record, tmp_path / "target")
    assert_same(keep, tmp_path / "target")


def bodies_of(node: HomeNode) -> int:
    """Bodies in the store of a node that does not run."""
    return read_store(node.home, lambda snapshot: snapshot.count(BODIES))
