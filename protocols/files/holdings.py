"""What holders sign, with their node's key: hold, receipt, withdrawal, erasure receipt, refusal. Source: SPEC.md §Signed objects.

A holder speaks only after its commit. Receipts and withdrawals of one store share one persisted counter; the greatest wins.
"""

from __future__ import annotations

import itertools

from ..codec import Record
from ..crypto import Label, SigningKey
from ..limits import CLOCK_SKEW_MAX_S, MANIFEST_CHUNKS_MAX, OFFER_LIFETIME_S, RECEIPT_ITEMS_MAX, RECEIPT_LIFETIME_S
from ..signed import Signed, sign_object
from ..types import Digest, HashId, NetworkId, OwnerKey, PeerId, SequenceRoot, StoreId, UnixSeconds
from .objects import check_lengths, check_numbers, check_that, open_object

# A libp2p peer id of an Ed25519 key: identity multihash of 36 bytes, key type 1, 32 bytes of key. Source: libp2p peer-ids.md.
PEER_ID_PREFIX = bytes.fromhex("002408011220")
STORE_ID_BYTES = 16


class Hold(Record, frozen=True):
    """The answer to an offer: its chunks are on this disk. Never counts as a copy. until_s: as the offer says, at most."""

    format: int
    suite: int
    network: NetworkId
    offer: Digest
    sequence_root: SequenceRoot
    holder: PeerId
    store_id: StoreId
    generation: int
    until_s: UnixSeconds


class ReceiptItem(Record, frozen=True):
    """What is held of one record.

    seq, object_hash: the owner's newest object (statement or tombstone) that the holder knew. wraps: digest of the wraps held
    (objects.wraps_digest). sequence_roots: of the sequences held whole, sorted.
    """

    owner: OwnerKey
    hash_id: HashId
    seq: int
    object_hash: Digest
    wraps: Digest
    sequence_roots: tuple[SequenceRoot, ...]


class Receipt(Record, frozen=True):
    """These sequences are on this disk, read back or just written. At most RECEIPT_ITEMS_MAX sequence roots in all items."""

    format: int
    suite: int
    network: NetworkId
    holder: PeerId
    store_id: StoreId
    generation: int
    counter: int
    from_s: UnixSeconds
    until_s: UnixSeconds
    items: tuple[ReceiptItem, ...]


class WithdrawnItem(Record, frozen=True):
    """Sequences of one record that are not, or soon not, held any more. Sorted."""

    owner: OwnerKey
    hash_id: HashId
    sequence_roots: tuple[SequenceRoot, ...]


class Withdrawal(Record, frozen=True):
    """Earlier receipts for these sequences are void."""

    format: int
    suite: int
    network: NetworkId
    holder: PeerId
    store_id: StoreId
    generation: int
    counter: int
    time_s: UnixSeconds
    items: tuple[WithdrawnItem, ...]


class ErasureReceipt(Record, frozen=True):
    """The chunks of an erased record are gone here, but for those that other records of the owner need.

    tombstone: object hash. chunks_erased: how many. chunks_kept: names, sorted.
    """

    format: int
    suite: int
    network: NetworkId
    holder: PeerId
    store_id: StoreId
    owner: OwnerKey
    hash_id: HashId
    tombstone: Digest
    chunks_erased: int
    chunks_kept: tuple[bytes, ...]
    time_s: UnixSeconds


class Refusal(Record, frozen=True):
    """No, and why. subject: object hash of what was asked (an offer), or a sequence root. reason: stable name of a Reason."""

    format: int
    suite: int
    network: NetworkId
    node: PeerId
    subject: Digest
    reason: str
    time_s: UnixSeconds
    until_s: UnixSeconds


REASON_CHARS_MAX = 64


def node_key(peer: PeerId) -> OwnerKey:
    """Ed25519 public key of a node. Raises InvalidObject(INTEGRITY) for a peer id of another kind."""
    check_that(len(peer) == len(PEER_ID_PREFIX) + 32 and peer.startswith(PEER_ID_PREFIX), "peer id of no Ed25519 key")
    return OwnerKey(peer[len(PEER_ID_PREFIX) :])


def node_peer(key: SigningKey) -> PeerId:
    """Peer id of the node whose key this is."""
    return PeerId(PEER_ID_PREFIX + key.public)


def _check_roots(count_max: int, *groups: tuple[SequenceRoot, ...]) -> None:
    total = sum(len(group) for group in groups)
    check_that(1 <= total <= count_max, f"{total} sequence roots, 1 to {count_max} wanted")
    for group in groups:
        check_that(len(group) > 0, "item without a sequence root")
        for root in group:
            check_lengths(32, sequence_root=root)
        check_that(all(a < b for a, b in itertools.pairwise(group)), "sequence roots are not sorted")


def _check_store(value: Hold | Receipt | Withdrawal) -> None:
    check_lengths(STORE_ID_BYTES, store_id=value.store_id)
    check_numbers(generation=value.generation)


