"""How fast the client is beside others, against the embedded tritonserver.

    python benchmarks/client.py [--quick] [--model NAME] [--peers PYTHON] [--json FILE]
        [--let-sleep]

Each client runs in a process of its own and does the same: a numpy array in, a numpy array out,
compared with the input. In each round all of them take their turn, in random order. The ratio is
the median over rounds of tritonclient.grpc's median time in that round through the client's, so
above 1 is faster than tritonclient.grpc. The first round warms up and is not counted.

Two models answer: 'plain' of the tests in Python, and the same in C (clients/identity.c) if there
is a C compiler; that takes the server less time: more of what is measured is the client. --model
names the only one that is asked, and then nothing is measured over TLS.
Idle processors of a virtual machine are halted, and each thread that a call passes through waits
until one runs again: 60 of 140 us of a call on some machines, whatever the client does. So the
kernel is asked, for as long as this runs, to keep them awake (/dev/cpu_dma_latency, which takes
root); with --let-sleep it is not.
--peers names the Python of an environment that has what this one has not: pytriton, tritony,
tritonclient[all]. What is in neither is left out.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tritonsmith_client._values import bytes_codec as bytescodec
from tritonsmith_generator.serve import Server

HERE = Path(__file__).resolve().parent / "clients"
MODELS = HERE.parents[1] / "tests" / "client" / "models"
SIZES = {  # bytes, and calls a round
    "1 KB": (1 << 10, 200),
    "64 KB": (1 << 16, 100),
    "1 MB": (1 << 20, 30),
    "16 MB": (1 << 24, 4),
}
BASE = "tritonclient.grpc"
ECHO = "floor: TCP echo"
TLS_VARIANTS = (BASE, "ours gRPC", "ours gRPC, own HTTP/2")
BUSY = (
    BASE,
    "tritonclient.http",
    "tritonclient.grpc.aio",
    "pytriton gRPC",
    "pytriton HTTP",
    "ours gRPC",
    "ours HTTP",
    "ours gRPC, own HTTP/2",
    "ours gRPC, asyncio",
    "ours gRPC, own HTTP/2, asyncio",
    "ours HTTP, asyncio",
)
Figures = dict[str, list[float]]  # by kind of figure, one for each round


class Worker:
    """One client in its own process."""

    def __init__(self, variant: str, target: dict[str, Any], python: str) -> None:
        self.variant = variant
        self.missing = ""
        self._process = subprocess.Popen(
            [python, str(HERE / "worker.py"), variant, json.dumps(target)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.missing = self._answer().get("missing", "")

    def ask(self, *task: Any) -> dict[str, float]:
        assert self._process.stdin is not None
        print(json.dumps(task), file=self._process.stdin, flush=True)
        found = self._answer()
        if "wrong" in found:
            raise SystemExit(f"{self.variant} gave a wrong answer to {task}")
        return found

    def close(self) -> None:
        self._process.communicate()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.variant} failed")
        return dict(json.loads(line))


@contextmanager
def workers(target: dict[str, Any], names: list[str], peers: str) -> Iterator[dict[str, Worker]]:
    """All that can run, by name."""
    with ExitStack() as stack:
        found = {}
        for name in names:
            for python in dict.fromkeys((sys.executable, peers)):
                worker = Worker(name, target, python)
                stack.callback(worker.close)
                if not worker.missing:
                    break
            if worker.missing:
                print(f"{name:34}{worker.missing}")
            else:
                found[name] = worker
        yield found


@contextmanager
def awake() -> Iterator[bool]:
    """Has the kernel keep idle processors awake; False where it does not let us ask."""
    kept = False
    with ExitStack() as stack:
        with suppress(OSError):
            place = Path("/dev/cpu_dma_latency")
            request = stack.enter_context(place.open("wb", buffering=0))
            request.write(bytes(4))  # at most so many microseconds to wake up, until it is closed
            kept = True
        yield kept


def interleaved(crew: dict[str, Worker], rounds: int, *task: Any) -> dict[str, Figures]:
    """The figures of each worker; the first round is dropped."""
    found: dict[str, Figures] = {name: {} for name in crew}
    for number in range(rounds + 1):
        for name in random.sample(list(crew), len(crew)):
            for kind, figure in crew[name].ask(*task).items():
                if number:
                    found[name].setdefault(kind, []).append(figure)
    return found


def median(values: list[float] | None) -> float:
    return statistics.median(values) if values else float("nan")


def ratio(over: list[float], under: list[float]) -> float:
    return median([a / b for a, b in zip(over, under, strict=True)])


def latency(crew: dict[str, Worker], rounds: int) -> dict[str, dict[str, Figures]]:
    """By size and worker; prints them."""
    found = {
        label: interleaved(crew, rounds, "latency", size, count)
        for label, (size, count) in SIZES.items()
    }

    def show(title: str, cell: Callable[[str, str], str]) -> None:
        print(f"\n{title:34}" + "".join(f"{size:>20}" for size in SIZES))
        for name in crew:
            print(f"{name:34}" + "".join(f"{cell(name, size):>20}" for size in SIZES))

    def timed(name: str, size: str) -> str:
        figures = found[size]
        spent, base = figures[name]["time"], figures[BASE]["time"]
        return f"{median(spent):.0f} (x{ratio(base, spent):.2f})"

    def distance(name: str, size: str) -> str:
        return f"{ratio(found[size][name]['time'], found[size][ECHO]['time']):.1f}"

    def plain(kind: str, scale: float = 1.0) -> Callable[[str, str], str]:
        return lambda name, size: f"{median(found[size][name].get(kind)) / scale:.0f}"

    show("one caller: us (ratio)", timed)
    if ECHO in crew:
        show("times the TCP echo's", distance)
    show("CPU us a call", plain("cpu"))
    show("page faults a call", plain("faults"))
    show("memory a call, KiB", plain("memory"))
    return found


def throughput(crew: dict[str, Worker], rounds: int, seconds: float) -> dict[str, Figures]:
    busy = {name: crew[name] for name in BUSY if name in crew}
    found = interleaved(busy, rounds, "throughput", 1024, seconds)
    bases = [name for name in BUSY[:3] if name in found]
    print(f"\n{'16 callers, 1 KB':34}{'calls/s':>10}{'CPU us':>10}  times", *bases, sep="  ")
    for name, figures in found.items():
        shown = "".join(f"{ratio(figures['rate'], found[b]['rate']):>12.2f}" for b in bases)
        print(f"{name:34}{median(figures['rate']):>10.0f}{median(figures['cpu']):>10.0f}  {shown}")
    return found


def strings() -> dict[str, float]:
    """How many times faster strings are coded than tritonclient does it; prints it."""
    from tritonclient import utils

    words = np.array([b"%08d words of about 20" % n for n in range(20_000)], object)
    mixed = np.array([b"w" * (n % 41) for n in range(20_000)], object)
    found = {}
    for kind, array in {"alike": words, "mixed": mixed}.items():
        wire = bytescodec.encode(array)
        assert wire == utils.serialize_byte_tensor(array).item()
        assert (bytescodec.decode(wire) == array).all()
        pairs: dict[str, tuple[Callable[[Any], Any], Callable[[Any], Any], Any]] = {
            "encode": (utils.serialize_byte_tensor, bytescodec.encode, array),
            "decode": (utils.deserialize_bytes_tensor, bytescodec.decode, wire),
        }
        for name, (theirs, mine, given) in pairs.items():
            ratios = [_seconds(theirs, given) / _seconds(mine, given) for _ in range(9)]
            found[f"{name}, {kind} lengths"] = statistics.median(ratios[1:])
    print("\nstrings, ratio to tritonclient:", ", ".join(f"{k} x{v:.2f}" for k, v in found.items()))
    return found


def _seconds(function: Callable[[Any], Any], given: Any) -> float:
    start = time.perf_counter()
    function(given)
    return time.perf_counter() - start


def compiled_model(folder: Path) -> bool:
    """Makes a repository with the model 'compiled'; False without a C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        return False
    model = folder / "compiled"
    (model / "1").mkdir(parents=True)
    shutil.copy(HERE / "identity.pbtxt", model / "config.pbtxt")
    command = [compiler, "-O2", "-shared", "-fPIC", str(HERE / "identity.c")]
    subprocess.run([*command, "-o", str(model / "libtriton_identity_c.so")], check=True)
    return True


