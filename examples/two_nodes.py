"""Two nodes of two members find each other and prove who they are.

python examples/two_nodes.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import Nodes, ask, connected

from node.home import make_testnet


def main(directory: Path) -> None:
    # The same as `lading testnet 2 DIR`: keys, certificates and settings of one domain with two members, each with one node.
    testnet = make_testnet(2, directory, names=("alice", "bob"))
    alice, bob = (Path(str(row["home"])) for row in testnet["nodes"])  # type: ignore[attr-defined]  # a list of rows

    with Nodes() as nodes:
        nodes.start(alice, bob)  # `lading --home … start`, twice
        nodes.wait_connected(alice, bob)

        # Connected means: through the fence of their network, over an encrypted connection, with certificates checked on both sides.
        for home in (alice, bob):
            status = ask(home, "status")
            (peer,) = connected(home)
            print(f"{status['node']} of member {status['member'][:12]} is connected to {peer['node']} of member {peer['member'][:12]}")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="lading-") as folder:
        main(Path(folder))
