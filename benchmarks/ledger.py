"""What the ledger's pure rules cost: the state tree under one batch, blocks of small transactions, a search step, the head of a fork tree.

    python benchmarks/ledger.py [--runs 5] [--output FILE.json]

Each figure is the median of the runs, on one core, in a process of its own; nothing here touches a disk or a network.
"""

from __future__ import annotations

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from protocols.crypto import sha256
from protocols.ledger.carried import committee_at
from protocols.ledger.finality import BlockPoint, ForkTree
from protocols.ledger.seals.pow import ProofOfWork
from protocols.ledger.state import MemoryState, Overlay, prove_value, undo
from protocols.ledger.transactions.folder_update import Body
from protocols.types import BlockHash
from tests.protocols.ledger.chains import start

KEYS = 10_000
TRANSACTIONS = 200
NONCES = 4096
POINTS = 1000


def tree_batch() -> Callable[[], object]:
    """One batch of 10,000 new keys on a state of 10,000."""
    state = MemoryState()
    overlay = Overlay(state)
    for number in range(KEYS):
        overlay.put("space", number.to_bytes(4, "big"), b"before")
    state.commit(overlay.change())

    def run() -> object:
        batch = Overlay(state)
        for number in range(KEYS // 2, KEYS // 2 + KEYS):
            batch.put("space", number.to_bytes(4, "big"), b"after")
        return batch.change()

    return run


def tree_undo() -> Callable[[], object]:
    """The undo of that batch."""
    state = MemoryState()
    overlay = Overlay(state)
    for number in range(KEYS):
        overlay.put("space", number.to_bytes(4, "big"), b"value")
    change = overlay.change()
    state.commit(change)
    return lambda: undo(state, change.undo)


def tree_proof() -> Callable[[], object]:
    """One proof in a state of 10,000 keys."""
    state = MemoryState()
    overlay = Overlay(state)
    for number in range(KEYS):
        overlay.put("space", number.to_bytes(4, "big"), b"value")
    state.commit(overlay.change())
    return lambda: prove_value(state, "space", (77).to_bytes(4, "big"))


def block_of_transactions() -> Callable[[], object]:
    """Judging a block of 200 signed transactions, signatures and state root included."""
    chain = start()
    block = chain.make([chain.by("ann", "FolderUpdate", Body(f"{number}", bytes(32), bytes(32), 1)) for number in range(TRANSACTIONS)])
    return lambda: chain.judge(block)


def empty_block() -> Callable[[], object]:
    """Judging an empty block."""
    chain = start()
    block = chain.make()
    return lambda: chain.judge(block)


def search_step() -> Callable[[], object]:
    """One step of a search that finds nothing: what a sealer waits at most before it lets go."""
    header = start().header
    return lambda: ProofOfWork().search(header, 0, first=0, count=NONCES)


def head_of_forks() -> Callable[[], object]:
    """Adding 1,000 blocks that are not final, two branches, and asking for the head after each."""
    committee = committee_at(start().state, 0)

    def run() -> object:
        root = BlockPoint(BlockHash(bytes(32)), BlockHash(b"\1" * 32), 0, 0, 0, committee)
        tree = ForkTree(root)
        tips = [root, root]
        for number in range(POINTS):
            parent = tips[number % 2]
            name = BlockHash(sha256(number.to_bytes(4, "big")))
            tips[number % 2] = BlockPoint(name, parent.hash, parent.height + 1, number + 1, parent.work + 1, committee)
            tree.add_block(tips[number % 2])
            tree.head()
        return tree

    return run


MEASURES = (tree_batch, tree_undo, tree_proof, block_of_transactions, empty_block, search_step, head_of_forks)


def measure(prepare: Callable[[], Callable[[], object]], runs: int) -> float:
    """Median milliseconds of a run."""
    run = prepare()
    run()
    taken = []
    for _ in range(runs):
        began = time.perf_counter()
        run()
        taken.append((time.perf_counter() - began) * 1000)
    return statistics.median(taken)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--output", type=Path)
    arguments = parser.parse_args()
    found = {prepare.__name__: round(measure(prepare, arguments.runs), 3) for prepare in MEASURES}
    text = json.dumps({"machine": platform.machine(), "python": platform.python_version(), "median_ms": found}, indent=1)
    print(text)
    if arguments.output:
        arguments.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
