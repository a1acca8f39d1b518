"""Runs in the server's image: one engine build. It needs numpy, ml_dtypes and TensorRT only.

python3 -m tritonsmith_generator.imagebuild.inside REQUEST

What it has to say to us are lines of JSON after MARK; anything else on its output is TensorRT's.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import asdict
from typing import Any

from tritonsmith_generator.errors import TritonsmithError
from tritonsmith_generator.imagebuild.messages import decode_request, encode_report

__all__ = ["MARK"]

MARK = "@tritonsmith "


def _say(kind: str, value: Any) -> None:
    sys.stdout.write(f"{MARK}{json.dumps([kind, value])}\n")
    sys.stdout.flush()


def _name_the_bindings(library: str) -> None:
    """NVIDIA's bindings without its libraries are a package of another name."""
    bindings = f"{library}_bindings"
    if importlib.util.find_spec(library) is None and importlib.util.find_spec(bindings):
        sys.modules[library] = importlib.import_module(bindings)


def _main(text: str) -> None:
    try:
        request = decode_request(text)
        _name_the_bindings(request.library)
        from tritonsmith_generator import tensorrt

        report = tensorrt.build(request, lambda progress: _say("progress", asdict(progress)))
        _say("report", encode_report(report))
    except TritonsmithError as exc:
        _say("error", [type(exc).__name__, str(exc)])


if __name__ == "__main__":
    _main(sys.argv[1])
