"""What a prediction depends on, in the panel: model, device, threshold, inversion."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from qtpy.QtCore import Qt, Signal
from qtpy.QtWidgets import (
    QCheckBox,
    QDoubleSpinBox,
    QGridLayout,
    QHBoxLayout,
    QInputDialog,
    QSlider,
    QWidget,
)
from superqt.utils import signals_blocked

from napari_cmunet.errors import UsageError
from napari_cmunet.gui.images.layers import (
    METADATA,
    is_inverted,
    record_of,
    source_array,
)
from napari_cmunet.gui.jobs import JobRunner
from napari_cmunet.gui.preferences import load_preferences, save_preference
from napari_cmunet.gui.widgets import (
    TAB_ONLY,
    combo,
    embolden,
    ignore_wheel,
    labelled,
    text_label,
)
from napari_cmunet.io.polarity import invert, invert_window
from napari_cmunet.util.cluster import check_address, is_address

if TYPE_CHECKING:
    from napari_cmunet.gui.controller import Controller
    from napari_cmunet.gui.images.image_state import ImageState
    from napari_cmunet.model.card import ModelCard

_OTHER = "remote"
DEVICE_TEXT = {
    "auto": "automatic",
    "cpu": "CPU",
    "cuda": "graphics card (CUDA)",
    "mps": "Apple graphics (MPS)",
    _OTHER: "Remote…",
}


class ModelSection(QWidget):
    """Combo boxes for model and device, with a line about each."""

    def __init__(self, controller: Controller) -> None:
        super().__init__()
        self._controller = controller
        self._finder = JobRunner("Listing the models")
        self.destroyed.connect(self._finder.cancel)
        self._cards: dict[str, ModelCard] = {}
        self.model = combo("The model that segments from now on")
        self.about = text_label()
        self.device = combo(
            "Where the network runs. On a remote cluster only fine-tuning does"
        )
        self._cluster = load_preferences().cluster
        self.in_use = text_label()
        layout = QGridLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.setVerticalSpacing(4)
        layout.setColumnStretch(1, 1)
        self.model_label = labelled("M&odel", self.model)
        layout.addWidget(self.model_label, 0, 0)
        layout.addWidget(self.model, 0, 1)
        layout.addWidget(self.about, 1, 0, 1, 2)
        layout.addWidget(labelled("&Device", self.device), 2, 0)
        layout.addWidget(self.device, 2, 1)
        layout.addWidget(self.in_use, 3, 0, 1, 2)
        self._show_models([])
        self.show_devices(("cpu",))
        self.model.activated.connect(self._on_model)
        self.device.activated.connect(self._on_device)

    # -- models ---------------------------------------------------------------

    def look_for_models(self) -> None:
        """List the installed models, in a worker."""
        self._finder.start(
            lambda report, should_stop: _list_models(), on_result=self._show_models
        )

    def _show_models(self, found: list[tuple[ModelCard, Path]]) -> None:
        with signals_blocked(self.model):
            self.model.clear()
            for card, folder in found:
                # Self-supervised models only serve as a start of training.
                if card.kind == "artery":
                    self.model.addItem(card.name, folder.name)
                    self._cards[folder.name] = card
        self._select(self._controller.choice.model)

    def _select(self, model: str) -> None:
        """Show the model in use, be it listed or not."""
        with signals_blocked(self.model):
            if self.model.findData(model) < 0:
                self.model.addItem(Path(model).name, model)
            self.model.setCurrentIndex(self.model.findData(model))
        self._show_about()

    def show_choice(self, *, in_project: bool) -> None:
        """Show the model in use; a project shows its own in *Fine-tune*."""
        for widget in (self.model, self.model_label):
            widget.setVisible(not in_project)
        self._show_about()
        chosen = self._controller.choice.model
        if self.model.currentData() != chosen:
            self._select(chosen)

    def _on_model(self) -> None:
        model = self.model.currentData()
        self._controller.set_choice(model=model)
        save_preference("model", model)
        self._show_about()

    def _show_about(self) -> None:
        card = self._cards.get(self.model.currentData())
        self.about.setText(card.description if card else "")
        self.about.setVisible(bool(self.about.text()) and not self.model.isHidden())

    # -- devices --------------------------------------------------------------

    def show_devices(self, devices: tuple[str, ...]) -> None:
        """Offer the devices of this machine, and the chosen one in any case."""
        self._devices = devices
        chosen = self._controller.choice.device
        names = ["auto", *devices]
        for name in (self._cluster, chosen):
            if name and name not in names:
                names.append(name)
        names.append(_OTHER)
        if names == [self.device.itemData(i) for i in range(self.device.count())]:
            return
        with signals_blocked(self.device):
            self.device.clear()
            for name in names:
                text = f"remote: {name}" if is_address(name) else name
                self.device.addItem(DEVICE_TEXT.get(name, text), name)
            self.device.setCurrentIndex(self.device.findData(chosen))

    def _on_device(self) -> None:
        device = self.device.currentData()
        if device == _OTHER:
            device = self._ask_for_cluster()
        self._controller.set_choice(device=device)
        if not is_address(device):
            save_preference("device", device)
        self.device.setCurrentIndex(self.device.findData(device))

    def _ask_for_cluster(self) -> str:
        """Ask for the address of a cluster; keep the device if none is given."""
        title, text = "Remote cluster", "Address of its Dask scheduler:"
        address, answer = self._cluster or "tls://", True
        while answer:
            address, answer = QInputDialog.getText(self, title, text, text=address)
            address = address.strip()
            try:
                check_address(address)
            except UsageError as error:
                text = f"{error}\n\nAddress of its Dask scheduler:"
                continue
            if answer:
                self._cluster = address
                save_preference("cluster", address)
                self.show_devices(self._devices)
                return address
        return self._controller.choice.device

    def show_device_in_use(self, text: str) -> None:
        """Show the device in use."""
        self.in_use.setText(text)
        self.in_use.setVisible(bool(text))


def _list_models() -> list[tuple[ModelCard, Path]]:
    from napari_cmunet.model.registry import list_models

    return list_models()


_STEPS = 100
# Steps within this time of each other are one undo step.
_JOIN_SECONDS = 1.0


class ThresholdSlider(QWidget):
    """Slider and number field for a threshold in steps of 0.01.

    Signals
    -------
    grabbed, released
        A drag begins and ends; the moves in between are one change.
    moved : float, bool
        The new value, and whether it continues a step made just before.
    """

    grabbed = Signal()
    moved = Signal(float, bool)
    released = Signal()

    def __init__(self) -> None:
        super().__init__()
        self.slider = QSlider(Qt.Orientation.Horizontal)
        self.slider.setFocusPolicy(TAB_ONLY)
        self.slider.setRange(0, _STEPS)
        self.slider.setPageStep(5)
        self.number = QDoubleSpinBox()
        self.number.setRange(0, 1)
        self.number.setSingleStep(1 / _STEPS)
        self.number.setDecimals(2)
        self.number.setKeyboardTracking(False)
        self.number.setButtonSymbols(QDoubleSpinBox.ButtonSymbols.NoButtons)
        self.number.setFixedWidth(8 * self.number.fontMetrics().averageCharWidth())
        self.number.setFocusPolicy(Qt.FocusPolicy.StrongFocus)
        ignore_wheel(self.slider)
        ignore_wheel(self.number)
        self._last_step = float("-inf")
        layout = QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(self.slider, 1)
        layout.addWidget(self.number)
        self.setFocusProxy(self.slider)
        self.slider.sliderPressed.connect(self.grabbed)
        self.slider.sliderReleased.connect(self.released)
        self.slider.valueChanged.connect(self._on_slider)
        self.number.valueChanged.connect(self._on_number)

    def value(self) -> float:
        """Return the threshold."""
        return self.slider.value() / _STEPS

    def show_value(self, value: float) -> None:
        """Show a value without emitting a signal."""
        if self.slider.isSliderDown():
            return
        with signals_blocked(self.slider), signals_blocked(self.number):
            self.slider.setValue(round(value * _STEPS))
            if not self.number.hasFocus():
                self.number.setValue(value)

    def step(self, by: int) -> None:
        """Move by hundredths, for the shortcuts."""
        self.slider.setValue(self.slider.value() + by)

    def _on_slider(self, value: int) -> None:
        with signals_blocked(self.number):
            self.number.setValue(value / _STEPS)
        self._emit()

    def _on_number(self, value: float) -> None:
        with signals_blocked(self.slider):
            self.slider.setValue(round(value * _STEPS))
        self._emit()

    def _emit(self) -> None:
        now = time.monotonic()
        join = now - self._last_step < _JOIN_SECONDS
        self._last_step = float("-inf") if self.slider.isSliderDown() else now
        self.moved.emit(self.value(), join)


def invert_image(image_state: ImageState) -> None:
    """Invert the grey values of an image; twice restores them. Masks stay."""
    image = image_state.image
    if image.multiscale or image_state.unsupported is not None:
        return
    data = source_array(image)
    limits = invert_window(tuple(image.contrast_limits), data.dtype)
    record = {**record_of(image), "is_inverted": not is_inverted(image)}
    was_replaced = image_state.image_replaced
    image.metadata = {**image.metadata, METADATA: record}
    image.data = invert(data)
    image.contrast_limits_range = sorted(
        (
            min(limits[0], image.contrast_limits_range[0]),
            max(limits[1], image.contrast_limits_range[1]),
        )
    )
    image.contrast_limits = limits
    image_state.image_replaced = was_replaced  # still the pixels of its file
    image_state.bright_vessels = False


class InvertSwitch(QCheckBox):
    """Inverts the active image; the panel calls ``refresh``."""

    def __init__(self, controller: Controller) -> None:
        super().__init__("Invert")
        self._controller = controller
        self.setToolTip(
            "The model expects dark arteries. Invert the grey values of an image whose "
            "arteries are bright; masks stay."
        )
        self.setFocusPolicy(TAB_ONLY)
        self.clicked.connect(self._on_clicked)

    def _on_clicked(self) -> None:
        image_state = self._controller.active
        if image_state is not None:
            invert_image(image_state)
            if self._controller.pre_segment:
                self._controller.segment()

    def refresh(self) -> None:
        """Show whether the image is inverted; offer it where arteries seem bright."""
        image_state = self._controller.active
        bright = image_state is not None and image_state.bright_vessels
        self.setEnabled(image_state is not None and image_state.unsupported is None)
        self.setChecked(image_state is not None and is_inverted(image_state.image))
        self.setText("Invert: seems bright" if bright else "Invert")
        embolden(self, bright)
