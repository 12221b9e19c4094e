"""Errors by who is at fault (STYLE): the caller knows from the class what to do, and from the reason what happened.

``Reason`` is the only list of stable names; each has the exit code that the command line answers with (INTERFACE).
Text is for people; tests match by reason.
"""

from __future__ import annotations

import enum


class Reason(enum.Enum):
    """Stable name and exit code of everything that can go wrong."""

    def __init__(self, stable_name: str, exit_code: int) -> None:
        self.stable_name = stable_name
        self.exit_code = exit_code

    # general
    FAILED = ("E-FAILED", 1)
    USAGE = ("E-USAGE", 2)
    PARTIAL = ("E-PARTIAL", 3)
    QUORUM_WRITE = ("E-QUORUM-WRITE", 3)
    NOT_FOUND = ("E-NOT-FOUND", 4)
    REFUSED = ("E-REFUSED", 5)
    INTEGRITY = ("E-INTEGRITY", 6)
    UNREACHABLE = ("E-UNREACHABLE", 7)
    TIMEOUT = ("E-TIMEOUT", 7)
    NOT_INITIALISED = ("E-NOT-INITIALISED", 8)
    NOT_RUNNING = ("E-NOT-RUNNING", 8)
    LOCKED = ("E-LOCKED", 9)
    CONFLICT = ("E-CONFLICT", 10)
    VERSION_TOO_NEW = ("E-VERSION-TOO-NEW", 11)
    STORE_FULL = ("E-STORE-FULL", 12)
    QUOTA = ("E-QUOTA", 12)
    CLOCK_UNSAFE = ("E-CLOCK-UNSAFE", 13)
    # decoding
    MALFORMED = ("E-MALFORMED", 6)
    NOT_CANONICAL = ("E-NOT-CANONICAL", 6)
    TOO_LONG = ("E-TOO-LONG", 6)
    TRUNCATED = ("E-TRUNCATED", 6)
    UNKNOWN_MESSAGE = ("E-UNKNOWN-MESSAGE", 6)
    UNKNOWN_FORMAT = ("E-UNKNOWN-FORMAT", 11)
    # conversations
    OUT_OF_ORDER = ("E-OUT-OF-ORDER", 6)
    VERSION = ("E-VERSION", 11)
    FLOOD = ("E-FLOOD", 5)
    STALLED = ("E-STALLED", 7)
    # signatures and identity
    BAD_SIGNATURE = ("E-BAD-SIGNATURE", 6)
    BAD_TAG = ("E-BAD-TAG", 6)
    WRONG_NETWORK = ("E-WRONG-NETWORK", 5)
    WRONG_DOMAIN = ("E-WRONG-DOMAIN", 5)
    WRONG_PEER = ("E-WRONG-PEER", 5)
    WRONG_PASSPHRASE = ("E-WRONG-PASSPHRASE", 5)
    BAD_CERTIFICATE = ("E-BAD-CERTIFICATE", 5)
    CERTIFICATE_EXPIRED = ("E-CERTIFICATE-EXPIRED", 5)
    CERTIFICATE_NOT_YET_VALID = ("E-CERTIFICATE-NOT-YET-VALID", 5)
    REVOKED = ("E-REVOKED", 5)
    REFLECTED = ("E-REFLECTED", 5)
    NOT_MEMBER = ("E-NOT-MEMBER", 5)
    TICKET_ALTERED = ("E-TICKET-ALTERED", 5)
    TICKET_EXPIRED = ("E-TICKET-EXPIRED", 5)
    TICKET_USED = ("E-TICKET-USED", 5)
    TICKET_CANCELLED = ("E-TICKET-CANCELLED", 5)
    TICKET_UNKNOWN = ("E-TICKET-UNKNOWN", 5)
    FENCE = ("E-FENCE", 5)
    AWAY_TOO_LONG = ("E-AWAY-TOO-LONG", 5)
    # records
    BAD_PATH = ("E-BAD-PATH", 6)
    WRONG_NAME = ("E-WRONG-NAME", 6)
    WRONG_HASHID = ("E-WRONG-HASHID", 6)
    WRONG_OWNER = ("E-WRONG-OWNER", 5)
    STALE = ("E-STALE", 10)
    DELETED = ("E-DELETED", 4)
    EXPIRED = ("E-EXPIRED", 5)
    WITHDRAWN = ("E-WITHDRAWN", 6)
    FULL = ("E-FULL", 12)
    PINNED_OUT = ("E-PINNED-OUT", 5)
    NO_KEY = ("E-NO-KEY", 5)
    SOURCE_CHANGED = ("E-SOURCE-CHANGED", 1)
    SOURCE_UNREADABLE = ("E-SOURCE-UNREADABLE", 1)
    # ledger: transactions
    UNKNOWN_KIND = ("E-UNKNOWN-KIND", 11)
    WRONG_CHAIN = ("E-WRONG-CHAIN", 5)
    SEEN = ("E-SEEN", 10)
    BAD_TIME = ("E-BAD-TIME", 5)
    NOT_SIGNED = ("E-NOT-SIGNED", 5)
    UNEXPECTED_SIGNER = ("E-UNEXPECTED-SIGNER", 5)
    SUSPENDED = ("E-SUSPENDED", 5)
    NOT_ELIGIBLE = ("E-NOT-ELIGIBLE", 5)
    POLICY = ("E-POLICY", 5)
    SEQUENCE = ("E-SEQUENCE", 10)
    UNKNOWN_LINK = ("E-UNKNOWN-LINK", 4)
    PRUNED = ("E-PRUNED", 4)
    BAD_BODY = ("E-BAD-BODY", 6)
    NOT_FINAL = ("E-NOT-FINAL", 10)
    # ledger: a node that keeps a part of it
    NOT_KEPT = ("E-NOT-KEPT", 4)
    # ledger: blocks
    UNKNOWN_PARENT = ("E-UNKNOWN-PARENT", 7)
    TOO_EARLY = ("E-TOO-EARLY", 13)
    RULE_SET = ("E-RULE-SET", 11)
    NOT_LEADER = ("E-NOT-LEADER", 5)
    BAD_SEAL = ("E-BAD-SEAL", 6)
    WORK = ("E-WORK", 6)
    NONCE = ("E-NONCE", 6)
    TARGET = ("E-TARGET", 6)
    MERKLE_ROOT = ("E-MERKLE-ROOT", 6)
    STATE_ROOT = ("E-STATE-ROOT", 6)
    BAD_INFO = ("E-BAD-INFO", 6)
    BAD_REVEAL = ("E-BAD-REVEAL", 6)
    BAD_VOTE = ("E-BAD-VOTE", 6)
    PROMISED = ("E-PROMISED", 5)
    CANCELLED = ("E-CANCELLED", 130)
    TERMINATED = ("E-TERMINATED", 143)


