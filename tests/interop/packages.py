"""Foreign programs: locked npm packages, installed once into the machine's folder for temporary files."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

INSTALL_TIMEOUT_S = 180.0


def script_beside_its_packages(script: Path, what: str) -> Path:
    """A copy of ``script`` that finds the packages which the lock beside it names. Skips, with the reason, where they cannot be had.

    what: the packages in the reader's words.
    """
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip(f"node and npm are not on this machine: {what} cannot run")
    digest = hashlib.sha256((script.parent / "package-lock.json").read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"lading-interop-{script.stem}-{os.getuid()}-{digest}"
    if not (folder / "installed").exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        for name in ("package.json", "package-lock.json"):
            shutil.copy(script.parent / name, folder)
        command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
        if done.returncode:
            pytest.skip(f"npm could not install {what}: {done.stderr.strip().splitlines()[-1:]}")
        (folder / "installed").touch()
    shutil.copy(script, folder)
    return folder / script.name
