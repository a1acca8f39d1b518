"""The onnx package's own node tests, built for ONNX Runtime.

    python benchmarks/node_tests.py [--only TEXT] [--jobs N] [--json FILE]

There are about 1,900 models of one or a few nodes. Each is built (in a dry run, so nothing is
written) with nothing said about it. The judge is ONNX Runtime: where it loads a model and gives
the expected answer, a refusal by gen-repo counts. Prints how many are refused, and the reasons,
most frequent first.
"""

from __future__ import annotations

import argparse
import json
import re
import tempfile
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from tritonsmith_generator import ModelSpec, Spec, build


@dataclass(frozen=True)
class Row:
    """A test: what ONNX Runtime does with it ("right", "wrong" or its words), and what we say."""

    test: str
    plain: str
    ours: str


def tests(only: str) -> dict[str, Any]:
    """The package's node tests by name."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # casts that overflow on purpose
        found = {case.name: case for case in collect_testcases(None)}
    return {name: case for name, case in sorted(found.items()) if only in name}


def judge(case: Any) -> str:
    """What ONNX Runtime does with the test's own inputs."""
    try:
        session = onnxruntime.InferenceSession(
            case.model.SerializeToString(), providers=["CPUExecutionProvider"]
        )
        for inputs, outputs in case.data_sets or ():
            names = [tensor.name for tensor in session.get_inputs()]
            got = session.run(None, dict(zip(names, inputs, strict=False)))
            for have, want in zip(got, outputs, strict=False):
                np.testing.assert_allclose(have, want, rtol=1e-3, atol=1e-5)
    except AssertionError:
        return "wrong"
    except Exception as error:
        return str(error).splitlines()[0][:160]
    return "right"


def reason(message: str) -> str:
    """The message without what is particular to one model."""
    return re.sub(r"\S*/\S*|'[^']*'|\d+", "_", message)[:110]


def measure(cases: Mapping[str, Any], folder: Path, jobs: int) -> list[Row]:
    """Build all in one spec; a row each."""
    for name, case in cases.items():
        onnx.save(case.model, folder / f"{name}.onnx")
    spec = Spec(
        models={
            name: ModelSpec(onnx=str(folder / f"{name}.onnx"), target="onnxruntime")
            for name in cases
        }
    )
    results = build(spec, folder, folder / "repository", dry_run=True, jobs=jobs)
    said = {result.name: result.error or result.status for result in results}
    return [Row(name, judge(case), said[name]) for name, case in cases.items()]


def show(rows: Sequence[Row]) -> None:
    """Print how many are refused that ONNX Runtime loads, and why."""
    loads = [row for row in rows if row.plain in ("right", "wrong")]
    refused = [row for row in loads if row.ours not in ("planned", "built", "unchanged")]
    print(
        f"{len(rows)} tests; ONNX Runtime runs {len(loads)}; of these {len(refused)} are refused:"
    )
    reasons = Counter(reason(row.ours) for row in refused)
    examples = {reason(row.ours): row.test for row in refused}
    for words, count in reasons.most_common(40):
        print(f"{count:5} {words}  ({examples[words]})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", default="", help="tests whose name holds this")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    onnxruntime.set_default_logger_severity(4)
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(tests(given.only), Path(folder), given.jobs)
    show(rows)
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))


if __name__ == "__main__":
    main()
