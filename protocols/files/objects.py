"""What owners and operators sign: statement, offer, wrap, tombstone, confirmation, pin. Source: SPEC.md §Signed objects.

``sign_x`` makes the envelope; ``open_x`` checks signature, signer, format, bounds and, where there is a C, the HashID. Nothing
here knows the time or a member's rights: whether a signer may is asked of `identity`, whether now is right of the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

from ..codec import Record, encode
from ..crypto import FORMAT, SUITE, HpkePrivateKey, Label, SigningKey, equal, hash_labelled, hpke_open, hpke_seal
from ..errors import InvalidObject, Reason
from ..limits import (
    CHUNKS_PER_SEQUENCE_MAX,
    CLOCK_SKEW_MAX_S,
    MANIFEST_CHUNKS_MAX,
    OFFER_LIFETIME_S,
    SEALED_CHUNK_BYTES_MAX,
    TOMBSTONE_COVERS_MAX,
)
from ..merkle import merkle_root
from ..signed import Signed, open_signed, sign_object
from ..types import ChunksRoot, Digest, DomainId, HashId, HpkeKey, MemberId, NetworkId, OwnerKey, PeerId, SequenceRoot, UnixSeconds
from .hashid import check_hash_id
from .keys import CODEC_NONE, RecordClass, record_key_commitment

REDUNDANCY_COPIES = 0
# With one chunk to a sequence the manifest is one sequence more, and an index of a sequence is four bytes on disk.
DATA_CHUNKS_MAX = (1 << 32) - 1
COPIES_WANTED_MAX = 1024
PUT_ID_BYTES = 16
WRAPPED_KEY_BYTES = 32 + 32 + 16
NUMBER_MAX = (1 << 63) - 1


class Statement(Record, frozen=True):
    """What the owner says of a record. Constant size but for integers.

    seq: from 1, shared with tombstones. follows: hash of the newest object that its signer knew, empty for the first.
    sealed_bytes: of all chunks, the manifest's too. copies_wanted: 0 = as the domain's profile says.
    valid_until_s: 0 = without end.
    """

    format: int
    suite: int
    network: NetworkId
    domain: DomainId
    owner: OwnerKey
    hash_id: HashId
    c: Digest
    record_class: RecordClass
    epoch: int
    seq: int
    follows: bytes
    chunks_root: ChunksRoot
    manifest_chunks: int
    data_chunks: int
    chunks_per_sequence: int
    sealed_bytes: int
    commitment: Digest
    manifest_salt: bytes
    copies_wanted: int
    redundancy: int
    codec: int
    valid_until_s: UnixSeconds
    time_s: UnixSeconds


class Offer(Record, frozen=True):
    """Leave to store one sequence before the record is complete. put_id: 16 random bytes. sealed_bytes: of all its chunks."""

    format: int
    suite: int
    network: NetworkId
    domain: DomainId
    owner: OwnerKey
    put_id: bytes
    sequence_root: SequenceRoot
    chunk_names: tuple[bytes, ...]
    sealed_bytes: int
    time_s: UnixSeconds
    expires_s: UnixSeconds


class Wrap(Record, frozen=True):
    """The record key sealed to one grantee. recipient: which of the grantee's HPKE keys opens it."""

    format: int
    suite: int
    network: NetworkId
    domain: DomainId
    owner: OwnerKey
    hash_id: HashId
    c: Digest
    grantee: MemberId
    recipient: HpkeKey
    epoch: int
    sealed_key: bytes
    time_s: UnixSeconds


class Tombstone(Record, frozen=True):
    """The owner takes a record back. Shares seq with statements.

    follows: hash of the newest object that its signer knew. covers: hashes of all statements that its signer knew, sorted;
    the tombstone acts on these, and on no other of a lower seq, even where the objects between are known to nobody any more.
    """

    format: int
    suite: int
    network: NetworkId
    domain: DomainId
    owner: OwnerKey
    hash_id: HashId
    c: Digest
    seq: int
    follows: bytes
    covers: tuple[bytes, ...]
    act: Literal["delete", "erase"]
    time_s: UnixSeconds


class Reaffirm(Record, frozen=True):
    """One quarantined statement or tombstone holds after all. signer: the owner, or a new key of the same member."""

    format: int
    suite: int
    network: NetworkId
    domain: DomainId
    owner: OwnerKey
    hash_id: HashId
    c: Digest
    object_hash: Digest
    confirmer: OwnerKey
    time_s: UnixSeconds


