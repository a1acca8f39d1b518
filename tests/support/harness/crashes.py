"""Servers that tests share and that end on their own: tests are told, and a known crash is undone.

The tritonserver of release 24.10 crashes now and then when a gRPC call is cancelled, or its
connection lost, just as its answer is ready (triton-inference-server/server#8034, mended in release
25.04). Its signal does not tell this crash from others, so each is counted in the summary.
"""

from __future__ import annotations

import contextlib
import gc
import signal
import sys
import time
import warnings
from collections.abc import Generator, Iterator, Sequence

import pytest
from _pytest.runner import runtestprotocol

from tritonsmith_generator.errors import ServerError, TritonsmithError
from tritonsmith_generator.serve import Server
from tritonsmith_generator.serve.embedded.process import ServerProcess
from tritonsmith_generator.serve.server_base import ServerBase

__all__ = ["SharedServers"]

_RUNS = 3  # of a test that fails because of crashes
_CRASHED = "the server crashed: its bug #8034"
_SIGNAL = f"was killed by signal {signal.SIGSEGV.value}"
_CRASHES = pytest.StashKey[list[str]]()
_END_SECONDS = 5.0  # between a connection that breaks in a crash and the end of the process


class SharedServers:
    """A plugin: starts servers again that have crashed, and runs a test again that failed by it.

    Args:
        servers: those that are shared now.
    """

    def __init__(self, servers: Sequence[ServerBase]) -> None:
        self._servers = servers

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item, nextitem: pytest.Item | None) -> bool:
        crashes = item.stash.setdefault(_CRASHES, [])
        crashes += self._start_crashed()  # in the test before, which did not mind
        item.ihook.pytest_runtest_logstart(nodeid=item.nodeid, location=item.location)
        for _ in range(_RUNS):
            before = len(crashes)
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            if len(crashes) == before:
                break
            _forget()
        for report in reports:
            item.ihook.pytest_runtest_logreport(report=report)
        item.ihook.pytest_runtest_logfinish(nodeid=item.nodeid, location=item.location)
        return True

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """A failure also tells of a shared server that has ended, without which tests mean nothing.

        What crashed is started again before anything is torn down that needs it, or stops it.
        """
        report = yield
        crashes = item.stash[_CRASHES]
        if report.failed:
            crashes += self._start_crashing()
            report.sections += [("a shared server has ended", why) for why in self._ended()]
        report.sections += [(_CRASHED, crash) for crash in crashes]
        return report

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        reports = (report for reports in terminalreporter.stats.values() for report in reports)
        crashes = {
            text
            for report in reports
            if isinstance(report, pytest.TestReport)
            for title, text in report.sections
            if title == _CRASHED
        }
        if crashes:
            terminalreporter.section(_CRASHED)
            for crash in sorted(crashes):
                terminalreporter.write_line(crash)
            terminalreporter.write_line(f"crashes: {len(crashes)}")

    def _start_crashing(self) -> list[str]:
        """As `_start_crashed`, of servers too whose connections have broken and that yet run."""
        deadline = time.monotonic() + _END_SECONDS
        while self._servers:
            if crashes := self._start_crashed():
                return crashes
            if time.monotonic() > deadline:
                break
            time.sleep(0.05)
        return []

    def _start_crashed(self) -> list[str]:
        """How each has ended that is started again."""
        crashes = []
        for server in self._servers:
            run = server._run
            ended = isinstance(server, Server) and run is not None and run.ended.is_set()
            if ended and isinstance(run, ServerProcess) and run.fate.endswith(_SIGNAL):
                crashes.append(run.fate)
                server._wanted_ports.update(server._ports)  # tests hold its addresses
                with contextlib.suppress(TritonsmithError):  # `_ended` then says why
                    server.start().wait_ready()
        return crashes

    def _ended(self) -> Iterator[str]:
        for server in self._servers:
            if not server.is_running:
                try:
                    server.wait()
                except ServerError as exc:
                    yield str(exc)


def _forget() -> None:
    """What a run that failed has not closed warns now, instead of in the tests that come next."""
    for name in ("last_type", "last_value", "last_traceback", "last_exc"):
        if hasattr(sys, name):
            delattr(sys, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()
