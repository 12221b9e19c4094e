"""The ledger through real nodes: anchors committed a second, times to block and final, a node that comes late, terms, memory, bursts.

Every process of a network shares this machine's cores, so rates are given with the processor seconds that all nodes spend for one
transaction: a rate on one machine is what is left of its cores divided by that.
"""

from __future__ import annotations

import itertools
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from protocols.crypto import sha256
from protocols.ledger.block import Header
from protocols.ledger.envelope import Transaction
from protocols.ledger.seals.port import Found
from protocols.ledger.seals.pow import ProofOfWork
from protocols.limits import LISTEN_FIRST_MS, SEARCH_STEP_NONCES
from protocols.types import BlockHash, Digest, UnixMillis
from tests.simulation.models.spreading import BODY_BYTES, Spreading

from .harness import Row, RunningNode, TestNet, call_at_once, documents, load_of, memory_now, processor_s, settle
from .sealed import seal_chain
from .signed import Watching, heights_of, mean_ms, offer, read_signers, sign_anchor, sign_many, wait_drained

SIGNERS = ("--signers", "64")
OFFERED = (50, 100, 150, 200, 250, 300, 350)
STEP_S = 4.0
FLOOD_PER_S = 400.0
FLOOD_COUNT = 2400
HALF_S = 6.0
PUT_RECORDS = 300
PATIENCE_S = 60.0
RECORDS = int(os.environ.get("BENCH_LEDGER_RECORDS", "10000"))
FILL_PER_S = 300.0
TERM_BLOCKS = 12
TRICKLE_PER_S = 10.0
MEMORY_TRANSACTIONS = int(os.environ.get("BENCH_LEDGER_TRANSACTIONS", "100000"))
MEMORY_BLOCK = 250
MEMORY_SLOT_MS = 250
MEMORY_PATIENCE_S = 600.0
MEMORY_REST_S = 10.0
IDLE_CORES = 0.05
BATCH = 384
BURST_NODES = 10
BURST_COUNT = 1000
RACE_MINERS = 5
RACE_BLOCKS = 1000
RACE_BITS = 12
DAY_S = 86_400
GOSSIP_NODES = ((5, 200), (20, 200), (100, 100), (500, 40))


def _listened() -> None:
    """Nodes neither seal nor vote before they have listened for a while."""
    time.sleep(LISTEN_FIRST_MS / 1000 + 2)


def _status(node: RunningNode) -> dict[str, Any]:
    found: dict[str, Any] = node.call("ledger.status")["chains"][0]  # type: ignore[index]
    return found


# --- P5, P6, P22 ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Step:
    """One load. rate: committed a second, between the first block and the last one. Times in ms, mean over the transactions."""

    offered: float
    count: int
    rate: float
    block_ms: float
    final_ms: float
    processor_ms: float
    others_cores: float


def _load(net: TestNet, watching: Watching, signed: Sequence[tuple[str, str]], per_s: float) -> Step:
    """Offers all of them and waits until they are final. Raises RuntimeError when one is refused or lost."""
    since = max(one.top for one in watching.of)
    used = sum(map(processor_s, net.pids))
    with load_of(net.pids) as load:
        handed = offer(net.nodes, signed, per_s)
        if handed.refused:
            raise RuntimeError(f"{len(handed.refused)} refused: {handed.refused[0]}")
        top = wait_drained(net.nodes, watching, PATIENCE_S)
    used = sum(map(processor_s, net.pids)) - used
    found = heights_of(net.nodes[0], range(since + 1, top + 1))
    at = {name: found[name] for name, _ in signed}  # a KeyError: it is in no block
    heights = sorted(set(at.values()))
    reached = {height: max(one.head_at[height] for one in watching.of) for height in (heights[0], heights[-1])}
    first = sum(height == heights[0] for height in at.values())
    span = reached[heights[-1]] - reached[heights[0]]
    block = [watching.of[handed.node[name]].head_at[height] - handed.at[name] for name, height in at.items()]
    final = [watching.of[handed.node[name]].final_at[height] - handed.at[name] for name, height in at.items()]
    rate = (len(at) - first) / span if span else 0.0
    return Step(per_s, len(at), rate, mean_ms(block), mean_ms(final), used / len(at) * 1000, load.others_cores)