class Pin(Record, frozen=True):
    """An operator's wish for one node and record. wish: "in" it must hold, "out" it must not, "none" the pin is taken back.

    seq: of this operator's pins for this node and record; the greatest (seq, object hash) is in force.
    """

    format: int
    suite: int
    network: NetworkId
    domain: DomainId
    operator: OwnerKey
    node: PeerId
    owner: OwnerKey
    hash_id: HashId
    wish: Literal["in", "out", "none"]
    seq: int
    time_s: UnixSeconds


T = TypeVar("T")


def check_that(fact: bool, what: str) -> None:
    """Raises InvalidObject(INTEGRITY) naming what does not hold of an object."""
    if not fact:
        raise InvalidObject(Reason.INTEGRITY, what)


def check_lengths(wanted: int, **fields: bytes) -> None:
    """Raises InvalidObject(INTEGRITY) for a field of another length."""
    for name, value in fields.items():
        if len(value) != wanted:
            raise InvalidObject(Reason.INTEGRITY, f"{name} of {len(value)} bytes, {wanted} wanted")


def check_numbers(**fields: int) -> None:
    """Raises InvalidObject(INTEGRITY) for a number outside 0..NUMBER_MAX."""
    for name, value in fields.items():
        if not 0 <= value <= NUMBER_MAX:
            raise InvalidObject(Reason.INTEGRITY, f"{name} is {value}, 0 to {NUMBER_MAX} wanted")


def open_object(signed: Signed, kind: type[T], label: Label, network: NetworkId, signer_of: Callable[[T], bytes]) -> T:
    """Value of an envelope after checking signature, format, suite, network and that the named signer signed."""
    value, signer = open_signed(signed, kind, label, network)
    if getattr(value, "format", None) != FORMAT or getattr(value, "suite", None) != SUITE:
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"{kind.__name__} of a format or suite that we do not know")
    if getattr(value, "network", None) != network:
        raise InvalidObject(Reason.WRONG_NETWORK, f"{kind.__name__} of another network")
    if signer_of(value) != signer:
        raise InvalidObject(Reason.WRONG_OWNER, f"{kind.__name__} signed by another key than it names")
    return value


def _check_record(value: Statement | Wrap | Tombstone | Reaffirm) -> None:
    check_lengths(32, network=value.network, domain=value.domain, owner=value.owner, hash_id=value.hash_id, c=value.c)
    check_numbers(time_s=value.time_s)
    check_hash_id(value.hash_id, value.owner, value.c)


def _check_follows(seq: int, follows: bytes) -> None:
    if not 1 <= seq <= NUMBER_MAX:
        raise InvalidObject(Reason.INTEGRITY, f"seq is {seq}, at least 1 wanted")
    check_lengths(0 if seq == 1 else 32, follows=follows)


def check_statement(value: Statement) -> None:
    """Raises InvalidObject unless the statement is possible taken alone."""
    _check_record(value)
    _check_follows(value.seq, value.follows)
    check_lengths(32, chunks_root=value.chunks_root, commitment=value.commitment, manifest_salt=value.manifest_salt)
    check_numbers(epoch=value.epoch, valid_until_s=value.valid_until_s)
    # Texts of errors are made where there is an error: a block has hundreds of statements.
    if not 1 <= value.manifest_chunks <= MANIFEST_CHUNKS_MAX:
        raise InvalidObject(Reason.INTEGRITY, f"{value.manifest_chunks} manifest chunks")
    if not 0 <= value.data_chunks <= DATA_CHUNKS_MAX:
        raise InvalidObject(Reason.INTEGRITY, f"{value.data_chunks} data chunks")
    if not 1 <= value.chunks_per_sequence <= CHUNKS_PER_SEQUENCE_MAX:
        raise InvalidObject(Reason.INTEGRITY, f"{value.chunks_per_sequence} chunks per sequence")
    chunks = value.manifest_chunks + value.data_chunks
    if not 0 < value.sealed_bytes <= chunks * SEALED_CHUNK_BYTES_MAX:
        raise InvalidObject(Reason.INTEGRITY, f"{value.sealed_bytes} sealed bytes in {chunks} chunks")
    if not 0 <= value.copies_wanted <= COPIES_WANTED_MAX:
        raise InvalidObject(Reason.INTEGRITY, f"{value.copies_wanted} copies wanted")
    if value.redundancy != REDUNDANCY_COPIES or value.codec != CODEC_NONE:
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"redundancy {value.redundancy}, codec {value.codec}")


