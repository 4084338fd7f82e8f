"""Masks that are opened as images, and masks for images that are in no project."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from napari_cmunet.errors import CMUNetError, ReadError
from napari_cmunet.gui.export import source_file
from napari_cmunet.gui.images.layers import Frames
from napari_cmunet.gui.jobs import Job, JobRunner
from napari_cmunet.io.discovery import stem_of
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.files import looks_like_mask
from napari_cmunet.io.masks.foreign_masks import find_masks
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.labels.mask_matching import (
    fit_to_image,
    index_files,
    mask_name,
    mask_problem,
    pair,
)
from napari_cmunet.util.text import counted, some_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import numpy as np

    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.gui.images.open_images import OpenImages
    from napari_cmunet.gui.jobs import JobResult, Report, ShouldStop
    from napari_cmunet.gui.project.session import ProjectSession


class OpenedMasks:
    """Notices masks among the opened images, and loads masks for open images.

    Parameters
    ----------
    import_masks : callable
        Imports files of masks into the open project.
    make_project : callable
        Makes a project of open images, and imports files of masks into it.
    """

    def __init__(
        self,
        session: ProjectSession,
        import_masks: Callable[[list[Path]], None],
        make_project: Callable[[list[Path], Sequence[ImageState]], None],
    ) -> None:
        self._session = session
        self._import, self._make_project = import_masks, make_project
        self._jobs: list[Job] = []
        self._loading = JobRunner("Loading masks", failure="The masks cannot be loaded")

    def connect(self) -> None:
        """Look at the images that are opened, in whatever way."""
        self._session.controller.images.added.connect(self._on_added)

    def disconnect(self) -> None:
        """Stop looking: the panel is closed."""
        self._loading.cancel()
        self._session.controller.images.added.disconnect(self._on_added)

    # -- masks that are opened as images ----------------------------------------

    def _on_added(self, added: list[ImageState]) -> None:
        frames = {s: Frames.of(s.image) for s in added if s.unsupported is None}

        def look(report: Report, should_stop: ShouldStop) -> list[ImageState]:
            return [s for s, f in frames.items() if looks_like_mask(f[len(f) // 2])]

        def ended(outcome: JobResult) -> None:
            self._jobs.remove(job)
            # An image that cannot be read is reported by who segments it.
            if outcome.result:
                self._offer(outcome.result)

        if frames:
            job = Job("Looking for masks", look, ended)
            self._jobs.append(job)
            job.start()

    def _offer(self, states: list[ImageState]) -> None:
        """Offer what can be done with images that look like masks."""
        session = self._session
        open_now = session.controller.image_states
        masks = [s for s in states if s in open_now and source_file(s) is not None]
        if not masks:
            return
        names = masks[0].image.name
        if len(masks) > 1:
            names += f" and {len(masks) - 1} more"
        session.messages.ask(
            f"{names}: two grey values, as a mask has and no angiogram.",
            *self._choices(masks),
            ("Leave it", "It stays open as an image", None),
            about="masks",
            serious=False,
        )

    def _choices(
        self, masks: list[ImageState]
    ) -> list[tuple[str, str, Callable[[], None]]]:
        session = self._session
        after = session.messages.after_dismissing
        files = [path for s in masks if (path := source_file(s)) is not None]
        if session.workspace.writable is not None:
            tip = "See which image of the project it is for"
            act = partial(self._import, files)
            return [("Import as mask…", tip, after(act))]
        others = [s for s in session.controller.image_states if s not in masks]
        choices = []
        if (image := _image_of(masks[0], others)) is not None:

            def use() -> None:
                for mask in masks:
                    session.controller.close_image(mask)
                self.load(files, source_file(image))

            text = f"Use as the mask of {image.image.name}"
            choices.append((text, "It can be corrected, and undone", after(use)))
        tip = "Of the images of these masks; then see which mask is for which"
        make = partial(self._make_project, files, others)
        return [*choices, ("Make a project…", tip, after(make))]

    # -- masks for open images --------------------------------------------------

    def load(self, inputs: list[Path], shown: Path | None) -> None:
        """Load files as the masks of open images, in a worker.

        Parameters
        ----------
        shown : Path, optional
            The image that a single mask of any name is for.
        """
        states = {
            path: state
            for state in self._session.controller.image_states
            if state.unsupported is None and (path := source_file(state)) is not None
        }
        self._loading.start(
            partial(load_masks, inputs, list(states), shown),
            on_result=partial(self._on_loaded, states),
            on_error=self._session.messages.show_error,
        )

    def _on_loaded(self, states: dict[Path, ImageState], loaded: LoadedMasks) -> None:
        controller = self._session.controller
        found = [
            (state, mask)
            for mask in loaded.masks
            if (state := states[mask.path]) in controller.image_states
        ]
        show_masks(controller.images, found)
        text = ""
        if found:
            controller.show_image(found[-1][0])
            text = f"{counted(len(found), 'mask')} loaded, to be corrected or undone. "
        text += some_of(loaded.problems, 2)
        tip = "\n".join(loaded.problems)
        controller.show_message(text.strip(), failed=not found, tip=tip)


def _image_of(mask: ImageState, others: list[ImageState]) -> ImageState | None:
    """Return the image whose name a mask's begins with, or the only one of its size."""
    fit = [s for s in others if s.shape == mask.shape and source_file(s) is not None]
    named = [s for s in fit if _stem(mask).startswith(_stem(s))]
    if named:
        return max(named, key=lambda state: len(_stem(state)))
    return fit[0] if len(fit) == 1 else None


