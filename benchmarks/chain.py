"""The ledger's rows of docs/PERFORMANCE.md: transactions made durable, replay, search, proofs, batches; each with its bound beside it.

The node's own rules, in one thread but where it says so, and LMDB on the disk of the temporary folder; everything is signed, drafted and
padded before a clock starts. The state is padded with values of the size of a record, through the tree, as blocks would have left it.
"""

from __future__ import annotations

import hashlib
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from node.run import tune_interpreter
from protocols.codec import encode
from protocols.crypto import SigningKey, forget_verified, sha256, verify_raw
from protocols.ledger.ahead import verify_ahead
from protocols.ledger.block import Block, decode_block
from protocols.ledger.schedule import RULES_1
from protocols.ledger.seals.port import Found
from protocols.ledger.seals.pow import ProofOfWork
from protocols.ledger.state import MemoryState, StateChange, StateView, check_value, prove_value
from protocols.ledger.state import Overlay as StateOverlay
from protocols.ledger.transactions.folder_update import Body
from protocols.limits import SEARCH_STEP_NONCES
from storage import chain as store
from storage.chain_state import state_writes
from storage.engine import Delete, Env, Put, Snapshot, Write
from storage.lmdb_engine import LmdbEngine
from storage.overlay import Overlay
from storage.tables import CHAIN_STATE
from tests.protocols.ledger.chains import Chain, start

from .harness import Row, settle

KEYS_APPLIED = 100_000
KEYS_PROVED = 1_000_000
BATCH_TRANSACTIONS = 500
BLOCK_TRANSACTIONS = 250  # 500 anchors are 372 KB: two blocks, judged and committed together, as the actor does with what waits
REPLAY_BLOCKS = 1000
REPLAY_TRANSACTIONS = 10
VALUE_BYTES = 400
PADDING_STEP = 100_000
PADDING = "record"
BUDGET_BYTES = 16 * 1024**3


def _padding_key(number: int) -> bytes:
    return sha256(b"owner", number.to_bytes(8, "big")) + sha256(b"record", number.to_bytes(8, "big"))


def _writes(snapshot: Snapshot, change: StateChange, name: str) -> list[Write]:
    """Values, rows of the tree, root, and what the state before still needs: as the chain's store writes them after a block."""
    overlay = Overlay(snapshot)
    overlay.add(state_writes(change, 0, sha256(name.encode())))
    return overlay.writes


def _open(folder: str) -> LmdbEngine:
    return LmdbEngine(Path(folder), Env.LEDGER, budget_bytes=BUDGET_BYTES, reserve_bytes=0)


def _keep(engine: LmdbEngine, chain: Chain, blocks: Sequence[Block]) -> None:
    """Judged one after the other, one durable commit."""
    with engine.snapshot() as snapshot:
        overlay = Overlay(snapshot)
        for block in blocks:
            if block.info.height:
                store.execute(overlay, block, chain=chain.chain)
            else:
                store.begin(overlay, block, chain=chain.chain)
    engine.write(overlay.writes)


def _padded(engine: LmdbEngine, keys: int, reference: MemoryState | None = None) -> None:
    """So many values more in the state; the same in ``reference``, which stands at the same block."""
    for first in range(0, keys, PADDING_STEP):
        with engine.snapshot() as snapshot:
            writes = _writes(snapshot, _padding(store.ChainState(snapshot), first, min(keys, first + PADDING_STEP)), f"padding {first}")
        engine.write(writes)
        if reference is not None:
            reference.commit(_padding(reference, first, min(keys, first + PADDING_STEP)))


def _padding(view: StateView, first: int, end: int) -> StateChange:
    overlay = StateOverlay(view)
    for number in range(first, end):
        overlay.put(PADDING, _padding_key(number), sha256(number.to_bytes(8, "big")) + bytes(VALUE_BYTES - 32))
    return overlay.change()


