"""``measure``: diameters and stenoses of the arteries in images."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from napari_cmunet.cli.arguments import (
    add_flags,
    add_large_masks,
    add_model_options,
    add_output,
)
from napari_cmunet.cli.progress import Progress
from napari_cmunet.errors import CMUNetError, ReadError, UsageError, display_name
from napari_cmunet.io.dicom.identity import without_identity
from napari_cmunet.io.discovery import find_images, output_paths, stem_of
from napari_cmunet.io.images import read_angiogram
from napari_cmunet.io.masks.files import read_mask, read_provenance
from napari_cmunet.io.masks.label_file import names_to_json
from napari_cmunet.io.measured_lesion import MeasuredFrame, reported, tree_lesions
from napari_cmunet.io.measurements import (
    COLUMNS,
    SEGMENT_COLUMNS,
    as_json,
    tables,
)
from napari_cmunet.io.pictures import write_picture
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.io.report import (
    REPORT,
    FrameSections,
    frame_facts,
    frame_section,
    write_report,
)
from napari_cmunet.project.files import is_project
from napari_cmunet.project.labels.as_labelled import (
    CHANGE_COLUMNS,
    agreements,
    read_changes,
)
from napari_cmunet.project.project import Project
from napari_cmunet.util.safe_files import make_folder, write_json, write_table
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from napari_cmunet.io.discovery import InputFile
    from napari_cmunet.io.images import Angiogram
    from napari_cmunet.vessels.qca import Calibration

    MaskOf = Callable[[Path, Angiogram], tuple[int, np.ndarray, Provenance]]

_WHERE = ("number", "input", "frame")


def add_parser(commands: Any) -> None:
    """Add the command's options."""
    p = commands.add_parser(
        "measure",
        help="diameters and stenoses: tables, JSON, pictures",
        description="Quantitative coronary analysis of whole trees. Of each image: its "
        "segments from bifurcation to bifurcation (segments.csv), their lesions, those "
        "of wide vessels first (lesions.csv), and all diameters (NAME.json). In "
        "millimetres where the size of a pixel is known, otherwise in pixels. SYNTAX "
        "segments are proposed by a model; where it doubts, there is none. Of a "
        "project: how far its readers moved the model's numbers (changes.csv; bias and "
        "95 % limits of agreement are printed). Research use only.",
    )
    p.add_argument("inputs", nargs="+", type=Path, metavar="INPUT")
    add_output(p)
    text = "masks by the images' names; without them, the model's are measured"
    p.add_argument(
        "--masks", nargs="+", default=[], type=Path, metavar="DIR", help=text
    )
    add_large_masks(p)
    text = "of cines, from 0 on (default: the one best filled)"
    p.add_argument("--frame", type=int, metavar="N", help=text)
    text = "diameter stenosis from which it is a lesion (default: 25)"
    p.add_argument("--least", type=float, default=25.0, metavar="PERCENT", help=text)
    text = "instead of the size that the file has"
    p.add_argument("--pixel-size", type=float, metavar="MM", help=text)
    text = "standard error of the size of a pixel, carried into the results"
    p.add_argument("--pixel-error", type=float, metavar="PERCENT", help=text)
    add_flags(
        p,
        ("--pictures", "also write NAME.png: borders and lesions"),
        ("--report", "also write report.html: pictures, profiles and numbers"),
        (
            "--dicom",
            "also write NAME_sr.dcm, a Structured Report, and NAME_measured.dcm, its "
            "picture, of DICOM images",
        ),
    )
    add_model_options(p)
    p.set_defaults(command="measure", usage_error=p.error)


def run(args: argparse.Namespace) -> int:
    """Measure every input that can be read; returns the exit code.

    Writes ``segments.csv`` and ``lesions.csv`` for all images, and JSON for each.
    """
    projects = [path for path in args.inputs if is_project(path)]
    if projects:
        if len(args.inputs) > 1:
            args.usage_error("a project is measured alone")
        return _measure_project(projects[0], args)
    if not 0 < args.least < 100:
        args.usage_error("--least is between 0 and 100")
    if (args.pixel_size or 1) <= 0 or (args.pixel_error or 0) < 0:
        args.usage_error("--pixel-size is above 0, --pixel-error at least 0")
    files = without_identity(find_images(args.inputs, skip=[args.output, *args.masks]))
    mask_of = _given_masks(args) if args.masks else _predicted_masks(args)
    make_folder(args.output)
    with FrameSections(args.output) as sections:
        return _measure_images(args, files, mask_of, sections)


