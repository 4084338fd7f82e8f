"""The models that a project used one after the other: ``models/current.json``."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Annotated, Any

from pydantic import AfterValidator, Field, StrictBool, TypeAdapter

from napari_cmunet.errors import ProjectDamagedError, ProjectError
from napari_cmunet.model.card import is_model_name
from napari_cmunet.model.registry import DEFAULT_MODEL
from napari_cmunet.project.files import CURRENT, MODELS
from napari_cmunet.util.text import validate

_MAX_LENGTH = 10_000


def check_model_name(name: str) -> str:
    """Return a name that a model may have; raises ProjectError."""
    if not isinstance(name, str) or not is_model_name(name):
        raise ProjectError(
            "A model's name has letters, digits, dots and dashes alone, 64 at most."
        )
    return name


def _valid_name(name: str) -> str:
    if not is_model_name(name):
        raise ValueError("not a model name")
    return name


ModelName = Annotated[str, AfterValidator(_valid_name)]


@dataclass(frozen=True)
class ModelVersion:
    """A model that was or is in use."""

    name: ModelName
    #: Of its weights; empty if not checked.
    sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""
    #: Whether it comes with the program or was imported, and is not in the project.
    installed: StrictBool = False


@dataclass(frozen=True)
class ModelHistory:
    """The models in use one after the other, and the position of the current one."""

    versions: tuple[ModelVersion, ...] = (ModelVersion(DEFAULT_MODEL, "", True),)
    position: int = 0

    @property
    def current(self) -> ModelVersion:
        """The model in use."""
        return self.versions[self.position]

    @property
    def can_go_back(self) -> bool:
        """Whether there is an older one."""
        return self.position > 0

    @property
    def can_go_forward(self) -> bool:
        """Whether there is a newer one, after going back."""
        return self.position + 1 < len(self.versions)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        listed = [asdict(v) for v in self.versions]
        return {"history": listed, "position": self.position}

    def with_next(self, version: ModelVersion) -> ModelHistory:
        """Return the history after a promotion; later versions are dropped."""
        past = self.versions[: self.position + 1][-_MAX_LENGTH + 1 :]
        return ModelHistory((*past, version), len(past))

    def moved(self, by: int) -> ModelHistory:
        """Return the history moved back or forward; raises ProjectError at its ends."""
        if not 0 <= self.position + by < len(self.versions):
            kind = "an older" if by < 0 else "a newer"
            raise ProjectError(f"There is no {kind} model to go to.")
        return ModelHistory(self.versions, self.position + by)


@dataclass
class _File:
    history: Annotated[
        tuple[ModelVersion, ...], Field(min_length=1, max_length=_MAX_LENGTH)
    ]
    position: Annotated[int, Field(strict=True, ge=0)]


_FILE = TypeAdapter(_File)


def history_from(values: dict[str, Any] | None) -> ModelHistory:
    """Return the history of a file's values; raises ProjectDamagedError."""
    if values is None:
        return ModelHistory()
    try:
        file = validate(_FILE, values)
        if file.position >= len(file.history):
            raise ValueError("a bad position")
    except ValueError as error:
        raise ProjectDamagedError(
            f"In the project, {MODELS}/{CURRENT} is damaged ({error})."
        ) from error
    return ModelHistory(file.history, file.position)
