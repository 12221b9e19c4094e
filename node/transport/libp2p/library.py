"""All that is taken from py-libp2p, and little of it beyond what that needs.

``import libp2p.peer.id`` runs ``libp2p/__init__.py`` first, and that imports everything the library has: WebSockets, the DHT, resource
managers, HTTP clients, DNS, databases. The packages in DEFERRED import what is not used here and was a third of the processor time in
which a node starts. Python knows them, and imports what is in them, without running their ``__init__.py``; that runs when the first
name is asked for that it defines (``libp2p.new_host``), so that whoever wants the whole library finds it as it is.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from importlib.metadata import version
from types import ModuleType
from typing import Any

LIBP2P_VERSION = "0.8.1"
# Each release moved private parts that this folder stands on; a new one is read and tested first.
if version("libp2p") != LIBP2P_VERSION:
    raise ImportError(f"libp2p {version('libp2p')} is installed, {LIBP2P_VERSION} wanted")


DEFERRED = frozenset({"libp2p", "libp2p.security", "libp2p.transport"})
"""Packages whose own file waits. Found by `python -X importtime`; the others cost little."""


class _Waiting(ModuleType):
    """A package whose ``__init__.py`` has not run. What is in the folder can be imported; a name that is missing runs it."""

    def __getattr__(self, name: str) -> Any:
        assert self.__spec__ is not None
        loader = self.__spec__.loader
        assert isinstance(loader, _WaitingLoader)
        self.__class__ = ModuleType  # type: ignore[assignment]
        try:
            loader.real.exec_module(self)
        except BaseException:
            self.__class__ = _Waiting
            raise
        return getattr(self, name)


class _WaitingLoader(Loader):
    """Loads nothing yet. real: what will."""

    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Waiting


class _Finder(MetaPathFinder):
    """Finds the packages of DEFERRED where Python finds them, and no other."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if fullname not in DEFERRED:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _WaitingLoader(spec.loader)
        return spec


sys.meta_path.insert(0, _Finder())
# The only thing that libp2p/__init__.py does besides defining names: the library says warnings and worse, not more.
logging.getLogger("libp2p").setLevel(logging.WARNING)

from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_key_pair  # noqa: E402  # after the finder stands
from libp2p.crypto.keys import PrivateKey  # noqa: E402
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair  # noqa: E402
from libp2p.io.exceptions import ConnectionClosedError  # noqa: E402
from libp2p.peer.id import ID  # noqa: E402
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey  # noqa: E402
from libp2p.security.noise.patterns import PatternXX  # noqa: E402
from libp2p.stream_muxer.exceptions import MuxedStreamEOF  # noqa: E402
from libp2p.stream_muxer.yamux.yamux import Yamux  # noqa: E402
from multiaddr import Multiaddr  # noqa: E402
from noise.connection import InvalidTag, NoiseConnection  # noqa: E402

__all__ = [
    "ID",
    "LIBP2P_VERSION",
    "ConnectionClosedError",
    "InvalidTag",
    "Multiaddr",
    "MuxedStreamEOF",
    "NoiseConnection",
    "PatternXX",
    "PeerIDMismatchesPubkey",
    "PrivateKey",
    "Yamux",
    "ed25519_key_pair",
    "x25519_key_pair",
]
