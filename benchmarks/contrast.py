"""Measure how well frames without contrast agent are told from those with it.

usage: python -m benchmarks.contrast DATA [--model NAME] [--phantoms N]

DATA holds ``cines/<run>/NNN.webp`` with ``cines/pilot_frames.json`` (the frame that is
filled best; the first frame of a run counts as one without contrast), and folders
``<hospital>/images`` of frames with contrast. Synthetic cines are drawn from the seed:
frames before the wash-in, and frames at full contrast.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import numpy as np

from napari_cmunet.io.images import read_angiogram
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import find_model, load_model
from napari_cmunet.synthetic import PhantomConfig, make_cine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="cmunet-artery")
    parser.add_argument("--phantoms", type=int, default=8)
    args = parser.parse_args()
    predictor = Predictor(load_model(find_model(args.model)), choose_device("auto"))

    def has_contrast(frame: np.ndarray) -> bool:
        return next(predictor.predict_frames(frame[None])).contrast

    cines = args.data / "cines"
    pilots = json.loads((cines / "pilot_frames.json").read_text())
    runs = [sorted((cines / run).glob("*.webp")) for run in pilots]
    report("first frames of cines", [has_contrast(_read(run[0])) for run in runs])
    filled = [run[at] for run, at in zip(runs, pilots.values(), strict=True)]
    report("pilot frames of cines", [has_contrast(_read(path)) for path in filled])
    for folder in sorted(args.data.glob("*/images")):
        report(folder.parent.name, [has_contrast(_read(p)) for p in folder.iterdir()])
    empty, full = [], []
    for seed in range(args.phantoms):
        cine = make_cine(PhantomConfig(frames=24, size=512, seed=seed))
        area = cine.masks.reshape(len(cine.masks), -1).sum(1)
        empty += [has_contrast(f) for f in cine.frames[area == 0][:2]]
        full.append(has_contrast(cine.frames[area.argmax()]))
    report("synthetic frames before the wash-in", empty)
    report("synthetic frames at full contrast", full)


def _read(path: Path) -> np.ndarray:
    return np.asarray(read_angiogram(path).frames[0])


def report(name: str, found: list[bool]) -> None:
    print(f"{name}: contrast found in {sum(found)} of {len(found)}", flush=True)


if __name__ == "__main__":
    main()
