"""The process behind the embedded server, where a real server is too slow to hit the moment."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap


def test_stopping_what_has_just_died_does_not_hang() -> None:
    """Once in some hundred stops the thread that waits for the process comes late; here, always."""
    program = """
        import os, signal, time
        from tritonsmith_generator.serve.embedded.process import ServerProcess

        waitid = os.waitid
        os.waitid = lambda *arguments: time.sleep(0.5) or waitid(*arguments)
        process = ServerProcess(["sleep", "100"], dict(os.environ), "none_", "/nowhere", print)
        os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.2)
        process.stop(5)
        assert "killed by signal 9" in process.fate
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], start_new_session=True
    ) as running:
        try:
            assert running.wait(timeout=60) == 0
        finally:
            if running.returncode is None:
                os.killpg(running.pid, signal.SIGKILL)
