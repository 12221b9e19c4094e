"""The node's network behind one port, with two twins.

port       what the node needs of a network, and the manners every twin keeps
libp2p/    TCP + Noise + Yamux by py-libp2p; the one folder that imports it
memory     the same port inside one process, with knobs for loss, delay, half-open peers
"""
