"""Does a repository hold together? Files, versions, names, signatures, configs and the lock.

Nothing is run: this reads files only. ``proof`` asks a live server.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup

from tritonsmith_client import dtypes
from tritonsmith_generator.check.finding import Finding
from tritonsmith_generator.check.security import model_dangers, repository_dangers
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.digest import sha256
from tritonsmith_generator.onnx_model.case_file import case_path, load_cases
from tritonsmith_generator.onnx_model.precheck import precheck
from tritonsmith_generator.onnx_model.signature import Signature, Tensor
from tritonsmith_generator.repository.inspect import (
    default_filename,
    filenames,
    model_folders,
    read_config,
    served_versions,
    signature_of_config,
    version_numbers,
)
from tritonsmith_generator.repository.lock import LockedModel, read_lock
from tritonsmith_generator.spec.targets import TARGETS
from tritonsmith_generator.triton_config.model_config import served_signature
from tritonsmith_generator.triton_config.plan_files import is_capability
from tritonsmith_generator.triton_config.plan_parameters import STRIPPED, plugin_names

__all__ = ["Finding", "check_repository"]


@dataclass(frozen=True)
class _Model:
    folder: Path
    config: ModelConfig
    locked: LockedModel | None
    siblings: frozenset[str]

    @property
    def name(self) -> str:
        return self.folder.name

    @property
    def batched(self) -> bool:
        return bool(self.config.max_batch_size > 0)


def check_repository(repository: Path) -> tuple[Finding, ...]:
    """All findings, model by model. Raises InputError if there is no repository at all."""
    lock = read_lock(repository)
    folders = model_folders(repository)
    names = frozenset(folder.name for folder in folders)
    findings = list(repository_dangers(repository))
    if not folders:
        findings.append(Finding("error", ".", "the repository holds no model"))
    for name in sorted(set(lock.models) - names):
        findings.append(Finding("error", name, "the lock lists this model, but its folder is gone"))
    models = []
    for folder in folders:
        try:
            model = _Model(folder, read_config(folder), lock.models.get(folder.name), names)
        except InputError as exc:
            findings.append(Finding("error", f"{folder.name}/config.pbtxt", str(exc)))
            continue
        models.append(model)
        for check in _CHECKS:
            findings.extend(check(model))
        findings.extend(model_dangers(model.folder, model.config))
    findings.extend(_clashing_plugins(models))
    return tuple(findings)


def _error(model: _Model, path: str, message: str) -> Finding:
    return Finding("error", str(PurePosixPath(model.name, path)), message)


def _name(model: _Model) -> Iterator[Finding]:
    if model.config.name and model.config.name != model.name:
        yield _error(
            model,
            "config.pbtxt",
            f"name is '{model.config.name}', the folder's is '{model.name}': Triton wants the same",
        )


def _tensors(model: _Model) -> Iterator[Finding]:
    for what, tensors in (("input", model.config.input), ("output", model.config.output)):
        seen = set[str]()
        if not tensors and not model.config.HasField("ensemble_scheduling"):
            yield _error(model, "config.pbtxt", f"no {what} is declared, so Triton would guess")
        for tensor in tensors:
            if tensor.name in seen:
                yield _error(model, "config.pbtxt", f"two {what}s are named '{tensor.name}'")
            seen.add(tensor.name)
            if not tensor.dims:
                yield _error(model, "config.pbtxt", f"{what} '{tensor.name}' has no dims")
            if any(size == 0 or size < -1 for size in tensor.dims):
                yield _error(
                    model,
                    "config.pbtxt",
                    f"{what} '{tensor.name}' has dims {list(tensor.dims)}: sizes are 1 or more, "
                    "or -1 for dynamic ones",
                )


def _version_files(model: _Model) -> Iterator[Finding]:
    if model.config.HasField("ensemble_scheduling"):
        return
    if not version_numbers(model.folder):
        yield _error(model, "", "there is no version directory (1, 2, ...)")
    for number in served_versions(model.folder, model.config):
        for name in (*sorted(filenames(model.config)), *plugin_names(model.config)):
            if not (model.folder / str(number) / name).exists():
                yield _error(model, f"{number}/{name}", "the file that the config names is missing")


def _plans(model: _Model) -> Iterator[Finding]:
    for key in sorted(model.config.cc_model_filenames):
        if not is_capability(key):
            yield _error(
                model,
                "config.pbtxt",
                f"cc_model_filenames has the key '{key}', which no GPU matches: Triton looks for "
                "a compute capability such as 8.9",
            )
    if model.config.backend not in _PLAN_BACKENDS:
        return
    named = filenames(model.config)
    for number in served_versions(model.folder, model.config):
        for path in sorted((model.folder / str(number)).glob("*.plan")):
            if path.name not in named:
                where = str(path.relative_to(model.folder.parent))
                message = f"no GPU opens this plan: the config names {', '.join(sorted(named))}"
                yield Finding("warning", where, message)


def _stripped(model: _Model) -> Iterator[Finding]:
    if model.locked is not None and model.locked.spec.get("builder", {}).get("strip_plan"):
        home = PurePosixPath(model.name, str(model.locked.version))
        yield Finding("warning", str(home), STRIPPED)


def _clashing_plugins(models: Sequence[_Model]) -> Iterator[Finding]:
    """One process loads the libraries of all models, and TensorRT takes each plugin once."""
    seen: dict[str, tuple[Path, str]] = {}
    for model in models:
        names = plugin_names(model.config) if model.config.backend == "tensorrt" else ()
        for number in served_versions(model.folder, model.config):
            for path in (model.folder / str(number) / name for name in names):
                if not path.is_file():
                    continue  # said above
                digest = sha256(path)
                first, known = seen.setdefault(path.name, (path, digest))
                if digest != known:
                    yield Finding(
                        "warning",
                        str(path.relative_to(model.folder.parent)),
                        f"{first.relative_to(model.folder.parent)} holds other bytes, and NVIDIA's "
                        "tritonserver loads both into one process, where TensorRT keeps the first "
                        "one's plugins: build both models with one library",
                    )


def _batch_sizes(model: _Model) -> Iterator[Finding]:
    largest = model.config.max_batch_size
    if largest < 0:
        yield _error(model, "config.pbtxt", f"max_batch_size is {largest}: 0 or more is allowed")
    for size in model.config.dynamic_batching.preferred_batch_size:
        if not 0 < size <= largest:
            yield _error(
                model,
                "config.pbtxt",
                f"preferred_batch_size {size} is outside 1 to max_batch_size ({largest})",
            )
    if model.config.HasField("dynamic_batching") and not model.batched:
        yield _error(
            model, "config.pbtxt", "dynamic_batching needs a max_batch_size of 1 or more, it is 0"
        )


def _instances(model: _Model) -> Iterator[Finding]:
    plan = model.config.backend in _PLAN_BACKENDS
    for group in model.config.instance_group:
        if plan and group.kind == ModelInstanceGroup.KIND_CPU:
            yield _error(model, "config.pbtxt", f"backend {model.config.backend} runs on GPUs only")
        if group.profile and not plan:
            yield _error(model, "config.pbtxt", "instance_group.profile is for TensorRT plans only")


def _side_files(model: _Model) -> Iterator[Finding]:
    labels = [output.label_filename for output in model.config.output if output.label_filename]
    warmup = [
        f"warmup/{tensor.input_data_file}"
        for sample in model.config.model_warmup
        for tensor in sample.inputs.values()
        if tensor.input_data_file
    ]
    for path in (*labels, *warmup):
        if not (model.folder / path).is_file():
            yield _error(model, path, "the file that the config names is missing")


def _ensemble(model: _Model) -> Iterator[Finding]:
    for step in model.config.ensemble_scheduling.step:
        if step.model_name not in model.siblings:
            yield _error(
                model, "config.pbtxt", f"the ensemble's member '{step.model_name}' is not here"
            )


def _onnx_signature(model: _Model) -> Iterator[Finding]:
    if model.config.backend != "onnxruntime":
        return
    name = default_filename(model.config)
    for number in served_versions(model.folder, model.config):
        path = model.folder / str(number) / name
        if not path.exists():
            continue  # said above
        try:
            checked = precheck(path, "onnxruntime")
        except InputError as exc:
            yield _error(model, f"{number}/{name}", str(exc))
            continue
        served = served_signature(checked.signature, TARGETS["onnxruntime"])
        for message in _disagreements(served, signature_of_config(model.config)):
            yield _error(model, f"{number}/{name}", message)


def _disagreements(file: Signature, config: Signature) -> Iterator[str]:
    for what, have, want in (
        ("input", file.inputs, config.inputs),
        ("output", file.outputs, config.outputs),
    ):
        by_name = {tensor.name: tensor for tensor in have}
        for tensor in want:
            if tensor.name not in by_name:
                names = ", ".join(by_name)
                yield f"the config's {what} '{tensor.name}' is not in the model; it has: {names}"
            elif not _agree(by_name[tensor.name], tensor):
                yield f"the model has {by_name[tensor.name]}, the config says {tensor}"
        if what == "input":
            for name in sorted(set(by_name) - {tensor.name for tensor in want}):
                yield f"the model's input '{name}' is not in the config"


def _agree(model: Tensor, config: Tensor) -> bool:
    """Tell whether the dims agree: a config may fix what the model leaves open, not the reverse."""
    if model.dtype != config.dtype or len(model.shape) != len(config.shape):
        return False
    pairs = zip(model.dims, config.dims, strict=True)
    return all(have in (-1, want) for have, want in pairs)


def _cases(model: _Model) -> Iterator[Finding]:
    for number in served_versions(model.folder, model.config):
        path = case_path(model.folder, number)
        if not path.exists():
            continue
        try:
            cases = load_cases(path)
        except InputError as exc:
            yield _error(model, f"cases/{number}.npz", str(exc))
            continue
        config = signature_of_config(model.config)
        declared = {t.name: t.dtype for t in (*config.inputs, *config.outputs)}
        for case in cases:
            for name, array in (*case.inputs.items(), *case.outputs.items()):
                if declared.get(name) != dtypes.from_numpy(array.dtype):
                    message = (
                        f"'{name}' is {array.dtype} here, the config says {declared.get(name)}"
                    )
                    yield _error(model, f"cases/{number}.npz", message)


def _lock(model: _Model) -> Iterator[Finding]:
    if model.locked is None:
        yield Finding("warning", model.name, "not written by gen-repo: the lock doesn't list it")
        return
    for path, record in model.locked.files.items():
        if not (model.folder / path).exists():
            yield _error(model, path, "the lock lists this file, but it is gone: build again")
        elif not record.still(model.folder / path):
            yield _error(model, path, "the file is not what gen-repo wrote (its SHA-256 differs)")


_PLAN_BACKENDS = frozenset(name for name, target in TARGETS.items() if target.compiled)

_CHECKS: tuple[Callable[[_Model], Iterator[Finding]], ...] = (
    _name,
    _tensors,
    _version_files,
    _plans,
    _stripped,
    _batch_sizes,
    _instances,
    _side_files,
    _ensemble,
    _onnx_signature,
    _cases,
    _lock,
)
