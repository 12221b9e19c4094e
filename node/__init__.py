"""Roof: who does what, and when. trio lives here only.

__main__, cli/     arguments to a request to the running node, answer to people's text or JSON
config             one frozen record; unknown key = error
clock entropy offload   the only callers of the wall clock, of randomness, of threads
actor supervisor bus    mailbox and reply; the tree and what to do when one falls; facts upward
transport/         port, the libp2p twin and the memory twin
actors/            storage, membership, peers, session, files, replication …
services           the tables: who may open which protocol, with limits; which facts are told to whom
promises       what this node has bound itself to on the chain: one file, synced before a vote or seal leaves
chain_keys     keys of one node on a chain, and those that a recovery kit brings back
chain_founding chain_home   the first block of a domain's chain; a chain in the home directory
chain_further  chains beside the domain's: founded, followed, opened
chain_acts     what this node's member says on the chain, alone or with the council
chain_store    the chain of a home whose node stands still: verify, roll back, export, import
penalties      penalties in force, read from a state for whom they concern
pendings       what waits on the chain for the word of several, read from a state
ledger_api     what a program can ask of the chain
record_api     what a program has its member say there about records: approvals, later ends, shared erasures
ledger_trail   every transaction that touches an id, proven
light_api ledger_rows  the same on a light node; what a chain holds, in the kinds that JSON has
own sources sinks  what this node is; what `put` reads; what `get` writes
home joining run   the home directory; `lading join`; `lading start`
founding           `lading init --network`: a further domain in a network
recovery           what a founder's recovery kit does when no issuer lives, and on a home that stands still
probe              how long the event loop is held, when asked to watch
demo               five nodes A-E in five processes
api http/          what a program can ask of a node; the same over a Unix socket
wiring             the composition root
"""
