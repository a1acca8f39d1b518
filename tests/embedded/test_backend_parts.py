"""The parts of the server's backends that need no server: batches, options, shapes, configs."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tritonsmith_generator.serve.embedded.sandbox import BACKENDS

sys.path.append(str(BACKENDS / "common"))

from tritonsmith_backend.batching import Arrays, Parts, joined, run_requests
from tritonsmith_backend.model_config import TensorConfig, check_shapes, model_filename, read_config
from tritonsmith_backend.onnx_options import providers, session_settings
from tritonsmith_backend.plan_shapes import Region, choose_profile, lay_out

_CPU = "CPUExecutionProvider"
_CUDA = "CUDAExecutionProvider"


class Doubler:
    """y = 2 x, where no x is negative; remembers how many rows it was given each time."""

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, inputs: Parts, outputs: Sequence[str]) -> Arrays:
        x = joined(inputs["x"])
        self.calls.append(len(x))
        if (x < 0).any():
            raise ValueError("negative")
        return {"y": x * 2}


def _requests(*arrays: Any) -> list[Mapping[str, Any]]:
    return [{"x": np.array(a, np.float32)} for a in arrays]


def _answers(results: Sequence[Any]) -> list[Any]:
    return [str(r) if isinstance(r, Exception) else r["y"].tolist() for r in results]


def test_requests_are_joined_and_each_gets_its_rows() -> None:
    run = Doubler()
    requests = _requests([[1], [2]], np.empty((0, 1)), [[3]])
    results = run_requests(requests, [["y"]] * 3, run, batched=True)
    assert _answers(results) == [[[2], [4]], [], [[6]]]
    assert run.calls == [3]


def test_requests_of_other_shapes_are_runs_of_their_own_in_the_order_of_arrival() -> None:
    run = Doubler()
    requests = _requests([[1, 1]], [[2]], [[3, 3]])
    results = run_requests(requests, [["y"]] * 3, run, batched=True)
    assert _answers(results) == [[[2, 2]], [[4]], [[6, 6]]]
    assert run.calls == [2, 1]


def test_one_bad_request_fails_alone() -> None:
    run = Doubler()
    results = run_requests(_requests([[1]], [[-1]], [[3]]), [["y"]] * 3, run, batched=True)
    assert _answers(results) == [[[2]], "negative", [[6]]]
    assert run.calls == [3, 1, 1, 1]


def test_without_batching_every_request_is_a_run() -> None:
    run = Doubler()
    run_requests(_requests([1, 2], [3, 4]), [["y"]] * 2, run, batched=False)
    assert run.calls == [2, 2]


def test_a_model_that_does_not_keep_the_rows_apart_is_run_one_by_one() -> None:
    """Its output for a joined batch could not be split."""

    def total(inputs: Parts, outputs: Sequence[str]) -> Arrays:
        return {"y": joined(inputs["x"]).sum(keepdims=True)}

    results = run_requests(_requests([[1]], [[2]]), [["y"]] * 2, total, batched=True)
    assert _answers(results) == [[[1]], [[2]]]


def test_each_request_gets_the_outputs_that_it_wants() -> None:
    def both(inputs: Parts, outputs: Sequence[str]) -> Arrays:
        x = joined(inputs["x"])
        return {name: x * {"y": 2, "z": 3}[name] for name in outputs}

    results = run_requests(_requests([[1]], [[2]]), [["y"], ["z", "y"]], both, batched=True)
    assert [sorted(result) for result in results if isinstance(result, dict)] == [["y"], ["y", "z"]]


def _args(tmp_path: Path, config: Mapping[str, Any], **changes: str) -> dict[str, str]:
    (tmp_path / "1").mkdir(exist_ok=True)
    (tmp_path / "1" / "model.onnx").touch()
    return {
        "model_name": "m",
        "model_config": json.dumps(config),
        "model_repository": str(tmp_path),
        "model_version": "1",
        "model_instance_name": "m_0_0",
        "model_instance_kind": "CPU",
        "model_instance_device_id": "0",
    } | changes


def test_dims_are_those_of_the_model_with_batch_axis_and_reshape(tmp_path: Path) -> None:
    config = {
        "max_batch_size": 4,
        "input": [
            {"name": "a", "data_type": "TYPE_FP32", "dims": [3, "-1"]},
            {"name": "b", "data_type": "TYPE_FP32", "dims": [1], "reshape": {"shape": []}},
            {"name": "c", "data_type": "TYPE_FP32", "dims": [6], "reshape": {"shape": [2, 3]}},
        ],
    }
    read = read_config(_args(tmp_path, config), "model.onnx")
    assert [t.dims for t in read.inputs] == [(-1, 3, -1), (-1,), (-1, 2, 3)]


def test_the_file_for_the_gpu_comes_first_then_the_named_then_the_default(tmp_path: Path) -> None:
    files = {"cc_model_filenames": {"8.9": "ada.plan"}, "default_model_filename": "own.plan"}
    args = _args(tmp_path, files)
    for name in ("ada.plan", "own.plan"):
        (tmp_path / "1" / name).touch()
    assert read_config(args, "model.plan", "8.9").path.name == "ada.plan"
    assert read_config(args, "model.plan", "9.0").path.name == "own.plan"
    with pytest.raises(FileNotFoundError, match=r"no file .*model\.plan"):
        read_config(_args(tmp_path, {}), "model.plan")


@pytest.mark.parametrize(
    ("by_gpu", "default", "capability", "opened"),
    [
        ({"8.0": "a.plan", "9.0": "h.plan"}, "portable.plan", "8.0", "a.plan"),
        ({"8.0": "a.plan", "9.0": "h.plan"}, "portable.plan", "8.6", "portable.plan"),
        ({"8.0": "a.plan"}, "", "8.6", "model.plan"),
        ({"8": "a.plan", "8.60": "b.plan", "sm_86": "c.plan"}, "d.plan", "8.6", "d.plan"),
        ({"8.6": ""}, "portable.plan", "8.6", "model.plan"),
        ({}, "own.plan", "8.6", "own.plan"),
        ({}, "", "12.0", "model.plan"),
    ],
)
def test_the_file_is_the_one_that_tritons_tensorrt_backend_opens(
    by_gpu: dict[str, str], default: str, capability: str, opened: str
) -> None:
    """As backend_model_instance.cc and tensorrt_backend's instance_state.cc choose it."""
    values = {"cc_model_filenames": by_gpu, "default_model_filename": default}
    assert model_filename(values, "model.plan", capability) == opened


