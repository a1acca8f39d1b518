"""Arguments of a call against what the model takes: names, data types, shapes and batch size."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from tritonsmith_client._values.buffers import Array
from tritonsmith_client._values.interop import as_numpy
from tritonsmith_client._values.metadata import ModelConfig, ModelMetadata, TensorMetadata
from tritonsmith_client._values.regions import RegionTensor
from tritonsmith_client._values.validators import shown
from tritonsmith_client.dtypes import DataType, from_numpy
from tritonsmith_client.errors import InputError

__all__ = [
    "as_array",
    "bind",
    "check_classes",
    "check_outputs",
    "check_tensors",
    "converted",
    "nearest",
]


def bind(
    metadata: ModelMetadata, args: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Array]:
    """Return the arguments of a call by input name, as arrays.

    Args:
        args: values in the order of the model's inputs, or one mapping from name to value.
        named: values by name.

    Raises:
        InputError: too many values, an unknown name, or one that is given twice.
    """
    by_name = metadata.input_by_name
    given: dict[str, Any] = {}
    if len(args) == 1 and isinstance(args[0], Mapping):
        given.update(args[0])
    elif len(args) > len(metadata.inputs):
        raise InputError(
            f"model '{metadata.name}' was called with {len(args)} values and has "
            f"{len(metadata.inputs)} inputs: {_listed(metadata.inputs)}",
            model=metadata.name,
        )
    else:
        given.update(zip(by_name, args, strict=False))
    for name, value in named.items():
        if name in given:
            raise InputError(
                f"input '{name}' of model '{metadata.name}' was given twice",
                name,
                model=metadata.name,
            )
        given[name] = value
    for name in given:
        if name not in by_name:
            raise InputError(
                f"model '{metadata.name}' has no input {shown(name)}{nearest(name, by_name)}; "
                f"its inputs are: {_listed(metadata.inputs)}",
                name,
                model=metadata.name,
            )
    return {
        name: value if type(value) is np.ndarray else as_array(value, by_name[name], metadata.name)
        for name, value in given.items()
    }


def as_array(value: Any, tensor: TensorMetadata, model: str) -> Array:
    """Arrays are taken as they are; lists and numbers become arrays of the input's data type."""
    if isinstance(value, (np.ndarray, RegionTensor)):
        return value  # type: ignore[return-value]  # what is asked of both is dtype and shape
    foreign = as_numpy(value, tensor.name)
    if foreign is not None:
        return foreign
    wanted = tensor.dtype.numpy
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(value, dtype=wanted)
        if wanted.kind != "O":
            _check_kept(np.asarray(value), array, tensor)
        return array
    except (TypeError, ValueError, OverflowError) as exc:
        raise InputError(
            f"input {tensor} of model '{model}' cannot be made of this "
            f"{type(value).__name__}: {exc}",
            tensor.name,
            model=model,
        ) from exc


def _check_kept(given: Array, array: Array, tensor: TensorMetadata) -> None:
    """Numpy makes 1 of 1.7, NaN of None and a number of "5". Raises ValueError for all of these."""
    if given.dtype.kind not in "biuf" and given.dtype != array.dtype:
        raise ValueError("its elements are not all numbers")
    if array.dtype.kind in "biu":
        changed = array != given
    else:  # less precise, but no number becomes infinite
        changed = np.isfinite(array) != np.isfinite(given)
    if changed.any():
        raise ValueError(f"{given[changed].flat[0]} is no {tensor.dtype}")


def converted(metadata: ModelMetadata, arrays: Mapping[str, Array]) -> dict[str, Array]:
    """Get the arrays with numbers in the model's own data types; strings and numbers do not mix."""
    result = {}
    for name, array in arrays.items():
        wanted = metadata.input_by_name[name].dtype.numpy
        mixed = wanted.kind == "O" or array.dtype.kind in "OSU"
        mixed = mixed or isinstance(array, RegionTensor)  # it stays where it lies
        result[name] = array if mixed else array.astype(wanted, copy=False)
    return result


