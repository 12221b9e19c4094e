"""What a light node keeps instead of a chain: the final block that it stands on, the values that were proven, its own anchors' places.

Values stand where a full node has its whole state, so that who reads one key reads it the same way; here nothing stands but what was
proven, and nothing of it is a tree. Everything but what was made here is fetched again when it is lost.
"""

from __future__ import annotations

from collections.abc import Mapping

from protocols.codec import encode
from protocols.ledger.context import CHAIN
from protocols.ledger.light import Inclusion, Trust
from protocols.ledger.state import Key
from protocols.ledger.sync import header_row
from protocols.ledger.tree import place_of
from protocols.limits import TX_BYTES_MAX

from .chain import body, final_block, row, wipe
from .chain_state import ChainState
from .engine import Delete, Put, Snapshot, Write
from .tables import CHAIN_STATE, LIGHT, LIGHT_INCLUSIONS
from .values import FORMAT, SUITE, Stored, load

_TRUST = b"trust"
_CHAIN_KEYS: tuple[Key, ...] = tuple((CHAIN, name) for name in (b"profile", b"genesis", b"council", b"policy"))


class TrustRow(Stored, frozen=True):
    """What the node stands on."""

    trust: Trust


def trust(snapshot: Snapshot) -> Trust | None:
    """None where no light node has begun."""
    found = snapshot.get(LIGHT, _TRUST)
    return None if found is None else load(LIGHT, found, TrustRow).trust


def put_trust(trust: Trust) -> Write:
    """The newest final block, and the committee that is trusted with it."""
    return Put(LIGHT, _TRUST, encode(TrustRow(FORMAT, SUITE, trust)))


def put_values(values: Mapping[Key, bytes | None]) -> list[Write]:
    """Proven ones; None: nothing stands there."""
    places = {place_of(*key): value for key, value in values.items()}
    return [Delete(CHAIN_STATE, place) if value is None else Put(CHAIN_STATE, place, value) for place, value in sorted(places.items())]


def value(snapshot: Snapshot, key: Key) -> bytes | None:
    """What was proven to stand at a key; None also where nothing was proven."""
    return ChainState(snapshot).get(*key)


def put_inclusion(one: Inclusion) -> Write:
    """Where the anchor of an own record stands."""
    return Put(LIGHT_INCLUSIONS, one.transaction.id, encode(one))


def inclusion(snapshot: Snapshot, transaction: bytes) -> Inclusion | None:
    """Where an own record's anchor stands, as far as it is known here."""
    found = snapshot.get(LIGHT_INCLUSIONS, transaction)
    return None if found is None else load(LIGHT_INCLUSIONS, found, Inclusion, bytes_max=2 * TX_BYTES_MAX)


def enter(snapshot: Snapshot) -> tuple[list[Write], Trust | None]:
    """What a node that is light from now on goes on from. A whole chain that stands here goes, but for what its final block says."""
    kept = trust(snapshot)
    if kept is not None:
        return [], kept
    final = final_block(snapshot)
    place = None if final is None else row(snapshot, final)
    if final is None or place is None:
        return wipe(snapshot), None
    kept = Trust(header_row(body(snapshot, final)), place.committee)
    values = {key: value(snapshot, key) for key in _CHAIN_KEYS}
    return [*wipe(snapshot), *put_values(values), put_trust(kept)], kept


def leave(snapshot: Snapshot) -> tuple[list[Write], Trust | None]:
    """What a node that has the whole chain from now on leaves behind; and where it stood, a final block to hold others' chains against."""
    kept = trust(snapshot)
    if kept is None:
        return [], None
    gone = [Delete(table, key) for table in (LIGHT, LIGHT_INCLUSIONS) for key, _ in snapshot.scan(table)]
    return [*gone, *wipe(snapshot)], kept
