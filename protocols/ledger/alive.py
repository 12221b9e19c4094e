"""Who is there: a node that holds a seat's voting key or a miner's sealing key answers the peer's challenge. Source: SPEC.md §Talk.

The challenge is drawn anew for every stream, the counter rises, so an answer counts there and then and nowhere else: no clock is needed.
"""

from __future__ import annotations

from ..codec import Record, encode
from ..crypto import Label, SigningKey, verify
from ..errors import InvalidObject, Reason
from ..types import AccountId, ChainId, NetworkId, Signature


class Witness(Record, frozen=True):
    """account: a committee member or a miner. key: its voting or sealing key, 32 bytes. signature: 64 bytes."""

    account: AccountId
    key: bytes
    signature: bytes


def _body(challenge: bytes, counter: int, account: AccountId) -> bytes:
    return encode((challenge, counter, account))


def sign_alive(key: SigningKey, chain: ChainId, *, challenge: bytes, counter: int, account: AccountId) -> Witness:
    """The answer of one key. challenge: the receiver's."""
    return Witness(account, key.public, key.sign(Label.ALIVE, NetworkId(chain), _body(challenge, counter, account)))


def check_alive(witness: Witness, chain: ChainId, *, challenge: bytes, counter: int) -> None:
    """Form and signature; whose key it is is asked of the state. Raises InvalidObject(INTEGRITY | BAD_SIGNATURE)."""
    if (len(witness.account), len(witness.key), len(witness.signature)) != (32, 32, 64):
        raise InvalidObject(Reason.INTEGRITY, "a sign of life with a field of another length")
    body = _body(challenge, counter, witness.account)
    verify(witness.key, Signature(witness.signature), Label.ALIVE, NetworkId(chain), body)
