"""The panel's section that fine-tunes, shows how it goes, and which model is in use."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QMessageBox, QScrollArea, QWidget

from napari_cmunet.gui.training.options import TrainingOptions
from napari_cmunet.gui.training.plot import TrainingPlot
from napari_cmunet.gui.training.section_state import describe, describe_preview
from napari_cmunet.gui.widgets import (
    Fold,
    NameCombo,
    button,
    column,
    embolden,
    labelled,
    row,
    text_label,
)

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent

    from napari_cmunet.gui.training.session import TrainingSession
    from napari_cmunet.gui.training.state import ModelPreview


_PREPARE_AFTER_MS = 5000
"""Not at once: a project that is only looked at needs no training process."""


class FinetuneSection(QWidget):
    """Start, Stop, Cancel; the plot; the verdict; Back and Forward among versions.

    Parameters
    ----------
    training : TrainingSession, optional
        Can be given later, and changed, with :meth:`set_training`.
    """

    def __init__(self, training: TrainingSession | None = None) -> None:
        super().__init__()
        self._training: TrainingSession | None = None
        self._preview: ModelPreview | None = None
        self._shown_once = False
        self._build()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.refresh)
        self._prepare_soon = QTimer(self)
        self._prepare_soon.setSingleShot(True)
        self._prepare_soon.timeout.connect(self._prepare)
        self.set_training(training)

    def _build(self) -> None:
        self.labels = text_label()
        self.start = button(
            "Fine-tune",
            "Learn from all accepted labels, in a process of its own; go on correcting "
            "meanwhile",
        )
        self.stop = button("Stop, keep best", "End soon and keep the best model so far")
        self.cancel = button("Cancel", "End now; nothing of this training is kept")
        self.options = TrainingOptions()
        self.plot = TrainingPlot()
        self.status = text_label()
        self.status.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
        )
        self.figures = text_label()
        self.figures.setTextInteractionFlags(
            Qt.TextInteractionFlag.TextSelectableByMouse
        )
        self.details = Fold("Figures", self.figures, is_open=False)
        self.compare = button("Compare on this image   [I]", describe_preview(None).tip)
        self.compare.setCheckable(True)
        self.comparison = text_label()
        self.use = button("", "Segment with the new model from now on")
        self.keep = button("", "Go on with the model in use; the new one stays")
        self.version = NameCombo(
            "The versions of the model, the oldest first; choose one to use it"
        )
        self.back = button("◀ Back", "Use the model before")
        self.forward = button("Forward ▶", "Use the model after, once gone back")
        content = column(
            self.labels,
            self.start,
            row(self.stop, self.cancel, stretch=0),
            self.options.form,
            self.plot,
            self.status,
            self.details,
            self.compare,
            self.comparison,
            row(self.use, self.keep, stretch=0),
            row(labelled("In use", self.version), self.version, stretch=1),
            row(self.back, self.forward),
        )
        content.setContentsMargins(0, 0, 0, 0)
        self.setLayout(content)
        self.start.clicked.connect(self._on_start)
        self.stop.clicked.connect(self._on_stop)
        self.cancel.clicked.connect(self._on_cancel)
        self.compare.clicked.connect(self._on_compare)
        self.use.clicked.connect(self._on_use)
        self.keep.clicked.connect(self._on_keep)
        self.back.clicked.connect(self._on_back)
        self.forward.clicked.connect(self._on_forward)
        self.version.chosen.connect(self._on_version)
        self.options.chosen.connect(self._on_option)

    def set_training(
        self, training: TrainingSession | None, preview: ModelPreview | None = None
    ) -> None:
        """Show the training of another project, or of none.

        Parameters
        ----------
        training : TrainingSession or None
        preview : ModelPreview, optional
            Compares a new model on the open image.
        """
        if preview is not self._preview:
            self._preview = preview
            if preview is not None:
                preview.changed.connect(self._on_changed)
            self._shown_once = False
        if training is self._training and self._shown_once:
            self._show_comparison()  # the open image may be another one
            return
        self._shown_once = True
        if self._training is not None:
            self._training.changed.disconnect(self._on_changed, missing_ok=True)
        self._training = training
        if training is not None:
            training.changed.connect(self._on_changed)
        self.refresh()

    def showEvent(self, event: QShowEvent | None) -> None:
        super().showEvent(event)
        self._on_changed()

    def _prepare(self) -> None:
        if self.isVisible() and self._training is not None and self.start.isEnabled():
            self._training.prepare()

    def scroll_into_view(self) -> None:
        """Unfold the section, and scroll to it."""
        above = self.parentWidget()
        while above is not None:
            if isinstance(above, Fold):
                above.title.setChecked(True)
            if isinstance(above, QScrollArea):
                # Once the layout knows the unfolded section's place.
                QTimer.singleShot(0, self._scroll)
                return
            above = above.parentWidget()

    def _scroll(self) -> None:
        above = self.parentWidget()
        while above is not None and not isinstance(above, QScrollArea):
            above = above.parentWidget()
        if above is not None:
            above.ensureWidgetVisible(self.labels)
            above.ensureWidgetVisible(
                self.keep if self.keep.isVisible() else self.status
            )

    # -- what the user does (the section is disabled without a training) ------

    @property
    def _session(self) -> TrainingSession:
        assert self._training is not None
        return self._training

    def _on_start(self) -> None:
        self._session.start()

    def _on_stop(self) -> None:
        self._session.stop()

    def _on_cancel(self) -> None:
        self._session.cancel()

    def _on_compare(self) -> None:
        if self._preview is not None:
            self._preview.toggle()
        self.refresh()

    def _on_use(self) -> None:
        self._session.decide(True)

    def _on_keep(self) -> None:
        self._session.decide(False)

    def _on_back(self) -> None:
        self._session.back()

    def _on_forward(self) -> None:
        self._session.forward()

    def _on_version(self, index: int) -> None:
        self._session.choose(self._session.state().versions[index])

    def _on_option(self, name: str, value: object) -> None:
        self._session.change_settings(**{name: value})

    # -- showing --------------------------------------------------------------

    def _on_changed(self) -> None:
        # A window that closes deletes its docks; the training may tell more yet.
        if isalive(self) and not self._soon.isActive():
            self._soon.start(0)

    def refresh(self) -> None:
        """Show the training's state as it is now."""
        self.setEnabled(self._training is not None)
        if self._training is None:
            self.labels.setText("Open or make a project first.")
            self._show_rows(running=False, undecided=False, plot=False)
            self._show_comparison()
            self.status.setVisible(False)
            self.details.setVisible(False)
            return
        state = self._training.state()
        shown = describe(state)
        self.labels.setText(shown.labels)
        if state.progress is not None:
            self.plot.show_progress(state.progress)
        self._show_rows(
            running=shown.running,
            undecided=bool(shown.undecided),
            # The curve stays to be looked at when the training is over.
            plot=self.plot.has_content,
        )
        self.start.setEnabled(shown.can_start)
        if shown.can_start and self.isVisible() and not self._prepare_soon.isActive():
            self._prepare_soon.start(_PREPARE_AFTER_MS)
        self.stop.setEnabled(shown.can_stop)
        self.stop.setToolTip(shown.stop_tip)
        self.cancel.setEnabled(shown.can_cancel)
        self.options.form.setEnabled(not shown.running)
        self.options.show(state.settings)
        self.status.setText(shown.status)
        self.status.setVisible(bool(shown.status))
        embolden(self.status, shown.failed)
        self.figures.setText(shown.figures)
        self.details.setVisible(bool(shown.figures))
        self._show_comparison()
        self.use.setText(shown.use_text)
        self.keep.setText(shown.keep_text)
        self.version.show_names(shown.versions, shown.version, "no model")
        self.version.setEnabled(shown.can_choose)
        self.back.setEnabled(shown.can_go_back)
        self.forward.setEnabled(shown.can_go_forward)

    def _show_comparison(self) -> None:
        shown = describe_preview(self._preview)
        self.compare.setVisible(shown.offered)
        self.compare.setEnabled(shown.possible)
        self.compare.setChecked(shown.on)
        self.compare.setToolTip(shown.tip)
        self.comparison.setText(shown.text)
        self.comparison.setVisible(bool(shown.text))

    def _show_rows(self, *, running: bool, undecided: bool, plot: bool) -> None:
        self.start.setVisible(not running)
        self.stop.setVisible(running)
        self.cancel.setVisible(running)
        self.plot.setVisible(plot)
        self.use.setVisible(undecided)
        self.keep.setVisible(undecided)


def ask_before_ending(training: TrainingSession, parent: QWidget | None = None) -> bool:
    """Ask whether a training at work may be ended; True where none is.

    For closing a project or the panel: when the window itself closes, napari asks.
    """
    if not training.running:
        return True
    box = QMessageBox(parent)
    box.setIcon(QMessageBox.Icon.Question)
    box.setText("A fine-tuning is at work.")
    box.setInformativeText(
        "Closing ends it, and what it has learned so far is lost. Labels are safe. To "
        "keep its best model, go on and press “Stop, keep best” first."
    )
    end = box.addButton("End the training", QMessageBox.ButtonRole.DestructiveRole)
    box.addButton("Go on", QMessageBox.ButtonRole.RejectRole)
    box.exec()
    return box.clickedButton() is end
