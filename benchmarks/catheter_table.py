"""How well a catheter's width is measured, on phantoms whose width is known.

    python benchmarks/catheter_table.py [--frames N] [--seed S]

The line is drawn on the shaft with an error of 1.5 pixels (SD) at each end. Prints the
error of the diameter, and how often none was measured, for catheters without and with
contrast in them.
"""

from __future__ import annotations

import argparse

import numpy as np

from benchmarks.known_catheter import make_known_catheter
from napari_cmunet.cine.catheter import CatheterNotFoundError, measure_catheter
from napari_cmunet.synthetic import PhantomConfig

AIM = 1.5


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
