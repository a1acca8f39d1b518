"""Arrays of other libraries, in and out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas
import pytest

from tritonsmith_client import Client, InputError, Result
from tritonsmith_client._values.interop import as_numpy

TORCH = ["bool", "uint8", "int8", "int16", "int32", "int64", "float16", "float32", "float64",
         "bfloat16"]  # fmt: skip
WIRE = {"bool": "BOOL", "float16": "FP16", "float32": "FP32", "float64": "FP64",
        "bfloat16": "BF16"}  # fmt: skip


@pytest.mark.parametrize("name", TORCH)
def test_torch_in_and_out(client: Client, name: str) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = (torch.rand(3, 5) * 9).to(getattr(torch, name))
    wire = WIRE.get(name, name.upper())
    result = client.model("identity")({f"IN_{wire}": tensor.requires_grad_(name == "float32")})
    got = result.torch()[f"OUT_{wire}"]
    assert got.dtype == tensor.dtype and torch.equal(got, tensor)
    got.zero_()  # it shares the result's memory, which is ours
    assert not result[f"OUT_{wire}"].any()


def test_torch_views_are_sent_as_they_look(client: Client) -> None:
    torch = pytest.importorskip("torch", reason="torch is not installed")
    tensor = torch.arange(24).reshape(4, 6).T[::2]
    assert client.model("identity")(IN_INT64=tensor)["OUT_INT64"].tolist() == tensor.tolist()


def test_strings_have_no_tensor() -> None:
    pytest.importorskip("torch", reason="torch is not installed")
    assert list(Result({"a": np.zeros(1), "b": np.array([b"x"], object)}).torch()) == ["a"]


class Foreign:
    """An array of a library that we know nothing of, except that it speaks DLPack."""

    def __init__(self, array: np.ndarray[Any, Any]) -> None:
        self._array = array

    def __dlpack__(self, **options: Any) -> Any:
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._array.__dlpack_device__()


def test_dlpack(client: Client) -> None:
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    assert np.array_equal(client.model("identity")(IN_FP32=Foreign(array))["OUT_FP32"], array)
    found = as_numpy(Foreign(array), "x")
    assert found is not None and np.shares_memory(found, array)


def test_dlpack_that_cannot_be_read(client: Client) -> None:
    class Elsewhere(Foreign):
        def __dlpack_device__(self) -> Any:
            return (2, 0)

        def __dlpack__(self, **options: Any) -> Any:
            raise BufferError("it is on a GPU")

    with pytest.raises(InputError, match=r"'IN_FP32' is a Elsewhere .* host's memory first"):
        client.model("identity")(IN_FP32=Elsewhere(np.zeros((1, 1), np.float32)))


def test_pandas_out() -> None:
    result = Result({"a": np.array([[1], [2]]), "b": np.arange(4.0).reshape(2, 2)})
    expected = pandas.DataFrame({"a": [1, 2], "b_0": [0.0, 2.0], "b_1": [1.0, 3.0]})
    pandas.testing.assert_frame_equal(result.frame(), expected)
    with pytest.raises(InputError, match="differ in their first axis"):
        Result({"a": np.zeros(2), "b": np.zeros(3)}).frame()


def test_pandas_in(client: Client) -> None:
    frame = pandas.DataFrame({"a": [1.5, 2.5], "b": [3.0, 4.0]})
    got = client.model("identity")(IN_FP64=frame)["OUT_FP64"]
    assert got.tolist() == frame.to_numpy().tolist()
    words = client.model("text")(pandas.DataFrame({"w": ["a", "bc"]}))
    assert words["UPPER"].tolist() == [[b"A"], [b"BC"]]
    assert words.frame()["LENGTH"].tolist() == [1, 2]


def test_a_list_is_no_foreign_array() -> None:
    assert as_numpy([1, 2], "x") is None and as_numpy("text", "x") is None
