"""The one file that talks to TensorRT: ``tensorrt`` 8.6, 10 and 11, and ``tensorrt_rtx``.

Everything here runs in a process of its own: one build, one logger.
What the releases differ in is in ``builder_options``.
"""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any

from tritonsmith_generator.errors import HostError, InputError, TritonsmithError
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.onnx_model.profiles import check_profiles
from tritonsmith_generator.onnx_model.signature import Signature, Tensor
from tritonsmith_generator.spec.builder_options import Library
from tritonsmith_generator.trt.availability import Release, has
from tritonsmith_generator.trt.callbacks import ROOT_PHASE, error_recorder, progress_monitor
from tritonsmith_generator.trt.config import builder_config
from tritonsmith_generator.trt.layers import EngineLayers, engine_layers
from tritonsmith_generator.trt.plugins import load_plugins
from tritonsmith_generator.trt.request import (
    EngineReport,
    EngineRequest,
    PlanAnswers,
    PlanQuestion,
    Progress,
    UnsupportedNode,
    refusal,
)
from tritonsmith_generator.trt.runtime import load, logger, prepared, taken
from tritonsmith_generator.trt.timing_cache import merge_timing_cache

__all__ = ["ask", "build", "unsupported_nodes"]

Emit = Callable[[Progress], None]

# ErrorCodeTRT that blame the machine, not the model.
_HOST_CODES = frozenset(
    {"FAILED_ALLOCATION", "FAILED_INITIALIZATION", "FAILED_COMPUTATION", "FAILED_EXECUTION"}
)
_WAITING = Progress("waiting for another build on the GPU", None, 0, None, "start")


def build(request: EngineRequest, emit: Emit) -> EngineReport:
    """Parse, build and write the plan. Raises InputError and HostError."""
    trt, release = _load(request.library)
    for texts in (logger(trt).warnings, logger(trt).errors):  # of what was checked before
        texts.clear()
    parts: dict[str, float] = {}
    began = time.monotonic()
    builder = taken(request.library)
    with _timed(parts, "parse"):
        deferred = load_plugins(trt, request.options.plugins)
        with _loading_the_rest():
            network, parser, understood = _parse(trt, release, builder, request.onnx)
    if not understood:
        nodes = _refused(release, parser, request.onnx)
        raise refusal(str(release), request.onnx, nodes or logger(trt).errors)
    from concurrent.futures import ThreadPoolExecutor  # by now they are loaded

    from tritonsmith_generator.host.gpu_lock import gpu_turn

    signature, layers = _signature(network), network.num_layers
    check_profiles(signature, request.profiles)
    config = builder_config(trt, release, builder, request.options)
    if has(release, "IBuilderConfig.progress_monitor"):
        config.progress_monitor = progress_monitor(trt, emit)
    _add_profiles(builder, network, config, request)
    # Not earlier: a parser made while a recorder is set crashes when it is destroyed (RTX 1.7).
    builder.error_recorder = errors = error_recorder(trt)
    errors.seen.clear()  # of an earlier build in this process
    with gpu_turn(lambda: emit(_WAITING)) as waited, _timed(parts, "build"):
        if waited:
            emit(replace(_WAITING, state="finish"))
        emit(Progress(ROOT_PHASE, None, 0, None, "start"))
        plan = builder.build_serialized_network(network, config)
        emit(Progress(ROOT_PHASE, None, 0, None, "finish"))
    if plan is None:
        raise _build_failure(release, request, errors.seen)
    seconds = time.monotonic() - began - waited
    if request.options.timing_cache is not None:
        merge_timing_cache(config, request.options.timing_cache)
    gpus = visible_gpus()
    with ThreadPoolExecutor(1) as pool:
        written = pool.submit(_write, plan, request, parts)
        with _timed(parts, "inspect"):
            inspected = _inspect(trt, plan) if gpus else None
        written.result()
    return EngineReport(
        library=request.library,
        version=trt.__version__,
        seconds=seconds,
        plan_bytes=plan.nbytes,
        layers=layers,
        signature=signature,
        profiles=request.profiles,
        warnings=tuple(dict.fromkeys(logger(trt).warnings)),
        compute_capability=gpus[0].compute_capability if gpus else None,
        engine_layers=inspected,
        parts={part: round(took, 3) for part, took in parts.items()},
        deferred_plugins=tuple(plugin.name for plugin in deferred),
    )


