"""What the reader noted about images: skipped, flagged, a comment."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from napari_cmunet.project.errors import ProjectDamagedError
from napari_cmunet.project.files import is_image_id, read_json, write_json

if TYPE_CHECKING:
    from pathlib import Path

MAX_COMMENT = 2000


@dataclass(frozen=True)
class ImageFlags:
    """What is noted about one image.

    A comment may name people: it stays in the project and goes into no export or journal.
    """

    skipped: bool = False
    flagged: bool = False
    comment: str = ""


class FlagTable:
    """The marks of a project.

    Parameters
    ----------
    path : Path
        ``marks.json``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._marks: dict[str, ImageFlags] = {}

    def load(self) -> None:
        """Read the file; raises ProjectDamagedError."""
        images = (read_json(self.path) or {}).get("images", {})
        try:
            self._marks = {k: _mark(k, v) for k, v in images.items()}
        except (AttributeError, TypeError, ValueError) as error:
            raise ProjectDamagedError(
                f"In the project, {self.path.name} is damaged ({error})."
            ) from error

    def recall(self, marks: dict[str, ImageFlags]) -> None:
        """Take over marks from the journal; nothing is written."""
        self._marks = {k: v for k, v in marks.items() if v != ImageFlags()}

    def __getitem__(self, image: str) -> ImageFlags:
        return self._marks.get(image, ImageFlags())

    def change(self, image: str, **changes: Any) -> ImageFlags:
        """Change an image's mark and write the file; raises WriteError."""
        mark = replace(self[image], **changes)
        marks = {k: v for k, v in self._marks.items() if k != image}
        if mark != ImageFlags():
            marks[image] = mark
        self._write(marks)
        self._marks = marks
        return mark

    def save(self) -> None:
        """Write what is known; raises WriteError."""
        self._write(self._marks)

    def _write(self, marks: dict[str, ImageFlags]) -> None:
        values = {k: asdict(v) for k, v in marks.items()}
        write_json(self.path, {"version": 1, "images": values})


def _mark(image: str, values: dict[str, Any]) -> ImageFlags:
    if not is_image_id(image):
        raise ValueError("a bad id")
    mark = ImageFlags(
        **{k: v for k, v in values.items() if k in ImageFlags.__dataclass_fields__}
    )
    kinds = (type(mark.skipped), type(mark.flagged), type(mark.comment))
    if kinds != (bool, bool, str):
        raise ValueError("a bad mark")
    return replace(mark, comment=mark.comment[:MAX_COMMENT])
