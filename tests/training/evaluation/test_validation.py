"""Splits and folds by patient."""

from __future__ import annotations

from napari_cmunet.training.evaluation.validation import (
    labels_of_whole_patients,
    split_by_patient,
    spread_over_patients,
    validates,
)


def test_a_patient_is_never_on_both_sides():
    patients = [f"p{i // 3}" for i in range(90)]
    train, held_out = split_by_patient(patients)
    assert sorted(train + held_out) == list(range(90))
    assert held_out
    assert all(validates(patients[i]) for i in held_out)
    assert not {patients[i] for i in train} & {patients[i] for i in held_out}


def test_a_sample_has_as_many_patients_as_possible():
    patients = ["a", "a", "a", "b", "c", "b"]
    assert spread_over_patients(range(6), patients, 3) == [0, 3, 4]
    assert spread_over_patients([0, 1, 2, 5], patients, 3) == [0, 1, 5]
    assert spread_over_patients(range(6), patients, 9) == list(range(6))


def test_patients_are_sampled_whole():
    patients = ["a", "a", "a", "b", "c", "b"]
    assert labels_of_whole_patients(range(6), patients, 4) == [0, 1, 2, 4]
    assert labels_of_whole_patients([3, 4, 5], patients, 2) == [3, 5]
    assert labels_of_whole_patients(range(6), patients, 1) == [0, 1, 2]  # one at least
