"""What a model's config says, and why: values and notes for ``config.pbtxt``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritonsmith_client import dtypes
from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.profiles import ProfileSet
from tritonsmith_generator.onnx_model.signature import Signature, Tensor
from tritonsmith_generator.spec.schema import Instances, ModelSpec, merge
from tritonsmith_generator.spec.targets import TargetKind
from tritonsmith_generator.triton_config.config_pbtxt import Notes, message_from
from tritonsmith_generator.triton_config.cuda_graphs import cuda_graphs
from tritonsmith_generator.triton_config.plan_parameters import NOTE, parameters_for

__all__ = ["config_for", "served_signature"]

_WARMUP_NOTE = "run at each profile's shapes before the model is ready (warmup)"

_KINDS = {"cpu": "KIND_CPU", "gpu": "KIND_GPU"}


def served_signature(signature: Signature, target: TargetKind) -> Signature:
    """Return the signature as the target serves it: TensorRT makes FP32 of FP64."""
    if not target.compiled:
        return signature
    return Signature(
        tuple(_without_double(t) for t in signature.inputs),
        tuple(_without_double(t) for t in signature.outputs),
    )


def config_for(
    name: str,
    target: TargetKind,
    signature: Signature,
    profile_set: ProfileSet,
    spec: ModelSpec,
    warmup: Sequence[Mapping[str, Any]] = (),
) -> tuple[ModelConfig, Notes]:
    """Return the complete config of a model, so that Triton's auto-completion has nothing to add.

    ``signature`` is the one that is served, ``warmup`` what ``derive_warmup`` found. The spec's
    ``config`` is merged last. Raises InputError where the two don't fit together.
    """
    batched = profile_set.max_batch_size > 0
    notes: dict[tuple[str | int, ...], str] = {("max_batch_size",): profile_set.reason}
    values: dict[str, Any] = {
        "name": name,
        "backend": target.name,
        "max_batch_size": profile_set.max_batch_size,
        "default_model_filename": target.filename,
        "version_policy": {"latest": {"num_versions": 1}},
        "instance_group": [_instances(target, profile_set, spec.instances)],
    }
    for what, tensors in (("input", signature.inputs), ("output", signature.outputs)):
        values[what] = [_tensor(what, tensor, batched) for tensor in tensors]
        for index, tensor in enumerate(tensors):
            notes[what, index, "dims"] = _dims_note(tensor, batched)
    # Triton wants shape tensors to be marked for TensorRT, and refuses the mark for other backends.
    if target.name == "tensorrt":
        for entry in values["input"]:
            if any(entry["name"] in known for known in profile_set.values):
                entry["is_shape_tensor"] = True
    notes["instance_group",] = _instance_note(target, spec)
    notes["version_policy",] = "the newest version is served; older ones stay for a rollback"
    if profile_set.max_batch_size > 1 and "sequence_batching" not in spec.config:
        values["dynamic_batching"] = _batching(spec, profile_set.max_batch_size)
        notes["dynamic_batching",] = "requests that wait at the same time run as one batch" + (
            "" if values["dynamic_batching"] else "; none waits for another (batching.max_delay_us)"
        )
    if graphs := cuda_graphs(target, profile_set, spec):
        values["optimization"] = graphs
        notes["optimization",] = "cuda_graphs in the spec; recorded while the model loads"
    if target.compiled and (parameters := parameters_for(spec.builder)):
        values["parameters"] = parameters
        notes["parameters",] = NOTE
    if warmup:
        values["model_warmup"] = [dict(entry) for entry in warmup]
        notes["model_warmup",] = _WARMUP_NOTE
    for key in spec.config:
        notes[key,] = "set in the spec's config"
    config = message_from(merge(values, spec.config))
    _refuse_other_identity(config, values)
    return config, notes


def _tensor(what: str, tensor: Tensor, batched: bool) -> dict[str, Any]:
    dims = tensor.dims[1:] if batched else tensor.dims
    values: dict[str, Any] = {"name": tensor.name, "data_type": tensor.dtype.config}
    if dims:
        return {**values, "dims": list(dims)}
    if not batched:
        raise InputError(
            f"{what} '{tensor.name}' is a scalar, which Triton cannot serve without a batch: "
            "export the model with shape [1] instead of []"
        )
    return {**values, "dims": [1], "reshape": {"shape": []}}


def _dims_note(tensor: Tensor, batched: bool) -> str:
    full = f"[{', '.join(map(str, tensor.shape))}] in the model"
    if not batched:
        return f"{full}; requests carry the full shape"
    return f"{full}; axis 0 is the batch and is left out here"


def _instances(target: TargetKind, profile_set: ProfileSet, wanted: Instances) -> dict[str, Any]:
    kind = _KINDS.get(wanted.kind, target.instance_kind)
    if target.compiled and kind != "KIND_GPU":
        raise InputError(f"instances.kind is {wanted.kind}, but {target.name} runs on GPUs only")
    group: dict[str, Any] = {"kind": kind, "count": wanted.count}
    if wanted.gpus:
        group["gpus"] = list(wanted.gpus)
    if target.compiled and len(profile_set.profiles) > 1:
        group["profile"] = [str(index) for index in range(len(profile_set.profiles))]
    return group


def _instance_note(target: TargetKind, spec: ModelSpec) -> str:
    if "instances" in spec.model_fields_set:
        return "instances in the spec"
    return (
        "a default: one copy on each GPU"
        if target.compiled
        else "a default: one copy, on each GPU where there are any, on the CPU otherwise"
    )


def _batching(spec: ModelSpec, largest: int) -> dict[str, Any]:
    batching = spec.batching
    if batching is None:
        return {}
    for size in batching.preferred:
        if size > largest:
            raise InputError(f"batching.preferred is {size}, but the largest batch is {largest}")
    values = {
        "preferred_batch_size": list(batching.preferred),
        "max_queue_delay_microseconds": batching.max_delay_us,
    }
    return {key: value for key, value in values.items() if value}


def _refuse_other_identity(config: ModelConfig, values: Mapping[str, Any]) -> None:
    """Refuse a config that names another model or other tensors: it would not load."""
    if config.name != values["name"]:
        raise InputError(
            f"config.name is '{config.name}', but Triton takes the folder's name "
            f"'{values['name']}': rename the model in the spec instead"
        )


def _without_double(tensor: Tensor) -> Tensor:
    if tensor.dtype.wire != "FP64":
        return tensor
    return Tensor(tensor.name, dtypes.from_wire("FP32"), tensor.shape)
