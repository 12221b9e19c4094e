"""A chain in the home directory: which one it is, the keys of this node on it, and what they promised.

identity/chain        public: the chain's id, its first block where this home has it, and a final block to hold others' chains against
identity/chain.key    what this node seals and votes with; protected like the other key files; absent on a node that only follows
identity/promises     what this node has bound itself to; made with its keys, in no backup, never copied
identity/rotations    salts of the keys that came after those of chain.key; absent until one is rotated

Of a chain beside the domain's the same four files lie in ``identity/chains/ID``, its database in ``chains/ID.lmdb``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from protocols.codec import Record, decode, encode
from protocols.crypto import SigningKey
from protocols.errors import DecodeError, InvalidObject, LadingError, Reason, UsageError
from protocols.identity.keyfiles import ChainKey, is_protected, key_file, open_key_file, seal_key_file
from protocols.join.messages import ChainAnchor
from protocols.ledger.block import Block
from protocols.ledger.votes import Checkpoint
from protocols.limits import BLOCK_BYTES_MAX
from protocols.types import AccountId, BlockHash, ChainId, MemberId

from .actors.chain import ChainKeys, ChainSetup
from .chain_keys import rotated_key
from .entropy import Entropy
from .promises import Kept, PromiseFile, Rotated, RotationFile, fresh

T = TypeVar("T")

FOLDER = "identity"
CHAIN_FILE = "chain"
KEY_FILE = "chain.key"
PROMISES_FILE = "promises"
FURTHER_FOLDER = "chains"
ROTATIONS_FILE = "rotations"
# Blocks: about twenty seconds of judging on a laptop, and 8 MB.
BEGIN_AT_ANCHOR_FROM = 2000
# Of a chain's id: so many characters of its beginning name it.
PREFIX_CHARS_MIN = 6
_FORMAT = 1
_DAMAGED = "lading ledger import FILE, with a file of lading ledger export on another node; or lading start --set ledger=off"
_BYTES_MAX = 2 * BLOCK_BYTES_MAX


class ChainFile(Record, frozen=True):
    """first: the encoded first block, empty where it is fetched. height, hash: a final block, at least the first one."""

    format: int
    chain: ChainId
    first: bytes
    height: int
    hash: bytes

    @property
    def anchor(self) -> ChainAnchor:
        """What a newcomer is told."""
        return ChainAnchor(self.chain, self.height, self.hash)


def file_of_first(first: Block) -> ChainFile:
    """Of a chain whose first block is here."""
    return ChainFile(_FORMAT, first.info.chain, encode(first), 0, first.hash)


def file_of_anchor(anchor: ChainAnchor) -> ChainFile:
    """Of a chain that others have told of."""
    return ChainFile(_FORMAT, ChainId(anchor.chain), b"", anchor.height, anchor.hash)


@dataclass(frozen=True, slots=True)
class SealedFile:
    """One file of the folder ``identity``."""

    name: str
    data: bytes


def chain_files(
    chain: ChainFile, key: ChainKey | None, passphrase: bytes | None, entropy: Entropy, *, kept: Kept | None = None
) -> tuple[SealedFile, ...]:
    """What to write, in this order: promises before the keys that they are of, which chain it is last. kept: None for new keys."""
    files: list[SealedFile] = []
    if key is not None:
        assert key.chain == chain.chain
        sealed = seal_key_file(key_file(key), passphrase, salt=entropy.token(16), nonce=entropy.token(12))
        files += [SealedFile(PROMISES_FILE, encode(kept or fresh(chain.chain))), SealedFile(KEY_FILE, sealed)]
    return (*files, SealedFile(CHAIN_FILE, encode(chain)))


def chain_folder(home: Path, further: ChainId | None = None) -> Path:
    """Where the files of a chain lie; further: one beside the domain's."""
    return home / FOLDER if further is None else home / FOLDER / FURTHER_FOLDER / further.hex()


def further_chains(home: Path) -> tuple[ChainId, ...]:
    """Chains beside the domain's that this home follows, by id."""
    try:
        names = sorted(entry.name for entry in (home / FOLDER / FURTHER_FOLDER).iterdir() if (entry / CHAIN_FILE).is_file())
    except FileNotFoundError:
        return ()
    return tuple(ChainId(bytes.fromhex(name)) for name in names if _is_id(name))


def is_called(text: str, *, chain: str, name: str) -> bool:
    """Whether a person who writes ``text`` means this chain: by its name, or by its id or the beginning of one."""
    return text == name or (len(text) >= PREFIX_CHARS_MIN and chain.startswith(text.lower()))


