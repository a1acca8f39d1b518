"""Writes the models of the suite for the peers: ONNX in FP32 and, by our own pass, in FP16.

python3 tests/gpu/peer_models.py FOLDER     # needs tests/ on the path
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from support.onnx import gpu_models

from tritonsmith_generator.passes import for_precision, run


def main() -> None:
    folder = Path(sys.argv[1])
    for name, make in (("resnet50", gpu_models.resnet50), ("encoder", gpu_models.encoder)):
        full = make(folder / f"{name}.fp32.onnx")
        recipe = for_precision("fp16", "onnxruntime", "1")
        with TemporaryDirectory() as work:
            shutil.copy(run(recipe.passes, full, Path(work)).model, folder / f"{name}.fp16.onnx")


if __name__ == "__main__":
    main()
