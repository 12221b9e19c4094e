"""Real nodes: processes of their own, libp2p over loopback, LMDB on disk, asked through the command line and the API.

conftest     fixtures that own every process they start and end it, whatever happens
nodes        homes, the processes that run on them, and what is waited for
sources      files and folders to be put, made from a seed
wrong_clock  `lading` on a machine whose clock is wrong
wires        a wire between two nodes: recorded, slowed, cut
"""
