"""What every server has in common, wherever its tritonserver runs: waiting, asking, stopping."""

from __future__ import annotations

import contextlib
import http.client
import ipaddress
import json
import secrets
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Protocol, TypeVar

from tritonsmith_generator.errors import HostError, ServerError
from tritonsmith_generator.events import Progress
from tritonsmith_generator.serve.log import LogLine, ServerLog, failures, is_noise
from tritonsmith_generator.serve.served_models import ServedModel

__all__ = ["EXIT_SECONDS", "RESTRICTED", "SAFE_FLAGS", "Running", "ServerBase"]

EXIT_SECONDS = 8  # the server waits so long for requests in flight when it is told to end
_GRACE_SECONDS = 12.0
_POLL_SECONDS = 0.05
_ATTEMPTS = 3  # a free port can be taken by another program before the server has it

# What is served is what the repository says, no client can change it, and a model that does not
# load is an error instead of a gap.
SAFE_FLAGS = (
    "--disable-auto-complete-config",
    "--model-control-mode=none",
    "--strict-readiness=true",
    "--exit-on-error=true",
    f"--exit-timeout-secs={EXIT_SECONDS}",
)

# What nobody needs who only asks models, by the names of --http-restricted-api.
RESTRICTED = ("model-repository", "shared-memory", "trace", "logging")
_KEY = "admin-key"

_Self = TypeVar("_Self", bound="ServerBase")


class Running(Protocol):
    """A tritonserver that was started, and that may have ended since.

    ``ended`` is set once nothing of it is left; ``fate`` then says in words how it ended.
    """

    @property
    def ended(self) -> threading.Event: ...
    @property
    def fate(self) -> str: ...
    def stop(self, grace: float) -> None: ...


class ServerBase(ABC):
    """A context manager: it starts, waits until every model is ready, and stops."""

    _HAS_BANNER = False  # whether something else speaks before the server does

    def __init__(
        self,
        repository: Path,
        host: str,
        ports: Mapping[str, int | None],
        on_log: Callable[[LogLine], None] | None,
        on_progress: Progress | None,
    ) -> None:
        self._repository = repository
        self._host = host
        self._wanted_ports = dict(ports)
        self._on_log = on_log
        self._on_progress = on_progress
        self._lock = threading.RLock()
        self._run: Running | None = None
        self._output = ServerLog(on_log, self._HAS_BANNER)
        self._ports: dict[str, int] = {}
        self._served: dict[str, ServedModel] = {}
        self._skipped: dict[str, str] = {}
        self._stopping = False
        self._admin_key = secrets.token_hex(16)

    @abstractmethod
    def _prepare(self) -> None:
        """Choose the models and make ready whatever a start needs. Raises TritonsmithError."""

    @abstractmethod
    def _launch(self, on_line: Callable[[str], None]) -> Running:
        """Start the server and set ``_ports``; each line of its output goes to ``on_line``."""

    def start(self: _Self) -> _Self:
        """Start the server and return at once; ``wait_ready`` says when it serves.

        Raises InputError for a repository that is none, HostError where the server or all of
        the models can't run here, or a port is taken.
        """
        with self._lock:
            if self.is_running:
                raise ServerError("This server is already running; make another Server for two")
            self._stopping = False
            self._prepare()
            self._run = self._launched()
        return self

    def _launched(self) -> Running:
        self._output = ServerLog(self._on_log, self._HAS_BANNER)
        return self._launch(self._output.add)

    def wait_ready(self: _Self, timeout: float = 300.0) -> _Self:
        """Wait until every model is ready. Raises ServerError with the server's own reason."""
        deadline = time.monotonic() + timeout
        for attempt in range(1, _ATTEMPTS + 1):
            run = self._started()
            while not run.ended.wait(_POLL_SECONDS):
                if self._answers_ready():
                    return self
                if time.monotonic() > deadline:
                    raise ServerError(
                        f"The server was not ready after {timeout:g} s. " + self._last_words()
                    )
            if attempt == _ATTEMPTS or self._stopping or not self._lost_a_port():
                break
            with self._lock:
                self._run = self._launched()
        if self._stopping:
            raise ServerError("The server was told to stop before it was ready")
        raise ServerError(self._why_it_ended())

    def wait(self) -> None:
        """Wait until the server has ended. Raises ServerError if nobody had told it to."""
        run = self._started()
        while not run.ended.wait(1.0):  # in steps, so that Ctrl-C gets through
            pass
        if not self._stopping:
            raise ServerError(self._why_it_ended())

    def versions(self) -> dict[str, list[str]]:
        """Return the versions of each model that are ready now.

        Raises ServerError without an answer.
        """
        try:
            with self._http() as connection:
                headers = {_KEY: self._admin_key}
                connection.request("POST", "/v2/repository/index", '{"ready": true}', headers)
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
            run = self._run
        if run is not None:
            run.stop(_GRACE_SECONDS)

    def __enter__(self: _Self) -> _Self:
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
        return self._run is not None and not self._run.ended.is_set()

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
        return list(self._output.lines)

    @property
    def models(self) -> tuple[str, ...]:
        """The names of the models that are served."""
        return tuple(self._served)

    @property
    def skipped(self) -> dict[str, str]:
        """The models that can't run on this machine, each with the reason."""
        return dict(self._skipped)

    def _serve_or_skip(self, models: Mapping[str, ServedModel], skipped: Mapping[str, str]) -> None:
        """Note which models are served, and say which are not. Raises HostError if none is."""
        self._skipped = dict(skipped)
        self._served = {name: model for name, model in models.items() if name not in skipped}
        for name, reason in skipped.items():
            if self._on_log:
                self._on_log(LogLine("warning", "", "", f"{name} is left out: {reason}"))
        if not self._served:
            reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items())
            raise HostError(f"None of the models can be served on this machine. {reasons}")

    def _restrictions(self, allowed: str | None = None) -> list[str]:
        """Return flags that refuse to others what only we need, where other machines can call.

        ``allowed`` is one of RESTRICTED that everybody may use all the same.
        """
        if self._is_loopback():
            return []
        names = ",".join(name for name in RESTRICTED if name != allowed)
        flags = ("--http-restricted-api", "--grpc-restricted-protocol")
        return [f"{flag}={names}:{_KEY}={self._admin_key}" for flag in flags]

    def _is_loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self._host).is_loopback
        except ValueError:
            return self._host == "localhost"

    def _started(self) -> Running:
        if self._run is None:
            raise ServerError("The server was not started: use `with Server(...)` or start()")
        return self._run

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
        """Return the address to call: the wildcard addresses can be listened on, not called."""
        host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(self._host, self._host)
        return f"[{host}]" if ":" in host else host

    def _port(self, name: str) -> int:
        self._started()
        return self._ports[name]

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
        return f"The server ended by itself: {self._started().fate}. " + self._last_words()

    def _last_words(self) -> str:
        lines = [line for line in self.log if not is_noise(line)] or self.log
        told = [str(line) for line in lines[-8:]]
        return "Its last lines:\n  " + "\n  ".join(told) if told else "It said nothing."
