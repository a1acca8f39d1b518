"""Triton's metrics, in Prometheus' text format."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from tritonsmith_client._exchange.exchange import Asked, Exchange
from tritonsmith_client._http.messages import HttpReply, route
from tritonsmith_client.errors import ResponseError

__all__ = ["Metric", "metrics_exchange", "parse_metrics"]


@dataclass(frozen=True)
class Metric:
    """One sample of Triton's Prometheus metrics."""

    name: str
    labels: Mapping[str, str]
    value: float


_SAMPLE = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)(?:\{(.*)\})?\s+(\S+)(?:\s+-?\d+)?")


_LABEL = re.compile(r'([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"(?:,|$)')


_ESCAPES = {"\\n": "\n", '\\"': '"', "\\\\": "\\"}


def parse_metrics(text: str) -> tuple[Metric, ...]:
    """Return the samples of Prometheus' text format.

    Raises ResponseError for a line that is none.
    """
    samples = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        match = _SAMPLE.fullmatch(line.strip())
        try:
            if match is None:
                raise ValueError
            name, labels, value = match.groups()
            samples.append(Metric(name, _labels(labels or ""), float(value)))
        except ValueError:
            raise ResponseError(f"no metric: {line[:120]!r}") from None
    return tuple(samples)


def _labels(text: str) -> dict[str, str]:
    return {
        name: re.sub(r"\\.", lambda m: _ESCAPES.get(m[0], m[0]), value)
        for name, value in _LABEL.findall(text)
    }


_METRICS_HINT = (
    "metrics(url='http://HOST:PORT') names another address; a server may also run without "
    "metrics (--allow-metrics=false)"
)


def metrics_exchange(path: str) -> Exchange[tuple[Metric, ...]]:
    """Ask for the Prometheus metrics, which have an address of their own."""
    what = Asked("reading the metrics", hint=_METRICS_HINT)

    def read(reply: HttpReply) -> tuple[Metric, ...]:
        error = reply.error(what)
        if error is not None:
            raise error
        return parse_metrics(reply.text())

    return Exchange(what, route("GET", path or "/metrics"), (), read)
