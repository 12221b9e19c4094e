"""The library's GossipSub beside our gossip of transactions: as many real nodes on one machine, a burst of 1,000 from one of them.

    python -m benchmarks.gossipsub      one node: prints its address, then obeys lines of JSON on standard input, each answered with one

The stock library, tuned so that it delivers what it can: protocol 1.1 alone, degree 4 (3 to 6), a heartbeat each second, no slowing down by
its own judgement of health, spam or addresses. Its messages are 600 bytes with one signature; a transaction of ours is an anchor of about
as much again with two, and every node judges it by the ledger's rules. Ours is asked for by who lacks it; theirs is sent without asking.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from .harness import Row, RunningNode, TestNet, processor_s, settle
from .signed import read_signers, sign_many

COUNT = 1000
MESSAGE_BYTES = 600
# Without a pause the library drops what does not fit its queue of 32 for a neighbour; so many a second it can follow.
PACED_PER_S = 20.0
PACED_COUNT = 400
MESH_S = 5.0
QUIET_S = 5.0
PATIENCE_S = 90.0
LOOK_S = 0.25
CALL_TRANSACTIONS = 384
TOPIC = "burst"
COMMAND = (sys.executable, "-m", "benchmarks.gossipsub")


# --- one node of the library ------------------------------------------------------------------------------------------


async def _node() -> None:
    import trio
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.custom_types import TProtocol
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from libp2p.pubsub.gossipsub import GossipSub
    from libp2p.pubsub.pubsub import Pubsub
    from libp2p.tools.anyio_service import background_trio_service
    from multiaddr import Multiaddr

    came = 0

    class Counting(Pubsub):  # type: ignore[misc]  # the library has no types
        async def push_msg(self, msg_forwarder: Any, msg: Any) -> None:
            nonlocal came
            came += msg_forwarder != self.my_id
            await super().push_msg(msg_forwarder, msg)

    listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    host = new_host(key_pair=create_new_key_pair(), listen_addrs=listen, muxer_preference="YAMUX")
    router = GossipSub(
        protocols=[TProtocol("/meshsub/1.1.0")],
        degree=4,
        degree_low=3,
        degree_high=6,
        heartbeat_interval=1,
        adaptive_gossip_enabled=False,
        spam_protection_enabled=False,
        eclipse_protection_enabled=False,
    )
    pubsub = Counting(host, router)
    pubsub.counter = time.time_ns()
    at: dict[int, float] = {}
    sent: dict[int, float] = {}

    async def take(subscription: Any) -> None:
        while True:
            message = await subscription.get()
            at.setdefault(int.from_bytes(message.data[:8], "big"), time.perf_counter())

    async def publish(count: int, pause_s: float) -> None:
        began = time.perf_counter()
        for number in range(count):
            if pause_s:
                await trio.sleep(max(0.0, began + number * pause_s - time.perf_counter()))
            sent[number] = time.perf_counter()
            await pubsub.publish(TOPIC, number.to_bytes(8, "big") + os.urandom(MESSAGE_BYTES - 8))

    async with host.run(listen_addrs=listen), background_trio_service(pubsub), background_trio_service(router):
        await pubsub.wait_until_ready()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(take, await pubsub.subscribe(TOPIC))
            print(json.dumps({"address": str(host.get_addrs()[0])}), flush=True)
            while line := await trio.to_thread.run_sync(sys.stdin.readline):
                asked = json.loads(line)
                answer: object = None
                match asked["do"]:
                    case "dial":
                        for address in asked["addresses"]:
                            await host.connect(info_from_p2p_addr(Multiaddr(address)))
                    case "publish":
                        nursery.start_soon(publish, asked["count"], asked["pause_s"])
                    case "count":
                        answer = len(at)
                    case "report":
                        answer = {"at": at, "sent": sent, "came": came}
                print(json.dumps(answer), flush=True)
            os._exit(0)  # the library's listener outlives its host


class _Stock:
    """A process of it."""

    def __init__(self) -> None:
        self.process = subprocess.Popen(COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def wait_address(self) -> str:
        """When it listens."""
        return str(self._answer()["address"])

    def ask(self, do: str, **args: object) -> Any:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({"do": do, **args}) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError("a node of the library ended")
        return json.loads(line)

    def __enter__(self) -> _Stock:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


# --- rows -------------------------------------------------------------------------------------------------------------


def _rows(name: str, what: str, waits_ms: Sequence[float], *, delivered: int, wanted: int, spent_s: float, twice: int | None) -> list[Row]:
    """What is told of one way with so many nodes. waits_ms: of deliveries that were timed. twice: None where it is not counted."""
    share = Row(f"{name}_delivered", f"{what}: delivered", "%", "", "")
    share.add(100 * delivered / wanted)
    rows = [share]
    ordered = sorted(waits_ms)
    if not ordered:
        return rows
    for short, text, unit, value in (
        ("p50", "until a node has it, median", "ms", ordered[len(ordered) // 2]),
        ("p99", "the same, 99 %", "ms", ordered[int(len(ordered) * 0.99)]),
        ("processor", "processor of all nodes for one delivery", "ms", spent_s / delivered * 1000),
        ("twice", "messages that came to who had them, for one delivery", "", None if twice is None else twice / delivered),
    ):
        if value is not None:
            rows.append(Row(f"{name}_{short}", f"{what}: {text}", unit, "", ""))
            rows[-1].add(value)
    return rows


def _theirs(count: int, name: str, what: str, messages: int, pause_s: float) -> list[Row]:
    """From one of fresh nodes that are all connected."""
    with ExitStack() as stack:
        nodes = [stack.enter_context(_Stock()) for _ in range(count)]
        addresses = [node.wait_address() for node in nodes]
        for index, node in enumerate(nodes):
            node.ask("dial", addresses=addresses[index + 1 :])
        time.sleep(MESH_S)
        pids = [node.process.pid for node in nodes]
        settle()
        used = sum(map(processor_s, pids))
        nodes[0].ask("publish", count=messages, pause_s=pause_s)
        _wait_still(nodes, messages)
        spent = sum(map(processor_s, pids)) - used
        reports: list[Mapping[str, Any]] = [node.ask("report") for node in nodes]
    sent = reports[0]["sent"]
    waits = [(at - sent[number]) * 1000 for report in reports[1:] for number, at in report["at"].items()]
    twice = sum(report["came"] for report in reports) - len(waits)
    text = f"GossipSub, {count} nodes, {messages} messages {what}"
    wanted = messages * (count - 1)
    return _rows(f"gossipsub_{count}_{name}", text, waits, delivered=len(waits), wanted=wanted, spent_s=spent, twice=twice)


def _wait_still(nodes: Sequence[_Stock], count: int) -> None:
    """Until everybody has so many, or nothing has come for a while."""
    counts = [node.ask("count") for node in nodes]
    deadline = time.perf_counter() + PATIENCE_S
    moved = time.perf_counter()
    while time.perf_counter() < min(deadline, moved + QUIET_S):
        time.sleep(LOOK_S)
        now = [node.ask("count") for node in nodes]
        if min(now) >= count:
            return
        if now != counts:
            counts, moved = now, time.perf_counter()


def _ours(count: int) -> list[Row]:
    """Slots of ten minutes, so that no block takes part. When a node has how many is asked of one of them, since asking costs time too."""
    with TestNet(count, options=("--signers", "64", "--slot-ms", "600000")) as net:
        signers = read_signers(net.homes)
        time.sleep(MESH_S)
        sender, watched = net.nodes[0], net.nodes[-1]
        batch = [text for _, text in sign_many(signers, COUNT, "burst")]
        settle()
        used = sum(map(processor_s, net.pids))
        began = time.perf_counter()
        for first in range(0, COUNT, CALL_TRANSACTIONS):
            sender.call("ledger.submit", transactions=batch[first : first + CALL_TRANSACTIONS])
        waits: list[float] = []
        others = net.nodes[1:]
        while time.perf_counter() < began + PATIENCE_S:
            have = _waiting(watched)
            waits += [(time.perf_counter() - began) * 1000] * (have - len(waits))
            if have >= COUNT and min(map(_waiting, others)) >= COUNT:
                break
            time.sleep(LOOK_S)
        spent = sum(map(processor_s, net.pids)) - used
        delivered = sum(map(_waiting, others))
    text = f"ours, {count} nodes, {COUNT} transactions at once"
    return _rows(f"ours_{count}_burst", text, waits, delivered=delivered, wanted=COUNT * (count - 1), spent_s=spent, twice=None)


def _waiting(node: RunningNode) -> int:
    """Transactions in its pool."""
    chains: Any = node.call("ledger.status")["chains"]
    return sum(chains[0]["mempool"].values())


def gossipsub_rows(count: int) -> list[Row]:
    """Both with so many nodes, one after the other."""
    return [
        *_theirs(count, "burst", "at once", COUNT, 0.0),
        *_theirs(count, "paced", f"at {PACED_PER_S:.0f} a second", PACED_COUNT, 1 / PACED_PER_S),
        *_ours(count),
    ]


if __name__ == "__main__":
    import trio

    trio.run(_node)
