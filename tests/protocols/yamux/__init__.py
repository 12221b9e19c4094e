"""Streams in one session: each rule alone, and two sessions under a random scheduler."""
