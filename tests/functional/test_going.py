"""Records that are taken back, members that are put out, nodes that were away."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from storage.engine import Env
from tests.functional.conftest import MIB
from tests.functional.disks import commits_of
from tests.functional.nodes import HomeNode, NotReady, Processes, start_all, wait_meshed, wait_until
from tests.functional.sources import assert_same, random_folder

# A frozen machine: noticed within this time (INTERFACE's figure for pings), frozen a little longer.
NOTICE_TIMEOUT_S = 20.0
FROZEN_S = 25.0


def held(node: HomeNode) -> int:
    """Sequences that a node holds, those in its trash left out; each is read back."""
    return int(node.call("check", {"all": True})["held"])


def is_deleted(node: HomeNode, record: str) -> bool:
    return any(row["record"] == record and row["state"] == "deleted" for row in node.call("ls", {"all": True})["records"])


# --- records ----------------------------------------------------------------------------------------------------------


def test_deleted_record_goes_everywhere_and_a_returning_node_does_not_bring_it_back(processes: Processes, tmp_path: Path) -> None:
    """Goal: delete reaches every holder, also those that were down; then the same files can be put again. Method: three holders; one is
    killed; delete; it comes back with its copies; everybody's copies end in the trash and stay there; put again and read."""
    nodes = processes.testnet(3, repair_grace_s=2)
    owner, other, away = nodes
    source = random_folder(tmp_path / "source", seed=51, size=6 * MIB)
    record = owner.put(source, ack="full")["record"]
    assert all(held(node) >= 2 for node in nodes)
    away.kill()
    deleted = owner.run("file", "delete", record, "--yes").data
    states = {row["name"].split("/")[1]: row["state"] for row in deleted["holders"]}
    assert (states["n1"], states["n2"], states["n3"]) == ("in trash", "in trash", "unconfirmed")
    assert (held(owner), held(other)) == (0, 0)
    start_all([away], among=nodes)
    wait_until(lambda: is_deleted(away, record) and held(away) == 0, "the returned node to follow the delete")
    gone = other.run("get", record, "-o", str(tmp_path / "no"))
    assert (gone.code, gone.error) in ((4, "E-DELETED"), (5, "E-NO-KEY"))
    refused = owner.run("get", record, "-o", str(tmp_path / "no"))
    assert (refused.code, refused.error) == (4, "E-DELETED")
    # Longer than the grace time and a round of repair: nothing creeps back.
    time.sleep(6)
    assert [held(node) for node in nodes] == [0, 0, 0]
    again = owner.put(source, ack="full")
    assert again["record"] == record
    owner.get(record, tmp_path / "target")
    assert_same(source, tmp_path / "target")
    assert all(not is_deleted(node, record) for node in nodes)


def test_delete_cut_by_kill_is_done_or_not_begun(processes: Processes, tmp_path: Path) -> None:
    """Goal: a delete may be cut anywhere. Method: two holders; the owner is killed after the first commit of a delete (the tombstone), then
    after the first of its chunk store (the trash); when it is back, both nodes follow the tombstone or both have the record still, and
    the same files can be put again."""
    nodes = processes.testnet(2)
    owner, _ = nodes
    for number, (env, commits) in enumerate(((Env.LEDGER, 1), (Env.CHUNKS, 1))):
        source = random_folder(tmp_path / f"source-{number}", seed=55 + number, size=2 * MIB)
        record = owner.put(source, ack="full")["record"]
        before = [held(node) for node in nodes]
        base = commits_of(owner.home, env)
        deleting = owner.launch_command("file", "delete", str(record), "--yes")
        wait_until(lambda base=base, env=env, commits=commits: commits_of(owner.home, env) >= base + commits, "a commit", poll_s=0.001)  # type: ignore[misc]
        owner.kill()
        assert deleting.wait(30) in (0, 8)
        start_all([owner], among=nodes)
        if is_deleted(owner, record):
            wait_until(lambda record=record: all(is_deleted(node, record) for node in nodes), "both to follow")  # type: ignore[misc]
            wait_until(lambda before=before: [held(node) for node in nodes] == [count - 2 for count in before], "the trash")  # type: ignore[misc]
        else:
            assert deleting.returncode != 0
            assert [held(node) for node in nodes] == before
        assert owner.put(source, ack="full")["record"] == record
        owner.get(record, tmp_path / f"target-{number}")
        assert_same(source, tmp_path / f"target-{number}")


def test_erase_brings_a_receipt_from_every_holder_at_once(processes: Processes, tmp_path: Path) -> None:
    """Goal: erase is confirmed by each holder's signature and leaves no copy. Method: three holders; erase; all say erased; the bytes of
    a stored chunk are not in any store's sequences; put of the same files works afterwards."""
    nodes = processes.testnet(3)
    owner = nodes[0]
    source = random_folder(tmp_path / "source", seed=52, size=6 * MIB)
    record = owner.put(source, ack="full")["record"]
    erased = owner.run("file", "erase", record, "--yes").data
    assert {row["state"] for row in erased["holders"]} == {"erased"}
    assert len(erased["holders"]) == 3
    assert erased["unconfirmed"] == 0
    assert [held(node) for node in nodes] == [0, 0, 0]
    assert owner.put(source, ack="full")["record"] == record
    owner.get(record, tmp_path / "target")
    assert_same(source, tmp_path / "target")


