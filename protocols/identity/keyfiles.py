"""Private keys at rest: scrypt and ChaCha20-Poly1305 under a passphrase, or, where that was asked for, unprotected and saying so."""

from __future__ import annotations

from ..codec import Record, decode, encode
from ..crypto import FORMAT, SUITE, Label, aead_open, aead_seal, hkdf, scrypt
from ..errors import DecodeError, InvalidObject, Reason, UsageError
from ..limits import KEY_FILE_BYTES_MAX, SCRYPT_COST, SCRYPT_COST_MAX
from .attested import KnownFence
from .textform import with_checksum, without_checksum

MAGIC = "lading-key-file"
SALT_BYTES = 16
NONCE_BYTES = 12
_CONTEXT = b"key file"


class RootKey(Record, frozen=True, tag="root"):
    """A domain's root. seed: 32 bytes, Ed25519. certificate: DER."""

    seed: bytes
    certificate: bytes

    def __repr__(self) -> str:
        return "RootKey(…)"


class IssuerKey(Record, frozen=True, tag="issuer"):
    """An issuing key. seed, hpke_seed: 32 bytes each. chain: its certificate, root left out."""

    seed: bytes
    hpke_seed: bytes
    chain: tuple[bytes, ...]

    def __repr__(self) -> str:
        return "IssuerKey(…)"


class MemberKey(Record, frozen=True, tag="member"):
    """A member's secrets. seed (signing), hpke_seed, root_secret (of its records), salt (of its id): 32 bytes each.

    real_id: what the member id was derived from. chain: member's certificate first, root left out.
    """

    seed: bytes
    hpke_seed: bytes
    root_secret: bytes
    real_id: bytes
    salt: bytes
    chain: tuple[bytes, ...]

    def __repr__(self) -> str:
        return "MemberKey(…)"

    def with_chain(self, chain: tuple[bytes, ...]) -> MemberKey:
        """The same secrets under newer certificates."""
        return MemberKey(
            seed=self.seed, hpke_seed=self.hpke_seed, root_secret=self.root_secret, real_id=self.real_id, salt=self.salt, chain=chain
        )


class NodeKey(Record, frozen=True, tag="node"):
    """A node's key. seed: 32 bytes. chain: node's certificate first, root left out; empty until it has joined."""

    seed: bytes
    chain: tuple[bytes, ...]

    def __repr__(self) -> str:
        return "NodeKey(…)"


class NetworkKey(Record, frozen=True, tag="network"):
    """What opens the network. id: 32 bytes. roots: DER, first of the domain that founded it, then of ours if it is another."""

    id: bytes
    name: str
    roots: tuple[bytes, ...]
    fences: tuple[KnownFence, ...]

    def __repr__(self) -> str:
        return f"NetworkKey({self.id.hex()[:8]}, …)"


class ChainKey(Record, frozen=True, tag="chain"):
    """What one node seals and votes with on a chain. chain: its id. seal, vote: seeds of its keys. reveal: secret of its chains of reveals.

    32 bytes each. Never in two places at once: what these keys promised lies beside the file.
    """

    chain: bytes
    seal: bytes
    vote: bytes
    reveal: bytes

    def __repr__(self) -> str:
        return f"ChainKey({self.chain.hex()[:8]}, …)"


KeyContent = RootKey | IssuerKey | MemberKey | NodeKey | NetworkKey | ChainKey


class KeyFile(Record, frozen=True):
    """Content of one key file."""

    format: int
    suite: int
    content: KeyContent


class _Sealed(Record, frozen=True):
    """The file. cost: of scrypt, 0 when unprotected; then salt and nonce are empty and ``body`` is the plain content."""

    magic: str
    format: int
    suite: int
    cost: int
    salt: bytes
    nonce: bytes
    body: bytes


def key_file(content: KeyContent) -> KeyFile:
    """Content in its envelope of today's format."""
    return KeyFile(format=FORMAT, suite=SUITE, content=content)


def encode_key_file(content: KeyFile) -> bytes:
    """Plain bytes of a key file's content, as an admission carries them. Secret."""
    return encode(content)


def decode_key_file(data: bytes) -> KeyFile:
    """Raises InvalidObject(INTEGRITY | UNKNOWN_FORMAT)."""
    try:
        content = decode(data, KeyFile, bytes_max=KEY_FILE_BYTES_MAX)
    except DecodeError as error:
        raise InvalidObject(Reason.INTEGRITY, f"the key file's content is damaged: {error.message}") from error
    _check_format(content.format, content.suite)
    return content


