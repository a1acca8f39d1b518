"""The embedded tritonserver as a Python object.

with Server("model_repository") as server:
    with Client(server.grpc_url) as client:
        ...
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType

from tritonsmith_generator import devices
from tritonsmith_generator.errors import HostError, ServerError
from tritonsmith_generator.serve import environment
from tritonsmith_generator.serve.environment import Environment, Progress
from tritonsmith_generator.serve.log import LogLine, failures, is_noise
from tritonsmith_generator.serve.ports import pick_ports
from tritonsmith_generator.serve.process import ServerProcess
from tritonsmith_generator.serve.selection import (
    PLAN_BACKENDS,
    ServedModel,
    leave_out,
    read_models,
)
from tritonsmith_generator.serve.view import View, make_view

__all__ = ["Server"]

_EXIT_SECONDS = 8  # the server waits so long for requests in flight when it is told to end
_GRACE_SECONDS = 12.0
_POLL_SECONDS = 0.05
_ATTEMPTS = 3  # a free port can be taken by another program before the server has it


class Server:
    """A real tritonserver that serves a model repository on this machine.

    As a context manager it starts, waits until every model is ready, and stops. It listens
    on the loopback interface, loads no model later than at its start, and leaves no process,
    no shared memory and no file behind, whichever side dies first. Safe to use from several
    threads; several servers can run side by side.

    Args:
        repository: the model repository.
        models: serve these only (with the members of ensembles among them).
        http_port, grpc_port, metrics_port: a free port each by default.
        host: the address to listen on.
        server_env: a virtual environment, or a folder of packages, for the models' Python.
        on_log: called with each line of the server's output, from another thread.
        on_progress: called while the environment is made on first use.
        extra_args: more arguments for tritonserver.
    """

    def __init__(
        self,
        repository: str | os.PathLike[str],
        *,
        models: Sequence[str] | None = None,
        http_port: int | None = None,
        grpc_port: int | None = None,
        metrics_port: int | None = None,
        host: str = "127.0.0.1",
        server_env: str | os.PathLike[str] | None = None,
        on_log: Callable[[LogLine], None] | None = None,
        on_progress: Progress | None = None,
        extra_args: Sequence[str] = (),
    ) -> None:
        self._repository = Path(repository)
        self._models = models
        self._wanted_ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        self._host = host
        self._server_env = Path(server_env) if server_env is not None else None
        self._on_log = on_log
        self._on_progress = on_progress
        self._extra_args = tuple(extra_args)
        self._lock = threading.RLock()
        self._process: ServerProcess | None = None
        self._environment: Environment | None = None
        self._ports: dict[str, int] = {}
        self._served: dict[str, ServedModel] = {}
        self._skipped: dict[str, str] = {}
        self._stopping = False

    def start(self) -> Server:
        """Start the server and return at once; ``wait_ready`` says when it serves.

        Raises InputError for a repository that is none, HostError where the server or all of
        the models can't run here, or a port is taken.
        """
        with self._lock:
            if self._process is not None and not self._process.ended.is_set():
                raise ServerError("This server is already running; make another Server for two")
            self._stopping = False
            self._environment = self._select()
            self._launch()
        return self

    def wait_ready(self, timeout: float = 300.0) -> Server:
        """Wait until every model is ready. Raises ServerError with the server's own reason."""
        deadline = time.monotonic() + timeout
        for attempt in range(1, _ATTEMPTS + 1):
            process = self._running()
            while not process.ended.wait(_POLL_SECONDS):
                if self._answers_ready():
                    return self
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"The server was not ready after {timeout:g} s. " + self._last_words()
                    )
            if attempt == _ATTEMPTS or self._stopping or not self._lost_a_port():
                break
            with self._lock:
                self._launch()
        if self._stopping:
            raise ServerError("The server was told to stop before it was ready")
        raise ServerError(self._why_it_ended())

    def wait(self) -> None:
        """Wait until the server has ended. Raises ServerError if nobody had told it to."""
        process = self._running()
        while not process.ended.wait(1.0):  # in steps, so that Ctrl-C gets through
            pass
        if not self._stopping:
            raise ServerError(self._why_it_ended())

    def versions(self) -> dict[str, list[str]]:
        """The versions of each model that are ready now. Raises ServerError without an answer."""
        try:
            with self._http() as connection:
                connection.request("POST", "/v2/repository/index", '{"ready": true}')
                index = json.loads(connection.getresponse().read())
        except (OSError, http.client.HTTPException, ValueError) as exc:
            raise ServerError(f"The server at {self.http_url} does not answer: {exc}") from exc
        found: dict[str, list[str]] = {}
        for entry in index:
            found.setdefault(entry["name"], []).append(entry["version"])
        return found

    def stop(self) -> None:
        """Stop the server if it runs, and wait until nothing of it is left."""
        with self._lock:
            self._stopping = True
            process = self._process
        if process is not None:
            process.stop(_GRACE_SECONDS)

    def __enter__(self) -> Server:
        try:
            return self.start().wait_ready()
        except BaseException:
            self.stop()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def is_running(self) -> bool:
        return self._process is not None and not self._process.ended.is_set()

    @property
    def pid(self) -> int:
        """The process number of tritonserver itself."""
        return self._running().pid

    @property
    def grpc_url(self) -> str:
        return f"grpc://{self._address()}:{self._port('grpc')}"

    @property
    def http_url(self) -> str:
        return f"http://{self._address()}:{self._port('http')}"

    @property
    def metrics_url(self) -> str:
        return f"http://{self._address()}:{self._port('metrics')}/metrics"

    @property
    def log(self) -> list[LogLine]:
        """The newest lines of the server's output, some thousands at most."""
        return list(self._process.log) if self._process else []

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that are served."""
        return tuple(self._served)

    @property
    def skipped(self) -> dict[str, str]:
        """The models that can't run on this machine, each with the reason."""
        return dict(self._skipped)

    def _select(self) -> Environment:
        models = read_models(self._repository, self._models)
        plans = {model.backend for model in models.values() if model.backend in PLAN_BACKENDS}
        has_gpu = bool(devices.gpus())
        runtimes = sorted(name for name in plans if name) if has_gpu else []
        prepared = environment.prepare(self._server_env, self._on_progress, runtimes)
        ours = self._server_env is None and not runtimes
        modules = ("numpy", "onnxruntime") if ours else tuple(environment.modules(prepared))
        self._skipped = leave_out(models, has_gpu, modules)
        self._served = {name: m for name, m in models.items() if name not in self._skipped}
        for name, reason in self._skipped.items():
            self._tell(LogLine("warning", "", "", f"{name} is left out: {reason}"))
        if not self._served:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in self._skipped.items())
            raise HostError(f"None of the models can be served on this machine. {reasons}")
        return prepared

    def _launch(self) -> None:
        assert self._environment is not None
        self._ports = pick_ports(self._host, self._wanted_ports)
        view = make_view((model.path for model in self._served.values()), self._environment)
        try:
            shm_prefix = f"tritonsmith_{os.getpid()}_{secrets.token_hex(6)}_"
            self._process = ServerProcess(
                self._command(view, shm_prefix),
                _environ(view),
                shm_prefix,
                str(view.folder),
                self._on_log,
            )
        except OSError as exc:
            shutil.rmtree(view.folder, ignore_errors=True)
            raise HostError(f"tritonserver could not be started: {exc}") from exc

    def _command(self, view: View, shm_prefix: str) -> list[str]:
        assert self._environment is not None
        return [
            str(self._environment.tritonserver),
            f"--model-repository={view.repository}",
            f"--backend-directory={view.backends}",
            f"--cache-directory={self._environment.caches}",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
            "--disable-auto-complete-config",
            "--model-control-mode=none",
            "--strict-readiness=true",
            "--exit-on-error=true",
            f"--exit-timeout-secs={_EXIT_SECONDS}",
            f"--http-address={self._host}",
            f"--http-port={self._ports['http']}",
            f"--grpc-address={self._host}",
            f"--grpc-port={self._ports['grpc']}",
            f"--metrics-address={self._host}",
            f"--metrics-port={self._ports['metrics']}",
            *self._extra_args,
        ]

    def _answers_ready(self) -> bool:
        try:
            with self._http() as connection:
                connection.request("GET", "/v2/health/ready")
                return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False

    def _http(self) -> contextlib.closing[http.client.HTTPConnection]:
        port = self._port("http")
        return contextlib.closing(http.client.HTTPConnection(self._address(), port, timeout=5))

    def _address(self) -> str:
        """The address to call: the wildcard addresses can be listened on, not called."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"[{host}]" if ":" in host else host

    def _port(self, name: str) -> int:
        self._running()
        return self._ports[name]

    def _running(self) -> ServerProcess:
        if self._process is None:
            raise ServerError("The server was not started: use `with Server(...)` or start()")
        return self._process

    def _tell(self, line: LogLine) -> None:
        if self._on_log:
            self._on_log(line)

    def _lost_a_port(self) -> bool:
        """Whether it failed because another program took a port that we had found free."""
        picked = [self._ports[name] for name, port in self._wanted_ports.items() if port is None]
        return any(
            f":{port}" in line.text and "already in use" in line.text
            for line in self.log
            for port in picked
        )

    def _why_it_ended(self) -> str:
        reasons = failures(self.log)
        if reasons:
            return "\n".join(
                f"The server could not load {model}: {why}" if model else f"The server ended: {why}"
                for model, why in reasons.items()
            )
        code = self._running().returncode
        how = f"was killed by signal {-code}" if code and code < 0 else f"ended with code {code}"
        return f"The server (tritonserver, pid {self.pid}) {how}. " + self._last_words()

    def _last_words(self) -> str:
        told = [str(line) for line in self.log if not is_noise(line)][-8:]
        return "Its last lines:\n  " + "\n  ".join(told) if told else "It said nothing."


def _environ(view: View) -> dict[str, str]:
    """Our environment variables, with the stub's Python found first."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    for name, first in (("PATH", view.bin), ("LD_LIBRARY_PATH", view.lib)):
        env[name] = os.pathsep.join([str(first), *filter(None, [os.environ.get(name)])])
    return env
