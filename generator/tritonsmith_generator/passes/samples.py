"""Samples that the user gives: a ``.npz`` file, a folder of ``.npy`` files or a Python callable.

``samples.npz``
    one array per input, named like it; axis 0 is the sample. A model with a dynamic batch gets
    several samples at once.
``folder/INPUT.npy``
    the same, one file per input.
``folder/INPUT/*.npy``, or ``folder/*.npy`` for a model with one input
    one file per sample, shaped as the input is (with or without its batch axis), in name order.
``package.module:function`` or ``file.py:function``
    called without arguments; yields one mapping from input name to array after the other, each
    array with the batch axis.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.user_code import call_factory
from tritonsmith_generator.onnx_model.signature import Signature, Tensor
from tritonsmith_generator.passes.base import Array, Arrays

__all__ = ["Samples", "none_given"]

# Samples of a dynamic batch that are run together.
_ROWS = 8


@dataclass(frozen=True)
class Samples:
    """Where samples come from."""

    source: str

    def read(self, signature: Signature, most: int | None = None) -> Iterator[Arrays]:
        """Yield the samples, each a full set of inputs for the model, one batch after the other.

        After ``most`` samples no further batch is begun (None: all are read). Raises InputError
        for a source that cannot be read, for arrays that don't fit the model's inputs, for NaN,
        and where there is not a single sample.
        """
        count = 0
        for batch in self._batches(signature):
            checked = {t.name: _checked(self.source, t, batch) for t in signature.inputs}
            count += _rows(signature, checked)
            yield checked
            if most is not None and count >= most:
                return
        if not count:
            raise InputError(f"{self.source}: there is no sample in it")

    def _batches(self, signature: Signature) -> Iterator[Mapping[str, Any]]:
        path = Path(self.source)
        if not path.exists() and (path.suffix == ".npz" or ":" not in self.source):
            raise InputError(
                f"samples '{os.path.normpath(path)}': no such file or folder; correct "
                "accuracy.samples or calibration in the spec, whose paths start at the spec's "
                "folder, or --samples"
            )
        if path.is_dir():
            return _from_folder(path, signature)
        if path.suffix == ".npz":
            return _split(self.source, _from_npz(path), signature)
        if ":" in self.source:
            return _from_callable(self.source)
        raise InputError(
            f"samples '{self.source}': neither a .npz file, nor a folder of .npy files, nor "
            "package.module:function"
        )


def none_given(precision: str) -> InputError:
    """Return the error for a precision that cannot do without samples."""
    return InputError(
        f"{precision} needs samples to measure ranges with: name them as accuracy.samples or "
        "calibration in the spec, or with --samples for a single ONNX file (a .npz file, a folder "
        "of .npy files or package.module:function)"
    )


def _rows(signature: Signature, batch: Arrays) -> int:
    """Return the samples in a batch; one, where the first input has no axis for several."""
    first = signature.inputs[0]
    return len(batch[first.name]) if 0 in first.dynamic_axes else 1


def _from_npz(path: Path) -> Mapping[str, Array]:
    try:
        stored = np.load(path, allow_pickle=False)
        if isinstance(stored, np.ndarray):
            raise InputError(
                f"{path} holds an array without the name of its input, as .npy files do: write it "
                "with numpy.savez(path, INPUT=array)"
            )
        with stored:
            return dict(stored)
    except (OSError, ValueError, zipfile.BadZipFile) as exc:
        raise InputError(f"{path}: not a readable .npz file: {exc}") from exc


def _from_npy(path: Path) -> Array:
    try:
        array: Array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError) as exc:
        raise InputError(f"{path}: not a readable .npy file: {exc}") from exc
    return array


def _from_folder(folder: Path, signature: Signature) -> Iterator[Mapping[str, Array]]:
    names = [tensor.name for tensor in signature.inputs]
    if all((folder / f"{name}.npy").is_file() for name in names):
        whole = {name: _from_npy(folder / f"{name}.npy") for name in names}
        return _split(str(folder), whole, signature)
    files = {name: sorted((folder / name).glob("*.npy")) for name in names}
    if len(names) == 1 and not files[names[0]]:
        files = {names[0]: sorted(folder.glob("*.npy"))}
    counts = {name: len(found) for name, found in files.items()}
    if len(set(counts.values())) != 1 or not all(counts.values()):
        found = ", ".join(f"{count} for '{name}'" for name, count in counts.items())
        raise InputError(
            f"{folder}: every input needs INPUT.npy, or as many INPUT/*.npy files as the other "
            f"inputs; there are {found}"
        )
    ranks = {tensor.name: len(tensor.shape) for tensor in signature.inputs}
    return (
        {
            name: _with_rank(_from_npy(file), ranks[name])
            for name, file in zip(names, row, strict=True)
        }
        for row in zip(*files.values(), strict=True)
    )


def _with_rank(array: Array, rank: int) -> Array:
    """Add the batch axis, which a single sample may lack."""
    return array[None] if array.ndim == rank - 1 else array


def _from_callable(reference: str) -> Iterator[Mapping[str, Any]]:
    batches = call_factory(reference)
    if not isinstance(batches, Iterable):
        raise InputError(f"{reference} returned {type(batches).__name__}, not something to iterate")
    try:
        for batch in batches:
            if not isinstance(batch, Mapping):
                raise InputError(
                    f"{reference} yields {type(batch).__name__}; a mapping from input name to "
                    "array is needed"
                )
            yield batch
    except InputError:
        raise
    except Exception as exc:
        raise InputError(f"{reference} raised {type(exc).__name__}: {exc}") from exc


def _split(
    source: str, whole: Mapping[str, Array], signature: Signature
) -> Iterator[Mapping[str, Array]]:
    """Cut arrays of many samples into batches that the model takes."""
    for tensor in signature.inputs:
        if tensor.name not in whole:
            raise InputError(_missing(source, tensor, whole))
    cut = {t.name: list(_cut(source, t, whole[t.name])) for t in signature.inputs}
    counts = {name: len(parts) for name, parts in cut.items()}
    if len(set(counts.values())) > 1:
        found = ", ".join(f"{count} of '{name}'" for name, count in counts.items())
        raise InputError(f"{source}: the inputs have different numbers of samples: {found}")
    for index in range(min(counts.values(), default=0)):
        yield {name: parts[index] for name, parts in cut.items()}


def _cut(source: str, tensor: Tensor, array: Array) -> Iterator[Array]:
    if array.ndim == len(tensor.shape) + 1:
        yield from array
        return
    if array.ndim != len(tensor.shape) or not tensor.shape:
        raise InputError(
            f"{source}: '{tensor.name}' has shape {list(array.shape)}, the input is {tensor}; "
            "axis 0 has to be the sample"
        )
    size = tensor.shape[0]
    rows = size if isinstance(size, int) else _ROWS
    if isinstance(size, int) and len(array) % size:
        raise InputError(
            f"{source}: '{tensor.name}' has {len(array)} samples; the input {tensor} takes "
            f"{size} at a time, so give a multiple of it"
        )
    for start in range(0, len(array), rows):
        yield array[start : start + rows]


def _checked(source: str, tensor: Tensor, batch: Mapping[str, Any]) -> Array:
    """Return the batch's array for one input, in the input's own dtype."""
    if tensor.name not in batch:
        raise InputError(_missing(source, tensor, batch))
    array: Array = np.asarray(batch[tensor.name])
    wanted = tensor.dtype.numpy
    if array.dtype != wanted and not _harmless(array.dtype, wanted):
        raise InputError(f"{source}: '{tensor.name}' is {array.dtype}, the input is {tensor}")
    fits = array.ndim == len(tensor.shape) and all(
        have == want or want == -1 for have, want in zip(array.shape, tensor.dims, strict=True)
    )
    if not fits:
        hint = "; axis 0 of each array is the batch" if array.ndim == len(tensor.shape) - 1 else ""
        raise InputError(
            f"{source}: '{tensor.name}' has shape {list(array.shape)}, the input is {tensor}{hint}"
        )
    if wanted.kind == "f" and not np.isfinite(array).all():
        raise InputError(f"{source}: '{tensor.name}' holds NaN or infinity")
    return array.astype(wanted, copy=False)


def _harmless(given: np.dtype[Any], wanted: np.dtype[Any]) -> bool:
    """FP64 for FP32 and INT32 for INT64 are slips; integers for floats may be other data."""
    return given.kind == wanted.kind or (given.kind in "iu" and wanted.kind in "iu")


def _missing(source: str, tensor: Tensor, found: Mapping[str, Any]) -> str:
    return f"{source}: there are no samples for the input {tensor}; there are: {', '.join(found)}"
