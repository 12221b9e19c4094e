"""First floor: what is kept. Synchronous, thread-agnostic; LMDB behind one door.

engine            the port: snapshot to read, one atomic batch to write; Put and Delete are data
tables values     every table: name with version, environment, key form; how values are written; nowhere else
overlay           a snapshot with writes laid over it, so that several transactions share one batch
memory            the engine in a dict: the reference, and the simulation's disk
faulty            an engine that tears, loses and refuses on command; no faults turned on = its contract is the engine's
lmdb_engine       the one file that imports lmdb
body_file         beside it: bodies of full chunks in extents, past the page cache
chunks            sealed chunks: presence, references, protections, trash, quarantine, what owners use, collection
places            where sequences stand: by record and index, by root, those only offered so far
records receipts  signed objects of records; who holds what, by whose word
peers keys jobs log   address book; small things by name; work that survives the process; the operator's events
check backup      read everything and recompute every hash, settle both environments; hot copy
chain_state       its state: values, rows of its tree, states of late; a state that comes node by node
chain             the chain: blocks, the state at one of them, what takes it to another, votes, what was made here
refused           what it refused, counted by reason
chain_proofs      what light nodes are shown of it
light             what a light node keeps instead of it
chain_care        a chain that stands still: judged again, taken back to a height, its index made anew
anchors           our own records on their way to the chain: what their anchors shall say, their logs
folders           names in a folder made durable
lock migrations   one process to a home; steps between versions
"""
