"""The command line: arguments to a request to the running node, its answer to people's text or JSON. No trio in this folder.

main          one run: parse, carry out, print, exit code
arguments     argparse: global flags before and after the command, nearest names, help pages
command       what a command is, and what its function is given
kinds         kinds of values in arguments
commands      the only list of commands: help, flags, and which function carries each out
remote        commands that ask the running node
ledger        commands of the chain, and their list
local         commands that need none: init, join, start, keys, config, testnet, demo, version
output        the JSON envelope, people's text, errors in the house's style
show          answers as text for people
progress      one live line on a terminal, a line every 30 s elsewhere
text          sizes, times, ids, tables, colours
passphrase    from a file, a descriptor or a prompt; never from an argument
"""
