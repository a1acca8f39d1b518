"""torch's two exporters behind one call, and the comparison with torch's own output."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.reference import Reference
from tritonsmith_generator.torch_export.values import Check, Dynamic, Export, Sizes

__all__ = ["compare", "prepare", "tidy", "write"]

Tensors = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """A module in evaluation mode with named examples, and the sizes it is tried at."""

    module: Any
    inputs: Tensors
    outputs: tuple[str, ...]
    dynamic: Dynamic
    sizes: Sizes

    @property
    def second_sizes(self) -> Sizes:
        """Every dynamic axis at another size; smaller if it can be, as many have a maximum."""
        return {name: _another(size) for name, size in self.sizes.items()}

    def at(self, sizes: Mapping[str, int]) -> Tensors:
        """Return the examples cut or repeated to these sizes."""
        resized = dict(self.inputs)
        for name, axes in self.dynamic.items():
            for axis, symbol in axes.items():
                tensor = resized[name]
                size = tensor.shape[axis]
                index = torch.arange(sizes[symbol], device=tensor.device) % size
                resized[name] = tensor.index_select(axis, index)
        return resized

    def __call__(self, inputs: Tensors) -> Tensors:
        """Torch's own outputs. Raises InputError if the module fails."""
        try:
            with torch.no_grad():
                leaves = list(_leaves(self.module(**inputs), "output"))
        except InputError:
            raise
        except Exception as exc:
            shapes = ", ".join(f"{name} {list(t.shape)}" for name, t in inputs.items())
            raise InputError(
                f"the module itself fails on inputs of shape {shapes}: {_reason(exc)}"
            ) from exc
        names = self.outputs or tuple(name for name, _ in leaves)
        if len(names) != len(leaves) or len(set(names)) != len(names):
            raise InputError(
                f"the module has {len(leaves)} outputs, which need as many different names; "
                f"given: {', '.join(names)}"
            )
        return dict(zip(names, (tensor for _, tensor in leaves), strict=True))


def prepare(wanted: Export, inputs: Tensors) -> Prepared:
    """Check the example sizes, run torch once. Raises InputError."""
    sizes: Sizes = {}
    for name, axes in wanted.dynamic.items():
        for axis, symbol in axes.items():
            size = inputs[name].shape[axis]
            if sizes.setdefault(symbol, size) != size:
                raise InputError(
                    f"axis {symbol!r} is {sizes[symbol]} in one example input and {size} in "
                    f"axis {axis} of {name!r}; axes of one name have one size"
                )
    # torch.export takes an axis of size 1 for a constant.
    sizes = {symbol: max(size, 2) for symbol, size in sizes.items()}
    module = wanted.module.eval()
    model = Prepared(module, inputs, tuple(wanted.outputs), wanted.dynamic, sizes)
    examples = model.at(sizes)
    outputs = model(examples)
    for name, tensor in {**examples, **outputs}.items():
        _array(name, tensor)  # refuses types that could not be compared
    return Prepared(module, examples, tuple(outputs), wanted.dynamic, sizes)


def write(
    model: Prepared, path: Path, opset: int, legacy: bool, embed_limit: int
) -> tuple[str, ...]:
    """Export to ``path``; the tracer's warnings come back. Raises InputError."""
    with _quiet() as heard:
        try:
            (_write_legacy if legacy else _write_dynamo)(model, path, opset, embed_limit)
        except Exception as exc:
            raise InputError(f"torch cannot export the module: {_reason(exc)}") from exc
    return tuple(
        " ".join(str(w.message).split())
        for w in heard
        if issubclass(w.category, torch.jit.TracerWarning)
    )


def _write_dynamo(model: Prepared, path: Path, opset: int, embed_limit: int) -> None:
    axes = {symbol: torch.export.Dim(symbol) for symbol in model.sizes}
    shapes = {
        name: {axis: axes[symbol] for axis, symbol in model.dynamic.get(name, {}).items()}
        for name in model.inputs
    }
    program = torch.onnx.export(
        model.module,
        (),
        kwargs=model.inputs,
        input_names=list(model.inputs),
        output_names=list(model.outputs),
        dynamic_shapes=shapes,
        opset_version=opset,
        dynamo=True,
        verbose=False,
    )
    _keep_names(program.model.graph, {*model.inputs, *model.outputs})
    program.save(path, external_data=_weights(model) > embed_limit)


def _keep_names(graph: Any, names: set[str]) -> None:
    """Rename inner values that have an input's or output's name: torch doesn't notice."""
    inner = [value for node in graph.all_nodes() for value in node.outputs]
    for value in (*inner, *graph.initializers.values()):
        if value.name in names and not value.is_graph_output():
            value.name = f"{value.name}.inner"


def _write_legacy(model: Prepared, path: Path, opset: int, embed_limit: int) -> None:
    # Above 2 GiB this exporter writes one file per tensor; they become one, or none.
    with tempfile.TemporaryDirectory(dir=path.parent) as folder:
        scattered = Path(folder) / path.name
        torch.onnx.export(
            model.module,
            (),
            str(scattered),
            kwargs=model.inputs,
            input_names=list(model.inputs),
            output_names=list(model.outputs),
            dynamic_axes={**model.dynamic, **_dynamic_outputs(model)},
            opset_version=opset,
            dynamo=False,
        )
        onnx.save(
            onnx.load(scattered),
            path,
            save_as_external_data=_weights(model) > embed_limit,
            location=f"{path.name}.data",
        )


