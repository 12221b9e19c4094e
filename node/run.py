"""`lading start`: one process, one home, one node, until it is told to stop."""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import trio

from protocols.codec import to_json
from protocols.errors import InvalidObject, LadingError, LocalError, Reason
from protocols.identity.keyfiles import encode_key_file, key_file
from protocols.identity.peers import peer_id_text
from protocols.types import PeerId
from storage.engine import Env
from storage.lmdb_engine import LmdbEngine
from storage.lock import HomeLock
from storage.migrations import migrate

from . import chain_further, config
from .actors.chain import ChainSetup
from .api import NodeApi
from .chain_home import ChainFile, chain_setup, read_chain_file
from .clock import SystemClock
from .entropy import SystemEntropy
from .home import (
    CHUNKS_FOLDER,
    LEDGER_BUDGET_BYTES,
    LEDGER_FOLDER,
    LEDGER_RESERVE_BYTES,
    WRITTEN_BY,
    first_facts,
    member_key_file,
    open_home,
)
from .http.client import SOCKET_NAME
from .http.server import serve
from .offload import WRITER_LANES, ThreadOffload
from .own import OwnKeys
from .probe import instruments
from .wiring import Further, Node, World

log = logging.getLogger(__name__)

DISCOVERED_MAX = 64
# How long a busy thread keeps the interpreter when the loop wants it (Python: 5 ms). Sealing 512 KiB gives it up eight times.
SWITCH_INTERVAL_S = 0.0005


def run_node(home: Path, *, overrides: Mapping[str, object], json_ready: bool, passphrase: Callable[[], bytes]) -> int:
    """Runs the node of ``home``. Result: the exit code. Raises LadingError for what keeps it from starting."""
    loaded = config.load(home, flags=overrides, environment=os.environ)
    settings = loaded.config
    _configure_logging(settings.log_level)
    if sys.stderr is not None:
        faulthandler.enable()  # a library that brings the process down leaves there what each thread was at
    with HomeLock(home):
        migrate(home, written_by=WRITTEN_BY)
        once: list[bytes] = []

        def ask() -> bytes:
            if not once:
                once.append(passphrase())
            return once[0]

        own = open_home(home, ask)
        member = member_key_file(home, ask)
        member_keys = encode_key_file(key_file(member)) if member is not None else b""
        chain_file = _chain_file(home, is_followed=settings.ledger != "off")
        seed = own.member.signing.seed if own.member is not None else None
        chain = chain_setup(home, own.member_id, ask, member_seed=seed) if settings.ledger != "off" else None
        further = chain_further.setups(home, own.member_id, ask, member_seed=seed) if chain is not None else ()
        once.clear()
        budget = config.store_budget(settings, shutil.disk_usage(home).total)
        ledger = LmdbEngine(home / LEDGER_FOLDER, Env.LEDGER, budget_bytes=LEDGER_BUDGET_BYTES, reserve_bytes=LEDGER_RESERVE_BYTES)
        if ledger.read_only:
            ledger.close()
            raise LadingError(
                Reason.STORE_FULL,
                f"{home} is on a read-only disk: a node cannot keep what it promises there",
                hint="nothing is lost: make the disk writable and start again; dmesg says why a disk went read-only by itself",
            )
        try:
            chunks = LmdbEngine(home / CHUNKS_FOLDER, Env.CHUNKS, budget_bytes=budget, reserve_bytes=settings.store_reserve_bytes)
        except BaseException:
            ledger.close()
            raise
        opened: list[Further] = []
        try:
            for one in further:
                opened.append(Further(one, chain_further.open_database(home, one.chain), chain_further.lane_of(one.chain)))
            return trio.run(
                partial(_main, home, settings, own, member_keys, ledger, chunks, json_ready, chain, chain_file, opened),
                instruments=instruments(os.environ),
            )
        finally:
            for chain_engine in [one.engine for one in opened]:
                chain_engine.close()
            chunks.close()
            ledger.close()


