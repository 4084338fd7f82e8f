"""What the fine-tuning section shows, as one value made from the training's state."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.gui.training.state import (
    COMPARING,
    LEARNING,
    LEAVING_OUT,
    STARTING,
)
from napari_cmunet.project.promotion import (
    CANCELLED,
    PROMOTED,
    REFUSED,
    STOPPED,
    UNDECIDED,
)
from napari_cmunet.training.events import QUICK_STAGE
from napari_cmunet.util.text import duration

if TYPE_CHECKING:
    from napari_cmunet.gui.training.state import ModelPreview, Progress, TrainingState
    from napari_cmunet.project.promotion import TrainingResult


_ENOUGH_PATIENTS = 3
"""As in ``training.comparison``, which takes long to import."""


@dataclass(frozen=True)
class SectionState:
    """Everything that changes in the section."""

    labels: str
    status: str
    figures: str = ""
    failed: bool = False
    running: bool = False
    can_start: bool = False
    can_stop: bool = False
    can_cancel: bool = False
    stop_tip: str = ""
    undecided: str = ""
    use_text: str = ""
    keep_text: str = ""
    versions: tuple[str, ...] = ()
    version: int = -1
    can_go_back: bool = False
    can_go_forward: bool = False
    can_choose: bool = False


@dataclass(frozen=True)
class PreviewState:
    """The comparison of a new model on the open image, as shown."""

    offered: bool = False
    possible: bool = False
    on: bool = False
    tip: str = "Show what a new model would change in the open image (I)"
    text: str = ""


def describe_preview(preview: ModelPreview | None) -> PreviewState:
    """Put into words what a new model would change on the open image."""
    if preview is None or not preview.candidate:
        return PreviewState()
    on, why_not = bool(preview.model), preview.why_not()
    d = preview.difference()
    text = ""
    if on and d is None:
        text = why_not or "Comparing…"
    elif on and d is not None and d.found == d.gone == 0:
        text = f"Here {d.now} would find exactly what {d.before} has found."
    elif on and d is not None:
        text = (
            f"Here {d.now} would find {d.found} pixels more (yellow) than {d.before} "
            f"and {d.gone} no more (violet). Your mask is not touched."
        )
    tip = (
        f"Show what {preview.candidate} would find in the open image, and in those you "
        "open next, without using it (I)"
    )
    return PreviewState(True, on or not why_not, on, why_not or tip, text)


def describe(state: TrainingState) -> SectionState:
    """Put the state of a training into words."""
    status, failed = _status(state)
    ended = state.result if not state.running and not state.problem else None
    progress = state.progress
    ending = state.stopping or state.cancelling
    keep = progress is not None and progress.has_model
    return SectionState(
        labels=_labels(state),
        status=status,
        figures=_split(ended.text)[1] if ended is not None and ended.model else "",
        failed=failed,
        running=state.running,
        can_start=not state.running and state.labels > 0,
        can_stop=keep and not ending,
        stop_tip="End now; the best model so far is kept and compared"
        if keep
        else "There is no model to keep yet",
        can_cancel=state.running and not state.cancelling,
        undecided=state.undecided,
        use_text=f"Use {state.undecided}",
        keep_text=f"Keep {state.current.name}",
        versions=tuple(v.name for v in state.versions),
        version=state.versions.index(state.current)
        if state.current in state.versions
        else -1,
        can_go_back=state.can_go_back and not state.busy,
        can_go_forward=state.can_go_forward and not state.busy,
        can_choose=len(state.versions) > 1 and not state.busy,
    )


def _labels(state: TrainingState) -> str:
    if not state.labels:
        return "No label yet. Accept a corrected mask: it counts as a label."
    text = f"{_count(state.labels, 'label')} of {_count(state.patients, 'patient')}"
    if state.running:
        if state.new_labels:
            text += (
                f". {state.new_labels} accepted since the training began: for the next"
                " one"
            )
    elif state.new_labels and state.new_labels < state.labels:
        text += f", {state.new_labels} of them new"
    return f"{text}."


def _status(state: TrainingState) -> tuple[str, bool]:
    """The text, and whether something went wrong."""
    if state.progress is not None:
        if state.cancelling:
            return "Cancelling…", False
        return _working(state.progress, state), False
    if state.problem:
        return state.problem, True
    if state.result is not None:
        return _ended(state)
    if state.plan is not None and state.labels:
        return state.plan.text, False
    if state.labels and state.patients < _ENOUGH_PATIENTS:
        return (
            f"With labels of fewer than {_ENOUGH_PATIENTS} patients, a new model "
            "cannot be compared with the one in use. Label more patients first.",
            False,
        )
    return "", False


def _working(progress: Progress, state: TrainingState) -> str:
    if state.stopping and progress.phase != COMPARING:
        return "Stopping; the best model so far is kept."
    if progress.stage:
        return _in_stages(progress, state)
    text = {
        STARTING: "Starting: labels are read…",
        LEAVING_OUT: "Few patients: all are left out in turn, to measure on those "
        f"left out ({progress.fold} of {progress.folds}).",
        LEARNING: _learning(progress),
        COMPARING: f"Comparing with {state.current.name}…",
    }[progress.phase]
    if progress.seconds_left is not None:
        text += f" {duration(progress.seconds_left)} left."
    if progress.note and progress.phase in (LEAVING_OUT, LEARNING):
        text += f" {progress.note}"
    return text


def _in_stages(progress: Progress, state: TrainingState) -> str:
    labels = _count(progress.labels, "label")
    if progress.phase == COMPARING:
        text = f"Comparing with {state.current.name}…"
    elif progress.stage == QUICK_STAGE:
        text = f"Training a first model on {labels} (last layers only)."
    else:
        text = f"Training all layers on {labels}."
    if progress.seconds_left is not None:
        text += f" {duration(progress.seconds_left)} left."
    if state.first is not None:
        text += f" {_decision(state.first, state)}"
    if progress.note:
        text += f" {progress.note}"
    return text


def _learning(progress: Progress) -> str:
    text = (
        f"Learning from {_count(progress.labels, 'label')} of "
        f"{_count(progress.patients, 'patient')}"
    )
    if progress.validation_patients:
        text += (
            f", measured on {_count(progress.validation_labels, 'label')} of "
            f"{_count(progress.validation_patients, 'other patient')}"
        )
    return f"{text}."


def _ended(state: TrainingState) -> tuple[str, bool]:
    result = state.result
    assert result is not None
    if result.failed or result.kind == CANCELLED or not result.model:
        return result.text, result.failed
    stopped = "Stopped. " if result.kind == STOPPED else ""
    text = f"{stopped}{_decision(result, state)}"
    if result.decision == PROMOTED and state.current.name == result.model:
        text += " Next: open an unlabelled image and see what it has learned."
    elif result.decision == REFUSED:
        text += " Next: label images of other patients, then fine-tune again."
    elif result.decision == UNDECIDED:
        text += " Compare it on this image (I), then decide."
    return text, False


def _decision(result: TrainingResult, state: TrainingState) -> str:
    """The verdict in one line."""
    name, verdict = result.model, _split(result.text)[0]
    if result.decision == PROMOTED and state.current.name != name:
        return f"{state.current.name} is in use again, not {name} ({verdict})."
    what = {
        PROMOTED: "now in use",
        REFUSED: "not used; it stays in the list",
    }.get(result.decision, "ready")
    return f"{verdict}: {name} is {what}."


def _split(text: str) -> tuple[str, str]:
    """The verdict and its figures."""
    verdict, _, figures = text.partition(". ")
    return verdict.removesuffix("."), figures


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
