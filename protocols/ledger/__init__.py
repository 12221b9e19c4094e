"""The ledger: one block format, one envelope, one state engine; everything pure. SPEC.md is normative.

checks         small checks that every value shares
envelope       transactions: content, id, signatures
block          header, block info, body, seal, Merkle leaves and proofs
tree           the sparse Merkle map behind the state
rows           the same tree as a store keeps it: four levels in a row, every version whole
state          spaces, overlay, undo; the reference state in memory
snapshot       the state by its nodes: fetching all of it, comparing two
light          what a light node believes, and why
history        the tree over all block hashes
votes          what a committee member says, and what it promised
committee      sizes, quorums, links across a change
finality       fork choice and finality over everything a node knows
carried        finality inside the state, from the votes that blocks carry
draw           seeds, the order of a draw, the leader of a slot
profile        what a chain is: limits, clocks, council, policy
terms          lists of miners, term after term, as state
work           targets, retargeting, cumulative work
handover       when a candidate hands over, and its answers
faults         what peers are worth after what they brought
evidence       contradicting seals and votes, noticed and told
context        what a rule sees of the chain, and the common rules of transactions
conditions     what fires by itself: at a time, at a height, at a threshold
schedule       rule sets: which kinds and which numbers hold from which height
ahead          signatures verified before somebody judges, in another thread
trail          every transaction that touches an id, with what shows it
transition     the one function that judges and applies a block
genesis        the first block
pool           transactions that wait, of two kinds, with quotas
deny           what is denied before it is final
filing         records, receipts and folders on their way onto the chain: what a node does next
sealing        when a leader seals and when a member votes: local policy
messages       what is said on `/lading/ledger/1`
machine        one end of it: announcing, pulling, headers first, bodies in pages
sync           pages of headers: made, checked, and where two chains part
offers         offers to mine and acts of the council, as text from member to member
alive          who is there and what time it is: signed answers to a challenge
network_time   what the members agree that it is; set after a start, slewed afterwards
seals/         proof of work, scrypt, authority behind one port
transactions/  one file for each kind
"""
