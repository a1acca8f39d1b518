"""What an image holds, as its own Python and its own TensorRT say; asked once for each image."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tritonsmith_generator.containers.engine import Image
from tritonsmith_generator.containers.run_to_end import run_in_image
from tritonsmith_generator.errors import HostError
from tritonsmith_generator.host.cache_dir import cache_folder, make_once
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.availability import Release

__all__ = ["Contents", "contents_of"]

_FILE = "contents.json"
_MARK = "@contents "
_OLDEST_PYTHON = (3, 10)
_LIBRARIES: tuple[tuple[Library, str], ...] = (
    ("tensorrt", "libnvinfer.so."),
    ("tensorrt_rtx", "libtensorrt_rtx.so."),
)

# For any Python 3: a message about its version must not need that version.
_PROBE = r"""
import ctypes, glob, importlib.util, json, os, platform, re, subprocess, sys

def version(path):
    library = ctypes.CDLL(path)
    try:
        parts = [getattr(library, "getInferLib%sVersion" % part)()
                 for part in ("Major", "Minor", "Patch", "Build")]
    except AttributeError:
        number = library.getInferLibVersion()  # 8601 is 8.6.1
        parts = [number // 1000, number // 100 % 10, number % 100]
    return ".".join(map(str, parts))

def found(module, start):
    listed = subprocess.run(["/sbin/ldconfig", "-p"], stdout=subprocess.PIPE).stdout.decode()
    paths = re.findall(r"=> (\S*/%s\d+)$" % re.escape(start), listed, re.M)
    folders = [f for f in os.environ.get("LD_LIBRARY_PATH", "").split(":") if f]
    for package in (module + "_libs", module):
        spec = importlib.util.find_spec(package)
        folders += spec.submodule_search_locations or () if spec else ()
    for folder in folders:
        paths += glob.glob(folder + "/" + start + "*")
    for path in paths:
        try:
            return version(path)
        except OSError:
            pass

print("@contents " + json.dumps({
    "python": list(sys.version_info[:2]),
    "machine": platform.machine(),
    "libraries": {module: found(module, start) for module, start in LIBRARIES},
    "bindings": [module for module, _ in LIBRARIES if importlib.util.find_spec(module)],
}))
"""


@dataclass(frozen=True)
class Contents:
    """An image's Python and TensorRT.

    Attributes:
        python: such as "3.12".
        machine: such as "x86_64".
        releases: the TensorRT libraries.
        bindings: the libraries that its Python can import; one may be there without.
    """

    python: str
    machine: str
    releases: tuple[Release, ...]
    bindings: tuple[Library, ...]


def contents_of(image: Image) -> Contents:
    """Raise HostError if the image does not run, or has no TensorRT or Python for a build."""
    folder = cache_folder("images") / image.id.replace(":", "-")
    make_once(folder, lambda new: _ask(image, new))
    return _contents(image, json.loads((folder / _FILE).read_text()))


def _ask(image: Image, folder: Path) -> None:
    lines: list[str] = []
    probe = f"LIBRARIES = {_LIBRARIES!r}\n{_PROBE}"
    run = run_in_image(image, ["python3", "-c", probe], lines.append)
    told = [line.removeprefix(_MARK) for line in lines if line.startswith(_MARK)]
    if run.code or not told:
        said = "\n  ".join([" It said last:", *lines[-8:]]) if lines else " It said nothing."
        raise HostError(f"{image.name} can't be asked what it holds: {run.fate}.{said}")
    (folder / _FILE).write_text(told[0])


def _contents(image: Image, told: dict[str, Any]) -> Contents:
    python = tuple(told["python"])
    if python < _OLDEST_PYTHON:
        raise HostError(
            f"{image.name} has Python {'.'.join(map(str, python))}, and the build inside it needs "
            "3.10 or newer: take a newer release"
        )
    releases = tuple(
        Release.parse(library, told["libraries"][library])
        for library, _ in _LIBRARIES
        if told["libraries"][library]
    )
    if not releases:
        raise HostError(f"{image.name} has no TensorRT, so no plan can be built in it")
    bindings = tuple(library for library, _ in _LIBRARIES if library in told["bindings"])
    return Contents(".".join(map(str, python)), told["machine"], releases, bindings)
