"""How the next training of a project is made: a small form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox
from psygnal import Signal
from qtpy.QtWidgets import QGridLayout, QWidget

from napari_cmunet.gui.widgets import keep_narrow, labelled
from napari_cmunet.model.registry import DEFAULT_MODEL, START_MODEL

if TYPE_CHECKING:
    from napari_cmunet.project.settings import Settings

CURRENT = "current"
_STARTS = [
    ("bundled artery model", DEFAULT_MODEL),
    ("self-supervised weights", START_MODEL),
    ("model in use", CURRENT),
]
_MINUTES = [("as needed", None)] + [
    (f"{n} minutes at most", float(n)) for n in (2, 5, 10, 20, 40, 60)
]
_EVERY = [("when I press it", 0)] + [
    (f"by itself, every {n} new labels", n) for n in (3, 5, 10, 20, 50)
]


class TrainingOptions:
    """Where to start, how long, and when by itself; all of it kept with the project."""

    #: A value was chosen: its name in the project's settings, and the value.
    chosen = Signal(str, object)

    def __init__(self) -> None:
        self.start = ComboBox(
            label="Start from",
            choices=_STARTS,
            tooltip="All labels of the project are learned from there. The bundled "
            "artery model knows arteries from 1,189 public frames, which helps most "
            "while labels are few. The self-supervised weights were taught by no human "
            "label. The model in use keeps what earlier trainings have learned, "
            "mistakes too.",
        )
        self.minutes = ComboBox(
            label="Time",
            choices=_MINUTES,
            tooltip="The most that a training may take; all its phases fit into it",
        )
        self.every = ComboBox(
            label="Starts",
            choices=_EVERY,
            tooltip="Whether trainings start by themselves as labels are accepted",
        )
        self.form = QWidget()
        layout = QGridLayout(self.form)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(4)
        layout.setColumnStretch(1, 1)
        for line, box in enumerate((self.start, self.minutes, self.every)):
            keep_narrow(box.native, box.tooltip)
            layout.addWidget(labelled(box.label, box.native), line, 0)
            layout.addWidget(box.native, line, 1)
        self.start.changed.connect(lambda value: self.chosen.emit("start", value))
        self.minutes.changed.connect(lambda value: self.chosen.emit("minutes", value))
        self.every.changed.connect(
            lambda value: self.chosen.emit("finetune_every", value)
        )

    def show(self, settings: Settings) -> None:
        """Show the project's settings; tells nobody."""
        with (
            self.start.changed.blocked(),
            self.minutes.changed.blocked(),
            self.every.changed.blocked(),
        ):
            _choose(self.start, settings.start, settings.start)
            _choose(self.minutes, settings.minutes, f"{settings.minutes} minutes")
            every = settings.finetune_every
            _choose(self.every, every, f"by itself, every {every} new labels")


def _choose(box: ComboBox, value: object, text: str) -> None:
    """Show a value, offering it if it is not one of the usual ones."""
    if value not in box.choices:
        box.set_choice(text, value)
    if box.value != value:
        box.value = value
