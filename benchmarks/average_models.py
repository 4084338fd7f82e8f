"""A model whose weights are the mean of others' weights.

usage: python -m benchmarks.average_models MODEL MODEL... -o DIR [--threshold T]
           [--description TEXT] [--data TEXT] [--licence TEXT]

MODEL is the name or the folder of a model; all have one width and one ancestor, since
only weights that lie near each other have a mean that works (Wortsman et al. 2021,
arXiv 2109.01903, and 2022, arXiv 2203.05482). The card is that of the last one.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch

from napari_cmunet.model.registry import find_model, load_model, save_model


def main() -> None:
    """Average and save."""
    args = _arguments()
    models = [load_model(find_model(name)) for name in args.models]
    if len({m.card.width for m in models}) > 1:
        raise SystemExit("The models have different widths: they have no mean.")
    states = [m.network.state_dict() for m in models]
    mean = {
        name: torch.stack([s[name].double() for s in states]).mean(0).to(first.dtype)
        for name, first in states[0].items()
    }
    card = models[-1].card
    given = {k: getattr(args, k) for k in ("description", "data", "licence")}
    card = replace(
        card,
        name=args.output.name,
        threshold=args.threshold or card.threshold,
        metrics={"mean_of": [[m.card.name, m.card.sha256] for m in models]},
        **{k: v for k, v in given.items() if v},
    )
    save_model(args.output, mean, card)
    print(args.output)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", nargs="+")
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--threshold", type=float)
    for name in ("description", "data", "licence"):
        parser.add_argument(f"--{name}", default="")
    return parser.parse_args()


if __name__ == "__main__":
    main()
