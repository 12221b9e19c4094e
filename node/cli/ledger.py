"""Commands of the chain: those that ask the running node, and those that open the home of one that stands still."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from node.http.contract import ARGS_BYTES_MAX, Answer
from protocols.errors import LadingError, Partial, Reason, UsageError
from protocols.limits import SUBMITTED_MAX

from . import remote
from .command import Command, Invocation
from .kinds import whole
from .local import kit_text
from .passphrase import add_passphrase_flags, passphrase_source
from .show import show_clock
from .text import Style, pairs, size, table

_LEDGER = "The ledger"
_REMOTE = (0, 1, 2, 4, 5, 6, 7, 8, 130)
_LOCAL = (0, 1, 2, 4, 5, 6, 8, 9, 11)
# An act of the council is a transaction, at most 64 KiB, in base64.
TEXT_BYTES_MAX = 256 * 1024
# Of the bytes that one call may have, with room for one text more and for what stands around them.
CALL_TEXT_BYTES_MAX = ARGS_BYTES_MAX // 2
assert CALL_TEXT_BYTES_MAX + TEXT_BYTES_MAX + 8 * SUBMITTED_MAX <= ARGS_BYTES_MAX


# --- flags ------------------------------------------------------------------------------------------------------------


def _chain_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--chain", metavar="NAME", help="a chain beside the domain's: its name, id or the beginning of one")


def _found_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="what the chain is called")
    parser.add_argument("--seal", metavar="SEAL", default="pow", help="how blocks are sealed: pow (default), scrypt or authority")
    parser.add_argument(
        "--read", metavar="WHO", default="consortium", help="public: all domains; consortium (default); private: who maintains"
    )
    add_passphrase_flags(parser, may_be_none=False)


def _follow_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("anchor", metavar="ANCHOR", help="chain:height:hash, as `lading ledger status --json` shows it where the chain is")
    add_passphrase_flags(parser, may_be_none=False)


def _show_flags(parser: argparse.ArgumentParser) -> None:
    _chain_flag(parser)
    parser.add_argument("what", metavar="WHAT", nargs="?", help="a height, or the id of a block or transaction; default: the head")


def _history_flags(parser: argparse.ArgumentParser) -> None:
    _chain_flag(parser)
    parser.add_argument("what", metavar="ID", nargs="?", help="every transaction that touches this record, member, transaction or key")
    parser.add_argument("--limit", metavar="N", type=whole, help="blocks to show, default 20; or transactions, default 1000")
    parser.add_argument("--before", metavar="HEIGHT", type=whole, help="only blocks below this height")
    parser.add_argument("--after", metavar="HEIGHT", type=whole, help="of an id: only what stands above this height")
    parser.add_argument("--proofs", action="store_true", help="of an id: with what shows each transaction to somebody else (--json)")


def _diff_flags(parser: argparse.ArgumentParser) -> None:
    _chain_flag(parser)
    parser.add_argument("peer", metavar="PEER", help="a node: name, id or unique end of one (lading peers)")


def _file_flag(parser: argparse.ArgumentParser) -> None:
    _chain_flag(parser)
    parser.add_argument("file", metavar="FILE", help="the file with the chain")


def _submit_flags(parser: argparse.ArgumentParser) -> None:
    _chain_flag(parser)
    parser.add_argument("file", metavar="FILE", help="signed transactions, one text a line, or - for standard input")


def _rollback_flags(parser: argparse.ArgumentParser) -> None:
    _chain_flag(parser)
    parser.add_argument("height", metavar="HEIGHT", type=whole, help="of the block that is the tip afterwards")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, change nothing")


def _nominate_flags(parser: argparse.ArgumentParser) -> None:
    _chain_flag(parser)
    parser.add_argument("member", metavar="MEMBER", help="a certified candidate: id, unique beginning of one, or name")
    parser.add_argument("--withdraw", action="store_true", help="take the recommendation back")


def _certify_flags(parser: argparse.ArgumentParser) -> None:
    _chain_flag(parser)
    parser.add_argument("offer", metavar="OFFER", nargs="?", help="the text of `lading miner offer` on the candidate's node, or -")
    parser.add_argument("--withdraw", metavar="MEMBER", help="certify this member no longer")


def _propose_flags(parser: argparse.ArgumentParser) -> None:
    _chain_flag(parser)
    parser.add_argument("--seat", metavar="OFFER", help="seat the member of this offer, or give it new keys; - reads the offer")
    parser.add_argument("--unseat", metavar="MEMBER", help="take this member's seat")
    parser.add_argument("--threshold", metavar="M", type=whole, help="members that act together; default: more than half")


def _approve_flags(parser: argparse.ArgumentParser) -> None:
    _chain_flag(parser)
    parser.add_argument("act", metavar="ACT", help="the text that `lading council propose` or `miner certify` printed, or -")
    parser.add_argument("--dry-run", action="store_true", help="say what it would do, sign nothing")


def _recover_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kit", metavar="KIT", help="file with the founder's recovery kit as it was printed, or - for standard input")
    add_passphrase_flags(parser, may_be_none=False)


# --- on a home that stands still --------------------------------------------------------------------------------------


def verify(invocation: Invocation) -> Answer:
    """Every block judged again."""
    from node.chain_store import verify as run

    return Answer(run(invocation.home, invocation.args.chain))


def rollback(invocation: Invocation) -> Answer:
    """Back to a height."""
    from node.chain_store import roll_back

    args = invocation.args
    return Answer(roll_back(invocation.home, args.height, dry_run=args.dry_run, name=args.chain))


def rebuild_index(invocation: Invocation) -> Answer:
    """The index of heights anew."""
    from node.chain_store import rebuild_index as run

    return Answer(run(invocation.home, invocation.args.chain))


def export(invocation: Invocation) -> Answer:
    """The chain as a file."""
    from node.chain_store import export_chain

    return Answer(export_chain(invocation.home, Path(os.path.abspath(invocation.args.file)), invocation.args.chain))


def import_(invocation: Invocation) -> Answer:
    """The chain from a file."""
    from node.chain_store import import_chain

    source = Path(os.path.abspath(invocation.args.file))
    if not source.is_file():
        raise LadingError(Reason.NOT_FOUND, f"{source}: no such file")
    return Answer(import_chain(invocation.home, source, invocation.args.chain))


def recover(invocation: Invocation) -> Answer:
    """A new voting key in place of a lost one."""
    from node.chain_store import recover_vote

    ask = passphrase_source(invocation.args, what="the keys of this node")
    return Answer(recover_vote(invocation.home, kit_text(invocation.args.kit), passphrase=ask), ["start the node: it sends this out"])


def found(invocation: Invocation) -> Answer:
    """A chain beside the domain's."""
    from node.chain_further import found as run

    args = invocation.args
    ask = passphrase_source(args, what="the keys of this node")
    hint = "start the node; others follow it with: lading ledger follow ANCHOR"
    return Answer(run(invocation.home, args.name, seal=args.seal, read=args.read, passphrase=ask), [hint])


