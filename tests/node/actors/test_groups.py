"""Puts that go together: who is let in, who is left out, and what each is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from node.actors.groups import GROUP_MEMBERS_MAX, GROUPS_AT_ONCE_MAX, Groups, Member
from protocols.errors import ActorGone, LadingError, Reason, StoreFull

Sealed = tuple[Member[str, str], str]


class Gate:
    """An offload whose calls wait for leave."""

    def __init__(self) -> None:
        self.leave = trio.Event()
        self.calls = 0
        self.ended = 0

    async def run(self, fn: Any, *args: object, lane: str = "default") -> Any:
        self.calls += 1
        with trio.CancelScope(shield=True):
            await self.leave.wait()
        self.ended += 1
        return fn(*args)


class Publisher:
    """Remembers what came together."""

    def __init__(self) -> None:
        self.groups: list[list[str]] = []
        self.groups_at_once = self.groups_at_once_most = self.keeping = 0
        self.error: LadingError | None = None

    async def keep(self, sealed: Sequence[Sealed]) -> Sequence[Sealed]:
        if sealed:
            self.groups.append([one for _, one in sealed])
        self.keeping += 1
        assert self.keeping == 1, "one group is kept at a time"
        await trio.sleep(0.1)
        self.keeping -= 1
        return sealed

    async def send(self, kept: Sequence[Sealed]) -> None:
        self.groups_at_once += 1
        self.groups_at_once_most = max(self.groups_at_once_most, self.groups_at_once)
        try:
            await trio.sleep(1)
            for number, (member, one) in enumerate(kept):
                if self.error is not None and number:
                    raise self.error
                member.give(f"{one} is out")
        finally:
            self.groups_at_once -= 1


def refuse() -> str:
    raise LadingError(Reason.NOT_FOUND, "no such file")


async def tell(groups: Groups[str, str, Sequence[Sealed]], name: str, told: dict[str, object]) -> None:
    seal = {"missing": refuse, "large": lambda: None}.get(name.split()[0], lambda: name)
    try:
        told[name] = await groups.join(seal)  # type: ignore[arg-type]  # None: not for a group
    except LadingError as error:
        told[name] = error.reason


def play(story: Any) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            await story()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_all_that_wait_go_together_first_come_first_served_and_each_is_told_of_itself() -> None:
    async def story() -> None:
        gate, publisher = Gate(), Publisher()
        groups: Groups[str, str, Sequence[Sealed]] = Groups(gate, publisher.keep, publisher.send)
        told: dict[str, object] = {}
        names = ["first", "missing one", "large one", *(f"put {number}" for number in range(140))]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(groups.run)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as puts:
                for name in names:
                    puts.start_soon(tell, groups, name, told)
                    await trio.testing.wait_all_tasks_blocked()
                gate.leave.set()
            nursery.cancel_scope.cancel()
        assert told.pop("missing one") is Reason.NOT_FOUND
        assert told.pop("large one") is None
        assert told == {name: f"{name} is out" for name in names if name in told}
        assert len(told) == 141
        assert publisher.groups[0] == ["first"]
        assert [one for group in publisher.groups for one in group] == ["first", *(f"put {number}" for number in range(140))]
        assert max(map(len, publisher.groups)) == GROUP_MEMBERS_MAX
        assert 1 < publisher.groups_at_once_most <= GROUPS_AT_ONCE_MAX

    play(story)


@pytest.mark.parametrize("began", [False, True])
def test_who_leaves_before_his_turn_is_left_out_and_who_leaves_later_waits_for_the_thread(began: bool) -> None:
    async def story() -> None:
        gate, publisher = Gate(), Publisher()
        groups: Groups[str, str, Sequence[Sealed]] = Groups(gate, publisher.keep, publisher.send)
        told: dict[str, object] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(groups.run)
            await trio.testing.wait_all_tasks_blocked()
            if not began:
                nursery.start_soon(tell, groups, "first", told)
                await trio.testing.wait_all_tasks_blocked()
            left = trio.Event()
            scope = trio.CancelScope()

            async def leaves() -> None:
                with scope:
                    await tell(groups, "leaving", told)
                left.set()

            nursery.start_soon(leaves)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            assert left.is_set() is not began
            gate.leave.set()
            await left.wait()
            assert gate.ended == (1 if began else gate.ended)
            await trio.sleep(5)
            nursery.cancel_scope.cancel()
        assert "leaving" not in told
        assert publisher.groups == ([["leaving"]] if began else [["first"]])

    play(story)


def test_what_was_told_before_a_failure_stands_and_a_stop_fails_whoever_waits() -> None:
    async def story() -> None:
        gate, publisher = Gate(), Publisher()
        publisher.error = StoreFull("no room")
        groups: Groups[str, str, Sequence[Sealed]] = Groups(gate, publisher.keep, publisher.send)
        told: dict[str, object] = {}
        async with trio.open_nursery() as puts, trio.open_nursery() as nursery:
            nursery.start_soon(groups.run)
            await trio.testing.wait_all_tasks_blocked()
            for name in ("a", "b", "c"):
                puts.start_soon(tell, groups, name, told)
                await trio.testing.wait_all_tasks_blocked()
            gate.leave.set()
            await trio.sleep(3)
            assert told == {"a": "a is out", "b": "b is out", "c": Reason.STORE_FULL}
            gate.leave = trio.Event()
            for number in range(30):
                puts.start_soon(tell, groups, f"late {number}", told)
            await trio.testing.wait_all_tasks_blocked()
            gate.leave.set()
            nursery.cancel_scope.cancel()
        assert all(told[f"late {number}"] is ActorGone("").reason for number in range(30))
        await tell(groups, "too late", told)
        assert told["too late"] is ActorGone("").reason

    play(story)
