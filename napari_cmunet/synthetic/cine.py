"""Synthetic angiograms with known masks: a whole cine, or single frames."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import affine_transform

from napari_cmunet.synthetic.anatomy import Anatomy, make_anatomy
from napari_cmunet.synthetic.c_arm import CArm, Detector, draw, join, make_blades, tube
from napari_cmunet.synthetic.devices import (
    Catheter,
    make_catheter,
    make_clutter,
    reflux,
)
from napari_cmunet.synthetic.heart import (
    Bolus,
    Heart,
    contraction,
    make_bolus,
    make_heart,
)
from napari_cmunet.synthetic.tree import STEP, TreeMaker, TreeStyle, Vessel

VIEWS = {
    "left": ((-30, -22), (-25, 28), (5, 35), (42, 25), (45, -28), (0, -28), (-10, -35)),
    "right": ((42, 0), (32, 24), (-30, 0), (0, 28), (50, 5)),
}
"""Usual angulations: LAO and cranial, in degrees."""

THREADS = 3
"""Threads that draw a cine; one more adds the noise, frame after frame."""

AT_ONCE = 32
"""Frames that are held before their noise is added."""

LEAST_DIAMETER = 1.5
"""Thinnest lumen that the mask holds, in pixels of a 512-pixel frame."""

WIRE_RADIUS = 0.18
"""Radius (mm) of a coronary guide wire."""

LEAST_DENSITY = 0.22
"""Least share of full contrast at which a lumen counts as visible."""


LEAST_CONTRAST = 0.7
"""Least drop of the signal in the middle of a lumen, in SD of the noise."""


@dataclass(frozen=True)
class PhantomConfig:
    """Parameters of a synthetic angiogram.

    Attributes
    ----------
    frames
        Number of frames of a cine.
    size
        Pixels along each side; the field of view stays the same.
    seed
        The same seed gives the same bytes.
    bits
        Bit depth, 8 to 16; 8 gives uint8, more gives uint16.
    side
        ``"left"``, ``"right"``, or None for either.
    fps
        Frames per second, or None for 7.5, 10, 12.5 or 15.
    clutter
        How many leads, wires and clips there are, relative to the usual.
    """

    frames: int = 30
    size: int = 512
    seed: int = 0
    bits: int = 8
    side: str | None = None
    fps: float | None = None
    clutter: float = 1.0

    def __post_init__(self) -> None:
        if self.frames < 1:
            raise ValueError("A cine needs at least one frame.")
        if self.size < 64:
            raise ValueError("A phantom frame needs at least 64 pixels a side.")
        if not 8 <= self.bits <= 16:
            raise ValueError("The bit depth must be between 8 and 16.")
        if self.side not in (None, "left", "right"):
            raise ValueError("The side must be 'left', 'right' or None.")


@dataclass(frozen=True)
class PhantomCine:
    """A cine with its ground truth.

    Attributes
    ----------
    frames
        (T, Y, X), uint8 or uint16.
    masks
        (T, Y, X), bool: the lumen of every artery that shows at that frame.
    fps
        Frames per second.
    pixel_size_mm
        Size of a pixel (y, x) in the plane of the heart.
    seed
        The seed it came from.
    """

    frames: np.ndarray
    masks: np.ndarray
    fps: float
    pixel_size_mm: tuple[float, float]
    seed: int


@dataclass(frozen=True)
class Scene:
    """Everything that does not change from frame to frame."""

    heart: Heart
    vessels: list[Vessel]
    view: CArm
    anatomy: Anatomy
    clutter: np.ndarray
    catheter: Catheter | None
    wire: Vessel | None
    reflux: float
    detector: Detector
    attenuation: float

    def attenuation_at(
        self, beat: float, breath: np.ndarray, bolus: Bolus, time: float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return total attenuation and arteries at one moment."""
        view = self.view
        heart = self.heart.contracted(beat).moved(breath)
        tubes, seen = [], []
        for vessel in self.vessels:
            density = bolus.density(time, vessel.distance)
            if density.max() < 0.01:
                continue
            # Lumen counts once where a branch leaves its parent.
            free = slice(min(int(vessel.covered / STEP), len(density) - 2), None)
            points = heart.to_patient(vessel.local[free])
            tubes.append(tube(view, points, vessel.radius[free], density[free]))
        arteries = np.zeros((view.size, view.size), dtype=np.float32)
        mask = arteries > 0
        if tubes:
            samples = join(tubes)
            unit = view.size / 512
            shown = self.attenuation * view.pitch * 2 * samples.radius * samples.density
            shown = (1 - self.detector.scatter) * (1 - np.exp(-shown))
            seen = (
                (samples.density >= LEAST_DENSITY)
                & (samples.radius >= LEAST_DIAMETER / 2 * unit)
                & (shown >= LEAST_CONTRAST * self.detector.noise)
            )
            arteries, mask = draw(samples, view.size, seen)
        total = self.anatomy.fixed + self.clutter
        total += self._moved_background(beat, breath)
        total += self.attenuation * view.pitch * arteries
        if self.catheter is not None:
            trunk = self.vessels[0].local[:1]
            shift = heart.to_patient(trunk)[0] - self.heart.to_patient(trunk)[0]
            filled = float(bolus.density(time + 0.15, np.zeros(1))[0])
            held = self.catheter.thickness(view, shift, filled)
            if self.reflux * filled > 1:
                start = heart.to_patient(self.vessels[0].local[:9])
                back = (start[0] - start[-1]) / np.linalg.norm(start[0] - start[-1])
                held += filled * reflux(view, start[0], back, self.reflux)
            total += self.attenuation * held
        if self.wire is not None:
            points = heart.to_patient(self.wire.local)
            line = tube(view, points, np.full(len(points), WIRE_RADIUS))
            drawn, _ = draw(line, view.size)
            total += 0.6 * view.pitch * drawn
        # Behind the blades nothing is seen, so nothing is to be found.
        open_field = self.detector.blades > 0.6
        if self.detector.outside is not None:
            open_field &= ~self.detector.outside[0]
        return total, mask & open_field

    def _moved_background(self, beat: float, breath: np.ndarray) -> np.ndarray:
        view = self.view
        if beat == 0 and not breath.any():
            return self.anatomy.moving
        right, up, _ = view.basis
        move = np.array([-(up @ breath), right @ breath]) / view.pitch
        grow = 1 + 0.035 * beat
        middle = np.array([view.centre[1], view.centre[0]])
        return affine_transform(
            self.anatomy.moving,
            np.array([grow, grow]),
            middle - grow * (middle + move),
            order=1,
            mode="nearest",
        )


