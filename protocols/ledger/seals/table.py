"""Seals by the name that a chain's profile gives."""

from __future__ import annotations

from collections.abc import Mapping

from .authority import Authority
from .port import SealRule
from .pow import ProofOfWork
from .scrypt import ScryptWork

SEALS: Mapping[str, SealRule] = {seal.name: seal for seal in (ProofOfWork(), ScryptWork(), Authority())}
