"""What goes into the container and comes out of it, as JSON.

Not pickled: the image's Python may be older than ours, and what an image says is no code to run.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tritonsmith_client.dtypes import from_wire
from tritonsmith_generator.engine_image.npz import read_arrays
from tritonsmith_generator.onnx_model.profiles import Profile, ShapeRange
from tritonsmith_generator.onnx_model.signature import Signature, Tensor
from tritonsmith_generator.trt.layers import EngineLayers
from tritonsmith_generator.trt.request import (
    EngineOptions,
    EngineReport,
    EngineRequest,
    PlanQuestion,
)

__all__ = [
    "decode_question",
    "decode_report",
    "decode_request",
    "encode_question",
    "encode_report",
    "encode_request",
]


def encode_request(request: EngineRequest) -> str:
    """Return the request as JSON."""
    return json.dumps(asdict(request), default=str)


def decode_request(text: str) -> EngineRequest:
    """Return the request that ``encode_request`` wrote."""
    given = json.loads(text)
    return EngineRequest(
        library=given["library"],
        onnx=Path(given["onnx"]),
        plan=Path(given["plan"]),
        profiles=_profiles(given["profiles"]),
        options=_options(given["options"]),
        values=_profiles(given["values"]),
    )


def encode_report(report: EngineReport) -> Mapping[str, Any]:
    """Without the profiles, which are the request's."""
    signature = {
        end: [(tensor.name, tensor.dtype.wire, tensor.shape) for tensor in tensors]
        for end, tensors in vars(report.signature).items()
    }
    return asdict(replace(report, profiles=())) | {"signature": signature}


def decode_report(given: Mapping[str, Any], request: EngineRequest) -> EngineReport:
    """Return what an image reported of a build, given as the JSON that it printed."""
    ends = {
        end: tuple(Tensor(name, from_wire(dtype), tuple(shape)) for name, dtype, shape in tensors)
        for end, tensors in given["signature"].items()
    }
    layers = given["engine_layers"]
    known = {
        "profiles": request.profiles,
        "signature": Signature(**ends),
        "warnings": tuple(given["warnings"]),
        "deferred_plugins": tuple(given["deferred_plugins"]),
        "engine_layers": None if layers is None else EngineLayers(**layers),
    }
    return EngineReport(**{**given, **known})


def encode_question(question: PlanQuestion, asked: Path, answered: Path) -> str:
    """``asked`` is a file with the inputs, ``answered`` where the outputs go; see ``arrays``."""
    plugins = [str(plugin) for plugin in question.plugins]
    places = {"asked": str(asked), "answered": str(answered), "plan": str(question.plan)}
    return json.dumps({"library": question.library, "plugins": plugins, **places})


def decode_question(text: str) -> tuple[PlanQuestion, Path]:
    """And where the outputs go."""
    given = json.loads(text)
    inputs = tuple(row for row in read_arrays(Path(given["asked"])) if row is not None)
    plugins = tuple(map(Path, given["plugins"]))
    question = PlanQuestion(given["library"], Path(given["plan"]), inputs, plugins)
    return question, Path(given["answered"])


def _profiles(given: list[dict[str, Any]]) -> tuple[Profile, ...]:
    return tuple(
        {
            name: ShapeRange(**{end: tuple(sizes) for end, sizes in shapes.items()})
            for name, shapes in profile.items()
        }
        for profile in given
    )


def _options(given: dict[str, Any]) -> EngineOptions:
    plain: dict[str, Any] = {
        key: tuple(value) if isinstance(value, list) else value for key, value in given.items()
    }
    cache = plain["timing_cache"]
    plain["timing_cache"] = None if cache is None else Path(cache)
    plain["plugins"] = tuple(Path(plugin) for plugin in plain["plugins"])
    return EngineOptions(**plain)
