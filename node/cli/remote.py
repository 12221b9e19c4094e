"""Commands that ask the running node: flags to arguments of an operation (node/http/contract.py), its answer back."""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import BinaryIO

from node.http import client
from node.http.contract import Answer
from protocols.errors import LadingError, Reason, Refused, UsageError

from .command import Invocation, Terminated
from .progress import Progress
from .show import check_level, show_event

# A node closes its store and says goodbye to its peers within seconds; longer means that it hangs.
STOP_TIMEOUT_S = 30.0
GET_LAST_WORD_S = 3.0
_STOP_POLL_S = 0.1


def ask(
    invocation: Invocation,
    operation: str,
    args: Mapping[str, object],
    body: BinaryIO | None = None,
    output: Callable[[bytes], object] | None = None,
) -> Answer:
    """One call with progress; Ctrl-C cancels it at the node. Absent values (None) are left out of ``args``."""
    given = {key: value for key, value in args.items() if value is not None}
    progress = _progress(invocation)
    try:
        with _cancellable(invocation):
            return client.call(
                invocation.home,
                operation,
                given,
                progress.tell,
                body,
                output,
                on_tick=progress.tick,
                timeout_s=invocation.args.timeout,
            )
    except KeyboardInterrupt:
        raise _interrupted(progress, Reason.CANCELLED) from None
    except Terminated:
        raise _interrupted(progress, Reason.TERMINATED) from None
    finally:
        progress.end()


def _progress(invocation: Invocation) -> Progress:
    output = invocation.output
    is_live = output.stderr.isatty() and os.environ.get("TERM") != "dumb"
    return Progress(invocation.command, output.stderr, output.style, is_live=is_live, is_quiet=output.is_quiet)


def _interrupted(progress: Progress, reason: Reason) -> LadingError:
    record = progress.facts.get("record")
    hint = f"lading put --resume {record}" if record else ""
    return LadingError(reason, "interrupted; the node was told to stop working on it", hint=hint, **({"record": record} if record else {}))


@contextlib.contextmanager
def _cancellable(invocation: Invocation) -> Iterator[None]:
    """Inside: the first Ctrl-C raises KeyboardInterrupt (leaving the call cancels it), the second ends the process; SIGTERM raises
    Terminated."""
    presses = 0

    def on_interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal presses
        presses += 1
        if presses > 1:
            os._exit(Reason.CANCELLED.exit_code)
        raise KeyboardInterrupt

    def on_terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = {signal.SIGINT: signal.signal(signal.SIGINT, on_interrupt), signal.SIGTERM: signal.signal(signal.SIGTERM, on_terminate)}
    try:
        yield
    finally:
        if presses:
            del before[signal.SIGINT]  # the second press may come while the first one's words are being written
        for number, handler in before.items():
            signal.signal(number, handler)


def plain_call(operation: str, *names: str, **renamed: str) -> Callable[[Invocation], Answer]:
    """A command that hands its flags on: ``names`` as they are, ``renamed`` as argument=flag."""

    def run(invocation: Invocation) -> Answer:
        args = {name: getattr(invocation.args, name) for name in names}
        args |= {argument: getattr(invocation.args, flag) for argument, flag in renamed.items()}
        return ask(invocation, operation, args)

    return run


# --- membership -------------------------------------------------------------------------------------------------------


def invite(invocation: Invocation) -> Answer:
    """A new ticket, the open ones, or one fewer."""
    args = invocation.args
    if args.list:
        return ask(invocation, "invite.list", {})
    if args.cancel:
        return ask(invocation, "invite.cancel", {"id": args.cancel})
    return ask(invocation, "invite", {"node": args.node, "domain": args.domain or None, "role": args.role, "expires_s": int(args.expires)})


def revoke_member(invocation: Invocation) -> Answer:
    """Puts a member out, after asking."""
    args = invocation.args
    _confirm(invocation, f"Put member {args.member} out of the domain? Its nodes lose their connections at once.")
    return ask(invocation, "member.revoke", {"member": args.member, "cause": args.cause, "dry_run": args.dry_run})


