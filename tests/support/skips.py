"""A plugin that tells at the end what was skipped: a line for each reason, not for each place."""

from __future__ import annotations

from collections import Counter

import pytest

_LONGEST = 100


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    reasons = Counter(
        report.longrepr[2].removeprefix("Skipped: ")[:_LONGEST]
        for report in terminalreporter.stats.get("skipped", [])
        if isinstance(report.longrepr, tuple)
    )
    if reasons:
        terminalreporter.ensure_newline()
        terminalreporter.section("skipped")
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"{count:4} {reason}")
