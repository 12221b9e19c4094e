"""What a store on disk says from outside while or after a node runs on it, and disks that take no write."""

from __future__ import annotations

import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import pytest

from storage.engine import Env, Snapshot
from storage.lmdb_engine import LmdbEngine

T = TypeVar("T")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
# Two meta pages at the beginning of the file, each with the number of the transaction that wrote it: 8 bytes at 144.
_TRANSACTION = struct.Struct("=144xQ")


def commits_of(home: Path, env: Env = Env.CHUNKS) -> int:
    """Commits that an environment has seen in its life; may be asked while a node writes it."""
    with (home / f"{env.value}.lmdb" / "data.mdb").open("rb") as file:
        found = []
        for page in (0, 1):
            file.seek(page * PAGE_BYTES)
            found.append(int(_TRANSACTION.unpack(file.read(_TRANSACTION.size))[0]))
        return max(found)


def read_store(home: Path, fn: Callable[[Snapshot], T]) -> T:
    """``fn`` over the chunk store of a node that does not run."""
    engine = LmdbEngine(home / "chunks.lmdb", Env.CHUNKS, budget_bytes=2**34, reserve_bytes=2**20)
    try:
        with engine.snapshot() as snapshot:
            return fn(snapshot)
    finally:
        engine.close()


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Nothing under a folder can be written meanwhile, by root neither. Nobody may have a file open there for writing."""
    if os.geteuid() == 0:
        bound = subprocess.run(["mount", "--bind", str(folder), str(folder)], capture_output=True, check=False)
        if bound.returncode != 0:
            pytest.skip(f"cannot mount here: {bound.stderr.decode().strip()}")
        try:
            subprocess.run(["mount", "-o", "remount,ro,bind", str(folder)], check=True)
            yield
        finally:
            subprocess.run(["umount", "--lazy", str(folder)], check=True)
        return
    modes = {path: path.stat().st_mode for path in (folder, *folder.rglob("*")) if not path.is_symlink()}
    for path, mode in modes.items():
        path.chmod(mode & ~0o222)
    try:
        yield
    finally:
        for path, mode in modes.items():
            path.chmod(mode)
