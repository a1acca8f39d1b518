"""Statistics, metrics, model control and settings on real servers, over both protocols."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from support.harness.paths import CLIENT_MODELS as MODELS
from support.wire.callers import WAYS, Caller, caller
from support.wire.http_calls import settled, until

from tritonsmith_client import (
    AsyncClient,
    Client,
    InputError,
    InvalidArgumentError,
    Metric,
    NotFoundError,
    ResponseError,
    StatusError,
    UnavailableError,
    UnsupportedError,
)
from tritonsmith_client._protocol.http.metrics import parse_metrics
from tritonsmith_generator.serve import Server

ONES = np.ones((3, 16), np.int32)


@pytest.fixture(scope="session")
def controlled(start_server: Callable[..., Server]) -> Server:
    """A server that loads and unloads what it is told to."""
    flags = ["--model-control-mode=explicit", "--load-model=add_sub"]
    traces = ["--trace-config=rate=7", "--trace-config=triton,file=/dev/null"]
    return start_server(MODELS, extra_args=[*flags, *traces])


@pytest.fixture(params=["grpc", "http"])
def control(controlled: Server, request: pytest.FixtureRequest) -> Any:
    url = controlled.grpc_url if request.param == "grpc" else controlled.http_url
    with Client(url, timeout=30.0) as client:
        yield client


def test_statistics(client: Client) -> None:
    before = settled(lambda: client.statistics("add_sub", "1")[0])
    for _ in range(2):
        client.model("add_sub")(ONES, ONES)
    done = before.durations["success"].count + 2
    until(lambda: client.statistics("add_sub")[0].durations["success"].count == done)
    after = settled(lambda: client.statistics("add_sub")[0])
    assert (after.name, after.version) == ("add_sub", "1")
    assert after.inference_count - before.inference_count == 6
    assert after.execution_count - before.execution_count == 2
    assert after.durations["success"].count - before.durations["success"].count == 2
    assert after.durations["compute_infer"].average_ms > 0
    assert after.batches[3].count >= 2
    assert after.fields["inference_stats"]["success"]["count"] == after.durations["success"].count
    assert {"add_sub", "text"} <= {model.name for model in client.statistics()}
    with pytest.raises(InvalidArgumentError, match="'nope'"):
        client.statistics("nope")


def test_the_index(client: Client, server: Server) -> None:
    entries = {entry.name: entry for entry in client.index()}
    assert set(entries) == set(server.models)
    assert entries["text"].ready and (entries["text"].version, entries["text"].reason) == ("1", "")


def test_metrics(server: Server, client: Client) -> None:
    client.model("add_sub")(ONES, ONES)
    metrics = client.metrics(server.metrics_url)
    counts = [
        m.value
        for m in metrics
        if m.name == "nv_inference_request_success" and m.labels["model"] == "add_sub"
    ]
    assert len(counts) == 1 and counts[0] >= 1
    with pytest.raises(InputError, match="served over HTTP"):
        client.metrics("grpc://localhost:8002")


def test_metrics_in_any_spelling() -> None:
    text = (
        "# HELP a b\n\n"
        'a{model="x\\"y\\\\z",version="1",} 2.5\n'
        "b 1e3 1700000000\n"
        "c{} NaN\n"
        'd{le="+Inf"} +Inf\n'
    )
    first, second, third, fourth = parse_metrics(text)
    assert first == Metric("a", {"model": 'x"y\\z', "version": "1"}, 2.5)
    assert second == Metric("b", {}, 1000.0)
    assert third.labels == {} and third.value != third.value
    assert fourth == Metric("d", {"le": "+Inf"}, float("inf"))
    for nonsense in ("<html>", "a", "a b"):
        with pytest.raises(ResponseError):
            parse_metrics(nonsense)


def test_a_model_is_loaded_and_unloaded(control: Client) -> None:
    assert not control.model_ready("text")
    entry = next(e for e in control.index() if e.name == "text")
    assert not entry.ready
    assert "text" not in [e.name for e in control.index(ready=True)]
    control.load("text")
    control.wait_ready(10, models=["text"])
    assert control.model("text")([["a"]])["UPPER"].item() == b"A"
    control.unload("text", dependents=True)
    with pytest.raises((NotFoundError, UnavailableError, InvalidArgumentError)):
        for _ in range(200):  # until the server has let go of it
            control.model("text")([["a"]])
    while control.model_ready("text"):
        pass


def test_a_reload_with_another_config_is_noticed(control: Client) -> None:
    model = control.model("add_sub")
    assert model.config.max_batch_size == 8
    fields = dict(model.config.fields)
    control.load("add_sub", config=fields | {"max_batch_size": 2})
    try:
        control.wait_ready(10, models=["add_sub"])
        result = model.using(split=False)(ONES[:2], ONES[:2])
        assert (result["SUM"] == 2).all()
        with pytest.raises(InputError):
            model.using(split=False)(ONES, ONES)
        assert model.config.max_batch_size == 2
        assert (model(ONES, ONES)["SUM"] == 2).all(), "split by the new limit"
    finally:
        control.load("add_sub", config=fields)  # without one, the server keeps the last one


def test_a_model_from_files(control: Client) -> None:
    def tensor(name: str) -> dict[str, Any]:
        return {"name": name, "data_type": "TYPE_INT32", "dims": [16]}

    source = (MODELS / "add_sub" / "1" / "model.py").read_bytes().replace(b"left - right", b"left")
    config = {
        "name": "sent", "backend": "python", "max_batch_size": 8,
        "input": [tensor("INPUT0"), tensor("INPUT1")],
        "output": [tensor("SUM"), tensor("DIFF")],
        "instance_group": [{"kind": "KIND_CPU"}],
    }  # fmt: skip
    control.load("sent", config=config, files={"1/model.py": source})
    assert (control.model("sent")(ONES, ONES)["DIFF"] == 1).all()
    control.unload("sent")
    with pytest.raises(InputError, match="needs its config too"):
        control.load("sent", files={"1/model.py": source})


def test_a_model_that_cannot_be_loaded(control: Client) -> None:
    with pytest.raises(StatusError, match="loading model 'nope' failed"):
        control.load("nope")


def test_model_control_that_is_off(client: Client) -> None:
    with pytest.raises(UnavailableError, match="explicit model load / unload is not allowed"):
        client.load("text")


@pytest.fixture(params=WAYS, ids="-".join)
def setting(controlled: Server, request: pytest.FixtureRequest) -> Iterator[Caller]:
    """Clients that change settings, which are as before when the test is over."""
    kind, way = request.param
    url = controlled.http_url if way == "http" else controlled.grpc_url
    with caller(kind, way, url, timeout=30.0) as client:
        logs = {k: v for k, v in client.log_settings().items() if k != "log_file"}
        yield client
        client.log_settings(logs)
        for model in ("add_sub", ""):
            client.trace_settings(model, dict.fromkeys(TRACES))


TRACES = ("trace_level", "trace_rate", "trace_count", "log_frequency")


@pytest.mark.parametrize("model", ["", "add_sub"])
def test_trace_settings(setting: Caller, model: str) -> None:
    before = setting.trace_settings(model)
    assert (before["trace_rate"], before["trace_level"]) == ("7", "OFF")
    for name, given, read in (
        ("trace_level", "TENSORS", "TENSORS"),
        ("trace_level", ["TIMESTAMPS"], "TIMESTAMPS"),
        ("trace_level", ["TENSORS", "TIMESTAMPS"], ("TIMESTAMPS", "TENSORS")),
        ("trace_level", ("TIMESTAMPS", "TENSORS"), ("TIMESTAMPS", "TENSORS")),
        ("trace_level", "OFF", "OFF"),
        ("trace_rate", 9, "9"),
        ("trace_rate", "10", "10"),
        ("trace_rate", np.int64(11), "11"),
        ("trace_count", 12, "12"),
        ("trace_count", -1, "-1"),
        ("log_frequency", 13, "13"),
    ):
        assert setting.trace_settings(model, {name: given})[name] == read
        now = setting.trace_settings(model)
        assert now[name] == read
        assert setting.trace_settings(model, {name: now[name]}) == now, "what is read can be given"
    assert setting.trace_settings(model, dict.fromkeys(TRACES)) == before


def test_log_settings(setting: Caller) -> None:
    before = setting.log_settings()
    for name in ("log_info", "log_warning", "log_error"):
        assert before[name] is True
        for given in (False, np.bool_(True)):
            assert setting.log_settings({name: given})[name] is bool(given)
            assert setting.log_settings()[name] is bool(given)
    for level in (np.int64(1), 0):
        assert setting.log_settings({"log_verbose_level": level})["log_verbose_level"] == level
    changed = setting.log_settings({"log_format": "ISO8601"})
    assert changed == before | {"log_format": "ISO8601"} == setting.log_settings()
    changes = {name: value for name, value in before.items() if name != "log_file"}
    assert setting.log_settings(changes) == before, "what is read can be given"
    with pytest.raises(InvalidArgumentError, match="nonsense"):
        setting.log_settings({"log_format": "nonsense"})
    with pytest.raises(UnsupportedError, match="log file location can not be updated"):
        setting.log_settings({"log_file": "/tmp/log"})


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trace_level": ["TENSORS", "BOGUS"]}, "taken 'TENSORS', 'BOGUS' for 'trace_level', whi"),
        ({"trace_level": "timestamps"}, "taken 'timestamps' for 'trace_level', which is now 'OFF'"),
        ({"trace_rate": "-5"}, "taken '-5' for 'trace_rate', which is now '4294967291'"),
        ({"trace_mode": "opentelemetry"}, "for 'trace_mode', which is now 'triton'"),
    ],
)
def test_what_a_server_would_pass_over(
    setting: Caller, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InvalidArgumentError, match=message):
        setting.trace_settings("add_sub", changes)


def test_the_async_client_does_the_same(server: Server, controlled: Server, url: str) -> None:
    target = controlled.grpc_url if url.startswith("grpc") else controlled.http_url

    async def main() -> None:
        async with AsyncClient(target) as client:
            await client.load("scores")
            assert await client.model_ready("scores")
            assert "scores" in [e.name for e in await client.index(ready=True)]
            assert (await client.statistics("scores"))[0].inference_count == 0
            await client.unload("scores")
            assert (await client.trace_settings())["trace_rate"] == "7"
            assert (await client.log_settings())["log_info"] is True
            assert len(await client.metrics(server.metrics_url)) > 10

    asyncio.run(main())
