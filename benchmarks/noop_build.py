"""What `gen-repo build` takes when there is nothing to do, for 100 models.

    python benchmarks/noop_build.py [--models 100] [--rounds 11]

Half of the models are served by ONNX Runtime, half are plans of TensorRT for RTX where that is
installed. The build takes turns with `gen-repo --help` (the command line alone) and with an empty
Python program; medians of wall time and of CPU time are compared. The repository is built first,
which takes a few minutes.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

SOURCE = Path(__file__).parents[1] / "model_repository" / "simplenet.onnx"
GEN_REPO = [sys.executable, "-m", "tritonsmith_generator"]


def write_spec(folder: Path, models: int) -> Path:
    """One source file for each model, as 100 models would have them."""
    lines = ["models:"]
    rtx = importlib.util.find_spec("tensorrt_rtx") is not None
    for number in range(models):
        shutil.copy(SOURCE, folder / f"m{number}.onnx")
        target = "tensorrt_rtx" if rtx and number % 2 else "onnxruntime"
        lines.append(f"  m{number}: {{onnx: m{number}.onnx, target: {target}}}")
    spec = folder / "models.yaml"
    spec.write_text("\n".join(lines) + "\n")
    return spec


def run(command: list[str], folder: Path) -> tuple[float, float, str]:
    """Wall time and CPU time in seconds, and what it printed."""
    before, began = os.times(), time.perf_counter()
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    took, after = time.perf_counter() - began, os.times()
    if done.returncode:
        sys.exit(done.stdout + done.stderr)
    cpu = after.children_user + after.children_system
    return took, cpu - before.children_user - before.children_system, done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--models", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=11)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        spec = write_spec(folder, given.models)
        build = [*GEN_REPO, "build", str(spec), "--output", str(folder / "repository")]
        took, _, _ = run(build, folder)
        print(f"{given.models} models built in {took:.0f} s")
        commands = {
            "build with nothing to do": build,
            "gen-repo --help": [*GEN_REPO, "--help"],
            "an empty program": [sys.executable, "-c", ""],
        }
        told = run([*build, "--json"], folder)[2]
        if told.count('"status": "unchanged"') != given.models:
            sys.exit("something was built again:\n" + told)
        rounds = [
            [run(command, folder)[:2] for command in commands.values()] for _ in range(given.rounds)
        ]
    for index, what in enumerate(commands):
        wall, cpu = (statistics.median(r[index][kind] for r in rounds) for kind in (0, 1))
        print(f"{what}: {wall:.3f} s, CPU time {cpu:.3f} s")
    beyond = statistics.median(r[0][0] - r[2][0] for r in rounds)
    print(f"beyond the start of an interpreter: {beyond:.3f} s, median of {given.rounds}")


if __name__ == "__main__":
    main()
