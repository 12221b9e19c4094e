"""Two Syncthing instances on loopback that share one folder, so that a row can move the same files through both systems.

Everything that reaches beyond the machine is off: discovery, relays, NAT, STUN, reports, upgrades. The file watcher is off too: after a
change, ``publish`` asks for a scan of it, which is the least delay that Syncthing can have (its watcher waits up to 10 s). Each file is
fsynced by Syncthing, as it comes configured, and it runs at normal priority like the nodes beside it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .harness import Skipped

PROGRAM = "syncthing"
FOLDER = "bench"
READY_PATIENCE_S = 40.0
MOVE_PATIENCE_S = 180.0
POLL_S = 0.002
OPTIONS: Mapping[str, str] = {
    "globalAnnounceEnabled": "false",
    "localAnnounceEnabled": "false",
    "announceLANAddresses": "false",
    "relaysEnabled": "false",
    "natEnabled": "false",
    "stunKeepaliveStartS": "0",
    "stunKeepaliveMinS": "0",
    "urAccepted": "-1",
    "crashReportingEnabled": "false",
    "autoUpgradeIntervalH": "0",
    "startBrowser": "false",
    "reconnectionIntervalS": "2",
    # As it comes, Syncthing gives way to other programs; the nodes that it is compared with do not.
    "setLowPriority": "false",
}


def program() -> str:
    """Where Syncthing is. Raises Skipped when it is not on the PATH."""
    found = shutil.which(PROGRAM)
    if found is None:
        raise Skipped(f"{PROGRAM} is not on the PATH; on Debian: apt-get install {PROGRAM}")
    return found


def program_version() -> str:
    """What `syncthing --version` says of itself, and the package of the distribution that it came in, if dpkg knows it."""
    path = program()
    facts = [subprocess.run([path, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0].strip()]
    with contextlib.suppress(FileNotFoundError):
        command = ["dpkg-query", "--show", "--showformat", "package ${Package} ${Version}", PROGRAM]
        asked = subprocess.run(command, check=False, capture_output=True, text=True)
        facts += [asked.stdout.strip()] if asked.returncode == 0 else []
    return "; ".join(facts)


@dataclass(frozen=True)
class Seat:
    """Where one instance listens, both on loopback, and who it is."""

    device: str
    sync_port: int
    gui_port: int
    folder: Path


def confined(generated: str, own: Seat, other: Seat, key: str) -> str:
    """The configuration of ``own``: as generated, with one folder shared with ``other``, and nothing that leaves the machine.

    generated: XML as `syncthing generate` wrote it. key: of the REST interface.
    """
    root = ET.fromstring(generated)
    for name in ("folder", "device"):
        for element in root.findall(name):
            root.remove(element)
    options = root.find("options")
    gui = root.find("gui")
    assert options is not None
    assert gui is not None
    _only(options, "listenAddress", f"tcp://127.0.0.1:{own.sync_port}")
    for name, value in OPTIONS.items():
        _only(options, name, value)
    gui.attrib |= {"enabled": "true", "tls": "false"}
    _only(gui, "address", f"127.0.0.1:{own.gui_port}")
    _only(gui, "apikey", key)
    watch = {"type": "sendreceive", "rescanIntervalS": "0", "fsWatcherEnabled": "false"}
    folder = ET.SubElement(root, "folder", {"id": FOLDER, "label": FOLDER, "path": str(own.folder), **watch})
    for seat in (own, other):
        ET.SubElement(folder, "device", {"id": seat.device})
        device = ET.SubElement(root, "device", {"id": seat.device})
        _only(device, "address", f"tcp://127.0.0.1:{seat.sync_port}")
    _only(folder, "disableFsync", "false")
    return ET.tostring(root, encoding="unicode")


def _only(parent: ET.Element, name: str, value: str) -> None:
    """One child of that name, with that text."""
    for element in parent.findall(name):
        parent.remove(element)
    ET.SubElement(parent, name).text = value


def own_device(generated: str) -> str:
    """The device id in a configuration as generated, which knows no other device."""
    device = ET.fromstring(generated).find("device")
    assert device is not None
    return device.attrib["id"]


def _ports(count: int) -> list[int]:
    """Ports of loopback that were free a moment ago, all different."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


@dataclass
class Instance:
    """One running Syncthing."""

    home: Path
    seat: Seat
    key: str
    process: subprocess.Popen[bytes]

    def rest(self, method: str, path: str, *, patience_s: float = 10.0) -> Any:
        """One call of its REST interface. Raises OSError when nobody answers, RuntimeError for anything but 200."""
        connection = http.client.HTTPConnection("127.0.0.1", self.seat.gui_port, timeout=patience_s)
        try:
            connection.request(method, f"/rest/{path}", headers={"X-API-Key": self.key})
            answer = connection.getresponse()
            body = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"syncthing answered {method} {path} with {answer.status}: {body[:200]!r}")
            return json.loads(body) if body.strip() else None
        finally:
            connection.close()

    def is_connected(self, device: str) -> bool:
        rows = self.rest("GET", "system/connections")["connections"]
        return bool(rows.get(device, {}).get("connected"))

    def is_idle(self) -> bool:
        """Nothing to fetch, nothing to scan."""
        status = self.rest("GET", f"db/status?folder={FOLDER}")
        return status["state"] == "idle" and not status["needTotalItems"]

    def pids(self) -> list[int]:
        """Itself and, last, the process that it starts and watches over, which does the work. In /proc, each thread has its children."""
        pid = self.process.pid
        children = [path.read_text().split() for path in Path(f"/proc/{pid}/task").glob("*/children")]
        return [pid, *(int(child) for some in children for child in some)]


