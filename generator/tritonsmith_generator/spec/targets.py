"""The targets: what executes a model, and what Triton calls it."""

from __future__ import annotations

from dataclasses import dataclass

from tritonsmith_generator.engine.toolchain import Toolchain
from tritonsmith_generator.host import gpus as devices
from tritonsmith_generator.spec.builder_options import Library, Release
from tritonsmith_generator.spec.schema import ModelSpec

__all__ = ["TARGETS", "TargetKind", "release_of", "resolve"]


@dataclass(frozen=True)
class TargetKind:
    """One target.

    Attributes:
        name: as in the spec; also the name of the backend in ``config.pbtxt``.
        filename: what the backend opens in a version directory.
        instance_kind: where its instances run; KIND_AUTO is a GPU where there is one.
        compiled: whether the file is a plan, made for one GPU family and library version.
    """

    name: str
    filename: str
    instance_kind: str
    compiled: bool

    @property
    def library(self) -> Library:
        """What builds its plans, if it has any."""
        return "tensorrt_rtx" if self.name == "tensorrt_rtx" else "tensorrt"


TARGETS = {
    kind.name: kind
    for kind in (
        TargetKind("onnxruntime", "model.onnx", "KIND_AUTO", compiled=False),
        TargetKind("tensorrt", "model.plan", "KIND_GPU", compiled=True),
        TargetKind("tensorrt_rtx", "model.plan", "KIND_GPU", compiled=True),
    )
}


def resolve(spec: ModelSpec, toolchain: Toolchain) -> TargetKind:
    """The target that the spec names; "auto" is TensorRT where a GPU and the library are."""
    if spec.target != "auto":
        return TARGETS[spec.target]
    installed = {release.library for release in toolchain.releases}
    return TARGETS["tensorrt" if devices.gpus() and "tensorrt" in installed else "onnxruntime"]


def release_of(target: TargetKind, toolchain: Toolchain) -> Release | None:
    """The library that builds plans for the target; None where none is needed.

    Raises HostError if it is needed and the toolchain has it not.
    """
    if not target.compiled:
        return None
    for release in toolchain.releases:
        if release.library == target.name:
            return release
    raise toolchain.missing(target.library)
