"""Functions of the caller's hear of each attempt at a request, over all transports."""

from __future__ import annotations

import asyncio
import functools
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from support.wire.awaited import Awaited
from support.wire.callers import CALLERS, WAYS, Caller, caller
from support.wire.http_calls import until
from support.wire.refusals import refused
from support.wire.scripted import ScriptedServer

from tritonsmith_client import (
    AsyncClient,
    Client,
    DeadlineExceededError,
    InputError,
    InvalidArgumentError,
    NotFoundError,
    RequestCancelledError,
    RequestEvent,
    ResponseEvent,
    Retry,
    UnavailableError,
)
from tritonsmith_client.testing import FakeServer
from tritonsmith_generator.serve import Server

ONES = np.ones((1, 4), np.float32)
LONG = np.full((1, 1), 0.3, np.float32)  # seconds
DRIPS = {
    "COUNT": np.array([3], np.int32),
    "DELAY": np.array([0.01], np.float32),
    "FAIL": np.array([False]),
}


class Heard:
    """What the hooks were told."""

    def __init__(self) -> None:
        self.requests: list[RequestEvent] = []
        self.responses: list[ResponseEvent] = []

    @property
    def hooks(self) -> dict[str, list[Callable[[Any], object]]]:
        return {"request": [self.requests.append], "response": [self.responses.append]}

    @property
    def said(self) -> list[tuple[str, int, int, str]]:
        """What was asked, in which attempt, and what came; each response is of its request."""
        assert [r.request for r in self.responses] == self.requests
        return [(r.request.what, r.request.attempt, r.replies, r.status) for r in self.responses]


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_every_call_is_told(server: Server, heard: Heard, kind: str, way: str) -> None:
    address = server.http_url if way == "http" else server.grpc_url
    with caller(kind, way, address, event_hooks=heard.hooks, shared_memory="off") as client:
        assert client.live()
        assert client.index()
        model = client.model("plain", version=1)
        for _ in range(2):  # the second one finds its request prepared
            client.do(model, ONES)
        with pytest.raises(NotFoundError) as caught:
            client.model("nope")
        parts = client.model("repeat").stream(**DRIPS)
        assert len([*client.each(parts)]) == 3
        assert client.metrics(server.metrics_url)
    inference = "inference with model 'plain' version 1"
    assert heard.said[:4] == [
        ("the liveness check", 1, 1, ""),
        ("reading the index of the model repository", 1, 1, ""),
        ("reading the metadata of model 'plain' version 1", 1, 1, ""),
        ("reading the configuration of model 'plain' version 1", 1, 1, ""),
    ]
    assert [s for s in heard.said if s[0] == inference] == [(inference, 1, 1, "")] * 2
    (refusal,) = [r for r in heard.responses if "metadata of model 'nope'" in r.request.what]
    assert isinstance(refusal.error, NotFoundError) and refusal.error.model == "nope"
    assert refusal.status == refusal.error.status == caught.value.status != ""
    (stream,) = [r for r in heard.responses if r.request.what == "inference with model 'repeat'"]
    assert stream.replies >= 3 and stream.error is None and stream.seconds > 0.03
    assert heard.requests[-1].what == "reading the metrics"
    assert heard.requests[-1].server == server.metrics_url.removesuffix("/metrics")
    asked = heard.requests[3]
    assert (asked.model, asked.version) == ("plain", "1")
    assert asked.protocol == ("http" if way == "http" else "grpc")
    assert asked.server == f"{asked.protocol}://{address.rpartition('/')[2]}"
    with pytest.raises(AttributeError):
        asked.attempt = 2  # type: ignore[misc]


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_stream_that_is_left_is_over(server: Server, heard: Heard, kind: str, way: str) -> None:
    address = server.http_url if way == "http" else server.grpc_url
    with caller(kind, way, address, event_hooks=heard.hooks) as client:
        parts = client.each(client.model("repeat").stream(**DRIPS))
        next(parts)
        assert len(heard.requests) == len(heard.responses) + 1
        parts.close()
        assert heard.responses[-1].replies == 1 and heard.responses[-1].error is None
        assert heard.said[-1][0] == "inference with model 'repeat'"


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_a_hook_adds_headers(forwarding: Server, kind: str, way: str) -> None:
    """They reach the model with this attempt, beside those of the call."""

    def sign(event: RequestEvent) -> None:
        if event.what.startswith("inference"):
            event.headers["X-Test-Attempt"] = f"{event.attempt} of {event.headers['x-test-own']}"

    address = forwarding.http_url if way == "http" else forwarding.grpc_url
    with caller(kind, way, address, event_hooks={"request": [sign]}) as client:
        model = client.model("wishes").using(headers={"x-test-own": "mine"})
        for _ in range(2):
            said = client.do(model, np.zeros(1, np.float32))["SAID"].item()
            found = {k.lower(): v for k, v in json.loads(said)["parameters"].items()}
            assert found["x-test-attempt"] == "1 of mine" and found["x-test-own"] == "mine"