def sign_hold(value: Hold, key: SigningKey) -> Signed:
    """Envelope of a hold, by the holder's node key."""
    return sign_object(value, key, Label.HOLD, value.network)


def open_hold(signed: Signed, network: NetworkId) -> Hold:
    """Raises InvalidObject, DecodeError."""
    value = open_object(signed, Hold, Label.HOLD, network, lambda hold: node_key(hold.holder))
    _check_store(value)
    check_lengths(32, offer=value.offer, sequence_root=value.sequence_root)
    check_numbers(until_s=value.until_s)
    return value


def check_receipt(value: Receipt) -> None:
    """Raises InvalidObject unless the receipt is possible taken alone."""
    _check_store(value)
    check_numbers(counter=value.counter, from_s=value.from_s, until_s=value.until_s)
    check_that(0 <= value.until_s - value.from_s <= RECEIPT_LIFETIME_S, f"receipt for more than {RECEIPT_LIFETIME_S} s")
    for item in value.items:
        check_lengths(32, owner=item.owner, hash_id=item.hash_id, object_hash=item.object_hash, wraps=item.wraps)
        check_that(item.seq >= 1, "receipt under no object")
        check_numbers(seq=item.seq)
    records = [(item.owner, item.hash_id) for item in value.items]
    check_that(len(set(records)) == len(records), "one record twice in a receipt")
    _check_roots(RECEIPT_ITEMS_MAX, *(item.sequence_roots for item in value.items))


def sign_receipt(value: Receipt, key: SigningKey) -> Signed:
    """Envelope of a receipt, by the holder's node key, after the commit of the bodies."""
    check_receipt(value)
    return sign_object(value, key, Label.RECEIPT, value.network)


def open_receipt(signed: Signed, network: NetworkId) -> Receipt:
    """Raises InvalidObject, DecodeError. Whether it counts is decided by ``receipts.counting``."""
    value = open_object(signed, Receipt, Label.RECEIPT, network, lambda receipt: node_key(receipt.holder))
    check_receipt(value)
    return value


def sign_withdrawal(value: Withdrawal, key: SigningKey) -> Signed:
    """Envelope of a withdrawal, by the holder's node key."""
    return sign_object(value, key, Label.WITHDRAWAL, value.network)


def open_withdrawal(signed: Signed, network: NetworkId) -> Withdrawal:
    """Raises InvalidObject, DecodeError."""
    value = open_object(signed, Withdrawal, Label.WITHDRAWAL, network, lambda withdrawal: node_key(withdrawal.holder))
    _check_store(value)
    check_numbers(counter=value.counter, time_s=value.time_s)
    for item in value.items:
        check_lengths(32, owner=item.owner, hash_id=item.hash_id)
    records = [(item.owner, item.hash_id) for item in value.items]
    check_that(len(set(records)) == len(records), "one record twice in a withdrawal")
    _check_roots(RECEIPT_ITEMS_MAX, *(item.sequence_roots for item in value.items))
    return value


def sign_erasure(value: ErasureReceipt, key: SigningKey) -> Signed:
    """Envelope of an erasure receipt, by the holder's node key, after the commit."""
    return sign_object(value, key, Label.ERASURE, value.network)


def open_erasure(signed: Signed, network: NetworkId) -> ErasureReceipt:
    """Raises InvalidObject, DecodeError."""
    value = open_object(signed, ErasureReceipt, Label.ERASURE, network, lambda erasure: node_key(erasure.holder))
    check_lengths(STORE_ID_BYTES, store_id=value.store_id)
    check_lengths(32, owner=value.owner, hash_id=value.hash_id, tombstone=value.tombstone)
    check_numbers(chunks_erased=value.chunks_erased, time_s=value.time_s)
    check_that(len(value.chunks_kept) <= MANIFEST_CHUNKS_MAX, f"{len(value.chunks_kept)} names of kept chunks")
    for name in value.chunks_kept:
        check_lengths(32, chunk_name=name)
    return value


def sign_refusal(value: Refusal, key: SigningKey) -> Signed:
    """Envelope of a refusal, by the refusing node's key."""
    return sign_object(value, key, Label.REFUSAL, value.network)


def open_refusal(signed: Signed, network: NetworkId) -> Refusal:
    """Raises InvalidObject, DecodeError."""
    value = open_object(signed, Refusal, Label.REFUSAL, network, lambda refusal: node_key(refusal.node))
    check_lengths(32, subject=value.subject)
    check_that(0 < len(value.reason) <= REASON_CHARS_MAX, "refusal without a usable reason")
    check_numbers(time_s=value.time_s, until_s=value.until_s)
    check_that(0 <= value.until_s - value.time_s <= OFFER_LIFETIME_S + CLOCK_SKEW_MAX_S, "refusal for more than a day")
    return value
