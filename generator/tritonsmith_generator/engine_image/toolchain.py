"""The TensorRT inside a server image, as a place where plans are compiled."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from docker.types import Mount

import tritonsmith_client
from tritonsmith_generator import errors, layout
from tritonsmith_generator.containers.engine import Image, connect, ensure_image
from tritonsmith_generator.containers.run_to_end import run_in_image
from tritonsmith_generator.engine.process import EngineProcess
from tritonsmith_generator.engine_image.entrypoint import MARK
from tritonsmith_generator.engine_image.messages import (
    decode_report,
    encode_question,
    encode_request,
)
from tritonsmith_generator.engine_image.npz import read_arrays, write_arrays
from tritonsmith_generator.engine_image.packages import packages_for
from tritonsmith_generator.engine_image.probe import Contents, contents_of
from tritonsmith_generator.errors import HostError
from tritonsmith_generator.events import Progress as Report
from tritonsmith_generator.host.cache_dir import cache_folder
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.host.work_dir import work_folder
from tritonsmith_generator.spec.builder_options import LIBRARY_NAMES, Library
from tritonsmith_generator.trt.availability import Release
from tritonsmith_generator.trt.request import (
    EngineReport,
    EngineRequest,
    PlanAnswers,
    PlanQuestion,
    Progress,
    UnsupportedNode,
    check_request,
)
from tritonsmith_generator.workers.process import run_isolated, stop_running

__all__ = ["ImageToolchain", "image_toolchain"]

_OURS = "/tritonsmith"
_WORK = Path(f"{_OURS}/work")
_SHOWN_LINES = 16
_ASKED, _ANSWERED = "asked.npz", "answered.npz"
Emit = Callable[[Progress], None]


@dataclass(frozen=True)
class ImageToolchain:
    """A ``Toolchain``: each build, and each run of a plan, has a container of the image.

    ``packages`` is the folder of what the image's Python lacks.
    """

    image: Image
    contents: Contents
    packages: Path

    @property
    def compiles_here(self) -> bool:
        return False

    @property
    def releases(self) -> tuple[Release, ...]:
        return self.contents.releases

    @property
    def identity(self) -> Mapping[str, str]:
        return {"image": self.image.digest or self.image.id}

    @property
    def facts(self) -> Mapping[str, str]:
        found = {"image_name": self.image.name}
        if cuda := self.image.environment.get("CUDA_VERSION"):
            found["cuda"] = cuda
        if gpus := visible_gpus():
            found["driver"] = gpus[0].driver
        return found

    @property
    def timings(self) -> Path:
        return cache_folder("timing") / self.image.id.replace(":", "-")

    def missing(self, library: Library) -> HostError:
        has = ", ".join(map(str, self.releases))
        return HostError(
            f"target {library}: {self.image.name} has no {LIBRARY_NAMES[library]}; it has {has}"
        )

    def process(self, library: Library) -> EngineProcess:
        return _ImageProcess(self)


class _ImageProcess(EngineProcess):
    """A container for each build and each run.

    The program in between makes Ctrl-C and threads the same as where TensorRT is at hand.
    """

    def __init__(self, toolchain: ImageToolchain) -> None:
        self._toolchain = toolchain
        self._building = False

    def prepare(self) -> None:
        pass

    def unsupported(self, onnx: Path, plugins: tuple[Path, ...]) -> tuple[UnsupportedNode, ...]:
        return ()  # not known before the build there

    def build(self, request: EngineRequest, on_progress: Emit) -> EngineReport:
        check_request(request)
        self._building = True
        try:
            return run_isolated(
                _build,
                (self._toolchain, request),
                on_progress,
                what=f"the engine build of {request.onnx.name} in {self._toolchain.image.name}",
            )
        finally:
            self._building = False
            request.unfinished.unlink(missing_ok=True)

    def ask(self, question: PlanQuestion, on_progress: Emit) -> PlanAnswers:
        with work_folder() as folder:
            write_arrays(folder / _ASKED, question.inputs)
            return run_isolated(
                _ask,
                (self._toolchain, replace(question, inputs=()), folder),
                on_progress,
                what=f"the run of the plan in {self._toolchain.image.name}",
            )

    def stop(self) -> None:
        if self._building:
            stop_running()

    def __enter__(self) -> EngineProcess:
        return self

    def __exit__(self, *_: object) -> None:
        pass


def image_toolchain(name: str, on_progress: Report) -> ImageToolchain:
    """Return the TensorRT of this image, pulled if it is not here. Raises HostError."""
    with contextlib.closing(connect()) as client:
        image = ensure_image(client, name, on_progress)
    contents = contents_of(image)
    return ImageToolchain(image, contents, packages_for(image, contents, on_progress))


def _build(work: tuple[ImageToolchain, EngineRequest], emit: Emit) -> EngineReport:
    toolchain, request = work
    inside, mounts = _moved(request)
    what = f"the engine build of {request.onnx.name} gave no plan"
    command = ("build", encode_request(inside))
    return decode_report(_inside(toolchain, command, mounts, emit, "report", what), request)


def _ask(work: tuple[ImageToolchain, PlanQuestion, Path], emit: Emit) -> PlanAnswers:
    toolchain, question, folder = work
    plugins, mounts = _plugins(question.plugins)
    moved = replace(question, plan=_WORK / "plan" / question.plan.name, plugins=plugins)
    mounts += [
        _mount(f"{_WORK}/plan", question.plan.parent),
        _mount(f"{_WORK}/answers", folder, read_only=False),
        *_turns(),
    ]
    there = _WORK / "answers"
    command = ("ask", encode_question(moved, there / _ASKED, there / _ANSWERED))
    what = "the run of the plan gave no answers"
    skipped = _inside(toolchain, command, mounts, emit, "answers", what)
    return PlanAnswers(read_arrays(folder / _ANSWERED), skipped)


def _inside(
    toolchain: ImageToolchain,
    command: Sequence[str],
    mounts: Sequence[Mount],
    emit: Emit,
    wanted: str,
    failed: str,
) -> Any:
    """Return what ``inside`` says of the kind that is wanted. Raises its errors, and HostError."""
    answers: dict[str, Any] = {}
    others: list[str] = []

    def on_line(line: str) -> None:
        if not line.startswith(MARK):
            others.append(line)
            return
        kind, value = json.loads(line.removeprefix(MARK))
        if kind == "progress":
            emit(Progress(**value))
        else:
            answers[kind] = value

    run = run_in_image(
        toolchain.image,
        ["python3", "-m", "tritonsmith_generator.engine_image.entrypoint", *command],
        on_line,
        mounts=[*_our_mounts(toolchain.packages), *mounts],
        environment={
            "PYTHONPATH": f"{_OURS}:{_OURS}/packages",
            "XDG_CACHE_HOME": str(_WORK / "cache"),
        },
        gpus="all" if visible_gpus() else "none",
    )
    if "error" in answers:
        kind, message = answers["error"]
        for mount in mounts:  # in our user's own words
            message = message.replace(mount["Target"], mount["Source"])
        raise getattr(errors, kind)(message)
    if wanted not in answers:
        said = "\n  ".join(["It said last:", *others[-_SHOWN_LINES:]]) if others else ""
        raise HostError(f"{failed}: {run.fate}.\n{said}")
    return answers[wanted]


def _our_mounts(packages: Path) -> list[Mount]:
    ours = {
        f"{_OURS}/{package.name}": package
        for package in (Path(tritonsmith_client.__file__).parent, layout.PACKAGE)
    }
    return [_mount(to, path) for to, path in (ours | {f"{_OURS}/packages": packages}).items()]


def _moved(request: EngineRequest) -> tuple[EngineRequest, list[Mount]]:
    """Return the request with its files where the container has them, and the mounts for that."""
    onnx = request.onnx.resolve()  # what a link leads to need not lie in its folder
    mounts = [
        _mount(f"{_WORK}/model", onnx.parent),
        _mount(f"{_WORK}/plan", request.plan.parent, read_only=False),
    ]
    options = request.options
    if cache := options.timing_cache:
        cache.parent.mkdir(parents=True, exist_ok=True)
        mounts.append(_mount(f"{_WORK}/timings", cache.parent, read_only=False))
        options = replace(options, timing_cache=_WORK / "timings" / cache.name)
    mounts += _turns()
    plugins, of_plugins = _plugins(options.plugins)
    mounts += of_plugins
    moved = replace(
        request,
        onnx=_WORK / "model" / onnx.name,
        plan=_WORK / "plan" / request.plan.name,
        options=replace(options, plugins=plugins),
    )
    return moved, mounts


def _turns() -> list[Mount]:
    """Where builds, inside and outside, wait for their turn on a GPU."""
    if not visible_gpus():
        return []
    turns = cache_folder("gpus")
    turns.mkdir(parents=True, exist_ok=True)
    return [_mount(f"{_WORK}/cache/tritonsmith/gpus", turns, read_only=False)]


def _plugins(plugins: Sequence[Path]) -> tuple[tuple[Path, ...], list[Mount]]:
    """Return the libraries where the container has them."""
    moved = tuple(_WORK / "plugins" / str(n) / plugin.name for n, plugin in enumerate(plugins))
    mounts = [_mount(str(to), plugin) for to, plugin in zip(moved, plugins, strict=True)]
    return moved, mounts


def _mount(inside: str, path: Path, read_only: bool = True) -> Mount:
    return Mount(inside, str(path.resolve()), type="bind", read_only=read_only)
