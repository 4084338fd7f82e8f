"""Measure the error of the catheter's width, on phantoms whose width is known.

usage: python -m benchmarks.catheter_table [--frames N] [--seed S]

The line along the shaft has an error of 1.5 pixels (SD) at each end. Prints the error
of the diameter and how often none was measured, without and with contrast agent.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass

import numpy as np

from napari_cmunet.cine.catheter import CatheterNotFoundError, measure_catheter
from napari_cmunet.synthetic import PhantomConfig
from napari_cmunet.synthetic.cine import make_scene
from napari_cmunet.synthetic.heart import Bolus

AIM = 1.5
_BEFORE, _DURING = -0.3, 1.5  # seconds since the injection began


@dataclass(frozen=True)
class KnownCatheter:
    """A frame, and where its catheter lies.

    Attributes
    ----------
    frame
        (Y, X), grey values.
    points
        (n, 2), the middle of the catheter as (row, column), the tip first.
    diameters
        (n,), outer diameter in pixels.
    shown
        (n,), whether the point is inside the collimated field.
    """

    frame: np.ndarray
    points: np.ndarray
    diameters: np.ndarray
    shown: np.ndarray

    def straight_part(
        self, rng: np.random.Generator, length: float
    ) -> tuple[np.ndarray, np.ndarray, float] | None:
        """Two points on a nearly straight, wholly shown part, and its mean diameter.

        None where the frame has no such part.
        """
        size = len(self.frame)
        inside = (self.points > 0.06 * size) & (self.points < 0.94 * size)
        fit = self.shown & inside.all(axis=1)
        fit[:12] = False  # the tip is tapered
        for first in rng.permutation(np.flatnonzero(fit)):
            far = np.linalg.norm(self.points - self.points[first], axis=1)
            last = next((i for i in range(first, len(far)) if far[i] >= length), None)
            if last is None or not fit[first : last + 1].all():
                continue
            steps = np.diff(self.points[first : last + 1], axis=0)
            way = np.linalg.norm(steps, axis=1).sum()
            # Neither bent nor foreshortened.
            if way < 1.02 * far[last] and far[last] < 1.6 * length:
                mean = float(self.diameters[first : last + 1].mean())
                return self.points[first], self.points[last], mean
        return None


def make_known_catheter(
    config: PhantomConfig, *, filled: bool = False
) -> KnownCatheter:
    """Make one frame before an injection, or during one."""
    rng = np.random.default_rng(config.seed)
    scene = make_scene(rng, config, wide=False)
    total, _ = scene.attenuation_at(
        0.0, np.zeros(3), Bolus(0.0, 3.0, 180.0, 1.0), _DURING if filled else _BEFORE
    )
    tones = scene.detector.expose(total, rng)
    frame = scene.detector.show(tones, scene.detector.window(tones))
    points, scale = scene.view.project(scene.catheter.points)
    points = points[:, ::-1]
    nearest = np.clip(np.rint(points).astype(int), 0, config.size - 1)
    return KnownCatheter(
        frame,
        points,
        2 * scene.catheter.radius * scale,
        scene.detector.blades[tuple(nearest.T)] > 0.9,
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=40)
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--seed", type=int, default=700, help="of the first frame")
    args = parser.parse_args()
    for filled in (False, True):
        errors, refused = [], 0
        for seed in range(args.seed, args.seed + args.frames):
            known = make_known_catheter(
                PhantomConfig(size=args.size, seed=seed), filled=filled
            )
            rng = np.random.default_rng(seed)
            part = known.straight_part(rng, rng.uniform(28, 55) * args.size / 512)
            if part is None:
                continue
            start, end, diameter = part
            start, end = start + rng.normal(0, AIM, 2), end + rng.normal(0, AIM, 2)
            try:
                width = measure_catheter(known.frame, start, end)
            except CatheterNotFoundError:
                refused += 1
            else:
                errors.append(width.pixels / diameter - 1)
        off = np.abs(errors)
        print(
            f"{'with contrast' if filled else 'without contrast'}: "
            f"{len(errors)} measured, {refused} refused; error "
            f"{np.mean(errors):+.1%} ± {np.std(errors):.1%}, median of its size "
            f"{np.median(off):.1%}, 90 % below {np.quantile(off, 0.9):.1%}, "
            f"largest {off.max():.1%}"
        )


if __name__ == "__main__":
    main()
