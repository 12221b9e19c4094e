"""Ground floor: what is true and what to say next. Pure values and functions, no clock, chance, disk, trio or logging.

types, limits, errors    names for bytes and numbers; every bound with unit and reason; who-is-at-fault errors
codec                    canonical MessagePack: same value, same bytes; the door to msgpack and msgspec
crypto                   the door to `cryptography`: hash, sign, HPKE, AEAD; every domain-separation label
merkle                   record trees: leaves as they are, inner node SHA-256(0x01 | left | right), odd node promoted
signed                   the one envelope of every signed object
frames                   bytes to frames and back
effects, machine         what a machine may ask for; how a table is stepped
registry                 the only list of messages
identity/                networks, members, certificates, key files, tickets, revocation, fences, clock floor
files/                   entries, cuts, sealing, sequences, manifest, statement, wraps, receipts, placement, repair
ledger/                  blocks, state, transactions, terms, votes and finality: above the values, below the conversations
auth/ join/              conversations: proving who one is; coming in with a ticket
gossip/ exchange/        conversations: announcing facts; moving chunks
noise/ yamux/            what is under every conversation: the sealed session, and the streams in it
"""
