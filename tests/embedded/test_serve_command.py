"""``gen-repo serve`` as a user or a script runs it: in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.wire.http_calls import until

from tritonsmith_client import Client

GenRepo = Callable[..., "subprocess.Popen[str]"]


pytestmark = pytest.mark.usefixtures("nothing_left")


def _ready(process: subprocess.Popen[str], ready_file: Path) -> dict[str, Any]:
    """The content of the ready file, once it is there."""
    deadline = time.monotonic() + 120
    while not ready_file.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    found: dict[str, Any] = json.loads(ready_file.read_text())
    return found


def _infer(url: str) -> list[float]:
    with Client(url) as client:
        ones = np.ones((1, 4), np.float32)
        found: list[float] = client.model("add_sub")({"a": ones, "b": ones})["sum"][0].tolist()
        return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_cleanly(
    repository: Any, tmp_path: Path, gen_repo: GenRepo, number: signal.Signals
) -> None:
    (repository.add_add_sub("add_sub") / "cases").mkdir()
    ready_file = tmp_path / "ready.json"
    process = gen_repo("serve", repository.path, "--ready-file", ready_file)
    facts = _ready(process, ready_file)
    assert facts["models"] == {"add_sub": ["1"]}
    assert facts["pid"] == process.pid
    assert _infer(facts["grpc"]) == [2.0] * 4
    assert _infer(facts["http"]) == [2.0] * 4
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0
    assert f"Ready {facts['grpc']}" in out
    assert "add_sub  1" in out
    assert err.splitlines()[-1] == f"Stopped ({number.name}); nothing is left running."
    assert "successfully loaded 'add_sub'" in err
    for noise in ("pinned memory", "version directory 'cases'", "Signal ("):
        assert noise not in err
    assert not ready_file.exists()


def test_verbose_shows_all_of_the_servers_output(
    repository: Any, tmp_path: Path, gen_repo: GenRepo
) -> None:
    repository.add_add_sub("add_sub")
    ready_file = tmp_path / "ready.json"
    process = gen_repo("serve", repository.path, "--verbose", "--ready-file", ready_file)
    _ready(process, ready_file)
    process.terminate()
    _, err = process.communicate(timeout=60)
    assert "| strict_readiness" in err


def test_a_server_that_dies_is_exit_code_4(
    repository: Any, tmp_path: Path, gen_repo: GenRepo
) -> None:
    repository.add_add_sub("add_sub")
    ready_file = tmp_path / "ready.json"
    process = gen_repo("serve", repository.path, "--ready-file", ready_file)
    _ready(process, ready_file)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    server = [c for c in children if "tritonserver" in Path(f"/proc/{c}/cmdline").read_text()]
    os.kill(int(server[0]), signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "was killed by signal 9" in err
    assert not ready_file.exists()


def test_a_model_that_does_not_load_is_exit_code_4(repository: Any, gen_repo: GenRepo) -> None:
    (repository.add_add_sub("bad") / "1" / "model.onnx").write_bytes(b"no model")
    process = gen_repo("serve", repository.path)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "gen-repo: The server could not load bad" in err
    assert "Traceback" not in err
    assert "Ready" not in out


def test_a_folder_without_models_is_exit_code_1(tmp_path: Path, gen_repo: GenRepo) -> None:
    process = gen_repo("serve", tmp_path)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "is no model repository" in err


def test_detached_it_returns_when_it_is_ready_and_runs_on(
    repository: Any, gen_repo: GenRepo, wait_until_gone: Callable[[], None]
) -> None:
    repository.add_add_sub("add_sub")
    process = gen_repo("serve", repository.path, "--detach")
    out, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    facts = json.loads(out)
    try:
        assert _infer(facts["grpc"]) == [2.0] * 4
    finally:
        os.kill(facts["pid"], signal.SIGTERM)
        wait_until_gone()
    until(lambda: "Stopped (SIGTERM)" in Path(facts["log"]).read_text())


def test_detached_a_failure_is_told(repository: Any, gen_repo: GenRepo) -> None:
    (repository.add_add_sub("bad") / "1" / "model.onnx").write_bytes(b"no model")
    process = gen_repo("serve", repository.path, "--detach")
    _, err = process.communicate(timeout=60)
    assert process.returncode == 4
    assert "could not load bad" in err
