"""Broken projects from others: each file of a project, and lists of patients."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from napari_cmunet.errors import ProjectError, ReadError
from napari_cmunet.project.export.formats import export_masks
from napari_cmunet.project.patients import read_patients
from napari_cmunet.project.project import Project
from tests.fuzzing.mutations import EXTREMES, NAMES, spoil, spoil_json, stranger
from tests.fuzzing.targets import MEGABYTE
from tests.project.project_making import mask_of, save_model_folder, save_pictures

if TYPE_CHECKING:
    from random import Random

_OBJECTS = (
    "project.json",
    "flags.json",
    "split.json",
    "settings.json",
    "position.json",
)
_OBJECTS += ("models/current.json", "models/tuned-001/training.json")
_OBJECTS += ("models/tuned-001/card.json", "lock")
_ROWS = ("images.jsonl", "images.jsonl", "journal.jsonl", "journal.jsonl")


class ProjectFolder:
    """A project of three images, one of them labelled."""

    limit = 64 * MEGABYTE

    def __init__(self, folder: Path) -> None:
        os.environ["NAPARI_CMUNET_HOME"] = str(folder / "home")
        self._whole, self.folder = folder / "whole", folder / "project"
        self._out = folder / "out"
        save_pictures(self._whole / "pictures", 3)
        with Project.create(self._whole, user="reader") as project:
            project.images.add([self._whole / "pictures"], lambda path: path.parts[0])
            first, second, third = project.images.ids()
            for image in (first, second, first):
                project.labels.accept(image, 0, mask_of(len(image)))
            project.labels.withdraw(second, 0)
            project.drafts.save(third, 0, mask_of(2))
            project.skip(second)
            project.comment(third, "odd")
            project.flag(third)
            project.change_settings(finetune_every=5)
            project.remember_position(third)
            save_model_folder(project, "tuned-001")
            project.models.promote("tuned-001")
            project.models.roll_back()
        files = (p for p in self._whole.rglob("*") if p.is_file())
        self._files = {p.relative_to(self._whole): p.read_bytes() for p in files}
        self._changed: list[Path] = []
        self._how: dict[str, bool] = {}
        self._as_it_was = self._thoroughly = False

    def write(self, random: Random) -> None:
        self._restore()
        for _ in range(random.choice((1, 1, 1, 2, 3))):
            kind = random.random()
            if kind < 0.45:
                self._alter_object(random, Path(random.choice(_OBJECTS)))
            elif kind < 0.9:
                self._alter_rows(random, Path(random.choice(_ROWS)))
            else:
                path = random.choice(list(self._files))
                self._put(path, spoil(random, self._files[path]))
        odd = random.random() < 0.04
        if odd:
            self._put_something_else(random)
        read_only = random.random() < 0.75
        salvage = random.random() < 0.5
        self._how = {"read_only": read_only, "salvage": salvage}
        self._thoroughly = random.random() < 0.25
        self._as_it_was = read_only and not odd

    def _restore(self) -> None:
        """Undo what was done to the project, file by file where that is known."""
        if self._as_it_was:
            for path in self._changed:
                (self.folder / path).write_bytes(self._files[path])
        else:
            shutil.rmtree(self.folder, ignore_errors=True)
            shutil.copytree(self._whole, self.folder)
        shutil.rmtree(self._out, ignore_errors=True)
        self._changed = []

    def _alter_object(self, random: Random, path: Path) -> None:
        value = json.loads(self._files[path])
        self._put(path, spoil_json(random, value))

    def _alter_rows(self, random: Random, path: Path) -> None:
        rows = self._files[path].splitlines()
        for _ in range(random.choice((1, 1, 2, 4))):
            at = random.randrange(len(rows))
            kind = random.randrange(6)
            if kind == 0:
                rows.insert(at, random.choice(rows))
            elif kind == 1:
                rows[at] = spoil(random, rows[at])
            elif kind == 2 and path.name == "images.jsonl" and at:
                value = json.loads(self._files[path].splitlines()[-1])
                value[random.choice(("path", "root", "id"))] = random.choice(NAMES)
                rows[at] = json.dumps(value).encode()
            elif kind == 3 and path.name == "journal.jsonl":
                value = json.loads(self._files[path].splitlines()[-1])
                value |= {"what": random.choice(_EVENTS), "n": random.choice(EXTREMES)}
                value |= {k: stranger(random) for k in random.choice(_DETAILS)}
                if random.random() < 0.5:
                    value |= {"image": "0" * 12, "frame": random.choice(EXTREMES)}
                rows[at] = json.dumps(value).encode("utf-8", "replace")
            else:
                try:
                    rows[at] = spoil_json(random, json.loads(rows[at]))
                except (ValueError, RecursionError):
                    rows[at] = b"{}"
        end = b"\n" if random.random() < 0.9 else b""
        self._put(path, b"\n".join(rows) + end)

    def _put(self, path: Path, data: bytes) -> None:
        (self.folder / path).write_bytes(data)
        self._changed.append(path)

    def _put_something_else(self, random: Random) -> None:
        """A link, a folder or a pipe in the place of a file."""
        path = self.folder / random.choice(list(self._files))
        path.unlink(missing_ok=True)
        if not path.parent.is_dir():
            return
        kind = random.randrange(4 if path.parent != self.folder else 3)
        if kind == 0:
            path.symlink_to(
                random.choice(("/etc/passwd", "/dev/zero", "..", path.name))
            )
        elif kind == 1:
            path.mkdir(exist_ok=True)
        elif kind == 2:
            os.mkfifo(path)
        else:
            shutil.rmtree(path.parent)
            path.parent.symlink_to("/etc")

    def read(self) -> None:
        project = Project.open(self.folder, **self._how)
        try:
            self._look(project)
        finally:
            project.close()

    def _look(self, project: Project) -> None:
        project.take_notices()
        project.progress()
        home = os.path.realpath(self.folder.parent)
        for image in project.images.ids():
            project.status(image)
            try:
                path = project.images.path(image)
            except ProjectError:
                continue
            assert os.path.realpath(path).startswith(home), path
            for frame in project.labels.frames(image):
                try:
                    project.labels.get(image, frame)
                except (ReadError, ProjectError):
                    continue
                project.labels.older(image, frame)
        for image, frame in project.drafts.keys():
            project.drafts.load(image, frame)
        for name in project.models.names():
            project.models.training(name)
            project.models.learned_labels(name)
            project.models.figures(name)
        start = project.settings.start
        assert not set(start) & set("/\\:"), f"a start elsewhere: {start!r}"
        list(project.journal())
        if not self._thoroughly:
            return
        for label in project.labels.read():
            assert label.frame.shape == label.mask.shape
        export_masks(project, self._out, original_names=True)

    def paths(self) -> list[Path]:
        return [p for c in self._changed if (p := self.folder / c).is_file()]


_EVENTS = (
    "accepted",
    "withdrawn",
    "restored",
    "skipped",
    "patient_assigned",
    "trained",
)
_EVENTS += ("promoted", "rolled_back", "rolled_forward", "models_recovered", "flagged")
_DETAILS = (("sha256",), ("model", "sha256", "installed"), ("patient", "side"))
_DETAILS += (("history", "position"), ())


class PatientList:
    """A CSV that says whose images are whose."""

    limit = 64 * MEGABYTE

    def __init__(self, folder: Path) -> None:
        self.path = folder / "patients.csv"
        rows = [f"frame-{n},patient-{n // 2}" for n in range(30)]
        self._whole = "\n".join(["stem,patient", *rows]).encode()

    def write(self, random: Random) -> None:
        data = self._whole
        for _ in range(random.choice((0, 1, 3))):
            at = random.randrange(len(data))
            data = data[:at] + random.choice(_PIECES) + data[at:]
        if random.random() < 0.7:
            data = spoil(random, data)
        self.path.write_bytes(data)

    def read(self) -> None:
        for stem, patient in read_patients(self.path).items():
            assert isinstance(stem, str)
            assert isinstance(patient, str)
            assert np.char.str_len(patient) >= 0

    def paths(self) -> list[Path]:
        return [self.path]


_PIECES = (b'"', b"\r", b"\0", b",,,,", b'""""', b"\xff\xfe", b"\xef\xbb\xbf", b"\n\n")
_PIECES += (
    b"x" * 200_000,
    "\u2028".encode(),
    b'"\n' * 9,
    b";",
    b"\t",
    b"stem,patient\n",
)
