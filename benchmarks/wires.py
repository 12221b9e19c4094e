"""Lines that are long, narrow or lossy: one stream of ours beside a plain TCP socket on the same line, random bytes, hashes compared.

    python -m benchmarks.wires serve own|stock|socket HOST      prints its address, then serves one transfer after the other
    python -m benchmarks.wires talk own|stock|socket ADDRESS MIB [both]   sends, and with `both` receives as much beside it (own and stock);
                                                                prints its figures as JSON
    python -m benchmarks.wires relay PORT DELAY-MS JITTER-MS    prints its port; every byte arrives that much later, each way

Delay and jitter by the relay; loss (nftables) and rate (tc tbf) in two network namespaces joined by a veth pair, which need root.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import trio

from .harness import MIB, Row, Skipped

WRITE_BYTES = 256 * 1024
PATIENCE_S = 300.0
COMMAND = (sys.executable, "-m", "benchmarks.wires")
TAKE, GIVE = "/lading/take/1", "/lading/give/1"
DELAYS_MS = (1, 10, 40, 200)  # there and back
LOSSES_PERCENT = (0.1, 1.0, 3.0)
RATES_MBIT = (10, 100)
# What is sent: some seconds' worth, the ramp inside. NARROW_MIB: for each Mbit/s.
RELAY_MIB, LOSSY_MIB, NARROW_MIB = 96, 32, 0.5
# Without it a loss would take 64 KiB at once: packets of a veth pair are as large as the sender's offload makes them.
PACKET_BYTES = 1514


# --- ends -----------------------------------------------------------------------------------------------------------
def _content() -> bytes:
    return random.Random(7).randbytes(WRITE_BYTES)


def _blocks(size: int) -> Iterator[bytes]:
    """Random bytes, every block another."""
    content = _content()
    for number in range(-(-size // WRITE_BYTES)):
        yield number.to_bytes(8, "big") + content[8 : min(WRITE_BYTES, size - number * WRITE_BYTES)]


def _digest_of(size: int) -> bytes:
    digest = hashlib.sha256()
    for block in _blocks(size):
        digest.update(block)
    return digest.digest()


def _transport(lane: str, seed: bytes, listen: Sequence[str]) -> tuple[Any, Any]:
    from node.transport.libp2p.transport import Libp2pTransport
    from node.transport.port import PresharedKey
    from protocols.types import NetworkId

    fence = PresharedKey("fence", b"F" * 32, b"f" * 32)
    return Libp2pTransport(seed, NetworkId(b"n" * 32), listen, keys=[fence], lane=lane), fence


async def _serve(lane: str, host: str) -> None:
    from protocols.errors import LadingError

    transport, _ = _transport(lane, b"b" * 32, [f"/ip4/{host}/tcp/0"])

    async def take(stream: Any) -> None:
        """One transfer: its size, its bytes; answered with their hash. Or its size, answered with its bytes."""
        with contextlib.suppress(LadingError):
            left = int.from_bytes(await stream.receive(), "big")
            if stream.protocol == GIVE:
                for block in _blocks(left):
                    await stream.send(block)
                await stream.finish()
                return
            digest = hashlib.sha256()
            while left:
                block = await stream.receive()
                digest.update(block)
                left -= len(block)
            await stream.send(digest.digest())
            await stream.finish()

    async def serve(connection: Any) -> None:
        connection.trust()
        with contextlib.suppress(LadingError):
            while True:
                nursery.start_soon(take, await connection.accept_stream())

    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(transport.run)
        print(address, flush=True)
        while True:
            nursery.start_soon(serve, await transport.accept())


async def _talk(lane: str, address: str, size: int, *, is_both: bool) -> None:
    transport, fence = _transport(lane, b"a" * 32, [])
    wanted = _digest_of(size)
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run)
        connection = await transport.dial(address, None, fence)
        connection.trust()
        found: list[bytes] = []

        async def send() -> None:
            stream = await connection.open_stream(TAKE)
            await stream.send(size.to_bytes(8, "big"))
            for block in _blocks(size):
                await stream.send(block)
            found.append(await stream.receive())

        async def receive() -> None:
            stream = await connection.open_stream(GIVE)
            await stream.send(size.to_bytes(8, "big"))
            digest, left = hashlib.sha256(), size
            while left:
                block = await stream.receive()
                digest.update(block)
                left -= len(block)
            found.append(digest.digest())

        began = time.perf_counter()
        async with trio.open_nursery() as talking:
            talking.start_soon(send)
            if is_both:
                talking.start_soon(receive)
        _tell(size * len(found), time.perf_counter() - began, all(one == wanted for one in found))
        nursery.cancel_scope.cancel()


async def _serve_socket(host: str) -> None:
    async def take(stream: trio.SocketStream) -> None:
        head = b""
        while len(head) < 8:
            head += await stream.receive_some(8 - len(head))
        left = int.from_bytes(head, "big")
        digest = hashlib.sha256()
        while left:
            data = await stream.receive_some(MIB)
            digest.update(data)
            left -= len(data)
        await stream.send_all(digest.digest())

    (listener,) = await trio.open_tcp_listeners(0, host=host)
    print(f"/ip4/{host}/tcp/{listener.socket.getsockname()[1]}", flush=True)
    await trio.serve_listeners(take, [listener])


async def _talk_socket(address: str, size: int) -> None:
    _, _, host, _, port, *_ = address.split("/")
    wanted = _digest_of(size)
    stream = await trio.open_tcp_stream(host, int(port))
    began = time.perf_counter()
    await stream.send_all(size.to_bytes(8, "big"))
    for block in _blocks(size):
        await stream.send_all(block)
    got = b""
    while len(got) < len(wanted):
        got += await stream.receive_some(64)
    _tell(size, time.perf_counter() - began, got == wanted)


def _tell(size: int, took: float, is_same: bool) -> None:
    print(json.dumps({"mb_s": size / took / 1e6, "seconds": took, "is_same": is_same}), flush=True)


# --- a long line ----------------------------------------------------------------------------------------------------
async def relay(port: int, delay_s: float, jitter_s: float) -> None:
    """Prints its port, then passes connections on."""
    chance = random.Random(11)

    async def later(source: trio.SocketStream, sink: trio.SocketStream) -> None:
        waiting: deque[tuple[float, bytes]] = deque()
        arrived = trio.Event()

        async def hand_on() -> None:
            nonlocal arrived
            while True:
                while not waiting:
                    arrived = trio.Event()
                    await arrived.wait()
                due, data = waiting.popleft()
                await trio.sleep_until(due)
                if not data:
                    await sink.send_eof()
                    return
                await sink.send_all(data)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(hand_on)
            while True:
                data = bytes(await source.receive_some(MIB))
                # Bytes of a stream never overtake each other: one that is late holds up those behind it, as a lost packet would.
                waiting.append((trio.current_time() + delay_s + chance.random() * jitter_s, data))
                arrived.set()
                if not data:
                    return

    async def serve(caller: trio.SocketStream) -> None:
        try:
            async with await trio.open_tcp_stream("127.0.0.1", port) as callee, trio.open_nursery() as nursery:
                nursery.start_soon(later, caller, callee)
                nursery.start_soon(later, callee, caller)
        except* (trio.BrokenResourceError, trio.ClosedResourceError):
            pass  # one of the two has hung up

    (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
    print(listener.socket.getsockname()[1], flush=True)
    await trio.serve_listeners(serve, [listener])


# --- two machines in one --------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Cable:
    """Two network namespaces and the veth pair between them. near, far: names of the namespaces."""

    near: str
    far: str
    near_host: str = "10.77.0.1"
    far_host: str = "10.77.0.2"
    device: str = "cable"

    def at(self, name: str, *words: str) -> list[str]:
        """A command line that runs in one of them."""
        return ["ip", "netns", "exec", name, *words]

    def lose(self, percent: float) -> None:
        """Each packet is dropped with this chance, at both ends."""
        for name in (self.near, self.far):
            _run(*self.at(name, "nft", "flush ruleset"))
            if percent:
                rule = f"numgen random mod 100000 < {round(percent * 1000)} drop"
                chain = "add table ip l; add chain ip l c { type filter hook input priority 0; }; add rule ip l c "
                _run(*self.at(name, "nft", chain + rule))

    def narrow(self, mbit: float) -> None:
        """So many bits a second in each direction, with a queue of 50 ms; 0 lifts the bound."""
        for name in (self.near, self.far):
            shape = ["tc", "qdisc", "del", "dev", self.device, "root"]
            subprocess.run(self.at(name, *shape), capture_output=True, check=False)
            if mbit:
                shape[2:] = ["add", "dev", self.device, "root", "tbf", "rate", f"{mbit}mbit", "burst", "32kb", "latency", "50ms"]
                _run(*self.at(name, *shape))

    def wait_sent(self, byte_count: int, *, timeout_s: float) -> int:
        """Until so many bytes have left the near end since the last ``narrow``. Result: how many. Raises RuntimeError."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            done = subprocess.run(
                self.at(self.near, "tc", "-j", "-s", "qdisc", "show", "dev", self.device), capture_output=True, check=True
            )
            sent = int(json.loads(done.stdout)[0]["bytes"])
            if sent >= byte_count:
                return sent
            time.sleep(0.02)
        raise RuntimeError(f"{byte_count} bytes did not leave within {timeout_s:.0f} s")

    def plug(self, *, is_in: bool) -> None:
        """Pulls the cable, or puts it back."""
        _run("ip", "-n", self.near, "link", "set", self.device, "up" if is_in else "down")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Skipped(f"{' '.join(words)}: {done.stderr.strip()}")


