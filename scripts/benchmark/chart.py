"""A line chart as an SVG file: enough for a few lines over calls, with bands for what happened to the fleet."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Final

import numpy as np

from scripts.benchmark.regret import Event
from scripts.benchmark.world import Floats

_WIDTH: Final = 960
_HEIGHT: Final = 340
_LEFT: Final = 70
_RIGHT: Final = 150
_TOP: Final = 40
_BOTTOM: Final = 40
_POINTS: Final = 240
_LETTER: Final = 6.5
_LINE: Final = 13
"""How wide and how high writing is, about."""
_COLOURS: Final = ("#0b7285", "#e8590c", "#2b8a3e", "#7048e8", "#c2255c", "#868e96")


def panels(parts: Sequence[str]) -> str:
    """Return the panels below each other as one document."""
    moved = [
        f'<g transform="translate(0 {number * _HEIGHT})">{part}</g>' for number, part in enumerate(parts)
    ]
    high = _HEIGHT * len(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {high}" width="{_WIDTH}" height="{high}"'
        f' font-family="sans-serif" font-size="12">\n<rect width="100%" height="100%" fill="white"/>\n'
        + "\n".join(moved)
        + "\n</svg>\n"
    )


def panel(title: str, lines: Mapping[str, Floats], bands: Sequence[Event]) -> str:
    """Return one chart: a line a name, each with one value a call, thinned out, from 0 to the largest."""
    count = len(next(iter(lines.values())))
    places = np.unique(np.linspace(0, count - 1, _POINTS).astype(int))
    top = max(float(values[places].max()) for values in lines.values()) or 1.0
    drawn = [_text(_LEFT, _TOP - 16, title, weight="bold"), *(_band(band, count) for band in bands)]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        y, x = _y(share), _x(share)
        drawn.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_x(1):.1f}" y2="{y:.1f}" stroke="#dee2e6"/>')
        drawn.append(_text(_LEFT - 6, y + 4, _number(share * top), anchor="end"))
        drawn.append(_text(x, _y(0) + 18, f"{share * count:,.0f}", anchor="middle"))
    ends = sorted(((float(values[-1]), name) for name, values in lines.items()), reverse=True)
    lowest = 0.0
    heights = {}
    for value, name in ends:
        lowest = heights[name] = max(_y(value / top), lowest + 14)
    for colour, (name, values) in zip(_COLOURS, lines.items(), strict=False):
        dots = " ".join(f"{_x(n / (count - 1)):.1f},{_y(float(values[n]) / top):.1f}" for n in places)
        drawn.append(f'<polyline points="{dots}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        drawn.append(
            _text(_x(1) + 6, heights[name] + 4, f"{name} {_number(float(values[-1]))}", colour=colour)
        )
    return "\n".join(drawn)


def scatter(title: str, points: Sequence[tuple[str, float, float, bool]]) -> str:
    """Return one chart of points: a name, where it stands on a logarithmic axis and on a linear one, and its kind."""
    low, high = (edge(point[1] for point in points) for edge in (min, max))
    below, above = (edge(point[2] for point in points) for edge in (min, max))
    wide, tall = np.log(high / low) or 1.0, (above - below) or 1.0
    drawn = [_text(_LEFT, _TOP - 16, title, weight="bold")]
    for share in (0.0, 0.25, 0.5, 0.75, 1.0):
        drawn.append(
            f'<line x1="{_LEFT}" y1="{_y(share):.1f}" x2="{_x(1):.1f}" y2="{_y(share):.1f}" stroke="#dee2e6"/>'
        )
        drawn.append(_text(_LEFT - 6, _y(share) + 4, f"{below + share * tall:.0f}", anchor="end"))
        drawn.append(_text(_x(share), _y(0) + 18, f"{low * np.exp(share * wide):,.2f}", anchor="middle"))
    named: list[tuple[float, float, float]] = []
    for name, across, up, kind in sorted(points, key=lambda point: -point[2]):
        x, y, colour = _x(np.log(across / low) / wide), _y((up - below) / tall), _COLOURS[0 if kind else 1]
        drawn.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
        begin, end = x + 7, x + 7 + _LETTER * len(name)
        while any(abs(y - at) < _LINE and begin < right and left < end for left, right, at in named):
            y += 1
        named.append((begin, end, y))
        drawn.append(_text(begin, y + 4, name, colour=colour))
    return "\n".join(drawn)


def bars(title: str, groups: Mapping[str, Mapping[str, float]]) -> str:
    """Return a document with a group of bars for each name, on a logarithmic axis around 1."""
    names = list(dict.fromkeys(name for group in groups.values() for name in group))
    values = [value for group in groups.values() for value in group.values()]
    low, high = min(*values, 0.5) / 1.1, max(*values, 2.0) * 1.1
    left, right, thick = 170, 90, 14
    wide = _WIDTH - left - right

    def across(value: float) -> float:
        return left + wide * float(np.log(value / low) / np.log(high / low))

    drawn = [_text(20, 24, title, weight="bold")]
    top, y = 44.0, 44.0
    for heading, group in groups.items():
        drawn.append(_text(20, y + 12, heading))
        for name, value in group.items():
            colour = _COLOURS[names.index(name) % len(_COLOURS)]
            begin, end = sorted((across(1.0), across(value)))
            size = f'width="{max(end - begin, 1.5):.1f}" height="{thick - 3}"'
            drawn.append(f'<rect x="{begin:.1f}" y="{y:.1f}" {size} fill="{colour}"/>')
            drawn.append(_text(end + 5, y + 10, f"{value:.2f}  {name}", colour=colour))
            y += thick
        y += 12
    ticks = [tick for tick in (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0) if low <= tick <= high]
    for tick in ticks:
        x = across(tick)
        strong = "#495057" if tick == 1 else "#dee2e6"
        drawn.insert(1, f'<line x1="{x:.1f}" y1="{top - 6}" x2="{x:.1f}" y2="{y:.1f}" stroke="{strong}"/>')
        drawn.append(_text(x, y + 14, f"{tick:g}", anchor="middle"))
    tall = y + 26
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {tall:.0f}" width="{_WIDTH}" '
        f'height="{tall:.0f}" font-family="sans-serif" font-size="12">\n'
        '<rect width="100%" height="100%" fill="white"/>\n' + "\n".join(drawn) + "\n</svg>\n"
    )


def _band(band: Event, count: int) -> str:
    begin = _x(band.at / count)
    if band.until >= count:
        ends = f'x1="{begin:.1f}" y1="{_y(1)}" x2="{begin:.1f}" y2="{_y(0)}"'
        line = f'<line {ends} stroke="#495057" stroke-dasharray="4"/>'
        return line + _text(begin + 3, _y(1) + 10, band.name)
    width = _x(band.until / count) - begin
    box = f'<rect x="{begin:.1f}" y="{_y(1)}" width="{width:.1f}" height="{_y(0) - _y(1)}" fill="#fff3bf"/>'
    return box + _text(begin + 3, _y(1) + 10, band.name)


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.3f}" if value else "0"


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(share: float) -> float:
    return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", colour: str = "#212529", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" fill="{colour}" font-weight="{weight}">'
        f"{escape(words)}</text>"
    )
