"""The message and the alert of the project section, with the actions offered.

Each function below shows one alert. An action that only closes it does nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from psygnal import Signal

from napari_cmunet.errors import ImageMissingError, ProjectDamagedError, WriteError
from napari_cmunet.project.files import LOCK
from napari_cmunet.project.lock import ProjectLockedError
from napari_cmunet.project.models.promotion import REFUSED, UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.project.models.promotion import TrainingResult

    Act = Callable[[], None]


@dataclass(frozen=True)
class Action:
    """A button of an alert."""

    text: str
    tip: str
    act: Act


@dataclass(frozen=True)
class Alert:
    """A text with buttons, shown until one is pressed or the cause has gone."""

    text: str
    actions: tuple[Action, ...] = ()
    about: str = ""  # subject, so that it can be dismissed: ``image``, ``draft``, …
    serious: bool = False  # whether something failed


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

    def ask(
        self,
        text: str,
        *actions: tuple[str, str, Act | None],
        about: str,
        serious: bool = True,
    ) -> None:
        """Show an alert with actions: text, tooltip, and what to do but close it."""
        self.show_alert(
            Alert(
                text,
                tuple(Action(t, tip, act or self.dismiss) for t, tip, act in actions),
                about,
                serious,
            )
        )

    def after_dismissing(self, act: Act) -> Act:
        """An action that first hides the alert."""

        def acted() -> None:
            self.dismiss()
            act()

        return acted

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


_SHOW = ("Show the folder…", "Choose the folder of the images, or one above it")


def project_not_opened(
    messages: Messages, error: Exception, open_with: Callable[..., None]
) -> None:
    """The project is in use, damaged, or no project.

    Parameters
    ----------
    open_with : callable
        Opens it again; called with ``read_only``, ``take_over`` or ``salvage``.
    """
    actions: list[tuple[str, str, Act | None]] = []
    # A lock that cannot be written is on a disk that can only be read.
    on_read_only_disk = isinstance(error, WriteError) and error.path.name == LOCK
    if isinstance(error, ProjectLockedError) or on_read_only_disk:
        tip = "Look at the project; nothing can be changed"
        actions += [("Open for reading", tip, partial(open_with, read_only=True))]
    if isinstance(error, ProjectLockedError):
        tip = (
            "Work on it here. The other window can then write nothing more; what was "
            "accepted there is safe"
        )
        actions += [("Take over", tip, partial(open_with, take_over=True))]
    elif isinstance(error, ProjectDamagedError):
        tip = "Keep the damaged file under another name and open the rest"
        actions += [("Save what can be saved", tip, partial(open_with, salvage=True))]
    actions += [("Close", "Do nothing", None)]
    messages.ask(str(error), *actions, about="opening")


def images_missing(
    messages: Messages, missing: int, count: int, found: int, show: Act
) -> None:
    """Image files are missing."""
    begin = f"{found} images were found there. " if found else ""
    which = "An image is" if missing == 1 else f"{missing} of {count} images are"
    messages.ask(
        f"{begin}{which} not where the project looks for them. Connect the disk or "
        "choose the folder that they are in now.",
        (*_SHOW, show),
        ("Later", "Go on with the images that are there", None),
        about="missing",
    )


def image_not_opened(
    messages: Messages,
    name: str,
    error: Exception,
    *,
    show: Act,
    go_on: Act,
    skip: Act,
    again: Act,
) -> None:
    """One image cannot be opened."""
    text = f"{name} cannot be opened. {error}"
    first: tuple[tuple[str, str, Act], ...] = ()
    if isinstance(error, ImageMissingError):
        text = (
            f"{name} is not where the project looks for it. Connect its disk, or show "
            "the folder that it is in now."
        )
        first = ((*_SHOW, show),)
    messages.ask(
        text,
        *first,
        (
            "Next image",
            "Open the next one without a label",
            messages.after_dismissing(go_on),
        ),
        (
            "Skip it",
            "Leave this image out of the project's work (W)",
            messages.after_dismissing(skip),
        ),
        ("Try again", "Open this one again", again),
        about="image",
    )


def not_saved(messages: Messages, problem: str, again: Act, without: Act) -> None:
    """Corrections cannot be saved before the image is left."""
    messages.ask(
        f"Your corrections to this image cannot be saved: {problem}",
        ("Try again", "Save them, then go on", messages.after_dismissing(again)),
        (
            "Leave without them",
            "Go on; the corrections since the last acceptance are lost",
            messages.after_dismissing(without),
        ),
        ("Stay", "Stay with this image", None),
        about="draft",
    )


def mask_is_empty(messages: Messages, accept: Act) -> None:
    """An empty mask is to be accepted."""
    messages.ask(
        "The mask is empty. Is there no artery in this frame?",
        ("No artery: accept", "The empty mask is the label", accept),
        ("Go on correcting", "Accept nothing yet", None),
        about="accept",
        serious=False,
    )


def mask_is_large(messages: Messages, percent: int, accept: Act) -> None:
    """More of a mask is artery than can be right."""
    messages.ask(
        f"{percent} % of this frame is marked as artery, more than a third. A model "
        "would learn from that.",
        ("Go on correcting", "Correct the mask first", None),
        ("Accept it", "So much of this frame is artery", accept),
        about="accept",
        serious=False,
    )


def not_accepted(messages: Messages, problem: str, again: Act, reopen: Act) -> None:
    """A label could not be written."""
    messages.ask(
        f"Not accepted: {problem} The mask is still in the window.",
        ("Try again", "Accept once more", again),
        ("Open the project again", "Close it and open it anew, from the disk", reopen),
        about="accept",
    )


def project_beside(messages: Messages, name: str, open_it: Act, make: Act) -> None:
    """A folder of angiograms has a project already."""
    messages.ask(
        f"There is a project of this folder already: {name}.",
        ("Open it", "Go on where you left off", open_it),
        ("Make another one…", "Begin anew; that one stays", make),
        ("Close", "Do nothing", None),
        about="opening",
        serious=False,
    )


def training_ended(messages: Messages, result: TrainingResult, look: Act) -> None:
    """A training is over; nothing is shown where what followed is seen anyway."""
    text = {
        UNDECIDED: f"Fine-tuning has finished. Whether {result.model} is better cannot "
        "be told: look at what it would change, and decide.",
        REFUSED: f"Fine-tuning has finished. {result.model} is not better, so it is "
        "not used.",
    }.get(result.decision)
    if result.failed:
        text = "Fine-tuning has failed. Your labels are safe."
    if text is not None and (messages.alert is None or not messages.alert.serious):
        messages.ask(
            text,
            ("Show me", "Go to the section Fine-tune", look),
            ("Later", "Go on correcting", None),
            about="training",
            serious=result.failed,
        )


def no_image(messages: Messages, add: Act) -> None:
    """A project without images."""
    messages.ask(
        "The project has no image yet.",
        ("Add a folder of images…", "Choose a folder of angiograms", add),
        ("Later", "Leave it empty for now", None),
        about="missing",
        serious=False,
    )


def no_files(messages: Messages) -> None:
    """The images that are open come from no file."""
    messages.ask(
        "The open images come from no file, so a project cannot refer to them. Save "
        "them as TIFF and open that, or choose a folder.",
        ("Close", "Do nothing", None),
        about="opening",
        serious=False,
    )
