"""Options and frames of a pre-training, and checks that they fit together."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.errors import TrainingError
from napari_cmunet.model.card import MAX_WIDTH
from napari_cmunet.training.options import option

if TYPE_CHECKING:
    import torch

    from napari_cmunet.pretraining.distributed import ProcessGroup
    from napari_cmunet.training.dataset import LabelledFrames

MAY_CHANGE = ("minutes", "save_seconds", "save_minutes")
"""Options that may differ when a run is resumed."""

_RANGES = (
    ("width", 1, MAX_WIDTH),
    ("epochs", 1, 10**6),
    ("minutes", 0.01, 10**6),
    ("batch", 1, 10**6),
    ("grid", 32, 4096),
    ("crop", 32, 4096),
    ("phantoms", 0, 10**6),
    ("learning_rate", 1e-8, 1.0),
    ("copy_paste", 0, 1),
)


@dataclass(frozen=True)
class PretrainConfig:
    """Options of one pre-training."""

    width: int = option(24, "channels of the first level (default: 24)")
    epochs: int = option(300, "passes over the images (default: 300)")
    minutes: float | None = option(
        None, "end after this much training, schedules fitted to it", above=0
    )
    batch: int = option(
        16, "views in a step, all processes together (default: 16); at least two frames"
    )
    grid: int = option(256, "longer side of the prepared frames (default: 256)")
    crop: int | None = option(None, "side of the views (default: the whole grid)")
    #: mask_ratio, patch: share of the patches that is masked, and a patch's side in
    #: pixels.
    mask_ratio: float = 0.65
    patch: int = 16
    guidance: float = 0.5  # share of the masked patches that is drawn by vesselness
    temperature: float = 0.07  # of the contrastive loss
    #: The loss is reconstruction + weight * 2 * temperature * contrast.
    contrast_weight: float = 1.0
    #: Of the target at the start, rising to 1 by half a cosine; less in a run of
    #: fewer than 500 steps. The target's weights are the result.
    momentum: float = 0.996
    #: Scaled by the square root of the batch, up to 3 times.
    learning_rate: float = option(1e-3, "peak for batches of 16 (default: 0.001)")
    #: Share of the run, before the cosine decay of the learning rate.
    warmup: float = 0.1
    weight_decay: float = 0.05  # AdamW's, on kernels alone
    clip: float = 1.0  # largest norm of the gradient
    #: shift, noise: of the target's view: pixels either way, and standard
    #: deviation.
    shift: float = 31.0
    noise: float = 0.5
    phantoms: int = option(0, "synthetic frames with known masks to learn from too")
    phantom_share: float = 0.5  # share of the batch that is drawn from them
    segmentation_weight: float = 1.0  # weight of their loss
    #: Masked image consistency (Hoyer et al. 2023, arXiv 2212.01322), with confident
    #: pseudo-labels of the momentum target.
    consistency_weight: float = option(
        0.0, "with phantoms: of segmenting masked frames as whole ones (default: 0)"
    )
    #: With consistency: of the phantoms' views.
    copy_paste: float = option(
        0.0, "share of the phantoms that is drawn into real frames (default: 0)"
    )
    start: str = option(
        "", "go on from this model's weights instead of random ones", "NAME|DIR"
    )
    held_out: float = 0.03  # share of the images that is held out
    precision: str = "auto"  # ``auto`` or ``float32``
    #: Least age of the last checkpoint for another at the end of an epoch; within
    #: epochs there is one every ``save_minutes``.
    save_seconds: float = 20.0
    save_minutes: float = 5.0
    seed: int = option(0, "of the random numbers (default: 0)")

    @property
    def batch_phantoms(self) -> int:
        """Phantoms in a batch."""
        if not self.phantoms:
            return 0
        return max(1, round(self.batch * self.phantom_share))

    @property
    def batch_frames(self) -> int:
        """Real frames in a batch."""
        return self.batch - self.batch_phantoms


def check_same_run(state: dict[str, Any], config: PretrainConfig) -> None:
    """Refuse to resume a checkpoint's run with other options.

    Raises
    ------
    TrainingError
        Naming the first one that differs.
    """
    for name, value in asdict(config).items():
        before = state["config"].get(name, getattr(PretrainConfig, name))
        if name not in MAY_CHANGE and before != value:
            option = name.replace("_", " ")
            raise TrainingError(
                f"The run in this folder has {option} {before}, not {value}. Leave "
                "the option out to --resume it, or choose another output folder."
            )


def check_values(config: PretrainConfig) -> None:
    """Check the ranges of the options.

    Raises
    ------
    TrainingError
        Naming the first one.
    """
    for name, low, high in _RANGES:
        value = getattr(config, name)
        if value is not None and not low <= value <= high:
            option = name.replace("_", "-")
            raise TrainingError(
                f"--{option} {value} does not work: choose a value from {low} to "
                f"{high}."
            )
    if config.copy_paste and not (config.phantoms and config.consistency_weight):
        raise TrainingError(
            "--copy-paste draws the trees of --phantoms into frames where "
            "--consistency-weight tells what is no artery: give both, or leave it out."
        )


def check_choices(
    frames: UnlabelledFrames,
    config: PretrainConfig,
    phantoms: LabelledFrames | None,
    group: ProcessGroup,
) -> None:
    """Check that options, frames and processes fit together; raises TrainingError."""
    check_values(config)
    side = config.crop or frames.side
    if side % 16 or side % config.patch or side < 2 * config.patch or config.patch % 2:
        raise TrainingError(
            f"Views of {side} pixels do not divide into patches of {config.patch}: "
            "choose a --grid or --crop that is a multiple of 16, at least 32."
        )
    if frames.side != -(-config.grid // 16) * 16:
        raise ValueError("frames were prepared for another grid")
    for count in (config.batch_frames, config.batch_phantoms):
        group.part(count)
    if (phantoms is not None) != bool(config.phantoms):
        raise ValueError("phantoms and config.phantoms do not go together")
    if phantoms is not None and len(phantoms) < 2:
        raise TrainingError("At least two phantoms are needed, or none.")


MOST_HELD_OUT = 64
"""Most images that are held out."""


@dataclass(frozen=True)
class UnlabelledFrames:
    """Prepared frames on a common square grid."""

    #: float16 tensor (N, 1, G, G); zero where the square reaches beyond the frame.
    frames: torch.Tensor
    groups: torch.Tensor  # int64 tensor (N,); frames of one image file share a number
    digest: str = ""  # of the files that they came from, to check when resuming

    def __len__(self) -> int:
        return len(self.frames)

    @property
    def side(self) -> int:
        """Pixels of a side."""
        return self.frames.shape[-1]


def digest(parts: list[str]) -> str:
    """Hash of several strings, independent of their order."""
    return hashlib.sha256("\n".join(sorted(parts)).encode()).hexdigest()


def split(frames: UnlabelledFrames, config: PretrainConfig) -> tuple[list, list]:
    """Indices to learn from and indices held out, by image file.

    Raises
    ------
    TrainingError
        If fewer frames than a batch are left to learn from, or the batch is too
        small for contrast.
    """
    if config.batch_frames < 2:
        raise TrainingError(
            f"A batch of {config.batch} with {config.batch_phantoms} phantoms leaves "
            f"{config.batch_frames} frame: contrast needs at least two. Choose a "
            "larger --batch."
        )
    groups = frames.groups.numpy()
    files = np.unique(groups)
    count = max(1, min(MOST_HELD_OUT, round(config.held_out * len(files))))
    chosen = np.random.default_rng([config.seed, 0]).permutation(files)[:count]
    outside = np.isin(groups, chosen)
    learn, held = np.flatnonzero(~outside), np.flatnonzero(outside)
    if len(learn) < config.batch_frames:
        raise TrainingError(
            f"{len(frames)} frames from {len(files)} images are too few: {count} "
            f"image is held out and each step takes {config.batch_frames} frames. "
            "Give more images or choose a smaller --batch."
        )
    return learn.tolist(), held.tolist()
