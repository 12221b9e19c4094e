"""A CID that `file status` prints is what IPFS tools call the same sealed bytes.

Needs node and npm; the locked packages are installed once into the machine's folder for temporary files.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from protocols.limits import SEALED_CHUNK_BYTES_MAX
from storage.engine import Env
from storage.lmdb_engine import LmdbEngine
from storage.tables import BODIES
from tests.functional.nodes import HomeNode, Processes
from tests.functional.sources import MIB, random_folder

from .packages import script_beside_its_packages

pytestmark = pytest.mark.slow

PATIENCE_S = 60.0
RAW, SHA2_256 = 0x55, 0x12  # the multicodec table


@pytest.fixture(scope="module")
def cids_script() -> Path:
    """cids.mjs beside its packages."""
    return script_beside_its_packages(Path(__file__).parent / "ipfs" / "cids.mjs", "the importer of IPFS")


@pytest.fixture
def processes(tmp_path: Path) -> Iterator[Processes]:
    owner = Processes(tmp_path)
    yield owner
    owner.end()


def write_sealed_bytes(node: HomeNode, folder: Path) -> list[int]:
    """Every sealed body of a stopped node's store, as a file named by nothing but a number; their lengths."""
    folder.mkdir()
    lengths = []
    engine = LmdbEngine(node.home / "chunks.lmdb", Env.CHUNKS, budget_bytes=2**34, reserve_bytes=MIB)
    try:
        with engine.snapshot() as snapshot:
            for number, (_, body) in enumerate(snapshot.scan(BODIES)):
                (folder / str(number)).write_bytes(body)
                lengths.append(len(body))
    finally:
        engine.close()
    return lengths


def test_cids_of_file_status_when_ipfs_tools_name_the_same_sealed_bytes_are_theirs(
    cids_script: Path, processes: Processes, tmp_path: Path
) -> None:
    """Goal: a chunk's printed name is one that any IPFS tool computes. Method: put a folder, take the CIDs that `lading file status --json`
    prints; give multiformats and the importer behind `ipfs add` the bodies on the node's disk, without their names; both must
    print the same CIDs, no more and no fewer, and read ours as CIDv1, raw, sha2-256."""
    (node,) = processes.testnet(1)
    record = str(node.put(random_folder(tmp_path / "source", seed=83, size=MIB))["record"])
    here = node.run("file", "status", record).data["here"]
    printed = [cid for sequence in here for cid in sequence["chunks"]]
    node.stop()
    lengths = write_sealed_bytes(node, tmp_path / "bodies")
    assert max(lengths) == SEALED_CHUNK_BYTES_MAX, "the largest chunk is the one that a tool could cut in two"

    command = ["node", str(cids_script), str(tmp_path / "bodies"), *printed]
    theirs = json.loads(subprocess.run(command, capture_output=True, timeout=PATIENCE_S, check=True).stdout)
    assert len(printed) == len(lengths) > 4
    assert sorted(theirs["blocks"].values()) == sorted(printed)
    assert theirs["added"] == theirs["blocks"]
    assert theirs["parsed"] == [{"version": 1, "codec": RAW, "hash": SHA2_256, "bytes": 32, "text": cid} for cid in printed]
