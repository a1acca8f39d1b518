"""What the real server does beside a plain inference, and what a client has to make of it."""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.http_calls import settled, until
from support.scripted import ScriptedServer, read_request
from support.servers import BriefServer

from tritonsmith_client import (
    AsyncClient,
    Client,
    InputError,
    InternalError,
    InvalidArgumentError,
    NotFoundError,
    Retry,
    StatusError,
    SystemRegion,
    UnavailableError,
)
from tritonsmith_generator.serve import Server

HERE = Path(__file__).parent
ONES = np.ones((1, 16), np.int32)
NONE = np.zeros(1, np.int32)


@pytest.fixture(scope="module")
def special(
    start_server: Callable[..., Server], tmp_path_factory: pytest.TempPathFactory
) -> Server:
    """A server of models with queues, versions and caches."""
    folder = tmp_path_factory.mktemp("special") / "models"
    shutil.copytree(HERE / "special", folder)
    shutil.copytree(HERE / "models" / "add_sub", folder / "add_sub")
    for copy in ("accumulate", "forgetful"):
        shutil.copytree(HERE / "models" / "accumulate", folder / copy)
    (folder / "chained" / "1").mkdir()
    config = folder / "forgetful" / "config.pbtxt"
    text = config.read_text()
    assert "idle_microseconds: 60000000" in text
    text = text.replace("idle_microseconds: 60000000", "idle_microseconds: 300000")
    config.write_text(text.replace("accumulate", "forgetful"))
    return start_server(folder, extra_args=["--cache-config=local,size=1048576"])


@pytest.fixture
def there(special: Server, url: str) -> Iterator[Client]:
    address = special.grpc_url if url.startswith("grpc") else special.http_url
    with Client(address, timeout=30.0) as client:
        yield client


def test_versions(there: Client) -> None:
    newest = there.model("versioned")
    assert sorted(newest.metadata.versions) == ["1", "2"]
    assert newest(NONE)["VERSION"].tolist() == [b"2"] and newest(NONE).model_version == "2"
    for version in ("1", "2"):
        result = there.model("versioned", version)(NONE)
        assert result["VERSION"].tolist() == [version.encode()]
        assert result.model_version == version
    assert {s.version for s in there.statistics("versioned")} == {"1", "2"}
    with pytest.raises((NotFoundError, InvalidArgumentError)):
        there.model("versioned", "3")
    for version in ("abc", "1/2", "-1"):
        with pytest.raises(InputError, match="it must be a number above 0, such as 1 or '1'"):
            there.model("versioned", version)


def test_metadata_of_batches_and_strings(client: Client) -> None:
    metadata = client.model("text").metadata
    assert (metadata.inputs[0].shape, metadata.inputs[0].dtype.wire) == ((-1, -1), "BYTES")
    assert metadata.versions == ("1",) and metadata.platform == "python"


def fill(client: Client, count: int) -> list[Any]:
    """Requests that keep the queued model busy: the first one runs, the others wait."""
    model = client.model("queued").using(timeout=None)
    running = [model.submit(np.full((1, 1), 2.5, np.float32))]
    for _ in range(count - 1):
        time.sleep(0.2)  # one after the other
        running.append(model.submit(np.zeros((1, 1), np.float32)))
    time.sleep(0.2)
    return running


def test_a_full_queue_is_unavailable_and_tried_again(there: Client) -> None:
    zero = np.zeros((1, 1), np.float32)
    waiting = fill(there, 3)
    address = there._core.name
    with (
        Client(address, retry=Retry(attempts=1)) as impatient,
        pytest.raises(UnavailableError, match="[Ee]xceeds maximum queue size"),
    ):
        impatient.model("queued")(zero)
    with Client(address, retry=Retry(attempts=50, first=0.05, longest=0.2)) as patient:
        assert patient.model("queued")(zero)["ORDER"][0, 0] > 0
    assert all(future.result(20) for future in waiting)


