"""models.yaml: strict, and every mistake with its line and what was allowed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.harness.paths import ROOT

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.spec.builder_options import BuilderOptions
from tritonsmith_generator.spec.limits import Limits
from tritonsmith_generator.spec.loader import load_spec
from tritonsmith_generator.spec.quantization import Quantization
from tritonsmith_generator.spec.schema import (
    Accuracy,
    Batching,
    Instances,
    ModelSpec,
    Shapes,
    Spec,
    Warmup,
)

# what is wrong: (the file, its message after the file's name)
MISTAKES = {
    "unknown key": (
        "models:\n  a:\n    onnx: x\n    precison: fp16\n",
        ":4: models.a.precison: unknown key; did you mean 'precision'? (allowed: onnx, ",
    ),
    "unknown key at the top": ("model:\n  a: {onnx: x}\n", ":1: the spec: the key 'models' is"),
    "unknown key below": (
        "models:\n  a:\n    onnx: x\n    batching:\n      max_delay: 5\n",
        ":5: models.a.batching.max_delay: unknown key; did you mean 'max_delay_us'?",
    ),
    "unknown key in a list of profiles": (
        "models:\n  a:\n    onnx: x\n    shapes:\n      - x: {min: [1], opt: [1], max: [1]}\n"
        "      - x: {min: [1], opt: [1], max: [1], mix: [1]}\n",
        ":6: models.a.shapes.1.x.mix: unknown key; did you mean",
    ),
    "unknown key in the defaults": (
        "defaults:\n  targt: auto\nmodels:\n  a: {onnx: x}\n  b: {onnx: y}\n",
        ":2: defaults.targt: unknown key; did you mean 'target'?",
    ),
    "unknown limit": (
        "models:\n  a:\n    onnx: x\n    accuracy:\n      limit: {top_1: 0.9}\n",
        ":5: models.a.accuracy.limit.top_1: unknown key; did you mean 'top1'? "
        "(allowed: relative_l2, max_abs, cosine, top1)",
    ),
    "a limit that nothing keeps": (
        "models:\n  a: {onnx: x,\n    accuracy: {limit: {top1: 99}}}\n",
        ":3: models.a.accuracy.limit.top1: Input should be less than or equal to 1 (given: 99)",
    ),
    "a limit that is no number": (
        "models: {a: {onnx: x, accuracy: {limit: tight}}}\n",
        ":1: models.a.accuracy.limit: Input should be a valid number, unable to parse",
    ),
    "missing key": (
        "models: {a: {onnx: x, shapes: {x: {min: [1], opt: [1]}}}}\n",
        ":1: models.a.shapes.x: the key 'max' is missing",
    ),
    "wrong value": (
        "models:\n  a: {onnx: x,\n      target: tensorr}\n",
        ":3: models.a.target: Input should be 'auto', 'onnxruntime', 'tensorrt' or 'tensorrt_rtx'",
    ),
    "wrong type": ("models:\n  a: {onnx: [x]}\n", ":2: models.a.onnx: Input should be a valid"),
    "no source": ("models:\n  a: {}\n", ":2: models.a: a model needs either onnx: FILE or torch:"),
    "two sources": (
        "models:\n  a: {onnx: x, torch: 'y:z'}\n",
        ":2: models.a: a model needs either onnx: FILE or torch:",
    ),
    "a name that leaves the folder": (
        "models:\n  ../up: {onnx: x}\n",
        ":1: models: the model name '../up' is not allowed",
    ),
    "key twice": (
        "models:\n  a: {onnx: x}\n  a: {onnx: y}\n",
        ":3: the key 'a' is already set on line 2",
    ),
    "release as a number": (
        "triton: 26.10\nmodels: {a: {onnx: x}}\n",
        ":1: triton: Input should be a valid string (given: 26.1)",
    ),
    "no mapping": ("- a\n", ": a spec is a mapping with the key 'models'"),
    "empty": ("", ": a spec is a mapping with the key 'models', such as models: {name:"),
    "not YAML": ("models: [a\n", " is not valid YAML: while parsing"),
}


@pytest.mark.parametrize("kind", MISTAKES)
def test_mistakes(kind: str, tmp_path: Path) -> None:
    text, message = MISTAKES[kind]
    path = tmp_path / "models.yaml"
    path.write_text(text)
    with pytest.raises(InputError) as caught:
        load_spec(path)
    assert str(caught.value).count(message) == 1  # and not once for each model
    assert f"{path}{message}" in str(caught.value)


def test_defaults_lie_beneath_each_model(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(
        "defaults: {target: onnxruntime, batching: {max: 4, max_delay_us: 100}}\n"
        "models:\n  a: {onnx: x}\n  b: {onnx: y, target: tensorrt, batching: {max: 8}}\n"
        "  c: {onnx: z, batching: false}\n"
    )
    models = load_spec(path).models
    assert models["a"].target == "onnxruntime"
    assert models["b"].target == "tensorrt"
    assert models["b"].batching == Batching(max=8, max_delay_us=100)
    assert models["c"].batching is None


def test_a_limit_is_a_number_or_says_its_metric(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text(
        "defaults: {accuracy: {limit: {relative_l2: 0.02, top1: 0.99}}}\nmodels:\n"
        "  a: {onnx: x}\n  b: {onnx: y, accuracy: {limit: {max_abs: 3, top1: 0.9}}}\n"
        "  c: {onnx: z, accuracy: {limit: 0.5}}\n  d: {onnx: z, accuracy: {limit: null}}\n"
    )
    limits = {name: model.accuracy.limit for name, model in load_spec(path).models.items()}
    assert limits == {
        "a": Limits(relative_l2=0.02, top1=0.99),
        "b": Limits(relative_l2=0.02, max_abs=3, top1=0.9),
        "c": Limits(relative_l2=0.5),
        "d": Limits(),
    }


def test_one_profile_needs_no_list(tmp_path: Path) -> None:
    path = tmp_path / "models.yaml"
    path.write_text("models: {a: {onnx: x, shapes: {x: {min: [1], opt: [2], max: [4]}}}}\n")
    (profile,) = load_spec(path).models["a"].shapes
    assert profile["x"].max == (4,)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot read the spec .*: No such file"):
        load_spec(tmp_path / "none.yaml")


def test_the_reference_names_every_key_and_its_example_is_a_spec(tmp_path: Path) -> None:
    text = (ROOT / "docs" / "spec.md").read_text(encoding="utf-8")
    example = text.partition("```yaml\n")[2].partition("```")[0]
    (tmp_path / "models.yaml").write_text(example)
    assert set(load_spec(tmp_path / "models.yaml").models) == {"resnet50", "encoder"}
    parts = (Spec, ModelSpec, Shapes, Batching, Instances, Accuracy, Limits, Warmup, Quantization)
    keys = {key for part in (*parts, BuilderOptions) for key in part.__annotations__}
    named = set(re.findall(r"`([a-z0-9_]+)`", text))
    ours = {"__pydantic_config__", "timing_cache"}
    assert keys - named - ours == set()