def share(invocation: Invocation) -> Answer:
    """Gives a member the record's key; what only a grant can limit is refused until there are grants."""
    args = invocation.args
    limited = [name for name in ("until", "actions", "purpose") if getattr(args, name)]
    if limited:
        raise Refused(
            Reason.REFUSED,
            f"--{limited[0]} needs grants on the ledger, which this version does not have; nothing was shared",
            hint=f"lading share {args.record} --to {args.to}   (without limits: who can read once may keep what was read)",
        )
    return ask(invocation, "share", {"record": args.record, "to": args.to})


# --- records ----------------------------------------------------------------------------------------------------------


def put(invocation: Invocation) -> Answer:
    """Publishes files, folders or standard input."""
    args = invocation.args
    if not args.path and not args.resume:
        raise UsageError("nothing to put", hint="lading put PATH…   or   lading put --resume RECORD")
    if args.path and args.resume:
        raise UsageError("--resume goes on with a record; it takes no paths", hint=f"lading put --resume {args.resume}")
    wanted: dict[str, object] = {
        "replicas": args.replicas,
        "ack": args.ack,
        "class": args.record_class,
        "tag": dict(args.tag) if args.tag else None,
        "valid_until": args.valid_until,
        "parent": args.parent,
        "change": args.change,
        "reason": args.reason,
        "owner": args.owner,
        "approver": args.approver,
        "threshold": args.threshold,
        "level": args.level,
        "schema": args.schema,
        "deadline_s": args.deadline,
        "wait": args.wait,
        "resume": args.resume,
        "each": args.each or None,
        "dry_run": args.dry_run or None,
    }
    if args.each and (args.resume or args.dry_run or "-" in args.path):
        raise UsageError("--each takes paths, and no --resume or --dry-run", hint="lading put --each PATH…")
    if "-" not in args.path:
        if args.name:
            raise UsageError("--name is for the entry made from standard input", hint="lading put - --name NAME")
        return ask(invocation, "put", {"paths": [_existing(path) for path in args.path], **wanted})
    if len(args.path) > 1:
        raise UsageError("standard input (-) stands alone; put files in a record of their own")
    if sys.stdin.isatty() and not invocation.output.is_quiet:
        invocation.output.note("Reading standard input; end with Ctrl-D.")
    return ask(invocation, "put", {"paths": ["-"], "name": args.name, **wanted}, body=sys.stdin.buffer)


def _existing(path: str) -> str:
    full = os.path.abspath(path)
    if not os.path.lexists(full):
        raise LadingError(
            Reason.NOT_FOUND, f"{path}: no such file or folder; nothing was published", hint="ls -d " + (os.path.dirname(path) or ".")
        )
    return full


def get(invocation: Invocation) -> Answer:
    """Fetches a record to a path, to the working directory, or to standard output."""
    args = invocation.args
    # The node gives up a moment before we do, so that people hear for whom it waited.
    wait_s = max(args.timeout - GET_LAST_WORD_S, args.timeout / 2) if args.timeout else None
    wanted = {"record": args.record, "entry": args.entry, "keep": args.keep or None, "wait_s": wait_s}
    if args.output != "-":
        where = os.path.abspath(args.output) if args.output else None
        if where is not None and args.output.endswith(os.sep):
            where = os.path.join(where, "")
        return ask(invocation, "get", {**wanted, "output": where, "directory": os.getcwd()})
    if sys.stdout.isatty() and not args.yes:
        raise UsageError("raw bytes would go to this terminal", hint=f"lading get {args.record} -o PATH   or   … -o - | less   or   --yes")
    invocation.output.is_stdout_taken = True

    def write(data: bytes) -> None:
        sys.stdout.buffer.write(data)

    answer = ask(invocation, "get", {**wanted, "inline": True}, output=write)
    sys.stdout.buffer.flush()
    return answer


def approve(invocation: Invocation) -> Answer:
    """This member's word about what waits for it, after asking."""
    args = invocation.args
    if args.refuse:
        _confirm(invocation, f"Refuse {args.id}? One no ends it for all who were asked.")
    wanted = {"id": args.id, "refuse": args.refuse or None, "note": args.note, "dry_run": args.dry_run or None}
    return ask(invocation, "approve", wanted)


_ACTS = {
    "file.forget": "Drop this node's copy of {record}? Its duty is handed to another node first.",
    "file.delete": "Delete {record} everywhere? Holders keep it in their trash for a while, then it is gone.",
    "file.erase": "Erase {record} everywhere, at once and without a way back?",
}


