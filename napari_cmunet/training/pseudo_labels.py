"""Masks that name main branches only, completed by a model that knows the others.

What is unlabelled in such a mask is unknown, not background. To leave out of the loss
what the network that is being trained takes for artery is not enough: a branch that it
begins to doubt counts as background at once, and it unlearns the branches. Here a
model that does not change says, once, before the training, what the masks lack.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from napari_cmunet.model.threshold import mask_at

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from napari_cmunet.model.predictor import Predictor
    from napari_cmunet.training.dataset import Label

CONFIDENT_ARTERY, CONFIDENT_BACKGROUND = 0.7, 0.3
"""Probabilities from which, and below which, the model is believed."""


def completed(labels: Iterable[Label], predictor: Predictor) -> Iterator[Label]:
    """Add what a model is sure of, and call unknown what it is not sure of.

    Parameters
    ----------
    labels : iterable of Label
        Whose masks are right, but leave arteries out.
    predictor : Predictor
        Of a model that segments whole trees.

    Yields
    ------
    Label
        Its mask with every pixel from :data:`CONFIDENT_ARTERY`; unlabelled pixels from
        :data:`CONFIDENT_BACKGROUND` to there are not reviewed.
    """
    for label in labels:
        probability = predictor.predict(label.frame)
        mask = label.mask.astype(bool) | mask_at(probability, CONFIDENT_ARTERY)
        reviewed = mask | ~mask_at(probability, CONFIDENT_BACKGROUND)
        if label.reviewed is not None:
            reviewed &= label.reviewed.astype(bool)
        yield replace(label, mask=mask, reviewed=reviewed)
