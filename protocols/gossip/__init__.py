"""Conversation `/lading/gossip/1`: spreading signed facts by ids first, bodies on demand, and reconciling sets.

SPEC.md     normative: messages, states, limits, what a hostile peer can do
messages    what is said
machine     one end of a gossip stream; both ends are alike
facts       the kinds of facts and the rule of their ids
spread      whom a node tells of what is new
sketch      the summary of a set of facts: 256 buckets, each an exclusive-or of hashes
"""
