"""``pacs``: find, get and store objects in a PACS by DICOMweb."""

from __future__ import annotations

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari_cmunet.cli.arguments import add_output
from napari_cmunet.cli.progress import Progress
from napari_cmunet.errors import CMUNetError, PacsGoneError, UsageError
from napari_cmunet.util.safe_files import make_folder

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable, Iterable

    from napari_cmunet.io.pacs import Pacs

URL = "NAPARI_CMUNET_PACS"
_FILTERS = {
    "patient_id": "PatientID",
    "patient_name": "PatientName",
    "date": "StudyDate",
    "accession": "AccessionNumber",
    "study": "StudyInstanceUID",
}
_IDENTITY = ("patient_id", "patient_name", "birth_date")


def add_parser(commands: Any) -> None:
    p = commands.add_parser(
        "pacs",
        help="find, get and store in a PACS by DICOMweb",
        description="Find series in a PACS, fetch their images and store results, by "
        "DICOMweb. NAPARI_CMUNET_PACS_USER and _PASSWORD, or _TOKEN, or the system's "
        "keyring say who asks.",
    )
    actions = p.add_subparsers(required=True, metavar="ACTION", dest="action")
    find = actions.add_parser("find", help="list series, separated by tabs")
    for option, metavar, text in (
        ("--patient-id", "ID", "the patient's number; * stands for anything"),
        ("--patient-name", "NAME", "as DICOM writes it: Smith^John, Smith*"),
        ("--date", "DATE", "of the study: 20260131, or a range 20260101-20260131"),
        ("--accession", "NUMBER", "of the study"),
        ("--study", "UID", "the study itself"),
        ("--modality", "XA", "of the series"),
    ):
        find.add_argument(option, default="", metavar=metavar, help=text)
    find.add_argument(
        "--identity", action="store_true", help="also show whose they are"
    )
    get = actions.add_parser(
        "get", help="fetch images", description="Fetch images that are not there yet."
    )
    get.add_argument("study", metavar="STUDY", help="UIDs, as found")
    get.add_argument("series", nargs="?", default="", metavar="SERIES")
    get.add_argument("instance", nargs="?", default="", metavar="INSTANCE")
    add_output(get)
    store = actions.add_parser("store", help="store DICOM results")
    store.add_argument("files", nargs="+", type=Path, metavar="FILE")
    for action in (find, get, store):
        action.add_argument(
            "--url",
            metavar="URL",
            help="https://HOST/dicom-web (default: NAPARI_CMUNET_PACS)",
        )
        action.add_argument(
            "--ca", type=Path, metavar="FILE", help="certificates to trust (PEM)"
        )
    p.set_defaults(command="pacs")


def run(args: argparse.Namespace) -> int:
    """Run one of the three; returns the exit code."""
    url = args.url or os.environ.get(URL)
    if not url:
        raise UsageError(f"Which PACS? Give --url, or set {URL}.")
    from napari_cmunet.io.pacs import Pacs  # it loads pydicom

    pacs = Pacs(url, args.ca)
    commands = {"find": _find, "get": _get, "store": _store}
    return commands[args.action](pacs, args)


def _find(pacs: Pacs, args: argparse.Namespace) -> int:
    """Print a table of series, separated by tabs."""
    filters = {
        keyword: value
        for name, keyword in _FILTERS.items()
        if (value := getattr(args, name))
    }
    if not filters:
        raise UsageError("What is looked for? Give at least one of the options.")
    rows = [asdict(series) for series in pacs.find(filters, args.modality)]
    for row in rows:
        for name in () if args.identity else _IDENTITY:
            del row[name]
    for line in [*(list(row) for row in rows[:1]), *(row.values() for row in rows)]:
        print("\t".join(line))
    return 0


def _get(pacs: Pacs, args: argparse.Namespace) -> int:
    wanted = pacs.instances(args.study, args.series)
    if args.instance:
        wanted = [uids for uids in wanted if uids[2] == args.instance]
    if not wanted:
        raise UsageError("The PACS has no images by these UIDs.")
    make_folder(args.output)

    def get(uids: tuple[str, str, str]) -> Path:
        return pacs.get(*uids, args.output)

    return _each(wanted, lambda uids: uids[2], get)


def _store(pacs: Pacs, args: argparse.Namespace) -> int:
    def store(path: Path) -> Path:
        pacs.store(path)
        return path

    return _each(args.files, lambda path: path.name, store)


def _each(
    items: Iterable[Any], name: Callable[[Any], str], do: Callable[[Any], Path]
) -> int:
    """Print the path of each that is done; end where the server is gone."""
    items = list(items)
    progress = Progress(len(items))
    for item in items:
        progress.show(name(item))
        try:
            path = do(item)
        except CMUNetError as error:
            progress.failed += 1
            text = str(error)
            progress.complain(text if name(item) in text else f"{name(item)}: {text}")
            if isinstance(error, PacsGoneError):
                break
        else:
            progress.clear()
            print(path, flush=True)
            progress.advance()
    progress.clear()
    if progress.failed:
        progress.complain(f"{progress.done} of {len(items)} done.")
    return 1 if progress.failed else 0
