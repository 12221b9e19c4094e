"""Disks that flip bits, lose files and fill up under a running network."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from storage.body_file import BODIES_FILE, EXTENT_BODY_BYTES_MIN
from storage.engine import Env
from storage.lmdb_engine import LmdbEngine
from storage.tables import BODIES
from tests.functional.conftest import MIB
from tests.functional.disks import read_only
from tests.functional.nodes import HomeNode, NotReady, Processes, start_all, wait_until
from tests.functional.sources import assert_same, random_folder

SMALL_DISK_BYTES = 96 * MIB


def sealed_chunks(node: HomeNode, count: int) -> list[bytes]:
    """Some full sealed chunks that a stopped node has stored: they lie in the body file."""
    engine = LmdbEngine(node.home / "chunks.lmdb", Env.CHUNKS, budget_bytes=2**34, reserve_bytes=MIB)
    try:
        with engine.snapshot() as snapshot:
            return [body for _, body in snapshot.scan(BODIES) if len(body) >= EXTENT_BODY_BYTES_MIN][:count]
    finally:
        engine.close()


def flip_bits_in_file(path: Path, bodies: list[bytes]) -> None:
    """One bit in the middle of each body, wherever it stands in the file."""
    data = bytearray(path.read_bytes())
    for body in bodies:
        at = data.index(body[:4000])
        data[at + len(body) // 2] ^= 0x10
    path.write_bytes(bytes(data))


def check(node: HomeNode, *, repair: bool = False) -> tuple[int, int, int]:
    """(checked, damaged, healed) of everything that a node holds."""
    data = node.call("check", {"all": True, "repair": repair})
    return int(data["checked"]), int(data["damaged"]), int(data["healed"])


# --- damage -----------------------------------------------------------------------------------------------------------


def test_flipped_bits_are_found_by_check_and_healed_from_another_holder(processes: Processes, tmp_path: Path) -> None:
    """Goal: silent damage is found and undone. Method: stop a holder, flip one bit in each of three stored chunks, start it; `check --all
    --repair` names and heals the sequences; a second check is clean; then the other holder dies and the healed one gives every byte."""
    owner, holder = processes.testnet(2)
    source = random_folder(tmp_path / "source", seed=61, size=24 * MIB)
    record = owner.put(source, ack="full")["record"]
    owner.call("share", {"record": record, "to": holder.member})
    wait_until(lambda: holder.call("ls")["records"], "the wrap")
    checked, _, _ = check(holder)
    holder.stop()
    flip_bits_in_file(holder.home / "chunks.lmdb" / BODIES_FILE, sealed_chunks(holder, 3))
    start_all([holder], among=[owner, holder])
    repaired = holder.run("check", "--all", "--repair").data
    assert repaired["checked"] == checked
    assert 1 <= repaired["damaged"] <= 3
    assert repaired["healed"] == repaired["damaged"]
    assert check(holder) == (checked, 0, 0)
    owner.kill()
    holder.get(record, tmp_path / "target")
    assert_same(source, tmp_path / "target")


def test_damage_without_another_holder_is_an_integrity_error_and_the_rest_is_served(processes: Processes, tmp_path: Path) -> None:
    """Goal: what cannot be healed is said, never served. Method: one node alone; one bit flipped; check exits 6; get fails with exit 7 and
    writes no wrong byte; another record is read."""
    (node,) = processes.testnet(1)
    broken = random_folder(tmp_path / "broken", seed=62, size=3 * MIB)
    record = node.put(broken, ack="local")["record"]
    node.stop()
    flip_bits_in_file(node.home / "chunks.lmdb" / BODIES_FILE, sealed_chunks(node, 1))
    node.start()
    whole = random_folder(tmp_path / "whole", seed=63, size=3 * MIB)
    other = node.put(whole, ack="local")["record"]
    checked = node.run("check", "--all")
    assert (checked.code, checked.error) == (6, "E-INTEGRITY")
    got = node.run("get", record, "-o", str(tmp_path / "no"))
    assert got.code in (6, 7)
    assert not (tmp_path / "no").exists()
    node.get(other, tmp_path / "target")
    assert_same(whole, tmp_path / "target")


def test_truncated_chunk_store_is_named_at_start_and_its_loss_is_made_good(processes: Processes, tmp_path: Path) -> None:
    """Goal: a cut-off store is a clear error, and a node whose chunks are gone gets back what it should hold. Method: cut the bodies off,
    then the database: start exits 6 and names the file; move the folder away: the node starts as a new generation and every copy comes
    back."""
    nodes = processes.testnet(3)
    owner, _, victim = nodes
    source = random_folder(tmp_path / "source", seed=64, size=16 * MIB)
    record = owner.put(source, ack="full")["record"]
    checked, _, _ = check(victim)
    victim.kill()
    for name, bytes_left in ((BODIES_FILE, 4 * MIB), ("data.mdb", 8192)):
        with (victim.home / "chunks.lmdb" / name).open("rb+") as file:
            file.truncate(bytes_left)
        with pytest.raises(NotReady, match="cut off") as refused:
            victim.start()
        assert refused.value.exit_code == 6
        assert name in str(refused.value)
        victim.process = None
    shutil.rmtree(victim.home / "chunks.lmdb")
    start_all([victim], among=nodes)
    wait_until(lambda: check(victim) == (checked, 0, 0), "every copy to come back", timeout_s=60)
    wait_until(lambda: owner.copies_live(record) == 3, "its receipts to count again")
    owner.call("share", {"record": record, "to": victim.member})
    wait_until(lambda: victim.call("ls")["records"], "the wrap")
    for node in nodes[:2]:
        node.kill()
    victim.get(record, tmp_path / "target")
    assert_same(source, tmp_path / "target")


# --- full disks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that is soon full. Needs the right to mount."""
    mount = tmp_path / "small-disk"
    mount.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK_BYTES}", "tmpfs", str(mount)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip(f"cannot mount here: {mounted.stderr.decode().strip()}")
    yield mount
    subprocess.run(["umount", "--lazy", str(mount)], check=True)


