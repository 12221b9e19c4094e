"""Calls over a real Unix socket: server in trio, the blocking client in a thread."""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import trio
import trio.testing

from node.http import contract, server
from node.http.client import SOCKET_NAME, connect
from node.http.contract import Answer, CallFailed
from node.http.server import serve
from node.http.sockets import socket_address
from protocols.errors import LadingError, Partial, Reason
from tests.node.http.fake_node import Call, FakeNode


async def connected(path: Path) -> trio.SocketStream:
    """A bare stream to a server. The folder for temporary files may have a longer path than an address of a socket."""
    with socket_address(path) as address:
        return await trio.open_unix_socket(address)


async def _say_yes(call: Call) -> Answer:
    return Answer({"said": "yes"}, ("mind the gap",))


async def test_call_brings_args_there_and_data_warnings_and_progress_back(fake_node: FakeNode) -> None:
    """Goal: nothing is lost or changed on the way. Method: every kind of argument, progress before the answer."""

    async def put(call: Call) -> Answer:
        call.progress({"bytes": 7, "name": b"\x01\xff"})
        return Answer({"record": b"\xab" * 32, "bytes": 2**53 + 1, "entries": (1, 2)}, ["one copy only"])

    fake_node.answers["put"] = put
    told: list[Mapping[str, object]] = []
    args = {"paths": ["/a b", "/ü\n"], "tag": {"k": "v"}, "dry_run": False, "replicas": 3}
    answer = await fake_node.ask("put", args, on_progress=told.append)
    assert fake_node.calls[0].args == args
    assert fake_node.calls[0].body is None
    assert fake_node.calls[0].output is None
    assert answer == Answer({"record": "ab" * 32, "bytes": 2**53 + 1, "entries": [1, 2]}, ("one copy only",))
    assert told == [{"bytes": 7, "name": "01ff"}]


async def test_upload_arrives_whole_and_in_order(fake_node: FakeNode, tmp_path: Path) -> None:
    """Goal: `put -` is byte-exact. Method: 3 MiB of a counter, far more than any buffer between the two."""
    content = b"".join(i.to_bytes(4, "big") for i in range(3 * 2**18))

    async def put(call: Call) -> Answer:
        assert call.body is not None
        got = b"".join([piece async for piece in call.body])
        return Answer({"same": got == content, "bytes": len(got)})

    fake_node.answers["put"] = put
    source = tmp_path / "source"
    source.write_bytes(content)
    with source.open("rb") as body:
        answer = await fake_node.ask("put", {"paths": ["-"]}, body=body)
    assert answer.data == {"same": True, "bytes": len(content)}


async def test_empty_upload_is_an_upload(fake_node: FakeNode, tmp_path: Path) -> None:
    """Goal: an empty standard input makes an empty entry, not a call without a body."""

    async def put(call: Call) -> Answer:
        assert call.body is not None
        return Answer({"pieces": [len(piece) async for piece in call.body]})

    fake_node.answers["put"] = put
    (tmp_path / "nothing").touch()
    with (tmp_path / "nothing").open("rb") as body:
        assert (await fake_node.ask("put", {"paths": ["-"]}, body=body)).data == {"pieces": []}


async def test_download_arrives_whole_with_progress_between(fake_node: FakeNode) -> None:
    """Goal: `get -o -` is byte-exact although progress goes down the same line. Method: pieces above the bound, full of line feeds."""
    pieces = [b"\n{}\n" * 300_000, b"x", b"\n"]

    async def get(call: Call) -> Answer:
        assert call.output is not None
        for count, piece in enumerate(pieces):
            call.progress({"sequences": count})
            await call.output(piece)
        return Answer({"bytes": sum(map(len, pieces))})

    fake_node.answers["get"] = get
    got = bytearray()
    told: list[Mapping[str, object]] = []
    answer = await fake_node.ask("get", {"record": "ab", "inline": True}, on_progress=told.append, output=got.extend)
    assert bytes(got) == b"".join(pieces)
    assert answer.data == {"bytes": len(got)}
    assert {"sequences": 2} in told


