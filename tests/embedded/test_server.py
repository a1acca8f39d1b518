"""``Server``: a real tritonserver, started, disturbed and stopped."""

from __future__ import annotations

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc
from onnx import TensorProto
from support.programs.servers import BriefServer, added
from support.wire.http_calls import until

from tritonsmith_generator.errors import HostError, InputError, ServerError
from tritonsmith_generator.serve import LogLine, Server

_ENSEMBLE = """
platform: "ensemble"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [4] }
input { name: "b" data_type: TYPE_FP32 dims: [4] }
output { name: "out" data_type: TYPE_FP32 dims: [4] }
ensemble_scheduling { step { model_name: "MEMBER" model_version: -1
  input_map { key: "a" value: "a" } input_map { key: "b" value: "b" }
  output_map { key: "sum" value: "out" } } }
"""
_PLAN = """
backend: "tensorrt"
max_batch_size: 8
input { name: "a" data_type: TYPE_FP32 dims: [4] }
output { name: "sum" data_type: TYPE_FP32 dims: [4] }
instance_group { kind: KIND_GPU }
"""


pytestmark = pytest.mark.usefixtures("nothing_left")


def test_it_serves_on_the_loopback_interface_and_says_where(repository: Any) -> None:
    repository.add_add_sub("add_sub")
    with Server(repository.path) as server:
        assert added(server) == [4.0] * 4
        assert server.versions() == {"add_sub": ["1"]}
        assert server.is_running
        for url, path in ((server.http_url, "/v2/health/ready"), (server.metrics_url, "/metrics")):
            address = url.removeprefix("http://").split("/")[0]
            assert address.startswith("127.0.0.1:")
            connection = http.client.HTTPConnection(address)
            connection.request("GET", path)
            assert connection.getresponse().status == 200
            connection.close()
        listening = _listening_addresses(server.pid)
        assert listening == {"0100007F"}  # 127.0.0.1
    assert not server.is_running


def _listening_addresses(pid: int) -> set[str]:
    """The local addresses, in hexadecimal, on which this process listens."""
    links = []
    for fd in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since it was listed
            links.append(str(fd.readlink()))
    inodes = {link[8:-1] for link in links if link.startswith("socket:[")}
    rows = [row.split() for row in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return {row[1].split(":")[0] for row in rows if row[3] == "0A" and row[9] in inodes}


def test_it_can_be_started_again_but_not_twice_at_once(repository: Any) -> None:
    repository.add_add_sub("add_sub")
    server = Server(repository.path)
    with server, pytest.raises(ServerError, match="already running"):
        server.start()
    with server:
        assert added(server) == [4.0] * 4


def test_two_servers_and_many_threads(repository: Any) -> None:
    repository.add_add_sub("add_sub")
    with Server(repository.path) as one, Server(repository.path) as two:
        assert one.grpc_url != two.grpc_url
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(added, [one, two] * 8))
        assert answers == [[4.0] * 4] * 16
        with ThreadPoolExecutor(4) as pool:  # the others wait for the one that stops it
            list(pool.map(lambda _: one.stop(), range(4)))
        assert not one.is_running
        assert added(two) == [4.0] * 4


def test_a_killed_server_is_noticed_and_cleaned_up(
    repository: Any, wait_until_gone: Callable[[], None]
) -> None:
    repository.add_add_sub("add_sub")
    with BriefServer(repository.path) as server:
        os.kill(server.pid, signal.SIGKILL)
        with pytest.raises(ServerError, match=r"pid \d+\) was killed by signal 9"):
            server.wait()
        assert not server.is_running
        wait_until_gone()
        with pytest.raises(ServerError, match="does not answer"):
            server.versions()


def test_a_killed_owner_takes_its_server_along(
    repository: Any, wait_until_gone: Callable[[], None]
) -> None:
    repository.add_add_sub("add_sub")
    script = (
        "import sys, time\n"
        "from tritonsmith_generator.serve import Server\n"
        "server = Server(sys.argv[1]).start().wait_ready()\n"
        "print(server.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, repository.path], stdout=subprocess.PIPE, text=True
    )
    with owner:
        assert owner.stdout is not None
        server = int(owner.stdout.readline())
        assert b"tritonserver" in Path(f"/proc/{server}/cmdline").read_bytes()
        owner.kill()
    wait_until_gone()
    # Where nobody waits for orphans, an entry without a command stays.
    with contextlib.suppress(FileNotFoundError):
        assert Path(f"/proc/{server}/cmdline").read_bytes() == b""


def test_a_model_that_fails_to_load_is_an_error_with_the_servers_reason(repository: Any) -> None:
    repository.add_add_sub("good")
    (repository.add_add_sub("bad") / "1" / "model.onnx").write_bytes(b"no model")
    with pytest.raises(ServerError) as caught, BriefServer(repository.path):
        pass
    assert "could not load bad: " in str(caught.value)
    assert "Protobuf parsing failed" in str(caught.value)
    assert "good" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "reason"),
    [("max_batch_size: eight", "config.pbtxt"), ("max_batch_sise: 8", "config.pbtxt")],
)
def test_a_config_that_is_none_is_an_error(repository: Any, config: str, reason: str) -> None:
    repository.add("bad", None, config)
    repository.add_add_sub("good")
    with pytest.raises(ServerError, match=reason), BriefServer(repository.path):
        pass


