"""Silent connections are checked, as often as servers allow. Everything is 300 times as fast here:
a server allows a ping a second, not one in five minutes."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS as MODELS
from support.wire.callers import CALLERS, caller

from tritonsmith_client import AsyncClient, Client, InputError, Retry, UnavailableError
from tritonsmith_client._net.address import parse_url
from tritonsmith_client._net.connection_config import KEEPALIVE, connection_config
from tritonsmith_client._net.grpc_channel import channel_options
from tritonsmith_generator.serve import Server

FAST = KEEPALIVE / 300
_ESTABLISHED = "01"
LONG = np.full((1, 1), 6.0, np.float32)


@pytest.fixture(scope="module")
def strict(start_server: Callable[..., Server]) -> Server:
    """Triton's default of at most two pings that come too early, at another pace."""
    pace = ["--grpc-http2-min-recv-ping-interval-without-data=1000"]
    return start_server(MODELS, models=["slow"], extra_args=pace)


def test_pings_during_a_long_call_are_welcome(strict: Server) -> None:
    with Client(strict.grpc_url, keepalive=FAST, retry=Retry(attempts=1)) as client:
        slow = client.model("slow")
        assert slow(LONG)["SLEPT"][0, 0] == 6.0
        before = ports(strict.grpc_url)
        time.sleep(3 * FAST)  # nothing is pinged while nothing is asked
        assert slow(LONG * 0)["SLEPT"][0, 0] == 0.0
        assert ports(strict.grpc_url) == before != set(), "it is another connection"

    async def main() -> float:
        async with AsyncClient(strict.grpc_url, keepalive=FAST, retry=Retry(1)) as other:
            return float((await (await other.model("slow"))(LONG))["SLEPT"][0, 0])

    assert asyncio.run(main()) == 6.0


def test_a_server_with_the_usual_settings_would_have_minded(server: Server) -> None:
    with (
        Client(server.grpc_url, keepalive=FAST, retry=Retry(attempts=1)) as client,
        pytest.raises(UnavailableError),
    ):
        client.model("slow")(LONG * 2)


def test_the_default_is_above_what_servers_allow() -> None:
    options = dict(channel_options(connection_config(parse_url("localhost"), None, None, None)))
    assert options["grpc.keepalive_time_ms"] > 300_000
    assert not options.get("grpc.keepalive_permit_without_calls")
    never = dict(channel_options(connection_config(parse_url("localhost"), None, None, None, None)))
    assert "grpc.keepalive_time_ms" not in never
    with pytest.raises(InputError, match="keepalive is 0; it must be seconds above 0 up to 32767"):
        Client("localhost", keepalive=0)


def test_tcp_asks_over_http(server: Server) -> None:
    with Client(server.http_url) as client:
        assert client.live()
        assert timers(server.http_url) == {"02"}, "no timer for keepalive"
    with Client(server.http_url, keepalive=None) as client:
        assert client.live()
        assert timers(server.http_url) == {"00"}

    async def main() -> set[str]:
        async with AsyncClient(server.http_url) as other:
            assert await other.live()
            return timers(server.http_url)

    assert asyncio.run(main()) == {"02"}


@pytest.mark.parametrize("kind", CALLERS)
def test_tcp_asks_during_a_stream_over_http(server: Server, kind: str) -> None:
    with caller(kind, "http", server.http_url) as made:
        count = {"COUNT": np.array([2], np.int32), "DELAY": np.zeros(1, np.float32)}
        parts = made.each(made.model("repeat").stream({**count, "FAIL": np.array([False])}))
        next(parts)
        assert timers(server.http_url) == {"02"}
        parts.close()


def test_a_connection_with_an_old_reply_is_used_again(server: Server) -> None:
    with Client(server.http_url, keepalive=1.0) as client:
        assert client.live()
        before = ports(server.http_url)
        time.sleep(3.0)
        assert client.live() and ports(server.http_url) == before != set()


def connections(url: str) -> list[list[str]]:
    """This process's connections to a server, as the kernel lists them."""
    port = f"{int(url.rsplit(':', 1)[1]):04X}"
    mine = set()
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            mine.add(str(entry.readlink()))
    tables = [Path("/proc/self/net", name) for name in ("tcp", "tcp6")]
    rows = [line.split() for t in tables for line in t.read_text().splitlines()[1:]]
    return [
        row
        for row in rows
        if row[2].endswith(":" + port) and row[3] == _ESTABLISHED and f"socket:[{row[9]}]" in mine
    ]


def ports(url: str) -> set[str]:
    return {row[1] for row in connections(url)}


def timers(url: str) -> set[str]:
    """What the kernel waits for on each connection: 02 is its keepalive."""
    return {row[5].split(":")[0] for row in connections(url)}
