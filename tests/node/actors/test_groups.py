"""Puts that go together: who is let in, who is left out, and what each is told."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import trio
import trio.testing

from node.actors.groups import GROUP_BYTES_MAX, GROUP_MEMBERS_MAX, HELD_BYTES_MAX, SEALING_PATIENCE_S, SEALINGS_AT_ONCE_MAX, Groups, Member
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
        self.keeping = 0
        self.error: LadingError | None = None

    async def keep(self, sealed: Sequence[Sealed]) -> None:
        if sealed:
            self.groups.append([one for _, one in sealed])
        self.keeping += 1
        assert self.keeping == 1, "one group is kept at a time"
        try:
            await trio.sleep(0.1)
        finally:
            self.keeping -= 1
        for number, (member, one) in enumerate(sealed):
            if self.error is not None and number:
                raise self.error
            member.give(f"{one} is out")


def refuse() -> str:
    raise LadingError(Reason.NOT_FOUND, "no such file")


def stumble() -> str:
    raise PermissionError("a system call that nobody thought of")


async def tell(groups: Groups[str, str], name: str, told: dict[str, object]) -> None:
    seal = {"missing": refuse, "odd": stumble, "large": lambda: None}.get(name.split()[0], lambda: name)
    try:
        told[name] = await groups.join(seal)
    except LadingError as error:
        told[name] = error.reason
    except PermissionError as error:
        told[name] = str(error)


def play(story: Any) -> None:
    async def main() -> None:
        with trio.fail_after(60):
            await story()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


def test_all_that_wait_go_together_first_come_first_served_and_each_is_told_of_itself() -> None:
    async def story() -> None:
        gate, publisher = Gate(), Publisher()
        groups: Groups[str, str] = Groups(gate, publisher.keep, size=len)
        told: dict[str, object] = {}
        names = ["first", "missing one", "large one", "odd one", *(f"put {number}" for number in range(140))]
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
        assert told.pop("odd one") == "a system call that nobody thought of"
        assert told == {name: f"{name} is out" for name in names if name in told}
        assert len(told) == 141
        assert publisher.groups[0] == ["first"]
        assert [one for group in publisher.groups for one in group] == ["first", *(f"put {number}" for number in range(140))]
        assert max(map(len, publisher.groups)) == GROUP_MEMBERS_MAX

    play(story)


class Depths:
    """An offload of many threads, whose calls for some members come back late or never."""

    def __init__(self, members: Sequence[str], hang_s: float) -> None:
        self.members = set(members)
        self.hang_s = hang_s
        self.hanging = 0
        self.hanging_most = 0

    async def run(self, fn: Any, *args: object, lane: str = "default") -> Any:
        self.now = []
        fn(*args)
        if self.members & set(self.now):
            self.hanging += 1
            self.hanging_most = max(self.hanging, self.hanging_most)
            with trio.CancelScope(shield=True):
                await trio.sleep(self.hang_s)
            self.hanging -= 1

    now: Sequence[str] = ()


@pytest.mark.parametrize("count", [1, 5])
def test_disk_that_hangs_holds_up_its_own_group_and_takes_few_threads(count: int) -> None:
    """Method: groups of one each; the first ones' thread comes back after a while; the ones after them are out long before that, unless
    all threads there are for this hang."""

    async def story() -> None:
        hanging = [f"hanging {number}" for number in range(count)]
        depths, publisher = Depths(hanging, 20), Publisher()
        groups: Groups[str, str] = Groups(depths, publisher.keep, size=len)
        told: dict[str, object] = {}
        names = [*hanging, *(f"put {number}" for number in range(30))]

        async def put(name: str) -> None:
            def seal() -> str:
                depths.now = [*depths.now, name]
                return name

            told[name] = await groups.join(seal)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(groups.run)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as puts:
                for name in hanging:
                    puts.start_soon(put, name)
                    await trio.sleep(1.5 * SEALING_PATIENCE_S)
                for name in names[count:]:
                    puts.start_soon(put, name)
                if count < SEALINGS_AT_ONCE_MAX:
                    await trio.sleep(5)
                    assert told == {name: f"{name} is out" for name in names[count:]}
            nursery.cancel_scope.cancel()
        assert depths.hanging_most == min(count, SEALINGS_AT_ONCE_MAX)
        assert told == {name: f"{name} is out" for name in names}

    play(story)


def test_slow_commit_lets_the_next_groups_fill_up() -> None:
    """Goal: patience is for threads; whoever waits to be kept is not overtaken by ever smaller groups."""

    async def story() -> None:
        gate, publisher = Gate(), Publisher()
        gate.leave.set()
        kept = publisher.keep

        async def keep(sealed: Sequence[Sealed]) -> None:
            await trio.sleep(10 * SEALING_PATIENCE_S)
            await kept(sealed)

        groups: Groups[str, str] = Groups(gate, keep, size=len)
        told: dict[str, object] = {}
        async with trio.open_nursery() as nursery:
            nursery.start_soon(groups.run)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as puts:
                for number in range(14):
                    puts.start_soon(tell, groups, f"put {number}", told)
                    await trio.sleep(SEALING_PATIENCE_S / 3)
            nursery.cancel_scope.cancel()
        assert [len(group) for group in publisher.groups] == [1, 1, 12]

    play(story)


@pytest.mark.parametrize("began", [False, True])
def test_who_leaves_before_he_is_sealed_is_left_out_and_waits_for_the_thread_that_works_for_him(began: bool) -> None:
    async def story() -> None:
        gate, publisher = Gate(), Publisher()
        groups: Groups[str, str] = Groups(gate, publisher.keep, size=len)
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
        assert publisher.groups == ([] if began else [["first"]])

    play(story)


def test_what_was_told_before_a_failure_stands_and_a_stop_fails_whoever_waits() -> None:
    async def story() -> None:
        gate, publisher = Gate(), Publisher()
        publisher.error = StoreFull("no room")
        groups: Groups[str, str] = Groups(gate, publisher.keep, size=len)
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


def test_after_a_fall_groups_form_again() -> None:
    """Method: what keeps them fails in a way of its own while one group is kept, one sealed and one forms; then it is run anew."""

    async def story() -> None:
        gate, publisher = Gate(), Publisher()
        gate.leave.set()
        fell = False

        async def keep(sealed: Sequence[Sealed]) -> None:
            nonlocal fell
            if not fell:
                await trio.sleep(0.1)
                fell = True
                raise RuntimeError("a fault of ours")
            await publisher.keep(sealed)

        groups: Groups[str, str] = Groups(gate, keep, size=len)
        told: dict[str, object] = {}
        async with trio.open_nursery() as puts:
            for number in range(3 * GROUP_MEMBERS_MAX):
                puts.start_soon(run_later, number, groups, told)
            with pytest.raises(ExceptionGroup):
                await groups.run()
            assert set(told.values()) <= {ActorGone("").reason}
        assert len(told) == 3 * GROUP_MEMBERS_MAX
        async with trio.open_nursery() as nursery:
            nursery.start_soon(groups.run)
            await trio.testing.wait_all_tasks_blocked()
            await tell(groups, "again", told)
            nursery.cancel_scope.cancel()
        assert told["again"] == "again is out"

    play(story)


async def run_later(number: int, groups: Groups[str, str], told: dict[str, object]) -> None:
    await trio.sleep(0.001 * number)
    await tell(groups, f"put {number}", told)


def test_group_ends_when_a_commit_is_full_and_who_is_left_goes_with_the_next_in_order() -> None:
    """Method: eleven of which three fill a group, taken in at once; one of those it does not come to goes away while the thread is busy."""

    async def story() -> None:
        gate, publisher = Gate(), Publisher()
        groups: Groups[str, str] = Groups(gate, publisher.keep, size=lambda _: GROUP_BYTES_MAX * 3 // 8)
        told: dict[str, object] = {}
        names = [f"put {number}" for number in range(11)]
        async with trio.open_nursery() as nursery:
            nursery.start_soon(groups.run)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as puts:
                scope = trio.CancelScope()

                async def leave() -> None:
                    with scope:
                        await tell(groups, "put 7", told)

                for name in names:
                    if name == "put 7":
                        puts.start_soon(leave)
                    else:
                        puts.start_soon(tell, groups, name, told)
                    if name in ("put 0", "put 10"):
                        await trio.testing.wait_all_tasks_blocked()
                scope.cancel()
                await trio.testing.wait_all_tasks_blocked()
                gate.leave.set()
            nursery.cancel_scope.cancel()
        names.remove("put 7")
        assert told == {name: f"{name} is out" for name in names}
        assert publisher.groups[0] == ["put 0"]
        assert sorted(one for group in publisher.groups for one in group) == sorted(names)
        assert max(map(len, publisher.groups)) == 3

    play(story)


def test_no_more_is_sealed_while_too_much_is_in_memory() -> None:
    """Goal: what waits for slow holders is bounded by bytes. Method: as many as hold twice the bound; their holders don't answer, then one
    after the other does; one whose holder never does is given up."""

    async def story() -> None:
        gate, publisher = Gate(), Publisher()
        gate.leave.set()
        size = HELD_BYTES_MAX // 8
        groups: Groups[str, str] = Groups(gate, publisher.keep, size=lambda _: size)
        answered = [trio.Event() for _ in range(16)]
        scopes = [trio.CancelScope() for _ in range(16)]
        out: list[int] = []

        async def put(number: int) -> None:
            async def then(_: str) -> None:
                out.append(number)
                await answered[number].wait()

            with scopes[number]:
                await groups.join(lambda: f"put {number}", then)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(groups.run)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as puts:
                for number in range(16):
                    puts.start_soon(put, number)
                await trio.sleep(30)
                held = len(out)
                assert HELD_BYTES_MAX <= held * size <= HELD_BYTES_MAX + GROUP_BYTES_MAX + size
                scopes[out[0]].cancel()
                for number in range(16):
                    answered[number].set()
                    await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert sorted(out) == list(range(16))
        assert groups._held_bytes == 0

    play(story)
