"""Inputs as the command lines write them, random inputs, and outputs in a few words."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.metadata import ModelMetadata, TensorMetadata
from tritonsmith_client.errors import InputError

__all__ = ["Summary", "random_array", "read_inputs", "summarize"]

_WORDS = [b"alpha", b"beta", b"gamma", b"delta", b"epsilon", b"zeta", b"eta", b"theta"]
_FIRST = 4


def read_inputs(
    metadata: ModelMetadata, arguments: Sequence[str], seed: int = 0
) -> dict[str, Array]:
    """Return the inputs that ``name=file.npy``, ``name=random`` or ``name=random:2x128`` stand for.

    An input that is not mentioned is random, with a length of 1 for each free axis.

    Raises:
        InputError: the argument, the name, the file or the shape makes no sense.
    """
    by_name = {tensor.name: tensor for tensor in metadata.inputs}
    wanted = dict.fromkeys(by_name, "random")
    for argument in arguments:
        name, equals, source = argument.partition("=")
        if not equals or not source:
            raise InputError(f"{argument!r} is no input: write NAME=FILE.npy or NAME=random[:2x3]")
        if name not in by_name:
            raise InputError(
                f"model '{metadata.name}' has no input '{name}'; its inputs are: "
                + ", ".join(map(str, metadata.inputs)),
                name,
            )
        wanted[name] = source
    generator = np.random.default_rng(seed)
    return {n: _read(by_name[n], source, generator) for n, source in wanted.items()}


def random_array(
    tensor: TensorMetadata, shape: Sequence[int], generator: np.random.Generator
) -> Array:
    """Give an array for an input: standard normal numbers, integers from 0 to 9, or short words."""
    wire, dtype = tensor.dtype.wire, tensor.dtype.numpy
    if wire == "BYTES":
        array = np.empty(tuple(shape), object)
        array.ravel()[:] = [_WORDS[i] for i in generator.integers(0, len(_WORDS), array.size)]
        return array
    if wire == "BOOL":
        return generator.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu":
        return generator.integers(0, 10, shape).astype(dtype)
    return generator.standard_normal(shape).astype(dtype)


@dataclass(frozen=True)
class Summary:
    """An array in a few words; the numbers are None where there are none to give."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    min: float | None
    mean: float | None
    max: float | None
    first: tuple[Any, ...]


def summarize(name: str, array: Array) -> Summary:
    """Give the summary of an output; numbers that JSON cannot hold (NaN, infinity) become None."""
    flat = array.reshape(-1)
    if array.dtype.kind == "O":
        text = tuple(item.decode("utf-8", "replace") for item in flat[:_FIRST].tolist())
        return Summary(name, "BYTES", array.shape, None, None, None, text)
    numbers = flat.astype(np.float64)
    low, mean, high = (
        (numbers.min(), numbers.mean(), numbers.max()) if flat.size else (math.nan,) * 3
    )
    first = tuple(_finite(float(n)) if array.dtype.kind not in "iub" else n for n in _head(flat))
    return Summary(
        name, str(array.dtype), array.shape, _finite(low), _finite(mean), _finite(high), first
    )


def _head(flat: Array) -> list[Any]:
    values: list[Any] = flat[:_FIRST].tolist()
    return values


def _finite(number: float) -> float | None:
    return float(number) if math.isfinite(number) else None


def _read(tensor: TensorMetadata, source: str, generator: np.random.Generator) -> Array:
    kind, _, text = source.partition(":")
    if kind == "random":
        return random_array(tensor, _shape(tensor, text), generator)
    path = Path(source)
    try:
        with path.open("rb") as file:
            array: Array = np.lib.format.read_array(file, allow_pickle=False)
    except (OSError, ValueError) as exc:
        raise InputError(
            f"input '{tensor.name}' cannot be read from {source}: {exc}; "
            "it must be a file that numpy.save wrote, without pickled objects",
            tensor.name,
        ) from exc
    if array.dtype.kind == "V" and array.dtype.itemsize == tensor.dtype.itemsize:
        return array.view(tensor.dtype.numpy)  # numpy.save does not know the name of bfloat16
    return array


def _shape(tensor: TensorMetadata, text: str) -> tuple[int, ...]:
    if not text:
        return tuple(1 if axis < 0 else axis for axis in tensor.shape)
    try:
        shape = tuple(int(axis) for axis in text.split("x"))
    except ValueError:
        shape = (-1,)
    if any(axis < 0 for axis in shape):
        raise InputError(f"{text!r} is no shape for input {tensor}; write e.g. 2x128", tensor.name)
    return shape
