"""The request machines of the exchange: every short sequence, pairs of them with every interleaving, hostile bytes.

requests             sequences of chunks, and what a holder answers
"""