def _weights(model: Prepared) -> int:
    """Bytes of the module's parameters and buffers."""
    return sum(tensor.nbytes for tensor in model.module.state_dict().values())


def _dynamic_outputs(model: Prepared) -> dict[str, dict[int, str]]:
    """Which axes of the outputs follow which dynamic axis: seen by changing one at a time."""
    axes: dict[str, dict[int, str]] = {name: {} for name in model.outputs}
    before = model(model.inputs)
    for symbol, size in model.second_sizes.items():
        after = model(model.at({**model.sizes, symbol: size}))
        for name in model.outputs:
            for axis, sizes in enumerate(zip(before[name].shape, after[name].shape, strict=True)):
                if sizes[0] != sizes[1]:
                    axes[name][axis] = symbol
    return axes


def tidy(path: Path, metadata: Mapping[str, str]) -> None:
    """Drop the source paths and stack traces that torch writes; add the given metadata."""
    model = onnx.load(path, load_external_data=False)
    for message in _messages(model.graph):
        message.ClearField("metadata_props")
        message.ClearField("doc_string")
    for function in model.functions:
        for node in function.node:
            node.ClearField("metadata_props")
            node.ClearField("doc_string")
    del model.metadata_props[:]
    for key, value in metadata.items():
        model.metadata_props.add(key=key, value=value)
    onnx.save(model, path)


def _messages(graph: onnx.GraphProto) -> Iterator[Any]:
    """Yield the graph and everything in it that can carry metadata, subgraphs included."""
    yield graph
    yield from (*graph.input, *graph.output, *graph.value_info, *graph.initializer)
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for subgraph in (
                *attribute.graphs,
                *([attribute.g] if attribute.HasField("g") else []),
            ):
                yield from _messages(subgraph)


def compare(model: Prepared, path: Path, tolerance: float) -> tuple[Check, ...]:
    """Differences between torch and ONNX Runtime. Raises InputError above the tolerance."""
    reference = Reference(path)
    tried = [model.sizes, model.second_sizes] if model.sizes else [{}]
    checks = []
    for sizes in tried:
        inputs = model.at(sizes)
        expected = model(inputs)
        actual = reference({name: _array(name, t) for name, t in inputs.items()})
        for name, tensor in expected.items():
            if name not in actual:
                raise InputError(f"output {name!r} is missing in the exported graph")
            difference, limit = _difference(_array(name, tensor), actual[name], tolerance)
            if not difference <= limit:
                raise InputError(
                    f"output {name!r} differs from torch by {difference:.3g} at "
                    f"{_sizes_text(sizes)}; allowed is {limit:.3g} (--tolerance {tolerance:g} "
                    "of the largest value)"
                )
            checks.append(Check(name, sizes, difference))
    return tuple(checks)


def _difference(
    expected: np.ndarray[Any, Any], actual: np.ndarray[Any, Any], tolerance: float
) -> tuple[float, float]:
    """Return the largest difference and the allowed one; infinite where shape or dtype differ."""
    if expected.shape != actual.shape or expected.dtype != actual.dtype:
        return np.inf, 0.0
    if expected.size == 0:
        return 0.0, 0.0
    a, b = expected.astype(np.complex128), actual.astype(np.complex128)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.abs(a[np.isfinite(a)])
    with np.errstate(invalid="ignore"):
        difference = np.where(same, 0.0, np.abs(a - b)).max()
    exact = expected.dtype.kind in "biu"
    return float(difference), 0.0 if exact or not finite.size else tolerance * float(finite.max())


def _array(name: str, tensor: Any) -> np.ndarray[Any, Any]:
    try:
        array: np.ndarray[Any, Any] = tensor.detach().cpu().numpy()
    except TypeError as exc:
        raise InputError(
            f"{name!r} is {tensor.dtype}, which numpy has not: export in float32 and let the "
            "spec's `precision` lower it"
        ) from exc
    return array


def _leaves(value: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield the tensors in what a module returns, in the exporter's order, each with a name."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _leaves(item, str(key))
    elif isinstance(value, (tuple, list)):
        for index, item in enumerate(value):
            yield from _leaves(item, f"{name}_{index}")
    elif value is not None:
        raise InputError(f"the module returns {type(value).__name__} in {name!r}, not a tensor")


@contextlib.contextmanager
def _quiet() -> Iterator[list[warnings.WarningMessage]]:
    """Silence the exporters, which print and log pages; their exception says what counts."""
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(record=True) as heard,
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("always")
            yield heard
    finally:
        logging.disable(disabled)


def _reason(exc: BaseException) -> str:
    """Return the first line of the innermost cause: torch's outer messages are general advice."""
    while exc.__cause__ is not None:
        exc = exc.__cause__
    lines: Iterable[str] = (line.strip() for line in str(exc).splitlines())
    return next(filter(None, lines), type(exc).__name__)


def _sizes_text(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{name}={size}" for name, size in sizes.items()) or "the example sizes"


def _another(size: int) -> int:
    return size - 1 if size > 2 else size + 1
