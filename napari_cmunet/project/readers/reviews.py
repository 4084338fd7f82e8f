"""Labels that the reviewer rejected, with the reason, in ``reviews.json``.

A rejection is about one version of a label, by the hash of its file. The reason may
name people: it goes into no export and not into the journal.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, TypeAdapter

from napari_cmunet.project.files import read_valid
from napari_cmunet.project.flags import MAX_COMMENT
from napari_cmunet.util.atomic import write_json

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


@dataclass(frozen=True)
class Rejection:
    """Why a version of a label is not used."""

    reason: Annotated[str, Field(max_length=MAX_COMMENT)] = ""
    time: Annotated[str, Field(max_length=40)] = ""  # UTC


@dataclass
class _File:
    rejected: dict[str, Rejection] = field(default_factory=dict)


_FILE = TypeAdapter(_File)


class ReviewTable:
    """The rejections of a project.

    Parameters
    ----------
    path : Path
        ``reviews.json``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rejected: dict[str, Rejection] = {}

    def __bool__(self) -> bool:
        return bool(self._rejected)

    def load(self) -> None:
        """Read the file; raises ProjectDamagedError."""
        self._rejected = read_valid(self.path, _FILE).rejected

    def recall(self, rejected: Iterable[str]) -> None:
        """Take over rejections from the journal, in memory; the reasons are lost."""
        self._rejected = {sha256: Rejection() for sha256 in rejected}

    def rejection(self, sha256: str | None) -> Rejection | None:
        """Return why a label is rejected, None if it is not."""
        return self._rejected.get(sha256 or "")

    def reject(self, sha256: str, reason: str) -> None:
        """Reject a version of a label and write the file; raises WriteError."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        made = Rejection(reason.strip()[:MAX_COMMENT], now)
        self._write(self._rejected | {sha256: made})

    def admit(self, sha256: str) -> None:
        """Undo a rejection and write the file; raises WriteError."""
        self._write({k: v for k, v in self._rejected.items() if k != sha256})

    def save(self) -> None:
        """Write the file; raises WriteError."""
        self._write(self._rejected)

    def _write(self, rejected: dict[str, Rejection]) -> None:
        values = {sha256: asdict(rejection) for sha256, rejection in rejected.items()}
        write_json(self.path, {"version": 1, "rejected": values})
        self._rejected = rejected
