"""What a machine may ask its surroundings for. Conversations add their own effects beside their messages."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Send:
    """Put this message on the conversation's stream."""

    message: object


@dataclass(frozen=True, slots=True)
class Close:
    """End the conversation cleanly, after what was sent has left."""

    reason: str = ""


Effect = object
"""A frozen dataclass; each conversation lists its own in ``messages.py`` or ``machine.py``."""