@contextlib.contextmanager
def cable() -> Iterator[Cable]:
    """Raises Skipped, saying why, where namespaces cannot be made."""
    missing = [tool for tool in ("ip", "tc", "nft") if shutil.which(tool) is None]
    if missing:
        raise Skipped(f"{', '.join(missing)} not found: install iproute2 and nftables")
    if os.geteuid() != 0:
        raise Skipped("network namespaces need root: run as root, or in a container that has CAP_NET_ADMIN and CAP_SYS_ADMIN")
    found = Cable(f"lading-near-{os.getpid()}", f"lading-far-{os.getpid()}")
    try:
        for name in (found.near, found.far):
            _run("ip", "netns", "add", name)
        pair = ["ip", "link", "add", found.device, "netns", found.near, "type", "veth", "peer", "name", found.device, "netns", found.far]
        _run(*pair)
        for name, host in ((found.near, found.near_host), (found.far, found.far_host)):
            size = ["gso_max_size", str(PACKET_BYTES), "gso_max_segs", "1"]
            _run("ip", "-n", name, "addr", "add", f"{host}/24", "dev", found.device)
            _run("ip", "-n", name, "link", "set", found.device, *size, "up")
            _run("ip", "-n", name, "link", "set", "lo", "up")
        yield found
    finally:
        for name in (found.near, found.far):
            subprocess.run(["ip", "netns", "del", name], capture_output=True, check=False)


