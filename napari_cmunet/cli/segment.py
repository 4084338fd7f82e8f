"""``segment``: one mask TIFF for each image, and what else is wanted of it."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from napari_cmunet.cine.best_frame import find_best_frame
from napari_cmunet.cli.progress import Progress
from napari_cmunet.errors import (
    CMUNetError,
    ReadError,
    UnknownModelError,
    UsageError,
    WriteError,
    display_name,
)
from napari_cmunet.io.csv_table import write_table
from napari_cmunet.io.dicom.derived import why_not
from napari_cmunet.io.dicom.identity import without_identity
from napari_cmunet.io.dicom.secondary_capture import write_secondary_capture
from napari_cmunet.io.dicom.segmentation import write_segmentation
from napari_cmunet.io.discovery import is_folder
from napari_cmunet.io.images import find_images, output_paths, read_angiogram
from napari_cmunet.io.masks import (
    BESIDE_MASK,
    read_mask,
    read_provenance,
    write_mask,
    write_probability,
)
from napari_cmunet.io.overlay import write_overlay
from napari_cmunet.io.polarity import BRIGHT_NOTE
from napari_cmunet.io.provenance import Provenance, program_version, write_record
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor, to_uint8
from napari_cmunet.model.registry import load_model
from napari_cmunet.model.threshold import mask_at
from napari_cmunet.util.atomic import make_folder

if TYPE_CHECKING:
    import argparse
    from pathlib import Path

    from napari_cmunet.io.images import Angiogram, InputFile

SUMMARY = "summary.csv"
COLUMNS = (
    "number",
    "file",
    "input",
    "status",
    "reason",
    "frames",
    "height",
    "width",
    "artery_share",
    "pixel_height_mm",
    "pixel_width_mm",
    "pixel_size_source",
    "source_sha256",
    "model",
    "model_sha256",
    "threshold",
    "seconds",
    "notes",
)

EXTRAS = (
    "probability",
    "probability_float32",
    "record",
    "overlay",
    "dicom_seg",
    "dicom_sc",
)
"""What can be had beside a mask, in the order in which it is written."""
_DICOM = {"dicom_seg": "DICOM segmentation", "dicom_sc": "Secondary Capture"}


def run(args: argparse.Namespace) -> int:
    """Segment every input that can be read; returns the exit code.

    Prints the path of each mask on stdout and each failure on stderr. What an earlier
    run has made of the same image in the same way is left as it is. Where an input is
    a folder, ``summary.csv`` tells at the end what became of each file.
    """
    extras = tuple(extra for extra in EXTRAS if getattr(args, extra))
    model = load_model(args.model)
    if model.card.kind != "artery":
        raise UnknownModelError(
            f"'{model.card.name}' is a self-supervised model: it knows no arteries "
            "yet. Fine-tune it, or choose another with --model."
        )
    if args.output.resolve() in {path.resolve() for path in args.inputs}:
        raise UsageError(
            "The output folder is an input: masks would lie among the images. Choose "
            "another with -o."
        )
    predictor = Predictor(model, choose_device(args.device))
    how = _How(args.threshold or model.card.threshold, args.invert)
    found = find_images(args.inputs, skip=[args.output])
    files = without_identity(found)
    outputs = [Outputs(args.output / name, extras) for name in output_paths(files)]
    taken = _Taken(files, outputs)
    make_folder(args.output)
    progress = Progress(len(files))
    rows: list[dict[str, object]] = []
    reported = kept = 0
    for number, (file, output) in enumerate(zip(files, outputs, strict=True), 1):
        shown = display_name(file.relative)
        if file.relative != found[number - 1].relative:
            # Identifying values were removed: the number tells which file it is.
            shown += f" (input {number})"
        progress.show(shown)
        began = time.monotonic()
        row: dict[str, object] = {
            "number": number,
            "file": output.mask.relative_to(args.output).as_posix(),
            "input": file.relative.as_posix(),
            "status": "done",
        }
        try:
            taken.check(output)
            made, fresh = _segment_one(file.path, output, predictor, how)
        except CMUNetError as exc:
            # The file's own name may name a patient; what it is shown as does not.
            reason = exc.reason if isinstance(exc, ReadError) else str(exc)
            row |= {"file": "", "status": "failed", "reason": reason}
            text = f"{shown}: {reason}" if isinstance(exc, ReadError) else reason
            progress.complain(text)
            progress.failed += 1
        except MemoryError:
            reason = "not enough memory for a frame this large."
            row |= {"file": "", "status": "failed", "reason": reason}
            progress.complain(f"{shown}: {reason}")
            progress.failed += 1
        else:
            progress.clear()
            print(output.mask, flush=True)
            for note in made.notes:
                progress.complain(f"{shown}: note: {note}")
            row |= {**made.facts, "notes": "; ".join(made.notes)}
            if not fresh:
                row["status"] = "there already"
                kept += 1
        row["seconds"] = round(time.monotonic() - began, 2)
        rows.append(row)
        for notice in predictor.notices[reported:]:
            progress.complain(f"note: {notice}")
        reported = len(predictor.notices)
        progress.advance()
    progress.clear()
    if kept:
        progress.complain(f"note: {kept} of {len(files)} were there already.")
    if any(map(is_folder, args.inputs)):
        write_table(args.output / SUMMARY, COLUMNS, rows)
    if progress.failed:
        done = len(files) - progress.failed
        progress.complain(f"{done} of {len(files)} done, {progress.failed} failed.")
    return 1 if progress.failed else 0


@dataclass(frozen=True)
class _How:
    """How images become masks, beside the model."""

    threshold: float
    invert: bool = False

    def read(self, path: Path) -> Angiogram:
        """Read an image as it is to be segmented."""
        image = read_angiogram(path)
        return image.inverted() if self.invert else image


def _segment_one(
    path: Path, output: Outputs, predictor: Predictor, how: _How
) -> tuple[Segmented, bool]:
    """Segment one image; return also whether that was still to be done."""
    done = find_done(path, output, predictor, how)
    if done is not None:
        return done, False
    return write_outputs(path, output, predictor, how), True


class _Taken:
    """Files that no output may replace: the inputs, and other outputs."""

    def __init__(self, files: list[InputFile], outputs: list[Outputs]) -> None:
        self._inputs = {file.path.resolve() for file in files}
        self._owners: dict[Path, list[Outputs]] = {}
        for output in outputs:
            for path in output.all():
                self._owners.setdefault(path.resolve(), []).append(output)

    def check(self, output: Outputs) -> None:
        """Raise WriteError if an output would replace anything but its own."""
        for path in output.all():
            shared = self._owners[path.resolve()]
            # A mask gives way to what lies beside another; the first of its kind wins.
            loses = len(shared) > 1 and path == output.mask
            if loses or path.resolve() in self._inputs:
                raise WriteError(
                    output.mask,
                    "it would replace an input, or what is written for another. Choose "
                    "another output folder with -o.",
                )


@dataclass(frozen=True)
class Outputs:
    """The files that belong to one image."""

    mask: Path
    extras: tuple[str, ...] = ()  # of ``EXTRAS``

    def path(self, extra: str) -> Path:
        """Where an extra goes."""
        return self.mask.with_name(BESIDE_MASK[extra].format(self.mask.stem))

    def all(self) -> list[Path]:
        """Every file; the mask last, since it shows that the others are written."""
        return [*(self.path(extra) for extra in self.extras), self.mask]


@dataclass(frozen=True)
class Segmented:
    """What is known of an image once it is segmented, for the summary."""

    facts: dict[str, object]
    notes: tuple[str, ...] = ()


def find_done(
    path: Path, outputs: Outputs, predictor: Predictor, how: _How
) -> Segmented | None:
    """Return what an earlier run has made of the same image in the same way, if it has.

    The image is known by its hash, and a mask is whole if it is there at all.
    """
    if not all(file.is_file() for file in outputs.all()):
        return None
    try:
        made = read_provenance(outputs.mask)
        if (
            made is None
            or made.corrected
            or made.model_sha256 != predictor.card.sha256
            or made.threshold != how.threshold
            or made.inverted != how.invert
            or made.version != program_version()
        ):
            return None
        image = how.read(path)
        if image.sha256 != made.source_sha256:
            return None
        mask = read_mask(outputs.mask)
    except ReadError:
        return None
    return Segmented(_facts(mask, made, image), tuple(_notes(image)))


def write_outputs(
    path: Path, outputs: Outputs, predictor: Predictor, how: _How
) -> Segmented:
    """Segment an image and write all that is wanted of it; raises CMUNetError."""
    image = how.read(path)
    frames = cast("np.ndarray", image.frames)  # or lazy, which reads like an array
    exact = "probability_float32" in outputs.extras
    probability = np.empty(image.frames.shape, np.float32 if exact else np.uint8)
    for frame in predictor.predict_frames(frames, exact=exact):
        probability[frame.index] = frame.probability
    steps = to_uint8(probability) if exact else probability
    masks = mask_at(steps, how.threshold)
    provenance = Provenance(
        model=predictor.card.name,
        model_sha256=predictor.card.sha256,
        threshold=how.threshold,
        device=predictor.device.type,
        source_sha256=image.sha256,
        frames=tuple(range(len(image.frames))),
        inverted=how.invert,
    )
    size = image.pixel_size_mm
    make_folder(outputs.mask.parent)
    notes = _notes(image)
    if not image.is_cine:
        probability, steps = probability[0], steps[0]
    mask = masks if image.is_cine else masks[0]
    if "probability" in outputs.extras:
        write_probability(outputs.path("probability"), steps, provenance, size)
    if exact:
        path_32 = outputs.path("probability_float32")
        write_probability(path_32, probability, provenance, size)
    if "record" in outputs.extras:
        write_record(
            outputs.path("record"),
            mask,
            provenance,
            pixel_size_mm=size,
            pixel_size_source=image.pixel_size_source,
            pixels_changed=0,
        )
    if "overlay" in outputs.extras:
        if image.burned_in:  # a picture would show a name that may be there
            notes.append("no overlay was written")
        else:
            best = (find_best_frame(frames) or 0) if image.is_cine else 0
            write_overlay(
                outputs.path("overlay"), image.frames[best], masks[best], image.window
            )
    for extra, what in _DICOM.items():
        if extra not in outputs.extras:
            continue
        reason = why_not(path, len(image.frames) - 1)
        if not reason and extra == "dicom_sc" and image.burned_in:
            reason = "its picture may show text, such as a name"
        if reason:
            notes.append(f"no {what} was written: {reason}")
        elif extra == "dicom_seg":
            write_segmentation(outputs.path(extra), path, mask, provenance, size)
        else:
            write_secondary_capture(
                outputs.path(extra), path, image, mask, provenance, size
            )
    write_mask(outputs.mask, mask, provenance, size)
    return Segmented(_facts(mask, provenance, image), tuple(notes))


def _notes(image: Angiogram) -> list[str]:
    return [*image.notes, *([BRIGHT_NOTE] if image.has_bright_vessels() else [])]


def _facts(mask: np.ndarray, made: Provenance, image: Angiogram) -> dict[str, object]:
    size = image.pixel_size_mm or ("", "")
    return {
        "frames": len(mask) if mask.ndim == 3 else 1,
        "height": mask.shape[-2],
        "width": mask.shape[-1],
        "artery_share": round(float(mask.mean()), 5),
        "pixel_height_mm": size[0],
        "pixel_width_mm": size[1],
        "pixel_size_source": image.pixel_size_source,
        "source_sha256": made.source_sha256,
        "model": made.model,
        "model_sha256": made.model_sha256,
        "threshold": made.threshold,
    }
