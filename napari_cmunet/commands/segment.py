"""``segment``: one mask TIFF for each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.atomic import write_reason
from napari_cmunet.commands.progress import Progress
from napari_cmunet.core.device import choose_device
from napari_cmunet.core.models import load_model
from napari_cmunet.core.predict import Predictor
from napari_cmunet.core.threshold import mask_at
from napari_cmunet.errors import (
    CMUNetError,
    ReadError,
    UnknownModelError,
    UsageError,
    WriteError,
    display_name,
)
from napari_cmunet.io.dicom.identity import without_identity
from napari_cmunet.io.images import find_images, output_paths, read_angiogram
from napari_cmunet.io.masks import write_mask, write_probability
from napari_cmunet.io.provenance import Provenance

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class SegmentJob:
    """What to segment, with what, to where.

    Parameters
    ----------
    inputs : tuple of Path
        Files and folders.
    output : Path
        Folder; created if missing.
    model : str
        Name or folder.
    device : str
    threshold : float or None
        The model's own if None.
    probability : bool
        Also write ``NAME_probability.tif``.
    """

    inputs: tuple[Path, ...]
    output: Path
    model: str
    device: str = "auto"
    threshold: float | None = None
    probability: bool = False


def segment(job: SegmentJob) -> int:
    """Segment every input that can be read; returns the exit code.

    Prints the path of each mask on stdout and each failure on stderr.
    """
    model = load_model(job.model)
    if model.card.kind != "artery":
        raise UnknownModelError(
            f"'{model.card.name}' is a self-supervised model: it knows no arteries "
            "yet. Fine-tune it, or choose another with --model."
        )
    if job.output.resolve() in {path.resolve() for path in job.inputs}:
        raise UsageError(
            "The output folder is an input: masks would lie among the images. Choose "
            "another with -o."
        )
    predictor = Predictor(model, choose_device(job.device))
    files = without_identity(find_images(job.inputs, skip=[job.output]))
    targets = [job.output / name for name in output_paths(files)]
    inputs = {file.path.resolve() for file in files}
    maps = {_beside(t).resolve() for t in targets} if job.probability else set()
    _make_folder(job.output)
    progress = Progress(len(files))
    told = 0
    for file, target in zip(files, targets, strict=True):
        shown = display_name(file.relative)
        progress.show(shown)
        try:
            own = {_beside(target).resolve()} & maps
            if target.resolve() in inputs | maps or own & inputs:
                raise WriteError(
                    target,
                    "it would replace an input, or another's probability. Choose "
                    "another output folder with -o.",
                )
            notes = _segment_one(job, predictor, file.path, target)
        except ReadError as exc:
            progress.failed += 1
            progress.complain(f"{shown}: {exc.reason}")
        except CMUNetError as exc:
            progress.failed += 1
            progress.complain(f"{exc}")
        except MemoryError:
            progress.failed += 1
            progress.complain(f"{shown}: not enough memory for a frame this large.")
        else:
            progress.clear()
            print(target, flush=True)
            for note in notes:
                progress.complain(f"{shown}: note: {note}")
        for notice in predictor.notices[told:]:
            progress.complain(f"note: {notice}")
        told = len(predictor.notices)
        progress.advance()
    progress.clear()
    if progress.failed:
        done = len(files) - progress.failed
        progress.complain(f"{done} of {len(files)} done, {progress.failed} failed.")
    return 1 if progress.failed else 0


def _segment_one(
    job: SegmentJob, predictor: Predictor, path: Path, target: Path
) -> tuple[str, ...]:
    image = read_angiogram(path)
    threshold = job.threshold or predictor.card.threshold
    probability = np.empty(image.frames.shape, np.uint8)
    for frame in predictor.predict_frames(image.frames):
        probability[frame.index] = frame.probability
    if not image.is_cine:
        probability = probability[0]
    provenance = Provenance(
        model=predictor.card.name,
        model_sha256=predictor.card.sha256,
        threshold=threshold,
        device=predictor.device.type,
        source_sha256=image.sha256,
        frames=tuple(range(len(image.frames))),
    )
    _make_folder(target.parent)
    write_mask(target, mask_at(probability, threshold), provenance, image.pixel_size_mm)
    if job.probability:
        write_probability(_beside(target), probability, provenance, image.pixel_size_mm)
    return image.notes


def _beside(target: Path) -> Path:
    """Where the probability goes that belongs to a mask."""
    return target.with_name(f"{target.stem}_probability{target.suffix}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as exc:
        raise WriteError(
            folder, "a file is in the way of this folder. Choose another with -o."
        ) from exc
    except OSError as exc:
        raise WriteError(folder, write_reason(exc)) from exc