def fake(kind: str, server: FakeServer, **options: Any) -> Any:
    return Awaited(server.client(**options)) if kind == "sync" else server.async_client(**options)


@pytest.fixture
def echo() -> FakeServer:
    server = FakeServer()
    tensors = {"x": ("FP32", [-1, 4])}
    server.add(
        "echo",
        inputs=tensors,
        outputs=tensors,
        run=lambda inputs: {"x": inputs["x"]},
        max_batch_size=2,
    )
    server.add(
        "many",
        inputs=tensors,
        outputs=tensors,
        run=lambda inputs: [{"x": inputs["x"]}] * 2,
        config={"model_transaction_policy": {"decoupled": True}},
    )
    return server


@pytest.mark.parametrize("kind", CALLERS)
def test_each_attempt_is_told(echo: FakeServer, heard: Heard, kind: str) -> None:
    async def use() -> None:
        retry = Retry(attempts=3, first=0.001)
        async with fake(kind, echo, retry=retry, event_hooks=heard.hooks) as client:
            model = await client.model("echo")
            for _ in range(2):
                echo.fail(UnavailableError("the queue is full", status="UNAVAILABLE"), times=2)
                await model(ONES)

    asyncio.run(use())
    what = "inference with model 'echo'"
    once = [(what, 1, 0, "UNAVAILABLE"), (what, 2, 0, "UNAVAILABLE"), (what, 3, 1, "")]
    assert heard.said[2:] == once * 2
    assert str(heard.responses[2].error).startswith(f"{what} failed: the queue is full")


@pytest.mark.parametrize("kind", CALLERS)
def test_each_server_is_told_of(server: Server, heard: Heard, kind: str) -> None:
    with ScriptedServer(lambda connection: connection.close()) as dead:
        urls = [f"http://{dead.address}", server.http_url]
        with Caller(kind, urls, event_hooks=heard.hooks) as client:
            client.index()
    assert [(e.server, e.attempt) for e in heard.requests] == [(urls[0], 1), (urls[1], 2)]


@pytest.mark.parametrize("kind", CALLERS)
def test_what_ends_an_attempt_early_is_told(server: Server, heard: Heard, kind: str) -> None:
    with caller(kind, "http", server.http_url, event_hooks=heard.hooks) as client:
        slow = client.model("slow")
        with pytest.raises(DeadlineExceededError):
            client.do(slow.using(timeout=0.05), LONG)
    assert isinstance(heard.responses[-1].error, DeadlineExceededError)
    assert heard.responses[-1].replies == 0 and heard.responses[-1].seconds >= 0.04


RAISED = [
    RuntimeError("as it is"),
    UnavailableError("as it is"),  # is not taken for the server's, and so not tried again
    InvalidArgumentError("as it is", server_message="x"),  # nor is the signature read again
    NotFoundError("as it is", server_message="x"),
    InputError("as it is"),
]


@pytest.mark.parametrize("event", ["request", "response"])
@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("kind", CALLERS)
def test_what_a_hook_raises_reaches_the_caller(
    echo: FakeServer, kind: str, error: Exception, event: str
) -> None:
    told: list[Any] = []
    armed: list[Exception] = []

    def hook(event: Any) -> None:
        told.append(event)
        if armed:
            raise armed[0]

    async def fails(call: Callable[[], Any]) -> None:
        told.clear()
        armed.append(error)
        with pytest.raises(type(error)) as caught:
            await call()
        armed.clear()
        assert caught.value is error and str(error) == "as it is" and len(told) == 1

    async def use() -> None:
        async with fake(kind, echo, event_hooks={event: [hook]}) as client:
            model, many = await client.model("echo"), await client.model("many")
            await fails(client.live)
            await fails(lambda: client.model("echo"))
            await fails(lambda: model(ONES))
            await model(ONES)
            await fails(lambda: model(ONES))  # which is prepared
            await fails(lambda: model.using(hedge=5.0)(ONES))
            await fails(lambda: model.submit(ONES))
            await fails(lambda: drained(many.stream(ONES)))

    asyncio.run(use())


async def drained(parts: Any) -> list[Any]:
    return [part async for part in parts]


