"""The message and the alert of the project section, with the actions offered."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cmunet.errors import ImageMissingError, ProjectDamagedError, WriteError
from napari_cmunet.project.files import LOCK
from napari_cmunet.project.lock import ProjectLockedError
from napari_cmunet.project.promotion import REFUSED, UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.project.promotion import TrainingResult

    Act = Callable[[], None]


@dataclass(frozen=True)
class Action:
    """A button of an alert."""

    text: str
    tip: str
    act: Act


@dataclass(frozen=True)
class Alert:
    """A text with buttons, shown until one is pressed or the cause has gone.

    Parameters
    ----------
    about : str
        Subject, so that it can be dismissed: ``image``, ``draft``, …
    serious : bool
        Whether something failed.
    """

    text: str
    actions: tuple[Action, ...] = ()
    about: str = ""
    serious: bool = False


class Messages:
    """The message and the alert that the project section shows."""

    #: Another message or alert is shown.
    changed = Signal()

    def __init__(self) -> None:
        self.text = ""
        self._tip = ("", "")
        self.alert: Alert | None = None

    def show(self, text: str, tip: str = "") -> None:
        """Show a line until the next one, with an optional tooltip."""
        self.text, self._tip = text, (text, tip)
        self.changed.emit()

    @property
    def tip(self) -> str:
        """Tooltip of the line that is shown."""
        text, tip = self._tip
        return tip if text == self.text else ""

    def show_alert(self, alert: Alert) -> None:
        """Show an alert in place of the one before."""
        self.alert = alert
        self.changed.emit()

    def show_error(self, error: object, about: str = "") -> None:
        """Show an error without actions."""
        self.show_alert(Alert(str(error), about=about, serious=True))

    def dismiss(self, about: str = "") -> None:
        """Hide the alert, or only one on this subject."""
        if self.alert is not None and about in ("", self.alert.about):
            self.alert = None
            self.changed.emit()

    def clear(self, text: str = "") -> None:
        """Hide the alert and replace the message without notifying anyone."""
        self.alert, self.text = None, text


def project_not_opened(
    error: Exception, open_with: Callable[..., None], close: Act
) -> Alert:
    """The project is in use, damaged, or no project.

    Parameters
    ----------
    open_with : callable
        Opens it again; called with ``read_only``, ``take_over`` or ``salvage``.
    """
    actions: tuple[Action, ...] = ()
    if isinstance(error, ProjectLockedError):
        actions = (
            Action(
                "Open for reading",
                "Look at the project; nothing can be changed",
                partial(open_with, read_only=True),
            ),
            Action(
                "Take over",
                "Work on it here. The other window can then write nothing more; what "
                "was accepted there is safe",
                partial(open_with, take_over=True),
            ),
        )
    elif isinstance(error, WriteError) and error.path.name == LOCK:
        # It is there, on a disk that can only be read.
        actions = (
            Action(
                "Open for reading",
                "Look at the project; nothing can be changed",
                partial(open_with, read_only=True),
            ),
        )
    elif isinstance(error, ProjectDamagedError):
        actions = (
            Action(
                "Save what can be saved",
                "Keep the damaged file under another name and open the rest",
                partial(open_with, salvage=True),
            ),
        )
    actions = (*actions, Action("Close", "Do nothing", close))
    return Alert(str(error), actions, about="opening", serious=True)


def images_missing(
    missing: int, count: int, found: int = 0, *, show: Act, later: Act
) -> Alert:
    """Image files are missing."""
    begin = f"{found} images were found there. " if found else ""
    which = "An image is" if missing == 1 else f"{missing} of {count} images are"
    return Alert(
        f"{begin}{which} not where the project looks for them. Connect the disk or "
        "choose the folder that they are in now.",
        (
            _show(show),
            Action("Later", "Go on with the images that are there", later),
        ),
        about="missing",
        serious=True,
    )


def image_not_opened(
    name: str, error: Exception, *, show: Act, go_on: Act, skip: Act, again: Act
) -> Alert:
    """One image cannot be opened."""
    actions: tuple[Action, ...] = (
        Action("Next image", "Open the next one without a label", go_on),
        Action("Skip it", "Leave this image out of the project's work (W)", skip),
        Action("Try again", "Open this one again", again),
    )
    text = f"{name} cannot be opened. {error}"
    if isinstance(error, ImageMissingError):
        text = (
            f"{name} is not where the project looks for it. Connect its disk, or show "
            "the folder that it is in now."
        )
        actions = (_show(show), *actions)
    return Alert(text, actions, about="image", serious=True)


def _show(act: Act) -> Action:
    tip = "Choose the folder of the images, or one above it"
    return Action("Show the folder…", tip, act)


def not_saved(problem: str, *, again: Act, without: Act, stay: Act) -> Alert:
    """Corrections cannot be saved before the image is left."""
    return Alert(
        f"Your corrections to this image cannot be saved: {problem}",
        (
            Action("Try again", "Save them, then go on", again),
            Action(
                "Leave without them",
                "Go on; the corrections since the last acceptance are lost",
                without,
            ),
            Action("Stay", "Stay with this image", stay),
        ),
        about="draft",
        serious=True,
    )


def mask_is_empty(accept: Act, go_on: Act) -> Alert:
    """An empty mask is to be accepted."""
    return Alert(
        "The mask is empty. Is there no artery in this frame?",
        (
            Action("No artery: accept", "The empty mask is the label", accept),
            Action("Go on correcting", "Accept nothing yet", go_on),
        ),
        about="accept",
    )


def mask_is_large(percent: int, accept: Act, go_on: Act) -> Alert:
    """More of a mask is artery than can be right."""
    return Alert(
        f"{percent} % of this frame is marked as artery, more than a third. A model "
        "would learn from that.",
        (
            Action("Go on correcting", "Correct the mask first", go_on),
            Action("Accept it", "So much of this frame is artery", accept),
        ),
        about="accept",
    )


def not_accepted(problem: str, again: Act, reopen: Act) -> Alert:
    """A label could not be written."""
    return Alert(
        f"Not accepted: {problem} The mask is still in the window.",
        (
            Action("Try again", "Accept once more", again),
            Action(
                "Open the project again",
                "Close it and open it anew, from the disk",
                reopen,
            ),
        ),
        about="accept",
        serious=True,
    )


def project_beside(name: str, *, open_it: Act, make: Act, close: Act) -> Alert:
    """A folder of angiograms has a project already."""
    return Alert(
        f"There is a project of this folder already: {name}.",
        (
            Action("Open it", "Go on where you left off", open_it),
            Action("Make another one…", "Begin anew; that one stays", make),
            Action("Close", "Do nothing", close),
        ),
        about="opening",
    )


def training_ended(result: TrainingResult, look: Act, close: Act) -> Alert | None:
    """A training is over; None where what followed from it is seen anyway."""
    name = result.model
    text = {
        UNDECIDED: "Fine-tuning has finished. There are not enough patients to compare "
        f"{name}: look at what it would change, and decide.",
        REFUSED: f"Fine-tuning has finished. {name} is not better, so it is not used.",
    }.get(result.decision)
    if result.failed:
        text = "Fine-tuning has failed. Your labels are safe."
    if text is None:
        return None
    return Alert(
        text,
        (
            Action("Show me", "Go to the section Fine-tune", look),
            Action("Later", "Go on correcting", close),
        ),
        about="training",
        serious=result.failed,
    )


def no_image(add: Act, close: Act) -> Alert:
    """A project without images."""
    return Alert(
        "The project has no image yet.",
        (
            Action("Add a folder of images…", "Choose a folder of angiograms", add),
            Action("Later", "Leave it empty for now", close),
        ),
        about="missing",
    )


def no_files(close: Act) -> Alert:
    """The images that are open come from no file."""
    return Alert(
        "The open images come from no file, so a project cannot refer to them. Save "
        "them as TIFF and open that, or choose a folder.",
        (Action("Close", "Do nothing", close),),
        about="opening",
    )