def test_a_request_that_waits_too_long_in_the_queue(there: Client) -> None:
    waiting = fill(there, 2)
    with (
        Client(there._core.name, retry=Retry(attempts=1)) as impatient,
        pytest.raises(UnavailableError, match="[Tt]imeout expired"),
    ):
        impatient.model("queued").using(queue_timeout=0.05)(np.zeros((1, 1), np.float32))
    assert all(future.result(20) for future in waiting)


def test_an_urgent_request_overtakes(there: Client) -> None:
    waiting = fill(there, 3)
    urgent = there.model("queued").using(priority=1)
    first = urgent(np.zeros((1, 1), np.float32))["ORDER"][0, 0]
    orders = [int(future.result(20)["ORDER"][0, 0]) for future in waiting]
    assert orders[0] < first < orders[1] < orders[2]


def test_an_ensemble(there: Client) -> None:
    before = settled(lambda: there.statistics("add_sub")[0].execution_count)
    model = there.model("chained")
    assert (model(ONES, ONES * 2)["TOTAL"] == 5).all()
    until(lambda: there.statistics("add_sub")[0].execution_count == before + 2)
    assert len(model.config.fields["ensemble_scheduling"]["step"]) == 2
    large = np.arange(20 * 16, dtype=np.int32).reshape(20, 16)
    assert np.array_equal(model(large, large)["TOTAL"], large * 3), "in parts"


def test_answers_from_a_cache(there: Client) -> None:
    def hits() -> int:
        return there.statistics("cached")[0].durations["cache_hit"].count

    before = settled(hits)
    model = there.model("cached")
    given = np.random.default_rng().integers(1 << 30, size=1).astype(np.int32)  # a new question
    assert model(given)["CALLS"] == model(given)["CALLS"]
    until(lambda: hits() == before + 1)


def test_sequences_that_break_a_rule(there: Client) -> None:
    one = np.array([[1]], np.int32)
    model = there.model("accumulate")
    with pytest.raises(InvalidArgumentError, match="non-zero or non-empty correlation ID"):
        model(one)
    with model.sequence(id="a name") as track:
        assert track(one)["SUM"] == 1 and track(one)["SUM"] == 2
        with pytest.raises((InvalidArgumentError, InputError), match="batch"):
            track(np.ones((2, 1), np.int32))
    with there.model("forgetful").sequence() as track:
        assert track(one)["SUM"] == 1
        time.sleep(1.0)  # longer than the server keeps an idle one
        with pytest.raises(InvalidArgumentError, match="must specify the START flag"):
            track(one)


def test_headers_that_a_model_sees(forwarding: Server, url: str) -> None:
    address = forwarding.grpc_url if url.startswith("grpc") else forwarding.http_url
    zero = np.zeros(1, np.float32)

    def seen(said: Any) -> dict[str, str]:
        parameters: dict[str, str] = json.loads(said["SAID"].item())["parameters"]
        return {k.lower(): v for k, v in parameters.items()}

    with Client(address, headers={"X-Test-A": "1"}) as client:
        model = client.model("wishes")
        assert seen(model.using(headers={"x-test-b": "two"})(zero)) == {
            "x-test-a": "1",
            "x-test-b": "two",
        }
        assert seen(model(zero)) == {"x-test-a": "1"}


def test_parameters_that_have_no_place(client: Client) -> None:
    for value in ([1], {"a": 1}, None, b"x"):
        with pytest.raises(InputError, match="must be a bool, int, float or str"):
            client.model("wishes").using(parameters={"a": value})  # type: ignore[dict-item]


def test_more_classes_than_there_are(client: Client) -> None:
    model = client.model("scores").using(outputs=["PROBABILITY"], classes=99)
    assert len(model(np.ones((1, 4), np.float32)).classes("PROBABILITY")[0]) == 4
    with pytest.raises(InputError, match="classes is -1"):
        model.using(classes=-1)


def test_a_stream_of_a_model_with_one_answer(client: Client) -> None:
    parts = [*client.model("plain").using(id="s1").stream(np.ones((1, 3), np.float32))]
    assert [part["Y"].tolist() for part in parts] == [[[1.0, 1.0, 1.0]]]
    assert parts[0].id == "s1"