def make_cine(config: PhantomConfig) -> PhantomCine:
    """Make a cine: an injection from the empty to the clearing tree.

    A pixel is in the mask where it lies within the lumen of an artery at least
    ``LEAST_DIAMETER`` wide that holds at least ``LEAST_DENSITY`` of full contrast
    at that frame and stands out by ``LEAST_CONTRAST`` from the noise, inside
    the collimated field. The catheter is not; an artery that it crosses is.
    """
    rng = np.random.default_rng(config.seed)
    scene = make_scene(rng, config, wide=False)
    fps = config.fps or float(rng.choice([7.5, 10.0, 12.5, 15.0]))
    seconds = config.frames / fps
    bolus = make_bolus(rng, seconds)
    rate = rng.uniform(55, 92) / 60
    phase = rng.uniform(0, 1)
    vigour = rng.uniform(0.6, 1.0)
    breathing = rng.choice([rng.uniform(0, 1.0), rng.uniform(3, 9)])
    breath_rate = rng.uniform(0.18, 0.32)
    breath_phase = rng.uniform(0, 2 * np.pi)
    shape = (config.frames, config.size, config.size)
    frames = np.empty(shape, np.uint8 if config.bits <= 8 else np.uint16)
    masks = np.empty(shape, dtype=bool)

    def moment(index: int) -> tuple[np.ndarray, np.ndarray]:
        time = index / fps
        beat = vigour * float(contraction(phase + rate * time))
        lift = breathing * np.sin(2 * np.pi * breath_rate * time + breath_phase)
        breath = np.array([0.1, -0.25, 1.0]) * lift
        return scene.attenuation_at(beat, breath, bolus, time)

    window = None
    with ThreadPoolExecutor(THREADS) as pool:
        for start in range(0, config.frames, AT_ONCE):
            some = range(start, min(start + AT_ONCE, config.frames))
            # One after another, for the random numbers.
            for index, (total, mask) in zip(some, pool.map(moment, some), strict=True):
                tones = scene.detector.expose(total, rng)
                window = window or scene.detector.window(tones)
                frames[index] = scene.detector.show(tones, window)
                masks[index] = mask
    pitch = scene.view.pitch
    return PhantomCine(frames, masks, fps, (pitch, pitch), config.seed)


def make_frame(config: PhantomConfig) -> tuple[np.ndarray, np.ndarray]:
    """Make one frame at full contrast and its mask, varied widely for training.

    ``config.frames`` and ``config.fps`` are not used. The mask follows the rule of
    `make_cine`.
    """
    rng = np.random.default_rng(config.seed)
    scene = make_scene(rng, config, wide=True)
    bolus = Bolus(0.0, 3.0, rng.uniform(110, 260), 1.0)
    beat = rng.uniform(0.5, 1.0) * float(contraction(rng.uniform(0, 1)))
    breath = np.array([0.1, -0.25, 1.0]) * rng.normal(0, 4)
    time = rng.uniform(1.0, 3.2)
    total, mask = scene.attenuation_at(beat, breath, bolus, time)
    tones = scene.detector.expose(total, rng)
    frame = scene.detector.show(tones, scene.detector.window(tones))
    return frame, mask


