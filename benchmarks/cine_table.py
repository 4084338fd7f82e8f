"""Measure what the program does with cines, on phantoms with known masks.

usage: python -m benchmarks.cine_table [--cines N] [--frames N]

Prints how well the best frame is found, how well a mask is propagated to
neighbouring frames, and whether a prediction gets better with them.
"""

from __future__ import annotations

import argparse

import numpy as np

from napari_cmunet.cine.best_frame import find_best_frame
from napari_cmunet.cine.propagation import (
    Changes,
    estimate_motion,
    propagate_changes,
    warp,
)
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.synthetic import PhantomConfig, make_cine
from napari_cmunet.vessels.tree import build_tree


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / max(1, int(one.sum() + other.sum()))


def flicker(masks: list[np.ndarray], truth: np.ndarray) -> float:
    """Pixels that change from frame to frame beyond those that truly do, by area."""
    changes = []
    for before, after, was, now in zip(
        masks, masks[1:], truth, truth[1:], strict=False
    ):
        wrong = (before != after) & ~(was != now)
        changes.append(wrong.sum() / max(1, now.sum()))
    return float(np.mean(changes))


def propagated(cine, source: int, note) -> None:
    """Correct a gap of 70 pixels in one frame that is in all of them."""
    tree = build_tree(cine.masks[source])
    branch = max((b for b in tree.branches if b.radius < 4), key=lambda b: b.length)
    middle = branch.points[len(branch.points) // 2]
    rows, columns = np.indices(cine.masks[source].shape)
    gap = np.hypot(rows - middle[0], columns - middle[1]) < 35
    found = [mask & ~gap for mask in cine.masks]
    added = cine.masks[source] & gap
    changes = Changes(added, np.zeros_like(added))
    for step in (-1, 1):
        order = [source + step * n for n in range(7)]
        order = [n for n in order if 0 <= n < len(cine.frames)]
        for n, moved in propagate_changes(changes, cine.frames.__getitem__, order):
            truth = cine.masks[n] & gap
            far = f"{abs(n - source)} frame(s) on"
            note(f"confidence, {far}", moved.confidence)
            note(f"Dice of the added vessel, {far}", dice(moved.added, truth))
            note(f"Dice of the added vessel, copied {far}", dice(added, truth))
            note(
                f"Dice, changes propagated {far}",
                dice(moved.apply(found[n]), cine.masks[n]),
            )
            note(
                f"Dice, whole mask copied {far}",
                dice(cine.masks[source], cine.masks[n]),
            )


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cines", type=int, default=6)
    parser.add_argument("--frames", type=int, default=6, help="predicted, of each cine")
    args = parser.parse_args()
    predictor = Predictor(load_model("cmunet-artery"), choose_device("auto"))
    rows: dict[str, list[float]] = {}

    def note(name: str, value: float) -> None:
        rows.setdefault(name, []).append(value)

    for seed in range(400, 400 + args.cines):
        cine = make_cine(PhantomConfig(frames=40, size=512, seed=seed))
        area = cine.masks.sum(axis=(1, 2))
        best = find_best_frame(cine.frames)
        note("area of the best frame, of the largest", area[best] / area.max())
        note("area of the frame in the middle, of the largest", area[20] / area.max())
        start = min(best, len(cine.frames) - args.frames - 1)
        mask = cine.masks[start]
        whole = Changes(mask, np.zeros_like(mask))
        way = range(start, start + 4)
        for n, moved in propagate_changes(whole, cine.frames.__getitem__, way):
            far, truth = f"{n - start} frame(s) on", cine.masks[n]
            note(f"Dice, mask copied {far}", dice(mask, truth))
            note(f"Dice, mask propagated {far}", dice(moved.added, truth))
        propagated(cine, start, note)
        part = slice(max(0, start - 1), start + args.frames + 1)
        frames, truth = cine.frames[part], cine.masks[part]
        maps = [predictor.predict(f).astype(np.float32) for f in frames]
        threshold = 255 * predictor.card.threshold
        alone, helped = [], []
        for i in range(1, len(frames) - 1):
            near = [
                warp(maps[j], estimate_motion(frames[j], frames[i]))
                for j in (i - 1, i + 1)
            ]
            alone.append(maps[i] >= threshold)
            helped.append(np.mean([maps[i], maps[i], *near], axis=0) >= threshold)
        known = truth[1:-1]
        for name, masks in (("alone", alone), ("with neighbours", helped)):
            for mask, true in zip(masks, known, strict=True):
                note(f"Dice of the prediction, {name}", dice(mask, true))
            note(f"flicker of the prediction, {name}", flicker(masks, known))
    for name, values in rows.items():
        print(f"{name}: {np.mean(values):.3f} ± {np.std(values):.3f} (n={len(values)})")


if __name__ == "__main__":
    main()
