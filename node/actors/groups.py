"""Puts of small and medium records in groups: what comes together is sealed in one turn of a thread, and kept together.

A record alone costs its node four turns of threads and a dozen of tasks, most of them for a fraction of a millisecond of work. Nobody waits
for company: a group begins as soon as the one before it is sealed, with whoever has come meanwhile, first come, first served.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

import trio

from protocols.errors import ActorGone, LadingError

from ..offload import Carried, Offload

S = TypeVar("S")
R = TypeVar("R")

# A group costs three nodes 15 ms of a processor together, whatever is in it, most of them for commits. Measured with documents of 34 KiB,
# 20, 32, 40 and 60: the last comes a tenth sooner with 32 than with 20, and the mean wait is a twentieth less; beyond it grows again.
GROUP_MEMBERS_MAX = 32
# What is sealed in one turn, more or less by one record: a commit's worth. The others of the group go with the next.
GROUP_BYTES_MAX = 12 * 1024 * 1024
# Sealed, and in memory until their holders have answered: no further group is sealed meanwhile.
HELD_BYTES_MAX = 32 * 1024 * 1024
# Who reads from a disk that hangs, or a folder without end, holds up nobody but those who are in his group.
SEALING_PATIENCE_S = 1.0
# The pool has four threads, which others want too.
SEALINGS_AT_ONCE_MAX = 2


class Member(Generic[S, R]):
    """One who goes with others."""

    __slots__ = ("_error", "_outcome", "_over", "began", "bytes", "carried", "is_wanted", "seal", "sealed")

    def __init__(self, seal: Callable[[], S | None]) -> None:
        self.seal = seal
        self.is_wanted = True
        self.began = False
        self.bytes = 0
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
        """Who stops waiting before all of his group is sealed is left out; if a thread works for him then, he waits for its end."""
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


class _Turn:
    """Of one group to be sealed. is_over: it has come to be kept."""

    __slots__ = ("is_in_thread", "is_over")

    def __init__(self) -> None:
        self.is_over = trio.Event()
        self.is_in_thread = True


class Groups(Generic[S, R]):
    """See the module. Whoever joins bounds how many do so at once."""

    def __init__(
        self, offload: Offload, keep: Callable[[Sequence[tuple[Member[S, R], S]]], Awaitable[None]], *, size: Callable[[S], int]
    ) -> None:
        """keep: publishes what was sealed together, and gives each its outcome. size: bytes in memory of what was sealed."""
        self._offload = offload
        self._keep = keep
        self._size = size
        self._held_bytes = 0
        self._eased = trio.Event()
        self._nursery: trio.Nursery | None = None
        self._waiting: deque[Member[S, R]] = deque()
        self._is_forming = False
        """A group waits for its turn, and takes in whoever comes until then."""
        self._last: _Turn | None = None
        self._threads = trio.CapacityLimiter(SEALINGS_AT_ONCE_MAX)
        self._keeping = trio.Lock()

    async def run(self) -> None:
        """Until cancelled. Who is in a group then has failed."""
        try:
            async with trio.open_nursery() as self._nursery:
                try:
                    await trio.sleep_forever()
                finally:
                    self._nursery = None
        finally:
            self._is_forming = False
            self._last = None
            waiting, self._waiting = self._waiting, deque()
            for member in waiting:
                member.fail(ActorGone("puts have stopped"))

    async def join(self, seal: Callable[[], S | None], then: Callable[[R], Awaitable[None]] | None = None) -> R | None:
        """What came of it; None when it has to go alone: ``seal``, called in a thread, said so or what it sealed is in the making already.
        then: awaited before; until it ends, what was sealed counts as in memory. Raises what ``seal`` raised, and LadingError."""
        if self._nursery is None:
            raise ActorGone("puts have stopped")
        member: Member[S, R] = Member(seal)
        self._waiting.append(member)
        self._form()
        try:
            outcome = await member.outcome()
            if outcome is not None and then is not None:
                await then(outcome)
            return outcome
        finally:
            self._let_go(member)

    def _let_go(self, member: Member[S, R]) -> None:
        self._held_bytes -= member.bytes
        if self._held_bytes < HELD_BYTES_MAX:
            self._eased.set()
            self._eased = trio.Event()

    def _form(self) -> None:
        """Begins a group if somebody waits for one."""
        if self._waiting and not self._is_forming and self._nursery is not None:
            self._is_forming = True
            self._nursery.start_soon(self._go)

    async def _go(self) -> None:
        """One group."""
        members: list[Member[S, R]] = []
        try:
            turn = await self._turn()
            try:
                async with self._threads:
                    while self._held_bytes >= HELD_BYTES_MAX:
                        await self._eased.wait()
                    members = self._next()
                    self._is_forming = False
                    self._form()
                    sealed = await self._seal(members)
                turn.is_in_thread = False
                await self._keeping.acquire()
            finally:
                turn.is_over.set()
            try:
                await self._keep([one for one in sealed if one[0].is_wanted])
            finally:
                self._keeping.release()
        except LadingError as error:
            for member in members:
                if not member.is_over:
                    member.fail(error)
        finally:
            for member in members:
                if not member.is_over:
                    member.fail(ActorGone("puts have stopped"))

    async def _turn(self) -> _Turn:
        """Comes when the group before is about to be kept, or takes too long to be sealed. Asked for by one group at a time."""
        last = self._last
        while last is not None and not last.is_over.is_set():
            with trio.move_on_after(SEALING_PATIENCE_S) as patience:
                await last.is_over.wait()
            if patience.cancelled_caught and last.is_in_thread:
                break
        self._last = turn = _Turn()
        return turn

    def _next(self) -> list[Member[S, R]]:
        members: list[Member[S, R]] = []
        while self._waiting and len(members) < GROUP_MEMBERS_MAX:
            member = self._waiting.popleft()
            if member.is_wanted:
                member.began = True
                members.append(member)
        return members

    async def _seal(self, members: list[Member[S, R]]) -> list[tuple[Member[S, R], S]]:
        """Those whom it has not come to when there is enough wait again, and are no longer among ``members``."""
        count = 0

        def run() -> None:
            nonlocal count
            size = 0
            for member in members:
                if size >= GROUP_BYTES_MAX:
                    break
                count += 1
                if member.is_wanted:
                    member.carried.run(member.seal)
                    if (sealed := member.carried.value) is not None:
                        member.bytes = self._size(sealed)
                        size += member.bytes

        try:
            if members:
                await self._offload.run(run)
        finally:
            for member in reversed(members[count:]):
                if member.is_wanted:
                    member.began = False
                    self._waiting.appendleft(member)
                else:
                    member.sealed.set()
            del members[count:]
            for member in members:
                member.sealed.set()
                self._held_bytes += member.bytes
            self._form()
        found: list[tuple[Member[S, R], S]] = []
        for member in members:
            if member.carried.error is not None:  # whatever it is: a fault in one is no other's
                member.fail(member.carried.error)
            elif (sealed := member.carried.unwrap()) is None:
                member.give(None)
            else:
                found.append((member, sealed))
        return found
