"""Files and folders to be put, made from a seed, and whether what came back is the same."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

MIB = 1024 * 1024


def random_folder(folder: Path, *, seed: int, size: int) -> Path:
    """A folder of ``size`` bytes: one large file, two smaller ones, a handful of documents, an empty file, an empty folder."""
    random = Random(seed)
    folder.mkdir(parents=True)
    (folder / "nothing").mkdir()
    (folder / "empty.txt").touch()
    (folder / "scans").mkdir()
    left = size
    for number in range(16):
        length = min(left, 3000 + 4001 * number)
        (folder / "scans" / f"page-{number:02}.png").write_bytes(random.randbytes(length))
        left -= length
    for name, share in (("contract.pdf", left // 5), ("photo.raw", left // 4), ("ledger.tar", left - left // 5 - left // 4)):
        with (folder / name).open("wb") as file:
            for start in range(0, share, MIB):
                file.write(random.randbytes(min(MIB, share - start)))
    return folder


def tree(path: Path) -> dict[str, tuple[str, bytes]]:
    """Everything under a folder, or a file alone: name → kind and content (a link's target)."""
    if not path.is_dir():
        return {"": ("file", path.read_bytes())}
    found: dict[str, tuple[str, bytes]] = {}
    for parent, folders, files in os.walk(path):
        for name in folders + files:
            place = Path(parent) / name
            key = os.fspath(place.relative_to(path))
            if place.is_symlink():
                found[key] = ("symlink", os.fsencode(os.readlink(place)))
            elif place.is_dir():
                found[key] = ("folder", b"")
            else:
                found[key] = ("file", place.read_bytes())
    return found


def assert_same(source: Path, target: Path) -> None:
    """Fails naming the first entry that differs, without printing megabytes."""
    wanted, got = tree(source), tree(target)
    assert sorted(wanted) == sorted(got)
    different = [name for name in sorted(wanted) if wanted[name] != got[name]]
    assert not different, f"{different} came back changed"
