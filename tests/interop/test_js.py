"""js-libp2p over TCP, Noise and Yamux, in both directions: dial, negotiate, echo, 64 MiB each way at once, resets, half-closes.

Needs node and npm; the locked packages are installed once into the machine's folder for temporary files.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
from pathlib import Path

import pytest
import trio
from libp2p.peer.id import ID

from node.transport.libp2p.mux import MuxStream
from node.transport.port import StreamBroken
from protocols.yamux.pieces import joined

from .packages import script_beside_its_packages
from .standard import StandardConnection, answerer_id, dial, welcome

pytestmark = pytest.mark.slow

HERE = Path(__file__).parent / "js"
PATIENCE_S = 60.0
BULK = 64 * 1024 * 1024
PIECE = bytes((at * 31 + (at >> 8)) & 255 for at in range(256 * 1024))
BULK_HASH = hashlib.sha256(PIECE * (BULK // len(PIECE))).hexdigest()


@pytest.fixture(scope="module")
def peer_script() -> Path:
    """peer.mjs beside its packages."""
    return script_beside_its_packages(HERE / "peer.mjs", "js-libp2p")


async def send_bulk(stream: MuxStream) -> None:
    for _ in range(BULK // len(PIECE)):
        await stream.write(PIECE)
    stream.finish()


async def hash_all(stream: MuxStream) -> str:
    digest, size = hashlib.sha256(), 0
    while pieces := await stream.receive_pieces(2**20):
        for piece in pieces:
            digest.update(piece)
            size += len(piece)
    return f"{size} {digest.hexdigest()}"


async def read_all(stream: MuxStream) -> bytes:
    data = b""
    while pieces := await stream.receive_pieces(2**20):
        data += joined(pieces)
    return data


async def test_js_node_when_dialled_echoes_carries_bulk_resets_and_half_closes(peer_script: Path, nursery: trio.Nursery) -> None:
    """Goal: our dialler, its listener. Method: one of everything, the bulk both ways at once beside 100 echoes, hashes compared."""
    with trio.fail_after(PATIENCE_S):
        process = await trio.lowlevel.open_process(
            ["node", str(peer_script), "listen"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=peer_script.parent
        )
        try:
            assert process.stdout is not None
            line = b""
            while not line.endswith(b"\n"):
                line += await process.stdout.receive_some()
            _, _, host, _, port, _, peer = line.decode().strip().split("/")
            connection = await dial(host, int(port), ID.from_base58(peer))
            nursery.start_soon(connection.run)
            await _use_js_node(connection)
            nursery.cancel_scope.cancel()
        finally:
            process.kill()


async def _use_js_node(connection: StandardConnection) -> None:
    heard: dict[str, str] = {}
    echoed = 0

    async def upload() -> None:
        stream = await connection.open("/sink/1")
        await send_bulk(stream)
        heard["sink"] = (await read_all(stream)).decode()

    async def download() -> None:
        stream = await connection.open("/source/1")
        stream.finish()
        heard["source"] = await hash_all(stream)

    async def echo(number: int) -> None:
        nonlocal echoed
        stream = await connection.open("/echo/1")
        await stream.write(b"%d" % number)
        stream.finish()
        assert await read_all(stream) == b"%d" % number
        echoed += 1

    async with trio.open_nursery() as talking:
        talking.start_soon(upload)
        talking.start_soon(download)
        for number in range(100):
            talking.start_soon(echo, number)
    assert heard == {"sink": f"{BULK} {BULK_HASH}", "source": f"{BULK} {BULK_HASH}"}
    assert echoed == 100
    assert await _is_reset(connection)
    assert not await _speaks(connection, "/unknown/1")
    ours = await connection.open("/source/1")
    await ours.receive_pieces(1000)
    ours.reset()  # the other side is in the middle of 64 MiB
    await echo(1)


async def _is_reset(connection: StandardConnection) -> bool:
    try:
        stream = await connection.open("/reset/1")
        await stream.read(1)
    except StreamBroken as error:
        return "reset" in error.message
    return False


async def _speaks(connection: StandardConnection, protocol: str) -> bool:
    try:
        await connection.open(protocol)
    except AssertionError:
        return False
    return True


async def test_js_node_when_it_dials_finds_the_same(peer_script: Path, nursery: trio.Nursery) -> None:
    """Goal: its dialler, our listener. Method: the same, asked for by the other side; what it reports, and what we heard."""
    heard: list[str] = []

    async def converse(protocol: str, stream: MuxStream) -> None:
        try:
            match protocol:
                case "/echo/1":
                    await stream.write(await read_all(stream))
                    stream.finish()
                case "/sink/1":
                    heard.append(await hash_all(stream))
                    await stream.write(heard[-1].encode())
                    stream.finish()
                case "/source/1":
                    await send_bulk(stream)
                case _:
                    stream.reset()
        except StreamBroken:
            heard.append("broken")

    async def serve(tcp: trio.SocketStream) -> None:
        connection = await welcome(tcp)
        nursery.start_soon(_run_until_lost, connection)
        while True:
            protocol, stream = await connection.accept(lambda proposed: proposed.endswith("/1"))
            nursery.start_soon(converse, protocol, stream)

    with trio.fail_after(PATIENCE_S):
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        nursery.start_soon(trio.serve_listeners, serve, [listener])
        address = f"/ip4/127.0.0.1/tcp/{listener.socket.getsockname()[1]}/p2p/{answerer_id().to_base58()}"
        done = await trio.run_process(["node", str(peer_script), "dial", address], capture_stdout=True, cwd=peer_script.parent)
    results = json.loads(done.stdout)
    assert results.pop("reset") in ("reset", "StreamResetError")
    assert results == {"echo": "hello", "up": f"{BULK} {BULK_HASH}", "down": f"{BULK} {BULK_HASH}", "again": "still here"}
    assert heard == [f"{BULK} {BULK_HASH}"]
    nursery.cancel_scope.cancel()


async def _run_until_lost(connection: StandardConnection) -> None:
    try:
        await connection.run()
    except* StreamBroken:
        pass  # it hangs up when it is done
