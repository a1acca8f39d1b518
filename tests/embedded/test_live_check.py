"""``gen-repo check --live``: right repositories are right, and wrong batches are seen."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import onnx
import pytest
from support.onnx.row_models import (
    DEPENDENT,
    INDEPENDENT,
    NEARLY,
    RANDOM,
    row_model,
    write_row_models,
)

from tritonsmith_generator import build
from tritonsmith_generator.check import live
from tritonsmith_generator.spec.loader import load_spec

MODELS = {
    **{name: INDEPENDENT[name] for name in ("dense", "one number a row", "classes")},
    **NEARLY,
    "centred": DEPENDENT["centred"],
    "draws": RANDOM["draws"],
}
JOINED = ("dense", "one number a row", "classes", *NEARLY, "reshaped")

# Clients see other shapes than the model, of fixed and of dynamic sizes.
RESHAPED = """
  reshaped:
    onnx: reshaped.onnx
    target: onnxruntime
    config:
      input:
        - {name: x, data_type: TYPE_FP32, dims: [-1, 1], reshape: {shape: [-1]}}
        - {name: z, data_type: TYPE_FP32, dims: [2, 2], reshape: {shape: [4]}}
      output:
        - {name: y, data_type: TYPE_FP32, dims: [1, -1], reshape: {shape: [-1]}}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The models, and ``forged``: one whose config was made to batch rows that depend."""
    folder = tmp_path_factory.mktemp("live")
    spec = write_row_models(MODELS, folder)
    parts = (
        "float[batch,n] x, float[batch,4] z",
        "float[batch,n] y",
        "s = ReduceSum(z, second)  y = Mul(x, s)",
    )
    onnx.save(row_model(parts), folder / "reshaped.onnx")
    spec.write_text(spec.read_text() + RESHAPED.lstrip("\n"))
    path = folder / "model_repository"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        for result in build(load_spec(spec), folder, path, jobs=2):
            assert result.status == "built", result.error
    number = list(MODELS).index("centred")
    shutil.copytree(path / f"m{number}", path / "forged")
    config = path / "forged/config.pbtxt"
    text = config.read_text().replace("max_batch_size: 0", "max_batch_size: 32")
    text = text.replace("dims: [ -1, 4 ]", "dims: [ 4 ]").replace(f'"m{number}"', '"forged"')
    config.write_text(f"{text}dynamic_batching {{}}\n")
    return path


@pytest.fixture(scope="module")
def checked(repository: Path) -> Mapping[str, Mapping[str, Any]]:
    """What the command says of each model, by the names above."""
    done = gen_repo("check", "--live", repository, "--json")
    assert done.returncode == 4, done.stdout + done.stderr  # for what was forged
    found = {model["model"]: model for model in json.loads(done.stdout)["live"]}
    return {name: found.pop(f"m{number}") for number, name in enumerate(MODELS)} | found


def gen_repo(*arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tritonsmith_generator", *map(str, arguments)],
        capture_output=True,
        text=True,
    )


@pytest.mark.parametrize("name", JOINED)
def test_answers_of_joined_requests_are_right(
    name: str, checked: Mapping[str, Mapping[str, Any]]
) -> None:
    """So are those with a reshape in the config, which the recorded cases know nothing of."""
    model = checked[name]
    assert (model["problem"], model["note"], model["max_difference"]) == (None, None, 0.0)
    assert 2 <= model["batch"] <= 32


def test_a_wrong_batch_is_seen(checked: Mapping[str, Mapping[str, Any]]) -> None:
    """Replayed alone, every case of it is right."""
    assert checked["forged"]["max_difference"] == 0.0
    assert checked["forged"]["problem"].startswith("one of 32 requests at once: output 'y'")
    unbatched = checked["centred"]
    assert (unbatched["problem"], unbatched["batch"], unbatched["note"]) == (None, None, None)


def test_random_answers_are_not_compared(checked: Mapping[str, Mapping[str, Any]]) -> None:
    model = checked["draws"]
    assert (model["problem"], model["max_difference"]) == (None, None)
    assert "draws other random numbers" in model["note"]


def test_classes_show_what_clients_send(repository: Path, tmp_path: Path) -> None:
    done = gen_repo("stubs", repository, "-o", tmp_path / "models.py")
    assert done.returncode == 0, done.stderr
    text = (tmp_path / "models.py").read_text()
    assert "INT64[batch, 1]" in text  # n of "one number a row"
    assert "FP32[batch, ?, 1]" in text  # x of "reshaped"


@pytest.mark.parametrize(("seconds", "calls"), [(0.001, 21), (0.4, 5), (30.0, 3)])
def test_slow_models_are_asked_less_often(
    seconds: float, calls: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = list[float]()
    monkeypatch.setattr(live, "perf_counter", lambda: sum(times))
    assert live._median_ms(lambda: times.append(seconds)) == pytest.approx(1e3 * seconds)
    assert len(times) == calls
