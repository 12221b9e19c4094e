"""A network of its own for a test: one namespace a host, a switch that can be cut in two. Needs root."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


class NoLan(Exception):
    """Namespaces cannot be made here; says why."""


def _ip(*words: str) -> None:
    ran = subprocess.run(["ip", *words], capture_output=True, text=True, check=False)
    if ran.returncode:
        raise NoLan(f"ip {' '.join(words)}: {ran.stderr.strip()}")


@dataclass(frozen=True)
class Lan:
    """Hosts 1 to ``count``; each host's address ends in its number."""

    name: str
    count: int

    def command(self, host: int) -> tuple[str, ...]:
        """What a program's words begin with to run on a host."""
        return ("ip", "netns", "exec", f"{self.name}h{host}")

    def address(self, host: int) -> str:
        return f"10.231.7.{host}"

    def split(self, apart: Collection[int]) -> None:
        """These hosts see only one another from now on."""
        for host in apart:
            _ip("-n", f"{self.name}s", "link", "set", f"p{host}", "master", "second")

    def heal(self) -> None:
        for host in range(1, self.count + 1):
            _ip("-n", f"{self.name}s", "link", "set", f"p{host}", "master", "first")


@contextmanager
def lan(count: int) -> Iterator[Lan]:
    """Taken away at the end, whatever happened. Raises NoLan."""
    if shutil.which("ip") is None:
        raise NoLan("ip not found: install iproute2")
    if os.geteuid() != 0:
        raise NoLan("network namespaces need root")
    found = Lan(f"ld{os.getpid()}", count)
    switch = f"{found.name}s"
    made: list[str] = []
    try:
        for namespace in (switch, *(f"{found.name}h{host}" for host in range(1, count + 1))):
            _ip("netns", "add", namespace)
            made.append(namespace)
        for bridge in ("first", "second"):
            _ip("-n", switch, "link", "add", bridge, "type", "bridge")
            _ip("-n", switch, "link", "set", bridge, "up")
        for host in range(1, count + 1):
            inside = f"{found.name}h{host}"
            _ip("-n", switch, "link", "add", f"p{host}", "type", "veth", "peer", "name", "eth0", "netns", inside)
            _ip("-n", switch, "link", "set", f"p{host}", "master", "first", "up")
            _ip("-n", inside, "address", "add", f"{found.address(host)}/24", "dev", "eth0")
            _ip("-n", inside, "link", "set", "eth0", "up")
            _ip("-n", inside, "link", "set", "lo", "up")
        yield found
    finally:
        for namespace in made:
            subprocess.run(["ip", "netns", "delete", namespace], capture_output=True, check=False)
