"""What has to agree before two repositories' copies of a model can become one."""

from __future__ import annotations

import filecmp
from collections.abc import Callable, Mapping
from typing import Any

from google.protobuf import json_format
from tritonclient.grpc.model_config_pb2 import ModelConfig

from tritonsmith_generator.merging.case_compatibility import cases_differ
from tritonsmith_generator.merging.copies import Part
from tritonsmith_generator.repository.inspect import signature_of_config
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.spec.targets import TARGETS
from tritonsmith_generator.trt.availability import Release

__all__ = ["disagreement"]

# Where a source lies and how it is checked, and which files stand for which GPU.
_APART = frozenset({"target", "sha256"})
# How the builder searches for kernels on one GPU, and which others may run what it finds.
_APART_IN_BUILDER = frozenset(
    {
        "avg_timing_iterations",
        "hardware_compatibility",
        "l2_limit_for_tiling",
        "max_aux_streams",
        "max_num_tactics",
        "memory_pools",
        "optimization_level",
        "tactic_sources",
        "tiling_optimization_level",
    }
)
_HINTS = {
    "builder.compute_capabilities": "one tensorrt_rtx plan is for all GPUs in this list: write "
    "them into one spec, and nothing has to be merged",
}


def disagreement(first: Part, other: Part) -> str | None:
    """Why the two are not the same model, and what to do; None if they are."""
    for check in _CHECKS:
        found = check(first, other)
        if found is not None:
            return f"model '{first.name}': {found}"
    return None


def _between(what: str, first: Part, a: object, other: Part, b: object, remedy: str) -> str:
    return f"{what} is {a} in {first.repository} and {b} in {other.repository}: {remedy}"


def _lock(first: Part, other: Part) -> str | None:
    for part, peer in ((first, other), (other, first)):
        unknown = part.locked is None and (peer.locked is not None or part.target in _PLANS)
        if unknown or (part.locked and part.target == "tensorrt" and not part.locked.plans):
            return (
                f"the lock of {part.repository} does not say what it was built from and for "
                "which GPU: build it there again"
            )
    return None


def _target(first: Part, other: Part) -> str | None:
    if first.target == other.target:
        return None
    remedy = "name one target in the spec, and build both"
    return _between("the target", first, first.target, other, other.target, remedy)


def _sources(first: Part, other: Part) -> str | None:
    a, b = _hashes(first), _hashes(other)
    for name in sorted(a.keys() | b.keys()):
        if a.get(name) != b.get(name):
            have, want = a.get(name, "not there"), b.get(name, "not there")
            remedy = "build both from the same files"
            return _between(f"the source '{name}' (SHA-256)", first, have, other, want, remedy)
    return None


def _hashes(part: Part) -> dict[str, str]:
    sources = part.locked.sources if part.locked is not None else {}
    return {name: record.sha256[:16] for name, record in sources.items()}


def _spec(first: Part, other: Part) -> str | None:
    a, b = _settings(first), _settings(other)
    for key in sorted(a.keys() | b.keys()):
        if a.get(key) != b.get(key):
            have, want = (values.get(key, "not set") for values in (a, b))
            remedy = _HINTS.get(key, "build both from the same spec")
            return _between(f"'{key}'", first, have, other, want, remedy)
    return None


def _settings(part: Part) -> dict[str, Any]:
    spec = part.locked.spec if part.locked is not None else {}
    builder = spec.get("builder", {})
    return {
        **{key: value for key, value in spec.items() if key not in (*_APART, "builder")},
        **{f"builder.{k}": v for k, v in builder.items() if k not in _APART_IN_BUILDER},
    }


def _library(first: Part, other: Part) -> str | None:
    """All plans are loaded by one server: its TensorRT has to take each of them."""
    if first.locked is None or other.locked is None or first.target not in _PLANS:
        return None
    compatible = first.locked.spec.get("builder", {}).get("version_compatible")
    for a in _releases(first):
        for b in _releases(other):
            if a != b and not (compatible and a.version[0] == b.version[0]):
                remedy = (
                    "a server has one TensorRT, and a plan loads in the version that built it: "
                    "build both with the server's"
                )
                return _between("the library", first, a, other, b, remedy)
    return None


def _releases(part: Part) -> list[Release]:
    assert part.locked is not None
    plans = [plan.tools for plan in part.locked.plans.values()] or [part.locked.tools]
    library: Library = "tensorrt" if part.target == "tensorrt" else "tensorrt_rtx"
    return [Release.parse(library, tools[library].rpartition(" ")[2]) for tools in plans]


def _signature(first: Part, other: Part) -> str | None:
    a, b = signature_of_config(first.config), signature_of_config(other.config)
    for what, have, want in (("input", a.inputs, b.inputs), ("output", a.outputs, b.outputs)):
        shown = [", ".join(map(str, tensors)) for tensors in (have, want)]
        if shown[0] != shown[1]:
            remedy = "build both with the same library"
            return _between(f"the {what}", first, shown[0], other, shown[1], remedy)
    return None


def _config(first: Part, other: Part) -> str | None:
    a, b = _fields(first.config), _fields(other.config)
    differing = sorted(key for key in a.keys() | b.keys() if a.get(key) != b.get(key))
    if not differing:
        return None
    key = differing[0]
    have, want = (values.get(key, "not set") for values in (a, b))
    remedy = "build both from the same spec"
    return _between(f"'{key}' in config.pbtxt", first, have, other, want, remedy)


def _fields(config: ModelConfig) -> dict[str, Any]:
    fields = json_format.MessageToDict(config, preserving_proto_field_name=True)
    return {k: v for k, v in fields.items() if k not in _BY_GPU}


def _files(first: Part, other: Part) -> str | None:
    """Plans differ from build to build; anything else that was built alike is alike."""
    if first.target in _PLANS:
        return None
    return _differing_file(first, first.files(first.version), other, other.files(other.version))


def _side_files(first: Part, other: Part) -> str | None:
    a, b = first.side_files(), other.side_files()
    both = a.keys() & b.keys()
    return _differing_file(first, {n: a[n] for n in both}, other, {n: b[n] for n in both})


def _differing_file(
    first: Part, a: Mapping[str, Any], other: Part, b: Mapping[str, Any]
) -> str | None:
    for name in sorted(a.keys() | b.keys()):
        if name not in a or name not in b or not filecmp.cmp(a[name], b[name], shallow=False):
            return (
                f"'{name}' in {first.repository} and {other.repository} is not the same file: "
                "take it from one of them, or build both with the same versions of the tools"
            )
    return None


_PLANS = frozenset(name for name, target in TARGETS.items() if target.compiled)
_BY_GPU = frozenset({"cc_model_filenames", "default_model_filename"})

_CHECKS: tuple[Callable[[Part, Part], str | None], ...] = (
    _lock,
    _target,
    _sources,
    _spec,
    _library,
    _signature,
    _config,
    cases_differ,
    _files,
    _side_files,
)
