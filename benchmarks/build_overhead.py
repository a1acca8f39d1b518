"""What our engine build costs on top of TensorRT itself: against its raw API, and Polygraphy.

    python benchmarks/build_overhead.py [MODEL.onnx] [--rounds 5] [--library tensorrt_rtx]
        [--shapes x=1x3x224x224:8x3x224x224:32x3x224x224]

Each build is a program of its own, from the start of its interpreter to the plan on the disk, with
the same options (TF32 off, detailed profiling). They take turns; medians are compared. Polygraphy
is measured where it is installed. With a GPU, gen-repo also runs the plan on the cases and compares
its answers, which no other does. CPU seconds are those of a program and all that it started; the
parts are those that the programs know of, and how long after its start TensorRT began to load.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import onnx

from tritonsmith_generator.engine.installed import tensorrt_releases
from tritonsmith_generator.host.gpus import visible_gpus

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"

RAW = """
import importlib, json, sys, time
laps = {}
def lap(part, began=[time.perf_counter()]):
    now = time.perf_counter()
    laps[part], began[0] = now - began[0], now
onnx, plan, library, shapes = sys.argv[1:5]
trt = importlib.import_module(library)
lap("import")
logger = trt.Logger(trt.Logger.WARNING)
builder = trt.Builder(logger)
lap("builder")
flags = trt.NetworkDefinitionCreationFlag
kind = flags.STRONGLY_TYPED if hasattr(flags, "STRONGLY_TYPED") else flags.EXPLICIT_BATCH
network = builder.create_network(1 << int(kind))
parser = trt.OnnxParser(network, logger)
assert parser.parse_from_file(onnx)
lap("parse")
config = builder.create_builder_config()
config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED
config.clear_flag(trt.BuilderFlag.TF32)
if shapes:
    profile = builder.create_optimization_profile()
    name, ends = shapes.split("=")
    profile.set_shape(name, *([int(n) for n in end.split("x")] for end in ends.split(":")))
    config.add_optimization_profile(profile)
serialized = builder.build_serialized_network(network, config)
lap("build")
with open(plan, "wb") as file:
    file.write(memoryview(serialized))
lap("write")
print(json.dumps(laps))
"""

OURS = """
import json, sys
from pathlib import Path
from tritonsmith_generator.trt.request import EngineRequest
from tritonsmith_generator.engine.toolchain import LOCAL
from tritonsmith_generator.onnx_model.profiles import ShapeRange
onnx, plan, library, shapes = sys.argv[1:5]
profiles = ()
if shapes:
    name, ends = shapes.split("=")
    ends = (tuple(int(n) for n in end.split("x")) for end in ends.split(":"))
    profiles = ({name: ShapeRange(*ends)},)
with LOCAL.process(library) as process:
    report = process.build(
        EngineRequest(library, Path(onnx), Path(plan), profiles), lambda progress: None
    )
print(json.dumps(dict(report.parts)))
"""


# Loaded by every interpreter that a program starts: when TensorRT began to load in one of them.
NOTE = """
import importlib, os, time
def import_module(name, package=None, real=importlib.import_module):
    if name == os.environ["NOTED_LIBRARY"]:
        with open(os.environ["NOTED_IN"], "a") as file:
            print(time.time(), file=file)
    return real(name, package)
