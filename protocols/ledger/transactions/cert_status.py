"""CertStatus: the certificate managers or the council suspend, resume or revoke an account's certificate."""

from __future__ import annotations

from typing import Literal

from ...codec import Record, replace
from ...errors import Reason
from ...types import AccountId
from ..checks import check_lengths, check_texts, check_that
from ..context import ACCOUNT, CERTIFICATE, Account, Context, Kind, need_council_or_managers
from ..envelope import SERIAL_BYTES, Transaction


class Body(Record, frozen=True):
    """serial: the account's current certificate."""

    serial: bytes
    act: Literal["suspend", "resume", "revoke"]
    reason: str


STATUS: dict[str, Literal["active", "suspended", "revoked"]] = {"suspend": "suspended", "resume": "active", "revoke": "revoked"}


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(NOT_FOUND | CONFLICT | NOT_SIGNED | …). What is revoked stays so until a new certificate."""
    need_council_or_managers(context, transaction)
    check_lengths(SERIAL_BYTES, serial=body.serial)
    check_texts(reason=body.reason)
    subject = context.state.get(CERTIFICATE, body.serial)
    check_that(subject is not None, "no such certificate", Reason.NOT_FOUND)
    assert subject is not None
    account = context.load(ACCOUNT, AccountId(subject), Account, "account")
    check_that(account.serial == body.serial, "not the account's current certificate", Reason.CONFLICT)
    check_that(account.status != "revoked", "the certificate is revoked", Reason.CONFLICT)
    check_that(account.status != STATUS[body.act], f"the certificate is {account.status} already", Reason.CONFLICT)
    context.state.save(ACCOUNT, account.id, replace(account, status=STATUS[body.act]))
    context.emit("certificate-status", account.id, body.serial)


KIND = Kind(3, "CertStatus", Body, execute)
