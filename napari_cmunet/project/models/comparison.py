"""Compare a new model of a project with the one in use.

Both are measured on the labels of patients from whom the new model did not learn.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import Cancelled, CMUNetError
from napari_cmunet.model.device import is_out_of_memory
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.project.models.history import ModelVersion
from napari_cmunet.training import events
from napari_cmunet.training.dataset import Label
from napari_cmunet.training.evaluation.comparison import (
    ADAPTED_WITHOUT,
    TRAINED_WITHOUT,
    Pair,
    judge,
    regression_frames,
    score_regression_set,
)
from napari_cmunet.training.evaluation.validation import score_frames

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import numpy as np
    import torch

    from napari_cmunet.project.project import Project
    from napari_cmunet.project.training.labels import LabelRef, ProjectLabel

    Scores = dict[str, tuple[float, float]]
    Known = tuple[Scores, float]


def as_label(label: ProjectLabel) -> Label:
    """A project's label as training takes it."""
    return Label(label.frame, label.mask, label.reviewed, label.patient, label.name)


def compare(
    project: Project,
    name: str,
    *,
    held_out: Sequence[LabelRef],
    label_hashes: Mapping[str, set[str]],
    left_out: Scores,
    parent: ModelVersion | None,
    device: torch.device,
    write: Callable[[events.Event], None],
    check: Callable[[], None] = lambda: None,
    known: dict[str, Known] | None = None,
) -> events.Verdict:
    """Compare a model of the project with the one in use.

    Parameters
    ----------
    name : str
        The new model, finished.
    held_out : sequence of LabelRef
        Labels of patients that the training held out.
    label_hashes : mapping
        By patient, the hashes of the labels that the training used.
    left_out : dict
        With few patients instead of ``held_out``: Dice and clDice of each.
    parent : ModelVersion or None
        Where the training started, if that was a model of the project.
    check : callable
        Called before each frame; raises Cancelled to give up.
    known : dict, optional
        Scores of models in use by the hashes of their weights; filled, so that the
        next comparison on the same labels need not measure them again.

    Returns
    -------
    Verdict
        One that says why, where the models cannot be compared.
    """
    project.models.load()  # another one may have been chosen during the training
    current = project.models.current
    write(events.Comparing(name, current.name))
    known = {} if known is None else known
    try:
        new = Predictor(load_model(project.models.path(name)), device)
        old = Predictor(load_model(project.models.folder(current)), device)
        refs = held_out or [
            r for r in project.reference.refs() if r.patient in left_out
        ]
        # The new model has seen what its start has learned from.
        parent_learned = project.models.learned_patients(parent) if parent else set()
        refs = [r for r in refs if r.patient not in parent_learned]
        new_scores = left_out or _scores(project, new, refs, check)
        learned = project.models.learned_patients(current)
        recorded: Scores = {}
        if not current.installed:
            training = project.models.training(current.name)
            recorded = _recorded(training, label_hashes)
        frames = list(_checked(regression_frames(), check))
        if old.card.sha256 not in known:
            unrecorded = [r for r in refs if r.patient not in recorded]
            known[old.card.sha256] = (
                recorded | _scores(project, old, unrecorded, check),
                _regression(old, frames, check),
            )
        old_scores, old_regression = known[old.card.sha256]
        regression = _regression(new, frames, check), old_regression
    except Cancelled:
        raise
    except CMUNetError as exc:
        why = f"the models could not be compared ({exc})"
        return judge(name, current.name, current.sha256, {}, why_none=why)
    except (RuntimeError, MemoryError) as exc:
        if not is_out_of_memory(exc):
            raise
        why = "memory did not suffice to compare the models"
        return judge(name, current.name, current.sha256, {}, why_none=why)
    pairs = {
        patient: Pair(
            new_scores[patient],
            old_scores[patient],
            patient in learned and patient not in recorded,
        )
        for patient in dict.fromkeys(r.patient for r in refs)
        if patient in new_scores and patient in old_scores
    }
    trained = project.models.is_trained(ModelVersion(name))
    how = TRAINED_WITHOUT if trained else ADAPTED_WITHOUT
    return judge(
        name,
        current.name,
        old.card.sha256,
        pairs,
        regression,
        left_out=how if left_out else "",
        why_none=_why_none(pairs, label_hashes, parent_learned),
    )


def _scores(
    project: Project,
    predictor: Predictor,
    refs: Sequence[LabelRef],
    check: Callable[[], None],
) -> Scores:
    labels = (
        as_label(label) for label in _checked(project.reference.read(refs), check)
    )
    return score_frames(predictor.predict, predictor.card.threshold, labels)


def _regression(
    predictor: Predictor,
    frames: Iterable[tuple[np.ndarray, np.ndarray]],
    check: Callable[[], None],
) -> float:
    frames = _checked(frames, check)
    return score_regression_set(predictor.predict, predictor.card.threshold, frames)


def _recorded(training: dict[str, Any], label_hashes: Mapping[str, set[str]]) -> Scores:
    """Scores of the model in use on patients left out of its training.

    They stand for it on patients from whom it has learned itself, as long as the
    labels are the same.
    """
    scores: Scores = {}
    listed = training.get("left_out")
    for patient, values in listed.items() if isinstance(listed, dict) else ():
        with contextlib.suppress(TypeError, KeyError, ValueError):
            if set(values["labels"]) == label_hashes.get(patient):
                scores[patient] = (float(values["dice"]), float(values["cldice"]))
    return scores


def _why_none(
    pairs: Mapping[str, Pair],
    label_hashes: Mapping[str, set[str]],
    parent_learned: set[str],
) -> str:
    if pairs:
        return ""
    if len(label_hashes) < 2:
        return "all labels are of one patient, and the new model has learned from it"
    if parent_learned:
        return (
            "it started from a model that had learned from the very patients that "
            "would show it. Start from a bundled model to know"
        )
    return ""


def _checked(items: Iterable[Any], check: Callable[[], None]) -> Iterator[Any]:
    for item in items:
        check()
        yield item
