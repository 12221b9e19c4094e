"""The only list of commands: group, help, examples, flags, exit codes, and the function that carries each out."""

from __future__ import annotations

import argparse

from protocols.limits import TICKET_LIFETIME_S

from . import ledger, local, remote, show
from .command import Command
from .kinds import copies, point_in_time, seconds, share_of_all, tag, time_or_never, whole
from .passphrase import add_passphrase_flags

_TRUST, _NODE, _RECORDS, _KEEPING = "Come together", "The node", "Records", "Keep it well"
_REMOTE = (0, 1, 2, 7, 8, 130)


# --- flags ------------------------------------------------------------------------------------------------------------


def _init_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--domain", required=True, metavar="NAME", help="name of the trust domain to found")
    parser.add_argument("--name", metavar="N", help="what people call this node; default: the host's name")
    parser.add_argument("--country", metavar="CC", help="two letters, like DE")
    parser.add_argument("--listen", metavar="MULTIADDR", nargs="+", action="extend", help="where to listen; default /ip4/0.0.0.0/tcp/4747")
    parser.add_argument("--network", metavar="TICKET", help="found the domain inside the network of this ticket (- reads it)")
    add_passphrase_flags(parser, may_be_none=True)


def _join_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("ticket", metavar="TICKET", nargs="?", help="the ticket, or - for standard input")
    parser.add_argument("--ticket-file", metavar="F", help="file with the ticket")
    parser.add_argument("--name", metavar="N", help="what people call this node; default: the host's name")
    parser.add_argument("--listen", metavar="MULTIADDR", action="append", help="where to listen; may be repeated")
    add_passphrase_flags(parser, may_be_none=True)


def _join_again_flags(parser: argparse.ArgumentParser) -> None:
    again = "this home has been away too long (E-AWAY-TOO-LONG) or its certificates have ended: back in with its own keys"
    parser.add_argument("--again", action="store_true", help=again)
    _join_flags(parser)


def _restore_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kit", metavar="KIT", help="file with the recovery kit as it was printed, or - for standard input")
    peer = "where a node of the network listens, with /p2p/ID at its end; for a founder who has no ticket; may be repeated"
    parser.add_argument("--peer", metavar="MULTIADDR", action="append", help=peer)
    _join_flags(parser)


def _kit_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kit", metavar="KIT", help="file with the founder's recovery kit as it was printed, or - for standard input")
    add_passphrase_flags(parser, may_be_none=False)


def _revoke_issuer_flags(parser: argparse.ArgumentParser) -> None:
    _kit_flags(parser)
    parser.add_argument("issuer", metavar="ISSUER", nargs="?", help="serial number or unique beginning of one; default: show them all")
    parser.add_argument(
        "--cutoff", metavar="TIME", type=point_in_time, help="ISO-8601; what it signed until then still holds; default: now"
    )
    parser.add_argument("--cause", metavar="TEXT", help="why; kept with the revocation")


def _invite_flags(parser: argparse.ArgumentParser) -> None:
    whom = parser.add_mutually_exclusive_group()
    whom.add_argument("--node", action="store_true", help="a further node of this member, holder-only, instead of a new member")
    whom.add_argument("--domain", action="store_true", help="another trust domain in this network, instead of a new member")
    parser.add_argument("--role", metavar="R", help="role of the newcomer; default: member")
    parser.add_argument("--expires", metavar="TIME", type=seconds, default=float(TICKET_LIFETIME_S), help="how long it lives; default 24h")
    other = parser.add_mutually_exclusive_group()
    other.add_argument("--list", action="store_true", help="show the open tickets")
    other.add_argument("--cancel", metavar="ID", help="make an open ticket worthless")


def _member_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("member", metavar="MEMBER", nargs="?", help="id or unique beginning of one; default: this node's own")


def _revoke_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("member", metavar="MEMBER", help="id or unique beginning of one")
    parser.add_argument("--cause", metavar="TEXT", help="why; kept with the revocation")
    parser.add_argument("--dry-run", action="store_true", help="say what would happen, change nothing")


