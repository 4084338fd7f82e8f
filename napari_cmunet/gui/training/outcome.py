"""How a training ended: as wanted, or what went wrong, in words for its reader."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.training import events

if TYPE_CHECKING:
    from napari_cmunet.gui.training.worker_client import TrainerProcess
    from napari_cmunet.training.events import Event, Verdict

logger = logging.getLogger(__name__)

DONE, STOPPED, CANCELLED, DIED = "done", "stopped", "cancelled", "died"
"""How a training can end, beside the :data:`napari_cmunet.training.events.FAILURES`."""

SAFE = "Your labels and the model in use are as they were."

_NO_MEMORY = ("MemoryError", "bad_alloc", "out of memory", "Cannot allocate memory")


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Parameters
    ----------
    kind : str
        :data:`DONE`, :data:`STOPPED`, :data:`CANCELLED`, :data:`DIED` or one of
        :data:`napari_cmunet.training.events.FAILURES`.
    text : str
        What happened and what to do, for people.
    model : str
        The model that is whole on the disk; empty if there is none.
    verdict : Verdict or None
    """

    kind: str
    text: str
    model: str = ""
    verdict: Verdict | None = None

    @property
    def failed(self) -> bool:
        """Whether something went wrong, rather than ended as somebody wanted."""
        return self.kind not in (DONE, STOPPED, CANCELLED)


class Heard:
    """What of the events decides how a training ended."""

    def __init__(self) -> None:
        self.model = ""
        self.reason = ""
        self.verdict: Verdict | None = None
        self.failed: events.Failed | None = None

    def note(self, event: Event | None) -> None:
        """Take in an event."""
        if isinstance(event, events.Saved):
            self.model = os.path.basename(event.model)  # noqa: PTH119
        elif isinstance(event, events.Finished):
            self.reason = event.reason
        elif isinstance(event, events.Verdict):
            self.verdict = event
        elif isinstance(event, events.Failed):
            self.failed = event


def outcome_of(trainer: TrainerProcess, heard: Heard) -> Outcome:
    """How a trainer that has ended did end."""
    model, code = heard.model, trainer.exit_code
    if model and heard.verdict is not None:
        kind = STOPPED if heard.reason == "stopped" else DONE
        return Outcome(kind, heard.verdict.text, model, heard.verdict)
    if trainer.cancelled:
        return Outcome(CANCELLED, f"Cancelled. {SAFE}", model)
    if heard.failed is not None:
        return Outcome(heard.failed.kind, f"{heard.failed.text} {SAFE}", model)
    if trainer.stopping and code == 1 and not model:
        text = f"Stopped before there was a model to keep. {SAFE}"
        return Outcome(STOPPED, text)
    for line in trainer.complaints():
        logger.warning("trainer: %s", line)
    if any(sign in line for line in trainer.complaints() for sign in _NO_MEMORY):
        text = f"The training ran out of memory. Close other programs. {SAFE}"
        return Outcome(events.OUT_OF_MEMORY, text, model)
    kept = f" The model '{model}' is whole, but was not compared." if model else ""
    return Outcome(DIED, f"{_why_died(code)}{kept} {SAFE}", model)


def _why_died(code: int | None) -> str:
    if code is not None and code < 0:
        name = _signal_name(-code)
        text = f"The training was ended from outside ({name})."
        if name == "SIGKILL":
            text += " Linux does this when memory runs out: close other programs."
        return text
    return (
        f"The training ended by itself (exit code {code}); Help > Show logs has the "
        "details."
    )


def _signal_name(number: int) -> str:
    with contextlib.suppress(ValueError):
        return signal.Signals(number).name
    return f"signal {number}"
