"""The world in one process, from one seed.

scheduler    runs a world under trio's virtual clock and seeded scheduler; the one file that touches trio's inside
trace        what happened, as one rolling hash: two runs are the same run when their traces are
two_domains  a world whose machines are of two domains in one network
world        whole nodes on machines that are switched off, killed and healed; ``python -m tests.simulation SEED`` replays one
workload     what people do in it: put, get, share, delete, put again, pin
faults       what goes wrong in it, and a machine that lies
checkers     what must hold in it: on every commit, on every frame, from time to time, at the end
small_world  a world of the harness itself: peers on the memory transport, no nodes
"""