@contextmanager
def _loading_the_rest() -> Iterator[None]:
    """Load what is needed later while a graph is parsed, which does not hold Python's lock.

    It is there when the block ends: two threads that import numpy at once can see half of it.
    """
    thread = Thread(target=_load_the_rest, daemon=True)
    thread.start()
    try:
        yield
    finally:
        thread.join()


def _load_the_rest() -> None:
    visible_gpus()
    for name in ("concurrent.futures.thread", "tritonsmith_generator.trt.run_plan"):
        importlib.import_module(name)


@contextmanager
def _timed(parts: dict[str, float], part: str) -> Iterator[None]:
    began = time.monotonic()
    yield
    parts[part] = time.monotonic() - began


def unsupported_nodes(
    library: Library, onnx: Path, plugins: tuple[Path, ...]
) -> tuple[UnsupportedNode, ...]:
    """Return the nodes that the installed TensorRT cannot take. Raises InputError and HostError."""
    trt, release = _load(library)
    builder = prepared(library)
    load_plugins(trt, plugins)
    _, parser, understood = _parse(trt, release, builder, onnx)
    return () if understood else _refused(release, parser, onnx)


def ask(question: PlanQuestion, emit: Emit) -> PlanAnswers:
    """Run a plan that lies on the disk. Raises HostError."""
    from tritonsmith_generator.trt.run_plan import answers

    trt, _ = _load(question.library)
    logger(trt).errors.clear()  # of the build before
    load_plugins(trt, question.plugins)  # where the plan is an earlier build's
    return answers(trt, question, lambda: emit(_WAITING))


def _load(library: Library) -> tuple[Any, Release]:
    trt = load(library)
    return trt, Release.parse(library, trt.__version__)


def _network(trt: Any, release: Release, builder: Any) -> Any:
    flag = (
        trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED
        if release.strongly_typed
        else trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH
    )
    return builder.create_network(1 << int(flag))


def _parse(trt: Any, release: Release, builder: Any, onnx: Path) -> tuple[Any, Any, bool]:
    """Return the network, its parser and whether TensorRT can take all of the model."""
    network = _network(trt, release, builder)
    parser = trt.OnnxParser(network, logger(trt))
    # By path: a model over 2 GB cannot be passed in memory, nor can external data.
    return network, parser, parser.parse_from_file(str(onnx))


def _refused(release: Release, parser: Any, onnx: Path) -> tuple[UnsupportedNode, ...]:
    errors = [parser.get_error(index) for index in range(parser.num_errors)]
    if has(release, "ParserError.node_operator"):
        return tuple(
            UnsupportedNode(error.node(), error.node_name(), error.node_operator(), _reason(error))
            for error in errors
        )
    # 8.6 stops at the first error and names nodes by number only.
    reasons = {error.node(): _reason(error) for error in errors}
    _, groups = parser.supports_model(onnx.read_bytes(), str(onnx))
    supported = {node for nodes, good in groups if good for node in nodes}
    return tuple(
        UnsupportedNode(index, node.name, node.op_type, reasons.get(index, "not supported"))
        for index, node in enumerate(_nodes(onnx))
        if index in reasons or index not in supported
    )


def _nodes(onnx: Path) -> Any:
    from onnx import load

    return load(onnx, load_external_data=False).graph.node


def _reason(error: Any) -> str:
    """Return the parser's words; where it gives a failed assertion only, the name of its kind."""
    kind = str(error.code()).rpartition(".")[2].replace("_", " ").lower()
    text = error.desc()
    return kind if text in ("", "false") else f"{kind}: {text}"


