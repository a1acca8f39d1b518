"""What each stage's result follows from: no more, or it would be made again for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from tritonsmith_generator.host.digest import sha256
from tritonsmith_generator.onnx_model.cases import corners
from tritonsmith_generator.onnx_model.profiles import ProfileSet
from tritonsmith_generator.onnx_model.rows import LARGEST_ASKED
from tritonsmith_generator.stages.code import code_digest
from tritonsmith_generator.stages.job import Job
from tritonsmith_generator.stages.runner import flat
from tritonsmith_generator.stages.stage import Stage
from tritonsmith_generator.trt.availability import Release
from tritonsmith_generator.trt.request import EngineOptions

__all__ = ["NEARER", "accuracy_stage", "cases_stage", "conversion_stage", "plan_stage"]

# What the conversion has to keep so that the plan may keep its limits.
NEARER = "relative L2 of the graph, for the plan's sake"
_QUANTIZED_BY_MODELOPT = ("fp8", "int4")


def cases_stage(job: Job, graph: Mapping[str, str], profile_set: ProfileSet, exact: bool) -> Stage:
    """Return recorded inputs with ONNX Runtime's answers. ``graph`` is the model's files by digest.

    ``exact`` is as for ``Reference``.
    """
    samples = job.spec.case_samples
    inputs: dict[str, Any] = {
        **graph,
        **_batches(profile_set),
        **_versions("onnx", "onnxruntime", "numpy"),
    }
    if samples is not None:
        inputs["samples"] = samples
        inputs |= _prefixed(job.sample_digests(samples))
    if exact:
        inputs["Q and DQ"] = "one by one"
    for number, (shapes, values) in enumerate(corners(profile_set)):
        inputs |= flat({f"case {number}": {**_said(shapes), **_said(values, " values")}})
    return _stage("cases", inputs)


def conversion_stage(
    job: Job,
    graph: Mapping[str, str],
    cases: Stage,
    nearer: float | None = None,
) -> Stage:
    """Return the graph in its precision, measured on the cases, for what runs it.

    ``nearer`` is as ``convert_model`` takes it.
    """
    spec, (executor, release) = job.spec, job.executor
    packages = ["onnx", "onnxruntime", "numpy", "ml_dtypes"]
    packages += ["onnxslim"] * spec.simplify
    packages += ["nvidia-modelopt"] * (spec.precision in _QUANTIZED_BY_MODELOPT)
    said = spec.model_dump(mode="json", exclude=dict(_NOT_CONVERTING), exclude_defaults=True)
    inputs: dict[str, Any] = {
        **graph,
        **dict(flat(said)),
        "precision": spec.precision,
        "executor": f"{executor} {release.partition('.')[0]}",
        "cases": f"sha256:{cases.key}",
        **_versions(*packages),
    }
    if nearer is not None:
        inputs[NEARER] = nearer
    return _stage("conversion", {**inputs, **_prefixed(job.sample_digests(spec.range_samples))})


# A key that is not named here makes the stage run: too often is better than not at all.
_NOT_CONVERTING: Mapping[str, Any] = {
    **dict.fromkeys(("onnx", "torch", "sha256", "target", "shapes", "builder", "batching"), True),
    **dict.fromkeys(("instances", "warmup", "cuda_graphs", "version", "config"), True),
    "accuracy": {"plan"},
}


def plan_stage(
    job: Job,
    graph: Mapping[str, str],
    profile_set: ProfileSet,
    builder: EngineOptions,
    release: Release,
) -> Stage:
    """Return the plan of a graph. ``graph`` is the converted model's files by digest."""
    options = {n: getattr(builder, n) for n in builder.given() if n not in _NOT_IN_PLANS}
    inputs: dict[str, Any] = {
        **graph,
        "precision": builder.precision,
        **dict(flat({"builder": options})),
        release.library: ".".join(map(str, release.version)),
        "GPU": job.tools.get("gpu", ""),
        **job.toolchain.identity,
    }
    for plugin in builder.plugins:
        # A plan that was built without it is not this one; the builder says that it is missing.
        inputs[plugin.name] = f"sha256:{sha256(plugin)}" if plugin.is_file() else "missing"
    for kind, profiles in (("profile", profile_set.profiles), ("values", profile_set.values)):
        for number, profile in enumerate(profiles):
            for name, ends in profile.items():
                text = ":".join("x".join(map(str, end)) for end in (ends.min, ends.opt, ends.max))
                inputs[f"{kind} {number} {name}"] = text
    return _stage("plan", inputs)


def accuracy_stage(plan: Stage, cases: Stage) -> Stage:
    """How far the plan's answers to the cases are from those that were recorded."""
    return _stage("accuracy", {"plan": f"sha256:{plan.key}", "cases": f"sha256:{cases.key}"})


# The paths of plugins say nothing of their bytes; timings make a build quick, not different.
_NOT_IN_PLANS = frozenset({"precision", "timing_cache", "plugins"})


def _stage(name: str, inputs: Mapping[str, Any]) -> Stage:
    ours = f"{version('tritonsmith')} ({code_digest(name)[:8]})"
    return Stage(name, {key: str(value) for key, value in inputs.items()} | {"tritonsmith": ours})


def _versions(*packages: str) -> Mapping[str, str]:
    return dict(_installed(packages))


def _installed(packages: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    for package in packages:
        try:
            yield package, version(package)
        except PackageNotFoundError:  # who needs it says so
            yield package, ""


def _batches(profile_set: ProfileSet) -> Mapping[str, str]:
    if profile_set.rows is None:
        return {}
    smallest, largest = profile_set.rows
    return {"batches asked": f"{smallest} to {max(smallest, min(largest, LARGEST_ASKED))}"}


def _prefixed(digests: Mapping[str, str]) -> Mapping[str, str]:
    return {name: f"sha256:{digest}" for name, digest in digests.items()}


def _said(shapes: Mapping[str, tuple[int, ...]], what: str = "") -> Mapping[str, str]:
    return {f"{name}{what}": "x".join(map(str, shape)) for name, shape in shapes.items()}
