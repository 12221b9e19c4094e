"""Who we are, the fence, and the encrypted session. The one file that imports libp2p's security.

Fence: Noise XXpsk0. The first handshake message is already sealed under a pre-shared key, so a responder that finds none of
its keys fitting hangs up before it has said who it is. The network id is the prologue: a key never works in another network.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version

import trio
from libp2p.crypto.ed25519 import create_new_key_pair as ed25519_key_pair
from libp2p.crypto.keys import PrivateKey
from libp2p.crypto.x25519 import create_new_key_pair as x25519_key_pair
from libp2p.peer.id import ID
from libp2p.security.noise.exceptions import PeerIDMismatchesPubkey
from libp2p.security.noise.patterns import PatternXX
from noise.connection import InvalidTag, NoiseConnection

from protocols.errors import LadingError, Reason, RemoteError
from protocols.types import NetworkId, PeerId

from ..port import DialFailed, PresharedKey, StreamBroken
from .wire import Wire

LIBP2P_VERSION = "0.8.1"
# Each release moved private parts that this folder stands on; a new one is read and tested first.
if version("libp2p") != LIBP2P_VERSION:
    raise ImportError(f"libp2p {version('libp2p')} is installed, {LIBP2P_VERSION} wanted")

PATTERN = b"Noise_XXpsk0_25519_ChaChaPoly_SHA256"
# e (32 bytes) and the tag of an empty payload; the plain XX of a stranger has 32 and is refused by its length.
FIRST_MESSAGE_BYTES = 32 + 16
LENGTH_BYTES = 2
MESSAGE_BYTES_MAX = 65535
PLAIN_BYTES_MAX = MESSAGE_BYTES_MAX - 16
# Identity multihash of a protobuf-wrapped Ed25519 key: the only peer ids of ours.
PEER_ID_PREFIX = bytes.fromhex("002408011220")
PEER_ID_BYTES = len(PEER_ID_PREFIX) + 32


def is_peer_id(peer: bytes) -> bool:
    """Whether it is the id of an Ed25519 key."""
    return len(peer) == PEER_ID_BYTES and peer.startswith(PEER_ID_PREFIX)


def security_protocol(network: NetworkId) -> str:
    """Id under which the session is negotiated: nodes of two networks part before the handshake."""
    return f"/lading/noise/1/{network.hex()[:16]}"


@dataclass(frozen=True, slots=True)
class Identity:
    """Keys of one node: the signing key that makes its peer id, and the Noise static key that lives as long as the process."""

    network: NetworkId
    peer: PeerId
    signing_key: PrivateKey
    static_key: PrivateKey

    @classmethod
    def from_seed(cls, key_seed: bytes, network: NetworkId) -> Identity:
        """key_seed: 32 bytes (RFC 8032)."""
        pair = ed25519_key_pair(key_seed)
        return cls(network, PeerId(ID.from_pubkey(pair.public_key).to_bytes()), pair.private_key, x25519_key_pair().private_key)

    def __repr__(self) -> str:
        return f"Identity({self.peer.hex()[-8:]})"


class _FencedPattern(PatternXX):  # type: ignore[misc]
    """The library's XX handshake under a pre-shared key."""

    def __init__(self, identity: Identity, secret: bytes) -> None:
        super().__init__(ID(identity.peer), identity.signing_key, identity.static_key, prologue=bytes(identity.network))
        self.protocol_name = PATTERN
        self._secret = secret

    def create_noise_state(self, prologue: bytes | None = None) -> NoiseConnection:
        state = super().create_noise_state(prologue)
        state.set_psks(psk=self._secret)
        return state

    def is_opener(self, first_message: bytes) -> bool:
        """Whether this key seals the initiator's first message."""
        state = self.create_noise_state(self.prologue)
        state.set_as_responder()
        state.start_handshake()
        try:
            state.read_message(first_message)
        except (InvalidTag, ValueError):
            return False
        return True


