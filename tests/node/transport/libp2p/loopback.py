"""Our transports on loopback, and ways to look underneath them."""

from __future__ import annotations

import ctypes
import gc
import os
import socket
from collections.abc import Callable

import pytest
import trio
import trio.testing

from node.transport.libp2p.connection import Libp2pConnection
from node.transport.libp2p.transport import Libp2pTransport
from protocols.types import NetworkId

from ..manners import FENCE, start

NETWORK = NetworkId(b"n" * 32)
SO_ATTACH_FILTER = 26  # Linux


LANE = os.environ.get("LADING_LANE", "own")
"""What tests run on that do not say so themselves."""
OWN_LANES = ("own", "own")
"""For what only our session and muxer promise: bounds that the library's lack, two-way bulk, words of our own."""


class LoopbackWorld:
    """Transports on loopback, each with a key made of its name. lanes: alice's, and everybody else's."""

    def __init__(self, lanes: tuple[str, str] = (LANE, LANE)) -> None:
        self.lanes = lanes

    def transport(self, name: str) -> Libp2pTransport:
        return self.transport_at(name, "/ip4/127.0.0.1/tcp/0")

    def transport_at(self, name: str, address: str) -> Libp2pTransport:
        return Libp2pTransport(name.encode().ljust(32, b"."), NETWORK, [address], lane=self.lanes[name != "alice"])

    def nowhere(self) -> str:
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            return f"/ip4/127.0.0.1/tcp/{sock.getsockname()[1]}"


async def connect_ours(nursery: trio.Nursery, lanes: tuple[str, str] = (LANE, LANE)) -> tuple[Libp2pConnection, Libp2pConnection]:
    """(dialler's end, acceptor's end)."""
    world = LoopbackWorld(lanes)
    alice, bob = world.transport("alice"), world.transport("bob")
    await start(nursery, alice)
    address = await start(nursery, bob)
    dialled = await alice.dial(address, bob.peer_id, FENCE)
    accepted = await bob.accept()
    dialled.trust()
    accepted.trust()
    return dialled, accepted


def port_of(address: str) -> int:
    return int(address.rpartition("/")[2])


def deafen(sock: socket.socket | trio.socket.SocketType) -> None:
    """Makes the kernel drop whatever arrives for this socket, answers included: a pulled cable. For tests marked ``needs_deafening``."""
    drop_all = ctypes.create_string_buffer((6).to_bytes(2, "little") + bytes(6))  # BPF_RET | BPF_K, 0 bytes
    program = (1).to_bytes(8, "little") + ctypes.addressof(drop_all).to_bytes(8, "little")
    sock.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def _can_deafen() -> bool:
    with socket.socket() as sock:
        try:
            deafen(sock)
        except PermissionError:
            return False
    return True


needs_deafening = pytest.mark.skipif(
    not _can_deafen(), reason="this system lets a TCP socket be filtered with CAP_NET_ADMIN only: no cable can be pulled"
)
"""Most kernels let everybody filter his own sockets."""


async def settled() -> tuple[int, int]:
    """(tasks, open files) once everything has come to rest, earlier tests' garbage included."""
    await trio.testing.wait_all_tasks_blocked(0.01)
    gc.collect()
    return trio.lowlevel.current_statistics().tasks_living, len(os.listdir("/proc/self/fd"))


async def rested(before: tuple[int, int]) -> None:
    """Waits until there are no more tasks and no more open files than ``before``: what a socket still has to say takes its time."""
    while any(now > then for now, then in zip(await settled(), before, strict=True)):  # noqa: ASYNC110
        await trio.sleep(0.01)


async def until(is_true: Callable[[], bool]) -> None:
    """Waits for something that no event tells of."""
    while not is_true():  # noqa: ASYNC110
        await trio.sleep(0.01)