def sign_statement(value: Statement, key: SigningKey) -> Signed:
    """Envelope of a statement; the key is the owner's."""
    check_statement(value)
    assert key.public == value.owner
    return sign_object(value, key, Label.STATEMENT, value.network)


def open_statement(signed: Signed, network: NetworkId) -> Statement:
    """Raises InvalidObject, DecodeError."""
    value = open_object(signed, Statement, Label.STATEMENT, network, lambda statement: statement.owner)
    check_statement(value)
    return value


def check_offer(value: Offer) -> None:
    """Raises InvalidObject unless the offer is possible taken alone."""
    check_lengths(32, network=value.network, domain=value.domain, owner=value.owner, sequence_root=value.sequence_root)
    check_lengths(PUT_ID_BYTES, put_id=value.put_id)
    count = len(value.chunk_names)
    check_that(1 <= count <= MANIFEST_CHUNKS_MAX, f"offer of {count} chunks, 1 to {MANIFEST_CHUNKS_MAX} wanted")
    for name in value.chunk_names:
        check_lengths(32, chunk_name=name)
    check_that(SequenceRoot(merkle_root(value.chunk_names)) == value.sequence_root, "sequence root is not that of the chunk names")
    check_that(0 < value.sealed_bytes <= count * SEALED_CHUNK_BYTES_MAX, f"{value.sealed_bytes} sealed bytes in {count} chunks")
    check_numbers(time_s=value.time_s, expires_s=value.expires_s)
    check_that(0 <= value.expires_s - value.time_s <= OFFER_LIFETIME_S, f"offer for more than {OFFER_LIFETIME_S} s")


def check_offer_time(value: Offer, now_s: int) -> None:
    """Raises InvalidObject: EXPIRED for an offer that has ended, CLOCK_UNSAFE for one whose end is further away than any may be.

    An owner whose clock is ahead of ours may offer: its end may be CLOCK_SKEW_MAX_S further."""
    if value.expires_s < now_s:
        raise InvalidObject(Reason.EXPIRED, f"offer until {value.expires_s}, now {now_s}")
    if value.expires_s > now_s + OFFER_LIFETIME_S + CLOCK_SKEW_MAX_S:
        raise InvalidObject(Reason.CLOCK_UNSAFE, f"offer until {value.expires_s}, now {now_s}: its owner's clock is ahead of ours")


def sign_offer(value: Offer, key: SigningKey) -> Signed:
    """Envelope of an offer; the key is the owner's."""
    check_offer(value)
    assert key.public == value.owner
    return sign_object(value, key, Label.OFFER, value.network)


def open_offer(signed: Signed, network: NetworkId) -> Offer:
    """Raises InvalidObject, DecodeError. The time is checked by ``check_offer_time``."""
    value = open_object(signed, Offer, Label.OFFER, network, lambda offer: offer.owner)
    check_offer(value)
    return value


def _wrap_info(network: bytes, hash_id: bytes, owner: bytes, grantee: bytes, epoch: int) -> bytes:
    return Label.WRAP_INFO.value + b"\0" + encode((network, hash_id, owner, grantee, epoch))


def make_wrap(
    statement: Statement,
    record_key: bytes,
    *,
    grantee: MemberId,
    recipient: HpkeKey,
    ephemeral_seed: bytes,
    time_s: UnixSeconds,
) -> Wrap:
    """The record key sealed to one grantee. ephemeral_seed: 32 fresh random bytes, used once."""
    assert record_key_commitment(record_key) == statement.commitment
    info = _wrap_info(statement.network, statement.hash_id, statement.owner, grantee, statement.epoch)
    return Wrap(
        format=FORMAT,
        suite=SUITE,
        network=statement.network,
        domain=statement.domain,
        owner=statement.owner,
        hash_id=statement.hash_id,
        c=statement.c,
        grantee=grantee,
        recipient=recipient,
        epoch=statement.epoch,
        sealed_key=hpke_seal(recipient, record_key, info=info, ephemeral_seed=ephemeral_seed),
        time_s=time_s,
    )