@pytest.mark.parametrize("kind", CALLERS)
def test_a_part_of_a_batch_that_a_hook_ends(echo: FakeServer, kind: str) -> None:
    error = InvalidArgumentError("as it is")
    told: list[RequestEvent] = []

    def hook(event: RequestEvent) -> None:
        told.append(event)
        if event.what.startswith("inference"):
            raise error

    async def use() -> None:
        async with fake(kind, echo, event_hooks={"request": [hook]}) as client:
            model = await client.model("echo")
            with pytest.raises(InvalidArgumentError) as caught:
                await model(np.ones((6, 4), np.float32))
            assert caught.value is error

    asyncio.run(use())
    assert not [e for e in told[2:] if not e.what.startswith("inference")]


@pytest.mark.parametrize("kind", CALLERS)
def test_headers_of_a_hook_are_checked(echo: FakeServer, kind: str) -> None:
    async def use() -> None:
        hook = lambda event: event.headers.update(host="other")  # noqa: E731
        async with fake(kind, echo, event_hooks={"request": [hook]}) as client:
            with pytest.raises(InputError, match="a request hook: the header 'host'"):
                await client.index()

    asyncio.run(use())


@pytest.mark.parametrize("kind", CALLERS)
def test_a_client_closes_though_a_hook_raises(server: Server, kind: str) -> None:
    def hook(event: RequestEvent) -> None:
        if "unregistering" in event.what:
            raise RuntimeError("as it is")

    client = caller(kind, "grpc", server.grpc_url, event_hooks={"request": [hook]})
    model = client.model("identity")
    for _ in range(2):
        client.do(model, IN_FP32=np.zeros((300, 400), np.float32))
    with pytest.raises(RuntimeError, match="as it is"):
        client.close()
    with pytest.raises(Exception, match=r"after close\(\)"):
        client.live()
    client._loop.close()


def test_coroutine_functions_are_awaited_in_order(echo: FakeServer) -> None:
    told: list[str] = []

    async def slowly(event: RequestEvent) -> None:
        await asyncio.sleep(0.01)
        told.append("slowly")

    hooks = {"request": [slowly, lambda event: told.append("at once")]}

    async def use() -> None:
        async with echo.async_client(event_hooks=hooks) as client:
            assert await client.live()

    asyncio.run(use())
    assert told == ["slowly", "at once"]


def test_a_cancelled_attempt_is_told(server: Server, heard: Heard) -> None:
    async def use() -> None:
        async with AsyncClient(server.http_url, event_hooks=heard.hooks) as client:
            model = await client.model("slow")
            call = asyncio.ensure_future(model(LONG))
            await asyncio.sleep(0.05)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call

    asyncio.run(use())
    assert isinstance(heard.responses[-1].error, asyncio.CancelledError)
    with Client(server.http_url, event_hooks=heard.hooks) as client:
        model = client.model("slow")
        call = model.submit(LONG)
        until(lambda: heard.requests[-1].what == "inference with model 'slow'")
        call.cancel()
        until(lambda: len(heard.responses) == len(heard.requests))
    assert isinstance(heard.responses[-1].error, RequestCancelledError)


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_what_are_no_hooks(kind: Any) -> None:
    wrong: list[tuple[Any, str]] = [
        ([print], "event_hooks is [<built-in"),
        (print, "event_hooks is <built-in"),
        ("", "event_hooks is ''"),
        ({"requests": [print]}, "event_hooks has 'requests', and no event has that name"),
        ({5: [print]}, "event_hooks has 5, and no event has that name"),
        ({"request": print}, "event_hooks['request'] is <built-in"),
        ({"request": None}, "event_hooks['request'] is None"),
        ({"response": "print"}, "event_hooks['response'] is 'print'"),
        ({"response": [print, 5]}, "event_hooks['response'] has 5"),
    ]
    for given, said in wrong:
        message = refused(said, kind, event_hooks=given)
        assert "it must be a dict of lists of functions, {'request': [...], 'resp" in message


def test_the_synchronous_client_awaits_nothing() -> None:
    async def hook(event: RequestEvent) -> None: ...

    class Hook:
        async def __call__(self, event: RequestEvent) -> None: ...

    for given in (hook, functools.partial(hook), Hook()):
        message = refused("coroutine function", Client, event_hooks={"request": [given]})
        assert "AsyncClient awaits them" in message


@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_hooks_can_be_read_and_are_copied(kind: Any) -> None:
    given: dict[str, list[Callable[[Any], object]]] = {"response": [print]}
    client = kind(event_hooks=given)
    given["response"].append(repr)
    client.event_hooks["request"].append(repr)
    assert client.event_hooks == {"request": [], "response": [print]}
    assert kind().event_hooks == kind(event_hooks={}).event_hooks == {"request": [], "response": []}
