"""What `import tritonsmith_client` costs, against the two libraries that any gRPC client needs.

Fresh interpreters take turns, so that all see the same machine; the medians are compared.
"""

from __future__ import annotations

import statistics
import subprocess
import sys

ROUNDS = 15
OURS = "import tritonsmith_client"
PEERS = ("import grpc, numpy", "import tritonclient.grpc")


def milliseconds(statement: str) -> float:
    """How long the statement takes in a fresh interpreter, its start not counted."""
    program = (
        f"import time; start = time.perf_counter(); {statement}; print(time.perf_counter() - start)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode:
        sys.exit(done.stderr)
    return float(done.stdout) * 1e3


def main() -> None:
    for statement in (OURS, *PEERS):  # fills the file cache and compiles
        milliseconds(statement)
    rounds = [[milliseconds(statement) for statement in (OURS, *PEERS)] for _ in range(ROUNDS)]
    ours, *peers = (statistics.median(times) for times in zip(*rounds, strict=True))
    for statement, peer in zip(PEERS, peers, strict=True):
        print(f"{OURS}: {ours:.0f} ms; {statement}: {peer:.0f} ms; ratio {ours / peer:.2f}")


if __name__ == "__main__":
    main()
