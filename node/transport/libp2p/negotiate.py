"""multistream-select 1.0.0: which protocol is spoken from here on. Bounded in bytes and tries; the caller bounds the time.

A message is an unsigned varint length, then that many bytes, the last of which is a newline.
Source: https://github.com/multiformats/multistream-select
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from protocols.errors import Reason, RemoteError

from ..port import StreamBroken

HEADER = "/multistream/1.0.0"
REFUSAL = "na"
# Two varint bytes could say 16 383; a protocol id of ours has under 64.
MESSAGE_BYTES_MAX = 256
PROPOSALS_MAX = 8


class ByteStream(Protocol):
    """What is negotiated over: the socket, the encrypted session, or one stream."""

    async def read(self, n: int) -> bytes:
        """Exactly n bytes, or StreamBroken."""

    async def write(self, data: bytes) -> None:
        """All of it, or StreamBroken."""


def encode(*texts: str) -> bytes:
    """The messages, one behind the other."""
    out = bytearray()
    for text in texts:
        body = text.encode() + b"\n"
        assert len(body) <= MESSAGE_BYTES_MAX
        size = len(body)
        while size > 127:
            out.append(size & 127 | 128)
            size >>= 7
        out.append(size)
        out += body
    return bytes(out)


async def read_message_untrusted(stream: ByteStream) -> str:
    """Next message without its newline. Raises RemoteError(MALFORMED or TOO_LONG), StreamBroken."""
    size = shift = 0
    while True:
        (byte,) = await stream.read(1)
        size |= (byte & 127) << shift
        shift += 7
        if size > MESSAGE_BYTES_MAX or shift > 14:
            raise RemoteError(Reason.TOO_LONG, f"negotiation message of {size} bytes, at most {MESSAGE_BYTES_MAX} wanted")
        if byte < 128:
            break
    body = await stream.read(size)
    if not body.endswith(b"\n"):
        raise RemoteError(Reason.MALFORMED, "negotiation message without its newline")
    try:
        return body[:-1].decode()
    except UnicodeDecodeError as error:
        raise RemoteError(Reason.MALFORMED, "negotiation message is not UTF-8") from error


async def propose(stream: ByteStream, *protocols: str) -> str | None:
    """Asks for one protocol after the other; the first that the peer speaks, None when it speaks none. One round trip each: header and
    first proposal leave together."""
    for index, protocol in enumerate(protocols):
        await stream.write(encode(protocol) if index else encode(HEADER, protocol))
        got = await read_message_untrusted(stream)
        if not index:
            if got != HEADER:
                raise RemoteError(Reason.MALFORMED, f"negotiation began with {got!r}, {HEADER!r} wanted")
            got = await read_message_untrusted(stream)
        if got not in (protocol, REFUSAL):
            raise RemoteError(Reason.MALFORMED, f"negotiation answered {got!r}, {protocol!r} wanted")
        if got == protocol:
            return protocol
    return None


async def respond(stream: ByteStream, speaks: Callable[[str], bool]) -> str:
    """The protocol that the peer proposed and we speak. Raises RemoteError, StreamBroken (after PROPOSALS_MAX refusals)."""
    got = await read_message_untrusted(stream)
    if got != HEADER:
        raise RemoteError(Reason.MALFORMED, f"negotiation began with {got!r}, {HEADER!r} wanted")
    await stream.write(encode(HEADER))  # at once: other implementations wait for it before they propose
    for _ in range(PROPOSALS_MAX):
        protocol = await read_message_untrusted(stream)
        if speaks(protocol):
            await stream.write(encode(protocol))
            return protocol
        await stream.write(encode(REFUSAL))
    raise StreamBroken("the peer proposed no protocol that we speak")
