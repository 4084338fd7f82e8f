"""Labels for training: preparation, batches, synthetic frames."""

from __future__ import annotations

import multiprocessing
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from scipy.ndimage import binary_dilation
from skimage.morphology import skeletonize

from napari_cmunet.errors import TrainingError
from napari_cmunet.model.network import STRIDE
from napari_cmunet.model.preprocess import prepare, prepare_mask
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.training.augment import augment

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from napari_cmunet.model.card import Preprocessing
    from napari_cmunet.training.config import FinetuneConfig


TARGET, REVIEWED, SKELETON = 0, 1, 2
"""Channels of :attr:`LabelledFrames.maps`."""

WHOLE = 255
"""Value of :attr:`LabelledFrames.maps` for a share of 1."""


@dataclass(frozen=True)
class Label:
    """One frame with its mask."""

    frame: np.ndarray  # array (Y, X); grey values, arteries dark
    mask: np.ndarray  # bool array (Y, X); true where artery
    #: bool array (Y, X), optional; where the mask was reviewed; everywhere by
    #: default. The rest is unknown, not background.
    reviewed: np.ndarray | None = None
    patient: str = ""  # frames of one patient never sit on both sides of a split
    name: str = ""  # for messages


@dataclass(frozen=True)
class LabelledFrames:
    """Prepared frames on a common square grid."""

    #: float16 tensor (N, 1, G, G); zero where the square reaches beyond the frame.
    frames: torch.Tensor
    #: uint8 tensor (N, 3, G, G); target, reviewed part and centreline of the
    #: target, in parts of :data:`WHOLE`. The target is the share of each pixel that
    #: is artery: a binary target would cost 0.05 Dice on a grid of half the frame's
    #: size.
    maps: torch.Tensor
    patients: tuple[str, ...]
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frames)

    def subset(self, indices: Sequence[int]) -> LabelledFrames:
        """The frames at ``indices``, in that order."""
        at = torch.as_tensor(list(indices), dtype=torch.long)
        return LabelledFrames(
            self.frames[at],
            self.maps[at],
            tuple(self.patients[i] for i in indices),
            tuple(self.names[i] for i in indices),
        )

    def maps_at(self, indices: torch.Tensor) -> torch.Tensor:
        """The maps of some frames as shares, float (n, 3, G, G) from 0 to 1."""
        return self.maps[indices].float() / WHOLE

    def to(self, device: torch.device | str) -> LabelledFrames:
        """The same on another device."""
        return LabelledFrames(
            self.frames.to(device), self.maps.to(device), self.patients, self.names
        )


def prepare_labels(
    labels: Iterable[Label], preprocessing: Preprocessing
) -> LabelledFrames:
    """Prepare labels for training: resample, flatten, draw the centreline.

    Parameters
    ----------
    labels : iterable of Label
        Consumed one by one; they need not be in memory together.
    preprocessing : Preprocessing
        Of the model that is trained.

    Raises
    ------
    TrainingError
        If there is none, or one whose mask is of another size than its frame.
    """
    side = -(-preprocessing.grid // STRIDE) * STRIDE
    frames, maps, patients, names = [], [], [], []
    for label in labels:
        _check(label)
        x, geo = prepare(label.frame, preprocessing)
        reviewed = label.reviewed
        if reviewed is None:
            reviewed = np.ones(label.mask.shape, bool)
        target = prepare_mask(label.mask.astype(bool), geo)
        seen = prepare_mask(reviewed.astype(bool), geo) > 0.99
        mostly = target[0, 0].numpy() > 0.5
        # One pixel to either side, as in skeleton recall, but within the vessel.
        centre = binary_dilation(skeletonize(mostly)) & mostly
        stack = torch.cat([target, seen, torch.from_numpy(centre)[None, None]], 1)
        pad = (0, side - x.shape[-1], 0, side - x.shape[-2])
        frames.append(F.pad(x, pad).to(torch.float16))
        maps.append(F.pad((stack * WHOLE).round().to(torch.uint8), pad))
        patients.append(label.patient)
        names.append(label.name)
    if not frames:
        raise TrainingError("There is no label to learn from.")
    return LabelledFrames(
        torch.cat(frames), torch.cat(maps), tuple(patients), tuple(names)
    )


class LabelBatches:
    """Batches of augmented views of labels.

    Parameters
    ----------
    auxiliary : LabelledFrames or None
        Mixed into each batch.
    """

    def __init__(
        self,
        train: LabelledFrames,
        auxiliary: LabelledFrames | None,
        config: FinetuneConfig,
        device: torch.device,
    ) -> None:
        self.config, self.device, self.train = config, device, train.to(device)
        self.auxiliary = auxiliary.to(device) if auxiliary is not None else None
        self._generator = torch.Generator(device).manual_seed(config.seed)
        self._order = np.random.default_rng(config.seed)
        self._queue: list[int] = []

    def draw(self, count: int) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
        """``count`` views, as a tuple of one tensor, and their maps."""
        n_auxiliary = 0
        if self.auxiliary is not None:
            n_auxiliary = round(count * self.config.auxiliary_share)
        parts = [self._take(self.train, self._next(count - n_auxiliary))]
        if self.auxiliary is not None and n_auxiliary:
            drawn = self._order.integers(len(self.auxiliary), size=n_auxiliary)
            parts.append(self._take(self.auxiliary, drawn.tolist()))
        x, maps = (torch.cat(p) for p in zip(*parts, strict=True))
        config = self.config
        x, maps = augment(x, maps, config.augmentation, self._generator, config.crop)
        return (x,), maps

    def _take(
        self, source: LabelledFrames, indices: Sequence[int]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        at = torch.as_tensor(np.asarray(indices, np.int64), device=self.device)
        return source.frames[at], source.maps_at(at)

    def _next(self, n: int) -> list[int]:
        """Indices of labels: every one once, in random order, before any again."""
        while len(self._queue) < n:
            self._queue.extend(self._order.permutation(len(self.train)).tolist())
        taken, self._queue = self._queue[:n], self._queue[n:]
        return taken


def _check(label: Label) -> None:
    for what, array in (("mask", label.mask), ("reviewed part", label.reviewed)):
        if array is not None and array.shape != label.frame.shape:
            raise TrainingError(
                f"{label.name or 'A label'}: its {what} has {array.shape} pixels, its "
                f"frame {label.frame.shape}. They must lie on the same grid."
            )


MIN_ARTERY = 0.004
"""Frames with a smaller share of artery are left out."""


def phantom_labels(
    count: int, seed: int = 0, workers: int | None = None
) -> Iterator[Label]:
    """Draw ``count`` labelled phantom frames; each is a patient of its own.

    Parameters
    ----------
    seed : int
        Same seed, same frames, whatever the number of workers.
    workers : int, optional
        Processes; as many as there are processors by default.
    """
    seeds = [seed * 1_000_003 + i for i in range(count)]
    workers = workers or os.cpu_count() or 1
    # A worker of a cluster may be a daemon, which has no processes of its own.
    if workers == 1 or count < 16 or multiprocessing.current_process().daemon:
        yield from _usable(map(_draw, seeds))
        return
    # A fork would copy torch's threads in an undefined state.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield from _usable(pool.imap(_draw, seeds, chunksize=8))


def _draw(seed: int) -> tuple[int, np.ndarray, np.ndarray]:
    frame, mask = make_frame(PhantomConfig(seed=seed))
    return seed, frame, mask


def _usable(drawn) -> Iterator[Label]:
    for seed, frame, mask in drawn:
        if mask.mean() >= MIN_ARTERY:
            name = f"phantom-{seed}"
            yield Label(frame, mask, patient=name, name=name)
