"""The conversation `/lading/auth/1`: both sides of a fenced connection prove who they are, then agree on who is out.

SPEC.md      normative: participants, messages, table of states, limits, what a hostile peer can do
messages     what is said
machine      one symmetric machine for both roles
"""
