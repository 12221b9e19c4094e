"""The door to `cryptography`: hash, sign, seal. Randomness is always an argument or an effect, never drawn here.

Suite 1: SHA-256, Ed25519, ChaCha20-Poly1305, HKDF-SHA256, HPKE base mode (DHKEM X25519, HKDF-SHA256, ChaCha20-Poly1305).
"""

from __future__ import annotations

import enum
import hashlib
import hmac as _hmac
from functools import lru_cache
from typing import Literal

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt

from .errors import InvalidObject, Reason
from .types import Digest, HpkeKey, NetworkId, OwnerKey, Signature

FORMAT = 1
SUITE = 1
ZERO_NONCE = bytes(12)
# Two signatures of each of 700 transactions a second, from the pool to their block three seconds later; at most 5 MiB.
VERIFIED_KEPT_MAX = 4096
VERIFIED_BYTES_MAX = 1024
NETWORK_BYTES = 32


class Label(enum.Enum):
    """Every domain-separation label there is. One label per kind of object; none is ever used for two things."""

    # signatures
    STATEMENT = b"lading/statement/1"
    OFFER = b"lading/offer/1"
    HOLD = b"lading/hold/1"
    WRAP = b"lading/wrap/1"
    TOMBSTONE = b"lading/tombstone/1"
    PIN = b"lading/pin/1"
    RECEIPT = b"lading/receipt/1"
    WITHDRAWAL = b"lading/withdrawal/1"
    ERASURE = b"lading/erasure/1"
    REFUSAL = b"lading/refusal/1"
    REAFFIRM = b"lading/reaffirm/1"
    REVOCATION = b"lading/revocation/1"
    FENCE = b"lading/fence/1"
    ANNOUNCEMENT = b"lading/announcement/1"
    TICKET_STATE = b"lading/ticket-state/1"
    DOMAIN = b"lading/domain/1"
    AUTH = b"lading/auth/1"
    JOIN_APPLICATION = b"lading/join-application/1"
    JOIN_ADMISSION = b"lading/join-admission/1"
    RENEWAL = b"lading/renewal/1"
    TRANSACTION = b"lading/transaction/1"
    SEAL = b"lading/seal/1"
    VOTE = b"lading/vote/1"
    ALIVE = b"lading/alive/1"
    MINER_OFFER = b"lading/miner-offer/1"
    # hashes
    MEMBER_ID = b"lading/member-id/1"
    NETWORK_ID = b"lading/network-id/1"
    HASH_ID = b"lading/hash-id/1"
    HASH_ID_C = b"lading/hash-id-c/1"
    RECORD_KEY_COMMITMENT = b"lading/record-key-commitment/1"
    CHUNK_KEY = b"lading/chunk-key/1"
    PLACEMENT = b"lading/placement/1"
    OBJECT = b"lading/object/1"
    DISCOVERY = b"lading/discovery/1"
    FENCE_SECRET = b"lading/fence-secret/1"
    FOUNDING_FENCE = b"lading/founding-fence/1"
    TICKET_TOKEN = b"lading/ticket-token/1"
    CHECKSUM = b"lading/checksum/1"
    ENTRY_PAGE = b"lading/entry-page/1"
    AUDIT = b"lading/audit/1"
    WRAPS = b"lading/wraps/1"
    BLOCK_INFO = b"lading/block-info/1"
    TRANSACTION_LEAF = b"lading/transaction-leaf/1"
    CARRIED_VOTE = b"lading/carried-vote/1"
    MINER_LIST = b"lading/miner-list/1"
    TERM_SEED = b"lading/term-seed/1"
    LEADER = b"lading/leader/1"
    DRAW = b"lading/draw/1"
    HANDOVER = b"lading/handover/1"
    JOURNAL = b"lading/journal/1"
    FOLDER_ENTRY = b"lading/folder-entry/1"
    # key derivation
    EPOCH = b"lading/epoch/1"
    RECORD = b"lading/record/1"
    MANIFEST = b"lading/manifest/1"
    CHUNK = b"lading/chunk/1"
    SALT = b"lading/salt/1"
    FRESH = b"lading/fresh/1"
    KEY_FILE = b"lading/key-file/1"
    COUNCIL_ACT = b"lading/council-act/1"
    COUNCIL_RECOVERY = b"lading/council-recovery/1"
    ROTATED_KEY = b"lading/rotated-key/1"
    JOIN_PSK = b"lading/join-psk/1"
    FENCE_PSK = b"lading/fence-psk/1"
    # HPKE info
    WRAP_INFO = b"lading/wrap-info/1"
    JOIN_REQUEST = b"lading/join-request/1"
    JOIN_ANSWER = b"lading/join-answer/1"


