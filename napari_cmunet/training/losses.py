"""Losses for thin vessels, over reviewed pixels alone.

All are differentiable and give 0 for a perfect prediction, whatever part of the frame
was reviewed. A target is the share of a pixel that is artery, and a perfect
prediction equals that share.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F

from napari_cmunet.model.network import artery_logit
from napari_cmunet.training.dataset import REVIEWED, SKELETON, TARGET


def dice_loss(
    probability: torch.Tensor, target: torch.Tensor, reviewed: torch.Tensor
) -> torch.Tensor:
    """Soft Dice loss over the reviewed pixels of the whole batch.

    The Dice semimetric loss (Wang et al. 2023, arXiv 2303.16296): soft Dice for
    binary targets, and least where the prediction equals the target for those in
    between. Over the batch, so that a frame without an artery does not cost a whole 1.

    Parameters
    ----------
    probability, target, reviewed : float tensors (B, 1, H, W)
        All between 0 and 1.
    """
    p, t = probability * reviewed, target * reviewed
    total = p.sum() + t.sum()
    # Half a pixel, so that an all-background label has a gradient and a limit of 0.
    return (p - t).abs().sum() / (total + 0.5)


def cross_entropy_loss(
    logit: torch.Tensor, target: torch.Tensor, reviewed: torch.Tensor
) -> torch.Tensor:
    """Mean binary cross-entropy over the reviewed pixels, less the target's entropy."""
    each = F.binary_cross_entropy_with_logits(logit, target, reduction="none")
    each = each - torch.special.entr(target) - torch.special.entr(1 - target)
    return (each * reviewed).sum() / reviewed.sum().clamp_min(1)


def skeleton_recall_loss(
    probability: torch.Tensor,
    target: torch.Tensor,
    skeleton: torch.Tensor,
    reviewed: torch.Tensor,
) -> torch.Tensor:
    """Share of the true centreline that is missed.

    Skeleton recall (Kirchhoff et al. 2024, arXiv 2404.03010): a branch two pixels wide
    weighs as much per length as a main stem. The skeleton is drawn once, beforehand.

    Parameters
    ----------
    probability, target, skeleton, reviewed : float tensors (B, 1, H, W)
        ``skeleton`` is 1 on and right beside the centreline of the label.
    """
    s = skeleton * reviewed
    missed = (target - probability).clamp_min(0)
    return (missed * s).sum() / ((target * s).sum() + 0.5)


def segmentation_loss(
    logits: torch.Tensor,
    target: torch.Tensor,
    reviewed: torch.Tensor,
    skeleton: torch.Tensor,
    *,
    skeleton_weight: float = 0.5,
) -> torch.Tensor:
    """Dice and cross-entropy, and skeleton recall times ``skeleton_weight``.

    Parameters
    ----------
    logits : tensor (B, 2, H, W)
    target, reviewed, skeleton : float tensors (B, 1, H, W)

    Returns
    -------
    scalar tensor
    """
    logit = artery_logit(logits)
    p = torch.sigmoid(logit)
    loss = dice_loss(p, target, reviewed) + cross_entropy_loss(logit, target, reviewed)
    if skeleton_weight:
        loss = loss + skeleton_weight * skeleton_recall_loss(
            p, target, skeleton, reviewed
        )
    return loss


def map_loss(
    logits: torch.Tensor, maps: torch.Tensor, *, skeleton_weight: float = 0.5
) -> torch.Tensor:
    """:func:`segmentation_loss` for the channels of ``LabelledFrames.maps``.

    Parameters
    ----------
    logits : tensor (B, 2, H, W)
    maps : float tensor (B, 3, H, W)
        Shares from 0 to 1.
    """
    return segmentation_loss(
        logits,
        maps[:, TARGET : TARGET + 1],
        (maps[:, REVIEWED : REVIEWED + 1] > 0.99).float(),
        (maps[:, SKELETON : SKELETON + 1] > 0.5).float(),
        skeleton_weight=skeleton_weight,
    )
