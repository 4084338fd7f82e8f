"""The panel's section that fine-tunes, shows how it goes, and which model is in use."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from psygnal import Signal
from qtpy.compat import isalive
from qtpy.QtCore import Qt, QTimer
from qtpy.QtWidgets import QGridLayout, QScrollArea, QWidget

from napari_cmunet.gui.canvas import slow_spinner
from napari_cmunet.gui.dialogs import confirm
from napari_cmunet.gui.plot import TrainingPlot
from napari_cmunet.gui.widgets import (
    Fold,
    NameCombo,
    button,
    column,
    embolden,
    keep_narrow,
    labelled,
    row,
    text_label,
)
from napari_cmunet.model.registry import DEFAULT_MODEL, START_MODEL
from napari_cmunet.training.options import CURRENT

if TYPE_CHECKING:
    from qtpy.QtGui import QShowEvent

    from napari_cmunet.gui.project.model_preview import ModelPreview
    from napari_cmunet.gui.training.session import TrainingSession
    from napari_cmunet.project.settings import Settings

# By the name of the project's setting: label, choices, tooltip.
_FORM: dict[str, tuple[str, list[tuple[str, Any]], str]] = {
    "start": (
        "Start from",
        [
            ("bundled artery model", DEFAULT_MODEL),
            ("self-supervised weights", START_MODEL),
            ("model in use", CURRENT),
        ],
        "The weights to start from; all labels of the project are learned. The bundled "
        "artery model was trained on 1,189 public frames, which helps most with few "
        "labels. The self-supervised weights have seen no label. The model in use "
        "keeps what earlier trainings have learned, mistakes too.",
    ),
    "minutes": (
        "Time",
        [("no limit", None)]
        + [(f"{n} minutes at most", float(n)) for n in (2, 5, 10, 20, 40, 60)],
        "Time limit of a training with all its phases",
    ),
    "finetune_every": (
        "Start",
        [("by the button", 0)]
        + [(f"every {n} new labels", n) for n in (3, 5, 10, 20, 50)],
        "Whether trainings start automatically as labels are accepted",
    ),
    "adapt": (
        "First labels",
        [("adapt the model", True), ("wait for a training", False)],
        "From the labels of three patients on, choose the threshold, the side branches "
        "and the grid of the model anew, without a training. It takes seconds, and is "
        "used if it is better on patients that did not choose",
    ),
}


class TrainingOptions:
    """Start model, time limit and automatic start, all kept with the project."""

    #: A value was chosen: its name in the project's settings, and the value.
    chosen = Signal(str, object)

    def __init__(self) -> None:
        self.form = QWidget()
        layout = QGridLayout(self.form)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(4)
        layout.setColumnStretch(1, 1)
        #: By the name of the project's setting.
        self.boxes: dict[str, ComboBox] = {}
        for line, (name, (label, choices, tooltip)) in enumerate(_FORM.items()):
            box = ComboBox(label=label, choices=choices, tooltip=tooltip)
            keep_narrow(box.native, tooltip)
            layout.addWidget(labelled(label, box.native), line, 0)
            layout.addWidget(box.native, line, 1)
            box.changed.connect(partial(self.chosen.emit, name))
            self.boxes[name] = box

    def show(self, settings: Settings) -> None:
        """Show the project's settings without emitting ``chosen``."""
        texts = {
            "start": settings.start,
            "minutes": f"{settings.minutes or 0:g} minutes at most",
            "finetune_every": f"every {settings.finetune_every} new labels",
        }
        for name, box in self.boxes.items():
            value = getattr(settings, name)
            with box.changed.blocked():
                if value not in box.choices:
                    box.set_choice(texts[name], value)
                if box.value != value:
                    box.value = value


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
        self._scroll_to_plot = False  # after Start, until there is something to see
        self._build()
        self._soon = QTimer(self)
        self._soon.setSingleShot(True)
        self._soon.timeout.connect(self.refresh)
        self._prepare_soon = QTimer(self)
        self._prepare_soon.setSingleShot(True)
        self._prepare_soon.timeout.connect(self._prepare)
        self._clock = QTimer(self)  # the time left falls between events, too
        self._clock.setInterval(1000)
        self._clock.timeout.connect(self._on_changed)
        self.set_training(training)

    def _build(self) -> None:
        self.labels = text_label()
        self.start = button(
            "Fine-tune",
            "Learn from all accepted labels, in a process of its own; go on correcting "
            "meanwhile",
        )
        self.stop = button("Stop, keep best", "End soon and keep the best model so far")
        self.cancel = button("Cancel", "End now; only a first model in use is kept")
        self.options = TrainingOptions()
        self.plot = TrainingPlot()
        self.status, self.figures = text_label(), text_label()
        for text in (self.status, self.figures):
            text.setTextInteractionFlags(Qt.TextInteractionFlag.TextSelectableByMouse)
        self.details = Fold("Figures", self.figures, is_open=False)
        self.compare = button(
            "Compare on this image   [I]",
            "Show what a new model would change",
            checkable=True,
        )
        self.comparison = text_label()
        self.use = button("", "Segment with the new model from now on")
        self.keep = button("", "Go on with the model in use; the new one stays")
        self.version = NameCombo(
            "The versions of the model, the oldest first; choose one to use it"
        )
        self.back = button("◀ Back", "Use the model before")
        self.forward = button("Forward ▶", "Use the model after, once gone back")
        self.setLayout(
            column(
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
        )
        # The section is disabled without a training.
        self.start.clicked.connect(self._on_start)
        self.stop.clicked.connect(lambda: self._session.stop())
        self.cancel.clicked.connect(lambda: self._session.cancel())
        self.use.clicked.connect(lambda: self._session.decide(True))
        self.keep.clicked.connect(lambda: self._session.decide(False))
        self.back.clicked.connect(lambda: self._session.back())
        self.forward.clicked.connect(lambda: self._session.forward())
        self.compare.clicked.connect(self._on_compare)
        self.version.chosen.connect(self._on_version)
        self.options.chosen.connect(self._on_option)

    def set_training(
        self, training: TrainingSession | None, preview: ModelPreview | None = None
    ) -> None:
        """Show the training of another project, or of none.

        Parameters
        ----------
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
        self.plot.show_progress(None)
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
        self._scroll_to_plot = True
        self.scroll_into_view()

    def _on_compare(self) -> None:
        if self._preview is not None:
            self._preview.toggle()
        self.refresh()

    def _on_version(self, index: int) -> None:
        version = self._session.state().versions[index]
        if self._session.was_used(version) or self._may_use(version.name):
            self._session.choose(version)
        else:
            self.refresh()

    def _may_use(self, name: str) -> bool:
        return confirm(
            self,
            "Use another model",
            f"Use {name} all the same?",
            f"Use {name}",
            no="Keep the present one",
            details="No comparison has shown that it is better than the model in use. "
            "If you use it, it segments every image from now on; “Back” undoes that.",
        )

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
        if self._training is None or not self._training.running:
            self._clock.stop()
        elif not self._clock.isActive():
            self._clock.start()
            slow_spinner(self.window())
        if self._training is None:
            self.labels.setText("Open or make a project first.")
            self._show_rows(
                running=False, can_cancel=False, undecided=False, plot=False
            )
            self._show_comparison()
            self.status.setVisible(False)
            self.details.setVisible(False)
            return
        state = self._training.state()
        self.labels.setText(state.labels_text)
        if state.progress is not None:
            self.plot.show_progress(state.progress)
        self._show_rows(
            running=state.running,
            can_cancel=state.running or state.adapting,
            undecided=bool(state.undecided),
            # The curve stays to be looked at when the training is over.
            plot=self.plot.has_content,
        )
        if self._scroll_to_plot and self.plot.isVisible():
            self._scroll_to_plot = False
            self.scroll_into_view()
        self.start.setEnabled(state.can_start)
        if state.can_start and self.isVisible() and not self._prepare_soon.isActive():
            self._prepare_soon.start(_PREPARE_AFTER_MS)
        self.stop.setEnabled(state.can_stop)
        self.stop.setToolTip(
            "End now; the best model so far is kept and compared"
            if state.has_model
            else "There is no model to keep yet"
        )
        self.cancel.setEnabled(state.can_cancel)
        self.options.form.setEnabled(not state.running)
        self.options.show(state.settings)
        self.status.setText(state.status)
        self.status.setVisible(bool(state.status))
        embolden(self.status, state.failed)
        self.figures.setText(state.figures)
        self.details.setVisible(bool(state.figures))
        self._show_comparison()
        self.use.setText(f"Use {state.undecided}")
        self.keep.setText(f"Keep {state.current.name}")
        for choice in (self.use, self.keep):
            choice.setEnabled(not state.busy)
        current = state.current
        self.version.show_names(
            [v.name for v in state.versions],
            state.versions.index(current) if current in state.versions else -1,
            "no model",
        )
        self.version.setEnabled(state.can_choose)
        self.back.setEnabled(state.can_go_back)
        self.forward.setEnabled(state.can_go_forward)

    def _show_comparison(self) -> None:
        shown = self._preview.state() if self._preview is not None else None
        self.compare.setVisible(shown is not None)
        self.comparison.setVisible(shown is not None and bool(shown.text))
        if shown is not None:
            self.compare.setEnabled(shown.possible)
            self.compare.setChecked(shown.on)
            self.compare.setToolTip(shown.tip)
            self.comparison.setText(shown.text)

    def _show_rows(
        self, *, running: bool, can_cancel: bool, undecided: bool, plot: bool
    ) -> None:
        self.start.setVisible(not running)
        self.stop.setVisible(running)
        self.cancel.setVisible(can_cancel)
        self.plot.setVisible(plot)
        self.use.setVisible(undecided)
        self.keep.setVisible(undecided)


def ask_before_ending(training: TrainingSession, parent: QWidget | None = None) -> bool:
    """Ask whether a training at work may be ended; True where none is.

    For closing a project or the panel: when the window itself closes, napari asks.
    """
    if not training.running:
        return True
    return confirm(
        parent,
        "Fine-tuning",
        "A fine-tuning is at work.",
        "End the training",
        no="Go on",
        details="Closing ends it, and what it has learned so far is lost. Labels are "
        "safe. To keep its best model, go on and press “Stop, keep best” first.",
    )
