"""Comparison of a new model with the one in use, paired by patient.

Patients count from whom neither model learned. Where the model in use learned from
some, it has an advantage on them: a new model that is better even so counts as better.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.special import stdtrit  # scipy.stats is slow to import

from napari_cmunet.model.threshold import mask_at
from napari_cmunet.synthetic import PhantomConfig, make_frame
from napari_cmunet.training.evaluation.metrics import dice
from napari_cmunet.training.events import (
    BETTER,
    CANNOT_TELL,
    ENOUGH_PATIENTS,
    NOT_BETTER,
    TOLERATED_LOSS,
    Verdict,
)
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    Predict = Callable[[np.ndarray], np.ndarray]
    Scores = dict[str, tuple[float, float]]

CONFIDENCE = 0.90
"""Confidence level of the interval, two-sided."""

REGRESSION_SEEDS = (2, 3, 5, 7, 11, 13)
REGRESSION_SIZE = 256
COLLAPSE = 0.25
"""A model is refused if its Dice on the regression set falls below this share.

Fine-tuning costs some of it: 20 steps on 14 real labels kept 59 %, a training that
destroyed its start 5 %.
"""


TRAINED_WITHOUT = (
    "Each patient was measured with a model trained without that patient; the new "
    "model itself has learned from all of them."
)
ADAPTED_WITHOUT = (
    "Nothing was trained: labels chose the threshold, the side branches and the grid; "
    "each patient was measured with what the others chose."
)


@dataclass(frozen=True)
class Pair:
    """One patient, measured with both models.

    Parameters
    ----------
    new, old : (float, float)
        Dice and clDice, means over the patient's frames.
    old_learned : bool
        Whether the old model had learned from this patient when it was measured.
    """

    new: tuple[float, float]
    old: tuple[float, float]
    old_learned: bool = False

    @property
    def gain(self) -> float:
        """Mean of the differences of Dice and clDice."""
        return float(np.mean(np.subtract(self.new, self.old)))


@functools.cache  # both stages of a training are compared on them
def regression_frames() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Regression set: a few synthetic angiograms and their masks, always the same."""
    return tuple(
        make_frame(PhantomConfig(size=REGRESSION_SIZE, seed=seed))
        for seed in REGRESSION_SEEDS
    )


def score_regression_set(
    predict: Predict,
    threshold: float,
    frames: Iterable[tuple[np.ndarray, np.ndarray]],
) -> float:
    """Mean Dice on the regression set, which shows a model that has collapsed."""
    return float(
        np.mean([dice(mask_at(predict(x), threshold), mask) for x, mask in frames])
    )


def judge(
    model: str,
    against: str,
    against_sha256: str,
    pairs: Mapping[str, Pair],
    sentinels: tuple[float, float] | None = None,
    *,
    left_out: str = "",
    why_none: str = "",
) -> Verdict:
    """Decide whether a new model is better than the old one.

    Parameters
    ----------
    model, against, against_sha256 : str
        The new model, the old one and the hash of its weights.
    pairs : dict
        By patient; the new model never saw any of them.
    sentinels : (float, float), optional
        Dice of the new and of the old model on synthetic angiograms.
    left_out : str
        How each patient was left out of the new model's figures, for people:
        :data:`TRAINED_WITHOUT` or :data:`ADAPTED_WITHOUT`. Empty: it never saw them.
    why_none : str
        Why there are no pairs, or few; for people.
    """
    fair = [p for p in pairs.values() if not p.old_learned]
    everyone = list(pairs.values())
    outcome, reason, used = _decide(fair, everyone)
    if outcome == CANNOT_TELL and why_none:
        reason = why_none
    if sentinels and sentinels[0] < COLLAPSE * sentinels[1]:
        outcome = NOT_BETTER
        reason = (
            f"On {len(REGRESSION_SEEDS)} synthetic angiograms it finds far less than "
            "the model in use."
        )
    new, old = _means([p.new for p in used]), _means([p.old for p in used])
    gain = interval([p.gain for p in used])
    verdict = Verdict(
        model=model,
        against=against,
        against_sha256=against_sha256,
        outcome=outcome,
        text="",
        patients=len(used),
        dice=new[0] if new else None,
        dice_before=old[0] if old else None,
        cldice=new[1] if new else None,
        cldice_before=old[1] if old else None,
        gain=gain[0] if gain else None,
        gain_low=gain[1] if gain else None,
        gain_high=gain[2] if gain else None,
        sentinels=sentinels[0] if sentinels else None,
        sentinels_before=sentinels[1] if sentinels else None,
    )
    text = _in_words(verdict, reason, sum(p.old_learned for p in used), left_out)
    return Verdict(**(vars(verdict) | {"text": text}))


