from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile

from napari_cmunet.errors import ImageMissingError, ProjectError, ReadError, WriteError
from napari_cmunet.io.masks.label_file import Label, names_from_json, write_label
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.project import files as files_module
from napari_cmunet.vessels.naming import SegmentName
from tests.project.project_making import SHAPE, events, mask_of, reopened


@pytest.fixture
def image(project) -> str:
    return project.images.ids()[0]


def older_masks(project, image) -> list[np.ndarray]:
    return [tifffile.imread(o.path) != 0 for o in project.labels.older(image, 0)]


def test_an_accepted_mask_is_a_tiff_that_says_where_it_comes_from(project, image):
    origin = Provenance(model="cmunet-artery", model_sha256="b" * 64, threshold=0.4)
    accepted = project.labels.accept(
        image,
        0,
        mask_of(1),
        provenance=origin,
        pixel_size_mm=(0.3, 0.3),
        pixels_changed=12,
        seconds=33.34,
    )
    assert (accepted.replaced, accepted.notice) == (None, "")
    path = project.folder / "labels" / image / "frame_0000.tif"
    assert np.array_equal(tifffile.imread(path), mask_of(1) * np.uint8(255))
    label = project.labels.get(image, 0)
    assert label.provenance.corrected
    assert label.provenance.frames == (0,)
    assert label.provenance.model == "cmunet-artery"
    assert label.provenance.source_sha256 == project.images.hash_of(image)
    assert label.pixel_size_mm == pytest.approx((0.3, 0.3), rel=1e-6)
    entry = next(e for e in project.journal() if e.what == "accepted")
    assert (entry.user, entry.image, entry.frame) == ("reader-1", image, 0)
    assert entry.details["seconds"] == 33.3
    assert entry.details["pixels_changed"] == 12
    assert entry.details["model"] == "cmunet-artery"
    assert entry.details["sha256"] == accepted.sha256


def test_reviewed_part(project, image):
    reviewed = np.zeros(SHAPE, bool)
    reviewed[:10] = True
    project.labels.accept(image, 0, mask_of(1), reviewed)
    assert np.array_equal(project.labels.get(image, 0).reviewed, reviewed)
    project.labels.accept(image, 0, mask_of(1), np.ones(SHAPE, bool))
    assert project.labels.get(image, 0).reviewed is None
    shares = [e.details["reviewed"] for e in project.journal() if e.what == "accepted"]
    assert shares == [0.25, 1.0]
    with pytest.raises(ProjectError, match="Nothing"):
        project.labels.accept(image, 0, mask_of(2), np.zeros(SHAPE, bool))
    assert np.array_equal(project.labels.get(image, 0).mask, mask_of(1))


def test_names_of_vessels(project, image):
    names = (SegmentName("6", ((3, 4), (5, 6)), 0.25), SegmentName("", ((9, 9),)))
    project.labels.accept(image, 0, mask_of(1), names=names)
    project = reopened(project)
    note = project.labels.get(image, 0).note
    assert names_from_json(note["names"]) == names
    project.labels.accept(image, 0, mask_of(1))
    assert "names" not in project.labels.get(image, 0).note


def test_accepting_again_keeps_the_former(project, image):
    first = project.labels.accept(image, 0, mask_of(1))
    second = project.labels.accept(image, 0, mask_of(2))
    assert second.replaced == first.sha256
    assert np.array_equal(project.labels.get(image, 0).mask, mask_of(2))
    assert [np.array_equal(m, mask_of(1)) for m in older_masks(project, image)] == [
        True
    ]


def test_undoing_acceptances(project, image):
    first = project.labels.accept(image, 0, mask_of(1))
    second = project.labels.accept(image, 0, mask_of(2))
    assert not project.labels.undo_accept(first)  # another label by now
    assert project.labels.undo_accept(second)
    assert np.array_equal(project.labels.get(image, 0).mask, mask_of(1))
    assert project.labels.undo_accept(first)
    assert project.labels.get(image, 0) is None
    assert not project.labels.undo_accept(first)
    assert project.progress().labelled == 0
    # Nothing is gone: both are among the older ones.
    found = older_masks(project, image)
    for seed in (1, 2):
        assert any(np.array_equal(mask, mask_of(seed)) for mask in found)
    newest = project.labels.older(image, 0)[-1]
    project.labels.restore(newest)
    assert project.labels.get(image, 0) is not None
    done = [what for what in events(project) if what in ("withdrawn", "restored")]
    assert done == ["restored", "withdrawn", "restored"]
    with reopened(project) as again:
        assert "label_recovered" not in events(again)


def test_withdrawing(project, image):
    assert not project.labels.withdraw(image, 0)
    project.labels.accept(image, 0, mask_of(1))
    assert project.labels.withdraw(image, 0)
    assert project.labels.frames(image) == ()
    assert project.status(image).state == "unseen"


