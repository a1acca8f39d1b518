"""Only commands print: a conversion of any kind leaves standard output and error alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes import Options, Samples, for_precision, run


@pytest.mark.parametrize("precision", ["fp16", "bf16", "int8"])
def test_nothing_is_printed(
    precision: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """An old graph, about which ONNX Runtime has much to say."""
    model = Path(onnx.__file__).parent / "backend/test/data/light/light_squeezenet.onnx"
    tensor = onnx_file.signature_of(onnx_file.read(model).proto).inputs[0]
    image = np.random.default_rng(0).random(tensor.dims, np.float32)
    np.savez(tmp_path / "s.npz", allow_pickle=False, **{tensor.name: image})
    options = Options(samples=Samples(str(tmp_path / "s.npz")), simplify=True)
    run(for_precision(precision, "tensorrt_rtx", "1.7", options).passes, model, tmp_path)
    assert capfd.readouterr() == ("", "")
