"""Synthetic frames with perfect labels, many at once, for training."""

from __future__ import annotations

import multiprocessing
import os
from typing import TYPE_CHECKING

from napari_cmunet.core.labelled import Label
from napari_cmunet.core.phantom import PhantomConfig, make_frame

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np

MIN_ARTERY = 0.004
"""Frames with a smaller share of artery are left out: next to nothing is filled."""


def phantom_labels(
    count: int, seed: int = 0, workers: int | None = None
) -> Iterator[Label]:
    """Draw ``count`` labelled phantom frames; each is a patient of its own.

    Parameters
    ----------
    count : int
    seed : int
        Same seed, same frames, whatever the number of workers.
    workers : int, optional
        Processes; as many as there are processors by default.
    """
    seeds = _seeds(count, seed)
    workers = workers or os.cpu_count() or 1
    if workers == 1 or count < 16:
        yield from _usable(map(_draw, seeds))
        return
    # Spawned: a fork would copy torch's threads in whatever state they are.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from _usable(pool.imap(_draw, seeds, chunksize=8))


def _seeds(count: int, seed: int) -> list[int]:
    return [seed * 1_000_003 + i for i in range(count)]


def _draw(seed: int) -> tuple[int, np.ndarray, np.ndarray]:
    frame, mask = make_frame(PhantomConfig(seed=seed))
    return seed, frame, mask


def _usable(drawn) -> Iterator[Label]:
    for seed, frame, mask in drawn:
        if mask.mean() >= MIN_ARTERY:
            name = f"phantom-{seed}"
            yield Label(frame, mask, patient=name, name=name)
