"""Every table there is: name with version, environment, key form. Nowhere else.

In key forms ``|`` puts fixed-width parts together (32 bytes where nothing is said; numbers are big-endian), and a part of
free length comes last or has its length, one byte, before it.
"""

from __future__ import annotations

from .engine import Env, Table

# --- chunk environment: sealed chunks and all that decides their life ---------------------------------------------
BODIES = Table("bodies/1", Env.CHUNKS, bodies=True, key_form="chunk name")
CHUNKS = Table("chunks/1", Env.CHUNKS, key_form="chunk name: it is here; chunk name | owner | claim kind (1) | id: who wants it")
REFERENCES = Table("references/1", Env.CHUNKS, key_form="owner | HashID | sequence root")
PROTECTIONS = Table("protections/1", Env.CHUNKS, key_form="owner | protection id (1..64)")
DUE = Table("due/1", Env.CHUNKS, key_form="unix seconds (8) | claim kind (1) | owner | id: protections and trash by the end of their time")
SUSPECTS = Table("suspects/1", Env.CHUNKS, key_form="chunk name that lost a claim; the collector looks whether it was the last")
QUARANTINE = Table("quarantine/1", Env.CHUNKS, key_form="chunk name whose body was not what its name says")
OWNERS = Table("owners/1", Env.CHUNKS, key_form="owner")
PLACES = Table("places/1", Env.CHUNKS, key_form="owner | HashID | sequence index (4)")
ROOTS = Table("roots/1", Env.CHUNKS, key_form="sequence root | owner | HashID; the value is the sequence index (4)")
OFFERED = Table("offered/1", Env.CHUNKS, key_form="sequence root | owner")
STORE = Table("store/1", Env.CHUNKS, key_form="name, ASCII")
# Of the engine that keeps bodies apart; empty in others, and no business of anybody else's.
FREE_EXTENTS = Table(
    "free-extents/1",
    Env.CHUNKS,
    key_form="extent (8) of the body file that may be written again; eight times ff: how many extents there are",
)

# --- ledger environment: small things -----------------------------------------------------------------------------
KEYS = Table("keys/1", Env.LEDGER, key_form="name, ASCII")
FENCES = Table("fences/1", Env.LEDGER, key_form="network id | number (8)")
REVOCATIONS = Table("revocations/1", Env.LEDGER, key_form="object hash")
TICKETS = Table("tickets/1", Env.LEDGER, key_form="ticket id (1..64)")
OBJECTS = Table("objects/1", Env.LEDGER, key_form="owner | HashID | object kind (1) | subject | order (8) | object hash")
HASH_IDS = Table("hash-ids/1", Env.LEDGER, key_form="HashID | owner")
HELD_BACK = Table("held-back/1", Env.LEDGER, key_form="owner | HashID of a record in quarantine")
RECEIPTS = Table("receipts/1", Env.LEDGER, key_form="object hash of a signed receipt or withdrawal")
RECEIPT_ROWS = Table("receipt-rows/1", Env.LEDGER, key_form="owner | HashID | sequence root | holder (1..255)")
RECEIPT_USES = Table("receipt-uses/1", Env.LEDGER, key_form="object hash | key of the receipt row that it stands in")
RECEIPTS_BY_HOLDER = Table("receipts-by-holder/1", Env.LEDGER, key_form="holder with length | owner | HashID | sequence root")
GENERATIONS = Table("generations/1", Env.LEDGER, key_form="store id (16) | holder")
ERASURES = Table("erasures/1", Env.LEDGER, key_form="owner | HashID | holder")
ANNOUNCEMENTS = Table("announcements/1", Env.LEDGER, key_form="peer id")
LAST_SEEN = Table("last-seen/1", Env.LEDGER, key_form="peer id")
JOBS = Table("jobs/1", Env.LEDGER, key_form="job kind (1) | job id (1..64)")
JOBS_DUE = Table("jobs-due/1", Env.LEDGER, key_form="unix seconds (8) | job kind (1) | job id")
LOG = Table("log/1", Env.LEDGER, key_form="number (8)")

