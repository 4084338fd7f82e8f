"""Crashes at every instant: by kill -9, and by dying at each write to the disk."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import random
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from napari_cmunet.errors import ProjectError
from napari_cmunet.io.masks.label_file import read_label
from napari_cmunet.project.project import Project
from tests.project.project_making import events, mask_of, save_pictures

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("NAPARI_CMUNET_TEST_KILLS", "20"))

posix = pytest.mark.skipif(sys.platform == "win32", reason="fork and kill -9")


def work(folder: Path, report, seed: int) -> None:
    """Do what a reader does, telling each act before and after, until killed."""
    choose = random.Random(seed)
    project = Project.open(folder, user="reader-1")
    ids = project.images.ids()
    while True:
        image = choose.choice(ids[:3])
        act = choose.choice(["accept"] * 5 + ["withdraw", "draft", "flag"])
        mask = choose.randrange(10**6)
        report.send(("begin", act, image, mask))
        if act == "accept":
            project.labels.accept(image, 0, mask_of(mask), mask_of(mask + 1))
        elif act == "withdraw":
            project.labels.withdraw(image, 0)
        elif act == "draft":
            project.drafts.save(image, 0, mask_of(mask))
        else:
            project.flag(image, mask % 2 == 0)
        report.send(("end", act, image, mask))


def expected(reports, state, drafts):
    """What may be on the disk: by image, the seeds of masks, None for no label."""
    allowed = {image: {seed} for image, seed in state.items()}
    for kind, act, image, seed in reports:
        new = {"accept": seed, "withdraw": None}.get(act, "same")
        if new != "same":
            if kind == "begin":
                allowed[image] = {*allowed.get(image, {None}), new}
            else:
                allowed[image] = {new}
                state[image] = new
                if act == "accept":
                    drafts.pop(image, None)
        if act == "draft":
            drafts[image] = {*drafts.get(image, set()), seed}
            if kind == "end":
                drafts[image] = {seed}
    return allowed


@posix
def test_nothing_is_lost_by_kills(project):
    seed = random.randrange(10**9)
    print(f"seed {seed}")  # shown when it fails
    choose = random.Random(seed)
    project.close()
    context = multiprocessing.get_context("fork")
    state: dict[str, int | None] = {}
    drafts: dict[str, set[int]] = {}
    acts = 0
    for number in range(KILLS):
        receiving, sending = context.Pipe(duplex=False)
        child = context.Process(
            target=work, args=(project.folder, sending, seed + number), daemon=True
        )
        child.start()
        sending.close()
        assert receiving.poll(30)
        time.sleep(choose.uniform(0, 0.25))
        child.kill()
        child.join()
        reports = []
        while receiving.poll():
            try:
                reports.append(receiving.recv())
            except EOFError:
                break
        acts += len(reports)
        allowed = expected(reports, state, drafts)
        check(project.folder, allowed, state, drafts)
    assert acts > KILLS


def check(folder, allowed, state, drafts) -> None:
    with Project.open(folder) as project:  # opens without a question
        assert project.take_notices() == []
        for image, seeds in allowed.items():
            label = project.labels.get(image, 0)
            (seed,) = [s for s in seeds if same(label, s)]
            state[image] = seed
            draft = project.drafts.load(image, 0)
            if draft is not None:
                assert any(
                    np.array_equal(draft.mask, mask_of(s))
                    for s in drafts.get(image, ())
                )
        for path in (project.folder / "labels").rglob("*.tif"):
            read_label(path)
        lines = (project.folder / "journal.jsonl").read_bytes().splitlines()
        assert all(json.loads(line)["n"] for line in lines)
        assert not list(project.folder.rglob(".napari-cmunet-*"))
        assert project.progress().labelled == sum(s is not None for s in state.values())
    count = len(lines)
    with Project.open(folder) as project:  # and putting in order is done once
        assert len(list(project.journal())) == count


def same(label, seed) -> bool:
    if label is None or seed is None:
        return label is None and seed is None
    return np.array_equal(label.mask, mask_of(seed)) and np.array_equal(
        label.reviewed, mask_of(seed + 1)
    )


# -- dying at each call --------------------------------------------------------


class Dead(BaseException):
    """The process is no more."""


class Mortal:
    """Lets the process die at the n-th change to the disk; nothing happens after."""

    def __init__(self, monkeypatch, at: int) -> None:
        self.left = at
        for owner, name in (
            (os, "fsync"),
            (os, "link"),
            (os, "write"),
            (os, "ftruncate"),
            (Path, "replace"),
            (Path, "rename"),
            (Path, "unlink"),
            (Path, "mkdir"),
        ):
            monkeypatch.setattr(owner, name, self._dying(getattr(owner, name)))

    def _dying(self, real):
        def call(*args, **kwargs):
            if self.left <= 0:
                raise Dead
            self.left -= 1
            return real(*args, **kwargs)

        return call


def labelled(project) -> list[int | None]:
    image = project.images.ids()[0]
    label = project.labels.get(image, 0)
    return next(
        (s for s in (1, 2) if label and np.array_equal(label.mask, mask_of(s))), None
    )


ACTS = {
    "accept": (lambda s, i: s.labels.accept(i, 0, mask_of(2)), {1, 2}),
    "withdraw": (lambda s, i: s.labels.withdraw(i, 0), {1, None}),
    "restore": (lambda s, i: s.labels.restore(s.labels.older(i, 0)[0]), {1, 2}),
    "skip": (lambda s, i: s.skip(i), {1}),
    "settings": (lambda s, i: s.change_settings(title="x"), {1}),
    "add images": (lambda s, i: s.images.add([s.folder / "extra"]), {1}),
    "promote": (lambda s, i: s.models.promote("tuned-001"), {1}),
    "close": (lambda s, i: s.close(), {1}),
}


@pytest.mark.parametrize("act", ACTS)
def test_dying_at_each_change(project, tmp_path, act, monkeypatch, make_model):
    do, allowed = ACTS[act]
    image = project.images.ids()[0]
    first = 2 if act == "restore" else 1
    project.labels.accept(image, 0, mask_of(first))
    project.labels.accept(image, 0, mask_of(3 - first))
    project.labels.undo_accept(project.labels.accept(image, 0, mask_of(1)))
    project.labels.accept(image, 0, mask_of(1))
    make_model(project, "tuned-001")
    save_pictures(project.folder / "extra", 2)
    project.close()
    for at in range(200):
        folder = tmp_path / f"copy-{at}"
        shutil.copytree(project.folder, folder)
        opened = Project.open(folder)
        with monkeypatch.context() as patch:
            mortal = Mortal(patch, at)
            try:
                do(opened, image)
                finished = True
            except (Dead, ProjectError):
                finished = False
            mortal.left = 0
        with contextlib.suppress(OSError):
            os.close(opened._context.lock._descriptor)  # as the system does
        with Project.open(folder) as again:
            assert labelled(again) in allowed
            assert again.take_notices() == []
            count = len(list(again.journal()))
            assert again.models.folder(again.models.current).is_dir() or (
                again.models.current.installed
            )
        with Project.open(folder) as again:
            assert len(list(again.journal())) == count
            assert events(again)[0] == "created"
        shutil.rmtree(folder)
        if finished:
            break
    assert finished
    assert at >= {"close": 1}.get(act, 3)
