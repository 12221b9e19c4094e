"""Facts upward. ``publish`` never waits; whoever listens too slowly loses the oldest hints and re-reads the state instead.

A fact is a frozen record of something that has happened and is already durable. Losing one is harmless by design, so a listener
must never depend on having heard them all.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Generic, TypeVar

import trio

F = TypeVar("F")

# A listener that is this far behind gains more from re-reading the state than from the history of it.
SUBSCRIPTION_FACTS_MAX = 256


class Subscription(Generic[F]):
    """One listener's bounded queue. Iterate over it; use it as a context manager, or close it, when done.

    lost: facts that were pushed out unread. queued_max: the longest the queue has ever been.
    """

    def __init__(
        self, bus: Bus, kinds: tuple[type[F], ...], capacity: int, name: str, wanted: Callable[[object], bool] | None = None
    ) -> None:
        assert capacity >= 1
        assert kinds, "a subscription to nothing hears nothing"
        self.name = name
        self.capacity = capacity
        self.lost = 0
        self.queued_max = 0
        self._bus = bus
        self._kinds = kinds
        self._wanted = wanted
        self._queue: deque[F] = deque()
        self._changed = trio.Event()
        self._closed = False

    def offer(self, fact: object) -> None:
        """Queues the fact if it is of a wanted kind and wanted itself; pushes out the oldest when there is no room."""
        if not isinstance(fact, self._kinds) or (self._wanted is not None and not self._wanted(fact)):
            return
        if len(self._queue) == self.capacity:
            self._queue.popleft()
            self.lost += 1
        self._queue.append(fact)
        self.queued_max = max(self.queued_max, len(self._queue))
        self._wake()

    def take_nowait(self) -> tuple[F, ...]:
        """Everything queued, oldest first; maybe nothing."""
        facts = tuple(self._queue)
        self._queue.clear()
        return facts

    def close(self) -> None:
        """Stops listening; what is queued can still be taken."""
        self._closed = True
        self._bus.forget(self)
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    def __aiter__(self) -> Subscription[F]:
        return self

    async def __anext__(self) -> F:
        await trio.lowlevel.checkpoint()
        while not self._queue:
            if self._closed:
                raise StopAsyncIteration
            await self._changed.wait()
        return self._queue.popleft()

    def __enter__(self) -> Subscription[F]:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Bus:
    """Who hears of what. Listeners hear a fact in the order they subscribed."""

    def __init__(self) -> None:
        self._subscriptions: list[Subscription[object]] = []

    def publish(self, fact: object) -> None:
        """Tells every listener of the fact's kind. Never waits, never fails."""
        for subscription in self._subscriptions:
            subscription.offer(fact)

    def subscribe(
        self,
        *kinds: type[F],
        capacity: int = SUBSCRIPTION_FACTS_MAX,
        name: str = "",
        wanted: Callable[[object], bool] | None = None,
    ) -> Subscription[F]:
        """Facts of these kinds (and their subclasses) from now on. name: shown in ``queued_max`` and logs. wanted: asked for each fact,
        quickly; where hundreds listen, waking those who do not care costs more than the rest."""
        subscription = Subscription(self, kinds, capacity, name or "+".join(kind.__name__ for kind in kinds), wanted)
        self._subscriptions.append(subscription)  # type: ignore[arg-type]  # a listener of F may be offered any object
        return subscription

    def forget(self, subscription: Subscription[F]) -> None:
        """Tells this listener nothing more."""
        self._subscriptions = [other for other in self._subscriptions if other is not subscription]

    def queued_max(self) -> Mapping[str, int]:
        """Longest queue per listener's name, for the checker that every queue stays within its bound."""
        maxima: dict[str, int] = {}
        for subscription in self._subscriptions:
            maxima[subscription.name] = max(maxima.get(subscription.name, 0), subscription.queued_max)
        return maxima
