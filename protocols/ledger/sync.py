"""Pages of headers: made, checked, and where two chains part. Source: SPEC.md §Talk.

A page shows, before any body is asked for, that its blocks follow one another and that each has the work that its own leaf 0 claims.
Whether that target, the leader and the rest are right is said by ``transition.apply_block``, body by body, in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from ..codec import Record
from ..errors import DecodeError, InvalidBlock, InvalidObject, Reason, RemoteError
from ..limits import BLOCK_TRANSACTIONS_MAX, HEADERS_PER_PAGE_MAX
from ..merkle import check_merkle_path, merkle_path
from ..types import BlockHash, ChainId
from .block import Block, BlockInfo, Header, block_leaves, decode_header
from .seals.port import SealRule


class HeaderRow(Record, frozen=True):
    """header: 84 bytes. info: leaf 0. path: of leaf 0, from the bottom up."""

    header: bytes
    info: BlockInfo
    path: tuple[bytes, ...]


def header_row(block: Block) -> HeaderRow:
    """What a page says of a block."""
    return HeaderRow(block.header, block.info, merkle_path(block_leaves(block), 0))


def check_rows(rows: Sequence[HeaderRow], chain: ChainId, seal: SealRule | None) -> tuple[BlockHash, ...]:
    """Hashes of a page's blocks, oldest first. seal: the chain's, None while its genesis is not known here.

    Raises RemoteError(FLOOD | WRONG_CHAIN | INTEGRITY | WORK | NONCE | MALFORMED).
    """
    if len(rows) > HEADERS_PER_PAGE_MAX:
        raise RemoteError(Reason.FLOOD, f"{len(rows)} headers in one page, at most {HEADERS_PER_PAGE_MAX} wanted")
    headers = tuple(_check_row(row, chain, seal) for row in rows)
    for (row, header), (next_row, next_header) in pairwise(zip(rows, headers, strict=True)):
        linked = next_header.parent == header.hash and next_row.info.height == row.info.height + 1
        if not linked or next_row.info.slot <= row.info.slot:
            raise RemoteError(Reason.INTEGRITY, f"headers {row.info.height} and {next_row.info.height} do not follow one another")
    return tuple(header.hash for header in headers)


def _check_row(row: HeaderRow, chain: ChainId, seal: SealRule | None) -> Header:
    try:
        header = decode_header(row.header)
        if row.info.chain != chain:
            raise RemoteError(Reason.WRONG_CHAIN, "header of another chain")
        if not 0 <= row.info.transaction_count <= BLOCK_TRANSACTIONS_MAX or row.info.height < 0 or len(row.info.target) != 32:
            raise RemoteError(Reason.INTEGRITY, "leaf 0 of no block")
        count = row.info.transaction_count + 1
        check_merkle_path(header.merkle_root, row.info.leaf, index=0, leaf_count=count, path=row.path)
        if seal is not None and row.info.height:
            seal.check(header, int.from_bytes(row.info.target, "big"))
    except (InvalidBlock, InvalidObject) as error:
        raise RemoteError(error.reason, f"header: {error.message}") from error
    except DecodeError as error:
        raise RemoteError(error.reason, f"header: {error.message}") from error
    return header


def locator_heights(head: int, final: int) -> tuple[int, ...]:
    """Heights whose hashes say where two chains part: every one of the last eight, then doubling steps down, the final one, genesis."""
    heights: list[int] = []
    step, height = 1, head
    while height > final:
        heights.append(height)
        if len(heights) >= 8:
            step *= 2
        height -= step
    return tuple(dict.fromkeys((*heights, final, 0)))