def follow(invocation: Invocation) -> Answer:
    """A chain that others have."""
    from node.chain_further import follow as run

    ask = passphrase_source(invocation.args, what="the keys of this node")
    return Answer(run(invocation.home, invocation.args.anchor, passphrase=ask), ["start the node: it fetches the chain from the others"])


# --- at the running node ----------------------------------------------------------------------------------------------


def certify(invocation: Invocation) -> Answer:
    """A candidate in or out."""
    args = invocation.args
    if bool(args.offer) == bool(args.withdraw):
        raise UsageError("an offer, or --withdraw MEMBER", hint="lading miner certify OFFER")
    if args.withdraw:
        return remote.ask(invocation, "miner.withdraw", {"member": args.withdraw, "chain": args.chain})
    return remote.ask(invocation, "miner.certify", {"offer": _text(args.offer), "chain": args.chain})


def propose(invocation: Invocation) -> Answer:
    """Another council."""
    args = invocation.args
    if not (args.seat or args.unseat or args.threshold):
        raise UsageError("a change is wanted: --seat OFFER, --unseat MEMBER or --threshold M", hint="lading council inbox")
    seat = _text(args.seat) if args.seat else None
    return remote.ask(
        invocation, "council.propose", {"seat": seat, "unseat": args.unseat, "threshold": args.threshold, "chain": args.chain}
    )


def history(invocation: Invocation) -> Answer:
    """Blocks, or what touches an id."""
    args = invocation.args
    asked = {"what": args.what, "limit": args.limit, "before": args.before, "after": args.after, "proofs": args.proofs or None}
    if args.what and args.before is not None:
        raise UsageError("--before is for blocks", hint="of an id, go on with --after HEIGHT")
    if not args.what and (args.after is not None or args.proofs):
        raise UsageError("--after and --proofs are for the history of an id", hint="lading ledger history ID --proofs --json")
    return remote.ask(invocation, "ledger.history", {**asked, "chain": args.chain})