@dataclass
class SyncthingPair:
    """Sender and receiver, connected, in a temporary folder; ended, and their folder removed, on leaving."""

    directory: Path = field(init=False)
    sender: Instance = field(init=False)
    receiver: Instance = field(init=False)
    _instances: list[Instance] = field(init=False, default_factory=list)

    def __enter__(self) -> SyncthingPair:
        name = program()
        self.directory = Path(tempfile.mkdtemp(prefix="lading-syncthing-"))
        try:
            homes = [self.directory / "a", self.directory / "b"]
            texts: list[str] = []
            for home in homes:
                home.mkdir()
                subprocess.run([name, "generate", "--home", str(home)], check=True, capture_output=True, env=_environment(home))
                texts.append((home / "config.xml").read_text())
            ports = _ports(4)
            seats = [Seat(own_device(texts[i]), ports[2 * i], ports[2 * i + 1], homes[i] / "folder") for i in (0, 1)]
            for i in (0, 1):
                self._instances.append(_started(name, homes[i], confined(texts[i], seats[i], seats[1 - i], FOLDER), seats[i]))
            self.sender, self.receiver = self._instances
            self._wait_ready()
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def _end(self) -> None:
        """The watching process is asked to end and takes the working one with it; one that does not is killed with it."""
        running = [(one, one.pids()) for one in self._instances if one.process.poll() is None]
        for instance, _ in running:
            instance.process.terminate()
        for instance, pids in running:
            try:
                instance.process.wait(10)
            except subprocess.TimeoutExpired:
                for pid in pids:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                instance.process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _wait_ready(self) -> None:
        deadline = time.monotonic() + READY_PATIENCE_S
        for own, other in ((self.sender, self.receiver), (self.receiver, self.sender)):
            while True:
                with contextlib.suppress(OSError, RuntimeError):
                    if own.is_connected(other.seat.device) and own.is_idle():
                        break
                if own.process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError(f"syncthing did not get ready: {(own.home / 'log').read_text()[-2000:]}")
                time.sleep(0.05)

    @property
    def pids(self) -> Mapping[str, int]:
        """The working process of each end; those that watch over them use no processor and 2 MiB."""
        return {"sender": self.sender.pids()[-1], "receiver": self.receiver.pids()[-1]}

    def move(self, staged: Path, names: Sequence[str]) -> float:
        """Publishes ``staged`` in the sender's folder by one rename and waits until the receiver has it under its final names.

        staged: a file or a folder on the same file system, gone afterwards. names: of the files, below its own name; empty when it is
        one file. Syncthing renames a file to its final name when all blocks are verified and the file was fsynced.
        Result: seconds until the sender's scan had ended, which is part of the time that the call took.
        Raises RuntimeError when that takes more than MOVE_PATIENCE_S.
        """
        place = self.receiver.seat.folder / staged.name
        wanted = [place / name for name in names] or [place]
        began = time.perf_counter()
        staged.rename(self.sender.seat.folder / staged.name)
        scanned: list[float] = []

        def scan() -> None:
            self.sender.rest("POST", f"db/scan?folder={FOLDER}&sub={staged.name}", patience_s=MOVE_PATIENCE_S)
            scanned.append(time.perf_counter() - began)

        scanning = threading.Thread(target=scan)
        scanning.start()
        # Only one path is looked at until it is there: the watching takes next to nothing of the processors that are measured.
        while wanted:
            if wanted[-1].exists():
                wanted.pop()
                continue
            if time.perf_counter() - began > MOVE_PATIENCE_S:
                raise RuntimeError(f"{len(wanted)} files did not reach the receiver: {(self.receiver.home / 'log').read_text()[-2000:]}")
            time.sleep(POLL_S)
        scanning.join()
        if not scanned:
            raise RuntimeError("the sender did not scan")
        return scanned[0]

    def clear(self, name: str) -> None:
        """Deletes at the sender and waits until the receiver has followed and both rest."""
        published = self.sender.seat.folder / name
        if published.is_dir():
            shutil.rmtree(published)
        else:
            published.unlink()
        self.sender.rest("POST", f"db/scan?folder={FOLDER}&sub={name}", patience_s=MOVE_PATIENCE_S)
        deadline = time.monotonic() + MOVE_PATIENCE_S
        while (self.receiver.seat.folder / name).exists() or not (self.sender.is_idle() and self.receiver.is_idle()):
            if time.monotonic() > deadline:
                raise RuntimeError(f"{name} did not vanish at the receiver")
            time.sleep(0.05)


def _environment(home: Path) -> dict[str, str]:
    """HOME is its own, so that nothing of the user's is read or made; no upgrade, no default folder, no second start."""
    return {**os.environ, "HOME": str(home), "STNODEFAULTFOLDER": "1", "STNOUPGRADE": "1", "STNORESTART": "1"}


def _started(name: str, home: Path, config: str, seat: Seat) -> Instance:
    (home / "config.xml").write_text(config)
    (seat.folder / ".stfolder").mkdir(parents=True)
    with (home / "log").open("wb") as log:
        command = [name, "serve", "--home", str(home), "--no-browser"]
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=_environment(home))
    return Instance(home, seat, FOLDER, process)
