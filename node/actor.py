"""Mailbox and reply: the shape of every actor.

One task owns one piece of state; others hold a handle and send messages. Four beats:
*take* one message and whatever else is there, *handle* each with a plain synchronous method, *keep* everything with one commit,
*speak*: only now do answers and announcements leave. If the actor stops, every open reply fails with ActorGone.

*Ask down, tell up*: ``Mailbox.ask`` only towards actors below; upward goes the bus, which never waits.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

import trio

from protocols.errors import ActorGone, LadingError, LocalError

M = TypeVar("M")
T = TypeVar("T")

log = logging.getLogger(__name__)

# Enough for one message of each conversation of a busy node; whoever finds it full waits, which is the back-pressure we want.
MAILBOX_MESSAGES_MAX = 256

# One durable commit costs milliseconds, handling a message microseconds: this many share a commit without one waiting long for it.
BATCH_MESSAGES_MAX = 64


class Reply(Generic[T]):
    """The slot for one answer. Answered or failed once; the asker alone waits on it, and may have gone away."""

    __slots__ = ("_done", "_error", "_value")

    def __init__(self) -> None:
        self._done = trio.Event()
        self._value: T | None = None
        self._error: LadingError | None = None

    @property
    def is_open(self) -> bool:
        """Not answered yet."""
        return not self._done.is_set()

    def answer(self, value: T) -> None:
        """Gives the answer. Actors use ``Actor.answer`` instead, which waits for the commit."""
        assert self.is_open, "answered twice"
        self._value = value
        self._done.set()

    def fail(self, error: LadingError) -> None:
        """Gives an error as the answer."""
        assert self.is_open, "answered twice"
        self._error = error
        self._done.set()

    async def wait(self) -> T:
        """The answer, or the error it was failed with."""
        await self._done.wait()
        if self._error is not None:
            raise self._error
        return self._value  # type: ignore[return-value]  # answered without error: it is a T (which may be None)


class Mailbox(Generic[M]):
    """Bounded queue in front of one actor. It outlives the actor's falls, so handles stay good across a restart.

    While the actor is down, ``ask`` and ``tell`` raise ActorGone at once. Before its first start messages simply wait.
    """

    def __init__(self, name: str, *, capacity: int = MAILBOX_MESSAGES_MAX) -> None:
        assert capacity >= 1
        self.name = name
        self.capacity = capacity
        self.queued_max = 0
        self._open_replies: dict[Reply[object], None] = {}
        self._is_down = False
        self._sender, self._receiver = trio.open_memory_channel[tuple[M, "Reply[object] | None"]](capacity)

    async def ask(self, build: Callable[[Reply[T]], M]) -> T:
        """Sends ``build(reply)`` and waits for the answer. Raises ActorGone, or the error the actor answered with."""
        reply: Reply[T] = Reply()
        slot: Reply[object] = reply  # type: ignore[assignment]  # only failed and compared through this name
        self._open_replies[slot] = None
        try:
            await self._put(build(reply), slot)
            return await reply.wait()
        finally:
            self._open_replies.pop(slot, None)

    async def tell(self, message: M) -> None:
        """Sends a message that wants no answer; waits for room. Raises ActorGone."""
        await self._put(message, None)

    def tell_nowait(self, message: M) -> bool:
        """Sends if there is room. False: full or down, the message was dropped (for hints that may be lost)."""
        if self._is_down:
            return False
        try:
            self._sender.send_nowait((message, None))
        except trio.WouldBlock:
            return False
        self._note_length()
        return True

    async def _put(self, message: M, reply: Reply[object] | None) -> None:
        if self._is_down:
            raise ActorGone(f"{self.name} is down")
        try:
            await self._sender.send((message, reply))
        except trio.BrokenResourceError as error:
            raise ActorGone(f"{self.name} stopped") from error
        self._note_length()

    def _note_length(self) -> None:
        self.queued_max = max(self.queued_max, self._sender.statistics().current_buffer_used)

    async def take(self, batch_max: int) -> list[tuple[M, Reply[object] | None]]:
        """At least one message, and what else is there, up to ``batch_max``, oldest first."""
        batch = [await self._receiver.receive()]
        while len(batch) < batch_max:
            try:
                batch.append(self._receiver.receive_nowait())
            except trio.WouldBlock:
                break
        return batch

    def open(self) -> None:
        """The actor is up (again)."""
        if self._is_down:
            self._sender, self._receiver = trio.open_memory_channel[tuple[M, "Reply[object] | None"]](self.capacity)
            self._is_down = False

    def close(self) -> None:
        """The actor is down: every open reply fails with ActorGone, queued messages are dropped."""
        self._is_down = True
        self._receiver.close()
        for reply in tuple(self._open_replies):
            if reply.is_open:
                reply.fail(ActorGone(f"{self.name} stopped"))


class Actor(Generic[M]):
    """Base of every actor: subclasses write ``handle``, and ``load``/``keep``/``keep_failed`` when they keep something."""

    def __init__(self, name: str, *, capacity: int = MAILBOX_MESSAGES_MAX, batch_max: int = BATCH_MESSAGES_MAX) -> None:
        assert 1 <= batch_max <= capacity
        self.name = name
        self.batch_max = batch_max
        self.mailbox: Mailbox[M] = Mailbox(name, capacity=capacity)
        self._unsaid: list[Callable[[], None]] = []

    # --- what subclasses write -------------------------------------------------------------------------------------

    async def load(self) -> None:
        """Reads the state at the start of every run, the first and those after a fall."""

    def handle(self, message: M) -> None:
        """Decides about one message. Checks first, changes after: a LadingError raised here answers the message (or is logged
        when nobody waits) and must leave the state as it was. A LocalError or any other exception makes the actor fall."""
        raise NotImplementedError

    async def keep(self) -> None:
        """One commit for everything the batch changed."""

    def keep_failed(self, error: LadingError) -> None:
        """``keep`` raised: bring the state back to what is kept, then return, and the whole batch is answered with the error (so forget
        replies of this batch that were held for later); or raise, and the actor falls. An actor that cannot go back falls."""
        raise error

    # --- what subclasses call inside ``handle`` --------------------------------------------------------------------

    def answer(self, reply: Reply[T], value: T) -> None:
        """Answers after the commit."""
        self.after_keep(lambda: reply.answer(value))

    def refuse(self, reply: Reply[T], error: LadingError) -> None:
        """Answers with an error after the commit."""
        self.after_keep(lambda: reply.fail(error))

    def after_keep(self, act: Callable[[], None]) -> None:
        """Does ``act`` (publish, send without waiting) after the commit, in the order given; never if the commit fails."""
        self._unsaid.append(act)

    # --- the four beats --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled or fallen. May be run again after a fall."""
        self.mailbox.open()
        self._unsaid.clear()
        try:
            await self.load()
            while True:
                await self._beat(await self.mailbox.take(self.batch_max))
        finally:
            self.mailbox.close()

    async def _beat(self, batch: Sequence[tuple[M, Reply[object] | None]]) -> None:
        for message, reply in batch:
            self._handle_one(message, reply)
        try:
            await self.keep()
        except LocalError:
            raise
        except LadingError as error:
            self.keep_failed(error)
            self._unsaid.clear()
            self._fail_batch(batch, error)
            return
        unsaid, self._unsaid = self._unsaid, []
        for act in unsaid:
            act()

    def _handle_one(self, message: M, reply: Reply[object] | None) -> None:
        said_before = len(self._unsaid)
        try:
            self.handle(message)
        except LocalError:
            raise
        except LadingError as error:
            del self._unsaid[said_before:]
            if reply is None:
                log.warning("message refused actor=%s message=%s error=%s", self.name, type(message).__name__, error)
            else:
                self.refuse(reply, error)

    def _fail_batch(self, batch: Sequence[tuple[M, Reply[object] | None]], error: LadingError) -> None:
        for _, reply in batch:
            if reply is not None and reply.is_open:
                reply.fail(error)
