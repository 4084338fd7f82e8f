"""Small line plots as pictures, without a plotting library."""

from __future__ import annotations

import math
from dataclasses import dataclass

from PIL import Image, ImageDraw, ImageFont

COLOURS = ("#1f6fb4", "#d1495b", "#3a8f5c", "#b07d18")
INK, FAINT = "#222222", "#dddddd"
WIDTH, HEIGHT, MARGIN = 640, 300, (64, 40, 18, 44)  # left, top, right, bottom


@dataclass(frozen=True)
class Panel:
    """One plot.

    Parameters
    ----------
    title, x_label : str
    series : dict of str to list of (x, y)
        By the name that the legend gives them.
    from_zero : bool
        Let the vertical axis begin at 0.
    """

    title: str
    x_label: str
    series: dict[str, list[tuple[float, float]]]
    from_zero: bool = False


def draw_panels(panels: list[Panel], columns: int = 1) -> Image.Image:
    """Draw plots one below the other, or in rows of several."""
    rows = max(1, math.ceil(len(panels) / columns))
    picture = Image.new("RGB", (WIDTH * columns, HEIGHT * rows), "white")
    for number, panel in enumerate(panels):
        one = Image.new("RGB", (WIDTH, HEIGHT), "white")
        _draw(ImageDraw.Draw(one), panel)
        row, column = divmod(number, columns)
        picture.paste(one, (WIDTH * column, HEIGHT * row))
    return picture


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Round numbers between ``low`` and ``high``, about ``count`` of them."""
    span = high - low
    if not span > 0:
        return [low]
    raw = span / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def _draw(draw: ImageDraw.ImageDraw, panel: Panel) -> None:
    font = ImageFont.load_default(13)
    points = [p for line in panel.series.values() for p in line]
    points = [p for p in points if all(map(math.isfinite, p))] or [(0.0, 0.0)]
    x_low, x_high = _range([x for x, _ in points], 0.0)
    y_low, y_high = _range([y for _, y in points] + [0.0] * panel.from_zero, 0.05)
    y_low = max(y_low, 0.0) if panel.from_zero else y_low
    left, top = MARGIN[0], MARGIN[1]
    right, bottom = WIDTH - MARGIN[2], HEIGHT - MARGIN[3]

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + (x - x_low) / (x_high - x_low) * (right - left),
            bottom - (y - y_low) / (y_high - y_low) * (bottom - top),
        )

    for y in ticks(y_low, y_high):
        at = place(x_low, y)[1]
        draw.line([(left, at), (right, at)], FAINT)
        draw.text((left - 6, at), f"{y:g}", INK, font, anchor="rm")
    for x in ticks(x_low, x_high, 8):
        at = place(x, y_low)[0]
        draw.line([(at, bottom), (at, bottom + 4)], INK)
        draw.text((at, bottom + 7), f"{x:g}", INK, font, anchor="mt")
    draw.line([(left, top), (left, bottom), (right, bottom)], INK)
    draw.text(((left + right) / 2, HEIGHT - 6), panel.x_label, INK, font, anchor="mb")
    draw.text((left, 8), panel.title, INK, font, anchor="lt")
    legend = right
    for number, (name, line) in reversed(list(enumerate(panel.series.items()))):
        colour = COLOURS[number % len(COLOURS)]
        path = [place(*p) for p in line if all(map(math.isfinite, p))]
        if len(path) > 1:
            draw.line(path, colour, 2, joint="curve")
        for x, y in path if len(path) < 30 else []:
            draw.ellipse([(x - 2, y - 2), (x + 2, y + 2)], colour)
        draw.text((legend, 24), name, colour, font, anchor="rt")
        legend -= draw.textlength(name, font) + 16


def _range(values: list[float], room: float) -> tuple[float, float]:
    low, high = min(values), max(values)
    if high - low < 1e-9:
        return low - 0.5, high + 0.5
    return low - room * (high - low), high + room * (high - low)
