"""PyTorch to ONNX: exported, compared with torch's own output, and only then written.

    export("package.module:factory", Path("model.onnx"))

The factory returns a ``torch.nn.Module``, or a tuple of it with example inputs and perhaps the
dynamic axes, or an ``Export``.
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from inspect import Parameter, signature
from pathlib import Path
from typing import Any

from tritonsmith_client.dtypes import DATA_TYPES, from_wire
from tritonsmith_generator.errors import HostError, InputError, UsageError
from tritonsmith_generator.host.user_code import call_factory
from tritonsmith_generator.torch_export.values import Dynamic, Export, Exported

__all__ = ["export"]

# 18 is what the exporter writes itself; 17 is the newest that TensorRT 8.6 reads.
_OPSET = {"dynamo": 18, "legacy": 17}
# Weights of more than this lie in a file of their own: protobuf ends at 2 GiB, and passes add.
_EMBED_LIMIT = 1 << 30
_DESCRIBED = re.compile(r"(?P<dtype>\w+)\[(?P<shape>[\d, ]*)\]")


def export(
    factory: str | Export,
    output: Path,
    *,
    inputs: Mapping[str, Any] | Sequence[Any] | None = None,
    dynamic: Dynamic | None = None,
    outputs: Sequence[str] | None = None,
    opset: int | None = None,
    legacy: bool = False,
    tolerance: float = 1e-3,
    force: bool = False,
    embed_limit: int = _EMBED_LIMIT,
) -> Exported:
    """Export the factory's module to ``output``; arguments replace what the factory gave.

    The result is run by ONNX Runtime at the example sizes and with every dynamic axis at a
    second size. ``tolerance`` is relative to the largest magnitude of each output of torch.
    ``legacy`` takes torch's older, tracing exporter, whose graphs TensorRT 8.6 can read.

    Raises HostError without torch, UsageError if ``output`` exists, InputError for the rest;
    nothing is written then.
    """
    _require_torch(legacy)
    from tritonsmith_generator.torch_export import torch_onnx

    output = Path(output)
    if not output.parent.is_dir():
        raise UsageError(f"the folder of {output} does not exist")
    if output.exists() and not force:
        raise UsageError(f"{output} exists; --force replaces it")
    exporter = "legacy" if legacy else "dynamo"
    opset = _OPSET[exporter] if opset is None else opset
    asked: dict[str, Any] = {"inputs": inputs, "dynamic": dynamic, "outputs": outputs}
    wanted = replace(_wanted(factory), **{k: v for k, v in asked.items() if v is not None})
    model = torch_onnx.prepare(wanted, _named_inputs(wanted))
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=".export-") as staging:
        staged = Path(staging) / output.name
        warnings = torch_onnx.write(model, staged, opset, legacy, embed_limit)
        torch_onnx.tidy(staged, wanted.metadata)
        try:
            checks = torch_onnx.compare(model, staged, tolerance)
        except InputError as exc:
            reason = str(exc).replace(str(staged), "the exported graph")
            raise InputError(f"{output} was not written: {reason}") from exc
        files = _publish(staged, output, force)
    return Exported(output, files, opset, exporter, checks, warnings)


def _require_torch(legacy: bool) -> None:
    needed = ["torch"] if legacy else ["torch", "onnxscript"]
    missing = [name for name in needed if find_spec(name) is None]
    if missing:
        raise HostError(
            f"exporting needs {' and '.join(missing)}, not installed here: "
            "pip install 'tritonsmith[torch]'"
        )


def _wanted(factory: str | Export) -> Export:
    from torch.nn import Module

    made = call_factory(factory) if isinstance(factory, str) else factory
    given = made
    if isinstance(made, tuple) and len(made) in (2, 3):
        made = Export(*made)
    elif isinstance(made, Module):
        made = Export(made)
    if isinstance(made, Export) and isinstance(made.module, Module):
        return made
    found = type(given).__name__
    if isinstance(given, tuple):
        found = f"({', '.join(type(part).__name__ for part in given)})"
    raise InputError(
        f"{factory} returned {found}; a factory returns a torch.nn.Module, (module, example "
        "inputs), (module, example inputs, dynamic axes), or "
        "tritonsmith_generator.torch_export.values.Export, which also names outputs"
    )


def _named_inputs(wanted: Export) -> dict[str, Any]:
    """Return example tensors by the name of their parameter in ``forward``, in its order."""
    from torch import Tensor

    forward = signature(wanted.module.forward).parameters.values()
    names = [p.name for p in forward if p.kind is not Parameter.VAR_KEYWORD]
    given = (wanted.inputs,) if isinstance(wanted.inputs, Tensor) else wanted.inputs
    if not given:
        raise InputError(
            f"no example inputs for forward({', '.join(names)}): let the factory return "
            f"(module, inputs), or give --input {names[0] if names else 'x'}=FP32[1,3,224,224]"
        )
    if not isinstance(given, Mapping):
        if len(given) > len(names):
            raise InputError(f"{len(given)} example inputs for forward({', '.join(names)})")
        given = dict(zip(names, given, strict=False))
    _check_names("an example input", given, names)
    _check_dynamic(wanted.dynamic)
    _check_names("a dynamic axis", wanted.dynamic, given)
    given = {name: _tensor(name, given[name]) for name in names if name in given}
    for name, axes in wanted.dynamic.items():
        for axis in axes:
            if not 0 <= axis < given[name].ndim:
                raise InputError(
                    f"input {name!r} has no axis {axis}; its shape is {list(given[name].shape)}"
                )
    return given


def _tensor(name: str, value: Any) -> Any:
    """Return the example tensor that a value is or, as a text, describes."""
    import torch

    if isinstance(value, torch.Tensor):
        return value
    match = _DESCRIBED.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InputError(
            f"example input {name!r} is {value!r:.60}; it is a tensor, or a text like "
            "FP32[1,3,224,224]"
        )
    try:
        dtype = from_wire(match["dtype"]).numpy.name
    except KeyError as exc:
        known = ", ".join(row.wire for row in DATA_TYPES if row.wire != "BYTES")
        raise InputError(f"example input {name!r}: no type {match['dtype']!r}; {known}") from exc
    shape = [int(size) for size in match["shape"].split(",") if size.strip()]
    kind = getattr(torch, dtype, None)
    if kind is None:
        raise InputError(f"example input {name!r}: torch has no type for {match['dtype']}")
    if kind.is_floating_point:
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(kind)
    return torch.ones(shape, dtype=kind)


def _check_dynamic(dynamic: Any) -> None:
    """Check what a factory returned, which nobody typed."""
    good = isinstance(dynamic, Mapping) and all(
        isinstance(axes, Mapping)
        and all(isinstance(axis, int) and isinstance(name, str) for axis, name in axes.items())
        for axes in dynamic.values()
    )
    if not good:
        raise InputError(
            f"dynamic axes are {dynamic!r:.60}; they are given by input, each with a number and a "
            "name: {'image': {0: 'batch'}}"
        )


def _check_names(
    what: str, given: Mapping[str, Any], allowed: Mapping[str, Any] | list[str]
) -> None:
    for name in given:
        if name not in allowed:
            raise InputError(f"{what} is given for {name!r}; the inputs are: {', '.join(allowed)}")


def _publish(staged: Path, output: Path, force: bool) -> tuple[Path, ...]:
    """Move every staged file beside each other, the model itself last."""
    sidecars = sorted(path for path in staged.parent.iterdir() if path != staged)
    for path in sidecars:
        path.chmod(staged.stat().st_mode)  # onnx makes them readable for their owner only
        target = output.parent / path.name
        if target.exists() and not force:
            raise UsageError(f"{target} exists; --force replaces it")
    moved = [output.parent / path.name for path in sidecars]
    for path, target in zip([*sidecars, staged], [*moved, output], strict=True):
        path.replace(target)
    return (output, *moved)
