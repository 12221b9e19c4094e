"""The trail of an id on this node's chain: every block is read and checked on the way, each transaction found has its proof."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from protocols.codec import encode
from protocols.errors import InvalidObject, LadingError, Reason, StoreDamaged
from protocols.join.messages import ChainAnchor
from protocols.ledger.block import Block, decode_header, prove_leaf
from protocols.ledger.history import paths
from protocols.ledger.light import Inclusion
from protocols.ledger.seals.table import SEALS
from protocols.ledger.sync import header_row
from protocols.ledger.trail import Trail, TrailHead, TrailStep, check_trail_head, check_trail_step
from protocols.ledger.votes import Checkpoint
from protocols.types import BlockHash, TxId
from storage import chain as store
from storage import chain_proofs
from storage.engine import Snapshot

from .actors.chain import ChainActor
from .chain_home import anchor_text
from .http.contract import Answer
from .ledger_rows import iso_ms, kind_name

TRAIL_MAX = 1000
# Read in one turn of a pool thread.
_PAGE = 256
_HINT = "an archive keeps all: ask there"


@dataclass(frozen=True, slots=True)
class _Found:
    """A transaction of the trail, with the block that carries it."""

    at: Checkpoint
    inclusion: Inclusion


class TrailWalk:
    """One question: from the lowest block that is kept up to the head."""

    def __init__(self, chain: ChainActor, wanted: str, *, limit: int, after: int) -> None:
        """wanted: hexadecimal. limit: transactions to show, more only to end with a whole block. after: of blocks above this height."""
        assert chain.tree is not None
        self._chain = chain
        self._trail = Trail(wanted)
        self._wanted = wanted
        self._limit = min(limit, TRAIL_MAX)
        self._after = after
        self._head, self._final = chain.checkpoints()
        self._above = {point.height: point.hash for point in chain.tree.ancestors(chain.tree.head().hash)}
        self._found: list[_Found] = []
        self._parent: BlockHash | None = None
        self._lowest = 0
        self._next = 0
        self._cut_at: int | None = None

    async def answer(self, name_of: Callable[[bytes], str], *, with_proofs: bool) -> Answer:
        """Raises LadingError(NOT_FOUND | PRUNED), UsageError for the beginning of two ids, StoreDamaged."""
        chain = self._chain
        self._lowest = self._next = await chain.plan(store.lowest_height)
        if self._lowest and with_proofs:
            raise LadingError(Reason.PRUNED, f"no block below height {self._lowest} is kept here, so no proof can be made", hint=_HINT)
        # What is found is linked to the final block by its proof; where none can be made, by every block up to there.
        while self._next <= self._head.height and (self._cut_at is None or self._lowest):
            await chain.plan(self._read_page)
        if self._trail.id is None and self._lowest:
            raise LadingError(Reason.PRUNED, f"no transaction from height {self._lowest} on names {self._wanted}", hint=_HINT)
        if self._trail.id is None:
            raise LadingError(Reason.NOT_FOUND, f"no transaction of the chain names {self._wanted}", hint="lading ledger history")
        head, steps = (None, {}) if self._lowest else await chain.plan(self._show)
        warnings = [f"blocks below height {self._lowest} are not kept here; {_HINT}"] if self._lowest else []
        if self._cut_at is not None:
            warnings.append(f"there may be more: --after {self._cut_at}")
        rows = [self._row(one, name_of) for one in self._found]
        data: dict[str, object] = {
            "chain": chain.chain.hex(),
            "id": self._trail.id.hex(),
            "from_height": self._lowest,
            "anchor": anchor_text(ChainAnchor(chain.chain, self._final.height, self._final.hash)),
            "transactions": rows,
        }
        if with_proofs:
            data["head"] = encode(head).hex()
            for row, one in zip(rows, self._found, strict=True):
                step = steps.get(one.inclusion.transaction.id)
                row["proof"] = "" if step is None else encode(step).hex()
        return Answer(data, warnings)

    def _row(self, one: _Found, name_of: Callable[[bytes], str]) -> dict[str, object]:
        transaction, is_final = one.inclusion.transaction, one.at.height <= self._final.height
        return {
            "transaction": transaction.id.hex(),
            "kind": kind_name(transaction.content.kind),
            "actor": transaction.content.sender.hex(),
            "actor_name": name_of(transaction.content.sender),
            "signers": [signature.key.hex() for signature in transaction.signatures],
            "said": iso_ms(transaction.content.ts_ms),
            "height": one.at.height,
            "block": one.at.hash.hex(),
            "index": one.inclusion.leaf.index,
            "time": iso_ms(decode_header(one.inclusion.row.header).t_stamp_ms),
            "state": "final" if is_final else "in_block",
            "proven": is_final,
        }

    # --- in a pool thread ---------------------------------------------------------------------------------------------

    def _read_page(self, snapshot: Snapshot) -> None:
        """The next blocks: each is what its hash says, the child of the one before, and at the final height the final one."""
        for height in range(self._next, min(self._next + _PAGE, self._head.height + 1)):
            name = self._above.get(height) or next(iter(store.blocks_at(snapshot, height)), None)
            block = None if name is None else store.block(snapshot, name)
            if name is None or block is None:
                raise LadingError(Reason.PRUNED, f"block {height} is not kept here any more", hint=_HINT)
            if self._parent is not None and decode_header(block.header).parent != self._parent:
                raise StoreDamaged(f"block {height} does not follow the one before it")
            self._parent, self._next = name, height + 1
            if self._cut_at is None:
                self._take(block)
            elif not self._lowest:
                return

    def _take(self, block: Block) -> None:
        height = block.info.height
        for index, transaction in enumerate(block.transactions, 1):
            if self._trail.touches(transaction) and height > self._after:
                inclusion = Inclusion(header_row(block), prove_leaf(block, index), transaction)
                self._found.append(_Found(Checkpoint(height, block.hash), inclusion))
        if len(self._found) >= self._limit and height < self._head.height:
            self._cut_at = height

    def _show(self, snapshot: Snapshot) -> tuple[TrailHead, Mapping[TxId, TrailStep]]:
        """Each final transaction with its proof, checked as anybody would check it. Raises StoreDamaged."""
        chain, final, facts = self._chain.chain, self._final, self._chain.facts
        head = chain_proofs.trail_head(snapshot, final)
        hashes = store.branch(snapshot, final.hash)
        if head is None or hashes is None or facts is None:
            raise StoreDamaged("the history is not all here")
        seal = SEALS[facts.profile.seal]
        heights = {one.at.height for one in self._found if one.at.height < final.height}
        siblings = paths(final.height, heights, hashes.__getitem__)
        steps: dict[TxId, TrailStep] = {}
        try:
            peaks = check_trail_head(head, chain, seal, final)
            for one in self._found:
                name = one.inclusion.transaction.id
                if one.at.height <= final.height:
                    steps[name] = TrailStep(one.inclusion, siblings.get(one.at.height, ()))
                    check_trail_step(steps[name], chain, seal, head=final, peaks=peaks, wanted=name)
        except InvalidObject as error:
            raise StoreDamaged(f"a proof of what stands here does not hold: {error.message}") from error
        return head, steps
