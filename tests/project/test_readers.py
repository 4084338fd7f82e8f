"""Two readers, the reviewer, and how well readers agree."""

from __future__ import annotations

import json

import numpy as np
import pytest

from napari_cmunet.cli.main import main
from napari_cmunet.errors import ProjectDamagedError, ProjectError
from napari_cmunet.project.export.formats import export_masks
from napari_cmunet.project.labels.history import image_history
from napari_cmunet.project.project import Project
from napari_cmunet.project.readers.agreement import (
    Limits,
    agreement_table,
    compare_readers,
    find_disagreement,
    limits_of,
    reader_pairs,
)
from napari_cmunet.project.readers.readers import (
    FIRST_READER,
    REVIEWER,
    known_readers,
    note_reader,
    reader_code,
)
from tests.project.project_making import SHAPE, events, mask_of, reopened

BETA = reader_code(b"salt", "Dr Beta")


def rectangle(rows: slice, columns: slice) -> np.ndarray:
    mask = np.zeros(SHAPE, bool)
    mask[rows, columns] = True
    return mask


def accept(project, image, mask, **more):
    return project.labels.accept(image, 0, mask, **more)


_SHARED = ("lock", "journal.jsonl", "images.jsonl")


def files_of(folder) -> dict[str, bytes]:
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for p in sorted(folder.rglob("*"))
        if p.is_file() and p.name not in _SHARED
    }


def test_codes_of_readers(project):
    salt = project._context.identity.salt
    code = reader_code(salt, "Dr Beta")
    assert code == reader_code(salt, " dr beta ")
    assert len({code, reader_code(salt, "Dr Gamma"), BETA}) == 3
    assert known_readers(project.id).current == FIRST_READER
    note_reader(project.id, code, "Dr Beta")
    known = known_readers(project.id)
    assert (known.current, known.name(code)) == (code, "Dr Beta")
    assert known.name(FIRST_READER) == "first reader"
    # The name is on this computer alone.
    assert not [
        p
        for p in project.folder.rglob("*")
        if p.is_file() and b"Beta" in p.read_bytes()
    ]
    with pytest.raises(ProjectError, match="code"):
        reopened(project, reader="../elsewhere")


def test_one_reader_leaves_a_project_as_it_was(project):
    accept(project, project.images.ids()[0], mask_of(1))
    project = reopened(project)
    names = {p.name for p in project.folder.iterdir()}
    assert not names & {"readers", "reviews.json"}
    assert project.reference.keys() == project.labels.keys()
    assert "reader" not in project.labels.get(project.images.ids()[0], 0).note
    project.close()


def test_a_second_reader_sees_nothing_of_the_first(project):
    first, second = project.images.ids()[:2]
    accept(project, first, mask_of(1), seconds=10)
    project.drafts.save(second, 0, mask_of(2))
    project.flag(first)
    project.comment(first, "false branch")
    project.skip(second)
    project.remember_position(second)
    before = files_of(project.folder)
    project = reopened(project, user="account", reader=BETA)
    assert project.progress().labelled == project.progress().skipped == 0
    assert project.status(first).state == "unseen"
    assert project.status(first).comment == ""
    assert project.labels.get(first, 0) is None
    assert project.drafts.keys() == []
    assert project.position is None
    assert project.next_image() == first
    accept(project, first, mask_of(3))
    project.drafts.save(second, 0, mask_of(4))
    project.flag(second)
    project.remember_position(first)
    np.testing.assert_array_equal(project.drafts.load(second, 0).mask, mask_of(4))
    assert project.labels.get(first, 0).note["reader"] == BETA
    (told,) = image_history(project, first, readers=(BETA,))
    assert told.user == f"reader {BETA[:4]}"
    project.close()
    # All of it lies in the reader's own folder; the first one's files are untouched.
    after = files_of(project.folder)
    assert {k: v for k, v in after.items() if k in before} == before
    assert all(
        name.startswith(f"readers/{BETA}/") for name in after.keys() - before.keys()
    )
    project = Project.open(project.folder)
    np.testing.assert_array_equal(project.labels.get(first, 0).mask, mask_of(1))
    np.testing.assert_array_equal(project.drafts.load(second, 0).mask, mask_of(2))
    assert project.status(first).comment == "false branch"
    assert project.status(second).state == "skipped"
    project.close()


