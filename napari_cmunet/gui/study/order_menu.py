"""The menu that says which image Next opens."""

from __future__ import annotations

from typing import TYPE_CHECKING

from qtpy.QtGui import QActionGroup
from qtpy.QtWidgets import QMenu, QWidget

from napari_cmunet.study.next_image import LISTED, RANDOM, UNSURE

if TYPE_CHECKING:
    from napari_cmunet.gui.study.next_image import NextImage

_TEXTS = {
    LISTED: ("As listed", "The next one in the list that has no label"),
    RANDOM: ("At random", "Any without a label, each as likely"),
    UNSURE: (
        "Where the model is least sure",
        "Images with most in doubt first, patients in turn, and one in four at random. "
        "They are looked through in the background, while nothing else is predicted.",
    ),
}


class OrderMenu(QMenu):
    """One of three orders is chosen; the list goes to any image all the same.

    Parameters
    ----------
    next_image : NextImage
    parent : QWidget
    """

    def __init__(self, next_image: NextImage, parent: QWidget) -> None:
        super().__init__("Next image", parent)
        self._next_image = next_image
        self.setToolTipsVisible(True)
        group = QActionGroup(self)
        self.orders = {}
        for order, (text, tip) in _TEXTS.items():
            action = self.addAction(text)
            action.setCheckable(True)
            action.setToolTip(tip)
            action.triggered.connect(lambda _=False, o=order: next_image.choose(o))
            group.addAction(action)
            self.orders[order] = action
        self.addSeparator()
        self.how_far = self.addAction("")
        self.how_far.setEnabled(False)
        self.aboutToShow.connect(self.refresh)

    def refresh(self) -> None:
        """Show the order, and how far the scoring is."""
        next_image = self._next_image
        if next_image.order in self.orders:
            self.orders[next_image.order].setChecked(True)
        done, total = next_image.scored
        text = next_image.problem or f"{done} of {total} images looked through"
        self.how_far.setText(text)
        self.how_far.setVisible(next_image.order == UNSURE)
