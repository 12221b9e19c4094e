"""What a chain holds, in the kinds that JSON has."""

from __future__ import annotations

from protocols.codec import Record
from protocols.ledger.envelope import Transaction, decode_body
from protocols.ledger.schedule import SCHEDULE

from .http.contract import iso, plain
from .penalties import Notice


def transaction_data(transaction: Transaction) -> dict[str, object]:
    """A transaction in the kinds that JSON has."""
    content = transaction.content
    return {
        "transaction": transaction.id.hex(),
        "kind": kind_name(content.kind),
        "sender": content.sender.hex(),
        "time": iso_ms(content.ts_ms),
        "until": iso_ms(content.until_ms),
        "links": [link.hex() for link in content.links],
        "signers": [one.key.hex() for one in transaction.signatures],
        "body": _body_data(transaction),
    }


def kind_name(number: int) -> str:
    """What the rule sets call a kind; its number where none does."""
    for rules in SCHEDULE.values():
        if number in rules.kinds:
            return rules.kinds[number].name
    return str(number)


def _body_data(transaction: Transaction) -> object:
    for rules in SCHEDULE.values():
        kind = rules.kinds.get(transaction.content.kind)
        body = getattr(kind, "body", None)
        if body is not None:
            return _fields(decode_body(transaction, body))
    return transaction.content.body.hex()


def _fields(value: object) -> object:
    """A record as a mapping, its parts too."""
    match value:
        case Record():
            return {name: _fields(getattr(value, name)) for name in value.__struct_fields__}
        case tuple() | list():
            return [_fields(item) for item in value]
    return plain(value)


def notice_row(one: Notice, name: str) -> dict[str, object]:
    """A penalty in the kinds that JSON has. name: what its target is called."""
    return {
        "transaction": one.id.hex(),
        "level": one.level,
        "member": one.target.hex(),
        "name": name,
        "reason": one.reason,
        "from": iso_ms(one.from_ms),
        "until": iso_ms(one.until_ms) if one.until_ms else "",
        "evidence": [found.hex() for found in one.evidence],
        "is_this_member": one.is_ours,
        "own_records": [record.hex() for record in one.records],
    }


def iso_ms(milliseconds: int) -> str:
    """Milliseconds since 1970 as people write times."""
    return iso(milliseconds / 1000)
