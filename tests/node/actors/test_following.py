"""Which stream is about which chain."""

from __future__ import annotations

import pytest
import trio

from node.actors.following import Topics
from node.transport.port import Stream, StreamBroken, StreamEnded
from protocols.errors import Reason, RemoteError
from protocols.ledger.messages import Hello, Want
from protocols.limits import LEDGER_SILENCE_MAX_S, LEDGER_STREAMS_PER_CHAIN_MAX
from protocols.registry import encode_message, protocol_id
from protocols.types import ChainId, PeerId

from .streams import ALICE, connected, live

LEDGER = protocol_id("ledger")
ONE, OTHER, UNKNOWN = (ChainId(bytes([number]) * 32) for number in range(3))


class Served:
    """Serves until the stream ends, and notes what came."""

    def __init__(self) -> None:
        self.came: list[bytes] = []

    async def serve(self, stream: Stream, peer: PeerId) -> None:
        assert peer == ALICE
        try:
            while True:
                self.came.append(await stream.receive())
        except (StreamEnded, StreamBroken):
            pass


def hello(chain: ChainId) -> bytes:
    return encode_message("ledger", Hello(chain, bytes(32)))


def test_each_stream_goes_to_the_chain_that_it_names_and_others_are_reset() -> None:
    """Goal: routing by the first message, which is read once more by whom it is for. Method: streams about two chains, about one that is
    not followed, more than one peer may have, one that begins with something else, one that says nothing."""

    async def story() -> None:
        servers = {ONE: Served(), OTHER: Served()}
        topics = Topics(servers)
        async with connected(LEDGER) as pair:

            async def opened(first: bytes) -> Stream:
                near, far = await pair.stream(LEDGER)
                if first:
                    await near.send(first)
                pair.nursery.start_soon(topics.serve, far, ALICE)
                return near

            async def is_reset(stream: Stream) -> bool:
                with trio.move_on_after(LEDGER_SILENCE_MAX_S + 1):
                    try:
                        await stream.receive()
                    except (StreamBroken, StreamEnded):
                        return True
                return False

            first, second = await opened(hello(ONE)), await opened(hello(OTHER))
            await first.send(b"more")
            await trio.sleep(1)
            assert servers[ONE].came == [hello(ONE), b"more"]
            assert servers[OTHER].came == [hello(OTHER)]
            assert await is_reset(await opened(hello(UNKNOWN)))
            held = [first, *[await opened(hello(ONE)) for _ in range(LEDGER_STREAMS_PER_CHAIN_MAX - 1)]]
            await trio.sleep(1)
            assert await is_reset(await opened(hello(ONE))), "so many are enough"
            held[-1].reset()
            await trio.sleep(1)
            again = await opened(hello(ONE))
            await trio.sleep(1)
            assert servers[ONE].came.count(hello(ONE)) == LEDGER_STREAMS_PER_CHAIN_MAX + 1
            assert await is_reset(await opened(b"")), "who says nothing"
            for stream in (second, again, first):
                stream.reset()
            near, far = await pair.stream(LEDGER)
            await near.send(encode_message("ledger", Want((), ())))
            with pytest.raises(RemoteError) as refused:
                await topics.serve(far, ALICE)
            assert refused.value.reason is Reason.OUT_OF_ORDER
            pair.nursery.cancel_scope.cancel()

    live(story)
