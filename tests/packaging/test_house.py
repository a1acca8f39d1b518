"""The house: rooms that can be read in one look, and doors that say what is behind them."""

from __future__ import annotations

import ast
import statistics
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.harness.paths import TESTS

import tritonsmith_client
import tritonsmith_generator
from tritonsmith_generator import serve

MOST_FILES = 15
MOST_LINES = 400
MEDIAN_LINES = 120

PACKAGES = {
    "client": Path(str(tritonsmith_client.__file__)).parent,
    "generator": Path(str(tritonsmith_generator.__file__)).parent,
}


def rooms() -> Iterator[Path]:
    """The folders of both packages that hold modules."""
    for package in PACKAGES.values():
        for door in sorted(package.rglob("__init__.py")):
            yield door.parent


def sources(folder: Path) -> list[Path]:
    """The Python files below a folder."""
    return sorted(folder.rglob("*.py"))


def length(path: Path) -> int:
    return len(path.read_text(encoding="utf-8").splitlines())


def files_of(folder: Path) -> int:
    return sum(path.name != "__init__.py" for path in folder.glob("*.py"))


def test_no_folder_holds_more_than_can_be_read_in_one_look() -> None:
    folders = {path.parent for part in (*PACKAGES.values(), TESTS) for path in sources(part)}
    assert len(folders) > 40
    assert {str(f): n for f in folders if (n := files_of(f)) > MOST_FILES} == {}


@pytest.mark.parametrize("part", [*PACKAGES.values(), TESTS], ids=[*PACKAGES, "tests"])
def test_no_file_is_longer_than_one_reads_in_one_go(part: Path) -> None:
    lengths = {path: length(path) for path in sources(part)}
    assert {str(path): n for path, n in lengths.items() if n > MOST_LINES} == {}
    if part is not TESTS:
        assert statistics.median(lengths.values()) <= MEDIAN_LINES


@pytest.mark.parametrize("room", [*rooms()], ids=lambda room: "/".join(room.parts[-2:]))
def test_a_room_says_in_one_line_what_lives_there(room: Path) -> None:
    tree = ast.parse((room / "__init__.py").read_text(encoding="utf-8"))
    first = (ast.get_docstring(tree) or "").partition("\n\n")[0]
    assert first.endswith(".") and "\n" not in first, first


@pytest.mark.parametrize(
    "package", [tritonsmith_client, tritonsmith_generator, serve], ids=lambda p: p.__name__
)
def test_no_room_bears_a_public_name(package: object) -> None:
    """Importing ``package.merge`` sets that attribute: a function of that name would be gone."""
    home = Path(str(getattr(package, "__file__"))).parent  # noqa: B009  # mypy knows no file
    beside = {path.stem for path in home.iterdir() if path.suffix == ".py" or path.is_dir()}
    assert beside & set(getattr(package, "__all__")) == set()  # noqa: B009


def test_public_names_change_on_purpose() -> None:
    """Whoever adds or removes one changes the list beside this file, and the changelog."""
    found = [
        f"{package.__name__}.{name}"
        for package in (tritonsmith_client, tritonsmith_generator)
        for name in package.__all__
    ]
    listed = Path(__file__).with_name("public_names.txt").read_text().split()
    assert sorted(found) == listed
