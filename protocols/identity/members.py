"""Members' pseudonymous ids (IDN-03)."""

from __future__ import annotations

from ..crypto import Label, hash_labelled
from ..types import MemberId

MEMBER_SALT_BYTES = 32


def member_id(real_id: bytes, salt: bytes) -> MemberId:
    """SHA-256 over the label, the real id (any bytes, as the registry of the member's country writes it) and a secret salt.

    salt: 32 random bytes that the member alone keeps. Without it two ids of one person cannot be linked; with it equality can
    be shown.
    """
    assert len(salt) == MEMBER_SALT_BYTES
    return MemberId(hash_labelled(Label.MEMBER_ID, real_id, salt))
