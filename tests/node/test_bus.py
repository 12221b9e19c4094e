"""The bus: facts upward, never waiting."""

from __future__ import annotations

from dataclasses import dataclass

import trio
from trio.testing import wait_all_tasks_blocked

from node.bus import Bus


@dataclass(frozen=True)
class TipMoved:
    height: int


@dataclass(frozen=True)
class PeerLost:
    name: str


async def test_listener_hears_its_kinds_only_in_order() -> None:
    """Goal: a subscription is a filter. Method: two kinds published, one or both wanted."""
    bus = Bus()
    with bus.subscribe(TipMoved) as tips, bus.subscribe(TipMoved, PeerLost) as both:
        for fact in (TipMoved(1), PeerLost("bob"), TipMoved(2)):
            bus.publish(fact)
        assert tips.take_nowait() == (TipMoved(1), TipMoved(2))
        assert both.take_nowait() == (TipMoved(1), PeerLost("bob"), TipMoved(2))
        assert both.take_nowait() == ()


async def test_waiting_listener_is_woken(nursery: trio.Nursery) -> None:
    """Goal: iterating waits. Method: a listener that is already waiting when the fact comes; closing ends it."""
    bus = Bus()
    heard = []
    subscription = bus.subscribe(TipMoved)

    async def listen() -> None:
        async for fact in subscription:
            heard.append(fact.height)

    with trio.fail_after(5):
        async with trio.open_nursery() as listening:
            listening.start_soon(listen)
            await wait_all_tasks_blocked()
            bus.publish(TipMoved(1))
            bus.publish(TipMoved(2))
            await wait_all_tasks_blocked()
            assert heard == [1, 2]
            bus.publish(TipMoved(3))
            subscription.close()
    assert heard == [1, 2, 3]


async def test_slow_listener_loses_the_oldest_and_others_lose_nothing() -> None:
    """Goal: publishing never waits. Method: ten facts into a queue of three and one of a hundred."""
    bus = Bus()
    slow, fast = bus.subscribe(TipMoved, capacity=3, name="slow"), bus.subscribe(TipMoved, capacity=100, name="fast")
    for height in range(10):
        bus.publish(TipMoved(height))
    assert [fact.height for fact in slow.take_nowait()] == [7, 8, 9]
    assert (slow.lost, fast.lost) == (7, 0)
    assert len(fast.take_nowait()) == 10
    assert bus.queued_max() == {"slow": 3, "fast": 10}


async def test_closed_listener_hears_nothing_more() -> None:
    """Goal: who leaves is forgotten. Method: publish after closing."""
    bus = Bus()
    subscription = bus.subscribe(TipMoved)
    subscription.close()
    bus.publish(TipMoved(1))
    assert subscription.take_nowait() == ()
    assert bus.queued_max() == {}
