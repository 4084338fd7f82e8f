from __future__ import annotations

import os

import numpy as np
import pytest
import tifffile
from study_making import SHAPE, events, mask_of, reopened

from napari_cmunet.errors import ReadError, WriteError
from napari_cmunet.io.labels import Label, write_label
from napari_cmunet.io.provenance import Provenance
from napari_cmunet.study import labels as labels_module
from napari_cmunet.study.errors import ImageMissingError, StudyError


@pytest.fixture
def image(study) -> str:
    return study.images.ids()[0]


def older_masks(study, image) -> list[np.ndarray]:
    return [tifffile.imread(o.path) != 0 for o in study.labels.older(image, 0)]


def test_an_accepted_mask_is_a_tiff_that_says_where_it_comes_from(study, image):
    origin = Provenance(model="cmunet-artery", model_sha256="b" * 64, threshold=0.4)
    accepted = study.labels.accept(
        image,
        0,
        mask_of(1),
        provenance=origin,
        pixel_size_mm=(0.3, 0.3),
        pixels_changed=12,
        seconds=33.34,
    )
    assert (accepted.replaced, accepted.notice) == (None, "")
    path = study.folder / "labels" / image / "frame_0000.tif"
    assert np.array_equal(tifffile.imread(path), mask_of(1) * np.uint8(255))
    label = study.labels.get(image, 0)
    assert label.provenance.corrected
    assert label.provenance.frames == (0,)
    assert label.provenance.model == "cmunet-artery"
    assert label.provenance.source_sha256 == study.images.hash_of(image)
    assert label.pixel_size_mm == pytest.approx((0.3, 0.3), rel=1e-6)
    entry = next(e for e in study.journal() if e.what == "accepted")
    assert (entry.user, entry.image, entry.frame) == ("reader-1", image, 0)
    assert entry.details["seconds"] == 33.3
    assert entry.details["pixels_changed"] == 12
    assert entry.details["model"] == "cmunet-artery"
    assert entry.details["sha256"] == accepted.sha256


def test_reviewed_part(study, image):
    reviewed = np.zeros(SHAPE, bool)
    reviewed[:10] = True
    study.labels.accept(image, 0, mask_of(1), reviewed)
    assert np.array_equal(study.labels.get(image, 0).reviewed, reviewed)
    study.labels.accept(image, 0, mask_of(1), np.ones(SHAPE, bool))
    assert study.labels.get(image, 0).reviewed is None
    shares = [e.details["reviewed"] for e in study.journal() if e.what == "accepted"]
    assert shares == [0.25, 1.0]
    with pytest.raises(StudyError, match="Nothing"):
        study.labels.accept(image, 0, mask_of(2), np.zeros(SHAPE, bool))
    assert np.array_equal(study.labels.get(image, 0).mask, mask_of(1))


def test_accepting_again_keeps_the_former(study, image):
    first = study.labels.accept(image, 0, mask_of(1))
    second = study.labels.accept(image, 0, mask_of(2))
    assert second.replaced == first.sha256
    assert np.array_equal(study.labels.get(image, 0).mask, mask_of(2))
    assert [np.array_equal(m, mask_of(1)) for m in older_masks(study, image)] == [True]


def test_undoing_acceptances(study, image):
    first = study.labels.accept(image, 0, mask_of(1))
    second = study.labels.accept(image, 0, mask_of(2))
    assert not study.labels.undo_accept(first)  # another label by now
    assert study.labels.undo_accept(second)
    assert np.array_equal(study.labels.get(image, 0).mask, mask_of(1))
    assert study.labels.undo_accept(first)
    assert study.labels.get(image, 0) is None
    assert not study.labels.undo_accept(first)
    assert study.progress().labelled == 0
    # Nothing is gone: both are among the older ones.
    found = older_masks(study, image)
    for seed in (1, 2):
        assert any(np.array_equal(mask, mask_of(seed)) for mask in found)
    newest = study.labels.older(image, 0)[-1]
    study.labels.restore(newest)
    assert study.labels.get(image, 0) is not None
    done = [what for what in events(study) if what in ("withdrawn", "restored")]
    assert done == ["restored", "withdrawn", "restored"]
    with reopened(study) as again:
        assert "label_recovered" not in events(again)


def test_withdrawing(study, image):
    assert not study.labels.withdraw(image, 0)
    study.labels.accept(image, 0, mask_of(1))
    assert study.labels.withdraw(image, 0)
    assert study.labels.frames(image) == ()
    assert study.status(image).state == "unseen"


def test_a_disk_without_links_keeps_the_former_too(study, image, monkeypatch):
    def refuse(*_):
        raise OSError(1, "Operation not permitted")

    study.labels.accept(image, 0, mask_of(1))
    monkeypatch.setattr(labels_module.os, "link", refuse)
    study.labels.accept(image, 0, mask_of(2))
    assert [np.array_equal(m, mask_of(1)) for m in older_masks(study, image)] == [True]