def _stem(image_state: ImageState) -> str:
    path = source_file(image_state)
    return "" if path is None else stem_of(path).casefold()


# -- masks of other programs for open images --------------------------------------


@dataclass(frozen=True)
class LoadedMask:
    """A mask that was read for an open image."""

    path: Path  # of the image
    name: str  # of the mask's file
    frames: dict[int, np.ndarray]  # bool (Y, X)
    provenance: Provenance


@dataclass
class LoadedMasks:
    """The masks that fit an open image, and why others do not."""

    masks: list[LoadedMask] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def load_masks(
    inputs: Sequence[Path],
    images: Sequence[Path],
    shown: Path | None,
    report: Report,
    should_stop: ShouldStop,
) -> LoadedMasks:
    """Read masks for open images, paired by name; for workers.

    Parameters
    ----------
    inputs : sequence of Path
        Files and folders of masks.
    images : sequence of Path
        The files of the open images.
    shown : Path, optional
        The image that a single mask of any name is for.
    """
    found = find_masks(inputs)
    loaded = LoadedMasks(problems=list(found.problems))
    with_uids = any(mask.source_uid for mask in found.masks)
    index = index_files({str(path): path for path in images}, with_uids=with_uids)
    for number, mask in enumerate(found.masks):
        if should_stop():
            break
        report(number, len(found.masks))
        try:
            try:
                key, mask = pair(index, mask)
                path = index.paths[key]
            except ReadError:
                if shown is None or len(found.masks) > 1 or mask.source_uid:
                    raise
                path = shown
            fitted = fit_to_image(mask, read_angiogram(path))
            made = replace(
                fitted.pages.provenance or Provenance(),
                imported_from=mask.kind,
                imported_sha256=mask.sha256(),
            )
        except (CMUNetError, OSError) as error:
            text = mask_problem(mask, error)
            loaded.problems.append(text.replace("of the project ", "that is open "))
            continue
        loaded.masks.append(LoadedMask(path, mask_name(mask), fitted.frames, made))
    return loaded


def show_masks(
    images: OpenImages, masks: Sequence[tuple[ImageState, LoadedMask]]
) -> None:
    """Let masks be those of open images, each frame in one undo step."""
    for image_state, mask in masks:
        for frame, pixels in mask.frames.items():
            image_state.own_masks[frame] = pixels.copy()
            image_state.origins[frame] = mask.provenance
            if image_state.usable_mask:
                image_state.replace(frame, pixels)
        if not image_state.usable_mask:
            images.add_mask(image_state)
