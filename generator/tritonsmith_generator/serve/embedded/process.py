"""One running tritonserver: started in a process group of its own, watched, and stopped whole."""

from __future__ import annotations

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence

from tritonsmith_generator.serve.embedded import reaper

__all__ = ["ServerProcess"]

_KEPT_LINES = 4000
_LAST_WORDS = 5.0  # seconds for what it said last, if something of it yet has its output open
_log = logging.getLogger(__name__)


class ServerProcess:
    """A tritonserver with its stubs. When it ends, however it ends, nothing of it is left.

    ``folder`` is the server's temporary folder and ``shm_prefix`` the start of the names of
    its shared memory; both are removed at the end.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Mapping[str, str],
        shm_prefix: str,
        folder: str,
        on_line: Callable[[str], None],
    ) -> None:
        self.ended = threading.Event()
        self._on_line = on_line
        self._shm_prefix, self._folder = shm_prefix, folder
        self._reaping = threading.Lock()
        self._guard = subprocess.Popen(
            [sys.executable, "-I", "-S", reaper.__file__, shm_prefix, folder],
            stdin=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            self._server = subprocess.Popen(
                command,
                env=env,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except BaseException:
            self._tell_guard(None)
            raise
        self._tell_guard(self._server.pid)
        self._reader = threading.Thread(target=self._read, name="tritonserver log", daemon=True)
        self._reader.start()
        threading.Thread(target=self._watch, name="tritonserver watch", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._server.pid

    @property
    def fate(self) -> str:
        """How it ended, in words."""
        code = self._server.returncode
        how = f"was killed by signal {-code}" if code < 0 else f"ended with code {code}"
        return f"tritonserver (pid {self.pid}) {how}"

    def stop(self, grace: float) -> None:
        """Ask it to end, and after ``grace`` seconds kill it; returns when all is cleaned up."""
        with self._reaping:
            # Popen.send_signal would reap what has just ended, and the watch would wait for ever.
            if self._server.returncode is None:
                os.kill(self._server.pid, signal.SIGTERM)
        if not self.ended.wait(grace):
            reaper.kill_group(self._server.pid)
        self.ended.wait()

    def _read(self) -> None:
        assert self._server.stdout is not None
        with self._server.stdout as output:
            for text in output:
                self._on_line(text.rstrip("\n"))

    def _watch(self) -> None:
        os.waitid(os.P_PID, self._server.pid, os.WEXITED | os.WNOWAIT)
        # Until the server is waited for, its number is not given to another process.
        reaper.kill_group(self._server.pid)
        with self._reaping:
            self._server.wait()
        reaper.clean(self._shm_prefix, self._folder)
        self._reader.join(_LAST_WORDS)
        self._tell_guard(None)
        self.ended.set()

    def _tell_guard(self, group: int | None) -> None:
        assert self._guard.stdin is not None
        try:
            self._guard.stdin.write("done\n" if group is None else f"{group}\n")
            self._guard.stdin.flush()
            if group is None:
                self._guard.stdin.close()
        except BrokenPipeError:  # someone killed the reaper; the server doesn't depend on it
            pass
        if group is None:
            self._guard.wait()
