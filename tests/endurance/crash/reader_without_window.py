"""A reader at work on a project through the programs below the window, until killed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import numpy as np

from napari_cmunet.errors import CMUNetError
from napari_cmunet.model.card import CARD, ModelCard, Preprocessing
from napari_cmunet.model.registry import WEIGHTS
from napari_cmunet.project.export.formats import export_masks
from tests.endurance.crash.ledger import hash_of, value_of

if TYPE_CHECKING:
    from pathlib import Path
    from random import Random

    from napari_cmunet.project.project import Project

Tell = Callable[[dict[str, Any]], None]

ACTS = (
    ["accept"] * 6
    + ["stroke"] * 4
    + ["take back", "restore", "mark", "title", "export"]
    + ["promote", "back", "forward", "rewrite"]
)


class Reader:
    """Does one act after the other, telling each before and after.

    Parameters
    ----------
    project : Project
    choose : Random
    tell : callable
        Told each act as it begins and once it is done.
    exports : Path
        Where exports go.
    """

    acts = ACTS

    def __init__(
        self, project: Project, choose: Random, tell: Tell, exports: Path
    ) -> None:
        self.project, self.choose, self.tell = project, choose, tell
        self.exports = exports
        self._ids = project.images.ids()
        self._last: dict[tuple[str, int], Any] = {}

    def act(self) -> None:
        """Do one act. A failure in words is told; any other is a fault."""
        name = self.choose.choice(self.acts)
        image = self.choose.choice(self._ids[:5])
        try:
            getattr(self, f"_{name.replace(' ', '_')}")(image)
        except CMUNetError as error:
            self.tell(
                {"kind": "failed", "act": name, "image": image, "why": str(error)}
            )

    def _mask(self, image: str) -> np.ndarray:
        shape = self.project.images[image].shape or (64, 64)
        random = np.random.default_rng(self.choose.randrange(2**32))
        return random.random(shape) < 0.05

    def _accept(self, image: str) -> None:
        mask = self._mask(image)
        reviewed = self._mask(image) if self.choose.random() < 0.3 else None
        told = {"act": "accept", "image": image, "pixels": hash_of(mask, reviewed)}
        self.tell({"kind": "begin", **told})
        accepted = self.project.labels.accept(image, 0, mask, reviewed)
        self._last[image, 0] = accepted
        self.tell({"kind": "done", **told, "file": accepted.sha256})

    def _stroke(self, image: str) -> None:
        mask = self._mask(image)
        told = {"act": "stroke", "image": image, "pixels": hash_of(mask)}
        self.tell({"kind": "begin", **told})
        self.project.drafts.save(image, 0, mask)
        self.tell({"kind": "done", **told})

    def _take_back(self, image: str) -> None:
        self.tell({"kind": "begin", "act": "take back", "image": image})
        accepted = self._last.pop((image, 0), None)
        if accepted is None or not self.project.labels.undo_accept(accepted):
            self.project.labels.withdraw(image, 0)
        self._tell_label("take back", image)

    def _restore(self, image: str) -> None:
        older = self.project.labels.older(image, 0)
        if older:
            self.tell({"kind": "begin", "act": "restore", "image": image})
            self.project.labels.restore(self.choose.choice(older))
            self._tell_label("restore", image)

    def _tell_label(self, act: str, image: str) -> None:
        label = self.project.labels.get(image, 0)
        pixels = None if label is None else hash_of(label.mask, label.reviewed)
        file = self.project.labels.hash(image, 0)
        told = {"act": act, "image": image, "pixels": pixels, "file": file}
        self.tell({"kind": "done", **told})

    def _mark(self, image: str) -> None:
        what = self.choose.choice(["skipped", "flagged", "comment"])
        value: Any = self.choose.random() < 0.5
        act = {"skipped": self.project.skip, "flagged": self.project.flag}.get(what)
        if act is None:
            value, act = f"note {self.choose.randrange(1000)}", self.project.comment
        self._change(f"{what}:{image}", value, lambda: act(image, value))

    def _title(self, _: str) -> None:
        title = f"title {self.choose.randrange(1000)}"
        self._change("title", title, lambda: self.project.change_settings(title=title))

    def _change(self, name: str, value: Any, act: Callable[[], Any]) -> None:
        told = {"act": name.partition(":")[0], "name": name}
        self.tell({"kind": "begin", **told, "value": value})
        act()
        self.tell({"kind": "done", **told, "value": value_of(self.project, name)})

    def _promote(self, _: str) -> None:
        models = self.project.models
        name = models.free_name()
        weights = self.choose.randbytes(20_000)
        card = ModelCard(
            name=name,
            kind="artery",
            width=4,
            preprocessing=Preprocessing(),
            sha256=hashlib.sha256(weights).hexdigest(),
        )
        if len(models.names()) < 6:
            with models.new_folder() as new:
                _write(new.folder / WEIGHTS, weights)
                _write(new.folder / CARD, json.dumps(asdict(card)).encode())
                new.note_training({"version": 1, "figures": {}, "labels": []})
                new.finish(name)
            models.register(name)
        else:
            name = self.choose.choice(models.names())
        self._change("model", name, lambda: models.promote(name))

    def _back(self, _: str) -> None:
        history = self.project.models.history
        if history.can_go_back:
            name = history.moved(-1).current.name
            self._change("model", name, self.project.models.roll_back)

    def _forward(self, _: str) -> None:
        history = self.project.models.history
        if history.can_go_forward:
            name = history.moved(1).current.name
            self._change("model", name, self.project.models.roll_forward)

    def _rewrite(self, _: str) -> None:
        with self.project._context.writing():
            self.project.images._write()

    def _export(self, _: str) -> None:
        folder = self.exports / f"export-{self.choose.randrange(2)}"
        told = {"act": "export", "folder": str(folder)}
        self.tell({"kind": "begin", **told})
        export_masks(self.project, folder, overwrite=True)
        self.tell({"kind": "done", **told})


def _write(path: Path, data: bytes) -> None:
    from napari_cmunet.util.safe_files import atomic_write

    with atomic_write(path) as file:
        file.write(data)