def check_tensors(
    metadata: ModelMetadata,
    config: ModelConfig,
    arrays: Mapping[str, Array | RegionTensor],
    limit: int | None = None,
) -> dict[str, DataType]:
    """Return the data type of each given input, once everything fits.

    Args:
        limit: the largest batch to let through, if not the configured one.

    Raises:
        InputError: an input is missing, or its data type, shape or batch size does not fit.
    """
    required = [t for t in metadata.inputs if t.name not in config.optional]
    missing = [t for t in required if t.name not in arrays]
    if missing:
        raise InputError(
            f"model '{metadata.name}' needs {_listed(missing)} too; "
            f"given: {', '.join(arrays) or 'nothing'}",
            missing[0].name,
            model=metadata.name,
        )
    by_name = metadata.input_by_name
    model = metadata.name
    types = {name: _check_dtype(by_name[name], a, model) for name, a in arrays.items()}
    for name, array in arrays.items():
        _check_shape(by_name[name], array.shape, model, config)
    if config.max_batch_size:
        _check_batch(model, limit or config.max_batch_size, arrays)
    return types


def check_outputs(metadata: ModelMetadata, names: Iterable[str]) -> None:
    """Raise InputError for a requested output that the model has not."""
    known = [tensor.name for tensor in metadata.outputs]
    for name in names:
        if name not in known:
            raise InputError(
                f"model '{metadata.name}' has no output '{name}'{nearest(name, known)}; "
                f"its outputs are: {_listed(metadata.outputs)}",
                name,
                model=metadata.name,
            )


def check_classes(metadata: ModelMetadata, names: Iterable[str]) -> None:
    """Raise InputError where a classification would be made of strings.

    A server of release 24.10 and older ends when it is asked for that.
    """
    wanted = set(names)
    for tensor in metadata.outputs:
        if tensor.dtype.wire == "BYTES" and (not wanted or tensor.name in wanted):
            raise InputError(
                f"output {tensor} of model '{metadata.name}' holds strings, of which no "
                "classification can be made",
                tensor.name,
                model=metadata.name,
                hint="name other outputs with using(outputs=[...])",
            )


def _check_dtype(tensor: TensorMetadata, array: Array | RegionTensor, model: str) -> DataType:
    try:
        given = from_numpy(array.dtype)
    except (KeyError, TypeError):
        given = None
    if given == tensor.dtype:
        return tensor.dtype
    raise InputError(
        f"input '{tensor.name}' of model '{model}' takes {tensor.dtype} and was given "
        f"{array.dtype}",
        tensor.name,
        model=model,
        hint=_dtype_hint(tensor.dtype),
    )


def _dtype_hint(dtype: DataType) -> str:
    if dtype.wire == "BYTES":
        return "give an array of bytes or str"
    name = "ml_dtypes.bfloat16" if dtype.wire == "BF16" else f"np.{dtype.numpy.name}"
    return f"convert it with .astype({name}), or ask for that with using(convert=True)"


def _check_shape(
    tensor: TensorMetadata, shape: tuple[int, ...], model: str, config: ModelConfig
) -> None:
    fits = len(shape) == len(tensor.shape) and all(
        allowed in (-1, axis) for allowed, axis in zip(tensor.shape, shape, strict=True)
    )
    if fits:
        return
    hint = "reshape it"
    if config.max_batch_size and len(shape) == len(tensor.shape) - 1:
        hint = "the model takes batches: add the batch axis with array[None]"
    elif len(shape) == len(tensor.shape) + 1 and shape[0] == 1 and not config.max_batch_size:
        hint = "the model takes no batches: drop the first axis with array[0]"
    raise InputError(
        f"input '{tensor.name}' of model '{model}' takes shape {list(tensor.shape)} (-1: any "
        f"length) and was given {list(shape)}",
        tensor.name,
        model=model,
        hint=hint,
    )


def _check_batch(model: str, limit: int, arrays: Mapping[str, Array | RegionTensor]) -> None:
    sizes = {name: array.shape[0] for name, array in arrays.items()}
    first, size = next(iter(sizes.items()), ("", 0))
    for name, other in sizes.items():
        if other != size:
            raise InputError(
                f"the inputs of model '{model}' differ in batch size: '{first}' has {size} and "
                f"'{name}' has {other}",
                name,
                model=model,
            )
    if size > limit:
        raise InputError(
            f"input '{first}' has a batch of {size} and model '{model}' takes at most {limit}",
            first,
            model=model,
            hint=f"send it in parts of {limit}, or raise max_batch_size in the model's config",
        )


def nearest(name: object, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(str(name), known, n=1)
    return f" (did you mean '{found[0]}'?)" if found else ""


def _listed(tensors: Iterable[TensorMetadata]) -> str:
    return ", ".join(map(str, tensors)) or "none"
