"""Pictures of frames with masks and lesions, as pixels; those of a report, as SVG."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageDraw

from napari_cmunet.io.measured_lesion import tree_lesions
from napari_cmunet.util.safe_files import atomic_write
from napari_cmunet.vessels.qca import Calibration

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from napari_cmunet.io.measured_lesion import MeasuredLesion, Stretch
    from napari_cmunet.vessels.borders import Borders
    from napari_cmunet.vessels.qca import Analysis


# Orange that lets the vessel through and suits every kind of colour vision.
COLOUR, _OPACITY = (255, 140, 0), 0.45
# Apart for every kind of colour vision, on a dark picture and on paper.
_BORDER, _LESION = (86, 180, 233), (230, 159, 0)


def write_overlay(
    path: Path,
    frame: np.ndarray,
    mask: np.ndarray,
    window: tuple[float, float] | None = None,
) -> None:
    """Write a PNG of a frame (Y, X) with its mask (Y, X, bool) in orange.

    Parameters
    ----------
    window : (low, high), optional
        Grey values to show as black and white; nearly all of the frame's by default.

    Raises
    ------
    WriteError
    """
    colour = np.repeat(grey_levels(frame, window)[..., None], 3, axis=-1)
    mixed = (1 - _OPACITY) * colour + _OPACITY * np.array(COLOUR)
    colour[mask] = mixed[mask]
    with atomic_write(path) as handle:
        Image.fromarray(colour.round().astype(np.uint8)).save(handle, "PNG")


def grey_levels(
    frame: np.ndarray, window: tuple[float, float] | None = None
) -> np.ndarray:
    """Return a frame (Y, X) as it is shown, float64 from 0 to 255.

    Parameters
    ----------
    window : (low, high), optional
        Grey values to show as black and white; nearly all of the frame's by default.
    """
    low, high = window or np.percentile(frame, (0.5, 99.5))
    scale = 255 / max(high - low, 1e-9)
    return np.clip((frame.astype(np.float64) - low) * scale, 0, 255)


def draw_lesions(
    frame: np.ndarray,
    window: tuple[float, float] | None,
    borders: Iterable[Borders],
    lesions: Iterable[MeasuredLesion],
) -> Image.Image:
    """Draw a frame, twice as large, with borders and numbered lesions."""
    grey = Image.fromarray(grey_levels(frame, window).astype(np.uint8))
    picture = grey.convert("RGB").resize((2 * grey.width, 2 * grey.height))
    draw = ImageDraw.Draw(picture)
    for part in borders:
        for curve in part.curves():
            draw.line(_points(curve), fill=_BORDER)
    for number, lesion in enumerate(lesions, 1):
        if lesion.stretch is not None:
            inside = slice(lesion.stretch.start, lesion.stretch.end + 1)
            for curve in lesion.stretch.borders.curves():
                draw.line(_points(curve[inside]), fill=_LESION, width=3)
        percent = lesion.number("diameter_stenosis_percent")
        if lesion.place is None or percent is None:
            continue
        row, column = lesion.place
        draw.text(
            (2 * column + 14, 2 * row - 12),
            f"{number}: {percent:.0f} %",
            fill=_LESION,
            font_size=20,
            stroke_width=2,
            stroke_fill=(0, 0, 0),
        )
    return picture


def write_picture(
    path: Path,
    frame: np.ndarray,
    segments: dict[int, Analysis],
    window: tuple[float, float] | None = None,
) -> None:
    """Write a PNG of the frame, with all borders and ranked lesions.

    Raises
    ------
    WriteError
    """
    borders = [analysis.borders for analysis in segments.values()]
    lesions = tree_lesions(segments, Calibration())
    with atomic_write(path) as handle:
        draw_lesions(frame, window, borders, lesions).save(handle, "PNG")


def _points(curve: np.ndarray) -> list[tuple[float, float]]:
    return [(2 * column + 0.5, 2 * row + 0.5) for row, column in curve]


_MASK, _STENOSIS = (f"#{bytes(c).hex()}" for c in (_BORDER, _LESION))
_BLUE, _ORANGE, _INK, _FAINT = "#0072b2", "#aa5a00", "#222", "#bbb"
_WIDTH, _HEIGHT, _AGREEMENT_HEIGHT = 520, 170, 260
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 36


@dataclass(frozen=True)
class Agreement:
    """Readers against the model in one number.

    Parameters
    ----------
    name, unit : str
    pairs : sequence of (model, reader)
    low, bias, high : float
        Mean difference and its 95 % limits, which are NaN of a single pair.
    """

    name: str
    unit: str
    pairs: Sequence[tuple[float, float]]
    low: float
    bias: float
    high: float


def frame_picture(
    frame: np.ndarray,
    window: tuple[float, float] | None,
    mask: np.ndarray,
    lesions: Sequence[MeasuredLesion],
) -> str:
    """A frame with the outline of its mask, and its lesions by number."""
    from skimage.measure import find_contours  # slow to import

    height, width = frame.shape
    size = max(height, width) / 512  # of a line, in pixels
    parts = [
        f'<svg class="frame" viewBox="0 0 {width} {height}" role="img">'
        "<title>The angiogram with the outline of the mask and the lesions</title>"
        f'<image width="{width}" height="{height}" href="{_png(frame, window)}"/>'
    ]
    outline = find_contours(np.pad(mask, 1).astype(np.uint8), 0.5)
    parts += [
        _line(curve - 1, _MASK, 0.8 * size, "stroke-opacity='.8'") for curve in outline
    ]
    labels = []
    for number, lesion in enumerate(lesions, 1):
        stretch, place = lesion.stretch, lesion.place
        if stretch is not None:
            left, right = stretch.borders.curves()
            inside = slice(stretch.start, stretch.end + 1)
            parts += [_line(c[inside], _STENOSIS, 1.8 * size) for c in (left, right)]
            bar = np.array([left[stretch.at], right[stretch.at]])
            parts.append(_line(bar, _STENOSIS, 1.8 * size))
        if place is not None:
            labels.append(_number(number, place, size, (height, width)))
    return "".join([*parts, *labels, "</svg>"])


def profile_plot(stretch: Stretch, mm: float | None) -> str:
    """The diameter along a stretch, its reference and the limits of the lesion."""
    factor, unit = mm or 1.0, "px" if mm is None else "mm"
    diameter, reference = stretch.borders.diameter, stretch.reference
    along = np.arange(len(diameter))
    highest = 1.12 * factor * float(max(diameter.max(), reference.max()))
    axes = _Axes((0, factor * (len(diameter) - 1)), (0, highest))
    parts = [_begin("Diameter along the vessel")]
    for first, last in _runs(~stretch.usable):
        parts.append(axes.band(factor * first, factor * last, "#000", 0.08))
    parts.append(
        axes.band(factor * stretch.start, factor * stretch.end, _STENOSIS, 0.22)
    )
    parts += axes.draw(f"from proximal to distal, {unit}", f"diameter, {unit}")
    parts.append(axes.curve(factor * along, factor * reference, _ORANGE, "6 4"))
    parts.append(axes.curve(factor * along, factor * diameter, _BLUE))
    x, y = axes.at(factor * stretch.at, factor * float(diameter[stretch.at]))
    parts.append(
        f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="#fff" stroke="{_INK}" '
        'stroke-width="1.4"/>'
    )
    parts.append(_text(x, y + 17, "MLD", "middle"))
    return "".join([*parts, "</svg>"])


def agreement_plot(found: Agreement) -> str:
    """A Bland-Altman plot of readers against the model."""
    unit, limits = found.unit, (found.low, found.bias, found.high)
    model, reader = np.array(found.pairs, float).T
    mean, difference = (model + reader) / 2, reader - model
    lines = [value for value in limits if np.isfinite(value)]
    axes = _Axes(
        _padded([*mean]),
        _padded([*difference, *lines, 0.0]),
        right=_WIDTH - 124,
        height=_AGREEMENT_HEIGHT,
    )
    parts = [_begin(f"Bland-Altman plot: {found.name}", _AGREEMENT_HEIGHT)]
    parts += axes.draw(
        f"mean of model and reader, {unit}", f"reader &minus; model, {unit}"
    )
    zero = axes.at(0, 0)[1]
    parts.append(_rule(axes, zero, _FAINT, ""))
    for value, text, dash in zip(
        limits, ("&minus;1.96 SD", "bias", "+1.96 SD"), ("6 4", "", "6 4"), strict=True
    ):
        if not np.isfinite(value):
            continue
        y = axes.at(0, value)[1]
        parts.append(_rule(axes, y, _ORANGE, dash))
        signed = f"{text} {signed_number(value, unit)}"
        parts.append(_text(axes.right + 6, y + 4, signed, "start"))
    for x, y in (axes.at(*pair) for pair in zip(mean, difference, strict=True)):
        parts.append(
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3.5" fill="{_BLUE}" '
            'fill-opacity=".65"/>'
        )
    return "".join([*parts, "</svg>"])


def signed_number(value: float, unit: str) -> str:
    """A difference with its sign, as HTML."""
    digits = 1 if unit == "%" else 2
    return f"{value:+.{digits}f}".replace("-", "&minus;")


class _Axes:
    """From values to places in a plot."""

    def __init__(
        self,
        across: tuple[float, float],
        upwards: tuple[float, float],
        right: float = _WIDTH - _RIGHT,
        height: float = _HEIGHT,
    ) -> None:
        self.across, self.upwards = across, upwards
        self.right, self.height, self.bottom = right, height, height - _BOTTOM

    def at(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Where a point, or an array of points, lies."""
        (left, right), (low, high) = self.across, self.upwards
        share, up = (x - left) / (right - left), (y - low) / (high - low)
        return (
            _LEFT + share * (self.right - _LEFT),
            self.bottom - up * (self.bottom - _TOP),
        )

    def band(self, first: float, last: float, colour: str, opacity: float) -> str:
        """A stretch of the whole height."""
        x, end = self.at(first, 0)[0], self.at(last, 0)[0]
        return (
            f'<rect x="{x:.1f}" y="{_TOP}" width="{max(end - x, 1):.1f}" '
            f'height="{self.bottom - _TOP}" fill="{colour}" '
            f'fill-opacity="{opacity}"/>'
        )

    def curve(
        self, x: np.ndarray, y: np.ndarray, colour: str, dash: str = "none"
    ) -> str:
        """A line through points."""
        places = np.stack(self.at(x, y)[::-1], axis=1)
        return _line(places - 0.5, colour, 1.8, f"stroke-dasharray='{dash}'")

    def draw(self, below: str, beside: str) -> Iterable[str]:
        """Both axes with round numbers and what they show."""
        low, high = self.upwards
        for y in _ticks(low, high, 4):
            place = self.at(0, y)[1]
            yield _rule(self, place, "#ececec", "")
            yield _text(_LEFT - 6, place + 4, f"{y:g}".replace("-", "&minus;"), "end")
        for x in _ticks(*self.across, 8):
            place = self.at(x, 0)[0]
            yield _text(place, self.bottom + 15, f"{x:g}", "middle")
        middle = (_TOP + self.bottom) / 2
        yield (
            f'<path d="M{_LEFT} {_TOP}V{self.bottom}H{self.right}" fill="none" '
            f'stroke="{_FAINT}"/>'
        )
        yield _text((_LEFT + self.right) / 2, self.height - 5, below, "middle")
        yield (
            f'<text transform="translate(12 {middle}) rotate(-90)" '
            f'text-anchor="middle">{beside}</text>'
        )


