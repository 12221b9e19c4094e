"""FolderUpdate: an owner's folder name moves to another root; the log of intermediate steps is anchored with it."""

from __future__ import annotations

from ...codec import Record
from ...errors import Reason
from ...types import OwnerKey
from ..checks import check_lengths, check_texts, check_that
from ..context import Context, Kind, need_sender
from ..envelope import Transaction

FOLDER = "folder"


class Body(Record, frozen=True):
    """name: the folder's, of this owner. root: newest folder hash. log_head: of the hash-linked log. sequence: the last + 1, from 1."""

    name: str
    root: bytes
    log_head: bytes
    sequence: int


class FolderState(Record, frozen=True):
    """What the name points to. owner: the key that moved it last; the account is in the key of this value."""

    owner: OwnerKey
    root: bytes
    log_head: bytes
    sequence: int


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(SEQUENCE | BAD_BODY | …). The first one makes the folder."""
    account = need_sender(context, transaction)
    check_texts(name=body.name)
    check_that(bool(body.name), "a folder without a name")
    check_lengths(32, root=body.root, log_head=body.log_head)
    at = account.id + body.name.encode()
    before = context.state.load(FOLDER, at, FolderState)
    wanted = 1 if before is None else before.sequence + 1
    check_that(body.sequence == wanted, f"sequence {body.sequence}, {wanted} wanted", Reason.SEQUENCE)
    context.state.save(FOLDER, at, FolderState(account.key, body.root, body.log_head, body.sequence))
    context.emit("folder", account.id, body.root)


KIND = Kind(15, "FolderUpdate", Body, execute)
