"""Who we are, the fence, and the encrypted session. The one file that uses the library's handshake.

Fence: Noise XXpsk0. The first handshake message is already sealed under a pre-shared key, so a responder that finds none of
its keys fitting hangs up before it has said who it is. The network id is the prologue: a key never works in another network.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import trio

from protocols.crypto import CounterCipher, SessionCipher
from protocols.errors import LadingError, Reason, RemoteError
from protocols.limits import NOISE_LENGTH_BYTES, RECEIVE_BUFFER_BYTES_MAX, RECEIVE_BUFFER_BYTES_MAX_UNPROVEN
from protocols.noise.machine import Arrived, Ended, Failed, Finished, NoiseSession, Plain, Tick
from protocols.types import NetworkId, PeerId
from protocols.yamux.pieces import Piece

from ..port import DialFailed, PresharedKey, StreamBroken
from .library import (
    ID,
    InvalidTag,
    NoiseConnection,
    PatternXX,
    PeerIDMismatchesPubkey,
    PrivateKey,
    ed25519_key_pair,
    x25519_key_pair,
)
from .wire import Wire

S = TypeVar("S")

# Each cipher has an id of its own; what was there before the second keeps the name without one.
SECURITY_NAMES = {SessionCipher.CHACHA20_POLY1305: "noise", SessionCipher.AES256_GCM: "noise-aes"}
# e (32 bytes) and the tag of an empty payload; the plain XX of a stranger has 32 and is refused by its length.
FIRST_MESSAGE_BYTES = 32 + 16
LENGTH_BYTES = NOISE_LENGTH_BYTES
# Identity multihash of a protobuf-wrapped Ed25519 key: the only peer ids of ours.
PEER_ID_PREFIX = bytes.fromhex("002408011220")
PEER_ID_BYTES = len(PEER_ID_PREFIX) + 32


def is_peer_id(peer: bytes) -> bool:
    """Whether it is the id of an Ed25519 key."""
    return len(peer) == PEER_ID_BYTES and peer.startswith(PEER_ID_PREFIX)


def security_protocol(network: NetworkId, cipher: SessionCipher = SessionCipher.CHACHA20_POLY1305) -> str:
    """Id under which the session is negotiated: nodes of two networks part before the handshake."""
    return f"/lading/{SECURITY_NAMES[cipher]}/1/{network.hex()[:16]}"


def pattern_name(cipher: SessionCipher) -> bytes:
    """The handshake's name, which both sides hash into it."""
    return b"Noise_XXpsk0_25519_%s_SHA256" % cipher.value.encode()


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

    def __init__(self, identity: Identity, secret: bytes, cipher: SessionCipher = SessionCipher.CHACHA20_POLY1305) -> None:
        super().__init__(ID(identity.peer), identity.signing_key, identity.static_key, prologue=bytes(identity.network))
        self.protocol_name = pattern_name(cipher)
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
    """What both directions say after the handshake: protocols/noise over one socket.

    One reader, one writer; a ``send`` that was begun must end or the connection is lost: it is called by one task that no
    conversation can cancel.
    """

    def __init__(self, wire: Wire, state: NoiseConnection, remote: PeerId, preshared_key: PresharedKey) -> None:
        """state: of the finished handshake; its keys and counters are taken over."""
        self.remote = remote
        self.preshared_key = preshared_key
        self.handshake_hash = bytes(state.get_handshake_hash())
        protocol = state.noise_protocol
        sending, receiving = protocol.cipher_state_encrypt, protocol.cipher_state_decrypt
        cipher = SessionCipher(protocol.name.decode().split("_")[3])
        self.core = NoiseSession(
            CounterCipher(sending.k, sending.n, cipher),
            CounterCipher(receiving.k, receiving.n, cipher),
            buffer_bytes_max=RECEIVE_BUFFER_BYTES_MAX_UNPROVEN,
        )
        self._wire = wire
        self._plain: tuple[bytes, ...] = ()
        self._failure: LadingError | None = None
        self._handle(self.core.feed(wire.take_buffered(), trio.current_time()))

    async def receive(self) -> tuple[bytes, ...]:
        """Everything plain that is there, at least one byte. Raises StreamBroken, RemoteError."""
        while not self._plain:
            if self._failure is not None:
                raise self._failure
            size = await self._wire.receive_into(self.core.room())
            self._handle(self.core.step(Arrived(size) if size else Ended(), trio.current_time()))
        plain, self._plain = self._plain, ()
        return plain

    def trust(self) -> None:
        """The peer is proven: it may have large buffers."""
        self.core.buffer_bytes_max = RECEIVE_BUFFER_BYTES_MAX

    @property
    def batch_bytes(self) -> int:
        """See Wire."""
        return self._wire.batch_bytes

    def tick(self, now_s: float) -> None:
        """Raises RemoteError when a message stayed half received."""
        self._handle(self.core.step(Tick(), now_s))
        if self._failure is not None and not self._plain:
            raise self._failure

    def _handle(self, effects: tuple[object, ...]) -> None:
        for effect in effects:
            if isinstance(effect, Plain):
                self._plain += effect.messages
            elif isinstance(effect, Failed):
                self._failure = effect.error
            elif isinstance(effect, Finished):
                self._failure = StreamBroken("the peer closed the connection")

    async def read(self, n: int) -> bytes:
        """Exactly n bytes: for negotiation."""
        data = b""
        while len(data) < n:
            data += b"".join(await self.receive())
        if len(data) > n:
            self._plain = (data[n:], *self._plain)
        return data[:n]

    async def send(self, pieces: Sequence[Piece]) -> None:
        """Seals and writes all of it."""
        await self._wire.write(memoryview(self.core.say(pieces, trio.current_time())))

    async def write(self, data: bytes) -> None:
        """As ``send``: for negotiation."""
        await self.send((data,))


