"""What is in the wheel: three packages, whole, and nothing else."""

from __future__ import annotations

import zipfile
from pathlib import Path

PACKAGES = (
    "client/tritonsmith_client",
    "generator/tritonsmith_generator",
    "templates/tritonsmith_templates",
)


def contents(wheel: Path) -> dict[str, bytes]:
    """Every file's bytes, apart from the record of the wheel itself."""
    with zipfile.ZipFile(wheel) as archive:
        names = [n for n in archive.namelist() if ".dist-info/" not in n]
        return {name: archive.read(name) for name in names}


def test_the_wheel_holds_the_three_packages_and_nothing_else(root: Path, wheel: Path) -> None:
    expected = {
        f"{Path(package).name}/{path.relative_to(root / package).as_posix()}": path.read_bytes()
        for package in PACKAGES
        for path in (root / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert contents(wheel) == expected


def test_the_wheel_holds_what_is_no_module(wheel: Path) -> None:
    names = contents(wheel)
    assert "tritonsmith_templates/config.pbtxt.j2" in names
    assert "tritonsmith_generator/backends/onnxruntime/model.py" in names
    assert {"tritonsmith_client/py.typed", "tritonsmith_generator/py.typed"} <= set(names)


def test_the_source_distribution_builds_the_same_wheel(wheel: Path, wheel_of_sdist: Path) -> None:
    assert contents(wheel_of_sdist) == contents(wheel)


def test_the_command_is_declared(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (name,) = [n for n in archive.namelist() if n.endswith("entry_points.txt")]
        assert "gen-repo = tritonsmith_generator.__main__:main" in archive.read(name).decode()
