"""What is said on `/lading/ledger/1`. Bounds: limits.py; which message when: SPEC.md §Talk."""

from __future__ import annotations

from ..codec import Record
from ..types import BlockHash, ChainId
from .alive import Told, Witness
from .block import Block, LightHeader
from .envelope import Transaction
from .light import Inclusion, Link, Proven, Succession
from .snapshot import NodeAt, StateNode
from .sync import HeaderRow
from .votes import Checkpoint, Vote


class Hello(Record, frozen=True):
    """First of both ends. challenge: 32 fresh bytes, which the other's signs of life answer."""

    chain: ChainId
    challenge: bytes


class Tip(Record, frozen=True):
    """The sender's head and its latest final block. A node without the chain's genesis says height 0 and 32 zero bytes."""

    head: Checkpoint
    final: Checkpoint


class Alive(Record, frozen=True):
    """A sign of life, what time it is there, and for whom the sender speaks. counter: from 1, rising."""

    counter: int
    told: Told
    witnesses: tuple[Witness, ...]


class Announce(Record, frozen=True):
    """Ids of what the sender has: transactions by id, votes by the SHA-256 of their encoding."""

    transactions: tuple[bytes, ...]
    votes: tuple[bytes, ...]


class Want(Record, frozen=True):
    """Send the bodies of these."""

    transactions: tuple[bytes, ...]
    votes: tuple[bytes, ...]


class Bodies(Record, frozen=True):
    """What was wanted; ids are recomputed by the receiver."""

    transactions: tuple[Transaction, ...]
    votes: tuple[Vote, ...]


class AskHeaders(Record, frozen=True):
    """Headers after the first of these hashes (newest first) that is on the receiver's branch; from genesis on if none is."""

    locator: tuple[bytes, ...]


class Headers(Record, frozen=True):
    """A page of the sender's branch, oldest first; empty when there is nothing after."""

    rows: tuple[HeaderRow, ...]


class AskBlocks(Record, frozen=True):
    """Bodies of these blocks, in this order."""

    hashes: tuple[bytes, ...]


class GiveBlock(Record, frozen=True):
    """One of the blocks asked for."""

    block: Block


class Given(Record, frozen=True):
    """All that was asked for has been sent but these, which the sender has not (any more)."""

    lacking: tuple[bytes, ...]


class NewBlock(Record, frozen=True):
    """A block just sealed or just heard of, unasked, to those who seal and vote."""

    block: Block


class Pruned(Record, frozen=True):
    """Instead of Headers: the blocks after the locator are not kept here any more. lowest: height of the first that is."""

    lowest: int


class AskState(Record, frozen=True):
    """Nodes of the tree of the state after a block, by place and hash."""

    at: Checkpoint
    nodes: tuple[NodeAt, ...]


class GiveState(Record, frozen=True):
    """Those that were asked for and fit one message. lacking: those that are not here; of neither kind: ask again."""

    nodes: tuple[StateNode, ...]
    lacking: tuple[bytes, ...]


class AskHistory(Record, frozen=True):
    """Headers of the ancestors of this block."""

    before: BlockHash


class History(Record, frozen=True):
    """A page of them, oldest first, the block's parent last; empty where they are not kept."""

    rows: tuple[HeaderRow, ...]


class AskFinal(Record, frozen=True):
    """Why is there a final block above this height? generation: of the newest committee that the sender trusts."""

    height: int
    generation: int


class Final(Record, frozen=True):
    """successions: of the committees after the sender's, in order. link: none, or one to a final block above its height.

    Both empty: there is nothing newer here.
    """

    successions: tuple[Succession, ...]
    link: tuple[Link, ...]


class AskBundles(Record, frozen=True):
    """Headers on top of this block; or, after is False, the header of this block alone."""

    block: BlockHash
    after: bool


class Bundles(Record, frozen=True):
    """A page of the sender's branch, oldest first; empty where the block is not on it or not kept."""

    bundles: tuple[LightHeader, ...]


class AskProofs(Record, frozen=True):
    """What stands at these (space, key) after this block?"""

    block: BlockHash
    keys: tuple[tuple[str, bytes], ...]


class Proofs(Record, frozen=True):
    """Of the first of these keys, as many as fit, one at least; empty where that state is not kept here."""

    values: tuple[Proven, ...]


class AskInclusion(Record, frozen=True):
    """A transaction of the block in this slot of the receiver's branch."""

    slot: int
    transaction: bytes


class Included(Record, frozen=True):
    """It, with its place; empty where it is not there or not kept."""

    found: tuple[Inclusion, ...]


MESSAGES: tuple[tuple[int, type], ...] = (
    (1, Hello),
    (2, Tip),
    (3, Alive),
    (4, Announce),
    (5, Want),
    (6, Bodies),
    (7, AskHeaders),
    (8, Headers),
    (9, AskBlocks),
    (10, GiveBlock),
    (11, Given),
    (12, NewBlock),
    (13, Pruned),
    (15, GiveState),
    (16, AskHistory),
    (17, History),
    (18, AskFinal),
    (19, Final),
    (20, AskBundles),
    (21, Bundles),
    (22, AskProofs),
    (23, Proofs),
    (24, AskInclusion),
    (25, Included),
    (26, AskState),
)