def test_the_journal_of_two_readers_is_whole(project):
    image = project.images.ids()[0]
    accept(project, image, mask_of(1))
    project = reopened(project, user="account", reader=BETA)
    accept(project, image, mask_of(2))
    lines = (project.folder / "journal.jsonl").read_text().splitlines()
    last = json.loads(lines[-1])
    # A program that knows of one reader only skips the line.
    assert (last["what"], last["reader"], last["user"]) == (
        "reading_accepted",
        BETA,
        "",
    )
    count = len(lines)
    for reader in (FIRST_READER, BETA, REVIEWER):
        project = reopened(project, reader=reader)
    assert len(list(project.journal())) == count
    # A label that a crash kept from the journal is noted for its reader.
    (project.folder / "readers" / BETA / "labels" / image / "frame_0000.tif").unlink()
    project = reopened(project)
    entry = list(project.journal())[-1]
    assert (entry.what, entry.reader) == ("label_missing", BETA)
    project.close()


def test_the_model_learns_from_what_is_decided(project):
    one, two, three = project.images.ids()[:3]
    accept(project, one, mask_of(1))
    accept(project, two, mask_of(2))
    project = reopened(project, reader=BETA)
    accept(project, two, mask_of(3))
    accept(project, three, mask_of(4))
    for reader in (FIRST_READER, BETA, REVIEWER):
        project = reopened(project, reader=reader)
        assert project.reference.keys() == {(one, 0), (three, 0)}
        assert project.reference.waiting() == {(two, 0)}
    assert {r.image for r in project.reference.refs()} == {one, three}
    # The decision: a merge of both.
    both = mask_of(2) | mask_of(3)
    assert project.next_image() == two
    accept(project, two, both)
    assert project.reference.waiting() == set()
    learned = {x.ref.image: x.mask for x in project.reference.read()}
    assert set(learned) == {one, two, three}
    np.testing.assert_array_equal(learned[two], both)
    np.testing.assert_array_equal(learned[three], mask_of(4))
    np.testing.assert_array_equal(project.readers[""].get(two, 0).mask, mask_of(2))
    np.testing.assert_array_equal(project.readers[BETA].get(two, 0).mask, mask_of(3))
    project.close()


def test_exports_hold_the_decided_labels(project, tmp_path):
    image = project.images.ids()[0]
    accept(project, image, mask_of(1), pixels_changed=3)
    project = reopened(project, reader=BETA)
    accept(project, image, mask_of(2), pixels_changed=5)
    with pytest.raises(ProjectError, match="waits for the reviewer"):
        export_masks(project, tmp_path / "none")
    project = reopened(project, reader=REVIEWER)
    accept(project, image, mask_of(3), pixels_changed=7)
    exported = export_masks(project, tmp_path / "out", records=True)
    record = json.loads((exported.folder / f"{image}.json").read_text())
    assert record["artery_pixels"] == mask_of(3).sum()
    assert record["pixels_changed_by_reader"] == 7
    everything = b"".join(p.read_bytes() for p in exported.folder.iterdir())
    assert BETA.encode() not in everything
    project.close()


def test_a_rejected_label_is_not_learned_until_it_is_mended(project):
    image, other = project.images.ids()[:2]
    accept(project, image, mask_of(1))
    accept(project, other, mask_of(2))
    project = reopened(project, reader=REVIEWER)
    with pytest.raises(ProjectError, match="reason"):
        project.reject("", image, 0, " ")
    with pytest.raises(ProjectError, match="no label"):
        project.reject(BETA, image, 0, "catheter")
    project.reject("", image, 0, "the catheter of Mr Smith is in it")
    assert project.next_image() == other
    project = reopened(project)
    assert project.reference.keys() == {(other, 0)}
    assert project.rejection(image, 0).reason == "the catheter of Mr Smith is in it"
    # It is to be done again; the label itself is still there.
    assert project.next_image() == image
    np.testing.assert_array_equal(project.labels.get(image, 0).mask, mask_of(1))
    assert [e.text for e in image_history(project, image)] == [
        "accepted (version 1)",
        "rejected by the reviewer (version 1): the catheter of Mr Smith is in it",
    ]
    assert "Smith" not in (project.folder / "journal.jsonl").read_text()
    accept(project, image, mask_of(3))
    assert project.rejection(image, 0) is None
    assert project.reference.keys() == {(image, 0), (other, 0)}
    # The rejected version, restored, is a rejected one still; until it is admitted.
    project.labels.restore(project.labels.older(image, 0)[0])
    assert project.rejection(image, 0)
    project.admit("", image, 0)
    assert not project.rejection(image, 0)
    assert events(project)[-1] == "admitted"
    project.close()


