"""The file VERSION of a home, and the steps between versions. Compiled in, no network; the home lock is taken before."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping
from pathlib import Path

from protocols.codec import from_json, to_json
from protocols.errors import DecodeError, Reason, Refused, StoreDamaged, StoreFull

from .folders import sync_folder

VERSION = 2
VERSION_FILE = "VERSION"
VERSION_FILE_BYTES_MAX = 4096

Step = Callable[[Path], None]


def _bodies_apart(home: Path) -> None:
    """Version 2: bodies of full chunks go to a file beside the database, which older programs don't know. What is inside stays there."""


STEPS: Mapping[int, Step] = {1: _bodies_apart}
"""From version n to n + 1. A step may run twice (a crash in between) and uses a fixed amount of memory."""


def read_version(home: Path) -> tuple[int, str] | None:
    """(version, program that wrote it), or None for a home that has none yet. Raises StoreDamaged."""
    path = home / VERSION_FILE
    try:
        with path.open("rb") as file:
            text = from_json(file.read(VERSION_FILE_BYTES_MAX))
    except FileNotFoundError:
        return None
    except (OSError, DecodeError) as error:
        raise StoreDamaged(f"{path} cannot be read: {error}", path=str(path)) from error
    if not isinstance(text, dict) or not isinstance(text.get("version"), int) or not isinstance(text.get("written_by"), str):
        raise StoreDamaged(f"{path} does not say a version", path=str(path))
    return text["version"], text["written_by"]


def write_version(home: Path, version: int, *, written_by: str) -> None:
    """Replaces the file as one act: temporary file, fsync, rename, fsync of the folder. Raises StoreFull, StoreDamaged."""
    path = home / VERSION_FILE
    part = home / (VERSION_FILE + ".part")
    try:
        with part.open("wb") as file:
            file.write(to_json({"version": version, "written_by": written_by}) + b"\n")
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(home)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise StoreFull(f"{path}: no space left on the disk", resource="disk") from error
        raise StoreDamaged(f"{path} cannot be written: {error}", path=str(path)) from error


def migrate(home: Path, *, written_by: str, version: int = VERSION, steps: Mapping[int, Step] = STEPS) -> int:
    """Brings a home to ``version``, before its environments are opened. Result: how many steps were taken.

    written_by: name and version of this program. A home of this version is not written to, so that it opens on a full disk.
    Raises Refused(VERSION_TOO_NEW) naming who wrote it; StoreDamaged; StoreFull.
    """
    found = read_version(home)
    if found is None:
        write_version(home, version, written_by=written_by)
        return 0
    at, writer = found
    if at > version:
        raise Refused(
            Reason.VERSION_TOO_NEW,
            f"{home} is of version {at}, written by {writer}; this program, {written_by}, reads up to {version}",
            hint=f"start {writer} or later, or restore a backup made before the upgrade",
            found=at,
            wanted=version,
            written_by=writer,
        )
    taken = 0
    while at < version:
        steps[at](home)
        at += 1
        write_version(home, at, written_by=written_by)
        taken += 1
    return taken
