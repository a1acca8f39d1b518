"""``__all__`` is the door: what it lists is there, and the packages export nothing else."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
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
def test_a_package_exports_what_it_lists(package: ModuleType) -> None:
    public = {
        name
        for name, value in vars(package).items()
        if not name.startswith("_") and name != "annotations" and not isinstance(value, ModuleType)
    }
    assert public == set(getattr(package, "__all__", ())) - {"__version__"}
