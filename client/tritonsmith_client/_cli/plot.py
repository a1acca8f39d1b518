"""Latencies as SVG pictures, without a drawing library."""

from __future__ import annotations

from collections.abc import Sequence
from xml.sax.saxutils import escape

from tritonsmith_client._cli.load_test import Report

__all__ = ["curves_svg", "histogram_svg"]

_WIDTH, _HEIGHT, _MARGIN = 720, 320, 44


def curves_svg(reports: Sequence[Report], title: str) -> str:
    """Return the text of an SVG file: p50, p90 and p99 in milliseconds over answers a second."""
    reports = sorted(reports, key=lambda report: report.throughput)
    right = max((report.throughput for report in reports), default=0.0) or 1.0
    top = max((_number(report.percentile(99)) for report in reports), default=0.0) or 1.0
    across, up = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    parts = _frame(title)
    for share, colour in ((50, "#76b900"), (90, "#e69f00"), (99, "#cc3311")):
        places = [
            (
                _MARGIN + across * report.throughput / right,
                _HEIGHT - _MARGIN - up * _number(report.percentile(share)) / top,
            )
            for report in reports
        ]
        points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
        parts.append(f'<polyline points="{points}" fill="none" stroke="{colour}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>' for x, y in places]
        x, y = places[-1]
        parts.append(f'<text x="{x + 5:.1f}" y="{y:.1f}">p{share}</text>')
    foot = _HEIGHT - _MARGIN + 18
    parts.append(f'<text x="{_MARGIN}" y="{foot}">0</text>')
    parts.append(f'<text x="{_MARGIN - 4}" y="{_MARGIN}" text-anchor="end">{top:.2f} ms</text>')
    parts.append(
        f'<text x="{_WIDTH - _MARGIN}" y="{foot}" text-anchor="end">{right:.0f} a second</text>'
        "</svg>"
    )
    return "\n".join(parts)


def _frame(title: str) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_MARGIN}" y="24" font-size="15">{escape(title)}</text>',
    ]


def _number(value: float) -> float:
    """0 where nothing was answered."""
    return value if value == value else 0.0


def histogram_svg(report: Report, title: str, bins: int = 40) -> str:
    """Return the text of an SVG file: bars over milliseconds, with lines at p50, p90 and p99."""
    bars = report.histogram(bins)
    most = max((count for _, count in bars), default=0) or 1
    low = report.latencies[0] if report.latencies else 0.0
    high = bars[-1][0] if bars else 1.0
    across, up = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    parts = _frame(title)
    for number, (_, count) in enumerate(bars):
        height = up * count / most
        x, y = _MARGIN + across * number / bins, _HEIGHT - _MARGIN - height
        parts.append(
            f'<rect x="{x:.1f}" y="{y:.1f}" width="{across / bins - 1:.1f}" '
            f'height="{height:.1f}" fill="#76b900"/>'
        )
    for share in (50, 90, 99):
        value = report.percentile(share)
        if high > low and value == value:
            x = _MARGIN + across * min(1.0, (value - low) / (high - low))
            parts.append(
                f'<line x1="{x:.1f}" x2="{x:.1f}" y1="{_MARGIN}" y2="{_HEIGHT - _MARGIN}" '
                'stroke="#444" stroke-dasharray="4 3"/>'
                f'<text x="{x + 3:.1f}" y="{_MARGIN + 12}">p{share} {value:.2f} ms</text>'
            )
    foot = _HEIGHT - _MARGIN + 18
    parts.append(f'<text x="{_MARGIN}" y="{foot}">{low:.2f} ms</text>')
    parts.append(
        f'<text x="{_WIDTH - _MARGIN}" y="{foot}" text-anchor="end">{high:.2f} ms</text></svg>'
    )
    return "\n".join(parts)
