"""The embedded server's own environment: tritonserver's files and the Python packages of its stub.

Both lie in the user's cache folder, apart from the environment that runs us: the stub needs
numpy 1.x, with numpy 2 it would serve empty outputs without an error.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.events import Progress
from tritonsmith_generator.host import pip
from tritonsmith_generator.host.cache_dir import cache_folder, make_once
from tritonsmith_generator.serve.embedded.interpreter import (
    PYTHON_VERSIONS,
    Interpreter,
    check_platform,
    find_interpreter,
    probe,
)

__all__ = ["PACKAGES", "WHEEL", "Environment", "modules", "prepare"]

WHEEL = "nvidia-pytriton==0.7.0"  # carries tritonserver 2.51
_SERVER_FILES = "pytriton/tritonserver/"
_LIBRARIES = "nvidia_pytriton.libs/"
PACKAGES = {
    "3.10": ("numpy==1.26.4", "onnxruntime==1.23.2"),
    "3.11": ("numpy==1.26.4", "onnxruntime==1.31.1"),
    "3.12": ("numpy==1.26.4", "onnxruntime==1.31.1"),
}
_CUDA = "cuda-bindings>=12.6,<13"  # 12 runs on every driver that TensorRT 8.6 to 11 run on
_MODULES = ("numpy", "onnxruntime", "tensorrt", "tensorrt_rtx", "cuda.bindings")


@dataclass(frozen=True)
class Environment:
    """All that starting a server needs from the disk.

    Attributes:
        tritonserver: the executable.
        caches: the folder of the response cache's library.
        python_backend: the Python backend, with the stub that fits ``interpreter``.
        interpreter: the Python that runs the models.
        packages: folders for its ``sys.path``, the first wins.
    """

    tritonserver: Path
    caches: Path
    python_backend: Path
    interpreter: Interpreter
    packages: tuple[str, ...]


def prepare(
    server_env: Path | None = None,
    on_progress: Progress | None = None,
    runtimes: Sequence[str] = (),
) -> Environment:
    """Get the environment, made on first use (about a minute) and repaired where files are missing.

    ``server_env`` is a virtual environment, or a folder of packages, to be used for the models
    instead of ours. ``runtimes`` are the TensorRT modules that the models need; they come from
    the environment that runs us, since a plan needs the very version that built it.
    Raises HostError where this machine can't run the server or the files can't be fetched.
    """
    check_platform()
    report = on_progress or (lambda text, done: None)
    if server_env is None:
        interpreter = find_interpreter()
        borrowed = _borrowed(runtimes, interpreter)
        extra = (_CUDA,) if borrowed and not _where("cuda.bindings") else ()
        packages = (str(_packages(interpreter, extra, report)), *borrowed)
    else:
        interpreter = _from_user(server_env)
        packages = interpreter.path
    home = _tritonserver(report) / _SERVER_FILES
    return Environment(
        home / "bin" / "tritonserver",
        home / "caches",
        home / "backends" / interpreter.version,
        interpreter,
        packages,
    )


def modules(environment: Environment) -> dict[str, str]:
    """Name and version ("" where it tells none) of the modules that the models could import."""
    script = (
        "import importlib, json, sys\n"
        f"sys.path[1:1] = {list(environment.packages)!r}\n"
        "found = {}\n"
        f"for name in {_MODULES!r}:\n"
        "    try: found[name] = getattr(importlib.import_module(name), '__version__', '')\n"
        "    except Exception: pass\n"
        "print(json.dumps(found))\n"
    )
    python = str(environment.interpreter.executable)
    done = subprocess.run([python, "-I", "-c", script], capture_output=True, text=True, check=False)
    if done.returncode:
        raise HostError(f"{python} cannot run the server's packages: {done.stderr.strip()}")
    found: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return found


def _from_user(folder: Path) -> Interpreter:
    """Give the interpreter of a virtual environment, or ours with a folder of packages in front."""
    python = folder / "bin" / "python"
    if python.exists():
        interpreter = probe(python)
    elif folder.is_dir():
        interpreter = replace(find_interpreter(), path=(str(folder.absolute()),))
    else:
        raise HostError(f"--server-env {folder}: no such folder")
    environment = Environment(folder, folder, folder, interpreter, interpreter.path)
    numpy = modules(environment).get("numpy")
    if numpy is None or not numpy.startswith("1."):
        has = f"numpy {numpy}" if numpy else "no numpy"
        raise HostError(
            f"--server-env {folder}: it has {has}, and the server's Python backend needs numpy 1 "
            "(with numpy 2 every output would be empty). Install it there: pip install 'numpy<2'"
        )
    return interpreter


def _borrowed(modules: Sequence[str], interpreter: Interpreter) -> tuple[str, ...]:
    """Return our own environment's folders with these modules, if both run the same Python."""
    if interpreter.version != "{}.{}".format(*sys.version_info[:2]):
        return ()
    found = [_where(name) for name in modules]
    wanted = [*found, _where("cuda.bindings")] if any(found) else []
    return tuple(dict.fromkeys(folder for folder in wanted if folder))


def _where(module: str) -> str | None:
    """Give the ``sys.path`` folder from which we would import this module; nothing is imported."""
    top, _, rest = module.partition(".")
    spec = importlib.util.find_spec(top)
    for location in (spec.submodule_search_locations or ()) if spec else ():
        if not rest or (Path(location) / rest).is_dir():
            return str(Path(location).parent)
    return None


def _packages(interpreter: Interpreter, extra: Sequence[str], report: Progress) -> Path:
    requirements = (*PACKAGES[interpreter.version], *extra)
    digest = hashlib.sha256("\n".join(requirements).encode()).hexdigest()[:12]
    folder = cache_folder("server") / f"python{interpreter.version}-{digest}"

    def make(new: Path) -> None:
        report(f"installing {', '.join(requirements)}", 0.0)
        pip.install(requirements, new, interpreter.executable, interpreter.version)
        report("installed the Python packages", 0.5)

    return make_once(folder, make)


def _tritonserver(report: Progress) -> Path:
    folder = cache_folder("server") / WHEEL.replace("==", "-")

    def make(new: Path) -> None:
        report("downloading tritonserver (55 MB)", 0.5)
        with tempfile.TemporaryDirectory(dir=new.parent) as download:
            wheel = pip.download(WHEEL, Path(download))
            report("unpacking tritonserver", 0.8)
            _unpack(wheel, new)
        report("unpacked tritonserver", 1.0)

    return make_once(folder, make)


def _unpack(wheel: Path, to: Path) -> None:
    """Unpack the server's files only, laid out as its libraries' relative search paths expect.

    Each Python version gets a Python backend of its own, ``backends/3.11`` for one, because
    the stub must lie beside the backend's library and under one name.
    """
    with zipfile.ZipFile(wheel) as archive:
        for name in archive.namelist():
            wanted = name.startswith((_SERVER_FILES, _LIBRARIES)) and "libpython" not in name
            if wanted and not name.endswith("/"):
                archive.extract(name, to)
    home = to / _SERVER_FILES
    for version in PYTHON_VERSIONS:
        backend = home / "backends" / version
        shutil.copytree(home / "backends" / "python", backend)
        shutil.copy(home / "python_backend_stubs" / version / "triton_python_backend_stub", backend)
        (backend / "triton_python_backend_stub").chmod(0o755)
    shutil.rmtree(home / "python_backend_stubs")
    shutil.rmtree(home / "backends" / "python")
    (home / "bin" / "tritonserver").chmod(0o755)
