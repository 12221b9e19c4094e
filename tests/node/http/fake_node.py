"""A node's API without a node: a dispatcher made of plain functions, served over a real Unix socket."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import trio

from node.http.client import call
from node.http.contract import Answer


@dataclass
class Call:
    """What a dispatcher's function was given."""

    operation: str
    args: Mapping[str, object]
    body: AsyncIterator[bytes] | None
    progress: Callable[[Mapping[str, object]], None]
    output: Callable[[bytes], Awaitable[None]] | None


@dataclass
class FakeNode:
    """A dispatcher: ``answers`` by operation; every call is kept in ``calls``."""

    home: Path
    answers: dict[str, Callable[[Call], Awaitable[Answer]]] = field(default_factory=dict)
    calls: list[Call] = field(default_factory=list)

    async def call(
        self,
        operation: str,
        args: Mapping[str, object],
        *,
        body: AsyncIterator[bytes] | None,
        progress: Callable[[Mapping[str, object]], None],
        output: Callable[[bytes], Awaitable[None]] | None,
    ) -> Answer:
        self.calls.append(Call(operation, args, body, progress, output))
        return await self.answers[operation](self.calls[-1])

    async def ask(self, operation: str, args: Mapping[str, object] | None = None, **options: object) -> Answer:
        """One call by the blocking client, from a thread; cancelling it leaves the thread behind."""
        return await trio.to_thread.run_sync(partial(call, self.home, operation, args or {}, **options), abandon_on_cancel=True)