def session_of(wire: Wire, secured: object, preshared_key: PresharedKey) -> Session:
    """Takes the finished Noise state out of the library's session; nothing was read beyond the handshake."""
    return Session(wire, secured.conn.noise_state, remote_of(secured), preshared_key)  # type: ignore[attr-defined]


def remote_of(secured: object) -> PeerId:
    """Whom the library's handshake has proven. Raises RemoteError(WRONG_PEER) when it is no Ed25519 key."""
    remote = PeerId(secured.get_remote_peer().to_bytes())  # type: ignore[attr-defined]
    if not is_peer_id(remote):
        raise RemoteError(Reason.WRONG_PEER, f"peer id {remote.hex()}, one of an Ed25519 key wanted")
    return remote


async def secure_outbound(
    wire: Wire,
    identity: Identity,
    peer: PeerId | None,
    preshared_key: PresharedKey,
    cipher: SessionCipher,
    session_of: Callable[[Wire, object, PresharedKey], S],
) -> S:
    """The initiator's handshake; ``session_of`` takes over what it leaves. Raises DialFailed(FENCE, WRONG_PEER, UNREACHABLE)."""
    pattern = _FencedPattern(identity, preshared_key.secret, cipher)
    try:
        secured = await pattern.handshake_outbound(wire, None if peer is None else ID(peer))
        return session_of(wire, secured, preshared_key)
    except StreamBroken as error:
        # The only thing awaited is the answer to the first message, and only the fence hangs up on that.
        raise DialFailed(Reason.FENCE, f"refused at the first handshake message under {preshared_key!r}") from error
    except (PeerIDMismatchesPubkey, RemoteError) as error:
        raise DialFailed(Reason.WRONG_PEER, "another node answers at this address") from error
    except Exception as error:  # a door: what the library raises for a peer that talks nonsense
        raise DialFailed(Reason.UNREACHABLE, f"handshake failed: {type(error).__name__}") from error


async def secure_inbound(
    wire: Wire,
    identity: Identity,
    keys: Sequence[PresharedKey],
    cipher: SessionCipher,
    session_of: Callable[[Wire, object, PresharedKey], S],
) -> S:
    """The responder's handshake; ``session_of`` takes over its end. Raises RemoteError(FENCE, MALFORMED, WRONG_PEER), StreamBroken."""
    size = int.from_bytes(await wire.read(LENGTH_BYTES), "big")
    if size != FIRST_MESSAGE_BYTES:
        raise RemoteError(Reason.FENCE, f"first handshake message of {size} bytes, {FIRST_MESSAGE_BYTES} wanted")
    first = await wire.read(size)
    for key in keys:
        pattern = _FencedPattern(identity, key.secret, cipher)
        if pattern.is_opener(first):
            break
        await trio.lowlevel.checkpoint()  # 0.1 ms each: a stranger's 128 tries do not hold the others up
    else:
        raise RemoteError(Reason.FENCE, f"none of {len(keys)} keys opens the first handshake message")
    wire.unread(size.to_bytes(LENGTH_BYTES, "big") + first)
    try:
        return session_of(wire, await pattern.handshake_inbound(wire), key)
    except LadingError:
        raise
    except Exception as error:  # a door: what the library raises for a peer that talks nonsense
        raise RemoteError(Reason.MALFORMED, f"handshake failed: {type(error).__name__}") from error
