"""Versions of labels and their history in words."""

from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.cli.main import main
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.labels.history import image_history, label_versions
from tests.project.project_making import SHAPE, mask_of, reopened

PREDICTED = Provenance(model="cmunet-artery", threshold=0.45)


@pytest.fixture
def image(project) -> str:
    return project.images.ids()[0]


def told(project, image) -> list[str]:
    return [event.text for event in image_history(project, image)]


def test_a_restored_version_is_the_old_one_bit_for_bit(project, image):
    part = np.zeros(SHAPE, bool)
    part[5:20] = True
    project.labels.accept(image, 0, mask_of(1), part)
    file = project.labels.path(image, 0)
    first = file.read_bytes()
    project.labels.accept(image, 0, mask_of(2))
    second = file.read_bytes()
    one, two = label_versions(project.labels, image, 0)
    assert [one.number, two.number] == [1, 2]
    assert [one.in_use, two.in_use] == [False, True]
    np.testing.assert_array_equal(one.read().mask, mask_of(1))
    np.testing.assert_array_equal(one.read().reviewed, part)
    project.labels.restore(one.older)
    assert file.read_bytes() == first
    # Going back and forth makes no further versions.
    one, two = label_versions(project.labels, image, 0)
    assert [one.in_use, two.in_use] == [True, False]
    project.labels.restore(two.older)
    assert file.read_bytes() == second
    assert len(label_versions(project.labels, image, 0)) == 2


def test_the_story_of_a_label(project, image):
    project.labels.accept(
        image, 0, mask_of(1), provenance=PREDICTED, pixels_changed=12, seconds=34.4
    )
    project.flag(image)
    part = np.zeros(SHAPE, bool)
    part[:10] = True
    project.labels.accept(image, 0, mask_of(2), part, pixels_changed=0, seconds=8)
    project.labels.restore(project.labels.older(image, 0)[0])
    project.labels.withdraw(image, 0)
    project = reopened(project, user="reader-2")
    project.labels.accept(image, 0, mask_of(3))
    assert told(project, image) == [
        "accepted (version 1), from cmunet-artery at 0.45, 12 pixels changed, 34 s",
        "flagged for a second look",
        "accepted (version 2), in place of version 1, unchanged, 8 s, "
        "25 % of the frame reviewed",
        "restored (version 1), in place of version 2",
        "withdrawn (version 1)",
        "accepted (version 3)",
    ]
    lines = [str(event) for event in image_history(project, image)]
    assert lines[0].split(": ")[0].endswith(", reader-1")
    assert ", reader-2: frame 0 accepted" in lines[-1]
    project.close()


def test_the_story_of_other_images_and_frames_is_left_out(project, image):
    other = project.images.ids()[1]
    project.labels.accept(other, 0, mask_of(1))
    assert told(project, image) == []
    assert [e.text for e in image_history(project, other, frame=1)] == []


def test_the_story_names_the_models_that_learned(project, image, make_model):
    accepted = project.labels.accept(image, 0, mask_of(1))
    folder = make_model(project, "tuned-001")
    (folder / "training.json").write_text(
        f'{{"version": 1, "labels": [{{"sha256": "{accepted.sha256}"}}]}}'
    )
    project.models.register("tuned-001")
    assert told(project, image)[-1] == "learned by tuned-001 (version 1)"


def test_a_crash_is_part_of_the_story(project, image):
    project.labels.accept(image, 0, mask_of(1))
    data = project.labels.path(image, 0).read_bytes()
    project.labels.withdraw(image, 0)
    project.labels.path(image, 0).write_bytes(data)
    project = reopened(project)
    assert told(project, image)[-1] == (
        "found on the disk, not in the journal (version 1)"
    )
    project.close()


def test_history_on_the_command_line(project, image, capsys):
    project.labels.accept(image, 0, mask_of(1), pixels_changed=5)
    for name in (image, "frame-0.npy", "frame-0", "patient-0/frame-0.npy"):
        assert main(["history", str(project.folder), name]) == 0
        out = capsys.readouterr().out
        assert out.endswith(
            "reader-1: frame 0 accepted (version 1), 5 pixels changed\n"
        )
    assert main(["history", str(project.folder), "frame-9"]) == 2
    assert "no image named 'frame-9'" in capsys.readouterr().err