def test_a_full_disk_leaves_the_old_label_and_a_study_that_works(
    study, image, monkeypatch
):
    first = study.labels.accept(image, 0, mask_of(1))

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WriteError, match="disk is full"):
        study.labels.accept(image, 0, mask_of(2))
    with pytest.raises(WriteError):
        study.skip(study.images.ids()[1])
    assert not study.mark(study.images.ids()[1]).skipped
    monkeypatch.undo()
    assert np.array_equal(study.labels.get(image, 0).mask, mask_of(1))
    assert study.labels.older(image, 0) == []
    assert study.labels.hash(image, 0) == first.sha256
    study.labels.accept(image, 0, mask_of(3))
    with reopened(study) as again:
        assert np.array_equal(again.labels.get(image, 0).mask, mask_of(3))
        assert again.take_notices() == []
        assert list(again.folder.rglob("*.tmp")) == []


def test_a_journal_that_cannot_be_written_does_not_harm_the_label(
    study, image, monkeypatch
):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(study._session.journal, "_write", full)
    accepted = study.labels.accept(image, 0, mask_of(1))
    assert "label is safe" in accepted.notice
    monkeypatch.undo()
    study.labels.accept(image, 0, mask_of(2))
    assert events(study).count("accepted") == 2
    with reopened(study) as again:
        assert "label_recovered" not in events(again)


def test_wrong_frames_and_sizes(study, image):
    study.images.learn_facts(image, study.images.hash_of(image), SHAPE, 1)
    for frame in (-1, 1, 10**7, True, "0"):
        with pytest.raises(StudyError, match="no frame"):
            study.labels.accept(image, frame, mask_of(1))
    with pytest.raises(StudyError, match="size"):
        study.labels.accept(image, 0, np.zeros((5, 5), bool))
    with pytest.raises(StudyError, match="no image"):
        study.labels.accept("../../../x", 0, mask_of(1))
    assert study.progress().labelled == 0


def test_without_the_image_and_its_hash_there_is_no_label(study, image):
    study.images.path(image).unlink()
    with pytest.raises(ImageMissingError):
        study.labels.accept(image, 0, mask_of(1))
    known = Provenance(source_sha256="a" * 64)  # it was read before
    study.labels.accept(image, 0, mask_of(1), provenance=known)


def test_a_damaged_label_says_so(study, image):
    study.labels.accept(image, 0, mask_of(1))
    path = study.folder / "labels" / image / "frame_0000.tif"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ReadError):
        study.labels.get(image, 0)


# -- drafts -------------------------------------------------------------------


def test_drafts_come_back_after_a_crash(study, image):
    reviewed = mask_of(9)
    study.drafts.save(image, 0, mask_of(5), reviewed, note={"threshold": 0.3})
    study.drafts.save(image, 0, mask_of(6), reviewed, note={"threshold": 0.4})
    with reopened(study) as again:
        assert again.drafts.keys() == [(image, 0)]
        draft = again.drafts.load(image, 0)
        assert np.array_equal(draft.mask, mask_of(6))
        assert np.array_equal(draft.reviewed, reviewed)
        assert draft.note["threshold"] == 0.4
        again.drafts.discard(image, 0)
        assert again.drafts.load(image, 0) is None
        again.drafts.discard(image, 0)


def test_acceptance_ends_a_draft(study, image):
    study.drafts.save(image, 0, mask_of(5))
    study.labels.accept(image, 0, mask_of(6))
    assert study.drafts.keys() == []


def test_an_overtaken_draft_is_not_offered(study, image):
    study.drafts.save(image, 0, mask_of(5))
    path = study.folder / "drafts" / f"{image}-frame_0000.tif"
    data = path.read_bytes()
    study.labels.accept(image, 0, mask_of(6))
    path.write_bytes(data)  # as if a crash had come before it was removed
    assert study.drafts.load(image, 0) is None
    study.drafts.save(image, 0, mask_of(7))
    assert np.array_equal(study.drafts.load(image, 0).mask, mask_of(7))


def test_a_damaged_draft_is_said_and_passed_over(study, image):
    study.drafts.save(image, 0, mask_of(5))
    path = study.folder / "drafts" / f"{image}-frame_0000.tif"
    path.write_bytes(b"II*\0")
    assert study.drafts.load(image, 0) is None
    assert "draft" in study.take_notices()[0]


def test_strange_files_among_labels_and_drafts_are_passed_over(study, image, tmp_path):
    study.labels.accept(image, 0, mask_of(1))
    folder = study.folder / "labels"
    (folder / "Thumbs.db").write_bytes(b"x")
    (folder / image / "frame_0001.tiff").write_bytes(b"x")
    (folder / image / "frame_0002.tif").mkdir()
    write_label(tmp_path / "a.tif", Label(mask_of(3), None, Provenance()))
    (folder / image / "frame_0003.tif").symlink_to(tmp_path / "a.tif")
    (study.folder / "drafts").mkdir(exist_ok=True)
    (study.folder / "drafts" / "x.tif").write_bytes(b"x")
    with reopened(study) as again:
        assert again.labels.frames(image) == (0,)
        assert again.drafts.keys() == []


def test_labels_are_not_written_through_links(study, image, tmp_path):
    outside = tmp_path / "outside"
    outside.mkdir()
    (study.folder / "labels").mkdir(exist_ok=True)
    (study.folder / "labels" / image).symlink_to(outside, target_is_directory=True)
    with pytest.raises(StudyError, match="link"):
        study.labels.accept(image, 0, mask_of(1))
    assert list(outside.iterdir()) == []
