"""The form of an import: masks of other programs, the images they are paired with."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, cast

import numpy as np
from napari.layers import Labels
from qtpy.QtWidgets import (
    QDialog,
    QLineEdit,
    QListWidget,
    QMenu,
    QRadioButton,
    QVBoxLayout,
    QWidget,
)

from napari_cmunet.gui.dialogs import dialog_buttons
from napari_cmunet.gui.images.layers import record_of
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.project.workspace import read_overview
from napari_cmunet.gui.widgets import (
    add_action,
    check,
    combo,
    labelled,
    row,
    text_label,
)
from napari_cmunet.io.masks.label_file import NAMES, Label, names_to_json
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.labels.mask_import import (
    ImportOptions,
    ImportPlan,
    plan_import,
    run_import,
)
from napari_cmunet.util.text import counted

if TYPE_CHECKING:
    from pathlib import Path

    from napari_cmunet.gui.jobs import JobResult, Report, ShouldStop
    from napari_cmunet.gui.project.images.open_image import OpenImage
    from napari_cmunet.gui.project.session import ProjectSession
    from napari_cmunet.io.masks.files import LargeMasks

_LARGE = (
    ("Leave out masks that are mostly artery", "refuse"),
    ("Take them as they are", "keep"),
    ("Exchange artery and background in them", "invert"),
)


class ImportMasksDialog(QDialog):
    """Shows which mask belongs to which image, and asks how to import them.

    Parameters
    ----------
    inputs : list of Path
        Files and folders of masks.
    """

    def __init__(
        self, session: ProjectSession, inputs: list[Path], parent: QWidget | None
    ) -> None:
        super().__init__(parent)
        self.setWindowTitle("Import masks")
        self._session, self._inputs = session, inputs
        self.plan: ImportPlan | None = None
        self._job = JobRunner("Looking at masks")
        self.summary = text_label()
        self.pairs = QListWidget()
        self.pairs.setToolTip("Each mask and the image of the project that it is for")
        self.problems = QListWidget()
        self.problems.setWordWrap(True)
        self.problems.setToolTip("Masks that are left out, and why")
        self.labels = QRadioButton("As labels: they count as accepted")
        self.labels.setToolTip("The model learns from them")
        self.drafts = QRadioButton("As drafts: to be looked at and accepted one by one")
        self.drafts.setToolTip("Nothing is learned from a mask before it is accepted")
        self.labels.setChecked(True)
        self.replace = check(
            "Replace other labels and drafts",
            "The labels stay among their versions; the drafts are lost",
        )
        self.turned = check(
            "Also masks that seem mirrored or turned", "Take them as they are"
        )
        self.large = combo("Masks of which more than a third of a frame is artery")
        for text, value in _LARGE:
            self.large.addItem(text, value)
        self.artery = QLineEdit()
        self.artery.setPlaceholderText("the only one")
        self.artery.setToolTip(
            "Names of the categories that are artery, with commas between them; for "
            "files that tell several apart"
        )
        tip = "Save the masks that fit in the project"
        buttons, self.ok = dialog_buttons(self, "Import", tip, "Import nothing")
        layout = QVBoxLayout(self)
        for widget in (
            self.summary,
            self.pairs,
            self.problems,
            self.labels,
            self.drafts,
            self.replace,
            self.turned,
            self.large,
        ):
            layout.addWidget(widget)
        name = labelled("Categories that are &artery", self.artery)
        layout.addLayout(row(name, self.artery, stretch=1))
        layout.addWidget(buttons)
        self.resize(620, 560)
        self._job.changed.connect(self._on_progress)
        self.labels.toggled.connect(self.find_pairs)
        self.replace.toggled.connect(self.find_pairs)
        self.turned.toggled.connect(self.find_pairs)
        self.large.activated.connect(self.find_pairs)
        self.artery.editingFinished.connect(self.find_pairs)
        self.finished.connect(lambda _: self._job.cancel())
        self.find_pairs()

    def options(self) -> ImportOptions:
        """How the masks are to be imported."""
        names = (name.strip() for name in self.artery.text().split(","))
        return ImportOptions(
            drafts=self.drafts.isChecked(),
            replace=self.replace.isChecked(),
            large_masks=cast("LargeMasks", self.large.currentData()),
            any_orientation=self.turned.isChecked(),
            artery=tuple(name for name in names if name),
        )

    def find_pairs(self) -> None:
        """Pair and check the masks with the chosen options, in a worker."""
        project = self._session.project
        if project is None:
            return
        self.ok.setEnabled(False)
        self.summary.setText("Looking at the masks…")
        options, inputs = self.options(), self._inputs

        def act(report: Report, should_stop: ShouldStop) -> ImportPlan:
            return plan_import(project, inputs, options, report, should_stop)

        self._job.start(
            act,
            on_result=self._on_plan,
            on_error=self.summary.setText,
        )

    def _on_progress(self) -> None:
        job = self._job.job
        if job is not None and job.total:
            self.summary.setText(f"Looking at the masks: {job.done} of {job.total}…")

    def _on_plan(self, plan: ImportPlan) -> None:
        self.plan = plan
        self.pairs.clear()
        self.pairs.addItems([str(pair) for pair in plan.pairs])
        self.problems.clear()
        self.problems.addItems(plan.problems)
        self.problems.setVisible(bool(plan.problems))
        new = counted(plan.new, f"new {_kind(self.drafts.isChecked())}")
        text = f"{new} of {counted(len(plan.pairs), 'mask')}."
        if plan.problems:
            text += f" {counted(len(plan.problems), 'mask')} cannot be used."
        self.summary.setText(text)
        self.ok.setEnabled(plan.new > 0)


def import_masks(
    session: ProjectSession, plan: ImportPlan, options: ImportOptions
) -> None:
    """Save strokes in the open image, then import in a worker."""
    session.navigator.save_then(partial(_import, session, plan, options))


def _import(session: ProjectSession, plan: ImportPlan, options: ImportOptions) -> None:
    project = session.project
    if project is None:
        return

    opened = session.navigator.shown
    shown = opened.id if opened is not None else ""

    def act(report: Report, should_stop: ShouldStop) -> object:
        result = run_import(project, plan, options, report, should_stop)
        pairs = [pair for pair in plan.pairs if pair.image == shown]
        get = project.drafts.load if options.drafts else project.labels.get
        frames = [frame for pair in pairs for frame in pair.frames]
        return result, read_overview(project), {f: get(shown, f) for f in frames}

    def ended(outcome: JobResult) -> None:
        if outcome.error is not None:
            session.messages.show_error(f"Not imported: {outcome.error}")
            return
        if outcome.result is None or session.project is not project:
            return
        result, overview, labels = outcome.result
        session.workspace.set_overview(overview)
        if opened is not None and session.navigator.shown is opened:
            _show(session, opened, labels, drafts=options.drafts)
        text = f"{counted(result.saved, _kind(options.drafts))} imported."
        if result.problems:
            text += f" {counted(len(result.problems), 'mask')} left out."
        if not result.complete:
            text = f"Cancelled. {text}"
        session.messages.show(text, "\n".join((text, *result.problems[:20])))
        for pair in plan.pairs[:1]:
            if result.saved and not options.drafts and pair.frames:
                session.annotation.accepted.emit((pair.image, pair.frames[0]))

    session.run("Importing masks", act, ended)


def _show(
    session: ProjectSession,
    opened: OpenImage,
    labels: dict[int, Label | None],
    *,
    drafts: bool,
) -> None:
    """Show what was imported in the open image."""
    _, area, draft_saver = session.navigator.parts()
    for frame, label in labels.items():
        if label is None:
            continue
        take_over = area.take_over if drafts else area.restored
        opened.show_label(frame, label, take_over(frame, label))
        if not drafts:
            opened.labels[frame] = label
            draft_saver.discard(frame)


def _kind(drafts: bool) -> str:
    return "draft" if drafts else "label"


class LabelsMenu(QMenu):
    """Lists other Labels layers; one of them becomes the mask of the open image."""

    def __init__(self, session: ProjectSession, parent: QWidget) -> None:
        super().__init__("Mask from a Labels layer", parent)
        self._session = session
        self.setToolTipsVisible(True)
        self.aboutToShow.connect(self.fill)

    def fill(self) -> None:
        """List the layers; those of another shape cannot be chosen."""
        self.clear()
        controller = self._session.controller
        state = controller.active
        own = {id(x) for s in controller.image_states for x in s.layers()}
        for layer in controller.viewer.layers:
            if not isinstance(layer, Labels) or id(layer) in own:
                continue
            if "role" in record_of(layer):  # one of this program's previews
                continue
            fits = (
                state is not None
                and state.usable_mask
                and state.mask is not None
                and layer.data.shape == state.mask.data.shape
            )
            tip = (
                "Replace the mask of the open image; can be undone"
                if fits
                else "It is not of the size of the open image"
            )
            use = partial(use_labels, self._session, layer)
            add_action(self, layer.name, tip, use).setEnabled(fits)
        if self.isEmpty():
            add_action(self, "There is no other Labels layer").setEnabled(False)


def use_labels(session: ProjectSession, layer: Labels, _: bool = False) -> None:
    """Replace the mask of the open image by a Labels layer; empty frames stay."""
    opened = session.navigator.shown
    if opened is None or opened.image_state is not session.controller.active:
        session.messages.show("Open an image of the project first.")
        return
    drawn = np.asarray(layer.data) != 0
    origin = Provenance(imported_from="Labels layer")
    used = 0
    for frame, mask in enumerate(drawn.reshape(opened.image_state.shape)):
        if mask.any():
            names = opened.image_state.names.get(frame, ())  # they follow the tree
            note = {NAMES: names_to_json(names)}
            opened.show_label(frame, Label(mask, None, origin, note=note))
            used += 1
    text = f"The mask of {counted(used, 'frame')} is that of the layer “{layer.name}”."
    session.messages.show(f"{text} Accept it, or undo.")
