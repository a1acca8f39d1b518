"""Which models of a repository a server can serve on this machine, and why not the rest."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.gpus import Gpu
from tritonsmith_generator.repository.inspect import served_versions
from tritonsmith_generator.triton_config.plan_parameters import is_version_compatible, plugin_names

__all__ = [
    "PLAN_BACKENDS",
    "ServedModel",
    "container_reason",
    "embedded_reason",
    "leave_out",
    "read_models",
]

# The legacy way to name a backend, still valid in config.pbtxt.
_PLATFORMS = {
    "tensorrt_plan": "tensorrt",
    "onnxruntime_onnx": "onnxruntime",
    "ensemble": "ensemble",
}
_EMBEDDED = ("onnxruntime", "tensorrt", "tensorrt_rtx", "python", "ensemble")
PLAN_BACKENDS = ("tensorrt", "tensorrt_rtx")
_NO_GPU = "it is a TensorRT plan and this machine has no NVIDIA GPU"


@dataclass(frozen=True)
class ServedModel:
    """A model's directory and what its config says that matters for serving it.

    Attributes:
        backend: None if there is no config, or one that is not valid; the server says why.
        members: the names of an ensemble's models.
        gpus: the numbers of the GPUs that it is to run on; empty for all.
        capabilities: of the GPUs that its plans are for; empty where any GPU may do.
        plugins: libraries that its plans need, in each version that is served.
        version_compatible: whether its plan brings a runtime of its own.
    """

    path: Path
    backend: str | None
    members: tuple[str, ...] = ()
    gpus: frozenset[int] = frozenset()
    capabilities: frozenset[str] = frozenset()
    plugins: tuple[Path, ...] = ()
    version_compatible: bool = False

    @property
    def name(self) -> str:
        return self.path.name


# Why a model can't be served; None if it can.
Reason = Callable[[ServedModel], "str | None"]


def read_models(repository: Path, names: Sequence[str] | None = None) -> dict[str, ServedModel]:
    """Return the named models of the repository, or all; with an ensemble come its members.

    Raises InputError if the repository has no models, or none of a given name.
    """
    if not repository.is_dir():
        raise InputError(f"{repository}: no such folder; it should be a model repository")
    found = {path.name: _read(path) for path in sorted(repository.iterdir()) if _is_model(path)}
    if not found:
        raise InputError(
            f"{repository} is no model repository: no folder in it has a config.pbtxt or a "
            "numbered version. Make one with: gen-repo build MODEL.onnx"
        )
    if names is None:
        return found
    wanted = list(dict.fromkeys(names))
    for name in wanted:  # grows by the members of ensembles
        if name not in found:
            raise InputError(f"{repository} has no model {name!r}; it has: {', '.join(found)}")
        wanted += [member for member in found[name].members if member not in wanted]
    return {name: found[name] for name in wanted}


def leave_out(models: Mapping[str, ServedModel], reason: Reason) -> dict[str, str]:
    """Return the models that can't run, each with the reason; ensembles of such models included."""
    reasons = {model.name: why for model in models.values() if (why := reason(model))}
    while True:
        more = {
            model.name: f"it needs {member!r}, which is left out"
            for model in models.values()
            for member in model.members
            if member in reasons and model.name not in reasons
        }
        if not more:
            return reasons
        reasons |= more


def embedded_reason(gpus: Sequence[Gpu], modules: Iterable[str]) -> Reason:
    """Why the embedded server, on these GPUs and with these Python modules, can't run a model."""
    have = set(modules)

    def reason(model: ServedModel) -> str | None:
        backend = model.backend
        if backend is None or backend in ("python", "ensemble"):
            return None
        if backend not in _EMBEDDED:
            return (
                f"the embedded server has no backend {backend!r}; it has: "
                f"{', '.join(_EMBEDDED)}. Serve it with --docker"
            )
        if backend in PLAN_BACKENDS and (without := _without_plan(model, gpus)):
            return without
        needed = (backend, "cuda.bindings") if backend in PLAN_BACKENDS else (backend,)
        missing = [name for name in needed if name not in have]
        if missing:
            return (
                f"the server's Python environment has no {' and no '.join(missing)}; "
                "name one that has: --server-env PATH"
            )
        return None

    return reason


def _without_plan(model: ServedModel, gpus: Sequence[Gpu]) -> str | None:
    if not gpus:
        return _NO_GPU
    used = {gpu.compute_capability for gpu in gpus if gpu.index in (model.gpus or {gpu.index})}
    lacking = sorted(used - model.capabilities) if model.capabilities else []
    if not lacking:
        return None
    return (
        f"it has plans for compute capability {', '.join(sorted(model.capabilities))}, and this "
        f"machine has a GPU of {lacking[0]}: build one here, and add it with gen-repo merge"
    )


def container_reason(has_gpu: bool, gpus: Sequence[Gpu] = ()) -> Reason:
    """Why NVIDIA's container, with or without a GPU, can't run a model.

    ``gpus`` are those that it gets, where they are known.
    """

    def reason(model: ServedModel) -> str | None:
        if model.backend == "tensorrt_rtx":
            return "NVIDIA's container has no TensorRT for RTX; the embedded server has"
        if model.backend == "tensorrt" and not has_gpu:
            return _NO_GPU
        return _without_plan(model, gpus) if gpus and model.backend == "tensorrt" else None

    return reason


def _is_model(path: Path) -> bool:
    if path.name.startswith(".") or not path.is_dir():
        return False
    return (path / "config.pbtxt").exists() or any(p.name.isdigit() for p in path.iterdir())


def _read(path: Path) -> ServedModel:
    config = ModelConfig()
    try:
        text_format.Parse((path / "config.pbtxt").read_text(), config)
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        return ServedModel(path, None)
    backend = config.backend or _PLATFORMS.get(config.platform) or config.platform or None
    members = tuple(step.model_name for step in config.ensemble_scheduling.step)
    # A file for other GPUs that is none of these is a plan that all of them can load.
    plans = config.cc_model_filenames
    portable = config.default_model_filename not in plans.values()
    capabilities = frozenset[str]() if portable else frozenset(plans)
    gpus = frozenset(gpu for group in config.instance_group for gpu in group.gpus)
    names = plugin_names(config)
    return ServedModel(
        path,
        backend,
        members,
        gpus,
        capabilities,
        tuple(path / str(v) / n for v in served_versions(path, config) for n in names),
        is_version_compatible(config),
    )
