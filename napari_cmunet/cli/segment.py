"""``segment``: one mask TIFF for each image."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from napari_cmunet.cli.progress import Progress
from napari_cmunet.cli.segment_output import (
    Outputs,
    Segmented,
    find_done,
    make_folder,
    write_outputs,
)
from napari_cmunet.errors import (
    CMUNetError,
    ReadError,
    UnknownModelError,
    UsageError,
    WriteError,
    display_name,
)
from napari_cmunet.io.dicom.identity import without_identity
from napari_cmunet.io.dicom.segmentation import require_highdicom
from napari_cmunet.io.discovery import is_folder
from napari_cmunet.io.images import find_images, output_paths
from napari_cmunet.io.table import write_table
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cmunet.io.images import InputFile

SUMMARY = "summary.csv"
COLUMNS = (
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
    extras : tuple of str
        What to write beside the masks, of ``EXTRAS``.
    """

    inputs: tuple[Path, ...]
    output: Path
    model: str
    device: str = "auto"
    threshold: float | None = None
    extras: tuple[str, ...] = ()


def segment(job: SegmentJob) -> int:
    """Segment every input that can be read; returns the exit code.

    Prints the path of each mask on stdout and each failure on stderr. What an earlier
    run has made of the same image in the same way is left as it is. Where an input is
    a folder, ``summary.csv`` tells at the end what became of each file.
    """
    if "dicom_seg" in job.extras:
        require_highdicom()
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
    outputs = [Outputs(job.output / name, job.extras) for name in output_paths(files)]
    taken = _Taken(files, outputs)
    make_folder(job.output)
    progress = Progress(len(files))
    rows, told, kept = [], 0, 0
    for file, output in zip(files, outputs, strict=True):
        shown = display_name(file.relative)
        progress.show(shown)
        began = time.monotonic()
        row = {
            "file": output.mask.relative_to(job.output).as_posix(),
            "input": file.relative.as_posix(),
            "status": "done",
        }
        try:
            taken.check(output)
            made, fresh = _segment_one(job, predictor, file.path, output)
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
        for notice in predictor.notices[told:]:
            progress.complain(f"note: {notice}")
        told = len(predictor.notices)
        progress.advance()
    progress.clear()
    if kept:
        progress.complain(f"note: {kept} of {len(files)} were there already.")
    if any(map(is_folder, job.inputs)):
        write_table(job.output / SUMMARY, COLUMNS, rows)
    if progress.failed:
        done = len(files) - progress.failed
        progress.complain(f"{done} of {len(files)} done, {progress.failed} failed.")
    return 1 if progress.failed else 0


def _segment_one(
    job: SegmentJob, predictor: Predictor, path: Path, output: Outputs
) -> tuple[Segmented, bool]:
    """Segment one image; says too whether that was to be done."""
    threshold = job.threshold or predictor.card.threshold
    done = find_done(path, output, predictor, threshold)
    if done is not None:
        return done, False
    return write_outputs(path, output, predictor, threshold), True


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
