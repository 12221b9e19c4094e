"""What members hand each other as text: an offer to mine and vote, an act of the council that needs more keys, a signed
transaction on its way to a node. SPEC.md §As text."""

from __future__ import annotations

from ..codec import Record, decode, encode
from ..crypto import FORMAT, SUITE, Label, SigningKey
from ..errors import DecodeError, InvalidObject, Reason
from ..identity.textform import base64url, from_base64url, with_checksum, without_checksum
from ..limits import TX_BYTES_MAX
from ..signed import Signed, open_signed, sign_object
from ..types import AccountId, ChainId, NetworkId, OwnerKey
from .envelope import Transaction

OFFER_PREFIX = "ladingoffer1"
ACT_PREFIX = "ladingact1"
TRANSACTION_PREFIX = "ladingtx1"
_OFFER, _ACT, _TRANSACTION = b"miner offer", b"council act", b"transaction"
OFFER_BYTES_MAX = 1024


class MinerOffer(Record, frozen=True):
    """Public keys of a member's node for a chain: what MinerCertify and CouncilUpdate name. tip, tip_count: of its chain of reveals.

    seal, vote: of the node. act: signs acts of the council. 32 bytes each.
    """

    format: int
    suite: int
    chain: ChainId
    account: AccountId
    seal: bytes
    tip: bytes
    tip_count: int
    vote: bytes
    act: bytes


def sign_offer(
    key: SigningKey, chain: ChainId, account: AccountId, *, seal: bytes, tip: bytes, tip_count: int, vote: bytes, act: bytes
) -> str:
    """The offer as text, signed by the account's key."""
    offer = MinerOffer(FORMAT, SUITE, chain, account, seal, tip, tip_count, vote, act)
    return OFFER_PREFIX + base64url(with_checksum(encode(sign_object(offer, key, Label.MINER_OFFER, NetworkId(chain))), _OFFER))


def open_offer(text: str, chain: ChainId) -> tuple[MinerOffer, OwnerKey]:
    """The offer and the key that signed it; whether that is the account's is the caller's to ask of the state.

    Raises DecodeError(MALFORMED), InvalidObject(BAD_SIGNATURE | UNKNOWN_FORMAT | WRONG_CHAIN | MALFORMED).
    """
    envelope = decode(_bytes_of(text, OFFER_PREFIX, _OFFER, OFFER_BYTES_MAX), Signed, bytes_max=OFFER_BYTES_MAX)
    offer, signer = open_signed(envelope, MinerOffer, Label.MINER_OFFER, NetworkId(chain))
    if (offer.format, offer.suite) != (FORMAT, SUITE):
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"offer of format {offer.format} suite {offer.suite}, {FORMAT} and {SUITE} wanted")
    if offer.chain != chain:
        raise InvalidObject(Reason.WRONG_CHAIN, "an offer for another chain")
    if any(len(part) != 32 for part in (offer.account, offer.seal, offer.tip, offer.vote, offer.act)) or offer.tip_count < 1:
        raise InvalidObject(Reason.MALFORMED, "an offer with parts out of range")
    return offer, signer


def encode_act(transaction: Transaction) -> str:
    """An act of the council with the signatures that it has, as text."""
    return ACT_PREFIX + base64url(with_checksum(encode(transaction), _ACT))


def decode_act(text: str) -> Transaction:
    """The act in a text; nothing of it is checked yet. Raises DecodeError(MALFORMED)."""
    return decode(_bytes_of(text, ACT_PREFIX, _ACT, TX_BYTES_MAX), Transaction, bytes_max=TX_BYTES_MAX)


def encode_signed(transaction: Transaction) -> str:
    """A transaction with all its signatures, as text for `lading ledger submit`."""
    return TRANSACTION_PREFIX + base64url(with_checksum(encode(transaction), _TRANSACTION))


def decode_signed(text: str) -> Transaction:
    """The transaction in a text; nothing of it is checked yet. Raises DecodeError(MALFORMED)."""
    return decode(_bytes_of(text, TRANSACTION_PREFIX, _TRANSACTION, TX_BYTES_MAX), Transaction, bytes_max=TX_BYTES_MAX)


def _bytes_of(text: str, prefix: str, context: bytes, bytes_max: int) -> bytes:
    compact = "".join(text.split())
    if not compact.startswith(prefix) or len(compact) > 2 * bytes_max:
        raise DecodeError(Reason.MALFORMED, f"a text that begins with {prefix} wanted, of at most {2 * bytes_max} characters")
    return without_checksum(from_base64url(compact[len(prefix) :], Reason.MALFORMED), context, Reason.MALFORMED)
