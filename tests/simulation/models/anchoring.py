"""Two nodes of one owner, and a chain that takes blocks back: crashes, cuts, evictions, transactions whose time ends in the pool.

Checked: of one record and number the branch never carries two anchors; what a record's first anchor says was asked for by a person, at
the node where they put it; a bounded time after faults ceased every record that was published is final with its greatest number; and
then nobody makes transactions any more.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field

from protocols.codec import replace
from protocols.crypto import sha256
from protocols.ledger.filing import Asked, Next, Waiting, next_of
from protocols.ledger.transactions.records import Owners, RecordState
from protocols.types import AccountId, ChunksRoot, Digest, TxId, UnixMillis
from tests.simulation.models.chaos import ModelBroken

LIFE_MS = 60_000
STEP_MS = 1000
STEPS = 150
CALM_STEPS = 30
QUIET_STEPS = 20
RETRY_MS = 3000
MADE_FACTOR_MAX = 3  # two nodes may each make one, and what ended is made anew; 1.6 on average
BLANK = RecordState(
    "active", AccountId(bytes(32)), Digest(bytes(32)), 0, ChunksRoot(bytes(32)), "create", (), Owners((), (), 1, 1), 0, "", 0, (),
    bytes(32), UnixMillis(0), UnixMillis(0), UnixMillis(0), UnixMillis(0), UnixMillis(0), 1, 1, TxId(bytes(32)),
)  # fmt: skip
Rule = Callable[..., Next]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A transaction of the model. seq, statement: as published; restores: made when the record was on the chain with a smaller number.
    wish: what it says besides the statement."""

    id: TxId
    record: str
    seq: int
    statement: Digest
    restores: bool
    until_ms: int
    wish: str


@dataclass(slots=True)
class Node:
    """own: on its disk. wishes: too, by record that was put here. pool, refused: lost in a crash. seen: how it last saw the chain.
    open: records that it looks at."""

    known: dict[str, tuple[int, Digest]] = field(default_factory=dict)
    own: dict[TxId, Anchor] = field(default_factory=dict)
    wishes: dict[str, str] = field(default_factory=dict)
    pool: dict[TxId, Anchor] = field(default_factory=dict)
    refused: set[TxId] = field(default_factory=set)
    again_ms: dict[str, int] = field(default_factory=dict)
    seen: tuple[tuple[Anchor, ...], ...] = ()
    final: int = 0
    is_cut: bool = False
    open: set[str] = field(default_factory=set)


def states(blocks: tuple[tuple[Anchor, ...], ...]) -> dict[str, tuple[RecordState, int]]:
    """Records after these blocks, and the height of each one's anchor."""
    found: dict[str, tuple[RecordState, int]] = {}
    for height, block in enumerate(blocks):
        for anchor in block:
            found[anchor.record] = (replace(BLANK, seq=anchor.seq, statement=anchor.statement, anchor=anchor.id), height)
    return found


