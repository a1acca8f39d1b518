"""A stage's key covers the code that makes its result: nothing that it imports is left out."""

from __future__ import annotations

import shutil
from pathlib import Path

import grimp
import pytest

from tritonsmith_generator.layout import PACKAGE
from tritonsmith_generator.stages import code

NAME = PACKAGE.name

# Where the making of each stage's result begins.
MAKERS = {
    "cases": ("onnx_model.cases", "onnx_model.case_file"),
    "conversion": ("stages.conversion",),
    "plan": ("stages.plan", "engine.entrypoints", "trt.builder"),
    "accuracy": ("stages.plan_accuracy", "trt.run_plan"),
}


@pytest.fixture(scope="module")
def imports() -> grimp.ImportGraph:
    return grimp.build_graph(NAME, exclude_type_checking_imports=True)


@pytest.mark.parametrize("stage", code.ROOMS)
def test_what_makes_a_result_is_in_its_key(imports: grimp.ImportGraph, stage: str) -> None:
    makers = {f"{NAME}.{maker}" for maker in MAKERS[stage]}
    needed = makers.union(*(imports.find_upstream_modules(maker) for maker in makers))
    hashed = {path for room in code.ROOMS[stage] for path in code.files_of(room)}
    left_out = {
        module
        for module in needed
        if module.split(".")[1] not in code.PLUMBING
        and not any(
            PACKAGE.parent.joinpath(*module.split(".")).with_suffix(".py") == path
            or PACKAGE.parent.joinpath(*module.split("."), "__init__.py") == path
            for path in hashed
        )
    }
    assert len(needed) > 5
    assert left_out == set()


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    """A copy of the package's code, to change."""
    rooms = {room for rooms in code.ROOMS.values() for room in rooms}
    for room in rooms:
        shutil.copytree(PACKAGE / room, tmp_path / room, dirs_exist_ok=True)
    return tmp_path


@pytest.mark.parametrize("stage", code.ROOMS)
def test_any_change_in_a_room_is_another_key(copied: Path, stage: str) -> None:
    known = {code.code_digest.__wrapped__(stage, copied)}
    for room in code.ROOMS[stage]:
        for path in code.files_of(room, copied):
            path.write_bytes(path.read_bytes() + b"\n")
            digest = code.code_digest.__wrapped__(stage, copied)
            assert digest not in known, path
            known.add(digest)
    (copied / code.ROOMS[stage][0] / "one_more.py").touch()
    assert code.code_digest.__wrapped__(stage, copied) not in known


def test_a_room_that_is_not_there_is_an_error_and_not_an_empty_key(copied: Path) -> None:
    shutil.rmtree(copied / "passes")
    with pytest.raises(LookupError, match="passes, and no Python file is there"):
        code.code_digest("cases", copied)