def certificates(folder: Path) -> list[str]:
    """Arguments for a server with TLS; none where there is no openssl."""
    if shutil.which("openssl") is None:
        return []
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=bench", "-days",
         "2", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", "key.pem", "-out", "ca.pem"],
        cwd=folder, check=True, capture_output=True,
    )  # fmt: skip
    files = {"server-cert": "ca.pem", "server-key": "key.pem", "root-cert": "ca.pem"}
    return ["--grpc-use-ssl=1", *(f"--grpc-{k}={folder / v}" for k, v in files.items())]


def target(server: Server, model: str) -> dict[str, Any]:
    """See clients/variants.py."""
    address = {"grpc": server.grpc_url, "http": server.http_url}
    return {"model": model, **{k: url.split("//")[1] for k, url in address.items()}}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    parser.add_argument("--json", type=Path, help="write every round's figures here")
    parser.add_argument("--peers", default=sys.executable, help="a Python that has them")
    parser.add_argument("--only", default="", help="clients whose names have this in them")
    parser.add_argument("--let-sleep", action="store_true", help="idle processors may sleep")
    parser.add_argument("--model", choices=["plain", "compiled"], help="ask only this one")
    options = parser.parse_args()
    rounds, seconds = (3, 0.5) if options.quick else (6, 1.0)
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        kept = not options.let_sleep and stack.enter_context(awake())
        folder = Path(name)
        models = ["plain"]
        arguments = []
        if compiled_model(folder):
            models.append("compiled")
            arguments = [f"--model-repository={folder}"]
        server = stack.enter_context(Server(MODELS, models=["plain"], extra_args=arguments))
        for model in [name for name in models if options.model in (name, None)]:
            state = "kept awake" if kept else "asleep when idle"
            print(f"\n=== model '{model}', {os.cpu_count()} CPUs, {state}")
            with workers(target(server, model), chosen(options.only), options.peers) as crew:
                one = latency(crew, rounds)
                report[model] = {"one caller": one, "16 callers": throughput(crew, rounds, seconds)}
        tls = [] if options.model else certificates(folder)
        if tls:
            server = stack.enter_context(Server(MODELS, models=["plain"], extra_args=tls))
            print("\n=== model 'plain' over TLS")
            place = target(server, "plain") | {"ca": str(folder / "ca.pem")}
            with workers(place, list(TLS_VARIANTS), options.peers) as crew:
                report["TLS"] = latency(crew, rounds)
    report["strings"] = strings()
    if options.json:
        options.json.write_text(json.dumps(report, indent=1))


def chosen(text: str) -> list[str]:
    sys.path.insert(0, str(HERE))
    from variants import VARIANTS

    return [name for name in VARIANTS if text in name or name in (BASE, ECHO)]


if __name__ == "__main__":
    main()
