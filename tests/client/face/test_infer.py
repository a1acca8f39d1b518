"""Calls to the real server, each over both protocols."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from support.onnx.samples import sample

from tritonsmith_client import (
    Client,
    ClosedError,
    DeadlineExceededError,
    InputError,
    UnknownOutputError,
)
from tritonsmith_client.dtypes import DATA_TYPES, DataType

SHAPES = [(1, 1), (3, 5), (0, 4), (3, 0), (200, 100)]


@pytest.mark.parametrize(
    ("dtype", "shape"),
    # The test model returns BF16 through DLPack, which drops empty tensors.
    [(d, s) for d in DATA_TYPES for s in SHAPES if d.wire != "BF16" or 0 not in s],
    ids=str,
)
def test_every_data_type_comes_back_bit_for_bit(
    client: Client, dtype: DataType, shape: tuple[int, ...]
) -> None:
    array = sample(dtype, shape)
    result = client.model("identity")({f"IN_{dtype}": array})
    assert list(result) == [f"OUT_{dtype}"]
    got = result[f"OUT_{dtype}"]
    assert (got.dtype, got.shape) == (array.dtype, array.shape)
    if dtype.wire == "BYTES":
        assert got.tolist() == array.tolist()
    else:
        assert got.tobytes() == array.tobytes()
    got[...] = got  # results can be written


def test_calls_in_a_row_need_not_be_alike(client: Client) -> None:
    """What is remembered of a call serves those that are alike and no others."""
    plain, both = client.model("plain"), client.model("add_sub")
    flat = np.arange(24, dtype=np.float32)
    for shape in ((2, 12), (2, 12), (2, 12), (12, 2), (3, 8), (1, 24), (1, 24)):
        got = plain(flat.reshape(shape))["Y"]
        assert np.array_equal(got, flat.reshape(shape))
    for wrong in (np.float64, np.int32):  # twice as many bytes, and as many
        with pytest.raises(InputError):
            plain(flat.reshape(1, 24).astype(wrong))
    ones = np.ones((1, 16), np.int32)
    for _ in range(3):
        assert (both(ones, ones)["SUM"] == 2).all()
    for args in ((ones,), (ones, ones, ones), ()):
        with pytest.raises(InputError):
            both(*args)


@pytest.mark.parametrize("dtype", DATA_TYPES, ids=str)
def test_memory_in_any_order_is_sent_in_row_major_order(client: Client, dtype: DataType) -> None:
    base = sample(dtype, (6, 8))
    for array in (
        base.T,
        base[::2, ::-1],
        np.asfortranarray(base),
        np.broadcast_to(base[:1], (6, 8)),
    ):
        got = client.model("identity")({f"IN_{dtype}": array})[f"OUT_{dtype}"]
        assert got.tolist() == array.tolist()


# ml_dtypes has no big-endian bfloat16.
@pytest.mark.parametrize(
    "dtype", [d for d in DATA_TYPES if (d.itemsize or 1) > 1 and d.wire != "BF16"], ids=str
)
def test_big_endian_arrays_are_converted(client: Client, dtype: DataType) -> None:
    array = sample(dtype, (2, 3))
    swapped = array.astype(array.dtype.newbyteorder(">"))
    got = client.model("identity")({f"IN_{dtype}": swapped})[f"OUT_{dtype}"]
    assert got.tolist() == array.tolist()


def test_several_data_types_in_one_call(client: Client) -> None:
    given = {f"IN_{d}": sample(d, (2, 3)) for d in DATA_TYPES}
    result = client.model("identity")(given)
    for name, array in given.items():
        assert result[name.replace("IN_", "OUT_")].tolist() == array.tolist()


def test_nan_and_infinity_survive(client: Client) -> None:
    array = np.array([[np.nan, np.inf, -np.inf, -0.0]], np.float32)
    got = client.model("identity")(IN_FP32=array)["OUT_FP32"]
    assert got.tobytes() == array.tobytes()


def test_large_tensors(client: Client) -> None:
    array = np.random.default_rng(0).integers(0, 255, (4096, 4096)).astype(np.uint8)
    for _ in range(2):
        assert np.array_equal(client.model("identity")(IN_UINT8=array)["OUT_UINT8"], array)


def test_by_position_by_name_and_by_mapping(client: Client) -> None:
    model = client.model("add_sub")
    left, right = (np.full((2, 16), n, np.int32) for n in (5, 3))
    calls = [
        model(left, right),
        model(left, INPUT1=right),
        model(INPUT1=right, INPUT0=left),
        model({"INPUT1": right, "INPUT0": left}),
        model(left.tolist(), right.tolist()),
    ]
    for result in calls:
        assert set(result) == {"SUM", "DIFF"}
        assert (result["SUM"] == 8).all() and (result["DIFF"] == 2).all()
        assert (result.model_name, result.model_version) == ("add_sub", "1")


def test_wanted_outputs_only(client: Client) -> None:
    ones = np.ones((1, 16), np.int32)
    model = client.model("add_sub")
    assert list(model.using(outputs=["DIFF"])(ones, ones)) == ["DIFF"]
    assert list(model.using(outputs=["SUM"])(ones, ones)) == ["SUM"]
    assert set(model(ones, ones)) == {"SUM", "DIFF"}


def test_a_result_says_which_outputs_it_has(client: Client) -> None:
    ones = np.ones((1, 16), np.int32)
    result = client.model("add_sub").using(outputs=["SUM"])(ones, ones)
    with pytest.raises(UnknownOutputError, match=r"'add_sub' has no output 'DIFF'; it has: 'SUM'"):
        result["DIFF"]
    assert result.get("DIFF") is None
    assert repr(result) == "Result(add_sub version 1: SUM: int32[1, 16])"


def test_the_response_is_followed_not_the_metadata(client: Client) -> None:
    model = client.model("surprise")
    assert model.metadata.outputs[0].dtype.wire == "FP32"
    got = model(np.array([False]))["OUT"]
    assert (got.dtype, got.tolist()) == (np.dtype(np.int8), [[0, 1, 2], [3, 4, 5]])
    assert dict(model(np.array([True]))) == {}


def test_strings(client: Client) -> None:
    model = client.model("text")
    text = [["ab", "größe"], ["", "nul\0"]]
    result = model(text)
    assert result["UPPER"].tolist() == [[t.encode().upper() for t in row] for row in text]
    assert result["LENGTH"].tolist() == [[len(t.encode()) for t in row] for row in text]
    fixed = np.array([[b"ab", b"xyz"]])
    assert model(fixed)["UPPER"].tolist() == [[b"AB", b"XYZ"]]


def test_options_reach_the_model(client: Client) -> None:
    parameters: dict[str, Any] = {"flag": True, "count": -7, "ratio": 0.5, "text": "ü"}
    model = client.model("wishes").using(id="r-1", parameters=parameters, queue_timeout=1.5)
    result = model(np.zeros(1, np.float32))
    said = json.loads(result["SAID"].item())
    assert result.id == "r-1" == said["id"]
    assert {k: said["parameters"][k] for k in parameters} == parameters
    assert said["timeout"] == 1_500_000


def test_options_of_one_call_do_not_leak_into_another(client: Client) -> None:
    plain = client.model("wishes")
    zero = np.zeros(1, np.float32)
    for number in (1, True, 1.0, "1"):
        special = plain.using(parameters={"a": number})
        said = json.loads(special(zero)["SAID"].item())
        assert (said["parameters"]["a"], type(said["parameters"]["a"])) == (number, type(number))
        plain_result = plain(zero)
        assert "a" not in json.loads(plain_result["SAID"].item())["parameters"]
        assert plain.using(id="x")(zero).id == "x" and plain(zero).id == ""


@pytest.mark.parametrize("name", ["sequence_id", "priority", "timeout", "triton_x"])
def test_parameters_of_the_protocol_are_refused(client: Client, name: str) -> None:
    with pytest.raises(InputError, match=f"'{name}' belongs to the protocol"):
        client.model("wishes").using(parameters={name: 1})


def test_metadata_and_config_say_the_same_over_both_protocols(server: Any) -> None:
    with Client(server.grpc_url) as grpc, Client(server.http_url) as http:
        assert grpc.metadata() == http.metadata()
        for name in server.models:
            ours, theirs = grpc.model(name), http.model(name)
            assert ours.metadata == theirs.metadata
            assert ours.config.fields == theirs.config.fields
        assert grpc.model("identity").config.optional == {f"IN_{d}" for d in DATA_TYPES}
        assert grpc.model("add_sub").config.max_batch_size == 8


def test_versions(client: Client) -> None:
    ones = np.ones((1, 16), np.int32)
    assert client.model("add_sub", version="1")(ones, ones).model_version == "1"
    assert client.model_ready("add_sub", "1")
    assert not client.model_ready("add_sub", "2")


def test_health(client: Client) -> None:
    assert client.live() and client.ready() and client.model_ready("text")
    assert not client.model_ready("nope")
    client.wait_ready(10, models=["text", "add_sub"])
    with pytest.raises(DeadlineExceededError, match=r"not ready within 0.2 s .*model 'nope'"):
        client.wait_ready(0.2, models=["text", "nope"])


def test_a_server_that_is_not_there_is_not_well(server: Any) -> None:
    for url in ("grpc://127.0.0.1:9", "http://127.0.0.1:9"):
        with Client(url) as client:
            assert not client.live() and not client.ready() and not client.model_ready("x")


def test_threads_share_a_client(client: Client) -> None:
    identity = client.model("identity")

    def call(number: int) -> bool:
        array = np.full((number % 7 + 1, 50 * (number % 3) + 1), number, np.int64)
        return np.array_equal(identity(IN_INT64=array)["OUT_INT64"], array)

    with ThreadPoolExecutor(16) as pool:
        assert all(pool.map(call, range(400)))


def test_deadline_of_a_slow_model(client: Client) -> None:
    slow = client.model("slow")
    with pytest.raises(DeadlineExceededError, match="inference with model 'slow' failed"):
        slow.using(timeout=0.3)(np.array([[3.0]], np.float32))
    done = slow.using(timeout=None)(np.array([[0.01]], np.float32))  # the client is still usable
    assert done["SLEPT"].shape == (1, 1)


def test_a_closed_client_says_so(url: str) -> None:
    with Client(url) as client:
        model = client.model("text")
    with pytest.raises(ClosedError, match=r"after close\(\)"):
        model([["x"]])


def test_close_while_a_call_waits(url: str) -> None:
    client = Client(url)
    slow = client.model("slow")
    outcome: list[BaseException | None] = []

    def call() -> None:
        try:
            slow(np.array([[1.0]], np.float32))
            outcome.append(None)
        except Exception as error:
            outcome.append(error)

    thread = threading.Thread(target=call)
    thread.start()
    threading.Event().wait(0.3)
    client.close()
    thread.join(10)
    assert not thread.is_alive()
    assert outcome and (outcome[0] is None or type(outcome[0]).__module__.startswith("tritonsmith"))
