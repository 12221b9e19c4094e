"""Who is there, and what time it is there: a node that holds a seat's voting key or a miner's sealing key answers the peer's challenge.

The challenge is drawn anew for every stream, the counter rises, so an answer counts there and then and nowhere else: no clock is needed.
The time is signed with it, so that nobody between can change it, and a delay shows in the way there and back. Source: SPEC.md §Talk.
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


class Told(Record, frozen=True):
    """time: the sender's network time when it answered, milliseconds; 0: it does not know. is_set: it has set it since its start.

    echo: the receiver's greatest counter that the sender has seen, 0 after the greeting alone. held_ms: since then.
    """

    time: int
    is_set: bool
    echo: int
    held_ms: int


def _body(challenge: bytes, counter: int, account: AccountId, told: Told) -> bytes:
    return encode((challenge, counter, account, told))


def sign_alive(key: SigningKey, chain: ChainId, *, challenge: bytes, counter: int, account: AccountId, told: Told) -> Witness:
    """The answer of one key. challenge: the receiver's."""
    return Witness(account, key.public, key.sign(Label.ALIVE, NetworkId(chain), _body(challenge, counter, account, told)))


def check_alive(witness: Witness, chain: ChainId, *, challenge: bytes, counter: int, told: Told) -> None:
    """Form and signature; whose key it is is asked of the state. Raises InvalidObject(INTEGRITY | BAD_SIGNATURE)."""
    if (len(witness.account), len(witness.key), len(witness.signature)) != (32, 32, 64):
        raise InvalidObject(Reason.INTEGRITY, "a sign of life with a field of another length")
    body = _body(challenge, counter, witness.account, told)
    verify(witness.key, Signature(witness.signature), Label.ALIVE, NetworkId(chain), body)
