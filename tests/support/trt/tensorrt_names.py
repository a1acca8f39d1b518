"""Which TensorRT names our source uses, found by walking it, and which names a release has."""

from __future__ import annotations

import ast
import contextlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import tritonsmith_generator

PACKAGE = Path(tritonsmith_generator.__file__).parent
SOURCES = (
    *sorted(
        PACKAGE / "trt" / f"{name}.py"
        for name in ("builder", "callbacks", "config", "plugins", "run_plan", "runtime")
    ),
    *sorted((PACKAGE / "backends" / "common").rglob("plan_*.py")),
)

# What our variables hold; "" is the module itself.
CLASSES = {
    "trt": "",
    "builder": "Builder",
    "network": "INetworkDefinition",
    "parser": "OnnxParser",
    "error": "ParserError",
    "tensor": "ITensor",
    "config": "IBuilderConfig",
    "profile": "IOptimizationProfile",
    "registry": "IPluginRegistry",
    "cache": "ITimingCache",
    "runtime": "Runtime",
    "engine": "ICudaEngine",
    "inspector": "EngineInspector",
    "plan": "IHostMemory",
    "self._runtime": "Runtime",
    "self.engine": "ICudaEngine",
    "opened.engine": "ICudaEngine",
    "context": "IExecutionContext",
}

# Symbols that the bindings want from NVIDIA's libraries when they are imported.
_SYMBOLS = (
    "createInferBuilder_INTERNAL",
    "createInferRefitter_INTERNAL",
    "createInferRuntime_INTERNAL",
    "createNvOnnxParserRefitter_INTERNAL",
    "createNvOnnxParser_INTERNAL",
    "getBuilderPluginRegistry",
    "getNvOnnxParserVersion",
    "getPluginRegistry",
    "initLibNvInferPlugins",
)
_LIBRARIES = ("nvinfer", "nvonnxparser", "nvinfer_plugin")
_LIST_NAMES = """
import importlib, json, sys
trt = importlib.import_module(sys.argv[1])
names = [name for name in dir(trt)]
for name in list(names):
    if isinstance(getattr(trt, name), type):
        names += [f"{name}.{member}" for member in dir(getattr(trt, name))]
print(json.dumps(names))
"""


@dataclass(frozen=True)
class Use:
    """``name`` is ``Class.member`` or ``Class``; ``guarded`` by a hasattr in the same file."""

    name: str
    where: str
    guarded: bool


def uses() -> Iterator[Use]:
    """Every TensorRT name in our source."""
    for path in SOURCES:
        tree = ast.parse(path.read_text())
        guards = {
            ast.unparse(node.args[0]) + "." + str(ast.literal_eval(node.args[1]))
            for node in ast.walk(tree)
            if isinstance(node, ast.Call)
            and ast.unparse(node.func) == "hasattr"
            and isinstance(node.args[1], ast.Constant)
        }
        for node in ast.walk(tree):
            if isinstance(node, ast.Attribute) and not node.attr.startswith("__"):
                name = _name(ast.unparse(node.value), node.attr)
                if name is not None:
                    guarded = ast.unparse(node) in guards
                    yield Use(name, f"{path.name}:{node.lineno}", guarded)


def _name(receiver: str, member: str) -> str | None:
    if receiver in CLASSES:
        return f"{CLASSES[receiver]}.{member}".lstrip(".")
    if receiver.startswith("trt."):
        return f"{receiver.removeprefix('trt.')}.{member}"
    return None


def names_of_installed(library: str) -> frozenset[str]:
    """Every ``Class`` and ``Class.member`` of an installed library."""
    return _list_names(library, {})


def names_of_bindings(version: str, folder: Path) -> frozenset[str]:
    """The names in NVIDIA's Python bindings of this version, imported over empty libraries.

    Raises FileNotFoundError without gcc, CalledProcessError where pip cannot fetch them.
    """
    major = version.partition(".")[0]
    wheel = f"tensorrt_cu13_bindings=={version}"
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--only-binary=:all:"]
    pip += ["--retries", "1", "--timeout", "15", "-d", str(folder)]
    home = folder / f"{version}-{sys.implementation.cache_tag}"
    if not home.is_dir():
        subprocess.run([*pip, wheel], check=True, capture_output=True, text=True, timeout=120)
        (found,) = folder.glob(
            f"tensorrt_cu13_bindings-{version}-cp3{sys.version_info.minor}-*.whl"
        )
        with zipfile.ZipFile(found) as archive, tempfile.TemporaryDirectory(dir=folder) as part:
            archive.extractall(Path(part) / home.name)
            # Another run of the tests may have been first.
            with contextlib.suppress(OSError):
                (Path(part) / home.name).rename(home)
    source = home / "stubs.c"
    source.write_text("".join(f"void *{symbol}(void) {{ return 0; }}\n" for symbol in _SYMBOLS))
    for library in _LIBRARIES:
        soname = f"lib{library}.so.{major}"
        compiler = ["gcc", "-shared", "-fPIC", f"-Wl,-soname,{soname}"]
        subprocess.run(
            [*compiler, "-o", str(home / soname), str(source)], check=True, capture_output=True
        )
    return _list_names(
        "tensorrt",
        {"LD_LIBRARY_PATH": str(home), "PYTHONPATH": str(home / "tensorrt_bindings")},
    )


def _list_names(library: str, environment: Mapping[str, str]) -> frozenset[str]:
    listed = subprocess.run(
        [sys.executable, "-c", _LIST_NAMES, library],
        check=True,
        capture_output=True,
        text=True,
        env={"PATH": "/usr/bin:/bin", **environment},
    )
    return frozenset(json.loads(listed.stdout))
