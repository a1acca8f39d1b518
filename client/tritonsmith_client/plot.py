"""A latency histogram as an SVG picture, without a drawing library."""

from __future__ import annotations

from xml.sax.saxutils import escape

from .loadtest import Report

__all__ = ["histogram_svg"]

_WIDTH, _HEIGHT, _MARGIN = 720, 320, 44


def histogram_svg(report: Report, title: str, bins: int = 40) -> str:
    """The text of an SVG file: bars over milliseconds, with lines at p50, p90 and p99."""
    bars = report.histogram(bins)
    most = max((count for _, count in bars), default=0) or 1
    low = report.latencies[0] if report.latencies else 0.0
    high = bars[-1][0] if bars else 1.0
    across, up = _WIDTH - 2 * _MARGIN, _HEIGHT - 2 * _MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
        f'<text x="{_MARGIN}" y="24" font-size="15">{escape(title)}</text>',
    ]
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
