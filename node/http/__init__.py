"""The node's API over HTTP/1.1 on a Unix socket: one `POST /v1/<operation>` per call, answered line by line.

contract   what is asked and answered: Dispatcher, Answer, the only list of operations, errors as JSON, all bounds
framing    the lines of an answer: progress, raw output, result; pure, both sides use it
sockets    paths longer than a socket address allows; who is at the other end
server     trio: bounded connections, peer credentials, a lost client cancels its call
client     plain blocking sockets for the command line, which needs no trio
"""