def test_profiles_are_those_of_the_instances_group(tmp_path: Path) -> None:
    groups = [{"name": "m_0", "profile": ["0"]}, {"name": "m_1", "profile": ["1", "2"]}]
    args = _args(tmp_path, {"instance_group": groups}, model_instance_name="m_1_0")
    assert read_config(args, "model.onnx").profiles == (1, 2)


@pytest.mark.parametrize(
    ("shape", "fits"), [((-1, 4), True), ((8, 4), True), ((-1, 5), False), ((4,), False)]
)
def test_a_shape_of_the_model_against_the_configs(shape: tuple[int, ...], fits: bool) -> None:
    tensor = TensorConfig("x", "TYPE_FP32", (-1, 4))
    actual = {"x": ("TYPE_FP32", shape)}
    if fits:
        check_shapes("m", [tensor], actual, "input")
    else:
        with pytest.raises(ValueError, match="has shape"):
            check_shapes("m", [tensor], actual, "input")


def test_parameters_become_session_settings(tmp_path: Path) -> None:
    parameters = {
        "intra_op_thread_count": "3",
        "inter_op_thread_count": "0",
        "execution_mode": "1",
        "enable_mem_arena": "0",
        "enable_mem_pattern": "true",
        "session.dynamic_block_base": "4",
        "memory.enable_memory_arena_shrinkage": "cpu:0",
        "mine": "x",
    }
    config = {
        "optimization": {"graph": {"level": 1}},
        "parameters": {k: {"string_value": v} for k, v in parameters.items()},
    }
    settings = session_settings(read_config(_args(tmp_path, config), "model.onnx"))
    assert settings.graph_optimization_level == "ORT_ENABLE_EXTENDED"
    assert settings.execution_mode == "ORT_PARALLEL"
    assert (settings.intra_op_num_threads, settings.inter_op_num_threads) == (3, None)
    assert (settings.enable_cpu_mem_arena, settings.enable_mem_pattern) == (False, True)
    assert settings.session_entries == {"session.dynamic_block_base": "4"}
    assert settings.run_entries == {"memory.enable_memory_arena_shrinkage": "cpu:0"}


