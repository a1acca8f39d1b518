"""Plugin libraries of a model: a plan follows from their bytes, and none is built without them."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from support.command import GenRepo

SIMPLENET = Path(__file__).parents[2] / "model_repository/simplenet.onnx"

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("tensorrt_rtx") is None or shutil.which("g++") is None,
    reason="tensorrt_rtx or a C++ compiler is not installed",
)

# What TensorRT wants of a library: creators with the virtual functions of IPluginCreatorV3One.
LIBRARY = """
#include <cstdint>
struct Info { char const* kind; int32_t major, minor; };
struct Fields { int32_t count; void const* fields; };
struct Creator {
    virtual int32_t language() const noexcept { return 0; }
    virtual Info info() const noexcept { return {"PLUGIN CREATOR_V3ONE", 1, 0}; }
    virtual ~Creator() = default;
    virtual void* create(char const*, Fields const*, int32_t) noexcept { return nullptr; }
    virtual Fields const* fields() noexcept { return &none; }
    virtual char const* name() const noexcept { return "Mine"; }
    virtual char const* version() const noexcept { return VERSION; }
    virtual char const* space() const noexcept { return ""; }
    Fields none{0, nullptr};
} creator;
Creator* creators[] = {&creator};
extern "C" void setLoggerFinder(void*) {}
extern "C" void* getCreators(int32_t& count) { count = 1; return creators; }
extern "C" void* getPluginCreators(int32_t& count) { count = 0; return nullptr; }
"""


def compile_library(version: int) -> None:
    Path("mine.cpp").write_text(LIBRARY)
    define = f'-DVERSION="{version}"'
    command = ["g++", "-shared", "-fPIC", define, "-o", "libmine.so", "mine.cpp"]
    subprocess.run(command, check=True)


def spec(builder: str) -> None:
    Path("models.yaml").write_text(
        f"models: {{m: {{onnx: '{SIMPLENET}', target: tensorrt_rtx, builder: {builder}}}}}\n"
    )


def test_a_plan_follows_from_its_plugins(gen_repo: GenRepo) -> None:
    spec("{plugins: [libmine.so]}")
    compile_library(1)
    assert gen_repo("models.yaml", "-o", "repository").code == 0
    assert "up to date" in gen_repo("models.yaml", "-o", "repository").out
    compile_library(2)
    outcome = gen_repo("models.yaml", "-o", "repository", "--json")
    (model,) = json.loads(outcome.out)
    (plan,) = [stage for stage in model["stages"] if stage["stage"] == "plan"]
    assert (plan["ran"], plan["why"]) == (True, ["libmine.so: other bytes"])


def test_a_missing_plugin_is_told_although_the_plan_without_it_is_known(gen_repo: GenRepo) -> None:
    spec("{}")
    assert gen_repo("models.yaml", "-o", "without").code == 0
    spec("{plugins: [libmine.so]}")
    outcome = gen_repo("models.yaml", "-o", "missing")
    assert (outcome.code, "there is no plugin library" in outcome.err) == (1, True), outcome
    assert not Path("missing").exists()
    compile_library(1)
    assert gen_repo("models.yaml", "-o", "repository").code == 0
    Path("libmine.so").unlink()
    outcome = gen_repo("models.yaml", "-o", "repository")
    assert (outcome.code, "there is no plugin library" in outcome.err) == (1, True), outcome
