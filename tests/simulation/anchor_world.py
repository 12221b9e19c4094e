"""A world of whole nodes whose records go onto a chain: everybody has an account, the last two machines belong to one member.

What is checked at the end of a story: every record that was published is final on every node, by one anchor; states are equal.
"""

from __future__ import annotations

import os
import random
from collections import Counter
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import cast

import trio

from node import home
from node.actors.anchoring import Anchoring
from node.actors.chain import ChainActor, ChainKeys, ChainSetup
from node.actors.puts import PutOptions
from node.entropy import SeededEntropy
from node.promises import fresh
from node.wiring import Node
from protocols.codec import decode, replace
from protocols.crypto import sha256
from protocols.errors import LadingError
from protocols.files.objects import Statement
from protocols.ledger.filing import Intent
from protocols.ledger.transactions import record_anchor, storage_receipt
from protocols.ledger.transactions.records import RecordState
from protocols.types import AccountId, HashId, RecordKey
from storage import chain as store
from storage.engine import Env
from tests.protocols.ledger import chains

from .chain_world import SimulatedPromises
from .checkers import Violation
from .scheduler import chance
from .trace import Trace
from .world import EPOCH, START_S_MAX, Machine, Options, World

FINAL_S_MAX = 600.0
Story = Callable[["AnchorWorld"], Awaitable[None]]


