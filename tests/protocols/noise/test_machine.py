"""The sealed session: splits, cuts, changed bytes, time, buffers, and every short sequence of events."""

from __future__ import annotations

import itertools
import random

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from hypothesis import given
from hypothesis import strategies as st

from protocols.crypto import CounterCipher, SessionCipher
from protocols.errors import InvalidObject, LadingError, Reason, RemoteError
from protocols.limits import (
    HALF_RECEIVED_MAX_S,
    NOISE_MESSAGE_BYTES_MAX,
    NOISE_PLAIN_BYTES_MAX,
    RECEIVE_BUFFER_BYTES_MAX,
    RECEIVE_BUFFER_BYTES_MIN,
)
from protocols.noise.machine import Arrived, Ended, Failed, Finished, NoiseSession, Plain, Say, Sealed, SessionState, Tick

KEYS = (b"1" * 32, b"2" * 32)


CHACHA, AES = SessionCipher.CHACHA20_POLY1305, SessionCipher.AES256_GCM


def pair(*, counter: int = 0, cipher: SessionCipher = CHACHA) -> tuple[NoiseSession, NoiseSession]:
    """Both ends, after a handshake."""
    left = NoiseSession(CounterCipher(KEYS[0], counter, cipher), CounterCipher(KEYS[1], counter, cipher))
    right = NoiseSession(CounterCipher(KEYS[1], counter, cipher), CounterCipher(KEYS[0], counter, cipher))
    return left, right


def plain_of(effects: tuple[object, ...]) -> bytes:
    return b"".join(b"".join(effect.messages) for effect in effects if isinstance(effect, Plain))


def failures_of(effects: tuple[object, ...]) -> list[Reason]:
    return [effect.error.reason for effect in effects if isinstance(effect, Failed)]


def reference(messages: list[bytes], *, counter: int = 0, cipher: SessionCipher = CHACHA) -> bytes:
    """The wire by the specification's words: length, then the sealed message under its number."""
    wire = b""
    for number, message in enumerate(messages, counter):
        if cipher is AES:
            sealed = AESGCM(KEYS[0]).encrypt(bytes(4) + number.to_bytes(8, "big"), message, b"")
        else:
            sealed = ChaCha20Poly1305(KEYS[0]).encrypt(bytes(4) + number.to_bytes(8, "little"), message, b"")
        wire += len(sealed).to_bytes(2, "big") + sealed
    return wire


def fed(session: NoiseSession, wire: bytes, cuts: list[int], *, now_s: float = 0.0) -> tuple[object, ...]:
    """The wire, cut at these sizes in turn."""
    effects: tuple[object, ...] = ()
    position = 0
    for size in itertools.cycle(cuts):
        if position >= len(wire):
            return effects
        effects += session.feed(wire[position : position + size], now_s)
        position += size
    return effects


PIECES = st.lists(st.one_of(st.binary(max_size=40), st.sampled_from([1000, 65518, 65519, 65520, 131_038, 200_000]).map(bytes)), max_size=5)


@given(st.sampled_from(SessionCipher), PIECES, st.lists(st.integers(1, 5000), min_size=1, max_size=5))
def test_what_is_said_when_cut_anywhere_is_what_is_heard(cipher: SessionCipher, pieces: list[bytes], cuts: list[int]) -> None:
    """Goal: neither our pieces nor TCP's matter. Method: random both; one Say of many pieces; the wire is that of the reference."""
    left, right = pair(cipher=cipher)
    wire = left.say(pieces, 0.0)
    whole = b"".join(pieces)
    step = NOISE_PLAIN_BYTES_MAX
    assert bytes(wire) == reference([whole[begin : begin + step] for begin in range(0, len(whole), step)], cipher=cipher)
    assert plain_of(fed(right, bytes(wire), cuts)) == whole
    assert right.state is SessionState.BETWEEN


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=6), st.data())
def test_changed_byte_when_anywhere_ends_the_session_and_releases_nothing_of_its_message(
    messages: list[bytes], data: st.DataObject
) -> None:
    """Goal: a bad tag. Method: one bit of one sealed message; what was before is released, of it and behind it nothing, however cut."""
    wire = bytearray(reference(messages))
    spans = []
    position = 0
    for message in messages:
        spans.append((position + 2, position + 2 + len(message) + 16))
        position = spans[-1][1]
    victim = data.draw(st.integers(0, len(messages) - 1))
    wire[data.draw(st.integers(spans[victim][0], spans[victim][1] - 1))] ^= data.draw(st.sampled_from([1, 2, 64, 128]))
    _, right = pair()
    effects = fed(right, bytes(wire), data.draw(st.lists(st.integers(1, 60), min_size=1, max_size=4)))
    assert plain_of(effects) == b"".join(messages[:victim])
    assert failures_of(effects) == [Reason.BAD_TAG]
    assert right.feed(reference(messages), 0.0) == ()
    with pytest.raises(LadingError):
        right.say([b"more"], 0.0)


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1, max_size=5))
def test_nonsense_raises_nothing_and_says_nothing(data: bytes, cuts: list[int]) -> None:
    """Goal: no byte of a stranger's is a bug of ours. Method: random bytes; nothing plain comes out, and the end is alike for all cuts."""
    _, right = pair()
    effects = fed(right, data, cuts)
    _, whole = pair()
    assert failures_of(effects) == failures_of(whole.feed(data, 0.0))
    assert plain_of(effects) == b""


