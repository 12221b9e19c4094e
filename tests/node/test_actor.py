"""The shape of an actor, shown on a ledger of numbers: it keeps, then speaks, and never leaves an asker waiting."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from node.actor import Actor, Mailbox, Reply
from protocols.errors import ActorGone, LadingError, LocalError, Reason, Refused, StoreFull


@dataclass(frozen=True)
class Add:
    amount: int
    reply: Reply[int]


@dataclass(frozen=True)
class Hold:
    """Wants an answer that never comes."""

    reply: Reply[None]


@dataclass(frozen=True)
class Whisper:
    amount: int


Message = Add | Hold | Whisper


@dataclass
class Disk:
    """What survives: a total, how often it was written, and what goes wrong with it."""

    total: int = 0
    commits: list[int] = field(default_factory=list)
    error: LadingError | None = None
    delay_s: float = 0.0


class Counter(Actor[Message]):
    """Adds numbers. Negative ones are refused, 666 breaks an invariant."""

    def __init__(self, disk: Disk, *, capacity: int = 16, batch_max: int = 4) -> None:
        super().__init__("counter", capacity=capacity, batch_max=batch_max)
        self.disk = disk
        self.total = 0
        self.published: list[int] = []

    async def load(self) -> None:
        self.total = self.disk.total

    def handle(self, message: Message) -> None:
        match message:
            case Add(amount, reply):
                self.after_keep(lambda: self.published.append(amount))
                self._add(amount)
                self.answer(reply, self.total)
            case Whisper(amount):
                self._add(amount)
            case Hold():
                pass

    def _add(self, amount: int) -> None:
        if amount < 0:
            raise Refused(Reason.REFUSED, f"{amount}, at least 0 wanted")
        assert amount != 666
        self.total += amount

    async def keep(self) -> None:
        await trio.sleep(self.disk.delay_s)
        if self.disk.error is not None:
            raise self.disk.error
        self.disk.total = self.total
        self.disk.commits.append(self.total)

    def keep_failed(self, error: LadingError) -> None:
        if not isinstance(error, StoreFull):
            raise error
        self.total = self.disk.total

    async def add(self, amount: int) -> int:
        return await self.mailbox.ask(lambda reply: Add(amount, reply))


async def _fall(counter: Counter, message: Message) -> list[BaseException]:
    """Runs the counter until the message makes it fall; what it fell with."""
    try:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(counter.run)
            await counter.mailbox.tell(message)
            await trio.sleep_forever()
    except BaseExceptionGroup as group:
        return list(group.exceptions)


async def test_answer_comes_after_the_commit_and_one_commit_serves_the_batch(autojump_clock: MockClock, nursery: trio.Nursery) -> None:
    """Goal: durable, then said; batching. Method: six askers wait before the actor starts, four fit a batch, a commit takes 1 s."""
    counter = Counter(Disk(delay_s=1.0))
    answered: list[tuple[float, int]] = []

    async def ask(amount: int) -> None:
        total = await counter.add(amount)
        assert total in range(counter.disk.total + 1), "an answer before its commit"
        answered.append((trio.current_time(), total))

    async with trio.open_nursery() as askers:
        for _ in range(6):
            askers.start_soon(ask, 1)
        await wait_all_tasks_blocked()
        nursery.start_soon(counter.run)
    assert counter.disk.commits == [4, 6]
    assert sorted((round(at), total) for at, total in answered) == [(1, 1), (1, 2), (1, 3), (1, 4), (2, 5), (2, 6)]
    assert counter.published == [1] * 6


async def test_refused_message_is_answered_and_the_rest_of_the_batch_is_kept(nursery: trio.Nursery) -> None:
    """Goal: one bad message spoils nothing. Method: good, bad asked, bad told, good."""
    counter = Counter(Disk())
    nursery.start_soon(counter.run)
    assert await counter.add(1) == 1
    with pytest.raises(Refused) as failure:
        await counter.add(-1)
    assert failure.value.reason is Reason.REFUSED
    await counter.mailbox.tell(Whisper(-1))
    assert await counter.add(2) == 3
    assert counter.published == [1, 2], "what the refused one wanted to say was not said"


async def test_failed_commit_fails_the_whole_batch_and_says_nothing(nursery: trio.Nursery) -> None:
    """Goal: nothing is said that was not kept. Method: a full store, then a store with room again."""
    counter = Counter(Disk(error=StoreFull("no room")))
    nursery.start_soon(counter.run)
    for _ in range(2):
        with pytest.raises(StoreFull):
            await counter.add(5)
    assert counter.published == []
    counter.disk.error = None
    assert await counter.add(1) == 1
    assert counter.published == [1]


async def test_commit_that_cannot_be_undone_makes_the_actor_fall() -> None:
    """Goal: an actor that does not know what is kept does not go on. Method: an error keep_failed does not take; a LocalError."""
    for error in (Refused(Reason.REFUSED), LocalError(Reason.FAILED)):
        assert await _fall(Counter(Disk(error=error)), Whisper(1)) == [error]


async def test_askers_when_the_actor_falls_get_actor_gone(autojump_clock: MockClock) -> None:
    """Goal: nobody waits for ever. Method: the actor falls in a commit; one reply is held since long, two are in the batch, four are
    queued, two wait for room; then somebody asks while it is down."""
    counter = Counter(Disk(), capacity=4, batch_max=2)
    gone: list[str] = []

    async def hold() -> None:
        with pytest.raises(ActorGone):
            await counter.mailbox.ask(Hold)
        gone.append("held")

    async def ask() -> None:
        with pytest.raises(ActorGone):
            await counter.add(1)
        gone.append("asked")

    async def run_and_fall() -> None:
        with pytest.raises(Refused):
            await counter.run()

    with trio.fail_after(5):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(run_and_fall)
            nursery.start_soon(hold)
            await wait_all_tasks_blocked()
            counter.disk.delay_s = 1.0
            counter.disk.error = Refused(Reason.REFUSED)
            for _ in range(8):
                nursery.start_soon(ask)
            await wait_all_tasks_blocked()
            assert gone == []
    assert sorted(gone) == ["asked"] * 8 + ["held"]
    with pytest.raises(ActorGone):
        await counter.add(1)
    with pytest.raises(ActorGone):
        await counter.mailbox.tell(Whisper(1))
    assert not counter.mailbox.tell_nowait(Whisper(1))


async def test_broken_invariant_falls_and_a_second_life_reads_what_was_kept(nursery: trio.Nursery) -> None:
    """Goal: handles stay good across a restart, and memory that was not kept is gone. Method: add, break in a batch, run again."""
    counter = Counter(Disk())
    async with trio.open_nursery() as first_life:
        first_life.start_soon(counter.run)
        assert await counter.add(1) == 1
        first_life.cancel_scope.cancel()
    counter.mailbox.open()
    await counter.mailbox.tell(Whisper(10))
    (error,) = await _fall(counter, Whisper(666))
    assert isinstance(error, AssertionError)
    assert counter.total == 11, "the first of the batch had been handled"
    nursery.start_soon(counter.run)
    await wait_all_tasks_blocked()
    assert await counter.add(1) == 2
    assert counter.published == [1, 1]


async def test_mailbox_when_full_makes_tellers_wait_and_hints_drop() -> None:
    """Goal: the queue is bounded. Method: fill it with nobody taking."""
    mailbox: Mailbox[Message] = Mailbox("idle", capacity=3)
    for amount in range(3):
        assert mailbox.tell_nowait(Whisper(amount))
    assert not mailbox.tell_nowait(Whisper(3))
    with trio.move_on_after(0.01) as waiting:
        await mailbox.tell(Whisper(3))
    assert waiting.cancelled_caught
    assert mailbox.queued_max == 3
    assert [message for message, _ in await mailbox.take(2)] == [Whisper(0), Whisper(1)]
    assert [message for message, _ in await mailbox.take(2)] == [Whisper(2)]


async def test_asker_who_went_away_harms_nobody(nursery: trio.Nursery) -> None:
    """Goal: answers to nobody are dropped. Method: cancel an ask before the actor starts, then ask again."""
    counter = Counter(Disk())
    with trio.move_on_after(0.01) as scope:
        await counter.add(1)
    assert scope.cancelled_caught
    nursery.start_soon(counter.run)
    assert await counter.add(1) == 2


async def test_reply_is_given_once() -> None:
    """Goal: one question, one answer. Method: answer, then answer and fail again."""
    reply: Reply[int] = Reply()
    assert reply.is_open
    reply.answer(1)
    with pytest.raises(AssertionError):
        reply.answer(2)
    with pytest.raises(AssertionError):
        reply.fail(ActorGone())
    assert await reply.wait() == 1
