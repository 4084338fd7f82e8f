"""A reader at work in the real window, until killed."""

from __future__ import annotations

import gc
import importlib
import os
import traceback
from random import Random
from typing import TYPE_CHECKING, Any

from napari_cmunet.model.registry import DEFAULT_MODEL
from tests.endurance.crash.disk_faults import DiskFaults
from tests.endurance.crash.hand import Hand
from tests.endurance.crash.ledger import hash_of
from tests.endurance.crash.pipe import teller

if TYPE_CHECKING:
    from pathlib import Path

ACTS = (
    ["stroke"] * 8
    + ["undo"] * 2
    + ["accept"] * 4
    + ["next"] * 3
    + ["previous", "take back", "flag", "export"]
    + ["train"]
    + ["stop", "use"]
    + ["back", "forward"] * 2
)
TRAINING = {"steps": 6, "batch": 2}


class WindowReader:
    """Does one act after the other, telling each before and once it is shown as done.

    Parameters
    ----------
    hand : Hand
    tell : callable
    exports : Path
        Where exports go.
    """

    def __init__(self, hand: Hand, tell: Any, exports: Path) -> None:
        self.hand, self.tell, self.exports = hand, tell, exports
        self._strokes: dict[tuple[str, int], str | None] = {}
        self._promised = ""  # the model that a training may put to use
        reader = hand.reader
        reader.annotation.accepted.connect(self._on_accepted)
        reader.annotation.withdrawn.connect(self._on_taken_back)
        training = reader.training.session
        training.options = TRAINING
        training.model_changed.connect(self._on_model)
        hand.ticked = self._tick

    def act(self) -> None:
        """Do one act, then let the window live for a moment."""
        hand = self.hand
        name = hand.choose.choice(ACTS)
        if not hand.until(lambda: hand.ready, 30):
            hand.reader.messages.dismiss()
            return
        getattr(self, f"_{name.replace(' ', '_')}")()
        self._look_at_notice()
        hand.live(hand.choose.uniform(0, 0.2))

    def _look_at_notice(self) -> None:
        """What the window says is told; then it goes on as a reader would."""
        notice = self.hand.reader.messages.alert
        if notice is not None:
            note = {"kind": "failed", "act": notice.about or "notice"}
            self.tell({**note, "image": self.hand.key[0], "why": notice.text})
            self.hand.reader.messages.dismiss()

    def _shown(self, act: str, **more: Any) -> dict[str, Any]:
        image, frame = self.hand.key
        return {"act": act, "image": image, "frame": frame, **more}

    # -- masks ----------------------------------------------------------------

    def _stroke(self) -> None:
        self.hand.stroke()
        self._drawn()

    def _undo(self) -> None:
        self.hand.click(self.hand.panel.undo)
        self._drawn()

    def _drawn(self) -> None:
        hand = self.hand
        frame = hand.reader.navigator.frame
        pixels = hash_of(hand.mask()) if hand.opened.is_changed(frame) else None
        self._strokes[hand.key] = pixels
        self.tell({"kind": "begin", **self._shown("stroke", pixels=pixels)})

    def _tick(self) -> None:
        """Tell strokes that the window counts as saved."""
        keeper = self.hand.reader.navigator.draft_saver
        if self._strokes and keeper is not None and keeper.saved:
            for (image, frame), pixels in self._strokes.items():
                note = {"act": "stroke", "image": image, "frame": frame}
                self.tell({"kind": "done", **note, "pixels": pixels})
            self._strokes.clear()

    def _accept(self) -> None:
        hand = self.hand
        if hand.mask().any():
            self._strokes.pop(hand.key, None)
            pixels = hash_of(hand.mask())
            self.tell({"kind": "begin", **self._shown("accept", pixels=pixels)})
            hand.accept()

    def _on_accepted(self, key: Any) -> None:
        self._tell_label("accept", key)

    def _take_back(self) -> None:
        if self.hand.page.back.isEnabled():
            self._strokes.pop(self.hand.key, None)
            self.tell({"kind": "begin", **self._shown("take back")})
            self.hand.click(self.hand.page.back)
            self.hand.until(lambda: self.hand.reader.workspace.writer.idle, 20)

    def _on_taken_back(self, key: Any) -> None:
        self._tell_label("take back", key)

    def _tell_label(self, act: str, key: Any) -> None:
        label = self.hand.opened.labels.get(key[1])
        pixels = None if label is None else hash_of(label.mask, label.reviewed)
        file = self.hand.reader.project.labels.hash(*key)
        note = {"act": act, "image": key[0], "frame": key[1]}
        self.tell({"kind": "done", **note, "pixels": pixels, "file": file})

    # -- from image to image --------------------------------------------------

    def _next(self) -> None:
        self.hand.next()

    def _previous(self) -> None:
        self.hand.previous()

    def _flag(self) -> None:
        hand = self.hand
        image = hand.key[0]
        value = not hand.reader.overview.status(image).flagged
        note = {"act": "flag", "name": f"flagged:{image}", "value": value}
        self.tell({"kind": "begin", **note})
        hand.click(hand.page.flag)
        hand.until(lambda: hand.reader.workspace.writer.idle, 20)
        if hand.reader.overview.status(image).flagged == value:
            self.tell({"kind": "done", **note})

    def _export(self) -> None:
        from napari_cmunet.gui.project.actions import export_labels
        from napari_cmunet.project.export.formats import ExportOptions

        folder = self.exports / "from-window"
        self.tell({"kind": "begin", "act": "export", "folder": str(folder)})
        options = ExportOptions(folder, overwrite=True)
        export_labels(self.hand.reader, options, lambda: None, lambda *_: None)
        self.hand.live(self.hand.choose.uniform(0, 0.5))

    # -- models ---------------------------------------------------------------

    @property
    def _models(self) -> Any:
        return self.hand.reader.project.models

    def _train(self) -> None:
        if not self.hand.reader.training.session.running:
            self._promised = self._models.free_name()
            self._begin_model(self._promised)
            if self.hand.click(self.hand.finetune.start):
                self.tell({"kind": "done", "act": "start a training"})

    def _begin_model(self, name: str) -> None:
        note = {"act": "model", "name": "model", "value": name}
        self.tell({"kind": "begin", **note})

    def _stop(self) -> None:
        self.hand.click(self.hand.finetune.stop)

    def _cancel(self) -> None:
        if self.hand.choose.random() < 0.3:
            self.hand.click(self.hand.finetune.cancel)

    def _use(self) -> None:
        name = self.hand.reader.training.session.state().undecided
        if name:
            self._begin_model(name)
            self.hand.click(self.hand.finetune.use)

    def _back(self) -> None:
        self._go(-1, self._models.history.can_go_back, self.hand.finetune.back)

    def _forward(self) -> None:
        self._go(1, self._models.history.can_go_forward, self.hand.finetune.forward)

    def _go(self, by: int, possible: bool, button: Any) -> None:
        name = self._models.history.moved(by).current.name if possible else ""
        if name not in ("", DEFAULT_MODEL):  # that one is large, and slow
            self._begin_model(name)
            self.hand.click(button)

    def _on_model(self, version: Any) -> None:
        note = {"act": "model", "name": "model", "value": version.name}
        self.tell({"kind": "done", **note})
        if self.hand.reader.training.session.running and self._promised:
            self._begin_model(self._promised)


