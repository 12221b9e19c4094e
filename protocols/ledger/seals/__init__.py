"""Seals: what makes a header acceptable besides its leader's signature. One port, one conformance suite.

port        what a seal answers
pow         SHA-256 of the header at most the target, one leader a slot
scrypt      scrypt of the header at most the target, an open race
authority   no work: the leader's signature alone
table       seals by the name that a profile gives
"""