def test_a_disk_without_links_keeps_the_former_too(project, image, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    project.labels.accept(image, 0, mask_of(1))
    monkeypatch.setattr(files_module.os, "link", refuse)
    project.labels.accept(image, 0, mask_of(2))
    assert [np.array_equal(m, mask_of(1)) for m in older_masks(project, image)] == [
        True
    ]


def test_a_full_disk_leaves_the_old_label_and_a_project_that_works(
    project, image, monkeypatch
):
    first = project.labels.accept(image, 0, mask_of(1))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="disk is full"):
        project.labels.accept(image, 0, mask_of(2))
    with pytest.raises(WriteError):
        project.skip(project.images.ids()[1])
    assert project.status(project.images.ids()[1]).state != "skipped"
    monkeypatch.undo()
    assert np.array_equal(project.labels.get(image, 0).mask, mask_of(1))
    assert project.labels.older(image, 0) == []
    assert project.labels.hash(image, 0) == first.sha256
    project.labels.accept(image, 0, mask_of(3))
    with reopened(project) as again:
        assert np.array_equal(again.labels.get(image, 0).mask, mask_of(3))
        assert again.take_notices() == []
        assert list(again.folder.rglob("*.tmp")) == []


def test_a_journal_that_cannot_be_written_does_not_harm_the_label(
    project, image, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(project._context.journal, "_write", full)
    accepted = project.labels.accept(image, 0, mask_of(1))
    assert "label is saved" in accepted.notice
    monkeypatch.undo()
    project.labels.accept(image, 0, mask_of(2))
    assert events(project).count("accepted") == 2
    with reopened(project) as again:
        assert "label_recovered" not in events(again)


def test_wrong_frames_and_sizes(project, image):
    project.images.learn_facts(image, project.images.hash_of(image), SHAPE, 1)
    for frame in (-1, 1, 10**7, True, "0"):
        with pytest.raises(ProjectError, match="no frame"):
            project.labels.accept(image, frame, mask_of(1))
    with pytest.raises(ProjectError, match="size"):
        project.labels.accept(image, 0, np.zeros((5, 5), bool))
    with pytest.raises(ProjectError, match="no image"):
        project.labels.accept("../../../x", 0, mask_of(1))
    assert project.progress().labelled == 0


def test_without_the_image_and_its_hash_there_is_no_label(project, image):
    project.images.path(image).unlink()
    with pytest.raises(ImageMissingError):
        project.labels.accept(image, 0, mask_of(1))
    known = Provenance(source_sha256="a" * 64)  # it was read before
    project.labels.accept(image, 0, mask_of(1), provenance=known)


def test_a_damaged_label_says_so(project, image):
    project.labels.accept(image, 0, mask_of(1))
    path = project.folder / "labels" / image / "frame_0000.tif"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ReadError):
        project.labels.get(image, 0)


# -- drafts -------------------------------------------------------------------


def test_drafts_come_back_after_a_crash(project, image):
    reviewed = mask_of(9)
    project.drafts.save(image, 0, mask_of(5), reviewed, note={"threshold": 0.3})
    project.drafts.save(image, 0, mask_of(6), reviewed, note={"threshold": 0.4})
    with reopened(project) as again:
        assert again.drafts.keys() == [(image, 0)]
        draft = again.drafts.load(image, 0)
        assert np.array_equal(draft.mask, mask_of(6))
        assert np.array_equal(draft.reviewed, reviewed)
        assert draft.note["threshold"] == 0.4
        again.drafts.discard(image, 0)
        assert again.drafts.load(image, 0) is None
        again.drafts.discard(image, 0)


def test_acceptance_ends_a_draft(project, image):
    project.drafts.save(image, 0, mask_of(5))
    project.labels.accept(image, 0, mask_of(6))
    assert project.drafts.keys() == []


def test_an_overtaken_draft_is_not_offered(project, image):
    project.drafts.save(image, 0, mask_of(5))
    path = project.folder / "drafts" / f"{image}-frame_0000.tif"
    data = path.read_bytes()
    project.labels.accept(image, 0, mask_of(6))
    path.write_bytes(data)  # as if a crash had come before it was removed
    assert project.drafts.load(image, 0) is None
    project.drafts.save(image, 0, mask_of(7))
    assert np.array_equal(project.drafts.load(image, 0).mask, mask_of(7))


def test_a_damaged_draft_is_said_and_passed_over(project, image):
    project.drafts.save(image, 0, mask_of(5))
    path = project.folder / "drafts" / f"{image}-frame_0000.tif"
    path.write_bytes(b"II*\0")
    assert project.drafts.load(image, 0) is None
    assert "draft" in project.take_notices()[0]


def test_strange_files_among_labels_and_drafts_are_passed_over(
    project, image, tmp_path
):
    project.labels.accept(image, 0, mask_of(1))
    folder = project.folder / "labels"
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / image / "frame_0001.tiff").write_bytes(b"x")
    (folder / image / "frame_0002.tif").mkdir()
    write_label(tmp_path / "a.tif", Label(mask_of(3), None, Provenance()))
    (folder / image / "frame_0003.tif").symlink_to(tmp_path / "a.tif")
    (project.folder / "drafts").mkdir(exist_ok=True)
    (project.folder / "drafts" / "x.tif").write_bytes(b"x")
    with reopened(project) as again:
        assert again.labels.frames(image) == (0,)
        assert again.drafts.keys() == []


def test_labels_are_not_written_through_links(project, image, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (project.folder / "labels").mkdir(exist_ok=True)
    (project.folder / "labels" / image).symlink_to(outside, target_is_directory=True)
    with pytest.raises(ProjectError, match="link"):
        project.labels.accept(image, 0, mask_of(1))
    assert list(outside.iterdir()) == []
