"""What happens to the work when a panel, its dock or its window goes.

Called by Qt, when the panel itself may be half gone: nobody here holds it.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import weakref

    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.panel import CMUNetPanel
    from napari_cmunet.gui.project.session import ProjectSession


def may_close(panel: weakref.ref[CMUNetPanel]) -> bool:
    """Whether a project may be closed: a panel that is still there asks."""
    found = panel()
    return found is None or found.may_end_training()


def shut(project: weakref.ref[ProjectSession]) -> None:
    """A window has gone: its project is let go."""
    if (reader := project()) is not None:
        reader.shut()


def let_go(controller: Controller, project: ProjectSession) -> None:
    """A panel has gone, perhaps with its window."""
    # When the program ends, Qt may have deleted the controller's timers already.
    with suppress(RuntimeError):
        if controller.attached:  # or else the dock was closed before, and is not missed
            project.changed.disconnect()
            project.shut()
        controller.detach()
