"""What the reader is told when something cannot go on by itself, and the ways out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from napari_cmunet.errors import WriteError
from napari_cmunet.project.errors import (
    ImageMissingError,
    ProjectDamagedError,
    ProjectLockedError,
)
from napari_cmunet.project.files import LOCK
from napari_cmunet.project.promotion import REFUSED, UNDECIDED

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.project.promotion import TrainingResult

    Act = Callable[[], None]


@dataclass(frozen=True)
class Way:
    """One way out: a button."""

    text: str
    tip: str
    act: Callable[[], None]


@dataclass(frozen=True)
class Notice:
    """What is said until the reader has chosen a way, or all is well again.

    Parameters
    ----------
    text : str
    ways : tuple of Way
    about : str
        What it is about, so that it can be taken back: ``image``, ``draft``, …
    serious : bool
        Whether something did not work.
    """

    text: str
    ways: tuple[Way, ...] = ()
    about: str = ""
    serious: bool = False


def project_not_opened(
    reader: ProjectSession, folder: Path, error: Exception
) -> Notice:
    """Another window has it, it is damaged, or it is none."""
    ways: tuple[Way, ...] = ()
    if isinstance(error, ProjectLockedError):
        ways = (
            Way(
                "Open for reading",
                "Look at the project; nothing can be changed",
                partial(reader.open, folder, read_only=True),
            ),
            Way(
                "Take over",
                "Work on it here. The other window can then write nothing more; what "
                "was accepted there is safe",
                partial(reader.open, folder, take_over=True),
            ),
        )
    elif isinstance(error, WriteError) and error.path.name == LOCK:
        # It is there, on a disk that can only be read.
        ways = (
            Way(
                "Open for reading",
                "Look at the project; nothing can be changed",
                partial(reader.open, folder, read_only=True),
            ),
        )
    elif isinstance(error, ProjectDamagedError):
        ways = (
            Way(
                "Save what can be saved",
                "Keep the damaged file under another name and open the rest",
                partial(reader.open, folder, salvage=True),
            ),
        )
    close = Way("Close", "Do nothing", reader.dismiss)
    return Notice(str(error), (*ways, close), about="opening", serious=True)


def images_missing(
    reader: ProjectSession, missing: int, count: int, found: int = 0
) -> Notice:
    """Images are not where the project looks for them."""
    begin = f"{found} images were found there. " if found else ""
    which = "An image is" if missing == 1 else f"{missing} of {count} images are"
    return Notice(
        f"{begin}{which} not where the project looks for them. Connect the disk, or show "
        "the folder that they are in now.",
        (
            _show(reader.images_wanted.emit),
            Way("Later", "Go on with the images that are there", reader.dismiss),
        ),
        about="missing",
        serious=True,
    )


def image_not_opened(
    name: str, error: Exception, *, show: Act, go_on: Act, skip: Act, again: Act
) -> Notice:
    """One image cannot be opened."""
    ways = (
        Way("Next image", "Open the next one without a label", go_on),
        Way("Skip it", "Leave this image out of the project's work (W)", skip),
        Way("Try again", "Open this one again", again),
    )
    text = f"{name} cannot be opened. {error}"
    if isinstance(error, ImageMissingError):
        text = (
            f"{name} is not where the project looks for it. Connect its disk, or show "
            "the folder that it is in now."
        )
        ways = (_show(show), *ways)
    return Notice(text, ways, about="image", serious=True)


def _show(act: Act) -> Way:
    tip = "Choose the folder of the images, or one above it"
    return Way("Show the folder…", tip, act)


def not_saved(problem: str, *, again: Act, without: Act, stay: Act) -> Notice:
    """Strokes cannot be saved, and the reader wants to leave."""
    return Notice(
        f"Your corrections to this image cannot be saved: {problem}",
        (
            Way("Try again", "Save them, then go on", again),
            Way(
                "Leave without them",
                "Go on; the corrections since the last acceptance are lost",
                without,
            ),
            Way("Stay", "Stay with this image", stay),
        ),
        about="draft",
        serious=True,
    )


def mask_is_empty(accept: Act, go_on: Act) -> Notice:
    """An empty mask is to be accepted."""
    return Notice(
        "The mask is empty. Is there no artery in this frame?",
        (
            Way("No artery: accept", "The empty mask is the label", accept),
            Way("Go on correcting", "Accept nothing yet", go_on),
        ),
        about="accept",
    )


def not_accepted(problem: str, again: Act, reopen: Act) -> Notice:
    """A label could not be written."""
    return Notice(
        f"Not accepted: {problem} The mask is still in the window.",
        (
            Way("Try again", "Accept once more", again),
            Way(
                "Open the project again",
                "Close it and open it anew, from the disk",
                reopen,
            ),
        ),
        about="accept",
        serious=True,
    )


def project_beside(name: str, *, open_it: Act, make: Act, close: Act) -> Notice:
    """A folder of angiograms has a project already."""
    return Notice(
        f"There is a project of this folder already: {name}.",
        (
            Way("Open it", "Go on where you left off", open_it),
            Way("Make another one…", "Begin anew; that one stays", make),
            Way("Close", "Do nothing", close),
        ),
        about="opening",
    )


def training_ended(result: TrainingResult, look: Act, close: Act) -> Notice | None:
    """A training is over; None where what followed from it is seen anyway."""
    name = result.model
    text = {
        UNDECIDED: f"The fine-tuning is over. Nobody can tell yet whether {name} is "
        "better: look at what it would change, and decide.",
        REFUSED: f"The fine-tuning is over. {name} is not better, so it is not used.",
    }.get(result.decision)
    if result.failed:
        text = "The fine-tuning has failed. Your labels are safe."
    if text is None:
        return None
    return Notice(
        text,
        (
            Way("Show me", "Go to the section Fine-tune", look),
            Way("Later", "Go on correcting", close),
        ),
        about="training",
        serious=result.failed,
    )


def no_image(add: Act, close: Act) -> Notice:
    """A project without images."""
    return Notice(
        "The project has no image yet.",
        (
            Way("Add a folder of images…", "Choose a folder of angiograms", add),
            Way("Later", "Leave it empty for now", close),
        ),
        about="missing",
    )


def no_files(close: Act) -> Notice:
    """The images that are open come from no file."""
    return Notice(
        "The open images come from no file, so a project cannot refer to them. Save them "
        "as TIFF and open that, or choose a folder.",
        (Way("Close", "Do nothing", close),),
        about="opening",
    )
