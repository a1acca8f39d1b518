"""Where a torch module comes from: ``package.module:factory`` or ``path/to/file.py:factory``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from tritonsmith_generator.errors import InputError, UsageError

__all__ = ["call_factory", "file_of_factory"]


def file_of_factory(reference: str, folder: Path) -> Path | None:
    """Return the file with the factory's code; None if it is not found. Nothing is imported.

    ``folder`` is where the path of a file starts.
    """
    source, _, _ = reference.rpartition(":")
    if source.endswith(".py"):
        return folder / source
    places: Sequence[str] | None = [str(Path.cwd()), *sys.path]
    name, found = "", None
    for part in source.split("."):
        name = f"{name}.{part}" if name else part
        found = PathFinder.find_spec(name, places) if places else None
        places = found.submodule_search_locations if found else None
    return Path(found.origin) if found and found.has_location and found.origin else None


def call_factory(reference: str) -> Any:
    """Return what the factory returns.

    Raises UsageError for the reference, InputError for its code.
    """
    source, colon, name = reference.rpartition(":")
    if not (source and colon and name):
        raise UsageError(
            f"{reference!r} names no factory; write package.module:factory or file.py:factory"
        )
    is_file = source.endswith(".py")
    # The console script's sys.path lacks what `python file.py` and `python -m module` have.
    with _first_on_path(Path(source).resolve().parent if is_file else Path.cwd()):
        module = _import_file(Path(source)) if is_file else _import_module(source)
        factory = _attribute(module, name, source)
        try:
            return factory()
        except Exception as exc:
            raise InputError(f"{reference} raised {type(exc).__name__}: {exc}") from exc


def _attribute(module: ModuleType, name: str, source: str) -> Callable[[], Any]:
    factory = getattr(module, name, None)
    if callable(factory):
        return factory  # type: ignore[no-any-return]  # its result is checked by export
    defined = sorted(
        key
        for key, value in vars(module).items()
        if callable(value) and getattr(value, "__module__", None) == module.__name__
    )
    raise InputError(
        f"{source} has no callable {name!r}; it defines: {', '.join(defined) or 'none'}"
    )


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name and (name == exc.name or name.startswith(exc.name + ".")):
            raise InputError(
                f"there is no module {name!r}; it must be installed or lie in {Path.cwd()}"
            ) from exc
        raise InputError(f"{name} needs {exc.name!r}, which is not installed") from exc
    except Exception as exc:
        raise InputError(f"importing {name} raised {type(exc).__name__}: {exc}") from exc


def _import_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f"there is no file {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None  # a .py file always has a loader
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(path.stem)
    sys.modules[path.stem] = module  # dataclasses and pickles look their module up here
    writes_bytecode = not sys.dont_write_bytecode
    try:
        # Triton would take a __pycache__ beside a file in a model repository for a model.
        sys.dont_write_bytecode = True
        spec.loader.exec_module(module)
    except Exception as exc:
        if before is None:
            del sys.modules[path.stem]
        else:
            sys.modules[path.stem] = before
        if isinstance(exc, ModuleNotFoundError):
            raise InputError(f"{path} needs {exc.name!r}, which is not installed") from exc
        raise InputError(f"running {path} raised {type(exc).__name__}: {exc}") from exc
    finally:
        sys.dont_write_bytecode = not writes_bytecode
    return module


@contextmanager
def _first_on_path(folder: Path) -> Iterator[None]:
    sys.path.insert(0, str(folder))
    try:
        yield
    finally:
        sys.path.remove(str(folder))