def _verify_rate() -> float:
    """Bare Ed25519 verifications a second of processor time, public key from its bytes each time."""
    key = SigningKey(bytes(32))
    messages = [number.to_bytes(100, "big") for number in range(2000)]
    signatures = [key.sign_raw(message) for message in messages]
    forget_verified()
    began = time.process_time()
    for message, signature in zip(messages, signatures, strict=True):
        verify_raw(key.public, signature, message)
    return len(messages) / (time.process_time() - began)


def _keep_ahead(engine: LmdbEngine, chain: Chain, blocks: Sequence[Block]) -> None:
    """``_keep`` as a node does it: a second thread verifies ahead of the judge."""
    made = [one for block in blocks for one in reversed(block.transactions)]
    ended = threading.Event()
    ahead = threading.Thread(target=lambda: verify_ahead(made, chain.profile.network, RULES_1.kinds, is_over=ended.is_set))
    ahead.start()
    try:
        _keep(engine, chain, blocks)
    finally:
        ended.set()
        ahead.join()


def applied(runs: int) -> list[Row]:
    """Batches of 500 RecordAnchors on a state of 10^5 keys, in turns as a node judges them and in one thread. Each anchor has two
    signatures: transaction and statement."""
    share = Row("chain_apply", "anchors validated, applied and durable at 10^5 keys, rate over bare Ed25519 verify", "", "0.25", "0.4")
    alone = Row("chain_apply_alone", "the same in one thread; an anchor has two signatures, so at most 0.5", "", "", "")
    busy = Row("chain_apply_processor", "the same in one thread, by processor time", "", "", "")
    chain = start()
    with tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        engine = _open(folder)
        _keep(engine, chain, chain.blocks)
        _padded(engine, KEYS_APPLIED, chain.view)
        batches: list[list[Block]] = []
        for run in range(2 * runs):
            names = [f"{run}/{number}" for number in range(BATCH_TRANSACTIONS)]
            anchors = [chain.by("ann", "RecordAnchor", chain.anchor("ann", name)) for name in names]
            blocks = []
            for first in range(0, BATCH_TRANSACTIONS, BLOCK_TRANSACTIONS):
                chain.add(*anchors[first : first + BLOCK_TRANSACTIONS])
                blocks.append(chain.blocks[-1])
            batches.append(blocks)
        for number, blocks in enumerate(batches):
            is_alone = number % 4 in (1, 2)
            settle()
            rate = _verify_rate()
            fresh = [decode_block(encode(block)) for block in blocks]  # nothing that was computed of them before is at hand
            forget_verified()
            wall, processor = time.perf_counter(), time.process_time()
            (_keep if is_alone else _keep_ahead)(engine, chain, fresh)
            wall, processor = time.perf_counter() - wall, time.process_time() - processor
            row = alone if is_alone else share
            row.add(BATCH_TRANSACTIONS / wall / rate, None, anchors_s=round(BATCH_TRANSACTIONS / wall), verifications_s=round(rate))
            if is_alone:
                busy.add(BATCH_TRANSACTIONS / processor / rate, None, anchors_s=round(BATCH_TRANSACTIONS / processor))
        engine.close()
    return [share, alone, busy]


def replayed(runs: int) -> list[Row]:
    """1,000 blocks of 10 transactions read from one store and judged into another, one durable commit a block."""
    row = Row("chain_replay", "replay of 1,000 blocks of 10 transactions from disk, every block durable", "s", "60", "15")
    chain = start(term_blocks=100)
    with tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        source = _open(f"{folder}/source")
        _keep(source, chain, chain.blocks)
        for height in range(REPLAY_BLOCKS):
            bodies = [Body(f"{height}/{number}", bytes(32), bytes(32), 1) for number in range(REPLAY_TRANSACTIONS)]
            chain.add(*(chain.by("ann", "FolderUpdate", body) for body in bodies))
            _keep(source, chain, chain.blocks[-1:])
        names = [block.hash for block in chain.blocks]
        for run in range(min(runs, 3)):
            target = _open(f"{folder}/target{run}")
            settle()
            forget_verified()
            began, processor = time.perf_counter(), time.process_time()
            for name in names:
                with source.snapshot() as snapshot:
                    block = store.block(snapshot, name)
                assert block is not None
                _keep(target, chain, [block])
            row.add(time.perf_counter() - began, None, processor_s=round(time.process_time() - processor, 2))
            target.close()
        source.close()
    return [row]


