"""``segment``: one mask TIFF for each image, and what else is wanted of it."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from napari_cmunet.cli.progress import Progress
from napari_cmunet.cli.segment.on_cluster import segment_on_cluster
from napari_cmunet.cli.segment.one import (
    EXTRAS,
    How,
    Job,
    Outcome,
    Outputs,
    Segmented,
    attempt,
    find_done,
    outputs_for,
    write_outputs,
)
from napari_cmunet.errors import UnknownModelError, UsageError, WriteError, display_name
from napari_cmunet.io.dicom.identity import without_identity
from napari_cmunet.io.discovery import find_images, output_paths
from napari_cmunet.model.device import choose_device
from napari_cmunet.model.predictor import Predictor
from napari_cmunet.model.registry import load_model
from napari_cmunet.util.safe_files import is_folder, make_folder, write_table

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from napari_cmunet.io.discovery import InputFile
    from napari_cmunet.model.registry import LoadedModel

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
            f"'{model.card.name}' knows no arteries (kind {model.card.kind}). "
            "Fine-tune a self-supervised model, or choose another with --model."
        )
    if args.output.resolve() in {path.resolve() for path in args.inputs}:
        raise UsageError(
            "The output folder is an input: masks would lie among the images. Choose "
            "another with -o."
        )
    how = How(args.threshold or model.card.threshold, args.invert)
    found = find_images(args.inputs, skip=[args.output])
    files = without_identity(found)
    outputs = [outputs_for(args.output / name, extras) for name in output_paths(files)]
    taken = _Taken(files, outputs)
    report = _Report(args.output, len(files))
    jobs = []
    for number, (file, output) in enumerate(zip(files, outputs, strict=True), 1):
        shown = display_name(file.relative)
        if file.relative != found[number - 1].relative:
            # Identifying values were removed: the number tells which file it is.
            shown += f" (input {number})"
        jobs.append(Job(number, file, output, shown))

    def begin(job: Job) -> Outcome | None:
        """What became of an image where there is nothing left to do."""
        report.progress.show(job.shown)

        def known() -> Segmented | None:
            taken.check(job.outputs)
            return find_done(job.file.path, job.outputs, model.card, how)

        outcome = attempt(known)
        return replace(outcome, fresh=False) if outcome.made or outcome.reason else None

    if args.cluster:
        outcomes = segment_on_cluster(jobs, model, how, args, begin)
    else:
        outcomes = _segment_here(jobs, model, how, args.device, begin)
    make_folder(args.output)
    for job, outcome in outcomes:
        report.add(job, outcome)
    return report.end(table=any(map(is_folder, args.inputs)))


def _segment_here(
    jobs: Iterable[Job],
    model: LoadedModel,
    how: How,
    device: str,
    begin: Callable[[Job], Outcome | None],
) -> Iterator[tuple[Job, Outcome]]:
    """Segment one image after the other."""
    predictor = Predictor(model, choose_device(device))
    for job in jobs:
        before = len(predictor.notices)
        outcome = begin(job) or attempt(
            partial(write_outputs, job.file.path, job.outputs, predictor, how)
        )
        yield job, replace(outcome, notices=tuple(predictor.notices[before:]))


class _Report:
    """Tells what became of each image: at once, and in a table."""

    def __init__(self, output: Path, total: int) -> None:
        self.progress = Progress(total)
        self._output = output
        self._rows: dict[int, dict[str, object]] = {}
        self._kept = 0
        self._notices: set[str] = set()

    def add(self, job: Job, outcome: Outcome) -> None:
        """Tell what became of an image."""
        progress, made = self.progress, outcome.made
        row = self._rows[job.number] = {
            "number": job.number,
            # The file's own name may name a patient; what it is shown as does not.
            "file": "",
            "input": job.file.relative.as_posix(),
            "status": "failed",
            "reason": outcome.reason,
            "seconds": outcome.seconds,
        }
        if made is None:
            named = outcome.named
            progress.complain(
                outcome.reason if named else f"{job.shown}: {outcome.reason}"
            )
            progress.failed += 1
        else:
            progress.clear()
            print(job.outputs.mask, flush=True)
            for note in made.notes:
                progress.complain(f"{job.shown}: note: {note}")
            row |= {**made.facts, "notes": "; ".join(made.notes)}
            row["file"] = job.outputs.mask.relative_to(self._output).as_posix()
            row["status"] = "done" if outcome.fresh else "there already"
            self._kept += not outcome.fresh
        for notice in outcome.notices:
            if notice not in self._notices:
                progress.complain(f"note: {notice}")
                self._notices.add(notice)
        progress.advance()

    def end(self, *, table: bool) -> int:
        """Tell how many were done; returns the exit code."""
        progress, total = self.progress, self.progress.total
        progress.clear()
        if self._kept:
            progress.complain(f"note: {self._kept} of {total} were there already.")
        if table:
            rows = [self._rows[number] for number in sorted(self._rows)]
            write_table(self._output / SUMMARY, COLUMNS, rows)
        if progress.failed:
            done = total - progress.failed
            progress.complain(f"{done} of {total} done, {progress.failed} failed.")
        return 1 if progress.failed else 0


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
