"""How many stenoses are found at one false mark a frame, beside a plain diameter rule.

usage: python -m benchmarks.stenosis_finder IMAGES STENOSES.json [--frames 120]
       [--masks DIR]

``STENOSES.json`` holds, by stem, polygons ``["stenosis", [x, y, ...]]``. Each frame is
segmented by the bundled model (probabilities are kept in ``--masks``) and its
narrowings above 25 % are ranked as in the window. A mark within 5 pixels of a polygon
finds that stenosis; any other is false. Printed, for frames of even and of odd number:
the share found when the marks of all frames are taken in the order of their rank until
there are one or two false ones a frame.

The plain rule takes the width of the mask along each branch, and the share by which it
is narrower than the widest quarter of the branch.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.ndimage import distance_transform_edt
from skimage.draw import polygon2mask

from napari_cmunet.io.measurements import lesion_score
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import DEFAULT_MODEL, load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.vessels.qca import LEAST_STENOSIS, analyse_tree
from napari_cmunet.vessels.tree import build_tree

NEAR = 5.0
Marks = list[tuple[float, np.ndarray]]


def ranked_marks(frame: np.ndarray, mask: np.ndarray) -> Marks:
    """Score and place of every narrowing, as the program ranks them."""
    return [
        (lesion_score(lesion), analysis.borders.centre[lesion.at])
        for analysis in analyse_tree(frame, mask).values()
        for lesion in analysis.lesions
        if lesion.is_resolved
    ]


def plain_marks(frame: np.ndarray, mask: np.ndarray) -> Marks:
    """Score and place of the narrowest place of every branch, by the mask's width."""
    marks = []
    for branch in build_tree(mask).branches:
        inner = slice(len(branch.radii) // 8, -(len(branch.radii) // 8) or None)
        if branch.length < 20:
            continue
        radii, points = branch.radii[inner], branch.points[inner]
        share = 1 - radii.min() / np.quantile(radii, 0.75)
        if share >= LEAST_STENOSIS:
            marks.append((float(share), points[radii.argmin()].astype(float)))
    return marks


def found_at(frames: list[tuple[Marks, list[np.ndarray]]], false: float) -> float:
    """Share of stenoses found at so many false marks a frame."""
    marks: list[tuple[float, tuple[int, int] | None]] = []
    for number, (of_frame, away) in enumerate(frames):
        for score, place in of_frame:
            row, column = np.round(place).astype(int)
            distances = [float(d[row, column]) for d in away]
            nearest = int(np.argmin(distances))
            hit = distances[nearest] <= NEAR
            marks.append((score, (number, nearest) if hit else None))
    marks.sort(key=lambda mark: -mark[0])
    seen, wrong = set(), 0
    for _, stenosis in marks:
        if stenosis is not None:
            seen.add(stenosis)
            continue
        wrong += 1
        if wrong > false * len(frames):
            break
    return len(seen) / sum(len(away) for _, away in frames)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("images", type=Path)
    parser.add_argument("stenoses", type=Path)
    parser.add_argument("--frames", type=int, default=120)
    parser.add_argument("--masks", type=Path)
    options = parser.parse_args()
    polygons = json.loads(options.stenoses.read_text())
    files = {f.stem: f for f in options.images.rglob("*.webp") if f.stem in polygons}
    order = np.random.default_rng(0).permutation(sorted(polygons))
    masks = _Masks(options.masks)
    rules = {"as ranked": ranked_marks, "plain": plain_marks}
    sets: dict[tuple[str, int], list[tuple[Marks, list[np.ndarray]]]] = {}
    for stem in order[: options.frames]:
        frame = np.asarray(Image.open(files[stem]).convert("L"))
        mask = masks.of(frame, stem)
        away = [
            distance_transform_edt(
                ~polygon2mask(frame.shape, np.reshape(p, (-1, 2))[:, ::-1])
            )
            for _, p in polygons[stem]
        ]
        half = int(stem.rsplit("_", 1)[1]) % 2
        for name, rule in rules.items():
            sets.setdefault((name, half), []).append((rule(frame, mask), away))
    print("| marks | frames | stenoses | at 1 false mark a frame | at 2 |")
    print("|---|---|---|---|---|")
    for (name, half), frames in sets.items():
        count = sum(len(away) for _, away in frames)
        shares = " | ".join(f"{100 * found_at(frames, n):.0f} %" for n in (1, 2))
        parity = "odd" if half else "even"
        print(f"| {name}, {parity} | {len(frames)} | {count} | {shares} |")


class _Masks:
    """The bundled model's masks; its probabilities are kept in a folder."""

    def __init__(self, kept: Path | None) -> None:
        model = load_model(DEFAULT_MODEL)
        self._predictor = Predictor(model, choose_device("auto"))
        self._threshold, self._kept = model.card.threshold, kept

    def of(self, frame: np.ndarray, stem: str) -> np.ndarray:
        """The mask of a frame."""
        file = None if self._kept is None else self._kept / f"{stem}.npy"
        if file is not None and file.exists():
            return mask_at(np.load(file), self._threshold)
        probability = self._predictor.predict(frame)
        if file is not None:
            np.save(file, probability)
        return mask_at(probability, self._threshold)


if __name__ == "__main__":
    main()
