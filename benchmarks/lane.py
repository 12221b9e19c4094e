"""The lane alone: one connection between two processes, our session and muxer against the stock library's, nothing stored or hashed.

    python -m benchmarks.lane serve own|stock|bare MIB  prints its address, then serves
    python -m benchmarks.lane talk own|stock|bare MIB MODE ADDRESS    one | both | requests; prints its figures as JSON
    python -m benchmarks.lane relay PORT DELAY-MS       prints its port; every byte arrives that much later, each way

Writes of 256 KiB, the same block over and over. Processor seconds are those of the transfer, of both ends together.
"""

from __future__ import annotations

import json
import os
import resource
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import trio

from protocols.limits import AEAD_TAG_BYTES, NOISE_LENGTH_BYTES, NOISE_PLAIN_BYTES_MAX, STREAM_WINDOW_BYTES_MAX

from .harness import MIB, Load, Row, load_of
from .wires import relay

WRITE_BYTES = 256 * 1024
REQUEST_BYTES = 32
REQUESTS_QUIET = 500
SEALED_BYTES = NOISE_LENGTH_BYTES + NOISE_PLAIN_BYTES_MAX + AEAD_TAG_BYTES
BARE_MESSAGES = 8  # half a megabyte, as a batch of ours
PATIENCE_S = 120.0
DELAY_MS = 20
COMMAND = (sys.executable, "-m", "benchmarks.lane")


def _processor_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


# --- ends: our lane -------------------------------------------------------------------------------------------------
def _our_transport(seed: bytes, listen: Sequence[str]) -> Any:
    from node.transport.libp2p.transport import Libp2pTransport
    from node.transport.port import PresharedKey
    from protocols.types import NetworkId

    fence = PresharedKey("fence", b"F" * 32, b"f" * 32)
    return Libp2pTransport(seed, NetworkId(b"n" * 32), listen, keys=[fence]), fence


