"""The time of ResNet-50 and the encoder in PyTorch and ONNX Runtime on this GPU, beside plans.

    python3 tests/gpu/peers.py FOLDER > peers.json      # the folder that peer_models.py filled

Runs in any Python that has torch (for PyTorch) and onnxruntime with CUDA (for the other); what is
missing is said, not guessed. Prints JSON rows: peer, model, precision, batch, median milliseconds.
Inputs and outputs stay on the GPU.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

BATCHES = (1, 8, 32)
PRECISIONS = ("fp32", "tf32", "fp16")


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
    for precision in PRECISIONS:
        dtype = torch.float16 if precision == "fp16" else torch.float32
        model = model.to(dtype)
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        torch.backends.cuda.matmul.allow_tf32 = precision == "tf32"
        for batch in BATCHES:
            x = torch.randn(batch, 3, 224, 224, device="cuda", dtype=dtype)
            with torch.inference_mode():
                ms = median_ms(partial(model, x), torch.cuda.synchronize)
            yield {
                "peer": f"PyTorch {torch.__version__} eager",
                "model": "resnet50",
                "precision": precision,
                "batch": batch,
                "ms": ms,
            }


def _inputs(model: str, batch: int) -> dict[str, Any]:
    """As in test_plans.py."""
    import numpy as np

    random = np.random.default_rng(batch)
    if model == "encoder":
        return {"ids": random.integers(0, 1000, (batch, 64)).astype(np.int32)}
    return {"x": random.standard_normal((batch, 3, 224, 224), np.float32)}


def onnxruntime_rows(folder: Path) -> Iterator[dict[str, Any]]:
    import onnxruntime as ort

    peer = f"ONNX Runtime {ort.__version__} CUDA"
    if "CUDAExecutionProvider" not in ort.get_available_providers():
        yield {"peer": peer, "missing": "it is built without CUDA"}
        return
    ort.preload_dlls()  # CUDA and cuDNN of the packages that PyTorch brought
    for model, precision, layout in product(("resnet50", "encoder"), PRECISIONS, ("NCHW", "NHWC")):
        stored = "fp16" if precision == "fp16" else "fp32"
        options = {
            "use_tf32": str(int(precision == "tf32")),
            "prefer_nhwc": str(int(layout == "NHWC")),
        }
        session = ort.InferenceSession(
            str(folder / f"{model}.{stored}.onnx"), providers=[("CUDAExecutionProvider", options)]
        )
        if session.get_providers()[0] != "CUDAExecutionProvider":
            yield {"peer": peer, "missing": "its CUDA does not load"}
            return
        for batch in BATCHES:
            binding = session.io_binding()
            for name, array in _inputs(model, batch).items():
                given = ort.OrtValue.ortvalue_from_numpy(array, "cuda", 0)
                binding.bind_ortvalue_input(name, given)
            binding.bind_output("y", "cuda")
            run = partial(session.run_with_iobinding, binding)
            yield {
                "peer": f"{peer} {layout}",
                "model": model,
                "precision": precision,
                "batch": batch,
                "ms": median_ms(run, binding.synchronize_outputs),
            }


def main() -> None:
    rows: list[dict[str, Any]] = []
    for name, make in (
        ("PyTorch", torch_rows),
        ("ONNX Runtime", lambda: onnxruntime_rows(Path(sys.argv[1]))),
    ):
        try:
            rows.extend(make())
        except (ImportError, AssertionError, RuntimeError) as exc:  # torch without CUDA asserts
            rows.append({"peer": name, "missing": str(exc)})
    sys.stdout.write(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
