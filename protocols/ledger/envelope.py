"""The transaction envelope: what is said, by whom, for which chain, until when, and the signatures over its id.

Source: SPEC.md §Transactions. The id covers everything but the signatures; a block's Merkle leaf covers these too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from ..codec import Record, decode, encode
from ..crypto import Label, SigningKey, hash_labelled, sha256, verify
from ..errors import DecodeError, InvalidObject, InvalidTransaction, Reason
from ..limits import LINKS_MAX, SIGNATURES_MAX, TX_BYTES_MAX
from ..types import AccountId, ChainId, Digest, NetworkId, Signature, TxId, UnixMillis
from .checks import check_lengths, check_numbers, check_that, is_rising

T = TypeVar("T")
R = TypeVar("R", bound=Record)
ENVELOPE_VERSION = 1
ZERO_CHAIN = ChainId(bytes(32))
NO_SERIAL = b""
SERIAL_BYTES = 16


class _once(Generic[T]):
    """A method of a transaction whose result is kept in it. As ``cached_property`` without its lock, which costs as much as a hash: two
    threads may both compute it, and find the same."""

    def __init__(self, method: Callable[[Transaction], T]) -> None:
        self._method = method
        self.__doc__ = method.__doc__

    def __get__(self, transaction: Transaction, owner: object = None) -> T:
        found = self._method(transaction)
        transaction.__dict__[self._method.__name__] = found
        return found


class Content(Record, frozen=True):
    """What a transaction says. Its canonical encoding is what the id is the SHA-256 of.

    chain: 32 zero bytes in a genesis, else the chain's id. kind: a number of schedule.py. sender: the acting account.
    serial: 16 bytes, the sender's certificate; empty where the council or a genesis speaks.
    ts_ms: the sender's time. until_ms: last block time at which it may be included.
    links: ids of transactions that must be on the chain before. body: canonical encoding of the kind's Body.
    """

    version: int
    chain: ChainId
    kind: int
    sender: AccountId
    serial: bytes
    ts_ms: UnixMillis
    until_ms: UnixMillis
    links: tuple[bytes, ...]
    body: bytes


class KeySignature(Record, frozen=True):
    """key: 32-byte Ed25519 public key. signature: 64 bytes over label | 0x00 | chain | id."""

    key: bytes
    signature: bytes


class Transaction(Record, frozen=True, dict=True, gc=True):
    """Content and its signatures, by rising key, no key twice. What follows from them is computed once."""

    content: Content
    signatures: tuple[KeySignature, ...]

    @_once
    def id(self) -> TxId:
        """SHA-256 of the canonical content. 32 bytes."""
        return TxId(sha256(encode(self.content)))

    @_once
    def size(self) -> int:
        """Bytes of the canonical encoding."""
        return len(encode(self))

    @_once
    def keys(self) -> frozenset[bytes]:
        """Keys that signed."""
        return frozenset([one.key for one in self.signatures])


def sign_transaction(content: Content, keys: Iterable[SigningKey]) -> Transaction:
    """The transaction with one signature of each key."""
    name = sha256(encode(content))
    network = NetworkId(content.chain)
    signed = {key.public: KeySignature(key.public, key.sign(Label.TRANSACTION, network, name)) for key in keys}
    return Transaction(content, tuple(signed[key] for key in sorted(signed)))


def transaction_leaf(transaction: Transaction) -> Digest:
    """Merkle leaf of a transaction in a block: H(label, id, SHA-256 of the canonical signatures). 32 bytes."""
    return transaction_leaf_of(transaction.id, signatures_hash(transaction))


def signatures_hash(transaction: Transaction) -> Digest:
    """SHA-256 of the canonical signatures. 32 bytes."""
    return sha256(encode(transaction.signatures))


def transaction_leaf_of(name: bytes, signatures: bytes) -> Digest:
    """Merkle leaf from a transaction's id and the hash of its signatures."""
    return hash_labelled(Label.TRANSACTION_LEAF, name, signatures)


def check_form(transaction: Transaction) -> None:
    """What can be said of a transaction without any state: lengths, bounds, order and truth of its signatures.

    Raises InvalidTransaction(BAD_BODY | UNKNOWN_FORMAT | TOO_LONG | BAD_SIGNATURE).
    """
    content = transaction.content
    # Texts of errors are made where there is an error: this runs for every transaction of every block.
    if content.version != ENVELOPE_VERSION:
        raise InvalidTransaction(Reason.UNKNOWN_FORMAT, f"envelope version {content.version}")
    check_lengths(32, chain=content.chain, sender=content.sender)
    if content.serial != NO_SERIAL and len(content.serial) != SERIAL_BYTES:
        raise InvalidTransaction(Reason.BAD_BODY, f"serial of {len(content.serial)} bytes")
    check_numbers(kind=content.kind, ts_ms=content.ts_ms, until_ms=content.until_ms)
    if len(content.links) > LINKS_MAX:
        raise InvalidTransaction(Reason.BAD_BODY, f"{len(content.links)} links, at most {LINKS_MAX} wanted")
    for link in content.links:
        check_lengths(32, link=link)
    check_that(is_rising(content.links), "links are not by rising id")
    if transaction.size > TX_BYTES_MAX:
        raise InvalidTransaction(Reason.TOO_LONG, f"{transaction.size} bytes, at most {TX_BYTES_MAX} wanted")
    _check_signatures(transaction)


def _check_signatures(transaction: Transaction) -> None:
    count = len(transaction.signatures)
    if not 0 < count <= SIGNATURES_MAX:
        raise InvalidTransaction(Reason.NOT_SIGNED, f"{count} signatures, 1 to {SIGNATURES_MAX} wanted")
    check_that(count == 1 or is_rising(tuple(one.key for one in transaction.signatures)), "signatures are not by rising key")
    name = transaction.id
    network = NetworkId(transaction.content.chain)
    for one in transaction.signatures:
        check_lengths(32, key=one.key)
        check_lengths(64, signature=one.signature)
        try:
            verify(one.key, Signature(one.signature), Label.TRANSACTION, network, name)
        except InvalidObject as error:
            raise InvalidTransaction(Reason.BAD_SIGNATURE, f"signature of key {one.key.hex()[:8]}… does not match") from error


def decode_body(transaction: Transaction, kind: type[R]) -> R:
    """The body as its kind's Body. Raises InvalidTransaction(BAD_BODY)."""
    try:
        return decode(transaction.content.body, kind, bytes_max=TX_BYTES_MAX)
    except DecodeError as error:
        raise InvalidTransaction(Reason.BAD_BODY, f"body: {error.message}") from error
