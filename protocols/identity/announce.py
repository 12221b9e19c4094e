"""The address book's entries: what a node says of itself, signed by its node key. The latest counter wins."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..codec import Record
from ..crypto import FORMAT, SUITE, Label, SigningKey
from ..errors import InvalidObject, Reason
from ..limits import ADDRESS_BYTES_MAX, ADDRESSES_PER_NODE_MAX
from ..signed import Signed, open_signed, sign_object
from ..types import DomainId, NetworkId, PeerId
from .certificates import NodeIdentity, Revocations, verify_chain

STORE_ID_BYTES = 16


class Announcement(Record, frozen=True):
    """addresses: multiaddrs without /p2p part. chain: node first, root left out. counter: rises with every announcement, also
    over restarts. store_id: 16 bytes, with its generation: a new one means that what was promised before is gone.
    free_bytes: room for others' sequences. refuses: takes nothing new. version: highest protocol version it speaks.
    """

    format: int
    suite: int
    peer_id: bytes
    addresses: tuple[str, ...]
    chain: tuple[bytes, ...]
    counter: int
    store_id: bytes
    store_generation: int
    free_bytes: int
    refuses: bool
    version: int


@dataclass(frozen=True, slots=True)
class CheckedAnnouncement:
    """An announcement whose signature and chain are checked. Made by ``check_announcement`` only."""

    signed: Signed
    value: Announcement
    identity: NodeIdentity

    @property
    def rank(self) -> tuple[int, bytes]:
        """What two announcements of one node are ordered by: counter, then hash, so that all nodes keep the same one."""
        return self.value.counter, self.signed.object_hash


def sign_announcement(
    key: SigningKey,
    network: NetworkId,
    *,
    peer_id: PeerId,
    addresses: tuple[str, ...],
    chain: tuple[bytes, ...],
    counter: int,
    store_id: bytes,
    store_generation: int,
    free_bytes: int,
    refuses: bool,
    version: int,
) -> Signed:
    """A new announcement. key: the node's."""
    value = Announcement(
        format=FORMAT,
        suite=SUITE,
        peer_id=peer_id,
        addresses=addresses,
        chain=chain,
        counter=counter,
        store_id=store_id,
        store_generation=store_generation,
        free_bytes=free_bytes,
        refuses=refuses,
        version=version,
    )
    return sign_object(value, key, Label.ANNOUNCEMENT, network)


def check_announcement(
    signed: Signed,
    network: NetworkId,
    roots: Mapping[DomainId, bytes],
    *,
    now: int,
    revocations: Revocations | None,
    clock_unsafe: bool = False,
) -> CheckedAnnouncement:
    """Raises InvalidObject(BAD_SIGNATURE | UNKNOWN_FORMAT | MALFORMED | WRONG_PEER | and all of ``verify_chain``), DecodeError."""
    value, signer = open_signed(signed, Announcement, Label.ANNOUNCEMENT, network)
    if (value.format, value.suite) != (FORMAT, SUITE):
        raise InvalidObject(Reason.UNKNOWN_FORMAT, f"format {value.format} suite {value.suite}, {FORMAT} and {SUITE} wanted")
    if len(value.addresses) > ADDRESSES_PER_NODE_MAX or any(not is_address(address) for address in value.addresses):
        raise InvalidObject(Reason.MALFORMED, f"{len(value.addresses)} addresses, at most {ADDRESSES_PER_NODE_MAX} sound ones wanted")
    numbers = (value.counter, value.store_generation, value.free_bytes, value.version)
    if len(value.store_id) != STORE_ID_BYTES or min(numbers) < 0:
        raise InvalidObject(Reason.MALFORMED, f"store id of {len(value.store_id)} bytes, numbers {numbers}")
    identity = verify_chain(value.chain, roots, now=now, revocations=revocations, clock_unsafe=clock_unsafe)
    if identity.node_public != signer or identity.peer_id != value.peer_id:
        raise InvalidObject(Reason.WRONG_PEER, "an announcement about another node than the one that signed it")
    return CheckedAnnouncement(signed, value, identity)


def is_address(address: str) -> bool:
    """Looks like a multiaddr: begins with a slash, printable ASCII, at most ADDRESS_BYTES_MAX bytes."""
    return address.startswith("/") and address.isascii() and address.isprintable() and len(address) <= ADDRESS_BYTES_MAX


class AddressBook:
    """An immutable book: of each node the latest announcement. Merging in any order gives the same book."""

    __slots__ = ("_entries",)

    def __init__(self, entries: Iterable[CheckedAnnouncement] = ()) -> None:
        self._entries: dict[bytes, CheckedAnnouncement] = {}
        for entry in entries:
            kept = self._entries.get(entry.value.peer_id)
            if kept is None or kept.rank < entry.rank:
                self._entries[entry.value.peer_id] = entry

    def __len__(self) -> int:
        return len(self._entries)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, AddressBook) and self.entries == other.entries

    def __hash__(self) -> int:
        return hash(tuple(entry.rank for entry in self.entries))

    @property
    def entries(self) -> tuple[CheckedAnnouncement, ...]:
        """One per node, by rising peer id."""
        return tuple(self._entries[peer_id] for peer_id in sorted(self._entries))

    def get(self, peer_id: bytes) -> CheckedAnnouncement | None:
        """The latest that this node said of itself."""
        return self._entries.get(peer_id)

    def with_checked(self, entries: Iterable[CheckedAnnouncement]) -> AddressBook:
        """This book and those entries, the latest of each node."""
        return AddressBook([*self._entries.values(), *entries])

    def merge(self, other: AddressBook) -> AddressBook:
        """Both books' entries, the latest of each node."""
        return self.with_checked(other._entries.values())

    def without_revoked(self, revocations: Revocations) -> AddressBook:
        """The book without nodes that are out."""
        return AddressBook(entry for entry in self._entries.values() if not revocations.is_revoked(entry.identity.path))
