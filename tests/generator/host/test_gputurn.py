"""Engine builds on GPUs: one at a time on each, spread over those of a kind.

The driver is a stand-in that knows two GPUs of a kind and another one; the builds are TensorRT for
RTX's, which need none.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.harness.needs import needs_rtx
from support.onnx import bad_models as models
from support.trt.stand_in_driver import THREE_GPUS, compile_library

GPUS = [
    "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f",
    "GPU-10111213-1415-1617-1819-1a1b1c1d1e1f",
]
HOLD = """
import sys
from tritonsmith_generator.host.gpu_lock import gpu_turn
with gpu_turn(lambda: print("waiting", flush=True)) as waited:
    print("mine", waited > 0, flush=True)
    sys.stdin.readline()
"""

BUILD = """
from pathlib import Path
from tritonsmith_generator import build, load_spec
results = build(load_spec(Path("models.yaml")), Path(), Path("repository"), jobs=2)
print([result.status for result in results])
for result in results:
    print(*result.warnings, end="")
"""

ABSENT = (
    "instances.gpus names GPU 7, and this machine has 0, 1, 2: the machine that serves the model "
    "has to have it"
)


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Of processes that see three GPUs, and have a cache of their own."""
    compile_library(tmp_path, "libcuda.so.1", THREE_GPUS)
    cache = tmp_path.with_name(tmp_path.name + "-cache")
    kept = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    return {**kept, "LD_LIBRARY_PATH": str(tmp_path), "XDG_CACHE_HOME": str(cache)}


def hold(environment: dict[str, str]) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", HOLD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
    )


def line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("killed", [False, True])
def test_builds_on_one_gpu_take_turns(environment: dict[str, str], killed: bool) -> None:
    with (
        hold(environment) as first,
        hold({**environment, "CUDA_VISIBLE_DEVICES": GPUS[1]}) as other,
    ):
        assert line(first) == "mine False"
        assert line(other) == "mine False"  # on the other GPU
        with hold(environment) as second:
            assert line(second) == "waiting"
            first.kill() if killed else first.communicate("\n")
            assert line(second) == "mine True"
            second.communicate("\n")
        other.communicate("\n")


@needs_rtx
def test_plans_are_built_on_both_gpus_of_a_kind(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    """Instances run on the GPUs that they name, whichever the plan was built on."""
    models.saved(models.good())(tmp_path)
    (tmp_path / "models.yaml").write_text(
        "defaults: {target: tensorrt_rtx}\n"
        "models: {a: {onnx: model.onnx, batching: {max: 2}}, "
        "b: {onnx: model.onnx, instances: {gpus: [2, 7]}}}\n"
    )

    def build(script: str) -> str:
        command = [sys.executable, "-c", script]
        done = subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert build(BUILD).splitlines() == ["['built', 'built']", ABSENT]
    turns = Path(environment["XDG_CACHE_HOME"], "tritonsmith/gpus").iterdir()
    assert sorted(path.stem for path in turns) == GPUS
    lock = json.loads((tmp_path / "repository/repository.lock.json").read_text())
    assert [lock["models"][name]["tools"]["gpu"] for name in ("a", "b")] == ["8.9", "8.9"]
    # The process that looks sees all GPUs, those that built saw one each: no need for another.
    refuse = "import subprocess\nsubprocess.Popen = None\n"
    assert build(refuse + BUILD) == "['unchanged', 'unchanged']"