def _decide(
    fair: Sequence[Pair], everyone: Sequence[Pair]
) -> tuple[str, str, Sequence[Pair]]:
    """Outcome, its reason, and the pairs that it rests on."""
    for pairs in (fair, everyone):
        mean, low, _ = interval([p.gain for p in pairs]) or (0.0, -1.0, 1.0)
        if len(pairs) >= ENOUGH_PATIENTS and low > 0:
            losses = np.mean([np.subtract(p.new, p.old) for p in pairs], 0)
            if losses.min() >= -TOLERATED_LOSS:
                return BETTER, "", pairs
    mean, _, high = interval([p.gain for p in fair]) or (0.0, -1.0, 1.0)
    enough = len(fair) >= ENOUGH_PATIENTS
    if high < 0 or (enough and mean <= 0):
        return NOT_BETTER, "", fair
    learned = len(everyone) - len(fair)
    if learned and not enough:
        reason = (
            f"the model in use has learned from {learned} of the {len(everyone)} "
            "patients and is favoured on them"
        )
        return CANNOT_TELL, reason, everyone
    if not fair:
        return CANNOT_TELL, "there is no patient whom the new model never saw", fair
    if not enough:
        return CANNOT_TELL, "these are too few patients to tell gain from luck", fair
    if mean > 0 and np.mean([np.subtract(p.new, p.old) for p in fair], 0).min() < (
        -TOLERATED_LOSS
    ):
        return CANNOT_TELL, "one measure rises while the other falls", fair
    return CANNOT_TELL, "the difference may be luck with so few patients", fair


def interval(values: Sequence[float]) -> tuple[float, float, float] | None:
    """Mean and its interval by Student's t; None for fewer than two values."""
    if len(values) < 2:
        return None
    mean = float(np.mean(values))
    half = float(
        stdtrit(len(values) - 1, (1 + CONFIDENCE) / 2)
        * np.std(values, ddof=1)
        / np.sqrt(len(values))
    )
    return mean, mean - half, mean + half


def _means(scores: Sequence[tuple[float, float]]) -> tuple[float, float] | None:
    if not scores:
        return None
    first, second = np.mean(scores, 0)
    return float(first), float(second)


def _in_words(v: Verdict, reason: str, learned: int, left_out: str) -> str:
    """Verdict in words, for the user and the journal."""
    head = {
        BETTER: "Better",
        NOT_BETTER: "Not better",
        CANNOT_TELL: f"Cannot tell: {reason}",
    }[v.outcome]
    parts = [f"{head}."]
    if v.outcome == NOT_BETTER and reason:
        parts.append(reason)
    if v.dice is not None and v.dice_before is not None:
        who = counted(v.patients, "patient")
        never = "whom neither model learned from"
        if left_out:
            never = "left out in turn"
        if learned:
            never = f"of whom the model in use had seen {learned}"
        parts.append(
            f"On {who} {never}: Dice {v.dice:.3f}, before {v.dice_before:.3f}; "
            f"clDice {v.cldice:.3f}, before {v.cldice_before:.3f}."
        )
        if v.outcome == NOT_BETTER and not reason and v.near_own:
            parts.append(
                "These labels are nearly what the model in use found, so no other can "
                "do better on them."
            )
    if v.gain is not None:
        parts.append(
            f"Mean gain {v.gain:+.3f} ({CONFIDENCE:.0%} interval {v.gain_low:+.3f} to "
            f"{v.gain_high:+.3f})."
        )
    if left_out and v.patients:
        parts.append(left_out)
    if v.sentinels is not None and v.sentinels_before is not None:
        parts.append(
            f"Synthetic angiograms: Dice {v.sentinels:.3f}, "
            f"before {v.sentinels_before:.3f}."
        )
    return " ".join(parts)
