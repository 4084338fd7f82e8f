"""Trainings of a real study, in real processes: how they end, and what follows."""

from __future__ import annotations

from napari_cmunet.gui.training.process import DONE
from tests.gui.training.conftest import settled


def test_a_better_model_takes_over_and_one_click_goes_back(
    make_study, add_model, make_training
):
    study = make_study(12)
    add_model(study, "weak", knows_arteries=False)
    training = make_training(study, "--steps", "120", "--learning-rate", "0.01")
    changes = []
    training.model_changed.connect(lambda version: changes.append(version.name))
    assert training.start()
    assert not training.start()  # one at a time
    ended = settled(training)
    print(ended)
    assert ended.outcome.kind == DONE
