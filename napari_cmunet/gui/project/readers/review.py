"""The reviewer's work: readers' labels side by side, decided, merged or rejected."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

from qtpy.QtWidgets import QGridLayout, QInputDialog, QPushButton, QWidget

from napari_cmunet.gui.project.difference_layer import DifferenceLayer
from napari_cmunet.gui.project.workspace import read_change
from napari_cmunet.gui.widgets import button, text_label

if TYPE_CHECKING:
    from collections.abc import Callable

    from napari_cmunet.gui.images.corrections import Names
    from napari_cmunet.gui.project.images.navigator import Navigator
    from napari_cmunet.gui.project.images.open_image import OpenImage
    from napari_cmunet.gui.project.workspace import Workspace
    from napari_cmunet.io.masks.label_file import Label
    from napari_cmunet.project.readers.agreement import Readings

LAYER = "first, second reader"


class Review:
    """What a reviewer does with the labels of readers in the open image."""

    def __init__(self, workspace: Workspace, navigator: Navigator) -> None:
        self._workspace, self._navigator = workspace, navigator
        self._layer: DifferenceLayer | None = None
        self._drawn: OpenImage | None = None
        navigator.image_left.connect(self._on_left)

    @property
    def readings(self) -> Readings | None:
        """The readers' labels of the shown frame; None if there are none."""
        opened = self._navigator.shown
        if opened is None or self._navigator.opening is not None:
            return None
        return opened.readings.get(self._navigator.frame)

    def name(self, reader: str) -> str:
        """What a reader is called."""
        return self._workspace.overview.readers.name(reader)

    def text(self) -> str:
        """How the readers' labels of the shown frame differ."""
        readings = self.readings
        if readings is None:
            return ""
        names = [self.name(reader) for reader in readings.labels]
        if readings.agreement is None:
            return f"Label of {names[0]}. Accept it, correct it first, or reject it."
        dice, places = readings.agreement[0], readings.agreement[3]
        wrong = "1 wrong place" if places == 1 else f"{places} wrong places"
        return (
            f"Dice {dice:.2f}, {wrong}. Yellow: only {names[0]}; violet: only "
            f"{names[1]}. Choose a mask, correct it, and accept it as decided."
        )

    # -- the difference ---------------------------------------------------------

    def update(self) -> None:
        """Draw how the first two readers differ, once for each image."""
        opened = self._navigator.shown
        if opened is not None and opened is not self._drawn and opened.readings:
            self._drawn = opened
            self._draw(opened)

    def _draw(self, opened: OpenImage) -> None:
        controller = self._workspace.controller
        if self._layer is not None:
            self._layer.remove()
        self._layer = DifferenceLayer(controller, opened.image_state, LAYER)
        for frame, readings in opened.readings.items():
            if readings.agreement is not None:
                first, second = list(readings.labels.values())[:2]
                self._layer.show(frame, second.mask, first.mask)

    def _on_left(self) -> None:
        if self._layer is not None:
            self._layer.remove()
        self._layer = self._drawn = None

    # -- decisions --------------------------------------------------------------

    def use(self, reader: str) -> None:
        """Let mask, names and reviewed area be a reader's, in one undo step."""
        if (readings := self.readings) and reader in readings.labels:
            label = readings.labels[reader]
            self._replace(label, label.names)

    def merge(self, common: bool, _: bool = False) -> None:
        """Let the mask be what all readers have, or what any of them has."""
        if readings := self.readings:
            self._replace(readings.merged(common=common))

    def _replace(self, label: Label, names: Names | None = None) -> None:
        opened, frame = self._navigator.shown, self._navigator.frame
        if opened is not None and opened.image_state.usable_mask:
            _, area, _ = self._navigator.parts()
            companion = area.take_over(frame, label)
            opened.image_state.replace(frame, label.mask, names, companion)
            self._workspace.changed.emit()

    def reject(self, reader: str, reason: str) -> None:
        """Reject a reader's label of the shown frame."""
        opened, project = self._navigator.shown, self._workspace.writable
        if opened is None or project is None:
            return
        image, frame = opened.key(self._navigator.frame)

        def act() -> Any:
            project.reject(reader, image, frame, reason)
            return read_change(project, image)

        self._workspace.writer.submit(
            act,
            partial(self._on_rejected, opened, frame, reader),
            partial(self._workspace.messages.show_error, about="flag"),
        )

    def _on_rejected(
        self, opened: OpenImage, frame: int, reader: str, change: Any
    ) -> None:
        left = opened.readings.pop(frame).without(reader)
        if left is not None:
            opened.readings[frame] = left
        if opened is self._drawn:
            self._draw(opened)
        self._workspace.messages.show(
            f"Rejected: {self.name(reader)} sees the reason. Nothing is learned from "
            "that label."
        )
        self._workspace.apply(change)


class ReviewBox(QWidget):
    """The readings of the shown frame and what can be done with them."""

    def __init__(self, review: Review) -> None:
        super().__init__()
        self._review = review
        self.text = text_label(lines=2)
        self.common = button(
            "Intersection", "Only what all readers have; can be undone"
        )
        self.all = button("Union", "What any of the readers has; can be undone")
        self.use: dict[str, QPushButton] = {}
        self.reject: dict[str, QPushButton] = {}
        self._grid = QGridLayout(self)
        self._grid.setContentsMargins(0, 0, 0, 0)
        self._grid.setSpacing(4)
        self._grid.addWidget(self.text, 0, 0, 1, 2)
        self._grid.addWidget(self.common, 9, 0)
        self._grid.addWidget(self.all, 9, 1)
        self.common.clicked.connect(partial(review.merge, True))
        self.all.clicked.connect(partial(review.merge, False))
        self.hide()

    def show_readings(self) -> None:
        """Show the readings of the shown frame, or nothing."""
        readings = self._review.readings
        self.setVisible(readings is not None)
        if readings is None:
            return
        self.text.setText(self._review.text())
        several = len(readings.labels) > 1
        self.common.setVisible(several)
        self.all.setVisible(several)
        if list(self.use) != list(readings.labels):
            self._make_buttons(list(readings.labels))

    def _make_buttons(self, readers: list[str]) -> None:
        for made in (*self.use.values(), *self.reject.values()):
            self._grid.removeWidget(made)
            made.deleteLater()
        self.use, self.reject = {}, {}
        for row, reader in enumerate(readers, 1):
            name = self._review.name(reader).replace("&", "&&")
            use = button(f"&{row} {name}", "Let the mask be this label; can be undone")
            reject = button(
                "Reject…", f"Let {name} label this frame again, for a reason you give"
            )
            use.clicked.connect(partial(self._review.use, reader))
            reject.clicked.connect(partial(self._on_reject, reader))
            self._grid.addWidget(use, row, 0)
            self._grid.addWidget(reject, row, 1)
            self.use[reader], self.reject[reader] = use, reject

    def _on_reject(self, reader: str) -> None:
        reason, given = ask_text(
            self,
            "Reject this label",
            f"What is {self._review.name(reader)} to mend? The reason stays in the "
            "project's folder.",
        )
        if given:
            self._review.reject(reader, reason)


ask_text: Callable[[QWidget, str, str], tuple[str, bool]] = QInputDialog.getText
"""Asks for a line of text; tests answer in its place."""
