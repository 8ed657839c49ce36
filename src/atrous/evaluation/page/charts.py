"""Charts as inline SVG, which take their colours from the page."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 380, 270
LEFT, RIGHT, TOP, BOTTOM = 46, 14, 14, 44
SERIES = 6
"""Colours of series in the style sheet, which are repeated after that."""


@dataclass(frozen=True)
class Line:
    """A line: its points, their interval if there is one, and what it is."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Bar:
    """A bar: its group and value, 0 to 1, with an interval."""

    name: str
    value: float | None
    interval: tuple[float, float] | None = None


@dataclass(frozen=True)
class Point:
    """A difference in points (percent) with its interval, and whether it is certain."""

    name: str
    value: float | None
    interval: tuple[float, float] | None
    sure: bool


def _svg(body: str, title: str, height: int = HEIGHT) -> Markup:
    return Markup(
        f'<svg class="chart" viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}">{body}</svg>'
    )


def _text(x: float, y: float, text: object, kind: str = "tick", anchor: str = "middle") -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" class="{kind}" text-anchor="{anchor}">{escape(text)}</text>'


def _up(value: float) -> float:
    """A share, 0 to 1, as a position."""
    return TOP + (1 - value) * (HEIGHT - TOP - BOTTOM)


def _axes(across: Callable[[float], float], ticks: Sequence[float], below: str, beside: str) -> str:
    parts = []
    for share in (0, 0.25, 0.5, 0.75, 1):
        parts.append(f'<path class="grid" d="M{LEFT} {_up(share):.1f}H{WIDTH - RIGHT}"/>')
        parts.append(_text(LEFT - 8, _up(share) + 4, f"{100 * share:.0f}", anchor="end"))
    parts += [_text(across(tick), HEIGHT - BOTTOM + 18, f"{tick:g}") for tick in ticks]
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, below, "label"))
    middle = (TOP + HEIGHT - BOTTOM) / 2
    parts.append(
        f'<text class="label" text-anchor="middle" transform="translate(12 {middle}) rotate(-90)">{beside}</text>'
    )
    return "".join(parts)


def _path(points: Sequence[tuple[float, float]]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)


def boundary_curve(lines: Sequence[Line], title: str) -> Markup:
    """Mean IoU of the pixels within a distance of a boundary, over that distance on a logarithmic axis.

    Args:
        lines: points of distance in pixels and mean IoU, 0 to 1.
        title: what a screen reader says.
    """
    widths = sorted({x for line in lines for x, _ in line.points})
    low, high = math.log(widths[0]), math.log(widths[-1])
    room = WIDTH - LEFT - RIGHT - 16

    def across(width: float) -> float:
        return LEFT + 8 + room * ((math.log(width) - low) / (high - low) if high > low else 0.5)

    body = _axes(across, widths, "pixels from a boundary, at most", "mean IoU %")
    return _svg(body + _lines(lines, across), title)


def reliability_curve(lines: Sequence[Line], shares: Sequence[float], title: str) -> Markup:
    """Accuracy over confidence; on the diagonal, a network is as right as it is sure.

    Args:
        lines: points of confidence and accuracy, 0 to 1.
        shares: of all pixels in each bin of confidence, drawn below as bars; none if there are several lines.
        title: what a screen reader says.
    """
    room = WIDTH - LEFT - RIGHT

    def across(percent: float) -> float:
        return LEFT + room * percent / 100

    body = _axes(across, (0, 25, 50, 75, 100), "confidence %", "accuracy %")
    width = room / max(1, len(shares))
    for number, share in enumerate(shares):
        body += (
            f'<rect class="share" x="{LEFT + number * width + 1:.1f}" width="{width - 2:.1f}" y="{_up(share):.1f}" '
            f'height="{_up(0) - _up(share):.1f}"/>'
        )
    body += f'<path class="ideal" d="{_path([(across(0), _up(0)), (across(100), _up(1))])}"/>'
    return _svg(body + _lines(lines, lambda share: across(100 * share)), title)


def _lines(lines: Sequence[Line], across: Callable[[float], float]) -> str:
    body = ""
    for number, line in enumerate(lines):
        places = [(across(x), _up(y)) for x, y in line.points]
        if places:
            body += f'<g class="series s{number % SERIES}"><path d="{_path(places)}"/>'
            body += "".join(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>' for x, y in places) + "</g>"
    return body


def bars(groups: Sequence[tuple[str, Sequence[Bar]]], title: str) -> Markup:
    """Horizontal bars in groups, with intervals as whiskers and values beside them."""
    line, gap, left, right = 24, 14, 104, 48
    room, y, body = WIDTH - left - right, 4, ""
    for name, members in groups:
        body += _text(left - 10, y + line * len(members) / 2 + 4, name, "label", "end")
        for number, bar in enumerate(members):
            body += f'<rect class="track" x="{left}" y="{y + 3}" width="{room}" height="{line - 6}" rx="2"/>'
            if bar.value is not None:
                fill = f'x="{left}" y="{y + 3}" width="{room * bar.value:.1f}" height="{line - 6}" rx="2"'
                body += f'<rect class="bar s{number % SERIES}" {fill}/>'
            if bar.interval:
                low, high = (left + room * end for end in bar.interval)
                body += f'<path class="whisker" d="M{low:.1f} {y + 7}v{line - 14}m0 {7 - line / 2}H{high:.1f}'
                body += f'm0 {7 - line / 2}v{line - 14}"/>'
            shown = "–" if bar.value is None else f"{100 * bar.value:.1f}"
            body += _text(WIDTH - right + 8, y + line / 2 + 4, shown, "value", "start")
            y += line
        y += gap
    return _svg(body, title, y)


def differences(rows: Sequence[Point], title: str) -> Markup:
    """Differences with their intervals around a line of no difference.

    Args:
        rows: the differences.
        title: what a screen reader says.
    """
    line, left, right = 26, 118, 48
    reach = 1.08 * max([1.0, *(abs(end) for row in rows for end in (*(row.interval or ()), row.value or 0))])
    middle, room = left + (WIDTH - left - right) / 2, (WIDTH - left - right) / 2
    body, y = f'<path class="zero" d="M{middle} 4V{4 + line * len(rows)}"/>', 4.0
    for row in rows:
        height = y + line / 2
        body += _text(left - 10, height + 4, row.name, "label", "end")
        if row.value is not None:
            kind = ("better" if row.value > 0 else "worse") if row.sure else "unsure"
            if row.interval:
                low, high = (middle + room * end / reach for end in row.interval)
                body += f'<path class="span {kind}" d="M{low:.1f} {height}H{high:.1f}"/>'
            body += f'<circle class="{kind}" cx="{middle + room * row.value / reach:.1f}" cy="{height}" r="4.5"/>'
        shown = "–" if row.value is None else f"{row.value:+.1f}"
        body += _text(WIDTH - right + 8, height + 4, shown, "value", "start")
        y += line
    body += _text(middle - 6, y + 14, "← A is better", anchor="end")
    body += _text(middle + 6, y + 14, "B is better →", anchor="start")
    return _svg(body, title, round(y) + 22)