# --- transfers ------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def started(words: Sequence[str]) -> Iterator[str]:
    """A process of this module; the first line that it prints."""
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip()
        finally:
            process.kill()


def _talked(words: Sequence[str]) -> Mapping[str, float]:
    done = subprocess.run(words, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    found = json.loads(done.stdout)
    if not found["is_same"]:
        raise RuntimeError("the bytes that arrived are not those that were sent")
    return dict(found)


def over_cable(line: Cable, lane: str, mib: float, *more: str) -> Mapping[str, float]:
    """One transfer from the near end to the far one. Raises RuntimeError when other bytes arrive."""
    with started(line.at(line.far, *COMMAND, "serve", lane, line.far_host)) as address:
        return _talked(line.at(line.near, *COMMAND, "talk", lane, address, str(mib), *more))


def over_relay(lane: str, mib: float, *more: str, delay_ms: float, jitter_ms: float = 0.0) -> Mapping[str, float]:
    """One transfer through a relay that holds bytes back ``delay_ms``, and up to ``jitter_ms`` more, each way."""
    with (
        started([*COMMAND, "serve", lane, "127.0.0.1"]) as address,
        started([*COMMAND, "relay", address.split("/")[4], str(delay_ms), str(jitter_ms)]) as port,
    ):
        return _talked([*COMMAND, "talk", lane, f"/ip4/127.0.0.1/tcp/{port}", str(mib), *more])


# --- rows -----------------------------------------------------------------------------------------------------------
def wire_rows(runs: int) -> list[Row]:
    """Ours beside the socket, in turns."""
    rows: list[Row] = []

    def row(name: str, what: str) -> tuple[Row, Row]:
        ours, plain = Row(name, f"{what}, one stream", "MB/s", "", ""), Row(f"{name}_socket", f"{what}, plain TCP socket", "MB/s", "", "")
        rows.extend((ours, plain))
        return ours, plain

    for there_and_back in DELAYS_MS:
        pair = row(f"delay_{there_and_back}", f"{there_and_back} ms there and back")
        for _ in range(runs):
            for lane, one in zip(("own", "socket"), pair, strict=True):
                one.add(over_relay(lane, RELAY_MIB, delay_ms=there_and_back / 2)["mb_s"])
    pair = row("jitter_40", "40 ms there and back, and up to 20 ms more each way")
    for _ in range(runs):
        for lane, one in zip(("own", "socket"), pair, strict=True):
            one.add(over_relay(lane, RELAY_MIB, delay_ms=20, jitter_ms=20)["mb_s"])
    try:
        rows.extend(_cable_rows(runs, row))
    except Skipped as reason:
        rows[-1].notes.append(f"loss and rate not measured: {reason}")
        print(f"  skipped: {reason}")
    return rows


def _cable_rows(runs: int, row: Any) -> list[Row]:
    with cable() as line:
        for percent in LOSSES_PERCENT:
            pair = row(f"loss_{percent:g}", f"{percent:g} % of packets lost each way")
            line.lose(percent)
            for _ in range(runs):
                for lane, one in zip(("own", "socket"), pair, strict=True):
                    one.add(over_cable(line, lane, LOSSY_MIB)["mb_s"])
        line.lose(0)
        for mbit in RATES_MBIT:
            pair = row(f"rate_{mbit}", f"{mbit} Mbit/s each way")
            line.narrow(mbit)
            for _ in range(runs):
                for lane, one in zip(("own", "socket"), pair, strict=True):
                    one.add(over_cable(line, lane, mbit * NARROW_MIB)["mb_s"])
        line.narrow(0)
    return []


def main() -> None:
    match sys.argv[1:]:
        case ["serve", "socket", host]:
            trio.run(_serve_socket, host)
        case ["serve", lane, host]:
            trio.run(_serve, lane, host)
        case ["talk", "socket", address, mib]:
            trio.run(_talk_socket, address, int(float(mib) * MIB))
        case ["talk", lane, address, mib, *more]:
            trio.run(partial(_talk, is_both=more == ["both"]), lane, address, int(float(mib) * MIB))
        case ["relay", port, delay_ms, jitter_ms]:
            trio.run(relay, int(port), float(delay_ms) / 1000, float(jitter_ms) / 1000)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