def pick_chain(text: str, found: Sequence[T]) -> T:
    """The one chain that is called so. Raises LadingError(NOT_FOUND), UsageError for a name or beginning of several."""
    if not found:
        raise LadingError(Reason.NOT_FOUND, f"this home follows no chain {text!r}", hint="lading ledger status")
    if len(found) > 1:
        raise UsageError(f"{len(found)} chains are called {text!r}", hint="give more of its id: lading ledger status")
    return found[0]


def _is_id(text: str) -> bool:
    return len(text) == 64 and all(sign in "0123456789abcdef" for sign in text)


def anchor_text(anchor: ChainAnchor) -> str:
    """As people hand it on: chain:height:hash, the ids in hexadecimal."""
    return f"{anchor.chain.hex()}:{anchor.height}:{anchor.hash.hex()}"


def parse_anchor(text: str) -> ChainAnchor:
    """Raises UsageError."""
    parts = text.strip().lower().split(":")
    if len(parts) != 3 or not (_is_id(parts[0]) and parts[1].isdecimal() and len(parts[1]) < 16 and _is_id(parts[2])):
        raise UsageError(f"{text!r} is no anchor", hint="chain:height:hash, as `lading ledger status --json` shows it where the chain is")
    return ChainAnchor(bytes.fromhex(parts[0]), int(parts[1]), bytes.fromhex(parts[2]))


def read_chain_file(home: Path, further: ChainId | None = None) -> ChainFile | None:
    """None in a home that follows no chain. Raises InvalidObject(INTEGRITY)."""
    path = chain_folder(home, further) / CHAIN_FILE
    try:
        found = decode(path.read_bytes(), ChainFile, bytes_max=_BYTES_MAX)
    except FileNotFoundError:
        return None
    except DecodeError as error:
        raise InvalidObject(Reason.INTEGRITY, f"{path} is damaged: {error.message}", hint=_DAMAGED) from error
    except OSError as error:
        raise LadingError(Reason.FAILED, f"{path}: {error.strerror}") from error
    if found.format != _FORMAT:
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"{path} is of format {found.format}")
    if further is not None and found.chain != further:
        raise InvalidObject(Reason.WRONG_CHAIN, f"{path} is of another chain than its folder says")
    return found


def first_block(chain: ChainFile) -> Block | None:
    """The first block, if it is here; the chain's actor checks it against the id. Raises InvalidObject(INTEGRITY)."""
    if not chain.first:
        return None
    try:
        return decode(chain.first, Block, bytes_max=BLOCK_BYTES_MAX)
    except DecodeError as error:
        raise InvalidObject(Reason.INTEGRITY, f"the chain's first block is damaged: {error.message}") from error


def read_chain_key(home: Path, passphrase: Callable[[], bytes], further: ChainId | None = None) -> ChainKey | None:
    """None on a node that only follows. Raises InvalidObject(WRONG_PASSPHRASE | INTEGRITY)."""
    path = chain_folder(home, further) / KEY_FILE
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LadingError(Reason.FAILED, f"{path}: {error.strerror}") from error
    content = open_key_file(data, passphrase() if is_protected(data) else None).content
    if not isinstance(content, ChainKey):
        raise InvalidObject(Reason.INTEGRITY, f"{path} is not what its name says")
    return content


def chain_setup(
    home: Path,
    member: MemberId,
    passphrase: Callable[[], bytes],
    further: ChainId | None = None,
    *,
    member_seed: bytes | None = None,
) -> ChainSetup | None:
    """What the node of this home needs to follow its chain, or a further one; None where it has none.

    member: whose node it is. member_seed: without it no key of this node can be rotated.
    """
    chain = read_chain_file(home, further)
    if chain is None:
        return None
    key = read_chain_key(home, passphrase, further)
    if key is not None and key.chain != chain.chain:
        raise InvalidObject(Reason.WRONG_CHAIN, f"{home}: the chain keys are of another chain")
    account = AccountId(member)
    keys = ChainKeys(account) if key is None else ChainKeys(account, SigningKey(key.seal), SigningKey(key.vote), key.reveal)
    # A short history is fetched and judged whole: nothing has to be believed.
    anchor = Checkpoint(chain.height, BlockHash(chain.hash)) if chain.height >= BEGIN_AT_ANCHOR_FROM else None
    ring: RotationFile | None = None
    if key is not None and member_seed is not None:
        seed, named = member_seed, ChainId(chain.chain)

        def derive(rotated: Rotated) -> SigningKey:
            return rotated_key(seed, named, rotated.what, rotated.salt)

        ring = RotationFile(chain_folder(home, further) / ROTATIONS_FILE, named, derive)
    return ChainSetup(
        chain.chain,
        first_block(chain),
        keys,
        PromiseFile(chain_folder(home, further) / PROMISES_FILE),
        anchor,
        ring=ring,
        told=Checkpoint(chain.height, BlockHash(chain.hash)),
    )
