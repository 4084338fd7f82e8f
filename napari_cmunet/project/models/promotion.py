"""How a training ended, and whether its model is put to use.

The new model is promoted if it is better than the one in use, refused if it is not, and
left to the user where that is not clear. The criterion is in
:mod:`napari_cmunet.training.evaluation.comparison`.
"""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import CMUNetError
from napari_cmunet.training import events
from napari_cmunet.training.events import (
    BETTER,
    CANNOT_TELL,
    NOT_BETTER,
    TOLERATED_LOSS,
)

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping, Sequence

    from napari_cmunet.project.project import Project
    from napari_cmunet.training.events import Verdict

DONE, STOPPED, CANCELLED, DIED = "done", "stopped", "cancelled", "died"
"""How a training can end, beside the :data:`napari_cmunet.training.events.FAILURES`."""

SAFE = "No label is lost, and the model in use stays in use."

_NO_MEMORY = ("MemoryError", "bad_alloc", "out of memory", "Cannot allocate memory")

NOTICEABLE_GAIN = 0.005
"""Mean gain of Dice and clDice that is worth a change which nobody asked for."""

PROMOTED, REFUSED, UNDECIDED = "promoted", "refused", "undecided"


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended, and what was done about its model."""

    #: :data:`DONE`, :data:`STOPPED`, :data:`CANCELLED`, :data:`DIED` or one of
    #: :data:`napari_cmunet.training.events.FAILURES`.
    kind: str
    text: str  # what happened and what to do, for people
    model: str = ""  # the model that was saved; empty if there is none
    verdict: Verdict | None = None  # how the model compared with the one in use
    #: :data:`PROMOTED`, :data:`REFUSED`, :data:`UNDECIDED` (the user decides), or
    #: empty where there is no new model.
    decision: str = ""
    problem: str = ""  # what could not be written; empty if all was

    @property
    def failed(self) -> bool:
        """Whether something went wrong, rather than ended as the user wanted."""
        return self.kind not in (DONE, STOPPED, CANCELLED)


def result_of(
    last: Mapping[type, Any],
    exit_code: int | None,
    stderr: Sequence[str],
    *,
    stopped: bool,
    cancelled: bool,
) -> TrainingResult:
    """How a training process ended; without a decision yet.

    Parameters
    ----------
    last : mapping
        The last event of each class.
    stderr : sequence of str
        The last lines that it wrote there.
    stopped, cancelled : bool
        What it was asked to do.
    """
    saved = last.get(events.Saved)
    model = os.path.basename(saved.model) if saved else ""  # noqa: PTH119
    if cancelled:
        return TrainingResult(CANCELLED, f"Cancelled. {SAFE}", model)
    if model and (verdict := last.get(events.Verdict)):
        finished = last.get(events.Finished)
        kind = STOPPED if finished and finished.reason == "stopped" else DONE
        return TrainingResult(kind, verdict.text, model, verdict)
    if failed := last.get(events.Failed):
        return TrainingResult(failed.kind, f"{failed.text} {SAFE}", model)
    # 0: a stage before was finished.
    if stopped and exit_code in (0, 1) and not model:
        text = f"Stopped before the first checkpoint; no model was saved. {SAFE}"
        return TrainingResult(STOPPED, text)
    if any(sign in line for line in stderr for sign in _NO_MEMORY):
        text = f"The training ran out of memory. Close other programs. {SAFE}"
        return TrainingResult(events.OUT_OF_MEMORY, text, model)
    kept = f" The model '{model}' was saved, but not compared." if model else ""
    return TrainingResult(DIED, f"{_why_died(exit_code)}{kept} {SAFE}", model)


def _why_died(code: int | None) -> str:
    if code is not None and code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        text = f"The training was ended from outside ({name})."
        if name == "SIGKILL":
            text += " Linux does this when memory runs out: close other programs."
        return text
    return (
        f"The training ended by itself (exit code {code}); Help > Show logs has the "
        "details."
    )


def promote_each(
    project: Project, run: Generator[events.Event | None, None, TrainingResult]
) -> Generator[events.Event | TrainingResult | None, None, TrainingResult]:
    """Follow a training; promote its models, one or one per stage, that are better.

    Yields
    ------
    Event or TrainingResult or None
        As ``run``, and the result of the first stage.
    """
    first: TrainingResult | None = None
    staged = False
    try:
        while True:
            try:
                event = next(run)
            except StopIteration as end:
                result: TrainingResult = end.value
                break
            yield event
            staged |= isinstance(event, events.Stage)
            if staged and first is None and isinstance(event, events.Verdict):
                done = TrainingResult(DONE, event.text, event.model, event)
                first = promote_if_better(project, _on_average(project, done))
                yield first
    finally:
        run.close()
    if first is None:
        return promote_if_better(project, _on_average(project, result))
    return _second(project, result, first)


def _second(
    project: Project, result: TrainingResult, first: TrainingResult
) -> TrainingResult:
    """How a training ended whose first stage is decided on."""
    if result.kind == CANCELLED and first.decision != PROMOTED:
        _discard(project, result.model, first.model)
        return replace(result, model="")
    if result.kind == STOPPED and _is_measured(first) and not _is_measured(result):
        _discard(project, result.model)
    elif result.model not in ("", first.model):
        second = promote_if_better(project, _on_average(project, result, first))
        if second.verdict is not None:
            return second
        first = replace(first, problem=first.problem or second.problem)
    if result.failed:
        text = f"{first.text} {result.text} The first model stays."
        return replace(first, kind=result.kind, text=text)
    return replace(first, kind=result.kind)


def _is_measured(result: TrainingResult) -> bool:
    """Whether its model was compared on patients that neither model learned from."""
    return result.verdict is not None and result.verdict.gain is not None


def _discard(project: Project, *names: str) -> None:
    for name in filter(None, names):
        with suppress(CMUNetError):
            project.models.discard(name)


def _on_average(
    project: Project, result: TrainingResult, first: TrainingResult | None = None
) -> TrainingResult:
    """Let the mean gain decide where the verdict cannot.

    Only against a model of the same labels, that of the first stage or an adapted one:
    it is in use already, but is no more certain than the new one.
    """
    verdict = result.verdict
    if verdict is None or verdict.gain is None or verdict.outcome != CANNOT_TELL:
        return result
    current = project.models.current
    adapted = not (current.installed or project.models.is_trained(current))
    rivals = [current.name] if adapted else []
    if first is not None and first.decision == PROMOTED:
        rivals.append(first.model)
    if verdict.against not in rivals:
        return result
    figures = verdict.text.partition(". ")[2]
    if verdict.gain > 0 and verdict.worst_change >= -TOLERATED_LOSS:
        head, outcome = f"Better on average than {verdict.against}", BETTER
    else:
        head, outcome = f"Not better than {verdict.against}", NOT_BETTER
    text = f"{head}. {figures}"
    return replace(
        result, text=text, verdict=replace(verdict, outcome=outcome, text=text)
    )


def promote_if_better(project: Project, result: TrainingResult) -> TrainingResult:
    """Register the new model and put it to use if it is better.

    Writes to the project, so it is for a worker's thread.
    """
    try:
        return replace(result, decision=_decide(project, result))
    except CMUNetError as error:
        decision = UNDECIDED if result.model else ""
        return replace(result, decision=decision, problem=str(error))


def promote_or_discard(project: Project, result: TrainingResult) -> TrainingResult:
    """Put a model to use if it is better by :data:`NOTICEABLE_GAIN`; else discard it.

    For a model that nobody asked for. Writes to the project.

    Returns
    -------
    TrainingResult
        Without a decision if the model was discarded.
    """
    verdict = result.verdict
    better = verdict is not None and verdict.outcome == BETTER
    noticed = verdict is not None and (verdict.gain or 0.0) >= NOTICEABLE_GAIN
    if better and noticed and result.kind == DONE:
        decided = promote_if_better(project, result)
        if decided.decision == PROMOTED:
            return decided
    _discard(project, result.model)
    return result


def _decide(project: Project, result: TrainingResult) -> str:
    name, verdict = result.model, result.verdict
    if not name:
        return ""
    if result.kind == CANCELLED:
        _discard(project, name)
        return ""
    project.models.register(name)
    if verdict is None:
        return UNDECIDED
    if verdict.outcome == NOT_BETTER:
        project.models.refuse(name, verdict.text, **figures(verdict))
        return REFUSED
    # Another one may have been chosen while the two were compared.
    same = project.models.current.name == verdict.against
    if verdict.outcome == BETTER and same:
        project.models.promote(name, reason=verdict.text, **figures(verdict))
        return PROMOTED
    return UNDECIDED


def figures(verdict: Verdict) -> dict[str, Any]:
    """The verdict for the journal."""
    left_out = ("model", "text", "against_sha256")
    return {k: v for k, v in asdict(verdict).items() if k not in left_out}
