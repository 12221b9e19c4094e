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

    async def _step_next(self) -> bool:
        wake_at = self._machine.wake_at()
        event = self._tick
        frame_bytes = 0
        with trio.move_on_after(math.inf if wake_at is None else max(0.0, wake_at - self._clock.monotonic())):
            event, frame_bytes = await self._inbox.receive()
        self._inbox_bytes -= frame_bytes
        self._inbox_sank.unpark_all()
        return await self._step_all(event)

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
