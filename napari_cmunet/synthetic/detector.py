"""From attenuation to grey values: scatter, blades, blur, noise, display."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, zoom


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
