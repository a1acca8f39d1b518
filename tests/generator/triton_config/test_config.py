"""config.pbtxt: what is meant, its text, and the text read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.harness.needs import needs_rtx
from support.harness.paths import GOLDEN
from support.onnx import bad_models as models
from support.programs.command import GenRepo

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.triton_config.config_pbtxt import (
    message_from,
    parse_config,
    render_config,
)

_HEADER = ("# Written by", "# Source:")  # a version and a digest, which change

EVERYTHING: dict[str, Any] = {
    "name": 'quote " and \\ and\nnewline',
    "backend": "tensorrt",
    "max_batch_size": 0,
    "input": [
        {"name": "x", "data_type": "TYPE_FP32", "format": "FORMAT_NCHW", "dims": [3, -1, -1]},
        {"name": "y", "data_type": "TYPE_INT64", "dims": [1], "reshape": {"shape": []}},
    ],
    "output": [{"name": "z", "data_type": "TYPE_BF16", "dims": [-1], "label_filename": "é.txt"}],
    "version_policy": {"specific": {"versions": [1, 3]}},
    "instance_group": [{"count": 2, "kind": "KIND_GPU", "gpus": [0, 1], "profile": ["0", "1"]}],
    "optimization": {"cuda": {"graphs": True, "busy_wait_events": False}},
    "cc_model_filenames": {"8.9": "ada.plan", "9.0": "hopper.plan"},
    "parameters": {"tab": {"string_value": "a\tb"}, "empty": {"string_value": ""}},
    "model_warmup": [
        {
            "name": "w",
            "batch_size": 1,
            "inputs": {"x": {"data_type": "TYPE_FP32", "dims": [3, 8, 8], "zero_data": True}},
        }
    ],
    "response_cache": {"enable": True},
}


def test_all_kinds_of_fields_survive_the_text() -> None:
    config = message_from(EVERYTHING)
    notes = {("max_batch_size",): "a note\nwith a line break", ("input", 0, "dims"): "dims"}
    text = render_config(config, notes, ["header", "name\n} injected"])
    assert parse_config(text, "text") == config
    assert config.input[1].HasField("reshape")
    assert "# a note with a line break\nmax_batch_size: 0\n" in text
    assert "    # dims\n    dims: [ 3, -1, -1 ]\n" in text
    assert "\n} injected" not in text


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"max_batchsize": 1}, "unknown field 'max_batchsize': did you mean 'max_batch_size'?"),
        ({"input": [{"dim": [1]}]}, "unknown field 'input.dim': did you mean 'dims'?"),
        ({"parameters": {"a": {"value": "b"}}}, "unknown field 'parameters.value'"),
        ({"max_batch_size": "many"}, "max_batch_size"),
        ({"input": [{"data_type": "TYPE_F32"}]}, "TYPE_F32"),
    ],
)
def test_wrong_fields_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        message_from(values)
    assert message in str(caught.value)


def test_unreadable_text_is_named_with_its_place() -> None:
    with pytest.raises(InputError, match=r"here: 2:1 : .*no field named \"nme\""):
        parse_config('backend: "x"\nnme: "y"\n', "here")


# file: (the model, the spec's part of it)
CASES: dict[str, tuple[Any, str]] = {
    "batched": (models.good(), ""),
    "batched_delay": (
        models.good(),
        "batching: {max: 16, max_delay_us: 500, preferred: [4, 8]}\n    instances: {count: 2}",
    ),
    "unbatched": (models.good(), "batching: false"),
    "static": (models.shaped((1, 4)), ""),
    "dynamic_axis_1": (models.shaped((2, "n")), ""),
    "scalar_rows": (models.shaped(("batch",)), ""),
    "overridden": (
        models.good(),
        "config: {response_cache: {enable: true}, dynamic_batching: {preserve_ordering: true}}",
    ),
    "warmed_up": (
        models.looking_up(),
        "warmup: {at: [min, opt, max], count: 2}\n"
        "    shapes: {words: {min: [1, 2], opt: [4, 8], max: [16, 32]}}",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str, gen_repo: GenRepo, tmp_path: Path) -> None:
    """The whole file as users see it; after a wanted change, look at it and copy it over."""
    proto, options = CASES[name]
    models.saved(proto)(tmp_path)
    spec = f"models:\n  m:\n    onnx: model.onnx\n    target: onnxruntime\n    {options}\n"
    (tmp_path / "models.yaml").write_text(spec)
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 0, outcome
    written = (tmp_path / "repository/m/config.pbtxt").read_text()
    lines = [line for line in written.splitlines(True) if not line.startswith(_HEADER)]
    assert "".join(lines) == (GOLDEN / f"{name}.pbtxt").read_text()


def test_every_number_says_where_it_comes_from(gen_repo: GenRepo, tmp_path: Path) -> None:
    models.saved(models.good())(tmp_path)
    gen_repo("model.onnx", "--max-batch", "5", "--target", "onnxruntime")
    lines = (tmp_path / "model_repository/model/config.pbtxt").read_text().splitlines()
    before = {line.strip().split(":")[0]: lines[i - 1].strip() for i, line in enumerate(lines)}
    assert before["max_batch_size"] == ("# axis 0 of 'x' is the batch, up to 5 (batching.max)")
    assert before["dims"] == "# [batch, 4] in the model; axis 0 is the batch and is left out here"


@pytest.mark.skipif(bool(visible_gpus()), reason="this machine has a GPU")
def test_builder_options_may_wait_for_a_machine_with_tensorrt(
    gen_repo: GenRepo, tmp_path: Path
) -> None:
    """With target auto, or set aside, where the defaults have them for other models."""
    models.saved(models.good())(tmp_path)
    (tmp_path / "models.yaml").write_text(
        "defaults: {onnx: model.onnx, builder: {optimization_level: 3}}\n"
        "models: {a: {}, b: {target: onnxruntime, builder: null}}\n"
    )
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 0 and "2 built" in outcome.out, outcome


@pytest.mark.skipif(bool(visible_gpus()), reason="this machine has a GPU")
def test_a_gpu_that_is_not_here_is_warned_of(gen_repo: GenRepo, tmp_path: Path) -> None:
    models.saved(models.good())(tmp_path)
    (tmp_path / "models.yaml").write_text(
        "models: {m: {onnx: model.onnx, target: onnxruntime, instances: {gpus: [7]}}}\n"
    )
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert outcome.code == 0, outcome
    assert "warning m: instances.gpus names GPU 7, and none is here: the machine " in outcome.out
    assert "gpus: [ 7 ]" in (tmp_path / "repository/m/config.pbtxt").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("config: {name: other}", "config.name is 'other', but Triton takes the folder's name"),
        ("config: {max_batchsize: 3}", "did you mean 'max_batch_size'?"),
        ("batching: {preferred: [64]}", "preferred is 64, but the largest batch is 32"),
        pytest.param(
            "target: tensorrt_rtx, instances: {kind: cpu}",
            "tensorrt_rtx runs on GPUs only",
            marks=needs_rtx,
        ),
        ("instances: {kind: cpu, gpus: [0]}", "m.instances: 'gpus' has no meaning with kind: cpu"),
        (
            "target: onnxruntime, builder: {optimization_level: 3, plugins: [a.so]}",
            "builder.optimization_level, builder.plugins: no effect with target onnxruntime, which",
        ),
    ],
)
def test_settings_that_cannot_be(
    options: str, message: str, gen_repo: GenRepo, tmp_path: Path
) -> None:
    models.saved(models.good())(tmp_path)
    (tmp_path / "models.yaml").write_text(f"models: {{m: {{onnx: model.onnx, {options}}}}}\n")
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert (outcome.code, message in outcome.err) == (1, True), outcome
    assert not (tmp_path / "repository").exists()