def _put_rate(net: TestNet, folder: Path) -> float:
    """Anchors committed a second when records are put at all nodes at once: from the first call to the last one's block."""
    paths = documents(folder / "put", PUT_RECORDS, 4711, lambda _: 4096)
    heights = [_status(node)["height"] for node in net.nodes]
    began = time.perf_counter()
    share = len(paths) // len(net.nodes)
    for index, node in enumerate(net.nodes):
        mine = [str(path) for path in paths[index * share : (index + 1) * share]]
        call_at_once(node.home, "put", [{"paths": mine, "each": True, "ack": "quorum"}])
    done, looked = 0, max(heights)
    while done < share * len(net.nodes):
        if time.perf_counter() - began > PATIENCE_S:
            raise RuntimeError(f"{done} of {len(paths)} records are on the chain after {PATIENCE_S:.0f} s")
        time.sleep(0.2)
        while looked < _status(net.nodes[0])["height"]:
            looked += 1
            kinds = net.nodes[0].call("ledger.history", limit=1, before=looked + 1)["blocks"][0]["kinds"]  # type: ignore[index]
            done += sum(kind == "RecordAnchor" for kind in kinds)
    return done / (time.perf_counter() - began)


def anchors(runs: int) -> tuple[list[Row], list[Step]]:
    """Rising loads through five nodes, then more than they can, then half of what they could; and what `put` makes of it."""
    rate = Row(
        "p5_rate", f"P5: RecordAnchors committed a second through five nodes on this machine, {OFFERED[-1]} offered", "/s", "100", "300"
    )
    day = Row("p22_day", "P22: the same in a day", "million", "8.6", "25.9")
    work = Row("p5_processor", "processor of all five nodes for one anchor at that load", "ms", "", "")
    block = Row("p6_block", "P6: from the call that hands it over to the block, mean, at half saturation, slot 1 s", "ms", "1500", "1100")
    final = Row("p6_final", "P6: to final", "ms", "3000", "2200")
    swamped = Row("p5_swamped", f"P5 when {FLOOD_COUNT} come at {FLOOD_PER_S:.0f} a second, more than they can for longer", "/s", "", "")
    driven = Row("p5_put", f"P5 driven by `put`: {PUT_RECORDS} records of 4 KiB at five nodes, call to block of the last", "/s", "", "")
    steps: list[Step] = []
    with TestNet(5, options=SIGNERS) as net, tempfile.TemporaryDirectory(prefix="lading-bench-") as folder:
        signers = read_signers(net.homes)
        batches = [sign_many(signers, int(per_s * STEP_S), f"step{per_s}") for per_s in OFFERED]
        again = [sign_many(signers, int(OFFERED[-1] * STEP_S), f"again{run}") for run in range(min(runs, 2))]
        flood = sign_many(signers, FLOOD_COUNT, "flood")
        _listened()
        watching = Watching(net.nodes)
        for per_s, batch in zip(OFFERED, batches, strict=True):
            settle()
            steps.append(_load(net, watching, batch, per_s))
            print(f"  offered {per_s}/s: {steps[-1]}", flush=True)
        for step in (steps[-1], *(_load(net, watching, batch, OFFERED[-1]) for batch in again)):
            rate.add(step.rate, None, others_cores=step.others_cores, final_ms=round(step.final_ms))
            day.add(step.rate * DAY_S / 1e6)
            work.add(step.processor_ms)
        swamped.add(_load(net, watching, flood, FLOOD_PER_S).rate)
        half = rate.median / 2
        for run in range(min(runs, 2)):
            settle()
            step = _load(net, watching, sign_many(signers, int(half * HALF_S), f"half{run}"), half)
            block.add(step.block_ms, None, offered=round(half), others_cores=step.others_cores)
            final.add(step.final_ms)
        driven.add(_put_rate(net, Path(folder)))
    rate.notes.append(json.dumps({"steps": [[step.offered, round(step.rate, 1)] for step in steps]}))
    block.notes.append(json.dumps({"steps": [[s.offered, s.count, round(s.block_ms), round(s.final_ms)] for s in steps]}))
    rate.notes.append(
        f"five processes share {os.cpu_count()} cores; a core of its own for each would carry about 1000 / (p5_processor / 5) a second"
    )
    return [rate, day, work, block, final, driven, swamped], steps


