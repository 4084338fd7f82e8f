"""What follows from a training: the new model is promoted, refused, or undecided."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import CMUNetError
from napari_cmunet.training.events import BETTER, NOT_BETTER

if TYPE_CHECKING:
    from napari_cmunet.project.project import Project
    from napari_cmunet.training.events import Verdict

DONE, STOPPED, CANCELLED, DIED = "done", "stopped", "cancelled", "died"
"""How a training can end, beside the :data:`napari_cmunet.training.events.FAILURES`."""

PROMOTED, REFUSED, UNDECIDED = "promoted", "refused", "undecided"


@dataclass(frozen=True)
class TrainingResult:
    """How a training ended, and what was done about its model.

    Parameters
    ----------
    kind : str
        :data:`DONE`, :data:`STOPPED`, :data:`CANCELLED`, :data:`DIED` or one of
        :data:`napari_cmunet.training.events.FAILURES`.
    text : str
        What happened and what to do, for people.
    model : str
        The model that was saved; empty if there is none.
    verdict : Verdict or None
        How the model compared with the one in use.
    decision : str
        :data:`PROMOTED`, :data:`REFUSED`, :data:`UNDECIDED` (the user decides), or
        empty where there is no new model.
    problem : str
        What could not be written; empty if all was.
    """

    kind: str
    text: str
    model: str = ""
    verdict: Verdict | None = None
    decision: str = ""
    problem: str = ""

    @property
    def failed(self) -> bool:
        """Whether something went wrong, rather than ended as the user wanted."""
        return self.kind not in (DONE, STOPPED, CANCELLED)


def promote_if_better(project: Project, result: TrainingResult) -> TrainingResult:
    """Register the new model and put it to use if it is better.

    Writes to the project, so it is for a worker's thread.
    """
    try:
        return replace(result, decision=_decide(project, result))
    except CMUNetError as error:
        decision = UNDECIDED if result.model else ""
        return replace(result, decision=decision, problem=str(error))


def _decide(project: Project, result: TrainingResult) -> str:
    name, verdict = result.model, result.verdict
    if not name:
        return ""
    if result.kind == CANCELLED:
        with suppress(CMUNetError):
            project.models.discard(name)
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
