"""Warmup: requests that Triton sends itself before it calls a version ready.

They are derived from the profiles, so that whatever a library leaves for the first request of a
shape (kernels are loaded, TensorRT for RTX even compiles them) is done before users ask.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from tritonclient.utils import serialize_byte_tensor

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.case_file import Case
from tritonsmith_generator.onnx_model.profiles import Profile, ProfileSet, Shape, ShapeRange
from tritonsmith_generator.onnx_model.signature import Signature, Tensor
from tritonsmith_generator.spec.schema import ModelSpec, Warmup
from tritonsmith_generator.spec.targets import TargetKind

__all__ = ["FOLDER", "WarmupSamples", "derive_warmup"]

FOLDER = "warmup"

End = Literal["min", "opt", "max"]

_FLOATS = frozenset({"FP16", "BF16", "FP32", "FP64"})

# Whoever sets these in the spec's ``config`` decides on what a request looks like.
_REQUEST_FIELDS = ("max_batch_size", "input")


@dataclass(frozen=True)
class WarmupSamples:
    """``entries`` are ModelConfig's ``model_warmup``; ``files`` lie in the model's FOLDER."""

    entries: tuple[Mapping[str, Any], ...] = ()
    files: Mapping[str, bytes] = field(default_factory=dict)


def derive_warmup(
    target: TargetKind,
    signature: Signature,
    profile_set: ProfileSet,
    spec: ModelSpec,
    cases: Sequence[Case],
) -> WarmupSamples:
    """Return a sample for each profile, at the ends that the spec's ``warmup`` names.

    ``signature`` is the one that is served; ``cases`` give the values of integers, booleans and
    strings. Raises InputError where the spec asks for it and sets requests apart in ``config``.
    """
    warmup = spec.warmup
    if warmup is None and target.compiled:
        warmup = Warmup()
    if not (warmup and warmup.at) or "model_warmup" in spec.config or not signature.inputs:
        return WarmupSamples()
    own = [name for name in _REQUEST_FIELDS if name in spec.config]
    if own and spec.warmup is None:
        return WarmupSamples()
    if own:
        raise InputError(
            f"warmup is derived from the profiles, but config.{own[0]} says something else: use "
            "batching and shapes, or write model_warmup into config as well"
        )
    files: dict[str, bytes] = {}
    entries: dict[Any, Mapping[str, Any]] = {}
    for number, profile in enumerate(profile_set.profiles):
        values = profile_set.values[number] if profile_set.values else {}
        for end in warmup.at:
            maker = _Sample(warmup, number, end, profile, values, profile_set.max_batch_size, files)
            entry = maker.entry(signature, cases)
            entries.setdefault(str({**entry, "name": ""}), entry)
    return WarmupSamples(tuple(entries.values()), files)


@dataclass(frozen=True)
class _Sample:
    """One sample in the making; its files are added to ``files``."""

    warmup: Warmup
    number: int
    end: End
    profile: Profile
    values: Mapping[str, ShapeRange]
    largest: int
    files: dict[str, bytes]

    def entry(self, signature: Signature, cases: Sequence[Case]) -> Mapping[str, Any]:
        """Triton sends ``batch_size`` requests of one row each, as one batch."""
        shapes = {name: _end(ranges, self.end) for name, ranges in self.profile.items()}
        rows = min((shape[0] for shape in shapes.values() if shape), default=1)
        batch = max(1, min(rows, self.largest))
        inputs = {
            tensor.name: self._input(index, tensor, shapes[tensor.name], cases)
            for index, tensor in enumerate(signature.inputs)
        }
        name = f"profile {self.number}, {self.end}"
        return {"name": name, "batch_size": batch, "count": self.warmup.count, "inputs": inputs}

    def _input(
        self, index: int, tensor: Tensor, shape: Shape, cases: Sequence[Case]
    ) -> Mapping[str, Any]:
        dims = list(shape[1:] or (1,)) if self.largest else list(shape)
        about: dict[str, Any] = {"data_type": tensor.dtype.config, "dims": dims}
        if tensor.name in self.values:
            data = np.array(_end(self.values[tensor.name], self.end))
            part = f"values-{self.number}-{self.end}"
        elif tensor.dtype.wire in _FLOATS and self.warmup.data == "zero":
            return {**about, "zero_data": True}
        else:
            data = _recorded(cases, tensor.name, batched=bool(self.largest))
            part = "x".join(map(str, dims))
        # The number keeps names apart that differ in a character which no file name may have.
        name = f"{index}-{re.sub(r'[^A-Za-z0-9_.-]', '_', tensor.name)}-{part}"
        # Repeated or cut to size: each value is one that the model has been asked before.
        self.files[name] = _packed(np.resize(data, dims), tensor)
        return {**about, "input_data_file": name}


def _end(ranges: ShapeRange, end: End) -> Shape:
    return {"min": ranges.min, "opt": ranges.opt, "max": ranges.max}[end]


def _recorded(cases: Sequence[Case], name: str, batched: bool) -> np.ndarray[Any, Any]:
    """Return one row of the last case's input (of the usual shape where no samples were given)."""
    whole: np.ndarray[Any, Any] = cases[-1].inputs[name]
    return whole[:1] if batched else whole


def _packed(array: np.ndarray[Any, Any], tensor: Tensor) -> bytes:
    if tensor.dtype.wire != "BYTES":
        return array.astype(tensor.dtype.numpy).tobytes()
    packed = serialize_byte_tensor(array)
    return bytes(packed.item()) if packed.size else b""
