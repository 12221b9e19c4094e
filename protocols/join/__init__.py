"""The conversation `/lading/join/1`: coming in with a ticket, over a connection that the ticket's join secret opened.

SPEC.md      normative: participants, messages, table of states, limits, what a hostile peer can do
messages     what is said, and what is sealed inside
machine      the newcomer's side; the relay's side (any node passes the request to an issuer and the answer back)
sealing      how applications and admissions are signed and sealed
decision     the issuer's answer as a pure function
renewal      the same certificate with a later end: the request, the desk's answer, what the asker checks
"""
