"""A world of two domains in one network: even machines are of the domain that founded it, odd ones of the other.

Each domain works as in any world; both rotate the fence. Checkers look that nothing but facts of the network crosses between the domains,
that nothing of the other is on a disk, that all agree about the network and each domain about itself, and that then there is silence.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import trio

from node import home
from node.entropy import SeededEntropy
from node.services import Standing, may_share
from protocols.codec import decode, encode
from protocols.crypto import SigningKey
from protocols.errors import StoreFull
from protocols.files.holdings import open_receipt
from protocols.files.objects import Statement
from protocols.gossip import messages as g
from protocols.gossip.facts import FactKind
from protocols.identity.certificates import fingerprint
from protocols.identity.domains import sign_domain
from protocols.registry import decode_message
from protocols.signed import Signed
from protocols.types import PeerId, RecordKey, UnixSeconds
from storage.engine import Env, Put, Write
from storage.tables import FACTS

from .checkers import GOSSIP, Checkers
from .scheduler import chance
from .trace import Trace
from .workload import Published, Workload
from .world import EPOCH, FOUNDER, Machine, Options, World

ROTATE_PAUSE_S = 15.0
# Three reconciliations, each of which would show what the domains do not have alike.
QUIET_S = 95.0
AUTH = "/lading/auth/1"


class DomainCheckers(Checkers):
    """Those of every world, for each domain, and what must hold between two."""

    world: TwoDomains
    buckets_crossed = 0
    """Buckets compared between the domains: each is a difference that a reconciliation found."""
    facts_crossed = 0

    def committed(self, machine: Machine, env: Env, batch: Sequence[Write]) -> None:
        super().committed(machine, env, batch)
        for write in batch:
            if isinstance(write, Put) and write.table is FACTS:
                domain = self._domain_of(write.value[0], bytes(write.value[1:]), machine)
                if domain != machine.own.domain_id:
                    self.violate(f"{machine.name}: a fact of kind {write.value[0]} of the other domain is on its disk")

    def _domain_of(self, kind: int, body: bytes, machine: Machine) -> bytes:
        """Whose a statement or receipt is; the machine's own domain for everything else."""
        if kind == FactKind.STATEMENT:
            return decode(decode(body, Signed).body, Statement).domain
        if kind == FactKind.RECEIPT:
            return self.world.by_peer[open_receipt(decode(body, Signed), machine.own.network_id).holder].own.domain_id
        return machine.own.domain_id

    def sent(self, source: PeerId, target: PeerId, protocol: str, frame: bytes) -> None:
        super().sent(source, target, protocol, frame)
        a, b = self.world.by_peer[source], self.world.by_peer[target]
        if a.own.domain_id == b.own.domain_id:
            return
        if protocol not in (AUTH, GOSSIP):
            self.violate(f"{a.name} speaks {protocol} to {b.name} of the other domain")
        if protocol != GOSSIP:
            return
        match decode_message("gossip", frame):
            case g.BucketIds():
                self.buckets_crossed += 1
            case g.Seen(entries) if entries:
                self.violate(f"{a.name} tells {b.name} of the other domain who is alive")
            case g.Bodies(items):
                self.facts_crossed += len(items)
                for kind, _ in items:
                    if not may_share(kind, Standing.NETWORK):
                        self.violate(f"{a.name} tells {b.name} of the other domain a fact of kind {kind}")

    def disagreement(self) -> str:
        for part in self.world.parts:
            with self._only(part.machines):
                if found := super().disagreement():
                    return found
        nodes = [machine.node for machine in self.world.machines]
        if len({node.knowledge.shared.digest() for node in nodes if node is not None}) > 1:
            counts = [node.knowledge.shared.count for node in nodes if node is not None]
            return f"the domains know different facts of the network: {counts}"
        return self.world.unconnected()

    @contextmanager
    def _only(self, machines: list[Machine]) -> Iterator[None]:
        everybody, self.world.machines = self.world.machines, machines
        try:
            yield
        finally:
            self.world.machines = everybody