def submit(invocation: Invocation) -> Answer:
    """Transactions that somebody signed elsewhere. Raises Partial when the chain refuses some."""
    rows: list[object] = []
    with _lines_of(invocation.args.file) as lines:
        for texts in _calls_of(lines):
            rows += _list(
                remote.ask(invocation, "ledger.submit", {"transactions": texts, "chain": invocation.args.chain}).data.get("transactions")
            )
    if not rows:
        raise UsageError(f"{invocation.args.file} holds no transaction", hint="one text a line, each begins with ladingtx1")
    refused = [row for row in rows if isinstance(row, Mapping) and row.get("state") != "pooled"]
    data = {"pooled": len(rows) - len(refused), "refused": len(refused), "transactions": rows}
    if refused:
        first = refused[0]
        raise Partial(
            Reason.REFUSED,
            f"{len(refused)} of {len(rows)} transactions were refused, the first one: {first.get('message')}",
            hint="the others wait for a block; lading ledger submit FILE --json names each",
            **data,
        )
    return Answer(data)


@contextlib.contextmanager
def _lines_of(name: str) -> Iterator[Iterator[str]]:
    """Lines of a file, or of standard input, each at most TEXT_BYTES_MAX long."""
    with contextlib.ExitStack() as stack:
        try:
            file = sys.stdin.buffer if name == "-" else stack.enter_context(Path(name).open("rb"))
        except OSError as error:
            raise LadingError(Reason.NOT_FOUND, f"{name}: {error.strerror}") from error
        yield (line.decode("ascii", "replace").strip() for line in iter(lambda: file.readline(TEXT_BYTES_MAX), b""))


def _calls_of(lines: Iterator[str]) -> Iterator[list[str]]:
    """Lines that are not empty, in parts that one call takes."""
    part: list[str] = []
    size = 0
    for line in lines:
        if not line:
            continue
        if part and (len(part) >= SUBMITTED_MAX or size + len(line) > CALL_TEXT_BYTES_MAX):
            yield part
            part, size = [], 0
        part.append(line)
        size += len(line)
    if part:
        yield part


def approve(invocation: Invocation) -> Answer:
    """One more key under an act."""
    args = invocation.args
    return remote.ask(invocation, "council.approve", {"act": _text(args.act), "dry_run": args.dry_run or None, "chain": args.chain})


def _text(word: str) -> str:
    """What was given, or standard input for `-`."""
    if word != "-":
        return word
    return sys.stdin.buffer.read(TEXT_BYTES_MAX).decode("ascii", "replace").strip()


# --- for people -------------------------------------------------------------------------------------------------------


