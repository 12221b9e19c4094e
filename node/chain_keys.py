"""Keys of one node on a chain: made together with their promises, never exported, and two that can be made again from a recovery kit.

seal, vote, reveal   of one node alone, in ``identity/chain.key``
act                  signs acts of the council; from the member's seed, so that a kit brings it back
recovery             replaces lost voting keys; from the domain root's seed, which lies in the founder's kit alone
rotated              what votes or seals instead of a key of chain.key; from the member's seed and a salt of this node alone
"""

from __future__ import annotations

from protocols.crypto import Label, SigningKey, hkdf, sha256
from protocols.identity.keyfiles import ChainKey
from protocols.ledger.draw import reveal_tip
from protocols.types import ChainId, DomainId

from .entropy import Entropy

# Reveals of one chain; when they are used up the block that says so commits the next.
REVEALS_PER_CHAIN = 4096
REVEAL_CHAINS_MAX = 1024


def fresh_chain_key(chain: ChainId, entropy: Entropy) -> ChainKey:
    """Keys that have said nothing yet."""
    return ChainKey(chain=chain, seal=entropy.token(32), vote=entropy.token(32), reveal=entropy.token(32))


def act_key(member_seed: bytes, domain: DomainId) -> SigningKey:
    """What a member signs acts of the council with, on the chain of this domain."""
    return SigningKey(hkdf(member_seed, Label.COUNCIL_ACT, domain))


def recovery_key(root_seed: bytes, domain: DomainId) -> SigningKey:
    """What replaces lost voting keys of the council that founded the chain of this domain."""
    return SigningKey(hkdf(root_seed, Label.COUNCIL_RECOVERY, domain))


def rotated_key(member_seed: bytes, chain: ChainId, what: str, salt: bytes) -> SigningKey:
    """A key that replaces one of this node's. From the key that it replaces nobody learns it, and a running node, which has no passphrase
    any more, need write down nothing secret."""
    return SigningKey(hkdf(member_seed, Label.ROTATED_KEY, chain, what.encode(), salt))


def reveal_secret(secret: bytes, number: int) -> bytes:
    """Start of a miner's chain of reveals. number: 0 for the one that its certification commits."""
    return secret if number == 0 else sha256(b"lading reveals", secret, number.to_bytes(8, "big"))


def first_tip(secret: bytes) -> bytes:
    """Tip of the chain of reveals that a miner's certification commits."""
    return reveal_tip(reveal_secret(secret, 0), REVEALS_PER_CHAIN)