def _chain_file(home: Path, *, is_followed: bool) -> ChainFile | None:
    """Which chain the home has. One that is damaged keeps nobody from running a node that does not follow it."""
    try:
        return read_chain_file(home)
    except InvalidObject:
        if is_followed:
            raise
        return None


async def _main(
    home: Path,
    settings: config.Config,
    own: OwnKeys,
    member_keys: bytes,
    ledger: LmdbEngine,
    chunks: LmdbEngine,
    json_ready: bool,
    chain: ChainSetup | None,
    chain_file: ChainFile | None,
    further: Sequence[Further],
) -> int:
    from .transport.libp2p.transport import Libp2pTransport  # slow to load: after everything that can refuse

    with ThreadOffload((*WRITER_LANES, *(one.lane for one in further))) as offload:
        transport = Libp2pTransport(own.node.seed, own.network_id, settings.listen, lane=settings.lane)
        world = World(transport, ledger, chunks, SystemClock(), SystemEntropy(), offload)
        node = Node(own, settings, world, first_facts(own), chain, further)
        node.membership.member_keys = member_keys
        if chain_file is not None:
            node.anchor = chain_file.anchor
        api = NodeApi(node)
        tune_interpreter()
        failure: list[LadingError] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_watch_signals, node)
            ended = trio.Event()

            async def life() -> None:
                try:
                    await node.run()
                except LocalError as error:
                    failure.append(error)
                finally:
                    ended.set()

            nursery.start_soon(life)

            async def when_ready() -> None:
                await node.ready.wait()
                socket_path = home / SOCKET_NAME
                await nursery.start(lambda task_status: serve(api, socket_path, allowed_uid=os.getuid(), task_status=task_status))
                if settings.mdns:
                    nursery.start_soon(_discover, node)
                _say_ready(node, socket_path, as_json=json_ready)

            nursery.start_soon(when_ready)
            await ended.wait()
            nursery.cancel_scope.cancel()
        if failure:
            raise failure[0]
        return node_exit_code(node)


def node_exit_code(node: Node) -> int:
    """0 after `lading stop`; 143 and 130 after a signal, as a shell would say."""
    return {"SIGTERM": 143, "SIGINT": 130}.get(node.supervisor.reason, 0)


async def _watch_signals(node: Node) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        seen = 0
        async for number in signals:
            seen += 1
            if seen > 1:
                # The second time is meant: the store survives this by design.
                os._exit(128 + number)
            node.stop(signal.Signals(number).name)


async def _discover(node: Node) -> None:
    """Whoever is seen on the local network is dialled; the fence and `auth` decide the rest."""
    from .transport.libp2p.discovery import Sighting, discover

    port = next((int(address.split("/")[4]) for address in node.listen if "/tcp/" in address), 0)
    sender, receiver = trio.open_memory_channel[Sighting](DISCOVERED_MAX)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(discover, node.own.network_id, node.own.peer_id, port, sender)
        async for sighting in receiver:
            if len(node.peers.hints) < DISCOVERED_MAX or sighting.peer in node.peers.hints:
                node.peers.hints[PeerId(sighting.peer)] = tuple(sighting.addresses)
                node.peers.wake()


def _say_ready(node: Node, socket_path: Path, *, as_json: bool) -> None:
    own = node.own
    if as_json:
        line = to_json(
            {
                "ready": True,
                "node": own.identity.host,
                "peer_id": peer_id_text(own.peer_id),
                "listen": list(node.listen),
                "api": str(socket_path),
                "pid": os.getpid(),
            }
        ).decode()
    else:
        where = ", ".join(node.listen)
        line = f"{own.identity.member}/{own.identity.host} of {own.identity.domain} is ready on {where} (Ctrl-C stops it)"
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _configure_logging(level: str) -> None:
    """To stderr, where a service manager or a person looks. libp2p is loaded later and brings its own handlers: see there."""
    logging.basicConfig(
        level=getattr(logging, level.upper()), stream=sys.stderr, format="%(asctime)s %(levelname)s %(name)s %(message)s", force=True
    )


def tune_interpreter() -> None:
    """Threads take short turns. What exists now lives as long as the node: looking at it again and again would hold the loop for tens of
    milliseconds."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