def sha256(*parts: bytes | memoryview) -> Digest:
    """SHA-256 of the parts put together. 32 bytes."""
    if len(parts) == 1:  # most calls, millions of them for a tree
        return Digest(hashlib.sha256(parts[0]).digest())
    state = hashlib.sha256()
    for part in parts:
        state.update(part)
    return Digest(state.digest())


def hash_labelled(label: Label, *parts: bytes) -> Digest:
    """SHA-256(label | 0x00 | for each part: 8-byte big-endian length | part). 32 bytes, no two inputs alike."""
    pieces = [_PREFIXES[label._value_]]  # ``value`` goes through a descriptor, at twice the cost of the lookup
    for part in parts:
        pieces.append(_LENGTH_OF_HASH if len(part) == 32 else len(part).to_bytes(8, "big"))
        pieces.append(part)
    return Digest(hashlib.sha256(b"".join(pieces)).digest())


_PREFIXES: dict[bytes, bytes] = {label.value: label.value + b"\0" for label in Label}
_LENGTH_OF_HASH = (32).to_bytes(8, "big")
_INNER = bytes(byte ^ 0x36 for byte in range(256))
_OUTER = bytes(byte ^ 0x5C for byte in range(256))


def hmac_sha256(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA256 (RFC 2104), 32 bytes. key: at most 64 bytes.

    By two hashes: the library's own call looks its algorithm up each time, which takes longer than both, and a small record needs sixteen.
    """
    assert len(key) <= 64
    block = key.ljust(64, b"\0")
    return hashlib.sha256(block.translate(_OUTER) + hashlib.sha256(block.translate(_INNER) + data).digest()).digest()


def hkdf(secret: bytes, label: Label, *context: bytes, length: int = 32) -> bytes:
    """HKDF-SHA256 (RFC 5869), empty salt, info = label | 0x00 | (8-byte length | part)*. ``length`` bytes, at most 255*32."""
    info = label.value + b"\0" + b"".join(len(part).to_bytes(8, "big") + part for part in context)
    return hkdf_expand(hmac_sha256(bytes(32), secret), info, length)


def hkdf_expand(prk: bytes, info: bytes, length: int) -> bytes:
    """HKDF-Expand of RFC 5869."""
    out = b""
    block = b""
    counter = 1
    while len(out) < length:
        block = hmac_sha256(prk, block + info + bytes([counter]))
        out += block
        counter += 1
    return out[:length]


def equal(a: bytes, b: bytes) -> bool:
    """Constant-time comparison."""
    return _hmac.compare_digest(a, b)


class SigningKey:
    """An Ed25519 private key. Never printed, never compared."""

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        """seed: 32 bytes (RFC 8032)."""
        self.seed = seed
        self._key = Ed25519PrivateKey.from_private_bytes(seed)
        self.public: OwnerKey = OwnerKey(self._key.public_key().public_bytes_raw())

    def sign_raw(self, message: bytes) -> Signature:
        """64-byte signature over the bytes as they are (certificates, and tests of other people's vectors)."""
        return Signature(self._key.sign(message))

    def sign(self, label: Label, network: NetworkId, body: bytes) -> Signature:
        """Signature over label | 0x00 | network id | body."""
        return Signature(self._key.sign(label.value + b"\0" + network + body))

    def __repr__(self) -> str:
        return f"SigningKey(public={self.public.hex()[:8]}…)"


def verify_raw(public: bytes, signature: bytes, message: bytes) -> None:
    """Raises InvalidObject(BAD_SIGNATURE).

    What held once holds for ever, and the last VERIFIED_KEPT_MAX of the short ones are remembered: a transaction is judged as it comes, in
    a draft and in its block. What did not hold is verified anew each time.
    """
    verify_this = _verify_again if len(message) > VERIFIED_BYTES_MAX else _verify_once
    verify_this(public, signature, message)


def _verify_again(public: bytes, signature: bytes, message: bytes) -> None:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, message)
    except (InvalidSignature, ValueError) as error:
        raise InvalidObject(Reason.BAD_SIGNATURE, "signature does not match") from error


_verify_once = lru_cache(maxsize=VERIFIED_KEPT_MAX)(_verify_again)


def is_remembered(label: Label, body: bytes) -> bool:
    """Whether ``verify`` remembers that a signature over this body held."""
    return len(_PREFIXES[label._value_]) + NETWORK_BYTES + len(body) <= VERIFIED_BYTES_MAX


def forget_verified() -> None:
    """As after a start: for measurements of what verifying costs."""
    _verify_once.cache_clear()


def verify(public: bytes, signature: bytes, label: Label, network: NetworkId, body: bytes) -> None:
    """Checks a signature made by ``SigningKey.sign``. Raises InvalidObject(BAD_SIGNATURE)."""
    verify_raw(public, signature, _PREFIXES[label._value_] + network + body)


def aead_seal(key: bytes, plain: bytes | memoryview, *, nonce: bytes = ZERO_NONCE, associated: bytes = b"") -> bytes:
    """ChaCha20-Poly1305. key: 32 bytes, used for one (plain, associated) only when the nonce is constant. Result: plain + 16 bytes."""
    return ChaCha20Poly1305(key).encrypt(nonce, plain, associated)


def aead_open(key: bytes, sealed: bytes | memoryview, *, nonce: bytes = ZERO_NONCE, associated: bytes = b"") -> bytes:
    """Raises InvalidObject(BAD_TAG) and releases nothing."""
    try:
        return ChaCha20Poly1305(key).decrypt(nonce, sealed, associated)
    except (InvalidTag, ValueError) as error:
        raise InvalidObject(Reason.BAD_TAG, "sealed bytes do not open with this key") from error


def aead_open_into(key: bytes, sealed: bytes | memoryview, out: memoryview) -> None:
    """As ``aead_open`` with the constant nonce and nothing associated, into ``out``, which has 16 bytes less than ``sealed``.
    Raises InvalidObject(BAD_TAG); ``out`` holds bytes of nobody's then."""
    try:
        ChaCha20Poly1305(key).decrypt_into(ZERO_NONCE, sealed, b"", out)
    except (InvalidTag, ValueError) as error:
        raise InvalidObject(Reason.BAD_TAG, "sealed bytes do not open with this key") from error


class SessionCipher(enum.Enum):
    """What may seal a Noise session (revision 34, 12.3 and 12.4), by its name there."""

    AES256_GCM = "AESGCM"
    CHACHA20_POLY1305 = "ChaChaPoly"


class CounterCipher:
    """One direction of a Noise session: an AEAD under one key, each message with the next nonce.

    Source: Noise revision 34, 5.1 (counter), 12.3 (ChaChaPoly's nonce: 4 zero bytes, then the counter, little-endian) and 12.4
    (AESGCM's: big-endian).
    """

    COUNTER_MAX = 2**64 - 1
    """Reserved by Noise 5.1; whoever gets there has used the key up."""
    COUNTER_MAX_GCM = 2**40
    """Messages of at most 2^16 bytes: together the 2^56 bytes after which Noise 14 says that a key of AESGCM is used up."""

    __slots__ = ("_aead", "_byte_order", "_counter_max", "cipher", "counter")

    def __init__(self, key: bytes, counter: int = 0, cipher: SessionCipher = SessionCipher.CHACHA20_POLY1305) -> None:
        """key: 32 bytes. counter: of the next message."""
        self.cipher = cipher
        is_gcm = cipher is SessionCipher.AES256_GCM
        self._aead: AESGCM | ChaCha20Poly1305 = AESGCM(key) if is_gcm else ChaCha20Poly1305(key)
        self._byte_order: Literal["big", "little"] = "big" if is_gcm else "little"
        self._counter_max = self.COUNTER_MAX_GCM if is_gcm else self.COUNTER_MAX
        self.counter = counter

    def seal_into(self, plain: bytes | bytearray | memoryview, out: memoryview) -> None:
        """Fills ``out``, which has 16 bytes more than ``plain``. Raises InvalidObject(EXPIRED) when the key is used up."""
        self._aead.encrypt_into(self._next_nonce(), plain, None, out)
        self.counter += 1

    def open(self, sealed: bytes | memoryview) -> bytes:
        """Raises InvalidObject(BAD_TAG), releases nothing then and does not count; InvalidObject(EXPIRED) when the key is used up."""
        try:
            plain = self._aead.decrypt(self._next_nonce(), sealed, None)
        except (InvalidTag, ValueError) as error:
            raise InvalidObject(Reason.BAD_TAG, f"sealed message {self.counter} does not open") from error
        self.counter += 1
        return plain

    def _next_nonce(self) -> bytes:
        if self.counter >= self._counter_max:
            raise InvalidObject(Reason.EXPIRED, "every nonce of this key is used")
        return b"\0\0\0\0" + self.counter.to_bytes(8, self._byte_order)

    def __repr__(self) -> str:
        return f"CounterCipher(counter={self.counter})"


def scrypt(passphrase: bytes, salt: bytes, *, cost: int) -> bytes:
    """scrypt (RFC 7914), n = cost (a power of two), r = 8, p = 1. 32 bytes. Memory: cost KiB."""
    return Scrypt(salt=salt, length=32, n=cost, r=8, p=1).derive(passphrase)


# --- HPKE, RFC 9180, base mode, suite DHKEM(X25519, HKDF-SHA256) = 0x0020, HKDF-SHA256 = 0x0001, ChaCha20-Poly1305 = 0x0003.
# `cryptography` draws the ephemeral key itself, which a deterministic world cannot use; so the schedule of the RFC stands
# here with the ephemeral key as an argument, checked against the RFC's vectors and against `cryptography`'s own HPKE.
_KEM_SUITE = b"KEM" + (0x0020).to_bytes(2, "big")
_HPKE_SUITE = b"HPKE" + (0x0020).to_bytes(2, "big") + (0x0001).to_bytes(2, "big") + (0x0003).to_bytes(2, "big")
HPKE_OVERHEAD_BYTES = 32 + 16


def _labelled_extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
    return hmac_sha256(salt or bytes(32), b"HPKE-v1" + suite + label + ikm)


def _labelled_expand(suite: bytes, prk: bytes, label: bytes, info: bytes, length: int) -> bytes:
    return hkdf_expand(prk, length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info, length)


class HpkePrivateKey:
    """An X25519 private key that opens what is sealed to its public half."""

    __slots__ = ("_key", "public", "seed")

    def __init__(self, seed: bytes) -> None:
        """seed: 32 bytes."""
        self.seed = seed
        self._key = X25519PrivateKey.from_private_bytes(seed)
        self.public: HpkeKey = HpkeKey(self._key.public_key().public_bytes_raw())

    def exchange(self, public: bytes) -> bytes:
        """32-byte shared secret. Raises InvalidObject(BAD_TAG) for a key that gives none."""
        try:
            return self._key.exchange(X25519PublicKey.from_public_bytes(public))
        except ValueError as error:
            raise InvalidObject(Reason.BAD_TAG, "not a usable X25519 key") from error

    def __repr__(self) -> str:
        return f"HpkePrivateKey(public={self.public.hex()[:8]}…)"


def _hpke_key_and_nonce(shared_secret: bytes, encapsulated: bytes, recipient: bytes, info: bytes) -> tuple[bytes, bytes]:
    eae_prk = _labelled_extract(_KEM_SUITE, b"", b"eae_prk", shared_secret)
    shared = _labelled_expand(_KEM_SUITE, eae_prk, b"shared_secret", encapsulated + recipient, 32)
    context = b"\0" + _labelled_extract(_HPKE_SUITE, b"", b"psk_id_hash", b"") + _labelled_extract(_HPKE_SUITE, b"", b"info_hash", info)
    secret = _labelled_extract(_HPKE_SUITE, shared, b"secret", b"")
    key = _labelled_expand(_HPKE_SUITE, secret, b"key", context, 32)
    nonce = _labelled_expand(_HPKE_SUITE, secret, b"base_nonce", context, 12)
    return key, nonce


def hpke_seal(recipient: HpkeKey, plain: bytes, *, info: bytes, ephemeral_seed: bytes) -> bytes:
    """Single-shot HPKE seal: 32-byte encapsulated key | ciphertext with tag (RFC 9180 §6.1).

    ephemeral_seed: 32 fresh random bytes, used once. Raises InvalidObject(BAD_TAG) for an unusable recipient key.
    """
    ephemeral = HpkePrivateKey(ephemeral_seed)
    key, nonce = _hpke_key_and_nonce(ephemeral.exchange(recipient), ephemeral.public, recipient, info)
    return ephemeral.public + aead_seal(key, plain, nonce=nonce)


def hpke_open(private: HpkePrivateKey, sealed: bytes, *, info: bytes) -> bytes:
    """Opens what ``hpke_seal`` made. Raises InvalidObject(BAD_TAG)."""
    if len(sealed) < HPKE_OVERHEAD_BYTES:
        raise InvalidObject(Reason.BAD_TAG, f"{len(sealed)} sealed bytes, at least {HPKE_OVERHEAD_BYTES} wanted")
    encapsulated = sealed[:32]
    key, nonce = _hpke_key_and_nonce(private.exchange(encapsulated), encapsulated, private.public, info)
    return aead_open(key, sealed[32:], nonce=nonce)