@pytest.mark.parametrize("order", [(1, 0), (0, 0), (1,)], ids=["swapped", "repeated", "left out"])
def test_messages_when_out_of_order_end_the_session(order: tuple[int, ...]) -> None:
    """Goal: the counter is the order. Method: three ways to disturb two messages."""
    wires = [reference([b"one"]), reference([b"two"], counter=1)]
    _, right = pair()
    effects = right.feed(b"".join(wires[index] for index in order), 0.0)
    assert failures_of(effects) == [Reason.BAD_TAG]


def test_message_when_too_short_for_its_tag_is_refused_from_its_length() -> None:
    """Goal: nothing is awaited that cannot hold. Method: length 15, and the full 65535, of which the first byte alone is no failure."""
    _, right = pair()
    assert failures_of(right.feed((15).to_bytes(2, "big"), 0.0)) == [Reason.MALFORMED]
    _, right = pair()
    assert right.feed(NOISE_MESSAGE_BYTES_MAX.to_bytes(2, "big") + b"x", 0.0) == ()
    assert right.state is SessionState.INSIDE


def test_end_when_inside_a_message_is_a_cut_and_between_two_an_end() -> None:
    """Goal: cut is not end. Method: both."""
    wire = reference([b"whole"])
    _, right = pair()
    right.feed(wire, 0.0)
    assert right.step(Ended(), 0.0) == (Finished(),)
    assert right.say([b"last words"], 0.0)
    for size in range(1, len(wire)):
        _, right = pair()
        right.feed(wire[:size], 0.0)
        assert failures_of(right.step(Ended(), 0.0)) == [Reason.TRUNCATED]


