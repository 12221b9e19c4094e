"""Blocks: header, block info, body, seal; the hash rule and the Merkle tree. Source: SPEC.md §Blocks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ..codec import Record, decode, encode
from ..crypto import FORMAT, Label, SigningKey, hash_labelled, sha256, verify
from ..errors import DecodeError, InvalidBlock, InvalidObject, Reason
from ..limits import BLOCK_BYTES_MAX, BLOCK_TRANSACTIONS_MAX, BLOCK_VOTES_MAX, HEADER_BYTES, NUMBER_MAX, SIGNATURES_MAX
from ..merkle import check_merkle_path, merkle_path, merkle_root
from ..types import AccountId, BlockHash, ChainId, Digest, NetworkId, Signature, UnixMillis
from .checks import is_rising, u64
from .envelope import Transaction, transaction_leaf
from .votes import Vote, carried_order, check_vote_form, votes_root

ZERO_HASH = BlockHash(bytes(32))
NO_MINER = AccountId(bytes(32))
ZERO_REVEAL = bytes(32)
NO_FILTER = bytes(32)
VERSION_MAX = (1 << 32) - 1


@dataclass(frozen=True)
class Header:
    """The 84 bytes that are hashed, in this order, big-endian: T_stamp (8) | MR (32) | V (4) | PBH (32) | nonce (8)."""

    t_stamp_ms: UnixMillis
    merkle_root: bytes
    version: int
    parent: BlockHash
    nonce: int

    @cached_property
    def encoded(self) -> bytes:
        """84 bytes."""
        return self.without_nonce + u64(self.nonce)

    @cached_property
    def without_nonce(self) -> bytes:
        """76 bytes: what stays the same while a nonce is searched."""
        return u64(self.t_stamp_ms) + self.merkle_root + self.version.to_bytes(4, "big") + self.parent

    @cached_property
    def hash(self) -> BlockHash:
        """SHA-256 of the 84 bytes."""
        return BlockHash(sha256(self.encoded))


def decode_header(data: bytes) -> Header:
    """Raises DecodeError(MALFORMED | TRUNCATED)."""
    if len(data) != HEADER_BYTES:
        raise DecodeError(Reason.TRUNCATED, f"header of {len(data)} bytes, {HEADER_BYTES} wanted")
    t_stamp_ms = int.from_bytes(data[:8], "big")
    if t_stamp_ms > NUMBER_MAX:
        raise DecodeError(Reason.MALFORMED, "T_stamp beyond the 63-bit range")
    return Header(
        UnixMillis(t_stamp_ms), data[8:40], int.from_bytes(data[40:44], "big"), BlockHash(data[44:76]), int.from_bytes(data[76:], "big")
    )


class BlockInfo(Record, frozen=True):
    """Leaf 0 of a block's tree: everything that the literal header has no field for.

    target: 32 bytes, big-endian. state_root: after this block. miner_list: hash of the term's list. reveal: 32 bytes.
    new_tip: empty, or 32 bytes that restart the miner's chain with ``new_tip_count`` reveals. filter: 32 zero bytes in rule set 1.
    transaction_count: the leaves after this one, so that a proof fixes a position.
    """

    format: int
    chain: ChainId
    height: int
    slot: int
    miner: AccountId
    term: int
    target: bytes
    state_root: bytes
    miner_list: bytes
    reveal: bytes
    new_tip: bytes
    new_tip_count: int
    votes_root: bytes
    filter: bytes
    transaction_count: int

    @property
    def leaf(self) -> Digest:
        """Its Merkle leaf, 32 bytes."""
        return hash_labelled(Label.BLOCK_INFO, encode(self))


class Block(Record, frozen=True):
    """header: its 84 bytes. votes: carried ones, in carried order. seal: 64 bytes by the miner, empty in a genesis."""

    header: bytes
    info: BlockInfo
    transactions: tuple[Transaction, ...]
    votes: tuple[Vote, ...]
    seal: bytes

    @property
    def hash(self) -> BlockHash:
        """SHA-256 of the header."""
        return BlockHash(sha256(self.header))


class LeafProof(Record, frozen=True):
    """One leaf under the Merkle root of a header. path: siblings from the bottom up."""

    index: int
    path: tuple[bytes, ...]


class LightHeader(Record, frozen=True):
    """What a light node gets of a block: header, seal, leaf 0 with its path, carried votes."""

    header: bytes
    seal: bytes
    info: BlockInfo
    path: tuple[bytes, ...]
    votes: tuple[Vote, ...]


def block_leaves(block: Block) -> tuple[Digest, ...]:
    """Leaf 0 is the block info, leaf i transaction i."""
    return (block.info.leaf, *(transaction_leaf(one) for one in block.transactions))


def block_merkle_root(info: BlockInfo, transactions: tuple[Transaction, ...]) -> Digest:
    """MR of a block with this info and these transactions."""
    return merkle_root((info.leaf, *(transaction_leaf(one) for one in transactions)))


def prove_leaf(block: Block, index: int) -> LeafProof:
    """Inclusion of leaf ``index`` (0: block info, i: transaction i)."""
    return LeafProof(index, merkle_path(block_leaves(block), index))


def check_leaf(header: Header, info: BlockInfo, info_path: tuple[bytes, ...], leaf: bytes, proof: LeafProof) -> None:
    """Raises InvalidObject(INTEGRITY) unless the leaf stands at its index under the header. The info gives the number of leaves."""
    count = info.transaction_count + 1
    if not 0 < count <= BLOCK_TRANSACTIONS_MAX + 1:
        raise InvalidObject(Reason.INTEGRITY, f"{count} leaves")
    check_merkle_path(header.merkle_root, info.leaf, index=0, leaf_count=count, path=info_path)
    check_merkle_path(header.merkle_root, leaf, index=proof.index, leaf_count=count, path=proof.path)


def light_header(block: Block) -> LightHeader:
    """The bundle for light nodes."""
    return LightHeader(block.header, block.seal, block.info, merkle_path(block_leaves(block), 0), block.votes)


def sign_seal(key: SigningKey, chain: ChainId, slot: int, block_hash: BlockHash) -> Signature:
    """The seal, outside the hash: over label | 0x00 | chain | slot (8) | block hash."""
    return key.sign(Label.SEAL, NetworkId(chain), u64(slot) + block_hash)


def check_seal(key: bytes, chain: ChainId, slot: int, block_hash: BlockHash, seal: bytes) -> None:
    """Raises InvalidBlock(BAD_SEAL)."""
    try:
        verify(key, Signature(seal), Label.SEAL, NetworkId(chain), u64(slot) + block_hash)
    except InvalidObject as error:
        raise InvalidBlock(Reason.BAD_SEAL, "the seal is not by the miner's key") from error


def decode_block(data: bytes) -> Block:
    """Raises DecodeError."""
    return decode(data, Block, bytes_max=BLOCK_BYTES_MAX)


def check_block_form(block: Block) -> Header:
    """What holds of a block without any state: lengths, bounds, and that the body is the one its header names.

    A block that fails here says nothing of its hash: only the sender is to blame. Raises InvalidBlock(BAD_INFO | MERKLE_ROOT | BAD_VOTE),
    DecodeError.
    """
    header = decode_header(block.header)
    info = block.info
    _check_info(info)
    if len(block.transactions) != info.transaction_count or info.transaction_count > BLOCK_TRANSACTIONS_MAX:
        raise InvalidBlock(Reason.BAD_INFO, f"{len(block.transactions)} transactions, info says {info.transaction_count}")
    if any(len(one.signatures) > SIGNATURES_MAX for one in block.transactions):
        raise InvalidBlock(Reason.BAD_INFO, "a transaction with too many signatures")
    _check_votes(block.votes)
    if votes_root(block.votes) != info.votes_root:
        raise InvalidBlock(Reason.MERKLE_ROOT, "carried votes are not those of leaf 0")
    if block_merkle_root(info, block.transactions) != header.merkle_root:
        raise InvalidBlock(Reason.MERKLE_ROOT, "body is not the one that the header names")
    return header


def _check_votes(votes: tuple[Vote, ...]) -> None:
    try:
        for vote in votes:
            check_vote_form(vote)
    except InvalidObject as error:
        raise InvalidBlock(Reason.BAD_VOTE, f"carried vote: {error.message}") from error
    if len(votes) > BLOCK_VOTES_MAX or not is_rising([carried_order(vote) for vote in votes]):
        raise InvalidBlock(Reason.BAD_VOTE, "carried votes are too many or not in order")


def _check_info(info: BlockInfo) -> None:
    if info.format != FORMAT:
        raise InvalidBlock(Reason.UNKNOWN_FORMAT, f"block info of format {info.format}")
    fixed = (info.chain, info.miner, info.target, info.state_root, info.miner_list, info.reveal, info.votes_root, info.filter)
    if any(len(value) != 32 for value in fixed) or len(info.new_tip) not in (0, 32):
        raise InvalidBlock(Reason.BAD_INFO, "a field of another length than 32 bytes")
    numbers = (info.height, info.slot, info.term, info.new_tip_count, info.transaction_count)
    if any(not 0 <= value <= NUMBER_MAX for value in numbers):
        raise InvalidBlock(Reason.BAD_INFO, "a number outside the 63-bit range")
    if bool(info.new_tip) != bool(info.new_tip_count):
        raise InvalidBlock(Reason.BAD_INFO, "a new tip without a count, or a count without a tip")
    if info.filter != NO_FILTER:
        raise InvalidBlock(Reason.BAD_INFO, "a filter commitment before its rule set is active")
