"""Frames with true masks for the benchmarks: of a folder, or synthetic.

A folder holds images/, masks/ and index.csv with the columns stem, split and patient.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.synthetic import PhantomConfig, make_frame

if TYPE_CHECKING:
    import numpy as np

PHANTOMS = "phantoms"
"""Given in place of a folder."""


def list_frames(data: str | Path, split: str, phantoms: int) -> list[tuple[str, str]]:
    """Name and patient of every frame of a split, or of so many phantoms."""
    if str(data) == PHANTOMS:
        return [(str(9000 + seed), str(seed)) for seed in range(phantoms)]
    with (Path(data) / "index.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["split"] == split]
    return [(row["stem"], row["patient"]) for row in rows]


def read_frame(data: str | Path, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Image and true mask (bool) of a frame, (Y, X) each."""
    if str(data) == PHANTOMS:
        return make_frame(PhantomConfig(seed=int(name)))
    folder = Path(data)
    image = read_angiogram(next((folder / "images").glob(f"{name}.*"))).frames[0]
    mask = read_mask(next((folder / "masks").glob(f"{name}.*")))
    return image, mask.reshape(mask.shape[-2:]) > 0


def commands(doc: str | None, run: Any, table: Any) -> tuple[Any, Any, Any]:
    """A parser with ``run DATA OUT`` and ``table OUT``; ``run``; where to add more."""
    parser = argparse.ArgumentParser(
        description=doc, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    added = parser.add_subparsers(required=True)
    runner = added.add_parser("run")
    runner.add_argument("data")
    runner.add_argument("out")
    runner.add_argument("--model", default="cmunet-artery")
    runner.add_argument("--device", default="auto")
    runner.set_defaults(act=run)
    printer = added.add_parser("table")
    printer.add_argument("out")
    printer.set_defaults(act=table)
    return parser, runner, added
