"""Several holders of one sequence; each has its own idea of who is wanted and may take another's copy for the one that stays.

Checked after every step: there are at least as many copies as the smallest number that anybody wanted.
"""

from __future__ import annotations

from dataclasses import dataclass

from protocols.files.repair import (
    AskReceipts,
    DropCopy,
    DropState,
    ReceiptAnswered,
    SignReceipt,
    SignWithdrawal,
    SurplusDrop,
    Tick,
    Weighed,
)
from protocols.types import PeerId
from tests.simulation.models.chaos import Chaos, ModelBroken

WANTED_MIN = 2


@dataclass(frozen=True, slots=True)
class Word:
    """A receipt, or a withdrawal, with the counter of its store."""

    counter: int
    is_receipt: bool


@dataclass(frozen=True, slots=True)
class Ask:
    round: int


@dataclass(frozen=True, slots=True)
class Answer:
    round: int
    word: Word


class Holder:
    """One holder. signs_always: the planted bug, a receipt is signed for whoever asks, also after one's own withdrawal.
    takes_old: the other one, receipts known before the withdrawal are taken for answers."""

    def __init__(self, world: Chaos, name: str, *, signs_always: bool, takes_old: bool) -> None:
        self._world = world
        self._name = name
        self._signs_always = signs_always
        self._takes_old = takes_old
        self._counter = 0  # persisted
        self.has_copy = True  # persisted
        self._words: dict[str, Word] = {}
        self._drop = self._machine()

    def _machine(self) -> SurplusDrop:
        return SurplusDrop(PeerId(self._name.encode()), first_round=self._counter, answer_timeout_s=15.0, retry_after_s=0.0)

    def _say(self, is_receipt: bool) -> Word:
        self._counter += 1
        word = Word(self._counter, is_receipt)
        self._words[self._name] = word
        self._world.broadcast(self._name, word)
        return word

    def restart(self) -> None:
        if self.has_copy:
            self._drop = self._machine()
            self._say(is_receipt=True)

    def receive(self, sender: str, message: object) -> None:
        if isinstance(message, Word):
            self._hear(sender, message)
        elif isinstance(message, Ask):
            if self.has_copy and (self._signs_always or self._drop.may_sign_receipt):
                self._world.send(self._name, sender, Answer(message.round, self._say(is_receipt=True)))
        elif isinstance(message, Answer):
            self._hear(sender, message.word)
            self._step(ReceiptAnswered(PeerId(sender.encode()), message.round))

    def _hear(self, sender: str, word: Word) -> None:
        if sender not in self._words or word.counter > self._words[sender].counter:
            self._words[sender] = word

    def tick(self) -> None:
        self._step(Tick())
        wanted = self._world.rng.sample(sorted(self._world.nodes), WANTED_MIN)
        counting = [name for name, word in sorted(self._words.items()) if word.is_receipt]
        if self._drop.state is DropState.KEEPING or self._world.rng.random() < 0.02:
            self._step(Weighed(frozenset(PeerId(n.encode()) for n in wanted), frozenset(PeerId(n.encode()) for n in counting)))

    def _step(self, event: object) -> None:
        for effect in self._drop.step(event, self._world.now_s):
            if isinstance(effect, SignWithdrawal):
                self._say(is_receipt=False)
            elif isinstance(effect, SignReceipt):
                self._say(is_receipt=True)
            elif isinstance(effect, AskReceipts):
                for holder in effect.holders:
                    self._world.send(self._name, holder.decode(), Ask(effect.round))
                if self._takes_old:
                    for holder in effect.holders:
                        self._step(ReceiptAnswered(holder, effect.round))
            elif isinstance(effect, DropCopy):
                self.has_copy = False


def run(seed: int, *, steps: int = 600, signs_always: bool = False, takes_old: bool = False) -> int:
    """Number of copies that were dropped. Raises ModelBroken."""
    world = Chaos(seed)
    holders = {name: Holder(world, name, signs_always=signs_always, takes_old=takes_old) for name in "abcde"}
    world.nodes.update(holders)
    for holder in holders.values():
        holder.restart()
    for _ in range(steps):
        world.step()
        copies = sum(holder.has_copy for holder in holders.values())
        if copies < WANTED_MIN:
            raise ModelBroken(f"seed {seed}: {copies} copies left, {WANTED_MIN} wanted")
    return sum(not holder.has_copy for holder in holders.values())
