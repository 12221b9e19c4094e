"""The node's actors: each owns one piece of state; others hold a handle.

storage       one writer per environment; many transactions to a commit
facts         every signed fact this node knows: validated, committed, then spoken of
knowledge     what the facts say, indexed (no task of its own: the facts actor's state)
exchange      both sides of `/lading/exchange/1` over a stream
bundles       small and medium records on their way to other nodes, many in one question
end           one end of a conversation over a stream: reads, writes, steps its machine
gossip        one end of `/lading/gossip/1` over a stream
scope         what gossip tells and takes, by the peer's standing
session       one connection's life: auth, then its streams
peers         who is connected; dials, back-off, one connection per pair
renewal       certificates with a later end: when, whom to ask, who else learns of it
membership    tickets, joining, certificates, revocations, fences
holdings      what this node holds for others: offers, holds, receipts, collection, scrub
files         get, and what people ask about records
chain         the chain: judges blocks, follows the head, keeps the pool, votes
chain_port    what the rest of a node needs of the chain, kept or not
anchoring     this member's records on their way onto the chain
rulings       whom the chain has put out, what it has erased, which statements it carries: heeded without their facts
sealer        seals when it is this node's slot
duties        hand-overs and evidence, posted by itself
joining       a state fetched node by node from several peers
talk          the ends of `/lading/ledger/1`
showing       what light nodes are shown of the chain
light         a chain followed without keeping it
light_talk    its ends of `/lading/ledger/1`
archives      which nodes hold all of a chain; whether this one may let a part of it go
following     all that belongs to one chain of a node; which stream is about which chain
registrar     accounts on the chain for those whom the domain certifies
puts          a record on its way in
groups        small ones together
replication   want against have: repair, audit, surplus
"""