class World:
    def __init__(self, seed: int, *, rule: Rule, forgets: bool) -> None:
        self.rng = random.Random(seed)
        self.rule = rule
        self.forgets = forgets
        self.nodes = {"a": Node(), "b": Node()}
        self.blocks: tuple[tuple[Anchor, ...], ...] = ()
        self.final = 0  # blocks that are
        self.now_ms = 0
        self.made = 0
        self.records = 0
        self.published: dict[str, int] = {}
        self.wishes: dict[str, set[str]] = {}

    # --- people -------------------------------------------------------------------------------------------------------

    def put(self, node: Node) -> None:
        """A new record, the same again with a greater number, or, unknowing, the same as the other node just now."""
        draw = self.rng.random()
        if draw < 0.7 or not self.published:
            self.records += 1
            name, seq = f"r{self.records}", 1
        else:
            name = self.rng.choice(sorted(self.published))
            seq = node.known.get(name, (0, b""))[0] + 1
        statement = sha256(f"{name} {seq} {self.rng.random()}".encode())
        if name not in node.known:  # no other number of what it knows
            node.wishes[name] = f"{self.rng.random()}"
            self.wishes.setdefault(name, set()).add(node.wishes[name])
        node.known[name] = max(node.known.get(name, (0, Digest(b""))), (seq, statement))
        node.open.add(name)
        self.published[name] = max(seq, self.published.get(name, 0))

    def gossip(self) -> None:
        a, b = self.nodes["a"], self.nodes["b"]
        if a.is_cut or b.is_cut:
            return
        for name in a.known.keys() | b.known.keys():
            newest = max(one.known[name] for one in (a, b) if name in one.known)
            for one in (a, b):
                if one.known.get(name) != newest:
                    one.known[name] = newest
                    one.open.add(name)
        for one, other in ((a, b), (b, a)):
            for anchor in one.pool.values():
                if self.rng.random() < 0.7 and self.is_valid(anchor, self.blocks):
                    other.pool[anchor.id] = anchor

    # --- the chain ----------------------------------------------------------------------------------------------------

    def is_valid(self, anchor: Anchor, blocks: tuple[tuple[Anchor, ...], ...]) -> bool:
        before = states(blocks).get(anchor.record)
        if any(anchor.id == one.id for block in blocks for one in block) or self.now_ms > anchor.until_ms:
            return False
        return (before is None) if not anchor.restores else before is not None and before[0].seq < anchor.seq

    def seal(self, node: Node) -> None:
        taken: tuple[Anchor, ...] = ()
        for anchor in sorted(node.pool.values(), key=lambda one: one.id):
            if self.is_valid(anchor, (*self.blocks, taken)):
                taken += (anchor,)
            else:
                del node.pool[anchor.id]
        if taken:
            self.blocks += (taken,)

    def reorganise(self) -> None:
        depth = self.rng.randrange(0, len(self.blocks) - self.final + 1)
        lost = self.blocks[len(self.blocks) - depth :] if depth else ()
        self.blocks = self.blocks[: len(self.blocks) - depth]
        for node in self.nodes.values():
            if not node.is_cut and self.rng.random() < 0.5:  # returned to the pool, or evicted from it
                node.pool |= {anchor.id: anchor for block in lost for anchor in block}

    # --- a node -------------------------------------------------------------------------------------------------------

    def look(self, node: Node) -> None:
        if not node.is_cut:
            node.seen, node.final = self.blocks, self.final
            included = {anchor.id for block in node.seen for anchor in block}
            node.pool = {name: one for name, one in node.pool.items() if name not in included and one.until_ms >= self.now_ms}
            node.own = {
                name: one
                for name, one in node.own.items()
                if one.until_ms >= self.now_ms and not any(one in block for block in node.seen[: node.final])
            }
        there = states(node.seen)
        for name in sorted(node.open):
            self.look_at(node, name, there.get(name))

    def look_at(self, node: Node, name: str, found: tuple[RecordState, int] | None) -> None:
        if node.again_ms.get(name, 0) > self.now_ms:
            return
        seq, statement = node.known[name]
        made = max((one for one in node.own.values() if one.record == name), key=lambda one: (one.until_ms, one.id), default=None)
        waiting = None
        if made is not None:
            waiting = Waiting(made.id, made.statement, UnixMillis(made.until_ms), made.id in node.pool, made.id in node.refused)
        record = None if found is None else found[0]
        move = self.rule(
            record,
            waiting,
            statement=statement,
            seq=seq,
            valid_until_ms=0,
            is_final=found is not None and found[1] < node.final,
            is_elsewhere=name not in node.wishes,
            asked=Asked.NOT,
            now_ms=self.now_ms,
        )
        if move is Next.NOTHING:
            node.open.discard(name)
        elif move is Next.SUBMIT:
            self.made += 1
            identity, wish = TxId(sha256(str(self.made).encode())), node.wishes.get(name, "nobody's")
            anchor = Anchor(identity, name, seq, statement, record is not None, self.now_ms + LIFE_MS, wish)
            self.submit(node, anchor)
        elif move is Next.REPEAT:
            assert made is not None
            self.submit(node, made)

    def submit(self, node: Node, anchor: Anchor) -> None:
        if self.is_valid(anchor, node.seen):
            node.own[anchor.id] = node.pool[anchor.id] = anchor
            node.again_ms.pop(anchor.record, None)
        elif not any(anchor in block for block in node.seen):
            node.refused.add(anchor.id)
            node.again_ms[anchor.record] = self.now_ms + RETRY_MS

    def crash(self, node: Node) -> None:
        node.pool = {name: one for name, one in node.own.items() if self.is_valid(one, node.seen)}
        node.refused, node.again_ms = set(), {}
        node.open = set() if self.forgets else set(node.known)

    # --- time ---------------------------------------------------------------------------------------------------------

    def step(self, *, faults: bool) -> None:
        self.now_ms += STEP_MS
        if faults:
            for node in self.nodes.values():
                if self.rng.random() < 0.1:
                    self.put(node)
                if self.rng.random() < 0.03:
                    self.crash(node)
                if self.rng.random() < 0.05:
                    node.is_cut = not node.is_cut
                if node.pool and self.rng.random() < 0.05:
                    del node.pool[self.rng.choice(sorted(node.pool))]
            if self.rng.random() < 0.15:
                self.reorganise()
        self.gossip()
        for node in self.nodes.values():
            self.look(node)
            if not node.is_cut and self.rng.random() < (0.3 if faults else 0.5):
                self.seal(node)
        if self.rng.random() < 0.3 or not faults:
            self.final = self.rng.randrange(self.final, len(self.blocks) + 1) if faults else len(self.blocks)


