"""Seconds that a simulated annotator needs for a correct mask, by set of tools.

usage: python -m benchmarks.simulated_reader run DATA OUT.jsonl [--frames 8]
           [--model M] [--split val] [--sets empty brush ...] [--fast-brush]
       python -m benchmarks.simulated_reader table OUT.jsonl

DATA holds images/, masks/ and index.csv (stem, split, patient), or is the word
"phantoms". Frames are taken evenly from the split. Each correction is one line of
OUT.jsonl; a second call continues. ``table`` prints means over the frames as Markdown,
each set of tools against an empty mask and the brush.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.frames import commands, list_frames, read_frame
from benchmarks.simulated_reader import Action, Hand, correct
from benchmarks.simulated_reader.hand import FAST_BRUSH
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.vessels.vesselness import compute_features

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator

_ORDER = (
    Action.REMOVE,
    Action.NOT_ARTERY,
    Action.TRACE,
    Action.ACCEPT,
    Action.BRIDGE,
)

SETS: dict[str, tuple[bool, tuple[Action, ...]]] = {
    "empty": (False, ()),
    "empty, all": (False, _ORDER),
    "brush": (True, ()),
    **{f"+ {action}": (True, _ORDER[: i + 1]) for i, action in enumerate(_ORDER)},
    **{f"all but {t}": (True, tuple(o for o in _ORDER if o != t)) for t in _ORDER},
}
"""Whether it begins pre-segmented, and which tools there are beside the brush."""

_DEFAULT = ("empty", "brush", *(f"+ {action}" for action in _ORDER))


def _frames(
    data: str, split: str, count: int
) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """Name, image (Y, X) and true mask (Y, X) of frames taken evenly."""
    names = [name for name, _ in list_frames(data, split, count)]
    for index in np.linspace(0, len(names) - 1, min(count, len(names))).round():
        name = names[int(index)]
        yield name, *read_frame(data, name)


def run(args: argparse.Namespace) -> None:
    """Correct every frame with every set that OUT does not hold yet."""
    out = Path(args.out)
    lines = out.read_text(encoding="utf-8").splitlines() if out.exists() else []
    done = {(r["frame"], r["set"], r["hand"]) for r in map(json.loads, lines)}
    hand, hand_name = (FAST_BRUSH, "fast") if args.fast_brush else (Hand(), "usual")
    predictor = None
    for stem, image, truth in _frames(args.data, args.split, args.frames):
        todo = [s for s in args.sets if (stem, s, hand_name) not in done]
        if not todo:
            continue
        if predictor is None:
            predictor = Predictor(load_model(args.model), choose_device(args.device))
        probability = predictor.predict(image)
        found = mask_at(probability, predictor.card.threshold)
        features = compute_features(image, probability)
        for name in todo:
            begun, tools = SETS[name]
            start = found if begun else np.zeros_like(found)
            made = correct(features, start, truth, tools, hand)
            row = {
                "frame": stem,
                "set": name,
                "hand": hand_name,
                "model": predictor.card.name,
                "seconds": round(made.tally.seconds, 1),
                "strokes": made.tally.strokes,
                "clicks": made.tally.clicks,
                "keys": made.tally.keys,
                "used": made.tally.used,
                "dice": round(made.dice, 4),
                "cldice": round(made.cldice, 4),
                "left": made.left,
            }
            with out.open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            print(stem, name, row["seconds"], flush=True)


def table(args: argparse.Namespace) -> None:
    """Print the means as Markdown."""
    rows = [
        json.loads(line)
        for line in Path(args.out).read_text(encoding="utf-8").splitlines()
    ]
    for hand in dict.fromkeys(r["hand"] for r in rows):
        mine = [r for r in rows if r["hand"] == hand]
        by_set = {s: {r["frame"]: r for r in mine if r["set"] == s} for s in SETS}
        by_set = {s: found for s, found in by_set.items() if found}
        # The frames that every set has.
        frames = sorted(set.intersection(*(set(f) for f in by_set.values())))
        print(f"\n{len(frames)} frames, {hand} hand, {mine[0]['model']}\n")
        print(
            "| set of tools | seconds, mean ± SD | of empty | strokes | clicks "
            "| keys | Dice | clDice |\n|---|---|---|---|---|---|---|---|"
        )
        base = np.array([by_set["empty"][f]["seconds"] for f in frames])
        for name, found in by_set.items():
            get = {
                k: np.array([found[f][k] for f in frames])
                for k in ("seconds", "strokes", "clicks", "keys", "dice", "cldice")
            }
            seconds = get["seconds"]
            print(
                f"| {name} | {seconds.mean():.0f} ± {seconds.std(ddof=1):.0f} "
                f"| {100 * seconds.sum() / base.sum():.0f} % "
                f"| {get['strokes'].mean():.1f} | {get['clicks'].mean():.1f} "
                f"| {get['keys'].mean():.1f} | {get['dice'].mean():.3f} "
                f"| {get['cldice'].mean():.3f} |"
            )


def main() -> None:
    parser, runner, _ = commands(__doc__, run, table)
    runner.add_argument("--frames", type=int, default=8)
    runner.add_argument("--split", default="val")
    runner.add_argument("--sets", nargs="+", default=_DEFAULT, choices=SETS)
    runner.add_argument("--fast-brush", action="store_true")
    args = parser.parse_args()
    args.act(args)


if __name__ == "__main__":
    main()
