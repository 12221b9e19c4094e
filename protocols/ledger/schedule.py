"""Rule sets: which kinds hold under which version. A rule change is a new set beside the old ones; old functions are never edited."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from .context import KindPort
from .transactions import (
    approve,
    cert_issue,
    cert_status,
    chain_genesis,
    cluster_define,
    council_recover,
    council_update,
    equivocation,
    erase,
    expiry_extend,
    folder_update,
    key_rotate,
    miner_certify,
    miner_nominate,
    penalty,
    penalty_lift,
    policy_list_update,
    record_anchor,
    rule_activation,
    storage_receipt,
    term_handover,
)

_KINDS_1: tuple[KindPort, ...] = (
    chain_genesis.KIND,
    cert_issue.KIND,
    cert_status.KIND,
    key_rotate.KIND,
    policy_list_update.KIND,
    council_update.KIND,
    council_recover.KIND,
    rule_activation.KIND,
    penalty.KIND,
    penalty_lift.KIND,
    cluster_define.KIND,
    miner_nominate.KIND,
    miner_certify.KIND,
    term_handover.KIND,
    folder_update.KIND,
    record_anchor.KIND,
    approve.KIND,
    storage_receipt.KIND,
    expiry_extend.KIND,
    erase.KIND,
    equivocation.KIND,
)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """version: V of the headers under it. kinds: by number."""

    version: int
    kinds: Mapping[int, KindPort]


RULES_1 = RuleSet(1, {kind.number: kind for kind in _KINDS_1})
assert len(RULES_1.kinds) == len(_KINDS_1)

SCHEDULE: Mapping[int, RuleSet] = {rules.version: rules for rules in (RULES_1,)}
"""Every rule set that this program knows, by version."""