def test_full_disk_refuses_puts_clearly_and_still_serves_deletes_and_starts(small_disk: Path, processes: Processes, tmp_path: Path) -> None:
    """Goal: a full disk is a clear error and nothing else breaks. Method: a home on a small file system; one record fits, a larger one does
    not: exit 12 and nothing visible; the first is read; the node restarts; after an erase there is room again."""
    assert processes.run("testnet", "1", str(small_disk / "net")).code == 0
    node = processes.node(small_disk / "net" / "n1", store_budget_share=1, store_reserve_bytes=4 * MIB, store_budget_bytes=4096 * MIB)
    node.start()
    small = random_folder(tmp_path / "small", seed=65, size=20 * MIB)
    large = random_folder(tmp_path / "large", seed=66, size=SMALL_DISK_BYTES)
    record = node.put(small, ack="local")["record"]
    for _ in range(2):
        refused = node.run("put", str(large), "--ack", "local")
        assert (refused.code, refused.error) == (12, "E-STORE-FULL")
        assert [row["record"] for row in node.call("ls", {"all": True})["records"]] == [record]
        node.get(record, tmp_path / "target")
        assert_same(small, tmp_path / "target")
        shutil.rmtree(tmp_path / "target")
        node.kill()
        node.start()
    assert node.run("file", "erase", record, "--yes").code == 0
    assert node.call("ls")["records"] == []
    tiny = random_folder(tmp_path / "tiny", seed=67, size=2 * MIB)
    again = node.put(tiny, ack="local")["record"]
    node.get(again, tmp_path / "target")
    assert_same(tiny, tmp_path / "target")


def test_get_onto_a_full_disk_says_so_and_goes_on_when_there_is_room(small_disk: Path, processes: Processes, tmp_path: Path) -> None:
    """Goal: a target without room is exit 12, keeps what was fetched, and the same get completes later. Method: a target disk filled but
    for a few megabytes; get; free it; get."""
    (node,) = processes.testnet(1)
    source = random_folder(tmp_path / "source", seed=68, size=24 * MIB)
    record = node.put(source, ack="local")["record"]
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(SMALL_DISK_BYTES - 8 * MIB))
    refused = node.run("get", record, "-o", str(small_disk / "target"))
    assert (refused.code, refused.error) == (12, "E-STORE-FULL"), refused
    assert not (small_disk / "target").exists()
    ballast.unlink()
    node.get(record, small_disk / "target")
    assert_same(source, small_disk / "target")


# --- read-only disks --------------------------------------------------------------------------------------------------


def test_read_only_disk_is_served_or_refused_clearly_and_loses_nothing(processes: Processes, tmp_path: Path) -> None:
    """Goal: a disk that takes no write costs nothing but writes. Method: the chunk store alone on one: the node starts, says so, serves,
    refuses a put with exit 12 and does not fall over a delete that it cannot follow; the whole home on one: exit 12 with the way out;
    then writable again: the delete is followed, the other record is read, a put works."""
    (node,) = processes.testnet(1)
    keep = random_folder(tmp_path / "keep", seed=69, size=6 * MIB)
    drop = random_folder(tmp_path / "drop", seed=70, size=2 * MIB)
    record = node.put(keep, ack="local")["record"]
    going = node.put(drop, ack="local")["record"]
    node.stop()
    with read_only(node.home / "chunks.lmdb"):
        node.start()
        wait_until(lambda: any("read-only" in alert for alert in node.status()["alerts"]), "the alert")
        node.get(record, tmp_path / "target")
        assert_same(keep, tmp_path / "target")
        refused = node.run("put", str(tmp_path / "target" / "contract.pdf"), "--ack", "local")
        assert (refused.code, refused.error) == (12, "E-STORE-FULL")
        deleting = node.launch_command("file", "delete", str(going), "--yes")
        wait_until(lambda: any(row["state"] == "deleted" for row in node.call("ls", {"all": True})["records"]), "the tombstone")
        assert node.run("check", "--all").data["damaged"] == 0
        assert "child fell" not in node.log
        node.stop()
        deleting.wait(30)
    with read_only(node.home):
        with pytest.raises(NotReady, match="E-STORE-FULL") as refused_start:
            node.start()
        assert refused_start.value.exit_code == 12
        assert "read-only" in str(refused_start.value)
        node.process = None
    node.start()
    wait_until(lambda: check(node) == (3, 0, 0), "the delete to be followed")
    shutil.rmtree(tmp_path / "target")
    node.get(record, tmp_path / "target")
    assert_same(keep, tmp_path / "target")
    assert node.put(drop, ack="local")["record"] == going
