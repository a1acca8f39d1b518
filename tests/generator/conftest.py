"""What the generator's tests share."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from support import bad_models as models
from support.command import GenRepo, run_gen_repo

from tritonsmith_generator import Spec, build


@pytest.fixture(scope="session")
def built_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the model 'm', to copy and then to spoil."""
    folder = tmp_path_factory.mktemp("once")
    onnx = models.saved(models.good())(folder)
    spec = Spec.model_validate({"models": {"m": {"onnx": str(onnx), "target": "onnxruntime"}}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        (result,) = build(spec, folder, folder / "model_repository")
    assert result.status == "built", result.error
    return folder / "model_repository"


@pytest.fixture
def gen_repo(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> GenRepo:
    """Run ``gen-repo ARGUMENTS`` in an empty folder, with a cache of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path.with_name(tmp_path.name + "-cache")))

    return partial(run_gen_repo, monkeypatch, capsys)
