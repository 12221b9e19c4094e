"""Boards that boot in the past hear times from members, some of whom lie; crashes lose what was heard, floors are kept.

Checked after every step: a clock below its floor shows the floor or, while fewer than two members lie, a time that an honest
member would say within the tolerance, give or take; no floor is ever further ahead of the truth than a good quartz is. In the end
whoever hears two honest members has the time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from protocols.identity.clockfloor import ClockFloor, ClockReports, ClockSource
from protocols.limits import CLOCK_SKEW_MAX_S
from protocols.types import MemberId, UnixSeconds
from tests.simulation.models.chaos import Chaos, ModelBroken

TRUTH_AT_START_S = 1_000_000
BATTERY_LACKING_S = 900_000  # what a board without battery is behind
QUARTZ_ERROR_S = 100  # how far an honest clock may be off: two of them lie within the tolerance
FAR_S = 500_000

Agree = Callable[[ClockFloor, ClockReports, int, int], ClockFloor]
Write = Callable[[ClockFloor, ClockReports, int, int, int], ClockFloor]


def agree_rightly(floor: ClockFloor, reports: ClockReports, clock: int, steady: int) -> ClockFloor:
    return floor.agreed_by(reports.times(steady), clock=clock, steady=steady)


def agree_with_anybody(floor: ClockFloor, reports: ClockReports, clock: int, steady: int) -> ClockFloor:
    """Planted bug: the word of one member is enough."""
    times = reports.times(steady)
    twice = times | {MemberId(b"again" + member): time for member, time in times.items()}
    return floor.agreed_by(twice, clock=clock, steady=steady)


def agree_whatever_the_clock(floor: ClockFloor, reports: ClockReports, clock: int, steady: int) -> ClockFloor:
    """Planted bug: what members agree on becomes the floor."""
    agreed = floor.agreed_by(reports.times(steady), clock=clock, steady=steady)
    return agreed.raised_by_persisted(agreed.read(clock, steady).now)


def write_rightly(floor: ClockFloor, reports: ClockReports, clock: int, steady: int, counted: int) -> ClockFloor:
    return floor.raised_by_own(clock, counted=counted, times=reports.times(steady))


def write_the_clock(floor: ClockFloor, reports: ClockReports, clock: int, steady: int, counted: int) -> ClockFloor:
    """Planted bug: our own clock is written down whatever others say."""
    return floor.raised_by_persisted(clock)


@dataclass(frozen=True, slots=True)
class Told:
    member: MemberId
    time: int
    is_safe: bool


class Board:
    """One node of a member. error_s: how far its machine's clock is from the truth. liar: says FAR_S more, and that it is safe."""

    def __init__(self, world: Chaos, name: str, member: str, *, error_s: int, liar: bool, agree: Agree, write: Write) -> None:
        self._world = world
        self._name = name
        self._member = MemberId(member.encode())
        self.error_s = error_s
        self.liar = liar
        self._agree = agree
        self._write = write
        self._persisted = TRUTH_AT_START_S - 1000  # what issuers signed, known to all
        self.boot()

    def boot(self) -> None:
        """What is in memory is gone, the steady clock begins at zero."""
        self._booted_at_s = self._world.now_s
        self.reports = ClockReports()
        self.floor = ClockFloor(floor=UnixSeconds(self._persisted))
        self._counted_from = self._persisted

    @property
    def steady(self) -> int:
        return int(self._world.now_s - self._booted_at_s)

    @property
    def clock(self) -> int:
        return TRUTH_AT_START_S + int(self._world.now_s) + self.error_s

    @property
    def source(self) -> ClockSource:
        return self.floor.read(self.clock, self.steady).source

    @property
    def now(self) -> int:
        return self.floor.read(self.clock, self.steady).now

    @property
    def written(self) -> int:
        return self._persisted

    def restart(self) -> None:
        self.boot()

    def tick(self) -> None:
        self.floor = self._agree(self.floor, self.reports, self.clock, self.steady)
        self.floor = self._write(self.floor, self.reports, self.clock, self.steady, self._counted_from + self.steady)
        self._persisted = max(self._persisted, self.floor.floor)
        lie = FAR_S if self.liar else 0
        truth = TRUTH_AT_START_S + int(self._world.now_s)
        told = Told(self._member, truth + lie, True) if self.liar else Told(self._member, self.now, self.source is ClockSource.MACHINE)
        self._world.broadcast(self._name, told)

    def receive(self, sender: str, message: object) -> None:
        assert isinstance(message, Told)
        if message.is_safe:
            self.reports.hear(message.member, message.time, self.steady)


def run(seed: int, *, liars: int = 1, agree: Agree = agree_rightly, write: Write = write_rightly, steps: int = 300) -> int:
    """Number of boards whose time was agreed on. Raises ModelBroken.

    Members a, b, c are honest with good clocks, d and e boot in the past, f's clock is far ahead, and not where the liars say; x and its
    second node x2, and y with two liars, lie. An honest clock that is wrong just as a liar says would be a second liar."""
    world = Chaos(seed)
    errors = {name: world.rng.randrange(-QUARTZ_ERROR_S, QUARTZ_ERROR_S) for name in "abc"}
    errors |= {"d": -BATTERY_LACKING_S, "e": -BATTERY_LACKING_S, "f": FAR_S // 2}
    lying = (("x", "x"), ("x2", "x"), ("y", "y"))[: 0 if not liars else 2 if liars == 1 else 3]
    boards: dict[str, Board] = {}
    for name in "abcdef":
        boards[name] = Board(world, name, name, error_s=errors[name], liar=False, agree=agree, write=write)
    for name, member in lying:
        boards[name] = Board(world, name, member, error_s=0, liar=True, agree=agree, write=write)
    world.nodes.update(boards)
    for _ in range(steps):
        world.step()
        _look(seed, world, boards, liars)
    world.calm()
    for _ in range(2):
        for name in sorted(boards):
            boards[name].tick()
        world.calm()
    _look(seed, world, boards, liars)
    for name in "de":
        if liars < 2 and boards[name].source is not ClockSource.AGREED:
            raise ModelBroken(f"seed {seed}: {name} hears three honest members and has no time")
    return sum(board.source is ClockSource.AGREED for board in boards.values())


def _look(seed: int, world: Chaos, boards: dict[str, Board], liars: int) -> None:
    truth = TRUTH_AT_START_S + int(world.now_s)
    # The earlier of a pair within the tolerance, one of them honest; a second is lost where seconds are cut.
    tolerance = CLOCK_SKEW_MAX_S + QUARTZ_ERROR_S + 2
    for name, board in boards.items():
        if board.liar:
            continue
        if liars < 2 and board.source is ClockSource.AGREED and abs(board.now - truth) > tolerance:
            raise ModelBroken(f"seed {seed}: {name} was moved to {board.now - truth} s from the truth")
        # Even with two liars what is written down is within what good clocks say, also at the board whose own clock is far ahead, since
        # nobody backs it.
        if board.written > truth + QUARTZ_ERROR_S + 2:
            raise ModelBroken(f"seed {seed}: {name} wrote down a floor {board.written - truth} s in the future")
