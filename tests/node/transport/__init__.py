"""manners.py: what every transport does; test_memory.py: the memory twin, and the knobs of its network."""
