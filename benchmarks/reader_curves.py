"""Draw how a simulated reader's seconds fall while the model learns from them.

usage: python -m benchmarks.reader_curves run DATA OUT.jsonl [--orders 5]
           [--after 0 5 10 18] [--frames 1] [--split val]
       python -m benchmarks.reader_curves table OUT.jsonl
       python -m benchmarks.reader_curves plot OUT.jsonl PICTURE.png

DATA holds images/, masks/ and index.csv (stem, split, patient), or is the word
"phantoms". Each order is a draw of frames, one of each patient as far as there are
patients. After so many frames of it, `--model` is trained anew on those (their true
masks, which is what the reader corrects to) as the window does it, and the next
``--frames`` are corrected four times each: from an empty mask with the brush,
pre-segmented by the untrained model with the brush, the same with all tools, and
pre-segmented by the trained one with all tools.
Each correction is one line in OUT.jsonl; a second call goes on where the first one
stopped.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from benchmarks.frames import commands, list_frames, read_frame
from benchmarks.line_plot import Panel, draw_panels
from benchmarks.plain_training import train_plainly
from benchmarks.simulated_reader import Action, correct
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.training.config import FinetuneConfig
from napari_cmunet.training.dataset import Label
from napari_cmunet.vessels.vesselness import compute_features

if TYPE_CHECKING:
    import argparse


CURVES = {
    "empty, brush": "from an empty mask, with the brush",
    "brush": "pre-segmented, brush",
    "tools": "pre-segmented, all tools",
    "retrained": "the same, retrained",
}
_TRAINED_THRESHOLD = 0.5


class Frames:
    """Frames with their true masks, in orders drawn by number."""

    def __init__(self, data: str, split: str) -> None:
        self._data = data
        self._rows = list_frames(data, split, 40)

    def order(self, number: int, count: int) -> list[str]:
        """Names of frames, one of each patient before a second of any."""
        drawn = np.random.default_rng(number).permutation(len(self._rows))
        seen: dict[str, int] = {}
        turn = {}
        for index in drawn.tolist():
            name, patient = self._rows[index]
            turn[name] = seen[patient] = seen.get(patient, -1) + 1
        return sorted(turn, key=turn.get)[:count]

    def read(self, name: str) -> Label:
        """A frame and its true mask."""
        return Label(*read_frame(self._data, name), name=name)


def run(args: argparse.Namespace) -> None:
    """Correct what OUT does not hold yet."""
    torch.set_num_threads(args.threads)
    device = choose_device(args.device)
    frames, out = Frames(args.data, args.split), Path(args.out)
    lines = out.read_text().splitlines() if out.exists() else []
    rows = map(json.loads, lines)
    done = {(r["order"], r["after"], r["frame"]) for r in rows}
    untrained = Predictor(load_model(args.model), device)
    for number in range(args.first, args.orders):
        order = frames.order(number, max(args.after) + args.frames)
        for after in args.after:
            ahead = order[after : after + args.frames]
            ahead = [name for name in ahead if (number, after, name) not in done]
            if not ahead:
                continue
            learned = [frames.read(name) for name in order[:after]]
            trained = None
            if learned:
                config = FinetuneConfig(args.steps, seed=number)
                trained = train_plainly(learned, args.model, device, config)
            for name in ahead:
                made = _correct(frames.read(name), untrained, trained)
                with out.open("a") as file:
                    for curve, figures in made.items():
                        row = {"order": number, "after": after, "frame": name}
                        file.write(json.dumps(row | {"curve": curve} | figures) + "\n")
                seconds = {curve: f["seconds"] for curve, f in made.items()}
                print(number, after, name, seconds, flush=True)


def _correct(
    label: Label, untrained: Predictor, trained: Predictor | None
) -> dict[str, dict]:
    """Correct one frame in every way; figures by curve."""
    made = {}
    probability = untrained.predict(label.frame)
    found = mask_at(probability, untrained.card.threshold)
    features = compute_features(label.frame, probability)
    nothing = np.zeros_like(found)
    made["empty, brush"] = _figures(correct(features, nothing, label.mask))
    made["brush"] = _figures(correct(features, found, label.mask))
    made["tools"] = _figures(correct(features, found, label.mask, list(Action)))
    if trained is None:
        made["retrained"] = made["tools"]
    else:
        probability = trained.predict(label.frame)
        found = mask_at(probability, _TRAINED_THRESHOLD)
        features = compute_features(label.frame, probability)
        made["retrained"] = _figures(correct(features, found, label.mask, list(Action)))
    return made


def _figures(correction) -> dict:
    tally = correction.tally
    return {
        "seconds": round(tally.seconds, 1),
        "strokes": tally.strokes,
        "clicks": tally.clicks,
        "dice": round(correction.dice, 4),
        "where": {k: round(v, 1) for k, v in tally.where.items()},
    }


def _read(args: argparse.Namespace) -> dict[tuple[str, int], list[dict]]:
    """Rows by curve and labels so far, in the order of the orders."""
    rows = [json.loads(line) for line in Path(args.out).read_text().splitlines()]
    found: dict[tuple[str, int], list[dict]] = {}
    for row in sorted(rows, key=lambda r: r["order"]):
        found.setdefault((row["curve"], row["after"]), []).append(row)
    return found


def table(args: argparse.Namespace) -> None:
    """Print means over the orders, and what the seconds go into."""
    found = _read(args)
    afters = sorted({after for _, after in found})
    head = " | ".join(f"after {n}" for n in afters)
    print(f"| seconds, mean ± SD (of empty) | {head} |")
    print("|---|" + "---|" * len(afters))
    for curve, words in CURVES.items():
        cells = []
        for after in afters:
            mine = np.array([r["seconds"] for r in found[curve, after]])
            base = np.array([r["seconds"] for r in found["empty, brush", after]])
            spread = f" ± {mine.std(ddof=1):.0f}" if len(mine) > 1 else ""
            share = 100 * mine.sum() / base.sum()
            cells.append(f"{mine.mean():.0f}{spread} ({share:.0f} %)")
        print(f"| {words} | {' | '.join(cells)} |")
    print(f"\n{len(found['tools', afters[0]])} frames\n")
    print("| share of the seconds | first frame | last |\n|---|---|---|")
    first, last = (
        [r["where"] for r in found["retrained", n]] for n in (afters[0], afters[-1])
    )
    for kind in dict.fromkeys(k for w in first + last for k in w):
        shares = [
            100 * sum(w.get(kind, 0) for w in some) / sum(sum(w.values()) for w in some)
            for some in (first, last)
        ]
        print(f"| {kind} | {shares[0]:.0f} % | {shares[1]:.0f} % |")


def plot(args: argparse.Namespace) -> None:
    """Draw the mean of each curve, in per cent of an empty mask."""
    found = _read(args)
    series: dict[str, list[tuple[float, float]]] = {}
    for (curve, after), rows in sorted(found.items(), key=lambda item: item[0][1]):
        base = sum(r["seconds"] for r in found["empty, brush", after])
        share = 100 * sum(r["seconds"] for r in rows) / base
        series.setdefault(curve, []).append((after, share))
    series = {curve: series[curve] for curve in CURVES}
    title = f"seconds to a right mask, % of empty and brush ({args.title})"
    draw_panels([Panel(title, "frames corrected so far", series)]).save(args.picture)


def main() -> None:
    parser, runner, added = commands(__doc__, run, table)
    runner.add_argument("--orders", type=int, default=5)
    runner.add_argument("--first", type=int, default=0, help="of the orders")
    runner.add_argument("--after", type=int, nargs="+", default=[0, 5, 10, 18])
    runner.add_argument("--steps", type=int, default=0, help="0: as the window")
    runner.add_argument("--frames", type=int, default=1, help="corrected after each")
    runner.add_argument("--split", default="val")
    runner.add_argument("--threads", type=int, default=1)
    drawer = added.add_parser("plot")
    drawer.add_argument("out")
    drawer.add_argument("picture")
    drawer.add_argument("--title", default="five orders")
    drawer.set_defaults(act=plot)
    args = parser.parse_args()
    args.act(args)


if __name__ == "__main__":
    main()
