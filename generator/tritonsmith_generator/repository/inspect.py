"""What is in an ONNX file or a model repository, as values."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInput, ModelOutput

from tritonsmith_client import dtypes
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.precheck import precheck
from tritonsmith_generator.onnx_model.signature import Signature, Tensor
from tritonsmith_generator.spec.targets import TARGETS
from tritonsmith_generator.triton_config.config_pbtxt import parse_config

__all__ = [
    "CONFIG_NAME",
    "InspectedFile",
    "InspectedModel",
    "default_filename",
    "filenames",
    "inspect_file",
    "inspect_model",
    "model_folders",
    "read_config",
    "served_versions",
    "signature_of_config",
    "version_numbers",
    "wire_signature",
]

CONFIG_NAME = "config.pbtxt"


@dataclass(frozen=True)
class InspectedFile:
    """An ONNX file. ``size`` is in bytes, external weights included."""

    path: Path
    signature: Signature
    opset: int
    ir_version: int
    producer: str
    nodes: int
    size: int
    external: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class InspectedModel:
    """A model of a repository, as its config and its folder show it.

    ``signature`` holds full shapes as clients see them, the batch axis as "batch"; ``size`` is that
    of the newest version's model files in bytes. ``plans`` are the files that GPUs of these compute
    capabilities open, ``filename`` is what all others do.
    """

    name: str
    target: str
    versions: tuple[int, ...]
    max_batch_size: int
    signature: Signature
    filename: str
    size: int
    plans: Mapping[str, str]


def inspect_file(path: Path) -> InspectedFile:
    """Look into an ONNX file. Raises InputError for what ``precheck`` refuses."""
    checked = precheck(path, "onnxruntime")
    proto = checked.file.proto
    return InspectedFile(
        path=path,
        signature=checked.signature,
        opset=checked.file.opset,
        ir_version=proto.ir_version,
        producer=f"{proto.producer_name} {proto.producer_version}".strip(),
        nodes=len(proto.graph.node),
        size=checked.file.size,
        external=checked.file.external,
        warnings=checked.warnings,
    )


def model_folders(repository: Path) -> tuple[Path, ...]:
    """Return the folders that Triton takes for models.

    Raises InputError if there is no repository.
    """
    if not repository.is_dir():
        raise InputError(f"{repository}: no such folder; a model repository is expected")
    return tuple(sorted(path for path in repository.iterdir() if path.is_dir()))


def inspect_model(folder: Path) -> InspectedModel:
    """Look into a model's folder. Raises InputError if its config cannot be read."""
    config = read_config(folder)
    versions = version_numbers(folder)
    newest = folder / str(versions[-1]) if versions else folder
    return InspectedModel(
        name=folder.name,
        target=config.backend or config.platform,
        versions=versions,
        max_batch_size=config.max_batch_size,
        signature=wire_signature(config),
        filename=default_filename(config),
        size=sum(p.stat().st_size for p in newest.rglob("*") if p.is_file()) if versions else 0,
        plans=dict(sorted(config.cc_model_filenames.items())),
    )


def default_filename(config: ModelConfig) -> str:
    """Return the file that the backend opens; "" for a backend that we don't know."""
    known = {**{t.name: t.filename for t in TARGETS.values()}, "python": "model.py"}
    return config.default_model_filename or known.get(config.backend, "")


def filenames(config: ModelConfig) -> frozenset[str]:
    """All files that the backend opens, on one GPU or another."""
    by_gpu = frozenset(config.cc_model_filenames.values())
    if by_gpu and not config.default_model_filename:
        return by_gpu  # then other GPUs are not meant to have one
    return (by_gpu | {default_filename(config)}) - {""}


def read_config(folder: Path) -> ModelConfig:
    """Return the model's ``config.pbtxt``. Raises InputError if it is missing or not readable."""
    path = folder / CONFIG_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as exc:
        raise InputError(
            f"{folder} has no {CONFIG_NAME}: Triton takes every folder of a repository for a "
            "model; write one (gen-repo build) or move the folder away"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        raise InputError(f"cannot read {path}: {exc}") from exc
    return parse_config(text, str(path))


def version_numbers(folder: Path) -> tuple[int, ...]:
    """Return the version directories, ascending; Triton ignores names such as "01" and "cases"."""
    names = (p.name for p in folder.iterdir() if p.is_dir())
    return tuple(sorted(int(n) for n in names if n.isdigit() and not n.startswith("0")))


def served_versions(folder: Path, config: ModelConfig) -> tuple[int, ...]:
    """Return the versions that Triton loads by the config's version policy (default: newest)."""
    have = version_numbers(folder)
    policy = config.version_policy
    if policy.HasField("all"):
        return have
    if policy.HasField("specific"):
        return tuple(number for number in have if number in policy.specific.versions)
    return have[-(policy.latest.num_versions or 1) :]


def signature_of_config(config: ModelConfig) -> Signature:
    """Return the model's signature, as a config promises it: full shapes, each reshape applied."""
    return _signature(config, lambda t: t.reshape.shape if t.HasField("reshape") else t.dims)


def wire_signature(config: ModelConfig) -> Signature:
    """Return what clients send and get by a config: full shapes, before any reshape."""
    return _signature(config, lambda t: t.dims)


def _signature(
    config: ModelConfig, dims_of: Callable[[ModelInput | ModelOutput], Iterable[int]]
) -> Signature:
    batched = config.max_batch_size > 0
    return Signature(
        tuple(_tensor(t, dims_of(t), batched) for t in config.input),
        tuple(_tensor(t, dims_of(t), batched) for t in config.output),
    )


def _tensor(tensor: ModelInput | ModelOutput, dims: Iterable[int], batched: bool) -> Tensor:
    shape = tuple("?" if size < 0 else int(size) for size in dims)
    name = tensor.DESCRIPTOR.fields_by_name["data_type"].enum_type.values_by_number
    dtype = dtypes.from_config(name[tensor.data_type].name)
    return Tensor(tensor.name, dtype, ("batch", *shape) if batched else shape)
