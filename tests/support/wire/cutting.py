"""A proxy that breaks on command: ``python cutting.py HOST PORT`` prints its port and then reads
``cut HOW DIRECTION COUNT`` or ``mend`` a line from standard input, answering each with ``ok``.

It is a program of its own, so that none of its sockets' numbers is ever reused by what is tested.
"""

from __future__ import annotations

import contextlib
import os
import socket
import struct
import sys
import threading
import time

_SILENCE = 2.0


class CuttingProxy:
    """Passes bytes on until it is told to break: `cut` says how, and after how many more."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._how = ""
        self._left: dict[str, float] = {}
        self._lock = threading.Lock()
        threading.Thread(target=self._serve, daemon=True).start()

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    def cut(self, how: str, direction: str, count: int) -> None:
        with self._lock:
            self._how, self._left = how, {direction: count}

    def mend(self) -> None:
        with self._lock:
            self._how, self._left = "", {}

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                front, _ = self._listener.accept()
                back = socket.create_connection(self._target)
                for source, sink, direction in ((front, back, "up"), (back, front, "down")):
                    threading.Thread(
                        target=self._pass, args=(source, sink, direction, front, back), daemon=True
                    ).start()

    def _pass(
        self,
        source: socket.socket,
        sink: socket.socket,
        direction: str,
        front: socket.socket,
        back: socket.socket,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                with self._lock:
                    left = self._left.get(direction, float("inf"))
                    if self._how and left <= len(data):
                        data, how = data[: int(left)], self._how
                    else:
                        how = ""
                        if self._how and direction in self._left:
                            self._left[direction] -= len(data)
                sink.sendall(data)
                if how == "silent":
                    time.sleep(_SILENCE)
                if how == "reset":  # RST instead of FIN
                    linger = struct.pack("ii", 1, 0)
                    front.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                    front.shutdown(socket.SHUT_RD)  # nothing is closed while a thread reads it
                    front.close()
                if how:
                    break
        for connection in (front, back):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def main() -> None:
    proxy = CuttingProxy(sys.argv[1], int(sys.argv[2]))
    sys.stdout.write(f"{proxy.port}\n")
    sys.stdout.flush()
    for line in sys.stdin:
        word, *arguments = line.split()
        if word == "cut":
            proxy.cut(arguments[0], arguments[1], int(arguments[2]))
        else:
            proxy.mend()
        sys.stdout.write("ok\n")
        sys.stdout.flush()
    os._exit(0)  # its threads wait for bytes that never come


if __name__ == "__main__":
    main()