def import_all() -> None:
    """Import what a window needs, so that each one that is forked starts sooner."""
    for name in (
        "napari.viewer",
        "napari._qt.qt_viewer",
        "napari_cmunet.gui.panel",
        "napari_cmunet.model.predictor",
        "numba",
        "pandas",
        "scipy.linalg",
        "skimage.color.colorconv",
    ):
        importlib.import_module(name)
    gc.freeze()


def read_until_killed(
    project: Path, exports: Path, descriptor: int, seed: str, faults: float
) -> None:
    """Open the project in a window and work. Does not return."""
    tell, choose = teller(descriptor), Random(seed)
    try:
        hand = Hand(choose)
        if not hand.open(project, 600):
            raise RuntimeError(
                f"the project did not open: {hand.reader.messages.alert}"
            )
        image, frame = hand.key
        opened = {"image": image, "frame": frame, "pixels": hash_of(hand.mask())}
        asked = hand.reader.messages.alert
        tell({"kind": "opened", **opened, "asked": asked.text if asked else ""})
        if faults:
            DiskFaults(project, choose, faults).install()
        reader = WindowReader(hand, tell, exports)
        while True:
            reader.act()
    except BaseException:  # noqa: BLE001
        tell({"kind": "fault", "text": traceback.format_exc()})
    os._exit(1)