def test_a_stream_left_early_frees_the_model(url: str) -> None:
    """Three streams of 50 s for two instances: the third one begins as the first two were left."""
    wish = {"COUNT": np.array([1000], np.int32), "DELAY": np.full(1, 0.05, np.float32),
            "FAIL": np.array([False])}  # fmt: skip

    async def main() -> None:
        async with AsyncClient(url, timeout=15.0) as client:
            model = await client.model("repeat")
            for _ in range(3):
                stream = model.stream(wish)
                assert (await stream.__anext__())["NUMBER"][0] == 0
                await stream.aclose()  # type: ignore[attr-defined]  # a generator

    asyncio.run(main())
    with Client(url, timeout=15.0) as client:
        for _ in range(3):
            stream = client.model("repeat").stream(wish)
            assert next(stream)["NUMBER"][0] == 0
            del stream


def test_an_index_says_why_a_model_is_not_there(url: str) -> None:
    explicit = ["--model-control-mode=explicit"]
    with (
        BriefServer(HERE / "models", models=["text"], extra_args=explicit) as up,
        Client(up.grpc_url if url.startswith("grpc") else up.http_url) as client,
    ):
        client.load("text")
        client.unload("text")
        while (entry := client.index()[0]).state != "UNAVAILABLE":
            assert entry.name == "text"
        assert entry.reason == "unloaded"
        with pytest.raises(StatusError):
            client.load("text", config={"name": "text", "max_batch_size": -5})


def test_unregistering_what_nobody_knows(client: Client) -> None:
    region = SystemRegion(64)
    client.unregister(region)


METADATA = {
    "name": "a/b ü", "versions": ["1"], "platform": "p",
    "inputs": [{"name": "x", "datatype": "INT64", "shape": [-1]}],
    "outputs": [{"name": "y", "datatype": "INT64", "shape": [-1]}],
}  # fmt: skip


def answer(value: Any) -> bytes:
    body = json.dumps(value).encode()
    return (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: %d\r\n\r\n" % len(body)
        + body
    )


@pytest.fixture
def other() -> Iterator[tuple[ScriptedServer, list[Any]]]:
    """Another KServe server than Triton: JSON only, and a name that has to be quoted."""
    replies: list[Any] = []

    def script(connection: socket.socket) -> None:
        while True:
            server.requests.append(read_request(connection))
            path = server.requests[-1].split(b" ")[1]
            if path.endswith(b"infer"):
                connection.sendall(answer(replies.pop(0)))
            else:
                connection.sendall(answer({"name": "m"} if path.endswith(b"config") else METADATA))

    with ScriptedServer(script) as server:
        yield server, replies


def test_other_servers_answer_in_json(other: tuple[ScriptedServer, list[Any]]) -> None:
    server, replies = other
    big = [2**63 - 1, -(2**63), 2**53 + 1]
    output = {"name": "y", "datatype": "INT64", "shape": [3], "data": big}
    nested = {"name": "y", "datatype": "FP32", "shape": [2, 2], "data": [[1, 2], [3.5, 4]]}
    text = {"name": "y", "datatype": "BYTES", "shape": [2], "data": ["ü", ""]}
    uint = {"name": "y", "datatype": "UINT64", "shape": [1], "data": [2**64 - 1]}
    replies += [{"outputs": [o], "parameters": {"a": 1}} for o in (output, nested, text, uint)]
    replies += [{"outputs": []}, {"error": "with status 200"}]
    with Client(f"http://{server.address}") as client:
        model = client.model("a/b ü")
        x = np.zeros(3, np.int64)
        result = model(x)
        assert result["y"].tolist() == big and result.parameters == {"a": 1}
        assert model(x)["y"].tolist() == [[1, 2], [3.5, 4]]
        assert model(x)["y"].tolist() == ["ü".encode(), b""]
        assert model(x)["y"].tolist() == [2**64 - 1]
        assert dict(model(x)) == {}
        with pytest.raises(InternalError, match="with status 200"):
            model(x)
    assert b"/v2/models/a%2Fb%20%C3%BC/infer" in server.requests[-1]
