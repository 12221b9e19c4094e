"""The bytes of the exchange: golden vectors, and whatever a hostile peer makes of them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocols.errors import DecodeError
from protocols.exchange import messages as m
from protocols.exchange.messages import MESSAGES
from protocols.registry import decode_message, encode_message, encode_parts
from protocols.signed import Signed
from tests.vectors import recompute_exchange as second

VECTORS: dict[str, Any] = json.loads(second.VECTORS.read_text(encoding="utf-8"))
FRAMES = {name: bytes.fromhex(frame) for name, frame in VECTORS["frames"].items()}

SIGNED = Signed(b"\x01\x02", b"\x03" * 32, b"\x04" * 64)
ROOT, NAMES = bytes.fromhex(VECTORS["root"]), tuple(bytes.fromhex(name) for name in VECTORS["names"])
PATH, CHUNKS = (b"\x05" * 32,), (b"\x00" * 1040, b"\x01" * 1040)
SAID: dict[str, object] = {
    "place_by_offer": m.Place(1, ROOT, NAMES, (1040, 1040), m.ByOffer(SIGNED)),
    "place_by_statement": m.Place(2, ROOT, NAMES, (1040, 1040), m.ByStatement(SIGNED, 1, 2, (b"\x05" * 32,))),
    "need": m.Need(1, (0, 1), 4194304),
    "chunk": m.Chunk(1, 0, b"\x00" * 1040),
    "credit": m.Credit(1, 1040),
    "placed": m.Placed(1, SIGNED),
    "refused": m.Refused(1, "E-QUOTA", "full", SIGNED),
    "confirm": m.Confirm(3, SIGNED, 2, ((1, ROOT, (b"\x05" * 32,)),), (SIGNED,)),
    "confirmed": m.Confirmed(3, SIGNED, (0,)),
    "fetch": m.Fetch(4, ROOT, (0, 1), 4194304),
    "done": m.Done(4, (1,)),
    "describe": m.Describe(5, b"\x06" * 32, b"\x07" * 32, 1),
    "described": m.Described(5, NAMES, (1040, 1040), 1, 2, (b"\x05" * 32,)),
    "audit": m.Audit(6, b"\x08" * 32, ((NAMES[0], 0, 16),)),
    "audit_answer": m.AuditAnswer(6, bytes.fromhex(VECTORS["audit_digest"])),
    "cancel": m.Cancel(7),
    "bundle": m.Bundle(8, (m.BundledRecord(SIGNED, (m.BundledSequence(0, PATH, CHUNKS[:1]), m.BundledSequence(1, PATH, CHUNKS))),)),
    "bundle_before_chunks": m.Bundle(
        9, (m.BundledRecord(SIGNED, (m.BundledSequence(0, PATH, CHUNKS[:1]), m.BundledSequence(1, PATH, (b"", b"")))),)
    ),
    "bundled": m.Bundled(8, (SIGNED,), ((0, "E-QUOTA", "full"),)),
}


def test_second_implementation_gives_the_file() -> None:
    """Goal: the vectors follow from SPEC.md alone. Method: recompute them without this project's code."""
    assert second.recompute() == VECTORS


def test_every_message_has_a_vector() -> None:
    """Goal: none is forgotten. Method: the message numbers of the frames."""
    assert {frame[0] for frame in FRAMES.values()} == {number for number, _ in MESSAGES}
    assert SAID.keys() == FRAMES.keys()


@pytest.mark.parametrize("name", SAID)
def test_message_is_its_vector(name: str) -> None:
    """Goal: byte for byte, both directions. Method: encode and decode."""
    assert encode_message("exchange", SAID[name]) == FRAMES[name]
    assert decode_message("exchange", FRAMES[name]) == SAID[name]


@given(st.sampled_from(sorted(FRAMES)), st.data())
def test_mutated_message_is_a_message_or_a_decode_error(name: str, draw: st.DataObject) -> None:
    """Goal: nothing but DecodeError, and one content has one encoding. Method: bytes changed, cut out and put in, in real frames."""
    frame = bytearray(FRAMES[name])
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, max(0, len(frame) - 1)))
        match draw.draw(st.sampled_from(["change", "cut", "put", "end"])):
            case "change" if frame:
                frame[at] = draw.draw(st.integers(0, 255))
            case "cut":
                del frame[at : at + draw.draw(st.integers(1, 9))]
            case "put":
                frame[at:at] = draw.draw(st.binary(min_size=1, max_size=9))
            case _:
                del frame[at:]
    try:
        message = decode_message("exchange", bytes(frame))
    except DecodeError:
        return
    assert encode_message("exchange", message) == frame


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.sampled_from([0, 1, 255, 256, 65535, 65536, 262160]))
def test_chunk_by_hand_is_the_chunk_of_the_general_codec(request: int, index: int, size: int) -> None:
    """Goal: the short way changes no byte. Method: both ways out and in, numbers and sizes around every change of form."""
    chunk = m.Chunk(request, index, b"\x07" * size)
    frame = encode_message("exchange", chunk)
    assert b"".join(encode_parts("exchange", chunk)) == frame
    assert decode_message("exchange", frame) == chunk
    assert decode_message("exchange", memoryview(frame)) == chunk  # the general way


@given(st.integers(0, 40), st.integers(0, 255), st.integers(0, 3))
def test_altered_chunk_is_judged_alike_by_hand_and_by_the_general_codec(at: int, byte: int, cut: int) -> None:
    """Goal: the short way takes nothing that the other refuses, and refuses nothing that it takes. Method: one byte changed, the end cut
    off, by each way."""
    altered = bytearray(encode_message("exchange", m.Chunk(70000, 300, b"\x07" * 40)))
    altered[at % len(altered)] = byte
    altered[0] = 3
    frame = bytes(altered[: len(altered) - cut])
    outcomes: list[object] = []
    for way in (frame, memoryview(frame)):
        try:
            outcomes.append(decode_message("exchange", way))
        except DecodeError as error:
            outcomes.append(type(error))
    if isinstance(outcomes[1], m.Chunk) and min(outcomes[1].request, outcomes[1].index) < 0:
        outcomes[1] = DecodeError  # the machines refuse it a step later
    assert outcomes[0] == outcomes[1]
