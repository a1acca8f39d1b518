"""Several servers that take turns; one of them dies and comes back."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.servers import BriefServer

from tritonsmith_client import AsyncClient, Client, InputError, Retry, UnavailableError
from tritonsmith_client._core.balancing import Balancer, addresses_of
from tritonsmith_client._net.address import parse_url, parse_urls
from tritonsmith_generator.serve import Server

MODELS = Path(__file__).parent / "models"
A, B, C = (parse_url(f"host{n}") for n in "abc")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_each_server_takes_its_turn() -> None:
    balancer = Balancer([A, B, C])
    assert [balancer.pick() for _ in range(6)] == [A, B, C, A, B, C]


def test_a_failing_server_rests_longer_each_time() -> None:
    clock = Clock()
    balancer = Balancer([A, B], clock=clock)
    rests = []
    for _ in range(8):
        balancer.failed(A)
        rest = 0
        while all(balancer.pick() is B for _ in range(4)):
            clock.now += 1
            rest += 1
        rests.append(rest)
    assert rests == [1, 2, 4, 8, 16, 30, 30, 30]
    balancer.worked(A)
    assert Counter(balancer.pick() for _ in range(10)) == {A: 5, B: 5}


def test_one_call_finds_out_whether_a_server_is_back() -> None:
    clock = Clock()
    balancer = Balancer([A, B], clock=clock)
    balancer.failed(A)
    clock.now += 1
    assert Counter(balancer.pick() for _ in range(10)) == {A: 1, B: 9}


def test_where_none_works_the_first_to_come_back_is_tried() -> None:
    clock = Clock()
    balancer = Balancer([A, B], clock=clock)
    balancer.failed(A)
    clock.now += 0.5
    balancer.failed(B)
    assert balancer.pick() is A


def test_affinity_keeps_a_server_while_it_works() -> None:
    balancer = Balancer([A, B, C])
    first = balancer.pick(affinity=7)
    assert {balancer.pick(affinity=7) for _ in range(10)} == {first}
    assert {balancer.pick(affinity=n) for n in range(10)} == {A, B, C}
    balancer.failed(first)
    second = balancer.pick(affinity=7)
    assert second is not first and balancer.pick(affinity=7) is second


def test_names_are_looked_up_again() -> None:
    clock = Clock()
    balancer = Balancer([A], by_name=True, clock=clock)
    assert balancer.due() and not balancer.due()
    found = addresses_of(A, [(2, 1, 6, "", ("10.0.0.1", 8001)), (2, 1, 6, "", ("10.0.0.2", 8001))])
    assert balancer.update(found) == [A]
    assert {balancer.pick().host for _ in range(4)} == {"10.0.0.1", "10.0.0.2"}
    assert {balancer.pick().name for _ in range(4)} == {"hosta"}
    clock.now += 30
    assert balancer.due()
    assert balancer.update([]) == []  # the name service is down: keep what is known
    assert balancer.update(found[:1]) == found[1:]
    assert not Balancer([A], clock=clock).due()


def test_servers_of_different_kinds_are_refused() -> None:
    with pytest.raises(InputError, match="differ in protocol, TLS or path"):
        parse_urls(["grpc://a", "http://b"])
    with pytest.raises(InputError, match="empty"):
        Client([])


X = np.ones((1, 16), np.int32)


@pytest.mark.parametrize("kind", ["grpc", "http"])
def test_a_server_dies_and_comes_back(kind: str) -> None:
    with (
        BriefServer(MODELS, models=["add_sub"]) as left,
        BriefServer(MODELS, models=["add_sub"]) as right,
    ):
        urls = [s.grpc_url if kind == "grpc" else s.http_url for s in (left, right)]
        port = int(urls[1].rsplit(":", 1)[1])
        with Client(urls, timeout=10.0, retry=Retry(attempts=4)) as client:
            model = client.model("add_sub")
            for _ in range(6):
                assert model(X, X)["SUM"][0, 0] == 2
            assert served(left) > 1 and served(right) > 1, "one of them did all the work"
            right.stop()
            for _ in range(20):
                assert model(X, X)["SUM"][0, 0] == 2
            with BriefServer(MODELS, models=["add_sub"], **{f"{kind}_port": port}) as again:  # type: ignore[arg-type]  # by keyword
                before = served(again)
                deadline = time.monotonic() + 20
                while served(again) == before:
                    assert model(X, X)["SUM"][0, 0] == 2
                    assert time.monotonic() < deadline, "it was not called again"
                    time.sleep(0.1)
            left.stop()
            with pytest.raises(UnavailableError):
                model.using(timeout=3.0)(X, X)


def served(server: Server) -> int:
    """How many requests the server has executed."""
    with Client(server.http_url) as client:
        return client.statistics("add_sub")[0].inference_count


def test_asyncio_and_names(server: Any) -> None:
    async def main(url: str, **options: Any) -> int:
        async with AsyncClient(url, **options) as client:
            model = await client.model("add_sub")
            return int((await model(X, X))["SUM"][0, 0])

    for url in (server.grpc_url, server.http_url):
        by_name = url.replace("127.0.0.1", "localhost")
        assert asyncio.run(main(by_name, resolve=True)) == 2
        assert asyncio.run(main([url, url.replace("127.0.0.1", "127.0.0.2")])) == 2  # type: ignore[arg-type]  # a list
        with Client(by_name, resolve=True, retry=Retry(attempts=4)) as client:
            for _ in range(4):
                assert client.model("add_sub")(X, X)["SUM"][0, 0] == 2
