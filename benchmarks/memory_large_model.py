"""Peak memory of each pass, and of whole builds, on a model of 2.4 GB: multiples of its weights.

    python benchmarks/memory_large_model.py [--layers 9] [--only ROW]

The weights lie in a sparse file (almost all zero, so it takes no room on the disk). Each pass
runs in a process of its own; peak memory is what the system counted for it, file pages included.
A whole build is `gen-repo build` with its processes, looked at ten times a second: pages that
they share, and pages of files that they map, are counted once.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from time import perf_counter

import numpy as np
import onnx
from onnx import TensorProto, helper

from tritonsmith_generator.onnx_model import onnx_file
from tritonsmith_generator.passes import Options, Samples, for_precision, run

SIDE = 8192
BYTES = SIDE * SIDE * 4


def large_model(folder: Path, layers: int) -> Path:
    """A chain of MatMul and Relu; one weight of 256 MB per layer, in one external file."""
    data = folder / "model.onnx.data"
    diagonal = np.arange(SIDE, dtype=np.int64) * (SIDE + 1)
    with data.open("wb") as file:
        file.truncate(layers * BYTES)
    weights = np.memmap(data, np.float32, "r+", shape=(layers, SIDE * SIDE))
    weights[:, diagonal[::64]] = 1.0
    weights.flush()
    nodes, stored, last = [], [], "x"
    for layer in range(layers):
        tensor = TensorProto(name=f"w{layer}", data_type=TensorProto.FLOAT, dims=[SIDE, SIDE])
        tensor.data_location = TensorProto.EXTERNAL
        entries = {"location": data.name, "offset": layer * BYTES, "length": BYTES}
        for key, value in entries.items():
            tensor.external_data.add(key=key, value=str(value))
        stored.append(tensor)
        nodes.append(helper.make_node("MatMul", [last, f"w{layer}"], [f"h{layer}"]))
        nodes.append(helper.make_node("Relu", [f"h{layer}"], [f"r{layer}"]))
        last = f"r{layer}"
    shape = ["batch", SIDE]
    graph = helper.make_graph(
        nodes,
        "large",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(last, TensorProto.FLOAT, shape)],
        stored,
    )
    proto = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def convert(precision: str, model: Path, folder: Path, sparse: bool) -> None:
    options = Options(samples=Samples(str(folder / "samples.npz")), sparse=sparse)
    recipe = for_precision(precision, "tensorrt_rtx", "1.7", options)  # type: ignore[arg-type]
    work = folder / "work"
    work.mkdir()
    result = run(recipe.passes, model, work)
    print(
        f"  {' '.join(r.name for r in result.reports)}: {onnx_file.read(result.model).size:,} bytes"
    )


def whole_build(model: Path, folder: Path, target: str, precision: str) -> str:
    """``gen-repo build`` from the ONNX file to the published repository."""
    command = [sys.executable, "-m", "tritonsmith_generator", "build", str(model)]
    command += ["--target", target, "--precision", precision, "-o", str(folder / "repository")]
    command += ["--shape", f"x=1x{SIDE}:2x{SIDE}:4x{SIDE}"]
    environment = {**os.environ, "XDG_CACHE_HOME": str(folder / "cache")}
    start, peak = perf_counter(), 0
    with (folder / "log").open("w+") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env=environment)
        while process.poll() is None:
            peak = max(peak, sum(map(share_of_memory, family(process.pid))))
            time.sleep(0.1)
        log.seek(0)
        if process.returncode:
            return "FAILED: " + " ".join(log.read().split())[-300:]
    weights = onnx_file.read(model).size
    return (
        f"{perf_counter() - start:6.1f} s, peak {peak / 1e9:.2f} GB "
        f"= {peak / weights:.2f} x the weights"
    )


def family(pid: int) -> list[int]:
    """The process and all that it started, directly or not."""
    children = []
    for entry in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            children += map(int, entry.read_text().split())
        except OSError:  # it has just ended
            continue
    return [pid, *(member for child in children for member in family(child))]


def share_of_memory(pid: int) -> int:
    """Bytes in memory; what several processes share is divided among them."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except OSError:
        return 0
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) * 1024 if found else 0


def by_onnxruntime(precision: str, model: Path, folder: Path, sparse: bool) -> None:
    """ONNX Runtime's own FP16 converter, for comparison: it cannot pass the 2 GB of a protobuf."""
    from onnxruntime.transformers.float16 import convert_float_to_float16

    onnx.save(convert_float_to_float16(onnx.load(model)), folder / "ort.onnx")


def measured(work: Callable[..., None], *arguments: object) -> str:
    """Run in a fresh process: wall time, peak memory over the imports' own, or the failure."""
    context = multiprocessing.get_context("spawn")
    parent, child = context.Pipe()
    process = context.Process(target=_child, args=(child, work, arguments))
    process.start()
    answer: str = parent.recv()
    process.join()
    return answer


def peak_memory() -> int:
    """Bytes. Not ru_maxrss: that starts from the parent's."""
    line = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return int(line[1]) * 1024 if line else 0


def _child(pipe: object, work: Callable[..., None], arguments: tuple[object, ...]) -> None:
    before = peak_memory()
    start = perf_counter()
    try:
        work(*arguments)
    except Exception as exc:
        answer = f"FAILED: {type(exc).__name__}: {' '.join(str(exc).split())[:160]}"
    else:
        peak = peak_memory()
        weights = onnx_file.read(arguments[1]).size  # type: ignore[arg-type]  # it is the model
        answer = (
            f"{perf_counter() - start:6.1f} s, peak {peak / 1e9:.2f} GB "
            f"= {(peak - before) / weights:.2f} x the weights"
        )
    pipe.send(answer)  # type: ignore[attr-defined]  # a Connection


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--layers", type=int, default=9, help="256 MB of weights each")
    parser.add_argument("--only", default="", help="one of the rows")
    arguments = parser.parse_args()
    rows: dict[str, tuple[Callable[..., None], str, bool]] = {
        "fp16": (convert, "fp16", False),
        "bf16": (convert, "bf16", False),
        "2:4 sparse": (convert, "fp32", True),
        "int8": (convert, "int8", False),
        "fp16 by ONNX Runtime": (by_onnxruntime, "fp16", False),
    }
    print(f"{sys.version.split()[0]}, {arguments.layers * BYTES / 1e9:.2f} GB of weights")
    for name, (work, precision, sparse) in rows.items():
        if arguments.only not in ("", name):
            continue
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            model = large_model(folder, arguments.layers)
            np.savez(folder / "samples.npz", x=np.ones((2, SIDE), np.float32))
            print(f"{name:22} {measured(work, precision, model, folder, sparse)}", flush=True)
    for target in ("onnxruntime", "tensorrt_rtx"):
        name = f"build {target}"
        if arguments.only in ("", name):
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                model = large_model(folder, arguments.layers)
                print(f"{name:22} {whole_build(model, folder, target, 'fp16')}", flush=True)


if __name__ == "__main__":
    main()
