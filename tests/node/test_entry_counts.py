"""`ls` says how many entries a record has, where that can be known without fetching anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import trio

from node.actors.puts import PutOptions
from node.api import NodeApi
from node.cli.show import show_ls
from node.cli.text import Style
from node.wiring import Node
from protocols.codec import encode
from storage.engine import Env, Put
from storage.memory import MemoryEngine
from storage.tables import ENTRY_COUNTS

from .hostile.scene import play, scene


async def ls(node: Node) -> list[dict[str, Any]]:
    answer = await NodeApi(node).call("ls", {"all": True}, body=None, progress=lambda facts: None, output=None)
    records = answer.data["records"]
    assert isinstance(records, list)
    return records


def test_entries_are_listed_by_the_owner_and_by_whoever_has_opened_the_record(tmp_path: Path) -> None:
    """Goal: the column holds what is known. Method: a folder of three files; the owner at once and after a restart; another node
    before and after it got the record; gone with the record."""
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in "abc":
        (folder / name).write_bytes(name.encode())

    async def story() -> None:
        async with scene() as stage:
            keys = stage.own("owner")
            owner, reader = await stage.start("owner", own=keys), await stage.start("reader")
            with trio.fail_after(60):
                while reader.own.member_id not in owner.knowledge.members():  # noqa: ASYNC110  # virtual time
                    await trio.sleep(0.5)
            data, _ = await owner.files.put([folder], PutOptions(replicas=2, ack="quorum"))
            assert [row["entries"] for row in await ls(owner)] == [data["entries"]] == [3]
            assert any(" 3 " in line for line in show_ls({"records": await ls(owner)}, Style()))
            record = str(data["record"])
            await owner.files.share(record, reader.own.member_id)
            with trio.fail_after(60):
                while not any(facts.objects and facts.wraps for facts in reader.knowledge.records.values()):  # noqa: ASYNC110  # virtual time
                    await trio.sleep(0.5)
            assert [row["entries"] for row in await ls(reader)] == [None]
            await reader.files.get(record, output=tmp_path / "got", directory=None, entry=None, keep=False, inline=None)
            assert [row["entries"] for row in await ls(reader)] == [3]
            owner.stop()
            await trio.sleep(5)
            ledger, chunks = owner.world.ledger, owner.world.chunks
            assert isinstance(ledger, MemoryEngine)
            assert isinstance(chunks, MemoryEngine)
            ledger.write([Put(ENTRY_COUNTS, bytes(32), encode(7))])  # of a record that has been forgotten
            stage.nodes.remove(owner)
            owner = await stage.start("owner", own=keys, disk={Env.LEDGER: ledger, Env.CHUNKS: chunks})
            assert [row["entries"] for row in await ls(owner)] == [3]
            await owner.files.remove(record, "delete", dry_run=False)
            assert [row["entries"] for row in await ls(owner)] == [None]
            with ledger.snapshot() as snapshot:
                assert bytes(32) not in dict(snapshot.scan(ENTRY_COUNTS))

    play(story)
