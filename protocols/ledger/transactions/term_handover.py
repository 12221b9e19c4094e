"""TermHandover: a candidate drawn for the next term shows that it holds the chain: headers, leaves of old blocks, the state tree.

Bodies are shown by leaves: an answer that carried whole transactions would nest, since a handover is a transaction too.
"""

from __future__ import annotations

from ...codec import Record, decode
from ...crypto import sha256
from ...errors import DecodeError, InvalidObject, InvalidTransaction, Reason
from ...limits import HANDOVER_KEYS, HANDOVER_LEAVES
from ...merkle import check_merkle_path
from ...types import AccountId
from ..block import BlockInfo, Header, LeafProof, check_leaf, decode_header
from ..carried import HASH
from ..checks import check_that, u64
from ..context import Context, Group, Kind, need_signatures
from ..envelope import NO_SERIAL, Transaction, transaction_leaf_of
from ..history import Peaks, check_path
from ..state import check_value
from ..terms import HANDOVER, MINER, ORDER, SEED, Miner, Order, handover_challenge
from ..tree import TreeProof, check_proof

HISTORY = "history"


class LeafAnswer(Record, frozen=True):
    """One leaf of one old block. index 0: the block info alone, the other fields empty. history: path of the block's hash."""

    header: bytes
    info: BlockInfo
    info_path: tuple[bytes, ...]
    transaction: bytes
    signatures: bytes
    path: tuple[bytes, ...]
    history: tuple[bytes, ...]


class Body(Record, frozen=True):
    """term: the next one. height: of the recent block whose state is shown; header, info, info_path: that block's.

    peaks: history tree in that state, with its proof. leaves, keys: answers to the challenges, in order.
    """

    term: int
    height: int
    header: bytes
    info: BlockInfo
    info_path: tuple[bytes, ...]
    peaks: bytes
    peaks_proof: TreeProof
    leaves: tuple[LeafAnswer, ...]
    keys: tuple[TreeProof, ...]


def challenged_leaf(seed: bytes, miner: AccountId, index: int, height: int) -> tuple[int, int]:
    """Height of the block that challenge ``index`` asks for, below ``height``, and the number that chooses its leaf."""
    draw = handover_challenge(seed, miner, index)
    return int.from_bytes(draw[:16], "big") % height, int.from_bytes(draw[16:], "big")


def challenged_key(seed: bytes, miner: AccountId, index: int) -> bytes:
    """K that challenge ``index`` asks for, 32 bytes."""
    return handover_challenge(seed, miner, HANDOVER_LEAVES + index)


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Signed by the miner's sealing key. Raises InvalidTransaction(NOT_FOUND | NOT_ELIGIBLE | CONFLICT | INTEGRITY | NOT_SIGNED | …)."""
    state, name = context.state, transaction.content.sender
    miner = context.load(MINER, name, Miner, "miner")
    check_that(transaction.content.serial == NO_SERIAL, "a miner's own acts name no certificate", Reason.BAD_CERTIFICATE)
    need_signatures(transaction, Group(frozenset({miner.key}), 1))
    # Who sends it may be a block or a term ahead of who judges: nothing else is asked before its block is known.
    check_that(body.height > 0, "height", Reason.INTEGRITY)
    known = context.state.get(HASH, u64(body.height))
    check_that(known is not None, "shows a block that is not here, or no recent one", Reason.NOT_FOUND)
    check_that(known == sha256(body.header), "shows a block of another branch", Reason.CONFLICT)
    check_that(body.term == context.term + 1, f"term {body.term}, {context.term + 1} wanted", Reason.NOT_ELIGIBLE)
    order = state.load(ORDER, u64(body.term), Order)
    check_that(order is not None and any(name in line for _, line in order.clusters), "not drawn", Reason.NOT_ELIGIBLE)
    check_that(state.get(HANDOVER, u64(body.term) + name) is None, "handed over already", Reason.CONFLICT)
    seed = state.get(SEED, u64(body.term))
    assert seed is not None
    try:
        _check_answers(context, name, seed, body)
    except (InvalidObject, DecodeError) as error:
        raise InvalidTransaction(Reason.INTEGRITY, f"handover: {error.message}") from error
    state.put(HANDOVER, u64(body.term) + name, b"")
    context.emit("handover", u64(body.term), name)


def _check_answers(context: Context, miner: AccountId, seed: bytes, body: Body) -> None:
    header = decode_header(body.header)
    count = body.info.transaction_count + 1
    check_merkle_path(header.merkle_root, body.info.leaf, index=0, leaf_count=count, path=body.info_path)
    root = body.info.state_root
    check_value(root, HISTORY, b"", body.peaks, body.peaks_proof)
    peaks = decode(body.peaks, Peaks)
    check_that(len(body.leaves) == HANDOVER_LEAVES and len(body.keys) == HANDOVER_KEYS, "number of answers", Reason.INTEGRITY)
    for index, answer in enumerate(body.leaves):
        height, choice = challenged_leaf(seed, miner, index, peaks.count)
        _check_leaf_answer(peaks, height, choice, answer)
    for index, proof in enumerate(body.keys):
        check_proof(root, challenged_key(seed, miner, index), proof)


def _check_leaf_answer(peaks: Peaks, height: int, choice: int, answer: LeafAnswer) -> None:
    header: Header = decode_header(answer.header)
    check_path(peaks, index=height, leaf=header.hash, siblings=answer.history)
    count = answer.info.transaction_count + 1
    check_merkle_path(header.merkle_root, answer.info.leaf, index=0, leaf_count=count, path=answer.info_path)
    index = choice % count  # of an info that the header commits to, so it is at least 1
    leaf = transaction_leaf_of(answer.transaction, answer.signatures) if index else answer.info.leaf
    check_leaf(header, answer.info, answer.info_path, leaf, LeafProof(index, answer.path if index else answer.info_path))


KIND = Kind(14, "TermHandover", Body, execute)