def _measure_images(
    args: argparse.Namespace,
    files: list[InputFile],
    mask_of: MaskOf,
    sections: FrameSections,
) -> int:
    # Slow to import.
    from napari_cmunet.model.registry import load_model
    from napari_cmunet.model.vessel_names import NAMES_MODEL, propose_names
    from napari_cmunet.vessels.qca import analyse_tree

    names_model = load_model(NAMES_MODEL)
    progress = Progress(len(files))
    segments: list[dict[str, object]] = []
    lesions: list[dict[str, object]] = []
    outputs = output_paths(files, ".json")
    for number, (file, output) in enumerate(zip(files, outputs, strict=True), 1):
        shown = display_name(file.relative)
        progress.show(shown)
        try:
            image = read_angiogram(file.path)
            frame, mask, origin = mask_of(file.path, image)
            image = image.inverted() if origin.inverted else image
            pixels = np.asarray(image.frames[frame])
            tree = analyse_tree(pixels, mask, least=args.least / 100)
            calibration = _calibration(image, args)
            names = propose_names(mask, names_model)
            where = {"number": number, "input": str(file.relative), "frame": frame}
            found = tables(tree, calibration, names)
            segments += [where | row for row in found[0]]
            lesions += [where | row for row in found[1]]
            path = args.output / output
            make_folder(path.parent)
            written = as_json(tree, calibration, *found)
            proposed = names_to_json(names)
            write_json(path, written | {"frame": frame, "proposed_names": proposed})
            if args.pictures and not image.burned_in:
                write_picture(path.with_suffix(".png"), pixels, tree, image.window)
            if args.pictures and image.burned_in:  # it may show a name
                text = "note: text may be in it; no picture was written"
                progress.complain(f"{shown}: {text}")
            if args.dicom or args.report:
                measured = MeasuredFrame(
                    frame,
                    pixels,
                    image.window,
                    image.burned_in,
                    mask,
                    reported(None, tree_lesions(tree, calibration, names)),
                    calibration,
                    origin,
                )
            if args.dicom:
                _write_dicom(path, file.path, measured, progress, shown)
            if args.report:
                title = f"{shown}, frame {frame}" if image.is_cine else shown
                facts = [*frame_facts(measured), ("Segments", "proposed by a model")]
                sections.add(frame_section(measured, title, facts))
        except CMUNetError as error:
            reason = error.reason if isinstance(error, ReadError) else str(error)
            progress.complain(f"{shown}: {reason}")
            progress.failed += 1
        else:
            progress.clear()
            print(path, flush=True)
        progress.advance()
    progress.clear()
    for table, columns, rows in (
        ("segments.csv", SEGMENT_COLUMNS, segments),
        ("lesions.csv", COLUMNS, lesions),
    ):
        write_table(args.output / table, (*_WHERE, *columns), rows)
        print(args.output / table)
    if sections.count:
        write_report(args.output / REPORT, counted(sections.count, "image"), sections)
        print(args.output / REPORT)
    return 1 if progress.failed else 0


def _measure_project(folder: Path, args: argparse.Namespace) -> int:
    """Write and print how far the readers of a project moved the model's numbers."""
    from napari_cmunet.project.export.formats import export_masks

    problems: list[str] = []
    files: tuple[str, ...] = ()
    wanted = (("report", args.report), ("dicom-sr", args.dicom))
    formats = [name for name, chosen in wanted if chosen]
    with Project.open(folder, read_only=True) as project:
        rows = read_changes(project, problems.append)
        waiting = project.reference.waiting_notice()
        if formats:
            done = export_masks(project, args.output, formats=formats, overwrite=True)
            files, problems = done.files, [*problems, *done.problems]
    for text in filter(None, (*dict.fromkeys(problems), waiting)):
        print(f"napari-cmunet: {text}", file=sys.stderr)
    make_folder(args.output)
    write_table(args.output / "changes.csv", CHANGE_COLUMNS, rows)
    print("number,labels,bias,lower_limit,upper_limit")
    for name, found in agreements(rows).items():
        limits = f"{found.bias:.2f},{found.low:.2f},{found.high:.2f}"
        print(f"{name},{found.count},{limits}")
    for file in files:
        print(args.output / file)
    return 1 if problems else 0


