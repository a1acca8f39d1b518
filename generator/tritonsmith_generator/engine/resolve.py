"""What a model's target comes to, with the libraries that a toolchain has."""

from __future__ import annotations

from tritonsmith_generator.engine.toolchain import Toolchain
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.spec.schema import ModelSpec
from tritonsmith_generator.spec.targets import TARGETS, TargetKind
from tritonsmith_generator.trt.availability import Release

__all__ = ["release_of", "resolve"]


def resolve(spec: ModelSpec, toolchain: Toolchain) -> TargetKind:
    """Return the target that the spec names; "auto" is TensorRT where a GPU and the library are."""
    if spec.target != "auto":
        return TARGETS[spec.target]
    installed = {release.library for release in toolchain.releases}
    return TARGETS["tensorrt" if visible_gpus() and "tensorrt" in installed else "onnxruntime"]


def release_of(target: TargetKind, toolchain: Toolchain) -> Release | None:
    """Return the library that builds plans for the target; None where none is needed.

    Raises HostError if it is needed and the toolchain has it not.
    """
    if not target.compiled:
        return None
    for release in toolchain.releases:
        if release.library == target.name:
            return release
    raise toolchain.missing(target.library)
