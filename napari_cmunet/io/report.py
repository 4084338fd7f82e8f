"""The report of measurements: one HTML file to read, print or save as PDF.

It needs no script, font or picture from elsewhere.
"""

from __future__ import annotations

import math
from datetime import datetime
from functools import partial
from html import escape
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

from napari_cmunet.io.pictures import (
    Agreement,
    agreement_plot,
    frame_picture,
    profile_plot,
    signed_number,
)
from napari_cmunet.io.provenance import NOTICE, PROGRAM, program_version
from napari_cmunet.util.safe_files import TEMPORARY_PREFIX, atomic_write, write_errors
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from napari_cmunet.io.measured_lesion import MeasuredFrame, MeasuredLesion
    from napari_cmunet.io.provenance import Provenance
    from napari_cmunet.vessels.qca import Calibration

REPORT = "report.html"
"""The usual name of the file."""

_NONE = "&ndash;"
_MOST_LESIONS, _MOST_PROFILES = 6, 4  # of a frame: one page

_STYLE = """
@page { size: A4; margin: 13mm; }
* { box-sizing: border-box; }
body { font: 10pt/1.4 system-ui, "Segoe UI", Helvetica, Arial, sans-serif;
  color: #222; background: #fff; max-width: 184mm; margin: 8mm auto; padding: 0 3mm; }
@media print { body { margin: 0; padding: 0; max-width: none; } }
header { display: flex; justify-content: space-between; align-items: baseline; }
h1 { font-size: 16pt; margin: 0; }
h2 { font-size: 13pt; margin: 0 0 3mm; padding-bottom: 1mm;
  border-bottom: 1.5px solid #0072b2; overflow-wrap: anywhere; }
h3 { font-size: 10.5pt; margin: 4mm 0 1mm; }
p { margin: 0 0 2mm; } .quiet { color: #555; font-size: 8.5pt; }
section { margin-top: 4mm; }
@media print { section + section.frame { break-before: page; margin-top: 0; } }
.top { display: flex; gap: 5mm; align-items: flex-start; }
.top figure { flex: 0 0 100mm; } .top table { flex: 1; }
figure { margin: 0; break-inside: avoid; }
figcaption { font-size: 8.5pt; color: #555; margin-top: 1mm; }
figcaption b { color: #222; }
svg { width: 100%; height: auto; display: block; }
svg.plot text { font-size: 12px; fill: #222; }
.plots { display: grid; grid-template-columns: 1fr 1fr; gap: 3mm 5mm; margin-top: 3mm; }
table { border-collapse: collapse; width: 100%; }
th, td { text-align: left; vertical-align: top; padding: .8mm 2mm .8mm 0;
  border-bottom: 1px solid #ddd; overflow-wrap: anywhere; }
th { font-weight: 600; font-size: 8.5pt; color: #555; }
.facts th { width: 22mm; } .facts td { font-size: 9pt; }
.lesions { margin-top: 3mm; font-size: 9pt; } .lesions td { white-space: nowrap; }
.lesions td:first-child { white-space: normal; }
tr { break-inside: avoid; } .key { font-size: 8.5pt; color: #555; }
a { color: inherit; }
"""


def frame_facts(
    measured: MeasuredFrame,
    *,
    changed: int | None = None,
    added: int | None = None,
    reviewed: float = 1.0,
) -> list[tuple[str, str]]:
    """What the report says of where the numbers of a frame come from.

    Parameters
    ----------
    changed, added : int, optional
        Pixels that a reader has changed, and those of them that were added.
    reviewed : float
        Share of the frame.
    """
    provenance, calibration = measured.provenance, measured.calibration
    facts = [("Pixel size", _calibration_text(calibration))]
    imported = provenance.imported_from if provenance.model is None else None
    model = provenance.model or "none"
    if imported:
        model += f": imported from {imported}"
    if provenance.threshold is not None:
        model += f", threshold {provenance.threshold:.2f}"
    if provenance.model_sha256:
        model += f", SHA-256 {provenance.model_sha256[:16]}…"
    facts.append(("Model", model))
    if changed is not None or not imported:  # what came before is unknown
        text = _change_text(changed, added, provenance, calibration)
        facts.append(("Correction", text))
    if reviewed < 1:
        facts.append(("Reviewed", f"{100 * reviewed:.0f} % of the frame"))
    if provenance.inverted:
        facts.append(("Grey values", "inverted"))
    if provenance.source_sha256:
        facts.append(("Image file", f"SHA-256 {provenance.source_sha256[:16]}…"))
    made = provenance.created[:16].replace("T", " ")
    facts.append(("Mask imported" if imported else "Mask made", f"{made} UTC"))
    return facts


