"""What test_worker.py runs in a child process: functions that behave badly, for real."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tritonsmith_generator.errors import InputError

Emit = Callable[[Any], None]


def double(numbers: list[int], emit: Emit) -> list[int]:
    for number in numbers:
        emit(f"doubling {number}")
    return [2 * number for number in numbers]


def process_id(_: object, emit: Emit) -> int:
    return os.getpid()


def path_and_modules(_: object, emit: Emit) -> tuple[list[str], bool]:
    return sys.path, "pytest" in sys.modules


def segfault(_: object, emit: Emit) -> None:
    emit("timing the kernels")
    os.write(2, b"loading libcrash.so\n")
    ctypes.string_at(0)


def abort(_: object, emit: Emit) -> None:
    os.write(2, b"terminate called after throwing an instance of 'std::bad_alloc'\n")
    os.abort()


def die_like_out_of_memory(_: object, emit: Emit) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def leave(code: int, emit: Emit) -> None:
    os._exit(code)


def print_megabytes(size: int, emit: Emit) -> str:
    for _ in range(size):
        os.write(1, b"x" * 1_000_000)
        os.write(2, b"y" * 1_000_000)
    return "done"


def refuse(text: str, emit: Emit) -> None:
    raise InputError(text)


def divide_by_zero(_: object, emit: Emit) -> float:
    return 1 / 0


class UnpicklableError(Exception):
    def __init__(self, text: str, lock: object) -> None:
        super().__init__(text)
        self.lock = lock


def raise_unpicklable(_: object, emit: Emit) -> None:
    raise UnpicklableError("holds a lock", threading.Lock())


def hang_with_a_child(_: object, emit: Emit) -> None:
    """Start a process that would outlive us, tell both ids, never return."""
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    emit((os.getpid(), child.pid))
    time.sleep(600)


def emit_from_threads(count: int, emit: Emit) -> int:
    def tell(number: int) -> None:
        for step in range(200):
            emit((number, step))

    threads = [threading.Thread(target=tell, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 200 * count


_remembered: list[str] = []


def remember(what: str) -> None:
    _remembered.append(what)


def refuse_to_prepare(what: str) -> None:
    raise InputError(what)


def remembered(_: object, emit: Emit) -> tuple[int, list[str]]:
    return os.getpid(), _remembered


def start_a_fork_that_hears_nothing(path: str) -> None:
    """To be prepared: its fork holds Python's lock, as TensorRT does while it starts."""
    from tritonsmith_generator.workers.process import Child

    process = Child(fork=True)
    process.prepare(hold_the_lock, path)
    _remembered.append("a fork")  # kept alive


def hold_the_lock(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    ctypes.PyDLL(None).sleep(600)  # one that does not give the lock away


def fork_and_ask(_: object) -> None:
    """To be prepared: a fork works, crashes and says so, with what it was told."""
    from tritonsmith_generator.errors import HostError
    from tritonsmith_generator.workers.process import child

    with child(fork=True) as process:
        _remembered.append(str(process.run(process_id, None, print) != os.getpid()))
        try:
            process.run(leave, 7, print)
        except HostError as exc:
            _remembered.append(str(exc))


def variable(name: str, emit: Emit) -> str | None:
    return os.environ.get(name)
