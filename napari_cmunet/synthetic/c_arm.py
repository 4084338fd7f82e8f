"""The C-arm: from the patient in millimetres to grey values on the detector."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.ndimage import gaussian_filter, zoom


@dataclass(frozen=True)
class CArm:
    """A view: angles, distances, and what a pixel measures.

    Attributes
    ----------
    lao, cranial
        Angulation in degrees; negative values are RAO and caudal.
    pitch
        Millimetres per pixel in the plane of the isocentre.
    centre
        Image position (column, row) onto which the origin falls.
    size
        Pixels along each side of the square image.
    source
        Distance (mm) from the X-ray source to the isocentre.
    """

    lao: float
    cranial: float
    pitch: float
    centre: tuple[float, float]
    size: int
    source: float = 750.0

    @property
    def basis(self) -> np.ndarray:
        """Rows: image right, image up, and the ray towards the detector."""
        a, b = np.deg2rad(self.lao), np.deg2rad(self.cranial)
        right = np.array([np.cos(a), np.sin(a), 0.0])
        level = np.array([np.sin(a), -np.cos(a), 0.0])
        head = np.array([0.0, 0.0, 1.0])
        ray = np.cos(b) * level + np.sin(b) * head
        up = np.cos(b) * head - np.sin(b) * level
        return np.stack([right, up, ray])

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return image positions (n, 2) as (column, row), and pixels per mm."""
        right, up, depth = self.basis @ points.T
        scale = self.source / (self.source + depth) / self.pitch
        place = np.stack(
            [self.centre[0] + right * scale, self.centre[1] - up * scale], axis=1
        )
        return place, scale


def ellipsoid_thickness(
    view: CArm, middle: np.ndarray, axes: np.ndarray, radii: np.ndarray
) -> np.ndarray:
    """Return the chord (mm) of every ray through an ellipsoid, as an image."""
    shape = (axes.T / np.asarray(radii, dtype=float) ** 2) @ axes
    right, up, ray = view.basis
    columns, rows = _grid(view.size)
    u = (columns - view.centre[0]) * view.pitch - right @ middle
    v = (view.centre[1] - rows) * view.pitch - up @ middle
    rr, uu, ray2 = right @ shape @ right, up @ shape @ up, ray @ shape @ ray
    ru, rd, ud = right @ shape @ up, right @ shape @ ray, up @ shape @ ray
    # u is a row and v a column: terms in one of them alone stay one-dimensional.
    root = (u * u) * (rd * rd - ray2 * rr) + (v * v) * (ud * ud - ray2 * uu) + ray2
    root = root + (u * (2 * (rd * ud - ray2 * ru))) * v
    np.maximum(root, 0, out=root)
    np.sqrt(root, out=root)
    root *= 2 / ray2
    return root.astype(np.float32)


@lru_cache(maxsize=4)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    line = np.arange(size, dtype=np.float32)
    return line[None, :], line[:, None]


@lru_cache(maxsize=64)
def _window(half: int) -> tuple[np.ndarray, np.ndarray]:
    line = np.arange(-half, half + 1)
    dy, dx = np.meshgrid(line, line, indexing="ij")
    return dx.ravel(), dy.ravel()


@dataclass(frozen=True)
class Tube:
    """A projected tube: positions and radii in pixels, and what it holds.

    ``density`` is contrast per sample (0 empty, 1 full); ``length`` is the way
    through space (pixels) for which each sample stands.
    """

    place: np.ndarray
    radius: np.ndarray
    density: np.ndarray
    length: np.ndarray


def tube(
    view: CArm,
    points: np.ndarray,
    radius: np.ndarray,
    density: np.ndarray | float = 1.0,
) -> Tube:
    """Project a tube of samples in space and sample it finely enough to draw."""
    place, scale = view.project(points)
    steps = np.linalg.norm(np.diff(points, axis=0), axis=1)
    way = np.r_[0, np.cumsum(steps)] * scale.mean()
    thick = radius * scale
    stride = float(np.clip(np.median(thick) / 3.5, 0.4, 1.3))
    count = max(int(way[-1] / stride) + 1, 2)
    even = np.linspace(0, way[-1], count)
    density = np.broadcast_to(density, way.shape)
    return Tube(
        np.stack([np.interp(even, way, place[:, k]) for k in (0, 1)], axis=1),
        np.interp(even, way, thick),
        np.interp(even, way, density),
        np.full(count, way[-1] / max(count - 1, 1)),
    )


