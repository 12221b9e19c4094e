"""What people do in a simulated world: each owner puts, shares, deletes, puts again and pins; everybody reads. One thing at a time each,
but for puts of the same at once."""

from __future__ import annotations

import os
import random
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import trio

from node.actors.puts import PutOptions
from protocols.errors import LadingError, Reason
from protocols.files.keys import RecordClass
from protocols.types import HashId, RecordKey, SequenceRoot

from .scheduler import chance

if TYPE_CHECKING:
    from node.wiring import Node

    from .world import Machine, World

KIB = 1024
PATIENCE_S = 60.0
READ_PATIENCE_S = 120.0
RECORDS_PER_OWNER_MAX = 4
IMPATIENT_SHARE = 0.25
MODIFIED_S = 1_700_000_000  # of every source file: it stands in manifests
ACK_LEVELS = ("local", "quorum", "quorum", "quorum", "full")
Files = dict[str, bytes]


@dataclass(eq=False)
class Published:
    """One record as its owner and the world remember it.

    is_acknowledged: a put was answered, and nothing was done since that could take it back. is_deleted: likewise for a delete.
    Neither: an operation was cut short, and both are possible. publications: puts that were begun. roots: of
    the sequences of the statement that was acknowledged.
    """

    number: int
    owner: Machine
    key: RecordKey
    files: Files
    source: Path
    options: PutOptions
    sequences: int = 0
    roots: tuple[SequenceRoot, ...] = ()
    is_acknowledged: bool = False
    is_deleted: bool = False
    publications: int = 1
    readers: list[Machine] = field(default_factory=list)

    @property
    def name(self) -> str:
        """For people: whose and which."""
        return f"{self.key[1].hex()[:8]} of {self.owner.name}"

    @property
    def text(self) -> str:
        """What people type."""
        return self.key[1].hex()


