"""How cost grows: time and memory against frames, labels and image size.

    python -m benchmarks.growth OUT.png [--json FILE]

Each point is measured in a process of its own; memory is what it needed above the idle
process. A training of many labels is extrapolated from measured steps: its steps grow
with the labels (:func:`napari_cmunet.training.config.default_steps`), their cost does
not. Prints a table, and the exponent of each curve's last stretch: 1 is linear.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np

FRAMES, LABELS, SIDES = (1, 10, 100, 1000), (1, 5, 50, 500), (256, 512, 1024, 2048)
TIMED_STEPS = 4


def predict_frames(count: int, side: int) -> dict[str, float]:
    """A cine through the bundled model."""
    from napari_cmunet.model.device import choose_device
    from napari_cmunet.model.predictor import Predictor
    from napari_cmunet.model.registry import load_model
    from napari_cmunet.synthetic import PhantomConfig, make_frame

    image, _ = make_frame(PhantomConfig(frames=1, size=512, seed=4))
    at = np.arange(side) * 512 // side
    stack = np.broadcast_to(image[np.ix_(at, at)], (count, side, side))
    predictor = Predictor(load_model("cmunet-artery"), choose_device("auto"))
    predictor.predict(stack[0])
    began = time.perf_counter()
    for _ in predictor.predict_frames(stack):
        pass
    return {"seconds": time.perf_counter() - began}


def train(labels: int) -> dict[str, float]:
    """Prepare labels and learn from them; the whole training from measured steps."""
    from napari_cmunet.model.device import choose_device, tune_malloc
    from napari_cmunet.model.registry import load_model
    from napari_cmunet.training.config import FinetuneConfig, default_steps
    from napari_cmunet.training.dataset import phantom_labels, prepare_labels
    from napari_cmunet.training.events import Step
    from napari_cmunet.training.loop import finetune

    tune_malloc()
    model = load_model("cmunet-ssl")
    drawn = list(itertools.islice(phantom_labels(60, seed=5, workers=1), 20))
    began = time.perf_counter()
    taken = itertools.islice(itertools.cycle(drawn), labels)
    frames = prepare_labels(taken, model.card.preprocessing)
    prepared = time.perf_counter() - began
    ends = []
    config = FinetuneConfig(steps=1 + TIMED_STEPS, validate_every=10**9)
    device = choose_device("auto")
    for event in finetune(model.network, frames, config, device=device):
        if isinstance(event, Step):
            ends.append((event.step, event.seconds))
    (first, began), (last, ended) = ends[0], ends[-1]
    each = (ended - began) / (last - first)
    return {"seconds": prepared + each * default_steps(labels), "prepare_s": prepared}


def growth(points: list[tuple[float, float]]) -> float:
    """Exponent of the curve's last stretch, from (x, y) pairs."""
    (x0, y0), (x1, y1) = points[-2:]
    return math.log(y1 / y0) / math.log(x1 / x0)


def main() -> None:
    """Measure and draw."""
    from benchmarks.line_plot import Panel, draw_panels
    from napari_cmunet.cli.bench import alone

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("picture", type=Path)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    panels, figures = [], {}
    curves = (
        ("frames of 512 x 512", predict_frames, [(n, 512) for n in FRAMES], 0),
        ("labels", train, [(n,) for n in LABELS], 0),
        ("side of one frame in pixels", predict_frames, [(1, s) for s in SIDES], 1),
    )
    for what, act, arguments, at in curves:
        found: dict[str, list[tuple[float, float]]] = {"seconds": [], "memory, GB": []}
        for a in arguments:
            measured: dict[str, Any] = alone(act, *a)
            figures[f"{what} {a[at]}"] = measured
            found["seconds"].append((a[at], measured["seconds"]))
            found["memory, GB"].append((a[at], measured.get("memory_gb", math.nan)))
            print(what, a[at], measured, flush=True)
        print(f"{what}: time grows with the power {growth(found['seconds']):.2f}")
        panels += [
            Panel(unit, what, {"": line}, from_zero=True)
            for unit, line in found.items()
        ]
    draw_panels(panels, columns=2).save(options.picture)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
