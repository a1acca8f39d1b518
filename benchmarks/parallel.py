"""What building models side by side is worth: all cores against one model after the other.

    python benchmarks/parallel.py [--rounds 5] [--jobs N]

Each build is a `gen-repo build` of its own with an empty cache. The two take turns; medians are
compared. After them a build with nothing to do, of 100 models, against the bare interpreter.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import onnx

from tritonsmith_generator.engine.installed import tensorrt_releases
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.host.limits import cores

GEN_REPO = [sys.executable, "-m", "tritonsmith_generator"]
# What is built: how many models, of how many layers of which width, and what the spec says of them.
SETS = {
    "20 small models for ONNX Runtime": (20, 2, 16, "target: onnxruntime"),
    "6 conversions to FP16": (6, 6, 1024, "target: onnxruntime, precision: fp16"),
    "6 plans": (6, 6, 1024, "target: {library}, precision: fp16"),
}


def network(path: Path, seed: int, layers: int, width: int) -> None:
    """A perceptron with weights of its own: equal models would share what they build."""
    random = np.random.default_rng(seed)
    nodes, weights, last = [], [], "x"
    for layer in range(layers):
        values = random.standard_normal((width, width)) / width**0.5
        weights.append(onnx.numpy_helper.from_array(values.astype(np.float32), f"w{layer}"))
        nodes += [
            onnx.helper.make_node("MatMul", [last, f"w{layer}"], [f"h{layer}"], f"matmul{layer}"),
            onnx.helper.make_node("Relu", [f"h{layer}"], [f"y{layer}"], f"relu{layer}"),
        ]
        last = f"y{layer}"
    ends = [
        [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["batch", width])]
        for name in ("x", last)
    ]
    graph = onnx.helper.make_graph(nodes, "perceptron", *ends, weights)
    opset = [onnx.helper.make_opsetid("", 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=9), path)


def specify(folder: Path, count: int, layers: int, width: int, said: str) -> None:
    lines = [f"  m{n}: {{onnx: m{n}.onnx, {said}}}" for n in range(count)]
    for number in range(count):
        network(folder / f"m{number}.onnx", number, layers, width)
    (folder / "models.yaml").write_text("\n".join(["models:", *lines]))


def seconds(command: list[str], folder: Path) -> float:
    began = time.perf_counter()
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    took = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(command[2:])}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    return took


def build(folder: Path, jobs: int) -> float:
    for left in ("repository", "cache"):
        shutil.rmtree(folder / left, ignore_errors=True)
    command = [*GEN_REPO, "build", "models.yaml", "-o", "repository", "--jobs", str(jobs)]
    return seconds(command, folder)


def compare(name: str, given: argparse.Namespace, said: str, shape: tuple[int, int, int]) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        specify(folder, *shape, said)
        build(folder, given.jobs)  # fills the file cache
        rounds = [(build(folder, 1), build(folder, given.jobs)) for _ in range(given.rounds)]
    one, many = (statistics.median(times) for times in zip(*rounds, strict=True))
    ratio = statistics.median(a / b for a, b in rounds)
    print(f"{name}: one at a time {one:.2f} s, {given.jobs} at once {many:.2f} s, {ratio:.2f}x")


def nothing_to_do(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        specify(folder, 100, 2, 16, "target: onnxruntime")
        build(folder, cores())
        again = [*GEN_REPO, "build", "models.yaml", "-o", "repository"]
        bare = [sys.executable, "-c", "pass"]
        times = [(seconds(again, folder), seconds(bare, folder)) for _ in range(rounds)]
    ours, python = (statistics.median(each) for each in zip(*times, strict=True))
    print(f"100 unchanged models: {ours:.2f} s, of which the interpreter's start {python:.2f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=cores())
    given = parser.parse_args()
    releases = {release.library: release for release in tensorrt_releases()}
    library = "tensorrt" if "tensorrt" in releases and visible_gpus() else "tensorrt_rtx"
    print(f"{cores()} cores, median of {given.rounds} rounds")
    for name, (count, layers, width, said) in SETS.items():
        if "{library}" in said and library not in releases:
            print(f"{name}: not run, there is no TensorRT")
        else:
            compare(name, given, said.format(library=library), (count, layers, width))
    nothing_to_do(given.rounds)


if __name__ == "__main__":
    main()