def _write_dicom(
    path: Path, source: Path, measured: MeasuredFrame, progress: Progress, shown: str
) -> None:
    from napari_cmunet.io.dicom.structured_report import write_measurements

    try:
        write_measurements(path.parent, path.stem, source, measured)
    except ReadError as error:
        text = f"note: no Structured Report was written: {error.reason}"
        progress.complain(f"{shown}: {text}")


def _calibration(image: Angiogram, args: argparse.Namespace) -> Calibration:
    from napari_cmunet.vessels.qca import Calibration

    error = None if args.pixel_error is None else args.pixel_error / 100
    if args.pixel_size is not None:
        return Calibration(args.pixel_size, error, "given on the command line")
    return Calibration.of(image.pixel_size_mm, error, image.pixel_size_source)


def _given_masks(args: argparse.Namespace) -> MaskOf:
    """Masks from files of the images' stems."""
    files: dict[str, list[Path]] = {}
    for file in find_images(args.masks):
        files.setdefault(stem_of(file.path), []).append(file.path)

    def mask_of(path: Path, image: Angiogram) -> tuple[int, np.ndarray, Provenance]:
        candidates = files.get(stem_of(path), [])
        if len(candidates) != 1:
            reason = "no mask has" if not candidates else "several masks have"
            raise ReadError(path, f"{reason} this file name (without its suffix).")
        mask = read_mask(candidates[0], large=args.large_masks)
        made = read_provenance(candidates[0])
        if mask.shape != image.shape:
            raise ReadError(path, "its mask has another size.")
        masks = mask.reshape(image.frames.shape)
        filled = np.array([artery.any() for artery in masks])
        frame = _frame(path, image, args, filled)
        return frame, masks[frame], made or Provenance(imported_from="a file")

    return mask_of


def _predicted_masks(args: argparse.Namespace) -> MaskOf:
    from napari_cmunet.model.device import choose_device
    from napari_cmunet.model.predictor import Predictor
    from napari_cmunet.model.registry import load_model
    from napari_cmunet.model.threshold import mask_at

    model = load_model(args.model)
    if model.card.kind != "artery":
        kind = model.card.kind
        raise UsageError(f"'{model.card.name}' knows no arteries (kind {kind}).")
    predictor = Predictor(model, choose_device(args.device))

    def mask_of(path: Path, image: Angiogram) -> tuple[int, np.ndarray, Provenance]:
        frame = _frame(path, image, args, np.ones(len(image.frames), bool))
        probability = predictor.predict(np.asarray(image.frames[frame]))
        origin = Provenance(
            model=model.card.name,
            model_sha256=model.card.sha256,
            threshold=model.card.threshold,
            source_sha256=image.sha256,
        )
        return frame, mask_at(probability, model.card.threshold), origin

    return mask_of


def _frame(
    path: Path, image: Angiogram, args: argparse.Namespace, usable: np.ndarray
) -> int:
    """The frame to measure: the one asked for, or the best filled of a cine."""
    from napari_cmunet.cine.best_frame import find_best_frame

    if args.frame is not None:
        if not 0 <= args.frame < len(image.frames):
            last = len(image.frames) - 1
            raise ReadError(path, f"it has no frame {args.frame}; its last is {last}.")
        return int(args.frame)
    numbers = np.flatnonzero(usable)
    if len(numbers) < 2:
        return int(numbers[0]) if len(numbers) else 0
    frames: Any = image.frames if usable.all() else np.asarray(image.frames)[numbers]
    return int(numbers[find_best_frame(cast("np.ndarray", frames)) or 0])