def _begin(title: str, height: float = _HEIGHT) -> str:
    return (
        f'<svg class="plot" viewBox="0 0 {_WIDTH} {height}" role="img">'
        f"<title>{title}</title>"
    )


def _rule(axes: _Axes, y: float, colour: str, dash: str) -> str:
    return (
        f'<path d="M{_LEFT} {y:.1f}H{axes.right}" stroke="{colour}" '
        f'stroke-dasharray="{dash or "none"}"/>'
    )


def _text(x: float, y: float, text: str, anchor: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{text}</text>'


def _line(points: np.ndarray, colour: str, width: float, more: str = "") -> str:
    """A line through rows and columns; the middle of a pixel is half a pixel in."""
    places = " ".join(f"{x + 0.5:.1f},{y + 0.5:.1f}" for y, x in points)
    return (
        f'<polyline points="{places}" fill="none" stroke="{colour}" '
        f'stroke-width="{width:.2f}" {more}/>'
    )


def _number(
    number: int, place: tuple[float, float], size: float, shape: tuple[int, int]
) -> str:
    """The number of a lesion beside it, inside the picture."""
    (row, column), width = place, shape[1]
    away = 16 * size
    x = column + (away if column < width - 2 * away else -away)
    y = row - (away if row > 2 * away else -away)
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{18 * size:.1f}" '
        f'text-anchor="middle" dominant-baseline="central" font-weight="bold" '
        f'fill="{_STENOSIS}" stroke="#000" stroke-width="{3 * size:.1f}" '
        f'paint-order="stroke">{number}</text>'
    )


def _png(frame: np.ndarray, window: tuple[float, float] | None) -> str:
    grey = Image.fromarray(grey_levels(frame, window).round().astype(np.uint8))
    buffer = io.BytesIO()
    grey.save(buffer, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _runs(where: np.ndarray) -> list[tuple[int, int]]:
    """First and last index of each run of true values."""
    edges = np.flatnonzero(np.diff(np.pad(where.astype(np.int8), 1)))
    return [(int(first), int(last) - 1) for first, last in edges.reshape(-1, 2)]


def _padded(values: list[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.12 * (high - low) or 0.5
    return low - margin, high + margin


def _ticks(low: float, high: float, most: int) -> np.ndarray:
    """Round numbers between two values."""
    rough = (high - low) / most
    power = 10.0 ** np.floor(np.log10(rough))
    step = power * next(m for m in (1, 2, 5, 10) if m * power >= rough * 0.999)
    ticks = np.arange(np.ceil(low / step), np.floor(high / step) + 1) * step
    return np.round(ticks, 10) + 0.0
