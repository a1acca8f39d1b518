"""Session options and execution providers from a model's config, as Triton's ONNX Runtime backend.

Its README names the parameters. Here they become plain values; ``onnx_model`` applies them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tritonsmith_backend.model_config import ModelConfig, boolean, integer

__all__ = ["SessionSettings", "providers", "session_settings"]

# optimization.graph.level in the config, to GraphOptimizationLevel in ONNX Runtime
_LEVELS = {-1: "ORT_ENABLE_BASIC", 1: "ORT_ENABLE_EXTENDED", 2: "ORT_DISABLE_ALL"}
_MODES = {"0": "ORT_SEQUENTIAL", "1": "ORT_PARALLEL"}
# The older way to set options of the CUDA provider: as parameters of the model.
_CUDA_PARAMETERS = (
    "cudnn_conv_algo_search",
    "gpu_mem_limit",
    "arena_extend_strategy",
    "do_copy_in_default_stream",
)
_CUDA_NUMBERS = {
    "cudnn_conv_algo_search": ("EXHAUSTIVE", "HEURISTIC", "DEFAULT"),
    "arena_extend_strategy": ("kNextPowerOfTwo", "kSameAsRequested"),
}
_TENSORRT_PRECISIONS = {
    "FP32": {},
    "FP16": {"trt_fp16_enable": "1"},
    "BF16": {"trt_bf16_enable": "1"},
    "INT8": {"trt_int8_enable": "1"},
}
_TENSORRT_NAMES = {
    "max_workspace_size_bytes": "trt_max_workspace_size",
    "int8_calibration_table_name": "trt_int8_calibration_table_name",
    "int8_use_native_calibration_table": "trt_int8_use_native_calibration_table",
}


@dataclass(frozen=True)
class SessionSettings:
    """Values for ``SessionOptions``; None keeps ONNX Runtime's default. Names are its own."""

    graph_optimization_level: str = "ORT_ENABLE_ALL"
    execution_mode: str = "ORT_SEQUENTIAL"
    intra_op_num_threads: int | None = None
    inter_op_num_threads: int | None = None
    enable_cpu_mem_arena: bool | None = None
    enable_mem_pattern: bool | None = None
    session_entries: Mapping[str, str] = field(default_factory=dict)
    run_entries: Mapping[str, str] = field(default_factory=dict)


def session_settings(config: ModelConfig) -> SessionSettings:
    """Read the config's parameters. Raises ValueError for a value that is not allowed."""
    parameters = config.parameters
    mode = parameters.get("execution_mode", "0")
    if mode not in _MODES:
        raise ValueError(f"parameter 'execution_mode' is '{mode}'; allowed are 0 and 1")
    graph = config.values.get("optimization", {}).get("graph", {})
    return SessionSettings(
        _LEVELS.get(int(graph.get("level", 0)), "ORT_ENABLE_ALL"),
        _MODES[mode],
        _threads(parameters, "intra_op_thread_count"),
        _threads(parameters, "inter_op_thread_count"),
        _switch(parameters, "enable_mem_arena"),
        _switch(parameters, "enable_mem_pattern"),
        {k: v for k, v in parameters.items() if k.startswith("session.")},
        {k: v for k, v in parameters.items() if k.startswith("memory.")},
    )


def _threads(parameters: Mapping[str, str], key: str) -> int | None:
    count = integer(key, parameters.get(key, "0"))
    return count if count > 0 else None


def _switch(parameters: Mapping[str, str], key: str) -> bool | None:
    return boolean(key, parameters[key]) if key in parameters else None


def providers(
    config: ModelConfig, available: Sequence[str], gpu_required: bool
) -> list[tuple[str, dict[str, Any]]]:
    """Return execution providers, the preferred one first, each with its options.

    ``gpu_required`` tells KIND_GPU in the config from KIND_AUTO, which may be served on the
    CPU where ONNX Runtime has no CUDA. Raises ValueError for a provider that is not there.
    """
    accelerators = config.values.get("optimization", {}).get("execution_accelerators", {})
    gpu = list(accelerators.get("gpu_execution_accelerator", ()))
    cpu = list(accelerators.get("cpu_execution_accelerator", ()))
    wanted: list[tuple[str, dict[str, Any]]] = []
    if config.on_gpu and (gpu_required or gpu or "CUDAExecutionProvider" in available):
        cuda = _legacy_cuda(config.parameters)
        for entry in gpu:
            name, options = entry["name"].lower(), dict(entry.get("parameters", {}))
            if name == "tensorrt":
                tensorrt = _tensorrt(options) | {"device_id": config.device}
                wanted.append(("TensorrtExecutionProvider", tensorrt))
            elif name == "cuda":
                cuda |= options
            else:
                raise ValueError(f"unknown GPU accelerator '{name}'; known: tensorrt, cuda")
        wanted.append(("CUDAExecutionProvider", cuda | {"device_id": config.device}))
    if not config.on_gpu:
        for entry in cpu:
            if entry["name"].lower() != "openvino":
                raise ValueError(f"unknown CPU accelerator '{entry['name']}'; known: openvino")
            wanted.append(("OpenVINOExecutionProvider", dict(entry.get("parameters", {}))))
    for name, _ in wanted:
        if name not in available:
            raise ValueError(
                f"model '{config.name}' wants ONNX Runtime's {name}, and the server's onnxruntime "
                f"has: {', '.join(available)}. Use KIND_CPU, or an environment with onnxruntime-gpu"
            )
    return [*wanted, ("CPUExecutionProvider", {})]


def _legacy_cuda(parameters: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {k: parameters[k] for k in _CUDA_PARAMETERS if k in parameters}
    for key, names in _CUDA_NUMBERS.items():
        if re.fullmatch(r"\d", str(found.get(key, ""))):
            found[key] = names[min(int(found[key]), len(names) - 1)]
    return found


def _tensorrt(options: Mapping[str, str]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in options.items():
        if key == "precision_mode":
            if value not in _TENSORRT_PRECISIONS:
                known = ", ".join(_TENSORRT_PRECISIONS)
                raise ValueError(f"unsupported precision_mode '{value}'; known: {known}")
            found |= _TENSORRT_PRECISIONS[value]
        else:
            found[_TENSORRT_NAMES.get(key, key)] = value
    return found