def test_message_when_half_received_is_awaited_for_a_time_from_its_neighbour_on() -> None:
    """Goal: bounded waiting, not bounded talking. Method: a new message every 20 s, always one half behind it; then silence."""
    _, right = pair()
    wire = reference([b"x" * 10] * 5)
    size = len(wire) // 5
    right.feed(wire[: size // 2], 0.0)
    for number in range(1, 5):
        assert right.step(Tick(), 20.0 * number) == ()
        right.feed(wire[number * size - size + size // 2 : number * size + size // 2], 20.0 * number)
    assert right.wake_at() == 80.0 + HALF_RECEIVED_MAX_S
    right.feed(wire[4 * size + size // 2 : -1], 100.0)  # a few bytes more renew nothing
    assert right.step(Tick(), 109.9) == ()
    assert failures_of(right.step(Tick(), 110.0)) == [Reason.STALLED]
    assert right.wake_at() is None


@pytest.mark.parametrize(("cipher", "end"), [(CHACHA, 2**64 - 1), (AES, 2**40)], ids=["chacha", "aes"])
def test_key_when_its_nonces_are_used_up_seals_and_opens_nothing_more(cipher: SessionCipher, end: int) -> None:
    """Goal: no nonce twice, and no more under one key than Noise allows its cipher. Method: begin two before the end."""
    left, right = pair(counter=end - 2, cipher=cipher)
    for text in (b"one", b"two"):
        assert plain_of(right.feed(left.say([text], 0.0), 0.0)) == text
    with pytest.raises(InvalidObject) as caught:
        left.say([b"three"], 0.0)
    assert caught.value.reason is Reason.EXPIRED
    assert failures_of(right.feed(reference([b"three"]), 0.0)) == [Reason.EXPIRED]


def test_buffer_when_quiet_is_small_when_busy_bounded_and_small_again() -> None:
    """Goal: big buffers on bulk only. Method: pings; then 4 MiB in reads as large as the room; then quiet ticks with a ping between."""
    left, right = pair()
    for _ in range(100):
        right.feed(left.say([bytes(12)], 0.0), 0.0)
    assert right.buffer_bytes == RECEIVE_BUFFER_BYTES_MIN
    content = random.Random(1).randbytes(4 * 1024 * 1024)
    wire = memoryview(left.say([content], 0.0))
    heard = []
    sizes = set()
    while wire:
        with right.room() as room:
            size = min(len(room), len(wire))
            room[:size] = wire[:size]
        sizes.add(right.buffer_bytes)
        wire = wire[size:]
        heard += right.step(Arrived(size), 0.0)
    assert plain_of(tuple(heard)) == content
    assert max(sizes) == right.buffer_bytes == RECEIVE_BUFFER_BYTES_MAX
    for _ in range(2):
        right.step(Tick(), 0.0)
    assert plain_of(right.feed(left.say([b"ping"], 0.0), 0.0)) == b"ping"
    assert right.buffer_bytes == RECEIVE_BUFFER_BYTES_MIN


def test_buffer_when_given_out_before_a_quiet_tick_still_counts() -> None:
    """Goal: a shell that waits in a read loses nothing to the clock. Method: take room, tick twice, only then fill it."""
    left, right = pair()
    right.feed(left.say([bytes(300_000)], 0.0), 0.0)
    room = right.room()
    for _ in range(2):
        right.step(Tick(), 0.0)
    wire = left.say([b"late"], 0.0)
    room[: len(wire)] = wire
    assert plain_of(right.step(Arrived(len(wire)), 0.0)) == b"late"


def test_buffer_to_seal_into_is_used_again_and_given_back_when_nothing_is_said() -> None:
    """Goal: no new pages for each batch, and none for quiet peers. Method: two batches, two ticks; the view still holds."""
    left, right = pair()
    first = bytes(left.say([bytes(200_000)], 0.0))
    held = left.out_bytes
    view = left.say([bytes(190_000)], 0.0)
    assert left.out_bytes == held >= len(first)
    left.step(Tick(), 0.0)
    assert left.out_bytes == held
    left.step(Tick(), 0.0)
    assert left.out_bytes == 0
    assert len(plain_of(right.feed(first + view, 0.0))) == 390_000


def test_every_sequence_of_five_events_ends_in_a_state_of_the_table() -> None:
    """Goal: no order of events confuses it. Method: all of 7 events to the depth of five; a failed session stays failed and mute."""
    for names in itertools.product(("message", "half", "rest", "bad", "end", "tick", "say"), repeat=5):
        left, right = pair()
        half = b""
        for step, name in enumerate(names):
            before = right.state
            effects: tuple[object, ...] = ()
            if name == "message":
                effects = right.feed(left.say([b"text"], 0.0), 0.0) if not half and before is not SessionState.ENDED else ()
            elif name == "half" and not half and before is not SessionState.ENDED:
                wire = bytes(left.say([b"text"], 0.0))
                half = wire[5:]
                effects = right.feed(wire[:5], 0.0)
            elif name == "rest" and half and before is not SessionState.ENDED:
                effects, half = right.feed(half, 0.0), b""
            elif name == "bad" and before is not SessionState.ENDED:
                effects = right.feed(bytes([0, 16]) + bytes(16) + half, 0.0)
            elif name == "end" and before is not SessionState.ENDED:
                effects = right.step(Ended(), 0.0)
            elif name == "tick":
                effects = right.step(Tick(), step * 20.0)
            elif name == "say":
                effects = right.step(Say([b"answer"]), 0.0)
                assert (before is SessionState.FAILED) != any(isinstance(effect, Sealed) for effect in effects)
            if before is SessionState.FAILED:
                assert effects == ()
                assert right.state is SessionState.FAILED
            assert bool(failures_of(effects)) == (right.state is SessionState.FAILED and before is not SessionState.FAILED)
            assert plain_of(effects) in (b"", b"text")


def test_failure_is_the_peer_s() -> None:
    """Goal: the caller obeys a verdict, it does not stop the node. Method: the class of the error."""
    _, right = pair()
    (failed,) = right.feed(bytes(2), 0.0)
    assert isinstance(failed, Failed)
    assert isinstance(failed.error, RemoteError)