FACTS = Table("facts/1", Env.LEDGER, key_form="fact id: SHA-256(kind (1) | body); the value is kind | body")
# What a manifest said that was open here once: for lists, which open none.
ENTRY_COUNTS = Table("entry-counts/1", Env.LEDGER, key_form="object hash of a statement; the value is a number")
HELD_FACTS = Table("held-facts/1", Env.LEDGER, key_form="fact id of a statement or tombstone in quarantine; the value is its kind (1)")

# The chain: written by one actor, one batch a block. Nothing here is missed when it is lost: it is fetched again from peers.
CHAIN_BLOCKS = Table("chain-blocks/1", Env.LEDGER, key_form="block hash")
CHAIN_ROWS = Table("chain-rows/1", Env.LEDGER, key_form="block hash: its place in the tree of blocks")
CHAIN_HEIGHTS = Table("chain-heights/1", Env.LEDGER, key_form="height (8) | block hash")
CHAIN_CROSSINGS = Table("chain-crossings/1", Env.LEDGER, key_form="block hash: what takes the state over this block, down or up")
CHAIN_STATE = Table("chain-state/1", Env.LEDGER, key_form="length of the space (1) | space | key")
CHAIN_TREE = Table(
    "chain-tree/1", Env.LEDGER, key_form="version (8) that wrote the row | nibbles of its path in the state tree, one a byte", rising=True
)
CHAIN_TREES = Table(
    "chain-trees/1", Env.LEDGER, key_form="height (8) | block hash: the tree after the block, and what only older ones need"
)
CHAIN_OLD_VALUES = Table("chain-old-values/1", Env.LEDGER, key_form="K of the state | height (8) of the block that replaced the value")
CHAIN_FETCHED = Table("chain-fetched/1", Env.LEDGER, key_form="hash of a node of the state that is being fetched")
CHAIN_POOL = Table("chain-pool/1", Env.LEDGER, key_form="transaction id, of those made here")
CHAIN_VOTES = Table("chain-votes/1", Env.LEDGER, key_form="target height (8) | target | member | source height (8) | source")
CHAIN_META = Table("chain-meta/1", Env.LEDGER, key_form="name, ASCII")
# Which is missed when it is lost, so it stays when the chain is fetched again.
CHAIN_REFUSED = Table("chain-refused/1", Env.LEDGER, key_form="b, t or v (1: block, transaction, vote) | stable name of the reason, ASCII")
# What full nodes show light ones of changes of the committee, and what a light node keeps instead of a chain.
CHAIN_SUCCESSIONS = Table("chain-successions/1", Env.LEDGER, key_form="generation (8) of the committee that was trusted before")
LIGHT = Table("light/1", Env.LEDGER, key_form="name, ASCII")
LIGHT_INCLUSIONS = Table("light-inclusions/1", Env.LEDGER, key_form="transaction id of an own record's anchor")

# The member's own records on their way to the chain.
ANCHOR_INTENTS = Table("anchor-intents/2", Env.LEDGER, key_form="HashID of our own record: what its anchor shall say besides its statement")
ANCHOR_ASKS = Table(
    "anchor-asks/1", Env.LEDGER, key_form="kind of transaction (1) | HashID of our own record: which one asked its other owners"
)
ANCHOR_ELSEWHERE = Table("anchor-elsewhere/1", Env.LEDGER, key_form="HashID of our own record that another node of this member published")
JOURNALS = Table("journals/1", Env.LEDGER, key_form="HashID of our own record: its log")

ALL: tuple[Table, ...] = tuple(value for value in list(globals().values()) if isinstance(value, Table))
assert len({table.name for table in ALL}) == len(ALL)


def tables_of(env: Env) -> tuple[Table, ...]:
    """The tables of one environment, in the order above."""
    return tuple(table for table in ALL if table.env is env)