async def _serve_ours(size: int) -> None:
    transport, _ = _our_transport(b"b" * 32, ["/ip4/127.0.0.1/tcp/0"])
    from node.transport.port import StreamBroken

    async def converse(stream: Any) -> None:
        began = _processor_s()
        got = 0
        if stream.protocol == "/lading/echo/1":
            while True:
                await stream.send(await stream.receive())
        elif stream.protocol == "/lading/give/1":
            block = bytes(WRITE_BYTES)
            for _ in range(size // WRITE_BYTES):
                await stream.send(block)
            await stream.flush()
        else:
            while got < size:
                got += len(await stream.receive())
            await stream.send(json.dumps(_processor_s() - began).encode())
            await stream.flush()

    async def let_end(stream: Any) -> None:
        try:
            await converse(stream)
        except StreamBroken:
            return

    async with trio.open_nursery() as nursery:
        (address,) = await nursery.start(transport.run)
        print(address, flush=True)
        connection = await transport.accept()
        connection.trust()
        try:
            while True:
                nursery.start_soon(let_end, await connection.accept_stream())
        except StreamBroken:
            nursery.cancel_scope.cancel()


async def _talk_ours(size: int, mode: str, address: str) -> None:
    transport, fence = _our_transport(b"a" * 32, [])
    result: dict[str, object] = {}
    async with trio.open_nursery() as nursery:
        await nursery.start(transport.run)
        connection = await transport.dial(address, None, fence)
        connection.trust()

        async def send() -> float:
            stream = await connection.open_stream("/lading/take/1")
            block = bytes(WRITE_BYTES)
            for _ in range(size // WRITE_BYTES):
                await stream.send(block)
            return float(json.loads(await stream.receive()))

        async def receive() -> None:
            stream = await connection.open_stream("/lading/give/1")
            got = 0
            while got < size:
                got += len(await stream.receive())

        async def ask(times: list[float], is_over: Callable[[], bool]) -> None:
            stream = await connection.open_stream("/lading/echo/1")
            while not is_over():
                began = time.perf_counter()
                await stream.send(bytes(REQUEST_BYTES))
                await stream.receive()
                times.append((time.perf_counter() - began) * 1000)

        quiet: list[float] = []
        if mode == "requests":
            await ask(quiet, lambda: len(quiet) >= REQUESTS_QUIET)
        began, used = time.perf_counter(), _processor_s()
        there = 0.0
        is_done = False
        busy: list[float] = []
        async with trio.open_nursery() as talking:
            if mode == "both":
                talking.start_soon(receive)
            if mode == "requests":
                talking.start_soon(ask, busy, lambda: is_done)
            there = await send()
            is_done = True
        took = time.perf_counter() - began
        moved = size * (2 if mode == "both" else 1)
        result = {"mb_s": moved / took / 1e6, "processor_s_per_gb": (_processor_s() - used + there) / (moved / 1e9)}
        if mode == "requests":
            result |= _percentiles("quiet", quiet) | _percentiles("busy", busy)
        print(json.dumps(result), flush=True)
        nursery.cancel_scope.cancel()


def _percentiles(name: str, times: Sequence[float]) -> dict[str, object]:
    cuts = statistics.quantiles(times, n=100)
    return {f"{name}_p50_ms": round(cuts[49], 3), f"{name}_p99_ms": round(cuts[98], 3), f"{name}_requests": len(times)}


# --- ends: the stock library ----------------------------------------------------------------------------------------
def _stock_host() -> tuple[Any, Any]:
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from multiaddr import Multiaddr

    listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
    return new_host(key_pair=create_new_key_pair(), listen_addrs=listen, muxer_preference="YAMUX"), listen


async def _serve_stock(size: int) -> None:
    host, listen = _stock_host()

    async def take(stream: Any) -> None:
        began = _processor_s()
        got = 0
        while got < size:
            got += len(await stream.read(WRITE_BYTES))
        await stream.write(json.dumps(_processor_s() - began).encode())

    async with host.run(listen_addrs=listen):
        host.set_stream_handler("/bench/1", take)
        print(host.get_addrs()[0], flush=True)
        await trio.sleep_forever()


async def _talk_stock(size: int, address: str) -> None:
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from multiaddr import Multiaddr

    host, listen = _stock_host()
    async with host.run(listen_addrs=listen):
        info = info_from_p2p_addr(Multiaddr(address))
        await host.connect(info)
        stream = await host.new_stream(info.peer_id, ["/bench/1"])
        block = bytes(WRITE_BYTES)
        began, used = time.perf_counter(), _processor_s()
        for _ in range(size // WRITE_BYTES):
            await stream.write(block)
        there = float(json.loads(await stream.read(100)))
        took = time.perf_counter() - began
        print(json.dumps({"mb_s": size / took / 1e6, "processor_s_per_gb": (_processor_s() - used + there) / (size / 1e9)}), flush=True)
        os._exit(0)  # the library's listener outlives its host


# --- ends: nothing but the cipher and the socket --------------------------------------------------------------------
def _bare_cipher(nonces: str) -> Any:
    from node.transport.libp2p.ciphers import ciphers_of_this_machine
    from protocols.crypto import CounterCipher

    return CounterCipher(nonces.encode().ljust(32, b"."), cipher=ciphers_of_this_machine()[0])


def _serve_bare(size: int) -> None:
    """Sealed messages of full size, one after the other, received into one buffer and opened."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        peer, _ = server.accept()
    opener, began = _bare_cipher("bare"), _processor_s()
    buffer = bytearray(BARE_MESSAGES * SEALED_BYTES)
    view, held = memoryview(buffer), 0
    left = size // NOISE_PLAIN_BYTES_MAX
    while left:
        held += peer.recv_into(view[held:])
        whole = held // SEALED_BYTES
        for number in range(whole):
            opener.open(view[number * SEALED_BYTES + NOISE_LENGTH_BYTES : (number + 1) * SEALED_BYTES])
        left -= whole
        rest = held - whole * SEALED_BYTES
        buffer[:rest] = buffer[whole * SEALED_BYTES : held]
        held = rest
    peer.sendall(json.dumps(_processor_s() - began).encode())


def _talk_bare(size: int, address: str) -> None:
    sealer = _bare_cipher("bare")
    plain, out = bytes(NOISE_PLAIN_BYTES_MAX), memoryview(bytearray(BARE_MESSAGES * SEALED_BYTES))
    with socket.create_connection(("127.0.0.1", int(address))) as peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        left, began, used = size // NOISE_PLAIN_BYTES_MAX, time.perf_counter(), _processor_s()
        while left:
            count = min(left, BARE_MESSAGES)
            for number in range(count):
                sealer.seal_into(plain, out[number * SEALED_BYTES + NOISE_LENGTH_BYTES : (number + 1) * SEALED_BYTES])
            peer.sendall(out[: count * SEALED_BYTES])
            left -= count
        there = float(json.loads(peer.recv(100)))
        took = time.perf_counter() - began
    print(json.dumps({"mb_s": size / took / 1e6, "processor_s_per_gb": (_processor_s() - used + there) / (size / 1e9)}), flush=True)


# --- rows -----------------------------------------------------------------------------------------------------------
@contextmanager
def _started(*words: object) -> Iterator[tuple[str, int]]:
    """A process of this module: (first line that it prints, its id)."""
    with subprocess.Popen([*COMMAND, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().decode().strip(), process.pid
        finally:
            process.kill()


def _measure(lane: str, mib: int, mode: str = "one", *, delay_ms: float = 0) -> tuple[Mapping[str, float], Load]:
    """One transfer between two fresh processes, over a long line if ``delay_ms``."""
    with _started("serve", lane, mib) as (address, pid):
        if not delay_ms:
            return _talk(lane, mib, mode, address, [pid])
        with _started("relay", address.rpartition("/")[2], delay_ms) as (port, relay_pid):
            return _talk(lane, mib, mode, f"/ip4/127.0.0.1/tcp/{port}", [pid, relay_pid])


def _talk(lane: str, mib: int, mode: str, address: str, pids: list[int]) -> tuple[Mapping[str, float], Load]:
    with load_of(pids) as load:
        command = [*COMMAND, "talk", lane, str(mib), mode, address]
        done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=PATIENCE_S)
    return json.loads(done.stdout), load


def lane_rows(runs: int, mib: int) -> list[Row]:
    """In turns, so that what else the machine does meets all alike."""
    one = Row("lane_one", f"one stream of {mib} MiB, process to process", "MB/s", "", "")
    stock = Row("lane_stock", "the same by stock py-libp2p", "MB/s", "", "")
    bare = Row("lane_bare", "bound: the same cipher and one TCP socket in one loop at each end, nothing else", "MB/s", "", "")
    share = Row("lane_share", "ours, share of that bound, same turn", "", "", "")
    ratio = Row("lane_ratio", "ours over stock, same turn", "", "4", "7")
    both = Row("lane_both", "both directions at once, sum over one direction, same turn", "", "0.8", "1")
    small = Row("lane_request", f"{REQUEST_BYTES}-byte request on the connection that carries bulk, p99", "ms", "30", "10")
    line = Row("lane_40ms", "share of window over round trip (8 MiB / 40 ms) that one stream gets", "", "0.7", "0.9")
    for _ in range(runs):
        ours, load = _measure("own", mib)
        one.add(ours["mb_s"], load, processor_s_per_gb=round(ours["processor_s_per_gb"], 2))
        theirs, load = _measure("stock", mib)
        stock.add(theirs["mb_s"], load, processor_s_per_gb=round(theirs["processor_s_per_gb"], 2))
        bound, load = _measure("bare", mib)
        bare.add(bound["mb_s"], load, processor_s_per_gb=round(bound["processor_s_per_gb"], 2))
        share.add(ours["mb_s"] / bound["mb_s"], processor=round(bound["processor_s_per_gb"] / ours["processor_s_per_gb"], 2))
        ratio.add(ours["mb_s"] / theirs["mb_s"], processor=round(theirs["processor_s_per_gb"] / ours["processor_s_per_gb"], 2))
        two, load = _measure("own", mib, "both")
        both.add(two["mb_s"] / ours["mb_s"], load, mb_s=round(two["mb_s"], 1))
        asked, load = _measure("own", mib, "requests")
        small.add(asked["busy_p99_ms"], load, **{key: value for key, value in asked.items() if key.endswith(("_ms", "_requests"))})
        far, load = _measure("own", mib, delay_ms=DELAY_MS)
        width = STREAM_WINDOW_BYTES_MAX / (2 * DELAY_MS / 1000) / 1e6
        line.add(far["mb_s"] / width, load, mb_s=round(far["mb_s"], 1), bound_mb_s=round(width, 1))
    ratio.notes.append("processor: stock's processor seconds a gigabyte, both ends, over ours")
    line.notes.append("the ramp from 256 KiB to the full window is inside; the relay is a third process on the same cores")
    return [one, stock, bare, share, ratio, both, small, line]


def main() -> None:
    match sys.argv[1:]:
        case ["serve", "own", mib]:
            trio.run(_serve_ours, int(mib) * MIB)
        case ["serve", "stock", mib]:
            trio.run(_serve_stock, int(mib) * MIB)
        case ["serve", "bare", mib]:
            _serve_bare(int(mib) * MIB)
        case ["talk", "bare", mib, _, address]:
            _talk_bare(int(mib) * MIB, address)
        case ["talk", "own", mib, mode, address]:
            trio.run(_talk_ours, int(mib) * MIB, mode, address)
        case ["talk", "stock", mib, _, address]:
            trio.run(_talk_stock, int(mib) * MIB, address)
        case ["relay", port, delay_ms]:
            trio.run(relay, int(port), float(delay_ms) / 1000, 0.0)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
