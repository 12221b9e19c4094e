"""Chains beside the domain's, in a home whose node stands still: founded, or followed from an anchor; and opened when the node starts."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

from protocols.codec import replace
from protocols.errors import InvalidObject, LadingError, Reason, Refused, StoreDamaged, UsageError
from protocols.identity.keyfiles import ChainKey, is_protected
from protocols.ledger.envelope import ZERO_CHAIN
from protocols.ledger.seals.table import SEALS
from protocols.limits import CHAINS_PER_NODE_MAX
from protocols.types import AccountId, ChainId, MemberId, UnixSeconds
from storage.engine import Env
from storage.lmdb_engine import LmdbEngine
from storage.lock import HomeLock

from . import config
from .actors.chain import ChainSetup
from .chain_founding import Founder, found_chain
from .chain_home import (
    ChainFile,
    anchor_text,
    chain_files,
    chain_folder,
    chain_setup,
    file_of_anchor,
    file_of_first,
    further_chains,
    parse_anchor,
    read_chain_file,
)
from .chain_keys import fresh_chain_key
from .clock import SystemClock
from .entropy import SystemEntropy
from .home import (
    IDENTITY_FOLDER,
    LEDGER_BUDGET_BYTES,
    LEDGER_RESERVE_BYTES,
    Passphrase,
    asked_once,
    member_key_file,
    open_home,
    write_private,
)
from .services import READERS

log = logging.getLogger(__name__)

DATABASES_FOLDER = "chains"


def found(home: Path, name: str, *, seal: str, passphrase: Passphrase, read: str = "consortium") -> dict[str, object]:
    """A further chain, founded by this home's member alone, which has its only seat, lets others have accounts, and seats them later.

    read: who may read it, as of ``node/services``.

    Raises UsageError, Refused(NOT_MEMBER | QUOTA).
    """
    if seal not in SEALS:
        raise UsageError(f"there is no seal {seal!r}", hint="one of " + ", ".join(sorted(SEALS)))
    if read not in READERS:
        raise UsageError(f"nobody is called {read!r}", hint="one of " + ", ".join(READERS))
    passphrase = asked_once(passphrase)
    with HomeLock(home):
        own, member = open_home(home, passphrase), member_key_file(home, passphrase)
        if member is None or own.member is None:
            raise Refused(Reason.NOT_MEMBER, "this home has not its member's keys", hint="found it on the member's first node")
        _main_chain(home)
        _check_room(home)
        entropy = SystemEntropy()
        seat = fresh_chain_key(ZERO_CHAIN, entropy)
        first = found_chain(
            [Founder(member, seat)],
            network=own.network_id,
            domain=own.domain_id,
            root=own.roots[own.domain_id],
            name=name,
            country=config.load(home, flags={}, environment={}).config.country,
            managers={AccountId(own.member_id)},
            recovery=(),
            now=int(SystemClock().now()),
            salt=entropy.token(32),
            seal=seal,
            profile={"read": read},
        )
        chain = file_of_first(first)
        _write(home, chain, replace(seat, chain=chain.chain), passphrase)
    return {"chain": chain.chain.hex(), "name": name, "seal": seal, "anchor": anchor_text(chain.anchor)}


def follow(home: Path, text: str, *, passphrase: Passphrase) -> dict[str, object]:
    """A further chain that others have, from one of its final blocks. The member's first node has keys for a seat on it, which it offers.

    Raises UsageError, Refused(CONFLICT | QUOTA).
    """
    anchor = parse_anchor(text)
    chain = file_of_anchor(anchor)
    passphrase = asked_once(passphrase)
    with HomeLock(home):
        member = member_key_file(home, passphrase)
        main = _main_chain(home)
        if chain.chain in (main.chain, *further_chains(home)):
            raise Refused(Reason.CONFLICT, "this home follows that chain already", hint="lading ledger status")
        _check_room(home)
        _write(home, chain, None if member is None else fresh_chain_key(chain.chain, SystemEntropy()), passphrase)
    return {"chain": chain.chain.hex(), "height": chain.height, "has_keys": member is not None}


def _main_chain(home: Path) -> ChainFile:
    main = read_chain_file(home)
    if main is None:
        raise LadingError(Reason.NOT_FOUND, f"{home} follows no chain", hint="lading ledger import FILE brings it its domain's")
    return main


def _check_room(home: Path) -> None:
    if len(further_chains(home)) + 1 >= CHAINS_PER_NODE_MAX:
        raise Refused(Reason.QUOTA, f"a node follows at most {CHAINS_PER_NODE_MAX} chains", hint="follow this one on another node")


def _write(home: Path, chain: ChainFile, key: ChainKey | None, passphrase: Passphrase) -> None:
    """Which chain it is comes last: until then there is none."""
    folder = chain_folder(home, chain.chain)
    for one in (folder.parent, folder):
        one.mkdir(mode=0o700, exist_ok=True)
    protected = is_protected((home / IDENTITY_FOLDER / "node.key").read_bytes())
    secret = (passphrase() if callable(passphrase) else passphrase) if protected else None
    for file in chain_files(chain, key, secret, SystemEntropy()):
        write_private(folder / file.name, file.data)


def setups(home: Path, member: MemberId, passphrase: Callable[[], bytes], *, member_seed: bytes | None = None) -> tuple[ChainSetup, ...]:
    """What the node needs of each; one whose files are damaged is left out, and the log says so: the others do not depend on it."""
    found: list[ChainSetup] = []
    for chain in further_chains(home)[: CHAINS_PER_NODE_MAX - 1]:
        try:
            setup = chain_setup(home, member, passphrase, chain, member_seed=member_seed)
        except InvalidObject as error:
            log.error("a further chain is not followed, its files are damaged chain=%s error=%s", chain.hex()[:8], error)
            continue
        if setup is not None:
            found.append(setup)
    return tuple(found)


def lane_of(chain: ChainId) -> str:
    """Of the writes to its database, and in names of tasks."""
    return chain.hex()[:12]


def database_path(home: Path, chain: ChainId) -> Path:
    """Of the chain's own database, in a folder that is there."""
    folder = home / DATABASES_FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder / f"{chain.hex()}.lmdb"


def open_database(home: Path, chain: ChainId) -> LmdbEngine:
    """The chain's own. One that cannot be opened is put aside, and the chain fetched again. Raises StoreFull, LocalError."""
    path = database_path(home, chain)
    try:
        return _open(path)
    except StoreDamaged as error:
        aside = path.with_name(f"{path.name}.damaged-{UnixSeconds(int(SystemClock().now()))}")
        log.error("a further chain's database cannot be opened, it is put aside chain=%s to=%s error=%s", chain.hex()[:8], aside, error)
        path.rename(aside)
        return _open(path)


def _open(path: Path) -> LmdbEngine:
    return LmdbEngine(path, Env.LEDGER, budget_bytes=LEDGER_BUDGET_BYTES, reserve_bytes=LEDGER_RESERVE_BYTES)