def sign_wrap(value: Wrap, key: SigningKey) -> Signed:
    """Envelope of a wrap; the key is the owner's."""
    assert key.public == value.owner
    return sign_object(value, key, Label.WRAP, value.network)


def open_wrap(signed: Signed, network: NetworkId) -> Wrap:
    """The wrap, still sealed: what every holder checks. Raises InvalidObject, DecodeError."""
    value = open_object(signed, Wrap, Label.WRAP, network, lambda wrap: wrap.owner)
    _check_record(value)
    check_lengths(32, grantee=value.grantee, recipient=value.recipient)
    check_lengths(WRAPPED_KEY_BYTES, sealed_key=value.sealed_key)
    check_numbers(epoch=value.epoch)
    return value


def unwrap_key(wrap: Wrap, private: HpkePrivateKey, commitment: bytes) -> bytes:
    """The record key, by the grantee. commitment: of the statement. Raises InvalidObject(BAD_TAG | NO_KEY)."""
    info = _wrap_info(wrap.network, wrap.hash_id, wrap.owner, wrap.grantee, wrap.epoch)
    record_key = hpke_open(private, wrap.sealed_key, info=info)
    check_commitment(record_key, commitment)
    return record_key


def check_commitment(record_key: bytes, commitment: bytes) -> None:
    """Raises InvalidObject(NO_KEY) unless the statement that says ``commitment`` speaks of this record key."""
    if len(record_key) != 32 or not equal(record_key_commitment(record_key), commitment):
        raise InvalidObject(Reason.NO_KEY, "record key is not the one that the statement commits to")


def wraps_digest(wraps: Sequence[Signed]) -> Digest:
    """What a receipt says of the wraps that a holder keeps for a record, in whatever order it got them."""
    return hash_labelled(Label.WRAPS, *sorted({wrap.object_hash for wrap in wraps}))


def check_tombstone(value: Tombstone) -> None:
    """Raises InvalidObject unless the tombstone is possible taken alone."""
    _check_record(value)
    _check_follows(value.seq, value.follows)
    check_that(value.seq > 1, "a tombstone follows something")
    check_that(len(value.covers) <= TOMBSTONE_COVERS_MAX, f"tombstone covers {len(value.covers)} statements")
    for covered in value.covers:
        check_lengths(32, covered=covered)
    check_that(all(a < b for a, b in zip(value.covers, value.covers[1:], strict=False)), "covered statements are not sorted")


def sign_tombstone(value: Tombstone, key: SigningKey) -> Signed:
    """Envelope of a tombstone; the key is the owner's."""
    check_tombstone(value)
    assert key.public == value.owner
    return sign_object(value, key, Label.TOMBSTONE, value.network)


def open_tombstone(signed: Signed, network: NetworkId) -> Tombstone:
    """Raises InvalidObject, DecodeError."""
    value = open_object(signed, Tombstone, Label.TOMBSTONE, network, lambda tombstone: tombstone.owner)
    check_tombstone(value)
    return value


def sign_reaffirm(value: Reaffirm, key: SigningKey) -> Signed:
    """Envelope of a confirmation."""
    assert key.public == value.confirmer
    return sign_object(value, key, Label.REAFFIRM, value.network)


def open_reaffirm(signed: Signed, network: NetworkId) -> Reaffirm:
    """Raises InvalidObject, DecodeError. Whether the confirmer is the owner's member is asked of `identity`."""
    value = open_object(signed, Reaffirm, Label.REAFFIRM, network, lambda reaffirm: reaffirm.confirmer)
    _check_record(value)
    check_lengths(32, object_hash=value.object_hash)
    return value


def sign_pin(value: Pin, key: SigningKey) -> Signed:
    """Envelope of a pin."""
    assert key.public == value.operator
    return sign_object(value, key, Label.PIN, value.network)


def open_pin(signed: Signed, network: NetworkId) -> Pin:
    """Raises InvalidObject, DecodeError. Whether the signer operates that node's domain is asked of `identity`."""
    value = open_object(signed, Pin, Label.PIN, network, lambda pin: pin.operator)
    check_lengths(32, domain=value.domain, owner=value.owner, hash_id=value.hash_id)
    check_that(0 < len(value.node) <= 64, "pin for no node")
    check_numbers(seq=value.seq, time_s=value.time_s)
    return value
