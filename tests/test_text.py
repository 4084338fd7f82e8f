"""Sentences for people, joined."""

from __future__ import annotations

from napari_cmunet.util.text import some_of


def test_some_of_many_sentences():
    assert some_of(["One", "Two."]) == "One. Two."
    assert some_of(["a", "b", "c", "d", "e"]) == "a. b. c. And 2 more."


def test_sentences_of_one_reason_are_told_together():
    reason = "its image is no DICOM file."
    several = [f"Label {n}: {reason}" for n in range(5)]
    others = ["c.tif: it is empty", "d.tif: it is damaged", "e.tif: it is damaged"]
    told = f"Label 0 and 4 more: {reason}"
    assert some_of(several) == told
    assert some_of([*several[:2], others[0], *several[2:]]) == f"{told} {others[0]}."
    assert some_of([*several, *others], 1) == f"{told} And 3 more."
    assert some_of([*several, *others], 3).endswith("d.tif and 1 more: it is damaged.")
