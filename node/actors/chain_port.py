"""What the rest of a node needs of the chain that it follows, whether the node keeps the chain or is light."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Literal, Protocol, TypeVar

from protocols.crypto import SigningKey
from protocols.ledger.envelope import Transaction
from protocols.ledger.light import Inclusion
from protocols.ledger.pool import Pool
from protocols.ledger.state import Key
from protocols.types import ChainId, TxId
from storage.engine import Snapshot

if TYPE_CHECKING:
    from .chain import HeadFacts

T = TypeVar("T")


class ChainPort(Protocol):
    """Values of the state are read from the tables, where a light node has those alone that were brought before."""

    chain: ChainId
    facts: HeadFacts | None
    pool: Pool

    @property
    def keeps_state(self) -> bool:
        """All of the state is here; else what is not brought is not known."""

    def now_ms(self) -> int:
        """Network time; on a light node, which has no word in it, the time of its machine."""

    def final_slot(self) -> int | None:
        """Slot of the latest final block; None before there is one."""

    async def bring(self, keys: Collection[Key], *, is_fresh: bool = True) -> None:
        """These keys stand here as the state has them. Raises Refused(UNREACHABLE)."""

    async def where(self, transaction: bytes, block_ms: int) -> Inclusion | None:
        """Where a light node knows a transaction to stand; None elsewhere."""

    async def submit(self, transaction: Transaction) -> TxId:
        """Raises InvalidTransaction, Refused."""

    async def make_key(self, what: Literal["vote", "seal"], salt: bytes) -> SigningKey:
        """A key that this node uses as soon as the chain names it. Raises Refused; a light node always, it neither votes nor seals."""

    async def plan(self, draft: Callable[[Snapshot], T]) -> T:
        """What somebody makes of the state, in a pool thread."""
