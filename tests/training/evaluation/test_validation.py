"""Splits and folds by patient."""

from __future__ import annotations

from napari_cmunet.training.evaluation.validation import split_by_patient, validates


def test_a_patient_is_never_on_both_sides():
    patients = [f"p{i // 3}" for i in range(90)]
    train, held_out = split_by_patient(patients)
    assert sorted(train + held_out) == list(range(90))
    assert held_out
    assert all(validates(patients[i]) for i in held_out)
    assert not {patients[i] for i in train} & {patients[i] for i in held_out}