async def test_error_keeps_name_code_hint_and_details(fake_node: FakeNode) -> None:
    """Goal: what the node knows of a failure reaches the person. Method: a partial put with holders in bytes and tuples."""

    async def put(call: Call) -> Answer:
        raise Partial(Reason.QUORUM_WRITE, "2 of 3", hint="lading put --resume ab", record=b"\xab", holders=({"node": "n1"},))

    fake_node.answers["put"] = put
    with pytest.raises(CallFailed) as caught:
        await fake_node.ask("put", {"paths": ["/x"]})
    error = caught.value
    assert (error.reason, error.stable_name, error.exit_code, error.retryable) == (Reason.QUORUM_WRITE, "E-QUORUM-WRITE", 3, True)
    assert (error.message, error.hint) == ("2 of 3", "lading put --resume ab")
    assert error.details == {"record": "ab", "holders": [{"node": "n1"}]}


async def test_fault_inside_a_call_is_its_answer_and_the_next_call_works(fake_node: FakeNode, caplog: pytest.LogCaptureFixture) -> None:
    """Goal: one broken call takes nobody down. Method: a KeyError, then a LadingError in two groups, then a good call."""

    async def ls(call: Call) -> Answer:
        raise KeyError("gone")

    async def peers(call: Call) -> Answer:
        raise ExceptionGroup("outer", [ExceptionGroup("inner", [LadingError(Reason.NOT_FOUND, "no such node")])])

    fake_node.answers |= {"ls": ls, "peers": peers, "status": _say_yes}
    with pytest.raises(CallFailed) as failed:
        await fake_node.ask("ls")
    assert failed.value.reason is Reason.FAILED
    assert "KeyError" in caplog.text
    with pytest.raises(CallFailed) as missing:
        await fake_node.ask("peers")
    assert missing.value.reason is Reason.NOT_FOUND
    assert (await fake_node.ask("status")).data == {"said": "yes"}


@pytest.mark.parametrize(
    ("operation", "args"),
    [
        ("stats", {}),
        ("status", {"verbose": True}),
        ("put", {"paths": "not a list"}),
        ("put", {}),
        ("put", {"paths": [], "replicas": True}),
        ("put", {"paths": [], "replicas": -1}),
        ("invite", {"expires_s": "24h"}),
        ("check", {"sample": "5%"}),
        ("ls", {"all": 1}),
        ("put", {"paths": [], "tag": {"k": 1}}),
    ],
)
async def test_call_outside_the_contract_is_refused_before_the_dispatcher(
    fake_node: FakeNode, operation: str, args: Mapping[str, object]
) -> None:
    """Goal: the dispatcher may rely on the kinds of OPERATIONS. Method: one wrong thing at a time."""
    with pytest.raises(CallFailed) as caught:
        await fake_node.ask(operation, args)
    assert caught.value.reason is Reason.USAGE
    assert fake_node.calls == []


async def test_client_that_leaves_cancels_its_call(fake_node: FakeNode) -> None:
    """Goal: Ctrl-C frees what the call held. Method: a call that waits for ever, and a socket that closes under it."""
    began, ended = trio.Event(), trio.Event()

    async def watch(call: Call) -> Answer:
        began.set()
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    fake_node.answers["watch"] = watch
    stream = await connected(fake_node.home / SOCKET_NAME)
    await stream.send_all(b"POST /v1/watch HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n")
    with trio.fail_after(5):
        await began.wait()
        await stream.aclose()
        await ended.wait()


