"""The end of a process that was to answer and did not: which signal, what it said, what to do."""

from __future__ import annotations

import os
import signal
import threading

from tritonsmith_generator.errors import HostError

__all__ = ["CrashError", "Output"]

_KEPT_OUTPUT = 64 * 1024  # bytes
_SHOWN_LINES = 16
_PATIENCE = 5.0  # seconds
_ADVICE = {
    signal.SIGKILL: "Most likely the kernel ended it because memory ran out: free memory or limit "
    "the workspace, then run again.",
    signal.SIGSEGV: "That is a fault in a native library: try another version of it, or simplify "
    "the model.",
    signal.SIGABRT: "A native library gave up; its last words are below. Try another version of "
    "it, or simplify the model.",
    signal.SIGBUS: "Most likely the disk or /dev/shm is full: free space, then run again.",
    signal.SIGILL: "This CPU lacks an instruction that the library was compiled for: use a build "
    "for this machine.",
    signal.SIGTERM: "Something asked it to stop; run again.",
}


class CrashError(HostError):
    """A process ended without an answer. ``code`` is its exit code; -9 is SIGKILL."""

    def __init__(self, text: str, code: int = 0) -> None:
        super().__init__(text)
        self.code = code

    @classmethod
    def of(cls, code: int, what: str, last: str, lines: list[str]) -> CrashError:
        """``last`` says how far ``what`` was, ``lines`` are the last that it printed."""
        if code < 0:
            number = signal.Signals(-code)
            how = f"was ended by {number.name} ({signal.strsignal(number)}) {last}"
            advice = _ADVICE.get(number, "Run it again.")
        else:
            how = f"left with exit code {code} {last}, without a result"
            advice = "Its last words are below."
        said = "\n  ".join(["It said last:", *lines]) if lines else "It had printed nothing."
        return cls(f"{what} {how}. {advice}\n{said}", code)


class Output(threading.Thread):
    """Reads all that a process prints, so that it never blocks, and keeps the end of it."""

    def __init__(self, fd: int) -> None:
        super().__init__(daemon=True)
        self._fd = fd
        self._tail = bytearray()

    def run(self) -> None:
        while chunk := os.read(self._fd, 1 << 16):
            self._tail += chunk
            del self._tail[:-_KEPT_OUTPUT]
        os.close(self._fd)

    def forget(self) -> None:
        """Leave out what was printed so far: it belongs to earlier work."""
        self._tail.clear()

    def finish(self) -> None:
        """Wait for the end; a daemon that left the process's group may hold the pipe open."""
        self.join(_PATIENCE)

    def last_lines(self) -> list[str]:
        """Return what was printed last. Call it when the process and its group have ended."""
        self.finish()
        return self._tail.decode(errors="replace").splitlines()[-_SHOWN_LINES:]
