"""Whatever is cancelled, at whichever of its awaits: the connection stays usable or ends cleanly, and nothing is left behind.

An instrument counts the steps of one task, or of a connection's own tasks, and cancels at the n-th; n goes up until the task has
ended by itself first. So every await of the shell is met, whatever the code in between.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import trio

from node.transport.libp2p.connection import Libp2pConnection
from node.transport.libp2p.mux import PROCESS_BUDGET, Muxer
from node.transport.libp2p.stream import FramedStream
from node.transport.port import DialFailed, StreamBroken, StreamEnded
from protocols.errors import LadingError

from ..manners import FENCE, PROTOCOL, start
from .loopback import LoopbackWorld, connect_ours, rested, settled, until

pytestmark = pytest.mark.slow

PATIENCE_S = 10.0
# More than a first window, in frames of odd sizes: so that room, credit and flushing are waited for.
FRAMES = tuple(bytes([number]) * size for number, size in enumerate((1, 300_000, 0, 70_000, 400_000)))
# Far beyond what any of the tasks needs; reaching it means that counting no longer cancels.
STEPS_MAX = 3000


class _CutAt(trio.abc.Instrument):
    """Calls ``cut`` after the n-th step of the tasks that ``is_victim`` tells."""

    def __init__(self, steps: int, is_victim: Callable[[trio.lowlevel.Task], bool], cut: Callable[[], None]) -> None:
        self.steps_left = steps
        self._is_victim = is_victim
        self._cut = cut

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if self._is_victim(task):
            self.steps_left -= 1
            if self.steps_left == 0:
                self._cut()


def is_within(task: trio.lowlevel.Task, nursery: trio.Nursery | None) -> bool:
    """Whether it runs in this nursery or one below."""
    above = task.parent_nursery
    while above is not None and above is not nursery:
        above = above.parent_task.parent_nursery
    return above is nursery


async def cancelled_at(steps: int, job: Callable[[], Awaitable[None]]) -> bool:
    """Runs the job, cancelled at its n-th step. Whether it was; False when it had ended before."""
    with trio.CancelScope() as scope:
        victim = trio.lowlevel.current_task()
        instrument = _CutAt(steps, lambda task: task is victim, scope.cancel)
        trio.lowlevel.add_instrument(instrument)
        try:
            await job()
        finally:
            trio.lowlevel.remove_instrument(instrument)
    return scope.cancelled_caught


async def echo(connection: Libp2pConnection) -> None:
    """Answers every frame of every stream, and ends when the stream or the connection does."""

    async def answer(stream: FramedStream) -> None:
        try:
            while True:
                await stream.send(await stream.receive())
        except StreamEnded:
            await stream.finish()
        except LadingError:
            stream.reset()

    async def answer_quietly(stream: FramedStream) -> None:
        try:
            await answer(stream)
        except StreamBroken:
            stream.reset()

    async with trio.open_nursery() as nursery:
        try:
            while True:
                nursery.start_soon(answer_quietly, await connection.accept_stream())
        except StreamBroken:
            return


async def converse(connection: Libp2pConnection) -> None:
    """One whole conversation; as any of ours, it resets its stream when it is cut."""
    stream = await connection.open_stream(PROTOCOL)
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_send_all, stream)
            for wanted in FRAMES:
                assert await stream.receive() == wanted
        with pytest.raises(StreamEnded):
            await stream.receive()
    except BaseException:
        stream.reset()
        raise


async def _send_all(stream: FramedStream) -> None:
    for frame in FRAMES:
        await stream.send(frame)
    await stream.finish()


def held(connection: Libp2pConnection) -> tuple[int, int]:
    """(streams, unread bytes) of a connection."""
    return connection.muxer.stream_count, connection.muxer.unread_bytes


async def test_conversation_when_cut_at_any_await_leaves_the_connection_usable(nursery: trio.Nursery) -> None:
    """Goal: no await of opening, sending, receiving or finishing can hurt the others. Method: cut at the first, second, … step until it
    is never reached; after each cut a small conversation goes through on the same connection; at the end no stream and no byte is held."""
    dialled, accepted = await connect_ours(nursery)
    nursery.start_soon(echo, accepted)
    cuts = 0
    for steps in range(1, STEPS_MAX):
        with trio.fail_after(PATIENCE_S):
            if not await cancelled_at(steps, lambda: converse(dialled)):
                break
            cuts += 1
            stream = await dialled.open_stream(PROTOCOL)
            await stream.send(b"still there?")
            assert await stream.receive() == b"still there?"
            await stream.finish()
            with pytest.raises(StreamEnded):
                await stream.receive()
    assert 5 < cuts < STEPS_MAX - 2
    with trio.fail_after(PATIENCE_S):
        await until(lambda: held(dialled) == held(accepted) == (0, 0))
    assert not dialled.closed.is_set()
    nursery.cancel_scope.cancel()


async def test_answering_when_cut_at_any_await_leaves_the_connection_usable(nursery: trio.Nursery) -> None:
    """Goal: the same of the end that accepts. Method: its echo is what is cut; the next asks on the same connection."""
    dialled, accepted = await connect_ours(nursery)

    async def serve_one() -> None:
        stream = await accepted.accept_stream()
        try:
            while True:
                try:
                    await stream.send(await stream.receive())
                    break
                except StreamBroken:  # of an earlier round, cut before it was taken
                    stream = await accepted.accept_stream()
            for _ in FRAMES[1:]:
                await stream.send(await stream.receive())
            await stream.finish()
        except BaseException:
            stream.reset()
            raise

    async def ask() -> None:
        try:
            await converse(dialled)
        except* StreamBroken:
            pass  # it was cut at the other end

    cuts = 0
    for steps in range(1, STEPS_MAX):
        with trio.fail_after(PATIENCE_S):
            with trio.CancelScope() as asking:
                async with trio.open_nursery() as both:
                    both.start_soon(ask)
                    was_cut = await cancelled_at(steps, serve_one)
                    if was_cut:
                        asking.cancel()  # it may have been cut before it had taken the stream: nobody would answer
            if not was_cut:
                break
            cuts += 1
    assert 5 < cuts < STEPS_MAX - 2
    with trio.fail_after(PATIENCE_S):
        await until(lambda: held(dialled) == held(accepted) == (0, 0))
    nursery.cancel_scope.cancel()


async def test_dial_when_cut_at_any_await_leaves_no_task_no_file_and_no_connection(nursery: trio.Nursery) -> None:
    """Goal: a cancelled dial never was. Method: cut at every step; afterwards both ends are as before, and a whole dial works."""
    world = LoopbackWorld()
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    address = await start(nursery, bob)
    before = await settled()
    cuts = 0
    for steps in range(1, STEPS_MAX):
        got: list[Libp2pConnection] = []

        async def dial(got: list[Libp2pConnection] = got) -> None:
            got.append(await alice.dial(address, bob.peer_id, FENCE))

        with trio.fail_after(PATIENCE_S):
            if not await cancelled_at(steps, dial):
                await got[0].close()
                break
            cuts += 1
            for connection in alice.connections:  # the very last await: it is dialled, nobody was told
                await connection.close()
            await until(lambda: alice.connections == bob.connections == ())
    assert 5 < cuts < STEPS_MAX - 2
    with trio.fail_after(PATIENCE_S):
        await until(lambda: alice.connections == bob.connections == ())
    with trio.fail_after(PATIENCE_S):
        await rested(before)
    nursery.cancel_scope.cancel()


async def test_close_when_cut_at_any_await_closes_all_the_same(nursery: trio.Nursery) -> None:
    """Goal: closing cannot be taken back half way. Method: cut at every step, with frames queued; both ends end, in time."""
    world = LoopbackWorld()
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    address = await start(nursery, bob)
    before = await settled()
    cuts = 0
    for steps in range(1, STEPS_MAX):
        with trio.fail_after(PATIENCE_S):
            dialled = await alice.dial(address, bob.peer_id, FENCE)
            accepted = await bob.accept()
            accepted.trust()  # what an unproven peer sent is not read so far
            stream = await dialled.open_stream(PROTOCOL)
            await stream.send(bytes(100_000))
            was_cut = await cancelled_at(steps, lambda dialled=dialled: dialled.close())  # type: ignore[misc]
            await dialled.closed.wait()
            await accepted.closed.wait()
            with pytest.raises(StreamBroken):
                await stream.send(b"more")
        if not was_cut:
            break
        cuts += 1
    assert 2 < cuts < STEPS_MAX - 2
    with trio.fail_after(PATIENCE_S):
        await rested(before)
    nursery.cancel_scope.cancel()


async def test_connection_when_lost_at_any_step_of_its_own_tasks_tells_its_streams_and_leaves_nothing(nursery: trio.Nursery) -> None:
    """Goal: reader, writer and clock may end anywhere, in the middle of a message too. Method: count the steps of all tasks of the
    dialler's connection, drop it at the n-th of a conversation; both ends of the conversation are told or were done, nothing is held."""
    world = LoopbackWorld()
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    address = await start(nursery, bob)
    before: Any = None
    cuts = 0
    for steps in range(1, STEPS_MAX, 3):
        with trio.fail_after(PATIENCE_S):
            dialled = await alice.dial(address, bob.peer_id, FENCE)
            accepted = await bob.accept()
            dialled.trust()
            accepted.trust()
            await until(lambda dialled=dialled: dialled._nursery is not None)  # type: ignore[misc]
            own = dialled._nursery
            instrument = _CutAt(steps, lambda task, own=own: is_within(task, own), lambda dialled=dialled: dialled.drop("cut"))  # type: ignore[misc]
            trio.lowlevel.add_instrument(instrument)
            is_done = False
            async with trio.open_nursery() as talking:
                talking.start_soon(echo, accepted)
                try:
                    await converse(dialled)
                    is_done = True
                except* LadingError:
                    pass
                trio.lowlevel.remove_instrument(instrument)
                dialled.drop("done")
                await dialled.closed.wait()
                await accepted.closed.wait()
            if isinstance(dialled.muxer, Muxer):
                assert held(dialled) == held(accepted) == (0, 0)
                assert (PROCESS_BUDGET.held_bytes, PROCESS_BUDGET.grown_bytes) == (0, 0)
        before = before or await settled()
        if is_done and instrument.steps_left > 0:
            break
        cuts += 1
    assert 5 < cuts < STEPS_MAX - 2
    with trio.fail_after(PATIENCE_S):
        await rested(before)
    with pytest.raises((DialFailed, StreamBroken)):
        await dialled.open_stream(PROTOCOL)
    nursery.cancel_scope.cancel()
