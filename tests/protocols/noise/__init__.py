"""The sealed session: every split of its bytes, every short sequence of events, and the cipher by itself."""
