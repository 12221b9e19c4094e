"""The tree of a node and what to do when one falls. The one place that writes ``except*``.

A child that *returns* is done. A child that *raises* has fallen: it is restarted with growing, jittered pauses, or takes the node
with it, or is let go, as its row says. A broken invariant (AssertionError, LocalError) stops the node whatever the row says: our
reasoning was wrong, and going on would write the consequences to disk. Shutdown goes from the top down: who asks stops before whom
it asks, so nobody is left waiting for an answer.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import trio

from protocols.errors import LocalError, Reason

from .entropy import Entropy

if TYPE_CHECKING:
    # A dependency of libp2p brings old stubs of trio that shadow trio's own types; theirs has this name elsewhere.
    from trio_typing import TaskStatus

log = logging.getLogger(__name__)

RESTART_PAUSE_S_MIN = 0.5
RESTART_PAUSE_S_MAX = 60.0  # somebody repairing a disk or a network card looks again about once a minute
HEALTHY_AFTER_S = 120.0  # twice the longest pause: who has run this long starts again with the shortest one
STOP_DEADLINE_S = 10.0  # service managers kill after 90 s; a commit takes well under one


class OnFall(enum.Enum):
    """What happens when a child falls."""

    RESTART = "restart"
    STOP_NODE = "stop node"
    IGNORE = "ignore"


@dataclass(frozen=True, slots=True)
class Child:
    """One row of the supervision table.

    run: the child's whole life; called again after a fall. stop: asks it to wind down before it is cancelled (optional).
    owns, asks, tells: for people and tests; ``asks`` (names of other children) also orders start and stop.
    """

    name: str
    run: Callable[[], Awaitable[object]]
    on_fall: OnFall
    owns: str = ""
    asks: tuple[str, ...] = ()
    tells: tuple[str, ...] = ()
    stop: Callable[[], Awaitable[object]] | None = None


def _leaves(group: BaseExceptionGroup[Exception]) -> list[Exception]:
    """The single errors of a group of groups, in order."""
    found: list[Exception] = []
    for error in group.exceptions:
        if isinstance(error, BaseExceptionGroup):
            found.extend(_leaves(error))
        else:
            found.append(error)
    return found


def broken_invariant(errors: Sequence[Exception]) -> Exception | None:
    """The first error that says that we, and not the world, are wrong."""
    return next((error for error in errors if isinstance(error, (AssertionError, LocalError))), None)


async def run_caught(run: Callable[[], Awaitable[object]]) -> tuple[Exception, ...]:
    """Runs to the end. Result: the errors it fell with, taken out of trio's groups; none when it returned.

    Cancellation goes through; errors that came together with it are logged, since nobody will be there to look at the result.
    """
    errors: list[Exception] = []
    is_over = False
    try:
        try:
            await run()
        except* Exception as group:
            errors.extend(_leaves(group))
        is_over = True
    finally:
        if not is_over:
            for error in errors:
                log.error("failed while being cancelled error=%r", error, exc_info=error)
    return tuple(errors)


async def run_contained(run: Callable[[], Awaitable[object]]) -> tuple[Exception, ...]:
    """Like ``run_caught``, for whoever drops a peer instead of falling: errors come back as values, but a broken invariant is raised."""
    errors = await run_caught(run)
    broken = broken_invariant(errors)
    if broken is not None:
        raise broken
    return errors


def stop_order(children: Sequence[Child]) -> tuple[tuple[Child, ...], ...]:
    """Layers from the top down: every child stands in an earlier layer than all it asks. AssertionError on a cycle or an unknown name."""
    by_name = {child.name: child for child in children}
    assert len(by_name) == len(children), "two children with one name"
    depths: dict[str, int] = {}

    def depth(name: str, above: tuple[str, ...]) -> int:
        assert name in by_name, f"{above[-1]} asks {name}, which is not in the table"
        assert name not in above, f"asking in a circle: {' > '.join((*above, name))}"
        if name not in depths:
            depths[name] = 1 + max((depth(below, (*above, name)) for below in by_name[name].asks), default=-1)
        return depths[name]

    for child in children:
        depth(child.name, ())
    return tuple(
        tuple(child for child in children if depths[child.name] == layer) for layer in range(max(depths.values(), default=-1), -1, -1)
    )


class _Life:
    """A running child: how to cancel it, how to know that it has ended."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.scope = trio.CancelScope()
        self.ended = trio.Event()
        self.falls = 0


