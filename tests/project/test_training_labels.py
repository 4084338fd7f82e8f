from __future__ import annotations

import numpy as np
import pytest

from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project.project import Project
from tests.project.project_making import SHAPE, mask_of, reopened


def test_labels_come_with_their_frames(project, pictures):
    ids = project.images.ids()
    reviewed = mask_of(8)
    project.labels.accept(ids[0], 0, mask_of(1))
    project.labels.accept(ids[3], 0, mask_of(2), reviewed)
    first, second = project.labels.read()
    assert np.array_equal(first.frame, np.load(pictures / project.images[ids[0]].path))
    assert np.array_equal(first.mask, mask_of(1))
    assert first.reviewed is None
    assert np.array_equal(second.reviewed, reviewed)
    assert first.patient == project.images[ids[0]].patient
    assert first.name == f"{ids[0]}#0"
    assert second.to_json() == {
        "image": ids[3],
        "frame": 0,
        "sha256": project.labels.hash(ids[3], 0),
        "patient": project.images[ids[3]].patient,
        "side": project.labels.sides()[project.images[ids[3]].patient],
    }


def test_a_label_of_an_inverted_image_comes_with_inverted_pixels(project, pictures):
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1), provenance=Provenance(inverted=True))
    (label,) = project.labels.read()
    stored = np.load(pictures / project.images[image].path)
    assert np.array_equal(label.frame, 255 - stored)
    assert label.frame.dtype == stored.dtype == np.uint8


@pytest.fixture
def cine(project, tmp_path) -> str:
    frames = np.random.default_rng(5).integers(1, 250, (6, *SHAPE), dtype=np.uint16)
    frames[4] = frames[2]
    np.save(tmp_path / "cine.npy", frames)
    (image,) = project.images.add([tmp_path / "cine.npy"]).images
    return image


def test_frames_of_a_cine(project, cine):
    for frame in (2, 5):
        project.labels.accept(cine, frame, mask_of(frame))
    labels = list(project.labels.read())
    assert [label.ref.frame for label in labels] == [2, 5]
    assert len({label.patient for label in labels}) == 1
    assert all(label.frame.base is None for label in labels)  # no whole cine held


def test_what_cannot_be_used_is_told(project, cine, pictures):
    ids = project.images.ids()
    for frame in (2, 4):  # the same pixels
        project.labels.accept(cine, frame, mask_of(1))
    project.labels.accept(cine, 5, np.ones(SHAPE, bool))
    project.labels.accept(cine, 9, mask_of(1))  # no such frame, as it turns out
    for image in ids[:4]:
        project.labels.accept(image, 0, mask_of(1))
    project.images.path(ids[0]).unlink()
    project.images.path(ids[1]).write_bytes(b"\x93NUMPY?")
    np.save(project.images.path(ids[2]), np.eye(40, dtype=np.uint8))
    label = project.folder / "labels" / ids[3] / "frame_0000.tif"
    label.write_bytes(b"II*\0")
    said: list[str] = []
    usable = list(project.labels.read(problem=said.append))
    assert [u.ref.frame for u in usable] == [2]
    for word in ("same frame", "all of it", "no such frame", "not where", "changed"):
        assert any(word in text for text in said), word
    assert len(said) == 7
    assert not any("frame-" in text or ".npy" in text for text in said)


def test_a_label_without_arteries_is_background(project):
    project.labels.accept(project.images.ids()[0], 0, np.zeros(SHAPE, bool))
    (label,) = project.labels.read()
    assert not label.mask.any()


def test_reading_while_labels_change(project):
    ids = project.images.ids()
    for image in ids:
        project.labels.accept(image, 0, mask_of(1))
    with Project.open(project.folder, read_only=True) as reader:
        labels = reader.labels.read()
        next(labels)
        project.labels.withdraw(ids[1], 0)
        project.labels.accept(ids[2], 0, mask_of(2))
        rest = {label.ref.image: label for label in labels}
    assert ids[1] not in rest
    assert np.array_equal(rest[ids[2]].mask, mask_of(2))
    assert rest[ids[2]].sha256 == project.labels.hash(ids[2], 0)
    assert len(rest) == 4


def test_accepting_after_the_image_changed(project):
    image = project.images.ids()[0]
    project.labels.accept(image, 0, mask_of(1))
    np.save(project.images.path(image), np.eye(44, dtype=np.uint8))
    project.labels.accept(image, 0, np.eye(44, dtype=bool))
    with reopened(project) as again:
        assert again.images[image].shape == (44, 44)
        (label,) = again.labels.read()
        assert label.frame.shape == (44, 44)