def join(tubes: list[Tube]) -> Tube:
    """Return all samples of several tubes as one."""
    return Tube(
        *(
            np.concatenate([getattr(t, name) for t in tubes])
            for name in ("place", "radius", "density", "length")
        )
    )


def draw(
    samples: Tube, size: int, seen: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return thickness (pixels of full contrast) and the mask of ``seen`` samples.

    Each sample is a flat disc whose value is the way it stands for. Along a
    straight tube such discs add up to exactly the chord through a cylinder,
    lengthened where the tube runs along the ray; where arteries cross, they add.
    """
    total = np.zeros(size * size)
    mask = np.zeros(size * size, dtype=bool)
    x, y = samples.place.T
    radius = samples.radius
    inside = (x > -radius) & (x < size + radius) & (y > -radius) & (y < size + radius)
    halves = np.ceil(np.maximum(radius, 0.5) + 0.5).astype(int)
    for half in np.unique(halves[inside]):
        pick = np.flatnonzero(inside & (halves == half))
        dx, dy = _window(int(half))
        column, row = np.rint(x[pick]).astype(int), np.rint(y[pick]).astype(int)
        gap_x = ((column - x[pick])[:, None] + dx).astype(np.float32)
        gap_y = ((row - y[pick])[:, None] + dy).astype(np.float32)
        gap = np.sqrt(gap_x * gap_x + gap_y * gap_y)
        reach = radius[pick].astype(np.float32)[:, None]
        # A disc thinner than a pixel keeps its area by being fainter.
        soft = np.maximum(reach, 0.5)
        cover = np.clip(soft + 0.5 - gap, 0, 1)
        cover *= (reach / soft) ** 2
        column = column[:, None] + dx
        row = row[:, None] + dy
        keep = (column >= 0) & (column < size) & (row >= 0) & (row < size)
        flat = row * size + column
        value = cover * (samples.density * samples.length)[pick, None]
        keep &= cover > 0
        total += np.bincount(flat[keep], value[keep], minlength=size * size)
        if seen is not None:
            keep &= (gap <= soft) & seen[pick, None]
            mask[flat[keep]] = True
    shape = (size, size)
    return total.reshape(shape).astype(np.float32), mask.reshape(shape)


@dataclass(frozen=True)
class Detector:
    """How a system makes a picture of a pattern of X-rays.

    Lengths are in pixels of the image made.

    Attributes
    ----------
    scatter
        Share of the signal that is scatter and veiling glare.
    blur
        SD of focal spot and detector blur.
    noise
        SD of quantum noise relative to the mean signal, before ``smooth``.
    smooth
        SD of the blur that the noise goes through too (resampling, filters).
    gamma
        0 shows the logarithm of the signal, 1 the signal itself.
    flatten
        Share of the coarse structure that is taken out for display.
    flatten_scale
        SD of what counts as coarse.
    sharpen, sharpen_scale
        Gain and SD of the edge enhancement.
    grey
        Where the middle of the picture is shown, 0..1.
    contrast
        Grey range (0..1) for one unit of tone, before the window is fitted.
    spread
        SD of the grey values (0..1) for which the window aims.
    blades
        Signal passed by the collimator, (Y, X), 0..1.
    outside
        Pixels beyond the digital shutter and the grey they get, or None.
    bits
        Bit depth of the result.
    """

    scatter: float
    blur: float
    noise: float
    smooth: float
    gamma: float
    flatten: float
    flatten_scale: float
    sharpen: float
    sharpen_scale: float
    grey: float
    contrast: float
    spread: float
    blades: np.ndarray
    outside: tuple[np.ndarray, float] | None
    bits: int

    def signal(self, attenuation: np.ndarray) -> np.ndarray:
        """Return the signal behind the patient, without noise."""
        primary = np.exp(-attenuation) * self.blades
        glow = coarse(primary, 0.09 * len(primary))
        signal = (1 - self.scatter) * primary + self.scatter * glow
        if self.blur > 0.2:
            signal = gaussian_filter(signal, self.blur, truncate=2.5)
        return signal

    def expose(self, attenuation: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the tones of one exposure, noise and all, before windowing."""
        signal = self.signal(attenuation)
        # With thousands of quanta a pixel, Poisson noise is Gaussian.
        noise = rng.standard_normal(signal.shape, dtype=np.float32)
        if self.smooth > 0.2:
            noise = gaussian_filter(noise, self.smooth, truncate=2.5)
        level = np.maximum(signal, 0.004)
        return self.tones(level + self.noise * np.sqrt(level) * noise)

    def tones(self, signal: np.ndarray) -> np.ndarray:
        """Return the signal on the system's scale, flattened and sharpened."""
        signal = np.maximum(signal, 0.01)
        if self.gamma < 0.02:
            tone = np.log(signal)
        else:
            tone = (signal**self.gamma - 1) / self.gamma
        if self.flatten > 0:
            tone = tone - self.flatten * coarse(tone, self.flatten_scale)
        if self.sharpen > 0:
            soft = gaussian_filter(tone, self.sharpen_scale, truncate=2.5)
            tone = tone + self.sharpen * (tone - soft)
        return tone

    def window(self, tone: np.ndarray) -> tuple[float, float]:
        """Return the tone shown as ``grey`` and the gain, as a system would set them.

        Half way between a gain of its own and one that fills the grey scale.
        """
        few = tone[::4, ::4]
        seen = few[self.blades[::4, ::4] > 0.9]
        if seen.size < 16:
            seen = few.ravel()
        low, middle, high = np.percentile(seen, [5, 50, 95])
        filling = self.spread * 3.3 / max(high - low, 0.02)
        return float(middle), float(np.sqrt(self.contrast * filling))

    def show(self, tone: np.ndarray, window: tuple[float, float]) -> np.ndarray:
        """Return grey values of the detector's bit depth."""
        middle, gain = window
        shown = self.grey + gain * (tone - middle)
        if self.outside is not None:
            where, grey = self.outside
            shown = np.where(where, grey, shown)
        top = 2**self.bits - 1
        kind = np.uint8 if self.bits <= 8 else np.uint16
        return np.rint(np.clip(shown, 0, 1) * top).astype(kind)


def coarse(image: np.ndarray, scale: float) -> np.ndarray:
    """Blur widely and cheaply: on a small copy."""
    step = int(max(1, min(scale / 3, len(image) / 16)))
    while len(image) % step:
        step -= 1
    if step == 1:
        return gaussian_filter(image, scale, mode="nearest", truncate=2.5)
    count = len(image) // step
    small = image.reshape(count, step, count, step).mean(axis=(1, 3))
    small = gaussian_filter(small, scale / step, mode="nearest", truncate=2.5)
    # Linear in between; pixel centres of the copy lie in the middle of a block.
    return zoom(small, step, order=1, mode="nearest", grid_mode=True)


def make_blades(
    rng: np.random.Generator, size: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Draw the collimator: what it lets through, and the shutter outside, if any."""
    unit = size / 512
    line = np.arange(size, dtype=np.float32)
    u, v = line[None, :], line[:, None]
    blades = np.ones((size, size), dtype=np.float32)
    leak = rng.uniform(0.01, 0.12)
    edges = []
    for _ in range(4):
        inset = rng.choice([-60.0, rng.uniform(-4, 16), rng.uniform(0, 45)])
        edges.append(inset * unit)
    soft = rng.uniform(1.0, 6.0) * unit
    left, right, top, bottom = edges
    gap = np.maximum(
        np.maximum(left - u, u - (size - 1 - right)),
        np.maximum(top - v, v - (size - 1 - bottom)),
    )
    if rng.random() < 0.1:  # corners cut off or rounded by the round entrance
        radius = size * rng.uniform(0.56, 0.7)
        far = np.hypot(u - size / 2, v - size / 2) - radius
        gap = np.maximum(gap, far)
    if rng.random() < 0.6 or max(edges) <= 0:
        blades = leak + (1 - leak) * (0.5 - 0.5 * np.tanh(gap / soft))
    shutter = None
    if rng.random() < 0.45 and max(edges) > 0:
        shutter = gap > rng.uniform(0, 9) * unit
    return blades.astype(np.float32), shutter
