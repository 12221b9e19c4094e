"""What the running node can be asked, and how it answers. The node's API implements Dispatcher; server and client carry it.

A request is `POST /v1/<operation>`; its body is one line of JSON (the arguments, an object) and, after the line feed, the
bytes of an upload where there is one. The answer's framing stands in framing.py. OPERATIONS is the only list of operations:
the server refuses what is not in it, and the dispatcher may rely on the kinds named there. Arguments left out are absent from the
mapping. An operation that is ``open_ended`` tells its events as progress.

Progress facts that the command line knows how to show (all optional): ``phase`` (text), ``bytes``, ``bytes_total``,
``sequences``, ``sequences_total``, ``holders``, ``holders_total`` (whole numbers), ``waiting_for`` (text or list of texts),
``note`` (text, shown once).
"""

from __future__ import annotations

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from typing import Protocol, cast

from protocols.errors import LadingError, Reason, UsageError

API_VERSION = "v1"

# The longest sensible argument line: a put of 4,000 paths of 256 bytes each.
ARGS_BYTES_MAX = 1024 * 1024
# Request line and headers; ours take 200 bytes, a browser's a few KiB.
HEADER_BYTES_MAX = 16 * 1024
# A caller that has said nothing within this time is gone or hostile.
HEADER_TIMEOUT_S = 10.0
# Calls in progress. Each holds two tasks and at most one block; more is a runaway script.
CONNECTIONS_MAX = 1024
# Output may wait on a person reading in a pager and an upload on a slow producer; an hour frees what was forgotten.
STALL_TIMEOUT_S = 3600.0
# Progress lines kept for a client that reads slowly; the oldest are dropped, since the newest say more.
PROGRESS_LINES_MAX = 256
# One result line: `ls --all` of 100,000 records at 300 bytes each fits twice.
RESULT_BYTES_MAX = 64 * 1024 * 1024
# One piece of raw output or upload: a block and its seal fit.
PIECE_BYTES_MAX = 512 * 1024


@dataclass(frozen=True, slots=True)
class Answer:
    """What a finished call says. data: plain JSON values, full ids, exact bytes, ISO-8601 times. warnings: sentences."""

    data: Mapping[str, object]
    warnings: Sequence[str] = ()


