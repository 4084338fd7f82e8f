"""Pseudo-labels: masks of main branches only, completed by a model.

What is unlabelled in such a mask is unknown, not background. A fixed model adds the
missing branches before training: ignoring the predictions of the network that is being
trained would let it unlearn the branches.
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
"""Probabilities from which, and below which, the model is confident."""


def completed(labels: Iterable[Label], predictor: Predictor) -> Iterator[Label]:
    """Add confident predictions to masks; the uncertain part becomes not reviewed.

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
