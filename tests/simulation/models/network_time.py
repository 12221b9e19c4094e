"""Members whose quartz is off by up to 50 ppm tell each other the time, without any time server; some lie, boards start anywhere.

Beats come in any order, late and lost; groups are cut off, nodes stand still or start again, wall clocks are set. Checked all the while:
no honest member's time goes back but where it is set; and after a start all who may act lie within the bound that is asked for.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from protocols.ledger.network_time import NetworkTime, OwnClock, TimeState
from protocols.limits import LEDGER_BEAT_S, LISTEN_FIRST_MS, TIME_STEP_MS
from protocols.types import AccountId
from tests.simulation.models.chaos import ModelBroken

TRUTH_AT_START_MS = 1_800_000_000_000
# A wrong clock of its own beside a liar is two wrong values: the error is halved each time the node listens, an hour in fourteen times.
SETTLED_S = 300
BEAT_MS = int(LEDGER_BEAT_S * 1000)
PPM_MAX = 50
# What the plan found for four or five members, one of them lying; and what quartzes and one hour beside a liar alone may do to a time.
SPREAD_MS_MAX = 204
PULLED_MS_MAX = 20_000
# A liar's number for a listener: (what the listener's time is, the truth, a random source) -> time.
Lie = Callable[[int, int, random.Random], int]


def pulls_apart(listener_ms: int, truth_ms: int, rng: random.Random) -> int:
    """Each is told what keeps it where it drifts to: ahead those that are ahead, behind those that are behind."""
    return listener_ms + (500 if listener_ms > truth_ms else -500)


def keeps_apart(listener_ms: int, truth_ms: int, rng: random.Random) -> int:
    """Each is told that it is right."""
    return listener_ms


def is_far(listener_ms: int, truth_ms: int, rng: random.Random) -> int:
    return truth_ms + 40 * 86_400_000


def is_anything(listener_ms: int, truth_ms: int, rng: random.Random) -> int:
    return max(1, truth_ms + rng.choice((-1, 1)) * rng.choice((100, 3_000, 1_800_000, 4_000_000, 10**14)))


LIES: tuple[Lie, ...] = (pulls_apart, keeps_apart, is_far, is_anything)


@dataclass
class Board:
    """One member's node.

    wall_ms: how far its wall clock is off the truth. frozen_until_ms: it does nothing before. lost_ms: what its clocks did not count while
    its machine was halted.
    """

    name: str
    ppm: float
    wall_ms: int = 0
    lie: Lie | None = None
    is_safe: bool = True
    is_synchronised: bool = False
    floor_ms: int = 0
    frozen_until_ms: int = 0
    lost_ms: int = 0
    time: NetworkTime = field(init=False)
    shown_ms: int = 0
    was: tuple[TimeState, int] = (TimeState.LISTENING, 0)

    def steady(self, now_ms: int) -> int:
        return int(now_ms * (1 + self.ppm / 1e6)) - self.lost_ms

    def own(self, now_ms: int) -> OwnClock:
        wall = TRUTH_AT_START_MS + self.wall_ms + (now_ms if self.is_synchronised else self.steady(now_ms))
        return OwnClock(wall if self.is_safe else None, self.is_synchronised, self.floor_ms)

    def start(self, now_ms: int) -> None:
        self.time = NetworkTime(self.steady(now_ms))
        self.time.look(self.own(now_ms), self.steady(now_ms))
        self.shown_ms = 0

    def now(self, now_ms: int) -> int:
        return self.time.now_ms(self.steady(now_ms))


@dataclass(frozen=True)
class Letter:
    """On its way. asked_ms: when the target asked, by its own steady clock."""

    at_ms: int
    sender: str
    target: str
    time_ms: int
    is_set: bool
    asked_ms: int


class Members:
    """The boards, the network between them, one seed."""

    def __init__(self, seed: int, boards: Sequence[Board], *, latency_ms: tuple[int, int] = (5, 60), loss: float = 0.05) -> None:
        self.rng = random.Random(seed)
        self.now_ms = 0
        self.boards = {board.name: board for board in boards}
        self._latency = latency_ms
        self._loss = loss
        self._letters: list[Letter] = []
        self._beat_at = {name: self.rng.randrange(BEAT_MS) for name in sorted(self.boards)}
        self._side: Mapping[str, int] = {}
        for board in boards:
            board.start(0)

    def cut(self, *sides: Sequence[str]) -> None:
        """Only those on one side hear each other; without sides everybody does."""
        self._side = {name: number for number, side in enumerate(sides) for name in side}

    def run(self, seconds: float, look: Callable[[], None] = lambda: None) -> None:
        """Time goes on, a beat of somebody at a time; ``look`` after each."""
        end = self.now_ms + int(seconds * 1000)
        while True:
            name = min(sorted(self._beat_at), key=lambda one: self._beat_at[one])
            if self._beat_at[name] > end:
                break
            self.now_ms = max(self.now_ms, self._beat_at[name])
            self._beat_at[name] += BEAT_MS
            self._arrive()
            self._beat(self.boards[name])
            look()
        self.now_ms = end
        self._arrive()

    def _beat(self, board: Board) -> None:
        if board.frozen_until_ms > self.now_ms:
            return
        board.time.look(board.own(self.now_ms), board.steady(self.now_ms))
        self._check(board)
        told, is_set = board.time.told(board.steady(self.now_ms))
        for other in (one for one in self.boards.values() if one is not board):
            if self._side.get(board.name, 0) != self._side.get(other.name, 0) or self.rng.random() < self._loss:
                continue
            way, back = self.rng.randint(*self._latency), self.rng.randint(*self._latency)
            time = told if board.lie is None else board.lie(other.now(self.now_ms), TRUTH_AT_START_MS + self.now_ms, self.rng)
            asked = other.steady(self.now_ms - way)
            self._letters.append(Letter(self.now_ms + back, board.name, other.name, time, is_set or board.lie is not None, asked))

    def _arrive(self) -> None:
        due = sorted((one for one in self._letters if one.at_ms <= self.now_ms), key=lambda one: (one.at_ms, one.sender, one.target))
        self._letters = [one for one in self._letters if one.at_ms > self.now_ms]
        for letter in due:
            board = self.boards[letter.target]
            # One that stands still reads what came when it goes on.
            at = board.steady(max(letter.at_ms, board.frozen_until_ms if board.frozen_until_ms <= self.now_ms else self.now_ms))
            board.time.hear(
                AccountId(letter.sender.encode()),
                letter.time_ms,
                is_set=letter.is_set,
                round_trip_ms=at - letter.asked_ms,
                steady_ms=at,
            )

    def _check(self, board: Board) -> None:
        """Time goes back nowhere but where it is set, and then nobody acts by it before."""
        shown, state = board.now(self.now_ms), board.time.state
        if board.was[0] is TimeState.SET and state is TimeState.SET and shown < board.shown_ms:
            raise ModelBroken(f"{board.name}: time went back by {board.shown_ms - shown} ms")
        board.shown_ms, board.was = shown, (state, self.now_ms)

    # --- what is asked ------------------------------------------------------------------------------------------------

    def acting(self) -> list[Board]:
        return [board for board in self.boards.values() if board.lie is None and board.time.may_act]

    def spread(self) -> int:
        """Milliseconds between the honest ones that may act."""
        times = [board.now(self.now_ms) for board in self.acting()]
        return max(times) - min(times) if times else 0

    def worst(self, seconds: float) -> int:
        """The greatest spread while time goes on."""
        found = 0

        def look() -> None:
            nonlocal found
            found = max(found, self.spread())

        self.run(seconds, look)
        return found

    def error(self, name: str) -> int:
        """How far its time is from the truth."""
        return self.boards[name].now(self.now_ms) - TRUTH_AT_START_MS - self.now_ms


def quartzes(rng: random.Random, count: int) -> list[float]:
    """Within ±PPM_MAX, both ends among them: the worst case."""
    found = [float(-PPM_MAX), float(PPM_MAX), *(rng.uniform(-PPM_MAX, PPM_MAX) for _ in range(count - 2))]
    rng.shuffle(found)
    return found


def steady_members(seed: int, members: int, *, lie: Lie | None, hours: float) -> int:
    """Worst spread in ms of honest members, one of ``members`` lying where ``lie`` says how, over so many hours. Raises ModelBroken."""
    rng = random.Random(seed)
    boards = [Board(f"m{number}", ppm, rng.randint(-30, 30)) for number, ppm in enumerate(quartzes(rng, members - (lie is not None)))]
    if lie is not None:
        boards.append(Board("liar", 0.0, lie=lie))
    world = Members(seed, boards)
    world.run(2 * LISTEN_FIRST_MS / 1000)
    if len(world.acting()) != members - (lie is not None):
        raise ModelBroken(f"seed {seed}: somebody does not act")
    return world.worst(hours * 3600)


def disturbed(seed: int, *, members: int = 5, lie: Lie | None = is_anything, rounds: int = 12) -> None:
    """Cuts, standstills, starts with wrong clocks and clocks that are set, one after the other; each time, an hour's cut included, all act
    again after SETTLED_S, and near each other; in the end as near as members that nothing disturbs. Raises ModelBroken."""
    rng = random.Random(seed)
    count = members - (lie is not None)
    boards = [Board(f"m{number}", ppm, rng.randint(-100, 100)) for number, ppm in enumerate(quartzes(rng, count))]
    if lie is not None:
        boards.append(Board("liar", 0.0, lie=lie))
    world = Members(seed, boards)
    world.run(60)
    for _ in range(rounds):
        board = rng.choice(boards[:count])
        match rng.randrange(5):
            case 0:
                names = [one.name for one in boards]
                rng.shuffle(names)
                at = rng.randrange(1, len(names))
                world.cut(names[:at], names[at:])
                world.run(rng.choice((10, 600, 3600)))
                world.cut()
            case 1:
                board.frozen_until_ms = world.now_ms + 60_000
                world.run(60)
                board.lost_ms += rng.choice((0, 60_000))
            case 2:
                board.wall_ms = rng.choice((-3_600_000, 3_600_000, -86_400_000, 20, 0))
                board.start(world.now_ms)
            case 3:
                board.wall_ms += rng.choice((-3_600_000, -2_000, 2_000, 600_000))
            case _:
                board.is_safe, board.wall_ms = False, -TRUTH_AT_START_MS
                board.start(world.now_ms)
                world.run(5)
        world.run(SETTLED_S)
        for one in boards:
            one.is_safe = True if one.wall_ms > -TRUTH_AT_START_MS else one.is_safe
        if len(world.acting()) != count:
            raise ModelBroken(f"seed {seed}: {[(one.name, one.time.state) for one in boards[:count]]} long after the fault")
        if world.spread() > 2 * TIME_STEP_MS:
            raise ModelBroken(f"seed {seed}: {world.spread()} ms between members long after the fault")
    world.run(900)
    if world.spread() > SPREAD_MS_MAX:
        raise ModelBroken(f"seed {seed}: {world.spread()} ms between members that nothing disturbs any more")
    if max(abs(world.error(one.name)) for one in boards[:count]) > PULLED_MS_MAX:
        raise ModelBroken(f"seed {seed}: the members were pulled away from the truth")
