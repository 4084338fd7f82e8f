"""Several programs on one project at the same time."""

from __future__ import annotations

import multiprocessing
import sys
import time

import numpy as np
import pytest

from napari_cmunet.project.export.formats import export_masks
from napari_cmunet.project.lock import ProjectLockedError
from napari_cmunet.project.project import Project
from tests.project.project_making import events, mask_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="fork")


def accept_for_ever(folder, ready):
    project = Project.open(folder)
    ids = project.images.ids()
    number = 0
    while True:
        image = ids[number % len(ids)]
        project.labels.accept(image, 0, mask_of(number), mask_of(number + 1))
        number += 1
        if number == len(ids):
            ready.set()


@pytest.mark.slow
def test_reading_and_exporting_while_a_window_works(project, tmp_path):
    project.close()
    context = multiprocessing.get_context("fork")
    ready = context.Event()
    window = context.Process(
        target=accept_for_ever, args=(project.folder, ready), daemon=True
    )
    window.start()
    try:
        assert ready.wait(30)
        until = time.monotonic() + 2
        rounds, said, torn = 0, [], []
        while rounds < 2 or time.monotonic() < until:  # a busy machine is slow
            with Project.open(project.folder, read_only=True) as reader:
                labels = list(reader.labels.read(problem=said.append))
                exported = export_masks(reader, tmp_path / f"out-{rounds}")
                said += [*exported.problems, *reader.take_notices()]
                torn += [x for x in labels if not whole(x)]
                assert len(labels) == len(exported.files) == 6
            rounds += 1
        assert window.is_alive()
    finally:
        window.kill()
        window.join()
    assert (said, torn) == ([], [])
    assert rounds > 1


def whole(label) -> bool:
    """Whether mask and reviewed part are of one acceptance."""
    return any(
        np.array_equal(label.mask, mask_of(n))
        and np.array_equal(label.reviewed, mask_of(n + 1))
        for n in range(3000)
    )


def take_turns(folder, number, results):
    done = 0
    while done < 5:
        try:
            with Project.open(folder, user=f"reader-{number}") as project:
                image = project.images.ids()[number]
                project.labels.accept(image, 0, mask_of(done))
                done += 1
        except ProjectLockedError:
            time.sleep(0.005)
    results.put(done)


@pytest.mark.slow
def test_programs_that_open_it_in_turn_lose_nothing(project):
    project.close()
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    programs = [
        context.Process(
            target=take_turns, args=(project.folder, n, results), daemon=True
        )
        for n in range(3)
    ]
    for program in programs:
        program.start()
    assert [results.get(timeout=60) for _ in programs] == [5, 5, 5]
    for program in programs:
        program.join()
    with Project.open(project.folder) as again:
        assert events(again).count("accepted") == 15
        assert "label_recovered" not in events(again)
        numbers = [entry.number for entry in again.journal()]
        assert numbers == list(range(1, len(numbers) + 1))
        for image in again.images.ids()[:3]:
            assert (again.labels.get(image, 0).mask == mask_of(4)).all()
            assert len(again.labels.older(image, 0)) == 4
