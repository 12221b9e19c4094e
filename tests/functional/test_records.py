"""Records in and out of real nodes: what is odd about files, who may read, and what an interruption leaves behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from node.http.client import call
from node.http.contract import CallFailed
from protocols.limits import BLOCK_BYTES
from tests.functional.conftest import MIB
from tests.functional.nodes import HomeNode, Processes, start_all, wait_until
from tests.functional.sources import assert_same, random_folder

# The other tests of this module add what they map of their stores; alone it is 200 MiB.
MEMORY_BYTES_MAX = 450 * MIB
SPARSE_BYTES = int(os.environ.get("FUNCTIONAL_SPARSE_MIB", "300")) * MIB


def shared_with(owner: HomeNode, reader: HomeNode, record: str) -> None:
    """Shares, and waits until the reader knows."""
    owner.call("share", {"record": record, "to": reader.member})
    wait_until(lambda: any(row["record"] == record for row in reader.call("ls")["records"]), "the wrap to arrive")


# --- odd files --------------------------------------------------------------------------------------------------------


def test_folder_with_every_kind_of_name_comes_back_as_it_was(trio_net: list[HomeNode], tmp_path: Path) -> None:
    """Goal: any Unicode name, empty files and folders, executables and links inside the folder come back exactly. Method: put one such
    folder on one member, get it on another."""
    owner, reader, _ = trio_net
    source = tmp_path / "source"
    (source / "Ärger & Söhne" / "空のフォルダ").mkdir(parents=True)
    (source / "e\u0301.txt").write_text("decomposed")
    (source / "Ärger & Söhne" / "🚢 bill of lading.txt").write_text("ship")
    (source / "مرحبا").write_bytes(b"\x00" * 70_000)
    (source / "with\nnewline\t'quotes\"").write_text("x")
    (source / ("n" * 255)).touch()
    (source / "run.sh").write_text("#!/bin/sh\n")
    (source / "run.sh").chmod(0o755)
    (source / "inside").symlink_to("run.sh")
    (source / "scans").mkdir()
    (source / "scans" / "up").symlink_to("../run.sh")
    record = owner.put(source)["record"]
    shared_with(owner, reader, record)
    reader.get(record, tmp_path / "target")
    assert_same(source, tmp_path / "target")
    assert os.access(tmp_path / "target" / "run.sh", os.X_OK)
    assert not os.access(tmp_path / "target" / "مرحبا", os.X_OK)


def test_each_path_becomes_a_record_of_its_own_and_one_that_fails_does_not_stop_the_others(
    trio_net: list[HomeNode], tmp_path: Path
) -> None:
    """Goal: an inbox is published with one command. Method: twenty files and a missing one; every record comes back as its own file, the
    missing one is named, the lines of progress name each as it is done; the same again stores nothing."""
    owner, reader, _ = trio_net
    files = [tmp_path / f"{number:02}.pdf" for number in range(20)]
    for number, path in enumerate(files):
        path.write_bytes(bytes([number]) * (100 + 40_000 * (number % 3)))
    told: list[str] = []

    def hear(facts: Mapping[str, object]) -> None:
        if "path" in facts:
            told.append(str(facts["path"]))

    asked = {"paths": [str(path) for path in (*files, tmp_path / "missing")], "each": True, "ack": "quorum"}
    with pytest.raises(CallFailed) as failed:
        call(owner.home, "put", asked, hear)
    assert failed.value.stable_name == "E-NOT-FOUND"
    rows = failed.value.details["records"]
    assert isinstance(rows, list)
    assert [row["path"] for row in rows] == asked["paths"]
    assert [row["path"] for row in rows if "error" in row] == [str(tmp_path / "missing")]
    assert sorted(told) == sorted(asked["paths"])
    for path, row in list(zip(files, rows, strict=False))[::7]:
        assert row["survives"] >= 2
        shared_with(owner, reader, row["record"])
        reader.get(row["record"], tmp_path / f"got-{path.name}")
        assert (tmp_path / f"got-{path.name}").read_bytes() == path.read_bytes()
    again = call(owner.home, "put", {**asked, "paths": asked["paths"][:-1]})
    assert all(row["already_stored"] for row in again.data["records"])
    assert again.data["record"] == [row["record"] for row in rows[:-1]]


def test_digests_of_file_status_when_files_are_small_are_those_of_sha256sum(trio_net: list[HomeNode], tmp_path: Path) -> None:
    """Goal: the digest of an entry of at most one block is what `sha256sum` prints, so that anybody can compare. Method: put files of no
    byte to one block and one of a byte more, run the program over the folder; equal in all, and for the last alone not."""
    node = trio_net[0]
    source = tmp_path / "source"
    (source / "below").mkdir(parents=True)
    for name, size in (("empty", 0), ("one", 1), ("below/page", 70_001), ("below/block", BLOCK_BYTES), ("more", BLOCK_BYTES + 1)):
        (source / name).write_bytes(random.Random(name).randbytes(size))
    names = sorted(str(path.relative_to(source)) for path in source.rglob("*") if path.is_file())
    output = subprocess.run(["sha256sum", *names], cwd=source, capture_output=True, text=True, check=True).stdout
    theirs = {name: digest for digest, name in (line.split("  ", 1) for line in output.splitlines())}
    record = node.put(source)["record"]
    entries = node.run("file", "status", record).data["entries"]
    ours = {entry["path"]: entry["digest"] for entry in entries if entry["kind"] == "file"}
    assert sorted(ours) == names
    assert ours.pop("more") != theirs.pop("more")
    assert ours == theirs


@pytest.mark.parametrize("target", ["/etc/hostname", "../outside"])
def test_link_that_leads_outside_is_refused_at_put(trio_net: list[HomeNode], tmp_path: Path, target: str) -> None:
    """Goal: no record can ever write or read outside the folder it is opened into. Method: put folders with such links."""
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "link").symlink_to(target)
    refused = trio_net[0].run("put", str(tmp_path / "source"))
    assert (refused.code, refused.error) == (6, "E-BAD-PATH")
    assert target in str(refused.json["error"]["message"])


@pytest.mark.parametrize("kind", ["empty file", "empty folder"])
def test_nothing_at_all_is_a_record_too(trio_net: list[HomeNode], tmp_path: Path, kind: str) -> None:
    """Goal: zero bytes are stored and come back. Method: put, get on the same node."""
    node = trio_net[0]
    source = tmp_path / "nothing"
    if kind == "empty file":
        source.touch()
    else:
        source.mkdir()
    put = node.put(source)
    assert put["bytes"] == 0
    node.get(put["record"], tmp_path / "target")
    assert_same(source, tmp_path / "target")


def test_unreadable_source_publishes_nothing_and_names_the_file(trio_net: list[HomeNode], tmp_path: Path) -> None:
    """Goal: one bad file fails the whole put, before anything is visible. Method: a folder with a pipe in it, which no one can store."""
    node = trio_net[0]
    before = [row["record"] for row in node.call("ls", {"all": True})["records"]]
    source = random_folder(tmp_path / "source", seed=31, size=MIB)
    os.mkfifo(source / "pipe")
    failed = node.run("put", str(source))
    assert (failed.code, failed.error) == (1, "E-SOURCE-UNREADABLE")
    assert str(source / "pipe") in str(failed.json["error"]["message"])
    assert [row["record"] for row in node.call("ls", {"all": True})["records"]] == before
    missing = node.run("put", str(tmp_path / "not here"))
    assert (missing.code, missing.error) == (4, "E-NOT-FOUND")


def test_file_that_grows_while_it_is_read_publishes_nothing(trio_net: list[HomeNode], tmp_path: Path) -> None:
    """Goal: a half-old, half-new file is never a record. Method: a writer keeps appending while the file is put."""
    node = trio_net[0]
    before = [row["record"] for row in node.call("ls", {"all": True})["records"]]
    source = tmp_path / "log"
    source.write_bytes(os.urandom(32 * MIB))
    put = node.launch_command("put", str(source), "--ack", "local")
    with source.open("ab") as writer:
        while put.poll() is None:
            writer.write(b"more")
            writer.flush()
            time.sleep(0.01)
    output, _ = put.communicate()
    assert put.returncode == 1, output
    assert b"E-SOURCE-CHANGED" in output
    assert [row["record"] for row in node.call("ls", {"all": True})["records"]] == before


def test_large_sparse_file_comes_back_with_its_size_and_its_island(trio_net: list[HomeNode], tmp_path: Path) -> None:
    """Goal: size alone is no obstacle. Method: a file of holes with one island near the end (FUNCTIONAL_SPARSE_MIB=5120 for 5 GiB); equal
    blocks are stored once; no process ever has more in memory than MEMORY_BYTES_MAX, whatever the size."""
    owner, reader, _ = trio_net
    source = tmp_path / "sparse.img"
    with source.open("wb") as file:
        file.truncate(SPARSE_BYTES)
        file.seek(SPARSE_BYTES - 3 * MIB)
        file.write(b"island")
    put = owner.put(source)
    assert put["bytes"] == SPARSE_BYTES
    shared_with(owner, reader, put["record"])
    reader.get(put["record"], tmp_path / "target.img")
    compared = subprocess.run(["cmp", str(source), str(tmp_path / "target.img")], check=False)
    assert compared.returncode == 0
    peaks = {node.home.name: peak_memory_bytes(node) for node in trio_net}
    print({name: f"{peak // MIB} MiB" for name, peak in peaks.items()})  # seen with pytest -s
    assert max(peaks.values()) < MEMORY_BYTES_MAX, peaks


def peak_memory_bytes(node: HomeNode) -> int:
    """Most that a running node ever had in memory, its mapped store included."""
    assert node.process is not None
    status = Path(f"/proc/{node.process.pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


# --- streams ----------------------------------------------------------------------------------------------------------


def test_standard_input_becomes_a_record_and_standard_output_gives_it_back(trio_net: list[HomeNode], tmp_path: Path) -> None:
    """Goal: pipes work both ways, byte for byte. Method: `put -`, then `get -o -`."""
    node = trio_net[0]
    data = os.urandom(5 * MIB + 17)
    put = node.run("put", "-", "--name", "etc.tar", stdin=data).data
    assert put["bytes"] == len(data)
    got = node.run("get", put["record"], "-o", "-", as_json=False)
    assert got.code == 0
    assert got.stdout == data


def test_single_entry_is_read_alone(trio_net: list[HomeNode], tmp_path: Path) -> None:
    """Goal: one file of many without the others. Method: --entry into a file and to standard output; a wrong name is exit 4."""
    node = trio_net[0]
    source = random_folder(tmp_path / "source", seed=32, size=3 * MIB)
    record = node.put(source)["record"]
    got = node.run("get", record, "--entry", "scans/page-03.png", "-o", str(tmp_path / "page.png"))
    assert got.data["entries"] == 1
    assert (tmp_path / "page.png").read_bytes() == (source / "scans" / "page-03.png").read_bytes()
    piped = node.run("get", record, "--entry", "contract.pdf", "-o", "-", as_json=False)
    assert piped.stdout == (source / "contract.pdf").read_bytes()
    missing = node.run("get", record, "--entry", "scans/page-99.png", "-o", str(tmp_path / "no.png"))
    assert (missing.code, missing.error) == (4, "E-NOT-FOUND")


# --- who may read -----------------------------------------------------------------------------------------------------


def test_member_without_a_wrap_cannot_read_and_is_told_whom_to_ask(trio_net: list[HomeNode], tmp_path: Path) -> None:
    """Goal: holding is not reading. Method: every node holds the record; only the one it was shared with opens it."""
    owner, friend, stranger = trio_net
    (tmp_path / "secret.txt").write_text("for your eyes only")
    record = owner.put(tmp_path / "secret.txt", ack="full")["record"]
    shared_with(owner, friend, record)
    refused = stranger.run("get", record, "-o", str(tmp_path / "stolen"))
    assert (refused.code, refused.error) == (5, "E-NO-KEY")
    assert "lading share" in str(refused.json["error"]["hint"])
    assert not (tmp_path / "stolen").exists()
    assert friend.run("get", record, "-o", str(tmp_path / "read")).code == 0
    assert (tmp_path / "read").read_text() == "for your eyes only"
    others_share = friend.run("share", record, "--to", stranger.member)
    assert (others_share.code, others_share.error) == (5, "E-WRONG-OWNER")
    unknown = stranger.run("get", "00" * 32)
    assert (unknown.code, unknown.error) == (4, "E-NOT-FOUND")


# --- the same again ---------------------------------------------------------------------------------------------------


def test_same_content_again_sends_nothing(trio_net: list[HomeNode], tmp_path: Path) -> None:
    """Goal: what is stored is not sent twice. Method: put, put again, put a copy of the folder under another name."""
    node = trio_net[0]
    source = random_folder(tmp_path / "source", seed=33, size=9 * MIB)
    first = node.put(source, ack="full")
    again = node.put(source, ack="full")
    assert again["record"] == first["record"]
    assert again["already_stored"]
    assert again["chunks_new"] == 0
    assert again["bytes_saved"] > 9 * MIB


# --- interruptions ----------------------------------------------------------------------------------------------------


def test_put_cut_by_kill_leaves_nothing_visible_and_goes_on_where_it_was(processes: Processes, tmp_path: Path) -> None:
    """Goal: kill -9 of the uploader in the middle of a put publishes nothing; the second put sends only what is missing. Method: kill it
    when holders have got part of the bytes; no node lists the record; put again, count what was new, read on another member."""
    nodes = processes.testnet(3)
    owner, reader, _ = nodes
    size = 48 * MIB
    source = random_folder(tmp_path / "source", seed=34, size=size)
    put = owner.launch_command("put", str(source), "--ack", "full")
    wait_until(lambda: reader.status()["store"]["bytes"] > size // 4, "a quarter of the bytes to arrive at a holder")
    owner.kill()
    assert put.wait(30) == 8
    for node in nodes[1:]:
        assert node.call("ls", {"all": True})["records"] == []
    start_all([owner], among=nodes)
    assert owner.call("ls", {"all": True})["records"] == []
    again = owner.put(source, ack="full")
    assert not again["already_stored"]
    assert again["bytes_new"] < size * 3 // 4
    shared_with(owner, reader, again["record"])
    reader.get(again["record"], tmp_path / "target")
    assert_same(source, tmp_path / "target")


@pytest.mark.parametrize("victim", ["node", "client"])
def test_get_cut_by_kill_resumes_and_no_byte_is_wrong(processes: Processes, tmp_path: Path, victim: str) -> None:
    """Goal: an interrupted get goes on where it was. Method: kill -9 the reading node, or the client, when part of the file is there; the
    target does not exist yet; get again; every byte is right, and what was fetched before is not fetched again."""
    nodes = processes.testnet(3, copies_all="false")
    owner, reader, _ = nodes
    source = tmp_path / "source.bin"
    size = 96 * MIB
    source.write_bytes(os.urandom(size))
    # One copy, with the owner alone: the reader has to fetch everything.
    record = owner.put(source, replicas=1, ack="local")["record"]
    shared_with(owner, reader, record)
    target = tmp_path / "target.bin"
    resume = tmp_path / "target.bin.resume"
    get = reader.launch_command("get", record, "-o", str(target))
    wait_until(lambda: resume.exists() and len(resume.read_text().split()) > 3, "some sequences to be whole")
    if victim == "node":
        reader.kill()
        assert get.wait(30) == 8
    else:
        get.send_signal(signal.SIGKILL)
        get.wait(30)
    assert not target.exists()
    if victim == "node":
        start_all([reader], among=nodes)
    done_before = len(resume.read_text().split()) - 1
    assert done_before > 0
    seen: list[int] = []
    call(reader.home, "get", {"record": record, "output": str(target)}, lambda facts: seen.append(int(str(facts.get("bytes", 0)))))
    compared = subprocess.run(["cmp", str(source), str(target)], check=False)
    assert compared.returncode == 0
    assert max(seen) <= size - done_before * 4 * MIB
    assert sorted(path.name for path in tmp_path.iterdir() if path.name.startswith("target")) == ["target.bin"]


def test_get_over_something_else_is_refused(trio_net: list[HomeNode], tmp_path: Path) -> None:
    """Goal: nothing that is there is overwritten by surprise. Method: get a folder where another, not empty one is."""
    node = trio_net[0]
    source = random_folder(tmp_path / "source", seed=35, size=MIB)
    record = node.put(source)["record"]
    (tmp_path / "target").mkdir()
    (tmp_path / "target" / "mine.txt").write_text("mine")
    with pytest.raises(CallFailed) as refused:
        node.get(record, tmp_path / "target")
    assert refused.value.exit_code == 2
    assert (tmp_path / "target" / "mine.txt").read_text() == "mine"
