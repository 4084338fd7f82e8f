"""Options and result of a fine-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from napari_cmunet.errors import TrainingError
from napari_cmunet.model.network import STRIDE
from napari_cmunet.training.augment import Augmentation

if TYPE_CHECKING:
    import torch

    from napari_cmunet.model.card import Postprocessing

RANDOM_RATE = 2e-3
"""Peak learning rate for random weights."""

WISE_FT_PRIOR = 2.0
"""``wise_ft_prior`` for starting weights that already segment arteries."""

BATCH, SMALL_BATCH = 8, 4
"""Views in a step, and where time is short (benchmarks/results/few_shot.md)."""


@dataclass(frozen=True)
class FinetuneConfig:
    """Options of one training.

    Parameters
    ----------
    steps : int
        Optimiser steps; 0 chooses by the number of labels (:func:`default_steps`).
    batch : int
        Views in a step.
    learning_rate : float
        Peak, reached after ``warmup`` of the steps, then down to 0 by cosine. The
        default suits a pre-trained start, :data:`RANDOM_RATE` a random one.
    constant_rate : bool
        Use neither warm-up nor cosine; to compare with recipes that have none.
    weight_decay : float
        Of AdamW, on convolution kernels alone.
    ema : float
        Decay of the averaged model. Early in training the average covers the last
        third of the steps instead, until that is the longer of the two.
    wise_ft_prior : float
        Number of labels that the starting weights count for in the result, which is
        interpolated between the two (WiSE-FT, Wortsman et al. 2021, arXiv
        2109.01903); see :func:`wise_ft_alpha`. 0 for weights that do not segment
        arteries yet, else :data:`WISE_FT_PRIOR`.
    skeleton_weight : float
        Weight of skeleton recall beside Dice and cross-entropy.
    frozen_batchnorm : bool
        Keep the running statistics of the starting weights.
    auxiliary_share : float
        Share of each batch drawn from the auxiliary frames, if there are any.
    validate_every : int
        Steps between two validations.
    patience : int
        Validations without a better Dice after which training ends; 0: never.
    minutes : float, optional
        Time budget. The schedule is shortened to fit it, by the measured time of
        the steps so far; the result then depends on the machine.
    crop : int, optional
        Side of the training views in pixels of the labels' grid; the whole of it by
        default.
    trained_blocks : int
        Decoder blocks that are trained, from the last one on, with the last
        convolution: 1 or 2, on features that are computed once for ``views`` views
        of each label. 0: the whole network, on new views in each step.
    views : int
        See ``trained_blocks``.
    seed : int
    augmentation : Augmentation
    """

    steps: int = 0
    batch: int = BATCH
    learning_rate: float = 5e-4
    warmup: float = 0.05
    constant_rate: bool = False
    weight_decay: float = 1e-2
    ema: float = 0.99
    wise_ft_prior: float = 0.0
    skeleton_weight: float = 0.5
    frozen_batchnorm: bool = False
    auxiliary_share: float = 0.5
    validate_every: int = 50
    patience: int = 0
    minutes: float | None = None
    crop: int | None = None
    trained_blocks: int = 0
    views: int = 4
    seed: int = 0
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        if self.batch < 1 or self.validate_every < 1 or self.steps < 0:
            raise TrainingError(
                "The validation interval and the batch must be at least 1, steps at "
                "least 0."
            )
        if self.crop is not None and (self.crop < STRIDE or self.crop % STRIDE):
            raise TrainingError(f"The crop must be a multiple of {STRIDE}.")


@dataclass(frozen=True)
class OperatingPoint:
    """What makes masks of a network's probabilities at one hospital.

    Parameters
    ----------
    threshold : float
    postprocessing : Postprocessing or None
    """

    threshold: float
    postprocessing: Postprocessing | None


@dataclass(frozen=True)
class FinetuneResult:
    """Result of one training.

    Parameters
    ----------
    weights : dict of str to tensor
        The averaged weights of the best validation; the last ones without validation.
    best_step, steps : int
    dice, cldice : float or None
        Of these weights, on the validation frames.
    reason : str
        See :class:`napari_cmunet.training.events.Finished`.
    wise_ft_alpha : float
        Share of the weights that the training, or each fold, went on from in these.
    start_share : float
        Share of the model to start from in these.
    left_out : dict of str to (float, float)
        With few patients: Dice and clDice of each, by a network that was trained
        without that patient, on the image's own grid.
    operating_point : OperatingPoint or None
        That suits the left-out patients; None where no patient was.
    grid : int or None
        Longer side of the frames as the network sees them; None: as the start.
    """

    weights: dict[str, torch.Tensor]
    best_step: int
    steps: int
    dice: float | None
    cldice: float | None
    reason: str
    wise_ft_alpha: float = 0.0
    left_out: dict[str, tuple[float, float]] = field(default_factory=dict)
    operating_point: OperatingPoint | None = None
    grid: int | None = None
    start_share: float = 0.0


def default_steps(labels: int) -> int:
    """Optimiser steps that suit a number of labels."""
    return int(min(4000, 40 + 2 * labels))


def wise_ft_alpha(prior: float, labels: int) -> float:
    """Share of starting weights that count for ``prior`` labels."""
    return prior / (prior + labels)
