"""Miners and committee members under loss, crash, partition and liars: leaders seal, members vote, blocks carry votes.

The rules are the project's own (draw, finality, carried, votes, committee); blocks are names, signatures are taken for granted (the
model forges none). What a node keeps through a crash: its promises always, its blocks and votes too but for one node of a run, once.
(That all lose theirs is no fault that finality recovers from without CouncilRecover: heights promised are heights to be outgrown.)

Checked throughout: final blocks of all honest nodes lie on one chain, and what blocks carry never says final what conflicts with it.
Checked at the end: a bounded time after faults ceased finality goes on at every honest node, and so does what blocks carry of it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass

from protocols.codec import decode, encode
from protocols.crypto import sha256
from protocols.errors import Refused
from protocols.ledger import carried
from protocols.ledger.carried import carry, committee_at, final_height, is_carriable, seat_committee
from protocols.ledger.checks import u64
from protocols.ledger.committee import Committee, Seat, faults_of
from protocols.ledger.draw import leader
from protocols.ledger.finality import BlockPoint, ForkTree
from protocols.ledger.state import Key, Overlay
from protocols.ledger.tree import EMPTY
from protocols.ledger.votes import NO_PROMISES, Checkpoint, Promises, Vote, carried_order, promise_seal
from protocols.types import AccountId, BlockHash, ChainId, Digest
from tests.simulation.models.chaos import ModelBroken

CHAIN = ChainId(sha256(b"model"))
TICKS_PER_SLOT = 4
LONELY_SLOTS = 6
HEARD_SLOTS = 5
CHANGE_AFTER = 4  # a change of committee takes effect so many blocks after the block that saw it final
RESYNC = 0.25  # a slot: how likely a node brings somebody all that it has
SETTLE_SLOTS = 120


class Values:
    """A state as a dictionary: what an overlay needs of a view, without a tree."""

    root = Digest(EMPTY)

    def __init__(self, values: Mapping[Key, bytes]) -> None:
        self.values = values

    def get(self, space: str, key: bytes) -> bytes | None:
        return self.values.get((space, key))

    def scan(self, space: str, start: bytes, limit: int) -> list[tuple[bytes, bytes]]:
        return sorted((key, value) for (name, key), value in self.values.items() if name == space and key >= start)[:limit]

    def node(self, name: bytes) -> bytes:
        raise KeyError(name)


@dataclass(frozen=True)
class ModelBlock:
    """work counts blocks. change: the members that this block asks to have seated."""

    hash: BlockHash
    parent: BlockHash
    height: int
    slot: int
    miner: AccountId
    votes: tuple[Vote, ...]
    change: tuple[AccountId, ...]


@dataclass(frozen=True)
class Bugs:
    """What the checkers must catch."""

    forgets_promises: bool = False
    small_quorum: bool = False
    carries_its_own_only: bool = False


class World:
    """All nodes, one clock in ticks, everything drawn from one seed."""

    def __init__(
        self, seed: int, *, members: int, liars: int = 0, miners: int | None = None, bugs: Bugs = Bugs(), change: bool = False
    ) -> None:
        self.rng = random.Random(seed)
        self.seed = seed
        self.bugs = bugs
        self.tick = 0
        self.faults = True
        self.term_seed = sha256(b"seed", u64(seed))
        names = [AccountId(sha256(b"node", u64(number))) for number in range(members + (members if change else 0))]
        self.first = tuple(sorted(names[:members]))
        self.second = tuple(sorted(names[members:])) if change else ()  # nobody stays
        self.miners = tuple(names[: miners or len(names)])
        self.states: dict[BlockHash, Mapping[Key, bytes]] = {}
        self.blocks: dict[BlockHash, ModelBlock] = {}
        self.by_final: dict[int, BlockHash] = {}
        self.root = self._genesis(members)
        self.mail: list[tuple[int, AccountId, AccountId, object]] = []
        self.side: dict[AccountId, int] = {}
        self.nodes: dict[AccountId, Node] = {}
        self.loser: AccountId | None = None
        for number, name in enumerate(names):
            lies = number % members < liars  # as many in the second committee as in the first
            self.nodes[name] = Liar(self, name) if lies else Node(self, name)

    def committee(self, generation: int, from_height: int, members: tuple[AccountId, ...]) -> Committee:
        faults = faults_of(len(members))
        if self.bugs.small_quorum:
            faults = -2  # q = half of the members
        return Committee(generation, from_height, tuple(Seat(member, b"") for member in members), faults, None)

    def _genesis(self, members: int) -> ModelBlock:
        block = ModelBlock(BlockHash(sha256(b"genesis")), BlockHash(bytes(32)), 0, 0, AccountId(bytes(32)), (), ())
        state = Overlay(Values({}))
        seat_committee(state, self.committee(0, 0, self.first))
        self._keep(block, state, {})
        return block

    def _keep(self, block: ModelBlock, state: Overlay, before: Mapping[Key, bytes]) -> None:
        after = dict(before)
        for at, value in state._written.items():
            if value is None:
                after.pop(at, None)
            else:
                after[at] = value
        self.states[block.hash] = after
        self.blocks[block.hash] = block

    def execute(self, block: ModelBlock) -> None:
        """State after a block: its parent's hash is known, its votes are counted, a change that became final is seated."""
        before = self.states[block.parent]
        state = Overlay(Values(before))
        state.put(carried.HASH, u64(block.height - 1), block.parent)
        was = final_height(state)
        final = carry(state, block.height, block.votes, verified=True)
        if block.change:
            state.put("change", u64(block.height), encode(block.change))
        for key, value in list(state.iterate("change")):
            if was < int.from_bytes(key, "big") <= final:
                state.delete("change", key)
                generation = committee_at(state, block.height).generation + 1
                members = tuple(AccountId(one) for one in decode(value, tuple[bytes, ...]))  # type: ignore[arg-type]
                seat_committee(state, self.committee(generation, block.height + CHANGE_AFTER, members))
        self._keep(block, state, before)

    def point(self, name: BlockHash) -> BlockPoint:
        block = self.blocks[name]
        committee = committee_at(Overlay(Values(self.states[name])), block.height)
        return BlockPoint(block.hash, block.parent, block.height, block.slot, block.height, committee)

    def send(self, sender: AccountId, target: AccountId, message: object) -> None:
        delay = self.rng.randrange(1, 5) if self.faults else 1  # up to a whole slot; a quarter of one in calm
        self.mail.append((self.tick + delay, sender, target, message))

    def broadcast(self, sender: AccountId, message: object) -> None:
        for target in self.nodes:
            if target != sender:
                self.send(sender, target, message)

    @property
    def slot(self) -> int:
        return 1 + self.tick // TICKS_PER_SLOT

    def step(self) -> None:
        self.tick += 1
        if self.faults and self.rng.random() < 0.01:
            self.side = {name: self.rng.randrange(2) for name in self.nodes}
        if not self.faults or self.rng.random() < 0.01:
            self.side = {}
        due = [letter for letter in self.mail if letter[0] <= self.tick]
        self.mail = [letter for letter in self.mail if letter[0] > self.tick]
        self.rng.shuffle(due)
        for _, sender, target, message in due:
            if self.side.get(sender) == self.side.get(target) and not (self.faults and self.rng.random() < 0.1):
                self.nodes[target].receive(sender, message)
        for node in self.nodes.values():
            if self.faults and self.rng.random() < 0.002:
                node.crash(self.tick + self.rng.randrange(4, 200))
            node.work()
        self.check()

    def check(self) -> None:
        for node in self.nodes.values():
            for point in node.newly_final:
                other = self.by_final.setdefault(point.height, point.hash)
                if other != point.hash:
                    raise ModelBroken(f"seed {self.seed}: two final blocks at height {point.height}")
            node.newly_final = []
            head = node.tree.head()
            settled = final_height(Overlay(Values(self.states[head.hash])))
            if settled > node.tree.final.height and not isinstance(node, Liar):
                raise ModelBroken(f"seed {self.seed}: blocks carry more finality than the node sees")

    def carried_height(self) -> int:
        """Final height in the states of the honest nodes' heads, the lowest."""
        heads = [node.tree.head().hash for node in self.nodes.values() if not isinstance(node, Liar)]
        return min(final_height(Overlay(Values(self.states[name]))) for name in heads)

    def final_heights(self) -> list[int]:
        return [node.tree.final.height for node in self.nodes.values() if not isinstance(node, Liar) and not node.is_down]