def _providers(tmp_path: Path, available: list[str], required: bool, **more: Any) -> Any:
    args = _args(tmp_path, more, model_instance_kind="GPU", model_instance_device_id="2")
    return providers(read_config(args, "model.onnx"), available, required)


def test_providers_of_a_gpu_instance(tmp_path: Path) -> None:
    tensorrt = {"name": "tensorrt", "parameters": {"precision_mode": "FP16"}}
    accelerators = {"execution_accelerators": {"gpu_execution_accelerator": [tensorrt]}}
    have = ["TensorrtExecutionProvider", _CUDA, _CPU]
    options = {"parameters": {"arena_extend_strategy": {"string_value": "1"}}}
    assert _providers(tmp_path, have, True, optimization=accelerators, **options) == [
        ("TensorrtExecutionProvider", {"trt_fp16_enable": "1", "device_id": 2}),
        (_CUDA, {"arena_extend_strategy": "kSameAsRequested", "device_id": 2}),
        (_CPU, {}),
    ]


def test_kind_auto_on_a_gpu_runs_on_the_cpu_where_onnxruntime_has_no_cuda(tmp_path: Path) -> None:
    assert _providers(tmp_path, [_CPU], required=False) == [(_CPU, {})]
    with pytest.raises(ValueError, match="wants ONNX Runtime's CUDAExecutionProvider"):
        _providers(tmp_path, [_CPU], required=True)


_PROFILES: dict[int, Any] = {
    0: {"x": ((1, 1), (1, 8), (4, 64))},
    1: {"x": ((1, 32), (1, 64), (4, 128))},
}


@pytest.mark.parametrize(
    ("shape", "profile"), [((1, 1), 0), ((4, 64), 1), ((1, 33), 0), ((1, 40), 1), ((2, 128), 1)]
)
def test_the_fitting_profile_with_the_nearest_opt(shape: Any, profile: int) -> None:
    assert choose_profile({"x": shape}, _PROFILES) == profile


def test_no_profile_fits() -> None:
    with pytest.raises(ValueError, match=r"shape 'x' \[1, 129\].*profile 1: 'x' \[1, 32\] to"):
        choose_profile({"x": (1, 129)}, _PROFILES)


def test_tensors_in_one_buffer_are_aligned_and_never_share_an_address() -> None:
    regions, size = lay_out({"a": 300, "b": 0, "c": 4}, first=["c"])
    assert regions == {"c": Region(0, 4), "a": Region(256, 300), "b": Region(768, 0)}
    assert size == 1024


def test_every_tensorrt_name_that_the_backend_uses_exists() -> None:
    """In the installed TensorRT for RTX, whose Python API is TensorRT's own."""
    trt: Any = pytest.importorskip("tensorrt_rtx")
    owners = {"engine": trt.ICudaEngine, "context": trt.IExecutionContext, "trt": trt}
    used: set[tuple[str, str]] = set()
    for file in ("plan_engine.py", "plan_runner.py"):
        tree = ast.parse((BACKENDS / "common/tritonsmith_backend" / file).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute):
                name = getattr(node.value, "id", getattr(node.value, "attr", ""))
                used.add((name.lstrip("_"), node.attr))
    wanted = {(owner, name) for owner, name in used if owner in owners}
    assert len(wanted) > 20
    missing = [(o, n) for o, n in wanted if not n.startswith("__") and not hasattr(owners[o], n)]
    assert missing == []
    for name in ("ERROR", "INTERNAL_ERROR", "INFO", "VERBOSE"):
        assert hasattr(trt.ILogger.Severity, name)