def _signature(network: Any) -> Signature:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    outputs = [network.get_output(index) for index in range(network.num_outputs)]
    return Signature(tuple(map(_tensor, inputs)), tuple(map(_tensor, outputs)))


def _tensor(tensor: Any) -> Tensor:
    from tritonsmith_client.dtypes import DATA_TYPES

    kind = tensor.dtype.name
    dtype = next((row for row in DATA_TYPES if row.tensorrt == kind), None)
    if dtype is None:
        raise InputError(f"'{tensor.name}' has data type {kind}, which Triton cannot serve")
    shape = tuple(
        size if size >= 0 else tensor.get_dimension_name(axis) or "?"
        for axis, size in enumerate(tuple(tensor.shape))
    )
    return Tensor(tensor.name, dtype, shape)


def _add_profiles(builder: Any, network: Any, config: Any, request: EngineRequest) -> None:
    inputs = [network.get_input(index) for index in range(network.num_inputs)]
    valued = [tensor.name for tensor in inputs if tensor.is_shape_tensor]
    values = request.values or ({},) * len(request.profiles)
    if valued and not request.values:
        raise InputError(
            f"the values of {', '.join(valued)} decide the shapes of other tensors: TensorRT has "
            "to know their min, opt and max for each profile. Give them (in a spec under "
            f"shapes.{valued[0]}.values), or fix them in the model"
        )
    profiles = request.profiles or ({},) * len(values)
    if len(values) != len(profiles):
        raise InputError(f"there are {len(profiles)} profiles and values for {len(values)} of them")
    for shapes, known in zip(profiles, values, strict=True):
        profile = builder.create_optimization_profile()
        for name, shape in shapes.items():
            if name not in valued:
                profile.set_shape(name, shape.min, shape.opt, shape.max)
        for name in valued:
            if name not in known:
                raise InputError(f"a profile lacks min, opt and max of the values of '{name}'")
            profile.set_shape_input(name, known[name].min, known[name].opt, known[name].max)
        if config.add_optimization_profile(profile) < 0:
            raise InputError(f"TensorRT takes no such profile: {dict(shapes)} {dict(known)}")


def _build_failure(release: Release, request: EngineRequest, errors: Any) -> TritonsmithError:
    """Get the error for a build that gave no plan; ``errors`` is a list of (ErrorCodeTRT, text)."""
    listed = "\n  ".join(dict.fromkeys(text for _, text in errors)) or "it gave no reason"
    pools = ", ".join(f"{name} {size} bytes" for name, size in request.options.memory_pools.items())
    limits = (
        f"\nMemory was limited ({pools}): raise the limit if that is too little." if pools else ""
    )
    gpus = ", ".join(request.options.compute_capabilities)
    if gpus:
        limits += (
            f"\nIt was to run on compute capability {gpus}, and not each has every data type: "
            "leave some out, or take another precision."
        )
    kind = HostError if any(code.name in _HOST_CODES for code, _ in errors) else InputError
    return kind(f"{release} built no engine from {request.onnx.name}:\n  {listed}{limits}")


def _inspect(trt: Any, plan: Any) -> EngineLayers | None:
    """Return the engine's layers; None if the plan is for another machine than this one."""
    runtime = trt.Runtime(logger(trt))
    runtime.engine_host_code_allowed = True  # the lean runtime in a plan of our own making
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        return None
    inspector = engine.create_engine_inspector()
    return engine_layers(inspector.get_engine_information(trt.LayerInformationFormat.JSON))


def _write(plan: Any, request: EngineRequest, parts: dict[str, float]) -> None:
    # Nobody waits until it is on the disk (fsync): what is published from it will be.
    try:
        with _timed(parts, "write"):
            request.unfinished.write_bytes(memoryview(plan))
            request.unfinished.replace(request.plan)
    except OSError as exc:
        raise HostError(
            f"cannot write {request.plan} ({plan.nbytes} bytes): {exc.strerror}. "
            "Free space there, or choose another folder"
        ) from exc