async def test_client_that_leaves_in_its_upload_never_completes_it(fake_node: FakeNode) -> None:
    """Goal: half an upload is never taken for a whole one. Method: a chunked body without its end, then silence for good."""
    arrived, cancelled = trio.Event(), trio.Event()

    async def put(call: Call) -> Answer:
        assert call.body is not None
        try:
            async for _ in call.body:
                arrived.set()
        except trio.Cancelled:
            cancelled.set()
            raise
        raise AssertionError("taken for complete")

    fake_node.answers["put"] = put
    stream = await connected(fake_node.home / SOCKET_NAME)
    body = b'{"paths":["-"]}\nhalf of it'
    await stream.send_all(b"POST /v1/put HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n" % (len(body), body))
    with trio.fail_after(5):
        await arrived.wait()
        await stream.aclose()
        await cancelled.wait()


async def test_timeout_of_the_client_is_named_and_cancels_the_call(fake_node: FakeNode) -> None:
    """Goal: --timeout bounds every call. Method: a call that never answers, 50 ms."""
    ended = trio.Event()

    async def doctor(call: Call) -> Answer:
        try:
            await trio.sleep_forever()
        finally:
            ended.set()
        raise AssertionError

    fake_node.answers["doctor"] = doctor
    with pytest.raises(LadingError) as caught:
        await fake_node.ask("doctor", timeout_s=0.05)
    assert caught.value.reason is Reason.TIMEOUT
    with trio.fail_after(5):
        await ended.wait()


async def test_node_that_stops_tells_whoever_waits(tmp_path: Path) -> None:
    """Goal: no caller waits for ever on a stopping node. Method: the server is cancelled under an open call."""
    (tmp_path / "config.toml").touch()
    node = FakeNode(tmp_path)
    began = trio.Event()

    async def doctor(call: Call) -> Answer:
        began.set()
        await trio.sleep_forever()
        raise AssertionError

    node.answers["doctor"] = doctor
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, node, tmp_path / SOCKET_NAME, allowed_uid=os.getuid()))

        async def stop() -> None:
            await began.wait()
            nursery.cancel_scope.cancel()

        nursery.start_soon(stop)
        with trio.CancelScope(shield=True), pytest.raises(LadingError) as caught:
            await node.ask("doctor")
    assert caught.value.reason is Reason.NOT_RUNNING
    assert not (tmp_path / SOCKET_NAME).exists()


async def test_answer_to_stop_leaves_although_the_server_is_cancelled_at_once(tmp_path: Path) -> None:
    """Goal: `lading stop` is answered. Method: the call itself cancels everything, then returns."""
    (tmp_path / "config.toml").touch()
    node = FakeNode(tmp_path)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, node, tmp_path / SOCKET_NAME, allowed_uid=os.getuid()))

        async def stop(call: Call) -> Answer:
            nursery.cancel_scope.cancel()
            return Answer({"stopping": True})

        node.answers["stop"] = stop
        with trio.CancelScope(shield=True):
            answer = await node.ask("stop")
    assert answer.data == {"stopping": True}


async def test_socket_is_private_and_a_dead_ones_is_replaced_but_a_live_ones_is_not(fake_node: FakeNode, tmp_path: Path) -> None:
    """Goal: only this user, only one node, and no manual clean-up after a kill."""
    path = fake_node.home / SOCKET_NAME
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with pytest.raises(LadingError) as caught:
        await serve(fake_node, path, allowed_uid=os.getuid())
    assert caught.value.reason is Reason.LOCKED
    dead = tmp_path / "dead.sock"
    with socket.socket(socket.AF_UNIX) as left_over, socket_address(dead) as address:
        left_over.bind(address)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, fake_node, dead, allowed_uid=os.getuid()))
        (await connected(dead)).socket.close()
        nursery.cancel_scope.cancel()
    assert os.listdir(tmp_path) == ["home"]


