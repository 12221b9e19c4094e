"""Every rule of the muxer that a peer can break at once, as what it says. For the machine and for a live connection."""

from __future__ import annotations

import pytest

from protocols.errors import Reason
from protocols.limits import CONTROL_FRAMES_MAX, PONGS_WAITING_MAX, STREAM_WINDOW_BYTES
from protocols.yamux.frames import FIN, RST, SYN, Kind, encode_header

DATA, UPDATE, PING, GO_AWAY = Kind.DATA, Kind.WINDOW_UPDATE, Kind.PING, Kind.GO_AWAY


def frame(kind: Kind, flags: int, stream_id: int, value: int | bytes = 0) -> bytes:
    body = value if isinstance(value, bytes) else b""
    return encode_header(kind, flags, stream_id, len(body) if isinstance(value, bytes) else value) + body


VIOLATIONS = [
    pytest.param(b"\x01" + frame(DATA, 0, 1)[1:], Reason.MALFORMED, id="version"),
    pytest.param(b"\x00\x04" + frame(DATA, 0, 1)[2:], Reason.MALFORMED, id="type"),
    pytest.param(frame(DATA, 16, 1), Reason.MALFORMED, id="flag"),
    pytest.param(frame(UPDATE, SYN, 2), Reason.MALFORMED, id="our parity"),
    pytest.param(frame(UPDATE, SYN, 0), Reason.MALFORMED, id="stream 0"),
    pytest.param(frame(PING, SYN, 1), Reason.MALFORMED, id="ping on a stream"),
    pytest.param(frame(GO_AWAY, 0, 1), Reason.MALFORMED, id="farewell on a stream"),
    pytest.param(frame(UPDATE, SYN, 1) * 2, Reason.MALFORMED, id="opened twice"),
    pytest.param(frame(DATA, 0, 1, b"x"), Reason.MALFORMED, id="data for a stream that nobody opened"),
    pytest.param(frame(UPDATE, 0, 2, 5), Reason.MALFORMED, id="credit for a stream that we did not open"),
    pytest.param(frame(UPDATE, SYN, 1) + encode_header(DATA, 0, 1, STREAM_WINDOW_BYTES + 1), Reason.FLOOD, id="beyond the window"),
    pytest.param(frame(DATA, SYN, 1, bytes(STREAM_WINDOW_BYTES)) + frame(DATA, 0, 1, b"x"), Reason.FLOOD, id="one byte too many"),
    pytest.param(frame(UPDATE, SYN, 1, 2**32 - 1), Reason.FLOOD, id="a window of 4 GiB and more"),
    pytest.param(frame(DATA, SYN | RST, 1) + encode_header(DATA, 0, 1, 2**31), Reason.FLOOD, id="huge frame for a stream that is gone"),
    pytest.param(frame(DATA, SYN | FIN, 1) + frame(DATA, 0, 1, b"x"), Reason.OUT_OF_ORDER, id="data behind the end"),
    pytest.param(frame(PING, SYN, 0, 1) * (PONGS_WAITING_MAX + 1), Reason.FLOOD, id="pings without end"),
    pytest.param(
        b"".join(frame(UPDATE, SYN | RST, 2 * n + 1) for n in range(CONTROL_FRAMES_MAX + 1)), Reason.FLOOD, id="opens without end"
    ),
]
"""(wire, reason) of a peer that has dialled and says this first."""
