"""A real library with a TensorRT plugin, compiled without TensorRT's headers.

What TensorRT wants of it is in its binary interface: creators with the virtual functions of
IPluginCreatorV3One, and the functions that hand them over when TensorRT asks.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
from pathlib import Path

import pytest

needs_compiler = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None or shutil.which("g++") is None,
    reason="tensorrt_rtx or a C++ compiler is not installed",
)

_CREATOR = """
#include <cstdint>
struct Info { char const* kind; int32_t major, minor; };
struct Fields { int32_t count; void const* fields; };
struct Creator {
    virtual int32_t language() const noexcept { return 0; }
    virtual Info info() const noexcept { return {"PLUGIN CREATOR_V3ONE", 1, 0}; }
    virtual ~Creator() = default;
    virtual void* create(char const*, Fields const*, int32_t) noexcept { return nullptr; }
    virtual Fields const* fields() noexcept { return &none; }
    virtual char const* name() const noexcept { return NAME; }
    virtual char const* version() const noexcept { return VERSION; }
    virtual char const* space() const noexcept { return ""; }
    Fields none{0, nullptr};
} creator;
"""
_WHEN_ASKED = """
Creator* creators[] = {&creator};
extern "C" void setLoggerFinder(void*) {}
extern "C" void* getCreators(int32_t& count) { count = 1; return creators; }
extern "C" void* getPluginCreators(int32_t& count) { count = 0; return nullptr; }
"""
# What REGISTER_TENSORRT_PLUGIN comes to, with the IPluginRegistry of TensorRT for RTX.
_WHEN_OPENED = """
struct Registry {
    virtual ~Registry() = default;
    virtual void set_error_recorder(void*) = 0;
    virtual void* error_recorder() = 0;
    virtual bool parent_search() const = 0;
    virtual void set_parent_search(bool) = 0;
    virtual void* load_library(char const*) = 0;
    virtual void deregister_library(void*) = 0;
    virtual bool register_creator(Creator&, char const*) noexcept = 0;
};
extern "C" Registry* getPluginRegistry() noexcept;
struct AtStart { AtStart() { getPluginRegistry()->register_creator(creator, ""); } } at_start;
"""


def compile_plugin(
    library: Path, name: str = "Mine", version: int = 1, when_opened: bool = False
) -> Path:
    """``when_opened``: it registers its plugin by itself, and hands nothing over when asked."""
    source = library.with_suffix(".cpp")
    source.write_text(_CREATOR + (_WHEN_OPENED if when_opened else _WHEN_ASKED))
    defines = [f'-DNAME="{name}"', f'-DVERSION="{version}"']
    links = [str(_tensorrt())] if when_opened else []
    command = ["g++", "-shared", "-fPIC", *defines, "-o", str(library), str(source), *links]
    subprocess.run(command, check=True)
    return library


def _tensorrt() -> Path:
    found = importlib.util.find_spec("tensorrt_rtx_libs")
    assert found is not None
    assert found.submodule_search_locations
    return next(Path(found.submodule_search_locations[0]).glob("libtensorrt_rtx.so*"))
