"""``evaluate``: how well a model does on labelled frames, on their own grid."""

from __future__ import annotations

import sys
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from napari_cmunet.cli.label_folders import read_label_folders
from napari_cmunet.cli.progress import Progress
from napari_cmunet.errors import ModelError, TrainingError
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.training.evaluation.metrics import Scores, bootstrap_interval, score
from napari_cmunet.util.safe_files import atomic_write, write_json
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence
    from pathlib import Path

    from napari_cmunet.training.dataset import Label

MEASURES = ("dice", "cldice", "precision", "recall", "hd95")
MIN_PATIENTS = 3
"""Of fewer, a 95 % interval would be a point, or their minimum and maximum."""


def run(args: argparse.Namespace) -> int:
    """Print the mean of each measure with its 95 % interval; returns the exit code."""
    model = load_model(args.model)
    if model.card.kind != "artery":
        raise ModelError(
            f"'{model.card.name}' knows no arteries (kind {model.card.kind})."
        )
    found = read_label_folders(args.images, args.masks, args.patients, args.large_masks)
    for text in (*found.problems, *(f"note: {n}" for n in found.notes)):
        print(text, file=sys.stderr)
    if not found.labels:
        raise TrainingError("Nothing to evaluate: no mask has an image of its stem.")
    predictor = Predictor(model, choose_device(args.device))
    threshold = args.threshold or model.card.threshold
    progress = Progress(len(found.labels))
    rows: list[tuple[Label, np.ndarray, Scores]] = []
    for label in found.labels:
        progress.show(label.name)
        mask = mask_at(predictor.predict(label.frame), threshold)
        if label.reviewed is not None:
            mask &= label.reviewed
            label = replace(label, mask=label.mask & label.reviewed)
        rows.append((label, mask, score(mask, label.mask)))
        progress.advance()
    progress.clear()
    scores = [s for _, _, s in rows]
    summary = summarise(scores, [label.patient for label in found.labels])
    patients = counted(len({x.patient for x in found.labels}), "patient")
    print(f"{model.card.name}: {counted(len(rows), 'frame')} of {patients}")
    for name in MEASURES:
        mean, low, high = summary[name]
        unit = " px" if name == "hd95" else ""
        interval = f"95 % {low:.4f} to {high:.4f}"
        if not np.isfinite(low):
            interval = "too few patients for an interval"
        line = f"{name:10} {mean:.4f}{unit}  ({interval})"
        empty = sum(not np.isfinite(getattr(s, name)) for s in scores)
        if empty:
            line += f"; without {counted(empty, 'frame')} where one mask is empty"
        print(line)
    if args.json:
        result = {
            "model": model.card.name,
            "model_sha256": model.card.sha256,
            "threshold": threshold,
            "n": len(rows),
            "mean": summary,
            "images": {label.name: asdict(s) for label, _, s in rows},
        }
        write_json(args.json, _finite(result))
    if args.worst:
        _draw_worst(args.worst, sorted(rows, key=lambda row: row[2].dice)[:6])
    return 1 if found.problems else 0


def summarise(
    scores: Sequence[Scores], patients: Sequence[str]
) -> dict[str, tuple[float, float, float]]:
    """Mean, and bounds of its 95 % interval by patient, of each measure.

    The bounds are NaN with fewer than :data:`MIN_PATIENTS` patients.
    The distance is infinite where one mask is empty; those frames are left out of
    its mean, since Dice counts them as 0 already.
    """
    summary = {}
    for name in MEASURES:
        values = np.array([getattr(s, name) for s in scores])
        known = np.isfinite(values)
        if not known.any():
            summary[name] = (float("nan"),) * 3
            continue
        groups = [p for p, k in zip(patients, known, strict=True) if k]
        low = high = float("nan")
        if len(set(groups)) >= MIN_PATIENTS:
            low, high = bootstrap_interval(values[known], groups)
        summary[name] = (float(values[known].mean()), low, high)
    return summary


def _draw_worst(path: Path, rows: Sequence[tuple[Label, np.ndarray, Scores]]) -> None:
    """Frames in grey; found in blue, missed in orange, agreed in white."""
    tiles = []
    for label, mask, _ in rows:
        frame = label.frame.astype(np.float32)
        low, high = np.percentile(frame, [1, 99])
        grey = np.clip((frame - low) / max(high - low, 1e-6), 0, 1) * 200
        rgb = np.repeat(grey[..., None], 3, -1).astype(np.uint8)
        drawn = rgb.copy()
        drawn[mask & label.mask] = (255, 255, 255)
        drawn[mask & ~label.mask] = (86, 180, 233)
        drawn[~mask & label.mask] = (230, 159, 0)
        pair = np.hstack([rgb, drawn])
        tiles.append(np.asarray(Image.fromarray(pair).resize((768, 384))))
    with atomic_write(path) as file:
        Image.fromarray(np.vstack(tiles)).save(file, "PNG")


def _finite(value):
    """The same without NaN and infinity, which JSON does not know."""
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
