"""What becomes of tests whose shared server crashes, in a run of pytest within this one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from support.soak import soaked

TESTS = Path(__file__).parent.parent
MODELS = TESTS / "client" / "models"

INNER = f"""
import asyncio
import gc
import os
import signal
import time
from pathlib import Path

import pytest

from tritonsmith_client import Client


@pytest.fixture(scope="session")
def server(start_server):
    return start_server(Path({str(MODELS)!r}), models=["plain"])


@pytest.fixture(scope="session")
def client(server):
    with Client(server.grpc_url, timeout=10.0) as client:
        yield client


@pytest.fixture
def runs(request):
    with open("runs", "a+") as file:
        file.write(request.function.__name__ + "\\n")
        file.seek(0)
        return file.read().split().count(request.function.__name__)


def end(server, number):
    os.kill(server.pid, number)
    while server.is_running:
        time.sleep(0.01)


def test_fails_by_a_crash(server, client, runs):
    if runs == 1:
        left = asyncio.new_event_loop()  # it would warn when it is collected
        os.kill(server.pid, signal.SIGSEGV)
        client.model("plain")
        raise AssertionError
    client.wait_ready()  # its channel may wait before it connects again
    client.model("plain")


def test_does_not_mind_a_crash(server, runs):
    end(server, signal.SIGSEGV)


def test_after_it(client, runs):
    gc.collect()
    client.model("plain")


def test_fails_by_itself(client, runs):
    raise AssertionError


def test_crashes_each_time(server, runs):
    end(server, signal.SIGSEGV)
    raise AssertionError


def test_after_the_last_run(client, runs):
    client.model("plain")


def test_ends_otherwise(server, client, runs):
    end(server, signal.SIGABRT)
    raise AssertionError
"""


@pytest.mark.parametrize("spread", soaked(["-pno:xdist", "-n1"], keep=lambda way: way == "-n1"))
def test_a_test_that_fails_by_a_crash_runs_again(tmp_path: Path, spread: str) -> None:
    (tmp_path / "test_inner.py").write_text(INNER)
    warnings = ("error::ResourceWarning", "error::pytest.PytestUnraisableExceptionWarning")
    lines = ["[pytest]", "filterwarnings =", *(f"  {line}" for line in warnings)]
    (tmp_path / "pytest.ini").write_text("\n".join(lines))
    ran = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "-v", spread],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(TESTS)},
        capture_output=True,
        text=True,
        timeout=180,
    )
    said = ran.stdout
    assert Counter((tmp_path / "runs").read_text().split()) == {
        "test_fails_by_a_crash": 2,
        "test_does_not_mind_a_crash": 1,
        "test_after_it": 1,
        "test_fails_by_itself": 1,
        "test_crashes_each_time": 3,
        "test_after_the_last_run": 1,
        "test_ends_otherwise": 1,
    }, said
    outcomes = "3 failed, 4 passed"
    assert ran.returncode == 1 and outcomes in said, said
    for failed in ("fails_by_itself", "crashes_each_time", "ends_otherwise"):
        assert f"FAILED test_inner.py::test_{failed}" in said
    assert "crashes: 5" in said
    told = re.findall(r"--- the server crashed: its bug #8034 ---", said)
    assert len(told) == 3, "of the one failed test with crashes"
    assert said.count("--- a shared server has ended ---") == 1
    assert "was killed by signal 6" in said
