"""Which image comes next: listed, at random, or where the model is least sure."""

from __future__ import annotations

import json

import pytest

from napari_cmunet.errors import ProjectError
from napari_cmunet.project.next_image import (
    RANDOM,
    RANDOM_SHARE,
    UNSURE,
    choose_next,
)
from tests.project.project_making import mask_of, reopened

IMAGES = [f"{n:012x}" for n in range(40)]
PATIENTS = {image: f"patient-{n // 4}" for n, image in enumerate(IMAGES)}
GAINS = {image: float(n) for n, image in enumerate(IMAGES)}


def walk(order: str, scores=GAINS, project: str = "s") -> list[str]:
    """Label every image in the order that is offered."""
    walked: list[str] = []
    while len(walked) < len(IMAGES):
        left = [image for image in IMAGES if image not in walked]
        walked.append(
            choose_next(
                order,
                left,
                project=project,
                after=walked[-1] if walked else None,
                patients=PATIENTS,
                labelled=set(walked),
                scores=scores,
            )
        )
    return walked


def test_at_random_every_project_has_its_own_order():
    first = walk(RANDOM)
    assert sorted(first) == IMAGES
    assert first == walk(RANDOM)
    assert first not in (IMAGES, walk(RANDOM, project="another"))


def test_least_sure_goes_through_the_patients_and_keeps_a_share_at_random():
    walked = walk(UNSURE)
    assert sorted(walked) == IMAGES
    best = [
        image
        for n, image in enumerate(walked)
        if GAINS[image]
        == max(
            GAINS[i]
            for i in IMAGES
            if PATIENTS[i] == PATIENTS[image] and i not in walked[:n]
        )
    ]
    # Three in four are the best of their patient; some at random are so by chance.
    assert len(best) >= len(walked) * (1 - 1.6 / RANDOM_SHARE)
    assert len({PATIENTS[image] for image in walked[:12]}) >= 9
    # At the same time it is no plain sorting by gain.
    assert walked != sorted(IMAGES, key=lambda image: -GAINS[image])


def test_what_nobody_has_scored_comes_last():
    known = dict.fromkeys(IMAGES[30:], 1.0)
    walked = walk(UNSURE, known)
    assert sum(image in known for image in walked[:10]) >= 5
    assert walk(UNSURE, {}) == walk(RANDOM)


def test_a_project_keeps_its_order_and_its_gains(project):
    ids = project.images.ids()
    assert project.next_image(ids[0]) == ids[1]  # as listed
    project.change_settings(next_image=UNSURE)
    model = project.model_sha256()
    assert len(model) == 64
    project.add_scores(model, {ids[4]: 50.0, ids[5]: 9.0})
    project.add_scores("f" * 64, dict.fromkeys(ids, 1.0))  # another model's
    project.save_scores()
    again = reopened(project)
    assert again.settings.next_image == UNSURE
    assert again.acquisition_scores() == {ids[4]: 50.0, ids[5]: 9.0}
    asked = {again.next_image(image) for image in ids[:4]}
    assert ids[4] in asked
    again.labels.accept(ids[4], 0, mask_of(1))
    again.skip(ids[5])
    assert not {again.next_image(image) for image in ids[:4]} & {ids[4], ids[5]}
    for image in ids[:3]:
        again.labels.accept(image, 0, mask_of(1))
    assert again.next_image(ids[3]) == ids[3]  # none other is left
    with pytest.raises(ProjectError):
        again.change_settings(next_image="backwards")


@pytest.mark.parametrize(
    "text", ["{", '{"models": 3}', '{"models": {"a": {"b": "c"}}}']
)
def test_damaged_gains_are_as_good_as_none(project, text):
    (project.folder / "acquisition_scores.json").write_text(text)
    again = reopened(project)
    assert again.acquisition_scores() == {}
    again.add_scores(again.model_sha256(), {again.images.ids()[0]: 2.0})
    again.save_scores()
    written = json.loads((again.folder / "acquisition_scores.json").read_text())
    assert again.acquisition_scores() in written["models"].values()
