"""A protocol of one's own: a table, moves that neither wait nor send, and a few lines that connect it to a real encrypted stream.

One side guesses a number, the other says "higher" or "lower". The machines need no network, and so are easy to test.
"""

from __future__ import annotations

import enum

import trio

from node.transport.libp2p.transport import Libp2pTransport
from node.transport.port import PresharedKey, Stream
from protocols.codec import Record, decode, encode
from protocols.effects import Send
from protocols.machine import Machine, Outcome
from protocols.types import NetworkId

PROTOCOL = "/lading/guess/1"
NETWORK, FENCE = NetworkId(b"example".ljust(32)), PresharedKey("fence", b"example".ljust(32), b"known in here only".ljust(32))


class Say(Record, frozen=True):
    """What travels. Guesser: its guess. Keeper: 1 for higher, -1 for lower, 0 for right."""

    number: int


S = enum.Enum("S", "PLAYING OVER")


class Guesser(Machine):
    TABLE = {(S.PLAYING, Say): ("halve", frozenset({S.PLAYING, S.OVER}))}

    def __init__(self) -> None:
        super().__init__(S.PLAYING)
        self.low, self.high, self.guess = 0, 1000, 500

    def halve(self, event: Say, now_s: float) -> Outcome:
        if event.number == 0:
            return S.OVER, ()
        self.low, self.high = (self.guess, self.high) if event.number > 0 else (self.low, self.guess)
        self.guess = (self.low + self.high) // 2
        return S.PLAYING, (Send(Say(self.guess)),)


class Keeper(Machine):
    TABLE = {(S.PLAYING, Say): ("compare", frozenset({S.PLAYING, S.OVER}))}

    def compare(self, event: Say, now_s: float) -> Outcome:
        answer = (event.number < 742) - (event.number > 742)
        return (S.PLAYING if answer else S.OVER), (Send(Say(answer)),)


async def play(name: str, machine: Machine, stream: Stream) -> None:
    """The only part that waits: bytes in, event to the machine, effects out."""
    while machine.state is not S.OVER:
        for effect in machine.step(decode(await stream.receive(), Say), trio.current_time()):
            assert isinstance(effect, Send)
            print(f"{name} says {effect.message}")
            await stream.send(encode(effect.message))


async def main() -> None:
    async with trio.open_nursery() as network:
        alice, bob = (Libp2pTransport(bytes([seed]) * 32, NETWORK, ("/ip4/127.0.0.1/tcp/0",), keys=(FENCE,)) for seed in (1, 2))
        await network.start(alice.run)
        (address,) = await network.start(bob.run)
        connection = await alice.dial(address, bob.peer_id, FENCE)
        stream = await connection.open_stream(PROTOCOL)
        await stream.send(encode(Say(500)))
        async with trio.open_nursery() as players:
            players.start_soon(play, "guesser", Guesser(), stream)
            players.start_soon(play, "keeper", Keeper(S.PLAYING), await (await bob.accept()).accept_stream())
        network.cancel_scope.cancel()


if __name__ == "__main__":
    trio.run(main)
