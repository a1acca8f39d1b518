"""The targets: what executes a model, and what Triton calls it."""

from __future__ import annotations

from dataclasses import dataclass

from tritonsmith_generator.spec.builder_options import Library

__all__ = ["TARGETS", "TargetKind"]


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