def _start_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--listen", metavar="MULTIADDR", action="append", help="listen here instead; may be repeated")
    parser.add_argument("--static-peer", dest="static_peers", metavar="MULTIADDR", action="append", help="dial it too; may be repeated")
    parser.add_argument("--profile", metavar="P", help="default or pi")
    parser.add_argument("--log-level", metavar="L", help="debug, info, warning or error")
    parser.add_argument("--set", metavar="KEY=VALUE", action="append", help="any setting, for this run only; may be repeated")
    add_passphrase_flags(parser, may_be_none=False)


def _put_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", nargs="*", help="files and folders, or - for standard input")
    parser.add_argument("--replicas", metavar="N", type=copies, help="copies wanted; default: the setting copies")
    parser.add_argument("--ack", choices=("local", "quorum", "full"), help="when it counts as done; default: the setting ack")
    parser.add_argument(
        "--class", dest="record_class", choices=("dedup", "confidential"), help="default dedup; confidential hides equality"
    )
    parser.add_argument("--tag", metavar="K=V", type=tag, action="append", help="a note sealed with the record; may be repeated")
    parser.add_argument("--valid-until", metavar="T", type=point_in_time, help="time after which readers refuse it, like 2027-01-31")
    parser.add_argument("--parent", metavar="RECORD", action="append", help="it comes from this one, says the ledger; may be repeated")
    parser.add_argument(
        "--change", metavar="KIND", help="how it comes from its parents: correct, merge, annotate…; default with one: modify"
    )
    parser.add_argument("--reason", metavar="TEXT", help="why it was changed; everybody can read it on the ledger")
    parser.add_argument("--owner", metavar="MEMBER", action="append", help="owns it too: every change needs all owners; may be repeated")
    parser.add_argument("--approver", metavar="MEMBER", action="append", help="may let others read it; may be repeated; default: any owner")
    parser.add_argument("--threshold", metavar="M", type=copies, help="approvers who must agree; default: all of them")
    parser.add_argument(
        "--deadline", metavar="TIME", type=seconds, help="how long the other owners have, like 7d; default: the policy list's"
    )
    parser.add_argument(
        "--level", metavar="N", type=whole, help="confidentiality level on the ledger; default: the highest of its parents'"
    )
    parser.add_argument("--schema", metavar="S", help="name of what it is, like invoice; the policy list may admit it or not")
    parser.add_argument("--wait", choices=("final",), help="answer when it is final on the ledger, not before")
    parser.add_argument("--each", action="store_true", help="a record of its own for every PATH, instead of one of them all")
    parser.add_argument("--resume", metavar="RECORD", help="go on with a put that was interrupted or fell short")
    parser.add_argument("--name", metavar="N", help="name of the entry made from standard input; default: stdin")
    parser.add_argument("--dry-run", action="store_true", help="say what would be published, store nothing")


def _get_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", metavar="RECORD", help="id or unique beginning of one")
    parser.add_argument("-o", "--output", metavar="PATH", help="where to write; - is standard output; default: here, under its own name")
    parser.add_argument("--entry", metavar="NAME", help="only this entry")
    parser.add_argument("--keep", action="store_true", help="also keep the sealed chunks, as a holder does")


def _ls_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--all", action="store_true", help="also what others own and this node only holds, and what was deleted")


def _record_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", metavar="RECORD", help="id or unique beginning of one")


def _extend_flags(parser: argparse.ArgumentParser) -> None:
    remote.add_act_flags(parser)
    parser.add_argument("--until", metavar="T", type=time_or_never, required=True, help="its new end, like 2027-12-31, or never")


def _copies_flags(parser: argparse.ArgumentParser) -> None:
    remote.add_act_flags(parser)
    parser.add_argument("copies", metavar="N", type=whole, help="copies wanted from now on; 0: as the profile says")


def _approve_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="of what waits, or of its record; a unique beginning is enough (lading inbox)")
    parser.add_argument("--refuse", action="store_true", help="say no, which ends it")
    parser.add_argument("--note", metavar="TEXT", help="why; everybody can read it on the ledger")
    parser.add_argument("--dry-run", action="store_true", help="say what it is about, sign nothing")