async def test_other_users_are_not_answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: credentials are checked beside the file mode. Method: the server believes that the caller is user 4242."""
    (tmp_path / "config.toml").touch()
    node = FakeNode(tmp_path, {"status": _say_yes})
    monkeypatch.setattr(server, "peer_credentials", lambda raw: (1, 4242))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, node, tmp_path / SOCKET_NAME, allowed_uid=4241))
        with pytest.raises(LadingError) as caught:
            await node.ask("status")
        assert caught.value.reason is Reason.NOT_RUNNING
        nursery.cancel_scope.cancel()
    assert node.calls == []


async def test_home_with_a_very_long_path_works(tmp_path: Path) -> None:
    """Goal: the 108 bytes of a socket address are no limit for homes."""
    home = tmp_path / ("d" * 100) / ("e" * 100)
    home.mkdir(parents=True)
    node = FakeNode(home, {"status": _say_yes})
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, node, home / SOCKET_NAME, allowed_uid=os.getuid()))
        answer = await node.ask("status")
        nursery.cancel_scope.cancel()
    assert answer == Answer({"said": "yes"}, ("mind the gap",))


def test_nobody_there_says_which_of_the_two_reasons(tmp_path: Path) -> None:
    """Goal: "not initialised" and "not running" have their own next steps."""
    with pytest.raises(LadingError) as caught:
        connect(tmp_path)
    assert caught.value.reason is Reason.NOT_INITIALISED
    assert "lading init" in caught.value.hint
    (tmp_path / "config.toml").touch()
    with pytest.raises(LadingError) as caught:
        connect(tmp_path)
    assert caught.value.reason is Reason.NOT_RUNNING
    assert "lading start" in caught.value.hint


async def test_more_connections_than_the_bound_are_turned_away(fake_node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a runaway script cannot fill the node. Method: a bound of one and one call in progress."""
    monkeypatch.setattr(server, "CONNECTIONS_MAX", 1)
    async with await connected(fake_node.home / SOCKET_NAME) as first:
        await first.send_all(b"GET /health/live")
        with pytest.raises(CallFailed) as caught:
            await fake_node.ask("status")
    assert caught.value.stable_name == Reason.FLOOD.stable_name


async def _raw(home: Path, request: bytes) -> bytes:
    async with await connected(home / SOCKET_NAME) as stream:
        await stream.send_all(request)
        got = b""
        # A server that answers before it has read everything resets afterwards; what it said stands before that.
        with trio.fail_after(5), suppress(trio.BrokenResourceError):
            while data := await stream.receive_some():
                got += data
    return got


