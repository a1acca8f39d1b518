"""What users hear of a decoupled model that refuses or fails: servers send words and no status.

Real ones, over each protocol, with both clients.
"""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS, SPECIAL_MODELS
from support.wire.callers import WAYS, Caller, caller
from support.wire.http_calls import until

from tritonsmith_client import (
    Client,
    InputError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    StatusError,
    UnavailableError,
)
from tritonsmith_generator.serve import Server

AT_ONCE = np.zeros((1, 1), np.float32)
LONG = np.full((1, 1), 4.0, np.float32)


@pytest.fixture(scope="module")
def dripping(
    start_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """A server of decoupled models, which loads what it is told to."""
    folder = tmp_path_factory.mktemp("streams") / "models"
    shutil.copytree(SPECIAL_MODELS / "drip", folder / "drip")
    shutil.copytree(CLIENT_MODELS / "repeat", folder / "repeat")
    return start_server(folder, extra_args=["--model-control-mode=explicit", "--load-model=*"])


async def drained(parts: Any) -> list[Any]:
    return [part async for part in parts] if isinstance(parts, AsyncIterator) else [*parts]


@dataclass(frozen=True)
class Asking:
    """A model of one client."""

    way: str
    client: Caller
    model: Any

    def __call__(self, *args: Any, **named: Any) -> list[Any]:
        return list(self.client.do(drained, self.model.stream(*args, **named)))

    def fails(self, *args: Any, **named: Any) -> StatusError:
        with pytest.raises(StatusError) as caught:
            self(*args, **named)
        assert caught.value.model == self.model.name
        return caught.value


@contextmanager
def asking(server: Server, name: str, kind: str, way: str) -> Iterator[Asking]:
    address = server.http_url if way == "http" else server.grpc_url
    with caller(kind, way, address, timeout=30.0) as client:
        yield Asking(way, client, client.model(name))


@pytest.fixture
def everybody(dripping: Server) -> Iterator[list[Asking]]:
    """Clients of all kinds that know the model as it is now."""
    with ExitStack() as stack:
        yield [stack.enter_context(asking(dripping, "drip", *way)) for way in WAYS]


@pytest.mark.parametrize(("kind", "way"), WAYS)
def test_what_a_model_says(dripping: Server, kind: str, way: str) -> None:
    """Its own words mean nothing to the client; that it raised is what Triton says."""
    wish = {"COUNT": np.array([1], np.int32), "DELAY": AT_ONCE[0], "FAIL": np.array([True])}
    with asking(dripping, "repeat", kind, way) as repeat:
        error = repeat.fails(**wish)
        assert type(error) is StatusError and error.status == error.hint == ""
        error = repeat.fails(**wish | {"DELAY": AT_ONCE[0] - 1})
        assert type(error) is InternalError
        assert "ValueError: sleep length must be non-negative" in error.server_message
        assert error.hint == "the server's log says more"
        assert error.status == ("HTTP 400" if way == "http" else "")
        assert len(repeat(**wish | {"FAIL": np.array([False])})) == 1, "the next one works"


@contextmanager
def busy(server: Server, waiting: int) -> Iterator[None]:
    """While the model works on one request and so many wait, which will wait for too long."""

    def use() -> None:
        with Client(server.grpc_url) as client, suppress(UnavailableError):
            assert len([*client.model("drip").stream(LONG)]) == 1

    def pending() -> float:
        with Client(server.http_url) as client:
            found = client.metrics(server.metrics_url)
        name = "nv_inference_pending_request_count"
        return sum(m.value for m in found if m.name == name and m.labels["model"] == "drip")

    users = [threading.Thread(target=use) for _ in range(1 + waiting)]
    for user in users:
        user.start()
    try:
        until(lambda: pending() == waiting)
        yield
    finally:
        for user in users:
            user.join()


def test_a_full_queue(dripping: Server, everybody: list[Asking]) -> None:
    with busy(dripping, 8):
        errors = [ask.fails(AT_ONCE) for ask in everybody]
    for error in errors:
        assert type(error) is UnavailableError
        assert "Exceeds maximum queue size" in error.server_message
        assert "max_queue_size" in error.hint


def test_too_long_in_the_queue(dripping: Server, everybody: list[Asking]) -> None:
    with busy(dripping, 1), ThreadPoolExecutor(len(everybody)) as threads:
        errors = list(threads.map(lambda ask: ask.fails(AT_ONCE), everybody))
    for error in errors:
        assert type(error) is UnavailableError
        assert "Request timeout expired" in error.server_message
        assert "waited too long in the model's queue" in error.hint


def _other_type(config: dict[str, Any]) -> None:
    config["input"][0]["data_type"] = "TYPE_INT32"


def _longer(config: dict[str, Any]) -> None:
    config["input"][0]["dims"] = [2]


def _renamed(config: dict[str, Any]) -> None:
    config["input"][0]["name"] = "MINUTES"


def _one_more(config: dict[str, Any]) -> None:
    config["input"].append({"name": "MINUTES", "data_type": "TYPE_FP32", "dims": [1]})


@contextmanager
def reloaded(server: Server, change: Callable[[Any], None]) -> Iterator[None]:
    """While the model has another config."""
    with Client(server.grpc_url) as admin:
        fields = dict(admin.model("drip").config.fields)
        changed = {**fields, "input": [dict(tensor) for tensor in fields["input"]]}
        change(changed)
        admin.load("drip", config=changed)
        try:
            yield
        finally:
            admin.load("drip", config=fields)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_other_type, "input 'SECONDS' data-type is 'FP32', but model 'drip' expects 'INT32'"),
        (_longer, r"unexpected shape for input 'SECONDS' for model 'drip'. Expected \[-1,2\]"),
        (_renamed, "unexpected inference input 'SECONDS' for model 'drip'"),
        (_one_more, "expected 2 inputs but got 1 inputs for model 'drip'"),
    ],
)
def test_a_model_that_has_changed(
    dripping: Server, everybody: list[Asking], change: Callable[[Any], None], words: str
) -> None:
    """The server's refusal has the signature read again, which then says what does not fit."""
    with reloaded(dripping, change):
        for ask in everybody:
            if ask.way == "http" and change is not _one_more:
                continue  # JSON has no types or shapes that could be wrong
            with pytest.raises(InputError) as caught:
                ask(SECONDS=AT_ONCE)
            assert caught.value.model == "drip"
            refusal = caught.value.__context__
            assert type(refusal) is InvalidArgumentError
            assert re.search(words, refusal.server_message)
            assert refusal.model == "drip"
            assert refusal.tensor == ("SECONDS" if "'SECONDS'" in words else None)


