"""CertIssue: an account becomes active, or its certificate is renewed. Signed by certificate managers or the council."""

from __future__ import annotations

from ...codec import Record
from ...errors import Reason
from ...limits import ATTRIBUTES_MAX
from ...types import AccountId, OwnerKey, UnixMillis
from ..checks import check_lengths, check_numbers, check_texts, check_that, is_rising
from ..context import ACCOUNT, CERTIFICATE, KEY, MANAGER, Account, Context, KeyUse, Kind, need_council_or_managers
from ..envelope import SERIAL_BYTES, Transaction


class Body(Record, frozen=True):
    """serial: 16 bytes, new. subject: the pseudonym. attributes: (name, value) by rising name. from, to: of validity."""

    serial: bytes
    subject: AccountId
    key: OwnerKey
    enc_key: bytes
    type: str
    role: str
    level: int
    country: str
    institution: str
    attributes: tuple[tuple[str, str], ...]
    from_ms: UnixMillis
    to_ms: UnixMillis


def execute(context: Context, transaction: Transaction, body: Body) -> None:
    """Raises InvalidTransaction(BAD_BODY | CONFLICT | NOT_SIGNED | …)."""
    need_council_or_managers(context, transaction)
    issue(context, body)


def issue(context: Context, body: Body) -> None:
    """Writes the account; genesis issues its first certificates by it too."""
    check_lengths(SERIAL_BYTES, serial=body.serial)
    check_lengths(32, subject=body.subject, key=body.key, enc_key=body.enc_key)
    check_numbers(level=body.level, from_ms=body.from_ms, to_ms=body.to_ms)
    check_that(body.from_ms < body.to_ms, "a certificate that ends before it begins")
    check_texts(type=body.type, role=body.role, country=body.country, institution=body.institution)
    check_that(len(body.attributes) <= ATTRIBUTES_MAX and is_rising([name for name, _ in body.attributes]), "attributes")
    check_texts(**{f"attribute {name}": value for name, value in body.attributes})
    check_texts(**{f"attribute name {index}": name for index, (name, _) in enumerate(body.attributes)})
    state = context.state
    check_that(state.get(CERTIFICATE, body.serial) is None, "serial exists", Reason.CONFLICT)
    before = state.load(ACCOUNT, body.subject, Account)
    owner = context.owner_of_key(body.key)
    if before is None or before.status == "revoked":
        check_that(owner is None, "key belongs to an account already", Reason.CONFLICT)
    else:
        check_that(body.key == before.key, "a renewal keeps the key; KeyRotate changes it", Reason.CONFLICT)
        check_that(body.to_ms > before.to_ms, "a renewal ends later", Reason.CONFLICT)
    penalties = (0, 0, 0) if before is None else (before.warnings, before.suspensions, before.revocations)
    state.put(CERTIFICATE, body.serial, body.subject)
    if owner is None:
        state.save(KEY, body.key, KeyUse(body.subject, context.time_ms, UnixMillis(0)))
    state.save(
        ACCOUNT,
        body.subject,
        Account(
            body.subject,
            body.serial,
            body.key,
            body.enc_key,
            body.type,
            body.role,
            body.level,
            body.country,
            body.institution,
            body.attributes,
            body.from_ms,
            body.to_ms,
            "suspended" if before is not None and before.status == "suspended" else "active",
            *penalties,
        ),
    )
    if body.role == "manager":
        state.put(MANAGER, body.subject, b"")
    else:
        state.delete(MANAGER, body.subject)
    context.emit("certificate", body.subject, body.serial)


KIND = Kind(2, "CertIssue", Body, execute)
