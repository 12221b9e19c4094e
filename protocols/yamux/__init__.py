"""Many streams in one session: frames in, events and pieces out; pieces in, frames out. Sans-IO.

SPEC.md      normative: frames, tables of states, limits, what a hostile peer can do, clause by clause of the Yamux specification
frames       the header, and what a frame may say
pieces       bytes kept as the pieces they came in
budget       how much may be promised and held: by a connection, by the process
stream       one stream's life
session      all streams of one connection: parser, windows, turns, pings, farewell
"""