def act_on_file(operation: str) -> Callable[[Invocation], Answer]:
    """forget, delete or erase, after asking."""

    def run(invocation: Invocation) -> Answer:
        args = invocation.args
        _confirm(invocation, _ACTS[operation].format(record=invocation.output.style.id(args.record)))
        return ask(invocation, operation, {"record": args.record, "dry_run": args.dry_run or None})

    return run


def _confirm(invocation: Invocation, question: str) -> None:
    """Asks a person at a terminal; a script that names the act means it. Raises LadingError(CANCELLED) on anything but yes."""
    args = invocation.args
    if args.yes or args.dry_run or invocation.output.is_json or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise LadingError(
            Reason.CANCELLED, "not confirmed; nothing was changed", hint="--yes answers in advance, --dry-run shows what would happen"
        )


def what_if(invocation: Invocation) -> Answer:
    """What would be lost with these nodes."""
    nodes = [node for word in invocation.args.kill for node in word.split(",") if node]
    if not nodes:
        raise UsageError("--kill names no node", hint="lading what-if --kill NODE,NODE")
    return ask(invocation, "what-if", {"kill": nodes})


def check(invocation: Invocation) -> Answer:
    """Reads back what is stored here."""
    args = invocation.args
    return ask(invocation, "check", {"sample": args.sample, "all": args.all or None, "repair": args.repair or None})


# --- the node ---------------------------------------------------------------------------------------------------------


def doctor(invocation: Invocation) -> Answer:
    """Asks the node for its own diagnosis; a failed check is a failure of this command too."""
    answer = ask(invocation, "doctor", {})
    checks = answer.data.get("checks")
    failed = [check for check in checks if isinstance(check, Mapping) and check_level(check) == "fail"] if isinstance(checks, list) else []
    if not failed:
        return answer
    if not invocation.output.is_json:
        invocation.output.answer(invocation.command, answer, invocation.args.command.show)
    names = ", ".join(str(check.get("name")) for check in failed)
    hint = next((str(check["hint"]) for check in failed if check.get("hint")), "")
    raise LadingError(Reason.FAILED, f"{len(failed)} of its checks failed: {names}", hint=hint, checks=checks)


def watch(invocation: Invocation) -> int:
    """Prints events until Ctrl-C, which is the usual end and no failure."""
    output = invocation.output

    def on_event(facts: Mapping[str, object]) -> None:
        output.event(invocation.command, facts, show_event(facts, output.style))

    try:
        with _cancellable(invocation):
            client.call(invocation.home, "watch", {}, on_event, timeout_s=invocation.args.timeout)
    except KeyboardInterrupt:
        return Reason.CANCELLED.exit_code
    except LadingError as error:
        if error.reason is not Reason.TIMEOUT:
            raise
    return 0


def stop(invocation: Invocation) -> Answer:
    """Asks the node to stop and returns when its process has ended."""
    deadline = time.monotonic() + (invocation.args.timeout or STOP_TIMEOUT_S)
    with client.connect(invocation.home) as probe:
        pid = client.node_pid(probe)
    process = _process_handle(pid)
    try:
        answer = ask(invocation, "stop", {})
        if not _wait_ended(process, invocation.home, deadline):
            raise LadingError(
                Reason.TIMEOUT, f"the node (process {pid}) is still ending", hint="see its log; kill -9 is safe for its data", pid=pid
            )
        return answer
    finally:
        if process is not None:
            os.close(process)


def _process_handle(pid: int | None) -> int | None:
    """A descriptor that becomes readable when the process ends, where the system has such."""
    if pid is None or not hasattr(os, "pidfd_open"):
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:
        return None


def _wait_ended(process: int | None, home: Path, deadline: float) -> bool:
    """Whether the node ended in time. Without a process handle its socket is asked again and again."""
    if process is not None:
        return bool(select.select([process], [], [], max(0.0, deadline - time.monotonic()))[0])
    while time.monotonic() < deadline:
        try:
            client.connect(home).close()
        except LadingError:
            return True
        time.sleep(_STOP_POLL_S)
    return False


def add_act_flags(parser: argparse.ArgumentParser) -> None:
    """What every named act on a record takes."""
    parser.add_argument("record", metavar="RECORD", help="id or unique beginning of one")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, change nothing")
