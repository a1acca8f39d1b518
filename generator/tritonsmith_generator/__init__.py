"""ONNX models to a Triton model repository that is proven to load, to be right and to be fast.

from tritonsmith_generator import Server, build, load_spec

results = build(load_spec(Path("models.yaml")), Path(), Path("model_repository"))
with Server("model_repository") as server:
    print(server.grpc_url)
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .check.live import LiveCheck, prove
    from .check.repository import Finding, check_repository
    from .errors import HostError, InputError, ServerError, TritonsmithError, UsageError
    from .events import Event
    from .merging.merge import MergedModel, merge
    from .pipeline.build import ModelResult, build
    from .repository.inspect import inspect_file, inspect_model
    from .serve import Server
    from .spec.loader import load_spec
    from .spec.schema import ModelSpec, Spec
    from .stages.runner import StageReport
    from .torch_export.export import export
    from .torch_export.values import Export

# ONNX Runtime reports to Microsoft which models it loads, by default since 1.29. It reads this
# when it is imported; who wants the reports sets it to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

# Where each public name lives. They are imported when first used: `gen-repo --help` and a build
# with nothing to do need neither onnx nor ONNX Runtime.
_HOME = {
    "Event": "events",
    "Export": "torch_export.values",
    "Finding": "check.finding",
    "HostError": "errors",
    "InputError": "errors",
    "LiveCheck": "check.live",
    "MergedModel": "merging.merge",
    "ModelResult": "pipeline.build",
    "ModelSpec": "spec.schema",
    "Server": "serve",
    "ServerError": "errors",
    "Spec": "spec.schema",
    "StageReport": "stages.runner",
    "TritonsmithError": "errors",
    "UsageError": "errors",
    "build": "pipeline.build",
    "check_repository": "check.repository",
    "export": "torch_export.export",
    "inspect_file": "repository.inspect",
    "inspect_model": "repository.inspect",
    "load_spec": "spec.loader",
    "merge": "merging.merge",
    "prove": "check.live",
}

__all__ = [
    "Event",
    "Export",
    "Finding",
    "HostError",
    "InputError",
    "LiveCheck",
    "MergedModel",
    "ModelResult",
    "ModelSpec",
    "Server",
    "ServerError",
    "Spec",
    "StageReport",
    "TritonsmithError",
    "UsageError",
    "build",
    "check_repository",
    "export",
    "inspect_file",
    "inspect_model",
    "load_spec",
    "merge",
    "prove",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOME[name]}"), name)
