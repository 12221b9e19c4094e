"""Puts of small records in groups: what comes together is sealed in one turn of a thread, committed and sent together.

A record alone costs its node four turns of threads and a dozen of tasks, most of them for a fraction of a millisecond of work. Nobody waits
for company: a group begins as soon as the one before it is sealed, with whoever has come meanwhile, first come, first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

import trio

from protocols.errors import ActorGone, LadingError

from ..offload import Carried, Offload

S = TypeVar("S")
R = TypeVar("R")
K = TypeVar("K")

# Of at most 256 KiB each and their manifests: about 3.5 MiB. Measured with documents of 34 KiB: more or fewer made them wait longer.
GROUP_MEMBERS_MAX = 12
# One is sealed, one committed, the others are on their way: 28 MiB of the largest.
GROUPS_AT_ONCE_MAX = 8


class Member(Generic[S, R]):
    """One who goes with others."""

    __slots__ = ("_error", "_outcome", "_over", "began", "carried", "is_wanted", "seal", "sealed")

    def __init__(self, seal: Callable[[], S | None]) -> None:
        self.seal = seal
        self.is_wanted = True
        self.began = False
        self.sealed = trio.Event()
        self.carried: Carried[S | None] = Carried()
        self._over = trio.Event()
        self._outcome: R | None = None
        self._error: BaseException | None = None

    @property
    def is_over(self) -> bool:
        return self._over.is_set()

    def give(self, outcome: R | None) -> None:
        """None: it has to go alone."""
        self._outcome = outcome
        self._over.set()

    def fail(self, error: BaseException) -> None:
        self._error = error
        self._over.set()

    async def outcome(self) -> R | None:
        """Who stops waiting before his turn is left out; who does so later waits until no thread works for him."""
        try:
            await self._over.wait()
        finally:
            self.is_wanted = False
            if self.began:
                with trio.CancelScope(shield=True):
                    await self.sealed.wait()
        if self._error is not None:
            raise self._error
        return self._outcome


class Groups(Generic[S, R, K]):
    """See the module."""

    def __init__(
        self,
        offload: Offload,
        keep: Callable[[Sequence[tuple[Member[S, R], S]]], Awaitable[K]],
        send: Callable[[K], Awaitable[None]],
    ) -> None:
        """keep: publishes what was sealed together, and gives those their outcome who wait for no more. send: has it sent, and gives
        all others theirs."""
        self._offload = offload
        self._keep = keep
        self._send = send
        self._nursery: trio.Nursery | None = None
        self._waiting: deque[Member[S, R]] = deque()
        self._under_way = 0
        self._sealing = trio.Lock()
        self._keeping = trio.Lock()

    async def run(self) -> None:
        """Until cancelled. Who is in a group then has failed."""
        try:
            async with trio.open_nursery() as self._nursery:
                await trio.sleep_forever()
        finally:
            self._nursery = None
            self._under_way = 0
            waiting, self._waiting = self._waiting, deque()
            for member in waiting:
                member.fail(ActorGone("puts have stopped"))

    async def join(self, seal: Callable[[], S | None]) -> R | None:
        """What came of it; None when it has to go alone: ``seal``, called in a thread, said so or what it sealed is in the making already.
        Raises what ``seal`` raised, and LadingError."""
        if self._nursery is None:
            raise ActorGone("puts have stopped")
        member: Member[S, R] = Member(seal)
        self._waiting.append(member)
        if self._under_way < GROUPS_AT_ONCE_MAX:
            self._under_way += 1
            self._nursery.start_soon(self._go)
        return await member.outcome()

    async def _go(self) -> None:
        """One group after the other until nobody waits."""
        try:
            while self._waiting:
                members: list[Member[S, R]] = []
                try:
                    async with self._sealing:
                        members = self._next()
                        sealed = await self._seal(members)
                        await self._keeping.acquire()
                    try:
                        kept = await self._keep(sealed)
                    finally:
                        self._keeping.release()
                    await self._send(kept)
                except LadingError as error:
                    for member in members:
                        if not member.is_over:
                            member.fail(error)
                finally:
                    for member in members:
                        if not member.is_over:
                            member.fail(ActorGone("puts have stopped"))
        finally:
            self._under_way -= 1

    def _next(self) -> list[Member[S, R]]:
        members: list[Member[S, R]] = []
        while self._waiting and len(members) < GROUP_MEMBERS_MAX:
            member = self._waiting.popleft()
            if member.is_wanted:
                member.began = True
                members.append(member)
        return members

    async def _seal(self, members: Sequence[Member[S, R]]) -> list[tuple[Member[S, R], S]]:
        def run() -> None:
            for member in members:
                member.carried.run(member.seal)

        try:
            if members:
                await self._offload.run(run)
        finally:
            for member in members:
                member.sealed.set()
        found: list[tuple[Member[S, R], S]] = []
        for member in members:
            try:
                sealed: Any = member.carried.unwrap()
            except LadingError as error:
                member.fail(error)
                continue
            if sealed is None:
                member.give(None)
            else:
                found.append((member, sealed))
        return found
