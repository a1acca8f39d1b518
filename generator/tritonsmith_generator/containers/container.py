"""One tritonserver in a container: watched, its output read, and removed whatever happens."""

from __future__ import annotations

import contextlib
import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from typing import Any

import docker
import docker.errors
import requests

__all__ = ["ContainerRun"]

_KEPT_LINES = 4000
_KILLED = 128  # a shell's and docker's way to tell a signal: 128 + its number
_log = logging.getLogger(__name__)


class ContainerRun:
    """A started container. When it ends, or its owner does, it is removed, the client closed.

    ``code`` is its exit code once it has ended; None if it was removed by someone else.
    """

    def __init__(
        self,
        client: docker.DockerClient,
        container: Any,
        on_line: Callable[[str], None],
    ) -> None:
        self.ended = threading.Event()
        self.fate = ""
        self.code: int | None = None
        self._client, self._container = client, container
        self._on_line = on_line
        self._guard = subprocess.Popen(
            [sys.executable, "-m", "tritonsmith_generator.containers.reaper", container.id],
            stdin=subprocess.PIPE,
            start_new_session=True,
        )
        reader = threading.Thread(target=self._read, name="container log", daemon=True)
        reader.start()
        threading.Thread(
            target=self._watch, args=(reader,), name="container watch", daemon=True
        ).start()

    @property
    def name(self) -> str:
        return str(self._container.name)

    def stop(self, grace: float) -> None:
        """Ask it to end, and after ``grace`` seconds kill it; returns when it is removed."""
        if not self.ended.is_set():
            try:
                self._container.stop(timeout=int(grace))
            except docker.errors.NotFound:
                pass  # removed by someone else
            except (docker.errors.APIError, requests.RequestException):
                _log.exception("docker could not stop %s", self.name)
        self.ended.wait()

    def _read(self) -> None:
        try:
            stream = self._container.logs(stream=True, follow=True)
        except (docker.errors.DockerException, requests.RequestException):
            return  # the engine has gone; the watch says so
        try:
            for line in _lines(stream):
                self._on_line(line)
        finally:
            with contextlib.suppress(OSError, AttributeError):  # it is open if the engine has gone
                stream.close()

    def _watch(self, reader: threading.Thread) -> None:
        try:
            self.code = self._wait()
            self._container.reload()
            state = self._container.attrs["State"]
            reader.join(timeout=5)
            self.fate = f"the container {self.name} " + _fate(self.code, state)
        except (docker.errors.DockerException, requests.RequestException) as exc:
            self.fate = f"the container {self.name} is gone: {exc}"
        # It may be gone already, or the engine may be.
        with contextlib.suppress(docker.errors.DockerException, requests.RequestException):
            self._container.remove(force=True, v=True)
        assert self._guard.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._guard.stdin.write(b"done\n")
            self._guard.stdin.close()
        self._guard.wait()
        reader.join()
        self._client.close()
        self.ended.set()

    def _wait(self) -> int:
        """Return the exit code, however long it takes."""
        while True:
            try:
                return int(self._container.wait(timeout=3600)["StatusCode"])
            except requests.exceptions.ReadTimeout:
                continue


def _fate(code: int, state: dict[str, Any]) -> str:
    if state.get("OOMKilled"):
        return "was killed because it had no memory left"
    if code > _KILLED:
        return f"was killed by signal {code - _KILLED}"
    return f"ended with code {code}" + (f": {state['Error']}" if state.get("Error") else "")


def _lines(chunks: Iterable[bytes]) -> Iterable[str]:
    """Whole lines out of chunks that break anywhere."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line.decode(errors="replace").rstrip("\r") for line in whole)
    if rest:
        yield rest.decode(errors="replace")