def test_not_ready_in_time(repository: Any) -> None:
    repository.add(
        "slow",
        None,
        'backend: "python"\noutput { name: "y" data_type: TYPE_FP32 dims: [1] }\n'
        "instance_group { kind: KIND_CPU }",
    )
    (repository.path / "slow" / "1" / "model.py").write_text(
        "import time\nclass TritonPythonModel:\n    def initialize(self, args): time.sleep(600)\n"
    )
    server = Server(repository.path).start()
    try:
        until(lambda: any("loading: slow" in line.text for line in server.log))
        with pytest.raises(ServerError, match=r"(?s)not ready after 1 s\..*loading: slow"):
            server.wait_ready(timeout=1)
    finally:
        server.stop()


def test_a_taken_port_is_named_with_its_holder(repository: Any) -> None:
    repository.add_add_sub("add_sub")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(HostError, match=rf"--http-port {port}.*\(pid {os.getpid()}\)"):
            Server(repository.path, http_port=port).start()


def test_the_requested_ports_are_taken(repository: Any) -> None:
    repository.add_add_sub("add_sub")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with BriefServer(repository.path, grpc_port=port) as server:
        assert server.grpc_url == f"grpc://127.0.0.1:{port}"


def test_a_subset_of_the_models_and_the_members_of_an_ensemble(repository: Any) -> None:
    for name in ("add_sub", "other"):
        repository.add_add_sub(name)
    repository.add("pipe", None, _ENSEMBLE.replace("MEMBER", "add_sub"))
    with BriefServer(repository.path, models=["pipe"]) as server:
        assert set(server.versions()) == {"pipe", "add_sub"}
        assert added(server, "pipe", "out") == [4.0] * 4
    with pytest.raises(InputError, match=r"no model 'nope'; it has: add_sub, other, pipe"):
        Server(repository.path, models=["nope"]).start()


def test_models_that_cannot_run_here_are_left_out(
    repository: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tritonsmith_generator.serve.embedded.server.visible_gpus", lambda: ())
    repository.add_add_sub("add_sub")
    repository.add("plan", None, _PLAN)
    repository.add("pipe", None, _ENSEMBLE.replace("MEMBER", "plan"))
    repository.add("torch", None, _PLAN.replace("tensorrt", "pytorch"))
    said: list[LogLine] = []
    with BriefServer(repository.path, on_log=said.append) as server:
        assert server.models == ("add_sub",)
        assert "no NVIDIA GPU" in server.skipped["plan"]
        assert server.skipped["pipe"] == "it needs 'plan', which is left out"
        assert "no backend 'pytorch'" in server.skipped["torch"]
    assert any("plan is left out" in line.text for line in said)
    with pytest.raises(HostError, match="None of the models can be served"):
        Server(repository.path, models=["plan"]).start()


@pytest.mark.parametrize("make", [True, False], ids=["empty", "missing"])
def test_a_folder_that_is_no_repository(tmp_path: Path, make: bool) -> None:
    if make:
        (tmp_path / "nothing").mkdir()
    with pytest.raises(InputError, match="nothing"):
        Server(tmp_path / "nothing").start()


def test_a_log_function_that_fails_does_not_stop_the_server(
    repository: Any, caplog: pytest.LogCaptureFixture
) -> None:
    repository.add_add_sub("add_sub")

    def fail(line: LogLine) -> None:
        raise RuntimeError(line.text)

    with BriefServer(repository.path, on_log=fail) as server:
        assert added(server) == [4.0] * 4
    assert "on_log failed" in caplog.text
    assert any("successfully loaded" in line.text for line in server.log)


def test_the_log_is_parsed(repository: Any) -> None:
    repository.add_add_sub("add_sub")
    with BriefServer(repository.path) as server:
        loaded = [line for line in server.log if line.text == "successfully loaded 'add_sub'"]
    assert len(loaded) == 1
    assert loaded[0].level == "info"
    assert loaded[0].source.startswith("model_lifecycle.cc:")
    assert len(loaded[0].time) == len("hh:mm:ss")


def test_stopping_while_it_starts(repository: Any) -> None:
    repository.add_add_sub("add_sub")
    server = Server(repository.path).start()
    threading.Timer(0.05, server.stop).start()
    try:
        server.wait_ready()
    except ServerError as exc:
        assert "told to stop" in str(exc)  # or it was ready before
    server.stop()
    assert not server.is_running


def test_identity_of_a_large_tensor(repository: Any) -> None:
    """16 MB: more than the stub's shared memory holds at first; it grows."""
    repository.add_identity("identity", "TYPE_FP32", TensorProto.FLOAT)
    sent = np.arange(4 << 20, dtype=np.float32).reshape(1, -1)
    with BriefServer(repository.path) as server:
        tensor = grpc.InferInput("x", sent.shape, "FP32")
        tensor.set_data_from_numpy(sent)
        with grpc.InferenceServerClient(server.grpc_url.removeprefix("grpc://")) as client:
            got = client.infer("identity", [tensor]).as_numpy("y")
    assert got.tobytes() == sent.tobytes()
