"""The command's parser, and what its parts other than `bench` do."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tritonsmith_client import Client, InputError, TritonError
from tritonsmith_client._cli.bench import print_table, run_bench
from tritonsmith_client._cli.inputs import read_inputs, summarize
from tritonsmith_client._core.hints import command_message

__all__ = ["main"]


_URL = "grpc(s):// or http(s)://, and host:port (default: %(default)s)"


_TIMEOUT = "seconds for each call (default: %(default)g)"


_INTERRUPTED = 130  # what a shell reports for a program ended by Ctrl-C


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return int(options.run(options) or 0)
    except InputError as error:
        print(f"tritonsmith: {error}", file=sys.stderr)
        return 2
    except TritonError as error:
        print(f"tritonsmith: {command_message(error, options.url)}", file=sys.stderr)
        return 4
    except KeyboardInterrupt:
        return _INTERRUPTED


class _Version(argparse.Action):
    """Looks the version up when it is asked for, not at each start."""

    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"{parser.prog} {version('tritonsmith')}")
        parser.exit()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="tritonsmith", description="Talk to a Triton server.")
    parser.add_argument("--version", action=_Version, nargs=0, help="show the version and exit")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.add_argument("--url", default="grpc://localhost:8001", help=_URL)
        made.add_argument("--timeout", type=float, default=60.0, help=_TIMEOUT)
        made.add_argument("--json", action="store_true", help="print JSON")
        made.set_defaults(run=run)
        return made

    infer = command("infer", _infer, "call a model once")
    infer.add_argument("--output", "-o", type=Path, help="write each output here as NAME.npy")
    bench = command("bench", run_bench, "measure how fast a model answers")
    bench.add_argument(
        "--concurrency",
        type=_numbers,
        default=(1.0,),
        metavar="N[,N...]",
        help="callers at a time; several numbers are measured one after the other",
    )
    bench.add_argument(
        "--rate",
        type=_numbers,
        default=(0.0,),
        metavar="R[,R...]",
        help="calls a second, instead of as many as possible; several numbers likewise",
    )
    bench.add_argument(
        "--seconds", type=float, default=5.0, help="how long each load lasts (default: %(default)g)"
    )
    bench.add_argument("--processes", type=int, default=1, help="clients in processes of their own")
    bench.add_argument(
        "--shared-memory",
        choices=("auto", "off"),
        default="auto",
        help="auto: for large tensors, where the server is on this host and allows it (default)",
    )
    bench.add_argument(
        "--plot",
        type=Path,
        help="write a picture here, as SVG: a histogram, or curves over several loads",
    )
    for made in (infer, bench):
        made.add_argument("model", help="its name on the server")
        made.add_argument("--version", default="", help="the newest if left out")
        made.add_argument(
            "--input",
            "-i",
            action="append",
            default=[],
            metavar="NAME=FILE.npy|random[:2x3]",
            help="one of the inputs (repeatable); random if left out",
        )
        made.add_argument("--seed", type=int, default=0, help="other random inputs")
    command("models", _models, "list the models of the server's repository")
    health = command("health", _health, "say whether the server, and models, are ready")
    health.add_argument("models", nargs="*", help="models that have to be ready, too")
    health.add_argument("--wait", type=float, default=0.0, help="seconds to wait until they are")
    watch = command("watch", _watch, "show what the models do, again and again")
    watch.add_argument("--every", type=float, default=2.0, help="seconds (default: %(default)g)")
    watch.add_argument("--times", type=int, default=0, help="how often; until Ctrl-C if left out")
    return parser


def _infer(options: argparse.Namespace) -> None:
    with Client(options.url, timeout=options.timeout) as client:
        model = client.model(options.model, options.version)
        inputs = read_inputs(model.metadata, options.input, options.seed)
        start = time.perf_counter()
        result = model(inputs)
        milliseconds = (time.perf_counter() - start) * 1e3
    files = {} if options.output is None else _write(options.output, dict(result))
    outputs = [summarize(name, array) for name, array in result.items()]
    if options.json:
        said: dict[str, Any] = {"model": result.model_name, "version": result.model_version}
        said["milliseconds"] = round(milliseconds, 3)
        said["outputs"] = [
            dataclasses.asdict(o) | ({"file": files[o.name]} if files else {}) for o in outputs
        ]
        print(json.dumps(said))
        return
    print(f"{result.model_name} version {result.model_version}: {milliseconds:.1f} ms")
    rows: list[tuple[str, ...]] = [
        ("output", "dtype", "shape", "min", "mean", "max", "first values")
    ]
    for o in outputs:
        numbers = ("-" if n is None else f"{n:.4g}" for n in (o.min, o.mean, o.max))
        first = " ".join(f"{v:.4g}" if isinstance(v, float) else str(v) for v in o.first)
        rows.append((o.name, o.dtype, "x".join(map(str, o.shape)), *numbers, first))
    print_table(rows)


def _write(folder: Path, outputs: dict[str, Any]) -> dict[str, str]:
    """Write each output and return its file. Strings become bytes of one width: no pickles."""
    files = {}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, array in outputs.items():
            path = folder / f"{name.replace('/', '_')}.npy"
            np.save(path, array.astype(bytes) if array.dtype.kind == "O" else array)
            files[name] = str(path)
    except OSError as exc:
        raise InputError(f"the outputs cannot be written to {folder}: {exc}") from exc
    return files


def _numbers(text: str) -> tuple[float, ...]:
    """Return the numbers in a list with commas, for argparse."""
    return tuple(float(part) for part in text.split(","))


def _models(options: argparse.Namespace) -> None:
    with Client(options.url, timeout=options.timeout) as client:
        entries = client.index()
    if options.json:
        print(json.dumps([dataclasses.asdict(entry) for entry in entries]))
        return
    rows = [("model", "version", "state", "reason")]
    print_table(rows + [(e.name, e.version, e.state or "not loaded", e.reason) for e in entries])


def _health(options: argparse.Namespace) -> int:
    with Client(options.url, timeout=options.timeout) as client:
        if options.wait > 0:
            client.wait_ready(options.wait, models=options.models)
        found = {"live": client.live(), "ready": client.ready()}
        found |= {name: client.model_ready(name) for name in options.models}
    if options.json:
        print(json.dumps(found))
    else:
        print_table([(name, "yes" if well else "no") for name, well in found.items()])
    return 0 if all(found.values()) else 1


def _watch(options: argparse.Namespace) -> None:
    if options.every <= 0:
        raise InputError(f"--every is {options.every:g}; it must be above 0")
    with Client(options.url, timeout=options.timeout) as client:
        before = {(s.name, s.version): s for s in client.statistics()}
        count = 0
        while not options.times or count < options.times:
            time.sleep(options.every)
            count += 1
            rows: list[tuple[str, ...]] = [
                ("model", "version", "per second", "queue ms", "compute ms", "failed")
            ]
            now = {(s.name, s.version): s for s in client.statistics()}
            for key, model in now.items():
                old = before.get(key, model)
                served = model.inference_count - old.inference_count
                spent = [
                    f"{model.durations[name].average_ms:.3f}" for name in ("queue", "compute_infer")
                ]
                failed = str(model.durations["fail"].count)
                rows.append((*key, f"{served / options.every:.1f}", *spent, failed))
            before = now
            if options.json:
                print(json.dumps([dict(zip(rows[0], row, strict=True)) for row in rows[1:]]))
            else:
                print_table(rows)
            sys.stdout.flush()
