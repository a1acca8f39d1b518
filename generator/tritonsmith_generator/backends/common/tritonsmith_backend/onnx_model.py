"""An ONNX model in ONNX Runtime, for Triton."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from tritonsmith_backend.batching import Arrays, Parts, joined
from tritonsmith_backend.model_config import ModelConfig, check_shapes, read_config
from tritonsmith_backend.onnx_options import SessionSettings, providers, session_settings

__all__ = ["OnnxModel"]

_DTYPES = {
    "tensor(bool)": "TYPE_BOOL",
    "tensor(uint8)": "TYPE_UINT8",
    "tensor(uint16)": "TYPE_UINT16",
    "tensor(uint32)": "TYPE_UINT32",
    "tensor(uint64)": "TYPE_UINT64",
    "tensor(int8)": "TYPE_INT8",
    "tensor(int16)": "TYPE_INT16",
    "tensor(int32)": "TYPE_INT32",
    "tensor(int64)": "TYPE_INT64",
    "tensor(float16)": "TYPE_FP16",
    "tensor(float)": "TYPE_FP32",
    "tensor(double)": "TYPE_FP64",
    "tensor(string)": "TYPE_STRING",
    "tensor(bfloat16)": "TYPE_BF16",
}
_BFLOAT16 = 16  # TensorProto.BFLOAT16


class OnnxModel:
    """A session, and what the config says of it. Raises where the two don't fit."""

    def __init__(self, args: Mapping[str, str]) -> None:
        self.config = read_config(args, "model.onnx")
        settings = session_settings(self.config)
        repository = Path(args["model_repository"])
        gpu_required = "KIND_GPU" in _without_comments(repository / "config.pbtxt")
        chosen = providers(self.config, ort.get_available_providers(), gpu_required)
        self.notice = (
            f"model '{self.config.name}': the server's onnxruntime has no CUDA; it runs on the CPU"
            if self.config.on_gpu and len(chosen) == 1
            else None
        )
        self._session = ort.InferenceSession(
            str(self.config.path),
            _options(settings),
            providers=[name for name, _ in chosen],
            provider_options=[options for _, options in chosen],
        )
        self._session.disable_fallback()
        self._run_options = ort.RunOptions()
        for key, value in settings.run_entries.items():
            self._run_options.add_run_config_entry(key, value)
        self._check(self.config)
        tensors = (*self.config.inputs, *self.config.outputs)
        self._bfloat16 = {t.name for t in tensors if t.dtype == "TYPE_BF16"}
        self._strings = {t.name for t in tensors if t.dtype == "TYPE_STRING"}

    def run(self, inputs: Parts, outputs: Sequence[str]) -> Arrays:
        """Return the named outputs; BF16 in and out as uint16, strings as ``bytes``."""
        feed = {name: joined(parts) for name, parts in inputs.items()}
        feed |= {name: _text(name, feed[name]) for name in self._strings & feed.keys()}
        names = list(outputs)
        try:
            if self._bfloat16:
                found = self._run_values(feed, names)
            else:
                found = self._session.run(names, feed, self._run_options)
        except UnicodeDecodeError as exc:
            raise ValueError(f"an output string is not UTF-8: {exc}") from exc
        return dict(zip(names, found, strict=True))

    def _run_values(self, feed: Arrays, names: Sequence[str]) -> list[np.ndarray[Any, Any]]:
        """Through OrtValue, which knows the types that numpy has not."""
        values = {n: _value(a, n in self._bfloat16) for n, a in feed.items()}
        found = self._session.run_with_ort_values(names, values, self._run_options)
        return [
            _bits(value) if name in self._bfloat16 else value.numpy()
            for name, value in zip(names, found, strict=True)
        ]

    def _check(self, config: ModelConfig) -> None:
        inputs = _tensors(self._session.get_inputs())
        settable = _tensors(self._session.get_overridable_initializers())
        check_shapes(config.name, config.inputs, inputs | settable, "input")
        check_shapes(config.name, config.outputs, _tensors(self._session.get_outputs()), "output")
        missing = sorted(inputs.keys() - {tensor.name for tensor in config.inputs})
        if missing:
            raise ValueError(
                f"model '{config.name}': the config does not name the input(s) "
                f"{', '.join(missing)}, which the model file needs"
            )


def _options(settings: SessionSettings) -> Any:
    options = ort.SessionOptions()
    levels, modes = ort.GraphOptimizationLevel, ort.ExecutionMode
    options.graph_optimization_level = getattr(levels, settings.graph_optimization_level)
    options.execution_mode = getattr(modes, settings.execution_mode)
    names = ("intra_op_num_threads", "inter_op_num_threads")
    for name in (*names, "enable_cpu_mem_arena", "enable_mem_pattern"):
        if getattr(settings, name) is not None:
            setattr(options, name, getattr(settings, name))
    for key, value in settings.session_entries.items():
        options.add_session_config_entry(key, value)
    return options


def _tensors(nodes: Sequence[Any]) -> dict[str, tuple[str, list[int]]]:
    return {
        node.name: (
            _DTYPES.get(node.type, node.type),
            [d if isinstance(d, int) else -1 for d in node.shape],
        )
        for node in nodes
    }


def _text(name: str, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """ONNX Runtime takes str only; bytes would become their repr."""
    flat = np.empty(array.size, dtype=object)
    try:
        flat[:] = [item.decode() for item in array.reshape(-1)]
    except UnicodeDecodeError as exc:
        raise ValueError(f"input '{name}': ONNX Runtime takes UTF-8 strings only: {exc}") from exc
    return np.reshape(flat, array.shape)


def _value(array: np.ndarray[Any, Any], bfloat16: bool) -> Any:
    array = np.ascontiguousarray(array).reshape(array.shape)
    if bfloat16:
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(array, _BFLOAT16)
    return ort.OrtValue.ortvalue_from_numpy(array)


def _bits(value: Any) -> np.ndarray[Any, Any]:
    """Return a copy of a bfloat16 value on the CPU."""
    data = ctypes.string_at(value.data_ptr(), value.tensor_size_in_bytes())
    return np.reshape(np.frombuffer(data, np.uint16), value.shape())


def _without_comments(path: Path) -> str:
    return re.sub(r"#.*", "", path.read_text()) if path.is_file() else ""