def _folder_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("member", metavar="MEMBER", nargs="?", help="whose: id, unique beginning of one, or name; default: this node's own")
    parser.add_argument("--root", metavar="HASH", help="an earlier version of it, by its hash")


def _pin_flags(parser: argparse.ArgumentParser) -> None:
    remote.add_act_flags(parser)
    parser.add_argument("--on", metavar="NODE", required=True, help="name, id or unique beginning of one")


def _what_if_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--kill", metavar="NODE[,NODE…]", nargs="+", required=True, help="nodes to imagine gone")


def _share_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("record", metavar="RECORD", help="id or unique beginning of one")
    parser.add_argument("--to", metavar="MEMBER", required=True, help="member id, as `lading status` prints it")
    parser.add_argument("--until", metavar="T", type=point_in_time, help="needs grants; refused until there are some")
    parser.add_argument("--actions", metavar="A,B", help="needs grants; refused until there are some")
    parser.add_argument("--purpose", metavar="P", help="needs grants; refused until there are some")


def _check_flags(parser: argparse.ArgumentParser) -> None:
    extent = parser.add_mutually_exclusive_group()
    extent.add_argument("--sample", metavar="SHARE", type=share_of_all, help="a random share of the chunks; default 5%%")
    extent.add_argument("--all", action="store_true", help="every chunk")
    parser.add_argument("--repair", action="store_true", help="fetch good copies of what is bad; nothing is dropped before that")


def _keys_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the file with the keys")
    add_passphrase_flags(parser, may_be_none=False)


def _show_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--origin", action="store_true", help="say of each whether flag, environment, file, profile or default decided")


def _key_flag(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="name of the setting")


def _set_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("key", metavar="KEY", help="name of the setting")
    parser.add_argument("value", metavar="VALUE", nargs="+", help="sizes like '50 GiB', times like 10m; a list takes several")


def _validate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", nargs="?", help="another file than this home's config.toml")


def _testnet_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("n", metavar="N", type=copies, help="number of nodes")
    parser.add_argument("dir", metavar="DIR", help="folder for the homes; new or empty")
    parser.add_argument("--signers", metavar="N", type=copies, help="members without a node too, whose keys go into DIR/signers")
    parser.add_argument("--slot-ms", metavar="MS", type=copies, help="length of a slot of the chain; default 1000")
    parser.add_argument("--term-blocks", metavar="N", type=copies, help="blocks in a term of the chain; default 100")


def _demo_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("path", metavar="PATH", nargs="*", help="files or folders to play with; default: a trade folder")
    parser.add_argument("--keep", action="store_true", help="leave the homes behind")


# --- the list ---------------------------------------------------------------------------------------------------------

