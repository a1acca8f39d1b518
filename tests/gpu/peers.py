"""ResNet-50's time in PyTorch and ONNX Runtime on this GPU, to compare plans with.

    python3 tests/gpu/peers.py resnet50.onnx > peers.json

Runs in any Python that has torch (for PyTorch) and onnxruntime with CUDA (for the other); what is
missing is said, not guessed. Prints JSON rows: peer, precision, batch, median milliseconds.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

BATCHES = (1, 8, 32)


def median_ms(step: Callable[[], Any], finish: Callable[[], Any], repeats: int = 50) -> float:
    for _ in range(10):
        step()
    finish()
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        step()
        finish()
        times.append(time.perf_counter() - began)
    return 1e3 * statistics.median(times)


def torch_rows() -> Iterator[dict[str, Any]]:
    import torch
    from torch import nn

    class Block(nn.Module):  # type: ignore[misc]  # torch is not typed everywhere
        def __init__(self, ins: int, width: int, stride: int) -> None:
            super().__init__()
            outs = 4 * width
            self.body = nn.Sequential(
                nn.Conv2d(ins, width, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, width, 3, stride, 1),
                nn.ReLU(inplace=True),
                nn.Conv2d(width, outs, 1),
            )
            self.side = nn.Identity() if ins == outs else nn.Conv2d(ins, outs, 1, stride)

        def forward(self, x: Any) -> Any:
            return torch.relu(self.body(x) + self.side(x))

    layers: list[nn.Module] = [nn.Conv2d(3, 64, 7, 2, 3), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    channels = 64
    for stage, (width, count) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3))):
        for number in range(count):
            layers.append(Block(channels, width, 2 if stage and not number else 1))
            channels = 4 * width
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2048, 1000)]
    model = nn.Sequential(*layers).eval().cuda()
    torch.backends.cudnn.benchmark = True
    for precision, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        model = model.to(dtype)
        for batch in BATCHES:
            x = torch.randn(batch, 3, 224, 224, device="cuda", dtype=dtype)
            with torch.inference_mode():
                ms = median_ms(partial(model, x), torch.cuda.synchronize)
            yield {
                "peer": f"PyTorch {torch.__version__} eager",
                "precision": precision,
                "batch": batch,
                "ms": ms,
            }


def onnxruntime_rows(path: str) -> Iterator[dict[str, Any]]:
    import numpy as np
    import onnxruntime as ort

    if "CUDAExecutionProvider" not in ort.get_available_providers():
        yield {"peer": f"ONNX Runtime {ort.__version__}", "missing": "it is built without CUDA"}
        return
    session = ort.InferenceSession(path, providers=["CUDAExecutionProvider"])
    if session.get_providers()[0] != "CUDAExecutionProvider":
        yield {"peer": f"ONNX Runtime {ort.__version__}", "missing": "its CUDA does not load"}
        return
    for batch in BATCHES:
        x = np.random.default_rng(0).standard_normal((batch, 3, 224, 224), np.float32)
        binding = session.io_binding()
        binding.bind_ortvalue_input("x", ort.OrtValue.ortvalue_from_numpy(x, "cuda", 0))
        binding.bind_output("y", "cuda")
        run = partial(session.run_with_iobinding, binding)
        ms = median_ms(run, binding.synchronize_outputs)
        yield {
            "peer": f"ONNX Runtime {ort.__version__} CUDA",
            "precision": "fp32",
            "batch": batch,
            "ms": ms,
        }


def main() -> None:
    rows: list[dict[str, Any]] = []
    for name, make in (
        ("PyTorch", torch_rows),
        ("ONNX Runtime", lambda: onnxruntime_rows(sys.argv[1])),
    ):
        try:
            rows += make()
        except (ImportError, AssertionError, RuntimeError) as exc:  # torch without CUDA asserts
            rows.append({"peer": name, "missing": str(exc)})
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
