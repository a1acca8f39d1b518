"""Repositories that machines with different GPUs built of one spec."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
from support.onnx import bad_models as models
from support.onnx.gpu_repositories import as_tensorrt
from support.onnx.merges import SPEC, BuildOn, build


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the spec, its model and the repository that it makes."""
    folder = tmp_path_factory.mktemp("template")
    models.saved(models.good())(folder)
    (folder / "models.yaml").write_text(SPEC % "")
    build(folder, folder / "repository")
    return folder


@pytest.fixture
def build_on(template: Path, tmp_path: Path) -> BuildOn:
    """``build_on("8.0")``: the repository that the machine with this GPU builds of the spec."""
    for name in ("model.onnx", "models.yaml"):
        shutil.copy2(template / name, tmp_path)

    def build_or_copy(
        capability: str, gpus: str = "", name: str = "", fresh: bool = False, **options: Any
    ) -> Path:
        repository = tmp_path / (name or f"repo_{capability}")
        if fresh:
            build(tmp_path, repository)
        else:
            shutil.copytree(template / "repository", repository)
        return as_tensorrt(repository, gpus or capability, **options)

    return build_or_copy


@pytest.fixture
def two(build_on: BuildOn) -> tuple[Path, Path]:
    return build_on("8.0"), build_on("9.0")
