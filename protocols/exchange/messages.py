"""What is said on `/lading/exchange/1`. ``request`` numbers are chosen by the asking side, rising, never used twice on a stream."""

from __future__ import annotations

from ..codec import Record
from ..signed import Signed


class ByOffer(Record, frozen=True, tag="offer"):
    """Authority to store while the record is not complete: the owner's signed offer. Answered by a hold."""

    offer: Signed


class ByStatement(Record, frozen=True, tag="statement"):
    """Authority of the statement: sequence ``index`` of ``count`` stands under its chunks root by ``path``. Answered by a receipt."""

    statement: Signed
    index: int
    count: int
    path: tuple[bytes, ...]


class Place(Record, frozen=True):
    """Keep this sequence. names: chunk names in order; sizes: sealed bytes of each."""

    request: int
    root: bytes
    names: tuple[bytes, ...]
    sizes: tuple[int, ...]
    authority: ByOffer | ByStatement


class Need(Record, frozen=True):
    """Answer to Place: indexes of the chunks that are not here yet, and how many sealed bytes may be sent now."""

    request: int
    missing: tuple[int, ...]
    credit: int


class Chunk(Record, frozen=True):
    """One sealed chunk of the request's sequence, either direction."""

    request: int
    index: int
    data: bytes


class Credit(Record, frozen=True):
    """So many more sealed bytes may be sent for this request."""

    request: int
    bytes: int


class Placed(Record, frozen=True):
    """The sequence is on disk. answer: the signed hold (by offer) or receipt batch (by statement) that says so."""

    request: int
    answer: Signed


class Refused(Record, frozen=True):
    """No, and why: a stable reason name; text for people; refusal: the signed form where one is owed."""

    request: int
    reason: str
    text: str = ""
    refusal: Signed | None = None


class Confirm(Record, frozen=True):
    """The statement has come: turn the holds of these sequences into receipts, signed now. items: (sequence index, root, Merkle path).

    wraps: of the record, to be kept first: the receipt's digest of wraps then shows that they are.
    """

    request: int
    statement: Signed
    count: int
    items: tuple[tuple[int, bytes, tuple[bytes, ...]], ...]
    wraps: tuple[Signed, ...] = ()


class Confirmed(Record, frozen=True):
    """Receipts for the sequences that are held; missing: indexes of sequences that are not."""

    request: int
    receipt: Signed | None
    missing: tuple[int, ...]


class Fetch(Record, frozen=True):
    """Send these chunks of a sequence, in this order, within the credit."""

    request: int
    root: bytes
    indexes: tuple[int, ...]
    credit: int


class Done(Record, frozen=True):
    """All chunks of the Fetch have been sent, except those that this node does not have."""

    request: int
    missing: tuple[int, ...] = ()


class Describe(Record, frozen=True):
    """What are the chunks of sequence ``index`` of this record?"""

    request: int
    owner: bytes
    hash_id: bytes
    index: int


class Described(Record, frozen=True):
    """Chunk names and sizes of a sequence with its place under the statement's chunks root."""

    request: int
    names: tuple[bytes, ...]
    sizes: tuple[int, ...]
    index: int
    count: int
    path: tuple[bytes, ...]


class Audit(Record, frozen=True):
    """Prove that you hold these chunks. nonce: 32 fresh bytes; ranges: (chunk name, offset, length), see `files.audit`."""

    request: int
    nonce: bytes
    ranges: tuple[tuple[bytes, int, int], ...]


class AuditAnswer(Record, frozen=True):
    """SHA-256(nonce | the ranges' bytes in order)."""

    request: int
    digest: bytes


class Cancel(Record, frozen=True):
    """The asking side no longer wants this request. Chunks under way are ignored."""

    request: int


class BundledSequence(Record, frozen=True):
    """A whole small sequence. path: from its root up to the statement's chunks root; chunks: sealed, in order. Their names are their
    hashes and the root is the names', so neither is said."""

    index: int
    path: tuple[bytes, ...]
    chunks: tuple[bytes, ...]


class BundledRecord(Record, frozen=True):
    """Sequences of one record, by the authority of its statement."""

    statement: Signed
    sequences: tuple[BundledSequence, ...]


class Bundle(Record, frozen=True):
    """Keep these sequences of many small records: one question for what would be one Place for each."""

    request: int
    records: tuple[BundledRecord, ...]


class Bundled(Record, frozen=True):
    """All but the refused are on disk. receipts: that say so; refused: (index of the record, stable reason name, text for people)."""

    request: int
    receipts: tuple[Signed, ...]
    refused: tuple[tuple[int, str, str], ...] = ()


MESSAGES: tuple[tuple[int, type], ...] = (
    (1, Place),
    (2, Need),
    (3, Chunk),
    (4, Credit),
    (5, Placed),
    (6, Refused),
    (7, Confirm),
    (8, Confirmed),
    (9, Fetch),
    (10, Done),
    (11, Describe),
    (12, Described),
    (13, Audit),
    (14, AuditAnswer),
    (15, Cancel),
    (16, Bundle),
    (17, Bundled),
)
