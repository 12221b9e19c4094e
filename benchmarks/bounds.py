"""The bounds: what the machine and the stock library do with nothing of the node around. Each runs in a process of its own.

    python -m benchmarks.bounds ingest FILE DIRECTORY     read, hash, seal, hash, store durably, in one straight loop
    python -m benchmarks.bounds receive ADDRESS-FILE MIB OUTPUT
    python -m benchmarks.bounds send ADDRESS-FILE FILE    one bare stream of the stock libp2p, both ends
    python -m benchmarks.bounds offer FILE                prints its port, then sends FILE over one clear TCP connection
    python -m benchmarks.bounds take PORT OUTPUT          the other end of it

Each end that measures prints its figure as JSON. A bare stream carries the bytes of FILE in writes of 256 KiB; the receiver hashes and
writes what comes and is done after fsync. This is the fastest that a plain program on the library does without changing the library.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import sys
import time
from pathlib import Path

WRITE_BYTES = 256 * 1024
RESERVE_BYTES = 64 * 1024 * 1024


def ingest(source: Path, directory: Path) -> None:
    """One thread, the node's own engine, commits of 16 chunks: everything that `put --ack local` cannot do without."""
    from protocols.crypto import aead_seal, sha256
    from protocols.limits import BLOCK_BYTES, CHUNKS_PER_SEQUENCE
    from storage.engine import Env, Put
    from storage.lmdb_engine import LmdbEngine
    from storage.tables import BODIES

    engine = LmdbEngine(directory, Env.CHUNKS, budget_bytes=64 * 1024**3, reserve_bytes=RESERVE_BYTES)
    began = time.perf_counter()
    size = 0
    batch: list[Put] = []
    with source.open("rb", buffering=0) as file:
        while data := file.read(BLOCK_BYTES):
            size += len(data)
            sealed = aead_seal(sha256(data), data)
            batch.append(Put(BODIES, sha256(sealed), sealed))
            if len(batch) == CHUNKS_PER_SEQUENCE:
                engine.write(batch)
                batch = []
    engine.write(batch)
    took = time.perf_counter() - began
    engine.close()
    print(json.dumps({"mb_s": size / took / 1e6, "s": took}), flush=True)


def receive(address_file: Path, size: int, output: Path) -> None:
    """The stock host that listens."""
    import trio
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from multiaddr import Multiaddr

    async def main() -> None:
        listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
        host = new_host(key_pair=create_new_key_pair(), listen_addrs=listen, muxer_preference="YAMUX")
        done = trio.Event()

        async def handler(stream: object) -> None:
            digest = hashlib.sha256()
            left = size
            with output.open("wb", buffering=0) as file:
                while left:
                    data = await stream.read(WRITE_BYTES)  # type: ignore[attr-defined]
                    if not data:
                        raise RuntimeError("the stream ended early")
                    digest.update(data)
                    file.write(data)
                    left -= len(data)
                os.fsync(file.fileno())
            await stream.write(digest.digest())  # type: ignore[attr-defined]
            await trio.sleep(0.2)
            done.set()

        async with host.run(listen_addrs=listen):
            host.set_stream_handler("/bench/1", handler)
            partial = address_file.with_suffix(".part")
            partial.write_text(str(host.get_addrs()[0]))
            partial.rename(address_file)
            await done.wait()
        os._exit(0)  # the library's listener outlives its host

    trio.run(main)


def send(address_file: Path, source: Path) -> None:
    """The stock host that dials. The clock runs from the first byte, connection and stream up, to the receiver's answer after fsync."""
    import trio
    from libp2p import new_host
    from libp2p.crypto.ed25519 import create_new_key_pair
    from libp2p.peer.peerinfo import info_from_p2p_addr
    from multiaddr import Multiaddr

    while not address_file.exists():
        time.sleep(0.02)
    target = Multiaddr(address_file.read_text())

    async def main() -> None:
        listen = [Multiaddr("/ip4/127.0.0.1/tcp/0")]
        host = new_host(key_pair=create_new_key_pair(), listen_addrs=listen, muxer_preference="YAMUX")
        async with host.run(listen_addrs=listen):
            info = info_from_p2p_addr(target)
            await host.connect(info)
            stream = await host.new_stream(info.peer_id, ["/bench/1"])
            began = time.perf_counter()
            size = 0
            with source.open("rb", buffering=0) as file:
                while data := file.read(WRITE_BYTES):
                    await stream.write(data)
                    size += len(data)
            await stream.read(32)
            took = time.perf_counter() - began
            print(json.dumps({"mb_s": size / took / 1e6, "s": took}), flush=True)
            os._exit(0)

    trio.run(main)


def offer(source: Path) -> None:
    """Serves one caller by sendfile."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        print(server.getsockname()[1], flush=True)
        caller, _ = server.accept()
        with caller, source.open("rb") as file:
            caller.sendfile(file)


def take(port: int, output: Path) -> None:
    """Receives, hashes, writes, fsyncs, one after the other in one thread. The clock runs from before the dial to after fsync."""
    began = time.perf_counter()
    digest = hashlib.sha256()
    buffer = memoryview(bytearray(WRITE_BYTES))
    size = 0
    with socket.create_connection(("127.0.0.1", port)) as sock, output.open("wb", buffering=0) as file:
        while count := sock.recv_into(buffer):
            digest.update(buffer[:count])
            file.write(buffer[:count])
            size += count
        os.fsync(file.fileno())
    took = time.perf_counter() - began
    print(json.dumps({"mb_s": size / took / 1e6, "s": took, "sha256": digest.hexdigest()}), flush=True)


def main() -> None:
    match sys.argv[1:]:
        case ["ingest", source, directory]:
            ingest(Path(source), Path(directory))
        case ["receive", address, mib, output]:
            receive(Path(address), int(mib) * 1024 * 1024, Path(output))
        case ["send", address, source]:
            send(Path(address), Path(source))
        case ["offer", source]:
            offer(Path(source))
        case ["take", port, output]:
            take(int(port), Path(output))
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
