"""Panels on a ViewerModel, with a predictor that does what the test says."""

from __future__ import annotations

import functools
import sys
import threading
import time
from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
from napari.components import ViewerModel
from napari.settings import NapariSettings
from npe2 import PluginManifest
from qtpy.QtCore import QCoreApplication, QPoint, QPointF, Qt
from qtpy.QtGui import QMouseEvent
from qtpy.QtTest import QTest
from qtpy.QtWidgets import QApplication, QOpenGLWidget

from napari_cmunet.cine.subtraction import KEPT_PROBABILITY
from napari_cmunet.gui import controller as controller_module
from napari_cmunet.gui.controller import Controller
from napari_cmunet.gui.panel import CMUNetPanel
from napari_cmunet.gui.prediction.prediction import Engine, ModelChoice
from napari_cmunet.gui.preferences import Preferences

LEFT, NONE = Qt.MouseButton.LeftButton, Qt.KeyboardModifier.NoModifier
CTRL, SHIFT = Qt.KeyboardModifier.ControlModifier, Qt.KeyboardModifier.ShiftModifier


@pytest.fixture(scope="session", autouse=True)
def windows_open_sooner():
    """Spare each window what took it a third of the time.

    npe2 parses every manifest for each, and napari writes its settings many times. For
    drivers of Windows, napari also collects garbage whenever a layer goes.
    """
    parsed = functools.cache(PluginManifest.from_file)

    def from_file(path) -> PluginManifest:
        return parsed(path).model_copy(deep=True)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PluginManifest, "from_file", staticmethod(from_file))
        patch.setattr(NapariSettings, "save", lambda settings, *_, **__: None)
        if sys.platform != "win32":
            patch.setattr("napari._vispy.canvas.gc", SimpleNamespace(collect=int))
        yield


@pytest.fixture
def napari_reader(npe2pm):
    """napari's own reader, which only a window registers."""
    with npe2pm.tmp_plugin(manifest=PluginManifest.from_distribution("napari")):
        yield


@dataclass
class FakeModel:
    """Dark is artery: the probability of a uint8 frame is 255 - frame."""

    devices: tuple[str, ...] = ("cpu",)
    load_error: Exception | None = None
    predict_error: Exception | None = None
    notices: list[str] = field(default_factory=list)
    seen: list[np.ndarray] = field(default_factory=list)
    loaded: list[ModelChoice] = field(default_factory=list)
    threads: set[int] = field(default_factory=set)
    offset: int = 0
    threshold: float = 0.5
    tells_contrast: bool = True

    def __post_init__(self) -> None:
        self.open = threading.Event()
        self.open.set()
        self.one_more = threading.Semaphore(0)

    def __call__(self, choice: ModelChoice) -> Engine:
        self.loaded.append(choice)
        if self.load_error is not None:
            raise self.load_error
        return Engine(
            choice=choice,
            predict=self.predict,
            name=choice.model,
            sha256="a" * 64,
            threshold=self.threshold,
            tells_contrast=self.tells_contrast,
            devices=self.devices,
            device=lambda: "cpu",
            device_text=lambda: "CPU (2 threads)",
            notices=lambda: list(self.notices),
        )

    def predict(self, frame: np.ndarray) -> np.ndarray:
        self.threads.add(threading.get_ident())
        # Shut, it lets through one frame for each release of ``one_more``.
        while not self.open.is_set():
            if self.one_more.acquire(timeout=0.01):
                break
        if self.predict_error is not None:
            raise self.predict_error
        self.seen.append(frame)
        return np.clip(255 - frame.astype(int) + self.offset, 0, 255).astype(np.uint8)

    def let_through(self, frames: int = 1) -> None:
        self.one_more.release(frames)


def frame(seed: int = 0, size: int = 32) -> np.ndarray:
    """Grey noise: every threshold cuts it differently."""
    return np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)


def cine(frames: int = 5, size: int = 32) -> np.ndarray:
    return np.stack([frame(i, size) for i in range(frames)])


def expected(image: np.ndarray, threshold: float = 0.5) -> np.ndarray:
    """The mask that the fake model's prediction gives."""
    cut = int(np.clip(np.ceil(threshold * 255), 1, 255))
    return ((255 - image.astype(int)) >= cut).astype(np.uint8)


@pytest.fixture
def qtbot(qtbot):
    """The one of pytest-qt, with patience for a machine that is slow and busy."""
    qtbot.waitUntil = functools.partial(qtbot.waitUntil, timeout=60_000)
    return qtbot


@pytest.fixture(autouse=True)
def large_masks_are_accepted(monkeypatch):
    """Half of what the fake model makes of noise is artery."""
    monkeypatch.setattr(
        "napari_cmunet.gui.project.annotation.is_large", lambda _: False
    )


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def viewer() -> ViewerModel:
    return ViewerModel()