def show_ledger(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """How the chain stands, whose turn it is, and what finality survives."""
    rows = data.get("chains")
    chains = [row for row in rows if isinstance(row, Mapping)] if isinstance(rows, Sequence) else []
    if not chains:
        yield "This home follows no chain."
    for chain in chains:
        names = _mapping(chain.get("names"))
        committee, mempool = _mapping(chain.get("committee")), _mapping(chain.get("mempool"))
        miners = chain.get("miners")
        listed = [str(names.get(one, one)) for one in miners] if isinstance(miners, list) else []
        lines = [
            ("chain", f"{chain.get('name', '')}  {style.id(str(chain.get('chain', '')))}"),
            ("read by", str(chain.get("read", ""))),
            ("role", f"{chain.get('role', '')}: {chain.get('headers', 0)} headers, {_size(chain.get('disk_bytes'))} with all facts"),
            ("head", f"{chain.get('height')}  {style.id(str(chain.get('tip', '')))}"),
            ("final", f"{chain.get('finalized_height')}  {style.id(str(chain.get('finalized', '')))}"),
            ("anchor", str(chain.get("anchor", ""))),
            ("state root", style.id(str(chain.get("state_root", "")))),
        ]
        if "heard" in committee:
            alive = style.good("goes on") if committee.get("finality_goes_on") else style.careful("waits for members")
            heard = f"{committee.get('heard')} of {len(_list(committee.get('members')))} members heard, {committee.get('quorum')} needed"
            lines += [
                ("miners", f"{', '.join(listed)}  ({chain.get('seats')} seats)"),
                ("turn", f"{names.get(chain.get('turn'), '')}  (slot {chain.get('slot')}, term {chain.get('term')})"),
                ("finality", f"{alive}: {heard}"),
                ("survives", f"{committee.get('liars_survived')} liars, {committee.get('dead_survived')} dead members"),
                ("waiting", f"{mempool.get('outbound')} made here, {mempool.get('inbound')} of others"),
                ("target", style.id(str(chain.get("target", "")))),
            ]
            if archives := _mapping(chain.get("archives")):
                lines.append(("archives", f"{archives.get('connected')} connected, this node included; {archives.get('wanted')} wanted"))
        lines += [("refused", text) for text in _refused_lines(chain.get("refused"))]
        yield from pairs(lines, style)


def _refused_lines(rows: object) -> Iterator[str]:
    """What was refused, how often and why, and who brought the last."""
    for row in _list(rows):
        if isinstance(row, Mapping):
            source = row.get("last_from") or "made here"
            yield f"{row.get('count')} × {row.get('item')} {row.get('reason')}, last {row.get('last')}, {source}"


def show_history(data: Mapping[str, object], style: Style) -> Iterator[str]:
    """One line for each block, the newest first; or for each transaction that touches an id, the oldest first."""
    if "transactions" in data:
        yield from _show_trail(data, style)
        return
    rows = [
        (
            str(row.get("height")),
            style.id(str(row.get("block", ""))),
            str(row.get("time", "")),
            str(row.get("miner", "")),
            str(row.get("state", "")),
            ", ".join(str(kind) for kind in _list(row.get("kinds"))),
        )
        for row in _list(data.get("blocks"))
        if isinstance(row, Mapping)
    ]
    yield from table(("HEIGHT", "BLOCK", "TIME", "MINER", "STATE", "TRANSACTIONS"), rows, style, right=(0,))


def _show_trail(data: Mapping[str, object], style: Style) -> Iterator[str]:
    rows = [
        (
            str(row.get("height")),
            str(row.get("time", "")),
            str(row.get("kind", "")),
            str(row.get("actor_name", "")),
            str(row.get("state", "")),
            "yes" if row.get("proven") else "no",
            style.id(str(row.get("transaction", ""))),
        )
        for row in _list(data.get("transactions"))
        if isinstance(row, Mapping)
    ]
    yield from table(("HEIGHT", "TIME", "KIND", "ACTOR", "STATE", "PROVEN", "TRANSACTION"), rows, style, right=(0,))


def _size(value: object) -> str:
    return size(value) if isinstance(value, int) else "nothing"


def _mapping(value: object) -> Mapping[object, object]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> Sequence[object]:
    return value if isinstance(value, list) else []


# --- the list ---------------------------------------------------------------------------------------------------------

COMMANDS: tuple[Command, ...] = (
    Command(
        _LEDGER,
        ("ledger", "status"),
        "how the chain stands",
        "Shows height, tip, what is final, who mines and whose turn it is, what waits, how many liars and dead members "
        "finality survives, and what was refused, why and from whom.",
        ("lading ledger status", "lading ledger status --json", "watch lading ledger status"),
        _REMOTE,
        remote.plain_call("ledger.status", "chain"),
        _chain_flag,
        show_ledger,
    ),
    Command(
        _LEDGER,
        ("ledger", "show"),
        "one block or transaction",
        "Shows the head, a block by height or id, or a transaction by id, with all that it says and whether it is pooled, in a "
        "block or final.",
        ("lading ledger show", "lading ledger show 812", "lading ledger show 7f3a9c --json"),
        _REMOTE,
        remote.plain_call("ledger.show", "what", "chain"),
        _show_flags,
    ),
    Command(
        _LEDGER,
        ("ledger", "history"),
        "the blocks so far, or all that touches an id",
        "Lists blocks, the newest first: who sealed them, what they carry, and whether they are final. Of an id (a record, a member, a "
        "transaction, a key, or the unique beginning of one) it lists every transaction that touches it, the oldest first: it reads and "
        "checks every block on the way and says of each whether its place was proven. --proofs gives the proofs themselves.",
        ("lading ledger history --limit 100", "lading ledger history 7f3a9c01", "lading ledger history hospital-a --proofs --json"),
        _REMOTE,
        history,
        _history_flags,
        show_history,
    ),
    Command(
        _LEDGER,
        ("ledger", "submit"),
        "hand over signed transactions",
        "Hands transactions that were signed away from this node, one text a line, to the chain. Each is judged as one made here; those "
        "that hold are kept and told to the others until they are final. Those that do not are named.",
        ("lading ledger submit signed.txt", "my-signer | lading ledger submit -", "lading ledger submit signed.txt --json"),
        _REMOTE,
        submit,
        _submit_flags,
    ),
    Command(
        _LEDGER,
        ("ledger", "diff"),
        "where this node's state differs from a peer's",
        "A node that finds another state than a quorum does stops. This names the first key at which its state and a peer's differ after "
        "that block.",
        ("lading ledger diff hospital-b/pi3", "lading ledger diff 12D3KooW… --json", "lading --home /srv/lading ledger diff nas2"),
        _REMOTE,
        remote.plain_call("ledger.diff", "peer", "chain"),
        _diff_flags,
    ),
    Command(
        _LEDGER,
        ("ledger", "verify"),
        "judge the whole chain again",
        "Judges every block again from the first one in a database of its own and compares tip and state with what stands here. The node "
        "must stand still.",
        ("lading ledger verify", "lading ledger verify --json", "lading ledger verify --chain trials"),
        _LOCAL,
        verify,
        _chain_flag,
    ),
    Command(
        _LEDGER,
        ("ledger", "rollback"),
        "take the chain back to a height",
        "Forgets every block above a height; the node fetches what the others have when it runs again. What this node has promised stays "
        "promised. The node must stand still.",
        ("lading ledger rollback 800 --dry-run", "lading ledger rollback 800", "lading ledger rollback 0 --chain trials"),
        _LOCAL,
        rollback,
        _rollback_flags,
    ),
    Command(
        _LEDGER,
        ("ledger", "rebuild-index"),
        "make the index of heights anew",
        "Makes the index of blocks by height anew from the blocks themselves. The node must stand still.",
        ("lading ledger rebuild-index", "lading ledger rebuild-index --json", "lading ledger rebuild-index --chain trials"),
        _LOCAL,
        rebuild_index,
        _chain_flag,
    ),
    Command(
        _LEDGER,
        ("ledger", "export"),
        "the chain as a file",
        "Writes every block from the first one to the tip into a file, which holds no secret. The node must stand still.",
        (
            "lading ledger export acme.chain",
            "lading ledger export /media/stick/acme.chain",
            "lading ledger export trials.chain --chain trials",
        ),
        (*_LOCAL, 10),
        export,
        _file_flag,
        quiet_key="file",
    ),
    Command(
        _LEDGER,
        ("ledger", "import"),
        "the chain from a file",
        "Judges every block of a file and keeps what this home lacks. A home without a chain follows this one from then on. The node must "
        "stand still.",
        (
            "lading ledger import acme.chain",
            "lading --home /srv/new ledger import acme.chain",
            "lading ledger import trials.chain --chain trials",
        ),
        _LOCAL,
        import_,
        _file_flag,
    ),
    Command(
        _LEDGER,
        ("ledger", "found"),
        "found a chain beside the domain's",
        "Founds a further chain, with a state, miners and a council of its own: this member has its first seats, every member of the "
        "domain gets an account. Others are seated with `miner offer`, `miner certify` and `council propose`, each with `--chain`. "
        "Who may read it is fixed with it: `--read public`, every node of the network; `consortium`, those of the domain; `private`, those "
        "whose member has a seat on its council or is a certified miner. The node must stand still.",
        ("lading ledger found trials", "lading ledger found fast --seal authority", "lading ledger found audit --read private"),
        _LOCAL,
        found,
        _found_flags,
        quiet_key="anchor",
    ),
    Command(
        _LEDGER,
        ("ledger", "follow"),
        "follow a chain beside the domain's",
        "Follows a further chain of the domain from one of its final blocks; at most four chains in all. The node must stand still.",
        ("lading ledger follow ANCHOR", 'lading ledger follow "$(cat anchor.txt)"', "lading ledger follow ANCHOR --json"),
        (*_LOCAL, 10, 12),
        follow,
        _follow_flags,
        quiet_key="chain",
    ),
    Command(
        _LEDGER,
        ("miner", "status"),
        "who mines, and whether this node does",
        "Lists the certified miners, who of them is seated, what they sealed and missed, and what this node does.",
        ("lading miner status", "lading miner status --json", "lading --home /srv/lading miner status"),
        _REMOTE,
        remote.plain_call("miner.status", "chain"),
        _chain_flag,
    ),
    Command(
        _LEDGER,
        ("miner", "offer"),
        "offer this node as a miner",
        "Prints the public keys with which this node would seal and vote, signed by its member: for `lading miner certify` and "
        "`lading council propose --seat` on a council member's node.",
        ("lading miner offer", "lading miner offer --quiet > offer.txt", "lading miner offer --json"),
        _REMOTE,
        remote.plain_call("miner.offer", "chain"),
        _chain_flag,
        quiet_key="offer",
    ),
    Command(
        _LEDGER,
        ("miner", "nominate"),
        "recommend a candidate",
        "Recommends a certified candidate in this member's name: recommended ones are drawn first. --withdraw takes it back.",
        ("lading miner nominate pi4", "lading miner nominate a3f90b --withdraw", "lading miner nominate pi4 --json"),
        _REMOTE,
        remote.plain_call("miner.nominate", "member", "withdraw", "chain"),
        _nominate_flags,
        quiet_key="transaction",
    ),
    Command(
        _LEDGER,
        ("miner", "certify"),
        "certify a candidate",
        "An act of the council: certifies the node of an offer as a candidate for the seats of miners, or withdraws that. Where more "
        "members must agree, it prints a text for `lading council approve`.",
        ("lading miner certify - < offer.txt", "lading miner certify --withdraw pi4", 'lading miner certify "$OFFER" --json'),
        _REMOTE,
        certify,
        _certify_flags,
        quiet_key="act",
    ),
    Command(
        _LEDGER,
        ("council", "propose"),
        "propose another council",
        "An act of the council: seats a member with a voting key, unseats one, or changes how many must agree. It takes effect two terms "
        "after it is final. Where more members must agree, it prints a text for `lading council approve`.",
        (
            "lading council propose --seat - < offer.txt",
            "lading council propose --unseat pi4 --threshold 2",
            'lading council propose --seat "$OFFER" --json',
        ),
        _REMOTE,
        propose,
        _propose_flags,
        quiet_key="act",
    ),
    Command(
        _LEDGER,
        ("council", "approve"),
        "sign an act of the council",
        "Puts this member's key under an act that another member proposed, and submits it when enough have signed. --dry-run shows what it "
        "says first.",
        ("lading council approve - < act.txt", 'lading council approve "$ACT" --dry-run', 'lading council approve "$ACT" --json'),
        _REMOTE,
        approve,
        _approve_flags,
        quiet_key="act",
    ),
    Command(
        _LEDGER,
        ("council", "inbox"),
        "the council, and what waits for it",
        "Shows the council in force, a change that is under way, and acts seen at this node since its start that need more signatures.",
        ("lading council inbox", "lading council inbox --json", "lading --home /srv/lading council inbox"),
        _REMOTE,
        remote.plain_call("council.inbox", "chain"),
        _chain_flag,
    ),
    Command(
        _LEDGER,
        ("council", "rotate"),
        "replace this member's voting key",
        "Makes another voting key on this node and tells the chain, signed by this member. The node votes with the key before until a "
        "block carries the change. Where what the key before said is lost, the new one votes when the change is final.",
        ("lading council rotate", "lading council rotate --json", "lading --home /srv/lading council rotate"),
        _REMOTE,
        remote.plain_call("council.rotate", "chain"),
        _chain_flag,
        quiet_key="transaction",
    ),
    Command(
        _LEDGER,
        ("miner", "rotate"),
        "replace this node's sealing key",
        "Makes another key to seal with on this node and tells the chain, signed by this member. The node seals with the key before until "
        "a block carries the change.",
        ("lading miner rotate", "lading miner rotate --json", "lading --home /srv/lading miner rotate"),
        _REMOTE,
        remote.plain_call("miner.rotate", "chain"),
        _chain_flag,
        quiet_key="transaction",
    ),
    Command(
        _LEDGER,
        ("council", "recover"),
        "replace a lost voting key",
        "Gives this member's seat on the council a new voting key, made here together with its promises, by the founder's recovery key "
        "from the kit. Shown on the chain for ever. The node must stand still; when it runs again, it tells the others.",
        (
            "lading council recover kit.txt",
            "lading council recover - < kit.txt",
            "lading council recover kit.txt --passphrase-file pass --json",
        ),
        _LOCAL,
        recover,
        _recover_flags,
        quiet_key="transaction",
    ),
    Command(
        _LEDGER,
        ("clock",),
        "which time counts here",
        "Shows which time this node uses, how it lies to that of the other members, and the network time by which it seals and votes: "
        "whether it is set, of how many members, how far they lie apart. Exit 13 where it is not known, so that the node does neither.",
        ("lading clock", "lading clock --json", "lading --home /srv/lading clock"),
        (*_REMOTE, 13),
        remote.plain_call("clock"),
        show=show_clock,
    ),
)
