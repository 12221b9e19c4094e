"""A member publishes a folder, shares it with another one, who reads it back; a third one cannot.

python examples/put_and_get.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from common import Nodes, ask

from node.home import make_testnet
from protocols.errors import LadingError

FOLDER = Path(__file__).resolve().parent / "data" / "trade"


def main(directory: Path) -> None:
    testnet = make_testnet(3, directory / "homes", names=("merchant", "customs", "stranger"))
    merchant, customs, stranger = (Path(str(row["home"])) for row in testnet["nodes"])  # type: ignore[attr-defined]  # a list of rows

    with Nodes() as nodes:
        nodes.start(merchant, customs, stranger)
        nodes.wait_connected(merchant, customs, stranger)

        # `lading put FOLDER`: sealed on this computer; it returns when others have signed that they hold every sequence.
        record = ask(merchant, "put", paths=[str(FOLDER)], ack="full")
        print(f"record {record['record'][:16]}… of {record['entries']} entries on {len(record['holders'])} nodes,", end=" ")
        print(f"survives the loss of any {record['survives']} of them")

        # All three hold sealed bytes. Only who was given the record's key can open them: `lading share RECORD --to MEMBER`.
        ask(merchant, "share", record=record["record"], to=ask(customs, "status")["member"])
        copy = directory / "copy"
        read = ask(customs, "get", record=record["record"], output=str(copy))
        print(f"customs read {read['bytes']} bytes from {', '.join(map(str, read['sources'])) or 'its own disk'}")

        for original in FOLDER.rglob("*"):
            if original.is_file():
                assert (copy / original.relative_to(FOLDER)).read_bytes() == original.read_bytes(), original
        print("every byte is the same")

        try:
            ask(stranger, "get", record=record["record"], output=str(directory / "stolen"))
        except LadingError as error:
            print(f"the stranger holds a copy and cannot open it: {error.reason.stable_name}")
        else:
            raise SystemExit("the stranger could read it")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="lading-") as folder:
        main(Path(folder))
