"""What follows from a training that has ended: the new model is taken, or is not.

Writes to the project, so it is for a worker's thread.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from napari_cmunet.errors import CMUNetError
from napari_cmunet.gui.jobs import spare_thread
from napari_cmunet.gui.training.outcome import CANCELLED
from napari_cmunet.gui.training.worker_client import follow
from napari_cmunet.training.events import BETTER, NOT_BETTER

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_cmunet.gui.training.outcome import Outcome
    from napari_cmunet.gui.training.worker_client import TrainerProcess
    from napari_cmunet.project.project import Project
    from napari_cmunet.training.events import Event, Verdict

PROMOTED, REFUSED, UNDECIDED = "promoted", "refused", "undecided"


@dataclass(frozen=True)
class Settled:
    """An outcome and what was done about it.

    Parameters
    ----------
    outcome : Outcome
    decision : str
        :data:`PROMOTED`, :data:`REFUSED`, :data:`UNDECIDED` (the reader decides), or
        empty where there is no new model.
    problem : str
        What could not be written; empty if all was.
    """

    outcome: Outcome
    decision: str = ""
    problem: str = ""


def train(
    trainer: TrainerProcess, project: Project
) -> Generator[Event | None, None, Settled]:
    """Run a trainer to its end and settle what follows."""
    with spare_thread():
        outcome = yield from follow(trainer)
    try:
        return Settled(outcome, _settle(project, outcome))
    except CMUNetError as error:
        return Settled(outcome, UNDECIDED if outcome.model else "", str(error))


def _settle(project: Project, outcome: Outcome) -> str:
    name, verdict = outcome.model, outcome.verdict
    if not name:
        return ""
    if outcome.kind == CANCELLED:
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
