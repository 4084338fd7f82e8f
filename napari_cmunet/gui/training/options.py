"""The options of the next training of a project, as a small form."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from magicgui.widgets import ComboBox
from psygnal import Signal
from qtpy.QtWidgets import QGridLayout, QWidget

from napari_cmunet.gui.widgets import keep_narrow, labelled
from napari_cmunet.model.registry import DEFAULT_MODEL, START_MODEL
from napari_cmunet.training.options import CURRENT

if TYPE_CHECKING:
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
