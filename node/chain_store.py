"""A chain of a home whose node stands still: verified, taken back, its index rebuilt, exported, imported; the domain's voting key replaced.

Where a function takes ``name``, it is a chain beside the domain's by its name, its id or the beginning of one; None is the domain's.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from protocols.codec import decode, encode, replace
from protocols.crypto import SigningKey
from protocols.errors import DecodeError, InvalidObject, LadingError, Reason, Refused, StoreDamaged
from protocols.identity.keyfiles import is_protected
from protocols.identity.kit import parse_kit
from protocols.ledger.block import Block
from protocols.ledger.context import genesis_time_ms, load_profile
from protocols.ledger.envelope import ENVELOPE_VERSION, NO_SERIAL, Content, decode_body, sign_transaction
from protocols.ledger.genesis import Body as GenesisBody
from protocols.ledger.profile import Council, CouncilMember
from protocols.ledger.state import Overlay
from protocols.ledger.transactions import council_recover
from protocols.ledger.transactions.key_rotate import replace_member
from protocols.ledger.transition import slot_of
from protocols.limits import BLOCK_BYTES_MAX, SLOTS_WITHOUT_PROMISE
from protocols.types import AccountId, ChainId, UnixMillis
from storage import chain as store
from storage import chain_care as care
from storage import light
from storage.engine import Env
from storage.lmdb_engine import LmdbEngine
from storage.lock import HomeLock

from .chain_further import database_path
from .chain_home import (
    PROMISES_FILE,
    ROTATIONS_FILE,
    ChainFile,
    chain_files,
    chain_folder,
    file_of_first,
    first_block,
    further_chains,
    is_called,
    pick_chain,
    read_chain_file,
    read_chain_key,
)
from .chain_keys import fresh_chain_key, recovery_key
from .clock import SystemClock
from .entropy import SystemEntropy
from .home import (
    IDENTITY_FOLDER,
    LEDGER_BUDGET_BYTES,
    LEDGER_FOLDER,
    LEDGER_RESERVE_BYTES,
    Passphrase,
    asked_once,
    open_home,
    write_private,
)
from .promises import Kept, PromiseFile, Rotated, RotationFile, fresh

EXPORT_MAGIC = b"lading chain 1\n"
_LENGTH_BYTES = 4
assert BLOCK_BYTES_MAX < 1 << (8 * _LENGTH_BYTES)


@contextlib.contextmanager
def _opened(home: Path, name: str | None = None) -> Iterator[tuple[ChainFile, LmdbEngine]]:
    """A chain and its database, alone with the home. Raises Refused(LOCKED), LadingError(NOT_FOUND), UsageError."""
    with HomeLock(home):
        further = _further_named(home, name)
        chain = read_chain_file(home, further)
        if chain is None:
            raise LadingError(Reason.NOT_FOUND, f"{home} follows no chain", hint="lading ledger import FILE brings it one")
        engine = _engine(_database(home, further))
        try:
            with engine.snapshot() as snapshot:
                if light.trust(snapshot) is not None:
                    raise LadingError(Reason.NOT_KEPT, f"{home} is a light node's: it keeps no chain", hint="lading config set ledger full")
            yield chain, engine
        finally:
            engine.close()


def _database(home: Path, further: ChainId | None) -> Path:
    return home / LEDGER_FOLDER if further is None else database_path(home, further)


def _engine(path: Path) -> LmdbEngine:
    return LmdbEngine(path, Env.LEDGER, budget_bytes=LEDGER_BUDGET_BYTES, reserve_bytes=LEDGER_RESERVE_BYTES)


def _further_named(home: Path, name: str | None) -> ChainId | None:
    """Which chain beside the domain's is meant; None for the domain's. Raises LadingError(NOT_FOUND), UsageError."""
    if not name:
        return None
    own = _chain_file(home, None)
    chains: list[tuple[ChainId | None, str]] = [] if own is None else [(None, own.chain.hex())]
    chains += [(one, one.hex()) for one in further_chains(home)]
    # Its whole id names a chain of which nothing can be read.
    exact = [further for further, text in chains if text == name.lower()]
    return pick_chain(name, exact or [one for one, text in chains if is_called(name, chain=text, name=_name(home, one))])


def _chain_file(home: Path, further: ChainId | None) -> ChainFile | None:
    """None also where it is damaged."""
    try:
        return read_chain_file(home, further)
    except InvalidObject:
        return None


def _name(home: Path, further: ChainId | None) -> str:
    """What a chain is called, by its first block or by its state; empty where neither is here, or cannot be read."""
    chain = _chain_file(home, further)
    try:
        first = None if chain is None else first_block(chain)
        if first is not None:
            return decode_body(first.transactions[0], GenesisBody).profile.name
        path = _database(home, further)
        if not path.exists():
            return ""
        engine = _engine(path)
        try:
            with engine.snapshot() as snapshot:
                return "" if store.state_at(snapshot) is None else load_profile(Overlay(store.ChainState(snapshot))).name
        finally:
            engine.close()
    except (InvalidObject, DecodeError, StoreDamaged):
        return ""


def verify(home: Path, name: str | None = None) -> dict[str, object]:
    """Judges the whole chain again from its first block, in a database of its own, and compares everything with what stands here.

    Raises LadingError(INTEGRITY) naming the first thing that does not hold.
    """
    with _opened(home, name) as (chain, engine), tempfile.TemporaryDirectory(prefix="verify-", dir=home) as folder:
        try:
            with engine.snapshot() as snapshot:
                other = _engine(Path(folder))
                try:
                    found = care.verify(snapshot, other, chain=chain.chain)
                finally:
                    other.close()
                final = store.final_block(snapshot)
                final_row = None if final is None else store.row(snapshot, final)
        except StoreDamaged as error:
            raise _damaged(error) from error
    return {
        "chain": chain.chain.hex(),
        "verified": True,
        "blocks": found.blocks,
        "transactions": found.transactions,
        "votes": found.votes,
        "height": found.height,
        "tip": found.tip.hex(),
        "state_root": found.state_root.hex(),
        "finalized_height": final_row.height if final_row is not None else 0,
        "final_by_carried_votes": found.carried,
    }


_AGAIN = "lading start notices and fetches the chain again from the others"


def _damaged(error: StoreDamaged) -> LadingError:
    return LadingError(Reason.INTEGRITY, f"the chain's tables are damaged: {error.message}", hint=_AGAIN)


@contextlib.contextmanager
def _told_as_damage() -> Iterator[None]:
    try:
        yield
    except StoreDamaged as error:
        raise _damaged(error) from error


def roll_back(home: Path, height: int, *, dry_run: bool, name: str | None = None) -> dict[str, object]:
    """Takes a chain of this home back to a height; the node fetches what others have above it.

    Raises LadingError(NOT_FOUND | INTEGRITY), Refused(PRUNED).
    """
    with _opened(home, name) as (chain, engine):
        with engine.snapshot() as snapshot, _told_as_damage():
            before = store.lowest_height(snapshot) + len(care.kept_branch(snapshot)) - 1
            target, writes = care.roll_back(snapshot, height)
        if not dry_run:
            engine.write(writes)
    return {"chain": chain.chain.hex(), "height_before": before, "height": height, "tip": target.hex(), "dry_run": dry_run}


def rebuild_index(home: Path, name: str | None = None) -> dict[str, object]:
    """The index of heights anew from the blocks' rows, the tree of the state from its values where an older program kept another."""
    with _opened(home, name) as (chain, engine):
        with engine.snapshot() as snapshot:
            writes = [*care.rebuild_heights(snapshot), *store.rebuild_tree(snapshot)]
        if writes:
            engine.write(writes)
    return {"chain": chain.chain.hex(), "mended": len(writes)}


