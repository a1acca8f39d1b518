"""``__all__`` is the door: what it lists is there, and the packages export nothing else."""

from __future__ import annotations

import ast
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import tritonsmith_client
import tritonsmith_generator


def modules(package: ModuleType) -> Iterator[str]:
    """The dotted names of a package and all its modules."""
    yield package.__name__
    for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
        # Backends run inside a Triton server, which brings a module that is nowhere else.
        if (
            not found.name.rpartition(".")[2].startswith("__main__")
            and ".backends" not in found.name
        ):
            yield found.name


NAMES = [*modules(tritonsmith_client), *modules(tritonsmith_generator)]


@pytest.mark.parametrize("name", NAMES)
def test_all_lists_names_that_exist(name: str) -> None:
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("tritonsmith"):
            raise
        pytest.skip(f"{exc.name}, an optional library, is not installed")
    listed = getattr(module, "__all__", [])
    assert [entry for entry in listed if not hasattr(module, entry)] == []
    assert len(listed) == len(set(listed))


@pytest.mark.parametrize("package", [tritonsmith_client, tritonsmith_generator])
def test_a_package_lists_what_it_imports(package: ModuleType) -> None:
    # Read, not run: a package may import a name only when it is first used.
    tree = ast.parse(Path(str(package.__file__)).read_text(encoding="utf-8"))
    imported = {
        alias.asname or alias.name
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and node.level > 0
        for alias in node.names
    }
    assert imported == set(getattr(package, "__all__", ()))
