"""Conversation `/lading/exchange/1`: moving sealed chunks, both ways, many requests on one long-lived stream.

SPEC.md     normative: messages, states, limits, what a hostile peer can do
messages    what is said
bulk        the frame of a Chunk, without copies
machine     the four request machines (place and fetch, asking and serving) and the two sides that hold them
"""