def frame_section(
    measured: MeasuredFrame,
    title: str,
    facts: Sequence[tuple[str, str]],
    anchor: str = "",
) -> str:
    """A frame as a section of the page.

    Parameters
    ----------
    title : str
        What the frame is called; no patient unless somebody asked for it.
    facts : sequence of (name, text)
        From :func:`frame_facts`.
    anchor : str
        Where the table of all frames leads.
    """
    shown = measured.lesions[:_MOST_LESIONS]
    if measured.has_text:
        picture = "<p>Text may be in the picture, such as a name: it is not shown.</p>"
    else:
        picture = frame_picture(measured.pixels, measured.window, measured.mask, shown)
        picture += (
            "<figcaption>Blue: outline of the mask. Orange: lesions and their minimum "
            "lumen diameter, numbered as below.</figcaption>"
        )
    table = "".join(
        f"<tr><th>{escape(name)}</th><td>{escape(text)}</td></tr>"
        for name, text in facts
    )
    profiles = "".join(
        f"<figure><figcaption><b>{number}. {_heading(lesion)}</b></figcaption>"
        f"{profile_plot(lesion.stretch, measured.calibration.mm)}</figure>"
        for number, lesion in enumerate(shown[:_MOST_PROFILES], 1)
        if lesion.stretch is not None
    )
    if profiles:
        profiles = (
            f"<div class='plots'>{profiles}</div><p class='key'>Blue: diameter. "
            "Orange, dashed: reference. Orange area: the lesion. Grey area: near a "
            "bifurcation, not used.</p>"
        )
    return (
        f"<section class='frame' id='{escape(anchor)}'>"
        f"<h2>{escape(title)}</h2>"
        f"<div class='top'><figure>{picture}</figure>"
        f"<table class='facts'>{table}</table></div>"
        f"{_lesion_table(shown, len(measured.lesions))}{profiles}</section>"
    )


def overview_row(measured: MeasuredFrame, title: str, anchor: str) -> str:
    """A frame in the table of all frames: its first lesion."""
    link = f"<a href='#{escape(anchor)}'>{escape(title)}</a>"
    cells = ["no lesion", "", "", ""]
    if measured.lesions:
        lesion = measured.lesions[0]
        cells = [
            _segment(lesion) or _NONE,
            _share(lesion, "diameter_stenosis_percent"),
            _length(lesion, "minimum_diameter"),
            "reader" if lesion.by_reader else "program",
        ]
    return _row("td", [link, *cells])


def overview_section(rows: Sequence[str]) -> str:
    """The table of all frames."""
    head = _row("th", ["Frame", "Segment", "%DS", "MLD", "Chosen by"])
    return (
        "<section><h2>All frames</h2><p class='quiet'>The first lesion of each: that "
        "which a reader has measured, otherwise the most likely one.</p>"
        f"<table class='lesions'>{head}{''.join(rows)}</table></section>"
    )


def agreement_section(agreements: Sequence[Agreement]) -> str:
    """How far readers moved the model's numbers, with Bland-Altman plots."""
    if not agreements:
        return (
            "<section><h2>Readers and model</h2><p>No label has numbers of model and "
            "reader both: measure a lesion before you accept its mask.</p></section>"
        )
    parts = []
    for found in agreements:
        limits = ""
        if math.isfinite(found.low):
            limits = (
                f", 95&nbsp;% limits of agreement {_signed(found.low, found.unit)} to "
                f"{_signed(found.high, found.unit)}"
            )
        parts.append(
            f"<figure><figcaption><b>{escape(found.name)}</b>: "
            f"{counted(len(found.pairs), 'lesion')}, bias "
            f"{_signed(found.bias, found.unit)}{limits}</figcaption>"
            f"{agreement_plot(found)}</figure>"
        )
    return (
        "<section><h2>Readers and model</h2><p class='quiet'>Each point is a lesion "
        "that was measured in the model's mask and in the corrected one (Bland and "
        "Altman 1986). Lesions too thin to be resolved are left out.</p>"
        f"<div class='plots'>{''.join(parts)}</div></section>"
    )


