"""Two of four computers are lost without warning, perhaps the owner's among them; the record is read back, and copied anew.

python examples/survive_a_loss.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

from common import Nodes, ask, wait_until

from node.home import make_testnet

CONTENT = b"".join(number.to_bytes(8, "big") for number in range(250_000))  # 2 MB


def main(directory: Path) -> None:
    names = ("owner", "reader", "helper", "spare")
    testnet = make_testnet(4, directory / "homes", names=names, folders=names)
    homes = [Path(str(row["home"])) for row in testnet["nodes"]]  # type: ignore[attr-defined]  # a list of rows
    owner, reader = homes[:2]
    source = directory / "source.bin"
    source.write_bytes(CONTENT)

    # A node that is silent for ten minutes counts as gone; nobody wants to wait so long for an example.
    with Nodes(repair_grace_s=2) as nodes:
        nodes.start(*homes)
        nodes.wait_connected(*homes)
        peer_ids = {str(ask(home, "status")["peer_id"]): home for home in homes}

        record = ask(owner, "put", paths=[str(source)], replicas=3, ack="full")
        ask(owner, "share", record=record["record"], to=ask(reader, "status")["member"])
        holders = {peer_ids[str(holder["node"])]: holder["sequences"] for holder in record["holders"]}
        print(f"held by {', '.join(home.name for home in holders)}: survives the loss of any {record['survives']}")

        # As many as the record was said to survive, and the worst choice: two that hold all of it.
        lost = sorted((home for home in holders if home != reader), key=lambda home: -holders[home])[:2]
        nodes.kill(*lost)
        print(f"lost: {', '.join(home.name for home in lost)}")

        ask(reader, "get", record=record["record"], output=str(directory / "copy.bin"))
        assert (directory / "copy.bin").read_bytes() == CONTENT
        print("the reader has every byte")

        # Nobody is told to: whoever is left and first in order makes the copies that are missing.
        began = time.monotonic()
        wait_until(lambda: ask(reader, "file.status", record=record["record"])["copies_reachable"] >= 2, "the copies to be made anew")
        print(f"two copies again after {time.monotonic() - began:.1f} s")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="lading-") as folder:
        main(Path(folder))