class Dispatcher(Protocol):
    """The running node's API, one door for every operation."""

    async def call(
        self,
        operation: str,
        args: Mapping[str, object],
        *,
        body: AsyncIterator[bytes] | None,
        progress: Callable[[Mapping[str, object]], None],
        output: Callable[[bytes], Awaitable[None]] | None,
    ) -> Answer:
        """Carries out one operation of OPERATIONS; cancelled when the caller is gone.

        body: pieces of the upload of an operation that takes one, else None. progress: never waits, may drop the oldest.
        output: sends bytes to the caller when it asked for them inline, else None; waits for room.
        Raises LadingError; anything else is answered as E-FAILED and logged.
        """


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of OPERATIONS.

    args: name to kind: "text", "texts" (list), "whole" (integer, not negative), "number", "flag", "map" (text to text).
    required: arguments that must be there. uploads: the call may bring a body. downloads: it may be asked for raw output.
    open_ended: answers with events until the caller leaves.
    """

    args: Mapping[str, str] = field(default_factory=dict)
    required: frozenset[str] = frozenset()
    uploads: bool = False
    downloads: bool = False
    open_ended: bool = False


def _operation(*required: str, **args: str) -> Operation:
    return Operation(args, frozenset(required))


_ACT = {"record": "text", "dry_run": "flag"}

OPERATIONS: Mapping[str, Operation] = {
    "status": Operation(),
    "peers": Operation(),
    "doctor": Operation(),
    "stop": Operation(),
    # expires_s: seconds from now. role: a role name. node: a further node of the caller's own member. domain: a domain of its own.
    "invite": _operation(node="flag", domain="flag", role="text", expires_s="whole"),
    "invite.list": Operation(),
    "invite.cancel": _operation("id", id="text"),
    "member.list": Operation(),
    # member: an id or unique prefix; left out, the node's own.
    "member.renew": _operation(member="text"),
    "member.revoke": _operation("member", member="text", cause="text", dry_run="flag"),
    # paths: absolute; ["-"] takes the body as one entry called `name`. ack: local, quorum, full. class: dedup, confidential.
    # valid_until: ISO-8601 UTC. parent, change, reason: of which records it is a version, says the ledger. owner: members besides the
    # caller's; approver, threshold: who lets it be read; level, schema; deadline_s: how long the other owners have. wait: "final" answers
    # when it is final on the ledger. resume: a record, paths then empty. each: a record of its own for every path; a line of progress
    # with `path` and `record` or `error` when one is done.
    "put": Operation(
        {
            "paths": "texts",
            "name": "text",
            "replicas": "whole",
            "ack": "text",
            "class": "text",
            "tag": "map",
            "valid_until": "text",
            "parent": "texts",
            "change": "text",
            "reason": "text",
            "owner": "texts",
            "approver": "texts",
            "threshold": "whole",
            "level": "whole",
            "schema": "text",
            "deadline_s": "number",
            "wait": "text",
            "resume": "text",
            "each": "flag",
            "dry_run": "flag",
        },
        frozenset({"paths"}),
        uploads=True,
    ),
    # output: absolute path wanted. directory: absolute; where the record's own name goes when output is absent.
    # inline: raw bytes through the call, no file; with entry, or for a record of one file.
    # wait_s: how long to wait for holders that are away, in all; absent: 30 s since the last chunk.
    "get": Operation(
        {"record": "text", "output": "text", "directory": "text", "entry": "text", "keep": "flag", "inline": "flag", "wait_s": "number"},
        frozenset({"record"}),
        downloads=True,
    ),
    "ls": _operation(all="flag"),
    "file.status": _operation("record", record="text"),
    "file.forget": Operation(_ACT, frozenset({"record"})),
    "file.delete": Operation(_ACT, frozenset({"record"})),
    "file.erase": Operation(_ACT, frozenset({"record"})),
    "file.pin": Operation({**_ACT, "on": "text"}, frozenset({"record", "on"})),
    "file.unpin": Operation({**_ACT, "on": "text"}, frozenset({"record", "on"})),
    "file.reaffirm": _operation("record", record="text"),
    # copies: wanted from now on; 0: as the profile says.
    "file.copies": Operation({**_ACT, "copies": "whole"}, frozenset({"record", "copies"})),
    # until: ISO-8601 UTC, or "never".
    "file.extend": Operation({**_ACT, "until": "text"}, frozenset({"record", "until"})),
    "inbox": Operation(),
    # id: of a waiting transaction, or of its record; a unique beginning is enough. refuse: say no.
    "approve": _operation("id", id="text", refuse="flag", note="text", dry_run="flag"),
    # member: whose; absent: the node's own. root: hash of an earlier version, hex.
    "folder": _operation(member="text", root="text"),
    # kill: nodes, ids or unique prefixes or names.
    "what-if": _operation("kill", kill="texts"),
    "share": _operation("record", "to", record="text", to="text"),
    # sample: share of the stored chunks, 0..1; all: everything. repair: fetch good copies of what is bad.
    "check": _operation(sample="number", all="flag", repair="flag"),
    "clock": Operation(),
    "ledger.status": _operation(chain="text"),
    # what: a height, or a block's or transaction's id or unique beginning of one; left out, the head.
    "ledger.show": _operation(what="text", chain="text"),
    # limit: blocks, the newest first; before: a height.
    "ledger.history": _operation(what="text", limit="whole", before="whole", after="whole", proofs="flag", chain="text"),
    # transactions: signed ones as text, at most SUBMITTED_MAX.
    "ledger.submit": _operation("transactions", transactions="texts", chain="text"),
    # peer: a node, by name or id.
    "ledger.diff": _operation("peer", peer="text", chain="text"),
    "miner.status": _operation(chain="text"),
    "miner.offer": _operation(chain="text"),
    # withdraw: take a recommendation back.
    "miner.nominate": _operation("member", member="text", withdraw="flag", chain="text"),
    # offer: the text of miner.offer from the candidate's node.
    "miner.certify": _operation("offer", offer="text", chain="text"),
    "miner.withdraw": _operation("member", member="text", chain="text"),
    # seat: an offer's text. unseat: a member. threshold: of the council after it; left out, more than half.
    "council.propose": _operation(seat="text", unseat="text", threshold="whole", chain="text"),
    # act: the text of a proposal. dry_run: only say what is in it.
    "council.approve": _operation("act", act="text", dry_run="flag", chain="text"),
    "council.inbox": _operation(chain="text"),
    "council.rotate": _operation(chain="text"),
    "miner.rotate": _operation(chain="text"),
    "watch": Operation(open_ended=True),
}


def check_call(operation: str, args: Mapping[str, object]) -> Operation:
    """The row of ``operation``, when it exists and ``args`` are of its kinds. Raises UsageError naming what is nearest."""
    row = OPERATIONS.get(operation)
    if row is None:
        near = get_close_matches(operation, OPERATIONS, n=1)
        raise UsageError(f"no operation is called {operation!r}", hint=f"POST /{API_VERSION}/{near[0]}" if near else "")
    for name, value in args.items():
        kind = row.args.get(name)
        if kind is None:
            near = get_close_matches(name, row.args, n=1)
            raise UsageError(f"{operation} takes no argument {name!r}" + (f"; the nearest is {near[0]!r}" if near else ""))
        if not _is_kind(value, kind):
            raise UsageError(f"{operation}: {name} is {type(value).__name__}, {kind} wanted")
    missing = sorted(row.required - args.keys())
    if missing:
        raise UsageError(f"{operation} needs {', '.join(missing)}")
    return row


def _is_kind(value: object, kind: str) -> bool:
    is_whole = isinstance(value, int) and not isinstance(value, bool)
    match kind:
        case "text":
            return isinstance(value, str)
        case "texts":
            return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
        case "whole":
            return is_whole and value >= 0  # type: ignore[operator]  # is_whole says int
        case "number":
            return is_whole or isinstance(value, float)
        case "flag":
            return isinstance(value, bool)
        case "map":
            return isinstance(value, Mapping) and all(isinstance(item, str) for pair in value.items() for item in pair)
    raise AssertionError(f"kind {kind!r} is not one of ours")


class CallFailed(LadingError):
    """A failure that the node answered with. Keeps name and exit code also when a newer node uses a name unknown here."""

    def __init__(self, name: str, exit_code: int, message: str, hint: str, details: Mapping[str, object], *, retryable: bool) -> None:
        super().__init__(_REASONS.get(name, Reason.FAILED), message, hint=hint)
        self.details = dict(details)
        self.stable_name = name
        self.exit_code = exit_code
        self.retryable = retryable


_REASONS = {reason.stable_name: reason for reason in Reason}
# The same call may succeed later without anybody changing anything on purpose.
_RETRYABLE = frozenset(
    {
        Reason.QUORUM_WRITE,
        Reason.PARTIAL,
        Reason.UNREACHABLE,
        Reason.TIMEOUT,
        Reason.STALLED,
        Reason.NOT_RUNNING,
        Reason.LOCKED,
        Reason.FLOOD,
        Reason.CLOCK_UNSAFE,
    }
)


def error_to_json(error: LadingError) -> dict[str, object]:
    """The error object of the interface: name, code, message, hint, details, retryable."""
    if isinstance(error, CallFailed):
        name, code, retryable = error.stable_name, error.exit_code, error.retryable
    else:
        name, code, retryable = error.reason.stable_name, error.reason.exit_code, error.reason in _RETRYABLE
    return {
        "name": name,
        "code": code,
        "message": error.message,
        "hint": error.hint,
        "details": {str(key): plain(value) for key, value in error.details.items()},
        "retryable": retryable,
    }


def error_from_json(value: object) -> CallFailed:
    """The error that ``error_to_json`` wrote, as far as ``value`` is one; missing parts get harmless values."""
    source = value if isinstance(value, Mapping) else {}
    code = source.get("code")
    details = source.get("details")
    return CallFailed(
        str(source.get("name") or Reason.FAILED.stable_name),
        code if isinstance(code, int) and 0 < code < 256 else Reason.FAILED.exit_code,
        str(source.get("message") or "the node gave no reason"),
        str(source.get("hint") or ""),
        details if isinstance(details, Mapping) else {},
        retryable=source.get("retryable") is True,
    )


def seconds_of(text: str) -> int:
    """Unix seconds of an ISO-8601 time. Raises UsageError."""
    try:
        found = datetime.datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no ISO-8601 time", hint="like 2027-01-31T00:00:00Z") from error
    if found.tzinfo is None:
        found = found.replace(tzinfo=datetime.UTC)
    return int(found.timestamp())


_PLAIN = frozenset({str, int, bool, float, type(None)})


def iso(seconds: float) -> str:
    """ISO-8601 UTC, whole seconds; empty for 0."""
    if not seconds:
        return ""
    return datetime.datetime.fromtimestamp(int(seconds), datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def plain(value: object) -> object:
    """``value`` in the kinds JSON has: bytes as hex, tuples and sets as lists (sets sorted), what is left as text."""
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is dict:  # most of what is told; the general forms below give the same
        items = cast(Mapping[object, object], value).items()
        return {item if type(item) is str else _name(item): under if type(under) in _PLAIN else plain(under) for item, under in items}
    match value:
        case None | bool() | int() | float() | str():
            return value
        case bytes() | bytearray() | memoryview():
            return bytes(value).hex()
        case Mapping():
            return {_name(item): plain(under) for item, under in value.items()}
        case set() | frozenset():
            return sorted((plain(item) for item in value), key=str)
        case Sequence():
            return [plain(item) for item in value]
    return str(value)


def _name(key: object) -> str:
    return key.hex() if isinstance(key, bytes) else str(key)