def test_a_damaged_list_of_rejections_is_made_anew(project):
    image = project.images.ids()[0]
    accept(project, image, mask_of(1))
    project.reject("", image, 0, "why")
    (project.folder / "reviews.json").write_text("{")
    project = reopened(project)
    assert project.rejection(image, 0).reason == ""
    assert any("reviews.json" in notice for notice in project.take_notices())
    assert (project.folder / "reviews.json.damaged-1").exists()
    project.close()


def test_a_rejection_that_a_crash_kept_from_the_journal(project):
    image = project.images.ids()[0]
    accept(project, image, mask_of(1))
    project.reject("", image, 0, "why")
    path = project.folder / "journal.jsonl"
    project.close()
    path.write_text("".join(path.read_text().splitlines(keepends=True)[:-1]))
    for _ in range(2):
        project = reopened(project)
        assert events(project).count("rejected") == 1
    project.close()


def test_a_folder_of_readers_that_is_a_link_is_refused(project, tmp_path):
    (tmp_path / "elsewhere" / BETA / "labels").mkdir(parents=True)
    (project.folder / "readers").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ProjectError, match="link"):
        reopened(project, reader=BETA)
    assert ProjectDamagedError.__mro__[1] is ProjectError


def two_readers(project) -> Project:
    """Two readers of three frames, who differ as worked out below."""
    one, two, three = project.images.ids()[:3]
    # A bar of 4 x 40: the same; shifted along by 20; one row higher.
    bar = rectangle(slice(10, 14), slice(0, 40))
    for image in (one, two, three):
        accept(project, image, bar)
    project = reopened(project, reader=BETA)
    accept(project, one, bar)
    half = bar.copy()
    half[:, 20:] = False
    accept(project, two, half)
    accept(project, three, rectangle(slice(10, 15), slice(0, 40)))
    return project


def test_agreement_is_as_worked_out_by_hand(project):
    project = two_readers(project)
    assert reader_pairs(project) == [("", BETA)]
    same, half, higher = compare_readers(project, "", BETA)
    assert (same.dice, same.cldice, same.nsd, same.wrong_places) == (1, 1, 1, 0)
    assert same.area_difference == 0
    # 2 * 80 / (160 + 80)
    assert half.dice == pytest.approx(2 / 3)
    # 80 - 160 in per cent of 120
    assert half.area_difference == pytest.approx(-100 * 80 / 120)
    # The borders: 4 * 2 + 38 * 2 = 84 and 4 * 2 + 18 * 2 = 44 pixels. All 44 of the
    # half lie within 2 px of the other's border. Of the whole, columns 0 to 21 do:
    # 2 rows of 22, and the 2 pixels that are left of the side at column 0.
    assert half.nsd == pytest.approx((44 + 2 * 22 + 2) / (84 + 44))
    # The branch that one has and the other has not.
    assert half.wrong_places == 1
    assert half.disagreement == pytest.approx(1 + 1 / 3)
    # 2 * 160 / (160 + 200); 200 - 160 in per cent of 180; borders one row apart.
    assert higher.dice == pytest.approx(320 / 360)
    assert higher.area_difference == pytest.approx(100 * 40 / 180)
    assert (higher.nsd, higher.wrong_places) == (1, 0)
    limits = limits_of([same, half, higher], "dice")
    values = [1, 2 / 3, 320 / 360]
    mean = sum(values) / 3
    sd = (sum((v - mean) ** 2 for v in values) / 2) ** 0.5
    assert limits.mean == pytest.approx(mean)
    assert limits.sd == pytest.approx(sd)
    assert (limits.low, limits.high) == pytest.approx(
        (mean - 1.96 * sd, mean + 1.96 * sd)
    )
    # Two patients: the mean of either is the bound.
    assert limits.interval == pytest.approx((5 / 6, 320 / 360))
    project.close()


