"""A run as a piece of HTML for notebooks: what it is, how far it is, its numbers, its curve. No scripts, no styles.

Colours are taken from the page (``currentColor``), so that it looks right on a light and on a dark one.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

import numpy as np

BLUE, GREEN, AMBER, RED = "#2563eb", "#059669", "#d97706", "#dc2626"
_WIDTH, _HEIGHT = 640, 110
_POINTS = 320
"""Of a curve at most: more would not be seen."""


def card(
    title: str, subtitle: str, badge: tuple[str, str], share: float | None, numbers: Sequence[tuple[str, str]],
    curve: Sequence[tuple[float, float]], footer: str = "",
) -> str:
    """The whole piece.

    Args:
        title, subtitle, footer: plain text.
        badge: a word and its colour.
        share: how much of the run is done, in [0, 1]; ``None`` draws no bar.
        numbers: labels and values.
        curve: (env steps, episode return), in order.
    """
    parts = [
        f'<div style="font-family:system-ui,sans-serif;font-size:13px;max-width:{_WIDTH}px;line-height:1.45;'
        'border:1px solid rgba(128,128,128,.35);border-radius:8px;padding:12px 16px;margin:4px 0">',
        '<div style="display:flex;justify-content:space-between;align-items:baseline">'
        f'<span style="font-size:15px;font-weight:600">{escape(title)}</span>'
        f'<span style="color:{badge[1]};font-weight:600">{escape(badge[0])}</span></div>',
        f'<div style="opacity:.65;margin-bottom:6px">{escape(subtitle)}</div>',
    ]
    if share is not None:
        parts.append(
            '<div style="height:6px;border-radius:3px;background:rgba(128,128,128,.25);margin:6px 0 8px">'
            f'<div style="width:{100 * min(share, 1.0):.1f}%;height:6px;border-radius:3px;background:{badge[1]}">'
            "</div></div>"
        )
    if numbers:
        cells = "".join(
            f'<span style="white-space:nowrap"><span style="opacity:.6">{escape(label)}</span> '
            f'<b style="font-variant-numeric:tabular-nums">{escape(value)}</b></span>'
            for label, value in numbers
        )
        parts.append(f'<div style="display:flex;flex-wrap:wrap;gap:2px 18px">{cells}</div>')
    parts.append(curve_svg(curve))
    if footer:
        parts.append(f'<div style="opacity:.65;font-family:monospace;font-size:12px">{escape(footer)}</div>')
    return "".join(parts) + "</div>"


def curve_svg(points: Sequence[tuple[float, float]]) -> str:
    """(env steps, episode return) as a line with its least and greatest values at the side; none below two points."""
    if len(points) < 2:
        return ""
    chosen = np.unique(np.linspace(0, len(points) - 1, min(len(points), _POINTS)).astype(int))
    steps, returns = np.array(points, float)[chosen].T
    low, high = float(returns.min()), float(returns.max())
    left, right, top, bottom = 52.0, _WIDTH - 40.0, 10.0, _HEIGHT - 18.0
    x = left + (steps - steps[0]) / max(steps[-1] - steps[0], 1.0) * (right - left)
    y = bottom - (returns - low) / ((high - low) or 1.0) * (bottom - top)
    line = " ".join(f"{a:.1f},{b:.1f}" for a, b in zip(x, y, strict=True))
    text = 'fill="currentColor" fill-opacity=".6" font-size="11" font-family="system-ui,sans-serif"'
    return (
        f'<svg viewBox="0 0 {_WIDTH - 34} {_HEIGHT}" width="100%" role="img" aria-label="learning curve" '
        'style="display:block;margin:8px 0 2px">'
        f'<line x1="{left}" x2="{right}" y1="{bottom}" y2="{bottom}" stroke="currentColor" stroke-opacity=".2"/>'
        f'<polyline points="{line}" fill="none" stroke="{BLUE}" stroke-width="2" stroke-linejoin="round"/>'
        f'<text x="{left - 6}" y="{top + 4}" text-anchor="end" {text}>{high:.5g}</text>'
        f'<text x="{left - 6}" y="{bottom}" text-anchor="end" {text}>{low:.5g}</text>'
        f'<text x="{left}" y="{_HEIGHT - 4}" {text}>return by env steps</text>'
        f'<text x="{right}" y="{_HEIGHT - 4}" text-anchor="end" {text}>{steps[-1]:,.0f}</text></svg>'
    )