@dataclass
class Part:
    """What the work of one domain sees of the world: its machines, a folder of its own, and all the rest."""

    world: TwoDomains
    machines: list[Machine]
    folder: Path

    def __getattr__(self, name: str) -> Any:
        return getattr(self.world, name)


class BothWork:
    """The work of all parts, for those who look at the whole world."""

    def __init__(self, works: Sequence[Workload]) -> None:
        self._works = works

    @property
    def records(self) -> dict[RecordKey, Published]:
        return {key: record for work in self._works for key, record in work.records.items()}

    @property
    def done(self) -> Counter[str]:
        return sum((work.done for work in self._works), Counter[str]())

    def start(self, nursery: trio.Nursery) -> None:
        for work in self._works:
            work.start(nursery)

    async def read_everything(self) -> None:
        for work in self._works:
            await work.read_everything()


class TwoDomains(World):
    """See the module."""

    def __init__(self, seed: int, trace: Trace, folder: Path, options: Options) -> None:
        super().__init__(seed, trace, folder, dataclasses.replace(options, liar=False))
        self.checkers: DomainCheckers = DomainCheckers(self, self.checkers.marker)
        self.parts: list[Part] = []
        for number in range(2):
            part = Part(self, self.machines[number::2], folder / f"part{number}")
            part.folder.mkdir()
            self.parts.append(part)
        self.workload = BothWork([Workload(part) for part in self.parts])  # type: ignore[arg-type, assignment]  # all they ask of it
        self._fences = chance(seed, "fences")
        self.rotations = 0

    def _found(self, entropy: SeededEntropy, uniform: Callable[[float, float], float]) -> None:
        """Two domains; the second is known to its own nodes and to nobody else."""
        now = int(EPOCH)
        first = home.found_domain("first", entropy.fork("domain"), now)
        second = dataclasses.replace(home.found_domain("second", entropy.fork("second"), now), network=first.network)
        founder = {fingerprint(first.root): first.root}
        self.word = sign_domain(
            SigningKey(first.issuer.seed),
            first.issuer.chain,
            first.network.id,  # type: ignore[arg-type]  # bytes of a network id
            founder=fingerprint(first.root),
            time=UnixSeconds(now),
            root=second.root,
        )
        roots = (founder, founder | {fingerprint(second.root): second.root})
        for number in range(self.options.machines):
            self._settle(number, (first, second)[number % 2], roots[number % 2], entropy, uniform, issues=number < 2)

    async def _tell(self) -> None:
        founder = await self.machines[FOUNDER].wait_up()
        await founder.facts.submit_own((FactKind.DOMAIN, encode(self.word)))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._rotate)
            await super()._tell()
            nursery.cancel_scope.cancel()
        before = self.checkers.buckets_crossed
        assert self.checkers.facts_crossed > 0
        await trio.sleep(QUIET_S)
        if self.checkers.buckets_crossed > before:
            self.checkers.violate(f"the domains agree, and compared {self.checkers.buckets_crossed - before} buckets since")
            await trio.sleep_forever()

    async def _rotate(self) -> None:
        """Both domains' issuers make fences, also while they do not hear each other; not in the end, so that there is one."""
        with trio.move_on_after(self.options.story_s):
            while True:
                await trio.sleep(self._fences.expovariate(1 / ROTATE_PAUSE_S))
                machine = self._fences.choice(self.machines[:2])
                try:
                    await machine.call(lambda node: node.membership.rotate_fence(), timeout_s=10.0)
                except StoreFull:  # said to whoever asked for it; the fence in force stays
                    continue
                self.rotations += 1

    def unconnected(self) -> str:
        """Who does not see everybody of both domains."""
        return self._unconnected()

    def summary(self) -> str:
        return f"{super().summary()}; {self.rotations} fences, {self.checkers.facts_crossed} facts crossed"
