"""A holder in a dictionary: slow, lying, silent or refusing on command."""

from __future__ import annotations

from collections import defaultdict

import trio

from node.actors.exchange import Chunks
from protocols.crypto import sha256
from protocols.errors import LadingError
from protocols.exchange import messages as m
from protocols.merkle import merkle_root
from protocols.signed import Signed
from protocols.types import PeerId

ANSWER = Signed(b"answer", b"\1" * 32, b"\2" * 64)
REFUSED = Signed(b"refused", b"\1" * 32, b"\2" * 64)
AUTHORITY = m.ByOffer(Signed(b"offer", b"\1" * 32, b"\2" * 64))


def bodies_of(count: int, size: int, *, salt: int = 0) -> tuple[bytes, ...]:
    """Different chunks of ``size`` bytes."""
    return tuple((salt * 65536 + index).to_bytes(4, "big") * (size // 4) for index in range(count))


def place_of(bodies: tuple[bytes, ...], *, request: int = 0) -> m.Place:
    names = tuple(bytes(sha256(body)) for body in bodies)
    return m.Place(request, bytes(merkle_root(names)), names, tuple(len(body) for body in bodies), AUTHORITY)


class Host:
    """Keeps chunks by sequence root. gate: while it is closed, nothing that touches the disk returns."""

    def __init__(self) -> None:
        self.disk: dict[bytes, dict[int, bytes]] = defaultdict(dict)
        self.committed: list[bytes] = []
        self.bundled: list[m.BundledRecord] = []
        self.gate = trio.Event()
        self.gate.set()
        self.refuse: LadingError | None = None
        self.storing_bytes = 0
        self.storing_bytes_max = 0
        self.at_once = 0
        self.at_once_max = 0

    def _may(self) -> None:
        if self.refuse is not None:
            raise self.refuse

    async def check_place(self, peer: PeerId, place: m.Place) -> tuple[int, ...]:
        self._may()
        return tuple(index for index in range(len(place.names)) if index not in self.disk[place.root])

    async def store(self, peer: PeerId, place: m.Place, index: int, name: bytes, data: bytes) -> None:
        assert sha256(data) == name == place.names[index]
        self.storing_bytes += len(data)
        self.storing_bytes_max = max(self.storing_bytes_max, self.storing_bytes)
        try:
            await self.gate.wait()
            self._may()
            self.disk[place.root][index] = data
        finally:
            self.storing_bytes -= len(data)

    async def commit(self, peer: PeerId, place: m.Place) -> Signed:
        assert len(self.disk[place.root]) == len(place.names)
        await self.gate.wait()
        self.committed.append(place.root)
        return ANSWER

    async def load(self, root: bytes, indexes: tuple[int, ...]) -> Chunks:
        await self.gate.wait()
        self._may()
        return tuple((index, self.disk[root].get(index)) for index in indexes)

    async def confirm(self, peer: PeerId, message: m.Confirm) -> m.Confirmed:
        self._may()
        return m.Confirmed(message.request, ANSWER, ())

    async def bundle(self, peer: PeerId, message: m.Bundle) -> m.Bundled:
        self.bundled += message.records
        size = sum(len(chunk) for record in message.records for one in record.sequences for chunk in one.chunks)
        self.storing_bytes += size
        self.storing_bytes_max = max(self.storing_bytes_max, self.storing_bytes)
        try:
            await self.gate.wait()
            self._may()
            noes = tuple((n, "E-QUOTA", "full") for n, record in enumerate(message.records) if record.statement == REFUSED)
            return m.Bundled(message.request, (ANSWER,), noes)
        finally:
            self.storing_bytes -= size

    async def describe(self, peer: PeerId, message: m.Describe) -> m.Described:
        self.at_once += 1
        self.at_once_max = max(self.at_once, self.at_once_max)
        try:
            await self.gate.wait()
            self._may()
            return m.Described(message.request, (), (), message.index, 1, ())
        finally:
            self.at_once -= 1

    async def audit(self, peer: PeerId, message: m.Audit) -> bytes:
        self._may()
        return bytes(sha256(message.nonce))
