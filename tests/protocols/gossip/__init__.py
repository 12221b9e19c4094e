"""The gossip machine and its sketch: every short sequence, pairs with every interleaving, hostile bytes.

ends                 a machine with a set of facts behind it
"""
