"""Runs in the server's image: one engine build, or one run of a plan on the cases.

python3 -m tritonsmith_generator.engine_image.entrypoint build|ask REQUEST

It needs numpy, ml_dtypes and TensorRT only. What it has to say to us are lines of JSON after MARK;
anything else on its output is TensorRT's.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import asdict
from typing import Any

from tritonsmith_generator.engine_image.messages import (
    decode_question,
    decode_request,
    encode_report,
)
from tritonsmith_generator.engine_image.npz import write_arrays
from tritonsmith_generator.errors import TritonsmithError

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


def _tell(progress: Any) -> None:
    _say("progress", asdict(progress))


def _build(text: str) -> None:
    request = decode_request(text)
    _name_the_bindings(request.library)
    from tritonsmith_generator.trt import builder

    _say("report", encode_report(builder.build(request, _tell)))


def _ask(text: str) -> None:
    question, answered = decode_question(text)
    _name_the_bindings(question.library)
    from tritonsmith_generator.trt import builder

    answers = builder.ask(question, _tell)
    write_arrays(answered, answers.outputs)
    _say("answers", answers.skipped)


def _main(what: str, text: str) -> None:
    try:
        {"build": _build, "ask": _ask}[what](text)
    except TritonsmithError as exc:
        _say("error", [type(exc).__name__, str(exc)])


if __name__ == "__main__":
    _main(*sys.argv[1:])