class Session:
    """What both directions say after the handshake, in Noise messages of at most 64 KiB, many at a time.

    One reader, one writer; a ``send`` that was begun must end or the connection is lost: it is called by one task that no
    conversation can cancel.
    """

    def __init__(self, wire: Wire, state: NoiseConnection, remote: PeerId, preshared_key: PresharedKey) -> None:
        self.remote = remote
        self.preshared_key = preshared_key
        self.handshake_hash = bytes(state.get_handshake_hash())
        self._wire = wire
        self._state = state
        self._sealed = bytearray()
        self._plain = bytearray()

    async def receive(self) -> bytes:
        """All plain bytes that are there, at least one. Raises StreamBroken."""
        while not self._plain:
            self._sealed += await self._wire.read_some()
            self._open_messages()
        data = bytes(self._plain)
        self._plain.clear()
        return data

    def _open_messages(self) -> None:
        position = 0
        while len(self._sealed) - position >= LENGTH_BYTES:
            begin = position + LENGTH_BYTES
            end = begin + int.from_bytes(self._sealed[position:begin], "big")
            if len(self._sealed) < end:
                break
            try:
                self._plain += self._state.decrypt(bytes(self._sealed[begin:end]))
            except Exception as error:  # a door: the library has several classes for one bad message
                raise StreamBroken("the connection was tampered with") from error
            position = end
        del self._sealed[:position]

    async def read(self, n: int) -> bytes:
        """Exactly n bytes."""
        data = bytearray()
        while len(data) < n:
            data += await self.receive()
        self._plain[:0] = data[n:]
        return bytes(data[:n])

    async def send(self, data: bytes) -> None:
        """Seals and writes all of it."""
        pieces: list[bytes] = []
        for begin in range(0, len(data), PLAIN_BYTES_MAX):
            sealed = self._state.encrypt(data[begin : begin + PLAIN_BYTES_MAX])
            pieces += (len(sealed).to_bytes(LENGTH_BYTES, "big"), sealed)
        await self._wire.write(b"".join(pieces))

    write = send


def _session(wire: Wire, secured: object, preshared_key: PresharedKey) -> Session:
    """Takes the finished Noise state out of the library's session; nothing was read beyond the handshake."""
    remote = PeerId(secured.get_remote_peer().to_bytes())  # type: ignore[attr-defined]
    if not is_peer_id(remote):
        raise RemoteError(Reason.WRONG_PEER, f"peer id {remote.hex()}, one of an Ed25519 key wanted")
    return Session(wire, secured.conn.noise_state, remote, preshared_key)  # type: ignore[attr-defined]


async def secure_outbound(wire: Wire, identity: Identity, peer: PeerId | None, preshared_key: PresharedKey) -> Session:
    """The initiator's handshake. Raises DialFailed(FENCE, WRONG_PEER, UNREACHABLE)."""
    pattern = _FencedPattern(identity, preshared_key.secret)
    try:
        secured = await pattern.handshake_outbound(wire, None if peer is None else ID(peer))
        return _session(wire, secured, preshared_key)
    except StreamBroken as error:
        # The only thing awaited is the answer to the first message, and only the fence hangs up on that.
        raise DialFailed(Reason.FENCE, f"refused at the first handshake message under {preshared_key!r}") from error
    except (PeerIDMismatchesPubkey, RemoteError) as error:
        raise DialFailed(Reason.WRONG_PEER, "another node answers at this address") from error
    except Exception as error:  # a door: what the library raises for a peer that talks nonsense
        raise DialFailed(Reason.UNREACHABLE, f"handshake failed: {type(error).__name__}") from error


async def secure_inbound(wire: Wire, identity: Identity, keys: Sequence[PresharedKey]) -> Session:
    """The responder's handshake. Raises RemoteError(FENCE, MALFORMED, WRONG_PEER), StreamBroken."""
    size = int.from_bytes(await wire.read(LENGTH_BYTES), "big")
    if size != FIRST_MESSAGE_BYTES:
        raise RemoteError(Reason.FENCE, f"first handshake message of {size} bytes, {FIRST_MESSAGE_BYTES} wanted")
    first = await wire.read(size)
    for key in keys:
        pattern = _FencedPattern(identity, key.secret)
        if pattern.is_opener(first):
            break
        await trio.lowlevel.checkpoint()  # 0.1 ms each: a stranger's 128 tries do not hold the others up
    else:
        raise RemoteError(Reason.FENCE, f"none of {len(keys)} keys opens the first handshake message")
    wire.unread(size.to_bytes(LENGTH_BYTES, "big") + first)
    try:
        return _session(wire, await pattern.handshake_inbound(wire), key)
    except LadingError:
        raise
    except Exception as error:  # a door: what the library raises for a peer that talks nonsense
        raise RemoteError(Reason.MALFORMED, f"handshake failed: {type(error).__name__}") from error
