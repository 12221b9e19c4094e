"""First floor: what is kept. Synchronous, thread-agnostic; LMDB behind one door.

engine            the port: snapshot to read, one atomic batch to write; Put and Delete are data
tables            every table: name with version, environment, key form; nowhere else
memory            the engine in a dict: the reference, and the simulation's disk
faulty            an engine that tears, loses and refuses on command; no faults turned on = its contract is the engine's
lmdb_engine       the one file that imports lmdb
chunks manifests receipts peers keys …   typed stores: they read from a snapshot and return what to write
"""