def run(seed: int, *, rule: Rule = next_of, forgets: bool = False) -> int:
    """How many records became final. rule: instead of the project's. forgets: after a crash only what comes new is looked at.

    Raises ModelBroken.
    """
    world = World(seed, rule=rule, forgets=forgets)
    for _ in range(STEPS):
        world.step(faults=True)
    for node in world.nodes.values():
        node.is_cut = False
    for _ in range(CALM_STEPS):
        world.step(faults=False)
    made = world.made
    for _ in range(QUIET_STEPS):
        world.step(faults=False)
    if world.made != made:
        raise ModelBroken(f"seed {seed}: {world.made - made} transactions on a quiet day")
    there = states(world.blocks[: world.final])
    for name, seq in sorted(world.published.items()):
        if name not in there or there[name][0].seq < seq:
            raise ModelBroken(f"seed {seed}: record {name} number {seq} is not final")
    if made > MADE_FACTOR_MAX * sum(world.published.values()):
        raise ModelBroken(f"seed {seed}: {made} transactions for {sum(world.published.values())} numbers of records")
    carried = [(anchor.record, anchor.seq) for block in world.blocks for anchor in block]
    if len(set(carried)) != len(carried):
        raise ModelBroken(f"seed {seed}: two anchors of one record and number")
    for anchor in (one for block in world.blocks for one in block):
        if not anchor.restores and anchor.wish not in world.wishes[anchor.record]:
            raise ModelBroken(f"seed {seed}: the anchor of {anchor.record} says what nobody asked for")
    return len(there)


def block_is_enough(record: RecordState | None, waiting: Waiting | None, **facts: object) -> Next:
    """Planted: what stands in a block is held for final."""
    return next_of(record, waiting, **{**facts, "is_final": True})  # type: ignore[arg-type]  # as it was called


def once_made_is_made(record: RecordState | None, waiting: Waiting | None, **facts: object) -> Next:
    """Planted: whoever made a transaction once only waits for it."""
    move = next_of(record, waiting, **facts)  # type: ignore[arg-type]  # as it was called
    return Next.WAIT if waiting is not None and move is Next.REPEAT else move


def always_anew(record: RecordState | None, waiting: Waiting | None, **facts: object) -> Next:
    """Planted: another transaction at every look, and after what was put again too."""
    move = next_of(record, None, **facts)  # type: ignore[arg-type]  # as it was called
    return Next.SUBMIT if move is Next.WAIT else move


def anybody_may(record: RecordState | None, waiting: Waiting | None, **facts: object) -> Next:
    """Planted: what another node published is anchored here too, without knowing what was asked for."""
    return next_of(record, waiting, **{**facts, "is_elsewhere": False})  # type: ignore[arg-type]  # as it was called