# --- as a file --------------------------------------------------------------------------------------------------------


def export_chain(home: Path, target: Path, name: str | None = None) -> dict[str, object]:
    """Every block from the first one to the tip in one file; it holds no secret. Raises LadingError(CONFLICT | FAILED)."""
    if target.exists():
        raise LadingError(Reason.CONFLICT, f"{target} exists; it is not overwritten", hint="lading ledger export ANOTHER-FILE")
    count = 0
    with _opened(home, name) as (chain, engine), engine.snapshot() as snapshot:
        part = target.with_name(target.name + ".part")
        try:
            with part.open("xb") as file:
                file.write(EXPORT_MAGIC + chain.chain)
                for block in care.bodies(snapshot, care.branch(snapshot)):
                    data = encode(block)
                    file.write(len(data).to_bytes(_LENGTH_BYTES, "big") + data)
                    count += 1
            part.replace(target)
        except OSError as error:
            raise LadingError(Reason.FAILED, f"{target}: {error.strerror}") from error
        except StoreDamaged as error:
            part.unlink(missing_ok=True)
            raise _damaged(error) from error
    return {"chain": chain.chain.hex(), "file": str(target), "blocks": count, "bytes": target.stat().st_size}


def import_chain(home: Path, source: Path, name: str | None = None) -> dict[str, object]:
    """Blocks from a file, judged like everybody else's. A home without a chain follows this one from now on, without a seat on it.

    Raises LadingError(INTEGRITY) naming the first block that does not hold, Refused(WRONG_CHAIN), LadingError(NOT_FOUND), UsageError.
    """
    with HomeLock(home), source.open("rb") as file:
        if file.read(len(EXPORT_MAGIC)) != EXPORT_MAGIC:
            raise InvalidObject(Reason.UNKNOWN_FORMAT, f"{source} is no exported chain")
        named = ChainId(file.read(32))
        further = _further_named(home, name)
        own = _chain_file(home, further)  # damaged: this file says again which chain it was; the keys' own record is checked at the start
        wanted = further if own is None else own.chain
        if wanted is not None and wanted != named:
            raise _other_chain(home, source, named)
        blocks = _blocks_of(file, source)
        first = next(blocks, None)
        if first is None:
            raise InvalidObject(Reason.INTEGRITY, f"{source} holds no block")
        engine = _engine(_database(home, further))
        try:
            found = care.replay(engine, _with_first(first, blocks), chain=named)
        except StoreDamaged as error:
            raise _damaged(error) from error
        finally:
            engine.close()
        if own is None:
            for one in chain_files(file_of_first(first), None, None, SystemEntropy()):
                write_private(chain_folder(home, further) / one.name, one.data)
    return {
        "chain": named.hex(),
        "blocks": found.blocks,
        "height": found.height,
        "tip": found.tip.hex(),
        "state_root": found.state_root.hex(),
    }


