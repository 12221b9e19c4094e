"""One end of a conversation over a stream: holds a machine, reads, writes, steps.

Reader, writer and stepper are tasks of their own; the stepper performs what the machine asks for, one thing at a time, so what a peer
sends is taken as fast as it can be judged and no faster.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Awaitable, Callable

import trio

from protocols.effects import Close, Effect, Send
from protocols.machine import Machine
from protocols.registry import decode_message, encode_message

from ..clock import Clock
from ..transport.port import Stream, StreamBroken, StreamEnded

# How long after its time something is said while the machine waits.
BUSY_LATE_S = 0.25

Perform = Callable[[Effect], Awaitable[object | None]]
"""Does what the machine asks for, but Send and Close; the result, if any, is the machine's next event."""
Task = Callable[[], Awaitable[None]]


class MachineEnd:
    """Runs one stream of ``conversation``.

    tick: the machine's event for time that has come. events_max, events_bytes_max: frames of the peer, and their bytes, that wait to be
    stepped; beyond them the reader waits. sends_max: frames that wait to leave. patience_s: a peer that takes nothing for so long is
    given up: two ends that wait for each other to read would stand still for ever.
    """

    def __init__(
        self,
        conversation: str,
        machine: Machine,
        stream: Stream,
        clock: Clock,
        perform: Perform,
        *,
        tick: object,
        events_max: int,
        events_bytes_max: int,
        sends_max: int,
        patience_s: float,
    ) -> None:
        self._conversation = conversation
        self._machine = machine
        self._stream = stream
        self._clock = clock
        self._perform = perform
        self._tick = tick
        self._events_bytes_max = events_bytes_max
        self._patience_s = patience_s
        self._inbox_send, self._inbox = trio.open_memory_channel[tuple[object, int]](events_max)
        self._inbox_bytes = 0
        self._inbox_sank = trio.lowlevel.ParkingLot()
        self._out_send, self._out = trio.open_memory_channel[bytes](sends_max)
        self._out_sank = trio.lowlevel.ParkingLot()
        self._is_busy = False

    async def run(self, first: object, *tasks: Task) -> None:
        """Until the stream ends or the machine closes; ``tasks`` run beside it. Raises RemoteError, DecodeError for what the peer breaks,
        StreamBroken for a peer that takes nothing."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._read, nursery.cancel_scope)
            nursery.start_soon(self._write, nursery.cancel_scope)
            for task in tasks:
                nursery.start_soon(task)
            if await self._step_all(first):
                while await self._step_next():
                    pass
            nursery.cancel_scope.cancel()

    async def put(self, event: object) -> None:
        """An event from this node's side, in its turn."""
        await self._inbox_send.send((event, 0))

    async def wait_sent(self) -> None:
        """Everything that was to be sent has left."""
        while self._out.statistics().current_buffer_used:
            await self._out_sank.park()

    async def say_meanwhile(self, event: object, due_s: Callable[[], float]) -> None:
        """Until cancelled: when a time of the machine's is over because it waits for what it asked for, it is given ``event`` meanwhile;
        so a slow disk looks like one, and not like a dead node. due_s: that time; the event moves it on, and what it asks for waits for
        nothing.
        """
        while True:
            if self._is_busy and self._clock.monotonic() - due_s() >= BUSY_LATE_S:
                await self._step_all(event)
            await trio.sleep(max(BUSY_LATE_S, due_s() + BUSY_LATE_S - self._clock.monotonic()))

    async def _step_next(self) -> bool:
        wake_at = self._machine.wake_at()
        if wake_at is not None and self._clock.monotonic() >= wake_at:
            # What came while we were busy is older than the time that has come: who waited for us was not silent.
            for _ in range(self._inbox.statistics().current_buffer_used):
                if not await self._step_frame(*self._inbox.receive_nowait()):
                    return False
            return await self._step_all(self._tick)
        event = self._tick
        frame_bytes = 0
        with trio.move_on_after(math.inf if wake_at is None else wake_at - self._clock.monotonic()):
            event, frame_bytes = await self._inbox.receive()
        return await self._step_frame(event, frame_bytes)

    async def _step_frame(self, event: object, frame_bytes: int) -> bool:
        self._inbox_bytes -= frame_bytes
        self._inbox_sank.unpark_all()
        self._is_busy = True
        try:
            return await self._step_all(event)
        finally:
            self._is_busy = False

    async def _step_all(self, first: object) -> bool:
        """False when the machine has closed the conversation."""
        events = deque([first])
        while events:
            for effect in self._machine.step(events.popleft(), self._clock.monotonic()):
                if isinstance(effect, Close):
                    return False
                if isinstance(effect, Send):
                    await self._send(effect.message)
                    continue
                answer = await self._perform(effect)
                if answer is not None:
                    events.append(answer)
        return True

    async def _send(self, message: object) -> None:
        with trio.move_on_after(self._patience_s) as patience:
            await self._out_send.send(encode_message(self._conversation, message))
        if patience.cancelled_caught:
            raise StreamBroken(f"the peer takes nothing for {self._patience_s:.0f} s")

    async def _read(self, scope: trio.CancelScope) -> None:
        try:
            while True:
                while self._inbox_bytes >= self._events_bytes_max:
                    await self._inbox_sank.park()
                frame = await self._stream.receive()
                message = decode_message(self._conversation, frame)
                self._inbox_bytes += len(frame)
                await self._inbox_send.send((message, len(frame)))
        except (StreamEnded, StreamBroken):
            scope.cancel()

    async def _write(self, scope: trio.CancelScope) -> None:
        try:
            async for frame in self._out:
                await self._stream.send(frame)
                self._out_sank.unpark_all()
        except StreamBroken:
            scope.cancel()