class Supervisor:
    """Runs the table. ``run`` returns after ``stop`` or cancellation, and raises LocalError when a fall stopped the node."""

    def __init__(self, children: Sequence[Child], *, entropy: Entropy, stop_deadline_s: float = STOP_DEADLINE_S) -> None:
        self._layers = stop_order(children)
        self._entropy = entropy
        self._stop_deadline_s = stop_deadline_s
        self._stopping = trio.Event()
        self._lives = {child.name: _Life(child) for layer in self._layers for child in layer}
        self.reason = ""
        """Why the node stopped or is stopping."""
        self._cause: Exception | None = None

    def stop(self, reason: str = "asked to stop") -> None:
        """Begins the orderly shutdown; returns at once."""
        if not self._stopping.is_set():
            self.reason = reason
            self._stopping.set()

    def falls(self, name: str) -> int:
        """How often a child has fallen since it last ran long enough to count as healthy."""
        return self._lives[name].falls

    async def run(self, *, task_status: TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """The node's life. Children start from the bottom up and, also when this is cancelled, stop in order within the deadline."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._run_shielded)
            task_status.started()
            try:
                await self._stopping.wait()
            finally:
                self.stop("cancelled")
        if self._cause is not None:
            raise LocalError(Reason.FAILED, self.reason) from self._cause

    async def _run_shielded(self) -> None:
        with trio.CancelScope(shield=True):
            async with trio.open_nursery() as nursery:
                for layer in reversed(self._layers):
                    for child in layer:
                        nursery.start_soon(self._live, self._lives[child.name], name=child.name)
                await self._stopping.wait()
                log.info("stopping reason=%s", self.reason)
                with trio.move_on_after(self._stop_deadline_s) as deadline:
                    await self._stop_in_order()
                if deadline.cancelled_caught:
                    late = [name for name, life in self._lives.items() if not life.ended.is_set()]
                    log.error("shutdown took more than %s s, cancelling the rest: %s", self._stop_deadline_s, ", ".join(late))
                    nursery.cancel_scope.cancel()

    async def _stop_in_order(self) -> None:
        for layer in self._layers:
            async with trio.open_nursery() as nursery:
                for child in layer:
                    nursery.start_soon(self._stop_one, self._lives[child.name])

    async def _stop_one(self, life: _Life) -> None:
        if life.child.stop is not None and not life.ended.is_set():
            for error in await run_caught(life.child.stop):
                log.error("could not wind down child=%s error=%r", life.child.name, error)
        life.scope.cancel()
        await life.ended.wait()

    async def _live(self, life: _Life) -> None:
        try:
            with life.scope:
                await self._run_and_restart(life)
        finally:
            life.ended.set()

    async def _run_and_restart(self, life: _Life) -> None:
        while True:
            started_at = trio.current_time()
            errors = await run_caught(life.child.run)
            if not errors:
                return
            if trio.current_time() - started_at >= HEALTHY_AFTER_S:
                life.falls = 0
            life.falls += 1
            if not self._may_restart(life.child, errors):
                return
            pause_s = self._pause_s(life.falls)
            log.warning("child fell, restarting child=%s falls=%d pause_s=%.1f error=%r", life.child.name, life.falls, pause_s, errors[0])
            await trio.sleep(pause_s)

    def _may_restart(self, child: Child, errors: Sequence[Exception]) -> bool:
        broken = broken_invariant(errors)
        if broken is not None:
            self._stop_for(broken, f"broken invariant in {child.name}: {type(broken).__name__}: {broken}")
            return False
        match child.on_fall:
            case OnFall.RESTART:
                return True
            case OnFall.STOP_NODE:
                self._stop_for(errors[0], f"{child.name} fell: {type(errors[0]).__name__}: {errors[0]}")
                return False
            case OnFall.IGNORE:
                log.warning("child fell, going on without it child=%s error=%r", child.name, errors[0])
                return False

    def _stop_for(self, cause: Exception, reason: str) -> None:
        log.error("the node stops: %s", reason, exc_info=cause)
        if self._cause is None:
            self._cause = cause
        self.stop(reason)

    def _pause_s(self, falls: int) -> float:
        longest = min(RESTART_PAUSE_S_MAX, RESTART_PAUSE_S_MIN * 2.0 ** min(falls - 1, 16))
        return longest * (0.5 + 0.5 * self._entropy.uniform())
