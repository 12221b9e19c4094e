"""What a program can ask of the chain on a light node: what was proven, and a clear no for the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from protocols.errors import LadingError, Reason, UsageError
from protocols.join.messages import ChainAnchor
from protocols.ledger.block import decode_header
from protocols.ledger.light import Inclusion
from protocols.ledger.pool import Origin
from protocols.ledger.sync import HeaderRow
from storage import light as kept
from storage.engine import Snapshot
from storage.tables import LIGHT_INCLUSIONS

from .actors.light import LightChain
from .chain_home import anchor_text
from .http.contract import Answer
from .ledger_rows import iso_ms, transaction_data

if TYPE_CHECKING:
    from .wiring import Node

PREFIX_CHARS_MIN = 6


class LightApi:
    """``ledger.status``, ``ledger.show`` and ``ledger.history`` of a light node."""

    def __init__(self, node: Node, chain: LightChain, name_of: Callable[[bytes], str]) -> None:
        """name_of: what people call an account."""
        self._node = node
        self._chain = chain
        self._name_of = name_of

    def not_kept(self, what: str) -> LadingError:
        """The typed no."""
        return LadingError(
            Reason.NOT_KEPT, f"this node is light and does not keep {what}", hint="ask a full node, or: lading config set ledger full"
        )

    async def status(self) -> Answer:
        """Role, headers, disk; head and final block as they were proven."""
        chain = self._chain
        await chain.loaded()
        head, final = chain.checkpoints()
        row: dict[str, object] = {
            "chain": chain.chain.hex(),
            "role": "light",
            "height": head.height,
            "tip": head.hash.hex(),
            "finalized_height": final.height,
            "headers": chain.headers,
            "disk_bytes": self._node.world.ledger.usage().bytes_used,
        }
        trust, facts = chain.trust, chain.facts
        if trust is None:
            return Answer({"chains": [row]}, ["no final block was shown yet; it is asked of the others"])
        members = trust.committee.members
        row |= {
            "name": facts.profile.name if facts is not None else "",
            "finalized": final.hash.hex(),
            "anchor": anchor_text(ChainAnchor(chain.chain, final.height, final.hash)),
            "state_root": trust.root.hex(),
            "mempool": {"inbound": 0, "outbound": len(chain.pool.list(Origin.OUTBOUND))},
            "committee": {"members": sorted(one.hex() for one in members), "quorum": trust.committee.quorum},
            "names": {one.hex(): self._name_of(one) for one in members},
            "seals": False,
            "alerts": list(chain.alerts.values()),
        }
        return Answer({"chains": [row]})

    async def show(self, what: str) -> Answer:
        """A header that is here, an own transaction that waits, or an own anchor with its place. Raises LadingError(NOT_KEPT)."""
        chain = self._chain
        await chain.loaded()
        rows = chain.rows()
        if not what and rows:
            return Answer(self._line(rows[-1]))
        if what.isdecimal() and len(what) < 16:
            for row in rows:
                if row.info.height == int(what):
                    return Answer(self._line(row))
            raise self.not_kept(f"block {what}")
        if len(what) < PREFIX_CHARS_MIN or not all(sign in "0123456789abcdef" for sign in what):
            raise UsageError(f"{what!r} is no height, block or transaction", hint=f"at least {PREFIX_CHARS_MIN} characters of its id")
        for row in rows:
            if decode_header(row.header).hash.hex().startswith(what):
                return Answer(self._line(row))
        found = await chain.plan(lambda snapshot: _included(snapshot, what))
        if found is not None:
            place = {"state": "final", "height": found.row.info.height, "block": decode_header(found.row.header).hash.hex()}
            return Answer(transaction_data(found.transaction) | place)
        for waiting in chain.pool.list(Origin.OUTBOUND):
            if waiting.id.hex().startswith(what):
                return Answer(transaction_data(waiting.transaction) | {"state": "pooled", "origin": waiting.origin.value})
        raise self.not_kept(f"a block or transaction {what}")

    def history(self, limit: int, before: int) -> Answer:
        """The headers that are here, the newest first."""
        rows = [row for row in reversed(self._chain.rows()) if not before or row.info.height < before]
        if before and not rows:
            raise self.not_kept(f"blocks below {before}")
        lines = [self._line(row) for row in rows[:limit]]
        return Answer({"chain": self._chain.chain.hex(), "blocks": lines}, ["a light node keeps no history: a full node shows more"])

    def _line(self, row: HeaderRow) -> dict[str, object]:
        header, info = decode_header(row.header), row.info
        return {
            "height": info.height,
            "block": header.hash.hex(),
            "parent": header.parent.hex(),
            "slot": info.slot,
            "time": iso_ms(header.t_stamp_ms),
            "miner": self._name_of(info.miner) if any(info.miner) else "",
            "kinds": [],
            "transaction_count": info.transaction_count,
            "state_root": info.state_root.hex(),
            "state": "final" if info.height <= self._chain.checkpoints()[1].height else "in_block",
        }


def _included(snapshot: Snapshot, prefix: str) -> Inclusion | None:
    """An own anchor whose place is kept here, by the beginning of its id."""
    for key, _ in snapshot.scan(LIGHT_INCLUSIONS):
        if key.hex().startswith(prefix):
            return kept.inclusion(snapshot, key)
    return None
