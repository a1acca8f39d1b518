"""Whether axis 0 is a batch: ONNX Runtime is asked, row by row, and what it says is told."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from support.onnx.row_models import (
    DEPENDENT,
    INDEPENDENT,
    NAMES,
    NEARLY,
    RANDOM,
    row_model,
    write_row_models,
)
from support.programs.command import GenRepo

from tritonsmith_generator import ModelResult, build
from tritonsmith_generator.repository.inspect import read_config
from tritonsmith_generator.spec.loader import load_spec

Built = Mapping[str, tuple[Path, ModelResult]]

MODELS = {**DEPENDENT, **INDEPENDENT, **NEARLY, **RANDOM, **NAMES}


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Each model by its name: its folder in the repository, and what was said of it."""
    folder = tmp_path_factory.mktemp("rows")
    spec = write_row_models(MODELS, folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        results = build(load_spec(spec), folder, folder / "repository", jobs=2)
    return {
        name: (folder / "repository" / result.name, result)
        for name, result in zip(MODELS, results, strict=True)
    }


def largest_batch(folder: Path) -> int:
    return int(read_config(folder).max_batch_size)


def said(folder: Path) -> str:
    """What config.pbtxt says of max_batch_size."""
    lines = (folder / "config.pbtxt").read_text().splitlines()
    return lines[lines.index("max_batch_size: 0") - 1]


@pytest.mark.parametrize("name", DEPENDENT)
def test_dependent_rows_are_not_batched(name: str, built: Built) -> None:
    folder, result = built[name]
    assert result.status == "built", result.error
    assert largest_batch(folder) == 0
    (note,) = result.notes
    assert note.startswith("no batching: axis 0 is no batch axis, because ")
    assert said(folder) == f"# requests carry full shapes: {note.removeprefix('no batching: ')}"


def test_it_is_told_what_was_measured(built: Built) -> None:
    notes = {name: built[name][1].notes[0].partition("because ")[2] for name in DEPENDENT}
    assert notes["centred"] == (
        "output 'y': the answer for a row changes by 100 % of its largest element with the rows "
        "beside it"
    )
    assert "changes in 50 % of its elements with the rows beside it" in notes["strings"]
    assert "with its place in a batch, or the batch's size" in notes["numbered"]
    assert notes["NaN in another row"] == (
        "output 'y': NaN in one row spoils the answers for the others"
    )
    assert notes["one number a call"] == (
        "output 'y' has shape [1, 1] for a batch of 3, so its axis 0 is not the batch"
    )
    assert notes["a batch of 1 baked in"] == (
        "ONNX Runtime runs it with a batch of 1, and fails with one of 3"
    )


@pytest.mark.parametrize("name", INDEPENDENT)
def test_independent_rows_are_batched(name: str, built: Built) -> None:
    folder, result = built[name]
    assert (largest_batch(folder), result.warnings, result.notes) == (32, (), ())


def test_steps_that_are_the_whole_batchs_are_warned_of(built: Built) -> None:
    folder, result = built["steps of the whole batch"]
    assert largest_batch(folder) == 32
    (warning,) = result.warnings
    assert warning.startswith(
        "batches are not exact, as it computes in steps of 8 bits: output 'y'"
    )


def test_random_models_are_told_so(built: Built) -> None:
    (draws, drawing), (trains, training) = built["draws"], built["trains"]
    assert largest_batch(draws) == largest_batch(trains) == 0
    assert drawing.warnings == (
        "the model gives another answer to the same inputs each time: node 'r' (RandomNormalLike) "
        "draws other random numbers; its answers cannot be compared with a reference",
    )
    assert (
        "node 'y' (Dropout) is in training mode: export the model after model.eval()"
        in (training.warnings[0])
    )
    assert "whether rows depend on each other could not be checked" in drawing.notes[0]


def test_names_that_speak_against_a_batch(built: Built) -> None:
    for name, axes in (
        (
            "time beside batch",
            "axis 0 is called 'time' in 'x', and axis 1 of 'x' is called 'batch'",
        ),
        ("recurrent, T beside B", "axis 0 is called 'T' in 'x', and axis 1 of 'x' is called 'B'"),
    ):
        folder, result = built[name]
        assert result.notes == (f"no batching: {axes}",)
        assert said(folder) == f"# requests carry full shapes: {axes}"


def test_different_names_are_warned_of_where_rows_are_independent(built: Built) -> None:
    folder, result = built["other names"]
    assert largest_batch(folder) == 0
    (warning,) = result.warnings
    assert "axis 0 looks like a batch" in warning
    assert "('unk__1' in 'x' and 'unk__2' in 'y')" in warning
    assert "--max-batch 32, switches batching on" in warning
    folder, result = built["other names, dependent"]
    assert (largest_batch(folder), result.warnings) == (0, ())
    assert "axis 0 is not the same axis in all tensors" in result.notes[0]
    assert "200 % of its largest element" in result.notes[0]


@pytest.mark.parametrize("name", ["other names", "time beside batch"])
def test_the_users_word_counts_more_than_names(
    name: str, gen_repo: GenRepo, tmp_path: Path
) -> None:
    onnx.save(row_model(NAMES[name]), tmp_path / "m.onnx")
    outcome = gen_repo("build", "m.onnx", "--target", "onnxruntime", "--max-batch", "8")
    assert (outcome.code, "warning" in outcome.out) == (0, False), outcome
    assert largest_batch(tmp_path / "model_repository/m") == 8


def test_the_users_word_is_checked(gen_repo: GenRepo, tmp_path: Path) -> None:
    for name, words in (
        ("recurrent, T beside B", "with its place in a batch"),
        ("other names, dependent", "by 200 % of its largest element"),
    ):
        onnx.save(row_model(NAMES[name]), tmp_path / "m.onnx")
        outcome = gen_repo("build", "m.onnx", "--target", "onnxruntime", "--max-batch", "8")
        assert outcome.code == 1
        assert "batching.max is 8, but axis 0 is no batch axis" in outcome.err
        assert words in outcome.err
        assert "leave batching.max (--max-batch) out" in outcome.err


def test_what_cannot_be_checked_is_taken_at_its_word(gen_repo: GenRepo, tmp_path: Path) -> None:
    for model, words in (
        (RANDOM["draws"], "could not be checked"),
        (DEPENDENT["NaN in another row"], "but output 'y': NaN in one row spoils the answers"),
    ):
        onnx.save(row_model(model), tmp_path / "m.onnx")
        outcome = gen_repo("build", "m.onnx", "--target", "onnxruntime", "--max-batch", "8")
        assert outcome.code == 0, outcome
        assert "batching.max is 8" in outcome.out
        assert words in outcome.out
        assert largest_batch(tmp_path / "model_repository/m") == 8


def test_the_verdict_is_kept_with_the_cases(gen_repo: GenRepo, tmp_path: Path) -> None:
    onnx.save(row_model(DEPENDENT["centred"]), tmp_path / "m.onnx")
    command = ("build", "m.onnx", "--target", "onnxruntime", "--json")

    def result(*more: object) -> dict[str, Any]:
        outcome = gen_repo(*command, *more)
        assert outcome.code == 0, outcome
        return dict(json.loads(outcome.out)[0])

    first, again, elsewhere = result(), result(), result("-o", "elsewhere")
    assert first["notes"][0].startswith("no batching")
    assert again["status"] == "unchanged"
    assert elsewhere["notes"] == first["notes"]
    assert [stage["ran"] for stage in elsewhere["stages"] if stage["stage"] == "cases"] == [False]


def test_samples_are_the_rows_that_are_asked(gen_repo: GenRepo, tmp_path: Path) -> None:
    """Without them, a model that no made-up input suits could not be asked at all."""
    parts = ("int64[batch,2] x", "int64[batch,2] y", "y = Div(one, x)")
    onnx.save(row_model(parts), tmp_path / "m.onnx")
    np.savez(tmp_path / "samples.npz", x=np.array([[1, 2], [1, 1], [2, 1]]))
    outcome = gen_repo("build", "m.onnx", "--target", "onnxruntime", "--samples", "samples.npz")
    assert outcome.code == 0, outcome
    assert largest_batch(tmp_path / "model_repository/m") == 32


def test_a_random_model_has_no_other_precision(gen_repo: GenRepo, tmp_path: Path) -> None:
    onnx.save(row_model(RANDOM["draws"]), tmp_path / "m.onnx")
    outcome = gen_repo("build", "m.onnx", "--target", "onnxruntime", "--precision", "fp16")
    assert outcome.code == 1
    assert "what fp16 does to it cannot be measured; build it in fp32" in outcome.err
