"""The embedded tritonserver as a Python object.

with Server("model_repository") as server:
    with Client(server.grpc_url) as client:
        ...
"""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

from tritonsmith_generator.errors import HostError
from tritonsmith_generator.events import Progress
from tritonsmith_generator.host.gpus import visible_gpus
from tritonsmith_generator.serve.embedded import environment
from tritonsmith_generator.serve.embedded.environment import Environment
from tritonsmith_generator.serve.embedded.process import ServerProcess
from tritonsmith_generator.serve.embedded.sandbox import Sandbox, make_sandbox
from tritonsmith_generator.serve.log import LogLine
from tritonsmith_generator.serve.plan_flags import refuse_missing_plugins
from tritonsmith_generator.serve.ports import pick_ports
from tritonsmith_generator.serve.served_models import (
    PLAN_BACKENDS,
    embedded_reason,
    leave_out,
    read_models,
)
from tritonsmith_generator.serve.server_base import SAFE_FLAGS, Running, ServerBase

__all__ = ["Server"]


class Server(ServerBase):
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
        ports = {"http": http_port, "grpc": grpc_port, "metrics": metrics_port}
        super().__init__(Path(repository), host, ports, on_log, on_progress)
        self._models = models
        self._server_env = Path(server_env) if server_env is not None else None
        self._extra_args = tuple(extra_args)
        self._environment: Environment | None = None

    @property
    def pid(self) -> int:
        """The process number of tritonserver itself."""
        run = self._started()
        assert isinstance(run, ServerProcess)
        return run.pid

    def _prepare(self) -> None:
        models = read_models(self._repository, self._models)
        plans = {model.backend for model in models.values() if model.backend in PLAN_BACKENDS}
        gpus = visible_gpus()
        runtimes = sorted(name for name in plans if name) if gpus else []
        prepared = environment.prepare(self._server_env, self._on_progress, runtimes)
        ours = self._server_env is None and not runtimes
        modules = ("numpy", "onnxruntime") if ours else tuple(environment.modules(prepared))
        reason = embedded_reason(gpus, modules)
        self._serve_or_skip(models, leave_out(models, reason))
        refuse_missing_plugins(self._served.values())
        self._environment = prepared

    def _launch(self, on_line: Callable[[str], None]) -> Running:
        assert self._environment is not None
        self._ports = pick_ports(self._host, self._wanted_ports)
        sandbox = make_sandbox((model.path for model in self._served.values()), self._environment)
        shm_prefix = f"tritonsmith_{os.getpid()}_{secrets.token_hex(6)}_"
        command = self._command(sandbox, self._environment, shm_prefix)
        try:
            return ServerProcess(
                command, _environ(sandbox), shm_prefix, str(sandbox.folder), on_line
            )
        except OSError as exc:
            shutil.rmtree(sandbox.folder, ignore_errors=True)
            raise HostError(f"tritonserver could not be started: {exc}") from exc

    def _command(self, sandbox: Sandbox, prepared: Environment, shm_prefix: str) -> list[str]:
        return [
            str(prepared.tritonserver),
            f"--model-repository={sandbox.repository}",
            f"--backend-directory={sandbox.backends}",
            f"--cache-directory={prepared.caches}",
            f"--backend-config=python,shm-region-prefix-name={shm_prefix}",
            *SAFE_FLAGS,
            f"--http-address={self._host}",
            f"--http-port={self._ports['http']}",
            f"--grpc-address={self._host}",
            f"--grpc-port={self._ports['grpc']}",
            f"--metrics-address={self._host}",
            f"--metrics-port={self._ports['metrics']}",
            *self._restrictions(),
            *self._extra_args,
        ]


def _environ(sandbox: Sandbox) -> dict[str, str]:
    """Our environment variables, with the stub's Python found first."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONHOME", "PYTHONPATH")}
    for name, first in (("PATH", sandbox.bin), ("LD_LIBRARY_PATH", sandbox.lib)):
        env[name] = os.pathsep.join([str(first), *filter(None, [os.environ.get(name)])])
    return env
