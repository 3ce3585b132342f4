"""Draw line charts with two logarithmic axes as SVG text. Pure; called by the benchmarks."""

import math
from collections.abc import Sequence
from html import escape
from typing import Final, NamedTuple

WIDTH: Final = 860
HEIGHT: Final = 460
_LEFT: Final = 80
_TOP: Final = 50
_BOTTOM: Final = 60
#: Space for the legend.
_RIGHT: Final = 270
#: The colours of Okabe and Ito, which remain distinct with colour blindness; further series repeat them dashed.
_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000")


class Series(NamedTuple):
    """One line: its name, and its points, x rising. All numbers are positive."""

    name: str
    points: Sequence[tuple[float, float]]


class Axis(NamedTuple):
    """The label of an axis and its marks with their texts; None marks each power of ten."""

    label: str
    marks: Sequence[tuple[float, str]] | None = None


class _Scale(NamedTuple):
    """Maps values to coordinates on a logarithmic scale."""

    low: float
    high: float
    first: float
    last: float

    def place(self, value: float) -> float:
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return round(self.first + share * (self.last - self.first), 1)


def chart(title: str, x: Axis, y: Axis, series: Sequence[Series], notes: Sequence[tuple[float, str]] = ()) -> str:
    """Return the SVG of a chart; a note is a horizontal line with a text. Raises ValueError for a point below 0."""
    points = [point for one in series for point in one.points]
    if not points or any(value <= 0 for point in points for value in point):
        raise ValueError("points: expected at least one, all of them positive, because the axes are logarithmic")
    levels = [value for _, value in points] + [value for value, _ in notes]
    across = _Scale(*_bounds([value for value, _ in points], whole=False), _LEFT, WIDTH - _RIGHT)
    up = _Scale(*_bounds(levels, whole=True), HEIGHT - _BOTTOM, _TOP)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        'font-family="sans-serif" font-size="12">',
        f"<title>{escape(title)}</title>",
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
        f'<text x="{_LEFT}" y="28" font-size="15" font-weight="bold">{escape(title)}</text>',
        *_grid(across, up, x, y),
    ]
    for value, text in notes:
        at = up.place(value)
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}" stroke="#888888" stroke-dasharray="6 4"/>'
            f'<text x="{_LEFT + 6}" y="{at - 5}" fill="#555555">{escape(text)}</text>'
        )
    for number, one in enumerate(series):
        parts += _line(number, one, across, up)
    return "\n".join([*parts, "</svg>", ""])


def stack(charts: Sequence[str]) -> str:
    """Return charts as one SVG, one below the other."""
    height = HEIGHT * len(charts)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">',
        *(f'<g transform="translate(0 {HEIGHT * number})">\n{one}</g>' for number, one in enumerate(charts)),
    ]
    return "\n".join([*parts, "</svg>", ""])


def _bounds(values: Sequence[float], *, whole: bool) -> tuple[float, float]:
    """Return the logarithms of an axis' ends, rounded to whole powers of ten if `whole`."""
    low, high = math.log10(min(values)), math.log10(max(values))
    if whole:
        low, high = math.floor(low), math.ceil(high)
    return (low, high) if high > low else (low, low + 1)


def _marks(axis: Axis, scale: _Scale) -> Sequence[tuple[float, str]]:
    if axis.marks is not None:
        return axis.marks
    powers = range(math.ceil(scale.low), math.floor(scale.high) + 1)
    return [(10.0**power, f"{10**power:,}" if power >= 0 else f"{10.0**power:g}") for power in powers]


def _grid(across: _Scale, up: _Scale, x: Axis, y: Axis) -> list[str]:
    parts = []
    for value, text in _marks(x, across):
        at = across.place(value)
        parts.append(
            f'<line x1="{at}" x2="{at}" y1="{_TOP}" y2="{HEIGHT - _BOTTOM}" stroke="#e4e4e4"/>'
            f'<text x="{at}" y="{HEIGHT - _BOTTOM + 18}" text-anchor="middle">{escape(text)}</text>'
        )
    for value, text in _marks(y, up):
        at = up.place(value)
        parts.append(
            f'<line x1="{_LEFT}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}" stroke="#e4e4e4"/>'
            f'<text x="{_LEFT - 8}" y="{at + 4}" text-anchor="end">{escape(text)}</text>'
        )
    middle = (_LEFT + WIDTH - _RIGHT) / 2
    height = (_TOP + HEIGHT - _BOTTOM) / 2
    parts.append(f'<text x="{middle}" y="{HEIGHT - 16}" text-anchor="middle">{escape(x.label)}</text>')
    parts.append(
        f'<text x="20" y="{height}" text-anchor="middle" transform="rotate(-90 20 {height})">{escape(y.label)}</text>'
    )
    return parts


def _line(number: int, one: Series, across: _Scale, up: _Scale) -> list[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    dashes = "" if number < len(_COLOURS) else ' stroke-dasharray="3 3"'
    path = " ".join(f"{across.place(a)},{up.place(b)}" for a, b in one.points)
    legend = _TOP + 10 + 20 * number
    left = WIDTH - _RIGHT + 16
    return [
        f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"{dashes}/>',
        f'<line x1="{left}" x2="{left + 22}" y1="{legend}" y2="{legend}" stroke="{colour}" stroke-width="2"{dashes}/>'
        f'<text x="{left + 28}" y="{legend + 4}">{escape(one.name)}</text>',
    ]