class AnchorWorld(World):
    """All machines follow one chain, which knows their members' accounts."""

    story: Story

    def __init__(self, seed: int, trace: Trace, folder: Path, options: Options) -> None:
        super().__init__(seed, trace, folder, options)
        self.mind = chance(seed, "anchors")
        own = self.machines[0].own
        profile = replace(chains.profile_of(), network=own.network_id, domain=own.domain_id)
        body = chains.genesis_body(profile=profile)
        certificates = [
            chains.certificate(machine.name, subject=AccountId(machine.own.member_id), key=machine.own.owner)
            for machine in self.machines[:-1]
        ]
        self.template = chains.start(replace(body, certificates=(*body.certificates, *certificates)))
        for machine, name in zip(self.machines, self.template.members, strict=True):
            keys = ChainKeys(
                chains.account_of(name), chains.key_of(name, "seal"), chains.key_of(name, "vote"), sha256(b"reveal", name.encode())
            )
            promises = SimulatedPromises(fresh(self.template.chain))
            machine.chain = ChainSetup(self.template.chain, self.template.blocks[0], keys, promises)
        self.published: dict[RecordKey, str] = {}
        """Records that a node said exist, and by which machine."""
        self.files = 0

    def _member(self, number: int, founding: home.Founding, keys: SeededEntropy) -> home.MemberKey:
        """The last machine is the member's before it."""
        if number < self.options.machines - 1:
            self._last = super()._member(number, founding, keys)
        return self._last

    # --- what people do -----------------------------------------------------------------------------------------------

    def file(self, content: bytes = b"") -> Path:
        """A file that nobody has put yet, or the one of this content."""
        self.files += 1
        content = content or f"file {self.files} ".encode() * 50
        path = self.folder / sha256(content).hex()
        path.write_bytes(content)
        os.utime(path, (EPOCH, EPOCH))  # it stands in the manifest, and the same seed is the same world
        return path

    async def put(
        self, machine: Machine, content: bytes = b"", *, ack: str = "local", intent: Intent | None = None, valid_until_s: int = 0
    ) -> dict[str, object] | None:
        """A record; None when the node could not be asked, or ended meanwhile."""
        path = self.file(content)

        async def run(node: Node) -> dict[str, object]:
            data, _ = await node.files.put([path], PutOptions(ack=ack, intent=intent, valid_until_s=valid_until_s))
            return data

        try:
            data = await machine.call(run, timeout_s=60.0)
        except LadingError as error:
            self.trace.note("not put", at=machine.name, error=error.reason)
            return None
        if data is not None:
            self.published[machine.own.owner, HashId(bytes.fromhex(str(data["record"])))] = machine.name
            self.trace.note("put", at=machine.name, record=data["record"])
        return data

    def key_of(self, machine: Machine, data: dict[str, object] | None) -> RecordKey:
        assert data is not None
        return machine.own.owner, HashId(bytes.fromhex(str(data["record"])))

    # --- what is seen -------------------------------------------------------------------------------------------------

    def nodes(self) -> list[Node]:
        return [machine.node for machine in self.machines if machine.node is not None and machine.node.ready.is_set()]

    def chains(self) -> list[ChainActor]:
        return [cast(ChainActor, node.chain) for node in self.nodes()]

    def anchorings(self) -> list[Anchoring]:
        return [cast(Anchoring, node.anchoring) for node in self.nodes()]

    def not_final(self) -> str:
        """What is published and not final somewhere; empty when all is final on all machines."""
        if len(self.nodes()) < len(self.machines):
            return "not everybody is up"
        for anchoring, node in zip(self.anchorings(), self.nodes(), strict=True):
            for key, by in self.published.items():
                state = anchoring.standing(key)["state"]
                if state != "final":
                    return f"record {key[1].hex()[:8]} of {by} is {state} on {node.own.identity.host}: {self._why(key)}"
        return ""

    def _why(self, key: RecordKey) -> str:
        return "; ".join(str(one._troubles.get(key[1])) for one in self.anchorings())

    async def until_final(self) -> None:
        """Everything published is final everywhere, once; then the states are equal."""
        await self._wait(self.not_final, FINAL_S_MAX, "not final")
        await self._wait(self._unequal, FINAL_S_MAX, "states")
        anchors = self.anchors()
        for key in self.published:
            if anchors[key] != 1:
                raise Violation(f"{anchors[key]} anchors of record {key[1].hex()[:8]}")

    def _unequal(self) -> str:
        roots = set()
        for machine in self.machines:
            with machine.disk(Env.LEDGER).snapshot() as snapshot:
                roots.add((store.state_at(snapshot), store.ChainState(snapshot).root))
        waiting = [len(one.pool) for one in self.chains()]
        return "" if len(roots) == 1 else f"{len(roots)} states; waiting {waiting}"

    def blocks(self) -> list[store.Block]:
        """The first machine's branch."""
        with self.machines[0].disk(Env.LEDGER).snapshot() as snapshot:
            at = store.state_at(snapshot)
            found = []
            while at is not None and (body := store.block(snapshot, at)) is not None:
                found.append(body)
                row = store.row(snapshot, at)
                at = row.parent if row is not None and row.height else None
        return found[::-1]

    def anchors(self) -> Counter[RecordKey]:
        """How many anchors of each record the branch carries."""
        found: Counter[RecordKey] = Counter()
        for block in self.blocks():
            for transaction in block.transactions:
                if transaction.content.kind == record_anchor.KIND.number:
                    body = decode(transaction.content.body, record_anchor.Body)
                    statement = decode(body.statement.body, Statement)
                    found[statement.owner, statement.hash_id] += 1
        return found

    def receipts_recorded(self) -> list[int]:
        """Receipts of each StorageReceipt on the branch."""
        return [
            len(decode(one.content.body, storage_receipt.Body).receipts)
            for block in self.blocks()
            for one in block.transactions
            if one.content.kind == storage_receipt.KIND.number
        ]

    def record(self, key: RecordKey) -> RecordState | None:
        """A record as the first machine's state has it."""
        with self.machines[0].disk(Env.LEDGER).snapshot() as snapshot:
            data = store.ChainState(snapshot).get("record", key[0] + key[1])
        return None if data is None else decode(data, RecordState)

    # --- the story ----------------------------------------------------------------------------------------------------

    async def _tell(self) -> None:
        for machine in self.machines:
            await machine.wait_up()
        await self._wait(self._unconnected, START_S_MAX, "the machines do not find each other")
        await trio.sleep(15)
        await type(self).story(self)

    async def everybody_up(self) -> None:
        """Faults cease."""
        self.network.heal_all()
        for machine in self.machines:
            machine.switch_on()
        for machine in self.machines:
            await machine.wait_up()

    async def disturb(self, seconds: float, rng: random.Random) -> None:
        """People put while nodes are killed and links are cut."""
        end = trio.current_time() + seconds
        while trio.current_time() < end:
            await trio.sleep(rng.uniform(0.2, 4.0))
            machine = rng.choice(self.machines)
            match rng.randrange(6):
                case 0:
                    if machine.node is not None:
                        machine.kill()
                        await machine.wait_down()
                case 1:
                    machine.switch_on()
                case 2:
                    machines = rng.sample(self.machines, len(self.machines))
                    cut = rng.randrange(1, len(machines))
                    self.network.partition([one.peer for one in machines[:cut]], [one.peer for one in machines[cut:]])
                case 3:
                    self.network.heal_all()
                case _:
                    if machine.is_up:
                        same = b"the same everywhere " * rng.randrange(1, 4) if rng.random() < 0.3 else b""
                        await self.put(machine, same)
        await self.everybody_up()


assert EPOCH * 1000 == chains.START_MS
