"""Attacks on whole nodes over the memory transport: what certified members, holders of a leaked fence or of a ticket can do.

scene    honest nodes, hostile peers that speak the protocols by hand, and what must never be seen while they do
"""