def test_agreement_counts_only_what_both_reviewed(project):
    image = project.images.ids()[0]
    bar = rectangle(slice(10, 14), slice(0, 40))
    accept(project, image, bar, reviewed=rectangle(slice(None), slice(0, 20)))
    project = reopened(project, reader=BETA)
    half = bar.copy()
    half[:, 20:] = False
    accept(project, image, half)
    (found,) = compare_readers(project, "", BETA)
    # One frame tells nothing of the spread.
    assert limits_of([found], "dice") == Limits(1.0)
    assert "-" in agreement_table([found])[3]
    assert agreement_table([found])[-1] == "1 frame of 1 patient"
    assert (found.dice, found.wrong_places, found.area_difference) == (1, 0, 0)
    project.close()


def test_the_stenosis_of_two_readers_is_compared_where_both_measured_it(project):
    images = project.images.ids()[:4]

    def measured(row: float, percent: float) -> dict[str, object]:
        numbers = {"row": row, "column": 9.0, "diameter_stenosis_percent": percent}
        return {"model": numbers | {"row": 0.0}, "corrected": numbers}

    first = (measured(8, 50), measured(8, 40), measured(8, 70), None)
    # Less by 2, more by 6, another lesion, and one that only one has measured.
    second = (measured(10, 48), measured(8, 46), measured(30, 20), measured(8, 30))
    for image, numbers in zip(images, first, strict=True):
        accept(project, image, mask_of(1), measurement=numbers)
    project = reopened(project, reader=BETA)
    for image, numbers in zip(images, second, strict=True):
        accept(project, image, mask_of(1), measurement=numbers)
    found = list(compare_readers(project, "", BETA))
    assert [f.stenosis_difference for f in found] == [-2, 6, None, None]
    limits = limits_of(found, "stenosis_difference")
    sd = 32**0.5  # of -2 and 6
    assert (limits.mean, limits.sd) == pytest.approx((2, sd))
    assert (limits.low, limits.high) == pytest.approx((2 - 1.96 * sd, 2 + 1.96 * sd))
    # Both frames are of one patient: no interval of the mean.
    assert limits.interval is None
    assert limits_of(found[2:], "stenosis_difference").mean is None
    project.close()


def test_disagreement_is_what_the_reviewer_sees_next(project):
    one, two, three = project.images.ids()[:3]
    two_readers(project).close()
    project = Project.open(project.folder, reader=REVIEWER)
    assert project.next_image() == one  # not compared yet: as listed
    find_disagreement(project)
    order = []
    for _ in range(3):
        image = project.next_image()
        order.append(image)
        accept(project, image, mask_of(1))
    assert order == [two, three, one]
    assert project.next_image() is None
    project.close()


def test_agreement_on_the_command_line(project, capsys, tmp_path):
    assert main(["agreement", str(project.folder)]) == 1
    assert "No two readers" in capsys.readouterr().err
    note_reader(project.id, BETA, "Dr Beta")
    two_readers(project).close()
    out = tmp_path / "agreement.json"
    assert main(["agreement", str(project.folder), "--json", str(out)]) == 0
    said = capsys.readouterr()
    lines = said.out.splitlines()
    assert lines[0] == "first reader and Dr Beta:"
    assert lines[-1] == "3 frames of 2 patients"
    cells = lines[3].split()[1:]
    assert cells[:2] + cells[3:] == ["0", "0.6667", "0.7031", "1", "-66.67", "-"]
    assert "3 frames that several readers have labelled wait" in said.err
    figures = json.loads(out.read_text())
    assert "Beta" not in out.read_text()
    assert figures["pairs"][0]["readers"] == ["first", BETA]
    assert figures["pairs"][0]["limits"]["wrong_places"]["mean"] == pytest.approx(1 / 3)
