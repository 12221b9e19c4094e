"""Tests of the actors over the memory transport and the engine in a dict, in virtual time.

streams    two connected peers
hosts      what stands behind an exchange stream
"""