def test_stranger_cannot_take_back_somebody_elses_record(processes: Processes, tmp_path: Path) -> None:
    """Goal: only the owner deletes. Method: another holder tries both acts; a dry run of the owner changes nothing."""
    owner, other = processes.testnet(2)
    (tmp_path / "deed.txt").write_text("mine")
    record = owner.put(tmp_path / "deed.txt", ack="full")["record"]
    for act in ("delete", "erase"):
        refused = other.run("file", act, record, "--yes")
        assert (refused.code, refused.error) == (5, "E-WRONG-OWNER")
        assert owner.run("file", act, record, "--dry-run").code == 0
    owner.get(record, tmp_path / "read.txt")
    assert (tmp_path / "read.txt").read_text() == "mine"


# --- members ----------------------------------------------------------------------------------------------------------


def test_revoked_member_is_dropped_stays_out_and_its_copies_find_a_new_home(processes: Processes, tmp_path: Path) -> None:
    """Goal: out means out. Method: four members, a record with three copies; the one member revoked holds some; the others drop its node at
    once, it does not get back in by restarting, and every sequence has three copies on the rest."""
    nodes = processes.testnet(4)
    owner, *_, out = nodes
    stay = nodes[:3]
    source = random_folder(tmp_path / "source", seed=53, size=24 * MIB)
    record = owner.put(source, replicas=3, ack="full")["record"]
    assert held(out) > 0
    assert owner.run("member", "revoke", out.member, "--cause", "laptop stolen", "--yes").code == 0
    out_id = out.peer_id
    wait_until(lambda: not any(out_id in node.connected() for node in stay), "the others to drop it", timeout_s=10)
    wait_meshed(stay)
    out.kill()
    out.start()
    wait_until(lambda: owner.copies_live(record) >= 3, "its copies to be re-homed")
    holders = {row["name"] for row in owner.call("file.status", {"record": record})["holders"]}
    assert holders == {"n1/n1", "n2/n2", "n3/n3"}
    # Ten seconds of dialling by the one that is out: nobody lets it in.
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        assert not any(out_id in node.connected() for node in stay)
        time.sleep(0.5)
    for number, node in enumerate(stay[1:]):
        owner.call("share", {"record": record, "to": node.member})
        wait_until(lambda node=node: node.call("ls")["records"], "the wrap")  # type: ignore[misc]
        node.get(record, tmp_path / f"read-{number}")
        assert_same(source, tmp_path / f"read-{number}")


def test_member_that_was_away_for_three_fence_rotations_comes_back(processes: Processes) -> None:
    """Goal: nobody is locked out by being away. Method: one node stops; three other members are revoked, each with a new fence; the node
    comes back with the old fence and is connected again."""
    nodes = processes.testnet(5)
    founder, away, *others = nodes
    wait_until(lambda: away.status()["peers"], "the address book")
    away.stop()
    for number, node in enumerate(others):
        revoked = founder.run("member", "revoke", node.member, "--yes").data
        assert revoked["fence"] >= number + 2
        node.kill()
    start_all([away], among=[founder, away])
    assert away.peer_id in founder.connected()


# --- machines ---------------------------------------------------------------------------------------------------------


def test_frozen_machine_is_noticed_and_is_back_when_it_thaws(processes: Processes, tmp_path: Path) -> None:
    """Goal: a machine that hangs without closing anything is noticed in time and welcomed back. Method: SIGSTOP one of three for 25 s; the
    others lose it within 20 s, a put of two copies succeeds without it; SIGCONT; it is connected and takes a copy of the next record."""
    nodes = processes.testnet(3, repair_grace_s=2)
    owner, other, frozen = nodes
    frozen_id = frozen.peer_id
    frozen.signal(signal.SIGSTOP)
    began = time.monotonic()
    wait_until(lambda: frozen_id not in owner.connected() | other.connected(), "the frozen node to be noticed", timeout_s=NOTICE_TIMEOUT_S)
    (tmp_path / "note.txt").write_bytes(b"while it was frozen" * 20_000)
    assert len(owner.put(tmp_path / "note.txt", replicas=2)["holders"]) == 2
    time.sleep(max(0.0, FROZEN_S - (time.monotonic() - began)))
    frozen.signal(signal.SIGCONT)
    wait_meshed(nodes)
    (tmp_path / "next.txt").write_bytes(b"when it was back" * 20_000)
    assert len(owner.put(tmp_path / "next.txt", replicas=3, ack="full")["holders"]) == 3


def test_damaged_key_file_keeps_the_node_from_starting(processes: Processes) -> None:
    """Goal: a damaged identity is an error, not a new identity. Method: one bit of a key file flipped."""
    (node,) = processes.testnet_homes(1)
    path = node.home / "identity" / "node.key"
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(NotReady, match="E-INTEGRITY") as refused:
        node.start()
    assert refused.value.exit_code == 6