class FrameSections:
    """Sections of frames, in a temporary file of a folder: their pictures are large."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / REPORT
        with write_errors(self._path):
            self._file = TemporaryFile(
                "w+", encoding="utf-8", prefix=TEMPORARY_PREFIX, dir=folder
            )
        self.count = 0

    def __enter__(self) -> FrameSections:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def add(self, section: str) -> None:
        """Append one from :func:`frame_section`; raises WriteError."""
        with write_errors(self._path):
            self._file.write(section)
        self.count += 1

    def __iter__(self) -> Iterator[str]:
        """Read them back in pieces."""
        self._file.seek(0)
        yield from iter(partial(self._file.read, 2**20), "")


def write_report(path: Path, about: str, sections: Iterable[str]) -> None:
    """Write the page.

    Parameters
    ----------
    about : str
        A line below the heading.
    sections : iterable of str
        HTML, in their order, of which one at a time is in memory.

    Raises
    ------
    WriteError
    """
    today = f"{datetime.now().astimezone():%Y-%m-%d %H:%M}"
    head = (
        "<!doctype html><html lang='en'><head><meta charset='utf-8'>"
        "<meta name='viewport' content='width=device-width'>"
        f"<title>Coronary measurements</title><style>{_STYLE}</style></head><body>"
        f"<header><h1>Coronary measurements</h1><span>{escape(about)}</span></header>"
        f"<p class='quiet'>{PROGRAM} {escape(program_version())}, {today}. "
        f"<b>{NOTICE}</b></p>"
    )
    with atomic_write(path, "w") as handle:
        handle.write(head)
        handle.writelines(sections)
        handle.write("</body></html>\n")


def _lesion_table(lesions: Sequence[MeasuredLesion], total: int) -> str:
    if not lesions:
        return "<p>No lesion was measured or found.</p>"
    named = any(lesion.name for lesion in lesions)
    names = ["", *(["Segment"] if named else []), "%DS", "%AS", "MLD", "Reference"]
    names += ["Proximal, distal", "Length", "Chosen by"]
    rows = []
    for number, lesion in enumerate(lesions, 1):
        sides = [
            _length(lesion, f"{side}_reference_diameter", plain=True)
            for side in ("proximal", "distal")
        ]
        cells = [
            f"<b>{number}</b>",
            *([_segment(lesion) or _NONE] if named else []),
            _share(lesion, "diameter_stenosis_percent"),
            _share(lesion, "area_stenosis_percent"),
            _length(lesion, "minimum_diameter"),
            _length(lesion, "reference_diameter"),
            ", ".join(sides),
            _length(lesion, "lesion_length", plain=True),
            "reader" if lesion.by_reader else "program",
        ]
        rows.append(_row("td", cells))
    notes = ["%DS, %AS: diameter and area stenosis. MLD: minimum lumen diameter."]
    if any(lesion.model for lesion in lesions):
        notes.append("a → b: in the model's mask, and after the reader's correction.")
    if any(lesion.number("minimum_diameter_mm_error") for lesion in lesions):
        notes.append("±: the calibration's standard error.")
    if not all(lesion.is_resolved for lesion in lesions):
        notes.append(
            "?: the vessel is thinner there than the blur of the image; its diameter "
            "cannot be measured."
        )
    if total > len(lesions):
        notes.append(f"{total - len(lesions)} more narrowings were found.")
    return (
        f"<table class='lesions'>{_row('th', names)}{''.join(rows)}</table>"
        f"<p class='key'>{' '.join(notes)}</p>"
    )


def _row(tag: str, cells: Sequence[str]) -> str:
    return "<tr>" + "".join(f"<{tag}>{cell}</{tag}>" for cell in cells) + "</tr>"


def _segment(lesion: MeasuredLesion) -> str:
    return escape(lesion.name) + " (proposed)" * lesion.is_proposed


def _heading(lesion: MeasuredLesion) -> str:
    named = f"{segment}, " if (segment := _segment(lesion)) else ""
    return f"{named}{_share(lesion, 'diameter_stenosis_percent', plain=True)} stenosis"


def _share(lesion: MeasuredLesion, name: str, *, plain: bool = False) -> str:
    doubt = "" if lesion.is_resolved else " ?"
    now, former = (
        _NONE if value is None else f"{value:.0f}"
        for value in (lesion.number(name), lesion.number(name, of_model=True))
    )
    return f"{_change(_NONE if plain else former, now)}&nbsp;%{doubt}"


def _length(lesion: MeasuredLesion, name: str, *, plain: bool = False) -> str:
    """A length with its error, and the model's before it unless ``plain``."""
    mm, error = lesion.number(f"{name}_mm"), lesion.number(f"{name}_mm_error")
    if mm is None:
        pixels, unit, digits = lesion.number(f"{name}_px"), "px", 1
        former = lesion.number(f"{name}_px", of_model=True)
    else:
        pixels, unit, digits = mm, "mm", 2
        former = lesion.number(f"{name}_mm", of_model=True)
    if pixels is None:
        return _NONE
    now = f"{pixels:.{digits}f}"
    if plain:
        return f"{now}&nbsp;{unit}"
    text = _change(_NONE if former is None else f"{former:.{digits}f}", now)
    spread = "" if error is None or mm is None else f"&nbsp;±&nbsp;{error:.2f}"
    return f"{text}{spread}&nbsp;{unit}"


def _change(former: str, now: str) -> str:
    return now if former in (_NONE, now) else f"{former} → <b>{now}</b>"


def _signed(value: float, unit: str) -> str:
    named = "points" if unit == "%" else unit
    return f"{signed_number(value, unit)}&nbsp;{named}"


def _calibration_text(calibration: Calibration) -> str:
    if calibration.mm is None:
        return "unknown: lengths are in pixels"
    error = calibration.error
    spread = "" if error is None else f" ± {100 * error:.1f} %"
    source = f", {calibration.source}" if calibration.source else ""
    return f"{calibration.mm:.4g} mm{spread}{source}"


def _change_text(
    changed: int | None,
    added: int | None,
    provenance: Provenance,
    calibration: Calibration,
) -> str:
    if changed is None:
        return "by a reader" if provenance.corrected else "none"
    if not changed:
        return "none"
    if added is None:
        return f"changed {_area(changed, calibration)}"
    removed = _area(changed - added, calibration)
    return f"added {_area(added, calibration)}, removed {removed}"


def _area(pixels: int, calibration: Calibration) -> str:
    if calibration.mm is None:
        return f"{pixels} px"
    return f"{pixels * calibration.mm**2:.1f} mm²"
