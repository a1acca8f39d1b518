"""What a client is made with, and what its methods take, is checked before anything is sent."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.wire.callers import WAYS, Caller, caller
from support.wire.refusals import LONE, SECONDS, refused
from support.wire.scripted import ScriptedServer

from tritonsmith_client import TLS, Retry


@pytest.fixture
def nobody() -> Iterator[ScriptedServer]:
    """A server that counts its connections: none, where nothing was sent."""
    with ScriptedServer(lambda connection: None) as server:
        yield server
        assert server.connections == 0, "something was sent"


# Calls that a client refuses. Nothing may reach the server, not even a connection.
NO_NAMES: list[Any] = [5, None, b"m", "", LONE, "a\0b"]
NO_VERSIONS: list[Any] = [1.0, True, None, 0, -1, "0", "-1", "newest", "1 ", "१", 2**63, "9" * 20]
CALLS: list[tuple[str, list[dict[str, Any]], str]] = [
    *(
        (method, [{"name": name} for name in NO_NAMES], f"client.{method}(): name is")
        for method in ("model", "model_ready", "load", "unload")
    ),
    ("statistics", [{"name": name} for name in NO_NAMES if name], "client.statistics(): name is"),
    *(
        (method, [{"name": "m", "version": v} for v in NO_VERSIONS], "model 'm': version is")
        for method in ("model", "model_ready", "statistics")
    ),
    ("statistics", [{"version": "1"}], "client.statistics(): name is ''"),
    ("wait_ready", [{"models": "plain"}], "models is 'plain'; it must be a list of names: write ["),
    ("wait_ready", [{"models": v} for v in (5, None, b"m", {"m": 1})], "wait_ready(): models is"),
    ("wait_ready", [{"models": [v]} for v in NO_NAMES], "client.wait_ready(): name 0 is"),
    (
        "wait_ready",
        [{"timeout": v} for v in (0, -1, math.nan, math.inf, "1", True)],
        f"; it must be {SECONDS}",
    ),
    ("load", [{"name": "m", "timeout": v} for v in (0, math.inf, "1")], "client.load(): timeout"),
    ("load", [{"name": "m", "config": v} for v in (5, "{}", [1])], "client.load(): config is"),
    ("load", [{"name": "m", "config": {"a": object()}}], "client.load(): config is no JSON"),
    ("load", [{"name": "m", "config": {"a": LONE}}], "client.load(): config is no JSON"),
    ("load", [{"name": "m", "config": {}, "files": v} for v in (5, [b""])], "load(): files is"),
    ("load", [{"name": "m", "config": {}, "files": {"1/m": "text"}}], "files['1/m'] is 'text'"),
    ("load", [{"name": "m", "files": {"1/m": b""}}], "needs its config too"),
    ("unload", [{"name": "m", "dependents": v} for v in (1, "yes")], "unload(): dependents is"),
    ("index", [{"ready": v} for v in (1, "yes", None)], "client.index(): ready is"),
    ("trace_settings", [{"model": v} for v in (5, LONE)], "client.trace_settings(): model is"),
    ("trace_settings", [{"changes": v} for v in (5, [1])], "trace settings is"),
    (
        "trace_settings",
        [{"changes": {"a": v}} for v in (1.5, -1, 2**32, b"x", LONE, [None], {"b": 1})],
        "client.trace_settings(): the setting 'a' is",
    ),
    (
        "trace_settings",
        [{"changes": {"trace_rate": v}} for v in (True, -1, ["1"], [])],
        "it must be a str, an int from 0 to 4294967295, or None",
    ),
    (
        "trace_settings",
        [{"changes": {"trace_level": v}} for v in ([], True, [None])],
        "or None, or a list of str",
    ),
    (
        "log_settings",
        [{"changes": {"log_info": v}} for v in (1, "true", None)],
        "the setting 'log_info' is",
    ),
    (
        "log_settings",
        [{"changes": {"log_verbose_level": v}} for v in (True, "1", -1)],
        "it must be an int from 0",
    ),
    ("log_settings", [{"changes": {"log_format": 1}}], "it must be a str"),
    ("log_settings", [{"changes": {k: "a"}} for k in (5, "", LONE)], "and not empty"),
    (
        "log_settings",
        [{"changes": {"a": v}} for v in (1.5, -1, None, ["x"])],
        "client.log_settings(): the setting 'a' is",
    ),
    ("register", [{"region": v} for v in (5, "region")], "client.register(): region is"),
    ("unregister", [{"region": v} for v in (5, "region")], "client.unregister(): region is"),
    ("metrics", [{"url": v} for v in (5, "ftp://m", "grpc://m")], ""),
]


@pytest.mark.parametrize(("kind", "way"), WAYS)
@pytest.mark.parametrize("row", CALLS, ids=lambda row: row[0])
def test_a_call_that_cannot_be_made(
    nobody: ScriptedServer, kind: str, way: str, row: tuple[str, list[dict[str, Any]], str]
) -> None:
    method, given, message = row
    with caller(kind, way, nobody.address, retry=Retry(attempts=1)) as client:
        for named in given:
            refused(message, getattr(client, method), **named)


# What a client cannot be made with.
SETTINGS: dict[str, list[Any]] = {
    "timeout": [0, -1, math.nan, math.inf, 1e12, "60", True],
    "keepalive": [0, -1, math.nan, math.inf, 32768, 1e9, "60", True],
    "compression": ["br", 5, True, ["gzip"]],
    "http2": ["nghttp2", None, 5],
    "shared_memory": ["on", None, True],
    "resolve": [1, "yes", None],
    "workers": [0, -1, 1.5, "8", True],
    "retry": [3, None, "never"],
    "tls": ["ca.pem", Path("ca.pem"), 5],
}


@pytest.mark.parametrize(("kind", "way"), WAYS)
@pytest.mark.parametrize("option", SETTINGS)
def test_a_client_that_cannot_be_made(
    nobody: ScriptedServer, kind: str, way: str, option: str
) -> None:
    way = "grpc" if option == "http2" else way
    for value in SETTINGS[option]:
        given = {option: value}
        message = refused(
            f"the client: {option} is ",
            caller,
            kind,
            way,
            nobody.address,
            **given,
        )
        assert "; it must be " in message


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_headers_that_no_call_can_have(nobody: ScriptedServer, kind: str, way: str) -> None:
    for headers, message in (
        ([("a", "b")], "the client: headers is a list; it must be a dict from str to str"),
        ("a: b", "headers is a str"),
        ({"a": 5}, "the header 'a' has a value that no header may have"),
        ({"a-bin": "x"}, "would be binary"),
        ({"Content-Length": "5"}, "'Content-Length' belongs to the protocol; it must be left to"),
        ({"grpc-timeout": "1S"}, "'grpc-timeout' belongs to the protocol"),
    ):
        refused(message, caller, kind, way, nobody.address, headers=headers)


@pytest.mark.parametrize(("kind", "way"), WAYS)
@pytest.mark.parametrize(
    ("made", "message"),
    [
        (None, "headers is a NoneType; it must be a dict"),
        ([("a", "b")], "headers is a list"),
        ({"authorization": "Bearer x\n"}, "the header 'authorization' has a value"),
        ({"te": "x"}, "the header 'te' belongs to the protocol"),
    ],
)
def test_a_function_whose_headers_cannot_be_sent(
    nobody: ScriptedServer, kind: str, way: str, made: Any, message: str
) -> None:
    with caller(kind, way, nobody.address, headers=lambda: made) as client:
        message = refused(message, client.metadata)
        assert message.startswith("the function given as headers: ")


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_the_host_that_was_given_is_asked_for(kind: str, way: str) -> None:
    seen = bytearray()

    def listen(connection: Any) -> None:
        if way != "http":
            connection.sendall(bytes([0, 0, 0, 4, 0, 0, 0, 0, 0]))  # HTTP/2: no settings
        while b"models.example" not in seen:
            seen.extend(connection.recv(65536) or b"models.example, never asked for")

    with (
        ScriptedServer(listen) as server,
        caller(
            kind,
            way,
            server.address,
            headers={"Host": "models.example"},
            retry=Retry(attempts=1),
            timeout=5.0,
        ) as client,
    ):
        assert not client.live()
    assert b"never" not in seen
    assert b"host: models.example\r\n" in seen or way != "http"


@pytest.mark.parametrize("kind", ["sync", "async"])
@pytest.mark.parametrize(
    ("url", "message"),
    [
        (None, "the URL is None, which is no str; write host:port (gRPC), or grpc://"),
        (5, "the URL is 5"),
        (b"localhost", "the URL is b'localhost'"),
        (["localhost", None], "the URL is None"),
        ({"localhost": 1}, "the URL is {'localhost': 1}"),
        ([], "the list of URLs is empty"),
        ("http://me:hunter2@h:1", "'http://...@h:1' has credentials, which would not be sent"),
        ("me:hunter2@h", "'...@h' has credentials"),
        ("grpc://me:hun@ter2@h", "'grpc://...@h' has credentials"),
        ("http://h/p?key=hunter2", "'http://h/p?...' has a query or a fragment; leave it out"),
        ("grpc://h#hunter2", "has a query or a fragment"),
        ("http://h:0", "has a port that is none; write a number from 1 to 65535"),
        ("grpc://h:65536", "has a port that is none"),
        ("h:8001:8002", "has a port that is none"),
        (" localhost", "has spaces or characters that are not ASCII"),
        ("local host", "has spaces"),
        ("localhost\n", "has spaces"),
        ("http://h/ä", "write a path with %20 and the like"),
        ("http://größe", "and a host name as xn--..."),
        (LONE, "has spaces or characters that are not ASCII"),
        ("http://h,i", "cannot be read"),
        ("http://[::1", "cannot be read"),
        ("grpc://h/v2", "has a path, which gRPC has not"),
        ("grpc+unix://run/t.sock", "names no socket; write grpc+unix:///path"),
        ("http+unix:///", "names no socket"),
        ("http+unix:///a%20b", "names no socket"),
    ],
)
def test_a_url_of_which_something_would_be_lost(kind: str, url: Any, message: str) -> None:
    assert "hunter2" not in refused(message, Caller, kind, url)


@pytest.mark.parametrize(
    "url",
    [*("localhost", "my_host:1", "10.0.0.1", "[::1]:80", "[fe80::1%eth0]:80", "GRPC://H"),
     *("https://h/a%20b/c", "grpcs://h:65535", "http+unix:///run/t.sock")],
)  # fmt: skip
def test_a_url_that_is_one(url: str) -> None:
    Caller("sync", url).close()


def test_values_that_are_no_tls_and_no_retry() -> None:
    for option in ("ca", "certificate", "key"):
        for path in (5, b"ca.pem", "", True):
            given: Any = {"certificate": "c", "key": "k", option: path}
            refused(f"TLS: {option} is ", TLS, **given)
    for name in (5, "", LONE):
        refused("TLS: server_name is ", TLS, server_name=name)
    for attempts in (0, -1, 1.5, "3", True):
        refused("Retry: attempts is ", Retry, attempts=attempts)
    for seconds in (-1, math.nan, math.inf, "1"):
        refused("Retry: first is ", Retry, first=seconds)
        refused("Retry: longest is ", Retry, longest=seconds)