# --- P21, P23 -------------------------------------------------------------------------------------------------------


def late_node() -> list[Row]:
    """Four of five miners keep 10,000 records; the fifth starts with the first block only, reaches the head, hands over, is seated."""
    head = Row("p23_head", f"P23: fresh node from its start to the head at {RECORDS} records, over the network", "s", "60", "15")
    term = Row("p21_term", f"P21: first block of a new term after the last of the old, hand-over at {RECORDS} records", "slots", "5", "2")
    seated = Row("p21_seated", "P21: terms until the late node was on the list of miners again, by its hand-over", "terms", "", "")
    with TestNet(5, options=(*SIGNERS, "--term-blocks", str(TERM_BLOCKS)), start_only=4) as net:
        signers = read_signers(net.homes)
        batch = sign_many(signers, RECORDS, "fill")
        _listened()
        watching = Watching(net.nodes)
        handed = offer(net.nodes, batch, FILL_PER_S)
        if handed.refused:
            raise RuntimeError(f"{len(handed.refused)} refused: {handed.refused[0]}")
        wait_drained(net.nodes, watching, PATIENCE_S)
        filled = _status(net.nodes[0])["height"]
        began = time.perf_counter()
        late = net.start("n5")
        net.nodes.append(late)
        used = 0.0
        while _status(late)["height"] < filled:
            if time.perf_counter() - began > PATIENCE_S * 2:
                raise RuntimeError(f"the late node is at {_status(late)['height']} of {filled}")
            time.sleep(0.1)
        used = processor_s(late.pid)
        head.add(time.perf_counter() - began, None, blocks=filled, processor_s=round(used, 2))
        opened = _status(late)["term"]
        account = str(late.call("miner.status")["here"]["account"])  # type: ignore[index]
        deadline = time.monotonic() + 90
        trickle = iter(range(10_000))
        while account not in _status(late)["miners"] or _status(late)["term"] < opened + 3:
            if time.monotonic() > deadline:
                break
            offer(net.nodes, sign_many(signers, int(TRICKLE_PER_S), f"more{next(trickle)}"), TRICKLE_PER_S)
        blocks = _lines(late, filled + 1, int(_status(late)["height"]))
        if account in _status(late)["miners"]:
            seated.add(_status(late)["term"] - opened)
    for (_, slot, before), (height, next_slot, after) in itertools.pairwise(blocks):
        if after != before:
            term.add(next_slot - slot, None, height=height, term=after)
    return [head, term, seated]


def _lines(node: RunningNode, first: int, last: int) -> list[tuple[int, int, int]]:
    """(height, slot, term) of blocks."""
    found = []
    for height in range(first, last + 1):
        data: Any = node.call("ledger.show", what=str(height))
        found.append((height, int(data["slot"]), int(data["term"])))
    return found


# --- P9 -------------------------------------------------------------------------------------------------------------