class Node:
    """One miner and member. promises, blocks and votes survive a crash; what it heard does not."""

    def __init__(self, world: World, name: AccountId) -> None:
        self.world = world
        self.name = name
        self.tree = ForkTree(world.point(world.root.hash), self.below)  # its ancestors are those of the final blocks seen by anybody
        self.promises: Promises = NO_PROMISES
        self.waiting: dict[BlockHash, list[ModelBlock]] = {}
        self.late: set[BlockHash] = set()
        self.heard: dict[AccountId, int] = {}
        self.down_until = 0
        self.last_sealed = 0
        self.newly_final: list[BlockPoint] = []
        self.votes: dict[BlockHash, dict[bytes, Vote]] = {}  # kept until the state of a final block counts them

    @property
    def is_down(self) -> bool:
        return self.world.tick < self.down_until

    def below(self, checkpoint: Checkpoint) -> Committee | None:
        world = self.world
        block = world.blocks.get(checkpoint.hash)
        if block is None or world.by_final.get(checkpoint.height) != checkpoint.hash:
            return None if checkpoint.hash != world.root.hash else world.point(world.root.hash).committee
        return world.point(block.hash).committee

    def crash(self, until: int) -> None:
        self.down_until = until
        self.heard = {}
        world = self.world
        if world.rng.random() < 0.5 and (world.loser is None or world.bugs.forgets_promises):
            world.loser = self.name  # its database is lost; its promises live elsewhere
            self.tree = ForkTree(self.world.point(self.world.root.hash), self.below)
            self.waiting = {}
            self.votes = {}
            if self.world.bugs.forgets_promises:
                self.promises = NO_PROMISES

    def receive(self, sender: AccountId, message: object) -> None:
        if self.is_down:
            return
        self.heard[sender] = self.world.slot
        if isinstance(message, ModelBlock):
            self.take_block(message)
        elif isinstance(message, Vote):
            self.take_vote(message)
        elif isinstance(message, tuple):
            for block in message[0]:
                self.take_block(block)
            for vote in message[1]:
                self.take_vote(vote)

    def take_block(self, block: ModelBlock) -> None:
        if block.hash in self.tree or block.height <= self.tree.final.height:
            return
        if block.parent not in self.tree:
            self.waiting.setdefault(block.parent, []).append(block)
            return
        if block.hash not in self.world.states:
            self.world.execute(block)
        if self.world.slot > block.slot + 1:
            self.late.add(block.hash)
        self.newly_final += self.tree.add_block(self.world.point(block.hash))
        for vote in block.votes:
            self.take_vote(vote)
        for child in self.waiting.pop(block.hash, []):
            self.take_block(child)

    def take_vote(self, vote: Vote) -> None:
        self.votes.setdefault(vote.target.hash, {})[carried_order(vote)] = vote
        self.newly_final += self.tree.add_vote(vote)

    def quorum_heard(self, committee: Committee) -> bool:
        heard = {name for name, slot in self.heard.items() if slot >= self.world.slot - HEARD_SLOTS} | {self.name}
        return len(heard & committee.members) >= committee.quorum

    def work(self) -> None:
        world = self.world
        if self.is_down:
            return
        if world.tick % TICKS_PER_SLOT == 0:
            self.seal()
            world.broadcast(self.name, "here")
        self.vote()
        if len(world.nodes) > 1 and world.rng.random() < RESYNC / TICKS_PER_SLOT:
            self.resync()

    def resync(self) -> None:
        """Everything above the final block of theirs goes to somebody: what a lost message took, this brings."""
        points = [self.tree.point(name) for name in self.tree._points]
        blocks = [self.world.blocks[point.hash] for point in points]
        name = self.tree.final.hash
        for _ in range(200):  # a node behind gets the way to our final block too
            block = self.world.blocks[name]
            blocks.insert(0, block)
            if block.height == 0:
                break
            name = block.parent
        votes = [vote for block in blocks for vote in self.votes.get(block.hash, {}).values()]
        target = self.world.rng.choice([name for name in self.world.nodes if name != self.name])
        self.world.send(self.name, target, (tuple(blocks), tuple(votes)))

    def make_block(self, parent: BlockPoint, salt: bytes = b"") -> ModelBlock:
        world = self.world
        before = Overlay(Values(world.states[parent.hash]))
        before.put(carried.HASH, u64(parent.height), parent.hash)
        settled = final_height(before)
        votes: dict[bytes, Vote] = {}
        name = parent.hash
        while world.blocks[name].height > (self.tree.final.height if world.bugs.carries_its_own_only else settled):
            for vote in self.votes.get(name, {}).values():
                if is_carriable(before, parent.height + 1, vote):
                    votes[carried_order(vote)] = vote
            name = world.blocks[name].parent
        change = world.second if parent.height == 5 else ()
        parts = (parent.hash, u64(world.slot), self.name, salt, *(encode(votes[key]) for key in sorted(votes)))
        return ModelBlock(
            BlockHash(sha256(*parts)),
            parent.hash,
            parent.height + 1,
            world.slot,
            self.name,
            tuple(votes[key] for key in sorted(votes)),
            change,
        )

    def is_leader(self, parent: BlockPoint) -> bool:
        world = self.world
        if world.slot <= parent.slot or self.name not in world.miners:
            return False
        miner = world.blocks[parent.hash].miner
        return leader(world.miners, world.term_seed, slot=world.slot, parent_slot=parent.slot, parent_miner=miner) == self.name

    def seal(self) -> None:
        world = self.world
        head = self.tree.head()
        if not self.is_leader(head):
            return
        heard = {name for name, slot in self.heard.items() if slot >= world.slot - HEARD_SLOTS} | {self.name}
        lonely = 2 * len(heard & set(world.miners)) < len(world.miners) and not self.quorum_heard(head.committee)
        if lonely and world.slot < self.last_sealed + LONELY_SLOTS:
            return
        try:
            self.promises = promise_seal(self.promises, world.slot)
        except Refused:
            return
        self.last_sealed = world.slot
        block = self.make_block(head)
        self.take_block(block)
        world.broadcast(self.name, block)

    def vote(self) -> None:
        head = self.tree.head()
        committees = head.committee.members | self.tree.final.committee.members
        if self.name not in committees or head.hash in self.late or not self.quorum_heard(head.committee):
            return
        try:
            source, target, self.promises = self.tree.next_vote(self.promises)
        except Refused:
            return
        vote = Vote(CHAIN, source, target, self.name, b"")
        self.take_vote(vote)
        self.world.broadcast(self.name, vote)


