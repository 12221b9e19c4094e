"""Small models of rules that only matter when several nodes act at once: no trio, no disk, thousands of steps a second.

chaos           the seeded scheduler: delivery in any order, loss, doubling, crashes, partitions
dropping        several holders that take each other's copy for the one that stays
deleting        puts and deletes of one owner's nodes that know different things
clocks          boards that boot in the past, and members that lie about the time
finalising      miners and members: leaders, votes, finality, a change of committee, with liars
anchoring       records of one owner's nodes on their way to a chain that takes blocks back
network_time    members without time servers tell each other the time, with liars, cuts, standstills, wrong clocks
duty            who copies what is missing when nodes are frozen or die
spreading       facts through many nodes, with the real gossip machines and lines that break
test_models     each model over many seeds; each with a planted bug that its checker must catch
"""
