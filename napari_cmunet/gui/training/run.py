"""One training at work, and the function that its worker runs."""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from napari_cmunet.gui.jobs import spare_thread
from napari_cmunet.project.models.promotion import TrainingResult, promote_each

if TYPE_CHECKING:
    from collections.abc import Generator

    from napari_cmunet.gui.training.state import TrainingProgress
    from napari_cmunet.project.project import Project
    from napari_cmunet.project.training.worker import TrainingOrder, TrainingProcess
    from napari_cmunet.training.events import Event


@dataclass
class TrainingRun:
    """One training at work."""

    process: TrainingProcess
    progress: TrainingProgress  # as of the last event
    last_event_at: float = field(default_factory=time.monotonic)
    first: TrainingResult | None = None  # of the quick stage
    result: TrainingResult | None = None
    worker: Any = None

    def progress_now(self) -> TrainingProgress:
        """The progress, with the time since the last event."""
        return self.progress.later(time.monotonic() - self.last_event_at)


def train(
    process: TrainingProcess, order: TrainingOrder, project: Project
) -> Generator[Event | TrainingResult | None, None, TrainingResult]:
    """Train to the end, and promote each new model that is better."""
    with spare_thread():
        return (yield from promote_each(project, process.run(order)))


class TrainingTask(functools.partial):
    """A worker's function with words for napari's question before it closes."""

    def __str__(self) -> str:
        return "the fine-tuning of CM-UNet; what it has learned so far would be lost"
