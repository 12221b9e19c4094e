"""No server, no account, no cloud: one computer founds a domain, another one joins it with a one-time ticket.

    python examples/adhoc_lan.py

The two homes stand for two computers in one room. Here they listen on loopback only and do not call into the room (mdns); two real ones
leave both settings alone, and give a passphrase.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from common import Nodes, ask

from node.home import init_home

LOOPBACK = ("/ip4/127.0.0.1/tcp/0",)


def main(directory: Path) -> None:
    office, visitor = directory / "office", directory / "visitor"

    # `lading init --domain harbour`: new keys and certificates. The recovery kit is shown once and belongs on paper.
    founded = init_home(office, domain="harbour", name="office", country="DE", listen=LOOPBACK, passphrase=None)
    print(f"founded domain {founded['domain']}, the recovery kit has {len(str(founded['recovery_kit']).splitlines())} lines")

    with Nodes(mdns="false") as nodes:
        nodes.start(office)

        # `lading invite` on one computer, `lading join TICKET` on the other. The ticket works once and for a day.
        ticket = str(ask(office, "invite", expires_s=3600)["ticket"])
        print(f"ticket {ticket[:24]}…")
        join = ["join", "-", "--name", "visitor", "--listen", *LOOPBACK, "--no-passphrase"]
        command = [sys.executable, "-m", "node", "--home", str(visitor), "--quiet", *join]
        subprocess.run(command, input=ticket.encode(), check=True, stdout=subprocess.DEVNULL)

        nodes.start(visitor)
        nodes.wait_connected(office, visitor)
        names = sorted(str(member["name"]) for member in ask(office, "member.list")["members"])
        print(f"members of the domain: {', '.join(names)}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="lading-") as folder:
        main(Path(folder))
