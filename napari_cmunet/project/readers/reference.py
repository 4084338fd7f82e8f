"""The reference labels of a project: those that models learn from and exports hold.

Of each frame that is the reviewer's label; without one, the label of the only reader
who has one that is not rejected. A frame that several readers have labelled waits for
the reviewer's decision. With one reader, these are that reader's labels.

The reviewer rejects a version of a label, by the hash of its file, with a reason, in
``reviews.json``. The reason may name people: it goes into no export and not into the
journal.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter

from napari_cmunet.project.files import Table
from napari_cmunet.project.flags import MAX_COMMENT
from napari_cmunet.project.readers.readers import REVIEWER
from napari_cmunet.project.training.labels import LabelCollection

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.files import FrameKey
    from napari_cmunet.project.images import ProjectImages
    from napari_cmunet.project.labels.labels import ProjectLabels
    from napari_cmunet.project.lock import ProjectContext
    from napari_cmunet.project.patients import Split


@dataclass(frozen=True)
class Rejection:
    """Why a version of a label is not used."""

    reason: Annotated[str, Field(max_length=MAX_COMMENT)] = ""
    time: Annotated[str, Field(max_length=40)] = ""  # UTC


_REJECTED = TypeAdapter(dict[str, Rejection])


class ReviewTable(Table[Rejection]):
    """The rejections of a project by the hashes of labels, ``reviews.json``."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, "rejected", _REJECTED)

    def __bool__(self) -> bool:
        return bool(self._values)

    def recall(self, rejected: Iterable[str]) -> None:
        """Take over rejections from the journal, in memory; the reasons are lost."""
        self._values = {sha256: Rejection() for sha256 in rejected}

    def rejection(self, sha256: str | None) -> Rejection | None:
        """Return why a label is rejected, None if it is not."""
        return self._values.get(sha256 or "")

    def reject(self, sha256: str, reason: str) -> None:
        """Reject a version of a label and write the file; raises WriteError."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        made = Rejection(reason.strip()[:MAX_COMMENT], now)
        self.save(self._values | {sha256: made})

    def admit(self, sha256: str) -> None:
        """Undo a rejection and write the file; raises WriteError."""
        self.save({k: v for k, v in self._values.items() if k != sha256})


class ReferenceLabels(LabelCollection):
    """The reference labels of a project.

    Parameters
    ----------
    readers : dict of str to ProjectLabels
        By code; the first reader's is empty.
    """

    def __init__(
        self,
        context: ProjectContext,
        images: ProjectImages,
        split: Split,
        readers: Mapping[str, ProjectLabels],
        reviews: ReviewTable,
    ) -> None:
        super().__init__(context, images, split)
        self._readers, self._reviews = readers, reviews

    def readings(self) -> dict[FrameKey, tuple[str, ...]]:
        """Return, by frame, the readers whose label is not rejected."""
        found: dict[FrameKey, tuple[str, ...]] = {}
        for reader, labels in self._readers.items():
            if reader != REVIEWER:
                for key in labels.keys():
                    if not self._reviews.rejection(labels.hash(*key)):
                        found[key] = (*found.get(key, ()), reader)
        return found

    def decided(self) -> set[FrameKey]:
        """Return the frames that have the reviewer's label."""
        return self._readers[REVIEWER].keys() if REVIEWER in self._readers else set()

    def waiting(self) -> set[FrameKey]:
        """Return the frames that wait for the reviewer's decision."""
        several = {key for key, readers in self.readings().items() if len(readers) > 1}
        return several - self.decided()

    def waiting_notice(self) -> str:
        """Return a sentence on the frames that wait; empty if there are none."""
        count = len(self.waiting())
        if not count:
            return ""
        if count == 1:
            return (
                "1 frame that several readers have labelled waits for the reviewer's "
                "decision; it is left out."
            )
        return (
            f"{count} frames that several readers have labelled wait for the "
            "reviewer's decision; they are left out."
        )

    def _chosen(self) -> dict[FrameKey, ProjectLabels]:
        with self._context.reading():
            if len(self._readers) == 1 and not self._reviews:
                ((_, labels),) = self._readers.items()
                return dict.fromkeys(labels.keys(), labels)
            only = {k: r[0] for k, r in self.readings().items() if len(r) == 1}
            only |= dict.fromkeys(self.decided(), REVIEWER)
            return {key: self._readers[reader] for key, reader in only.items()}

    def keys(self) -> set[FrameKey]:
        """Return the frames that have a reference label."""
        return set(self._chosen())

    def hashes(self) -> set[str]:
        """Return the hashes of all reference labels' files."""
        chosen = self._chosen().items()
        return {h for key, labels in chosen if (h := labels.hash(*key))}

    def patients(self) -> set[str]:
        """Return the patients that have a reference label."""
        images = {image for image, _ in self._chosen()}
        return {self._images[i].patient for i in images if i in self._images}

    def source(self, image: str, frame: int) -> ProjectLabels | None:
        """Return whose label a frame's reference label is; None if it has none."""
        return self._chosen().get((image, frame))

    def get(self, image: str, frame: int) -> Label | None:
        """Return the reference label of a frame, None if it has none."""
        labels = self.source(image, frame)
        return None if labels is None else labels.get(image, frame)

    def read_file(self, image: str, frame: int) -> tuple[Label, str] | None:
        """Read a label and the hash of the same file, None if there is none."""
        labels = self.source(image, frame)
        return None if labels is None else labels.read_file(image, frame)
