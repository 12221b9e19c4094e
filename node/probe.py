"""How long the event loop is held by one step of one task: switched on by LADING_LOOP_PROBE=FILE, off otherwise.

Each step that took longer than REPORT_S is a line of JSON in the file: when it ended (seconds since the epoch), how long it took, how
much of that the loop's thread was on a processor, and what ran. A step that waited for the interpreter lock or for a processor has
more of the one than of the other. Garbage collection inside a step is named.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Mapping
from pathlib import Path

import trio

from protocols.codec import to_json

from .clock import SystemClock

ENVIRONMENT_KEY = "LADING_LOOP_PROBE"
REPORT_S = 0.005


class LoopProbe(trio.abc.Instrument):
    """A trio instrument. Costs about a microsecond a step; the processor's clock is a system call and read once a turn."""

    def __init__(self, path: Path) -> None:
        # Unbuffered appends of whole lines: whoever reads along never sees half of one, and a killed node leaves all of them.
        self._file = path.open("ab", buffering=0)
        self._began_s = 0.0
        self._cpu_s = 0.0
        self._collecting_since_s = 0.0
        self._collected_s = 0.0

    def before_run(self) -> None:
        gc.callbacks.append(self._collected)

    def after_run(self) -> None:
        gc.callbacks.remove(self._collected)
        self._file.close()

    def _collected(self, phase: str, info: Mapping[str, int]) -> None:
        if phase == "start":
            self._collecting_since_s = time.perf_counter()
        else:
            self._collected_s += time.perf_counter() - self._collecting_since_s

    def after_io_wait(self, timeout: float) -> None:
        self._cpu_s = time.thread_time()

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        self._collected_s = 0.0
        self._began_s = time.perf_counter()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        took_s = time.perf_counter() - self._began_s
        if took_s < REPORT_S:
            return
        self._file.write(
            to_json(
                {
                    "at": SystemClock().now(),
                    "held_ms": round(took_s * 1000, 2),
                    "processor_ms": round((time.thread_time() - self._cpu_s) * 1000, 2),
                    "collector_ms": round(self._collected_s * 1000, 2),
                    "task": task.name.rpartition(".<locals>.")[2] if ".<locals>." in task.name else task.name,
                    "waits_in": _where(task),
                }
            )
            + b"\n"
        )


def _where(task: trio.lowlevel.Task) -> str:
    """The functions that the task stands in after the step, outermost of ours first."""
    names: list[str] = []
    coroutine: object = task.coro
    while coroutine is not None:
        frame = getattr(coroutine, "cr_frame", None)
        if frame is not None and "/trio/" not in frame.f_code.co_filename:
            names.append(frame.f_code.co_name)
        coroutine = getattr(coroutine, "cr_await", None)
    return " > ".join(names[-5:])


def instruments(environment: Mapping[str, str]) -> tuple[trio.abc.Instrument, ...]:
    """What the loop is watched with."""
    path = environment.get(ENVIRONMENT_KEY)
    return (LoopProbe(Path(path)),) if path else ()