def _other_chain(home: Path, source: Path, named: ChainId) -> Refused:
    """named: which the file holds."""
    own = _chain_file(home, None)
    if own is not None and own.chain == named:
        hint = "that is the domain's chain: leave --chain out"
    elif named in further_chains(home):
        hint = f"this home follows it beside its domain's: lading ledger import FILE --chain {named.hex()}"
    else:
        hint = "lading ledger follow ANCHOR follows a chain beside the domain's"
    return Refused(Reason.WRONG_CHAIN, f"{source} holds another chain than the one it is to be imported to", hint=hint)


def _with_first(first: Block, rest: Iterator[Block]) -> Iterator[Block]:
    yield first
    yield from rest


def _blocks_of(file: object, source: Path) -> Iterator[Block]:
    while head := file.read(_LENGTH_BYTES):  # type: ignore[attr-defined]  # a binary file
        size = int.from_bytes(head, "big")
        data = file.read(size) if len(head) == _LENGTH_BYTES and size <= BLOCK_BYTES_MAX else b""  # type: ignore[attr-defined]
        if len(data) != size or not data:
            raise InvalidObject(Reason.INTEGRITY, f"{source} ends in the middle of a block")
        try:
            yield decode(data, Block, bytes_max=BLOCK_BYTES_MAX)
        except DecodeError as error:
            raise InvalidObject(Reason.INTEGRITY, f"{source} holds a block that is none: {error.message}") from error