class Verdict(enum.Enum):
    """What the caller does with the peer that is at fault."""

    IGNORE = "ignore"
    DROP = "drop"
    BAN = "ban"


class LadingError(Exception):
    """Base: carries a reason and a text that shows *got* and *wanted*."""

    def __init__(self, reason: Reason, message: str = "", *, hint: str = "", **details: object) -> None:
        super().__init__(message or reason.stable_name)
        self.reason = reason
        self.message = message or reason.stable_name
        self.hint = hint
        self.details = details

    def __str__(self) -> str:
        return f"{self.message} [{self.reason.stable_name}]"


class LocalError(LadingError):
    """We are at fault: fix the code; the node stops."""


class RemoteError(LadingError):
    """The peer is at fault: obey the verdict."""

    def __init__(self, reason: Reason, message: str = "", *, verdict: Verdict = Verdict.DROP, hint: str = "", **details: object) -> None:
        super().__init__(reason, message, hint=hint, **details)
        self.verdict = verdict


class DecodeError(RemoteError):
    """Bytes that are not what they claim to be. The only thing a decoder may raise."""


class InvalidObject(LadingError):
    """Well-formed data that breaks a rule: refuse it and remember the reason."""


class InvalidTransaction(InvalidObject):
    """A transaction that breaks a rule of its chain: refuse it, and every block that carries it."""


class InvalidBlock(InvalidObject):
    """A block that breaks a rule whoever looks at it: refuse it and all that follows it."""


class Undecided(LadingError):
    """A block that *this node* cannot judge now (parent, clock or rule set): nobody is to blame, nothing is stored, judge again."""


class StoreFull(LadingError):
    """The machine: out of budget or disk. Degrade to read-only and tell the operator what to do."""

    def __init__(self, message: str = "", **details: object) -> None:
        super().__init__(Reason.STORE_FULL, message)
        self.details = details


class StoreDamaged(LadingError):
    """The machine: a page, file or value is not what was written."""

    def __init__(self, message: str = "", **details: object) -> None:
        super().__init__(Reason.INTEGRITY, message)
        self.details = details


class UsageError(LadingError):
    """The user asked for something that makes no sense."""

    def __init__(self, message: str, *, hint: str = "", **details: object) -> None:
        super().__init__(Reason.USAGE, message, hint=hint, **details)


class Refused(LadingError):
    """The user: a rule says no. Prints what failed, what still holds, what to try."""


class Partial(LadingError):
    """The user: some of it was done. Never reported as success."""


class ActorGone(LadingError):
    """Life cycle: the actor that owed an answer has stopped."""

    def __init__(self, message: str = "") -> None:
        super().__init__(Reason.NOT_RUNNING, message or "the part of the node that owed this answer has stopped")
