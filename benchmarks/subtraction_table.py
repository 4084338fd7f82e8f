"""Measure what leaving out what was there before the contrast does to masks of cines.

usage: python -m benchmarks.subtraction_table [--cines 24] [--frames 24]

Synthetic cines, whose true masks are known: the fullest frame and the third after it,
with and without. Prints Dice, clDice and wrong places, and what was left out of the
centreline, true (within 3 px of the true mask) and false.
"""

from __future__ import annotations

import argparse

import numpy as np
from scipy.ndimage import binary_dilation
from skimage.morphology import skeletonize

from napari_cmunet.cine.subtraction import subtract, suppressed
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import DEFAULT_MODEL, load_model
from napari_cmunet.model.threshold import mask_at, threshold_byte
from napari_cmunet.synthetic import PhantomConfig, make_cine
from napari_cmunet.training.evaluation.metrics import cldice, dice, wrong_places

LATER = 3


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--cines", type=int, default=24)
    parser.add_argument("--frames", type=int, default=24, help="of each cine")
    parser.add_argument("--seed", type=int, default=200)
    args = parser.parse_args()
    predictor = Predictor(load_model(DEFAULT_MODEL), choose_device("auto"))
    threshold = predictor.card.threshold
    scores: dict[str, list[tuple[float, float, int]]] = {"without": [], "with": []}
    gone = np.zeros(2, int)
    for seed in range(args.seed, args.seed + args.cines):
        cine = make_cine(PhantomConfig(frames=args.frames, size=512, seed=seed))
        area = cine.masks.reshape(args.frames, -1).sum(1)
        fullest = int(area.argmax())
        chosen = [*range(fullest + 1)]
        chosen += sorted({min(fullest + LATER, args.frames - 1)} - {fullest})
        frames, masks = cine.frames[chosen], cine.masks[chosen]
        probability = np.stack(
            [p.probability for p in predictor.predict_frames(frames)]
        )
        found = dict(subtract(frames, probability, threshold_byte(threshold)))
        for index in range(fullest, len(chosen)):
            true, left_out = masks[index], found.get(index)
            mask = mask_at(probability[index], threshold)
            scores["without"].append(_score(mask, true))
            if left_out is not None:
                line = skeletonize(mask) & left_out
                near = binary_dilation(true, iterations=3)
                gone += (line & near).sum(), (line & ~near).sum()
                mask = mask_at(suppressed(probability[index], left_out), threshold)
            scores["with"].append(_score(mask, true))
    for name, rows in scores.items():
        print(
            name, "Dice {:.4f}, clDice {:.4f}, wrong {:.2f}".format(*np.mean(rows, 0))
        )
    change = np.subtract(scores["with"], scores["without"])[:, 2]
    print(
        f"{len(change)} frames: {(change < 0).sum()} with fewer wrong places, "
        f"{(change > 0).sum()} with more; left out of the centreline: "
        f"{gone[0]} px true, {gone[1]} px false"
    )


def _score(mask: np.ndarray, true: np.ndarray) -> tuple[float, float, int]:
    return dice(mask, true), cldice(mask, true), wrong_places(mask, true)


if __name__ == "__main__":
    main()
