"""Other implementations: of libp2p, against our session and muxer under the standard ids; of IPFS, against the names that we print."""
