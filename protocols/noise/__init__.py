"""The sealed session under every connection, after its handshake: bytes to plain messages and back. Sans-IO.

SPEC.md      normative: format, table of states, limits, what a hostile peer can do, clause by clause of the Noise specifications
machine      both directions of one session; its buffer to receive into
"""