def seal_key_file(content: KeyFile, passphrase: bytes | None, *, salt: bytes, nonce: bytes, cost: int = SCRYPT_COST) -> bytes:
    """Bytes of the file. passphrase: None writes it unprotected. salt: 16, nonce: 12 fresh random bytes, for every writing anew.

    cost: scrypt's n, a power of two; memory: cost KiB. Raises UsageError for an empty passphrase.
    """
    plain = encode(content)
    if passphrase is None:
        file = _Sealed(magic=MAGIC, format=FORMAT, suite=SUITE, cost=0, salt=b"", nonce=b"", body=plain)
        return with_checksum(encode(file), _CONTEXT)
    if not passphrase:
        raise UsageError("an empty passphrase", hint="ask for no passphrase explicitly if the file shall be unprotected")
    assert len(salt) == SALT_BYTES
    assert len(nonce) == NONCE_BYTES
    assert is_cost(cost)
    key = _key(passphrase, salt, cost)
    body = aead_seal(key, plain, nonce=nonce, associated=_header(cost, salt))
    file = _Sealed(magic=MAGIC, format=FORMAT, suite=SUITE, cost=cost, salt=salt, nonce=nonce, body=body)
    return with_checksum(encode(file), _CONTEXT)


def open_key_file(data: bytes, passphrase: bytes | None) -> KeyFile:
    """Content of the file. A passphrase for an unprotected file is not used.

    Raises InvalidObject(INTEGRITY) for a damaged file, (UNKNOWN_FORMAT) for one of another format, (WRONG_PASSPHRASE) also when
    one is needed and none given.
    """
    file = _file(data)
    if file.cost == 0:
        return decode_key_file(file.body)
    if passphrase is None:
        raise InvalidObject(Reason.WRONG_PASSPHRASE, "the key file is protected: a passphrase is needed")
    key = _key(passphrase, file.salt, file.cost)
    try:
        plain = aead_open(key, file.body, nonce=file.nonce, associated=_header(file.cost, file.salt))
    except InvalidObject as error:
        # The checksum was right, so the file is as it was written.
        raise InvalidObject(Reason.WRONG_PASSPHRASE, "the passphrase does not open the key file") from error
    return decode_key_file(plain)


def is_protected(data: bytes) -> bool:
    """Whether opening needs a passphrase. Raises InvalidObject(INTEGRITY | UNKNOWN_FORMAT)."""
    return _file(data).cost != 0


def is_cost(cost: int) -> bool:
    """Fit for scrypt here: a power of two from 2 to SCRYPT_COST_MAX."""
    return 1 < cost <= SCRYPT_COST_MAX and cost & (cost - 1) == 0


def _key(passphrase: bytes, salt: bytes, cost: int) -> bytes:
    return hkdf(scrypt(passphrase, salt, cost=cost), Label.KEY_FILE)


def _header(cost: int, salt: bytes) -> bytes:
    return encode((MAGIC, FORMAT, SUITE, cost, salt))


def _check_format(got_format: int, got_suite: int) -> None:
    if (got_format, got_suite) != (FORMAT, SUITE):
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"key file of format {got_format} suite {got_suite}, {FORMAT} and {SUITE} wanted")


def _file(data: bytes) -> _Sealed:
    try:
        body = without_checksum(data, _CONTEXT, Reason.INTEGRITY)
        file = decode(body, _Sealed, bytes_max=KEY_FILE_BYTES_MAX)
    except DecodeError as error:
        raise InvalidObject(Reason.INTEGRITY, f"not a key file, or a damaged one: {error.message}") from error
    if file.magic != MAGIC:
        raise InvalidObject(Reason.INTEGRITY, "not a key file")
    _check_format(file.format, file.suite)
    plain = (file.cost, len(file.salt), len(file.nonce)) == (0, 0, 0)
    sealed = is_cost(file.cost) and (len(file.salt), len(file.nonce)) == (SALT_BYTES, NONCE_BYTES)
    if not plain and not sealed:
        raise InvalidObject(Reason.INTEGRITY, f"a key file with parts out of range, scrypt cost {file.cost}")
    return file
