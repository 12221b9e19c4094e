"""One content, one encoding, and nothing else gets through: other forms of the same value, wrong tags, deep and endless nests."""

from __future__ import annotations

import struct
import subprocess
import sys
import tracemalloc

import pytest

from protocols.codec import Record, decode, encode
from protocols.errors import DecodeError, Reason
from protocols.limits import FRAME_BYTES_MAX
from protocols.signed import Signed


class Sample(Record, frozen=True):
    """One of each kind of value that travels."""

    number: int
    data: bytes
    text: str
    flag: bool
    items: tuple[bytes, ...]
    more: Signed | None


VALUE = Sample(5, b"data", "text", True, (b"a",), None)
CANONICAL = encode(VALUE)
# Each part of CANONICAL beside other ways in which MessagePack may write the same.
OTHER_FORMS = {
    "array with a longer head": (b"\x96", b"\xdc\x00\x06"),
    "array with the longest head": (b"\x96", b"\xdd\x00\x00\x00\x06"),
    "number in one byte more": (b"\x05", b"\xcc\x05"),
    "number in eight bytes": (b"\x05", b"\xcf" + struct.pack(">Q", 5)),
    "signed number": (b"\x05", b"\xd3" + struct.pack(">q", 5)),
    "bytes with a longer head": (b"\xc4\x04data", b"\xc5\x00\x04data"),
    "text with a longer head": (b"\xa4text", b"\xd9\x04text"),
    "inner array with a longer head": (b"\x91\xc4\x01a", b"\xdc\x00\x01\xc4\x01a"),
}
WRONG_TAGS = {
    "text for bytes": (b"\xc4\x04data", b"\xa4data"),
    "bytes for text": (b"\xa4text", b"\xc4\x04text"),
    "float for number": (b"\x05", b"\xcb" + struct.pack(">d", 5.0)),
    "number for flag": (b"\xc3", b"\x01"),
    "extension for bytes": (b"\xc4\x04data", b"\xd6\x01data"),
    "map for array": (b"\x91\xc4\x01a", b"\x81\xc4\x01a\xc0"),
    "array for nothing": (b"\xc0", b"\x90"),
    "one field fewer": (b"\x96", b"\x95"),
    "one field more": (b"\x96", b"\x97"),
    "text that is not UTF-8": (b"\xa4text", b"\xa4\xff\xfe\xfd\xfc"),
    "number beyond 64 bits": (b"\x05", b"\xc7\x09\x00" + bytes(9)),
}


def refusal(data: bytes) -> Reason:
    with pytest.raises(DecodeError) as caught:
        decode(data, Sample)
    return caught.value.reason


def changed(part: bytes, other: bytes) -> bytes:
    assert CANONICAL.count(part) == 1
    return CANONICAL.replace(part, other)


@pytest.mark.parametrize("name", OTHER_FORMS)
def test_same_value_in_another_form_is_not_canonical(name: str) -> None:
    """Goal: one content has one hash. Method: MessagePack's other ways to write each part; the true one passes."""
    assert decode(CANONICAL, Sample) == VALUE
    assert refusal(changed(*OTHER_FORMS[name])) is Reason.NOT_CANONICAL


@pytest.mark.parametrize("name", WRONG_TAGS)
def test_wrong_tag_is_malformed(name: str) -> None:
    """Goal: a value is of its type or nothing. Method: one part replaced by a part of another type."""
    assert refusal(changed(*WRONG_TAGS[name])) is Reason.MALFORMED


@pytest.mark.parametrize("length", range(len(CANONICAL)))
def test_truncated_value_is_malformed(length: int) -> None:
    """Goal: half a value is none. Method: cut after every byte; and one byte too many."""
    assert refusal(CANONICAL[:length]) is Reason.MALFORMED
    assert refusal(CANONICAL + b"\x00") is Reason.MALFORMED


@pytest.mark.parametrize(
    "bomb",
    [
        pytest.param(b"\x91" * (FRAME_BYTES_MAX - 1) + b"\xc0", id="arrays in arrays"),
        pytest.param(b"\x81" * (FRAME_BYTES_MAX - 1) + b"\xc0", id="maps in maps"),
        pytest.param(b"\xdd\xff\xff\xff\xff", id="array of 2^32 and nothing in it"),
        pytest.param(b"\x96\x05\xc6\xff\xff\xff\xff", id="bytes of 4 GiB that are not there"),
        pytest.param(b"\x96\x05\xc4\x04data\xa4text\xc3" + b"\xdd\xff\xff\xff\xff" + b"\xc4\x00" * 1000, id="items of 2^32"),
        pytest.param(b"\x96\x05\xc4\x04data\xa4text\xc3" + b"\x91" * 100_000, id="items in items"),
    ],
)
def test_bomb_is_malformed_and_takes_no_memory(bomb: bytes) -> None:
    """Goal: a small frame makes small work. Method: nests as deep as a frame, and lengths that promise gigabytes."""
    tracemalloc.start()
    try:
        assert refusal(bomb) is Reason.MALFORMED
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4 * FRAME_BYTES_MAX


def test_value_beyond_its_bound_is_too_long_before_it_is_read() -> None:
    """Goal: size is looked at first. Method: a bound one byte below the true length; a frame of a byte too many."""
    with pytest.raises(DecodeError) as caught:
        decode(CANONICAL, Sample, bytes_max=len(CANONICAL) - 1)
    assert caught.value.reason is Reason.TOO_LONG
    assert refusal(bytes(FRAME_BYTES_MAX + 1)) is Reason.TOO_LONG


TWO_THREADS = """
import threading
from protocols.codec import Record, decode, encode

is_building, is_read = threading.Event(), threading.Event()


def pause():
    is_building.set()
    is_read.wait(0.5)
    return int


class Deep(Record):
    one: "pause()"


class Inner(Record):
    deep: Deep
    number: int


class Outer(Record):
    inner: Inner


inner = Inner(Deep(1), 2)
first = threading.Thread(target=decode, args=(encode(inner), Inner))
first.start()
is_building.wait()
assert decode(encode(Outer(inner)), Outer) == Outer(inner)
is_read.set()
first.join()
assert decode(encode(inner), Inner) == inner
"""


def test_kinds_that_two_threads_meet_for_the_first_time_at_once_are_read_by_both() -> None:
    """Goal: a thread that reads ahead brings no node down. Method: one thread is held while the library learns what a record consists of,
    another reads a record that holds one; in a process of its own, since it would be killed."""
    done = subprocess.run([sys.executable, "-c", TWO_THREADS], capture_output=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
