"""How the next training of a study is made: a small form."""

from __future__ import annotations

from typing import TYPE_CHECKING

from magicgui.widgets import ComboBox, Container, SpinBox
from psygnal import Signal

from napari_cmunet.core.models import START_MODEL
from napari_cmunet.gui.sections import TAB_ONLY

if TYPE_CHECKING:
    from napari_cmunet.study.settings import Settings

CURRENT = "current"
_MOST_MINUTES, _MOST_LABELS = 600, 999


class TrainingOptions:
    """Where to start, how long, and when by itself; all of it kept with the study."""

    #: A value was chosen: its name in the study's settings, and the value.
    chosen = Signal(str, object)

    def __init__(self) -> None:
        self.start = ComboBox(
            label="Start from",
            choices=self._starts(START_MODEL),
            tooltip="The self-supervised weights know X-ray vessels but no labels: all "
            "labels of the study are learned from them, and nothing old is dragged "
            "along. The model in use forgets less and learns faster.",
        )
        self.minutes = SpinBox(
            label="Time budget",
            min=0,
            max=_MOST_MINUTES,
            tooltip="Minutes for a training; all phases fit into them. 0: as long as "
            "the number of labels suggests.",
        )
        self.minutes.native.setSpecialValueText("no limit")
        self.minutes.native.setSuffix(" min")
        self.every = SpinBox(
            label="By itself",
            min=0,
            max=_MOST_LABELS,
            tooltip="Start a training whenever so many labels were newly accepted. "
            "0: never.",
        )
        self.every.native.setSpecialValueText("never")
        self.every.native.setPrefix("after ")
        self.every.native.setSuffix(" labels")
        self.form = Container(widgets=[self.start, self.minutes, self.every])
        self.form.margins = (0, 0, 0, 0)
        for widget in (self.start, self.minutes, self.every):
            widget.native.setFocusPolicy(TAB_ONLY)
        self.start.changed.connect(lambda value: self.chosen.emit("start", value))
        self.minutes.changed.connect(
            lambda value: self.chosen.emit("minutes", float(value) if value else None)
        )
        self.every.changed.connect(
            lambda value: self.chosen.emit("finetune_every", int(value))
        )

    @staticmethod
    def _starts(chosen: str) -> list[tuple[str, str]]:
        starts = [
            (f"self-supervised weights ({START_MODEL})", START_MODEL),
            ("the model in use", CURRENT),
        ]
        if chosen not in (START_MODEL, CURRENT):
            starts.append((chosen, chosen))
        return starts

    def show(self, settings: Settings) -> None:
        """Show the study's settings; tells nobody."""
        with (
            self.start.changed.blocked(),
            self.minutes.changed.blocked(),
            self.every.changed.blocked(),
        ):
            if settings.start not in self.start.choices:
                self.start.choices = self._starts(settings.start)
            self.start.value = settings.start
            self.minutes.value = min(_MOST_MINUTES, round(settings.minutes or 0))
            self.every.value = min(_MOST_LABELS, settings.finetune_every)