def race() -> list[Row]:
    """Real searches of real headers. Both find a block in the same time on equal machines: a race of m at a target m times harder."""
    share = Row(
        "p9_hashes", f"P9: hashes for a block, over those of an open race of {RACE_MINERS} at equal block interval", "", "0.24", "0.2"
    )
    share.notes.append(f"floor 1.2 / {RACE_MINERS}, aim 1 / {RACE_MINERS}; {RACE_BLOCKS} blocks of each; nobody's hashes are lost to delay")
    target = (1 << (256 - RACE_BITS)) - 1
    for run in range(3):
        ours = sum(_searched(_header(run, number, 0), target) for number in range(RACE_BLOCKS))
        # Who is first ends it: the others have done as many as the winner by then.
        raced = 0
        for number in range(RACE_BLOCKS):
            raced += RACE_MINERS * _first_of([_header(run, number, 1 + miner) for miner in range(RACE_MINERS)], target // RACE_MINERS)
        share.add(ours / raced, None, ours=round(ours / RACE_BLOCKS), race=round(raced / RACE_BLOCKS))
    return [share]


def _header(run: int, number: int, miner: int) -> Header:
    name = run.to_bytes(4, "big") + number.to_bytes(4, "big") + miner.to_bytes(4, "big")
    return Header(UnixMillis(number), Digest(sha256(b"root", name)), 1, BlockHash(sha256(b"parent", name)), 0)


def _searched(header: Header, target: int) -> int:
    """How many nonces are tried until one fits."""
    first = 0
    while True:
        step = ProofOfWork().search(header, target, first=first, count=SEARCH_STEP_NONCES)
        if isinstance(step, Found):
            return step.nonce + 1
        first = step.next_nonce


def _first_of(headers: Sequence[Header], target: int) -> int:
    """How many each of them has tried when the first one finds."""
    first = 0
    while True:
        steps = [ProofOfWork().search(header, target, first=first, count=SEARCH_STEP_NONCES) for header in headers]
        found = [step.nonce + 1 for step in steps if isinstance(step, Found)]
        if found:
            return min(found)
        first += SEARCH_STEP_NONCES


# --- memory ---------------------------------------------------------------------------------------------------------


def chain_memory() -> list[Row]:
    """A chain of so many is made with two nodes' keys (`sealed`); one starts on it, the other one fetches and judges all of it from there;
    then both rest; then the other one is started again and rests.

    Handing them over to one running node takes ten times as long: it drafts during a fifth of each of its slots and waits for the rest.
    """
    idle = Row(
        "chain_memory", f"memory of a full node that fetched and judged {MEMORY_TRANSACTIONS} transactions, idle", "MiB", "200", "130"
    )
    idle.notes.append("RssAnon + RssShmem")
    again = Row("chain_memory_started", "the same after a start, idle", "MiB", "", "")
    took = Row("chain_memory_fetched", "rate at which it fetched and judged them", "/s", "", "")
    blocks = MEMORY_TRANSACTIONS // MEMORY_BLOCK
    with TestNet(2, options=(*SIGNERS, "--slot-ms", str(MEMORY_SLOT_MS)), start_only=0) as net:
        signers = read_signers(net.homes)

        def anchors_of(index: int, at_ms: int) -> list[Transaction]:
            return [
                sign_anchor(signers, signers.signers[number % len(signers.signers)], f"{index}/{number}", at_ms)
                for number in range(MEMORY_BLOCK)
            ]

        began = time.perf_counter()
        given = seal_chain([net.homes / "n1", net.homes / "n2"], blocks, anchors_of)
        print(f"  {given} transactions in {blocks} blocks made in {time.perf_counter() - began:.0f} s", flush=True)
        net.nodes.append(net.start("n1"))
        late = net.start("n2")
        net.nodes.append(late)
        began = time.perf_counter()
        while _status(late)["height"] < blocks:
            if time.perf_counter() - began > MEMORY_PATIENCE_S:
                raise RuntimeError(f"it has {_status(late)['height']} of {blocks} blocks")
            time.sleep(0.2)
        took.add(given / (time.perf_counter() - began), None, processor_s=round(processor_s(late.pid), 1))
        while _status(late)["finalized_height"] < blocks:
            if time.perf_counter() - began > MEMORY_PATIENCE_S:
                raise RuntimeError(f"final is {_status(late)['finalized_height']} of {blocks}")
            time.sleep(0.5)
        idle.add(_resting_mib(late), None, blocks=_status(late)["height"], beside_it=round(_resting_mib(net.nodes[0])))
        late.process.terminate()
        late.process.wait(20)
        late.process = net.start("n2").process
        net.wait_connected()
        again.add(_resting_mib(late), None, blocks=_status(late)["height"])
    return [idle, again, took]


def _resting_mib(node: RunningNode) -> float:
    """Of a node that has done next to nothing for a while. Raises RuntimeError when it does not come to rest."""
    deadline = time.perf_counter() + MEMORY_PATIENCE_S
    while time.perf_counter() < deadline:
        used = processor_s(node.pid)
        time.sleep(MEMORY_REST_S)
        if processor_s(node.pid) - used < MEMORY_REST_S * IDLE_CORES:
            return memory_now(node.pid).own_mib
    raise RuntimeError(f"{node.name} works on")


# --- bursts ---------------------------------------------------------------------------------------------------------


def burst(runs: int) -> list[Row]:
    """1,000 transactions from one of ten nodes, no block meanwhile: slots of ten minutes. Each run has another sender; in the last
    one a node is killed in the middle."""
    share = Row(
        "burst_delivered", f"burst of {BURST_COUNT} transactions from one of ten nodes: delivered, the least of all runs", "%", "100", "100"
    )
    work = Row("burst_processor", "the same: processor of all ten nodes for one delivery", "ms", "1", "0.3")
    wait = Row("burst_s", "the same: until the last node had the last one", "s", "", "")
    with TestNet(BURST_NODES, options=(*SIGNERS, "--slot-ms", "600000")) as net:
        signers = read_signers(net.homes)
        time.sleep(3)
        nodes = list(net.nodes)
        for run in range(min(runs, 3) + 1):
            kills = run == min(runs, 3)
            sender = nodes[run]  # a peer that brought 2,048 that still wait is full
            batch = sign_many(signers, BURST_COUNT, f"burst{run}")
            before = {node.name: sum(_status(node)["mempool"].values()) for node in nodes}
            settle()
            pids = [node.pid for node in nodes]
            used = sum(map(processor_s, pids))
            began = time.perf_counter()
            for first in range(0, len(batch), BATCH):
                sender.call("ledger.submit", transactions=[text for _, text in batch[first : first + BATCH]])
                if kills and not first:
                    nodes.pop().kill()
            deadline = time.perf_counter() + 30
            while True:
                time.sleep(0.5)  # asking takes processor time too
                spent = sum(map(processor_s, pids)) - used if not kills else 0.0
                have = [sum(_status(node)["mempool"].values()) - before[node.name] for node in nodes]
                if min(have) >= len(batch) or time.perf_counter() > deadline:
                    break
            ended = time.perf_counter() - began
            got = sum(have) - have[nodes.index(sender)]
            delivered = got / (len(batch) * (len(nodes) - 1))
            share.add(100 * delivered, None, killed=kills)
            if not kills:
                work.add(spent / got * 1000)
                wait.add(ended)
    share.notes.append("value of the row: the least, not the median")
    return [share, work, wait]


# --- gossip, simulated ----------------------------------------------------------------------------------------------


def gossip() -> list[Row]:
    """Facts through many nodes: the real machines under a scheduler of events, a tenth of the lines broken in the middle."""
    rows: list[Row] = []
    for count, facts in GOSSIP_NODES:
        share = Row(
            f"gossip_{count}", f"{count} simulated nodes, {facts} facts at 20/s, a tenth of all lines broken: delivered", "%", "100", "100"
        )
        told = Row(f"gossip_{count}_told", f"{count} nodes: whom one tells, at most", "nodes", "", "")
        twice = Row(f"gossip_{count}_twice", f"{count} nodes: bodies that came to who had them, for one delivery", "", "", "")
        late = Row(f"gossip_{count}_p50", f"{count} nodes: until a node has it, median", "ms", "", "")
        last = Row(f"gossip_{count}_p99", f"{count} nodes: the same, 99 %", "ms", "", "")
        frames = Row(f"gossip_{count}_bytes", f"{count} nodes: bytes sent for one delivery of a fact of {BODY_BYTES} bytes", "B", "", "")
        for seed in range(3 if count <= 100 else 1):
            world = Spreading(count, seed)
            world.publish(facts, 20)
            world.break_lines(0.1, 1.0 + facts / 40)
            outcome = world.run(1.0 + facts / 20 + 45)
            latencies = sorted(outcome.latencies)
            share.add(100 * outcome.delivered / outcome.wanted)
            told.add(outcome.degree_max)
            twice.add(outcome.duplicates)
            late.add(latencies[len(latencies) // 2] * 1000)
            last.add(latencies[int(len(latencies) * 0.99)] * 1000)
            frames.add(outcome.message_bytes / outcome.delivered)
        rows += [share, told, twice, late, last, frames]
    return rows
