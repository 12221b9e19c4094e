"""Records: named, cut, sealed, kept, proved and removed. Pure functions and frozen values.

SPEC.md      normative: byte for byte, with golden vectors in tests/vectors/files.json
keys         the owner's secrets and every key that comes from them
entries      what a record consists of: paths, digests, list pages, proof of one entry
hashid       the name of a record; the printed name of a chunk
padding      sizes that say little
seal         one piece of content to one sealed chunk and back
layout       which bytes of which entry stand in which chunk; the one place that knows the cuts
sequences    runs of chunks, their roots and paths under chunks_root
builder      content in, sealed chunks and a finished record out, in one read
manifest_format   bytes of sequence 0 before they are cut and sealed
manifest     sequence 0, read: whole or for one entry
objects      what owners and operators sign: statement, offer, wrap, tombstone, confirmation, pin
holdings     what holders sign: hold, receipt, withdrawal, erasure receipt, refusal
precedence   which object of one record is in force
receipts     which receipts count
placement    who should hold a sequence
repair       what to copy, who does it; how a surplus copy is dropped
survive      how many losses a record survives
audit        proof that a holder still has the bytes
journal      what happened to a record on its way in, linked by hashes
"""