class Liar(Node):
    """Seals two blocks in one slot for two halves, votes for every tip, from old sources too, and remembers nothing."""

    def seal(self) -> None:
        world = self.world
        points = [self.tree.point(name) for name in self.tree._points]
        tips = [point for point in points if self.is_leader(point)]
        for parent in tips[-2:]:
            for salt in (b"left", b"right"):
                block = self.make_block(parent, salt)
                self.take_block(block)
                for target in self.world.nodes:
                    if target != self.name and world.rng.random() < 0.5:
                        world.send(self.name, target, block)

    def vote(self) -> None:
        world = self.world
        if world.rng.random() < 0.5:
            return
        points = [self.tree.point(name) for name in self.tree._points if name != self.tree.final.hash]
        if not points:
            return
        target = world.rng.choice(points[-4:])
        sources = [point for point in self.tree.ancestors(target.hash) if point.hash != target.hash and self.tree.is_justified(point.hash)]
        vote = Vote(CHAIN, world.rng.choice(sources).checkpoint, target.checkpoint, self.name, b"")
        self.take_vote(vote)
        for other in world.nodes:
            if other != self.name and world.rng.random() < 0.5:
                world.send(self.name, other, vote)


def run(seed: int, *, members: int, liars: int = 0, change: bool = False, slots: int = 60, bugs: Bugs = Bugs()) -> int:
    """The height that all live honest nodes agree is final. Raises ModelBroken."""
    world = World(seed, members=members, liars=liars, bugs=bugs, change=change)
    for _ in range(slots * TICKS_PER_SLOT):
        world.step()
    world.faults = False
    for node in world.nodes.values():
        node.down_until = 0
    healed_at = max(world.final_heights())
    for _ in range(SETTLE_SLOTS * TICKS_PER_SLOT):
        world.step()
        changed = any(world.point(name).committee.from_height for name in world.by_final.values())
        if min(world.final_heights()) > healed_at + 3 and world.carried_height() > healed_at and (changed or not change):
            break
    else:
        raise ModelBroken(f"seed {seed}: {world.final_heights()} final after healing at {healed_at}")
    return min(world.final_heights())


def run_alone(seed: int, *, members: int, slots: int = 120) -> int:
    """Height of the one live node's head when all others are dead from the start."""
    world = World(seed, members=members)
    world.faults = False
    alone = world.nodes[world.first[seed % members]]
    for node in world.nodes.values():
        node.down_until = 0 if node is alone else 1 << 62
    for _ in range(slots * TICKS_PER_SLOT):
        world.step()
    return alone.tree.head().height