@pytest.mark.parametrize(
    ("request_bytes", "wanted"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200"),
        (b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 200"),
        (b"GET /health/soul HTTP/1.1\r\nHost: x\r\n\r\n", b"HTTP/1.1 404"),
        (b"GET /v1/status HTTP/1.1\r\nHost: x\r\n\r\n", b"E-USAGE"),
        (b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n[]", b"HTTP/1.1 400"),
        (b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{]", b"E-MALFORMED"),
        (b"\x00\x01\x02 nonsense\r\n\r\n", b"HTTP/1.1 400"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"b" * 20_000, b"HTTP/1.1 400"),
        (b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 3000000\r\n\r\n" + b" " * 1_200_000, b"E-USAGE"),
    ],
    ids=["live", "ready", "unknown", "method", "not-object", "not-json", "nonsense", "long-header", "long-args"],
)
async def test_raw_request_gets_the_right_http_answer(fake_node: FakeNode, request_bytes: bytes, wanted: bytes) -> None:
    """Goal: whatever comes in, an HTTP answer goes out and the server lives on."""
    fake_node.answers["status"] = _say_yes
    assert wanted in await _raw(fake_node.home, request_bytes)
    assert (await fake_node.ask("status")).data == {"said": "yes"}


@pytest.mark.parametrize(
    ("request_bytes", "is_chunked"),
    [
        (b"POST /v1/status HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n", True),
        (b"POST /v1/status HTTP/1.0\r\nContent-Length: 0\r\n\r\n", False),
        (b"POST /v1/status HTTP/0.9\r\nContent-Length: 0\r\n\r\n", False),
        (b"nonsense\r\n\r\n", False),
    ],
    ids=["1.1", "1.0", "0.9", "nonsense"],
)
async def test_answer_comes_in_chunks_to_those_only_who_know_them(fake_node: FakeNode, request_bytes: bytes, is_chunked: bool) -> None:
    """Goal: an old client reads lines, no lengths between them. Method: the same call in each version of HTTP."""
    fake_node.answers["status"] = _say_yes
    head, _, rest = (await _raw(fake_node.home, request_bytes)).partition(b"\r\n\r\n")
    assert (b"chunked" in head) is is_chunked
    assert rest.startswith(b"{") is not is_chunked
    assert rest.endswith(b"\r\n0\r\n\r\n" if is_chunked else b"}\n")


async def test_end_of_a_request_may_come_after_its_answer(fake_node: FakeNode) -> None:
    """Goal: a client that sends its arguments and the end of its request one after the other is not cut off by a quick answer.
    Method: the end is sent when the answer is there already; then all of it is read."""
    fake_node.answers["status"] = _say_yes
    with trio.fail_after(5):
        async with await connected(fake_node.home / SOCKET_NAME) as stream:
            await stream.send_all(b"POST /v1/status HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\n{}\n\r\n")
            await trio.lowlevel.wait_readable(stream.socket)
            await trio.testing.wait_all_tasks_blocked(0.05)
            await stream.send_all(b"0\r\n\r\n")
            got = b""
            while data := await stream.receive_some():
                got += data
    assert b'"yes"' in got
    assert got.endswith(b"\r\n0\r\n\r\n")


async def test_not_ready_node_says_so(tmp_path: Path) -> None:
    """Goal: /health/ready follows is_ready, /health/live does not."""
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(serve, FakeNode(tmp_path), tmp_path / SOCKET_NAME, allowed_uid=os.getuid(), is_ready=lambda: False))
        assert b" 503 " in await _raw(tmp_path, b"GET /health/ready HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b" 200 " in await _raw(tmp_path, b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n")
        nursery.cancel_scope.cancel()


async def test_progress_beyond_the_bound_drops_the_oldest(fake_node: FakeNode) -> None:
    """Goal: a dispatcher never waits for a slow reader. Method: more lines at once than are kept."""

    async def put(call: Call) -> Answer:
        for count in range(contract.PROGRESS_LINES_MAX * 2):
            call.progress({"bytes": count})
        return Answer({})

    fake_node.answers["put"] = put
    told: list[Mapping[str, object]] = []
    await fake_node.ask("put", {"paths": []}, on_progress=told.append)
    assert [facts["bytes"] for facts in told] == list(range(contract.PROGRESS_LINES_MAX, contract.PROGRESS_LINES_MAX * 2))


async def test_caller_that_reads_nothing_keeps_one_write_of_progress(fake_node: FakeNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Goal: a terminal that was stopped costs the node no memory. Method: a caller who reads nothing while its call tells more than the
    socket takes, again and again; one write waits for it, and no others behind that one."""
    monkeypatch.setattr(server, "_PROGRESS_PAUSE_S", 0.001)
    writing: list[int] = []
    write = server._Exchange._write

    async def counted(self: server._Exchange, lines: bytes, **options: Any) -> None:
        writing.append(len(lines))
        try:
            await write(self, lines, **options)
        finally:
            writing.remove(len(lines))

    monkeypatch.setattr(server._Exchange, "_write", counted)
    most, told = 0, trio.Event()

    async def put(call: Call) -> Answer:
        nonlocal most
        for _ in range(50):
            for _ in range(contract.PROGRESS_LINES_MAX):
                call.progress({"text": "x" * 8192})
            await trio.sleep(0.005)
            most = max(most, len(writing))
        told.set()
        return Answer({})

    fake_node.answers["put"] = put
    stream = await connected(fake_node.home / SOCKET_NAME)
    body = b'{"paths": ["/x"]}\n'
    await stream.send_all(b"POST /v1/put HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
    with trio.fail_after(30):
        await told.wait()
        await stream.aclose()
    assert most == 1
