"""Plans in every precision that this TensorRT has, executed on the GPU, against ONNX Runtime."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from support.harness.paths import SIMPLENET
from support.onnx import gpu_models
from support.trt.engine_builds import build_engine
from support.trt.plan_runner import PlanRunner

from tritonsmith_generator.accuracy.gate import gate, limits_for
from tritonsmith_generator.engine.installed import tensorrt_releases
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.onnx_model.profiles import Profile, ShapeRange
from tritonsmith_generator.passes import Options, Samples, for_precision, run
from tritonsmith_generator.spec.builder_options import Precision
from tritonsmith_generator.trt.layers import prove_precision
from tritonsmith_generator.trt.request import EngineOptions, EngineReport, EngineRequest

Figure = Callable[..., None]
Inputs = dict[str, "np.ndarray[Any, Any]"]


def profile(**shapes: tuple[tuple[int, ...], ...]) -> Profile:
    return {name: ShapeRange(*ends) for name, ends in shapes.items()}


def images(batch: int) -> Inputs:
    return {"x": np.random.default_rng(batch).standard_normal((batch, 3, 224, 224), np.float32)}


def digits(batch: int) -> Inputs:
    return {"input": np.random.default_rng(batch).random((batch, 784), np.float32)}


def sentences(batch: int, length: int = 64) -> Inputs:
    ids = np.random.default_rng(batch).integers(0, 1000, (batch, length))
    return {"ids": ids.astype(np.int32)}


Model = tuple[Callable[[Path], Path], Callable[[int], Inputs], Profile]
MODELS: dict[str, Model] = {
    "simplenet": (
        lambda _: SIMPLENET,
        digits,
        profile(input=((1, 784), (8, 784), (64, 784))),
    ),
    "resnet50": (
        gpu_models.resnet50,
        images,
        profile(x=((1, 3, 224, 224), (8, 3, 224, 224), (32, 3, 224, 224))),
    ),
    "encoder": (
        gpu_models.encoder,
        sentences,
        profile(ids=((1, 8), (8, 64), (32, 128))),
    ),
}


def release() -> Any:
    return tensorrt_releases()[0]


def on_this_machine(options: EngineOptions) -> EngineOptions:
    """TensorRT 8.6 is tested without cuBLAS and cuDNN, which its other tactics would call."""
    if release().version >= (10,):
        return options
    return replace(options, tactic_sources=("edge_mask_convolutions", "jit_convolutions"))


def build(onnx: Path, plan: Path, *profiles: Profile, options: EngineOptions) -> EngineReport:
    return build_engine(EngineRequest("tensorrt", onnx, plan, profiles, on_this_machine(options)))


def reference(onnx: Path, inputs: Inputs) -> dict[str, Any]:
    session = ort.InferenceSession(str(onnx), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, inputs), strict=True))


@pytest.fixture(scope="module", params=MODELS)
def model(request: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Any, Profile]:
    make, inputs, shapes = MODELS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return request.param, make(folder / f"{request.param}.onnx"), inputs, shapes


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8"])
def test_precision(model: Any, precision: Precision, tmp_path: Path, figure: Figure) -> None:
    name, onnx, inputs, shapes = model
    if precision == "bf16" and not release().strongly_typed:
        pytest.skip(f"{release()} has no BF16")
    np.savez(tmp_path / "samples.npz", **inputs(16))
    samples = Samples(str(tmp_path / "samples.npz"))
    version = ".".join(map(str, release().version))
    recipe = for_precision(precision, "tensorrt", version, Options(samples=samples))
    passes = tmp_path / "passes"
    passes.mkdir()
    converted = run(recipe.passes, onnx, passes).model
    report = build(
        converted, tmp_path / "model.plan", shapes, options=EngineOptions(precision=precision)
    )
    layers = report.engine_layers
    assert layers is not None and layers.kinds
    if name == "resnet50":  # TensorRT may find a small network quicker in another precision
        prove_precision(layers, precision)

    runner = PlanRunner("tensorrt", tmp_path / "model.plan")
    batches = [inputs(size) for size in (1, 8, 32)]
    found = [runner(batch) for batch in batches]
    wanted = [reference(onnx, batch) for batch in batches]
    result = gate(wanted, found, limits_for(precision), precision)
    metrics = next(iter(result.outputs.values()))
    figure(
        model=name,
        precision=precision,
        relative_l2=metrics.relative_l2,
        top1=metrics.top1,
        plan_mb=report.plan_bytes / 1e6,
        build_s=report.seconds,
        batch1_ms=1e3 * runner.seconds(batches[0]),
        batch8_ms=1e3 * runner.seconds(batches[1]),
        batch32_ms=1e3 * runner.seconds(batches[2]),
        layers=dict(layers.precisions),
    )
    result.raise_if_failed()
    assert report.compute_capability == visible_gpus()[0].compute_capability


def test_two_profiles(tmp_path: Path, figure: Figure) -> None:
    onnx = gpu_models.encoder(tmp_path / "encoder.onnx")
    short = profile(ids=((1, 1), (8, 16), (32, 32)))
    long = profile(ids=((1, 33), (1, 256), (4, 512)))
    build(onnx, tmp_path / "model.plan", short, long, options=EngineOptions())
    runner = PlanRunner("tensorrt", tmp_path / "model.plan")
    for number, inputs in ((0, sentences(32, 32)), (1, sentences(4, 512)), (0, sentences(1, 1))):
        found, wanted = runner(inputs, number)["y"], reference(onnx, inputs)["y"]
        np.testing.assert_allclose(found, wanted, atol=1e-3)
        figure(
            profile=number, shape=list(inputs["ids"].shape), ms=1e3 * runner.seconds(inputs, number)
        )


def test_timing_cache(tmp_path: Path, figure: Figure) -> None:
    onnx, shapes = gpu_models.resnet50(tmp_path / "resnet50.onnx"), MODELS["resnet50"][2]
    cache = tmp_path / "gpu.timing"
    options = EngineOptions(precision="fp16", timing_cache=cache)
    first = build(onnx, tmp_path / "first.plan", shapes, options=options)
    size = cache.stat().st_size
    second = build(onnx, tmp_path / "second.plan", shapes, options=options)
    assert size > 1000
    assert cache.stat().st_size == size  # nothing had to be timed again
    figure(
        timing_cache_kb=size / 1e3,
        first_build_s=first.seconds,
        second_build_s=second.seconds,
        ratio=second.seconds / first.seconds,
    )


def test_integers_become_what_the_engine_has(tmp_path: Path) -> None:
    from support.onnx import engine_models

    onnx = engine_models.encoder(tmp_path / "m.onnx")
    both = ShapeRange((1, 1), (4, 16), (8, 64))
    report = build(onnx, tmp_path / "m.plan", {"ids": both, "mask": both}, options=EngineOptions())
    ids = "INT64" if release().strongly_typed else "INT32"
    assert str(report.signature.input("ids")) == f"ids: {ids}[batch, seq]"