COMMANDS: tuple[Command, ...] = (
    Command(
        _TRUST,
        ("init",),
        "make a home and found a trust domain",
        "Makes the home of a node: keys, settings, and a new trust domain with this node as its first, in a network of its own or, with "
        "a ticket of `lading invite --domain`, in one that exists. Prints what a recovery kit must hold.",
        (
            "lading init --domain ACME --name office",
            "lading init --domain ACME --country DE --passphrase-file ~/.lading-pass",
            "lading init --domain CUSTOMS --network - < ticket.txt",
        ),
        (0, 1, 2, 5, 7, 9, 10, 11),
        local.init,
        _init_flags,
        show.show_home,
        "recovery_kit",
    ),
    Command(
        _TRUST,
        ("invite",),
        "make a one-time ticket",
        "Makes a ticket that lets one computer join: single use, short-lived, and worth nothing afterwards. Lists and cancels open ones.",
        ("lading invite --node --expires 1h", "lading invite --domain", "lading invite --list"),
        (*_REMOTE[:3], 5, 7, 8, 130),
        remote.invite,
        _invite_flags,
        show.show_invite,
        "ticket",
    ),
    Command(
        _TRUST,
        ("join",),
        "come in with a ticket",
        "Makes a home and joins the domain of a ticket: keys are made here, the certificate comes from the domain. A lost answer does no "
        "harm: join again with the same ticket.",
        ("lading join TICKET --name pi4", "lading join - < ticket.txt", "lading join --ticket-file ticket.txt --no-passphrase"),
        (0, 1, 2, 5, 7, 9, 10, 11),
        local.join,
        _join_again_flags,
        show.show_home,
        "node",
    ),
    Command(
        _TRUST,
        ("member", "list"),
        "who belongs",
        "Lists the members of this domain and of the network's others: their nodes, when their certificates end, and who was put out.",
        ("lading member list", "lading member list --json", "lading member list --verbose"),
        _REMOTE,
        remote.plain_call("member.list"),
    ),
    Command(
        _TRUST,
        ("member", "renew"),
        "renew a certificate now",
        "Renews a member's certificate before its time; the node does so by itself from two thirds of the validity on.",
        ("lading member renew", "lading member renew a3f9", "lading member renew --json"),
        (0, 1, 2, 4, 5, 7, 8, 130),
        remote.plain_call("member.renew", "member"),
        _member_flags,
    ),
    Command(
        _TRUST,
        ("member", "revoke"),
        "put a member out",
        "Revokes a member: its connections are dropped within one gossip round, what it held is copied elsewhere, its "
        "keys open nothing new. "
        "What it could read before it may have kept. Coming in again takes a new invitation.",
        ("lading member revoke a3f9 --cause 'laptop stolen'", "lading member revoke a3f9 --dry-run", "lading member revoke a3f9 --yes"),
        (0, 1, 2, 4, 5, 7, 8, 130),
        remote.revoke_member,
        _revoke_flags,
    ),
    Command(
        _NODE,
        ("start",),
        "run the node in the foreground",
        "Runs the node until Ctrl-C, SIGTERM or `lading stop`. Prints one line when it is ready, with --json as an object.",
        (
            "lading start",
            "lading start --listen /ip4/0.0.0.0/tcp/4747 --log-level debug",
            "lading start --set 'store_budget_bytes=20 GiB' --json",
        ),
        (0, 1, 2, 8, 9, 11, 12, 13, 130, 143),
        local.start,
        _start_flags,
    ),
    Command(
        _NODE,
        ("status",),
        "is it healthy, is my data safe",
        "Shows this node, its domain, its peers, its store and its ledger, and what needs you.",
        ("lading status", "lading status --json", "lading --home /srv/lading status"),
        _REMOTE,
        remote.plain_call("status"),
        show=show.show_status,
        quiet_key="node",
    ),
    Command(
        _NODE,
        ("peers",),
        "who is there and how they are reached",
        "Lists the nodes known here, those that are away included, with the path to them and the round-trip time.",
        ("lading peers", "lading peers --json", "lading peers --verbose"),
        _REMOTE,
        remote.plain_call("peers"),
        show=show.show_peers,
    ),
    Command(
        _NODE,
        ("doctor",),
        "find out what is wrong",
        "Checks addresses, clock, disk, certificates and copies, and says what to do where something is wrong. A failed"
        " check makes it exit 1.",
        ("lading doctor", "lading doctor --json", "lading doctor || echo 'look at the node'"),
        _REMOTE,
        remote.doctor,
        show=show.show_doctor,
    ),
    Command(
        _NODE,
        ("watch",),
        "see events as they happen",
        "Prints every event of the node on one line until Ctrl-C: peers that come and go, records published, blocks that became "
        "the head or final.",
        ("lading watch", "lading watch --json | jq -c .data", "lading watch --timeout 10m"),
        _REMOTE,
        remote.watch,
    ),
    Command(
        _NODE,
        ("stop",),
        "end the node cleanly",
        "Asks the running node to stop and returns when its process has ended. Its data is safe either way.",
        ("lading stop", "lading stop --timeout 5s", "lading --home /srv/lading stop"),
        _REMOTE,
        remote.stop,
    ),
    Command(
        _RECORDS,
        ("put",),
        "publish files, folders or standard input",
        "Seals the given files into a record, gives its parts to holders, and returns when as many have it on disk as "
        "--ack asks. The record's "
        "id is what others get it by. Falling short is exit 3: the work goes on in the background, and --resume waits for it. "
        "With --parent and --change the ledger says of which records it is a new version, a correction or a merge; with --owner, who else "
        "has to approve it, now and at each change.",
        (
            "lading put scans/ --replicas 4 --ack full --tag case=17",
            "lading put contract.pdf --owner carrier-b --deadline 2d --wait final",
            "tar c /etc | lading put - --name etc.tar",
        ),
        (0, 1, 2, 3, 4, 5, 7, 8, 10, 12, 13, 130),
        remote.put,
        _put_flags,
        show.show_put,
        "record",
    ),
    Command(
        _RECORDS,
        ("get",),
        "fetch, verify and open a record",
        "Fetches a record from several holders at once, checks every byte, and writes it. Holders that are away are waited "
        "for: 30 s since the last chunk, or as long as --timeout says. An interrupted get goes on where it was.",
        ("lading get 7f3a9c --timeout 1h", "lading get 7f3a9c -o backup/", "lading get 7f3a9c --entry report.pdf -o - | less"),
        (0, 1, 2, 4, 5, 6, 7, 8, 12, 130),
        remote.get,
        _get_flags,
        show.show_get,
        "path",
    ),
    Command(
        _RECORDS,
        ("ls",),
        "list records",
        "Lists the records that you own or that were shared with you, with the number of losses each survives.",
        ("lading ls", "lading ls --all", "lading ls --json | jq -r '.data.records[].record'"),
        _REMOTE,
        remote.plain_call("ls", "all"),
        _ls_flags,
        show.show_ls,
    ),
    Command(
        _RECORDS,
        ("share",),
        "let a member read a record",
        "Seals the record's key to a member. There is no way to take back what was read.",
        ("lading share 7f3a9c --to a3f90b", "lading share 7f3a9c --to a3f90b --json", 'lading share "$(lading put r.pdf -q)" --to a3f90b'),
        (0, 1, 2, 4, 5, 7, 8, 130),
        remote.share,
        _share_flags,
    ),
    Command(
        _RECORDS,
        ("file", "status"),
        "who holds a record, and what it survives",
        "Shows intent and fact side by side: copies wanted, there and verified; how many arbitrary losses it survives; the smallest set of "
        "holders whose loss would kill it; and whether the ledger has it: pooled, in a block, final, of which records it is a version, who "
        "owns it, who has approved what waits and who lacks, and whether it is in effect.",
        ("lading file status 7f3a9c", "lading file status 7f3a9c --json", "lading file status 7f3a9c --verbose"),
        (0, 1, 2, 4, 7, 8, 130),
        remote.plain_call("file.status", "record"),
        _record_flag,
        show.show_file,
    ),
    Command(
        _RECORDS,
        ("inbox",),
        "what waits for this member's word",
        "Lists what other owners have asked this member to approve, and what it has asked of them, as the ledger has it: new records, "
        "changes, later ends, erasures; who has said yes, who lacks, and when it lapses by itself. Penalties in force that concern this "
        "member, or name its records as evidence, are listed below.",
        ("lading inbox", "lading inbox --json | jq -r '.data.waiting[].id'", "watch lading inbox"),
        (0, 1, 2, 5, 7, 8, 130),
        remote.plain_call("inbox"),
        show=show.show_inbox,
    ),
    Command(
        _RECORDS,
        ("approve",),
        "say yes or no to what waits",
        "Says this member's word on the ledger, once, about something in `lading inbox`. When the last one says yes it takes effect in "
        "that block; one no ends it. Nobody has to do anything more.",
        ("lading approve 7f3a9c", "lading approve 7f3a9c --refuse --note 'wrong weight'", "lading approve 7f3a9c --dry-run"),
        (0, 1, 2, 4, 5, 7, 8, 10, 130),
        remote.approve,
        _approve_flags,
        quiet_key="transaction",
    ),
    Command(
        _RECORDS,
        ("file", "extend"),
        "a record is in effect for longer",
        "Moves the end of a record's validity to a later time, or takes it away. All its owners have to agree; an expired record is in "
        "effect again when they have.",
        (
            "lading file extend 7f3a9c --until 2027-12-31",
            "lading file extend 7f3a9c --until never",
            "lading file extend 7f3a9c --until 2027-12-31T12:00Z --dry-run",
        ),
        (0, 1, 2, 4, 5, 6, 7, 8, 10, 130),
        remote.plain_call("file.extend", "record", "until", "dry_run"),
        _extend_flags,
        quiet_key="transaction",
    ),
    Command(
        _RECORDS,
        ("folder",),
        "what a member has on the ledger",
        "Resolves the name of a member's folder, which only that member moves, to its newest version, and lists the records in it as this "
        "node recomputes them from the ledger.",
        ("lading folder", "lading folder hospital-a", "lading folder hospital-a --root 5be1…"),
        (0, 1, 2, 4, 5, 7, 8, 130),
        remote.plain_call("folder", "member", "root"),
        _folder_flags,
    ),
    Command(
        _RECORDS,
        ("file", "forget"),
        "drop this node's copy",
        "Hands this node's duty to another node, then drops its copy. The number of copies never falls below what is wanted.",
        ("lading file forget 7f3a9c", "lading file forget 7f3a9c --dry-run", "lading file forget 7f3a9c --yes"),
        (0, 1, 2, 4, 5, 7, 8, 130),
        remote.act_on_file("file.forget"),
        remote.add_act_flags,
    ),
    Command(
        _RECORDS,
        ("file", "delete"),
        "delete a record everywhere",
        "Tells every holder that the record is deleted. They keep it in their trash for the trash window (7 days "
        "unless set otherwise), then it "
        "is gone. Repair and returning nodes do not bring it back.",
        ("lading file delete 7f3a9c", "lading file delete 7f3a9c --dry-run", "lading file delete 7f3a9c --yes --json"),
        (0, 1, 2, 3, 4, 5, 7, 8, 10, 130),
        remote.act_on_file("file.delete"),
        remote.add_act_flags,
    ),
    Command(
        _RECORDS,
        ("file", "erase"),
        "delete at once, with signed receipts",
        "Deletes without a trash window and asks each holder for a signed erasure receipt. It claims the holders that "
        "confirmed and names those that did not. What several own is erased when all of them have approved. A reader may have kept what he "
        "read, and you could always derive your own keys again.",
        ("lading file erase 7f3a9c", "lading file erase 7f3a9c --dry-run", "lading file erase 7f3a9c --yes --json"),
        (0, 1, 2, 3, 4, 5, 7, 8, 10, 130),
        remote.act_on_file("file.erase"),
        remote.add_act_flags,
    ),
    Command(
        _RECORDS,
        ("file", "pin"),
        "this node must hold it",
        "An operator's wish: the named node must hold the record, whatever placement says.",
        ("lading file pin 7f3a9c --on pi3", "lading file pin 7f3a9c --on pi3 --dry-run", "lading file pin 7f3a9c --on 12D3KooWAbCd"),
        (0, 1, 2, 4, 5, 7, 8, 130),
        remote.plain_call("file.pin", "record", "on", "dry_run"),
        _pin_flags,
    ),
    Command(
        _RECORDS,
        ("file", "unpin"),
        "this node must not hold it",
        "An operator's wish: the named node must not hold the record; others take its place first.",
        ("lading file unpin 7f3a9c --on pi3", "lading file unpin 7f3a9c --on pi3 --dry-run", "lading file unpin 7f3a9c --on 12D3KooWAbCd"),
        (0, 1, 2, 4, 5, 7, 8, 130),
        remote.plain_call("file.unpin", "record", "on", "dry_run"),
        _pin_flags,
    ),
    Command(
        _RECORDS,
        ("file", "copies"),
        "want more or fewer copies",
        "Says anew how many copies of a record there shall be. The statement goes onto the ledger, and every node that has the chain acts "
        "on it: missing copies are made, surplus ones go when the others are sure.",
        ("lading file copies 7f3a9c 5", "lading file copies 7f3a9c 0", "lading file copies 7f3a9c 5 --dry-run"),
        (0, 1, 2, 4, 5, 7, 8, 130),
        remote.plain_call("file.copies", "record", "copies", "dry_run"),
        _copies_flags,
    ),
    Command(
        _RECORDS,
        ("file", "reaffirm"),
        "a record in quarantine is meant as it stands",
        "After an absence longer than tombstones are kept, what this node alone knows of a record counts for nothing, since it may have "
        "been deleted long ago. The owner says here that it holds after all; then it spreads.",
        ("lading file reaffirm 7f3a9c", "lading file reaffirm 7f3a9c --json", "lading --home /srv/lading file reaffirm 7f3a9c"),
        (0, 1, 2, 4, 5, 7, 8, 130),
        remote.plain_call("file.reaffirm", "record"),
        _record_flag,
    ),
    *ledger.COMMANDS,
    Command(
        _KEEPING,
        ("what-if",),
        "what would be lost with these nodes",
        "Imagines nodes gone and says which records would still be whole and how many losses they would then survive. Nothing is changed.",
        ("lading what-if --kill pi3", "lading what-if --kill pi3,nas2", "lading what-if --kill pi3 nas2 --json"),
        (0, 1, 2, 4, 7, 8, 130),
        remote.what_if,
        _what_if_flags,
    ),
    Command(
        _KEEPING,
        ("check",),
        "read back and verify what is stored here",
        "Reads chunks back, recomputes every hash, and with --repair fetches good copies of bad ones. Nothing is dropped before a verified "
        "replacement is there.",
        ("lading check", "lading check --sample 20%", "lading check --all --repair"),
        (0, 1, 2, 3, 6, 7, 8, 130),
        remote.check,
        _check_flags,
    ),
    Command(
        _KEEPING,
        ("keys", "export"),
        "keys into a file, for the safe",
        "Writes the private keys of this home into one file, protected by the passphrase of the home. Keep it off this computer.",
        (
            "lading keys export /media/stick/office.keys",
            "lading keys export office.keys --passphrase-file pass",
            "lading keys export office.keys --json",
        ),
        (0, 1, 2, 5, 8, 10),
        local.export_keys,
        _keys_flags,
        quiet_key="file",
    ),
    Command(
        _KEEPING,
        ("keys", "import"),
        "keys from a file into this home",
        "Puts exported keys into this home. Never run one identity in two places at once.",
        (
            "lading keys import /media/stick/office.keys",
            "lading --home /srv/new keys import office.keys",
            "lading keys import office.keys --json",
        ),
        (0, 1, 2, 5, 6, 9, 10, 11),
        local.import_keys,
        _keys_flags,
    ),
    Command(
        _KEEPING,
        ("keys", "restore"),
        "come back from the recovery kit",
        "Makes a new home for a member whose machines are gone: keys from the recovery kit, admission with a new ticket. A founder whose "
        "domain has no issuing node left needs no ticket: his kit holds the root. What the member owns can be read again as far as other "
        "nodes hold it.",
        (
            "lading keys restore kit.txt TICKET --name office",
            "lading keys restore kit.txt --peer /ip4/10.0.0.7/tcp/4747/p2p/12D3KooWNode",
            "lading keys restore kit.txt TICKET --no-passphrase --json",
        ),
        (0, 1, 2, 5, 6, 7, 9, 10, 11),
        local.restore_keys,
        _restore_flags,
        show.show_home,
        "node",
    ),
    Command(
        _KEEPING,
        ("keys", "renew-issuer"),
        "a new issuing key from the founder's kit",
        "Gives the node of this home a new issuing key for ten years, certified by the domain's root from the founder's recovery kit. The "
        "node must stand still. Also makes a second node an issuer, so that no one machine's death stops joining and renewal.",
        (
            "lading keys renew-issuer kit.txt",
            "lading keys renew-issuer - < kit.txt",
            "lading keys renew-issuer kit.txt --passphrase-file pass --json",
        ),
        (0, 1, 2, 5, 6, 8, 9, 11),
        local.renew_issuer,
        _kit_flags,
    ),
    Command(
        _KEEPING,
        ("keys", "revoke-issuer"),
        "put an issuing key out",
        "Revokes an issuer of the domain, and all that it signed after the cut-off, with the root from the founder's recovery kit; the "
        "fence rotates. The node of this home must stand still; when it runs again, it tells the others. Without an issuer it shows which "
        "there are.",
        (
            "lading keys revoke-issuer kit.txt",
            "lading keys revoke-issuer kit.txt 5e0a --cutoff 2027-01-31T00:00:00Z --cause 'server stolen'",
            "lading keys revoke-issuer kit.txt 5e0a --json",
        ),
        (0, 1, 2, 4, 5, 6, 8, 9, 11),
        local.revoke_issuer,
        _revoke_issuer_flags,
    ),
    Command(
        _KEEPING,
        ("config", "show"),
        "all settings, and who decided them",
        "Shows every setting as it counts. Precedence: flag, environment, file, profile, default; --origin says which one it was.",
        ("lading config show", "lading config show --origin", "LADING_COPIES=5 lading config show --origin"),
        (0, 1, 2),
        local.config_show,
        _show_flags,
        local.show_config,
    ),
    Command(
        _KEEPING,
        ("config", "get"),
        "one setting",
        "Prints one setting as it counts, nothing else.",
        ("lading config get copies", "lading config get store_budget_bytes --json", "lading config get listen"),
        (0, 1, 2),
        local.config_get,
        _key_flag,
        local.show_value,
        "value",
    ),
    Command(
        _KEEPING,
        ("config", "set"),
        "change one setting",
        "Changes one line of config.toml and nothing else; comments stay. The whole file is checked first.",
        (
            "lading config set store_budget_bytes '20 GiB'",
            "lading config set repair_grace_s 5m",
            "lading config set listen /ip4/10.0.0.7/tcp/4747",
        ),
        (0, 1, 2, 8),
        local.config_set,
        _set_flags,
        local.show_set,
    ),
    Command(
        _KEEPING,
        ("config", "validate"),
        "is config.toml right",
        "Reads config.toml and says the first thing that is wrong with it, with the nearest name for an unknown setting.",
        ("lading config validate", "lading config validate /tmp/config.toml", "lading config validate --json"),
        (0, 1, 2, 4),
        local.config_validate,
        _validate_flags,
    ),
    Command(
        _KEEPING,
        ("config", "schema"),
        "JSON Schema of config.toml",
        "Prints the JSON Schema of config.toml, with unit, bounds, default and reason of every setting.",
        ("lading config schema", "lading config schema > config.schema.json", "lading config schema | jq '.properties | keys'"),
        (0, 2),
        local.config_schema,
        show=local.show_schema,
    ),
    Command(
        _KEEPING,
        ("testnet",),
        "homes of N nodes on this computer",
        "Makes homes DIR/n1 … DIR/nN of one domain founded by n1, each node its own member, on free loopback ports, "
        "and DIR/start.sh, which "
        "starts them all and returns when all are ready. --signers adds members whose programs sign for themselves and hand it to a node "
        "with `lading ledger submit`; the clocks of the chain are fixed for its life.",
        (
            "lading testnet 3 /tmp/net && sh /tmp/net/start.sh",
            "lading --home /tmp/net/n1 status",
            "lading testnet 5 /tmp/five --signers 8 --json",
        ),
        (0, 1, 2, 10),
        local.testnet,
        _testnet_flags,
        show.show_testnet,
        "directory",
    ),
    Command(
        _KEEPING,
        ("demo",),
        "five nodes lose hosts and no byte",
        "Plays the five-node story on this computer: publish, kill hosts without warning, read everything back, watch "
        "the repair. Takes a minute.",
        ("lading demo", "lading demo ~/Documents/trade", "lading demo --json"),
        (0, 1, 2, 6, 7, 130),
        local.demo,
        _demo_flags,
        show=show.show_nothing,
    ),
    Command(
        _KEEPING,
        ("version",),
        "versions of program and API",
        "Prints the version of the program, of its API, and of Python.",
        ("lading version", "lading version --json", "lading version --quiet"),
        (0,),
        local.tell_version,
        quiet_key="version",
    ),
)
