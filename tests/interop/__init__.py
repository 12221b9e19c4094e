"""Our session and muxer under the standard ids, against other implementations of libp2p."""
