"""What the precision table asks: the demo's models, MobileNetV2 and MiniLM, each with its inputs.

Two models mean something and are asked real questions: SimpleNet, which was trained on digits,
and MiniLM, a sentence encoder. The others have random or constant weights and get random inputs.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tritonsmith_generator import ModelSpec, export, load_spec
from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.onnx_model.cases import record_cases
from tritonsmith_generator.onnx_model.profiles import Profile
from tritonsmith_generator.pipeline.profile_set import derive_profile_set
from tritonsmith_generator.spec.schema import resolve_source

HERE = Path(__file__).parent
MODELS = HERE.parent / "model_repository"

Array = np.ndarray[Any, Any]
Inputs = Mapping[str, Array]


@dataclass(frozen=True)
class Subject:
    """A model, what to ask it, what to calibrate with, and what its answers are worth.

    ``judge`` gets FP32's answers and the answers in question, and says it in a few words.
    """

    name: str
    onnx: Path
    inputs: Sequence[Inputs]
    calibration: Inputs
    profiles: tuple[Profile, ...]
    judge: Callable[[Array, Array], str] | None = None


def subjects(folder: Path) -> Iterator[Subject]:
    """All of them, one after the other; what has to be exported lands in ``folder``."""
    yield digits()
    yield sentences(folder)
    seen = {(MODELS / "simplenet.onnx").resolve()}
    for name, spec in load_spec(MODELS / "models.yaml").models.items():
        assert spec.onnx is not None
        onnx = resolve_source(spec.onnx, MODELS).resolve()
        if onnx not in seen:
            seen.add(onnx)
            yield unknown(name, onnx, spec)
    onnx = folder / "mobilenet_v2.onnx"
    export(f"{MODELS / 'mobilenet_v2.py'}:mobilenet_v2", onnx)
    yield unknown("mobilenet_v2", onnx, ModelSpec(onnx=str(onnx)))


def unknown(name: str, onnx: Path, spec: ModelSpec) -> Subject:
    """A model nobody knows anything of: asked what the accuracy gate would ask, and more of it."""
    file = onnx_file.read(onnx)
    signature = onnx_file.signature_of(file.proto)
    profile_set = derive_profile_set(signature, spec)
    cases, _ = record_cases(onnx, file.proto, signature, profile_set)
    asked = [dict(case.inputs) for case in cases]
    others = [_others(asked[-1], seed) for seed in range(8)]
    return Subject(
        name=name,
        onnx=onnx,
        inputs=[*asked, *(_others(asked[-1], seed) for seed in range(8, 12))],
        calibration={key: np.concatenate([o[key] for o in others]) for key in asked[-1]},
        profiles=profile_set.profiles,
    )


def _others(inputs: Inputs, seed: int) -> Inputs:
    """Other random inputs of the same kind: integers stay within what the model looks up."""
    random = np.random.default_rng(seed)
    return {
        name: random.standard_normal(a.shape).astype(a.dtype)
        if a.dtype.kind == "f"
        else random.integers(0, a.max() + 1, a.shape).astype(a.dtype)
        for name, a in inputs.items()
    }


def digits() -> Subject:
    """SimpleNet: 359 digits that its training never saw, calibrated on 256 of the others."""
    source = importlib.util.spec_from_file_location("training", MODELS / "train_simplenet.py")
    assert source is not None and source.loader is not None
    training = importlib.util.module_from_spec(source)
    source.loader.exec_module(training)
    images, labels, order = (tensor.numpy() for tensor in training.digits())
    held_out, train = order[: len(order) // 5], order[len(order) // 5 :]

    def judge(reference: Array, got: Array) -> str:
        right = int((got.argmax(1) == labels[held_out]).sum())
        return f"{right} of {len(held_out)} digits right"

    spec = load_spec(MODELS / "models.yaml").models["simplenet_rtx"]
    onnx = MODELS / "simplenet.onnx"
    profile_set = derive_profile_set(onnx_file.signature_of(onnx_file.read(onnx).proto), spec)
    return Subject(
        name="simplenet",
        onnx=onnx,
        inputs=[{"input": images[held_out]}],
        calibration={"input": images[train[:256]]},
        profiles=profile_set.profiles,
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
    """MiniLM: is a sentence's paraphrase its nearest neighbor? Calibrated on other sentences."""
    import minilm

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

    shapes = {"min": (1, TOKENS), "opt": (8, TOKENS), "max": (32, TOKENS)}
    spec = ModelSpec.model_validate(
        {"onnx": str(onnx), "shapes": {"input_ids": shapes, "attention_mask": shapes}}
    )
    profile_set = derive_profile_set(onnx_file.signature_of(onnx_file.read(onnx).proto), spec)
    return Subject(
        name="minilm",
        onnx=onnx,
        inputs=[tokens([sentence for pair in PAIRS for sentence in pair], TOKENS)],
        calibration=tokens(CALIBRATION, TOKENS),
        profiles=profile_set.profiles,
        judge=judge,
    )
