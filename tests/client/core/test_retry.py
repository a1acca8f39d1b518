"""When a call is sent again, how long it waits before, and when its time is over."""

from __future__ import annotations

import asyncio
import time

import numpy as np
import pytest

from tritonsmith_client import (
    AlreadyExistsError,
    ConnectError,
    ConnectionLostError,
    DeadlineExceededError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    PermissionDeniedError,
    RequestCancelledError,
    ResourceExhaustedError,
    ResponseError,
    Retry,
    TritonError,
    UnavailableError,
    UnsupportedError,
)
from tritonsmith_client._exchange.exchange import Repeat
from tritonsmith_client.testing import FakeServer

X = np.ones(2, np.float32)
AGAIN: dict[type[TritonError], bool] = {
    UnavailableError: True,
    ConnectError: True,
    ConnectionLostError: False,
}
NEVER = (AlreadyExistsError, DeadlineExceededError, InternalError, InvalidArgumentError,
         NotFoundError, PermissionDeniedError, RequestCancelledError, ResourceExhaustedError,
         ResponseError, UnsupportedError)  # fmt: skip


@pytest.fixture
def server() -> FakeServer:
    server = FakeServer()
    tensors = {"x": ("FP32", [-1])}
    server.add("same", inputs=tensors, outputs=tensors, run=lambda inputs: {"x": inputs["x"]})
    return server


@pytest.mark.parametrize("kind", [*AGAIN, *NEVER], ids=lambda kind: kind.__name__)
def test_an_inference_is_sent_again_only_if_it_was_not_executed(
    server: FakeServer, kind: type[TritonError]
) -> None:
    with server.client(retry=Retry(attempts=3, first=0.001)) as client:
        model = client.model("same")
        server.fail(kind("once"))
        if AGAIN.get(kind, False):
            assert model(X)["x"].tolist() == [1, 1]
        else:
            with pytest.raises(kind, match="once"):
                model(X)
            assert server.calls == []
        assert model(X)["x"].tolist() == [1, 1], "a failure was left over"

    async def main() -> None:
        async with server.async_client(retry=Retry(attempts=3, first=0.001)) as other:
            same = await other.model("same")
            server.fail(kind("once"))
            if AGAIN.get(kind, False):
                assert (await same(X))["x"].tolist() == [1, 1]
            else:
                with pytest.raises(kind, match="once"):
                    await same(X)

    asyncio.run(main())


def test_what_only_reads_is_read_again(server: FakeServer) -> None:
    with server.client(retry=Retry(attempts=2, first=0.001)) as client:
        server.fail(ConnectionLostError("once"))
        assert client.metadata().name == "fake"
        server.fail(ConnectionLostError("twice"), times=2)
        with pytest.raises(ConnectionLostError):
            client.metadata()


def test_sequences_and_one_attempt_are_never_repeated() -> None:
    for kind in AGAIN:
        assert not Retry(attempts=9).again(kind("x"), Repeat.NEVER, 1)
        assert not Retry(attempts=1).again(kind("x"), Repeat.ALWAYS, 1)


def test_waits_are_random_up_to_a_bound_that_doubles() -> None:
    retry = Retry(first=0.1, longest=0.5)
    for attempt, bound in ((1, 0.1), (2, 0.2), (3, 0.4), (4, 0.5), (9, 0.5)):
        waits = [retry.wait(attempt) for _ in range(2000)]
        assert 0 <= min(waits) < bound / 20 and bound * 0.95 < max(waits) <= bound
        assert abs(np.mean(waits) - bound / 2) < bound / 10, "not evenly spread"


def test_a_wait_that_would_pass_the_deadline_is_not_begun(server: FakeServer) -> None:
    """The failure is told at once: the answer could not come in time any more."""
    with server.client(timeout=1e3, retry=Retry(attempts=3, first=1e6, longest=1e6)) as client:
        server.fail(UnavailableError("busy"), times=3)
        start = time.monotonic()
        with pytest.raises(UnavailableError, match="busy"):
            client.model("same")
        assert time.monotonic() - start < 100