def make_scene(rng: np.random.Generator, config: PhantomConfig, *, wide: bool) -> Scene:
    """Draw a patient, a view and a system; ``wide`` goes beyond the usual."""
    side = config.side or ("left" if rng.random() < 0.6 else "right")
    spread = 0.32 if wide else 0.14
    style = TreeStyle(
        side,
        calibre=float(np.clip(rng.lognormal(0, 0.6 * spread), 0.7, 1.45)),
        richness=float(np.clip(rng.lognormal(0.2, spread), 0.5, 2.2)),
        tortuosity=float(np.clip(rng.lognormal(0.15, 1.5 * spread), 0.3, 2.5)),
    )
    heart = make_heart(rng)
    vessels = TreeMaker(heart, style, rng).make()
    view = _make_view(rng, config.size, heart, vessels, side, wide)
    anatomy = make_anatomy(
        rng, view, heart, float(np.clip(rng.lognormal(0.3, spread), 0.5, 2.6))
    )
    usual = 1.5 if wide else 1.0
    clutter = make_clutter(rng, view, usual * config.clutter)
    catheter = None
    if not wide or rng.random() < 0.92:
        trunk = heart.to_patient(vessels[0].local)
        catheter = make_catheter(rng, trunk, 1.0)
    return Scene(
        heart,
        vessels,
        view,
        anatomy,
        clutter,
        catheter,
        vessels[0 if side == "right" else 1] if rng.random() < 0.1 else None,
        float(rng.choice([0.0, rng.uniform(6, 16)])),
        _make_detector(rng, config, wide),
        rng.uniform(0.105, 0.21) if wide else rng.uniform(0.13, 0.22),
    )


def _make_view(
    rng: np.random.Generator,
    size: int,
    heart: Heart,
    vessels: list[Vessel],
    side: str,
    wide: bool,
) -> CArm:
    """Draw a view and put the tree into the picture."""
    lao: float
    cranial: float
    lao, cranial = VIEWS[side][rng.integers(len(VIEWS[side]))]
    loose = 12 if wide else 5
    lao, cranial = lao + rng.normal(0, loose), cranial + rng.normal(0, loose)
    view = CArm(lao, cranial, 1.0, (0.0, 0.0), size)
    points = np.concatenate(
        [heart.to_patient(v.local) for v in vessels if v.length > 25]
    )
    place, _ = view.project(points)
    low, high = np.percentile(place, [2, 98], axis=0)
    # Operators choose the field so that the tree fills most of the picture.
    fill = rng.uniform(0.58, 1.0) if wide else rng.uniform(0.68, 0.92)
    pitch = float(np.clip((high - low).max() / (fill * 512), 0.18, 0.31)) * 512 / size
    low, high = low / pitch, high / pitch
    room = 0.1 if wide else 0.04
    middle = (low + high) / 2 + rng.normal(0, room * size, 2)
    return CArm(lao, cranial, pitch, tuple(size / 2 - middle), size)


def _make_detector(
    rng: np.random.Generator, config: PhantomConfig, wide: bool
) -> Detector:
    unit = config.size / 512
    blades, shutter = make_blades(rng, config.size)
    grey = rng.uniform(0.32, 0.62) if wide else rng.uniform(0.4, 0.55)
    outside = None
    if shutter is not None:
        outside = (shutter, float(rng.choice([0.0, 0.0, 0.0, rng.uniform(0.02, 0.15)])))
    return Detector(
        scatter=rng.uniform(0.1, 0.45),
        blur=rng.uniform(0.3, 0.8) * unit,
        noise=rng.uniform(0.012, 0.046) if wide else rng.uniform(0.016, 0.034),
        smooth=rng.uniform(0.3, 0.85) * unit**0.5,
        gamma=rng.uniform(0.2, 1.0),
        flatten=rng.uniform(0.1, 0.7),
        flatten_scale=rng.uniform(20, 80) * unit,
        sharpen=rng.choice([0.0, rng.uniform(0.2, 1.0), rng.uniform(0.4, 1.4)]),
        sharpen_scale=rng.uniform(1.5, 4.0) * unit,
        grey=grey,
        contrast=rng.uniform(0.42, 0.72) if wide else rng.uniform(0.42, 0.62),
        spread=float(rng.lognormal(np.log(0.095), 0.4 if wide else 0.25)),
        blades=blades,
        outside=outside,
        bits=config.bits,
    )
