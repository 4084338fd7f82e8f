"""What the user noted about images: skipped, flagged, inverted, a comment."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, StrictBool, TypeAdapter

from napari_cmunet.project.files import Table, is_image_id

if TYPE_CHECKING:
    from pathlib import Path

MAX_COMMENT = 2000


@dataclass(frozen=True)
class ImageFlags:
    """The notes on one image.

    A comment may name people: it does not go into the journal, and into an export only
    with the images' own names.
    """

    skipped: StrictBool = False
    flagged: StrictBool = False
    inverted: StrictBool | None = None  # grey values; None: as its labels say
    comment: Annotated[str, AfterValidator(lambda text: text[:MAX_COMMENT])] = ""


def _image_id(value: str) -> str:
    if not is_image_id(value):
        raise ValueError("a bad image id")
    return value


_FLAGS = TypeAdapter(dict[Annotated[str, AfterValidator(_image_id)], ImageFlags])


@dataclass(frozen=True)
class ImageStatus:
    """The state of an image: ``labelled``, ``rejected``, ``skipped`` or ``unseen``."""

    state: str
    frames: tuple[int, ...]  # those with a label
    flagged: bool
    comment: str


@dataclass(frozen=True)
class ProjectProgress:
    """The progress of a project, in images; ``str()`` is for people."""

    images: int
    labelled: int
    skipped: int
    flagged: int
    frames: int = 0  # with a label

    @property
    def left(self) -> int:
        """Images that have no label and are not skipped."""
        return self.images - self.labelled - self.skipped

    def __str__(self) -> str:
        parts = [f"{self.labelled} of {self.images}"]
        parts += [f"{self.skipped} skipped"] if self.skipped else []
        parts += [f"{self.flagged} flagged"] if self.flagged else []
        return ", ".join(parts)


class FlagTable(Table[ImageFlags]):
    """The notes on all images of a project, ``flags.json``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "images", _FLAGS)

    def recall(self, flags: dict[str, ImageFlags]) -> None:
        """Take over flags from the journal, in memory."""
        self._values = {k: v for k, v in flags.items() if v != ImageFlags()}

    def __getitem__(self, image: str) -> ImageFlags:
        return self._values.get(image, ImageFlags())

    def change(self, image: str, **changes: Any) -> None:
        """Change the flags of an image and write the file; raises WriteError."""
        changed = {image: replace(self[image], **changes)}
        flags = self._values | changed
        self.save({k: v for k, v in flags.items() if v != ImageFlags()})
