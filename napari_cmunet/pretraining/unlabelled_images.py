"""From image files to prepared frames for pre-training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F

from napari_cmunet.errors import CMUNetError, TrainingError, display_name
from napari_cmunet.io.dicom.identity import without_identity
from napari_cmunet.io.discovery import find_images
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.model.card import Preprocessing
from napari_cmunet.model.preprocess import prepare
from napari_cmunet.pretraining.config import UnlabelledFrames, digest
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from napari_cmunet.pretraining.distributed import ProcessGroup

FRAMES_OF_A_CINE = 8
"""Neighbouring frames of a cine hardly differ; this many tell what it has to tell."""


def read_unlabelled(
    inputs: Sequence[Path],
    skip: Path,
    grid: int,
    group: ProcessGroup,
    progress: Callable[[int, int, str], None] = lambda done, total, name: None,
    note: Callable[[str], None] = lambda text: None,
    *,
    invert: bool = False,
) -> tuple[UnlabelledFrames, int]:
    """Read and prepare all images, each process its share of them.

    Parameters
    ----------
    inputs : sequence of Path
        Files and folders.
    skip : Path
        Folder that is left out.
    grid : int
        Longer side of the prepared frames.
    progress : callable
        Takes the number of files done and of all, and the name of the next one.
    note : callable
        Takes a sentence for each file that cannot be used.
    invert : bool
        Invert the grey values: the arteries of these images are bright.

    Returns
    -------
    frames : UnlabelledFrames
        The same in all processes.
    failed : int
        How many files could not be read.

    Raises
    ------
    TrainingError
        If none could be read.
    """
    files = without_identity(find_images(inputs, skip=[skip]))
    shares = np.array_split(np.arange(len(files)), group.size)
    own = shares[group.rank]
    side = -(-grid // 16) * 16
    frames = [torch.empty(0, 1, side, side).half()]
    groups: list[int] = []
    hashes: list[str] = []
    failed = 0
    for done, number in enumerate(own):
        path, shown = files[number].path, display_name(files[number].relative)
        progress(done, len(own), shown)
        try:
            x, sha256 = _prepared(path, grid, side, invert)
        except CMUNetError as exc:
            failed += 1
            note(str(exc))
        else:
            if not len(x):
                note(f"{shown}: left out, it has no contrast")
            frames.append(x)
            groups += [int(number)] * len(x)
            hashes.append(sha256)
    every = group.all_gather_rows(torch.cat(frames))
    numbers = group.all_gather_rows(torch.tensor(groups, dtype=torch.int64))
    gathered = group.all_gather_objects((hashes, failed))
    if not len(every):
        raise TrainingError(
            f"None of {counted(len(files), 'image file')} could be used; the reasons "
            "are above. Give other files or folders."
        )
    known = [text for part, _ in gathered for text in part]
    return UnlabelledFrames(every, numbers, digest(known)), sum(n for _, n in gathered)


def _prepared(
    path: Path, grid: int, side: int, invert: bool
) -> tuple[torch.Tensor, str]:
    image = read_angiogram(path)
    name = image.sha256
    if invert:
        image, name = image.inverted(), f"{name} inverted"
    count = len(image.frames)
    chosen = np.unique(np.linspace(0, count - 1, min(count, FRAMES_OF_A_CINE)).round())
    ready = []
    for index in chosen.astype(int):
        x, _ = prepare(image.frames[index], Preprocessing(grid=grid))
        if x.any():
            pad = (0, side - x.shape[-1], 0, side - x.shape[-2])
            ready.append(F.pad(x, pad).half())
    empty = torch.empty(0, 1, side, side).half()
    return torch.cat([empty, *ready]), name
