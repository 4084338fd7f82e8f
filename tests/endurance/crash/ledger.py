"""What a project must hold after a crash, from what its reader was shown as done."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from napari_cmunet.errors import CMUNetError
from napari_cmunet.io.masks.files import read_mask
from napari_cmunet.io.masks.label_file import read_label
from napari_cmunet.project.project import Project

Label = tuple[str, str | None] | None
"""Hash of the pixels and, where it is known, of the file; None for no label."""


def hash_of(mask: np.ndarray, reviewed: np.ndarray | None = None) -> str:
    """Tell one mask, with its reviewed part, from any other."""
    digest = hashlib.sha256(str(mask.shape).encode())
    digest.update(np.packbits(mask.astype(bool)))
    if reviewed is not None and not reviewed.all():
        digest.update(np.packbits(reviewed))
    return digest.hexdigest()


class Lost(Exception):
    """Something that was shown as done is not there, or something is half there."""


def must(condition: bool, what: str) -> None:
    """Raise Lost where a promise is not kept."""
    if not condition:
        raise Lost(what)


@dataclass
class Ledger:
    """All that a reader was told, and so what the disk may and must hold.

    Notes have a ``kind``: ``begin`` (the act may or may not be found), ``done`` (it
    must be) or ``failed`` (the reader was told that it was not done).
    """

    labels: dict[tuple[str, int], list[Label]] = field(
        default_factory=lambda: defaultdict(lambda: [None])
    )
    begun: dict[tuple[str, int], list[Label]] = field(
        default_factory=lambda: defaultdict(list)
    )
    #: Files of labels that once counted; none of them may ever vanish.
    files: set[str] = field(default_factory=set)
    #: Strokes by frame that must be found, and that may be.
    drafts: dict[tuple[str, int], str | None] = field(default_factory=dict)
    strokes: dict[tuple[str, int], set[str | None]] = field(
        default_factory=lambda: defaultdict(set)
    )
    #: Marks, the model in use and the like: by name, the values that are possible.
    values: dict[str, list[Any]] = field(default_factory=dict)
    exports: set[str] = field(default_factory=set)
    done: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    failed: dict[str, int] = field(default_factory=lambda: defaultdict(int))
    checked_drafts: int = 0
    #: Hash of the mask that a window has to show of a frame, as of the last check.
    shown: dict[tuple[str, int], str] = field(default_factory=dict)
    #: Whether the disk fails one call at a time, so that what is begun can be undone.
    single_faults: bool = True
    #: Code of the reader whose acts these are.
    reader: str = ""

    def note(self, told: dict[str, Any]) -> None:
        """Take in one note."""
        kind, act = told["kind"], told["act"]
        if kind == "done":
            self.done[act] += 1
        elif kind == "failed":
            self.failed[act] += 1
        key = (told.get("image", ""), told.get("frame", 0))
        if act in ("accept", "take back", "restore"):
            self._note_label(kind, act, key, told)
        elif act == "stroke":
            self._note_stroke(kind, key, told.get("pixels"))
        elif act == "export" and "folder" in told:
            self.exports.add(told["folder"])
        elif "name" in told:
            if kind == "done":
                self.values[told["name"]] = [told["value"]]
            elif kind == "begin":
                self.values.setdefault(told["name"], [None]).append(told["value"])

    def _note_label(self, kind: str, act: str, key: Any, told: dict[str, Any]) -> None:
        if kind == "begin":
            if act == "accept":
                self.begun[key].append((told["pixels"], None))
            else:  # it may become none, or any that it once was
                self.begun[key] += [None, *self.labels[key], *self.all_labels(key)]
        elif kind == "failed":
            # What was refused must not count, unless the disk went on failing.
            if self.single_faults:
                self.begun[key].clear()
        else:
            found: Label = None
            if told["pixels"] is not None:
                found = (told["pixels"], told["file"])
                self.files.add(told["file"])
                self._history.setdefault(key, []).append(found)
            self.labels[key] = [found]
            self.begun[key].clear()
            if act == "accept":
                self.drafts.pop(key, None)
                self.strokes[key].clear()
            elif key in self.drafts:  # it was drawn over another label
                self.strokes[key] |= {None, self.drafts.pop(key)}

    _history: dict[tuple[str, int], list[Label]] = field(default_factory=dict)

    def all_labels(self, key: tuple[str, int]) -> list[Label]:
        """Every label that a frame was told to have, the first one first."""
        return self._history.get(key, [])

    def _note_stroke(self, kind: str, key: Any, pixels: str | None) -> None:
        if kind == "done":
            # Without a difference from the label or the prediction, there is no draft.
            self.drafts.pop(key, None)
            if pixels is not None:
                self.drafts[key] = pixels
            self.strokes[key].clear()
        elif kind == "begin":
            self.strokes[key].add(pixels)

    # -- the check ------------------------------------------------------------

    def check(self, folder: Path, copy: Path) -> None:
        """Look at a copy of a project after a crash; raises Lost.

        What is found is from then on what must be found.
        """
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(folder, copy, copy_function=_copy)
        for path in copy.rglob("*.tif"):
            _read(path)
        try:
            project = Project.open(copy, reader=self.reader)
        except CMUNetError as error:
            raise Lost(f"the project does not open: {error}") from error
        with project:
            notices = project.take_notices()
            must(not notices, f"a question on opening: {notices}")
            self._check_labels(project)
            self._check_drafts(project)
            self._check_models(project)
            self._check_values(project)
            self.shown = {key: _shown(project, key) for key in project.labels.keys()}
            for key in project.drafts.keys():
                if project.drafts.load(*key) is not None:
                    self.shown[key] = _shown(project, key)
            lines = _journal(copy)
        with Project.open(copy, reader=self.reader) as project:
            must(not project.take_notices(), "a question on opening again")
        must(len(_journal(copy)) == len(lines), "it was put in order twice")
        left = [p for p in copy.rglob(".napari-cmunet-*") if ".partial-" not in str(p)]
        must(not left, f"temporary files stayed: {left}")
        for place in self.exports:
            for path in Path(place).rglob("*.tif"):
                read_mask(path)
        shutil.rmtree(copy)

    def _check_labels(self, project: Project) -> None:
        keys = project.labels.keys()
        for key in {*self.labels, *self.begun, *keys}:
            found: Label = None
            if key in keys:
                label = project.labels.get(*key)
                must(label is not None, f"the label of {key} is gone")
                found = (hash_of(label.mask, label.reviewed), project.labels.hash(*key))
            allowed = [*self.labels[key], *self.begun[key]]
            must(
                any(_same(found, one) for one in allowed),
                f"the label of {key} is {found}, none of {allowed}",
            )
            if not any(_same(found, one) for one in self.labels[key]):
                self.drafts.pop(key, None)
            self.labels[key] = [found]
            self.begun[key].clear()
            if found:
                self._history.setdefault(key, []).append(found)
        there = {
            hashlib.sha256(path.read_bytes()).hexdigest()
            for path in (project.labels.root / "labels").rglob("*.tif")
        }
        gone = self.files - there
        must(not gone, f"{len(gone)} label(s) that once counted are nowhere: {gone}")

    def _check_drafts(self, project: Project) -> None:
        for key in {*self.drafts, *self.strokes}:
            draft = project.drafts.load(*key)
            found = None if draft is None else hash_of(draft.mask)
            if key in self.drafts:
                allowed = {self.drafts[key], *self.strokes[key]}
                must(
                    found in allowed,
                    f"the strokes of {key} are {found}, none of {allowed}",
                )
                if found is None:
                    del self.drafts[key]
                else:
                    self.checked_drafts += 1
                    self.drafts[key] = found
            self.strokes[key].clear()

    def _check_models(self, project: Project) -> None:
        project.models.folder()
        for name in project.models.names():
            project.models.version(name)  # its weights are as its card says
        base = project.folder / "models"
        whole = set(project.models.names())
        for path in base.iterdir() if base.is_dir() else ():
            half = path.is_dir() and path.name not in whole
            must(not half or path.name.startswith(".partial-"), f"half a model: {path}")

    def _check_values(self, project: Project) -> None:
        for name, allowed in self.values.items():
            found = value_of(project, name)
            known = [one for one in allowed if one is not None]
            first = len(known) < len(allowed)  # never told as done yet
            must(found in known or first, f"{name} is {found!r}, none of {known!r}")
            self.values[name] = [found]


def value_of(project: Project, name: str) -> Any:
    """A plain value of a project: the model in use, a mark, the title."""
    what, _, image = name.partition(":")
    if what == "model":
        return project.models.current.name
    if what == "title":
        return project.settings.title
    if what == "rejected":  # a version of a label, by its hash
        rejection = project.reviews.rejection(image)
        return rejection.reason if rejection else ""
    if what == "skipped":  # the state of a labelled image does not tell
        return project._flags[image].skipped
    return getattr(project.status(image), what)


def _shown(project: Project, key: tuple[str, int]) -> str:
    label = project.drafts.load(*key) or project.labels.get(*key)
    return hash_of(label.mask)


def _same(found: Label, allowed: Label) -> bool:
    if found is None or allowed is None:
        return found is allowed
    return found[0] == allowed[0] and allowed[1] in (None, found[1])


def _copy(source: str, target: str) -> None:
    # Weights are never written in place, and are the bulk of it.
    if source.endswith(".safetensors"):
        try:
            os.link(source, target)
            return
        except OSError:  # another disk
            pass
    shutil.copyfile(source, target)


def _read(path: Path) -> None:
    if path.name.startswith("."):
        return  # a temporary file, which opening removes
    try:
        read_label(path)
    except CMUNetError as error:
        raise Lost(f"half a label: {error}") from error


def _journal(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "journal.jsonl").read_bytes().splitlines()
    try:
        entries = [json.loads(line) for line in lines]
    except ValueError as error:
        raise Lost(f"the journal does not read: {error}") from error
    numbers = [entry["n"] for entry in entries]
    must(numbers == sorted(set(numbers)), "the journal's numbers do not count up")
    return entries