# --- lost voting keys -------------------------------------------------------------------------------------------------


def recover_vote(home: Path, kit_text: str, *, passphrase: Passphrase) -> dict[str, object]:
    """A CouncilRecover that gives this member's seat a new voting key of this home, signed by the founder's recovery key from the kit.

    The key and its promises are made here, together. It waits in the pool of this home and goes out when the node starts.
    Raises Refused(WRONG_DOMAIN | NOT_MEMBER), LadingError(NOT_FOUND).
    """
    passphrase = asked_once(passphrase)
    kit = parse_kit(kit_text)
    with _opened(home) as (chain, engine):
        own = open_home(home, passphrase)
        if kit.domain is None or kit.domain.domain_id != own.domain_id:
            raise Refused(Reason.WRONG_DOMAIN, "a founder's kit of this home's domain is wanted")
        key = recovery_key(kit.domain.seed, own.domain_id)

        def ask() -> bytes:
            return passphrase() if callable(passphrase) else passphrase or b""

        seat = read_chain_key(home, ask)
        entropy = SystemEntropy()
        seat = fresh_chain_key(chain.chain, entropy) if seat is None else replace(seat, vote=entropy.token(32))
        with engine.snapshot() as snapshot:
            state = Overlay(store.ChainState(snapshot))
            council = state.load("chain", b"council", Council)
            final = store.final_block(snapshot)
            row = None if final is None else store.row(snapshot, final)
            if council is None or final is None or row is None:
                raise LadingError(Reason.NOT_FOUND, "no block is here yet", hint="lading start fetches the chain from the others")
            profile, genesis_ms = load_profile(state), genesis_time_ms(state)
        if key.public not in council.recovery:
            raise Refused(Reason.NOT_MEMBER, "this kit's recovery key is none of the council's")
        account = AccountId(own.member_id)
        member = council.member(account)
        if member is None:
            raise Refused(Reason.NOT_MEMBER, "this member has no seat on the council")
        now = int(SystemClock().now() * 1000)
        recovered = replace_member(council, CouncilMember(account, member.key, SigningKey(seat.vote).public))
        body = council_recover.Body(row.height, final, replace(recovered, sequence=council.sequence + 1))
        content = Content(
            version=ENVELOPE_VERSION,
            chain=chain.chain,
            kind=council_recover.KIND.number,
            sender=account,
            serial=NO_SERIAL,
            ts_ms=UnixMillis(now),
            until_ms=UnixMillis(now + profile.tx_life_ms),
            links=(),
            body=encode(body),
        )
        transaction = sign_transaction(content, [key])
        # The sealing key stays: where it is not known what it sealed last, it rests as long as a start without promises makes it.
        slot = slot_of(now, genesis_ms=genesis_ms, slot_ms=profile.slot_ms) + SLOTS_WITHOUT_PROMISE
        before = PromiseFile(home / IDENTITY_FOLDER / PROMISES_FILE).load()
        new = fresh(chain.chain)
        slot = slot if before is None else before.promises.sealed_slot
        kept = Kept(new.format, new.chain, replace(new.promises, sealed_slot=slot), True, ())
        protected = is_protected((home / IDENTITY_FOLDER / "node.key").read_bytes())
        secret = ask() if protected else None
        # Fresh promises last: beside a key that has voted they would let it vote twice, and so they would beside rotated ones.
        RotationFile(home / IDENTITY_FOLDER / ROTATIONS_FILE, chain.chain, _no_key).save(())
        files = chain_files(chain, seat, secret, entropy, kept=kept)
        for one in sorted(files, key=lambda file: file.name == PROMISES_FILE):
            write_private(home / IDENTITY_FOLDER / one.name, one.data)
        engine.write([store.put_own(transaction)])
    return {"chain": chain.chain.hex(), "transaction": transaction.id.hex(), "names_block": final.hex(), "height": row.height}


def _no_key(rotated: Rotated) -> SigningKey:
    raise AssertionError("no rotated key is used here")
