"""CUDA graphs: the shapes for which Triton's TensorRT backend records them, from the profiles."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.onnx_model.profiles import Profile, ProfileSet
from tritonsmith_generator.spec.schema import ModelSpec
from tritonsmith_generator.spec.targets import TargetKind

__all__ = ["cuda_graphs"]

_BACKEND = "tensorrt"  # no other backend of Triton records CUDA graphs


def cuda_graphs(
    target: TargetKind, profile_set: ProfileSet, spec: ModelSpec
) -> Mapping[str, Any] | None:
    """ModelConfig's ``optimization``, or None where the spec does not want CUDA graphs.

    With batches, each profile has a ladder of graphs at its opt shapes: 1, 2, 4, ... and its opt
    and max batch, each for all batches down to the one below. What a batch lacks is uninitialised,
    which is harmless because rows don't depend on each other. No other axis is padded: that would
    change the answer. Without batches a graph is recorded for exactly the opt shapes.

    Raises InputError for a target or a model that has none.
    """
    if not spec.cuda_graphs:
        return None
    if target.name != _BACKEND:
        if spec.target == "auto":  # the same spec on a machine without TensorRT
            return None
        raise InputError(
            f"cuda_graphs needs target tensorrt, this is {target.name}: leave it out, or use "
            "target auto, which heeds it where TensorRT is"
        )
    if any(profile_set.values):
        names = sorted({name for values in profile_set.values for name in values})
        raise InputError(
            f"cuda_graphs: Triton records none for a model whose input says shapes by its values "
            f"({', '.join(names)}): leave cuda_graphs out"
        )
    specs: dict[str, Mapping[str, Any]] = {}
    for profile in profile_set.profiles:
        for graph in _ladder(profile, profile_set, spec):
            specs.setdefault(str(graph), graph)
    return {"cuda": {"graphs": True, "graph_spec": list(specs.values())}}


def _ladder(
    profile: Profile, profile_set: ProfileSet, spec: ModelSpec
) -> Iterator[Mapping[str, Any]]:
    if not profile_set.max_batch_size:
        shapes = {name: {"dim": list(ranges.opt)} for name, ranges in profile.items()}
        yield {"batch_size": 0, "input": shapes}
        return
    shapes = {name: {"dim": list(ranges.opt[1:])} for name, ranges in profile.items()}
    low = max(ranges.min[0] for ranges in profile.values())
    high = min(profile_set.max_batch_size, *(ranges.max[0] for ranges in profile.values()))
    usual = {ranges.opt[0] for ranges in profile.values()}
    preferred = set(spec.batching.preferred if spec.batching else ())
    powers = {1 << power for power in range(high.bit_length())}
    below = max(low, 1) - 1
    for size in sorted(s for s in {*powers, *usual, *preferred, high} if below < s <= high):
        lower = {"batch_size": below + 1, "input": shapes}
        padded = {"graph_lower_bound": lower} if below + 1 < size else {}
        yield {"batch_size": size, "input": shapes, **padded}
        below = size
