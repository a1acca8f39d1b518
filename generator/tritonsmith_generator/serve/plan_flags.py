"""What NVIDIA's tritonserver has to be told for the plans that it serves.

Its TensorRT backend opens plugin libraries, and takes plans with a runtime of their own, only where
its command line says so; both then hold for all models. The embedded server needs no flags: its
backends read the same in each model's config.
"""

from __future__ import annotations

from collections.abc import Iterable

from tritonsmith_generator.errors import InputError
from tritonsmith_generator.host.digest import sha256
from tritonsmith_generator.serve.served_models import ServedModel

__all__ = ["plan_flags", "refuse_missing_plugins"]

_FLAG = "--backend-config=tensorrt"


def plan_flags(models: Iterable[ServedModel], repository: str) -> list[str]:
    """Return the flags for these models, which the server sees in the folder ``repository``.

    A library that several models bring is named once: TensorRT takes its plugins only once.
    Raises InputError for a library that is missing.
    """
    served = [model for model in models if model.backend == "tensorrt"]
    refuse_missing_plugins(served)
    libraries: dict[str, str] = {}
    for model in served:
        for path in model.plugins:
            inside = f"{repository}/{model.name}/{path.relative_to(model.path).as_posix()}"
            libraries.setdefault(sha256(path), inside)
    flags = [f"{_FLAG},plugins={';'.join(libraries.values())}"] if libraries else []
    if any(model.version_compatible for model in served):
        flags.append(f"{_FLAG},version-compatible=true")
    return flags


def refuse_missing_plugins(models: Iterable[ServedModel]) -> None:
    """Raise InputError for the first plugin library of these models that is not there."""
    for model in models:
        for path in model.plugins:
            if not path.is_file():
                raise InputError(
                    f"{path} is missing, a plugin library without which TensorRT does not load "
                    f"the plan of {model.name!r}: build the model again, or copy the library there"
                )
