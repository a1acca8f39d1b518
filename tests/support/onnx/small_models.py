"""Small models, written with onnx.helper and hand-written configs, for a real tritonserver."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

Shape = Sequence[int | str]
_OPSET = helper.make_opsetid("", 17)


class Repository:
    """A model repository that a test fills."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.mkdir(parents=True, exist_ok=True)

    def add(self, name: str, model: onnx.ModelProto | None, config: str, version: int = 1) -> Path:
        """Write one version of a model; returns its directory."""
        folder = self.path / name
        (folder / str(version)).mkdir(parents=True)
        (folder / "config.pbtxt").write_text(f'name: "{name}"\n{config}')
        if model is not None:
            onnx.save(model, folder / str(version) / "model.onnx")
        return folder

    def add_identity(self, name: str, config_type: str, onnx_type: int, batch: int = 8) -> Path:
        """``y = x`` for one data type, with one dynamic axis besides the batch."""
        return self.add(
            name,
            graph([("Identity", "x", "y")], [("x", onnx_type, ["N", "D"])], [("y", onnx_type)]),
            f"""
backend: "onnxruntime"
max_batch_size: {batch}
input {{ name: "x" data_type: {config_type} dims: [-1] }}
output {{ name: "y" data_type: {config_type} dims: [-1] }}
instance_group {{ kind: KIND_CPU }}
""",
        )

    def add_add_sub(self, name: str, extra: str = "") -> Path:
        """``sum = a + b`` and ``diff = a - b``, FP32 [N, 4], batches up to 8."""
        return self.add(
            name,
            graph(
                [("Add", "a b", "sum"), ("Sub", "a b", "diff")],
                [("a", TensorProto.FLOAT, ["N", 4]), ("b", TensorProto.FLOAT, ["N", 4])],
                [("sum", TensorProto.FLOAT), ("diff", TensorProto.FLOAT)],
            ),
            ADD_SUB + extra,
        )


ADD_SUB = """
backend: "onnxruntime"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [4] }
input { name: "b" data_type: TYPE_FP32 dims: [4] }
output { name: "sum" data_type: TYPE_FP32 dims: [4] }
output { name: "diff" data_type: TYPE_FP32 dims: [4] }
instance_group { kind: KIND_CPU }
"""


def graph(
    nodes: Sequence[tuple[str, str, str]],
    inputs: Sequence[tuple[str, int, Shape]],
    outputs: Sequence[tuple[str, int]],
) -> onnx.ModelProto:
    """A model from (operator, "inputs", "outputs"), (name, type, shape) and (name, type)."""
    made = helper.make_graph(
        [helper.make_node(op, ins.split(), outs.split()) for op, ins, outs in nodes],
        "test",
        [helper.make_tensor_value_info(*given) for given in inputs],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs],
    )
    return helper.make_model(made, opset_imports=[_OPSET], ir_version=8)


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "model repository")  # with a space, on purpose


@pytest.fixture(scope="module")
def module_repository(tmp_path_factory: pytest.TempPathFactory) -> Repository:
    return Repository(tmp_path_factory.mktemp("models") / "model repository")


@pytest.fixture(scope="session")
def make_graph() -> Callable[..., onnx.ModelProto]:
    return graph


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, str], None]]:
    """``small_disk(folder, "64k")``: a file system of that size there. Only root can have it."""
    if os.getuid() or not shutil.which("mount"):
        pytest.skip("a small file system can only be made by root")
    mounted: list[Path] = []

    def mount(folder: Path, size: str) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        options = ["-t", "tmpfs", "-o", f"size={size},mode=0755", "tmpfs"]
        subprocess.run(["mount", *options, folder], check=True)
        mounted.append(folder)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.fixture
def gen_repo() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """``gen_repo("serve", path)``: the command as a process, killed if the test leaves it."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str | Path) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "tritonsmith_generator", *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ | {"COLUMNS": "200", "NO_COLOR": "1"},
        )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()