def searched(runs: int) -> list[Row]:
    """One miner thread's search against a bare loop with a kept midstate."""
    row = Row("chain_search", "header search of one thread, rate over a bare hashlib loop with a kept midstate", "", "0.9", "")
    header = start().header
    count = 1 << 18

    def ours() -> float:
        began, first = time.process_time(), 0
        while first < count:
            step = ProofOfWork().search(header, 0, first=first, count=SEARCH_STEP_NONCES)
            assert not isinstance(step, Found)
            first = step.next_nonce
        return count / (time.process_time() - began)

    def bare() -> float:
        prefix = hashlib.sha256(header.without_nonce)
        wanted = bytes(32)
        began = time.process_time()
        for nonce in range(count):
            attempt = prefix.copy()
            attempt.update(nonce.to_bytes(8, "big"))
            if attempt.digest() <= wanted:
                break
        return count / (time.process_time() - began)

    for run in range(runs):
        second = bare() if run % 2 else 0.0
        first = ours()
        second = second or bare()
        row.add(first / second, None, ours_per_s=round(first), bare_per_s=round(second))
    return [row]


def proved(runs: int) -> list[Row]:
    """Proofs and batches on a state of 10^6 keys in LMDB."""
    size = Row("chain_proof_bytes", "state proof at 10^6 keys, the largest of 1,000", "B", "2048", "1024")
    check = Row("chain_proof_ms", "the same, checked", "ms", "1", "0.3")
    batch = Row("chain_batch", "durable batch of 1,000 keys at 10^6 keys", "ms", "250", "100")
    sync = Row("chain_batch_bound", "bound of it: 1,000 puts of 400 bytes, sorted, in one durable commit", "ms", "", "")
    chain = start()
    with tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        engine = _open(folder)
        _keep(engine, chain, chain.blocks)
        _padded(engine, KEYS_PROVED)
        with engine.snapshot() as snapshot:
            view = store.ChainState(snapshot)
            proofs, times = [], []
            for number in range(0, KEYS_PROVED, KEYS_PROVED // 1000):
                key = _padding_key(number)
                proof = prove_value(view, PADDING, key)
                value = view.get(PADDING, key)
                began = time.perf_counter()
                check_value(view.root, PADDING, key, value, proof)
                times.append((time.perf_counter() - began) * 1000)
                proofs.append(len(encode(proof)))
            size.add(max(proofs), None, median=statistics.median(proofs))
            check.add(statistics.median(times), None, highest=round(max(times), 3))
        for run in range(runs):
            settle()
            batch.add(_timed_ms(lambda run=run: _change_keys(engine, run)))  # type: ignore[misc]
            settle()
            values = [Put(CHAIN_STATE, b"\x05bound" + _padding_key(number), bytes(VALUE_BYTES)) for number in range(1000)]
            values.sort(key=lambda put: put.key)
            sync.add(_timed_ms(lambda values=values: engine.write(values)))  # type: ignore[misc]
            engine.write([Delete(put.table, put.key) for put in values])
        engine.close()
    return [size, check, batch, sync]


def _change_keys(engine: LmdbEngine, run: int) -> None:
    """Half of them new, half of them there."""
    with engine.snapshot() as snapshot:
        overlay = StateOverlay(store.ChainState(snapshot))
        for number in range(500):
            overlay.put(PADDING, _padding_key(number * 1999 + run), run.to_bytes(8, "big") * (VALUE_BYTES // 8) + b"x")
            overlay.put(PADDING, _padding_key(KEYS_PROVED + run * 500 + number), bytes(VALUE_BYTES))
        writes = _writes(snapshot, overlay.change(), f"run {run}")
    engine.write(writes)


def _timed_ms(act: Callable[[], None]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1000


def chain_rows(runs: int) -> list[Row]:
    """All of them, in a process that is tuned as a node's is."""
    tune_interpreter()
    return [*applied(runs), *replayed(runs), *searched(runs), *proved(runs)]
