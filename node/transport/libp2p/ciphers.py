"""What seals a session: AES-256-GCM where both machines are quick at it, ChaCha20-Poly1305 everywhere (decision 0013)."""

from __future__ import annotations

from functools import cache

from protocols.crypto import CounterCipher, SessionCipher
from protocols.limits import AEAD_TAG_BYTES

from ...clock import SystemClock

TRIAL_BYTES = 16 * 1024
TRIALS = 8
# A processor without instructions for AES is slower with it, and then not safe against who measures its time either.
GAIN_MIN = 1.25


@cache
def ciphers_of_this_machine() -> tuple[SessionCipher, ...]:
    """Those that it speaks, the one it likes best first. Tried once: under a millisecond."""
    quick, safe = SessionCipher.AES256_GCM, SessionCipher.CHACHA20_POLY1305
    return (quick, safe) if GAIN_MIN * _trial_s(quick) < _trial_s(safe) else (safe,)


def _trial_s(cipher: SessionCipher) -> float:
    """Seconds that a message takes, the quickest of some."""
    clock = SystemClock()
    sealing = CounterCipher(bytes(32), cipher=cipher)
    plain, out = bytes(TRIAL_BYTES), memoryview(bytearray(TRIAL_BYTES + AEAD_TAG_BYTES))
    times: list[float] = []
    for _ in range(TRIALS):
        began = clock.steady()
        sealing.seal_into(plain, out)
        times.append(clock.steady() - began)
    return min(times)