@pytest.fixture
def make_controller(qtbot, viewer, model):
    made: list[Controller] = []

    def make(on=None, **preferences) -> Controller:
        controller = Controller(
            on if on is not None else viewer,
            predictor_factory=model,
            preferences=Preferences(**preferences),
        )
        made.append(controller)
        return controller

    yield make
    model.open.set()
    for controller in made:
        controller.disconnect()
        assert controller.queue.wait()


@pytest.fixture
def controller(make_controller) -> Controller:
    return make_controller()


@pytest.fixture
def panel(qtbot, viewer, controller) -> CMUNetPanel:
    made = CMUNetPanel(viewer, controller=controller)
    qtbot.addWidget(made)
    return made


@pytest.fixture
def settled(qtbot):
    """Wait until a controller has nothing left to do."""

    def wait(controller: Controller, timeout: int = 60_000) -> None:
        qtbot.waitUntil(lambda: not controller.images.new, timeout=timeout)
        qtbot.waitUntil(lambda: not controller.queue.running, timeout=timeout)
        qtbot.waitUntil(lambda: controller.editor.idle, timeout=timeout)
        QCoreApplication.processEvents()

    return wait


@pytest.fixture
def opened(viewer, controller, settled):
    """A single frame, pre-segmented."""
    image = frame()
    viewer.add_image(image, name="a")
    settled(controller)
    return image


@pytest.fixture
def opened_cine(viewer, controller, settled):
    """A cine, pre-segmented; its first frame is shown."""
    image = cine()
    viewer.add_image(image, name="c")
    settled(controller)
    viewer.dims.set_point(0, 0)
    return image


def pause() -> None:
    time.sleep(0.05)


class Reader:
    """A hand on mouse and keyboard over napari's canvas."""

    def __init__(self, viewer, panel) -> None:
        self.viewer = viewer
        self.canvas = panel.window().findChildren(QOpenGLWidget)[0]

    def at(self, row: float, column: float) -> QPoint:
        """Where a pixel of the image lies on the canvas."""
        camera = self.viewer.scene.camera
        zoom = camera.zoom / self.canvas.devicePixelRatioF()
        y = (row - camera.center[-2]) * zoom + self.canvas.height() / 2
        x = (column - camera.center[-1]) * zoom + self.canvas.width() / 2
        return QPoint(round(x), round(y))

    def drag(self, widget, *points: QPoint) -> None:
        """Press at the first point, move through the others and let go."""
        QTest.mouseMove(widget, points[0])
        QTest.mousePress(widget, LEFT, NONE, points[0])
        for point in points[1:]:
            self.move(widget, point)
        QTest.mouseRelease(widget, LEFT, NONE, points[-1])
        QApplication.processEvents()

    def move(self, widget, point: QPoint) -> None:
        """Move the pointer with the button held."""
        # The canvas drops moves that come within 10 ms, and QTest moves the pointer
        # without a button held.
        QTest.qWait(20)
        place = QPointF(point), QPointF(widget.mapToGlobal(point))
        move = QMouseEvent(QMouseEvent.Type.MouseMove, *place, LEFT, LEFT, NONE)
        QApplication.sendEvent(widget, move)
        QApplication.processEvents()

    def stroke(self, *pixels: tuple[float, float]) -> None:
        """Draw through these pixels."""
        self.drag(self.canvas, *(self.at(*pixel) for pixel in pixels))

    def key(self, key, modifiers=NONE) -> None:
        """Press a key over the canvas."""
        QTest.keyClick(self.canvas, key, modifiers)
        QApplication.processEvents()


@pytest.fixture
def window(make_napari_viewer_proxy, monkeypatch, qtbot, settled):
    """A real window with the docked panel."""
    model = FakeModel()
    monkeypatch.setattr(controller_module, "load_engine", model)
    viewer = make_napari_viewer_proxy(show=True)
    viewer.window.resize(1300, 850)
    _, panel = viewer.window.add_plugin_dock_widget("napari-cmunet", "CM-UNet")
    assert isinstance(panel, CMUNetPanel)
    qtbot.waitExposed(panel)
    yield viewer, panel, model
    model.open.set()
    panel.stop()
    assert panel.controller.queue.wait()
    qtbot.waitUntil(lambda: panel.exporting.idle)


class TellsContrast:
    """Dark is artery; in frames whose corner is dark there is no contrast.

    While it is not open, it waits before the frame that is darkest there.
    """

    def __init__(self) -> None:
        self.open = threading.Event()
        self.open.set()

    def __call__(self, frame):
        probability = 255 - frame
        if frame[0, 0] == 0:
            self.open.wait(60)
        if frame[0, 0] < 128:
            probability = (probability * KEPT_PROBABILITY).astype(np.uint8)
        return probability


@pytest.fixture
def injection(viewer, model):
    """A cine of a wire, and of an artery from the fourth of six frames on."""
    frames = np.full((6, 128, 128), 215, np.uint8)
    frames[:, 30:34, 10:120] = 60
    frames[3:, 50:120, 60:66] = 40
    frames[:3, :2, :2] = 9
    frames[0, :2, :2] = 0
    model.predict = TellsContrast()
    viewer.add_image(frames)
    return frames
