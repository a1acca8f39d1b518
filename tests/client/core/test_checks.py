"""What is refused before it is sent: each message names the tensor, the limits and the hint."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tritonsmith_client import Client, InputError, ModelConfig, ModelMetadata, TensorMetadata
from tritonsmith_client._core.input_checks import bind, check_outputs, check_tensors
from tritonsmith_client._net.address import parse_url
from tritonsmith_client.dtypes import from_wire


def model(shapes: dict[str, tuple[str, tuple[int, ...]]], max_batch_size: int = 8) -> Any:
    inputs = tuple(TensorMetadata(n, from_wire(w), s) for n, (w, s) in shapes.items())
    outputs = (TensorMetadata("logits", from_wire("FP32"), (-1, 10)),)
    fields = {"name": "m", "max_batch_size": max_batch_size}
    return ModelMetadata("m", ("1",), "", inputs, outputs), ModelConfig.from_fields(fields)


IMAGE = {"image": ("FP32", (-1, 3, 4)), "mask": ("BOOL", (-1, 3))}
GOOD = {"image": np.zeros((2, 3, 4), np.float32), "mask": np.zeros((2, 3), bool)}
WRONG = {
    "an unknown name": (
        {**GOOD, "imagee": GOOD["image"]},
        r"model 'm' has no input 'imagee' \(did you mean 'image'\?\); its inputs are: "
        r"'image' \(FP32 \[-1, 3, 4\]\), 'mask' \(BOOL \[-1, 3\]\)",
    ),
    "a missing input": (
        {"image": GOOD["image"]},
        r"model 'm' needs 'mask' \(BOOL \[-1, 3\]\) too; given: image",
    ),
    "another data type": (
        {**GOOD, "image": GOOD["image"].astype(np.float64)},
        r"of model 'm' takes FP32 and was given float64; convert it with \.astype\(np\.float32\)",
    ),
    "a data type that Triton has not": (
        {**GOOD, "image": GOOD["image"].astype(np.complex64)},
        r"input 'image' of model 'm' takes FP32 and was given complex64",
    ),
    "another length": (
        {**GOOD, "image": np.zeros((2, 3, 5), np.float32)},
        r"of model 'm' takes shape \[-1, 3, 4\] \(-1: any length\) and was given \[2, 3, 5\]",
    ),
    "no batch axis": (
        {**GOOD, "image": np.zeros((3, 4), np.float32)},
        r"was given \[3, 4\]; the model takes batches: add the batch axis with array\[None\]",
    ),
    "two batch sizes": (
        {**GOOD, "mask": np.zeros((3, 3), bool)},
        r"differ in batch size: 'image' has 2 and 'mask' has 3",
    ),
    "too large a batch": (
        {"image": np.zeros((9, 3, 4), np.float32), "mask": np.zeros((9, 3), bool)},
        r"input 'image' has a batch of 9 and model 'm' takes at most 8; send it in parts of 8",
    ),
    "a list that is no array": (
        {**GOOD, "image": [["a"]]},
        r"input 'image' \(FP32 \[-1, 3, 4\]\) of model 'm' cannot be made of this list",
    ),
}


@pytest.mark.parametrize(("given", "message"), WRONG.values(), ids=WRONG)
def test_what_does_not_fit_is_refused(given: dict[str, Any], message: str) -> None:
    metadata, config = model(IMAGE)
    with pytest.raises(InputError, match=message):
        check_tensors(metadata, config, bind(metadata, (), given))


def test_what_fits_passes() -> None:
    metadata, config = model(IMAGE)
    types = check_tensors(metadata, config, bind(metadata, (GOOD,), {}))
    assert {name: str(dtype) for name, dtype in types.items()} == {"image": "FP32", "mask": "BOOL"}


def test_a_batch_for_a_model_without_batches() -> None:
    metadata, config = model({"x": ("FP32", (16,))}, 0)
    with pytest.raises(InputError, match=r"takes no batches: drop the first axis with array\[0\]"):
        check_tensors(metadata, config, {"x": np.zeros((1, 16), np.float32)})


def test_too_many_and_twice() -> None:
    metadata, _ = model(IMAGE)
    with pytest.raises(InputError, match="called with 3 values and has 2 inputs"):
        bind(metadata, (1, 2, 3), {})
    with pytest.raises(InputError, match="'image' of model 'm' was given twice"):
        bind(metadata, (1,), {"image": 2})


def test_bfloat16_says_where_the_type_comes_from() -> None:
    metadata, config = model({"x": ("BF16", (1,))}, 0)
    with pytest.raises(InputError, match=r"takes BF16 .* \.astype\(ml_dtypes\.bfloat16\)"):
        check_tensors(metadata, config, {"x": np.zeros(1, np.float32)})


def test_an_unknown_output() -> None:
    metadata, _ = model(IMAGE)
    with pytest.raises(InputError, match=r"no output 'logit' \(did you mean 'logits'\?\)"):
        check_outputs(metadata, ["logit"])


def test_the_error_carries_model_tensor_and_hint() -> None:
    metadata, config = model(IMAGE)
    with pytest.raises(InputError) as caught:
        check_tensors(metadata, config, {"image": GOOD["image"]})
    assert (caught.value.model, caught.value.tensor) == ("m", "mask")
    with pytest.raises(InputError) as caught:
        check_tensors(metadata, config, {**GOOD, "image": np.zeros((3, 4), np.float32)})
    assert (caught.value.model, caught.value.tensor) == ("m", "image")
    assert caught.value.hint == "the model takes batches: add the batch axis with array[None]"
    assert caught.value.hint not in caught.value.message


URLS = {
    "localhost:8001": "grpc://localhost:8001",
    "localhost": "grpc://localhost:8001",
    "grpcs://host:1": "grpcs://host:1",
    "http://host": "http://host:8000",
    "https://host/prefix/": "https://host:443",
    "http://[::1]:80": "http://[::1]:80",
    "grpc+unix:///run/t.sock": "grpc://unix:/run/t.sock",
}


@pytest.mark.parametrize(("url", "expected"), URLS.items())
def test_urls(url: str, expected: str) -> None:
    assert str(parse_url(url)) == expected


def test_a_path_stands_before_v2() -> None:
    assert parse_url("https://host/prefix/").path == "/prefix"


@pytest.mark.parametrize("url", ["", "ftp://x", "grpc://", "http://h:port", "grpc://h:1/path"])
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InputError, match="the URL"):
        parse_url(url)


LISTS: dict[str, list[tuple[object, str]]] = {
    "IN_INT32": [
        ([[1.7]], "1.7 is no INT32"),
        ([[1, None]], "NoneType|not all numbers"),
        ([["5", "6"]], "not all numbers"),
        ([[2**40]], "too large|out of bounds|2147483647|no INT32"),
        ([[float("nan")]], "NaN"),
    ],
    "IN_UINT8": [([[-1]], "out of bounds|-1"), ([[0.5]], "0.5 is no UINT8")],
    "IN_BOOL": [([[2]], "2 is no BOOL"), ([["x"]], "not all numbers")],
    "IN_FP32": [
        ([[1.0, None]], "not all numbers"),
        ([["5", "6"]], "not all numbers"),
        ([[1e39]], r"1e\+39 is no FP32"),
        ([[1j]], "complex|not all numbers"),
    ],
    "IN_FP16": [([[1e6]], "1000000.0 is no FP16")],
    "IN_BF16": [([["1"]], "expected number, got str")],
}


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [(name, value, reason) for name, cases in LISTS.items() for value, reason in cases],
)
def test_a_list_whose_numbers_would_change_is_refused(
    client: Client, name: str, value: object, reason: str
) -> None:
    with pytest.raises(InputError, match=f"input '{name}' .* of this list: .*({reason})"):
        client.model("identity")({name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("IN_INT32", [[1, -2]]),
        ("IN_INT32", [[1.0, 2.0]]),
        ("IN_UINT64", [[2**64 - 1]]),
        ("IN_FP32", [[1, 2.5, float("inf")]]),
        ("IN_FP16", [[0.1]]),
        ("IN_BF16", [[1.5, float("-inf")]]),
        ("IN_BOOL", [[True, False]]),
        ("IN_FP32", [[]]),
        ("IN_BYTES", [["a", b"b"]]),
    ],
)
def test_a_list_of_the_right_numbers_is_taken(client: Client, name: str, value: Any) -> None:
    answer = client.model("identity")({name: value})[name.replace("IN_", "OUT_")]
    if name == "IN_BYTES":
        assert answer.tolist() == [[b"a", b"b"]]
    elif name == "IN_UINT64":
        assert answer.tolist() == value
    else:
        np.testing.assert_allclose(answer.astype(float), np.asarray(value, float), rtol=1e-2)