class Workload:
    """See the module."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.records: dict[RecordKey, Published] = {}
        self.done: Counter[str] = Counter()
        self._sources = 0
        self._reads = 0
        self._unnamed: dict[int, tuple[Files, Path, PutOptions]] = {}

    def start(self, nursery: trio.Nursery) -> None:
        """Everybody who does not lie begins."""
        for machine in self.world.machines:
            if not machine.lies:
                nursery.start_soon(self._live, machine, chance(self.world.seed, f"workload {machine.number}"))

    async def _live(self, machine: Machine, mind: random.Random) -> None:
        while True:
            await trio.sleep(mind.expovariate(1 / 3.0))
            node = await machine.wait_up()
            mine = [record for record in self.records.values() if record.owner is machine]
            choice = mind.random()
            if choice < 0.4 and len(mine) < RECORDS_PER_OWNER_MAX:
                await self._put_new(machine, mind)
            elif choice < 0.55 and mine:
                await self._share(machine, mind.choice(mine), mind)
            elif choice < 0.75:
                await self._get(machine, mind)
            elif choice < 0.85 and mine:
                await self._delete(machine, mind.choice(mine), mind)
            elif choice < 0.93 and mine:
                await self._put_again(machine, mind.choice(mine))
            elif self.records and node.own.issuer is not None:
                await self._pin(machine, mind)

    # --- what they do -----------------------------------------------------------------------------------------------

    def _sizes(self, mind: random.Random) -> list[int]:
        match mind.randrange(8):
            case 0:
                return [0]
            case 1 | 2:
                return [mind.randrange(1, 8 * KIB)]
            case 3:
                return [70 * KIB]
            case 4:
                return [mind.randrange(1, 4 * KIB) for _ in range(mind.randrange(2, 6))]
            case 5:
                return [200 * KIB, mind.randrange(150 * KIB), mind.randrange(200 * KIB)]
            case 6:
                return [mind.randrange(300 * KIB, 800 * KIB)]
            case _:
                return [256 * KIB * mind.randrange(1, 4)]

    def _plain(self, mind: random.Random, size: int) -> bytes:
        """Bytes with the marker at the beginning of each KiB."""
        marker = self.world.checkers.marker
        pieces = [marker + mind.randbytes(max(0, min(KIB, size - at) - len(marker))) for at in range(0, size, KIB)]
        return b"".join(pieces)[:size]

    def _write_source(self, mind: random.Random) -> tuple[Files, Path]:
        self._sources += 1
        marker = self.world.checkers.marker.decode()
        source = self.world.folder / f"source-{self._sources}"
        source.mkdir()
        files: Files = {}
        for index, size in enumerate(self._sizes(mind)):
            name = f"{marker}-{self._sources}-{index}.bin"
            files[name] = self._plain(mind, size)
            path = source / name
            path.write_bytes(files[name])
            path.chmod(0o600)
            os.utime(path, (MODIFIED_S, MODIFIED_S))
        return files, source

    async def _put_new(self, machine: Machine, mind: random.Random) -> None:
        files, source = self._write_source(mind)
        record_class = RecordClass.CONFIDENTIAL if mind.random() < 0.2 else RecordClass.DEDUP
        options = PutOptions(ack=mind.choice(ACK_LEVELS), record_class=record_class)
        # Some are impatient, and put the same once more while the first is under way.
        impatience = chance(self.world.seed, f"impatience {self._sources}")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._put, machine, files, source, options)
            if impatience.random() < IMPATIENT_SHARE:
                await trio.sleep(impatience.choice((0.0, 0.01, 0.1)))
                self.done["put twice at once"] += 1
                await self._put(machine, files, source, options)

    async def _put_again(self, machine: Machine, record: Published) -> None:
        """The same content once more: a new life for what was deleted, nothing at all for what was not. Confidential content has
        a name of its own each time."""
        if record.options.record_class is RecordClass.DEDUP:
            await self._put(machine, record.files, record.source, record.options, known=record)

    async def _put(self, machine: Machine, files: Files, source: Path, options: PutOptions, *, known: Published | None = None) -> None:
        if known is not None:
            known.publications += 1
            known.is_deleted = False
        before = set(machine.node.knowledge.records) if machine.node is not None else set()
        note = self.world.trace.note
        try:
            answer = await machine.call(lambda node: node.files.put([source], options), timeout_s=PATIENCE_S)
        except LadingError as error:
            self.done[f"put {error.reason.stable_name}"] += 1
            note("put failed", at=machine.name, reason=error.reason)
            if error.reason is Reason.QUORUM_WRITE and known is None:
                self._remember(machine, str(error.details["record"]), files, source, options)
            return
        if answer is None:
            self.done["put cut short"] += 1
            note("put cut short", at=machine.name)
            self._remember_half_done(machine, before, files, source, options)
            return
        data, _ = answer
        record = known or self._remember(machine, str(data["record"]), files, source, options)
        record.sequences = int(str(data["sequences"]))
        record.is_acknowledged = True
        self.done[f"put {options.ack}"] += 1
        note("put", at=machine.name, record=record.text, survives=data["survives"], ack=options.ack)
        self.world.checkers.acknowledged(record, self._promised(options, record))

    def _promised(self, options: PutOptions, record: Published) -> int:
        """Copies on honest disks that an answer to this put stands for, at the very least."""
        world = self.world
        copies = len(world.machines) if world.options.copies_all and len(world.machines) <= 5 else min(3, len(world.machines))
        match options.ack:
            case "local":
                promised = 1
            case "quorum":
                promised = min(2, copies - 1)  # of others: the owner's own copy may be surplus, or pinned out
            case _:
                node = record.owner.node
                assert node is not None
                promised = copies - len(node.knowledge.records[record.key].pinned("out"))  # the profile's number bows to pins
        lost = any(machine.lies for machine in world.machines) + sum(bool(machine.rotten) for machine in world.machines)
        # While machines have not met, or are full, fewer are known as holders: what the node knew is not known here.
        return max(1, promised - lost - world.disturbance.full_ever) if world.options.wait_connected else 1

    def _remember(self, machine: Machine, text: str, files: Files, source: Path, options: PutOptions) -> Published:
        key: RecordKey = (machine.own.owner, HashId(bytes.fromhex(text)))
        record = self.records.get(key)
        if record is None:
            record = self.records[key] = Published(len(self.records), machine, key, files, source, options)
        return record

    def _remember_half_done(self, machine: Machine, before: set[RecordKey], files: Files, source: Path, options: PutOptions) -> None:
        """A put that was cut short may have published already; if we can see it, it is remembered as unsure."""
        if machine.node is not None:
            for key in sorted(set(machine.node.knowledge.records) - before):
                if key[0] == machine.own.owner and key not in self.records:
                    self._remember(machine, key[1].hex(), files, source, options)

    async def _share(self, machine: Machine, record: Published, mind: random.Random) -> None:
        others = [other for other in self.world.machines if other is not machine]
        reader = mind.choice(others)
        try:
            answer = await machine.call(lambda node: node.files.share(record.text, reader.own.member_id), timeout_s=PATIENCE_S)
        except LadingError as error:
            self.done[f"share {error.reason.stable_name}"] += 1
            return
        if answer is not None:
            self.done["share"] += 1
            self.world.trace.note("share", at=machine.name, record=record.text, to=reader.name)
            if reader not in record.readers:
                record.readers.append(reader)

    async def _delete(self, machine: Machine, record: Published, mind: random.Random) -> None:
        act = "erase" if mind.random() < 0.3 else "delete"
        record.is_acknowledged = False
        try:
            answer = await machine.call(lambda node: node.files.remove(record.text, act, dry_run=False), timeout_s=PATIENCE_S)
        except LadingError as error:
            self.done[f"{act} {error.reason.stable_name}"] += 1
            self.world.trace.note("delete failed", at=machine.name, record=record.text, reason=error.reason)
            return
        if answer is not None:
            record.is_deleted = True
            self.done[act] += 1
            self.world.trace.note("delete", at=machine.name, record=record.text, act=act)

    async def _pin(self, machine: Machine, mind: random.Random) -> None:
        record = mind.choice(list(self.records.values()))
        target = mind.choice(self.world.machines)
        # Pinned out of one machine only, so that a record never has nowhere to go.
        wish = "in" if target.number != 1 or mind.random() < 0.5 else "out"
        try:
            answer = await machine.call(lambda node: node.files.pin(record.text, target.peer, wish, dry_run=False), timeout_s=PATIENCE_S)
        except LadingError as error:
            self.done[f"pin {error.reason.stable_name}"] += 1
            return
        if answer is not None:
            self.done[f"pin {wish}"] += 1
            self.world.trace.note("pin", record=record.text, on=target.name, wish=wish)

    async def _get(self, machine: Machine, mind: random.Random) -> None:
        mine = [record for record in self.records.values() if machine is record.owner or machine in record.readers]
        if not mine:
            return
        record = mind.choice(mine)
        try:
            data = await self._read(machine, record, PATIENCE_S)
        except LadingError as error:
            self.done[f"get {error.reason.stable_name}"] += 1
            self.world.trace.note("get failed", at=machine.name, record=record.text, reason=error.reason)
            return
        self.done["get" if data else "get cut short"] += 1
        self.world.trace.note("get", at=machine.name, record=record.text, done=data)

    async def _read(self, machine: Machine, record: Published, patience_s: float) -> bool:
        """Gets a record into a folder and compares. False: cut short. Raises LadingError."""
        self._reads += 1
        target = self.world.folder / f"read-{self._reads}"
        single = len(record.files) == 1

        async def run(node: Node) -> dict[str, object]:
            return await node.files.get(record.text, output=target, directory=None, entry=None, keep=False, inline=None)

        answer = await machine.call(run, timeout_s=patience_s)
        if answer is None:
            return False
        found = {next(iter(record.files)): target.read_bytes()} if single else {path.name: path.read_bytes() for path in target.iterdir()}
        if found != record.files:
            self.world.checkers.violate(f"{machine.name}: record {record.name} was read and is not what was put")
        return True

    # --- at the end -------------------------------------------------------------------------------------------------

    async def read_everything(self) -> None:
        """Every acknowledged record can be read by its owner and by all it was shared with; no deleted one by anybody."""
        for record in list(self.records.values()):
            for machine in (record.owner, *record.readers):
                if machine.is_up and not machine.lies:
                    await self._read_at_the_end(machine, record)

    async def _read_at_the_end(self, machine: Machine, record: Published) -> None:
        violate = self.world.checkers.violate
        try:
            is_read = await self._read(machine, record, READ_PATIENCE_S)
        except LadingError as error:
            self.world.trace.note("end: not read", at=machine.name, record=record.text, reason=error.reason)
            if record.is_acknowledged:
                violate(f"{machine.name}: acknowledged record {record.name} cannot be read at the end: {error}")
            elif record.is_deleted and error.reason is not Reason.DELETED:
                violate(f"{machine.name}: deleted record {record.name} answers {error}")
            return
        self.world.trace.note("end: read", at=machine.name, record=record.text, done=is_read)
        if not is_read:
            violate(f"{machine.name}: record {record.name} is not read within {READ_PATIENCE_S:g} s at the end")
        if record.is_deleted:
            violate(f"{machine.name}: deleted record {record.name} is still read")
