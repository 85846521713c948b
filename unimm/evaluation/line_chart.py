"""Line charts of measured figures as SVG, which pages and repositories show without a library."""

import html
import math
from collections.abc import Mapping, Sequence

_WIDTH, _HEIGHT = 640, 380
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 170, 46, 54
_COLOURS = ("#b5533c", "#26546b", "#4d7a4a", "#c79a3a", "#6a7fa8", "#8f5a83", "#3a2e25", "#8f7f6b")
_MOST_MARKS = 8  # of the points themselves, below the chart; else round numbers
_FEWEST_TICKS = 5

Line = Sequence[tuple[float, float]]


def line_chart(
    lines: Mapping[str, Line], *, title: str, x_label: str, y_label: str, is_share: bool = False
) -> str:
    """Draw lines on two logarithmic axes, with a mark at every point.

    Args:
        lines: name -> points; the numbers are positive.
        title: above the chart.
        x_label: below it.
        y_label: beside it.
        is_share: the upright axis is an even one that begins at 0, which is then allowed on it.

    Returns:
        A whole SVG file.

    Raises:
        ValueError: if there is nothing to draw, or a number is not positive.
    """
    xs = sorted({x for line in lines.values() for x, _ in line})
    ys = [y for line in lines.values() for _, y in line]
    if not xs or xs[0] <= 0 or (min(ys) < 0 if is_share else min(ys) <= 0):
        raise ValueError(f"{title}: logarithmic axes need positive numbers, got {dict(lines)}")
    ticks = _even_numbers(max(ys)) if is_share else _round_numbers(min(ys), max(ys))
    across = _scale(xs[0], xs[-1], _LEFT, _WIDTH - _RIGHT)
    up = (_even_scale if is_share else _scale)(ticks[0], ticks[-1], _HEIGHT - _BOTTOM, _TOP)
    marks = xs if len(xs) <= _MOST_MARKS else _round_numbers(xs[0], xs[-1])
    marks = [x for x in marks if xs[0] <= x <= xs[-1]]
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
        'font-family="Georgia, serif" font-size="13" fill="#3a2e25">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fbf7ee"/>',
        _text(_LEFT, 26, title, size=17),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, x_label, anchor="middle"),
        f'<g transform="rotate(-90 18 {_HEIGHT / 2})">'
        + _text(18, _HEIGHT / 2, y_label, anchor="middle")
        + "</g>",
    ]
    for tick in ticks:
        y = up(tick)
        parts.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - _RIGHT}" stroke="#4a362030"/>')
        parts.append(_text(_LEFT - 8, y + 4, f"{tick:g}", anchor="end"))
    parts += [_text(across(x), _HEIGHT - _BOTTOM + 18, f"{x:g}", anchor="middle") for x in marks]
    for number, (name, line) in enumerate(lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        points = [(across(x), up(y)) for x, y in sorted(line)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{colour}"/>' for x, y in points]
        y = _TOP + 8 + 20 * number
        parts.append(f'<rect x="{_WIDTH - _RIGHT + 14}" y="{y - 9}" width="10" height="10" ')
        parts[-1] += f'fill="{colour}"/>'
        parts.append(_text(_WIDTH - _RIGHT + 30, y, name))
    return "\n".join([*parts, "</svg>", ""])


def chart_grid(charts: Sequence[str], *, columns: int = 2) -> str:
    """Put several of ``line_chart`` into one SVG file, row by row."""
    rows = -(-len(charts) // columns)
    size = f"0 0 {columns * _WIDTH} {rows * _HEIGHT}"
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{size}">']
    for number, chart in enumerate(charts):
        x, y = number % columns * _WIDTH, number // columns * _HEIGHT
        place = f'x="{x}" y="{y}" width="{_WIDTH}" height="{_HEIGHT}"'
        parts.append(chart.replace("<svg", f"<svg {place}", 1))
    return "\n".join([*parts, "</svg>", ""])


def _text(x: float, y: float, words: str, *, anchor: str = "start", size: int = 13) -> str:
    where = f'x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}"'
    return f"<text {where}>{html.escape(words)}</text>"


def _scale(low: float, high: float, start: float, end: float):
    """Where a number lies between two places, by its logarithm."""
    span = math.log(high / low) or 1.0

    def place(value: float) -> float:
        return start + (end - start) * math.log(value / low) / span

    return place


def _even_scale(low: float, high: float, start: float, end: float):
    """Where a number lies between two places."""

    def place(value: float) -> float:
        return start + (end - start) * (value - low) / (high - low)

    return place


def _even_numbers(high: float) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten, from 0 to above ``high``, six at most."""
    high = max(high, 1e-9)
    power = 10.0 ** (math.floor(math.log10(high)) - 1)
    step = next(s * power for s in (1, 2, 5, 10, 20, 50) if s * power * 5 >= high)
    return [number * step for number in range(math.ceil(high / step - 1e-9) + 1)]


def _round_numbers(low: float, high: float) -> list[float]:
    """1, 2 and 5 times powers of ten, or finer ones, from below ``low`` to above ``high``."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found: list[float] = []
    for digits in ((1, 2, 5), (1, 1.5, 2, 3, 4, 5, 6, 8)):
        marks = [m * 10.0**e for e in range(first, last + 1) for m in digits]
        start = max(i for i, mark in enumerate(marks) if mark <= low)
        end = next((i for i, mark in enumerate(marks) if mark >= high), len(marks) - 1)
        found = marks[start : max(end, start + 1) + 1]
        if len(found) >= _FEWEST_TICKS:
            break
    return found
