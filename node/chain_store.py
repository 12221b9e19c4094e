"""The chain of a home whose node stands still: verified, taken back, its index rebuilt, exported, imported, its voting key replaced."""

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
from protocols.ledger.envelope import ENVELOPE_VERSION, NO_SERIAL, Content, sign_transaction
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

from .chain_home import PROMISES_FILE, ROTATIONS_FILE, ChainFile, chain_files, file_of_first, read_chain_file, read_chain_key
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
def _opened(home: Path) -> Iterator[tuple[ChainFile, LmdbEngine]]:
    """The chain and the database of a home, alone with it. Raises Refused(LOCKED), LadingError(NOT_FOUND)."""
    with HomeLock(home):
        chain = read_chain_file(home)
        if chain is None:
            raise LadingError(Reason.NOT_FOUND, f"{home} follows no chain", hint="lading ledger import FILE brings it one")
        engine = _engine(home / LEDGER_FOLDER)
        try:
            with engine.snapshot() as snapshot:
                if light.trust(snapshot) is not None:
                    raise LadingError(Reason.NOT_KEPT, f"{home} is a light node's: it keeps no chain", hint="lading config set ledger full")
            yield chain, engine
        finally:
            engine.close()


def _engine(path: Path) -> LmdbEngine:
    return LmdbEngine(path, Env.LEDGER, budget_bytes=LEDGER_BUDGET_BYTES, reserve_bytes=LEDGER_RESERVE_BYTES)


def verify(home: Path) -> dict[str, object]:
    """Judges the whole chain again from its first block, in a database of its own, and compares state and tip with what stands here.

    Raises LadingError(INTEGRITY) naming the first thing that does not hold.
    """
    with _opened(home) as (chain, engine), tempfile.TemporaryDirectory(prefix="verify-", dir=home) as folder:
        try:
            with engine.snapshot() as snapshot:
                store.check(snapshot)
                path = care.branch(snapshot)
                if not path:
                    raise LadingError(Reason.NOT_FOUND, "no block is here yet", hint="lading start fetches the chain from the others")
                root = store.ChainState(snapshot).root
                final = store.final_block(snapshot)
                final_row = None if final is None else store.row(snapshot, final)
                other = _engine(Path(folder))
                try:
                    found = care.replay(other, care.bodies(snapshot, path), chain=chain.chain)
                finally:
                    other.close()
        except StoreDamaged as error:
            raise _damaged(error) from error
    if (found.tip, found.state_root) != (path[-1], root):
        raise LadingError(Reason.INTEGRITY, "the chain here does not lead to the state here", hint=_AGAIN)
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


def roll_back(home: Path, height: int, *, dry_run: bool) -> dict[str, object]:
    """Takes the chain of this home back to a height; the node fetches what others have above it.

    Raises LadingError(NOT_FOUND | INTEGRITY), Refused(PRUNED).
    """
    with _opened(home) as (chain, engine):
        with engine.snapshot() as snapshot, _told_as_damage():
            before = store.lowest_height(snapshot) + len(care.kept_branch(snapshot)) - 1
            target, writes = care.roll_back(snapshot, height)
        if not dry_run:
            engine.write(writes)
    return {"chain": chain.chain.hex(), "height_before": before, "height": height, "tip": target.hex(), "dry_run": dry_run}


def rebuild_index(home: Path) -> dict[str, object]:
    """The index of heights anew from the blocks' rows, the tree of the state from its values where an older program kept another."""
    with _opened(home) as (chain, engine):
        with engine.snapshot() as snapshot:
            writes = [*care.rebuild_heights(snapshot), *store.rebuild_tree(snapshot)]
        if writes:
            engine.write(writes)
    return {"chain": chain.chain.hex(), "mended": len(writes)}


# --- as a file --------------------------------------------------------------------------------------------------------


def export_chain(home: Path, target: Path) -> dict[str, object]:
    """Every block from the first one to the tip in one file; it holds no secret. Raises LadingError(CONFLICT | FAILED)."""
    if target.exists():
        raise LadingError(Reason.CONFLICT, f"{target} exists; it is not overwritten", hint="lading ledger export ANOTHER-FILE")
    count = 0
    with _opened(home) as (chain, engine), engine.snapshot() as snapshot:
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


def import_chain(home: Path, source: Path) -> dict[str, object]:
    """Blocks from a file, judged like everybody else's. A home without a chain follows this one from now on, without a seat on it.

    Raises LadingError(INTEGRITY) naming the first block that does not hold, Refused(WRONG_CHAIN).
    """
    with HomeLock(home), source.open("rb") as file:
        if file.read(len(EXPORT_MAGIC)) != EXPORT_MAGIC:
            raise InvalidObject(Reason.UNKNOWN_FORMAT, f"{source} is no exported chain")
        named = ChainId(file.read(32))
        try:
            own = read_chain_file(home)
        except InvalidObject:
            own = None  # damaged: this file says again which chain it was, and the keys' own record of it is checked at the start
        if own is not None and own.chain != named:
            raise Refused(Reason.WRONG_CHAIN, f"{source} holds another chain than this home follows")
        blocks = _blocks_of(file, source)
        first = next(blocks, None)
        if first is None:
            raise InvalidObject(Reason.INTEGRITY, f"{source} holds no block")
        engine = _engine(home / LEDGER_FOLDER)
        try:
            found = care.replay(engine, _with_first(first, blocks), chain=named)
        except StoreDamaged as error:
            raise _damaged(error) from error
        finally:
            engine.close()
        if own is None:
            for one in chain_files(file_of_first(first), None, None, SystemEntropy()):
                write_private(home / IDENTITY_FOLDER / one.name, one.data)
    return {
        "chain": named.hex(),
        "blocks": found.blocks,
        "height": found.height,
        "tip": found.tip.hex(),
        "state_root": found.state_root.hex(),
    }


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
