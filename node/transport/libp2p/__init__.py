"""TCP + Noise with a fence + Yamux, by py-libp2p 0.8.1. Nothing outside this folder imports libp2p or knows what is said here.

Only the library's handshake, keys and peer ids are used; on the lane `stock`, its session and muxer too.
Its Host and Swarm stay out: they lose an inbound slot for every
connection ever accepted, die of one malformed stream, re-dial and connect by themselves, and cut Noise messages when a
write is cancelled. What they would do is short: dial, upgrade, accept streams. The wire is the standard one (multistream-select,
libp2p Noise with one pre-shared key, Yamux frames) under ids of our own, so that nobody ever falls into a weaker stack.

library      what is taken from py-libp2p, without what it would import besides
transport    the port's Transport: listens, dials, closes everything within a second
doorkeeper   who may be in the middle of a handshake: bounded in all and per address, the oldest gives way
wire         one TCP socket: options, exact reads, read buffer
negotiate    multistream-select, bounded
noise        identity, fence (XXpsk0 under one of several keys), the session: protocols/noise over one socket
ciphers      what may seal a session on this machine
mux          the trio around protocols/yamux: one reader, one writer, one clock
stock        the library's own session and muxer behind the same fence: to be chosen as a fallback, and the reference in tests
lane         which of the two pairs a transport runs on
connection   the port's Connection: tasks of one peer, and how they end
stream       the port's Stream: frames and the end marker
budget       bytes a second for one peer
addresses    multiaddrs to host and port and back; addresses of this machine
discovery    other nodes on the local network, by multicast DNS
"""
