"""A model's config, as Triton hands it to ``initialize``: JSON of ``ModelConfig``."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = [
    "ModelConfig",
    "TensorConfig",
    "boolean",
    "check_shapes",
    "integer",
    "model_filename",
    "plugin_paths",
    "read_config",
]


@dataclass(frozen=True)
class TensorConfig:
    """An input or output: ``dtype`` such as "TYPE_FP32"; ``dims`` as the model sees them.

    The batch axis is in ``dims`` (as -1) where the model batches; a reshape has been applied.
    """

    name: str
    dtype: str
    dims: tuple[int, ...]
    optional: bool = False


@dataclass(frozen=True)
class ModelConfig:
    """What the backends need of a model's config.

    Attributes:
        path: the model file.
        parameters: ``parameters`` by key, as text.
        profiles: indices of optimization profiles that the instance group lists.
        values: the whole config.
    """

    name: str
    path: Path
    max_batch_size: int
    inputs: tuple[TensorConfig, ...]
    outputs: tuple[TensorConfig, ...]
    parameters: Mapping[str, str]
    profiles: tuple[int, ...]
    device: int
    on_gpu: bool
    values: Mapping[str, Any]


def read_config(
    args: Mapping[str, str], default_filename: str, compute_capability: str = ""
) -> ModelConfig:
    """Return the config from the arguments of ``initialize``.

    Raises FileNotFoundError for the model.

    ``compute_capability`` is that of the instance's GPU, e.g. "8.9"; see ``model_filename``.
    """
    values = json.loads(args["model_config"])
    batched = int(values.get("max_batch_size", 0)) > 0
    filename = model_filename(values, default_filename, compute_capability)
    path = Path(args["model_repository"], args["model_version"], filename)
    if path.is_dir():  # a folder holds the model beside the files of its weights
        path = path / default_filename
    if not path.is_file():
        raise FileNotFoundError(f"model '{args['model_name']}': there is no file {path}")
    return ModelConfig(
        args["model_name"],
        path,
        int(values.get("max_batch_size", 0)),
        tuple(_tensor(entry, batched) for entry in values.get("input", ())),
        tuple(_tensor(entry, batched) for entry in values.get("output", ())),
        {k: v.get("string_value", "") for k, v in values.get("parameters", {}).items()},
        _profiles(values, args["model_instance_name"]),
        int(args["model_instance_device_id"]),
        args["model_instance_kind"] == "GPU",
        values,
    )


def model_filename(
    values: Mapping[str, Any], default_filename: str, compute_capability: str = ""
) -> str:
    """Get the file that Triton's own backends open: by the GPU, else as configured, else the usual.

    The capability has to be written exactly so in ``cc_model_filenames``; an empty name there
    means the usual one, whatever ``default_model_filename`` says.
    """
    configured = values.get("default_model_filename", "")
    by_gpu = values.get("cc_model_filenames", {})
    return str(by_gpu.get(compute_capability, configured) or default_filename)


def plugin_paths(config: ModelConfig) -> tuple[Path, ...]:
    """Give the plugin libraries that the config names; they lie beside the plan, in its version."""
    names = config.parameters.get("plugins", "").split(";")
    return tuple(config.path.parent / name for name in names if name)


def _tensor(entry: Mapping[str, Any], batched: bool) -> TensorConfig:
    shape = entry.get("reshape", {}).get("shape", entry["dims"]) if "reshape" in entry else None
    dims = tuple(int(d) for d in (entry["dims"] if shape is None else shape))
    dims = (-1, *dims) if batched else dims
    return TensorConfig(entry["name"], entry["data_type"], dims, bool(entry.get("optional")))


def _profiles(values: Mapping[str, Any], instance: str) -> tuple[int, ...]:
    """Profiles of the group that this instance ("<group>_<n>_<device>" or so) belongs to."""
    groups = values.get("instance_group", ())
    named = [g for g in groups if instance.startswith(g.get("name") or "\0")]
    for group in named or groups[:1]:
        return tuple(int(index) for index in group.get("profile", ()))
    return ()


def boolean(key: str, value: str) -> bool:
    """Triton's reading of a switch. Raises ValueError with the allowed words."""
    words = {"1": True, "true": True, "on": True, "0": False, "false": False, "off": False}
    if value.lower() not in words:
        raise ValueError(f"parameter '{key}' is '{value}'; allowed are 1, true, 0 and false")
    return words[value.lower()]


def integer(key: str, value: str) -> int:
    """Return a whole number. Raises ValueError with the parameter's name."""
    try:
        return int(value)
    except ValueError:
        raise ValueError(f"parameter '{key}' is '{value}'; it must be a whole number") from None


def check_shapes(
    model: str,
    configured: Iterable[TensorConfig],
    actual: Mapping[str, tuple[str, Sequence[int]]],
    what: str,
) -> None:
    """Raise ValueError where the config's names, types or shapes are not the model's own.

    ``actual`` gives the type ("TYPE_FP32") and the shape (-1 for a dynamic axis) by name;
    ``what`` is "input" or "output".
    """
    for tensor in configured:
        if tensor.name not in actual:
            raise ValueError(
                f"model '{model}': the config names {what} '{tensor.name}', which the model file "
                f"has not; it has: {', '.join(sorted(actual))}"
            )
        dtype, shape = actual[tensor.name]
        if dtype != tensor.dtype:
            raise ValueError(
                f"model '{model}': {what} '{tensor.name}' is {tensor.dtype} in the config "
                f"and {dtype} in the model file"
            )
        fits = len(shape) == len(tensor.dims) and all(
            -1 in (a, b) or a == b for a, b in zip(shape, tensor.dims, strict=True)
        )
        if not fits:
            raise ValueError(
                f"model '{model}': {what} '{tensor.name}' has shape {list(tensor.dims)} in the "
                f"config (the batch axis included) and {list(shape)} in the model file"
            )
