"""Unix sockets: paths longer than an address allows, and who is at the other end."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from protocols.errors import LadingError, Reason

# sun_path: 108 bytes with the final zero on Linux, 104 elsewhere. Homes in deep folders are longer.
ADDRESS_BYTES_MAX = 103
_CREDENTIALS = struct.Struct("3i")  # struct ucred: pid, uid, gid (unix(7))


@contextmanager
def socket_address(path: Path) -> Iterator[str]:
    """A short address for ``path``, valid inside the block.

    Where the path is too long, the folder is opened and named by its descriptor under /proc. Raises LadingError(FAILED) where that
    is not possible either; OSError when the folder is not there.
    """
    if len(os.fsencode(path)) <= ADDRESS_BYTES_MAX:
        yield str(path)
        return
    if not os.path.isdir("/proc/self/fd"):
        raise LadingError(
            Reason.FAILED,
            f"the socket path {path} has {len(os.fsencode(path))} bytes; this system allows {ADDRESS_BYTES_MAX}",
            hint="use a home directory with a shorter path (--home DIR)",
        )
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{folder}/{path.name}"
    finally:
        os.close(folder)


def peer_credentials(raw: bytes) -> tuple[int, int]:
    """(pid, uid) from the bytes of SO_PEERCRED."""
    pid, uid, _ = _CREDENTIALS.unpack(raw)
    return pid, uid


PEER_CREDENTIALS_OPTION: int | None = getattr(socket, "SO_PEERCRED", None)
"""None where the system has no such option; then only the socket's mode 0600 guards it."""
PEER_CREDENTIALS_BYTES = _CREDENTIALS.size