importlib.import_module = import_module
"""


def commands(onnx: Path, folder: Path, library: str, shapes: str) -> dict[str, list[str]]:
    """What is measured, by name; each writes its own plan."""
    python, model = sys.executable, str(onnx)

    def script(text: str, name: str) -> list[str]:
        return [python, "-c", text, model, str(folder / f"{name}.plan"), library, shapes]

    found = {"raw API": script(RAW, "raw"), "our process": script(OURS, "ours")}
    shape = ["--shape", shapes] if shapes else []
    repository = ["--output", str(folder / "repository"), "--target", library, *shape]
    module = [python, "-m", "tritonsmith_generator"]
    found["gen-repo build"] = [*module, "build", model, "--json", *repository]
    if importlib.util.find_spec("polygraphy") is not None:
        options = ["--convert-to", "trt", "-o", str(folder / "polygraphy.plan")]
        options += ["--profiling-verbosity", "detailed"]
        if shapes:
            input_name, _, ends = shapes.partition("=")
            for end, text in zip(("min", "opt", "max"), ends.split(":"), strict=True):
                options += [f"--trt-{end}-shapes", f"{input_name}:[{text.replace('x', ',')}]"]
        start = "from polygraphy.tools import main; main()"
        found["polygraphy convert"] = [python, "-c", start, "convert", model, *options]
    return found


@dataclass(frozen=True)
class Run:
    """One run: wall and CPU seconds, and wall seconds of its parts."""

    wall: float
    cpu: float
    parts: Mapping[str, float]


def measured(command: list[str], folder: Path, environment: Mapping[str, str]) -> Run:
    for left in ("repository", "cache"):  # gen-repo would find that there is nothing to do
        shutil.rmtree(folder / left, ignore_errors=True)
    settings = {**os.environ, **environment, "XDG_CACHE_HOME": str(folder / "cache")}
    noted = folder / "noted"
    noted.unlink(missing_ok=True)
    before, began, started = _cpu_of_children(), time.perf_counter(), time.time()
    done = subprocess.run(command, capture_output=True, text=True, env=settings)
    wall, cpu = time.perf_counter() - began, _cpu_of_children() - before
    if done.returncode:
        sys.exit(f"{' '.join(command[:4])} ...\n{done.stdout[-1000:]}\n{done.stderr[-3000:]}")
    loads = [float(line) - started for line in noted.read_text().split()] if noted.exists() else []
    parts = {"start until TensorRT loads": min(loads)} if loads else {}
    for said in (done.stdout, done.stdout.strip().rpartition("\n")[2]):  # TensorRT's log is above
        try:
            return Run(wall, cpu, {**parts, **_parts(json.loads(said), wall)})
        except ValueError:
            pass
    return Run(wall, cpu, parts)  # Polygraphy prints what it likes


def _noting(folder: Path, library: str) -> dict[str, str]:
    """The variables that have every interpreter note when it loads TensorRT."""
    (folder / "site").mkdir()
    (folder / "site" / "sitecustomize.py").write_text(NOTE)
    places = [str(folder / "site"), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {
        "PYTHONPATH": os.pathsep.join(places),
        "NOTED_LIBRARY": library,
        "NOTED_IN": str(folder / "noted"),
    }


def _cpu_of_children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _parts(said: Any, wall: float) -> Mapping[str, float]:
    if isinstance(said, dict):
        return said
    (model,) = said  # what gen-repo says of its only model
    stages = {stage["stage"]: stage for stage in model["stages"]}
    plan, run = stages["plan"], stages.get("accuracy", {"seconds": 0.0})  # not without a GPU
    return {
        "start and end": wall - model["seconds"],
        "read, check, publish": model["seconds"] - plan["seconds"] - run["seconds"],
        "stage plan": plan["seconds"],
        **{f"of it {part}": took for part, took in plan["parts"].items()},
        "stage accuracy": run["seconds"],
        "beside it cases": stages["cases"]["seconds"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("model", nargs="?", type=Path, default=LIGHT / "light_resnet50.onnx")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--library", default="tensorrt" if visible_gpus() else "tensorrt_rtx")
    parser.add_argument("--shapes", default="", help="of the one dynamic input, if there is one")
    given = parser.parse_args()
    rtx = {"POLYGRAPHY_USE_TENSORRT_RTX": "1"} if given.library == "tensorrt_rtx" else {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        settings = {**rtx, **_noting(folder, given.library)}
        runs = commands(given.model, folder, given.library, given.shapes)
        for command in runs.values():  # fills the file cache and compiles
            measured(command, folder, settings)
        rounds = [
            [measured(command, folder, settings) for command in runs.values()]
            for _ in range(given.rounds)
        ]
        sizes = {plan.stem: plan.stat().st_size for plan in folder.glob("*.plan")}
    release = {r.library: str(r) for r in tensorrt_releases()}[given.library]
    print(f"{given.model.name}, {release}, median of {given.rounds}; plans: {sizes}")
    by_name = dict(zip(runs, zip(*rounds, strict=True), strict=True))
    raw = median(run.wall for run in by_name["raw API"])
    raw_cpu = median(run.cpu for run in by_name["raw API"])
    for what, found in by_name.items():
        wall, cpu = median(run.wall for run in found), median(run.cpu for run in found)
        print(
            f"{what}: {wall:.2f} s, ratio to the raw API {wall / raw:.3f} ({wall - raw:+.2f} s); "
            f"CPU {cpu:.2f} s, ratio {cpu / raw_cpu:.3f} ({cpu - raw_cpu:+.2f} s)"
        )
        parts = {p: median(run.parts.get(p, 0.0) for run in found) for p in found[0].parts}
        if parts:
            print("    " + ", ".join(f"{part} {took:.2f}" for part, took in parts.items()))
    if "polygraphy convert" not in runs:
        print("polygraphy convert: not run, Polygraphy is not installed")


if __name__ == "__main__":
    main()