def test_a_model_with_another_input_is_asked_with_it(
    dripping: Server, everybody: list[Asking]
) -> None:
    with reloaded(dripping, _one_more):
        for ask in everybody:
            [part] = ask(AT_ONCE, MINUTES=AT_ONCE)
            assert part["SLEPT"].item() == 0
            assert [tensor.name for tensor in ask.model.metadata.inputs] == ["SECONDS", "MINUTES"]
    for ask in everybody:
        assert len(ask(AT_ONCE)) == 1, "and with one input once more"


def test_a_model_with_another_type_is_asked_again(
    dripping: Server, everybody: list[Asking]
) -> None:
    """What the server refuses before the first response fits when it is made anew."""
    with reloaded(dripping, _other_type):
        for ask in everybody:
            if ask.way == "http":
                continue  # JSON has no types
            converting = replace(ask, model=ask.model.using(convert=True))
            [part] = converting(AT_ONCE)
            assert part["SLEPT"].item() == 0
            assert ask.model.metadata.inputs[0].dtype.wire == "INT32"


def test_a_model_that_has_gone(dripping: Server, everybody: list[Asking]) -> None:
    with Client(dripping.grpc_url) as admin:
        admin.unload("drip")
        try:
            until(lambda: not admin.model_ready("drip"))
            for ask in everybody:
                error = ask.fails(AT_ONCE)
                assert type(error) is NotFoundError
                assert "'drip' has no available versions" in error.server_message
                assert error.message.endswith(": it is in the repository, but not loaded")
                assert "client.load('drip')" in error.hint
        finally:
            admin.load("drip")
