"""Nothing that a person wrote or named is readable on any disk or on any wire."""

from __future__ import annotations

import re
from pathlib import Path
from random import Random

from tests.functional.conftest import MIB
from tests.functional.nodes import Processes, start_all, wait_until
from tests.functional.sources import assert_same
from tests.functional.wires import Wire

SNIPPETS = 64
WORDS = ("invoice", "consignee", "vessel", "container", "customs", "tariff", "pallet", "freight", "insurance", "harbour", "origin")


def found_in(data: bytes, needles: list[bytes]) -> list[bytes]:
    return [needle for needle in needles if needle in data]


def write_documents(folder: Path, random: Random, count: int) -> tuple[list[bytes], list[bytes]]:
    """``count`` documents, small ones and large ones, each with a sentence that stands nowhere else. Result: sentences, entry names."""
    folder.mkdir()
    snippets, names = [], []
    for _ in range(count):
        words = " ".join(random.choices(WORDS, k=4))
        snippet = f"{words} {random.randrange(10**12):012}".encode()
        name = f"{random.choice(WORDS)}-{random.randrange(10**9):09}.txt"
        filler = random.randbytes(random.choice((200, 5_000, 90_000, 700_000)))
        (folder / name).write_bytes(filler[: len(filler) // 2] + snippet + filler[len(filler) // 2 :])
        snippets.append(snippet)
        names.append(name.encode())
    return snippets, names


def test_no_snippet_and_no_name_is_found_on_any_disk_or_wire(processes: Processes, tmp_path: Path) -> None:
    """Goal: sealed means sealed. Method: three members whose connections all run over wires that record every byte; 64 documents, half in
    each class, are put, shared and read on another member; their sentences and names are searched in everything under the homes, logs
    included, and in what was recorded. The same search finds all of them in the source."""
    homes = processes.testnet_homes(3)
    ports = [int(re.findall(r"tcp/(\d+)", (node.home / "config.toml").read_text().split("listen")[1])[0]) for node in homes]
    founder_id = re.findall(r"/p2p/(\w+)", (homes[1].home / "config.toml").read_text())[0]
    wires = [Wire(port, keep=True) for port in ports]
    try:
        for node, wire in zip(homes, wires, strict=True):
            node.settings |= {"announce": wire.multiaddr, "log_level": "debug"}
            if node is not homes[0]:
                node.settings["static_peers"] = f"{wires[0].multiaddr}/p2p/{founder_id}"
        start_all(homes)
        owner, reader, _ = homes
        random = Random(64)
        snippets: list[bytes] = []
        names: list[bytes] = []
        for record_class in ("dedup", "confidential"):
            source = tmp_path / record_class
            some, called = write_documents(source, random, SNIPPETS // 2)
            snippets += some
            names += called
            record = owner.call("put", {"paths": [str(source)], "ack": "full", "class": record_class})["record"]
            owner.call("share", {"record": record, "to": reader.member})
            wait_until(lambda record=record: any(row["record"] == record for row in reader.call("ls")["records"]), "the wrap")  # type: ignore[misc]
            reader.get(record, tmp_path / f"read-{record_class}")
            assert_same(source, tmp_path / f"read-{record_class}")
        for node in homes:
            node.stop()
    finally:
        for wire in wires:
            wire.cut()
    needles = snippets + names
    in_source = b"".join(path.read_bytes() + path.name.encode() for path in tmp_path.glob("dedup/*"))
    assert len(found_in(in_source, needles)) == SNIPPETS
    assert sum(len(wire.recorded) for wire in wires) > 4 * MIB
    for wire in wires:
        assert found_in(bytes(wire.recorded), needles) == []
    files = [path for path in (processes.directory / "net").rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) > 12 * MIB
    for path in files:
        assert found_in(path.read_bytes(), needles) == [], path
