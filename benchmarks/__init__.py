"""Measurements against real processes. `make bench` runs all rows; `python -m benchmarks NAME…` some.

harness      nodes as processes, an API client for many calls at once, load of the machine, samples to files
bounds       what the machine and the stock libp2p can do at best: each in a process of its own
lane         session and muxer alone, two processes, against the stock library's; a line with a delay
syncthing    two Syncthing instances on loopback that share a folder
peers        the same files through Lading and through Syncthing
rows         one function per row of docs/PERFORMANCE.md
light        what a light node's disk holds of a chain, against a full node's
plots        the curves
sealed       a chain made with the keys of nodes that stand still
signed       anchors signed beforehand, handed to nodes in batches, and where they went
ledger_net   the ledger through real nodes: anchors a second, times, a late node, terms, bursts; gossip simulated
gossipsub    the library's GossipSub beside our gossip of transactions, as many real nodes of each
ledger       what the pure rules of the ledger cost; stands alone
chunk_store  how the chunk store was chosen (docs/decisions/0002); stands alone
results/     raw samples (JSON), curves (SVG, PNG)
"""
