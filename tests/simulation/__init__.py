"""The world in one process, from one seed.

scheduler    runs a world under trio's virtual clock and seeded scheduler; the one file that touches trio's inside
trace        what happened, as one rolling hash: two runs are the same run when their traces are
"""
